//! CIP as Logix controllers speak it, without I/O. Every length and code from the network is checked. Little-endian.
//!
//! ```text
//! request  service  words of the path  path  data
//! answer   service | 0x80  0  general status  words of extended status  extended status (2 each)  data
//! path     0x20 class  0x24 instance  0x25 0 instance (2)  0x30 attribute       0x91 length name, filled to even
//!          0x28 element  0x29 0 element (2)  0x2A 0 element (4)
//! read     0x4C  count (2)              → type (2) [structure's handle (2) if the type is 0x02A0]  data
//! go on    0x52  count (2)  offset (4)  → the same, from that byte on; status 6: there is more
//! write    0x4D  type [handle]  count (2)  data
//! bits     0x4E  bytes of a mask (2)  mask to set  mask to keep
//! several  0x0A  count (2)  offsets (2 each, from the count on)  requests  →  count  offsets  answers
//! ```

pub(super) const ATTRIBUTE_LIST: u8 = 0x03;
pub(super) const SEVERAL: u8 = 0x0a;
pub(super) const ONE_ATTRIBUTE: u8 = 0x0e;
pub(super) const READ: u8 = 0x4c;
pub(super) const WRITE: u8 = 0x4d;
pub(super) const CHANGE_BITS: u8 = 0x4e;
pub(super) const READ_ON: u8 = 0x52;
pub(super) const INSTANCE_ATTRIBUTES: u8 = 0x55;

/// A structure; its handle follows.
pub(super) const STRUCTURE: u16 = 0x02a0;

/// What several requests in one cost beside themselves: asked, answered, and both for each.
pub(super) const SEVERAL_ASKED: usize = 8;
pub(super) const SEVERAL_ANSWERED: usize = 6;
pub(super) const EACH: usize = 2;
/// What a read costs beside its path, and its answer beside the data.
pub(super) const READ_ASKED: usize = 4;
pub(super) const READ_ANSWERED: usize = 8;

/// A path in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<u8>);

impl Path {
    /// An instance of a class.
    pub(super) fn instance(class: u8, instance: u16) -> Path {
        let [low, high] = instance.to_le_bytes();
        let segment = if high == 0 { vec![0x24, low] } else { vec![0x25, 0, low, high] };
        Path([vec![0x20, class], segment].concat())
    }

    /// A name of at most 255 bytes behind it.
    pub(super) fn name(mut self, name: &str) -> Path {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.0.extend([0x91, length]);
        self.0.extend(name.bytes().take(length.into()));
        if self.0.len() % 2 == 1 {
            self.0.push(0);
        }
        self
    }

    /// An element behind it.
    pub(super) fn element(mut self, number: u32) -> Path {
        match (u8::try_from(number), u16::try_from(number)) {
            (Ok(byte), _) => self.0.extend([0x28, byte]),
            (_, Ok(word)) => {
                self.0.extend([0x29, 0]);
                self.0.extend(word.to_le_bytes());
            }
            _ => {
                self.0.extend([0x2a, 0]);
                self.0.extend(number.to_le_bytes());
            }
        }
        self
    }

    /// An attribute of it.
    pub(super) fn attribute(mut self, number: u8) -> Path {
        self.0.extend([0x30, number]);
        self
    }

    /// This and what follows.
    pub(super) fn then(mut self, other: &Path) -> Path {
        self.0.extend(&other.0);
        self
    }

    /// Its bytes, always an even number.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The longest path, in bytes: its words are counted in one byte.
pub(super) const PATH_BYTES_MAX: usize = 510;

pub(super) fn request(service: u8, path: &Path, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![service, u8::try_from(path.len() / 2).unwrap_or(u8::MAX)];
    bytes.extend(path.bytes());
    bytes.extend(data);
    bytes
}

pub(super) fn read(path: &Path, count: u16) -> Vec<u8> {
    request(READ, path, &count.to_le_bytes())
}

pub(super) fn read_on(path: &Path, count: u16, offset: u32) -> Vec<u8> {
    let mut data = count.to_le_bytes().to_vec();
    data.extend(offset.to_le_bytes());
    request(READ_ON, path, &data)
}

pub(super) fn write(path: &Path, held: Held, count: u16, bytes: &[u8]) -> Vec<u8> {
    let mut data = held.code.to_le_bytes().to_vec();
    if held.code == STRUCTURE {
        data.extend(held.handle.to_le_bytes());
    }
    data.extend(count.to_le_bytes());
    data.extend(bytes);
    request(WRITE, path, &data)
}

/// Sets or clears one bit of a number of so many bytes; the controller does it in one step.
pub(super) fn change_bit(path: &Path, bytes: usize, bit: u8, on: bool) -> Vec<u8> {
    let mask = 1_u64 << (bit % 64);
    let (set, keep) = if on { (mask, u64::MAX) } else { (0, !mask) };
    let mut data = u16::try_from(bytes).unwrap_or_default().to_le_bytes().to_vec();
    for mask in [set, keep] {
        data.extend(mask.to_le_bytes().iter().take(bytes));
    }
    request(CHANGE_BITS, path, &data)
}

/// Several requests in one, for the controller's message router.
pub(super) fn several(requests: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(requests.len()).unwrap_or(u16::MAX);
    let mut data = count.to_le_bytes().to_vec();
    let mut offset = 2 + 2 * requests.len();
    for request in requests {
        data.extend(u16::try_from(offset).unwrap_or(u16::MAX).to_le_bytes());
        offset += request.len();
    }
    data.extend(requests.concat());
    request(SEVERAL, &Path::instance(2, 1), &data)
}

/// A controller's status: 0 is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) general: u8,
    pub(super) extended: u16,
}

impl Status {
    /// Done.
    pub(super) fn is_ok(self) -> bool {
        self.general == 0
    }

    /// There is more than fits into one answer.
    pub(super) fn is_partial(self) -> bool {
        self.general == 6
    }

    /// One number for it: the extended one where the general one says nothing.
    pub(super) fn code(self) -> u16 {
        if self.general == 0xff { self.extended } else { self.general.into() }
    }

    /// For people.
    pub(super) fn meaning(self) -> String {
        let text = match (self.general, self.extended) {
            (0x01, 0x0103) => "this kind of connection is not supported",
            (0x01, 0x0107) => "the connection was not found",
            (0x01, 0x0109 | 0x0127 | 0x0128) => "the connection's size is not supported",
            (0x01, 0x0113) => "the controller has no connection left",
            (0x01, 0x0204 | 0x0205) => "nothing answers at the end of the route: is the slot right?",
            (0x01, 0x0311 | 0x0312 | 0x0315 | 0x0318) => "the route leads nowhere: is the slot right?",
            (0x01, _) => "the connection to the controller failed",
            (0x02, _) => "the controller has no room for it now",
            (0x04 | 0x05, _) => "there is no such tag, or its External Access is None",
            (0x06, _) => "it is more than fits into an answer",
            (0x08, _) => "the controller does not know this service",
            (0x0a | 0x16, _) => "there is no such object",
            (0x0c, _) => "the object's state does not allow it",
            (0x0e, _) => "it cannot be changed",
            (0x0f, _) => "access is denied",
            (0x10, _) => "the controller's state does not allow it: is its key switch in RUN?",
            (0x11, _) => "the answer would be too long",
            (0x13 | 0x15, _) => "the request has not the length that the controller expects",
            (0x1e, _) => "some of the requests were refused",
            (0x26, _) => "the path has not the length that the controller expects",
            (0xff, 0x2104) => "it begins behind the end of the tag",
            (0xff, 0x2105) => "it ends behind the end of the tag",
            (0xff, 0x2107) => "the tag is of another type",
            _ => "the controller refused it",
        };
        format!("{text} (status {:#04x}, {:#06x})", self.general, self.extended)
    }
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: Status,
    pub(super) data: &'a [u8],
}

/// The answer to a request of this service.
pub(super) fn answer(bytes: &[u8], service: u8) -> Result<Answer<'_>, String> {
    let Some(([answered, _, general, words], rest)) = bytes.split_first_chunk::<4>() else {
        return Err("an answer that is cut".into());
    };
    if *answered != service | 0x80 {
        return Err(format!("the answer to service {:#04x} instead of {service:#04x}", answered & 0x7f));
    }
    let Some((extended, data)) = rest.split_at_checked(usize::from(*words) * 2) else {
        return Err("a status that is cut".into());
    };
    let extended = extended.first_chunk().map_or(0, |two| u16::from_le_bytes(*two));
    Ok(Answer { status: Status { general: *general, extended }, data })
}

/// The answers in the answer to [`several`], one for each of these services.
pub(super) fn answers<'a>(data: &'a [u8], services: &[u8]) -> Result<Vec<Answer<'a>>, String> {
    let word = |at: usize| {
        data.get(at..at + 2).and_then(|two| two.first_chunk()).map(|two| u16::from_le_bytes(*two))
    };
    if word(0).map(usize::from) != Some(services.len()) {
        return Err("another number of answers".into());
    }
    let mut found = Vec::with_capacity(services.len());
    for (nth, service) in services.iter().enumerate() {
        let begin = word(2 + 2 * nth).map(usize::from).ok_or("offsets that are cut")?;
        let is_last = nth + 1 == services.len();
        let end = if is_last {
            data.len()
        } else {
            word(4 + 2 * nth).map(usize::from).ok_or("offsets that are cut")?
        };
        let bytes = data.get(begin..end).ok_or("offsets that lead out of the answer")?;
        found.push(answer(bytes, *service)?);
    }
    Ok(found)
}

/// What a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) code: u16,
    /// Of a structure, else 0.
    pub(super) handle: u16,
}

/// The type of what was read, and its bytes.
pub(super) fn typed(data: &[u8]) -> Option<(Held, &[u8])> {
    let (code, rest) = data.split_first_chunk()?;
    let code = u16::from_le_bytes(*code);
    if code != STRUCTURE {
        return Some((Held { code, handle: 0 }, rest));
    }
    let (handle, rest) = rest.split_first_chunk()?;
    Some((Held { code, handle: u16::from_le_bytes(*handle) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_on_the_wire() {
        let path = Path::default().name("Rate").element(300);
        assert_eq!(read(&path, 1), [0x4c, 5, 0x91, 4, b'R', b'a', b't', b'e', 0x29, 0, 44, 1, 1, 0]);
        let path = Path::default().name("Odd").element(3).name("X");
        assert_eq!(path.bytes(), [0x91, 3, b'O', b'd', b'd', 0, 0x28, 3, 0x91, 1, b'X', 0]);
        assert_eq!(Path::instance(0x6b, 0x1234).bytes(), [0x20, 0x6b, 0x25, 0, 0x34, 0x12]);
        let tag = Path::default().name("Ab");
        assert_eq!(change_bit(&tag, 2, 9, true)[6..], [2, 0, 0, 2, 0xff, 0xff]);
        assert_eq!(change_bit(&tag, 2, 9, false)[6..], [2, 0, 0, 0, 0xff, 0xfd]);
        let both = several(&[read(&tag, 1), read(&tag, 2)]);
        let (head, requests) = both.split_at(12);
        assert_eq!(head, [0x0a, 2, 0x20, 2, 0x24, 1, 2, 0, 6, 0, 14, 0]);
        assert_eq!(requests, [read(&tag, 1), read(&tag, 2)].concat());
    }

    #[test]
    fn answers_are_cut_at_their_offsets() {
        let data = [2, 0, 6, 0, 14, 0, 0xcc, 0, 0, 0, 0xc3, 0, 7, 0, 0xcc, 0, 5, 1, 0, 0];
        let found = answers(&data, &[READ, READ]).unwrap();
        assert_eq!(found[0].data, [0xc3, 0, 7, 0]);
        assert_eq!(typed(found[0].data), Some((Held { code: 0xc3, handle: 0 }, &[7, 0][..])));
        assert_eq!(found[1].status, Status { general: 5, extended: 0 });
        assert!(answers(&data, &[READ]).is_err() && answers(&data, &[READ, WRITE]).is_err());
        for end in 0..data.len() {
            assert!(answers(&data[..end], &[READ, READ]).is_err(), "{end}");
        }
    }

    /// Any bytes: no panic, and nothing that is not among them.
    #[test]
    fn any_bytes_are_an_answer_or_an_error() {
        bolero::check!().with_type::<(Vec<u8>, u8)>().for_each(|(bytes, count)| {
            let services = vec![READ; usize::from(count % 5)];
            // Past the header, so that the fuzzer need not guess it.
            let framed = [&[count % 5, 0][..], bytes].concat();
            for bytes in [bytes, &framed] {
                if let Ok(found) = answers(bytes, &services) {
                    assert_eq!(found.len(), services.len());
                    assert!(found.iter().all(|answer| answer.data.len() < bytes.len()));
                }
                if let Ok(found) = answer(bytes, READ) {
                    drop(found.status.meaning());
                    assert!(typed(found.data).is_none_or(|(_, rest)| rest.len() < found.data.len()));
                }
            }
        });
    }
}
