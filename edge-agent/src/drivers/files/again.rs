//! Wishes of people that files be looked at anew: `again.ndjson` in the device's state folder, written by `forebay file
//! again`, taken by the running agent or the next one. What was accepted once is not accepted again.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

const FILE: &str = "again.ndjson";
/// Wishes that are read at a time.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wish {
    /// Files of the device's folder.
    Pattern(String),
    /// A file anywhere on the agent's machine.
    Path(String),
}

/// What was wished.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) patterns: Vec<Pattern>,
    pub(super) paths: Vec<String>,
}

impl Wishes {
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.paths.is_empty()
    }
}

/// Takes the wishes: the file is gone then.
pub(super) fn take(state_dir: &Path) -> Wishes {
    let path = state_dir.join(FILE);
    let mut wishes = Wishes::default();
    let Ok(metadata) = std::fs::metadata(&path) else { return wishes };
    let text =
        if metadata.len() <= FILE_BYTES_MAX { std::fs::read_to_string(&path) } else { Ok(String::new()) };
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(file = %path.display(), %error, "wishes cannot be taken");
        return wishes;
    }
    for line in text.unwrap_or_default().lines() {
        match serde_json::from_str(line) {
            Ok(Wish::Pattern(pattern)) => wishes.patterns.push(Pattern(pattern)),
            Ok(Wish::Path(path)) if path.starts_with('/') => wishes.paths.push(path),
            _ => tracing::warn!(line, "is no wish"),
        }
    }
    tracing::info!(patterns = wishes.patterns.len(), paths = wishes.paths.len(), "files are looked at anew");
    wishes
}

/// Adds a wish for a device; `path` of a file, which must be absolute, or a pattern of names.
///
/// # Errors
/// If it cannot be written.
pub fn wish(state_dir: &Path, text: &str) -> io::Result<()> {
    let wish =
        if text.starts_with('/') { Wish::Path(text.to_owned()) } else { Wish::Pattern(text.to_owned()) };
    std::fs::create_dir_all(state_dir)?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(state_dir.join(FILE))?;
    let mut line = serde_json::to_vec(&wish)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Whether wishes wait for an agent.
#[must_use]
pub fn waits(state_dir: &Path) -> bool {
    state_dir.join(FILE).exists()
}
