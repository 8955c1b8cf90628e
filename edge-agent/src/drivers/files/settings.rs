//! The keys of a device → [`Settings`]; every mistake in one run (docs/specs/driver.md has them for users).
//!
//! Here: times, numbers, when files are finished and what becomes of them, points.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use model::DataType;
use runtime::clock::Clock;
use runtime::config_file::{Located, Problems, Section};

use super::format::Format;
use super::format::lines::{self, Frame, Lines};
use super::mapping::{Mapping, TimeSource};
use super::number::NumberForm;
use super::pattern::Pattern;
use super::place::remote::Remote;
use super::time::{ClockForm, NameTime, TimeForm};
use crate::drivers::{DeviceSetup, READINGS_MAX};
use format_keys::{FormatKeys, Kind, one_character};

mod format_keys;
mod place_keys;

/// A file that has not changed for so long is finished, unless the configuration says otherwise.
const FINISHED_AGE: Duration = Duration::from_secs(10);

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
    let place = place_keys::place(section, problems);
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
    if mapping.long.is_none() {
        let names = setup.points.iter().map(|point| point.address.trim());
        crate::drivers::places::warn_of_twins(setup, names, problems);
    }
    if setup.points.len() > READINGS_MAX {
        problems.push(section.problem("points", format!("a device has at most {READINGS_MAX} columns")));
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
