//! Arrivals, take-over, resumption; the end of connections and sessions; wills.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use model::Timestamp;
use proto::mqtt::encode::{self, ConnAckOut};
use proto::mqtt::{ConnectOwned, Version, WillOwned, reason};
use tokio::time::Instant;

use super::super::door::{Arrival, Transport};
use super::super::journal::{Message, Record, SessionId};
use super::super::limits::{ALIASES_MAX, CLIENT_ID_BYTES_MAX, LEVELS_MAX, LINGERING_MAX, TOPIC_BYTES_MAX};
use super::super::session::{DelayedWill, NEVER, Session};
use super::super::subscriptions::SessionKey;
use super::Core;
use super::connection::{AliasesOut, Connection, Traffic};
use super::publish::{Work, levels};

/// A closed connection's last words may still be on the way so long.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// DISCONNECT of the client: no will [MQTT-3.14.4-3].
    Goodbye,
    /// DISCONNECT with a reason of its own: the will is sent.
    GoodbyeWithWill(u8),
    /// The socket is gone.
    Lost(String),
    /// The client broke a rule: reason code, what.
    Broken(u8, String),
    /// A message that MQTT 3.1.1 has no word to refuse.
    Refused(u8, &'static str),
    /// Another connection has its client id [MQTT-3.1.4-3].
    TakenOver,
    /// Silence beyond one and a half keep-alives.
    Silent,
    /// Its identity is gone, or what proved it.
    NoLongerAllowed,
    /// Too much waits for its session.
    Quota,
    /// The hub stops.
    Stopping,
    /// Somebody asked for it on the page.
    Administrative,
}

impl End {
    /// What DISCONNECT tells an MQTT 5 client; `None`: nothing, it is gone.
    fn reason(&self) -> Option<u8> {
        match self {
            Self::Goodbye | Self::GoodbyeWithWill(_) | Self::Lost(_) => None,
            Self::Broken(reason, _) | Self::Refused(reason, _) => Some(*reason),
            Self::TakenOver => Some(reason::SESSION_TAKEN_OVER),
            Self::Silent => Some(reason::KEEP_ALIVE_TIMEOUT),
            Self::NoLongerAllowed => Some(reason::NOT_AUTHORIZED),
            Self::Quota => Some(reason::QUOTA_EXCEEDED),
            Self::Stopping => Some(reason::SERVER_SHUTTING_DOWN),
            Self::Administrative => Some(reason::ADMINISTRATIVE_ACTION),
        }
    }

    /// For the log and the counters.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Goodbye => "goodbye".into(),
            Self::GoodbyeWithWill(reason) => format!("goodbye with reason {reason:#04x}"),
            Self::Lost(why) => format!("lost: {why}"),
            Self::Broken(_, why) => why.clone(),
            Self::Refused(_, why) => (*why).to_owned(),
            Self::TakenOver => "taken over".into(),
            Self::Silent => "silent for one and a half keep-alives".into(),
            Self::NoLongerAllowed => "its access was taken away".into(),
            Self::Quota => "too much waits for it".into(),
            Self::Stopping => "the hub stops".into(),
            Self::Administrative => "disconnected by hand".into(),
        }
    }

    /// Whether somebody should look at it.
    const fn is_worth_a_warning(&self) -> bool {
        matches!(self, Self::Broken(..) | Self::Refused(..) | Self::NoLongerAllowed | Self::Quota)
    }
}

impl Core {
    /// A client has logged in.
    pub(super) fn arrive(&mut self, mut arrival: Arrival) {
        let connect = &mut arrival.connect;
        let assigned = match self.client_id(connect) {
            Ok(assigned) => assigned,
            Err(reason) => return self.turn_away(arrival, reason),
        };
        if let Some(will) = &connect.will
            && let Err(reason) = self.check_will(&arrival.login.rights, will)
        {
            return self.turn_away(arrival, reason);
        }
        let identity: Arc<str> = Arc::from(arrival.login.identity.name());
        if let Some(existing) = self.by_client.get(connect.client_id.as_str()).copied() {
            if self.session(existing).is_some_and(|session| session.identity != identity) {
                tracing::warn!(client = %connect.client_id, %identity, peer = %arrival.peer,
                    "this client id belongs to another identity");
                return self.turn_away(arrival, reason::CLIENT_IDENTIFIER_NOT_VALID);
            }
            if let Some(connection) = self.session(existing).and_then(|session| session.connection) {
                self.read(connection); // what it has acknowledged already counts
            }
            if let Some(connection) = self.session(existing).and_then(|session| session.connection) {
                self.end_connection(connection, End::TakenOver);
            }
        }
        let mut existing = self.by_client.get(connect.client_id.as_str()).copied();
        if connect.clean_start
            && let Some(old) = existing.take()
        {
            self.end_session(old);
        }
        let expiry_s = self.expiry(connect.session_expiry_s);
        if existing.is_none() && expiry_s > 0 && self.persistent_sessions() >= self.limits.sessions {
            return self.turn_away(arrival, reason::QUOTA_EXCEEDED);
        }
        self.accept(arrival, existing, identity, expiry_s, assigned);
    }

    /// The session expiry that is granted, seconds.
    fn expiry(&self, asked: u32) -> u32 {
        u64::from(asked).min(self.limits.session_expiry_max.as_secs()).try_into().unwrap_or(NEVER)
    }

    /// Checks the client id, or makes one; whether it was made.
    fn client_id(&self, connect: &mut ConnectOwned) -> Result<bool, u8> {
        if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(reason::CLIENT_IDENTIFIER_NOT_VALID);
        }
        if !connect.client_id.is_empty() {
            return Ok(false);
        }
        if connect.version == Version::V311 && !connect.clean_start {
            return Err(reason::CLIENT_IDENTIFIER_NOT_VALID); // [MQTT-3.1.3-8] of 3.1.1
        }
        let random = getrandom::u64().map_err(|_| reason::SERVER_UNAVAILABLE)?;
        connect.client_id = format!("auto-{random:016x}");
        Ok(true)
    }

    fn check_will(&self, rights: &super::super::access::Rights, will: &WillOwned) -> Result<(), u8> {
        let topic = will.topic.as_str();
        if topic.len() > TOPIC_BYTES_MAX || levels(topic) > LEVELS_MAX {
            return Err(reason::TOPIC_NAME_INVALID);
        }
        let is_view = self.served.iter().any(|(filter, _)| proto::mqtt::topic::matches(filter, topic));
        if is_view || !rights.may_publish(topic) {
            self.count.publishes_refused.increment();
            return Err(reason::NOT_AUTHORIZED);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        arrival: Arrival,
        existing: Option<SessionKey>,
        identity: Arc<str>,
        expiry_s: u32,
        assigned: bool,
    ) {
        let Arrival { transport, leftover, connect, login, peer, listener, slot } = arrival;
        let session_present = existing.is_some();
        let key = existing.unwrap_or_else(|| {
            self.next_session += 1;
            let id = SessionId(self.next_session - 1);
            self.insert_session(Session::new(
                id,
                connect.client_id.as_str().into(),
                Arc::clone(&identity),
                expiry_s,
            ))
        });
        let silence_max = self.silence_max(connect.keep_alive);
        let serial = self.wires.serial();
        let Some(session) = self.session_mut(key) else { return };
        let was_persistent = session_present && session.is_persistent();
        session.expiry_s = expiry_s;
        let (id, client_id) = (session.id, Arc::clone(&session.client_id));
        let connection = Connection {
            serial,
            transport,
            _slot: slot,
            version: connect.version,
            session: key,
            client_id: Arc::clone(&client_id),
            login,
            peer,
            listener,
            since: Instant::now(),
            will: connect.will.clone(),
            partial: leftover,
            is_queued: false,
            is_waiting: false,
            is_held_back: false,
            is_closing: false,
            is_accepted: false,
            heard: Instant::now(),
            silence_max,
            out: Vec::new(),
            sent: 0,
            can_write: true,
            is_dirty: false,
            stuck_since: None,
            receive_max: usize::from(connect.receive_maximum.min(self.limits.inflight)),
            packet_max: connect.packet_bytes_max.map_or(usize::MAX, |bytes| bytes as usize),
            aliases_in: Vec::new(),
            aliases_out: AliasesOut::new(connect.topic_alias_max.min(ALIASES_MAX)),
            waiting: 0,
            unanswered: 0,
            allowed_topic: Arc::from(""),
            traffic: Traffic::default(),
        };
        let fd = connection.transport.as_raw_fd();
        let place = self.wires.insert(connection);
        let registered = self.poll.registry().register(
            &mut SourceFd(&fd),
            Token(place),
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Some(session) = self.session_mut(key) {
            session.connection = Some(place);
        }
        if let Err(error) = registered {
            return self.end_connection(place, End::Lost(error.to_string()));
        }
        self.count.clients.set(i64::try_from(self.wires.len()).unwrap_or(i64::MAX));
        let connack = self.connack(&connect, (session_present, assigned, expiry_s));
        if expiry_s > 0 || was_persistent {
            self.record(Record::Session { id, client_id, identity, expiry_s });
        }
        if expiry_s > 0 && !session_present && !self.disk_failed {
            let connection = (place, serial);
            self.when_durable(Work::Accept { connection, connack: connack.into() });
        } else {
            self.welcome(place, &connack);
        }
    }

    fn silence_max(&self, keep_alive: u16) -> Option<Duration> {
        let seconds = self.keep_alive(keep_alive);
        (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 1500))
    }

    /// The keep-alive that is held to, seconds.
    fn keep_alive(&self, asked: u16) -> u16 {
        let max = u16::try_from(self.limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
        if asked == 0 { max } else { asked.min(max) }
    }

    fn connack(&self, connect: &ConnectOwned, (present, assigned, expiry_s): (bool, bool, u32)) -> Vec<u8> {
        let keep_alive = self.keep_alive(connect.keep_alive);
        let answer = ConnAckOut {
            session_present: present,
            session_expiry: (expiry_s != connect.session_expiry_s).then_some(expiry_s),
            receive_maximum: Some(self.limits.inflight),
            packet_bytes_max: u32::try_from(self.limits.packet_bytes).ok(),
            assigned_client_id: assigned.then_some(connect.client_id.as_str()),
            topic_alias_max: Some(ALIASES_MAX),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..ConnAckOut::default()
        };
        let mut out = Vec::new();
        encode::connack(&mut out, connect.version, &answer);
        out
    }

    /// The session is there: says so, and begins.
    pub(super) fn welcome(&mut self, key: usize, connack: &[u8]) {
        self.wires.answer(key, |out, _| out.extend_from_slice(connack));
        let Some(connection) = self.wires.get_mut(key) else { return };
        connection.is_accepted = true;
        connection.heard = Instant::now();
        let session = connection.session;
        tracing::info!(client = %connection.client_id, identity = connection.login.identity.name(),
            peer = %connection.peer, listener = %connection.listener, "MQTT client connected");
        let rights = Arc::clone(&connection.login.rights);
        let Some(state) = self.session_mut(session) else { return };
        state.disconnected_at = None;
        state.will = None; // [MQTT-3.1.3-9]
        let filters: Vec<Arc<str>> = state.subscriptions.keys().cloned().collect();
        for filter in filters {
            if rights.may_subscribe(&filter) {
                self.interest.add(&filter);
            } else {
                self.unsubscribe(session, &filter);
            }
        }
        self.may_go_on(session);
        self.want_read(key);
    }

    /// Refuses a client that the door let in.
    fn turn_away(&mut self, mut arrival: Arrival, reason: u8) {
        self.count.logins_refused.increment();
        let mut out = Vec::new();
        encode::connack(&mut out, arrival.connect.version, &ConnAckOut { reason, ..ConnAckOut::default() });
        arrival.transport.write(&out).ok(); // a fresh socket takes so little; if not, the client sees it closed
        arrival.transport.flush().ok();
        self.linger(arrival.transport);
    }

    /// Ends a connection when this turn is over.
    pub(super) fn end_soon(&mut self, key: usize, end: End) {
        if let Some(connection) = self.wires.get(key) {
            self.ending.push((key, connection.serial, end));
        }
    }

    /// A socket failed while it was written to.
    pub(super) fn lost(&mut self, key: usize, error: &std::io::Error) {
        self.end_connection(key, End::Lost(error.to_string()));
    }

    /// Ends a connection; its session too, if that is how it was meant.
    pub(super) fn end_connection(&mut self, key: usize, end: End) {
        if let Some(reason) = end.reason() {
            self.wires.answer(key, |out, version| {
                if version == Version::V5 {
                    encode::disconnect(out, version, reason, None);
                }
            });
            self.wires.flush(key).ok();
        }
        let Some(mut connection) = self.wires.remove(key) else { return };
        let fd = connection.transport.as_raw_fd();
        self.poll.registry().deregister(&mut SourceFd(&fd)).ok(); // it may be closed already
        self.count.clients.set(i64::try_from(self.wires.len()).unwrap_or(i64::MAX));
        let (client, peer, why) = (&connection.client_id, connection.peer, end.why());
        if end.is_worth_a_warning() {
            tracing::warn!(%client, %peer, %why, "MQTT client disconnected");
        } else {
            tracing::info!(%client, %peer, %why, "MQTT client gone");
        }
        let will = connection.will.take().filter(|_| !matches!(end, End::Goodbye));
        let (session, was_accepted) = (connection.session, connection.is_accepted);
        if matches!(end, End::Lost(_)) {
            drop(connection);
        } else {
            self.linger(connection.transport);
        }
        self.detach(session, key, will, was_accepted);
    }

    /// The session is without its connection from now on.
    fn detach(&mut self, key: SessionKey, connection: usize, will: Option<WillOwned>, was_accepted: bool) {
        let now = self.clock.now();
        let Some(session) = self.session_mut(key).filter(|session| session.connection == Some(connection))
        else {
            return;
        };
        session.connection = None;
        session.disconnected_at = Some(now);
        session.pages.clear();
        session.out.rewind();
        let (id, expiry_s) = (session.id, session.expiry_s);
        if was_accepted {
            let filters: Vec<Arc<str>> = session.subscriptions.keys().cloned().collect();
            filters.iter().for_each(|filter| self.interest.remove(filter));
        }
        if let Some(will) = will.filter(|_| was_accepted) {
            let delay_s = will.delay_s.min(expiry_s);
            let message = Arc::new(self.will_message(will, now, delay_s));
            if delay_s == 0 {
                self.publish_will(&message);
            } else if let Some(session) = self.session_mut(key) {
                let due = Instant::now() + Duration::from_secs(u64::from(delay_s));
                session.will = Some(DelayedWill { message, due });
            }
        }
        if expiry_s == 0 {
            self.end_session(key);
        } else {
            self.record(Record::Disconnected { id, at: now });
            self.save_progress(key);
        }
    }

    fn will_message(&self, will: WillOwned, now: Timestamp, delay_s: u32) -> Message {
        // Its expiry runs from its publication on [MQTT-3.1.3.2.4].
        let expires = |seconds: u32| Timestamp(now.0 + (i64::from(seconds) + i64::from(delay_s)) * 1_000_000);
        Message {
            topic: will.topic.into(),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.forwardable.into(),
            expires_at: will.message_expiry.map(expires),
            publisher: None,
        }
    }

    /// Publishes a will, with its time if it is an NDEATH and we are aware of that.
    pub(super) fn publish_will(&mut self, message: &Arc<Message>) {
        let message = self.with_death_time(message);
        self.publish_message(&message, true);
    }

    /// Forgets a session.
    pub(super) fn end_session(&mut self, key: SessionKey) {
        if let Some(connection) = self.session(key).and_then(|session| session.connection) {
            return self.end_connection(connection, End::TakenOver);
        }
        let Some(mut session) = self.sessions.try_remove(key.0 as usize) else { return };
        for filter in session.subscriptions.keys() {
            self.subscriptions.remove(key, filter);
            self.subscription_bytes -= filter.len() + super::super::limits::SUBSCRIPTION_OVERHEAD;
        }
        self.by_client.remove(&session.client_id);
        self.by_id.remove(&session.id);
        if session.is_persistent() {
            self.record(Record::Ended { id: session.id });
        }
        if let Some(will) = session.will.take() {
            self.publish_will(&will.message); // the session's end, if that comes before its delay [MQTT-3.1.2-8]
        }
    }

    /// The client asked for another expiry when it left.
    pub(super) fn change_expiry(&mut self, key: SessionKey, asked: u32) {
        let expiry_s = self.expiry(asked);
        let Some(session) = self.session_mut(key) else { return };
        if session.expiry_s == expiry_s {
            return;
        }
        session.expiry_s = expiry_s;
        let (id, client_id, identity) =
            (session.id, Arc::clone(&session.client_id), Arc::clone(&session.identity));
        self.record(Record::Session { id, client_id, identity, expiry_s });
        if expiry_s == 0 {
            self.record(Record::Ended { id }); // it ends with its connection, in this turn
        }
    }

    fn persistent_sessions(&self) -> usize {
        self.sessions.iter().filter(|(_, session)| session.is_persistent()).count()
    }

    /// Closes our half and leaves the socket open for a moment: closed at once, with bytes unread, the system would
    /// reset the connection, and the client might never see what we said last.
    fn linger(&mut self, mut transport: Transport) {
        transport.close();
        if self.upkeep.lingering.len() < LINGERING_MAX {
            self.upkeep.lingering.push_back((transport, Instant::now() + LINGER));
        }
    }

    /// The hub stops: everybody is told, what was acknowledged is on disk.
    pub(super) fn farewell(&mut self) {
        let keys: Vec<usize> = self.wires.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end_connection(key, End::Stopping);
        }
        for key in self.sessions.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.save_progress(SessionKey(u32::try_from(key).unwrap_or(u32::MAX)));
        }
        self.take_snapshot();
        self.journal.submit();
    }
}
