//! A device's section: the keys that are common to all drivers, its point list, and its driver.
//!
//! `poll`, `groups`, `requests_per_second`, `stale_after`, `clock_behind_max`; `points` (a file, with `parameters` for
//! templates) or `profile` (a list that this program brings). Every other key is the driver's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::address::check_sparkplug_id;
use runtime::clock::Clock;
use runtime::config_file::{Problems, Section, parse_duration};

use super::{CLOCK_RANGE, DeviceConfig, micros};
use crate::drivers::{DeviceSetup, GROUPS_MAX, KINDS, Manners};
use crate::normalise::ClockRules;
use crate::pace::Pace;
use crate::points::{PointConfig, Template};
use crate::profiles;
use crate::shared::Shared;

/// A device is read so often unless it says otherwise.
const POLL: Duration = Duration::from_secs(1);
/// The shortest time after which a silent device is Stale, unless it says otherwise ...
const STALE_AFTER_MIN: Duration = Duration::from_secs(5);
/// ... and how many polls it may miss if they are longer.
const STALE_AFTER_POLLS: u32 = 3;
/// Poll times of devices and of groups.
const POLL_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);
/// A budget beyond this is none.
const REQUESTS_PER_SECOND: std::ops::RangeInclusive<f64> = 0.01..=100_000.0;

pub(super) fn read(
    mut section: Section<'_>,
    state_dir: &Path,
    shared: &Shared,
    names: &mut HashMap<String, usize>,
    skew_max_micros: i64,
    problems: &mut Problems,
) -> Option<DeviceConfig> {
    let name = name(&mut section, names, problems);
    let poll = section.duration("poll", problems, POLL_RANGE).map_or(POLL, |poll| poll.value);
    let groups = groups(&mut section, problems);
    let pace = Pace::new(budget(&mut section, problems));
    let written =
        section.duration("stale_after", problems, Duration::from_secs(1)..=Duration::from_secs(7 * 86_400));
    let behind = section.duration("clock_behind_max", problems, CLOCK_RANGE);
    let points = points(&mut section, name.as_deref().unwrap_or("device"), &groups, problems);
    let used = groups.iter().zip(1_u8..).map(|((_, poll), group)| (*poll, group)).chain([(poll, 0)]);
    let is_used = |group| points.iter().flat_map(|(_, points)| points).any(|point| point.group == group);
    let fastest = used.filter(|(_, group)| is_used(*group)).map(|(poll, _)| poll).min().unwrap_or(poll);
    if let Some(written) = written.as_ref().filter(|written| written.value < fastest) {
        problems.push(written.problem(format!("must not be shorter than poll, which is {fastest:?}")));
    }
    let kind = section.required_text("driver", problems).and_then(|driver| {
        let found = KINDS.iter().find(|kind| kind.name == driver.value);
        if found.is_none() {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            problems.push(driver.problem(format!("there is no such driver; known: {}", known.join(", "))));
        }
        found
    })?; // without a driver nobody knows which keys are right
    let (file, points) = points.unwrap_or_default();
    let setup = DeviceSetup {
        name: name.clone().unwrap_or_default(),
        points,
        points_file: file,
        state_dir: state_dir.join(name.as_deref().unwrap_or("device")),
        clock: Clock::machine(),
        pace: pace.clone(),
        shared: shared.clone(),
    };
    let source = source(&section, kind.name);
    let driver = (kind.validate)(&mut section, &setup, problems);
    if let Some(driver) = &driver {
        refuse_unheard(&mut section, driver.manners(), kind.name, problems);
    }
    section.finish(problems);
    Some(DeviceConfig {
        name: name?,
        kind: kind.name,
        points: setup.points,
        points_file: setup.points_file,
        source,
        driver: driver?,
        poll,
        groups: groups.into_iter().map(|(_, poll)| poll).collect(),
        pace,
        stale_after: written
            .as_ref()
            .map_or((fastest * STALE_AFTER_POLLS).max(STALE_AFTER_MIN), |found| found.value),
        stale_without_data: written.is_some(),
        clocks: ClockRules { skew_max_micros, behind_max_micros: behind.map(|max| micros(max.value)) },
    })
}

fn name(
    section: &mut Section<'_>,
    names: &mut HashMap<String, usize>,
    problems: &mut Problems,
) -> Option<String> {
    let line = section.line();
    let name = section.required_text("name", problems)?;
    let rule = match check_sparkplug_id(&name.value) {
        Err(error) => error.to_string(),
        Ok(()) => match names.insert(name.value.clone(), line) {
            Some(first) => format!("is already the name of the device in line {first}"),
            None => return Some(name.value),
        },
    };
    problems.push(name.problem(rule));
    None
}

/// `groups = { fast = "100ms" }`: names with their poll times, in the file's order.
fn groups(section: &mut Section<'_>, problems: &mut Problems) -> Vec<(String, Duration)> {
    let Some(written) = section.text_map("groups", problems) else { return Vec::new() };
    let mut groups = Vec::new();
    for (name, text) in &written.value {
        let poll = parse_duration(text).and_then(|poll| {
            let rule = || format!("must be from {:?} to {:?}", POLL_RANGE.start(), POLL_RANGE.end());
            POLL_RANGE.contains(&poll).then_some(poll).ok_or_else(rule)
        });
        match poll {
            Ok(poll) => groups.push((name.clone(), poll)),
            Err(rule) => problems.push(written.problem(format!("{name} {rule}"))),
        }
    }
    let most = usize::from(GROUPS_MAX) - 1;
    if groups.len() > most {
        problems.push(written.problem(format!("a device has at most {most} groups beside its poll")));
        groups.truncate(most);
    }
    groups
}

fn budget(section: &mut Section<'_>, problems: &mut Problems) -> Option<f64> {
    let rate = section.number("requests_per_second", problems)?;
    if !REQUESTS_PER_SECOND.contains(&rate.value) {
        let (low, high) = (REQUESTS_PER_SECOND.start(), REQUESTS_PER_SECOND.end());
        problems.push(rate.problem(format!("must be from {low} to {high}")));
    }
    Some(rate.value)
}

/// What is read: two devices that say the same read the same.
fn source(section: &Section<'_>, kind: &str) -> Option<String> {
    const WHERE: [&str; 4] = ["address", "url", "port", "folder"];
    const WHICH: [&str; 9] =
        ["unit", "rack", "slot", "local_tsap", "remote_tsap", "pattern", "sheet", "records", "route"];
    let has_place = WHERE.iter().any(|key| section.written(key).is_some());
    let texts =
        WHERE.iter().chain(&WHICH).filter_map(|key| Some(format!(" {key}={}", section.written(key)?)));
    has_place.then(|| kind.to_owned() + &texts.collect::<String>())
}

/// Keys that this driver would not follow are mistakes.
fn refuse_unheard(section: &mut Section<'_>, manners: Manners, driver: &str, problems: &mut Problems) {
    for (key, is_followed) in [("groups", manners.groups), ("requests_per_second", manners.paced)] {
        if !is_followed && section.has(key) {
            problems
                .push(section.problem(key, format!("has no meaning for the driver {driver}; leave it out")));
        }
    }
}

/// The point list, with the name that messages give it.
fn points(
    section: &mut Section<'_>,
    device: &str,
    groups: &[(String, Duration)],
    problems: &mut Problems,
) -> Option<(PathBuf, Vec<PointConfig>)> {
    let parameters = parameters(section, problems);
    let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
    let template = Template { device, groups: &names, parameters: &parameters };
    let profile = section.checked("profile", problems, |name| {
        let known = || format!("there is no such profile; known: {}", profiles::names().join(", "));
        profiles::list(name).map(|list| (name.to_owned(), list)).ok_or_else(known)
    });
    let has_points = section.has("points");
    match (profile, has_points) {
        (Some(profile), false) => {
            let (name, list) = profile.value;
            let file = PathBuf::from(format!("profile {name}"));
            let points = template.parse(&file, list.as_bytes(), problems);
            Some((file, points))
        }
        (Some(profile), true) => {
            problems.push(profile.problem("points is written too; one of them is enough"));
            None
        }
        (None, false) => {
            if !section.has("profile") {
                problems.push(section.problem("points", "is missing; write the name of a CSV file"));
            }
            None
        }
        (None, true) => {
            let path = section.path("points", problems)?;
            match std::fs::read(&path.value) {
                Ok(bytes) => {
                    let points = template.parse(&path.value, &bytes, problems);
                    Some((path.value, points))
                }
                Err(error) => {
                    problems.push(path.problem(format!("cannot be read: {error}")));
                    None
                }
            }
        }
    }
}

/// `parameters = { n = 1, hall = "A" }`: what stands for `{n}` and `{hall}` in the point list.
fn parameters(section: &mut Section<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let Some(mut table) = section.section("parameters", problems) else { return Vec::new() };
    let mut found = Vec::new();
    for key in table.keys() {
        if let Some(value) = table.word(&key, problems) {
            found.push((key, value.value));
        }
    }
    table.finish(problems);
    found
}
