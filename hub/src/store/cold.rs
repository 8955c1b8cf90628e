//! What a hub's folder holds, read without opening it for writing: for `forebay reconcile`, also beside a running hub.

use std::collections::BTreeMap;
use std::path::Path;

use durable_log::{DiskStorage, LogError, LogView, Position};
use model::NodeId;
use proto::log_record::AgentId;

use super::checkpoint::{self, Checkpoint};
use super::letters::{self, BookState, Letter, LetterId, Letters, RefusedRecord};
use super::recovery::replay;
use super::{AgentAccount, StoreError};
use crate::catalogue::{Catalogue, CatalogueError};

/// A hub's log and accounts as they are on disk.
#[derive(Debug)]
pub struct ColdStore {
    /// The plant log.
    pub view: LogView,
    /// Accounts as of its end.
    pub accounts: Vec<AgentAccount>,
}

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// The plant log or its checkpoint.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// Reads the folder of a hub (its `data_dir`); `None` if no hub ever ran there.
pub fn read(data_dir: &Path) -> Result<Option<ColdStore>, ColdError> {
    let folder = data_dir.join("plant-log");
    if !folder.is_dir() {
        return Ok(None);
    }
    // The log first: a checkpoint that is written meanwhile may be ahead of this picture, and then does not fit it.
    let log_error = |source| StoreError::Log { log: "plant log", source };
    let (view, _recovery) = LogView::open_read_only(&folder).map_err(log_error)?;
    let start = newest_fitting(data_dir, &view)?;
    let catalogue = Catalogue::read_only(&data_dir.join("catalogue"))?;
    let (accounts, _values) = replay(&view, start, &catalogue)?;
    Ok(Some(ColdStore { accounts: super::named(&accounts, &catalogue), view }))
}

impl ColdStore {
    /// The position up to which a sink has reported its commits: a hint, never ahead of the truth.
    pub fn cursor_of(&self, sink: &str) -> Result<Position, ColdError> {
        let log_error = |source| StoreError::Log { log: "plant log", source };
        let cursors = self.view.cursors().map_err(log_error)?;
        Ok(cursors.get(&format!("sink:{sink}")).copied().unwrap_or_else(|| self.view.first()))
    }
}

/// The quarantine of a hub's folder.
#[derive(Debug)]
pub struct ColdLetters {
    letters: Letters,
    state: BookState,
    /// Who the agents' numbers are.
    pub agents: BTreeMap<AgentId, NodeId>,
}

impl ColdLetters {
    /// The newest of those wanted, newest first.
    pub fn newest(&self, wanted: impl Fn(&Letter) -> bool, at_most: usize) -> Result<Vec<Letter>, ColdError> {
        Ok(self.letters.newest(&self.state, &wanted, at_most).map_err(quarantine_error)?)
    }

    /// One of them.
    pub fn one(&self, id: LetterId) -> Result<Option<Letter>, ColdError> {
        Ok(self.letters.one(&self.state, id).map_err(quarantine_error)?)
    }

    /// Records that sinks refused.
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedRecord> {
        self.state.refused()
    }
}

/// Reads the quarantine in the folder of a hub; `None` if there is none.
pub fn letters(data_dir: &Path) -> Result<Option<ColdLetters>, ColdError> {
    let (payloads, book) = (data_dir.join("quarantine"), data_dir.join("quarantine-book"));
    if !payloads.is_dir() || !book.is_dir() {
        return Ok(None);
    }
    let (payloads, _) = LogView::open_read_only(&payloads).map_err(quarantine_error)?;
    let (book, _) = LogView::open_read_only(&book).map_err(quarantine_error)?;
    let state = letters::read_all(&book).map_err(quarantine_error)?;
    let catalogue = Catalogue::read_only(&data_dir.join("catalogue"))?;
    let agents = catalogue.agents().into_iter().collect();
    Ok(Some(ColdLetters { letters: Letters { payloads, book }, state, agents }))
}

fn quarantine_error(source: LogError) -> StoreError {
    StoreError::Log { log: "quarantine", source }
}

fn newest_fitting(data_dir: &Path, view: &LogView) -> Result<Checkpoint, StoreError> {
    let Ok(storage) = DiskStorage::existing(&data_dir.join("checkpoint")) else {
        return Ok(Checkpoint::default());
    };
    let found = checkpoint::read(&storage)?.into_iter().find(|found| found.fits(view));
    Ok(found.unwrap_or_default())
}
