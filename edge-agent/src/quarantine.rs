//! What the drivers of an agent could not read, for people: reads the quarantine files below its data folder, also beside a
//! running agent. Writing them is the drivers' business.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use model::Timestamp;
use serde::Deserialize;

/// A line is at most a text, a reason and names.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// One piece of input that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Which device.
    pub device: String,
    /// When it was read; `None` for entries of older versions.
    pub at: Option<Timestamp>,
    /// In which file.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// Where it begins.
    pub byte: u64,
    /// Whether nothing of the line was read; else it is one cell, and the others were.
    pub whole: bool,
    /// What is wrong with it.
    pub reason: String,
    /// What it is, cut to 4096 bytes.
    pub text: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    at: Option<i64>,
    file: String,
    line: u64,
    byte: u64,
    #[serde(default)]
    whole: bool,
    reason: String,
    text: String,
}

/// The newest bad lines of every device of an agent, newest first, at most `limit`. Blocking.
pub fn newest(data_dir: &Path, limit: usize) -> io::Result<Vec<BadLine>> {
    let folders = match std::fs::read_dir(data_dir.join("drivers")) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for folder in folders {
        let folder = folder?;
        let device = folder.file_name().to_string_lossy().into_owned();
        let mut of_device = std::collections::VecDeque::new();
        for name in ["quarantine.old.ndjson", "quarantine.ndjson"] {
            let file = match std::fs::File::open(folder.path().join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
                if read == 0 {
                    break;
                }
                // Half a line at the end is being written, or was when the power went.
                let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { continue };
                if of_device.len() == limit {
                    of_device.pop_front();
                }
                of_device.push_back(entry.of(&device));
            }
        }
        found.extend(of_device);
    }
    found.sort_by_key(|line| std::cmp::Reverse(line.at));
    found.dedup_by(|a, b| (&a.device, &a.file, a.byte, &a.reason) == (&b.device, &b.file, b.byte, &b.reason));
    found.truncate(limit);
    Ok(found)
}

impl Entry {
    fn of(self, device: &str) -> BadLine {
        BadLine {
            device: device.to_owned(),
            at: self.at.map(Timestamp),
            file: self.file,
            line: self.line,
            byte: self.byte,
            whole: self.whole,
            reason: self.reason,
            text: self.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_devices_come_newest_first_and_half_lines_are_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path(), 10).unwrap(), []);
        let device = dir.path().join("drivers/press");
        std::fs::create_dir_all(&device).unwrap();
        let line = |at, byte| {
            format!(
                "{{\"at\":{at},\"file\":\"a.csv\",\"line\":2,\"byte\":{byte},\"whole\":true,\"reason\":\"r\",\"text\":\"t\"}}\n"
            )
        };
        let old = "{\"file\":\"a.csv\",\"line\":1,\"byte\":0,\"reason\":\"r\",\"text\":\"t\"}\n";
        std::fs::write(device.join("quarantine.old.ndjson"), format!("{old}{}", line(5, 10))).unwrap();
        std::fs::write(device.join("quarantine.ndjson"), format!("{}{{\"at\":", line(9, 20))).unwrap();
        let found = newest(dir.path(), 10).unwrap();
        assert_eq!(found.iter().map(|line| line.byte).collect::<Vec<_>>(), [20, 10, 0]);
        assert_eq!((found[2].at, found[2].whole, found[0].whole), (None, false, true));
        assert_eq!(newest(dir.path(), 1).unwrap().len(), 1);
    }
}
