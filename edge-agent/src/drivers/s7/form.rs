//! How bytes of an S7 make a value, and back. Pure. Numbers are big-endian; durations are milliseconds.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use model::{DataType, Timestamp, Value};

use super::super::big_endian;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A bit of one byte.
    Bit(u8),
    /// A number of the point's type.
    Number(DataType),
    /// STRING\[n\]: room, length, characters of Latin-1.
    Text(u8),
    /// WSTRING\[n\]: room, length (words), characters of UTF-16.
    WideText(u16),
    /// ARRAY OF CHAR.
    Characters(u16),
    /// BYTE array, as bytes.
    Raw(u16),
    /// DTL: year (2), month, day, weekday, hour, minute, second, nanoseconds (4).
    Dtl,
    /// DATE_AND_TIME: BCD.
    DateAndTime,
    /// LDT: nanoseconds since 1970, UTC (8).
    Ldt,
    /// DATE: days since 1990 (2).
    Date,
    /// TIME: ms, signed (4); TOD: ms since midnight (4).
    Time,
    TimeOfDay,
    /// LTIME: ns, signed (8).
    LongTime,
    /// S5TIME and timers: base and three BCD digits (2).
    S5Time,
    /// Counters: three BCD digits (2).
    Counter,
}

/// The first day of DATE.
const EPOCH_DAYS: (i32, u32, u32) = (1990, 1, 1);

impl Form {
    /// Bytes that it takes.
    pub(super) const fn bytes(self) -> u32 {
        match self {
            Form::Bit(_) => 1,
            Form::Number(data_type) => match data_type {
                DataType::Int8 | DataType::UInt8 | DataType::Boolean => 1,
                DataType::Int16 | DataType::UInt16 => 2,
                DataType::Int32 | DataType::UInt32 | DataType::Float => 4,
                _ => 8,
            },
            Form::Text(room) => room as u32 + 2,
            Form::WideText(room) => room as u32 * 2 + 4,
            Form::Characters(bytes) | Form::Raw(bytes) => bytes as u32,
            Form::Dtl => 12,
            Form::DateAndTime | Form::Ldt | Form::LongTime => 8,
            Form::Time | Form::TimeOfDay => 4,
            Form::Date | Form::S5Time | Form::Counter => 2,
        }
    }

    /// Whether the point's type can hold it; else what would.
    pub(super) fn check(self, data_type: DataType) -> Result<(), String> {
        let (fits, needed) = match self {
            Form::Bit(_) => (data_type == DataType::Boolean, "boolean"),
            Form::Number(held) => (data_type == held, held.name()),
            Form::Text(_) | Form::WideText(_) | Form::Characters(_) => {
                (data_type == DataType::String, "string")
            }
            Form::Raw(_) => (data_type == DataType::Bytes, "bytes"),
            Form::Dtl | Form::DateAndTime | Form::Ldt | Form::Date => {
                (data_type == DataType::DateTime, "datetime")
            }
            Form::Time | Form::TimeOfDay | Form::LongTime | Form::S5Time => {
                (data_type.is_numeric(), "a number: milliseconds")
            }
            Form::Counter => (data_type.is_numeric(), "a number"),
        };
        if fits { Ok(()) } else { Err(format!("makes {needed}; the point's type is {}", data_type.name())) }
    }

    /// The value; none if the bytes make none of this type.
    pub(super) fn decode(self, bytes: &[u8], data_type: DataType, zone: Tz) -> Option<Value> {
        let number = |number: f64| Value::from_f64(number, data_type);
        Some(match self {
            Form::Bit(bit) => Value::Boolean(bytes.first()? >> bit & 1 == 1),
            Form::Number(held) => big_endian::number(held, bytes)?,
            Form::Text(room) => {
                let [_, length, characters @ ..] = bytes else { return None };
                let characters = characters.get(..usize::from(*length)).filter(|_| *length <= room)?;
                Value::String(characters.iter().map(|byte| char::from(*byte)).collect())
            }
            Form::WideText(room) => {
                let [_, _, l1, l2, units @ ..] = bytes else { return None };
                let length = u16::from_be_bytes([*l1, *l2]);
                let units = units.as_chunks::<2>().0.get(..usize::from(length)).filter(|_| length <= room)?;
                let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
                Value::String(String::from_utf16(&units).ok()?)
            }
            Form::Characters(_) => {
                let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                Value::String(text.trim_end_matches(['\0', ' ']).to_owned())
            }
            Form::Raw(_) => Value::Bytes(bytes.to_vec()),
            Form::Dtl | Form::DateAndTime | Form::Date => {
                let local = match self {
                    Form::Dtl => dtl(bytes)?,
                    Form::DateAndTime => date_and_time(bytes)?,
                    _ => {
                        let days = u64::from(u16::from_be_bytes(*bytes.first_chunk()?));
                        first_day()?.checked_add_days(chrono::Days::new(days))?.and_hms_opt(0, 0, 0)?
                    }
                };
                Value::DateTime(Timestamp(zone.from_local_datetime(&local).earliest()?.timestamp_micros()))
            }
            Form::Ldt => {
                Value::DateTime(Timestamp(i64::from_be_bytes(*bytes.first_chunk()?).div_euclid(1000)))
            }
            Form::Time => number(i32::from_be_bytes(*bytes.first_chunk()?).into())?,
            Form::TimeOfDay => number(u32::from_be_bytes(*bytes.first_chunk()?).into())?,
            Form::LongTime => number(i64::from_be_bytes(*bytes.first_chunk()?) as f64 / 1e6)?,
            Form::S5Time => {
                let word = u16::from_be_bytes(*bytes.first_chunk()?);
                let base = 10_u32.pow(u32::from(word >> 12 & 3) + 1);
                number((bcd3(word)? * base).into())?
            }
            Form::Counter => number(bcd3(u16::from_be_bytes(*bytes.first_chunk()?))?.into())?,
        })
    }

    /// What to write from the point's first byte on, and how many bytes behind it.
    pub(super) fn encode(self, value: &Value, zone: Tz) -> Result<(u32, Vec<u8>), String> {
        let milliseconds = || value.as_f64().ok_or_else(|| "must be a number of milliseconds".to_owned());
        let out_of = |what: &str| format!("{what} cannot hold that");
        Ok((
            0,
            match (self, value) {
                (Form::Number(_), _) => big_endian::bytes(value).ok_or_else(|| out_of("the type"))?,
                (Form::Text(room), Value::String(text)) => {
                    let one =
                        |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("{c:?} is not in Latin-1"));
                    let characters: Vec<u8> = text.chars().map(one).collect::<Result<_, _>>()?;
                    let length = u8::try_from(characters.len()).ok().filter(|length| *length <= room);
                    let length = length.ok_or_else(|| format!("there is room for {room} characters"))?;
                    // The room stays as the PLC made it.
                    return Ok((1, std::iter::once(length).chain(characters).collect()));
                }
                (Form::WideText(room), Value::String(text)) => {
                    let units: Vec<u16> = text.encode_utf16().collect();
                    let length = u16::try_from(units.len()).ok().filter(|length| *length <= room);
                    let length = length.ok_or_else(|| format!("there is room for {room} characters"))?;
                    let words = std::iter::once(length).chain(units);
                    return Ok((2, words.flat_map(u16::to_be_bytes).collect()));
                }
                (Form::Characters(room), Value::String(text)) => {
                    let one =
                        |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("{c:?} is not in Latin-1"));
                    let mut characters: Vec<u8> = text.chars().map(one).collect::<Result<_, _>>()?;
                    if characters.len() > usize::from(room) {
                        return Err(format!("there is room for {room} characters"));
                    }
                    characters.resize(room.into(), b' ');
                    characters
                }
                (Form::Raw(room), Value::Bytes(raw)) if raw.len() == usize::from(room) => raw.clone(),
                (Form::Raw(room), Value::Bytes(_)) => return Err(format!("must be exactly {room} bytes")),
                (Form::Ldt, Value::DateTime(time)) => {
                    time.0.checked_mul(1000).ok_or_else(|| out_of("LDT"))?.to_be_bytes().into()
                }
                (Form::Dtl | Form::DateAndTime | Form::Date, Value::DateTime(time)) => {
                    let utc = DateTime::from_timestamp_micros(time.0).ok_or_else(|| out_of("the clock"))?;
                    clock_bytes(self, utc.with_timezone(&zone).naive_local())
                        .ok_or_else(|| out_of("the clock"))?
                }
                (Form::Time, _) => {
                    let Some(Value::Int32(ms)) = Value::from_f64(milliseconds()?, DataType::Int32) else {
                        return Err(out_of("TIME"));
                    };
                    ms.to_be_bytes().into()
                }
                (Form::TimeOfDay, _) => match Value::from_f64(milliseconds()?, DataType::UInt32) {
                    Some(Value::UInt32(ms)) if ms < 86_400_000 => ms.to_be_bytes().into(),
                    _ => return Err(out_of("TIME_OF_DAY")),
                },
                (Form::LongTime, _) => {
                    let Some(Value::Int64(ns)) =
                        Value::from_f64((milliseconds()? * 1e6).round(), DataType::Int64)
                    else {
                        return Err(out_of("LTIME"));
                    };
                    ns.to_be_bytes().into()
                }
                (Form::S5Time, _) => s5_bytes(milliseconds()?).ok_or_else(|| out_of("S5TIME"))?.into(),
                _ => return Err(format!("type {} cannot be written here", value.data_type().name())),
            },
        ))
    }
}

fn first_day() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(EPOCH_DAYS.0, EPOCH_DAYS.1, EPOCH_DAYS.2)
}

fn from_bcd(byte: u8) -> Option<u32> {
    big_endian::from_bcd(byte).map(u32::from)
}

fn bcd3(word: u16) -> Option<u32> {
    let [high, low] = word.to_be_bytes();
    Some(from_bcd(high & 15)? * 100 + from_bcd(low)?)
}

fn dtl(bytes: &[u8]) -> Option<NaiveDateTime> {
    let [y1, y2, month, day, _, hour, minute, second, n1, n2, n3, n4] = *bytes.first_chunk::<12>()?;
    let date = NaiveDate::from_ymd_opt(u16::from_be_bytes([y1, y2]).into(), month.into(), day.into())?;
    date.and_hms_nano_opt(hour.into(), minute.into(), second.into(), u32::from_be_bytes([n1, n2, n3, n4]))
}

/// Year, month, day, hour, minute, second, hundredths, tenths of them and the weekday; years from 90 are of the last century.
fn date_and_time(bytes: &[u8]) -> Option<NaiveDateTime> {
    let [year, month, day, hour, minute, second, hundredths, rest] = *bytes.first_chunk::<8>()?;
    let year = i32::try_from(from_bcd(year)?).ok()?;
    let year = if year < 90 { 2000 + year } else { 1900 + year };
    let millis = from_bcd(hundredths)? * 10 + u32::from(rest >> 4);
    let date = NaiveDate::from_ymd_opt(year, from_bcd(month)?, from_bcd(day)?)?;
    date.and_hms_milli_opt(from_bcd(hour)?, from_bcd(minute)?, from_bcd(second)?, millis)
}

fn clock_bytes(form: Form, local: NaiveDateTime) -> Option<Vec<u8>> {
    let byte = |number: u32| u8::try_from(number).ok();
    let bcd = |number: u32| byte((number / 10) << 4 | (number % 10));
    let weekday = local.weekday().num_days_from_sunday() + 1;
    Some(match form {
        Form::Dtl => {
            let year = u16::try_from(local.year()).ok()?;
            let mut bytes = year.to_be_bytes().to_vec();
            for part in [local.month(), local.day(), weekday, local.hour(), local.minute(), local.second()] {
                bytes.push(byte(part)?);
            }
            bytes.extend((local.nanosecond() % 1_000_000_000).to_be_bytes());
            bytes
        }
        Form::DateAndTime => {
            let year = u32::try_from(local.year()).ok().filter(|year| (1990..2090).contains(year))?;
            let millis = local.nanosecond() / 1_000_000 % 1000;
            let parts = [
                year % 100,
                local.month(),
                local.day(),
                local.hour(),
                local.minute(),
                local.second(),
                millis / 10,
            ];
            let mut bytes = parts.into_iter().map(bcd).collect::<Option<Vec<u8>>>()?;
            bytes.push(byte((millis % 10) << 4 | weekday)?);
            bytes
        }
        _ => {
            let days = local.date().signed_duration_since(first_day()?).num_days();
            u16::try_from(days).ok()?.to_be_bytes().into()
        }
    })
}

/// The finest base that holds it: 10 ms, 100 ms, 1 s, 10 s.
fn s5_bytes(milliseconds: f64) -> Option<[u8; 2]> {
    for (code, base) in [(0_u16, 10.0), (1, 100.0), (2, 1000.0), (3, 10_000.0)] {
        let count = milliseconds / base;
        if (0.0..=999.0).contains(&count) && count.fract() == 0.0 {
            let Some(Value::UInt16(count)) = Value::from_f64(count, DataType::UInt16) else { return None };
            let digits = (count / 100) << 8 | (count / 10 % 10) << 4 | (count % 10);
            return Some((code << 12 | digits).to_be_bytes());
        }
    }
    None
}
