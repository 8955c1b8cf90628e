//! The cells of a record → readings: which cell is the time, which belongs to which point. Pure; knows no bytes.
//!
//! A wide record has a cell per point, a long one has a cell with the point's name and one with its value.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::NaiveDateTime;
use chrono_tz::Tz;
use model::{DataType, Quality, Reason, Timestamp, Value};

use super::number::NumberForm;
use super::time::{ClockForm, NameTime, TimeForm, in_zone};
use crate::drivers::Reading;

/// One value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell<'r> {
    /// As somebody wrote it.
    Text(Cow<'r, str>),
    /// A number by the format's own rules: with a decimal point, without groups.
    Number(Cow<'r, str>),
}

/// The values of a record; what is not there is `None`.
pub(super) type Cells<'r> = Vec<Option<Cell<'r>>>;

/// Where times are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimeSource {
    /// In one cell, or a date and a clock in two, which are read as one text with a space between them.
    Cells { date: Option<String>, time: String, form: TimeForm },
    /// The day is in the file's name, the clock in a cell.
    NameAndCell { name: NameTime, time: String, form: ClockForm },
    /// The file's name says it all.
    Name(NameTime),
    /// When the file was changed.
    Modified,
    /// Nobody knows: when it is read.
    Arrival,
}

/// What the configuration says about records.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) time: TimeSource,
    /// Zone of times that name no offset.
    pub(super) zone: Tz,
    pub(super) numbers: NumberForm,
    /// Long records: names of the cells with the point's name and value.
    pub(super) long: Option<(String, String)>,
    /// Address and type of each point.
    pub(super) points: Vec<(String, DataType)>,
    /// Address and UCUM unit of each point of wide records.
    pub(super) units: Vec<(String, String)>,
    /// Long records: the point of each address.
    pub(super) by_address: HashMap<String, usize>,
}

/// Where things are in the records of one file: cells by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// How many cells a record has; `None`: as many as it wants.
    pub(super) width: Option<usize>,
    date: Option<usize>,
    time: Option<usize>,
    long: Option<(usize, usize)>,
    /// Cell and point.
    points: Vec<(usize, usize)>,
}

/// What of a file's own belongs to its records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileTimes {
    /// From its name.
    pub(super) name: Option<NaiveDateTime>,
    /// When it was changed, in ns.
    pub(super) modified: i64,
}

impl Mapping {
    /// The cells that are needed, by the names that the configuration gives them.
    pub(super) fn needed(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        match &self.time {
            TimeSource::Cells { date, time, .. } => {
                names.extend(date.as_deref());
                names.push(time);
            }
            TimeSource::NameAndCell { time, .. } => names.push(time),
            TimeSource::Name(_) | TimeSource::Modified | TimeSource::Arrival => {}
        }
        match &self.long {
            Some((name, value)) => names.extend([name.as_str(), value.as_str()]),
            None => names.extend(self.points.iter().map(|(address, _)| address.as_str())),
        }
        names
    }

    /// Where things are, if `find` says where a name is. An error says why the file cannot be read at all.
    pub(super) fn layout(
        &self,
        find: impl Fn(&str) -> Result<Option<usize>, String>,
    ) -> Result<Layout, String> {
        let needed = |what: &str, name: &str| {
            find(name)?.ok_or_else(|| format!("the header has no {what} column {name:?}"))
        };
        let mut layout = Layout::default();
        match &self.time {
            TimeSource::Cells { date, time, .. } => {
                layout.date = date.as_deref().map(|date| needed("date", date)).transpose()?;
                layout.time = Some(needed("time", time)?);
            }
            TimeSource::NameAndCell { time, .. } => layout.time = Some(needed("time", time)?),
            TimeSource::Name(_) | TimeSource::Modified | TimeSource::Arrival => {}
        }
        if let Some((name, value)) = &self.long {
            layout.long = Some((needed("name", name)?, needed("value", value)?));
            return Ok(layout);
        }
        for (point, (address, _)) in self.points.iter().enumerate() {
            layout.points.extend(find(address)?.map(|at| (at, point)));
        }
        if layout.points.is_empty() {
            return Err("the header has no column of any point".into());
        }
        Ok(layout)
    }

    /// What a file's name and state say about time; an error: the name should say more.
    pub(super) fn file_times(&self, file: &str, modified: i64) -> Result<FileTimes, String> {
        let (TimeSource::Name(pattern) | TimeSource::NameAndCell { name: pattern, .. }) = &self.time else {
            return Ok(FileTimes { name: None, modified });
        };
        let name = file.rsplit('/').next().unwrap_or(file);
        let found = pattern.find(name).ok_or("its name does not hold the time that name_time describes")?;
        Ok(FileTimes { name: Some(found), modified })
    }

    /// Reads a record: its time, one reading per cell that is not empty, and what is wrong with some of them. An error
    /// is about the whole record.
    pub(super) fn readings(
        &self,
        layout: &Layout,
        cells: &Cells<'_>,
        times: FileTimes,
        last: Option<Timestamp>,
        into: &mut Vec<Reading>,
        bad: &mut Vec<String>,
    ) -> Result<Option<Timestamp>, String> {
        if let Some(width) = layout.width.filter(|width| *width != cells.len()) {
            return Err(format!("{} cells where the header has {width}", cells.len()));
        }
        let time = self.time(layout, cells, times, last)?;
        if let Some((name, value)) = layout.long {
            let name = text(cells, name).ok_or("the cell with the point's name is empty")?;
            if let Some(point) = self.by_address.get(name) {
                self.reading(*point, cells.get(value), time, last, into, bad);
            }
            return Ok(time);
        }
        for (at, point) in &layout.points {
            self.reading(*point, cells.get(*at), time, last, into, bad);
        }
        Ok(time)
    }

    fn reading(
        &self,
        point: usize,
        cell: Option<&Option<Cell<'_>>>,
        time: Option<Timestamp>,
        last: Option<Timestamp>,
        into: &mut Vec<Reading>,
        bad: &mut Vec<String>,
    ) {
        let Some((name, data_type)) = self.points.get(point) else { return };
        let Some(Some(cell)) = cell else { return };
        let (text, numbers) = match cell {
            Cell::Text(text) => (text.trim(), self.numbers),
            Cell::Number(text) => (text.as_ref(), NumberForm::default()),
        };
        if text.is_empty() {
            return;
        }
        let value = match data_type {
            DataType::DateTime => self.date_time(text, last).map(Value::DateTime),
            other => numbers.value(text, *other),
        };
        let quality = if value.is_some() { Quality::GOOD } else { Quality::bad(Reason::Undecodable) };
        if value.is_none() {
            let shown: String = text.chars().take(64).collect();
            bad.push(format!("column {name:?}: {shown:?} is no {}", data_type.name()));
        }
        into.push(Reading { point, time, value, quality });
    }

    /// A value that is a time is written as the records' times are, or in ISO form.
    fn date_time(&self, text: &str, last: Option<Timestamp>) -> Option<Timestamp> {
        let form = match &self.time {
            TimeSource::Cells { form, .. } => form,
            _ => &TimeForm::Iso,
        };
        form.read(text, self.zone, last).ok()
    }

    fn time(
        &self,
        layout: &Layout,
        cells: &Cells<'_>,
        times: FileTimes,
        last: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, String> {
        let time = layout.time.and_then(|at| text(cells, at)).unwrap_or("");
        Ok(Some(match (&self.time, times.name) {
            (TimeSource::Cells { date: Some(_), form, .. }, _) => {
                let date = layout.date.and_then(|at| text(cells, at)).unwrap_or("");
                form.read(&format!("{date} {time}"), self.zone, last)?
            }
            (TimeSource::Cells { form, .. }, _) => form.read(time, self.zone, last)?,
            (TimeSource::NameAndCell { form, .. }, Some(name)) => {
                form.read(time, name.date(), self.zone, last)?
            }
            (TimeSource::Name(_), Some(name)) => in_zone(name, self.zone, None)?,
            (TimeSource::NameAndCell { .. } | TimeSource::Name(_), None) => {
                return Err("the file's name does not hold a time".into());
            }
            (TimeSource::Modified, _) => Timestamp(times.modified.div_euclid(1000)),
            (TimeSource::Arrival, _) => return Ok(None),
        }))
    }
}

fn text<'c>(cells: &'c Cells<'_>, at: usize) -> Option<&'c str> {
    match cells.get(at)?.as_ref()? {
        Cell::Text(text) | Cell::Number(text) => Some(text.trim()).filter(|text| !text.is_empty()),
    }
}

/// `Temp [°C]`, `Temp (°C)` or `Temp / °C` → name and unit.
pub(super) fn name_and_unit(header: &str) -> (&str, Option<&str>) {
    let header = header.trim();
    let found = match header.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        None => header.strip_suffix(')').and_then(|rest| rest.rsplit_once('(')),
        found => found,
    };
    let found = found.or_else(|| header.rsplit_once(" / "));
    match found {
        Some((name, unit)) if !name.trim().is_empty() && !unit.trim().is_empty() => {
            (name.trim(), Some(unit.trim()))
        }
        _ => (header, None),
    }
}

/// What plants write into headers, as UCUM; what is not known is taken for UCUM.
pub(super) fn ucum(unit: &str) -> &str {
    match unit {
        "°C" | "℃" | "degC" | "Grad C" => "Cel",
        "°F" | "℉" => "[degF]",
        "°" => "deg",
        "µm" | "μm" => "um",
        "m³" => "m3",
        "m²" => "m2",
        "m³/h" => "m3/h",
        "l/min" | "L/min" => "L/min",
        "U/min" | "rpm" | "1/min" | "min⁻¹" | "/min" => "/min",
        "kWh" => "kW.h",
        "Wh" => "W.h",
        "MWh" => "MW.h",
        "Nm" => "N.m",
        "Ω" => "Ohm",
        "psi" => "[psi]",
        other => other,
    }
}
