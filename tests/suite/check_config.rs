//! `forebay check`: ten different mistakes in one file are ten messages with file, line, value and rule, exit 2.

use std::process::Command;

use forebay_tests::process::forebay;

const BROKEN: &str = r#"version = 2
enterprise = "acme"
site = "ant/werp"
[edge]
group = "antwerp"
node = "line#3"
data_dir = "line-3"
hub = "http://127.0.0.1"
when_full = "maybe"
colour = "red"
[[edge.devices]]
name = "press"
driver = "profibus"
points = "press.csv"
[[edge.devices]]
name = "mixer"
driver = "modbus-tcp"
address = "10.0.3.11:99999"
poll = "fast"
points = "mixer.csv"
"#;

#[test]
fn ten_mistakes_are_ten_messages() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.toml");
    std::fs::write(&file, BROKEN).unwrap();
    std::fs::write(folder.path().join("press.csv"), "name,address,type\na,hr:1,u16\n").unwrap();
    std::fs::write(folder.path().join("mixer.csv"), "name,address,type\nlevel,hr:1,u17\n").unwrap();
    let output = Command::new(forebay()).arg("check").arg("--json").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let expected = [
        ("broken.toml", 1, "2"),
        ("broken.toml", 3, "\"ant/werp\""),
        ("broken.toml", 6, "\"line#3\""),
        ("broken.toml", 8, "\"http://127.0.0.1\""),
        ("broken.toml", 9, "\"maybe\""),
        ("broken.toml", 10, "\"red\""),
        ("broken.toml", 13, "\"profibus\""),
        ("broken.toml", 18, "\"10.0.3.11:99999\""),
        ("broken.toml", 19, "\"fast\""),
        ("mixer.csv", 2, "u17"),
    ];
    let found: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (file, line, value) in expected {
        assert!(
            found.iter().any(|problem| {
                problem["severity"] == "mistake"
                    && problem["file"].as_str().is_some_and(|f| f.ends_with(file))
                    && problem["line"] == line
                    && problem["value"]
                        .as_str()
                        .is_some_and(|v| v.trim_matches('"') == value.trim_matches('"'))
                    && problem["rule"].as_str().is_some_and(|rule| rule.len() > 10)
            }),
            "no message for {file}:{line} = {value} in:\n{text}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{text}");
}

#[test]
fn a_good_file_is_called_good() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Command::new(forebay()).args(["init", "edge"]).output().unwrap();
    std::fs::write(folder.path().join("edge.toml"), &edge.stdout).unwrap();
    let list = String::from_utf8(edge.stderr).unwrap();
    let list: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    std::fs::write(folder.path().join("trial.csv"), list.join("\n") + "\n").unwrap();
    let output = Command::new(forebay()).arg("check").arg(folder.path().join("edge.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("good: edge agent"));
}

const PLANT: &str = r#"version = 1
enterprise = "acme"
site = "antwerp"
[edge]
group = "antwerp"
node = "line-3"
data_dir = "line-3"
hub = "mqtt://127.0.0.1:1883"
[[edge.devices]]
name = "press"
driver = "modbus-tcp"
address = "10.0.3.11"
limits = { hr = 100 }
points = "press.csv"
"#;

#[test]
fn what_is_hardly_meant_is_a_warning_and_refuses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plant.toml");
    std::fs::write(&file, PLANT).unwrap();
    let list = "name,address,type,unit\na,hr:1,float,KW\nb,hr:2,int16,\nc,hr:1,float,\nd,hr:99,uint32,\n";
    std::fs::write(folder.path().join("press.csv"), list).unwrap();
    let check = |strict: &[&str]| {
        let output =
            Command::new(forebay()).arg("check").args(strict).arg("--json").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
    let found: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, value, rule) in [
        (2, "KW", "did you mean kW?"),
        (3, "hr:2", "overlaps with hr:1 of a in line 2"),
        (4, "hr:1", "is the address of a in line 2 too, with the same type"),
        (5, "hr:99", "limits says that the device has 100"),
    ] {
        assert!(
            found.iter().any(|warning| warning["severity"] == "warning"
                && warning["line"] == line
                && warning["value"] == value
                && warning["file"].as_str().is_some_and(|file| file.ends_with("press.csv"))
                && warning["rule"].as_str().is_some_and(|text| text.contains(rule))),
            "no {rule:?} in:\n{text}"
        );
    }
    assert_eq!(found.len(), 4, "{text}");
    assert_eq!(check(&["--strict"]).0, Some(2));
}

#[test]
fn an_export_becomes_a_list_that_passes() {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("press.csv");
    std::fs::write(
        &export,
        "Tag Name,Address,Data Type,Client Access,Scan Rate,Eng Units\nTemp,400001,Short,RO,100,°C\nGrid,400010[4],Word Array,RO,100,\n",
    )
    .unwrap();
    let output = Command::new(forebay())
        .args(["points", "import"])
        .arg(&export)
        .args(["--from", "kepware"])
        .output()
        .unwrap();
    let (list, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "one tag was left out: {said}");
    assert!(said.contains("press.csv:3: Grid = Word Array: is an array"), "{said}");
    std::fs::write(folder.path().join("press.csv"), &list).unwrap();
    std::fs::write(folder.path().join("plant.toml"), PLANT).unwrap();
    let output = Command::new(forebay())
        .args(["check", "--strict"])
        .arg(folder.path().join("plant.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{list}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 point"), "{list}");
}
