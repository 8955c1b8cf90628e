//! The dispatcher: one task that owns the ledger and the waiting commands, and the only one that writes points.
//!
//! | event | what it does |
//! |---|---|
//! | request | authorise; Recorded; refused: Closed; else Sent, then DCMD (NCMD for a node's own point) |
//! | report | Closed (or Unknown, if the agent does not know either) |
//! | deadline (expiry + [`GRACE`]) | Unknown, and the caller is told; a late report still closes it |
//! | ledger fails | the latch: nothing is accepted any more, and the reason is shown |

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{CommandId, CommandOutcome, Timestamp, Value};
use proto::receipt::CommandReport;
use proto::seal;
use proto::sparkplug::{CommandHead, MessageType, Topic, encode};
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::authorise::{authorise, is_oversized};
use super::book::Entry;
use super::ledger::{Ledger, reported};
use super::{CommandRecord, LedgerError, Plant, Request, Shared, Target, lock};
use crate::broker::{Broker, BrokerError, QoS};

/// How long after the expiry a report may take: the write itself, the agent's disk, the way back, the hub's disk.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Commands under way at a time.
const WAITING_MAX: usize = 1000;

pub(super) struct Dispatcher {
    pub(super) enabled: bool,
    /// `None` if it could not be opened. Locked by one blocking call at a time.
    pub(super) ledger: Option<Arc<Mutex<Ledger>>>,
    pub(super) plant: Arc<dyn Plant>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: HashMap<CommandId, Waiting>,
    pub(super) count: Counts,
}

pub(super) struct Waiting {
    deadline: Instant,
    reply: oneshot::Sender<CommandRecord>,
}

pub(super) struct Counts {
    done: Counter,
    refused: Counter,
    expired: Counter,
    unknown: Counter,
    under_way: Gauge,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let ended = |outcome| {
            metrics.counter("forebay_commands_total", "Commands by outcome.", &[("outcome", outcome)])
        };
        Counts {
            done: ended("done"),
            refused: ended("refused"),
            expired: ended("expired"),
            unknown: ended("unknown"),
            under_way: metrics.gauge(
                "forebay_commands_under_way",
                "Commands sent whose report is awaited.",
                &[],
            ),
        }
    }

    fn ended(&self, outcome: &CommandOutcome) {
        match outcome {
            CommandOutcome::Done => self.done.increment(),
            CommandOutcome::Refused(_) => self.refused.increment(),
            CommandOutcome::Expired => self.expired.increment(),
            CommandOutcome::Unknown(_) => self.unknown.increment(),
        }
    }
}

enum Event {
    Request(Box<Request>),
    Reported,
    Deadline,
    Shutdown,
}

impl Dispatcher {
    /// Runs until shutdown; commands under way then stay Sent in the ledger, and the next start settles them.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        loop {
            match self.next(&mut requests, &shutdown).await {
                Event::Request(request) => self.request(*request).await,
                Event::Reported => self.take_reports().await,
                Event::Deadline => self.give_up().await,
                Event::Shutdown => return Ok(()),
            }
            self.count.under_way.set(i64::try_from(self.waiting.len()).unwrap_or(i64::MAX));
        }
    }

    async fn next(&self, requests: &mut mpsc::Receiver<Request>, shutdown: &CancellationToken) -> Event {
        let deadline = self.waiting.values().map(|waiting| waiting.deadline).min();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Event::Shutdown,
            () = self.shared.reported.notified() => Event::Reported,
            () = sleep_until(deadline) => Event::Deadline,
            request = requests.recv() => request.map_or(Event::Shutdown, |request| Event::Request(Box::new(request))),
        }
    }

    async fn request(&mut self, request: Request) {
        let Request { record, expires_in, reply } = request;
        let id = record.id;
        let blocked = lock(&self.shared.blocked).clone();
        let blocked = blocked.or_else(|| is_oversized(&record).then(|| "request: is too long".to_owned()));
        if let Some(why) = blocked {
            self.refuse_unrecorded(record, why, reply);
            return;
        }
        // Recorded first: what is not in the ledger does not happen.
        if let Err(error) = self.note(Entry::Recorded(record.clone())).await {
            self.refuse_unrecorded(record, error.to_string(), reply);
            return;
        }
        let target = self.plant.target(&record.path);
        let outcome = match (authorise(self.enabled, &record, expires_in, target.as_ref()), &target) {
            (Err(why), _) => Some(CommandOutcome::Refused(why)),
            (Ok(_), _) if self.waiting.len() >= WAITING_MAX => {
                Some(CommandOutcome::Refused(format!("busy: {WAITING_MAX} commands are under way")))
            }
            (Ok(value), Some(target)) => self.send(&record, target, &value).await,
            (Ok(_), None) => Some(CommandOutcome::Refused("point: there is none of this path".into())),
        };
        let deadline = Instant::now() + self.left(record.expires_at) + GRACE;
        self.waiting.insert(id, Waiting { deadline, reply });
        if let Some(outcome) = outcome {
            self.close(id, outcome).await;
        }
    }

    /// Notes that it is sent, then sends it; the outcome, if it is known at once.
    async fn send(&self, record: &CommandRecord, target: &Target, value: &Value) -> Option<CommandOutcome> {
        let node = target.place.node.clone();
        let sent = Entry::Sent { id: record.id, at: self.clock.now(), node, log_end: self.plant.log_end() };
        if let Err(error) = self.note(sent).await {
            return Some(CommandOutcome::Refused(error.to_string()));
        }
        let now = self.clock.now();
        if now >= record.expires_at {
            return Some(CommandOutcome::Expired); // the queue or the disk took longer than the command had
        }
        let (topic, payload) = message(record, target, value, now);
        match self.broker.publish(topic.to_string(), payload, QoS::AtMostOnce, false).await {
            Ok(()) => None,
            Err(BrokerError::Lost(why)) => {
                Some(CommandOutcome::Unknown(format!("the connection to the broker broke: {why}")))
            }
            Err(error) => Some(CommandOutcome::Refused(format!("broker: {error}"))),
        }
    }

    async fn take_reports(&mut self) {
        let reports: Vec<CommandReport> = std::mem::take(&mut *lock(&self.shared.reports));
        for report in reports {
            let known = lock(&self.shared.book).get(report.id).and_then(|record| record.outcome);
            if known.is_some() && matches!(report.outcome, CommandOutcome::Unknown(_)) {
                continue; // unknown already: nothing new
            }
            self.end(reported(&report, self.clock.now()), &report.outcome).await;
        }
    }

    async fn give_up(&mut self) {
        let now = Instant::now();
        let late = self.waiting.iter().filter(|(_, waiting)| waiting.deadline <= now).map(|(id, _)| *id);
        for id in late.collect::<Vec<_>>() {
            let why = "no report came in time; it is never sent again".to_owned();
            self.close(id, CommandOutcome::Unknown(why)).await;
        }
    }

    async fn close(&mut self, id: CommandId, outcome: CommandOutcome) {
        let at = self.clock.now();
        let entry = match &outcome {
            CommandOutcome::Unknown(why) => Entry::Unknown { id, at, why: why.clone() },
            _ => Entry::Closed { id, at, outcome: outcome.clone(), read_back: String::new() },
        };
        self.end(entry, &outcome).await;
    }

    /// Notes an end and tells whoever waits. If the ledger fails, the end holds until the next start settles it again.
    async fn end(&mut self, entry: Entry, outcome: &CommandOutcome) {
        let id = entry.id();
        if let Err(illegal) = lock(&self.shared.book).check(&entry) {
            // An agent that reports twice: a ledger that held it could not be opened again.
            tracing::warn!(command = %id, illegal, "an end that cannot be was left out");
            return;
        }
        if let Err(error) = self.note(entry.clone()).await {
            tracing::error!(command = %id, %outcome, %error, "the end of a command is not in the ledger");
            self.book(&entry);
        }
        tracing::info!(command = %id, %outcome, "command ended");
        self.count.ended(outcome);
        let record = lock(&self.shared.book).get(id);
        if let (Some(waiting), Some(record)) = (self.waiting.remove(&id), record) {
            waiting.reply.send(record).ok(); // the caller may have gone
        }
    }

    /// Writes an entry to the ledger, then into the book. A failure shuts the latch.
    async fn note(&self, entry: Entry) -> Result<(), LedgerError> {
        let Some(ledger) = self.ledger.clone() else { return Err(LedgerError::NotOpen) };
        let written = entry.clone();
        let result = tokio::task::spawn_blocking(move || lock(&ledger).append(&written)).await;
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match &result {
            Ok(()) => self.book(&entry),
            Err(error) => {
                tracing::error!(%error, "commands are refused from now on");
                lock(&self.shared.blocked).get_or_insert_with(|| format!("ledger: {error}"));
            }
        }
        result
    }

    fn book(&self, entry: &Entry) {
        if let Err(illegal) = lock(&self.shared.book).apply(entry) {
            debug_assert!(false, "{illegal}");
            tracing::error!(illegal, "a bug in the command path");
        }
    }

    fn refuse_unrecorded(&self, record: CommandRecord, why: String, reply: oneshot::Sender<CommandRecord>) {
        self.count.refused.increment();
        let record = record.ended(CommandOutcome::Refused(why), self.clock.now());
        reply.send(record).ok(); // the caller may have gone
    }

    fn left(&self, until: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(until.micros_since(self.clock.now())).unwrap_or(0))
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// DCMD for a device's point, NCMD for the node's own.
fn message(record: &CommandRecord, target: &Target, value: &Value, now: Timestamp) -> (Topic, Vec<u8>) {
    let place = &target.place;
    let topic = match &place.device {
        Some(device) => Topic::device(MessageType::DCmd, &place.node, device),
        None => Topic::node(MessageType::NCmd, &place.node),
    };
    let head = CommandHead {
        id: record.id,
        expires_at: record.expires_at,
        author: record.author.clone(),
        reason: record.reason.clone(),
    };
    let mut payload = Vec::new();
    encode::command(now, &place.metric, None, value, Some(&head), &mut payload);
    seal::put(&topic.to_string(), &mut payload);
    (topic, payload)
}
