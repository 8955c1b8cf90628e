//! The keys of a device → [`Settings`]; every mistake in one run (docs/specs/driver.md has them for users).

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use model::DataType;
use runtime::clock::Clock;
use runtime::config_file::{Located, Problems, Section};

use super::format::Format;
use super::format::delimited::Delimited;
use super::format::fixed::Fixed;
use super::format::json::{Json, Path as JsonPath};
use super::format::key_value::KeyValue;
use super::format::lines::{self, Frame, Lines};
use super::mapping::{Mapping, TimeSource};
use super::number::NumberForm;
use super::pattern::Pattern;
use super::place::remote::{Remote, Trust};
use super::time::{ClockForm, NameTime, TimeForm};
use crate::drivers::{DeviceSetup, READINGS_MAX};

/// A file that has not changed for so long is finished, unless the configuration says otherwise.
const FINISHED_AGE: Duration = Duration::from_secs(10);
/// Lines before the header.
const SKIP_LINES_MAX: i64 = 1000;

/// What the configuration says.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) place: Where,
    pub(super) pattern: Pattern,
    pub(super) start: Start,
    pub(super) mode: Mode,
    pub(super) after: After,
    pub(super) format: Format,
    pub(super) lines: Lines,
    /// Lines before the header or the first record.
    pub(super) skip_lines: u64,
    /// Whether a header line comes then.
    pub(super) has_header: bool,
    /// Lines that begin so are none.
    pub(super) comment: Option<String>,
    pub(super) mapping: Mapping,
    pub(super) state_dir: PathBuf,
    pub(super) clock: Clock,
}

/// What stands before a file's first record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) bytes: usize,
    pub(super) lines: u64,
    /// The header line, if files have one.
    pub(super) header: Option<String>,
}

impl Settings {
    /// Reads the head of a file; `None` if it is not whole yet. `at_end` says that nothing comes behind these bytes. An
    /// error says why the file cannot be read at all.
    pub(super) fn head(&self, bytes: &[u8], at_end: bool) -> Result<Option<Head>, String> {
        if let Some(reason) = self.lines.contradiction(bytes) {
            return Err(reason);
        }
        let mut head = Head { bytes: 0, lines: 0, header: None };
        let rest = |at: usize| bytes.get(at..).unwrap_or_default();
        for _ in 0..self.skip_lines {
            let Some(end) = self.lines.line_end(rest(head.bytes)) else { return Ok(None) };
            (head.bytes, head.lines) = (head.bytes + end, head.lines + 1);
        }
        while self.has_header && head.header.is_none() {
            let rest = rest(head.bytes);
            let (Frame::Whole(end) | Frame::Unclosed(end)) = self.lines.frame(rest, at_end) else {
                return Ok(None);
            };
            let line = rest.get(..end).unwrap_or(rest);
            let text = self.lines.text(line, head.bytes == 0)?;
            let text = lines::trimmed(&text);
            head.header = (!self.is_comment(text)).then(|| text.to_owned());
            head.lines += self.lines.count(line).max(1);
            head.bytes += end;
        }
        Ok(Some(head))
    }

    /// Whether a line is none.
    pub(super) fn is_comment(&self, line: &str) -> bool {
        self.comment.as_ref().is_some_and(|comment| line.starts_with(comment))
    }
}

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) enum Where {
    /// A folder; whether the system is asked to tell what changes in it.
    Folder(PathBuf, bool),
    /// A folder on a server.
    Remote(Remote),
}

/// What to do with files that are there at the very first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    End,
}

/// When a file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// While it grows, by whole lines.
    Growing,
    /// When it is finished.
    Whole(Finished),
}

/// When a file is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// It has not changed for so long.
    Age(Duration),
    /// There is a file with this behind its name.
    Marker(String),
    /// It has a name that the pattern takes: whoever writes it renames it then.
    Rename,
}

/// What becomes of a file when its readings are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    /// Into this folder.
    Move(String),
    Delete,
}

/// Reads the keys.
pub(super) fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Settings> {
    let before = problems.list.len();
    let place = place(section, problems);
    let pattern = section.checked("pattern", problems, |text| match text {
        "" => Err("must not be empty; write something like \"*.csv\"".into()),
        _ if text.contains('/') => Err("is a pattern of file names, without folders".into()),
        _ => Ok(Pattern(text.to_owned())),
    });
    let format = section.checked("format", problems, |text| {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("must be one of {}", names.join(", "))
        })
    });
    let kind = format.as_ref().map_or(Kind::Csv, |found| found.value);
    let keys = FormatKeys::read(section, kind, problems);
    let numbers = numbers(section, kind, keys.separator, problems);
    let time = time_source(section, problems);
    let zone = section.checked("zone", problems, |text| {
        text.parse::<Tz>().map_err(|_| "must be an IANA zone such as \"Europe/Berlin\" or \"UTC\"".to_owned())
    });
    let start = section.checked("start", problems, |text| match text {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        _ => Err("must be \"beginning\" or \"end\"".to_owned()),
    });
    let mode = mode(section, &keys, problems);
    let after = after(section, &mode, problems);
    if matches!(time, TimeSource::Modified) && mode == Mode::Growing {
        problems.push(
            section
                .problem("time_from", "\"modified\" is for mode = \"whole\": a growing file has no one time"),
        );
    }
    let mut mapping = Mapping {
        time,
        zone: zone.map_or(Tz::UTC, |found| found.value),
        numbers,
        long: keys.long.clone(),
        points: Vec::new(),
        units: Vec::new(),
        by_address: HashMap::new(),
    };
    points(section, setup, &keys, &mut mapping, problems);
    let format = keys.format(&mapping, section, problems);
    (problems.list.len() == before).then_some(())?;
    let encoding = keys.encoding;
    let quoted = keys.quoted_lines.then_some(keys.quote.unwrap_or(b'"')).map(|quote| (quote, keys.separator));
    Some(Settings {
        place: place?,
        pattern: pattern.map_or_else(|| Pattern(kind.pattern().to_owned()), |found| found.value),
        start: start.map_or(Start::Beginning, |found| found.value),
        mode,
        after,
        format: format?,
        lines: Lines { encoding, quoted },
        skip_lines: keys.skip_lines,
        has_header: keys.header,
        comment: keys.comment,
        mapping,
        state_dir: setup.state_dir.clone(),
        clock: setup.clock.clone(),
    })
}

fn place(section: &mut Section<'_>, problems: &mut Problems) -> Option<Where> {
    let remote = remote(section, problems);
    if section.has("url") {
        for key in ["folder", "watch"] {
            if section.has(key) {
                problems.push(section.problem(key, "is for a folder of this machine, not beside url"));
            }
        }
        return remote.map(Where::Remote);
    }
    if !section.has("folder") {
        problems.push(section.problem("folder", "is missing; write the folder in which the files are"));
    }
    let folder = section.path("folder", problems);
    let watch = section.checked("watch", problems, |text| match text {
        "auto" => Ok(true),
        "poll" => Ok(false),
        _ => Err("must be \"auto\" or \"poll\"".into()),
    });
    Some(Where::Folder(folder?.value, watch.is_none_or(|found| found.value)))
}

/// The folder on a server.
fn remote(section: &mut Section<'_>, problems: &mut Problems) -> Option<Remote> {
    let url = section.checked("url", problems, Remote::parse);
    let mut path = |key| section.path(key, problems).map(|found| found.value);
    let (password_file, key_file) = (path("password_file"), path("key_file"));
    let (key_password_file, known_hosts) = (path("key_password_file"), path("known_hosts_file"));
    let fingerprint = section.checked("host_key", problems, |text| {
        if text.starts_with("SHA256:") && text.len() == 50 {
            Ok(text.to_owned())
        } else {
            Err("must be \"SHA256:\" and 43 characters, as ssh-keygen -lf shows it".into())
        }
    });
    if !section.has("url") {
        for key in ["password_file", "key_file", "key_password_file", "known_hosts_file", "host_key"] {
            if section.has(key) {
                problems
                    .push(section.problem(key, "is for a server: write url = \"sftp://user@host/folder\""));
            }
        }
        return None;
    }
    let url = url?;
    if password_file.is_none() && key_file.is_none() {
        problems.push(url.problem("needs password_file or key_file beside it"));
    }
    let trust = match (fingerprint, known_hosts) {
        (Some(known), None) => Some(Trust::Fingerprint(known.value)),
        (None, Some(file)) => Some(Trust::KnownHosts(file)),
        _ => {
            problems.push(url.problem("needs host_key or known_hosts_file beside it, one of them"));
            None
        }
    };
    let (scheme, host, port, user, folder) = url.value;
    let trust = trust?;
    Some(Remote { scheme, host, port, user, folder, password_file, key_file, key_password_file, trust })
}

/// The formats by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Csv,
    Fixed,
    JsonLines,
    Json,
    KeyValue,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Csv, Kind::Fixed, Kind::JsonLines, Kind::Json, Kind::KeyValue];

    const fn name(self) -> &'static str {
        match self {
            Kind::Csv => "csv",
            Kind::Fixed => "fixed",
            Kind::JsonLines => "ndjson",
            Kind::Json => "json",
            Kind::KeyValue => "key-value",
        }
    }

    const fn pattern(self) -> &'static str {
        match self {
            Kind::Csv => "*.csv",
            Kind::Fixed | Kind::KeyValue => "*.txt",
            Kind::JsonLines => "*.ndjson",
            Kind::Json => "*.json",
        }
    }

    /// Which formats know a key of some.
    fn knows(self, key: &str) -> bool {
        match key {
            "quote" | "quoted_lines" | "header" | "units" => self == Kind::Csv,
            "separator" => matches!(self, Kind::Csv | Kind::KeyValue),
            "columns" => self == Kind::Fixed,
            "skip_lines" => matches!(self, Kind::Csv | Kind::Fixed),
            "comment" => matches!(self, Kind::Csv | Kind::Fixed | Kind::JsonLines | Kind::KeyValue),
            "records" => self == Kind::Json,
            "assign" | "record" => self == Kind::KeyValue,
            _ => true,
        }
    }
}

/// Keys that only some formats know.
const FORMAT_KEYS: [&str; 11] = [
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
];

/// The keys that say how bytes become cells.
struct FormatKeys {
    kind: Kind,
    separator: u8,
    quote: Option<u8>,
    quoted_lines: bool,
    header: bool,
    units: bool,
    columns: Option<Fixed>,
    skip_lines: u64,
    comment: Option<String>,
    records: JsonPath,
    assign: char,
    whole_record: bool,
    encoding: &'static encoding_rs::Encoding,
    long: Option<(String, String)>,
}

impl FormatKeys {
    fn read(section: &mut Section<'_>, kind: Kind, problems: &mut Problems) -> FormatKeys {
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
        let header = flag(section.boolean("header", problems), true) && kind == Kind::Csv;
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
        let records = section.checked("records", problems, JsonPath::parse);
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
            records: records.map(|found| found.value).unwrap_or_default(),
            assign: assign.map_or('=', |found| found.value),
            whole_record: whole_record.is_some_and(|found| found.value),
            encoding: encoding.map_or(encoding_rs::UTF_8, |found| found.value),
            long: long(section, problems),
        }
    }

    /// Whether files must be there as a whole.
    fn is_document(&self) -> bool {
        match self.kind {
            Kind::Json => true,
            Kind::KeyValue => self.whole_record,
            Kind::Csv | Kind::Fixed | Kind::JsonLines => false,
        }
    }

    /// What is wrong with the name of a cell.
    fn check_name(&self, name: &str) -> Result<(), String> {
        match self.kind {
            Kind::Csv if !self.header => match name.trim().parse::<usize>() {
                Ok(1..=10_000) => Ok(()),
                _ => Err("must be the number of the column, from 1: there is no header".into()),
            },
            Kind::Fixed if self.columns.as_ref().is_some_and(|fixed| !fixed.has(name)) => {
                Err("is none of the columns".into())
            }
            Kind::JsonLines | Kind::Json => JsonPath::parse(name).map(drop),
            Kind::Csv | Kind::Fixed | Kind::KeyValue => Ok(()),
        }
    }

    fn format(&self, mapping: &Mapping, section: &Section<'_>, problems: &mut Problems) -> Option<Format> {
        let mut json = Json { paths: Vec::new(), records: self.records.clone() };
        for name in mapping.needed() {
            if let Err(rule) = self.check_name(name)
                && !mapping.points.iter().any(|(address, _)| address == name)
            {
                problems.push(section.problem("time", format!("cell {name:?} {rule}")));
            }
            json.paths.push(JsonPath::parse(name).unwrap_or_default());
        }
        let pairs = || KeyValue {
            keys: mapping.needed().into_iter().map(str::to_owned).collect(),
            assign: self.assign,
            separator: char::from(self.separator),
        };
        Some(match self.kind {
            Kind::Csv => Format::Delimited(Delimited {
                separator: self.separator,
                quote: self.quote,
                units: self.units.then(|| mapping.units.clone()),
            }),
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

/// A text that names a cell.
fn named(section: &mut Section<'_>, key: &str, problems: &mut Problems) -> Option<Located<String>> {
    section.checked(key, problems, |text| match text.trim() {
        "" => Err("must name a column".into()),
        name => Ok(name.to_owned()),
    })
}

fn numbers(section: &mut Section<'_>, kind: Kind, separator: u8, problems: &mut Problems) -> NumberForm {
    let decimal = section.checked("decimal", problems, |text| match text {
        "." => Ok(false),
        "," if kind == Kind::Csv && separator == b',' => {
            Err("cannot be the separator too; write separator = \";\"".into())
        }
        "," => Ok(true),
        _ => Err("must be \".\" or \",\"".into()),
    });
    let decimal_comma = decimal.is_some_and(|found| found.value);
    let thousands = section.checked("thousands", problems, |text| {
        let sign = one_character(text).ok().filter(|c| ".,' _".contains(*c));
        match sign {
            None => Err("must be \".\", \",\", \"'\", \"_\" or \" \"".to_owned()),
            Some(sign) if sign == if decimal_comma { ',' } else { '.' } => {
                Err("is the decimal sign".to_owned())
            }
            Some(sign) if kind == Kind::Csv && char::from(separator) == sign => {
                Err("is the separator".to_owned())
            }
            Some(sign) => Ok(sign),
        }
    });
    NumberForm { decimal_comma, thousands: thousands.map(|found| found.value) }
}

fn time_source(section: &mut Section<'_>, problems: &mut Problems) -> TimeSource {
    let time = named(section, "time", problems);
    let date = named(section, "date", problems);
    let name = section.checked("name_time", problems, NameTime::parse);
    let from = section.checked("time_from", problems, |text| match text {
        "cells" | "modified" | "arrival" => Ok(text.to_owned()),
        _ => Err("must be \"cells\", \"modified\" or \"arrival\"".into()),
    });
    let from = from.map_or_else(|| "cells".to_owned(), |found| found.value);
    let is_clock = name.as_ref().is_some_and(|name| !name.value.has_clock);
    let (mut form, mut clock) = (TimeForm::Iso, ClockForm::Iso);
    if is_clock {
        clock = section.checked("time_format", problems, ClockForm::parse).map_or(clock, |found| found.value);
    } else {
        form = section.checked("time_format", problems, TimeForm::parse).map_or(form, |found| found.value);
    }
    let mut refuse = |found: &Option<Located<String>>, why: &str| {
        if let Some(found) = found {
            problems.push(found.problem(why));
        }
    };
    let says_all = name.as_ref().is_some_and(|name| name.value.has_clock);
    if from != "cells" {
        refuse(&time, "has no use: time_from says where times come from");
        refuse(&date, "has no use: time_from says where times come from");
        if let Some(name) = &name {
            problems.push(name.problem("has no use: time_from says where times come from"));
        }
        return if from == "modified" { TimeSource::Modified } else { TimeSource::Arrival };
    }
    if says_all {
        refuse(&time, "has no use: name_time has date and time of every record");
    }
    if name.is_some() {
        refuse(&date, "has no use: name_time has the date");
    }
    let time = time.map_or_else(|| "timestamp".to_owned(), |found| found.value);
    match name.map(|name| name.value) {
        Some(name) if name.has_clock => TimeSource::Name(name),
        Some(name) => TimeSource::NameAndCell { name, time, form: clock },
        None => TimeSource::Cells { date: date.map(|found| found.value), time, form },
    }
}

fn mode(section: &mut Section<'_>, keys: &FormatKeys, problems: &mut Problems) -> Mode {
    let mode = section.checked("mode", problems, |text| match text {
        "growing" if keys.is_document() => {
            Err("must be \"whole\": this format can be read when the file is finished".into())
        }
        "growing" => Ok(false),
        "whole" => Ok(true),
        _ => Err("must be \"growing\" or \"whole\"".to_owned()),
    });
    if mode.is_none() && keys.is_document() && !section.has("mode") {
        problems.push(section.problem(
            "mode",
            "is missing; write mode = \"whole\": this format can be read when the file is finished",
        ));
    }
    let is_whole = mode.is_some_and(|found| found.value);
    let age = section.duration("finished_age", problems, Duration::ZERO..=Duration::from_secs(86_400));
    let marker = section.checked("finished_marker", problems, |text| {
        if text.is_empty() || text.contains('/') {
            Err("must be an ending such as \".done\"".into())
        } else {
            Ok(text.to_owned())
        }
    });
    let finished = section.checked("finished", problems, |text| match text {
        "age" | "marker" | "rename" => Ok(text.to_owned()),
        _ => Err("must be \"age\", \"marker\" or \"rename\"".into()),
    });
    if !is_whole {
        let written = [section.has("finished_age"), section.has("finished_marker"), section.has("finished")];
        for (key, _) in
            ["finished_age", "finished_marker", "finished"].iter().zip(written).filter(|(_, is)| *is)
        {
            problems.push(section.problem(key, "is for mode = \"whole\""));
        }
        return Mode::Growing;
    }
    let default = if marker.is_some() { "marker" } else { "age" };
    let rule = finished.as_ref().map_or(default, |found| found.value.as_str());
    Mode::Whole(match rule {
        "marker" => Finished::Marker(marker.map_or_else(|| ".done".to_owned(), |found| found.value)),
        "rename" => Finished::Rename,
        _ => Finished::Age(age.map_or(FINISHED_AGE, |found| found.value)),
    })
}

fn after(section: &mut Section<'_>, mode: &Mode, problems: &mut Problems) -> After {
    let folder = section.checked("move_to", problems, |text| {
        if text.is_empty() || text == "." {
            Err("must be another folder".into())
        } else {
            Ok(text.to_owned())
        }
    });
    let after = section.checked("after", problems, |text| match text {
        "keep" => Ok(After::Keep),
        "move" | "delete" if *mode == Mode::Growing => {
            Err("is for mode = \"whole\": a growing file is never done".to_owned())
        }
        "move" => Ok(After::Move("done".to_owned())),
        "delete" => Ok(After::Delete),
        _ => Err("must be \"keep\", \"move\" or \"delete\"".to_owned()),
    });
    match (after.map_or(After::Keep, |found| found.value), folder) {
        (After::Move(_), Some(folder)) => After::Move(folder.value),
        (after, None) => after,
        (after, Some(folder)) => {
            problems.push(folder.problem("is for after = \"move\""));
            after
        }
    }
}

fn points(
    section: &Section<'_>,
    setup: &DeviceSetup,
    keys: &FormatKeys,
    mapping: &mut Mapping,
    problems: &mut Problems,
) {
    for (nth, point) in setup.points.iter().enumerate() {
        let address = point.address.trim();
        let mut checked = check_point(address, point.raw_type, point.definition.writable);
        if mapping.long.is_none() {
            checked = checked.and_then(|()| keys.check_name(address));
        } else if mapping.by_address.contains_key(address) {
            checked = checked.and(Err("is the address of another point already".into()));
        }
        if let Err(rule) = checked {
            problems.push(setup.address_problem(point, rule));
        }
        mapping.points.push((address.to_owned(), point.raw_type));
        mapping.by_address.insert(address.to_owned(), nth);
        if mapping.long.is_none() {
            // A scaled point has another unit than its source.
            let is_raw = point.scale.is_none() && point.offset.is_none();
            let unit = if is_raw { point.definition.unit.clone() } else { String::new() };
            mapping.units.push((address.to_owned(), unit));
        }
    }
    if setup.points.len() > READINGS_MAX {
        problems.push(section.problem("points", format!("a device has at most {READINGS_MAX} columns")));
    }
}

fn one_character(text: &str) -> Result<char, String> {
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

fn check_point(address: &str, data_type: DataType, writable: bool) -> Result<(), String> {
    if address.is_empty() {
        return Err("must be the name of the column".into());
    }
    if data_type == DataType::Bytes {
        return Err("a cell cannot be read as bytes; use string".into());
    }
    if writable {
        return Err("files cannot be written; say writable = false".into());
    }
    Ok(())
}
