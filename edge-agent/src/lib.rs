//! The edge agent: reads devices, normalises, accepts into a durable log, speaks Sparkplug to its hub.
//!
//! This file only wires: [`start`] opens catalogue and outbox and spawns the tasks below. They end on the drain of the
//! [`Tasks`] given, in the order of the flow: devices first, then commands, then the uplink (which sends what was
//! accepted while the link stands), then the writer.

pub mod acquisition;
pub mod catalogue;
pub mod certificate;
pub mod commands;
pub mod config;
pub mod device_write;
#[cfg(any(test, feature = "test-util"))]
pub mod driver_conformance;
pub mod drivers;
pub mod edge_node;
pub mod health;
pub mod normalise;
pub mod outbox;
pub mod pace;
pub mod points;
pub mod probe;
pub mod profiles;
pub mod quarantine;
pub mod shared;
pub mod uplink;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable_log::{DiskStorage, Storage};
use model::{NodeId, PointDefinition, PointId};
use runtime::clock::Clock;
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;

use acquisition::{Acquisition, Surroundings};
use catalogue::{Catalogue, CatalogueError, Points};
use certificate::CertificateCare;
use commands::{ClockSkew, CommandMeters, DEVICE_WRITES_MAX, Executor, Target, WAITING_MAX};
use config::{Config, DeviceConfig};
use health::{DeviceStatus, Health, PointLook, Recipe, SessionStatus};
use normalise::PointRules;
use outbox::{Dropped, Epochs, Opened, Outbox, OutboxError};
use uplink::{Uplink, UplinkSetup};

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The catalogue.
    #[error("the point catalogue cannot be opened: {0}")]
    Catalogue(#[from] CatalogueError),
    /// The outbox.
    #[error("the outbox cannot be opened: {0}")]
    Outbox(#[from] OutboxError),
    /// Opening was interrupted.
    #[error("opening was interrupted: {0}")]
    Interrupted(String),
}

/// A running agent.
#[derive(Clone, Debug)]
pub struct Handle {
    node: NodeId,
    outbox: Outbox,
    health: Health,
    catalogue: Arc<Catalogue>,
}

/// How an agent is, in one piece.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who.
    pub node: NodeId,
    /// The session with the hub.
    pub session: SessionStatus,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
    /// Records held that no receipt covers.
    pub backlog: u64,
    /// Bytes on disk.
    pub outbox_bytes: u64,
    /// Whether nothing is accepted because the bound is reached.
    pub is_full: bool,
    /// What policy removed since the start.
    pub dropped: Dropped,
}

impl Handle {
    /// Who it is.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The last reading of a point of a device, both by their numbers in [`Status::devices`] and the point list: raw value
    /// and result.
    #[must_use]
    pub fn look(&self, device: usize, point: usize) -> Option<PointLook> {
        self.health.looks(device).point(point)
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            node: self.node.clone(),
            session: self.health.session_status(),
            devices: self.health.devices(),
            backlog: self.outbox.epochs(Epochs::backlog),
            outbox_bytes: self.outbox.view().bytes(),
            is_full: self.outbox.is_full(),
            dropped: self.outbox.dropped(),
        }
    }
}

/// Opens the agent's logs and starts its tasks.
pub async fn start(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    tasks: Tasks,
) -> Result<Handle, StartError> {
    let (data_dir, outbox_options) = (config.data_dir.clone(), config.outbox.clone());
    let definitions = definitions(&config);
    let (open_clock, open_metrics) = (clock.clone(), metrics.clone());
    let opened = tokio::task::spawn_blocking(move || {
        open(&data_dir, &definitions, &outbox_options, &open_clock, &open_metrics)
    });
    let (folder, catalogue, opened) =
        opened.await.map_err(|error| StartError::Interrupted(error.to_string()))??;
    tracing::info!(node = %config.node, recovery = %opened.recovery, "outbox opened");
    for repaired in &opened.recovery.repaired {
        tracing::error!(node = %config.node, %repaired, "the outbox");
    }
    if let Some(cut) = &opened.recovery.cut {
        tracing::warn!(node = %config.node, %cut, "a torn end was cut off: it was never accepted");
    }
    let handle = Handle {
        node: config.node.clone(),
        outbox: opened.outbox.clone(),
        health: Health::default(),
        catalogue: Arc::new(catalogue),
    };
    spawn(config, folder, &handle, opened, &clock, &metrics, &tasks);
    Ok(handle)
}

fn open(
    data_dir: &Path,
    definitions: &[PointDefinition],
    options: &outbox::OutboxOptions,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<(Arc<dyn Storage>, Catalogue, Opened), StartError> {
    let folder = DiskStorage::create(data_dir)
        .map_err(|source| StartError::Folder { path: data_dir.to_owned(), source })?;
    for log in ["catalogue", "catalogue/copy", "outbox"] {
        durable_log::refuse_newer(&data_dir.join(log)).map_err(OutboxError::from)?;
    }
    let catalogue = Catalogue::open(&data_dir.join("catalogue"), outbox::new_epoch()?.0, definitions)?;
    let opened = outbox::open(&data_dir.join("outbox"), options, &catalogue.points, clock, metrics)?;
    Ok((Arc::new(folder), catalogue, opened))
}

/// All points of the configuration, the node's own last.
fn definitions(config: &Config) -> Vec<PointDefinition> {
    let points = config.devices.iter().flat_map(|device| &device.points);
    let mut definitions: Vec<PointDefinition> = points.map(|point| point.definition.clone()).collect();
    definitions.extend(catalogue::command_report_definition(&config.node));
    definitions
}

fn spawn(
    config: Config,
    folder: Arc<dyn Storage>,
    handle: &Handle,
    opened: Opened,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &Tasks,
) {
    let node = config.node.clone();
    let outbox = opened.outbox;
    let points: Arc<Points> = handle.catalogue.points.clone();
    let producers = Arc::new(());
    let mut positions = opened.positions;
    let mut targets: HashMap<PointId, Target> = HashMap::new();
    let mut numbers = handle.catalogue.current.iter().copied();
    let writer = opened.writer;
    tasks.spawn_blocking(TaskKind::LogWriter, format!("{node} outbox"), || writer.run());
    let skew = ClockSkew::default();
    for device in config.devices {
        let ids: Vec<PointId> = numbers.by_ref().take(device.points.len()).collect();
        let (writes, writes_taken) = mpsc::channel(DEVICE_WRITES_MAX);
        targets.extend(
            writable(&device, &ids)
                .map(|(id, index, rules)| (id, Target { writes: writes.clone(), index, rules })),
        );
        let (points, pace) = (device.points.len(), device.pace.clone());
        let number = handle.health.add_device(&device.name, device.kind, points, pace, clock.now());
        handle.health.describe(number, recipes(&device, &ids));
        let around = Surroundings {
            outbox: outbox.clone(),
            clock: clock.clone(),
            agent: node.to_string(),
            metrics: metrics.clone(),
            skew: skew.clone(),
            health: handle.health.clone(),
            device: number,
            shutdown: tasks.shutdown(),
        };
        let (name, producing) = (format!("{node} {}", device.name), producers.clone());
        let resume = positions.remove(&device.name);
        let acquisition = Acquisition::new(device, ids, resume, writes_taken, around);
        tasks.spawn(TaskKind::Acquisition, name, async move {
            let _producing = producing;
            acquisition.run().await
        });
    }
    let (commands, requests) = mpsc::channel(WAITING_MAX);
    let executor = Executor {
        enabled: config.commands_enabled,
        targets,
        points: points.clone(),
        outbox: outbox.clone(),
        clock: clock.clone(),
        skew: skew.clone(),
        meters: CommandMeters::new(metrics, &node.to_string()),
    };
    if let Some(tls) = config.hub.tls.clone().filter(|tls| tls.client.is_some()) {
        let certificate = CertificateCare::new(&node, tls, config.enrol, clock.clone(), metrics);
        let caring = certificate.run(tasks.shutdown());
        tasks.spawn(TaskKind::Housekeeping, format!("{node} certificate"), caring);
    }
    let (shutdown, producing) = (tasks.shutdown(), producers.clone());
    tasks.spawn(TaskKind::Transport, format!("{node} commands"), async move {
        let _producing = producing;
        executor.run(requests, shutdown).await
    });
    let setup = UplinkSetup {
        node: config.node,
        hub: config.hub,
        host_id: config.host_id,
        primary_host: config.primary_host,
        history_rate: config.history_rate,
        folder,
        outbox,
        points,
        clock: clock.clone(),
        health: handle.health.clone(),
        commands,
        skew,
        producers,
        shutdown: tasks.shutdown(),
    };
    tasks.spawn(TaskKind::Transport, format!("{node} uplink"), Uplink::new(setup, metrics).run());
}

/// How the points of a device are made, for whoever looks at one.
fn recipes(device: &DeviceConfig, ids: &[PointId]) -> Vec<Recipe> {
    let recipe = |(point, id): (&points::PointConfig, &PointId)| Recipe {
        id: *id,
        address: point.address.as_str().into(),
        raw_type: point.raw_type,
        scale: point.scale,
        offset: point.offset,
    };
    device.points.iter().zip(ids).map(recipe).collect()
}

/// The points of a device that commands may write.
fn writable<'a>(
    device: &'a DeviceConfig,
    ids: &'a [PointId],
) -> impl Iterator<Item = (PointId, usize, PointRules)> + 'a {
    let points = device.points.iter().zip(ids).enumerate();
    points
        .filter(|(_, (point, _))| point.definition.writable)
        .map(|(index, (point, id))| (*id, index, PointRules::new(point)))
}
