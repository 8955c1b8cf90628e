//! The network with its MQTT broker: bytes between agents and broker, messages between broker and hub.
//!
//! ```text
//! agent's MQTT client ──duplex──► serve() ──► route() ──[delay, twice, lost]──► hub's inbox
//!                     ◄────────── one task per connection ◄── HubSide::publish ◄── hub
//! ```
//! The broker speaks MQTT 3.1.1 for as much of it as agents use. It is the hub's own (and dies with it) or stands alone.
//! A link may be cut, or stand half open: nothing comes and nothing goes, and nobody is told. Order is kept per topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use durable_log::Fuse;
use hub::broker::{Broker, BrokerError, BrokerEvent, Inbox, Incoming, Insight, Interest, QoS, View, matches};
use proto::mqtt::{self, Packet, Version, encode};
use proto::sparkplug::{MessageType, StatePayload, Topic};
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::world::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use crate::dice::Dice;
use crate::plan::Plan;
use crate::shadow::Shadow;

/// The host's name in STATE.
pub(crate) const HOST_ID: &str = "forebay";
const PACKET_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A broker gives up a silent connection after 1.5 × the keep-alive of 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The network. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    queued: Notify,
    tasks: Tasks,
    shadow: Shadow,
}

struct State {
    dice: Dice,
    delayed: u64,
    twice: u64,
    lost: u64,
    /// The broker answers.
    is_up: bool,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    hub: Option<HubLink>,
    /// Retained STATE.
    retained: Option<Vec<u8>>,
    /// Power of the agents, by client id.
    power: BTreeMap<String, Fuse>,
    /// Messages that take their time, in the order of arrival.
    slow: BTreeMap<(Instant, u64), Incoming>,
    /// When the last slow message of a topic arrives.
    busy: BTreeMap<Arc<str>, Instant>,
    sent: u64,
}

#[derive(Clone)]
struct HubLink {
    inbox: Inbox,
    events: mpsc::Sender<BrokerEvent>,
    power: Fuse,
}

struct Connection {
    client: String,
    /// Whether NBIRTH was said, and the devices whose DBIRTH was.
    births: Option<BTreeSet<String>>,
    filters: Vec<String>,
    out: mpsc::Sender<(String, Vec<u8>, bool)>,
    cut: CancellationToken,
    half_open: CancellationToken,
}

impl Net {
    pub(crate) fn new(plan: &Plan, dice: Dice, tasks: &Tasks, shadow: Shadow) -> Self {
        let state = State {
            dice,
            delayed: plan.delayed,
            twice: plan.delivered_twice,
            lost: plan.message_lost,
            is_up: plan.outside_broker,
            connections: BTreeMap::new(),
            next: 0,
            hub: None,
            retained: None,
            power: BTreeMap::new(),
            slow: BTreeMap::new(),
            busy: BTreeMap::new(),
            sent: 0,
        };
        let shared = Shared { state: Mutex::new(state), queued: Notify::new(), tasks: tasks.clone(), shadow };
        let net = Net(Arc::new(shared));
        let slow = net.clone();
        tasks.spawn(TaskKind::Server, "slow messages", async move {
            slow.deliver_slow().await;
            Ok::<_, Infallible>(())
        });
        net
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is lost, late or doubled.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.delayed, state.twice, state.lost) = (0, 0, 0);
    }

    /// The power of an agent that is about to start.
    pub(crate) fn powered(&self, client: &str, power: &Fuse) {
        self.state().power.insert(client.to_owned(), power.clone());
    }

    /// An agent connects.
    pub(crate) fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let mut state = self.state();
        if !state.is_up {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let number = state.next;
        state.next += 1;
        let (out, outgoing) = mpsc::channel(1024);
        let (cut, half_open) = (CancellationToken::new(), CancellationToken::new());
        let connection = Connection {
            client: String::new(),
            births: None,
            filters: Vec::new(),
            out,
            cut: cut.clone(),
            half_open: half_open.clone(),
        };
        state.connections.insert(number, connection);
        let net = self.clone();
        self.0.tasks.spawn(TaskKind::Server, "connection", async move {
            let will = serve(&net, number, ours, outgoing, cut, half_open).await;
            net.state().connections.remove(&number);
            if let Some((topic, payload)) = will {
                net.route(topic, payload).await;
            }
            Ok::<_, Infallible>(())
        });
        Ok(Box::new(theirs))
    }

    /// The hub's process is there; its own broker with it.
    pub(crate) fn hub_is_up(
        &self,
        inbox: Inbox,
        events: mpsc::Sender<BrokerEvent>,
        power: &Fuse,
        now_ms: u64,
    ) {
        let mut state = self.state();
        state.is_up = true;
        state.retained = Some(StatePayload { online: true, timestamp: now_ms }.encode().into_bytes());
        events.try_send(BrokerEvent::Connected).ok(); // just made: it has room
        state.hub = Some(HubLink { inbox, events, power: power.clone() });
        state.tell_state();
    }

    /// The hub's process is gone. A broker that stands alone publishes its will.
    pub(crate) fn hub_is_gone(&self, outside: bool, now_ms: u64) {
        let mut state = self.state();
        state.hub = None;
        state.slow.clear();
        if outside {
            state.retained = Some(StatePayload { online: false, timestamp: now_ms }.encode().into_bytes());
            state.tell_state();
        } else {
            state.is_up = false;
            state.cut_all();
        }
    }

    /// A broker that stands alone goes away, and with it what it retained.
    pub(crate) fn broker_goes(&self) {
        let mut state = self.state();
        state.is_up = false;
        state.retained = None;
        state.slow.clear();
        state.cut_all();
        if let Some(hub) = &state.hub {
            hub.events.try_send(BrokerEvent::Disconnected("restarted".into())).ok();
        }
    }

    /// ... and is back.
    pub(crate) fn broker_comes(&self, now_ms: u64) {
        let mut state = self.state();
        state.is_up = true;
        if let Some(hub) = state.hub.clone() {
            state.retained = Some(StatePayload { online: true, timestamp: now_ms }.encode().into_bytes());
            hub.events.try_send(BrokerEvent::Connected).ok();
        }
    }

    pub(crate) fn cut_one(&self) {
        let mut state = self.state();
        if let Some(connection) = state.any_connection() {
            connection.cut.cancel();
        }
    }

    pub(crate) fn half_open_one(&self) {
        let mut state = self.state();
        if let Some(connection) = state.any_connection() {
            connection.half_open.cancel();
        }
    }

    /// A message for the hub.
    async fn route(&self, topic: String, payload: Vec<u8>) {
        let mut copies = Vec::with_capacity(2);
        {
            let mut state = self.state();
            let lost = state.lost;
            if state.hub.is_none() || state.dice.one_in(lost) {
                return;
            }
            let message = Incoming { topic: topic.into(), payload: Bytes::from(payload), retain: false };
            let twice = state.twice;
            if state.dice.one_in(twice) {
                state.delay(message.clone());
            }
            let delayed = state.delayed;
            if state.busy.contains_key(&message.topic) || state.dice.one_in(delayed) {
                state.delay(message);
                self.0.queued.notify_one();
            } else {
                copies.push(message);
            }
        }
        self.0.queued.notify_one();
        for message in copies {
            self.give(message).await;
        }
    }

    async fn give(&self, message: Incoming) {
        let hub = self.state().hub.clone();
        if let Some(hub) = hub.filter(|hub| !hub.power.is_blown()) {
            hub.inbox.push(message).await.ok(); // the hub is ending
        }
    }

    async fn deliver_slow(&self) {
        loop {
            let next = self.state().slow.keys().next().copied();
            match next {
                None => self.0.queued.notified().await,
                Some((at, _)) if at > Instant::now() => {
                    tokio::select! {
                        biased;
                        () = sleep_until(at) => {}
                        () = self.0.queued.notified() => {}
                    }
                }
                Some(key) => {
                    let message = {
                        let mut state = self.state();
                        let message = state.slow.remove(&key);
                        if let Some(message) = &message
                            && !state.slow.values().any(|other| other.topic == message.topic)
                        {
                            state.busy.remove(&message.topic);
                        }
                        message
                    };
                    if let Some(message) = message {
                        self.give(message).await;
                    }
                }
            }
        }
    }
}

impl Connection {
    /// Sparkplug 3.0 §6.4: NBIRTH first, a device's data after its DBIRTH. What is wrong with this message.
    fn out_of_order(&mut self, topic: &str) -> Option<String> {
        let Some(Topic::Node { kind, device, .. }) = Topic::parse(topic) else { return None };
        match (kind, device, &mut self.births) {
            (MessageType::NBirth, ..) => {
                self.births = Some(BTreeSet::new());
                None
            }
            (MessageType::NDeath, ..) => None,
            (kind, _, None) => Some(format!("begins its session with {kind:?}")),
            (MessageType::DBirth, Some(device), Some(born)) => {
                born.insert(device);
                None
            }
            (MessageType::DDeath, Some(device), Some(born)) => {
                born.remove(&device);
                None
            }
            (MessageType::DData, Some(device), Some(born)) if !born.contains(&device) => {
                Some(format!("sends DDATA of {device}, which is not born"))
            }
            _ => None,
        }
    }
}

impl State {
    /// Puts a message among the slow ones, behind those of its topic.
    fn delay(&mut self, message: Incoming) {
        let at = Instant::now() + self.dice.millis(1, 2500);
        let at = self.busy.get(&message.topic).map_or(at, |last| at.max(*last));
        self.busy.insert(message.topic.clone(), at);
        self.sent += 1;
        self.slow.insert((at, self.sent), message);
    }

    fn any_connection(&mut self) -> Option<&Connection> {
        let nth = usize::try_from(self.dice.below(self.connections.len() as u64)).unwrap_or(0);
        self.connections.values().nth(nth)
    }

    fn cut_all(&mut self) {
        self.connections.values().for_each(|connection| connection.cut.cancel());
    }

    fn tell_state(&self) {
        let Some(payload) = &self.retained else { return };
        self.send(&state_topic(), payload, false);
    }

    /// To whoever subscribed.
    fn send(&self, topic: &str, payload: &[u8], retain: bool) {
        for connection in self.connections.values() {
            if connection.filters.iter().any(|filter| matches(filter, topic)) {
                // A full queue drops, as brokers do with QoS 0.
                connection.out.try_send((topic.to_owned(), payload.to_vec(), retain)).ok();
            }
        }
    }
}

fn state_topic() -> String {
    format!("spBv1.0/STATE/{HOST_ID}")
}

type Will = Option<(String, Vec<u8>)>;

/// One connection; returns the will that is now to be published.
async fn serve(
    net: &Net,
    number: u64,
    mut stream: DuplexStream,
    mut outgoing: mpsc::Receiver<(String, Vec<u8>, bool)>,
    cut: CancellationToken,
    half_open: CancellationToken,
) -> Will {
    let mut buffer = BytesMut::new();
    let mut will = None;
    let mut answer = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = cut.cancelled() => return will,
            () = half_open.cancelled() => {
                // Nobody is told; the socket stays, and what is in it is never read.
                tokio::select! {
                    biased;
                    () = cut.cancelled() => {}
                    () = sleep(SILENCE_MAX) => {}
                }
                return will;
            }
            Some((topic, payload, retain)) = outgoing.recv() => {
                let message =
                    encode::PublishOut { topic: &topic, payload: &payload, retain, ..Default::default() };
                answer.clear();
                encode::publish(&mut answer, Version::V311, &message);
            }
            read = stream.read_buf(&mut buffer) => {
                if !read.is_ok_and(|bytes| bytes > 0) {
                    return will;
                }
                answer.clear();
                match net.take(number, &mut buffer, &mut answer, &mut will) {
                    Some(messages) => {
                        for (topic, payload) in messages {
                            net.route(topic, payload).await;
                        }
                    }
                    None => return will, // DISCONNECT took the will along
                }
            }
        }
        let written = tokio::select! {
            biased;
            () = cut.cancelled() => return will,
            written = stream.write_all(&answer) => written,
        };
        if written.is_err() {
            return will;
        }
        answer.clear();
    }
}

impl Net {
    /// Takes the packets that are whole; `None` when the client says goodbye or is none.
    fn take(
        &self,
        number: u64,
        buffer: &mut BytesMut,
        answer: &mut Vec<u8>,
        will: &mut Will,
    ) -> Option<VecDeque<(String, Vec<u8>)>> {
        let mut messages = VecDeque::new();
        while let Some(frame) = mqtt::frame(buffer, PACKET_BYTES_MAX).ok()? {
            let total = frame.total;
            let mut state = self.state();
            let client = state.connections.get(&number)?.client.clone();
            if state.power.get(&client).is_some_and(Fuse::is_blown) {
                return Some(VecDeque::new()); // a machine without power says nothing
            }
            match mqtt::decode(frame, Version::V311).ok()? {
                Packet::Connect(connect) => {
                    state.connections.get_mut(&number)?.client = connect.client_id.to_owned();
                    *will = connect.will.map(|will| (will.topic.to_owned(), will.payload.to_vec()));
                    encode::connack(answer, Version::V311, &encode::ConnAckOut::default());
                }
                Packet::Subscribe(subscribe) => {
                    let filters: Vec<String> =
                        subscribe.filters().map(|wanted| wanted.filter.to_owned()).collect();
                    encode::suback(answer, Version::V311, subscribe.packet_id, &vec![0; filters.len()]);
                    let wants_state = filters.iter().any(|filter| matches(filter, &state_topic()));
                    state.connections.get_mut(&number)?.filters.extend(filters);
                    if let Some(payload) = state.retained.as_ref().filter(|_| wants_state) {
                        let topic = state_topic();
                        let message =
                            encode::PublishOut { topic: &topic, payload, retain: true, ..Default::default() };
                        encode::publish(answer, Version::V311, &message);
                    }
                }
                Packet::Publish(publish) => {
                    if publish.qos == mqtt::QoS::AtLeastOnce {
                        encode::ack(answer, Version::V311, encode::AckKind::PubAck, publish.packet_id, 0);
                    }
                    if let Some(why) = state.connections.get_mut(&number)?.out_of_order(publish.topic) {
                        let client = state.connections.get(&number)?.client.clone();
                        self.0.shadow.broken(|| format!("S11: {client} {why}"));
                    }
                    messages.push_back((publish.topic.to_owned(), publish.payload.to_vec()));
                }
                Packet::PingReq => encode::pingresp(answer),
                Packet::Disconnect(_) => {
                    *will = None;
                    // What it said before is still said.
                    drop(state);
                    let net = self.clone();
                    self.0.tasks.spawn(TaskKind::Server, "last words", async move {
                        for (topic, payload) in messages {
                            net.route(topic, payload).await;
                        }
                        Ok::<_, Infallible>(())
                    });
                    return None;
                }
                _ => return None,
            }
            drop(state);
            drop(buffer.split_to(total));
        }
        Some(messages)
    }
}

/// The broker as the hub's process sees it.
pub(crate) struct HubSide {
    net: Net,
    power: Fuse,
    session: u64,
}

impl HubSide {
    pub(crate) fn new(net: &Net, power: &Fuse, session: u64) -> Self {
        HubSide { net: net.clone(), power: power.clone(), session }
    }
}

#[async_trait]
impl Broker for HubSide {
    async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        _qos: QoS,
        retain: bool,
    ) -> Result<(), BrokerError> {
        let mut state = self.net.state();
        let lost = state.lost;
        if self.power.is_blown() || !state.is_up || state.hub.is_none() {
            return Err(BrokerError::NotConnected);
        }
        if !state.dice.one_in(lost) {
            state.send(&topic, &payload, retain);
        }
        Ok(())
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn clients(&self) -> usize {
        self.net.state().connections.len()
    }

    fn session(&self) -> u64 {
        self.session
    }

    fn interest(&self) -> Option<Arc<Interest>> {
        None
    }

    fn serve(&self, _filter: String, _view: Arc<dyn View>) {}

    fn insight(&self) -> Option<Insight> {
        None
    }
}
