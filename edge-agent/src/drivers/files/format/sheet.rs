//! Excel workbooks (xlsx, xlsm): the rows of one sheet.
//!
//! Cells are read one by one, so that a sheet whose last cell is far away costs no more than its cells; what is packed is
//! unpacked once without being kept, so that a small file cannot become a huge one in memory.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};

use calamine::{DataRef, ExcelDateTime, Reader as _, Xlsx};

use super::super::mapping::{Cell, Cells};
use super::DOCUMENT_VALUES_MAX;

/// Columns that are read.
const COLUMNS_MAX: usize = 1000;
/// Of a workbook, unpacked.
const UNPACKED_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Which sheet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Sheet {
    /// Its name; `None`: the first.
    pub(in super::super) name: Option<String>,
}

/// A row: its number in the sheet from 1, and its cells.
pub(in super::super) type Row = (u64, Cells<'static>);

impl Sheet {
    /// The rows of a workbook that are not empty.
    pub(in super::super) fn rows(&self, bytes: &[u8]) -> Result<Vec<Row>, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("no Excel workbook: {error}");
        check_size(bytes)?;
        let mut book: Xlsx<_> = Xlsx::new(Cursor::new(bytes)).map_err(|error| wrong(&error))?;
        let names = book.sheet_names();
        let name = match &self.name {
            Some(name) if names.contains(name) => name.clone(),
            Some(name) => return Err(format!("there is no sheet {name:?}, but {names:?}")),
            None => names.first().cloned().ok_or("the workbook has no sheet")?,
        };
        let mut cells = book.worksheet_cells_reader(&name).map_err(|error| wrong(&error))?;
        let (mut rows, mut count): (Vec<Row>, usize) = (Vec::new(), 0);
        while let Some(found) = cells.next_cell().map_err(|error| wrong(&error))? {
            let (row, column) = found.get_position();
            let number = u64::from(row) + 1;
            let Some(column) = usize::try_from(column).ok().filter(|column| *column < COLUMNS_MAX) else {
                continue;
            };
            let Some(cell) = cell(found.get_value()) else { continue };
            if rows.last().is_none_or(|(last, _)| *last != number) {
                rows.push((number, Vec::new()));
            }
            let Some((_, cells)) = rows.last_mut() else { continue };
            if cells.len() <= column {
                count += column + 1 - cells.len();
                cells.resize(column + 1, None);
            }
            if count > DOCUMENT_VALUES_MAX {
                return Err(format!("the sheet has more than {DOCUMENT_VALUES_MAX} cells"));
            }
            if let Some(place) = cells.get_mut(column) {
                *place = Some(cell);
            }
        }
        Ok(rows)
    }
}

/// Unpacks all of a workbook into nothing, and counts.
fn check_size(bytes: &[u8]) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("no Excel workbook: {error}");
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| wrong(&error))?;
    let mut left = UNPACKED_BYTES_MAX;
    for nth in 0..archive.len() {
        let file = archive.by_index(nth).map_err(|error| wrong(&error))?;
        let read = io::copy(&mut file.take(left + 1), &mut io::sink()).map_err(|error| wrong(&error))?;
        left = left.checked_sub(read).ok_or_else(|| {
            format!("the workbook is longer than {UNPACKED_BYTES_MAX} bytes when it is unpacked")
        })?;
    }
    Ok(())
}

fn cell(value: &DataRef<'_>) -> Option<Cell<'static>> {
    let number = |text: String| Some(Cell::Number(Cow::Owned(text)));
    let text = |text: &str| Some(Cell::Text(Cow::Owned(text.to_owned())));
    match value {
        DataRef::Int(whole) => number(whole.to_string()),
        DataRef::Float(float) => number(float.to_string()),
        DataRef::Bool(yes) => number(yes.to_string()),
        DataRef::String(found) => text(found),
        DataRef::SharedString(found) => text(found),
        DataRef::DateTime(time) => Some(Cell::Text(Cow::Owned(date_time(time)))),
        DataRef::DateTimeIso(found) | DataRef::DurationIso(found) => text(found),
        // "#DIV/0!": no value of any type.
        DataRef::Error(error) => Some(Cell::Text(Cow::Owned(format!("{error}")))),
        DataRef::Empty => None,
    }
}

/// ISO text of a cell that is formatted as a time: the date alone if it has no clock, the clock alone if it has no date.
fn date_time(time: &ExcelDateTime) -> String {
    let (year, month, day, hour, minute, second, milli) = time.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    let clock = format!("{hour:02}:{minute:02}:{second:02}.{milli:03}");
    let days = time.as_f64();
    if days < 1.0 {
        clock
    } else if days.fract() == 0.0 {
        date
    } else {
        format!("{date} {clock}")
    }
}
