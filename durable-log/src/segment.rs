//! One segment file: its name, its header, its place in the chain and its sparse index.
//!
//! ```text
//!  0  magic "FOREBAYL"      8  version u32     12  header bytes u32
//! 16  epoch u64            24  first position u64
//! 32  first position of the previous segment u64 (all ones: none)
//! 40  bytes of the previous segment u64
//! 48  epoch of the previous segment u64 (0: none, or version 1)
//! 56  reserved, zero       60  CRC32C of bytes 0..60
//! ```
//! Magic, version and the checksum's place stay where they are in every later version.
//! Version 1 had no epoch there, and no numbers in its frames; it is read, no longer written.
//! The header is durable before the file gets its name, so a bad one is damage, never a torn write.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::record::Seed;
use crate::storage::{Storage, StorageFile, read_full, write_full};
use crate::{LogError, Position};

/// Bytes before the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = HEADER_BYTES as u64;
/// The version that this program writes.
pub(crate) const VERSION: u32 = 2;
/// The version without numbers in frames.
const WITHOUT_NUMBERS: u32 = 1;

pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"FOREBAYL";
const NONE: u64 = u64::MAX;
const SUFFIX: &str = ".log";
/// A segment that has no name yet.
pub(crate) const UNFINISHED_SUFFIX: &str = ".new";
/// One entry of the index per so many bytes: one read of `frames` finds any record.
pub(crate) const INDEX_STEP_BYTES: u64 = 256 * 1024;

/// What a reader or an operator may know of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// The epoch of the opening that wrote it.
    pub epoch: u64,
    /// First position.
    pub first: Position,
    /// End (exclusive) of what is durable.
    pub end: Position,
    /// Durable bytes, header included.
    pub bytes: u64,
    /// Whether a later segment exists, so that this one never grows again.
    pub sealed: bool,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) epoch: u64,
    pub(crate) first: Position,
    pub(crate) previous: Option<Previous>,
    /// Of the previous segment: a second copy, in case the header there is damaged.
    pub(crate) previous_epoch: u64,
    pub(crate) version: u32,
}

/// The segment before: proves on opening that none is missing or cut, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) first: Position,
    pub(crate) bytes: u64,
}

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Bad(&'static str),
    Newer(u32),
}

impl Header {
    /// Of a new segment.
    pub(crate) fn new(
        epoch: u64,
        first: Position,
        previous: Option<Previous>,
        previous_epoch: u64,
    ) -> Header {
        Header { epoch, first, previous, previous_epoch, version: VERSION }
    }

    /// Whether the frames are numbered.
    pub(crate) fn has_numbers(&self) -> bool {
        self.version > WITHOUT_NUMBERS
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let (previous_first, previous_bytes) = self.previous.map_or((NONE, 0), |p| (p.first.0, p.bytes));
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&64_u32.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&previous_first.to_le_bytes());
        bytes[40..48].copy_from_slice(&previous_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.previous_epoch.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(HeaderFault::Bad("the file is shorter than a header"))?;
        if &bytes[..8] != MAGIC {
            return Err(HeaderFault::Bad("it does not begin like a log segment"));
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderFault::Bad("the checksum of the header does not fit"));
        }
        let version = u32_at(bytes, 8);
        match version {
            WITHOUT_NUMBERS | VERSION if u32_at(bytes, 12) as usize == HEADER_BYTES => {}
            0 | WITHOUT_NUMBERS | VERSION => return Err(HeaderFault::Bad("a header that no version wrote")),
            newer => return Err(HeaderFault::Newer(newer)),
        }
        let previous_first = u64_at(bytes, 32);
        Ok(Header {
            epoch: u64_at(bytes, 16),
            first: Position(u64_at(bytes, 24)),
            previous: (previous_first != NONE)
                .then(|| Previous { first: Position(previous_first), bytes: u64_at(bytes, 40) }),
            previous_epoch: u64_at(bytes, 48),
            version,
        })
    }
}

/// The file name of the segment that begins at `first`: names sort like positions.
pub(crate) fn file_name(first: Position) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The first position that a file name states.
pub(crate) fn parse_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Position))
        .flatten()
}

/// One segment, as readers and the writer share it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) header: Header,
    pub(crate) seed: Seed,
    index: Mutex<Vec<Place>>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) byte: u64,
}

impl Segment {
    pub(crate) fn new(header: Header) -> Segment {
        Segment {
            name: file_name(header.first),
            header,
            seed: Seed::new(header.epoch, header.first.0),
            index: Mutex::default(),
        }
    }

    /// Where the first record stands.
    pub(crate) fn begin(&self) -> Place {
        Place { position: self.header.first, byte: SEGMENT_HEADER_BYTES }
    }

    /// The nearest known place at or before `position`.
    pub(crate) fn nearest(&self, position: Position) -> Place {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|place| place.position <= position);
        after.checked_sub(1).and_then(|i| index.get(i)).copied().unwrap_or(self.begin())
    }

    /// Forgets all places: the file was replaced by one with other frames.
    pub(crate) fn forget_places(&self) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Remembers a checked place if it is far enough from the last one; returns the byte from which the next
    /// place is worth telling.
    pub(crate) fn note(&self, place: Place) -> u64 {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let last = index.last().map_or(SEGMENT_HEADER_BYTES, |last| last.byte);
        if place.byte >= last + INDEX_STEP_BYTES {
            index.push(place);
            place.byte + INDEX_STEP_BYTES
        } else {
            last + INDEX_STEP_BYTES
        }
    }
}

/// Reads and checks the header of an open segment file.
pub(crate) fn read_header(
    storage: &dyn Storage,
    name: &str,
    file: &dyn StorageFile,
) -> Result<Header, LogError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(file, &mut bytes, 0).map_err(|source| io(storage, "reading", name, source))?;
    let bytes = bytes.get(..read).unwrap_or_default();
    let header = Header::decode(bytes).map_err(|fault| match fault {
        HeaderFault::Newer(found) => {
            LogError::NewerVersion { path: storage.path(name), found, known: VERSION }
        }
        HeaderFault::Bad(what) => damaged(storage, name, 0, what),
    })?;
    if parse_name(name) == Some(header.first) {
        Ok(header)
    } else {
        Err(damaged(
            storage,
            name,
            24,
            format!("it begins at position {}, its name says another", header.first),
        ))
    }
}

/// The name that a file has until it is whole and durable.
pub(crate) fn unfinished(name: &str) -> String {
    name.replace(SUFFIX, UNFINISHED_SUFFIX)
}

/// Creates a segment with a durable header and a durable name, in place of an empty one of that name.
pub(crate) fn create(storage: &dyn Storage, segment: &Segment) -> Result<Arc<dyn StorageFile>, CreateFault> {
    let unfinished = unfinished(&segment.name);
    let path = |doing, source| io(storage, doing, &unfinished, source);
    let file = storage.create(&unfinished).map_err(|e| CreateFault::Early(path("creating", e)))?;
    write_full(&*file, &segment.header.encode(), 0).map_err(|e| CreateFault::Early(path("writing", e)))?;
    file.sync().map_err(|e| CreateFault::Sync(path("syncing", e)))?;
    storage.rename(&unfinished, &segment.name).map_err(|e| CreateFault::Early(path("renaming", e)))?;
    storage.sync_dir().map_err(|e| CreateFault::Sync(io(storage, "syncing", "", e)))?;
    Ok(file)
}

/// How far the creation of a segment came.
#[derive(Debug)]
pub(crate) enum CreateFault {
    /// Nothing that counts was changed.
    Early(LogError),
    /// A sync failed: the state of the disk is not known.
    Sync(LogError),
}

impl CreateFault {
    pub(crate) fn into_error(self) -> LogError {
        let (CreateFault::Early(error) | CreateFault::Sync(error)) = self;
        error
    }
}

pub(crate) fn io(storage: &dyn Storage, doing: &'static str, name: &str, source: std::io::Error) -> LogError {
    LogError::Io { doing, path: storage.path(name), source }
}

pub(crate) fn damaged(storage: &dyn Storage, name: &str, byte: u64, what: impl Into<String>) -> LogError {
    LogError::Damaged { path: storage.path(name), byte, what: what.into() }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
