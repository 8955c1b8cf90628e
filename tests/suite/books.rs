//! The books of a real plant: from what a device read to what the table holds, and what is kept apart on the way.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use forebay_tests::plant::Plant;
use forebay_tests::process::{eventually, forebay};
use serde_json::{Value, json};

const DEVICES: &str = r#"
[[edge.devices]]
name = "lab"
driver = "csv-folder"
folder = "files"
time = "time"
poll = "100ms"
points = "lab.csv"
"#;
const POINTS: &str = "name,address,type,unit,deadband,path\n\
    druck,Druck,f64,bar,1000,hall/lab/druck\ncount,Count,u32,,,hall/lab/count\n";

fn rows(from: u64, to: u64) -> String {
    let mut text = String::new();
    for n in from..to {
        let (h, m, s) = (n / 3600, n / 60 % 60, n % 60);
        writeln!(text, "2026-01-01 {h:02}:{m:02}:{s:02},{}.5,{n}", n % 10).unwrap();
    }
    text
}

fn append(plant: &Plant, text: &str) {
    let folder = plant.dir().join("files");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("1.csv")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn prepare() -> Plant {
    let plant = Plant::new(&["a"]);
    plant.write("lab.csv", POINTS);
    plant.agent("a", DEVICES);
    append(&plant, "time,Druck,Count\n");
    plant
}

/// `forebay quarantine` with the hub's token or on the folder: exit code and JSON lines.
fn quarantine(plant: &Plant, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = Command::new(forebay());
    command.arg("quarantine").args(arguments).arg("--json").current_dir(plant.dir());
    if !arguments.contains(&"--dir") {
        command.args(["--hub", &format!("http://{}", plant.http), "--token-file", "hub/token"]);
    }
    let output = command.output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), lines)
}

fn post(plant: &Plant, path: &str, body: &Value) -> String {
    let (body, mut answer) = (body.to_string(), String::new());
    let mut stream = TcpStream::connect(plant.http).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        plant.http,
        plant.token(),
        body.len()
    )
    .unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_value_read_is_accepted_filtered_or_unreadable_across_kills() {
    let plant = prepare();
    append(&plant, &rows(0, 600));
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    plant.settle(600);
    agent.kill();
    append(&plant, &rows(600, 900));
    append(&plant, "no time,1,2\n");
    append(&plant, &rows(900, 1000));
    let _agent = plant.start("a");
    eventually(Duration::from_secs(20), "the newest row", || {
        plant.last("hall/lab/count").filter(|last| last["v"] == 999)
    });
    let report = plant.settle(1000);
    let devices: Vec<&Value> = report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|line| line["devices"].as_array().unwrap())
        .filter(|device| device["device"] == "lab")
        .collect();
    let sum = |name: &str| devices.iter().map(|device| device[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("read"), sum("quarantined")), (2000, 1), "{report:#}");
    assert!(sum("dead_band") > 900, "{report:#}");
    for device in devices {
        let number = |name: &str| device[name].as_u64().unwrap();
        assert_eq!(number("read") + number("made"), number("dead_band") + number("received"), "{report:#}");
    }
    let (code, lists) = quarantine(&plant, &["list", "--dir", "."]);
    let bad = &lists[0]["lines"][0];
    assert_eq!((code, &bad["file"], &bad["text"]), (0, &json!("1.csv"), &json!("no time,1,2")));
}

#[test]
fn what_is_kept_apart_is_named_decided_and_comes_back_once() {
    let plant = prepare();
    append(&plant, &rows(0, 100));
    let _hub = plant.start_hub();
    let _agent = plant.start("a");
    eventually(Duration::from_secs(20), "the newest row", || {
        plant.last("hall/lab/count").filter(|last| last["v"] == 99)
    });
    let mut publish = Command::new("mosquitto_pub");
    publish.args(["-p", &plant.mqtt.port().to_string(), "-u", "a", "-P", "secret of a"]);
    // With its seal, as of a program that writes nonsense: without one it is damage on the way, and comes again.
    let (topic, mut garbage) = ("spBv1.0/plant/DDATA/a/lab", b"garbage".to_vec());
    proto::seal::put(topic, &mut garbage);
    let file = plant.dir().join("garbage");
    std::fs::write(&file, &garbage).unwrap();
    assert!(publish.args(["-t", topic, "-f"]).arg(&file).status().unwrap().success());
    eventually(Duration::from_secs(20), "the quarantine", || {
        plant.try_get("/api/v1/quarantine").filter(|list| list["waiting"] == 1)
    });
    let content = quarantine(&plant, &["show", "p0"]).1[0]["content"].as_str().unwrap().to_owned();
    assert!(content.starts_with("67617262616765"), "{content}");
    let (code, said) = quarantine(&plant, &["retry", "p0"]);
    assert!(code == 1 && said[0]["error"].as_str().unwrap().contains("stays in the quarantine"), "{said:?}");
    assert_eq!(quarantine(&plant, &["retry", "seven"]).0, 2);
    assert_eq!(quarantine(&plant, &["discard", "p0", "--reason", "a test"]).0, 0);
    assert_eq!(quarantine(&plant, &["discard", "p0", "--reason", "a test"]).0, 1);

    // The table cannot take the first record: the bridge would say so.
    let log = eventually(Duration::from_secs(20), "the plant log", || {
        let log = plant.try_get("/api/v1/reconcile")?["log"].clone();
        (log["end"].as_u64()? > 0).then_some(log)
    });
    let refusal = json!({"sink": "lake", "epoch": log["epoch"], "position": 0, "reason": "no such column"});
    let answer = post(&plant, "/api/v1/quarantine/refuse", &refusal);
    let answer: Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    let entry = answer["id"].as_str().unwrap().to_owned();
    let _bridge = plant.start("bridge");
    let report = eventually(Duration::from_secs(60), "all but one record in the table", || {
        let (code, report) = plant.reconcile();
        assert_eq!(code, 0, "{report:#}");
        (report["settled"] == true && report["lines"][0]["verdict"] == "quarantined").then_some(report)
    });
    let parts = report["lines"][0]["parts"].as_array().unwrap();
    assert_eq!((&parts[0]["start"], &parts[0]["place"]), (&json!(0), &json!("in quarantine")), "{report:#}");
    let mut live = Command::new(forebay());
    live.args(["reconcile", "--hub", &format!("http://{}", plant.http), "--token-file", "hub/token"]);
    let live = live.args(["--table", "lake"]).current_dir(plant.dir()).output().unwrap();
    let text = String::from_utf8(live.stdout).unwrap();
    assert!(live.status.success() && text.contains("in quarantine: refused by the table"), "{text}");
    assert_eq!(quarantine(&plant, &["list", "--dir", "."]).1[0]["entries"][0]["id"], entry);
    assert_eq!(quarantine(&plant, &["retry", "--all"]), (0, vec![json!({"id": entry, "state": "retried"})]));
    assert_eq!(quarantine(&plant, &["retry", &entry]).0, 1);
    let report = plant.settle(100);
    assert_eq!(report["lines"][0]["verdict"], "equal", "{report:#}");
}
