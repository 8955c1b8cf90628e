//! `forebay check`: every mistake of every file in one run, and what is allowed but hardly meant.

use std::path::PathBuf;

use runtime::config_file::{Problem, Problems};
use runtime::data_folder;

use crate::arguments::Check;
use crate::output::{DONE, USAGE};
use crate::{complain, plant, say};

/// Exit 0 if there is no mistake (with `--strict`: nor a warning), else 2.
#[must_use]
pub fn run(options: &Check) -> u8 {
    let mut problems = Problems::default();
    let mut good = 0;
    for file in &options.files {
        if let Some(plant) = plant::load(file, &mut problems) {
            good += 1;
            if !options.json {
                say!("{}: {}", file.display(), summary(&plant));
                folders(&plant).iter().for_each(|line| say!("{line}"));
            }
        }
    }
    let found = problems.sorted();
    if options.json {
        found.iter().for_each(|(problem, is_warning)| say!("{}", json(problem, *is_warning)));
    } else if !found.is_empty() {
        plant::print_problems(&problems);
    }
    let is_accepted = problems.is_empty() && (problems.warnings.is_empty() || !options.strict);
    if problems.is_empty() && !is_accepted && !options.json {
        complain!("refused: --strict takes no warnings");
    }
    if is_accepted && good == options.files.len() { DONE } else { USAGE }
}

/// Where the data goes, and what would keep a process on this machine from putting it there. Not a mistake of the file:
/// it may be meant for another machine or user.
fn folders(plant: &plant::Plant) -> Vec<String> {
    let edge = plant.edge.as_ref().map(|edge| ("edge agent", &edge.data_dir));
    let hub = plant.hub.as_ref().map(|hub| ("hub", &hub.data_dir));
    let describe = |(role, folder): (&str, &PathBuf)| match data_folder::check(folder) {
        Ok(absolute) => format!("  {role}: data in {}", absolute.display()),
        Err(error) => format!("  {role}: `forebay run` would refuse here: {error}"),
    };
    edge.into_iter().chain(hub).map(describe).collect()
}

fn summary(plant: &plant::Plant) -> String {
    let mut roles = Vec::new();
    if let Some(edge) = &plant.edge {
        let points: usize = edge.devices.iter().map(|device| device.points.len()).sum();
        roles.push(format!(
            "edge agent {} with {} and {}",
            edge.node,
            counted(edge.devices.len(), "device"),
            counted(points, "point")
        ));
    }
    if let Some(hub) = &plant.hub {
        roles.push(format!("hub {}", hub.id));
    }
    if let Some(bridge) = &plant.bridge {
        roles.push(format!("bridge with {}", counted(bridge.sinks.len(), "sink")));
    }
    format!("good: {}", roles.join("; "))
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn json(problem: &Problem, is_warning: bool) -> serde_json::Value {
    serde_json::json!({
        "severity": if is_warning { "warning" } else { "mistake" },
        "file": problem.file, "line": problem.line, "key": problem.key,
        "value": problem.value, "rule": problem.rule,
    })
}
