//! The plant log: what the hub received, once, in the order in which it came.
//!
//! One writer thread appends, commits in groups and tells afterwards. It refuses what it already holds (by agent,
//! epoch and offset), keeps the accounts of every epoch, and derives all of that from the log on open.

use std::sync::Arc;

use model::{Epoch, NodeId, PointId, Quality, RangeSet, SampleBatch, Timestamp, Value};
use proto::account::Account;
use proto::log_record::AgentId;
use proto::sparkplug::EpochAccount;

/// One agent's account.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentAccount {
    /// Whose.
    pub agent: NodeId,
    /// Its number in the catalogue and in log records.
    pub id: AgentId,
    /// Whether the hub numbers its records (design §4.15): epochs are then the plant log's own, and `ranges` is the
    /// span of positions among which its records are.
    pub foreign: bool,
    /// By epoch.
    pub epochs: Vec<EpochState>,
}

/// What the hub holds of one epoch of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochState {
    /// Which.
    pub epoch: Epoch,
    /// Offsets received and on disk (also if retention has deleted them since).
    pub ranges: RangeSet,
    /// Account of all received.
    pub account: Account,
    /// Offsets that will never come, settled.
    pub lost: RangeSet,
    /// Offsets whose payload nobody could decode: in quarantine, settled.
    pub quarantined: RangeSet,
    /// The newest that the agent said of it.
    pub reported: Option<EpochAccount>,
    /// Below here count and checksum are equal to the agent's.
    pub verified_end: u64,
    /// Invariant I3 is broken: how.
    pub mismatch: Option<String>,
}

/// A record that is on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableBatch {
    /// Whose.
    pub agent: AgentId,
    /// When the hub received it.
    pub arrival: Timestamp,
    /// Whether a sample of it reports how a command ended.
    pub has_command_report: bool,
    /// Its samples.
    pub batch: SampleBatch,
}

/// Last value of a point, as recovered from the checkpoint and the log's tail.
#[derive(Clone, Debug, PartialEq)]
pub struct LastValue {
    /// Which point.
    pub point: PointId,
    /// Source time.
    pub time: Timestamp,
    /// When it was accepted.
    pub arrival: Timestamp,
    /// The value.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
}

/// Whether the store can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// It can.
    Ok,
    /// Not at the moment (the disk is full): why. It goes on by itself when it can.
    Holding(String),
    /// A write or sync failed: why. Reads go on; a person must look and restart.
    Latched(String),
}

/// The plant log's writer and its readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Epoch of this opening of the plant log.
    #[must_use]
    pub fn log_epoch(&self) -> Epoch {
        todo!()
    }

    /// Name of this hub.
    #[must_use]
    pub fn hub_id(&self) -> &str {
        todo!()
    }

    /// The accounts of all agents as of the durable end.
    #[must_use]
    pub fn accounts(&self) -> Vec<AgentAccount> {
        todo!()
    }

    /// Whether it can write.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        todo!()
    }

    /// The newest entries of the quarantine, newest first.
    #[must_use]
    pub fn quarantined(&self, _at_most: usize) -> Vec<QuarantineEntry> {
        todo!()
    }
}

/// A payload that nobody could decode.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineEntry {
    /// When it arrived.
    pub at: Timestamp,
    /// Where it came from.
    pub topic: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What live views and commands are told of: durable records, in log order.
pub type DurableGroup = Vec<Arc<DurableBatch>>;
