//! The ledger: every command's life, durable and chained, in a log of its own.
//!
//! ```text
//! record: +---------+----------+------------------+
//!         | version | link     | body             |
//!         | 1 byte  | 32 bytes | JSON, one entry  |
//!         +---------+----------+------------------+
//! link = SHA-256(link of the record before, 32 zero bytes for the first ++ body)
//! body = {"kind":"recorded"|"sent"|"closed"|"unknown","id":"…32 hex digits…","at":µs,…}
//! ```
//!
//! Whoever changes, removes or inserts a record breaks the chain from there on; opening checks all of it. The log is
//! never trimmed; when it is full, commands are refused.

use std::path::Path;
use std::sync::Arc;

use durable_log::{DiskStorage, Log, Options, Position, Storage, WhenFull};
use model::{CommandId, CommandOutcome, CommandState, Epoch, NodeId, Timestamp};
use proto::receipt::CommandReport;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::book::{Book, Entry, Open};
use super::{CommandRecord, LedgerError, Plant};

/// The format above.
const VERSION: u8 = 1;

/// Bytes of a link.
const LINK: usize = 32;

/// Some millions of commands.
const BYTES_MAX: u64 = 1 << 30;

/// The open ledger; its calls block.
#[derive(Debug)]
pub(super) struct Ledger {
    log: Log,
    link: [u8; LINK],
}

/// Opens the ledger, checks its chain, and settles what was under way when the hub stopped: never sent is Expired; sent
/// is what the plant log's reports say, else Unknown.
pub(super) fn open(dir: &Path, plant: &dyn Plant, now: Timestamp) -> Result<(Ledger, Book), LedgerError> {
    let storage = DiskStorage::create(dir).map_err(LedgerError::Folder)?;
    open_on(Arc::new(storage), plant, now)
}

/// [`open`] on any storage.
pub(super) fn open_on(
    storage: Arc<dyn Storage>,
    plant: &dyn Plant,
    now: Timestamp,
) -> Result<(Ledger, Book), LedgerError> {
    let random = getrandom::u64().map_err(LedgerError::Random)?;
    let epoch = Epoch::from_random(random).unwrap_or(Epoch(1));
    let options = Options { bytes_max: BYTES_MAX, when_full: WhenFull::StopAccepting, ..Options::default() };
    let (log, recovery) = Log::open_on(storage, options, epoch.0)?;
    if let Some(cut) = &recovery.cut {
        tracing::warn!(?cut, "the command ledger ended in an unfinished record, which was cut off");
    }
    let mut ledger = Ledger { log, link: [0; LINK] };
    let mut book = Book::default();
    let mut reader = ledger.log.view().reader(Position(0));
    while let Some((at, bytes)) = reader.next()? {
        let broken = |what: String| LedgerError::Broken { at: at.0, what };
        let (link, entry) = read(bytes, &ledger.link).map_err(broken)?;
        ledger.link = link;
        book.apply(&entry).map_err(broken)?;
    }
    for entry in settle(&book, plant, now) {
        ledger.append(&entry)?;
        book.apply(&entry).map_err(|what| LedgerError::Broken { at: ledger.log.end().0, what })?;
    }
    Ok((ledger, book))
}

fn settle(book: &Book, plant: &dyn Plant, at: Timestamp) -> Vec<Entry> {
    let (open, doubtful) = (book.open(), book.in_doubt());
    let from = open.iter().chain(&doubtful).filter_map(|command| Some(command.asked.as_ref()?.1)).min();
    let reports = from.map(|from| plant.reports_since(from)).unwrap_or_default();
    let report = |Open { id, asked }: &Open| {
        let (node, _) = asked.as_ref()?;
        let (_, report) = reports.iter().find(|(from, report)| from == node && report.id == *id)?;
        Some(reported(report, at))
    };
    let end = |open: &Open| {
        report(open).unwrap_or_else(|| {
            let id = open.id;
            if open.asked.is_none() {
                return Entry::Closed { id, at, outcome: CommandOutcome::Expired, read_back: String::new() };
            }
            let why = "the hub stopped before a report came; it is never sent again".to_owned();
            Entry::Unknown { id, at, why }
        })
    };
    let amended = doubtful.iter().filter_map(report).filter(|entry| matches!(entry, Entry::Closed { .. }));
    open.iter().map(end).chain(amended).collect()
}

/// The entry that a report makes: an agent that does not know either leaves the command open for a later word.
pub(super) fn reported(report: &CommandReport, at: Timestamp) -> Entry {
    let id = report.id;
    match &report.outcome {
        CommandOutcome::Unknown(why) => Entry::Unknown { id, at, why: why.clone() },
        outcome => Entry::Closed { id, at, outcome: outcome.clone(), read_back: report.read_back.clone() },
    }
}

impl Ledger {
    /// Writes an entry; it is on disk when this returns.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let body = serde_json::to_vec(&Wire::from(entry)).map_err(LedgerError::Encode)?;
        let link = chain(&self.link, &body);
        let record = [&[VERSION], &link[..], &body].concat();
        self.log.append_group(&[&record])?;
        self.link = link; // part of the log from here on, even if the sync has to wait for room
        self.log.sync()?;
        Ok(())
    }
}

fn chain(before: &[u8; LINK], body: &[u8]) -> [u8; LINK] {
    Sha256::new().chain_update(before).chain_update(body).finalize().into()
}

fn read(record: &[u8], before: &[u8; LINK]) -> Result<([u8; LINK], Entry), String> {
    let (version, rest) = record.split_first().ok_or("it is empty")?;
    if *version != VERSION {
        return Err(format!("version {version} is unknown to this program; upgrade it"));
    }
    let (link, body) = rest.split_at_checked(LINK).ok_or("it is shorter than its head")?;
    let expected = chain(before, body);
    if link != expected {
        return Err("its link does not follow from the record before".into());
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok((expected, wire.entry().ok_or("a field cannot be what it is")?))
}

/// An entry as JSON.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Wire {
    Recorded {
        id: String,
        at: i64,
        expires_at: i64,
        path: String,
        value: String,
        author: String,
        reason: String,
    },
    Sent {
        id: String,
        at: i64,
        node: String,
        log_end: u64,
    },
    Closed {
        id: String,
        at: i64,
        outcome: String,
        read_back: String,
    },
    Unknown {
        id: String,
        at: i64,
        why: String,
    },
}

impl From<&Entry> for Wire {
    fn from(entry: &Entry) -> Self {
        let id = entry.id().to_string();
        match entry.clone() {
            Entry::Recorded(CommandRecord { path, value, author, reason, at, expires_at, .. }) => {
                Self::Recorded { id, at: at.0, expires_at: expires_at.0, path, value, author, reason }
            }
            Entry::Sent { at, node, log_end, .. } => {
                Self::Sent { id, at: at.0, node: node.to_string(), log_end }
            }
            Entry::Closed { at, outcome, read_back, .. } => {
                Self::Closed { id, at: at.0, outcome: outcome.to_string(), read_back }
            }
            Entry::Unknown { at, why, .. } => Self::Unknown { id, at: at.0, why },
        }
    }
}

impl Wire {
    fn entry(self) -> Option<Entry> {
        Some(match self {
            Self::Recorded { id, at, expires_at, path, value, author, reason } => {
                Entry::Recorded(CommandRecord {
                    id: CommandId::parse(&id)?,
                    path,
                    value,
                    author,
                    reason,
                    at: Timestamp(at),
                    expires_at: Timestamp(expires_at),
                    state: CommandState::Recorded,
                    outcome: None,
                    read_back: String::new(),
                    ended_at: None,
                })
            }
            Self::Sent { id, at, node, log_end } => Entry::Sent {
                id: CommandId::parse(&id)?,
                at: Timestamp(at),
                node: NodeId::parse(&node).ok()?,
                log_end,
            },
            Self::Closed { id, at, outcome, read_back } => Entry::Closed {
                id: CommandId::parse(&id)?,
                at: Timestamp(at),
                outcome: CommandOutcome::parse(&outcome)?,
                read_back,
            },
            Self::Unknown { id, at, why } => {
                Entry::Unknown { id: CommandId::parse(&id)?, at: Timestamp(at), why }
            }
        })
    }
}

#[cfg(test)]
mod tests;
