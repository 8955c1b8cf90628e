//! Fuzz targets: arbitrary bytes, and valid packets with a few bytes changed.
//!
//! `cargo bolero test mqtt::tests::fuzz::arbitrary_bytes` runs one without end. Whatever is accepted keeps the promises
//! of its types, and what it says can be written and read again.

use std::sync::LazyLock;

use bolero::check;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::generator::{sent, with_properties};
use super::*;
use crate::mqtt::encode::{AckKind, PublishOut, SubscribeOut};

/// Looks at everything of a packet that was accepted, and writes it again.
pub(super) fn walk(packet: &Packet<'_>, bytes: &[u8], version: Version) {
    let mut out = Vec::new();
    match packet {
        Packet::Connect(connect) => {
            properties(&connect.properties);
            let owned = connect.to_owned();
            encode::connect(&mut out, &owned);
            let Ok(Packet::Connect(again)) = read(&out, version) else { panic!("{owned:?} is not read") };
            assert_eq!(again.to_owned(), owned);
        }
        Packet::Publish(publish) => republish(publish, bytes, version),
        Packet::PubAck(ack) => acknowledge(AckKind::PubAck, ack, version),
        Packet::PubRec(ack) => acknowledge(AckKind::PubRec, ack, version),
        Packet::PubRel(ack) => acknowledge(AckKind::PubRel, ack, version),
        Packet::PubComp(ack) => acknowledge(AckKind::PubComp, ack, version),
        Packet::Subscribe(subscribe) => {
            assert_ne!(subscribe.packet_id, 0);
            assert_ne!(subscribe.subscription_id(), Some(0));
            properties(&subscribe.properties);
            let filters: Vec<_> = subscribe
                .filters()
                .map(|wanted| SubscribeOut {
                    filter: wanted.filter,
                    qos: wanted.qos,
                    no_local: wanted.no_local,
                    retain_as_published: wanted.retain_as_published,
                    retain_handling: wanted.retain_handling,
                })
                .collect();
            assert!(!filters.is_empty());
            encode::subscribe(&mut out, version, subscribe.packet_id, subscribe.subscription_id(), &filters);
            let Ok(Packet::Subscribe(again)) = read(&out, version) else {
                panic!("{subscribe:?} is not read")
            };
            assert!(again.filters().eq(subscribe.filters()));
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert_ne!(unsubscribe.packet_id, 0);
            assert!(unsubscribe.filters().count() > 0);
            assert!(unsubscribe.filters().all(|filter| topic::validate_filter(filter).is_ok()));
            properties(&unsubscribe.properties);
        }
        Packet::SubAck(ack) => properties(&ack.properties),
        Packet::UnsubAck(ack) => properties(&ack.properties),
        Packet::ConnAck(ack) => properties(&ack.properties),
        Packet::Disconnect(end) => properties(&end.properties),
        Packet::Auth(auth) => properties(&auth.properties),
        Packet::PingReq | Packet::PingResp => assert_eq!(bytes.len(), needed(bytes).unwrap()),
    }
}

/// All properties can be reached: those that `iter` gives take all bytes.
fn properties(these: &Properties<'_>) {
    let bytes: usize = these
        .iter()
        .map(|(id, value)| match value {
            Value::Number(number) => match id.kind() {
                property::Kind::Byte => 2,
                property::Kind::Two => 3,
                property::Kind::Four => 5,
                _ => 1 + reader::variable_bytes(number as usize),
            },
            Value::Text(text) => 3 + text.len(),
            Value::Binary(bytes) => 3 + bytes.len(),
            Value::Pair(name, value) => 5 + name.len() + value.len(),
        })
        .sum();
    assert_eq!(bytes, these.raw().len());
    assert_eq!(these.user().count(), these.iter().filter(|(id, _)| *id == Id::UserProperty).count());
}

fn republish(publish: &Publish<'_>, bytes: &[u8], version: Version) {
    assert_eq!(publish.packet_id == 0, publish.qos == QoS::AtMostOnce);
    assert_eq!(publish.topic.is_empty(), topic::validate_name(publish.topic).is_err());
    assert!(!publish.topic.is_empty() || publish.properties.topic_alias.is_some());
    let mut forwardable = Vec::new();
    publish.properties.forwardable(&mut forwardable);
    assert_eq!(publish.properties.has_forwardable(), !forwardable.is_empty());
    let ids: Vec<u32> = publish.properties.subscription_ids().collect();
    let message = PublishOut {
        topic: publish.topic,
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.packet_id,
        forwardable: &forwardable,
        message_expiry: publish.properties.message_expiry,
        topic_alias: publish.properties.topic_alias,
        subscription_ids: &ids,
        payload: publish.payload,
    };
    let mut out = Vec::new();
    encode::publish(&mut out, version, &message);
    assert_eq!(out.len(), encode::publish_len(version, &message));
    if version == Version::V5 {
        assert_eq!(out.len(), bytes.len(), "nothing is lost and nothing is added");
    }
    let Ok(Packet::Publish(again)) = read(&out, version) else { panic!("{publish:?} is not read again") };
    assert_eq!(
        (again.topic, again.payload, again.packet_id),
        (publish.topic, publish.payload, publish.packet_id)
    );
    let mut forwarded_again = Vec::new();
    again.properties.forwardable(&mut forwarded_again);
    assert_eq!(forwarded_again, forwardable);
    assert!(again.properties.user().eq(publish.properties.user()));
    assert!(again.properties.subscription_ids().eq(ids));
    assert_eq!(again.properties.response_topic, publish.properties.response_topic);
    assert_eq!(again.properties.correlation_data, publish.properties.correlation_data);
    assert_eq!(again.properties.content_type, publish.properties.content_type);
    assert_eq!(again.properties.payload_format, publish.properties.payload_format);
}

fn acknowledge(kind: AckKind, ack: &Ack<'_>, version: Version) {
    assert_ne!(ack.packet_id, 0);
    properties(&ack.properties);
    let mut out = Vec::new();
    encode::ack(&mut out, version, kind, ack.packet_id, ack.reason);
    let again = read(&out, version).unwrap();
    let (Packet::PubAck(again) | Packet::PubRec(again) | Packet::PubRel(again) | Packet::PubComp(again)) =
        again
    else {
        panic!("{again:?}");
    };
    assert_eq!((again.packet_id, again.reason), (ack.packet_id, ack.reason));
}

/// Reads a stream to its end or its first error.
fn stream(mut bytes: &[u8], version: Version) {
    while let Ok(Some(frame)) = frame(bytes, 4096) {
        assert!(frame.total <= 4096 && frame.total >= frame.body.len() + 2);
        let (one, rest) = bytes.split_at(frame.total);
        let short = frame.total == 1 + frame.body.len() + reader::variable_bytes(frame.body.len());
        if let Ok(packet) = decode(frame, version)
            && short
        {
            walk(&packet, one, version_of(&packet, version));
        }
        _ = decode_connect(frame);
        bytes = rest;
    }
}

/// A CONNECT says itself what it is.
fn version_of(packet: &Packet<'_>, version: Version) -> Version {
    if let Packet::Connect(connect) = packet { connect.version } else { version }
}

#[test]
fn arbitrary_bytes() {
    check!().with_type::<(bool, Vec<u8>)>().for_each(|(five, bytes)| {
        stream(bytes, if *five { Version::V5 } else { Version::V311 });
    });
}

/// One of each packet and of each property, the same in every run.
static CORPUS: LazyLock<Vec<(Version, Vec<u8>)>> = LazyLock::new(|| {
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    for _ in 0..300 {
        for version in BOTH {
            let sent = sent(version).new_tree(&mut runner).unwrap().current();
            all.push((version, sent.encode(version)));
        }
        all.push((Version::V5, with_properties().new_tree(&mut runner).unwrap().current()));
    }
    all.retain(|(_, bytes)| bytes.len() < 1000);
    all
});

/// The packet, changes at places, and whether its length is put right afterwards.
#[test]
fn valid_packets_with_changes() {
    check!().with_type::<(u16, bool, Vec<(u16, u8)>)>().for_each(|(which, mend, changes)| {
        let (version, bytes) = &CORPUS[usize::from(*which) % CORPUS.len()];
        let mut bytes = bytes.clone();
        for (at, value) in changes.iter().take(6) {
            match at % 3 {
                0 => {
                    let at = usize::from(at / 3) % bytes.len();
                    bytes[at] = *value;
                }
                1 => bytes.insert(usize::from(at / 3) % (bytes.len() + 1), *value),
                _ => bytes.truncate((usize::from(at / 3) % (bytes.len() + 1)).max(1)),
            }
        }
        if *mend && bytes.len() > 2 && bytes.len() < 129 {
            bytes[1] = low(bytes.len() - 2);
        }
        stream(&bytes, *version);
    });
}
