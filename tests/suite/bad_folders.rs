//! Folders that cannot be used: each gives a message that says what to do, and nothing in them changes.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually, forebay};

const DEVICE: &str =
    "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n";
const POINTS: &str = "name,address,type,unit,path\nparts,counter(step=1),u32,,line/parts\n";

/// Every file below a folder, with its size and a checksum of its bytes.
fn content(dir: &Path) -> BTreeMap<String, (usize, u32)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(content(&path));
        } else if entry.file_name() != "lock" {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path.display().to_string(), (bytes.len(), crc32c::crc32c(&bytes)));
        }
    }
    found
}

/// `forebay` with these arguments: exit code and everything it printed.
fn run(plant: &Plant, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(forebay());
    let output = command.args(arguments).current_dir(plant.dir()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// A plant that has run: its processes are gone.
fn plant_with_data() -> Plant {
    let plant = Plant::new(&["a"]);
    plant.write("sim.csv", POINTS);
    plant.agent("a", DEVICE);
    let mut hub = plant.start_hub();
    let mut agent = plant.start("a");
    eventually(Duration::from_secs(30), "some values", || {
        plant.last("line/parts")?["v"].as_u64().filter(|v| *v > 40)
    });
    agent.kill();
    hub.kill();
    plant
}

#[track_caller]
fn refused(plant: &Plant, role: &str, folder: &str, words: &[&str]) {
    let before = content(&plant.dir().join(folder));
    let (code, text) = run(plant, &["run", &format!("{role}.toml")]);
    assert_eq!(code, 1, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(content(&plant.dir().join(folder)), before, "something was changed");
}

fn newest_segment(dir: &Path) -> std::path::PathBuf {
    let mut logs: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    logs.pop().unwrap()
}

#[test]
fn a_folder_of_a_newer_version_is_left_alone() {
    let plant = plant_with_data();
    for (role, folder, log) in [("hub", "hub", "hub/plant-log"), ("a", "a", "a/outbox")] {
        let segment = newest_segment(&plant.dir().join(log));
        let whole = std::fs::read(&segment).unwrap();
        let mut newer = whole.clone();
        newer[8] = 9;
        let crc = crc32c::crc32c(&newer[..60]).to_le_bytes();
        newer[60..64].copy_from_slice(&crc);
        std::fs::write(&segment, &newer).unwrap();
        refused(&plant, role, folder, &["format version 9", "Use the newer program"]);
        for action in ["verify", "inspect", "repair"] {
            let (code, text) = run(&plant, &["log", action, log]);
            assert!(code == 1 && text.contains("format version 9"), "{action}: {text}");
        }
        assert_eq!(std::fs::read(&segment).unwrap(), newer);
        std::fs::write(&segment, whole).unwrap();
    }
}

#[test]
fn two_processes_on_one_folder_are_told_apart() {
    let plant = plant_with_data();
    let hub = plant.start_hub();
    let mut agent = plant.start("a");
    agent.wait_for_line("outbox opened", Duration::from_secs(20));
    for (role, owner) in [("hub", hub.id()), ("a", agent.id())] {
        let (code, text) = run(&plant, &["run", &format!("{role}.toml")]);
        assert_eq!(code, 1, "{text}");
        let words = format!("is in use by another process (pid {owner}); stop that one first");
        assert!(text.contains(&words), "{text}");
    }
    let (code, text) = run(&plant, &["log", "repair", "hub", "--yes"]);
    assert!(code == 0 && text.contains("whole"), "{text}"); // nothing to do, so nothing is locked
    assert!(plant.try_get("/api/v1/health").is_some(), "the first one goes on");
}

#[test]
fn a_folder_of_another_user_or_without_rights_is_refused() {
    let plant = plant_with_data();
    let is_root = std::fs::metadata(plant.dir()).unwrap().uid() == 0;
    for role in ["hub", "a"] {
        let folder = plant.dir().join(role);
        let words = if is_root {
            std::os::unix::fs::chown(&folder, Some(12_345), None).unwrap();
            vec!["belongs to user 12345", "chown -R 0", "Nothing was changed"]
        } else {
            println!("not root: no folder can be given away here; its permissions are taken instead");
            std::fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
            vec!["cannot be written by this process", "chmod u+rwx", "Nothing was changed"]
        };
        refused(&plant, role, role, &words);
        let (code, text) = run(&plant, &["check", &format!("{role}.toml")]);
        assert!(code == 0 && text.contains("would refuse here"), "{text}");
    }
    std::fs::set_permissions(plant.dir().join("a"), Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(plant.dir().join("hub"), Permissions::from_mode(0o700)).unwrap();
    plant.write("file", "");
    let text = std::fs::read_to_string(plant.dir().join("a.toml")).unwrap();
    plant.write("b.toml", &text.replace("data_dir = \"a\"", "data_dir = \"file\""));
    let (code, text) = run(&plant, &["run", "b.toml"]);
    assert!(code == 1 && text.contains("is no folder; name another data_dir"), "{text}");
}

#[test]
fn a_relative_folder_is_that_beside_the_file_and_is_told() {
    let plant = plant_with_data();
    let expected = plant.dir().join("hub").display().to_string();
    let mut command = Command::new(forebay());
    let output = command.args(["check"]).arg(plant.dir().join("hub.toml")).current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(&format!("data in {expected}")), "{text}");
}

#[test]
fn verify_reads_what_stands_beside_the_logs() {
    let plant = Plant::new(&["a"]);
    plant.write("sim.csv", POINTS);
    plant.agent("a", DEVICE);
    {
        let mut hub = plant.start_hub();
        let _bridge = plant.start("bridge");
        let _agent = plant.start("a");
        plant.settle_some(60);
        hub.terminate();
        hub.wait(Duration::from_secs(20));
    }
    let (code, text) = run(&plant, &["log", "verify", "hub"]);
    assert!(code == 0 && text.contains("whole: hub/checkpoint/checkpoint"), "{text}");
    let (code, text) = run(&plant, &["log", "verify", "a"]);
    assert!(code == 0 && text.contains("whole: a/session"), "{text}");
    for file in ["hub/checkpoint/checkpoint", "hub/checkpoint/counted", "hub/mqtt/snapshot", "a/session"] {
        let path = plant.dir().join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 0x80;
        std::fs::write(&path, bytes).unwrap();
        let folder = file.split('/').next().unwrap();
        let (code, text) = run(&plant, &["log", "verify", folder]);
        assert!(code == 1 && text.contains(&format!("DAMAGED  {file}: ")), "{text}");
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_damaged_folder_is_repaired_offline_after_asking_and_by_the_hub_itself() {
    let plant = plant_with_data();
    let segment = newest_segment(&plant.dir().join("hub/plant-log"));
    let whole = std::fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    let at = 64 + (bytes.len() - 64) / 3;
    bytes[at] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();
    plant.write("hub/plant-log/sink%3Alake.cursor", "rubbish");
    let (code, text) = run(&plant, &["log", "verify", "hub"]);
    assert!(code == 1 && text.contains("DAMAGED") && text.contains("forebay log repair"), "{text}");
    let before = content(plant.dir());
    let (code, text) = run(&plant, &["log", "repair", "hub", "--dry-run"]);
    assert!(code == 1 && text.contains("lost: positions") && text.contains("not a whole cursor"), "{text}");
    let (code, text) = run(&plant, &["log", "repair", "hub"]);
    assert!(code == 1 && text.contains("--yes") && text.contains("Nothing was changed"), "{text}");
    assert_eq!(content(plant.dir()), before);
    let (code, text) = run(&plant, &["log", "repair", "hub", "--yes"]);
    assert!(code == 0 && text.contains("is kept as"), "{text}");
    let (code, text) = run(&plant, &["log", "verify", "hub"]);
    assert!(code == 0 && text.contains("positions are holes"), "{text}");
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    let kept = plant.dir().join(format!("hub/plant-log/damaged/{name}.1"));
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
    // The same damage again, and nobody repairs it: the hub comes up, says it, and everything new arrives.
    std::fs::write(&segment, &bytes).unwrap();
    let damaged_outbox = newest_segment(&plant.dir().join("a/outbox"));
    let mut outbox = std::fs::read(&damaged_outbox).unwrap();
    outbox[100] ^= 1;
    std::fs::write(&damaged_outbox, outbox).unwrap();
    let hub: Running = plant.start_hub();
    let _bridge = plant.start("bridge");
    let agent = plant.start("a");
    assert!(hub.output().contains("was damaged"), "{}", hub.output());
    eventually(Duration::from_secs(30), "live values", || {
        plant.last("line/parts").filter(|last| last["q"] == "good")
    });
    assert!(agent.output().contains("was damaged"), "{}", agent.output());
    let (_, ledger) = run(&plant, &["log", "verify", "hub/ledger"]);
    assert!(ledger.contains("whole"), "{ledger}");
    eventually(Duration::from_secs(40), "rows in the table", || {
        let rows = std::fs::read_dir(plant.dir().join("lake")).ok()?.count();
        (rows > 1).then_some(())
    });
}
