//! A table that is kept in order while it is written and read: rows are the same rows at every moment, for every reader.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use bridge::cursor::Cursor;
use bridge::faulty_store::Weather;
use bridge::scan::scan;
use bridge::sink_conformance::{
    FIRST, START, account, batch, catalogue, catalogue_entries, every_type, plain, plant_log, record, sample,
};
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::folder::StoreLayer;
use bridge::sinks::location::Location;
use bridge::upkeep::{Policy, compact_now, inspect, vacuum_now};
use bridge::{Pace, SinkConfig};
use model::{Quality, SampleBatch, Value};
use serde_json::Value as Json;

use crate::emulators::{Emulator, Kind};
use crate::hub::Hub;
use crate::pump;
use crate::pump::start;
use crate::readers::{counted_by_others, python};

/// As often as a test has time for.
const BUSY: Policy = Policy {
    min_files: 4,
    min_age: Duration::ZERO,
    quiet: Duration::from_secs(3600),
    every: Duration::from_millis(30),
    ..Policy::DEFAULT
};

fn config(sink: impl Sink + 'static) -> SinkConfig {
    pump::config(
        Box::new(sink),
        Pace { pause: Duration::from_millis(1), pause_max: Duration::from_millis(20), ..Pace::default() },
    )
}

/// Commits these, so many records at a time.
pub(crate) async fn fill(sink: &mut dyn Sink, records: &[SampleBatch], from: u64, per_commit: usize) {
    let mut start = from;
    sink.open("lake", &plant_log(&[(FIRST, 0)], 10_000)).await.unwrap();
    for part in records.chunks(per_commit) {
        let next = start + part.len() as u64;
        sink.write(batch(FIRST, start..next, part)).await.unwrap();
        sink.commit(Cursor { epoch: Some(FIRST), position: next }).await.unwrap();
        start = next;
    }
    sink.close().await;
}

async fn expect_rows(place: impl Into<Location>, records: &[SampleBatch]) {
    let table = scan(place).await.unwrap();
    let rows = table.epochs.values().next().unwrap();
    assert_eq!((table.foreign_rows, rows.duplicates), (0, 0), "{:?}", table.problems);
    assert_eq!(rows.account, account(records, &catalogue()));
}

fn data_files(table: &Path) -> BTreeSet<PathBuf> {
    let days = std::fs::read_dir(table).unwrap().map(|day| day.unwrap().path());
    let days = days.filter(|day| day.is_dir() && !day.ends_with("_delta_log"));
    days.flat_map(|day| std::fs::read_dir(day).unwrap().map(|file| file.unwrap().path())).collect()
}

/// Two readers that are not ours count in a loop while the pump commits and small files are merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_rows_of_a_version_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("lake");
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let sink = DeltaSink::new(table.clone()).kept_in_order(BUSY);
    let running = start(&hub, vec![config(sink)]).await;
    hub.append(&plain(0..20));
    running.until_settled(20).await;
    let stop = folder.path().join("stop");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/peers/read_while.py");
    let reader = Command::new(python())
        .arg(script)
        .args([&table, &stop])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut end = 20;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(12) || running.handle.status()[0].upkeep.compactions < 5 {
        // No more than the pump has brought away, however slow the machine is.
        if running.handle.status()[0].settled + 100 > end {
            hub.append(&plain(end..end + 10));
            end += 10;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(began.elapsed() < Duration::from_secs(300), "{:?}", running.handle.status()[0].upkeep);
    }
    running.until_settled(end).await;
    std::fs::write(&stop, "").unwrap();
    let output = tokio::task::spawn_blocking(|| reader.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Json = serde_json::from_slice(&output.stdout).unwrap();
    println!("{seen} {:?}", running.handle.status()[0].upkeep);
    assert_eq!(seen["wrong"], serde_json::json!([]));
    assert_eq!(seen["rows"], 3 * end);
    assert!(
        seen["compactions"].as_u64().unwrap() >= 3 && seen["looks"]["duckdb"].as_u64().unwrap() >= 3,
        "{seen}"
    );
    assert!(running.tasks.drain().await.is_graceful());
    let status = running.handle.status().remove(0);
    assert_eq!(status.upkeep.last_error, None);
    let text = running.metrics.render();
    assert!(text.contains(&format!(
        "forebay_bridge_compacted_files_total{{sink=\"lake\"}} {}",
        status.upkeep.merged
    )));
    expect_rows(table, &plain(0..end)).await;
}

/// Every call of the store may fail, before or after its effect, of the pump and of the upkeep alike: as if each had been
/// killed there. What is left is a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_that_fails_anywhere_leaves_the_rows_as_they_are() {
    for seed in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let weather = Weather::new(seed);
        let for_layer = weather.clone();
        let sink = DeltaSink::new(folder.path().to_owned())
            .through(StoreLayer::new(move |store| for_layer.over(store)))
            .kept_in_order(BUSY);
        let running = start(&hub, vec![config(sink)]).await;
        hub.append(&plain(0..40));
        running.until_settled(40).await;
        weather.storm(6 + 2 * seed);
        let mut end = 40;
        while end < 400 || (end < 4_000 && weather.counts().1 < 8) {
            if running.handle.status()[0].settled + 100 > end {
                hub.append(&plain(end..end + 10));
                end += 10;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let (_, failed, after) = weather.counts();
        weather.storm(0);
        running.until_settled(end).await;
        running
            .until("it compacts again", |status| status.upkeep.compactions > 0 && status.upkeep.files < 8)
            .await;
        assert!(failed > 3 && after > 0, "{failed} {after}");
        assert!(running.tasks.drain().await.is_graceful());
        expect_rows(folder.path().to_owned(), &plain(0..end)).await;
        for (rows, identities) in counted_by_others(folder.path()) {
            assert_eq!((rows, identities), (3 * end, 3 * end));
        }
    }
}

/// All types and qualities, a point whose type changed, rows that came late: the past is not rewritten, late rows are in
/// their day, and a merge changes neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_late_rows_and_days_survive_a_merge() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = every_type();
    let next = records.len() as u64;
    let of_day = |position: u64, day: i64, value: Value| {
        record(position, vec![sample(9, START.0 - day * 86_400_000_000, Some(value), Quality::GOOD)])
    };
    // The point was double, becomes an integer, then a text; rows of last week come in between.
    for nth in 0..12u64 {
        records.push(match nth % 4 {
            0 => of_day(next + nth, 0, Value::Double(1.5)),
            1 => of_day(next + nth, 7, Value::Double(0.5)),
            2 => of_day(next + nth, 0, Value::Int32(2)),
            _ => of_day(next + nth, 0, Value::String("three".into())),
        });
    }
    let mut sink = DeltaSink::new(folder.path().to_owned());
    fill(&mut sink, &records, 0, 2).await;
    let before = inspect(folder.path().to_owned().into()).await.unwrap();
    let late = before.days.get("2026-11-15").copied().unwrap();
    assert_eq!((late.0, late.2), (3, 3), "{:?}", before.days);
    let left = compact_now(folder.path().to_owned().into(), Policy::NOW, |_| {}).await.unwrap();
    let after = inspect(folder.path().to_owned().into()).await.unwrap();
    assert_eq!(
        (left, after.files, after.rows),
        (before.days.len() as u64, left, before.rows),
        "one file per day"
    );
    assert_eq!(after.days.get("2026-11-15").map(|day| (day.0, day.2)), Some((1, 3)));
    expect_rows(folder.path().to_owned(), &records).await;
    // And the next commit goes on.
    let end = records.len() as u64;
    fill(&mut sink, &plain(end..end + 3), end, 3).await;
    expect_rows(folder.path().to_owned(), &[records, plain(end..end + 3)].concat()).await;
}

/// A merge and the pump's commits at the same versions: the pump's are never refused for good, the merge is made or given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_merges_and_a_pump_race() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = DeltaSink::new(folder.path().to_owned());
    fill(&mut sink, &plain(0..120), 0, 2).await;
    let place = || Location::from(folder.path().to_owned());
    let merge = || tokio::time::timeout(Duration::from_secs(400), compact_now(place(), Policy::NOW, |_| {}));
    let more = plain(120..240);
    let (one, two, ()) = tokio::join!(merge(), merge(), fill(&mut sink, &more, 120, 4));
    one.unwrap().unwrap();
    two.unwrap().unwrap();
    expect_rows(place(), &plain(0..240)).await;
    let left = compact_now(place(), Policy::NOW, |_| {}).await.unwrap();
    assert_eq!(left, 1);
    expect_rows(place(), &plain(0..240)).await;
}

/// A vacuum takes what nothing names and what is old, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_takes_only_what_nobody_needs() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path();
    let place = || Location::from(table.to_owned());
    let mut sink = DeltaSink::new(table.to_owned());
    fill(&mut sink, &plain(0..30), 0, 3).await;
    let small = data_files(table);
    assert_eq!(compact_now(place(), Policy::NOW, |_| {}).await.unwrap(), 1);
    // A pump is just writing: staged, not committed.
    sink.open("lake", &plant_log(&[(FIRST, 0)], 100)).await.unwrap();
    sink.write(batch(FIRST, 30..33, &plain(30..33))).await.unwrap();
    let day = small.first().unwrap().parent().unwrap().to_owned();
    let orphan = day.join("compact-00000000000000aa.parquet");
    let half = day.join("compact-00000000000000bb.parquet#1");
    let foreign = day.join("notes.txt");
    for file in [&orphan, &half, &foreign] {
        std::fs::write(file, "x").unwrap();
    }
    let week = Duration::from_secs(7 * 86_400);
    let done = vacuum_now(place(), week, false).await.unwrap();
    assert_eq!((done.files, done.named, done.young), (0, 10, 2), "all within the retention: {done:?}");
    // Everything was written long ago; the removals are of today.
    let long_ago = eight_days_ago();
    for file in data_files(table) {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let tried = vacuum_now(place(), week, true).await.unwrap();
    assert_eq!(
        (tried.files, tried.named, tried.young),
        (1, 10, 1),
        "the orphan alone, and not yet: {tried:?}"
    );
    assert!(orphan.exists());
    let done = vacuum_now(place(), week, false).await.unwrap();
    assert_eq!((done.files, orphan.exists(), half.exists(), foreign.exists()), (1, false, false, true));
    assert!(small.iter().all(|file| file.exists()), "a version of today's names them");
    // Nothing is to be retained: what was merged goes, what the pump writes stays.
    let done = vacuum_now(place(), Duration::ZERO, false).await.unwrap();
    assert_eq!((done.files, done.young), (10, 1), "{done:?}");
    assert!(small.iter().all(|file| !file.exists()));
    sink.commit(Cursor { epoch: Some(FIRST), position: 33 }).await.unwrap();
    sink.close().await;
    expect_rows(place(), &plain(0..33)).await;
    assert_eq!(counted_by_others(table), [(99, 99)]);
    let too_long = vacuum_now(place(), 30 * Duration::from_secs(86_400), false).await.unwrap_err();
    assert!(too_long.to_string().contains("delta.deletedFileRetentionDuration"), "{too_long}");
}

/// The log of the table is cut before an old checkpoint; what is left is the same table, for others too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_and_the_table_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path();
    let mut sink = DeltaSink::new(table.to_owned());
    fill(&mut sink, &plain(0..250), 0, 2).await;
    let log = table.join("_delta_log");
    let long_ago = eight_days_ago();
    for version in 0..=110 {
        for name in [format!("{version:020}.json"), format!("{version:020}.checkpoint.parquet")] {
            if let Ok(file) = std::fs::File::options().write(true).open(log.join(name)) {
                file.set_modified(long_ago).unwrap();
            }
        }
    }
    let done = vacuum_now(table.to_owned().into(), Duration::from_secs(7 * 86_400), false).await.unwrap();
    assert_eq!((done.log_files, done.log_from, done.files), (100, Some(100), 0), "{done:?}");
    assert!(!log.join(format!("{:020}.json", 99)).exists() && log.join(format!("{:020}.json", 100)).exists());
    fill(&mut sink, &plain(250..260), 250, 5).await;
    expect_rows(table.to_owned(), &plain(0..260)).await;
    assert_eq!(counted_by_others(table), [(780, 780)]);
}

/// The same on S3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_an_object_store_is_compacted_and_vacuumed() {
    let emulator = Emulator::start(Kind::S3);
    let mut sink = emulator.sink("upkeep");
    let place = sink.location().unwrap().clone();
    fill(sink.as_mut(), &plain(0..40), 0, 2).await;
    assert_eq!(compact_now(place.clone(), Policy::NOW, |_| {}).await.unwrap(), 1);
    expect_rows(place.clone(), &plain(0..40)).await;
    fill(sink.as_mut(), &plain(40..44), 40, 2).await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // a store's times are whole seconds
    let done = vacuum_now(place.clone(), Duration::ZERO, false).await.unwrap();
    assert_eq!(done.files, 21, "20 commits, and what 16 of them became at first: {done:?}");
    expect_rows(place, &plain(0..44)).await;
}

fn eight_days_ago() -> SystemTime {
    let now = u64::try_from(runtime::clock::Clock::machine().now().0).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_micros(now) - 8 * Duration::from_secs(86_400)
}
