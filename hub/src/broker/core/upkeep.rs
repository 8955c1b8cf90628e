//! What is due by time: keep-alive, wills, expiry, changes of access, progress of sessions, snapshots, `$SYS`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use durable_log::Position;
use proto::mqtt::reason;
use tokio::time::Instant;

use super::super::door::Transport;
use super::super::journal::{Record, SessionState, SnapshotState};
use super::super::limits::IN_BYTES_ALL;
use super::super::subscriptions::SessionKey;
use super::Core;
use super::connect::End;

/// Progress is written, and expiry looked at, this often.
const SLOW: Duration = Duration::from_secs(1);

/// `$SYS` is published this often.
const SYS: Duration = Duration::from_secs(10);

/// At this share of its bound the journal's oldest queue is given up, in percent.
const JOURNAL_PRESSURE: u64 = 90;

/// State of the upkeep alone.
pub(super) struct Upkeep {
    /// Generation of the access rules that every client was checked against.
    generation: u64,
    slow_due: Instant,
    sys_due: Instant,
    pub(super) started: Instant,
    /// Sockets that are closing.
    pub(super) lingering: VecDeque<(Transport, Instant)>,
}

impl Upkeep {
    pub(super) fn new(generation: u64) -> Upkeep {
        let now = Instant::now();
        Upkeep { generation, slow_due: now, sys_due: now, started: now, lingering: VecDeque::new() }
    }
}

impl Core {
    /// Called a few times a second.
    pub(super) fn look_after(&mut self) {
        let now = Instant::now();
        self.end_silent(now);
        self.bound_partial();
        self.let_go(now);
        if self.access.generation() != self.upkeep.generation {
            self.upkeep.generation = self.access.generation();
            self.check_access();
        }
        self.send_due_wills(now);
        if now >= self.upkeep.slow_due {
            self.upkeep.slow_due = now + SLOW;
            self.end_expired();
            self.save_all_progress();
            self.tell_what_is_needed();
            if self.journal.wants_snapshot() {
                self.take_snapshot();
            }
            self.go_on_with_pages();
        }
        if now >= self.upkeep.sys_due {
            self.upkeep.sys_due = now + SYS;
            self.publish_sys();
        }
        self.count.show(self.wires.len(), self.wires.out_bytes(), self.retained.len(), self.sessions.len());
    }

    fn end_silent(&mut self, now: Instant) {
        let silent: Vec<usize> = self
            .wires
            .iter()
            .filter(|(_, connection)| {
                // What it sent may lie unread because we do not read it: that is no silence.
                let waits = connection.is_held_back || connection.is_waiting;
                connection.silence_max.is_some_and(|max| now.duration_since(connection.heard) > max) && !waits
            })
            .map(|(key, _)| key)
            .collect();
        for key in silent {
            self.end_connection(key, End::Silent);
        }
    }

    /// Packets that came in part hold no more than [`IN_BYTES_ALL`] together: the longest one has to go. A client that
    /// means well has sent its packet by the next look; many that begin one and wait would fill the memory.
    fn bound_partial(&mut self) {
        loop {
            let sizes = || self.wires.iter().map(|(key, connection)| (connection.partial.capacity(), key));
            if sizes().map(|(bytes, _)| bytes).sum::<usize>() <= IN_BYTES_ALL {
                return;
            }
            let Some((_, key)) = sizes().max() else { return };
            let why = "one of too many long packets that do not come to their end".to_owned();
            self.end_connection(key, End::Broken(reason::QUOTA_EXCEEDED, why));
        }
    }

    fn let_go(&mut self, now: Instant) {
        let mut waste = [0; 4096];
        for (transport, _) in &mut self.upkeep.lingering {
            for _ in 0..4 {
                if !matches!(transport.read(&mut waste), Ok(1..)) {
                    break;
                }
            }
        }
        while self.upkeep.lingering.front().is_some_and(|(_, due)| *due <= now) {
            self.upkeep.lingering.pop_front();
        }
    }

    /// Access has changed: every client and every subscription is checked again.
    fn check_access(&mut self) {
        let keys: Vec<usize> = self.wires.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(connection) = self.wires.get_mut(key) else { continue };
            match self.access.rights(&connection.login.identity) {
                Some(rights) => {
                    connection.login.rights = rights;
                    connection.allowed_topic = "".into();
                }
                None => self.end_connection(key, End::NoLongerAllowed),
            }
        }
        let sessions: Vec<SessionKey> = self.session_keys();
        for key in sessions {
            let Some(session) = self.session(key) else { continue };
            let of_client = session.connection.and_then(|key| self.wires.get(key));
            let rights = match of_client {
                Some(connection) => Some(Arc::clone(&connection.login.rights)),
                None => self.access.rights_of(&session.identity),
            };
            let (filters, client) =
                (session.subscriptions.keys().cloned().collect::<Vec<_>>(), &session.client_id);
            let lost: Vec<Arc<str>> = filters
                .into_iter()
                .filter(|filter| rights.as_ref().is_none_or(|rights| !rights.may_subscribe(filter)))
                .collect();
            if !lost.is_empty() {
                tracing::warn!(%client, filters = lost.len(), "subscriptions that its rights lack now are removed");
            }
            let is_connected = self.outlet(session).is_some();
            for filter in lost {
                if self.unsubscribe(key, &filter) && is_connected {
                    self.interest.remove(&filter);
                }
            }
        }
    }

    fn session_keys(&self) -> Vec<SessionKey> {
        self.sessions.iter().map(|(key, _)| SessionKey(u32::try_from(key).unwrap_or(u32::MAX))).collect()
    }

    fn send_due_wills(&mut self, now: Instant) {
        for key in self.session_keys() {
            let Some(session) = self.session_mut(key) else { continue };
            if let Some(will) = session.will.take_if(|will| will.due <= now) {
                self.publish_will(&will.message);
            }
        }
    }

    fn end_expired(&mut self) {
        let now = self.clock.now();
        for key in self.session_keys() {
            if self
                .session(key)
                .is_some_and(|session| session.connection.is_none() && session.is_expired(now))
            {
                self.end_session(key);
            }
        }
    }

    fn save_all_progress(&mut self) {
        for key in self.session_keys() {
            if self.session(key).is_some_and(|session| session.unsaved) {
                self.save_progress(key);
            }
        }
    }

    /// Writes down how far a session has got, if the journal does not know.
    pub(super) fn save_progress(&mut self, key: SessionKey) {
        let durable = self.durable;
        let Some(session) = self.session_mut(key).filter(|session| session.unsaved) else { return };
        session.unsaved = false;
        if !session.is_persistent() {
            return;
        }
        let (base, done) = session.out.progress();
        let record = Record::Progress {
            id: session.id,
            base,
            position: first_open(session, durable),
            done,
            queued_bytes: session.out.queued_bytes(),
        };
        self.record(record);
    }

    /// Tells the journal which records are still needed, and gives up the oldest queue if it is about to be full.
    fn tell_what_is_needed(&mut self) {
        // What a session that ends with its connection has in flight is never read again: it has no position.
        let needed = |session: &super::Session| {
            let out = &session.out;
            let from = if session.is_persistent() { out.needs_from() } else { out.cursor() };
            from.filter(|_| out.queued() > 0)
        };
        let oldest = self.sessions.iter().filter_map(|(key, session)| Some((needed(session)?, key))).min();
        let keep = oldest.map_or(self.durable, |(position, _)| position.min(self.durable));
        self.journal.keep_from(keep);
        let Some((_, key)) = oldest else { return };
        if self.journal.held_bytes() < self.journal.bytes_max() / 100 * JOURNAL_PRESSURE || self.disk_failed {
            return;
        }
        let key = SessionKey(u32::try_from(key).unwrap_or(u32::MAX));
        let end = self.journal.next_position();
        let Some(session) = self.session_mut(key) else { return };
        let given_up = session.out.queued();
        let client = Arc::clone(&session.client_id);
        if let Some(connection) = session.connection {
            self.end_connection(connection, End::Quota);
        }
        tracing::error!(%client, messages = given_up,
            "the broker's journal is nearly full: what waits for the session with the oldest message is given up");
        self.count.given_up.add(given_up);
        let Some(session) = self.session_mut(key) else { return }; // it ended with its connection
        session.out.give_up(session.out.end(), end);
        let record =
            Record::Skipped { id: session.id, to: session.out.end(), position: end, queued_bytes: 0 };
        self.record(record);
    }

    /// Gives the journal everything it needs to begin from here.
    pub(super) fn take_snapshot(&mut self) {
        let durable = self.durable;
        let persistent = self.sessions.iter().filter(|(_, session)| session.is_persistent());
        let sessions = persistent.map(|(_, session)| state_of(session, durable)).collect();
        let retained = self
            .retained
            .all()
            .filter(|message| !message.topic.starts_with("$SYS/"))
            .map(Arc::clone)
            .collect();
        let next_session = super::SessionId(self.next_session);
        self.journal.snapshot(SnapshotState { sessions, retained, next_session });
    }

    /// Pages of views that found no place in the queue are asked for again.
    fn go_on_with_pages(&mut self) {
        for key in self.session_keys() {
            if self.session(key).is_some_and(|session| !session.pages.is_empty()) {
                self.may_go_on(key);
            }
        }
    }

    /// What administrators may read of the broker, under `$SYS/broker/`.
    fn publish_sys(&mut self) {
        let uptime = self.upkeep.started.elapsed().as_secs();
        let figures: Vec<(&str, String)> = vec![
            ("version", format!("forebay {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{uptime} seconds")),
            ("clients/connected", self.wires.len().to_string()),
            ("clients/total", self.sessions.len().to_string()),
            ("subscriptions/count", self.subscriptions.count().to_string()),
            ("retained messages/count", self.retained.len().to_string()),
            ("retained messages/bytes", self.retained.bytes().to_string()),
            ("messages/received", self.count.received.get().to_string()),
            ("messages/dropped", self.count.dropped.get().to_string()),
            ("journal/bytes", self.journal.held_bytes().to_string()),
        ];
        for (name, figure) in figures {
            let message = self.own_message(&format!("$SYS/broker/{name}"), figure.into_bytes(), true);
            self.publish_message(&message, false);
        }
    }
}

/// Where the first message that is not complete lies, or a position before it. What is durable was offered to the session;
/// so, with nothing in its window and nothing left behind, that is not below the durable end.
fn first_open(session: &super::Session, durable: Position) -> Position {
    session.out.needs_from().unwrap_or(durable)
}

/// A session for the snapshot.
fn state_of(session: &super::Session, durable: Position) -> SessionState {
    let (base, done) = session.out.progress();
    SessionState {
        id: session.id,
        client_id: Arc::clone(&session.client_id),
        identity: Arc::clone(&session.identity),
        expiry_s: session.expiry_s,
        disconnected_at: session.disconnected_at,
        subscriptions: session
            .subscriptions
            .iter()
            .map(|(filter, options)| (Arc::clone(filter), options.byte(), options.identifier))
            .collect(),
        received: session.received.clone(),
        base,
        end: session.out.end(),
        done: done.into_iter().collect(),
        received_out: session.out.released().into_iter().collect(),
        base_position: first_open(session, durable),
        queued_bytes: session.out.queued_bytes(),
    }
}
