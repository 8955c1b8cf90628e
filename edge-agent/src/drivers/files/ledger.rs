//! Every content of the folder and how much of it is accepted; durable with the agent's log.
//!
//! The position that goes into the log with each lot of readings is bounded: it holds the contents changed lately in
//! full, and names how far a journal file holds the others. Both are JSON.
//!
//! ```text
//! position  {"v":1, "g":2, "j":8190, "h":hash, "q":512, "n":7, "c":[[5,{…}],[6,{…}]]}
//!            version, journal generation, its length and hash, the quarantine's length, next id, contents by id
//! journal   contents-2.ndjson: lines [id,{content}]; later lines replace earlier ones
//! ```
//!
//! The journal is written and synced before a position names its new length, and cut back to the position's length on
//! open: what the log does not know never happened. A journal that has become long is written anew as the next
//! generation; the old one goes when a position naming the new one is on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::content::{Content, Head};

/// Contents that are remembered. The oldest of which no file is left are forgotten first.
pub(super) const CONTENTS_MAX: usize = 200_000;
/// A position longer than this sends its contents to the journal.
const POSITION_BYTES_MAX: usize = 8 * 1024;
/// A journal shorter than this is not worth writing anew.
const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;
const VERSION: u32 = 1;

/// Number of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct ContentId(u32);

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// The stored position is not ours, or the journal is not what it names.
    #[error("{0}")]
    Damaged(String),
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "v")]
    version: u32,
    #[serde(rename = "g")]
    generation: u64,
    #[serde(rename = "j")]
    journal_bytes: u64,
    #[serde(rename = "h")]
    journal_hash: u32,
    #[serde(rename = "q")]
    quarantine_bytes: u64,
    #[serde(rename = "n")]
    next: u32,
    #[serde(rename = "c")]
    contents: Vec<(ContentId, Content)>,
}

/// The contents.
#[derive(Debug)]
pub(super) struct Ledger {
    state_dir: PathBuf,
    contents: BTreeMap<ContentId, Content>,
    next: u32,
    by_inode: HashMap<(u64, u64), ContentId>,
    /// Of each head by offset and the print before it.
    by_head: HashMap<Head, BTreeMap<(u64, u64), BTreeSet<ContentId>>>,
    /// Of each anchor that tells contents apart.
    by_anchor: HashMap<Head, BTreeSet<ContentId>>,
    /// Changed since the journal's end.
    changed: BTreeSet<ContentId>,
    generation: u64,
    journal_bytes: u64,
    journal_hash: u32,
}

impl Ledger {
    /// The ledger as of a stored position, or an empty one, and the quarantine's length as of it.
    pub(super) fn open(
        state_dir: &Path,
        position: Option<&[u8]>,
    ) -> Result<(Ledger, Option<u64>), LedgerError> {
        let mut ledger = Ledger {
            state_dir: state_dir.to_owned(),
            contents: BTreeMap::new(),
            next: 1,
            by_inode: HashMap::new(),
            by_head: HashMap::new(),
            by_anchor: HashMap::new(),
            changed: BTreeSet::new(),
            generation: 1,
            journal_bytes: 0,
            journal_hash: 0,
        };
        let Some(position) = position else {
            ledger.remove_other_journals(0)?;
            return Ok((ledger, None));
        };
        let stored: Stored = serde_json::from_slice(position)
            .ok()
            .filter(|stored: &Stored| stored.version == VERSION)
            .ok_or_else(|| {
                LedgerError::Damaged("the stored position is not one of this driver's version".into())
            })?;
        (ledger.generation, ledger.next) = (stored.generation, stored.next);
        (ledger.journal_bytes, ledger.journal_hash) = (stored.journal_bytes, stored.journal_hash);
        ledger.read_journal()?;
        ledger.remove_other_journals(ledger.generation)?;
        for (id, content) in stored.contents {
            ledger.put(id, content);
            ledger.changed.insert(id);
        }
        Ok((ledger, Some(stored.quarantine_bytes)))
    }

    /// The content that a file with this inode held when it was last seen.
    pub(super) fn by_inode(&self, inode: (u64, u64)) -> Option<(ContentId, &Content)> {
        let id = *self.by_inode.get(&inode)?;
        Some((id, self.contents.get(&id)?))
    }

    /// Contents with this head of which a file of `size` bytes, whose prints `print` knows, holds all.
    pub(super) fn held(
        &self,
        head: Head,
        size: u64,
        print: impl Fn(u64) -> io::Result<u64>,
    ) -> io::Result<Vec<(ContentId, &Content)>> {
        let mut found = Vec::new();
        let Some(places) = self.by_head.get(&head) else { return Ok(found) };
        let mut last = None;
        for (offset, tail) in places.range(..=(size, u64::MAX)).map(|(place, _)| *place) {
            let known = match last {
                Some((at, print)) if at == offset => print,
                _ => print(offset)?,
            };
            last = Some((offset, known));
            if known == tail {
                let ids = places.get(&(offset, tail)).into_iter().flatten();
                found.extend(ids.filter_map(|id| Some((*id, self.contents.get(id)?))));
            }
        }
        Ok(found)
    }

    /// Contents that have this anchor.
    pub(super) fn by_anchor(&self, anchor: Head) -> impl Iterator<Item = &Content> {
        let ids = self.by_anchor.get(&anchor).into_iter().flatten();
        ids.filter_map(|id| self.contents.get(id))
    }

    /// A content.
    pub(super) fn get(&self, id: ContentId) -> Option<&Content> {
        self.contents.get(&id)
    }

    /// Adds a content.
    pub(super) fn add(&mut self, content: Content) -> ContentId {
        let id = ContentId(self.next);
        self.next += 1;
        self.update(id, content);
        id
    }

    /// Replaces a content. A file holds one content: another that had its inode has none from now on.
    pub(super) fn update(&mut self, id: ContentId, content: Content) {
        if content.inode != (0, 0)
            && let Some((other, held)) = self.by_inode(content.inode).filter(|(other, _)| *other != id)
        {
            let without = Content { inode: (0, 0), ..held.clone() };
            self.put(other, without);
            self.changed.insert(other);
        }
        self.put(id, content);
        self.changed.insert(id);
    }

    fn put(&mut self, id: ContentId, content: Content) {
        self.take_out(id);
        if content.inode != (0, 0) {
            self.by_inode.insert(content.inode, id);
        }
        if let Some(head) = content.head() {
            let places = self.by_head.entry(head).or_default();
            places.entry((content.offset, content.tail)).or_default().insert(id);
        }
        for anchor in content.telling_anchors() {
            self.by_anchor.entry(anchor).or_default().insert(id);
        }
        self.contents.insert(id, content);
    }

    fn take_out(&mut self, id: ContentId) {
        let Some(content) = self.contents.remove(&id) else { return };
        if self.by_inode.get(&content.inode) == Some(&id) {
            self.by_inode.remove(&content.inode);
        }
        for anchor in content.telling_anchors() {
            if let Some(ids) = self.by_anchor.get_mut(&anchor) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_anchor.remove(&anchor);
                }
            }
        }
        let Some(head) = content.head() else { return };
        let Some(places) = self.by_head.get_mut(&head) else { return };
        let place = (content.offset, content.tail);
        if let Some(ids) = places.get_mut(&place) {
            ids.remove(&id);
            if ids.is_empty() {
                places.remove(&place);
            }
        }
        if places.is_empty() {
            self.by_head.remove(&head);
        }
    }

    /// Forgets the oldest contents of which `present` says that no file is left, if there are too many.
    pub(super) fn forget(&mut self, present: impl Fn(&Content) -> bool) -> Result<(), LedgerError> {
        let surplus = self.contents.len().saturating_sub(CONTENTS_MAX);
        if surplus == 0 {
            return Ok(());
        }
        let gone = self.contents.iter().filter(|(_, content)| !present(content)).map(|(id, _)| *id);
        for id in gone.take(surplus + CONTENTS_MAX / 100).collect::<Vec<_>>() {
            self.take_out(id);
            self.changed.remove(&id);
        }
        self.write_anew()
    }

    /// The position now. What it names in the journal is on disk when this returns.
    pub(super) fn position(&mut self, quarantine_bytes: u64) -> Result<Vec<u8>, LedgerError> {
        let position = self.encode(quarantine_bytes);
        if position.len() <= POSITION_BYTES_MAX {
            return Ok(position);
        }
        let lines = self.lines(self.changed.iter());
        self.append(&lines)?;
        self.changed.clear();
        if self.journal_bytes > JOURNAL_BYTES_MIN {
            let live: usize = self.contents.len() * 400;
            if self.journal_bytes > live as u64 * 4 {
                self.write_anew()?;
            }
        }
        Ok(self.encode(quarantine_bytes))
    }

    /// A position is on disk: journals of other generations than it names are not needed any more.
    pub(super) fn acknowledge(&self, position: &[u8]) -> Result<(), LedgerError> {
        match serde_json::from_slice::<Stored>(position) {
            Ok(stored) if stored.generation == self.generation => self.remove_other_journals(self.generation),
            _ => Ok(()),
        }
    }

    fn encode(&self, quarantine_bytes: u64) -> Vec<u8> {
        let contents = self.changed.iter().filter_map(|id| Some((*id, self.contents.get(id)?.clone())));
        let stored = Stored {
            version: VERSION,
            generation: self.generation,
            journal_bytes: self.journal_bytes,
            journal_hash: self.journal_hash,
            quarantine_bytes,
            next: self.next,
            contents: contents.collect(),
        };
        serde_json::to_vec(&stored).unwrap_or_default() // numbers and texts: cannot fail
    }

    fn lines<'i>(&self, ids: impl Iterator<Item = &'i ContentId>) -> Vec<u8> {
        let mut lines = Vec::new();
        for (id, content) in ids.filter_map(|id| Some((id, self.contents.get(id)?))) {
            lines.extend(serde_json::to_vec(&(id, content)).unwrap_or_default());
            lines.push(b'\n');
        }
        lines
    }

    fn journal(&self, generation: u64) -> PathBuf {
        self.state_dir.join(format!("contents-{generation}.ndjson"))
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), LedgerError> {
        let path = self.journal(self.generation);
        let is_new = self.journal_bytes == 0;
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(self.journal_bytes)?;
            file.write_all(lines)?;
            file.sync_all()?;
            if is_new { File::open(&self.state_dir)?.sync_all() } else { Ok(()) }
        };
        written().map_err(|source| LedgerError::Io { path: path.clone(), source })?;
        self.journal_bytes += lines.len() as u64;
        self.journal_hash = hash(self.journal_hash, lines);
        Ok(())
    }

    fn write_anew(&mut self) -> Result<(), LedgerError> {
        let lines = self.lines(self.contents.keys());
        self.generation += 1;
        (self.journal_bytes, self.journal_hash) = (0, 0);
        self.append(&lines)?;
        self.changed.clear();
        Ok(())
    }

    fn read_journal(&mut self) -> Result<(), LedgerError> {
        if self.journal_bytes == 0 {
            return Ok(());
        }
        let path = self.journal(self.generation);
        let fault = |source| LedgerError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        let opened = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                LedgerError::Damaged(format!("{} is missing, but the agent's log needs it", path.display()))
            }
            _ => fault(source),
        })?;
        opened.take(self.journal_bytes).read_to_end(&mut bytes).map_err(fault)?;
        if bytes.len() as u64 != self.journal_bytes || hash(0, &bytes) != self.journal_hash {
            return Err(LedgerError::Damaged(format!("{} is damaged", path.display())));
        }
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let (id, content) = serde_json::from_slice(line)
                .map_err(|error| LedgerError::Damaged(format!("{}: {error}", path.display())))?;
            self.put(id, content);
        }
        Ok(())
    }

    fn remove_other_journals(&self, keep: u64) -> Result<(), LedgerError> {
        let fault = |source| LedgerError::Io { path: self.state_dir.clone(), source };
        for entry in std::fs::read_dir(&self.state_dir).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            let generation =
                name.to_str().and_then(|name| name.strip_prefix("contents-")?.strip_suffix(".ndjson"));
            if generation.is_some_and(|generation| generation != keep.to_string()) {
                std::fs::remove_file(entry.path()).map_err(fault)?;
            }
        }
        Ok(())
    }
}

/// FNV-1a of 32 bits, which can be continued.
fn hash(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state ^ 0x811c_9dc5, |state, byte| (state ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
        ^ 0x811c_9dc5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(inode: u64, offset: u64) -> Content {
        Content { offset, ..Content::new((1, inode), &format!("file-{inode}.csv")) }
    }

    fn all(ledger: &Ledger) -> Vec<(ContentId, Content)> {
        ledger.contents.iter().map(|(id, content)| (*id, content.clone())).collect()
    }

    #[test]
    fn any_position_brings_back_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), None).unwrap().0;
        let mut history = Vec::new();
        for round in 0..150_u64 {
            for inode in 0..round {
                match ledger.by_inode((1, inode)).map(|(id, _)| id) {
                    Some(id) if inode % 3 == round % 3 => ledger.update(id, content(inode, round)),
                    Some(_) => {}
                    None => drop(ledger.add(content(inode, round))),
                }
            }
            let position = ledger.position(round).unwrap();
            assert!(position.len() <= POSITION_BYTES_MAX, "{}", position.len());
            history.push((position, all(&ledger)));
        }
        assert!(ledger.journal_bytes > 0);
        // From the newest to older ones, as if the later ones had never reached the log.
        for (nth, (position, expected)) in history.iter().enumerate().rev() {
            let (reopened, quarantine) = Ledger::open(folder.path(), Some(position)).unwrap();
            assert_eq!((all(&reopened), quarantine), (expected.clone(), Some(nth as u64)));
        }
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), None).unwrap().0;
        let ids: Vec<ContentId> = (0..300).map(|inode| ledger.add(content(inode, 0))).collect();
        let mut position = Vec::new();
        for round in 1..100 {
            for (inode, id) in (0..).zip(&ids) {
                ledger.update(*id, content(inode, round));
            }
            position = ledger.position(0).unwrap();
        }
        assert!(ledger.generation > 1 && ledger.journal_bytes < 2 * JOURNAL_BYTES_MIN);
        ledger.acknowledge(&position).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let reopened = Ledger::open(folder.path(), Some(&position)).unwrap().0;
        assert_eq!(all(&reopened), all(&ledger));
    }

    #[test]
    fn the_oldest_without_a_file_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), None).unwrap().0;
        for inode in 0..CONTENTS_MAX as u64 + 1 {
            ledger.add(content(inode, 1));
        }
        ledger.forget(|content| content.inode.1 < 10).unwrap();
        assert!(ledger.contents.len() < CONTENTS_MAX);
        assert!(ledger.by_inode((1, 9)).is_some() && ledger.by_inode((1, 10)).is_none());
        let position = ledger.position(0).unwrap();
        assert_eq!(Ledger::open(folder.path(), Some(&position)).unwrap().0.contents, ledger.contents);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path(), None).unwrap().0;
        for inode in 0..200 {
            ledger.add(content(inode, 1));
        }
        let position = ledger.position(0).unwrap();
        let journal = ledger.journal(1);
        let mut bytes = std::fs::read(&journal).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&journal, bytes).unwrap();
        assert!(Ledger::open(folder.path(), Some(&position)).unwrap_err().to_string().contains("damaged"));
        std::fs::remove_file(&journal).unwrap();
        assert!(Ledger::open(folder.path(), Some(&position)).unwrap_err().to_string().contains("missing"));
        assert!(Ledger::open(folder.path(), Some(b"{}")).is_err());
    }
}
