//! How registers make a value, and back. Pure.
//!
//! | form | registers | value |
//! |---|---|---|
//! | plain | 1, 2 or 4 by the type | numbers, boolean |
//! | text, raw | `len` bytes | string, bytes |
//! | bcd | 1, 2 or 4 | four decimal digits each |
//! | time | 2 to 6 by the layout | datetime |
//! | scaled | those of `as`, and one that holds the exponent of ten | number |
//!
//! Word order concerns numbers, byte order every register.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;
use model::{DataType, Timestamp, Value};

use super::super::big_endian::{self, from_bcd};

/// What the registers of a point are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A number or a boolean of this type.
    Plain(DataType),
    /// A text of so many bytes.
    Text { bytes: u16, is_latin1: bool, pad: u8 },
    /// So many bytes as they are.
    Raw { bytes: u16 },
    /// Decimal digits, four to a register.
    Bcd(DataType),
    /// A date with time.
    Time(TimeLayout, Tz),
}

/// Layouts of dates with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeLayout {
    /// Seconds since 1970, UTC, in two registers.
    Epoch32,
    /// The same in four.
    Epoch64,
    /// Milliseconds since 1970, UTC, in four.
    EpochMs,
    /// Year, month, day, hour, minute, second: a register each; a year below 100 is of this century.
    Six,
    /// The same, two to a register, the first in the high byte.
    Three,
    /// The same in decimal digits (BCD).
    ThreeBcd,
    /// Four registers after IEC 60870-5, as Schneider's meters have it: year, month and day, hour and minute, ms.
    Iec,
}

/// Names of the layouts in addresses.
pub(super) const TIME_LAYOUTS: [(&str, TimeLayout); 7] = [
    ("epoch32", TimeLayout::Epoch32),
    ("epoch64", TimeLayout::Epoch64),
    ("epoch-ms", TimeLayout::EpochMs),
    ("ymdhms-6", TimeLayout::Six),
    ("ymdhms-3", TimeLayout::Three),
    ("ymdhms-3-bcd", TimeLayout::ThreeBcd),
    ("iec", TimeLayout::Iec),
];

/// Order of words and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// The first register holds the least significant word.
    pub(super) word_little: bool,
    /// Each register holds its low byte first.
    pub(super) byte_little: bool,
}

impl Order {
    /// A register as sent ↔ as meant.
    pub(super) const fn register(self, register: u16) -> u16 {
        if self.byte_little { register.swap_bytes() } else { register }
    }

    /// The number's bytes, most significant first.
    fn number<const N: usize>(self, cells: &[u16]) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let cells = cells.get(..N / 2)?;
        for (nth, pair) in bytes.chunks_exact_mut(2).enumerate() {
            let at = if self.word_little { cells.len() - 1 - nth } else { nth };
            pair.copy_from_slice(&self.register(*cells.get(at)?).to_be_bytes());
        }
        Some(bytes)
    }

    /// The registers of a number whose most significant byte comes first.
    fn registers(self, bytes: &[u8]) -> Vec<u16> {
        let mut registers = self.in_order(bytes);
        if self.word_little {
            registers.reverse();
        }
        registers
    }

    /// Bytes in the order of the registers.
    fn bytes(self, cells: &[u16]) -> impl Iterator<Item = u8> {
        cells.iter().flat_map(move |cell| self.register(*cell).to_be_bytes())
    }

    /// Bytes, an even number of them, as registers.
    fn in_order(self, bytes: &[u8]) -> Vec<u16> {
        bytes.as_chunks::<2>().0.iter().map(|pair| self.register(u16::from_be_bytes(*pair))).collect()
    }
}

impl Form {
    /// Registers that it takes.
    pub(super) const fn registers(&self) -> u16 {
        match self {
            Form::Plain(data_type) | Form::Bcd(data_type) => match data_type {
                DataType::Int32 | DataType::UInt32 | DataType::Float => 2,
                DataType::Int64 | DataType::UInt64 | DataType::Double => 4,
                _ => 1,
            },
            Form::Text { bytes, .. } | Form::Raw { bytes } => bytes.div_ceil(2),
            Form::Time(layout, _) => match layout {
                TimeLayout::Epoch32 => 2,
                TimeLayout::Three | TimeLayout::ThreeBcd => 3,
                TimeLayout::Epoch64 | TimeLayout::EpochMs | TimeLayout::Iec => 4,
                TimeLayout::Six => 6,
            },
        }
    }

    /// The value; `None` if the registers make none, or are too few.
    pub(super) fn decode(&self, cells: &[u16], order: Order) -> Option<Value> {
        let cells = cells.get(..usize::from(self.registers()))?;
        Some(match self {
            Form::Plain(data_type) => plain(*data_type, cells, order)?,
            Form::Bcd(data_type) => {
                let mut number: u64 = 0;
                let digits = match cells.len() {
                    1 => order.number::<2>(cells)?.to_vec(),
                    2 => order.number::<4>(cells)?.to_vec(),
                    _ => order.number::<8>(cells)?.to_vec(),
                };
                for byte in digits {
                    number = number * 100 + u64::from(from_bcd(byte)?);
                }
                match data_type {
                    DataType::UInt64 => Value::UInt64(number),
                    _ => Value::from_f64(u32::try_from(number).ok()?.into(), *data_type)?,
                }
            }
            Form::Text { bytes, is_latin1, .. } => {
                let mut text: Vec<u8> = order.bytes(cells).take(usize::from(*bytes)).collect();
                let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                text.truncate(end);
                let text = if *is_latin1 {
                    text.iter().map(|byte| char::from(*byte)).collect()
                } else {
                    String::from_utf8(text).ok()?
                };
                Value::String(text.trim_end_matches(' ').to_owned())
            }
            Form::Raw { bytes } => Value::Bytes(order.bytes(cells).take(usize::from(*bytes)).collect()),
            Form::Time(layout, zone) => Value::DateTime(time(*layout, *zone, cells, order)?),
        })
    }

    /// Registers that make the value.
    pub(super) fn encode(&self, value: &Value, order: Order) -> Result<Vec<u16>, String> {
        let other = || format!("type {} cannot be written here", value.data_type().name());
        Ok(match (self, value) {
            (Form::Plain(_), value) => order.registers(&number_bytes(value).ok_or_else(other)?),
            (Form::Bcd(_), value) => {
                let number = match value {
                    Value::UInt64(number) => *number,
                    other_value => whole(other_value).ok_or_else(other)?,
                };
                let digits = usize::from(self.registers()) * 4;
                let text = format!("{number:0digits$}");
                if text.len() > digits {
                    return Err(format!("{number} has more than {digits} digits"));
                }
                let nibbles: Vec<u8> = text.bytes().map(|digit| digit - b'0').collect();
                let bytes: Vec<u8> =
                    nibbles.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
                order.registers(&bytes)
            }
            (Form::Text { bytes, is_latin1, pad }, Value::String(text)) => {
                let one =
                    |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("{c:?} is not in Latin-1"));
                let mut encoded: Vec<u8> = if *is_latin1 {
                    text.chars().map(one).collect::<Result<_, _>>()?
                } else {
                    text.clone().into()
                };
                if encoded.len() > usize::from(*bytes) {
                    return Err(format!("the text has {} bytes; there is room for {bytes}", encoded.len()));
                }
                encoded.resize(usize::from(self.registers()) * 2, *pad);
                order.in_order(&encoded)
            }
            (Form::Raw { bytes }, Value::Bytes(raw)) if raw.len() == usize::from(*bytes) => {
                let mut raw = raw.clone();
                raw.resize(usize::from(self.registers()) * 2, 0);
                order.in_order(&raw)
            }
            (Form::Raw { bytes }, Value::Bytes(_)) => return Err(format!("must be exactly {bytes} bytes")),
            (Form::Time(layout, zone), Value::DateTime(time)) => time_registers(*layout, *zone, *time, order)
                .ok_or("the device's clock cannot show that time")?,
            _ => return Err(other()),
        })
    }
}

fn plain(data_type: DataType, cells: &[u16], order: Order) -> Option<Value> {
    let register = order.register(*cells.first()?).to_be_bytes();
    match data_type {
        DataType::Boolean => Some(Value::Boolean(register != [0; 2])),
        DataType::UInt8 | DataType::Int8 => big_endian::number(data_type, register.get(1..)?),
        DataType::UInt16 | DataType::Int16 => big_endian::number(data_type, &register),
        DataType::UInt32 | DataType::Int32 | DataType::Float => {
            big_endian::number(data_type, &order.number::<4>(cells)?)
        }
        DataType::UInt64 | DataType::Int64 | DataType::Double => {
            big_endian::number(data_type, &order.number::<8>(cells)?)
        }
        DataType::String | DataType::DateTime | DataType::Bytes => None,
    }
}

/// Bytes of whole registers: half a register is written by its mask instead.
fn number_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Boolean(on) => Some(u16::from(*on).to_be_bytes().into()),
        Value::UInt8(_) | Value::Int8(_) => None,
        number => big_endian::bytes(number),
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::UInt16(number) => Some((*number).into()),
        Value::UInt32(number) => Some((*number).into()),
        _ => None,
    }
}

const fn to_bcd(number: u8) -> u8 {
    ((number / 10) << 4) | (number % 10)
}

fn time(layout: TimeLayout, zone: Tz, cells: &[u16], order: Order) -> Option<Timestamp> {
    let register = |nth: usize| cells.get(nth).map(|cell| order.register(*cell));
    let local = match layout {
        TimeLayout::Epoch32 => {
            let seconds = u32::from_be_bytes(order.number(cells)?);
            return Some(Timestamp(i64::from(seconds) * 1_000_000));
        }
        TimeLayout::Epoch64 | TimeLayout::EpochMs => {
            let unit = if layout == TimeLayout::EpochMs { 1000 } else { 1_000_000 };
            return i64::from_be_bytes(order.number(cells)?).checked_mul(unit).map(Timestamp);
        }
        TimeLayout::Six => date(register(0)?, register(1)?, register(2)?)?.and_hms_opt(
            register(3)?.into(),
            register(4)?.into(),
            register(5)?.into(),
        )?,
        TimeLayout::Three | TimeLayout::ThreeBcd => {
            let mut parts = [0_u8; 6];
            for (part, byte) in parts.iter_mut().zip(order.bytes(cells)) {
                *part = if layout == TimeLayout::ThreeBcd { from_bcd(byte)? } else { byte };
            }
            let [year, month, day, hour, minute, second] = parts;
            date(year.into(), month.into(), day.into())?.and_hms_opt(
                hour.into(),
                minute.into(),
                second.into(),
            )?
        }
        TimeLayout::Iec => {
            let (year, day, hour, millis) = (register(0)?, register(1)?, register(2)?, register(3)?);
            if hour & 0x80 != 0 {
                return None; // the device says that its clock is not set
            }
            let (month, day) = (day >> 8 & 15, day & 31);
            let of_minute = (u32::from(millis) / 1000, u32::from(millis) % 1000);
            let date = date(year & 0x7f, month, day)?;
            date.and_hms_milli_opt((hour >> 8 & 31).into(), (hour & 63).into(), of_minute.0, of_minute.1)?
        }
    };
    let time = zone.from_local_datetime(&local).earliest()?; // a doubled hour is told apart by nothing
    Some(Timestamp(time.timestamp_micros()))
}

fn date(year: u16, month: u16, day: u16) -> Option<NaiveDate> {
    let year = if year < 100 { 2000 + i32::from(year) } else { i32::from(year) };
    NaiveDate::from_ymd_opt(year, month.into(), day.into())
}

fn time_registers(layout: TimeLayout, zone: Tz, time: Timestamp, order: Order) -> Option<Vec<u16>> {
    let seconds = time.0.div_euclid(1_000_000);
    let local: NaiveDateTime = DateTime::from_timestamp_micros(time.0)?.with_timezone(&zone).naive_local();
    let byte = |number: u32| u8::try_from(number).ok();
    let year = u16::try_from(local.year()).ok()?;
    let in_century = year.checked_sub(2000).filter(|year| *year < 100)?;
    let parts = [
        u8::try_from(in_century).ok()?,
        byte(local.month())?,
        byte(local.day())?,
        byte(local.hour())?,
        byte(local.minute())?,
        byte(local.second())?,
    ];
    Some(match layout {
        TimeLayout::Epoch32 => order.registers(&u32::try_from(seconds).ok()?.to_be_bytes()),
        TimeLayout::Epoch64 => order.registers(&seconds.to_be_bytes()),
        TimeLayout::EpochMs => order.registers(&time.0.div_euclid(1000).to_be_bytes()),
        TimeLayout::Six => {
            let [_, rest @ ..] = parts.map(u16::from);
            std::iter::once(year).chain(rest).map(|cell| order.register(cell)).collect()
        }
        TimeLayout::Three => order.in_order(&parts),
        TimeLayout::ThreeBcd => order.in_order(&parts.map(to_bcd)),
        TimeLayout::Iec => {
            let [_, month, day, hour, minute, second] = parts.map(u16::from);
            let millis = u16::try_from(local.and_utc().timestamp_subsec_millis() % 1000).ok()?;
            let cells = [in_century, month << 8 | day, hour << 8 | minute, second * 1000 + millis];
            cells.map(|cell| order.register(cell)).to_vec()
        }
    })
}
