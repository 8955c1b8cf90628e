//! A local folder as an object store that means what it says: what it reports as written survives a power cut.
//!
//! `object_store` does not fsync unless told to; here files, their folders and new folders' parents are all synced. File
//! names are made of text that no file system, URL or glob gives a meaning to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use runtime::config_file::{Problems, Section};
use tokio::runtime::Handle;

use super::SinkError;

/// Reads the key `path`.
pub(super) fn path_key(section: &mut Section<'_>, problems: &mut Problems) -> Option<PathBuf> {
    if !section.has("path") {
        problems.push(section.problem("path", "is missing; write the table's folder"));
    }
    let found = section.path("path", problems)?;
    let written = found.text.trim_matches('"');
    if written.contains("://") {
        problems.push(found.problem("must be a local folder; object stores come in a later version"));
        return None;
    }
    Some(found.value)
}

/// A folder, its store, and the lock that makes this process its only writer under one name.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) store: Arc<dyn ObjectStore>,
    /// Held as long as anything of this opening still runs, also on an abandoned thread.
    _lock: File,
}

impl Folder {
    /// Creates the folder if needed, and locks `name` in it.
    pub(super) fn open(path: &Path, name: &str) -> Result<Arc<Folder>, SinkError> {
        Folder::open_through(path, name, &StoreLayer::default())
    }

    /// The same with something between the sink and its store.
    pub(super) fn open_through(
        path: &Path,
        name: &str,
        layer: &StoreLayer,
    ) -> Result<Arc<Folder>, SinkError> {
        let failed =
            |error| SinkError::unavailable(format!("cannot open the folder {}", path.display()), error);
        create_folder(path).map_err(failed)?;
        let root = path.canonicalize().map_err(failed)?;
        let lock_path = root.join(format!("_forebay_{name}.lock"));
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
        lock.try_lock().map_err(|error| {
            let doing = format!(
                "{} is written by another bridge (or an earlier write still runs)",
                lock_path.display()
            );
            SinkError::unavailable(doing, io::Error::from(error))
        })?;
        // What a listing shows here counts as committed; so it must not be undone by a power cut that is still to come.
        sync_folder(&root).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| {
            SinkError::unavailable(format!("cannot open the folder {}", root.display()), error)
        })?;
        let store = layer.over(Arc::new(store.with_fsync(true)));
        Ok(Arc::new(Folder { root, store, _lock: lock }))
    }

    /// Writes a file so that it is there whole or not at all, and durable; whether it is new (with `PutMode::Create`).
    ///
    /// Blocks, on a thread of the runtime that may: a caller who loses interest must not let go of the lock before the
    /// file is there.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<bool, SinkError> {
        let location = StorePath::from(name);
        match Handle::current().block_on(self.store.put_opts(&location, PutPayload::from(bytes), mode.into()))
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => {
                Err(SinkError::unavailable(format!("cannot write {}/{name}", self.root.display()), error))
            }
        }
    }

    /// Removes a file that nothing refers to; if it cannot be removed it only takes space.
    pub(super) fn discard(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.root.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = name, %error, "cannot remove a file that was not committed");
        }
    }

    /// When a file was last modified, in ms since 1970. Blocks.
    pub(super) fn modified_ms(&self, name: &str) -> Result<i64, SinkError> {
        let meta = Handle::current().block_on(self.store.head(&StorePath::from(name)));
        let meta = meta.map_err(|error| SinkError::unavailable(format!("cannot see {name}"), error))?;
        Ok(meta.last_modified.timestamp_millis())
    }
}

/// What stands between a sink and its object store: nothing, or a store that misbehaves as far ones do.
#[derive(Clone, Default)]
pub struct StoreLayer(Option<Arc<Wrap>>);

type Wrap = dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync;

impl StoreLayer {
    /// Every store of the sink is wrapped so.
    #[cfg(any(test, feature = "test-util"))]
    pub fn new(
        wrap: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync + 'static,
    ) -> StoreLayer {
        StoreLayer(Some(Arc::new(wrap)))
    }

    pub(super) fn over(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        match &self.0 {
            Some(wrap) => wrap(store),
            None => store,
        }
    }
}

impl std::fmt::Debug for StoreLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "StoreLayer(wrapped)" } else { "StoreLayer(none)" })
    }
}

/// Creates a folder and its missing parents, each entry synced.
fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A text for file names: letters and digits stay, every other byte is `_` and two hexadecimal digits.
pub(super) fn file_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            word.push(char::from(byte));
        } else {
            word.push_str(&format!("_{byte:02x}"));
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_safe_and_distinct() {
        assert_eq!(file_word("acme9"), "acme9");
        assert_eq!(file_word("a-b.c/ü"), "a_2db_2ec_2f_c3_bc");
        assert_ne!(file_word("a_2d"), file_word("a-"));
    }

    #[test]
    fn one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        let first = Folder::open(&path, "x").unwrap();
        assert!(matches!(Folder::open(&path, "x"), Err(SinkError::Unavailable { .. })));
        assert!(Folder::open(&path, "y").is_ok());
        drop(first);
        assert!(Folder::open(&path, "x").is_ok());
    }
}
