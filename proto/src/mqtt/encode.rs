//! Packets to bytes: every function appends one whole packet to a `Vec`.
//!
//! Infallible for inputs within the standard's limits, which are the caller's to keep: strings and binary data of at
//! most 65 535 bytes (longer ones are cut at 65 535 bytes, strings at a character), a packet of at most 268 435 455
//! bytes behind its header. Valid topics, packet identifiers other than 0 where there is one, aliases and subscription
//! identifiers other than 0 are the caller's too. What is absent or has the standard's default is not written.

mod client;

pub use client::{SubscribeOut, auth, connect, subscribe, unsubscribe};

use super::property::Id;
use super::reader::variable_bytes;
use super::{QoS, VARIABLE_BYTE_INTEGER_MAX, Version, reason};

/// A PUBLISH to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishOut<'a> {
    /// Topic name; may be empty with an alias that the receiver knows.
    pub topic: &'a str,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Sent before; not with QoS 0.
    pub dup: bool,
    /// Not written with QoS 0, otherwise not 0.
    pub packet_id: u16,
    /// Encoded properties, as [`forwardable`](super::PublishProperties::forwardable) gives them. Not written in 3.1.1,
    /// like all properties.
    pub forwardable: &'a [u8],
    /// Seconds.
    pub message_expiry: Option<u32>,
    /// Not 0.
    pub topic_alias: Option<u16>,
    /// Not 0, none above 268 435 455.
    pub subscription_ids: &'a [u32],
    /// Payload.
    pub payload: &'a [u8],
}

impl PublishOut<'_> {
    fn property_bytes(&self) -> usize {
        self.forwardable.len()
            + self.message_expiry.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + self.subscription_ids.iter().map(|id| 1 + variable_bytes(*id as usize)).sum::<usize>()
    }

    /// Bytes of the properties and of everything behind the fixed header.
    #[inline]
    fn lengths(&self, version: Version) -> (usize, usize) {
        let id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let base = 2 + cut(self.topic).len() + id + self.payload.len();
        match version {
            Version::V311 => (0, base),
            Version::V5 => {
                let properties = self.property_bytes();
                (properties, base + variable_bytes(properties) + properties)
            }
        }
    }
}

/// Appends a PUBLISH.
#[inline]
pub fn publish(out: &mut Vec<u8>, version: Version, message: &PublishOut<'_>) {
    let (properties, body) = message.lengths(version);
    out.reserve(5 + body);
    let flags = u8::from(message.dup) << 3 | (message.qos as u8) << 1 | u8::from(message.retain);
    let topic = cut(message.topic).as_bytes();
    // Header and length of the topic in one piece: every append checks the capacity again.
    let mut head = [0x30 | flags, 0, 0, 0, 0, 0, 0];
    let length = 1 + write_variable(&mut head, 1, body);
    let [.., high, low] = topic.len().to_be_bytes();
    head[length] = high;
    head[length + 1] = low;
    out.extend_from_slice(&head[..length + 2]);
    out.extend_from_slice(topic);
    if message.qos != QoS::AtMostOnce {
        out.extend_from_slice(&message.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        variable(out, properties);
        if properties > 0 {
            if let Some(seconds) = message.message_expiry {
                four(out, Id::MessageExpiry, seconds);
            }
            if let Some(alias) = message.topic_alias {
                two(out, Id::TopicAlias, alias);
            }
            for id in message.subscription_ids {
                out.push(Id::SubscriptionId as u8);
                variable(out, *id as usize);
            }
            out.extend_from_slice(message.forwardable);
        }
    }
    out.extend_from_slice(message.payload);
}

/// Bytes that [`publish`] appends.
#[must_use]
pub fn publish_len(version: Version, message: &PublishOut<'_>) -> usize {
    let (_, body) = message.lengths(version);
    1 + variable_bytes(body) + body
}

/// A CONNACK to be written. `Default` is a plain welcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAckOut<'a> {
    /// The session is there; only with reason 0.
    pub session_present: bool,
    /// MQTT 5 reason code. 3.1.1 gets the [return code](reason::connect_return_code) that is nearest, 3 if none is.
    pub reason: u8,
    /// Seconds, if not what the client asked for.
    pub session_expiry: Option<u32>,
    /// Messages that the server takes unacknowledged.
    pub receive_maximum: Option<u16>,
    /// Not written where it is 2.
    pub maximum_qos: Option<QoS>,
    /// The longest packet that the server takes, bytes.
    pub packet_bytes_max: Option<u32>,
    /// The client id that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Aliases that the server takes.
    pub topic_alias_max: Option<u16>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// Seconds, if not what the client asked for.
    pub server_keep_alive: Option<u16>,
    /// Basis of response topics.
    pub response_information: Option<&'a str>,
    /// Another server.
    pub server_reference: Option<&'a str>,
    /// The authentication method of the CONNECT.
    pub authentication_method: Option<&'a str>,
    /// Last message of the exchange.
    pub authentication_data: Option<&'a [u8]>,
    /// Written where it is false.
    pub retain_available: Option<bool>,
    /// Written where it is false.
    pub wildcards_available: Option<bool>,
    /// Written where it is false.
    pub subscription_ids_available: Option<bool>,
    /// Written where it is false.
    pub shared_available: Option<bool>,
}

/// Appends a CONNACK.
pub fn connack(out: &mut Vec<u8>, version: Version, answer: &ConnAckOut<'_>) {
    if version == Version::V311 {
        let code = reason::connect_return_code(answer.reason).unwrap_or(3);
        out.extend_from_slice(&[0x20, 2, u8::from(answer.session_present), code]);
        return;
    }
    let mut properties = Vec::new();
    let put = &mut properties;
    number4(put, Id::SessionExpiry, answer.session_expiry);
    number2(put, Id::ReceiveMaximum, answer.receive_maximum);
    if let Some(qos) = answer.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce) {
        put.extend_from_slice(&[Id::MaximumQos as u8, qos as u8]);
    }
    number4(put, Id::MaximumPacketSize, answer.packet_bytes_max);
    string(put, Id::AssignedClientId, answer.assigned_client_id);
    number2(put, Id::TopicAliasMaximum, answer.topic_alias_max);
    string(put, Id::ReasonString, answer.reason_string);
    number2(put, Id::ServerKeepAlive, answer.server_keep_alive);
    string(put, Id::ResponseInformation, answer.response_information);
    string(put, Id::ServerReference, answer.server_reference);
    string(put, Id::AuthenticationMethod, answer.authentication_method);
    binary(put, Id::AuthenticationData, answer.authentication_data);
    for (id, available) in [
        (Id::RetainAvailable, answer.retain_available),
        (Id::WildcardSubscriptionAvailable, answer.wildcards_available),
        (Id::SubscriptionIdsAvailable, answer.subscription_ids_available),
        (Id::SharedSubscriptionAvailable, answer.shared_available),
    ] {
        if available == Some(false) {
            put.extend_from_slice(&[id as u8, 0]);
        }
    }
    header(out, 0x20, 2 + variable_bytes(properties.len()) + properties.len());
    out.extend_from_slice(&[u8::from(answer.session_present), answer.reason]);
    block(out, &properties);
}

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// QoS 1.
    PubAck,
    /// QoS 2, first answer.
    PubRec,
    /// QoS 2, release.
    PubRel,
    /// QoS 2, end.
    PubComp,
}

/// Appends an acknowledgement in its shortest form. 3.1.1 has no reason.
#[inline]
pub fn ack(out: &mut Vec<u8>, version: Version, kind: AckKind, packet_id: u16, reason: u8) {
    let first = match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = packet_id.to_be_bytes();
    if reason == 0 || version == Version::V311 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    }
}

/// Appends a SUBACK. 3.1.1 knows only 0x80 for every refusal.
pub fn suback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[u8]) {
    match version {
        Version::V311 => {
            header(out, 0x90, 2 + reasons.len());
            out.extend_from_slice(&packet_id.to_be_bytes());
            out.extend(reasons.iter().map(|code| if *code > 2 { 0x80 } else { *code }));
        }
        Version::V5 => {
            header(out, 0x90, 3 + reasons.len());
            out.extend_from_slice(&packet_id.to_be_bytes());
            out.push(0);
            out.extend_from_slice(reasons);
        }
    }
}

/// Appends an UNSUBACK. 3.1.1 has no codes.
pub fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[u8]) {
    match version {
        Version::V311 => {
            header(out, 0xB0, 2);
            out.extend_from_slice(&packet_id.to_be_bytes());
        }
        Version::V5 => {
            header(out, 0xB0, 3 + reasons.len());
            out.extend_from_slice(&packet_id.to_be_bytes());
            out.push(0);
            out.extend_from_slice(reasons);
        }
    }
}

/// Appends a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// Appends a PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// Appends a DISCONNECT in its shortest form. In 3.1.1 it says nothing, and a server cannot send one: it closes.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: u8, reason_string: Option<&str>) {
    disconnect_with(out, version, reason, None, reason_string);
}

/// Appends a DISCONNECT that may also change the session expiry (seconds), which only a client does.
pub fn disconnect_with(
    out: &mut Vec<u8>,
    version: Version,
    reason: u8,
    session_expiry: Option<u32>,
    reason_string: Option<&str>,
) {
    let mut properties = Vec::new();
    number4(&mut properties, Id::SessionExpiry, session_expiry);
    string(&mut properties, Id::ReasonString, reason_string);
    if version == Version::V311 || (reason == 0 && properties.is_empty()) {
        out.extend_from_slice(&[0xE0, 0]);
    } else if properties.is_empty() {
        out.extend_from_slice(&[0xE0, 1, reason]);
    } else {
        header(out, 0xE0, 1 + variable_bytes(properties.len()) + properties.len());
        out.push(reason);
        block(out, &properties);
    }
}

#[inline]
fn header(out: &mut Vec<u8>, first: u8, body: usize) {
    out.push(first);
    variable(out, body);
}

/// A variable byte integer (§1.5.5); beyond its maximum, the maximum.
#[inline]
fn variable(out: &mut Vec<u8>, value: usize) {
    if value <= 0x7F {
        out.push(value.to_le_bytes()[0]);
        return;
    }
    let mut bytes = [0; 4];
    let length = write_variable(&mut bytes, 0, value);
    out.extend_from_slice(&bytes[..length]);
}

/// Writes a variable byte integer at a place; the number of its bytes, 4 at most.
#[inline]
fn write_variable(into: &mut [u8], at: usize, value: usize) -> usize {
    let mut rest = value.min(VARIABLE_BYTE_INTEGER_MAX as usize);
    for (index, byte) in into[at..].iter_mut().take(4).enumerate() {
        let low = rest.to_le_bytes()[0];
        rest >>= 7;
        if rest == 0 {
            *byte = low;
            return index + 1;
        }
        *byte = low | 0x80;
    }
    4
}

/// A string that fits its length: the whole one, unless it breaks the standard's limit.
#[inline]
fn cut(text: &str) -> &str {
    if text.len() <= usize::from(u16::MAX) { text } else { &text[..text.floor_char_boundary(65_535)] }
}

#[inline]
fn text(out: &mut Vec<u8>, value: &str) {
    bytes(out, cut(value).as_bytes());
}

#[inline]
fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
}

/// Properties with their length.
fn block(out: &mut Vec<u8>, properties: &[u8]) {
    variable(out, properties.len());
    out.extend_from_slice(properties);
}

fn two(out: &mut Vec<u8>, id: Id, value: u16) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

fn four(out: &mut Vec<u8>, id: Id, value: u32) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

fn number2(out: &mut Vec<u8>, id: Id, value: Option<u16>) {
    if let Some(value) = value {
        two(out, id, value);
    }
}

fn number4(out: &mut Vec<u8>, id: Id, value: Option<u32>) {
    if let Some(value) = value {
        four(out, id, value);
    }
}

fn string(out: &mut Vec<u8>, id: Id, value: Option<&str>) {
    if let Some(value) = value {
        out.push(id as u8);
        text(out, value);
    }
}

fn binary(out: &mut Vec<u8>, id: Id, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.push(id as u8);
        bytes(out, value);
    }
}
