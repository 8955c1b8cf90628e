//! Sessions: what a clean start throws away, what is kept and how long, take-over (sections 3.1.2, 3.1.4, 3.2.2, 4.1).

use std::time::{Duration, Instant};

use super::broker::Broker;
use super::client::{connect, under_both, unique};
use super::wire::{Property, Publish, Version};

/// A clean start forgets subscriptions and messages, and says that nothing was there.
/// - 5.0: [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]
/// - 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1]
#[test]
fn a_clean_start_forgets() {
    under_both(|broker, version| {
        let topic = unique("clean");
        let session = connect(broker, version).persistent();
        let mut client = session.open(broker);
        client.subscribe(&topic, 1);
        client.leave();
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&topic, "queued", 1);
        let mut clean = session.clone();
        (clean.clean, clean.properties) = (true, Vec::new());
        let (mut client, connack) = clean.open_with(broker);
        assert!(!connack.session_present);
        client.quiet();
        publisher.say(&topic, "nobody listens", 1);
        client.quiet();
        client.leave();
        // What began clean and was not to be kept is gone as well.
        let (mut client, connack) = session.open_with(broker);
        assert!(!connack.session_present);
        client.quiet();
    });
}

/// A kept session comes back with its subscriptions and the messages of QoS 1 and 2 that it missed, in order.
/// - 5.0: [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.1.3-2] [MQTT-3.2.2-3] [MQTT-4.1.0-1]
///   [MQTT-4.5.0-1]
/// - 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.3-2] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-4.1.0-1]
///   [MQTT-4.1.0-2] [MQTT-4.5.0-1]
#[test]
fn a_kept_session_comes_back() {
    under_both(|broker, version| {
        let topic = unique("kept");
        let session = connect(broker, version).persistent();
        let (mut client, connack) = session.open_with(broker);
        assert!(!connack.session_present);
        client.subscribe(&format!("{topic}/+"), 2);
        client.vanish();
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&format!("{topic}/a"), "first", 1);
        publisher.say(&format!("{topic}/b"), "second", 2);
        publisher.say(&format!("{topic}/a"), "third", 1);
        let (mut client, connack) = session.open_with(broker);
        assert!(connack.session_present);
        client.hear(&format!("{topic}/a"), "first", 1);
        client.hear(&format!("{topic}/b"), "second", 2);
        client.hear(&format!("{topic}/a"), "third", 1);
        client.quiet();
        publisher.say(&format!("{topic}/c"), "live", 2);
        client.hear(&format!("{topic}/c"), "live", 2);
        // Another identifier is another session.
        let (mut other, connack) = connect(broker, version).persistent().open_with(broker);
        assert!(!connack.session_present);
        other.quiet();
    });
}

/// Without an expiry interval, and with 0, the session ends with its connection.
/// - 5.0: [MQTT-4.1.0-2] [MQTT-3.2.2-3]
#[test]
fn a_session_without_expiry_ends_at_once() {
    let broker = Broker::shared();
    for properties in [vec![], vec![Property::SessionExpiry(0)]] {
        let mut session = connect(broker, Version::V5).resuming();
        session.properties = properties;
        let (mut client, connack) = session.open_with(broker);
        assert!(!connack.session_present);
        client.subscribe(&unique("ends"), 1);
        client.vanish();
        assert!(!session.open_with(broker).1.session_present);
    }
}

/// A session is there until its expiry interval has passed since the connection closed, and not afterwards. While it is
/// connected it does not expire.
/// - 5.0: [MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.1.0-2]
#[test]
fn a_session_expires() {
    let broker = Broker::shared();
    let short = connect(broker, Version::V5).resuming().with_property(Property::SessionExpiry(1));
    let mut client = short.open(broker);
    client.subscribe(&unique("expires"), 1);
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(1_200));
    client.quiet();
    client.vanish();
    let (client, connack) = short.open_with(broker);
    assert!(connack.session_present, "after {:?} of connection", start.elapsed());
    client.vanish();
    let deadline = if broker.is_mosquitto_which("looks for expired sessions now and then") { 7 } else { 2 };
    std::thread::sleep(Duration::from_secs(deadline));
    assert!(!short.open_with(broker).1.session_present);
}

/// DISCONNECT may change the expiry interval: to nothing, or to more, unless it was nothing.
/// - 5.0: [MQTT-4.1.0-2] [MQTT-3.1.2-23] [MQTT-4.13.1-1]
#[test]
fn disconnect_changes_the_expiry() {
    let broker = Broker::shared();
    let session = connect(broker, Version::V5).persistent();
    session.open(broker).leave_with(0, &[Property::SessionExpiry(0)]);
    let (client, connack) = session.open_with(broker);
    assert!(!connack.session_present, "given up at DISCONNECT");
    client.leave_with(0, &[Property::SessionExpiry(7200)]);
    let (client, connack) = session.open_with(broker);
    assert!(connack.session_present);
    client.leave_with(0, &[]);
    assert!(session.open_with(broker).1.session_present, "unchanged without the property");
    let mut brief = connect(broker, Version::V5).open(broker);
    brief.send(&super::wire::disconnect_with(0, &[Property::SessionExpiry(10)]));
    brief.closed(&[0x82]);
}

/// A second connection with a client identifier throws the first one out, and goes on with its session.
/// - 5.0: [MQTT-3.1.4-3] [MQTT-3.1.2-5] [MQTT-3.14.2-1]
/// - 3.1.1: [MQTT-3.1.4-2] [MQTT-3.1.2-4]
#[test]
fn a_second_connection_takes_over() {
    under_both(|broker, version| {
        let topic = unique("takeover");
        let session = connect(broker, version).persistent();
        let mut first = session.open(broker);
        first.subscribe(&topic, 1);
        let (mut second, connack) = session.open_with(broker);
        assert!(connack.session_present);
        first.thrown_out(0x8e);
        let mut publisher = connect(broker, version).open(broker);
        publisher.say(&topic, "to the second", 1);
        second.hear(&topic, "to the second", 1);
        // A client of the other version may do it as well.
        let other = if version == Version::V3 { Version::V5 } else { Version::V3 };
        let (mut third, connack) = connect(broker, other).id(&session.id).persistent().open_with(broker);
        assert!(connack.session_present);
        second.thrown_out(0x8e);
        publisher.say(&topic, "to the third", 1);
        third.hear(&topic, "to the third", 1);
    });
}

/// Retained messages belong to no session.
/// - 5.0: [MQTT-3.3.1-5]
/// - 3.1.1: [MQTT-3.1.2-7]
#[test]
fn retained_messages_outlive_sessions() {
    under_both(|broker, version| {
        let topic = unique("outlives");
        let mut publisher = connect(broker, version).open(broker);
        publisher.deliver(&Publish::new(&topic, "stays").retained().qos(1, 0));
        publisher.leave();
        let mut reader = connect(broker, version).open(broker);
        reader.subscribe(&topic, 0);
        assert!(reader.hear(&topic, "stays", 0).retain);
    });
}
