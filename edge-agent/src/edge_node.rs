//! The Sparkplug edge node of one session: births, aliases, `seq`, device states. A pure state machine: it is told what
//! happens and says what to publish, in order; sockets, files and clocks are `uplink`'s.
//!
//! ```text
//!                      NBIRTH (seq 0)
//!                            │
//!   device:   Dead ──DBIRTH──► Up ──DDEATH──► Dead        live records; Down ends with a DDEATH
//!               └────DBIRTH──► History ──DDEATH──► Dead    history of a device that is down: all metrics Stale
//!                                 └──DBIRTH──► Up          it came back meanwhile
//! ```
//!
//! Invariants (asserted by the property test beside this file):
//! - Nothing before NBIRTH; `seq` counts every message after it, modulo 256, without a gap.
//! - Data of a device only between its DBIRTH and its DDEATH; every alias in data was in the present birth.
//! - One record is one payload, metrics in record order.

use std::sync::Arc;

use model::{DataType, NodeId, PointId, Quality, Reason, Sample, SampleBatch, Timestamp, Value};
use proto::health::HealthReport;
use proto::log_record::DeviceEvent;
use proto::receipt::RECEIPT_METRIC;
use proto::seal;
use proto::sparkplug::encode::{self, BirthMetric};
use proto::sparkplug::{BirthHead, MessageType, RecordHead, Topic};

use crate::catalogue::{DeviceIndex, Points};
use crate::outbox::Latest;

/// Name of the metric that asks for births.
pub const REBIRTH_METRIC: &str = "Node Control/Rebirth";

/// Name of the metric that pairs births with deaths.
pub const BD_SEQ_METRIC: &str = "bdSeq";

/// One message to publish, QoS 0, not retained (the will and the death: QoS 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic name.
    pub topic: String,
    /// Payload, sealed for that topic.
    pub payload: Vec<u8>,
}

impl Outgoing {
    fn sealed(topic: String, mut payload: Vec<u8>) -> Self {
        seal::put(&topic, &mut payload);
        Outgoing { topic, payload }
    }
}

/// The newest sample of a point, if there is one.
pub type LatestOf<'a> = &'a dyn Fn(PointId) -> Option<Latest>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Dead,
    /// Born for its history only, all metrics Stale.
    History,
    Up,
}

/// A session's edge node.
#[derive(Debug)]
pub struct EdgeNode {
    node: NodeId,
    points: Arc<Points>,
    bd_seq: u8,
    seq: u8,
    lives: Vec<Life>,
    /// Whether births name points that the configuration no longer has.
    with_retired: bool,
}

impl EdgeNode {
    /// The node of a session that is about to connect with this `bdSeq`.
    #[must_use]
    pub fn new(node: NodeId, points: Arc<Points>, bd_seq: u8) -> Self {
        let lives = vec![Life::Dead; points.devices().len()];
        EdgeNode { node, points, bd_seq, seq: 0, lives, with_retired: true }
    }

    /// The will, and what is published before a deliberate disconnection: NDEATH.
    #[must_use]
    pub fn death(&self, now: Timestamp) -> Outgoing {
        let mut payload = Vec::new();
        encode::node_death(self.bd_seq, now, &mut payload);
        Outgoing::sealed(Topic::node(MessageType::NDeath, &self.node).to_string(), payload)
    }

    /// NBIRTH: all devices are dead after it. [`EdgeNode::device_birth`] follows for those that are up.
    #[must_use]
    pub fn birth(
        &mut self,
        now: Timestamp,
        head: &BirthHead,
        latest: LatestOf<'_>,
        with_retired: bool,
    ) -> Outgoing {
        self.lives.fill(Life::Dead);
        self.seq = 0;
        self.with_retired = with_retired;
        let bd_seq = Value::Int64(i64::from(self.bd_seq));
        let no = Value::Boolean(false);
        let control = |name, data_type, value| BirthMetric {
            name,
            alias: None,
            data_type,
            value,
            time: now,
            quality: Quality::GOOD,
            definition: None,
        };
        let mut metrics = vec![
            control(BD_SEQ_METRIC, DataType::Int64, Some(&bd_seq)),
            control(REBIRTH_METRIC, DataType::Boolean, Some(&no)),
            control(RECEIPT_METRIC, DataType::Bytes, None),
        ];
        let found: Vec<(PointId, Option<Latest>)> = self.metrics(DeviceIndex::NODE, latest);
        metrics.extend(
            found.iter().filter_map(|(id, latest)| self.metric(*id, latest.as_ref(), now, Quality::GOOD)),
        );
        let mut payload = Vec::new();
        encode::birth(0, now, &metrics, Some(head), &mut payload);
        self.lives[DeviceIndex::NODE.0] = Life::Up;
        Outgoing::sealed(Topic::node(MessageType::NBirth, &self.node).to_string(), payload)
    }

    /// DBIRTH of a device that is up.
    #[must_use]
    pub fn device_birth(&mut self, device: DeviceIndex, now: Timestamp, latest: LatestOf<'_>) -> Outgoing {
        self.born(device, now, latest, Life::Up)
    }

    /// A record read at the live cursor: its data with the births and deaths that belong to it.
    #[must_use]
    pub fn live(
        &mut self,
        now: Timestamp,
        batch: &SampleBatch,
        head: &RecordHead,
        event: DeviceEvent,
        latest: LatestOf<'_>,
    ) -> Vec<Outgoing> {
        let Some(device) = self.device_of(batch) else { return Vec::new() };
        let mut out = Vec::with_capacity(3);
        if self.lives[device.0] != Life::Up {
            out.push(self.born(device, now, latest, Life::Up));
        }
        out.push(self.data(device, now, batch, head, false));
        if event == DeviceEvent::Down && device != DeviceIndex::NODE {
            out.push(self.died(device, now));
        }
        out
    }

    /// A record of the history stream; a device that is down is born for it, all metrics Stale.
    #[must_use]
    pub fn history(&mut self, now: Timestamp, batch: &SampleBatch, head: &RecordHead) -> Vec<Outgoing> {
        let Some(device) = self.device_of(batch) else { return Vec::new() };
        let mut out = Vec::with_capacity(2);
        if self.lives[device.0] == Life::Dead {
            out.push(self.born(device, now, &|_| None, Life::History));
        }
        out.push(self.data(device, now, batch, head, true));
        out
    }

    /// There is no more history for now: devices that were born for it die.
    #[must_use]
    pub fn history_done(&mut self, now: Timestamp) -> Vec<Outgoing> {
        let born: Vec<usize> = (0..self.lives.len()).filter(|at| self.lives[*at] == Life::History).collect();
        born.into_iter().map(|at| self.died(DeviceIndex(at), now)).collect()
    }

    /// Devices that are up here and down in fact (live records were jumped over): they die.
    #[must_use]
    pub fn reconcile(&mut self, now: Timestamp, is_up: &dyn Fn(DeviceIndex) -> bool) -> Vec<Outgoing> {
        let gone = (1..self.lives.len()).map(DeviceIndex);
        let gone: Vec<DeviceIndex> = gone.filter(|at| self.lives[at.0] == Life::Up && !is_up(*at)).collect();
        gone.into_iter().map(|device| self.died(device, now)).collect()
    }

    /// How the devices are: an NDATA that is no record and has no metrics.
    #[must_use]
    pub fn health(&mut self, now: Timestamp, report: &HealthReport) -> Outgoing {
        let mut payload = Vec::new();
        encode::health(self.next_seq(), now, report, &mut payload);
        Outgoing::sealed(Topic::node(MessageType::NData, &self.node).to_string(), payload)
    }

    /// Whether the device is born as up.
    #[must_use]
    pub fn is_up(&self, device: DeviceIndex) -> bool {
        self.lives.get(device.0) == Some(&Life::Up)
    }

    fn device_of(&self, batch: &SampleBatch) -> Option<DeviceIndex> {
        let entry = self.points.get(batch.samples.first()?.point)?;
        Some(entry.device)
    }

    fn next_seq(&mut self) -> u8 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn born(&mut self, device: DeviceIndex, now: Timestamp, latest: LatestOf<'_>, life: Life) -> Outgoing {
        let never = if life == Life::Up {
            Quality::stale(Reason::NeverRead)
        } else {
            Quality::stale(Reason::NotConnected)
        };
        let found = self.metrics(device, latest);
        let metrics: Vec<BirthMetric<'_>> =
            found.iter().filter_map(|(id, latest)| self.metric(*id, latest.as_ref(), now, never)).collect();
        let mut payload = Vec::new();
        let seq = self.seq.wrapping_add(1);
        encode::birth(seq, now, &metrics, None, &mut payload);
        let topic = self.topic(MessageType::DBirth, device);
        self.next_seq();
        self.lives[device.0] = life;
        Outgoing::sealed(topic, payload)
    }

    fn died(&mut self, device: DeviceIndex, now: Timestamp) -> Outgoing {
        let mut payload = Vec::new();
        encode::device_death(self.next_seq(), now, &mut payload);
        self.lives[device.0] = Life::Dead;
        Outgoing::sealed(self.topic(MessageType::DDeath, device), payload)
    }

    fn data(
        &mut self,
        device: DeviceIndex,
        now: Timestamp,
        batch: &SampleBatch,
        head: &RecordHead,
        historical: bool,
    ) -> Outgoing {
        let seq = self.next_seq();
        let points = &self.points;
        let wire = |id: PointId| points.get(id).map_or(id, |entry| entry.wire);
        let typed = |sample: &Sample| {
            let born = points.get(wire(sample.point)).map(|entry| entry.definition.data_type);
            sample.value.as_ref().map(Value::data_type) != born
        };
        let alias = |id: PointId| u64::from(wire(id).0);
        let historical = historical || batch.is_historical; // read from the source's own history
        let mut payload = Vec::new();
        encode::data(seq, now, batch, head, historical, &typed, &alias, &mut payload);
        Outgoing::sealed(self.topic(MessageType::DData, device), payload)
    }

    /// The points that a birth of the device names, with their newest samples.
    fn metrics(&self, device: DeviceIndex, latest: LatestOf<'_>) -> Vec<(PointId, Option<Latest>)> {
        let Some(device) = self.points.devices().get(device.0) else { return Vec::new() };
        let named =
            |id: &PointId| self.with_retired || self.points.get(*id).is_some_and(|entry| entry.is_current);
        device.points.iter().copied().filter(named).map(|id| (id, latest(id))).collect()
    }

    fn metric<'a>(
        &'a self,
        id: PointId,
        latest: Option<&'a Latest>,
        now: Timestamp,
        without: Quality,
    ) -> Option<BirthMetric<'a>> {
        let entry = self.points.get(id)?;
        Some(BirthMetric {
            name: entry.metric(),
            alias: Some(u64::from(id.0)),
            data_type: entry.definition.data_type,
            value: latest.and_then(|latest| latest.value.as_ref()),
            time: latest.map_or(now, |latest| latest.time),
            quality: latest.map_or(without, |latest| latest.quality),
            definition: Some(&entry.definition),
        })
    }

    /// The topic of a message about a device, or of its node-level twin for the node itself.
    fn topic(&self, kind: MessageType, device: DeviceIndex) -> String {
        match self.points.devices().get(device.0).and_then(|device| device.name.as_deref()) {
            Some(name) => Topic::device(kind, &self.node, name).to_string(),
            None => Topic::node(MessageType::NData, &self.node).to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
