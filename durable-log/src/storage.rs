//! The disk seam: the few operations a log needs, so that a damaging disk can stand in for the real one.
//!
//! Names are plain file names in one directory. What POSIX promises is what is promised here: bytes are durable
//! after [`StorageFile::sync`], names after [`Storage::sync_dir`], nothing before.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One directory that holds a log.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The path of a name, for messages; the empty name gives the directory.
    fn path(&self, name: &str) -> PathBuf;
    /// All names with their sizes.
    fn list(&self) -> io::Result<Vec<Entry>>;
    /// Creates an empty file, replacing one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens for reading, and for writing too if `writable`.
    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames, replacing the target; atomic, durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; durable after `sync_dir`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Keeps what `name` holds now under another name, out of the log's way, where nothing of ours ever removes it.
    /// `name` itself stays. Durable when it returns the path of the copy.
    fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        let taken: Vec<String> = self.list()?.into_iter().map(|entry| entry.name).collect();
        let aside = (1_u64..).map(|n| format!("damaged-{name}.{n}")).find(|aside| !taken.contains(aside));
        let aside = aside.unwrap_or_default();
        let (from, to) = (self.open(name, false)?, self.create(&aside)?);
        let mut piece = vec![0; 64 * 1024];
        let mut at = 0;
        loop {
            let read = read_full(&*from, &mut piece, at)?;
            if read == 0 {
                break;
            }
            write_full(&*to, piece.get(..read).unwrap_or_default(), at)?;
            at += read as u64;
        }
        to.sync()?;
        self.sync_dir()?;
        Ok(self.path(&aside))
    }
    /// Paths of the copies that [`Storage::set_aside`] has made.
    fn kept_aside(&self) -> io::Result<Vec<PathBuf>> {
        let kept = self.list()?.into_iter().filter(|entry| entry.name.starts_with("damaged-"));
        Ok(kept.map(|entry| self.path(&entry.name)).collect())
    }
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes of the whole disk, where that can be known.
    fn total_bytes(&self) -> Option<u64> {
        None
    }
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Takes the writer's lock until the guard is dropped. `WouldBlock` if another one holds it.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// The process that holds the lock, where that can be known.
    fn lock_owner(&self) -> Option<u32>;
}

/// One open file.
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Reads some bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes bytes and size durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to a size.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// The size now.
    fn bytes(&self) -> io::Result<u64>;
}

/// One name in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File name.
    pub name: String,
    /// File size.
    pub bytes: u64,
}

/// Fills `into` as far as the file goes; returns how much it got.
pub(crate) fn read_full(file: &dyn StorageFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_full(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the disk said that there is no room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
