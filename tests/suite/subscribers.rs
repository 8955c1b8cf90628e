//! MQTT clients that are not ours read the JSON tree and the Sparkplug topics; they may write nothing.

use std::process::{Command, Output};
use std::time::Duration;

use forebay_tests::peers::{program, python, script};
use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;

fn plant_with_values() -> (Plant, Vec<forebay_tests::process::Running>) {
    let plant = Plant::new(&["a"]);
    plant.write(
        "sim.csv",
        "name,address,type,unit,path\nparts,counter(step=1),u32,,line/parts\n\
         druck,\"sine(period=2s, amplitude=1, mean=5)\",f64,bar,halle/Öl+Gas/#1/druck\n",
    );
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n",
    );
    let running = vec![plant.start_hub(), plant.start("a")];
    eventually(Duration::from_secs(30), "live", || plant.last("line/parts"));
    (plant, running)
}

fn address(plant: &Plant) -> [String; 2] {
    [plant.mqtt.ip().to_string(), plant.mqtt.port().to_string()]
}

#[test]
fn the_json_tree_is_read_by_paho_and_mosquitto() {
    let (plant, _running) = plant_with_values();
    let [host, port] = address(&plant);
    let paho = |filter: &str, count: &str, seconds: &str| -> Output {
        let mut command = Command::new(python());
        command.arg(script("subscribe.py")).args([&host, &port, filter, count, seconds]).output().unwrap()
    };
    let output = paho("acme/works/line/parts", "12", "15");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let messages: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let payloads: Vec<serde_json::Value> =
        messages.iter().map(|m| serde_json::from_str(m["payload"].as_str().unwrap()).unwrap()).collect();
    assert!(payloads.iter().all(|p| p["q"] == "good" && p["t"].as_str().unwrap().ends_with('Z')), "{text}");
    assert!(payloads.windows(2).all(|two| two[0]["v"].as_u64() <= two[1]["v"].as_u64()), "{text}");
    assert_eq!(messages[0]["retain"], true, "answered as retained: {text}");
    // 20 reads a second, at most 10 messages.
    let output = paho("acme/works/line/parts", "60", "4");
    let count = String::from_utf8(output.stdout).unwrap().lines().count();
    assert!((20..=48).contains(&count), "{count} messages in 4 s");

    let output = Command::new(program("mosquitto_sub"))
        .args(["-h", &host, "-p", &port, "-t", "acme/works/halle/#", "-v", "-C", "3", "-W", "10"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("acme/works/halle/Öl%2BGas/%231/druck {") && first.contains("\"u\":\"bar\""),
        "{first}"
    );
}

#[test]
fn anonymous_clients_read_and_never_write() {
    let (plant, _running) = plant_with_values();
    let [host, port] = address(&plant);
    let before = plant.last("line/parts").unwrap();
    for topic in ["spBv1.0/plant/NDEATH/a", "spBv1.0/STATE/forebay", "acme/works/line/parts", "anything"] {
        Command::new(program("mosquitto_pub"))
            .args(["-h", &host, "-p", &port, "-t", topic, "-m", "{\"v\":-1}", "-q", "1"])
            .output()
            .unwrap();
    }
    let wrong_password = Command::new(program("mosquitto_sub"))
        .args(["-h", &host, "-p", &port, "-u", "a", "-P", "wrong", "-t", "#", "-C", "1", "-W", "3"])
        .output()
        .unwrap();
    assert!(!wrong_password.status.success(), "a wrong password was accepted");
    eventually(Duration::from_secs(5), "values go on", || {
        plant.last("line/parts").filter(|last| last["v"].as_u64() > before["v"].as_u64())
    });
    let state = Command::new(program("mosquitto_sub"))
        .args(["-h", &host, "-p", &port, "-t", "spBv1.0/STATE/forebay", "-C", "1", "-W", "5"])
        .output()
        .unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
    assert!(state["online"] == true && state["timestamp"].is_u64(), "{state}");
}
