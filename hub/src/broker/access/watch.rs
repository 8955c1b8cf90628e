//! Watches the access file: looks at its time, size and inode four times a second and reads it when they change.
//!
//! A file that has just changed is read again for two seconds whatever they say: an editor that writes twice within
//! one tick of the file system's clock is not missed. Contents that were read before change nothing.

use std::convert::Infallible;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::tasks::CancellationToken;

use super::AccessBook;
use super::file::{AccessFile, FILE_BYTES_MAX};

/// Changes are effective within a second (issue 4); this leaves time for reading.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks after a change that read the file in any case: two seconds, more than any clock's tick.
const UNSETTLED_LOOKS: u32 = 8;

/// What tells that a file is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

/// The file as it was read last.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    stamp: Option<Stamp>,
    contents: Result<String, String>,
    unsettled: u32,
}

impl Watch {
    /// Reads the file for the first time.
    pub(super) fn begin(path: &Path) -> (Watch, Result<AccessFile, String>) {
        let (stamp, contents) = (stamp(path), read(path));
        let file = contents.clone().and_then(|text| AccessFile::parse(path, text));
        let watch = Watch { path: path.to_owned(), stamp, contents, unsettled: UNSETTLED_LOOKS };
        (watch, file)
    }

    /// Tells the book about every change until shutdown.
    pub(super) async fn run(
        mut self,
        book: AccessBook,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let looked = tokio::task::spawn_blocking(move || {
                let news = self.look();
                (self, news)
            });
            let Ok((watch, news)) = looked.await else { return Ok(()) }; // the runtime is ending
            self = watch;
            if let Some(file) = news {
                book.take(file);
            }
        }
    }

    /// What is new since the last look, if anything is.
    fn look(&mut self) -> Option<Result<AccessFile, String>> {
        let stamp = stamp(&self.path);
        if stamp != self.stamp {
            self.stamp = stamp;
            self.unsettled = UNSETTLED_LOOKS;
        } else if self.unsettled == 0 {
            return None;
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        let contents = read(&self.path);
        if contents == self.contents {
            return None;
        }
        self.contents = contents.clone();
        Some(contents.and_then(|text| AccessFile::parse(&self.path, text)))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        bytes: found.size(),
        inode: found.ino(),
    })
}

/// The file's text, bounded.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(text)
}
