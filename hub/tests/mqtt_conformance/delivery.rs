//! Delivery: flow control, what is sent again and what not, order (sections 4.3, 4.4, 4.6, 4.9).

use super::broker::Broker;
use super::client::{connect, under_both, unique};
use super::wire::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Property, Publish, Version};

/// No more messages of QoS 1 and 2 are under way than the client's receive maximum; everything else goes on. Each
/// acknowledgement, and each refusal, lets one more through.
/// - 5.0: [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-2.2.1-4]
#[test]
fn the_receive_maximum_is_kept() {
    let broker = Broker::shared();
    let topic = unique("flow");
    let connect_reader = connect(broker, Version::V5).with_property(Property::ReceiveMaximum(2));
    let mut reader = connect_reader.open(broker);
    reader.subscribe(&topic, 2);
    let mut publisher = connect(broker, Version::V5).open(broker);
    for (text, qos) in [("1", 1), ("2", 2), ("3", 1), ("4", 2), ("5", 1), ("6", 2)] {
        publisher.say(&topic, text, qos);
    }
    let (one, two) = (reader.publish(), reader.publish());
    assert_eq!([(one.text(), one.qos), (two.text(), two.qos)], [("1", 1), ("2", 2)]);
    assert_ne!(one.id, two.id);
    reader.quiet();
    // QoS 0 and other packets do not wait.
    publisher.say(&topic, "of QoS 0", 0);
    reader.hear(&topic, "of QoS 0", 0);
    assert_eq!(reader.try_subscribe(&unique("other"), 1, &[]), 1);
    let id = reader.new_id();
    reader.send(&Publish::new(&unique("out"), "x").qos(1, id).bytes(Version::V5));
    reader.ack(PUBACK, id);
    reader.send(&wire::ack(PUBACK, one.id));
    let three = reader.publish();
    assert_eq!(three.text(), "3");
    if broker.is_mosquitto_which("sends one more from here on") {
        return;
    }
    reader.quiet();
    reader.send(&wire::ack(PUBREC, two.id));
    assert_eq!(reader.ack(PUBREL, two.id), 0);
    reader.quiet();
    reader.send(&wire::ack(PUBCOMP, two.id));
    let four = reader.publish();
    assert_eq!(four.text(), "4");
    reader.quiet();
    reader.send(&wire::ack_with(PUBREC, four.id, 0x80));
    let five = reader.publish();
    assert_eq!(five.text(), "5");
    reader.quiet();
    reader.send(&wire::ack_with(PUBACK, five.id, 0x80));
    assert_eq!(reader.publish().text(), "6");
    reader.quiet();
}

/// What was not acknowledged comes again after a reconnect: same identifiers, same order, with DUP; an exchange that is
/// past PUBREC goes on with PUBREL. On a connection nothing comes twice.
/// - 5.0: [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
///   [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-3.6.2-1]
/// - 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-2.3.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1]
#[test]
fn unacknowledged_messages_come_again() {
    under_both(|broker, version| {
        let topic = unique("again");
        let session = connect(broker, version).persistent();
        let mut reader = session.open(broker);
        reader.subscribe(&topic, 2);
        let mut publisher = connect(broker, version).open(broker);
        for (text, qos) in [("1", 1), ("2", 2), ("3", 2), ("4", 1), ("5", 1)] {
            publisher.say(&topic, text, qos);
        }
        let first: Vec<Publish> = (0..5).map(|_| reader.publish()).collect();
        assert!(first.iter().all(|message| !message.dup));
        reader.send(&wire::ack(PUBREC, first[2].id));
        assert_eq!(reader.ack(PUBREL, first[2].id), 0);
        reader.send(&wire::ack(PUBACK, first[4].id));
        reader.quiet();
        reader.vanish();
        for round in 0..2 {
            let mut reader = session.open(broker);
            let mut released = 0;
            let mut again = Vec::new();
            while again.len() < 3 || released < 1 {
                match reader.next() {
                    Packet::Publish(publish) => again.push(publish),
                    Packet::Ack { kind: PUBREL, id, code: 0, .. } if id == first[2].id => released += 1,
                    other => panic!("{other:?}"),
                }
            }
            reader.quiet();
            let expected = [&first[0], &first[1], &first[3]];
            for (got, want) in again.iter().zip(expected) {
                assert_eq!(*got, Publish { dup: true, ..want.clone() });
            }
            if round == 1 {
                // Now to the end.
                reader.send(&wire::ack(PUBCOMP, first[2].id));
                for message in &again {
                    reader.accept(message);
                }
                reader.quiet();
            }
            reader.vanish();
        }
        session.open(broker).quiet();
    });
}

/// A refusal is an acknowledgement: the message does not come again.
/// - 5.0: [MQTT-4.4.0-2] [MQTT-4.3.3-4]
#[test]
fn a_refused_message_does_not_come_again() {
    let broker = Broker::shared();
    let topic = unique("refusal");
    let session = connect(broker, Version::V5).persistent();
    let mut reader = session.open(broker);
    reader.subscribe(&topic, 2);
    let mut publisher = connect(broker, Version::V5).open(broker);
    publisher.say(&topic, "1", 1);
    publisher.say(&topic, "2", 2);
    let (one, two) = (reader.publish(), reader.publish());
    reader.send(&wire::ack_with(PUBACK, one.id, 0x83));
    reader.send(&wire::ack_with(PUBREC, two.id, 0x97));
    reader.quiet();
    reader.vanish();
    let (mut reader, connack) = session.open_with(broker);
    assert!(connack.session_present);
    reader.quiet();
}

/// An exchange of QoS 2 that a client has begun goes on after it was away: the message is not taken for a new one.
/// - 5.0: [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-4.4.0-1] [MQTT-4.1.0-1]
/// - 3.1.1: [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-4.1.0-1]
#[test]
fn a_begun_exchange_goes_on() {
    under_both(|broker, version| {
        let topic = unique("begun");
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 2);
        let session = connect(broker, version).persistent();
        let mut publisher = session.open(broker);
        let message = Publish::new(&topic, "once").qos(2, 12);
        publisher.send(&message.bytes(version));
        publisher.ack(PUBREC, 12);
        publisher.vanish();
        let mut publisher = session.open(broker);
        publisher.send(&Publish { dup: true, ..message.clone() }.bytes(version));
        publisher.ack(PUBREC, 12);
        publisher.vanish();
        let mut publisher = session.open(broker);
        for _ in 0..2 {
            publisher.send(&wire::ack(PUBREL, 12));
            publisher.ack(PUBCOMP, 12);
        }
        reader.hear(&topic, "once", 2);
        reader.quiet();
    });
}

/// Messages of one client on one topic arrive in their order, at each QoS; acknowledgements keep it too.
/// - 5.0: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// - 3.1.1: [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4] [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[test]
fn order_is_kept() {
    const COUNT: u16 = 300;
    under_both(|broker, version| {
        for qos in 0..=2 {
            let topic = unique("order");
            let mut reader = connect(broker, version).open(broker);
            reader.subscribe(&topic, qos);
            let mut publisher = connect(broker, version).open(broker);
            let (mut sent, mut answered, mut heard) = (0, 0, 0);
            // Twenty under way at a time: less than any receive maximum seen.
            while heard < COUNT {
                let mut batch = Vec::new();
                while sent < COUNT && sent < heard + 20 {
                    sent += 1;
                    batch.extend(Publish::new(&topic, &sent.to_string()).qos(qos, sent).bytes(version));
                }
                publisher.send(&batch);
                let batch = answered + 1..=sent;
                answered = sent;
                match qos {
                    0 => {}
                    1 => batch.for_each(|id| assert_eq!(publisher.ack(PUBACK, id) & 0x80, 0)),
                    _ => {
                        batch.clone().for_each(|id| assert_eq!(publisher.ack(PUBREC, id) & 0x80, 0));
                        batch.clone().for_each(|id| publisher.send(&wire::ack(PUBREL, id)));
                        batch.for_each(|id| assert_eq!(publisher.ack(PUBCOMP, id), 0));
                    }
                }
                let mut waiting = Vec::new();
                while heard < sent {
                    let message = reader.publish();
                    heard += 1;
                    assert_eq!(message.text(), heard.to_string());
                    waiting.push(message.id);
                }
                for id in &waiting {
                    match qos {
                        0 => {}
                        1 => reader.send(&wire::ack(PUBACK, *id)),
                        _ => reader.send(&wire::ack(PUBREC, *id)),
                    }
                }
                if qos == 2 {
                    for id in waiting {
                        reader.ack(PUBREL, id);
                        reader.send(&wire::ack(PUBCOMP, id));
                    }
                }
            }
        }
    });
}

/// Messages that waited for a session come in their order as well, and before newer ones.
/// - 5.0: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// - 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.2-5]
#[test]
fn order_is_kept_for_who_was_away() {
    const COUNT: usize = 90;
    under_both(|broker, version| {
        let topic = unique("order");
        let session = connect(broker, version).persistent();
        let mut reader = session.open(broker);
        reader.subscribe(&topic, 1);
        reader.vanish();
        let mut publisher = connect(broker, version).open(broker);
        for number in 0..COUNT {
            publisher.say(&topic, &number.to_string(), 1);
        }
        let mut reader = session.open(broker);
        publisher.say(&topic, &COUNT.to_string(), 1);
        for number in 0..=COUNT {
            reader.hear(&topic, &number.to_string(), 1);
        }
        reader.quiet();
    });
}
