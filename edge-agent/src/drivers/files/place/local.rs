//! A folder of this machine, or one that it has mounted.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::watch::{Changes, Watch};
use super::{Facts, Place, Source, free_names};
use crate::drivers::DriverError;

impl Source for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

/// The folder. A name that begins with `/` is a file anywhere.
#[derive(Debug)]
pub(in super::super) struct Local {
    folder: PathBuf,
    /// Where the system says what changed; `None`: it is not asked.
    changes: Option<Arc<Changes>>,
    watch: Option<Watch>,
}

impl Local {
    /// The folder; with `changes`, the system is asked to tell there what changes in it, where it can.
    pub(in super::super) fn new(folder: &Path, changes: Option<Arc<Changes>>) -> Local {
        Local { folder: folder.to_owned(), changes, watch: None }
    }

    fn fault(&self, error: &io::Error) -> DriverError {
        DriverError::NotConnected(match error.kind() {
            io::ErrorKind::NotFound => {
                format!("folder {} is missing: create it, or mount what holds it", self.folder.display())
            }
            _ => format!("folder {}: {error}", self.folder.display()),
        })
    }

    /// The watch is of the folder that has this name now.
    fn keep_watch(&mut self) -> Result<(), DriverError> {
        let Some(changes) = &self.changes else { return Ok(()) };
        let now = std::fs::metadata(&self.folder).map_err(|error| self.fault(&error))?;
        if self.watch.as_ref().is_none_or(|watch| watch.folder != (now.dev(), now.ino())) {
            self.watch = Watch::of(&self.folder, (now.dev(), now.ino()), changes);
        }
        Ok(())
    }
}

impl Place for Local {
    fn open(&mut self) -> Result<(), DriverError> {
        std::fs::read_dir(&self.folder).map_err(|error| self.fault(&error))?;
        self.keep_watch()
    }

    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Facts)>, DriverError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(|error| self.fault(&error))? {
            let entry = entry.map_err(|error| self.fault(&error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !wanted(&name) {
                continue;
            }
            // A file that goes away between the two calls is no file. Names are looked up in the open folder.
            let Ok(mut metadata) = entry.metadata() else { continue };
            if metadata.is_symlink() {
                let Ok(target) = std::fs::metadata(entry.path()) else { continue };
                metadata = target;
            }
            if metadata.is_file() {
                found.push((name, facts(&metadata)));
            }
        }
        Ok(found)
    }

    fn facts(&mut self, name: &str) -> io::Result<Facts> {
        let metadata = std::fs::metadata(self.folder.join(name))?;
        if metadata.is_file() { Ok(facts(&metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn file(&mut self, name: &str) -> io::Result<(Box<dyn Source>, Facts)> {
        let file = File::open(self.folder.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((Box::new(file), facts(&metadata)))
    }

    fn shift(&mut self, name: &str, folder: &str) -> io::Result<String> {
        let target = self.folder.join(folder);
        std::fs::create_dir_all(&target)?;
        for free in free_names(name) {
            match rename_new(&self.folder.join(name), &target.join(&free)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(free),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn changes(&mut self) -> Option<Vec<String>> {
        self.keep_watch().ok()?;
        self.watch.as_ref()?;
        self.changes.as_ref()?.take()
    }
}

/// Renames, never onto a file that is there.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.try_exists()? => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
        done => done.map_err(io::Error::from),
    }
}

fn facts(metadata: &Metadata) -> Facts {
    Facts {
        identity: (metadata.dev(), metadata.ino()),
        size: metadata.len(),
        modified: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
    }
}
