//! Opening: one pass over what the log holds gives epochs, source positions and command ids.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use durable_log::{Log, LogError, LogView, Options, Position, Recovery};
use model::{CommandId, Epoch, SampleBatch, Timestamp};
use proto::account::{Account, sample_hash};
use proto::log_record::LogRecord;
use runtime::clock::Clock;
use runtime::mistakes::{Mistake, is_made};
use runtime::telemetry::Metrics;
use tokio::sync::{mpsc, watch};

use super::held::Held;
use super::writer::Writer;
use super::{Durable, Epochs, ITEMS_MAX, Outbox, OutboxError, OutboxOptions, Present, RecordPlace, Shared};
use crate::catalogue::Points;

/// A segment is this part of the bound, so that trimming is prompt on small outboxes too.
const SEGMENTS_OF_BOUND: u64 = 32;
/// Smallest and largest segment: a record must fit several times; a huge one delays trimming.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 2 * MIB..=16 * MIB;
const MIB: u64 = 1024 * 1024;
/// Segments' worth of the bound that is not for samples, but for positions and command ids.
pub(super) const SPARE_SEGMENTS: u64 = 2;
/// The smallest bound: segments and the spare must fit.
pub(crate) const BYTES_MIN: u64 = 16 * MIB;
/// Free space left to the file system.
const RESERVE_BYTES: u64 = 16 * MIB;

/// An opened outbox.
pub struct Opened {
    /// The handle.
    pub outbox: Outbox,
    /// The writer; somebody must run it on a thread of its own.
    pub writer: Writer,
    /// Newest position of each source, by device name.
    pub positions: BTreeMap<String, Vec<u8>>,
    /// What the log found.
    pub recovery: Recovery,
}

/// Opens or creates the outbox in `dir`. Blocking.
pub fn open(
    dir: &Path,
    options: &OutboxOptions,
    points: &Arc<Points>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Opened, OutboxError> {
    open_with(points, clock, metrics, options, dir, |log_options, epoch| Log::open(dir, log_options, epoch))
}

/// The same on a log that the caller opens: for storages that fail.
pub fn open_with(
    points: &Arc<Points>,
    clock: &Clock,
    metrics: &Metrics,
    options: &OutboxOptions,
    dir: &Path,
    open_log: impl FnOnce(Options, u64) -> Result<(Log, Recovery), durable_log::LogError>,
) -> Result<Opened, OutboxError> {
    let bytes_max = options.bytes_max.max(BYTES_MIN);
    let segment_bytes = (bytes_max / SEGMENTS_OF_BOUND).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    let log_options = Options {
        segment_bytes,
        bytes_max,
        reserve_bytes: RESERVE_BYTES,
        when_damaged: durable_log::WhenDamaged::SetAside,
        when_full: durable_log::WhenFull::StopAccepting, // policy is the writer's, which knows what may go
        ..Options::default()
    };
    let mut epoch = new_epoch()?;
    let (mut log, mut recovery) = open_log(log_options, epoch.0)?;
    let (mut next, mut total) = (0, Account::default());
    if is_made(Mistake::OffsetReuse)
        && let Some((found, end, account)) = last_record(&log)?
    {
        (epoch, next, total) = (found, end, account);
    }
    let scan = loop {
        let scan = Scan { epochs: Epochs::new(epoch), held: Held::default(), now: clock.now() };
        match scan.read(&log.view(), points) {
            Err(OutboxError::Log(error @ LogError::Damaged { .. })) => {
                let healed = log.heal()?;
                if healed.is_empty() {
                    return Err(error.into());
                }
                recovery.repaired.extend(healed);
            }
            scanned => break scanned?,
        }
    };
    let view = log.view();
    let (items, intake) = mpsc::channel(ITEMS_MAX);
    let (durable_end, durable) = watch::channel(Durable { position: recovery.end, offset: next });
    let shared = Arc::new(Shared {
        epochs: Mutex::new(scan.epochs),
        dropped: Mutex::default(),
        marks: Mutex::default(),
        is_full: std::sync::atomic::AtomicBool::new(false),
        fill: Mutex::default(),
    });
    let present = Present::new(points.clone());
    let positions =
        scan.held.positions.iter().map(|(source, held)| (source.clone(), held.bytes.clone())).collect();
    let outbox = Outbox {
        items,
        durable,
        shared: shared.clone(),
        present: present.clone(),
        view,
        current: epoch,
        dir: dir.to_owned(),
    };
    let soft_bytes_max = bytes_max - SPARE_SEGMENTS * segment_bytes;
    let writer = Writer::new(
        log,
        intake,
        (epoch, next, total),
        scan.held,
        super::writer::Surroundings {
            agent: options.agent.clone(),
            points: points.clone(),
            clock: clock.clone(),
            shared,
            present,
            durable_end,
            soft_bytes_max,
            when_full: options.when_full,
        },
        metrics,
    );
    Ok(Opened { outbox, writer, positions, recovery })
}

/// See [`Mistake::OffsetReuse`].
fn last_record(log: &Log) -> Result<Option<(Epoch, u64, Account)>, OutboxError> {
    let view = log.view();
    let mut reader = view.reader(view.first());
    let mut last = None;
    while let Some((_, bytes)) = reader.next()? {
        if let Ok(LogRecord::Accepted { batch, account, .. }) = LogRecord::decode(bytes) {
            last = Some((batch.id.epoch, batch.id.offset.0 + 1, account));
        }
    }
    Ok(last)
}

/// A random epoch.
pub(crate) fn new_epoch() -> Result<Epoch, OutboxError> {
    loop {
        let bits = runtime::world::random_u64().map_err(OutboxError::NoRandomness)?;
        if let Some(epoch) = Epoch::from_random(bits) {
            return Ok(epoch);
        }
    }
}

struct Scan {
    epochs: Epochs,
    held: Held,
    now: Timestamp,
}

impl Scan {
    fn read(mut self, view: &LogView, points: &Points) -> Result<Scan, OutboxError> {
        let mut reader = view.reader(view.first());
        while let Some((position, bytes)) = reader.next()? {
            if bytes.is_empty() {
                continue; // damaged and given up
            }
            let record = LogRecord::decode(bytes)
                .map_err(|source| OutboxError::Record { position: position.0, source })?;
            self.take(position, record, points)?;
        }
        Ok(self)
    }

    fn take(&mut self, position: Position, record: LogRecord, points: &Points) -> Result<(), OutboxError> {
        match record {
            LogRecord::Accepted { batch, account, .. } => {
                let (epoch, offset) = (batch.id.epoch, batch.id.offset.0);
                let place = match self.epochs.get(epoch) {
                    // The account before the first record of an epoch has to be computed; the others follow on.
                    None => record_place(position, &batch, account, points)?,
                    Some(state) if state.end == offset => {
                        RecordPlace { epoch, offset, position, before: state.total, after: account }
                    }
                    Some(_damaged_between) => record_place(position, &batch, account, points)?,
                };
                self.epochs.add(place);
                self.held.keep_arrival(batch.accepted_at, position);
            }
            LogRecord::SourcePosition { source, position: bytes } if source.is_empty() => {
                // The agent's own: see the writer's `arrival_record`.
                let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| OutboxError::Record {
                    position: position.0,
                    source: proto::log_record::RecordError::Damaged("an acceptance time of 8 bytes"),
                })?;
                self.held.keep_arrival(Timestamp(i64::from_le_bytes(bytes)), position);
            }
            LogRecord::SourcePosition { source, position: bytes } => {
                self.held.keep_position(source, bytes, position, Position(u64::MAX));
            }
            LogRecord::CommandSeen { id, expires_at } => {
                if expires_at > self.now {
                    self.held.keep_command(CommandId(id), expires_at, position);
                }
            }
            LogRecord::EpochGone { epoch, end, account } => {
                self.epochs.add_gone(epoch, end, account);
                self.held.keep_gone(epoch, position);
            }
            LogRecord::Received { .. }
            | LogRecord::Lost { .. }
            | LogRecord::Again { .. }
            | LogRecord::Retried { .. } => {
                let source = proto::log_record::RecordError::Damaged("a record of a plant log");
                return Err(OutboxError::Record { position: position.0, source });
            }
        }
        Ok(())
    }
}

/// Where a record stands, with the accounts on both sides of it.
pub(super) fn record_place(
    position: Position,
    batch: &SampleBatch,
    after: Account,
    points: &Points,
) -> Result<RecordPlace, OutboxError> {
    let own = own_account(batch, points)
        .map_err(|point| OutboxError::UnknownPoint { position: position.0, point })?;
    let (epoch, offset) = (batch.id.epoch, batch.id.offset.0);
    Ok(RecordPlace { epoch, offset, position, before: after.minus(own), after })
}

/// The account of one record; the error is a point that the catalogue lacks.
pub(super) fn own_account(batch: &SampleBatch, points: &Points) -> Result<Account, u32> {
    let mut own = Account::default();
    for (index, sample) in (0_u32..).zip(&batch.samples) {
        let entry = points.get(sample.point).ok_or(sample.point.0)?;
        own.add(sample_hash(
            batch.id.offset,
            index,
            entry.path_hash,
            sample.time,
            sample.value.as_ref(),
            sample.quality,
        ));
    }
    Ok(own)
}

/// The first sample record at or after a position, if there is a durable one.
pub(super) fn first_record(
    view: &durable_log::LogView,
    from: Position,
    points: &Points,
) -> Result<Option<RecordPlace>, OutboxError> {
    let mut reader = view.reader(from);
    while let Some((position, bytes)) = reader.next()? {
        if bytes.is_empty() {
            continue; // damaged and given up
        }
        let record = LogRecord::decode(bytes)
            .map_err(|source| OutboxError::Record { position: position.0, source })?;
        if let LogRecord::Accepted { batch, account, .. } = record {
            return record_place(position, &batch, account, points).map(Some);
        }
    }
    Ok(None)
}

/// Sources by name, in order.
pub(super) type Positions = BTreeMap<String, super::held::HeldPosition>;
