//! The point list of a device: what is read where, and how it becomes a sample.
//!
//! A CSV file as spreadsheets write it: UTF-8 (with or without BOM), `,` `;` or tab between columns as the first line
//! shows, a header line, lines that begin with `#` are remarks. Columns, in any order; only the first three must be
//! there:
//!
//! ```text
//! name,address,type,scale,offset,unit,deadband,min,max,writable,path,description,group
//! ```
//!
//! `group` names one of the device's poll groups. A list may be a template for many devices: `{n}` in a cell is what the
//! device's `parameters` say of `n`, `{n+4}`, `{n*100}` and `{n*100+4}` are calculated ([`parameters`]).
//!
//! Every mistake becomes a [`Problem`] with its line; a list with mistakes gives the points that have none.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use csv::StringRecord;
use model::limits::PATH_BYTES_MAX;
use model::{DataType, PointDefinition, PointPath};
use runtime::config_file::{Problem, Problems};

pub mod import;
mod parameters;
pub mod units;

/// One point of a device, as its list gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointConfig {
    /// What hubs and tables will know.
    pub definition: PointDefinition,
    /// Where it is, in the driver's own syntax.
    pub address: String,
    /// Type at the source, before scaling. The definition's type is the same unless `scale` or `offset` make it
    /// Double (Float stays Float).
    pub raw_type: DataType,
    /// Factor applied first.
    pub scale: Option<f64>,
    /// Added afterwards.
    pub offset: Option<f64>,
    /// Poll group of its device; 0 is the device's own `poll`.
    pub group: u8,
    /// Line in the point list, from 1, for messages.
    pub line: usize,
}

/// What a device says about its list.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Its name.
    pub device: &'a str,
    /// Its poll groups, from 1.
    pub groups: &'a [&'a str],
    /// What stands for names in braces.
    pub parameters: &'a [(String, String)],
}

const COLUMNS: [&str; 13] = [
    "name",
    "address",
    "type",
    "scale",
    "offset",
    "unit",
    "deadband",
    "min",
    "max",
    "writable",
    "path",
    "description",
    "group",
];

/// Columns that must be there.
const REQUIRED: usize = 3;

/// UCUM units of plants are short; longer texts are descriptions that went into the wrong column.
const UNIT_BYTES_MAX: usize = 64;

/// Room for a sentence in an operator's language.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// Reads the list of `device`, which has neither groups nor parameters, from bytes; `file` is for messages.
pub fn parse_list(file: &Path, bytes: &[u8], device: &str, problems: &mut Problems) -> Vec<PointConfig> {
    Template { device, groups: &[], parameters: &[] }.parse(file, bytes, problems)
}

impl Template<'_> {
    /// Reads a list from bytes; `file` is for messages.
    pub fn parse(&self, file: &Path, bytes: &[u8], problems: &mut Problems) -> Vec<PointConfig> {
        parse(self, file, bytes, problems)
    }
}

fn parse(template: &Template<'_>, file: &Path, bytes: &[u8], problems: &mut Problems) -> Vec<PointConfig> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .delimiter(delimiter(bytes))
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut list = List { file, template, problems, names: HashMap::new(), paths: HashMap::new() };
    let mut columns: Option<Vec<Option<usize>>> = None;
    let mut points = Vec::new();
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                let line = error.position().map_or(0, |at| line_number(at.line()));
                let rule = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "is not UTF-8; save the file as \"CSV UTF-8\"".to_owned(),
                    _ => error.to_string(),
                };
                list.problem(line, "line", "", rule);
                continue;
            }
        }
        let line = record.position().map_or(0, |at| line_number(at.line()));
        match &columns {
            None => columns = Some(list.header(&record, line)),
            Some(columns) => {
                let record = list.fill_in(&record, columns, line);
                points.extend(list.row(&record, columns, line));
            }
        }
    }
    if columns.is_none() {
        list.problem(1, "header", "", format!("is missing; the first line is {}", COLUMNS.join(",")));
    } else if points.is_empty() && list.problems.is_empty() {
        list.problem(1, "points", "", "the list has no point".into());
    }
    points
}

fn line_number(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

/// `;` and tab are what spreadsheets write where the comma is a decimal sign.
fn delimiter(bytes: &[u8]) -> u8 {
    let header = bytes.split(|b| *b == b'\n').find(|line| !line.starts_with(b"#")).unwrap_or(b"");
    [b';', b'\t'].into_iter().find(|d| header.contains(d)).unwrap_or(b',')
}

struct List<'a> {
    file: &'a Path,
    template: &'a Template<'a>,
    problems: &'a mut Problems,
    /// Line of each name and path, to report duplicates.
    names: HashMap<String, usize>,
    paths: HashMap<String, usize>,
}

/// The cells of one line by column.
struct Row<'a> {
    record: &'a StringRecord,
    columns: &'a [Option<usize>],
    line: usize,
}

impl Row<'_> {
    fn cell(&self, column: &str) -> &str {
        let nth = COLUMNS.iter().position(|name| *name == column);
        let at = nth.and_then(|nth| self.columns.get(nth).copied().flatten());
        at.and_then(|at| self.record.get(at)).unwrap_or("")
    }
}

impl List<'_> {
    fn problem(&mut self, line: usize, key: &str, value: &str, rule: String) {
        let found = self.found(line, key, value, rule);
        self.problems.push(found);
    }

    fn warning(&mut self, line: usize, key: &str, value: &str, rule: String) {
        let found = self.found(line, key, value, rule);
        self.problems.warn(found);
    }

    fn found(&self, line: usize, key: &str, value: &str, rule: String) -> Problem {
        Problem { file: self.file.to_owned(), line, key: key.to_owned(), value: value.to_owned(), rule }
    }

    /// Where each column is.
    fn header(&mut self, record: &StringRecord, line: usize) -> Vec<Option<usize>> {
        let mut places = vec![None; COLUMNS.len()];
        for (at, cell) in record.iter().enumerate() {
            let name = cell.to_ascii_lowercase().replace([' ', '_', '-'], "");
            match COLUMNS.iter().position(|column| *column == name) {
                Some(nth) if places[nth].is_none() => places[nth] = Some(at),
                Some(_) => self.problem(line, "header", cell, "the column is there twice".into()),
                None => {
                    self.problem(
                        line,
                        "header",
                        cell,
                        format!("unknown column; known: {}", COLUMNS.join(", ")),
                    );
                }
            }
        }
        for (nth, column) in COLUMNS.iter().enumerate().take(REQUIRED) {
            if places[nth].is_none() {
                self.problem(line, "header", column, "the column is missing".into());
            }
        }
        places
    }

    /// The line with its parameters filled in. Braces in units and descriptions that name none are left as they are: UCUM has
    /// braces of its own.
    fn fill_in<'r>(
        &mut self,
        record: &'r StringRecord,
        columns: &[Option<usize>],
        line: usize,
    ) -> Cow<'r, StringRecord> {
        if self.template.parameters.is_empty() || !record.iter().any(|cell| cell.contains('{')) {
            return Cow::Borrowed(record);
        }
        let mut filled = StringRecord::new();
        for (at, cell) in record.iter().enumerate() {
            let column = columns.iter().position(|place| *place == Some(at)).and_then(|nth| COLUMNS.get(nth));
            let is_free_text = matches!(column, Some(&"unit" | &"description"));
            match parameters::fill_in(cell, self.template.parameters, is_free_text) {
                Ok(text) => filled.push_field(&text),
                Err(rule) => {
                    self.problem(line, column.unwrap_or(&"line"), cell, rule);
                    filled.push_field(cell);
                }
            }
        }
        Cow::Owned(filled)
    }

    /// One line; every mistake in it is reported.
    fn row(&mut self, record: &StringRecord, columns: &[Option<usize>], line: usize) -> Option<PointConfig> {
        let row = Row { record, columns, line };
        if record.len() > columns.iter().flatten().max().map_or(0, |last| last + 1) {
            let extra = record.get(record.len() - 1).unwrap_or("");
            if !extra.is_empty() {
                self.problem(
                    line,
                    "line",
                    extra,
                    "has more cells than the header; quote texts with \"\"".into(),
                );
                return None;
            }
        }
        let before = self.problems.list.len();
        let name = self.name(&row);
        let path = self.path(&row, &name);
        let raw_type = self.data_type(&row);
        let numeric = raw_type.is_none_or(DataType::is_numeric);
        let scale = self.number(&row, "scale", numeric);
        if scale == Some(0.0) {
            self.problem(line, "scale", row.cell("scale"), "must not be 0".into());
        }
        let offset = self.number(&row, "offset", numeric);
        let unit = self.unit(&row);
        let dead_band = self.dead_band(&row, numeric);
        let min = self.number(&row, "min", numeric);
        let max = self.number(&row, "max", numeric);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            self.problem(line, "min", row.cell("min"), format!("must not be above max, which is {max}"));
        }
        let writable = self.writable(&row);
        let group = self.group(&row);
        let description = self.description(&row);
        if self.problems.list.len() > before {
            return None;
        }
        let raw_type = raw_type?;
        let scaled = scale.is_some() || offset.is_some();
        let data_type = if scaled && raw_type != DataType::Float { DataType::Double } else { raw_type };
        let definition = PointDefinition {
            path: path?,
            device: Some(self.template.device.to_owned()),
            metric: name,
            data_type,
            unit,
            min,
            max,
            writable,
            dead_band,
            description,
        };
        Some(PointConfig {
            definition,
            address: row.cell("address").to_owned(),
            raw_type,
            scale,
            offset,
            group,
            line,
        })
    }

    fn name(&mut self, row: &Row<'_>) -> String {
        let name = row.cell("name").to_owned();
        if let Err(error) = PointPath::new(&name) {
            self.problem(row.line, "name", &name, error.to_string());
        } else if let Some(first) = self.names.insert(name.clone(), row.line) {
            self.problem(row.line, "name", &name, format!("is already the name of line {first}"));
        }
        name
    }

    fn path(&mut self, row: &Row<'_>, name: &str) -> Option<PointPath> {
        let text = match row.cell("path") {
            "" => format!("{}/{name}", self.template.device),
            text => text.to_owned(),
        };
        match PointPath::new(&text) {
            Ok(path) => {
                if let Some(first) = self.paths.insert(text.clone(), row.line) {
                    self.problem(row.line, "path", &text, format!("is already the path of line {first}"));
                }
                Some(path)
            }
            Err(error) => {
                self.problem(row.line, "path", &text, error.to_string());
                None
            }
        }
    }

    fn data_type(&mut self, row: &Row<'_>) -> Option<DataType> {
        let text = row.cell("type");
        let found = parse_type(text);
        if found.is_none() {
            let rule = "must be one of bool, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, string, bytes, datetime";
            self.problem(row.line, "type", text, rule.into());
        }
        found
    }

    /// A finite number, if something stands there.
    fn number(&mut self, row: &Row<'_>, column: &str, numeric: bool) -> Option<f64> {
        let text = row.cell(column);
        if text.is_empty() {
            return None;
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && numeric => return Some(number),
            Ok(number) if number.is_finite() => {
                self.problem(row.line, column, text, "the point's type is no number".into());
            }
            _ => self.problem(
                row.line,
                column,
                text,
                "must be a number with a decimal point, such as 0.1".into(),
            ),
        }
        None
    }

    /// 0 ("only changes") is for every type, more is for numbers.
    fn dead_band(&mut self, row: &Row<'_>, numeric: bool) -> Option<f64> {
        let text = row.cell("deadband");
        let band = self.number(row, "deadband", numeric || text.parse() == Ok(0.0))?;
        if band < 0.0 {
            self.problem(row.line, "deadband", text, "must not be negative".into());
        }
        Some(band)
    }

    /// What cannot be UCUM is a mistake, what is not a warning.
    fn unit(&mut self, row: &Row<'_>) -> String {
        let unit = row.cell("unit");
        let rule = match unit {
            "°C" | "℃" => "is not UCUM; write Cel",
            "°F" => "is not UCUM; write [degF]",
            "µm" | "μm" => "is not UCUM; write um",
            "m³/h" => "is not UCUM; write m3/h",
            _ if unit.len() > UNIT_BYTES_MAX => "is too long for a UCUM unit",
            _ if !unit.bytes().all(|b| b.is_ascii_graphic()) => {
                "must be UCUM text: ASCII without spaces, such as Cel, bar, m3/h, %"
            }
            _ if unbalanced(unit) => "has an open or closing bracket too many",
            _ => "",
        };
        if !rule.is_empty() {
            self.problem(row.line, "unit", unit, rule.into());
        } else if !units::is_known(unit) {
            let own = || format!("a text of your own goes in braces: {{{unit}}}");
            let hint = units::suggestion(unit).map_or_else(own, |meant| format!("did you mean {meant}?"));
            let rule = format!("is no UCUM unit; {hint}");
            self.warning(row.line, "unit", unit, rule);
        }
        unit.to_owned()
    }

    fn writable(&mut self, row: &Row<'_>) -> bool {
        match row.cell("writable").to_ascii_lowercase().as_str() {
            "" | "false" | "no" | "0" => false,
            "true" | "yes" | "1" => true,
            _ => {
                self.problem(row.line, "writable", row.cell("writable"), "must be true or false".into());
                false
            }
        }
    }

    fn group(&mut self, row: &Row<'_>) -> u8 {
        let text = row.cell("group");
        if text.is_empty() {
            return 0;
        }
        let known = self.template.groups;
        match known.iter().position(|name| *name == text).and_then(|nth| u8::try_from(nth + 1).ok()) {
            Some(group) => group,
            None => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let rule =
                    format!("is no group of the device; known: {known} (groups = {{ fast = \"100ms\" }})");
                self.problem(row.line, "group", text, rule);
                0
            }
        }
    }

    fn description(&mut self, row: &Row<'_>) -> String {
        let text = row.cell("description");
        if text.len() > DESCRIPTION_BYTES_MAX || text.contains('\0') {
            let rule = format!("must be a text of at most {DESCRIPTION_BYTES_MAX} bytes");
            self.problem(row.line, "description", "", rule);
        }
        text.to_owned()
    }
}

fn unbalanced(unit: &str) -> bool {
    [('[', ']'), ('(', ')'), ('{', '}')].iter().any(|(open, close)| {
        unit.chars().filter(|c| c == open).count() != unit.chars().filter(|c| c == close).count()
    })
}

/// A type by the name that this program, Sparkplug or a PLC programmer gives it, in any case.
#[must_use]
pub fn parse_type(text: &str) -> Option<DataType> {
    Some(match text.to_ascii_lowercase().as_str() {
        "bool" => DataType::Boolean,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u8" => DataType::UInt8,
        "u16" => DataType::UInt16,
        "u32" => DataType::UInt32,
        "u64" => DataType::UInt64,
        "f32" | "real" => DataType::Float,
        "f64" | "lreal" => DataType::Double,
        "text" => DataType::String,
        name => return DataType::from_name(name),
    })
}

const _: () = assert!(UNIT_BYTES_MAX < PATH_BYTES_MAX);

#[cfg(test)]
mod tests;
