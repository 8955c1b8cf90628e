//! Data and deaths, in the light of the births before them.

use model::{DataType, PointDefinition, PointId};
use proto::log_record::AgentId;
use proto::sparkplug::{PayloadView, RecordHead};

use super::{Action, EdgeNodes, Message, Moment};
use crate::host::birth::{BD_SEQ, ToU64 as _};
use crate::host::decode::{Decoded, Reading, Refusal};
use crate::host::problem::Problem;
use crate::store::{Identity, ReceivedBatch};

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

    pub(super) fn read(
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
