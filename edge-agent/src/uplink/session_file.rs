//! What survives from session to session: `bdSeq`, and whether the hub has ever sent a receipt.
//!
//! One line of text, replaced atomically: `forebay-session 1 bdSeq=7 receipts=yes`. A file that cannot be read counts
//! as absent: the next session begins at 0, as the standard allows after a restart.

use std::io;

use durable_log::Storage;

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

const NAME: &str = "session";
const UNFINISHED: &str = "session.new";
/// Far more than the line has.
const BYTES_MAX: usize = 256;

/// Reads the file in the agent's folder.
pub(crate) fn load(folder: &dyn Storage) -> SessionState {
    let read = || -> io::Result<String> {
        let mut bytes = vec![0; BYTES_MAX];
        let read = folder.open(NAME, false)?.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(io::Error::other)
    };
    read().ok().and_then(|text| SessionState::parse(&text)).unwrap_or_default()
}

/// Whether the file in the agent's folder is one; `None` if there is none.
pub(crate) fn verify(folder: &std::path::Path) -> Option<Result<(), String>> {
    match std::fs::read(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
        Ok(bytes) => {
            let known = String::from_utf8(bytes).ok().and_then(|text| SessionState::parse(&text));
            Some(
                known
                    .map(|_state| ())
                    .ok_or_else(|| "it is no session file; the next session begins at bdSeq 0".into()),
            )
        }
    }
}

/// Replaces the file; it is on disk afterwards.
pub(crate) fn store(folder: &dyn Storage, state: SessionState) -> io::Result<()> {
    let file = folder.create(UNFINISHED)?;
    let text = state.text();
    let mut written = 0;
    while let Some(rest) = text.as_bytes().get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, written as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            more => written += more,
        }
    }
    file.sync()?;
    folder.rename(UNFINISHED, NAME)?;
    folder.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_and_wraps() {
        let dir = tempfile::tempdir().unwrap();
        let folder = durable_log::DiskStorage::create(dir.path()).unwrap();
        assert_eq!(load(&folder).next_bd_seq(), 0);
        let state = SessionState { bd_seq: Some(255), has_receipts: true };
        store(&folder, state).unwrap();
        assert_eq!(load(&folder), state);
        assert_eq!(state.next_bd_seq(), 0);
        std::fs::write(dir.path().join("session"), "rubbish").unwrap();
        assert_eq!(load(&folder), SessionState::default());
    }
}
