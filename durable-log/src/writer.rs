//! Group commit: many items, one write, one sync, and only then the answers (habit 17).
//!
//! [`run`] is the loop of a writer thread that the caller starts, [`round`] one turn of it, for a caller who waits in its
//! own way. Neither knows what an item is: the [`Committer`] turns items into records and answers whoever waits for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::{Log, LogError, Position};

/// While the disk has no room for what was appended, the sync is tried again this often.
pub const RETRY: Duration = Duration::from_millis(200);

/// How much one commit may gather before it syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of records.
    pub bytes: u64,
    /// Items, whatever their size: bounds what waits for one sync.
    pub items: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { bytes: 4 * 1024 * 1024, items: 4096 }
    }
}

/// Where items come from; bounded, so that a slow disk slows its producers.
pub trait Intake {
    /// What is committed.
    type Item;
    /// Waits for one, at most so long if a time is given.
    fn wait(&mut self, at_most: Option<Duration>) -> Taken<Self::Item>;
    /// Takes one if there is one now.
    fn take(&mut self) -> Option<Self::Item>;
}

/// What waiting brought.
#[derive(Debug)]
pub enum Taken<T> {
    /// An item.
    Item(T),
    /// Nothing in time.
    Nothing,
    /// Nothing will ever come again.
    Closed,
}

/// What to do with items and with durability; called from the writer's thread only.
pub trait Committer {
    /// What is committed.
    type Item;
    /// Appends what the item needs (or trims, or only looks) and returns the bytes appended. An error of
    /// [`Log::append_group`] is the committer's to answer; if it shut the latch, `run` ends after this.
    fn append(&mut self, log: &mut Log, item: Self::Item) -> u64;
    /// Everything below `end` is durable now. Called after every commit, also of items that appended nothing.
    fn durable(&mut self, log: &mut Log, end: Position);
    /// The log has no room for what was appended; it is kept and tried again. Somebody should trim.
    fn no_room(&mut self, log: &mut Log, full: &LogError);
    /// The latch is shut: what was not durable never will be told so.
    fn failed(&mut self, log: &mut Log, cause: &Arc<LogError>);
}

/// Commits until the intake closes (then all is durable) or the latch shuts.
pub fn run<C: Committer>(
    log: &mut Log,
    intake: &mut impl Intake<Item = C::Item>,
    budget: Budget,
    committer: &mut C,
) -> Result<(), LogError> {
    let mut waiting_for_room = false;
    loop {
        let first = match intake.wait(waiting_for_room.then_some(RETRY)) {
            Taken::Item(item) => Some(item),
            Taken::Nothing => None,
            Taken::Closed => break,
        };
        waiting_for_room = !round(log, &mut || intake.take(), budget, committer, first)?;
    }
    last(log, committer)
}

/// One turn: appends `first` and what `take` has ready, and makes it durable. False if the disk has no room for it now:
/// it is kept, and the next turn, [`RETRY`] later at most, tries again.
pub fn round<C: Committer>(
    log: &mut Log,
    take: &mut dyn FnMut() -> Option<C::Item>,
    budget: Budget,
    committer: &mut C,
    first: Option<C::Item>,
) -> Result<bool, LogError> {
    if let Some(first) = first {
        gather(log, take, budget, committer, first);
    }
    commit(log, committer)
}

/// The last turn, when nothing comes any more.
pub fn last<C: Committer>(log: &mut Log, committer: &mut C) -> Result<(), LogError> {
    match commit(log, committer)? {
        true => Ok(()),
        false => log.sync().map(|_end| ()), // says Full: the caller leaves with data in memory
    }
}

fn gather<C: Committer>(
    log: &mut Log,
    take: &mut dyn FnMut() -> Option<C::Item>,
    budget: Budget,
    committer: &mut C,
    first: C::Item,
) {
    let mut bytes = committer.append(log, first);
    let mut items = 1;
    while bytes < budget.bytes && items < budget.items && log.latched().is_none() {
        let Some(item) = take() else { break };
        bytes = bytes.saturating_add(committer.append(log, item));
        items += 1;
    }
}

/// True if everything is durable, false if the disk has no room for it now.
fn commit<C: Committer>(log: &mut Log, committer: &mut C) -> Result<bool, LogError> {
    match log.sync() {
        Ok(end) => {
            committer.durable(log, end);
            Ok(true)
        }
        Err(full) if full.is_full() => {
            committer.no_room(log, &full);
            Ok(false)
        }
        Err(error) => {
            if let Some(cause) = log.latched() {
                committer.failed(log, &cause);
            }
            Err(error)
        }
    }
}

impl<T> Intake for Receiver<T> {
    type Item = T;

    fn wait(&mut self, at_most: Option<Duration>) -> Taken<T> {
        let result = match at_most {
            None => self.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
            Some(time) => self.recv_timeout(time),
        };
        match result {
            Ok(item) => Taken::Item(item),
            Err(RecvTimeoutError::Timeout) => Taken::Nothing,
            Err(RecvTimeoutError::Disconnected) => Taken::Closed,
        }
    }

    fn take(&mut self) -> Option<T> {
        self.try_recv().ok()
    }
}
