//! The Sparkplug host: who is there, what their aliases mean, what they are owed.

use model::{NodeId, PointId, Timestamp};

/// One edge node as the host sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentStatus {
    /// Which.
    pub node: NodeId,
    /// Whether its birth stands.
    pub online: bool,
    /// Whether it is no agent of ours: no receipts.
    pub foreign: bool,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
    /// Since when it is online or not; `None` before anything was heard.
    pub since: Option<Timestamp>,
    /// Arrival of its last message.
    pub last_message: Option<Timestamp>,
    /// When the hub last sent it a receipt.
    pub last_receipt: Option<Timestamp>,
    /// Records that it has accepted and the hub has not; `None` for foreign nodes.
    pub backlog: Option<u64>,
    /// Version of its program, as its birth says.
    pub version: String,
    /// Births so far.
    pub births: u64,
    /// Rebirths asked of it so far.
    pub rebirths: u64,
    /// Gaps in `seq` so far.
    pub gaps: u64,
}

/// One device of an edge node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Sparkplug device id.
    pub name: String,
    /// Whether its birth stands.
    pub online: bool,
}

/// Where a command for a point goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointTarget {
    /// The edge node.
    pub node: NodeId,
    /// Its device; `None` for a metric of the node.
    pub device: Option<String>,
    /// Metric name.
    pub metric: String,
    /// Whether node and device are there.
    pub online: bool,
    /// Whether the node is no agent of ours (no command extension).
    pub foreign: bool,
}

/// The host's state, for others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {}

impl Host {
    /// Every edge node, by name.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentStatus> {
        todo!()
    }

    /// Asks a node for its births, rate-limited.
    pub fn rebirth(&self, _node: &NodeId) {
        todo!()
    }

    /// Where a command for the point goes.
    #[must_use]
    pub fn device_of(&self, _point: PointId) -> Option<PointTarget> {
        todo!()
    }
}
