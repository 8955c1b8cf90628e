//! Records in the two logs: what an agent accepted, what a hub received, and the catalogues that name their points.

use model::{Epoch, NodeId, PointDefinition, PointId, SampleBatch, Timestamp};

use crate::account::Account;

/// Number of an agent in a hub's catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub u32);

/// What a sample record says about its device besides its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceEvent {
    /// Nothing: the device goes on.
    #[default]
    None,
    /// These Stale samples are its last: a DDEATH follows.
    Down,
}

/// One record of a log. A log holds many kinds; a reader of a later version's kind gets an error, not a guess.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    /// In an agent's log: samples of one device, with the epoch's running account after them.
    Accepted {
        /// Identity, acceptance time, samples.
        batch: SampleBatch,
        /// Running account of the epoch, this record included.
        account: Account,
        /// Whether the device went down with it.
        event: DeviceEvent,
    },
    /// In a plant log: samples of one agent, with their own account.
    Received {
        /// Whose.
        agent: AgentId,
        /// Identity at the agent, acceptance time, samples with the hub's point ids.
        batch: SampleBatch,
        /// Account of this record alone.
        account: Account,
    },
    /// In an agent's log, in one atomic group with the samples that it covers: where the source stands now.
    SourcePosition {
        /// Name of the device whose driver reads the source.
        source: String,
        /// The driver's own bytes.
        position: Vec<u8>,
    },
    /// In an agent's log: a command's id, durable before anything is written to a device.
    CommandSeen {
        /// Its id.
        id: [u8; 16],
        /// When it can be forgotten: its expiry plus a margin.
        expires_at: Timestamp,
    },
    /// In a plant log: offsets that will never come, counted as settled (design §4.9).
    Lost {
        /// Whose.
        agent: AgentId,
        /// In which epoch.
        epoch: Epoch,
        /// First offset.
        start: u64,
        /// One past the last.
        end: u64,
        /// Why.
        reason: String,
    },
}

/// One entry of a point catalogue: an append-only list, later entries of one id replace earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogueEntry {
    /// An agent of a hub.
    Agent {
        /// Its number.
        id: AgentId,
        /// Its Sparkplug name.
        node: NodeId,
    },
    /// A point; `agent` is [`AgentId`] 0 in an agent's own catalogue.
    Point {
        /// Its number in this catalogue.
        id: PointId,
        /// Whose point.
        agent: AgentId,
        /// What it is.
        definition: PointDefinition,
    },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of the program.
    #[error("record version {0} is newer than this program; upgrade it")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("record kind {0} is unknown to this program; upgrade it")]
    Kind(u8),
    /// The bytes are damaged: what was expected.
    #[error("damaged record: {0}")]
    Damaged(&'static str),
}

impl LogRecord {
    /// Appends the record's bytes to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Reads one record; the bytes must hold nothing else.
    pub fn decode(_bytes: &[u8]) -> Result<LogRecord, RecordError> {
        todo!()
    }
}

impl CatalogueEntry {
    /// Appends the entry's bytes to `out`.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// Reads one entry; the bytes must hold nothing else.
    pub fn decode(_bytes: &[u8]) -> Result<CatalogueEntry, RecordError> {
        todo!()
    }
}
