//! The subscriptions of a connection: made, kept asking, watched for silence, handed over to the next connection.
//!
//! The driver asks for notifications itself, with as many requests as there are subscriptions and two more; while `intake`
//! has no room it does not ask. A notification is acknowledged only when its values are on disk, so that a server that keeps
//! notifications gives them again after a broken connection. A server that says nothing for a keep-alive period and a time
//! limit more is silent, whether or not it answers other questions.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use opcua::client::UARequest;
use opcua::client::services::{
    CreateMonitoredItems, CreateSubscription, Publish, Republish, TransferSubscriptions,
};
use opcua::core::handle::AtomicHandle;
use opcua::types::{
    AttributeId, DataChangeFilter, DataChangeTrigger, DeadbandType, Error, ExtensionObject,
    MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NotificationMessage, PublishResponse,
    ReadValueId, StatusCode, TimestampsToReturn,
};
use tokio::time::Instant;

use super::address::ServerBand;
use super::calls::is_too_much;
use super::fault::failure;
use super::intake::{Intake, Notified};
use super::items::{Item, Plan, Point};
use super::limits::Limits;
use super::link::Link;
use super::settings::Settings;
use crate::drivers::DriverError;

/// Values in one notification: some ten bytes each on the wire, a hundred here.
const NOTIFICATIONS_MAX: u32 = 5_000;
/// A subscription survives so long without us, longer than a session does.
const LIFETIME: Duration = Duration::from_secs(120);
/// Silence is not judged before we have listened for so long.
const ATTENTION: Duration = Duration::from_millis(200);
/// Publish requests in flight at most.
const IN_FLIGHT_MAX: usize = 32;
/// Items of one call, so that it ends within a slow server's time limit.
const ITEMS_PER_CALL: usize = 500;
/// Notifications that are asked for again after one that did not come.
const REPUBLISHED_MAX: u32 = 1000;
/// Nodes that were refused are tried again: a program may have been loaded meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// The library gives handles to items that have none, which ours have.
static HANDLES: LazyLock<AtomicHandle> = LazyLock::new(|| AtomicHandle::new(1));

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    id: u32,
    publishing: Duration,
    /// Silence longer than this is a fault.
    keep_alive: Duration,
    heard_at: Instant,
    /// Number of the newest notification; 0: none yet.
    last: u32,
    items: usize,
}

/// All of a connection.
#[derive(Default)]
pub(super) struct Monitor {
    pub(super) subscriptions: Vec<Subscription>,
    publishes: FuturesUnordered<BoxFuture<'static, Result<PublishResponse, Error>>>,
    /// Notifications that are on disk.
    acknowledged: Vec<Notified>,
    /// Notifications that did not come.
    missing: Vec<Notified>,
    /// Fewer requests than we would like, if the server says so.
    in_flight_max: Option<usize>,
    /// The same for the items of a call.
    per_call: Option<usize>,
    /// Items that are not watched yet.
    pending: Vec<usize>,
    /// Items that the server has no room for: they are read at each poll.
    pub(super) polled: Vec<usize>,
    try_again_at: Option<Instant>,
}

impl Monitor {
    /// Nothing is watched yet; `all` items shall be.
    pub(super) fn new(all: usize) -> Monitor {
        // The last is taken first.
        Monitor { pending: (0..all).rev().collect(), ..Monitor::default() }
    }

    /// Everything is read at each poll.
    pub(super) fn polling(all: usize) -> Monitor {
        Monitor { polled: (0..all).collect(), ..Monitor::default() }
    }

    pub(super) fn is_incomplete(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether items are due that were refused.
    pub(super) fn try_again(&mut self, plan: &Plan, now: Instant) {
        if self.try_again_at.is_some_and(|at| at <= now) {
            self.try_again_at = None;
            let refused = plan.items.iter().enumerate().filter(|(_, item)| item.refused.is_some());
            self.pending.extend(refused.map(|(nth, _)| nth));
        }
    }

    /// Watches the next lot of items.
    pub(super) async fn advance(
        &mut self,
        link: &mut Link,
        limits: &Limits,
        settings: &Settings,
        plan: &mut Plan,
        intake: &mut Intake,
    ) -> Result<(), DriverError> {
        let Some(publishing) =
            self.pending.last().and_then(|nth| plan.items.get(*nth)).map(|item| item.publishing)
        else {
            self.pending.clear();
            return Ok(());
        };
        let at = match self.with_room(publishing, limits) {
            Some(at) => at,
            None => match self.subscribe(link, settings, publishing).await {
                Ok(at) => at,
                Err(DriverError::Refused { reason, .. }) => {
                    tracing::warn!(
                        device = settings.device,
                        reason,
                        "no (more) subscription: these points are read at each poll"
                    );
                    self.polled.append(&mut self.pending);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        let Some(subscription) = self.subscriptions.get(at) else { return Ok(()) };
        let room = limits.items_per_subscription.saturating_sub(subscription.items);
        let per_call = limits.items_per_call.min(self.per_call.unwrap_or(ITEMS_PER_CALL));
        let size = per_call.min(room).max(1);
        let has_interval =
            |nth: &&usize| plan.items.get(**nth).is_some_and(|item| item.publishing == publishing);
        let lot: Vec<usize> =
            self.pending.iter().rev().take_while(has_interval).take(size).copied().collect();
        let asked = lot.iter().filter_map(|nth| Some(request(*nth, plan.items.get(*nth)?))).collect();
        let (number, timeout, token, handle) = link.header();
        let request =
            CreateMonitoredItems::new_manual(subscription.id, &HANDLES, number, timeout, token, handle)
                .timestamps_to_return(TimestampsToReturn::Both)
                .items_to_create(asked);
        let results = match link.ask(request).await {
            Ok(created) => created.results,
            Err(error) if is_too_much(&error) && lot.len() > 1 => {
                self.per_call = Some(lot.len() / 2); // a server that did not say its limit
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if results.len() != lot.len() {
            return Err(DriverError::Malformed(format!("{} answers to {} items", results.len(), lot.len())));
        }
        self.pending.truncate(self.pending.len() - lot.len());
        for (nth, created) in lot.into_iter().zip(results) {
            self.created(at, nth, created.result.status_code, plan, intake, settings);
        }
        Ok(())
    }

    fn created(
        &mut self,
        at: usize,
        nth: usize,
        status: StatusCode,
        plan: &mut Plan,
        intake: &mut Intake,
        settings: &Settings,
    ) {
        let Some(item) = plan.items.get_mut(nth) else { return };
        match status {
            status if !status.is_bad() => {
                (item.refused, item.is_fresh) = (None, true);
                if let Some(subscription) = self.subscriptions.get_mut(at) {
                    subscription.items += 1;
                }
            }
            StatusCode::BadMonitoredItemFilterUnsupported
            | StatusCode::BadMonitoredItemFilterInvalid
            | StatusCode::BadFilterNotAllowed
            | StatusCode::BadDeadbandFilterInvalid
                if item.band.is_some() =>
            {
                tracing::warn!(device = settings.device, node = %item.node, %status, "watched without the dead band");
                item.band = None;
                self.pending.push(nth);
            }
            StatusCode::BadTooManyMonitoredItems => {
                item.is_fresh = false;
                self.polled.push(nth);
            }
            status => {
                if item.refused.replace(status) != Some(status) {
                    tracing::warn!(device = settings.device, node = %item.node, %status, "a node cannot be watched");
                    intake.refuse(&item.points, status);
                }
                self.try_again_at.get_or_insert_with(|| Instant::now() + TRY_AGAIN);
            }
        }
    }

    fn with_room(&self, publishing: Duration, limits: &Limits) -> Option<usize> {
        let fits = |subscription: &Subscription| {
            subscription.publishing == publishing && subscription.items < limits.items_per_subscription
        };
        self.subscriptions.iter().position(fits)
    }

    async fn subscribe(
        &mut self,
        link: &mut Link,
        settings: &Settings,
        publishing: Duration,
    ) -> Result<usize, DriverError> {
        let per = |whole: Duration| {
            u32::try_from(whole.as_millis() / publishing.as_millis().max(1)).unwrap_or(u32::MAX).max(1)
        };
        let keep_alive = per(settings.keep_alive);
        let (number, timeout, token, handle) = link.header();
        let request = CreateSubscription::new_manual(number, timeout, token, handle)
            .publishing_interval(publishing)
            .max_keep_alive_count(keep_alive)
            .max_lifetime_count(per(LIFETIME).max(keep_alive.saturating_mul(3)))
            .max_notifications_per_publish(NOTIFICATIONS_MAX);
        let made = link.ask(request).await?;
        let interval =
            Duration::try_from_secs_f64(made.revised_publishing_interval / 1000.0).unwrap_or(publishing);
        let count = made.revised_max_keep_alive_count.max(1);
        self.subscriptions.push(Subscription {
            id: made.subscription_id,
            publishing,
            keep_alive: interval.saturating_mul(count).min(Duration::from_secs(3600)),
            heard_at: Instant::now(),
            last: 0,
            items: 0,
        });
        Ok(self.subscriptions.len() - 1)
    }

    /// Values that were handed on are on disk.
    pub(super) fn acknowledge(&mut self, on_disk: &mut Vec<Notified>) {
        self.acknowledged.append(on_disk);
    }

    /// Keeps requests in flight while there is room.
    fn ask_on(&mut self, link: &Link, intake: &Intake) {
        if self.publishes.is_empty() {
            let now = Instant::now(); // nobody asked, so nobody had to answer
            self.subscriptions.iter_mut().for_each(|subscription| subscription.heard_at = now);
        }
        let wanted = (self.subscriptions.len() + 2)
            .min(self.in_flight_max.unwrap_or(IN_FLIGHT_MAX))
            .min(IN_FLIGHT_MAX);
        while !self.subscriptions.is_empty() && intake.has_room() && self.publishes.len() < wanted {
            let longest = self
                .subscriptions
                .iter()
                .map(|subscription| subscription.keep_alive)
                .max()
                .unwrap_or_default();
            let (number, timeout, token, handle) = link.header();
            // Requests wait in turn at the server.
            let patience = longest * u32::try_from(wanted + 1).unwrap_or(1) + timeout * 2;
            let mut request = Publish::new_manual(number, patience, token, handle);
            for notified in self.acknowledged.drain(..) {
                request = request.ack(notified.subscription, notified.sequence);
            }
            let channel = link.channel();
            self.publishes.push(async move { request.send(&channel).await }.boxed());
        }
    }

    /// One step: something arrived, or the connection failed. Cancel-safe.
    pub(super) async fn step(
        &mut self,
        link: &mut Link,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        if let Some(notified) = self.missing.first().copied() {
            self.republish(link, notified, intake, plan, points).await?;
            self.missing.retain(|missing| *missing != notified);
            return Ok(());
        }
        self.ask_on(link, intake);
        // What came while we were busy elsewhere is looked at before silence is.
        let looked = Instant::now() + ATTENTION;
        let silent_at = self.silent_at(link.timeout()).map(|at| at.max(looked));
        let answer = tokio::select! {
            biased;
            Some(answer) = self.publishes.next(), if !self.publishes.is_empty() => answer,
            error = link.run() => return Err(error),
            () = until(silent_at) => {
                return Err(self.silent(link));
            }
        };
        self.take(answer, link, intake, plan, points)
    }

    /// An answer to a publish request.
    fn take(
        &mut self,
        answer: Result<PublishResponse, Error>,
        link: &mut Link,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        match answer {
            Ok(answer) => self.answered(answer, intake, plan, points),
            Err(error) => match error.status() {
                StatusCode::BadTooManyPublishRequests => {
                    self.in_flight_max = Some(self.publishes.len().max(1));
                    Ok(())
                }
                StatusCode::BadNoSubscription => {
                    Err(DriverError::NotConnected("the server has no subscription of ours any more".into()))
                }
                StatusCode::BadTimeout => Err(self.silent(link)),
                _ => Err(match failure(&error, link.timeout()) {
                    DriverError::Refused { reason, .. } => DriverError::NotConnected(reason),
                    error => error,
                }),
            },
        }
    }

    /// While values are taken slowly nobody asks, and the server has no reason to speak.
    fn silent_at(&self, timeout: Duration) -> Option<Instant> {
        let is_asked = !self.publishes.is_empty();
        let oldest = self
            .subscriptions
            .iter()
            .map(|subscription| subscription.heard_at + subscription.keep_alive)
            .min();
        oldest.filter(|_| is_asked).map(|at| at + timeout)
    }

    fn silent(&mut self, link: &mut Link) -> DriverError {
        let now = Instant::now();
        let silence = self.subscriptions.iter().map(|subscription| now - subscription.heard_at).max();
        tracing::warn!(
            silence_seconds = silence.unwrap_or_default().as_secs(),
            "the server is connected, but does not publish"
        );
        self.subscriptions.clear();
        link.breaks_silent()
    }

    /// Takes what has come while other things were asked, without waiting.
    pub(super) fn drain(
        &mut self,
        link: &mut Link,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        while let Some(Some(answer)) = self.publishes.next().now_or_never() {
            self.take(answer, link, intake, plan, points)?;
        }
        self.ask_on(link, intake);
        Ok(())
    }

    /// After the server has answered something else: whether it should have published before that. Answers come in order, so
    /// what it published lies here by now.
    pub(super) fn judge(
        &mut self,
        link: &mut Link,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        self.drain(link, intake, plan, points)?;
        match self.silent_at(link.timeout()) {
            Some(at) if at <= Instant::now() => Err(self.silent(link)),
            _ => Ok(()),
        }
    }

    fn answered(
        &mut self,
        answer: PublishResponse,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        let Some(subscription) =
            self.subscriptions.iter_mut().find(|known| known.id == answer.subscription_id)
        else {
            return Ok(()); // one that we gave up
        };
        subscription.heard_at = Instant::now();
        let message = answer.notification_message;
        if message.notification_data.as_ref().is_none_or(Vec::is_empty) {
            return Ok(()); // keep-alive: it names the number of the next one
        }
        let notified = Notified { subscription: subscription.id, sequence: message.sequence_number };
        let behind = distance(subscription.last, notified.sequence);
        if subscription.last != 0 && behind == 0 {
            return Ok(()); // once more
        }
        if subscription.last != 0 && behind > 1 && behind <= REPUBLISHED_MAX {
            let mut sequence = subscription.last;
            for _ in 1..behind {
                sequence = following(sequence);
                self.missing.push(Notified { sequence, ..notified });
            }
        }
        subscription.last = notified.sequence;
        ended(intake.notified(notified, message, plan, points))
    }

    /// Asks for a notification again; one that the server has not is counted as lost.
    async fn republish(
        &mut self,
        link: &mut Link,
        notified: Notified,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<bool, DriverError> {
        let found = self.ask_again(link, notified).await?;
        let Some(message) = found else {
            intake.lost();
            return Ok(false);
        };
        ended(intake.notified(notified, message, plan, points)).map(|()| true)
    }

    async fn ask_again(
        &mut self,
        link: &mut Link,
        notified: Notified,
    ) -> Result<Option<NotificationMessage>, DriverError> {
        let (number, timeout, token, handle) = link.header();
        let request =
            Republish::new_manual(notified.subscription, notified.sequence, number, timeout, token, handle);
        match link.ask(request).await {
            Ok(answer) => Ok(Some(answer.notification_message)),
            Err(DriverError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The connection is gone; the subscriptions may live.
    pub(super) fn park(&mut self) {
        self.publishes.clear();
        self.acknowledged.clear();
        self.missing.clear();
    }

    /// Goes on with the subscriptions on a new connection of the same session: what was sent into the void comes again.
    pub(super) async fn resume(
        &mut self,
        link: &mut Link,
        intake: &mut Intake,
        plan: &mut Plan,
        points: &[Point],
    ) -> Result<(), DriverError> {
        for nth in 0..self.subscriptions.len() {
            let Some(Subscription { id, last, .. }) = self.subscriptions.get(nth) else { break };
            let (id, mut last) = (*id, *last);
            for _ in 0..REPUBLISHED_MAX {
                let notified = Notified { subscription: id, sequence: following(last) };
                let Some(message) = self.ask_again(link, notified).await? else { break };
                last = notified.sequence;
                ended(intake.notified(notified, message, plan, points))?;
            }
            if let Some(subscription) = self.subscriptions.get_mut(nth) {
                (subscription.last, subscription.heard_at) = (last, Instant::now());
            }
        }
        Ok(())
    }

    /// Takes the subscriptions over into a new session; `false` if the server does not give all of them.
    pub(super) async fn transfer(&mut self, link: &mut Link) -> Result<bool, DriverError> {
        if self.subscriptions.is_empty() {
            return Ok(false);
        }
        let (number, timeout, token, handle) = link.header();
        let ids = self.subscriptions.iter().map(|subscription| subscription.id).collect();
        let request = TransferSubscriptions::new_manual(number, timeout, token, handle)
            .send_initial_values(false)
            .subscription_ids(ids);
        match link.ask(request).await {
            Ok(answer) => {
                let results = answer.results.unwrap_or_default();
                let is_all = results.len() == self.subscriptions.len();
                Ok(is_all && results.iter().all(|result| !result.status_code.is_bad()))
            }
            Err(DriverError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ended(status: Option<StatusCode>) -> Result<(), DriverError> {
    status.map_or(Ok(()), |status| {
        Err(DriverError::NotConnected(format!("the server ended the subscription: {status}")))
    })
}

/// Numbers of notifications run from 1 and begin there again.
fn following(sequence: u32) -> u32 {
    if sequence == u32::MAX { 1 } else { sequence + 1 }
}

fn distance(from: u32, to: u32) -> u32 {
    if to >= from { to - from } else { (u32::MAX - from).saturating_add(to) }
}

fn request(handle: usize, item: &Item) -> MonitoredItemCreateRequest {
    let filter = item.band.map_or_else(ExtensionObject::null, |band| {
        let (kind, value) = match band {
            ServerBand::Absolute(value) => (DeadbandType::Absolute, value),
            ServerBand::Percent(value) => (DeadbandType::Percent, value),
        };
        let (trigger, deadband_type) = (DataChangeTrigger::StatusValue, kind as u32);
        ExtensionObject::from_message(DataChangeFilter { trigger, deadband_type, deadband_value: value })
    });
    MonitoredItemCreateRequest {
        item_to_monitor: ReadValueId::new(item.node.clone(), AttributeId::Value),
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: u32::try_from(handle + 1).unwrap_or(u32::MAX), // 0 would be none
            sampling_interval: item.sampling.as_secs_f64() * 1000.0,
            filter,
            queue_size: item.queue,
            discard_oldest: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_to_one() {
        assert_eq!((following(1), following(u32::MAX)), (2, 1));
        assert_eq!((distance(5, 6), distance(u32::MAX, 1), distance(7, 7)), (1, 1, 0));
    }
}
