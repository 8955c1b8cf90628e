//! One Parquet file of a table, read from wherever the table is, a row group at a time.
//!
//! A row group's bytes are fetched with one request and held while it is decoded: some megabytes, however far the store. The
//! schema that Arrow embeds is not looked at, so texts come as texts, whoever wrote the file.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::{Buf as _, Bytes};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

/// Asked for at a file's end at first: the footers of nearly all files.
const FOOTER_BYTES: u64 = 64 << 10;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// A file whose footer has been read.
pub(crate) struct ParquetInput {
    store: Arc<dyn ObjectStore>,
    path: StorePath,
    size: u64,
    metadata: ArrowReaderMetadata,
}

impl ParquetInput {
    /// Reads the footer. Blocks, on a thread that may; `size` is asked for where it is not known.
    pub(crate) fn open(
        store: &Arc<dyn ObjectStore>,
        path: StorePath,
        size: Option<u64>,
    ) -> Result<Self, InputError> {
        let handle = Handle::current();
        let size = match size {
            Some(size) => size,
            None => handle.block_on(store.head(&path))?.size,
        };
        let mut reader = ParquetMetaDataReader::new();
        let mut length = FOOTER_BYTES.min(size);
        loop {
            let tail = handle.block_on(store.get_range(&path, size - length..size))?;
            match reader.try_parse_sized(&Window { start: size - length, end: size, bytes: tail }, size) {
                Err(ParquetError::NeedMoreData(needed))
                    if needed as u64 > length && needed as u64 <= size =>
                {
                    length = needed as u64;
                }
                parsed => break parsed?,
            }
        }
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), options)?;
        Ok(ParquetInput { store: Arc::clone(store), path, size, metadata })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    pub(crate) fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    pub(crate) fn group(&self, nth: usize) -> Option<&RowGroupMetaData> {
        self.metadata.metadata().row_groups().get(nth)
    }

    /// The named columns.
    pub(crate) fn mask(&self, columns: &[&str]) -> ProjectionMask {
        ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied())
    }

    /// Fetches a row group's columns and decodes them, so many rows at a time. Blocks.
    pub(crate) fn read(
        &self,
        nth: usize,
        mask: &ProjectionMask,
        rows: usize,
    ) -> Result<ParquetRecordBatchReader, InputError> {
        let group = self.group(nth).ok_or_else(|| ParquetError::EOF(format!("row group {nth}")))?;
        let ranges = (0..group.num_columns()).filter(|leaf| mask.leaf_included(*leaf));
        let ranges = ranges.map(|leaf| group.column(leaf).byte_range());
        let (start, end) = ranges.fold((self.size, 0), |(low, high), (start, length)| {
            (low.min(start), high.max(start.saturating_add(length)))
        });
        let (start, end) = (start.min(end), end.min(self.size));
        let bytes = match start < end {
            true => Handle::current().block_on(self.store.get_range(&self.path, start..end))?,
            false => Bytes::new(),
        };
        let window = Window { start, end: self.size, bytes };
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.metadata.clone())
            .with_projection(mask.clone())
            .with_row_groups(vec![nth])
            .with_batch_size(rows)
            .build()?)
    }
}

/// A part of a file, under the file's own addresses.
struct Window {
    start: u64,
    end: u64,
    bytes: Bytes,
}

impl Window {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let missing = || ParquetError::EOF(format!("byte {start} is not among those that were read"));
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()).ok_or_else(missing)?;
        if at > self.bytes.len() { Err(missing()) } else { Ok(self.bytes.slice(at..)) }
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.end
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!(
                "bytes {start}+{length} are not among those that were read"
            )));
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}
