//! What a file seems to be, against what its configuration says: separator, decimal sign, code page, where the time is
//! and how it is written. Guesses, for people; nothing is read by them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use chrono_tz::Tz;

use super::format::Format;
use super::format::delimited::Delimited;
use super::mapping::{TimeSource, name_and_unit, ucum};
use super::settings::Settings;
use super::time::TimeForm;

/// Of a file, what is looked at.
const BEGINNING: u64 = 64 * 1024;
/// Lines that are looked at.
const LINES: usize = 50;
/// How times are written in files, most likely first; where day and month can be mistaken, Europe's order.
const TIME_FORMS: [&str; 17] = [
    "iso",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M",
    "%d.%m.%y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S%.f",
    "%m/%d/%Y %H:%M:%S%.f",
    "%m/%d/%Y %I:%M:%S %p",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y-%m-%d %H.%M.%S",
    "%Y%m%d%H%M%S",
    "%Y%m%d %H%M%S",
    "%Y%m%dT%H%M%S",
    "%a %b %e %H:%M:%S %Y",
    "%d %b %Y %H:%M:%S",
];

/// The first bytes of a file.
pub(super) fn beginning(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BEGINNING).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What might be written differently.
pub(super) fn hints(settings: &Settings, bytes: &[u8]) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(reason) = settings.lines.contradiction(bytes) {
        return vec![reason];
    }
    let whole = settings.lines.last_line_end(bytes).and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    let text = match settings.lines.text(whole, true) {
        Ok(text) => text,
        Err(_) if settings.lines.encoding == encoding_rs::UTF_8 => {
            hints.push("the file is not UTF-8: try encoding = \"windows-1252\"".into());
            encoding_rs::WINDOWS_1252.decode_without_bom_handling(whole).0
        }
        Err(reason) => return vec![reason],
    };
    let Format::Delimited(dialect) = &settings.format else { return hints };
    let lines: Vec<&str> = text
        .lines()
        .skip(usize::try_from(settings.skip_lines).unwrap_or(0))
        .filter(|line| !line.trim().is_empty() && !settings.is_comment(line))
        .take(LINES)
        .collect();
    let separator = separator(&lines, dialect);
    if separator != dialect.separator {
        let shown = if separator == b'\t' { "tab".to_owned() } else { char::from(separator).to_string() };
        hints.push(format!("the lines look as if separator = {shown:?}"));
    }
    let dialect = Delimited { separator, ..dialect.clone() };
    let rows: Vec<Vec<String>> = lines
        .iter()
        .filter_map(|line| dialect.split(line).ok())
        .map(|cells| cells.iter().map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let (header, data) = match rows.split_first() {
        Some((header, data)) if settings.has_header => (Some(header), data),
        _ => (None, rows.as_slice()),
    };
    columns(settings, header, data, &mut hints);
    numbers(settings, data, &mut hints);
    time(settings, header, data, &mut hints);
    hints
}

/// The separator that cuts most lines into the same number of cells, more than one.
fn separator(lines: &[&str], dialect: &Delimited) -> u8 {
    let score = |separator: u8| {
        let dialect = Delimited { separator, ..dialect.clone() };
        let widths: Vec<usize> =
            lines.iter().filter_map(|line| Some(dialect.split(line).ok()?.len())).collect();
        let first = widths.first().copied().unwrap_or(1);
        if first < 2 { 0 } else { widths.iter().filter(|width| **width == first).count() }
    };
    let configured = score(dialect.separator);
    let best = [b';', b'\t', b',', b'|'].into_iter().max_by_key(|separator| score(*separator));
    best.filter(|best| score(*best) > configured).unwrap_or(dialect.separator)
}

fn columns(settings: &Settings, header: Option<&Vec<String>>, data: &[Vec<String>], hints: &mut Vec<String>) {
    let mapping = &settings.mapping;
    let Some(header) = header else {
        let width = data.iter().map(Vec::len).max().unwrap_or(0);
        hints.push(format!(
            "the lines have up to {width} columns: addresses and time are numbers from 1 to {width}"
        ));
        return;
    };
    let missing: Vec<&str> = mapping
        .needed()
        .into_iter()
        .filter(|name| {
            !header
                .iter()
                .any(|cell| cell == name || (uses_units(settings) && name_and_unit(cell).0 == *name))
        })
        .collect();
    if !missing.is_empty() {
        hints.push(format!("the header has no {missing:?}; it has {header:?}"));
    }
    let units: Vec<String> = header
        .iter()
        .filter_map(|cell| {
            let (name, unit) = name_and_unit(cell);
            unit.map(|unit| format!("{name}: {}", ucum(unit)))
        })
        .collect();
    if !units.is_empty()
        && missing.iter().any(|name| header.iter().any(|cell| name_and_unit(cell).0 == *name))
    {
        hints.push(
            "the header has units behind names: units = \"header\" takes addresses without them".into(),
        );
    }
    if !units.is_empty() {
        hints.push(format!("units for the point list, as the header has them: {}", units.join(", ")));
    }
}

fn uses_units(settings: &Settings) -> bool {
    matches!(&settings.format, Format::Delimited(Delimited { units: Some(_), .. }))
}

fn numbers(settings: &Settings, data: &[Vec<String>], hints: &mut Vec<String>) {
    let is_number = |cell: &str, sign: char| {
        let digits = cell.trim_start_matches(['-', '+']);
        let parts = digits.split_once(sign);
        parts.is_some_and(|(a, b)| {
            !a.is_empty() && !b.is_empty() && (a.bytes().chain(b.bytes())).all(|byte| byte.is_ascii_digit())
        })
    };
    let form = settings.mapping.numbers;
    let cells = || data.iter().flatten();
    if let Some((sign, decimal)) = cells().find_map(|cell| groups(cell)) {
        let decimal = decimal.unwrap_or(if sign == '.' { ',' } else { '.' });
        let mut keys = Vec::new();
        if form.decimal_comma != (decimal == ',') {
            keys.push(format!("decimal = \"{decimal}\""));
        }
        if form.thousands != Some(sign) {
            keys.push(format!("thousands = \"{sign}\""));
        }
        if !keys.is_empty() {
            hints.push(format!("numbers look as if {}", keys.join(", ")));
        }
        return;
    }
    let count = |sign| cells().filter(|cell| is_number(cell, sign)).count();
    let (commas, points) = (count(','), count('.'));
    for (sign, found, others, is_decimal) in
        [(',', commas, points, form.decimal_comma), ('.', points, commas, !form.decimal_comma)]
    {
        if found == 0 || is_decimal || form.thousands == Some(sign) {
            continue;
        }
        // 1,234 may be either.
        let is_group = |cell: &String| cell.split_once(sign).is_some_and(|(_, behind)| behind.len() == 3);
        let may_be_groups = cells().filter(|cell| is_number(cell, sign)).all(is_group);
        match (others, may_be_groups) {
            (0, true) => {
                hints.push(format!("numbers look as if decimal = \"{sign}\", or thousands = \"{sign}\""));
            }
            (0, false) => hints.push(format!("numbers look as if decimal = \"{sign}\"")),
            (_, true) => hints.push(format!("numbers look as if thousands = \"{sign}\"")),
            (_, false) => {}
        }
    }
}

/// What stands between groups of three digits, and the decimal sign behind them; none if it is no number with groups, or one
/// that may as well have a decimal sign there.
fn groups(cell: &str) -> Option<(char, Option<char>)> {
    let digits = cell.trim_start_matches(['-', '+']);
    let sign = digits.chars().find(|c| !c.is_ascii_digit())?;
    if !(matches!(sign, ',' | '.' | '\'' | '_') || sign.is_whitespace()) {
        return None;
    }
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let decimal = digits.chars().find(|c| matches!(c, ',' | '.') && *c != sign);
    let (whole, fraction) = match decimal.and_then(|decimal| digits.split_once(decimal)) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let mut parts = whole.split(sign);
    let first = parts.next().filter(|first| first.len() <= 3 && all_digits(first))?;
    let groups: Vec<&str> = parts.collect();
    let are_groups = !first.is_empty() && groups.iter().all(|group| group.len() == 3 && all_digits(group));
    let is_sure = fraction.is_some() || groups.len() > 1 || !matches!(sign, ',' | '.');
    let fits = are_groups && is_sure && fraction.is_none_or(all_digits);
    fits.then_some((if sign.is_whitespace() { ' ' } else { sign }, decimal))
}

fn time(settings: &Settings, header: Option<&Vec<String>>, data: &[Vec<String>], hints: &mut Vec<String>) {
    let TimeSource::Cells { date, time, form } = &settings.mapping.time else { return };
    let Some(row) = data.first() else { return };
    let name = |nth: usize| {
        header.map_or_else(|| (nth + 1).to_string(), |header| header.get(nth).cloned().unwrap_or_default())
    };
    let at = |wanted: &str| (0..row.len()).find(|nth| name(*nth) == wanted);
    let cell = |nth: usize| row.get(nth).map_or("", String::as_str);
    let configured = match (date.as_deref().map(at), at(time)) {
        (None, Some(time)) => Some(cell(time).to_owned()),
        (Some(Some(date)), Some(time)) => Some(format!("{} {}", cell(date), cell(time))),
        _ => None,
    };
    if configured.as_ref().is_some_and(|text| form.read(text, settings.mapping.zone, None).is_ok()) {
        return;
    }
    if let Some((text, form)) = configured.as_ref().and_then(|text| Some((text, form_of(text)?))) {
        hints.push(format!("the time {text:?} looks as if time_format = {form:?}"));
        return;
    }
    for nth in 0..row.len() {
        if let Some(form) = form_of(cell(nth)).filter(|form| form != "excel") {
            hints.push(format!(
                "the time may be in column {:?}: time = {:?}, time_format = {form:?}",
                name(nth),
                name(nth)
            ));
            return;
        }
    }
    for nth in 1..row.len() {
        let both = format!("{} {}", cell(nth - 1), cell(nth));
        if let Some(form) = form_of(&both) {
            hints.push(format!(
                "date and time may be in two columns: date = {:?}, time = {:?}, time_format = {form:?}",
                name(nth - 1),
                name(nth)
            ));
            return;
        }
    }
}

/// How a text is written, if it is a time.
fn form_of(text: &str) -> Option<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let whole = text.split('.').next().unwrap_or(text);
        match (whole.len(), whole.as_bytes().first()) {
            (10, Some(b'1')) => return Some("epoch-s".into()),
            (13, Some(b'1')) => return Some("epoch-ms".into()),
            (16, Some(b'1')) => return Some("epoch-us".into()),
            (19, Some(b'1')) => return Some("epoch-ns".into()),
            (5, Some(b'3'..=b'6')) if text.contains('.') => return Some("excel".into()),
            _ => {}
        }
    }
    let fits = |form: &&&str| TimeForm::parse(form).is_ok_and(|form| form.read(text, Tz::UTC, None).is_ok());
    TIME_FORMS.iter().find(fits).map(|form| (*form).to_owned())
}
