//! What is encoded is decoded to the same, and no part of a packet is one.

use proptest::prelude::*;

use super::generator::{Sent, connack_out, message, sent, subscription, version, with_properties};
use super::*;
use crate::mqtt::encode::AckKind;

/// Compares a decoded packet with what was meant.
fn same(sent: &Sent, packet: &Packet<'_>, version: Version) {
    let v5 = version == Version::V5;
    match (sent, packet) {
        (Sent::Connect(sent), Packet::Connect(got)) => assert_eq!(**sent, got.to_owned()),
        (Sent::ConnAck { present, reason, numbers, texts }, Packet::ConnAck(got)) => {
            assert_eq!(got.session_present, *present);
            let expected = if v5 { *reason } else { reason::connect_return_code(*reason).unwrap_or(3) };
            assert_eq!(got.reason, expected);
            let out = connack_out(*present, *reason, numbers, texts);
            let number = |id, value: Option<u32>| assert_eq!(got.properties.number(id), value.filter(|_| v5));
            number(Id::SessionExpiry, out.session_expiry);
            number(Id::ReceiveMaximum, out.receive_maximum.map(u32::from));
            number(Id::MaximumPacketSize, out.packet_bytes_max);
            number(Id::TopicAliasMaximum, out.topic_alias_max.map(u32::from));
            number(Id::ServerKeepAlive, out.server_keep_alive.map(u32::from));
            number(Id::MaximumQos, present.then_some(1));
            number(Id::SharedSubscriptionAvailable, (!present).then_some(0));
            let text = |id, value: Option<&str>| assert_eq!(got.properties.text(id), value.filter(|_| v5));
            text(Id::AssignedClientId, out.assigned_client_id);
            text(Id::ReasonString, out.reason_string);
            text(Id::ResponseInformation, out.response_information);
            text(Id::ServerReference, out.server_reference);
        }
        (Sent::Publish(sent), Packet::Publish(got)) => {
            assert_eq!((got.topic, got.payload), (sent.topic.as_str(), sent.payload.as_slice()));
            assert_eq!((got.qos, got.retain, got.dup), (sent.qos, sent.retain, sent.dup));
            assert_eq!(got.packet_id, sent.packet_id);
            let properties = got.properties;
            let (mut forwarded, mut ids) = (Vec::new(), Vec::new());
            properties.forwardable(&mut forwarded);
            ids.extend(properties.subscription_ids());
            if v5 {
                assert_eq!(forwarded, sent.forwardable);
                assert_eq!(properties.has_forwardable(), !sent.forwardable.is_empty());
                assert_eq!(ids, sent.subscription_ids);
                assert_eq!(properties.message_expiry, sent.message_expiry);
                assert_eq!(properties.topic_alias, sent.topic_alias);
            } else {
                assert_eq!(properties, PublishProperties::default());
            }
        }
        (Sent::Ack(AckKind::PubAck, id, code), Packet::PubAck(got))
        | (Sent::Ack(AckKind::PubRec, id, code), Packet::PubRec(got))
        | (Sent::Ack(AckKind::PubRel, id, code), Packet::PubRel(got))
        | (Sent::Ack(AckKind::PubComp, id, code), Packet::PubComp(got)) => {
            assert_eq!((got.packet_id, got.reason), (*id, if v5 { *code } else { 0 }));
        }
        (Sent::Subscribe(id, subscription_id, filters), Packet::Subscribe(got)) => {
            assert_eq!((got.packet_id, got.subscription_id()), (*id, subscription_id.filter(|_| v5)));
            let got: Vec<_> = got.filters().collect();
            assert_eq!(got.len(), filters.len());
            for (sent, got) in filters.iter().map(subscription).zip(got) {
                assert_eq!((sent.filter, sent.qos), (got.filter, got.qos));
                assert_eq!(
                    (sent.no_local, sent.retain_as_published),
                    (got.no_local, got.retain_as_published)
                );
                assert_eq!(sent.retain_handling, got.retain_handling);
            }
        }
        (Sent::SubAck(id, codes), Packet::SubAck(got)) => {
            let old = |code: &u8| if *code > 2 { 0x80 } else { *code };
            let codes: Vec<u8> = if v5 { codes.clone() } else { codes.iter().map(old).collect() };
            assert_eq!((got.packet_id, got.reasons), (*id, &codes[..]));
        }
        (Sent::Unsubscribe(id, filters), Packet::Unsubscribe(got)) => {
            assert_eq!(got.packet_id, *id);
            assert!(got.filters().eq(filters.iter().map(String::as_str)));
        }
        (Sent::UnsubAck(id, codes), Packet::UnsubAck(got)) => {
            assert_eq!((got.packet_id, got.reasons), (*id, if v5 { &codes[..] } else { &[] }));
        }
        (Sent::PingReq, Packet::PingReq) | (Sent::PingResp, Packet::PingResp) => {}
        (Sent::Disconnect(code, expiry, text), Packet::Disconnect(got)) if v5 => {
            assert_eq!(got.reason, *code);
            assert_eq!(got.properties.number(Id::SessionExpiry), *expiry);
            assert_eq!(got.properties.text(Id::ReasonString), text.as_deref());
        }
        (Sent::Disconnect(..), Packet::Disconnect(got)) => assert_eq!(got.reason, 0),
        (Sent::Auth(code, method, data), Packet::Auth(got)) => {
            assert_eq!(got.reason, *code);
            assert_eq!(got.properties.text(Id::AuthenticationMethod), Some(method.as_str()));
            assert_eq!(got.properties.binary(Id::AuthenticationData), data.as_deref());
        }
        (sent, got) => panic!("{sent:?} became {got:?}"),
    }
}

/// A packet cut anywhere needs more bytes; a body cut anywhere, under a header that says so, is read without a panic.
fn cut(bytes: &[u8], version: Version) {
    for end in 0..bytes.len() {
        assert_eq!(frame(&bytes[..end], BYTES_MAX), Ok(None));
    }
    let body = frame(bytes, BYTES_MAX).unwrap().unwrap().body;
    for end in 0..body.len() {
        let shorter = packet(bytes[0], &[&body[..end]]);
        if let Ok(read) = read(&shorter, version) {
            fuzz::walk(&read, &shorter, version);
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded((version, sent) in version().prop_flat_map(|version| (Just(version), sent(version)))) {
        let bytes = sent.encode(version);
        same(&sent, &read(&bytes, version).unwrap(), version);
        cut(&bytes, version);
    }

    #[test]
    fn every_property_is_found_and_what_is_passed_on_keeps_its_order(bytes in with_properties()) {
        let got = read(&bytes, Version::V5).unwrap();
        fuzz::walk(&got, &bytes, Version::V5);
        cut(&bytes, Version::V5);
    }

    #[test]
    fn packets_follow_one_another(one in message(), other in message()) {
        let (one, other) = (Sent::Publish(one).encode(Version::V5), Sent::Publish(other).encode(Version::V5));
        let stream = [one.clone(), other.clone()].concat();
        let first = frame(&stream, BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(first.total, one.len());
        let second = frame(&stream[first.total..], BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(second.total, other.len());
    }
}

#[test]
fn a_packet_beyond_the_bound_is_refused_at_its_header() {
    let header = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(frame(&header, 1000), Err(DecodeError::TooLarge { bytes: 268_435_460, max: 1000 }));
    assert_eq!(frame(&[0x30, 10], 12), Ok(None));
    assert_eq!(frame(&[0x30, 11], 12), Err(DecodeError::TooLarge { bytes: 13, max: 12 }));
}

#[test]
fn too_long_a_string_is_cut_at_a_character() {
    let mut long = "a".repeat(65_534);
    long.push('ü');
    let mut out = Vec::new();
    encode::disconnect(&mut out, Version::V5, 0x98, Some(&long));
    let Packet::Disconnect(got) = read(&out, Version::V5).unwrap() else { panic!() };
    assert_eq!(got.properties.text(Id::ReasonString), Some(&long[..65_534]));
}
