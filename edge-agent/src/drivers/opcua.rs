//! `opcua`: a client of OPC UA servers, by subscription where the server has room for it, by reading where not.
//!
//! ```text
//! open:  [old session, plain] ─► same subscriptions ─► what was sent into the void is asked for again
//!        endpoints ─► safest one ─► trusted? ─► channel ─► session ─► limits ─► nodes ─► [subscriptions taken over]
//! read:  items not watched yet, a lot each call ─► values that came ─► polled items ─► a piece of history
//! ready: the connection moves, notifications arrive; returns when there are values or it failed
//! ```
//!
//! - A value's time is the source's. A value that was there before the connection was lost, and is the first after it, is
//!   confirmed with the server's time: an old time would not say that it is good again.
//! - A node that cannot be had is its points' quality; it is tried again every half minute.
//! - Nothing is asked for while `intake` is full, and nothing is acknowledged before it is on disk. The server's queues
//!   overflow then, which it says at the value after the hole: `good:overflow`, and a counter.
//! - A point may be a method, which commands call ([`method`]); it is neither watched nor read.
//! - Where the server keeps a history, an outage is filled from it: see [`history`].
//!
//! Parts: `address`, `settings` (configuration); `pki`, `endpoint` (trust and login); `session`, `link`, `frames`, `raw_body`,
//! `fault` (connection); `calls`, `limits` (services in pieces); `items`, `structures`, `value` (nodes and values); `monitor`,
//! `intake` (subscriptions); `method`; `history`; [`browse`] (for `forebay browse`).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use model::{Quality, Reason, Value};
use opcua::client::services::Write;
use opcua::types::{
    AttributeId, DataValue, NodeId, NumericRange, ReadValueId, StatusCode, VariableId, Variant, WriteValue,
};
use runtime::config_file::{Problems, Section};
use tokio::time::Instant;

use super::{DeviceSetup, Driver, DriverError, DriverKind, NextRead, READINGS_MAX, Reading, Readings};
use crate::points::PointConfig;
use address::{Address, Part};
use history::Memory;
use intake::{Intake, Notified, Waiting};
use items::{Plan, Point};
use pki::Expiry;
use session::{Parked, Session};
use settings::Settings;

pub mod browse;

mod address;
mod calls;
mod endpoint;
mod fault;
mod frames;
mod history;
mod intake;
mod items;
mod limits;
mod link;
mod method;
mod monitor;
mod pki;
mod raw_body;
mod session;
mod settings;
mod structures;
mod units;
mod value;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind = DriverKind {
    name: "opcua",
    summary: "OPC UA client: subscriptions, reads, writes, history; signed and encrypted",
    validate,
};

/// A server that has not spoken for so long is asked whether it is there, before a poll says that it is.
const PROBE_AFTER: Duration = Duration::from_millis(2500);
/// Answers of several subscriptions that come together go to disk together.
const GATHER: Duration = Duration::from_millis(5);

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    let settings = Settings::read(section, setup, problems);
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        let may_call = settings.as_ref().is_none_or(|settings| settings.methods);
        match parse_point(point, may_call) {
            Ok(found) => points.push(found),
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    (points.len() == setup.points.len()).then_some(())?;
    super::places::warn_of_twins(setup, points.iter().map(Point::key), problems);
    let memory = Memory::new(setup.points.iter().map(|point| point.address.as_str()));
    Some(Box::new(OpcUa::new(settings?, setup.clock.clone(), points, memory)))
}

fn parse_point(point: &PointConfig, may_call: bool) -> Result<Point, String> {
    let raw_type = point.raw_type;
    if !method::is_call(&point.address) {
        return Ok(Point { address: Address::parse(&point.address)?, raw_type, method: None });
    }
    if !may_call {
        return Err("calls a method: say methods = true for the device if commands may do that".into());
    }
    if !point.definition.writable {
        return Err("calls a method, which only commands do: say writable = true".into());
    }
    let (address, method) = method::parse(&point.address, raw_type)?;
    Ok(Point { address, raw_type, method: Some(method) })
}

/// Who calls `read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The device's poll.
    Poll,
    /// `ready` said so.
    Ready,
}

struct OpcUa {
    settings: Settings,
    clock: runtime::clock::Clock,
    points: Vec<Point>,
    memory: Memory,
    intake: Intake,
    /// Notifications whose values the last reads returned.
    handed: Vec<Notified>,
    session: Option<Session>,
    /// What may be taken over by the next connection.
    parked: Option<Parked>,
    /// Whether the points may have been marked Stale since they were read.
    was_away: bool,
    cause: Cause,
    /// Why the connection is over; told when what came before it is handed on.
    failed: Option<DriverError>,
    expiries: Vec<Expiry>,
    /// What methods were called with last, by point.
    called: BTreeMap<usize, Value>,
    /// Calls that no read has told yet.
    untold: Vec<usize>,
}

impl OpcUa {
    fn new(settings: Settings, clock: runtime::clock::Clock, points: Vec<Point>, memory: Memory) -> OpcUa {
        OpcUa {
            settings,
            clock,
            points,
            memory,
            intake: Intake::default(),
            handed: Vec::new(),
            session: None,
            parked: None,
            was_away: false,
            cause: Cause::Poll,
            failed: None,
            expiries: Vec::new(),
            called: BTreeMap::new(),
            untold: Vec::new(),
        }
    }

    /// Moves values that came into `into`.
    fn hand_on(&mut self, into: &mut Readings) {
        let Some(session) = &self.session else { return };
        while into.list.len() < READINGS_MAX
            && let Some(waiting) = self.intake.pop()
        {
            let (mut reading, server_time, is_first) = match waiting {
                Waiting::End(notified) => {
                    self.handed.push(notified);
                    continue;
                }
                Waiting::Value { reading, server_time, is_first } => (reading, server_time, is_first),
            };
            let has_history = session.plan.has_history.get(reading.point).copied().unwrap_or(false);
            let known = self.memory.last.get(reading.point).copied().flatten();
            if let Some(time) = reading.time {
                let is_old = known == Some(time) || (known.is_none() && self.was_away);
                if is_first && is_old {
                    reading.time = server_time;
                }
                self.memory.note(reading.point, time, is_first, has_history);
            }
            into.list.push(reading);
        }
        self.note_position(into);
    }

    fn note_position(&self, into: &mut Readings) {
        if let Some(session) = &self.session
            && session.plan.has_history.contains(&true)
            && !into.list.is_empty()
        {
            into.position = Some(self.memory.encode(&session.plan.has_history));
        }
    }

    /// One call's worth of polled items; whether more are left in this round.
    async fn poll_items(&mut self, into: &mut Readings) -> Result<bool, DriverError> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let Session { link, limits, plan, monitor, next_polled, .. } = session;
        let lot: Vec<usize> = monitor.polled.iter().skip(*next_polled).take(limits.reads).copied().collect();
        let node = |nth: &usize| plan.items.get(*nth).map_or_else(NodeId::null, |item| item.node.clone());
        let asked = lot.iter().map(|nth| ReadValueId::new(node(nth), AttributeId::Value)).collect();
        let answers = calls::read(link, limits, asked).await?;
        *next_polled += lot.len();
        let is_more = *next_polled < monitor.polled.len();
        if !is_more {
            *next_polled = 0;
        }
        let mut items = std::mem::take(&mut plan.items);
        for (nth, answer) in lot.into_iter().zip(answers) {
            if let Some(item) = items.get_mut(nth) {
                item.is_fresh = true; // each is compared with the one before, like the first of a subscription
                self.intake.take(item, &answer, (plan, &self.points));
            }
        }
        plan.items = items;
        self.hand_on_polled(into);
        Ok(is_more)
    }

    /// Polled values leave no gaps: what lay between two polls was never promised.
    fn hand_on_polled(&mut self, into: &mut Readings) {
        let gaps = self.memory.gaps.len();
        self.hand_on(into);
        if !self.was_away {
            self.memory.gaps.truncate(gaps);
        }
        self.note_position(into);
    }

    /// A server that says nothing is asked for its state.
    async fn probe(&mut self) -> Result<(), DriverError> {
        let Some(session) = &mut self.session else { return Err(closed()) };
        if session.link.heard_at.elapsed() < PROBE_AFTER {
            return Ok(());
        }
        let state = ReadValueId::new(NodeId::from(VariableId::Server_ServerStatus_State), AttributeId::Value);
        let answer = calls::read(&mut session.link, &session.limits, vec![state]).await?;
        match answer.first().and_then(|answer| answer.value.as_ref()) {
            // Suspended, shutting down, without communication: what it says of its values is theirs to say.
            Some(Variant::Int32(state)) if *state != 0 => {
                tracing::debug!(device = self.settings.device, state, "the server is not in state running");
            }
            _ => {}
        }
        let Session { link, plan, monitor, .. } = session;
        monitor.judge(link, &mut self.intake, plan, &self.points)
    }

    fn warn_of_expiry(&mut self) {
        let now = self.clock.now();
        for warning in self.expiries.iter_mut().filter_map(|expiry| expiry.due(now)) {
            tracing::warn!(device = self.settings.device, "{warning}");
        }
    }

    /// What a write or a single read is about.
    fn located(&self, point: usize) -> Result<(NodeId, &[Part]), DriverError> {
        let session = self.session.as_ref().ok_or_else(closed)?;
        let located = session.plan.located.get(point).ok_or_else(no_such_point)?;
        let node = located.node.clone().map_err(|status| fault::status(status, ""))?;
        Ok((node, &located.parts))
    }

    /// What a method was called with last.
    fn last_call(&self, point: usize) -> Reading {
        let value = self.called.get(&point).cloned();
        let quality = if value.is_some() { Quality::GOOD } else { Quality::bad(Reason::NoData) };
        Reading { point, time: None, value, quality }
    }

    /// All that `read` does; where it fails the connection is over.
    async fn read_on(&mut self, cause: Cause, into: &mut Readings) -> Result<NextRead, DriverError> {
        self.on_disk();
        let now = Instant::now();
        {
            let Some(Session { link, limits, plan, monitor, .. }) = &mut self.session else {
                return Err(closed());
            };
            monitor.try_again(plan, now);
            if monitor.is_incomplete() && self.failed.is_none() {
                monitor.advance(link, limits, &self.settings, plan, &mut self.intake).await?;
            }
        }
        self.first_values().await;
        self.hand_on(into);
        let is_incomplete = self.session.as_ref().is_some_and(|session| session.monitor.is_incomplete());
        if self.intake.has_values() || is_incomplete {
            return Ok(NextRead::AtOnce);
        }
        if let Some(error) = self.failed.take() {
            if into.list.is_empty() {
                return Err(error);
            }
            self.failed = Some(error);
            return Ok(NextRead::AtOnce);
        }
        let is_polled = self.session.as_ref().is_some_and(|session| !session.monitor.polled.is_empty());
        let in_round = self.session.as_ref().is_some_and(|session| session.next_polled > 0);
        if is_polled && (cause == Cause::Poll || in_round) && into.list.is_empty() {
            let is_more = self.poll_items(into).await?;
            self.was_away &= is_more;
            return Ok(if is_more { NextRead::AtOnce } else { NextRead::OnSchedule });
        }
        if is_polled && cause == Cause::Poll {
            return Ok(NextRead::AtOnce); // the values that came go first
        }
        if into.list.is_empty() && !self.memory.gaps.is_empty() {
            return self.fill(into).await;
        }
        if cause == Cause::Poll {
            self.probe().await?;
            self.warn_of_expiry();
        }
        Ok(NextRead::OnSchedule)
    }

    /// A piece of history. The next one is asked for through `ready`, so that commands go between.
    async fn fill(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let Some(Session { link, limits, plan, monitor, .. }) = &mut self.session else {
            return Err(closed());
        };
        into.list = self.memory.fill(link, limits, plan, &self.points).await?;
        if let Err(error) = monitor.drain(link, &mut self.intake, plan, &self.points) {
            self.failed = Some(error);
        }
        into.is_historical = true;
        // Also without a value: the gap is closed.
        into.position = Some(self.memory.encode(&plan.has_history));
        Ok(NextRead::OnSchedule)
    }

    /// The caller has put on disk what the reads before returned.
    fn on_disk(&mut self) {
        if let Some(session) = &mut self.session {
            session.monitor.acknowledge(&mut self.handed);
        }
    }

    /// After opening: waits for first values, so that the first read has some.
    async fn first_values(&mut self) {
        let Some(session) = &mut self.session else { return };
        let Session { link, plan, monitor, first_until, .. } = session;
        let Some(until) = *first_until else { return };
        if monitor.subscriptions.is_empty() || monitor.is_incomplete() {
            return;
        }
        let is_awaited = |plan: &Plan| plan.items.iter().any(|item| item.is_fresh && item.refused.is_none());
        while is_awaited(plan) && self.intake.has_room() && self.failed.is_none() {
            let step =
                tokio::time::timeout_at(until, monitor.step(link, &mut self.intake, plan, &self.points))
                    .await;
            match step {
                Err(_) => break,
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.failed = Some(error),
            }
        }
        *first_until = None;
    }
}

#[async_trait]
impl Driver for OpcUa {
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError> {
        if let Some(position) = resume
            && self.memory.last.iter().all(Option::is_none)
        {
            self.was_away = true;
            if self.memory.restore(position).is_none() {
                tracing::warn!(
                    device = self.settings.device,
                    "the position is none of ours: history is not filled up"
                );
            }
        }
        let opened = match self.take_up().await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => self.connect().await,
            Err(error) => Err(error),
        };
        self.was_away |= opened.is_err();
        self.session = Some(opened?);
        self.untold = self.called.keys().copied().collect(); // they were Stale meanwhile
        Ok(())
    }

    async fn ready(&mut self) {
        self.on_disk();
        let mut gathered: Option<Instant> = None;
        loop {
            let is_waiting_for_us = !self.intake.has_room() || !self.memory.gaps.is_empty();
            if self.session.is_some() && (self.failed.is_some() || is_waiting_for_us) {
                break;
            }
            if self.intake.has_values() {
                gathered.get_or_insert_with(|| Instant::now() + GATHER);
            }
            let Some(Session { link, plan, monitor, .. }) = &mut self.session else {
                return std::future::pending().await;
            };
            let step = async {
                match gathered {
                    Some(at) => {
                        tokio::time::timeout_at(at, monitor.step(link, &mut self.intake, plan, &self.points))
                            .await
                            .ok()
                    }
                    None => Some(monitor.step(link, &mut self.intake, plan, &self.points).await),
                }
            };
            match step.await {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => self.failed = Some(error),
            }
        }
        self.cause = Cause::Ready;
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let cause = std::mem::replace(&mut self.cause, Cause::Poll);
        let next = self.read_on(cause, into).await;
        into.overflowed = self.intake.take_overflowed();
        if next.is_ok() && !into.is_historical {
            let untold = std::mem::take(&mut self.untold);
            into.list.extend(untold.into_iter().map(|point| self.last_call(point)));
        }
        if next.as_ref().is_ok_and(|next| *next == NextRead::AtOnce) {
            self.cause = cause; // what comes first puts a poll off, and does not replace it
        }
        next
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        if let Some(method) = self.points.get(point).and_then(|point| point.method.clone()) {
            let (object, _) = self.located(point)?;
            let session = self.session.as_mut().ok_or_else(closed)?;
            method.call(&mut session.link, &session.plan.namespaces, object, value).await?;
            self.called.insert(point, value.clone());
            self.untold.push(point);
            return Ok(());
        }
        let (node_id, parts) = self.located(point)?;
        let index_range = match parts {
            [] => NumericRange::None,
            [Part::Element(indices)] => match indices.as_slice() {
                [index] => NumericRange::Index(*index),
                more => NumericRange::MultipleRanges(more.iter().copied().map(NumericRange::Index).collect()),
            },
            _ => {
                return Err(refused(
                    "a field of a structure cannot be written: the rest of it would be written back too",
                    0,
                ));
            }
        };
        let variant = match index_range {
            NumericRange::None => value::variant(value),
            NumericRange::MultipleRanges(ref ranges) => in_array(value::variant(value), ranges.len())?,
            _ => in_array(value::variant(value), 1)?,
        };
        let value = DataValue { value: Some(variant), ..DataValue::default() };
        let written = WriteValue { node_id, attribute_id: AttributeId::Value as u32, index_range, value };
        let session = self.session.as_mut().ok_or_else(closed)?;
        let (number, timeout, token, handle) = session.link.header();
        let request = Write::new_manual(number, timeout, token, handle).node(written);
        let results = session.link.ask(request).await?.results.unwrap_or_default();
        match results.first() {
            None => Err(DriverError::Malformed("no answer to a write".into())),
            Some(status) if !status.is_bad() => Ok(()),
            Some(
                status @ (&StatusCode::BadTimeout
                | &StatusCode::BadUnexpectedError
                | &StatusCode::BadInternalError
                | &StatusCode::BadDeviceFailure
                | &StatusCode::BadCommunicationError),
            ) => Err(DriverError::InDoubt { reason: status.to_string(), code: fault::code(*status) }),
            Some(status) => Err(refused(&status.to_string(), fault::code(*status))),
        }
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        if self.points.get(point).is_some_and(|point| point.method.is_some()) {
            return Ok(self.last_call(point));
        }
        let (node, parts) = self.located(point)?;
        let (parts, raw_type) = (parts.to_vec(), self.points.get(point).ok_or_else(no_such_point)?.raw_type);
        let session = self.session.as_mut().ok_or_else(closed)?;
        let asked = vec![ReadValueId::new(node, AttributeId::Value)];
        let answer = calls::read(&mut session.link, &session.limits, asked).await?;
        let answer = answer.first().ok_or_else(|| DriverError::Malformed("no answer to a read".into()))?;
        Ok(value::reading(point, raw_type, &parts, answer, &session.plan.structures))
    }

    async fn acknowledge(&mut self, _: &[u8]) -> Result<(), DriverError> {
        Ok(()) // what is on disk is known when the next call comes
    }

    async fn close(&mut self) {
        self.failed = None;
        self.cause = Cause::Poll;
        self.handed.clear();
        self.intake.forget_ends();
        let Some(Session { link, limits, plan, mut monitor, endpoint, application, .. }) =
            self.session.take()
        else {
            return;
        };
        self.was_away = true;
        monitor.park();
        if !link.is_whole() && !monitor.subscriptions.is_empty() && !monitor.is_incomplete() {
            let key = link.session_key().filter(|_| link.is_plain());
            self.parked = Some(Parked { key, limits, plan, monitor, endpoint, application });
        }
        link.close().await;
    }
}

/// An element travels as an array of one, or a matrix.
fn in_array(variant: Variant, dimensions: usize) -> Result<Variant, DriverError> {
    let wrong = || refused("this cannot be an element", 0);
    let kind = variant.scalar_type_id().ok_or_else(wrong)?;
    let array = match dimensions {
        1 => opcua::types::Array::new(kind, vec![variant]),
        more => opcua::types::Array::new_multi(kind, vec![variant], vec![1_u32; more]),
    };
    Ok(Variant::Array(Box::new(array.map_err(|_| wrong())?)))
}

fn closed() -> DriverError {
    DriverError::NotConnected("the connection was closed".into())
}

fn refused(reason: &str, code: u16) -> DriverError {
    DriverError::Refused { reason: reason.to_owned(), code }
}

fn no_such_point() -> DriverError {
    refused("there is no such point", 0)
}
