//! The broker seam: how the rest of the hub sends and receives MQTT messages, whoever runs the broker.
//!
//! Two implementations: [`embedded`] (our own broker, docs/specs/broker.md) and [`outside`] (the hub as a client of any
//! MQTT 3.1.1 broker). Both keep these rules:
//! - Every message on `spBv1.0/#` that others publish is *awaited* into the bounded inbox: a slow host slows the
//!   publishers, and nothing is dropped.
//! - STATE of this host is the broker seam's business, because it is part of CONNECT: online (retained) before
//!   [`BrokerEvent::Connected`], offline as the will and at shutdown, with one timestamp per session.
//! - It knows topics and bytes, nothing of payloads (STATE aside), points, logs or commands.

mod access;
mod core;
mod door;
mod embedded;
mod inbox;
mod interest;
mod journal;
mod limits;
mod outside;
mod retained;
mod session;
mod subscriptions;
mod topic_filter;

pub(crate) use journal::verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use runtime::clock::Clock;
pub use runtime::mqtt_client::QoS;
use runtime::tasks::Tasks;
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;

use crate::chain;
use crate::config::BrokerConfig;

pub use access::edit as access_file;
pub use core::status::{BrokerStatus, ClientStatus, RetainedPage, Tapped, Waiting};
pub use embedded::Insight;
pub use inbox::{Inbox, InboxReceiver, inbox};
pub use interest::{Filters, Interest};
pub use topic_filter::{matches, unshared};

/// Messages that may wait for the host: a second of births, or a few MB of records.
pub const INBOX_MESSAGES_MAX: usize = 256;

/// A message that somebody else published in `spBv1.0/#`.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Topic name.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// Whether it came with the retain flag: old news, never a command or live data.
    pub retain: bool,
}

/// What happened to the connection with the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// Subscribed, STATE says online; messages flow. The embedded broker says so once.
    Connected,
    /// Messages stopped flowing: why. The seam reconnects by itself.
    Disconnected(String),
}

/// Why the broker did not start or a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listener could not be opened.
    #[error("MQTT listener {listen} cannot be opened: {why}")]
    Listen {
        /// Address.
        listen: SocketAddr,
        /// The machine's reason.
        why: String,
    },
    /// A password file cannot be used.
    #[error("{}: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The access file cannot be used.
    #[error(
        "the access file of the broker cannot be used; `forebay user --help` shows how to change it\n{0}"
    )]
    Access(String),
    /// What the broker keeps on disk cannot be used.
    #[error("the broker's sessions and retained messages cannot be opened: {}", chain(&**.0))]
    Journal(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system refused what a broker needs.
    #[error("the broker cannot start: {why}")]
    Start {
        /// The machine's reason.
        why: String,
    },
    /// There is no connection: the message was certainly not sent.
    #[error("no connection to the broker")]
    NotConnected,
    /// The connection broke while the message was on its way: it may or may not have been sent.
    #[error("connection to the broker lost: {0}")]
    Lost(String),
}

/// A set of topics that the hub renders on demand (the JSON tree): the broker stores nothing of it.
#[async_trait]
pub trait View: Send + Sync {
    /// Renders what a new subscriber to `filter` shall find, behind `after`, about `bytes_max` bytes of it, and calls
    /// `give` with it before anything newer is published.
    async fn page(
        &self,
        filter: &str,
        after: Option<u64>,
        bytes_max: usize,
        give: &(dyn Fn(ViewPage) + Send + Sync),
    );
}

/// Some messages of a view.
#[derive(Clone, Debug, Default)]
pub struct ViewPage {
    /// Topic and payload.
    pub messages: Vec<(String, Vec<u8>)>,
    /// Where to go on; `None`: that was all.
    pub next: Option<u64>,
}

/// A broker, as the hub uses it.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes a message; waits while the way to the broker is full.
    async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), BrokerError>;

    /// Where the embedded broker listens.
    fn local_addr(&self) -> Option<SocketAddr>;

    /// Clients connected at present; 0 where only the outside broker knows.
    fn clients(&self) -> usize;

    /// Number of the present session, 0 before the first: in a new one, retained messages may be gone.
    fn session(&self) -> u64;

    /// Who wants what, if this broker can say; `None`: publish for everybody.
    fn interest(&self) -> Option<Arc<Interest>>;

    /// Reserves the topics of `filter` for the hub; `view` is asked for what a new subscriber finds there.
    fn serve(&self, filter: String, view: Arc<dyn View>);

    /// The embedded broker's own picture of itself.
    fn insight(&self) -> Option<Insight>;
}

/// Who the hub is towards MQTT.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// Sparkplug host id: `spBv1.0/STATE/{host_id}`.
    pub host_id: String,
    /// Where the embedded broker keeps the agents' password, `{data_dir}/agent-token`.
    pub data_dir: PathBuf,
}

/// Starts the broker; messages go to `inbox`, ups and downs to `events`.
pub async fn start(
    config: BrokerConfig,
    host: HostIdentity,
    inbox: Inbox,
    events: mpsc::Sender<BrokerEvent>,
    clock: Clock,
    metrics: Metrics,
    tasks: Tasks,
) -> Result<Arc<dyn Broker>, BrokerError> {
    let wiring = Wiring { host, inbox, events, clock, metrics, tasks };
    match config {
        BrokerConfig::Embedded(own) => embedded::start(&own, wiring).await,
        BrokerConfig::Outside(config) => outside::start(config, wiring).await,
    }
}

/// What both implementations are connected to.
struct Wiring {
    host: HostIdentity,
    inbox: Inbox,
    events: mpsc::Sender<BrokerEvent>,
    clock: Clock,
    metrics: Metrics,
    tasks: Tasks,
}

impl HostIdentity {
    fn state_topic(&self) -> String {
        proto::sparkplug::Topic::State { host: self.host_id.clone() }.to_string()
    }
}

/// A password from its file, without the line's end.
fn read_password(path: &std::path::Path) -> Result<String, BrokerError> {
    let failed = |why: String| BrokerError::Password { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(failed("is empty; write the password into it".into())),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
