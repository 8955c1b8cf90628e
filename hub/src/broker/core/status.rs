//! What the broker shows of itself: counters, clients with the reason for which each waits, retained topics.

use bytes::Bytes;
use proto::mqtt::{QoS, Version};
use runtime::telemetry::{Counter, Gauge, Metrics};

use super::super::door::TransportKind;
use super::super::subscriptions::SessionKey;
use super::Core;

/// Clients told of in one answer.
const CLIENTS_MAX: usize = 10_000;

/// Filters told of per client.
const FILTERS_SHOWN: usize = 100;

/// The broker at one moment.
#[derive(Clone, Debug, Default)]
pub struct BrokerStatus {
    /// Connected clients and sessions that wait for theirs, by client id; at most 10 000.
    pub clients: Vec<ClientStatus>,
    /// Connections.
    pub connected: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// PUBLISH packets from clients since the start.
    pub received: u64,
    /// QoS 0 messages that found a full buffer since the start.
    pub dropped: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// ... and at most.
    pub journal_bytes_max: u64,
    /// Bytes waiting for sockets.
    pub out_bytes: usize,
}

/// One client or session.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// MQTT client id.
    pub client_id: String,
    /// Whose it is.
    pub identity: String,
    /// Address and port, `None`: not connected.
    pub peer: Option<String>,
    /// Name of the listener.
    pub listener: String,
    /// `tcp`, `tls`, `websocket`, `secure websocket`.
    pub transport: &'static str,
    /// `3.1.1` or `5.0`.
    pub version: &'static str,
    /// How it logged in.
    pub login: &'static str,
    /// Seconds since it connected.
    pub connected_s: u64,
    /// Session expiry, seconds; 0: ends with the connection.
    pub expiry_s: u32,
    /// Filters, at most 100.
    pub filters: Vec<String>,
    /// How many there are.
    pub filters_count: usize,
    /// PUBLISH packets from it.
    pub messages_in: u64,
    /// PUBLISH packets to it.
    pub messages_out: u64,
    /// Bytes from it.
    pub bytes_in: u64,
    /// Bytes to it.
    pub bytes_out: u64,
    /// QoS 0 messages that it was too slow for.
    pub dropped: u64,
    /// Messages of QoS 1 and 2 that wait for it.
    pub queued: u64,
    /// Sent to it and not complete.
    pub in_flight: usize,
    /// Messages not queued because its bound was reached.
    pub refused: u64,
    /// For what it waits.
    pub waiting: Waiting,
    /// Seconds since its socket took nothing, if it is stuck.
    pub stuck_s: Option<u64>,
}

/// For what a client waits, or what waits for it (style: a consumer that stops has a named reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It has everything.
    ForData,
    /// Its window is full: it does not acknowledge.
    ForAcks,
    /// Its socket is full: it does not read.
    ForSocket,
    /// Its messages wait for the hub to take more.
    ForHost,
    /// Its answers wait for the disk.
    ForDisk,
    /// Messages are being read from the journal for it.
    ForJournal,
    /// It is away.
    ForConnection,
}

impl Waiting {
    /// As the page says it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ForData => "data",
            Self::ForAcks => "acknowledgements",
            Self::ForSocket => "socket",
            Self::ForHost => "host",
            Self::ForDisk => "disk",
            Self::ForJournal => "journal",
            Self::ForConnection => "connection",
        }
    }
}

/// Some retained messages.
#[derive(Clone, Debug, Default)]
pub struct RetainedPage {
    /// In the order of their topics.
    pub messages: Vec<Tapped>,
    /// Where to go on.
    pub next: Option<String>,
}

/// A message that somebody watches.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// As published.
    pub qos: QoS,
    /// The flag as published.
    pub retain: bool,
    /// Messages that were missed before this one because the watcher was slow.
    pub missed: u64,
}

/// Counters of the process.
pub(super) struct Counts {
    pub(super) received: Counter,
    pub(super) dropped: Counter,
    pub(super) clients: Gauge,
    sessions: Gauge,
    retained: Gauge,
    out_bytes: Gauge,
    pub(super) disk_full: Gauge,
    pub(super) logins_refused: Counter,
    pub(super) publishes_refused: Counter,
    pub(super) subscriptions_refused: Counter,
    pub(super) retained_refused: Counter,
    pub(super) over_bound: Counter,
    pub(super) given_up: Counter,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Counts {
        const REFUSED: &str = "What the broker's rules and bounds refused.";
        let refused = |what| metrics.counter("forebay_mqtt_refused_total", REFUSED, &[("what", what)]);
        let gauge = |name, help| metrics.gauge(name, help, &[]);
        Counts {
            received: metrics.counter("forebay_mqtt_received_total", "Messages that clients published.", &[]),
            dropped: metrics.counter(
                "forebay_mqtt_dropped_total",
                "QoS 0 messages to clients that did not read fast enough.",
                &[],
            ),
            clients: gauge("forebay_mqtt_clients", "Clients connected to the hub's broker."),
            sessions: gauge("forebay_mqtt_sessions", "Sessions of the hub's broker, connected or not."),
            retained: gauge("forebay_mqtt_retained", "Retained messages of the hub's broker."),
            out_bytes: gauge("forebay_mqtt_out_bytes", "Bytes that wait for sockets of MQTT clients."),
            disk_full: gauge("forebay_mqtt_journal_full", "1 while the broker's journal has no room."),
            logins_refused: refused("connect"),
            publishes_refused: refused("publish"),
            subscriptions_refused: refused("subscribe"),
            retained_refused: refused("retain"),
            over_bound: refused("queue"),
            given_up: metrics.counter(
                "forebay_mqtt_given_up_total",
                "Queued messages given up because the journal was nearly full.",
                &[],
            ),
        }
    }

    pub(super) fn show(&self, clients: usize, out_bytes: usize, retained: usize, sessions: usize) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.clients.set(number(clients));
        self.out_bytes.set(number(out_bytes));
        self.retained.set(number(retained));
        self.sessions.set(number(sessions));
    }
}

impl Core {
    pub(super) fn status(&self) -> BrokerStatus {
        let mut clients: Vec<ClientStatus> = self
            .sessions
            .iter()
            .take(CLIENTS_MAX)
            .filter_map(|(key, _)| self.client_status(SessionKey(u32::try_from(key).ok()?)))
            .collect();
        clients.sort_by(|one, other| one.client_id.cmp(&other.client_id));
        BrokerStatus {
            clients,
            connected: self.wires.len(),
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions.count(),
            retained: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            received: self.count.received.get(),
            dropped: self.count.dropped.get(),
            journal_bytes: self.journal.held_bytes(),
            journal_bytes_max: self.journal.bytes_max(),
            out_bytes: self.wires.out_bytes(),
        }
    }

    fn client_status(&self, key: SessionKey) -> Option<ClientStatus> {
        let session = self.session(key)?;
        let place = session.connection;
        let connection = place.and_then(|key| self.wires.get(key));
        let traffic = connection.map(|connection| connection.traffic).unwrap_or_default();
        let waiting = match (place, connection) {
            (Some(place), Some(connection)) => {
                if connection.out_bytes() > 0 && !connection.can_write {
                    Waiting::ForSocket
                } else if self.waiting_for_host.contains(&place) {
                    Waiting::ForHost
                } else if connection.waiting > 0 || self.waiting_for_disk.contains(&place) {
                    Waiting::ForDisk
                } else if !session.out.has_window(connection.receive_max) {
                    Waiting::ForAcks
                } else if session.out.cursor().is_some() {
                    Waiting::ForJournal
                } else {
                    Waiting::ForData
                }
            }
            _ => Waiting::ForConnection,
        };
        let transport = connection.map_or("", |connection| match connection.transport.kind() {
            TransportKind::Tcp => "tcp",
            TransportKind::Tls => "tls",
            TransportKind::WebSocket => "websocket",
            TransportKind::SecureWebSocket => "secure websocket",
        });
        let version = connection.map_or("", |connection| match connection.version {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        });
        Some(ClientStatus {
            client_id: session.client_id.to_string(),
            identity: session.identity.to_string(),
            peer: connection.map(|connection| connection.peer.to_string()),
            listener: connection.map(|connection| connection.listener.to_string()).unwrap_or_default(),
            transport,
            version,
            login: connection.map_or("", |connection| connection.login.identity.how()),
            connected_s: connection.map_or(0, |connection| connection.since.elapsed().as_secs()),
            expiry_s: session.expiry_s,
            filters: session.subscriptions.keys().take(FILTERS_SHOWN).map(ToString::to_string).collect(),
            filters_count: session.subscriptions.len(),
            messages_in: traffic.messages_in,
            messages_out: traffic.messages_out,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            dropped: traffic.dropped,
            queued: session.out.queued(),
            in_flight: session.out.in_flight(),
            refused: session.refused,
            waiting,
            stuck_s: connection
                .and_then(|connection| connection.stuck_since)
                .map(|since| since.elapsed().as_secs()),
        })
    }

    pub(super) fn retained_page(&self, filter: &str, after: Option<&str>, limit: usize) -> RetainedPage {
        let mut messages = Vec::new();
        let next = self.retained.page(filter, after, |message| {
            if messages.len() >= limit {
                return false;
            }
            messages.push(Tapped {
                topic: message.topic.to_string(),
                payload: message.payload.clone(),
                qos: message.qos,
                retain: true,
                missed: 0,
            });
            true
        });
        RetainedPage { messages, next: next.map(String::from) }
    }
}
