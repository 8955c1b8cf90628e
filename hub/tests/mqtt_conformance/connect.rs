//! CONNECT: its format, what is refused, client identifiers, keep-alive (section 3.1 of both standards).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::client::{Client, PATIENCE, connect, refusal, under_both, unique, with_login};
use super::wire::{self, BOTH, Bytes, Packet, Property, Publish, Version, Will};

/// A CONNECT that is not as the standard says: closed, under 3.1.1 without a CONNACK, under 5.0 at most with one that
/// says malformed or protocol error.
#[track_caller]
pub(crate) fn is_malformed(broker: &Broker, version: Version, bytes: &[u8]) {
    let code = refusal(broker, version, bytes);
    let allowed: &[Option<u8>] =
        if version == Version::V3 { &[None] } else { &[None, Some(0x81), Some(0x82)] };
    assert!(allowed.contains(&code), "{version:?}: {code:?} for {bytes:?}");
}

/// All bytes until the server closes.
fn answer(broker: &Broker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok();
    all
}

/// The refusal of a version that the server does not speak, in the words of either version.
fn refuses_version(answer: &[u8]) -> bool {
    let v5 = matches!(wire::read(answer, Version::V5), Ok(Packet::Connack(connack)) if connack.code == 0x84);
    v5 || answer == [0x20, 2, 0, 1]
}

/// A connection that opens with anything but CONNECT is closed without a word.
/// - 5.0: [MQTT-3.1.0-1] [MQTT-3.14.0-1]
/// - 3.1.1: [MQTT-3.1.0-1] [MQTT-3.2.0-1]
#[test]
fn connect_comes_first() {
    under_both(|broker, version| {
        let publish = Publish::new("early", "x").bytes(version);
        let subscribe = wire::subscribe(version, 1, &[], &[("early", 0)]);
        for first in [publish, subscribe, wire::pingreq(), wire::disconnect(), wire::ack(wire::PUBREL, 1)] {
            let mut client = Client::raw(broker.address, version);
            client.send(&first);
            assert_eq!(client.end().packets, [], "{first:?}");
        }
    });
}

/// A second CONNECT is a protocol error, and is not answered with a second CONNACK.
/// - 5.0: [MQTT-3.1.0-2] [MQTT-3.2.0-2]
/// - 3.1.1: [MQTT-3.1.0-2]
#[test]
fn connect_comes_once() {
    under_both(|broker, version| {
        let connect = connect(broker, version);
        let mut client = connect.open(broker);
        client.send(&connect.bytes());
        client.closed(&[0x82]);
    });
}

/// The answer to a good CONNECT is one CONNACK of success, first of all, and without properties that were not asked for.
/// - 5.0: [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT-3.2.2-3] [MQTT-3.2.2-8]
///   [MQTT-3.1.2-28] [MQTT-4.12.0-6] [MQTT-2.2.2-1]
/// - 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1] [MQTT-3.2.2-3]
#[test]
fn a_good_connect_is_acknowledged() {
    under_both(|broker, version| {
        let (mut client, connack) = connect(broker, version).resuming().open_with(broker);
        assert!(!connack.session_present);
        for property in &connack.properties {
            let unasked = matches!(
                property,
                Property::AuthMethod(_) | Property::AuthData(_) | Property::ResponseInformation(_)
            );
            assert!(!unasked, "{property:?}");
            assert!(!matches!(property, Property::AssignedClientId(_)), "{property:?}");
        }
        client.quiet();
    });
}

/// Another protocol's name is not taken for MQTT.
/// - 5.0: [MQTT-3.1.2-1]
/// - 3.1.1: [MQTT-3.1.2-1]
#[test]
fn the_protocol_name_is_checked() {
    under_both(|broker, version| {
        let connect = connect(broker, version);
        let level = if version == Version::V3 { 4 } else { 5 };
        for name in ["MQTX", "mqtt", "", "MQTTT"] {
            let answer = answer(broker, &connect.with(name, level, connect.flags(), &connect.payload()));
            assert!(answer.is_empty() || refuses_version(&answer), "{name:?}: {answer:?}");
        }
    });
}

/// An unknown protocol version is refused with the code for that.
/// - 5.0: [MQTT-3.1.2-2]
/// - 3.1.1: [MQTT-3.1.2-2]
#[test]
fn an_unknown_version_is_refused() {
    let broker = Broker::shared();
    for (version, level) in [(Version::V3, 0), (Version::V3, 1), (Version::V5, 6), (Version::V5, 0x7f)] {
        let connect = connect(broker, version);
        let answer = answer(broker, &connect.with("MQTT", level, connect.flags(), &connect.payload()));
        assert!(refuses_version(&answer), "level {level}: {answer:?}");
    }
}

/// The reserved bit of the connect flags is 0.
/// - 5.0: [MQTT-3.1.2-3] [MQTT-3.1.4-1]
/// - 3.1.1: [MQTT-3.1.2-3] [MQTT-3.1.4-1]
#[test]
fn the_reserved_connect_flag_is_zero() {
    under_both(|broker, version| {
        let connect = connect(broker, version);
        let level = if version == Version::V3 { 4 } else { 5 };
        let bytes = connect.with("MQTT", level, connect.flags() | 1, &connect.payload());
        is_malformed(broker, version, &bytes);
    });
}

/// Will QoS and will retain without a will, will QoS 3, and a will without topic or payload.
/// - 5.0: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.4-1] [MQTT-4.13.1-1]
/// - 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.4-1]
#[test]
fn will_flags_agree_with_the_payload() {
    under_both(|broker, version| {
        let level = if version == Version::V3 { 4 } else { 5 };
        let plain = connect(broker, version);
        for extra in [0x08, 0x10, 0x18, 0x20] {
            let bytes = plain.with("MQTT", level, plain.flags() | extra, &plain.payload());
            is_malformed(broker, version, &bytes);
        }
        let mut anonymous = plain.clone();
        (anonymous.user, anonymous.password) = (None, None);
        let bytes = anonymous.with("MQTT", level, anonymous.flags() | 0x04, &anonymous.payload());
        is_malformed(broker, version, &bytes);
        let half = anonymous.payload();
        let half = if version == Version::V5 { half.properties(&[]) } else { half }.sized("will/topic");
        is_malformed(broker, version, &anonymous.with("MQTT", level, anonymous.flags() | 0x04, &half));
        let willing = plain.clone().will(Will::new("will/topic", "x"));
        let bytes = willing.with("MQTT", level, willing.flags() | 0x18, &willing.payload());
        is_malformed(broker, version, &bytes);
    });
}

/// User name and password are in the payload if, and only if, their flags are set; under 3.1.1 no password stands alone.
/// - 5.0: [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.4-1]
/// - 3.1.1: [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22] [MQTT-3.1.4-1]
#[test]
fn login_flags_agree_with_the_payload() {
    under_both(|broker, version| {
        let level = if version == Version::V3 { 4 } else { 5 };
        let full = connect(broker, version);
        let mut user_only = full.clone();
        user_only.password = None;
        let mut neither = user_only.clone();
        neither.user = None;
        // Flag and no field.
        for (connect, flags) in [(&neither, 0x82), (&user_only, 0xc2)] {
            is_malformed(broker, version, &connect.with("MQTT", level, flags, &connect.payload()));
        }
        // Field and no flag.
        for (connect, flags) in [(&user_only, 0x02), (&full, 0x82)] {
            is_malformed(broker, version, &connect.with("MQTT", level, flags, &connect.payload()));
        }
        if version == Version::V3 {
            is_malformed(broker, version, &user_only.with("MQTT", level, 0x42, &user_only.payload()));
        }
    });
}

/// The fields of the payload have one order, the client identifier at its head; nothing follows the last one.
/// - 5.0: [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.4-1]
/// - 3.1.1: [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.4-1]
#[test]
fn the_payload_has_its_order() {
    under_both(|broker, version| {
        let level = if version == Version::V3 { 4 } else { 5 };
        let topic = unique("order");
        let full = connect(broker, version).will(Will::new(&topic, "from the right field"));
        let mut witness = connect(broker, version).open(broker);
        witness.subscribe(&topic, 0);
        full.open(broker).vanish();
        witness.hear(&topic, "from the right field", 0);
        is_malformed(broker, version, &full.with("MQTT", level, full.flags(), &Bytes::default()));
        is_malformed(broker, version, &full.with("MQTT", level, full.flags(), &full.payload().raw(b"more")));
    });
}

/// What is no text of the standard is refused in client identifier, will topic, user name and user property.
/// - 5.0: [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
/// - 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]
#[test]
fn texts_of_connect_are_texts() {
    let bad: [&[u8]; 5] = [b"a\xff", b"a\xed\xa0\x80", b"a\0b", b"a\xc0\x80", b"a\xf5\x80\x80\x80"];
    under_both(|broker, version| {
        let level = if version == Version::V3 { 4 } else { 5 };
        let good = connect(broker, version);
        let (user, password) = (good.user.clone().unwrap(), good.password.clone().unwrap());
        for text in bad {
            let id = Bytes::default().sized(text).sized(&user).sized(&password);
            is_malformed(broker, version, &good.with("MQTT", level, 0xc2, &id));
            let name = Bytes::default().sized(&good.id).sized(text).sized(&password);
            is_malformed(broker, version, &good.with("MQTT", level, 0xc2, &name));
            let will = Bytes::default().sized(&good.id);
            let will = if version == Version::V5 { will.properties(&[]) } else { will };
            let will = will.sized(text).sized("x").sized(&user).sized(&password);
            is_malformed(broker, version, &good.with("MQTT", level, 0xc6, &will));
            if version == Version::V5 {
                for pair in
                    [Bytes::default().sized("name").sized(text), Bytes::default().sized(text).sized("v")]
                {
                    is_malformed(
                        broker,
                        version,
                        &with_raw_properties(&good, &Bytes::default().byte(0x26).raw(&pair.0)),
                    );
                }
            }
        }
    });
}

/// A CONNECT of MQTT 5.0 with these bytes as its properties.
fn with_raw_properties(connect: &wire::Connect, properties: &Bytes) -> Vec<u8> {
    Bytes::default()
        .sized("MQTT")
        .byte(5)
        .byte(connect.flags())
        .two(connect.keep_alive)
        .variable(properties.0.len())
        .raw(&properties.0)
        .raw(&connect.payload().0)
        .packet(wire::CONNECT << 4)
}

/// Properties that are double, out of range, of another packet, unknown, or cut off.
/// - 5.0: [MQTT-3.1.4-1] [MQTT-4.13.1-1] [MQTT-2.2.2-1]
#[test]
fn properties_of_connect_are_checked() {
    let broker = Broker::shared();
    let good = connect(broker, Version::V5);
    let wrong = [
        vec![Property::SessionExpiry(1), Property::SessionExpiry(1)],
        vec![Property::ReceiveMaximum(0)],
        vec![Property::ReceiveMaximum(1), Property::ReceiveMaximum(1)],
        vec![Property::MaximumPacketSize(0)],
        vec![Property::TopicAliasMaximum(1), Property::TopicAliasMaximum(1)],
        vec![Property::RequestProblem(2)],
        vec![Property::RequestResponse(2)],
        vec![Property::RequestProblem(1), Property::RequestProblem(1)],
        vec![Property::TopicAlias(1)],
        vec![Property::SubscriptionId(1)],
        vec![Property::WillDelay(1)],
        vec![Property::AssignedClientId("x".into())],
        vec![Property::ReasonString("x".into())],
    ];
    for properties in wrong {
        let bytes = wire::Connect { properties, ..good.clone() }.bytes();
        is_malformed(broker, Version::V5, &bytes);
    }
    if !broker.is_mosquitto_which("takes authentication data without a method") {
        let data = good.clone().with_property(Property::AuthData(vec![1]));
        is_malformed(broker, Version::V5, &data.bytes());
    }
    is_malformed(broker, Version::V5, &with_raw_properties(&good, &Bytes::default().byte(0x7f).byte(0)));
    is_malformed(broker, Version::V5, &with_raw_properties(&good, &Bytes::default().byte(0x11).two(0)));
    // No property length at all: the packet ends after the keep-alive.
    let short = Bytes::default().sized("MQTT").byte(5).byte(2).two(0).packet(wire::CONNECT << 4);
    is_malformed(broker, Version::V5, &short);
    let beyond =
        Bytes::default().sized("MQTT").byte(5).byte(2).two(0).variable(100).packet(wire::CONNECT << 4);
    is_malformed(broker, Version::V5, &beyond);
    for double in [Property::WillDelay(1), Property::MessageExpiry(1), Property::PayloadFormat(2)] {
        let mut will = Will::new("will/topic", "x");
        will.properties = vec![double.clone(), double];
        is_malformed(broker, Version::V5, &good.clone().will(will).bytes());
    }
}

/// Client identifiers of 1 to 23 letters and digits are good, whatever they are.
/// - 5.0: [MQTT-3.1.3-5]
/// - 3.1.1: [MQTT-3.1.3-5]
#[test]
fn simple_client_identifiers_are_good() {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    under_both(|broker, version| {
        for id in [&all[..23], &all[23..46], &all[39..62], "Z", "7"] {
            connect(broker, version).id(id).open(broker).leave();
        }
    });
}

/// Without a client identifier the server makes one: a new one each time, told to the client, good to come back with.
/// - 5.0: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn a_client_identifier_is_assigned() {
    let broker = Broker::shared();
    let nameless = connect(broker, Version::V5).id("");
    let assigned = |connect: &wire::Connect| {
        let (client, connack) = connect.open_with(broker);
        let id = connack.find(|property| match property {
            Property::AssignedClientId(id) => Some(id.clone()),
            _ => None,
        });
        (client, id.expect("an assigned client identifier"))
    };
    let (mut first, one) = assigned(&nameless);
    let (mut second, two) = assigned(&nameless.clone().resuming());
    assert!(!one.is_empty() && !two.is_empty() && one != two);
    first.quiet();
    second.quiet();
    let (client, kept) = assigned(&nameless.persistent());
    client.vanish();
    let (_, connack) = connect(broker, Version::V5).id(&kept).persistent().open_with(broker);
    assert!(connack.session_present, "the assigned identifier is the session's");
}

/// Under 3.1.1 a client without an identifier is served if its session is clean, and refused with code 2 if not.
/// - 3.1.1: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
#[test]
fn a_client_without_identifier_has_a_clean_session() {
    let broker = Broker::shared();
    let nameless = connect(broker, Version::V3).id("");
    let (mut first, mut second) = (nameless.open(broker), nameless.open(broker));
    first.quiet();
    second.quiet();
    assert_eq!(nameless.resuming().refused(broker), Some(2));
}

/// A wrong password is refused with a code for it, the connection is closed, and what came behind is not looked at.
/// - 5.0: [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
/// - 3.1.1: [MQTT-3.1.4-5] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
#[test]
fn nothing_is_done_for_whom_is_refused() {
    let Some(broker) = Broker::alone() else { return };
    for version in BOTH {
        let topic = unique("refused");
        let mut witness = connect(&broker, version).open(&broker);
        witness.subscribe(&topic, 0);
        let stranger = with_login(&broker.wrong_password(), version);
        let mut bytes = stranger.bytes();
        bytes.extend(Publish::new(&topic, "from a stranger").retained().bytes(version));
        bytes.extend(wire::subscribe(version, 1, &[], &[(&topic, 0)]));
        let code = refusal(&broker, version, &bytes).expect("a code");
        let allowed: &[u8] = if version == Version::V3 { &[4, 5] } else { &[0x86, 0x87] };
        assert!(allowed.contains(&code), "{code:#04x}");
        witness.quiet();
        let mut later = connect(&broker, version).open(&broker);
        later.subscribe(&topic, 0);
        later.quiet();
    }
}

/// An identifier that belongs to another identity is refused with the code for identifiers.
/// - 5.0: [MQTT-3.1.3-8] [MQTT-3.2.2-7]
/// - 3.1.1: [MQTT-3.1.3-9] [MQTT-3.2.2-5]
#[test]
fn somebody_elses_identifier_is_refused() {
    let Some(broker) = Broker::alone() else { return };
    if !broker.is_ours() {
        return; // mosquitto lets anybody take over
    }
    for version in BOTH {
        let owner = connect(&broker, version).persistent();
        let mut client = owner.open(&broker);
        let thief = with_login(&broker.reader(), version).id(&owner.id);
        let code = if version == Version::V3 { 2 } else { 0x85 };
        assert_eq!(thief.refused(&broker), Some(code));
        client.quiet();
    }
}

/// A client need not wait for CONNACK; packets may come glued together or byte by byte.
/// - 5.0: [MQTT-4.2-1] [MQTT-3.2.0-1]
/// - 3.1.1: [MQTT-7.1.1-1] [MQTT-3.2.0-1]
#[test]
fn packets_come_in_any_pieces() {
    under_both(|broker, version| {
        let topic = unique("pieces");
        let mut bytes = connect(broker, version).bytes();
        bytes.extend(wire::subscribe(version, 9, &[], &[(&topic, 1)]));
        bytes.extend(Publish::new(&topic, "glued").qos(1, 10).bytes(version));
        let check = |client: &mut Client| {
            assert_eq!(client.connack().code, 0);
            assert!(matches!(client.next(), Packet::Suback { id: 9, codes, .. } if codes == [1]));
            // Acknowledgement and delivery, in any order.
            let both = [client.next(), client.next()];
            assert!(
                both.iter().any(|packet| matches!(packet, Packet::Ack { id: 10, code: 0, .. })),
                "{both:?}"
            );
            assert!(both.iter().any(|packet| matches!(packet, Packet::Publish(p) if p.text() == "glued")));
        };
        let mut glued = Client::raw(broker.address, version);
        glued.send(&bytes);
        check(&mut glued);
        let mut slow = Client::raw(broker.address, version);
        for byte in bytes {
            slow.send(&[byte]);
        }
        check(&mut slow);
    });
}

/// A silent client is cut off after one and a half times its keep-alive, as if the network had failed; PINGREQ keeps it.
/// - 5.0: [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.12.4-1]
/// - 3.1.1: [MQTT-3.1.2-24] [MQTT-3.12.4-1]
#[test]
fn a_silent_client_is_cut_off() {
    let broker = Broker::shared();
    std::thread::scope(|scope| {
        for version in BOTH {
            let topic = unique("silent");
            let mut witness = connect(broker, version).open(broker);
            witness.subscribe(&topic, 0);
            scope.spawn(move || {
                let connect = connect(broker, version).keep_alive(1).will(Will::new(&topic, "silence"));
                let mut client = connect.open(broker);
                let start = Instant::now();
                client.closed(&[0x8d]);
                let lasted = start.elapsed();
                assert!(lasted > Duration::from_millis(1_400), "{lasted:?}");
                let coarse = broker.is_mosquitto_which("looks for silent clients every five seconds");
                let most = if coarse { 8_000 } else { 3_500 };
                assert!(lasted < Duration::from_millis(most), "{lasted:?}");
                witness.hear(&topic, "silence", 0);
            });
            scope.spawn(move || {
                let mut client = connect(broker, version).keep_alive(1).open(broker);
                for _ in 0..5 {
                    std::thread::sleep(Duration::from_millis(600));
                    client.quiet();
                }
            });
        }
    });
}
