//! The hub's process, and the bridge's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bridge::feed::{Caller, FeedError, Pages, Request};
use bridge::{SinkConfig, Source, State};
use durable_log::{Faults, FaultyStorage, Fuse};
use hub::simulated::{Disks, Hub, Parts};
use proto::feed::FeedPage;
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::network::{HubSide, Net};
use crate::plan::Plan;
use crate::stubborn::disk;
use crate::table::{Table, TableSink};

/// Bytes of the plant log before retention deletes what nobody has read: more than a run writes.
const LOG_BYTES: u64 = 512 * 1024;
/// A page takes so long on its way.
const LATENCY: Duration = Duration::from_millis(1);
/// Messages that may wait for the host.
const INBOX_MESSAGES: usize = 64;

/// The machine that the hub runs on.
pub(crate) struct HubMachine {
    pub(crate) disks: [FaultyStorage; 7],
    pub(crate) power: Fuse,
    pub(crate) clock: Clock,
    running: Option<Running>,
    sessions: u64,
    /// Where bridges find it.
    door: Door,
}

struct Running {
    hub: Arc<Hub>,
    tasks: Tasks,
    failed: CancellationToken,
}

/// A hub that answers while it has power.
type Answering = (Arc<Hub>, Fuse);

/// The hub's API, if it is there. Clones are the same door.
#[derive(Clone, Default)]
pub(crate) struct Door {
    hub: Arc<Mutex<Option<Answering>>>,
    /// Where the hub knows the sink to stand.
    kept: Arc<AtomicU64>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    fn open(&self) -> Option<Arc<Hub>> {
        let door = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        door.as_ref().filter(|(_, power)| !power.is_blown()).map(|(hub, _)| Arc::clone(hub))
    }

    fn set(&self, hub: Option<Answering>) {
        *self.hub.lock().unwrap_or_else(PoisonError::into_inner) = hub;
    }
}

impl HubMachine {
    pub(crate) fn new(dice: &mut Dice, clock: Clock) -> Self {
        HubMachine {
            disks: std::array::from_fn(|_| FaultyStorage::new(dice.next())),
            power: Fuse::default(),
            clock,
            running: None,
            sessions: 0,
            door: Door::default(),
        }
    }

    /// Where it knows the sink to stand.
    pub(crate) fn kept(&self) -> u64 {
        self.door.kept.load(Ordering::Relaxed)
    }

    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let latched = matches!(running.hub.health(), hub::store::StoreHealth::Latched(_));
            latched || self.power.is_blown() || running.failed.is_cancelled()
        })
    }

    pub(crate) fn start(&mut self, net: &Net) -> Result<(), String> {
        let failed = CancellationToken::new();
        let tasks = Tasks::new(failed.clone());
        let (inbox, messages) = hub::broker::inbox(INBOX_MESSAGES);
        let (events, changes) = mpsc::channel(16);
        self.sessions += 1;
        let [catalogue, copy, ledger, plant, quarantine, checkpoint, book] = self.disks.each_ref().map(disk);
        let parts = Parts {
            hub_id: "hub".into(),
            log_bytes: LOG_BYTES,
            disks: Disks { catalogue, copy, ledger, plant, quarantine, checkpoint, book },
            broker: Arc::new(HubSide::new(net, &self.power, self.sessions)),
            inbox: messages,
            events: changes,
            clock: self.clock.clone(),
            metrics: Metrics::default(),
        };
        let hub = hub::simulated::start(parts, &tasks).map_err(|error| error.to_string())?;
        let hub = Arc::new(hub);
        net.hub_is_up(inbox, events, &self.power, self.now_ms());
        self.door.set(Some((Arc::clone(&hub), self.power.clone())));
        self.running = Some(Running { hub, tasks, failed });
        Ok(())
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().0 / 1000).unwrap_or(0)
    }

    pub(crate) fn kill(&mut self, plan: &Plan, net: &Net) {
        tracing::debug!("hub killed");
        self.door.set(None);
        self.running = None;
        net.hub_is_gone(plan.outside_broker, self.now_ms());
    }

    pub(crate) fn power_cut(&mut self, plan: &Plan, net: &Net) {
        tracing::debug!("power cut at the hub");
        self.power.blow();
        self.kill(plan, net);
        self.disks = std::array::from_fn(|at| self.disks[at].crash());
        self.restore_power();
    }

    pub(crate) fn restore_power(&mut self) {
        self.power = Fuse::default();
        self.disks.iter().for_each(|disk| disk.set_fuse(&self.power));
    }

    /// Somebody puts an empty disk in.
    pub(crate) fn wipe(&mut self, dice: &mut Dice) {
        tracing::debug!("the hub gets empty disks");
        self.disks = std::array::from_fn(|_| FaultyStorage::new(dice.next()));
        self.restore_power();
    }

    /// One bit of one file flips while the machine stands still.
    pub(crate) fn flip(&mut self, dice: &mut Dice) {
        flip_one(&self.disks, dice);
    }

    /// Records that may be missing by what it has said of its disks and of agents; `None` if it has not said how many.
    pub(crate) fn may_lack(&self) -> Option<u64> {
        let Some(running) = &self.running else { return Some(0) };
        let epochs = running.hub.accounts().into_iter().flat_map(|account| account.epochs);
        let lost = epochs
            .flat_map(|epoch| epoch.lost.iter().map(|range| range.end - range.start).collect::<Vec<_>>());
        Some(running.hub.damaged_positions()? + lost.sum::<u64>())
    }

    /// Records that its ledger says were deleted unread.
    pub(crate) fn deleted_unread(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.hub.deleted_unread())
    }

    pub(crate) async fn stop(&mut self, plan: &Plan, net: &Net) {
        self.door.set(None);
        if let Some(running) = self.running.take() {
            running.tasks.drain().await;
        }
        net.hub_is_gone(plan.outside_broker, self.now_ms());
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.disks.iter().for_each(|disk| disk.set_faults(faults));
    }

    /// Mismatches and losses that the hub itself has noticed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let mut complaints = Vec::new();
        for account in running.hub.accounts() {
            for epoch in account.epochs {
                complaints
                    .extend(epoch.mismatch.map(|why| format!("{} {}: {why}", account.agent, epoch.epoch)));
                if !epoch.lost.is_empty() {
                    complaints.push(format!("{} {} lost {:?}", account.agent, epoch.epoch, epoch.lost));
                }
            }
        }
        complaints
    }
}

/// One bit of one file of these disks.
pub(crate) fn flip_one(disks: &[FaultyStorage], dice: &mut Dice) {
    let files: Vec<(&FaultyStorage, String, usize)> = disks
        .iter()
        .flat_map(|disk| disk.names().into_iter().map(move |name| (disk, name)))
        .map(|(disk, name)| (disk, disk.bytes_of(&name).map_or(0, |bytes| bytes.len()), name))
        .map(|(disk, bytes, name)| (disk, name, bytes))
        .collect();
    // A byte of all bytes, so that large files are hit more often.
    let mut at = dice.below(files.iter().map(|(.., bytes)| *bytes as u64).sum());
    for (disk, name, bytes) in files {
        match at.checked_sub(bytes as u64) {
            Some(behind) => at = behind,
            None => {
                let mut content = disk.bytes_of(&name).unwrap_or_default();
                if let Some(byte) = content.get_mut(usize::try_from(at).unwrap_or(0)) {
                    *byte ^= 1 << dice.below(8);
                }
                tracing::debug!(name, at, bytes, "a bit flips");
                disk.replace(&name, content);
                return;
            }
        }
    }
}

/// A bridge's way through the door; fails now and then.
#[derive(Debug)]
struct ThroughDoor {
    door: Door,
    dice: Mutex<Dice>,
    fails: u64,
}

fn away() -> FeedError {
    FeedError::Refused { status: 503, body: "simulated".into() }
}

#[async_trait]
impl Pages for ThroughDoor {
    async fn page(&self, caller: &Caller, request: Request, catalogue: u64) -> Result<FeedPage, FeedError> {
        let (before, after, bytes) = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            (dice.one_in(self.fails), dice.one_in(self.fails), dice.between(1, 4000))
        };
        sleep(LATENCY).await;
        if before {
            return Err(away());
        }
        let until = Instant::now() + request.wait;
        loop {
            let hub = self.door.open().ok_or_else(away)?;
            if hub.durable_end() > request.from || Instant::now() >= until || request.from == u64::MAX {
                break;
            }
            drop(hub);
            sleep(Duration::from_millis(200).min(until.saturating_duration_since(Instant::now()))).await;
        }
        let hub = self.door.open().ok_or_else(away)?;
        let committed = request.committed.and_then(|cursor| Some((cursor.position, cursor.epoch?)));
        let bytes = usize::try_from(bytes).unwrap_or(1);
        let page = hub.page(&caller.sink, request.from, catalogue, committed, bytes);
        if let (Ok(_), Some((at, _))) = (&page, committed) {
            self.door.kept.fetch_max(at, Ordering::Relaxed);
        }
        match page {
            Ok(page) if !after => Ok(page),
            _ => Err(away()),
        }
    }
}

/// A bridge's process.
pub(crate) struct Bridge {
    running: Option<(Tasks, watch::Receiver<bridge::SinkStatus>)>,
}

impl Bridge {
    pub(crate) const fn new() -> Self {
        Bridge { running: None }
    }

    pub(crate) fn start(&mut self, dice: &mut Dice, door: Door, table: &Table, clock: &Clock, fails: u64) {
        let pages = ThroughDoor { door, dice: Mutex::new(dice.fork()), fails };
        #[expect(clippy::expect_used, reason = "a constant")]
        let hub = "http://hub.simulated/".parse().expect("an address");
        let source = Source { hub, token_file: None, pages: Some(Arc::new(pages)) };
        let sink = SinkConfig {
            name: "lake".into(),
            kind: "simulated",
            sink: Box::new(TableSink::new(table)),
            max_rows: usize::try_from(dice.between(1, 60)).unwrap_or(1),
            max_bytes: 1 << 20,
            max_wait: dice.millis(100, 3000),
            pace: bridge::Pace::default(),
        };
        let tasks = Tasks::new(CancellationToken::new());
        let (status, pump) = bridge::pump(source, sink, clock.clone(), &Metrics::default(), tasks.shutdown());
        tasks.spawn(TaskKind::Transport, "bridge", pump);
        self.running = Some((tasks, status));
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Trouble that lasts, as it says.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.running.as_ref().and_then(|(_, status)| status.borrow().alarm.clone())
    }

    /// Why it stopped and waits for a person.
    pub(crate) fn stopped(&self) -> Option<String> {
        let (_, status) = self.running.as_ref()?;
        match &status.borrow().state {
            State::Stopped(why) => Some(why.clone()),
            _ => None,
        }
    }
}
