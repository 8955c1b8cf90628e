//! MQTT on the wire, by the standard alone: the packets, and a builder that can also build wrong ones. Nothing of
//! `proto` is used here: two readings of a standard are better than one.

pub(crate) use super::strict_reader::{read, split};

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

    pub(crate) fn identifier(&self) -> u8 {
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
