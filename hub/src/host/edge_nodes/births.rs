//! Births: what a node or device describes becomes its present state; values of foreign births are rows where they changed.

use std::collections::{BTreeSet, HashMap};

use model::limits::AGENT_POINTS_MAX;
use model::{DataType, Epoch, Offset, PointId, QualityClass, RecordId, Sample, SampleBatch};
use proto::log_record::AgentId;
use proto::sparkplug::PayloadView;

use super::node::newest;
use super::{Action, DEVICE_BIRTHS, DEVICES_MAX, EdgeNodes, METRICS_MAX, Message, Moment};
use crate::host::aliases::Aliases;
use crate::host::birth::{self, Birth, Claim, ClaimKind, Present};
use crate::host::decode::{Device, Metric, MetricKind, is_news};
use crate::host::problem::Problem;
use crate::store::{Identity, ReceivedBatch};

impl EdgeNodes {
    pub(super) fn node_birth(
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

    pub(super) fn device_birth(
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
    pub(super) fn born(
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
        let Birth { claims, definitions, aliases, problems, .. } = birth;
        for (problem, _) in &problems {
            self.problems.add(*problem);
        }
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
            self.keep(*problem, message, now, &why, (None, &[]), out);
            tracing::warn!(node = %message.node, device = message.device, problems = problems.len(),
                first = problem.name(), what, "birth with problems");
        }
        let points: Vec<PointId> = assigned.iter().map(|point| point.id).collect();
        let (device, present) = self.device_of(claims, aliases, &points, own);
        self.install(message, device, present, agent, now, out);
    }

    /// Whether the metrics of a birth have room beside all others.
    pub(super) fn room_for(&self, message: &Message<'_>, metrics: usize) -> Result<(), String> {
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
    pub(super) fn device_of(
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
                ClaimKind::Point { data_type, reports_commands, present: state } => {
                    let Some(point) = points.next() else { continue };
                    if reports_commands {
                        device.report = Some(number);
                    }
                    present.push((point, number, state));
                    (MetricKind::Point(point), data_type)
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
    pub(super) fn install(
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
}
