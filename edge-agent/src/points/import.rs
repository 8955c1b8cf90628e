//! Point lists out of other programs' exports: Kepware, TIA Portal, Neuron, Telegraf.
//!
//! ```text
//! bytes ──table──► rows ──kepware, tia, neuron──► drafts ──┐
//! bytes ──────────────────telegraf──────────────► drafts ──┴─► list, checked by the driver that will read it
//! ```
//!
//! What cannot be taken over is left out with its line and reason; the rest is a list that `forebay check` accepts, because
//! every draft has gone through the parser of lists and the driver's own. Sources of the formats are named in their files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use model::DataType;
use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, Problem, Problems};

use super::{DESCRIPTION_BYTES_MAX, Template, units};
use crate::drivers::{DeviceSetup, GROUPS_MAX, KINDS};
use crate::pace::Pace;
use crate::shared::Shared;

mod kepware;
mod modbus_place;
mod neuron;
mod s7_place;
mod table;
mod telegraf;
mod tia;

/// Whose export it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CSV of tags, exported at a device or tag group of Kepware's server.
    Kepware,
    /// Tag table of TIA Portal: xlsx, or the same columns as CSV.
    Tia,
    /// Tags of a southbound node of Neuron: xlsx, or the same columns as CSV.
    Neuron,
    /// Telegraf's configuration with `[[inputs.modbus]]`.
    Telegraf,
}

/// What the export does not say.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the driver; `None`: what the addresses look like.
    pub driver: Option<String>,
    /// Take the points of this Modbus unit; `None`: of the first one.
    pub unit: Option<u8>,
    /// Order of bytes in numbers of several registers: ABCD, CDAB, BADC, DCBA; `None`: the program's default.
    pub order: Option<String>,
    /// Points that the export may write are writable.
    pub writable: bool,
    /// Scan rates and groups become poll groups.
    pub groups: bool,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The list, with remarks for the device's section before its header.
    pub list: String,
    /// How many points it has.
    pub taken: usize,
    /// What is not in it, and why.
    pub left_out: Vec<Problem>,
    /// What a person should know of the rest.
    pub notes: Vec<String>,
}

/// A point on its way into the list.
#[derive(Clone, Debug)]
struct Draft {
    line: usize,
    name: String,
    /// What makes the name unique where two groups have the same one.
    within: String,
    address: String,
    data_type: DataType,
    scale: Option<f64>,
    offset: Option<f64>,
    unit: String,
    min: Option<f64>,
    max: Option<f64>,
    writable: bool,
    description: String,
    interval: Option<Duration>,
}

impl Draft {
    fn new(line: usize, name: &str, address: String, data_type: DataType) -> Draft {
        Draft {
            line,
            name: name.to_owned(),
            within: String::new(),
            address,
            data_type,
            scale: None,
            offset: None,
            unit: String::new(),
            min: None,
            max: None,
            writable: false,
            description: String::new(),
            interval: None,
        }
    }
}

/// What a reader of a format finds.
struct Found<'a> {
    file: &'a Path,
    options: &'a ImportOptions,
    driver: &'static str,
    /// The Modbus unit whose points are taken.
    unit: Option<u8>,
    drafts: Vec<Draft>,
    left_out: Vec<Problem>,
    notes: BTreeSet<String>,
}

impl Found<'_> {
    fn leave_out(&mut self, line: usize, name: &str, value: &str, rule: impl Into<String>) {
        let (file, key) = (self.file.to_owned(), name.to_owned());
        self.left_out.push(Problem { file, line, key, value: value.to_owned(), rule: rule.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.insert(text.into());
    }

    /// Whether a point of this Modbus unit belongs to the list; the first one decides unless somebody said which.
    fn is_of_unit(&mut self, line: usize, name: &str, unit: u8) -> bool {
        let ours = *self.unit.get_or_insert(self.options.unit.unwrap_or(unit));
        if ours != unit {
            let rule = format!("is of unit {unit}, this list is of unit {ours}: one device each, see --unit");
            self.leave_out(line, name, &unit.to_string(), rule);
        }
        ours == unit
    }
}

/// Reads an export; `file` is for messages. An error says why it is none.
pub fn import(
    file: &Path,
    bytes: &[u8],
    source: Source,
    options: &ImportOptions,
) -> Result<Imported, String> {
    let mut found = Found {
        file,
        options,
        driver: "",
        unit: None,
        drafts: Vec::new(),
        left_out: Vec::new(),
        notes: BTreeSet::new(),
    };
    match source {
        Source::Kepware => kepware::read(bytes, &mut found)?,
        Source::Tia => tia::read(bytes, &mut found)?,
        Source::Neuron => neuron::read(bytes, &mut found)?,
        Source::Telegraf => telegraf::read(bytes, &mut found)?,
    }
    make_names_unique(&mut found.drafts);
    let groups = groups(&mut found);
    refuse_what_the_driver_refuses(&mut found, &groups)?;
    if found.drafts.iter().any(|draft| draft.writable) {
        found.note("points that the export may write are writable; commands reach them when the agent and the hub allow commands");
    }
    found.left_out.sort_by_key(|problem| problem.line);
    let (taken, all) = (found.drafts.len(), found.drafts.len() + found.left_out.len());
    let mut list =
        format!("# {taken} of {all} points of {}. The device in the configuration:\n", file.display());
    let mut say = |text: String| {
        list.push_str("# ");
        list.push_str(&text);
        list.push('\n');
    };
    say(format!("driver = \"{}\"", found.driver));
    if let Some(unit) = found.unit.filter(|_| found.driver.starts_with("modbus")) {
        say(format!("unit = {unit}"));
    }
    if !groups.is_empty() {
        let texts: Vec<String> =
            groups.iter().map(|(name, poll)| format!("\"{name}\" = \"{poll}\"")).collect();
        say(format!("groups = {{ {} }}", texts.join(", ")));
    }
    list.push_str(&render(&found.drafts, &groups));
    Ok(Imported { list, taken, left_out: found.left_out, notes: found.notes.into_iter().collect() })
}

/// The driver of that name, or what addresses look like.
fn driver_named(options: &ImportOptions, looks_like: &'static str) -> Result<&'static str, String> {
    let Some(wanted) = &options.driver else { return Ok(looks_like) };
    let known = KINDS.iter().find(|kind| kind.name == wanted.as_str()).map(|kind| kind.name);
    known.ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        format!("there is no driver {wanted}; known: {}", names.join(", "))
    })
}

/// Names that groups share get the group's before them.
fn make_names_unique(drafts: &mut [Draft]) {
    let mut seen: HashSet<String> = HashSet::new();
    let twice: HashSet<String> = drafts
        .iter()
        .filter(|draft| !seen.insert(draft.name.clone()))
        .map(|draft| draft.name.clone())
        .collect();
    for draft in drafts.iter_mut().filter(|draft| !draft.within.is_empty() && twice.contains(&draft.name)) {
        draft.name = format!("{}/{}", draft.within, draft.name);
    }
}

/// The poll groups with their poll times, by name; none if nobody wants any.
fn groups(found: &mut Found<'_>) -> BTreeMap<String, String> {
    let named = found.drafts.iter().filter_map(|draft| Some(duration_text(draft.interval?)));
    let groups: BTreeMap<String, String> = named.map(|text| (text.clone(), text)).collect();
    let most = usize::from(GROUPS_MAX) - 1;
    let is_wanted = found.options.groups;
    if groups.len() > most && is_wanted {
        found.note(format!("{} scan rates are more than {most} poll groups: none was made", groups.len()));
    } else if groups.len() > 1 && !is_wanted {
        let rates: Vec<&str> = groups.keys().map(String::as_str).collect();
        found.note(format!(
            "scan rates ({}) are left to the device's `poll`; --groups keeps them",
            rates.join(", ")
        ));
    }
    if is_wanted && groups.len() <= most { groups } else { BTreeMap::new() }
}

fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

/// Moves out what the list's parser or the driver does not take.
fn refuse_what_the_driver_refuses(
    found: &mut Found<'_>,
    groups: &BTreeMap<String, String>,
) -> Result<(), String> {
    // Each round takes out what it complains of; a second one finds what hid behind that.
    for _ in 0..4 {
        if found.drafts.is_empty() {
            return Ok(());
        }
        let list = render(&found.drafts, groups);
        let problems = problems_of(&list, found.driver, groups);
        if problems.is_empty() {
            return Ok(());
        }
        let mut refused: BTreeMap<usize, Problem> = BTreeMap::new();
        for problem in problems {
            let nth = problem.line.checked_sub(2).filter(|nth| *nth < found.drafts.len());
            refused.entry(nth.ok_or_else(|| problem.to_string())?).or_insert(problem);
        }
        let mut kept = Vec::with_capacity(found.drafts.len());
        for (nth, draft) in std::mem::take(&mut found.drafts).into_iter().enumerate() {
            match refused.remove(&nth) {
                Some(problem) => {
                    let rule = format!("{} {}", problem.key, problem.rule);
                    found.leave_out(draft.line, &draft.name, &problem.value, rule);
                }
                None => kept.push(draft),
            }
        }
        found.drafts = kept;
    }
    Err("the list does not pass its own check".into())
}

fn problems_of(list: &str, driver: &str, groups: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Problems::default();
    let file = Path::new("list");
    let names: Vec<&str> = groups.keys().map(String::as_str).collect();
    let template = Template { device: "device", groups: &names, parameters: &[] };
    let points = template.parse(file, list.as_bytes(), &mut problems);
    let Some(kind) = KINDS.iter().find(|kind| kind.name == driver).filter(|_| problems.is_empty()) else {
        return problems.list;
    };
    let keys = match driver {
        "opcua" => "url = \"opc.tcp://device:4840\"\n",
        "modbus-serial" => "port = \"/dev/device\"\n",
        _ => "address = \"device\"\n",
    };
    let config = ConfigFile::from_text(Path::new("device"), keys.to_owned());
    let mut section = config.parse(&mut problems);
    let setup = DeviceSetup {
        name: "device".into(),
        points,
        points_file: file.to_owned(),
        state_dir: "state".into(),
        clock: Clock::machine(),
        pace: Pace::default(),
        shared: Shared::default(),
    };
    (kind.validate)(&mut section, &setup, &mut problems);
    problems.list
}

fn render(drafts: &[Draft], groups: &BTreeMap<String, String>) -> String {
    let mut list = "name,address,type,scale,offset,unit,min,max,writable,description".to_owned();
    if !groups.is_empty() {
        list.push_str(",group");
    }
    list.push('\n');
    for draft in drafts {
        let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
        let texts = [
            quoted(&draft.name),
            quoted(&draft.address),
            draft.data_type.name().to_owned(),
            number(draft.scale),
            number(draft.offset),
            quoted(&draft.unit),
            number(draft.min),
            number(draft.max),
            draft.writable.to_string(),
            quoted(&draft.description),
        ];
        list.push_str(&texts.join(","));
        if !groups.is_empty() {
            let name = draft.interval.map(duration_text).filter(|name| groups.contains_key(name));
            write!(list, ",{}", name.unwrap_or_default()).ok(); // a String takes everything
        }
        list.push('\n');
    }
    list
}

/// A cell, in quotes where it needs them; on one line.
fn quoted(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let needs = text.starts_with('#') || text.contains([',', '"', '\t']);
    if needs { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Unit and description: a unit that is no UCUM becomes a note in braces, or goes into the description.
fn describe(draft: &mut Draft, unit: &str, description: &str) {
    let (unit, mut description) = (unit.trim(), description.trim().to_owned());
    match units::ucum(unit) {
        Some(known) => draft.unit = known,
        None if unit.is_ascii() && unit.len() < 60 && !unit.contains(['{', '}']) => {
            draft.unit = format!("{{{}}}", unit.replace(|c: char| !c.is_ascii_graphic(), "_"));
        }
        None => description = format!("{description} [{unit}]").trim().to_owned(),
    }
    let mut end = description.len().min(DESCRIPTION_BYTES_MAX);
    while !description.is_char_boundary(end) {
        end -= 1;
    }
    description.truncate(end);
    draft.description = description;
}

/// A number of digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
