//! SUBSCRIBE and UNSUBSCRIBE: answers, options, identifiers, overlapping and shared subscriptions (sections 3.8 to 3.11,
//! 3.3.4, 4.8).

use super::broker::Broker;
use super::client::{Client, connect, each_ends_the_connection, under_both, unique, with_login};
use super::wire::{self, Bytes, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Property, Publish, Version};

/// Subscription option: not what this client publishes itself.
const NO_LOCAL: u8 = 0x04;

/// One SUBACK for all filters: its identifier, a code for each, in their order.
/// - 5.0: [MQTT-2.2.1-6] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7]
///   [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// - 3.1.1: [MQTT-2.3.1-7] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1]
///   [MQTT-3.9.3-2]
#[test]
fn every_filter_has_its_code() {
    under_both(|broker, version| {
        let topic = unique("codes");
        let names: Vec<String> = (0..6).map(|number| format!("{topic}/{number}")).collect();
        let filters: Vec<(&str, u8)> = names.iter().map(String::as_str).zip([2, 0, 1, 1, 0, 2]).collect();
        let mut client = connect(broker, version).open(broker);
        for id in [1, 65_535] {
            client.send(&wire::subscribe(version, id, &[], &filters));
            match client.next() {
                Packet::Suback { id: got, codes, .. } => {
                    assert_eq!((got, codes), (id, vec![2, 0, 1, 1, 0, 2]))
                }
                other => panic!("{other:?}"),
            }
        }
        let mut publisher = connect(broker, version).open(broker);
        for (name, granted) in &filters {
            publisher.say(name, "x", 2);
            client.hear(name, "x", *granted);
        }
    });
}

/// What a client may not read is refused with a code; the other filters of the packet are granted.
/// - 5.0: [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// - 3.1.1: [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
#[test]
fn a_refused_filter_has_its_code() {
    let Some(broker) = Broker::alone() else { return };
    for version in wire::BOTH {
        let mut client = with_login(&broker.reader(), version).open(&broker);
        client.send(&wire::subscribe(version, 5, &[], &[("closed/x", 1), ("open/x", 1)]));
        let Packet::Suback { id: 5, codes, .. } = client.next() else { panic!("no SUBACK") };
        if !broker.is_mosquitto_which("grants what it will not deliver") {
            assert_eq!(codes, [if version == Version::V3 { 0x80 } else { 0x87 }, 1]);
        }
        let mut publisher = connect(&broker, version).open(&broker);
        publisher.say("closed/x", "secret", 1);
        publisher.say("open/x", "news", 1);
        client.hear("open/x", "news", 1);
        client.quiet();
    }
}

/// SUBSCRIBE and UNSUBSCRIBE without a filter, with one that is no text, or cut off.
/// - 5.0: [MQTT-3.8.3-1] [MQTT-3.8.3-2] [MQTT-3.10.3-1] [MQTT-3.10.3-2] [MQTT-1.5.4-1] [MQTT-1.5.4-2]
///   [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-3.8.3-1] [MQTT-3.8.3-3] [MQTT-3.10.3-1] [MQTT-3.10.3-2] [MQTT-1.5.3-1] [MQTT-1.5.3-2]
///   [MQTT-4.8.0-1]
#[test]
fn filters_are_texts_and_not_missing() {
    under_both(|broker, version| {
        let head = Bytes::default().two(9);
        let head = if version == Version::V5 { head.properties(&[]) } else { head };
        let mut wrong = Vec::new();
        for (kind, options) in [(wire::SUBSCRIBE, &[0_u8][..]), (wire::UNSUBSCRIBE, &[])] {
            let bodies = [
                head.clone(),
                head.clone().sized(b"a/\xff").raw(options),
                head.clone().sized(b"a\0b").raw(options),
                head.clone().sized(b"\xed\xa0\x80").raw(options),
                head.clone().two(5).raw(b"abc"),
                head.clone().sized("good").raw(options).byte(0),
            ];
            wrong.extend(bodies.map(|body| body.packet((kind << 4) | 2)));
        }
        wrong.push(head.clone().sized("no options").packet((wire::SUBSCRIBE << 4) | 2));
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82, 0x8f]);
    });
}

/// Reserved bits, QoS 3 and retain handling 3 in the options.
/// - 5.0: [MQTT-3.8.3-5] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-3.8.3-4] [MQTT-4.8.0-1]
#[test]
fn options_are_checked() {
    under_both(|broker, version| {
        let wrong: &[u8] = match version {
            Version::V5 => &[0x03, 0x40, 0x80, 0x30, 0xc1],
            Version::V3 => &[0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80],
        };
        let wrong: Vec<_> =
            wrong.iter().map(|options| wire::subscribe(version, 1, &[], &[("options", *options)])).collect();
        each_ends_the_connection(broker, version, &wrong, &[0x81, 0x82]);
    });
}

/// With "no local" a client does not hear itself; others do.
/// - 5.0: [MQTT-3.8.3-3]
#[test]
fn no_local() {
    let broker = Broker::shared();
    let topic = unique("local");
    let mut own = connect(broker, Version::V5).open(broker);
    let mut other = connect(broker, Version::V5).open(broker);
    assert_eq!(own.try_subscribe(&topic, 1 | NO_LOCAL, &[]), 1);
    other.subscribe(&topic, 1);
    for qos in 0..=2 {
        own.say(&topic, "own", qos);
        other.hear(&topic, "own", qos.min(1));
        own.quiet();
    }
    other.say(&topic, "other's", 1);
    own.hear(&topic, "other's", 1);
    other.hear(&topic, "other's", 1);
}

/// "No local" makes no sense for a shared subscription.
/// - 5.0: [MQTT-3.8.3-4] [MQTT-4.13.1-1]
#[test]
fn no_local_is_not_shared() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("grants it") {
        return;
    }
    let wrong = wire::subscribe(Version::V5, 1, &[], &[("$share/group/topic", NO_LOCAL)]);
    each_ends_the_connection(broker, Version::V5, &[wrong], &[0x82]);
}

/// A second subscription to a filter replaces the first: one message, by the new options.
/// - 5.0: [MQTT-3.8.4-3]
/// - 3.1.1: [MQTT-3.8.4-3]
#[test]
fn a_subscription_is_replaced() {
    under_both(|broker, version| {
        let topic = unique("replaced");
        let mut client = connect(broker, version).open(broker);
        let mut publisher = connect(broker, version).open(broker);
        for qos in [2, 0, 1] {
            client.subscribe(&topic, qos);
            publisher.say(&topic, "x", 2);
            client.hear(&topic, "x", qos);
            client.quiet();
        }
        if version == Version::V5 {
            assert_eq!(client.try_subscribe(&topic, 1, &[Property::SubscriptionId(4)]), 1);
            assert_eq!(client.try_subscribe(&topic, 1, &[Property::SubscriptionId(5)]), 1);
            publisher.say(&topic, "y", 1);
            assert_eq!(client.hear(&topic, "y", 1).properties, [Property::SubscriptionId(5)]);
        }
        assert_eq!(client.unsubscribe(&topic), 0);
        publisher.say(&topic, "z", 2);
        client.quiet();
    });
}

/// While a subscription is replaced no message is lost.
/// - 5.0: [MQTT-3.8.4-4]
/// - 3.1.1: [MQTT-3.8.4-3]
#[test]
fn replacing_loses_nothing() {
    under_both(|broker, version| {
        let topic = unique("nothing-lost");
        let mut client = connect(broker, version).open(broker);
        client.subscribe(&topic, 1);
        let mut publisher = connect(broker, version).open(broker);
        let mut bytes = Vec::new();
        for number in 1..=15 {
            bytes.extend(Publish::new(&topic, &number.to_string()).qos(1, number).bytes(version));
        }
        publisher.send(&bytes);
        let mut heard = 0;
        let mut granted = 0;
        for id in 100..105 {
            client.send(&wire::subscribe(version, id, &[], &[(&topic, 1)]));
        }
        while heard < 15 || granted < 5 {
            match client.next() {
                Packet::Suback { .. } => granted += 1,
                Packet::Publish(message) => {
                    heard += 1;
                    assert_eq!(message.text(), heard.to_string());
                    client.accept(&message);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Of overlapping subscriptions, the highest QoS counts.
/// - 5.0: [MQTT-3.3.4-2]
/// - 3.1.1: [MQTT-3.3.5-1]
#[test]
fn overlapping_subscriptions() {
    under_both(|broker, version| {
        let topic = unique("overlap");
        let name = format!("{topic}/a");
        let mut client = connect(broker, version).open(broker);
        for (filter, qos) in [(format!("{topic}/#"), 0), (name.clone(), 2), (format!("{topic}/+"), 1)] {
            client.subscribe(&filter, qos);
        }
        let mut publisher = connect(broker, version).open(broker);
        for qos in 0..=2 {
            publisher.say(&name, "x", qos);
            // One message for all, or one for each: both are allowed.
            let first = client.publish();
            client.accept(&first);
            let mut qualities = vec![first.qos];
            client.send(&wire::pingreq());
            loop {
                match client.next() {
                    Packet::Pingresp => break,
                    Packet::Publish(message) => {
                        qualities.push(message.qos);
                        client.accept(&message);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(qualities.contains(&qos) && qualities.len() <= 3, "{qualities:?}");
            assert!(
                !broker.is_ours() || qualities == [qos],
                "our choice is one message for all: {qualities:?}"
            );
        }
    });
}

/// A message carries the identifiers of the subscriptions that it came for, all of them, and no others.
/// - 5.0: [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]
#[test]
fn subscription_identifiers() {
    let broker = Broker::shared();
    let topic = unique("identifiers");
    let name = format!("{topic}/a");
    let mut client = connect(broker, Version::V5).open(broker);
    let highest = 268_435_455;
    assert_eq!(client.try_subscribe(&format!("{topic}/#"), 1, &[Property::SubscriptionId(1)]), 1);
    assert_eq!(client.try_subscribe(&name, 1, &[Property::SubscriptionId(highest)]), 1);
    client.subscribe(&format!("{topic}/+"), 1);
    client.subscribe(&unique("else"), 1);
    let mut publisher = connect(broker, Version::V5).open(broker);
    publisher.say(&name, "x", 1);
    let mut identifiers = Vec::new();
    for message in client.drain() {
        client.accept(&message);
        for property in message.properties {
            let Property::SubscriptionId(id) = property else { panic!("{property:?}") };
            identifiers.push(id);
        }
    }
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, highest]);
    publisher.say(&format!("{topic}/b/c"), "y", 1);
    assert_eq!(client.hear(&format!("{topic}/b/c"), "y", 1).properties, [Property::SubscriptionId(1)]);
    let wrong =
        [vec![Property::SubscriptionId(0)], vec![Property::SubscriptionId(1), Property::SubscriptionId(2)]];
    let wrong = wrong.map(|properties| wire::subscribe(Version::V5, 1, &properties, &[("x", 0)]));
    each_ends_the_connection(broker, Version::V5, &wrong, &[0x82, 0x81]);
}

/// UNSUBSCRIBE is answered by one UNSUBACK with its identifier, whether there was something to end or not; MQTT 5.0
/// adds a code for each filter, in their order.
/// - 5.0: [MQTT-2.2.1-6] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
/// - 3.1.1: [MQTT-2.3.1-7] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6]
#[test]
fn unsubscribe_is_answered() {
    under_both(|broker, version| {
        let topic = unique("unsubscribe");
        let (a, b) = (format!("{topic}/a"), format!("{topic}/b"));
        let mut client = connect(broker, version).open(broker);
        client.subscribe(&a, 1);
        client.subscribe(&b, 1);
        client.send(&wire::unsubscribe(version, 65_535, &[&a, "never/subscribed", &b, &a]));
        let Packet::Unsuback { id: 65_535, codes, .. } = client.next() else { panic!("no UNSUBACK") };
        let expected: &[u8] = if version == Version::V5 { &[0x00, 0x11, 0x00, 0x11] } else { &[] };
        assert_eq!(codes, expected);
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&a, "x", 1);
        publisher.say(&b, "x", 1);
        client.quiet();
        client.unsubscribe("never/subscribed");
    });
}

/// Only the same filter ends a subscription, character by character: not one that matches it, nor one that looks alike.
/// - 5.0: [MQTT-3.10.4-1] [MQTT-3.10.4-2]
/// - 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2]
#[test]
fn only_the_same_filter_is_unsubscribed() {
    under_both(|broker, version| {
        let topic = unique("same");
        let filter = format!("{topic}/+/a");
        let mut client = connect(broker, version).open(broker);
        client.subscribe(&filter, 1);
        let nothing = if version == Version::V5 { 0x11 } else { 0 };
        for other in
            [format!("{topic}/#"), format!("{topic}/x/a"), format!("{topic}/+/A"), format!("{topic}/+/a/")]
        {
            assert_eq!(client.unsubscribe(&other), nothing, "{other}");
        }
        let mut publisher = connect(broker, version).open(broker);
        let name = format!("{topic}/x/a");
        publisher.say(&name, "still there", 1);
        client.hear(&name, "still there", 1);
        assert_eq!(client.unsubscribe(&filter), 0);
        publisher.say(&name, "gone", 1);
        client.quiet();
    });
}

/// What the server has begun to send is brought to its end after UNSUBSCRIBE.
/// - 5.0: [MQTT-3.10.4-3]
/// - 3.1.1: [MQTT-3.10.4-3]
#[test]
fn begun_deliveries_survive_unsubscribe() {
    under_both(|broker, version| {
        let topic = unique("begun");
        let session = connect(broker, version).persistent();
        let mut client = session.open(broker);
        client.subscribe(&topic, 2);
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&topic, "1", 1);
        publisher.say(&topic, "2", 2);
        let (one, two) = (client.publish(), client.publish());
        assert_eq!(client.unsubscribe(&topic), 0);
        client.send(&wire::ack(PUBREC, two.id));
        assert_eq!(client.ack(PUBREL, two.id), 0);
        client.vanish();
        let mut client = session.open(broker);
        let mut seen = [client.next(), client.next()];
        seen.sort_by_key(|packet| matches!(packet, Packet::Ack { .. }));
        assert_eq!(seen[0], Packet::Publish(Publish { dup: true, ..one.clone() }));
        assert!(matches!(seen[1], Packet::Ack { kind: PUBREL, id, .. } if id == two.id));
        client.send(&wire::ack(PUBACK, one.id));
        client.send(&wire::ack(PUBCOMP, two.id));
        client.quiet();
    });
}

/// Receives what is there and acknowledges it; the texts.
fn texts(client: &mut Client) -> Vec<String> {
    let messages = client.drain();
    messages.iter().for_each(|message| client.accept(message));
    messages.iter().map(|message| message.text().to_owned()).collect()
}

/// A message goes to one member of each group, by the QoS granted to it; groups and plain subscriptions get their own.
/// - 5.0: [MQTT-4.8.2-1] [MQTT-4.8.2-3]
#[test]
fn shared_subscriptions() {
    let broker = Broker::shared();
    let topic = unique("shared");
    let mut members: Vec<Client> = (0..3).map(|_| connect(broker, Version::V5).open(broker)).collect();
    for member in &mut members {
        member.subscribe(&format!("$share/one/{topic}/+"), 1);
    }
    let mut lonely = connect(broker, Version::V5).open(broker);
    lonely.subscribe(&format!("$share/two/{topic}/#"), 0);
    let mut plain = connect(broker, Version::V5).open(broker);
    plain.subscribe(&format!("{topic}/a"), 1);
    let mut publisher = connect(broker, Version::V5).open(broker);
    for number in 0..12 {
        publisher.say(&format!("{topic}/a"), &number.to_string(), 2);
    }
    let all: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    let by_member: Vec<Vec<String>> = members.iter_mut().map(texts).collect();
    let mut together = by_member.concat();
    together.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(together, all, "each once: {by_member:?}");
    assert!(by_member.iter().filter(|texts| !texts.is_empty()).count() > 1, "one does it all: {by_member:?}");
    let heard = lonely.drain();
    assert!(heard.iter().all(|message| message.qos == 0), "the granted QoS");
    assert_eq!(heard.iter().map(Publish::text).collect::<Vec<_>>(), all);
    assert_eq!(texts(&mut plain), all);
    // The last one gets everything; nobody does after UNSUBSCRIBE.
    members.truncate(1);
    publisher.say(&format!("{topic}/b"), "alone", 1);
    members[0].hear(&format!("{topic}/b"), "alone", 1);
    assert_eq!(members[0].unsubscribe(&format!("$share/one/{topic}/+")), 0);
    publisher.say(&format!("{topic}/b"), "nobody", 1);
    members[0].quiet();
}

/// A share needs a name without wildcards, and a filter.
/// - 5.0: [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn a_share_has_name_and_filter() {
    let broker = Broker::shared();
    if broker.is_mosquitto_which("takes most of these for plain filters") {
        return;
    }
    for filter in [
        "$share//a",
        "$share/a+/b",
        "$share/#/b",
        "$share/+/b",
        "$share/a",
        "$share/a/",
        "$share/",
        "$share/g/a#",
    ] {
        let mut client = connect(broker, Version::V5).open(broker);
        client.send(&wire::subscribe(Version::V5, 1, &[], &[(filter, 1)]));
        match client.next_or_end("a refusal") {
            None => {}
            Some(Packet::Suback { codes, .. }) => assert!(codes[0] >= 0x80, "{filter} is granted"),
            Some(Packet::Disconnect { code, .. }) => {
                assert!(matches!(code, 0x81 | 0x82 | 0x8f), "{code:#04x}")
            }
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// A message of QoS 2 stays with the member that it was sent to, also when that one is away, and goes to nobody else
/// when its session ends.
/// - 5.0: [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn a_shared_message_stays_with_its_member() {
    let broker = Broker::shared();
    let topic = unique("stays");
    let filter = format!("$share/group/{topic}");
    let member = connect(broker, Version::V5).persistent();
    for comes_back in [true, false] {
        let mut first = member.open(broker);
        first.subscribe(&filter, 2);
        let mut publisher = connect(broker, Version::V5).open(broker);
        publisher.say(&topic, "chosen", 2);
        let sent = first.publish();
        first.vanish();
        let mut second = connect(broker, Version::V5).open(broker);
        second.subscribe(&filter, 2);
        second.quiet();
        if comes_back {
            let (mut first, connack) = member.open_with(broker);
            assert!(connack.session_present);
            let again = first.publish();
            assert_eq!(again, Publish { dup: true, ..sent });
            first.accept(&again);
            first.leave();
        } else {
            let mut clean = member.clone();
            (clean.clean, clean.properties) = (true, Vec::new());
            clean.open(broker).quiet();
        }
        second.quiet();
    }
}

/// A member's refusal ends the message: no other member gets it.
/// - 5.0: [MQTT-4.8.2-6] [MQTT-4.4.0-2]
#[test]
fn a_shared_message_that_is_refused_is_gone() {
    let broker = Broker::shared();
    let topic = unique("refused");
    let filter = format!("$share/group/{topic}");
    let mut members: Vec<Client> = (0..2).map(|_| connect(broker, Version::V5).open(broker)).collect();
    members.iter_mut().for_each(|member| member.subscribe(&filter, 2));
    let mut publisher = connect(broker, Version::V5).open(broker);
    for qos in [1, 2] {
        publisher.say(&topic, "refuse me", qos);
        let mut refused = 0;
        for member in &mut members {
            for message in member.drain() {
                refused += 1;
                member.send(&wire::ack_with(if qos == 1 { PUBACK } else { PUBREC }, message.id, 0x80));
            }
        }
        assert_eq!(refused, 1);
        members.iter_mut().for_each(Client::quiet);
    }
}
