//! The will: when it is published and when not, how, and with which delay (sections 3.1.2.5 to 3.1.2.7, 3.1.3.2, 3.14.4).

use std::time::{Duration, Instant};

use super::broker::Broker;
use super::client::{Client, connect, under_both, unique, with_login};
use super::wire::{self, Property, Publish, Version, Will};

fn listener(broker: &Broker, version: Version, topic: &str) -> Client {
    let mut listener = connect(broker, version).open(broker);
    listener.subscribe(topic, 2);
    listener
}

/// When the network fails, the will is published with its QoS: once.
/// - 5.0: [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT-3.1.2-14]
/// - 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.1.2-16]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn a_will_is_published_when_the_network_fails() {
    under_both(|broker, version| {
        for qos in 0..=2 {
            let topic = unique("will");
            let mut listener = listener(broker, version, &topic);
            let will = Will { qos, ..Will::new(&topic, "gone") };
            let with_will = connect(broker, version).will(will);
            let client = with_will.open(broker);
            listener.quiet();
            client.vanish();
            assert!(!listener.hear(&topic, "gone", qos).retain);
            let without = connect(broker, version).id(&with_will.id);
            without.open(broker).vanish();
            listener.quiet();
            let mut late = connect(broker, version).open(broker);
            late.subscribe(&topic, 0);
            late.quiet();
        }
    });
}

/// A will that is to be retained is.
/// - 5.0: [MQTT-3.1.2-15]
/// - 3.1.1: [MQTT-3.1.2-17]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn a_retained_will_is_retained() {
    under_both(|broker, version| {
        let topic = unique("will");
        let mut listener = listener(broker, version, &topic);
        let will = Will { retain: true, qos: 1, ..Will::new(&topic, "gone") };
        connect(broker, version).will(will).open(broker).vanish();
        assert!(!listener.hear(&topic, "gone", 1).retain, "no news to a subscriber who was there");
        let mut late = connect(broker, version).open(broker);
        late.subscribe(&topic, 1);
        assert!(late.hear(&topic, "gone", 1).retain);
    });
}

/// DISCONNECT deletes the will; who has none leaves none.
/// - 5.0: [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3]
/// - 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT-3.14.4-3]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn who_says_goodbye_has_no_will() {
    under_both(|broker, version| {
        let topic = unique("will");
        let mut listener = listener(broker, version, &topic);
        let willing = connect(broker, version).will(Will::new(&topic, "gone"));
        willing.open(broker).leave();
        listener.quiet();
        connect(broker, version).open(broker).vanish();
        listener.quiet();
        if version == Version::V5 {
            willing.open(broker).leave_with(0x00, &[]);
            listener.quiet();
        }
    });
}

/// DISCONNECT "with will" publishes it, and so does every other reason than 0.
/// - 5.0: [MQTT-3.1.2-8] [MQTT-3.14.4-3]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn a_client_may_leave_with_its_will() {
    let broker = Broker::shared();
    for code in [0x04, 0x80, 0x81] {
        if code != 0x04 && broker.is_mosquitto_which("drops the will unless the code is 4") {
            continue;
        }
        let topic = unique("will");
        let mut listener = listener(broker, Version::V5, &topic);
        connect(broker, Version::V5).will(Will::new(&topic, "gone")).open(broker).leave_with(code, &[]);
        listener.hear(&topic, "gone", 0);
    }
}

/// A connection that the server closes for an error, or for a second connection, ends with its will.
/// - 5.0: [MQTT-3.1.2-8] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-3.1.2-8] [MQTT-4.8.0-1]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn who_is_thrown_out_has_a_will() {
    under_both(|broker, version| {
        let topic = unique("will");
        let mut listener = listener(broker, version, &topic);
        let willing = connect(broker, version).will(Will::new(&topic, "gone"));
        let mut client = willing.open(broker);
        client.send(&[0x00, 0x00]);
        client.closed(&[0x81, 0x82]);
        listener.hear(&topic, "gone", 0);
        let mut first = willing.open(broker);
        let _second = connect(broker, version).id(&willing.id).open(broker);
        first.thrown_out(0x8e);
        listener.hear(&topic, "gone", 0);
    });
}

/// The properties of the will are those of its message, in their order; its delay is not one of them.
/// - 5.0: [MQTT-3.1.3-10] [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
///   [MQTT-3.3.2-20]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn a_will_has_properties() {
    let broker = Broker::shared();
    let topic = unique("will");
    let properties = vec![
        Property::PayloadFormat(1),
        Property::ContentType("text/plain".into()),
        Property::ResponseTopic("answers/here".into()),
        Property::CorrelationData(vec![0, 255, 7]),
        Property::user("b", "1"),
        Property::user("a", "2"),
        Property::user("b", "1"),
    ];
    let mut listener = listener(broker, Version::V5, &topic);
    let mut will = Will::new(&topic, "gone");
    will.properties =
        [vec![Property::WillDelay(0), Property::MessageExpiry(600)], properties.clone()].concat();
    connect(broker, Version::V5).will(will).open(broker).vanish();
    let mut got = listener.hear(&topic, "gone", 0).properties;
    let expiry = got.iter().position(|property| matches!(property, Property::MessageExpiry(595..=600)));
    got.remove(expiry.expect("the message expiry"));
    assert_eq!(sorted(&got), sorted(&properties));
    assert_eq!(users(&got), users(&properties));
}

/// All but the user properties, whose order counts.
pub(crate) fn sorted(properties: &[Property]) -> Vec<String> {
    let others = properties.iter().filter(|property| !matches!(property, Property::User(..)));
    let mut others: Vec<String> = others.map(|property| format!("{property:?}")).collect();
    others.sort();
    others
}

/// The user properties as they came.
pub(crate) fn users(properties: &[Property]) -> Vec<(&str, &str)> {
    let users = properties.iter().filter_map(|property| match property {
        Property::User(name, value) => Some((name.as_str(), value.as_str())),
        _ => None,
    });
    users.collect()
}

/// A delayed will waits for its time, if the session lasts so long.
/// - 5.0: [MQTT-3.1.2-8] [MQTT-3.1.2-10]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-will-messages]
#[test]
fn a_will_waits_for_its_delay() {
    let broker = Broker::shared();
    let topic = unique("will");
    let mut listener = listener(broker, Version::V5, &topic);
    let mut will = Will::new(&topic, "gone");
    will.properties = vec![Property::WillDelay(1)];
    connect(broker, Version::V5).persistent().will(will).open(broker).vanish();
    let start = Instant::now();
    listener.quiet();
    listener.hear(&topic, "gone", 0);
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(900), "{waited:?}");
    let coarse = broker.is_mosquitto_which("looks for delayed wills once a second or so");
    assert!(waited < Duration::from_secs(if coarse { 7 } else { 3 }), "{waited:?}");
}

/// The session's end does not wait for the will's delay: neither its expiry nor a clean start.
/// - 5.0: [MQTT-3.1.2-8] [MQTT-3.1.2-10]
#[test]
fn the_end_of_the_session_ends_the_delay() {
    let broker = Broker::shared();
    let mut will = Will::new(&unique("will"), "gone");
    will.properties = vec![Property::WillDelay(60)];
    let mut listener = listener(broker, Version::V5, &will.topic);
    if !broker.is_mosquitto_which("waits for the delay although the session is over") {
        connect(broker, Version::V5).will(will.clone()).open(broker).vanish();
        listener.hear(&will.topic, "gone", 0);
    }
    let session = connect(broker, Version::V5).persistent().will(will.clone());
    session.open(broker).vanish();
    listener.quiet();
    if !broker.is_mosquitto_which("drops the will of a session that a clean start ends") {
        let _clean = connect(broker, Version::V5).id(&session.id).open(broker);
        listener.hear(&will.topic, "gone", 0);
    }
    let mut brief = connect(broker, Version::V5).resuming().will(will.clone());
    brief.properties = vec![Property::SessionExpiry(1)];
    if !broker.is_mosquitto_which("waits for the will's delay although the session has expired") {
        brief.open(broker).vanish();
        listener.hear(&will.topic, "gone", 0);
    }
}

/// Who is back before the delay has passed leaves no will.
/// - 5.0: [MQTT-3.1.3-9] [MQTT-3.1.2-8]
#[test]
fn who_comes_back_in_time_has_no_will() {
    let broker = Broker::shared();
    let topic = unique("will");
    let mut listener = listener(broker, Version::V5, &topic);
    let mut will = Will::new(&topic, "gone");
    will.properties = vec![Property::WillDelay(1)];
    let session = connect(broker, Version::V5).persistent();
    session.clone().will(will.clone()).open(broker).vanish();
    let (client, connack) = session.open_with(broker);
    assert!(connack.session_present);
    std::thread::sleep(Duration::from_millis(2_500));
    listener.quiet();
    // Nor does a take-over.
    let mut first = session.clone().will(will).open(broker);
    drop(client);
    let _second = session.open(broker);
    first.thrown_out(0x8e);
    std::thread::sleep(Duration::from_millis(1_500));
    listener.quiet();
}

/// A will that its client may not publish is no reason to let it in.
/// - 5.0: [MQTT-3.1.4-2]
/// - 3.1.1: [MQTT-3.2.2-5]
#[test]
fn a_will_on_a_forbidden_topic_is_refused() {
    let Some(broker) = Broker::alone() else { return };
    for version in wire::BOTH {
        let will = Will::new("forbidden/topic", "gone");
        let connect = with_login(&broker.reader(), version).will(will);
        if broker.is_mosquitto_which("looks at the will's topic when it publishes it") {
            continue;
        }
        let code = if version == Version::V3 { 5 } else { 0x87 };
        assert_eq!(connect.refused(&broker), Some(code));
    }
}

/// An empty retained will takes the retained message away, like any message.
/// - 5.0: [MQTT-3.1.2-15] [MQTT-3.3.1-6]
/// - 3.1.1: [MQTT-3.1.2-17] [MQTT-3.3.1-10]
#[test]
fn an_empty_retained_will_removes() {
    under_both(|broker, version| {
        let topic = unique("will");
        let mut publisher = connect(broker, version).open(broker);
        publisher.deliver(&Publish::new(&topic, "there").qos(1, 0).retained());
        let will = Will { retain: true, ..Will::new(&topic, "") };
        connect(broker, version).will(will).open(broker).vanish();
        let mut late = connect(broker, version).open(broker);
        late.subscribe(&topic, 0);
        late.quiet();
    });
}
