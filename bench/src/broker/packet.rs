//! MQTT 3.1.1 as bytes: the few packets that the load needs, built by hand, so that no codec under test takes part.

/// QoS 0 or 1.
pub(crate) type QosLevel = u8;

const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;

/// The kinds of packet that the load looks at, by the upper half of the first byte.
pub(crate) mod kind {
    /// Answer to CONNECT.
    pub(crate) const CONNACK: u8 = 2;
    /// A message.
    pub(crate) const PUBLISH: u8 = 3;
    /// A QoS 1 message is taken.
    pub(crate) const PUBACK: u8 = 4;
    /// Answer to SUBSCRIBE.
    pub(crate) const SUBACK: u8 = 9;
}

/// Long enough that no broker asks during a run; rumqttd refuses 0, which would mean never.
const KEEP_ALIVE_SECONDS: u16 = 3600;

/// CONNECT; without `clean` the session stays when the connection ends.
pub(crate) fn connect(client_id: &str, clean: bool, login: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    let flags = u8::from(clean) << 1 | if login.is_some() { 0xC0 } else { 0 };
    body.extend_from_slice(&[4, flags]);
    body.extend_from_slice(&KEEP_ALIVE_SECONDS.to_be_bytes());
    text(&mut body, client_id);
    if let Some((user, password)) = login {
        text(&mut body, user);
        text(&mut body, password);
    }
    packet(CONNECT, &body)
}

/// SUBSCRIBE with packet identifier 1.
pub(crate) fn subscribe(filter: &str, qos: QosLevel) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(qos);
    packet(SUBSCRIBE, &body)
}

/// Appends a PUBLISH with QoS 0.
pub(crate) fn publish(into: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    let mut body = Vec::with_capacity(2 + topic.len() + payload.len());
    text(&mut body, topic);
    body.extend_from_slice(payload);
    into.extend_from_slice(&packet(PUBLISH, &body));
}

/// DISCONNECT.
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Appends a PUBACK.
pub(crate) fn puback(into: &mut Vec<u8>, id: [u8; 2]) {
    into.extend_from_slice(&[PUBACK, 2, id[0], id[1]]);
}

fn text(into: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut whole = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).unwrap_or(0);
        rest /= 128;
        whole.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    whole.extend_from_slice(body);
    whole
}

/// Many PUBLISH packets of one size in one buffer, to be written with one call.
#[derive(Clone, Debug)]
pub(crate) struct PublishBlock {
    bytes: Vec<u8>,
    /// Of one packet.
    packet_bytes: usize,
    /// Where the packet identifier is in a packet; QoS 1 only.
    id_at: Option<usize>,
    payload_at: usize,
}

impl PublishBlock {
    /// As many packets as fit `block_bytes`, at least one.
    pub(crate) fn new(topic: &str, qos: QosLevel, payload_bytes: usize, block_bytes: usize) -> PublishBlock {
        let mut body = Vec::new();
        text(&mut body, topic);
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        let head = body.len();
        body.extend((0..payload_bytes).map(|at| b'a' + u8::try_from(at % 26).unwrap_or(0)));
        let one = packet(PUBLISH | qos << 1, &body);
        let payload_at = one.len() - payload_bytes;
        let id_at = (qos > 0).then(|| one.len() - body.len() + head - 2);
        PublishBlock {
            bytes: one.repeat((block_bytes / one.len()).max(1)),
            packet_bytes: one.len(),
            id_at,
            payload_at,
        }
    }

    /// Packets in it.
    pub(crate) fn packets(&self) -> usize {
        self.bytes.len() / self.packet_bytes
    }

    /// Whether these are answered with PUBACK.
    pub(crate) fn acknowledged(&self) -> bool {
        self.id_at.is_some()
    }

    /// Gives the first `count` packets identifiers from `next_id` on, which is moved.
    pub(crate) fn number(&mut self, count: usize, next_id: &mut u16) {
        let Some(at) = self.id_at else { return };
        for one in self.bytes.chunks_exact_mut(self.packet_bytes).take(count) {
            one[at..at + 2].copy_from_slice(&next_id.to_be_bytes());
            *next_id = next_id.checked_add(1).unwrap_or(1);
        }
    }

    /// The first `count` packets.
    pub(crate) fn bytes(&self, count: usize) -> &[u8] {
        &self.bytes[..count.min(self.packets()) * self.packet_bytes]
    }

    /// One packet whose payload begins with `stamp`.
    pub(crate) fn stamped(&mut self, stamp: u64, next_id: &mut u16) -> &[u8] {
        self.bytes[self.payload_at..self.payload_at + 8].copy_from_slice(&stamp.to_be_bytes());
        self.number(1, next_id);
        self.bytes(1)
    }
}

/// One packet that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Packet<'a> {
    /// The first byte: kind and flags.
    pub(crate) first: u8,
    /// What follows the remaining length.
    pub(crate) body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// See [`kind`].
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet identifier of a PUBLISH with QoS 1 or 2.
    pub(crate) fn publish_id(&self) -> Option<[u8; 2]> {
        if self.first & 0x06 == 0 {
            return None;
        }
        let at = self.topic_end()?;
        Some([*self.body.get(at)?, *self.body.get(at + 1)?])
    }

    /// The first eight bytes of a PUBLISH's payload as a number.
    pub(crate) fn stamp(&self) -> Option<u64> {
        let at = self.topic_end()? + if self.first & 0x06 == 0 { 0 } else { 2 };
        Some(u64::from_be_bytes(self.body.get(at..at + 8)?.try_into().ok()?))
    }

    /// What a PUBLISH with QoS 0 carries.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        if self.kind() != kind::PUBLISH {
            return None;
        }
        self.body.get(self.topic_end()?..)
    }

    /// The topic of a PUBLISH, if it is text.
    pub(crate) fn topic(&self) -> Option<&'a str> {
        std::str::from_utf8(self.body.get(2..self.topic_end()?)?).ok()
    }

    fn topic_end(&self) -> Option<usize> {
        Some(2 + usize::from(u16::from_be_bytes([*self.body.first()?, *self.body.get(1)?])))
    }
}

/// Takes the first whole packet off `bytes`; `None` if there is none (yet).
pub(crate) fn next_packet<'a>(bytes: &mut &'a [u8]) -> Option<Packet<'a>> {
    let whole = *bytes;
    let first = *whole.first()?;
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *whole.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let body = whole.get(at..at + length)?;
    *bytes = &whole[at + length..];
    Some(Packet { first, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_what_the_standard_draws() {
        assert_eq!(connect("c", true, None), b"\x10\x0d\x00\x04MQTT\x04\x02\x0e\x10\x00\x01c");
        let with_login = connect("c", false, Some(("u", "p")));
        assert_eq!(with_login, b"\x10\x13\x00\x04MQTT\x04\xC0\x0e\x10\x00\x01c\x00\x01u\x00\x01p");
        assert_eq!(subscribe("a/#", 1), b"\x82\x08\x00\x01\x00\x03a/#\x01");
    }

    #[test]
    fn a_block_is_read_back_packet_by_packet() {
        for (qos, payload) in [(0, 100), (1, 100), (1, 4096)] {
            let mut block = PublishBlock::new("bench/t", qos, payload, 64 * 1024);
            let (count, mut id) = (block.packets(), 65_530);
            assert!(count >= 15, "{count}");
            block.number(count, &mut id);
            let mut bytes = block.bytes(count);
            let mut ids = Vec::new();
            while let Some(packet) = next_packet(&mut bytes) {
                assert_eq!(packet.kind(), kind::PUBLISH);
                assert_eq!(packet.body.len(), 2 + 7 + 2 * usize::from(qos) + payload);
                ids.extend(packet.publish_id().map(u16::from_be_bytes));
            }
            assert!(bytes.is_empty());
            let wanted: Vec<u16> = (65_530..=65_535).chain(1..).take(count).collect();
            assert_eq!(ids, if qos > 0 { wanted } else { Vec::new() });
        }
    }

    #[test]
    fn a_stamp_is_found_again() {
        for qos in [0, 1] {
            let mut block = PublishBlock::new("t", qos, 100, 1);
            let mut bytes = block.stamped(7_000_000_001, &mut 1);
            assert_eq!(next_packet(&mut bytes).unwrap().stamp(), Some(7_000_000_001));
        }
    }

    #[test]
    fn a_part_of_a_packet_is_none() {
        let whole = subscribe("filter", 0);
        for end in 0..whole.len() {
            let mut bytes = &whole[..end];
            assert_eq!(next_packet(&mut bytes), None);
            assert_eq!(bytes.len(), end);
        }
    }
}
