//! `csv-folder`: rows of CSV files that somebody else writes into a folder. The files are never altered.
//!
//! Keys of the device: `folder`; `pattern` ("*.csv"); `separator` (",", one character or "tab"); `decimal` ("." or ",");
//! `time` ("timestamp"), the time column; `time_format` ("iso", "epoch-s|ms|us" or strftime); `zone` ("UTC", an IANA
//! name, for times without offset); `start` ("beginning" or "end": what to do with files that are there at the very
//! first start). A point's address is the name of its column.
//!
//! - The first line is the header. An empty cell is no reading. A line ends with a line feed; a quoted cell cannot hold
//!   one.
//! - A wrong number of cells or an unreadable time puts the line into the quarantine; an unreadable cell becomes Bad
//!   and is noted there, the line's other cells are read.
//! - What is accepted is known per content, not per name: see [`content`]. Where that is kept: see [`ledger`].
//!
//! File calls run on a thread of their own, because a lost network share can hold them for minutes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use async_trait::async_trait;
use chrono_tz::Tz;
use model::{DataType, Value};
use runtime::clock::Clock;
use runtime::config_file::{Problems, Section};

use super::{DeviceSetup, Driver, DriverError, DriverKind, NextRead, READINGS_MAX, Reading, Readings};
use reader::{Pattern, Reader};
use row::Dialect;
use time_column::TimeForm;

mod content;
mod ledger;
mod quarantine;
mod reader;
mod row;
mod time_column;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind =
    DriverKind { name: "csv-folder", summary: "rows of the CSV files in a folder", validate };

/// A step reads 256 KiB: one that takes longer hangs in a network share.
const CLOSE_AT_MOST: Duration = Duration::from_secs(1);

/// What the configuration says.
#[derive(Clone, Debug)]
struct Settings {
    folder: PathBuf,
    pattern: Pattern,
    start: Start,
    dialect: Dialect,
    state_dir: PathBuf,
    clock: Clock,
}

/// What to do with files that are there at the very first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    End,
}

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    let before = problems.list.len();
    if !section.has("folder") {
        problems.push(section.problem("folder", "is missing; write the folder in which the files are"));
    }
    let folder = section.path("folder", problems);
    let pattern = section.checked("pattern", problems, |text| match text {
        "" => Err("must not be empty; write something like \"*.csv\"".into()),
        _ if text.contains('/') => Err("is a pattern of file names, without folders".into()),
        _ => Ok(Pattern(text.to_owned())),
    });
    let separator = section.checked("separator", problems, parse_separator).map_or(b',', |found| found.value);
    let decimal = section.checked("decimal", problems, |text| match text {
        "." => Ok(false),
        "," if separator == b',' => Err("cannot be the separator too; write separator = \";\"".into()),
        "," => Ok(true),
        _ => Err("must be \".\" or \",\"".into()),
    });
    let time = section.checked("time", problems, |text| {
        if text.trim().is_empty() {
            Err("must name the time column".into())
        } else {
            Ok(text.trim().to_owned())
        }
    });
    let time_form = section.checked("time_format", problems, TimeForm::parse);
    let zone = section.checked("zone", problems, |text| {
        text.parse::<Tz>().map_err(|_| "must be an IANA zone such as \"Europe/Berlin\" or \"UTC\"".to_owned())
    });
    let start = section.checked("start", problems, |text| match text {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        _ => Err("must be \"beginning\" or \"end\"".to_owned()),
    });
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        match check_point(&point.address, point.raw_type, point.definition.writable) {
            Ok(()) => points.push((point.address.trim().to_owned(), point.raw_type)),
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    if points.len() > READINGS_MAX {
        problems.push(section.problem("points", format!("a device has at most {READINGS_MAX} columns")));
    }
    (problems.list.len() == before).then_some(())?;
    let dialect = Dialect {
        separator,
        decimal_comma: decimal.is_some_and(|found| found.value),
        time: time.map_or_else(|| "timestamp".to_owned(), |found| found.value),
        time_form: time_form.map_or(TimeForm::Iso, |found| found.value),
        zone: zone.map_or(Tz::UTC, |found| found.value),
        points,
    };
    let settings = Settings {
        folder: folder?.value,
        pattern: pattern.map_or_else(|| Pattern("*.csv".to_owned()), |found| found.value),
        start: start.map_or(Start::Beginning, |found| found.value),
        dialect,
        state_dir: setup.state_dir.clone(),
        clock: setup.clock.clone(),
    };
    Some(Box::new(CsvFolder { settings, reader: Arc::default() }))
}

fn parse_separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" => Ok(b'\t'),
        [byte]
            if (byte.is_ascii_punctuation() || matches!(byte, b'\t' | b' ')) && !b"\"'.-+".contains(byte) =>
        {
            Ok(*byte)
        }
        _ => Err("must be one character such as \",\", \";\" or \"|\", or \"tab\"".into()),
    }
}

fn check_point(address: &str, data_type: DataType, writable: bool) -> Result<(), String> {
    if address.trim().is_empty() {
        return Err("must be the name of the column".into());
    }
    if data_type == DataType::Bytes {
        return Err("a cell cannot be read as bytes; use string".into());
    }
    if writable {
        return Err("files cannot be written; say writable = false".into());
    }
    Ok(())
}

struct CsvFolder {
    settings: Settings,
    /// `None` while closed. A call that was cut off may still hold the lock; nothing waits for it.
    reader: Arc<Mutex<Option<Reader>>>,
}

#[async_trait]
impl Driver for CsvFolder {
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError> {
        let (settings, resume) = (self.settings.clone(), resume.map(<[u8]>::to_vec));
        self.is_free(CLOSE_AT_MOST).await;
        self.on_thread(move |reader| {
            *reader = None;
            *reader = Some(Reader::open(&settings, resume.as_deref())?);
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
        self.on_thread(move |reader| reader.as_ref().map_or(Ok(()), |reader| reader.acknowledge(&position)))
            .await
    }

    async fn close(&mut self) {
        // A call that was cut off puts its reader back when it ends; `open` throws that away.
        self.is_free(CLOSE_AT_MOST).await;
        if let Ok(mut held) = self.reader.try_lock() {
            *held = None;
        }
    }
}

impl CsvFolder {
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

fn closed() -> DriverError {
    DriverError::NotConnected("the folder is not open".into())
}

fn refused(reason: &str) -> DriverError {
    DriverError::Refused { reason: reason.to_owned(), code: 0 }
}

#[cfg(test)]
mod tests;
