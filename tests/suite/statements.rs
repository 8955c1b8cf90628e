//! The manifests of the standards' statements in `tests/conformance/`, held together with the lists of their numbers
//! and with what the conformance tests say that they show. When a test's citations change, this says what the manifest
//! has to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use forebay_tests::peers::repository;

/// Where the tests of what is asked of a server are.
const TESTS: &str = "hub/tests/mqtt_conformance";

/// Standards as the tests cite them, their files in `tests/conformance/`, and how many statements each has.
const STANDARDS: [(&str, &str, usize); 3] = [
    ("5.0", "mqtt-5.0", 251),
    ("3.1.1", "mqtt-3.1.1", 142),
    // Only what binds servers: sections 10.1.3 and 10.1.4.
    ("Sparkplug 3.0", "sparkplug-3.0-server", 11),
];

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `3.1.2: 1-30` as thirty ids of MQTT; Sparkplug's stand as they are.
fn listed(file: &str) -> Vec<String> {
    let text = read(repository().join(format!("tests/conformance/{file}.ids")));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut ids = Vec::new();
    for line in lines {
        let Some((section, range)) = line.split_once(": ") else {
            ids.push(line.to_owned());
            continue;
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let numbers = first.parse::<u32>().unwrap()..=last.parse().unwrap();
        ids.extend(numbers.map(|number| format!("MQTT-{section}-{number}")));
    }
    ids
}

/// Test → ids it cites, per standard.
fn cited() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut tests = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join(TESTS)).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (mut comment, mut is_test) = (Vec::new(), false);
        for line in read(path).lines() {
            if let Some(words) = line.strip_prefix("///") {
                comment.push(words.trim().to_owned());
            } else if line == "#[test]" {
                is_test = true;
            } else if !line.starts_with("#[") {
                let name = line.strip_prefix("fn ").and_then(|line| line.split_once('('));
                if let (Some((name, _)), true) = (name, is_test) {
                    tests.insert(format!("{module}::{name}"), citations(&comment));
                }
                (comment, is_test) = (Vec::new(), false);
            }
        }
    }
    tests
}

/// `- 5.0: [MQTT-1.5.4-1]` and the lines that go on with it.
fn citations(comment: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_version: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut version = None;
    for line in comment {
        if let Some((head, _)) = line.strip_prefix("- ").and_then(|line| line.split_once(": ")) {
            version = Some(head.to_owned());
        }
        let Some(version) = &version else { continue };
        let ids =
            line.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(id, _)| id.to_owned());
        by_version.entry(version.clone()).or_default().extend(ids);
    }
    by_version
}

#[test]
fn every_statement_has_its_tests_or_a_reason() {
    let tests = cited();
    assert!(tests.len() > 100, "only {} tests were found in {TESTS}", tests.len());
    for (test, versions) in &tests {
        let known: Vec<&str> = STANDARDS.iter().map(|(version, ..)| *version).collect();
        assert!(versions.values().any(|ids| !ids.is_empty()), "{test} cites no statement");
        assert!(versions.keys().all(|version| known.contains(&version.as_str())), "{test}: {versions:?}");
    }
    let mut wrong = Vec::new();
    for (version, file, count) in STANDARDS {
        let text = read(repository().join(format!("tests/conformance/{file}.toml")));
        let manifest: Result<toml::Table, _> = text.parse();
        let manifest = manifest.unwrap_or_else(|error| panic!("{version}: {error}"));
        let statements = manifest["statements"].as_table().unwrap();
        let ids = listed(file);
        assert_eq!(ids.len(), count, "{version}: the list itself");
        let (listed, kept): (BTreeSet<&str>, BTreeSet<&str>) =
            (ids.iter().map(String::as_str).collect(), statements.keys().map(String::as_str).collect());
        let missing: Vec<_> = listed.difference(&kept).collect();
        let unknown: Vec<_> = kept.difference(&listed).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "{version}: {missing:?} missing, {unknown:?} unknown"
        );
        for (test, versions) in &tests {
            for id in versions.get(version).into_iter().flatten() {
                assert!(listed.contains(id.as_str()), "{test} cites {id}, which {version} does not have");
            }
        }
        for (id, statement) in statements {
            wrong.extend(wrong_with(version, id, statement.as_table().unwrap(), &tests));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an entry of the manifest does not say as it should.
fn wrong_with(
    version: &str,
    id: &str,
    statement: &toml::Table,
    tests: &BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
) -> Option<String> {
    let text = |key: &str| statement.get(key).and_then(toml::Value::as_str);
    let named = statement.get("tests").and_then(toml::Value::as_array);
    let named: Vec<&str> = named.into_iter().flatten().filter_map(toml::Value::as_str).collect();
    let cite = |versions: &BTreeMap<String, BTreeSet<String>>| {
        versions.get(version).is_some_and(|ids| ids.contains(id))
    };
    let citing: Vec<&str> =
        tests.iter().filter(|(_, versions)| cite(versions)).map(|(test, _)| test.as_str()).collect();
    let of_clients = text("for") == Some("client");
    let problem = if statement.keys().any(|key| !["for", "says", "tests", "why"].contains(&key.as_str())) {
        "has an unknown key".to_owned()
    } else if !matches!(text("for"), Some("client" | "server" | "both"))
        || text("says").is_none_or(str::is_empty)
    {
        "does not say whom it binds, or what it says".to_owned()
    } else if named != citing {
        format!("names {named:?}, but is cited by tests = {citing:?}")
    } else if named.is_empty() && text("why").is_none_or(str::is_empty) && !of_clients {
        "has neither a test nor a reason for none".to_owned()
    } else if !named.is_empty() && text("why").is_some() {
        "has tests and a reason for none".to_owned()
    } else {
        return None;
    };
    Some(format!("{version} {id} {problem}"))
}
