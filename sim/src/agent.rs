//! One agent's process: catalogue, outbox and uplink as they are, with numbered sources in the place of drivers.

use std::sync::Arc;
use std::time::Duration;

use durable_log::{Faults, FaultyStorage, Fuse, Log, Options, Storage};
use edge_agent::catalogue::Catalogue;
use edge_agent::commands::{ClockSkew, Request};
use edge_agent::config::HubAddress;
use edge_agent::health::Health;
use edge_agent::outbox::{self, Epochs, NewGroup, Opened, Outbox, OutboxError, OutboxOptions, WhenFull};
use edge_agent::uplink::{Uplink, UplinkSetup};
use model::{DataType, NodeId, PointDefinition, PointId, PointPath};
use proto::log_record::DeviceEvent;
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::hub::flip_one;
use crate::network::{HOST_ID, Net};
use crate::plan::Plan;
use crate::shadow::Shadow;
use crate::source;
use crate::stubborn::disk;

/// The machine that an agent runs on.
pub(crate) struct Agent {
    number: usize,
    node: NodeId,
    devices: Vec<Device>,
    definitions: Vec<PointDefinition>,
    pub(crate) disks: [FaultyStorage; 4],
    pub(crate) power: Fuse,
    pub(crate) clock: Clock,
    running: Option<Running>,
    segment: u64,
    /// The disks as they were some time ago.
    backup: Option<[FaultyStorage; 4]>,
    /// An opening has said that something on its disks is not what was written.
    pub(crate) tells_damage: bool,
}

/// A device that the agent reads.
#[derive(Clone)]
struct Device {
    name: String,
    shadow: usize,
}

struct Running {
    tasks: Tasks,
    failed: CancellationToken,
    outbox: Outbox,
    _commands: mpsc::Receiver<Request>,
}

/// What a source needs beside the outbox.
struct Pace {
    read_every: u64,
    samples: u64,
    until: Instant,
}

impl Agent {
    pub(crate) fn new(number: usize, plan: &Plan, dice: &mut Dice, shadow: &Shadow, clock: Clock) -> Self {
        let (mut devices, mut definitions) = (Vec::new(), Vec::new());
        for at in 0..plan.devices {
            let name = format!("press-{at}");
            let mut paths = Vec::new();
            for point in 0..source::POINTS {
                let metric = format!("level-{point}");
                let path = format!("line-{number}/{name}/{metric}");
                definitions.extend(definition(&path, &name, metric));
                paths.push(path);
            }
            let shadow = shadow.add_device(u32::try_from(number).unwrap_or(0), paths);
            devices.push(Device { name, shadow });
        }
        Agent {
            number,
            #[expect(clippy::expect_used, reason = "the name is a constant of this file")]
            node: NodeId::new("plant", &format!("agent-{number}")).expect("a name"),
            devices,
            definitions,
            disks: std::array::from_fn(|_| FaultyStorage::new(dice.next())),
            power: Fuse::default(),
            clock,
            running: None,
            segment: plan.segment,
            backup: None,
            tells_damage: false,
        }
    }

    /// Somebody makes a backup of the machine while it stands still.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.disks.each_ref().map(FaultyStorage::copy));
    }

    /// Somebody restores that backup; whether there was one.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        tracing::debug!(agent = self.number, "restored from a backup");
        self.disks = backup;
        self.restore_power();
        true
    }

    /// One bit of one file flips while the machine stands still.
    pub(crate) fn flip(&mut self, dice: &mut Dice) {
        flip_one(&self.disks, dice);
    }

    /// Whether anything on its disks was found damaged: an opening said so, or ended after it had kept the damaged file.
    pub(crate) fn found_damage(&self) -> bool {
        let kept = |disk: &FaultyStorage| disk.names().iter().any(|name| name.starts_with("damaged-"));
        self.tells_damage || self.disks.iter().any(kept)
    }

    /// MQTT client id.
    fn client(&self) -> String {
        format!("forebay-{}-{}", self.node.group(), self.node.node())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the process has to be taken for dead.
    pub(crate) fn has_failed(&self) -> bool {
        self.running.as_ref().is_some_and(|running| self.power.is_blown() || running.failed.is_cancelled())
    }

    /// Starts the process; an error is one that ends it.
    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        dice: &mut Dice,
        net: &Net,
        shadow: &Shadow,
        until: Instant,
    ) -> Result<(), String> {
        net.powered(&self.client(), &self.power);
        let [folder, catalogue, copy, log] = self.disks.each_ref().map(disk);
        let text = |error: &dyn std::error::Error| format!("{error}");
        let metrics = Metrics::default();
        let epoch = runtime::world::random_u64()? >> 1 | 1;
        let catalogue =
            Catalogue::open_on(catalogue, copy, epoch, &self.definitions).map_err(|e| text(&e))?;
        let options = OutboxOptions {
            agent: self.node.to_string(),
            bytes_max: 1 << 30,
            when_full: WhenFull::StopAccepting,
        };
        let small = self.segment;
        let opened = outbox::open_with(
            &catalogue.points,
            &self.clock,
            &metrics,
            &options,
            std::path::Path::new("/simulated"),
            |options, epoch| {
                let options = Options { segment_bytes: small, reserve_bytes: 0, ..options };
                Log::open_on(log, options, epoch)
            },
        )
        .map_err(|error| text(&error))?;
        self.tells_damage |= !opened.recovery.repaired.is_empty() || opened.recovery.cut.is_some();
        tracing::debug!(agent = self.number, recovery = %opened.recovery, positions = ?opened.positions, "opened");
        self.spawn(folder, catalogue, opened, &metrics, (plan, dice, shadow, until));
        Ok(())
    }

    fn spawn(
        &mut self,
        folder: Arc<dyn Storage>,
        catalogue: Catalogue,
        opened: Opened,
        metrics: &Metrics,
        (plan, dice, shadow, until): (&Plan, &mut Dice, &Shadow, Instant),
    ) {
        let failed = CancellationToken::new();
        let tasks = Tasks::new(failed.clone());
        let Opened { outbox, writer, positions, .. } = opened;
        tasks.spawn(TaskKind::LogWriter, "outbox", writer.run_as_task());
        let producers = Arc::new(());
        let mut numbers = catalogue.current.iter().copied();
        for device in &self.devices {
            let points: Vec<PointId> =
                numbers.by_ref().take(usize::try_from(source::POINTS).unwrap_or(0)).collect();
            let next = positions.get(&device.name).and_then(|bytes| bytes.as_slice().try_into().ok());
            let next = next.map_or(0, u64::from_le_bytes);
            shadow.resumed(device.shadow, next);
            let pace = Pace { read_every: plan.read_every, samples: plan.samples, until };
            let reading = read_device(
                (outbox.clone(), shadow.clone()),
                (device.clone(), points, next),
                pace,
                dice.fork(),
                tasks.shutdown(),
            );
            let producing = producers.clone();
            tasks.spawn(TaskKind::Acquisition, device.name.clone(), async move {
                let _producing = producing;
                reading.await
            });
        }
        let (commands, taken) = mpsc::channel(1);
        let setup = UplinkSetup {
            node: self.node.clone(),
            hub: HubAddress { host: format!("hub-of-{}", self.number), port: 1883, tls: None, login: None },
            host_id: HOST_ID.to_owned(),
            primary_host: plan.primary_host,
            history_rate: plan.history_rate,
            folder,
            outbox: outbox.clone(),
            points: catalogue.points.clone(),
            clock: self.clock.clone(),
            health: Health::default(),
            commands,
            skew: ClockSkew::default(),
            producers,
            shutdown: tasks.shutdown(),
        };
        let uplink = Uplink::new(setup, metrics);
        tasks.spawn(TaskKind::Transport, "uplink", async move {
            let _catalogue = catalogue;
            uplink.run().await
        });
        self.running = Some(Running { tasks, failed, outbox, _commands: taken });
    }

    /// SIGKILL: the tasks are gone, the disks keep what the operating system has.
    pub(crate) fn kill(&mut self) {
        tracing::debug!(agent = self.number, "killed");
        self.running = None;
    }

    /// The plug is pulled.
    pub(crate) fn power_cut(&mut self) {
        tracing::debug!(agent = self.number, "power cut");
        self.power.blow();
        self.running = None;
        self.disks = std::array::from_fn(|at| self.disks[at].crash());
        self.restore_power();
    }

    /// A new fuse for the next life.
    pub(crate) fn restore_power(&mut self) {
        self.power = Fuse::default();
        self.disks.iter().for_each(|disk| disk.set_fuse(&self.power));
    }

    /// SIGTERM: ends by itself.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.tasks.drain().await;
        }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.disks.iter().for_each(|disk| disk.set_faults(faults));
    }

    /// Records without a receipt.
    pub(crate) fn backlog(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.outbox.epochs(Epochs::backlog))
    }
}

fn definition(path: &str, device: &str, metric: String) -> Option<PointDefinition> {
    Some(PointDefinition {
        device: Some(device.to_owned()),
        ..PointDefinition::new(PointPath::new(path).ok()?, metric, DataType::Int64)
    })
}

/// Reads on from a number, as a file driver does: what was accepted is never read again.
async fn read_device(
    (outbox, shadow): (Outbox, Shadow),
    (device, points, mut next): (Device, Vec<PointId>, u64),
    pace: Pace,
    mut dice: Dice,
    shutdown: CancellationToken,
) -> Result<(), OutboxError> {
    while Instant::now() < pace.until {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(dice.millis(1, pace.read_every)) => {}
        }
        let end = next + dice.between(1, pace.samples);
        let group = NewGroup {
            samples: (next..end).map(|number| source::reading(&points, number)).collect(),
            event: if dice.one_in(40) { DeviceEvent::Down } else { DeviceEvent::None },
            position: Some((device.name.clone(), end.to_le_bytes().to_vec())),
            counted: None,
            is_historical: false,
        };
        loop {
            shadow.offers(device.shadow, end);
            match outbox.accept(group.clone()).await {
                Ok(()) => break,
                Err(OutboxError::Full) => {}
                Err(OutboxError::Log(error)) if error.is_full() => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(Duration::from_millis(300)) => {}
            }
        }
        shadow.accepted(device.shadow, end);
        next = end;
    }
    Ok(())
}
