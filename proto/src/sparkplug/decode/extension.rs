//! Forebay's extension of a payload: read by protobuf's rules, then checked by ours (docs/specs/receipts.md).
//!
//! Several occurrences merge, as protobuf wants it. What breaks our rules makes the whole payload malformed.

use model::limits::{PAYLOAD_METRICS_MAX, RECEIPT_RANGES_MAX};
use model::{CommandId, Epoch, Offset, Quality, RecordId, Timestamp};
use prost::Message;

use super::wire::{Failure, Wire};
use super::{DecodeError, shape};
use crate::account::{Account, DeviceCounts};
use crate::generated::sparkplug as generated;
use crate::sparkplug::{BirthHead, CommandHead, EpochAccount, RecordHead};
use crate::varint;

/// Encoded bytes of a birth's extension: as many epochs as a receipt can answer.
const BIRTH_BYTES_MAX: usize = RECEIPT_RANGES_MAX * 96;

/// Room made for a column before it is read; more comes as numbers do.
const COLUMN_RESERVED: usize = 4096;

/// The fields of `RecordExtension` as they came.
#[derive(Default)]
pub(super) struct RawRecord {
    epoch: Option<u64>,
    offset: Option<u64>,
    held: u64,
    ahead: Option<u64>,
    accepted_at: Option<i64>,
    pub(super) time_micros: Vec<u32>,
    pub(super) quality: Vec<u32>,
    pub(super) value_micros: Vec<u32>,
    account: Option<Account>,
    counts: Option<DeviceCounts>,
}

impl RawRecord {
    pub(super) fn merge(&mut self, mut wire: Wire<'_>, depth: usize) -> Result<(), Failure> {
        while let Some(key) = wire.key()? {
            match key.tag() {
                1 => self.epoch = Some(wire.fixed64(key)?),
                2 => self.offset = Some(wire.number(key)?),
                3 => self.held = wire.number(key)?,
                4 => self.ahead = Some(wire.number(key)?),
                5 => self.accepted_at = Some(varint::unzigzag(wire.number(key)?)),
                6 => {
                    self.time_micros.reserve(wire.rest().len().min(COLUMN_RESERVED));
                    wire.numbers32(key, |number| push(&mut self.time_micros, number))?;
                }
                7 => wire.numbers32(key, |number| push(&mut self.quality, number))?,
                8 => wire.numbers32(key, |number| push(&mut self.value_micros, number))?,
                9 => {
                    let account = self.account.get_or_insert_default();
                    let mut inner = wire.message(key)?;
                    while let Some(key) = inner.key()? {
                        match key.tag() {
                            1 => account.count = inner.number(key)?,
                            2 => account.checksum = inner.fixed64(key)?,
                            _ => inner.skip(key, depth)?,
                        }
                    }
                }
                10 => {
                    let counts = self.counts.get_or_insert_default();
                    let mut inner = wire.message(key)?;
                    while let Some(key) = inner.key()? {
                        match key.tag() {
                            1 => counts.read = inner.number(key)?,
                            2 => counts.dead_band = inner.number(key)?,
                            3 => counts.quarantined = inner.number(key)?,
                            4 => counts.made = inner.number(key)?,
                            _ => inner.skip(key, depth)?,
                        }
                    }
                }
                _ => wire.skip(key, depth)?,
            }
        }
        Ok(())
    }

    /// What the fields mean; `metrics` is how many the payload has.
    pub(super) fn head(&self, metrics: usize) -> Result<RecordHead, &'static str> {
        let epoch = self.epoch.and_then(epoch).ok_or("forebay_record has no epoch")?;
        let offset = self.offset.ok_or("forebay_record has no offset")?;
        let first_held = offset.checked_sub(self.held).ok_or("forebay_record holds more than there is")?;
        let ahead = self.ahead.unwrap_or(1);
        let accepted_end = offset.checked_add(ahead).filter(|_| ahead > 0);
        let accepted_end = accepted_end.ok_or("forebay_record ends before itself")?;
        let accepted_at = self.accepted_at.map(Timestamp).ok_or("forebay_record has no acceptance time")?;
        if [&self.time_micros, &self.quality, &self.value_micros].iter().any(|column| column.len() > metrics)
        {
            return Err("forebay_record has more columns' entries than metrics");
        }
        if self.time_micros.iter().chain(&self.value_micros).any(|micros| *micros > 999) {
            return Err("forebay_record has more than 999 µs of a millisecond");
        }
        if self.quality.iter().any(|bits| Quality::from_bits(*bits).is_none()) {
            return Err("forebay_record has a quality unknown to this program");
        }
        let id = RecordId { epoch, offset: Offset(offset) };
        Ok(RecordHead {
            id,
            first_held,
            accepted_end,
            accepted_at,
            account: self.account,
            counts: self.counts,
        })
    }
}

fn push(column: &mut Vec<u32>, number: u32) -> Result<(), Failure> {
    if column.len() >= PAYLOAD_METRICS_MAX {
        return Err(Box::new(DecodeError::TooMany {
            what: "entries of a column",
            limit: PAYLOAD_METRICS_MAX,
        }));
    }
    column.push(number);
    Ok(())
}

fn epoch(bits: u64) -> Option<Epoch> {
    Epoch::from_random(bits).filter(|epoch| epoch.0 == bits)
}

/// Rare and small: read by prost after it has been checked.
#[derive(Default)]
pub(super) struct RawBirth {
    birth: generated::BirthExtension,
    bytes: usize,
}

impl RawBirth {
    pub(super) fn merge(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Failure> {
        shape::BIRTH.check(wire, depth)?;
        self.bytes += wire.rest().len();
        if self.bytes > BIRTH_BYTES_MAX {
            return Err(Box::new(DecodeError::TooMany {
                what: "bytes in forebay_birth",
                limit: BIRTH_BYTES_MAX,
            }));
        }
        self.birth.merge(wire.rest()).map_err(|_| wire.malformed("forebay_birth"))
    }

    pub(super) fn head(self) -> Result<BirthHead, &'static str> {
        if self.birth.epochs.len() > RECEIPT_RANGES_MAX {
            return Err("forebay_birth has too many epochs");
        }
        let account = |raw: Option<generated::Account>| {
            raw.map(|raw| Account { count: raw.count(), checksum: raw.checksum() }).unwrap_or_default()
        };
        let epochs = self.birth.epochs.into_iter().map(|raw| {
            let (first_held, end) = (raw.first_held(), raw.end());
            let epoch = raw.epoch.and_then(epoch).ok_or("forebay_birth has an epoch that cannot be")?;
            if first_held > end {
                return Err("forebay_birth holds more than there is");
            }
            Ok(EpochAccount {
                epoch,
                first_held,
                end,
                before: account(raw.before),
                total: account(raw.total),
            })
        });
        let epochs = epochs.collect::<Result<Vec<_>, _>>()?;
        let agent_time = Timestamp(self.birth.agent_time.ok_or("forebay_birth has no time")?);
        let outbox_used = self.birth.outbox_used.map(|percent| u8::try_from(percent.min(100)).unwrap_or(100));
        Ok(BirthHead { epochs, agent_time, version: self.birth.version.unwrap_or_default(), outbox_used })
    }
}

/// Rare and small: read by prost after it has been checked.
#[derive(Default)]
pub(super) struct RawCommand(generated::CommandExtension);

impl RawCommand {
    pub(super) fn merge(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Failure> {
        shape::COMMAND.check(wire, depth)?;
        self.0.merge(wire.rest()).map_err(|_| wire.malformed("forebay_command"))
    }

    pub(super) fn head(self) -> Result<CommandHead, &'static str> {
        let id = self.0.id.and_then(|id| id.try_into().ok()).map(CommandId);
        Ok(CommandHead {
            id: id.ok_or("forebay_command has no id of 16 bytes")?,
            expires_at: Timestamp(self.0.expires_at.ok_or("forebay_command has no expiry")?),
            author: self.0.author.unwrap_or_default(),
            reason: self.0.reason.unwrap_or_default(),
        })
    }
}
