//! MQTT on the wire, read by the standard alone: a packet builder that can also build wrong packets, and a reader that
//! is strict about everything a server sends. Nothing of `proto` is used: two readings of a standard are better than one.

use std::fmt;

/// Which standard a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1, protocol level 4.
    V3,
    /// 5.0, protocol version 5.
    V5,
}

/// For tests of what both standards say.
pub(crate) const BOTH: [Version; 2] = [Version::V3, Version::V5];

// Packet types, the upper half of the first byte.
pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;
pub(crate) const AUTH: u8 = 15;

/// A property of MQTT 5.0, section 2.2.2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(String),
    ServerKeepAlive(u16),
    AuthMethod(String),
    AuthData(Vec<u8>),
    RequestProblem(u8),
    WillDelay(u32),
    RequestResponse(u8),
    ResponseInformation(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    User(String, String),
    MaximumPacketSize(u32),
    WildcardAvailable(u8),
    SubscriptionIdsAvailable(u8),
    SharedAvailable(u8),
}

use Property as P;

impl Property {
    /// A user property.
    pub(crate) fn user(name: &str, value: &str) -> Property {
        P::User(name.into(), value.into())
    }

    fn identifier(&self) -> u8 {
        match self {
            P::PayloadFormat(_) => 0x01,
            P::MessageExpiry(_) => 0x02,
            P::ContentType(_) => 0x03,
            P::ResponseTopic(_) => 0x08,
            P::CorrelationData(_) => 0x09,
            P::SubscriptionId(_) => 0x0b,
            P::SessionExpiry(_) => 0x11,
            P::AssignedClientId(_) => 0x12,
            P::ServerKeepAlive(_) => 0x13,
            P::AuthMethod(_) => 0x15,
            P::AuthData(_) => 0x16,
            P::RequestProblem(_) => 0x17,
            P::WillDelay(_) => 0x18,
            P::RequestResponse(_) => 0x19,
            P::ResponseInformation(_) => 0x1a,
            P::ServerReference(_) => 0x1c,
            P::ReasonString(_) => 0x1f,
            P::ReceiveMaximum(_) => 0x21,
            P::TopicAliasMaximum(_) => 0x22,
            P::TopicAlias(_) => 0x23,
            P::MaximumQos(_) => 0x24,
            P::RetainAvailable(_) => 0x25,
            P::User(..) => 0x26,
            P::MaximumPacketSize(_) => 0x27,
            P::WildcardAvailable(_) => 0x28,
            P::SubscriptionIdsAvailable(_) => 0x29,
            P::SharedAvailable(_) => 0x2a,
        }
    }

    /// Which packets may carry it, going to a client; 0 stands for none.
    fn may_be_sent_in(identifier: u8) -> &'static [u8] {
        match identifier {
            0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0b | 0x23 => &[PUBLISH],
            0x11 | 0x12 | 0x13 | 0x1a | 0x21 | 0x22 | 0x24 | 0x25 | 0x27 | 0x28 | 0x29 | 0x2a => &[CONNACK],
            0x15 | 0x16 => &[CONNACK, AUTH],
            0x1c => &[CONNACK, DISCONNECT],
            0x1f => &[CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH],
            0x26 => {
                &[CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH]
            }
            _ => &[],
        }
    }
}

/// Bytes with the standard's ways to append.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn byte(mut self, value: u8) -> Bytes {
        self.0.push(value);
        self
    }

    pub(crate) fn two(mut self, value: u16) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn four(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Two bytes of length, then the bytes: text and binary data alike.
    pub(crate) fn sized(self, bytes: impl AsRef<[u8]>) -> Bytes {
        let bytes = bytes.as_ref();
        self.two(u16::try_from(bytes.len()).unwrap()).raw(bytes)
    }

    pub(crate) fn variable(mut self, mut value: usize) -> Bytes {
        loop {
            let byte = u8::try_from(value % 128).unwrap();
            value /= 128;
            if value == 0 {
                return self.byte(byte);
            }
            self.0.push(byte | 0x80);
        }
    }

    pub(crate) fn properties(self, properties: &[Property]) -> Bytes {
        let mut body = Bytes::default();
        for property in properties {
            body = body.byte(property.identifier());
            body = match property {
                P::PayloadFormat(v) | P::RequestProblem(v) | P::RequestResponse(v) => body.byte(*v),
                P::MaximumQos(v) | P::RetainAvailable(v) | P::WildcardAvailable(v) => body.byte(*v),
                P::SubscriptionIdsAvailable(v) | P::SharedAvailable(v) => body.byte(*v),
                P::ServerKeepAlive(v) | P::ReceiveMaximum(v) => body.two(*v),
                P::TopicAliasMaximum(v) | P::TopicAlias(v) => body.two(*v),
                P::MessageExpiry(v) | P::SessionExpiry(v) => body.four(*v),
                P::WillDelay(v) | P::MaximumPacketSize(v) => body.four(*v),
                P::SubscriptionId(v) => body.variable(*v as usize),
                P::ContentType(v) | P::ResponseTopic(v) | P::AssignedClientId(v) => body.sized(v),
                P::AuthMethod(v) | P::ResponseInformation(v) => body.sized(v),
                P::ServerReference(v) | P::ReasonString(v) => body.sized(v),
                P::CorrelationData(v) | P::AuthData(v) => body.sized(v),
                P::User(name, value) => body.sized(name).sized(value),
            };
        }
        self.variable(body.0.len()).raw(&body.0)
    }

    /// The packet with this first byte and this body.
    pub(crate) fn packet(self, first: u8) -> Vec<u8> {
        Bytes::default().byte(first).variable(self.0.len()).raw(&self.0).0
    }
}

/// A CONNECT, whose parts can be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<Property>,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
}

/// What is said when a client is gone.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<Property>,
}

impl Will {
    pub(crate) fn new(topic: &str, payload: &str) -> Will {
        let (topic, payload) = (topic.to_owned(), payload.into());
        Will { topic, payload, qos: 0, retain: false, properties: Vec::new() }
    }
}

impl Connect {
    /// The connect flags, section 3.1.2.3.
    pub(crate) fn flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags | (u8::from(self.password.is_some()) << 6) | (u8::from(self.user.is_some()) << 7)
    }

    pub(crate) fn payload(&self) -> Bytes {
        let mut payload = Bytes::default().sized(&self.id);
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                payload = payload.properties(&will.properties);
            }
            payload = payload.sized(&will.topic).sized(&will.payload);
        }
        payload = self.user.iter().fold(payload, |payload, user| payload.sized(user));
        self.password.iter().fold(payload, |payload, password| payload.sized(password))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let level = if self.version == Version::V3 { 4 } else { 5 };
        self.with("MQTT", level, self.flags(), &self.payload())
    }

    /// With these parts in place of the right ones.
    pub(crate) fn with(&self, protocol: &str, level: u8, flags: u8, payload: &Bytes) -> Vec<u8> {
        let head = Bytes::default().sized(protocol).byte(level).byte(flags).two(self.keep_alive);
        let head = if self.version == Version::V5 { head.properties(&self.properties) } else { head };
        head.raw(&payload.0).packet(CONNECT << 4)
    }
}

/// An application message on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// 0 with QoS 0.
    pub(crate) id: u16,
    pub(crate) properties: Vec<Property>,
}

impl Publish {
    pub(crate) fn new(topic: &str, payload: &str) -> Publish {
        Publish { topic: topic.into(), payload: payload.into(), ..Publish::default() }
    }

    pub(crate) fn qos(self, qos: u8, id: u16) -> Publish {
        Publish { qos, id, ..self }
    }

    pub(crate) fn retained(self) -> Publish {
        Publish { retain: true, ..self }
    }

    pub(crate) fn with(self, properties: &[Property]) -> Publish {
        Publish { properties: properties.to_vec(), ..self }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let flags = (u8::from(self.dup) << 3) | (self.qos << 1) | u8::from(self.retain);
        let mut body = Bytes::default().sized(&self.topic);
        if self.qos > 0 {
            body = body.two(self.id);
        }
        if version == Version::V5 {
            body = body.properties(&self.properties);
        }
        body.raw(&self.payload).packet((PUBLISH << 4) | flags)
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP in its short form, which both versions know.
pub(crate) fn ack(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == PUBREL { 2 } else { 0 };
    Bytes::default().two(id).packet((kind << 4) | flags)
}

/// The same with a reason code.
pub(crate) fn ack_with(kind: u8, id: u16, code: u8) -> Vec<u8> {
    let flags = if kind == PUBREL { 2 } else { 0 };
    Bytes::default().two(id).byte(code).packet((kind << 4) | flags)
}

/// A SUBSCRIBE of filters with their options byte.
pub(crate) fn subscribe(
    version: Version,
    id: u16,
    properties: &[Property],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let mut body = Bytes::default().two(id);
    if version == Version::V5 {
        body = body.properties(properties);
    }
    let body = filters.iter().fold(body, |body, (filter, options)| body.sized(filter).byte(*options));
    body.packet((SUBSCRIBE << 4) | 2)
}

/// An UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = Bytes::default().two(id);
    if version == Version::V5 {
        body = body.properties(&[]);
    }
    filters.iter().fold(body, |body, filter| body.sized(filter)).packet((UNSUBSCRIBE << 4) | 2)
}

/// A PINGREQ.
pub(crate) fn pingreq() -> Vec<u8> {
    Bytes::default().packet(PINGREQ << 4)
}

/// A DISCONNECT without anything.
pub(crate) fn disconnect() -> Vec<u8> {
    Bytes::default().packet(DISCONNECT << 4)
}

/// A DISCONNECT of MQTT 5.0.
pub(crate) fn disconnect_with(code: u8, properties: &[Property]) -> Vec<u8> {
    Bytes::default().byte(code).properties(properties).packet(DISCONNECT << 4)
}

/// What a server may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack(Connack),
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack {
        kind: u8,
        id: u16,
        code: u8,
        properties: Vec<Property>,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
        properties: Vec<Property>,
    },
    Unsuback {
        id: u16,
        codes: Vec<u8>,
        properties: Vec<Property>,
    },
    Pingresp,
    Disconnect {
        code: u8,
        properties: Vec<Property>,
    },
}

/// The server's answer to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connack {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Vec<Property>,
}

impl Connack {
    /// The first property that `pick` takes.
    pub(crate) fn find<T>(&self, pick: impl Fn(&Property) -> Option<T>) -> Option<T> {
        self.properties.iter().find_map(pick)
    }
}

/// Why bytes of the server are not MQTT.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn wrong<T>(why: impl fmt::Display) -> Result<T, Wrong> {
    Err(Wrong(why.to_string()))
}

/// Reads from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let Some((head, tail)) = self.0.split_at_checked(count) else {
            return wrong(format!("{count} bytes wanted, {} left", self.0.len()));
        };
        self.0 = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16, Wrong> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().unwrap()))
    }

    fn four(&mut self) -> Result<u32, Wrong> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn data(&mut self) -> Result<&'a [u8], Wrong> {
        let length = self.two()?;
        self.take(length.into())
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let bytes = self.data()?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => wrong(format!("{bytes:?} is not a text of MQTT")),
        }
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    fn variable(&mut self) -> Result<u32, Wrong> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    return wrong("a variable byte integer longer than needed");
                }
                return Ok(value);
            }
        }
        wrong("a variable byte integer of more than four bytes")
    }

    fn packet_id(&mut self) -> Result<u16, Wrong> {
        match self.two()? {
            0 => wrong("packet identifier 0"),
            id => Ok(id),
        }
    }

    fn flag(&mut self) -> Result<u8, Wrong> {
        match self.byte()? {
            flag @ 0..=1 => Ok(flag),
            flag => wrong(format!("{flag} where 0 or 1 is allowed")),
        }
    }

    fn properties(&mut self, packet: u8) -> Result<Vec<Property>, Wrong> {
        let length = self.variable()? as usize;
        let mut reader = Reader(self.take(length)?);
        let mut found: Vec<Property> = Vec::new();
        while !reader.0.is_empty() {
            let identifier = reader.byte()?;
            if !P::may_be_sent_in(identifier).contains(&packet) {
                return wrong(format!("property {identifier:#04x} in a packet of type {packet}"));
            }
            let repeatable = matches!(identifier, 0x26 | 0x0b);
            if !repeatable && found.iter().any(|property| property.identifier() == identifier) {
                return wrong(format!("property {identifier:#04x} twice"));
            }
            found.push(reader.property(identifier)?);
        }
        Ok(found)
    }

    fn property(&mut self, identifier: u8) -> Result<Property, Wrong> {
        Ok(match identifier {
            0x01 => P::PayloadFormat(self.flag()?),
            0x02 => P::MessageExpiry(self.four()?),
            0x03 => P::ContentType(self.text()?),
            0x08 => P::ResponseTopic(self.text()?),
            0x09 => P::CorrelationData(self.data()?.to_vec()),
            0x0b => match self.variable()? {
                0 => return wrong("subscription identifier 0"),
                id => P::SubscriptionId(id),
            },
            0x11 => P::SessionExpiry(self.four()?),
            0x12 => P::AssignedClientId(self.text()?),
            0x13 => P::ServerKeepAlive(self.two()?),
            0x15 => P::AuthMethod(self.text()?),
            0x16 => P::AuthData(self.data()?.to_vec()),
            0x1a => P::ResponseInformation(self.text()?),
            0x1c => P::ServerReference(self.text()?),
            0x1f => P::ReasonString(self.text()?),
            0x21 => match self.two()? {
                0 => return wrong("receive maximum 0"),
                maximum => P::ReceiveMaximum(maximum),
            },
            0x22 => P::TopicAliasMaximum(self.two()?),
            0x23 => match self.two()? {
                0 => return wrong("topic alias 0 [MQTT-3.3.2-8]"),
                alias => P::TopicAlias(alias),
            },
            0x24 => P::MaximumQos(self.flag()?),
            0x25 => P::RetainAvailable(self.flag()?),
            0x26 => P::User(self.text()?, self.text()?),
            0x27 => match self.four()? {
                0 => return wrong("maximum packet size 0"),
                maximum => P::MaximumPacketSize(maximum),
            },
            0x28 => P::WildcardAvailable(self.flag()?),
            0x29 => P::SubscriptionIdsAvailable(self.flag()?),
            0x2a => P::SharedAvailable(self.flag()?),
            _ => return wrong(format!("unknown property {identifier:#04x}")),
        })
    }

    fn end(self) -> Result<(), Wrong> {
        if self.0.is_empty() { Ok(()) } else { wrong(format!("{} bytes too many", self.0.len())) }
    }
}

/// Splits one packet off the front of what was received; none while it is not there in full.
pub(crate) fn split(received: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Wrong> {
    let mut reader = Reader(received.get(1..).unwrap_or_default());
    let has_length = received.iter().skip(1).take(4).any(|byte| byte & 0x80 == 0);
    if !has_length {
        return if received.len() > 4 { wrong("a remaining length of more than four bytes") } else { Ok(None) };
    }
    let length = reader.variable()? as usize;
    let whole = received.len() - reader.0.len() + length;
    if received.len() < whole {
        return Ok(None);
    }
    let rest = received.split_off(whole);
    Ok(Some(std::mem::replace(received, rest)))
}

/// Codes that a server may give in MQTT 5.0, sections 3.2.2.2, 3.4.2.1 to 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1.
fn codes(packet: u8) -> &'static [u8] {
    match packet {
        CONNACK => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
            0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
        ],
        PUBACK | PUBREC => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        PUBREL | PUBCOMP => &[0x00, 0x92],
        SUBACK => &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2],
        UNSUBACK => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91],
        DISCONNECT => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96,
            0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
        ],
        _ => &[],
    }
}

fn allowed(packet: u8, code: u8) -> Result<u8, Wrong> {
    if codes(packet).contains(&code) {
        Ok(code)
    } else {
        wrong(format!("reason code {code:#04x} in a packet of type {packet}"))
    }
}

/// Reads a whole packet.
pub(crate) fn read(packet: &[u8], version: Version) -> Result<Packet, Wrong> {
    let kind = packet[0] >> 4;
    let flags = packet[0] & 0x0f;
    let expected = if kind == PUBREL { 2 } else { 0 };
    if kind != PUBLISH && flags != expected {
        return wrong(format!("flags {flags:#06b} in a packet of type {kind}"));
    }
    let mut reader = Reader(&packet[1..]);
    reader.variable()?;
    match kind {
        CONNACK => connack(reader, version).map(Packet::Connack),
        PUBLISH => publish(flags, reader, version).map(Packet::Publish),
        PUBACK | PUBREC | PUBREL | PUBCOMP => {
            let id = reader.packet_id()?;
            if version == Version::V3 || reader.0.is_empty() {
                reader.end()?;
                return Ok(Packet::Ack { kind, id, code: 0, properties: Vec::new() });
            }
            let code = allowed(kind, reader.byte()?)?;
            let properties = if reader.0.is_empty() { Vec::new() } else { reader.properties(kind)? };
            reader.end()?;
            Ok(Packet::Ack { kind, id, code, properties })
        }
        SUBACK => {
            let id = reader.packet_id()?;
            let properties =
                if version == Version::V5 { reader.properties(kind)? } else { Vec::new() };
            let codes = reader.0.to_vec();
            for code in &codes {
                match version {
                    Version::V5 => allowed(kind, *code).map(drop)?,
                    Version::V3 if matches!(code, 0..=2 | 0x80) => {}
                    Version::V3 => return wrong(format!("return code {code:#04x} in SUBACK [MQTT-3.9.3-2]")),
                }
            }
            Ok(Packet::Suback { id, codes, properties })
        }
        UNSUBACK => {
            let id = reader.packet_id()?;
            if version == Version::V3 {
                reader.end()?;
                return Ok(Packet::Unsuback { id, codes: Vec::new(), properties: Vec::new() });
            }
            let properties = reader.properties(kind)?;
            let codes = reader.0.to_vec();
            codes.iter().try_for_each(|code| allowed(kind, *code).map(drop))?;
            Ok(Packet::Unsuback { id, codes, properties })
        }
        PINGRESP => reader.end().map(|()| Packet::Pingresp),
        DISCONNECT if version == Version::V5 => {
            let code = if reader.0.is_empty() { 0 } else { allowed(kind, reader.byte()?)? };
            let properties = if reader.0.is_empty() { Vec::new() } else { reader.properties(kind)? };
            reader.end()?;
            Ok(Packet::Disconnect { code, properties })
        }
        _ => wrong(format!("a server sends no packet of type {kind} here")),
    }
}

fn connack(mut reader: Reader<'_>, version: Version) -> Result<Connack, Wrong> {
    let session_present = reader.flag()? == 1;
    let code = reader.byte()?;
    let properties = match version {
        Version::V3 if code > 5 => return wrong(format!("return code {code} in CONNACK")),
        Version::V3 => Vec::new(),
        Version::V5 => {
            allowed(CONNACK, code)?;
            reader.properties(CONNACK)?
        }
    };
    reader.end()?;
    if session_present && code != 0 {
        return wrong("session present in a refusal");
    }
    Ok(Connack { session_present, code, properties })
}

fn publish(flags: u8, mut reader: Reader<'_>, version: Version) -> Result<Publish, Wrong> {
    let (dup, qos, retain) = (flags & 8 != 0, (flags >> 1) & 3, flags & 1 != 0);
    if qos == 3 || (qos == 0 && dup) {
        return wrong(format!("flags {flags:#06b} in PUBLISH"));
    }
    let topic = reader.text()?;
    let id = if qos > 0 { reader.packet_id()? } else { 0 };
    let properties = if version == Version::V5 { reader.properties(PUBLISH)? } else { Vec::new() };
    let has_alias = properties.iter().any(|property| matches!(property, P::TopicAlias(_)));
    if topic.contains(['+', '#']) || (topic.is_empty() && !has_alias) {
        return wrong(format!("{topic:?} as the topic of a PUBLISH"));
    }
    let payload = reader.0.to_vec();
    Ok(Publish { topic, payload, qos, retain, dup, id, properties })
}
