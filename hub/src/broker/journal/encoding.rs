//! Records as bytes.
//!
//! ```text
//! record   = version u8 = 1 | kind u8 | body, to the end of the bytes
//! number   = LEB128, at most 64 bits          text, bytes = length (number) | that many bytes
//!
//! kind 1   message       flags u8 | [session number | packet id u16] | count number { target } | message
//!                        flags: 1 retained, 2 received (session and packet id follow)
//!      2   session       id | client id text | identity text | expiry number
//!      3   disconnected  id | at i64 µs
//!      4   ended         id
//!      5   subscribed    id | filter text | options u8 | subscription id + 1, or 0 (number)
//!      6   unsubscribed  id | filter text
//!      7   released      id | packet id u16
//!      8   received      id | ordinal number
//!      9   progress      id | base | position | queued bytes | count number { ordinal − base }
//!     10   skipped       id | to | position | queued bytes
//!
//! target   = session number | flags u8 | [count number { subscription id number }]
//!            flags: bits 0–1 QoS (1, 2), 4 retain, 8 subscription ids follow
//! message  = flags u8 | [expires i64 µs] | [publisher number] | topic text | properties bytes | payload bytes
//!            flags: bits 0–1 QoS, 4 retain, 8 expires, 16 publisher
//! ```
//! Fixed numbers are little endian. What is unknown (version, kind, flag) is refused, never skipped. No list takes
//! more memory than the bytes it was read from can hold.

use std::sync::Arc;

use bytes::Bytes;
use durable_log::Position;
use model::Timestamp;

use proto::mqtt::QoS;

use super::record::{Message, Record, SessionId, Target};

const VERSION: u8 = 1;

const MESSAGE: u8 = 1;
const SESSION: u8 = 2;
const DISCONNECTED: u8 = 3;
const ENDED: u8 = 4;
const SUBSCRIBED: u8 = 5;
const UNSUBSCRIBED: u8 = 6;
const RELEASED: u8 = 7;
const RECEIVED: u8 = 8;
const PROGRESS: u8 = 9;
const SKIPPED: u8 = 10;

const RECORD_RETAINED: u8 = 1;
const RECORD_RECEIVED: u8 = 2;

const QOS_BITS: u8 = 3;
const RETAIN: u8 = 4;
const TARGET_IDS: u8 = 8;
const MESSAGE_EXPIRES: u8 = 8;
const MESSAGE_PUBLISHER: u8 = 16;

/// A topic, filter, client id or identity.
pub(super) const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A later version of the program wrote them.
    #[error("format version {0} is newer than this program's; use the newer program")]
    Newer(u8),
    /// They are no record at all.
    #[error("{0}")]
    Damaged(&'static str),
}

/// Appends the encoded record.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    out.push(VERSION);
    match record {
        Record::Message { message, targets, retained, received } => {
            out.push(MESSAGE);
            out.push(flag(*retained, RECORD_RETAINED) | flag(received.is_some(), RECORD_RECEIVED));
            if let Some((session, packet_id)) = received {
                put_number(out, session.0);
                out.extend_from_slice(&packet_id.to_le_bytes());
            }
            put_number(out, targets.len() as u64);
            targets.iter().for_each(|target| put_target(out, target));
            put_message(out, message);
        }
        Record::Session { id, client_id, identity, expiry_s } => {
            put_kind(out, SESSION, *id);
            put_bytes(out, client_id.as_bytes());
            put_bytes(out, identity.as_bytes());
            put_number(out, u64::from(*expiry_s));
        }
        Record::Disconnected { id, at } => {
            put_kind(out, DISCONNECTED, *id);
            out.extend_from_slice(&at.0.to_le_bytes());
        }
        Record::Ended { id } => put_kind(out, ENDED, *id),
        Record::Subscribed { id, filter, options, subscription_id } => {
            put_kind(out, SUBSCRIBED, *id);
            put_subscription(out, filter, *options, *subscription_id);
        }
        Record::Unsubscribed { id, filter } => {
            put_kind(out, UNSUBSCRIBED, *id);
            put_bytes(out, filter.as_bytes());
        }
        Record::Released { id, packet_id } => {
            put_kind(out, RELEASED, *id);
            out.extend_from_slice(&packet_id.to_le_bytes());
        }
        Record::Received { id, ordinal } => {
            put_kind(out, RECEIVED, *id);
            put_number(out, *ordinal);
        }
        Record::Progress { id, base, position, done, queued_bytes } => {
            put_kind(out, PROGRESS, *id);
            [*base, position.0, *queued_bytes].into_iter().for_each(|number| put_number(out, number));
            put_ordinals(out, *base, done.iter().copied());
        }
        Record::Skipped { id, to, position, queued_bytes } => {
            put_kind(out, SKIPPED, *id);
            [*to, position.0, *queued_bytes].into_iter().for_each(|number| put_number(out, number));
        }
    }
}

fn put_kind(out: &mut Vec<u8>, kind: u8, id: SessionId) {
    out.push(kind);
    put_number(out, id.0);
}

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// LEB128.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

/// Length and bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Ordinals from `base` on, as distances.
pub(super) fn put_ordinals(out: &mut Vec<u8>, base: u64, ordinals: impl ExactSizeIterator<Item = u64>) {
    put_number(out, ordinals.len() as u64);
    ordinals.for_each(|ordinal| put_number(out, ordinal.saturating_sub(base)));
}

/// Filter, options, identifier.
pub(super) fn put_subscription(out: &mut Vec<u8>, filter: &str, options: u8, subscription_id: Option<u32>) {
    put_bytes(out, filter.as_bytes());
    out.push(options);
    put_number(out, subscription_id.map_or(0, |id| u64::from(id) + 1));
}

fn put_target(out: &mut Vec<u8>, target: &Target) {
    put_number(out, target.session.0);
    let has_ids = !target.subscription_ids.is_empty();
    out.push(target.qos as u8 | flag(target.retain, RETAIN) | flag(has_ids, TARGET_IDS));
    if has_ids {
        put_number(out, target.subscription_ids.len() as u64);
        target.subscription_ids.iter().for_each(|id| put_number(out, u64::from(*id)));
    }
}

/// A message, as in its record.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    out.push(
        message.qos as u8
            | flag(message.retain, RETAIN)
            | flag(message.expires_at.is_some(), MESSAGE_EXPIRES)
            | flag(message.publisher.is_some(), MESSAGE_PUBLISHER),
    );
    if let Some(at) = message.expires_at {
        out.extend_from_slice(&at.0.to_le_bytes());
    }
    if let Some(publisher) = message.publisher {
        put_number(out, publisher.0);
    }
    put_bytes(out, message.topic.as_bytes());
    put_bytes(out, &message.properties);
    put_bytes(out, &message.payload);
}

/// Reads a record.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut from = Decoder(bytes);
    let kind = from.kind()?;
    let record = match kind {
        MESSAGE => {
            let mut head = from.message_head()?;
            let targets = head.targets(&mut from)?;
            let message = Arc::new(from.message()?);
            Record::Message { message, targets, retained: head.retained, received: head.received }
        }
        SESSION => Record::Session {
            id: from.session()?,
            client_id: from.text()?.into(),
            identity: from.text()?.into(),
            expiry_s: from.number_u32()?,
        },
        DISCONNECTED => Record::Disconnected { id: from.session()?, at: from.time()? },
        ENDED => Record::Ended { id: from.session()? },
        SUBSCRIBED => {
            let id = from.session()?;
            let (filter, options, subscription_id) = from.subscription()?;
            Record::Subscribed { id, filter, options, subscription_id }
        }
        UNSUBSCRIBED => Record::Unsubscribed { id: from.session()?, filter: from.text()?.into() },
        RELEASED => Record::Released { id: from.session()?, packet_id: from.u16()? },
        RECEIVED => Record::Received { id: from.session()?, ordinal: from.number()? },
        PROGRESS => {
            let (id, base, position) = (from.session()?, from.number()?, Position(from.number()?));
            let queued_bytes = from.number()?;
            let done = from.ordinals(base)?;
            Record::Progress { id, base, position, done, queued_bytes }
        }
        SKIPPED => Record::Skipped {
            id: from.session()?,
            to: from.number()?,
            position: Position(from.number()?),
            queued_bytes: from.number()?,
        },
        _ => return Err(DecodeError::Damaged("a record of an unknown kind")),
    };
    from.end()?;
    Ok(record)
}

/// The message of a record and those of its targets that are `wanted`; `None` if there are none. What nobody wants
/// is not copied.
pub(super) fn decode_wanted(
    bytes: &[u8],
    mut wanted: impl FnMut(SessionId) -> bool,
) -> Result<Option<(Message, Vec<Target>)>, DecodeError> {
    let mut from = Decoder(bytes);
    if from.kind()? != MESSAGE {
        return Ok(None);
    }
    let mut head = from.message_head()?;
    let mut found = Vec::new();
    while let Some(target) = head.next_target(&mut from, &mut wanted)? {
        found.extend(target);
    }
    if found.is_empty() {
        return Ok(None);
    }
    let message = from.message()?;
    from.end()?;
    Ok(Some((message, found)))
}

/// What stands before a record's message.
struct MessageHead {
    retained: bool,
    received: Option<(SessionId, u16)>,
    targets_left: usize,
}

impl MessageHead {
    fn targets(&mut self, from: &mut Decoder<'_>) -> Result<Vec<Target>, DecodeError> {
        let mut targets = Vec::with_capacity(self.targets_left);
        while let Some(target) = self.next_target(from, |_all| true)? {
            targets.extend(target);
        }
        Ok(targets)
    }

    /// The next target, `Some(None)` if it is not wanted; `None` after the last.
    fn next_target(
        &mut self,
        from: &mut Decoder<'_>,
        wanted: impl FnOnce(SessionId) -> bool,
    ) -> Result<Option<Option<Target>>, DecodeError> {
        let Some(left) = self.targets_left.checked_sub(1) else { return Ok(None) };
        self.targets_left = left;
        let (session, flags) = (from.session()?, from.u8()?);
        if flags & !(QOS_BITS | RETAIN | TARGET_IDS) != 0 {
            return Err(DecodeError::Damaged("a target with an unknown flag"));
        }
        let qos = QoS::try_from(flags & QOS_BITS).ok().filter(|qos| *qos != QoS::AtMostOnce);
        let qos = qos.ok_or(DecodeError::Damaged("a target with no QoS 1 or 2"))?;
        let count = if flags & TARGET_IDS == 0 { 0 } else { from.count(1)? };
        let wanted = wanted(session);
        let mut ids = Vec::with_capacity(if wanted { count } else { 0 });
        for _ in 0..count {
            let id = from.number_u32()?;
            if wanted {
                ids.push(id);
            }
        }
        let retain = flags & RETAIN != 0;
        Ok(Some(wanted.then(|| Target { session, qos, retain, subscription_ids: ids.into_boxed_slice() })))
    }
}

/// Reads fields off the front.
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    fn kind(&mut self) -> Result<u8, DecodeError> {
        match self.u8()? {
            VERSION => self.u8(),
            0 => Err(DecodeError::Damaged("no format version")),
            newer => Err(DecodeError::Newer(newer)),
        }
    }

    fn message_head(&mut self) -> Result<MessageHead, DecodeError> {
        let flags = self.u8()?;
        if flags & !(RECORD_RETAINED | RECORD_RECEIVED) != 0 {
            return Err(DecodeError::Damaged("a message record with an unknown flag"));
        }
        let received = if flags & RECORD_RECEIVED == 0 { None } else { Some((self.session()?, self.u16()?)) };
        let targets_left = self.count(2)?;
        Ok(MessageHead { retained: flags & RECORD_RETAINED != 0, received, targets_left })
    }

    /// A message.
    pub(super) fn message(&mut self) -> Result<Message, DecodeError> {
        let flags = self.u8()?;
        if flags & !(QOS_BITS | RETAIN | MESSAGE_EXPIRES | MESSAGE_PUBLISHER) != 0 {
            return Err(DecodeError::Damaged("a message with an unknown flag"));
        }
        let qos =
            QoS::try_from(flags & QOS_BITS).map_err(|_| DecodeError::Damaged("a message with QoS 3"))?;
        let expires_at = if flags & MESSAGE_EXPIRES == 0 { None } else { Some(self.time()?) };
        let publisher = if flags & MESSAGE_PUBLISHER == 0 { None } else { Some(self.session()?) };
        Ok(Message {
            topic: self.text()?.into(),
            properties: self.bytes()?.into(),
            payload: Bytes::copy_from_slice(self.bytes()?),
            qos,
            retain: flags & RETAIN != 0,
            expires_at,
            publisher,
        })
    }

    /// Filter, options, identifier.
    pub(super) fn subscription(&mut self) -> Result<(Arc<str>, u8, Option<u32>), DecodeError> {
        let (filter, options) = (self.text()?.into(), self.u8()?);
        let id = match self.number()?.checked_sub(1) {
            None => None,
            Some(id) => Some(u32::try_from(id).map_err(|_| TOO_LARGE)?),
        };
        Ok((filter, options, id))
    }

    /// Ordinals as written by [`put_ordinals`].
    pub(super) fn ordinals(&mut self, base: u64) -> Result<Vec<u64>, DecodeError> {
        let count = self.count(1)?;
        let mut ordinals = Vec::with_capacity(count);
        for _ in 0..count {
            ordinals.push(base.checked_add(self.number()?).ok_or(TOO_LARGE)?);
        }
        Ok(ordinals)
    }

    /// How many entries follow, of which each has at least `bytes_min` bytes.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| TOO_LARGE)?;
        if count > self.0.len() / bytes_min.max(1) { Err(CUT) } else { Ok(count) }
    }

    /// A session number.
    pub(super) fn session(&mut self) -> Result<SessionId, DecodeError> {
        self.number().map(SessionId)
    }

    /// A text of at most [`TEXT_BYTES_MAX`].
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes()?;
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(DecodeError::Damaged("a text above 65 535 bytes"));
        }
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Damaged("a text that is no UTF-8"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| TOO_LARGE)?;
        self.take(length)
    }

    /// Micros since 1970 UTC.
    pub(super) fn time(&mut self) -> Result<Timestamp, DecodeError> {
        self.array().map(|bytes| Timestamp(i64::from_le_bytes(bytes)))
    }

    /// LEB128.
    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(TOO_LARGE);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TOO_LARGE)
    }

    /// A number of at most 32 bits.
    pub(super) fn number_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.number()?).map_err(|_| TOO_LARGE)
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes.
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Damaged("bytes are left over")) }
    }
}

const CUT: DecodeError = DecodeError::Damaged("it is cut");
const TOO_LARGE: DecodeError = DecodeError::Damaged("a number is too large");
