//! CONNECT (§3.1), borrowed and owned.

use std::fmt;

use bytes::Bytes;

use super::property::{self, Allowed, Id, Properties};
use super::reader::Reader;
use super::{DecodeError, Frame, QoS, Version, topic};

/// A client introduces itself.
#[derive(Clone, Copy, PartialEq)]
pub struct Connect<'a> {
    /// What it speaks.
    pub version: Version,
    /// Empty: the server assigns one. 3.1.1 allows that with a clean session only `[MQTT-3.1.3-8]`; the caller judges,
    /// because the answer is a CONNACK (0x02).
    pub client_id: &'a str,
    /// Forget a session that there may be; in 3.1.1 also: keep none afterwards.
    pub clean_start: bool,
    /// Seconds; 0: off.
    pub keep_alive: u16,
    /// What to publish when it is gone.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user: Option<&'a str>,
    /// Password, or whatever the method wants.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
}

/// The will message (§3.1.2.5).
#[derive(Clone, Copy, PartialEq)]
pub struct Will<'a> {
    /// Topic name, valid.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Keep it as the topic's last message.
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: Properties<'a>,
}

/// What of a [`Connect`] a server keeps. Its user properties are not among that.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectOwned {
    /// What it speaks.
    pub version: Version,
    /// Empty: the server assigns one.
    pub client_id: String,
    /// Forget a session that there may be.
    pub clean_start: bool,
    /// Seconds; 0: off.
    pub keep_alive: u16,
    /// What to publish when it is gone.
    pub will: Option<WillOwned>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Seconds that the session is kept after the connection; `u32::MAX`: for ever, which is what 3.1.1 means without
    /// clean session.
    pub session_expiry_s: u32,
    /// Messages of QoS 1 and 2 that the client takes unacknowledged; 65 535 where it does not say.
    pub receive_maximum: u16,
    /// The longest packet that the client takes, bytes.
    pub packet_bytes_max: Option<u32>,
    /// Topic aliases that the client takes.
    pub topic_alias_max: u16,
    /// Wants response information in CONNACK.
    pub request_response_information: bool,
    /// Wants reason strings and user properties beyond CONNACK, PUBLISH and DISCONNECT `[MQTT-3.1.2-29]`.
    pub request_problem_information: bool,
    /// Name of the authentication exchange that it wants.
    pub authentication_method: Option<String>,
    /// Its first message.
    pub authentication_data: Option<Vec<u8>>,
}

/// The will, owned.
#[derive(Clone, PartialEq, Eq)]
pub struct WillOwned {
    /// Topic name, valid.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: QoS,
    /// Keep it as the topic's last message.
    pub retain: bool,
    /// Seconds between the end of the connection and the will.
    pub delay_s: u32,
    /// Seconds from its publication.
    pub message_expiry: Option<u32>,
    /// Encoded properties that are passed on, without a length.
    pub forwardable: Vec<u8>,
}

const CONNECT_ALLOWED: Allowed = Allowed::these(&[
    Id::SessionExpiry,
    Id::ReceiveMaximum,
    Id::MaximumPacketSize,
    Id::TopicAliasMaximum,
    Id::RequestResponseInformation,
    Id::RequestProblemInformation,
    Id::AuthenticationMethod,
    Id::AuthenticationData,
]);

const WILL_ALLOWED: Allowed = Allowed::these(&[
    Id::WillDelay,
    Id::PayloadFormat,
    Id::MessageExpiry,
    Id::ContentType,
    Id::ResponseTopic,
    Id::CorrelationData,
]);

/// The protocol level of a CONNECT as far as it can be read, so that a refusal can be written in the client's form.
#[must_use]
pub fn connect_level(frame: Frame<'_>) -> Option<u8> {
    let mut reader = Reader::new(frame.body);
    reader.binary().ok()?;
    reader.u8().ok()
}

/// Decodes a CONNECT, which says itself what version it is.
pub fn decode_connect(frame: Frame<'_>) -> Result<Connect<'_>, DecodeError> {
    if frame.first != 0x10 {
        return Err(DecodeError::Protocol("not a CONNECT"));
    }
    let mut reader = Reader::new(frame.body);
    let name = reader.binary()?;
    let level = reader.u8()?;
    if name != b"MQTT" {
        return Err(DecodeError::UnsupportedProtocol { level });
    }
    let version = match level {
        4 => Version::V311,
        5 => Version::V5,
        level => return Err(DecodeError::UnsupportedVersion { level }),
    };
    if version == Version::V5 {
        super::shortest_length(frame)?;
    }
    let flags = Flags::check(reader.u8()?, version)?;
    let keep_alive = reader.u16()?;
    let properties = properties(&mut reader, version, CONNECT_ALLOWED)?;
    let client_id = reader.string()?;
    let will = match flags.will {
        None => None,
        Some((qos, retain)) => {
            let properties = super::connect::properties(&mut reader, version, WILL_ALLOWED)?;
            let topic = reader.topic_or_empty()?;
            if topic.is_empty() {
                return Err(DecodeError::TopicName(topic::Fault::Empty));
            }
            Some(Will { topic, payload: reader.binary()?, qos, retain, properties })
        }
    };
    let user = if flags.user { Some(reader.string()?) } else { None };
    let password = if flags.password { Some(reader.binary()?) } else { None };
    reader.end()?;
    Ok(Connect {
        version,
        client_id,
        clean_start: flags.clean_start,
        keep_alive,
        will,
        user,
        password,
        properties,
    })
}

pub(super) fn properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    allowed: Allowed,
) -> Result<Properties<'a>, DecodeError> {
    match version {
        Version::V5 => Properties::decode(reader, allowed),
        Version::V311 => Ok(Properties::default()),
    }
}

/// The connect flags (§3.1.2.3).
struct Flags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    user: bool,
    password: bool,
}

impl Flags {
    fn check(bits: u8, version: Version) -> Result<Self, DecodeError> {
        let is = |bit: u8| bits & 1 << bit != 0;
        if is(0) {
            return Err(DecodeError::Malformed("the reserved connect flag is set")); // [MQTT-3.1.2-3]
        }
        let qos = QoS::try_from(bits >> 3 & 0b11).map_err(|_| DecodeError::Malformed("will QoS 3"))?;
        let (will, retain) = (is(2), is(5));
        if !will && (retain || qos != QoS::AtMostOnce) {
            return Err(DecodeError::Malformed("will QoS or will retain without a will")); // [MQTT-3.1.2-11, -13]
        }
        let (user, password) = (is(7), is(6));
        if password && !user && version == Version::V311 {
            return Err(DecodeError::Malformed("a password without a user name")); // 3.1.1 [MQTT-3.1.2-22]
        }
        Ok(Flags { clean_start: is(1), will: will.then_some((qos, retain)), user, password })
    }
}

impl Connect<'_> {
    /// A copy of what a server keeps, with the defaults of what the client did not say.
    #[must_use]
    pub fn to_owned(&self) -> ConnectOwned {
        let properties = self.properties;
        ConnectOwned {
            version: self.version,
            client_id: self.client_id.into(),
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            will: self.will.map(|will| will.to_owned()),
            user: self.user.map(Into::into),
            password: self.password.map(Into::into),
            session_expiry_s: match self.version {
                Version::V5 => properties.number(Id::SessionExpiry).unwrap_or(0),
                Version::V311 if self.clean_start => 0,
                Version::V311 => u32::MAX,
            },
            receive_maximum: properties.short(Id::ReceiveMaximum).unwrap_or(u16::MAX),
            packet_bytes_max: properties.number(Id::MaximumPacketSize),
            topic_alias_max: properties.short(Id::TopicAliasMaximum).unwrap_or(0),
            request_response_information: properties.number(Id::RequestResponseInformation) == Some(1),
            request_problem_information: properties.number(Id::RequestProblemInformation) != Some(0),
            authentication_method: properties.text(Id::AuthenticationMethod).map(Into::into),
            authentication_data: properties.binary(Id::AuthenticationData).map(Into::into),
        }
    }
}

impl Will<'_> {
    /// A copy.
    #[must_use]
    pub fn to_owned(&self) -> WillOwned {
        let mut forwardable = Vec::new();
        property::forward(self.properties.raw(), &mut forwardable);
        WillOwned {
            topic: self.topic.into(),
            payload: Bytes::copy_from_slice(self.payload),
            qos: self.qos,
            retain: self.retain,
            delay_s: self.properties.number(Id::WillDelay).unwrap_or(0),
            message_expiry: self.properties.number(Id::MessageExpiry),
            forwardable,
        }
    }
}

impl ConnectOwned {
    /// A client that says nothing it need not: clean start, no keep-alive, no will, no user.
    #[must_use]
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        ConnectOwned {
            version,
            client_id: client_id.into(),
            clean_start: true,
            keep_alive: 0,
            will: None,
            user: None,
            password: None,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            packet_bytes_max: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// Passwords and payloads stay out of logs.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOwned")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("session_expiry_s", &self.session_expiry_s)
            .field("will", &self.will)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WillOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WillOwned")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("delay_s", &self.delay_s)
            .finish_non_exhaustive()
    }
}
