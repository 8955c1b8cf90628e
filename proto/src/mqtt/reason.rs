//! The reason codes of MQTT 5.0 (§2.4), and their twins in 3.1.1.

/// Done. Also: normal disconnection, granted QoS 0.
pub const SUCCESS: u8 = 0x00;
/// SUBACK: granted QoS 1.
pub const GRANTED_QOS_1: u8 = 0x01;
/// SUBACK: granted QoS 2.
pub const GRANTED_QOS_2: u8 = 0x02;
/// DISCONNECT by a client that wants its will published.
pub const DISCONNECT_WITH_WILL: u8 = 0x04;
/// Taken, nobody subscribes.
pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// UNSUBACK: there was no such subscription.
pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
/// AUTH: go on.
pub const CONTINUE_AUTHENTICATION: u8 = 0x18;
/// AUTH: once more.
pub const REAUTHENTICATE: u8 = 0x19;
/// No other code fits, or none shall be told.
pub const UNSPECIFIED_ERROR: u8 = 0x80;
/// Cannot be parsed.
pub const MALFORMED_PACKET: u8 = 0x81;
/// Parsed, but not allowed.
pub const PROTOCOL_ERROR: u8 = 0x82;
/// Valid, but not taken by this server.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// CONNACK: neither 3.1.1 nor 5.0.
pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
/// CONNACK: a client id that this client may not have.
pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
/// CONNACK: wrong user or password.
pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
/// Known, but not allowed.
pub const NOT_AUTHORIZED: u8 = 0x87;
/// CONNACK: not now.
pub const SERVER_UNAVAILABLE: u8 = 0x88;
/// Too much to do; later.
pub const SERVER_BUSY: u8 = 0x89;
/// CONNACK: shut out by a person or a rate limit.
pub const BANNED: u8 = 0x8A;
/// DISCONNECT: the process ends.
pub const SERVER_SHUTTING_DOWN: u8 = 0x8B;
/// An authentication method that the server does not know.
pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
/// DISCONNECT: silent for 1.5 times the keep-alive.
pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
/// DISCONNECT: another connection uses the client id.
pub const SESSION_TAKEN_OVER: u8 = 0x8E;
/// Not a filter, or not for this client.
pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
/// Not a topic name, or not for this client.
pub const TOPIC_NAME_INVALID: u8 = 0x90;
/// The packet identifier is in use.
pub const PACKET_IDENTIFIER_IN_USE: u8 = 0x91;
/// The packet identifier is unknown: not an error during recovery.
pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
/// More unacknowledged messages than allowed.
pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
/// Alias 0, or beyond the maximum.
pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
/// Longer than the receiver takes.
pub const PACKET_TOO_LARGE: u8 = 0x95;
/// Too many messages a second.
pub const MESSAGE_RATE_TOO_HIGH: u8 = 0x96;
/// A bound of the server, or what a person set.
pub const QUOTA_EXCEEDED: u8 = 0x97;
/// DISCONNECT: by a person.
pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
/// The payload is not what its format says.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// The server does not retain.
pub const RETAIN_NOT_SUPPORTED: u8 = 0x9A;
/// The server does not take this QoS.
pub const QOS_NOT_SUPPORTED: u8 = 0x9B;
/// Use another server for a while.
pub const USE_ANOTHER_SERVER: u8 = 0x9C;
/// Use another server from now on.
pub const SERVER_MOVED: u8 = 0x9D;
/// The server has no shared subscriptions.
pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9E;
/// Too many connections a second.
pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;
/// DISCONNECT: the client was allowed to be connected for so long.
pub const MAXIMUM_CONNECT_TIME: u8 = 0xA0;
/// The server has no subscription identifiers.
pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: u8 = 0xA1;
/// The server has no wildcard subscriptions.
pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0xA2;

/// The return code of a 3.1.1 CONNACK (§3.2.2.3) for a reason code; `None` where 3.1.1 has none and closes the
/// connection without an answer.
#[must_use]
pub const fn connect_return_code(reason: u8) -> Option<u8> {
    Some(match reason {
        SUCCESS => 0,
        UNSUPPORTED_PROTOCOL_VERSION => 1,
        CLIENT_IDENTIFIER_NOT_VALID => 2,
        UNSPECIFIED_ERROR
        | IMPLEMENTATION_SPECIFIC_ERROR
        | SERVER_UNAVAILABLE
        | SERVER_BUSY
        | QUOTA_EXCEEDED
        | USE_ANOTHER_SERVER
        | SERVER_MOVED
        | CONNECTION_RATE_EXCEEDED => 3,
        BAD_USER_NAME_OR_PASSWORD => 4,
        NOT_AUTHORIZED | BANNED | BAD_AUTHENTICATION_METHOD | TOPIC_NAME_INVALID => 5,
        _ => return None,
    })
}

/// Whether a packet of type `kind` (the upper four bits of its first byte) may carry this reason code, §2.4 table 2-6.
pub(super) const fn allowed(kind: u8, code: u8) -> bool {
    match kind {
        2 => matches!(code, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F),
        4 | 5 => matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        6 | 7 => matches!(code, 0x00 | 0x92),
        9 => matches!(code, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2),
        11 => matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
        14 => {
            matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2)
        }
        15 => matches!(code, 0x00 | 0x18 | 0x19),
        _ => false,
    }
}
