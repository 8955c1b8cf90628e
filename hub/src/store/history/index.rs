//! Which pieces of the plant log can hold samples of a point and time.
//!
//! A piece is a run of records of about [`PIECE_BYTES`] within one segment, with the earliest and latest source time in
//! it; a segment has besides a bit per point. Sealed segments are kept in files, little endian:
//!
//! ```text
//! magic "FBHI" | version u8 = 1 | epoch u64 | first u64 | end u64
//! pieces u32, each: first u64 | end u64 | earliest i64 | latest i64
//! words u32, each: u64, bit n of word w set: point 64·w + n is in the segment
//! crc32c u32 of everything before
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use durable_log::{LogError, LogView, Position, SegmentInfo};
use model::{PointId, Timestamp};
use proto::log_record::LogRecord;

use super::Query;

/// A piece has about so many bytes of records: what a question for one moment reads.
const PIECE_BYTES: usize = 256 * 1024;
/// An index file is not larger: 100 000 pieces and 10 million points.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Bits of so many points: ten million.
const WORDS_MAX: usize = 10_000_000 / 64;

const MAGIC: &[u8; 5] = b"FBHI\x01";

/// A run of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: Position,
    /// Exclusive.
    pub(super) end: Position,
    earliest: Timestamp,
    latest: Timestamp,
}

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    epoch: u64,
    /// Records below are indexed.
    end: Position,
    pieces: Vec<Piece>,
    /// A bit per point.
    points: Vec<u64>,
    /// Bytes in the last piece so far.
    filled: usize,
}

/// The index over all segments held, by first position.
#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    segments: BTreeMap<Position, Segment>,
}

impl Index {
    pub(super) fn new(folder: PathBuf) -> Self {
        Index { folder, segments: BTreeMap::new() }
    }

    /// Takes the index files of sealed segments that the log still holds, and deletes the others.
    pub(super) fn load(&mut self, log: &LogView) {
        let held: BTreeMap<Position, SegmentInfo> =
            log.segments().into_iter().map(|s| (s.first, s)).collect();
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let first =
                name.to_str().and_then(|name| name.strip_suffix(".index")).and_then(|n| n.parse().ok());
            let info = first.and_then(|first| held.get(&Position(first)));
            let known = info.filter(|info| info.sealed).and_then(|info| {
                let small = file.metadata().is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
                let bytes = if small { fs::read(file.path()).ok()? } else { return None };
                decode(&bytes).filter(|(at, known)| {
                    *at == info.first && known.epoch == info.epoch && known.end == info.end
                })
            });
            match known {
                Some((first, segment)) => {
                    self.segments.insert(first, segment);
                }
                None => drop(fs::remove_file(file.path())), // built again
            }
        }
    }

    /// Indexes about so many bytes of records more; whether there is still more to do.
    pub(super) fn advance(&mut self, log: &LogView, bytes: usize) -> Result<bool, LogError> {
        let held = log.segments();
        self.forget(&held);
        let mut left = bytes;
        for info in &held {
            let segment = self.segments.entry(info.first).or_insert_with(|| Segment::at(info));
            if segment.epoch != info.epoch {
                *segment = Segment::at(info);
            }
            if segment.end >= info.end {
                continue;
            }
            let mut reader = log.reader(segment.end);
            while reader.position() < info.end {
                if left == 0 {
                    return Ok(true);
                }
                match reader.next() {
                    Ok(Some((position, record))) => {
                        segment.take(position, record);
                        left = left.saturating_sub(record.len());
                    }
                    Ok(None) | Err(LogError::Trimmed { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            if info.sealed && segment.end == info.end {
                let bytes = encode(info.first, segment);
                if let Err(error) = self.save(info.first, &bytes) {
                    tracing::warn!(%error, folder = %self.folder.display(), "cannot keep a history index; it is built again after a restart");
                }
            }
        }
        Ok(false)
    }

    /// The pieces that can hold an answer, oldest first, and all that is not indexed yet.
    pub(super) fn pieces(&self, log: &LogView, query: &Query) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for info in log.segments() {
            let known = self.segments.get(&info.first).filter(|known| known.epoch == info.epoch);
            if let Some(known) = known.filter(|known| query.points.iter().any(|point| known.has(*point))) {
                let fits = |piece: &&Piece| piece.latest >= query.from && piece.earliest < query.to;
                pieces.extend(known.pieces.iter().filter(fits));
            }
            let first = known.map_or(info.first, |known| known.end);
            if first < info.end {
                pieces.push(Piece {
                    first,
                    end: info.end,
                    earliest: Timestamp(i64::MIN),
                    latest: Timestamp(i64::MAX),
                });
            }
        }
        pieces
    }

    /// Drops what retention has deleted.
    fn forget(&mut self, held: &[SegmentInfo]) {
        let first = held.first().map_or(Position(u64::MAX), |info| info.first);
        while let Some(entry) = self.segments.first_entry().filter(|entry| *entry.key() < first) {
            let file = self.folder.join(format!("{}.index", entry.key().0));
            entry.remove();
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, file = %file.display(), "cannot delete a history index");
            }
        }
    }

    fn save(&self, first: Position, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let file = self.folder.join(format!("{}.index", first.0));
        let beside = file.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::rename(beside, file) // a torn one fails its checksum and is built again
    }
}

impl Segment {
    fn at(info: &SegmentInfo) -> Self {
        Segment { epoch: info.epoch, end: info.first, pieces: Vec::new(), points: Vec::new(), filled: 0 }
    }

    fn has(&self, point: PointId) -> bool {
        let word = self.points.get(point.0 as usize / 64);
        word.is_some_and(|word| word >> (point.0 % 64) & 1 == 1)
    }

    fn take(&mut self, position: Position, record: &[u8]) {
        self.end = position.next();
        let Ok(LogRecord::Received { batch, .. }) = LogRecord::decode(record) else { return };
        let (Some(earliest), Some(latest)) =
            (batch.samples.iter().map(|s| s.time).min(), batch.samples.iter().map(|s| s.time).max())
        else {
            return;
        };
        match self.pieces.last_mut().filter(|_| self.filled < PIECE_BYTES) {
            Some(piece) => {
                piece.end = position.next();
                piece.earliest = piece.earliest.min(earliest);
                piece.latest = piece.latest.max(latest);
            }
            None => {
                self.filled = 0;
                self.pieces.push(Piece { first: position, end: position.next(), earliest, latest });
            }
        }
        self.filled += record.len();
        for sample in &batch.samples {
            let word = sample.point.0 as usize / 64;
            if word >= WORDS_MAX {
                continue; // no catalogue is so long
            }
            if word >= self.points.len() {
                self.points.resize(word + 1, 0);
            }
            if let Some(word) = self.points.get_mut(word) {
                *word |= 1 << (sample.point.0 % 64);
            }
        }
    }
}

fn encode(first: Position, segment: &Segment) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + segment.pieces.len() * 32 + segment.points.len() * 8);
    out.extend_from_slice(MAGIC);
    for number in [segment.epoch, first.0, segment.end.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&u32::try_from(segment.pieces.len()).unwrap_or(u32::MAX).to_le_bytes());
    for piece in &segment.pieces {
        out.extend_from_slice(&piece.first.0.to_le_bytes());
        out.extend_from_slice(&piece.end.0.to_le_bytes());
        out.extend_from_slice(&piece.earliest.0.to_le_bytes());
        out.extend_from_slice(&piece.latest.0.to_le_bytes());
    }
    out.extend_from_slice(&u32::try_from(segment.points.len()).unwrap_or(u32::MAX).to_le_bytes());
    for word in &segment.points {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// `None` for whatever [`encode`] did not write.
fn decode(bytes: &[u8]) -> Option<(Position, Segment)> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let count = |rest: &mut &[u8], size: usize| {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        let count = u32::from_le_bytes(*head) as usize;
        (count.checked_mul(size)? <= rest.len()).then_some(count)
    };
    let (epoch, first, end) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
    let mut pieces = Vec::with_capacity(count(&mut { rest }, 32)?);
    for _ in 0..count(&mut rest, 32)? {
        let (first, end) = (Position(number(&mut rest)?), Position(number(&mut rest)?));
        let (earliest, latest) = (number(&mut rest)?.cast_signed(), number(&mut rest)?.cast_signed());
        pieces.push(Piece { first, end, earliest: Timestamp(earliest), latest: Timestamp(latest) });
    }
    let mut points = Vec::with_capacity(count(&mut { rest }, 8)?);
    for _ in 0..count(&mut rest, 8)? {
        points.push(number(&mut rest)?);
    }
    let segment = Segment { epoch, end: Position(end), pieces, points, filled: PIECE_BYTES };
    rest.is_empty().then_some((Position(first), segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_was_written_or_nothing() {
        let piece =
            Piece { first: Position(3), end: Position(9), earliest: Timestamp(-5), latest: Timestamp(7) };
        let segment = Segment {
            epoch: 4,
            end: Position(9),
            pieces: vec![piece],
            points: vec![1 << 63, 2],
            filled: PIECE_BYTES,
        };
        assert!(segment.has(PointId(63)) && segment.has(PointId(65)) && !segment.has(PointId(64)));
        let bytes = encode(Position(3), &segment);
        assert_eq!(decode(&bytes), Some((Position(3), segment)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
