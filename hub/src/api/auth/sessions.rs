//! Who is signed in on the page. Sessions outlive a restart of the hub, so that a page left open goes on by itself.
//!
//! `{data_dir}/sessions` (0600) begins with the hash of the token under which they were opened, so that a new token ends
//! them all; then a line per session: hash of its id, and when it was last used. The ids are in the browsers only.
//!
//! ```text
//! {sha256 of the token, hex}
//! {sha256 of the id, hex} {µs since 1970}
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Timestamp;
use sha2::{Digest as _, Sha256};

use super::token::{Token, secret, write_private};

/// A session that is not used for so long ends.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(12 * 3600);
/// More sessions than people of a plant; the one unused longest gives way.
const SESSIONS_MAX: usize = 256;
/// Uses are written so often: a crash ends a session that much earlier.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

/// The open sessions, by the hash of their id.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    token: String,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    used: HashMap<String, Timestamp>,
    /// Uses since then are not on disk.
    saved: Option<Timestamp>,
    now: Timestamp,
}

impl Sessions {
    /// The sessions that were open under this token.
    pub(super) fn load(token: &Token) -> Self {
        let path = token.path().with_file_name("sessions");
        let token = hash(token.text());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let is_ours = lines.next() == Some(token.as_str());
        let session = |line: &str| {
            let (id, used) = line.split_once(' ')?;
            Some((id.to_owned(), Timestamp(used.parse().ok()?)))
        };
        let used =
            if is_ours { lines.filter_map(session).take(SESSIONS_MAX).collect() } else { HashMap::new() };
        Sessions { path, token, open: Mutex::new(Open { used, ..Open::default() }) }
    }

    /// Opens a session; its id, which only the browser keeps.
    pub(super) fn begin(&self, now: Timestamp) -> Result<String, getrandom::Error> {
        let id = secret()?;
        let mut open = self.open();
        open.used.retain(|_, used| !is_over(*used, now));
        if open.used.len() >= SESSIONS_MAX
            && let Some(oldest) = open.used.iter().min_by_key(|(_, used)| **used).map(|(id, _)| id.clone())
        {
            open.used.remove(&oldest);
        }
        open.used.insert(hash(&id), now);
        Ok(id)
    }

    /// Ends a session.
    pub(super) fn end(&self, id: &str) {
        self.open().used.remove(&hash(id));
    }

    /// Whether the session is open; it was used now.
    pub(super) fn touch(&self, id: &str, now: Timestamp) -> bool {
        let mut open = self.open();
        open.now = now;
        match open.used.get_mut(&hash(id)) {
            Some(used) if !is_over(*used, now) => {
                *used = now;
                true
            }
            _ => false,
        }
    }

    /// Whether uses are due to be written.
    pub(super) fn is_to_be_saved(&self) -> bool {
        let mut open = self.open();
        let now = open.now;
        let since = open.saved.get_or_insert(now);
        micros(SAVE_EVERY) < now.micros_since(*since)
    }

    /// Blocking: writes them. A failure costs no more than a sign-in after the next restart.
    pub(super) fn save(&self) {
        let mut text = format!("{}\n", self.token);
        {
            let mut open = self.open();
            for (id, used) in &open.used {
                writeln!(text, "{id} {}", used.0).ok(); // writing to a String does not fail
            }
            open.saved = None;
        }
        if let Err(error) = write_private(&self.path, &text) {
            tracing::warn!(%error, file = %self.path.display(), "cannot keep the sessions; a restart signs everybody out");
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(used: Timestamp, now: Timestamp) -> bool {
    now.micros_since(used) >= micros(SESSION_IDLE)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok(); // writing to a String does not fail
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: i64) -> Timestamp {
        Timestamp(hours * 3_600_000_000)
    }

    #[test]
    fn sessions_end_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::load(&Token::open(folder.path()).unwrap());
        let first = sessions.begin(hours(0)).unwrap();
        assert!(sessions.touch(&first, hours(11)) && sessions.touch(&first, hours(22)));
        assert!(!sessions.touch(&first, hours(34)), "unused for twelve hours");
        let first = sessions.begin(Timestamp(0)).unwrap();
        for number in 1..=i64::try_from(SESSIONS_MAX).unwrap() {
            sessions.begin(Timestamp(number)).unwrap();
        }
        assert!(!sessions.touch(&first, Timestamp(1000)), "the one unused longest gave way");
        assert_eq!(sessions.open().used.len(), SESSIONS_MAX);
        let last = sessions.begin(Timestamp(1000)).unwrap();
        sessions.end(&last);
        assert!(!sessions.touch(&last, Timestamp(1001)) && !sessions.touch("", Timestamp(1001)));
    }

    #[test]
    fn a_restart_keeps_them_and_a_new_token_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::open(folder.path()).unwrap();
        let sessions = Sessions::load(&token);
        let id = sessions.begin(hours(1)).unwrap();
        sessions.save();
        let text = std::fs::read_to_string(folder.path().join("sessions")).unwrap();
        assert!(!text.contains(&id) && !text.contains(token.text()), "neither id nor token is in the file");
        assert!(Sessions::load(&token).touch(&id, hours(2)));
        std::fs::remove_file(token.path()).unwrap();
        let other = Token::open(folder.path()).unwrap();
        assert!(!Sessions::load(&other).touch(&id, hours(2)));
        std::fs::write(folder.path().join("sessions"), "garbage\nx y\n\u{0}").unwrap();
        assert!(!Sessions::load(&token).touch(&id, hours(2)));
    }

    #[test]
    fn uses_are_written_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::load(&Token::open(folder.path()).unwrap());
        let id = sessions.begin(hours(0)).unwrap();
        assert!(sessions.touch(&id, hours(1)) && !sessions.is_to_be_saved());
        assert!(sessions.touch(&id, hours(3)) && sessions.is_to_be_saved());
        sessions.save();
        assert!(!sessions.is_to_be_saved());
    }
}
