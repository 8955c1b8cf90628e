//! The frame of one record; `docs/specs/log_format.md` draws it.
//!
//! ```text
//! 0      4      8       12
//! | length | crc | flags | payload … |      little endian
//! ```
//! `crc` is CRC32C over: epoch, first position of the segment, byte offset of the frame in its file, length, flags,
//! payload. The first three are not stored: bytes that belong to another place never pass for a record here.
//! The upper 24 bits of `flags` are the record's number in its segment, modulo 2^24: behind a damaged place the next
//! whole frame says which position it has.

/// Bytes before the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 12;

/// The next frame belongs to the same group.
pub(crate) const FLAG_MORE: u32 = 1;
/// All bytes before this frame were durable when it was written: a hole before it is damage, not a torn write.
pub(crate) const FLAG_AFTER_SYNC: u32 = 2;
/// Stands in for a record that was damaged: a repair put it here, its payload is padding.
pub(crate) const FLAG_HOLE: u32 = 4;
const FLAGS_KNOWN: u32 = FLAG_MORE | FLAG_AFTER_SYNC | FLAG_HOLE;
/// The flags proper; the rest of the word is the record's number.
const FLAGS_MASK: u32 = 0xff;
/// Records of a segment are numbered modulo this.
pub(crate) const NUMBERS: u64 = 1 << 24;

/// The part of the checksum that all frames of a segment share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(epoch: u64, first: u64) -> Seed {
        Seed(crc32c::crc32c_append(crc32c::crc32c(&epoch.to_le_bytes()), &first.to_le_bytes()))
    }

    fn checksum(self, offset: u64, length: u32, flags: u32, payload: &[u8]) -> u32 {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&offset.to_le_bytes());
        head[8..12].copy_from_slice(&length.to_le_bytes());
        head[12..].copy_from_slice(&flags.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &head), payload)
    }
}

/// Bytes that a record takes in the file.
pub(crate) fn frame_bytes(payload: usize) -> u64 {
    (FRAME_HEADER_BYTES + payload) as u64
}

/// The word that holds flags and the number of a record in its segment.
fn word(flags: u32, number: u64) -> u32 {
    flags | u32::try_from(number % NUMBERS).unwrap_or(0) << 8
}

/// Appends the frame of `payload`, which will stand at `offset` of its file as record `number` of its segment. Its
/// length was checked before.
pub(crate) fn encode(into: &mut Vec<u8>, seed: Seed, offset: u64, flags: u32, number: u64, payload: &[u8]) {
    let flags = word(flags, number);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    debug_assert_eq!(length as usize, payload.len());
    into.reserve(FRAME_HEADER_BYTES + payload.len());
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&seed.checksum(offset, length, flags, payload).to_le_bytes());
    into.extend_from_slice(&flags.to_le_bytes());
    into.extend_from_slice(payload);
}

/// What a frame says of itself, not yet checked against its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) flags: u32,
    /// Modulo [`NUMBERS`]; 0 in segments of version 1, which have no numbers.
    pub(crate) number: u64,
    crc: u32,
}

impl FrameHeader {
    /// Reads the first bytes of a frame; `None` if there are too few or a flag is unknown.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (flags, _payload) = rest.split_first_chunk::<4>()?;
        let flags = u32::from_le_bytes(*flags);
        (flags & FLAGS_MASK & !FLAGS_KNOWN == 0).then(|| FrameHeader {
            length: u32::from_le_bytes(*length),
            flags: flags & FLAGS_MASK,
            number: u64::from(flags >> 8),
            crc: u32::from_le_bytes(*crc),
        })
    }

    /// Bytes of header and payload.
    pub(crate) fn bytes(self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Whether `payload` at `offset` is what was written.
    pub(crate) fn fits(self, seed: Seed, offset: u64, payload: &[u8]) -> bool {
        seed.checksum(offset, self.length, word(self.flags, self.number), payload) == self.crc
    }
}
