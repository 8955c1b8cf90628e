//! The hub comes back, and all agents of a large plant with it, at once.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_tests::campaign::{Campaign, Load, Role, number};
use forebay_tests::peers::{python, run};
use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;

use super::light_agents::{LightAgents, POINTS, password};

/// Identities with tokens, which cost the hub nothing to check (a password costs some 15 ms of a core: `FOREBAY_PASSWORDS=1`).
fn tokens(light: usize) -> String {
    let script =
        "import hashlib, sys\nfor line in sys.argv[1:]: print(hashlib.sha256(line.encode()).hexdigest())";
    let output = run(Command::new(python()).args(["-c", script]).args((0..light).map(password)));
    let hashes = String::from_utf8(output.stdout).unwrap();
    let identity = |(n, hash): (usize, &str)| {
        format!(
            "[[identities]]\nname = \"l{n}\"\nnode = \"plant/l{n}\"\nroles = [\"agent\"]\ntoken = \"sha256:{hash}\"\n"
        )
    };
    hashes.lines().enumerate().map(identity).collect()
}

#[test]
fn all_agents_come_back_at_once() {
    let (light, real) = (number("FOREBAY_LIGHT", 40), number("FOREBAY_REAL", 2));
    let rounds = number("FOREBAY_ROUNDS", 1);
    let (light, real) = (usize::try_from(light).unwrap(), usize::try_from(real).unwrap());
    let with_passwords = number("FOREBAY_PASSWORDS", 0) == 1;
    let with_password = if with_passwords { light } else { 0 };
    let names: Vec<String> =
        (0..real).map(|n| format!("a{n}")).chain((0..with_password).map(|n| format!("l{n}"))).collect();
    let plant = Plant::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // All of them have one address here, of which the hub takes 1000 connections unless it is told otherwise.
    let hub = std::fs::read_to_string(plant.dir().join("hub.toml")).unwrap();
    let limits = "[hub.broker.limits]\nconnections = 4000\nconnections_per_address = 4000\n";
    plant.write("hub.toml", &(hub + limits));
    if !with_passwords {
        let access = plant.dir().join("hub/access.toml");
        let text = std::fs::read_to_string(&access).unwrap() + &tokens(light);
        std::fs::write(access, text).unwrap();
    }
    let load = Load { agents: real, points: 20, poll: Duration::from_millis(200) };
    let mut campaign = Campaign::of(plant, load);
    campaign.start_all();
    let agents = LightAgents::start(light, campaign.plant.mqtt);
    let settled = |session| {
        let begun = Instant::now();
        eventually(Duration::from_secs(120), "all agents are settled", || {
            let settled = agents.settled(session);
            (settled == light).then_some(()).or_else(|| {
                if begun.elapsed() > Duration::from_secs(115) {
                    println!("{settled} of {light} settled; {:?}", agents.why.lock().unwrap().last());
                }
                None
            })
        });
        begun.elapsed()
    };
    println!("first: {light} settled in {:.2?}", settled(0));
    for _ in 0..rounds {
        let session =
            agents.progress.iter().map(|agent| agent.sessions.load(Ordering::SeqCst)).max().unwrap_or(0);
        let least =
            agents.progress.iter().map(|agent| agent.sessions.load(Ordering::SeqCst)).min().unwrap_or(0);
        assert_eq!(session, least, "one session each so far");
        campaign.kill(Role::Hub);
        std::thread::sleep(Duration::from_secs(2));
        campaign.start(Role::Hub);
        let took = settled(session);
        let online = || {
            let agents = campaign.plant.try_get("/api/v1/agents")?;
            let online = agents["agents"].as_array()?.iter().filter(|agent| agent["online"] == true).count();
            (online == light + real).then_some(())
        };
        eventually(Duration::from_secs(60), "all agents are online", online);
        println!("{light} light and {real} real agents: settled {took:.2?} after the hub was ready");
    }
    agents.stop_accepting();
    std::thread::sleep(Duration::from_millis(500));
    let accepted: u64 = agents.progress.iter().map(|agent| agent.accepted.load(Ordering::SeqCst)).sum();
    eventually(Duration::from_secs(30), "every record is covered", || {
        let covered: u64 = agents.progress.iter().map(|agent| agent.covered.load(Ordering::SeqCst)).sum();
        (covered == accepted).then_some(())
    });
    campaign.quiet();
    let report = campaign.settle(Duration::from_secs(120));
    drop(agents);
    let rows = campaign.check_rows_of("lake", &report, light * POINTS as usize);
    let of_light: u64 = report["lines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|line| line["agent"].as_str().is_some_and(|agent| agent.starts_with("plant/l")))
        .filter_map(|line| line["in_table"].as_u64())
        .sum();
    assert_eq!(of_light, accepted * u64::from(POINTS), "what the light agents accepted");
    println!("{rows} samples in the table, each once");
}
