//! What a person must be able to look up years later: losses, trims past a reader, mismatches, rebuilt accounts.
//!
//! A durable log of JSON objects, never trimmed. (Commands have a ledger of their own, in `commands`.) An entry is
//! written before what it speaks of is counted, so a crash can repeat an entry, never drop one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use durable_log::{Log, LogError, LogView, Options, Position, Recovery, Storage, WhenDamaged};
use serde::{Deserialize, Serialize};

/// Entries are small texts.
const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// Some ten million entries.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerKind {
    /// Offsets that will never come.
    Lost,
    /// Positions were deleted that a registered reader had not read, or, on a full disk, nobody.
    TrimmedUnread,
    /// Data was deleted early, because the disk was full.
    TrimmedForRoom,
    /// An agent's account is not the hub's (invariant I3).
    Mismatch,
    /// The accounts were counted anew, because no checkpoint fitted the log.
    Rebuilt,
    /// A person decided that an entry of the quarantine stays out for good.
    Discarded,
    /// Entries of the quarantine were deleted to make room.
    QuarantineDropped,
    /// Bytes on the disk are not what was written: what was lost, and where the damaged file is kept.
    Damaged,
    /// Two agents, or two metrics of a foreign node, claim one path.
    PathConflict,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// When, ISO 8601.
    pub at: String,
    /// What.
    pub kind: LedgerKind,
    /// Whose, as `group/node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// In which epoch, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// First offset or position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// One past the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Why.
    pub reason: String,
}

/// Reads a ledger that is not open for writing, or is by another process: what it says of data that will not come, oldest
/// first, at most the newest `at_most`. Blocking.
pub fn losses(dir: &Path, at_most: usize) -> Result<Vec<LedgerEntry>, LogError> {
    let (view, _) = LogView::open_read_only(dir)?;
    read_losses(&view, at_most)
}

fn read_losses(view: &LogView, at_most: usize) -> Result<Vec<LedgerEntry>, LogError> {
    let mut reader = view.reader(view.first());
    let mut entries = VecDeque::new();
    while let Some((_, bytes)) = reader.next()? {
        let Ok(entry) = serde_json::from_slice::<LedgerEntry>(bytes) else { continue };
        if !matches!(entry.kind, LedgerKind::Lost | LedgerKind::Discarded | LedgerKind::TrimmedUnread) {
            continue;
        }
        if entries.len() == at_most {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
    Ok(entries.into())
}

/// The ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// `None` after [`Ledger::close`].
    log: Arc<Mutex<Option<Log>>>,
    view: LogView,
    recovery: Arc<Recovery>,
}

impl Ledger {
    /// Opens or creates the ledger on a storage.
    pub(crate) fn open(storage: Arc<dyn Storage>, epoch: u64) -> Result<Self, LogError> {
        let options = Options {
            bytes_max: BYTES_MAX,
            reserve_bytes: 0, // it must be able to say what happens where the other logs hold
            record_bytes_max: ENTRY_BYTES_MAX,
            when_damaged: WhenDamaged::SetAside,
            ..Options::default()
        };
        let (log, recovery) = Log::open_on(storage, options, epoch)?;
        if recovery.cut.is_some() {
            tracing::warn!(log = "ledger", %recovery, "recovered");
        }
        let view = log.view();
        Ok(Ledger { log: Arc::new(Mutex::new(Some(log))), view, recovery: Arc::new(recovery) })
    }

    /// What opening this ledger found.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Enters what an opening found damaged, of this ledger or another log.
    pub(crate) fn damaged(&self, log: &str, recovery: &Recovery, at: &str) {
        for repaired in &recovery.repaired {
            let lost: Vec<_> = match &repaired.lost[..] {
                [] => vec![None],
                some => some.iter().cloned().map(Some).collect(),
            };
            for range in lost {
                self.enter_damage(format!("{log}: {repaired}"), range, at);
            }
        }
        if let Some(cut) = &recovery.cut {
            self.enter_damage(format!("{log}: {cut}"), None, at);
        }
    }

    /// Enters damaged files that were kept by an opening which ended before it could say so.
    pub(crate) fn kept_aside(&self, log: &str, storage: &dyn Storage, at: &str) {
        let kept = match storage.kept_aside() {
            Ok(kept) if kept.is_empty() => return,
            Ok(kept) => kept,
            Err(error) => return tracing::warn!(%error, log, "the folder of damaged files cannot be read"),
        };
        let known = self.damage_told();
        for path in kept.iter().map(|path| path.display().to_string()) {
            if !known.iter().any(|reason| reason.ends_with(&path)) {
                let reason = format!(
                    "{log}: repaired, but the hub ended before it was entered here; the damaged file is kept as {path}"
                );
                self.enter_damage(reason, None, at);
            }
        }
    }

    /// The reasons of every entry about damage.
    fn damage_told(&self) -> Vec<String> {
        let mut reader = self.view.reader(self.view.first());
        let mut reasons = Vec::new();
        while let Ok(Some((_, bytes))) = reader.next() {
            let entry = serde_json::from_slice::<LedgerEntry>(bytes).ok();
            reasons.extend(entry.filter(|entry| entry.kind == LedgerKind::Damaged).map(|entry| entry.reason));
        }
        reasons
    }

    fn enter_damage(&self, reason: String, range: Option<std::ops::Range<Position>>, at: &str) {
        tracing::error!(reason, "damage");
        let entry = LedgerEntry {
            at: at.to_owned(),
            kind: LedgerKind::Damaged,
            agent: None,
            epoch: None,
            start: range.as_ref().map(|range| range.start.0),
            end: range.as_ref().map(|range| range.end.0),
            reason,
        };
        if let Err(error) = self.record(entry) {
            tracing::error!(%error, "ledger");
        }
    }

    /// Writes an entry and waits for the disk.
    pub fn record(&self, mut entry: LedgerEntry) -> Result<(), LogError> {
        let room = ENTRY_BYTES_MAX / 8; // six bytes per character at worst, escaped
        while entry.reason.len() > room {
            entry.reason.pop();
        }
        tracing::warn!(kind = ?entry.kind, agent = entry.agent, epoch = entry.epoch, start = entry.start,
            end = entry.end, reason = entry.reason, "ledger");
        let bytes = serde_json::to_vec(&entry).unwrap_or_default();
        let mut guard = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = guard.as_mut() else {
            return Err(LogError::ReadOnly { path: "ledger, after the hub's end".into() });
        };
        log.append_group(&[&bytes])?;
        log.sync().map(|_end| ())
    }

    /// Ends writing and lets go of the folder, whoever still holds a handle.
    pub(crate) fn close(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// As [`losses`], of this ledger. Blocking.
    pub fn losses(&self, at_most: usize) -> Result<Vec<LedgerEntry>, LogError> {
        read_losses(&self.view, at_most)
    }

    /// The newest entries, newest first.
    #[must_use]
    pub fn newest(&self, at_most: usize) -> Vec<LedgerEntry> {
        let from = self.view.durable_end().0.saturating_sub(at_most as u64);
        let mut reader = self.view.reader(Position(from));
        let mut entries = Vec::new();
        while let Ok(Some((_, bytes))) = reader.next() {
            entries.extend(serde_json::from_slice::<LedgerEntry>(bytes).ok());
        }
        entries.reverse();
        entries
    }
}
