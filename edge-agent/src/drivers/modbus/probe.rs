//! A range of a device's registers for a person who does not know its map: as they are, and as everything that they could be.
//!
//! Tolerant: a request that is refused is halved until only the cells remain that the device has not; what was read before the
//! device fell silent is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::{DataType, Value};

use super::address::{Span, Table};
use super::form::{Form, Order};
use super::frame::Framing;
use super::line::{Line, LineSettings, Target, Unit};
use super::pdu::{Exception, Request};
use crate::drivers::parse_target;
use crate::pace::Pace;

/// What to read.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `host` or `host:port`.
    pub address: String,
    /// `tcp`, `rtu` or `ascii`.
    pub framing: String,
    /// Unit.
    pub unit: u8,
    /// `hr`, `ir`, `co` or `di`.
    pub table: String,
    /// First cell, counted from 0.
    pub from: u16,
    /// How many.
    pub count: u16,
    /// Per request.
    pub timeout: Duration,
}

/// One cell: its address and its value, or the device's exception in words.
pub type Cell = (u16, Result<u16, String>);

/// The cells, and why not all of them, if so.
pub async fn read(probe: &Probe) -> Result<(Vec<Cell>, Option<String>), String> {
    let framing = Framing::ALL.iter().find(|(name, _)| *name == probe.framing).map(|(_, framing)| *framing);
    let table = Table::ALL.iter().find(|(_, name)| *name == probe.table).map(|(table, _)| *table);
    let (framing, table) =
        framing.zip(table).ok_or("framing is tcp, rtu or ascii; table is hr, ir, co or di")?;
    let line = Line::new(LineSettings {
        target: Target::Tcp(parse_target(&probe.address, 502)?),
        framing,
        connections: 1,
        pause: Duration::ZERO,
    });
    let mut unit = Unit::new(Arc::new(line), probe.unit, probe.timeout, Pace::default());
    unit.open().await.map_err(|error| error.to_string())?;
    let end = u32::from(probe.from) + u32::from(probe.count);
    let longest = if table.is_bits() { 2000 } else { 125 };
    let mut waiting = VecDeque::new();
    let mut start = u32::from(probe.from);
    while start < end.min(65_536) {
        let count = (end.min(65_536) - start).min(longest);
        waiting.push_back((start, count));
        start += count;
    }
    let mut cells: Vec<Cell> = Vec::new();
    let mut stopped = None;
    while let Some((start, count)) = waiting.pop_front() {
        let (Ok(first), Ok(length)) = (u16::try_from(start), u16::try_from(count)) else { continue };
        match unit.call(&Request::Read(Span { table, start: first, count: length })).await {
            Ok(Ok(values)) => cells.extend((first..).zip(values.into_iter().map(Ok))),
            Ok(Err(Exception(2..=4))) if count > 1 => {
                waiting.push_front((start + count / 2, count - count / 2));
                waiting.push_front((start, count / 2));
            }
            Ok(Err(exception)) => {
                let why = format!("exception {} ({exception})", exception.0);
                cells.extend((0..length).map(|nth| (first + nth, Err(why.clone()))));
            }
            Err(error) => {
                stopped = Some(format!("at {}:{start}: {error}", probe.table));
                break;
            }
        }
    }
    unit.close().await;
    Ok((cells, stopped))
}

/// What the registers from the first on could be: names of forms with their values, where those are plausible.
#[must_use]
pub fn readings(registers: &[u16]) -> Vec<(String, String)> {
    const ORDERS: [(&str, bool, bool); 4] =
        [("ABCD", false, false), ("CDAB", true, false), ("BADC", false, true), ("DCBA", true, true)];
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, data_type) in [
        ("uint16", DataType::UInt16),
        ("int16", DataType::Int16),
        ("uint32", DataType::UInt32),
        ("int32", DataType::Int32),
        ("float", DataType::Float),
        ("uint64", DataType::UInt64),
        ("double", DataType::Double),
    ] {
        let form = Form::Plain(data_type);
        for (order, word_little, byte_little) in ORDERS {
            if form.registers() == 1 && order != "ABCD" {
                continue; // the other byte order of one register is seen in its hexadecimal digits
            }
            let Some(value) = form.decode(registers, Order { word_little, byte_little }) else { continue };
            if let Some(text) = plausible(&value) {
                let label = if form.registers() == 1 { name.to_owned() } else { format!("{name} {order}") };
                found.push((label, text));
            }
        }
    }
    found
}

/// A number as a plant might have it: not the noise that bytes of something else make.
fn plausible(value: &Value) -> Option<String> {
    Some(match value {
        Value::UInt16(number) => number.to_string(),
        Value::Int16(number) => number.to_string(),
        Value::UInt32(number) if *number < 1_000_000_000 => number.to_string(),
        // Where it is not negative the unsigned one has said it.
        Value::Int32(number) if (-1_000_000_000..0).contains(number) => number.to_string(),
        Value::UInt64(number) if (1 << 20..1 << 50).contains(number) => number.to_string(),
        Value::Float(number) if *number == 0.0 || (1e-4..1e8).contains(&number.abs()) => number.to_string(),
        Value::Double(number) if *number != 0.0 && (1e-4..1e12).contains(&number.abs()) => number.to_string(),
        _ => return None,
    })
}

/// The two characters of a register, where they are some.
#[must_use]
pub fn characters(register: u16) -> Option<String> {
    let bytes = register.to_be_bytes();
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    is_text.then(|| bytes.iter().map(|byte| char::from(*byte)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_found_in_its_order_and_noise_is_not_shown() {
        let bits = 230.5_f32.to_bits();
        let words = [u16::try_from(bits & 0xffff).unwrap(), u16::try_from(bits >> 16).unwrap()];
        let found = readings(&words);
        assert!(found.contains(&("float CDAB".into(), "230.5".into())), "{found:?}");
        assert!(!found.iter().any(|(name, _)| name == "float ABCD"), "{found:?}");
        assert_eq!(characters(0x5375), Some("Su".into()));
        assert_eq!(characters(0x0075), None);
        assert!(readings(&[7]).iter().all(|(name, _)| name.ends_with("int16")));
    }
}
