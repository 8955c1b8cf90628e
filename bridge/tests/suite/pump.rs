//! The loop from a hub's feed to a table, through everything that can go wrong on the way.

use std::path::Path;
use std::time::Duration;

use bridge::scan::scan;
use bridge::sink_conformance::{FIRST, SECOND, account, catalogue, catalogue_entries, plain};
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::parquet::ParquetSink;
use bridge::{Config, Handle, Pace, SinkConfig, SinkStatus, Source, State};
use model::{RangeSet, SampleBatch};
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;

use crate::hub::Hub;

/// Makes a sink over a folder.
pub(crate) type Make = fn(&Path) -> Box<dyn Sink>;

pub(crate) const BOTH: [Make; 2] =
    [|path| Box::new(DeltaSink::new(path.to_owned())), |path| Box::new(ParquetSink::new(path.to_owned()))];

pub(crate) fn sink(make: Make, path: &Path) -> SinkConfig {
    SinkConfig { max_wait: Duration::from_millis(50), ..config(make(path), Pace::default()) }
}

/// Small commits of a sink.
pub(crate) fn config(sink: Box<dyn Sink>, pace: Pace) -> SinkConfig {
    SinkConfig {
        name: "lake".to_owned(),
        kind: "test",
        sink,
        max_rows: 60,
        max_bytes: 1 << 20,
        max_wait: Duration::from_millis(10),
        pace,
    }
}

pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
}

pub(crate) async fn start(hub: &Hub, sinks: Vec<SinkConfig>) -> Running {
    let tasks = Tasks::new(CancellationToken::new());
    let metrics = Metrics::default();
    let config = Config { hub: hub.url(), token_file: None, sinks };
    let handle = bridge::start(config, Clock::machine(), metrics.clone(), tasks.clone()).await.unwrap();
    Running { handle, tasks, metrics }
}

impl Running {
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let mut status = self.handle.watch().remove(0);
        let found = tokio::time::timeout(Duration::from_secs(20), status.wait_for(|s| holds(s))).await;
        match found {
            Ok(status) => status.unwrap().clone(),
            Err(_) => panic!("not {what}: {:?}", self.handle.status()),
        }
    }

    pub(crate) async fn until_settled(&self, position: u64) -> SinkStatus {
        self.until("settled", |s| s.state == State::Following && s.settled >= position).await
    }
}

pub(crate) async fn expect(table: &Path, records: &[SampleBatch]) {
    let found = scan(table.to_owned()).await.unwrap();
    let rows = found.epochs.values().next().unwrap();
    assert_eq!((found.foreign_rows, found.epochs.len()), (0, 1), "{:?}", found.problems);
    let mut offsets = RangeSet::new();
    for record in records {
        offsets.insert_one(record.id.offset.0);
    }
    assert_eq!((&rows.offsets, rows.duplicates), (&offsets, 0));
    assert_eq!(rows.account, account(records, &catalogue()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_arrive_within_their_time_and_the_hub_hears_of_it() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        running.until("following", |s| s.state == State::Following).await;
        hub.append(&plain(0..7));
        let status = running.until_settled(7).await;
        assert_eq!((status.written.rows, status.committed.unwrap().position), (21, 7));
        hub.append(&plain(7..1000));
        running.until_settled(1000).await;
        assert!(running.handle.status()[0].has_caught_up());
        assert!(running.metrics.render().contains("forebay_bridge_rows_total{sink=\"lake\"} 3000"));
        expect(folder.path(), &plain(0..1000)).await;
        assert!(running.tasks.drain().await.is_graceful());
        assert_eq!(hub.log().cursors["lake"], (FIRST, 1000));
        assert_eq!(running.handle.status()[0].state, State::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_brings_what_the_hub_had() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let mut slow = sink(make, folder.path());
        slow.max_wait = Duration::from_secs(3600);
        slow.max_rows = 100_000;
        let running = start(&hub, vec![slow]).await;
        hub.append(&plain(0..500));
        running.until("reading", |s| s.durable_end == 500).await;
        hub.append(&plain(500..900));
        assert!(running.tasks.drain().await.is_graceful());
        expect(folder.path(), &plain(0..900)).await;
        assert_eq!(hub.log().cursors["lake"], (FIRST, 900));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_without_the_hub_brings_what_was_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.append(&plain(0..80));
    let mut slow = sink(BOTH[0], folder.path());
    slow.max_wait = Duration::from_secs(3600);
    slow.max_rows = 100_000;
    let running = start(&hub, vec![slow]).await;
    running.until("reading", |s| s.durable_end == 80).await;
    tokio::time::sleep(Duration::from_millis(200)).await; // now it waits for more, with everything in hand
    let (gone, drained) = tokio::join!(hub.down(), running.tasks.drain());
    assert_eq!((gone, drained.is_graceful()), ((), true));
    expect(folder.path(), &plain(0..80)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_pages_parts_of_the_catalogue_and_errors_disturb_nothing() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        {
            let mut log = hub.log();
            log.repeat = 13;
            log.catalogue_part = 2;
            log.page_records = 9;
            log.fail = 2;
        }
        hub.append(&plain(0..200));
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        running.until_settled(100).await;
        hub.log().fail = 1;
        hub.append(&plain(200..300));
        running.until_settled(300).await;
        running.tasks.drain().await;
        expect(folder.path(), &plain(0..300)).await;
    }
}

/// Found by the simulator: a hub that was started and ended again without writing anything leaves no epoch behind, and a
/// bridge that had caught up took that for a log restored from an older copy, and stopped for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_of_the_log_that_wrote_nothing_stops_no_bridge() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(FIRST, catalogue_entries()).await;
    let running = start(&hub, vec![sink(BOTH[0], folder.path())]).await;
    hub.append(&plain(0..10));
    running.until_settled(10).await;
    hub.down().await;
    hub.new_epoch(SECOND);
    let requests = hub.log().requests;
    hub.up().await;
    while hub.log().requests < requests + 2 {
        tokio::time::sleep(Duration::from_millis(20)).await; // it asks what log this is, then for its next page
    }
    {
        let mut log = hub.log();
        log.epochs.pop();
        let end = log.end();
        log.epochs.push((model::Epoch(SECOND.0 + 1), end));
    }
    hub.append(&plain(10..20));
    running.until_settled(20).await;
    expect(folder.path(), &plain(0..20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_never_spans_two_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.append(&plain(0..30));
    hub.new_epoch(SECOND);
    hub.append(&plain(30..50));
    let mut config = sink(BOTH[1], folder.path());
    config.max_rows = 100_000;
    let running = start(&hub, vec![config]).await;
    let status = running.until_settled(50).await;
    assert_eq!(status.committed.unwrap().epoch, Some(SECOND));
    running.tasks.drain().await;
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".parquet"))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "hub.lake-0000000000000011-00000000000000000000-00000000000000000030.parquet",
            "hub.lake-0000000000000022-00000000000000000030-00000000000000000050.parquet",
        ]
    );
    expect(folder.path(), &plain(0..50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_restarts_is_followed_into_its_new_epoch() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut hub = Hub::start(FIRST, catalogue_entries()).await;
        hub.append(&plain(0..30));
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        running.until_settled(30).await;
        hub.down().await;
        running.until("retrying", |s| matches!(s.state, State::Retrying(_))).await;
        hub.new_epoch(SECOND);
        hub.append(&plain(30..60));
        hub.up().await;
        running.until_settled(60).await;
        hub.trim(60);
        hub.append(&plain(60..61));
        running.until_settled(61).await;
        running.tasks.drain().await;
        expect(folder.path(), &plain(0..61)).await;
        // Everything of the first epoch is gone from the log; a new process still finds its place.
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        hub.append(&plain(61..70));
        running.until_settled(70).await;
        running.tasks.drain().await;
        expect(folder.path(), &plain(0..70)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_the_place_stops_the_sink_with_the_range() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        hub.append(&plain(0..30));
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        running.until_settled(30).await;
        running.tasks.drain().await;
        hub.append(&plain(30..50));
        hub.trim(40);
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        let status = running.until("stopped", |s| matches!(s.state, State::Stopped(_))).await;
        assert!(status.last_error.unwrap().contains("[30, 40)"));
        assert!(running.metrics.render().contains("forebay_bridge_stopped{sink=\"lake\"} 1"));
        assert!(running.tasks.drain().await.is_graceful());
        expect(folder.path(), &plain(0..30)).await;

        let restored = Hub::start(FIRST, catalogue_entries()).await;
        restored.append(&plain(0..20));
        restored.new_epoch(SECOND);
        restored.append(&plain(20..90));
        let running = start(&restored, vec![sink(make, folder.path())]).await;
        let status = running.until("stopped", |s| matches!(s.state, State::Stopped(_))).await;
        assert!(status.last_error.unwrap().contains("[20, 30)"));
        running.tasks.drain().await;
        expect(folder.path(), &plain(0..30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_trimmed_under_a_running_pump_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.append(&plain(0..30));
    let running = start(&hub, vec![sink(BOTH[0], folder.path())]).await;
    running.until_settled(30).await;
    hub.down().await;
    hub.append_and_trim(&plain(30..60), 50);
    hub.up().await;
    let status = running.until("stopped", |s| matches!(s.state, State::Stopped(_))).await;
    assert!(status.last_error.unwrap().contains("[30, 50)"));
    running.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_goes_away_is_used_again_when_it_comes_back() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (table, aside) = (folder.path().join("table"), folder.path().join("aside"));
        std::fs::write(&table, "in the way").unwrap(); // as root nothing is unwritable by its mode
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        hub.append(&plain(0..100));
        let running = start(&hub, vec![sink(make, &table)]).await;
        running.until("retrying", |s| matches!(s.state, State::Retrying(_))).await;
        std::fs::remove_file(&table).unwrap();
        running.until_settled(100).await;
        std::fs::rename(&table, &aside).unwrap();
        std::fs::write(&table, "in the way").unwrap();
        hub.append(&plain(100..200));
        running.until("retrying", |s| matches!(s.state, State::Retrying(_))).await;
        std::fs::remove_file(&table).unwrap();
        std::fs::rename(&aside, &table).unwrap();
        let status = running.until_settled(200).await;
        assert!(status.last_error.is_some());
        running.tasks.drain().await;
        expect(&table, &plain(0..200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.log().token = Some("right".to_owned());
    hub.append(&plain(0..10));
    let tasks = Tasks::new(CancellationToken::new());
    let table = folder.path().join("table");
    let config =
        Config { hub: hub.url(), token_file: Some(token.clone()), sinks: vec![sink(BOTH[0], &table)] };
    let metrics = Metrics::default();
    let handle = bridge::start(config, Clock::machine(), metrics.clone(), tasks.clone()).await.unwrap();
    let running = Running { handle, tasks, metrics };
    let retrying = |why: &'static str| move |s: &SinkStatus| matches!(&s.state, State::Retrying(text) if text.contains(why));
    running.until("without a file", retrying("cannot read the token file")).await;
    std::fs::write(&token, "wrong\n").unwrap();
    running.until("refused", retrying("401")).await;
    std::fs::write(&token, "right\n").unwrap();
    running.until_settled(10).await;
    running.tasks.drain().await;
    expect(&table, &plain(0..10)).await;
}

/// Dropped after every number of polls: whatever await it stands at, the next one goes on without loss or repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pump_dropped_at_any_await_loses_and_repeats_nothing() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        hub.log().page_records = 5;
        let mut end = 0;
        for polls in (1..120u32).step_by(2) {
            hub.append(&plain(end..end + 10));
            end += 10;
            let mut config = sink(make, folder.path());
            config.max_rows = 12;
            config.max_wait = Duration::from_millis(2);
            let source = Source { hub: hub.url(), token_file: None, pages: None };
            let metrics = Metrics::default();
            let (_, pump) =
                bridge::pump(source, config, Clock::machine(), &metrics, CancellationToken::new());
            let mut left = polls;
            let mut pump = std::pin::pin!(pump);
            let limited = std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(());
                }
                left -= 1;
                pump.as_mut().poll(context).map(drop)
            });
            tokio::time::timeout(Duration::from_millis(60), limited).await.ok();
        }
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        running.until_settled(end).await;
        running.tasks.drain().await;
        expect(folder.path(), &plain(0..end)).await;
    }
}

/// Two sinks of one bridge are two pumps: one that cannot write does not hold up the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_sink_does_not_disturb_another() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&bad, "in the way").unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.append(&plain(0..50));
    let mut stuck = sink(BOTH[0], &bad);
    stuck.name = "stuck".to_owned();
    let running = start(&hub, vec![sink(BOTH[1], &good), stuck]).await;
    running.until_settled(50).await;
    assert!(matches!(running.handle.status()[1].state, State::Starting | State::Retrying(_)));
    running.tasks.drain().await;
    expect(&good, &plain(0..50)).await;
}
