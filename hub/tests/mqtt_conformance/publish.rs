//! PUBLISH both ways: acknowledgements, flags, properties, aliases, expiry (sections 2.2.1, 3.3 to 3.7, 4.3).

use std::time::{Duration, Instant};

use super::broker::Broker;
use super::client::{Client, connect, each_ends_the_connection, under_both, unique, with_login};
use super::wire::{self, Bytes, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Property, Publish, Version};

/// What a message may carry that the server must not touch.
pub(crate) fn every_property() -> Vec<Property> {
    vec![
        Property::PayloadFormat(1),
        Property::ContentType("text/plain; charset=utf-8".into()),
        Property::ResponseTopic("answers/über/hier".into()),
        Property::CorrelationData((0..=255).collect()),
        Property::user("z", "1"),
        Property::user("a", ""),
        Property::user("", "nameless"),
        Property::user("z", "1"),
        Property::user("m", "😀"),
    ]
}

/// The answer is that of the message's QoS, for its identifier; PUBREL is answered with PUBCOMP.
/// - 5.0: [MQTT-2.2.1-5] [MQTT-3.3.4-1] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.7.2-1] [MQTT-4.3.2-4]
///   [MQTT-4.3.3-8] [MQTT-4.3.3-11]
/// - 3.1.1: [MQTT-2.3.1-6] [MQTT-3.3.4-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-qos1]
#[test]
fn a_message_is_answered_by_its_qos() {
    under_both(|broker, version| {
        let topic = unique("qos");
        let mut client = connect(broker, version).open(broker);
        client.send(&Publish::new(&topic, "0").bytes(version));
        client.quiet();
        for id in [1, 256, 65_535] {
            client.send(&Publish::new(&topic, "1").qos(1, id).bytes(version));
            assert!(matches!(client.ack(PUBACK, id), 0x00 | 0x10));
            client.send(&Publish::new(&topic, "2").qos(2, id).bytes(version));
            assert!(matches!(client.ack(PUBREC, id), 0x00 | 0x10));
            client.send(&wire::ack(PUBREL, id));
            assert_eq!(client.ack(PUBCOMP, id), 0);
        }
    });
}

/// A message of each QoS arrives as it was, first of all without DUP; QoS 0 has no packet identifier.
/// - 5.0: [MQTT-2.2.1-2] [MQTT-2.2.1-4] [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.2-2]
///   [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-3.6.2-1]
/// - 3.1.1: [MQTT-2.3.1-4] [MQTT-2.3.1-5] [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-qos0] [tck-id-conformance-mqtt-qos1]
#[test]
fn a_message_arrives_as_it_was() {
    under_both(|broker, version| {
        let topic = unique("arrives");
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 2);
        let mut publisher = connect(broker, version).open(broker);
        let payloads: [&[u8]; 4] = [b"", b"\0\xff\x80 not text", b"text", &[0x5a; 70_000]];
        for qos in 0..=2 {
            for payload in payloads {
                let message = Publish { payload: payload.to_vec(), qos, ..Publish::new(&topic, "") };
                publisher.deliver(&message);
                let got = reader.publish();
                assert_eq!(Publish { id: 0, ..got.clone() }, message);
                reader.accept(&got);
            }
        }
    });
}

/// The identifier of a message of QoS 1 or 2, of SUBSCRIBE and of UNSUBSCRIBE is not 0.
/// - 5.0: [MQTT-2.2.1-3] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-2.3.1-1] [MQTT-4.8.0-1]
#[test]
fn packet_identifier_zero_is_an_error() {
    under_both(|broker, version| {
        let wrong = [
            Publish::new("zero", "x").qos(1, 0).bytes(version),
            Publish::new("zero", "x").qos(2, 0).bytes(version),
            wire::subscribe(version, 0, &[], &[("zero", 0)]),
            wire::unsubscribe(version, 0, &["zero"]),
        ];
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82]);
    });
}

/// QoS 3 does not exist, and QoS 0 is never a duplicate.
/// - 5.0: [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-4.8.0-1]
#[test]
fn impossible_flags_are_an_error() {
    under_both(|broker, version| {
        let dup = Publish { dup: true, ..Publish::new("flags", "x") };
        let mut wrong = vec![Publish::new("flags", "x").qos(3, 1).bytes(version)];
        if !broker.is_mosquitto_which("takes DUP with QoS 0 under 3.1.1") {
            wrong.push(dup.bytes(version));
        }
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82]);
    });
}

/// DUP says something about one connection only. After PUBACK the identifier is free, whatever DUP says.
/// - 5.0: [MQTT-3.3.1-3] [MQTT-4.3.2-5]
/// - 3.1.1: [MQTT-3.3.1-3] [MQTT-4.3.2-2]
#[test]
fn dup_is_not_passed_on() {
    under_both(|broker, version| {
        let topic = unique("dup");
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 1);
        let mut publisher = connect(broker, version).open(broker);
        for payload in ["one", "two"] {
            let message = Publish { dup: true, ..Publish::new(&topic, payload).qos(1, 77) };
            publisher.send(&message.bytes(version));
            publisher.ack(PUBACK, 77);
            assert!(!reader.hear(&topic, payload, 1).dup);
        }
        reader.quiet();
    });
}

/// Until PUBREL, a message of QoS 2 with the same identifier is the same message; after PUBCOMP it is a new one.
/// - 5.0: [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]
/// - 3.1.1: [MQTT-4.3.3-2]
#[test]
fn qos_2_arrives_once() {
    under_both(|broker, version| {
        let topic = unique("once");
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 2);
        let mut publisher = connect(broker, version).open(broker);
        let message = Publish::new(&topic, "once").qos(2, 5);
        let again = Publish { dup: true, ..message.clone() };
        publisher.send(&message.bytes(version));
        publisher.ack(PUBREC, 5);
        let times =
            if broker.is_mosquitto_which("closes at the second repetition under 5.0") { 1 } else { 3 };
        for _ in 0..times {
            publisher.send(&again.bytes(version));
            publisher.ack(PUBREC, 5);
        }
        for _ in 0..2 {
            publisher.send(&wire::ack(PUBREL, 5));
            let code = publisher.ack(PUBCOMP, 5);
            assert!(matches!(code, 0 | 0x92), "{code:#04x}");
        }
        reader.hear(&topic, "once", 2);
        reader.quiet();
        publisher.send(&again.bytes(version));
        publisher.ack(PUBREC, 5);
        publisher.send(&wire::ack(PUBREL, 5));
        publisher.ack(PUBCOMP, 5);
        reader.hear(&topic, "once", 2);
        reader.quiet();
    });
}

/// PUBREL for what the server has never seen is answered all the same; MQTT 5.0 says so with a code.
/// - 5.0: [MQTT-4.3.3-11] [MQTT-3.7.2-1]
/// - 3.1.1: [MQTT-4.3.3-2]
#[test]
fn an_unknown_release_is_answered() {
    under_both(|broker, version| {
        let mut client = connect(broker, version).open(broker);
        client.send(&wire::ack(PUBREL, 999));
        let code = client.ack(PUBCOMP, 999);
        match version {
            Version::V3 => assert_eq!(code, 0),
            Version::V5 if broker.is_mosquitto_which("finds nothing wrong with it") => {}
            Version::V5 => assert_eq!(code, 0x92),
        }
        client.quiet();
    });
}

/// A message goes out with the lower of its own QoS and the subscription's.
/// - 5.0: [MQTT-3.8.4-8]
/// - 3.1.1: [MQTT-3.8.4-6]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-qos0] [tck-id-conformance-mqtt-qos1]
#[test]
fn the_lower_qos_counts() {
    under_both(|broker, version| {
        let mut publisher = connect(broker, version).open(broker);
        let mut reader = connect(broker, version).open(broker);
        for granted in 0..=2 {
            let topic = unique("lower");
            reader.subscribe(&topic, granted);
            for qos in 0..=2 {
                publisher.say(&topic, "x", qos);
                reader.hear(&topic, "x", qos.min(granted));
            }
        }
    });
}

/// Properties arrive as they were, user properties in their order, nothing is added; QoS makes no difference.
/// - 5.0: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn properties_arrive_as_they_were() {
    let broker = Broker::shared();
    let topic = unique("properties");
    let properties = every_property();
    let mut reader = connect(broker, Version::V5).open(broker);
    reader.subscribe(&topic, 2);
    let mut publisher = connect(broker, Version::V5).open(broker);
    for qos in 0..=2 {
        publisher.deliver(&Publish::new(&topic, "text").qos(qos, 0).with(&properties));
        let got = reader.hear(&topic, "text", qos).properties;
        assert_eq!(super::will::sorted(&got), super::will::sorted(&properties));
        assert_eq!(super::will::users(&got), super::will::users(&properties));
        publisher.deliver(&Publish::new(&topic, "bytes").qos(qos, 0).with(&[Property::PayloadFormat(0)]));
        let got = reader.hear(&topic, "bytes", qos).properties;
        assert!(got.is_empty() || got == [Property::PayloadFormat(0)], "{got:?}");
    }
    // A reader of the other version gets the bare message, and the other way round.
    let mut old = connect(broker, Version::V3).open(broker);
    old.subscribe(&topic, 1);
    publisher.deliver(&Publish::new(&topic, "both").qos(1, 0).with(&properties));
    old.hear(&topic, "both", 1);
    reader.hear(&topic, "both", 1);
    old.deliver(&Publish::new(&topic, "from 3.1.1").qos(1, 0));
    assert_eq!(reader.hear(&topic, "from 3.1.1", 1).properties, []);
}

/// Response topic and content type are texts, and a response topic is a topic.
/// - 5.0: [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19] [MQTT-1.5.7-1] [MQTT-4.13.1-1]
#[test]
fn texts_of_a_message_are_texts() {
    let broker = Broker::shared();
    let raw = |identifier: u8, value: &[u8]| {
        let property = Bytes::default().byte(identifier).raw(value).0;
        let body = Bytes::default().sized("texts").variable(property.len()).raw(&property).raw(b"x");
        body.packet(wire::PUBLISH << 4)
    };
    let sized = |bytes: &[u8]| Bytes::default().sized(bytes).0;
    let mut wrong = vec![
        raw(0x08, &sized(b"a/\xff")),
        raw(0x03, &sized(b"a\xc3")),
        raw(0x03, &sized(b"a\0")),
        raw(0x26, &Bytes::default().sized("a").sized(b"\xed\xbf\xbf").0),
        raw(0x02, &[0, 0]),
        raw(0x11, &[0, 0, 0, 1]),
        raw(0x7e, &[0]),
    ];
    if !broker.is_mosquitto_which("passes any response topic on") {
        wrong.extend([raw(0x08, &sized(b"answers/#")), raw(0x08, &sized(b"answers/+/x"))]);
    }
    let twice = [Property::MessageExpiry(1), Property::MessageExpiry(1)];
    wrong.push(Publish::new("texts", "x").with(&twice).bytes(Version::V5));
    each_ends_the_connection(broker, Version::V5, &wrong, &[0x81, 0x82, 0x90]);
}

/// A client does not send subscription identifiers.
/// - 5.0: [MQTT-3.3.4-6] [MQTT-4.13.1-1]
#[test]
fn a_client_sends_no_subscription_identifier() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("takes them") {
        return;
    }
    let wrong = Publish::new("ids", "x").with(&[Property::SubscriptionId(1)]).bytes(Version::V5);
    each_ends_the_connection(broker, Version::V5, &[wrong], &[0x82, 0x81]);
}

/// A topic name has no wildcards, is a text, and not empty.
/// - 5.0: [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-1.5.4-1]
///   [MQTT-1.5.4-2]
/// - 3.1.1: [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-1.5.3-1]
///   [MQTT-1.5.3-2]
#[test]
fn a_topic_name_is_one() {
    under_both(|broker, version| {
        let wrong: [&[u8]; 8] = [b"a/+/b", b"a/#", b"#", b"+", b"", b"a\0b", b"a/\xff/b", b"\xed\xa0\x80"];
        let wrong = wrong.map(|topic| {
            let body = Bytes::default().sized(topic);
            let body = if version == Version::V5 { body.properties(&[]) } else { body };
            body.raw(b"x").packet(wire::PUBLISH << 4)
        });
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82, 0x90]);
    });
}

/// What the server says it takes as topic aliases.
fn alias_maximum(connack: &wire::Connack) -> u16 {
    let maximum = connack.find(|property| match property {
        Property::TopicAliasMaximum(maximum) => Some(*maximum),
        _ => None,
    });
    maximum.unwrap_or(0)
}

/// All aliases up to the announced maximum work, can be set anew, and end with the connection.
/// - 5.0: [MQTT-3.3.2-7] [MQTT-3.3.2-12]
#[test]
fn aliases_of_a_client() {
    let broker = Broker::shared();
    let topic = unique("alias");
    let mut reader = connect(broker, Version::V5).open(broker);
    reader.subscribe(&format!("{topic}/+"), 1);
    let session = connect(broker, Version::V5).persistent();
    let (mut publisher, connack) = session.open_with(broker);
    let maximum = alias_maximum(&connack);
    assert!(maximum > 0, "no topic aliases for clients");
    let mut say = |publisher: &mut Client, topic: &str, payload: &str, alias: u16| {
        publisher.deliver(&Publish::new(topic, payload).qos(1, 0).with(&[Property::TopicAlias(alias)]));
        reader.publish()
    };
    let (a, b) = (format!("{topic}/a"), format!("{topic}/b"));
    for (name, payload, alias, arrives) in [
        (a.as_str(), "sets 1", 1, &a),
        ("", "uses 1", 1, &a),
        (&b, "sets the highest", maximum, &b),
        ("", "uses the highest", maximum, &b),
        ("", "uses 1 again", 1, if maximum > 1 { &a } else { &b }),
        (&b, "sets 1 anew", 1, &b),
        ("", "uses the new 1", 1, &b),
    ] {
        let got = say(&mut publisher, name, payload, alias);
        assert_eq!((got.topic.as_str(), got.text()), (arrives.as_str(), payload));
        assert_eq!(got.properties, [], "an alias is nobody else's");
    }
    publisher.vanish();
    let (mut publisher, connack) = session.open_with(broker);
    assert!(connack.session_present);
    publisher.send(&Publish::new("", "x").with(&[Property::TopicAlias(1)]).bytes(Version::V5));
    publisher.closed(&[0x82]);
}

/// Alias 0, one above the maximum, and one that was never set are errors, each with its code.
/// - 5.0: [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-4.13.1-1]
#[test]
fn wrong_aliases_are_errors() {
    let broker = Broker::shared();
    let (_, connack) = connect(broker, Version::V5).open_with(broker);
    let above = alias_maximum(&connack).checked_add(1);
    let named = Publish::new("alias/wrong", "x");
    let mut cases = vec![
        (named.clone().with(&[Property::TopicAlias(0)]), 0x94),
        (Publish::new("", "x").with(&[Property::TopicAlias(1)]), 0x82),
        (named.clone().with(&[Property::TopicAlias(1), Property::TopicAlias(1)]), 0x82),
    ];
    cases.extend(above.map(|above| (named.with(&[Property::TopicAlias(above)]), 0x94)));
    for (publish, code) in cases {
        let mut client = connect(broker, Version::V5).open(broker);
        client.send(&publish.bytes(Version::V5));
        client.closed(&[code, 0x81]);
    }
}

/// The server uses no alias above the client's maximum, and none at all where there is no maximum.
/// - 5.0: [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[test]
fn aliases_of_the_server() {
    let broker = Broker::shared();
    let topic = unique("alias-with-a-name-that-is-long-enough-to-be-worth-it");
    let mut readers: Vec<(u16, Client)> = Vec::new();
    for maximum in [None, Some(0), Some(2)] {
        let connect = connect(broker, Version::V5);
        let connect =
            maximum.into_iter().fold(connect, |c, m| c.with_property(Property::TopicAliasMaximum(m)));
        let mut reader = connect.open(broker);
        reader.subscribe(&format!("{topic}/+"), 0);
        readers.push((maximum.unwrap_or(0), reader));
    }
    let mut publisher = connect(broker, Version::V5).open(broker);
    for round in 0..4 {
        for name in ["a", "b", "c", "a"] {
            publisher.say(&format!("{topic}/{name}"), &format!("{round}"), 0);
        }
    }
    for (maximum, mut reader) in readers {
        for round in 0..4 {
            for name in ["a", "b", "c", "a"] {
                reader.hear(&format!("{topic}/{name}"), &format!("{round}"), 0);
            }
        }
        assert!(reader.highest_alias() <= maximum);
        assert!(maximum > 0 || reader.aliased == 0);
        if broker.is_ours() && maximum > 0 {
            assert!(reader.aliased > 0, "the server makes no use of aliases");
        }
    }
}

/// A message that waits longer than its expiry interval is not delivered; another says how much is left of it.
/// - 5.0: [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn messages_expire() {
    let broker = Broker::shared();
    let topic = unique("expiry");
    let (kept, lost) = (format!("{topic}/kept"), format!("{topic}/lost"));
    let session = connect(broker, Version::V5).persistent();
    let mut reader = session.open(broker);
    reader.subscribe(&format!("{topic}/queued"), 1);
    let mut publisher = connect(broker, Version::V5).open(broker);
    let expiring = |seconds| [Property::MessageExpiry(seconds)];
    // At once: all of it is left.
    publisher.deliver(&Publish::new(&format!("{topic}/queued"), "now").qos(1, 0).with(&expiring(100)));
    let left = reader.hear(&format!("{topic}/queued"), "now", 1).properties;
    assert!(matches!(left[..], [Property::MessageExpiry(99..=100)]), "{left:?}");
    reader.vanish();
    let start = Instant::now();
    for (text, seconds) in [("lost", 1), ("kept", 100)] {
        publisher.deliver(&Publish::new(&format!("{topic}/queued"), text).qos(1, 0).with(&expiring(seconds)));
    }
    publisher.deliver(&Publish::new(&lost, "lost").qos(1, 0).retained().with(&expiring(1)));
    publisher.deliver(&Publish::new(&kept, "kept").qos(1, 0).retained().with(&expiring(100)));
    publisher.deliver(&Publish::new(&format!("{topic}/queued"), "for ever").qos(1, 0));
    std::thread::sleep(Duration::from_millis(2_200));
    let mut reader = session.open(broker);
    let left = reader.hear(&format!("{topic}/queued"), "kept", 1).properties;
    let waited = u32::try_from(start.elapsed().as_secs()).unwrap();
    let is_left = |left: &[Property]| matches!(left, [Property::MessageExpiry(s)] if (100 - waited - 1..=98).contains(s));
    assert!(is_left(&left), "{left:?}");
    assert_eq!(reader.hear(&format!("{topic}/queued"), "for ever", 1).properties, []);
    reader.quiet();
    let mut late = connect(broker, Version::V5).open(broker);
    late.subscribe(&lost, 1);
    late.quiet();
    late.subscribe(&kept, 1);
    let left = late.hear(&kept, "kept", 1).properties;
    assert!(is_left(&left), "{left:?}");
}

/// What was sent once does not expire any more; nor does an exchange of QoS 2 that a client has begun.
/// - 5.0: [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn what_was_sent_does_not_expire() {
    let broker = Broker::shared();
    let topic = unique("sent");
    let session = connect(broker, Version::V5).persistent();
    let mut reader = session.open(broker);
    reader.subscribe(&topic, 2);
    let mut publisher = connect(broker, Version::V5).open(broker);
    let expiring = [Property::MessageExpiry(1)];
    publisher.send(&Publish::new(&topic, "sent").qos(2, 3).with(&expiring).bytes(Version::V5));
    publisher.ack(PUBREC, 3);
    let mut begun = connect(broker, Version::V5).open(broker);
    begun.send(&Publish::new(&unique("begun"), "x").qos(2, 4).with(&expiring).bytes(Version::V5));
    begun.ack(PUBREC, 4);
    let sent_early = !broker.is_mosquitto_which("sends a message of QoS 2 after its PUBREL");
    let first = sent_early.then(|| reader.publish());
    if sent_early {
        reader.vanish();
        std::thread::sleep(Duration::from_millis(2_200));
    }
    publisher.send(&wire::ack(PUBREL, 3));
    assert_eq!(publisher.ack(PUBCOMP, 3), 0);
    begun.send(&wire::ack(PUBREL, 4));
    assert_eq!(begun.ack(PUBCOMP, 4), 0);
    let Some(first) = first else { return };
    let again = session.open(broker).publish();
    assert_eq!((again.text(), again.id, again.dup), ("sent", first.id, true));
}

/// Who may not publish is told under MQTT 5.0; under 3.1.1 it is acknowledged or cut off. Nobody gets the message. The
/// identifier is free again.
/// - 5.0: [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-4.3.3-9] [MQTT-3.3.4-1]
/// - 3.1.1: [MQTT-3.3.5-2]
#[test]
fn a_forbidden_message_goes_nowhere() {
    let Some(broker) = Broker::alone() else { return };
    for version in wire::BOTH {
        let topic = unique("open/forbidden");
        let mut witness = connect(&broker, version).open(&broker);
        witness.subscribe(&topic, 2);
        let reader = with_login(&broker.reader(), version);
        let mut client = reader.open(&broker);
        for (qos, kind) in [(1, PUBACK), (2, PUBREC), (2, PUBREC)] {
            client.send(&Publish::new(&topic, "x").qos(qos, 8).bytes(version));
            match (version, client.next_or_end("an answer")) {
                (Version::V5, Some(Packet::Ack { kind: k, id: 8, code: 0x87, .. })) if k == kind => {}
                (Version::V3, Some(Packet::Ack { kind: k, id: 8, .. })) if k == kind => {
                    if qos == 2 {
                        client.send(&wire::ack(PUBREL, 8));
                        client.ack(PUBCOMP, 8);
                    }
                }
                (Version::V3, None) => client = reader.open(&broker),
                other => panic!("{other:?}"),
            }
        }
        // QoS 0 has no answer: it is dropped, or the client is thrown out for it.
        client.send(&Publish::new(&topic, "x").bytes(version));
        client.send(&wire::pingreq());
        match client.next_or_end("an answer") {
            Some(Packet::Pingresp | Packet::Disconnect { code: 0x87, .. }) => {}
            None if version == Version::V3 => {}
            other => panic!("{other:?}"),
        }
        witness.quiet();
    }
}
