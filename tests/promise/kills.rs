//! SIGKILL at random moments under load: hub, agents, bridge, and all of them among broken links.
//!
//! A long run is made of rounds, each with a plant of its own, so that it needs no more disk than one round.

use std::time::{Duration, Instant};

use forebay_tests::campaign::{Campaign, Load, Role, moment, number, say, seed};
use forebay_tests::random::Random;

/// Kills of one round.
const ROUND: u64 = 100;
/// For the last sample to reach the table, on a machine that is busy with other tests.
const SETTLE: Duration = Duration::from_secs(240);

/// Runs rounds of a campaign: `step` does one kill.
fn campaign(what: &str, kills: u64, agents: usize, mut step: impl FnMut(&mut Campaign, &mut Random)) {
    let values = number("FOREBAY_VALUES", 2_000);
    let (kills, mut random) = (number("FOREBAY_KILLS", kills), Random::new(seed()));
    let (begun, mut samples, mut slowest, mut done) = (Instant::now(), 0, Duration::ZERO, 0);
    while done < kills {
        let mut campaign = Campaign::new(Load::of(values, agents));
        campaign.start_all();
        std::thread::sleep(Duration::from_secs(2));
        for _ in 0..ROUND.min(kills - done) {
            step(&mut campaign, &mut random);
            std::thread::sleep(moment(&mut random));
            done += 1;
        }
        campaign.uplink.set_stalled(false);
        samples += campaign.settle_and_check(SETTLE);
        slowest = slowest.max(campaign.slowest_start);
        let time = begun.elapsed();
        say(&format!(
            "{what}: {done} kills in {time:.0?}, {samples} samples, 0 missing, 0 double; slowest start of the hub {slowest:.2?}"
        ));
    }
}

#[test]
fn hub_killed_under_load() {
    campaign("hub", 4, 2, |campaign, random| {
        campaign.kill(Role::Hub);
        std::thread::sleep(Duration::from_millis(random.below(200)));
        campaign.start(Role::Hub);
    });
}

#[test]
fn agents_killed_under_load() {
    campaign("agents", 6, 2, |campaign, random| {
        let agent = Role::Agent(usize::try_from(random.below(2)).unwrap());
        campaign.kill(agent);
        std::thread::sleep(Duration::from_millis(random.below(200)));
        campaign.start(agent);
    });
}

#[test]
fn everything_killed_and_every_link_broken_at_once() {
    campaign("everything", 7, 2, |campaign, random| match random.below(8) {
        0 => {
            campaign.kill(Role::Hub);
            campaign.start(Role::Hub);
        }
        1 | 2 => {
            let agent = Role::Agent(usize::try_from(random.below(2)).unwrap());
            campaign.kill(agent);
            campaign.start(agent);
        }
        3 => {
            campaign.kill(Role::Bridge);
            campaign.start(Role::Bridge);
        }
        4 => {
            campaign.uplink.cut();
            campaign.feed.cut();
        }
        5 => {
            campaign.uplink.set_stalled(true);
            campaign.kill(Role::Hub);
            campaign.start(Role::Hub);
            campaign.uplink.set_stalled(false);
        }
        6 => {
            // All at once, as when the power goes.
            campaign.kill(Role::Bridge);
            campaign.kill(Role::Hub);
            campaign.kill(Role::Agent(0));
            campaign.kill(Role::Agent(1));
            for role in [Role::Agent(0), Role::Bridge, Role::Hub, Role::Agent(1)] {
                campaign.start(role);
            }
        }
        _ => {
            campaign.feed.set_rate(200_000);
            campaign.uplink.set_down(true);
            std::thread::sleep(Duration::from_millis(random.below(500)));
            campaign.uplink.set_down(false);
            campaign.feed.set_rate(0);
        }
    });
}

/// The bridge under many kills a second, while it brings one plant log into a table in small commits. A round is one
/// table, from the log's beginning.
#[test]
fn bridge_killed_between_upload_commit_and_cursor() {
    let (kills, mut random) = (number("FOREBAY_KILLS", 15), Random::new(seed()));
    let mut campaign = Campaign::new(Load { agents: 1, points: 200, poll: Duration::from_millis(20) });
    campaign.start(Role::Hub);
    campaign.start(Role::Agent(0));
    campaign.write_bridge("lake", "max_wait = \"100ms\"");
    campaign.start(Role::Bridge);
    let filled = number("FOREBAY_SAMPLES", 8_000);
    campaign.plant.settle_some(filled);
    campaign.quiet();
    let reconciled = campaign.settle(SETTLE);
    let samples = campaign.check(&reconciled);
    campaign.kill(Role::Bridge);
    campaign.kill(Role::Agent(0)); // it would read once more every ten minutes
    let (begun, mut done, mut round) = (Instant::now(), 0, 0);
    while done < kills {
        let sink = format!("lake{round}");
        // Commits of 50 to 500 rows, so that a kill meets every stage of one.
        campaign.write_bridge(&sink, &format!("max_wait = \"100ms\"\nmax_rows = {}", 50 + random.below(450)));
        let most = (kills - done).min(500);
        let mut commits = 0;
        for _ in 0..most {
            campaign.start(Role::Bridge);
            let wait = match random.below(3) {
                0 => random.below(30_000),
                _ => random.below(150_000),
            };
            std::thread::sleep(Duration::from_micros(wait));
            campaign.kill(Role::Bridge);
            done += 1;
            if done % 50 == 0 {
                let now = commits_of(&campaign, &sink);
                if now == commits && now > 0 {
                    break; // all is in the table: a new one
                }
                commits = now;
            }
        }
        campaign.start(Role::Bridge);
        let report = campaign.settle(SETTLE);
        assert_eq!(campaign.check_table(&sink, &report), samples);
        campaign.kill(Role::Bridge);
        println!(
            "bridge: {done} kills in {:.0?}, {samples} samples in each of {} tables, {} commits in this one, 0 missing, 0 double",
            begun.elapsed(),
            round + 1,
            commits_of(&campaign, &sink)
        );
        std::fs::remove_dir_all(campaign.plant.dir().join(&sink)).unwrap();
        round += 1;
    }
}

/// Commits in a table's log.
fn commits_of(campaign: &Campaign, sink: &str) -> usize {
    let log = campaign.plant.dir().join(sink).join("_delta_log");
    let files = std::fs::read_dir(log).into_iter().flatten().flatten();
    files.filter(|file| file.file_name().to_string_lossy().ends_with(".json")).count()
}
