//! What comes in from one client: reading in turns, framing, and every packet but PUBLISH and SUBSCRIBE.

use std::io;

use proto::mqtt::encode::{self, AckKind};
use proto::mqtt::{Ack, Disconnect, Id, Packet, frame, needed, reason};
use tokio::time::Instant;

use super::super::door::TransportKind;
use super::super::journal::Record;
use super::super::limits::{CONTROL_BYTES_MAX, DUE_MAX, JOURNAL_BEHIND_BYTES, OUT_BYTES_MAX};
use super::connect::End;
use super::publish::Work;
use super::{Core, READ_BYTES};

/// Types of packets in their first byte.
const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

/// What a packet led to.
pub(super) enum Flow {
    /// On with the next one.
    On,
    /// Its turn is over: the rest when it comes round again.
    Later,
    /// This packet has to come again when the host or the disk has room.
    Wait(WaitingFor),
    /// The connection is over.
    End(End),
}

/// For what a client's packets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// The host's inbox.
    Host,
    /// The journal.
    Disk,
}

impl Core {
    /// One turn of one client: takes what lies there, reads once, takes what came.
    pub(super) fn read(&mut self, key: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let flow = self.read_into(key, &mut scratch);
        self.scratch = scratch;
        if let Flow::End(end) = flow {
            self.end_connection(key, end);
        }
    }

    fn read_into(&mut self, key: usize, scratch: &mut [u8]) -> Flow {
        let Some(connection) = self.wires.get_mut(key) else { return Flow::On };
        connection.is_waiting = false;
        connection.is_held_back = connection.out_bytes() > OUT_BYTES_MAX;
        if !connection.is_accepted || connection.is_held_back {
            return Flow::On; // read on when CONNACK is sent, or the socket has taken what waits
        }
        let mut partial = std::mem::take(&mut connection.partial);
        if !partial.is_empty() {
            // Packets that had to wait are whole already.
            let (taken, flow) = self.take_packets(key, &partial);
            partial.drain(..taken);
            if !matches!(flow, Flow::On) {
                return self.pause(key, partial, flow, false);
            }
        }
        let Some(connection) = self.wires.get_mut(key) else { return Flow::On };
        if needed(&partial).is_none_or(|bytes| bytes <= READ_BYTES) && partial.len() <= READ_BYTES {
            let (held, fresh) = scratch.split_at_mut(partial.len());
            held.copy_from_slice(&partial);
            let fresh = fresh.get_mut(..READ_BYTES).unwrap_or_default();
            let read = match connection.transport.read(fresh) {
                Ok(0) => return Flow::End(End::Lost("closed by the client".into())),
                Ok(read) => read,
                Err(error) => return self.nothing_read(key, partial, &error),
            };
            connection.traffic.bytes_in += read as u64;
            connection.heard = Instant::now();
            // A bare socket that gave less than it was asked for is empty: it will say when there is more.
            let is_empty = read < READ_BYTES
                && !connection.is_closing
                && connection.transport.kind() == TransportKind::Tcp;
            let bytes = scratch.get(..partial.len() + read).unwrap_or_default();
            let (taken, flow) = self.take_packets(key, bytes);
            let rest = bytes.get(taken..).unwrap_or_default();
            partial.clear();
            if rest.is_empty() {
                partial = Vec::new(); // an idle client keeps no buffer
            } else {
                partial.extend_from_slice(rest);
            }
            return self.pause(key, partial, flow, is_empty);
        }
        // A long packet: read straight behind what is there, as it comes, never more than it needs.
        let missing = needed(&partial).map_or(READ_BYTES, |bytes| bytes.saturating_sub(partial.len()));
        let old = partial.len();
        partial.resize(old + missing.clamp(1, READ_BYTES), 0);
        let read = match connection.transport.read(partial.get_mut(old..).unwrap_or_default()) {
            Ok(0) => return Flow::End(End::Lost("closed by the client".into())),
            Ok(read) => read,
            Err(error) => {
                partial.truncate(old);
                return self.nothing_read(key, partial, &error);
            }
        };
        partial.truncate(old + read);
        connection.traffic.bytes_in += read as u64;
        connection.heard = Instant::now();
        let (taken, flow) = self.take_packets(key, &partial);
        partial.drain(..taken);
        self.pause(key, partial, flow, false)
    }

    fn nothing_read(&mut self, key: usize, partial: Vec<u8>, error: &io::Error) -> Flow {
        if let Some(connection) = self.wires.get_mut(key) {
            connection.keep_partial(partial);
        }
        match error.kind() {
            io::ErrorKind::WouldBlock => Flow::On,
            io::ErrorKind::Interrupted => {
                self.want_read(key);
                Flow::On
            }
            _ => Flow::End(End::Lost(error.to_string())),
        }
    }

    /// Keeps what is not taken yet, and decides when it goes on.
    fn pause(&mut self, key: usize, partial: Vec<u8>, flow: Flow, is_empty: bool) -> Flow {
        let Some(connection) = self.wires.get_mut(key) else { return Flow::On };
        connection.keep_partial(partial);
        connection.is_waiting = matches!(flow, Flow::Wait(_));
        match flow {
            Flow::On if is_empty => {}
            Flow::On | Flow::Later => self.want_read(key), // until the socket has no more
            Flow::Wait(WaitingFor::Host) => self.waiting_for_host.push(key),
            Flow::Wait(WaitingFor::Disk) => self.waiting_for_disk.push(key),
            Flow::End(_) => {}
        }
        flow
    }

    /// Takes whole packets from the front, as long as it is the client's turn; how many bytes that were.
    fn take_packets(&mut self, key: usize, bytes: &[u8]) -> (usize, Flow) {
        let (mut taken, begun) = (0, std::time::Instant::now());
        loop {
            // What a packet costs depends on who gets it, by a factor of thousands: only the clock knows.
            if taken > 0 && taken < bytes.len() && begun.elapsed() > self.turn {
                return (taken, Flow::Later);
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            let frame = match frame(rest, self.limits.packet_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => return (taken, Flow::On),
                Err(error) => return (taken, Flow::End(End::Broken(error.reason(), error.to_string()))),
            };
            let Some(connection) = self.wires.get(key) else { return (taken, Flow::On) };
            if frame.total > CONTROL_BYTES_MAX && frame.first >> 4 != PUBLISH {
                let why = format!("a packet of {} bytes that is no PUBLISH", frame.total);
                return (taken, Flow::End(End::Broken(reason::QUOTA_EXCEEDED, why)));
            }
            if frame.first >> 4 == CONNECT {
                // Not read: what may be wrong with it has codes that no DISCONNECT has.
                return (taken, protocol_error("a second CONNECT")); // [MQTT-3.1.0-2]
            }
            let packet = match proto::mqtt::decode(frame, connection.version) {
                Ok(packet) => packet,
                Err(error) => return (taken, Flow::End(End::Broken(error.reason(), error.to_string()))),
            };
            match self.take_packet(key, &packet) {
                Flow::On => taken += frame.total,
                other => return (taken, other),
            }
        }
    }

    fn take_packet(&mut self, key: usize, packet: &Packet<'_>) -> Flow {
        match packet {
            Packet::Publish(publish) => self.on_publish(key, publish),
            Packet::PubAck(ack) => self.on_puback(key, ack),
            Packet::PubRec(ack) => self.on_pubrec(key, ack),
            Packet::PubRel(ack) => self.on_pubrel(key, ack),
            Packet::PubComp(ack) => self.on_pubcomp(key, ack),
            Packet::Subscribe(subscribe) => self.on_subscribe(key, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(key, unsubscribe),
            Packet::PingReq => {
                self.wires.answer(key, |out, _| encode::pingresp(out));
                Flow::On
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(key, disconnect),
            Packet::Connect(_) => protocol_error("a second CONNECT"), // [MQTT-3.1.0-2]
            Packet::Auth(_) => protocol_error("AUTH without an authentication method"), // [MQTT-4.12.0-6]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                protocol_error("a packet that only servers send")
            }
        }
    }

    fn on_puback(&mut self, key: usize, ack: &Ack<'_>) -> Flow {
        self.with_session(key, |session| session.out.acknowledged(ack.packet_id));
        Flow::On // an unknown identifier is no error: it may be an answer to a message of an ended session
    }

    /// The message has arrived: on disk before it is released, so that a restart does not send it again.
    fn on_pubrec(&mut self, key: usize, ack: &Ack<'_>) -> Flow {
        let packet_id = ack.packet_id;
        if ack.reason >= 0x80 {
            self.with_session(key, |session| session.out.refused(packet_id));
            return Flow::On;
        }
        let Some(connection) = self.wires.get(key) else { return Flow::On };
        let session = connection.session;
        let Some(state) = self.session_mut(session) else { return Flow::On };
        let (id, persistent) = (state.id, state.is_persistent());
        match state.out.received(packet_id) {
            None => self.wires.answer(key, |out, version| {
                encode::ack(out, version, AckKind::PubRel, packet_id, reason::PACKET_IDENTIFIER_NOT_FOUND);
            }),
            Some((ordinal, is_news)) => {
                if is_news && persistent {
                    self.record(Record::Received { id, ordinal });
                }
                let needs_disk = persistent && !self.disk_failed;
                self.answer_when_durable(key, needs_disk, Work::ack(AckKind::PubRel, packet_id, 0));
            }
        }
        Flow::On
    }

    /// The client lets go of an identifier: on disk before PUBCOMP, after which it may use it for another message.
    fn on_pubrel(&mut self, key: usize, ack: &Ack<'_>) -> Flow {
        let packet_id = ack.packet_id;
        let Some(connection) = self.wires.get(key) else { return Flow::On };
        let session = connection.session;
        let Some(state) = self.session_mut(session) else { return Flow::On };
        let (id, persistent) = (state.id, state.is_persistent());
        let known = state.received.remove(&packet_id);
        if known && persistent {
            self.record(Record::Released { id, packet_id });
        }
        let reason = if known { 0 } else { reason::PACKET_IDENTIFIER_NOT_FOUND };
        self.answer_when_durable(key, known && persistent, Work::ack(AckKind::PubComp, packet_id, reason));
        Flow::On
    }

    fn on_pubcomp(&mut self, key: usize, ack: &Ack<'_>) -> Flow {
        self.with_session(key, |session| session.out.completed(ack.packet_id));
        Flow::On
    }

    /// Something happened to what is in flight: there may be room for more.
    fn with_session(&mut self, key: usize, change: impl FnOnce(&mut super::Session) -> bool) {
        let Some(session) = self.wires.get(key).map(|connection| connection.session) else { return };
        let Some(state) = self.session_mut(session) else { return };
        if change(state) {
            state.unsaved |= state.is_persistent();
            self.may_go_on(session);
        }
    }

    fn on_disconnect(&mut self, key: usize, disconnect: &Disconnect<'_>) -> Flow {
        if let Some(expiry_s) = disconnect.properties.number(Id::SessionExpiry) {
            let Some(session) = self.wires.get(key).map(|connection| connection.session) else {
                return Flow::On;
            };
            if self.session(session).is_some_and(|state| state.expiry_s == 0) && expiry_s > 0 {
                return protocol_error("a session expiry in DISCONNECT, after none in CONNECT"); // [MQTT-3.1.2-23]
            }
            self.change_expiry(session, expiry_s);
        }
        match disconnect.reason {
            0 => Flow::End(End::Goodbye),
            reason => Flow::End(End::GoodbyeWithWill(reason)),
        }
    }

    /// Whether a client whose messages may need the disk has to wait: too much waits for it, or it has no room.
    /// One that has failed takes no more at all, which is for each packet to say: nobody waits for it.
    pub(super) fn disk_is_behind(&self) -> bool {
        let is_behind = self.journal.backlog_bytes() > JOURNAL_BEHIND_BYTES || self.due.len() > DUE_MAX;
        (is_behind || !self.journal.has_room()) && !self.disk_failed
    }

    /// Whether what the broker does of its own accord has to wait for the disk.
    pub(super) fn disk_is_half_behind(&self) -> bool {
        self.journal.backlog_bytes() > JOURNAL_BEHIND_BYTES / 4 || self.due.len() > DUE_MAX / 4
    }
}

/// The end of a connection whose SUBSCRIBE or UNSUBSCRIBE has more filters than a client may have.
pub(super) fn too_many_filters() -> Flow {
    Flow::End(End::Broken(
        reason::QUOTA_EXCEEDED,
        "more filters in a packet than a client may have".to_owned(),
    ))
}

/// The end of a connection whose client broke a rule.
pub(super) fn protocol_error(what: &'static str) -> Flow {
    Flow::End(End::Broken(reason::PROTOCOL_ERROR, what.to_owned()))
}
