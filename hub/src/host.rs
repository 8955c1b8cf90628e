//! The Sparkplug host: who is there, what their aliases mean, what they are owed.
//!
//! One task owns every session ([`edge_nodes`], pure); it takes messages, steps the state, and does what comes out,
//! waiting for the store where that is behind. Receipts have a task of their own ([`receipts`]). STATE is the broker
//! seam's. The host neither stores nor renders: it calls `store` and `live`.

mod aliases;
mod birth;
mod decode;
mod edge_nodes;
mod problem;
mod rebirth;
mod receipts;
mod sequence;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::{NodeId, PointId, Timestamp, Value};
use proto::health::{DeviceHealth, LOOK_METRIC, Look, LookAnswer};
use proto::log_record::AgentId;
use proto::seal;
use proto::sparkplug::{MessageType, Topic, encode};
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::{Gauge, Metrics};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::broker::{Broker, BrokerEvent, InboxReceiver, Incoming, QoS};
use crate::catalogue::Catalogue;
use crate::ledger::{Ledger, LedgerEntry, LedgerKind};
use crate::live::Live;
use crate::store::{Identity, Letter, ReceivedBatch, Store, StoreError, StoreHealth};
use birth::{Present, REBIRTH};
use edge_nodes::{Action, EdgeNodes, Event, LastKnown, Moment};
use problem::Problem;
use receipts::Receivers;

/// Looks that may wait for their answers.
const LOOKS_MAX: usize = 64;
/// An agent looks at its timers ten times a second; a link may be slow.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Rebirth requests that may wait for the host.
const REQUESTS_MAX: usize = 64;
/// Messages, and bytes of them, that are taken before what they lead to is done: bounds the actions in memory.
const MESSAGES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 256 * 1024;
/// Time-outs are looked at this often.
const TICK: Duration = Duration::from_millis(200);
/// What people see of nodes is renewed this often, and at births and deaths.
const STATUS: Duration = Duration::from_secs(1);
/// After shutdown began, messages that are on their way may still arrive.
const FAREWELL: Duration = Duration::from_millis(300);

/// One edge node as the host sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentStatus {
    /// Which.
    pub node: NodeId,
    /// Whether its birth stands.
    pub online: bool,
    /// Whether it is no agent of ours: no receipts.
    pub foreign: bool,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
    /// Since when it is online or not; `None` before anything was heard.
    pub since: Option<Timestamp>,
    /// Arrival of its last message.
    pub last_message: Option<Timestamp>,
    /// When the hub last sent it a receipt.
    pub last_receipt: Option<Timestamp>,
    /// Records that it has accepted and the hub has not; `None` for foreign nodes.
    pub backlog: Option<u64>,
    /// Version of its program, as its birth says.
    pub version: String,
    /// Percent of its outbox that is used, as of its last birth; `None` for foreign nodes.
    pub outbox_used: Option<u8>,
    /// Births so far.
    pub births: u64,
    /// Rebirths asked of it so far.
    pub rebirths: u64,
    /// Gaps in `seq` so far.
    pub gaps: u64,
    /// How far its clock was ahead of the hub's at its last message, in ms; negative: behind. `None` for foreign nodes.
    pub clock_ahead_ms: Option<i64>,
    /// Whether that is beyond the hub's bound.
    pub is_off_clock: bool,
}

/// One device of an edge node.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceStatus {
    /// Sparkplug device id.
    pub name: String,
    /// Whether its birth stands.
    pub online: bool,
    /// How the agent says it is, and when it said so; `None` for foreign nodes and older programs.
    pub health: Option<(DeviceHealth, Timestamp)>,
}

/// Why nobody can say what a device said of a point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// The agent is not there, or is none of ours, or its program is older.
    #[error("The agent {0} is offline, or its program does not tell what its devices say")]
    NotThere(String),
    /// It did not answer in time.
    #[error("The agent {0} did not answer in time")]
    Silent(String),
    /// It does not read that point now.
    #[error("The agent {0} does not read that point at present")]
    Unknown(String),
    /// Too many questions at once.
    #[error("Too many questions wait for answers of agents")]
    Busy,
}

/// Where a command for a point goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointTarget {
    /// The edge node.
    pub node: NodeId,
    /// Its device; `None` for a metric of the node.
    pub device: Option<String>,
    /// Metric name.
    pub metric: String,
    /// Whether node and device are there.
    pub online: bool,
    /// Whether the node is no agent of ours (no command extension).
    pub foreign: bool,
}

/// The host's state, for others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// What others ask of the host.
#[derive(Debug)]
enum Request {
    Rebirth(NodeId),
    Reread(Box<Letter>, oneshot::Sender<Result<ReceivedBatch, String>>),
    Look(NodeId, Look, oneshot::Sender<LookAnswer>),
}

#[derive(Debug)]
struct Shared {
    catalogue: Catalogue,
    statuses: RwLock<Vec<AgentStatus>>,
}

impl Host {
    /// Every edge node, by name.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentStatus> {
        self.shared.statuses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks a node for its births, rate-limited.
    pub fn rebirth(&self, node: &NodeId) {
        if self.requests.try_send(Request::Rebirth(node.clone())).is_err() {
            tracing::debug!(%node, "too many rebirth requests at once");
        }
    }

    /// Asks the agent what the device said of a point, and what became of it.
    pub async fn look(&self, target: &PointTarget) -> Result<LookAnswer, LookError> {
        let name = || target.node.to_string();
        let tells = |status: &AgentStatus| {
            status.node == target.node
                && status.online
                && status.devices.iter().any(|device| device.health.is_some())
        };
        let device = target.device.clone().filter(|_| {
            self.shared.statuses.read().unwrap_or_else(PoisonError::into_inner).iter().any(tells)
        });
        let device = device.ok_or_else(|| LookError::NotThere(name()))?;
        let (done, answer) = oneshot::channel();
        let look = Look { id: 0, device, metric: target.metric.clone() }; // the host gives the id
        let request = Request::Look(target.node.clone(), look, done);
        self.requests.try_send(request).map_err(|_full| LookError::Busy)?;
        match tokio::time::timeout(LOOK_DEADLINE, answer).await {
            Ok(Ok(answer)) if answer.is_known => Ok(answer),
            Ok(Ok(_)) => Err(LookError::Unknown(name())),
            Ok(Err(_)) => Err(LookError::Busy),
            Err(_) => Err(LookError::Silent(name())),
        }
    }

    /// What a payload out of the quarantine says in the light of the present births, or why it still says nothing.
    pub(crate) async fn reread(&self, letter: Letter) -> Result<ReceivedBatch, String> {
        let (done, answer) = oneshot::channel();
        let gone = || "the hub is ending".to_owned();
        self.requests.send(Request::Reread(Box::new(letter), done)).await.map_err(|_gone| gone())?;
        answer.await.map_err(|_gone| gone())?
    }

    /// Where a command for the point goes.
    #[must_use]
    pub fn device_of(&self, point: PointId) -> Option<PointTarget> {
        let entry = self.shared.catalogue.point(point)?;
        let node = self.shared.catalogue.agent(entry.agent)?;
        let statuses = self.shared.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let status =
            statuses.binary_search_by(|status| status.node.cmp(&node)).ok().and_then(|at| statuses.get(at));
        let device = entry.definition.device.clone();
        let online = status.is_some_and(|status| {
            status.online
                && device
                    .as_ref()
                    .is_none_or(|name| status.devices.iter().any(|d| d.online && d.name == *name))
        });
        Some(PointTarget {
            node,
            device,
            metric: entry.definition.metric.clone(),
            online,
            foreign: status.is_none_or(|status| status.foreign),
        })
    }
}

/// What the host works with.
pub(crate) struct Parts {
    pub(crate) inbox: InboxReceiver,
    pub(crate) events: mpsc::Receiver<BrokerEvent>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Store,
    pub(crate) catalogue: Catalogue,
    pub(crate) live: Live,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    /// See [`crate::Config::clock_skew_max`].
    pub(crate) clock_skew_max: Duration,
    pub(crate) metrics: Metrics,
}

/// Starts the host. At shutdown it takes what has arrived, hands it to the store and closes that.
pub(crate) fn start(parts: Parts, tasks: &Tasks) -> Host {
    let Parts { inbox, events, broker, store, catalogue, live, ledger, clock, clock_skew_max, metrics } =
        parts;
    let shared = Arc::new(Shared { catalogue: catalogue.clone(), statuses: RwLock::default() });
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let receivers = Receivers::default();
    let sent = metrics.counter("forebay_hub_receipts_total", "Receipts sent to agents.", &[]);
    tasks.spawn(
        TaskKind::Transport,
        "receipts",
        receipts::run(
            receivers.clone(),
            store.clone(),
            Arc::clone(&broker),
            clock.clone(),
            sent,
            tasks.shutdown(),
        ),
    );
    let seen = live.clone();
    let last_known: LastKnown = Arc::new(move |point| {
        let last = seen.held(point)?;
        Some(Present { time: last.time, value: last.value, quality: last.quality })
    });
    let arrived = newest_arrival(&catalogue, &store, &live);
    let mut nodes = EdgeNodes::new(catalogue, store.log_epoch(), last_known, &metrics);
    nodes.bound_clocks(clock_skew_max);
    store.accounts().iter().for_each(|account| nodes.know(account));
    let look_id = clock.now();
    let session = Session {
        nodes,
        shared: Arc::clone(&shared),
        receivers,
        broker,
        store,
        live,
        ledger,
        clock,
        arrived,
        started: Instant::now(),
        actions: Vec::new(),
        looks: HashMap::new(),
        look_id: look_id.0.unsigned_abs(),
        status_due: Instant::now(),
        off_clock: metrics.gauge(
            "forebay_hub_clocks_off",
            "Edge nodes whose clock is further from the hub's than clock_skew_max.",
            &[],
        ),
        online: metrics.gauge("forebay_hub_edge_nodes_online", "Edge nodes whose birth stands.", &[]),
    };
    tasks.spawn(TaskKind::Transport, "host", session.run(inbox, events, asked, tasks.shutdown()));
    Host { shared, requests }
}

/// When the newest value of a foreign node arrived: by the hub's clock, which may stand before that now. (Agents of ours
/// bring times of arrival of their own.)
fn newest_arrival(catalogue: &Catalogue, store: &Store, live: &Live) -> Timestamp {
    let foreign: BTreeSet<AgentId> =
        store.accounts().into_iter().filter(|account| account.foreign).map(|account| account.id).collect();
    let values = live
        .snapshot()
        .into_iter()
        .filter(|(point, _)| catalogue.point(*point).is_some_and(|entry| foreign.contains(&entry.agent)));
    values.map(|(_, value)| value.arrival).max().unwrap_or(Timestamp(i64::MIN))
}

/// The task.
struct Session {
    nodes: EdgeNodes,
    shared: Arc<Shared>,
    receivers: Receivers,
    broker: Arc<dyn Broker>,
    store: Store,
    live: Live,
    ledger: Ledger,
    clock: Clock,
    /// The newest time of arrival: it never goes back, whatever the hub's clock does.
    arrived: Timestamp,
    started: Instant,
    actions: Vec<Action>,
    /// Who waits for which answer.
    looks: HashMap<u64, (NodeId, oneshot::Sender<LookAnswer>)>,
    /// Of the last question: an answer to an earlier hub's question must not fit.
    look_id: u64,
    status_due: Instant,
    online: Gauge,
    off_clock: Gauge,
}

impl Session {
    async fn run(
        mut self,
        mut inbox: InboxReceiver,
        mut events: mpsc::Receiver<BrokerEvent>,
        mut asked: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut farewell, mut messages) = (None, Vec::new());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if farewell.is_none() => farewell = Some(Instant::now() + FAREWELL),
                _ = ticks.tick() => {
                    self.step(Event::Tick);
                    if farewell.is_some_and(|end| Instant::now() >= end) {
                        inbox.close();
                    }
                }
                Some(event) = events.recv() => self.broker_event(event),
                Some(request) = asked.recv() => self.request(request),
                () = inbox.recv_many(&mut messages, MESSAGES_AT_ONCE, BYTES_AT_ONCE) => {
                    if messages.is_empty() {
                        break;
                    }
                    let now = self.now();
                    for Incoming { topic, payload, retain } in messages.drain(..) {
                        self.nodes.apply(Event::Message { topic, payload, retain }, now, &mut self.actions);
                    }
                }
            }
            self.settle().await;
        }
        self.store.close().await;
        self.shared.catalogue.close();
        self.ledger.close();
        Ok(())
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Rebirth(node) => self.step(Event::RebirthAsked(node)),
            Request::Reread(letter, done) => {
                done.send(self.nodes.reread(&letter)).ok(); // whoever asked may have gone
            }
            Request::Look(node, look, done) => {
                self.looks.retain(|_, (_, waiting)| !waiting.is_closed());
                if self.looks.len() < LOOKS_MAX {
                    self.look_id = self.look_id.wrapping_add(1);
                    self.looks.insert(self.look_id, (node.clone(), done));
                    self.actions.push(Action::Ask(node, Look { id: self.look_id, ..look }));
                }
            }
        }
    }

    fn broker_event(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Connected => self.step(Event::Connected),
            BrokerEvent::Disconnected(why) => {
                tracing::warn!(why, "no broker");
                self.step(Event::Disconnected);
            }
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        self.nodes.apply(event, now, &mut self.actions);
    }

    fn now(&mut self) -> Moment {
        let clock = self.clock.now();
        self.arrived = self.arrived.max(clock);
        Moment { at: self.arrived, clock, since_start: self.started.elapsed() }
    }

    /// Does what the steps led to, in order.
    async fn settle(&mut self) {
        let (mut changed, mut batches) = (false, Vec::new());
        for action in std::mem::take(&mut self.actions) {
            changed |= matches!(action, Action::Receipts(..) | Action::Stale(_) | Action::Confirm(_));
            match action {
                Action::Ingest(batch) => batches.push(batch),
                other => {
                    self.ingest(std::mem::take(&mut batches)).await;
                    self.act(other).await;
                }
            }
        }
        self.ingest(batches).await;
        if changed || Instant::now() >= self.status_due {
            self.publish_statuses();
        }
    }

    async fn ingest(&self, batches: Vec<ReceivedBatch>) {
        if batches.is_empty() {
            return;
        }
        // While nothing can be written, people still see what comes; it is no row and gets no receipt.
        let is_ok = self.store.health() == StoreHealth::Ok;
        let unwritten: Vec<_> = match is_ok {
            true => Vec::new(),
            false => batches.iter().map(ReceivedBatch::unwritten).collect(),
        };
        let foreign = batches.iter().filter(|batch| batch.identity == Identity::Foreign).count();
        let own = batches.len() - foreign;
        if let Err(error) = self.store.ingest(batches).await {
            self.live.apply(&unwritten);
            (0..own).for_each(|_| self.not_taken(false, &error));
            (0..foreign).for_each(|_| self.not_taken(true, &error));
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Ingest(batch) => self.ingest(vec![batch]).await,
            Action::Quarantine(entry, settles) => {
                if let Err(error) = self.store.quarantine(entry, settles).await {
                    self.not_taken(false, &error);
                }
            }
            Action::Reported(agent, epochs) => {
                if let Err(error) = self.store.reported(agent, epochs).await {
                    self.not_taken(false, &error);
                }
            }
            Action::Rebirth(node) => self.ask(&node, REBIRTH, Value::Boolean(true)).await,
            Action::Ask(node, look) => self.ask(&node, LOOK_METRIC, Value::Bytes(look.encode())).await,
            Action::Answered(node, answers) => {
                for answer in answers {
                    // Only the node that was asked can answer.
                    let is_asked = self.looks.get(&answer.id).is_some_and(|(asked, _)| *asked == node);
                    if is_asked && let Some((_, waiting)) = self.looks.remove(&answer.id) {
                        waiting.send(answer).ok(); // whoever asked may have gone
                    }
                }
            }
            Action::Show(batch) => self.live.apply([&batch]),
            Action::Confirm(points) => self.vouch(points, true).await,
            Action::Stale(points) => self.vouch(points, false).await,
            Action::Receipts(agent, node, epochs) => self.receivers.set(agent, node, epochs),
            Action::Conflict(node, count, path) => self.record_conflict(&node, count, &path).await,
        }
    }

    /// At once, for people; and again behind the records that are on their way to the live view.
    async fn vouch(&self, points: Vec<PointId>, holds: bool) {
        if holds {
            self.live.confirm(&points);
        } else {
            self.live.mark_stale(&points);
        }
        if let Err(error) = self.store.vouch(points, holds).await {
            tracing::debug!(%error, "nothing is on its way");
        }
    }

    fn not_taken(&self, foreign: bool, error: &StoreError) {
        self.nodes.problems.add(if foreign { Problem::ForeignLost } else { Problem::NotTaken });
        tracing::debug!(%error, foreign, "not taken");
    }

    async fn ask(&self, node: &NodeId, metric: &str, value: Value) {
        let mut payload = Vec::new();
        encode::command(self.clock.now(), metric, None, &value, None, &mut payload);
        let topic = Topic::node(MessageType::NCmd, node).to_string();
        seal::put(&topic, &mut payload);
        if let Err(error) = self.broker.publish(topic, payload, QoS::AtMostOnce, false).await {
            tracing::debug!(%node, %error, metric, "not asked for");
        }
    }

    async fn record_conflict(&self, node: &NodeId, count: usize, path: &str) {
        let reason = format!(
            "{count} paths of its birth belong to other points; it got others, the first is {path:?}. Give each point \
             a path of its own, then restart the agent"
        );
        let entry = LedgerEntry {
            at: self.clock.now().to_string(),
            kind: LedgerKind::PathConflict,
            agent: Some(node.to_string()),
            epoch: None,
            start: None,
            end: None,
            reason,
        };
        let ledger = self.ledger.clone();
        if let Ok(Err(error)) = runtime::world::blocking(move || ledger.record(entry)).await {
            tracing::error!(%error, "ledger");
        }
    }

    fn publish_statuses(&mut self) {
        self.status_due = Instant::now() + STATUS;
        let store = &self.store;
        let mut statuses = self.nodes.statuses(&|agent, ends| store.unsettled(agent, ends));
        for status in &mut statuses {
            status.last_receipt = self.nodes.agent(&status.node).and_then(|agent| self.receivers.last(agent));
        }
        let online = statuses.iter().filter(|status| status.online).count();
        let off_clock = statuses.iter().filter(|status| status.is_off_clock).count();
        self.off_clock.set(i64::try_from(off_clock).unwrap_or(i64::MAX));
        self.online.set(i64::try_from(online).unwrap_or(i64::MAX));
        *self.shared.statuses.write().unwrap_or_else(PoisonError::into_inner) = statuses;
    }
}
