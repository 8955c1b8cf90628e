//! The load against mosquitto: what is published arrives, and every figure is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::PathBuf;
use std::time::Duration;

use bench::broker::{Options, Peer, run, select};
use serde_json::Value;

fn measured(cases: &[&str], peers: Vec<Peer>) -> (Value, String) {
    let names: Vec<String> = cases.iter().map(ToString::to_string).collect();
    let dir = std::env::temp_dir().join(format!("forebay-bench-{}-{}", cases[0], std::process::id()));
    let options = Options {
        cases: select(&names).unwrap(),
        peers,
        running: None,
        program: PathBuf::from("no-forebay"),
        dir: dir.clone(),
        time: Duration::from_millis(500),
        repeat: 1,
    };
    let mut said = String::new();
    let figures = run(&options, &mut |text| said = format!("{said}{text}\n")).unwrap();
    std::fs::remove_dir_all(dir).ok();
    (figures, said)
}

#[test]
fn mosquitto_carries_every_message_of_both_qos_in_the_open_and_under_tls() {
    let (figures, said) = measured(&["1x10q0", "10x1q1", "tls-1x10", "latency-q1"], vec![Peer::Mosquitto]);
    let cases = figures["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4, "{figures}");
    for case in cases {
        for contestant in case["contestants"].as_array().unwrap() {
            assert_eq!(contestant["failure"], Value::Null, "{case}");
            let figure = |name: &str| contestant["median"][name].as_f64().unwrap();
            assert_eq!(figure("lost"), 0.0, "{case}");
            assert!(figure("peak_mb") > 1.0, "{case}");
            if case["case"] == "latency-q1" {
                assert!(figure("p50_us") > 1.0 && figure("p50_us") <= figure("p99_us"), "{case}");
            } else {
                assert!(figure("deliveries_per_s") > 100.0 && figure("cores") > 0.0, "{case}");
            }
        }
    }
    assert!(said.contains("mosquitto, TLS ÷ mosquitto, plain"), "{said}");
}

#[test]
fn a_broker_that_does_not_start_is_a_failure_of_its_own() {
    let (figures, said) = measured(&["1x1q0"], vec![Peer::Forebay, Peer::Mosquitto]);
    let contestants = &figures["cases"][0]["contestants"];
    assert!(contestants[0]["failure"].as_str().unwrap().contains("no-forebay"), "{contestants}");
    assert!(contestants[1]["median"]["deliveries_per_s"].as_f64().unwrap() > 100.0, "{contestants}");
    assert!(said.contains("no-forebay"), "{said}");
}
