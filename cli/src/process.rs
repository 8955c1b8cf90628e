//! The roles of one process: started with the flow (hub, bridge, agents), drained with it (agents, bridge, hub).

use std::time::Duration;

use runtime::clock::Clock;
use runtime::data_folder;
use runtime::tasks::{CancellationToken, Drained, Tasks};
use runtime::telemetry::Metrics;

use crate::output::grouped;
use crate::plant::Plant;

/// Running roles.
pub struct Process {
    /// Hubs with their tasks; the first is the plant's.
    pub hubs: Vec<(hub::Handle, Tasks)>,
    /// Bridges with their tasks.
    pub bridges: Vec<(bridge::Handle, Tasks)>,
    /// Agents with their tasks.
    pub agents: Vec<(edge_agent::Handle, Tasks)>,
    failure: CancellationToken,
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGINT or SIGTERM.
    Signal,
    /// The time that it was asked to run is over.
    Time,
    /// A task failed whose fate is to stop the process.
    Failure,
}

impl Process {
    /// Starts every role of every plant; an error has drained what was started before it.
    pub async fn start(plants: Vec<Plant>) -> Result<Process, String> {
        let mut process =
            Process { hubs: vec![], bridges: vec![], agents: vec![], failure: CancellationToken::new() };
        match process.start_all(plants).await {
            Ok(()) => Ok(process),
            Err(error) => {
                process.drain().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self, plants: Vec<Plant>) -> Result<(), String> {
        let (clock, metrics) = (Clock::machine(), Metrics::default());
        let (mut hubs, mut bridges, mut agents) = (vec![], vec![], vec![]);
        for plant in plants {
            let file = plant.file;
            hubs.extend(plant.hub.map(|config| (file.clone(), config)));
            bridges.extend(plant.bridge.map(|config| (file.clone(), config)));
            agents.extend(plant.edge.map(|config| (file.clone(), config)));
        }
        for (file, config) in hubs {
            usable(&file, "hub", &config.data_dir)?;
            let tasks = Tasks::new(self.failure.clone());
            let started = hub::start(config, clock.clone(), metrics.clone(), tasks.clone()).await;
            self.hubs.push((started.map_err(|error| failed(&file, "hub", &error))?, tasks));
        }
        for (file, config) in bridges {
            let tasks = Tasks::new(self.failure.clone());
            let started = bridge::start(config, clock.clone(), metrics.clone(), tasks.clone()).await;
            self.bridges.push((started.map_err(|error| failed(&file, "bridge", &error))?, tasks));
        }
        for (file, config) in agents {
            usable(&file, "edge agent", &config.data_dir)?;
            let tasks = Tasks::new(self.failure.clone());
            let started = edge_agent::start(config, clock.clone(), metrics.clone(), tasks.clone()).await;
            self.agents.push((started.map_err(|error| failed(&file, "edge agent", &error))?, tasks));
        }
        Ok(())
    }

    /// Waits for a signal, a failure or the end of `run_for`.
    pub async fn wait(&self, run_for: Option<Duration>) -> End {
        let time = async {
            match run_for {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal() => End::Signal,
            () = time => End::Time,
            () = self.failure.cancelled() => End::Failure,
        }
    }

    /// How far everything has come, in a line for people.
    #[must_use]
    pub fn progress(&self) -> String {
        let mut parts = Vec::new();
        for (agent, _) in &self.agents {
            let status = agent.status();
            let link = if status.session.is_online { "online" } else { status.session.text.as_str() };
            parts.push(format!("{} {link}, {} waiting", status.node, status.backlog));
        }
        for (hub, _) in &self.hubs {
            let accounts = hub.store.accounts();
            let samples: u64 =
                accounts.iter().flat_map(|agent| &agent.epochs).map(|epoch| epoch.account.count).sum();
            parts.push(format!("hub {} samples", grouped(samples)));
        }
        for sink in self.bridges.iter().flat_map(|(bridge, _)| bridge.status()) {
            let behind = sink.durable_end.saturating_sub(sink.settled);
            parts.push(match &sink.last_error {
                Some(error) => format!("table {}: {error}", sink.name),
                None => format!("table {} {} commits, {behind} records behind", sink.name, sink.commits),
            });
        }
        parts.join("  ·  ")
    }

    /// Ends the roles with the flow; says what was not graceful.
    pub async fn drain(self) -> Vec<String> {
        let mut complaints = Vec::new();
        drain_all(self.agents.into_iter().map(|(_, tasks)| tasks).collect(), "edge agent", &mut complaints)
            .await;
        drain_all(self.bridges.into_iter().map(|(_, tasks)| tasks).collect(), "bridge", &mut complaints)
            .await;
        drain_all(self.hubs.into_iter().map(|(_, tasks)| tasks).collect(), "hub", &mut complaints).await;
        complaints
    }
}

/// Before anything is touched: whether the role may use its folder; says where a relative one is.
fn usable(file: &std::path::Path, role: &str, data_dir: &std::path::Path) -> Result<(), String> {
    let absolute = data_folder::check(data_dir).map_err(|error| failed(file, role, &error))?;
    if data_dir.is_relative() {
        tracing::info!(data_dir = %absolute.display(), "the {role}'s data_dir is relative to its configuration file");
    }
    Ok(())
}

fn failed(file: &std::path::Path, role: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{}: the {role} did not start: {error}", file.display());
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let deeper_text = deeper.to_string();
        if !text.contains(&deeper_text) {
            text += &format!(": {deeper_text}");
        }
        cause = deeper.source();
    }
    text
}

async fn drain_all(tasks: Vec<Tasks>, role: &str, complaints: &mut Vec<String>) {
    let drained = futures_util::future::join_all(tasks.iter().map(Tasks::drain)).await;
    for Drained { failed, abandoned } in drained {
        complaints.extend(failed.into_iter().map(|why| format!("{role}: {why}")));
        if abandoned > 0 {
            complaints.push(format!("{role}: {abandoned} tasks did not end in time"));
        }
    }
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be received; stop this process with kill");
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// A runtime for a process: as many workers as cores, at least 1.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("forebay")
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}
