//! What is told to the journal: messages with the sessions that get them, and what happens to sessions.

use std::sync::Arc;

use bytes::Bytes;
use durable_log::Position;
use model::Timestamp;
use proto::mqtt::QoS;

/// Number of a session: durable, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// A published message; shared, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Topic name.
    pub(crate) topic: Box<str>,
    /// Payload.
    pub(crate) payload: Bytes,
    /// As published.
    pub(crate) qos: QoS,
    /// The flag as published.
    pub(crate) retain: bool,
    /// The MQTT 5 properties that go to subscribers, encoded; opaque here.
    pub(crate) properties: Box<[u8]>,
    /// When it expires, µs since 1970 UTC.
    pub(crate) expires_at: Option<Timestamp>,
    /// Who published it, for no-local.
    pub(crate) publisher: Option<SessionId>,
}

impl Message {
    /// What one message counts towards bounds of queues and memory: its bytes and a little for its keeping.
    pub(crate) fn bytes(&self) -> usize {
        MESSAGE_KEEPING_BYTES + self.topic.len() + self.payload.len() + self.properties.len()
    }
}

/// A session that gets a message, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Who.
    pub(crate) session: SessionId,
    /// Granted: 1 or 2.
    pub(crate) qos: QoS,
    /// The retain flag to send.
    pub(crate) retain: bool,
    /// Identifiers of the subscriptions that matched; empty costs nothing.
    pub(crate) subscription_ids: Box<[u32]>,
}

/// One entry of the journal. Texts are at most 65 535 bytes, as in MQTT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A message. For each target it has the session's next ordinal.
    Message {
        /// What.
        message: Arc<Message>,
        /// Who gets it; each session at most once.
        targets: Vec<Target>,
        /// It becomes the retained message of its topic (an empty payload: there is none any more).
        retained: bool,
        /// Packet identifier of a QoS 2 message from a persistent session.
        received: Option<(SessionId, u16)>,
    },
    /// A session begins, or goes on with another expiry or identity. It is connected.
    Session {
        /// Which.
        id: SessionId,
        /// Its client id.
        client_id: Arc<str>,
        /// Whose it is.
        identity: Arc<str>,
        /// Session expiry interval in seconds; `u32::MAX`: never.
        expiry_s: u32,
    },
    /// From here on the session's expiry runs, until a [`Record::Session`] stops it.
    Disconnected {
        /// Which.
        id: SessionId,
        /// When.
        at: Timestamp,
    },
    /// The session is over; nothing of it is needed any more.
    Ended {
        /// Which.
        id: SessionId,
    },
    /// A subscription is made or replaced.
    Subscribed {
        /// Whose.
        id: SessionId,
        /// Topic filter, with `$share/…` if shared.
        filter: Arc<str>,
        /// Subscription options as in the packet.
        options: u8,
        /// Subscription identifier.
        subscription_id: Option<u32>,
    },
    /// A subscription is gone.
    Unsubscribed {
        /// Whose.
        id: SessionId,
        /// Its filter.
        filter: Arc<str>,
    },
    /// QoS 2 in: the packet identifier is free again.
    Released {
        /// Of whom.
        id: SessionId,
        /// Which.
        packet_id: u16,
    },
    /// QoS 2 out: PUBREC came for this ordinal; from here on only PUBREL is sent.
    Received {
        /// From whom.
        id: SessionId,
        /// Which message of the session.
        ordinal: u64,
    },
    /// How far a session has got: every ordinal below `base` is complete, and those in `done`.
    Progress {
        /// Which.
        id: SessionId,
        /// Lowest ordinal that is not complete.
        base: u64,
        /// The first message for this session at or after this position is the one with ordinal `base`.
        position: Position,
        /// Complete ordinals above `base`.
        done: Vec<u64>,
        /// [`Message::bytes`] of all that is still to do for the session.
        queued_bytes: u64,
    },
    /// Ordinals below `to` are given up, by policy.
    Skipped {
        /// Which.
        id: SessionId,
        /// Lowest ordinal that is kept, or the session's end.
        to: u64,
        /// The first message for this session at or after this position is the one with ordinal `to`.
        position: Position,
        /// [`Message::bytes`] of all that is still to do for the session.
        queued_bytes: u64,
    },
}

/// Headers of the shared allocation and its place in queues.
const MESSAGE_KEEPING_BYTES: usize = 96;
/// More than version, kind, flags and all numbers of one record, apart from lists.
const FIXED_BYTES_MAX: usize = 64;
/// A session number and a byte of flags.
const TARGET_BYTES_MAX: usize = 10 + 1 + 5;
const NUMBER_BYTES_MAX: usize = 10;
const SUBSCRIPTION_ID_BYTES_MAX: usize = 5;

impl Record {
    /// An upper bound of the encoded size, cheap to tell.
    pub(crate) fn bytes_max(&self) -> usize {
        FIXED_BYTES_MAX
            + match self {
                Self::Message { message, targets, .. } => {
                    let ids: usize = targets.iter().map(|target| target.subscription_ids.len()).sum();
                    message.bytes() + targets.len() * TARGET_BYTES_MAX + ids * SUBSCRIPTION_ID_BYTES_MAX
                }
                Self::Session { client_id, identity, .. } => client_id.len() + identity.len(),
                Self::Subscribed { filter, .. } | Self::Unsubscribed { filter, .. } => filter.len(),
                Self::Progress { done, .. } => done.len() * NUMBER_BYTES_MAX,
                Self::Disconnected { .. }
                | Self::Ended { .. }
                | Self::Released { .. }
                | Self::Received { .. }
                | Self::Skipped { .. } => 0,
            }
    }
}
