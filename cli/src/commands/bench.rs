//! `forebay bench`: measures this machine, prints figures.

use bench::{Figures, codec, ingest, log, machine, memory};

use crate::arguments::{Bench, BenchWhat};
use crate::output::{DONE, FAILED};
use crate::{complain, say};

/// Exit 0 if everything asked for could be measured.
#[must_use]
pub fn run(options: &Bench) -> u8 {
    let measured = measure(options);
    std::fs::remove_dir(&options.dir).ok();
    match measured {
        Ok(figures) if options.json => {
            say!("{}", figures.to_json());
            DONE
        }
        Ok(_) => DONE,
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

/// Runs what was asked for; prints each part as it is done, unless a script reads.
fn measure(options: &Bench) -> Result<Figures, String> {
    if cfg!(debug_assertions) {
        complain!("this is a debug build: its figures say nothing; build with --release");
    }
    let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
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
        done("ingest", ingest::run(&program, &options.dir.join("ingest"), options.metrics, options.run_for)?);
    }
    if wanted(BenchWhat::Memory) {
        done("memory", memory::run(&program, &options.dir.join("memory"), options.run_for)?);
    }
    Ok(all)
}
