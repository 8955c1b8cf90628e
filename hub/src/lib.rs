//! The hub: broker, Sparkplug host, plant log, live view, commands and API, wired together here and nowhere else.
//!
//! ```text
//! broker -> inbox -> host -> store (writer thread) -> reader -> live view -> JSON tree, API
//!                     |        |-> receipts -> broker          `-> commands -> broker
//!                     `-> live view (stale, confirmed)
//! ```
//! Shutdown goes with the flow: STATE offline and no more clients, the host takes what has arrived, the store writes
//! it and closes, the reader finishes and writes the last checkpoint.

pub mod api;
pub mod broker;
pub mod catalogue;
pub mod commands;
pub mod config;
pub mod console;
pub mod enrol;
mod guesses;
pub mod host;
pub mod ledger;
pub mod live;
mod plant;
pub mod simulated;
pub mod store;
pub mod verify;

use std::net::SocketAddr;
use std::sync::Arc;

use runtime::clock::Clock;
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;

pub use config::{Config, validate};

use broker::{Broker, BrokerError, HostIdentity};
use catalogue::Catalogue;
use commands::Commands;
use config::BrokerConfig;
use host::Host;
use ledger::Ledger;
use live::{Live, json_tree};
use store::{Disks, Opened, Store, StoreError, StoreHealth};

/// Every log below the data folder.
const LOGS: [&str; 7] =
    ["plant-log", "catalogue", "catalogue/copy", "quarantine", "ledger", "commands", "mqtt"];
/// Ups and downs of the broker's connection that may wait for the host.
const BROKER_EVENTS_MAX: usize = 16;

/// Why the hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A log or folder.
    #[error("the hub's store in {folder}: {}", chain(source))]
    Store {
        /// The data folder.
        folder: String,
        /// Why.
        source: StoreError,
    },
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Enrolment.
    #[error(transparent)]
    Enrol(#[from] enrol::StartError),
    /// The API.
    #[error(transparent)]
    Api(#[from] api::StartError),
    /// A thread ended unexpectedly.
    #[error("opening the store ended unexpectedly: {0}")]
    Panicked(String),
}

/// A running hub.
pub struct Handle {
    /// Where the embedded broker listens; none with an outside one.
    pub mqtt: Option<SocketAddr>,
    /// Enrolment, if it is on.
    pub enrolment: Option<enrol::Enrolment>,
    /// Where console and API listen.
    pub http: SocketAddr,
    /// The page's password and the API's token.
    pub token: api::Token,
    /// The plant log.
    pub store: Store,
    /// Points and agents.
    pub catalogue: Catalogue,
    /// Who is there.
    pub host: Host,
    /// Last values.
    pub live: Live,
    /// The door for writes.
    pub commands: Commands,
    /// Losses, trims, mismatches.
    pub ledger: Ledger,
}

impl Handle {
    /// Whether the plant log can be written.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.store.health()
    }
}

/// Opens everything and starts it in `tasks`; shutdown is `tasks.drain()`.
pub async fn start(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    tasks: Tasks,
) -> Result<Handle, StartError> {
    let (opened, catalogue, ledger) = open(&config, &clock, &metrics, &tasks).await?;
    let Opened { store, writer, groups, last_values } = opened;
    let live = Live::new(clock.clone());
    live.restore(plant::restored(last_values));
    live.mark_stale(&catalogue.points().iter().map(|entry| entry.id).collect::<Vec<_>>());
    tasks.spawn_blocking(TaskKind::LogWriter, "plant log", move || {
        writer.run();
        Ok::<_, std::convert::Infallible>(())
    });
    tasks.spawn(
        TaskKind::Housekeeping,
        "plant log clock",
        plant::wake_writer(store.clone(), tasks.shutdown()),
    );

    let started = wire(&config, (&store, &catalogue, &live, &ledger), groups, &clock, &metrics, &tasks).await;
    if started.is_err() {
        store.close().await; // nobody else will
    }
    started
}

/// Everything above the store.
async fn wire(
    config: &Config,
    (store, catalogue, live, ledger): (&Store, &Catalogue, &Live, &Ledger),
    groups: mpsc::Receiver<store::DurableGroup>,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<Handle, StartError> {
    let (inbox, messages) = broker::inbox(broker::INBOX_MESSAGES_MAX);
    let (events, changes) = mpsc::channel(BROKER_EVENTS_MAX);
    let identity = HostIdentity { host_id: config.host_id.clone(), data_dir: config.data_dir.clone() };
    let broker: Arc<dyn Broker> = broker::start(
        config.broker.clone(),
        identity,
        inbox,
        events,
        clock.clone(),
        metrics.clone(),
        tasks.clone(),
    )
    .await?;
    let host = host::start(
        host::Parts {
            inbox: messages,
            events: changes,
            broker: Arc::clone(&broker),
            store: store.clone(),
            catalogue: catalogue.clone(),
            live: live.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
            clock_skew_max: config.clock_skew_max,
            metrics: metrics.clone(),
        },
        tasks,
    );
    let commands = Commands::start(
        &config.data_dir,
        config.commands.enabled,
        plant::plant(catalogue.clone(), host.clone(), store.clone()),
        Arc::clone(&broker),
        clock.clone(),
        metrics,
        tasks,
    )
    .await;
    let reader = plant::Reader {
        groups,
        store: store.clone(),
        catalogue: catalogue.clone(),
        live: live.clone(),
        commands: Some(commands.clone()),
    };
    tasks.spawn(TaskKind::Transport, "durable records", reader.run());
    let names = (config.enterprise.as_str(), config.site.as_str());
    json_tree::start(names, live, Arc::new(catalogue.clone()), Arc::clone(&broker), metrics, tasks);
    let parts = api::Parts {
        config: config.clone(),
        store: store.clone(),
        catalogue: catalogue.clone(),
        live: live.clone(),
        host: host.clone(),
        broker: broker.insight(),
        commands: commands.clone(),
        ledger: ledger.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let enrolment = match enrolment(config) {
        None => None,
        Some(setup) => Some(enrol::start(setup, clock.clone(), metrics.clone(), tasks).await?),
    };
    let api = api::start(parts, tasks).await?;
    Ok(Handle {
        mqtt: broker.local_addr(),
        enrolment,
        http: api.addr,
        token: api.token,
        store: store.clone(),
        catalogue: catalogue.clone(),
        host,
        live: live.clone(),
        commands,
        ledger: ledger.clone(),
    })
}

/// What enrolment needs, if the configuration has it.
fn enrolment(config: &Config) -> Option<enrol::Setup> {
    match &config.broker {
        BrokerConfig::Embedded(own) => enrol::Setup::of(own, &config.data_dir),
        BrokerConfig::Outside(_) => None,
    }
}

/// Opens the logs, off the async threads.
async fn open(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<(Opened, Catalogue, Ledger), StartError> {
    let (data_dir, shutdown) = (config.data_dir.clone(), tasks.shutdown());
    let (hub_id, clock, metrics) = (config.id.clone(), clock.clone(), metrics.clone());
    let retention = store::Retention { age: config.retention, bytes: config.retention_bytes };
    let work = move || -> Result<(Opened, Catalogue, Ledger), StoreError> {
        for log in LOGS {
            durable_log::refuse_newer(&data_dir.join(log))
                .map_err(|source| StoreError::Log { log, source })?;
        }
        let disks = Disks::below(&data_dir)?;
        let epoch = store::random_epoch()?.0;
        let (names, copy) =
            (store::folder(&data_dir, "catalogue")?, store::folder(&data_dir, "catalogue/copy")?);
        let catalogue = Catalogue::open(names, copy, epoch)?;
        let ledger = Ledger::open(store::folder(&data_dir, "ledger")?, store::random_epoch()?.0)
            .map_err(|source| StoreError::Log { log: "ledger", source })?;
        let now = clock.now().to_string();
        ledger.damaged("ledger", ledger.recovery(), &now);
        ledger.damaged("point catalogue", catalogue.recovery(), &now);
        let setup = store::Setup {
            hub_id,
            retention,
            disks,
            catalogue: catalogue.clone(),
            ledger: ledger.clone(),
            clock,
            metrics,
            shutdown,
        };
        Ok((store::open(setup)?, catalogue, ledger))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(source)) => Err(StartError::Store { folder: config.data_dir.display().to_string(), source }),
        Err(panic) => Err(StartError::Panicked(panic.to_string())),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
