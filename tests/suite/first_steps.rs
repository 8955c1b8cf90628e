//! The README's way to a plant of one's own: `init` three times into one folder, `check`, `run`, `reconcile`.

use std::process::{Command, Output};
use std::time::Duration;

use forebay_tests::process::{Running, eventually, forebay, free_address};

fn ask(arguments: &[&str]) -> Output {
    Command::new(forebay()).args(arguments).output().unwrap()
}

#[test]
fn the_templates_together_are_a_plant_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (mqtt, http) = (free_address().to_string(), free_address().to_string());
    let files = ["hub", "edge", "bridge"].map(|role| {
        assert!(ask(&["init", role, "--dir", dir]).status.success(), "{role}");
        let file = folder.path().join(format!("{role}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("127.0.0.1:1883", &mqtt).replace("127.0.0.1:8080", &http);
        std::fs::write(&file, text).unwrap();
        file
    });
    let again = ask(&["init", "hub", "--dir", dir]);
    assert_eq!(again.status.code(), Some(1), "a file that is there is never written over");

    let checked = Command::new(forebay()).arg("check").args(&files).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let mut plant = Running::start(Command::new(forebay()).arg("run").args(&files));
    eventually(Duration::from_secs(60), "rows in the table, and the balance of a running plant", || {
        let report = ask(&["reconcile", "--dir", dir, "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).ok()?;
        let rows = report["lines"][0]["in_table"].as_u64()?;
        (rows >= 4 && report["balances"] == true).then_some(())
    });
    plant.terminate();
    assert!(plant.wait(Duration::from_secs(40)).success(), "{}", plant.output());
    let report = ask(&["reconcile", "--dir", dir]);
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.status.success() && text.contains("each exactly once"), "{text}");
    for log in ["hub/plant-log", "hub/catalogue", "line-3/outbox"] {
        let verified = ask(&["log", "verify", folder.path().join(log).to_str().unwrap()]);
        assert!(verified.status.success(), "{log}: {verified:?}");
    }
    let whole = ask(&["log", "verify", dir]);
    assert!(whole.status.success(), "all logs of a folder at once: {whole:?}");
    let empty = tempfile::tempdir().unwrap();
    let no_log = ask(&["log", "verify", empty.path().to_str().unwrap()]);
    assert_eq!(no_log.status.code(), Some(1), "a folder without a log is not a whole log");
}
