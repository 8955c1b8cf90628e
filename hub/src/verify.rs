//! The hub's files that are no logs, looked at without opening anything for writing: for `forebay log verify`.

use std::path::{Path, PathBuf};

use durable_log::{DiskStorage, Storage as _};

use crate::broker;
use crate::store::checkpoint;

/// One file: what is wrong with it, if anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub path: PathBuf,
    /// Why it is not what was written.
    pub damage: Option<String>,
}

/// The checkpoints or broker snapshots in one folder; other files are none of its business. Blocking.
#[must_use]
pub fn files(folder: &Path) -> Vec<Checked> {
    let Ok(storage) = DiskStorage::existing(folder) else { return Vec::new() };
    let Ok(entries) = storage.list() else { return Vec::new() };
    let judged = |name: &str| checkpoint::verify(&storage, name).or_else(|| broker::verify(&storage, name));
    let mut found: Vec<Checked> = entries
        .into_iter()
        .filter_map(|entry| {
            Some(Checked { path: folder.join(&entry.name), damage: judged(&entry.name)?.err() })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}
