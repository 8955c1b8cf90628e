//! What a birth says: names, aliases, definitions and present values. Pure.

use std::collections::HashMap;

use model::limits::{PATH_BYTES_MAX, VALUE_BYTES_MAX};
use model::{DataType, NodeId, PointDefinition, Quality, Reason, Timestamp, Value};
use proto::receipt::{COMMAND_REPORT_METRIC, RECEIPT_METRIC};
use proto::sparkplug::{MetricView, PayloadView, WireValue};

use super::problem::Problem;
use crate::catalogue::fitting_path;

/// The metric that ties a death to its session.
pub(super) const BD_SEQ: &str = "bdSeq";
/// The metric that asks a node for its births.
pub(super) const REBIRTH: &str = "Node Control/Rebirth";
/// Descriptions beyond this are cut.
const DESCRIPTION_BYTES_MAX: usize = 4096;

/// A metric of a birth.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) alias: Option<u64>,
    pub(super) kind: ClaimKind,
}

/// What a metric is to the hub.
#[derive(Debug)]
pub(super) enum ClaimKind {
    /// A point, the next of the definitions, with its present state.
    Point { data_type: DataType, reports_commands: bool, present: Present },
    /// Sparkplug's or Forebay's own.
    Control,
    /// Nothing that a table can hold.
    Unsupported,
}

/// Present state of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Present {
    pub(super) time: Timestamp,
    pub(super) value: Option<Value>,
    pub(super) quality: Quality,
}

/// What a birth says.
#[derive(Debug, Default)]
pub(super) struct Birth {
    pub(super) claims: Vec<Claim>,
    /// Of the claims that are points, in order.
    pub(super) definitions: Vec<PointDefinition>,
    /// Aliases with the number of their claim.
    pub(super) aliases: Vec<(u64, u32)>,
    pub(super) bd_seq: Option<u64>,
    /// The node takes receipts.
    pub(super) takes_receipts: bool,
    pub(super) problems: Vec<(Problem, String)>,
}

/// Reads a birth of a node or one of its devices. `own`: of an agent of ours, whose paths are given.
pub(super) fn read(
    view: &PayloadView<'_>,
    node: &NodeId,
    device: Option<&str>,
    own: bool,
    arrival: Timestamp,
) -> Birth {
    let mut birth = Birth::default();
    let mut names: HashMap<&str, u32> = HashMap::with_capacity(view.metrics.len());
    for (index, metric) in view.metrics.iter().enumerate() {
        let Some(name) = metric.name.filter(|name| !name.is_empty()) else {
            birth.problems.push((Problem::Nameless, format!("metric {index}")));
            continue;
        };
        if device.is_none() && name == BD_SEQ {
            birth.bd_seq = metric.value.to_u64();
        }
        birth.takes_receipts |= device.is_none() && name == RECEIPT_METRIC;
        let number = u32::try_from(birth.claims.len()).unwrap_or(u32::MAX);
        if let Some(first) = names.get(name) {
            // Its alias means the metric that had the name first.
            birth.aliases.extend(metric.alias.map(|alias| (alias, *first)));
            birth.problems.push((Problem::DuplicateMetric, name.to_owned()));
            continue;
        }
        names.insert(name, number);
        let kind = match kind(view, index, metric, (node, device, name), own, arrival) {
            Ok((kind, definition)) => {
                birth.definitions.extend(definition);
                kind
            }
            Err(problem) => {
                birth.problems.push((problem, name.chars().take(200).collect()));
                ClaimKind::Unsupported
            }
        };
        birth.aliases.extend(metric.alias.map(|alias| (alias, number)));
        birth.claims.push(Claim { name: name.to_owned(), alias: metric.alias, kind });
    }
    birth
}

fn kind(
    view: &PayloadView<'_>,
    index: usize,
    metric: &MetricView<'_>,
    (node, device, name): (&NodeId, Option<&str>, &str),
    own: bool,
    arrival: Timestamp,
) -> Result<(ClaimKind, Option<PointDefinition>), Problem> {
    let control = match device {
        None => name == BD_SEQ || name.starts_with("Node Control/") || name == RECEIPT_METRIC,
        Some(_) => name.starts_with("Device Control/"),
    };
    if control {
        return Ok((ClaimKind::Control, None));
    }
    if name.len() > PATH_BYTES_MAX {
        return Err(Problem::TooLong);
    }
    let data_type = metric.datatype.and_then(DataType::from_code).ok_or(Problem::UnsupportedType)?;
    let definition = definition(metric, (node, device, name), own, data_type).ok_or(Problem::TooLong)?;
    let value = view.value(index, data_type).filter(|value| value.heap_bytes() <= VALUE_BYTES_MAX);
    let quality = match (&value, view.quality(index)) {
        (None, quality) if quality.is_good() => Quality::bad(Reason::NoData),
        (_, quality) => quality,
    };
    let time = view.time(index).unwrap_or(arrival);
    let reports_commands = own && device.is_none() && name == COMMAND_REPORT_METRIC;
    let present = Present { time, value, quality };
    Ok((ClaimKind::Point { data_type, reports_commands, present }, Some(definition)))
}

fn definition(
    metric: &MetricView<'_>,
    (node, device, name): (&NodeId, Option<&str>, &str),
    own: bool,
    data_type: DataType,
) -> Option<PointDefinition> {
    let text = |key| match metric.property(key) {
        Some(WireValue::String(text)) => Some(text),
        _ => None,
    };
    let number = |key| match metric.property(key)? {
        WireValue::Double(number) => Some(number),
        WireValue::Float(number) => Some(f64::from(number)),
        WireValue::Int(number) => Some(f64::from(number)),
        _ => None,
    };
    let place = device.map_or_else(|| name.to_owned(), |device| format!("{device}/{name}"));
    let path = match text("path").filter(|path| own && !path.is_empty()) {
        Some(path) => fitting_path(path),
        None if own && device.is_none() => fitting_path(&format!("{}/{name}", node.node())),
        None if own => fitting_path(&place),
        None => fitting_path(&format!("{node}/{place}")),
    };
    Some(PointDefinition {
        path: path?,
        device: device.map(str::to_owned),
        metric: name.to_owned(),
        data_type,
        unit: cut(text("engUnit").unwrap_or(""), PATH_BYTES_MAX),
        min: number("engLow"),
        max: number("engHigh"),
        writable: own && matches!(metric.property("readOnly"), Some(WireValue::Boolean(false))),
        dead_band: number("deadBand"),
        description: cut(text("description").unwrap_or(""), DESCRIPTION_BYTES_MAX),
    })
}

fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("").to_owned()
}

/// Numbers that nodes write in either integer field.
pub(super) trait ToU64 {
    /// The number, if it is an unsigned integer.
    fn to_u64(&self) -> Option<u64>;
}

impl ToU64 for WireValue<'_> {
    fn to_u64(&self) -> Option<u64> {
        match *self {
            WireValue::Int(number) => Some(u64::from(number)),
            WireValue::Long(number) => Some(number),
            _ => None,
        }
    }
}
