//! The one writer of a log.
//!
//! [`Log::append_group`] frames records into a buffer; [`Log::sync`] writes the buffer with one call, syncs, and
//! only then moves the durable end that readers see. A group never spans two segments.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::record::{FLAG_AFTER_SYNC, FLAG_HOLE, FLAG_MORE, encode, frame_bytes};
use crate::recovery::{Recovery, load, settle};
use crate::repair::{self, Repaired};
use crate::retention::{Room, remove_oldest};
use crate::segment::{
    CreateFault, Header, Place, Previous, SEGMENT_HEADER_BYTES, Segment, UNFINISHED_SUFFIX, create,
    io as io_error,
};
use crate::storage::{Storage, StorageFile, is_no_room, write_full};
use crate::view::{Held, Shared};
use crate::{DiskStorage, Fill, LogError, LogView, Options, Position, WhenDamaged, WhenFull};

/// What is framed and not yet handed to the operating system; beyond it, a write without sync comes early.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// An open log that can be written: at most one per directory.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    options: Options,
    epoch: u64,
    /// None until a segment could be created: a full disk must not keep the log from being opened and trimmed.
    active: Option<Active>,
    end: Position,
    /// Bytes of all segments as far as they are durable.
    held_bytes: u64,
    room: Room,
    dropped: Option<Range<Position>>,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The segment being written.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    /// Framed, not written; begins at byte `written` of the file.
    buffer: Vec<u8>,
    /// Bytes handed to the operating system.
    written: u64,
    /// Bytes that a sync has covered.
    synced: u64,
    /// Places for the index, told to readers when they are durable.
    places: Vec<Place>,
    worth_noting: u64,
    /// The disk had no room for the buffer: nothing more is taken until it has.
    stuck: bool,
}

impl Log {
    /// Opens or creates the log in a directory. `epoch` must be new and not zero: take a random one.
    pub fn open(dir: &Path, options: Options, epoch: u64) -> Result<(Log, Recovery), LogError> {
        let storage = DiskStorage::create(dir).map_err(|source| LogError::Io {
            doing: "creating",
            path: dir.to_path_buf(),
            source,
        })?;
        Log::open_on(Arc::new(storage), options, epoch)
    }

    /// [`Log::open`] on any storage.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        options: Options,
        epoch: u64,
    ) -> Result<(Log, Recovery), LogError> {
        Log::open_with(storage, options, epoch, None)
    }

    /// The same; what is lost is filled from a donor that holds the same records at the same positions.
    pub(crate) fn open_with(
        storage: Arc<dyn Storage>,
        options: Options,
        epoch: u64,
        donor: Option<&LogView>,
    ) -> Result<(Log, Recovery), LogError> {
        let lock = take_lock(&*storage)?;
        let (mut loaded, repaired) = match options.when_damaged {
            WhenDamaged::Refuse => (load(&*storage)?, Vec::new()),
            WhenDamaged::SetAside => repair::load_repaired(&*storage, donor)?,
        };
        if epoch == 0 || loaded.held.iter().any(|held| held.segment.header.epoch == epoch) {
            return Err(LogError::BadEpoch { epoch });
        }
        // From here on the directory changes.
        remove_unfinished(&*storage)?;
        let mut cut = None;
        let mut end = Position::ZERO;
        if let (Some(last), Some(tail)) = (loaded.held.last(), loaded.tail.take()) {
            settle(&*storage, &last.segment, &tail)?;
            end = last.end;
            cut = tail.cut;
        }
        let shared = Arc::new(Shared::new(storage, true, loaded.held));
        let (room, held_bytes) = (Room::new(&shared), shared.bytes());
        let mut log =
            Log { shared, options, epoch, active: None, end, held_bytes, room, dropped: None, _lock: lock };
        match log.try_begin_segment() {
            Ok(()) => {}
            Err(full) if full.is_full() => {} // tried again at the first append
            Err(error) => return Err(error),
        }
        let mut recovery = log.view().recovery(cut);
        recovery.repaired = repaired;
        Ok((log, recovery))
    }

    /// Takes records that belong together: after a crash all of them are there, or none. Not durable yet.
    /// Returns the position of the first. On an error nothing of the group was taken, or the latch is shut.
    pub fn append_group(&mut self, records: &[&[u8]]) -> Result<Position, LogError> {
        self.shared.latch.check()?;
        let Some(last) = records.len().checked_sub(1) else { return Ok(self.end) };
        let bytes = self.group_bytes(records)?;
        if self.active.as_ref().is_some_and(|active| active.stuck) {
            self.sync()?; // what was taken before goes first
        }
        self.make_room(bytes)?;
        let segment_bytes = self.options.segment_bytes_effective();
        if !self.active.as_ref().is_some_and(|active| active.has_room(bytes, segment_bytes)) {
            self.sync()?;
            self.begin_segment()?;
        }
        let first = self.end;
        let Some(active) = &mut self.active else { return Ok(first) }; // one was begun above
        for (i, record) in records.iter().enumerate() {
            let more = if i < last { FLAG_MORE } else { 0 };
            active.push(self.end, more, record);
            self.end = self.end.next();
        }
        self.room.take(bytes);
        if active.buffer.len() >= BUFFER_BYTES {
            match self.write() {
                Err(error) if !error.is_full() => return Err(error),
                _written_or_stuck => {} // the sync will say it
            }
        }
        Ok(first)
    }

    /// Makes everything appended durable, and returns the durable end.
    ///
    /// [`LogError::Full`] from here means that the disk had no room for what was appended: it is still held in
    /// memory, in order; call again when there is room (appending does). Any other error has shut the latch.
    pub fn sync(&mut self) -> Result<Position, LogError> {
        self.shared.latch.check()?;
        while let Err(error) = self.write() {
            self.drop_for(error)?;
        }
        let Some(active) = self.active.as_mut().filter(|active| active.written > active.synced) else {
            return Ok(self.end);
        };
        let (storage, name) = (&*self.shared.storage, &active.segment.name);
        active
            .file
            .sync()
            .map_err(|source| self.shared.latch.shut(io_error(storage, "syncing", name, source)))?;
        active.synced = active.written;
        for place in active.places.drain(..) {
            active.segment.note(place);
        }
        if let Some(last) = self.shared.held_mut().last_mut() {
            self.held_bytes += active.synced - last.bytes;
            last.bytes = active.synced;
            last.end = self.end;
        }
        self.look_for_room();
        Ok(self.end)
    }

    /// The end (exclusive), what is not yet durable included.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// The epoch of this opening.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Removes whole segments that hold only positions below `keep_from`; returns the first position held.
    pub fn trim(&mut self, keep_from: Position) -> Result<Position, LogError> {
        self.shared.latch.check()?;
        let result = self.remove_below(keep_from);
        self.held_bytes = self.shared.bytes();
        self.look_for_room();
        result?;
        Ok(self.shared.first())
    }

    /// Repairs the segments in which readers met damage: the damaged file is kept in the side folder, what it lost
    /// becomes holes. The segment being written is sealed first. Readers go on at their next call.
    pub fn heal(&mut self) -> Result<Vec<Repaired>, LogError> {
        self.heal_from(None)
    }

    pub(crate) fn heal_from(&mut self, donor: Option<&LogView>) -> Result<Vec<Repaired>, LogError> {
        self.shared.latch.check()?;
        let damaged = self.shared.take_damage();
        let mut repaired = Vec::new();
        for first in damaged {
            let is_active = self.active.as_ref().is_some_and(|active| active.segment.header.first == first);
            if is_active {
                self.sync()?;
                self.begin_segment()?;
            }
            repaired.extend(repair::repair_segment(&*self.shared.storage, first, donor)?);
            if let Some(held) = self.shared.held().iter().find(|held| held.segment.header.first == first) {
                held.segment.forget_places();
            }
        }
        Ok(repaired)
    }

    /// Appends holes up to a position that is known to have been used: the end of the log was lost, and no position
    /// may name two records. Durable when this returns. The holes belong to the epoch whose end was lost, so that a
    /// reader that had come so far in it finds the place where it stood.
    pub fn skip_to(&mut self, to: Position) -> Result<(), LogError> {
        self.shared.latch.check()?;
        if self.end >= to {
            return Ok(());
        }
        self.sync()?;
        let last = self.shared.held().last().map(|last| {
            let header = &last.segment.header;
            if last.end == header.first { header.previous_epoch } else { header.epoch }
        });
        let own = self.epoch;
        self.epoch = last.filter(|last| *last != 0).unwrap_or(own);
        let filled = self.fill_to(to);
        self.epoch = own;
        filled?;
        self.begin_segment()
    }

    fn fill_to(&mut self, to: Position) -> Result<(), LogError> {
        self.begin_segment()?;
        while self.end < to {
            self.make_room(frame_bytes(0))?;
            let segment_bytes = self.options.segment_bytes_effective();
            let has_room = |active: &Active| active.has_room(frame_bytes(0), segment_bytes);
            if !self.active.as_ref().is_some_and(has_room) {
                self.sync()?;
                self.begin_segment()?;
            }
            let Some(active) = &mut self.active else { break }; // one was begun above
            active.push(self.end, FLAG_HOLE, &[]);
            self.end = self.end.next();
            self.room.take(frame_bytes(0));
        }
        self.sync().map(|_end| ())
    }

    /// The positions that [`WhenFull::DropOldest`] removed since the last call, for the caller's ledger. (After a
    /// crash, compare [`LogView::first`] with what the ledger says.)
    pub fn take_dropped(&mut self) -> Option<Range<Position>> {
        self.dropped.take()
    }

    /// How full the log is, `bound` being what its owner lets it grow to. Asks the disk.
    #[must_use]
    pub fn fill(&self, bound: u64) -> Fill {
        let storage = &*self.shared.storage;
        let free = storage.free_bytes().unwrap_or(u64::MAX);
        Fill::of(self.used(), bound, free, storage.total_bytes(), self.options.reserve_bytes)
    }

    /// A handle for readers.
    #[must_use]
    pub fn view(&self) -> LogView {
        LogView { shared: Arc::clone(&self.shared) }
    }

    /// The first failed write or sync; since then nothing is written.
    #[must_use]
    pub fn latched(&self) -> Option<Arc<LogError>> {
        self.shared.latch.cause()
    }

    fn group_bytes(&self, records: &[&[u8]]) -> Result<u64, LogError> {
        let record_max = self.options.record_bytes_max.min(u32::MAX as usize);
        if let Some(record) = records.iter().find(|record| record.len() > record_max) {
            let (bytes, bytes_max) = (record.len() as u64, record_max as u64);
            return Err(LogError::TooLarge { what: "record", bytes, bytes_max });
        }
        let bytes = records.iter().map(|record| frame_bytes(record.len())).sum();
        let bytes_max = self.options.group_bytes_max();
        if bytes > bytes_max {
            return Err(LogError::TooLarge { what: "group", bytes, bytes_max });
        }
        Ok(bytes)
    }

    fn remove_below(&self, keep_from: Position) -> Result<(), LogError> {
        while remove_oldest(&self.shared, keep_from)?.is_some() {}
        Ok(())
    }

    /// Has room for a group, by dropping the oldest segments if that is the policy.
    fn make_room(&mut self, bytes: u64) -> Result<(), LogError> {
        let more = bytes + SEGMENT_HEADER_BYTES;
        while !self.room.is_enough(&self.options, self.used(), more) {
            self.look_for_room(); // somebody may have made some
            if self.room.is_enough(&self.options, self.used(), more) {
                break;
            }
            self.drop_for(self.full())?;
        }
        Ok(())
    }

    /// Drops the oldest segment if that is the policy and `error` is for want of room; else gives `error` back.
    fn drop_for(&mut self, error: LogError) -> Result<(), LogError> {
        if !error.is_full() || self.options.when_full == WhenFull::StopAccepting {
            return Err(error);
        }
        let Some(gone) = remove_oldest(&self.shared, self.end)? else { return Err(error) };
        self.held_bytes = self.shared.bytes();
        self.look_for_room();
        let start = self.dropped.as_ref().map_or(gone.start, |dropped| dropped.start);
        self.dropped = Some(start..gone.end);
        Ok(())
    }

    fn full(&self) -> LogError {
        self.room.full(&self.shared, &self.options, self.used())
    }

    fn look_for_room(&mut self) {
        let unwritten = self.active.as_ref().map_or(0, |active| active.buffer.len() as u64);
        self.room.look(&self.shared, unwritten);
    }

    fn used(&self) -> u64 {
        let pending = self.active.as_ref().map_or(0, |active| active.bytes() - active.synced);
        self.held_bytes + pending
    }

    fn begin_segment(&mut self) -> Result<(), LogError> {
        while let Err(error) = self.try_begin_segment() {
            self.drop_for(error)?;
        }
        Ok(())
    }

    /// Begins the next segment at the end, which must be durable; one that holds nothing is replaced.
    fn try_begin_segment(&mut self) -> Result<(), LogError> {
        let last = self.shared.held().last().cloned();
        let empty = last.as_ref().is_some_and(|last| last.end == last.segment.header.first);
        let previous = match &last {
            Some(last) if empty => last.segment.header.previous,
            Some(last) => Some(Previous { first: last.segment.header.first, bytes: last.bytes }),
            None => None,
        };
        let previous_epoch = match &last {
            Some(last) if empty => last.segment.header.previous_epoch,
            Some(last) => last.segment.header.epoch,
            None => 0,
        };
        let header = Header::new(self.epoch, self.end, previous, previous_epoch);
        let segment = Arc::new(Segment::new(header));
        let file = match create(&*self.shared.storage, &segment) {
            Ok(file) => file,
            Err(CreateFault::Early(LogError::Io { source, .. })) if is_no_room(&source) => {
                self.look_for_room();
                return Err(self.full());
            }
            Err(fault) => return Err(self.shared.latch.shut(fault.into_error())),
        };
        let mut held = self.shared.held_mut();
        if empty {
            held.pop();
        }
        held.push(Held { segment: Arc::clone(&segment), bytes: SEGMENT_HEADER_BYTES, end: self.end });
        self.held_bytes = held.iter().map(|held| held.bytes).sum();
        let buffer = self.active.take().map_or_else(Vec::new, |active| active.buffer);
        self.active = Some(Active::new(segment, file, buffer));
        Ok(())
    }

    /// Hands the buffer to the operating system. Without room the file is as before and the buffer is kept.
    fn write(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.as_mut().filter(|active| !active.buffer.is_empty()) else {
            return Ok(());
        };
        let Err(source) = write_full(&*active.file, &active.buffer, active.written) else {
            active.written += active.buffer.len() as u64;
            active.buffer.clear();
            active.buffer.shrink_to(BUFFER_BYTES);
            active.stuck = false;
            return Ok(());
        };
        let (storage, name) = (&*self.shared.storage, &active.segment.name);
        if !is_no_room(&source) {
            return Err(self.shared.latch.shut(io_error(storage, "writing", name, source)));
        }
        active
            .file
            .truncate(active.written)
            .map_err(|source| self.shared.latch.shut(io_error(storage, "cutting", name, source)))?;
        active.stuck = true;
        self.look_for_room();
        Err(self.full())
    }
}

impl Active {
    fn new(segment: Arc<Segment>, file: Arc<dyn StorageFile>, buffer: Vec<u8>) -> Active {
        Active {
            segment,
            file,
            buffer,
            written: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            places: Vec::new(),
            worth_noting: 0,
            stuck: false,
        }
    }

    fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// An empty segment takes a group of any size.
    fn has_room(&self, more: u64, segment_bytes: u64) -> bool {
        self.bytes() == SEGMENT_HEADER_BYTES || self.bytes() + more <= segment_bytes
    }

    fn push(&mut self, position: Position, more: u32, record: &[u8]) {
        let byte = self.bytes();
        let after_sync = if byte == self.synced { FLAG_AFTER_SYNC } else { 0 };
        if byte >= self.worth_noting {
            self.places.push(Place { position, byte });
            self.worth_noting = byte + crate::segment::INDEX_STEP_BYTES;
        }
        let number = position.0 - self.segment.header.first.0;
        encode(&mut self.buffer, self.segment.seed, byte, more | after_sync, number, record);
    }
}

pub(crate) fn take_lock(storage: &dyn Storage) -> Result<Box<dyn Any + Send + Sync>, LogError> {
    storage.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { path: storage.path(""), owner: storage.lock_owner() },
        _ => io_error(storage, "locking", "", source),
    })
}

/// What a crash left of segments and cursors that never got their names.
fn remove_unfinished(storage: &dyn Storage) -> Result<(), LogError> {
    for entry in storage.list().map_err(|e| io_error(storage, "listing", "", e))? {
        if entry.name.ends_with(UNFINISHED_SUFFIX) {
            storage.remove(&entry.name).map_err(|e| io_error(storage, "removing", &entry.name, e))?;
        }
    }
    storage.sync_dir().map_err(|e| io_error(storage, "syncing", "", e))
}
