//! [`Storage`] on a real directory.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock, statvfs};

use crate::storage::{Entry, Storage, StorageFile};

/// Holds the lock and, as text, the pid of its owner.
const LOCK_FILE: &str = "lock";
/// Where damaged files are kept, below the log's folder.
const SIDE_FOLDER: &str = "damaged";

/// A directory on a local file system.
#[derive(Debug)]
pub struct DiskStorage {
    dir: PathBuf,
}

impl DiskStorage {
    /// A directory that is created if it is missing.
    pub fn create(dir: &Path) -> io::Result<DiskStorage> {
        fs::create_dir_all(dir)?;
        sync_ancestors(dir)?;
        Ok(DiskStorage { dir: dir.to_path_buf() })
    }

    /// A directory that must exist.
    pub fn existing(dir: &Path) -> io::Result<DiskStorage> {
        if fs::metadata(dir)?.is_dir() {
            Ok(DiskStorage { dir: dir.to_path_buf() })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }
}

/// The names that lead to `dir` must survive too; this or an earlier opening may have created them.
fn sync_ancestors(dir: &Path) -> io::Result<()> {
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match File::open(above) {
            Ok(opened) => opened.sync_all()?,
            Err(_unreadable) => break, // not ours to read, hence not created by us
        }
    }
    Ok(())
}

impl Storage for DiskStorage {
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => entries.push(Entry { name, bytes: metadata.len() }),
                Ok(_other) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(writable).open(self.path(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.dir.join(SIDE_FOLDER);
        fs::create_dir_all(&folder)?;
        let from = self.path(name);
        let mut n = 1_u64;
        let to = loop {
            let to = folder.join(format!("{name}.{n}"));
            // A second name for the same bytes costs no room; the log's own name gets another file.
            match fs::hard_link(&from, &to) {
                Ok(()) => break to,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(_no_links_here) if !to.exists() => {
                    fs::copy(&from, &to)?;
                    File::open(&to)?.sync_all()?;
                    break to;
                }
                Err(error) => return Err(error),
            }
        };
        File::open(&folder)?.sync_all()?;
        self.sync_dir()?;
        Ok(to)
    }

    fn kept_aside(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(self.dir.join(SIDE_FOLDER)) {
            Ok(kept) => kept.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn total_bytes(&self) -> Option<u64> {
        let space = statvfs(&self.dir).ok()?;
        // What only root may still write counts as gone, as it does in `free_bytes`.
        let usable = space.f_blocks.saturating_sub(space.f_bfree.saturating_sub(space.f_bavail));
        Some(usable.saturating_mul(space.f_frsize))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = statvfs(&self.dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(LOCK_FILE))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        // The pid only makes a message clearer: a disk too full for it must not keep the log shut.
        if let Err(error) = write!(file, "{}", std::process::id()) {
            tracing::debug!(%error, "pid not written to the lock file");
        }
        Ok(Box::new(file))
    }

    fn lock_owner(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(self.path(LOCK_FILE)).ok()?.take(16).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
