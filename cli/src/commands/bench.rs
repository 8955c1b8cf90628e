//! `forebay bench`: measures this machine, prints figures.

use std::path::PathBuf;

use bench::broker::{self, Peer, Running};
use bench::plc::{self, Agent};
use bench::{Figures, agent, codec, ingest, log, machine, memory, table};

use crate::arguments::{Bench, BenchPeer, BenchWhat};
use crate::demo::plc::RECORDING;
use crate::output::{DONE, FAILED};
use crate::{complain, say};

/// Exit 0 if everything asked for could be measured.
#[must_use]
pub fn run(options: &Bench) -> u8 {
    let measured = match options.what {
        BenchWhat::Broker => brokers(options),
        BenchWhat::Plc => plcs(options),
        _ => measure(options).map(|figures| figures.to_json()),
    };
    std::fs::remove_dir(&options.dir).ok();
    match measured {
        Ok(figures) if options.json => {
            say!("{figures}");
            DONE
        }
        Ok(_) => DONE,
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

/// Runs the brokers side by side; prints each table as it is done, unless a script reads.
fn brokers(options: &Bench) -> Result<serde_json::Value, String> {
    warn_of_debug_build();
    let own = &options.broker;
    let running =
        own.connect.zip(own.pid).map(|(address, pid)| Running { address, pid, login: own.login.clone() });
    let peers = match running {
        Some(_) => vec![Peer::Running],
        None if own.peers.is_empty() => vec![Peer::Forebay, Peer::Mosquitto, Peer::Rumqttd],
        None => own.peers.iter().map(|peer| broker_of(*peer)).collect::<Result<_, _>>()?,
    };
    let wanted = broker::Options {
        cases: broker::select(&own.cases)?,
        peers,
        running,
        program: program(options)?,
        dir: options.dir.join("broker"),
        time: options.run_for,
        repeat: own.repeat,
    };
    let measured = broker::run(&wanted, &mut |text| {
        if !options.json {
            say!("{text}");
        }
    });
    std::fs::remove_dir(&wanted.dir).ok();
    measured
}

fn broker_of(peer: BenchPeer) -> Result<Peer, String> {
    match peer {
        BenchPeer::Forebay => Ok(Peer::Forebay),
        BenchPeer::Mosquitto => Ok(Peer::Mosquitto),
        BenchPeer::Rumqttd => Ok(Peer::Rumqttd),
        BenchPeer::Python | BenchPeer::NodeRed => Err("--peer: an agent is no broker".into()),
    }
}

/// Runs the agents side by side.
fn plcs(options: &Bench) -> Result<serde_json::Value, String> {
    warn_of_debug_build();
    let own = &options.broker;
    let agents = match own.peers.as_slice() {
        [] => vec![Agent::Forebay, Agent::Python, Agent::NodeRed],
        some => some.iter().map(|peer| agent_of(*peer)).collect::<Result<_, _>>()?,
    };
    let dir = options.dir.join("plc");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let wanted = plc::Options {
        cases: own.cases.clone(),
        agents,
        program: program(options)?,
        dir: dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?,
        time: options.run_for,
        repeat: own.repeat,
        items: usize::try_from(options.items).unwrap_or(usize::MAX),
    };
    let measured = plc::run(&wanted, &mut |text| {
        if !options.json {
            say!("{text}");
        }
    });
    std::fs::remove_dir(&wanted.dir).ok();
    measured
}

fn agent_of(peer: BenchPeer) -> Result<Agent, String> {
    match peer {
        BenchPeer::Forebay => Ok(Agent::Forebay),
        BenchPeer::Python => Ok(Agent::Python),
        BenchPeer::NodeRed => Ok(Agent::NodeRed),
        BenchPeer::Mosquitto | BenchPeer::Rumqttd => Err("--peer: a broker is no agent".into()),
    }
}

/// The forebay to measure.
fn program(options: &Bench) -> Result<PathBuf, String> {
    let program = match &options.broker.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?,
    };
    program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))
}

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        complain!("this is a debug build: its figures say nothing; build with --release");
    }
}

/// Runs what was asked for; prints each part as it is done, unless a script reads.
fn measure(options: &Bench) -> Result<Figures, String> {
    warn_of_debug_build();
    let program = program(options)?;
    let mut all = Figures::default();
    let wanted = |what| options.what == BenchWhat::All || options.what == what;
    let mut done = |title: &str, figures: Figures| {
        if !options.json {
            say!("{title}  ({})\n{}\n", machine::describe(), figures.text());
        }
        all.list.extend(figures.list);
    };
    if wanted(BenchWhat::Codec) {
        done("codec", codec::run(options.metrics, options.run_for));
    }
    if wanted(BenchWhat::Log) {
        done("log", log::run(&options.dir, options.run_for)?);
    }
    if wanted(BenchWhat::Ingest) {
        done(
            "ingest",
            ingest::run(
                &program,
                &options.dir.join("ingest"),
                options.metrics,
                options.run_for,
                options.broker.repeat,
            )?,
        );
    }
    if wanted(BenchWhat::Agent) {
        let repeat = options.broker.repeat;
        done("agent", agent::run(&program, &options.dir.join("agent"), options.run_for, repeat)?);
    }
    if wanted(BenchWhat::Table) {
        let python = table::peers();
        if python.is_none() {
            complain!("table: DuckDB and pyarrow are left out; `make peers` installs them");
        }
        done(
            "table",
            table::run(RECORDING, table::DAY_SECONDS, &options.dir.join("table"), python.as_deref())?,
        );
    }
    if wanted(BenchWhat::Memory) {
        done("memory", memory::run(&program, &options.dir.join("memory"), options.run_for)?);
    }
    Ok(all)
}
