//! Where files are: a folder of this machine, or one behind SFTP or FTP. Knows no formats and no ledger.
//!
//! Everything here blocks; the driver calls it on a thread of its own.

use std::fmt::Debug;
use std::io;

use crate::drivers::DriverError;

pub(super) mod ftp;
pub(super) mod local;
pub(super) mod remote;
pub(super) mod sftp;
pub(super) mod watch;

/// What a place says about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Which file it is, whatever its name: device and inode where there are such, else made of place and name.
    pub(super) identity: (u64, u64),
    /// Bytes.
    pub(super) size: u64,
    /// When it was changed, in ns since 1970.
    pub(super) modified: i64,
}

impl Facts {
    /// What changes when the file does.
    pub(super) fn state(&self) -> (u64, i64) {
        (self.size, self.modified)
    }
}

/// Bytes of an open file.
pub(super) trait Source {
    /// Reads at `offset`; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A folder with files.
pub(super) trait Place: Debug + Send {
    /// Connects, and looks whether the folder is there.
    fn open(&mut self) -> Result<(), DriverError>;

    /// The files whose names `wanted` takes, without those in sub-folders. In no order.
    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Facts)>, DriverError>;

    /// One file as it is now; `NotFound` if there is none.
    fn facts(&mut self, name: &str) -> io::Result<Facts>;

    /// Opens a file.
    fn file(&mut self, name: &str) -> io::Result<(Box<dyn Source>, Facts)>;

    /// Moves a file into a folder, under another name where its own is taken; the name it has there.
    fn shift(&mut self, name: &str, folder: &str) -> io::Result<String>;

    /// Deletes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Whether a failure of this kind means that the place is gone, not the file.
    fn is_lost(&self) -> bool {
        false
    }

    /// Names that changed since the last call; `None`: nobody knows, list them.
    fn changes(&mut self) -> Option<Vec<String>> {
        None
    }
}

/// Up to `length` bytes; fewer at the end of the file.
pub(super) fn read_at(file: &dyn Source, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Names to try for a file that is moved: its own, then with a number before the extension.
pub(super) fn free_names(name: &str) -> impl Iterator<Item = String> {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem.to_owned(), format!(".{extension}")),
        _ => (name.to_owned(), String::new()),
    };
    let numbered = (1..10_000).map(move |nth| format!("{stem}-{nth}{extension}"));
    std::iter::once(name.to_owned()).chain(numbered)
}
