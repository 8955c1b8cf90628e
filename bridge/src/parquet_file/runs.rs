//! Column chunks made of runs: texts that repeat, and columns in which no row has a value.
//!
//! Rows are sorted, so most texts stand in long runs, known here as keys of a dictionary. Arrow's writer would hash and
//! compare the text of every row; this one writes the dictionary page and one data page of RLE runs by itself (Parquet
//! format, "Dictionary Encoding" and "RLE / Bit-Packing Hybrid"). Measured on rows of doubles, that was a third of the
//! bridge's time.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// A run of at least so many equal values is one; shorter ones are bit-packed with their neighbours.
const RUN_MIN: u32 = 8;
/// Values of a bit-packed part: a multiple of eight, and its header is one byte.
const PACKED_MAX: usize = 63 * 8;

/// Keys of a dictionary, row after row; `None` is no text.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<(Option<u32>, u32)>,
}

impl Runs {
    /// The next row.
    pub(crate) fn push(&mut self, key: Option<u32>) {
        self.push_many(key, 1);
    }

    /// The next `count` rows.
    pub(crate) fn push_many(&mut self, key: Option<u32>, count: u32) {
        match self.runs.last_mut() {
            Some((last, length)) if *last == key => *length += count,
            _ => self.runs.push((key, count)),
        }
    }

    /// Every key once per run.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().filter_map(|(key, _)| *key)
    }
}

/// A column chunk as `SerializedRowGroupWriter::append_column` takes it.
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

/// A column of texts: `text` of each key.
pub(crate) fn texts<'t>(
    column: ColumnDescPtr,
    runs: &Runs,
    text: impl Fn(u32) -> &'t str,
    with_bounds: bool,
) -> Result<Chunk, ParquetError> {
    let places = Places::of(runs);
    let used: Vec<&str> = places.used.iter().map(|key| text(*key)).collect();
    let width = u32::BITS - u32::try_from(used.len().saturating_sub(1)).unwrap_or(u32::MAX).leading_zeros();
    let width = u8::try_from(width.max(1)).unwrap_or(32);
    let mut plain = Vec::new();
    for text in &used {
        plain.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        plain.extend_from_slice(text.as_bytes());
    }
    let mut data = levels(runs.runs.iter().map(|(key, count)| (key.is_some(), *count)));
    data.push(width);
    let places = runs.runs.iter().filter_map(|(key, count)| Some((places.place(*key.as_ref()?), *count)));
    hybrid(width, places, &mut data);
    let nulls = runs.runs.iter().filter(|(key, _)| key.is_none()).map(|(_, count)| u64::from(*count)).sum();
    let bound = |text: Option<&&str>| text.filter(|_| with_bounds).map(|text| ByteArray::from(*text));
    let statistics = with_bounds.then(|| {
        let (low, high) = (bound(used.iter().min()), bound(used.iter().max()));
        Statistics::ByteArray(ValueStatistics::new(low, high, None, Some(nulls), false))
    });
    let rows = runs.runs.iter().map(|(_, count)| *count).sum();
    let dictionary = (plain, u32::try_from(used.len()).unwrap_or(u32::MAX));
    chunk(column, rows, Some(dictionary), data, statistics)
}

/// A column of any type in which none of `rows` rows has a value.
pub(crate) fn nothing(column: ColumnDescPtr, rows: u32) -> Result<Chunk, ParquetError> {
    let nulls = Some(u64::from(rows));
    let statistics = match column.physical_type() {
        Type::INT64 => Some(Statistics::int64(None, None, None, nulls, false)),
        Type::DOUBLE => Some(Statistics::double(None, None, None, nulls, false)),
        _ => None,
    };
    chunk(column, rows, None, levels(std::iter::once((false, rows))), statistics)
}

/// The keys that occur, in order of appearance, and the place of each.
struct Places {
    used: Vec<u32>,
    of: Vec<u32>,
}

impl Places {
    fn of(runs: &Runs) -> Places {
        let end = runs.keys().max().map_or(0, |highest| highest as usize + 1);
        let mut places = Places { used: Vec::new(), of: vec![u32::MAX; end] };
        for key in runs.keys() {
            if let Some(place) = places.of.get_mut(key as usize).filter(|place| **place == u32::MAX) {
                *place = u32::try_from(places.used.len()).unwrap_or(u32::MAX);
                places.used.push(key);
            }
        }
        places
    }

    fn place(&self, key: u32) -> u32 {
        self.of.get(key as usize).copied().unwrap_or(0)
    }
}

/// Definition levels of an optional column, with their length before them.
fn levels(runs: impl Iterator<Item = (bool, u32)>) -> Vec<u8> {
    let mut levels = vec![0; 4];
    hybrid(1, runs.map(|(has_value, count)| (u32::from(has_value), count)), &mut levels);
    let length = u32::try_from(levels.len() - 4).unwrap_or(u32::MAX).to_le_bytes();
    levels.iter_mut().zip(length).for_each(|(place, byte)| *place = byte);
    levels
}

/// Both pages, compressed, and what a row group wants to know of them.
fn chunk(
    column: ColumnDescPtr,
    rows: u32,
    dictionary: Option<(Vec<u8>, u32)>,
    data: Vec<u8>,
    statistics: Option<Statistics>,
) -> Result<Chunk, ParquetError> {
    let mut sink = TrackedWrite::new(Vec::new());
    let mut pages = SerializedPageWriter::new(&mut sink);
    let encoding = if dictionary.is_some() { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
    let dictionary = match dictionary {
        None => None,
        Some((plain, num_values)) => {
            let (buf, size) = (compressed(&plain)?, plain.len());
            let page = Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
            Some(pages.write_page(CompressedPage::new(page, size))?)
        }
    };
    let page = Page::DataPage {
        buf: compressed(&data)?,
        num_values: rows,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    let written = pages.write_page(CompressedPage::new(page, data.len()))?;
    pages.close()?;
    let sizes = |size: fn(&PageWriteSpec) -> usize| {
        let sum = dictionary.as_ref().map_or(0, size) + size(&written);
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    let offset = |page: &PageWriteSpec| i64::try_from(page.offset).unwrap_or(i64::MAX);
    let mut metadata = ColumnChunkMetaData::builder(column)
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, encoding])
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_num_values(i64::from(rows))
        .set_total_compressed_size(sizes(|page| page.compressed_size))
        .set_total_uncompressed_size(sizes(|page| page.uncompressed_size))
        .set_dictionary_page_offset(dictionary.as_ref().map(offset))
        .set_data_page_offset(offset(&written));
    if let Some(statistics) = statistics {
        metadata = metadata.set_statistics(statistics);
    }
    let mut index = OffsetIndexBuilder::new();
    index.append_row_count(i64::from(rows));
    index
        .append_offset_and_size(offset(&written), i32::try_from(written.compressed_size).unwrap_or(i32::MAX));
    let bytes = Bytes::from(sink.into_inner()?);
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: u64::from(rows),
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(index.build()),
    };
    Ok(Chunk { bytes, close })
}

fn compressed(bytes: &[u8]) -> Result<Bytes, ParquetError> {
    let level = ZstdLevel::default().compression_level();
    Ok(Bytes::from(zstd::bulk::compress(bytes, level).map_err(|error| ParquetError::External(error.into()))?))
}

/// Runs of values of `width` bits in the hybrid of RLE and bit-packing.
fn hybrid(width: u8, runs: impl Iterator<Item = (u32, u32)>, out: &mut Vec<u8>) {
    let mut packed: Vec<u32> = Vec::new();
    for (value, mut count) in runs {
        // What is packed ends at a multiple of eight, or nowhere.
        let open = u32::try_from(packed.len().next_multiple_of(8) - packed.len()).unwrap_or(0);
        let fill = if count >= RUN_MIN + open { open } else { count };
        packed.extend(std::iter::repeat_n(value, fill as usize));
        count -= fill;
        if count > 0 {
            put_packed(width, &mut packed, out);
            put_varint(count << 1, out);
            out.extend_from_slice(&value.to_le_bytes()[..usize::from(width.div_ceil(8))]);
        } else if packed.len() >= PACKED_MAX {
            let rest = packed.split_off(PACKED_MAX);
            put_packed(width, &mut packed, out);
            packed = rest;
        }
    }
    put_packed(width, &mut packed, out);
}

/// Groups of eight; the last one is filled with zeros, which nobody reads.
fn put_packed(width: u8, packed: &mut Vec<u32>, out: &mut Vec<u8>) {
    if packed.is_empty() {
        return;
    }
    packed.resize(packed.len().next_multiple_of(8), 0);
    put_varint(u32::try_from(packed.len() / 8).unwrap_or(0) << 1 | 1, out);
    let (mut bits, mut held) = (0_u64, 0);
    for value in packed.drain(..) {
        bits |= u64::from(value) << held;
        held += u32::from(width);
        while held >= 8 {
            out.extend_from_slice(&bits.to_le_bytes()[..1]);
            (bits, held) = (bits >> 8, held - 8);
        }
    }
}

fn put_varint(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
