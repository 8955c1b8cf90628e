//! One edge node: its session, its devices, its epochs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use model::{Epoch, NodeId, PointId, Timestamp};
use proto::health::DeviceHealth;
use proto::log_record::AgentId;
use proto::sparkplug::{BirthHead, EpochAccount, RecordHead};

use super::{Action, BIRTH_EPOCHS_MAX, Moment, OFFSET_MAX};
use crate::host::DeviceStatus;
use crate::host::birth::Present;
use crate::host::decode::{Device, MetricKind};
use crate::host::problem::Problem;
use crate::host::rebirth::Rebirth;
use crate::host::sequence::Sequence;

/// One edge node.
#[derive(Default)]
pub(super) struct Node {
    pub(super) agent: Option<AgentId>,
    pub(super) online: bool,
    pub(super) foreign: bool,
    pub(super) bd_seq: Option<u64>,
    /// Its birth was sealed, so everything of this session is.
    pub(super) seals: bool,
    /// Births without a seal since the last one with it, of a node that seals: each lost its seal on the way, or the
    /// agent's program is an older one now.
    pub(super) unsealed_births: u8,
    pub(super) sequence: Sequence,
    pub(super) itself: Device,
    pub(super) devices: BTreeMap<String, Device>,
    pub(super) epochs: BTreeMap<Epoch, Span>,
    pub(super) rebirth: Rebirth,
    /// When devices that were not born again count as stale.
    pub(super) devices_due: Option<Duration>,
    pub(super) since: Option<Timestamp>,
    pub(super) last_message: Option<Timestamp>,
    pub(super) heard: Duration,
    pub(super) version: String,
    /// Percent of its outbox that is used, by its last birth.
    pub(super) outbox_used: Option<u8>,
    pub(super) births: u64,
    pub(super) gaps: u64,
    /// How it says its devices are, and when it said so.
    pub(super) health: Vec<DeviceHealth>,
    pub(super) health_at: Timestamp,
    /// At its last message.
    pub(super) clock_ahead_micros: Option<i64>,
    pub(super) is_off_clock: bool,
}

/// What an agent has of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) first_held: u64,
    pub(super) end: u64,
}

/// The last of a birth's epochs, which is where the present one is.
pub(super) fn newest(epochs: &[EpochAccount]) -> &[EpochAccount] {
    epochs.get(epochs.len().saturating_sub(BIRTH_EPOCHS_MAX)..).unwrap_or_default()
}

impl Node {
    pub(super) fn device(&self, name: Option<&str>) -> Option<&Device> {
        match name {
            None => Some(&self.itself),
            Some(name) => self.devices.get(name),
        }
    }

    pub(super) fn device_mut(&mut self, name: Option<&str>) -> Option<&mut Device> {
        match name {
            None => Some(&mut self.itself),
            Some(name) => self.devices.get_mut(name),
        }
    }

    pub(super) fn take_device(&mut self, name: Option<&str>) -> Device {
        match name {
            None => std::mem::take(&mut self.itself),
            Some(name) => self.devices.get_mut(name).map(std::mem::take).unwrap_or_default(),
        }
    }

    pub(super) fn put_device(&mut self, name: Option<&str>, device: Device) {
        match name {
            None => self.itself = device,
            Some(name) => {
                self.devices.insert(name.to_owned(), device);
            }
        }
    }

    pub(super) fn take_head(&mut self, head: Option<&BirthHead>) {
        let spans = head.into_iter().flat_map(|head| newest(&head.epochs));
        self.epochs = spans
            .map(|account| (account.epoch, Span { first_held: account.first_held, end: account.end }))
            .collect();
        self.outbox_used = head.and_then(|head| head.outbox_used);
        let version: String = head.map(|head| head.version.chars().take(100).collect()).unwrap_or_default();
        if self.version != version {
            self.health = Vec::new(); // another program may say nothing of it
        }
        self.version = version;
    }

    /// Its devices by name: those that were born, and those of which it only says how they are, because they never answered.
    pub(super) fn device_statuses(&self) -> Vec<DeviceStatus> {
        let born = self.devices.iter().map(|(name, device)| (name.as_str(), device.online));
        let mut devices: BTreeMap<&str, bool> = born.collect();
        let mut told: HashMap<&str, &DeviceHealth> = HashMap::new();
        for health in &self.health {
            devices.entry(&health.name).or_insert(false);
            told.insert(&health.name, health);
        }
        let status = |(name, online): (&str, bool)| DeviceStatus {
            name: name.to_owned(),
            online,
            health: told.get(name).map(|health| ((*health).clone(), self.health_at)),
        };
        devices.into_iter().map(status).collect()
    }

    /// Whether a record's identity can be what it says.
    pub(super) fn check(&self, head: &RecordHead, log_epoch: Epoch) -> Result<(), Problem> {
        if head.id.epoch == log_epoch || head.id.offset.0 >= OFFSET_MAX || head.first_held > head.id.offset.0
        {
            return Err(Problem::BadIdentity);
        }
        if self.epochs.contains_key(&head.id.epoch) { Ok(()) } else { Err(Problem::UnknownEpoch) }
    }

    /// Takes an epoch's ends from a record; a report if the agent no longer holds what it held.
    pub(super) fn advance(&mut self, head: &RecordHead) -> Option<EpochAccount> {
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

    pub(super) fn offline(&mut self, id: &NodeId, now: Moment, out: &mut Vec<Action>) {
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
    pub(super) fn offline(&mut self, out: &mut Vec<Action>) {
        self.online = false;
        if !self.told_stale {
            self.told_stale = true;
            let points = self.points();
            out.extend((!points.is_empty()).then_some(Action::Stale(points)));
        }
    }

    pub(super) fn last_by_point(&self) -> HashMap<PointId, Present> {
        let states = self.metrics.iter().zip(&self.last);
        let points = states.filter_map(|(metric, last)| match metric.kind {
            MetricKind::Point(point) => Some((point, last.clone()?)),
            _ => None,
        });
        points.collect()
    }
}
