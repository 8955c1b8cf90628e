//! A line of a file → readings. Pure.

use std::borrow::Cow;

use chrono_tz::Tz;
use model::limits::VALUE_BYTES_MAX;
use model::{DataType, Quality, Reason, Timestamp, Value};

use super::time_column::TimeForm;
use crate::drivers::Reading;

/// How files are written.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    /// Between cells.
    pub(super) separator: u8,
    /// `1,5` is one and a half.
    pub(super) decimal_comma: bool,
    /// Name of the time column.
    pub(super) time: String,
    /// Its form.
    pub(super) time_form: TimeForm,
    /// Zone of times that name no offset.
    pub(super) zone: Tz,
    /// Column and type of each point.
    pub(super) points: Vec<(String, DataType)>,
}

/// Where things are in the lines of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    columns: usize,
    time: usize,
    /// Column and point.
    points: Vec<(usize, usize)>,
}

/// A cell that is not what its point expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadCell {
    /// Why, with the column's name.
    pub(super) reason: String,
}

impl Dialect {
    /// Reads a header line; an error says why the file cannot be read at all.
    pub(super) fn header(&self, line: &[u8]) -> Result<Header, String> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let cells = self.cells(line)?;
        let column = |name: &str| {
            let mut places = cells.iter().enumerate().filter(|(_, cell)| cell.trim() == name);
            match (places.next(), places.next()) {
                (Some(_), Some(_)) => Err(format!("column {name:?} is in the header twice")),
                (found, _) => Ok(found.map(|(at, _)| at)),
            }
        };
        let time =
            column(&self.time)?.ok_or_else(|| format!("the header has no time column {:?}", self.time))?;
        let mut points = Vec::new();
        for (point, (name, _)) in self.points.iter().enumerate() {
            points.extend(column(name)?.map(|at| (at, point)));
        }
        if points.is_empty() {
            return Err("the header has no column of any point".into());
        }
        Ok(Header { columns: cells.len(), time, points })
    }

    /// Reads a line: its time, one reading per cell that is not empty, and what is wrong with some of them. An error
    /// is about the whole line.
    pub(super) fn readings(
        &self,
        header: &Header,
        line: &[u8],
        last: Option<Timestamp>,
        into: &mut Vec<Reading>,
        bad: &mut Vec<BadCell>,
    ) -> Result<Timestamp, String> {
        let cells = self.cells(line)?;
        if cells.len() != header.columns {
            return Err(format!("{} cells where the header has {}", cells.len(), header.columns));
        }
        let cell = |at: usize| cells.get(at).map_or("", |cell| cell.trim());
        let time = self.time_form.read(cell(header.time), self.zone, last)?;
        for (column, point) in &header.points {
            let text = cell(*column);
            let Some((name, data_type)) = self.points.get(*point).filter(|_| !text.is_empty()) else {
                continue;
            };
            let (value, quality) = match self.value(text, *data_type, last) {
                Some(value) => (Some(value), Quality::GOOD),
                None => {
                    let shown: String = text.chars().take(64).collect();
                    let reason = format!("column {name:?}: {shown:?} is no {}", data_type.name());
                    bad.push(BadCell { reason });
                    (None, Quality::bad(Reason::Undecodable))
                }
            };
            into.push(Reading { point: *point, time: Some(time), value, quality });
        }
        Ok(time)
    }

    fn cells<'l>(&self, line: &'l [u8]) -> Result<Vec<Cow<'l, str>>, String> {
        let not_text = |_| "the line is not UTF-8".to_owned();
        if !line.contains(&b'"') {
            let text = std::str::from_utf8(line).map_err(not_text)?;
            return Ok(text.split(char::from(self.separator)).map(Cow::Borrowed).collect());
        }
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.separator)
            .has_headers(false)
            .flexible(true)
            .from_reader(line);
        let mut record = csv::ByteRecord::new();
        reader.read_byte_record(&mut record).map_err(|error| error.to_string())?;
        let owned = |cell: &[u8]| {
            String::from_utf8(cell.to_vec()).map(Cow::Owned).map_err(|_| "the line is not UTF-8".into())
        };
        record.iter().map(owned).collect()
    }

    fn value(&self, text: &str, data_type: DataType, last: Option<Timestamp>) -> Option<Value> {
        match data_type {
            DataType::String => (text.len() <= VALUE_BYTES_MAX).then(|| Value::String(text.to_owned())),
            DataType::DateTime => self.time_form.read(text, self.zone, last).ok().map(Value::DateTime),
            DataType::Boolean => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "on" | "yes" => Some(Value::Boolean(true)),
                "0" | "false" | "off" | "no" => Some(Value::Boolean(false)),
                _ => None,
            },
            DataType::Int64 if let Ok(number) = text.parse() => Some(Value::Int64(number)),
            DataType::UInt64 if let Ok(number) = text.parse() => Some(Value::UInt64(number)),
            DataType::Float => self.point_decimal(text)?.parse().ok().map(Value::Float),
            DataType::Double => self.point_decimal(text)?.parse().ok().map(Value::Double),
            DataType::Bytes => None,
            integer => Value::from_f64(self.point_decimal(text)?.parse().ok()?, integer),
        }
    }

    /// The number as Rust writes it; `None` where it has the other decimal sign.
    fn point_decimal<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        match (self.decimal_comma, text.contains(','), text.contains('.')) {
            (_, false, false) | (false, false, true) => Some(Cow::Borrowed(text)),
            (true, true, false) => Some(Cow::Owned(text.replacen(',', ".", 1))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(separator: u8, decimal_comma: bool, points: &[(&str, DataType)]) -> Dialect {
        Dialect {
            separator,
            decimal_comma,
            time: "time".into(),
            time_form: TimeForm::Iso,
            zone: Tz::UTC,
            points: points.iter().map(|(name, data_type)| ((*name).to_owned(), *data_type)).collect(),
        }
    }

    /// Values by point, and the reasons of bad cells.
    type Line = (Vec<(usize, Option<Value>)>, Vec<String>);

    /// What a line brings.
    fn line(dialect: &Dialect, header: &str, line: &str) -> Result<Line, String> {
        let header = dialect.header(header.as_bytes()).unwrap();
        let (mut readings, mut bad) = (Vec::new(), Vec::new());
        dialect.readings(&header, line.as_bytes(), None, &mut readings, &mut bad)?;
        let values = readings.into_iter().map(|reading| (reading.point, reading.value)).collect();
        Ok((values, bad.into_iter().map(|cell| cell.reason).collect()))
    }

    #[test]
    fn cells_become_values_of_their_types() {
        let plain =
            dialect(b',', false, &[("a", DataType::Double), ("b", DataType::String), ("c", DataType::UInt8)]);
        let header = "\u{feff}b, time ,c,other,a";
        let time = "2026-11-22 06:00:00";
        let (values, bad) = line(&plain, header, &format!("\"x, \"\"y\"\"\",{time},255,?,-1e3")).unwrap();
        let expected = [
            (0, Some(Value::Double(-1000.0))),
            (1, Some(Value::String("x, \"y\"".into()))),
            (2, Some(Value::UInt8(255))),
        ];
        assert_eq!((values.as_slice(), bad.len()), (expected.as_slice(), 0));
        let (values, bad) = line(&plain, header, &format!(",{time}, ,,NaN")).unwrap();
        assert_eq!((values, bad.len()), (vec![(0, Some(Value::Double(f64::NAN)))], 0));
        let (values, bad) =
            line(&plain, header, &format!("ü,{time},256,,1,5")).unwrap_or_else(|why| (vec![], vec![why]));
        assert_eq!((values.len(), bad), (0, vec!["6 cells where the header has 5".to_owned()]));
        let (values, bad) = line(&plain, header, &format!("ü,{time},256,,1.5.1")).unwrap();
        assert_eq!(values.iter().filter(|(_, value)| value.is_none()).count(), 2);
        assert_eq!(bad, ["column \"a\": \"1.5.1\" is no double", "column \"c\": \"256\" is no uint8"]);
    }

    #[test]
    fn a_decimal_comma_is_one() {
        let german = dialect(b';', true, &[("Druck", DataType::Float), ("n", DataType::Int64)]);
        let header = "time;Druck;n";
        let read = |row: &str| line(&german, header, &format!("2026-11-22T06:00:00Z;{row}")).unwrap();
        assert_eq!(
            read("1,5;-9223372036854775808").0,
            [(0, Some(Value::Float(1.5))), (1, Some(Value::Int64(i64::MIN)))]
        );
        assert_eq!(read("1.5;3,0").0, [(0, None), (1, Some(Value::Int64(3)))]);
        assert_eq!(read("1.234,5;3,5").1.len(), 2);
    }

    #[test]
    fn unusable_headers_say_why() {
        let plain = dialect(b',', false, &[("a", DataType::Double), ("b", DataType::Double)]);
        for (header, expected) in [
            ("a,b", "no time column"),
            ("time,c", "no column of any point"),
            ("time,a,a", "twice"),
            ("time,time,a", "twice"),
            ("", "no time column"),
        ] {
            let why = plain.header(header.as_bytes()).unwrap_err();
            assert!(why.contains(expected), "{header}: {why}");
        }
        assert!(plain.header(b"\xff,time,a").unwrap_err().contains("UTF-8"));
        assert!(plain.header(b"b,time").is_ok());
    }
}
