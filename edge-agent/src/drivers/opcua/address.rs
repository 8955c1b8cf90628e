//! A point's address: which node, which part of its value, and how it is watched.
//!
//! ```text
//! ns=2;s=Press.Temperature                      a node by namespace index; i= s= g= b= as in OPC UA Part 6
//! nsu=urn:maker:press;s=Press.Temperature       by namespace URI: indices change, URIs do not
//! ns=2;s=Press.Temps[3]                         element 3 of an array, from 0; [1,2] of a matrix
//! ns=2;s=Press.State#Motor.Speed                a field of a structure, of a structure in it
//! ns=2;s=Level sampling=100ms queue=50 deadband=0.5 publishing=200ms
//! ```
//!
//! Identifiers may themselves end in `[3]` or hold a `#` (S7-1500 does the former): [`Address::readings`] gives every way to
//! read the text, whole identifier first, and the driver takes the first whose node exists.

use std::time::Duration;

use opcua::types::{Identifier, NodeId};
use runtime::config_file::parse_duration;

/// Nesting that no machine needs.
const PARTS_MAX: usize = 16;
/// Part 3 allows this much; and point lists are typed by people.
const IDENTIFIER_BYTES_MAX: usize = 4096;

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// `[3]`, `[1,2]`
    Element(Vec<u32>),
    /// `#name`
    Field(String),
}

/// A namespace as the address gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Namespace {
    Index(u16),
    Uri(String),
}

/// One way to read an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) identifier: Identifier,
    pub(super) parts: Vec<Part>,
}

/// A change below this is not told by the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ServerBand {
    Absolute(f64),
    /// Of the node's EURange.
    Percent(f64),
}

/// How a point is watched; what is not said is the device's default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Watch {
    pub(super) sampling: Option<Duration>,
    pub(super) publishing: Option<Duration>,
    pub(super) queue: Option<u32>,
    pub(super) band: Option<ServerBand>,
}

/// An address that is well-formed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    /// Ways to read it, at least one; the whole identifier first.
    pub(super) readings: Vec<Place>,
    pub(super) watch: Watch,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if text.len() > IDENTIFIER_BYTES_MAX {
            return Err(format!("is longer than {IDENTIFIER_BYTES_MAX} bytes"));
        }
        let (node, watch) = options(text)?;
        let (namespace, rest) = namespace(node)?;
        let whole = identifier(rest).map(|identifier| (identifier, Vec::new()));
        let part = parts(rest).and_then(|(head, parts)| Some((identifier(head).ok()?, parts)));
        let place = |(identifier, parts)| Place { namespace: namespace.clone(), identifier, parts };
        match (whole, part) {
            (Err(rule), None) => Err(rule),
            (whole, part) => {
                Ok(Address { readings: whole.ok().into_iter().chain(part).map(place).collect(), watch })
            }
        }
    }
}

impl Address {
    /// What it names, however it is watched.
    pub(super) fn key(&self) -> String {
        self.readings.first().map_or_else(String::new, |place| format!("{place:?}"))
    }
}

const ID_RULE: &str = "must be a node id such as \"ns=2;s=Press.Temperature\", \"ns=2;i=1001\" or \"nsu=urn:maker:press;s=…\", \
                       then [index] or #field for a part of its value, then options such as sampling=100ms";

/// Cuts ` key=value` options off the end; a word that is none of ours belongs to the identifier.
fn options(text: &str) -> Result<(&str, Watch), String> {
    let (mut rest, mut watch) = (text.trim_end(), Watch::default());
    while let Some((head, word)) = rest.rsplit_once(' ')
        && let Some((key, value)) = word.split_once('=')
        && matches!(key, "sampling" | "publishing" | "queue" | "deadband")
    {
        match key {
            "sampling" => watch.sampling = Some(interval(value).map_err(|rule| format!("sampling {rule}"))?),
            "publishing" => {
                watch.publishing = Some(interval(value).map_err(|rule| format!("publishing {rule}"))?)
            }
            "queue" => watch.queue = Some(queue(value)?),
            _ => watch.band = Some(band(value)?),
        }
        rest = head.trim_end();
    }
    Ok((rest, watch))
}

fn interval(text: &str) -> Result<Duration, String> {
    let range = INTERVAL_RANGE;
    parse_duration(text)
        .ok()
        .filter(|found| range.contains(found))
        .ok_or_else(|| "must be from 10ms to 1h".into())
}

/// Sampling and publishing.
pub(super) const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);
/// Values that the server keeps for a point between two publishes.
pub(super) const QUEUE_RANGE: std::ops::RangeInclusive<i64> = 1..=100_000;

fn queue(text: &str) -> Result<u32, String> {
    let found = text.parse::<u32>().ok().filter(|found| QUEUE_RANGE.contains(&i64::from(*found)));
    found.ok_or_else(|| {
        format!("queue must be a number from {} to {}", QUEUE_RANGE.start(), QUEUE_RANGE.end())
    })
}

/// `0.5` or `2%`.
pub(super) fn band(text: &str) -> Result<ServerBand, String> {
    let rule = || "deadband must be a number such as 0.5, or a part of the range such as 2%".to_owned();
    let (number, make): (_, fn(f64) -> ServerBand) = match text.strip_suffix('%') {
        Some(number) => (number, ServerBand::Percent),
        None => (text, ServerBand::Absolute),
    };
    let number: f64 = number.trim().parse().map_err(|_| rule())?;
    let limit = if text.ends_with('%') { 100.0 } else { f64::MAX };
    if number.is_finite() && (0.0..=limit).contains(&number) { Ok(make(number)) } else { Err(rule()) }
}

fn namespace(text: &str) -> Result<(Namespace, &str), String> {
    if let Some(rest) = text.strip_prefix("nsu=") {
        // A URI may hold semicolons, escaped as %3B; an identifier begins after the first plain one.
        let (uri, rest) = rest.split_once(';').ok_or(ID_RULE)?;
        if uri.is_empty() {
            return Err("nsu= needs a namespace URI".into());
        }
        return Ok((Namespace::Uri(uri.replace("%3B", ";").replace("%25", "%")), rest));
    }
    match text.strip_prefix("ns=") {
        Some(rest) => {
            let (index, rest) = rest.split_once(';').ok_or(ID_RULE)?;
            let index = index.parse().map_err(|_| "ns= must be a number from 0 to 65535".to_owned())?;
            Ok((Namespace::Index(index), rest))
        }
        None => Ok((Namespace::Index(0), text)),
    }
}

fn identifier(text: &str) -> Result<Identifier, String> {
    let (kind, value) = text.split_once('=').ok_or(ID_RULE)?;
    if value.is_empty() {
        return Err(ID_RULE.into());
    }
    match kind {
        "i" => value
            .parse()
            .map(Identifier::Numeric)
            .map_err(|_| "i= must be a number from 0 to 4294967295".into()),
        "s" => Ok(Identifier::from(value.to_owned())),
        "g" | "b" => {
            let rule = if kind == "g" { "g= must be a GUID" } else { "b= must be base64" };
            text.parse::<NodeId>().map(|node| node.identifier).map_err(|_| rule.to_owned())
        }
        _ => Err(ID_RULE.into()),
    }
}

/// Cuts `[…]` and `#field` off the end; `None` if there are none.
fn parts(text: &str) -> Option<(&str, Vec<Part>)> {
    let value_at = text.find('=')? + 1;
    let start = first_part(text.get(value_at..)?)? + value_at;
    let (head, mut tail) = text.split_at(start);
    let mut parts = Vec::new();
    while !tail.is_empty() {
        if parts.len() == PARTS_MAX {
            return None;
        }
        if let Some(rest) = tail.strip_prefix('[') {
            let (inside, rest) = rest.split_once(']')?;
            let indices: Result<Vec<u32>, _> = inside.split(',').map(|index| index.trim().parse()).collect();
            parts.push(Part::Element(indices.ok()?));
            tail = rest;
        } else {
            let rest = tail.strip_prefix(['#', '.'])?;
            let end = rest.find(['[', '.']).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            if name.is_empty() {
                return None;
            }
            parts.push(Part::Field(name.to_owned()));
            tail = rest;
        }
    }
    Some((head, parts)).filter(|(head, parts)| head.len() > value_at && !parts.is_empty())
}

/// Where the parts begin: the last `#`, with brackets directly before it, or brackets at the end.
fn first_part(value: &str) -> Option<usize> {
    let mut start = value.rfind('#');
    let head = start.map_or(value, |at| &value[..at]);
    let mut rest = head;
    while let Some(open) = rest.strip_suffix(']').and_then(|inside| inside.rfind('[')) {
        let inside = &rest[open + 1..rest.len() - 1];
        if inside.is_empty() || !inside.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b' ') {
            break;
        }
        start = Some(open);
        rest = &rest[..open];
    }
    start
}

impl Place {
    /// The node on a server with these namespaces; `None` if it has not that namespace.
    pub(super) fn node(&self, namespaces: &[String]) -> Option<NodeId> {
        let namespace = match &self.namespace {
            Namespace::Index(index) => *index,
            Namespace::Uri(uri) => u16::try_from(namespaces.iter().position(|known| known == uri)?).ok()?,
        };
        Some(NodeId { namespace, identifier: self.identifier.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, nth: usize) -> (String, Vec<Part>) {
        let place = Address::parse(text).unwrap().readings.swap_remove(nth);
        (
            place.node(&["http://opcfoundation.org/UA/".into(), "urn:a;b".into()]).unwrap().to_string(),
            place.parts,
        )
    }

    fn field(name: &str) -> Part {
        Part::Field(name.into())
    }

    #[test]
    fn every_form_is_read() {
        for text in
            ["ns=2;s=Press.Temperature", "i=2258", "ns=3;i=7", "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63"]
        {
            assert_eq!(place(text, 0), (text.to_owned(), vec![]));
            assert_eq!(Address::parse(text).unwrap().readings.len(), 1, "{text}");
        }
        assert_eq!(place("nsu=urn:a%3Bb;s=x y=z", 0).0, "ns=1;s=x y=z");
        assert_eq!(place("ns=2;s=T[3]", 0), ("ns=2;s=T[3]".into(), vec![]));
        assert_eq!(place("ns=2;s=T[3]", 1), ("ns=2;s=T".into(), vec![Part::Element(vec![3])]));
        assert_eq!(place("ns=2;i=7[1,2]", 0), ("ns=2;i=7".into(), vec![Part::Element(vec![1, 2])]));
        let parts = vec![Part::Element(vec![3]), field("Motor"), Part::Element(vec![0]), field("Speed")];
        assert_eq!(place("ns=3;s=\"DB\".\"a\"[3]#Motor[0].Speed", 1), ("ns=3;s=\"DB\".\"a\"".into(), parts));
        assert_eq!(place("ns=2;i=7#a.b", 0), ("ns=2;i=7".into(), vec![field("a"), field("b")]));
        assert_eq!(place("ns=2;s=a[b]", 0), ("ns=2;s=a[b]".into(), vec![]));
        assert_eq!(Address::parse("ns=2;s=a[b]").unwrap().readings.len(), 1);
    }

    #[test]
    fn options_are_cut_off() {
        let address =
            Address::parse("ns=2;s=my tag sampling=100ms queue=50 deadband=2% publishing=1s").unwrap();
        let watch = Watch {
            sampling: Some(Duration::from_millis(100)),
            publishing: Some(Duration::from_secs(1)),
            queue: Some(50),
            band: Some(ServerBand::Percent(2.0)),
        };
        assert_eq!(address.watch, watch);
        assert_eq!(address.readings[0].identifier, Identifier::from("my tag".to_owned()));
        assert_eq!(Address::parse("i=1 deadband=0.5").unwrap().watch.band, Some(ServerBand::Absolute(0.5)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "Press",
            "ns=2",
            "ns=x;i=1",
            "ns=70000;i=1",
            "ns=1;i=x",
            "ns=1;i=-1",
            "ns=1;i=5000000000",
            "ns=1;g=5",
            "q=1",
            "nsu=;i=1",
            "s=",
            "i=1 queue=0",
            "i=1 sampling=1ms",
            "i=1 deadband=-1",
            "i=1 deadband=200%",
            "ns=1;i=7[x]",
        ] {
            assert!(Address::parse(text).is_err(), "{text}: {:?}", Address::parse(text));
        }
        let deep = format!("i=1{}", "[0]".repeat(100));
        assert!(Address::parse(&deep).is_err());
    }
}
