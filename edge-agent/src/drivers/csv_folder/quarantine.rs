//! `quarantine.ndjson` in the device's state folder: input that could not be understood, one JSON object per line.
//!
//! ```text
//! {"file":"press.csv","line":17,"byte":4711,"reason":"time \"?\" cannot be read","text":"?,1.5"}
//! ```
//!
//! On disk before the position that skips the input is returned. The position holds the file's length, so that after a
//! crash the entries of lines that will be read again go first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Of a text, what is kept.
const TEXT_BYTES_MAX: usize = 4096;

/// One piece of input.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    file: String,
    /// From 1.
    line: u64,
    /// Where the line begins.
    byte: u64,
    reason: String,
    text: String,
}

impl Entry {
    /// An entry for a line; `byte` is where it begins.
    pub(super) fn new(file: &str, line: u64, byte: u64, reason: String, text: &[u8]) -> Entry {
        let kept = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        Entry { file: file.to_owned(), line, byte, reason, text: String::from_utf8_lossy(kept).into_owned() }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Quarantine {
    pub(super) path: PathBuf,
    file: File,
    pub(super) bytes: u64,
}

impl Quarantine {
    /// Opens or makes the file; cuts it to `bytes` if it is longer.
    pub(super) fn open(state_dir: &Path, bytes: Option<u64>) -> io::Result<Quarantine> {
        let path = state_dir.join("quarantine.ndjson");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        let bytes = bytes.map_or(length, |bytes| bytes.min(length));
        if bytes < length {
            file.set_len(bytes)?;
        }
        Ok(Quarantine { path, file, bytes })
    }

    /// Appends entries; they are on disk when this returns.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines)?;
        self.file.sync_all()?;
        // A person may have emptied the file: its true length counts.
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}
