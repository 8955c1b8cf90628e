//! Brokers side by side under one load: `forebay bench broker`.
//!
//! - The load (`load`, `latency`) is outside all brokers and the same for all: prebuilt packets over bare sockets, no client
//!   library, one thread (two where times are taken), so that one of two cores is left to the broker.
//! - The load sees both ends: publishers are held to what the slowest subscriber has taken. A run measures what a broker
//!   carries, not how fast it drops; what is lost all the same is counted.
//! - The main figure is deliveries per CPU second of the broker's process. It depends less on what else the machine does
//!   than messages per second.
//! - Every run has a fresh broker; repetitions of the brokers alternate; shown is the median.

mod cases;
pub(crate) mod connection;
mod durable;
mod idle;
mod latency;
mod load;
pub(crate) mod packet;
pub(crate) mod peers;
mod stuck;
mod throughput;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine;
use crate::report::{self, Contestant, Outcome};
pub use cases::{CASES, Case, select};
use peers::Installed;
pub use peers::{Peer, Running};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`select`].
    pub cases: Vec<Case>,
    /// Who takes part; ratios are those of the first to the others.
    pub peers: Vec<Peer>,
    /// For [`Peer::Running`].
    pub running: Option<Running>,
    /// The forebay to measure.
    pub program: PathBuf,
    /// Where brokers keep their files; a real disk, or the durable figures say nothing.
    pub dir: PathBuf,
    /// How long each run is measured.
    pub time: Duration,
    /// Runs of each broker in each case.
    pub repeat: usize,
}

/// Runs the cases; `say` gets each table as it is done. The answer is everything, for scripts.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Value, String> {
    let machine = machine::describe();
    let command = command_line();
    say(&format!("{command}\n{machine}"));
    let mut installed = Vec::new();
    for peer in &options.peers {
        match Installed::find(*peer, &options.program, options.running.as_ref()) {
            Ok(found) => {
                say(&format!("{}: {}", peer.name(), found.version));
                installed.push(found);
            }
            Err(reason) => say(&format!("{}: left out: {reason}", peer.name())),
        }
    }
    if installed.is_empty() {
        return Err("there is no broker to measure".into());
    }
    let how = format!("{} s each after a warm-up, median of {}", options.time.as_secs_f64(), options.repeat);
    say(&format!("{how}\n"));
    let mut outcomes = Vec::new();
    for case in &options.cases {
        let outcome = measure(case, &installed, options);
        if outcome.contestants.is_empty() {
            continue;
        }
        say(&format!("{}\n", outcome.text()));
        outcomes.push(outcome);
    }
    say(&format!("{}\n{}", report::summary(&outcomes), machine::describe()));
    let versions: Vec<Value> =
        installed.iter().map(|one| json!({ "peer": one.peer.name(), "version": one.version })).collect();
    Ok(json!({
        "command": command,
        "machine": machine,
        "machine_after": machine::describe(),
        "peers": versions,
        "seconds": options.time.as_secs_f64(),
        "repeat": options.repeat,
        "cases": outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
    }))
}

/// Every repetition of every contestant, in turn. A failure is part of the outcome: the others go on.
fn measure(case: &Case, installed: &[Installed], options: &Options) -> Outcome {
    let mut contestants = Vec::new();
    let mut who = Vec::new();
    for one in installed.iter().filter(|one| case.suits(one.peer)) {
        for variant in case.variants() {
            let (peer, variant_name) = (one.peer.name(), variant.name());
            contestants.push(Contestant { peer, variant: variant_name, runs: Vec::new(), failure: None });
            who.push((one, *variant));
        }
    }
    for _ in 0..options.repeat.max(1) {
        for (contestant, (one, variant)) in contestants.iter_mut().zip(&who) {
            let dir = options.dir.join(format!("{}-{}", case.name, one.peer.name()));
            match case.run(one, *variant, &dir, options.time) {
                Ok(readings) => contestant.runs.push(readings),
                Err(failure) => contestant.failure = Some(explained(&failure, &dir)),
            }
            std::fs::remove_dir_all(&dir).ok();
        }
    }
    Outcome { name: case.name, title: case.title, columns: case.columns(), contestants }
}

/// What was typed, without this machine's folders.
pub(crate) fn command_line() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// A failure with the last that the broker said.
fn explained(failure: &str, dir: &Path) -> String {
    let said = std::fs::read_to_string(dir.join("said")).unwrap_or_default();
    match said.lines().next_back() {
        Some(last) => format!("{failure}; it said: {last}"),
        None => failure.to_owned(),
    }
}
