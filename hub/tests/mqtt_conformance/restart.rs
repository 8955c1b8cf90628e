//! What is there again after the server was stopped and started on the same folder (sections 3.1.2, 3.3.1, 4.1, 4.3).

use super::broker::Broker;
use super::client::{connect, unique};
use super::wire::{self, BOTH, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Property, Publish, Version};

/// Retained messages survive, removed ones stay removed.
/// - 5.0: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]
/// - 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.1.2-7]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn retained_messages_survive() {
    let Some(mut broker) = Broker::alone() else { return };
    let topic = unique("retained");
    let mut publisher = connect(&broker, Version::V5).open(&broker);
    for (name, payload) in [("a", "old"), ("a", "new"), ("b", "gone"), ("b", "")] {
        let message = Publish::new(&format!("{topic}/{name}"), payload).qos(1, 0).retained();
        publisher.deliver(&message.with(&[Property::user("k", "v"), Property::MessageExpiry(1000)]));
    }
    publisher.leave();
    broker.restart();
    for version in BOTH {
        let mut reader = connect(&broker, version).open(&broker);
        reader.subscribe(&format!("{topic}/#"), 1);
        let got = reader.hear(&format!("{topic}/a"), "new", 1);
        assert!(got.retain);
        if version == Version::V5 {
            assert!(got.properties.contains(&Property::user("k", "v")), "{got:?}");
            let left =
                got.properties.iter().any(|property| matches!(property, Property::MessageExpiry(900..=1000)));
            assert!(left, "{got:?}");
        }
        reader.quiet();
    }
}

/// Sessions survive: subscriptions with their options, queued messages, and what was under way, with its identifiers.
/// - 5.0: [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5]
///   [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-4.5.0-1]
/// - 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-4.1.0-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1]
///   [MQTT-4.5.0-1]
#[test]
fn sessions_survive() {
    let Some(mut broker) = Broker::alone() else { return };
    for version in BOTH {
        let topic = unique("session");
        let session = connect(&broker, version).persistent();
        let mut reader = session.open(&broker);
        let properties: &[Property] =
            if version == Version::V5 { &[Property::SubscriptionId(9)] } else { &[] };
        assert_eq!(reader.try_subscribe(&topic, 2, properties), 2);
        let mut publisher = connect(&broker, version).open(&broker);
        for (text, qos) in [("1", 1), ("2", 2), ("3", 2), ("4", 1)] {
            publisher.say(&topic, text, qos);
        }
        let first: Vec<Publish> = (0..4).map(|_| reader.publish()).collect();
        reader.send(&wire::ack(PUBREC, first[2].id));
        assert_eq!(reader.ack(PUBREL, first[2].id), 0);
        reader.send(&wire::ack(PUBACK, first[3].id));
        reader.quiet();
        reader.vanish();
        publisher.say(&topic, "5", 1);
        publisher.leave();
        broker.restart();
        let (mut reader, connack) = session.open_with(&broker);
        assert!(connack.session_present);
        let mut again = Vec::new();
        let mut released = false;
        while again.len() < 3 || !released {
            match reader.next() {
                Packet::Publish(publish) => again.push(publish),
                Packet::Ack { kind: PUBREL, id, .. } if id == first[2].id => released = true,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(again[0], Publish { dup: true, ..first[0].clone() });
        assert_eq!(again[1], Publish { dup: true, ..first[1].clone() });
        assert_eq!((again[2].text(), again[2].qos, again[2].dup), ("5", 1, false));
        assert_eq!(again[2].properties, properties);
        reader.send(&wire::ack(PUBCOMP, first[2].id));
        again.iter().for_each(|message| reader.accept(message));
        reader.quiet();
        let mut publisher = connect(&broker, version).open(&broker);
        publisher.say(&topic, "live", 2);
        assert_eq!(reader.hear(&topic, "live", 2).properties, properties);
        reader.leave();
    }
}

/// An exchange of QoS 2 that a client has begun is known after a restart: no message comes twice.
/// - 5.0: [MQTT-4.3.3-10] [MQTT-4.1.0-1] [MQTT-4.4.0-1]
/// - 3.1.1: [MQTT-4.3.3-2] [MQTT-4.1.0-1] [MQTT-4.4.0-1]
#[test]
fn begun_exchanges_survive() {
    let Some(mut broker) = Broker::alone() else { return };
    for version in BOTH {
        let topic = unique("begun");
        let subscriber = connect(&broker, version).persistent();
        let mut reader = subscriber.open(&broker);
        reader.subscribe(&topic, 2);
        let session = connect(&broker, version).persistent();
        let mut publisher = session.open(&broker);
        publisher.send(&Publish::new(&topic, "once").qos(2, 12).bytes(version));
        publisher.ack(PUBREC, 12);
        publisher.vanish();
        reader.vanish();
        broker.restart();
        let mut publisher = session.open(&broker);
        publisher.send(&Publish { dup: true, ..Publish::new(&topic, "once").qos(2, 12) }.bytes(version));
        publisher.ack(PUBREC, 12);
        publisher.send(&wire::ack(PUBREL, 12));
        assert_eq!(publisher.ack(PUBCOMP, 12), 0);
        let mut reader = subscriber.open(&broker);
        let message = reader.publish();
        assert_eq!(message.text(), "once");
        reader.accept(&message);
        reader.quiet();
        reader.leave();
    }
}

/// A session that is not to be kept is not there after a restart, and one that was given up neither.
/// - 5.0: [MQTT-4.1.0-2] [MQTT-3.1.2-4]
/// - 3.1.1: [MQTT-3.1.2-6] [MQTT-3.2.2-3]
#[test]
fn ended_sessions_stay_ended() {
    let Some(mut broker) = Broker::alone() else { return };
    for version in BOTH {
        let topic = unique("ended");
        let clean = connect(&broker, version);
        let mut client = clean.open(&broker);
        client.subscribe(&topic, 1);
        let kept = connect(&broker, version).persistent();
        let mut given_up = kept.open(&broker);
        given_up.subscribe(&topic, 1);
        given_up.leave();
        connect(&broker, version).id(&kept.id).open(&broker).leave();
        broker.restart();
        for id in [&clean.id, &kept.id] {
            let (mut client, connack) = connect(&broker, version).id(id).persistent().open_with(&broker);
            assert!(!connack.session_present, "{id}");
            client.quiet();
        }
    }
}
