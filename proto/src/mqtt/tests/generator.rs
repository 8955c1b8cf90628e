//! Random packets: as what was meant ([`Sent`]), and as bytes with every property that a packet may have.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::property::Kind;
use super::*;
use crate::mqtt::encode::{AckKind, ConnAckOut, PublishOut, SubscribeOut};

/// A packet to be encoded, owned.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    Connect(Box<ConnectOwned>),
    ConnAck { present: bool, reason: u8, numbers: [Option<u16>; 4], texts: [Option<String>; 4] },
    Publish(Message),
    Ack(AckKind, u16, u8),
    Subscribe(u16, Option<u32>, Vec<(String, u8)>),
    SubAck(u16, Vec<u8>),
    Unsubscribe(u16, Vec<String>),
    UnsubAck(u16, Vec<u8>),
    PingReq,
    PingResp,
    Disconnect(u8, Option<u32>, Option<String>),
    Auth(u8, String, Option<Vec<u8>>),
}

/// A PUBLISH, owned.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet_id: u16,
    pub(super) forwardable: Vec<u8>,
    pub(super) message_expiry: Option<u32>,
    pub(super) topic_alias: Option<u16>,
    pub(super) subscription_ids: Vec<u32>,
    pub(super) payload: Vec<u8>,
}

impl Message {
    pub(super) fn out(&self) -> PublishOut<'_> {
        PublishOut {
            topic: &self.topic,
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            packet_id: self.packet_id,
            forwardable: &self.forwardable,
            message_expiry: self.message_expiry,
            topic_alias: self.topic_alias,
            subscription_ids: &self.subscription_ids,
            payload: &self.payload,
        }
    }
}

/// Subscription options of 5.0 as a `SubscribeOut`.
pub(super) fn subscription((filter, bits): &(String, u8)) -> SubscribeOut<'_> {
    SubscribeOut {
        filter,
        qos: QoS::try_from(bits & 3).unwrap(),
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]
            [usize::from(bits >> 4)],
    }
}

pub(super) fn connack_out<'a>(
    present: bool,
    reason: u8,
    numbers: &[Option<u16>; 4],
    texts: &'a [Option<String>; 4],
) -> ConnAckOut<'a> {
    ConnAckOut {
        session_present: present,
        reason,
        session_expiry: numbers[0].map(u32::from),
        receive_maximum: numbers[1],
        packet_bytes_max: numbers[1].map(u32::from),
        topic_alias_max: numbers[2],
        server_keep_alive: numbers[3],
        assigned_client_id: texts[0].as_deref(),
        reason_string: texts[1].as_deref(),
        response_information: texts[2].as_deref(),
        server_reference: texts[3].as_deref(),
        maximum_qos: present.then_some(QoS::AtLeastOnce),
        shared_available: Some(present),
        ..ConnAckOut::default()
    }
}

impl Sent {
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Connect(connect) => encode::connect(&mut out, connect),
            Self::ConnAck { present, reason, numbers, texts } => {
                encode::connack(&mut out, version, &connack_out(*present, *reason, numbers, texts));
            }
            Self::Publish(message) => {
                encode::publish(&mut out, version, &message.out());
                assert_eq!(out.len(), encode::publish_len(version, &message.out()));
            }
            Self::Ack(kind, id, reason) => encode::ack(&mut out, version, *kind, *id, *reason),
            Self::Subscribe(id, subscription_id, filters) => {
                let filters: Vec<_> = filters.iter().map(subscription).collect();
                encode::subscribe(&mut out, version, *id, *subscription_id, &filters);
            }
            Self::SubAck(id, reasons) => encode::suback(&mut out, version, *id, reasons),
            Self::Unsubscribe(id, filters) => {
                let filters: Vec<_> = filters.iter().map(String::as_str).collect();
                encode::unsubscribe(&mut out, version, *id, &filters);
            }
            Self::UnsubAck(id, reasons) => encode::unsuback(&mut out, version, *id, reasons),
            Self::PingReq => encode::pingreq(&mut out),
            Self::PingResp => encode::pingresp(&mut out),
            Self::Disconnect(reason, expiry, text) => {
                encode::disconnect_with(&mut out, version, *reason, *expiry, text.as_deref());
            }
            Self::Auth(reason, method, data) => encode::auth(&mut out, *reason, method, data.as_deref()),
        }
        out
    }
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![4 => "[ -~]{0,12}", 1 => "[äöü€𝄞\u{1}\u{FEFF}]{0,4}"].boxed()
}

pub(super) fn topic() -> BoxedStrategy<String> {
    prop_oneof![8 => "[a-z$ü][a-z/ ]{0,11}", 1 => Just("/".into()), 1 => Just("a".repeat(300))].boxed()
}

pub(super) fn filter() -> BoxedStrategy<String> {
    let level = prop_oneof![3 => "[a-zö ]{0,5}", 1 => Just("+".into())];
    (vec(level, 1..5), any::<bool>(), any::<bool>())
        .prop_map(|(mut levels, rest, shared): (Vec<String>, bool, bool)| {
            if rest {
                levels.push("#".into());
            }
            if levels == [""] {
                levels = vec!["a".into()];
            }
            format!("{}{}", if shared { "$share/g/" } else { "" }, levels.join("/"))
        })
        .boxed()
}

fn bytes() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..400)].boxed()
}

fn qos() -> impl Strategy<Value = QoS> {
    (0_u8..3).prop_map(|bits| QoS::try_from(bits).unwrap())
}

/// One encoded property with a value that is allowed.
fn property(id: Id) -> BoxedStrategy<Vec<u8>> {
    let value = match id.kind() {
        Kind::Byte => (0_u8..2).prop_map(|value| vec![value]).boxed(),
        Kind::Two => (1_u16..).prop_map(|value| value.to_be_bytes().to_vec()).boxed(),
        Kind::Four => (1_u32..).prop_map(|value| value.to_be_bytes().to_vec()).boxed(),
        Kind::Variable => prop_oneof![
            (1_u8..128).prop_map(|value| vec![value]),
            (1_u8..128).prop_map(|value| vec![0x80, value]),
            (1_u8..128).prop_map(|value| vec![0xFF, 0x80, 0x80, value]),
        ]
        .boxed(),
        Kind::Text if id == Id::ResponseTopic => topic().prop_map(field).boxed(),
        Kind::Text => text().prop_map(field).boxed(),
        Kind::Binary => bytes().prop_map(field).boxed(),
        Kind::Pair => (text(), text()).prop_map(|(name, value)| [field(name), field(value)].concat()).boxed(),
    };
    value.prop_map(move |value| [vec![id as u8], value].concat()).boxed()
}

/// Some of these properties and user properties, in any order.
pub(super) fn properties(ids: &'static [Id]) -> BoxedStrategy<Vec<u8>> {
    let each: Vec<_> = ids.iter().map(|id| option::of(property(*id))).collect();
    (each, vec(property(Id::UserProperty), 0..3), any::<bool>())
        .prop_map(|(each, user, none)| {
            let mut all: Vec<Vec<u8>> = each.into_iter().flatten().chain(user).collect();
            if none {
                all.clear();
            }
            all
        })
        .prop_shuffle()
        .prop_map(|all| all.concat())
        .boxed()
}

const FORWARDABLE: &[Id] = &[Id::PayloadFormat, Id::ContentType, Id::ResponseTopic, Id::CorrelationData];

pub(super) fn message() -> impl Strategy<Value = Message> {
    let first = (topic(), qos(), any::<bool>(), any::<bool>(), 1_u16.., properties(FORWARDABLE));
    let numbers =
        (option::of(any::<u32>()), option::of(1_u16..), vec(1_u32..=VARIABLE_BYTE_INTEGER_MAX, 0..3));
    (first, numbers, bytes()).prop_map(
        |(
            (topic, qos, retain, dup, id, forwardable),
            (message_expiry, topic_alias, subscription_ids),
            payload,
        )| {
            Message {
                topic,
                qos,
                retain,
                dup: dup && qos != QoS::AtMostOnce,
                packet_id: if qos == QoS::AtMostOnce { 0 } else { id },
                forwardable,
                message_expiry,
                topic_alias,
                subscription_ids,
                payload,
            }
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = ConnectOwned> {
    let will = (
        topic(),
        bytes(),
        qos(),
        any::<bool>(),
        any::<u32>(),
        option::of(any::<u32>()),
        properties(FORWARDABLE),
    )
        .prop_map(move |(topic, payload, qos, retain, delay_s, message_expiry, forwardable)| {
            let v5 = version == Version::V5;
            WillOwned {
                topic,
                payload: payload.into(),
                qos,
                retain,
                delay_s: if v5 { delay_s } else { 0 },
                message_expiry: message_expiry.filter(|_| v5),
                forwardable: if v5 { forwardable } else { Vec::new() },
            }
        });
    let login = (text(), any::<bool>(), any::<u16>(), option::of(text()), option::of(bytes()));
    let numbers = (any::<u32>(), 1_u16.., option::of(1_u32..), any::<u16>(), any::<bool>(), any::<bool>());
    let exchange = option::of((text(), option::of(bytes())));
    (login, option::of(will), numbers, exchange).prop_map(move |(login, will, numbers, exchange)| {
        let mut connect = ConnectOwned::new(version, login.0);
        (connect.clean_start, connect.keep_alive, connect.user, connect.password) =
            (login.1, login.2, login.3, login.4);
        connect.will = will;
        if version == Version::V311 {
            connect.password = connect.password.filter(|_| connect.user.is_some());
            connect.session_expiry_s = if connect.clean_start { 0 } else { u32::MAX };
            return connect;
        }
        (connect.session_expiry_s, connect.receive_maximum, connect.packet_bytes_max) =
            (numbers.0, numbers.1, numbers.2);
        connect.topic_alias_max = numbers.3;
        (connect.request_response_information, connect.request_problem_information) = (numbers.4, numbers.5);
        if let Some((method, data)) = exchange {
            (connect.authentication_method, connect.authentication_data) = (Some(method), data);
        }
        connect
    })
}

fn code(kind: u8) -> impl Strategy<Value = u8> {
    proptest::sample::select((0..=255).filter(|code| reason::allowed(kind, *code)).collect::<Vec<_>>())
}

fn acknowledgement() -> impl Strategy<Value = Sent> {
    prop_oneof![
        (1_u16.., code(4)).prop_map(|(id, code)| Sent::Ack(AckKind::PubAck, id, code)),
        (1_u16.., code(5)).prop_map(|(id, code)| Sent::Ack(AckKind::PubRec, id, code)),
        (1_u16.., code(6)).prop_map(|(id, code)| Sent::Ack(AckKind::PubRel, id, code)),
        (1_u16.., code(7)).prop_map(|(id, code)| Sent::Ack(AckKind::PubComp, id, code)),
    ]
}

/// Every packet of a version.
pub(super) fn sent(version: Version) -> BoxedStrategy<Sent> {
    let options = (filter(), 0_u8..3, any::<bool>(), any::<bool>(), 0_u8..3).prop_map(
        move |(filter, qos, no_local, as_published, handling)| {
            let no_local = no_local && topic::shared(&filter).is_none();
            let rest = u8::from(no_local) << 2 | u8::from(as_published) << 3 | handling << 4;
            (filter, if version == Version::V5 { qos | rest } else { qos })
        },
    );
    let both = prop_oneof![
        4 => message().prop_map(Sent::Publish),
        2 => connect(version).prop_map(|connect| Sent::Connect(Box::new(connect))),
        2 => acknowledgement(),
        1 => (any::<bool>(), code(2), [option::of(1_u16..), option::of(1_u16..), option::of(1_u16..), option::of(1_u16..)],
            [option::of(text()), option::of(text()), option::of(text()), option::of(text())])
            .prop_map(|(present, reason, numbers, texts)| {
                Sent::ConnAck { present: present && reason == 0, reason, numbers, texts }
            }),
        2 => (1_u16.., option::of(1_u32..=VARIABLE_BYTE_INTEGER_MAX), vec(options, 1..4))
            .prop_map(|(id, subscription, filters)| Sent::Subscribe(id, subscription, filters)),
        1 => (1_u16.., vec(code(9), 1..4)).prop_map(|(id, codes)| Sent::SubAck(id, codes)),
        1 => (1_u16.., vec(filter(), 1..4)).prop_map(|(id, filters)| Sent::Unsubscribe(id, filters)),
        1 => (1_u16.., vec(code(11), 1..4)).prop_map(|(id, codes)| Sent::UnsubAck(id, codes)),
        1 => (code(14), option::of(any::<u32>()), option::of(text()))
            .prop_map(|(code, expiry, text)| Sent::Disconnect(code, expiry, text)),
        1 => prop_oneof![Just(Sent::PingReq), Just(Sent::PingResp)],
    ];
    match version {
        Version::V311 => both.boxed(),
        Version::V5 => prop_oneof![
            14 => both,
            1 => (code(15), text(), option::of(bytes())).prop_map(|(code, method, data)| Sent::Auth(code, method, data)),
        ]
        .boxed(),
    }
}

/// MQTT 5 packets with every property that they may have, as bytes, in any order.
pub(super) fn with_properties() -> BoxedStrategy<Vec<u8>> {
    const METHOD: &[u8] = &[21, 0, 1, b'm'];
    let block = |parts: &[&[u8]]| {
        let properties = parts.concat();
        let mut out = packet(0, &[&properties]);
        out.remove(0); // a block is a packet without its first byte
        out
    };
    let part = |first: u8, head: Vec<u8>, ids: &'static [Id], fixed: &'static [u8], tail: Vec<u8>| {
        properties(ids)
            .prop_map(move |properties| packet(first, &[&head, &block(&[fixed, &properties]), &tail]))
            .boxed()
    };
    let reason_only: &[Id] = &[Id::ReasonString];
    prop_oneof![
        part(
            0x10,
            [field("MQTT"), vec![5, 2, 0, 9]].concat(),
            &[
                Id::SessionExpiry,
                Id::ReceiveMaximum,
                Id::MaximumPacketSize,
                Id::TopicAliasMaximum,
                Id::RequestResponseInformation,
                Id::RequestProblemInformation,
                Id::AuthenticationData,
            ],
            METHOD,
            field("id")
        ),
        part(
            0x10,
            [field("MQTT"), vec![5, 6, 0, 9, 0], field("id")].concat(),
            &[
                Id::WillDelay,
                Id::PayloadFormat,
                Id::MessageExpiry,
                Id::ContentType,
                Id::ResponseTopic,
                Id::CorrelationData,
            ],
            &[],
            [field("t"), field("p")].concat()
        ),
        part(
            0x20,
            vec![1, 0],
            &[
                Id::SessionExpiry,
                Id::ReceiveMaximum,
                Id::MaximumQos,
                Id::RetainAvailable,
                Id::MaximumPacketSize,
                Id::AssignedClientId,
                Id::TopicAliasMaximum,
                Id::ReasonString,
                Id::WildcardSubscriptionAvailable,
                Id::SubscriptionIdsAvailable,
                Id::SharedSubscriptionAvailable,
                Id::ServerKeepAlive,
                Id::ResponseInformation,
                Id::ServerReference,
                Id::AuthenticationData,
            ],
            METHOD,
            vec![]
        ),
        part(
            0x3B,
            [field("t"), vec![0, 7]].concat(),
            &[
                Id::PayloadFormat,
                Id::MessageExpiry,
                Id::TopicAlias,
                Id::ResponseTopic,
                Id::CorrelationData,
                Id::SubscriptionId,
                Id::ContentType,
            ],
            &[],
            b"payload".to_vec()
        ),
        part(0x40, vec![0, 7, 0x10], reason_only, &[], vec![]),
        part(0x50, vec![0, 7, 0x97], reason_only, &[], vec![]),
        part(0x62, vec![0, 7, 0x92], reason_only, &[], vec![]),
        part(0x70, vec![0, 7, 0], reason_only, &[], vec![]),
        part(0x82, vec![0, 7], &[Id::SubscriptionId], &[], [field("a/+"), vec![0x2D]].concat()),
        part(0x90, vec![0, 7], reason_only, &[], vec![2, 0x87]),
        part(0xA2, vec![0, 7], &[], &[], field("a/#")),
        part(0xB0, vec![0, 7], reason_only, &[], vec![0, 0x11]),
        part(0xE0, vec![0x8E], &[Id::SessionExpiry, Id::ReasonString, Id::ServerReference], &[], vec![]),
        part(0xF0, vec![0x18], &[Id::AuthenticationData, Id::ReasonString], METHOD, vec![]),
    ]
    .boxed()
}
