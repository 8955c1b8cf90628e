//! A configuration file as a whole: its version, the plant's names, and the roles it holds.

use std::path::{Path, PathBuf};

use runtime::config_file::{ConfigFile, PlantNames, Problem, Problems};

/// What a file configures. At least one role is there.
pub struct Plant {
    /// The file.
    pub file: PathBuf,
    /// `[edge]`.
    pub edge: Option<edge_agent::config::Config>,
    /// `[hub]`.
    pub hub: Option<hub::config::Config>,
    /// `[bridge]`.
    pub bridge: Option<bridge::config::Config>,
}

/// Reads and checks a file and everything that it names; every mistake is pushed.
pub fn load(path: &Path, problems: &mut Problems) -> Option<Plant> {
    match ConfigFile::read(path) {
        Ok(file) => check(path, &file, problems),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// As [`load`], from text.
pub fn check(path: &Path, file: &ConfigFile, problems: &mut Problems) -> Option<Plant> {
    let before = problems.list.len();
    let mut root = file.parse(problems);
    if !root.has("version") {
        problems.push(root.problem("version", "is missing; write version = 1"));
    }
    root.integer("version", problems, 1..=1);
    let enterprise = name(root.checked("enterprise", problems, level), &root, "enterprise", problems);
    let site = name(root.checked("site", problems, level), &root, "site", problems);
    let names = PlantNames {
        enterprise: enterprise.unwrap_or_else(|| "?".into()),
        site: site.unwrap_or_else(|| "?".into()),
    };
    if !root.has("edge") && !root.has("hub") && !root.has("bridge") {
        problems.push(root.problem("", "no role: write at least one of [edge], [hub], [bridge]"));
    }
    let edge = root.section("edge", problems);
    let edge = edge.and_then(|section| edge_agent::config::validate(section, &names, problems));
    let hub = root.section("hub", problems);
    let hub = hub.and_then(|section| hub::config::validate(section, &names, problems));
    let bridge = root.section("bridge", problems);
    let bridge = bridge.and_then(|section| bridge::config::validate(section, &names, problems));
    root.finish(problems);
    (problems.list.len() == before).then(|| Plant { file: path.to_owned(), edge, hub, bridge })
}

fn level(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '+', '#', '\0']) {
        return Err("must not be empty nor contain / + #, because it is a level of every topic".into());
    }
    Ok(text.to_owned())
}

fn name(
    found: Option<runtime::config_file::Located<String>>,
    root: &runtime::config_file::Section<'_>,
    key: &str,
    problems: &mut Problems,
) -> Option<String> {
    if found.is_none() && !problems.list.iter().any(|p: &Problem| p.key == key) {
        problems.push(root.problem(key, "is missing; write the name as a text in quotes"));
    }
    found.map(|located| located.value)
}

/// Every plant that a folder's configuration files (`*.toml`) describe.
pub fn in_folder(dir: &Path) -> Result<Vec<Plant>, String> {
    let entries =
        std::fs::read_dir(dir).map_err(|error| format!("{} cannot be read: {error}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{} holds no configuration (*.toml) of a plant", dir.display()));
    }
    let mut problems = Problems::default();
    let plants: Vec<Plant> = files.iter().filter_map(|file| load(file, &mut problems)).collect();
    match problems.list.first() {
        None => Ok(plants),
        Some(problem) => Err(format!("{problem}; see `forebay check`")),
    }
}

/// Loads several files; prints every mistake and returns `None` if there is one.
#[must_use]
pub fn load_all(paths: &[PathBuf]) -> Option<Vec<Plant>> {
    let mut problems = Problems::default();
    let plants: Vec<Plant> = paths.iter().filter_map(|path| load(path, &mut problems)).collect();
    if problems.is_empty() {
        let count = problems.sorted().len();
        if count > 0 {
            let s = if count == 1 { "" } else { "s" };
            crate::complain!("{count} warning{s}: `forebay check` shows them");
        }
        return Some(plants);
    }
    print_problems(&problems);
    crate::complain!("nothing was started");
    None
}

/// One line per mistake and warning, on standard error.
pub fn print_problems(problems: &Problems) {
    let sorted = problems.sorted();
    for (problem, is_warning) in &sorted {
        crate::complain!("{}{problem}", if *is_warning { "warning: " } else { "" });
    }
    let warnings = sorted.iter().filter(|(_, is_warning)| *is_warning).count();
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    match (sorted.len() - warnings, warnings) {
        (mistakes, 0) => crate::complain!("{} found", counted(mistakes, "mistake")),
        (0, warnings) => crate::complain!("{}", counted(warnings, "warning")),
        (mistakes, warnings) => {
            crate::complain!("{} found, {}", counted(mistakes, "mistake"), counted(warnings, "warning"));
        }
    }
}
