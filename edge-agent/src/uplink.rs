//! The agent's way to its hub: connects, holds a session, connects again.
//!
//! One task owns the socket and `seq` of a session (design §4.11). Everything that a session knows dies with it, but
//! for what was receipted (the outbox's), `bdSeq` and whether the hub speaks receipts (a file).
//!
//! ```text
//!  wait (backoff) ─► connect (will = NDEATH) ─► subscribe ─► [primary host online?] ─► births ─► live + history
//!        ▲                                                                                          │
//!        └──────── link lost · host offline (NDEATH) · no receipt for 15 s · write stalled ◄────────┘
//! ```

mod cursor;
mod delivery;
mod handed;
mod session;
mod session_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use durable_log::Storage;
use model::NodeId;
use model::limits::MQTT_PACKET_BYTES_MAX;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::invariant::Invariant;
use runtime::mqtt_client::{MqttError, MqttOptions};
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Metrics};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::catalogue::Points;
use crate::commands::{ClockSkew, Request};
use crate::config::HubAddress;
use crate::edge_node::EdgeNode;
use crate::health::{Health, Promise};
use crate::outbox::{Outbox, OutboxError};
use delivery::Delivery;
use session::{Ended, Session};
use session_file::SessionState;

/// Whether the session file in an agent's folder is one; `None` if there is none. Blocking.
#[must_use]
pub fn verify_session_file(folder: &std::path::Path) -> Option<Result<(), String>> {
    session_file::verify(folder)
}

/// The first wait after a failure, and the longest; half of it is jitter, so that a plant does not knock at once. The
/// longest bounds how soon a plant is whole again after its hub is: 1 000 agents within 10 s.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// A session that stood so long was a good one: the next wait is short again.
const GOOD_SESSION: Duration = Duration::from_secs(20);
/// Keep-alive: a dead link is noticed within 1.5 times this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Accepting tasks get so long to finish before the outbox closes behind them.
const PRODUCERS_DRAIN: Duration = Duration::from_secs(6);

/// Why the uplink cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Why one session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    #[error("no receipt from the hub for {0:?} although records are outstanding")]
    NoReceipt(Duration),
    #[error("{0}: {1}")]
    Secret(PathBuf, std::io::Error),
    #[error(transparent)]
    Fatal(#[from] UplinkError),
}

impl From<OutboxError> for SessionError {
    fn from(error: OutboxError) -> Self {
        Self::Fatal(error.into())
    }
}

/// What the uplink needs.
pub struct UplinkSetup {
    /// Who we are.
    pub node: NodeId,
    /// Where the hub is.
    pub hub: HubAddress,
    /// Sparkplug host application.
    pub host_id: String,
    /// Whether nothing is born while it is offline.
    pub primary_host: bool,
    /// Values per second of the history stream.
    pub history_rate: u64,
    /// Where the session file lives: the agent's folder.
    pub folder: Arc<dyn Storage>,
    /// The outbox.
    pub outbox: Outbox,
    /// All points.
    pub points: Arc<Points>,
    /// The clock.
    pub clock: Clock,
    /// For consoles.
    pub health: Health,
    /// Commands go there.
    pub commands: mpsc::Sender<Request>,
    /// Learnt from receipts.
    pub skew: ClockSkew,
    /// Held by every task that accepts; when only this one is left, all has been accepted.
    pub producers: Arc<()>,
    /// Cancelled when it shall end.
    pub shutdown: CancellationToken,
}

pub(crate) struct Meters {
    pub(crate) sessions: Counter,
    pub(crate) live_records: Counter,
    pub(crate) history_records: Counter,
    pub(crate) births: Counter,
    pub(crate) rebirths: Counter,
    pub(crate) jumps: Counter,
    pub(crate) receipts: Counter,
    pub(crate) receipts_refused: Counter,
    /// Only what is on disk is sent: its identity can never be given to anything else.
    pub(crate) identity: Invariant,
    pub(crate) ignored: Counter,
    pub(crate) damaged: Counter,
}

impl Meters {
    fn new(metrics: &Metrics, agent: &str) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[("agent", agent)]);
        Meters {
            sessions: counter("forebay_edge_sessions_total", "MQTT sessions begun."),
            live_records: counter("forebay_edge_live_records_total", "Records sent live."),
            history_records: counter("forebay_edge_history_records_total", "Records sent as history."),
            births: counter("forebay_edge_births_total", "NBIRTHs sent."),
            rebirths: counter("forebay_edge_rebirths_total", "Rebirths asked for by hosts."),
            jumps: counter("forebay_edge_live_jumps_total", "Times that live jumped over a backlog."),
            receipts: counter("forebay_edge_receipts_total", "Receipts taken."),
            identity: Invariant::new(metrics, "I3"),
            receipts_refused: counter(
                "forebay_edge_receipts_refused_total",
                "Receipts that could not be true.",
            ),
            damaged: counter(
                "forebay_edge_messages_damaged_total",
                "Messages not taken because they were changed on their way.",
            ),
            ignored: counter("forebay_edge_messages_ignored_total", "Messages that were nothing for us."),
        }
    }
}

/// The uplink; one task.
pub struct Uplink {
    pub(crate) setup: UplinkSetup,
    pub(crate) meters: Meters,
    pub(crate) state: SessionState,
    pub(crate) delivery: Delivery,
}

impl Uplink {
    /// Reads the session file. Blocking, short.
    #[must_use]
    pub fn new(setup: UplinkSetup, metrics: &Metrics) -> Self {
        let state = session_file::load(&*setup.folder);
        let promise = if state.has_receipts { Promise::Receipts } else { Promise::Unknown };
        setup.health.session(|session| session.promise = promise);
        let meters = Meters::new(metrics, &setup.node.to_string());
        Uplink { setup, meters, state, delivery: Delivery::default() }
    }

    /// Until shutdown: then what was accepted is sent while the link stands, and the outbox is closed.
    pub async fn run(mut self) -> Result<(), UplinkError> {
        let result = self.sessions().await;
        let until = Instant::now() + PRODUCERS_DRAIN;
        while Arc::strong_count(&self.setup.producers) > 1 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        self.setup.outbox.close().await;
        result
    }

    async fn sessions(&mut self) -> Result<(), UplinkError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        if !self.state.has_receipts {
            self.recall_handed().await?;
        }
        loop {
            if self.setup.shutdown.is_cancelled() {
                return Ok(());
            }
            let begun = Instant::now();
            let ended = self.session().await;
            self.setup.health.session(|session| session.is_online = false);
            let why = match ended {
                Ok(Ended::Shutdown) => return Ok(()),
                Ok(Ended::HostOffline) => "the host application is offline".to_owned(),
                Err(SessionError::Fatal(error)) => return Err(error),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() >= GOOD_SESSION {
                backoff.reset();
            }
            self.setup.health.session(|session| {
                if session.text != why {
                    tracing::warn!(node = %self.setup.node, %why, "no session with the hub; everything is kept");
                }
                session.text = why;
            });
            tokio::select! {
                biased;
                () = self.setup.shutdown.cancelled() => return Ok(()),
                () = sleep(backoff.wait()) => {}
            }
        }
    }

    /// One session from connecting to its end.
    async fn session(&mut self) -> Result<Ended, SessionError> {
        self.state.bd_seq = Some(self.state.next_bd_seq());
        self.store_state().await;
        let bd_seq = self.state.bd_seq.unwrap_or(0);
        let node = EdgeNode::new(self.setup.node.clone(), self.setup.points.clone(), bd_seq);
        let options = self.mqtt_options(&node).await?;
        let shutdown = self.setup.shutdown.clone();
        let connected = tokio::select! {
            biased;
            connected = runtime::mqtt_client::connect(&options) => connected?,
            () = shutdown.cancelled() => return Ok(Ended::Shutdown),
        };
        self.meters.sessions.increment();
        self.setup.health.session(|session| session.sessions += 1);
        self.delivery.begin_session();
        self.setup.outbox.begin_session();
        let (sender, receiver) = connected;
        Session::new(self, node, sender, receiver).run().await
    }

    /// Writes the session file. A full disk must not end the one way by which it gets room: without the file a restart
    /// only repeats a `bdSeq`.
    pub(crate) async fn store_state(&self) {
        let (folder, state) = (self.setup.folder.clone(), self.state);
        let stored = runtime::world::blocking(move || session_file::store(&*folder, state)).await;
        if let Ok(Err(error)) = stored {
            let path = self.setup.folder.path("").display().to_string();
            tracing::warn!(node = %self.setup.node, %path, %error, "the session file cannot be written");
        }
    }

    async fn mqtt_options(&self, node: &EdgeNode) -> Result<MqttOptions, SessionError> {
        let hub = &self.setup.hub;
        let login = match &hub.login {
            None => None,
            Some((user, file)) => {
                let password = tokio::fs::read_to_string(file).await;
                let password = password.map_err(|error| SessionError::Secret(file.clone(), error))?;
                Some((user.clone(), password.trim_end_matches(['\r', '\n']).to_owned()))
            }
        };
        let death = node.death(self.setup.clock.now());
        Ok(MqttOptions {
            host: hub.host.clone(),
            port: hub.port,
            tls: hub.tls.clone(),
            client_id: format!("forebay-{}-{}", self.setup.node.group(), self.setup.node.node()),
            login,
            keep_alive: KEEP_ALIVE,
            will: Some((death.topic, death.payload, false)),
            packet_bytes_max: MQTT_PACKET_BYTES_MAX,
        })
    }
}
