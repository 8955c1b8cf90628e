//! S7 communication (PUT/GET) on ISO-on-TCP, without I/O. Every length and code from the network is checked.
//!
//! ```text
//! TPKT   3  0  length (2, with these four)
//! COTP   length of what follows  0xF0  0x80 (last part)        data; 0xE0 asks for a connection, 0xD0 grants it
//! S7     0x32  kind  0 0  reference (2)  parameters (2)  data (2)  [error class  error code]   kind 1 asks, 3 answers
//! setup  0xF0 0  parallel (2) (2)  PDU length (2)
//! read   4  items { 0x12 10 0x10  size  count (2)  DB (2)  area  address in bits (3) }
//!        → 4  items | { return code  size  length (2)  data, filled to even }
//! write  5  items {as for read} | { 0  size  length (2)  data, filled to even }  →  5  items | { return code }
//! ```

use std::fmt;
use std::ops::Range;

/// The longest PDU that is asked for: what an S7-1500 grants.
pub(super) const PDU_BYTES_MAX: u16 = 960;
/// The shortest that is of use; every S7 grants 240.
pub(super) const PDU_BYTES_MIN: u16 = 112;
/// A TPKT with the longest PDU, header and some room for CPs that fill up.
pub(super) const PACKET_BYTES_MAX: usize = 2048;
/// Items of one request.
pub(super) const ITEMS_MAX: usize = 20;
/// What a read asks beside its items, and the answer carries beside its data.
pub(super) const READ_ASKED: usize = 12;
pub(super) const READ_ANSWERED: usize = 14;
/// Bytes of one item, asked and (beside its data) answered.
pub(super) const ITEM_ASKED: usize = 12;
pub(super) const ITEM_ANSWERED: usize = 4;

const HEADER: usize = 4 + 3;
const JOB: u8 = 1;
const ACK: u8 = 2;
const ACK_DATA: u8 = 3;
const USER_DATA: u8 = 7;

/// Where data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Area {
    Inputs,
    Outputs,
    Markers,
    Counters,
    Timers,
    /// A data block.
    Block(u16),
}

impl Area {
    const fn code(self) -> u8 {
        match self {
            Area::Inputs => 0x81,
            Area::Outputs => 0x82,
            Area::Markers => 0x83,
            Area::Block(_) => 0x84,
            Area::Counters => 0x1c,
            Area::Timers => 0x1d,
        }
    }

    /// Whether its elements are words that are counted by number.
    pub(super) const fn is_words(self) -> bool {
        matches!(self, Area::Counters | Area::Timers)
    }
}

/// A stretch of an area: bytes, or (timers and counters) words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    pub(super) area: Area,
    /// First byte, or number of the first timer.
    pub(super) start: u32,
    /// How many, at least 1.
    pub(super) count: u32,
}

impl Span {
    /// Behind the last.
    pub(super) const fn end(self) -> u32 {
        self.start + self.count
    }

    /// Bytes of its data.
    pub(super) const fn bytes(self) -> usize {
        self.count as usize * if self.area.is_words() { 2 } else { 1 }
    }
}

/// For people: `DB1, bytes 4 to 7`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.area {
            Area::Inputs => f.write_str("inputs")?,
            Area::Outputs => f.write_str("outputs")?,
            Area::Markers => f.write_str("markers")?,
            Area::Counters => f.write_str("counters")?,
            Area::Timers => f.write_str("timers")?,
            Area::Block(number) => write!(f, "DB{number}")?,
        }
        let what = if self.area.is_words() { "numbers" } else { "bytes" };
        write!(f, ", {what} {} to {}", self.start, self.end().saturating_sub(1))
    }
}

/// What a write puts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Bit { area: Area, byte: u32, bit: u8, on: bool },
    Bytes { area: Area, start: u32, bytes: Vec<u8> },
}

/// Why a whole answer is no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Not S7, or not the answer that was asked for.
    Malformed(String),
    /// The PLC refuses: class and code of the header.
    Refused(u8, u8),
}

fn malformed(text: impl Into<String>) -> Trouble {
    Trouble::Malformed(text.into())
}

/// The length of the packet whose first bytes these are; none if there are too few yet.
pub(super) fn packet_length(bytes: &[u8]) -> Result<Option<usize>, Trouble> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] != 3 || !(HEADER..=PACKET_BYTES_MAX).contains(&length) {
        return Err(malformed("not ISO-on-TCP"));
    }
    Ok(Some(length))
}

/// The part of the PDU in a packet, and whether it is the last.
pub(super) fn data_part(packet: &[u8]) -> Result<(&[u8], bool), Trouble> {
    let (length, rest) =
        packet.get(4..).and_then(<[u8]>::split_first).ok_or_else(|| malformed("an empty packet"))?;
    let (cotp, data) =
        rest.split_at_checked(usize::from(*length)).ok_or_else(|| malformed("a COTP header that is cut"))?;
    match cotp {
        [0xf0, number, ..] => Ok((data, number & 0x80 != 0)),
        [0x80, ..] => Err(malformed("the PLC ended the connection")),
        _ => Err(malformed("a COTP packet that is no data")),
    }
}

fn packet(cotp: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + 1 + cotp.len() + data.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![3, 0];
    bytes.extend(length.to_be_bytes());
    bytes.push(u8::try_from(cotp.len()).unwrap_or(u8::MAX));
    bytes.extend(cotp);
    bytes.extend(data);
    bytes
}

/// Asks for a connection between two TSAPs.
pub(super) fn connect(local: u16, remote: u16) -> Vec<u8> {
    let ([l1, l2], [r1, r2]) = (local.to_be_bytes(), remote.to_be_bytes());
    packet(&[0xe0, 0, 0, 0, 1, 0, 0xc0, 1, 10, 0xc1, 2, l1, l2, 0xc2, 2, r1, r2], &[])
}

/// Whether it was granted.
pub(super) fn check_connected(packet: &[u8]) -> Result<(), Trouble> {
    match packet.get(5) {
        Some(0xd0) => Ok(()),
        Some(0x80) => Err(malformed("the PLC refused the connection: rack and slot, or TSAP, are wrong")),
        _ => Err(malformed("no answer to the request for a connection")),
    }
}

fn job(kind: u8, reference: u16, parameters: &[u8], data: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut pdu = vec![0x32, kind, 0, 0];
    pdu.extend(reference.to_be_bytes());
    pdu.extend(length(parameters));
    pdu.extend(length(data));
    pdu.extend(parameters);
    pdu.extend(data);
    packet(&[0xf0, 0x80], &pdu)
}

/// An answer's parameters and data.
struct Answer<'a> {
    reference: u16,
    parameters: &'a [u8],
    data: &'a [u8],
}

fn answer(pdu: &[u8], reference: u16) -> Result<Answer<'_>, Trouble> {
    let head = pdu.first_chunk::<10>().ok_or_else(|| malformed("a PDU that is cut"))?;
    let number = |at: usize| {
        head.get(at..at + 2).map_or(0, |two| two.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte)))
    };
    let after = match head[1] {
        ACK | ACK_DATA => 12,
        USER_DATA => 10,
        kind => return Err(malformed(format!("a PDU of kind {kind}"))),
    };
    if head[0] != 0x32 {
        return Err(malformed("a PDU that is not S7"));
    }
    if number(4) != reference {
        return Err(malformed(format!("the answer to {} instead of {reference}", number(4))));
    }
    if after == 12 {
        match pdu.get(10..12) {
            Some([0, 0]) => {}
            Some([class, code]) => return Err(Trouble::Refused(*class, *code)),
            _ => return Err(malformed("a PDU that is cut")),
        }
    }
    let (parameters, data) = (usize::from(number(6)), usize::from(number(8)));
    let rest = pdu.get(after..).unwrap_or_default();
    match (rest.get(..parameters), rest.get(parameters..parameters + data)) {
        (Some(parameters), Some(data)) => Ok(Answer { reference: number(4), parameters, data }),
        _ => Err(malformed("a PDU that is cut")),
    }
}

/// The reference of an answer, to skip late ones; none if it is no S7.
pub(super) fn reference(pdu: &[u8]) -> Option<u16> {
    match pdu {
        [0x32, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Asks for a PDU length.
pub(super) fn setup(reference: u16, pdu_bytes: u16) -> Vec<u8> {
    let [high, low] = pdu_bytes.to_be_bytes();
    job(JOB, reference, &[0xf0, 0, 0, 1, 0, 1, high, low], &[])
}

/// What was granted.
pub(super) fn check_setup(pdu: &[u8], reference: u16, asked: u16) -> Result<u16, Trouble> {
    let answer = answer(pdu, reference)?;
    match answer.parameters {
        [0xf0, _, _, _, _, _, high, low] => {
            let granted = u16::from_be_bytes([*high, *low]);
            if granted < PDU_BYTES_MIN {
                return Err(malformed(format!("a PDU length of {granted}")));
            }
            Ok(granted.min(asked)) // one that cannot go so low says what it could
        }
        _ => Err(malformed("no answer to the setup")),
    }
}

fn item(area: Area, size: u8, start_bit: u32, count: u32) -> [u8; 12] {
    let block = match area {
        Area::Block(number) => number,
        _ => 0,
    };
    let ([b1, b2], [_, a1, a2, a3]) = (block.to_be_bytes(), start_bit.to_be_bytes());
    let [_, _, c1, c2] = count.to_be_bytes();
    [0x12, 10, 0x10, size, c1, c2, b1, b2, area.code(), a1, a2, a3]
}

/// Asks for spans; at most [`ITEMS_MAX`].
pub(super) fn read(reference: u16, spans: &[Span]) -> Vec<u8> {
    let mut parameters = vec![4, u8::try_from(spans.len()).unwrap_or(u8::MAX)];
    for span in spans {
        let (size, start) = match span.area {
            Area::Timers | Area::Counters => (span.area.code(), span.start),
            _ => (2, span.start.saturating_mul(8)),
        };
        parameters.extend(item(span.area, size, start, span.count));
    }
    job(JOB, reference, &parameters, &[])
}

/// Per span its bytes, or the PLC's return code.
pub(super) fn check_read<'a>(
    pdu: &'a [u8],
    reference: u16,
    spans: &[Span],
) -> Result<Vec<Result<&'a [u8], u8>>, Trouble> {
    let answer = answer(pdu, reference)?;
    if answer.parameters.first_chunk() != Some(&[4, u8::try_from(spans.len()).unwrap_or(u8::MAX)]) {
        return Err(malformed("an answer with another number of items"));
    }
    let (mut rest, mut items) = (answer.data, Vec::with_capacity(spans.len()));
    for span in spans {
        let Some(([code, size, l1, l2], after)) = rest.split_first_chunk::<4>() else {
            return Err(malformed("an item that is cut"));
        };
        let length = usize::from(u16::from_be_bytes([*l1, *l2]));
        // In bits for some sizes; nothing follows a refusal.
        let bytes = match (*code, *size) {
            (0xff, 3..=5) => length.div_ceil(8),
            (0xff, 6..=9) => length,
            (0xff, size) => return Err(malformed(format!("an item of size {size}"))),
            _ => 0,
        };
        let (data, behind) = after.split_at_checked(bytes).ok_or_else(|| malformed("an item that is cut"))?;
        items.push(match *code {
            0xff if bytes == span.bytes() => Ok(data),
            0xff => return Err(malformed(format!("{bytes} bytes instead of {}", span.bytes()))),
            code => Err(code),
        });
        rest = if bytes % 2 == 1 { behind.get(1..).unwrap_or_default() } else { behind };
    }
    Ok(items)
}

/// Writes.
pub(super) fn write(reference: u16, written: &Written) -> Vec<u8> {
    let (item, data) = match written {
        Written::Bit { area, byte, bit, on } => {
            let address = byte.saturating_mul(8) + u32::from(*bit);
            (item(*area, 1, address, 1), vec![0, 3, 0, 1, u8::from(*on)])
        }
        Written::Bytes { area, start, bytes } => {
            let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let bits = u16::try_from(bytes.len() * 8).unwrap_or(u16::MAX);
            let [high, low] = bits.to_be_bytes();
            let mut data = vec![0, 4, high, low];
            data.extend(bytes);
            (item(*area, 2, start.saturating_mul(8), count), data)
        }
    };
    let mut parameters = vec![5, 1];
    parameters.extend(item);
    job(JOB, reference, &parameters, &data)
}

/// The PLC's return code; 0xff is done.
pub(super) fn check_write(pdu: &[u8], reference: u16) -> Result<u8, Trouble> {
    let answer = answer(pdu, reference)?;
    match (answer.parameters, answer.data) {
        ([5, 1], [code]) => Ok(*code),
        _ => Err(malformed("no answer to a write")),
    }
}

/// Asks what the CPU is doing (SZL 0x0424).
pub(super) fn cpu_state(reference: u16) -> Vec<u8> {
    job(USER_DATA, reference, &[0, 1, 0x12, 4, 0x11, 0x44, 1, 0], &[0xff, 9, 0, 4, 4, 0x24, 0, 0])
}

/// Whether it runs; none where it does not say.
pub(super) fn check_cpu_state(pdu: &[u8], reference: u16) -> Result<Option<bool>, Trouble> {
    let answer = answer(pdu, reference)?;
    debug_assert_eq!(answer.reference, reference);
    const RECORD: Range<usize> = 12..16; // behind return code, size, length, SZL id, index, length and number of records
    Ok(match (answer.data.first(), answer.data.get(RECORD)) {
        (Some(0xff), Some([_, _, _, state])) => match state & 15 {
            0 => None,
            state => Some(state == 8),
        },
        _ => None,
    })
}

/// What a refusal of a whole request means, and what to do about it.
pub(super) fn meaning(class: u8, code: u8) -> String {
    let text = match (class, code) {
        (0x81, 0x04) => {
            "the PLC does not allow it: enable \"Permit access with PUT/GET\" in the CPU's protection settings (S7-1200/1500), \
             and lower its protection level"
        }
        (0x83 | 0xd2, _) => "the PLC does not allow it: its protection level asks for a password",
        (0x84, _) | (0x87, _) => "the PLC cannot serve it now",
        (0x85, _) => "the PLC did not like the PDU's size",
        _ => "the PLC refused",
    };
    format!("{text} (error 0x{class:02x}{code:02x})")
}

/// What a return code of one item means, and what to do about it.
pub(super) const fn item_meaning(code: u8) -> &'static str {
    match code {
        0x01 => "hardware fault",
        0x03 => "access is not allowed: lower the CPU's protection level, or enable PUT/GET",
        0x05 => "the address is out of range: the data block is shorter than that",
        0x06 => "the PLC does not support this type",
        0x07 => "the types do not fit",
        0x0a => {
            "the object does not exist: there is no such data block, or it has optimised block access (switch it off in the \
             block's attributes)"
        }
        _ => "the PLC refused it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_on_the_wire() {
        let spans = [
            Span { area: Area::Block(1), start: 4, count: 4 },
            Span { area: Area::Timers, start: 5, count: 2 },
        ];
        let expected = [
            3, 0, 0, 0x2b, 2, 0xf0, 0x80, 0x32, 1, 0, 0, 0, 7, 0, 26, 0, 0, 4, 2, 0x12, 10, 0x10, 2, 0, 4, 0,
            1, 0x84, 0, 0, 32, 0x12, 10, 0x10, 0x1d, 0, 2, 0, 0, 0x1d, 0, 0, 5,
        ];
        assert_eq!(read(7, &spans), expected);
        assert_eq!(packet_length(&expected), Ok(Some(expected.len())));
        let (pdu, is_last) = data_part(&expected).unwrap();
        assert!(is_last && reference(pdu) == Some(7));
        let bit = Written::Bit { area: Area::Markers, byte: 10, bit: 3, on: true };
        assert!(write(1, &bit).ends_with(&[0x12, 10, 0x10, 1, 0, 1, 0, 0, 0x83, 0, 0, 83, 0, 3, 0, 1, 1]));
    }

    #[test]
    fn answers_are_cut_into_items() {
        let spans = [
            Span { area: Area::Block(1), start: 0, count: 1 },
            Span { area: Area::Block(2), start: 0, count: 4 },
            Span { area: Area::Counters, start: 0, count: 1 },
        ];
        let data = [0xff, 4, 0, 8, 0x11, 0, 0x0a, 0, 0, 0, 0xff, 9, 0, 2, 1, 2];
        let mut pdu = vec![0x32, 3, 0, 0, 0, 9, 0, 2, 0, 16, 0, 0, 4, 3];
        pdu.extend(data);
        assert_eq!(check_read(&pdu, 9, &spans), Ok(vec![Ok(&[0x11][..]), Err(0x0a), Ok(&[1, 2][..])]));
        assert!(matches!(check_read(&pdu, 8, &spans), Err(Trouble::Malformed(_))));
        assert!(matches!(check_read(&pdu, 9, &spans[..2]), Err(Trouble::Malformed(_))));
        for end in 0..pdu.len() {
            assert!(check_read(&pdu[..end], 9, &spans).is_err(), "{end}");
        }
        pdu[10..12].copy_from_slice(&[0x81, 4]);
        assert_eq!(check_read(&pdu, 9, &spans), Err(Trouble::Refused(0x81, 4)));
        assert!(meaning(0x81, 4).contains("PUT/GET"));
    }

    /// Any bytes: no panic, no more than what was asked for.
    #[test]
    fn any_bytes_are_an_answer_or_an_error() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let spans = [
                Span { area: Area::Block(1), start: 0, count: 3 },
                Span { area: Area::Timers, start: 1, count: 1 },
            ];
            if let Ok(Some(length)) = packet_length(bytes) {
                assert!(length <= PACKET_BYTES_MAX);
            }
            drop(data_part(bytes));
            drop(check_connected(bytes));
            // Past the header, so that the fuzzer need not guess it.
            let mut pdu = vec![0x32, 3, 0, 0, 0, 1];
            pdu.extend(bytes);
            for pdu in [bytes.as_slice(), &pdu] {
                if let Ok(items) = check_read(pdu, 1, &spans) {
                    for (item, span) in items.iter().zip(&spans) {
                        assert!(item.is_err() || item.is_ok_and(|data| data.len() == span.bytes()));
                    }
                }
                drop(check_setup(pdu, 1, 960));
                drop(check_write(pdu, 1));
                drop(check_cpu_state(pdu, 1));
            }
        });
    }
}
