//! Walks the folder and reads what is new, one bounded step per call. Blocking; the driver runs it off the runtime.
//!
//! Files go in the order of their names. Only whole lines count: what follows the last line feed may still grow. A
//! step that fails leaves this reader unusable; a new one starts from the newest stored position.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use model::Timestamp;

use super::content::{self, Content, Likeness};
use super::ledger::{CONTENTS_MAX, ContentId, Ledger, LedgerError};
use super::quarantine::{Entry, Quarantine};
use super::row::Header;
use super::{Settings, Start};
use crate::drivers::{DriverError, NextRead, READINGS_MAX, Readings};

/// Bytes that one step reads.
const STEP_BYTES: u64 = 256 * 1024;
/// A line longer than this is none.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A copy over a slow network pauses for less; a log that was cut back may go on this much later.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 60_000 });

/// The folder, as far as it is read.
#[derive(Debug)]
pub(super) struct Reader {
    settings: Settings,
    ledger: Ledger,
    quarantine: Quarantine,
    /// Whether files found now were there before the agent's first start.
    first_scan: bool,
    /// Files that may hold something new, in order.
    queue: VecDeque<String>,
    /// What is known of each file, by its inode.
    seen: HashMap<(u64, u64), Seen>,
    /// Files that the agent may not read.
    no_access: HashSet<String>,
    /// The first file that could not be opened in this round, and why.
    unreadable: Option<String>,
}

/// A file as it was when it was read to its end.
#[derive(Debug, Default)]
struct Seen {
    /// Size and time of change when nothing was left to read.
    finished: Option<(u64, i64, i64)>,
    /// Which content it holds and where its columns are.
    header: Option<(ContentId, Header)>,
    /// It looks like the beginning of a known content.
    waiting: Option<Waiting>,
    /// Whether a scan has met it; others are forgotten.
    present: bool,
}

#[derive(Debug)]
struct Waiting {
    /// What was in the file when the waiting began.
    content: Content,
    /// The file as it was last seen, and since when it has been so.
    state: (u64, i64, i64),
    since: Instant,
}

enum Waited {
    StillWaiting,
    Known(Content),
    New,
}

impl Reader {
    /// Opens the folder at a stored position.
    pub(super) fn open(settings: &Settings, position: Option<&[u8]>) -> Result<Reader, DriverError> {
        let disk = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| DriverError::NotConnected(format!("{path}: {error}"))
        };
        std::fs::read_dir(&settings.folder).map_err(|error| {
            DriverError::NotConnected(match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "folder {} is missing: create it, or mount what holds it",
                    settings.folder.display()
                ),
                _ => format!("folder {}: {error}", settings.folder.display()),
            })
        })?;
        std::fs::create_dir_all(&settings.state_dir).map_err(disk(&settings.state_dir))?;
        let (ledger, quarantined) = Ledger::open(&settings.state_dir, position).map_err(ledger_fault)?;
        let quarantine =
            Quarantine::open(&settings.state_dir, quarantined).map_err(disk(&settings.state_dir))?;
        Ok(Reader {
            settings: settings.clone(),
            ledger,
            quarantine,
            first_scan: position.is_none(),
            queue: VecDeque::new(),
            seen: HashMap::new(),
            no_access: HashSet::new(),
            unreadable: None,
        })
    }

    /// One step.
    pub(super) fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        if self.queue.is_empty() {
            self.scan()?;
        }
        let mut step = Step { budget: STEP_BYTES, moved: self.first_scan, entries: Vec::new() };
        while let Some(name) = self.queue.front().cloned() {
            match self.read_file(&name, &mut step, into) {
                Ok(true) => {}
                Ok(false) => break,
                Err(FileFault::This(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.refuse_access(&name, &error, &mut step);
                }
                Err(FileFault::This(error)) => {
                    self.unreadable.get_or_insert(format!("{name}: {error}"));
                }
                Err(FileFault::Ours(error)) => return Err(error),
            }
            self.queue.pop_front();
        }
        self.first_scan &= !self.queue.is_empty();
        if step.moved {
            self.quarantine.append(self.settings.clock.now(), &mut step.entries).map_err(|error| {
                DriverError::NotConnected(format!("{}: {error}", self.quarantine.path.display()))
            })?;
            into.quarantined += step.entries.len() as u64;
            into.position = Some(self.ledger.position(self.quarantine.bytes).map_err(ledger_fault)?);
        }
        match self.unreadable.take() {
            _ if !self.queue.is_empty() => Ok(NextRead::AtOnce),
            Some(error) if into.list.is_empty() && !step.moved => Err(DriverError::NotConnected(error)),
            _ => Ok(NextRead::OnSchedule),
        }
    }

    /// The position is on disk.
    pub(super) fn acknowledge(&self, position: &[u8]) -> Result<(), DriverError> {
        self.ledger.acknowledge(position).map_err(ledger_fault)
    }

    /// Queues the files that have changed.
    fn scan(&mut self) -> Result<(), DriverError> {
        let fault =
            |error| DriverError::NotConnected(format!("folder {}: {error}", self.settings.folder.display()));
        for seen in self.seen.values_mut() {
            seen.present = false;
        }
        let mut names = Vec::new();
        let mut found = 0;
        for entry in std::fs::read_dir(&self.settings.folder).map_err(fault)? {
            let Ok(name) = entry.map_err(fault)?.file_name().into_string() else { continue };
            if !self.settings.pattern.matches(&name) {
                continue;
            }
            // A file that goes away between the two calls is no file.
            let Ok(metadata) = std::fs::metadata(self.settings.folder.join(&name)) else { continue };
            if !metadata.is_file() {
                continue;
            }
            found += 1;
            let seen = self.seen.entry(inode(&metadata)).or_default();
            seen.present = true;
            let waited = seen.waiting.as_ref().is_some_and(|waiting| waiting.since.elapsed() >= QUIET);
            if waited || seen.finished != Some(state(&metadata)) {
                names.push(name);
            }
        }
        if found > CONTENTS_MAX {
            return Err(DriverError::Config(format!(
                "more than {CONTENTS_MAX} files in {}: move old ones away",
                self.settings.folder.display()
            )));
        }
        self.seen.retain(|_, seen| seen.present);
        names.sort_unstable();
        self.no_access.retain(|name| names.binary_search(name).is_ok());
        self.queue = names.into();
        let seen = &self.seen;
        self.ledger.forget(|content| seen.contains_key(&content.inode)).map_err(ledger_fault)
    }

    /// Reads a file as far as the step allows; whether its end was reached.
    fn read_file(&mut self, name: &str, step: &mut Step, into: &mut Readings) -> Result<bool, FileFault> {
        let file = match File::open(self.settings.folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        let Some(id) = self.content_of(name, &file, &metadata, step)? else {
            self.finish(&metadata);
            return Ok(true);
        };
        let Some(header) = self.header_of(id, name, &file, &metadata, step)? else {
            self.finish(&metadata);
            return Ok(true);
        };
        let Some(mut content) = self.ledger.get(id).cloned() else { return Ok(true) };
        loop {
            if step.budget == 0 {
                return Ok(false);
            }
            let left = metadata.len().saturating_sub(content.offset);
            let mut bytes = read_at(&file, content.offset, left.min(step.budget))?;
            if !bytes.contains(&b'\n') && left > bytes.len() as u64 && !content.skipping {
                // A line longer than what is left of the step: that line alone.
                bytes = read_at(&file, content.offset, left.min(LINE_BYTES_MAX + 1))?;
                let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                bytes.truncate(end);
            }
            let marks = (into.list.len(), step.entries.len());
            let used = self.lines(name, &header, &mut content, &bytes, step, into);
            if used == 0 {
                let full = into.list.len() + self.settings.dialect.points.len() > READINGS_MAX;
                if !full || !bytes.contains(&b'\n') {
                    self.finish(&metadata);
                    return Ok(true);
                }
                return Ok(false);
            }
            // Somebody may have written the file anew while it was read: then these lines are not what came next.
            let offset = content.offset + used;
            let is_same = content.likeness(&file, metadata.len()).map(|likeness| likeness == Likeness::Same);
            let advanced =
                is_same.and_then(|same| if same { content.advance(&file, offset) } else { Err(changed()) });
            if let Err(error) = advanced {
                into.list.truncate(marks.0);
                step.entries.truncate(marks.1);
                return Err(error.into());
            }
            self.ledger.update(id, content.clone());
            step.moved = true;
            step.budget = step.budget.saturating_sub(used);
        }
    }

    /// Reads whole lines from `bytes`, which begin at the content's offset; how many bytes were used.
    fn lines(
        &self,
        name: &str,
        header: &Header,
        content: &mut Content,
        bytes: &[u8],
        step: &mut Step,
        into: &mut Readings,
    ) -> u64 {
        let dialect = &self.settings.dialect;
        let mut used = 0_usize;
        let mut bad = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let at = content.offset + used as u64;
            let is_whole = line.ends_with(b"\n");
            if content.skipping {
                content.skipping = !is_whole;
                content.lines += u64::from(is_whole);
                used += line.len();
                continue;
            }
            if !is_whole {
                if line.len() as u64 > LINE_BYTES_MAX {
                    let reason = format!("the line is longer than {LINE_BYTES_MAX} bytes");
                    step.entries.push(Entry::new(name, content.lines + 1, at, reason, line));
                    content.skipping = true;
                    used += line.len();
                }
                break;
            }
            if into.list.len() + dialect.points.len() > READINGS_MAX {
                break;
            }
            let text = trim_end(line);
            if !text.is_empty() {
                let last = content.last_time.map(Timestamp);
                match dialect.readings(header, text, last, &mut into.list, &mut bad) {
                    Ok(time) => content.last_time = Some(time.0),
                    Err(reason) => step.entries.push(Entry::new(name, content.lines + 1, at, reason, text)),
                }
                for cell in bad.drain(..) {
                    let entry = Entry::new(name, content.lines + 1, at, cell.reason, text);
                    step.entries.push(entry.of_cell());
                }
            }
            content.lines += 1;
            used += line.len();
        }
        used as u64
    }

    /// Which content a file holds; `None` while it may be a copy under way.
    fn content_of(
        &mut self,
        name: &str,
        file: &File,
        metadata: &Metadata,
        step: &mut Step,
    ) -> Result<Option<ContentId>, FileFault> {
        let (inode, size) = (inode(metadata), metadata.len());
        let known = self.ledger.by_inode(inode);
        let likeness = known.map(|(_, content)| content.likeness(file, size)).transpose()?;
        let held =
            known.filter(|_| likeness == Some(Likeness::Same)).map(|(id, content)| (id, content.clone()));
        let in_use = self.seen.get(&inode).and_then(|seen| seen.header.as_ref()).map(|(id, _)| *id);
        if let Some((id, content)) = &held
            && in_use == Some(*id)
            && content.name == name
        {
            return Ok(Some(*id));
        }
        let (best, beginning) = self.search(file, size)?;
        if let Some((id, held)) = held {
            // The file may meanwhile hold what was accepted from another one.
            let further = best.map(|(_, content)| content).filter(|best| best.offset > held.offset);
            let content = further.unwrap_or(held);
            self.ledger.update(id, Content { inode, name: name.to_owned(), ..content });
            return Ok(Some(id));
        }
        if let Some((id, content)) = best {
            let other_is_here = content.inode != inode && self.seen.contains_key(&content.inode);
            let content = Content { inode, name: name.to_owned(), ..content };
            if other_is_here {
                return Ok(Some(self.ledger.add(content)));
            }
            self.ledger.update(id, content);
            return Ok(Some(id));
        }
        let beginning =
            beginning.or(known.filter(|_| likeness == Some(Likeness::Beginning)).map(|(_, c)| c.clone()));
        let mut content = match self.wait(beginning, file, metadata)? {
            Waited::StillWaiting => return Ok(None),
            Waited::Known(content) => content,
            Waited::New => Content::new(inode, name),
        };
        (content.inode, content.name) = (inode, name.to_owned());
        if self.first_scan && self.settings.start == Start::End && content.offset == 0 {
            accept_whole_lines(&mut content, file, size)?;
        }
        step.moved |= content.offset > 0;
        Ok(Some(self.ledger.add(content)))
    }

    /// Compares a file with every content that begins like it.
    fn search(&self, file: &File, size: u64) -> io::Result<Found> {
        let mut best: Option<(ContentId, &Content)> = None;
        let mut beginning = None;
        for head in content::heads(file, size)? {
            for (id, content) in self.ledger.by_head(head) {
                match content.likeness(file, size)? {
                    Likeness::Same if best.is_none_or(|(_, best)| best.offset < content.offset) => {
                        best = Some((id, content));
                    }
                    Likeness::Beginning => beginning = Some(content.clone()),
                    Likeness::Same | Likeness::Different => {}
                }
            }
        }
        Ok((best.map(|(id, content)| (id, content.clone())), beginning))
    }

    /// What to make of a file that is like the beginning of a known content, or was until now.
    ///
    /// It may be a copy under way: then it will hold the whole content, and nothing is read before. Or somebody cut it
    /// back: then what comes behind the cut is new. So it waits until it is one or the other, or has been quiet for
    /// [`QUIET`]; what was there when the waiting began is accepted already.
    fn wait(
        &mut self,
        beginning: Option<Content>,
        file: &File,
        metadata: &Metadata,
    ) -> Result<Waited, FileFault> {
        let now = state(metadata);
        let seen = self.seen.entry(inode(metadata)).or_default();
        let Some(content) = beginning else {
            let Some(waiting) = seen.waiting.take() else { return Ok(Waited::New) };
            let is_known = waiting.content.likeness(file, metadata.len())? == Likeness::Same;
            return Ok(if is_known { Waited::Known(waiting.content) } else { Waited::New });
        };
        match &mut seen.waiting {
            Some(waiting) if waiting.state != now => (waiting.state, waiting.since) = (now, Instant::now()),
            Some(waiting) if waiting.since.elapsed() < QUIET => {}
            Some(waiting) => {
                let content = waiting.content.clone();
                seen.waiting = None;
                return Ok(Waited::Known(content));
            }
            None => {
                let mut cut = Content::new((0, 0), &content.name);
                (cut.header_bytes, cut.last_time) = (content.header_bytes, content.last_time);
                accept_whole_lines(&mut cut, file, metadata.len())?;
                seen.waiting = Some(Waiting { content: cut, state: now, since: Instant::now() });
            }
        }
        Ok(Waited::StillWaiting)
    }

    /// Where the file's columns are; `None` if its first line is not whole yet, or no header.
    fn header_of(
        &mut self,
        id: ContentId,
        name: &str,
        file: &File,
        metadata: &Metadata,
        step: &mut Step,
    ) -> Result<Option<Header>, FileFault> {
        let known = self.seen.get(&inode(metadata)).and_then(|seen| seen.header.as_ref());
        if let Some((_, header)) = known.filter(|(known, _)| *known == id) {
            return Ok(Some(header.clone()));
        }
        let Some(mut content) = self.ledger.get(id).cloned() else { return Ok(None) };
        let bytes = read_at(file, 0, metadata.len().min(STEP_BYTES))?;
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            if bytes.len() as u64 == STEP_BYTES {
                self.refuse(id, name, "the header is longer than 262144 bytes".into(), &bytes, step);
            }
            return Ok(None);
        };
        let line = trim_end(bytes.get(..=end).unwrap_or(&bytes));
        let header = match self.settings.dialect.header(line) {
            Ok(header) => header,
            Err(reason) => {
                self.refuse(id, name, reason, line, step);
                return Ok(None);
            }
        };
        if content.header_bytes == 0 {
            content.refused = false;
            content.header_bytes = end as u64 + 1;
            if content.offset == 0 {
                content.lines = 1;
                content.advance(file, content.header_bytes)?;
            }
            self.ledger.update(id, content);
            step.moved = true;
        }
        let seen = self.seen.entry(inode(metadata)).or_default();
        (seen.header, seen.present) = (Some((id, header.clone())), true);
        Ok(Some(header))
    }

    /// Notes once that the file cannot be read at all.
    fn refuse(&mut self, id: ContentId, name: &str, reason: String, line: &[u8], step: &mut Step) {
        let Some(content) = self.ledger.get(id).filter(|content| !content.refused).cloned() else { return };
        step.entries.push(Entry::new(name, 1, 0, format!("the whole file: {reason}"), line));
        step.moved = true;
        self.ledger.update(id, Content { refused: true, ..content });
    }

    /// Notes once that the agent may not read a file; it is tried again every time.
    fn refuse_access(&mut self, name: &str, error: &io::Error, step: &mut Step) {
        if self.no_access.insert(name.to_owned()) {
            step.entries.push(Entry::new(name, 0, 0, format!("the whole file: {error}"), b""));
            step.moved = true;
        }
    }

    fn finish(&mut self, metadata: &Metadata) {
        let seen = self.seen.entry(inode(metadata)).or_default();
        (seen.finished, seen.present) = (Some(state(metadata)), true);
    }
}

/// The content of which a file holds most, and one of which it is the beginning.
type Found = (Option<(ContentId, Content)>, Option<Content>);

/// What one call has done so far.
struct Step {
    /// Bytes that it may still read.
    budget: u64,
    /// Whether there is something to store.
    moved: bool,
    entries: Vec<Entry>,
}

/// Whom a failure concerns.
enum FileFault {
    /// This file alone: it is tried again in the next round.
    This(io::Error),
    /// The driver.
    Ours(DriverError),
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> Self {
        FileFault::This(error)
    }
}

impl From<DriverError> for FileFault {
    fn from(error: DriverError) -> Self {
        FileFault::Ours(error)
    }
}

fn changed() -> io::Error {
    io::Error::other("it was written anew while it was read")
}

fn ledger_fault(error: LedgerError) -> DriverError {
    match error {
        LedgerError::Damaged(why) => DriverError::Config(format!(
            "{why}; put the state folder back, or give the device another name to read everything again"
        )),
        LedgerError::Io { .. } => DriverError::NotConnected(error.to_string()),
    }
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn state(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// Up to `length` bytes; fewer at the end of the file.
fn read_at(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Accepts what there is, without reading it as rows.
fn accept_whole_lines(content: &mut Content, file: &File, size: u64) -> io::Result<()> {
    let (mut at, mut end, mut lines) = (0, 0, 0);
    while at < size {
        let bytes = read_at(file, at, STEP_BYTES.min(size - at))?;
        if bytes.is_empty() {
            break;
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = at + last as u64 + 1;
        }
        at += bytes.len() as u64;
    }
    content.lines = lines;
    content.advance(file, end)
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A pattern of file names: `*` is any text, `?` any character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) String);

impl Pattern {
    /// Whether the whole name fits.
    pub(super) fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == '?' || name.get(n) == Some(c) => (p, n) = (p + 1, n + 1),
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        (p, n) = (at + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(p).all(|c| *c == '*')
    }
}
