//! Requests and answers of Modbus without their frame: function codes 1 to 6, 15, 16, 22 and 23. Pure.
//!
//! ```text
//! request   function (1)  data (0 to 252)
//! answer    function (1)  data                    as the function says, checked against the request
//! exception function + 0x80 (1)  code (1)
//! ```

use std::fmt;

use super::address::{Span, Table};

/// The longest request or answer.
pub(super) const PDU_BYTES_MAX: usize = 253;
/// Registers of one write (function 16), and of one write with read (23): the protocol's own limits.
pub(super) const WRITE_REGISTERS_MAX: usize = 121;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Functions 1 to 4 by the span's table.
    Read(Span),
    /// Function 5.
    WriteCoil(u16, bool),
    /// Function 6.
    WriteRegister(u16, u16),
    /// Function 15.
    WriteCoils(u16, Vec<bool>),
    /// Function 16.
    WriteRegisters(u16, Vec<u16>),
    /// Function 22: register, and, or.
    MaskWrite(u16, u16, u16),
    /// Function 23, reading back what it wrote.
    ReadWrite(u16, Vec<u16>),
}

/// The device's exception code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception(pub(super) u8);

/// Cells, or none after a write, or the device's exception. Bits come as 0 and 1.
pub(super) type Answer<T> = Result<T, Exception>;

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "device failure",
            5 => "acknowledge: still at it",
            6 => "device busy",
            7 => "negative acknowledge",
            8 => "memory parity error",
            10 => "gateway: no path to the device",
            11 => "gateway: the device did not answer",
            _ => "unknown",
        })
    }
}

impl Request {
    /// Its function code.
    pub(super) const fn function(&self) -> u8 {
        match self {
            Request::Read(span) => match span.table {
                Table::Coils => 1,
                Table::DiscreteInputs => 2,
                Table::HoldingRegisters => 3,
                Table::InputRegisters => 4,
            },
            Request::WriteCoil(..) => 5,
            Request::WriteRegister(..) => 6,
            Request::WriteCoils(..) => 15,
            Request::WriteRegisters(..) => 16,
            Request::MaskWrite(..) => 22,
            Request::ReadWrite(..) => 23,
        }
    }

    /// Whether it changes the device.
    pub(super) const fn is_write(&self) -> bool {
        !matches!(self, Request::Read(_))
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pdu = vec![self.function()];
        let mut put = |word: u16| pdu.extend(word.to_be_bytes());
        match self {
            Request::Read(span) => {
                put(span.start);
                put(span.count);
            }
            Request::WriteCoil(at, on) => {
                put(*at);
                put(if *on { 0xff00 } else { 0 });
            }
            Request::WriteRegister(at, word) => {
                put(*at);
                put(*word);
            }
            Request::MaskWrite(at, and, or) => [*at, *and, *or].into_iter().for_each(put),
            Request::WriteCoils(at, bits) => {
                put(*at);
                put(length(bits.len()));
                let bytes = bits.chunks(8).map(|eight| {
                    eight.iter().enumerate().fold(0, |byte, (nth, on)| byte | u8::from(*on) << nth)
                });
                pdu.push(byte_count(bits.len().div_ceil(8)));
                pdu.extend(bytes);
            }
            Request::WriteRegisters(at, words) => {
                put(*at);
                put_registers(&mut pdu, words);
            }
            Request::ReadWrite(at, words) => {
                put(*at);
                put(length(words.len()));
                put(*at);
                put_registers(&mut pdu, words);
            }
        }
        pdu
    }

    /// What the answer says, checked against this request; an error says why it is none.
    pub(super) fn check(&self, pdu: &[u8]) -> Result<Answer<Vec<u16>>, String> {
        let (function, data) = pdu.split_first().ok_or("an empty answer")?;
        if *function == self.function() | 0x80 {
            return match data {
                [code] if *code != 0 => Ok(Err(Exception(*code))),
                _ => Err("an exception without a code".into()),
            };
        }
        if *function != self.function() {
            return Err(format!("an answer of function {function} to one of {}", self.function()));
        }
        match self {
            Request::Read(span) => read_cells(*span, data).map(Ok),
            Request::ReadWrite(start, words) => {
                let span = Span { table: Table::HoldingRegisters, start: *start, count: length(words.len()) };
                read_cells(span, data)?;
                Ok(Ok(Vec::new()))
            }
            // The address and what was written, or how much.
            Request::WriteCoils(..) | Request::WriteRegisters(..)
                if self.encode().get(1..5) == Some(data) =>
            {
                Ok(Ok(Vec::new()))
            }
            Request::WriteCoil(..) | Request::WriteRegister(..) | Request::MaskWrite(..)
                if self.encode().get(1..) == Some(data) =>
            {
                Ok(Ok(Vec::new()))
            }
            _ => Err("the device confirmed another write than asked for".into()),
        }
    }
}

fn put_registers(pdu: &mut Vec<u8>, words: &[u16]) {
    pdu.extend(length(words.len()).to_be_bytes());
    pdu.push(byte_count(words.len() * 2));
    pdu.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

/// Callers keep to the protocol's limits; beyond them the device would refuse a truncated count.
fn length(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn byte_count(bytes: usize) -> u8 {
    u8::try_from(bytes).unwrap_or(u8::MAX)
}

fn read_cells(span: Span, data: &[u8]) -> Result<Vec<u16>, String> {
    let wrong = || format!("the answer does not hold the {} cells asked for", span.count);
    let (bytes, cells) = data.split_first().ok_or_else(wrong)?;
    let count = usize::from(span.count);
    let expected = if span.table.is_bits() { count.div_ceil(8) } else { count * 2 };
    if usize::from(*bytes) != cells.len() || cells.len() != expected {
        return Err(wrong());
    }
    if span.table.is_bits() {
        let bit = |nth: usize| cells.get(nth / 8).map_or(0, |byte| u16::from(byte >> (nth % 8) & 1));
        return Ok((0..count).map(bit).collect());
    }
    Ok(cells.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}
