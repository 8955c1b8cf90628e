//! The outbox on a real directory: restarts, receipts, trimming, the bound.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use durable_log::LogError;
use model::{DataType, PointDefinition, PointId, PointPath, Quality, RangeSet, Value};
use proto::log_record::LogRecord;
use proto::sparkplug::EpochAccount;
use runtime::clock::Clock;
use runtime::telemetry::Metrics;

use super::*;
use crate::catalogue::{Catalogue, Points};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

pub(super) fn points(dir: &Path) -> Arc<Points> {
    let definition = |metric: &str| PointDefinition {
        device: Some("d".into()),
        ..PointDefinition::new(PointPath::new(&format!("d/{metric}")).unwrap(), metric, DataType::Bytes)
    };
    Catalogue::open(dir, getrandom::u64().unwrap() >> 1, &[definition("a"), definition("b")]).unwrap().points
}

struct Running {
    outbox: Outbox,
    positions: BTreeMap<String, Vec<u8>>,
    thread: JoinHandle<Result<(), LogError>>,
}

fn start(dir: &Path, bytes_max: u64, when_full: WhenFull) -> Running {
    start_at(dir, bytes_max, when_full, &Clock::manual(NOW))
}

fn start_at(dir: &Path, bytes_max: u64, when_full: WhenFull, clock: &Clock) -> Running {
    let points = points(&dir.join("catalogue"));
    let options = OutboxOptions { agent: "g/n".into(), bytes_max, when_full };
    let Opened { outbox, writer, positions, .. } =
        open(&dir.join("outbox"), &options, &points, clock, &Metrics::default()).unwrap();
    Running { outbox, positions, thread: std::thread::spawn(|| writer.run()) }
}

impl Running {
    async fn stop(self) {
        self.outbox.close().await;
        drop(self.outbox);
        tokio::task::spawn_blocking(|| self.thread.join().unwrap().unwrap()).await.unwrap();
    }
}

fn group(number: u64, bytes: usize) -> NewGroup {
    let mut value = vec![0; bytes.max(8)];
    value[..8].copy_from_slice(&number.to_le_bytes());
    let sample =
        Sample { point: PointId(1), time: NOW, value: Some(Value::Bytes(value)), quality: Quality::GOOD };
    NewGroup { samples: vec![sample], ..NewGroup::default() }
}

fn receipt(epoch: Epoch, end: u64) -> Receipt {
    Receipt { durable: vec![(epoch, RangeSet::of(0..end))], ..Receipt::default() }
}

/// Every sample record held: epoch and offset, in log order.
fn held(outbox: &Outbox) -> Vec<(Epoch, u64)> {
    let view = outbox.view();
    let mut reader = view.reader(view.first());
    let mut found = Vec::new();
    while let Some((_, bytes)) = reader.next().unwrap() {
        if let LogRecord::Accepted { batch, .. } = LogRecord::decode(bytes).unwrap() {
            found.push((batch.id.epoch, batch.id.offset.0));
        }
    }
    found
}

/// Trimming follows the answer; so does what it does to the epochs.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not within 5 s");
}

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart_with_its_account() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    let epoch = first.outbox.current();
    for number in 0..50 {
        let mut group = group(number, 100);
        group.position = Some(("d".into(), number.to_le_bytes().to_vec()));
        first.outbox.accept(group).await.unwrap();
    }
    let before = first.outbox.epochs(Epochs::accounts);
    assert_eq!((before[0].end, before[0].total.count), (50, 50));
    assert_eq!(first.outbox.durable().borrow().offset, 50);
    first.stop().await;
    let second = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    assert_eq!(second.positions["d"], 49_u64.to_le_bytes());
    assert_eq!(held(&second.outbox), (0..50).map(|n| (epoch, n)).collect::<Vec<_>>());
    let accounts = second.outbox.epochs(Epochs::accounts);
    assert_eq!(accounts[0], before[0], "the account is the same, read back");
    assert_ne!(second.outbox.current(), epoch);
    second.outbox.accept(group(50, 10)).await.unwrap();
    assert_eq!(second.outbox.epochs(Epochs::backlog), 51);
    second.stop().await;
}

#[tokio::test]
async fn receipts_trim_segments_and_forget_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    let old = first.outbox.current();
    let mut with_position = group(0, 200_000);
    with_position.position = Some(("d".into(), b"here".to_vec()));
    first.outbox.accept(with_position).await.unwrap();
    let id = CommandId([7; 16]);
    assert!(first.outbox.command_seen(id, Timestamp(NOW.0 + 1)).await.unwrap());
    for number in 1..60 {
        first.outbox.accept(group(number, 200_000)).await.unwrap();
    }
    let bytes = first.outbox.view().bytes();
    assert!(bytes > 11 * MIB);
    first.outbox.receive(&receipt(old, 35)).await.unwrap();
    first.outbox.accept(group(60, 10)).await.unwrap();
    until(|| first.outbox.epochs(Epochs::accounts)[0].first_held > 0).await;
    assert!(first.outbox.view().bytes() < bytes - 4 * MIB);
    let account = first.outbox.epochs(Epochs::accounts)[0];
    assert!(account.first_held > 0 && account.first_held <= 35);
    assert_eq!(account.before.count, account.first_held);
    first.stop().await;

    let second = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    assert_eq!(second.positions["d"], b"here", "the position survived its segment");
    assert!(!second.outbox.command_seen(id, Timestamp(NOW.0 + 1)).await.unwrap(), "so did the command's id");
    assert_eq!(second.outbox.epochs(Epochs::accounts)[0], account);
    second.outbox.receive(&receipt(old, 61)).await.unwrap();
    second.outbox.accept(group(0, 10)).await.unwrap();
    until(|| second.outbox.epochs(Epochs::accounts).len() == 1).await; // the old epoch is settled and gone
    let late = second.outbox.receive(&receipt(old, 61)).await.unwrap();
    assert_eq!(late, Refused::default());
    assert_eq!(second.outbox.dropped().records, 0);
    second.stop().await;
    let third = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    assert_eq!(third.positions["d"], b"here");
    third.stop().await;
}

#[tokio::test]
async fn a_full_outbox_refuses_until_receipts_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), 16 * MIB, WhenFull::StopAccepting);
    let mut accepted = 0;
    let refused = loop {
        match running.outbox.accept(group(accepted, 250_000)).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100);
    };
    assert!(matches!(refused, OutboxError::Full), "{refused}");
    assert!(running.outbox.is_full());
    assert!(
        running.outbox.command_seen(CommandId([1; 16]), NOW).await.unwrap(),
        "room is left for small records"
    );
    assert_eq!(held(&running.outbox).len() as u64, accepted, "nothing was dropped");
    running.outbox.receive(&receipt(running.outbox.current(), accepted)).await.unwrap();
    running.outbox.accept(group(accepted, 250_000)).await.unwrap();
    assert!(!running.outbox.is_full());
    running.stop().await;
}

#[tokio::test]
async fn dropping_the_oldest_is_counted_and_moves_first_held() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), 16 * MIB, WhenFull::DropOldest);
    let mut first = group(0, 250_000);
    first.position = Some(("d".into(), b"p".to_vec()));
    running.outbox.accept(first).await.unwrap();
    for number in 1..200 {
        running.outbox.accept(group(number, 250_000)).await.unwrap();
    }
    let account = running.outbox.epochs(Epochs::accounts)[0];
    assert_eq!(account.end, 200);
    assert_eq!(running.outbox.dropped().records, account.first_held);
    assert!(account.first_held > 100, "{account:?}");
    assert_eq!(held(&running.outbox).len() as u64, 200 - account.first_held);
    running.stop().await;
    let again = start(dir.path(), 16 * MIB, WhenFull::DropOldest);
    assert_eq!(again.positions["d"], b"p");
    again.stop().await;
}

#[tokio::test]
async fn an_epoch_dropped_whole_is_named_until_the_hub_knows() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), 16 * MIB, WhenFull::DropOldest);
    let old = first.outbox.current();
    first.outbox.accept(group(0, 250_000)).await.unwrap();
    first.outbox.accept(group(1, 250_000)).await.unwrap();
    let account = first.outbox.epochs(Epochs::accounts)[0];
    first.stop().await;
    let second = start(dir.path(), 16 * MIB, WhenFull::DropOldest);
    for number in 0..200 {
        second.outbox.accept(group(number, 250_000)).await.unwrap();
    }
    let gone = EpochAccount { first_held: 2, before: account.total, ..account };
    assert_eq!(second.outbox.epochs(Epochs::accounts)[0], gone);
    second.stop().await;
    let third = start(dir.path(), 16 * MIB, WhenFull::DropOldest);
    assert_eq!(third.outbox.epochs(|epochs| epochs.get(old).map(|state| state.end)), Some(2));
    third.outbox.receive(&receipt(old, 2)).await.unwrap();
    assert!(third.outbox.epochs(|epochs| epochs.get(old).is_none()));
    third.stop().await;
}

#[tokio::test]
async fn towards_a_foreign_host_what_was_handed_over_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), 16 * MIB, WhenFull::StopAccepting);
    for number in 0..150 {
        running.outbox.accept(group(number, 250_000)).await.unwrap();
        let end = running.outbox.durable().borrow().position;
        running.outbox.handed(end).await.unwrap();
    }
    let dropped = running.outbox.dropped();
    assert!(dropped.records > 50 && dropped.handed_over == dropped.records, "{dropped:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_goes_down_is_known_to_births() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), 64 * MIB, WhenFull::StopAccepting);
    let device = crate::catalogue::DeviceIndex(1);
    running.outbox.accept(group(5, 8)).await.unwrap();
    assert!(running.outbox.present().look().is_up(device));
    running.outbox.accept(NewGroup { event: DeviceEvent::Down, ..group(6, 8) }).await.unwrap();
    assert!(!running.outbox.present().look().is_up(device));
    let look = running.outbox.present().look();
    assert_eq!(look.latest(PointId(1)).unwrap().value, Some(Value::Bytes(6_u64.to_le_bytes().to_vec())));
    drop(look);
    running.stop().await;
}

/// When each record held was accepted, in µs after [`NOW`].
fn arrivals(outbox: &Outbox) -> Vec<i64> {
    let view = outbox.view();
    let mut reader = view.reader(view.first());
    let mut found = Vec::new();
    while let Some((_, bytes)) = reader.next().unwrap() {
        if let LogRecord::Accepted { batch, .. } = LogRecord::decode(bytes).unwrap() {
            found.push(batch.accepted_at.0 - NOW.0);
        }
    }
    found
}

#[tokio::test]
async fn acceptance_never_goes_back_whatever_the_clock_does_and_source_times_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let at = |seconds: i64| clock.set(Timestamp(NOW.0 + seconds * 1_000_000));
    let first = start_at(dir.path(), 64 * MIB, WhenFull::StopAccepting, &clock);
    let mut number = 0;
    for seconds in [0, 10, -3600, 5, 11, 86_400, 12] {
        at(seconds);
        first.outbox.accept(group(number, 8)).await.unwrap();
        number += 1;
    }
    let seconds =
        |arrivals: Vec<i64>| arrivals.into_iter().map(|micros| micros / 1_000_000).collect::<Vec<_>>();
    assert_eq!(seconds(arrivals(&first.outbox)), [0, 10, 10, 10, 11, 86_400, 86_400]);
    first.stop().await;
    at(-100); // a machine without a battery wakes up in the past
    let second = start_at(dir.path(), 64 * MIB, WhenFull::StopAccepting, &clock);
    second.outbox.accept(group(number, 8)).await.unwrap();
    assert_eq!(seconds(arrivals(&second.outbox)).last(), Some(&86_400));
    at(90_000);
    second.outbox.accept(group(number, 8)).await.unwrap();
    assert_eq!(seconds(arrivals(&second.outbox)).last(), Some(&90_000));
    second.stop().await;
}

#[tokio::test]
async fn the_newest_acceptance_time_outlives_the_trimming_of_all_records() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let first = start_at(dir.path(), 64 * MIB, WhenFull::StopAccepting, &clock);
    let epoch = first.outbox.current();
    for number in 0..40 {
        first.outbox.accept(group(number, 256 * 1024)).await.unwrap();
    }
    first.outbox.begin_session();
    first.outbox.receive(&receipt(epoch, 40)).await.unwrap();
    first.stop().await;
    clock.set(Timestamp(NOW.0 - 1_000_000_000));
    for opening in 0..3 {
        let again = start_at(dir.path(), 64 * MIB, WhenFull::StopAccepting, &clock);
        again.outbox.begin_session();
        again.outbox.receive(&receipt(epoch, 40)).await.unwrap();
        until(|| opening == 0 || arrivals(&again.outbox).is_empty()).await;
        again.stop().await;
    }
    let last = start_at(dir.path(), 64 * MIB, WhenFull::StopAccepting, &clock);
    last.outbox.accept(group(99, 8)).await.unwrap();
    assert_eq!(arrivals(&last.outbox).last(), Some(&0));
    last.stop().await;
}
