//! Room in the outbox: what receipts cover goes, what must survive is written again, and how full it is is told.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use durable_log::{Level, Log, Position, SegmentInfo};
use model::{Epoch, RangeSet};
use proto::account::Account;
use proto::log_record::LogRecord;
use tokio::time::Instant;

use super::super::open::first_record;
use super::super::{OutboxError, RecordPlace, WhenFull};
use super::{Commits, LOOK_AT_DISK, append};

impl Commits {
    /// Has room for samples, by policy.
    pub(super) fn make_room(&mut self, log: &mut Log) -> Result<(), OutboxError> {
        let view = log.view();
        if view.bytes() < self.around.soft_bytes_max {
            return Ok(());
        }
        self.trim_receipted(log)?;
        while view.bytes() >= self.around.soft_bytes_max {
            let Some(oldest) = view.segments().into_iter().next().filter(|segment| segment.sealed) else {
                return Err(OutboxError::Full);
            };
            let is_handed = oldest.end <= self.handed;
            if self.around.when_full == WhenFull::StopAccepting && !is_handed {
                return Err(OutboxError::Full);
            }
            self.remove_below(log, oldest.end, is_handed)?;
            if view.first() < oldest.end {
                return Err(OutboxError::Full);
            }
        }
        Ok(())
    }

    /// Trims what receipts cover.
    pub(super) fn trim_receipted(&mut self, log: &mut Log) -> Result<(), OutboxError> {
        let mut keep_from = None;
        for segment in log.view().segments().into_iter().filter(|segment| segment.sealed) {
            if !self.is_settled(log, &segment)? {
                break;
            }
            keep_from = Some(segment.end);
        }
        match keep_from {
            Some(keep_from) => self.remove_below(log, keep_from, true),
            None => Ok(()),
        }
    }

    /// Whether receipts cover every record of a sealed segment.
    fn is_settled(&mut self, log: &Log, segment: &SegmentInfo) -> Result<bool, OutboxError> {
        let Some(start) = self.boundary(log, segment.first)? else { return Ok(true) };
        if start.position >= segment.end {
            return Ok(true); // no sample record in it
        }
        let end = self.boundary(log, segment.end)?;
        let epochs = self.around.shared.epochs();
        let Some(state) = epochs.get(start.epoch) else { return Ok(false) };
        // Of the current epoch, records may be durable that nobody was told of yet: they count as unsettled.
        let end = match end.filter(|end| end.epoch == start.epoch) {
            Some(end) => end.offset,
            None if start.epoch == self.epoch => self.next,
            None => state.end,
        };
        Ok(state.to_send(start.offset..end).is_empty())
    }

    /// The first sample record at or after a position; remembered, because segments do not change.
    fn boundary(&mut self, log: &Log, at: Position) -> Result<Option<RecordPlace>, OutboxError> {
        if let Some(known) = self.boundaries.get(&at) {
            return Ok(*known);
        }
        let found = first_record(&log.view(), at, &self.around.points)?;
        if found.is_some() {
            self.boundaries.insert(at, found);
        }
        Ok(found)
    }

    /// Removes whole segments below a position, after writing again what must survive them.
    fn remove_below(&mut self, log: &mut Log, keep_from: Position, settled: bool) -> Result<(), OutboxError> {
        // A foreign host never says what it has, so nothing could ever end the naming.
        let keep_gone = self.handed == Position(0);
        let gone = self.held.gone.clone();
        let keep_from = match self.rewrite_survivors(log, keep_from, keep_gone) {
            Ok(()) => keep_from,
            Err(OutboxError::Log(full)) if full.is_full() => {
                self.held.gone = gone;
                // What is on disk once only stays; what is below it may go all the same, and makes the room.
                let keep_from = keep_from.min(self.held.lowest(log.view().durable_end()));
                if keep_gone
                    && !self
                        .going(log, keep_from)?
                        .iter()
                        .all(|(epoch, ..)| self.held.gone.contains_key(epoch))
                {
                    return Err(full.into());
                }
                keep_from
            }
            Err(error) => return Err(error),
        };
        let first = log.trim(keep_from)?;
        let next = first_record(&log.view(), first, &self.around.points)?;
        let mut epochs = self.around.shared.epochs();
        let before = epochs.backlog();
        epochs.trimmed(first, next, keep_gone);
        let lost = before.saturating_sub(epochs.backlog());
        drop(epochs);
        self.boundaries = self.boundaries.split_off(&first);
        self.meters.forgetting.check(!settled || !keep_gone || lost == 0, || {
            format!("{lost} records were forgotten that the hub has not reported durable")
        });
        if lost > 0 {
            let mut dropped = self.around.shared.dropped();
            dropped.records += lost;
            self.meters.dropped.add(lost);
            if settled {
                dropped.handed_over += lost;
            } else {
                tracing::warn!(
                    records = lost,
                    "outbox full: the oldest records were dropped before the hub had them"
                );
            }
        }
        Ok(())
    }

    /// Epochs of which nothing is left from a position on.
    fn going(&self, log: &Log, keep_from: Position) -> Result<Vec<(Epoch, u64, Account)>, OutboxError> {
        let next = first_record(&log.view(), keep_from, &self.around.points)?.map(|record| record.epoch);
        Ok(self.around.shared.epochs().going_before(next))
    }

    /// Writes what lies below a position and is still needed again, durably. It counts as moved only then: a copy that
    /// waits in memory for room on a full disk is none.
    fn rewrite_survivors(
        &mut self,
        log: &mut Log,
        keep_from: Position,
        keep_gone: bool,
    ) -> Result<(), OutboxError> {
        let now = self.around.clock.now();
        let mut survivors = self.held.below(keep_from, now);
        let going = if keep_gone { self.going(log, keep_from)? } else { Vec::new() };
        survivors.extend(self.held.gone_below(keep_from, going));
        let mut copies = Vec::new();
        for group in survivors.chunks(64) {
            copies.push((append(log, group)?.0, group));
        }
        if survivors.is_empty() && log.end() == log.view().durable_end() {
            return Ok(());
        }
        log.sync()?; // also what was taken before: a newer copy may be in it
        for (first, group) in copies {
            for (at, record) in (first.0..).zip(group) {
                self.held.moved(record, Position(at));
            }
        }
        Ok(())
    }

    /// Makes holes of what a reader could not read, so that what stands behind is sent.
    pub(super) fn heal(&mut self, log: &mut Log) -> Result<(), OutboxError> {
        for repaired in log.heal()? {
            tracing::error!(%repaired, "the outbox");
        }
        let mut present: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        let view = log.view();
        let mut reader = view.reader(view.first());
        while let Some((position, bytes)) = reader.next()? {
            if bytes.is_empty() {
                continue;
            }
            let record = LogRecord::decode(bytes)
                .map_err(|source| OutboxError::Record { position: position.0, source })?;
            if let LogRecord::Accepted { batch, .. } = record {
                present.entry(batch.id.epoch).or_default().insert_one(batch.id.offset.0);
            }
        }
        let gone = self.around.shared.epochs().keep_only(&present);
        self.meters.damaged.add(gone);
        self.boundaries.clear();
        self.trim_due = true;
        Ok(())
    }

    pub(super) fn measure(&mut self, log: &Log) {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_AT_DISK) {
            self.looked = Some(Instant::now());
            let fill = log.fill(self.around.soft_bytes_max);
            self.meters.fill.set(i64::from(fill.percent()));
            let (before, level) = (self.level, fill.level(self.level));
            self.level = level;
            *self.around.shared.fill.lock().unwrap_or_else(PoisonError::into_inner) = (fill.percent(), level);
            match level {
                _ if level == before => {}
                Level::NearlyFull => {
                    tracing::error!(agent = self.around.agent, %fill, "the outbox is nearly full: when it is, nothing is read any more, or the oldest is dropped, as configured")
                }
                Level::Filling if before == Level::Good => {
                    tracing::warn!(agent = self.around.agent, %fill, "the outbox fills up: the hub takes less than is read")
                }
                _ => tracing::info!(agent = self.around.agent, %fill, "the outbox has more room"),
            }
        }
        self.meters.bytes.set(i64::try_from(log.view().bytes()).unwrap_or(i64::MAX));
        self.meters.backlog.set(i64::try_from(self.around.shared.epochs().backlog()).unwrap_or(i64::MAX));
    }
}
