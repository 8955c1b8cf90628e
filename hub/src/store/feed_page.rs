//! One page of the plant log for a bridge: records from a position on, and the catalogue entries that they need.
//!
//! It reads only what is durable, and bounds a page by bytes. Blocking.

use bytes::Bytes;
use durable_log::{LogError, LogView, Position};
use model::Epoch;
use proto::feed::FeedPage;
use proto::log_record::CatalogueEntry;

use super::Store;
use crate::catalogue::Catalogue;

/// Records of a page: small ones cost more than their bytes.
const PAGE_RECORDS_MAX: usize = 100_000;
/// Catalogue entries of a page; a caller that meets an unknown number asks again.
const PAGE_CATALOGUE_MAX: usize = 20_000;

/// Which page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// First position.
    pub(crate) from: Position,
    /// Number of the first catalogue entry that the caller lacks.
    pub(crate) catalogue: u64,
    /// Bytes of records; at least one record is in the page if there is one.
    pub(crate) max_bytes: usize,
}

/// Reads the page for a sink; `names` are enterprise and site.
pub(crate) fn page(
    store: &Store,
    known: &Catalogue,
    (enterprise, site): (String, String),
    wanted: Wanted,
    sink: &str,
) -> Result<FeedPage, LogError> {
    let read = records(&store.view(), wanted.from, wanted.max_bytes)?;
    // After the records: their entries are durable before them, so that all are here unless the page is full.
    let (catalogue, catalogue_next) = catalogue(known, wanted.catalogue);
    let begin = read.entries.first().map_or(read.next, |(position, _)| *position);
    Ok(FeedPage {
        set_aside: store.set_aside(sink, begin..read.next),
        hub_id: store.hub_id().to_owned(),
        enterprise,
        site,
        epochs: read.epochs,
        first: read.first,
        next: read.next,
        durable_end: read.durable_end,
        catalogue_next,
        catalogue,
        entries: read.entries,
    })
}

#[derive(Debug, Default)]
struct Records {
    epochs: Vec<(Epoch, u64)>,
    first: u64,
    next: u64,
    durable_end: u64,
    entries: Vec<(u64, Bytes)>,
}

fn records(log: &LogView, from: Position, max_bytes: usize) -> Result<Records, LogError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut reader = log.reader(from);
    let mut next = from;
    let is_beyond = from > log.durable_end();
    while !is_beyond && entries.len() < PAGE_RECORDS_MAX {
        match reader.next() {
            Ok(Some((position, record))) => {
                if !entries.is_empty() && bytes + record.len() > max_bytes {
                    break;
                }
                bytes += record.len();
                entries.push((position.0, Bytes::copy_from_slice(record)));
                next = position.next();
            }
            Ok(None) => break,
            // Retention was faster: what is here must be without gaps, so begin again behind it.
            Err(LogError::Trimmed { .. }) => {
                entries.clear();
                bytes = 0;
                next = reader.position();
            }
            Err(error) => return Err(error),
        }
    }
    let mut epochs: Vec<(Epoch, u64)> = Vec::new();
    for segment in log.segments() {
        if epochs.last().is_none_or(|(epoch, _)| epoch.0 != segment.epoch) {
            epochs.push((Epoch(segment.epoch), segment.first.0));
        }
    }
    Ok(Records { epochs, first: log.first().0, next: next.0, durable_end: log.durable_end().0, entries })
}

fn catalogue(known: &Catalogue, asked: u64) -> (Vec<CatalogueEntry>, u64) {
    let (mut entries, next) = known.entries_from(asked);
    if entries.len() <= PAGE_CATALOGUE_MAX {
        return (entries, next);
    }
    entries.truncate(PAGE_CATALOGUE_MAX);
    (entries, asked + PAGE_CATALOGUE_MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_log::{Log, Options};

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), Options::default(), 7).unwrap();
        for number in 0u32..100 {
            log.append_group(&[&number.to_le_bytes()]).unwrap();
        }
        log.sync().unwrap();
        let view = log.view();
        let mut next = Position(0);
        let mut seen = Vec::new();
        loop {
            let page = records(&view, next, 30).unwrap();
            assert_eq!((page.first, page.durable_end, page.epochs.clone()), (0, 100, vec![(Epoch(7), 0)]));
            if page.entries.is_empty() {
                assert_eq!(page.next, 100);
                break;
            }
            assert!(page.entries.len() <= 7);
            seen.extend(page.entries.iter().map(|(position, _)| *position));
            next = Position(page.next);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());
        let beyond = records(&view, Position(u64::MAX), 30).unwrap();
        assert!(beyond.entries.is_empty() && beyond.next == u64::MAX && beyond.durable_end == 100);
        let one = records(&view, Position(5), 1).unwrap();
        assert_eq!((one.entries.len(), one.next), (1, 6), "at least one record, however small the page");
    }
}
