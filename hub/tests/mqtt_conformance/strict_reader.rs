//! Reads what a server sends, and takes nothing that a standard does not allow: lengths longer than needed, properties
//! where they do not belong or twice, codes of other packets, flags, empty topics, bytes too many.

use std::fmt;

use super::wire::{
    AUTH, CONNACK, Connack, DISCONNECT, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet,
    Property as P, Property, Publish, SUBACK, UNSUBACK, Version,
};

/// Which packets to a client may carry the property with this identifier.
fn carriers(identifier: u8) -> &'static [u8] {
    match identifier {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0b | 0x23 => &[PUBLISH],
        0x11 | 0x12 | 0x13 | 0x1a | 0x21 | 0x22 | 0x24 | 0x25 | 0x27 | 0x28 | 0x29 | 0x2a => &[CONNACK],
        0x15 | 0x16 => &[CONNACK, AUTH],
        0x1c => &[CONNACK, DISCONNECT],
        0x1f => &[CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH],
        0x26 => &[CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH],
        _ => &[],
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
            if !carriers(identifier).contains(&packet) {
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
        return if received.len() > 4 {
            wrong("a remaining length of more than four bytes")
        } else {
            Ok(None)
        };
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
            let properties = if version == Version::V5 { reader.properties(kind)? } else { Vec::new() };
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
