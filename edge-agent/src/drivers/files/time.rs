//! The time of a record: text in some format and zone, or a file's name → UTC. Pure.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use model::Timestamp;

/// How times are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// ISO 8601 or RFC 3339 with `T` or space, with or without fraction and offset.
    Iso,
    /// Counted from 1970-01-01 UTC: microseconds per unit.
    Epoch(i64),
    /// Days as spreadsheets count them in the local zone, from this day.
    Serial(NaiveDate),
    /// chrono's strftime; whether it names the offset.
    Pattern { text: String, has_offset: bool },
}

/// Without an offset in the text; the first that fits is taken.
const ISO_LOCAL: [&str; 4] =
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];

impl TimeForm {
    /// Reads the `time_format` of a configuration.
    pub(super) fn parse(text: &str) -> Result<TimeForm, String> {
        match text {
            "iso" => return Ok(TimeForm::Iso),
            "epoch-s" => return Ok(TimeForm::Epoch(1_000_000)),
            "epoch-ms" => return Ok(TimeForm::Epoch(1_000)),
            "epoch-us" => return Ok(TimeForm::Epoch(1)),
            "epoch-ns" => return Ok(TimeForm::Epoch(0)),
            "excel" => return Ok(TimeForm::Serial(day(1899, 12, 30))),
            "excel-1904" => return Ok(TimeForm::Serial(day(1904, 1, 1))),
            _ => {}
        }
        check_pattern(text)?;
        let has_offset =
            text.contains("%z") || text.contains("%:z") || text.contains("%#z") || text.contains("%+");
        let form = TimeForm::Pattern { text: text.to_owned(), has_offset };
        let sample = NaiveDate::from_ymd_opt(2026, 11, 22).and_then(|day| day.and_hms_opt(13, 14, 15));
        let written = sample.map(|sample| sample.and_utc().format(text).to_string()).unwrap_or_default();
        match form.read(&written, Tz::UTC, None) {
            Ok(_) if !text.contains("%s") => Ok(form),
            _ => Err("must name a whole date and a time, such as \"%d.%m.%Y %H:%M:%S\"".into()),
        }
    }

    /// The time in UTC. `last` is the time of the file's row before, which tells the two halves of a doubled hour
    /// apart.
    pub(super) fn read(&self, text: &str, zone: Tz, last: Option<Timestamp>) -> Result<Timestamp, String> {
        let unreadable = || format!("time {text:?} cannot be read");
        match self {
            TimeForm::Epoch(unit) => epoch(text, *unit).ok_or_else(unreadable),
            // A cell that is formatted as a time comes as one.
            TimeForm::Serial(_) if text.contains('-') => TimeForm::Iso.read(text, zone, last),
            TimeForm::Serial(first) => {
                let days: f64 = text
                    .parse()
                    .ok()
                    .filter(|days| (0.0..3_000_000.0).contains(days))
                    .ok_or_else(unreadable)?;
                // Spreadsheets know milliseconds; a double of today holds a few microseconds.
                #[expect(clippy::cast_possible_truncation, reason = "checked above")]
                let millis = (days * 86_400_000.0).round() as i64;
                let local =
                    first.and_time(NaiveTime::MIN).checked_add_signed(TimeDelta::milliseconds(millis));
                in_zone(local.ok_or_else(unreadable)?, zone, last)
            }
            TimeForm::Pattern { text: pattern, has_offset: true } => {
                let time = DateTime::parse_from_str(text, pattern).map_err(|_| unreadable())?;
                Ok(Timestamp(time.timestamp_micros()))
            }
            TimeForm::Pattern { text: pattern, has_offset: false } => {
                let local = NaiveDateTime::parse_from_str(text, pattern).map_err(|_| unreadable())?;
                in_zone(local, zone, last)
            }
            TimeForm::Iso => {
                if let Ok(time) = DateTime::parse_from_rfc3339(text) {
                    return Ok(Timestamp(time.timestamp_micros()));
                }
                let local =
                    ISO_LOCAL.iter().find_map(|pattern| NaiveDateTime::parse_from_str(text, pattern).ok());
                in_zone(local.ok_or_else(unreadable)?, zone, last)
            }
        }
    }
}

fn check_pattern(text: &str) -> Result<(), String> {
    if StrftimeItems::new(text).any(|item| matches!(item, Item::Error)) {
        return Err("is no strftime pattern, such as \"%d.%m.%Y %H:%M:%S\"; or write \"iso\", \"epoch-s\", \"epoch-ms\", \
                    \"epoch-us\", \"epoch-ns\", \"excel\", \"excel-1904\""
            .into());
    }
    Ok(())
}

fn day(year: i32, month: u32, day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, day).unwrap_or(NaiveDate::MIN)
}

/// A moment that every pattern can be tried with.
fn sample() -> NaiveDateTime {
    day(2026, 11, 22).and_time(NaiveTime::MIN) + TimeDelta::seconds(13 * 3600 + 14 * 60 + 15)
}

/// How a time without a date is written, where the file's name has the date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClockForm {
    /// `13:14`, `13:14:15` or with a fraction.
    Iso,
    /// chrono's strftime.
    Pattern(String),
}

impl ClockForm {
    /// Reads the `time_format` of a configuration in which the date comes from the file's name.
    pub(super) fn parse(text: &str) -> Result<ClockForm, String> {
        if text == "iso" {
            return Ok(ClockForm::Iso);
        }
        check_pattern(text)?;
        let written = sample().and_utc().format(text).to_string();
        match NaiveTime::parse_from_str(&written, text) {
            Ok(_) => Ok(ClockForm::Pattern(text.to_owned())),
            Err(_) => {
                Err("must be a time of day, such as \"%H:%M:%S\": the date comes from the file's name".into())
            }
        }
    }

    /// The time in UTC of a clock that read `text`, in a file whose name says `day`. Rows go forward: a clock that goes
    /// back by more than half a day has passed midnight.
    pub(super) fn read(
        &self,
        text: &str,
        day: NaiveDate,
        zone: Tz,
        last: Option<Timestamp>,
    ) -> Result<Timestamp, String> {
        let clock = match self {
            ClockForm::Iso => ["%H:%M:%S%.f", "%H:%M"]
                .iter()
                .find_map(|pattern| NaiveTime::parse_from_str(text, pattern).ok()),
            ClockForm::Pattern(pattern) => NaiveTime::parse_from_str(text, pattern).ok(),
        };
        let clock = clock.ok_or_else(|| format!("time {text:?} cannot be read"))?;
        let before = last
            .and_then(|last| DateTime::from_timestamp_micros(last.0))
            .map(|last| last.with_timezone(&zone).naive_local());
        let day = before.map_or(day, |before| before.date().max(day));
        let mut local = day.and_time(clock);
        if before.is_some_and(|before| before - local > TimeDelta::hours(12)) {
            local = local.checked_add_days(Days::new(1)).ok_or("the time is out of range")?;
        }
        in_zone(local, zone, last)
    }
}

/// A date, or date and time, in the names of files: a strftime pattern that fits somewhere in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameTime {
    pattern: String,
    /// Whether it says a time of day too.
    pub(super) has_clock: bool,
}

impl NameTime {
    /// Reads the `name_time` of a configuration.
    pub(super) fn parse(text: &str) -> Result<NameTime, String> {
        check_pattern(text)?;
        let written = sample().and_utc().format(text).to_string();
        let has_clock = NaiveDateTime::parse_from_str(&written, text).is_ok();
        if !has_clock && NaiveDate::parse_from_str(&written, text) != Ok(sample().date()) {
            return Err("must name a whole date, such as \"%Y-%m-%d\" or \"%Y%m%d_%H%M%S\"".into());
        }
        Ok(NameTime { pattern: text.to_owned(), has_clock })
    }

    /// What a name says: the first place where the pattern fits, digits being whole numbers.
    pub(super) fn find(&self, name: &str) -> Option<NaiveDateTime> {
        let starts = name.char_indices().map(|(at, _)| at);
        starts.filter(|at| !name[..*at].ends_with(|c: char| c.is_ascii_digit())).find_map(|at| {
            let rest = name.get(at..)?;
            if self.has_clock {
                NaiveDateTime::parse_and_remainder(rest, &self.pattern).ok().map(|(found, _)| found)
            } else {
                NaiveDate::parse_and_remainder(rest, &self.pattern)
                    .ok()
                    .map(|(found, _)| found.and_time(NaiveTime::MIN))
            }
        })
    }
}

pub(super) fn in_zone(local: NaiveDateTime, zone: Tz, last: Option<Timestamp>) -> Result<Timestamp, String> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => Ok(Timestamp(time.timestamp_micros())),
        LocalResult::Ambiguous(first, second) => {
            let (first, second) = (Timestamp(first.timestamp_micros()), Timestamp(second.timestamp_micros()));
            // Rows go forward: in the doubled hour a step back means that the clocks were put back.
            Ok(if last.is_some_and(|last| last > first) { second } else { first })
        }
        LocalResult::None => {
            Err(format!("time {local} does not exist in {zone}: the clocks were put forward"))
        }
    }
}

/// A count with or without fraction, exact to the microsecond.
fn epoch(text: &str, unit: i64) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if unit == 0 {
        return Some(Timestamp(whole.parse::<i64>().ok()?.div_euclid(1000))); // nanoseconds
    }
    let micros = whole.parse::<i64>().ok()?.checked_mul(unit)?;
    let mut part = 0;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        part += i64::from(digit - b'0') * place;
    }
    micros.checked_add(if whole.starts_with('-') { -part } else { part }).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: &str, zone: Tz, text: &str) -> String {
        TimeForm::parse(form).unwrap().read(text, zone, None).map_or_else(|why| why, |time| time.to_string())
    }

    #[test]
    fn many_forms_are_one_time() {
        let expected = "2026-11-22T13:14:15.000000Z";
        for (form, zone, text) in [
            ("iso", Tz::UTC, "2026-11-22T13:14:15Z"),
            ("iso", Tz::UTC, "2026-11-22 13:14:15"),
            ("iso", Tz::UTC, "2026-11-22T13:14:15.000"),
            ("iso", Tz::Europe__Berlin, "2026-11-22T14:14:15"),
            ("iso", Tz::Europe__Berlin, "2026-11-22T18:44:15+05:30"),
            ("%d.%m.%Y %H:%M:%S", Tz::Europe__Brussels, "22.11.2026 14:14:15"),
            ("%m/%d/%Y %I:%M:%S %p", Tz::UTC, "11/22/2026 01:14:15 PM"),
            ("%Y%m%d%H%M%S%z", Tz::UTC, "20261122151415+0200"),
            ("epoch-s", Tz::UTC, "1795353255"),
            ("epoch-s", Tz::UTC, "1795353255.0"),
            ("epoch-ms", Tz::UTC, "1795353255000"),
            ("epoch-us", Tz::UTC, "1795353255000000"),
            ("epoch-ns", Tz::UTC, "1795353255000000999"),
            ("excel", Tz::UTC, "46348.55156250000"),
            ("excel", Tz::Europe__Berlin, "46348.5932291666642"),
            ("excel-1904", Tz::UTC, "44886.5515625"),
        ] {
            assert_eq!(read(form, zone, text), expected, "{form} {text}");
        }
        assert_eq!(read("iso", Tz::UTC, "2026-11-22 13:14:15.123456789"), "2026-11-22T13:14:15.123456Z");
        assert_eq!(read("epoch-s", Tz::UTC, "1795353255.1234567"), "2026-11-22T13:14:15.123456Z");
        for wrong in ["", "22.11.2026", "2026-13-01 00:00:00", "2026-11-22", "now"] {
            assert!(read("iso", Tz::UTC, wrong).contains("cannot be read"), "{wrong}");
        }
        for wrong in ["%H:%M", "%Y-%m-%d", "%Q", "plain", "%s"] {
            assert!(TimeForm::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_files_say_the_day() {
        for (pattern, name, expected) in [
            ("%Y-%m-%d", "press_2026-11-22.csv", "2026-11-22 00:00:00"),
            ("%Y%m%d_%H%M%S", "m12_20261122_131415.csv", "2026-11-22 13:14:15"),
            ("%d%m%y", "7_221126.log", "2026-11-22 00:00:00"),
        ] {
            let found = NameTime::parse(pattern).unwrap().find(name).map(|found| found.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{name}");
        }
        let day = NameTime::parse("%Y%m%d").unwrap();
        assert_eq!((day.find("press.csv"), day.find("120261122.csv"), day.has_clock), (None, None, false));
        assert!(NameTime::parse("%H:%M").is_err() && ClockForm::parse("%Y").is_err());
        let form = ClockForm::parse("iso").unwrap();
        let (mut last, mut seen) = (None, Vec::new());
        for text in ["12:00", "23:59:59", "00:00:01.5", "11:00", "10:59", "23:00", "02:00"] {
            let first = NaiveDate::from_ymd_opt(2026, 11, 22).unwrap();
            let time = form.read(text, first, Tz::Europe__Berlin, last).unwrap();
            last = Some(time);
            seen.push(time.to_string()[8..16].to_owned());
        }
        assert_eq!(
            seen,
            ["22T11:00", "22T22:59", "22T23:00", "23T10:00", "23T09:59", "23T22:00", "24T01:00"]
        );
    }

    #[test]
    fn the_doubled_hour_goes_by_order() {
        let form = TimeForm::Iso;
        let mut last = None;
        let mut seen = Vec::new();
        for text in ["01:55", "02:00", "02:55", "02:00", "02:55", "03:00"] {
            let time = form.read(&format!("2026-10-25 {text}"), Tz::Europe__Berlin, last).unwrap();
            last = Some(time);
            seen.push(time.to_string()[11..16].to_owned());
        }
        assert_eq!(seen, ["23:55", "00:00", "00:55", "01:00", "01:55", "02:00"]);
        let skipped = form.read("2026-03-29 02:30", Tz::Europe__Berlin, None).unwrap_err();
        assert!(skipped.contains("does not exist"), "{skipped}");
    }
}
