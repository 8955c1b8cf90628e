//! What either side says it can take: packet size, receive maximum, problem information (sections 3.1.2.11, 3.2.2.3).

use super::broker::Broker;
use super::client::{connect, unique, with_login};
use super::wire::{self, Bytes, PUBACK, Packet, Property, Publish, Version, Will};

/// The server says of nothing that it cannot do it: all of QoS, retained messages, wildcards, identifiers, shares.
/// - 5.0: [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]
#[test]
fn everything_is_offered() {
    let broker = Broker::shared();
    let will = Will { qos: 2, retain: true, ..Will::new(&unique("will"), "") };
    let (mut client, connack) = connect(broker, Version::V5).will(will).open_with(broker);
    for property in connack.properties {
        use Property as P;
        let less = matches!(property, P::MaximumQos(_) | P::RetainAvailable(0) | P::WildcardAvailable(0))
            || matches!(property, P::SubscriptionIdsAvailable(0) | P::SharedAvailable(0));
        assert!(!less, "{property:?}");
    }
    for qos in 0..=2 {
        client.subscribe(&unique("offered"), qos);
    }
}

/// A message that is larger than the client takes is not sent to it, and counts as sent; others follow.
/// - 5.0: [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn what_is_too_large_is_not_sent() {
    let broker = Broker::shared();
    let topic = unique("large");
    let small = connect(broker, Version::V5).persistent().with_property(Property::MaximumPacketSize(200));
    let mut reader = small.open(broker);
    reader.subscribe(&topic, 2);
    let mut publisher = connect(broker, Version::V5).open(broker);
    for qos in 0..=2 {
        publisher.say(&topic, &"x".repeat(200), qos);
        let head = Publish::new(&topic, "").qos(qos, 1).bytes(Version::V5).len();
        // Exactly as large as allowed; the remaining length takes one byte more than in the empty one.
        let fits = "y".repeat(200 - head - 1);
        publisher.say(&topic, &fits, qos);
        let got = reader.hear(&topic, &fits, qos);
        assert_eq!(got.bytes(Version::V5).len(), 200);
    }
    reader.vanish();
    publisher.say(&topic, &"x".repeat(300), 1);
    publisher.say(&topic, "small", 1);
    let mut reader = small.open(broker);
    reader.hear(&topic, "small", 1);
    reader.quiet();
    assert!(reader.largest <= 200);
    // It is gone, even for a larger appetite.
    reader.vanish();
    let larger = connect(broker, Version::V5).id(&small.id).persistent();
    let (mut reader, connack) = larger.open_with(broker);
    assert!(connack.session_present);
    reader.quiet();
}

/// No packet of the server exceeds the client's maximum, whatever it could say in it.
/// - 5.0: [MQTT-3.1.2-24] [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2]
///   [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1]
///   [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn the_server_is_brief_if_asked() {
    let Some(broker) = Broker::alone() else { return };
    const MOST: u32 = 48;
    let tight = |connect: wire::Connect| connect.with_property(Property::MaximumPacketSize(MOST));
    let mut client = tight(with_login(&broker.reader(), Version::V5)).open(&broker);
    client.try_subscribe("closed/topic", 1, &[]);
    client.subscribe("open/topic", 1);
    client.unsubscribe("never/subscribed");
    for (qos, kind) in [(1, PUBACK), (2, wire::PUBREC)] {
        client.send(&Publish::new("open/topic", "forbidden").qos(qos, 7).bytes(Version::V5));
        client.ack(kind, 7);
    }
    client.send(&wire::ack(wire::PUBREL, 77));
    client.ack(wire::PUBCOMP, 77);
    client.send(&[0x00, 0x00]);
    client.end();
    assert!(client.largest <= MOST as usize, "{}", client.largest);
    let mut refused = super::client::Client::raw(broker.address, Version::V5);
    refused.send(&tight(with_login(&broker.wrong_password(), Version::V5)).bytes());
    refused.end();
    assert!(refused.largest <= MOST as usize, "{}", refused.largest);
}

/// Without "request problem information" there are no reasons in words, except in CONNACK and DISCONNECT.
/// - 5.0: [MQTT-3.1.2-29]
#[test]
fn problems_are_told_in_words_if_asked() {
    let Some(broker) = Broker::alone() else { return };
    let silent = with_login(&broker.reader(), Version::V5).with_property(Property::RequestProblem(0));
    let mut client = silent.open(&broker);
    client.send(&wire::subscribe(Version::V5, 1, &[], &[("closed/topic", 1)]));
    client.send(&wire::unsubscribe(Version::V5, 2, &["never/subscribed"]));
    client.send(&Publish::new("open/topic", "forbidden").qos(1, 3).bytes(Version::V5));
    client.send(&Publish::new("open/topic", "forbidden").qos(2, 4).bytes(Version::V5));
    client.send(&wire::ack(wire::PUBREL, 77));
    for _ in 0..5 {
        let properties = match client.next() {
            Packet::Suback { properties, .. } | Packet::Unsuback { properties, .. } => properties,
            Packet::Ack { properties, .. } => properties,
            other => panic!("{other:?}"),
        };
        assert_eq!(properties, []);
    }
    client.quiet();
}

/// A packet larger than the server says it takes ends the connection before it is there; the code says why.
/// - 5.0: [MQTT-3.2.2-15] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-4.8.0-1]
#[test]
fn the_server_has_a_maximum_packet_size() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("takes packets of any size") {
        return;
    }
    let (_, connack) = connect(broker, Version::V5).open_with(broker);
    let maximum = connack.find(|property| match property {
        Property::MaximumPacketSize(maximum) => Some(*maximum),
        _ => None,
    });
    let maximum = maximum.expect("a maximum packet size") as usize;
    for version in wire::BOTH {
        for length in [maximum, 268_435_455] {
            let mut client = connect(broker, version).open(broker);
            // The fixed header alone: with it the packet is too large.
            client.send(&Bytes::default().byte(0x30).variable(length).0);
            client.thrown_out(0x95);
        }
    }
    // The largest that is allowed is.
    let topic = unique("largest");
    let mut client = connect(broker, Version::V5).open(broker);
    let empty = Publish::new(&topic, "").bytes(Version::V5).len() - 1;
    let payload = vec![0x55; maximum - empty - 4];
    client.subscribe(&topic, 0);
    let publish = Publish { payload, ..Publish::new(&topic, "") };
    let bytes = publish.bytes(Version::V5);
    assert!(bytes.len() == maximum || bytes.len() + 1 == maximum, "{} of {maximum}", bytes.len());
    client.send(&bytes);
    assert_eq!(client.publish(), publish);
}

/// A client that has more messages under way than the server's receive maximum is thrown out.
/// - 5.0: [MQTT-3.3.4-7] [MQTT-4.13.1-1]
#[test]
fn the_server_has_a_receive_maximum() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("queues what exceeds its receive maximum") {
        return;
    }
    let (mut client, connack) = connect(broker, Version::V5).open_with(broker);
    let maximum = connack.find(|property| match property {
        Property::ReceiveMaximum(maximum) => Some(*maximum),
        _ => None,
    });
    let Some(maximum) = maximum else { return }; // 65 535: more than there are identifiers
    let topic = unique("receive");
    let mut bytes = Vec::new();
    for id in 1..=maximum {
        bytes.extend(Publish::new(&topic, "x").qos(2, id).bytes(Version::V5));
    }
    client.send(&bytes);
    for id in 1..=maximum {
        client.ack(wire::PUBREC, id);
    }
    client.quiet();
    client.send(&Publish::new(&topic, "x").qos(2, maximum + 1).bytes(Version::V5));
    client.thrown_out(0x93);
}
