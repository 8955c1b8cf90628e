//! What was issued to whom, last: for lists and for people. Nothing is decided by it.
//!
//! One file per name, `{tls}/agents/{name}.json`; written by the hub alone.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use model::Timestamp;
use runtime::pki::{self, Certificate};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Names of files are 255 bytes at most, with ending and what is written beside.
const FILE_NAME_BYTES_MAX: usize = 200;
/// Names in a list.
const NAMES_MAX: usize = 20_000;

/// The last certificate of an agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct IssuedTo {
    /// Version of the file: 1.
    pub version: u32,
    /// The agent's name.
    pub name: String,
    /// When it joined last, µs since 1970.
    pub joined: Option<i64>,
    /// When it renewed last, µs since 1970.
    pub renewed: Option<i64>,
    /// Start of the certificate, µs since 1970.
    pub not_before: i64,
    /// Its end, µs since 1970.
    pub not_after: i64,
    /// Its serial number.
    pub serial: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// From where it was asked for.
    pub peer: String,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct IssuedFolder {
    folder: PathBuf,
}

impl IssuedFolder {
    /// Below a TLS folder.
    #[must_use]
    pub fn below(tls: &Path) -> Self {
        IssuedFolder { folder: tls.join("agents") }
    }

    /// Notes a certificate.
    pub(super) fn note(
        &self,
        name: &str,
        certificate: &Certificate,
        peer: &str,
        is_join: bool,
        now: Timestamp,
    ) -> io::Result<()> {
        let before = self.of(name);
        let joined = before.as_ref().and_then(|before| before.joined);
        let renewed = before.and_then(|before| before.renewed);
        let noted = IssuedTo {
            version: 1,
            name: name.to_owned(),
            joined: if is_join { Some(now.micros()) } else { joined },
            renewed: if is_join { renewed } else { Some(now.micros()) },
            not_before: certificate.not_before.micros(),
            not_after: certificate.not_after.micros(),
            serial: certificate.serial.clone(),
            fingerprint: certificate.fingerprint.to_string(),
            peer: peer.to_owned(),
        };
        let text = serde_json::to_string(&noted)?;
        let written =
            pki::private_folder(&self.folder).and_then(|()| pki::write_private(&self.path(name), &text));
        written.map_err(|error| io::Error::other(error.to_string()))
    }

    /// What a name got last, if anything.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<IssuedTo> {
        read(&self.path(name)).filter(|found| found.name == name)
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<IssuedTo> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().take(NAMES_MAX);
        let mut all: Vec<IssuedTo> = entries.flatten().filter_map(|entry| read(&entry.path())).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", file_name(name)))
    }
}

fn read(path: &Path) -> Option<IssuedTo> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|found: &IssuedTo| found.version == 1)
}

/// Letters, digits and `-` stay; all else becomes `_` and two hexadecimal digits, so that no two names share a file.
fn file_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("_{byte:02x}"));
        }
    }
    if text.len() <= FILE_NAME_BYTES_MAX {
        return text;
    }
    let hash: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("_long{hash}") // `l` is no hexadecimal digit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_that_are_theirs_alone() {
        assert_eq!(file_name("line-3"), "line-3");
        assert_eq!(file_name("../a"), "_2e_2e_2fa");
        assert_ne!(file_name("a_2f"), file_name("a/"));
        assert!(file_name(&"ä".repeat(64)).len() < 250);
        assert_ne!(file_name(&"ä".repeat(64)), file_name(&"ö".repeat(64)));
    }
}
