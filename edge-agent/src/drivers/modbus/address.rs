//! Where a point is in a Modbus device, as its list writes it. Pure.
//!
//! ```text
//! hr:100                  holding register 100; ir: input registers, co: coils, di: discrete inputs
//! hr:100.3                bit 3 of it, 0 the least significant
//! sunspec:101|102|103:14  register 14 of the first SunSpec model of these that the device has, its ID being register 0
//! ```
//!
//! Then options, in any order:
//!
//! ```text
//! word=little  byte=little  ABCD|CDAB|BADC|DCBA    orders; big is the default
//! len=16  charset=latin1  pad=space                a text (or bytes) of 16 bytes; UTF-8, padded with NUL
//! bcd                                              decimal digits
//! time=LAYOUT                                      a date with time (form.rs)
//! as=int16  sf=15                                  registers of this type, times ten to the power of register 15
//! na                                               the largest (for int: smallest) number means "no value", as in SunSpec
//! fc=16                                            written by this function
//! ```
//!
//! What a number means is the device's `addressing` ([`Addressing`]): two manuals that both say 40001 may mean different
//! registers, so nobody guesses.

use chrono_tz::Tz;
use model::{DataType, Value};

use super::form::{Form, Order, TIME_LAYOUTS};
use super::pdu::{Request, WRITE_REGISTERS_MAX};
use place::{SYNTAX, bad_number, digits, place_of, protocol_number};

pub(super) use place::{ADDRESSINGS, Addressing};

mod place;

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

/// What a device says about all its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) addressing: Addressing,
    /// Zone of clocks in registers.
    pub(super) zone: Tz,
    /// Longest span of a point.
    pub(super) registers_max: u16,
}

/// A point's place and the form of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Its cells: of the value, and of the exponent where there is one. In a SunSpec model counted from its beginning.
    pub(super) span: Span,
    /// SunSpec models in which it may be; none: the span is the device's own.
    pub(super) models: Vec<u16>,
    /// Where the value begins in the span.
    value_at: u16,
    /// Where the exponent is in the span.
    exponent_at: Option<u16>,
    /// Bit of the register, 0 the least significant.
    bit: Option<u8>,
    form: Form,
    order: Order,
    /// Whether one number means "no value".
    has_no_value: bool,
    /// The function that writes it, where the list says so.
    function: Option<u8>,
    /// What it makes.
    data_type: DataType,
}

/// What cells make.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    Value(Value),
    /// The device says that it has none.
    NoValue,
    Undecodable,
}

/// The options behind a place.
#[derive(Default)]
struct Options<'a> {
    order: Order,
    length: Option<u16>,
    is_latin1: bool,
    pad: u8,
    bcd: bool,
    time: Option<&'a str>,
    raw_type: Option<DataType>,
    scale_factor: Option<&'a str>,
    has_no_value: bool,
    function: Option<u8>,
}

impl Address {
    /// Reads the text; an error says what to write instead.
    pub(super) fn parse(text: &str, data_type: DataType, dialect: Dialect) -> Result<Address, String> {
        let mut parts = text.split_whitespace();
        let place = parts.next().ok_or(SYNTAX)?;
        let options = Options::parse(parts)?;
        let (models, table, start, bit) = place_of(place, dialect.addressing)?;
        let form = form(table, bit, data_type, &options, dialect.zone)?;
        let count = form.registers();
        let exponent = match options.scale_factor {
            None => None,
            Some(number) if !models.is_empty() => Some(digits(number).ok_or_else(|| bad_number(number))?),
            Some(number) => Some(protocol_number(number, table, dialect.addressing)?),
        };
        let first = exponent.map_or(start, |exponent| exponent.min(start));
        let end = (u32::from(start) + u32::from(count)).max(exponent.map_or(0, |at| u32::from(at) + 1));
        if end > 65_536 {
            return Err(format!(
                "{} needs {count} registers, and the last address is 65535",
                data_type.name()
            ));
        }
        let cells = u16::try_from(end - u32::from(first)).unwrap_or(u16::MAX);
        if !table.is_bits() && cells > dialect.registers_max {
            return Err(match exponent {
                Some(_) => {
                    format!("sf= is {cells} registers away; one request reads {}", dialect.registers_max)
                }
                None => {
                    format!("{cells} registers are more than one request reads: {}", dialect.registers_max)
                }
            });
        }
        let address = Address {
            span: Span { table, start: first, count: cells },
            has_no_value: options.has_no_value || !models.is_empty(),
            models,
            value_at: start - first,
            exponent_at: exponent.map(|at| at - first),
            bit,
            form,
            order: options.order,
            function: options.function,
            data_type,
        };
        address.check_function()?;
        Ok(address)
    }

    fn check_function(&self) -> Result<(), String> {
        let Some(function) = self.function else { return Ok(()) };
        let known: &[u8] = match (self.span.table, self.is_part(), self.form.registers()) {
            (Table::Coils, ..) => &[5, 15],
            (Table::HoldingRegisters, true, _) => &[22],
            (Table::HoldingRegisters, false, 1) => &[6, 16, 23],
            (Table::HoldingRegisters, false, _) => &[16, 23],
            _ => &[],
        };
        if known.contains(&function) {
            return Ok(());
        }
        Err(format!("fc={function} does not write this; possible: {known:?}"))
    }

    /// Its span, if that does not depend on where the device's models are.
    pub(super) fn fixed_span(&self) -> Option<Span> {
        self.models.is_empty().then_some(self.span)
    }

    /// The bits of its value in the span's table, from and to: of registers 16 each, of coils one. A scale factor may be shared.
    pub(super) fn bits(&self) -> (u64, u64) {
        let first = u64::from(self.span.start) + u64::from(self.value_at);
        if self.span.table.is_bits() {
            return (first, first + 1);
        }
        let swapped = |at: u64| if self.order.byte_little { at ^ 8 } else { at };
        match (self.bit, &self.form) {
            (Some(bit), _) => {
                let at = first * 16 + swapped(bit.into());
                (at, at + 1)
            }
            (None, Form::Plain(DataType::Int8 | DataType::UInt8)) => {
                let at = first * 16 + swapped(0);
                (at, at + 8)
            }
            (None, form) => (first * 16, (first + u64::from(form.registers())) * 16),
        }
    }

    /// Whether a write of it can mean one thing only.
    pub(super) const fn can_be_written(&self) -> bool {
        self.exponent_at.is_none()
    }

    /// Whether it is less than a register.
    fn is_part(&self) -> bool {
        self.bit.is_some() || matches!(self.form, Form::Plain(DataType::Int8 | DataType::UInt8))
    }

    /// The value in the cells of the point's span; bits come as 0 and 1.
    pub(super) fn decode(&self, cells: &[u16]) -> Decoded {
        let Some(value_cells) = cells.get(usize::from(self.value_at)..) else { return Decoded::Undecodable };
        let Some(first) = value_cells.first() else { return Decoded::Undecodable };
        if self.span.table.is_bits() {
            return Decoded::Value(Value::Boolean(*first != 0));
        }
        if let Some(bit) = self.bit {
            return Decoded::Value(Value::Boolean(self.order.register(*first) >> bit & 1 == 1));
        }
        let Some(raw) = self.form.decode(value_cells, self.order) else { return Decoded::Undecodable };
        if self.has_no_value && means_no_value(&raw) {
            return Decoded::NoValue;
        }
        let exponent = match self.exponent_at {
            None => 0,
            Some(at) => match cells.get(usize::from(at)).map(|cell| self.order.register(*cell).cast_signed())
            {
                Some(exponent @ -30..=30) => exponent,
                Some(i16::MIN) => return Decoded::NoValue,
                _ => return Decoded::Undecodable,
            },
        };
        if raw.data_type() == self.data_type && self.exponent_at.is_none() {
            return Decoded::Value(raw);
        }
        let scaled = raw.as_f64().map(|number| scale(number, exponent.into()));
        scaled
            .and_then(|number| Value::from_f64(number, self.data_type))
            .map_or(Decoded::Undecodable, Decoded::Value)
    }

    /// What to send so that the point, whose span begins at `start`, becomes `value`. The second is tried where the device has
    /// not the function of the first.
    pub(super) fn encode(&self, value: &Value, start: u16) -> Result<(Request, Option<Request>), String> {
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
        if self.exponent_at.is_some() {
            return Err("a value with a scale factor register cannot be written: the device may change the factor meanwhile".into());
        }
        let at = start.saturating_add(self.value_at);
        let masked = |mask: u16, bits: u16| {
            let (and, or) = (self.order.register(!mask), self.order.register(bits & mask));
            Ok((Request::MaskWrite(at, and, or), None))
        };
        match (value, self.bit) {
            (Value::Boolean(on), _) if self.span.table.is_bits() => {
                let many = Request::WriteCoils(at, vec![*on]);
                return Ok(match self.function {
                    Some(15) => (many, None),
                    Some(_) => (Request::WriteCoil(at, *on), None),
                    None => (Request::WriteCoil(at, *on), Some(many)),
                });
            }
            (Value::Boolean(on), Some(bit)) => return masked(1 << bit, if *on { 1 << bit } else { 0 }),
            (Value::UInt8(byte), _) => return masked(0x00ff, u16::from(*byte)),
            (Value::Int8(byte), _) => return masked(0x00ff, u16::from(byte.cast_unsigned())),
            _ => {}
        }
        let value = match &self.form {
            Form::Plain(raw) | Form::Bcd(raw) if *raw != self.data_type => {
                let raw_value = value.as_f64().and_then(|number| Value::from_f64(number, *raw));
                &raw_value.ok_or_else(|| format!("{} cannot hold that", raw.name()))?
            }
            _ => value,
        };
        let words = self.form.encode(value, self.order)?;
        if words.len() > WRITE_REGISTERS_MAX {
            return Err(format!("one write is of {WRITE_REGISTERS_MAX} registers at most"));
        }
        let one = match words.as_slice() {
            [word] => Some(Request::WriteRegister(at, *word)),
            _ => None,
        };
        Ok(match (self.function, one) {
            (Some(23), _) => (Request::ReadWrite(at, words), None),
            (Some(6), Some(one)) => (one, None),
            (None, Some(one)) => (one, Some(Request::WriteRegisters(at, words))),
            _ => (Request::WriteRegisters(at, words), None),
        })
    }
}

impl<'a> Options<'a> {
    fn parse(parts: impl Iterator<Item = &'a str>) -> Result<Options<'a>, String> {
        let mut options = Options::default();
        for option in parts {
            match option {
                "word=big" => options.order.word_little = false,
                "word=little" => options.order.word_little = true,
                "byte=big" => options.order.byte_little = false,
                "byte=little" => options.order.byte_little = true,
                "ABCD" => options.order = Order { word_little: false, byte_little: false },
                "CDAB" => options.order = Order { word_little: true, byte_little: false },
                "BADC" => options.order = Order { word_little: false, byte_little: true },
                "DCBA" => options.order = Order { word_little: true, byte_little: true },
                "charset=latin1" => options.is_latin1 = true,
                "charset=utf8" => options.is_latin1 = false,
                "pad=space" => options.pad = b' ',
                "pad=nul" => options.pad = 0,
                "bcd" => options.bcd = true,
                "na" => options.has_no_value = true,
                other => match other.split_once('=') {
                    Some(("len", number)) => {
                        let length = digits(number).filter(|length| (1..=250).contains(length));
                        options.length = Some(length.ok_or("len= must be from 1 to 250 bytes")?);
                    }
                    Some(("time", layout)) => options.time = Some(layout),
                    Some(("sf", number)) => options.scale_factor = Some(number),
                    Some(("as", name)) => {
                        let found = crate::points::parse_type(name).filter(|found| found.is_numeric());
                        options.raw_type =
                            Some(found.ok_or_else(|| format!("as={name}: no type of numbers"))?);
                    }
                    Some(("fc", number)) => {
                        let known =
                            "fc= must be 5 or 15 for coils, 6, 16 or 23 for registers, 22 for bits and bytes";
                        options.function = Some(digits(number).ok_or(known)?);
                    }
                    _ => {
                        return Err(format!(
                            "unknown option {other:?}; {SYNTAX}; or len=, charset=, pad=, bcd, time=, as=, sf=, na, fc="
                        ));
                    }
                },
            }
        }
        Ok(options)
    }
}

/// What the cells of a point are.
fn form(
    table: Table,
    bit: Option<u8>,
    data_type: DataType,
    options: &Options<'_>,
    zone: Tz,
) -> Result<Form, String> {
    match (table.is_bits(), bit, data_type) {
        (true, Some(_), _) => {
            return Err("coils and discrete inputs are bits already; leave out the bit number".into());
        }
        (true, None, DataType::Boolean) | (false, Some(_), DataType::Boolean) => {
            return Ok(Form::Plain(DataType::Boolean));
        }
        (true, None, other) => return Err(format!("holds booleans; the point's type is {}", other.name())),
        (false, Some(_), other) => {
            return Err(format!("a bit is a boolean; the point's type is {}", other.name()));
        }
        (false, None, _) => {}
    }
    if let Some(name) = options.time {
        let known = || TIME_LAYOUTS.map(|(name, _)| name).join(", ");
        let layout = TIME_LAYOUTS.iter().find(|(known, _)| *known == name);
        let (_, layout) = layout.ok_or_else(|| format!("time={name}: unknown layout; known: {}", known()))?;
        return match data_type {
            DataType::DateTime => Ok(Form::Time(*layout, zone)),
            other => Err(format!("time= makes a datetime; the point's type is {}", other.name())),
        };
    }
    match (data_type, options.length) {
        (DataType::String, Some(bytes)) => {
            return Ok(Form::Text { bytes, is_latin1: options.is_latin1, pad: options.pad });
        }
        (DataType::Bytes, Some(bytes)) => return Ok(Form::Raw { bytes }),
        (DataType::String | DataType::Bytes, None) => {
            return Err(format!("type {} needs its length in bytes, such as len=16", data_type.name()));
        }
        (DataType::DateTime, _) => {
            return Err("a datetime needs its layout, such as time=epoch32 or time=ymdhms-6".into());
        }
        (_, Some(_)) => return Err("len= is for string and bytes".into()),
        (_, None) => {}
    }
    let raw_type = match (options.raw_type, options.scale_factor) {
        (Some(raw), _) if data_type.is_numeric() => raw,
        (Some(_), _) => return Err("as= is for numbers".into()),
        (None, Some(_)) => return Err("sf= needs the type of the registers, such as as=int16".into()),
        (None, None) => data_type,
    };
    if options.scale_factor.is_some() && !matches!(data_type, DataType::Double | DataType::Float) {
        return Err(format!("sf= makes a double or float; the point's type is {}", data_type.name()));
    }
    if options.bcd {
        return match raw_type {
            DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Ok(Form::Bcd(raw_type)),
            other => Err(format!("bcd is for uint16, uint32 and uint64; this is {}", other.name())),
        };
    }
    Ok(Form::Plain(raw_type))
}

/// Times ten to the power: by division where that is exact, so that 235 with -1 is 23.5.
fn scale(number: f64, exponent: i32) -> f64 {
    if exponent < 0 { number / 10_f64.powi(-exponent) } else { number * 10_f64.powi(exponent) }
}

/// What SunSpec calls "not implemented".
fn means_no_value(raw: &Value) -> bool {
    match raw {
        Value::Int16(number) => *number == i16::MIN,
        Value::Int32(number) => *number == i32::MIN,
        Value::Int64(number) => *number == i64::MIN,
        Value::UInt16(number) => *number == u16::MAX,
        Value::UInt32(number) => *number == u32::MAX,
        Value::UInt64(number) => *number == u64::MAX,
        Value::Float(number) => number.is_nan(),
        Value::Double(number) => number.is_nan(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
