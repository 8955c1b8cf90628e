//! PUBLISH (§3.3): the packet that everything is about.

use super::property::{self, Allowed, Id, Once, UserProperties, Value};
use super::reader::Reader;
use super::{DecodeError, QoS, Version, topic};

/// A message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Sent before, perhaps.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Keep it as the topic's last message; towards a client: it was kept.
    pub retain: bool,
    /// Topic name, valid; empty only with a topic alias.
    pub topic: &'a str,
    /// Packet identifier; 0 exactly with QoS 0.
    pub packet_id: u16,
    /// MQTT 5 properties.
    pub properties: PublishProperties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// Properties of a PUBLISH (5.0 §3.3.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    raw: &'a [u8],
    not_forwarded: bool,
    forwarded: bool,
    /// 0: bytes, 1: text.
    pub payload_format: Option<u8>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    /// Never 0.
    pub topic_alias: Option<u16>,
    /// Where to answer to.
    pub response_topic: Option<&'a str>,
    /// What the answer shall carry.
    pub correlation_data: Option<&'a [u8]>,
    /// What the payload is.
    pub content_type: Option<&'a str>,
}

const ALLOWED: Allowed = Allowed::these(&[
    Id::PayloadFormat,
    Id::MessageExpiry,
    Id::TopicAlias,
    Id::ResponseTopic,
    Id::CorrelationData,
    Id::SubscriptionId,
    Id::ContentType,
]);

#[inline]
pub(super) fn decode(
    first: u8,
    mut reader: Reader<'_>,
    version: Version,
) -> Result<Publish<'_>, DecodeError> {
    let qos = QoS::try_from(first >> 1 & 0b11).map_err(|_| DecodeError::Malformed("QoS 3"))?;
    let topic = reader.topic_or_empty()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id()? };
    let properties = match version {
        Version::V5 => PublishProperties::decode(&mut reader)?,
        Version::V311 => PublishProperties::default(),
    };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(match version {
            Version::V5 => DecodeError::Protocol("neither topic name nor alias"),
            Version::V311 => DecodeError::TopicName(topic::Fault::Empty),
        });
    }
    Ok(Publish {
        dup: first & 0b1000 != 0,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

impl<'a> PublishProperties<'a> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.variable()? {
            0 => Ok(Self::default()),
            length => Self::decode_some(reader.take(length as usize)?),
        }
    }

    fn decode_some(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let mut these = PublishProperties { raw, ..Self::default() };
        let mut once = Once::new(ALLOWED).several_subscriptions();
        let mut reader = Reader::new(raw);
        while !reader.is_empty() {
            let (id, value) = property::next(&mut reader)?;
            once.admit(id)?;
            if property::is_forwardable(id) {
                these.forwarded = true;
            } else {
                these.not_forwarded = true;
            }
            match (id, value) {
                (Id::PayloadFormat, Value::Number(format)) => {
                    these.payload_format = u8::try_from(format).ok()
                }
                (Id::MessageExpiry, Value::Number(seconds)) => these.message_expiry = Some(seconds),
                (Id::TopicAlias, Value::Number(alias)) => these.topic_alias = u16::try_from(alias).ok(),
                (Id::ResponseTopic, Value::Text(topic)) => these.response_topic = Some(topic),
                (Id::ContentType, Value::Text(kind)) => these.content_type = Some(kind),
                (Id::CorrelationData, Value::Binary(data)) => these.correlation_data = Some(data),
                _ => {}
            }
        }
        Ok(these)
    }

    /// The encoded properties, without their length.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Identifiers of the subscriptions that a server sent this for; a client must not send any `[MQTT-3.3.4-6]`.
    #[must_use]
    pub fn subscription_ids(&self) -> SubscriptionIds<'a> {
        SubscriptionIds { reader: Reader::new(if self.not_forwarded { self.raw } else { &[] }) }
    }

    /// User properties, in order.
    #[must_use]
    pub fn user(&self) -> UserProperties<'a> {
        UserProperties::of(self.raw)
    }

    /// Whether [`forwardable`](Self::forwardable) appends anything.
    #[must_use]
    #[inline]
    pub const fn has_forwardable(&self) -> bool {
        self.forwarded
    }

    /// Appends, encoded and in order, without a length, what a server must pass on unaltered: payload format, content
    /// type, response topic, correlation data, user properties.
    pub fn forwardable(&self, out: &mut Vec<u8>) {
        match (self.forwarded, self.not_forwarded) {
            (false, _) => {}
            (true, false) => out.extend_from_slice(self.raw),
            (true, true) => property::forward(self.raw, out),
        }
    }
}

/// Subscription identifiers of a PUBLISH.
#[derive(Clone, Debug)]
pub struct SubscriptionIds<'a> {
    reader: Reader<'a>,
}

impl Iterator for SubscriptionIds<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while !self.reader.is_empty() {
            if let (Id::SubscriptionId, Value::Number(id)) = property::next(&mut self.reader).ok()? {
                return Some(id);
            }
        }
        None
    }
}
