//! Peers that are not ours: Python, Node and Debian programs, found where `scripts/peers` puts them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Python of the virtual environment with the peers.
///
/// # Panics
/// If it is not there: run `make peers`.
#[must_use]
pub fn python() -> PathBuf {
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| repository().join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: run `make peers`, or set FOREBAY_VENV", python.display());
    python
}

/// A script in `tests/peers`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/peers").join(name)
}

/// Runs a command to its end; its output on success.
///
/// # Panics
/// If it cannot be started or fails; the message holds its output.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A program of Debian, also where only root's PATH has it.
///
/// # Panics
/// If it is not installed: run `make peers`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run `make peers`"))
}
