//! The commands on real files: what they write is what the hub reads.

use clap::Parser as _;

use super::*;
use crate::arguments::{Arguments, Command};

/// Runs `forebay user ...`; its exit code.
fn user(arguments: &[&str]) -> u8 {
    let all = ["forebay", "user"].iter().chain(arguments);
    match Arguments::try_parse_from(all).unwrap().command {
        Command::User(options) => run(&options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn identities_are_added_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub/access.toml");
    let at = ["--file", file.to_str().unwrap()];
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "pass word\nsecond line\n").unwrap();
    let secret = secret.to_str().unwrap();
    let with = |arguments: &[&'static str], more: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(more.iter().copied()).chain(at).collect();
        user(&all)
    };
    assert_eq!(with(&["add", "scada", "--role", "reader"], &["--password-file", secret]), DONE);
    assert_eq!(with(&["add", "line-3", "--role", "agent", "--node", "antwerp/line-3", "--token"], &[]), DONE);
    assert_eq!(
        with(&["add", "cell", "--role", "agent", "--certificate", "--node", "antwerp/cell"], &[]),
        DONE
    );
    let all = access_file::list(&file).unwrap();
    let means: Vec<(&str, String)> = all.iter().map(|one| (one.name.as_str(), super::means(one))).collect();
    let expected = [("scada", "password"), ("line-3", "token"), ("cell", "certificate")];
    assert_eq!(means, expected.map(|(name, means)| (name, means.to_owned())));

    assert_eq!(with(&["add", "scada", "--role", "reader", "--token"], &[]), USAGE, "is there already");
    assert_eq!(with(&["add", "x", "--role", "nonsense", "--token"], &[]), USAGE);
    assert_eq!(with(&["add", "x", "--role", "agent", "--token"], &[]), USAGE, "the role needs a node");
    assert_eq!(with(&["add", "a/b", "--role", "reader", "--token"], &[]), USAGE);
    assert_eq!(with(&["set", "nobody", "--token"], &[]), USAGE);
    assert_eq!(access_file::list(&file).unwrap(), all, "refused changes change nothing");

    assert_eq!(with(&["check", "line-3", "publish", "spBv1.0/antwerp/DDATA/line-3/press"], &[]), DONE);
    assert_eq!(with(&["check", "line-3", "publish", "spBv1.0/antwerp/DDATA/line-4/press"], &[]), FAILED);
    assert_eq!(with(&["check", "scada", "subscribe", "#"], &[]), DONE);
    assert_eq!(with(&["check", "scada", "subscribe", "$SYS/#"], &[]), FAILED);
    assert_eq!(with(&["check", "nobody", "subscribe", "#"], &[]), USAGE);
    assert_eq!(with(&["set", "scada", "--role", "operator"], &[]), DONE);
    assert_eq!(with(&["check", "scada", "subscribe", "$SYS/#"], &[]), DONE);
    assert_eq!(with(&["disable", "scada"], &[]), DONE);
    assert_eq!(with(&["check", "scada", "subscribe", "#"], &[]), FAILED, "disabled");
    assert_eq!(with(&["enable", "scada"], &[]), DONE);
    assert_eq!(with(&["remove", "line-3"], &[]), DONE);
    assert_eq!(with(&["remove", "line-3"], &[]), USAGE);
    assert_eq!(with(&["list"], &[]), DONE);
    let names: Vec<String> = access_file::list(&file).unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["scada", "cell"]);
}

#[test]
fn the_file_is_found_by_the_hub_s_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hub.toml");
    let names = "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[hub]\ndata_dir = \"data\"\n";
    std::fs::write(&config, format!("{names}host_id = \"plant\"\n")).unwrap();
    let at = ["--config", config.to_str().unwrap()];
    assert_eq!(user(&[&["add", "x", "--role", "reader", "--token"][..], &at].concat()), DONE);
    assert_eq!(access_file::list(&folder.path().join("data/access.toml")).unwrap().len(), 1);
    std::fs::write(&config, format!("{names}[hub.broker]\nurl = \"mqtt://broker\"\n")).unwrap();
    assert_eq!(user(&[&["list"][..], &at].concat()), USAGE, "another broker has its own users");
    std::fs::write(&config, format!("{names}nonsense = 1\n")).unwrap();
    assert_eq!(user(&[&["list"][..], &at].concat()), USAGE);
    std::fs::remove_file(&config).unwrap();
    assert_eq!(user(&[&["list"][..], &at].concat()), USAGE);
}
