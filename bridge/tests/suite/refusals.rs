//! Records that a target cannot take: they are in the hub's quarantine before the cursor passes them, the rest flows, and
//! what is retried is there once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bridge::batch::Batch;
use bridge::cursor::{Cursor, PlantLog};
use bridge::sink_conformance::{FIRST, catalogue_entries, plain};
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::{Sink, SinkError, Written};
use bridge::{Source, State};
use model::{PointId, SampleBatch};
use proto::account::Account;
use proto::log_record::{AgentId, LogRecord};
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Metrics;

use crate::hub::Hub;
use crate::pump::{BOTH, expect, sink, start};

/// A record of a point that the hub's catalogue does not have.
fn of_no_point(like: &SampleBatch) -> SampleBatch {
    let mut batch = like.clone();
    batch.samples.iter_mut().for_each(|sample| sample.point = PointId(9999));
    batch
}

/// Every record but those of the offsets.
fn without(records: &[SampleBatch], offsets: &[u64]) -> Vec<SampleBatch> {
    records.iter().filter(|record| !offsets.contains(&record.id.offset.0)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_become_rows_is_set_aside_and_comes_back_once() {
    for make in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(FIRST, catalogue_entries()).await;
        let records = plain(0..200);
        hub.append(&records[..70]);
        hub.append(&[of_no_point(&records[70])]);
        hub.append(&records[71..]);
        let running = start(&hub, vec![sink(make, folder.path())]).await;
        let status = running.until_settled(200).await;
        assert_eq!(status.set_aside, 1);
        assert!(hub.log().refused[&70].contains("not in the catalogue"), "{:?}", hub.log().refused);
        expect(folder.path(), &without(&records, &[70])).await;
        let again = |sink: &str| LogRecord::Again {
            sink: sink.into(),
            agent: AgentId(0),
            batch: records[70].clone(),
            account: Account::default(),
        };
        hub.append_record(&again("another"));
        hub.append_record(&again("lake"));
        hub.append_record(&LogRecord::Retried { origin: 2, epoch: 1, position: 70 });
        running.until_settled(203).await;
        running.tasks.drain().await;
        expect(folder.path(), &records).await;

        // A new table is filled from the log's beginning, by a program that could read the record now.
        hub.log().records[70] = {
            let mut bytes = Vec::new();
            let batch = records[70].clone();
            let account = Account::default();
            LogRecord::Received { agent: AgentId(0), batch, account, counts: None }.encode(&mut bytes);
            bytes.into()
        };
        let anew = tempfile::tempdir().unwrap();
        let running = start(&hub, vec![sink(make, anew.path())]).await;
        running.until_settled(203).await;
        running.tasks.drain().await;
        expect(anew.path(), &records).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_keeps_no_more_stops_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    hub.log().refused_max = 0;
    let records = plain(0..20);
    hub.append(&records[..10]);
    hub.append(&[of_no_point(&records[10])]);
    let running = start(&hub, vec![sink(BOTH[0], folder.path())]).await;
    let status = running.until("stopped", |s| matches!(s.state, State::Stopped(_))).await;
    assert!(status.last_error.unwrap().contains("as many as may be"));
    running.tasks.drain().await;
}

/// A table that takes no row of one offset, as one with a rule of its own would not.
struct Choosy {
    table: DeltaSink,
    refuses: i64,
}

#[async_trait]
impl Sink for Choosy {
    async fn open(&mut self, name: &str, log: &PlantLog) -> Result<Option<Cursor>, SinkError> {
        self.table.open(name, log).await
    }

    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), SinkError> {
        if batch.offsets().any(|offset| offset == self.refuses) {
            return Err(SinkError::Refused("log_offset breaks the rule of the table".into()));
        }
        self.table.write(batch).await
    }

    async fn commit(&mut self, upto: Cursor) -> Result<Written, SinkError> {
        self.table.commit(upto).await
    }

    async fn close(&mut self) {
        self.table.close().await;
    }
}

/// The bridge dies after any number of steps: the refused record is neither in the table nor forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_record_that_a_table_refuses_is_found_whenever_the_bridge_dies() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let records = plain(0..60);
    hub.append(&records);
    let choosy = || {
        let table = DeltaSink::new(folder.path().to_owned());
        let mut config = sink(|path| Box::new(DeltaSink::new(path.to_owned())), folder.path());
        config.sink = Box::new(Choosy { table, refuses: 33 });
        config.max_wait = Duration::from_millis(2);
        config
    };
    for polls in (1..60u32).step_by(4) {
        let source = Source { hub: hub.url(), token_file: None, pages: None };
        let metrics = Metrics::default();
        let (_, pump) = bridge::pump(source, choosy(), Clock::machine(), &metrics, CancellationToken::new());
        let mut left = polls;
        let mut pump = std::pin::pin!(pump);
        let limited = std::future::poll_fn(|context| {
            if left == 0 {
                return std::task::Poll::Ready(());
            }
            left -= 1;
            pump.as_mut().poll(context).map(drop)
        });
        tokio::time::timeout(Duration::from_millis(40), limited).await.ok();
    }
    let running = start(&hub, vec![choosy()]).await;
    running.until_settled(60).await;
    running.tasks.drain().await;
    expect(folder.path(), &without(&records, &[33])).await;
    let refused = hub.log().refused.clone();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [33]);
    assert!(refused[&33].contains("breaks the rule"), "{refused:?}");
}
