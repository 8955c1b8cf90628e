//! Older copies put back: what is still held comes again, nothing counts twice, and what cannot fit is refused.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;

const DEVICES: &str =
    "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n";

fn simulated(plant: &Plant) {
    plant.write("sim.csv", "name,address,type,path\nparts,counter(step=1),u32,line/parts\n");
    plant.agent("a", DEVICES);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(status.success());
}

fn replace(plant: &Plant, name: &str) {
    std::fs::remove_dir_all(plant.dir().join(name)).unwrap();
    copy(&plant.dir().join(format!("{name}-copy")), &plant.dir().join(name));
}

#[test]
fn a_restored_hub_gets_again_what_agents_hold_and_a_newer_table_refuses_it() {
    let plant = Plant::new(&["a"]);
    simulated(&plant);
    let mut hub = plant.start_hub();
    let mut bridge = plant.start("bridge");
    let agent = plant.start("a");
    plant.settle_some(40);
    hub.kill();
    bridge.kill();
    for name in ["hub", "lake"] {
        copy(&plant.dir().join(name), &plant.dir().join(format!("{name}-copy")));
    }
    hub = plant.start_hub();
    bridge = plant.start("bridge");
    plant.settle_some(200);
    hub.kill();
    bridge.kill();

    // The table has rows of an epoch that the restored hub does not know: the same records come to it once more.
    replace(&plant, "hub");
    hub = plant.start_hub();
    bridge = plant.start("bridge");
    bridge.wait_for_line("the target is ahead of the hub's log", Duration::from_secs(30));
    bridge.kill();

    // With the table of that time everything is there again: the agent, which ran on, had it still.
    replace(&plant, "lake");
    let _bridge = plant.start("bridge");
    eventually(Duration::from_secs(60), "the agent's records again", || {
        let (code, report) = plant.reconcile();
        assert_eq!(code, 0, "{report:#}");
        (forebay_tests::plant::in_table(&report) > 250).then_some(())
    });
    agent.terminate();
    plant.settle(250);

    // Without its table nothing is on its way: the hub has it all, and its cursor has passed it.
    hub.kill();
    std::fs::remove_dir_all(plant.dir().join("lake")).unwrap();
    let (code, report) = plant.reconcile();
    assert_eq!(code, 1, "{report:#}");
}

#[test]
fn an_agent_restored_from_a_copy_of_its_running_self_balances() {
    let plant = Plant::new(&["a"]);
    simulated(&plant);
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    plant.settle_some(40);
    copy(&plant.dir().join("a"), &plant.dir().join("a-copy"));
    plant.settle_some(150);
    agent.kill();
    plant.settle_some(150); // what it accepted last may be on its disk only
    replace(&plant, "a");
    agent = plant.start("a");
    plant.settle_some(250);
    eventually(Duration::from_secs(20), "nothing is sent again and again", || {
        let agents = plant.try_get("/api/v1/agents")?;
        (agents["agents"][0]["backlog"].as_u64()? < 5).then_some(())
    });
    agent.terminate();
    plant.settle(250);
}
