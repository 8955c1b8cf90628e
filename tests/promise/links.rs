//! Links that are cut for long, half open, or lead through a broker that is not ours.

use std::process::Command;
use std::time::{Duration, Instant};

use forebay_tests::campaign::{Campaign, Load, Role, moment, number, seed};
use forebay_tests::peers::program;
use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually, free_address};
use forebay_tests::random::Random;

use super::probe::Probe;

const SETTLE: Duration = Duration::from_secs(240);

/// The uplink is cut until a backlog is there; then live goes on at once, and history follows in order.
#[test]
fn a_long_cut_is_made_up_for_while_live_goes_on() {
    let values = number("FOREBAY_VALUES", 4_000);
    let backlog = number("FOREBAY_BACKLOG", 12_000);
    let watch = Duration::from_secs(number("FOREBAY_WATCH", 1));
    let mut campaign = Campaign::new(Load::of(values, 1));
    Probe::configure(&campaign);
    campaign.start_all();
    let probe = Probe::of(campaign.plant.mqtt);
    eventually(Duration::from_secs(30), "the probe sees values", || (probe.counts().0 > 3).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    probe.latencies();
    std::thread::sleep(watch);
    let calm = probe.latencies();
    let memory = campaign.agents[0].as_ref().unwrap().memory().0;

    campaign.uplink.set_down(true);
    let cut = Instant::now();
    let wanted = Duration::from_secs_f64(backlog as f64 / (campaign.load.points as f64 * 20.0));
    let mut most = memory;
    while cut.elapsed() < wanted {
        std::thread::sleep(Duration::from_millis(500).min(wanted));
        most = most.max(campaign.agents[0].as_ref().unwrap().memory().0);
    }
    let (before, position) = (probe.counts(), campaign.received());
    campaign.uplink.set_down(false);
    while campaign.received() == position {
        assert!(cut.elapsed() < wanted + Duration::from_secs(60), "no session again");
    }
    probe.latencies();
    let drained = Instant::now();
    let owed = (backlog * 8 / 10).max(1);
    while campaign.received() < position + owed {
        std::thread::sleep(Duration::from_millis(20));
        most = most.max(campaign.agents[0].as_ref().unwrap().memory().0);
        assert!(drained.elapsed() < Duration::from_secs(120) + wanted, "history does not come");
    }
    let rate = (campaign.received() - position) as f64 / drained.elapsed().as_secs_f64();
    let busy = probe.latencies();
    probe.check_order();
    eventually(Duration::from_secs(30), "history and live", || {
        let (live, history) = probe.counts();
        (history > before.1 && live > before.0).then_some(())
    });
    let samples = campaign.settle_and_check(SETTLE + wanted);
    probe.check_order();
    println!(
        "cut for {wanted:.1?}, {samples} samples; {rate:.0} values/s received afterwards; µs from reading to subscriber and \
         page: calm {calm:?}, while history came {busy:?}; agent {} MB + {:.1} MB",
        memory >> 20,
        (most.saturating_sub(memory)) as f64 / f64::from(1 << 20)
    );
}

/// Nothing gets through for more than 1.5 times the keep-alive, and nobody is told.
#[test]
fn a_half_open_link_loses_nothing() {
    let mut campaign = Campaign::new(Load::of(1_000, 1));
    campaign.start_all();
    campaign.plant.settle_some(500);
    campaign.uplink.set_stalled(true);
    std::thread::sleep(Duration::from_secs(16)); // the keep-alive is 10 s
    campaign.uplink.set_stalled(false);
    let samples = campaign.settle_and_check(SETTLE);
    let connections = campaign.uplink.connections();
    assert!(connections > 1, "the agent noticed: {connections} connections");
    println!("half open for 16 s: {samples} samples, {connections} connections");
}

fn mosquitto(campaign: &Campaign) -> Running {
    let config = campaign.plant.dir().join("mosquitto.conf");
    let running = Running::start(Command::new(program("mosquitto")).arg("-c").arg(&config));
    eventually(Duration::from_secs(10), "mosquitto listens", || {
        std::net::TcpStream::connect(campaign.plant.mqtt).ok()
    });
    running
}

/// The hub as a client of a broker that keeps nothing, which is killed like everything else.
#[test]
fn with_a_broker_that_is_not_ours_everything_is_killed() {
    let (kills, mut random) = (number("FOREBAY_KILLS", 6), Random::new(seed()));
    let load = Load::of(number("FOREBAY_VALUES", 2_000), 2);
    let address = free_address();
    let mut campaign = Campaign::of(Plant::with_outside_broker(&["a0", "a1"], address), load);
    let config = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nmax_packet_size 4194304\n",
        address.port(),
        address.ip()
    );
    campaign.plant.write("mosquitto.conf", &config);
    let mut broker = mosquitto(&campaign);
    campaign.start_all();
    campaign.plant.settle_some(100);
    let begun = Instant::now();
    for kill in 0..kills {
        match if kill < 3 { kill } else { random.below(3) } {
            0 => {
                broker.kill();
                std::thread::sleep(Duration::from_millis(random.below(500)));
                broker = mosquitto(&campaign);
            }
            1 => {
                campaign.kill(Role::Hub);
                campaign.start(Role::Hub);
            }
            _ => {
                let agent = Role::Agent(usize::try_from(random.below(2)).unwrap());
                campaign.kill(agent);
                campaign.start(agent);
            }
        }
        std::thread::sleep(moment(&mut random));
    }
    let samples = campaign.settle_and_check(SETTLE);
    println!(
        "{kills} kills with mosquitto between in {:.0?}: {samples} samples, 0 missing, 0 double",
        begun.elapsed()
    );
}
