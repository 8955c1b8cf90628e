//! The broker's core: every logged-in client, their sessions, and what goes where. One owner, one thread, one loop.
//!
//! ```text
//! loop { wait for sockets, mail, durable records; apply each; settle: submit records, flush sockets, go on with who waits }
//! ```
//! Nothing here waits for anything but the poll: disks, logins and views answer by mail. What a packet means is in the
//! folder beside this file, as plain synchronous code on [`Core`]:
//!
//! | file | owns |
//! |---|---|
//! | `connection` | one client's buffers, aliases and limits |
//! | `wires` | all connections; encoding what goes out, flushing, back-pressure |
//! | `packets` | what comes in: framing, acknowledgements, limits |
//! | `publish` | PUBLISH: rights, the host's inbox, routing, what needs the disk |
//! | `deliver` | one message to one session: now, from the journal later, or not |
//! | `subscribe` | SUBSCRIBE, UNSUBSCRIBE, retained messages and views in pages |
//! | `connect` | arrivals, take-over, resumption, the end of connections and sessions, wills |
//! | `upkeep` | what is due: keep-alive, expiry, access changes, progress, snapshots, `$SYS` |
//! | `mail` | how the rest of the hub speaks to the core |
//! | `status` | what the page and the API show |

mod connect;
mod connection;
mod deliver;
mod mail;
mod packets;
mod publish;
mod sparkplug_aware;
pub(super) mod status;
mod subscribe;
mod upkeep;
mod wires;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use durable_log::Position;
use mio::event::Event;
use mio::{Events, Poll, Token};
use runtime::clock::Clock;
use runtime::telemetry::Metrics;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::View;
use super::access::AccessBook;
use super::inbox::Inbox;
use super::interest::Interest;
use super::journal::{Journal, JournalEvent, Message, Record, Recovered, SessionId};
use super::limits::OUT_BYTES_LOW;
use super::retained::Retained;
use super::session::{Outgoing, Session};
use super::subscriptions::{Options, SessionKey, Subscriptions};
use crate::config::broker::Limits;

use connect::End;
pub(super) use mail::{CoreHandle, Mailbox, Request, Tap, ViewAsk};
use publish::Due;
use wires::Wires;

/// Readiness events taken at a time.
const EVENTS_MAX: usize = 1024;

/// How often what is due by time is looked after.
const TICK: Duration = Duration::from_millis(250);

/// Bytes read from one client before it is another's turn; one scratch buffer serves all.
const READ_BYTES: usize = 64 * 1024;

/// Work done for clients before sockets are flushed and looked at again, shared by those that have something to read;
/// none is cut shorter than [`TURN_MIN`].
const TURN: Duration = Duration::from_millis(8);
/// See [`TURN`].
const TURN_MIN: Duration = Duration::from_micros(500);

/// The mailbox's own token; sockets have the number of their connection.
const MAIL: Token = Token(usize::MAX);

/// What the core is made of.
pub(super) struct Parts {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) poll: Poll,
    pub(super) journal: Journal,
    pub(super) recovered: Recovered,
    pub(super) access: AccessBook,
    pub(super) inbox: Inbox,
    pub(super) interest: Arc<Interest>,
    pub(super) views: mpsc::Sender<ViewAsk>,
    pub(super) limits: Limits,
    pub(super) sparkplug_aware: bool,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// See the module.
pub(super) struct Core {
    mailbox: Arc<Mailbox>,
    poll: Poll,
    journal: Journal,
    access: AccessBook,
    inbox: Inbox,
    interest: Arc<Interest>,
    views: mpsc::Sender<ViewAsk>,
    limits: Limits,
    sparkplug_aware: bool,
    clock: Clock,

    wires: Wires,
    sessions: Slab<Session>,
    by_client: HashMap<Arc<str>, SessionKey>,
    by_id: HashMap<SessionId, SessionKey>,
    next_session: u64,
    subscriptions: Subscriptions,
    subscription_bytes: usize,
    retained: Retained,
    served: Vec<(String, Arc<dyn View>)>,
    taps: Vec<mail::Tap>,

    /// What waits for the disk, in order.
    due: VecDeque<Due>,
    /// Everything below is on disk.
    durable: Position,
    /// The journal's latch is shut: nothing that needs the disk is taken.
    disk_failed: bool,

    /// Clients that have something to read.
    readable: VecDeque<usize>,
    /// Clients not read because the host's inbox is full, and because the disk is behind.
    waiting_for_host: Vec<usize>,
    waiting_for_disk: Vec<usize>,
    /// Sessions that may go on: with pages, or with what lies in the journal.
    runnable: VecDeque<SessionKey>,
    /// Sessions that have read all that is durable and wait for more.
    waiting_for_sync: Vec<SessionKey>,
    /// Reads of the journal under way, and sessions that wait for one to end.
    replays: usize,
    waiting_for_replay: VecDeque<SessionKey>,
    /// Connections that end with this turn.
    ending: Vec<(usize, u64, End)>,

    scratch: Vec<u8>,
    /// The longest that one client is worked for before it is another's turn.
    turn: Duration,
    upkeep: upkeep::Upkeep,
    count: status::Counts,
    stopping: bool,
}

impl Core {
    /// Puts the recovered sessions in place; nothing runs yet.
    pub(super) fn new(parts: Parts) -> Core {
        let Parts { mailbox, poll, journal, recovered, access, inbox, interest, views, limits, .. } = parts;
        let count = status::Counts::new(&parts.metrics);
        let mut core = Core {
            sparkplug_aware: parts.sparkplug_aware,
            clock: parts.clock,
            wires: Wires::new(count.dropped.clone()),
            sessions: Slab::new(),
            by_client: HashMap::new(),
            by_id: HashMap::new(),
            next_session: recovered.next_session.0,
            subscriptions: Subscriptions::default(),
            subscription_bytes: 0,
            retained: Retained::new(
                limits.retained_messages,
                usize::try_from(limits.retained_bytes).unwrap_or(usize::MAX),
            ),
            served: Vec::new(),
            taps: Vec::new(),
            due: VecDeque::new(),
            durable: journal.durable_end(),
            disk_failed: false,
            readable: VecDeque::new(),
            waiting_for_host: Vec::new(),
            waiting_for_disk: Vec::new(),
            runnable: VecDeque::new(),
            waiting_for_sync: Vec::new(),
            replays: 0,
            waiting_for_replay: VecDeque::new(),
            ending: Vec::new(),
            scratch: vec![0; 2 * READ_BYTES],
            turn: TURN,
            upkeep: upkeep::Upkeep::new(access.generation()),
            stopping: false,
            mailbox,
            poll,
            journal,
            access,
            inbox,
            interest,
            views,
            limits,
            count,
        };
        core.recover(recovered);
        core
    }

    fn recover(&mut self, recovered: Recovered) {
        for message in recovered.retained {
            if self.retained.set(message).is_err() {
                self.count.retained_refused.increment();
            }
        }
        let now = self.clock.now();
        for known in recovered.sessions {
            if known.expiry_s == 0 {
                self.record(Record::Ended { id: known.id }); // it ended with its connection
                continue;
            }
            let out = Outgoing::recovered(
                (known.base, known.end),
                &known.done,
                &known.received_out,
                known.base_position,
                known.queued_bytes,
            );
            let mut session = Session::new(known.id, known.client_id, known.identity, known.expiry_s);
            session.out = out;
            session.received = known.received;
            // It was connected when the process ended: its expiry runs from now on.
            session.disconnected_at = Some(known.disconnected_at.unwrap_or(now));
            let key = self.insert_session(session);
            for (filter, options, identifier) in known.subscriptions {
                self.remember_subscription(key, filter, Options::from_byte(options, identifier));
            }
        }
    }

    /// Runs until told to stop, then says farewell and closes the journal.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut tick = Instant::now() + TICK;
        while !self.stopping {
            // A connection that was lost while it was written to may have left a will to others, and a record.
            let idle = self.readable.is_empty()
                && self.runnable.is_empty()
                && self.ending.is_empty()
                && self.wires.is_flushed();
            let wait = if idle { tick.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() != MAIL {
                    self.ready(event);
                }
            }
            self.take_mail();
            self.take_journal();
            self.read_turns();
            if Instant::now() >= tick {
                tick = Instant::now() + TICK;
                self.look_after();
            }
            self.settle();
        }
        self.farewell();
        self.journal.close();
        Ok(())
    }

    /// A socket is ready.
    fn ready(&mut self, event: &Event) {
        let key = event.token().0;
        let Some(connection) = self.wires.get_mut(key) else { return };
        connection.is_closing |= event.is_read_closed() || event.is_error();
        if event.is_writable() {
            connection.can_write = true;
            self.wires.touch(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.want_read(key);
        }
    }

    /// Puts the client in the queue of those to be read.
    fn want_read(&mut self, key: usize) {
        if let Some(connection) = self.wires.get_mut(key)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.readable.push_back(key);
        }
    }

    /// One turn for everybody who has something to read.
    fn read_turns(&mut self) {
        let clients = u32::try_from(self.readable.len()).unwrap_or(u32::MAX);
        self.turn = (TURN / clients.max(1)).max(TURN_MIN);
        for _ in 0..self.readable.len() {
            let Some(key) = self.readable.pop_front() else { break };
            if let Some(connection) = self.wires.get_mut(key) {
                connection.is_queued = false;
                self.read(key);
            }
        }
    }

    fn take_journal(&mut self) {
        let mut events = Vec::new();
        self.journal.drain_events(&mut events);
        for event in events {
            match event {
                JournalEvent::Durable(end) => self.durable_to(end),
                JournalEvent::Replayed(batch) => self.replayed(batch),
                JournalEvent::NoRoom => {
                    self.count.disk_full.set(1);
                    tracing::warn!("the broker's journal has no room; acknowledgements wait for it");
                }
                JournalEvent::Room => {
                    self.count.disk_full.set(0);
                    self.disk_may_take_more();
                }
                JournalEvent::Failed(cause) => {
                    self.disk_failed = true;
                    self.disk_may_take_more(); // who waited is told
                    tracing::error!(%cause, "the broker's journal cannot be written; nothing that needs it is taken");
                }
            }
        }
    }

    /// The end of a turn: what was appended is handed on, what goes out is sent, who waited goes on.
    fn settle(&mut self) {
        for (key, serial, end) in std::mem::take(&mut self.ending) {
            if self.wires.get(key).is_some_and(|connection| connection.serial == serial) {
                self.end_connection(key, end);
            }
        }
        for _ in 0..self.runnable.len() {
            let Some(key) = self.runnable.pop_front() else { break };
            if let Some(session) = self.session_mut(key) {
                session.is_runnable = false;
            }
            self.go_on(key);
        }
        self.begin_replays();
        self.journal.submit();
        for key in self.wires.take_dirty() {
            match self.wires.flush(key) {
                Ok(()) => self.flushed(key),
                Err(error) => self.lost(key, &error),
            }
        }
        self.journal.submit(); // ends of connections
    }

    /// The socket has taken something: whoever waited for that goes on.
    fn flushed(&mut self, key: usize) {
        let Some(connection) = self.wires.get(key) else { return };
        let (session, held_back) = (connection.session, connection.is_held_back);
        if connection.out_bytes() <= OUT_BYTES_LOW {
            self.may_go_on(session);
            if held_back {
                self.want_read(key);
            }
        }
    }

    /// Puts the session in the queue of those that may go on, if it has something to go on with.
    fn may_go_on(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        let waits = !session.pages.is_empty() || (session.out.cursor().is_some() && !session.out.reading);
        if waits && !session.is_runnable {
            session.is_runnable = true;
            self.runnable.push_back(key);
        }
    }

    /// Appends to the journal. Nothing that got past the limits is too long for it.
    fn record(&mut self, record: Record) -> Position {
        self.journal.append(record).unwrap_or_else(|error| {
            tracing::error!(%error, "a record is not in the broker's journal");
            self.journal.next_position()
        })
    }

    fn is_persistent(&self, key: SessionKey) -> bool {
        self.session(key).is_some_and(Session::is_persistent)
    }

    fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key.0 as usize)
    }

    fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.0 as usize)
    }

    fn insert_session(&mut self, session: Session) -> SessionKey {
        let (id, client) = (session.id, Arc::clone(&session.client_id));
        let key = SessionKey(u32::try_from(self.sessions.insert(session)).unwrap_or(u32::MAX));
        self.by_client.insert(client, key);
        self.by_id.insert(id, key);
        key
    }

    /// A message of the broker or the hub itself.
    fn own_message(&self, topic: &str, payload: Vec<u8>, retain: bool) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: proto::mqtt::QoS::AtLeastOnce,
            retain,
            properties: Box::default(),
            expires_at: None,
            publisher: None,
        })
    }
}
