//! One session: births, the live stream, the history stream, receipts and requests.
//!
//! The loop takes what arrived, sends a slice of live and a slice of history, and waits only if there was neither. A
//! slice is bounded, so that nothing waits long for anything else. All sends are in order of `seq`, by this task alone.

mod health;
mod inbound;

use std::borrow::Cow;
use std::time::Duration;

use durable_log::Level;
use futures_util::FutureExt as _;
use model::{Epoch, Offset, PointId, RangeSet, RecordId, Sample, SampleBatch};
use proto::receipt::Receipt;
use proto::sparkplug::{BirthHead, MessageType, RecordHead, Topic};
use runtime::mistakes::{self, Mistake, is_made};
use runtime::mqtt_client::{MqttReceiver, MqttSender, QoS};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::cursor::{Cursor, Portion, Read};
use super::delivery::Tokens;
use super::{SessionError, Uplink};
use crate::catalogue::DeviceIndex;
use crate::edge_node::{EdgeNode, Outgoing};
use crate::health::Promise;
use crate::outbox::{Durable, Epochs, Latest};

/// A slice of the live stream.
const LIVE: Portion = Portion { records: 128, values: 20_000, until: None, from: None };
/// Records in a slice of the history stream, and values, beside the bound by the rate.
const HISTORY_RECORDS: usize = 64;
const HISTORY_VALUES: usize = 20_000;
/// History values that wait for a receipt: what stands before a live record in sockets and queues up to the hub's disk.
/// Receipts come every 100 ms while there is news, so this is two million values a second at most.
const HISTORY_UNDER_WAY: u64 = 200_000;
/// Live that lags so long jumps to the durable end; the rest becomes history (design §4.10).
const LAG_MAX: Duration = Duration::from_secs(2);
/// History begins when the first receipt has said what the hub holds, at the latest after so long.
const RECEIPT_WAIT: Duration = Duration::from_secs(5);
/// No receipt for so long while records are outstanding: connect again (design §4.10).
const RECEIPT_SILENCE: Duration = Duration::from_secs(15);
/// Births asked for sooner than this after the last are sent together.
const REBIRTH_SPACING: Duration = Duration::from_secs(1);
/// History rests so long after a birth that a host asked for: it has other things to do.
const REBIRTH_REST: Duration = Duration::from_secs(1);
/// Epochs that an NBIRTH may name (docs/specs/receipts.md §2).
const BIRTH_EPOCHS_MAX: usize = 4096;
/// STATE that does not come, or is offline, is asked for again so often before the births.
const STATE_WAIT: Duration = Duration::from_secs(10);
/// How often timers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is written down what a foreign host was given.
const HANDED_SPACING: Duration = Duration::from_secs(10);
/// On shutdown receipts are waited for so long.
const DRAIN: Duration = Duration::from_secs(4);

/// How a session ended on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Shutdown,
    HostOffline,
}

pub(crate) struct Session<'u> {
    uplink: &'u mut Uplink,
    node: EdgeNode,
    sender: MqttSender,
    receiver: MqttReceiver,
    durable: watch::Receiver<Durable>,
    current: Epoch,
    live: Cursor,
    /// Offset of the current epoch that live sends next.
    live_at: u64,
    history: Cursor,
    /// The record that the history cursor reads next, if it stands somewhere useful.
    history_next: Option<(Epoch, u64)>,
    history_not_before: Instant,
    /// Values of a record of the last slice of history, on average.
    history_values: u64,
    tokens: Tokens,
    state_timestamp: Option<u64>,
    last_refusal: String,
    host_is_online: Option<bool>,
    /// The host has sealed a message of this session, so it seals all of them.
    host_seals: bool,
    is_holding: bool,
    reporting: health::Reporting,
    begun: Instant,
    last_receipt: Option<Instant>,
    born_at: Option<Instant>,
    rebirth_asked: bool,
    /// How full the outbox was by the last birth.
    told_level: Level,
    looked_at: Instant,
    handed_at: Instant,
    draining_since: Option<Instant>,
}

/// A record is one payload, always (but see [`Mistake::TwoPayloads`]).
fn parts(batch: &SampleBatch) -> impl Iterator<Item = Cow<'_, SampleBatch>> {
    let half =
        |samples: &[Sample]| Some(Cow::Owned(SampleBatch { samples: samples.to_vec(), ..batch.clone() }));
    let parts = if is_made(Mistake::TwoPayloads) && batch.samples.len() > 1 {
        let (first, second) = batch.samples.split_at(batch.samples.len() / 2);
        [half(first), half(second)]
    } else {
        [Some(Cow::Borrowed(batch)), None]
    };
    parts.into_iter().flatten()
}

impl<'u> Session<'u> {
    pub(crate) fn new(
        uplink: &'u mut Uplink,
        node: EdgeNode,
        sender: MqttSender,
        receiver: MqttReceiver,
    ) -> Self {
        let now = Instant::now();
        let outbox = &uplink.setup.outbox;
        let durable = outbox.durable();
        let end = durable.borrow().position;
        let (live, history) = (Cursor::new(outbox.view(), end), Cursor::new(outbox.view(), end));
        let (tokens, current) = (Tokens::new(uplink.setup.history_rate, now), outbox.current());
        Session {
            uplink,
            node,
            sender,
            receiver,
            durable,
            current,
            live,
            live_at: 0,
            history,
            history_next: None,
            history_not_before: now + RECEIPT_WAIT,
            history_values: 1,
            tokens,
            state_timestamp: None,
            last_refusal: String::new(),
            host_is_online: None,
            host_seals: false,
            is_holding: false,
            reporting: health::Reporting::default(),
            begun: now,
            last_receipt: None,
            born_at: None,
            rebirth_asked: false,
            told_level: Level::default(),
            looked_at: now,
            handed_at: now,
            draining_since: None,
        }
    }

    pub(crate) async fn run(mut self) -> Result<Ended, SessionError> {
        self.subscribe().await?;
        if self.uplink.setup.primary_host && !self.wait_for_host().await? {
            self.sender.disconnect().await?;
            return Ok(Ended::Shutdown);
        }
        if is_made(Mistake::HistoryBeforeBirths) {
            self.history_not_before = Instant::now();
            while self.history_slice().await? {}
        }
        if is_made(Mistake::OldQueue)
            && let Some(payload) = mistakes::note("old queue", Vec::new()).filter(|old| !old.is_empty())
        {
            let topic = Topic::device(MessageType::DData, &self.uplink.setup.node, "press-0").to_string();
            self.send(Outgoing { topic, payload }).await?;
        }
        self.give_birth().await?;
        self.say_online();
        loop {
            while let Some(message) = self.receiver.next().now_or_never() {
                self.take(message?).await?;
            }
            if self.uplink.setup.primary_host && self.host_is_online == Some(false) {
                return self.leave(Ended::HostOffline).await;
            }
            if self.look().await? {
                return self.leave(Ended::Shutdown).await;
            }
            let did_live = self.live_slice().await?;
            let did_history = self.history_slice().await?;
            if !did_live && !did_history {
                self.wait().await?;
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), SessionError> {
        let node = &self.uplink.setup.node;
        let commands = Topic::device(MessageType::DCmd, node, "+").to_string();
        let state = Topic::State { host: self.uplink.setup.host_id.clone() }.to_string();
        let filters = [
            (Topic::node(MessageType::NCmd, node).to_string(), QoS::AtLeastOnce),
            (commands, QoS::AtLeastOnce),
            (state, QoS::AtLeastOnce),
        ];
        Ok(self.sender.subscribe(&filters).await?)
    }

    /// Waits for STATE online; `false` on shutdown.
    async fn wait_for_host(&mut self) -> Result<bool, SessionError> {
        let host = self.uplink.setup.host_id.clone();
        self.uplink.setup.health.session(|session| {
            session.text = format!("connected; waiting for host application {host} to be online");
        });
        let shutdown = self.uplink.setup.shutdown.clone();
        let mut ask_at = Instant::now() + STATE_WAIT;
        while self.host_is_online != Some(true) {
            let message = tokio::select! {
                biased;
                message = self.receiver.next() => message?,
                () = shutdown.cancelled() => return Ok(false),
                () = sleep_until(ask_at) => {
                    // The request or the answer may have been changed on its way: a new subscription brings the
                    // retained STATE again, and it counts whatever time an earlier one claimed.
                    self.state_timestamp = None;
                    self.subscribe().await?;
                    ask_at = Instant::now() + STATE_WAIT;
                    continue;
                }
            };
            if let Some(Topic::State { .. }) = Topic::parse(&message.topic) {
                self.take_state(&message);
            }
        }
        Ok(true)
    }

    fn say_online(&self) {
        let (node, host) = (&self.uplink.setup.node, &self.uplink.setup.hub);
        tracing::info!(%node, hub = %host.host, port = host.port, "session with the hub");
        self.uplink.setup.health.session(|session| {
            session.is_online = true;
            session.text = "online".into();
        });
    }

    /// Says goodbye, so that hosts need not wait for the will.
    async fn leave(self, ended: Ended) -> Result<Ended, SessionError> {
        let death = self.node.death(self.uplink.setup.clock.now());
        self.sender.publish(death.topic, QoS::AtLeastOnce, false, death.payload).await?;
        self.sender.disconnect().await?;
        Ok(ended)
    }

    async fn send(&self, message: Outgoing) -> Result<(), SessionError> {
        Ok(self.sender.publish(message.topic, QoS::AtMostOnce, false, message.payload).await?)
    }

    /// NBIRTH and the DBIRTHs of all devices that are up.
    async fn give_birth(&mut self) -> Result<(), SessionError> {
        if self.born_at.is_none() {
            // First where live begins, then what is up: a device that goes down between the two is said to do so.
            let durable = *self.durable.borrow_and_update();
            self.live.seek(durable.position);
            self.live_at = durable.offset;
        }
        let setup = &self.uplink.setup;
        let now = setup.clock.now();
        let (mut epochs, with_retired) =
            setup.outbox.epochs(|epochs| (epochs.accounts(), epochs.holds_older()));
        if epochs.len() > BIRTH_EPOCHS_MAX {
            epochs.drain(BIRTH_EPOCHS_MAX - 1..epochs.len() - 1); // their turn comes when the oldest are settled
        }
        let (used, level) = setup.outbox.fill();
        self.told_level = level;
        let head = BirthHead {
            epochs,
            agent_time: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            outbox_used: Some(used),
        };
        let present = setup.outbox.present().clone();
        let latest = |id: PointId| present.look().latest(id).cloned();
        let birth = self.node.birth(now, &head, &latest, with_retired);
        self.send(birth).await?;
        for device in (1..self.uplink.setup.points.devices().len()).map(DeviceIndex) {
            if present.look().is_up(device) {
                let birth = self.node.device_birth(device, now, &latest);
                self.send(birth).await?;
            }
        }
        self.uplink.meters.births.increment();
        if self.born_at.replace(Instant::now()).is_some() {
            self.history_not_before = self.history_not_before.max(Instant::now() + REBIRTH_REST);
        }
        Ok(())
    }

    /// Timers; `true` when the session shall end because all is done.
    async fn look(&mut self) -> Result<bool, SessionError> {
        let now = Instant::now();
        if now < self.looked_at + LOOK {
            return Ok(false);
        }
        self.looked_at = now;
        let is_foreign = !self.uplink.state.has_receipts;
        self.uplink.delivery.expire(now, is_foreign);
        // A birth tells how full the outbox is; a line that is passed or left is told at once.
        self.rebirth_asked |= self.born_at.is_some() && self.uplink.setup.outbox.fill().1 != self.told_level;
        if self.rebirth_asked && self.born_at.is_none_or(|born| now >= born + REBIRTH_SPACING) {
            self.rebirth_asked = false;
            self.give_birth().await?;
        }
        let heard = self.last_receipt.unwrap_or(self.begun);
        if now >= heard + RECEIPT_SILENCE && self.is_outstanding() {
            if !is_foreign {
                return Err(SessionError::NoReceipt(RECEIPT_SILENCE));
            }
            self.uplink.setup.health.session(|session| {
                if session.promise != Promise::RetentionOnly {
                    session.promise = Promise::RetentionOnly;
                    tracing::warn!("{}", Promise::RetentionOnly.text());
                }
            });
        }
        self.report_health(now).await?;
        if is_foreign && now >= self.handed_at + HANDED_SPACING {
            self.handed_at = now;
            self.uplink.note_handed(self.current, self.live_at).await?;
        }
        Ok(self.is_drained(now))
    }

    fn is_outstanding(&self) -> bool {
        let delivery = &self.uplink.delivery;
        self.uplink.setup.outbox.epochs(|epochs| delivery.is_outstanding(epochs))
    }

    /// On shutdown: whether everything accepted was sent and, within a bound, receipted.
    fn is_drained(&mut self, now: Instant) -> bool {
        let setup = &self.uplink.setup;
        if !setup.shutdown.is_cancelled() || std::sync::Arc::strong_count(&setup.producers) > 1 {
            return false;
        }
        let since = *self.draining_since.get_or_insert(now);
        if now >= since + DRAIN {
            return true;
        }
        let is_sent = self.live_at >= self.durable.borrow().offset;
        let delivery = &self.uplink.delivery;
        let is_settled = setup.outbox.epochs(|epochs| match self.uplink.state.has_receipts {
            true => delivery.is_settled(epochs, self.current),
            false => delivery.wanted(epochs, self.current, self.live_at).is_none(),
        });
        is_sent && is_settled
    }

    /// Waits for a message, for something to send, or for the next look at timers.
    async fn wait(&mut self) -> Result<(), SessionError> {
        let until = self.looked_at + LOOK;
        let message = tokio::select! {
            biased;
            message = self.receiver.next() => message?,
            changed = self.durable.changed() => {
                // The writer has ended: by its own fate the process ends too; timers go on until then.
                if changed.is_err() {
                    sleep_until(until).await;
                }
                return Ok(());
            }
            () = sleep_until(until) => return Ok(()),
        };
        self.take(message).await
    }

    fn head(&self, read: &Read, epochs: &Epochs) -> RecordHead {
        let id = read.batch.id;
        let state = epochs.get(id.epoch);
        RecordHead {
            id: RecordId { epoch: id.epoch, offset: Offset(id.offset.0) },
            first_held: state.map_or(id.offset.0, |state| state.first_held.min(id.offset.0)),
            accepted_end: state.map_or(0, |state| state.end).max(id.offset.0 + 1),
            accepted_at: read.batch.accepted_at,
            account: Some(read.account),
            counts: read.counts,
        }
    }

    /// Sends some records from the live cursor on.
    async fn live_slice(&mut self) -> Result<bool, SessionError> {
        let durable = *self.durable.borrow();
        if self.live_at >= durable.offset {
            return Ok(false);
        }
        if self.uplink.setup.outbox.age_of(self.live_at) >= LAG_MAX {
            return self.jump().await;
        }
        let reads = self.live.read(LIVE).await?;
        let setup = &self.uplink.setup;
        let present = setup.outbox.present().clone();
        let latest = |id: PointId| -> Option<Latest> { present.look().latest(id).cloned() };
        for read in reads {
            if read.batch.id.epoch != self.current || read.batch.id.offset.0 < self.live_at {
                continue;
            }
            let (offset, end) = (read.batch.id.offset.0, self.durable.borrow().offset);
            self.uplink
                .meters
                .identity
                .check(offset < end, || format!("record {offset} is sent, {end} are on disk"));
            let head = self.uplink.setup.outbox.epochs(|epochs| self.head(&read, epochs));
            let now = self.uplink.setup.clock.now();
            for batch in parts(&read.batch) {
                for message in self.node.live(now, &batch, &head, read.event, &latest) {
                    if is_made(Mistake::OldQueue) {
                        mistakes::note("old queue", message.payload.clone());
                    }
                    self.send(message).await?;
                }
            }
            if is_made(Mistake::TrimAfterSend) {
                let offset = read.batch.id.offset.0;
                let sent = (self.current, RangeSet::of(offset..offset + 1));
                let receipt = Receipt { durable: vec![sent], ..Default::default() };
                self.uplink.setup.outbox.receive(&receipt).await?;
            }
            self.live_at = read.batch.id.offset.0 + 1;
            self.uplink.delivery.sent(Instant::now(), self.current, read.batch.id.offset.0);
            self.uplink.meters.live_records.increment();
        }
        Ok(true)
    }

    /// Live lags too far: it goes on at the durable end, and what it leaves out becomes history.
    async fn jump(&mut self) -> Result<bool, SessionError> {
        let durable = *self.durable.borrow_and_update();
        self.live.seek(durable.position);
        tracing::info!(records = durable.offset - self.live_at, "live jumps to the newest values");
        self.live_at = durable.offset;
        self.uplink.meters.jumps.increment();
        let present = self.uplink.setup.outbox.present().clone();
        let now = self.uplink.setup.clock.now();
        for message in self.node.reconcile(now, &|device| present.look().is_up(device)) {
            self.send(message).await?;
        }
        Ok(true)
    }

    /// Sends some records that no receipt covers.
    async fn history_slice(&mut self) -> Result<bool, SessionError> {
        let now = Instant::now();
        if now < self.history_not_before || self.is_holding || self.host_is_online == Some(false) {
            return Ok(false);
        }
        let outbox = &self.uplink.setup.outbox;
        let (delivery, current, live_at) = (&self.uplink.delivery, self.current, self.live_at);
        let (wanted, under_way) = outbox.epochs(|epochs| {
            let wanted = delivery.wanted(epochs, current, live_at).and_then(|(epoch, range)| {
                let place = epochs.get(epoch)?.locate(range.start);
                Some((epoch, range, place))
            });
            (wanted, delivery.history_under_way(epochs))
        });
        let Some((epoch, range, place)) = wanted else {
            return self.end_history().await;
        };
        let values = self.tokens.available(now).min(HISTORY_VALUES);
        let is_full = under_way.saturating_mul(self.history_values) >= HISTORY_UNDER_WAY;
        if values == 0 || (is_full && self.uplink.state.has_receipts) {
            return Ok(false);
        }
        if self.history_next != Some((epoch, range.start)) {
            let Some(place) = place else { return Ok(false) };
            self.history.seek(place);
        }
        let (until, from) = (Some((epoch, range.end)), Some((epoch, range.start)));
        let portion = Portion { records: HISTORY_RECORDS, values, until, from };
        let reads = self.history.read(portion).await?;
        self.history_next = None;
        let total: usize = reads.iter().map(|read| read.batch.samples.len()).sum();
        self.history_values = (total / reads.len().max(1)).max(1) as u64;
        for read in reads {
            let head = self.uplink.setup.outbox.epochs(|epochs| self.head(&read, epochs));
            let now = self.uplink.setup.clock.now();
            for batch in parts(&read.batch) {
                for message in self.node.history(now, &batch, &head) {
                    self.send(message).await?;
                }
            }
            let offset = read.batch.id.offset.0;
            self.uplink.delivery.sent_history(Instant::now(), epoch, offset);
            self.tokens.take(read.batch.samples.len());
            self.uplink.meters.history_records.increment();
            self.history_next = Some((epoch, offset + 1));
        }
        // Nothing found where something was wanted: it was trimmed a moment ago; timers look again.
        Ok(self.history_next.is_some())
    }

    /// There is no history to send: devices that were born only for theirs die.
    async fn end_history(&mut self) -> Result<bool, SessionError> {
        let now = self.uplink.setup.clock.now();
        for message in self.node.history_done(now) {
            self.send(message).await?;
        }
        Ok(false)
    }
}
