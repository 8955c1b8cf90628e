//! Promises of a certificate: one file each, named by the public half of the token; using one removes it.
//!
//! ```text
//! {tls}/joins/0123456789abcdef.json   {"version":1,"name":"line-3","expires":1795600000,"secret_sha256":"…"}
//! token: 0123456789abcdef.SECRET      64 bits that find the file, 256 bits that only its owner knows
//! ```
//! `forebay agent add` writes, the hub removes: whoever succeeds in removing has used it, so no token counts twice, also
//! with two hubs on one folder. The secret itself is nowhere.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::Timestamp;
use runtime::pki::{self, PkiError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A join line is typed or pasted soon; whoever finds it tomorrow gets nothing.
pub const JOIN_VALIDITY: Duration = Duration::from_secs(3600);
/// ... and at most so long, where somebody asks for more.
pub const JOIN_VALIDITY_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Open promises: more than agents of a plant.
const JOINS_MAX: usize = 10_000;
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// A token's text is not longer; tokens from the network are cut off by it.
const TOKEN_BYTES_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 4096;

/// The folder of promises.
#[derive(Clone, Debug)]
pub struct Joins {
    folder: PathBuf,
}

/// A promise just made: the token is shown once.
#[derive(Clone)]
pub struct Made {
    /// For the join line.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// An open promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The public half of the token.
    pub id: String,
    /// Whose certificate it is.
    pub name: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token is not good.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No such promise, or a wrong secret.
    #[error("the token is not known: it was used, has ended long ago, or is another hub's")]
    Unknown,
    /// Too late.
    #[error("the token has ended")]
    Expired,
    /// The folder.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] PkiError),
    /// Too many are open.
    #[error("{JOINS_MAX} tokens are open; they end by themselves")]
    TooMany,
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers: {0}")]
    Random(getrandom::Error),
}

#[derive(Debug, Deserialize, Serialize)]
struct Stored {
    version: u32,
    name: String,
    /// Seconds since 1970.
    expires: i64,
    secret_sha256: String,
}

impl Joins {
    /// Promises below a TLS folder; nothing is made yet.
    #[must_use]
    pub fn below(tls: &Path) -> Self {
        Joins { folder: tls.join("joins") }
    }

    /// Promises a certificate for a name. Older promises for it end, so that only the last join line works.
    pub fn make(&self, name: &str, now: Timestamp, validity: Duration) -> Result<Made, JoinError> {
        pki::private_folder(&self.folder)?;
        let open = self.open_files()?;
        if open.len() >= JOINS_MAX {
            return Err(JoinError::TooMany);
        }
        for (path, stored) in open {
            if stored.name == name || stored.expires <= seconds(now) {
                std::fs::remove_file(path).ok(); // used or removed by somebody else: as good
            }
        }
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id).map_err(JoinError::Random)?;
        getrandom::fill(&mut secret).map_err(JoinError::Random)?;
        let (id, secret) = (hex(&id), URL_SAFE_NO_PAD.encode(secret));
        let validity = i64::try_from(validity.min(JOIN_VALIDITY_MAX).as_secs()).unwrap_or(0);
        let expires = seconds(now).saturating_add(validity);
        let hash = hex(&Sha256::digest(secret.as_bytes()));
        let stored = Stored { version: 1, name: name.to_owned(), expires, secret_sha256: hash };
        let text = serde_json::to_string(&stored).map_err(|error| self.failed(error.into()))?;
        pki::write_new_private(&self.path(&id), &text)?;
        Ok(Made { token: format!("{id}.{secret}"), expires: Timestamp(expires.saturating_mul(1_000_000)) })
    }

    /// The promise behind a token, which stays open.
    pub fn look_up(&self, token: &str, now: Timestamp) -> Result<Join, JoinError> {
        let (id, secret) = parts(token).ok_or(JoinError::Unknown)?;
        let stored = match self.read(&self.path(id)) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(JoinError::Unknown),
            Err(source) => return Err(self.failed(source)),
        };
        let given = hex(&Sha256::digest(secret.as_bytes()));
        if !same(given.as_bytes(), stored.secret_sha256.as_bytes()) {
            return Err(JoinError::Unknown);
        }
        if stored.expires <= seconds(now) {
            return Err(JoinError::Expired);
        }
        Ok(stored.join(id))
    }

    /// Uses a promise up. Whoever succeeds was the only one.
    pub fn take(&self, join: &Join) -> Result<(), JoinError> {
        match std::fs::remove_file(self.path(&join.id)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(JoinError::Unknown),
            Err(source) => return Err(self.failed(source)),
        }
        let synced = std::fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| self.failed(source))
    }

    /// Ends every promise for a name.
    pub fn end(&self, name: &str) -> Result<(), JoinError> {
        for (path, _) in self.open_files()?.into_iter().filter(|(_, stored)| stored.name == name) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Promises that have not ended.
    pub fn open(&self, now: Timestamp) -> Result<Vec<Join>, JoinError> {
        let open = self.open_files()?.into_iter().filter(|(_, stored)| stored.expires > seconds(now));
        Ok(open
            .map(|(path, stored)| stored.join(&path.file_stem().unwrap_or_default().to_string_lossy()))
            .collect())
    }

    fn open_files(&self) -> Result<Vec<(PathBuf, Stored)>, JoinError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| self.failed(source))?,
        };
        let mut found = Vec::new();
        for entry in entries.take(JOINS_MAX * 2) {
            let path = entry.map_err(|source| self.failed(source))?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(stored) = self.read(&path)
            {
                found.push((path, stored)); // one that cannot be read is nobody's promise
            }
        }
        Ok(found)
    }

    fn read(&self, path: &Path) -> io::Result<Stored> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, FILE_BYTES_MAX), &mut bytes)?;
        let stored: Stored = serde_json::from_slice(&bytes)?;
        if stored.version == 1 { Ok(stored) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn failed(&self, source: io::Error) -> JoinError {
        JoinError::Folder { path: self.folder.clone(), source }
    }
}

impl Stored {
    fn join(self, id: &str) -> Join {
        Join {
            id: id.to_owned(),
            name: self.name,
            expires: Timestamp(self.expires.saturating_mul(1_000_000)),
        }
    }
}

/// Both halves of a token, if it looks like one: the first names a file, so only hexadecimal digits are taken.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.').filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
    let is_id =
        id.len() == 2 * ID_BYTES && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then_some((id, secret))
}

fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that depends on the lengths only.
fn same(given: &[u8], right: &[u8]) -> bool {
    given.len() == right.len()
        && given.iter().zip(right).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_500_000);

    fn later(seconds: i64) -> Timestamp {
        Timestamp(NOW.micros() + seconds * 1_000_000)
    }

    #[test]
    fn a_token_is_good_once_and_for_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let joins = Joins::below(dir.path());
        assert_eq!(joins.open(NOW).unwrap(), []);
        let made = joins.make("line-3", NOW, JOIN_VALIDITY).unwrap();
        let join = joins.look_up(&made.token, later(3599)).unwrap();
        assert_eq!((join.name.as_str(), join.expires), ("line-3", made.expires));
        assert!(matches!(joins.look_up(&made.token, later(3600)), Err(JoinError::Expired)));
        joins.take(&join).unwrap();
        assert!(matches!(joins.take(&join), Err(JoinError::Unknown)));
        assert!(matches!(joins.look_up(&made.token, NOW), Err(JoinError::Unknown)));
    }

    #[test]
    fn only_the_last_token_of_a_name_counts_and_ended_ones_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let joins = Joins::below(dir.path());
        let first = joins.make("a", NOW, JOIN_VALIDITY).unwrap();
        let other = joins.make("b", NOW, JOIN_VALIDITY).unwrap();
        let second = joins.make("a", NOW, JOIN_VALIDITY).unwrap();
        assert!(joins.look_up(&first.token, NOW).is_err());
        assert!(joins.look_up(&second.token, NOW).is_ok() && joins.look_up(&other.token, NOW).is_ok());
        assert_eq!(joins.open(NOW).unwrap().len(), 2);
        joins.make("c", later(4000), JOIN_VALIDITY).unwrap();
        assert_eq!(joins.open_files().unwrap().len(), 1);
        joins.end("c").unwrap();
        assert_eq!(joins.open_files().unwrap().len(), 0);
    }

    #[test]
    fn guesses_and_paths_find_nothing_and_the_secret_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let joins = Joins::below(dir.path());
        let made = joins.make("line-3", NOW, JOIN_VALIDITY).unwrap();
        let (id, secret) = made.token.split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (16, 43));
        let mut wrong = secret.as_bytes().to_vec();
        wrong[0] ^= 1;
        let wrong = String::from_utf8(wrong).unwrap();
        for token in [
            "",
            ".",
            id,
            secret,
            &format!("{id}."),
            &format!("{id}.{wrong}"),
            &format!("{id}.{secret}x"),
            &format!("{}.{secret}", id.to_uppercase()),
            "../../../etc/pas.x",
            &format!("{id}.{}", "x".repeat(1000)),
        ] {
            assert!(matches!(joins.look_up(token, NOW), Err(JoinError::Unknown)), "{token}");
        }
        let text = std::fs::read_to_string(joins.path(id)).unwrap();
        assert!(!text.contains(secret), "{text}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&joins.folder), mode(&joins.path(id))), (0o700, 0o600));
    }
}
