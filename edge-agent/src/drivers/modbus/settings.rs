//! A Modbus device's keys: what its line is, what it may be asked, how its addresses count. Pure.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use runtime::config_file::{Located, Problem, Problems, Section};

use super::address::{ADDRESSINGS, Address, Dialect, Table};
use super::frame::Framing;
use super::line::{Line, LineSettings, Target, Unit};
use super::read_plan::Limits;
use super::serial::{Parity, SerialSettings};
use super::{Modbus, PointPlace};
use crate::drivers::places::{self, Extent};
use crate::drivers::{DeviceSetup, Driver, parse_target};

const PORT_DEFAULT: u16 = 502;
/// A PLC answers within its cycle, some tens of milliseconds; a gateway to a serial line may take most of a second.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// The protocol's own limits (function 3: 250 bytes of registers; function 1: 250 bytes of bits).
const REGISTERS_MAX: u16 = 125;
const BITS_MAX: u16 = 2000;
/// Eight registers more cost 16 bytes, a request of their own a round trip.
const GAP_DEFAULT: u16 = 8;
/// Above this speed the silence between frames is fixed ("Modbus over serial line", 2.5.1.1), below it is 3.5 characters of 11 bits.
const FAST_BAUD: u32 = 19_200;
const FAST_SILENCE: Duration = Duration::from_micros(1750);

/// `modbus-tcp`.
pub(super) fn validate_tcp(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    if !section.has("address") {
        problems.push(section.problem("address", "is missing; write the device's \"host:port\""));
    }
    let target = section.checked("address", problems, |text| parse_target(text, PORT_DEFAULT));
    let framing = named(section, "framing", &Framing::ALL, problems).unwrap_or(Framing::Tcp);
    let connections = small(section, "connections", problems, 1..=8, 1);
    let pause = pause(section, problems).unwrap_or_default();
    let line = target.map(|target| {
        target.map(|target| LineSettings {
            target: Target::Tcp(target),
            framing,
            connections: u8::try_from(connections).unwrap_or(1),
            pause,
        })
    });
    validate(section, setup, line, problems)
}

/// `modbus-serial`.
pub(super) fn validate_serial(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    if !section.has("port") {
        problems.push(section.problem("port", "is missing; write the serial port, such as \"/dev/ttyUSB0\""));
    }
    let port = section.path("port", problems);
    let framing = named(section, "framing", &[("rtu", Framing::Rtu), ("ascii", Framing::Ascii)], problems);
    let framing = framing.unwrap_or(Framing::Rtu);
    let baud = section.integer("baud", problems, 300..=4_000_000);
    let baud = baud.and_then(|baud| u32::try_from(baud.value).ok()).unwrap_or(FAST_BAUD);
    let parities = [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
    let parity = named(section, "parity", &parities, problems).unwrap_or(Parity::Even);
    // Eleven bits to a character: without parity a second stop bit takes its place.
    let stop_bits = small(section, "stop_bits", problems, 1..=2, if parity == Parity::None { 2 } else { 1 });
    let data_bits =
        small(section, "data_bits", problems, 7..=8, if framing == Framing::Ascii { 7 } else { 8 });
    let silence = match baud {
        0..=FAST_BAUD => Duration::from_secs_f64(3.5 * 11.0 / f64::from(baud)),
        _ => FAST_SILENCE,
    };
    let pause = pause(section, problems).unwrap_or(silence);
    let line = port.map(|port| {
        port.map(|port: PathBuf| LineSettings {
            target: Target::Serial(SerialSettings {
                port,
                baud,
                parity,
                stop_bits: u8::try_from(stop_bits).unwrap_or(1),
                data_bits: u8::try_from(data_bits).unwrap_or(8),
            }),
            framing,
            connections: 1,
            pause,
        })
    });
    validate(section, setup, line, problems)
}

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    line: Option<Located<LineSettings>>,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    let unit = small(section, "unit", problems, 0..=255, 1);
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let deadline = section.duration("timeout", problems, range).map_or(TIMEOUT_DEFAULT, |t| t.value);
    let limits = Limits {
        registers_max: small(section, "max_registers", problems, 4..=REGISTERS_MAX.into(), REGISTERS_MAX),
        bits_max: small(section, "max_bits", problems, 1..=BITS_MAX.into(), BITS_MAX),
        gap_max: small(section, "max_gap", problems, 0..=REGISTERS_MAX.into(), GAP_DEFAULT),
    };
    let addressing = named(section, "addressing", &ADDRESSINGS, problems).unwrap_or_default();
    let zone = section.checked("zone", problems, |text| {
        text.parse::<Tz>().map_err(|_| "is no IANA time zone, such as \"Europe/Brussels\"".to_owned())
    });
    let zone = zone.map_or(Tz::UTC, |zone| zone.value);
    let dialect = Dialect { addressing, zone, registers_max: limits.registers_max };
    let is_area = |name: &str| Table::ALL.iter().any(|(_, known)| *known == name);
    let sizes = places::limits(section, is_area, "co, di, ir, hr", problems);
    let points = points(setup, dialect, problems);
    if points.len() == setup.points.len() {
        warn(setup, &points, &sizes, problems);
    }
    let line = shared_line(setup, line?, problems)?;
    (points.len() == setup.points.len()).then_some(())?;
    let unit = Unit::new(line, u8::try_from(unit).ok()?, deadline, setup.pace.clone());
    Some(Box::new(Modbus::new(unit, points, limits)))
}

/// The line to this target: all devices of the agent that name it share it, so they must agree on what it is.
fn shared_line(
    setup: &DeviceSetup,
    settings: Located<LineSettings>,
    problems: &mut Problems,
) -> Option<std::sync::Arc<Line>> {
    let name = match &settings.value.target {
        Target::Tcp(address) => format!("modbus tcp {}", address.to_ascii_lowercase()),
        Target::Serial(serial) => format!("modbus serial {}", serial.port.display()),
    };
    let line = setup.shared.get(&name, || Line::new(settings.value.clone()));
    let ours = &settings.value;
    if line.settings() != ours {
        let differs = match (&line.settings().target, &ours.target) {
            (Target::Serial(a), Target::Serial(b)) if a != b => "baud, parity, stop_bits or data_bits",
            _ if line.settings().framing != ours.framing => "framing",
            _ if line.settings().pause != ours.pause => "pause",
            _ => "connections",
        };
        let rule =
            format!("another device has the same one with another {differs}; they share its connection");
        problems.push(settings.problem(rule));
        return None;
    }
    Some(line)
}

/// Registers without ID and length of the SunSpec models that meters and inverters have (their public definitions).
const MODEL_LENGTHS: [(u16, u16); 24] = [
    (1, 66),
    (101, 50),
    (102, 50),
    (103, 50),
    (111, 60),
    (112, 60),
    (113, 60),
    (120, 26),
    (121, 30),
    (122, 44),
    (123, 24),
    (124, 24),
    (201, 105),
    (202, 105),
    (203, 105),
    (204, 105),
    (211, 124),
    (212, 124),
    (213, 124),
    (214, 124),
    (302, 5),
    (303, 1),
    (305, 36),
    (307, 11),
];

/// Points at the same place, and beyond the end of the device or of their model.
fn warn(
    setup: &DeviceSetup,
    points: &[PointPlace],
    sizes: &HashMap<String, Located<i64>>,
    problems: &mut Problems,
) {
    let mut areas: HashMap<(Table, &[u16]), u64> = HashMap::new();
    let mut extents = Vec::with_capacity(points.len());
    for (nth, (place, point)) in points.iter().zip(&setup.points).enumerate() {
        let address = &place.address;
        let table = address.span.table;
        let name = Table::ALL.iter().find(|(known, _)| *known == table).map_or("", |(_, name)| name);
        let end = u64::from(address.span.end());
        if let Some(size) = sizes.get(name).filter(|_| address.models.is_empty()) {
            let size = u64::try_from(size.value).unwrap_or_default();
            places::warn_beyond(setup, point, end, size, "limits says that the device has", problems);
        }
        let lengths = address.models.iter().filter_map(|model| {
            MODEL_LENGTHS.iter().find(|(known, _)| known == model).map(|(model, length)| (*model, *length))
        });
        if let Some((model, length)) = lengths.min_by_key(|(_, length)| *length) {
            let whose = format!("model {model} has");
            places::warn_beyond(setup, point, end, u64::from(length) + 2, &whose, problems);
        }
        let next = areas.len() as u64;
        let area = *areas.entry((table, &address.models)).or_insert(next);
        let (from, to) = address.bits();
        extents.push(Extent { point: nth, area, from, to });
    }
    places::warn_of_overlaps(setup, extents, problems);
}

fn points(setup: &DeviceSetup, dialect: Dialect, problems: &mut Problems) -> Vec<PointPlace> {
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        let problem: Problem = match Address::parse(&point.address, point.raw_type, dialect) {
            Ok(address) if point.definition.writable && !address.span.table.is_writable() => setup
                .address_problem(point, "inputs cannot be written; use hr: or co:, or say writable = false"),
            Ok(address) if point.definition.writable && !address.can_be_written() => {
                setup.address_problem(point, "a value with a scale factor register cannot be written")
            }
            Ok(address) => {
                points.push(PointPlace { span: address.fixed_span(), group: point.group, address });
                continue;
            }
            Err(rule) => setup.address_problem(point, rule),
        };
        problems.push(problem);
    }
    points
}

fn pause(section: &mut Section<'_>, problems: &mut Problems) -> Option<Duration> {
    section.duration("pause", problems, Duration::ZERO..=Duration::from_secs(10)).map(|pause| pause.value)
}

fn named<T: Copy>(
    section: &mut Section<'_>,
    key: &str,
    known: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let found = section.checked(key, problems, |text| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let rule = || format!("must be one of {}", names.join(", "));
        known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(rule)
    });
    found.map(|found| found.value)
}

fn small(
    section: &mut Section<'_>,
    key: &str,
    problems: &mut Problems,
    range: std::ops::RangeInclusive<i64>,
    default: u16,
) -> u16 {
    section.integer(key, problems, range).and_then(|found| u16::try_from(found.value).ok()).unwrap_or(default)
}
