//! PUBLISH: may it, does the host take it, who gets it, does it need the disk (docs/specs/broker.md §2).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use durable_log::Position;
use model::Timestamp;
use proto::mqtt::encode::{self, AckKind};
use proto::mqtt::{Publish, QoS, Version, reason};

use super::super::Incoming;
use super::super::journal::{Message, Record, SessionId, Target};
use super::super::limits::{ALIASES_MAX, LEVELS_MAX, TOPIC_BYTES_MAX};
use super::super::subscriptions::SessionKey;
use super::connect::End;
use super::deliver::Delivery;
use super::packets::{Flow, WaitingFor, protocol_error};
use super::wires::Publication;
use super::{Core, mail};

/// What Sparkplug's topics begin with: the host hears all of them.
const SPARKPLUG: &str = "spBv1.0/";

/// Something to do when everything below a position is on disk.
pub(super) struct Due {
    pub(super) needs: Position,
    pub(super) work: Work,
}

/// What.
pub(super) enum Work {
    /// Deliver a message.
    Deliver { message: Arc<Message>, deliveries: Vec<Delivery> },
    /// Send this to the connection, if it is still there; `is_answer`: to a message of QoS 1 or 2.
    Answer { connection: (usize, u64), packet: Box<[u8]>, is_answer: bool },
    /// Welcome the connection.
    Accept { connection: (usize, u64), connack: Box<[u8]> },
    /// Send SUBACK, then what is retained.
    Subscribed { connection: (usize, u64), suback: Box<[u8]>, pages: Vec<super::super::session::Pages> },
}

/// An answer to be written in the client's version.
pub(super) struct Ack {
    kind: AckKind,
    packet_id: u16,
    reason: u8,
}

impl Work {
    pub(super) const fn ack(kind: AckKind, packet_id: u16, reason: u8) -> Ack {
        Ack { kind, packet_id, reason }
    }
}

/// What became of a message.
pub(super) struct Routed {
    /// Somebody gets it.
    pub(super) is_wanted: bool,
    /// It is acknowledged when the disk has it.
    pub(super) needs_disk: bool,
}

/// Who publishes.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) session: Option<SessionKey>,
    /// Messages before it wait for the disk: it waits behind them.
    pub(super) waits: bool,
    /// Identifier of a QoS 2 message of a persistent session.
    pub(super) received: Option<u16>,
}

impl Source {
    /// The broker, the hub, or a client that is gone.
    pub(super) const NOBODY: Source = Source { session: None, waits: false, received: None };
}

impl Core {
    pub(super) fn on_publish(&mut self, key: usize, publish: &Publish<'_>) -> Flow {
        let topic = match self.resolve_alias(key, publish) {
            Ok(None) => None,
            Ok(Some(topic)) => Some(topic),
            Err(flow) => return flow,
        };
        let topic: &str = topic.as_deref().unwrap_or(publish.topic);
        if topic.len() > TOPIC_BYTES_MAX || levels(topic) > LEVELS_MAX {
            return self.refuse(
                key,
                publish,
                reason::TOPIC_NAME_INVALID,
                "a topic of too many levels or bytes",
            );
        }
        if !self.may_publish(key, topic) {
            self.count.publishes_refused.increment();
            return self.refuse(
                key,
                publish,
                reason::NOT_AUTHORIZED,
                "publishing to a topic that its rights lack",
            );
        }
        let (session, unanswered, version) = match self.wires.get(key) {
            Some(connection) => (connection.session, connection.unanswered, connection.version),
            None => return Flow::On,
        };
        let Some(state) = self.session(session) else { return Flow::On };
        let persistent = state.is_persistent();
        if publish.qos != QoS::AtMostOnce {
            if publish.qos == QoS::ExactlyOnce && state.received.contains(&publish.packet_id) {
                // It came before: only the answer is repeated [MQTT-4.3.3-10].
                self.answer_when_durable(key, persistent, Work::ack(AckKind::PubRec, publish.packet_id, 0));
                return Flow::On;
            }
            if version == Version::V5
                && state.received.len() + unanswered >= usize::from(self.limits.inflight)
            {
                let why = "more messages without an answer than the receive maximum".to_owned();
                return Flow::End(End::Broken(reason::RECEIVE_MAXIMUM_EXCEEDED, why)); // [MQTT-3.3.4-7]
            }
        }
        if (publish.qos != QoS::AtMostOnce || publish.retain) && self.disk_is_behind() {
            return Flow::Wait(WaitingFor::Disk);
        }
        if publish.retain && !publish.payload.is_empty() {
            let bytes = publish.payload.len() + publish.properties.raw().len();
            if !self.retained.has_room(topic, bytes) {
                self.count.retained_refused.increment();
                if publish.qos != QoS::AtMostOnce {
                    return self.refuse(
                        key,
                        publish,
                        reason::QUOTA_EXCEEDED,
                        "no room for retained messages",
                    );
                }
            }
        }
        if topic.starts_with(SPARKPLUG)
            && let Some(flow) = self.hand_to_host(key, topic, publish)
        {
            return flow;
        }
        self.count.received.increment();
        let mut forwardable = Vec::new();
        let properties = match (publish.properties.has_forwardable(), publish.properties.raw()) {
            (false, _) => &[][..],
            (true, _) => {
                publish.properties.forwardable(&mut forwardable);
                &forwardable
            }
        };
        let publication = Publication {
            topic,
            payload: publish.payload,
            properties,
            qos: publish.qos,
            retain: publish.retain,
            expiry_s: publish.properties.message_expiry,
        };
        let received = (publish.qos == QoS::ExactlyOnce && persistent).then_some(publish.packet_id);
        let source = Source { session: Some(session), waits: unanswered > 0, received };
        if let Some(connection) = self.wires.get_mut(key) {
            connection.traffic.messages_in += 1;
        }
        let routed = self.route(&publication, source);
        self.keep_certificate(&publication);
        if routed.needs_disk && self.disk_failed && publish.qos != QoS::AtMostOnce {
            return self.refuse(
                key,
                publish,
                reason::IMPLEMENTATION_SPECIFIC_ERROR,
                "the journal cannot be written",
            );
        }
        let reason = if routed.is_wanted { 0 } else { reason::NO_MATCHING_SUBSCRIBERS };
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.answer_message(
                    key,
                    routed.needs_disk,
                    Work::ack(AckKind::PubAck, publish.packet_id, reason),
                );
            }
            QoS::ExactlyOnce => {
                if let Some(state) = self.session_mut(session) {
                    state.received.insert(publish.packet_id);
                }
                self.answer_message(
                    key,
                    routed.needs_disk,
                    Work::ack(AckKind::PubRec, publish.packet_id, reason),
                );
            }
        }
        Flow::On
    }

    /// The topic behind an alias, `None` if the packet names it itself [MQTT-3.3.2-7..-12].
    fn resolve_alias(&mut self, key: usize, publish: &Publish<'_>) -> Result<Option<Rc<str>>, Flow> {
        if publish.properties.subscription_ids().next().is_some() {
            return Err(protocol_error("a subscription identifier from a client")); // [MQTT-3.3.4-6]
        }
        let Some(alias) = publish.properties.topic_alias else { return Ok(None) };
        let Some(connection) = self.wires.get_mut(key) else { return Err(Flow::On) };
        let wrong = |what: &str| Err(Flow::End(End::Broken(reason::TOPIC_ALIAS_INVALID, what.to_owned())));
        if alias > ALIASES_MAX {
            return wrong("a topic alias above the maximum");
        }
        if connection.aliases_in.is_empty() {
            connection.aliases_in.resize(usize::from(ALIASES_MAX), None);
        }
        let Some(known) = connection.aliases_in.get_mut(usize::from(alias).wrapping_sub(1)) else {
            return wrong("topic alias 0");
        };
        if publish.topic.is_empty() {
            return match known {
                Some(topic) => Ok(Some(Rc::clone(topic))),
                None => Err(protocol_error("a topic alias that was not set")),
            };
        }
        *known = Some(Rc::from(publish.topic));
        Ok(None)
    }

    /// Asks once per topic and generation of rights, if the client keeps to one topic.
    fn may_publish(&mut self, key: usize, topic: &str) -> bool {
        let Some(connection) = self.wires.get_mut(key) else { return false };
        if *connection.allowed_topic == *topic {
            return true;
        }
        let is_view = self.served.iter().any(|(filter, _)| proto::mqtt::topic::matches(filter, topic));
        let allowed = !is_view && connection.login.rights.may_publish(topic);
        if allowed {
            connection.allowed_topic = Arc::from(topic);
        }
        allowed
    }

    /// A message that is not taken. QoS 0 is dropped; MQTT 5 is told; 3.1.1 cannot be told, and is not told a lie: its
    /// connection ends [MQTT-3.3.5-2].
    fn refuse(&mut self, key: usize, publish: &Publish<'_>, reason: u8, why: &'static str) -> Flow {
        let Some(connection) = self.wires.get(key) else { return Flow::On };
        tracing::debug!(client = %connection.client_id, topic = publish.topic, why, "message refused");
        let kind = match publish.qos {
            QoS::AtMostOnce => return Flow::On,
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => AckKind::PubRec,
        };
        if connection.version == Version::V311 {
            return Flow::End(End::Refused(reason, why));
        }
        self.answer_when_durable(key, false, Work::ack(kind, publish.packet_id, reason));
        Flow::On
    }

    /// What others publish in Sparkplug's topics goes to the host first: while that is behind, the client waits.
    fn hand_to_host(&mut self, key: usize, topic: &str, publish: &Publish<'_>) -> Option<Flow> {
        let known = self.wires.get(key).map(|connection| &connection.allowed_topic);
        let message = Incoming {
            topic: known.filter(|known| ***known == *topic).map_or_else(|| topic.into(), Arc::clone),
            payload: Bytes::copy_from_slice(publish.payload),
            retain: publish.retain,
        };
        let wake = self.mailbox.host_has_room();
        self.inbox.try_push(message, &wake).err().map(|_| Flow::Wait(WaitingFor::Host))
    }

    /// Publishes a will, or a message of the broker's own.
    pub(super) fn publish_message(&mut self, message: &Arc<Message>, is_of_client: bool) {
        if is_of_client && message.topic.starts_with(SPARKPLUG) {
            self.inbox.force(Incoming {
                topic: message.topic.as_ref().into(),
                payload: message.payload.clone(),
                retain: message.retain,
            });
        }
        let now = self.clock.now();
        if let Some(publication) = Publication::of(message, now) {
            self.route(&publication, Source::NOBODY);
        }
    }

    /// Sends a message to whoever gets it, now or when the disk has it.
    pub(super) fn route(&mut self, publication: &Publication<'_>, source: Source) -> Routed {
        let route = self.subscriptions.route(publication.topic);
        if !self.taps.is_empty() {
            mail::tap(&mut self.taps, publication);
        }
        let is_sparkplug = publication.topic.starts_with(SPARKPLUG);
        if publication.qos == QoS::AtMostOnce && !publication.retain {
            self.wires.begin();
            let is_wanted = self.fan_out(&route, publication, source.session) || is_sparkplug;
            return Routed { is_wanted, needs_disk: false };
        }
        // `$SYS` and what views serve is made anew at each start.
        let is_volatile = publication.topic.starts_with("$SYS/") || self.is_served(publication.topic);
        // One beyond the bound is passed on, but not kept: not in the journal either, or it would push out another one
        // at the next start.
        let bytes = publication.payload.len() + publication.properties.len();
        let is_kept = publication.retain
            && !is_volatile
            && (publication.payload.is_empty() || self.retained.has_room(publication.topic, bytes));
        let choice = self.choose(&route, publication, source.session);
        let is_wanted = !choice.deliveries.is_empty() || is_sparkplug;
        let needs_disk = is_kept || source.received.is_some() || source.waits || choice.has_persistent;
        if needs_disk && self.disk_failed {
            return Routed { is_wanted, needs_disk: true };
        }
        if needs_disk {
            self.keep_and_deliver(publication, source, choice.deliveries, is_kept);
        } else {
            if publication.retain && publication.topic.starts_with("$SYS/") {
                self.keep(&self.message(publication, None));
            }
            self.wires.begin();
            self.deliver_now(publication, choice.deliveries);
        }
        Routed { is_wanted, needs_disk }
    }

    /// Writes the message to the journal, once, with everybody who gets it; delivers it when it is there.
    pub(super) fn keep_and_deliver(
        &mut self,
        publication: &Publication<'_>,
        source: Source,
        mut deliveries: Vec<Delivery>,
        is_kept: bool,
    ) {
        let publisher = source.session.and_then(|key| self.session(key)).map(|session| session.id);
        let message = self.message(publication, publisher);
        let bytes = message.bytes();
        let mut targets = Vec::new();
        for delivery in &mut deliveries {
            if let Some(target) = self.queue(delivery, bytes) {
                targets.push(target);
            }
        }
        deliveries.retain(|delivery| !delivery.is_refused);
        if is_kept {
            self.keep(&message);
        }
        let received = source.received.zip(publisher).map(|(packet_id, id)| (id, packet_id));
        if is_kept || received.is_some() || !targets.is_empty() {
            let record =
                Record::Message { message: Arc::clone(&message), targets, retained: is_kept, received };
            let position = self.record(record);
            deliveries.iter_mut().for_each(|delivery| delivery.position = position);
        }
        if publication.qos == QoS::AtMostOnce {
            // A retained one: kept, but nobody waits for that.
            self.wires.begin();
            self.deliver_now(publication, deliveries);
        } else {
            self.when_durable(Work::Deliver { message, deliveries });
        }
    }

    /// Gives a persistent session's message its ordinal; `None` if the session's bound is reached, or it keeps nothing.
    fn queue(&mut self, delivery: &mut Delivery, bytes: usize) -> Option<Target> {
        if delivery.qos == QoS::AtMostOnce {
            return None;
        }
        let (messages_max, bytes_max) = (self.limits.session_messages, self.limits.session_bytes);
        let session = self.session_mut(delivery.session)?;
        if !session.is_persistent() {
            return None;
        }
        if session.out.queued() >= messages_max || session.out.queued_bytes() + bytes as u64 > bytes_max {
            delivery.is_refused = true;
            self.over_bound(delivery.session);
            return None;
        }
        delivery.ordinal = Some(session.out.assign(bytes));
        Some(delivery.target())
    }

    fn is_served(&self, topic: &str) -> bool {
        self.served.iter().any(|(filter, _)| proto::mqtt::topic::matches(filter, topic))
    }

    /// Keeps or removes the retained message of a topic.
    fn keep(&mut self, message: &Arc<Message>) {
        if self.retained.set(Arc::clone(message)).is_err() {
            self.count.retained_refused.increment();
        }
    }

    pub(super) fn message(
        &self,
        publication: &Publication<'_>,
        publisher: Option<SessionId>,
    ) -> Arc<Message> {
        let expires = |seconds: u32| Timestamp(self.clock.now().0 + i64::from(seconds) * 1_000_000);
        Arc::new(Message {
            topic: publication.topic.into(),
            payload: Bytes::copy_from_slice(publication.payload),
            qos: publication.qos,
            retain: publication.retain,
            properties: publication.properties.into(),
            expires_at: publication.expiry_s.map(expires),
            publisher,
        })
    }

    /// Does the work when everything appended so far is on disk: at once if it is, since nobody will say so again.
    pub(super) fn when_durable(&mut self, work: Work) {
        let needs = self.journal.next_position();
        if self.due.is_empty() && needs <= self.durable {
            self.work(work);
        } else {
            self.due.push_back(Due { needs, work });
        }
    }

    /// Answers a message of QoS 1 or 2.
    fn answer_message(&mut self, key: usize, needs_disk: bool, ack: Ack) {
        if needs_disk && let Some(connection) = self.wires.get_mut(key) {
            connection.unanswered += 1;
            self.answer_later(key, ack, true);
        } else {
            self.answer_when_durable(key, needs_disk, ack);
        }
    }

    /// Answers now, or behind what the client waits for already, or when the disk has what was appended.
    pub(super) fn answer_when_durable(&mut self, key: usize, needs_disk: bool, ack: Ack) {
        let waits = self.wires.get(key).is_some_and(|connection| connection.waiting > 0);
        if needs_disk || waits {
            self.answer_later(key, ack, false);
        } else {
            self.wires
                .answer(key, |out, version| encode::ack(out, version, ack.kind, ack.packet_id, ack.reason));
        }
    }

    fn answer_later(&mut self, key: usize, ack: Ack, is_answer: bool) {
        let Some(connection) = self.wires.get_mut(key) else { return };
        connection.waiting += 1;
        let mut packet = Vec::with_capacity(6);
        encode::ack(&mut packet, connection.version, ack.kind, ack.packet_id, ack.reason);
        let connection = (key, connection.serial);
        self.when_durable(Work::Answer { connection, packet: packet.into(), is_answer });
    }

    /// Everything below `end` is on disk: does what waited for that.
    pub(super) fn durable_to(&mut self, end: Position) {
        self.durable = end;
        while self.due.front().is_some_and(|due| due.needs <= end) {
            let Some(due) = self.due.pop_front() else { break };
            self.work(due.work);
        }
        for key in std::mem::take(&mut self.waiting_for_sync) {
            self.may_go_on(key);
        }
        self.disk_may_take_more();
    }

    /// Reads on with the clients that waited for the disk, if it takes more.
    pub(super) fn disk_may_take_more(&mut self) {
        if !self.disk_is_behind() {
            for key in std::mem::take(&mut self.waiting_for_disk) {
                self.want_read(key);
            }
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Deliver { message, deliveries } => self.deliver_later(&message, deliveries),
            Work::Answer { connection: (key, serial), packet, is_answer } => {
                let Some(connection) = self.wires.get_mut(key).filter(|c| c.serial == serial) else { return };
                connection.waiting -= 1;
                connection.unanswered -= usize::from(is_answer);
                self.wires.answer(key, |out, _| out.extend_from_slice(&packet));
            }
            Work::Accept { connection: (key, serial), connack } => {
                if self.wires.get(key).is_some_and(|connection| connection.serial == serial) {
                    self.welcome(key, &connack);
                }
            }
            Work::Subscribed { connection: (key, serial), suback, pages } => {
                let Some(connection) = self.wires.get_mut(key).filter(|c| c.serial == serial) else { return };
                connection.waiting -= 1;
                self.subscribed(key, &suback, pages);
            }
        }
    }
}

/// Levels of a topic or filter.
pub(super) fn levels(topic: &str) -> usize {
    topic.bytes().filter(|byte| *byte == b'/').count() + 1
}
