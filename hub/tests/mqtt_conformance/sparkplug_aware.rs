//! What Sparkplug 3.0 asks of an aware server (section 10.1.4). Payloads are read by prost with a schema of this file's
//! own, since the hub has a decoder of its own making.

use std::time::{Duration, Instant};

use prost::Message as _;
use runtime::clock::Clock;

use super::broker::Broker;
use super::client::{Client, PATIENCE, connect, unique};
use super::wire::{BOTH, Property, Publish, Version, Will};

/// Subscription option of MQTT 5.0: the flag is kept as the publisher set it.
const AS_PUBLISHED: u8 = 0x08;

const CERTIFICATES: &str = "$sparkplug/certificates";

/// Section 6.4.1, as much of it as is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(uint64, optional, tag = "1")]
    timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    seq: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "3")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    datatype: Option<u32>,
    #[prost(uint64, optional, tag = "11")]
    long_value: Option<u64>,
}

/// Data type UInt64.
const UINT64: u32 = 8;

fn payload(timestamp: Option<u64>, metric: &str, value: u64) -> Payload {
    let metric = Metric {
        name: Some(metric.into()),
        timestamp: Some(1_700_000_000_000),
        datatype: Some(UINT64),
        long_value: Some(value),
    };
    Payload { timestamp, metrics: vec![metric], seq: None }
}

/// A birth with a number to know it by.
fn birth(topic: &str, number: u64) -> Publish {
    let birth = Payload { seq: Some(0), ..payload(Some(1_700_000_000_000), "number", number) };
    Publish { payload: birth.encode_to_vec(), ..Publish::new(topic, "") }
}

fn millis() -> u64 {
    Clock::machine().now().millis().try_into().unwrap()
}

/// What a client that comes now is given for a filter. A birth may be acknowledged before its certificate is kept:
/// asks until there are as many.
#[track_caller]
fn retained(broker: &Broker, version: Version, filter: &str, count: usize) -> Vec<Publish> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut late = connect(broker, version).open(broker);
        late.subscribe(filter, 0);
        let mut got: Vec<Publish> = late.drain().into_iter().filter(|message| message.retain).collect();
        if got.len() >= count {
            got.sort_by(|one, two| one.topic.cmp(&two.topic));
            return got;
        }
        assert!(Instant::now() < until, "{} of {count} certificates: {got:?}", got.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What comes to a subscriber next.
#[track_caller]
fn hear(reader: &mut Client) -> Publish {
    let message = reader.publish();
    reader.accept(&message);
    message
}

/// Births of nodes and devices are there for who comes later, under their own topic behind `$sparkplug/certificates/`,
/// retained, byte for byte; the births themselves go their way, and are not retained.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-store] [tck-id-conformance-mqtt-aware-nbirth-mqtt-topic]
///   [tck-id-conformance-mqtt-aware-nbirth-mqtt-retain] [tck-id-conformance-mqtt-aware-dbirth-mqtt-topic]
///   [tck-id-conformance-mqtt-aware-dbirth-mqtt-retain]
#[test]
fn births_are_kept_as_certificates() {
    let Some(broker) = Broker::aware() else { return };
    for version in BOTH {
        for qos in 0..=1 {
            let group = unique("group");
            let topics = [format!("spBv1.0/{group}/NBIRTH/n"), format!("spBv1.0/{group}/DBIRTH/n/d")];
            let mut reader = connect(&broker, version).open(&broker);
            reader.subscribe(&format!("spBv1.0/{group}/#"), 1);
            let mut node = connect(&broker, version).open(&broker);
            for (topic, number) in topics.iter().zip(0..) {
                node.deliver(&birth(topic, number).qos(qos, 0));
                let heard = hear(&mut reader);
                assert_eq!((&heard.topic, heard.retain), (topic, false));
                assert_eq!(heard.payload, birth(topic, number).payload);
            }
            reader.quiet();
            node.leave();
            let kept = retained(&broker, version, &format!("{CERTIFICATES}/spBv1.0/{group}/#"), 2);
            // Sorted: DBIRTH, NBIRTH.
            for (certificate, (topic, number)) in kept.iter().rev().zip(topics.iter().zip(0..)) {
                assert_eq!(certificate.topic, format!("{CERTIFICATES}/{topic}"));
                assert_eq!(certificate.payload, birth(topic, number).payload);
                let read = Payload::decode(certificate.payload.as_slice()).unwrap();
                assert_eq!(read.metrics[0].long_value, Some(number));
            }
            assert_eq!(kept.len(), 2, "{kept:?}");
            assert_eq!(retained(&broker, version, &format!("spBv1.0/{group}/#"), 0), []);
            // Exactly by its topic, too.
            let exact = format!("{CERTIFICATES}/{}", topics[0]);
            assert_eq!(retained(&broker, version, &exact, 1)[0].topic, exact);
        }
    }
}

/// Who is subscribed already hears a certificate when it is made, with the flag if that is asked for.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-nbirth-mqtt-topic]
///   [tck-id-conformance-mqtt-aware-nbirth-mqtt-retain]
#[test]
fn a_new_certificate_is_published() {
    let Some(broker) = Broker::aware() else { return };
    let topic = format!("spBv1.0/{}/NBIRTH/n", unique("group"));
    let mut plain = connect(&broker, Version::V3).open(&broker);
    plain.subscribe("$sparkplug/#", 1);
    let mut as_published = connect(&broker, Version::V5).open(&broker);
    as_published.subscribe("$sparkplug/certificates/+/+/NBIRTH/+", 1 | AS_PUBLISHED);
    connect(&broker, Version::V5).open(&broker).deliver(&birth(&topic, 7));
    for (reader, retain) in [(&mut plain, false), (&mut as_published, true)] {
        let heard = hear(reader);
        assert_eq!((heard.topic, heard.retain), (format!("{CERTIFICATES}/{topic}"), retain));
        assert_eq!(heard.payload, birth(&topic, 7).payload);
    }
}

/// The last birth of a node or device is its certificate; other nodes, other devices and other messages change nothing.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-store] [tck-id-conformance-mqtt-aware-nbirth-mqtt-topic]
///   [tck-id-conformance-mqtt-aware-dbirth-mqtt-topic]
#[test]
fn the_last_birth_is_the_certificate() {
    let Some(broker) = Broker::aware() else { return };
    let group = unique("group");
    let topic = |rest: &str| format!("spBv1.0/{group}/{rest}");
    let mut node = connect(&broker, Version::V5).open(&broker);
    for (rest, number) in
        [("NBIRTH/a", 1), ("NBIRTH/b", 2), ("DBIRTH/a/x", 3), ("DBIRTH/a/y", 4), ("NBIRTH/a", 5)]
    {
        node.deliver(&birth(&topic(rest), number).qos(1, 0));
    }
    for rest in ["NDATA/a", "DDATA/a/x", "DDEATH/a/x", "NDEATH/b", "XBIRTH/a", "NBIRTHS/a"] {
        node.deliver(&birth(&topic(rest), 6).qos(1, 0));
    }
    for other in [format!("other/{group}/NBIRTH/a"), format!("spBv1.0x/{group}/NBIRTH/a")] {
        node.deliver(&birth(&other, 6).qos(1, 0));
    }
    // The last one made: all before it are there when it is.
    node.deliver(&birth(&topic("DBIRTH/z/z"), 9).qos(1, 0));
    retained(&broker, Version::V5, &format!("{CERTIFICATES}/{}", topic("DBIRTH/z/z")), 1);
    let kept = retained(&broker, Version::V5, &format!("{CERTIFICATES}/#"), 5);
    let facts: Vec<_> = kept
        .iter()
        .map(|kept| {
            let rest = kept.topic.strip_prefix(&format!("{CERTIFICATES}/spBv1.0/{group}/"));
            let read = Payload::decode(kept.payload.as_slice()).unwrap();
            (rest.unwrap_or(&kept.topic), read.metrics[0].long_value.unwrap())
        })
        .collect();
    assert_eq!(
        facts,
        [("DBIRTH/a/x", 3), ("DBIRTH/a/y", 4), ("DBIRTH/z/z", 9), ("NBIRTH/a", 5), ("NBIRTH/b", 2)]
    );
}

/// Certificates are stored: they are there after a restart.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-store]
#[test]
fn certificates_survive() {
    let Some(mut broker) = Broker::aware() else { return };
    let topic = format!("spBv1.0/{}/NBIRTH/n", unique("group"));
    connect(&broker, Version::V5).open(&broker).deliver(&birth(&topic, 1));
    let certificate = format!("{CERTIFICATES}/{topic}");
    let before = retained(&broker, Version::V5, &certificate, 1);
    broker.restart();
    assert_eq!(retained(&broker, Version::V5, &certificate, 1), before);
}

/// Nobody but the broker writes certificates, `#` does not reach them, and who may not read them does not.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-store]
#[test]
fn certificates_are_the_brokers_own() {
    let Some(broker) = Broker::aware() else { return };
    let topic = format!("spBv1.0/{}/NBIRTH/n", unique("group"));
    let certificate = format!("{CERTIFICATES}/{topic}");
    let mut everything = connect(&broker, Version::V5).open(&broker);
    everything.subscribe("#", 0);
    let mut node = connect(&broker, Version::V5).open(&broker);
    node.deliver(&birth(&topic, 1).qos(1, 0));
    retained(&broker, Version::V5, &certificate, 1);
    let heard: Vec<String> = everything.drain().into_iter().map(|message| message.topic).collect();
    assert!(heard.contains(&topic), "{heard:?}");
    assert!(!heard.iter().any(|topic| topic.starts_with('$')), "{heard:?}");
    assert_eq!(node.deliver(&birth(&certificate, 2).qos(1, 0).retained()), 0x87);
    let removal = Publish::new(&certificate, "").qos(1, 0).retained();
    assert_eq!(node.deliver(&removal), 0x87);
    let kept = retained(&broker, Version::V5, &certificate, 1);
    assert_eq!(kept[0].payload, birth(&topic, 1).payload);
    let mut reader = super::client::with_login(&broker.reader(), Version::V5).open(&broker);
    assert_eq!(reader.try_subscribe("$sparkplug/#", 0, &[]), 0x87);
}

/// The NDEATH of a node that is gone has the time of its delivery in UTC, and else what the node wrote.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-ndeath-timestamp]
#[test]
fn a_death_has_the_time_of_its_delivery() {
    let Some(broker) = Broker::aware() else { return };
    for version in BOTH {
        for old in [Some(1_000), Some(u64::MAX), None] {
            let topic = format!("spBv1.0/{}/NDEATH/n", unique("group"));
            let mut reader = connect(&broker, version).open(&broker);
            reader.subscribe(&topic, 1);
            let death = payload(old, "bdSeq", 5);
            let will = Will { qos: 1, payload: death.encode_to_vec(), ..Will::new(&topic, "") };
            let node = connect(&broker, version).will(will).open(&broker);
            std::thread::sleep(Duration::from_millis(50));
            let before = millis();
            node.vanish();
            let heard = hear(&mut reader);
            let read = Payload::decode(heard.payload.as_slice()).unwrap();
            let time = read.timestamp.expect("a timestamp");
            assert!((before..=millis()).contains(&time), "{time}, not in {before}..{}", millis());
            assert_eq!(read, Payload { timestamp: Some(time), ..death });
            assert_eq!((heard.qos, heard.retain), (1, false));
        }
    }
}

/// A will that waits is delivered later than its node was gone.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-ndeath-timestamp]
#[test]
fn a_delayed_death_has_the_later_time() {
    let Some(broker) = Broker::aware() else { return };
    let topic = format!("spBv1.0/{}/NDEATH/n", unique("group"));
    let mut reader = connect(&broker, Version::V5).open(&broker);
    reader.subscribe(&topic, 1);
    let death = payload(Some(1_000), "bdSeq", 5).encode_to_vec();
    let will =
        Will { qos: 1, payload: death, properties: vec![Property::WillDelay(1)], ..Will::new(&topic, "") };
    let gone = millis();
    connect(&broker, Version::V5).persistent().will(will).open(&broker).vanish();
    let heard = hear(&mut reader);
    let time = Payload::decode(heard.payload.as_slice()).unwrap().timestamp.unwrap();
    assert!((gone + 900..=millis()).contains(&time), "{time}, gone at {gone}, now {}", millis());
}

/// No other will is touched, and without awareness none at all; nor are there certificates then.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-ndeath-timestamp] [tck-id-conformance-mqtt-aware-store]
#[test]
fn awareness_is_for_births_and_deaths_and_off_by_default() {
    let check = |broker: &Broker, topic: &str| {
        let mut reader = connect(broker, Version::V5).open(broker);
        reader.subscribe(topic, 1);
        let death = payload(Some(1_000), "bdSeq", 5).encode_to_vec();
        let will = Will { qos: 1, payload: death.clone(), ..Will::new(topic, "") };
        connect(broker, Version::V5).will(will).open(broker).vanish();
        assert_eq!(hear(&mut reader).payload, death, "{topic}");
    };
    if let Some(broker) = Broker::aware() {
        for kind in ["DDEATH/n/d", "NDATA/n"] {
            check(&broker, &format!("spBv1.0/{}/{kind}", unique("group")));
        }
        check(&broker, &format!("{}/NDEATH/n/d", unique("plain")));
    }
    let broker = Broker::shared();
    let group = unique("group");
    check(broker, &format!("spBv1.0/{group}/NDEATH/n"));
    let mut node = connect(broker, Version::V5).open(broker);
    node.deliver(&birth(&format!("spBv1.0/{group}/NBIRTH/n"), 1).qos(1, 0));
    // Whatever is retained after it, is kept after it.
    let after = unique("after");
    node.deliver(&Publish::new(&after, "kept").qos(1, 0).retained());
    retained(broker, Version::V5, &after, 1);
    assert_eq!(retained(broker, Version::V5, &format!("{CERTIFICATES}/spBv1.0/{group}/#"), 0), []);
}

/// An aware server is a conformant one: QoS 0 and 1, retained messages and retained wills of QoS 1, on Sparkplug's own
/// topics and on others. The other tests show that of the same broker without awareness, in all detail.
/// - Sparkplug 3.0: [tck-id-conformance-mqtt-aware-basic] [tck-id-conformance-mqtt-qos0]
///   [tck-id-conformance-mqtt-qos1] [tck-id-conformance-mqtt-will-messages] [tck-id-conformance-mqtt-retained]
#[test]
fn an_aware_server_is_a_conformant_one() {
    let Some(broker) = Broker::aware() else { return };
    for version in BOTH {
        for stem in ["spBv1.0/group/NDATA", "plain"] {
            let topic = format!("{stem}/{}", unique("n"));
            let mut reader = connect(&broker, version).open(&broker);
            reader.subscribe(&topic, 1);
            let mut node = connect(&broker, version).open(&broker);
            for qos in 0..=1 {
                node.say(&topic, "live", qos);
                assert!(!reader.hear(&topic, "live", qos).retain);
            }
            for text in ["old", "kept"] {
                node.deliver(&Publish::new(&topic, text).qos(1, 0).retained());
                assert!(!reader.hear(&topic, text, 1).retain);
            }
            let kept = |text: &str| {
                let mut late = connect(&broker, version).open(&broker);
                late.subscribe(&topic, 1);
                assert!(late.hear(&topic, text, 1).retain);
                late.quiet();
            };
            kept("kept");
            for retain in [false, true] {
                let will = Will { qos: 1, retain, ..Will::new(&topic, "gone") };
                let willing = connect(&broker, version).will(will);
                willing.open(&broker).leave();
                reader.quiet();
                willing.open(&broker).vanish();
                assert!(!reader.hear(&topic, "gone", 1).retain);
                kept(if retain { "gone" } else { "kept" });
            }
            node.deliver(&Publish::new(&topic, "").qos(1, 0).retained());
            reader.hear(&topic, "", 1);
            let mut late = connect(&broker, version).open(&broker);
            late.subscribe(&topic, 1);
            late.quiet();
        }
    }
}
