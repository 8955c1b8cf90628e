//! One message to one session: now, when the disk has it, from the journal later, or not at all.

use std::sync::Arc;

use durable_log::Position;
use proto::mqtt::QoS;

use super::super::journal::{Message, Record, ReplayBatch, ReplayRequest, SessionId, Target};
use super::super::limits::{OUT_BYTES_LOW, REPLAY_BYTES, REPLAY_MESSAGES, REPLAYS_MAX};
use super::super::session::{Sending, Session};
use super::super::subscriptions::{Own, Receiver, Route, SessionKey};
use super::Core;
use super::connect::End;
use super::publish::Work;
use super::wires::{Form, Publication, Written};

/// A session that gets a message.
pub(super) struct Delivery {
    pub(super) session: SessionKey,
    id: SessionId,
    /// Granted.
    pub(super) qos: QoS,
    retain: bool,
    identifiers: Box<[u32]>,
    /// The message's number in the session, if it is persistent.
    pub(super) ordinal: Option<u64>,
    /// Where the message lies in the journal.
    pub(super) position: Position,
    /// The session's bound is reached.
    pub(super) is_refused: bool,
}

impl Delivery {
    pub(super) fn target(&self) -> Target {
        Target {
            session: self.id,
            qos: self.qos,
            retain: self.retain,
            subscription_ids: self.identifiers.clone(),
        }
    }
}

/// Who gets a message.
pub(super) struct Choice {
    pub(super) deliveries: Vec<Delivery>,
    /// Some session that outlives the process gets it with QoS 1 or 2.
    pub(super) has_persistent: bool,
}

impl Core {
    /// The client of a session, if it may be sent to.
    pub(super) fn outlet(&self, session: &Session) -> Option<usize> {
        session.connection.filter(|key| self.wires.get(*key).is_some_and(|connection| connection.is_accepted))
    }

    /// QoS 0, not retained: straight into the buffers of those who are there.
    pub(super) fn fan_out(
        &mut self,
        route: &Route,
        publication: &Publication<'_>,
        source: Option<SessionKey>,
    ) -> bool {
        for receiver in &route.receivers {
            if let Some(receiver) = own_part(receiver, source) {
                self.send_once(receiver, publication);
            }
        }
        for group in &route.groups {
            let turn = group.turn.get();
            group.turn.set(turn.wrapping_add(1));
            let members = (0..group.members.len()).map(|at| turn.wrapping_add(at) % group.members.len());
            let connected = members.filter_map(|at| group.members.get(at)).find(|member| {
                self.session(member.session).is_some_and(|session| self.outlet(session).is_some())
            });
            if let Some(member) = connected {
                self.send_once(member, publication);
            }
        }
        !route.is_empty()
    }

    fn send_once(&mut self, receiver: &Receiver, publication: &Publication<'_>) {
        let Some(session) = self.session(receiver.session) else { return };
        let Some(key) = self.outlet(session) else { return };
        let form = Form {
            qos: QoS::AtMostOnce,
            retain: publication.retain && receiver.retain_as_published,
            duplicate: false,
            packet_id: 0,
            identifiers: &receiver.identifiers,
        };
        self.wires.publish(key, publication, &form);
    }

    /// Who gets a message, each with what was granted; of a shared subscription one member.
    pub(super) fn choose(
        &self,
        route: &Route,
        publication: &Publication<'_>,
        source: Option<SessionKey>,
    ) -> Choice {
        let mut choice =
            Choice { deliveries: Vec::with_capacity(route.receivers.len()), has_persistent: false };
        for receiver in &route.receivers {
            if let Some(receiver) = own_part(receiver, source) {
                self.add_choice(&mut choice, receiver, publication);
            }
        }
        for group in &route.groups {
            let turn = group.turn.get();
            group.turn.set(turn.wrapping_add(1));
            // Somebody who is there and takes more; else somebody who is there; else whose turn it is.
            let best = (0..group.members.len())
                .filter_map(|at| group.members.get(turn.wrapping_add(at) % group.members.len()))
                .enumerate()
                .min_by_key(|(place, member)| (self.burden(member.session), *place));
            if let Some((_, member)) = best {
                self.add_choice(&mut choice, member, publication);
            }
        }
        choice
    }

    /// 0: takes messages now; 1: is behind; 2: is away; 3: cannot get any.
    fn burden(&self, key: SessionKey) -> u8 {
        match self.session(key) {
            None => 3,
            Some(session) => match self.outlet(session) {
                Some(_) if session.out.cursor().is_none() => 0,
                Some(_) => 1,
                None if session.is_persistent() => 2,
                None => 3,
            },
        }
    }

    fn add_choice(&self, choice: &mut Choice, receiver: &Receiver, publication: &Publication<'_>) {
        let Some(session) = self.session(receiver.session) else { return };
        let qos = receiver.qos.min(publication.qos);
        let persistent = session.is_persistent();
        if (qos == QoS::AtMostOnce || !persistent) && self.outlet(session).is_none() {
            return;
        }
        choice.has_persistent |= persistent && qos != QoS::AtMostOnce;
        choice.deliveries.push(Delivery {
            session: receiver.session,
            id: session.id,
            qos,
            retain: publication.retain && receiver.retain_as_published,
            identifiers: receiver.identifiers.clone(),
            ordinal: None,
            position: Position::ZERO,
            is_refused: false,
        });
    }

    /// Delivers what does not need the disk. A session that is behind gets it from the journal, without anybody waiting.
    pub(super) fn deliver_now(&mut self, publication: &Publication<'_>, deliveries: Vec<Delivery>) {
        let mut spilled = Vec::new();
        for delivery in deliveries {
            if !self.offer(publication, &delivery) {
                spilled.push(delivery);
            }
        }
        if !spilled.is_empty() {
            let message = self.message(publication, None);
            self.spill(message, spilled);
        }
    }

    /// Delivers what the disk has now.
    pub(super) fn deliver_later(&mut self, message: &Arc<Message>, deliveries: Vec<Delivery>) {
        let publication = Publication::of(message, self.clock.now());
        self.wires.begin();
        let mut spilled = Vec::new();
        for delivery in deliveries {
            if self.session(delivery.session).is_none_or(|session| session.id != delivery.id) {
                continue; // it has ended
            }
            match (&publication, delivery.ordinal) {
                (None, None) => {}
                (None, Some(ordinal)) => self.skip(&delivery, ordinal, message.bytes()),
                (Some(publication), None) => {
                    if !self.offer(publication, &delivery) {
                        spilled.push(delivery);
                    }
                }
                (Some(publication), Some(ordinal)) => {
                    self.send_or_leave(publication, &delivery, ordinal, message.bytes())
                }
            }
        }
        if !spilled.is_empty() {
            self.spill(Arc::clone(message), spilled);
        }
    }

    /// An expired message of a persistent session.
    fn skip(&mut self, delivery: &Delivery, ordinal: u64, bytes: usize) {
        if let Some(session) = self.session_mut(delivery.session)
            && session.out.is_current(ordinal)
        {
            session.out.skip(delivery.position, bytes);
            session.unsaved = true;
        }
    }

    /// A persistent session's message: sent if it is its turn and there is room, else left in the journal.
    fn send_or_leave(
        &mut self,
        publication: &Publication<'_>,
        delivery: &Delivery,
        ordinal: u64,
        bytes: usize,
    ) {
        let Some(session) = self.session(delivery.session) else { return };
        if !session.out.is_current(ordinal) {
            return; // it is read from the journal, or was already
        }
        let outlet = self.outlet(session).filter(|key| self.takes(*key, session));
        let room = outlet.is_some_and(|key| self.wires.has_room(key, bytes));
        let position = delivery.position;
        let Some(session) = self.session_mut(delivery.session) else { return };
        match outlet {
            Some(key) if room => {
                let sending = session.out.send(delivery.qos, position, bytes);
                self.send(key, publication, (delivery.qos, delivery.retain, &delivery.identifiers), sending);
            }
            _ => {
                session.out.fall_behind(position);
                self.may_go_on(delivery.session);
            }
        }
    }

    /// Whether the client's window takes one more.
    fn takes(&self, key: usize, session: &Session) -> bool {
        self.wires.get(key).is_some_and(|connection| session.out.has_window(connection.receive_max))
    }

    /// Sends to a session that ends with its connection, or QoS 0 to any; `false`: it is behind.
    fn offer(&mut self, publication: &Publication<'_>, delivery: &Delivery) -> bool {
        let Some(session) = self.session(delivery.session) else { return true };
        let Some(key) = self.outlet(session) else { return true };
        let as_granted = (delivery.qos, delivery.retain, &*delivery.identifiers);
        if delivery.qos == QoS::AtMostOnce {
            self.send(key, publication, as_granted, Sending::Publish { packet_id: 0, duplicate: false });
            return true;
        }
        let bytes = publication.topic.len() + publication.payload.len() + publication.properties.len();
        if session.out.cursor().is_some()
            || !self.takes(key, session)
            || !self.wires.has_room(key, bytes + 16)
        {
            return false;
        }
        let Some(session) = self.session_mut(delivery.session) else { return true };
        session.out.assign(bytes);
        let sending = session.out.send(delivery.qos, Position::ZERO, bytes);
        self.send(key, publication, as_granted, sending);
        true
    }

    /// Writes one message with an ordinal of its own, or what stands for it.
    fn send(
        &mut self,
        key: usize,
        publication: &Publication<'_>,
        (qos, retain, identifiers): (QoS, bool, &[u32]),
        sending: Sending,
    ) {
        let (packet_id, duplicate) = match sending {
            Sending::Publish { packet_id, duplicate } => (packet_id, duplicate),
            Sending::Release { packet_id } => {
                // The PUBREC may have come in the last moment before the connection was made anew.
                let needs_disk = self.durable < self.journal.next_position() && !self.disk_failed;
                let release = Work::ack(proto::mqtt::encode::AckKind::PubRel, packet_id, 0);
                self.answer_when_durable(key, needs_disk, release);
                return;
            }
            Sending::Nothing => return,
        };
        let form = Form { qos, retain, duplicate, packet_id, identifiers };
        if self.wires.publish(key, publication, &form) == Written::TooLong && packet_id != 0 {
            // The client would never acknowledge it.
            let Some(session) = self.wires.get(key).map(|connection| connection.session) else { return };
            if let Some(session) = self.session_mut(session) {
                let gone = session.out.acknowledged(packet_id) || session.out.refused(packet_id);
                session.unsaved |= gone;
            }
        }
    }

    /// Leaves a message in the journal for sessions that are behind.
    fn spill(&mut self, message: Arc<Message>, mut deliveries: Vec<Delivery>) {
        let bytes = message.bytes();
        let (messages_max, bytes_max) = (self.limits.session_messages, self.limits.session_bytes);
        deliveries.retain(|delivery| {
            let fits = self.session(delivery.session).is_some_and(|session| {
                session.out.queued() < messages_max && session.out.queued_bytes() + bytes as u64 <= bytes_max
            });
            if !fits {
                self.over_bound(delivery.session);
            }
            fits
        });
        if deliveries.is_empty() || self.disk_failed {
            return;
        }
        let targets = deliveries.iter().map(Delivery::target).collect();
        let position = self.record(Record::Message { message, targets, retained: false, received: None });
        for delivery in deliveries {
            if let Some(session) = self.session_mut(delivery.session) {
                session.out.assign(bytes);
                session.out.fall_behind(position);
            }
            self.waiting_for_sync.push(delivery.session);
        }
    }

    /// A session has as much waiting as it may have: a client that is there is told so.
    pub(super) fn over_bound(&mut self, key: SessionKey) {
        self.count.over_bound.increment();
        let Some(session) = self.session_mut(key) else { return };
        session.refused += 1;
        if session.refused == 1 {
            tracing::warn!(client = %session.client_id, "too much waits for this session; more is not queued");
        }
        if let Some(connection) = session.connection {
            self.end_soon(connection, End::Quota);
        }
    }

    /// Goes on with a session that waited: pages of retained messages, then what lies in the journal.
    pub(super) fn go_on(&mut self, key: SessionKey) {
        let Some(session) = self.session(key) else { return };
        let Some(outlet) = self.outlet(session) else { return };
        if self.wires.get(outlet).is_none_or(|connection| connection.out_bytes() > OUT_BYTES_LOW) {
            return; // when the socket has taken it
        }
        if !session.pages.is_empty() {
            self.send_page(key, outlet); // it may have to wait for what lies in the journal: that goes on below
        }
        let Some(session) = self.session(key) else { return };
        let Some(connection) = self.wires.get(outlet) else { return };
        let window = session.out.window(connection.receive_max);
        let Some(from) = session.out.cursor().filter(|_| !session.out.reading && window > 0) else { return };
        if self.replays >= REPLAYS_MAX {
            if let Some(session) = self.session_mut(key)
                && !session.waits_for_replay
            {
                session.waits_for_replay = true;
                self.waiting_for_replay.push_back(key);
            }
            return;
        }
        let request = ReplayRequest {
            session: session.id,
            token: connection.serial,
            from,
            messages_max: window.min(REPLAY_MESSAGES),
            bytes_max: REPLAY_BYTES,
        };
        self.replays += 1;
        self.journal.replay(request);
        if let Some(session) = self.session_mut(key) {
            session.out.reading = true;
        }
    }

    /// Begins reads of the journal as long as there are places. Who waited may be gone or up to date by now: then the
    /// place is the next one's.
    pub(super) fn begin_replays(&mut self) {
        while self.replays < REPLAYS_MAX
            && let Some(key) = self.waiting_for_replay.pop_front()
        {
            if let Some(session) = self.session_mut(key) {
                session.waits_for_replay = false;
            }
            self.go_on(key);
        }
    }

    /// What was read for a session.
    pub(super) fn replayed(&mut self, batch: ReplayBatch) {
        self.replays -= 1;
        let Some(key) = self.by_id.get(&batch.session).copied() else { return };
        let Some(session) = self.session(key) else { return };
        let Some(outlet) = self.outlet(session) else { return };
        let Some(connection) = self.wires.get(outlet).filter(|c| c.serial == batch.token) else { return };
        let (rights, receive_max) = (Arc::clone(&connection.login.rights), connection.receive_max);
        let now = self.clock.now();
        let (mut next, mut has_room) = (batch.next, true);
        for (position, message, target) in &batch.messages {
            let bytes = message.bytes();
            let has_window = self.session(key).is_some_and(|session| session.out.has_window(receive_max));
            has_room = self.wires.has_room(outlet, bytes);
            if !has_window || !has_room {
                next = *position;
                break;
            }
            let Some(session) = self.session_mut(key) else { return };
            let publication = match session.out.was_sent() {
                true => Some(Publication::again(message, now)),
                false => Publication::of(message, now),
            };
            let publication = publication.filter(|_| rights.may_receive(&message.topic));
            match publication {
                None => {
                    session.out.skip(*position, bytes);
                    session.unsaved = true;
                }
                Some(publication) => {
                    let sending = session.out.send(target.qos, *position, bytes);
                    self.wires.begin();
                    let as_granted = (target.qos, target.retain, &*target.subscription_ids);
                    self.send(outlet, &publication, as_granted, sending);
                }
            }
        }
        let durable = self.durable;
        let Some(session) = self.session_mut(key) else { return };
        session.out.reading = false;
        let caught_up = if session.is_persistent() {
            next >= durable // what comes behind that is offered when it is durable
        } else {
            session.out.next() == session.out.end()
        };
        session.out.read_to(next, caught_up);
        if !caught_up && batch.at_durable_end && next == batch.next && next >= durable {
            self.waiting_for_sync.push(key);
        } else if has_room {
            self.may_go_on(key);
        } // else when the socket has taken something: asked again now, it would be the same
    }
}

/// What a session gets of a message: less of its own ones, if it said no-local.
fn own_part(receiver: &Receiver, source: Option<SessionKey>) -> Option<&Receiver> {
    if source != Some(receiver.session) {
        return Some(receiver);
    }
    match &receiver.own {
        Own::Same => Some(receiver),
        Own::Nothing => None,
        Own::Less(less) => Some(less),
    }
}
