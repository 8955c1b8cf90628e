//! What is safe to do with a damaged log: keep the damaged file aside, make holes of what it lost, keep all else.
//!
//! A repaired segment has the size, the place in the chain and the positions that it had: its whole frames stay byte
//! for byte where they were, and each lost position becomes a hole, which readers see as an empty record. So no other
//! file changes, and no position ever names another record. Nothing is deleted: the damaged bytes stay in the side
//! folder ([`crate::Storage::set_aside`]).
//!
//! - A damaged or missing segment is written anew under its unfinished name, synced, and renamed into place.
//! - A damaged cursor is set to the first position held: its reader gets things twice rather than never.
//! - A newest segment of which nothing can be read goes to the side folder as a whole.
//! - A newer version is left alone.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::record::{FLAG_AFTER_SYNC, FLAG_HOLE, FRAME_HEADER_BYTES, encode};
use crate::recovery::{Loaded, load};
use crate::salvage::{Around, Region, recover_header, salvage};
use crate::segment::{
    Header, Previous, SEGMENT_HEADER_BYTES, Segment, damaged, file_name, io as io_error, parse_name,
    read_header, unfinished,
};
use crate::storage::{Storage, read_full, write_full};
use crate::{DiskStorage, LogError, LogView, Position, cursor};

const FRAME: u64 = FRAME_HEADER_BYTES as u64;
const PIECE_BYTES: usize = 256 * 1024;
/// Repairs of one opening: each heals a file, and a log has fewer damaged ones than this or wants a person.
const REPAIRS_MAX: usize = 1000;

/// What would be done to a directory; nothing is done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The directory.
    pub path: PathBuf,
    /// One step per damaged file.
    pub steps: Vec<Step>,
}

/// What would be done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub found: String,
    /// What will be done, in words.
    pub does: String,
    /// Positions whose records are lost.
    pub lost: Vec<Range<Position>>,
    work: Work,
}

/// What was done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The file.
    pub file: PathBuf,
    /// What was wrong with it.
    pub found: String,
    /// Positions whose records are lost.
    pub lost: Vec<Range<Position>>,
    /// Where the damaged bytes are, if there was such a file.
    pub kept_in: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Segment { name: String, exists: bool, header: Header, regions: Vec<Region>, bytes: u64 },
    Cursor { file: String, at: Position },
    MoveAway { name: String },
}

/// One segment file, with what is known of its header.
struct File {
    name: String,
    first: Position,
    bytes: u64,
    header: Option<Header>,
    /// Why the header on disk is not that.
    fault: Option<String>,
}

/// Reads every byte of the log in a directory and says what a repair would do. Changes nothing.
pub fn plan(dir: &Path) -> Result<Plan, LogError> {
    let storage = existing(dir)?;
    Ok(Plan { path: dir.to_path_buf(), steps: steps(&storage, None)? })
}

/// Does what a plan says; refuses if the log is in use, or is not any more as it was when the plan was made.
pub fn repair(plan: &Plan) -> Result<Vec<Repaired>, LogError> {
    let storage = existing(&plan.path)?;
    let _lock = crate::log::take_lock(&storage)?;
    if steps(&storage, None)? != plan.steps {
        return Err(damaged(&storage, "", 0, "it has changed since the plan was made; look again"));
    }
    plan.steps.iter().map(|step| apply(&storage, step, None)).collect()
}

fn existing(dir: &Path) -> Result<DiskStorage, LogError> {
    DiskStorage::existing(dir).map_err(|source| LogError::Io {
        doing: "opening",
        path: dir.to_path_buf(),
        source,
    })
}

/// Loads the log, repairing whatever keeps it from being loaded. The caller holds the lock.
pub(crate) fn load_repaired(
    storage: &dyn Storage,
    donor: Option<&LogView>,
) -> Result<(Loaded, Vec<Repaired>), LogError> {
    let mut repaired = Vec::new();
    loop {
        let outcome = load(storage).and_then(|loaded| cursor::all(storage).map(|_cursors| loaded));
        let error = match outcome {
            Ok(loaded) => return Ok((loaded, repaired)),
            Err(error) => error,
        };
        let LogError::Damaged { path, .. } = &error else { return Err(error) };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let steps = steps(storage, Some(&name))?;
        if steps.is_empty() || repaired.len() >= REPAIRS_MAX {
            return Err(error);
        }
        for step in &steps {
            repaired.push(apply(storage, step, donor)?);
        }
    }
}

/// Repairs one segment in which a reader met damage, if it is damaged. The caller holds the lock.
pub(crate) fn repair_segment(
    storage: &dyn Storage,
    first: Position,
    donor: Option<&LogView>,
) -> Result<Vec<Repaired>, LogError> {
    let steps = steps(storage, Some(&file_name(first)))?;
    steps.iter().map(|step| apply(storage, step, donor)).collect()
}

/// The steps for one file, or for all.
fn steps(storage: &dyn Storage, only: Option<&str>) -> Result<Vec<Step>, LogError> {
    let files = headers(storage)?;
    let mut steps = Vec::new();
    for i in 0..files.len() {
        if only.is_none_or(|only| files.get(i).is_some_and(|file| file.name == only)) {
            steps.extend(missing_before(storage, &files, i)?);
            steps.extend(segment_step(storage, &files, i)?);
        }
    }
    let first = files.first().map_or(Position::ZERO, |file| file.first);
    for entry in storage.list().map_err(|e| io_error(storage, "listing", "", e))? {
        if only.is_some_and(|only| entry.name != only) {
            continue;
        }
        match cursor::check(storage, &entry.name) {
            Ok(()) => {}
            Err(error @ (LogError::NewerVersion { .. } | LogError::Io { .. })) => return Err(error),
            Err(_damaged) => steps.push(Step {
                file: storage.path(&entry.name),
                found: "it is not a whole cursor".to_owned(),
                does: format!("set it to {first}, the first position held: its reader begins there"),
                lost: Vec::new(),
                work: Work::Cursor { file: entry.name, at: first },
            }),
        }
    }
    Ok(steps)
}

/// All segment files with their headers, those that could be put together again included.
fn headers(storage: &dyn Storage) -> Result<Vec<File>, LogError> {
    let mut files: Vec<File> = Vec::new();
    for entry in storage.list().map_err(|e| io_error(storage, "listing", "", e))? {
        if let Some(first) = parse_name(&entry.name) {
            files.push(File { name: entry.name, first, bytes: entry.bytes, header: None, fault: None });
        }
    }
    files.sort_unstable_by_key(|file| file.first);
    for file in &mut files {
        let opened = open(storage, &file.name)?;
        match read_header(storage, &file.name, &*opened) {
            Ok(header) => file.header = Some(header),
            Err(LogError::Damaged { what, .. }) => file.fault = Some(what),
            Err(error) => return Err(error),
        }
    }
    for i in 0..files.len() {
        if files.get(i).is_none_or(|file| file.header.is_some()) {
            continue;
        }
        let around = around(storage, &files, i)?;
        if let Some(file) = files.get_mut(i) {
            file.header = recover_header(&open(storage, &file.name)?, file.first, around)?;
        }
    }
    Ok(files)
}

fn around(storage: &dyn Storage, files: &[File], i: usize) -> Result<Around, LogError> {
    let before = i.checked_sub(1).and_then(|i| files.get(i));
    let after = files.get(i + 1).and_then(|file| file.header);
    let previous = match (before, files.get(i)) {
        (Some(before), Some(file)) => {
            Some(Previous { first: before.first, bytes: bytes_needed(storage, before, file.first)? })
        }
        _ => None,
    };
    Ok(Around {
        previous,
        previous_epoch: before.and_then(|before| before.header).map_or(0, |header| header.epoch),
        own_epoch: after.map_or(0, |after| after.previous_epoch),
        next_epoch: after.map_or(0, |after| after.epoch),
    })
}

/// The size of a segment that ends at `end`: its own, or more if it was cut and its holes need the room.
fn bytes_needed(storage: &dyn Storage, file: &File, end: Position) -> Result<u64, LogError> {
    let Some(header) = file.header else { return Ok(file.bytes) };
    let whole = salvage(&Segment::new(header), &open(storage, &file.name)?, file.bytes, Some(end))
        .map_err(|e| io_error(storage, "reading", &file.name, e))?;
    let needed = whole.regions.last().map_or(0, |region| {
        region.bytes.start + region.positions.end.0.saturating_sub(region.positions.start.0) * FRAME
    });
    Ok(file.bytes.max(needed))
}

fn open(storage: &dyn Storage, name: &str) -> Result<std::sync::Arc<dyn crate::StorageFile>, LogError> {
    storage.open(name, false).map_err(|e| io_error(storage, "opening", name, e))
}

/// Segments that file `i` says were before it, and are not there.
fn missing_before(storage: &dyn Storage, files: &[File], i: usize) -> Result<Vec<Step>, LogError> {
    let (Some(file), Some(before)) = (files.get(i), i.checked_sub(1).and_then(|i| files.get(i))) else {
        return Ok(Vec::new()); // what is missing before the first looks trimmed
    };
    let Some(header) = file.header else { return Ok(Vec::new()) };
    let previous = match header.previous {
        Some(previous) if previous.first == before.first => return Ok(Vec::new()),
        Some(previous) if previous.first > before.first => previous,
        _ => {
            let what = "it was not written after the segment before it; a person must look at this folder";
            return Err(damaged(storage, &file.name, 32, what));
        }
    };
    let Some(before_header) = before.header else { return Ok(Vec::new()) };
    let segment = Segment::new(before_header);
    let whole = salvage(&segment, &open(storage, &before.name)?, before.bytes, None)
        .map_err(|e| io_error(storage, "reading", &before.name, e))?;
    let epoch = if header.previous_epoch == 0 { before_header.epoch } else { header.previous_epoch };
    let mut steps = Vec::new();
    let mut last = Previous { first: before.first, bytes: before.bytes };
    let mut last_epoch = before_header.epoch;
    let mut add = |positions: Range<Position>, bytes: u64| {
        let holes = positions.end.0 - positions.start.0;
        let bytes = bytes.max(SEGMENT_HEADER_BYTES + holes * FRAME);
        let name = file_name(positions.start);
        let region = Region { bytes: SEGMENT_HEADER_BYTES..bytes, positions: positions.clone() };
        steps.push(Step {
            file: storage.path(&name),
            found: "the file is missing".to_owned(),
            does: format!("write it anew, with holes at positions {} to {}", positions.start, positions.end),
            lost: vec![positions.clone()],
            work: Work::Segment {
                name,
                exists: false,
                header: Header::new(epoch, positions.start, Some(last), last_epoch),
                regions: vec![region],
                bytes,
            },
        });
        (last, last_epoch) = (Previous { first: positions.start, bytes }, epoch);
    };
    if whole.end.position < previous.first {
        add(whole.end.position..previous.first, 0);
    }
    add(previous.first..file.first, previous.bytes);
    Ok(steps)
}

/// What file `i` needs, if anything.
fn segment_step(storage: &dyn Storage, files: &[File], i: usize) -> Result<Option<Step>, LogError> {
    let Some(file) = files.get(i) else { return Ok(None) };
    let next = files.get(i + 1).and_then(|next| Some((next.first, next.header?.previous?)));
    let sealed = next.filter(|(_, previous)| previous.first == file.first);
    let is_last = i + 1 == files.len();
    let bytes = sealed.map_or(file.bytes, |(_, previous)| previous.bytes);
    let Some(header) = file.header else { return unreadable(storage, files, i, sealed).map(Some) };
    let segment = Segment::new(header);
    let end = match sealed {
        Some((end, _)) => Some(end),
        None if is_last => None,
        None => files.get(i + 1).and_then(|next| next.header.is_none().then_some(next.first)),
    };
    let whole = salvage(&segment, &open(storage, &file.name)?, bytes.min(file.bytes), end)
        .map_err(|e| io_error(storage, "reading", &file.name, e))?;
    let mut regions = whole.regions;
    if file.bytes < bytes
        && let Some(end) = end
    {
        // Cut off: what stood there is filled up to the size that it had.
        match regions.last_mut() {
            Some(last) if last.bytes.end == file.bytes => last.bytes.end = bytes,
            _ => regions.push(Region { bytes: whole.end.byte..bytes, positions: whole.end.position..end }),
        }
    }
    let mut found: Vec<String> = file.fault.iter().cloned().collect();
    found.extend(whole.found.map(|(byte, what)| format!("byte {byte}: {what}")));
    if sealed.is_some() && file.bytes != bytes {
        found.push(format!("it has {} bytes and had {bytes} when it was sealed", file.bytes));
    }
    if found.is_empty() {
        return Ok(None);
    }
    if let Some(region) = regions.iter().find(|region| !fits(region)) {
        let what =
            format!("{}; it cannot be repaired, its size contradicts its neighbours", found.join("; "));
        return Err(damaged(storage, &file.name, region.bytes.start, what));
    }
    Ok(Some(rewrite(storage, file, header, regions, bytes, found.join("; "))))
}

/// Whether the bytes have room for a hole per position.
fn fits(region: &Region) -> bool {
    let (bytes, holes) = (
        region.bytes.end.saturating_sub(region.bytes.start),
        region.positions.end.0.saturating_sub(region.positions.start.0),
    );
    holes.checked_mul(FRAME).is_some_and(|least| holes > 0 && least <= bytes)
}

fn rewrite(
    storage: &dyn Storage,
    file: &File,
    header: Header,
    regions: Vec<Region>,
    bytes: u64,
    found: String,
) -> Step {
    let lost: Vec<Range<Position>> = regions.iter().map(|region| region.positions.clone()).collect();
    let does = if lost.is_empty() {
        "write the file anew with what it should say; no record is lost".to_owned()
    } else {
        "write the file anew: whole records stay where they are, lost ones become holes".to_owned()
    };
    Step {
        file: storage.path(&file.name),
        found,
        does,
        lost,
        work: Work::Segment { name: file.name.clone(), exists: true, header, regions, bytes },
    }
}

/// A segment of which neither header nor records can be read.
fn unreadable(
    storage: &dyn Storage,
    files: &[File],
    i: usize,
    sealed: Option<(Position, Previous)>,
) -> Result<Step, LogError> {
    let file = files.get(i);
    let (name, first, bytes) =
        file.map_or((String::new(), Position::ZERO, 0), |file| (file.name.clone(), file.first, file.bytes));
    let found = file.and_then(|file| file.fault.clone()).unwrap_or_default() + ", and no record fits it";
    let around = around(storage, files, i)?;
    let end = match sealed {
        Some((end, _)) => end,
        None => files.get(i + 1).map_or(
            // As many as could have been in it, so that no position is used twice.
            Position(first.0 + bytes.saturating_sub(SEGMENT_HEADER_BYTES) / FRAME),
            |next| next.first,
        ),
    };
    if end <= first {
        return Ok(Step {
            file: storage.path(&name),
            found,
            does: "move it to the side folder".to_owned(),
            lost: Vec::new(),
            work: Work::MoveAway { name },
        });
    }
    let least = SEGMENT_HEADER_BYTES + (end.0 - first.0) * FRAME;
    let bytes = sealed.map_or(bytes.max(least), |(_, previous)| previous.bytes.max(least));
    let epoch = [around.own_epoch, around.previous_epoch, around.next_epoch].into_iter().find(|e| *e != 0);
    Ok(Step {
        file: storage.path(&name),
        found,
        does: format!("write it anew, with holes at positions {first} to {end}"),
        lost: std::iter::once(first..end).collect(),
        work: Work::Segment {
            name,
            exists: true,
            header: Header::new(epoch.unwrap_or(1), first, around.previous, around.previous_epoch),
            regions: vec![Region { bytes: SEGMENT_HEADER_BYTES..bytes, positions: first..end }],
            bytes,
        },
    })
}

fn apply(storage: &dyn Storage, step: &Step, donor: Option<&LogView>) -> Result<Repaired, LogError> {
    let mut lost = step.lost.clone();
    let kept_in = match &step.work {
        Work::Segment { name, exists, header, regions, bytes } => {
            let (new, filled) = write_segment(storage, name, *exists, header, regions, *bytes, donor)?;
            lost.retain(|lost| !filled.contains(lost));
            let kept_in = if *exists { Some(aside(storage, name)?) } else { None };
            storage.rename(&new, name).map_err(|e| io_error(storage, "renaming", &new, e))?;
            kept_in
        }
        Work::Cursor { file, at } => {
            let kept_in = aside(storage, file)?;
            cursor::replace(storage, file, *at)?;
            Some(kept_in)
        }
        Work::MoveAway { name } => {
            let kept_in = aside(storage, name)?;
            storage.remove(name).map_err(|e| io_error(storage, "moving", name, e))?;
            Some(kept_in)
        }
    };
    storage.sync_dir().map_err(|e| io_error(storage, "syncing", "", e))?;
    let (file, found) = (step.file.clone(), step.found.clone());
    Ok(Repaired { file, found, lost, kept_in })
}

fn aside(storage: &dyn Storage, name: &str) -> Result<PathBuf, LogError> {
    storage.set_aside(name).map_err(|e| io_error(storage, "keeping a copy of", name, e))
}

/// Writes the repaired segment under its unfinished name, durable; gives that name, and which positions a donor
/// had.
fn write_segment(
    storage: &dyn Storage,
    name: &str,
    exists: bool,
    header: &Header,
    regions: &[Region],
    bytes: u64,
    donor: Option<&LogView>,
) -> Result<(String, Vec<Range<Position>>), LogError> {
    let mut filled = Vec::new();
    let new = unfinished(name);
    let fault = |doing| {
        let new = new.clone();
        move |source| io_error(storage, doing, &new, source)
    };
    let file = storage.create(&new).map_err(fault("creating"))?;
    write_full(&*file, &header.encode(), 0).map_err(fault("writing"))?;
    if exists {
        let from = open(storage, name)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = SEGMENT_HEADER_BYTES;
        while at < bytes {
            let space = usize::try_from(bytes - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let part = piece.get_mut(..space).unwrap_or_default();
            let read = read_full(&*from, part, at).map_err(|e| io_error(storage, "reading", name, e))?;
            if read == 0 {
                break;
            }
            write_full(&*file, piece.get(..read).unwrap_or_default(), at).map_err(fault("writing"))?;
            at += read as u64;
        }
    }
    let segment = Segment::new(*header);
    for region in regions {
        if let Some(records) = donor.and_then(|donor| donated(donor, region)) {
            let (mut at, mut buffer) = (region.bytes.start, Vec::new());
            for (position, record) in (region.positions.start.0..).zip(&records) {
                let after_sync = if position == region.positions.start.0 { FLAG_AFTER_SYNC } else { 0 };
                let number = if header.has_numbers() { position.saturating_sub(header.first.0) } else { 0 };
                encode(&mut buffer, segment.seed, at, after_sync, number, record);
                at += FRAME + record.len() as u64;
            }
            write_full(&*file, &buffer, region.bytes.start).map_err(fault("writing"))?;
            filled.push(region.positions.clone());
            continue;
        }
        let mut at = region.bytes.start;
        let mut buffer = Vec::new();
        let last = region.positions.end.0.saturating_sub(1);
        for position in region.positions.start.0..region.positions.end.0 {
            let padding = if position == last { region.bytes.end.saturating_sub(at + FRAME) } else { 0 };
            let padding = vec![0; usize::try_from(padding).unwrap_or(0)];
            let after_sync = if position == region.positions.start.0 { FLAG_AFTER_SYNC } else { 0 };
            let number = if header.has_numbers() { position.saturating_sub(header.first.0) } else { 0 };
            encode(&mut buffer, segment.seed, at, FLAG_HOLE | after_sync, number, &padding);
            at += FRAME + padding.len() as u64;
        }
        write_full(&*file, &buffer, region.bytes.start).map_err(fault("writing"))?;
    }
    file.sync().map_err(fault("syncing"))?;
    Ok((new, filled))
}

/// What a donor holds of a region, if that is all of it and takes exactly its room.
fn donated(donor: &LogView, region: &Region) -> Option<Vec<Vec<u8>>> {
    let mut reader = donor.reader(region.positions.start);
    let mut records = Vec::new();
    let mut bytes = 0;
    for position in region.positions.start.0..region.positions.end.0 {
        let (at, record) = reader.next().ok()??;
        bytes += FRAME + record.len() as u64;
        if at.0 != position || record.is_empty() || bytes > region.bytes.end - region.bytes.start {
            return None;
        }
        records.push(record.to_vec());
    }
    (bytes == region.bytes.end - region.bytes.start).then_some(records)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}. Repair: {}", self.file.display(), self.found, self.does)?;
        write_lost(f, &self.lost)
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was damaged ({}) and is repaired", self.file.display(), self.found)?;
        write_lost(f, &self.lost)?;
        match &self.kept_in {
            Some(path) => write!(f, "; the damaged file is kept as {}", path.display()),
            None => Ok(()),
        }
    }
}

fn write_lost(f: &mut fmt::Formatter<'_>, lost: &[Range<Position>]) -> fmt::Result {
    for range in lost {
        write!(f, "; lost: positions {} to {} (exclusive)", range.start, range.end)?;
    }
    Ok(())
}
