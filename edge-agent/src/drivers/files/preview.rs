//! The first records of a file as the driver would read them, and what its configuration seems to get wrong: for
//! `forebay file try`. Touches nothing but a folder for temporary files.

use std::io;
use std::path::Path;

use model::{Quality, Timestamp, Value};
use runtime::config_file::{Problems, Section};

use super::pattern::Pattern;
use super::place::local::Local;
use super::reader::Reader;
use super::settings::{self, After, Finished, Mode, Settings, Start};
use super::sniff;
use crate::drivers::{DeviceSetup, DriverError, NextRead, Readings};
use crate::quarantine::BadLine;

/// What a file would bring.
#[derive(Debug)]
pub struct Preview {
    /// The first readings.
    pub readings: Vec<Shown>,
    /// What would be put into the quarantine, in the order of the file.
    pub bad: Vec<BadLine>,
    /// Whether that is all of the file.
    pub complete: bool,
    /// What might be written differently in the configuration.
    pub hints: Vec<String>,
}

/// A reading, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Number of the point in the list.
    pub point: usize,
    /// Its time; `None`: when it is read.
    pub time: Option<Timestamp>,
    /// Its raw value.
    pub value: Option<Value>,
    /// Its quality.
    pub quality: Quality,
}

/// Reads the beginning of `file` with the keys of a device. `scratch` is an empty folder for temporary files. `None`:
/// the keys are wrong, see `problems`.
pub fn preview(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
    file: &Path,
    scratch: &Path,
    most: usize,
) -> Option<Result<Preview, String>> {
    let settings = settings::validate(section, setup, problems)?;
    Some(read(settings, file, scratch, most))
}

fn read(settings: Settings, file: &Path, scratch: &Path, most: usize) -> Result<Preview, String> {
    let said = |error: io::Error| format!("{}: {error}", file.display());
    let file = std::fs::canonicalize(file).map_err(said)?;
    let head = sniff::beginning(&file).map_err(said)?;
    let hints = sniff::hints(&settings, &head);
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("{}: is no file with a name in UTF-8", file.display()));
    };
    let mode = match settings.mode {
        Mode::Growing => Mode::Growing,
        Mode::Whole(_) => Mode::Whole(Finished::Rename),
    };
    let settings = Settings {
        pattern: Pattern::exactly(name),
        start: Start::Beginning,
        after: After::Keep,
        mode,
        state_dir: scratch.join("drivers/try"),
        ..settings
    };
    let trouble = |error: DriverError| error.to_string();
    let mut reader = Reader::open(&settings, Box::new(Local::new(folder, None)), None).map_err(trouble)?;
    let mut preview = Preview { readings: Vec::new(), bad: Vec::new(), complete: false, hints };
    while !preview.complete && preview.readings.len() < most {
        let mut readings = Readings::default();
        let next = reader.read(&mut readings).map_err(trouble)?;
        preview.complete = next == NextRead::OnSchedule;
        preview.readings.extend(readings.list.into_iter().map(|reading| Shown {
            point: reading.point,
            time: reading.time,
            value: reading.value,
            quality: reading.quality,
        }));
    }
    preview.complete &= preview.readings.len() <= most;
    preview.readings.truncate(most);
    preview.bad = crate::quarantine::newest(scratch, most).map_err(said)?;
    preview.bad.sort_by_key(|bad| (bad.line, bad.byte));
    if mode_is_growing(&settings) && !head.is_empty() && !head.ends_with(b"\n") && preview.complete {
        preview.hints.push("the last line has no line feed yet: it is read when it has one".into());
    }
    Ok(preview)
}

fn mode_is_growing(settings: &Settings) -> bool {
    settings.mode == Mode::Growing
}
