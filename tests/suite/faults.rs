//! One test per fault: after it the data is complete, and meanwhile nothing pretends to be good.

use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::{python, script};
use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually};
use serde_json::json;

const SIMULATED: &str = r#"
[[edge.devices]]
name = "sim"
driver = "simulated"
poll = "50ms"
points = "sim.csv"
"#;
const SIMULATED_POINTS: &str = "name,address,type,unit,path\n\
    parts,counter(step=1),u32,,line/parts\nlevel,\"sine(period=3s, amplitude=5, mean=20)\",f64,%,line/level\n";

fn simulated(plant: &Plant) {
    plant.write("sim.csv", SIMULATED_POINTS);
    plant.agent("a", SIMULATED);
}

fn rows_so_far(plant: &Plant) -> u64 {
    let (code, report) = plant.reconcile();
    assert_eq!(code, 0, "{report:#}");
    forebay_tests::plant::in_table(&report)
}

#[test]
fn hub_down_for_thirty_seconds() {
    let plant = Plant::new(&["a"]);
    simulated(&plant);
    let mut hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let _agent = plant.start("a");
    plant.settle_some(200);
    hub.kill();
    std::thread::sleep(Duration::from_secs(30));
    let _hub = plant.start_hub();
    // 30 s at 20 reads of 2 points a second were accepted meanwhile, and come as history.
    eventually(Duration::from_secs(60), "what was accepted meanwhile", || {
        (rows_so_far(&plant) > 1400).then_some(())
    });
}

#[test]
fn a_session_file_that_cannot_be_written_stops_nothing() {
    let plant = Plant::new(&["a"]);
    simulated(&plant);
    plant.write("a/session.new/in-the-way", ""); // as on a full disk: nothing can be written under this name
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    agent.wait_for_line("the session file cannot be written", Duration::from_secs(20));
    plant.settle_some(40);
}

#[test]
fn lake_unwritable_for_thirty_seconds() {
    let plant = Plant::new(&["a"]);
    simulated(&plant);
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let _agent = plant.start("a");
    plant.settle_some(100);
    // A file where the folder was: nobody can write there, not even root.
    let (lake, away) = (plant.dir().join("lake"), plant.dir().join("lake-away"));
    std::fs::rename(&lake, &away).unwrap();
    std::fs::write(&lake, "no folder").unwrap();
    std::thread::sleep(Duration::from_secs(30));
    let live = plant.last("line/parts").unwrap()["v"].as_u64().unwrap();
    assert!(live > 500, "live values go on: {live}");
    std::fs::remove_file(&lake).unwrap();
    std::fs::rename(&away, &lake).unwrap();
    eventually(Duration::from_secs(60), "the table catches up", || {
        (rows_so_far(&plant) > 1200).then_some(())
    });
}

fn plc(port: u16) -> Running {
    let mut command = Command::new(python());
    command.arg(script("plc.py")).arg(port.to_string());
    let mut running = Running::start(&mut command);
    running.wait_for_line("listening", Duration::from_secs(20));
    running
}

#[test]
fn plc_down_for_ten_seconds() {
    let plant = Plant::new(&["a"]);
    let port = forebay_tests::process::free_address().port();
    plant.write("plc.csv", "name,address,type,path\nn,hr:0,u16,line/n\nbad,hr:500,u16,line/bad\n");
    plant.agent(
        "a",
        &format!(
            "[[edge.devices]]\nname = \"plc\"\ndriver = \"modbus-tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             poll = \"100ms\"\nstale_after = \"2s\"\npoints = \"plc.csv\"\n"
        ),
    );
    let mut device = plc(port);
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let _agent = plant.start("a");
    let quality = |path: &str| plant.last(path).and_then(|last| last["q"].as_str().map(str::to_owned));
    let wait_for = |path: &'static str, quality_is: &'static str| {
        eventually(Duration::from_secs(15), &format!("{path} {quality_is}"), || {
            quality(path).filter(|q| q.starts_with(quality_is))
        });
    };
    wait_for("line/n", "good");
    wait_for("line/bad", "bad:device-exception:2"); // no such register; the other point stays Good
    assert_eq!(quality("line/n").as_deref(), Some("good"));
    let health = |is: &dyn Fn(&serde_json::Value) -> bool, what: &str| {
        eventually(Duration::from_secs(15), what, || {
            let agents = plant.try_get("/api/v1/agents")?;
            Some(agents["agents"][0]["devices"][0]["health"].clone()).filter(|health| is(health))
        })
    };
    let up =
        health(&|told| told["points"]["good"] == 1 && told["points"]["bad"] == 1, "the device is told of");
    assert_eq!(
        (&up["state"], &up["driver"], &up["error"]),
        (&json!("up"), &json!("modbus-tcp"), &json!(null))
    );
    assert!(up["requests"].as_u64() > Some(0) && up["p99_ms"].as_f64() > Some(0.0), "{up}");
    let look = plant.try_get("/api/v1/look?path=line/n").unwrap();
    assert_eq!(
        (&look["address"], &look["raw_type"], &look["quality"]),
        (&json!("hr:0"), &json!("uint16"), &json!("good"))
    );
    assert_eq!(look["raw"], look["value"], "nothing is done to it: {look}");
    let look = plant.try_get("/api/v1/look?path=line/bad").unwrap();
    assert_eq!((&look["raw"], &look["quality"]), (&json!(null), &json!("bad:device-exception:2")));
    device.kill();
    wait_for("line/n", "stale");
    let down = health(&|told| told["state"] == "down", "the fault is told within a second or two");
    assert!(
        down["error"].as_str().is_some_and(|error| !error.is_empty()) && down["points"]["stale"] == 2,
        "{down}"
    );
    eventually(Duration::from_secs(5), "the device is dead", || {
        let agents = plant.try_get("/api/v1/agents")?;
        (agents["agents"][0]["devices"][0]["online"] == false).then_some(())
    });
    std::thread::sleep(Duration::from_secs(7));
    let _device = plc(port);
    wait_for("line/n", "good");
    plant.settle_some(50);
}

#[test]
fn a_device_that_does_not_exist_disturbs_no_other() {
    let plant = Plant::new(&["a"]);
    let nobody = forebay_tests::process::free_address();
    plant.write("sim.csv", SIMULATED_POINTS);
    plant.write("plc.csv", "name,address,type,path\nn,hr:0,u16,line/nobody\n");
    plant.agent(
        "a",
        &format!(
            "[[edge.devices]]\nname = \"plc\"\ndriver = \"modbus-tcp\"\naddress = \"{nobody}\"\n\
             poll = \"100ms\"\nstale_after = \"2s\"\npoints = \"plc.csv\"\n{SIMULATED}"
        ),
    );
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let agent = plant.start("a");
    plant.settle_some(200);
    let good = plant.last("line/parts").unwrap();
    assert_eq!(good["q"], "good", "{good}");
    let never = plant.last("line/nobody").map(|last| last["q"].to_string());
    assert!(never.as_deref().is_none_or(|q| !q.contains("good")), "{never:?}");
    let agents = plant.try_get("/api/v1/agents").unwrap();
    let online = |name: &str| {
        let devices = agents["agents"][0]["devices"].as_array().unwrap();
        devices.iter().any(|device| device["name"] == name && device["online"] == true)
    };
    assert!(online("sim") && !online("plc"), "{agents:#}");
    let never_there =
        eventually(Duration::from_secs(15), "a device that never answered is shown with its error", || {
            let agents = plant.try_get("/api/v1/agents")?;
            let devices = agents["agents"][0]["devices"].as_array()?.clone();
            devices
                .into_iter()
                .find(|device| device["name"] == "plc" && device["health"]["error"].is_string())
        });
    assert_eq!(
        (&never_there["online"], &never_there["health"]["points"]["good"]),
        (&json!(false), &json!(0))
    );
    assert!(agent.output().contains(&nobody.to_string()), "the device is named:\n{}", agent.output());
}
