//! What a hub's folder holds, read without opening it for writing: for `forebay reconcile`, also beside a running hub.

use std::path::Path;

use durable_log::{DiskStorage, LogView, Position};

use super::checkpoint::{self, Checkpoint};
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

fn newest_fitting(data_dir: &Path, view: &LogView) -> Result<Checkpoint, StoreError> {
    let Ok(storage) = DiskStorage::existing(&data_dir.join("checkpoint")) else {
        return Ok(Checkpoint::default());
    };
    let found = checkpoint::read(&storage)?.into_iter().find(|found| found.fits(view));
    Ok(found.unwrap_or_default())
}
