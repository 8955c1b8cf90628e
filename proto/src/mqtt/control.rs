//! Every packet but CONNECT and PUBLISH (§3.2, §3.4 to §3.15).

use super::connect::properties;
use super::property::{Allowed, Id, Properties};
use super::reader::Reader;
use super::{DecodeError, QoS, Version, reason, topic};

/// CONNACK: the server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server has the client's session.
    pub session_present: bool,
    /// Reason code of 5.0, return code of 3.1.1; 0: welcome.
    pub reason: u8,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which message; never 0.
    pub packet_id: u16,
    /// Reason code; 0 in 3.1.1.
    pub reason: u8,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE: one or more filters, all checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
    filters: &'a [u8],
}

/// One subscription of a [`Subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Topic filter, valid; with its `$share/name/`.
    pub filter: &'a str,
    /// The highest QoS that the client wants.
    pub qos: QoS,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

/// Whether retained messages are sent at the time of the subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// Always, which is all that 3.1.1 knows.
    #[default]
    Send = 0,
    /// If there was no such subscription.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK: one code per filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
    /// Granted QoS, or a reason code of 0x80 and more.
    pub reasons: &'a [u8],
}

/// UNSUBSCRIBE: one or more filters, all checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
    filters: &'a [u8],
}

/// UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
    /// One code per filter; none in 3.1.1.
    pub reasons: &'a [u8],
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason code; 0 in 3.1.1.
    pub reason: u8,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
}

/// AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// 0, 0x18 or 0x19.
    pub reason: u8,
    /// Method, data, reason string, user properties.
    pub properties: Properties<'a>,
}

const CONNACK: Allowed = Allowed::these(&[
    Id::SessionExpiry,
    Id::ReceiveMaximum,
    Id::MaximumQos,
    Id::RetainAvailable,
    Id::MaximumPacketSize,
    Id::AssignedClientId,
    Id::TopicAliasMaximum,
    Id::ReasonString,
    Id::WildcardSubscriptionAvailable,
    Id::SubscriptionIdsAvailable,
    Id::SharedSubscriptionAvailable,
    Id::ServerKeepAlive,
    Id::ResponseInformation,
    Id::ServerReference,
    Id::AuthenticationMethod,
    Id::AuthenticationData,
]);
const ACKS: Allowed = Allowed::these(&[Id::ReasonString]);
const SUBSCRIBE: Allowed = Allowed::these(&[Id::SubscriptionId]);
const UNSUBSCRIBE: Allowed = Allowed::these(&[]);
const DISCONNECT: Allowed = Allowed::these(&[Id::SessionExpiry, Id::ReasonString, Id::ServerReference]);
const AUTH: Allowed = Allowed::these(&[Id::AuthenticationMethod, Id::AuthenticationData, Id::ReasonString]);

fn known(kind: u8, code: u8) -> Result<u8, DecodeError> {
    if reason::allowed(kind, code) {
        Ok(code)
    } else {
        Err(DecodeError::Protocol("a reason code that this packet cannot have"))
    }
}

pub(super) fn connack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
    let flags = reader.u8()?;
    if flags > 1 {
        return Err(DecodeError::Malformed("reserved CONNACK flags")); // [MQTT-3.2.2-1]
    }
    let code = reader.u8()?;
    let reason = match version {
        Version::V5 => known(2, code)?,
        Version::V311 if code <= 5 => code,
        Version::V311 => return Err(DecodeError::Protocol("an unknown return code")),
    };
    if flags == 1 && reason != 0 {
        return Err(DecodeError::Protocol("refused with a session")); // [MQTT-3.2.2-6]
    }
    Ok(ConnAck { session_present: flags == 1, reason, properties: properties(reader, version, CONNACK)? })
}

#[inline]
pub(super) fn ack<'a>(reader: &mut Reader<'a>, version: Version, kind: u8) -> Result<Ack<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V311 || reader.is_empty() {
        return Ok(Ack { packet_id, reason: 0, properties: Properties::default() });
    }
    let (reason, properties) = reason_and_properties(reader, kind, ACKS)?;
    Ok(Ack { packet_id, reason, properties })
}

/// A reason code; properties if there is anything more.
fn reason_and_properties<'a>(
    reader: &mut Reader<'a>,
    kind: u8,
    allowed: Allowed,
) -> Result<(u8, Properties<'a>), DecodeError> {
    let reason = known(kind, reader.u8()?)?;
    let properties =
        if reader.is_empty() { Properties::default() } else { Properties::decode(reader, allowed)? };
    Ok((reason, properties))
}

pub(super) fn subscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(reader, version, SUBSCRIBE)?;
    let filters = reader.rest();
    if filters.is_empty() {
        return Err(DecodeError::Protocol("SUBSCRIBE without a filter")); // [MQTT-3.8.3-2]
    }
    while !reader.is_empty() {
        let filter = filter(reader)?;
        options(filter, reader.u8()?, version)?;
    }
    Ok(Subscribe { packet_id, properties, filters })
}

fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = reader.string()?;
    topic::validate_filter(filter).map_err(DecodeError::TopicFilter)?;
    Ok(filter)
}

fn options(filter: &str, bits: u8, version: Version) -> Result<Subscription<'_>, DecodeError> {
    let qos = QoS::try_from(bits & 0b11).map_err(|_| DecodeError::Protocol("subscription with QoS 3"))?;
    let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
    if bits & reserved != 0 {
        return Err(DecodeError::Malformed("reserved subscription options")); // [MQTT-3.8.3-5], 3.1.1 [MQTT-3-8.3-4]
    }
    let no_local = bits & 0b100 != 0;
    if no_local && topic::shared(filter).is_some() {
        return Err(DecodeError::Protocol("no-local on a shared subscription")); // [MQTT-3.8.3-4]
    }
    let retain_handling = match bits >> 4 & 0b11 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::Protocol("retain handling 3")),
    };
    Ok(Subscription { filter, qos, no_local, retain_as_published: bits & 0b1000 != 0, retain_handling })
}

impl<'a> Subscribe<'a> {
    /// The subscriptions, one or more.
    #[must_use]
    pub fn filters(&self) -> Filters<'a> {
        Filters { reader: Reader::new(self.filters) }
    }

    /// The identifier that deliveries for these subscriptions shall carry, never 0.
    #[must_use]
    pub fn subscription_id(&self) -> Option<u32> {
        self.properties.number(Id::SubscriptionId)
    }
}

/// Subscriptions of a SUBSCRIBE, in order.
#[derive(Clone, Debug)]
pub struct Filters<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Filters<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Subscription<'a>> {
        let filter = self.reader.string().ok()?;
        options(filter, self.reader.u8().ok()?, Version::V5).ok() // checked before; 3.1.1 has a part of these bits
    }
}

pub(super) fn suback<'a>(reader: &mut Reader<'a>, version: Version) -> Result<SubAck<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(reader, version, ACKS)?;
    let reasons = reader.take(reader.rest().len())?;
    if reasons.is_empty() {
        return Err(DecodeError::Protocol("SUBACK without a code"));
    }
    for code in reasons {
        match version {
            Version::V311 if !matches!(code, 0..=2 | 0x80) => {
                return Err(DecodeError::Protocol("an unknown return code"));
            }
            Version::V311 => {}
            Version::V5 => {
                known(9, *code)?;
            }
        }
    }
    Ok(SubAck { packet_id, properties, reasons })
}

pub(super) fn unsubscribe<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(reader, version, UNSUBSCRIBE)?;
    let filters = reader.rest();
    if filters.is_empty() {
        return Err(DecodeError::Protocol("UNSUBSCRIBE without a filter")); // [MQTT-3.10.3-2]
    }
    while !reader.is_empty() {
        filter(reader)?;
    }
    Ok(Unsubscribe { packet_id, properties, filters })
}

impl<'a> Unsubscribe<'a> {
    /// The filters, one or more.
    #[must_use]
    pub fn filters(&self) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters { reader: Reader::new(self.filters) }
    }
}

/// Filters of an UNSUBSCRIBE, in order.
#[derive(Clone, Debug)]
pub struct UnsubscribeFilters<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.reader.string().ok()
    }
}

pub(super) fn unsuback<'a>(reader: &mut Reader<'a>, version: Version) -> Result<UnsubAck<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V311 {
        return Ok(UnsubAck { packet_id, properties: Properties::default(), reasons: &[] });
    }
    let properties = Properties::decode(reader, ACKS)?;
    let reasons = reader.take(reader.rest().len())?;
    if reasons.is_empty() {
        return Err(DecodeError::Protocol("UNSUBACK without a code"));
    }
    for code in reasons {
        known(11, *code)?;
    }
    Ok(UnsubAck { packet_id, properties, reasons })
}

pub(super) fn disconnect<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Disconnect<'a>, DecodeError> {
    if version == Version::V311 || reader.is_empty() {
        return Ok(Disconnect { reason: 0, properties: Properties::default() });
    }
    let (reason, properties) = reason_and_properties(reader, 14, DISCONNECT)?;
    Ok(Disconnect { reason, properties })
}

pub(super) fn auth<'a>(reader: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
    if reader.is_empty() {
        return Ok(Auth { reason: 0, properties: Properties::default() });
    }
    let reason = known(15, reader.u8()?)?;
    let properties = Properties::decode(reader, AUTH)?;
    if properties.text(Id::AuthenticationMethod).is_none() {
        return Err(DecodeError::Protocol("AUTH without a method"));
    }
    Ok(Auth { reason, properties })
}
