//! The two tasks of a session and what they share.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{Packet, PubAck, Publish, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Opened;
use super::{Message, MqttError, MqttOptions, QoS, WRITE_STALL_MAX};

/// Fixed header, topic length and packet id of a PUBLISH.
pub(super) const PUBLISH_OVERHEAD: usize = 5 + 2 + 2;

/// Bytes gathered before a write, where so many are waiting.
const WRITE_BYTES: usize = 64 * 1024;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// How long a broker may take to close after DISCONNECT.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What the user wants to be sent.
#[derive(Debug)]
pub(super) enum Request {
    Publish { topic: String, qos: QoS, retain: bool, payload: Vec<u8> },
    Subscribe { filters: Vec<(String, QoS)>, answer: oneshot::Sender<Result<(), MqttError>> },
    Disconnect { answer: oneshot::Sender<()> },
}

/// What both tasks and both halves know of the session.
#[derive(Debug)]
pub(super) struct Shared {
    /// Cancelled when the session has ended.
    pub(super) over: CancellationToken,
    /// Cancelled when DISCONNECT is out: what still comes is nobody's.
    leaving: CancellationToken,
    /// The first cause of the end.
    cause: Mutex<Option<String>>,
    /// Room for QoS 1 publishes.
    pub(super) unacknowledged: Semaphore,
    /// What waits for an answer with a packet id; bounded by the ids.
    pending: Mutex<BTreeMap<u16, Pending>>,
    /// Packet ids that the reader wants acknowledged; bounded by the ids.
    acks: Mutex<Vec<u16>>,
    acks_wait: Notify,
}

#[derive(Debug)]
enum Pending {
    Publish,
    Subscribe(oneshot::Sender<Result<(), MqttError>>),
}

impl Shared {
    pub(super) fn new(unacknowledged_max: usize) -> Self {
        Shared {
            over: CancellationToken::new(),
            leaving: CancellationToken::new(),
            cause: Mutex::default(),
            unacknowledged: Semaphore::new(unacknowledged_max),
            pending: Mutex::default(),
            acks: Mutex::default(),
            acks_wait: Notify::new(),
        }
    }

    /// Ends the session; the first cause wins.
    pub(super) fn end(&self, cause: String) {
        lock(&self.cause).get_or_insert(cause);
        self.over.cancel();
        self.unacknowledged.close();
        lock(&self.pending).clear(); // drops the answers: whoever waits learns that it is over
    }

    /// Why the session ended.
    pub(super) fn reason(&self) -> MqttError {
        MqttError::Lost(lock(&self.cause).clone().unwrap_or_else(|| "the session is over".into()))
    }

    /// Keeps what waits under the next free packet id after `last`.
    fn register(&self, last: &mut u16, what: Pending) -> u16 {
        let mut pending = lock(&self.pending);
        loop {
            *last = last.checked_add(1).unwrap_or(1);
            if !pending.contains_key(last) {
                pending.insert(*last, what);
                return *last;
            }
        }
    }

    fn take(&self, id: u16) -> Option<Pending> {
        lock(&self.pending).remove(&id)
    }
}

/// Starts reader and writer.
pub(super) fn start(
    opened: Opened,
    options: &MqttOptions,
    shared: &Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    messages: mpsc::Sender<Message>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let keep_alive = options.keep_alive;
    let reader = Reader {
        socket: opened.reader,
        buffer: opened.received,
        packet_bytes_max: options.packet_bytes_max,
        silence_max: (!keep_alive.is_zero()).then(|| keep_alive + keep_alive / 2),
        messages,
        shared: shared.clone(),
    };
    let writer = Writer {
        socket: opened.writer,
        buffer: BytesMut::new(),
        packet_bytes_max: options.packet_bytes_max,
        last_id: 0,
        shared: shared.clone(),
    };
    let ended = shared.clone();
    tasks.spawn(async move {
        let over = ended.over.clone();
        tokio::select! {
            biased;
            cause = reader.run() => ended.end(cause),
            () = over.cancelled() => {}
        }
    });
    let ended = shared.clone();
    tasks.spawn(async move {
        let over = ended.over.clone();
        tokio::select! {
            biased;
            cause = writer.run(requests, keep_alive) => ended.end(cause),
            () = over.cancelled() => {}
        }
    });
    tasks
}

struct Reader {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    packet_bytes_max: usize,
    silence_max: Option<Duration>,
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Reader {
    /// Until the session ends; returns why.
    async fn run(mut self) -> String {
        loop {
            loop {
                match Packet::read(&mut self.buffer, self.packet_bytes_max) {
                    Ok(packet) => {
                        if let Err(cause) = self.take(packet).await {
                            return cause;
                        }
                    }
                    Err(rumqttc::Error::InsufficientBytes(missing)) => {
                        self.buffer.reserve(missing.max(READ_BYTES));
                        break;
                    }
                    Err(error) => return format!("malformed packet from the broker: {error}"),
                }
            }
            match self.receive().await {
                Ok(0) => return "closed by the broker".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        let Some(silence_max) = self.silence_max else { return self.socket.read_buf(&mut self.buffer).await };
        match timeout(silence_max, self.socket.read_buf(&mut self.buffer)).await {
            Ok(received) => received,
            Err(_) => Err(io::Error::other(format!("nothing from the broker for {silence_max:?}"))),
        }
    }

    async fn take(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => {
                let id = (publish.qos == rumqttc::QoS::AtLeastOnce).then_some(publish.pkid);
                let message =
                    Message { topic: publish.topic, payload: publish.payload, retain: publish.retain };
                tokio::select! {
                    biased;
                    () = self.shared.leaving.cancelled() => return Ok(()),
                    sent = self.messages.send(message) => sent.map_err(|_| "ended by its user".to_owned())?,
                }
                if let Some(id) = id {
                    lock(&self.shared.acks).push(id);
                    self.shared.acks_wait.notify_one();
                }
            }
            Packet::PubAck(ack) => {
                if let Some(Pending::Publish) = self.shared.take(ack.pkid) {
                    self.shared.unacknowledged.add_permits(1);
                }
            }
            Packet::SubAck(ack) => {
                if let Some(Pending::Subscribe(answer)) = self.shared.take(ack.pkid) {
                    let refused = ack.return_codes.contains(&SubscribeReasonCode::Failure);
                    let result = if refused {
                        Err(MqttError::Refused("a subscription is not allowed".into()))
                    } else {
                        Ok(())
                    };
                    answer.send(result).ok(); // whoever asked may have gone
                }
            }
            Packet::PingResp => {}
            other => return Err(format!("unexpected packet from the broker: {other:?}")),
        }
        Ok(())
    }
}

struct Writer {
    socket: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
    packet_bytes_max: usize,
    last_id: u16,
    shared: Arc<Shared>,
}

impl Writer {
    /// Until the session ends; returns why.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, keep_alive: Duration) -> String {
        let period = if keep_alive.is_zero() { Duration::from_secs(86_400) } else { keep_alive / 2 };
        let mut pings = interval_at(Instant::now() + period, period);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut senders_left = true;
        let shared = self.shared.clone();
        loop {
            let mut leaving = None;
            tokio::select! {
                biased;
                _ = pings.tick(), if !keep_alive.is_zero() => self.put(&Packet::PingReq),
                request = requests.recv(), if senders_left => match request {
                    None => senders_left = false,
                    Some(request) => leaving = self.gather(request, &mut requests),
                },
                () = shared.acks_wait.notified() => {}
            }
            let acks = std::mem::take(&mut *lock(&shared.acks));
            for id in acks {
                self.put(&Packet::PubAck(PubAck::new(id)));
            }
            if let Err(error) = self.write_out().await {
                return error.to_string();
            }
            if let Some(answer) = leaving {
                answer.send(()).ok();
                return self.goodbye().await;
            }
        }
    }

    /// After DISCONNECT: half-closes and leaves the other half to the reader until the broker closes. A socket closed
    /// with bytes unread in it is reset, and a broker that sees the reset first sends the will all the same.
    async fn goodbye(&mut self) -> String {
        self.shared.leaving.cancel();
        self.socket.shutdown().await.ok(); // the broker may close first
        timeout(GOODBYE_MAX, self.shared.over.cancelled()).await.ok();
        "disconnected".into()
    }

    /// Encodes the request and what else waits, up to a bound; a DISCONNECT ends it.
    fn gather(
        &mut self,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        while let Some(request) = next {
            if let Some(leaving) = self.encode(request) {
                return Some(leaving);
            }
            next = if self.buffer.len() < WRITE_BYTES { requests.try_recv().ok() } else { None };
        }
        None
    }

    fn encode(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        match request {
            Request::Publish { topic, qos, retain, payload } => {
                let mut publish = Publish::new(topic, wire(qos), payload);
                publish.retain = retain;
                if qos == QoS::AtLeastOnce {
                    publish.pkid = self.shared.register(&mut self.last_id, Pending::Publish);
                }
                self.put(&Packet::Publish(publish));
            }
            Request::Subscribe { filters, answer } => {
                let filters = filters.into_iter().map(|(path, qos)| SubscribeFilter::new(path, wire(qos)));
                let mut subscribe = Subscribe::new_many(filters);
                subscribe.pkid = self.shared.register(&mut self.last_id, Pending::Subscribe(answer));
                self.put(&Packet::Subscribe(subscribe));
            }
            Request::Disconnect { answer } => {
                self.put(&Packet::Disconnect);
                return Some(answer);
            }
        }
        None
    }

    fn put(&mut self, packet: &Packet) {
        if let Err(error) = packet.write(&mut self.buffer, self.packet_bytes_max) {
            self.shared.end(format!("cannot encode a packet: {error}")); // sizes were checked before: a bug
        }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        while !self.buffer.is_empty() {
            let write = timeout(WRITE_STALL_MAX, self.socket.write_buf(&mut self.buffer)).await;
            match write {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(written?),
                Err(_) => return Err(stalled()),
            }
        }
        if self.buffer.capacity() > 4 * WRITE_BYTES {
            self.buffer = BytesMut::new(); // one huge packet must not be paid for ever
        }
        timeout(WRITE_STALL_MAX, self.socket.flush()).await.map_err(|_| stalled())?
    }
}

fn stalled() -> io::Error {
    io::Error::other(format!("the broker took nothing for {WRITE_STALL_MAX:?}"))
}

fn wire(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
