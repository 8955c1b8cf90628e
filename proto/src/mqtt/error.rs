//! Why bytes are not an MQTT packet, and the reason code that says so.

use super::reason;

/// What is wrong with a packet. The connection it came on must end (MQTT 5.0 §4.13); [`reason`](Self::reason) is the
/// code for its DISCONNECT, or for the CONNACK when the packet was the CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Cannot be parsed as the standard describes it.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// Parsed, but says something that the protocol forbids.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Longer than the receiver takes.
    #[error("packet of {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Bytes of the packet, as its header declares.
        bytes: usize,
        /// The receiver's bound.
        max: usize,
    },
    /// The protocol name is MQTT's, the level is not one of 4 and 5 `[MQTT-3.1.2-2]`.
    #[error("protocol level {level} is not supported")]
    UnsupportedVersion {
        /// The level that the client asked for.
        level: u8,
    },
    /// The protocol name is not `MQTT` `[MQTT-3.1.2-1]`; MQTT 3.1 calls itself `MQIsdp` here.
    #[error("the protocol name is not MQTT")]
    UnsupportedProtocol {
        /// The level behind the name, 3 for MQTT 3.1.
        level: u8,
    },
    /// A topic name with a wildcard, of no characters, or that is otherwise none (§4.7).
    #[error("topic name: {0}")]
    TopicName(super::topic::Fault),
    /// A topic filter that is none (§4.7, §4.8.2).
    #[error("topic filter: {0}")]
    TopicFilter(super::topic::Fault),
    /// Topic alias 0 `[MQTT-3.3.2-8]`.
    #[error("topic alias 0")]
    TopicAlias,
}

impl DecodeError {
    /// The MQTT 5 reason code.
    #[must_use]
    pub const fn reason(&self) -> u8 {
        match self {
            Self::Malformed(_) => reason::MALFORMED_PACKET,
            Self::Protocol(_) => reason::PROTOCOL_ERROR,
            Self::TooLarge { .. } => reason::PACKET_TOO_LARGE,
            Self::UnsupportedVersion { .. } | Self::UnsupportedProtocol { .. } => {
                reason::UNSUPPORTED_PROTOCOL_VERSION
            }
            Self::TopicName(_) => reason::TOPIC_NAME_INVALID,
            Self::TopicFilter(_) => reason::TOPIC_FILTER_INVALID,
            Self::TopicAlias => reason::TOPIC_ALIAS_INVALID,
        }
    }
}
