//! Points become nodes, and nodes the items that are watched or read: one item for all points of a node.

use std::collections::HashMap;
use std::time::Duration;

use model::DataType;
use opcua::types::{AttributeId, NodeId, ReadValueId, StatusCode, VariableId, Variant};

use super::address::{Address, Part, ServerBand};
use super::calls;
use super::limits::Limits;
use super::link::Link;
use super::method::Method;
use super::settings::Settings;
use super::structures::Structures;
use crate::drivers::DriverError;

/// `CurrentRead`, `CurrentWrite`, `HistoryRead` of an access level.
pub(super) const CAN_WRITE: u8 = 2;
pub(super) const HAS_HISTORY: u8 = 4;

/// A point as the configuration gives it.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Of a method: its object's.
    pub(super) address: Address,
    pub(super) raw_type: DataType,
    /// What a command to it calls; such a point is neither watched nor read.
    pub(super) method: Option<Method>,
}

impl Point {
    /// What it is, however it is watched: no two points need the same.
    pub(super) fn key(&self) -> String {
        format!("{} {:?}", self.address.key(), self.method)
    }
}

/// Where a point is on this server.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// The node, or why there is none.
    pub(super) node: Result<NodeId, StatusCode>,
    pub(super) parts: Vec<Part>,
}

/// What is watched or read.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) node: NodeId,
    pub(super) points: Vec<usize>,
    pub(super) publishing: Duration,
    pub(super) sampling: Duration,
    pub(super) queue: u32,
    pub(super) band: Option<ServerBand>,
    /// The next value is the first since it is watched: maybe an old one.
    pub(super) is_fresh: bool,
    /// Why it is not watched.
    pub(super) refused: Option<StatusCode>,
}

/// What a connection knows of the server.
pub(super) struct Plan {
    pub(super) namespaces: Vec<String>,
    pub(super) located: Vec<Located>,
    pub(super) items: Vec<Item>,
    pub(super) structures: Structures,
    pub(super) has_history: Vec<bool>,
}

/// The server's namespaces by index.
pub(super) async fn namespaces(link: &mut Link, limits: &Limits) -> Result<Vec<String>, DriverError> {
    let asked = vec![ReadValueId::new(NodeId::from(VariableId::Server_NamespaceArray), AttributeId::Value)];
    let answer = calls::read(link, limits, asked).await?.into_iter().next();
    let Some(Variant::Array(array)) = answer.and_then(|answer| answer.value) else { return Ok(Vec::new()) };
    Ok(array.values.iter().map(|name| name.to_string()).collect())
}

impl Plan {
    /// Finds every point's node.
    pub(super) async fn make(
        link: &mut Link,
        limits: &Limits,
        settings: &Settings,
        points: &[Point],
        namespaces: Vec<String>,
    ) -> Result<Plan, DriverError> {
        let located = locate(link, limits, points, &namespaces).await?;
        let items = items(settings, points, &located);
        let has_history = if settings.history {
            with_history(link, limits, &items, points.len()).await?
        } else {
            vec![false; points.len()]
        };
        let structures = structures(link, limits, &located).await?;
        Ok(Plan { namespaces, located, items, structures, has_history })
    }
}

/// Of the ways to read an address the first whose node exists.
async fn locate(
    link: &mut Link,
    limits: &Limits,
    points: &[Point],
    namespaces: &[String],
) -> Result<Vec<Located>, DriverError> {
    let ambiguous: Vec<(usize, NodeId)> = points
        .iter()
        .enumerate()
        .filter(|(_, point)| point.address.readings.len() > 1)
        .filter_map(|(nth, point)| Some((nth, point.address.readings.first()?.node(namespaces)?)))
        .collect();
    let asked =
        ambiguous.iter().map(|(_, node)| ReadValueId::new(node.clone(), AttributeId::NodeClass)).collect();
    let answers = calls::read(link, limits, asked).await?;
    let is_good = |status: Option<StatusCode>| status.is_none_or(|status| status.is_good());
    let exists: HashMap<usize, bool> =
        ambiguous.iter().zip(answers).map(|((nth, _), answer)| (*nth, is_good(answer.status))).collect();
    let place = |(nth, point): (usize, &Point)| {
        let whole = exists.get(&nth).copied().unwrap_or(true);
        let readings = &point.address.readings;
        let chosen = if whole { readings.first() } else { readings.last() };
        let node = chosen.and_then(|place| place.node(namespaces)).ok_or(StatusCode::BadNodeIdUnknown);
        Located { node, parts: chosen.map(|place| place.parts.clone()).unwrap_or_default() }
    };
    Ok(points.iter().enumerate().map(place).collect())
}

fn items(settings: &Settings, points: &[Point], located: &[Located]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut by_key: HashMap<(NodeId, String), usize> = HashMap::new();
    for (nth, (point, located)) in points.iter().zip(located).enumerate() {
        let Ok(node) = &located.node else { continue };
        if point.method.is_some() {
            continue;
        }
        let watch @ (publishing, sampling, queue, band) = settings.watch(&point.address.watch);
        // Of an array or a structure a server can only say that it changed.
        let band = band.filter(|_| located.parts.is_empty() && point.raw_type.is_numeric());
        let at = *by_key.entry((node.clone(), format!("{watch:?}"))).or_insert(items.len());
        if let Some(item) = items.get_mut(at) {
            item.points.push(nth);
            continue;
        }
        let node = node.clone();
        items.push(Item {
            node,
            points: vec![nth],
            publishing,
            sampling,
            queue,
            band,
            is_fresh: true,
            refused: None,
        });
    }
    items
}

/// Which points the server keeps a history of.
async fn with_history(
    link: &mut Link,
    limits: &Limits,
    items: &[Item],
    points: usize,
) -> Result<Vec<bool>, DriverError> {
    let asked =
        items.iter().map(|item| ReadValueId::new(item.node.clone(), AttributeId::AccessLevel)).collect();
    let answers = calls::read(link, limits, asked).await?;
    let mut has_history = vec![false; points];
    for (item, answer) in items.iter().zip(answers) {
        if matches!(answer.value, Some(Variant::Byte(level)) if level & HAS_HISTORY != 0) {
            for point in &item.points {
                has_history[*point] = true;
            }
        }
    }
    Ok(has_history)
}

/// The definitions that points with `#field` need.
async fn structures(
    link: &mut Link,
    limits: &Limits,
    located: &[Located],
) -> Result<Structures, DriverError> {
    let with_field = |located: &&Located| located.parts.iter().any(|part| matches!(part, Part::Field(_)));
    let nodes = located.iter().filter(with_field).filter_map(|located| located.node.as_ref().ok());
    let asked: Vec<ReadValueId> =
        nodes.map(|node| ReadValueId::new(node.clone(), AttributeId::DataType)).collect();
    if asked.is_empty() {
        return Ok(Structures::default());
    }
    let answers = calls::read(link, limits, asked).await?;
    let types = answers.into_iter().filter_map(|answer| match answer.value {
        Some(Variant::NodeId(node)) => Some(*node),
        _ => None,
    });
    let types = types.collect();
    Structures::fetch(link, limits, types).await
}
