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
//! - What was changed on its way is not received: its seal says so ([`proto::seal`]).
//! - Nodes, devices, metrics and names are bounded.

mod births;
mod data;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::limits::MQTT_PACKET_BYTES_MAX;
use model::{Epoch, NodeId, PointId, RecordId, SampleBatch, Timestamp};
use proto::health::{Look, LookAnswer};
use proto::log_record::AgentId;
use proto::seal::{self, Seal};
use proto::sparkplug::{EpochAccount, MessageType, PayloadView, Topic};
use runtime::telemetry::{Counter, Metrics};

use super::AgentStatus;
use super::birth::Present;
use super::problem::{Problem, ProblemCounts};
use crate::catalogue::{AGENTS_MAX, Catalogue};
use crate::store::{AgentAccount, QuarantineEntry, ReceivedBatch};
use node::{Node, Span};

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
/// A node that seals is believed without a seal from so many births in a row on.
const UNSEALED_BIRTHS: u8 = 3;
/// Offsets beyond this cannot be meant.
const OFFSET_MAX: u64 = 1 << 62;

/// The time: by the wall, and since the host's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Time of arrival: it never goes back.
    pub(super) at: Timestamp,
    /// What the hub's clock says, which may.
    pub(super) clock: Timestamp,
    pub(super) since_start: Duration,
}

/// What happens to the host.
#[derive(Debug)]
pub(super) enum Event {
    /// A message about an edge node.
    Message { topic: Arc<str>, payload: Bytes, retain: bool },
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
    /// Ask the node about a point.
    Ask(NodeId, Look),
    /// It answered.
    Answered(NodeId, Vec<LookAnswer>),
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
    /// The last message's topic, taken apart: many of one client come one after another.
    last_topic: Option<(Arc<str>, Arc<Topic>)>,
    clock_skew_max_micros: i64,
    pub(super) problems: ProblemCounts,
    rebirths: Counter,
    births: Counter,
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
            last_topic: None,
            clock_skew_max_micros: i64::MAX,
            problems: ProblemCounts::new(metrics),
            rebirths: metrics.counter(
                "forebay_hub_rebirth_requests_total",
                "Births asked of edge nodes.",
                &[],
            ),
            births: metrics.counter("forebay_hub_births_total", "Births of edge nodes and devices.", &[]),
        }
    }

    /// How far nodes' clocks may be off the hub's.
    pub(super) fn bound_clocks(&mut self, skew_max: Duration) {
        self.clock_skew_max_micros = i64::try_from(skew_max.as_micros()).unwrap_or(i64::MAX);
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
            devices: node.device_statuses(),
            since: node.since,
            last_message: node.last_message,
            last_receipt: None,
            backlog: (!node.foreign).then(|| {
                backlog(agent, node.epochs.iter().map(|(epoch, span)| (*epoch, span.end)).collect())
            }),
            version: node.version.clone(),
            outbox_used: node.outbox_used,
            births: node.births,
            rebirths: node.rebirth.sent,
            gaps: node.gaps,
            clock_ahead_ms: node.clock_ahead_micros.map(|micros| micros / 1000),
            is_off_clock: node.is_off_clock,
        };
        born.map(status).collect()
    }

    /// The number of a node that was ever born.
    pub(super) fn agent(&self, node: &NodeId) -> Option<AgentId> {
        self.nodes.get(node)?.agent
    }

    fn parse(&mut self, topic: &Arc<str>) -> Option<Arc<Topic>> {
        if let Some((last, parsed)) = &self.last_topic
            && (Arc::ptr_eq(last, topic) || last == topic)
        {
            return Some(Arc::clone(parsed));
        }
        let parsed = Arc::new(Topic::parse(topic)?);
        self.last_topic = Some((Arc::clone(topic), Arc::clone(&parsed)));
        Some(parsed)
    }

    fn message(
        &mut self,
        topic: &Arc<str>,
        payload: &Bytes,
        retain: bool,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let Some(parsed) = self.parse(topic) else { return self.problems.add(Problem::BadTopic) };
        let Topic::Node { kind, node, device } = &*parsed else { return }; // STATE is the broker seam's
        let kind = *kind;
        if matches!(kind, MessageType::NCmd | MessageType::DCmd) {
            return; // somebody speaks to a node, not to us
        }
        if retain {
            return self.problems.add(Problem::Retained);
        }
        if !self.nodes.contains_key(node) && self.nodes.len() >= AGENTS_MAX {
            return self.problems.add(Problem::TooMany);
        }
        if !self.is_whole(topic, payload, kind, node, now) {
            return self.damaged(kind, node, now, out);
        }
        let known = self.nodes.contains_key(node); // asked first: an entry wants a name of its own
        let state = if known { self.nodes.get_mut(node) } else { Some(self.node(node, now)) };
        if let Some(state) = state {
            state.last_message = Some(now.at);
            state.heard = now.since_start;
        }
        let message = Message { topic, node, device: device.as_deref(), payload };
        match PayloadView::decode(payload) {
            Err(error) => {
                self.problem(Problem::Garbage, &message, now, error.to_string(), None, out);
            }
            Ok(view) => self.understood(kind, &message, &view, now, out),
        }
    }

    fn understood(
        &mut self,
        kind: MessageType,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        if view.record.is_some() || view.birth.is_some() {
            self.watch_clock(message.node, view, now);
        }
        match kind {
            MessageType::NBirth => self.node_birth(message, view, now, out),
            MessageType::DBirth => self.device_birth(message, view, now, out),
            MessageType::NData | MessageType::DData => self.data(message, view, now, out),
            MessageType::NDeath => self.node_death(message, view, now, out),
            MessageType::DDeath => self.device_death(message, view, now, out),
            MessageType::NCmd | MessageType::DCmd => {}
        }
    }

    /// Our agents write the time of sending into every payload. Said once when it is beyond the bound, and once when it is
    /// within again.
    fn watch_clock(&mut self, id: &NodeId, view: &PayloadView<'_>, now: Moment) {
        let max = self.clock_skew_max_micros;
        let (Some(node), Some(sent)) = (self.nodes.get_mut(id), view.timestamp) else { return };
        let sent = i64::try_from(sent).unwrap_or(i64::MAX).saturating_mul(1000);
        let ahead = sent.saturating_sub(now.clock.0);
        node.clock_ahead_micros = Some(ahead);
        let is_off = ahead.saturating_abs() > max;
        if std::mem::replace(&mut node.is_off_clock, is_off) != is_off {
            let ahead_ms = ahead / 1000;
            if is_off {
                tracing::warn!(node = %id, ahead_ms, "its clock and the hub's differ beyond clock_skew_max");
            } else {
                tracing::info!(node = %id, ahead_ms, "its clock and the hub's agree again");
            }
        }
    }

    /// Whether what arrived is what was sent, as far as its seal tells.
    fn is_whole(
        &mut self,
        topic: &str,
        payload: &[u8],
        kind: MessageType,
        node: &NodeId,
        now: Moment,
    ) -> bool {
        let seal = seal::check(topic, payload);
        if seal == Seal::Whole && kind == MessageType::NBirth {
            let node = self.node(node, now);
            (node.seals, node.unsealed_births) = (true, 0);
        }
        let Some(node) = self.nodes.get_mut(node) else { return seal != Seal::Broken };
        match seal {
            Seal::Whole => true,
            // Of a foreign node: bytes that look like a seal by chance.
            Seal::Broken => node.foreign && node.agent.is_some() && !node.seals,
            Seal::Absent if !node.seals => true,
            Seal::Absent => {
                if kind == MessageType::NBirth {
                    node.unsealed_births = node.unsealed_births.saturating_add(1);
                    node.seals = node.unsealed_births < UNSEALED_BIRTHS;
                }
                !node.seals
            }
        }
    }

    /// As if it had never come; but births are asked for, and after what may have been a death nobody vouches for values.
    fn damaged(&mut self, kind: MessageType, node: &NodeId, now: Moment, out: &mut Vec<Action>) {
        self.problems.add(Problem::Damaged);
        let state = self.node(node, now);
        if kind == MessageType::NDeath && state.online {
            state.offline(node, now, out);
        }
        if matches!(kind, MessageType::NBirth | MessageType::DBirth | MessageType::NDeath) {
            state.rebirth.ask(now.since_start);
        }
    }

    fn node(&mut self, id: &NodeId, now: Moment) -> &mut Node {
        self.nodes.entry(id.clone()).or_insert_with(|| Node { heard: now.since_start, ..Node::default() })
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
        self.keep(problem, message, now, &why, (settles, &[]), out);
    }

    /// Puts the payload into quarantine: always if it settles a record, else within a rate. `left_out` are the metrics that
    /// were not taken where the others were.
    fn keep(
        &mut self,
        problem: Problem,
        message: &Message<'_>,
        now: Moment,
        why: &str,
        (settles, left_out): (Option<(AgentId, RecordId)>, &[u32]),
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
            settles,
            left_out: left_out.to_vec(),
            payload: payload.unwrap_or_default().to_vec(),
        };
        out.push(Action::Quarantine(entry, settles));
    }
}

#[cfg(test)]
mod tests;
