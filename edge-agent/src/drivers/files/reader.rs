//! Walks the files and reads what is new, one bounded step per call. Blocking; the driver runs it off the runtime.
//!
//! Files go in the order of their names. In a growing file only whole lines count: what follows the last line feed may
//! still grow. A step that fails leaves this reader unusable; a new one starts from the newest stored position.
//!
//! - `identity` says which content a file holds, `walk` reads it, `aftermath` moves it away when that is on disk.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::again;
use super::content::Content;
use super::ledger::{CONTENTS_MAX, ContentId, Ledger, LedgerError};
use super::mapping::Layout;
use super::pattern::Pattern;
use super::place::{Facts, Place, Source};
use super::quarantine::{Entry, Quarantine};
use super::settings::{Finished, Mode, Settings, Start};
use crate::drivers::{DriverError, NextRead, Readings};
use aftermath::Aftermath;
use identity::Waiting;

mod aftermath;
mod identity;
mod walk;

/// Bytes that one step reads.
const STEP_BYTES: u64 = 256 * 1024;
/// Listing a folder that takes no longer is done at each poll, even if the system watches it ...
const LISTING_CHEAP: Duration = Duration::from_millis(10);
/// ... otherwise, and when the system wakes the device, it may take this part of the time.
const LISTING_PART: u32 = 50;
/// ... and is done so often at least.
const LISTING_APART_MAX: Duration = Duration::from_secs(60);

/// The files, as far as they are read.
#[derive(Debug)]
pub(super) struct Reader {
    settings: Settings,
    place: Box<dyn Place>,
    ledger: Ledger,
    quarantine: Quarantine,
    aftermath: Aftermath,
    /// Whether files found now were there before the agent's first start.
    first_scan: bool,
    /// Files that may hold something new, in order.
    queue: VecDeque<String>,
    /// What is known of each file, by its identity.
    seen: HashMap<(u64, u64), Seen>,
    /// Files that are looked at in every round: they wait for something.
    pending: BTreeSet<String>,
    /// When the folder is listed again even if nothing is said to have changed.
    list_at: Instant,
    listing_is_cheap: bool,
    /// Files that the agent may not read.
    no_access: HashSet<String>,
    /// The first file that could not be opened in this round, and why.
    unreadable: Option<String>,
}

/// A file as it was when it was read to its end.
#[derive(Debug, Default)]
struct Seen {
    /// Size and time of change when nothing was left to read.
    finished: Option<(u64, i64)>,
    /// Size and time of change, and since when they are so; for files that are read when finished.
    unchanged: Option<((u64, i64), Instant)>,
    /// Which content it holds and where its cells are.
    layout: Option<(ContentId, Layout)>,
    /// It looks like the beginning of a known content.
    waiting: Option<Waiting>,
    /// Whether a listing has met it; others are forgotten.
    present: bool,
}

/// A file that is being read.
struct Open<'n> {
    name: &'n str,
    file: Box<dyn Source>,
    facts: Facts,
}

/// What one call has done so far.
struct Step {
    /// Bytes that it may still read.
    budget: u64,
    /// Whether there is something to store.
    moved: bool,
    entries: Vec<Entry>,
    /// Files that are read to their end.
    done: Vec<(String, Facts)>,
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

impl Reader {
    /// Opens the place at a stored position.
    pub(super) fn open(
        settings: &Settings,
        mut place: Box<dyn Place>,
        position: Option<&[u8]>,
    ) -> Result<Reader, DriverError> {
        let disk = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| DriverError::NotConnected(format!("{path}: {error}"))
        };
        place.open()?;
        std::fs::create_dir_all(&settings.state_dir).map_err(disk(&settings.state_dir))?;
        let (ledger, quarantined) = Ledger::open(&settings.state_dir, position).map_err(ledger_fault)?;
        let quarantine =
            Quarantine::open(&settings.state_dir, quarantined).map_err(disk(&settings.state_dir))?;
        Ok(Reader {
            settings: settings.clone(),
            place,
            ledger,
            quarantine,
            aftermath: Aftermath::new(settings),
            first_scan: position.is_none(),
            queue: VecDeque::new(),
            seen: HashMap::new(),
            pending: BTreeSet::new(),
            list_at: Instant::now(),
            listing_is_cheap: true,
            no_access: HashSet::new(),
            unreadable: None,
        })
    }

    /// One step.
    pub(super) fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        if self.queue.is_empty() {
            self.scan()?;
        }
        let mut step =
            Step { budget: STEP_BYTES, moved: self.first_scan, entries: Vec::new(), done: Vec::new() };
        while let Some(name) = self.queue.front().cloned() {
            match self.read_file(&name, &mut step, into) {
                Ok(true) => {}
                Ok(false) => break,
                Err(FileFault::This(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.pending.insert(name.clone());
                    self.refuse_access(&name, &error, &mut step);
                }
                Err(FileFault::This(error)) if self.place.is_lost() => {
                    return Err(DriverError::NotConnected(format!("{name}: {error}")));
                }
                Err(FileFault::This(error)) => {
                    self.pending.insert(name.clone());
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
        self.aftermath.add(step.done, step.moved);
        self.aftermath.settle(self.place.as_mut());
        match self.unreadable.take() {
            _ if !self.queue.is_empty() => Ok(NextRead::AtOnce),
            Some(error) if into.list.is_empty() && !step.moved => Err(DriverError::NotConnected(error)),
            _ => Ok(NextRead::OnSchedule),
        }
    }

    /// The position is on disk.
    pub(super) fn acknowledge(&mut self, position: &[u8]) -> Result<(), DriverError> {
        self.ledger.acknowledge(position).map_err(ledger_fault)?;
        self.aftermath.stored();
        self.aftermath.settle(self.place.as_mut());
        Ok(())
    }

    /// Queues the files that have changed, or are said to have.
    fn scan(&mut self) -> Result<(), DriverError> {
        let wishes = again::take(&self.settings.state_dir);
        // Nothing said to have changed may be news that is still on its way: where it is cheap, the poll looks itself.
        let trusts = |changed: &Vec<String>| !changed.is_empty() || !self.listing_is_cheap;
        let changed = self
            .place
            .changes()
            .filter(|changed| Instant::now() < self.list_at && wishes.is_empty() && trusts(changed));
        let mut names = match changed {
            Some(changed) => self.look_at(changed),
            None => self.look_at_all(&wishes.patterns)?,
        };
        names.sort_unstable();
        names.dedup();
        names.extend(wishes.paths);
        self.queue = names.into();
        Ok(())
    }

    /// Which of these files, and of those that wait, are to be read.
    fn look_at(&mut self, changed: Vec<String>) -> Vec<String> {
        let mut names: BTreeSet<String> = self.pending.clone();
        for name in changed {
            let name = match self.marker().and_then(|marker| name.strip_suffix(marker)) {
                Some(marked) => marked.to_owned(),
                None => name,
            };
            if self.settings.pattern.matches(&name) {
                names.insert(name);
            }
        }
        let mut queue = Vec::new();
        for name in names {
            match self.place.facts(&name) {
                Ok(facts) if self.is_due(&name, facts) => queue.push(name),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(self.pending.remove(&name)),
                Err(_) => queue.push(name), // opening it will say what is wrong
            }
        }
        queue
    }

    /// Which of all files are to be read; those of these patterns in any case.
    fn look_at_all(&mut self, again: &[Pattern]) -> Result<Vec<String>, DriverError> {
        let began = Instant::now();
        for seen in self.seen.values_mut() {
            seen.present = false;
        }
        self.pending.clear();
        let pattern = self.settings.pattern.clone();
        let found = self.place.list(&|name| pattern.matches(name))?;
        if found.len() > CONTENTS_MAX {
            return Err(DriverError::Config(format!(
                "more than {CONTENTS_MAX} files in the folder: move old ones away"
            )));
        }
        let mut queue = Vec::new();
        for (name, facts) in found {
            let wished = again.iter().any(|pattern| pattern.matches(&name));
            if self.no_access.contains(&name) {
                self.pending.insert(name.clone());
            }
            if self.is_due(&name, facts) || wished {
                queue.push(name);
            }
        }
        self.seen.retain(|_, seen| seen.present);
        let pending = &self.pending;
        self.no_access.retain(|name| pending.contains(name));
        let seen = &self.seen;
        self.ledger.forget(|content| seen.contains_key(&content.inode)).map_err(ledger_fault)?;
        let took = began.elapsed();
        self.listing_is_cheap = took <= LISTING_CHEAP;
        self.list_at = Instant::now() + (took * LISTING_PART).min(LISTING_APART_MAX);
        Ok(queue)
    }

    /// Whether a file is to be read now. One that has to wait for something is pending.
    fn is_due(&mut self, name: &str, facts: Facts) -> bool {
        let skips = self.first_scan && self.settings.start == Start::End;
        let age = self.finished_age();
        let seen = self.seen.entry(facts.identity).or_default();
        seen.present = true;
        let waited = seen.waiting.as_ref().is_some_and(Waiting::is_over);
        let is_new = waited || seen.finished != Some(facts.state());
        let is_old = age.is_none_or(|age| skips || seen.is_unchanged_for(age, facts));
        let waits = seen.waiting.is_some();
        let is_due = is_new && is_old && (skips || self.is_marked(name));
        if waits || is_new != is_due || self.no_access.contains(name) {
            self.pending.insert(name.to_owned());
        } else {
            self.pending.remove(name);
        }
        is_due
    }

    fn marker(&self) -> Option<&str> {
        match &self.settings.mode {
            Mode::Whole(Finished::Marker(marker)) => Some(marker),
            _ => None,
        }
    }

    fn is_marked(&mut self, name: &str) -> bool {
        let marker = self.marker().map(|marker| format!("{name}{marker}"));
        marker.is_none_or(|marker| self.place.facts(&marker).is_ok())
    }

    fn finished_age(&self) -> Option<Duration> {
        match &self.settings.mode {
            Mode::Whole(Finished::Age(age)) => Some(*age),
            _ => None,
        }
    }

    fn is_whole_mode(&self) -> bool {
        self.settings.mode != Mode::Growing
    }

    /// Notes once that the file cannot be read at all.
    fn refuse(&mut self, id: ContentId, open: &Open<'_>, reason: &str, text: &[u8], step: &mut Step) {
        let Some(content) = self.ledger.get(id).cloned() else { return };
        let modified = if self.is_whole_mode() { open.facts.modified } else { 0 };
        if !content.refused || content.modified != modified {
            step.entries.push(Entry::new(open.name, 1, 0, format!("the whole file: {reason}"), text));
            step.moved = true;
            self.ledger.update(id, Content { refused: true, modified, ..content });
        }
    }

    /// Notes once that the agent may not read a file; it is tried again every time.
    fn refuse_access(&mut self, name: &str, error: &io::Error, step: &mut Step) {
        if self.no_access.insert(name.to_owned()) {
            step.entries.push(Entry::new(name, 0, 0, format!("the whole file: {error}"), b""));
            step.moved = true;
        }
    }

    /// There is nothing more to read in this file, as it is.
    fn finish(&mut self, open: &Open<'_>) {
        let seen = self.seen.entry(open.facts.identity).or_default();
        (seen.finished, seen.present) = (Some(open.facts.state()), true);
        if seen.waiting.is_none() {
            self.pending.remove(open.name);
        } else {
            self.pending.insert(open.name.to_owned());
        }
    }
}

impl Seen {
    /// Whether the file has been as it is for so long, as far as was seen.
    fn is_unchanged_for(&mut self, age: Duration, facts: Facts) -> bool {
        match self.unchanged {
            Some((state, since)) if state == facts.state() => since.elapsed() >= age,
            _ => {
                self.unchanged = Some((facts.state(), Instant::now()));
                age.is_zero()
            }
        }
    }
}

fn ledger_fault(error: LedgerError) -> DriverError {
    match error {
        LedgerError::Damaged(why) => DriverError::Config(format!(
            "{why}; put the state folder back, or give the device another name to read everything again"
        )),
        LedgerError::Io { .. } => DriverError::NotConnected(error.to_string()),
    }
}
