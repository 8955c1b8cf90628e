//! What `forebay log inspect` and `forebay log verify` say of a directory. Neither changes anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frames::{FrameFault, Frames};
use crate::record::{FLAG_HOLE, FLAG_MORE};
use crate::segment::{Header, Previous, Segment, parse_name, read_header};
use crate::storage::Storage;
use crate::{Cut, DiskStorage, LogError, LogView, Position, Recovery, SegmentInfo, cursor};

/// The outline of a log: cheap, reads the last segment only.
#[derive(Clone, Debug)]
pub struct InspectReport {
    /// The directory.
    pub path: PathBuf,
    /// What opening it would find.
    pub recovery: Recovery,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Its named positions.
    pub cursors: BTreeMap<String, Position>,
}

/// The outcome of reading every byte of a log.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The directory.
    pub path: PathBuf,
    /// Every segment, oldest first.
    pub segments: Vec<SegmentCheck>,
    /// A torn end that the next opening will cut; no damage.
    pub cut: Option<Cut>,
    /// What is wrong beside the segments: the chain, the cursors, the opening itself.
    pub problems: Vec<String>,
}

/// One verified segment.
#[derive(Clone, Debug)]
pub struct SegmentCheck {
    /// The file.
    pub path: PathBuf,
    /// The epoch that wrote it, if the header is whole.
    pub epoch: Option<u64>,
    /// First position.
    pub first: Position,
    /// End (exclusive) of the whole records.
    pub end: Position,
    /// Whole groups.
    pub groups: u64,
    /// Positions whose records were damaged once and given up by a repair.
    pub holes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is wrong, with the byte where it begins.
    pub damage: Option<String>,
}

impl VerifyReport {
    /// Whether nothing durable is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.segments.iter().all(|segment| segment.damage.is_none())
    }

    /// Positions whose records an earlier repair gave up.
    #[must_use]
    pub fn holes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.holes).sum()
    }

    /// Number of whole records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end.0 - segment.first.0 - segment.holes).sum()
    }
}

/// Describes the log in a directory.
pub fn inspect(dir: &Path) -> Result<InspectReport, LogError> {
    let (view, recovery) = LogView::open_read_only(dir)?;
    Ok(InspectReport {
        path: dir.to_path_buf(),
        recovery,
        segments: view.segments(),
        cursors: view.cursors()?,
    })
}

/// Fails with [`LogError::NewerVersion`] if a later program wrote anything in this directory; a missing one is good. Whoever
/// opens several logs asks this of all of them first, so that nothing is changed when one of them must be refused.
pub fn refuse_newer(dir: &Path) -> Result<(), LogError> {
    let fault = |source| LogError::Io { doing: "listing", path: dir.to_path_buf(), source };
    let storage = match DiskStorage::existing(dir) {
        Ok(storage) => storage,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(fault(source)),
    };
    for entry in storage.list().map_err(fault)? {
        let read = if parse_name(&entry.name).is_some() {
            let file = storage.open(&entry.name, false);
            file.map_err(fault).and_then(|file| read_header(&storage, &entry.name, &*file).map(|_header| ()))
        } else {
            cursor::check(&storage, &entry.name)
        };
        match read {
            Err(error @ LogError::NewerVersion { .. }) => return Err(error),
            _ => {} // an error is for the opening to say
        }
    }
    Ok(())
}

/// Reads and checks every byte of the log in a directory. Damage is in the report; an error means that the
/// directory could not be read.
pub fn verify(dir: &Path) -> Result<VerifyReport, LogError> {
    let fault = |doing| move |source| LogError::Io { doing, path: dir.to_path_buf(), source };
    let storage = DiskStorage::existing(dir).map_err(fault("opening"))?;
    let mut names: Vec<(String, Position)> = storage
        .list()
        .map_err(fault("listing"))?
        .into_iter()
        .filter_map(|entry| parse_name(&entry.name).map(|first| (entry.name, first)))
        .collect();
    names.sort_unstable();
    let mut report =
        VerifyReport { path: dir.to_path_buf(), segments: Vec::new(), cut: None, problems: Vec::new() };
    let mut before: Option<Previous> = None;
    for (i, (name, first)) in names.iter().enumerate() {
        let next = names.get(i + 1).map(|(_name, first)| *first);
        let (check, header) = match check_segment(&storage, name, *first, next) {
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue, // trimmed
            result => result?,
        };
        if let (Some(header), Some(before)) = (header, before)
            && header.previous != Some(before)
        {
            report
                .problems
                .push(format!("{} was not written after the segment before it", check.path.display()));
        }
        before = Some(Previous { first: *first, bytes: check.bytes });
        report.segments.push(check);
    }
    judge_tail(&storage, &mut report);
    if let Err(error) = cursor::all(&storage) {
        report.problems.push(error.to_string());
    }
    Ok(report)
}

/// Whether a bad end is a torn tail or damage is for the opening to say.
fn judge_tail(storage: &DiskStorage, report: &mut VerifyReport) {
    match crate::recovery::load(storage) {
        Ok(loaded) => {
            report.cut = loaded.tail.and_then(|tail| tail.cut);
            if let (Some(_cut), Some(last)) = (&report.cut, report.segments.last_mut()) {
                last.damage = None;
            }
        }
        Err(error) if report.is_whole() => report.problems.push(error.to_string()),
        Err(_already_reported) => {}
    }
}

fn check_segment(
    storage: &DiskStorage,
    name: &str,
    first: Position,
    next: Option<Position>,
) -> Result<(SegmentCheck, Option<Header>), LogError> {
    let fault = |doing| move |source| crate::segment::io(storage, doing, name, source);
    let file = storage.open(name, false).map_err(fault("opening"))?;
    let bytes = file.bytes().map_err(fault("reading"))?;
    let mut check = SegmentCheck {
        path: storage.path(name),
        epoch: None,
        first,
        end: first,
        groups: 0,
        holes: 0,
        bytes,
        damage: None,
    };
    let header = match read_header(storage, name, &*file) {
        Ok(header) => header,
        Err(error @ LogError::Io { .. }) => return Err(error),
        Err(error) => {
            check.damage = Some(error.to_string());
            return Ok((check, None));
        }
    };
    check.epoch = Some(header.epoch);
    let segment = Segment::new(header);
    let mut frames = Frames::new(Arc::clone(&file), &segment, segment.begin(), bytes, Vec::new());
    let mut within_group = false;
    loop {
        match frames.next() {
            Ok(Some(frame)) => {
                check.end = check.end.next();
                check.holes += u64::from(frame.flags & FLAG_HOLE != 0);
                within_group = frame.flags & FLAG_MORE != 0;
                check.groups += u64::from(!within_group);
            }
            Ok(None) => break,
            Err(FrameFault::Read(source)) => return Err(fault("reading")(source)),
            Err(FrameFault::Bad(what)) => {
                check.damage = Some(format!("byte {} (position {}): {what}", frames.offset(), check.end));
                return Ok((check, Some(header)));
            }
        }
    }
    if within_group {
        check.damage = Some(format!("byte {bytes}: the last group is not whole"));
    } else if next.is_some_and(|next| next != check.end) {
        check.damage =
            Some(format!("its records end at position {}, where the next segment does not begin", check.end));
    }
    Ok((check, Some(header)))
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), self.recovery)?;
        for segment in &self.segments {
            writeln!(
                f,
                "  {}  epoch {:016x}  positions {} to {}  {} bytes{}",
                file_name(&segment.path),
                segment.epoch,
                segment.first,
                segment.end,
                segment.bytes,
                if segment.sealed { "" } else { "  (last)" }
            )?;
        }
        for (name, at) in &self.cursors {
            let behind = self.recovery.end.0.saturating_sub(at.0);
            writeln!(f, "  cursor {name} at {at}, {behind} behind the end")?;
        }
        Ok(())
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            let name = file_name(&segment.path);
            match &segment.damage {
                Some(damage) => writeln!(f, "  {name}  DAMAGED at {damage}")?,
                None => writeln!(
                    f,
                    "  {name}  positions {} to {}, {} groups, {} bytes: whole",
                    segment.first, segment.end, segment.groups, segment.bytes
                )?,
            }
        }
        for problem in &self.problems {
            writeln!(f, "  DAMAGED: {problem}")?;
        }
        if let Some(cut) = &self.cut {
            writeln!(f, "  torn end, no damage; the next opening will have {cut}")?;
        }
        let verdict = if self.is_whole() { "whole" } else { "DAMAGED" };
        let (path, segments) = (self.path.display(), self.segments.len());
        writeln!(f, "{path}: {verdict}, {} records in {segments} segments", self.records())
    }
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
