//! Small records that must survive trimming: source positions, command ids, names of epochs that are gone, the newest
//! acceptance time. Where the newest copy of each lies, and what has to be written again before a segment goes.

use std::collections::BTreeMap;

use durable_log::Position;
use model::{CommandId, Epoch, Timestamp};
use proto::account::Account;
use proto::log_record::LogRecord;

use super::open::Positions;

/// The newest position of a source, and where it lies.
#[derive(Clone, Debug)]
pub(super) struct HeldPosition {
    pub(super) bytes: Vec<u8>,
    pub(super) at: Position,
    /// Where an older copy lies that is on disk, should this one not be.
    pub(super) older: Option<Position>,
}

impl HeldPosition {
    /// The newest copy below the durable end.
    pub(super) fn durable(&self, end: Position) -> Option<Position> {
        if self.at < end { Some(self.at) } else { self.older }
    }
}

/// Small records that must survive trimming.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) positions: Positions,
    pub(super) commands: BTreeMap<CommandId, (Timestamp, Position)>,
    /// Where it stands that an epoch is gone.
    pub(super) gone: BTreeMap<Epoch, Position>,
    /// The newest acceptance time, and where it stands: acceptance never goes back, whatever the clock does.
    pub(super) arrival: Option<(Timestamp, Position)>,
}

impl Held {
    /// The newest position of a source lies at `at`; below `durable_end` everything is on disk.
    pub(super) fn keep_position(
        &mut self,
        source: String,
        bytes: Vec<u8>,
        at: Position,
        durable_end: Position,
    ) {
        let older = self.positions.get(&source).and_then(|held| held.durable(durable_end));
        self.positions.insert(source, HeldPosition { bytes, at, older });
    }

    pub(super) fn keep_command(&mut self, id: CommandId, expires_at: Timestamp, at: Position) {
        self.commands.insert(id, (expires_at, at));
    }

    pub(super) fn keep_gone(&mut self, epoch: Epoch, at: Position) {
        self.gone.insert(epoch, at);
    }

    /// An acceptance time stands at `at`.
    pub(super) fn keep_arrival(&mut self, arrival: Timestamp, at: Position) {
        if self.arrival.is_none_or(|(newest, _)| arrival >= newest) {
            self.arrival = Some((arrival, at));
        }
    }

    /// What lies below `keep_from` and is still needed, as records.
    pub(super) fn below(&mut self, keep_from: Position, now: Timestamp) -> Vec<LogRecord> {
        self.commands.retain(|_, (expires_at, _)| *expires_at > now);
        let positions = self.positions.iter().filter(|(_, held)| held.at < keep_from);
        let positions = positions.map(|(source, held)| LogRecord::SourcePosition {
            source: source.clone(),
            position: held.bytes.clone(),
        });
        let commands = self.commands.iter().filter(|(_, (_, at))| *at < keep_from);
        let commands = commands
            .map(|(id, (expires_at, _))| LogRecord::CommandSeen { id: id.0, expires_at: *expires_at });
        let arrival =
            self.arrival.filter(|(_, at)| *at < keep_from).map(|(arrival, _)| arrival_record(arrival));
        positions.chain(commands).chain(arrival).collect()
    }

    /// Where the oldest record lies that must survive trimming, as far as it is on disk; `end` if there is none.
    pub(super) fn lowest(&self, end: Position) -> Position {
        let positions = self.positions.values().filter_map(|held| held.durable(end));
        let commands = self.commands.values().map(|(_, at)| *at);
        positions.chain(commands).chain(self.gone.values().copied()).min().unwrap_or(end)
    }

    /// The record lies at `at` now.
    pub(super) fn moved(&mut self, record: &LogRecord, at: Position) {
        match record {
            LogRecord::SourcePosition { source, .. } if source.is_empty() => {
                self.arrival = self.arrival.map(|(arrival, _)| (arrival, at));
            }
            LogRecord::SourcePosition { source, .. } => {
                if let Some(held) = self.positions.get_mut(source) {
                    held.at = at;
                }
            }
            LogRecord::CommandSeen { id, .. } => {
                if let Some(held) = self.commands.get_mut(&CommandId(*id)) {
                    held.1 = at;
                }
            }
            LogRecord::EpochGone { epoch, .. } => self.keep_gone(*epoch, at),
            _ => {}
        }
    }

    /// Those of `going` that the log does not name behind `keep_from`, as records; forgets all others.
    pub(super) fn gone_below(
        &mut self,
        keep_from: Position,
        going: Vec<(Epoch, u64, Account)>,
    ) -> Vec<LogRecord> {
        let named = std::mem::take(&mut self.gone);
        let stands = |epoch| named.get(&epoch).copied().filter(|at| *at >= keep_from);
        self.gone = going.iter().filter_map(|(epoch, ..)| Some((*epoch, stands(*epoch)?))).collect();
        let unnamed = going.into_iter().filter(|(epoch, ..)| stands(*epoch).is_none());
        unnamed.map(|(epoch, end, account)| LogRecord::EpochGone { epoch, end, account }).collect()
    }
}

/// The newest acceptance time as a position of the agent itself: no device has an empty name.
fn arrival_record(arrival: Timestamp) -> LogRecord {
    LogRecord::SourcePosition { source: String::new(), position: arrival.0.to_le_bytes().to_vec() }
}
