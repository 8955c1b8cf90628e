//! Opening after a crash: what is kept, what is cut, what is refused.
//!
//! - All headers are read and must form one chain; sealed segments are not scanned (their readers check them).
//! - Only the last segment can have a torn tail: every other one was synced before the next got its name.
//! - The first bad frame of the last segment ends the log, unless a frame behind it says that everything before
//!   it was durable ([`FLAG_AFTER_SYNC`]): then durable bytes were damaged, and opening is refused.
//! - What is kept is written again and synced before it counts: it may have been in memory only.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::frames::{FrameFault, Frames};
use crate::record::{FLAG_AFTER_SYNC, FLAG_MORE, FrameHeader};
use crate::salvage::{Search, search};
use crate::segment::{Place, Previous, Segment, damaged, io as io_error, parse_name, read_header};
use crate::storage::{Storage, StorageFile, read_full, write_full};
use crate::view::Held;
use crate::{LogError, Position, Repaired};

/// How often a listing is tried again when a living writer trims meanwhile.
const LISTINGS_MAX: u32 = 8;
/// One piece when the tail is written again or searched.
const PIECE_BYTES: usize = 256 * 1024;

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// What was cut off the end, if anything. (Opened for reading: what is passed over.)
    pub cut: Option<Cut>,
    /// First position held.
    pub first: Position,
    /// End (exclusive) of what is durable.
    pub end: Position,
    /// Number of segments, the new one included.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// What was damaged and has been repaired by this opening ([`crate::WhenDamaged::SetAside`]).
    pub repaired: Vec<Repaired>,
}

/// A torn end of the last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub segment: PathBuf,
    /// The byte at which it ends now.
    pub byte: u64,
    /// How many bytes stood behind.
    pub bytes: u64,
    /// What was wrong with them.
    pub why: String,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "positions {} to {} in {} segments, {} bytes",
            self.first, self.end, self.segments, self.bytes
        )?;
        for repaired in &self.repaired {
            write!(f, "; {repaired}")?;
        }
        match &self.cut {
            None => Ok(()),
            Some(cut) => write!(f, "; {cut}"),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cut {} bytes at byte {} of {}, never reported durable: {}",
            self.bytes,
            self.byte,
            self.segment.display(),
            self.why
        )
    }
}

/// The segments of a directory and the state of its tail.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) held: Vec<Held>,
    pub(crate) tail: Option<Tail>,
}

/// How the last segment ends.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Last kept byte and position (both exclusive).
    pub(crate) end: Place,
    /// From here on it is not proven that the bytes reached the disk.
    unproven: u64,
    pub(crate) cut: Option<Cut>,
}

/// Reads all headers and scans the last segment; changes nothing.
pub(crate) fn load(storage: &dyn Storage) -> Result<Loaded, LogError> {
    let mut tries = 1;
    loop {
        match load_once(storage) {
            Err(LogError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < LISTINGS_MAX =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

fn load_once(storage: &dyn Storage) -> Result<Loaded, LogError> {
    let mut names: Vec<String> = storage
        .list()
        .map_err(|source| io_error(storage, "listing", "", source))?
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| parse_name(name).is_some())
        .collect();
    names.sort_unstable();
    let mut held: Vec<Held> = Vec::with_capacity(names.len());
    let mut last = None;
    for name in names {
        let file = storage.open(&name, false).map_err(|e| io_error(storage, "opening", &name, e))?;
        let bytes = file.bytes().map_err(|e| io_error(storage, "reading", &name, e))?;
        let segment = Arc::new(Segment::new(read_header(storage, &name, &*file)?));
        if let Some(before) = held.last_mut() {
            chain(storage, before, &segment)?;
            before.end = segment.header.first;
        }
        held.push(Held { end: segment.header.first, segment, bytes });
        last = Some(file);
    }
    let tail = match (held.last_mut(), last) {
        (Some(end), Some(file)) => {
            let tail = scan_tail(storage, &end.segment, &file, end.bytes)?;
            end.bytes = tail.end.byte;
            end.end = tail.end.position;
            Some(tail)
        }
        _ => None,
    };
    Ok(Loaded { held, tail })
}

/// `before` must be the segment that `next` was written after, of the size it had then.
fn chain(storage: &dyn Storage, before: &Held, next: &Segment) -> Result<(), LogError> {
    let Some(Previous { first, bytes }) = next.header.previous else {
        return Err(damaged(storage, &next.name, 32, "it claims to be the first segment and is not"));
    };
    if first != before.segment.header.first {
        let what = format!("the segment before it, which begins at position {first}, is missing");
        return Err(damaged(storage, &next.name, 32, what));
    }
    if bytes != before.bytes {
        let what = format!("it has {} bytes and had {bytes} when it was sealed", before.bytes);
        return Err(damaged(storage, &before.segment.name, before.bytes.min(bytes), what));
    }
    Ok(())
}

fn scan_tail(
    storage: &dyn Storage,
    segment: &Segment,
    file: &Arc<dyn StorageFile>,
    file_bytes: u64,
) -> Result<Tail, LogError> {
    let mut frames = Frames::new(Arc::clone(file), segment, segment.begin(), file_bytes, Vec::new());
    let mut next = segment.begin();
    let mut group_end = next;
    let mut unproven = next.byte;
    let mut worth_noting = 0;
    let why = loop {
        match frames.next() {
            Ok(Some(frame)) => {
                if frame.flags & FLAG_AFTER_SYNC != 0 {
                    unproven = frame.at;
                }
                if next.byte >= worth_noting {
                    worth_noting = segment.note(next);
                }
                next = Place { position: next.position.next(), byte: frames.offset() };
                if frame.flags & FLAG_MORE == 0 {
                    group_end = next;
                }
            }
            Ok(None) if group_end == next => break None,
            Ok(None) => break Some("the last group is not whole"),
            Err(FrameFault::Read(source)) => return Err(io_error(storage, "reading", &segment.name, source)),
            Err(FrameFault::Bad(what)) => {
                if durable_behind(segment, &**file, next, file_bytes)
                    .map_err(|e| io_error(storage, "reading", &segment.name, e))?
                {
                    return Err(damaged(storage, &segment.name, next.byte, what));
                }
                break Some(what);
            }
        }
    };
    let cut = why.map(|why| Cut {
        segment: storage.path(&segment.name),
        byte: group_end.byte,
        bytes: file_bytes - group_end.byte,
        why: why.to_owned(),
    });
    Ok(Tail { end: group_end, unproven: unproven.min(group_end.byte), cut })
}

/// Whether a whole frame that was written after a sync stands behind a bad one.
fn durable_behind(segment: &Segment, file: &dyn StorageFile, bad: Place, limit: u64) -> io::Result<bool> {
    let after_sync = |header: &FrameHeader| header.flags & FLAG_AFTER_SYNC != 0;
    // What cannot be told within bounds may have been durable: it is not cut.
    Ok(!matches!(search(segment, file, bad, limit, after_sync)?, Search::Nothing))
}

/// Makes the kept part of the last segment durable: cuts the rest, writes the unproven part again, syncs.
pub(crate) fn settle(storage: &dyn Storage, segment: &Segment, tail: &Tail) -> Result<(), LogError> {
    let fault = |doing| move |source| io_error(storage, doing, &segment.name, source);
    let file = storage.open(&segment.name, true).map_err(fault("opening"))?;
    if tail.cut.is_some() {
        file.truncate(tail.end.byte).map_err(fault("cutting"))?;
    }
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = tail.unproven;
    while at < tail.end.byte {
        let space = usize::try_from(tail.end.byte - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let bytes = piece.get_mut(..space).unwrap_or_default();
        if read_full(&*file, bytes, at).map_err(fault("reading"))? != space {
            return Err(damaged(storage, &segment.name, at, "the file became shorter while it was opened"));
        }
        write_full(&*file, bytes, at).map_err(fault("writing"))?;
        at += space as u64;
    }
    file.sync().map_err(fault("syncing"))
}
