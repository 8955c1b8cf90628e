//! Rows of a spreadsheet: CSV with any of the usual separators and code pages, or xlsx.

use std::collections::HashMap;

use crate::drivers::files::sheet_texts;

/// What a workbook begins with: it is a zip archive.
const WORKBOOK: &[u8] = b"PK\x03\x04";

/// One row that is not empty.
pub(super) struct Row {
    /// Line of the file, or row of the sheet, from 1.
    pub(super) line: usize,
    cells: Vec<String>,
}

/// A header and what is below it.
pub(super) struct Table {
    columns: HashMap<String, usize>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// Reads the sheet of that name (or the first), or CSV; the header is the first row that has all of `needed`.
    pub(super) fn read(bytes: &[u8], sheet: Option<&str>, needed: &[&str]) -> Result<Table, String> {
        let mut rows = if bytes.starts_with(WORKBOOK) { workbook(bytes, sheet)? } else { csv_rows(bytes) };
        let has_all = |row: &Row| {
            needed.iter().all(|name| row.cells.iter().any(|cell| squeezed(cell) == squeezed(name)))
        };
        let header = rows.iter().position(has_all);
        let header =
            header.ok_or_else(|| format!("there is no header with the columns {}", needed.join(", ")))?;
        let below = rows.split_off(header + 1);
        let cells = rows.pop().map(|row| row.cells).unwrap_or_default();
        let columns = cells.iter().enumerate().rev().map(|(at, cell)| (squeezed(cell), at)).collect();
        Ok(Table { columns, rows: below })
    }

    /// A cell by the name of its column; empty if there is none.
    pub(super) fn cell<'r>(&self, row: &'r Row, column: &str) -> &'r str {
        let at = self.columns.get(&squeezed(column));
        at.and_then(|at| row.cells.get(*at)).map_or("", |cell| cell.trim())
    }
}

/// `Eng. Units`, `Eng Units` and `eng_units` are one column.
fn squeezed(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn workbook(bytes: &[u8], sheet: Option<&str>) -> Result<Vec<Row>, String> {
    let named = sheet.and_then(|name| sheet_texts(bytes, Some(name)).ok());
    let rows = match named {
        Some(rows) => rows,
        None => sheet_texts(bytes, None)?,
    };
    let row = |(line, cells)| Row { line: usize::try_from(line).unwrap_or(usize::MAX), cells };
    Ok(rows.into_iter().map(row).collect())
}

fn csv_rows(bytes: &[u8]) -> Vec<Row> {
    let text = text_of(bytes);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let count = |separator: u8| first.bytes().filter(|byte| *byte == separator).count();
    let separator = [b',', b';', b'\t'].into_iter().max_by_key(|separator| count(*separator)).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while let Ok(true) = reader.read_record(&mut record) {
        let line = record.position().map_or(0, |at| usize::try_from(at.line()).unwrap_or(usize::MAX));
        if record.iter().any(|cell| !cell.trim().is_empty()) {
            rows.push(Row { line, cells: record.iter().map(str::to_owned).collect() });
        }
    }
    rows
}

/// UTF-8, UTF-16 with its mark, else what Windows writes in western Europe.
fn text_of(bytes: &[u8]) -> String {
    let marked = encoding_rs::Encoding::for_bom(bytes).map(|(encoding, _)| encoding);
    let encoding = match marked {
        Some(encoding) => encoding,
        None if std::str::from_utf8(bytes).is_ok() => encoding_rs::UTF_8,
        None => encoding_rs::WINDOWS_1252,
    };
    encoding.decode(bytes).0.into_owned()
}
