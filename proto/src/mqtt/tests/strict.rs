//! What the standards forbid is refused, with the right reason code.

use super::*;

fn reason_of(bytes: &[u8], version: Version) -> u8 {
    match read(bytes, version) {
        Ok(packet) => panic!("{bytes:02x?} is taken as {packet:?}"),
        Err(error) => error.reason(),
    }
}

fn malformed(bytes: &[u8], version: Version) {
    assert_eq!(reason_of(bytes, version), reason::MALFORMED_PACKET, "{bytes:02x?}");
}

fn protocol_error(bytes: &[u8], version: Version) {
    assert_eq!(reason_of(bytes, version), reason::PROTOCOL_ERROR, "{bytes:02x?}");
}

fn connect(level: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &[&field("MQTT"), &[level, flags, 0, 10], &rest.concat()])
}

/// `[MQTT-2.1.3-1]`, §2.1.2: type 0, and every flag that is reserved; seen in the first byte and the length alone.
#[test]
fn reserved_header_flags() {
    for first in 0..=255_u8 {
        let allowed = match first >> 4 {
            0 => false,
            3 => first & 0b0110 != 0b0110 && first & 0b1110 != 0b1000,
            6 | 8 | 10 => first & 15 == 2,
            _ => first & 15 == 0,
        };
        assert_eq!(frame(&[first], BYTES_MAX).is_ok(), allowed, "{first:08b}");
        let frame = Frame { first, body: &[], total: 2 };
        if !allowed {
            assert!(decode(frame, Version::V5).is_err());
        }
    }
}

#[test]
fn auth_is_none_of_the_older_standard() {
    malformed(&[0xF0, 0], Version::V311);
    assert!(read(&[0xF0, 0], Version::V5).is_ok());
}

/// `[MQTT-1.5.5-1]`; 3.1.1 does not forbid it.
#[test]
fn a_remaining_length_of_more_bytes_than_it_needs() {
    let bytes = [0x40, 0x82, 0x00, 0, 1];
    malformed(&bytes, Version::V5);
    assert!(read(&bytes, Version::V311).is_ok());
    let connect = [&[0x10, 0x8F, 0x80, 0x00][..], &field("MQTT"), &[5, 2, 0, 10, 0], &field("id")].concat();
    malformed(&connect, Version::V5);
}

/// `[MQTT-1.5.4-1]` `[MQTT-1.5.4-2]`: strings of every packet.
#[test]
fn strings_that_are_none() {
    for text in [&b"\xFF"[..], b"a\x00b", b"\xED\xA0\x80", b"\xC0\x80", b"\xF4\x90\x80\x80", b"\xE2\x82"] {
        for version in BOTH {
            let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            let level = if version == Version::V5 { 5 } else { 4 };
            malformed(&packet(0x30, &[&field(text), properties]), version);
            malformed(&packet(0x82, &[&[0, 1], properties, &field(text), &[0]]), version);
            malformed(&packet(0xA2, &[&[0, 1], properties, &field(text)]), version);
            malformed(&connect(level, 2, &[properties, &field(text)]), version);
            malformed(&connect(level, 0x82, &[properties, &field("id"), &field(text)]), version);
            malformed(
                &connect(level, 6, &[properties, &field("id"), properties, &field(text), &field("")]),
                version,
            );
        }
        let user = [&[38][..], &field(text), &field("v")].concat();
        malformed(&packet(0x30, &[&field("t"), &[low(user.len())], &user]), Version::V5);
    }
}

/// `[MQTT-2.2.1-2]` `[MQTT-2.2.1-3]`.
#[test]
fn packet_identifier_0() {
    protocol_error(&packet(0x32, &[&field("t"), &[0, 0]]), Version::V311);
    for version in BOTH {
        for first in [0x40, 0x50, 0x62, 0x70, 0xB0] {
            protocol_error(&packet(first, &[&[0, 0]]), version);
        }
        protocol_error(&packet(0x82, &[&[0, 0, 0], &field("t"), &[0]]), version);
        protocol_error(&packet(0x90, &[&[0, 0, 0, 0]]), version);
        protocol_error(&packet(0xA2, &[&[0, 0, 0], &field("t")]), version);
    }
}

/// `[MQTT-3.3.2-2]` `[MQTT-4.7.3-1]`: no wildcards, no empty name; in 5.0 empty with an alias only.
#[test]
fn topic_names_that_are_none() {
    for name in ["a/+", "#", "a#b", "+"] {
        assert_eq!(reason_of(&packet(0x30, &[&field(name), &[0]]), Version::V5), reason::TOPIC_NAME_INVALID);
        assert_eq!(reason_of(&packet(0x30, &[&field(name)]), Version::V311), reason::TOPIC_NAME_INVALID);
        let will = connect(5, 6, &[&[0], &field("id"), &[0], &field(name), &field("")]);
        assert_eq!(reason_of(&will, Version::V5), reason::TOPIC_NAME_INVALID);
        let response = [&[8][..], &field(name)].concat();
        let bytes = packet(0x30, &[&field("t"), &[low(response.len())], &response]);
        assert_eq!(reason_of(&bytes, Version::V5), reason::TOPIC_NAME_INVALID, "[MQTT-3.3.2-14]");
    }
    assert_eq!(reason_of(&packet(0x30, &[&field("")]), Version::V311), reason::TOPIC_NAME_INVALID);
    protocol_error(&packet(0x30, &[&field(""), &[0]]), Version::V5);
    assert!(read(&packet(0x30, &[&field(""), &[3, 35, 0, 1]]), Version::V5).is_ok());
    let will = connect(4, 6, &[&field("id"), &field(""), &field("")]);
    assert_eq!(reason_of(&will, Version::V311), reason::TOPIC_NAME_INVALID);
}

/// `[MQTT-3.3.2-8]`.
#[test]
fn topic_alias_0() {
    let bytes = packet(0x30, &[&field("t"), &[3, 35, 0, 0]]);
    assert_eq!(reason_of(&bytes, Version::V5), reason::TOPIC_ALIAS_INVALID);
}

/// `[MQTT-3.8.3-2]` `[MQTT-3.10.3-2]`, filters that are none, and options `[MQTT-3.8.3-4]` `[MQTT-3.8.3-5]`.
#[test]
fn subscribe_and_unsubscribe() {
    protocol_error(&packet(0x82, &[&[0, 1, 0]]), Version::V5);
    protocol_error(&packet(0x82, &[&[0, 1]]), Version::V311);
    protocol_error(&packet(0xA2, &[&[0, 1, 0]]), Version::V5);
    protocol_error(&packet(0xA2, &[&[0, 1]]), Version::V311);
    for filter in ["", "a#", "#/a", "a+", "$share/g", "$share//a", "$share/+/a"] {
        let bytes = packet(0x82, &[&[0, 1, 0], &field(filter), &[0]]);
        assert_eq!(reason_of(&bytes, Version::V5), reason::TOPIC_FILTER_INVALID, "{filter}");
        let bytes = packet(0xA2, &[&[0, 1], &field("ok"), &field(filter)]);
        assert_eq!(reason_of(&bytes, Version::V311), reason::TOPIC_FILTER_INVALID, "{filter}");
    }
    let options = |bits: u8, filter: &str| packet(0x82, &[&[0, 1, 0], &field(filter), &[bits]]);
    protocol_error(&options(3, "a"), Version::V5);
    protocol_error(&options(0x30, "a"), Version::V5);
    malformed(&options(0x40, "a"), Version::V5);
    malformed(&options(0x80, "a"), Version::V5);
    protocol_error(&options(4, "$share/g/a"), Version::V5);
    assert!(read(&options(4, "a"), Version::V5).is_ok());
    for bit in 2..8 {
        malformed(&packet(0x82, &[&[0, 1], &field("a"), &[1 << bit]]), Version::V311); // 3.1.1 [MQTT-3-8.3-4]
    }
    protocol_error(&packet(0x82, &[&[0, 1], &field("a"), &[3]]), Version::V311);
    protocol_error(&packet(0x82, &[&[0, 1, 2, 11, 0], &field("a"), &[0]]), Version::V5); // identifier 0
    malformed(&packet(0x82, &[&[0, 1, 5, 11, 0xFF, 0xFF, 0xFF, 0xFF], &field("a"), &[0]]), Version::V5);
    malformed(&packet(0x82, &[&[0, 1, 0], &field("a")]), Version::V5); // no options
}

/// `[MQTT-3.1.2-1]` to `[MQTT-3.1.2-22]`.
#[test]
fn connect_flags_and_versions() {
    for version in BOTH {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let level = if version == Version::V5 { 5 } else { 4 };
        let with =
            |flags: u8, rest: &[&[u8]]| connect(level, flags, &[properties, &field("id"), &rest.concat()]);
        assert!(read(&with(2, &[]), version).is_ok());
        malformed(&with(3, &[]), version); // the reserved flag [MQTT-3.1.2-3]
        malformed(&with(0x08, &[]), version); // will QoS without a will [MQTT-3.1.2-11]
        malformed(&with(0x20, &[]), version); // will retain without a will [MQTT-3.1.2-13]
        malformed(&with(0x1C, &[properties, &field("t"), &field("")]), version); // will QoS 3 [MQTT-3.1.2-12]
        malformed(&with(0x04, &[]), version); // a will that is not there
        malformed(&with(0x82, &[]), version); // a user name that is not there
        malformed(&with(2, &[b"x"]), version); // something behind the end
        let password_only = with(0x40, &[&field("p")]);
        match version {
            Version::V311 => malformed(&password_only, version), // 3.1.1 [MQTT-3.1.2-22]
            Version::V5 => assert!(read(&password_only, version).is_ok()),
        }
    }
    for level in [0, 3, 6, 0x84] {
        let bytes = connect(level, 2, &[&field("id")]);
        assert_eq!(read(&bytes, Version::V5), Err(DecodeError::UnsupportedVersion { level }));
        assert_eq!(connect_level(frame(&bytes, 100).unwrap().unwrap()), Some(level));
    }
    for name in ["MQIsdp", "mqtt", "MQTT\0", ""] {
        let bytes = packet(0x10, &[&field(name), &[3, 2, 0, 10], &field("id")]);
        let error = read(&bytes, Version::V311).unwrap_err();
        assert_eq!(error, DecodeError::UnsupportedProtocol { level: 3 });
        assert_eq!(error.reason(), reason::UNSUPPORTED_PROTOCOL_VERSION);
    }
    let ping = frame(&[0xC0, 0], 100).unwrap().unwrap();
    assert_eq!(decode_connect(ping).unwrap_err().reason(), reason::PROTOCOL_ERROR);
}

/// §2.2.2: every property in every packet type; twice; unknown ones; beyond their length.
#[test]
fn properties() {
    let one = |id: Id| -> Vec<u8> {
        let value = match id.kind() {
            property::Kind::Byte | property::Kind::Variable => vec![1],
            property::Kind::Two => vec![0, 1],
            property::Kind::Four => vec![0, 0, 0, 1],
            property::Kind::Text | property::Kind::Binary => field("a"),
            property::Kind::Pair => [field("a"), field("b")].concat(),
        };
        [vec![id as u8], value].concat()
    };
    let build = |kind: u8, properties: &[u8]| -> Vec<u8> {
        let block = [&[low(properties.len())], properties].concat();
        match kind {
            0 => connect(5, 6, &[&[0], &field("id"), &block, &field("t"), &field("")]), // will
            1 => connect(5, 2, &[&block, &field("id")]),
            2 => packet(0x20, &[&[0, 0], &block]),
            3 => packet(0x30, &[&field("t"), &block]),
            4 | 5 | 7 => packet(kind << 4, &[&[0, 1, 0], &block]),
            6 => packet(0x62, &[&[0, 1, 0], &block]),
            8 => packet(0x82, &[&[0, 1], &block, &field("t"), &[0]]),
            9 | 11 => packet(kind << 4, &[&[0, 1], &block, &[0]]),
            10 => packet(0xA2, &[&[0, 1], &block, &field("t")]),
            14 => packet(0xE0, &[&[0], &block]),
            _ => packet(0xF0, &[&[0], &block]),
        }
    };
    // 5.0 Table 2-4, the column "Packet / Will Properties"; 0 is the will.
    let table: &[(u8, &[u8])] = &[
        (1, &[3, 0]),
        (2, &[3, 0]),
        (3, &[3, 0]),
        (8, &[3, 0]),
        (9, &[3, 0]),
        (11, &[3, 8]),
        (17, &[1, 2, 14]),
        (18, &[2]),
        (19, &[2]),
        (21, &[1, 2, 15]),
        (22, &[1, 2, 15]),
        (23, &[1]),
        (24, &[0]),
        (25, &[1]),
        (26, &[2]),
        (28, &[2, 14]),
        (31, &[2, 4, 5, 6, 7, 9, 11, 14, 15]),
        (33, &[1, 2]),
        (34, &[1, 2]),
        (35, &[3]),
        (36, &[2]),
        (37, &[2]),
        (38, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15]),
        (39, &[1, 2]),
        (40, &[2]),
        (41, &[2]),
        (42, &[2]),
    ];
    assert_eq!(table.len(), Id::ALL.len());
    for kind in (0..=11).chain([14, 15]) {
        for id in Id::ALL {
            let (_, packets) = table.iter().find(|(number, _)| *number == *id as u8).unwrap();
            // What the rules between properties want besides.
            let mut needs = Vec::new();
            if kind == 15 && *id != Id::AuthenticationMethod || kind < 3 && *id == Id::AuthenticationData {
                needs = one(Id::AuthenticationMethod);
            }
            let bytes = build(kind, &[one(*id), needs.clone()].concat());
            if !packets.contains(&kind) {
                malformed(&bytes, Version::V5);
                continue;
            }
            assert!(read(&bytes, Version::V5).is_ok(), "{id:?} in {kind}: {:?}", read(&bytes, Version::V5));
            let twice = build(kind, &[one(*id), one(*id), needs].concat());
            if *id == Id::UserProperty || (*id == Id::SubscriptionId && kind == 3) {
                assert!(read(&twice, Version::V5).is_ok());
            } else {
                protocol_error(&twice, Version::V5);
            }
        }
        for unknown in [0, 4, 5, 43, 127, 128, 255] {
            malformed(&build(kind, &[unknown, 1]), Version::V5);
        }
        malformed(&build(kind, &[38, 0, 1, b'a', 0, 9, b'b']), Version::V5);
        let text = build(kind, &[31, 0, 5, b'a']);
        malformed(&text, Version::V5);
    }
    for (kind, id) in [(3, 1), (0, 1), (1, 23), (1, 25), (2, 36), (2, 37), (2, 40), (2, 41), (2, 42)] {
        protocol_error(&build(kind, &[id, 2]), Version::V5);
    }
    for kind in [1, 2] {
        protocol_error(&build(kind, &[33, 0, 0]), Version::V5); // receive maximum 0
        protocol_error(&build(kind, &[39, 0, 0, 0, 0]), Version::V5); // maximum packet size 0
        protocol_error(&build(kind, &[22, 0, 0]), Version::V5); // authentication data without a method
    }
    protocol_error(&build(15, &[38, 0, 0, 0, 0]), Version::V5); // AUTH without a method
    protocol_error(&build(3, &[11, 0]), Version::V5); // subscription identifier 0
    malformed(&packet(0x30, &[&field("t"), &[9, 2, 0, 0, 0, 1]]), Version::V5); // longer than the packet
    malformed(&packet(0x30, &[&field("t")]), Version::V5); // no property length
}

/// Reason codes that a packet cannot have `[MQTT-3.4.2-1]` and its siblings; trailing bytes; CONNACK rules.
#[test]
fn answers() {
    for code in 0..=255 {
        for (kind, first) in [(4, 0x40), (5, 0x50), (6, 0x62), (7, 0x70)] {
            let bytes = packet(first, &[&[0, 1, code]]);
            assert_eq!(read(&bytes, Version::V5).is_ok(), reason::allowed(kind, code));
            malformed(&bytes, Version::V311);
        }
        let bytes = packet(0xE0, &[&[code]]);
        assert_eq!(read(&bytes, Version::V5).is_ok(), reason::allowed(14, code));
        malformed(&bytes, Version::V311);
        let bytes = packet(0x20, &[&[0, code]]);
        assert_eq!(read(&bytes, Version::V311).is_ok(), code <= 5);
    }
    malformed(&packet(0x20, &[&[2, 0, 0]]), Version::V5); // [MQTT-3.2.2-1]
    protocol_error(&packet(0x20, &[&[1, 0x87, 0]]), Version::V5); // [MQTT-3.2.2-6]
    protocol_error(&packet(0x20, &[&[1, 5]]), Version::V311); // 3.1.1 [MQTT-3.2.2-4]
    protocol_error(&packet(0x90, &[&[0, 1, 3]]), Version::V311); // 3.1.1 [MQTT-3.9.3-2]
    protocol_error(&packet(0x90, &[&[0, 1]]), Version::V311);
    protocol_error(&packet(0xB0, &[&[0, 1, 0]]), Version::V5);
    malformed(&packet(0xB0, &[&[0, 1, 0]]), Version::V311);
    malformed(&packet(0xF0, &[&[0x18]]), Version::V5); // a code without properties
    for first in [0xC0, 0xD0] {
        malformed(&packet(first, &[&[0]]), Version::V5);
    }
    malformed(&packet(0x40, &[&[0, 1, 0, 0, 0]]), Version::V5);
    malformed(&packet(0xE0, &[&[0, 0, 0]]), Version::V5);
}

/// §2.4: what 3.1.1 is told.
#[test]
fn return_codes_of_the_older_standard() {
    use reason::connect_return_code as code;
    assert_eq!(code(reason::SUCCESS), Some(0));
    assert_eq!(code(reason::UNSUPPORTED_PROTOCOL_VERSION), Some(1));
    assert_eq!(code(reason::CLIENT_IDENTIFIER_NOT_VALID), Some(2));
    assert_eq!(code(reason::QUOTA_EXCEEDED), Some(3));
    assert_eq!(code(reason::BAD_USER_NAME_OR_PASSWORD), Some(4));
    assert_eq!(code(reason::NOT_AUTHORIZED), Some(5));
    assert_eq!(code(reason::MALFORMED_PACKET), None);
}
