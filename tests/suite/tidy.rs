//! The rule-book as a test: layers, orphans, `//!`, banned names. Prints the ten longest files for whoever comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use forebay_tests::peers::repository;

/// Which crates of ours each crate may use; direction of docs/ARCHITECTURE.md.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("durable-log", &[]),
    ("proto", &["model"]),
    ("runtime", &["model", "proto"]),
    ("edge-agent", &["model", "proto", "durable-log", "runtime"]),
    ("hub", &["model", "proto", "durable-log", "runtime"]),
    ("bridge", &["model", "proto", "runtime"]),
    ("forebay-bench", &["model", "proto", "durable-log", "runtime", "edge-agent", "hub", "bridge"]),
    ("forebay-instructions", &["model", "proto", "durable-log"]),
    ("simulator", &["model", "proto", "durable-log", "runtime", "edge-agent", "hub", "bridge"]),
    (
        "cli",
        &[
            "model",
            "proto",
            "durable-log",
            "runtime",
            "edge-agent",
            "hub",
            "bridge",
            "forebay-bench",
            "simulator",
        ],
    ),
    ("forebay-tests", &["model", "proto", "durable-log", "runtime"]),
];

/// Crates that only one of ours may name (invariants 12 and 14).
const ONLY_IN: &[(&str, &str)] = &[
    ("arrow", "bridge"),
    ("parquet", "bridge"),
    ("delta_kernel", "bridge"),
    ("delta_kernel_default_engine", "bridge"),
    ("object_store", "bridge"),
    ("argon2", "hub"),
];

/// Names that hide what a file owns.
const REFUSED_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc", "mod"];

/// What the code of a folder must not name (invariants 10, 11, 15 and 16).
const NEVER_NAMED: &[(&str, &[&str])] = &[
    ("edge-agent/src/drivers", &["proto::", "durable_log::", "crate::outbox", "crate::uplink"]),
    ("hub/src/broker", &["crate::host", "crate::store", "crate::api"]),
    ("hub/src/broker/core", &["tokio::net", "tokio::fs", "std::fs", "std::net::Tcp"]),
    ("hub/src/broker/journal", &["super::core", "super::door", "tokio::net"]),
    ("hub/src/host", &["crate::broker::embedded", "crate::api"]),
    ("hub/src/store", &["crate::api"]),
    ("hub/src/live", &["crate::api"]),
    ("hub/src/commands", &["crate::api"]),
];

#[test]
fn what_a_folder_knows_nothing_of_it_does_not_name() {
    for file in rust_files() {
        let never: Vec<&str> = NEVER_NAMED
            .iter()
            .filter(|(folder, _)| {
                let folder = repository().join(folder);
                file.starts_with(&folder) || file == folder.with_extension("rs")
            })
            .flat_map(|(_, never)| never.iter().copied())
            .collect();
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in &never {
                assert!(!line.contains(name), "{} names {name}: {line}", file.display());
            }
        }
    }
    assert!(manifests()["model"].is_empty(), "model is std only");
}

#[test]
fn layers_point_one_way() {
    let ours: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, dependencies) in manifests() {
        let layer = MAY_USE.iter().find(|(n, _)| *n == name);
        let allowed = layer.unwrap_or_else(|| panic!("{name} has no layer")).1;
        for dependency in dependencies {
            let mine = dependency.as_str();
            assert!(!ours.contains(mine) || allowed.contains(&mine), "{name} must not use {mine}");
            if let Some((_, only)) = ONLY_IN.iter().find(|(n, _)| *n == mine) {
                assert_eq!(name, *only, "{mine} may appear in {only} alone");
            }
        }
    }
}

#[test]
fn every_file_says_what_it_owns_and_somebody_declares_it() {
    for file in rust_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let generated = file.components().any(|part| part.as_os_str() == "generated");
        assert!(generated || text.starts_with("//!"), "{} does not open with //!", file.display());
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(!REFUSED_NAMES.contains(&stem), "{}: name it after the concept it owns", file.display());
        assert!(generated || is_declared(&file), "{}: no file declares it as a module", file.display());
    }
}

#[test]
fn no_unfinished_code_is_committed() {
    for file in rust_files() {
        if file.ends_with("suite/tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["todo!(", "unimplemented!(", "#[ignore", "dbg!("] {
            assert!(!text.contains(word), "{} contains {word}", file.display());
        }
    }
}

#[test]
fn the_ten_longest_files_are_printed() {
    let mut sizes: Vec<(usize, PathBuf)> = rust_files()
        .into_iter()
        .map(|file| (std::fs::read_to_string(&file).unwrap().lines().count(), file))
        .collect();
    sizes.sort_by(|a, b| b.cmp(a));
    for (lines, file) in sizes.iter().take(10) {
        println!("{lines:5} {}", file.strip_prefix(repository()).unwrap().display());
    }
    assert!(sizes.len() > 50, "the walk lost most of the tree");
}

/// Crate name → names of its dependencies (not the dev ones).
fn manifests() -> BTreeMap<String, Vec<String>> {
    let root: toml::Table = read_toml(&repository().join("Cargo.toml"));
    let members = root["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| {
            let manifest = read_toml(&repository().join(member.as_str().unwrap()).join("Cargo.toml"));
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
            (name, dependencies.map(|table| table.keys().cloned().collect()).unwrap_or_default())
        })
        .collect()
}

fn read_toml(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path).unwrap();
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every `.rs` file of the workspace's crates.
fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(repository())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether a parent module or cargo itself knows the file.
fn is_declared(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let folder = file.parent().unwrap();
    if ["lib.rs", "main.rs", "build.rs"].contains(&name) {
        return true;
    }
    // Integration tests, benches, examples and binaries are found by cargo.
    let by_cargo = ["tests", "benches", "examples", "bin"];
    if by_cargo.iter().any(|own| folder.ends_with(own))
        && folder.parent().unwrap().join("Cargo.toml").exists()
    {
        return true;
    }
    let declaration = [format!("mod {stem};"), format!("mod {stem} {{")];
    let parents = [
        folder.with_extension("rs"),
        folder.join("lib.rs"),
        folder.join("main.rs"),
        folder.parent().unwrap().join("lib.rs"),
    ];
    parents
        .iter()
        .filter_map(|parent| std::fs::read_to_string(parent).ok())
        .any(|text| declaration.iter().any(|declared| text.contains(declared.as_str())))
}
