//! A table's place as an object store that means what it says: what it reports as written survives a power cut.
//!
//! `object_store` does not fsync local files unless told to; here files, their folders and new folders' parents are all
//! synced. A far store answers when it has the bytes for good. File names are made of text that no file system, URL or glob
//! gives a meaning to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use runtime::config_file::{Problems, Section};
use tokio::runtime::Handle;
use url::Url;

use super::location::{Location, trouble};
use super::{SinkError, in_one_line};

/// Reads the key `path`, where only a folder will do.
pub(super) fn path_key(section: &mut Section<'_>, problems: &mut Problems) -> Option<PathBuf> {
    if !section.has("path") {
        problems.push(section.problem("path", "is missing; write the table's folder"));
    }
    let found = section.path("path", problems)?;
    let written = found.text.trim_matches('"');
    if written.contains("://") {
        problems.push(found.problem("must be a local folder; tables in object stores are of kind \"delta\""));
        return None;
    }
    Some(found.value)
}

/// A table's place, opened: its store, and, in a folder, the lock that makes this process its only writer under one name.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As people know it.
    pub(super) name: String,
    /// The folder itself, if it is one of this machine.
    pub(crate) root: Option<PathBuf>,
    /// Names in it are below the table's place.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Held as long as anything of this opening still runs, also on an abandoned thread.
    _lock: Option<File>,
}

/// The store of a whole disk or bucket, as the table library wants it, and the table's URL in it; ends with `/`.
pub(crate) struct Whole {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) url: Url,
}

impl Folder {
    /// Creates the folder if needed, and locks `name` in it. In an object store there is nothing to create and no lock.
    pub(super) fn open(location: &Location, name: &str) -> Result<Arc<Folder>, SinkError> {
        Folder::open_through(location, name, &StoreLayer::default())
    }

    /// The same with something between the sink and its store.
    pub(super) fn open_through(
        location: &Location,
        name: &str,
        layer: &StoreLayer,
    ) -> Result<Arc<Folder>, SinkError> {
        let Location::Folder(path) = location else { return Folder::look_into(location, layer) };
        let failed = |error| SinkError::unavailable(format!("cannot open the folder {location}"), error);
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
        let folder = Folder { _lock: Some(lock), ..Folder::of(location, layer)? };
        Ok(Arc::new(folder))
    }

    /// Opens what is there, beside whoever writes it.
    pub(crate) fn look_into(location: &Location, layer: &StoreLayer) -> Result<Arc<Folder>, SinkError> {
        Folder::of(location, layer).map(Arc::new)
    }

    fn of(location: &Location, layer: &StoreLayer) -> Result<Folder, SinkError> {
        let name = location.to_string();
        match location {
            Location::Folder(path) => {
                let doing = || format!("cannot open the folder {name}");
                let root = path.canonicalize().map_err(|error| SinkError::unavailable(doing(), error))?;
                let store = LocalFileSystem::new_with_prefix(&root)
                    .map_err(|error| SinkError::unavailable(doing(), error))?;
                let store = layer.over(Arc::new(store.with_fsync(true)));
                Ok(Folder { name, root: Some(root), store, _lock: None })
            }
            Location::Far(far) => {
                let prefix = StorePath::from_url_path(far.url().path())
                    .map_err(|error| SinkError::Unfit(format!("{name}: {error}")))?;
                let store = Arc::new(PrefixStore::new(layer.over(far.client()?), prefix));
                Ok(Folder { name, root: None, store, _lock: None })
            }
        }
    }

    /// The whole that the place is in.
    pub(crate) fn whole(location: &Location, layer: &StoreLayer) -> Result<Whole, SinkError> {
        match location {
            Location::Folder(path) => {
                let root = path.canonicalize().map_err(|error| {
                    SinkError::unavailable(format!("cannot open the folder {location}"), error)
                })?;
                if root.as_os_str().as_encoded_bytes().contains(&b'%') {
                    let why = "has a % in its path, which the Delta library takes for an escape; choose another folder";
                    return Err(SinkError::Unfit(format!("{} {why}", root.display())));
                }
                let url = Url::from_directory_path(&root).map_err(|()| {
                    SinkError::Unfit(format!("{} cannot be written as a URL", root.display()))
                })?;
                Ok(Whole { store: layer.over(Arc::new(LocalFileSystem::new().with_fsync(true))), url })
            }
            Location::Far(far) => Ok(Whole { store: layer.over(far.client()?), url: far.url().clone() }),
        }
    }

    /// Writes a file so that it is there whole or not at all, and durable; whether it is new (with `PutMode::Create`).
    ///
    /// Blocks, on a thread of the runtime that may: a caller who loses interest must not let go of the lock before the
    /// file is there.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<bool, SinkError> {
        let location = StorePath::from(name);
        let is_large = bytes.len() > PART_BYTES * 2 && matches!(mode, PutMode::Overwrite);
        let put = async {
            if is_large && self.root.is_none() {
                return put_in_parts(self.store.as_ref(), &location, bytes.into()).await;
            }
            self.store.put_opts(&location, PutPayload::from(bytes), mode.into()).await.map(drop)
        };
        match Handle::current().block_on(put) {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(trouble::unavailable(&format!("cannot write {}/{name}", self.name), &error)),
        }
    }

    /// Removes a file that nothing refers to; if it cannot be removed it only takes space.
    pub(crate) fn discard(&self, name: &str) {
        match Handle::current().block_on(self.store.delete(&StorePath::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                let error = in_one_line(&trouble::unavailable("it stays", &error));
                tracing::warn!(file = name, %error, "cannot remove a file that was not committed");
            }
        }
    }

    /// When a file was last modified, in ms since 1970. Blocks.
    pub(crate) fn modified_ms(&self, name: &str) -> Result<i64, SinkError> {
        let meta = Handle::current().block_on(self.store.head(&StorePath::from(name)));
        let meta =
            meta.map_err(|error| trouble::unavailable(&format!("cannot see {}/{name}", self.name), &error))?;
        Ok(meta.last_modified.timestamp_millis())
    }
}

/// Bytes of one part of a large file: within what every store takes (5 MiB to 5 GiB, at most 10 000 parts).
pub(crate) const PART_BYTES: usize = 8 << 20;

/// A large file in parts, one after the other; there whole at the end, or not at all.
async fn put_in_parts(
    store: &dyn ObjectStore,
    location: &StorePath,
    bytes: Bytes,
) -> object_store::Result<()> {
    let mut upload = store.put_multipart(location).await?;
    let mut sent = Ok(());
    let mut rest = bytes;
    while sent.is_ok() && !rest.is_empty() {
        let part = rest.split_to(rest.len().min(PART_BYTES));
        sent = upload.put_part(part.into()).await;
    }
    match sent {
        Ok(()) => upload.complete().await.map(drop),
        Err(error) => {
            // Parts without an end take space; stores have rules that remove them.
            if let Err(left) = upload.abort().await {
                tracing::debug!(file = %location, error = %left, "parts of a failed upload stay");
            }
            Err(error)
        }
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

/// The text of a [`file_word`].
pub(crate) fn word_of_file(word: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), word.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            bytes.push(byte);
            continue;
        }
        let digit =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(rest.next())? << 4 | digit(rest.next())?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_safe_and_distinct() {
        assert_eq!(file_word("acme9"), "acme9");
        assert_eq!(file_word("a-b.c/ü"), "a_2db_2ec_2f_c3_bc");
        assert_ne!(file_word("a_2d"), file_word("a-"));
        for text in ["acme9", "a-b.c/ü", "a_2d", ""] {
            assert_eq!(word_of_file(&file_word(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = Location::from(folder.path().join("a/b/c"));
        let first = Folder::open(&path, "x").unwrap();
        assert!(matches!(Folder::open(&path, "x"), Err(SinkError::Unavailable { .. })));
        assert!(Folder::open(&path, "y").is_ok());
        drop(first);
        assert!(Folder::open(&path, "x").is_ok());
    }
}
