//! Where a point is in an S7, as engineers write it. Pure.
//!
//! ```text
//! DB1.DBX0.3  DB1.DBB4  DB1.DBW4  DB1.DBD4  DB1.DBL8        bit, 1, 2, 4, 8 bytes of a data block
//! M10.3  MB10  MW10  MD10  ML10                             markers; I or E inputs, Q or A outputs
//! T5  C3 (or Z3)                                            timers (ms) and counters
//! DB5.STRING10[20]  DB5.WSTRING10[20]  DB5.CHAR10[8]        texts with their room
//! DB5.BYTE10[8]                                             bytes, for type bytes
//! DB5.REAL4  DB5.DTL12  DB5.DT12  DB5.TIME8  MINT10 …       any type by its name, in any area
//! ```
//!
//! A `%` before it, as TIA writes, may stay. A point's type says what 1, 2, 4 or 8 bytes are.

use model::DataType;

use super::form::Form;
use super::telegram::{Area, Span};

/// A point's place and the form of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) span: Span,
    pub(super) form: Form,
    /// The point's type.
    pub(super) data_type: DataType,
}

const S5TIME: &str = "S5TIME";
/// The highest byte of an area: addresses are of 24 bits, in bits.
const BYTES_MAX: u32 = 65_536;
const SYNTAX: &str = "write it as DB1.DBX0.3, DB1.DBW4, DB1.DBD4, DB5.STRING10[20], DB5.REAL4, M10.3, MW10, I0.0, Q0.1, T5 or C3";

impl Address {
    /// Reads the text; an error says what to write instead.
    pub(super) fn parse(text: &str, data_type: DataType) -> Result<Address, String> {
        let upper = text.trim().trim_start_matches('%').to_ascii_uppercase();
        let (area, rest) = area(&upper)?;
        if area.is_words() {
            let number = digits(rest).filter(|number| *number < BYTES_MAX).ok_or(SYNTAX)?;
            let form = if area == Area::Timers { Form::S5Time } else { Form::Counter };
            form.check(data_type)?;
            return Ok(Address { span: Span { area, start: number, count: 1 }, form, data_type });
        }
        let named = if rest.starts_with(S5TIME) { S5TIME.len() } else { 0 }; // the one name with a digit in it
        let split = rest.char_indices().find(|(at, c)| *at >= named && c.is_ascii_digit()).ok_or(SYNTAX)?.0;
        let (name, place) = rest.split_at_checked(split).ok_or(SYNTAX)?;
        let (place, room) = match place.split_once('[') {
            Some((place, room)) => (place, Some(room.strip_suffix(']').and_then(digits).ok_or(SYNTAX)?)),
            None => (place, None),
        };
        let (start, bit) = match place.split_once('.') {
            Some((start, bit)) => {
                let bit = digits(bit).and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 8);
                (start, Some(bit.ok_or("a bit is from 0 to 7")?))
            }
            None => (place, None),
        };
        let start = digits(start).filter(|start| *start < BYTES_MAX).ok_or(SYNTAX)?;
        let form = form(name, bit, room, data_type)?;
        form.check(data_type)?;
        let span = Span { area, start, count: form.bytes() };
        if span.end() > BYTES_MAX {
            return Err(format!("ends behind byte {}", BYTES_MAX - 1));
        }
        Ok(Address { span, form, data_type })
    }

    /// Whether a write of it can mean anything.
    pub(super) const fn can_be_written(&self) -> bool {
        matches!(self.span.area, Area::Block(_) | Area::Markers | Area::Outputs)
    }
}

/// The area, and what stands behind its name.
fn area(upper: &str) -> Result<(Area, &str), String> {
    if let Some(rest) = upper.strip_prefix("DB") {
        let (number, rest) = rest.split_once('.').ok_or(SYNTAX)?;
        let number =
            digits(number).and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        let rest = rest.strip_prefix("DB").unwrap_or(rest);
        return Ok((Area::Block(number.ok_or("a data block has a number from 1 to 65535")?), rest));
    }
    let (first, rest) = upper.split_at_checked(1).ok_or(SYNTAX)?;
    let area = match first {
        "M" => Area::Markers,
        "I" | "E" => Area::Inputs,
        "Q" | "A" => Area::Outputs,
        "T" => Area::Timers,
        "C" | "Z" => Area::Counters,
        _ => return Err(SYNTAX.to_owned()),
    };
    Ok((area, rest))
}

/// Whether `limits` may name it.
pub(super) fn is_area(name: &str) -> bool {
    let block = name.strip_prefix("DB").and_then(digits).is_some_and(|number| (1..=65_535).contains(&number));
    block || matches!(name, "M" | "I" | "Q" | "T" | "C")
}

impl Area {
    /// Its name in `limits`, and a number of its own.
    pub(super) fn name(self) -> (String, u64) {
        match self {
            Self::Block(number) => (format!("DB{number}"), u64::from(number) + 16),
            Self::Markers => ("M".into(), 0),
            Self::Inputs => ("I".into(), 1),
            Self::Outputs => ("Q".into(), 2),
            Self::Timers => ("T".into(), 3),
            Self::Counters => ("C".into(), 4),
        }
    }

    /// Bytes (or timers, counters) that the CPU with the most of them has: an S7-1500, an S7-400 of markers no more.
    pub(super) const fn size_max(self) -> u64 {
        match self {
            Self::Block(_) => BYTES_MAX as u64,
            Self::Markers => 16_384,
            Self::Inputs | Self::Outputs => 32_768,
            Self::Timers | Self::Counters => 2_048,
        }
    }
}

/// What stands at the place, by the name before it.
fn form(name: &str, bit: Option<u8>, room: Option<u32>, data_type: DataType) -> Result<Form, String> {
    let sized = |bytes: u32| {
        let form = Form::Number(data_type);
        let is_number = data_type.is_numeric() && form.bytes() == bytes;
        let rule = || format!("is {bytes} bytes long, and type {} is not", data_type.name());
        is_number.then_some(form).ok_or_else(rule)
    };
    let number = |held: DataType| Ok(Form::Number(held));
    let text_room = || room.ok_or_else(|| format!("needs its room in brackets, such as {name}10[20]"));
    let is_bit = matches!(name, "" | "X" | "BOOL");
    let takes_room = matches!(name, "STRING" | "WSTRING" | "CHAR" | "B" | "BYTE");
    match (bit, room) {
        (Some(_), _) if !is_bit => return Err("is no bit; leave out the number behind the dot".into()),
        (None, _) if is_bit => return Err("needs its bit, such as 0.3".into()),
        (_, Some(_)) if !takes_room => return Err("takes no length in brackets".into()),
        _ => {}
    }
    match name {
        "" | "X" | "BOOL" => Ok(Form::Bit(bit.unwrap_or_default())),
        "STRING" => {
            let room = u8::try_from(text_room()?).ok().filter(|room| (1..=254).contains(room));
            room.map(Form::Text).ok_or_else(|| "has room for 1 to 254 characters".into())
        }
        "WSTRING" => {
            let room = u16::try_from(text_room()?).ok().filter(|room| (1..=4000).contains(room));
            room.map(Form::WideText).ok_or_else(|| "has room for 1 to 4000 characters".into())
        }
        "CHAR" | "B" | "BYTE" if room.is_some() => {
            let room = u16::try_from(text_room()?).ok().filter(|room| (1..=4000).contains(room));
            let room = room.ok_or_else(|| "is from 1 to 4000 bytes long".to_owned())?;
            Ok(if name == "CHAR" { Form::Characters(room) } else { Form::Raw(room) })
        }
        "CHAR" => Ok(Form::Characters(1)),
        "B" | "BYTE" => sized(1),
        "W" | "WORD" => sized(2),
        "D" | "DWORD" => sized(4),
        "L" | "LWORD" => sized(8),
        "SINT" => number(DataType::Int8),
        "USINT" => number(DataType::UInt8),
        "INT" => number(DataType::Int16),
        "UINT" => number(DataType::UInt16),
        "DINT" => number(DataType::Int32),
        "UDINT" => number(DataType::UInt32),
        "LINT" => number(DataType::Int64),
        "ULINT" => number(DataType::UInt64),
        "REAL" => number(DataType::Float),
        "LREAL" => number(DataType::Double),
        "DTL" => Ok(Form::Dtl),
        "DT" => Ok(Form::DateAndTime),
        "LDT" => Ok(Form::Ldt),
        "DATE" => Ok(Form::Date),
        "TIME" => Ok(Form::Time),
        "TOD" => Ok(Form::TimeOfDay),
        "LTIME" => Ok(Form::LongTime),
        S5TIME => Ok(Form::S5Time),
        _ => Err(format!("is unknown; {SYNTAX}")),
    }
}

/// A number of digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_engineers_write_them() {
        let block = Area::Block(1);
        for (text, data_type, area, start, count) in [
            ("DB1.DBX0.3", DataType::Boolean, block, 0, 1),
            ("%db1.dbx10.7", DataType::Boolean, block, 10, 1),
            ("DB1.DBB4", DataType::UInt8, block, 4, 1),
            ("DB1.DBW4", DataType::Int16, block, 4, 2),
            ("DB1.DBD4", DataType::Float, block, 4, 4),
            ("DB1.DBL8", DataType::Double, block, 8, 8),
            ("DB1.REAL4", DataType::Float, block, 4, 4),
            ("DB1.BOOL4.1", DataType::Boolean, block, 4, 1),
            ("DB1.STRING10[20]", DataType::String, block, 10, 22),
            ("DB1.WSTRING10[20]", DataType::String, block, 10, 44),
            ("DB1.CHAR10[8]", DataType::String, block, 10, 8),
            ("DB1.BYTE10[8]", DataType::Bytes, block, 10, 8),
            ("DB1.DTL12", DataType::DateTime, block, 12, 12),
            ("DB1.DT12", DataType::DateTime, block, 12, 8),
            ("DB1.DATE12", DataType::DateTime, block, 12, 2),
            ("DB1.DINT12", DataType::Int32, block, 12, 4),
            ("DB1.S5TIME12", DataType::UInt32, block, 12, 2),
            ("M10.3", DataType::Boolean, Area::Markers, 10, 1),
            ("MW10", DataType::UInt16, Area::Markers, 10, 2),
            ("MREAL10", DataType::Float, Area::Markers, 10, 4),
            ("I0.0", DataType::Boolean, Area::Inputs, 0, 1),
            ("E0.0", DataType::Boolean, Area::Inputs, 0, 1),
            ("EW4", DataType::Int16, Area::Inputs, 4, 2),
            ("A1.2", DataType::Boolean, Area::Outputs, 1, 1),
            ("QD8", DataType::UInt32, Area::Outputs, 8, 4),
            ("T5", DataType::UInt32, Area::Timers, 5, 1),
            ("Z3", DataType::UInt16, Area::Counters, 3, 1),
        ] {
            let found = Address::parse(text, data_type).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.span, Span { area, start, count }, "{text}");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (text, data_type, expected) in [
            ("", DataType::UInt16, "write it as"),
            ("hr:5", DataType::UInt16, "write it as"),
            ("DB0.DBW1", DataType::UInt16, "from 1 to 65535"),
            ("DB1.DBX0", DataType::Boolean, "needs its bit"),
            ("DB1.DBX0.8", DataType::Boolean, "from 0 to 7"),
            ("DB1.DBW0.1", DataType::UInt16, "no bit"),
            ("DB1.DBX0.1", DataType::UInt16, "makes boolean"),
            ("DB1.DBW4", DataType::Float, "2 bytes long"),
            ("DB1.DBD4", DataType::Double, "4 bytes long"),
            ("DB1.REAL4", DataType::Double, "makes float"),
            ("DB1.STRING4", DataType::String, "room in brackets"),
            ("DB1.STRING4[255]", DataType::String, "1 to 254"),
            ("DB1.REAL4[2]", DataType::Float, "no length"),
            ("DB1.DTL4", DataType::String, "makes datetime"),
            ("DB1.TIME4", DataType::Boolean, "milliseconds"),
            ("DB1.DBD65534", DataType::UInt32, "behind byte 65535"),
            ("MX", DataType::UInt16, "write it as"),
            ("DB1.FOO4", DataType::UInt16, "is unknown"),
        ] {
            let error = Address::parse(text, data_type).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            let is_said_twice = !text.is_empty() && error.contains(text); // the address stands before it
            assert!(!is_said_twice, "{text}: {error}");
        }
    }
}
