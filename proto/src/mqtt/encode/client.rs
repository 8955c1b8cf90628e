//! Packets that only a client sends: used by tests and by the load generator.

use super::super::property::Id;
use super::super::reader::variable_bytes;
use super::super::{ConnectOwned, QoS, RetainHandling, Version};
use super::{binary, block, bytes, four, header, number4, string, text, two};

/// Appends a CONNECT. What has the standard's default is not written.
pub fn connect(out: &mut Vec<u8>, connect: &ConnectOwned) {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.push(if connect.version == Version::V5 { 5 } else { 4 });
    let mut flags = u8::from(connect.clean_start) << 1;
    flags |= u8::from(connect.user.is_some()) << 7 | u8::from(connect.password.is_some()) << 6;
    if let Some(will) = &connect.will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    body.push(flags);
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    if connect.version == Version::V5 {
        block(&mut body, &connect_properties(connect));
    }
    text(&mut body, &connect.client_id);
    if let Some(will) = &connect.will {
        if connect.version == Version::V5 {
            let mut properties = Vec::new();
            number4(&mut properties, Id::WillDelay, Some(will.delay_s).filter(|delay| *delay > 0));
            number4(&mut properties, Id::MessageExpiry, will.message_expiry);
            properties.extend_from_slice(&will.forwardable);
            block(&mut body, &properties);
        }
        text(&mut body, &will.topic);
        bytes(&mut body, &will.payload);
    }
    if let Some(user) = &connect.user {
        text(&mut body, user);
    }
    if let Some(password) = &connect.password {
        bytes(&mut body, password);
    }
    header(out, 0x10, body.len());
    out.extend_from_slice(&body);
}

fn connect_properties(connect: &ConnectOwned) -> Vec<u8> {
    let mut properties = Vec::new();
    let put = &mut properties;
    if connect.session_expiry_s != 0 {
        four(put, Id::SessionExpiry, connect.session_expiry_s);
    }
    if connect.receive_maximum != u16::MAX {
        two(put, Id::ReceiveMaximum, connect.receive_maximum);
    }
    number4(put, Id::MaximumPacketSize, connect.packet_bytes_max);
    if connect.topic_alias_max != 0 {
        two(put, Id::TopicAliasMaximum, connect.topic_alias_max);
    }
    if connect.request_response_information {
        put.extend_from_slice(&[Id::RequestResponseInformation as u8, 1]);
    }
    if !connect.request_problem_information {
        put.extend_from_slice(&[Id::RequestProblemInformation as u8, 0]);
    }
    string(put, Id::AuthenticationMethod, connect.authentication_method.as_deref());
    binary(put, Id::AuthenticationData, connect.authentication_data.as_deref());
    properties
}

/// A subscription to be asked for. `Default`: QoS 0, no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOut<'a> {
    /// Topic filter.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// Not what this client published itself; 5.0 only, as what follows.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

/// Appends a SUBSCRIBE for one or more filters.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    subscription_id: Option<u32>,
    filters: &[SubscribeOut<'_>],
) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        let mut properties = Vec::new();
        if let Some(id) = subscription_id {
            properties.push(Id::SubscriptionId as u8);
            super::variable(&mut properties, id as usize);
        }
        block(&mut body, &properties);
    }
    for wanted in filters {
        text(&mut body, wanted.filter);
        body.push(match version {
            Version::V311 => wanted.qos as u8,
            Version::V5 => {
                (wanted.qos as u8)
                    | u8::from(wanted.no_local) << 2
                    | u8::from(wanted.retain_as_published) << 3
                    | (wanted.retain_handling as u8) << 4
            }
        });
    }
    header(out, 0x82, body.len());
    out.extend_from_slice(&body);
}

/// Appends an UNSUBSCRIBE for one or more filters.
pub fn unsubscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, filters: &[&str]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
    }
    header(out, 0xA2, body.len());
    out.extend_from_slice(&body);
}

/// Appends an AUTH (5.0 only).
pub fn auth(out: &mut Vec<u8>, reason: u8, method: &str, data: Option<&[u8]>) {
    let mut properties = Vec::new();
    string(&mut properties, Id::AuthenticationMethod, Some(method));
    binary(&mut properties, Id::AuthenticationData, data);
    header(out, 0xF0, 1 + variable_bytes(properties.len()) + properties.len());
    out.push(reason);
    block(out, &properties);
}
