//! The work whose instructions CI counts (`scripts/instructions`): codec and log append, so many rounds of it, no clock.
//!
//! `instructions WORK ROUNDS DIR`; a difference between two numbers of rounds is the work alone, without start and end.

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use durable_log::{Log, Options, WhenFull};
use model::{Epoch, Offset, PointId, Quality, RecordId, Sample, SampleBatch, Timestamp, Value};
use proto::account::Account;
use proto::sparkplug::{PayloadView, RecordHead, encode};

/// Log records of one sync.
const RECORDS_PER_SYNC: usize = 100;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().unwrap_or_default();
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(0);
    let dir = arguments.next().unwrap_or_else(|| "instructions-log".to_owned());
    let done = match work.as_str() {
        "encode-100" => encoding(100, rounds),
        "decode-100" => decoding(100, rounds),
        "encode-1" => encoding(1, rounds),
        "decode-1" => decoding(1, rounds),
        "append-256" => appending(256, rounds, Path::new(&dir)),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// A record of doubles as an agent accepts it.
fn record(metrics: u32) -> (SampleBatch, RecordHead) {
    let time = Timestamp(1_764_000_000_000_000);
    let id = RecordId { epoch: Epoch(7), offset: Offset(1_000_000) };
    let sample = |number: u32| Sample {
        point: PointId(number),
        time,
        value: Some(Value::Double(f64::from(number) * 0.1)),
        quality: Quality::GOOD,
    };
    let samples = (0..metrics).map(sample).collect();
    let head = RecordHead {
        id,
        first_held: 0,
        accepted_end: 1_000_001,
        accepted_at: time,
        account: Some(Account::default()),
        counts: None,
    };
    (SampleBatch { id, accepted_at: time, is_historical: false, samples }, head)
}

fn payload(batch: &SampleBatch, head: &RecordHead, out: &mut Vec<u8>) {
    out.clear();
    let alias = |point: PointId| u64::from(point.0);
    encode::data(1, batch.accepted_at, batch, head, false, &|_| false, &alias, out);
}

fn encoding(metrics: u32, rounds: usize) -> Option<()> {
    let ((batch, head), mut out) = (record(metrics), Vec::new());
    for _ in 0..rounds {
        payload(black_box(&batch), black_box(&head), &mut out);
        black_box(&out);
    }
    Some(())
}

fn decoding(metrics: u32, rounds: usize) -> Option<()> {
    let ((batch, head), mut out) = (record(metrics), Vec::new());
    payload(&batch, &head, &mut out);
    for _ in 0..rounds {
        black_box(PayloadView::decode(black_box(&out)).ok()?);
    }
    Some(())
}

fn appending(bytes: usize, rounds: usize, dir: &Path) -> Option<()> {
    let options = Options { when_full: WhenFull::DropOldest, ..Options::default() };
    let (mut log, _) = Log::open(dir, options, 1).ok()?;
    let record: Vec<u8> = (0_u8..=255).cycle().take(bytes).collect();
    for round in 1..=rounds {
        log.append_group(&[black_box(&record)]).ok()?;
        if round.is_multiple_of(RECORDS_PER_SYNC) {
            log.sync().ok()?;
        }
    }
    Some(())
}
