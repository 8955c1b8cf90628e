//! Payload → samples, through the metrics that a birth gave. The hot path: no text is made per value.
//!
//! A payload of an agent of ours is taken whole or not at all. What the next birth can make readable is
//! [`Refusal::NotYet`]; what none can is [`Refusal::Never`], and only that goes to quarantine and counts as received.
//! Of a foreign node's payload the readable metrics are taken, and the rest is named.

use std::collections::HashMap;

use model::limits::{RECORD_SAMPLES_MAX, VALUE_BYTES_MAX};
use model::{DataType, PointId, Quality, Reason, Sample, Timestamp, Value};
use proto::sparkplug::{MetricView, PayloadView};

use super::aliases::{Aliases, Meaning};
use super::birth::Present;
use super::problem::Problem;

/// One device of a node, or the node itself, as its last birth described it.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) online: bool,
    /// Whether its points have been marked stale since it went offline.
    pub(super) told_stale: bool,
    pub(super) metrics: Vec<Metric>,
    pub(super) aliases: Aliases,
    /// Names of metrics that data may use; for agents of ours only of those without alias.
    pub(super) names: HashMap<Box<str>, u32>,
    /// Last state per metric, for foreign nodes: their births are compared with it.
    pub(super) last: Vec<Option<Present>>,
    /// The metric whose samples report how commands ended.
    pub(super) report: Option<u32>,
    /// Points of metrics that came with another type than in the birth.
    pub(super) typed: HashMap<(u32, u8), PointId>,
}

/// One metric of a birth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) kind: MetricKind,
    pub(super) data_type: DataType,
}

/// What a metric is to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    Point(PointId),
    Control,
    Unsupported,
}

/// Why a payload is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A birth may change that.
    NotYet(Problem, String),
    /// Nothing can.
    Never(Problem, String),
}

/// A payload's samples.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) samples: Vec<Sample>,
    pub(super) is_historical: bool,
    pub(super) has_command_report: bool,
    /// Metrics left out (foreign nodes only): which, and why the first.
    pub(super) skipped: Vec<u32>,
    pub(super) first_skipped: Option<(Problem, String)>,
}

/// How to read a payload.
pub(super) struct Reading<'a> {
    pub(super) device: &'a mut Device,
    /// Of an agent of ours.
    pub(super) own: bool,
    /// Whether it comes late, out of the quarantine: then it is history, whatever it says.
    pub(super) is_late: bool,
    /// Only these metrics; none: all.
    pub(super) only: &'a [u32],
    pub(super) arrival: Timestamp,
    /// A foreign node's time after this is a wrong clock's. (Ours judge that themselves: their qualities are accounted.)
    pub(super) latest: Timestamp,
    /// The point of a metric with another type than in the birth.
    pub(super) retyped: &'a mut dyn FnMut(PointId, DataType) -> Option<PointId>,
}

impl Device {
    /// Whether a birth has described it since the hub's start.
    pub(super) fn was_born(&self) -> bool {
        !self.metrics.is_empty()
    }

    /// Every point of it.
    pub(super) fn points(&self) -> Vec<PointId> {
        let points = self.metrics.iter().filter_map(|metric| match metric.kind {
            MetricKind::Point(point) => Some(point),
            _ => None,
        });
        points.chain(self.typed.values().copied()).collect()
    }

    fn find(&self, metric: &MetricView<'_>) -> Result<u32, Refusal> {
        let by_name = || metric.name.and_then(|name| self.names.get(name)).copied();
        let Some(alias) = metric.alias else {
            return by_name().ok_or_else(|| not_yet(Problem::UnknownMetric, metric));
        };
        match self.aliases.get(alias) {
            Meaning::Metric(number) => Ok(number),
            Meaning::Unknown => by_name().ok_or_else(|| not_yet(Problem::UnknownMetric, metric)),
            Meaning::Ambiguous => by_name().ok_or_else(|| not_yet(Problem::AmbiguousAlias, metric)),
        }
    }
}

impl Reading<'_> {
    /// Reads the metrics in order.
    pub(super) fn read(&mut self, view: &PayloadView<'_>) -> Result<Decoded, Refusal> {
        if self.own && !(1..=RECORD_SAMPLES_MAX).contains(&view.metrics.len()) {
            let why = format!("a record has 1 to {RECORD_SAMPLES_MAX} metrics, not {}", view.metrics.len());
            return Err(Refusal::Never(Problem::TooLong, why));
        }
        let samples = Vec::with_capacity(view.metrics.len());
        let mut decoded = Decoded { samples, is_historical: self.is_late, ..Decoded::default() };
        let mut numbers = Vec::new();
        for ((index, metric), place) in view.metrics.iter().enumerate().zip(0..) {
            if !self.only.is_empty() && !self.only.contains(&place) {
                continue;
            }
            let number = self.device.find(metric)?;
            decoded.is_historical |= metric.is_historical;
            match self.sample(view, index, number) {
                Ok(Some(sample)) => {
                    decoded.has_command_report |= self.device.report == Some(number);
                    decoded.samples.push(sample);
                    if !self.own {
                        numbers.push(number);
                    }
                }
                Ok(None) => {}
                Err(problem) if self.own => return Err(Refusal::Never(problem, name_of(metric))),
                Err(problem) => {
                    decoded.skipped.push(place);
                    decoded.first_skipped.get_or_insert_with(|| (problem, name_of(metric)));
                }
            }
        }
        if !decoded.is_historical {
            self.remember(&decoded.samples, &numbers);
        }
        Ok(decoded)
    }

    /// `None` for what is no point.
    fn sample(
        &mut self,
        view: &PayloadView<'_>,
        index: usize,
        number: u32,
    ) -> Result<Option<Sample>, Problem> {
        let (Some(metric), Some(view_metric)) =
            (self.device.metrics.get(number as usize).copied(), view.metrics.get(index))
        else {
            return Err(Problem::UnknownMetric);
        };
        let mut point = match metric.kind {
            MetricKind::Point(point) => point,
            MetricKind::Control if !self.own => return Ok(None),
            MetricKind::Control | MetricKind::Unsupported => return Err(Problem::UnsupportedType),
        };
        let data_type = match view_metric.datatype.filter(|code| *code != 0) {
            None => metric.data_type,
            Some(code) => DataType::from_code(code).ok_or(Problem::UnsupportedType)?,
        };
        if data_type != metric.data_type {
            point = self.retype(number, point, data_type)?;
        }
        let value = match view_metric.has_no_value() {
            true => None,
            false => Some(view.value(index, data_type).ok_or(Problem::BadValue)?),
        };
        if value.as_ref().is_some_and(|value| value.heap_bytes() > VALUE_BYTES_MAX) {
            return Err(Problem::BadValue);
        }
        let (time, mut quality) = (view.time(index), view.quality(index));
        if self.own {
            let time = time.ok_or(Problem::BadValue)?;
            return Ok(Some(Sample { point, time, value, quality }));
        }
        let time = time.unwrap_or(self.arrival);
        if quality.is_good() && value.is_none() {
            quality = Quality::bad(Reason::NoData);
        } else if quality.is_good() && (!time.is_plausible() || time > self.latest) {
            quality = Quality::uncertain(Reason::Clock);
        }
        Ok(Some(Sample { point, time, value, quality }))
    }

    fn retype(&mut self, number: u32, point: PointId, data_type: DataType) -> Result<PointId, Problem> {
        let key = (number, data_type.code());
        if let Some(known) = self.device.typed.get(&key) {
            return Ok(*known);
        }
        let other = (self.retyped)(point, data_type).ok_or(Problem::TooMany)?;
        self.device.typed.insert(key, other);
        Ok(other)
    }

    /// Keeps what the next birth is compared with.
    fn remember(&mut self, samples: &[Sample], numbers: &[u32]) {
        for (sample, number) in samples.iter().zip(numbers) {
            if let Some(slot) = self.device.last.get_mut(*number as usize) {
                let Sample { time, value, quality, .. } = sample.clone();
                *slot = Some(Present { time, value, quality });
            }
        }
    }
}

/// Whether a birth's state is news: another value or quality than the last one.
pub(super) fn is_news(last: Option<&Present>, now: &Present) -> bool {
    match last {
        None => now.value.is_some(),
        Some(last) => {
            let same = match (&last.value, &now.value) {
                (None, None) => true,
                (Some(a), Some(b)) => Value::same(a, b),
                _ => false,
            };
            !same || last.quality.class() != now.quality.class()
        }
    }
}

fn not_yet(problem: Problem, metric: &MetricView<'_>) -> Refusal {
    Refusal::NotYet(problem, name_of(metric))
}

fn name_of(metric: &MetricView<'_>) -> String {
    match (metric.name, metric.alias) {
        (Some(name), _) => format!("metric {:?}", name.chars().take(200).collect::<String>()),
        (None, Some(alias)) => format!("alias {alias}"),
        (None, None) => "a metric without name and alias".to_owned(),
    }
}
