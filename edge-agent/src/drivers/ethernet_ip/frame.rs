//! The encapsulation that carries CIP over TCP, without I/O. Every length and code from the network is checked.
//!
//! ```text
//! header      command (2)  length (2)  session (4)  status (4)  context (8)  options (4)  data
//! 0x65        registers a session: version 1 (2)  0 (2)
//! 0x6F        a message without connection: 0 (4)  0 (2)  items: 2 (2) | 0 (2) 0 (2) | 0xB2 (2) length (2) message
//! 0x70        a message of a connection:    0 (4)  0 (2)  items: 2 (2) | 0xA1 (2) 4 (2) connection (4)
//!                                                                      | 0xB1 (2) length (2) number (2) message
//! ```

use super::cip::{self, Path};

pub(super) const HEADER: usize = 24;
/// Header and data of the longest answer that is taken: a large connection's, and some room.
pub(super) const FRAME_BYTES_MAX: usize = 8192;

pub(super) const REGISTER: u16 = 0x65;
pub(super) const UNREGISTER: u16 = 0x66;
pub(super) const UNCONNECTED: u16 = 0x6f;
pub(super) const CONNECTED: u16 = 0x70;

/// Bytes beside the message in [`by_route`], without the route; one of them fills up.
pub(super) const ROUTED: usize = 2 + 4 + 2 + 2 + 1 + 2;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) command: u16,
    pub(super) session: u32,
    pub(super) status: u32,
    pub(super) context: u64,
    pub(super) data: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.command.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(self.data.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(self.status.to_le_bytes());
        bytes.extend(self.context.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.data);
        bytes
    }
}

/// The length of the frame whose first bytes these are; none if there are too few yet.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let command = u16::from_le_bytes([head[0], head[1]]);
    let length = HEADER + usize::from(u16::from_le_bytes([head[2], head[3]]));
    if !matches!(command, REGISTER | UNCONNECTED | CONNECTED) {
        return Err("not EtherNet/IP".into());
    }
    if length > FRAME_BYTES_MAX {
        return Err(format!("a frame of {length} bytes"));
    }
    Ok(Some(length))
}

/// A whole frame.
pub(super) fn parse(bytes: &[u8]) -> Result<Frame<'_>, String> {
    let (head, data) = bytes.split_first_chunk::<HEADER>().ok_or("a frame that is cut")?;
    let four = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|four| four.first_chunk());
        bytes.map_or(0, |four| u32::from_le_bytes(*four))
    };
    Ok(Frame {
        command: u16::from_le_bytes([head[0], head[1]]),
        session: four(4),
        status: four(8),
        context: u64::from(four(12)) | u64::from(four(16)) << 32,
        data,
    })
}

/// The data of a message without connection.
pub(super) fn unconnected(message: &[u8]) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0xb2, 0];
    data.extend(u16::try_from(message.len()).unwrap_or(u16::MAX).to_le_bytes());
    data.extend(message);
    data
}

/// The data of a connection's message.
pub(super) fn connected(connection: u32, number: u16, message: &[u8]) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 0, 0, 0, 2, 0, 0xa1, 0, 4, 0];
    data.extend(connection.to_le_bytes());
    data.extend([0xb1, 0]);
    data.extend(u16::try_from(message.len() + 2).unwrap_or(u16::MAX).to_le_bytes());
    data.extend(number.to_le_bytes());
    data.extend(message);
    data
}

/// What a frame's items carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    Unconnected(&'a [u8]),
    /// Connection, number, message.
    Connected(u32, u16, &'a [u8]),
}

/// The message in the data of a frame.
pub(super) fn carried(data: &[u8]) -> Result<Carried<'_>, String> {
    let items = data.get(6..).ok_or("items that are cut")?;
    let (count, rest) = word(items).ok_or("items that are cut")?;
    if count < 2 {
        return Err(format!("{count} items"));
    }
    let (address_kind, address, rest) = item(rest).ok_or("an item that is cut")?;
    let (kind, message, _) = item(rest).ok_or("an item that is cut")?;
    match (address_kind, address.first_chunk(), kind) {
        (0, _, 0xb2) => Ok(Carried::Unconnected(message)),
        (0xa1, Some(connection), 0xb1) => {
            let (number, message) = word(message).ok_or("a message without its number")?;
            Ok(Carried::Connected(u32::from_le_bytes(*connection), number, message))
        }
        _ => Err(format!("items of kinds {address_kind:#x} and {kind:#x}")),
    }
}

fn word(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk().map(|(two, rest)| (u16::from_le_bytes(*two), rest))
}

fn item(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = word(bytes)?;
    let (length, rest) = word(rest)?;
    let (data, rest) = rest.split_at_checked(length.into())?;
    Some((kind, data, rest))
}

/// The way from the Ethernet port to the controller: ports and links.
pub(super) fn by_route(message: &[u8], route: &[u8]) -> Vec<u8> {
    let mut data = vec![0x0a, 0x0e]; // 14 ticks of 1024 ms
    data.extend(u16::try_from(message.len()).unwrap_or(u16::MAX).to_le_bytes());
    data.extend(message);
    if message.len() % 2 == 1 {
        data.push(0);
    }
    data.extend([u8::try_from(route.len() / 2).unwrap_or(u8::MAX), 0]);
    data.extend(route);
    cip::request(BY_ROUTE, &Path::instance(6, 1), &data)
}

pub(super) const BY_ROUTE: u8 = 0x52;
pub(super) const OPEN: u8 = 0x54;
pub(super) const OPEN_LARGE: u8 = 0x5b;
pub(super) const CLOSE: u8 = 0x4e;
/// Bytes of a message, with its number, that a small connection carries.
pub(super) const SMALL: u16 = 500;
/// How often a connection says that it lives, at least: it dies after 512 times that.
const INTERVAL_MICROS: u32 = 2_000_000;
/// The number of a vendor that is none; with the serial number it names the originator.
const VENDOR: u16 = 0xfffe;

/// Numbers of ours that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The controller puts it on its answers.
    pub(super) answers: u32,
    pub(super) serial: u16,
    pub(super) originator: u32,
}

/// Asks for a connection whose messages have so many bytes.
pub(super) fn open(names: Names, size: u16, route: &[u8]) -> Vec<u8> {
    let is_large = size > 511;
    let parameters = if is_large {
        (0x4200_0000 | u32::from(size)).to_le_bytes().to_vec()
    } else {
        (0x4200 | size).to_le_bytes().to_vec()
    };
    let mut data = vec![0x0a, 0x0e, 0, 0, 0, 0];
    data.extend(names.answers.to_le_bytes());
    data.extend(names.serial.to_le_bytes());
    data.extend(VENDOR.to_le_bytes());
    data.extend(names.originator.to_le_bytes());
    data.extend([7, 0, 0, 0]);
    for _ in 0..2 {
        data.extend(INTERVAL_MICROS.to_le_bytes());
        data.extend(&parameters);
    }
    data.push(0xa3); // a server's class 3, as the application asks
    let path = [route, Path::instance(2, 1).bytes()].concat();
    data.push(u8::try_from(path.len() / 2).unwrap_or(u8::MAX));
    data.extend(path);
    cip::request(if is_large { OPEN_LARGE } else { OPEN }, &Path::instance(6, 1), &data)
}

/// The controller's name of the connection.
pub(super) fn opened(data: &[u8]) -> Result<u32, String> {
    data.first_chunk().map(|four| u32::from_le_bytes(*four)).ok_or_else(|| "a connection without name".into())
}

/// Ends a connection.
pub(super) fn close(names: Names, route: &[u8]) -> Vec<u8> {
    let mut data = vec![0x0a, 0x0e];
    data.extend(names.serial.to_le_bytes());
    data.extend(VENDOR.to_le_bytes());
    data.extend(names.originator.to_le_bytes());
    let path = [route, Path::instance(2, 1).bytes()].concat();
    data.extend([u8::try_from(path.len() / 2).unwrap_or(u8::MAX), 0]);
    data.extend(path);
    cip::request(CLOSE, &Path::instance(6, 1), &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let data = connected(0x0102_0304, 7, &[1, 2, 3]);
        assert_eq!(carried(&data), Ok(Carried::Connected(0x0102_0304, 7, &[1, 2, 3])));
        assert_eq!(carried(&unconnected(&[9])), Ok(Carried::Unconnected(&[9])));
        let frame = Frame { command: CONNECTED, session: 5, status: 0, context: 1 << 40 | 6, data: &data };
        let bytes = frame.bytes();
        assert_eq!(length(&bytes), Ok(Some(bytes.len())));
        assert_eq!(parse(&bytes), Ok(frame));
        for end in 0..data.len() {
            assert!(carried(&data[..end]).is_err(), "{end}");
        }
        assert!(length(&[0x70, 0, 0xff, 0xff]).is_err());
        assert!(length(b"HTTP").is_err());
    }

    #[test]
    fn an_odd_message_is_filled_for_the_route() {
        let bytes = by_route(&[1, 2, 3], &[1, 0]);
        assert_eq!(bytes, [0x52, 2, 0x20, 6, 0x24, 1, 0x0a, 0x0e, 3, 0, 1, 2, 3, 0, 1, 0, 1, 0]);
        assert_eq!(bytes.len(), ROUTED + 3 + 2);
    }

    /// Any bytes: no panic, and nothing that is not among them.
    #[test]
    fn any_bytes_are_a_frame_or_an_error() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            if let Ok(Some(length)) = length(bytes) {
                assert!((HEADER..=FRAME_BYTES_MAX).contains(&length));
            }
            if let Ok(frame) = parse(bytes) {
                assert!(frame.data.len() + HEADER == bytes.len());
                drop(carried(frame.data));
            }
            drop(carried(bytes));
            // Past the constant part, so that the fuzzer need not guess it.
            let framed = [&[0, 0, 0, 0, 0, 0, 2, 0, 0xa1, 0, 4, 0][..], bytes].concat();
            drop(carried(&framed));
            drop(opened(bytes));
        });
    }
}
