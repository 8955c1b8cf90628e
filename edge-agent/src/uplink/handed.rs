//! What a foreign host was given: it sends no receipts, so the agent writes down itself how far it came.
//!
//! A named cursor of the outbox, every few seconds and no more often: after a crash the last seconds are given again.
//! It holds until the first receipt: a hub that was away since the agent's first start looks like a foreign host.

use durable_log::Position;
use model::Epoch;

use super::cursor::{Cursor, Portion};
use super::{SessionError, Uplink};
use crate::outbox::OutboxError;

/// Name of the outbox cursor below which a foreign host was given everything.
const HANDED_CURSOR: &str = "handed-over";

impl Uplink {
    /// Writes down what a foreign host was given, so that a restart does not give it again.
    pub(super) async fn note_handed(&self, current: Epoch, live_at: u64) -> Result<(), SessionError> {
        let outbox = &self.setup.outbox;
        let end = outbox.durable().borrow().position;
        let at = outbox.epochs(|epochs| match self.delivery.first_unhanded(epochs, current, live_at) {
            Some((epoch, offset)) => epochs.get(epoch).and_then(|state| state.locate(offset)),
            None => Some(end),
        });
        let Some(at) = at else { return Ok(()) };
        outbox.handed(at).await?;
        let view = outbox.view().clone();
        let joined = runtime::world::blocking(move || view.set_cursor(HANDED_CURSOR, at)).await;
        match joined {
            Ok(Err(error)) => Err(OutboxError::from(error).into()),
            _ => Ok(()),
        }
    }

    /// The first receipt ever: from now on only receipts count. What was handed over before may have met a broker
    /// behind which nobody listened.
    pub(super) async fn forget_handed(&mut self) -> Result<(), OutboxError> {
        self.delivery.forget_handed();
        self.setup.outbox.handed(Position(0)).await?;
        let view = self.setup.outbox.view().clone();
        if let Ok(Err(error)) = runtime::world::blocking(move || view.remove_cursor(HANDED_CURSOR)).await {
            tracing::warn!(node = %self.setup.node, %error, "an old cursor stays; nobody reads it");
        }
        Ok(())
    }

    /// What an earlier run gave a foreign host.
    pub(super) async fn recall_handed(&mut self) -> Result<(), OutboxError> {
        let view = self.setup.outbox.view().clone();
        let found = runtime::world::blocking(move || view.cursors()).await;
        let Ok(found) = found else { return Ok(()) }; // the runtime is ending
        let Some(at) = found?.get(HANDED_CURSOR).copied() else { return Ok(()) };
        let mut cursor = Cursor::new(self.setup.outbox.view(), at);
        let next = cursor.read(Portion { records: 1, values: 1, until: None, from: None }).await?;
        let next = next.first().map(|read| (read.batch.id.epoch, read.batch.id.offset.0));
        let handed = self.setup.outbox.epochs(|epochs| {
            let mut handed = Vec::new();
            for state in epochs.list() {
                if let Some((epoch, offset)) = next
                    && epoch == state.epoch
                {
                    handed.push((epoch, state.first_held..offset));
                    break;
                }
                handed.push((state.epoch, state.first_held..state.end));
            }
            handed
        });
        for (epoch, range) in handed {
            self.delivery.handed_before(epoch, range);
        }
        Ok(())
    }
}
