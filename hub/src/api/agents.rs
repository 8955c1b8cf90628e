//! Agents as the host sees them, and the account of what they accepted, what the hub holds and what tables committed.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use durable_log::Position;
use model::{Epoch, RangeSet, Timestamp};
use proto::account::Account;
use proto::health::DeviceHealth;
use proto::log_record::{AgentId, LogRecord};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::Parameters;
use crate::host::AgentStatus;
use crate::ledger::LedgerEntry;
use crate::store::{AgentAccount, DeviceAccount, EpochState, RefusedRecord, SINK_CURSOR};

/// Ranges shown of one set: more than an account with many holes has. Beyond, they are counted only.
const RANGES_MAX: usize = 65_536;
/// Entries of the ledger in an answer.
const LOSSES_MAX: usize = 10_000;
/// Behind a sink's cursor, what is counted of the log for one answer: some tens of milliseconds.
const COUNTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What else to tell.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReconcileQuery {
    /// Also what the ledger says of data that does not come (default false).
    losses: Option<bool>,
}

/// Every agent.
#[derive(Serialize, ToSchema)]
pub(crate) struct Agents {
    /// By name.
    agents: Vec<AgentView>,
}

/// One agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
struct AgentView {
    /// `group/node`.
    agent: String,
    /// Whether its birth stands.
    online: bool,
    /// Whether it is no agent of ours: no receipts.
    foreign: bool,
    /// Since when it is online or not.
    since: Option<String>,
    /// Arrival of its last message.
    last_message: Option<String>,
    /// When the hub last sent it a receipt.
    last_receipt: Option<String>,
    /// Records that it has accepted and the hub does not hold; null for foreign nodes.
    backlog: Option<u64>,
    /// Version of its program.
    version: String,
    /// Percent of its outbox that is used, of its bound or its disk, as of its last birth; it is born anew when 80 or
    /// 90 % are passed. Null for foreign nodes.
    outbox_used: Option<u8>,
    /// Births so far.
    births: u64,
    /// Rebirths asked of it so far.
    rebirths: u64,
    /// Gaps in `seq` so far.
    gaps: u64,
    /// How far its clock was ahead of the hub's at its last message, in ms; negative: behind. Null for foreign nodes.
    clock_ahead_ms: Option<i64>,
    /// Whether that is beyond the hub's `clock_skew_max`.
    is_off_clock: bool,
    /// Its devices.
    devices: Vec<DeviceView>,
}

/// One device of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
struct DeviceView {
    /// Sparkplug device id.
    name: String,
    /// Whether its birth stands.
    online: bool,
    /// How the agent says it is; null for foreign nodes and older programs.
    health: Option<HealthView>,
}

/// How an agent says that a device of its is.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceHealth)]
struct HealthView {
    /// When it said so. An agent says it every 10 s and when something changes.
    as_of: String,
    /// Name of the driver.
    driver: String,
    /// `connecting`, `up` or `down`.
    state: &'static str,
    /// Since when.
    since: String,
    /// Last successful read; null before the first.
    last_read: Option<String>,
    /// What went wrong last, until it goes right again.
    error: Option<String>,
    /// Whether its last read brought times beyond the agent's bound for clocks.
    is_off_clock: bool,
    /// Requests since the agent's start.
    requests: u64,
    /// Of them, without a usable answer.
    failed: u64,
    /// Requests per second, over the last one to two minutes.
    requests_per_second: f64,
    /// Half of the answers came within so many ms; null where the driver sends no requests.
    p50_ms: Option<f64>,
    /// 99 of 100 came within so many ms.
    p99_ms: Option<f64>,
    /// Points by the quality of their last reading.
    points: PointCountsView,
}

/// Points by the quality of their last reading.
#[derive(Serialize, ToSchema)]
#[schema(as = PointCounts)]
struct PointCountsView {
    /// Good.
    good: u64,
    /// Uncertain.
    uncertain: u64,
    /// Bad.
    bad: u64,
    /// Stale.
    stale: u64,
    /// Not yet read.
    unread: u64,
}

fn health((health, at): (DeviceHealth, Timestamp)) -> HealthView {
    let millis = |micros: Option<u64>| micros.map(|micros| micros as f64 / 1000.0);
    let points = health.points;
    HealthView {
        as_of: at.to_string(),
        driver: health.driver,
        state: health.state.name(),
        since: health.since.to_string(),
        last_read: health.last_read.map(|time| time.to_string()),
        error: health.error,
        is_off_clock: health.is_off_clock,
        requests: health.requests,
        failed: health.failed,
        requests_per_second: health.per_second,
        p50_ms: millis(health.p50_micros),
        p99_ms: millis(health.p99_micros),
        points: PointCountsView {
            good: points.good,
            uncertain: points.uncertain,
            bad: points.bad,
            stale: points.stale,
            unread: points.unread,
        },
    }
}

/// Agents with their devices, backlog and last receipt.
#[utoipa::path(get, path = "/api/v1/agents", tag = "plant",
    responses((status = 200, body = Agents), (status = 401, body = ErrorBody)))]
pub(crate) async fn agents(State(api): State<Api>) -> Json<Agents> {
    Json(Agents { agents: api.host().agents().into_iter().map(agent).collect() })
}

fn agent(status: AgentStatus) -> AgentView {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let devices = status.devices.into_iter();
    AgentView {
        agent: status.node.to_string(),
        online: status.online,
        foreign: status.foreign,
        since: text(status.since),
        last_message: text(status.last_message),
        last_receipt: text(status.last_receipt),
        backlog: status.backlog,
        version: status.version,
        outbox_used: status.outbox_used,
        births: status.births,
        rebirths: status.rebirths,
        gaps: status.gaps,
        clock_ahead_ms: status.clock_ahead_ms,
        is_off_clock: status.is_off_clock,
        devices: devices
            .map(|device| DeviceView {
                name: device.name,
                online: device.online,
                health: device.health.map(health),
            })
            .collect(),
    }
}

/// The balance of the plant at one moment.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reconcile {
    /// Name of this hub.
    hub_id: String,
    /// The plant log.
    log: LogView,
    /// By name.
    agents: Vec<AgentBalance>,
    /// Every registered sink.
    sinks: Vec<SinkView>,
    /// If asked for: the newest entries of the ledger about data that does not come, oldest first; at most 10000.
    #[schema(value_type = Vec<serde_json::Value>)]
    losses: Vec<LedgerEntry>,
    /// Records that sinks refused.
    refused: Vec<RefusedView>,
}

/// A record that a sink refused.
#[derive(Serialize, ToSchema)]
#[schema(as = RefusedRecord)]
struct RefusedView {
    /// Its name in the quarantine.
    id: String,
    /// Which sink.
    sink: String,
    /// Whose record; null if it cannot be read.
    agent: Option<String>,
    /// Its epoch, hexadecimal.
    epoch: Option<String>,
    /// Its offset.
    offset: Option<u64>,
    /// Its samples.
    account: Option<AccountView>,
    /// `waiting`, `retried` or `discarded`.
    state: &'static str,
    /// Who decided.
    decided_by: Option<String>,
}

/// The plant log as it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = PlantLog)]
struct LogView {
    /// Epoch of its present opening, hexadecimal.
    epoch: String,
    /// Lowest position held.
    first: u64,
    /// Positions below are on disk.
    end: u64,
}

/// How an account stands; the worst of its epochs for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The agent has not said what it accepted (foreign, or not since the hub's start).
    Unreported,
    /// Everything that the agent reports is held or settled.
    Balanced,
    /// Something is on its way.
    InFlight,
    /// Counts or checksums differ: an invariant is broken.
    Mismatch,
}

/// The account of one agent.
#[derive(Serialize, ToSchema)]
struct AgentBalance {
    /// `group/node`.
    agent: String,
    /// Whether it is no agent of ours.
    foreign: bool,
    /// The worst of its epochs.
    verdict: Verdict,
    /// Oldest first.
    epochs: Vec<EpochView>,
}

/// The account of one epoch of one agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Epoch)]
struct EpochView {
    /// Hexadecimal.
    epoch: String,
    /// How it stands.
    verdict: Verdict,
    /// Whether it is the plant log's own, for a foreign node: ranges are then a span of log positions.
    foreign: bool,
    /// Samples received, with the sum of their hashes.
    received: AccountView,
    /// The same over the agent's own paths, which differ where two agents claim one path.
    agent_account: AccountView,
    /// Offsets received, half-open; at most 65536 ranges are shown.
    ranges: Vec<[u64; 2]>,
    /// Offsets that will never come, settled by policy.
    lost: Vec<[u64; 2]>,
    /// Offsets whose payload nobody could decode, settled.
    quarantined: Vec<[u64; 2]>,
    /// How many records were received.
    records_received: u64,
    /// How many the agent accepted and the hub neither holds nor settled.
    records_missing: u64,
    /// How many were lost by policy.
    records_lost: u64,
    /// Below here count and checksum are equal to the agent's.
    verified_end: u64,
    /// Samples of all received that came as history.
    history: u64,
    /// By sink: samples of all received that are in its table, or were refused by it and discarded; null while the sink is
    /// too far behind to be counted at once.
    exported: BTreeMap<String, Option<u64>>,
    /// What became of what the agent's devices read.
    devices: Vec<DeviceCountsView>,
    /// What is wrong, if something is.
    mismatch: Option<String>,
    /// The newest that the agent said of it.
    reported: Option<ReportedView>,
}

/// What became of everything that one device read in an epoch: `read + made = dead_band + accepted`.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceCounts)]
struct DeviceCountsView {
    /// Sparkplug device id.
    device: String,
    /// Values that the driver read.
    read: u64,
    /// Of them, within their dead band.
    dead_band: u64,
    /// Pieces of input that the driver could not read.
    quarantined: u64,
    /// Samples that the agent made: stale marks.
    made: u64,
    /// So many samples were accepted, as of the newest record that says it; null if none does.
    accepted: Option<u64>,
    /// So many were received.
    received: u64,
}

/// What an agent says of one of its epochs.
#[derive(Serialize, ToSchema)]
#[schema(as = Reported)]
struct ReportedView {
    /// Offsets below are no longer on the agent's disk.
    first_held: u64,
    /// Accepted end, exclusive.
    end: u64,
    /// Running account before `first_held`.
    before: AccountView,
    /// Running account at `end`.
    total: AccountView,
}

/// Samples counted, and the sum of their hashes.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
struct AccountView {
    /// How many samples.
    count: u64,
    /// Wrapping 64-bit sum, 16 hexadecimal digits.
    checksum: String,
}

/// How far a sink is.
#[derive(Serialize, ToSchema)]
#[schema(as = Sink)]
struct SinkView {
    /// Its name in the bridge's configuration.
    name: String,
    /// Plant log positions below are committed in its table.
    position: u64,
    /// Records not yet committed.
    lag: u64,
    /// Retention has deleted records that it had not read.
    behind_start: bool,
    /// The bridge that reads for it, in its own words; absent if none has asked for a minute, or does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    /// What keeps that bridge from the table, as the bridge says.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<String>,
}

/// Per agent and epoch: accepted, received, verified, missing, lost; per sink: committed.
#[utoipa::path(get, path = "/api/v1/reconcile", tag = "plant",
    params(ReconcileQuery),
    responses((status = 200, body = Reconcile), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 500, body = ErrorBody)))]
pub(crate) async fn reconcile(
    State(api): State<Api>,
    Parameters(query): Parameters<ReconcileQuery>,
) -> Result<Json<Reconcile>, ApiError> {
    let sinks = sinks(&api).await?;
    let waiting = waiting(&api, &sinks).await?;
    let agents = api.store().accounts().into_iter().map(|account| balance(account, &waiting)).collect();
    Ok(Json(Reconcile {
        hub_id: api.store().hub_id().to_owned(),
        sinks,
        log: LogView {
            epoch: api.store().log_epoch().to_string(),
            first: api.plant_log().first().0,
            end: api.plant_log().durable_end().0,
        },
        agents,
        losses: if query.losses.unwrap_or(false) { losses(&api).await? } else { Vec::new() },
        refused: api.store().refused().into_iter().map(|record| refused(&api, record)).collect(),
    }))
}

async fn losses(api: &Api) -> Result<Vec<LedgerEntry>, ApiError> {
    let ledger = api.ledger().clone();
    let read = tokio::task::spawn_blocking(move || ledger.losses(LOSSES_MAX));
    Ok(read.await.map_err(|error| ApiError::Internal(error.to_string()))??)
}

fn refused(api: &Api, record: RefusedRecord) -> RefusedView {
    RefusedView {
        id: record.id.to_string(),
        sink: record.sink,
        agent: record.record.map(|(agent, ..)| api.agent_name(agent)),
        epoch: record.record.map(|(_, id, _)| id.epoch.to_string()),
        offset: record.record.map(|(_, id, _)| id.offset.0),
        account: record.record.map(|(.., held)| account(held)),
        state: record.ended.as_ref().map_or("waiting", |ended| ended.fate.word()),
        decided_by: record.ended.map(|ended| ended.by),
    }
}

/// Every registered sink with its lag.
async fn sinks(api: &Api) -> Result<Vec<SinkView>, ApiError> {
    let log = api.plant_log().clone();
    let read = tokio::task::spawn_blocking(move || {
        let cursors = log.cursors()?;
        Ok::<_, durable_log::LogError>((cursors, log.first().0, log.durable_end().0))
    });
    let (cursors, first, end) = read.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    let sinks =
        cursors.iter().filter_map(|(name, at)| name.strip_prefix(SINK_CURSOR).map(|name| (name, at.0)));
    let (seats, now) = (api.seats(), tokio::time::Instant::now());
    Ok(sinks
        .map(|(name, position)| SinkView {
            name: name.to_owned(),
            position,
            lag: end.saturating_sub(position),
            behind_start: position < first,
            holder: seats.of(name, now).map(|seat| seat.holder),
            alarm: seats.of(name, now).and_then(|seat| seat.alarm),
        })
        .collect())
}

/// Samples that a sink has not taken, by agent and epoch; `None` if there are too many to count at once.
type WaitingOf = Option<HashMap<(AgentId, Epoch), u64>>;

/// What lies behind the cursor of each sink, and what it refused and nobody has decided about.
async fn waiting(api: &Api, sinks: &[SinkView]) -> Result<BTreeMap<String, WaitingOf>, ApiError> {
    let cursors: Vec<(String, u64)> = sinks.iter().map(|sink| (sink.name.clone(), sink.position)).collect();
    let (log, refused) = (api.plant_log().clone(), api.store().refused());
    let read = tokio::task::spawn_blocking(move || {
        let mut all = BTreeMap::new();
        for (name, from) in cursors {
            let mut waiting = behind(&log, from, &name)?;
            let open = refused.iter().filter(|refused| refused.sink == name && refused.ended.is_none());
            for (agent, id, account) in open.filter_map(|refused| refused.record) {
                if let Some(waiting) = &mut waiting {
                    *waiting.entry((agent, id.epoch)).or_default() += account.count;
                }
            }
            all.insert(name, waiting);
        }
        Ok::<_, durable_log::LogError>(all)
    });
    Ok(read.await.map_err(|error| ApiError::Internal(error.to_string()))??)
}

fn behind(log: &durable_log::LogView, from: u64, sink: &str) -> Result<WaitingOf, durable_log::LogError> {
    let (mut waiting, mut bytes) = (HashMap::new(), 0);
    let mut reader = log.reader(Position(from).max(log.first()));
    while let Some((_, record)) = reader.next()? {
        bytes += record.len();
        if bytes > COUNTED_BYTES_MAX {
            return Ok(None);
        }
        match LogRecord::decode(record) {
            Ok(LogRecord::Received { agent, batch, account, .. }) => {
                *waiting.entry((agent, batch.id.epoch)).or_default() += account.count;
            }
            Ok(LogRecord::Again { sink: whose, agent, batch, account }) if whose == sink => {
                *waiting.entry((agent, batch.id.epoch)).or_default() += account.count;
            }
            _ => {}
        }
    }
    Ok(Some(waiting))
}

fn balance(account: AgentAccount, waiting: &BTreeMap<String, WaitingOf>) -> AgentBalance {
    let id = account.id;
    let epochs: Vec<EpochView> = account.epochs.into_iter().map(|state| epoch(state, id, waiting)).collect();
    let verdict = epochs.iter().map(|epoch| epoch.verdict).max().unwrap_or(Verdict::Unreported);
    AgentBalance { agent: account.agent.to_string(), foreign: account.foreign, verdict, epochs }
}

fn epoch(state: EpochState, agent: AgentId, waiting: &BTreeMap<String, WaitingOf>) -> EpochView {
    let missing = missing(&state);
    let exported = waiting.iter().map(|(sink, waiting)| {
        let open = waiting.as_ref().map(|waiting| waiting.get(&(agent, state.epoch)).copied().unwrap_or(0));
        (sink.clone(), open.map(|open| state.account.count.saturating_sub(open)))
    });
    let exported = exported.collect();
    EpochView {
        epoch: state.epoch.to_string(),
        verdict: verdict(&state, missing),
        foreign: state.foreign,
        received: account(state.account),
        agent_account: account(state.agent_account),
        ranges: ranges(&state.ranges),
        lost: ranges(&state.lost),
        quarantined: ranges(&state.quarantined),
        records_received: state.ranges.count(),
        records_missing: missing,
        records_lost: state.lost.count(),
        verified_end: state.verified_end,
        history: state.history,
        exported,
        devices: state.devices.into_iter().map(device_counts).collect(),
        mismatch: state.mismatch,
        reported: state.reported.map(|reported| ReportedView {
            first_held: reported.first_held,
            end: reported.end,
            before: account(reported.before),
            total: account(reported.total),
        }),
    }
}

fn device_counts((device, counted): (String, DeviceAccount)) -> DeviceCountsView {
    let DeviceAccount { counts, as_of, received } = counted;
    DeviceCountsView {
        device,
        read: counts.read,
        dead_band: counts.dead_band,
        quarantined: counts.quarantined,
        made: counts.made,
        accepted: (as_of > 0).then(|| counts.accepted()),
        received,
    }
}

/// Records that the agent accepted and the hub neither holds nor settled.
pub(crate) fn missing(state: &EpochState) -> u64 {
    let Some(reported) = &state.reported else { return 0 };
    let mut settled = state.ranges.clone();
    settled.extend(&state.lost);
    settled.extend(&state.quarantined);
    settled.missing(0..reported.end).into_iter().map(|range| range.end - range.start).sum()
}

pub(crate) fn verdict(state: &EpochState, missing: u64) -> Verdict {
    match (&state.mismatch, &state.reported) {
        (Some(_), _) => Verdict::Mismatch,
        (None, None) => Verdict::Unreported,
        (None, Some(_)) if missing > 0 => Verdict::InFlight,
        (None, Some(_)) => Verdict::Balanced,
    }
}

fn account(account: Account) -> AccountView {
    AccountView { count: account.count, checksum: format!("{:016x}", account.checksum) }
}

fn ranges(set: &RangeSet) -> Vec<[u64; 2]> {
    set.iter().take(RANGES_MAX).map(|range| [range.start, range.end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::sparkplug::EpochAccount;

    fn state(ranges: RangeSet, end: Option<u64>) -> EpochState {
        let none = Account::default();
        let reported = |end| EpochAccount { epoch: Epoch(1), first_held: 0, end, before: none, total: none };
        EpochState {
            epoch: Epoch(1),
            foreign: false,
            ranges,
            account: none,
            agent_account: none,
            lost: RangeSet::default(),
            quarantined: RangeSet::default(),
            reported: end.map(reported),
            verified_end: 0,
            history: 0,
            devices: BTreeMap::new(),
            mismatch: None,
        }
    }

    #[test]
    fn an_epoch_is_balanced_when_everything_reported_is_held_or_settled() {
        let judge = |state: &EpochState| verdict(state, missing(state));
        assert_eq!(judge(&state(RangeSet::of(0..10), None)), Verdict::Unreported);
        assert_eq!(judge(&state(RangeSet::of(0..10), Some(10))), Verdict::Balanced);
        let mut late = state(RangeSet::of(2..9), Some(10));
        assert_eq!((missing(&late), judge(&late)), (3, Verdict::InFlight));
        late.lost = RangeSet::of(0..2);
        late.quarantined = RangeSet::of(9..10);
        assert_eq!(judge(&late), Verdict::Balanced);
        late.mismatch = Some("count".into());
        assert_eq!(judge(&late), Verdict::Mismatch);
        let all = [Verdict::Balanced, Verdict::Unreported, Verdict::InFlight];
        assert_eq!(all.into_iter().max(), Some(Verdict::InFlight));
    }
}
