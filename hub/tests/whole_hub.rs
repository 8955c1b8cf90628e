//! A whole hub over real sockets: an agent's session by hand, receipts, restarts, and a graceful end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hub::config::{BrokerConfig, CommandsConfig, EmbeddedBroker, HttpConfig};
use hub::{Config, Handle};
use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, RangeSet, RecordId,
    Sample, SampleBatch, Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::sparkplug::encode::{self, BirthMetric};
use proto::sparkplug::{BirthHead, EpochAccount, PayloadView, RecordHead, WireValue};
use runtime::clock::Clock;
use runtime::mqtt_client::{self, MqttOptions, MqttReceiver, MqttSender, QoS};
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;

const EPOCH: Epoch = Epoch(0xabc);
const PATH: &str = "area/press/p";

struct Running {
    hub: Handle,
    tasks: Tasks,
}

async fn start(dir: &Path) -> Running {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        enterprise: "acme".into(),
        site: "antwerp".into(),
        data_dir: dir.to_owned(),
        id: "antwerp".into(),
        host_id: "forebay".into(),
        retention: Duration::from_secs(3600),
        retention_bytes: 1_000_000_000,
        clock_skew_max: Duration::from_secs(60),
        broker: BrokerConfig::Embedded(EmbeddedBroker {
            listen: any,
            anonymous_read: true,
            ..EmbeddedBroker::of(dir)
        }),
        http: HttpConfig { listen: any },
        commands: CommandsConfig { enabled: false },
    };
    let tasks = Tasks::new(CancellationToken::new());
    let hub = hub::start(config, Clock::machine(), Metrics::default(), tasks.clone()).await.unwrap();
    Running { hub, tasks }
}

impl Drop for Running {
    /// A failed test must end too.
    fn drop(&mut self) {
        self.tasks.shutdown().cancel();
    }
}

impl Running {
    async fn stop(self) {
        let drained = self.tasks.drain().await;
        assert!(drained.is_graceful(), "{drained:?}");
    }
}

/// An agent of ours, as far as the hub can see.
struct Agent {
    sender: MqttSender,
    receiver: MqttReceiver,
    seq: u8,
    account: Account,
    end: u64,
}

fn samples(offset: u64) -> Vec<Sample> {
    let time = Timestamp(1_790_000_000_000_000 + offset as i64);
    vec![Sample {
        point: PointId(5),
        time,
        value: Some(Value::Double(offset as f64)),
        quality: Quality::GOOD,
    }]
}

impl Agent {
    async fn connect(hub: &Handle, dir: &Path, account: Account, end: u64) -> Agent {
        let token = std::fs::read_to_string(dir.join("agent-token")).unwrap();
        let mut will = Vec::new();
        encode::node_death(1, Timestamp(0), &mut will);
        let options = MqttOptions {
            host: "127.0.0.1".into(),
            port: hub.mqtt.unwrap().port(),
            tls: None,
            client_id: "line".into(),
            login: Some(("g/line".into(), token.trim().into())),
            keep_alive: Duration::from_secs(5),
            will: Some(("spBv1.0/g/NDEATH/line".into(), will, false)),
            packet_bytes_max: 4 << 20,
        };
        let (sender, receiver) = mqtt_client::connect(&options).await.unwrap();
        sender.subscribe(&[("spBv1.0/g/NCMD/line".into(), QoS::AtLeastOnce)]).await.unwrap();
        let mut agent = Agent { sender, receiver, seq: 0, account, end };
        agent.births().await;
        agent
    }

    async fn births(&mut self) {
        let now = Clock::machine().now();
        let plain = |name, data_type, value| BirthMetric {
            name,
            alias: None,
            data_type,
            value,
            time: now,
            quality: Quality::GOOD,
            definition: None,
        };
        let node = [
            plain("bdSeq", DataType::Int64, Some(&Value::Int64(1))),
            plain(RECEIPT_METRIC, DataType::Bytes, None),
        ];
        let before = Account::default();
        let epoch = EpochAccount { epoch: EPOCH, first_held: 0, end: self.end, before, total: self.account };
        let head =
            BirthHead { epochs: vec![epoch], agent_time: now, version: "test".into(), outbox_used: None };
        self.seq = 0;
        let mut payload = Vec::new();
        encode::birth(0, now, &node, Some(&head), &mut payload);
        self.publish("spBv1.0/g/NBIRTH/line", payload).await;
        let definition = PointDefinition {
            device: Some("press".into()),
            unit: "bar".into(),
            ..PointDefinition::new(PointPath::new(PATH).unwrap(), "p", DataType::Double)
        };
        let point = BirthMetric {
            name: "p",
            alias: Some(5),
            data_type: DataType::Double,
            value: None,
            time: now,
            quality: Quality::GOOD,
            definition: Some(&definition),
        };
        let mut payload = Vec::new();
        encode::birth(self.next(), now, &[point], None, &mut payload);
        self.publish("spBv1.0/g/DBIRTH/line/press", payload).await;
    }

    fn next(&mut self) -> u8 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    async fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.sender.publish(topic.into(), QoS::AtMostOnce, false, payload).await.unwrap();
    }

    /// Accepts the next record and sends it.
    async fn accept(&mut self) {
        let offset = self.end;
        for (sample, index) in samples(offset).iter().zip(0..) {
            let value = sample.value.as_ref();
            let hash =
                sample_hash(Offset(offset), index, path_hash(PATH), sample.time, value, sample.quality);
            self.account.add(hash);
        }
        self.end += 1;
        self.send(offset, Some(self.account)).await;
    }

    async fn send(&mut self, offset: u64, account: Option<Account>) {
        let id = RecordId { epoch: EPOCH, offset: Offset(offset) };
        let accepted_at = Timestamp(1_790_000_000_000_000);
        let head =
            RecordHead { id, first_held: 0, accepted_end: self.end, accepted_at, account, counts: None };
        let batch = SampleBatch { id, accepted_at, is_historical: false, samples: samples(offset) };
        let mut payload = Vec::new();
        let alias = |point: PointId| u64::from(point.0);
        encode::data(self.next(), accepted_at, &batch, &head, false, &|_| false, &alias, &mut payload);
        self.publish("spBv1.0/g/DDATA/line/press", payload).await;
    }

    /// Waits until a receipt says that everything so far is on disk.
    async fn wait_for_receipt(&mut self, end: u64) -> Receipt {
        let wait = async {
            loop {
                let message = self.receiver.next().await.unwrap();
                let view = PayloadView::decode(&message.payload).unwrap();
                let receipt = view.metrics.iter().find(|metric| metric.name == Some(RECEIPT_METRIC));
                let Some(WireValue::Bytes(bytes)) = receipt.map(|metric| metric.value) else { continue };
                let receipt = Receipt::decode(bytes).unwrap();
                if receipt.durable == [(EPOCH, RangeSet::of(0..end))] {
                    return receipt;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("no receipt in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_follow_the_disk_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let mut agent = Agent::connect(&running.hub, dir.path(), Account::default(), 0).await;
    for _ in 0..50 {
        agent.accept().await;
    }
    let receipt = agent.wait_for_receipt(50).await;
    assert_eq!(receipt.holding, None);
    let line = NodeId::parse("g/line").unwrap();
    let state = |hub: &Handle| hub.store.accounts()[0].epochs[0].clone();
    assert_eq!((state(&running.hub).account, state(&running.hub).verified_end), (agent.account, 50));
    let status = wait_for_status(&running.hub, |status| status.backlog == Some(0)).await;
    assert_eq!((status.node, status.online, status.foreign), (line, true, false));
    let point = running.hub.catalogue.find(PATH).unwrap();
    assert_eq!(running.hub.live.latest(point).unwrap().value, Some(Value::Double(49.0)));
    let before = state(&running.hub);
    running.stop().await;

    // The same folder again: the hub knows what it holds, and repeats change nothing.
    let running = start(dir.path()).await;
    assert_eq!(state(&running.hub), before);
    let last = running.hub.live.latest(point).unwrap();
    assert_eq!(last.value, Some(Value::Double(49.0)));
    assert_eq!(last.quality.class(), model::QualityClass::Stale); // nobody vouches for it yet
    let mut agent = Agent::connect(&running.hub, dir.path(), agent.account, 50).await;
    for offset in 0..50 {
        agent.send(offset, None).await;
    }
    agent.accept().await;
    agent.wait_for_receipt(51).await;
    assert_eq!(state(&running.hub).account, agent.account);
    assert_eq!(state(&running.hub).verified_end, 51);
    assert!(running.hub.live.latest(point).unwrap().quality.is_good());

    // The agent's connection breaks: its will tells, and its points go stale.
    drop(agent);
    wait_for_status(&running.hub, |status| !status.online).await;
    assert_eq!(running.hub.live.latest(point).unwrap().quality.class(), model::QualityClass::Stale);
    running.stop().await;
}

async fn wait_for_status(
    hub: &Handle,
    is_so: impl Fn(&hub::host::AgentStatus) -> bool,
) -> hub::host::AgentStatus {
    for _ in 0..200 {
        if let Some(status) = hub.host.agents().into_iter().find(&is_so) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", hub.host.agents());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_before_birth_is_asked_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let mut agent = Agent::connect(&running.hub, dir.path(), Account::default(), 0).await;
    agent.accept().await;
    agent.wait_for_receipt(1).await;
    running.stop().await;
    // A hub that never heard this session's births gets data first.
    let running = start(dir.path()).await;
    let mut agent = Agent::connect(&running.hub, dir.path(), agent.account, 1).await;
    let unknown = Vec::from(*b"\x12\x05\x10\xe7\x07\x38\x01\x18\x01"); // alias 999, no identity
    agent.publish("spBv1.0/g/DDATA/line/other", unknown).await;
    let wait = async {
        loop {
            let message = agent.receiver.next().await.unwrap();
            let view = PayloadView::decode(&message.payload).unwrap();
            if view.metrics.iter().any(|metric| metric.name == Some("Node Control/Rebirth")) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("no rebirth asked for");
    agent.births().await;
    agent.accept().await;
    agent.wait_for_receipt(2).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_hub_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        enterprise: "acme".into(),
        site: "antwerp".into(),
        data_dir: dir.path().to_owned(),
        id: "antwerp".into(),
        host_id: "forebay".into(),
        retention: Duration::from_secs(3600),
        retention_bytes: 1_000_000_000,
        clock_skew_max: Duration::from_secs(60),
        broker: BrokerConfig::Embedded(EmbeddedBroker {
            listen: any,
            anonymous_read: true,
            ..EmbeddedBroker::of(dir.path())
        }),
        http: HttpConfig { listen: any },
        commands: CommandsConfig { enabled: false },
    };
    let tasks = Tasks::new(CancellationToken::new());
    let refused = hub::start(config, Clock::machine(), Metrics::default(), tasks.clone()).await;
    let error = refused.err().expect("two hubs write one folder").to_string();
    assert!(error.contains("in use by another process"), "{error}");
    tasks.drain().await;
    running.stop().await;
}
