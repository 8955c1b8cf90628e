//! What a server has, as a point list: `forebay browse opcua`.
//!
//! Walks the hierarchy breadth first, page by page, each node once. A variable becomes a line with its type, unit, range,
//! description and whether it may be written; an array a line for each element. What is no single value is a remark.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResultMaskFlags, DataValue, EUInformation,
    NodeClass, NodeClassMask, NodeId, ObjectId, Range, ReadValueId, ReferenceDescription, ReferenceTypeId,
    UAString, Variant,
};
use runtime::clock::Clock;

use super::items::CAN_WRITE;
use super::limits::Limits;
use super::link::{Application, Link};
use super::pki::Pki;
use super::settings::{Login, parse_security, parse_url};
use super::{calls, endpoint, items, structures, units, value};
use crate::drivers::DriverError;
use crate::drivers::found_points::{Line, list};

/// More is a mistake in `--from`, or a server without end.
const NODES_MAX: usize = 1_000_000;
/// Elements of an array that get a line each.
const ELEMENTS_MAX: usize = 100;

/// What to browse.
#[derive(Clone, Debug)]
pub struct BrowseOptions {
    /// `opc.tcp://…`
    pub url: String,
    /// The node to begin at; the Objects folder if none.
    pub from: Option<String>,
    /// As in a device's `security`.
    pub security: String,
    /// User and file with the password.
    pub user: Option<(String, PathBuf)>,
    /// Folder of certificates.
    pub pki: PathBuf,
    /// Time limit of a request.
    pub timeout: Duration,
}

/// A variable that was found.
#[derive(Clone, Debug)]
struct Found {
    node: NodeId,
    path: String,
    unit: Option<NodeId>,
    range: Option<NodeId>,
}

/// The point list, as CSV.
pub async fn browse(options: &BrowseOptions) -> Result<String, DriverError> {
    let config = |problem: String| DriverError::Config(problem);
    let url = parse_url(&options.url).map_err(|rule| config(format!("{} {rule}", options.url)))?;
    let security = parse_security(&options.security).map_err(|rule| config(format!("security {rule}")))?;
    let login = options.user.clone().map_or(Login::Anonymous, |(user, file)| Login::Password(user, file));
    let (pki, now) = (Pki::new(&options.pki), Clock::machine().now());
    let own = pki.own(now)?;
    let application = Application::new(pki.store(), own);
    let endpoints = Link::endpoints(&application, &url, options.timeout).await?;
    let endpoint = endpoint::choose(&endpoints, &url, security, &login)?;
    if endpoint.security_mode != opcua::types::MessageSecurityMode::None {
        let der = endpoint.server_certificate.value.as_deref().unwrap_or_default();
        pki.check(der, endpoint.server.application_uri.as_ref(), now, &application.own)?;
    }
    let identity = endpoint::identity(&login, &endpoint)?;
    let mut link = Link::connect(&application, endpoint, identity, options.timeout).await?;
    link.create_session().await?;
    let limits = Limits::fetch(&mut link).await?;
    let namespaces = items::namespaces(&mut link, &limits).await?;
    let root = root(options.from.as_deref(), &namespaces)?;
    let found = walk(&mut link, &limits, root).await?;
    let lines = describe(&mut link, &limits, &found, &namespaces).await?;
    link.close().await;
    Ok(list(lines))
}

fn root(from: Option<&str>, namespaces: &[String]) -> Result<NodeId, DriverError> {
    let Some(text) = from else { return Ok(ObjectId::ObjectsFolder.into()) };
    let address =
        super::address::Address::parse(text).map_err(|rule| DriverError::Config(format!("{text} {rule}")))?;
    let node = address.readings.first().and_then(|place| place.node(namespaces));
    node.ok_or_else(|| DriverError::Config(format!("{text}: the server has no such namespace")))
}

async fn walk(link: &mut Link, limits: &Limits, root: NodeId) -> Result<Vec<Found>, DriverError> {
    let mut seen: HashSet<NodeId> = HashSet::from([root.clone(), ObjectId::Server.into()]);
    let mut found: Vec<Found> = Vec::new();
    // Node, path, and its place in `found` if it is a variable.
    let mut level: Vec<(NodeId, String, Option<usize>)> = vec![(root, String::new(), None)];
    while !level.is_empty() {
        let mut next = Vec::new();
        for piece in level.chunks(limits.browses) {
            let asked = piece.iter().map(|(node, _, _)| children(node)).collect();
            let answers = calls::browse(link, limits, asked).await?;
            for ((_, path, variable), references) in piece.iter().zip(answers) {
                for reference in references {
                    if !reference.node_id.is_null() && reference.node_id.server_index == 0 {
                        visit(reference, path, *variable, &mut seen, &mut found, &mut next);
                    }
                }
            }
            if seen.len() > NODES_MAX {
                return Err(DriverError::Config(format!(
                    "more than {NODES_MAX} nodes: browse a part, with --from"
                )));
            }
        }
        level = next;
    }
    Ok(found)
}

fn children(node: &NodeId) -> BrowseDescription {
    BrowseDescription {
        node_id: node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: (NodeClassMask::OBJECT | NodeClassMask::VARIABLE).bits(),
        result_mask: BrowseResultMaskFlags::all().bits(),
    }
}

fn visit(
    reference: ReferenceDescription,
    path: &str,
    variable: Option<usize>,
    seen: &mut HashSet<NodeId>,
    found: &mut Vec<Found>,
    next: &mut Vec<(NodeId, String, Option<usize>)>,
) {
    let node = reference.node_id.node_id;
    let name = text_of(&reference.browse_name.name);
    if reference.reference_type_id == ReferenceTypeId::HasProperty {
        if let Some(owner) = variable.and_then(|nth| found.get_mut(nth)) {
            match name.as_str() {
                "EURange" => owner.range = Some(node),
                "EngineeringUnits" => owner.unit = Some(node),
                _ => {}
            }
        }
        return;
    }
    if !seen.insert(node.clone()) {
        return;
    }
    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
    let is_variable = reference.node_class == NodeClass::Variable;
    let place = is_variable.then_some(found.len());
    if is_variable {
        found.push(Found { node: node.clone(), path: path.clone(), unit: None, range: None });
    }
    next.push((node, path, place));
}

/// Reads what the list says of the variables.
async fn describe(
    link: &mut Link,
    limits: &Limits,
    found: &[Found],
    namespaces: &[String],
) -> Result<Vec<Line>, DriverError> {
    const ASKED: [AttributeId; 5] = [
        AttributeId::DataType,
        AttributeId::ValueRank,
        AttributeId::UserAccessLevel,
        AttributeId::Description,
        AttributeId::Value,
    ];
    let mut lines = Vec::new();
    for piece in found.chunks((limits.reads / ASKED.len()).max(1)) {
        let asked = piece
            .iter()
            .flat_map(|found| ASKED.map(|attribute| ReadValueId::new(found.node.clone(), attribute)));
        let answers = calls::read(link, limits, asked.collect()).await?;
        let types: Vec<NodeId> = answers
            .chunks(ASKED.len())
            .map(|answer| node_of(answer.first()))
            .map(Option::unwrap_or_default)
            .collect();
        let types = structures::built_in(link, limits, &types).await?;
        let extras = piece.iter().flat_map(|found| [found.unit.clone(), found.range.clone()]);
        let asked: Vec<NodeId> = extras.clone().flatten().collect();
        let asked = asked.into_iter().map(|node| ReadValueId::new(node, AttributeId::Value)).collect();
        let mut values = calls::read(link, limits, asked).await?.into_iter();
        let mut extras = extras.map(|node| node.and_then(|_| values.next()));
        for ((found, answer), built_in) in piece.iter().zip(answers.chunks(ASKED.len())).zip(types) {
            let (unit, range) = (extras.next().flatten(), extras.next().flatten());
            let mut line = Line {
                name: found.path.clone(),
                address: address(&found.node, namespaces),
                data_type: built_in.and_then(value::data_type),
                is_writable: matches!(value_of(answer.get(2)), Some(Variant::Byte(level)) if level & CAN_WRITE != 0),
                range: range.and_then(|range| object::<Range>(&range).map(|range| (range.low, range.high))),
                ..Line::default()
            };
            if let Some(Variant::LocalizedText(text)) = value_of(answer.get(3)) {
                line.description = text_of(&text.text);
            }
            if let Some(unit) = unit.as_ref().and_then(object::<EUInformation>) {
                let said = text_of(&unit.display_name.text);
                line.unit = units::ucum(unit.unit_id, &said);
                if line.unit.is_empty() && !said.is_empty() {
                    line.description = format!("{} ({said})", line.description).trim().to_owned();
                }
            }
            let rank = match value_of(answer.get(1)) {
                Some(Variant::Int32(rank)) => *rank,
                _ => -1,
            };
            spread(line, rank, value_of(answer.get(4)), &mut lines);
        }
    }
    Ok(lines)
}

/// An array becomes its elements.
fn spread(line: Line, rank: i32, value: Option<&Variant>, lines: &mut Vec<Line>) {
    let Some(Variant::Array(array)) = value else {
        // An array whose size is not known is no point.
        lines.push(if rank >= 0 { Line { data_type: None, ..line } } else { line });
        return;
    };
    let sizes: Vec<u32> = match &array.dimensions {
        Some(dimensions) if dimensions.len() > 1 => dimensions.clone(),
        _ => vec![u32::try_from(array.values.len()).unwrap_or(u32::MAX)],
    };
    if array.values.is_empty() || array.values.len() > ELEMENTS_MAX || line.data_type.is_none() {
        lines.push(Line { data_type: None, ..line });
        return;
    }
    for nth in 0..array.values.len() {
        let (mut rest, mut indices) = (nth, Vec::new());
        for size in sizes.iter().rev() {
            let size = usize::try_from(*size).unwrap_or(1).max(1);
            indices.push((rest % size).to_string());
            rest /= size;
        }
        indices.reverse();
        let index = format!("[{}]", indices.join(","));
        lines.push(Line {
            name: format!("{}{index}", line.name),
            address: format!("{}{index}", line.address),
            ..line.clone()
        });
    }
}

fn value_of(answer: Option<&DataValue>) -> Option<&Variant> {
    answer.and_then(|answer| answer.value.as_ref())
}

/// A null text is an empty one.
fn text_of(text: &UAString) -> String {
    text.value().clone().unwrap_or_default()
}

fn node_of(answer: Option<&DataValue>) -> Option<NodeId> {
    match value_of(answer) {
        Some(Variant::NodeId(node)) => Some((**node).clone()),
        _ => None,
    }
}

fn object<T: Clone + Send + Sync + 'static>(value: &DataValue) -> Option<T> {
    match &value.value {
        Some(Variant::ExtensionObject(object)) => object.inner_as::<T>().cloned(),
        _ => None,
    }
}

/// By namespace URI: the index may be another one tomorrow.
fn address(node: &NodeId, namespaces: &[String]) -> String {
    let uri = namespaces.get(usize::from(node.namespace)).filter(|uri| node.namespace > 0 && !uri.is_empty());
    match uri {
        Some(uri) => format!("nsu={};{}", uri.replace('%', "%25").replace(';', "%3B"), node.identifier),
        None => node.to_string(),
    }
}
