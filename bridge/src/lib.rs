//! The bridge: follows a hub's plant log and brings its rows into tables, each exactly once.
//!
//! Wiring only. The bridge knows a hub by its HTTP feed (`feed.rs`) and targets by their contract (`sinks.rs`); it keeps
//! nothing of its own on disk. It never writes to a hub but a cursor, and never reads a row that it wrote, except to
//! reconcile (`scan.rs`).

mod alarm;
pub mod batch;
pub mod catalogue;
pub mod config;
pub mod cursor;
#[cfg(feature = "test-util")]
pub mod faulty_store;
pub mod feed;
pub mod parquet_file;
mod parquet_input;
mod pump;
mod room;
pub mod scan;
#[cfg(feature = "test-util")]
pub mod sink_conformance;
pub mod sinks;
mod status;
pub mod table;
pub mod upkeep;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::watch;
use url::Url;

pub use alarm::Pace;
pub use config::{Config, SinkConfig, validate};
pub use status::{SinkStatus, State};

use feed::Pages;
use pump::Pump;
use sinks::location::Location;
use status::Reporter;

/// Why a bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to do.
    #[error("the bridge has no sinks")]
    NoSinks,
}

/// A running bridge. Its tasks end with the `Tasks` that they were given.
#[derive(Debug)]
pub struct Handle {
    sinks: Vec<watch::Receiver<SinkStatus>>,
}

impl Handle {
    /// Every sink as it is now.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.sinks.iter().map(|sink| sink.borrow().clone()).collect()
    }

    /// One receiver per sink, to wait for changes.
    #[must_use]
    pub fn watch(&self) -> Vec<watch::Receiver<SinkStatus>> {
        self.sinks.clone()
    }
}

/// Starts one pump per sink. Hub and targets need not be there yet: pumps wait for them.
pub async fn start(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    tasks: Tasks,
) -> Result<Handle, StartError> {
    if config.sinks.is_empty() {
        return Err(StartError::NoSinks);
    }
    let mut sinks = Vec::new();
    for sink in config.sinks {
        let name = format!("bridge {}", sink.name);
        let source = Source { hub: config.hub.clone(), token_file: config.token_file.clone(), pages: None };
        let (status, pump) = pump(source, sink, clock.clone(), &metrics, tasks.shutdown());
        sinks.push(status);
        tasks.spawn(TaskKind::Transport, name, pump);
    }
    Ok(Handle { sinks })
}

/// The hub that a pump follows.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its address, ending with `/`.
    pub hub: Url,
    /// File with its token.
    pub token_file: Option<PathBuf>,
    /// A simulator's way to it, in the place of HTTP.
    pub pages: Option<Arc<dyn Pages>>,
}

/// One sink's loop as a future, and its status. It may be dropped at any point: whoever starts another one for the same
/// sink goes on where the target stands.
pub fn pump(
    source: Source,
    sink: SinkConfig,
    clock: Clock,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> (watch::Receiver<SinkStatus>, impl Future<Output = Result<(), Infallible>> + Send + use<>) {
    let reporter = Arc::new(Reporter::new(&sink.name, sink.kind, metrics));
    let status = reporter.subscribe();
    let room =
        sink.sink.location().and_then(Location::folder).map(|folder| room::Room::new(folder.to_owned()));
    let watch = alarm::watch(Arc::clone(&reporter), sink.pace, sink.max_wait, room);
    let upkeep = sink.sink.upkeep().filter(|_| !runtime::world::is_simulated());
    let upkeep = upkeep.map(|upkeep| upkeep::run(upkeep, Arc::clone(&reporter), shutdown.clone()));
    let SinkConfig { name, sink: target, max_rows, max_bytes, max_wait, pace, .. } = sink;
    let bounds = pump::Bounds { max_rows, max_bytes, max_wait };
    let pump = Pump { source, name, bounds, pace, clock, reporter, shutdown, apart_below: 0 }.run(target);
    let both = async move {
        let upkeep = async {
            if let Some(upkeep) = upkeep {
                upkeep.await;
            }
        };
        tokio::select! {
            biased;
            (ended, ()) = futures_util::future::join(pump, upkeep) => ended, // both end with shutdown
            () = watch => Ok(()), // it never ends
        }
    };
    (status, both)
}
