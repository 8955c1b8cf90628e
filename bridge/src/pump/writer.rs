//! Brings closed batches into the target, one after the other, while the next one is gathered.

use std::sync::Arc;

use runtime::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::PumpError;
use crate::batch::BatchBuilder;
use crate::cursor::{Cursor, Span};
use crate::sinks::{Sink, SinkError};
use crate::status::Reporter;

/// A batch that takes no more records.
pub(super) struct Closed {
    pub(super) builder: BatchBuilder,
    pub(super) span: Span,
    /// Positions of the first and the last record with rows.
    pub(super) with_rows: Option<(u64, u64)>,
    /// Whoever has it may write; the next batch waits for it.
    pub(super) turn: OwnedSemaphorePermit,
}

/// Why the writer ended.
pub(super) enum Broken {
    /// The target refuses these rows.
    Refused {
        with_rows: Option<(u64, u64)>,
        upto: u64,
        source: SinkError,
    },
    Failed(PumpError),
}

impl From<SinkError> for Broken {
    fn from(error: SinkError) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes and commits until the queue ends; tells each commit.
pub(super) struct Writer<'s> {
    pub(super) target: &'s mut dyn Sink,
    pub(super) site: Arc<str>,
    pub(super) queue: mpsc::Receiver<Closed>,
    pub(super) committed: watch::Sender<Option<Cursor>>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) clock: Clock,
}

impl Writer<'_> {
    pub(super) async fn run(mut self) -> Result<(), Broken> {
        while let Some(Closed { builder, span, with_rows, turn }) = self.queue.recv().await {
            let (site, end) = (Arc::clone(&self.site), span.end());
            let batch = runtime::world::blocking(move || Arc::new(builder.finish(&site, span))).await;
            let batch = batch.map_err(|error| Broken::Failed(error.into()))?;
            let written = match self.target.write(batch).await {
                Ok(()) => self.target.commit(end).await,
                Err(error) => Err(error),
            };
            match written {
                Ok(written) => {
                    self.committed.send_replace(Some(end));
                    self.reporter.committed(end, written, self.clock.now());
                }
                Err(source) if source.concerns_rows() => {
                    return Err(Broken::Refused { with_rows, upto: end.position, source });
                }
                Err(error) => return Err(error.into()),
            }
            drop(turn);
        }
        Ok(())
    }
}
