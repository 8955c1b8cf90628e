//! Commands from the hub: checked against this agent's own rules, executed at most once, reported through the outbox.
//!
//! The order of the checks is that of docs/specs/receipts.md §6; the first that fails is the outcome. A command without id cannot
//! be reported: it is counted and said in the log. The id is on disk before anything is answered or written, so a
//! repeated message, before or after a restart, is neither executed nor answered a second time: what was reported as
//! refused is never written afterwards.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use model::{CommandOutcome, DataType, PointId, Quality, Sample, Timestamp, Value};
use proto::receipt::CommandReport;
use proto::sparkplug::{CommandHead, PayloadView};
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Metrics};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::catalogue::Points;
use crate::device_write::{DeviceWrite, WriteOutcome};
use crate::drivers::Reading;
use crate::health::value_text;
use crate::normalise::PointRules;
use crate::outbox::{NewGroup, Outbox, OutboxError};

/// Skew above this is refused: an expiry of a second must mean something.
pub const SKEW_MAX: Duration = Duration::from_secs(1);
/// A skew is known for so long after a receipt; they come every 5 s.
const SKEW_KNOWN: Duration = Duration::from_secs(30);
/// Commands in execution at once, of all devices; more wait in the queue.
const EXECUTING_MAX: usize = 16;
/// Commands waiting; more are counted and dropped (the hub sees no outcome: unknown).
pub const WAITING_MAX: usize = 32;
/// Writes waiting at one device.
pub const DEVICE_WRITES_MAX: usize = 4;
/// A device's task answers within its own deadlines; this is for one that hangs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(40);
/// An expiry further away is refused: ids are remembered until then, and nobody waits so long.
const EXPIRY_MAX: Duration = Duration::from_secs(3600);
/// A full outbox is asked again so often for a report.
const FULL_WAIT: Duration = Duration::from_millis(500);

/// The hub's clock, known from receipts. Cheap to clone.
///
/// It goes on by the time that passes, not by this machine's clock: a step of that is a skew, not time.
#[derive(Clone, Debug, Default)]
pub struct ClockSkew {
    known: Arc<Mutex<Option<(Timestamp, Instant)>>>,
}

impl ClockSkew {
    /// A receipt said the hub's time.
    pub fn learn(&self, hub_time: Timestamp) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((hub_time, Instant::now()));
    }

    /// How far this machine's clock is ahead of the hub's, in µs; negative: behind. `None` before the first receipt. Without
    /// further ones it goes by the time that passes, so that a step of this machine's clock shows offline too.
    pub(crate) fn ahead_micros(&self, now: Timestamp, instant: Instant) -> Option<i64> {
        let (hub_time, at) = (*self.known.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = i64::try_from(instant.saturating_duration_since(at).as_micros()).unwrap_or(i64::MAX);
        Some(now.0.saturating_sub(hub_time.0.saturating_add(passed)))
    }

    /// The hub's time, if it is known and this machine's is near enough to it to judge an expiry.
    fn hub_now(&self, now: Timestamp, instant: Instant) -> Option<Timestamp> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (hub_time, at) = known?;
        let passed = instant.saturating_duration_since(at);
        let hub_now =
            Timestamp(hub_time.0.saturating_add(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX)));
        let skew = u128::from(hub_now.0.abs_diff(now.0));
        (passed <= SKEW_KNOWN && skew <= SKEW_MAX.as_micros()).then_some(hub_now)
    }
}

/// A DCMD as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Id, expiry, author, reason.
    pub head: CommandHead,
    /// The device of the topic.
    pub device: String,
    /// The point that name or alias mean, if there is one now.
    pub point: Option<PointId>,
    /// The value as the point's type, if it is one.
    pub value: Option<Value>,
    /// Whether the broker had it stored, or it is marked historical: then it is not for now.
    pub is_stored: bool,
}

/// Reads a DCMD; the error says why it is no command (it has no id to be reported under).
pub fn read_request(
    points: &Points,
    device: &str,
    payload: &[u8],
    is_retained: bool,
) -> Result<Request, &'static str> {
    let payload = PayloadView::decode(payload).map_err(|_| "not a Sparkplug payload")?;
    let head = payload.command.clone().ok_or("without id and expiry")?;
    let [metric] = &payload.metrics[..] else { return Err("not exactly one metric") };
    let index = points.device(device);
    let point = match (metric.name, metric.alias) {
        (Some(name), _) => index.and_then(|index| points.find(index, name)),
        (None, Some(alias)) => u32::try_from(alias).ok().map(PointId).filter(|id| {
            points.get(*id).is_some_and(|entry| Some(entry.device) == index && entry.is_current)
        }),
        (None, None) => None,
    };
    let data_type: Option<DataType> =
        point.and_then(|id| points.get(id)).map(|entry| entry.definition.data_type);
    let stated = metric.datatype.and_then(DataType::from_code);
    let agrees = stated.is_none() || stated == data_type;
    let value = data_type
        .filter(|_| agrees && !metric.is_null)
        .and_then(|data_type| metric.value.to_value(data_type, payload.value_micros(0)));
    let is_stored = is_retained || metric.is_historical;
    Ok(Request { head, device: device.to_owned(), point, value, is_stored })
}

/// Where writes to a point go.
pub struct Target {
    /// The device's queue.
    pub writes: mpsc::Sender<DeviceWrite>,
    /// The point's index in the device's list.
    pub index: usize,
    /// Its rules.
    pub rules: PointRules,
}

/// What may be executed.
struct Allowed<'a> {
    target: &'a Target,
    raw: Value,
    not_after: Instant,
}

/// Executes commands; one task.
pub struct Executor {
    /// Whether the configuration allows commands.
    pub enabled: bool,
    /// Writable points.
    pub targets: HashMap<PointId, Target>,
    /// All points.
    pub points: Arc<Points>,
    /// Where ids and reports go.
    pub outbox: Outbox,
    /// The clock.
    pub clock: Clock,
    /// The hub's clock.
    pub skew: ClockSkew,
    /// Counts.
    pub meters: CommandMeters,
}

/// What is counted.
pub struct CommandMeters {
    done: Counter,
    refused: Counter,
    expired: Counter,
    unknown: Counter,
    repeated: Counter,
}

impl CommandMeters {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics, agent: &str) -> Self {
        let counter = |outcome| {
            metrics.counter(
                "forebay_edge_commands_total",
                "Commands by outcome.",
                &[("agent", agent), ("outcome", outcome)],
            )
        };
        CommandMeters {
            done: counter("done"),
            refused: counter("refused"),
            expired: counter("expired"),
            unknown: counter("unknown"),
            repeated: counter("repeated"),
        }
    }
}

impl Executor {
    /// Until shutdown; what was begun is finished and reported.
    pub async fn run(
        self,
        mut requests: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> Result<(), OutboxError> {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = running.next() => ended?,
                () = shutdown.cancelled() => break,
                Some(request) = requests.recv(), if running.len() < EXECUTING_MAX => {
                    running.push(self.execute(request, &shutdown));
                }
            }
        }
        while let Some(ended) = running.next().await {
            ended?;
        }
        Ok(())
    }

    async fn execute(&self, request: Request, shutdown: &CancellationToken) -> Result<(), OutboxError> {
        let id = request.head.id;
        let latest = self.clock.now().0.saturating_add_unsigned(micros(EXPIRY_MAX));
        let expires_at = request.head.expires_at.min(Timestamp(latest));
        let mut read_back = String::new();
        let outcome = match self.outbox.command_seen(id, expires_at).await {
            Ok(false) => {
                self.meters.repeated.increment();
                tracing::info!(%id, "a command came again; the first one answers");
                return Ok(());
            }
            Ok(true) => match self.check(&request) {
                Err(outcome) => outcome,
                Ok(allowed) => {
                    let outcome = write(&allowed).await;
                    read_back = outcome.read_back.map_or_else(String::new, |raw| shown(allowed.target, raw));
                    outcome.outcome
                }
            },
            Err(why @ (OutboxError::Full | OutboxError::TooManyCommands)) => {
                CommandOutcome::Refused(format!("its id cannot be noted: {why}"))
            }
            Err(error) => return Err(error),
        };
        self.count(&outcome);
        let path =
            request.point.and_then(|id| self.points.get(id)).map(|entry| entry.definition.path.to_string());
        let path = path.unwrap_or_default();
        tracing::info!(%id, %path, %outcome, author = %request.head.author, reason = %request.head.reason, "command");
        self.report(CommandReport { id, outcome, path, read_back }, shutdown).await
    }

    /// Every rule of design §6, in the order of docs/specs/receipts.md.
    fn check(&self, request: &Request) -> Result<Allowed<'_>, CommandOutcome> {
        let refused = |why: &str| Err(CommandOutcome::Refused(why.to_owned()));
        if request.is_stored {
            return refused("retained or historical");
        }
        if !self.enabled {
            return refused("commands are not enabled at this agent");
        }
        let Some(entry) = request.point.and_then(|id| self.points.get(id)) else {
            return refused("there is no such point");
        };
        let target = request.point.and_then(|id| self.targets.get(&id));
        let Some(target) = target.filter(|_| entry.definition.writable) else {
            return refused("the point is not writable");
        };
        let Some(value) = &request.value else {
            return refused("type: the value is not one of the point's type");
        };
        let raw = match target.rules.raw_for_write(value) {
            Ok(raw) => raw,
            Err(why) => return refused(&why),
        };
        let Some(hub_now) = self.skew.hub_now(self.clock.now(), Instant::now()) else {
            return refused("clock");
        };
        let left = request.head.expires_at.0.saturating_sub(hub_now.0);
        if left <= 0 {
            return Err(CommandOutcome::Expired);
        }
        let left = Duration::from_micros(left.unsigned_abs());
        if left > EXPIRY_MAX {
            return refused("expiry: more than an hour away");
        }
        Ok(Allowed { target, raw, not_after: Instant::now() + left })
    }

    fn count(&self, outcome: &CommandOutcome) {
        match outcome {
            CommandOutcome::Done => self.meters.done.increment(),
            CommandOutcome::Refused(_) => self.meters.refused.increment(),
            CommandOutcome::Expired => self.meters.expired.increment(),
            CommandOutcome::Unknown(_) => self.meters.unknown.increment(),
        }
    }

    /// The outcome as a sample of the node's own point.
    async fn report(&self, report: CommandReport, shutdown: &CancellationToken) -> Result<(), OutboxError> {
        let Some(point) = self.points.command_report() else { return Ok(()) };
        let value = Some(Value::Bytes(report.encode()));
        let sample = Sample { point, time: self.clock.now(), value, quality: Quality::GOOD };
        loop {
            let group = NewGroup { samples: vec![sample.clone()], ..NewGroup::default() };
            match self.outbox.accept(group).await {
                Err(OutboxError::Full) if !shutdown.is_cancelled() => sleep(FULL_WAIT).await,
                Err(OutboxError::Full) | Ok(()) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn write(allowed: &Allowed<'_>) -> WriteOutcome {
    let (answer, answered) = oneshot::channel();
    let write = DeviceWrite {
        point: allowed.target.index,
        raw: allowed.raw.clone(),
        not_after: allowed.not_after,
        answer,
    };
    let without = |outcome| WriteOutcome { outcome, read_back: None };
    if allowed.target.writes.try_send(write).is_err() {
        return without(CommandOutcome::Refused("the device is busy with other commands".into()));
    }
    match timeout(ANSWER_DEADLINE, answered).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => without(CommandOutcome::Unknown("the agent was stopped".into())),
        Err(_) => without(CommandOutcome::Unknown("the device did not answer in time".into())),
    }
}

/// What the device showed, in the point's own unit.
fn shown(target: &Target, raw: Value) -> String {
    let reading = Reading { point: 0, time: None, value: Some(raw), quality: Quality::GOOD };
    let shown = target.rules.apply(reading, Timestamp::PLAUSIBLE_MIN).value;
    shown.as_ref().map_or_else(String::new, value_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_clock_goes_on_by_time_that_passes() {
        let second = |n: i64| Timestamp(n * 1_000_000);
        let skew = ClockSkew::default();
        assert_eq!(skew.hub_now(second(100), Instant::now()), None, "no receipt yet");
        skew.learn(second(100));
        let (_, learnt) = skew.known.lock().unwrap().unwrap();
        let later = learnt + Duration::from_secs(5);
        assert_eq!(skew.hub_now(Timestamp(104_100_000), later), Some(second(105)));
        // Somebody sets this machine's clock, either way: commands that have expired must not look young.
        assert_eq!(skew.hub_now(second(95), later), None);
        assert_eq!(skew.hub_now(second(107), later), None);
        assert_eq!(
            skew.hub_now(second(131), learnt + Duration::from_secs(31)),
            None,
            "no receipt for too long"
        );
        assert_eq!(skew.ahead_micros(second(107), later), Some(2_000_000));
        assert_eq!(skew.ahead_micros(second(95), later), Some(-10_000_000));
        skew.learn(Timestamp(i64::MAX));
        assert_eq!(skew.ahead_micros(Timestamp(i64::MIN), later), Some(i64::MIN));
        assert_eq!(skew.hub_now(Timestamp(i64::MIN), later), None);
    }
}
