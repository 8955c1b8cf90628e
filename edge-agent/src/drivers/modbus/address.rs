//! Where a point is in a Modbus device, and how its registers make a value. Pure.
//!
//! ```text
//! hr:100                  holding register 100; ir: input registers, co: coils, di: discrete inputs
//! hr:100.3                bit 3 of it, 0 the least significant
//! hr:100 word=little      first register least significant; big is the default
//! hr:100 byte=little      low byte of each register first; big is the default
//! hr:100 CDAB             the same in short: ABCD, CDAB (word=little), BADC (byte=little), DCBA (both)
//! ```
//!
//! Addresses are those of the protocol, from 0 to 65535. One-based 4x/3x/1x/0x numbers are refused, because `40001`
//! means 0 to one vendor and 40001 to another.

use model::{DataType, Value};

/// One of the four tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Coils,
    DiscreteInputs,
    InputRegisters,
    HoldingRegisters,
}

impl Table {
    /// Every table, with its name in addresses.
    pub(super) const ALL: [(Table, &'static str); 4] = [
        (Table::Coils, "co"),
        (Table::DiscreteInputs, "di"),
        (Table::InputRegisters, "ir"),
        (Table::HoldingRegisters, "hr"),
    ];

    /// Whether its cells are bits.
    pub(super) const fn is_bits(self) -> bool {
        matches!(self, Table::Coils | Table::DiscreteInputs)
    }

    /// Whether the protocol can write it.
    pub(super) const fn is_writable(self) -> bool {
        matches!(self, Table::Coils | Table::HoldingRegisters)
    }
}

/// Cells of a table, all of which one request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// The table.
    pub(super) table: Table,
    /// First cell.
    pub(super) start: u16,
    /// Cells, at least 1; `start + count` is at most 65536.
    pub(super) count: u16,
}

impl Span {
    /// The cell after the last.
    pub(super) const fn end(self) -> u32 {
        self.start as u32 + self.count as u32
    }
}

/// A point's place and the form of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Its cells.
    pub(super) span: Span,
    /// Bit of the register, 0 the least significant.
    pub(super) bit: Option<u8>,
    /// The first register holds the least significant word.
    pub(super) word_little: bool,
    /// Each register holds its low byte first.
    pub(super) byte_little: bool,
    /// What it makes.
    pub(super) data_type: DataType,
}

/// What a write sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// One coil.
    Coil(bool),
    /// Registers from the point's first on.
    Registers(Vec<u16>),
    /// The bits of one register that `and` has cleared become those of `or`.
    Masked { and: u16, or: u16 },
}

const SYNTAX: &str = "write co:N, di:N, ir:N or hr:N with N from 0 to 65535, for a bit of a register hr:N.B with B from 0 to 15, then \
     word=big|little, byte=big|little or ABCD|CDAB|BADC|DCBA";

impl Address {
    /// Reads the text; an error says what to write instead.
    pub(super) fn parse(text: &str, data_type: DataType) -> Result<Address, String> {
        let mut parts = text.split_whitespace();
        let place = parts.next().ok_or(SYNTAX)?;
        let (table, number) = match place.split_once(':') {
            Some((name, number)) => (table_named(name)?, number),
            None => return Err(one_based(place).unwrap_or_else(|| SYNTAX.to_owned())),
        };
        let (number, bit) = match number.split_once('.') {
            Some((number, bit)) => (number, Some(parse_bit(bit)?)),
            None => (number, None),
        };
        let start: u16 =
            digits(number).ok_or_else(|| format!("{number:?} is no address from 0 to 65535; {SYNTAX}"))?;
        let (mut word_little, mut byte_little) = (false, false);
        for option in parts {
            match option {
                "word=big" => word_little = false,
                "word=little" => word_little = true,
                "byte=big" => byte_little = false,
                "byte=little" => byte_little = true,
                "ABCD" => (word_little, byte_little) = (false, false),
                "CDAB" => (word_little, byte_little) = (true, false),
                "BADC" => (word_little, byte_little) = (false, true),
                "DCBA" => (word_little, byte_little) = (true, true),
                other => return Err(format!("unknown option {other:?}; {SYNTAX}")),
            }
        }
        let count = cells(table, bit, data_type)?;
        let span = Span { table, start, count };
        if span.end() > 65_536 {
            return Err(format!(
                "{} needs {count} registers, and the last address is 65535",
                data_type.name()
            ));
        }
        Ok(Address { span, bit, word_little, byte_little, data_type })
    }

    /// The value in the cells of the point's span; bits come as 0 and 1. `None` if there are too few.
    pub(super) fn decode(&self, cells: &[u16]) -> Option<Value> {
        let first = *cells.first()?;
        if self.span.table.is_bits() {
            return Some(Value::Boolean(first != 0));
        }
        let register = self.register(first);
        if let Some(bit) = self.bit {
            return Some(Value::Boolean(register >> bit & 1 == 1));
        }
        let [low, _] = register.to_le_bytes();
        Some(match self.data_type {
            DataType::Boolean => Value::Boolean(register != 0),
            DataType::UInt8 => Value::UInt8(low),
            DataType::Int8 => Value::Int8(low.cast_signed()),
            DataType::UInt16 => Value::UInt16(register),
            DataType::Int16 => Value::Int16(register.cast_signed()),
            DataType::UInt32 => Value::UInt32(u32::from_be_bytes(self.bytes(cells)?)),
            DataType::Int32 => Value::Int32(i32::from_be_bytes(self.bytes(cells)?)),
            DataType::Float => Value::Float(f32::from_be_bytes(self.bytes(cells)?)),
            DataType::UInt64 => Value::UInt64(u64::from_be_bytes(self.bytes(cells)?)),
            DataType::Int64 => Value::Int64(i64::from_be_bytes(self.bytes(cells)?)),
            DataType::Double => Value::Double(f64::from_be_bytes(self.bytes(cells)?)),
            DataType::String | DataType::DateTime | DataType::Bytes => return None,
        })
    }

    /// What to write so that the point becomes `value`.
    pub(super) fn encode(&self, value: &Value) -> Result<Written, String> {
        if value.data_type() != self.data_type {
            return Err(format!(
                "the point's type is {}, not {}",
                self.data_type.name(),
                value.data_type().name()
            ));
        }
        if !self.span.table.is_writable() {
            return Err("inputs cannot be written".into());
        }
        let low_byte =
            |byte: u8| Written::Masked { and: self.register(0xff00), or: self.register(u16::from(byte)) };
        Ok(match (value, self.bit) {
            (Value::Boolean(on), _) if self.span.table.is_bits() => Written::Coil(*on),
            (Value::Boolean(on), Some(bit)) => {
                let mask = self.register(1 << bit);
                Written::Masked { and: !mask, or: if *on { mask } else { 0 } }
            }
            (Value::Boolean(on), None) => Written::Registers(vec![self.register(u16::from(*on))]),
            (Value::UInt8(v), _) => low_byte(*v),
            (Value::Int8(v), _) => low_byte(v.cast_unsigned()),
            (Value::UInt16(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::Int16(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::UInt32(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::Int32(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::Float(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::UInt64(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::Int64(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::Double(v), _) => Written::Registers(self.registers(&v.to_be_bytes())),
            (Value::String(_) | Value::DateTime(_) | Value::Bytes(_), _) => {
                return Err(format!("Modbus has no {}", self.data_type.name()));
            }
        })
    }

    /// A register as sent ↔ as meant.
    const fn register(&self, register: u16) -> u16 {
        if self.byte_little { register.swap_bytes() } else { register }
    }

    /// The value's bytes, most significant first.
    fn bytes<const N: usize>(&self, cells: &[u16]) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let cells = cells.get(..N / 2)?;
        for (nth, pair) in bytes.chunks_exact_mut(2).enumerate() {
            let at = if self.word_little { cells.len() - 1 - nth } else { nth };
            pair.copy_from_slice(&self.register(*cells.get(at)?).to_be_bytes());
        }
        Some(bytes)
    }

    /// The registers of bytes whose most significant comes first.
    fn registers(&self, bytes: &[u8]) -> Vec<u16> {
        let mut registers: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| self.register(pair.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte))))
            .collect();
        if self.word_little {
            registers.reverse();
        }
        registers
    }
}

/// Cells that a value takes.
fn cells(table: Table, bit: Option<u8>, data_type: DataType) -> Result<u16, String> {
    match (table.is_bits(), bit, data_type) {
        (true, Some(_), _) => {
            Err("coils and discrete inputs are bits already; leave out the bit number".into())
        }
        (true, None, DataType::Boolean) | (false, Some(_), DataType::Boolean) => Ok(1),
        (true, None, other) => Err(format!("holds booleans; the point's type is {}", other.name())),
        (false, Some(_), other) => Err(format!("a bit is a boolean; the point's type is {}", other.name())),
        (false, None, data_type) => match data_type {
            DataType::Boolean | DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16 => {
                Ok(1)
            }
            DataType::Int32 | DataType::UInt32 | DataType::Float => Ok(2),
            DataType::Int64 | DataType::UInt64 | DataType::Double => Ok(4),
            DataType::String | DataType::DateTime | DataType::Bytes => Err(format!(
                "registers cannot be read as {} yet; use a number type or boolean",
                data_type.name()
            )),
        },
    }
}

fn table_named(name: &str) -> Result<Table, String> {
    Table::ALL
        .into_iter()
        .find(|(_, known)| *known == name)
        .map(|(table, _)| table)
        .ok_or_else(|| format!("unknown table {name:?}; {SYNTAX}"))
}

fn parse_bit(text: &str) -> Result<u8, String> {
    digits(text).filter(|bit| *bit < 16).ok_or_else(|| format!("{text:?} is no bit from 0 to 15"))
}

/// A number of digits only: `parse` alone would take a sign.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What to write instead of `40001`, `400001`, `4x1`.
fn one_based(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (kind, rest) = match lower.split_once('x') {
        Some((kind, rest)) => (kind, rest),
        None if lower.len() == 5 || lower.len() == 6 => lower.split_at_checked(1)?,
        None => return None,
    };
    let name = match kind {
        "0" => "co",
        "1" => "di",
        "3" => "ir",
        "4" => "hr",
        _ => return None,
    };
    let number: u32 = digits(rest)?;
    let meant = number.checked_sub(1).filter(|meant| *meant <= 65_535)?;
    Some(format!(
        "one-based addresses are ambiguous; if {text} is the first form of the manual, write {name}:{meant}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, data_type: DataType) -> Address {
        Address::parse(text, data_type).unwrap()
    }

    #[test]
    fn orders_of_bytes_and_words() {
        let bytes = 0x0102_0304_u32;
        for (order, registers) in [
            ("", [0x0102, 0x0304]),
            ("ABCD", [0x0102, 0x0304]),
            ("word=little", [0x0304, 0x0102]),
            ("CDAB", [0x0304, 0x0102]),
            ("byte=little", [0x0201, 0x0403]),
            ("BADC", [0x0201, 0x0403]),
            ("word=little byte=little", [0x0403, 0x0201]),
            ("DCBA", [0x0403, 0x0201]),
        ] {
            let address = address(&format!("hr:7 {order}"), DataType::UInt32);
            assert_eq!(address.span, Span { table: Table::HoldingRegisters, start: 7, count: 2 });
            assert_eq!(address.decode(&registers), Some(Value::UInt32(bytes)), "{order}");
            assert_eq!(address.encode(&Value::UInt32(bytes)), Ok(Written::Registers(registers.to_vec())));
        }
    }

    #[test]
    fn every_type_comes_back_as_it_was_written() {
        for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
            for value in [
                Value::UInt16(0xbeef),
                Value::Int16(-2),
                Value::UInt32(0xdead_beef),
                Value::Int32(i32::MIN),
                Value::UInt64(u64::MAX - 1),
                Value::Int64(-3),
                Value::Float(-1.5e-3),
                Value::Double(f64::NAN),
                Value::Boolean(true),
            ] {
                let address = address(&format!("hr:0 {order}"), value.data_type());
                let Written::Registers(registers) = address.encode(&value).unwrap() else {
                    panic!("{value:?}")
                };
                assert_eq!(registers.len(), usize::from(address.span.count));
                assert_eq!(address.decode(&registers), Some(value));
                assert_eq!(address.decode(&registers[1..]).is_some(), registers.len() == 3);
            }
        }
    }

    #[test]
    fn parts_of_a_register_are_written_by_mask() {
        let bit = address("hr:100.3", DataType::Boolean);
        assert_eq!(bit.decode(&[0b1000]), Some(Value::Boolean(true)));
        assert_eq!(bit.encode(&Value::Boolean(true)), Ok(Written::Masked { and: 0xfff7, or: 0x0008 }));
        assert_eq!(bit.encode(&Value::Boolean(false)), Ok(Written::Masked { and: 0xfff7, or: 0 }));
        let swapped = address("hr:100.3 BADC", DataType::Boolean);
        assert_eq!(swapped.decode(&[0x0800]), Some(Value::Boolean(true)));
        assert_eq!(swapped.encode(&Value::Boolean(true)), Ok(Written::Masked { and: 0xf7ff, or: 0x0800 }));
        let byte = address("hr:1", DataType::Int8);
        assert_eq!(byte.decode(&[0x12ff]), Some(Value::Int8(-1)));
        assert_eq!(byte.encode(&Value::Int8(-1)), Ok(Written::Masked { and: 0xff00, or: 0x00ff }));
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (text, data_type, expected) in [
            ("40001", DataType::UInt16, "write hr:0"),
            ("300011", DataType::UInt16, "write ir:10"),
            ("4x0001", DataType::UInt16, "write hr:0"),
            ("00017", DataType::Boolean, "write co:16"),
            ("", DataType::UInt16, "write co:N"),
            ("%MW100", DataType::UInt16, "write co:N"),
            ("xx:1", DataType::UInt16, "unknown table"),
            ("hr:+1", DataType::UInt16, "no address"),
            ("hr:65536", DataType::UInt16, "no address"),
            ("hr:65535", DataType::Float, "needs 2 registers"),
            ("hr:1.16", DataType::Boolean, "no bit"),
            ("hr:1.1", DataType::UInt16, "a bit is a boolean"),
            ("co:1.1", DataType::Boolean, "bits already"),
            ("co:1", DataType::Float, "holds booleans"),
            ("hr:1 CABD", DataType::Float, "unknown option"),
            ("hr:1", DataType::String, "cannot be read as string"),
        ] {
            let error = Address::parse(text, data_type).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
