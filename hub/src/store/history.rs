//! The history of one point, read from the plant log.
//!
//! An index says for each piece of a segment which times it holds, and for each segment which points: so a question
//! reads only the pieces that can hold an answer. It is built from the log by a task that follows the durable end, kept
//! in memory (a few bytes per piece, one bit per point and segment) and, for sealed segments, beside the log in
//! `{data_dir}/history/{first position}.index`; a lost or damaged index file is built again. What is not indexed yet is
//! read.
//!
//! A scan goes from the newest piece to the oldest and stops at its budget; then the answer is the newest part and says
//! so. Memory is bounded whatever is asked: by the answer's limit, or, with buckets, by thinning while reading.

mod index;
mod thin;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use durable_log::{LogError, LogView};
use model::{PointId, Sample, Timestamp};
use proto::log_record::LogRecord;
use runtime::tasks::CancellationToken;

use index::{Index, Piece};
use thin::Thinner;

/// A scan reads at most so many bytes of records ...
const SCAN_BYTES_MAX: usize = 512 * 1024 * 1024;
/// ... and takes at most so long.
const SCAN_TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of strings and byte values that one answer holds.
const HEAP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Samples found beyond twice the limit before the oldest go.
const ROOM: usize = 1000;
/// A scan looks at its budget every so many records.
const LOOK_EVERY: usize = 256;
/// The index follows the log at this pace; what is newer is read without it.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Bytes of records that the index takes in one go, so that questions and shutdown get their turn.
const FOLLOW_BYTES: usize = 4 * 1024 * 1024;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Every number that the point's path has had.
    pub(crate) points: Vec<PointId>,
    /// From this source time on.
    pub(crate) from: Timestamp,
    /// To this source time, exclusive.
    pub(crate) to: Timestamp,
    /// At most so many samples, the newest; not used with `buckets`.
    pub(crate) limit: usize,
    /// First, lowest, highest, last and first not good sample of each of so many slices.
    pub(crate) buckets: Option<usize>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// By source time; equal times in log order.
    pub(crate) samples: Vec<Sample>,
    /// Buckets left samples out.
    pub(crate) thinned: bool,
    /// The limit or the budget ended the scan: this is the newest part.
    pub(crate) truncated: bool,
}

/// History of points over one plant log. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct History {
    log: LogView,
    index: Arc<Mutex<Index>>,
}

impl History {
    /// Over a log, with index files in `folder`.
    pub(crate) fn new(log: LogView, folder: PathBuf) -> Self {
        History { log, index: Arc::new(Mutex::new(Index::new(folder))) }
    }

    /// Keeps the index near the log's end until shutdown. Blocking: for a thread of its own.
    pub(crate) fn follow(&self, shutdown: &CancellationToken) {
        self.index().load(&self.log);
        while !shutdown.is_cancelled() {
            let behind = match self.index().advance(&self.log, FOLLOW_BYTES) {
                Ok(behind) => behind,
                Err(error) => {
                    tracing::warn!(%error, "the history index cannot read the plant log; it tries again");
                    false
                }
            };
            if !behind {
                let wake = Instant::now() + FOLLOW_EVERY;
                while Instant::now() < wake && !shutdown.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Blocking: answers a question.
    pub(crate) fn read(&self, query: &Query) -> Result<Answer, LogError> {
        let pieces = self.index().pieces(&self.log, query);
        let mut scan = Scan::new(query);
        let mut reader = None;
        for piece in pieces.iter().rev() {
            if scan.is_over() {
                scan.truncated = true;
                break;
            }
            scan.piece(&self.log, &mut reader, piece)?;
        }
        Ok(scan.answer())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Scan<'q> {
    query: &'q Query,
    points: HashSet<PointId>,
    found: Vec<Sample>,
    thinner: Option<Thinner>,
    bytes: usize,
    heap_bytes: usize,
    /// Its texts alone are all that an answer may hold.
    is_full: bool,
    until: Instant,
    truncated: bool,
}

impl<'q> Scan<'q> {
    fn new(query: &'q Query) -> Self {
        Scan {
            query,
            points: query.points.iter().copied().collect(),
            found: Vec::new(),
            thinner: query.buckets.map(Thinner::new),
            bytes: 0,
            heap_bytes: 0,
            is_full: false,
            until: Instant::now() + SCAN_TIME_MAX,
            truncated: false,
        }
    }

    fn is_over(&self) -> bool {
        let enough = self.thinner.is_none() && self.found.len() >= self.query.limit;
        enough || self.is_full || self.is_out_of_budget()
    }

    fn is_out_of_budget(&self) -> bool {
        self.bytes >= SCAN_BYTES_MAX || Instant::now() >= self.until
    }

    /// Takes what fits from one piece of the log.
    fn piece(
        &mut self,
        log: &LogView,
        reader: &mut Option<durable_log::Reader>,
        piece: &Piece,
    ) -> Result<(), LogError> {
        let reader = reader.get_or_insert_with(|| log.reader(piece.first));
        reader.seek(piece.first);
        let mut records = 0_usize;
        while reader.position() < piece.end {
            match reader.next() {
                Ok(Some((position, record))) if position < piece.end => {
                    self.bytes += record.len();
                    self.record(record);
                }
                Ok(_) => break,
                Err(LogError::Trimmed { .. }) => self.truncated = true,
                Err(error) => return Err(error),
            }
            self.bound();
            records += 1;
            // A piece that is not indexed yet may be a whole segment.
            if records.is_multiple_of(LOOK_EVERY) && self.is_out_of_budget() {
                self.truncated = true;
                break;
            }
        }
        Ok(())
    }

    /// Keeps what was found within the bounds of an answer: thins it, or lets the oldest go.
    fn bound(&mut self) {
        let too_many = match &mut self.thinner {
            Some(thinner) => {
                if thinner.thin_if_large(&mut self.found) {
                    self.heap_bytes = self.found.iter().map(heap_bytes).sum();
                }
                false
            }
            None => self.found.len() >= 2 * self.query.limit + ROOM,
        };
        if !too_many && self.heap_bytes <= HEAP_BYTES_MAX {
            return;
        }
        self.truncated = true;
        self.found.sort_by_key(|sample| sample.time);
        if too_many {
            self.found.drain(..self.found.len() - self.query.limit);
        }
        self.heap_bytes = self.found.iter().map(heap_bytes).sum();
        let mut oldest = 0;
        while self.heap_bytes > HEAP_BYTES_MAX / 2
            && let Some(sample) = self.found.get(oldest)
        {
            self.heap_bytes -= heap_bytes(sample);
            oldest += 1;
        }
        self.is_full |= oldest > 0;
        self.found.drain(..oldest);
    }

    fn record(&mut self, record: &[u8]) {
        // What this version cannot read, a later one wrote: it is no answer here.
        let Ok(LogRecord::Received { batch, .. }) = LogRecord::decode(record) else { return };
        for sample in batch.samples {
            let fits = sample.time >= self.query.from && sample.time < self.query.to;
            if fits && self.points.contains(&sample.point) {
                self.heap_bytes += heap_bytes(&sample);
                self.found.push(sample);
            }
        }
    }

    fn answer(mut self) -> Answer {
        self.found.sort_by_key(|sample| sample.time);
        match &mut self.thinner {
            Some(thinner) => thinner.thin(&mut self.found),
            None if self.found.len() > self.query.limit => {
                self.found.drain(..self.found.len() - self.query.limit);
                self.truncated = true;
            }
            None => {}
        }
        let thinned = self.thinner.as_ref().is_some_and(Thinner::left_out);
        Answer { samples: self.found, thinned, truncated: self.truncated }
    }
}

fn heap_bytes(sample: &Sample) -> usize {
    sample.value.as_ref().map_or(0, model::Value::heap_bytes)
}

#[cfg(test)]
mod tests;
