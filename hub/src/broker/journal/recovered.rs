//! What a restart finds: the sessions and retained messages as of the last record that was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use durable_log::{Cut, Position};
use model::Timestamp;

use super::record::{Message, Record, SessionId};

/// A persistent session: as found by [`super::Journal::open`], and as given to [`super::Journal::snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// Which.
    pub(crate) id: SessionId,
    /// Its client id.
    pub(crate) client_id: Arc<str>,
    /// Whose it is.
    pub(crate) identity: Arc<str>,
    /// Session expiry interval in seconds; `u32::MAX`: never.
    pub(crate) expiry_s: u32,
    /// Since when its expiry runs; `None`: it was connected.
    pub(crate) disconnected_at: Option<Timestamp>,
    /// Filter, options, subscription identifier; each filter once.
    pub(crate) subscriptions: Vec<(Arc<str>, u8, Option<u32>)>,
    /// QoS 2 in: identifiers that are not released.
    pub(crate) received: BTreeSet<u16>,
    /// Lowest ordinal that is not complete.
    pub(crate) base: u64,
    /// The ordinal that its next message gets; `base == end`: nothing waits.
    pub(crate) end: u64,
    /// Complete ordinals above `base`.
    pub(crate) done: BTreeSet<u64>,
    /// QoS 2 out: ordinals from `base` on whose PUBREC came, and that are not complete.
    pub(crate) received_out: BTreeSet<u64>,
    /// The first message for this session at or after this position has ordinal `base`. Found after a restart: the
    /// position of that message unless [`super::Record::Progress`] gave a lower one, or the end if there is none.
    pub(crate) base_position: Position,
    /// [`Message::bytes`] of all that is still to do.
    pub(crate) queued_bytes: u64,
}

/// What [`super::Journal::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Persistent sessions, by id.
    pub(crate) sessions: Vec<SessionState>,
    /// Retained messages, by topic.
    pub(crate) retained: Vec<Arc<Message>>,
    /// The first number that no session had.
    pub(crate) next_session: SessionId,
    /// The position that the next record gets.
    pub(crate) end: Position,
    /// What a crash left half-written and was cut off; never told durable.
    pub(crate) cut: Option<Cut>,
}

/// State that grows record by record.
#[derive(Debug, Default)]
pub(super) struct Replaying {
    sessions: BTreeMap<SessionId, SessionState>,
    retained: BTreeMap<Box<str>, Arc<Message>>,
    next_session: u64,
}

impl Replaying {
    /// A session of the snapshot.
    pub(super) fn session(&mut self, state: SessionState) {
        self.seen(state.id);
        self.sessions.insert(state.id, state);
    }

    /// A retained message of the snapshot.
    pub(super) fn retained(&mut self, message: Arc<Message>) {
        self.retained.insert(message.topic.clone(), message);
    }

    /// Numbers below are used.
    pub(super) fn next_session(&mut self, next: SessionId) {
        self.next_session = self.next_session.max(next.0);
    }

    /// No session seen anywhere may be born again: its old messages may still be in the log.
    fn seen(&mut self, id: SessionId) {
        self.next_session = self.next_session.max(id.0.saturating_add(1));
    }

    /// The record at `position`. What concerns sessions that are not known is passed over: they were not
    /// persistent, or are over.
    pub(super) fn apply(&mut self, position: Position, record: Record) {
        match record {
            Record::Message { message, targets, retained, received } => {
                let bytes = message.bytes() as u64;
                message.publisher.into_iter().for_each(|id| self.seen(id));
                for target in targets {
                    self.seen(target.session);
                    if let Some(session) = self.sessions.get_mut(&target.session) {
                        session.take(position, bytes);
                    }
                }
                if let Some((id, packet_id)) = received {
                    self.seen(id);
                    self.with(id, |session| {
                        session.received.insert(packet_id);
                    });
                }
                if retained && message.payload.is_empty() {
                    self.retained.remove(&message.topic);
                } else if retained {
                    self.retained(message);
                }
            }
            Record::Session { id, client_id, identity, expiry_s } => {
                self.seen(id);
                let session = self.sessions.entry(id).or_insert_with(|| SessionState::new(id, position));
                session.client_id = client_id;
                session.identity = identity;
                session.expiry_s = expiry_s;
                session.disconnected_at = None;
            }
            Record::Disconnected { id, at } => self.with(id, |session| session.disconnected_at = Some(at)),
            Record::Ended { id } => {
                self.sessions.remove(&id);
            }
            Record::Subscribed { id, filter, options, subscription_id } => self.with(id, |session| {
                session.subscriptions.retain(|(known, ..)| *known != filter);
                session.subscriptions.push((filter, options, subscription_id));
            }),
            Record::Unsubscribed { id, filter } => {
                self.with(id, |session| session.subscriptions.retain(|(known, ..)| *known != filter));
            }
            Record::Released { id, packet_id } => self.with(id, |session| {
                session.received.remove(&packet_id);
            }),
            Record::Received { id, ordinal } => self.with(id, |session| {
                if ordinal >= session.base && !session.done.contains(&ordinal) {
                    session.received_out.insert(ordinal);
                }
            }),
            Record::Progress { id, base, position, done, queued_bytes } => {
                self.with(id, |session| session.progress(base, position, done, queued_bytes));
            }
            Record::Skipped { id, to, position, queued_bytes } => self.with(id, |session| {
                let done = std::mem::take(&mut session.done).split_off(&to);
                session.progress(to, position, done, queued_bytes);
            }),
        }
    }

    fn with(&mut self, id: SessionId, change: impl FnOnce(&mut SessionState)) {
        if let Some(session) = self.sessions.get_mut(&id) {
            change(session);
        }
    }

    /// What was found, `end` being the position of the next record.
    pub(super) fn finish(mut self, end: Position, cut: Option<Cut>) -> Recovered {
        for session in self.sessions.values_mut().filter(|session| session.base == session.end) {
            session.base_position = end;
        }
        Recovered {
            sessions: self.sessions.into_values().collect(),
            retained: self.retained.into_values().collect(),
            next_session: SessionId(self.next_session),
            end,
            cut,
        }
    }
}

impl SessionState {
    /// One that nothing was told of but its number.
    fn new(id: SessionId, position: Position) -> Self {
        SessionState {
            id,
            client_id: Arc::from(""),
            identity: Arc::from(""),
            expiry_s: 0,
            disconnected_at: None,
            subscriptions: Vec::new(),
            received: BTreeSet::new(),
            base: 0,
            end: 0,
            done: BTreeSet::new(),
            received_out: BTreeSet::new(),
            base_position: position,
            queued_bytes: 0,
        }
    }

    fn take(&mut self, position: Position, bytes: u64) {
        if self.base == self.end {
            self.base_position = position;
        }
        self.end += 1;
        self.queued_bytes = self.queued_bytes.saturating_add(bytes);
    }

    fn progress(
        &mut self,
        base: u64,
        position: Position,
        done: impl IntoIterator<Item = u64>,
        queued_bytes: u64,
    ) {
        self.base = base;
        self.end = self.end.max(base);
        self.base_position = position;
        self.done = done.into_iter().filter(|ordinal| *ordinal > base).collect();
        self.received_out.retain(|ordinal| *ordinal >= base && !self.done.contains(ordinal));
        self.queued_bytes = queued_bytes;
    }
}
