//! What survives from session to session: `bdSeq`, and whether the hub has ever sent a receipt.
//!
//! One line of text, replaced atomically: `forebay-session 1 bdSeq=7 receipts=yes`. A file that cannot be read counts
//! as absent: the next session begins at 0, as the standard allows after a restart.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The state before a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// Of the last session; `None` before the first.
    pub(crate) bd_seq: Option<u8>,
    /// Whether a receipt was ever received.
    pub(crate) has_receipts: bool,
}

impl SessionState {
    /// The `bdSeq` of the next session.
    pub(crate) fn next_bd_seq(self) -> u8 {
        self.bd_seq.map_or(0, |last| last.wrapping_add(1))
    }

    fn text(self) -> String {
        let receipts = if self.has_receipts { "yes" } else { "no" };
        format!("forebay-session 1 bdSeq={} receipts={receipts}\n", self.bd_seq.unwrap_or(0))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        if (words.next(), words.next()) != (Some("forebay-session"), Some("1")) {
            return None;
        }
        let bd_seq = words.next()?.strip_prefix("bdSeq=")?.parse().ok()?;
        Some(SessionState { bd_seq: Some(bd_seq), has_receipts: words.next()? == "receipts=yes" })
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("session")
}

/// Reads the file.
pub(crate) fn load(data_dir: &Path) -> SessionState {
    let text = std::fs::read_to_string(path(data_dir)).unwrap_or_default();
    SessionState::parse(&text).unwrap_or_default()
}

/// Replaces the file; it is on disk afterwards.
pub(crate) fn store(data_dir: &Path, state: SessionState) -> io::Result<()> {
    let (path, new) = (path(data_dir), data_dir.join("session.new"));
    let mut file = File::create(&new)?;
    file.write_all(state.text().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_and_wraps() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).next_bd_seq(), 0);
        let state = SessionState { bd_seq: Some(255), has_receipts: true };
        store(dir.path(), state).unwrap();
        assert_eq!(load(dir.path()), state);
        assert_eq!(state.next_bd_seq(), 0);
        std::fs::write(dir.path().join("session"), "rubbish").unwrap();
        assert_eq!(load(dir.path()), SessionState::default());
    }
}
