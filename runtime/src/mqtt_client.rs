//! One MQTT session at a time over TCP or TLS (rumqttc behind it).
//!
//! A client object lives for one session: nothing queued in an old one is ever sent in a new one (design §4.11).

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, with the plant CA's file if it is not one of the system's.
    pub tls: Option<TlsOptions>,
    /// MQTT client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// Will: topic, payload, QoS 1, retained or not.
    pub will: Option<(String, Vec<u8>, bool)>,
    /// Largest packet in either direction.
    pub packet_bytes_max: usize,
}

/// TLS files, PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// CA certificates; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Whether it was a retained one.
    pub retain: bool,
}

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum QoS {
    AtMostOnce,
    AtLeastOnce,
}

/// Why a session ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The options cannot work: what to change.
    #[error("{0}")]
    Options(String),
    /// The broker refused: its reason.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// Parses `mqtt://host[:port]` and `mqtts://host[:port]`: host, port, whether TLS.
pub fn parse_url(text: &str) -> Result<(String, u16, bool), String> {
    const RULE: &str = "must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]";
    let (rest, tls) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err(RULE.into()),
    };
    let default = if tls { 8883 } else { 1883 };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| RULE)?),
        _ => (rest, default),
    };
    if host.is_empty() || host.contains('/') {
        return Err(RULE.into());
    }
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port, tls))
}

/// The sending half of one session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MqttSender {}

/// The receiving half of one session; dropping it ends the session without DISCONNECT (the will is sent).
#[derive(Debug)]
pub struct MqttReceiver {}

/// Connects and waits for CONNACK, up to 10 s. Clean session, MQTT 3.1.1.
pub async fn connect(_options: &MqttOptions) -> Result<(MqttSender, MqttReceiver), MqttError> {
    todo!()
}

impl MqttSender {
    /// Subscribes and waits for SUBACK.
    pub async fn subscribe(&self, _filters: &[(String, QoS)]) -> Result<(), MqttError> {
        todo!()
    }

    /// Publishes: waits while the socket is behind (bounded queue), so that the caller feels back-pressure.
    pub async fn publish(
        &self,
        _topic: String,
        _qos: QoS,
        _retain: bool,
        _payload: Vec<u8>,
    ) -> Result<(), MqttError> {
        todo!()
    }

    /// Sends DISCONNECT after what is queued, so that the will is not sent.
    pub async fn disconnect(&self) -> Result<(), MqttError> {
        todo!()
    }
}

impl MqttReceiver {
    /// The next message, or why the session ended.
    pub async fn next(&mut self) -> Result<Message, MqttError> {
        todo!()
    }
}
