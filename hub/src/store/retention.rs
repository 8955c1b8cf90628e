//! What the plant log may forget: segments beyond an age or a size, never silently past a registered reader.
//!
//! Age alone never deletes what a registered reader has not read (a clock that jumps would, and an outage of a lake may
//! last longer than the age); size does, with an alarm. Two things hold everything back: the older checkpoint (accounts
//! must be recountable) and, while the disk is full, every cursor. Age is the age of a segment file's last write, so an
//! outage's old samples stay as long as new ones. What nobody has read goes only after the ledger has named it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use durable_log::{Log, LogError, LogView, Position, SegmentInfo};
use model::{Epoch, RangeSet, Timestamp};
use proto::log_record::{AgentId, LogRecord};

use crate::ledger::{Ledger, LedgerEntry, LedgerKind};

/// Ranges of one agent and epoch that are named when a segment goes; the entry of its positions covers the rest.
const NAMED_RANGES_MAX: usize = 100;

/// Names of agents, by their numbers.
pub(super) type AgentNames<'a> = dyn Fn(AgentId) -> Option<String> + 'a;

/// How long, how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) age: Duration,
    pub(crate) bytes: u64,
}

impl Retention {
    /// Deletes what is too old or too much; `needed_from` on is kept in any case.
    pub(super) fn apply(
        &self,
        log: &mut Log,
        needed_from: Position,
        now: Timestamp,
        ledger: &Ledger,
        names: &AgentNames<'_>,
    ) -> Result<(), LogError> {
        let segments = log.view().segments();
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut keep_from = log.view().first();
        let read_to = log.view().cursors()?.into_values().min().unwrap_or(Position(u64::MAX));
        for segment in segments.iter().filter(|segment| segment.sealed) {
            let old_and_read = segment.end <= read_to && self.is_old(segment, now);
            if segment.end > needed_from || (bytes <= self.bytes && !old_and_read) {
                break;
            }
            bytes -= segment.bytes;
            keep_from = segment.end;
        }
        self.trim(log, keep_from, now, ledger, names)
    }

    fn trim(
        &self,
        log: &mut Log,
        keep_from: Position,
        now: Timestamp,
        ledger: &Ledger,
        names: &AgentNames<'_>,
    ) -> Result<(), LogError> {
        let view = log.view();
        if keep_from <= view.first() {
            return Ok(());
        }
        for (name, at) in view.cursors()? {
            if at < keep_from {
                let deleted = format!("retention deleted what the reader {name} had not read");
                name_records(&view, at.max(view.first())..keep_from, now, &deleted, ledger, names)?;
                ledger.record(entry(
                    now,
                    LedgerKind::TrimmedUnread,
                    at.max(view.first()),
                    keep_from,
                    deleted,
                ))?;
            }
        }
        log.trim(keep_from).map(|_first| ())
    }

    /// Deletes the oldest segment that every reader has read, because the disk is full. Whether there was one. Where no
    /// reader was ever registered, the ledger must be able to name what goes.
    pub(super) fn make_room(
        log: &mut Log,
        needed_from: Position,
        now: Timestamp,
        ledger: &Ledger,
        names: &AgentNames<'_>,
    ) -> Result<bool, LogError> {
        let view = log.view();
        let cursors = view.cursors()?;
        let was_read = !cursors.is_empty();
        let held_from = cursors.into_values().fold(needed_from, Position::min);
        let Some(oldest) = view.segments().into_iter().find(|segment| segment.sealed) else {
            return Ok(false);
        };
        if oldest.end > held_from {
            return Ok(false);
        }
        let before = view.first();
        if !was_read {
            let why = "the disk was full, and no reader had ever asked for it".to_owned();
            name_records(&view, before..oldest.end, now, &why, ledger, names)?;
            ledger.record(entry(now, LedgerKind::TrimmedUnread, before, oldest.end, why))?;
            return log.trim(oldest.end).map(|_first| true);
        }
        log.trim(oldest.end)?;
        let why = "the disk was full; every registered reader had read it".to_owned();
        if let Err(error) = ledger.record(entry(now, LedgerKind::TrimmedForRoom, before, oldest.end, why)) {
            tracing::error!(%error, "ledger");
        }
        Ok(true)
    }

    fn is_old(&self, segment: &SegmentInfo, now: Timestamp) -> bool {
        let written = std::fs::metadata(&segment.path).and_then(|meta| meta.modified());
        let Ok(written) = written.map(micros) else { return false };
        now.0.saturating_sub(written) > i64::try_from(self.age.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Whose records they are, by agent and epoch: positions alone mean nothing when they are gone.
fn name_records(
    view: &LogView,
    positions: Range<Position>,
    now: Timestamp,
    reason: &str,
    ledger: &Ledger,
    names: &AgentNames<'_>,
) -> Result<(), LogError> {
    let mut gone: BTreeMap<(AgentId, Epoch), RangeSet> = BTreeMap::new();
    let mut reader = view.reader(positions.start);
    while let Some((at, bytes)) = reader.next()? {
        if at >= positions.end {
            break;
        }
        if let Ok(LogRecord::Received { agent, batch, .. } | LogRecord::Again { agent, batch, .. }) =
            LogRecord::decode(bytes)
        {
            let offset = batch.id.offset.0;
            gone.entry((agent, batch.id.epoch)).or_default().insert(offset..offset.saturating_add(1));
        }
    }
    for ((agent, epoch), offsets) in gone {
        for range in offsets.iter().take(NAMED_RANGES_MAX) {
            ledger.record(LedgerEntry {
                agent: names(agent),
                epoch: Some(epoch.to_string()),
                ..entry(
                    now,
                    LedgerKind::TrimmedUnread,
                    Position(range.start),
                    Position(range.end),
                    reason.to_owned(),
                )
            })?;
        }
    }
    Ok(())
}

fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn entry(now: Timestamp, kind: LedgerKind, start: Position, end: Position, reason: String) -> LedgerEntry {
    LedgerEntry {
        at: now.to_string(),
        kind,
        agent: None,
        epoch: None,
        start: Some(start.0),
        end: Some(end.0),
        reason,
    }
}
