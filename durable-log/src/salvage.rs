//! What of a damaged segment can be kept: whole groups before and behind the damaged places, and which positions lie
//! between them. Changes nothing; [`crate::repair`] does.
//!
//! A damaged frame takes its group with it, and what stands between it and the next frame that certainly begins a
//! group: at most the rest of its commit. The number in that frame says how many records are gone. Where there is
//! no number (version 1) or no further frame, the end of the segment says it; and where nothing says it, as many
//! positions are given up as the bytes could have held, so that no position is used twice.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::frames::{FrameFault, Frames};
use crate::record::{FLAG_AFTER_SYNC, FLAG_MORE, FRAME_HEADER_BYTES, FrameHeader, NUMBERS};
use crate::segment::{HEADER_BYTES, Header, Place, Previous, Segment};
use crate::storage::{StorageFile, read_full};
use crate::{LogError, Position};

/// One piece of the search.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes checked in the search behind a bad frame, per byte of the file, before it is given up.
const SEARCH_FACTOR: u64 = 16;
const FRAME: u64 = FRAME_HEADER_BYTES as u64;

/// Bytes that become holes, and the positions that they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) bytes: Range<u64>,
    pub(crate) positions: Range<Position>,
}

/// What of a segment is whole.
#[derive(Debug)]
pub(crate) struct Salvage {
    pub(crate) regions: Vec<Region>,
    /// Where the kept frames and the regions end.
    pub(crate) end: Place,
    /// What was wrong at the first damaged place.
    pub(crate) found: Option<(u64, &'static str)>,
}

/// A whole frame behind a bad one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) byte: u64,
    pub(crate) header: FrameHeader,
}

/// What the search behind a bad frame came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Search {
    Found(Behind),
    Nothing,
    /// Cannot be told within bounds.
    TooLong,
}

/// The first whole frame behind the bad one at `bad` whose header is `wanted`.
pub(crate) fn search(
    segment: &Segment,
    file: &dyn StorageFile,
    bad: Place,
    limit: u64,
    wanted: impl Fn(&FrameHeader) -> bool,
) -> io::Result<Search> {
    let mut budget = limit.saturating_sub(bad.byte).saturating_mul(SEARCH_FACTOR);
    let mut piece = vec![0; PIECE_BYTES];
    let mut payload = Vec::new();
    let mut at = bad.byte + 1;
    while at + FRAME <= limit {
        let space = usize::try_from(limit - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = read_full(file, piece.get_mut(..space).unwrap_or_default(), at)?;
        let Some(starts) = (read + 1).checked_sub(FRAME_HEADER_BYTES).filter(|&starts| starts > 0) else {
            break; // shorter than its size said
        };
        for start in 0..starts {
            let Some(header) = FrameHeader::decode(piece.get(start..read).unwrap_or_default()) else {
                continue;
            };
            let byte = at + start as u64;
            if byte + header.bytes() > limit
                || !wanted(&header)
                || gone(segment, bad, byte, &header).is_none()
            {
                continue;
            }
            let Some(left) = budget.checked_sub(header.bytes()) else { return Ok(Search::TooLong) };
            budget = left;
            payload.resize(header.length as usize, 0);
            let got = read_full(file, &mut payload, byte + FRAME)?;
            if got == payload.len() && header.fits(segment.seed, byte, &payload) {
                return Ok(Search::Found(Behind { byte, header }));
            }
        }
        at += starts as u64;
    }
    Ok(Search::Nothing)
}

/// How many records are gone between `bad` and a frame at `byte`, if that is possible; 0 where frames have no numbers.
fn gone(segment: &Segment, bad: Place, byte: u64, header: &FrameHeader) -> Option<u64> {
    if !segment.header.has_numbers() {
        return Some(0);
    }
    let number = bad.position.0.saturating_sub(segment.header.first.0) % NUMBERS;
    let gone = (header.number + NUMBERS - number) % NUMBERS;
    (gone > 0 && gone <= (byte - bad.byte) / FRAME).then_some(gone)
}

/// Reads the frames of a segment up to `limit`. `end`: where its records end, if another segment says so; without it
/// a bad end is left alone if it can be a torn write.
pub(crate) fn salvage(
    segment: &Segment,
    file: &Arc<dyn StorageFile>,
    limit: u64,
    end: Option<Position>,
) -> io::Result<Salvage> {
    let mut regions: Vec<Region> = Vec::new();
    let mut found = None;
    let mut next = segment.begin();
    let mut group = next; // where the group of the next frame begins
    let mut frames = Frames::new(Arc::clone(file), segment, next, limit, Vec::new());
    loop {
        let what = match frames.next() {
            Ok(Some(frame)) => {
                next = Place { position: next.position.next(), byte: frames.offset() };
                if frame.flags & FLAG_MORE == 0 {
                    group = next;
                }
                continue;
            }
            Ok(None) if group == next && end.is_none_or(|end| end == next.position) => break,
            Ok(None) if group == next => "records are missing at its end",
            Ok(None) => "the last group is not whole",
            Err(FrameFault::Read(source)) => return Err(source),
            Err(FrameFault::Bad(what)) => what,
        };
        let bad = Place { position: next.position, byte: next.byte };
        let resumed = match behind(segment, file, bad, limit, end.is_some())? {
            Resume::At(place) => place,
            Resume::TornEnd => break,
            Resume::Nothing => {
                let could_be = group.position.0 + (limit.saturating_sub(group.byte)) / FRAME;
                Place { position: end.unwrap_or(Position(could_be)), byte: limit }
            }
        };
        found.get_or_insert((bad.byte, what));
        let region = Region { bytes: group.byte..resumed.byte, positions: group.position..resumed.position };
        match regions.last_mut() {
            Some(last) if last.bytes.end == region.bytes.start => {
                (last.bytes.end, last.positions.end) = (region.bytes.end, region.positions.end);
            }
            _ => regions.push(region),
        }
        (next, group) = (resumed, resumed);
        frames = Frames::new(Arc::clone(file), segment, next, limit, frames.into_buffer());
        if next.byte >= limit {
            break;
        }
    }
    Ok(Salvage { regions, end: group, found })
}

enum Resume {
    /// A group begins here.
    At(Place),
    /// What is bad can be a write that was not finished.
    TornEnd,
    Nothing,
}

/// Where a group certainly begins behind a bad frame.
fn behind(
    segment: &Segment,
    file: &Arc<dyn StorageFile>,
    bad: Place,
    limit: u64,
    sealed: bool,
) -> io::Result<Resume> {
    if !sealed {
        let after_sync = |header: &FrameHeader| header.flags & FLAG_AFTER_SYNC != 0;
        if matches!(search(segment, &**file, bad, limit, after_sync)?, Search::Nothing) {
            return Ok(Resume::TornEnd);
        }
    }
    if !segment.header.has_numbers() {
        return Ok(Resume::Nothing); // what comes behind has no known position
    }
    let mut from = bad;
    loop {
        let Search::Found(whole) = search(segment, &**file, from, limit, |_| true)? else {
            return Ok(Resume::Nothing);
        };
        let Some(gone) = gone(segment, bad, whole.byte, &whole.header) else {
            from = Place { byte: whole.byte, position: bad.position };
            continue;
        };
        let place = Place { position: Position(bad.position.0 + gone), byte: whole.byte };
        if whole.header.flags & FLAG_AFTER_SYNC != 0 {
            return Ok(Resume::At(place));
        }
        // It may belong to the damaged group: go on behind the frame that ends a group.
        let mut frames = Frames::new(Arc::clone(file), segment, place, limit, Vec::new());
        let mut at = place;
        loop {
            match frames.next() {
                Ok(Some(frame)) => {
                    let begins = frame.flags & FLAG_AFTER_SYNC != 0;
                    if begins && at != place {
                        return Ok(Resume::At(at));
                    }
                    at = Place { position: at.position.next(), byte: frames.offset() };
                    if frame.flags & FLAG_MORE == 0 {
                        return Ok(Resume::At(at));
                    }
                }
                Ok(None) => return Ok(Resume::Nothing),
                Err(FrameFault::Read(source)) => return Err(source),
                Err(FrameFault::Bad(_)) => break,
            }
        }
        from = at;
    }
}

/// What the files around a segment say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Around {
    /// The segment before, as it is on disk.
    pub(crate) previous: Option<Previous>,
    pub(crate) previous_epoch: u64,
    /// Of the header behind: a copy of this segment's epoch.
    pub(crate) own_epoch: u64,
    pub(crate) next_epoch: u64,
}

/// The header of a segment whose own is damaged: one flipped bit is turned back; else it is put together from what
/// the neighbours say, and believed if a frame fits it.
pub(crate) fn recover_header(
    file: &Arc<dyn StorageFile>,
    first: Position,
    around: Around,
) -> Result<Option<Header>, LogError> {
    let fault = |source| LogError::Io { doing: "reading", path: "segment".into(), source };
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(&**file, &mut bytes, 0).map_err(fault)?;
    if read == HEADER_BYTES {
        for bit in 0..HEADER_BYTES * 8 {
            let mut turned = bytes;
            if let Some(byte) = turned.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            if let Ok(header) = Header::decode(&turned)
                && header.first == first
            {
                return Ok(Some(header));
            }
        }
    }
    let own = bytes.get(16..24).and_then(|epoch| epoch.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    let limit = file.bytes().map_err(fault)?;
    for epoch in [around.own_epoch, own, around.previous_epoch, around.next_epoch] {
        let mut header = Header::new(epoch, first, around.previous, around.previous_epoch);
        for version in [header.version, 1] {
            header.version = version;
            let segment = Segment::new(header);
            let mut frames = Frames::new(Arc::clone(file), &segment, segment.begin(), limit, Vec::new());
            let begins = epoch != 0 && matches!(frames.next(), Ok(Some(_)));
            let somewhere = || {
                let found = search(&segment, &**file, segment.begin(), limit, |_| true);
                epoch != 0 && header.has_numbers() && matches!(found, Ok(Search::Found(_)))
            };
            if begins || somewhere() {
                return Ok(Some(header));
            }
        }
    }
    Ok(None)
}
