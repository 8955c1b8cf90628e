//! Files in a folder → agent → hub → Delta and Parquet, read by readers that are not ours, also after `kill -9`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::{python, run, script};
use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;

const DEVICES: &str = r#"
[[edge.devices]]
name = "lab"
driver = "csv-folder"
folder = "files"
time = "time"
poll = "200ms"
points = "lab.csv"
"#;
const POINTS: &str = "name,address,type,unit,path\n\
    druck,Druck,f64,bar,hall/lab/Öldruck\ncount,Count,u32,,hall/lab/count\nnote,Note,string,,hall/lab/note\n";

/// Rows `from..to` of the test's file: one a second from 2026-01-01.
fn rows(from: u64, to: u64) -> String {
    let mut text = String::new();
    for n in from..to {
        let (h, m, s) = (n / 3600, n / 60 % 60, n % 60);
        writeln!(text, "2026-01-01 {h:02}:{m:02}:{s:02},{}.5,{n},note {n}", n % 10).unwrap();
    }
    text
}

fn append(plant: &Plant, name: &str, text: &str) {
    use std::io::Write as _;
    let path = plant.dir().join("files").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn prepare(plant: &Plant) {
    plant.write("lab.csv", POINTS);
    plant.agent("a", DEVICES);
    append(plant, "1.csv", "time,Druck,Count,Note\n");
}

#[test]
fn rows_reach_every_reader_once_across_kills() {
    let plant = Plant::new(&["a"]);
    prepare(&plant);
    append(&plant, "1.csv", &rows(0, 2000));
    let mut hub = plant.start_hub();
    let mut bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    plant.settle(6000);
    agent.kill();
    append(&plant, "1.csv", &rows(2000, 2500));
    append(&plant, "1.csv", "2026-01-01 00:5"); // a half line: waits for its end
    agent = plant.start("a");
    eventually(Duration::from_secs(20), "the newest row", || {
        plant.last("hall/lab/count").filter(|last| last["v"] == 2499)
    });
    hub.kill();
    append(&plant, "1.csv", "0:00,1.5,77,late\nnot a time,1,2,3\n");
    append(&plant, "2.csv", &format!("time,Druck,Count,Note\n{}", rows(5000, 6000)));
    bridge.kill();
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let report = plant.settle(3 * 3501);
    let total: u64 =
        report["lines"].as_array().unwrap().iter().map(|l| l["in_table"].as_u64().unwrap()).sum();
    assert_eq!(total, 3 * 3501, "{report:#}");
    let quarantine = std::fs::read_to_string(find(plant.dir(), "quarantine.ndjson")).unwrap();
    assert!(quarantine.contains("not a time"), "{quarantine}");
    drop(agent);
    read_table(&plant, "delta", 3 * 3501);
}

#[test]
fn a_parquet_folder_holds_the_same() {
    let plant = Plant::with_parquet(&["a"]);
    prepare(&plant);
    append(&plant, "1.csv", &rows(0, 500));
    let _hub = plant.start_hub();
    let mut bridge = plant.start("bridge");
    let _agent = plant.start("a");
    plant.settle(1500);
    bridge.kill();
    append(&plant, "1.csv", &rows(500, 1000));
    let _bridge = plant.start("bridge");
    plant.settle(3000);
    read_table(&plant, "parquet", 3000);
}

/// Python readers open the table with no option and count rows, identities and values.
fn read_table(plant: &Plant, kind: &str, rows: u64) {
    let mut command = Command::new(python());
    command.arg(script("read_lake.py")).arg(kind).arg(plant.dir().join("lake")).arg(rows.to_string());
    run(&mut command);
}

fn find(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with(name) {
                return path;
            }
        }
    }
    panic!("no {name} below {}", folder.display());
}
