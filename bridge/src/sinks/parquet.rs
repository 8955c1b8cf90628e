//! A plain folder of Parquet files: the published file name, holding the exact range, is the commit (design §4.16).
//!
//! ```text
//! {hub id}.{sink}-{plant-log epoch, 16 hex}-{first position, 20 digits}-{end, 20 digits}.parquet
//! ```
//! with hub id and sink as `folder::file_word`. One file per batch, written under another name, synced, linked to its
//! name, and its folder synced; so a name that a listing shows is a whole file. On open the listing gives the cursor, and
//! batches start there. Ranges never overlap: should they (a copied file), the sink refuses to go on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use model::Epoch;
use object_store::PutMode;
use runtime::config_file::{Problems, Section};

use super::folder::{Folder, file_word, path_key};
use super::location::Location;
use super::{Sink, SinkError, SinkKind, Written, blocking};
use crate::batch::Batch;
use crate::cursor::{Cursor, PlantLog, Span};
use crate::parquet_file::encode_all;

/// `kind = "parquet"`.
pub const KIND: SinkKind = SinkKind { name: "parquet", validate };

fn validate(section: &mut Section<'_>, problems: &mut Problems) -> Option<Box<dyn Sink>> {
    Some(Box::new(ParquetSink::new(path_key(section, problems)?)))
}

/// The sink.
#[derive(Debug)]
pub struct ParquetSink {
    location: Location,
    target: Option<Target>,
    staged: Option<Staged>,
}

#[derive(Debug)]
struct Target {
    folder: Arc<Folder>,
    prefix: String,
    held: Option<Cursor>,
}

#[derive(Debug)]
struct Staged {
    span: Span,
    name: String,
    bytes: Vec<u8>,
    rows: u64,
}

impl ParquetSink {
    /// Files into this folder.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        ParquetSink { location: path.into(), target: None, staged: None }
    }
}

#[async_trait]
impl Sink for ParquetSink {
    async fn open(&mut self, name: &str, log: &PlantLog) -> Result<Option<Cursor>, SinkError> {
        self.close().await;
        let (location, log) = (self.location.clone(), log.clone());
        let prefix = format!("{}.{}", file_word(&log.hub_id), file_word(name));
        let target = blocking("cannot list the folder", move || {
            let folder = Folder::open(&location, &prefix)?;
            let held = cursor_of(&committed(&folder, &prefix)?, &log);
            Ok(Target { folder, prefix, held })
        })
        .await?;
        let held = target.held;
        self.target = Some(target);
        Ok(held)
    }

    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), SinkError> {
        let target = self.target.as_ref().ok_or(SinkError::NotOpen)?;
        let span = batch.span().clone();
        let name = file_name(&target.prefix, &span);
        let file = blocking("cannot encode the rows", move || Ok(encode_all(&batch)?)).await?;
        self.staged = Some(Staged { span, name, bytes: file.bytes, rows: file.rows as u64 });
        Ok(())
    }

    async fn commit(&mut self, upto: Cursor) -> Result<Written, SinkError> {
        let target = self.target.as_mut().ok_or(SinkError::NotOpen)?;
        if target.held == Some(upto) {
            self.staged = None;
            return Ok(Written::default());
        }
        let staged =
            self.staged.take().filter(|staged| staged.span.end() == upto).ok_or(SinkError::NotOpen)?;
        let written = Written { rows: staged.rows, files: 1, bytes: staged.bytes.len() as u64 };
        let folder = Arc::clone(&target.folder);
        blocking("cannot write the file", move || {
            if folder.put(&staged.name, staged.bytes, PutMode::Create)? {
                Ok(())
            } else {
                Err(SinkError::Raced(format!("{} is already there", staged.name)))
            }
        })
        .await?;
        target.held = Some(upto);
        Ok(written)
    }

    async fn close(&mut self) {
        self.target = None;
        self.staged = None;
    }

    fn location(&self) -> Option<&Location> {
        Some(&self.location)
    }
}

fn file_name(prefix: &str, span: &Span) -> String {
    format!("{prefix}-{}-{:020}-{:020}.parquet", span.epoch, span.positions.start, span.positions.end)
}

/// The span in a file's name, if it is one of this cursor's.
fn parse_name(prefix: &str, name: &str) -> Option<Span> {
    let mut parts = name.strip_suffix(".parquet")?.strip_prefix(prefix)?.strip_prefix('-')?.split('-');
    let epoch = parts.next().filter(|text| text.len() == 16)?;
    let (start, end) = (parts.next()?, parts.next()?);
    let span = Span {
        epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?),
        positions: start.parse().ok()?..end.parse().ok()?,
    };
    (parts.next().is_none() && span.positions.start < span.positions.end).then_some(span)
}

fn committed(folder: &Folder, prefix: &str) -> Result<BTreeMap<Epoch, Vec<Range<u64>>>, SinkError> {
    let failed = |error| SinkError::unavailable(format!("cannot list {}", folder.name), error);
    let mut spans: BTreeMap<Epoch, Vec<Range<u64>>> = BTreeMap::new();
    for entry in std::fs::read_dir(&folder.name).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(span) = name.to_str().and_then(|name| parse_name(prefix, name)) {
            spans.entry(span.epoch).or_default().push(span.positions);
        }
    }
    for (epoch, ranges) in &mut spans {
        ranges.sort_unstable_by_key(|range| range.start);
        let overlap = ranges.iter().zip(ranges.iter().skip(1)).find(|(a, b)| a.end > b.start);
        if let Some((a, b)) = overlap {
            return Err(SinkError::Unfit(format!(
                "files of {prefix} in {} overlap: [{}, {}) and [{}, {}) of epoch {epoch}; rows would count twice. \
                 Remove the copied file",
                folder.name, a.start, a.end, b.start, b.end
            )));
        }
    }
    Ok(spans)
}

/// The newest epoch of the log that has files, or, if none has, no epoch; and the highest position of any epoch: where
/// that is of an epoch that the log does not have, the hub was restored from an older copy.
fn cursor_of(spans: &BTreeMap<Epoch, Vec<Range<u64>>>, log: &PlantLog) -> Option<Cursor> {
    let position = spans.values().filter_map(|ranges| ranges.last()).map(|range| range.end).max()?;
    let epoch = log.epochs.iter().rev().map(|(epoch, _)| *epoch).find(|epoch| spans.contains_key(epoch));
    Some(Cursor { epoch, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_range_and_foreign_files_are_left_alone() {
        let span = Span { epoch: Epoch(0xabc), positions: 5..1_000 };
        let name = file_name("hub.lake", &span);
        assert_eq!(name, "hub.lake-0000000000000abc-00000000000000000005-00000000000000001000.parquet");
        assert_eq!(parse_name("hub.lake", &name), Some(span));
        assert_eq!(parse_name("hub.other", &name), None);
        for foreign in [
            "hub.lake.parquet",
            "hub.lake-0000000000000abc-5-5.parquet",
            "hub.lake-abc-1-2.parquet",
            "hub.lake-0000000000000abc-1-2-3.parquet",
            "hub.lake-0000000000000abc-1-2.parquet#1",
        ] {
            assert_eq!(parse_name("hub.lake", foreign), None, "{foreign}");
        }
    }
}
