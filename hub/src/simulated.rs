//! A hub without sockets and folders, for the simulator: store, host, receipts and live view as [`crate::start`] wires
//! them, on disks and a broker that the simulator gives.

use std::convert::Infallible;
use std::sync::Arc;

use durable_log::{LogError, Position, Storage};
use model::Epoch;
use proto::feed::FeedPage;
use runtime::clock::Clock;
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;

use crate::broker::{Broker, BrokerEvent, InboxReceiver};
use crate::catalogue::Catalogue;
use crate::host;
use crate::ledger::{Ledger, LedgerKind};
use crate::live::Live;
use crate::store::{self, AgentAccount, Opened, Retention, Setup, Store, StoreError, StoreHealth};
use crate::{StartError, plant};

/// The hub's disks.
#[derive(Clone, Debug)]
pub struct Disks {
    /// Names and numbers.
    pub catalogue: Arc<dyn Storage>,
    /// Their copy.
    pub copy: Arc<dyn Storage>,
    /// Losses.
    pub ledger: Arc<dyn Storage>,
    /// The plant log.
    pub plant: Arc<dyn Storage>,
    /// Undecodable payloads.
    pub quarantine: Arc<dyn Storage>,
    /// Decisions about them, and what sinks refused.
    pub book: Arc<dyn Storage>,
    /// Accounts and last values.
    pub checkpoint: Arc<dyn Storage>,
}

/// What the simulator gives.
pub struct Parts {
    /// Name of the hub.
    pub hub_id: String,
    /// Bytes of the plant log.
    pub log_bytes: u64,
    /// Where it keeps things.
    pub disks: Disks,
    /// How it publishes.
    pub broker: Arc<dyn Broker>,
    /// What others publish.
    pub inbox: InboxReceiver,
    /// Ups and downs of the broker.
    pub events: mpsc::Receiver<BrokerEvent>,
    /// Its clock.
    pub clock: Clock,
    /// Its counters.
    pub metrics: Metrics,
}

/// A running hub.
pub struct Hub {
    store: Store,
    catalogue: Catalogue,
    ledger: Ledger,
}

/// Opens the disks and starts the tasks.
pub fn start(parts: Parts, tasks: &Tasks) -> Result<Hub, StartError> {
    let failed = |source| StartError::Store { folder: "simulated".into(), source };
    let (opened, catalogue, ledger) = open(&parts, tasks).map_err(failed)?;
    let Opened { store, writer, groups, last_values } = opened;
    let Parts { broker, inbox, events, clock, metrics, .. } = parts;
    let live = Live::new(clock.clone());
    live.restore(plant::restored(last_values));
    live.mark_stale(&catalogue.points().iter().map(|entry| entry.id).collect::<Vec<_>>());
    tasks.spawn(TaskKind::LogWriter, "plant log", async move {
        writer.run_as_task().await;
        Ok::<_, Infallible>(())
    });
    let waking = plant::wake_writer(store.clone(), tasks.shutdown());
    tasks.spawn(TaskKind::Housekeeping, "plant log clock", waking);
    host::start(
        host::Parts {
            inbox,
            events,
            broker,
            store: store.clone(),
            catalogue: catalogue.clone(),
            live: live.clone(),
            ledger: ledger.clone(),
            clock,
            clock_skew_max: crate::config::CLOCK_SKEW_MAX,
            metrics,
        },
        tasks,
    );
    let reader =
        plant::Reader { groups, store: store.clone(), catalogue: catalogue.clone(), live, commands: None };
    tasks.spawn(TaskKind::Transport, "durable records", reader.run());
    Ok(Hub { store, catalogue, ledger })
}

fn open(parts: &Parts, tasks: &Tasks) -> Result<(Opened, Catalogue, Ledger), StoreError> {
    let disks = parts.disks.clone();
    let catalogue = Catalogue::open(disks.catalogue, disks.copy, store::random_epoch()?.0)?;
    let ledger = Ledger::open(disks.ledger, store::random_epoch()?.0)
        .map_err(|source| StoreError::Log { log: "ledger", source })?;
    let now = parts.clock.now().to_string();
    ledger.damaged("ledger", ledger.recovery(), &now);
    ledger.damaged("point catalogue", catalogue.recovery(), &now);
    let setup = Setup {
        hub_id: parts.hub_id.clone(),
        retention: Retention { age: std::time::Duration::from_secs(7 * 86_400), bytes: parts.log_bytes },
        disks: store::Disks {
            plant: disks.plant,
            quarantine: disks.quarantine,
            book: disks.book,
            checkpoint: disks.checkpoint,
        },
        catalogue: catalogue.clone(),
        ledger: ledger.clone(),
        clock: parts.clock.clone(),
        metrics: parts.metrics.clone(),
        shutdown: tasks.shutdown(),
    };
    Ok((store::open(setup)?, catalogue, ledger))
}

impl Hub {
    /// A page as the API gives it to a bridge; keeps the sink's cursor.
    pub fn page(
        &self,
        sink: &str,
        from: u64,
        catalogue: u64,
        committed: Option<(u64, Epoch)>,
        max_bytes: usize,
    ) -> Result<FeedPage, LogError> {
        self.store.keep_sink(sink, committed.map(|(at, epoch)| (Position(at), epoch)))?;
        let wanted = store::feed_page::Wanted { from: Position(from), catalogue, max_bytes };
        store::feed_page::page(&self.store, &self.catalogue, ("acme".into(), "site".into()), wanted, sink)
    }

    /// The accounts of all agents as of the durable end.
    #[must_use]
    pub fn accounts(&self) -> Vec<AgentAccount> {
        self.store.accounts()
    }

    /// Whether the plant log can be written.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        self.store.health()
    }

    /// The durable end of the plant log.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        self.store.durable().borrow().0
    }

    /// Positions of logs that the ledger names as damaged; `None` if it tells of damage without saying how much.
    #[must_use]
    pub fn damaged_positions(&self) -> Option<u64> {
        let entries = self.ledger.newest(usize::MAX).into_iter();
        let damaged = entries.filter(|entry| entry.kind == LedgerKind::Damaged);
        damaged.map(|entry| Some(entry.end? - entry.start?)).sum()
    }

    /// Positions that the ledger names as deleted before anybody had read them.
    #[must_use]
    pub fn deleted_unread(&self) -> u64 {
        let entries = self.ledger.newest(usize::MAX).into_iter();
        let deleted =
            entries.filter(|entry| entry.kind == LedgerKind::TrimmedUnread && entry.agent.is_none());
        deleted.filter_map(|entry| Some(entry.end? - entry.start?)).sum()
    }
}
