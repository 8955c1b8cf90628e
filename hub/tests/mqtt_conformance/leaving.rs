//! PING, DISCONNECT, AUTH, and every kind of error that ends a connection (sections 2.1, 3.12 to 3.15, 4.8 or 4.13).

use super::broker::Broker;
use super::client::{connect, each_ends_the_connection, under_both, unique};
use super::wire::{self, Bytes, Property, Publish, Version};

/// Each PINGREQ has its PINGRESP.
/// - 5.0: [MQTT-3.12.4-1]
/// - 3.1.1: [MQTT-3.12.4-1]
#[test]
fn pings_are_answered() {
    under_both(|broker, version| {
        let mut client = connect(broker, version).open(broker);
        client.send(&[wire::pingreq(), wire::pingreq()].concat());
        for _ in 0..2 {
            assert_eq!(client.next(), wire::Packet::Pingresp);
        }
        client.quiet();
    });
}

/// After DISCONNECT the server closes without a word, and does not look at what follows.
/// - 5.0: [MQTT-3.14.4-1] [MQTT-3.14.4-2]
/// - 3.1.1: [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[test]
fn nothing_follows_disconnect() {
    under_both(|broker, version| {
        let topic = unique("after");
        let mut witness = connect(broker, version).open(broker);
        witness.subscribe(&topic, 1);
        let mut client = connect(broker, version).open(broker);
        let after = Publish::new(&topic, "too late").qos(1, 1).bytes(version);
        client.send(&[wire::disconnect(), after].concat());
        assert_eq!(client.end().packets, []);
        witness.quiet();
    });
}

/// The flags of a packet are those of its type.
/// - 5.0: [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
///   [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]
///   [MQTT-4.8.0-1]
#[test]
fn flags_are_those_of_the_type() {
    under_both(|broker, version| {
        let good = [
            wire::ack(wire::PUBACK, 1),
            wire::ack(wire::PUBREC, 1),
            wire::ack(wire::PUBREL, 1),
            wire::ack(wire::PUBCOMP, 1),
            wire::subscribe(version, 1, &[], &[("flags", 0)]),
            wire::unsubscribe(version, 1, &["flags"]),
            wire::pingreq(),
            wire::disconnect(),
            Bytes::default().byte(0x18).properties(&[]).packet(wire::AUTH << 4),
        ];
        let mut wrong = Vec::new();
        for packet in good {
            let lenient =
                matches!(packet[0] >> 4, wire::PUBACK | wire::PUBREC | wire::PUBCOMP | wire::PINGREQ);
            if lenient && broker.is_mosquitto_which("does not look at the flags of these under 3.1.1") {
                continue;
            }
            for bit in [1, 2, 4, 8] {
                let mut packet = packet.clone();
                packet[0] ^= bit;
                wrong.push(packet);
            }
        }
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82]);
        for bit in [1, 2, 4, 8] {
            let mut wrong = connect(broker, version).bytes();
            wrong[0] ^= bit;
            super::connect::is_malformed(broker, version, &wrong);
        }
    });
}

/// Packets that no client sends, types that do not exist, and packets with a part missing or too much.
/// - 5.0: [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-1.5.5-1]
/// - 3.1.1: [MQTT-4.8.0-1]
#[test]
fn what_is_no_packet_ends_the_connection() {
    under_both(|broker, version| {
        let v5 = version == Version::V5;
        let empty: &[u8] = if v5 { &[0] } else { &[] };
        let mut wrong: Vec<Vec<u8>> = vec![
            vec![0x00, 0],
            vec![0x20, 2, 0, 0],
            // Remaining length of five bytes.
            vec![0xc0, 0x80, 0x80, 0x80, 0x80, 0x01],
            // A PUBLISH whose topic is longer than the packet.
            Bytes::default().two(100).raw(b"short").packet(0x30),
            Bytes::default().byte(0).packet(0x30),
            vec![0x30, 0],
            // Without room for the identifier.
            Bytes::default().sized("t").packet(0x32),
            Bytes::default().byte(0).packet(0x40),
            Bytes::default().packet(0x62),
            Bytes::default().two(0).packet(0x40),
        ];
        if v5 {
            wrong.extend([
                // Property length beyond the packet, and of more than four bytes.
                Bytes::default().sized("t").variable(50).raw(b"x").packet(0x30),
                Bytes::default().sized("t").raw(&[0x80, 0x80, 0x80, 0x80, 1]).packet(0x30),
                Bytes::default().two(1).byte(0).variable(9).packet(0x40),
                wire::disconnect_with(0x05, &[]),
                wire::disconnect_with(0, &[Property::ReceiveMaximum(1)]),
                Bytes::default().byte(0).properties(&[]).byte(1).packet(0xe0),
            ]);
        } else {
            wrong.extend([vec![0xe0, 1, 0], vec![0xf0, 0]]);
        }
        if !broker.is_mosquitto_which("overlooks these") {
            wrong.extend([
                Bytes::default().two(1).raw(empty).byte(0).packet(0x90),
                Bytes::default().two(1).raw(empty).packet(0xb0),
                vec![0xd0, 0],
                vec![0xc0, 1, 0],
            ]);
            if v5 {
                // A reason code that PUBACK does not have.
                wrong.push(wire::ack_with(wire::PUBACK, 1, 0x05));
            } else {
                wrong.push(Bytes::default().two(1).byte(0).packet(0x40));
            }
        }
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82]);
    });
}

/// Acknowledgements that nobody waits for do no harm.
/// - 5.0: [MQTT-2.2.1-5]
/// - 3.1.1: [MQTT-2.3.1-6]
#[test]
fn stray_acknowledgements_are_harmless() {
    under_both(|broker, version| {
        let mut client = connect(broker, version).open(broker);
        client.send(&wire::ack(wire::PUBACK, 1_000));
        client.send(&wire::ack(wire::PUBCOMP, 1_001));
        client.send(&wire::ack(wire::PUBREC, 1_002));
        client.send(&wire::pingreq());
        match client.next() {
            // MQTT 5.0 may say that it does not know the identifier, as 3.1.1 may go on with the exchange.
            wire::Packet::Ack { kind: wire::PUBREL, id: 1_002, .. } => {
                assert_eq!(client.next(), wire::Packet::Pingresp)
            }
            other => assert_eq!(other, wire::Packet::Pingresp),
        }
    });
}

/// An authentication method that the server does not have is refused with a code for it; AUTH without one is an error.
/// - 5.0: [MQTT-4.12.0-1] [MQTT-4.12.0-7] [MQTT-3.2.2-7] [MQTT-3.2.0-1]
#[test]
fn extended_authentication_is_refused() {
    let broker = Broker::shared();
    let scram = connect(broker, Version::V5).with_property(Property::AuthMethod("SCRAM-SHA-1".into()));
    let code = scram.with_property(Property::AuthData(b"n,,n=user".to_vec())).refused(broker);
    assert!(matches!(code, Some(0x8c | 0x87)), "{code:?}");
    for code in [0x18, 0x19] {
        let mut client = connect(broker, Version::V5).open(broker);
        client
            .send(&Bytes::default().byte(code).properties(&[Property::AuthMethod("x".into())]).packet(0xf0));
        client.closed(&[0x82, 0x81, 0x8c]);
    }
}

/// MQTT 5.0 says why it closes: malformed, protocol error, invalid alias are told apart.
/// - 5.0: [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[test]
fn the_reason_for_closing_is_told() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("closes without a word in some of these cases") {
        return;
    }
    let cases = [
        (wire::subscribe(Version::V5, 1, &[], &[]), 0x82),
        (wire::subscribe(Version::V5, 1, &[], &[("x", 0x40)]), 0x81),
        (wire::subscribe(Version::V5, 1, &[], &[("$share/g/x", 4)]), 0x82),
        (Publish::new("", "x").bytes(Version::V5), 0x82),
        (Publish::new("x", "y").with(&[Property::TopicAlias(0)]).bytes(Version::V5), 0x94),
        (Publish::new("x", "y").with(&[Property::SubscriptionId(3)]).bytes(Version::V5), 0x82),
        (Publish::new("x", "y").qos(3, 1).bytes(Version::V5), 0x81),
        (vec![0xc1, 0], 0x81),
        (vec![0x00, 0], 0x81),
        (connect(broker, Version::V5).bytes(), 0x82),
    ];
    for (bytes, code) in cases {
        let mut client = connect(broker, Version::V5).open(broker);
        client.send(&bytes);
        client.thrown_out(code);
    }
}
