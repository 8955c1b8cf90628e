//! The plant in one thread: the code of agent, hub and bridge on a virtual clock, simulated disks and a simulated network.
//!
//! A run is a plant that breaks for a minute in ways that its seed chooses (power cuts at any call of a disk, kills,
//! failing and full disks, cut and half-open links, lost, late and doubled messages, a failing lake, clocks that are set),
//! then heals, and is judged: whatever was accepted is in the table, once, as it was read. The same seed gives the same
//! run. Numbered rules (S1 …) are in docs/reliability.md.

mod agent;
mod campaign;
mod dice;
mod hub;
mod long;
mod network;
mod plan;
mod run;
mod shadow;
mod source;
mod stubborn;
mod table;

use std::time::Duration;

pub use campaign::{Campaign, campaign};

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first rule that was broken: how.
    pub broken: Option<String>,
    /// Samples accepted.
    pub accepted: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Virtual time.
    pub simulated: Duration,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run::run(seed)
}

/// The uplink of all agents is cut for so long, and nothing else breaks.
#[must_use]
pub fn without_uplink(seed: u64, lasts: Duration) -> Outcome {
    long::without_uplink(seed, lasts)
}

/// The lake takes nothing for so long, and nothing else breaks.
#[must_use]
pub fn without_lake(seed: u64, lasts: Duration) -> Outcome {
    long::without_lake(seed, lasts)
}

/// Runs one seed while a mistake is made on purpose.
#[cfg(feature = "mistakes")]
#[must_use]
pub fn run_with(seed: u64, mistake: Option<runtime::mistakes::Mistake>) -> Outcome {
    runtime::mistakes::make(mistake);
    let outcome = run::run(seed);
    runtime::mistakes::make(None);
    outcome
}
