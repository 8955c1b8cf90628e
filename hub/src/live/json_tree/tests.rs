//! The tree as mosquitto_sub sees it, through the embedded broker.

use std::collections::HashMap;
use std::sync::RwLock;

use model::{
    DataType, Epoch, Offset, PointDefinition, PointPath, Quality, RecordId, Sample, SampleBatch, Timestamp,
    Value,
};
use proto::log_record::AgentId;
use runtime::clock::Clock;

use super::*;
use crate::broker::tests::{Mosquitto, Running, Subscriber};

#[derive(Default)]
struct Table(RwLock<HashMap<PointId, Arc<PointEntry>>>);

impl Points for Table {
    fn current(&self, id: PointId) -> Option<Arc<PointEntry>> {
        self.0.read().unwrap().get(&id).cloned()
    }

    fn count(&self) -> usize {
        self.0.read().unwrap().keys().max().map_or(0, |id| id.0 as usize + 1)
    }
}

impl Table {
    fn add(&self, id: u32, path: &str) {
        let definition = PointDefinition {
            device: Some("d".into()),
            unit: "bar".into(),
            ..PointDefinition::new(PointPath::new(path).unwrap(), path, DataType::Int64)
        };
        let entry = PointEntry { id: PointId(id), agent: AgentId(1), definition, path_hash: 0 };
        self.0.write().unwrap().insert(PointId(id), Arc::new(entry));
    }
}

fn batch(first: u32, points: u32, time: i64, value: i64, is_historical: bool) -> SampleBatch {
    let sample = |point| Sample {
        point: PointId(point),
        time: Timestamp(time),
        value: Some(Value::Int64(value)),
        quality: Quality::GOOD,
    };
    SampleBatch {
        id: RecordId { epoch: Epoch(1), offset: Offset(0) },
        accepted_at: Timestamp(time),
        is_historical,
        samples: (first..first + points).map(sample).collect(),
    }
}

async fn plant(paths: &[&str]) -> (Running, Live, Arc<Table>) {
    plant_on(Running::embedded(true, 16).await, paths)
}

fn plant_on(hub: Running, paths: &[&str]) -> (Running, Live, Arc<Table>) {
    let (live, table) = (Live::new(Clock::machine()), Arc::new(Table::default()));
    for (path, id) in paths.iter().zip(0..) {
        table.add(id, path);
    }
    let points = Arc::clone(&table) as Arc<dyn Points>;
    start(("acme", "antwerp"), &live, points, Arc::clone(&hub.broker), &hub.metrics, &hub.tasks);
    (hub, live, table)
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_find_the_last_values_and_follow() {
    let (hub, live, _) = plant(&["hall/Ölpumpe/druck", "a+b/#1", "/leer/"]).await;
    live.apply([&batch(0, 3, 1_000_000, 7, false)]);
    tokio::time::sleep(TICK * 3).await;
    let text = hub.metrics.render();
    assert!(text.contains("forebay_json_published_total 0"), "rendered for nobody: {text}");

    let mut all = Subscriber::start(hub.port(), None, &["-v", "-t", "acme/#"]);
    let mut found = [all.line().await.unwrap(), all.line().await.unwrap(), all.line().await.unwrap()];
    found.sort();
    const PAYLOAD: &str = "{\"t\":\"1970-01-01T00:00:01.000000Z\",\"v\":7,\"q\":\"good\",\"u\":\"bar\"}";
    assert_eq!(
        found,
        [
            format!("acme/antwerp/%00/leer/%00 {PAYLOAD}"),
            format!("acme/antwerp/a%2Bb/%231 {PAYLOAD}"),
            format!("acme/antwerp/hall/Ölpumpe/druck {PAYLOAD}"),
        ]
    );
    live.apply([&batch(0, 1, 2_000_000, 8, false)]);
    assert!(all.line().await.unwrap().contains("\"v\":8"));
    live.apply([&batch(0, 1, 1_500_000, 9, true)]); // history does not replace newer values
    all.quiet().await;
    live.mark_stale(&[PointId(0)]);
    assert!(all.line().await.unwrap().contains("\"v\":8,\"q\":\"stale:not-connected\""));
    drop(all);

    // While nobody was there, values changed; the next subscriber finds the newest, not what was retained.
    tokio::time::sleep(TICK * 5).await;
    live.apply([&batch(0, 3, 3_000_000, 10, false)]);
    tokio::time::sleep(TICK * 2).await;
    let mut late = Subscriber::start(hub.port(), None, &["-t", "acme/antwerp/hall/+/druck", "-C", "1"]);
    assert!(late.line().await.unwrap().contains("\"v\":10"));
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_ten_values_per_second_and_the_last_one_always() {
    let (hub, live, _) = plant(&["p"]).await;
    live.apply([&batch(0, 1, 1, 0, false)]);
    let mut subscriber = Subscriber::start(hub.port(), None, &["-t", "acme/antwerp/p"]);
    subscriber.line().await.unwrap();
    for number in 1..=1000 {
        live.apply([&batch(0, 1, 1 + number, number, false)]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut lines = 0;
    loop {
        lines += 1;
        if subscriber.line().await.unwrap().contains("\"v\":1000,") {
            break;
        }
    }
    assert!((5..=30).contains(&lines), "{lines} messages for a second and a bit of a thousand values");
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_large_plant_is_found_by_one_subscriber() {
    const POINTS: u32 = 20_000;
    let (hub, live, table) = plant(&[]).await;
    for id in 0..POINTS {
        table.add(id, &format!("area/line/cell/p{id}"));
    }
    live.apply([&batch(0, POINTS, 1, 1, false)]);
    let mut subscriber = Subscriber::start(hub.port(), None, &["-t", "acme/#", "-v"]);
    let mut topics = std::collections::HashSet::new();
    while topics.len() < POINTS as usize {
        topics.insert(subscriber.line().await.unwrap());
    }
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_broker_gets_everything_and_again_after_it_forgot() {
    let dir = tempfile::tempdir().unwrap();
    let mut mosquitto = Mosquitto::start(dir.path()).await;
    let port = mosquitto.port;
    let (hub, live, _) = plant_on(Running::outside(port, dir).await, &["a", "b"]);
    live.apply([&batch(0, 2, 1_000_000, 7, false)]);
    let mut one = Subscriber::start(port, None, &["-t", "acme/antwerp/a"]);
    assert!(one.line().await.unwrap().contains("\"v\":7"));
    mosquitto.restart().await; // without persistence: nothing is retained any more
    let mut two = Subscriber::start(port, None, &["-t", "acme/antwerp/b"]);
    assert!(two.line().await.unwrap().contains("\"v\":7"));
    assert!(hub.tasks.drain().await.is_graceful());
}
