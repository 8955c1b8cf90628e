//! The agent against Debian's mosquitto, with a small host that follows the standard and sends receipts.
//!
//! The host is strict: `seq` without a gap, data only of what is born, aliases of the present birth, accounts that add
//! up to what the records carry. It is not the hub: it shows that the agent keeps its side of docs/specs/receipts.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::{CommandId, CommandOutcome, DataType, Epoch, NodeId, RangeSet, Timestamp, Value};
use proto::account::{Account, path_hash, sample_hash};
use proto::receipt::{COMMAND_REPORT_METRIC, CommandReport, RECEIPT_METRIC, Receipt};
use proto::sparkplug::{CommandHead, MessageType, PayloadView, StatePayload, Topic, WireValue, encode};
use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, PlantNames, Problems};
use runtime::mqtt_client::{MqttOptions, MqttReceiver, MqttSender, QoS, connect};
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;

struct Mosquitto {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(port)
    }

    fn start_on(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mosquitto.conf");
        let mut file = std::fs::File::create(&path).unwrap();
        write!(
            file,
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"
        )
        .unwrap();
        let process = Command::new("/usr/sbin/mosquitto")
            .args(["-c", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's mosquitto is needed: apt-get install mosquitto");
        let until = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "mosquitto did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Mosquitto { process, port, _dir: dir }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn write_config(dir: &Path, port: u16) -> PathBuf {
    let points = "name,address,type,writable,min,max,path\n\
                  wave,\"sine(period=2s, amplitude=5)\",f64,,,,line/wave\n\
                  count,counter(),i64,,,,line/count\n\
                  setpoint,register(initial=20),f64,true,0,100,line/setpoint\n";
    std::fs::write(dir.join("press.csv"), points).unwrap();
    std::fs::write(dir.join("pump.csv"), "name,address,type\nspeed,random_walk(seed=3),f32\n").unwrap();
    let text = format!(
        "[edge]\ngroup = \"antwerp\"\nnode = \"line-3\"\ndata_dir = \"data\"\nhub = \"mqtt://127.0.0.1:{port}\"\n\
         [edge.commands]\nenabled = true\n\
         [[edge.devices]]\nname = \"press\"\ndriver = \"simulated\"\npoints = \"press.csv\"\npoll = \"20ms\"\n\
         [[edge.devices]]\nname = \"pump\"\ndriver = \"simulated\"\npoints = \"pump.csv\"\npoll = \"50ms\"\n"
    );
    let path = dir.join("plant.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn load(path: &Path) -> edge_agent::config::Config {
    let file = ConfigFile::read(path).unwrap();
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
    let section = root.section("edge", &mut problems).unwrap();
    let config = edge_agent::config::validate(section, &plant, &mut problems);
    config.unwrap_or_else(|| panic!("{:?}", problems.list))
}

struct Agent {
    tasks: Tasks,
    handle: edge_agent::Handle,
    metrics: Metrics,
}

async fn start_agent(config: &Path) -> Agent {
    let (tasks, metrics) = (Tasks::new(CancellationToken::new()), Metrics::default());
    let handle =
        edge_agent::start(load(config), Clock::machine(), metrics.clone(), tasks.clone()).await.unwrap();
    Agent { tasks, handle, metrics }
}

impl Agent {
    /// Drains, while the host goes on receiving and sending receipts.
    async fn stop(self, host: &mut Host) {
        let (done, mut ended) = tokio::sync::oneshot::channel();
        let mut draining = tokio::task::JoinSet::new();
        draining.spawn(async move { done.send(self.tasks.drain().await).unwrap() });
        loop {
            host.for_a_while(Duration::from_millis(20)).await;
            if let Ok(drained) = ended.try_recv() {
                assert!(drained.is_graceful(), "{drained:?}");
                return;
            }
        }
    }
}

fn node() -> NodeId {
    NodeId::new("antwerp", "line-3").unwrap()
}

#[derive(Clone)]
struct Metric {
    name: String,
    path: String,
    data_type: DataType,
}

/// A host application.
struct Host {
    sender: MqttSender,
    receiver: MqttReceiver,
    plant: Plant,
    timestamp: u64,
}

/// What the host knows; it outlives sessions, as a hub's log does.
#[derive(Default)]
struct Plant {
    seq: Option<u64>,
    bd_seqs: Vec<i64>,
    births: usize,
    devices: HashMap<String, HashMap<u64, Metric>>,
    log: Vec<(MessageType, Option<String>)>,
    received: BTreeMap<Epoch, RangeSet>,
    sums: BTreeMap<Epoch, Account>,
    ends: BTreeMap<Epoch, (u64, Account)>,
    historical: u64,
    live: u64,
    repeated: u64,
    reports: Vec<CommandReport>,
    last: HashMap<String, Value>,
    sends_receipts: bool,
}

impl Host {
    async fn start(port: u16, plant: Plant) -> Self {
        let options = MqttOptions {
            host: "127.0.0.1".into(),
            port,
            tls: None,
            client_id: "host".into(),
            login: None,
            keep_alive: Duration::from_secs(10),
            will: None,
            packet_bytes_max: 1 << 22,
        };
        let (sender, receiver) = connect(&options).await.unwrap();
        sender.subscribe(&[("spBv1.0/antwerp/#".into(), QoS::AtLeastOnce)]).await.unwrap();
        let timestamp = u64::try_from(Clock::machine().now().millis()).unwrap();
        let mut host = Host { sender, receiver, plant, timestamp };
        host.plant.seq = None;
        host.state(true).await;
        host
    }

    async fn state(&mut self, online: bool) {
        self.timestamp += 1;
        let payload = StatePayload { online, timestamp: self.timestamp }.encode();
        let topic = Topic::State { host: "forebay".into() }.to_string();
        self.sender.publish(topic, QoS::AtLeastOnce, true, payload.into_bytes()).await.unwrap();
    }

    async fn node_command(&self, name: &str, value: &Value) {
        let mut payload = Vec::new();
        encode::command(Clock::machine().now(), name, None, value, None, &mut payload);
        let topic = Topic::node(MessageType::NCmd, &node()).to_string();
        self.sender.publish(topic, QoS::AtMostOnce, false, payload).await.unwrap();
    }

    async fn receipt(&self) {
        let durable = self.plant.received.iter().map(|(epoch, set)| (*epoch, set.clone())).collect();
        let receipt = Receipt { hub_time: Clock::machine().now(), durable, ..Receipt::default() };
        self.node_command(RECEIPT_METRIC, &Value::Bytes(receipt.encode())).await;
    }

    /// Receives until the condition holds; receipts every 100 ms.
    async fn until(&mut self, what: &str, condition: impl FnMut(&Plant) -> bool) {
        self.until_within(Duration::from_secs(15), what, condition).await;
    }

    async fn until_within(&mut self, time: Duration, what: &str, mut condition: impl FnMut(&Plant) -> bool) {
        let until = Instant::now() + time;
        let mut receipts = tokio::time::interval(Duration::from_millis(100));
        while !condition(&self.plant) {
            assert!(Instant::now() < until, "{what}: not within {time:?}; {}", self.plant.summary());
            tokio::select! {
                message = self.receiver.next() => {
                    let message = message.unwrap();
                    self.plant.receive(&message.topic, &message.payload);
                }
                _ = receipts.tick() => {
                    if self.plant.sends_receipts {
                        self.receipt().await;
                    }
                }
            }
        }
    }

    async fn for_a_while(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.until("time passes", |_| Instant::now() >= until).await;
    }
}

impl Plant {
    fn with_receipts() -> Self {
        Plant { sends_receipts: true, ..Plant::default() }
    }

    fn summary(&self) -> String {
        let (live, historical) = (self.live, self.historical);
        format!("{live} live, {historical} historical, received {:?}, ends {:?}", self.received, self.ends)
    }

    fn receive(&mut self, topic: &str, payload: &[u8]) {
        let Some(Topic::Node { kind, device, .. }) = Topic::parse(topic) else { return };
        if matches!(kind, MessageType::NCmd | MessageType::DCmd) {
            return; // our own
        }
        let payload = PayloadView::decode(payload).unwrap();
        match kind {
            MessageType::NDeath => {
                self.log.push((kind, None));
                assert_eq!(payload.seq, None);
                (self.seq, self.devices) = (None, HashMap::new());
                return;
            }
            MessageType::NBirth => {
                self.births += 1;
                self.devices.clear();
                assert_eq!(payload.seq, Some(0));
                let head = payload.birth.as_ref().expect("the extension of our agents");
                for account in &head.epochs {
                    self.ends.insert(account.epoch, (account.end, account.total));
                }
                let Some(Value::Int64(bd_seq)) = payload.metrics[0].value.to_value(DataType::Int64, 0) else {
                    panic!("bdSeq")
                };
                self.bd_seqs.push(bd_seq);
            }
            _ => {
                let Some(seq) = self.seq else { return }; // joined late: the first birth was missed
                assert_eq!(payload.seq, Some((seq + 1) % 256), "{topic}");
            }
        }
        self.seq = payload.seq;
        self.log.push((kind, device.clone()));
        let device = device.unwrap_or_default();
        match kind {
            MessageType::NBirth | MessageType::DBirth => {
                let metrics = payload.metrics.iter().filter_map(|metric| {
                    let path = match metric.property("path") {
                        Some(WireValue::String(path)) => path.to_owned(),
                        _ => return None,
                    };
                    let name = metric.name?.to_owned();
                    let data_type = DataType::from_code(metric.datatype?)?;
                    Some((metric.alias?, Metric { name, path, data_type }))
                });
                self.devices.insert(device, metrics.collect());
            }
            MessageType::DDeath => drop(self.devices.remove(&device).expect("was born")),
            _ => self.data(&device, &payload),
        }
    }

    fn data(&mut self, device: &str, payload: &PayloadView<'_>) {
        let metrics = self.devices.get(device).expect("data only of what is born");
        let head = payload.record.expect("which record it is");
        let (epoch, offset) = (head.id.epoch, head.id.offset);
        let is_new = self.received.entry(epoch).or_default().insert_one(offset.0);
        let end = self.ends.entry(epoch).or_default();
        if head.id.offset.0 + 1 > end.0 {
            *end = (offset.0 + 1, head.account.unwrap());
        }
        if payload.metrics.iter().all(|metric| metric.is_historical) {
            self.historical += 1;
        } else {
            assert!(payload.metrics.iter().all(|metric| !metric.is_historical));
            self.live += 1;
        }
        if !is_new {
            self.repeated += 1;
            return;
        }
        let sum = self.sums.entry(epoch).or_default();
        for (index, metric) in payload.metrics.iter().enumerate() {
            let known = &metrics[&metric.alias.unwrap()];
            let data_type = metric.datatype.map_or(Some(known.data_type), DataType::from_code).unwrap();
            let value = metric.value.to_value(data_type, payload.value_micros(index));
            let (time, quality) = (payload.time(index).unwrap(), payload.quality(index));
            let nth = u32::try_from(index).unwrap();
            sum.add(sample_hash(offset, nth, path_hash(&known.path), time, value.as_ref(), quality));
            if let Some(value) = value {
                if known.name == COMMAND_REPORT_METRIC
                    && let Value::Bytes(bytes) = &value
                {
                    self.reports.push(CommandReport::decode(bytes).unwrap());
                }
                self.last.insert(known.path.clone(), value);
            }
        }
    }

    /// Every record that any birth or header spoke of was received, and the accounts agree.
    fn is_complete(&self) -> bool {
        self.ends.iter().all(|(epoch, (end, total))| {
            let received = self.received.get(epoch).map_or(0, |set| set.contiguous_end(0));
            received == *end && self.sums.get(epoch).copied().unwrap_or_default() == *total
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn births_data_receipts_and_rebirth() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), broker.port);
    let agent = start_agent(&config).await; // before its host: it reads and accepts at once
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(agent.handle.status().backlog > 10);
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("100 live records", |plant| plant.live > 100).await;
    host.until("everything from before", Plant::is_complete).await;
    assert!(host.plant.historical > 10, "what was accepted before the host came is history");
    assert_eq!(host.plant.log[0], (MessageType::NBirth, None));
    let first_data = host.plant.log.iter().position(|(kind, _)| *kind == MessageType::DData).unwrap();
    let births = &host.plant.log[1..first_data];
    assert!(births.iter().all(|(kind, _)| *kind == MessageType::DBirth) && !births.is_empty());
    host.until("receipts trim", |_| agent.handle.status().backlog < 30).await;
    host.node_command("Node Control/Rebirth", &Value::Boolean(true)).await;
    host.until("the rebirth", |plant| plant.births == 2).await;
    host.for_a_while(Duration::from_millis(500)).await;
    host.until("no gap over the rebirth", Plant::is_complete).await;
    assert_eq!(host.plant.bd_seqs[0], host.plant.bd_seqs[1], "one session, one bdSeq");
    assert!(host.plant.repeated < 20, "receipts keep repeats rare: {}", host.plant.repeated);
    agent.stop(&mut host).await;
    host.until("NDEATH on leaving", |plant| {
        plant.log.last().is_some_and(|last| last.0 == MessageType::NDeath)
    })
    .await;
    assert!(
        host.plant.is_complete(),
        "all that was accepted was sent before leaving: {}",
        host.plant.summary()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_brings_history_flagged_and_complete() {
    let broker = Mosquitto::start();
    let port = broker.port;
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), port)).await;
    let mut host = Host::start(port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 50).await;
    let before = host.plant.historical;
    drop(broker);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let broker = Mosquitto::start_on(port);
    let mut host = Host::start(port, host.plant).await;
    host.until("the next session", |plant| plant.births >= 2).await;
    host.until("the outage as history", |plant| plant.historical > before + 50).await;
    host.until("everything", Plant::is_complete).await;
    assert_ne!(host.plant.bd_seqs.first(), host.plant.bd_seqs.last());
    agent.stop(&mut host).await;
    drop(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_host_pauses_everything() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), broker.port)).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 20).await;
    host.state(false).await;
    host.until("NDEATH", |plant| plant.log.last().is_some_and(|last| last.0 == MessageType::NDeath)).await;
    let log = host.plant.log.len();
    host.for_a_while(Duration::from_secs(2)).await;
    assert_eq!(host.plant.log.len(), log, "nothing while the host is offline");
    assert!(!agent.handle.status().session.is_online);
    host.state(true).await;
    host.until("the next session", |plant| plant.births == 2).await;
    host.until("everything", Plant::is_complete).await;
    agent.stop(&mut host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_comes_again_as_history() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), broker.port)).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 20).await;
    // The hub's disk forgot something that it had not yet receipted: it simply does not appear in receipts.
    host.plant.sends_receipts = false;
    let (epoch, end) = host.plant.ends.iter().next().map(|(epoch, (end, _))| (*epoch, *end)).unwrap();
    host.until("a few more", |plant| plant.ends[&epoch].0 > end + 20).await;
    let lost = end + 5..end + 10;
    host.plant.received.get_mut(&epoch).unwrap().remove(lost.clone());
    host.plant.sends_receipts = true;
    host.until("again", |plant| plant.received[&epoch].contains_range(&lost)).await;
    assert!(host.plant.historical >= 5);
    agent.stop(&mut host).await;
}

fn command(id: u8, value: f64, expires_in: Duration) -> (CommandHead, Value) {
    let now = Clock::machine().now();
    let expires_at = Timestamp(now.0 + i64::try_from(expires_in.as_micros()).unwrap());
    let head =
        CommandHead { id: CommandId([id; 16]), expires_at, author: "test".into(), reason: "why".into() };
    (head, Value::Double(value))
}

async fn send_command(host: &Host, metric: &str, (head, value): &(CommandHead, Value), retain: bool) {
    let mut payload = Vec::new();
    encode::command(Clock::machine().now(), metric, None, value, Some(head), &mut payload);
    let topic = Topic::device(MessageType::DCmd, &node(), "press").to_string();
    host.sender.publish(topic, QoS::AtMostOnce, retain, payload).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_executed_at_most_once_and_reported() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), broker.port);
    let agent = start_agent(&config).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 20).await;
    let long = Duration::from_secs(20);
    let first = command(1, 42.5, long);
    send_command(&host, "setpoint", &first, false).await;
    host.until("a report", |plant| plant.reports.len() == 1).await;
    let report = &host.plant.reports[0];
    assert_eq!(
        (&report.outcome, report.path.as_str(), report.read_back.as_str()),
        (&CommandOutcome::Done, "line/setpoint", "42.5")
    );
    host.until("the value", |plant| plant.last.get("line/setpoint") == Some(&Value::Double(42.5))).await;
    let refusals = [
        ("setpoint", command(2, 101.0, long), "refused: range: 101 is above 100"),
        ("wave", command(3, 1.0, long), "refused: the point is not writable"),
        ("nothing", command(4, 1.0, long), "refused: there is no such point"),
        (
            "setpoint",
            (command(5, 1.0, long).0, Value::Boolean(true)),
            "refused: type: the value is not one of the point's type",
        ),
        ("setpoint", command(6, 1.0, Duration::ZERO), "expired"),
        ("setpoint", command(8, 1.0, Duration::from_secs(3700)), "refused: expiry: more than an hour away"),
    ];
    for (nth, (metric, command, expected)) in refusals.iter().enumerate() {
        send_command(&host, metric, command, false).await;
        host.until(expected, |plant| plant.reports.len() == nth + 2).await;
        assert_eq!(host.plant.reports.last().unwrap().outcome.to_string(), *expected);
    }
    // The same command again, also after a restart, and one without an id: nothing is written, nothing reported.
    send_command(&host, "setpoint", &command(7, 50.0, long), false).await;
    host.until("a report", |plant| plant.reports.len() == 8).await;
    send_command(&host, "setpoint", &first, false).await;
    // Nor is anything written under an id that was refused, now that it would be right.
    send_command(&host, "setpoint", &command(2, 33.0, long), false).await;
    send_command(&host, "setpoint", &command(6, 34.0, long), false).await;
    host.for_a_while(Duration::from_millis(500)).await;
    assert_eq!((host.plant.reports.len(), &host.plant.last["line/setpoint"]), (8, &Value::Double(50.0)));
    agent.stop(&mut host).await;
    let agent = start_agent(&config).await;
    let births = host.plant.births;
    host.until("the next session", |plant| plant.births > births).await;
    host.for_a_while(Duration::from_millis(500)).await;
    send_command(&host, "setpoint", &first, false).await;
    send_command(&host, "setpoint", &command(6, 34.0, long), false).await;
    host.for_a_while(Duration::from_millis(500)).await;
    assert_eq!(host.plant.reports.len(), 8);
    assert_eq!(
        host.plant.last["line/setpoint"],
        Value::Double(20.0),
        "the simulated register after a restart"
    );
    assert!(agent.metrics.render().contains("outcome=\"repeated\"} 2"), "{}", agent.metrics.render());
    agent.stop(&mut host).await;
}

/// The points change between two starts while records of the old ones wait: one changed its type, one its path, one
/// device is gone. All of it arrives, under its own path and type, and the gone device is dead afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_keeps_its_history() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), broker.port);
    let agent = start_agent(&config).await; // no host: everything waits
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(agent.tasks.drain().await.is_graceful());
    drop(agent);
    let points = "name,address,type,path\n\
                  wave,\"sine(period=2s, amplitude=5)\",i32,line/wave\n\
                  count,counter(),i64,line/renamed\n";
    std::fs::write(dir.path().join("press.csv"), points).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let pump = text.find("[[edge.devices]]\nname = \"pump\"").unwrap();
    std::fs::write(&config, &text[..pump]).unwrap();
    let agent = start_agent(&config).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("everything", |plant| plant.live > 20 && plant.historical > 20 && plant.is_complete()).await;
    for path in ["line/wave", "line/count", "line/renamed", "line/setpoint", "pump/speed"] {
        assert!(host.plant.last.contains_key(path), "{path}: {:?}", host.plant.last.keys());
    }
    host.until("the gone device is dead", |plant| !plant.devices.contains_key("pump")).await;
    let pump: Vec<_> =
        host.plant.log.iter().filter(|(_, device)| device.as_deref() == Some("pump")).collect();
    assert_eq!(pump.first().unwrap().0, MessageType::DBirth);
    assert_eq!(pump.last().unwrap().0, MessageType::DDeath);
    host.until("only the present epoch is left", |_| agent.handle.status().backlog < 20).await;
    agent.stop(&mut host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_cannot_be_true_are_refused() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), broker.port)).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 20).await;
    let (epoch, _) = host.plant.ends.iter().next().map(|(epoch, end)| (*epoch, *end)).unwrap();
    let bad = [
        Receipt { durable: vec![(Epoch(77), RangeSet::of(0..1))], ..Receipt::default() }.encode(),
        Receipt { durable: vec![(epoch, RangeSet::of(0..1 << 40))], ..Receipt::default() }.encode(),
        b"garbage \xff\xff\xff".to_vec(),
    ];
    for bytes in bad {
        host.node_command(RECEIPT_METRIC, &Value::Bytes(bytes)).await;
    }
    for (kind, device) in
        [(MessageType::NCmd, None), (MessageType::DCmd, Some("press")), (MessageType::DCmd, Some("x"))]
    {
        let topic = match device {
            Some(device) => Topic::device(kind, &node(), device).to_string(),
            None => Topic::node(kind, &node()).to_string(),
        };
        for garbage in [&b""[..], b"\xff\xff\xff\xff", b"\x12\xff\xff\xff\x7f", &[0x0a; 2000]] {
            host.sender.publish(topic.clone(), QoS::AtMostOnce, false, garbage.to_vec()).await.unwrap();
        }
    }
    let until = Instant::now() + Duration::from_secs(5);
    while agent.handle.status().session.receipts_refused < 3 {
        assert!(Instant::now() < until, "{:?}", agent.handle.status());
        host.for_a_while(Duration::from_millis(50)).await;
    }
    host.until("all goes on", |plant| plant.live > 100 && plant.is_complete()).await;
    agent.stop(&mut host).await;
}

/// A link that can be frozen: connections stay open, nothing goes through.
struct Link {
    port: u16,
    frozen: Arc<AtomicBool>,
    /// While set, nothing is read: what is sent waits, as on a slow line.
    stalled: Arc<AtomicBool>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Link {
    async fn to(broker: u16) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap(); // a slow line is felt soon
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let port = listener.local_addr().unwrap().port();
        let frozen = Arc::new(AtomicBool::new(false));
        let stalled = Arc::new(AtomicBool::new(false));
        let (flag, stall) = (frozen.clone(), stalled.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut pumps = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                if flag.load(Ordering::Relaxed) {
                    std::mem::forget(near); // accepted by the kernel, never served
                    continue;
                }
                let far = tokio::net::TcpStream::connect(("127.0.0.1", broker)).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                pumps.spawn(pump(near_in, far_out, flag.clone(), stall.clone()));
                pumps.spawn(pump(far_in, near_out, flag.clone(), stall.clone()));
            }
        });
        Link { port, frozen, stalled, _tasks: tasks }
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    frozen: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 16 * 1024];
    let mut was_frozen = false;
    loop {
        while stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        was_frozen |= frozen.load(Ordering::Relaxed);
        if was_frozen {
            continue; // this connection is dead for good, and nobody is told
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_is_noticed_and_nothing_is_lost() {
    let broker = Mosquitto::start();
    let link = Link::to(broker.port).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), link.port)).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 50).await;
    link.frozen.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.frozen.store(false, Ordering::Relaxed); // new connections work; the old one looks alive
    let begun = Instant::now();
    host.plant.seq = None; // the broker takes the session over: NDEATH of the old, then births of the new
    host.until_within(Duration::from_secs(18), "the next session", |plant| plant.births == 2).await;
    assert!(
        begun.elapsed() < Duration::from_secs(17),
        "15 s without a receipt or a byte: {:?}",
        begun.elapsed()
    );
    host.until("everything", Plant::is_complete).await;
    agent.stop(&mut host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_jumps_over_a_backlog_and_the_rest_follows_as_history() {
    let broker = Mosquitto::start();
    let link = Link::to(broker.port).await;
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), link.port);
    // Large texts fill every socket buffer on the way, so that the agent feels the slow line.
    let text = "x".repeat(200_000);
    let list = format!("name,address,type\ntext,\"register(initial={text})\",string\n");
    std::fs::write(dir.path().join("pump.csv"), list).unwrap();
    let agent = start_agent(&config).await;
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    host.until("live records", |plant| plant.live > 20).await;
    link.stalled.store(true, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        host.for_a_while(Duration::from_millis(100)).await;
    }
    link.stalled.store(false, Ordering::Relaxed);
    let historical = host.plant.historical;
    host.until("the skipped range", |plant| plant.historical > historical && plant.is_complete()).await;
    let metrics = agent.metrics.render();
    assert!(!metrics.contains("forebay_edge_live_jumps_total{agent=\"antwerp/line-3\"} 0"), "{metrics}");
    agent.stop(&mut host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_given_everything_once_and_told_apart() {
    let broker = Mosquitto::start();
    let port = broker.port;
    let dir = tempfile::tempdir().unwrap();
    let agent = start_agent(&write_config(dir.path(), port)).await;
    let mut host = Host::start(port, Plant::default()).await; // it sends no receipts
    host.until("live records", |plant| plant.live > 20).await;
    host.for_a_while(Duration::from_secs(7)).await;
    assert_eq!(host.plant.repeated, 0, "nothing is sent again while the session stands");
    let records = host.plant.live;
    drop(broker);
    let _broker = Mosquitto::start_on(port);
    let mut host = Host::start(port, host.plant).await;
    host.until("the next session", |plant| plant.births == 2).await;
    host.until("everything", Plant::is_complete).await;
    let repeated = host.plant.repeated;
    assert!(repeated < records, "only what may have been on its way comes twice: {repeated} of {records}");
    assert!(agent.handle.status().session.promise != edge_agent::health::Promise::Receipts);
    agent.stop(&mut host).await;
}

/// Not a test of its own: the process that [`a_killed_agent_loses_nothing`] kills.
#[test]
fn agent_process() {
    let Ok(config) = std::env::var("FOREBAY_TEST_AGENT") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _agent = start_agent(Path::new(&config)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
}

struct AgentProcess(Child);

impl AgentProcess {
    fn start(config: &Path) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent_process", "--nocapture"])
            .env("FOREBAY_TEST_AGENT", config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        AgentProcess(process)
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_nothing() {
    let broker = Mosquitto::start();
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), broker.port);
    let mut host = Host::start(broker.port, Plant::with_receipts()).await;
    for round in 0..6_u64 {
        let process = AgentProcess::start(&config);
        let births = host.plant.births;
        host.until("a birth", |plant| plant.births > births).await;
        host.for_a_while(Duration::from_millis(100 + 90 * round)).await;
        drop(process); // SIGKILL
    }
    let process = AgentProcess::start(&config);
    let births = host.plant.births;
    host.until("the last birth", |plant| plant.births > births).await;
    assert!(host.plant.ends.len() >= 3, "epochs of several starts");
    host.until("everything of every epoch", Plant::is_complete).await;
    let Some(Value::Int64(count)) = host.plant.last.get("line/count") else { panic!() };
    assert!(*count > 0, "the counter goes on from its durable position");
    drop(process);
}
