//! `forebay bench plc` against real processes: what a Modbus server shows reaches the subscriber through each agent.

use std::process::Command;

use forebay_tests::peers::python;
use forebay_tests::process::forebay;
use serde_json::Value;

#[test]
fn every_change_of_ten_thousand_registers_reaches_the_subscriber() {
    let folder = tempfile::tempdir().unwrap();
    let venv = python();
    let mut command = Command::new(forebay());
    command.args([
        "bench",
        "plc",
        "--case",
        "modbus",
        "--peer",
        "forebay,python",
        "--for",
        "2s",
        "--repeat",
        "1",
        "--json",
    ]);
    command.current_dir(folder.path()).env("FOREBAY_VENV", venv.parent().unwrap().parent().unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_str(&said).unwrap();
    let contestants = figures["cases"][0]["contestants"].as_array().unwrap();
    assert_eq!(contestants.len(), 2, "{figures:#}");
    for contestant in contestants {
        assert_eq!(contestant["failure"], Value::Null, "{figures:#}");
        let figure = |name: &str| contestant["median"][name].as_f64().unwrap();
        // Python may miss a step on a busy machine; ours reads each at least twice.
        let lost = if contestant["peer"] == "forebay" { 0.0 } else { 4_000.0 };
        assert!(figure("lost") <= lost && figure("changes_per_s") > 17_000.0, "{figures:#}");
        assert!(figure("p50_ms") > 1.0 && figure("p50_ms") <= figure("p99_ms"), "{figures:#}");
        assert!(figure("cores") > 0.0 && figure("rss_mb") > 5.0, "{figures:#}");
    }
}

#[test]
fn a_case_that_is_not_known_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(forebay());
    let output =
        command.args(["bench", "plc", "--case", "profinet"]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("modbus, modbus-all, opcua"), "{said}");
}
