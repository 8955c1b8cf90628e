//! The three frames in which Modbus travels. Pure; every byte from the network is checked.
//!
//! ```text
//! TCP    transaction (2)  protocol 0 (2)  length (2)  unit (1)  PDU (1 to 253)
//! RTU    unit (1)  PDU  CRC-16 (2, low byte first)              its length follows from the function
//! ASCII  ':'  unit, PDU and LRC as hexadecimal digits  CR LF
//! ```

use super::pdu::PDU_BYTES_MAX;

/// How requests and answers are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Tcp,
    Rtu,
    Ascii,
}

/// The longest frame of any kind: ASCII, two digits per byte.
pub(super) const FRAME_BYTES_MAX: usize = 1 + (1 + PDU_BYTES_MAX + 1) * 2 + 2;

/// What the bytes received so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The beginning of a frame.
    More,
    /// A frame, and how many bytes it took.
    Frame { used: usize, transaction: Option<u16>, unit: u8, pdu: Vec<u8> },
    /// Not Modbus.
    Malformed(String),
}

impl Framing {
    /// Its name in configurations.
    pub(super) const ALL: [(&'static str, Framing); 3] =
        [("tcp", Framing::Tcp), ("rtu", Framing::Rtu), ("ascii", Framing::Ascii)];

    /// A frame around a PDU.
    pub(super) fn encode(self, transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
        match self {
            Framing::Tcp => {
                let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
                let mut frame = transaction.to_be_bytes().to_vec();
                frame.extend([0, 0]);
                frame.extend(length.to_be_bytes());
                frame.push(unit);
                frame.extend(pdu);
                frame
            }
            Framing::Rtu => {
                let mut frame = vec![unit];
                frame.extend(pdu);
                frame.extend(crc(&frame).to_le_bytes());
                frame
            }
            Framing::Ascii => {
                let mut bytes = vec![unit];
                bytes.extend(pdu);
                bytes.push(lrc(&bytes));
                let digit =
                    |half: u8| b"0123456789ABCDEF".get(usize::from(half & 15)).copied().unwrap_or(b'0');
                let mut frame = vec![b':'];
                frame.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
                frame.extend(b"\r\n");
                frame
            }
        }
    }

    /// Whether the bytes hold a frame at their beginning.
    pub(super) fn decode(self, bytes: &[u8]) -> Received {
        match self {
            Framing::Tcp => tcp(bytes),
            Framing::Rtu => rtu(bytes),
            Framing::Ascii => ascii(bytes),
        }
    }
}

fn malformed(text: impl Into<String>) -> Received {
    Received::Malformed(text.into())
}

fn tcp(bytes: &[u8]) -> Received {
    let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return Received::More };
    let [t1, t2, p1, p2, l1, l2, unit] = *head;
    if (p1, p2) != (0, 0) {
        return malformed("not the protocol number of Modbus TCP");
    }
    let length = usize::from(u16::from_be_bytes([l1, l2]));
    if !(2..=PDU_BYTES_MAX + 1).contains(&length) {
        return malformed(format!("a length of {length}"));
    }
    match rest.get(..length - 1) {
        None => Received::More,
        Some(pdu) => Received::Frame {
            used: 6 + length,
            transaction: Some(u16::from_be_bytes([t1, t2])),
            unit,
            pdu: pdu.to_vec(),
        },
    }
}

fn rtu(bytes: &[u8]) -> Received {
    let [unit, function, rest @ ..] = bytes else { return Received::More };
    let pdu_length = match function {
        0x80.. => 2,
        1..=4 | 23 => match rest.first() {
            None => return Received::More,
            Some(count) => 2 + usize::from(*count),
        },
        5 | 6 | 15 | 16 => 5,
        22 => 7,
        _ => return malformed(format!("an answer of function {function}")),
    };
    if pdu_length > PDU_BYTES_MAX {
        return malformed(format!("a length of {pdu_length}"));
    }
    let end = 1 + pdu_length;
    let (Some(frame), Some(sum)) = (bytes.get(..end), bytes.get(end..end + 2)) else { return Received::More };
    if crc(frame).to_le_bytes() != *sum {
        return malformed("the checksum does not fit");
    }
    let pdu = frame.get(1..).unwrap_or_default().to_vec();
    Received::Frame { used: end + 2, transaction: None, unit: *unit, pdu }
}

fn ascii(bytes: &[u8]) -> Received {
    match bytes.first() {
        None => return Received::More,
        Some(b':') => {}
        Some(_) => return malformed("a frame that does not begin with a colon"),
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_too_long = bytes.len() >= FRAME_BYTES_MAX;
        return if is_too_long { malformed("a frame without end") } else { Received::More };
    };
    let digits = bytes.get(1..end).and_then(|line| line.strip_suffix(b"\r")).unwrap_or_default();
    let (pairs, odd) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let decoded: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    match decoded.as_deref() {
        Some([unit, pdu @ .., sum]) if odd.is_empty() && !pdu.is_empty() && pdu.len() <= PDU_BYTES_MAX => {
            let summed = pdu.iter().fold(*unit, |sum, byte| sum.wrapping_add(*byte));
            if summed.wrapping_neg() != *sum {
                return malformed("the checksum does not fit");
            }
            Received::Frame { used: end + 1, transaction: None, unit: *unit, pdu: pdu.to_vec() }
        }
        _ => malformed("a line that is no frame"),
    }
}

/// CRC-16 of Modbus: polynomial 0xA001 reflected, from 0xFFFF.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xa001 } else { sum >> 1 })
    })
}

/// Two's complement of the sum of all bytes.
fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::super::address::{Span, Table};
    use super::super::pdu::Request;
    use super::*;

    /// The examples of "Modbus over serial line" and of the application protocol's function 3.
    #[test]
    fn frames_are_as_in_the_specification() {
        let pdu = [3, 0, 0x6b, 0, 3];
        assert_eq!(Framing::Rtu.encode(0, 0x11, &pdu), [0x11, 3, 0, 0x6b, 0, 3, 0x76, 0x87]);
        assert_eq!(Framing::Ascii.encode(0, 0x11, &pdu), b":1103006B00037E\r\n");
        let expected = [0x15, 0x01, 0, 0, 0, 6, 0x11, 3, 0, 0x6b, 0, 3];
        assert_eq!(Framing::Tcp.encode(0x1501, 0x11, &pdu), expected);
    }

    #[test]
    fn answers_come_back_from_every_frame_byte_by_byte() {
        let answers: [&[u8]; 5] =
            [&[3, 4, 1, 2, 3, 4], &[1, 1, 5], &[0x83, 2], &[16, 0, 1, 0, 2], &[22, 0, 4, 0, 0xf2, 0, 0x25]];
        for (_, framing) in Framing::ALL {
            for answer in answers {
                let mut bytes = framing.encode(7, 9, answer);
                for end in 0..bytes.len() {
                    assert_eq!(framing.decode(&bytes[..end]), Received::More, "{framing:?} {answer:?} {end}");
                }
                let length = bytes.len();
                bytes.extend([1, 2, 3]);
                let Received::Frame { used, transaction, unit, pdu } = framing.decode(&bytes) else {
                    panic!("{framing:?} {answer:?}")
                };
                assert_eq!((used, unit, pdu.as_slice()), (length, 9, answer));
                assert_eq!(transaction, (framing == Framing::Tcp).then_some(7));
                bytes[length - 3] ^= 0x11;
                if framing != Framing::Tcp {
                    assert!(
                        matches!(framing.decode(&bytes), Received::Malformed(_)),
                        "{framing:?} {answer:?}"
                    );
                }
            }
        }
    }

    /// Any bytes: no panic, and what is accepted is a frame that encodes to the same.
    #[test]
    fn any_bytes_are_a_frame_or_an_error() {
        bolero::check!().with_type::<(u8, Vec<u8>)>().for_each(|(which, bytes)| {
            let framing = Framing::ALL[usize::from(*which) % 3].1;
            if let Received::Frame { used, transaction, unit, pdu } = framing.decode(bytes) {
                assert!(used <= bytes.len() && (1..=PDU_BYTES_MAX).contains(&pdu.len()));
                let again = framing.encode(transaction.unwrap_or(0), unit, &pdu);
                assert!(again.eq_ignore_ascii_case(&bytes[..used]));
                for span in [(Table::Coils, 9), (Table::HoldingRegisters, 3)] {
                    let request = Request::Read(Span { table: span.0, start: 1, count: span.1 });
                    if let Ok(Ok(cells)) = request.check(&pdu) {
                        assert_eq!(cells.len(), usize::from(span.1));
                    }
                }
            }
        });
    }
}
