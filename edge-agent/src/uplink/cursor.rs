//! Reads sample records from the outbox without blocking the runtime's threads.

use durable_log::{LogError, LogView, Position, Reader};
use model::{Epoch, SampleBatch};
use proto::account::{Account, DeviceCounts};
use proto::log_record::{DeviceEvent, LogRecord};

use crate::outbox::OutboxError;

/// A sample record.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) batch: SampleBatch,
    pub(crate) account: Account,
    pub(crate) event: DeviceEvent,
    pub(crate) counts: Option<DeviceCounts>,
}

/// How much one call reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    pub(crate) records: usize,
    pub(crate) values: usize,
    /// Stops at this record of this epoch.
    pub(crate) until: Option<(Epoch, u64)>,
    /// Only records of this epoch from this offset on; the cursor must stand in that epoch.
    pub(crate) from: Option<(Epoch, u64)>,
}

/// A place in the outbox.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// Absent only while a call runs.
    reader: Option<Reader>,
    view: LogView,
}

impl Cursor {
    pub(crate) fn new(view: &LogView, at: Position) -> Self {
        Cursor { reader: Some(view.reader(at)), view: view.clone() }
    }

    pub(crate) fn seek(&mut self, to: Position) {
        match &mut self.reader {
            Some(reader) => reader.seek(to),
            None => self.reader = Some(self.view.reader(to)),
        }
    }

    /// The next records; none at the durable end.
    pub(crate) async fn read(&mut self, portion: Portion) -> Result<Vec<Read>, OutboxError> {
        let mut reader = self.reader.take().unwrap_or_else(|| self.view.reader(self.view.durable_end()));
        let joined = runtime::world::blocking(move || {
            let found = take(&mut reader, portion);
            (reader, found)
        })
        .await;
        let Ok((reader, found)) = joined else { return Err(OutboxError::Closed) }; // the runtime is ending
        self.reader = Some(reader);
        found
    }
}

fn take(reader: &mut Reader, portion: Portion) -> Result<Vec<Read>, OutboxError> {
    let mut found: Vec<Read> = Vec::new();
    let mut values = 0;
    while found.len() < portion.records && values < portion.values {
        let (position, bytes) = match reader.next() {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(LogError::Trimmed { .. }) => continue, // settled meanwhile: the reader goes on behind it
            Err(error) => return Err(error.into()),
        };
        if bytes.is_empty() {
            continue; // damaged and given up
        }
        let record = LogRecord::decode(bytes)
            .map_err(|source| OutboxError::Record { position: position.0, source })?;
        let LogRecord::Accepted { batch, account, event, counts } = record else { continue };
        let (epoch, offset) = (batch.id.epoch, batch.id.offset.0);
        if let Some((from, start)) = portion.from {
            if epoch != from {
                break; // it was trimmed meanwhile
            }
            if offset < start {
                continue;
            }
        }
        let is_last = portion.until.is_some_and(|(until, end)| epoch == until && offset + 1 >= end);
        values += batch.samples.len();
        found.push(Read { batch, account, event, counts });
        if is_last {
            break;
        }
    }
    Ok(found)
}
