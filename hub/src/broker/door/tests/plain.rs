//! Plain MQTT: arrivals, every refusal in both versions, places.

use proto::mqtt::{WillOwned, reason};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_arrives_with_what_it_sent_behind_its_connect() {
    let open = Setup::default().open();
    for version in [Version::V311, Version::V5] {
        let mut bytes = bytes_of(&open.good(version));
        encode::pingreq(&mut bytes);
        let mut socket = open.connect();
        for byte in &bytes {
            socket.write_all(&[*byte]).unwrap(); // in as many pieces as there can be
        }
        let mut arrival = open.arrival();
        assert_eq!((arrival.connect.client_id.as_str(), arrival.connect.version), ("client", version));
        assert_eq!(arrival.connect.password, None, "nobody needs it any more");
        assert_eq!(arrival.login.identity.name(), "screen");
        assert_eq!(arrival.peer, socket.local_addr().unwrap());
        assert_eq!(*arrival.listener, *open.address.to_string());
        assert_eq!(arrival.transport.kind(), TransportKind::Tcp);
        let mut rest = arrival.leftover.clone();
        let mut piece = [0; 16];
        while rest.len() < 2 {
            match arrival.transport.read(&mut piece) {
                Ok(count) => rest.extend_from_slice(&piece[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(rest, [0xC0, 0]);
        assert_eq!(arrival.transport.write(b"answer").unwrap(), 6);
        arrival.transport.close();
        drop(arrival);
        assert_eq!(read_all(socket), b"answer");
    }
    open.counted("logged_in", 2).await;
    assert!(open.tasks.drain().await.is_graceful());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_code_in_both_versions() {
    let open = Setup::default().open();
    let turned = |bytes: Vec<u8>, version: Version| {
        let mut socket = open.connect();
        socket.write_all(&bytes).unwrap();
        connack(&read_all(socket), version)
    };
    for (version, code) in [(Version::V5, reason::BAD_USER_NAME_OR_PASSWORD), (Version::V311, 4)] {
        let mut wrong = open.good(version);
        wrong.password = Some(b"guess".to_vec());
        assert_eq!(turned(bytes_of(&wrong), version), Some(code));
    }
    for (version, code) in [(Version::V5, reason::NOT_AUTHORIZED), (Version::V311, 5)] {
        let nobody = ConnectOwned::new(version, "nobody");
        assert_eq!(turned(bytes_of(&nobody), version), Some(code), "anonymous");
        let mut with_will = open.good(version);
        with_will.will = Some(WillOwned {
            topic: "a/b".into(),
            payload: bytes::Bytes::new(),
            qos: mqtt::QoS::AtMostOnce,
            retain: false,
            delay_s: 0,
            message_expiry: None,
            forwardable: Vec::new(),
        });
        assert_eq!(turned(bytes_of(&with_will), version), Some(code), "a reader has no will");
    }
    let mut unnamed = open.good(Version::V311);
    (unnamed.client_id, unnamed.clean_start) = (String::new(), false);
    assert_eq!(turned(bytes_of(&unnamed), Version::V311), Some(2), "3.1.1 [MQTT-3.1.3-8]");
    let mut method = open.good(Version::V5);
    method.authentication_method = Some("SCRAM-SHA-256".into());
    assert_eq!(turned(bytes_of(&method), Version::V5), Some(reason::BAD_AUTHENTICATION_METHOD));

    let mut other = bytes_of(&open.good(Version::V5));
    other[8] = 6;
    assert_eq!(
        turned(other.clone(), Version::V5),
        Some(reason::UNSUPPORTED_PROTOCOL_VERSION),
        "5.0 [MQTT-3.1.2-2]"
    );
    for level in [3, 0x84] {
        other[8] = level;
        assert_eq!(turned(other.clone(), Version::V311), Some(1), "3.1.1 [MQTT-3.1.2-2]");
    }
    let old = b"\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x04abcd".to_vec();
    assert_eq!(turned(old, Version::V311), Some(1), "MQTT 3.1");

    let mut malformed = bytes_of(&open.good(Version::V5));
    malformed[9] |= 1;
    assert_eq!(turned(malformed.clone(), Version::V5), Some(reason::MALFORMED_PACKET));
    malformed[8] = 4;
    assert_eq!(turned(malformed, Version::V311), None, "3.1.1 closes without an answer");
    let too_long = [&[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4][..], b"MQTT\x05"].concat();
    assert_eq!(turned(too_long, Version::V5), Some(reason::PACKET_TOO_LARGE));

    for other_packet in
        [&[0xC0, 0][..], &[0x30, 5, 0, 3, b'a', b'/', b'b'], &[0x82], b"GET / HTTP/1.1\r\n", b"\0"]
    {
        assert_eq!(turned(other_packet.to_vec(), Version::V5), None, "[MQTT-3.1.0-1]");
    }
    open.counted("not_mqtt", 5).await;
    open.counted("version", 4).await;
    open.counted("authentication_method", 1).await;
    open.counted("bad_connect", 4).await;
    open.counted("refused", 6).await;
    assert!(open.nobody_arrived());
    assert_eq!(open.count("lost") + open.count("failed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_login_may_come_in_where_the_listener_says_so() {
    let open = Setup { anonymous_read: true, ..Setup::default() }.open();
    open.connect().write_all(&bytes_of(&ConnectOwned::new(Version::V5, ""))).unwrap();
    assert_eq!(open.arrival().login.identity.name(), "anonymous");
}

/// As large as its fields can be, and the budget is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_connect_is_read_piece_by_piece() {
    let open = Setup::default().open();
    let mut large = open.good(Version::V5);
    large.client_id = "c".repeat(65_535);
    for _ in 0..40 {
        let bytes = bytes_of(&large);
        let mut socket = open.connect();
        socket.write_all(&bytes).unwrap();
        assert_eq!(open.arrival().connect.client_id.len(), 65_535);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_and_a_busy_core_say_so() {
    let open = Setup { places: (2, 50), room: 3, ..Setup::default() }.open();
    let good = bytes_of(&open.good(Version::V5));
    let enter = || {
        let mut socket = open.connect();
        socket.write_all(&good).unwrap();
        socket
    };
    let _inside = [enter(), enter()];
    let arrived = [open.arrival(), open.arrival()];
    assert_eq!(connack(&read_all(enter()), Version::V5), Some(reason::QUOTA_EXCEEDED));
    open.counted("full", 1).await;
    drop(arrived);
    let _again = [enter(), enter()];
    let arrived = [open.arrival(), open.arrival()];
    drop(arrived);

    let open = Setup { room: 1, ..Setup::default() }.open();
    let good = bytes_of(&open.good(Version::V311));
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = open.connect();
        socket.write_all(&good).unwrap();
        sockets.push(socket);
        open.counted("logged_in", 1).await;
    }
    assert_eq!(connack(&read_all(sockets.pop().unwrap()), Version::V311), Some(3));
    open.counted("busy", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_bounded_and_places_come_back() {
    let open = Setup { places: (100, 3), ..Setup::default() }.open();
    let held: Vec<_> = (0..3).map(|_| open.connect()).collect();
    for _ in 0..5 {
        assert_eq!(read_all(open.connect()), b"");
    }
    open.counted("no_place_for_address", 5).await;
    drop(held);
    open.counted("lost", 3).await;
    open.connect().write_all(&bytes_of(&open.good(Version::V5))).unwrap();
    open.arrival();
}
