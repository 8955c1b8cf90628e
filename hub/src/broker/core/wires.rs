//! All connections, and what goes out on them: encoded once per form, appended to bounded buffers, flushed once a turn.

use std::io;

use model::Timestamp;
use proto::mqtt::encode::{self, PublishOut};
use proto::mqtt::{QoS, Version};
use runtime::telemetry::Counter;
use slab::Slab;
use tokio::time::Instant;

use super::super::journal::Message;
use super::super::limits::{OUT_BYTES_ALL, OUT_BYTES_MAX, OUT_BYTES_MIN};
use super::connection::Connection;

/// Empty buffers kept, and how long each may be: 2 MiB in all, and a burst to a few hundred clients.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 128 * 1024;

/// A message on its way to subscribers, borrowed from where it came.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) properties: &'a [u8],
    /// As published.
    pub(super) qos: QoS,
    /// The flag as published.
    pub(super) retain: bool,
    /// Seconds that are left [MQTT-3.3.2-6].
    pub(super) expiry_s: Option<u32>,
}

impl<'a> Publication<'a> {
    /// `None` if it has expired.
    pub(super) fn of(message: &'a Message, now: Timestamp) -> Option<Publication<'a>> {
        let is_over = message.expires_at.is_some_and(|at| at <= now);
        (!is_over).then(|| Publication::again(message, now))
    }

    /// One that was sent before, which does not expire any more [MQTT-4.3.3-7].
    pub(super) fn again(message: &'a Message, now: Timestamp) -> Publication<'a> {
        // Rounded up: one that arrives has some time left.
        let left = |at: Timestamp| u32::try_from((at.0 - now.0 + 999_999) / 1_000_000).unwrap_or(0).max(1);
        Publication {
            topic: &message.topic,
            payload: &message.payload,
            properties: &message.properties,
            qos: message.qos,
            retain: message.retain,
            expiry_s: message.expires_at.map(left),
        }
    }
}

/// How one client gets it.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) duplicate: bool,
    pub(super) packet_id: u16,
    pub(super) identifiers: &'a [u32],
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is in the buffer.
    Yes,
    /// The buffer is full.
    Full,
    /// The client does not take packets as long as this: as if delivered [MQTT-3.1.2-25].
    TooLong,
    /// There is no such client.
    Gone,
}

/// See the module.
pub(super) struct Wires {
    connections: Slab<Connection>,
    dirty: Vec<usize>,
    /// Empty buffers of clients that are up to date: an idle client has none of its own.
    spare: Vec<Vec<u8>>,
    /// The publication at hand in the forms that most clients get: by version, without and with identifier.
    templates: [Template; 4],
    out_bytes: usize,
    next_serial: u64,
    dropped: Counter,
}

#[derive(Default)]
struct Template {
    is_made: bool,
    bytes: Vec<u8>,
    /// Where the packet identifier stands.
    packet_id_at: usize,
}

impl Wires {
    pub(super) fn new(dropped: Counter) -> Wires {
        Wires {
            connections: Slab::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            templates: Default::default(),
            out_bytes: 0,
            next_serial: 0,
            dropped,
        }
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    pub(super) fn insert(&mut self, connection: Connection) -> usize {
        self.connections.insert(connection)
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<Connection> {
        let connection = self.connections.try_remove(key)?;
        self.out_bytes -= connection.out_bytes();
        Some(connection)
    }

    pub(super) fn get(&self, key: usize) -> Option<&Connection> {
        self.connections.get(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.connections.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn out_bytes(&self) -> usize {
        self.out_bytes
    }

    /// The client's buffer is to be flushed at the end of this turn.
    pub(super) fn touch(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether no buffer waits to be flushed.
    pub(super) fn is_flushed(&self) -> bool {
        self.dirty.is_empty()
    }

    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty)
    }

    /// Appends a packet, whatever waits already: answers are as many as questions.
    pub(super) fn answer(&mut self, key: usize, write: impl FnOnce(&mut Vec<u8>, Version)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        borrow_buffer(connection, &mut self.spare);
        let before = connection.out.len();
        write(&mut connection.out, connection.version);
        self.out_bytes += connection.out.len() - before;
        self.touch(key);
    }

    /// Begins with another publication: what was encoded of the last one is not used again.
    pub(super) fn begin(&mut self) {
        for template in &mut self.templates {
            template.is_made = false;
        }
    }

    /// Whether a packet of about so many bytes would be taken now.
    pub(super) fn has_room(&mut self, key: usize, bytes: usize) -> bool {
        let bound = self.bound();
        let Some(connection) = self.connections.get(key) else { return false };
        if connection.out_bytes() == 0 || connection.out_bytes() + bytes <= bound {
            return true;
        }
        if !connection.can_write || self.flush(key).is_err() {
            return false; // a broken socket is found at the end of the turn
        }
        self.connections
            .get(key)
            .is_some_and(|connection| connection.out_bytes() == 0 || connection.out_bytes() + bytes <= bound)
    }

    /// Bytes that may wait for one socket: less when all of them wait for much.
    fn bound(&self) -> usize {
        if self.out_bytes < OUT_BYTES_ALL { OUT_BYTES_MAX } else { OUT_BYTES_MIN }
    }

    /// Appends the publication begun for one client.
    pub(super) fn publish(&mut self, key: usize, publication: &Publication<'_>, form: &Form<'_>) -> Written {
        let Some(connection) = self.connections.get(key) else { return Written::Gone };
        let version = connection.version;
        if version == Version::V5 && (!form.identifiers.is_empty() || connection.aliases_out.max > 0) {
            return self.publish_apart(key, publication, form);
        }
        let slot = usize::from(version == Version::V5) * 2 + usize::from(form.qos != QoS::AtMostOnce);
        let Some(template) = self.templates.get_mut(slot) else { return Written::Gone };
        if !template.is_made {
            template.make(version, publication, form.qos);
        }
        let bytes = template.bytes.len();
        if bytes > connection.packet_max {
            return Written::TooLong;
        }
        if !self.has_room(key, bytes) {
            return self.full(key, form.qos);
        }
        let (Some(connection), Some(template)) = (self.connections.get_mut(key), self.templates.get(slot))
        else {
            return Written::Gone;
        };
        borrow_buffer(connection, &mut self.spare);
        let at = connection.out.len();
        connection.out.extend_from_slice(&template.bytes);
        if let Some(first) = connection.out.get_mut(at) {
            *first = 0x30 | u8::from(form.duplicate) << 3 | (form.qos as u8) << 1 | u8::from(form.retain);
        }
        if form.qos != QoS::AtMostOnce
            && let Some(place) =
                connection.out.get_mut(at + template.packet_id_at..at + template.packet_id_at + 2)
        {
            place.copy_from_slice(&form.packet_id.to_be_bytes());
        }
        self.wrote(key, bytes)
    }

    /// One that no other client gets in the same form.
    fn publish_apart(&mut self, key: usize, publication: &Publication<'_>, form: &Form<'_>) -> Written {
        let Some(connection) = self.connections.get(key) else { return Written::Gone };
        let alias = connection.aliases_out.look(publication.topic);
        let message = PublishOut {
            topic: if matches!(alias, Some((_, true))) { "" } else { publication.topic },
            qos: form.qos,
            retain: form.retain,
            dup: form.duplicate,
            packet_id: form.packet_id,
            forwardable: publication.properties,
            message_expiry: publication.expiry_s,
            topic_alias: alias.map(|(alias, _)| alias),
            subscription_ids: form.identifiers,
            payload: publication.payload,
        };
        let bytes = encode::publish_len(connection.version, &message);
        if bytes > connection.packet_max {
            return Written::TooLong;
        }
        if !self.has_room(key, bytes) {
            return self.full(key, form.qos);
        }
        let Some(connection) = self.connections.get_mut(key) else { return Written::Gone };
        borrow_buffer(connection, &mut self.spare);
        encode::publish(&mut connection.out, connection.version, &message);
        if let Some((alias, false)) = alias {
            connection.aliases_out.learn(publication.topic, alias);
        }
        self.wrote(key, bytes)
    }

    fn wrote(&mut self, key: usize, bytes: usize) -> Written {
        self.out_bytes += bytes;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.traffic.messages_out += 1;
        }
        self.touch(key);
        Written::Yes
    }

    fn full(&mut self, key: usize, qos: QoS) -> Written {
        if qos == QoS::AtMostOnce {
            self.dropped.increment();
            if let Some(connection) = self.connections.get_mut(key) {
                connection.traffic.dropped += 1;
            }
        }
        Written::Full
    }

    /// Hands the socket what it takes.
    pub(super) fn flush(&mut self, key: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        connection.is_dirty = false;
        let before = connection.out_bytes();
        let result = write_out(connection);
        self.out_bytes -= before - connection.out_bytes();
        if connection.out.is_empty() && connection.out.capacity() > 0 {
            let buffer = std::mem::take(&mut connection.out);
            if self.spare.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
                self.spare.push(buffer);
            }
        }
        result
    }
}

fn borrow_buffer(connection: &mut Connection, spare: &mut Vec<Vec<u8>>) {
    if connection.out.capacity() == 0
        && let Some(buffer) = spare.pop()
    {
        connection.out = buffer;
    }
}

fn write_out(connection: &mut Connection) -> io::Result<()> {
    while connection.can_write {
        let Some(rest) = connection.out.get(connection.sent..).filter(|rest| !rest.is_empty()) else { break };
        match connection.transport.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                connection.sent += written;
                connection.traffic.bytes_out += written as u64;
                connection.stuck_since = None;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.can_write = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if connection.transport.wants_write() {
        match connection.transport.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.can_write = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
    }
    if connection.sent == connection.out.len() {
        connection.out.clear();
        connection.sent = 0;
    } else {
        if connection.stuck_since.is_none() {
            connection.stuck_since = Some(Instant::now());
        }
        if connection.sent >= OUT_BYTES_MIN {
            connection.out.drain(..connection.sent);
            connection.sent = 0;
        }
    }
    Ok(())
}

impl Template {
    fn make(&mut self, version: Version, publication: &Publication<'_>, qos: QoS) {
        self.bytes.clear();
        if self.bytes.capacity() > OUT_BYTES_MAX {
            self.bytes.shrink_to(0);
        }
        let message = PublishOut {
            topic: publication.topic,
            qos,
            forwardable: publication.properties,
            message_expiry: publication.expiry_s,
            payload: publication.payload,
            ..PublishOut::default()
        };
        encode::publish(&mut self.bytes, version, &message);
        let length_bytes = self.bytes.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
        self.packet_id_at = 1 + length_bytes + 2 + publication.topic.len();
        self.is_made = true;
    }
}
