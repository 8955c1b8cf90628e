//! The snapshot thread: writes a snapshot once everything in it is durable, so that neither the core nor a commit
//! waits for it. One that cannot be written costs log, not truth: the one before stays.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use durable_log::{LogView, Position, Storage};

use super::shared::{Picture, Shared, wait};
use super::snapshot::{SnapshotState, Stand, write};

pub(super) struct Keeper {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) view: LogView,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Until the writer has ended and nothing can be written any more.
    pub(super) fn run(self) {
        while let Some((position, state)) = self.next() {
            let log_epoch = position.0.checked_sub(1).and_then(|last| self.view.epoch_of(Position(last)));
            let stand = Stand { position, log_epoch: log_epoch.unwrap_or(0) };
            match write(&*self.storage, stand, &state) {
                Ok(bytes) => {
                    self.shared.counts.snapshots.increment();
                    self.shared.snapshot_bytes.store(bytes, Ordering::Relaxed);
                    let mut now = self.shared.state();
                    now.snapshot_position = position;
                    now.picture = Picture::None;
                    drop(now);
                    self.shared.to_write.notify_all(); // something may be trimmed
                }
                Err(error) => {
                    tracing::error!(%error, "the broker's snapshot cannot be written; tried again later");
                    self.shared.counts.snapshot_failures.increment();
                    self.shared.state().picture = Picture::Failed(Instant::now());
                }
            }
        }
    }

    /// The snapshot that is wanted, when the log is durable up to there.
    fn next(&self) -> Option<(Position, Box<SnapshotState>)> {
        let mut state = self.shared.state();
        loop {
            let durable = state.durable;
            match std::mem::replace(&mut state.picture, Picture::Writing) {
                Picture::Wanted(position, wanted) if position <= durable => return Some((position, wanted)),
                other => state.picture = other,
            }
            if state.writer_ended {
                return None;
            }
            state = wait(&self.shared.to_picture, state);
        }
    }
}
