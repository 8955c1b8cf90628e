//! The journal on disks that lose power, fill up, fail and are damaged.

mod crashes;
mod damage;
mod formats;
mod rate;
mod replays;
mod room;

use proto::mqtt::QoS;
use std::sync::{Condvar, Mutex, OnceLock};

use bytes::Bytes;
use durable_log::FaultyStorage;
use runtime::tasks::CancellationToken;

use super::*;

/// A journal with a thread that stands for the core.
struct Rig {
    journal: Option<Journal>,
    recovered: Recovered,
    metrics: Metrics,
    bell: Arc<(Mutex<bool>, Condvar)>,
    /// Drained by [`Rig::wait`] and not wanted yet.
    kept: VecDeque<JournalEvent>,
    _tasks: Tasks,
}

/// Small, so that segments, snapshots and bounds come soon.
fn small() -> JournalOptions {
    JournalOptions {
        bytes_max: 1024 * 1024,
        headroom_bytes: 256 * 1024,
        reserve_bytes: 0,
        segment_bytes: 4 * 1024,
        record_bytes_max: 64 * 1024,
        snapshot_bytes: 8 * 1024,
    }
}

fn tokio() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

impl Rig {
    fn open(disk: &FaultyStorage) -> Rig {
        Rig::open_with(Arc::new(disk.clone()), small()).unwrap()
    }

    fn open_with(disk: Arc<dyn Storage>, options: JournalOptions) -> Result<Rig, JournalError> {
        let _entered = tokio().enter();
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = Arc::clone(&bell);
        let wake = Arc::new(move || {
            *ring.0.lock().unwrap() = true;
            ring.1.notify_all();
        });
        let tasks = Tasks::new(CancellationToken::new());
        let metrics = Metrics::default();
        let (journal, recovered) = Journal::open_on(disk, options, &metrics, wake, &tasks)?;
        Ok(Rig { journal: Some(journal), recovered, metrics, bell, kept: VecDeque::new(), _tasks: tasks })
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().unwrap()
    }

    fn append(&mut self, record: Record) -> Position {
        self.journal().append(record).unwrap()
    }

    /// Events now.
    fn drain(&mut self) -> Vec<JournalEvent> {
        let mut events = self.kept.drain(..).collect();
        self.journal().drain_events(&mut events);
        events
    }

    /// Waits for an event; passes over what comes before it.
    fn wait<T>(&mut self, mut wanted: impl FnMut(JournalEvent) -> Option<T>) -> T {
        for _ in 0..1000 {
            self.kept = self.drain().into();
            while let Some(event) = self.kept.pop_front() {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            let mut rung = self.bell.0.lock().unwrap();
            while !*rung {
                let (again, timeout) = self.bell.1.wait_timeout(rung, Duration::from_secs(20)).unwrap();
                assert!(!timeout.timed_out(), "the journal is silent");
                rung = again;
            }
            *rung = false;
        }
        panic!("the event does not come");
    }

    /// Submits, and waits until all of it is durable.
    fn settle(&mut self) {
        self.journal().submit();
        let next = self.journal().next_position();
        if self.journal().durable_end() < next {
            self.wait(|event| matches!(event, JournalEvent::Durable(end) if end == next).then_some(()));
        }
    }

    fn ask(&mut self, session: u64, from: Position, messages_max: usize) -> ReplayBatch {
        let request = ReplayRequest {
            session: SessionId(session),
            token: from.0,
            from,
            messages_max,
            bytes_max: 1 << 20,
        };
        self.journal().replay(request);
        self.wait(|event| match event {
            JournalEvent::Replayed(batch) => Some(batch),
            _ => None,
        })
    }

    /// Everything a session gets from a position on.
    fn read_all(
        &mut self,
        session: u64,
        from: Position,
        messages_max: usize,
    ) -> Vec<(Position, Arc<Message>, Target)> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let batch = self.ask(session, from, messages_max);
            assert!(batch.failed.is_none(), "{:?}", batch.failed);
            assert!(batch.messages.len() <= messages_max);
            assert_eq!((batch.session, batch.token), (SessionId(session), from.0));
            from = batch.next;
            all.extend(batch.messages);
            if batch.at_durable_end {
                return all;
            }
        }
    }

    fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&mut Rig) -> bool) {
        for _ in 0..4000 {
            if holds(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{what} does not come");
    }

    fn close(mut self) {
        self.journal.take().unwrap().close();
    }
}

fn message(topic: &str, payload: impl Into<Bytes>) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Box::default(),
        expires_at: None,
        publisher: None,
    }
}

fn target(session: u64) -> Target {
    Target {
        session: SessionId(session),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Box::default(),
    }
}

fn to(sessions: &[u64], message: Message) -> Record {
    Record::Message {
        message: Arc::new(message),
        targets: sessions.iter().copied().map(target).collect(),
        retained: false,
        received: None,
    }
}

fn session(id: u64) -> Record {
    Record::Session {
        id: SessionId(id),
        client_id: format!("client-{id}").into(),
        identity: "somebody".into(),
        expiry_s: 3600,
    }
}

/// Positions at which the log's segments begin.
fn segments(disk: &FaultyStorage) -> Vec<u64> {
    disk.names().iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
}
