//! What readers see of a log: its segments and its durable end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::latch::Latch;
use crate::recovery::{Recovery, load};
use crate::segment::{Segment, SegmentInfo};
use crate::storage::Storage;
use crate::{Cut, DiskStorage, LogError, Position, Reader, cursor};

/// A cheap handle on a log for readers in any thread. It never shows anything at or above the durable end.
#[derive(Clone, Debug)]
pub struct LogView {
    pub(crate) shared: Arc<Shared>,
}

/// What the writer and all views share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) writable: bool,
    pub(crate) latch: Latch,
    pub(crate) cursors: Mutex<()>,
    /// First positions of segments in which readers met damage; [`crate::Log::heal`] looks after them.
    damage: Mutex<BTreeSet<Position>>,
    held: RwLock<Vec<Held>>,
}

/// One segment and how much of it is durable. Only the last one grows.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: u64,
    pub(crate) end: Position,
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, writable: bool, held: Vec<Held>) -> Shared {
        Shared {
            storage,
            writable,
            latch: Latch::default(),
            cursors: Mutex::default(),
            damage: Mutex::default(),
            held: RwLock::new(held),
        }
    }

    pub(crate) fn held(&self) -> RwLockReadGuard<'_, Vec<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn held_mut(&self) -> RwLockWriteGuard<'_, Vec<Held>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the directory again, unless a writer of this process keeps the list fresh.
    pub(crate) fn reload(&self) -> Result<Option<Cut>, LogError> {
        if self.writable {
            return Ok(None);
        }
        let loaded = load(&*self.storage)?;
        let mut held = self.held_mut();
        let known = std::mem::replace(&mut *held, loaded.held);
        // Keep the indexes of the segments that are still there.
        for new in &mut *held {
            let same = known.iter().find(|old| old.segment.header == new.segment.header);
            if let Some(old) = same {
                new.segment = Arc::clone(&old.segment);
            }
        }
        Ok(loaded.tail.and_then(|tail| tail.cut))
    }

    pub(crate) fn note_damage(&self, segment: Position) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
    }

    pub(crate) fn take_damage(&self) -> BTreeSet<Position> {
        std::mem::take(&mut *self.damage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn first(&self) -> Position {
        self.held().first().map_or(Position::ZERO, |held| held.segment.header.first)
    }

    pub(crate) fn durable_end(&self) -> Position {
        self.held().last().map_or(Position::ZERO, |held| held.end)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.held().iter().map(|held| held.bytes).sum()
    }
}

impl LogView {
    /// Opens a directory for reading only: a cold one, or one that another process writes. It shows what was
    /// whole up to the tail at this moment ([`LogView::refresh`] looks again), and changes nothing.
    pub fn open_read_only(dir: &Path) -> Result<(LogView, Recovery), LogError> {
        let storage = DiskStorage::existing(dir).map_err(|source| LogError::Io {
            doing: "opening",
            path: dir.to_path_buf(),
            source,
        })?;
        LogView::open_read_only_on(Arc::new(storage))
    }

    /// [`LogView::open_read_only`] on any storage.
    pub fn open_read_only_on(storage: Arc<dyn Storage>) -> Result<(LogView, Recovery), LogError> {
        let loaded = load(&*storage)?;
        let view = LogView { shared: Arc::new(Shared::new(storage, false, loaded.held)) };
        let recovery = view.recovery(loaded.tail.and_then(|tail| tail.cut));
        Ok((view, recovery))
    }

    /// Looks at the directory again, if this view was opened for reading only.
    pub fn refresh(&self) -> Result<Recovery, LogError> {
        let cut = self.shared.reload()?;
        Ok(self.recovery(cut))
    }

    /// What the log holds now, as an opening would tell it.
    #[must_use]
    pub fn state(&self) -> Recovery {
        self.recovery(None)
    }

    pub(crate) fn recovery(&self, cut: Option<Cut>) -> Recovery {
        Recovery {
            cut,
            first: self.first(),
            end: self.durable_end(),
            segments: self.shared.held().len(),
            bytes: self.bytes(),
            repaired: Vec::new(),
        }
    }

    /// The first position held.
    #[must_use]
    pub fn first(&self) -> Position {
        self.shared.first()
    }

    /// The end (exclusive) of what is durable.
    #[must_use]
    pub fn durable_end(&self) -> Position {
        self.shared.durable_end()
    }

    /// A reader that begins at `from`, or at the first position held if that is later.
    #[must_use]
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(Arc::clone(&self.shared), from.max(self.first()))
    }

    /// All segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let held = self.shared.held();
        let sealed = held.len().saturating_sub(1);
        held.iter()
            .enumerate()
            .map(|(i, held)| SegmentInfo {
                path: self.shared.storage.path(&held.segment.name),
                epoch: held.segment.header.epoch,
                first: held.segment.header.first,
                end: held.end,
                bytes: held.bytes,
                sealed: i < sealed,
            })
            .collect()
    }

    /// The epoch in which a durable position was written.
    #[must_use]
    pub fn epoch_of(&self, at: Position) -> Option<u64> {
        let held = self.shared.held();
        let after = held.partition_point(|held| held.segment.header.first <= at);
        let holder = held.get(after.checked_sub(1)?)?;
        (at < holder.end).then_some(holder.segment.header.epoch)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Whether a reader met damage that nobody has healed yet.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.shared.damage.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The first failed write or sync; since then the log only reads.
    #[must_use]
    pub fn latched(&self) -> Option<Arc<LogError>> {
        self.shared.latch.cause()
    }

    /// Keeps a named position durably. It may lie anywhere; it holds no data back.
    pub fn set_cursor(&self, name: &str, at: Position) -> Result<(), LogError> {
        self.change_cursors(|storage| cursor::set(storage, name, at))
    }

    /// All named positions.
    pub fn cursors(&self) -> Result<BTreeMap<String, Position>, LogError> {
        cursor::all(&*self.shared.storage)
    }

    /// Forgets a named position; says whether there was one.
    pub fn remove_cursor(&self, name: &str) -> Result<bool, LogError> {
        self.change_cursors(|storage| cursor::remove(storage, name))
    }

    fn change_cursors<T>(
        &self,
        change: impl FnOnce(&dyn Storage) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let storage = &*self.shared.storage;
        if !self.shared.writable {
            return Err(LogError::ReadOnly { path: storage.path("") });
        }
        let _one_at_a_time = self.shared.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        change(storage)
    }
}
