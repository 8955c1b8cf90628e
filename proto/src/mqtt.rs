//! MQTT 3.1.1 and 5.0 as bytes: a sans-I/O codec for both directions.
//!
//! ```text
//! bytes ──frame──► Frame (first byte, body) ──decode──► Packet, borrowed from the bytes
//! encode::publish(out, version, …) and its siblings append to a Vec
//! ```
//!
//! What it keeps: decoding allocates nothing and never panics; what the standards call a malformed packet, and every
//! protocol error that can be seen in one packet alone, is a [`DecodeError`] with its reason code. What needs a session
//! to be judged (a second CONNECT, a packet identifier in use, an alias beyond the maximum, a subscription identifier
//! that a client puts into PUBLISH `[MQTT-3.3.4-6]`) is the caller's. Control characters and non-characters in strings
//! are taken, as §1.5.4 allows; whether a payload is what its format indicator says is not looked at (§3.3.2.3.2).

mod connect;
mod control;
pub mod encode;
mod error;
mod property;
mod publish;
mod reader;
pub mod reason;
pub mod topic;

pub use connect::{Connect, ConnectOwned, Will, WillOwned, connect_level, decode_connect};
pub use control::{
    Ack, Auth, ConnAck, Disconnect, Filters, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck,
    Unsubscribe, UnsubscribeFilters,
};
pub use error::DecodeError;
pub use property::{Id, Properties, UserProperties, Value};
pub use publish::{Publish, PublishProperties, SubscriptionIds};

use reader::Reader;

/// The largest number of a variable byte integer (§1.5.5), and so the most bytes a packet has behind its header.
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Which standard a connection follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// How often a message may arrive (§4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// At most once: not acknowledged.
    #[default]
    AtMostOnce = 0,
    /// At least once: PUBACK.
    AtLeastOnce = 1,
    /// Exactly once: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl TryFrom<u8> for QoS {
    type Error = u8;

    fn try_from(bits: u8) -> Result<Self, u8> {
        match bits {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(other),
        }
    }
}

/// One whole packet, not yet looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Bytes of the whole packet; the next one begins behind them.
    pub total: usize,
}

/// A decoded packet. Borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packet<'a> {
    /// §3.1
    Connect(Connect<'a>),
    /// §3.2
    ConnAck(ConnAck<'a>),
    /// §3.3
    Publish(Publish<'a>),
    /// §3.4
    PubAck(Ack<'a>),
    /// §3.5
    PubRec(Ack<'a>),
    /// §3.6
    PubRel(Ack<'a>),
    /// §3.7
    PubComp(Ack<'a>),
    /// §3.8
    Subscribe(Subscribe<'a>),
    /// §3.9
    SubAck(SubAck<'a>),
    /// §3.10
    Unsubscribe(Unsubscribe<'a>),
    /// §3.11
    UnsubAck(UnsubAck<'a>),
    /// §3.12
    PingReq,
    /// §3.13
    PingResp,
    /// §3.14
    Disconnect(Disconnect<'a>),
    /// 5.0 §3.15
    Auth(Auth<'a>),
}

/// The packet that `bytes` begin with; `None` if more bytes are needed. A wrong or too long one is an error as soon as
/// its header is there. `packet_bytes_max` counts the whole packet, header included, as MQTT 5's Maximum Packet Size.
#[inline]
pub fn frame(bytes: &[u8], packet_bytes_max: usize) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    check_first(first)?;
    let Some((header, body_bytes)) = header(bytes)? else { return Ok(None) };
    let total = header + body_bytes;
    if total > packet_bytes_max {
        return Err(DecodeError::TooLarge { bytes: total, max: packet_bytes_max });
    }
    Ok(bytes.get(header..total).map(|body| Frame { first, body, total }))
}

/// Bytes of the packet that begins here, header included; `None` until its length can be read, or if it is malformed.
#[must_use]
pub fn needed(bytes: &[u8]) -> Option<usize> {
    header(bytes).ok().flatten().map(|(header, body)| header + body)
}

/// Bytes of the fixed header and of what follows it.
#[inline]
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut length = 0_usize;
    for (at, shift) in [(1, 0), (2, 7), (3, 14), (4, 21)] {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((at + 1, length)));
        }
    }
    Err(DecodeError::Malformed("the remaining length has more than 4 bytes"))
}

/// Whether a first byte is one of a packet: type and flags of §2.1.2 and §2.1.3 `[MQTT-2.1.3-1]`.
#[inline]
fn check_first(first: u8) -> Result<(), DecodeError> {
    let expected = match first >> 4 {
        0 => return Err(DecodeError::Malformed("packet type 0")),
        3 => {
            return match first & 0b1110 {
                0b1000 => Err(DecodeError::Malformed("DUP with QoS 0")),
                0b0110 | 0b1110 => Err(DecodeError::Malformed("QoS 3")),
                _ => Ok(()),
            };
        }
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if first & 0x0F == expected { Ok(()) } else { Err(DecodeError::Malformed("reserved header flags")) }
}

/// Looks into a packet of a connection that follows `version`.
#[inline]
pub fn decode(frame: Frame<'_>, version: Version) -> Result<Packet<'_>, DecodeError> {
    check_first(frame.first)?;
    let kind = frame.first >> 4;
    if version == Version::V5 && kind != 1 {
        shortest_length(frame)?;
    }
    let mut reader = Reader::new(frame.body);
    if kind == 3 {
        return publish::decode(frame.first, reader, version).map(Packet::Publish);
    }
    let packet = match kind {
        1 => return decode_connect(frame).map(Packet::Connect),
        2 => Packet::ConnAck(control::connack(&mut reader, version)?),
        4 => Packet::PubAck(control::ack(&mut reader, version, kind)?),
        5 => Packet::PubRec(control::ack(&mut reader, version, kind)?),
        6 => Packet::PubRel(control::ack(&mut reader, version, kind)?),
        7 => Packet::PubComp(control::ack(&mut reader, version, kind)?),
        8 => Packet::Subscribe(control::subscribe(&mut reader, version)?),
        9 => Packet::SubAck(control::suback(&mut reader, version)?),
        10 => Packet::Unsubscribe(control::unsubscribe(&mut reader, version)?),
        11 => Packet::UnsubAck(control::unsuback(&mut reader, version)?),
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => Packet::Disconnect(control::disconnect(&mut reader, version)?),
        _ if version == Version::V311 => {
            return Err(DecodeError::Malformed("packet type 15 is none of 3.1.1"));
        }
        _ => Packet::Auth(control::auth(&mut reader)?),
    };
    reader.end()?;
    Ok(packet)
}

/// 5.0 wants the shortest form of a variable byte integer `[MQTT-1.5.5-1]`; 3.1.1 does not say so, and small devices
/// exist that always write four bytes.
#[inline]
fn shortest_length(frame: Frame<'_>) -> Result<(), DecodeError> {
    let written = frame.total.saturating_sub(frame.body.len() + 1);
    if written > reader::variable_bytes(frame.body.len()) {
        return Err(DecodeError::Malformed("the remaining length has more bytes than it needs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
