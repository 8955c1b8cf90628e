//! `files`: records in files that somebody else writes: CSV and its relatives, fixed width, JSON, key=value ...
//!
//! ```text
//! place            where files are                 names, facts, bytes at an offset; what changed
//! format           how bytes become records        lines or documents → cells
//! mapping          what cells mean                 cells → readings (time, number, which point)
//! ledger, content  what was accepted               bytes of contents, whatever files are called
//! reader           brings them together, one bounded step per call
//! ```
//!
//! The keys of a device are in [`settings`], for users in docs/specs/driver.md. `csv-folder` is an older name of this
//! driver. A source is altered only if `after` says so.
//!
//! File calls run on a thread of their own, because a lost network share can hold them for minutes.

use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use async_trait::async_trait;
use model::Value;
use runtime::config_file::{Problems, Section};

use super::{DeviceSetup, Driver, DriverError, DriverKind, NextRead, Reading, Readings};
use place::Place;
use place::ftp::Ftp;
use place::local::Local;
use place::remote::Scheme;
use place::sftp::Sftp;
use place::watch::Changes;
use reader::Reader;
use settings::{Settings, Where};

pub mod again;
mod content;
mod format;
mod ledger;
mod mapping;
mod number;
mod pattern;
mod place;
pub mod preview;
mod quarantine;
mod reader;
mod settings;
mod sniff;
mod time;

/// The texts of a workbook's rows that are not empty, with their numbers from 1: of the sheet of that name, or the first.
pub(crate) fn sheet_texts(bytes: &[u8], name: Option<&str>) -> Result<Vec<(u64, Vec<String>)>, String> {
    let rows = format::sheet::Sheet { name: name.map(str::to_owned) }.rows(bytes)?;
    let text = |cell: Option<mapping::Cell<'_>>| match cell {
        Some(mapping::Cell::Text(text) | mapping::Cell::Number(text)) => text.into_owned(),
        None => String::new(),
    };
    Ok(rows.into_iter().map(|(number, cells)| (number, cells.into_iter().map(text).collect())).collect())
}

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind = DriverKind {
    name: "files",
    summary: "records in the files of a folder, by line or as a whole",
    validate,
};

/// What the driver was called when it knew CSV files only.
pub(super) const CSV_FOLDER: DriverKind =
    DriverKind { name: "csv-folder", summary: "an older name of \"files\"", validate };

/// The driver's names.
pub const NAMES: [&str; 2] = [KIND.name, CSV_FOLDER.name];

/// A step reads 256 KiB: one that takes longer hangs in a network share.
const CLOSE_AT_MOST: Duration = Duration::from_secs(1);

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    let settings = settings::validate(section, setup, problems)?;
    Some(Box::new(Files { settings, reader: Arc::default(), changes: Arc::default() }))
}

struct Files {
    settings: Settings,
    /// `None` while closed. A call that was cut off may still hold the lock; nothing waits for it.
    reader: Arc<Mutex<Option<Reader>>>,
    /// Where the system says what changed.
    changes: Arc<Changes>,
}

#[async_trait]
impl Driver for Files {
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError> {
        let (settings, resume) = (self.settings.clone(), resume.map(<[u8]>::to_vec));
        let changes = Arc::clone(&self.changes);
        self.is_free(CLOSE_AT_MOST).await;
        self.on_thread(move |reader| {
            *reader = None;
            *reader = Some(Reader::open(&settings, place(&settings, changes), resume.as_deref())?);
            Ok(())
        })
        .await
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let (next, mut readings) = self
            .on_thread(|held| {
                let mut reader = held.take().ok_or_else(closed)?;
                let mut readings = Readings::default();
                let next = reader.read(&mut readings)?;
                *held = Some(reader); // not after an error: what it holds in memory may be ahead of the disk
                Ok((next, readings))
            })
            .await?;
        into.list.append(&mut readings.list);
        into.quarantined += readings.quarantined;
        into.position = readings.position.or(into.position.take());
        Ok(next)
    }

    async fn write(&mut self, _: usize, _: &Value) -> Result<(), DriverError> {
        Err(refused("files cannot be written"))
    }

    async fn read_one(&mut self, _: usize) -> Result<Reading, DriverError> {
        Err(refused("a file cannot be asked for one value"))
    }

    async fn acknowledge(&mut self, position: &[u8]) -> Result<(), DriverError> {
        let position = position.to_vec();
        self.on_thread(move |reader| reader.as_mut().map_or(Ok(()), |reader| reader.acknowledge(&position)))
            .await
    }

    async fn ready(&mut self) {
        self.changes.wait().await;
    }

    async fn close(&mut self) {
        // A call that was cut off puts its reader back when it ends; `open` throws that away.
        self.is_free(CLOSE_AT_MOST).await;
        if let Ok(mut held) = self.reader.try_lock() {
            *held = None;
        }
    }
}

impl Files {
    /// Waits for a call that was cut off, for so long at most.
    async fn is_free(&self, at_most: Duration) {
        let deadline = tokio::time::Instant::now() + at_most;
        while matches!(self.reader.try_lock(), Err(TryLockError::WouldBlock))
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Option<Reader>) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let reader = Arc::clone(&self.reader);
        let done = tokio::task::spawn_blocking(move || match reader.try_lock() {
            Ok(mut held) => call(&mut held),
            Err(TryLockError::Poisoned(held)) => call(&mut held.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(DriverError::NotConnected("the folder's last call has not come back yet".into()))
            }
        });
        done.await
            .unwrap_or_else(|error| Err(DriverError::NotConnected(format!("reading the folder: {error}"))))
    }
}

fn place(settings: &Settings, changes: Arc<Changes>) -> Box<dyn Place> {
    match &settings.place {
        Where::Folder(folder, watched) => Box::new(Local::new(folder, watched.then_some(changes))),
        Where::Remote(remote) => match remote.scheme {
            Scheme::Sftp => Box::new(Sftp::new(remote.clone())),
            Scheme::Ftp => Box::new(Ftp::new(remote.clone())),
        },
    }
}

fn closed() -> DriverError {
    DriverError::NotConnected("the folder is not open".into())
}

fn refused(reason: &str) -> DriverError {
    DriverError::Refused { reason: reason.to_owned(), code: 0 }
}

#[cfg(test)]
mod tests;
