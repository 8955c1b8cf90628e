//! What a running store writes down for its next opening: checkpoints, where sinks stand, and the picture of the accounts that
//! goes before them.

use std::io;
use std::sync::PoisonError;

use durable_log::{LogError, Position};
use model::Epoch;

use super::checkpoint::{self, Checkpoint};
use super::{LastValue, SINK_CURSOR, Shared, Store};

/// From where the log would be read after each of the two checkpoints on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Generations {
    pub(super) newest: u64,
    pub(super) previous: u64,
    /// Position of the picture of the accounts alone.
    pub(super) counted: u64,
}

impl Store {
    /// Keeps where a sink stands, so that retention minds it; gives what is kept. A sink that is new here stands at the
    /// log's beginning from its first question on: what it has not read must not make room. Blocking.
    pub(crate) fn keep_sink(
        &self,
        sink: &str,
        committed: Option<(Position, Epoch)>,
    ) -> Result<Option<Position>, LogError> {
        let (view, name) = (&self.shared.view, format!("{SINK_CURSOR}{sink}"));
        let at = match committed {
            Some((at, epoch)) => {
                let is_ours = view.segments().iter().any(|segment| segment.epoch == epoch.0);
                if at > view.durable_end() || !is_ours {
                    return Ok(None);
                }
                at
            }
            None => match view.cursors()?.get(&name) {
                Some(at) => return Ok(Some(*at)),
                None => view.first(),
            },
        };
        if committed.is_some() {
            // Without it a later damage may double rows; without the cursor a full disk would get no room now.
            if let Err(error) = self.write_counted(at) {
                tracing::warn!(%error, "the accounts that a sink has read cannot be written");
            }
        }
        view.set_cursor(&name, at)?;
        Ok(Some(at))
    }

    /// Writes what is counted, for [`recovery`] to know what a sink holds that has come so far. Blocking.
    fn write_counted(&self, read: Position) -> io::Result<()> {
        let mut generations = self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.counted >= read.0 {
            return Ok(());
        }
        let accounts = self.shared.accounts().clone();
        let position = accounts.position;
        let Some(counted) = Checkpoint::of(&self.shared.view, accounts, 0, Vec::new()) else { return Ok(()) };
        checkpoint::write_counted(&*self.shared.checkpoint_storage, &counted)?;
        generations.counted = position;
        Ok(())
    }

    /// What lies below is not read again at the next start.
    pub(crate) fn checkpointed(&self) -> Position {
        Position(self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).newest)
    }

    /// Writes a checkpoint with these last values, which have seen every record below `values_position`. Blocking.
    pub(crate) fn write_checkpoint(
        &self,
        values: Vec<LastValue>,
        values_position: Position,
    ) -> io::Result<()> {
        let accounts = self.shared.accounts().clone();
        let position = accounts.position;
        let mut generations = self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let values_position = values_position.0.min(position);
        let Some(found) = Checkpoint::of(&self.shared.view, accounts, values_position, values) else {
            return Ok(()); // the next one can
        };
        checkpoint::write(&*self.shared.checkpoint_storage, &found)?;
        (generations.newest, generations.previous) = (values_position, generations.newest);
        Ok(())
    }
}

impl Shared {
    /// Retention must leave everything from here on, so that either checkpoint can be replayed and checked.
    pub(super) fn needed_from(&self) -> Position {
        let generations = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        Position(generations.newest.min(generations.previous).saturating_sub(1))
    }
}
