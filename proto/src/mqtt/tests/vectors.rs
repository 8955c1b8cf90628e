//! The examples that the standards print.

use super::*;

/// 5.0 Table 1-1: the bounds of every length of a variable byte integer.
#[test]
fn variable_byte_integers() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ] {
        assert_eq!(Reader::new(bytes).variable(), Ok(value));
        let header = [&[0x30], bytes].concat();
        assert_eq!(needed(&header), Some(1 + bytes.len() + value as usize));
        for end in 0..header.len() {
            assert_eq!(needed(&header[..end]), None);
            assert_eq!(frame(&header[..end], usize::MAX), Ok(None));
        }
    }
    assert!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF]).variable().is_err());
    assert!(Reader::new(&[0x80, 0x00]).variable().is_err(), "[MQTT-1.5.5-1]");
    assert!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], usize::MAX).is_err());
}

/// 5.0 Figure 1-2: "A" and U+2A6D4.
#[test]
fn a_string_beyond_the_basic_plane() {
    let bytes = [0x00, 0x05, 0x41, 0xF0, 0xAA, 0x9B, 0x94];
    assert_eq!(Reader::new(&bytes).string(), Ok("A\u{2A6D4}"));
}

/// `[MQTT-1.5.4-3]`: 0xEF 0xBB 0xBF is U+FEFF wherever it stands, and is not stripped.
#[test]
fn a_byte_order_mark_stays() {
    assert_eq!(Reader::new(&field([0xEF, 0xBB, 0xBF, b'a'])).string(), Ok("\u{FEFF}a"));
}

/// 5.0 Figure 3-6: variable header of a CONNECT.
#[test]
fn connect_of_the_standard() {
    let variable = [
        0x00,
        0x04,
        b'M',
        b'Q',
        b'T',
        b'T',
        0x05,
        0b1100_1110,
        0x00,
        0x0A,
        0x05,
        0x11,
        0x00,
        0x00,
        0x00,
        0x0A,
    ];
    let will_properties = [0];
    let bytes = packet(
        0x10,
        &[
            &variable,
            &field("id"),
            &will_properties,
            &field("will/topic"),
            &field("bye"),
            &field("user"),
            &field("secret"),
        ],
    );
    let Packet::Connect(connect) = read(&bytes, Version::V5).unwrap() else { panic!() };
    let connect = connect.to_owned();
    let mut expected = ConnectOwned::new(Version::V5, "id");
    expected.keep_alive = 10;
    expected.session_expiry_s = 10;
    expected.user = Some("user".into());
    expected.password = Some(b"secret".to_vec());
    expected.will = Some(WillOwned {
        topic: "will/topic".into(),
        payload: "bye".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: 0,
        message_expiry: None,
        forwardable: Vec::new(),
    });
    assert_eq!(connect, expected);
    let shown = format!("{connect:?}");
    assert!(!shown.contains("115, 101, 99") && !shown.contains("secret"), "the password is in {shown}");
}

/// 3.1.1 Figure 3.6: the same without properties.
#[test]
fn connect_of_the_older_standard() {
    let variable = [0x00, 0x04, b'M', b'Q', b'T', b'T', 0x04, 0b1100_1110, 0x00, 0x0A];
    let fields = [field("id"), field("t"), field(""), field("u"), field("p")];
    let bytes = packet(0x10, &[&variable, &fields.concat()]);
    let connect = decode_connect(frame(&bytes, 100).unwrap().unwrap()).unwrap();
    assert_eq!((connect.version, connect.keep_alive, connect.user), (Version::V311, 10, Some("u")));
    assert_eq!(connect.will.map(|will| (will.topic, will.qos)), Some(("t", QoS::AtLeastOnce)));
}

/// 5.0 Figure 3-9: "a/b", packet identifier 10, no properties.
#[test]
fn publish_of_the_standard() {
    let bytes = packet(0x32, &[&[0x00, 0x03, b'a', b'/', b'b', 0x00, 0x0A, 0x00], b"payload"]);
    let Packet::Publish(publish) = read(&bytes, Version::V5).unwrap() else { panic!() };
    assert_eq!((publish.topic, publish.packet_id, publish.payload), ("a/b", 10, &b"payload"[..]));
    assert_eq!((publish.dup, publish.qos, publish.retain), (false, QoS::AtLeastOnce, false));
}

/// 5.0 Figures 3-19 and 3-21: packet identifier 10; "a/b" with QoS 1 and "c/d" with QoS 2.
#[test]
fn subscribe_of_the_standard() {
    let payload = [0x00, 0x03, b'a', b'/', b'b', 0x01, 0x00, 0x03, b'c', b'/', b'd', 0x02];
    for (version, head) in [(Version::V5, &[0x00, 0x0A, 0x00][..]), (Version::V311, &[0x00, 0x0A])] {
        let bytes = packet(0x82, &[head, &payload]);
        let Packet::Subscribe(subscribe) = read(&bytes, version).unwrap() else { panic!() };
        let filters: Vec<_> = subscribe.filters().map(|wanted| (wanted.filter, wanted.qos)).collect();
        assert_eq!(subscribe.packet_id, 10);
        assert_eq!(filters, [("a/b", QoS::AtLeastOnce), ("c/d", QoS::ExactlyOnce)]);
    }
}

/// 3.1.1 Figure 3.26: granted QoS 0, QoS 2, refused; Figure 3.30: two filters to forget.
#[test]
fn suback_and_unsubscribe_of_the_standard() {
    let bytes = packet(0x90, &[&[0, 10, 0, 2, 0x80]]);
    let Packet::SubAck(suback) = read(&bytes, Version::V311).unwrap() else { panic!() };
    assert_eq!((suback.packet_id, suback.reasons), (10, &[0, 2, 0x80][..]));
    let bytes = packet(0xA2, &[&[0, 10, 0x00, 0x03, b'a', b'/', b'b', 0x00, 0x03, b'c', b'/', b'd']]);
    let Packet::Unsubscribe(unsubscribe) = read(&bytes, Version::V311).unwrap() else { panic!() };
    assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), ["a/b", "c/d"]);
}

/// §4.7.1 and §4.8.2: filters that the text calls valid and invalid.
#[test]
fn filters_of_the_standard() {
    for valid in [
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "sport/tennis/#",
        "+",
        "+/tennis/#",
        "sport/+/player1",
        "/+",
        "/",
        "+/+",
        "/finance",
        "$SYS/#",
        "$SYS/monitor/+",
        "Accounts payable",
        "$share/consumer1/sport/tennis/+",
        "$share/consumer2/sport/tennis/+",
        "$share/consumer1//finance",
        "$share/g/#",
        "a//b",
        "$shared/a",
    ] {
        assert_eq!(topic::validate_filter(valid), Ok(()), "{valid}");
    }
    for (invalid, fault) in [
        ("", topic::Fault::Empty),
        ("sport/tennis#", topic::Fault::MisplacedWildcard),
        ("sport/tennis/#/ranking", topic::Fault::MisplacedWildcard),
        ("sport+", topic::Fault::MisplacedWildcard),
        ("##", topic::Fault::MisplacedWildcard),
        ("+#", topic::Fault::MisplacedWildcard),
        ("a\0b", topic::Fault::Nul),
        ("$share", topic::Fault::Share),
        ("$share/", topic::Fault::Share),
        ("$share/group", topic::Fault::Share),
        ("$share/group/", topic::Fault::Share),
        ("$share//a", topic::Fault::Share),
        ("$share/gr+up/a", topic::Fault::Share),
        ("$share/#/a", topic::Fault::Share),
        ("$share/g/a#", topic::Fault::MisplacedWildcard),
    ] {
        assert_eq!(topic::validate_filter(invalid), Err(fault), "{invalid}");
    }
    let longest = "a".repeat(65_535);
    assert_eq!(topic::validate_filter(&longest), Ok(()));
    assert_eq!(topic::validate_name(&longest), Ok(()));
    assert_eq!(topic::validate_name(&format!("{longest}a")), Err(topic::Fault::TooLong));
    assert_eq!(topic::validate_filter(&format!("{longest}a")), Err(topic::Fault::TooLong));
    assert_eq!(topic::validate_name("a/+"), Err(topic::Fault::Wildcard));
    assert_eq!(topic::validate_name("a#"), Err(topic::Fault::Wildcard));
    assert_eq!(topic::validate_name("a\0"), Err(topic::Fault::Nul));
    assert_eq!(topic::validate_name("Ölpumpe/temp"), Ok(()));
    assert_eq!(topic::shared("$share/g/a/b"), Some(("g", "a/b")));
    assert_eq!(topic::shared("a/b"), None);
}
