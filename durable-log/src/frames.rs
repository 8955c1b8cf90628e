//! Reads the frames of one segment in large pieces; shared by readers, recovery and verification.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::Position;
use crate::record::{FLAG_HOLE, FRAME_HEADER_BYTES, FrameHeader, NUMBERS, Seed};
use crate::segment::{Place, Segment};
use crate::storage::{StorageFile, read_full};

/// One read from the disk, if no record is larger.
const CHUNK_BYTES: usize = 256 * 1024;

/// A position in one segment file, with what was read ahead.
#[derive(Debug)]
pub(crate) struct Frames {
    file: Arc<dyn StorageFile>,
    seed: Seed,
    buffer: Vec<u8>,
    /// What of `buffer` was read and not yet handed out; its first byte stands at `offset` of the file.
    ready: Range<usize>,
    offset: u64,
    /// Number of the next frame in its segment, if the segment has numbers.
    number: Option<u64>,
    /// Nothing at or beyond this byte is looked at.
    limit: u64,
}

/// A checked frame; the payload is in the buffer until the next one is asked for.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) at: u64,
    pub(crate) flags: u32,
    /// Empty for a hole.
    pub(crate) payload: Range<usize>,
}

/// Why there is no frame.
#[derive(Debug)]
pub(crate) enum FrameFault {
    Read(io::Error),
    Bad(&'static str),
}

impl Frames {
    /// Frames from a place of a segment up to byte `limit`; `buffer` is a used one or empty.
    pub(crate) fn new(
        file: Arc<dyn StorageFile>,
        segment: &Segment,
        from: Place,
        limit: u64,
        buffer: Vec<u8>,
    ) -> Frames {
        let Position(first) = segment.header.first;
        let number = segment.header.has_numbers().then(|| from.position.0.saturating_sub(first));
        Frames { file, seed: segment.seed, buffer, ready: 0..0, offset: from.byte, number, limit }
    }

    /// The byte at which the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// More of the file may be read now.
    pub(crate) fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The bytes of a payload that [`Frames::next`] gave last.
    pub(crate) fn payload(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Gives the buffer back for the next segment.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// The next frame; `None` exactly at the limit. After a fault the offset still names the bad frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameFault> {
        let left = self.limit.saturating_sub(self.offset);
        if left == 0 {
            return Ok(None);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Err(FrameFault::Bad("the file ends within a frame header"));
        }
        self.fill(FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::decode(self.ready_bytes()) else {
            return Err(FrameFault::Bad("not a frame header"));
        };
        if header.bytes() > left {
            return Err(FrameFault::Bad("a frame reaches beyond the end of the file"));
        }
        let bytes =
            usize::try_from(header.bytes()).map_err(|_| FrameFault::Bad("a frame larger than memory"))?;
        self.fill(bytes)?;
        let payload = self.ready.start + FRAME_HEADER_BYTES..self.ready.start + bytes;
        if !header.fits(self.seed, self.offset, self.payload(payload.clone())) {
            return Err(FrameFault::Bad("the checksum of a frame does not fit"));
        }
        if let Some(number) = &mut self.number {
            if header.number != *number % NUMBERS {
                return Err(FrameFault::Bad("a frame has another number than its place"));
            }
            *number += 1;
        }
        let at = self.offset;
        self.ready.start += bytes;
        self.offset += bytes as u64;
        let payload = if header.flags & FLAG_HOLE == 0 { payload } else { payload.start..payload.start };
        Ok(Some(Frame { at, flags: header.flags, payload }))
    }

    fn ready_bytes(&self) -> &[u8] {
        self.payload(self.ready.clone())
    }

    /// Has at least `wanted` bytes ready; the caller checked that the limit allows them.
    fn fill(&mut self, wanted: usize) -> Result<(), FrameFault> {
        if self.ready.len() >= wanted {
            return Ok(());
        }
        self.buffer.copy_within(self.ready.clone(), 0);
        self.ready = 0..self.ready.len();
        let left = usize::try_from(self.limit - self.offset).unwrap_or(usize::MAX);
        let target = left.min(wanted.max(CHUNK_BYTES));
        if self.buffer.len() < target {
            self.buffer.resize(target, 0);
        }
        let from = self.offset + self.ready.len() as u64;
        let space = self.buffer.get_mut(self.ready.end..target).unwrap_or_default();
        let read = read_full(&*self.file, space, from).map_err(FrameFault::Read)?;
        self.ready.end += read;
        if self.ready.len() >= wanted {
            Ok(())
        } else {
            Err(FrameFault::Bad("the file is shorter than it was"))
        }
    }
}
