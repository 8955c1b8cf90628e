//! Generated code is up to date: regenerates `src/generated/` from `schema/` and compares.
//!
//! Where they differ, the files are rewritten and the test fails once, so that the difference is seen and committed.

use std::path::Path;

const HEADER: &str = "//! Generated from `schema/` by `tests/generated.rs`; do not edit.\n\n";

fn generate(schema: &str, records_as_bytes: bool) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([schema], [root.join("schema")]).expect("the schema compiles");
    let out = tempfile::tempdir().expect("a temporary directory");
    let mut config = prost_build::Config::new();
    config.out_dir(out.path());
    if records_as_bytes {
        config.bytes(["."]);
    }
    config.compile_fds(files).expect("code is generated");
    let mut entries =
        std::fs::read_dir(out.path()).expect("listing").map(|entry| entry.expect("entry").path());
    let only = entries.next().expect("one file");
    assert!(entries.next().is_none(), "one schema makes one file");
    format!("{HEADER}{}", std::fs::read_to_string(only).expect("text"))
}

fn check(schema: &str, module: &str, records_as_bytes: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated").join(module);
    let fresh = generate(schema, records_as_bytes);
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&fresh) {
        std::fs::write(&path, fresh).expect("written");
        panic!("{} was out of date and has been rewritten; commit it", path.display());
    }
}

#[test]
fn sparkplug_is_up_to_date() {
    check("sparkplug_b.proto", "sparkplug.rs", false);
}

#[test]
fn feed_is_up_to_date() {
    check("hub_feed.proto", "feed.rs", true);
}
