//! rumqttc reads what we write and writes what we read: every packet of both versions.
//!
//! Where rumqttc is not the standard, it is not asked: AUTH (which it does not know), a DISCONNECT of 5.0 without
//! properties (it writes a wrong length), subscription identifiers in a PUBLISH (it counts a byte too many), passwords
//! that are not text or come without a user name.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::generator::{Sent, message, sent, with_properties};
use super::*;

/// Their reading of our bytes, written again by them.
fn through_theirs(bytes: &[u8], version: Version) -> Result<Vec<u8>, String> {
    let (mut stream, mut out) = (BytesMut::from(bytes), BytesMut::new());
    match version {
        Version::V311 => {
            let packet = v4::Packet::read(&mut stream, BYTES_MAX).map_err(|error| error.to_string())?;
            packet.write(&mut out, BYTES_MAX).map_err(|error| error.to_string())?;
        }
        Version::V5 => {
            let packet = v5::Packet::read(&mut stream, Some(1 << 20)).map_err(|error| error.to_string())?;
            packet.write(&mut out, Some(1 << 20)).map_err(|error| error.to_string())?;
        }
    }
    assert!(stream.is_empty(), "they left {} bytes", stream.len());
    Ok(out.to_vec())
}

/// Everything that a packet says, properties sorted, because they write theirs in an order of their own.
fn said(packet: &Packet<'_>) -> String {
    let sorted = |properties: &Properties<'_>| {
        let mut all: Vec<String> = properties.iter().map(|property| format!("{property:?}")).collect();
        all.sort();
        all
    };
    match packet {
        Packet::Connect(connect) => format!(
            "{connect:?} {:?} {:?} {:?}",
            connect.password,
            sorted(&connect.properties),
            connect.will.map(|will| (will.payload.to_vec(), sorted(&will.properties)))
        ),
        Packet::ConnAck(ack) => {
            format!("{:?} {:?}", (ack.session_present, ack.reason), sorted(&ack.properties))
        }
        Packet::Publish(publish) => {
            let mut properties: Vec<_> = publish.properties.user().map(|pair| format!("{pair:?}")).collect();
            let mut ids: Vec<_> = publish.properties.subscription_ids().collect();
            properties.sort();
            ids.sort_unstable();
            let these = publish.properties;
            format!(
                "{:?} {:?} {:?} {properties:?} {ids:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                (publish.dup, publish.qos, publish.retain),
                (publish.topic, publish.packet_id),
                publish.payload,
                these.payload_format,
                these.message_expiry,
                these.topic_alias,
                these.response_topic,
                these.correlation_data,
                these.content_type,
            )
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!("{:?} {:?}", (ack.packet_id, ack.reason), sorted(&ack.properties))
        }
        Packet::Subscribe(subscribe) => format!(
            "{} {:?} {:?}",
            subscribe.packet_id,
            subscribe.filters().collect::<Vec<_>>(),
            sorted(&subscribe.properties)
        ),
        Packet::SubAck(ack) => format!("{:?} {:?}", (ack.packet_id, ack.reasons), sorted(&ack.properties)),
        Packet::Unsubscribe(these) => format!(
            "{} {:?} {:?}",
            these.packet_id,
            these.filters().collect::<Vec<_>>(),
            sorted(&these.properties)
        ),
        Packet::UnsubAck(ack) => format!("{:?} {:?}", (ack.packet_id, ack.reasons), sorted(&ack.properties)),
        Packet::PingReq | Packet::PingResp => String::new(),
        Packet::Disconnect(end) => format!("{} {:?}", end.reason, sorted(&end.properties)),
        Packet::Auth(auth) => format!("{} {:?}", auth.reason, sorted(&auth.properties)),
    }
}

/// Whether the packet is one that rumqttc does not handle as the standard says.
fn beyond_them(packet: &Packet<'_>, version: Version) -> bool {
    match packet {
        Packet::Connect(connect) => {
            connect.user.is_some() != connect.password.is_some()
                || connect.password.is_some_and(|password| std::str::from_utf8(password).is_err())
                || connect.user.is_some_and(str::is_empty)
                || connect.password.is_some_and(<[u8]>::is_empty)
                || version == Version::V311 && connect.client_id.is_empty()
                || connect.client_id.starts_with(' ')
        }
        Packet::Publish(publish) => publish.properties.subscription_ids().count() > 0,
        Packet::Auth(_) => true,
        Packet::Disconnect(end) => version == Version::V5 && end.properties.is_empty(),
        _ => false,
    }
}

fn agree(bytes: &[u8], version: Version) {
    let ours = read(bytes, version).unwrap();
    if beyond_them(&ours, version) {
        return;
    }
    let theirs = through_theirs(bytes, version);
    let theirs = theirs.unwrap_or_else(|error| panic!("they refuse {ours:?}: {error}"));
    let back = read(&theirs, version).unwrap_or_else(|error| panic!("we refuse theirs of {ours:?}: {error}"));
    assert_eq!(said(&ours), said(&back));
}

proptest! {
    #[test]
    fn they_read_and_write_the_same_311(sent in sent(Version::V311)) {
        agree(&sent.encode(Version::V311), Version::V311);
    }

    #[test]
    fn they_read_and_write_the_same_5(sent in sent(Version::V5)) {
        agree(&sent.encode(Version::V5), Version::V5);
    }

    #[test]
    fn they_read_and_write_the_same_properties(bytes in with_properties()) {
        agree(&bytes, Version::V5);
    }

    /// Field by field, because a PUBLISH is what everything is about.
    #[test]
    fn they_see_the_message_that_we_meant(mut message in message()) {
        message.subscription_ids.clear();
        let bytes = Sent::Publish(message.clone()).encode(Version::V5);
        let v5::Packet::Publish(theirs) = v5::Packet::read(&mut BytesMut::from(&bytes[..]), None).unwrap() else {
            panic!("not a PUBLISH");
        };
        prop_assert_eq!(&theirs.topic[..], message.topic.as_bytes());
        prop_assert_eq!(&theirs.payload[..], &message.payload[..]);
        prop_assert_eq!((theirs.qos as u8, theirs.retain, theirs.dup), (message.qos as u8, message.retain, message.dup));
        prop_assert_eq!(theirs.pkid, message.packet_id);
        let properties = theirs.properties.unwrap_or_default();
        prop_assert_eq!(properties.message_expiry_interval, message.message_expiry);
        prop_assert_eq!(properties.topic_alias, message.topic_alias);
    }
}
