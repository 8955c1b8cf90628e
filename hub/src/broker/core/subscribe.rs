//! SUBSCRIBE and UNSUBSCRIBE; what is retained, sent in pages as fast as the socket takes it.

use std::sync::Arc;

use proto::mqtt::encode;
use proto::mqtt::topic::{overlap, shared, unshared};
use proto::mqtt::{QoS, Subscribe, Subscription, Unsubscribe, reason};

use super::super::journal::{Message, Record};
use super::super::limits::{
    LEVELS_MAX, OUT_BYTES_LOW, SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_BYTES_PER_CLIENT, SUBSCRIPTION_OVERHEAD,
    TOPIC_BYTES_MAX,
};
use super::super::session::{PageSource, Pages};
use super::super::subscriptions::{NODE_BYTES, Options, Own, Receiver, Route, SessionKey};
use super::Core;
use super::deliver::Choice;
use super::mail::ViewAsk;
use super::packets::{Flow, WaitingFor, too_many_filters};
use super::publish::{Work, levels};
use super::wires::{Form, Publication, Written};

impl Core {
    pub(super) fn on_subscribe(&mut self, key: usize, subscribe: &Subscribe<'_>) -> Flow {
        let Some(session) = self.wires.get(key).map(|connection| connection.session) else { return Flow::On };
        if subscribe.filters().count() > self.limits.subscriptions_per_client {
            return too_many_filters();
        }
        if self.is_persistent(session) && self.disk_is_behind() {
            return Flow::Wait(WaitingFor::Disk);
        }
        let identifier = subscribe.subscription_id();
        let mut codes = Vec::new();
        let mut pages = Vec::new();
        for asked in subscribe.filters() {
            match self.subscribe(key, session, &asked, identifier, &mut pages) {
                Ok(granted) => codes.push(granted as u8),
                Err(reason) => {
                    self.count.subscriptions_refused.increment();
                    codes.push(reason);
                }
            }
        }
        let mut suback = Vec::new();
        let Some(connection) = self.wires.get_mut(key) else { return Flow::On };
        encode::suback(&mut suback, connection.version, subscribe.packet_id, &codes);
        let waits = connection.waiting > 0;
        if (self.is_persistent(session) || waits) && !self.disk_failed {
            self.subscribed_later(key, suback, pages);
        } else {
            self.subscribed(key, &suback, pages);
        }
        Flow::On
    }

    fn subscribed_later(&mut self, key: usize, answer: Vec<u8>, pages: Vec<Pages>) {
        let Some(connection) = self.wires.get_mut(key) else { return };
        connection.waiting += 1;
        let connection = (key, connection.serial);
        self.when_durable(Work::Subscribed { connection, suback: answer.into(), pages });
    }

    /// Answers, and begins with what is retained.
    pub(super) fn subscribed(&mut self, key: usize, suback: &[u8], pages: Vec<Pages>) {
        self.wires.answer(key, |out, _| out.extend_from_slice(suback));
        let Some(session) = self.wires.get(key).map(|connection| connection.session) else { return };
        if let Some(state) = self.session_mut(session) {
            for new in pages {
                state.pages.retain(|old| old.filter != new.filter || !same_source(&old.source, &new.source));
                state.pages.push_back(new);
            }
        }
        self.may_go_on(session);
    }

    /// The granted QoS, or the reason why not.
    fn subscribe(
        &mut self,
        key: usize,
        session: SessionKey,
        asked: &Subscription<'_>,
        identifier: Option<u32>,
        pages: &mut Vec<Pages>,
    ) -> Result<QoS, u8> {
        let filter = asked.filter;
        if filter.len() > TOPIC_BYTES_MAX || levels(filter) > LEVELS_MAX {
            return Err(reason::TOPIC_FILTER_INVALID);
        }
        let Some(connection) = self.wires.get(key) else { return Err(reason::UNSPECIFIED_ERROR) };
        if !connection.login.rights.may_subscribe(filter) {
            return Err(reason::NOT_AUTHORIZED);
        }
        let Some(state) = self.session(session) else { return Err(reason::UNSPECIFIED_ERROR) };
        let known = state.subscriptions.get_key_value(filter).map(|(filter, _)| Arc::clone(filter));
        let all = self.subscription_bytes + self.subscriptions.tree_bytes();
        if known.is_none()
            && (state.subscriptions.len() >= self.limits.subscriptions_per_client
                || state.subscription_bytes + cost(filter) > SUBSCRIPTION_BYTES_PER_CLIENT
                || all + cost(filter) > SUBSCRIPTION_BYTES_MAX)
        {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let (id, persistent) = (state.id, state.is_persistent());
        if persistent && self.disk_failed {
            return Err(reason::IMPLEMENTATION_SPECIFIC_ERROR);
        }
        let is_new = known.is_none();
        let filter = known.unwrap_or_else(|| Arc::from(filter));
        let options = Options {
            qos: asked.qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retain_handling: asked.retain_handling as u8,
            identifier,
        };
        self.remember_subscription(session, Arc::clone(&filter), options);
        if persistent {
            let (options, subscription_id) = (options.byte(), identifier);
            self.record(Record::Subscribed { id, filter: Arc::clone(&filter), options, subscription_id });
        }
        if is_new {
            self.interest.add(&filter);
        }
        let wants_retained = match options.retain_handling {
            0 => true,
            1 => is_new,
            _ => false,
        };
        if wants_retained && shared(&filter).is_none() {
            for (view, (served, _)) in self.served.iter().enumerate() {
                if overlap(served, &filter) {
                    let source = PageSource::View { view, after: None, asked: false };
                    pages.push(Pages { filter: Arc::clone(&filter), options, source });
                }
            }
            let source = PageSource::Retained { after: None };
            pages.push(Pages { filter, options, source });
        }
        Ok(options.qos)
    }

    /// Puts a subscription in its session and in the tree.
    pub(super) fn remember_subscription(&mut self, key: SessionKey, filter: Arc<str>, options: Options) {
        if self.subscriptions.add(key, &filter, options) {
            self.subscription_bytes += filter.len() + SUBSCRIPTION_OVERHEAD;
        }
        if let Some(session) = self.session_mut(key) {
            let bytes = cost(&filter);
            if session.subscriptions.insert(filter, options).is_none() {
                session.subscription_bytes += bytes;
            }
        }
    }

    pub(super) fn on_unsubscribe(&mut self, key: usize, unsubscribe: &Unsubscribe<'_>) -> Flow {
        let Some(session) = self.wires.get(key).map(|connection| connection.session) else { return Flow::On };
        if unsubscribe.filters().count() > self.limits.subscriptions_per_client {
            return too_many_filters();
        }
        if self.is_persistent(session) && self.disk_is_behind() {
            return Flow::Wait(WaitingFor::Disk);
        }
        let mut codes = Vec::new();
        for filter in unsubscribe.filters() {
            let existed = self.unsubscribe(session, filter);
            if existed {
                self.interest.remove(filter);
            }
            codes.push(if existed { 0 } else { reason::NO_SUBSCRIPTION_EXISTED });
        }
        let mut unsuback = Vec::new();
        let Some(connection) = self.wires.get_mut(key) else { return Flow::On };
        encode::unsuback(&mut unsuback, connection.version, unsubscribe.packet_id, &codes);
        let waits = connection.waiting > 0;
        if (waits || self.is_persistent(session)) && !self.disk_failed {
            self.subscribed_later(key, unsuback, Vec::new());
        } else {
            self.wires.answer(key, |out, _| out.extend_from_slice(&unsuback));
        }
        Flow::On
    }

    /// Takes a subscription out of its session and the tree; whether there was one.
    pub(super) fn unsubscribe(&mut self, key: SessionKey, filter: &str) -> bool {
        let Some(session) = self.session_mut(key) else { return false };
        let Some((filter, _)) = session.subscriptions.remove_entry(filter) else { return false };
        session.subscription_bytes -= cost(&filter);
        session.pages.retain(|pages| pages.filter != filter);
        let (id, persistent) = (session.id, session.is_persistent());
        self.subscriptions.remove(key, &filter);
        self.subscription_bytes -= filter.len() + SUBSCRIPTION_OVERHEAD;
        if persistent {
            self.record(Record::Unsubscribed { id, filter });
        }
        true
    }

    /// Sends the next page of what is retained for a subscription.
    pub(super) fn send_page(&mut self, key: SessionKey, outlet: usize) {
        let Some(pages) = self.session_mut(key).and_then(|session| session.pages.pop_front()) else { return };
        match pages.source {
            PageSource::Retained { after } => {
                self.send_retained(key, outlet, pages.filter, pages.options, after)
            }
            PageSource::View { view, after, asked } => {
                self.ask_view(key, outlet, pages.filter, pages.options, (view, after, asked));
            }
        }
    }

    fn send_retained(
        &mut self,
        key: SessionKey,
        outlet: usize,
        filter: Arc<str>,
        options: Options,
        after: Option<Box<str>>,
    ) {
        let mut found: Vec<Arc<Message>> = Vec::new();
        let mut room = OUT_BYTES_LOW;
        let next = self.retained.page(&filter, after.as_deref(), |message| {
            if room == 0 {
                return false;
            }
            room = room.saturating_sub(message.bytes());
            found.push(Arc::clone(message));
            true
        });
        let Some(rights) = self.wires.get(outlet).map(|connection| Arc::clone(&connection.login.rights))
        else {
            return;
        };
        let now = self.clock.now();
        let (mut last, mut is_stopped) = (after, false);
        for message in &found {
            match Publication::of(message, now) {
                None => self.retained.remove(&message.topic), // expired
                Some(publication) if rights.may_receive(&message.topic) => {
                    let publication = Publication { retain: true, ..publication };
                    if !self.give_retained(key, outlet, &publication, options) {
                        is_stopped = true;
                        break;
                    }
                }
                Some(_) => {}
            }
            last = Some(message.topic.clone());
        }
        let next = if is_stopped { Some(last.unwrap_or_default()) } else { next };
        if let Some(after) = next
            && let Some(session) = self.session_mut(key)
        {
            let source = PageSource::Retained { after: Some(after) };
            session.pages.push_front(Pages { filter, options, source });
        }
        if !is_stopped {
            self.may_go_on(key); // else an acknowledgement or the socket will say
        }
    }

    /// Sends one retained message to a new subscriber; `false`: there is no room now.
    fn give_retained(
        &mut self,
        key: SessionKey,
        outlet: usize,
        publication: &Publication<'_>,
        options: Options,
    ) -> bool {
        let receiver = Receiver {
            session: key,
            qos: options.qos,
            retain_as_published: true,
            identifiers: options.identifier.into_iter().collect(),
            own: Own::Same,
        };
        let qos = options.qos.min(publication.qos);
        if qos == QoS::AtMostOnce {
            self.wires.begin();
            let form = Form {
                qos,
                retain: true,
                duplicate: false,
                packet_id: 0,
                identifiers: &receiver.identifiers,
            };
            if !self.wires.has_room(outlet, publication.topic.len() + publication.payload.len() + 16) {
                return false;
            }
            return self.wires.publish(outlet, publication, &form) != Written::Full;
        }
        // Its place among the session's messages of QoS 1 and 2, like any other.
        let Some(session) = self.session(key) else { return true };
        let is_free =
            self.wires.get(outlet).is_some_and(|connection| session.out.has_window(connection.receive_max));
        if session.out.cursor().is_some() || !is_free {
            return false;
        }
        if self.disk_is_half_behind() {
            return false; // it would be too many at a time; asked again by the upkeep
        }
        let route = Route { receivers: vec![receiver], groups: Vec::new() };
        let Choice { deliveries, has_persistent } = self.choose(&route, publication, None);
        if has_persistent {
            // Its ordinal is taken, and it is sent when the disk has it.
            self.keep_and_deliver(publication, super::publish::Source::NOBODY, deliveries, false);
            return true;
        }
        self.wires.begin();
        self.deliver_now(publication, deliveries);
        true
    }

    fn ask_view(
        &mut self,
        key: SessionKey,
        outlet: usize,
        filter: Arc<str>,
        options: Options,
        (view, after, asked): (usize, Option<u64>, bool),
    ) {
        let Some((id, serial)) =
            self.session(key).map(|session| session.id).zip(self.wires.get(outlet).map(|c| c.serial))
        else {
            return;
        };
        let mut is_asked = asked;
        if !asked && let Some((_, served)) = self.served.get(view) {
            let ask = ViewAsk {
                view: Arc::clone(served),
                filter: unshared(&filter).to_owned(),
                after,
                bytes_max: OUT_BYTES_LOW,
                reply: (id, serial, view),
            };
            is_asked = self.views.try_send(ask).is_ok(); // else it is asked again with the next tick
        }
        if let Some(session) = self.session_mut(key) {
            // Behind others, so that it does not keep them waiting while it renders.
            let source = PageSource::View { view, after, asked: is_asked };
            session.pages.push_back(Pages { filter, options, source });
            if session.pages.iter().any(|pages| matches!(pages.source, PageSource::Retained { .. })) {
                self.may_go_on(key);
            }
        }
    }

    /// A page of a view has come.
    pub(super) fn view_page(
        &mut self,
        (id, serial, view): (super::SessionId, u64, usize),
        filter: &str,
        messages: Vec<(String, Vec<u8>)>,
        next: Option<u64>,
    ) {
        let Some(key) = self.by_id.get(&id).copied() else { return };
        let Some(session) = self.session_mut(key) else { return };
        let Some(outlet) = session.connection else { return };
        let is_it = |pages: &Pages| {
            unshared(&pages.filter) == filter
                && matches!(pages.source, PageSource::View { view: v, asked: true, .. } if v == view)
        };
        let Some(mut pages) = session.pages.iter().position(is_it).and_then(|at| session.pages.remove(at))
        else {
            return;
        };
        if self.wires.get(outlet).is_none_or(|connection| connection.serial != serial) {
            return;
        }
        let identifiers: Box<[u32]> = pages.options.identifier.into_iter().collect();
        for (topic, payload) in &messages {
            let publication = Publication {
                topic,
                payload,
                properties: &[],
                qos: QoS::AtMostOnce,
                retain: true,
                expiry_s: None,
            };
            self.wires.begin();
            let form = Form {
                qos: QoS::AtMostOnce,
                retain: true,
                duplicate: false,
                packet_id: 0,
                identifiers: &identifiers,
            };
            self.wires.publish(outlet, &publication, &form);
        }
        if next.is_some()
            && let Some(session) = self.session_mut(key)
        {
            pages.source = PageSource::View { view, after: next, asked: false };
            session.pages.push_front(pages);
        }
        self.wires.touch(outlet);
        self.may_go_on(key);
    }
}

/// What a filter costs that shares no level with another one: the tree has a node for each level.
fn cost(filter: &str) -> usize {
    filter.len() + SUBSCRIPTION_OVERHEAD + levels(filter) * NODE_BYTES
}

/// Whether two page sources serve the same: a repeated subscription begins again.
fn same_source(one: &PageSource, other: &PageSource) -> bool {
    match (one, other) {
        (PageSource::Retained { .. }, PageSource::Retained { .. }) => true,
        (PageSource::View { view: one, .. }, PageSource::View { view: other, .. }) => one == other,
        _ => false,
    }
}
