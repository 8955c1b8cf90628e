//! The lake: a table with the cursor in the same commit, as the Delta sink keeps it, and a sink that writes it.
//!
//! A call may fail before it had an effect, or after: then the answer was lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bridge::batch::Batch;
use bridge::cursor::{Cursor, PlantLog};
use bridge::sinks::{Sink, SinkError, Written};

use runtime::mistakes::{Mistake, is_made};

use crate::dice::Dice;
use crate::shadow::Shadow;

/// The table. Clones are the same table.
#[derive(Clone, Debug)]
pub(crate) struct Table(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Content {
    shadow: Shadow,
    dice: Dice,
    /// One call in so many fails.
    fails: u64,
    newest: Option<u64>,
    by_epoch: BTreeMap<u64, u64>,
    /// Calls that failed.
    failed: u64,
}

impl Table {
    pub(crate) fn new(shadow: Shadow, dice: Dice, fails: u64) -> Self {
        Table(Arc::new(Mutex::new(Content {
            shadow,
            dice,
            fails,
            newest: None,
            by_epoch: BTreeMap::new(),
            failed: 0,
        })))
    }

    pub(crate) fn heal(&self) {
        self.content().fails = 0;
    }

    /// From now on every call fails; what failed until now is not counted.
    pub(crate) fn refuse(&self) {
        let mut content = self.content();
        (content.fails, content.failed) = (1, 0);
    }

    /// Calls that failed since.
    pub(crate) fn refused(&self) -> u64 {
        self.content().failed
    }

    /// What is committed.
    pub(crate) fn newest(&self) -> u64 {
        self.content().newest.unwrap_or(0)
    }

    pub(crate) fn holds_rows(&self) -> bool {
        self.content().newest.is_some()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One bridge's way to the table.
#[derive(Debug)]
pub(crate) struct TableSink {
    table: Table,
    held: Option<Option<Cursor>>,
    staged: Vec<Arc<Batch>>,
}

impl TableSink {
    pub(crate) fn new(table: &Table) -> Self {
        TableSink { table: table.clone(), held: None, staged: Vec::new() }
    }
}

fn unavailable(doing: &str) -> SinkError {
    SinkError::Unavailable { doing: doing.to_owned(), source: "simulated".into() }
}

impl Content {
    fn fails(&mut self) -> bool {
        let fails = self.dice.one_in(self.fails);
        self.failed += u64::from(fails);
        fails
    }

    fn held(&self, log: &PlantLog) -> Option<Cursor> {
        let newest = self.newest?;
        if is_made(Mistake::SharedCursor) {
            let epoch = log.epochs.last().map(|(epoch, _)| *epoch);
            return Some(Cursor { epoch, position: newest.min(log.durable_end) });
        }
        let known = log.epochs.iter().rev().find_map(|(epoch, _)| {
            let position = *self.by_epoch.get(&epoch.0)?;
            Some(Cursor { epoch: Some(*epoch), position: position.max(newest) })
        });
        Some(known.unwrap_or(Cursor { epoch: None, position: newest }))
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn open(&mut self, _name: &str, log: &PlantLog) -> Result<Option<Cursor>, SinkError> {
        self.close().await;
        let mut content = self.table.content();
        if content.fails() {
            return Err(unavailable("open"));
        }
        let held = content.held(log);
        tracing::debug!(?held, ?log, by_epoch = ?content.by_epoch, "a bridge opens the table");
        self.held = Some(held);
        Ok(held)
    }

    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), SinkError> {
        self.held.ok_or(SinkError::NotOpen)?;
        if self.table.content().fails() {
            return Err(unavailable("write"));
        }
        self.staged.push(batch);
        Ok(())
    }

    async fn commit(&mut self, upto: Cursor) -> Result<Written, SinkError> {
        let held = self.held.ok_or(SinkError::NotOpen)?;
        let mut content = self.table.content();
        if content.fails() {
            return Err(unavailable("commit"));
        }
        if content.newest != held.map(|cursor| cursor.position) {
            if content.newest == Some(upto.position) && self.staged.is_empty() {
                return Ok(Written::default());
            }
            return Err(SinkError::Raced(format!("{:?} instead of {held:?}", content.newest)));
        }
        let staged = std::mem::take(&mut self.staged);
        if is_made(Mistake::CursorBeforeRows) {
            content.newest = Some(upto.position);
            content.by_epoch.extend(upto.epoch.map(|epoch| (epoch.0, upto.position)));
            if content.fails() {
                return Err(unavailable("write the rows"));
            }
        }
        let mut written = Written::default();
        for batch in &staged {
            for row in batch.every_row() {
                let agent = row.agent.rsplit('-').next().and_then(|number| number.parse().ok());
                content.shadow.row(agent.unwrap_or(u32::MAX), &row);
                written.rows += 1;
            }
        }
        content.newest = Some(upto.position);
        if let Some(epoch) = upto.epoch {
            content.by_epoch.insert(epoch.0, upto.position);
        }
        self.held = Some(Some(upto));
        if content.fails() {
            return Err(unavailable("hear of the commit"));
        }
        Ok(written)
    }

    async fn close(&mut self) {
        self.held = None;
        self.staged.clear();
    }
}
