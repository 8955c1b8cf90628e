//! Power cuts at any moment on a disk that does what disks may do: nothing accepted is lost, nothing counts twice.
//!
//! A little hub reads below the durable end and sends receipts, so that segments are trimmed meanwhile. What it holds
//! and what the outbox holds after the last crash must be everything that was accepted, with accounts that agree.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;

use durable_log::{Faults, FaultyStorage, Log};
use model::{PointId, Quality, RangeSet, Value};
use proto::account::Account;
use proto::log_record::LogRecord;
use runtime::clock::Clock;
use runtime::telemetry::Metrics;

use super::open::{open_with, own_account};
use super::tests::points;
use super::*;
use crate::catalogue::Points;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// What a hub would know.
#[derive(Default)]
struct Hub {
    received: BTreeMap<Epoch, RangeSet>,
    sums: BTreeMap<Epoch, Account>,
    numbers: BTreeSet<u64>,
    /// Newest running account of each epoch.
    totals: BTreeMap<Epoch, (u64, Account)>,
}

impl Hub {
    /// Reads all that is durable; with what it had before, nothing may be missing and nothing may differ.
    fn read(&mut self, view: &LogView, points: &Points) {
        let mut reader = view.reader(view.first());
        loop {
            let bytes = match reader.next() {
                Ok(Some((_, bytes))) => bytes,
                Ok(None) => return,
                Err(LogError::Trimmed { .. }) => continue,
                Err(_) => return, // the plug was pulled
            };
            let LogRecord::Accepted { batch, account, .. } = LogRecord::decode(bytes).unwrap() else {
                continue;
            };
            let (epoch, offset) = (batch.id.epoch, batch.id.offset.0);
            if !self.received.entry(epoch).or_default().insert_one(offset) {
                continue;
            }
            let Some(Value::Bytes(value)) = &batch.samples[0].value else { panic!() };
            let number = u64::from_le_bytes(value[..8].try_into().unwrap());
            assert!(self.numbers.insert(number), "{number} is in two records");
            let sum = self.sums.entry(epoch).or_default();
            *sum = sum.plus(own_account(&batch, points).unwrap());
            let total = self.totals.entry(epoch).or_default();
            if offset + 1 > total.0 {
                *total = (offset + 1, account);
            }
        }
    }

    fn receipt(&self) -> Receipt {
        let durable = self.received.iter().map(|(epoch, set)| (*epoch, set.clone())).collect();
        Receipt { durable, ..Receipt::default() }
    }
}

pub(super) fn open_faulty(
    storage: &FaultyStorage,
    points: &Arc<Points>,
) -> Result<(Opened, ()), OutboxError> {
    let options = OutboxOptions {
        agent: "g/n".into(),
        bytes_max: 16 * 1024 * 1024,
        when_full: WhenFull::StopAccepting,
    };
    let (clock, metrics, storage) = (Clock::manual(NOW), Metrics::default(), storage.clone());
    let opened =
        open_with(points, &clock, &metrics, &options, std::path::Path::new("/faulty"), |options, epoch| {
            // A disk in memory has no reserve to keep.
            let options = durable_log::Options { reserve_bytes: 0, ..options };
            Log::open_on(Arc::new(storage), options, epoch)
        })?;
    Ok((opened, ()))
}

pub(super) fn group(number: u64) -> NewGroup {
    let mut value = vec![0; 8 + usize::try_from(number % 7).unwrap() * 30_000];
    value[..8].copy_from_slice(&number.to_le_bytes());
    let sample =
        Sample { point: PointId(1), time: NOW, value: Some(Value::Bytes(value)), quality: Quality::GOOD };
    let position = Some(("d".to_owned(), number.to_le_bytes().to_vec()));
    NewGroup { samples: vec![sample], position, ..NewGroup::default() }
}

/// Accepts numbers from `next` on until the plug is pulled; returns how many were accepted for certain.
async fn live(
    opened: Opened,
    storage: &FaultyStorage,
    next: u64,
    pull_after: u64,
    hub: &mut Hub,
    points: &Points,
) -> (u64, FaultyStorage) {
    let Opened { outbox, writer, .. } = opened;
    let thread: JoinHandle<Result<(), LogError>> = std::thread::spawn(|| writer.run());
    let mut accepted = next;
    let crashed = loop {
        if accepted - next >= pull_after {
            // In the middle of the next group, or before it.
            let in_flight = outbox.accept(group(accepted));
            let puller = async {
                tokio::time::sleep(std::time::Duration::from_millis(next % 13)).await;
                storage.crash()
            };
            let (answer, crashed) = tokio::join!(in_flight, puller);
            if answer.is_ok() {
                accepted += 1;
            }
            break crashed;
        }
        match outbox.accept(group(accepted)).await {
            Ok(()) => accepted += 1,
            Err(OutboxError::Full) => {
                hub.read(outbox.view(), points);
                outbox.receive(&hub.receipt()).await.unwrap();
            }
            Err(_) => break storage.crash(), // a fault of the disk shut the latch
        }
        if accepted.is_multiple_of(5) {
            hub.read(outbox.view(), points);
            outbox.receive(&hub.receipt()).await.ok();
        }
    };
    drop(outbox);
    tokio::task::spawn_blocking(move || thread.join().unwrap().ok()).await.unwrap();
    (accepted, crashed)
}

async fn lives(seed: u64, faults: Faults) {
    let dir = tempfile::tempdir().unwrap();
    let points = points(dir.path());
    let mut storage = FaultyStorage::new(seed);
    let mut hub = Hub::default();
    let mut accepted = 0;
    for life in 0..6_u64 {
        storage.set_faults(Faults::default());
        let (opened, ()) =
            open_faulty(&storage, &points).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        hub.read(opened.outbox.view(), &points);
        // What the source has to give again: nothing that was accepted, nothing twice.
        let position =
            opened.positions.get("d").map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
        let next = position.map_or(0, |newest| newest + 1);
        assert!(next >= accepted, "seed {seed}: {accepted} were accepted, the source goes on at {next}");
        assert_eq!(
            hub.numbers,
            (0..next).collect(),
            "seed {seed}, life {life}: nothing lost, nothing beyond"
        );
        storage.set_faults(faults);
        let pull_after = (seed.wrapping_mul(31) + life * 17) % 45;
        (accepted, storage) = live(opened, &storage, next, pull_after, &mut hub, &points).await;
    }
    let (opened, ()) = open_faulty(&storage, &points).unwrap();
    hub.read(opened.outbox.view(), &points);
    assert!(hub.numbers.len() as u64 >= accepted);
    for (epoch, (end, total)) in &hub.totals {
        assert_eq!(hub.received[epoch].contiguous_end(0), *end, "seed {seed}: dense");
        assert_eq!(hub.sums[epoch], *total, "seed {seed}: the running account is the sum of the records");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_nothing() {
    for seed in 0..8 {
        lives(seed, Faults::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_writes_and_syncs_lose_nothing() {
    for seed in 100..110 {
        lives(seed, Faults { write_error: 40, sync_error: 60, short: 3, ..Faults::default() }).await;
    }
}

/// Found by the simulator: a position that was written again only in memory, for want of room, counted as moved, and the
/// segment with its only copy on disk went.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_cost_the_position_of_a_quiet_source() {
    let dir = tempfile::tempdir().unwrap();
    let points = points(dir.path());
    let storage = FaultyStorage::new(20);
    let (opened, ()) = open_faulty(&storage, &points).unwrap();
    let Opened { outbox, writer, .. } = opened;
    let thread = std::thread::spawn(|| writer.run());
    let quiet = NewGroup { position: Some(("quiet".to_owned(), b"here".to_vec())), ..group(0) };
    outbox.accept(quiet).await.unwrap();
    let mut hub = Hub::default();
    for number in 1..80 {
        outbox.accept(group(number)).await.unwrap();
    }
    storage.set_faults(Faults { capacity: 0, ..Faults::default() });
    hub.read(outbox.view(), &points);
    // The first receipt writes the position again, in memory; with the second one its segment could go.
    for end in [40, 80] {
        let durable = vec![(outbox.current(), RangeSet::of(0..end))];
        outbox.receive(&Receipt { durable, ..Receipt::default() }).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let crashed = storage.crash();
    drop(outbox);
    tokio::task::spawn_blocking(move || thread.join().unwrap().ok()).await.unwrap();
    let (opened, ()) = open_faulty(&crashed, &points).unwrap();
    assert_eq!(opened.positions.get("quiet").map(Vec::as_slice), Some(&b"here"[..]));
}

/// Found by the simulator: a read that waits in memory for room brought a newer position, and the segment with the one on
/// disk went.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_room_does_not_cost_the_position_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let points = points(dir.path());
    let storage = FaultyStorage::new(21);
    let (opened, ()) = open_faulty(&storage, &points).unwrap();
    let Opened { outbox, writer, .. } = opened;
    let thread = std::thread::spawn(|| writer.run());
    let slow = |at: &[u8]| NewGroup { position: Some(("slow".to_owned(), at.to_vec())), ..group(0) };
    outbox.accept(slow(b"first")).await.unwrap();
    for number in 1..80 {
        outbox.accept(group(number)).await.unwrap();
    }
    storage.set_faults(Faults { capacity: 0, ..Faults::default() });
    let mut waiting = tokio::task::JoinSet::new();
    let (second, group_of_second) = (outbox.clone(), slow(b"second"));
    waiting.spawn(async move { second.accept(group_of_second).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let durable = vec![(outbox.current(), RangeSet::of(0..80))];
    outbox.receive(&Receipt { durable, ..Receipt::default() }).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(waiting.try_join_next().is_none(), "there is no room for it");
    let crashed = storage.crash();
    waiting.abort_all();
    drop(outbox);
    tokio::task::spawn_blocking(move || thread.join().unwrap().ok()).await.unwrap();
    let (opened, ()) = open_faulty(&crashed, &points).unwrap();
    assert_eq!(opened.positions.get("slow").map(Vec::as_slice), Some(&b"first"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let points = points(dir.path());
    let storage = FaultyStorage::new(7);
    let capacity = |bytes| Faults { capacity: bytes, ..Faults::default() };
    storage.set_faults(capacity(6 * 1024 * 1024));
    let (opened, ()) = open_faulty(&storage, &points).unwrap();
    let Opened { outbox, writer, .. } = opened;
    let thread = std::thread::spawn(|| writer.run());
    let mut hub = Hub::default();
    let mut accepted = 0;
    let patience = std::time::Duration::from_millis(300);
    // Either it is refused, or it waits in memory for room: it is not answered as accepted.
    while let Ok(Ok(())) = tokio::time::timeout(patience, outbox.accept(group(accepted))).await {
        accepted += 1;
        assert!(accepted < 200, "the disk is never full");
    }
    assert!(outbox.is_full());
    hub.read(outbox.view(), &points);
    assert!(hub.numbers.len() as u64 >= accepted);
    // Receipts alone make room: whole segments go although nothing can be written.
    outbox.receive(&hub.receipt()).await.unwrap();
    let mut tries = 0;
    while !matches!(tokio::time::timeout(patience, outbox.accept(group(10_000))).await, Ok(Ok(()))) {
        tries += 1;
        assert!(tries < 10, "receipts do not make room");
    }
    outbox.close().await;
    drop(outbox);
    tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
    storage.set_faults(Faults::default());
    let (opened, ()) = open_faulty(&storage, &points).unwrap();
    let mut again = Hub::default();
    again.read(opened.outbox.view(), &points);
    let all: BTreeSet<u64> = hub.numbers.union(&again.numbers).copied().collect();
    assert!((0..accepted).all(|number| all.contains(&number)), "everything accepted is there");
    assert!(all.contains(&10_000));
}
