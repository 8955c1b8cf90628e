//! Receipts: what the hub holds on disk, per epoch of one agent (design §4.7), and reports of how commands ended.
//!
//! Both are small protobuf messages (`Receipt`, `CommandReport` in `schema/sparkplug_b.proto`) inside a metric of
//! type Bytes; docs/specs/receipts.md says what each field means and who may act on it.

use std::collections::HashSet;

use model::limits::{PATH_BYTES_MAX, RECEIPT_RANGES_MAX};
use model::{CommandId, CommandOutcome, Epoch, RangeSet, Timestamp};
use prost::Message;

use crate::generated::sparkplug as wire;

/// Name of the NCMD metric that carries a receipt, as agents declare it in their NBIRTH (type Bytes).
pub const RECEIPT_METRIC: &str = "Forebay/Receipt";

/// Name of the node metric whose samples report how commands ended (type Bytes).
pub const COMMAND_REPORT_METRIC: &str = "Forebay/Command";

/// Encoded bytes of a receipt: per range two varints and, at worst, an epoch of its own, and the reason.
const RECEIPT_BYTES_MAX: usize = RECEIPT_RANGES_MAX * (2 * 10 + 16) + 2 * REASON_BYTES_MAX;

/// `holding` and the text of an outcome are cut to this.
const REASON_BYTES_MAX: usize = 4 * 1024;

/// A read-back is cut to this: it is for people, the value itself comes as a sample.
const READ_BACK_BYTES_MAX: usize = 64 * 1024;

/// What the hub holds of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The hub's clock when it wrote this.
    pub hub_time: Timestamp,
    /// Durable offsets, per epoch.
    pub durable: Vec<(Epoch, RangeSet)>,
    /// Why the hub cannot write at the moment.
    pub holding: Option<String>,
    /// Whether the hub understands reports of health ([`crate::health`]).
    pub takes_health: bool,
}

/// Why bytes are no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt: {0}")]
pub struct ReceiptError(pub String);

impl Receipt {
    /// The metric's bytes.
    ///
    /// It names at most `RECEIPT_RANGES_MAX` ranges, the first ones: a receipt may claim less than there is, never
    /// more. Whoever has more epochs or ranges sends them in turns.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut room = RECEIPT_RANGES_MAX;
        let durable = self.durable.iter().take(RECEIPT_RANGES_MAX).map(|(epoch, ranges)| {
            let named = ranges.iter().take(room);
            room -= named.len();
            wire::EpochRanges { epoch: Some(epoch.0), bounds: named.flat_map(|r| [r.start, r.end]).collect() }
        });
        let durable = durable.collect();
        let holding = self.holding.as_deref().map(|reason| cut(reason, REASON_BYTES_MAX).to_owned());
        let takes_health = self.takes_health.then_some(true);
        wire::Receipt { hub_time: Some(self.hub_time.0), durable, holding, takes_health }.encode_to_vec()
    }

    /// Reads a receipt: ranges must ascend, and there are at most `RECEIPT_RANGES_MAX` of them.
    pub fn decode(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(refused("longer than any receipt"));
        }
        let receipt = wire::Receipt::decode(bytes).map_err(|error| ReceiptError(error.to_string()))?;
        let hub_time = receipt.hub_time.ok_or_else(|| refused("no hub time"))?;
        let takes_health = receipt.takes_health();
        if receipt.durable.len() > RECEIPT_RANGES_MAX {
            return Err(refused("too many epochs"));
        }
        let (mut room, mut seen) = (RECEIPT_RANGES_MAX, HashSet::new());
        let mut durable = Vec::with_capacity(receipt.durable.len());
        for ranges in receipt.durable {
            let epoch = ranges.epoch.ok_or_else(|| refused("ranges without an epoch"))?;
            if Epoch::from_random(epoch) != Some(Epoch(epoch)) || !seen.insert(epoch) {
                return Err(refused("an epoch that cannot be or comes twice"));
            }
            room = room.checked_sub(ranges.bounds.len() / 2).ok_or_else(|| refused("too many ranges"))?;
            durable.push((Epoch(epoch), read_ranges(&ranges.bounds)?));
        }
        Ok(Receipt { hub_time: Timestamp(hub_time), durable, holding: receipt.holding, takes_health })
    }
}

fn read_ranges(bounds: &[u64]) -> Result<RangeSet, ReceiptError> {
    let (pairs, rest) = bounds.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(refused("a range without an end"));
    }
    let (mut ranges, mut at) = (RangeSet::new(), 0);
    for &[start, end] in pairs {
        if start < at || end <= start {
            return Err(refused("ranges that do not ascend"));
        }
        ranges.insert(start..end);
        at = end;
    }
    Ok(ranges)
}

fn refused(why: &str) -> ReceiptError {
    ReceiptError(why.to_owned())
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// How a command ended: value of [`COMMAND_REPORT_METRIC`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReport {
    /// The command.
    pub id: CommandId,
    /// Its outcome.
    pub outcome: CommandOutcome,
    /// The point it was for.
    pub path: String,
    /// What the device showed afterwards; empty if it was not read.
    pub read_back: String,
}

impl CommandReport {
    /// The metric's bytes; long texts are cut, so that the report always fits a record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let report = wire::CommandReport {
            id: Some(self.id.0.to_vec()),
            outcome: Some(cut(&self.outcome.to_string(), REASON_BYTES_MAX).to_owned()),
            path: Some(self.path.clone()),
            read_back: (!self.read_back.is_empty())
                .then(|| cut(&self.read_back, READ_BACK_BYTES_MAX).to_owned()),
        };
        report.encode_to_vec()
    }

    /// Reads a report.
    pub fn decode(bytes: &[u8]) -> Result<CommandReport, ReceiptError> {
        let report = wire::CommandReport::decode(bytes).map_err(|error| ReceiptError(error.to_string()))?;
        let id = report.id.and_then(|id| id.try_into().ok()).map(CommandId);
        let outcome = report.outcome.as_deref().and_then(CommandOutcome::parse);
        let path = report.path.filter(|path| path.len() <= PATH_BYTES_MAX);
        Ok(CommandReport {
            id: id.ok_or_else(|| refused("a report without an id of 16 bytes"))?,
            outcome: outcome.ok_or_else(|| refused("a report without an outcome"))?,
            path: path.ok_or_else(|| refused("a report without a path"))?,
            read_back: report.read_back.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
