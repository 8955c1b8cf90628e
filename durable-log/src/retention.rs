//! Room: the bound of the log, the reserve of the disk, and the removal of the oldest segments.

use std::ops::Range;

use crate::segment::io;
use crate::view::Shared;
use crate::{LogError, Options, Position};

/// Free space as last seen, less what was taken since.
#[derive(Debug)]
pub(crate) struct Room {
    free: u64,
}

impl Room {
    pub(crate) fn new(shared: &Shared) -> Room {
        let mut room = Room { free: 0 };
        room.look(shared, 0);
        room
    }

    /// Asks the disk, which does not know of `unwritten` bytes yet. One that cannot say counts as free: a write
    /// will tell.
    pub(crate) fn look(&mut self, shared: &Shared, unwritten: u64) {
        self.free = shared.storage.free_bytes().unwrap_or(u64::MAX).saturating_sub(unwritten);
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        self.free = self.free.saturating_sub(bytes);
    }

    /// Whether `more` bytes beside the `used` ones keep to the bound of the log and the reserve of the disk.
    pub(crate) fn is_enough(&self, options: &Options, used: u64, more: u64) -> bool {
        used.saturating_add(more) <= options.bytes_max
            && self.free >= more.saturating_add(options.reserve_bytes)
    }

    pub(crate) fn full(&self, shared: &Shared, options: &Options, used: u64) -> LogError {
        LogError::Full {
            path: shared.storage.path(""),
            bytes: used,
            bytes_max: options.bytes_max,
            free: self.free.saturating_sub(options.reserve_bytes),
        }
    }
}

/// Removes the oldest segment if it is sealed and ends at or before `keep_from`; says which positions went.
/// The removal is durable before the next one begins, so that no crash leaves a hole in the chain.
pub(crate) fn remove_oldest(
    shared: &Shared,
    keep_from: Position,
) -> Result<Option<Range<Position>>, LogError> {
    let storage = &*shared.storage;
    let oldest = {
        let mut held = shared.held_mut();
        match held.first() {
            Some(oldest) if held.len() > 1 && oldest.end <= keep_from => held.remove(0),
            _ => return Ok(None),
        }
    };
    let name = oldest.segment.name.clone();
    let range = oldest.segment.header.first..oldest.end;
    if let Err(source) = storage.remove(&name) {
        shared.held_mut().insert(0, oldest);
        return Err(io(storage, "removing", &name, source));
    }
    storage.sync_dir().map_err(|source| shared.latch.shut(io(storage, "syncing", "", source)))?;
    Ok(Some(range))
}
