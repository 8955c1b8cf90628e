//! Data and deaths, in the light of the births before them.

use std::time::Duration;

use bytes::Bytes;
use model::limits::PATH_BYTES_MAX;
use model::{DataType, PointDefinition, PointId, Timestamp};
use proto::health::HealthReport;
use proto::log_record::AgentId;
use proto::sparkplug::{MessageType, PayloadView, RecordHead, Topic};

use super::{Action, EdgeNodes, Message, Moment};
use crate::host::birth::{BD_SEQ, ToU64 as _};
use crate::host::decode::{Decoded, Reading, Refusal};
use crate::host::problem::Problem;
use crate::store::{Identity, Letter, ReceivedBatch};

impl EdgeNodes {
    pub(super) fn data(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        node.sequence.take(view.seq, now.since_start);
        let born = node.online && node.device(message.device).is_some_and(|device| device.online);
        let (Some(agent), true) = (node.agent, born) else {
            node.rebirth.ask(now.since_start);
            return self.not_received(Problem::BeforeBirth, message, view, now, "no birth yet".into(), out);
        };
        if let (Some(report), None, false) = (view.health, &view.record, node.foreign) {
            return self.health(message, report, now, out);
        }
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

    /// How an agent says its devices are. It is no record: nothing of it is kept.
    fn health(&mut self, message: &Message<'_>, report: &[u8], now: Moment, out: &mut Vec<Action>) {
        let report = match HealthReport::decode(report) {
            Ok(report) => report,
            Err(error) => return self.problem(Problem::Garbage, message, now, error.to_string(), None, out),
        };
        let Some(node) = self.nodes.get_mut(message.node) else { return };
        if !report.devices.is_empty() {
            node.health = report.devices;
            node.health.retain(|device| !device.name.is_empty() && device.name.len() <= PATH_BYTES_MAX);
            node.health_at = now.at;
        }
        if !report.answers.is_empty() {
            out.push(Action::Answered(message.node.clone(), report.answers));
        }
    }

    pub(super) fn own_data(
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
                        counts: head.counts,
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

    pub(super) fn foreign_data(
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
                        decoded.skipped.len(),
                        view.metrics.len()
                    );
                    self.problems.add(problem);
                    self.keep(problem, message, now, &why, (None, &decoded.skipped), out);
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

    pub(super) fn read(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        agent: AgentId,
        own: bool,
        now: Moment,
    ) -> Result<Decoded, Refusal> {
        self.read_some(message, view, agent, own, now, None)
    }

    /// As [`EdgeNodes::read`]; with `late` a payload out of the quarantine, of which only these metrics count (none: all).
    fn read_some(
        &mut self,
        message: &Message<'_>,
        view: &PayloadView<'_>,
        agent: AgentId,
        own: bool,
        now: Moment,
        late: Option<&[u32]>,
    ) -> Result<Decoded, Refusal> {
        let (is_late, only) = (late.is_some(), late.unwrap_or_default());
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
        let latest = now.at.0.saturating_add(self.clock_skew_max_micros);
        let latest = Timestamp(latest);
        Reading { device, own, is_late, only, arrival: now.at, latest, retyped: &mut retyped }.read(view)
    }

    /// What a payload out of the quarantine says in the light of the present births, or why it still says nothing.
    ///
    /// An agent's aliases are its points' numbers and never name others, so any birth of its device explains them. A
    /// foreign node may give its aliases anew with every birth: what they meant when this came, nobody knows any more.
    pub(in crate::host) fn reread(&mut self, letter: &Letter) -> Result<ReceivedBatch, String> {
        let (kind, id, device) = match Topic::parse(&letter.from) {
            Some(Topic::Node { kind, node, device }) => (kind, node, device),
            _ => return Err("its topic is none of an edge node".to_owned()),
        };
        if !matches!(kind, MessageType::NData | MessageType::DData) {
            return Err("only data can be retried; births, deaths and commands are sent anew".to_owned());
        }
        if letter.left_out.is_empty() && letter.reason.contains("the others are kept") {
            return Err("some of its values were taken when it came, and which ones is not known".to_owned());
        }
        let payload = Bytes::from(letter.bytes.clone());
        let view = PayloadView::decode(&payload).map_err(|error| error.to_string())?;
        let message =
            Message { topic: &letter.from, node: &id, device: device.as_deref(), payload: &payload };
        let node = self.nodes.get(&id);
        let described = node.and_then(|node| node.device(message.device)).filter(|device| device.was_born());
        let (Some(node), Some(_)) = (node, described) else {
            return Err(format!(
                "{} has not been born since the hub's start; start it, then retry",
                device.as_deref().map_or_else(|| id.to_string(), |device| format!("device {device} of {id}"))
            ));
        };
        let (Some(agent), foreign) = (node.agent, node.foreign) else {
            return Err(format!("{id} has never been born here"));
        };
        let identity = match (&view.record, foreign) {
            (None, true) => Identity::Foreign,
            (Some(head), false) => {
                if node.check(head, self.log_epoch) == Err(Problem::BadIdentity) {
                    return Err(Problem::BadIdentity.name().to_owned());
                }
                let (accepted_at, running, counts) = (head.accepted_at, head.account, head.counts);
                Identity::Own { id: head.id, accepted_at, running, counts }
            }
            (None, false) => return Err("an agent's data without its record's identity".to_owned()),
            (Some(_), true) => return Err(format!("{id} is a foreign node now, and was an agent then")),
        };
        let wanted = |at: u32| letter.left_out.is_empty() || letter.left_out.contains(&at);
        let mut by_alias =
            (0..).zip(&view.metrics).filter(|(at, metric)| metric.name.is_none() && wanted(*at));
        if foreign && by_alias.next().is_some() {
            return Err("its metrics have aliases only; what they meant at that time, nobody knows any more"
                .to_owned());
        }
        let then = Moment { at: letter.at, clock: letter.at, since_start: Duration::ZERO };
        let decoded = self.read_some(&message, &view, agent, !foreign, then, Some(&letter.left_out));
        let decoded = decoded.map_err(|refusal| match refusal {
            Refusal::NotYet(problem, why) | Refusal::Never(problem, why) => {
                format!("{}: {why}", problem.name())
            }
        })?;
        match decoded.first_skipped {
            Some((problem, what)) => Err(format!("{}: {what}", problem.name())),
            None if decoded.samples.is_empty() => Err("it holds no values of points".to_owned()),
            None => Ok(ReceivedBatch {
                agent,
                identity,
                arrival: letter.at,
                is_historical: true,
                has_command_report: decoded.has_command_report,
                samples: decoded.samples,
            }),
        }
    }

    pub(super) fn node_death(
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

    pub(super) fn device_death(
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

    /// An agent sends it again; what a foreign node says is kept for people to look at.
    pub(super) fn not_received(
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
}
