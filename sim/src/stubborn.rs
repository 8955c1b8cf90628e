//! A disk under a program that tries a failed sync again and believes the second answer (see `Mistake::SyncAgain`).

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use durable_log::{Entry, FaultyStorage, Storage, StorageFile};
use runtime::mistakes::{Mistake, is_made};

/// The disk as a process uses it.
pub(crate) fn disk(storage: &FaultyStorage) -> Arc<dyn Storage> {
    let storage = Arc::new(storage.clone());
    if is_made(Mistake::SyncAgain) { Arc::new(Stubborn(storage)) } else { storage }
}

#[derive(Debug)]
struct Stubborn(Arc<FaultyStorage>);

#[derive(Debug)]
struct StubbornFile(Arc<dyn StorageFile>);

impl Storage for Stubborn {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(StubbornFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(StubbornFile(self.0.open(name, writable)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock()
    }

    fn lock_owner(&self) -> Option<u32> {
        self.0.lock_owner()
    }
}

impl StorageFile for StubbornFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync().or_else(|_failed| self.0.sync())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
}
