//! The goals of a table that do not depend on how fast the machine is: bytes per row, and what a question has to read.

use std::path::{Path, PathBuf};

/// Two hours: a debug build takes its time for a day.
const SECONDS: usize = 7_200;

#[test]
fn a_row_takes_less_than_four_bytes_and_one_point_does_not_read_everything() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let recording = std::fs::read_to_string(repository.join("cli/demo-data/tep_excerpt.csv")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| repository.join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.is_file(), "{} is missing: run `make peers`", python.display());
    let figures =
        bench::table::run(&recording, SECONDS, &folder.path().join("bench"), Some(&python)).unwrap();
    println!("{}", figures.text());
    let figure = |name: &str| figures.list.iter().find(|figure| figure.name == name).unwrap().value;
    assert!(figure("table_compacted_bytes_per_row") <= 4.0);
    assert!(figure("table_compacted_bytes_per_row") < figure("pyarrow_bytes_per_row"));
    // Two hours are two row groups: how little of a whole day is read, `forebay bench table` says.
    assert!(figure("duckdb_point_read_mb") < figure("duckdb_full_read_mb"));
}
