//! How bytes become the cells of records. Pure: knows no files, no points, no times.
//!
//! Some formats are cut into records by line feeds: their files can be read while they grow. The others are documents
//! that have to be there as a whole.

use super::mapping::{Cells, Layout, Mapping};
use delimited::Delimited;
use fixed::Fixed;
use json::Json;
use key_value::KeyValue;
use lines::Lines;

pub(super) mod delimited;
pub(super) mod fixed;
pub(super) mod json;
pub(super) mod key_value;
pub(super) mod lines;

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
}

/// Finds a record's cells, which may have a place of their own to live in.
pub(super) type WithCells<'f> = &'f mut dyn FnMut(u64, Result<Cells<'_>, String>) -> bool;

impl Format {
    /// Whether a file must be there as a whole.
    pub(super) fn is_document(&self) -> bool {
        matches!(self, Format::JsonDocument(_) | Format::KeyValueDocument(_))
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
            Format::JsonDocument(_) | Format::KeyValueDocument(_) => Err("is no line".into()),
        }
    }

    /// Calls `each` with the cells of the document's records from the `first` on, until it says that it is enough;
    /// whether the end was reached. An error: the document cannot be read.
    pub(super) fn records(
        &self,
        lines: &Lines,
        bytes: &[u8],
        first: u64,
        each: WithCells<'_>,
    ) -> Result<bool, String> {
        let text = || lines.text(bytes, true);
        match self {
            Format::JsonDocument(json) => json.document(&text()?, first, each),
            Format::KeyValueDocument(pairs) => Ok(first > 0 || each(0, pairs.document(&text()?))),
            _ => Err("is no document".into()),
        }
    }
}
