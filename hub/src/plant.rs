//! What commands need to know of the plant, put together from catalogue, host and store; and the one reader that feeds
//! live view, commands and checkpoint with what is durable.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use durable_log::Position;
use model::{NodeId, SampleBatch, Value};
use proto::log_record::{AgentId, LogRecord};
use proto::receipt::{COMMAND_REPORT_METRIC, CommandReport};
use runtime::world::{Blocking, start_blocking};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::catalogue::Catalogue;
use crate::commands::{Commands, Plant, Target};
use crate::host::Host;
use crate::live::{Live, LiveValue};
use crate::store::{DurableGroup, LastValue, Store, Told};

/// Accounts and last values are written this often, if anything came: bounds how much is read at the next start.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// ... the first time so soon, if the start had much to read: the next one shall not read it again.
const FIRST_CHECKPOINT: Duration = Duration::from_millis(500);
/// ... and earlier after so many samples: what is read of them at a start takes about a second.
const CHECKPOINT_SAMPLES: usize = 2_000_000;
/// ... but not sooner than this after the last one: a checkpoint holds every point.
const CHECKPOINT_SPACING: Duration = Duration::from_secs(2);

/// Catalogue, host and store, as commands see them.
pub(crate) struct PlantView {
    pub(crate) catalogue: Catalogue,
    pub(crate) host: Host,
    pub(crate) store: Store,
}

impl Plant for PlantView {
    fn target(&self, path: &str) -> Option<Target> {
        let id = self.catalogue.find(path)?;
        let entry = self.catalogue.point(id)?;
        Some(Target { definition: entry.definition.clone(), place: self.host.device_of(id)? })
    }

    fn log_end(&self) -> u64 {
        self.store.durable().borrow().0
    }

    fn reports_since(&self, from: u64) -> Vec<(NodeId, CommandReport)> {
        let mut reader = self.store.view().reader(Position(from));
        let mut reports = Vec::new();
        loop {
            match reader.next() {
                Ok(Some((_, bytes))) => {
                    if let Ok(LogRecord::Received { agent, batch, .. }) = LogRecord::decode(bytes) {
                        reports.extend(reports_of(&self.catalogue, agent, &batch));
                    }
                }
                Ok(None) => return reports,
                Err(error) => {
                    tracing::error!(%error, from, "reports of commands cannot be read");
                    return reports;
                }
            }
        }
    }
}

/// The command reports among a record's samples.
fn reports_of(catalogue: &Catalogue, agent: AgentId, batch: &SampleBatch) -> Vec<(NodeId, CommandReport)> {
    let mut reports = Vec::new();
    for sample in &batch.samples {
        let Some(Value::Bytes(bytes)) = &sample.value else { continue };
        let Some(entry) = catalogue.point(sample.point) else { continue };
        if entry.definition.device.is_some() || entry.definition.metric != COMMAND_REPORT_METRIC {
            continue;
        }
        match (catalogue.agent(agent), CommandReport::decode(bytes)) {
            (Some(node), Ok(report)) => reports.push((node, report)),
            (_, Err(error)) => tracing::warn!(agent = agent.0, %error, "command report"),
            (None, _) => {}
        }
    }
    reports
}

/// Takes durable records to the live view and to commands, and writes checkpoints; a last one when the store has
/// closed.
pub(crate) struct Reader {
    pub(crate) groups: mpsc::Receiver<DurableGroup>,
    pub(crate) store: Store,
    pub(crate) catalogue: Catalogue,
    pub(crate) live: Live,
    /// `None`: reports are for nobody (a simulation has no commands).
    pub(crate) commands: Option<Commands>,
}

impl Reader {
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let mut seen = *self.store.durable().borrow();
        let mut written = self.store.checkpointed();
        let mut writing: Option<Blocking<()>> = None;
        let mut samples = 0;
        let mut due = tokio::time::interval_at(Instant::now() + FIRST_CHECKPOINT, CHECKPOINT);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = due.tick() => {
                    let busy = writing.as_ref().is_some_and(|work| !work.is_finished());
                    if !busy && *self.store.durable().borrow() > written {
                        written = *self.store.durable().borrow();
                        writing = Some(self.checkpoint(seen));
                        samples = 0;
                    }
                }
                group = self.groups.recv() => match group {
                    Some(group) => {
                        seen = self.take(&group).unwrap_or(seen);
                        let before = samples;
                        samples += samples_of(&group);
                        if before < CHECKPOINT_SAMPLES && samples >= CHECKPOINT_SAMPLES {
                            due.reset_after(CHECKPOINT_SPACING);
                        }
                    }
                    None => break,
                },
            }
        }
        if let Some(writing) = writing {
            writing.join().await.ok();
        }
        self.checkpoint(seen).join().await.ok();
        Ok(())
    }

    fn take(&self, group: &DurableGroup) -> Option<Position> {
        for part in group.chunk_by(|one, next| one.record().is_some() && next.record().is_some()) {
            match part {
                [Told::Vouched { points, holds: true }] => self.live.confirm(points),
                [Told::Vouched { points, holds: false }] => self.live.mark_stale(points),
                records => {
                    self.live.apply(records.iter().filter_map(Told::record).map(|durable| &durable.batch))
                }
            }
        }
        if let Some(commands) = &self.commands {
            for durable in group.iter().filter_map(Told::record).filter(|durable| durable.has_command_report)
            {
                for (node, report) in reports_of(&self.catalogue, durable.agent, &durable.batch) {
                    commands.report(&node, report);
                }
            }
        }
        group.iter().rev().find_map(Told::record).map(|newest| Position(newest.position.0 + 1))
    }

    fn checkpoint(&self, seen: Position) -> Blocking<()> {
        let (store, live) = (self.store.clone(), self.live.clone());
        start_blocking(move || {
            let values = live.snapshot().into_iter().map(|(point, value)| LastValue {
                point,
                time: value.time,
                arrival: value.arrival,
                value: value.value,
                quality: value.quality,
            });
            if let Err(error) = store.write_checkpoint(values.collect(), seen) {
                tracing::error!(%error, "checkpoint not written; the log is kept until one is");
            }
        })
    }
}

fn samples_of(group: &DurableGroup) -> usize {
    group.iter().filter_map(Told::record).map(|durable| durable.batch.samples.len()).sum()
}

/// Last values as the live view takes them.
pub(crate) fn restored(values: Vec<LastValue>) -> Vec<(model::PointId, LiveValue)> {
    let restored = values.into_iter().map(|last| {
        let LastValue { point, time, arrival, value, quality } = last;
        (point, LiveValue { time, arrival, value, quality })
    });
    restored.collect()
}

/// Lets the store's writer look after itself once a second; makes sure that it ends.
pub(crate) async fn wake_writer(
    store: Store,
    shutdown: runtime::tasks::CancellationToken,
) -> Result<(), Infallible> {
    const EVERY: Duration = Duration::from_secs(1);
    /// The host closes the store; this is for a host that failed.
    const PATIENCE: Duration = Duration::from_secs(12);
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(EVERY) => store.tick(),
            () = shutdown.cancelled() => break,
        }
    }
    tokio::select! {
        biased;
        () = store.closed() => {}
        () = tokio::time::sleep(PATIENCE) => store.close().await,
    }
    Ok(())
}

/// Shared with the command path.
pub(crate) fn plant(catalogue: Catalogue, host: Host, store: Store) -> Arc<dyn Plant> {
    Arc::new(PlantView { catalogue, host, store })
}
