//! The time of a row: text in some format and zone → UTC. Pure.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use model::Timestamp;

/// How times are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// ISO 8601 or RFC 3339 with `T` or space, with or without fraction and offset.
    Iso,
    /// Counted from 1970-01-01 UTC: microseconds per unit.
    Epoch(i64),
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
            _ => {}
        }
        if StrftimeItems::new(text).any(|item| matches!(item, Item::Error)) {
            return Err(
                "is no strftime pattern, such as \"%d.%m.%Y %H:%M:%S\"; or write \"iso\", \"epoch-s\", \
                        \"epoch-ms\", \"epoch-us\""
                    .into(),
            );
        }
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

fn in_zone(local: NaiveDateTime, zone: Tz, last: Option<Timestamp>) -> Result<Timestamp, String> {
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
