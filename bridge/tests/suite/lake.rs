//! The pump against an object store that answers badly, and against another bridge on the same cursor: no row is lost,
//! none is there twice, the alarm stands while nothing gets through, and memory holds one batch.

use std::path::Path;
use std::time::Duration;

use bridge::faulty_store::{Answer, Weather};
use bridge::sink_conformance::{FIRST, catalogue_entries, plain};
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::folder::StoreLayer;
use bridge::{Pace, SinkConfig, State};

use crate::hub::Hub;
use crate::pump;
use crate::pump::{Running, expect, start};
use crate::readers::counted_by_others;

/// Pauses a thousand times as short as in a plant: an hour is 3.6 s.
const PACE: Pace = Pace {
    pause: Duration::from_micros(200),
    pause_max: Duration::from_millis(5),
    alarm_after: Duration::from_millis(400),
};
const HOUR: Duration = Duration::from_millis(3600);

fn config(sink: impl Sink + 'static) -> SinkConfig {
    pump::config(Box::new(sink), PACE)
}

fn in_weather(path: &Path, weather: &Weather) -> DeltaSink {
    let weather = weather.clone();
    DeltaSink::new(path.to_owned()).through(StoreLayer::new(move |store| weather.over(store)))
}

fn alarm_gauge(running: &Running) -> i64 {
    let text = running.metrics.render();
    let line = text.lines().find(|line| line.starts_with("forebay_bridge_sink_alarm{")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_every_kind_before_and_after_the_effect_lose_and_double_nothing() {
    for seed in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let weather = Weather::new(seed);
        let running = start(&hub, vec![config(in_weather(folder.path(), &weather))]).await;
        hub.append(&plain(0..40));
        running.until_settled(40).await;
        weather.storm(5 + 2 * seed);
        for part in 0..10 {
            hub.append(&plain(40 + part * 40..80 + part * 40));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        running.until("some committed", |s| s.settled >= 200).await;
        weather.storm(0);
        running.until_settled(440).await;
        let (calls, failed, after) = weather.counts();
        assert!(failed > 5 && after > 1, "{failed} of {calls} calls failed, {after} after their effect");
        assert!(running.tasks.drain().await.is_graceful());
        expect(folder.path(), &plain(0..440)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_without_the_store_is_an_alarm_and_then_made_good() {
    for answer in [Answer::SlowDown, Answer::Forbidden] {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let weather = Weather::new(9);
        let running = start(&hub, vec![config(in_weather(folder.path(), &weather))]).await;
        hub.append(&plain(0..40));
        running.until_settled(40).await;
        running.until("no alarm", |s| s.alarm.is_none()).await;
        assert_eq!(alarm_gauge(&running), 0);
        weather.outage(Some(answer));
        hub.append(&plain(40..100));
        let status = running.until("an alarm", |s| s.alarm.is_some()).await;
        assert!(matches!(status.state, State::Retrying(_) | State::Following), "{:?}", status.state);
        assert_eq!(alarm_gauge(&running), 1);
        let (before, ..) = weather.counts();
        let asked = hub.log().requests;
        for part in 0..6 {
            tokio::time::sleep(HOUR / 6).await;
            hub.append(&plain(100 + part * 500..600 + part * 500));
        }
        assert!(hub.log().alarms.contains_key("lake"), "the hub is told: {:?}", hub.log().alarms);
        // It goes on knocking, slower and slower up to a bound: not in a tight loop, not at one pace.
        let knocks = weather.counts().0 - before;
        assert!((10..40_000).contains(&knocks), "{knocks} calls within an hour");
        assert!(hub.log().requests - asked < 10_000, "what is not taken is not fetched again and again");
        weather.outage(None);
        running.until_settled(3100).await;
        running.until("no alarm", |s| s.alarm.is_none()).await;
        assert_eq!(alarm_gauge(&running), 0);
        assert!(running.tasks.drain().await.is_graceful());
        expect(folder.path(), &plain(0..3100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_an_alarm_too() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let weather = Weather::new(3);
    let running = start(&hub, vec![config(in_weather(folder.path(), &weather))]).await;
    hub.append(&plain(0..40));
    running.until_settled(40).await;
    weather.delay(Duration::from_millis(1500));
    hub.append(&plain(40..80));
    let status = running.until("an alarm", |s| s.alarm.is_some()).await;
    assert!(status.alarm.unwrap().contains("does not answer"));
    weather.delay(Duration::ZERO);
    running.until_settled(80).await;
    running.until("no alarm", |s| s.alarm.is_none()).await;
    assert!(running.tasks.drain().await.is_graceful());
    expect(folder.path(), &plain(0..80)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_bridge_on_this_machine_is_kept_out_and_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let sink = || config(DeltaSink::new(folder.path().to_owned()));
    let first = start(&hub, vec![sink()]).await;
    hub.append(&plain(0..40));
    first.until_settled(40).await;
    let second = start(&hub, vec![sink()]).await;
    let status = second.until("an alarm", |s| s.alarm.is_some()).await;
    assert!(status.alarm.unwrap().contains("is written by another bridge"));
    hub.append(&plain(40..80));
    first.until_settled(80).await;
    assert!(first.tasks.drain().await.is_graceful());
    hub.append(&plain(80..120));
    second.until_settled(120).await;
    second.until("no alarm", |s| s.alarm.is_none()).await;
    assert!(second.tasks.drain().await.is_graceful());
    expect(folder.path(), &plain(0..120)).await;
}

/// As after a partition, with nothing that keeps the second one out: each commit says where it goes on from, so one of
/// two wins it, and the other one looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bridges_that_nothing_keeps_apart_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let path = folder.path().to_owned();
    let weather = Weather::new(5);
    let first = start(&hub, vec![config(in_weather(&path, &weather))]).await;
    hub.append(&plain(0..20));
    first.until_settled(20).await;
    let second = start(&hub, vec![config(in_weather(&path, &weather).from_elsewhere())]).await;
    second.until_settled(20).await;
    weather.storm(40);
    let commits = |running: &Running| running.handle.status()[0].commits;
    let mut end = 20;
    while end < 400 || (end < 4000 && (commits(&first) < 3 || commits(&second) < 3)) {
        hub.append(&plain(end..end + 20));
        end += 20;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    weather.storm(0);
    first.until_settled(end).await;
    second.until_settled(end).await;
    println!("{} commits by the first, {} by the second", commits(&first), commits(&second));
    assert!(commits(&first) > 2 && commits(&second) > 2, "they never met");
    assert!(first.tasks.drain().await.is_graceful() & second.tasks.drain().await.is_graceful());
    expect(&path, &plain(0..end)).await;
    for (rows, identities) in counted_by_others(&path) {
        assert_eq!((rows, identities), (3 * end, 3 * end));
    }
}
