//! The keys that say how bytes become cells.

use runtime::config_file::{Located, Problems, Section};

use super::super::format::Format;
use super::super::format::delimited::Delimited;
use super::super::format::fixed::Fixed;
use super::super::format::json::{Json, Path as JsonPath};
use super::super::format::key_value::KeyValue;
use super::super::format::lines;
use super::super::format::sheet::Sheet;
use super::super::format::xml::{Path as XmlPath, Xml};
use super::super::mapping::Mapping;
use super::named;

/// Lines before the header.
const SKIP_LINES_MAX: i64 = 1000;

/// The formats by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Csv,
    Fixed,
    JsonLines,
    Json,
    KeyValue,
    Xml,
    Excel,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Csv, Kind::Fixed, Kind::JsonLines, Kind::Json, Kind::KeyValue, Kind::Xml, Kind::Excel];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Csv => "csv",
            Kind::Fixed => "fixed",
            Kind::JsonLines => "ndjson",
            Kind::Json => "json",
            Kind::KeyValue => "key-value",
            Kind::Xml => "xml",
            Kind::Excel => "excel",
        }
    }

    pub(super) const fn pattern(self) -> &'static str {
        match self {
            Kind::Csv => "*.csv",
            Kind::Fixed | Kind::KeyValue => "*.txt",
            Kind::JsonLines => "*.ndjson",
            Kind::Json => "*.json",
            Kind::Xml => "*.xml",
            Kind::Excel => "*.xlsx",
        }
    }

    /// Which formats know a key of some.
    fn knows(self, key: &str) -> bool {
        match key {
            "quote" | "quoted_lines" => self == Kind::Csv,
            "header" | "units" => matches!(self, Kind::Csv | Kind::Excel),
            "sheet" => self == Kind::Excel,
            "encoding" => self != Kind::Excel,
            "separator" => matches!(self, Kind::Csv | Kind::KeyValue),
            "columns" => self == Kind::Fixed,
            "skip_lines" => matches!(self, Kind::Csv | Kind::Fixed | Kind::Excel),
            "comment" => matches!(self, Kind::Csv | Kind::Fixed | Kind::JsonLines | Kind::KeyValue),
            "records" => matches!(self, Kind::Json | Kind::Xml),
            "assign" | "record" => self == Kind::KeyValue,
            _ => true,
        }
    }
}

/// Keys that only some formats know.
const FORMAT_KEYS: [&str; 13] = [
    "quote",
    "quoted_lines",
    "header",
    "units",
    "separator",
    "columns",
    "skip_lines",
    "comment",
    "records",
    "assign",
    "record",
    "sheet",
    "encoding",
];

/// The keys that say how bytes become cells.
pub(super) struct FormatKeys {
    pub(super) kind: Kind,
    pub(super) separator: u8,
    pub(super) quote: Option<u8>,
    pub(super) quoted_lines: bool,
    pub(super) header: bool,
    pub(super) units: bool,
    pub(super) columns: Option<Fixed>,
    pub(super) skip_lines: u64,
    pub(super) comment: Option<String>,
    pub(super) records: JsonPath,
    pub(super) elements: XmlPath,
    pub(super) sheet: Option<String>,
    pub(super) assign: char,
    pub(super) whole_record: bool,
    pub(super) encoding: &'static encoding_rs::Encoding,
    pub(super) long: Option<(String, String)>,
}

impl FormatKeys {
    pub(super) fn read(section: &mut Section<'_>, kind: Kind, problems: &mut Problems) -> FormatKeys {
        for key in FORMAT_KEYS {
            if section.has(key) && !kind.knows(key) {
                problems.push(section.problem(key, format!("is not for format = {:?}", kind.name())));
            }
        }
        let separator = section.checked("separator", problems, parse_separator).map(|found| found.value);
        let quote = section.checked("quote", problems, |text| match text {
            "none" => Ok(None),
            "\"" => Ok(Some(b'"')),
            "'" => Ok(Some(b'\'')),
            _ => Err("must be '\"', \"'\" or \"none\"".into()),
        });
        let flag = |located: Option<Located<bool>>, default| located.map_or(default, |found| found.value);
        let quoted_lines = flag(section.boolean("quoted_lines", problems), false);
        let header =
            flag(section.boolean("header", problems), true) && matches!(kind, Kind::Csv | Kind::Excel);
        let units = section.checked("units", problems, |text| match text {
            "list" => Ok(false),
            "header" if header => Ok(true),
            "header" => Err("needs a header".into()),
            _ => Err("must be \"list\" or \"header\"".into()),
        });
        let columns = section.texts("columns", problems).and_then(|columns| {
            Fixed::parse(&columns.value).map_err(|rule| problems.push(columns.problem(rule))).ok()
        });
        if kind == Kind::Fixed && !section.has("columns") {
            problems.push(
                section.problem("columns", "is missing; write columns = [\"time 1-19\", \"Temp 20-27\"]"),
            );
        }
        let skip_lines = section.integer("skip_lines", problems, 0..=SKIP_LINES_MAX);
        let comment = section.checked("comment", problems, |text| match text {
            "" => Err("must not be empty".into()),
            _ => Ok(text.to_owned()),
        });
        let (mut records, mut elements) = (JsonPath::default(), XmlPath::default());
        if kind == Kind::Xml {
            if !section.has("records") {
                problems.push(
                    section
                        .problem("records", "is missing; write the path of a record, such as \"/Log/Row\""),
                );
            }
            let rule = |text: &str| match XmlPath::parse(text)? {
                path if text.trim().starts_with('/') && !text.contains('@') => Ok(path),
                _ => Err("must be the path of elements from the root, such as \"/Log/Row\"".to_owned()),
            };
            elements =
                section.checked("records", problems, rule).map(|found| found.value).unwrap_or_default();
        } else {
            records = section
                .checked("records", problems, JsonPath::parse)
                .map(|found| found.value)
                .unwrap_or_default();
        }
        let sheet = named(section, "sheet", problems).map(|found| found.value);
        let assign = section.checked("assign", problems, one_character);
        let whole_record = section.checked("record", problems, |text| match text {
            "line" => Ok(false),
            "file" => Ok(true),
            _ => Err("must be \"line\" or \"file\"".into()),
        });
        let encoding = section.checked("encoding", problems, lines::encoding);
        let default_separator = if kind == Kind::KeyValue { b' ' } else { b',' };
        FormatKeys {
            kind,
            separator: separator.unwrap_or(default_separator),
            quote: quote.map_or(Some(b'"'), |found| found.value),
            quoted_lines,
            header,
            units: units.is_some_and(|found| found.value),
            columns,
            skip_lines: skip_lines.and_then(|found| u64::try_from(found.value).ok()).unwrap_or(0),
            comment: comment.map(|found| found.value),
            records,
            elements,
            sheet,
            assign: assign.map_or('=', |found| found.value),
            whole_record: whole_record.is_some_and(|found| found.value),
            encoding: encoding.map_or(encoding_rs::UTF_8, |found| found.value),
            long: long(section, problems),
        }
    }

    /// Whether files must be there as a whole.
    pub(super) fn is_document(&self) -> bool {
        match self.kind {
            Kind::Json | Kind::Xml | Kind::Excel => true,
            Kind::KeyValue => self.whole_record,
            Kind::Csv | Kind::Fixed | Kind::JsonLines => false,
        }
    }

    /// What is wrong with the name of a cell.
    pub(super) fn check_name(&self, name: &str) -> Result<(), String> {
        match self.kind {
            Kind::Csv | Kind::Excel if !self.header => match name.trim().parse::<usize>() {
                Ok(1..=10_000) => Ok(()),
                _ => Err("must be the number of the column, from 1: there is no header".into()),
            },
            Kind::Fixed if self.columns.as_ref().is_some_and(|fixed| !fixed.has(name)) => {
                Err("is none of the columns".into())
            }
            Kind::JsonLines | Kind::Json => JsonPath::parse(name).map(drop),
            Kind::Xml => XmlPath::parse(name).map(drop),
            Kind::Csv | Kind::Fixed | Kind::KeyValue | Kind::Excel => Ok(()),
        }
    }

    pub(super) fn format(
        &self,
        mapping: &Mapping,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Format> {
        let mut json = Json { paths: Vec::new(), records: self.records.clone() };
        let mut xml = Xml { paths: Vec::new(), records: self.elements.clone() };
        for name in mapping.needed() {
            if let Err(rule) = self.check_name(name)
                && !mapping.points.iter().any(|(address, _)| address == name)
            {
                problems.push(section.problem("time", format!("cell {name:?} {rule}")));
            }
            json.paths.push(JsonPath::parse(name).unwrap_or_default());
            xml.paths.push(XmlPath::parse(name).unwrap_or_default());
        }
        let pairs = || KeyValue {
            keys: mapping.needed().into_iter().map(str::to_owned).collect(),
            assign: self.assign,
            separator: char::from(self.separator),
        };
        let names = || Delimited {
            separator: self.separator,
            quote: self.quote,
            units: self.units.then(|| mapping.units.clone()),
        };
        Some(match self.kind {
            Kind::Csv => Format::Delimited(names()),
            Kind::Excel => Format::Excel(Sheet { name: self.sheet.clone() }, names()),
            Kind::Xml => Format::Xml(xml),
            Kind::Fixed => Format::Fixed(self.columns.clone()?),
            Kind::JsonLines => Format::JsonLines(json),
            Kind::Json => Format::JsonDocument(json),
            Kind::KeyValue if self.whole_record => Format::KeyValueDocument(pairs()),
            Kind::KeyValue => Format::KeyValueLines(pairs()),
        })
    }
}

fn long(section: &mut Section<'_>, problems: &mut Problems) -> Option<(String, String)> {
    let (name, value) = (named(section, "name_column", problems), named(section, "value_column", problems));
    match (name, value) {
        (Some(name), Some(value)) => Some((name.value, value.value)),
        (None, None) => None,
        (Some(one), None) => {
            problems.push(one.problem("value_column is missing beside it"));
            None
        }
        (None, Some(one)) => {
            problems.push(one.problem("name_column is missing beside it"));
            None
        }
    }
}

pub(super) fn one_character(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) => Ok(one),
        _ => Err("must be one character".into()),
    }
}

fn parse_separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" => Ok(b'\t'),
        [byte]
            if (byte.is_ascii_punctuation() || matches!(byte, b'\t' | b' ')) && !b"\"'.-+".contains(byte) =>
        {
            Ok(*byte)
        }
        _ => Err("must be one character such as \",\", \";\" or \"|\", or \"tab\"".into()),
    }
}
