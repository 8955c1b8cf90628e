//! `quarantine.ndjson` in the device's state folder: input that could not be understood, one JSON object per line.
//!
//! ```text
//! {"at":1800000000000000,"file":"press.csv","line":17,"byte":4711,"whole":true,"reason":"time \"?\" …","text":"?,1.5"}
//! ```
//! `at` is when, in µs since 1970 UTC; `whole` says that nothing of the line was read (else it is one cell).
//!
//! On disk before the position that skips the input is returned. The position holds the file's length, so that after a
//! crash the entries of lines that will be read again go first. Bounded: a file of [`FILE_BYTES_MAX`] becomes
//! `quarantine.old.ndjson`, and the old one before it goes. (A crash right then may note the lines of one step twice; they
//! have the same file and byte.)

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use model::Timestamp;
use serde::Serialize;

/// Of a text, what is kept.
const TEXT_BYTES_MAX: usize = 4096;

/// Of each of the two files: some hundred thousand lines.
const FILE_BYTES_MAX: u64 = if cfg!(test) { 64 * 1024 } else { 32 * 1024 * 1024 };

/// One piece of input.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    at: i64,
    file: String,
    /// From 1.
    line: u64,
    /// Where the line begins.
    byte: u64,
    whole: bool,
    reason: String,
    text: String,
}

impl Entry {
    /// An entry for a line; `byte` is where it begins.
    pub(super) fn new(file: &str, line: u64, byte: u64, reason: String, text: &[u8]) -> Entry {
        let kept = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        let text = String::from_utf8_lossy(kept).into_owned();
        Entry { at: 0, file: file.to_owned(), line, byte, whole: true, reason, text }
    }

    /// For one cell of a line of which the others were read.
    pub(super) fn of_cell(self) -> Entry {
        Entry { whole: false, ..self }
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
    pub(super) fn append(&mut self, at: Timestamp, entries: &mut [Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.bytes >= FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_file_name("quarantine.old.ndjson"))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            tracing::warn!(file = %self.path.display(), "the quarantine is full: its older half is forgotten");
        }
        let mut lines = Vec::new();
        for entry in entries {
            entry.at = at.0;
            serde_json::to_writer(&mut lines, &*entry)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines)?;
        self.file.sync_all()?;
        // A person may have emptied the file: its true length counts.
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}
