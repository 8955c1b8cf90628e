//! Thousands of lives of a log on a disk that fails, each from one seed, against a plain model of what was promised.
//!
//! A life is a row of openings; between them the power goes, or only the process. Whatever happened:
//! everything below the durable end is there byte for byte, groups are whole, positions are dense, no position is
//! written twice under one epoch, what was trimmed stays trimmed, cursors hold what was promised.
//! A seed that fails is printed; `FOREBAY_SEED=n` runs it alone, `FOREBAY_SEEDS=n` runs more of them.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: it may fail, and its numbers are small"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use durable_log::{Faults, FaultyStorage, Log, LogError, Options, Position, WhenFull};

const SEEDS: u64 = 2_000;

/// xorshift64*: the test's own choices, apart from the disk's.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn record(&mut self) -> Vec<u8> {
        let length = match self.below(20) {
            0 => 0,
            1 => self.below(3000),
            2..6 => self.below(600),
            _ => self.below(60),
        };
        let fill = self.below(256) as u8;
        (0..length).map(|i| if fill < 64 { 0 } else { fill.wrapping_add(i as u8) }).collect()
    }
}

/// What was handed to the log and what it promised.
#[derive(Default)]
struct Model {
    records: Vec<Entry>,
    first: u64,
    durable: u64,
    /// What a cursor may be after a crash: the promised value and those tried since.
    cursors: BTreeMap<String, Vec<u64>>,
}

struct Entry {
    bytes: Vec<u8>,
    epoch: u64,
    ends_group: bool,
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// After an opening: what is there must be what was promised; the rest is forgotten.
    fn reopened(&mut self, log: &Log) {
        let view = log.view();
        let (first, end) = (view.first().0, view.durable_end().0);
        assert!(
            self.durable <= end && end <= self.end(),
            "promised {}, got {end} of {}",
            self.durable,
            self.end()
        );
        assert!(first >= self.first && first <= end, "trimmed to {}, got {first}", self.first);
        assert!(end == 0 || self.records[end as usize - 1].ends_group, "a group was torn at {end}");
        self.records.truncate(end as usize);
        self.durable = end;
        self.first = first;
        self.holds(log);
        let cursors = view.cursors().unwrap();
        for (name, allowed) in &mut self.cursors {
            let now = cursors.get(name).map_or(0, |at| at.0);
            assert!(allowed.contains(&now), "cursor {name} is {now}, not one of {allowed:?}");
            *allowed = vec![now];
        }
    }

    fn holds(&self, log: &Log) {
        let view = log.view();
        let mut reader = view.reader(Position(0));
        let mut at = self.first;
        while let Some((position, bytes)) = reader.next().unwrap() {
            let entry = &self.records[at as usize];
            assert_eq!((position, bytes), (Position(at), &entry.bytes[..]));
            at += 1;
        }
        assert_eq!(at, self.durable);
        for at in self.first..self.durable {
            assert_eq!(view.epoch_of(Position(at)), Some(self.records[at as usize].epoch), "at {at}");
        }
    }
}

fn options(random: &mut Random) -> Options {
    let bytes_max = [16, 64, 1024][random.below(3) as usize] * 1024;
    Options {
        when_damaged: durable_log::WhenDamaged::Refuse,
        segment_bytes: 512 + random.below(8192),
        bytes_max,
        reserve_bytes: [0, 2000][random.below(2) as usize],
        record_bytes_max: 3000,
        when_full: if random.one_in(2) { WhenFull::StopAccepting } else { WhenFull::DropOldest },
    }
}

fn faults(random: &mut Random) -> Faults {
    let rate = |random: &mut Random, often| if random.one_in(3) { 1 + random.below(often) } else { 0 };
    Faults {
        write_error: rate(random, 200),
        sync_error: rate(random, 100),
        read_error: 0,
        short: rate(random, 5),
        capacity: if random.one_in(3) { random.below(40_000) } else { u64::MAX },
    }
}

fn live(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut disk = FaultyStorage::new(seed);
    let options = options(&mut random);
    let mut model = Model::default();
    let mut epoch = 0;
    for _opening in 0..2 + random.below(6) {
        epoch += 1;
        if random.one_in(3) {
            disk.set_faults(faults(&mut random));
        }
        match Log::open_on(Arc::new(disk.clone()), options.clone(), epoch) {
            Err(error) => may_refuse(&error),
            Ok((mut log, recovery)) => {
                assert_eq!(recovery.end, log.end());
                model.reopened(&log);
                if random.one_in(2) {
                    disk.set_faults(faults(&mut random));
                }
                run(&mut log, &mut model, &disk, &mut random, epoch);
            }
        }
        if random.one_in(4) {
            disk.set_faults(Faults::default()); // only the process ended
        } else {
            disk = disk.crash();
        }
    }
    let (mut log, _) = Log::open_on(Arc::new(disk), options, epoch + 1).unwrap();
    model.reopened(&log);
    log.trim(Position(u64::MAX)).unwrap();
    log.append_group(&[b"still alive"]).unwrap();
    assert_eq!(log.sync().unwrap(), Position(model.end() + 1));
}

/// Injected errors may end an opening; damage and the like would be a lie.
fn may_refuse(error: &LogError) {
    assert!(
        matches!(error, LogError::Io { .. } | LogError::Latched { .. } | LogError::Full { .. }),
        "{error}: {error:?}"
    );
}

fn run(log: &mut Log, model: &mut Model, disk: &FaultyStorage, random: &mut Random, epoch: u64) {
    for _step in 0..random.below(60) {
        let result = match random.below(16) {
            0..9 => append(log, model, random, epoch),
            9..13 => sync(log, model),
            13 => trim(log, model, random),
            14 => set_cursor(log, model, random),
            _ => {
                if random.one_in(3) {
                    disk.set_faults(faults(random));
                }
                model.holds(log);
                Ok(())
            }
        };
        if let Some(dropped) = log.take_dropped() {
            assert_eq!(dropped.start.0, model.first);
            model.first = dropped.end.0;
        }
        let Err(error) = result else { continue };
        may_refuse(&error);
        model.durable = log.view().durable_end().0; // a roll may have synced before the failure
        if log.latched().is_some() {
            latched(log, model);
            return;
        }
    }
}

fn append(log: &mut Log, model: &mut Model, random: &mut Random, epoch: u64) -> Result<(), LogError> {
    let records: Vec<Vec<u8>> = (0..1 + random.below(4)).map(|_| random.record()).collect();
    let borrowed: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let before = log.end();
    let result = log.append_group(&borrowed);
    model.durable = log.view().durable_end().0;
    let failed = match result {
        Ok(first) => {
            assert_eq!(first, before);
            None
        }
        Err(LogError::TooLarge { .. }) => return Ok(()),
        Err(error) => Some(error),
    };
    // A write that comes early may fail after the group was taken: then the end says so.
    if log.end() > before {
        let last = records.len() - 1;
        for (i, bytes) in records.into_iter().enumerate() {
            model.records.push(Entry { bytes, epoch, ends_group: i == last });
        }
    }
    assert_eq!(log.end().0, model.end());
    failed.map_or(Ok(()), Err)
}

fn sync(log: &mut Log, model: &mut Model) -> Result<(), LogError> {
    let end = log.sync()?;
    assert_eq!((end.0, log.view().durable_end()), (model.end(), end));
    model.durable = end.0;
    Ok(())
}

fn trim(log: &mut Log, model: &mut Model, random: &mut Random) -> Result<(), LogError> {
    let keep_from = random.below(model.durable + 1);
    let result = log.trim(Position(keep_from));
    let first = log.view().first().0;
    assert!(first <= keep_from.max(model.first));
    if result.is_ok() || log.latched().is_none() {
        model.first = first; // durably so, if the directory was synced
    }
    result.map(|_first| ())
}

fn set_cursor(log: &Log, model: &mut Model, random: &mut Random) -> Result<(), LogError> {
    let name = ["lake", "snow/flake"][random.below(2) as usize].to_owned();
    let at = random.below(1000);
    let result = log.view().set_cursor(&name, Position(at));
    let allowed = model.cursors.entry(name).or_insert_with(|| vec![0]);
    if result.is_ok() {
        allowed.clear();
    }
    allowed.push(at);
    result
}

fn latched(log: &mut Log, model: &Model) {
    assert!(matches!(log.append_group(&[b"x"]), Err(LogError::Latched { .. })));
    assert!(matches!(log.sync(), Err(LogError::Latched { .. })));
    assert!(matches!(log.trim(Position(u64::MAX)), Err(LogError::Latched { .. })));
    let mut reader = log.view().reader(Position(0));
    while let Some((position, bytes)) = reader.next().unwrap() {
        assert_eq!(bytes, model.records[position.0 as usize].bytes);
    }
    assert_eq!(reader.position().0, model.durable);
}

#[test]
fn every_promise_survives_every_life() {
    if let Ok(seed) = std::env::var("FOREBAY_SEED") {
        return live(seed.parse().unwrap());
    }
    let seeds = std::env::var("FOREBAY_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        if let Err(cause) = std::panic::catch_unwind(|| live(seed)) {
            eprintln!("seed {seed} failed: FOREBAY_SEED={seed} runs it alone");
            std::panic::resume_unwind(cause);
        }
    }
}
