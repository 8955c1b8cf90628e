//! Sparkplug B 3.0 on the wire: topics and payloads.

pub mod decode;
pub mod encode;
pub mod topic;

pub use decode::{DecodeError, MetricView, PayloadView, WireValue};
pub use topic::{MessageType, StatePayload, Topic};

use model::{CommandId, Epoch, RecordId, Timestamp};

use crate::account::{Account, DeviceCounts};

/// Which record a data payload is (design §4.5). Exact times and qualities are folded in by the codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Epoch and offset.
    pub id: RecordId,
    /// First offset of this epoch that the agent still holds.
    pub first_held: u64,
    /// Accepted end of this epoch, exclusive.
    pub accepted_end: u64,
    /// When the agent accepted it.
    pub accepted_at: Timestamp,
    /// Running account of the epoch after this record.
    pub account: Option<Account>,
    /// What the agent counted at the device, as of this record.
    pub counts: Option<DeviceCounts>,
}

/// One epoch in an NBIRTH (design §4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochAccount {
    /// Which.
    pub epoch: Epoch,
    /// Offsets below are no longer on the agent's disk.
    pub first_held: u64,
    /// Accepted end, exclusive.
    pub end: u64,
    /// Running account before `first_held`.
    pub before: Account,
    /// Running account at `end`.
    pub total: Account,
}

/// What an agent's NBIRTH says of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BirthHead {
    /// Every epoch of which the log still holds records, and the current one.
    pub epochs: Vec<EpochAccount>,
    /// The agent's clock.
    pub agent_time: Timestamp,
    /// Version of the agent's program.
    pub version: String,
    /// Percent of the outbox that is used, of its bound or its disk, whichever is nearer.
    pub outbox_used: Option<u8>,
}

/// Identity and expiry of a command (design §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandHead {
    /// Its id.
    pub id: CommandId,
    /// After this, hub time, nobody may execute it.
    pub expires_at: Timestamp,
    /// Who asked.
    pub author: String,
    /// Why.
    pub reason: String,
}
