//! Every edge node's session as a pure state machine: events in, [`Action`]s out (habit 14).
//!
//! ```text
//! (unknown) --NBIRTH--> online --NDEATH with its bdSeq, or the broker is gone--> offline --NBIRTH--> online
//!               per device: DBIRTH --> online --DDEATH or a node's birth or death--> offline
//! ```
//! - Data counts only in a birth's light. Without one, or with an alias that it does not give, it is not received and
//!   a rebirth is asked for; what is offered without an identity (foreign nodes) goes to quarantine instead.
//! - Aliases are looked up in the device that the message is about.
//! - Births of our agents are no rows; births of foreign nodes are, where a value changed.
//! - Nodes, devices, metrics and names are bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::limits::{AGENT_POINTS_MAX, MQTT_PACKET_BYTES_MAX};
use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, QualityClass, RecordId, Sample, SampleBatch,
    Timestamp,
};
use proto::log_record::AgentId;
use proto::receipt::COMMAND_REPORT_METRIC;
use proto::sparkplug::{BirthHead, EpochAccount, MessageType, PayloadView, RecordHead, Topic};
use runtime::telemetry::{Counter, Metrics};

use super::aliases::Aliases;
use super::birth::{self, BD_SEQ, Birth, Claim, ClaimKind, Present, ToU64 as _};
use super::decode::{Decoded, Device, Metric, MetricKind, Reading, Refusal, is_news};
use super::problem::{Problem, ProblemCounts};
use super::rebirth::Rebirth;
use super::sequence::Sequence;
use super::{AgentStatus, DeviceStatus};
use crate::catalogue::{AGENTS_MAX, Catalogue};
use crate::store::{AgentAccount, Identity, QuarantineEntry, ReceivedBatch};

/// Devices of one node.
const DEVICES_MAX: usize = 10_000;
/// Epochs that a birth may name: each is one opening of a log that is still on the agent's disk.
const BIRTH_EPOCHS_MAX: usize = 4096;
/// Metrics of all nodes together: bounds the host's memory.
const METRICS_MAX: usize = 2_000_000;
/// A node that was never born is forgotten after this silence.
const STRANGER: Duration = Duration::from_secs(600);
/// After a node's birth its devices have so long to be born before their points count as stale.
const DEVICE_BIRTHS: Duration = Duration::from_secs(10);
/// Undecodable payloads without identity that are kept in one second.
const QUARANTINE_PER_SECOND: u32 = 100;
/// Offsets beyond this cannot be meant.
const OFFSET_MAX: u64 = 1 << 62;

/// The time: by the wall, and since the host's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Timestamp,
    pub(super) since_start: Duration,
}

/// What happens to the host.
#[derive(Debug)]
pub(super) enum Event {
    /// A message about an edge node.
    Message { topic: String, payload: Bytes, retain: bool },
    /// Time passes.
    Tick,
    /// Somebody wants a node's births.
    RebirthAsked(NodeId),
    /// The broker is there; nodes may have come and gone unseen.
    Connected,
    /// The broker is gone, and with it what was known of the nodes.
    Disconnected,
}

/// What the host does about it, in order.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Ingest(ReceivedBatch),
    Quarantine(QuarantineEntry, Option<(AgentId, RecordId)>),
    Reported(AgentId, Vec<EpochAccount>),
    /// Ask the node for its births.
    Rebirth(NodeId),
    /// Show these; they are no rows.
    Show(SampleBatch),
    /// The last values of these points hold.
    Confirm(Vec<PointId>),
    /// Nobody vouches for these points any more.
    Stale(Vec<PointId>),
    /// From now on the node takes receipts for these epochs; none: no more.
    Receipts(AgentId, NodeId, Option<BTreeSet<Epoch>>),
    /// For the ledger: claimed paths that were another's, and the first of them.
    Conflict(NodeId, usize, String),
}

/// The last known state of a point, as the live view has it.
pub(super) type LastKnown = Arc<dyn Fn(PointId) -> Option<Present> + Send + Sync>;

/// All edge nodes.
pub(super) struct EdgeNodes {
    catalogue: Catalogue,
    last_known: LastKnown,
    /// Our own epoch: no agent's record can be of it.
    log_epoch: Epoch,
    nodes: BTreeMap<NodeId, Node>,
    metrics: usize,
    kept_this_second: (i64, u32),
    pub(super) problems: ProblemCounts,
    rebirths: Counter,
    births: Counter,
}

/// One edge node.
#[derive(Default)]
struct Node {
    agent: Option<AgentId>,
    online: bool,
    foreign: bool,
    bd_seq: Option<u64>,
    sequence: Sequence,
    itself: Device,
    devices: BTreeMap<String, Device>,
    epochs: BTreeMap<Epoch, Span>,
    rebirth: Rebirth,
    /// When devices that were not born again count as stale.
    devices_due: Option<Duration>,
    since: Option<Timestamp>,
    last_message: Option<Timestamp>,
    heard: Duration,
    version: String,
    births: u64,
    gaps: u64,
}

/// What an agent has of an epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    first_held: u64,
    end: u64,
}

/// A message about a node, taken apart.
struct Message<'a> {
    topic: &'a str,
    node: &'a NodeId,
    device: Option<&'a str>,
    payload: &'a Bytes,
}

impl EdgeNodes {
    pub(super) fn new(
        catalogue: Catalogue,
        log_epoch: Epoch,
        last_known: LastKnown,
        metrics: &Metrics,
    ) -> Self {
        EdgeNodes {
            catalogue,
            last_known,
            log_epoch,
            nodes: BTreeMap::new(),
            metrics: 0,
            kept_this_second: (0, 0),
            problems: ProblemCounts::new(metrics),
            rebirths: metrics.counter(
                "forebay_hub_rebirth_requests_total",
                "Births asked of edge nodes.",
                &[],
            ),
            births: metrics.counter("forebay_hub_births_total", "Births of edge nodes and devices.", &[]),
        }
    }

    /// A node that was here before the hub started: it is offline until it is born.
    pub(super) fn know(&mut self, account: &AgentAccount) {
        let reported = account.epochs.iter().filter_map(|epoch| epoch.reported);
        let epochs = reported.map(|r| (r.epoch, Span { first_held: r.first_held, end: r.end })).collect();
        let (agent, foreign) = (Some(account.id), account.foreign);
        self.nodes.insert(account.agent.clone(), Node { agent, foreign, epochs, ..Node::default() });
    }

    /// One step.
    pub(super) fn apply(&mut self, event: Event, now: Moment, out: &mut Vec<Action>) {
        match event {
            Event::Message { topic, payload, retain } => self.message(&topic, &payload, retain, now, out),
            Event::Tick => self.tick(now, out),
            Event::RebirthAsked(node) => self.node(&node, now).rebirth.ask(now.since_start),
            Event::Connected => self.connected(now),
            Event::Disconnected => self.disconnected(now, out),
        }
    }

    /// Every node that was ever born, for people.
    pub(super) fn statuses(&self, backlog: &dyn Fn(AgentId, Vec<(Epoch, u64)>) -> u64) -> Vec<AgentStatus> {
        let born = self.nodes.iter().filter_map(|(id, node)| Some((id, node, node.agent?)));
        let status = |(id, node, agent): (&NodeId, &Node, AgentId)| AgentStatus {
            node: id.clone(),
            online: node.online,
            foreign: node.foreign,
            devices: node
                .devices
                .iter()
                .map(|(name, device)| DeviceStatus { name: name.clone(), online: device.online })
                .collect(),
            since: node.since,
            last_message: node.last_message,
            last_receipt: None,
            backlog: (!node.foreign).then(|| {
                backlog(agent, node.epochs.iter().map(|(epoch, span)| (*epoch, span.end)).collect())
            }),
            version: node.version.clone(),
            births: node.births,
            rebirths: node.rebirth.sent,
            gaps: node.gaps,
        };
        born.map(status).collect()
    }

    /// The number of a node that was ever born.
    pub(super) fn agent(&self, node: &NodeId) -> Option<AgentId> {
        self.nodes.get(node)?.agent
    }

    fn message(&mut self, topic: &str, payload: &Bytes, retain: bool, now: Moment, out: &mut Vec<Action>) {
        let (kind, node, device) = match Topic::parse(topic) {
            Some(Topic::Node { kind, node, device }) => (kind, node, device),
            Some(Topic::State { .. }) => return, // the broker seam's
            None => return self.problems.add(Problem::BadTopic),
        };
        if matches!(kind, MessageType::NCmd | MessageType::DCmd) {
            return; // somebody speaks to a node, not to us
        }
        if retain {
            return self.problems.add(Problem::Retained);
        }
        if !self.nodes.contains_key(&node) && self.nodes.len() >= AGENTS_MAX {
            return self.problems.add(Problem::TooMany);
        }
        let state = self.node(&node, now);
        state.last_message = Some(now.at);
        state.heard = now.since_start;
        let message = Message { topic, node: &node, device: device.as_deref(), payload };
        match PayloadView::decode(payload) {
            Err(error) => {
                self.problem(Problem::Garbage, &message, now, error.to_string(), None, out);
            }
            Ok(view) => match kind {
                MessageType::NBirth => self.node_birth(&message, &view, now, out),
                MessageType::DBirth => self.device_birth(&message, &view, now, out),
                MessageType::NData | MessageType::DData => self.data(&message, &view, now, out),
                MessageType::NDeath => self.node_death(&message, &view, now, out),
                MessageType::DDeath => self.device_death(&message, &view, now, out),
                MessageType::NCmd | MessageType::DCmd => {}
            },
        }
    }

    fn node(&mut self, id: &NodeId, now: Moment) -> &mut Node {
        self.nodes.entry(id.clone()).or_insert_with(|| Node { heard: now.since_start, ..Node::default() })
    }

    fn node_birth(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let agent = match self.catalogue.agent_id(message.node) {
            Ok(agent) => agent,
            Err(full) => {
                return self.problem(Problem::TooMany, message, now, full.to_string(), None, out);
            }
        };
        let own = view.birth.is_some();
        let birth = birth::read(view, message.node, None, own, now.at);
        let (bd_seq, receipts) = (birth.bd_seq, birth.takes_receipts && own);
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        let was_online = node.online;
        node.agent = Some(agent);
        node.foreign = !own;
        node.bd_seq = bd_seq;
        if !was_online {
            node.since = Some(now.at);
        }
        node.online = true;
        node.births += 1;
        node.rebirth.answered();
        node.sequence.begin(view.seq.and_then(|seq| u8::try_from(seq).ok()).unwrap_or(0));
        node.devices.values_mut().for_each(|device| device.online = false);
        node.devices_due = Some(now.since_start + DEVICE_BIRTHS);
        node.take_head(view.birth.as_ref());
        let epochs: Option<BTreeSet<Epoch>> = receipts.then(|| node.epochs.keys().copied().collect());
        if let Some(head) = &view.birth {
            out.push(Action::Reported(agent, newest(&head.epochs).to_vec()));
        }
        out.push(Action::Receipts(agent, message.node.clone(), epochs));
        self.births.increment();
        self.born(message, birth, agent, own, now, out);
    }

    fn device_birth(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        node.sequence.take(view.seq, now.since_start);
        let (Some(agent), true) = (node.agent, node.online) else {
            node.rebirth.ask(now.since_start);
            return self.problems.add(Problem::BeforeBirth); // it comes again with the node's
        };
        let (own, device) = (!node.foreign, message.device.unwrap_or_default());
        if !node.devices.contains_key(device) && node.devices.len() >= DEVICES_MAX {
            let why = format!("a node has at most {DEVICES_MAX} devices");
            return self.problem(Problem::TooMany, message, now, why, None, out);
        }
        node.births += 1;
        self.births.increment();
        let birth = birth::read(view, message.node, message.device, own, now.at);
        self.born(message, birth, agent, own, now, out);
    }

    /// Makes what a birth describes the present state of a device or of the node itself.
    fn born(
        &mut self,
        message: &Message<'_>,
        birth: Birth,
        agent: AgentId,
        own: bool,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        if let Err(why) = self.room_for(message, birth.claims.len()) {
            return self.problem(Problem::TooMany, message, now, why, None, out);
        }
        let Birth { claims, aliases, problems, .. } = birth;
        for (problem, _) in &problems {
            self.problems.add(*problem);
        }
        let definitions: Vec<PointDefinition> = claims
            .iter()
            .filter_map(|claim| match &claim.kind {
                ClaimKind::Point(definition, _) => Some((**definition).clone()),
                _ => None,
            })
            .collect();
        let assigned = match self.catalogue.assign(agent, definitions, own) {
            Ok(assigned) => assigned,
            Err(full) => return self.problem(Problem::TooMany, message, now, full.to_string(), None, out),
        };
        let taken = assigned.iter().filter(|point| point.taken_by.is_some()).count();
        (0..taken).for_each(|_| self.problems.add(Problem::PathConflict));
        if let Some(first) = assigned.iter().find(|point| point.taken_by.is_some() && point.is_new) {
            let path = self.catalogue.point(first.id).map(|entry| entry.definition.path.to_string());
            out.push(Action::Conflict(message.node.clone(), taken, path.unwrap_or_default()));
        }
        if let Some((problem, what)) =
            problems.iter().find(|(problem, _)| *problem != Problem::UnsupportedType)
        {
            let why = format!("{} problems in a birth; the first: {what}", problems.len());
            self.keep(*problem, message, now, &why, None, out);
            tracing::warn!(node = %message.node, device = message.device, problems = problems.len(),
                first = problem.name(), what, "birth with problems");
        }
        let points: Vec<PointId> = assigned.iter().map(|point| point.id).collect();
        let (device, present) = self.device_of(claims, aliases, &points, own);
        self.install(message, device, present, agent, now, out);
    }

    /// Whether the metrics of a birth have room beside all others.
    fn room_for(&self, message: &Message<'_>, metrics: usize) -> Result<(), String> {
        let Some(node) = self.nodes.get(message.node) else { return Ok(()) };
        let replaced = node.device(message.device).map_or(0, |device| device.metrics.len());
        let of_node: usize = node.itself.metrics.len()
            + node.devices.values().map(|device| device.metrics.len()).sum::<usize>();
        if of_node - replaced + metrics > AGENT_POINTS_MAX {
            return Err(format!("a node has at most {AGENT_POINTS_MAX} metrics"));
        }
        if self.metrics.saturating_sub(replaced) + metrics > METRICS_MAX {
            return Err(format!("the hub has at most {METRICS_MAX} metrics"));
        }
        Ok(())
    }

    /// A device as its birth describes it, and the present state of its points.
    fn device_of(
        &self,
        claims: Vec<Claim>,
        aliases: Vec<(u64, u32)>,
        points: &[PointId],
        own: bool,
    ) -> (Device, Vec<(PointId, u32, Present)>) {
        let (aliases, ambiguous) = Aliases::new(aliases);
        (0..ambiguous).for_each(|_| self.problems.add(Problem::AmbiguousAlias));
        let mut device = Device { online: true, aliases, ..Device::default() };
        let mut present = Vec::with_capacity(points.len());
        let mut points = points.iter().copied();
        for (claim, number) in claims.into_iter().zip(0..) {
            let (kind, data_type) = match claim.kind {
                ClaimKind::Control => (MetricKind::Control, DataType::Int64),
                ClaimKind::Unsupported => (MetricKind::Unsupported, DataType::Bytes),
                ClaimKind::Point(definition, state) => {
                    let Some(point) = points.next() else { continue };
                    if own && definition.device.is_none() && definition.metric == COMMAND_REPORT_METRIC {
                        device.report = Some(number);
                    }
                    present.push((point, number, state));
                    (MetricKind::Point(point), definition.data_type)
                }
            };
            if !own || claim.alias.is_none() {
                device.names.insert(claim.name.into_boxed_str(), number);
            }
            device.metrics.push(Metric { kind, data_type });
        }
        if !own {
            device.last = vec![None; device.metrics.len()];
        }
        (device, present)
    }

    /// Replaces the old description; what the birth says of values is shown, and of foreign nodes kept if new.
    fn install(
        &mut self,
        message: &Message<'_>,
        mut device: Device,
        present: Vec<(PointId, u32, Present)>,
        agent: AgentId,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        let foreign = node.foreign;
        let old = node.take_device(message.device);
        let before: HashMap<PointId, Present> = old.last_by_point();
        let points = device.points();
        let gone: Vec<PointId> = {
            let here: BTreeSet<PointId> = points.iter().copied().collect();
            old.points().into_iter().filter(|point| !here.contains(point)).collect()
        };
        self.metrics = self.metrics.saturating_sub(old.metrics.len()) + device.metrics.len();
        let mut samples = Vec::new();
        let mut stale = gone;
        let mut confirmed = Vec::new();
        for (point, number, state) in present {
            let vouched = state.quality.class() != QualityClass::Stale;
            if vouched {
                confirmed.push(point)
            } else {
                stale.push(point)
            }
            let is_row = if foreign {
                let last = before.get(&point).cloned().or_else(|| (self.last_known)(point));
                let news = is_news(last.as_ref(), &state);
                if let Some(slot) = device.last.get_mut(number as usize) {
                    *slot = if news { Some(state.clone()) } else { last };
                }
                news
            } else {
                state.value.is_some() && vouched
            };
            if is_row {
                let Present { time, value, quality } = state;
                samples.push(Sample { point, time, value, quality });
            }
        }
        if let Some(node) = self.nodes.get_mut(message.node) {
            node.put_device(message.device, device);
        }
        if foreign && !samples.is_empty() {
            out.push(Action::Ingest(ReceivedBatch {
                agent,
                identity: Identity::Foreign,
                arrival: now.at,
                is_historical: false,
                has_command_report: false,
                samples,
            }));
        } else if !samples.is_empty() {
            let id = RecordId { epoch: self.log_epoch, offset: Offset(0) };
            // As history: a birth is exact to the ms only, and must not replace what is as new.
            out.push(Action::Show(SampleBatch { id, accepted_at: now.at, is_historical: true, samples }));
        }
        out.extend((!confirmed.is_empty()).then_some(Action::Confirm(confirmed)));
        out.extend((!stale.is_empty()).then_some(Action::Stale(stale)));
    }

    fn data(&mut self, message: &Message<'_>, view: &PayloadView<'_>, now: Moment, out: &mut Vec<Action>) {
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        node.sequence.take(view.seq, now.since_start);
        let born = node.online && node.device(message.device).is_some_and(|device| device.online);
        let (Some(agent), true) = (node.agent, born) else {
            node.rebirth.ask(now.since_start);
            return self.not_received(Problem::BeforeBirth, message, view, now, "no birth yet".into(), out);
        };
        match (&view.record, node.foreign) {
            (Some(head), _) => match node.check(head, self.log_epoch) {
                Ok(()) => self.own_data(message, view, head, agent, now, out),
                Err(problem) => {
                    if problem == Problem::UnknownEpoch {
                        node.rebirth.ask(now.since_start);
                    }
                    self.problems.add(problem);
                    tracing::warn!(node = %message.node, record = %head.id, problem = problem.name(),
                        "record not received");
                }
            },
            (None, true) => self.foreign_data(message, view, agent, now, out),
            (None, false) => {
                let why = "an agent's data without its record's identity".to_owned();
                self.problem(Problem::BadIdentity, message, now, why, None, out);
            }
        }
    }

    fn own_data(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        head: &RecordHead,
        agent: AgentId,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        match self.read(message, view, agent, true, now) {
            Ok(decoded) => {
                out.push(Action::Ingest(ReceivedBatch {
                    agent,
                    identity: Identity::Own {
                        id: head.id,
                        accepted_at: head.accepted_at,
                        running: head.account,
                    },
                    arrival: now.at,
                    is_historical: decoded.is_historical,
                    has_command_report: decoded.has_command_report,
                    samples: decoded.samples,
                }));
            }
            Err(Refusal::NotYet(problem, why)) => {
                self.ask(message.node, now);
                return self.not_received(problem, message, view, now, why, out);
            }
            Err(Refusal::Never(problem, why)) => {
                self.problem(problem, message, now, why, Some((agent, head.id)), out);
            }
        }
        if let Some(node) = self.nodes.get_mut(message.node) {
            node.rebirth.understood();
            if let Some(report) = node.advance(head) {
                out.push(Action::Reported(agent, vec![report]));
            }
        }
    }

    fn foreign_data(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        agent: AgentId,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        match self.read(message, view, agent, false, now) {
            Ok(decoded) => {
                if let Some((problem, what)) = decoded.first_skipped {
                    let why = format!(
                        "{} of {} metrics left out, the others are kept; the first: {what}",
                        decoded.skipped,
                        view.metrics.len()
                    );
                    self.problem(problem, message, now, why, None, out);
                }
                if let Some(node) = self.nodes.get_mut(message.node) {
                    node.rebirth.understood();
                }
                if !decoded.samples.is_empty() {
                    out.push(Action::Ingest(ReceivedBatch {
                        agent,
                        identity: Identity::Foreign,
                        arrival: now.at,
                        is_historical: decoded.is_historical,
                        has_command_report: false,
                        samples: decoded.samples,
                    }));
                }
            }
            Err(Refusal::NotYet(problem, why)) => {
                self.ask(message.node, now);
                self.not_received(problem, message, view, now, why, out);
            }
            Err(Refusal::Never(problem, why)) => self.problem(problem, message, now, why, None, out),
        }
    }

    fn read(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        agent: AgentId,
        own: bool,
        now: Moment,
    ) -> Result<Decoded, Refusal> {
        let before = || Refusal::NotYet(Problem::BeforeBirth, "no birth yet".to_owned());
        let catalogue = self.catalogue.clone();
        let mut retyped = |point: PointId, data_type: DataType| {
            let entry = catalogue.point(point)?;
            let definition = PointDefinition { data_type, ..entry.definition.clone() };
            let assigned = catalogue.assign(agent, std::iter::once(definition), own).ok()?;
            assigned.first().map(|point| point.id)
        };
        let node = self.nodes.get_mut(message.node).ok_or_else(before)?;
        let device = node.device_mut(message.device).ok_or_else(before)?;
        Reading { device, own, arrival: now.at, retyped: &mut retyped }.read(view)
    }

    fn node_death(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let said = view.metrics.iter().find(|metric| metric.name == Some(BD_SEQ));
        let said = said.and_then(|metric| metric.value.to_u64());
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        if !node.online || node.bd_seq != said {
            return self.problems.add(Problem::OldDeath);
        }
        node.offline(message.node, now, out);
    }

    fn device_death(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        node.sequence.take(view.seq, now.since_start);
        let known = node.online;
        match node.device_mut(message.device) {
            Some(device) if known => device.offline(out),
            _ => {
                node.rebirth.ask(now.since_start);
                self.problems.add(Problem::BeforeBirth);
            }
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Action>) {
        let (problems, rebirths) = (&self.problems, &self.rebirths);
        for (id, node) in &mut self.nodes {
            if node.online && node.sequence.is_broken(now.since_start) {
                node.gaps += 1;
                problems.add(Problem::Gap);
                node.rebirth.ask(now.since_start);
            }
            if node.rebirth.is_due(now.since_start) {
                rebirths.increment();
                out.push(Action::Rebirth(id.clone()));
            }
            if node.devices_due.is_some_and(|due| now.since_start >= due) {
                node.devices_due = None;
                for device in node.devices.values_mut().filter(|device| !device.online) {
                    device.offline(out);
                }
            }
        }
        self.nodes.retain(|_, node| node.agent.is_some() || now.since_start < node.heard + STRANGER);
    }

    fn connected(&mut self, now: Moment) {
        for (_, known) in self.catalogue.agents() {
            self.node(&known, now).rebirth.ask(now.since_start);
        }
    }

    fn disconnected(&mut self, now: Moment, out: &mut Vec<Action>) {
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.online) {
            node.offline(id, now, out);
        }
    }

    fn ask(&mut self, node: &NodeId, now: Moment) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.rebirth.ask(now.since_start);
        }
    }

    /// An agent sends it again; what a foreign node says is kept for people to look at.
    fn not_received(
        &mut self,
        problem: Problem,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        why: String,
        out: &mut Vec<Action>,
    ) {
        if view.record.is_some() {
            self.problems.add(problem);
        } else {
            self.problem(problem, message, now, why, None, out);
        }
    }

    /// Counts a problem and puts the payload into quarantine.
    fn problem(
        &mut self,
        problem: Problem,
        message: &Message<'_>,
        now: Moment,
        why: String,
        settles: Option<(AgentId, RecordId)>,
        out: &mut Vec<Action>,
    ) {
        self.problems.add(problem);
        self.keep(problem, message, now, &why, settles, out);
    }

    /// Puts the payload into quarantine: always if it settles a record, else within a rate.
    fn keep(
        &mut self,
        problem: Problem,
        message: &Message<'_>,
        now: Moment,
        why: &str,
        settles: Option<(AgentId, RecordId)>,
        out: &mut Vec<Action>,
    ) {
        let second = now.at.0.div_euclid(1_000_000);
        if self.kept_this_second.0 != second {
            self.kept_this_second = (second, 0);
        }
        self.kept_this_second.1 += 1;
        if settles.is_none() && self.kept_this_second.1 > QUARANTINE_PER_SECOND {
            return self.problems.add(Problem::QuarantineSkipped);
        }
        let payload = message.payload.get(..message.payload.len().min(MQTT_PACKET_BYTES_MAX));
        let entry = QuarantineEntry {
            at: now.at,
            topic: message.topic.to_owned(),
            reason: format!("{}: {why}", problem.name()),
            payload: payload.unwrap_or_default().to_vec(),
        };
        out.push(Action::Quarantine(entry, settles));
    }
}

/// The last of a birth's epochs, which is where the present one is.
fn newest(epochs: &[EpochAccount]) -> &[EpochAccount] {
    epochs.get(epochs.len().saturating_sub(BIRTH_EPOCHS_MAX)..).unwrap_or_default()
}

impl Node {
    fn device(&self, name: Option<&str>) -> Option<&Device> {
        match name {
            None => Some(&self.itself),
            Some(name) => self.devices.get(name),
        }
    }

    fn device_mut(&mut self, name: Option<&str>) -> Option<&mut Device> {
        match name {
            None => Some(&mut self.itself),
            Some(name) => self.devices.get_mut(name),
        }
    }

    fn take_device(&mut self, name: Option<&str>) -> Device {
        match name {
            None => std::mem::take(&mut self.itself),
            Some(name) => self.devices.get_mut(name).map(std::mem::take).unwrap_or_default(),
        }
    }

    fn put_device(&mut self, name: Option<&str>, device: Device) {
        match name {
            None => self.itself = device,
            Some(name) => {
                self.devices.insert(name.to_owned(), device);
            }
        }
    }

    fn take_head(&mut self, head: Option<&BirthHead>) {
        let spans = head.into_iter().flat_map(|head| newest(&head.epochs));
        self.epochs = spans
            .map(|account| (account.epoch, Span { first_held: account.first_held, end: account.end }))
            .collect();
        self.version = head.map(|head| head.version.chars().take(100).collect()).unwrap_or_default();
    }

    /// Whether a record's identity can be what it says.
    fn check(&self, head: &RecordHead, log_epoch: Epoch) -> Result<(), Problem> {
        if head.id.epoch == log_epoch || head.id.offset.0 >= OFFSET_MAX || head.first_held > head.id.offset.0
        {
            return Err(Problem::BadIdentity);
        }
        if self.epochs.contains_key(&head.id.epoch) { Ok(()) } else { Err(Problem::UnknownEpoch) }
    }

    /// Takes an epoch's ends from a record; a report if the agent no longer holds what it held.
    fn advance(&mut self, head: &RecordHead) -> Option<EpochAccount> {
        let span = self.epochs.get_mut(&head.id.epoch)?;
        span.end = span.end.max(head.accepted_end.min(OFFSET_MAX));
        if head.first_held <= span.first_held {
            return None;
        }
        let total = head.account?;
        span.first_held = head.first_held;
        Some(EpochAccount {
            epoch: head.id.epoch,
            first_held: head.first_held,
            end: head.id.offset.0 + 1,
            before: proto::account::Account::default(),
            total,
        })
    }

    fn offline(&mut self, id: &NodeId, now: Moment, out: &mut Vec<Action>) {
        self.online = false;
        self.since = Some(now.at);
        self.devices_due = None;
        self.itself.offline(out);
        self.devices.values_mut().for_each(|device| device.offline(out));
        if let Some(agent) = self.agent {
            out.push(Action::Receipts(agent, id.clone(), None));
        }
    }
}

impl Device {
    fn offline(&mut self, out: &mut Vec<Action>) {
        self.online = false;
        if !self.told_stale {
            self.told_stale = true;
            let points = self.points();
            out.extend((!points.is_empty()).then_some(Action::Stale(points)));
        }
    }

    fn last_by_point(&self) -> HashMap<PointId, Present> {
        let states = self.metrics.iter().zip(&self.last);
        let points = states.filter_map(|(metric, last)| match metric.kind {
            MetricKind::Point(point) => Some((point, last.clone()?)),
            _ => None,
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests;
