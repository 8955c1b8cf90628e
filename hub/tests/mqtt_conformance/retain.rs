//! Retained messages, and the RETAIN flag on the way out (sections 3.3.1.3, 3.8.3.1, 3.8.4).

use super::broker::Broker;
use super::client::{connect, under_both, unique};
use super::wire::{Property, Publish, Version};

/// Subscription option: the flag is kept as the publisher set it.
const AS_PUBLISHED: u8 = 0x08;

/// The last retained message of each topic comes with a new subscription, its flag set; an older one is replaced,
/// whatever its QoS.
/// - 5.0: [MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT-3.3.2-3]
/// - 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.2-3]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn the_last_retained_message_is_kept() {
    under_both(|broker, version| {
        let topic = unique("retained");
        let mut publisher = connect(broker, version).open(broker);
        let (a, b) = (format!("{topic}/a"), format!("{topic}/b/c"));
        publisher.deliver(&Publish::new(&a, "old").qos(2, 0).retained());
        publisher.deliver(&Publish::new(&b, "of b").qos(2, 0).retained());
        publisher.deliver(&Publish::new(&a, "new").qos(1, 0).retained());
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&format!("{topic}/#"), 2);
        let mut got: Vec<_> = (0..2).map(|_| reader.publish()).collect();
        got.iter().for_each(|message| reader.accept(message));
        got.sort_by(|one, two| one.topic.cmp(&two.topic));
        let facts: Vec<_> =
            got.iter().map(|m| (m.topic.as_str(), m.text(), m.qos, m.retain, m.dup)).collect();
        assert_eq!(facts, [(a.as_str(), "new", 1, true, false), (b.as_str(), "of b", 2, true, false)]);
        reader.quiet();
        // One of QoS 0 replaces it too.
        publisher.deliver(&Publish::new(&a, "fleeting").retained());
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&a, 2);
        let got = reader.drain();
        assert!(got.iter().all(|m| m.text() == "fleeting" && m.retain), "{got:?}");
    });
}

/// An empty payload removes the retained message, is not kept itself, and reaches who is subscribed.
/// - 5.0: [MQTT-3.3.1-6] [MQTT-3.3.1-7]
/// - 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn an_empty_payload_removes() {
    under_both(|broker, version| {
        let topic = unique("removed");
        let mut publisher = connect(broker, version).open(broker);
        let mut present = connect(broker, version).open(broker);
        present.subscribe(&topic, 1);
        publisher.deliver(&Publish::new(&topic, "there").qos(1, 0).retained());
        publisher.deliver(&Publish::new(&topic, "").qos(1, 0).retained());
        assert!(!present.hear(&topic, "there", 1).retain);
        assert!(!present.hear(&topic, "", 1).retain);
        let mut late = connect(broker, version).open(broker);
        late.subscribe(&topic, 1);
        late.quiet();
    });
}

/// A message without the flag leaves the retained one alone.
/// - 5.0: [MQTT-3.3.1-8]
/// - 3.1.1: [MQTT-3.3.1-12]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn a_plain_message_is_not_retained() {
    under_both(|broker, version| {
        let topic = unique("plain");
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&topic, "not kept", 1);
        let mut early = connect(broker, version).open(broker);
        early.subscribe(&topic, 1);
        early.quiet();
        publisher.deliver(&Publish::new(&topic, "kept").qos(1, 0).retained());
        publisher.say(&topic, "passing", 1);
        publisher.say(&topic, "", 1);
        let mut late = connect(broker, version).open(broker);
        late.subscribe(&topic, 1);
        assert!(late.hear(&topic, "kept", 1).retain);
        late.quiet();
    });
}

/// A message that matches an established subscription has its flag cleared.
/// - 5.0: [MQTT-3.3.1-12]
/// - 3.1.1: [MQTT-3.3.1-9]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn the_flag_is_cleared_for_who_is_there() {
    under_both(|broker, version| {
        let topic = unique("cleared");
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 2);
        let mut publisher = connect(broker, version).open(broker);
        for qos in 0..=2 {
            publisher.deliver(&Publish::new(&topic, "live").qos(qos, 0).retained());
            assert!(!reader.hear(&topic, "live", qos).retain);
        }
    });
}

/// With "retain as published" the flag stays as it came.
/// - 5.0: [MQTT-3.3.1-13]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn the_flag_stays_if_asked() {
    let broker = Broker::shared();
    let topic = unique("as-published");
    let mut reader = connect(broker, Version::V5).open(broker);
    reader.subscribe(&topic, 1 | AS_PUBLISHED);
    let mut publisher = connect(broker, Version::V5).open(broker);
    publisher.deliver(&Publish::new(&topic, "flagged").qos(1, 0).retained());
    assert!(reader.hear(&topic, "flagged", 1).retain);
    publisher.say(&topic, "not flagged", 1);
    assert!(!reader.hear(&topic, "not flagged", 1).retain);
}

/// Retain handling: 0 sends at every subscribe, 1 only for a new subscription, 2 never.
/// - 5.0: [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-retained]
#[test]
fn retain_handling() {
    let broker = Broker::shared();
    let topic = unique("handling");
    let mut publisher = connect(broker, Version::V5).open(broker);
    publisher.deliver(&Publish::new(&topic, "kept").qos(1, 0).retained());
    let mut reader = connect(broker, Version::V5).open(broker);
    for _ in 0..2 {
        reader.subscribe(&topic, 1);
        assert!(reader.hear(&topic, "kept", 1).retain);
    }
    reader.subscribe(&topic, 1 | 0x10);
    reader.quiet();
    reader.unsubscribe(&topic);
    reader.subscribe(&topic, 1 | 0x10);
    assert!(reader.hear(&topic, "kept", 1).retain);
    reader.subscribe(&topic, 1 | 0x20);
    reader.quiet();
    reader.unsubscribe(&topic);
    reader.subscribe(&topic, 1 | 0x20);
    reader.quiet();
}

/// Under 3.1.1 subscribing again sends the retained messages again.
/// - 3.1.1: [MQTT-3.8.4-3] [MQTT-3.3.1-6]
#[test]
fn subscribing_again_sends_retained_again() {
    let broker = Broker::shared();
    let topic = unique("again");
    let mut publisher = connect(broker, Version::V3).open(broker);
    publisher.deliver(&Publish::new(&topic, "kept").qos(2, 0).retained());
    let mut reader = connect(broker, Version::V3).open(broker);
    for qos in [1, 2, 0] {
        reader.subscribe(&topic, qos);
        assert!(reader.hear(&topic, "kept", qos).retain);
    }
}

/// A retained message keeps its properties, with the subscription's identifier added.
/// - 5.0: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
///   [MQTT-3.3.4-3]
#[test]
fn a_retained_message_keeps_its_properties() {
    let broker = Broker::shared();
    let topic = unique("properties");
    let properties = super::publish::every_property();
    let mut publisher = connect(broker, Version::V5).open(broker);
    publisher.deliver(&Publish::new(&topic, "kept").qos(1, 0).retained().with(&properties));
    let mut reader = connect(broker, Version::V5).open(broker);
    assert_eq!(reader.try_subscribe(&topic, 1, &[Property::SubscriptionId(77)]), 1);
    let got = reader.hear(&topic, "kept", 1).properties;
    let expected = [properties, vec![Property::SubscriptionId(77)]].concat();
    assert_eq!(super::will::sorted(&got), super::will::sorted(&expected));
    assert_eq!(super::will::users(&got), super::will::users(&expected));
}
