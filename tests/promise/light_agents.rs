//! A thousand agents in one process: each speaks the agent's protocol (docs/specs/receipts.md) over a socket of its own,
//! with login, births, identities, running accounts, seals, history and receipts. What is light is its disk: none.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, RangeSet, RecordId,
    Sample, SampleBatch, Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::seal::{self, Seal};
use proto::sparkplug::encode::{self, BirthMetric};
use proto::sparkplug::{BirthHead, EpochAccount, MessageType, PayloadView, RecordHead, StatePayload, Topic};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Points of each, all counters that show the record's number.
pub(crate) const POINTS: u32 = 3;
/// One record per agent in this time.
const EVERY: Duration = Duration::from_secs(1);
/// As the real agent waits between two sessions.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How far one agent is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Records accepted, and those of them that receipts cover.
    pub(crate) accepted: AtomicU64,
    pub(crate) covered: AtomicU64,
    /// Sessions in which births were sent.
    pub(crate) sessions: AtomicU64,
}

/// All of them, on threads of their own until dropped.
pub(crate) struct LightAgents {
    pub(crate) progress: Arc<Vec<Progress>>,
    is_over: Arc<AtomicBool>,
    accepts: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Why connections ended, the newest few.
    pub(crate) why: Arc<Mutex<Vec<String>>>,
}

impl LightAgents {
    /// Agents `plant/l0` … , each with the password that [`crate::light_agents::password`] names.
    pub(crate) fn start(count: usize, broker: SocketAddr) -> LightAgents {
        let progress: Arc<Vec<Progress>> = Arc::new((0..count).map(|_| Progress::default()).collect());
        let (is_over, accepts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let why = Arc::<Mutex<Vec<String>>>::default();
        let (theirs, over, accepting, reasons) =
            (Arc::clone(&progress), Arc::clone(&is_over), Arc::clone(&accepts), Arc::clone(&why));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut agents = JoinSet::new();
                for number in 0..count {
                    let agent = Agent::new(number, theirs.clone(), accepting.clone(), reasons.clone());
                    agents.spawn(agent.run(broker));
                }
                while !over.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(50)).await;
                }
            });
        });
        LightAgents { progress, is_over, accepts, thread: Some(thread), why }
    }

    /// No more records are accepted; what is there is delivered.
    pub(crate) fn stop_accepting(&self) {
        self.accepts.store(false, Ordering::SeqCst);
    }

    /// Agents whose every accepted record a receipt covers, and that are in a session later than their `session`-th.
    pub(crate) fn settled(&self, session: u64) -> usize {
        let settled = |agent: &&Progress| {
            let accepted = agent.accepted.load(Ordering::SeqCst);
            // The record of this moment is on its way.
            agent.sessions.load(Ordering::SeqCst) > session
                && agent.covered.load(Ordering::SeqCst) + 1 >= accepted
        };
        self.progress.iter().filter(settled).count()
    }
}

impl Drop for LightAgents {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Of agent `l{number}`.
pub(crate) fn password(number: usize) -> String {
    format!("secret of l{number}")
}

struct Agent {
    number: usize,
    node: NodeId,
    epoch: Epoch,
    points: Vec<PointDefinition>,
    hashes: Vec<u64>,
    /// When each record was accepted, and the running account after it.
    records: Vec<(Timestamp, Account)>,
    covered: RangeSet,
    begun: Instant,
    progress: Arc<Vec<Progress>>,
    accepts: Arc<AtomicBool>,
    why: Arc<Mutex<Vec<String>>>,
    bd_seq: u8,
    seq: u8,
}

type Broken = String;

impl Agent {
    fn new(
        number: usize,
        progress: Arc<Vec<Progress>>,
        accepts: Arc<AtomicBool>,
        why: Arc<Mutex<Vec<String>>>,
    ) -> Agent {
        let point = |point: u32| PointDefinition {
            device: Some("dev".into()),
            ..PointDefinition::new(
                PointPath::new(&format!("line/l{number}/p{point}")).unwrap(),
                format!("p{point}"),
                DataType::UInt32,
            )
        };
        let points: Vec<PointDefinition> = (0..POINTS).map(point).collect();
        let bits = Clock::machine().now().0.unsigned_abs() ^ (number as u64) << 48;
        Agent {
            number,
            node: NodeId::new("plant", &format!("l{number}")).unwrap(),
            epoch: Epoch::from_random(bits).unwrap(),
            hashes: points.iter().map(|point| path_hash(point.path.as_str())).collect(),
            points,
            records: Vec::new(),
            covered: RangeSet::new(),
            begun: Instant::now(),
            progress,
            accepts,
            why,
            bd_seq: 0,
            seq: 0,
        }
    }

    async fn run(mut self, broker: SocketAddr) {
        sleep(Duration::from_millis(u64::try_from(self.number).unwrap() % 1000)).await;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            self.bd_seq = self.bd_seq.wrapping_add(1);
            let begun = Instant::now();
            if let Err(why) = self.session(broker).await {
                let mut reasons = self.why.lock().unwrap_or_else(PoisonError::into_inner);
                reasons.push(why);
                let surplus = reasons.len().saturating_sub(20);
                reasons.drain(..surplus);
            }
            if begun.elapsed() > Duration::from_secs(20) {
                backoff.reset();
            }
            sleep(backoff.wait()).await;
        }
    }

    /// Accepts what is due by now.
    fn accept(&mut self) {
        while self.accepts.load(Ordering::SeqCst)
            && self.begun.elapsed() >= EVERY * u32::try_from(self.records.len()).unwrap()
        {
            let (offset, time) = (self.records.len() as u64, Clock::machine().now());
            let mut account = self.records.last().map(|(_, account)| *account).unwrap_or_default();
            for ((sample, hash), index) in samples(offset, time).iter().zip(&self.hashes).zip(0..) {
                let value = sample.value.as_ref();
                account.add(sample_hash(Offset(offset), index, *hash, time, value, sample.quality));
            }
            self.records.push((time, account));
            self.progress[self.number].accepted.store(self.records.len() as u64, Ordering::SeqCst);
        }
    }

    async fn session(&mut self, broker: SocketAddr) -> Result<(), Broken> {
        let text = |error: std::io::Error| error.to_string();
        let socket = timeout(Duration::from_secs(10), TcpStream::connect(broker)).await;
        let mut socket = socket.map_err(|_| "no connection in time".to_owned())?.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let mut received = Vec::new();
        socket.write_all(&self.connect()).await.map_err(text)?;
        let connack = self.packet(&mut socket, &mut received, Duration::from_secs(15)).await?;
        if connack.as_ref().is_none_or(|packet| packet.kind != 2 || packet.body.get(1) != Some(&0)) {
            return Err(format!("refused: {connack:?}"));
        }
        let host = Topic::State { host: "forebay".into() }.to_string();
        let orders = Topic::node(MessageType::NCmd, &self.node).to_string();
        socket.write_all(&subscribe(&[&orders, &host])).await.map_err(text)?;
        let (mut online, mut born, mut live_at, mut asked) = (false, false, 0_u64, false);
        let (mut spoken, mut receipt_at, mut sent_at) = (Instant::now(), Instant::now(), Instant::now());
        let mut has_receipt = false;
        loop {
            self.accept();
            if online && (!born || asked) {
                let births = self.births();
                socket.write_all(&births).await.map_err(text)?;
                if !born {
                    live_at = self.records.len() as u64;
                    self.progress[self.number].sessions.fetch_add(1, Ordering::SeqCst);
                }
                (born, asked, spoken) = (true, false, Instant::now());
            }
            let end = self.records.len() as u64;
            let mut out = Vec::new();
            if born && live_at < end {
                (live_at..end).for_each(|offset| self.data(offset, false, &mut out));
                live_at = end;
            }
            // History, when the first receipt has said what the hub holds; again after 5 s without one that covers it.
            if has_receipt && sent_at.elapsed() >= Duration::from_secs(5) || receipt_at == sent_at {
                for range in self.covered.missing(0..live_at) {
                    range.take(500).for_each(|offset| self.data(offset, true, &mut out));
                }
                sent_at = Instant::now();
            }
            if spoken.elapsed() > Duration::from_secs(8) {
                out.extend([0xc0, 0]);
            }
            if !out.is_empty() {
                socket.write_all(&out).await.map_err(text)?;
                spoken = Instant::now();
            }
            let Some(packet) = self.packet(&mut socket, &mut received, Duration::from_millis(100)).await?
            else {
                if born
                    && receipt_at.elapsed() > Duration::from_secs(15)
                    && spoken.elapsed() > Duration::from_secs(15)
                {
                    return Err("no receipt".into());
                }
                continue;
            };
            let Some((topic, payload)) = packet.publish() else { continue };
            match Topic::parse(topic) {
                Some(Topic::State { .. }) => {
                    online = StatePayload::decode(payload).is_some_and(|state| state.online);
                }
                Some(Topic::Node { .. }) => match self.order(topic, payload)? {
                    Order::Rebirth => asked = true,
                    Order::Receipt => {
                        receipt_at = Instant::now();
                        if !std::mem::replace(&mut has_receipt, true) {
                            sent_at = receipt_at; // history begins
                        }
                    }
                },
                None => {}
            }
        }
    }

    fn order(&mut self, topic: &str, payload: &[u8]) -> Result<Order, Broken> {
        assert_eq!(seal::check(topic, payload), Seal::Whole, "the hub seals");
        let view = PayloadView::decode(payload).map_err(|error| error.to_string())?;
        let metric = view.metrics.first().ok_or("no metric")?;
        if metric.name != Some(RECEIPT_METRIC) {
            return Ok(Order::Rebirth);
        }
        let Some(Value::Bytes(bytes)) = metric.value.to_value(DataType::Bytes, 0) else {
            return Err("no bytes".into());
        };
        let receipt = Receipt::decode(&bytes).map_err(|error| error.to_string())?;
        for (epoch, ranges) in &receipt.durable {
            assert_eq!(*epoch, self.epoch, "a receipt of another's epoch");
            assert!(ranges.end() <= self.records.len() as u64, "a receipt beyond what was accepted");
            self.covered.extend(ranges);
        }
        let covered: u64 = self.covered.iter().map(|range| range.end - range.start).sum();
        self.progress[self.number].covered.store(covered, Ordering::SeqCst);
        Ok(Order::Receipt)
    }

    fn topic(&self, kind: MessageType) -> String {
        match kind {
            MessageType::DBirth | MessageType::DData => Topic::device(kind, &self.node, "dev").to_string(),
            _ => Topic::node(kind, &self.node).to_string(),
        }
    }

    fn connect(&self) -> Vec<u8> {
        let mut death = Vec::new();
        encode::node_death(self.bd_seq, Clock::machine().now(), &mut death);
        let will = self.topic(MessageType::NDeath);
        seal::put(&will, &mut death);
        let mut body = vec![0, 4];
        body.extend(b"MQTT");
        body.extend([4, 0b1100_1110, 0, 10]); // login, will with QoS 1, clean; keep-alive 10 s
        let name = format!("l{}", self.number);
        let secret = password(self.number);
        for part in [name.as_bytes(), will.as_bytes(), &death, name.as_bytes(), secret.as_bytes()] {
            body.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            body.extend(part);
        }
        packet(0x10, &body)
    }

    fn births(&mut self) -> Vec<u8> {
        let now = Clock::machine().now();
        let (bd_seq, no) = (Value::Int64(i64::from(self.bd_seq)), Value::Boolean(false));
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
            plain("bdSeq", DataType::Int64, Some(&bd_seq)),
            plain("Node Control/Rebirth", DataType::Boolean, Some(&no)),
            plain(RECEIPT_METRIC, DataType::Bytes, None),
        ];
        let total = self.records.last().map(|(_, account)| *account).unwrap_or_default();
        let end = self.records.len() as u64;
        let epoch = EpochAccount { epoch: self.epoch, first_held: 0, end, before: Account::default(), total };
        let head =
            BirthHead { epochs: vec![epoch], agent_time: now, version: "light".into(), outbox_used: None };
        let (mut nbirth, mut dbirth) = (Vec::new(), Vec::new());
        encode::birth(0, now, &node, Some(&head), &mut nbirth);
        let metrics: Vec<BirthMetric<'_>> = self
            .points
            .iter()
            .zip(0..)
            .map(|(point, alias)| BirthMetric {
                alias: Some(alias),
                definition: Some(point),
                ..plain(&point.metric, DataType::UInt32, None)
            })
            .collect();
        encode::birth(1, now, &metrics, None, &mut dbirth);
        self.seq = 1;
        let mut out = Vec::new();
        publish(&self.topic(MessageType::NBirth), nbirth, &mut out);
        publish(&self.topic(MessageType::DBirth), dbirth, &mut out);
        out
    }

    fn data(&mut self, offset: u64, is_historical: bool, out: &mut Vec<u8>) {
        let (accepted_at, account) = self.records[usize::try_from(offset).unwrap()];
        let id = RecordId { epoch: self.epoch, offset: Offset(offset) };
        let samples = samples(offset, accepted_at);
        let batch = SampleBatch { id, accepted_at, is_historical, samples };
        let head = RecordHead {
            id,
            first_held: 0,
            accepted_end: self.records.len() as u64,
            accepted_at,
            account: Some(account),
            counts: None,
        };
        self.seq = self.seq.wrapping_add(1);
        let (mut payload, alias) = (Vec::new(), |point: PointId| u64::from(point.0));
        let now = Clock::machine().now();
        encode::data(self.seq, now, &batch, &head, is_historical, &|_| false, &alias, &mut payload);
        publish(&self.topic(MessageType::DData), payload, out);
    }

    /// The next packet; `None` if there is none in time.
    async fn packet(
        &self,
        socket: &mut TcpStream,
        received: &mut Vec<u8>,
        within: Duration,
    ) -> Result<Option<Packet>, Broken> {
        let until = Instant::now() + within;
        loop {
            if let Some(packet) = take_packet(received) {
                return Ok(Some(packet));
            }
            match tokio::time::timeout_at(until, socket.read_buf(received)).await {
                Err(_) => return Ok(None),
                Ok(Ok(0)) => return Err("closed by the broker".into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}

enum Order {
    Rebirth,
    Receipt,
}

fn samples(offset: u64, time: Timestamp) -> Vec<Sample> {
    let value = Some(Value::UInt32(u32::try_from(offset).unwrap()));
    let sample = |point| Sample { point: PointId(point), time, value: value.clone(), quality: Quality::GOOD };
    (0..POINTS).map(sample).collect()
}

#[derive(Debug)]
struct Packet {
    kind: u8,
    body: Vec<u8>,
}

impl Packet {
    /// Topic and payload of a PUBLISH with QoS 0.
    fn publish(&self) -> Option<(&str, &[u8])> {
        let (length, rest) = self.body.split_first_chunk::<2>().filter(|_| self.kind == 3)?;
        let (topic, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some((std::str::from_utf8(topic).ok()?, payload))
    }
}

fn take_packet(received: &mut Vec<u8>) -> Option<Packet> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *received.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte < 0x80 {
            break;
        }
    }
    let body = received.get(at..at + length)?.to_vec();
    let kind = received[0] >> 4;
    received.drain(..at + length);
    Some(Packet { kind, body })
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (vec![first], body.len());
    loop {
        let more = left > 0x7f;
        out.push(u8::try_from(left & 0x7f).unwrap() | if more { 0x80 } else { 0 });
        left >>= 7;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

fn publish(topic: &str, mut payload: Vec<u8>, out: &mut Vec<u8>) {
    seal::put(topic, &mut payload);
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend(payload);
    out.extend(packet(0x30, &body));
}

fn subscribe(filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        body.extend(filter.as_bytes());
        body.push(0);
    }
    packet(0x82, &body)
}
