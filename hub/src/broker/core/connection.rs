//! One logged-in client: its socket, buffers, aliases and what it may send and take.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::mqtt::{Version, WillOwned};
use tokio::time::Instant;

use super::super::access::Login;
use super::super::door::{Slot, Transport};
use super::super::subscriptions::SessionKey;
use super::READ_BYTES;

/// See the module.
pub(super) struct Connection {
    /// Never used twice: what refers to a connection by its number checks this.
    pub(super) serial: u64,
    pub(super) transport: Transport,
    /// Its place in the door's counts.
    pub(super) _slot: Slot,
    pub(super) version: Version,
    pub(super) session: SessionKey,
    pub(super) client_id: Arc<str>,
    pub(super) login: Login,
    pub(super) peer: SocketAddr,
    pub(super) listener: Arc<str>,
    pub(super) since: Instant,
    pub(super) will: Option<WillOwned>,

    /// Bytes that came and make no whole packet yet.
    pub(super) partial: Vec<u8>,
    /// It waits for its turn to be read.
    pub(super) is_queued: bool,
    /// A packet of its own waits for the host or the disk.
    pub(super) is_waiting: bool,
    /// It is not read because it does not read.
    pub(super) is_held_back: bool,
    /// The other side has closed: read to the end.
    pub(super) is_closing: bool,
    /// CONNACK was sent: its packets are taken.
    pub(super) is_accepted: bool,
    pub(super) heard: Instant,
    /// Silence that ends the connection: one and a half keep-alives [MQTT-3.1.2-22].
    pub(super) silence_max: Option<Duration>,

    /// Bytes for the socket; those below `sent` are gone.
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    pub(super) can_write: bool,
    pub(super) is_dirty: bool,
    /// Since when the socket takes nothing.
    pub(super) stuck_since: Option<Instant>,

    /// Messages of QoS 1 and 2 that may be on their way to it.
    pub(super) receive_max: usize,
    /// The longest packet it takes.
    pub(super) packet_max: usize,
    pub(super) aliases_in: Vec<Option<Rc<str>>>,
    pub(super) aliases_out: AliasesOut,

    /// Answers that wait for the disk.
    pub(super) waiting: usize,
    /// ... of them, messages without an answer yet.
    pub(super) unanswered: usize,
    /// The topic that it was last allowed to publish to.
    pub(super) allowed_topic: Arc<str>,
    pub(super) traffic: Traffic,
}

/// What has gone over a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// QoS 0 messages that found the buffer full.
    pub(super) dropped: u64,
}

/// Topic aliases towards a client: the first topics that come get one [MQTT-3.3.2-12].
#[derive(Debug, Default)]
pub(super) struct AliasesOut {
    pub(super) max: u16,
    known: HashMap<Box<str>, u16>,
}

impl AliasesOut {
    pub(super) fn new(max: u16) -> AliasesOut {
        AliasesOut { max, known: HashMap::new() }
    }

    /// The alias of a topic, and whether the client knows it already. Taking it is for [`AliasesOut::learn`], when the
    /// packet that tells it has been written.
    pub(super) fn look(&self, topic: &str) -> Option<(u16, bool)> {
        if self.max == 0 {
            return None;
        }
        if let Some(alias) = self.known.get(topic) {
            return Some((*alias, true));
        }
        let next = u16::try_from(self.known.len()).unwrap_or(u16::MAX).saturating_add(1);
        (next <= self.max).then_some((next, false))
    }

    pub(super) fn learn(&mut self, topic: &str, alias: u16) {
        self.known.insert(topic.into(), alias);
    }
}

impl Connection {
    /// Keeps what came and is no whole packet; not the room that a longer one took.
    pub(super) fn keep_partial(&mut self, mut partial: Vec<u8>) {
        if partial.is_empty() {
            partial = Vec::new();
        } else if partial.capacity() > 4 * partial.len() + READ_BYTES {
            partial.shrink_to_fit();
        }
        self.partial = partial;
    }

    /// Bytes that wait for the socket.
    pub(super) fn out_bytes(&self) -> usize {
        self.out.len() - self.sent
    }
}
