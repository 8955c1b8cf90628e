//! How bytes become the cells of records. Pure: knows no files, no points, no times.
//!
//! Some formats are cut into records by line feeds: their files can be read while they grow. The others are documents
//! that have to be there as a whole.

use super::mapping::{Cells, Layout, Mapping};
use super::settings::Settings;
use delimited::Delimited;
use fixed::Fixed;
use json::Json;
use key_value::KeyValue;
use sheet::Sheet;
use xml::Xml;

pub(super) mod delimited;
pub(super) mod fixed;
pub(super) mod json;
pub(super) mod key_value;
pub(super) mod lines;
pub(super) mod sheet;
pub(super) mod xml;

/// A document longer than this is not read.
pub(super) const DOCUMENT_BYTES_MAX: u64 = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };
/// Values in a document: what it may take in memory is some ten times its bytes.
pub(super) const DOCUMENT_VALUES_MAX: usize = 1_000_000;

/// A format, with all that the configuration says of it.
#[derive(Clone, Debug)]
pub(super) enum Format {
    /// CSV and its relatives.
    Delimited(Delimited),
    /// Columns at places.
    Fixed(Fixed),
    /// A JSON value per line.
    JsonLines(Json),
    /// `name=value` pairs on one line.
    KeyValueLines(KeyValue),
    /// One JSON document.
    JsonDocument(Json),
    /// `name=value`, a line for each: one record.
    KeyValueDocument(KeyValue),
    /// An XML document.
    Xml(Xml),
    /// A sheet of an Excel workbook: rows of cells, which have names as those of CSV have.
    Excel(Sheet, Delimited),
}

/// A document that has been read.
pub(super) enum Document<'f> {
    /// Root and where things are in it.
    Json(&'f Json, serde_json::Value),
    /// The same.
    Xml(&'f Xml, xml::Element),
    /// Records that have their cells already, with their numbers for people.
    Records(Vec<(u64, Cells<'static>)>),
}

/// Takes a record: how many came before it, its number for people, its cells; whether there may be another.
pub(super) type Take<'f> = &'f mut dyn FnMut(u64, u64, Cells<'_>) -> bool;

impl Format {
    /// Whether a file must be there as a whole.
    pub(super) fn is_document(&self) -> bool {
        matches!(
            self,
            Format::JsonDocument(_) | Format::KeyValueDocument(_) | Format::Xml(_) | Format::Excel(..)
        )
    }

    /// Where things are in a file's records. `header` is its header line, if it has one.
    pub(super) fn layout(&self, mapping: &Mapping, header: Option<&str>) -> Result<Layout, String> {
        let in_order = || {
            let names = mapping.needed();
            mapping.layout(|name| Ok(names.iter().position(|needed| *needed == name)))
        };
        match self {
            Format::Delimited(delimited) => delimited.layout(mapping, header),
            Format::Fixed(fixed) => fixed.layout(mapping),
            _ => in_order(),
        }
    }

    /// The cells of a record, which is one line (or several, where a quoted cell holds line feeds).
    pub(super) fn cells<'r>(&self, line: &'r str) -> Result<Cells<'r>, String> {
        match self {
            Format::Delimited(delimited) => delimited.cells(line),
            Format::Fixed(fixed) => Ok(fixed.cells(line)),
            Format::JsonLines(json) => json.line(line),
            Format::KeyValueLines(pairs) => Ok(pairs.line(line)),
            Format::JsonDocument(_) | Format::KeyValueDocument(_) | Format::Xml(_) | Format::Excel(..) => {
                Err("is no line".into())
            }
        }
    }

    /// Reads a document, and says where things are in its records. An error: it cannot be read.
    pub(super) fn document(
        &self,
        settings: &Settings,
        bytes: &[u8],
    ) -> Result<(Document<'_>, Layout), String> {
        let mapping = &settings.mapping;
        let text = || settings.lines.text(bytes, true);
        let document = match self {
            Format::JsonDocument(json) => Document::Json(json, json::parse(&text()?)?),
            Format::KeyValueDocument(pairs) => Document::Records(vec![(1, pairs.document(&text()?)?)]),
            Format::Xml(xml) => Document::Xml(xml, xml::parse(&text()?)?),
            Format::Excel(sheet, names) => {
                let mut rows = sheet.rows(bytes)?.into_iter().filter(|(row, _)| *row > settings.skip_lines);
                let header = if settings.has_header { rows.next() } else { None };
                let header = header.map(|(_, cells)| delimited::texts(&cells));
                let layout = names.layout_of(mapping, header.as_deref())?;
                return Ok((Document::Records(rows.collect()), layout));
            }
            _ => return Err("is no document".into()),
        };
        Ok((document, self.layout(mapping, None)?))
    }
}

impl Document<'_> {
    /// Hands out the records behind the `first` ones; whether the end was reached.
    pub(super) fn records(&self, first: u64, take: Take<'_>) -> Result<bool, String> {
        let skip = usize::try_from(first).unwrap_or(usize::MAX);
        match self {
            Document::Json(json, root) => {
                let records = json.records(root)?;
                Ok((0..)
                    .zip(records)
                    .skip(skip)
                    .all(|(nth, record)| take(nth, nth + 1, json.cells(root, record))))
            }
            Document::Xml(xml, root) => {
                let records = xml.records(root);
                Ok((0..)
                    .zip(records)
                    .skip(skip)
                    .all(|(nth, record)| take(nth, nth + 1, xml.cells(root, record))))
            }
            Document::Records(records) => Ok((0..)
                .zip(records)
                .skip(skip)
                .all(|(nth, (number, cells))| take(nth, *number, cells.clone()))),
        }
    }
}
