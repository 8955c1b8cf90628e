//! One MQTT session at a time over TCP or TLS: MQTT 3.1.1, clean session.
//!
//! A client object lives for one session: nothing queued in an old one is ever sent in a new one (design §4.11).
//! The packets are rumqttc's; its event loop is not used, because it stops sending while its user is slow to receive
//! and the other way round. Here two tasks share the socket, so neither direction ever waits for the other:
//!
//! ```text
//! MqttSender ──requests (bounded)──► writer task ──► socket ──► reader task ──messages (bounded)──► MqttReceiver
//!                                         ▲── acks, completions ───────┘
//! ```
//!
//! Dropping the [`MqttReceiver`] ends both tasks and the socket at once. A session that stands still is found out:
//! nothing received for 1.5 × keep-alive, or nothing writable for [`WRITE_STALL_MAX`], ends it.

mod connection;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub(crate) use connection::dial;
pub use connection::tls_config;
use session::{Request, Shared};

/// From the first packet of TCP to CONNACK.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A socket that takes no byte for so long is a dead one: longer than a hub's longest fsync, shorter than a shift.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Publishes waiting for the writer task; it sends all that it finds with one write.
const REQUESTS_MAX: usize = 64;

/// Received messages waiting for the user.
const MESSAGES_MAX: usize = 64;

/// QoS 1 publishes without PUBACK: half of what brokers allow by default, ids are never scarce.
const UNACKNOWLEDGED_MAX: usize = 32;

/// Longest wait for SUBACK, and for DISCONNECT to be written.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// The longest text in a packet: its length has 16 bits.
const TOPIC_BYTES_MAX: usize = 65_535;

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
pub struct MqttSender {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    packet_bytes_max: usize,
}

/// The receiving half of one session; dropping it ends the session without DISCONNECT (the will is sent).
#[derive(Debug)]
pub struct MqttReceiver {
    messages: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    /// Reader and writer; aborted when this is dropped.
    _tasks: JoinSet<()>,
}

/// Connects and waits for CONNACK, up to 10 s. Clean session, MQTT 3.1.1.
pub async fn connect(options: &MqttOptions) -> Result<(MqttSender, MqttReceiver), MqttError> {
    let opened = tokio::time::timeout(CONNECT_DEADLINE, connection::open(options)).await;
    let opened =
        opened.map_err(|_| MqttError::Lost(format!("no connection within {CONNECT_DEADLINE:?}")))??;
    let (requests, requests_taken) = mpsc::channel(REQUESTS_MAX);
    let (messages_given, messages) = mpsc::channel(MESSAGES_MAX);
    let shared = Arc::new(Shared::new(UNACKNOWLEDGED_MAX));
    let tasks = session::start(opened, options, &shared, requests_taken, messages_given);
    let sender = MqttSender { requests, shared: shared.clone(), packet_bytes_max: options.packet_bytes_max };
    Ok((sender, MqttReceiver { messages, shared, _tasks: tasks }))
}

impl MqttSender {
    /// Subscribes and waits for SUBACK.
    pub async fn subscribe(&self, filters: &[(String, QoS)]) -> Result<(), MqttError> {
        if filters.is_empty() || filters.iter().any(|(filter, _)| filter.len() > TOPIC_BYTES_MAX) {
            return Err(MqttError::Options("a subscription needs filters of at most 65535 bytes".into()));
        }
        let (answer, answered) = oneshot::channel();
        self.send(Request::Subscribe { filters: filters.to_vec(), answer }).await?;
        match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.shared.reason()),
            Err(_) => Err(MqttError::Lost(format!("no SUBACK within {ANSWER_DEADLINE:?}"))),
        }
    }

    /// Publishes: waits while the socket is behind (bounded queue), so that the caller feels back-pressure. With QoS 1
    /// it also waits while too many are unacknowledged, but not for its own PUBACK.
    pub async fn publish(
        &self,
        topic: String,
        qos: QoS,
        retain: bool,
        payload: Vec<u8>,
    ) -> Result<(), MqttError> {
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
            return Err(MqttError::Options(format!("{topic:?} cannot be a topic name")));
        }
        let bytes = topic.len() + payload.len() + session::PUBLISH_OVERHEAD;
        if bytes > self.packet_bytes_max {
            let limit = self.packet_bytes_max;
            return Err(MqttError::Options(format!(
                "a packet of {bytes} bytes is above the limit of {limit}"
            )));
        }
        if qos == QoS::AtLeastOnce {
            match self.shared.unacknowledged.acquire().await {
                Ok(permit) => permit.forget(), // given back by PUBACK
                Err(_) => return Err(self.shared.reason()),
            }
        }
        self.send(Request::Publish { topic, qos, retain, payload }).await
    }

    /// Sends DISCONNECT after what is queued, so that the will is not sent, and waits until the broker closed, up to 1 s.
    pub async fn disconnect(&self) -> Result<(), MqttError> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Disconnect { answer }).await?;
        match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
            Ok(Ok(())) => {
                self.shared.over.cancelled().await; // the writer sees to the bound
                Ok(())
            }
            Ok(Err(_)) => Err(self.shared.reason()),
            Err(_) => Err(MqttError::Lost("DISCONNECT could not be written".into())),
        }
    }

    async fn send(&self, request: Request) -> Result<(), MqttError> {
        self.requests.send(request).await.map_err(|_| self.shared.reason())
    }
}

impl MqttReceiver {
    /// The next message, or why the session ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Message, MqttError> {
        self.messages.recv().await.ok_or_else(|| self.shared.reason())
    }
}

impl Drop for MqttReceiver {
    fn drop(&mut self) {
        self.shared.end("ended by its user".into());
    }
}

#[cfg(test)]
mod tests;
