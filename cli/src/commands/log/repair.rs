//! `forebay log repair`: shows what is damaged and what would be done, asks, does it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use durable_log::{LogError, Plan};

use super::logs_in;
use crate::{complain, say};

/// True if all is whole in the end.
pub(super) fn run(dir: &Path, yes: bool, dry_run: bool) -> Result<bool, LogError> {
    let plans: Vec<Plan> =
        logs_in(dir)?.iter().map(|log| durable_log::plan(log)).collect::<Result<_, _>>()?;
    let plans: Vec<Plan> = plans.into_iter().filter(|plan| !plan.steps.is_empty()).collect();
    if plans.is_empty() {
        say!("whole: there is nothing to repair in {}", dir.display());
        return Ok(true);
    }
    for step in plans.iter().flat_map(|plan| &plan.steps) {
        say!("{step}");
    }
    say!("Nothing is deleted: what a file holds now is kept in the folder `damaged` beside it.");
    if dry_run {
        say!("Nothing was changed (--dry-run).");
        return Ok(false);
    }
    if !yes && !asked() {
        say!("Nothing was changed.");
        return Ok(false);
    }
    for plan in &plans {
        for repaired in durable_log::repair(plan)? {
            say!("{repaired}");
        }
    }
    Ok(true)
}

/// Asks on a terminal; anywhere else the answer is no.
fn asked() -> bool {
    let input = std::io::stdin();
    if !input.is_terminal() {
        complain!("this is no terminal to ask on; give --yes to repair, or --dry-run to look only");
        return false;
    }
    let mut output = std::io::stdout();
    let prompted = write!(output, "Repair as said above? [y/N] ").and_then(|()| output.flush());
    let mut answer = String::new();
    prompted.is_ok()
        && input.lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}
