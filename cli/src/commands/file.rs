//! `forebay file`: a file as a device would read it, and files that shall be looked at anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_agent::drivers::DeviceSetup;
use edge_agent::drivers::files::preview::{Preview, preview};
use edge_agent::drivers::files::{NAMES, again};
use edge_agent::points::{PointConfig, parse_list};
use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, Problems, Section};
use serde_json::json;

use crate::arguments::file::{Again, FileAction, FileOptions, Try};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, plant, say};

/// A running agent takes a wish at its next poll.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// Keys of a device that are not its driver's.
const DEVICE_KEYS: [&str; 6] = ["name", "driver", "poll", "stale_after", "clock_behind_max", "points"];

/// Exit 0 if it was done, 1 if not, 2 if arguments or configuration are wrong.
#[must_use]
pub fn run(options: &FileOptions) -> u8 {
    let mut problems = Problems::default();
    let done = match &options.action {
        FileAction::Try(options) => attempt(options, &mut problems),
        FileAction::Again(options) => look_again(options, &mut problems),
    };
    if !problems.is_empty() {
        plant::print_problems(&problems);
    }
    match done {
        _ if !problems.is_empty() => USAGE,
        Ok(code) => code,
        Err(message) => {
            complain!("{message}");
            USAGE
        }
    }
}

fn attempt(options: &Try, problems: &mut Problems) -> Result<u8, String> {
    let file = match &options.config {
        Some(config) => ConfigFile::read(config).map_err(|problem| problem.to_string())?,
        None => {
            let keys = options.keys.join("\n");
            let place = if keys.contains("folder") { "" } else { "folder = \".\"\n" };
            ConfigFile::from_text(Path::new("-k"), format!("{place}{keys}\n"))
        }
    };
    let mut section = file.parse(problems);
    if options.config.is_some() {
        section = device(section, options.device.as_deref(), problems)?;
    }
    let list = match &options.points {
        Some(list) => list.clone(),
        None => section.path("points", problems).ok_or("the device has no point list")?.value,
    };
    let bytes = std::fs::read(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let points = parse_list(&list, &bytes, "try", problems);
    let scratch = Scratch::new()?;
    let setup = DeviceSetup {
        name: "try".into(),
        points,
        points_file: list,
        state_dir: scratch.0.clone(),
        clock: Clock::machine(),
        pace: edge_agent::pace::Pace::default(),
        shared: edge_agent::shared::Shared::default(),
    };
    let most = usize::from(options.rows);
    let found = preview(&mut section, &setup, problems, &options.file, &scratch.0, most);
    for key in DEVICE_KEYS {
        section.has(key);
    }
    section.finish(problems);
    let Some(found) = found.filter(|_| problems.is_empty()) else { return Ok(USAGE) };
    match found {
        Ok(preview) => {
            show(&preview, &setup.points, options.json);
            Ok(if preview.readings.is_empty() || !preview.bad.is_empty() { FAILED } else { DONE })
        }
        Err(message) => {
            complain!("{message}");
            Ok(FAILED)
        }
    }
}

/// The section of a device that reads files.
fn device<'f>(
    mut root: Section<'f>,
    name: Option<&str>,
    problems: &mut Problems,
) -> Result<Section<'f>, String> {
    let mut edge = root.section("edge", problems).ok_or("the configuration has no [edge]")?;
    let mut found = Vec::new();
    for mut device in edge.sections("devices", problems) {
        let is_ours =
            device.text("driver", problems).is_some_and(|kind| NAMES.contains(&kind.value.as_str()));
        let is_named =
            name.is_none_or(|name| device.text("name", problems).is_some_and(|own| own.value == name));
        if is_ours && is_named {
            found.push(device);
        }
    }
    match found.len() {
        1 => found.pop().ok_or_else(String::new),
        0 => Err("the configuration has no such device that reads files".into()),
        _ => Err("several devices read files: say which with --device".into()),
    }
}

fn show(preview: &Preview, points: &[PointConfig], as_json: bool) {
    for reading in &preview.readings {
        let name = points.get(reading.point).map_or("", |point| point.definition.metric.as_str());
        let time = reading.time.map(|time| time.to_string());
        let value = reading.value.as_ref().map(|value| format!("{value:?}"));
        let quality = reading.quality.to_string();
        if as_json {
            say!("{}", json!({"point": name, "time": time, "value": value, "quality": quality}));
        } else {
            let time = time.unwrap_or_else(|| "when it is read".into());
            say!("{time}  {name}  {}  {quality}", value.unwrap_or_else(|| "none".into()));
        }
    }
    for bad in &preview.bad {
        let what = if bad.whole { "put aside" } else { "one cell put aside" };
        if as_json {
            say!("{}", json!({"line": bad.line, "whole": bad.whole, "reason": bad.reason, "text": bad.text}));
        } else {
            let text: String = bad.text.chars().take(200).collect();
            say!("line {}  {what}: {}  {text:?}", bad.line, bad.reason);
        }
    }
    for hint in &preview.hints {
        if as_json {
            say!("{}", json!({"hint": hint}));
        } else {
            say!("hint: {hint}");
        }
    }
    if preview.readings.is_empty() && preview.bad.is_empty() && !as_json {
        say!("there is nothing to read in it yet");
    }
}

/// A folder of our own that goes with us.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, String> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| error.to_string())?;
        let folder = std::env::temp_dir().join(format!("forebay-try-{:016x}", u64::from_le_bytes(id)));
        std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            complain!("{}: {error}", self.0.display());
        }
    }
}

fn look_again(options: &Again, problems: &mut Problems) -> Result<u8, String> {
    let plant = plant::load(&options.config, problems);
    let Some(edge) = plant.and_then(|plant| plant.edge) else {
        return if problems.is_empty() { Err("the configuration has no [edge]".into()) } else { Ok(USAGE) };
    };
    let ours = edge.devices.iter().filter(|device| NAMES.contains(&device.kind));
    let mut names = ours
        .map(|device| device.name.as_str())
        .filter(|name| options.device.as_deref().is_none_or(|wanted| wanted == *name));
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err("say with --device which of the devices that read files".into());
    };
    let state_dir = edge.data_dir.join("drivers").join(name);
    if !state_dir.is_dir() {
        return Err(format!("{}: the agent has not run yet, or elsewhere", state_dir.display()));
    }
    for file in &options.files {
        again::wish(&state_dir, file).map_err(|error| format!("{}: {error}", state_dir.display()))?;
    }
    let until = Instant::now() + TAKEN_WITHIN;
    while again::waits(&state_dir) {
        if Instant::now() > until {
            say!("noted: the agent looks when it runs next");
            return Ok(DONE);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    say!("the agent looks at them now; what it accepted before it does not accept again");
    Ok(DONE)
}
