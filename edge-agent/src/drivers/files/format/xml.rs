//! XML documents. Cells are found by paths in the manner of XPath, of which this is a little part:
//!
//! ```text
//! Batch/Value   Value/@unit   @id   .   Sensor[2]/Value   Sensor[@id='T1']/Value   /Log/@machine
//! ```
//! Names are compared without their prefixes. A path that begins with `/` starts at the document, else at the record.

use std::borrow::Cow;

use quick_xml::events::{BytesStart, Event};

use super::super::mapping::{Cell, Cells};
use super::DOCUMENT_VALUES_MAX;

/// Elements within elements.
const DEPTH_MAX: usize = 64;

/// Which cells, and where the records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Xml {
    /// Of each needed cell.
    pub(in super::super) paths: Vec<Path>,
    /// Of the records' elements.
    pub(in super::super) records: Path,
}

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Path {
    from_root: bool,
    steps: Vec<Step>,
    /// An attribute of the last element, else its text.
    attribute: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: String,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Any,
    Nth(usize),
    With(String, String),
}

/// An element.
#[derive(Debug, Default)]
pub(in super::super) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

impl Path {
    /// Reads a path.
    pub(in super::super) fn parse(text: &str) -> Result<Path, String> {
        let wrong = || "must be a path such as Sensor[@id='T1']/Value, Value/@unit or @id".to_owned();
        let text = text.trim();
        let from_root = text.starts_with('/');
        let mut path = Path { from_root, ..Path::default() };
        let relative = text.strip_prefix('/').unwrap_or(text);
        if relative == "." {
            return Ok(path);
        }
        let mut steps = relative.split('/').peekable();
        while let Some(step) = steps.next() {
            if let Some(attribute) = step.strip_prefix('@') {
                if attribute.is_empty() || steps.peek().is_some() {
                    return Err(wrong());
                }
                path.attribute = Some(attribute.to_owned());
                break;
            }
            path.steps.push(Step::parse(step).ok_or_else(wrong)?);
        }
        Ok(path)
    }

    /// Every element that the path leads to.
    fn elements<'e>(&self, start: &'e Element) -> Vec<&'e Element> {
        let mut found = vec![start];
        for step in &self.steps {
            found = found.into_iter().flat_map(|element| step.children(element)).collect();
        }
        found
    }

    fn text<'e>(&self, root: &'e Element, record: &'e Element) -> Option<&'e str> {
        let start = if self.from_root { root } else { record };
        let element =
            self.steps.iter().try_fold(start, |element, step| step.children(element).first().copied())?;
        match &self.attribute {
            Some(name) => {
                element.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
            }
            None => Some(element.text.trim()),
        }
    }
}

impl Step {
    fn parse(text: &str) -> Option<Step> {
        let (name, which) = match text.strip_suffix(']').map(|text| text.split_once('[')) {
            None => (text, Which::Any),
            Some(None) => return None,
            Some(Some((name, inside))) => match inside.strip_prefix('@') {
                None => (name, Which::Nth(inside.parse().ok().filter(|nth| *nth > 0)?)),
                Some(condition) => {
                    let (key, value) = condition.split_once('=')?;
                    let value = value.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"'])?;
                    (name, Which::With(key.trim().to_owned(), value.to_owned()))
                }
            },
        };
        let is_name = !name.is_empty() && !name.contains(['[', ']', '@', ' ']);
        is_name.then(|| Step { name: name.to_owned(), which })
    }

    fn children<'e>(&self, of: &'e Element) -> Vec<&'e Element> {
        let named = of.children.iter().filter(|child| child.name == self.name);
        let (skip, take) = match &self.which {
            Which::Nth(nth) => (nth - 1, 1),
            Which::Any | Which::With(..) => (0, usize::MAX),
        };
        let fits = |child: &&Element| match &self.which {
            Which::With(key, value) => child.attributes.iter().any(|(k, v)| k == key && v == value),
            Which::Any | Which::Nth(_) => true,
        };
        named.skip(skip).take(take).filter(fits).collect()
    }
}

impl Xml {
    /// The records of a document.
    pub(in super::super) fn records<'e>(&self, root: &'e Element) -> Vec<&'e Element> {
        self.records.elements(root)
    }

    /// The cells of a record.
    pub(in super::super) fn cells<'e>(&self, root: &'e Element, record: &'e Element) -> Cells<'e> {
        let cell = |path: &Path| path.text(root, record).map(|text| Cell::Text(Cow::Borrowed(text)));
        self.paths.iter().map(cell).collect()
    }
}

/// Reads a document: an element without name that holds the root.
pub(in super::super) fn parse(text: &str) -> Result<Element, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("no XML: {error}");
    let mut reader = quick_xml::Reader::from_str(text);
    let mut open = vec![Element::default()];
    let mut values = 0;
    loop {
        let event = reader.read_event().map_err(|error| wrong(&error))?;
        let Some(inner) = open.last_mut() else { return Err("no XML: an end without beginning".into()) };
        match event {
            Event::Start(start) => {
                let element = element(&start)?;
                values += 1 + element.attributes.len();
                open.push(element);
            }
            Event::Empty(start) => {
                let element = element(&start)?;
                values += 1 + element.attributes.len();
                inner.children.push(element);
            }
            Event::End(_) => {
                let closed = open.pop();
                match (open.last_mut(), closed) {
                    (Some(outer), Some(closed)) => outer.children.push(closed),
                    _ => return Err("no XML: an end without beginning".into()),
                }
            }
            Event::Text(text) => inner.text.push_str(&text.xml10_content()),
            Event::CData(text) => inner.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| wrong(&error))?;
                match character {
                    Some(character) => inner.text.push(character),
                    // Entities that a document defines are not read: they can be made to grow without end.
                    None => inner.text.push_str(match reference.xml10_content().as_ref() {
                        "lt" => "<",
                        "gt" => ">",
                        "amp" => "&",
                        "quot" => "\"",
                        "apos" => "'",
                        other => return Err(format!("no XML that is read here: entity {other:?}")),
                    }),
                }
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
        if open.len() > DEPTH_MAX {
            return Err(format!("elements lie more than {DEPTH_MAX} deep"));
        }
        if values > DOCUMENT_VALUES_MAX {
            return Err(format!("the document has more than {DOCUMENT_VALUES_MAX} elements and attributes"));
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(document), true) if document.children.len() == 1 => Ok(document),
        (Some(_), true) => Err("no XML: there is not one root".into()),
        _ => Err("no XML: it ends before its root does".into()),
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("no XML: {error}");
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| wrong(&error))?;
        let value =
            attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(|error| wrong(&error))?;
        attributes.push((local(attribute.key.into_inner()).to_owned(), value.into_owned()));
    }
    let name = local(start.name().into_inner()).to_owned();
    Ok(Element { name, attributes, ..Element::default() })
}

/// A name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_elements_and_attributes() {
        let text = "<?xml version=\"1.0\"?><!-- x --><l:Log xmlns:l='u' m='A &amp; B'><Row n='1'><V u='bar'> 1.5 </V>\
                    <S id='T1'>20</S><S id='T2'>2<![CDATA[1<]]>&#x41;&lt;</S></Row><Row n='2'><V/></Row></l:Log>";
        let root = parse(text).unwrap();
        let records = Path::parse("/Log/Row").unwrap();
        let records = records.elements(&root);
        assert_eq!(records.len(), 2);
        for (path, expected) in [
            ("V", [Some("1.5"), Some("")]),
            ("V/@u", [Some("bar"), None]),
            ("@n", [Some("1"), Some("2")]),
            ("S[@id='T2']", [Some("21<A<"), None]),
            ("S[2]/@id", [Some("T2"), None]),
            ("/Log/@m", [Some("A & B"), Some("A & B")]),
            (".", [Some(""), Some("")]),
        ] {
            let path = Path::parse(path).unwrap();
            let found: Vec<Option<&str>> = records.iter().map(|record| path.text(&root, record)).collect();
            assert_eq!(found, expected, "{path:?}");
        }
        for wrong in ["a//b", "@", "@a/b", "a[", "a[0]", "a[@b]", "a[@b=c]", "a]", ""] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_xml_says_so() {
        let deep = "<a>".repeat(100_000);
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        for wrong in
            ["", "x", "<a>", "<a></b>", "<a/><b/>", "<a>&nothing;</a>", "</a>", "<a b=1/>", &deep, bomb]
        {
            assert!(parse(wrong).is_err(), "{}", &wrong[..wrong.len().min(40)]);
        }
    }
}
