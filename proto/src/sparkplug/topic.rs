//! Sparkplug topics (3.0 §4.1) and the STATE payload (§5.17).

use model::NodeId;

/// The kinds of message in the namespace `spBv1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum MessageType {
    NBirth,
    NData,
    NDeath,
    NCmd,
    DBirth,
    DData,
    DDeath,
    DCmd,
}

/// A topic of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `spBv1.0/{group}/{type}/{node}[/{device}]`; D messages have a device, N messages none.
    Node {
        /// What.
        kind: MessageType,
        /// Whose.
        node: NodeId,
        /// Of which device.
        device: Option<String>,
    },
    /// `spBv1.0/STATE/{host}`.
    State {
        /// The host application.
        host: String,
    },
}

impl Topic {
    /// Reads a topic name; `None` if it is not in the namespace or breaks its rules.
    #[must_use]
    pub fn parse(_name: &str) -> Option<Topic> {
        todo!()
    }

    /// A message about a node.
    #[must_use]
    pub fn node(kind: MessageType, node: &NodeId) -> Topic {
        Topic::Node { kind, node: node.clone(), device: None }
    }

    /// A message about a device.
    #[must_use]
    pub fn device(kind: MessageType, node: &NodeId, device: &str) -> Topic {
        Topic::Node { kind, node: node.clone(), device: Some(device.to_owned()) }
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// `{"online":true,"timestamp":1668114759262}`: payload of STATE, retained, QoS 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatePayload {
    /// Whether the host application is connected.
    pub online: bool,
    /// ms since 1970 UTC; the same in the will and in the birth of one session.
    pub timestamp: u64,
}

impl StatePayload {
    /// The JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{{\"online\":{},\"timestamp\":{}}}", self.online, self.timestamp)
    }

    /// Reads the JSON text; order and white space are free, other keys are ignored.
    #[must_use]
    pub fn decode(_bytes: &[u8]) -> Option<StatePayload> {
        todo!()
    }
}
