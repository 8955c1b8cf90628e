//! `modbus-tcp`: the four tables of a Modbus device over TCP, read in few requests.
//!
//! Keys of the device: `address` ("host:port", port 502 if left out), `unit` (1), `timeout` ("1s") per request,
//! `max_registers` (125) and `max_bits` (2000) per request, `max_gap` (8): registers that may be read in vain to save a
//! request. A point's address is explained in [`address`].
//!
//! - An exception answer is the quality of its points, never an error of the device. A merged request that gets one is
//!   halved until only the points remain that cause it; the finer plan is kept and the coarse one tried again after
//!   [`COARSE_AGAIN`].
//! - Silence, a broken connection or an answer that is not the one asked for end the connection.
//! - Bits and bytes of a register are written by mask (function 22). A device without it refuses: reading, changing
//!   and writing back could undo what the PLC does in between.
//!
//! There is no position: a register has no history.

use std::time::Duration;

use async_trait::async_trait;
use model::{Quality, QualityClass, Reason, Value};
use runtime::config_file::{Problems, Section};
use tokio::time::Instant;
use tokio_modbus::ExceptionCode;

use super::{DeviceSetup, Driver, DriverError, DriverKind, NextRead, READINGS_MAX, Reading, Readings};
use address::{Address, Written};
use read_plan::{Block, Limits};
use transport::{Answer, Connection};

mod address;
mod read_plan;
mod transport;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind = DriverKind {
    name: "modbus-tcp",
    summary: "Modbus TCP: coils, discrete inputs, input and holding registers",
    validate,
};

const PORT_DEFAULT: u16 = 502;
/// A PLC answers within its cycle, some tens of milliseconds; a gateway to a serial line may take most of a second.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// The protocol's own limits (function 3: 250 bytes of registers; function 1: 250 bytes of bits).
const REGISTERS_MAX: u16 = 125;
const BITS_MAX: u16 = 2000;
/// Eight registers more cost 16 bytes, a request of their own a round trip.
const GAP_DEFAULT: u16 = 8;
/// After this time split requests are merged again, in case the device has changed.
const COARSE_AGAIN: Duration = Duration::from_secs(600);

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    if !section.has("address") {
        problems.push(section.problem("address", "is missing; write the device's \"host:port\""));
    }
    let target = section.checked("address", problems, parse_target);
    let unit = small(section, "unit", problems, 0..=255, 1);
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let deadline = section.duration("timeout", problems, range).map_or(TIMEOUT_DEFAULT, |t| t.value);
    let limits = Limits {
        registers_max: small(section, "max_registers", problems, 4..=REGISTERS_MAX.into(), REGISTERS_MAX),
        bits_max: small(section, "max_bits", problems, 1..=BITS_MAX.into(), BITS_MAX),
        gap_max: small(section, "max_gap", problems, 0..=REGISTERS_MAX.into(), GAP_DEFAULT),
    };
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        match Address::parse(&point.address, point.raw_type) {
            Ok(address) if point.definition.writable && !address.span.table.is_writable() => {
                let rule = "inputs cannot be written; use hr: or co:, or say writable = false";
                problems.push(setup.address_problem(point, rule));
            }
            Ok(address) => points.push(address),
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    (points.len() == setup.points.len()).then_some(())?;
    let settings = Settings { target: target?.value, unit: u8::try_from(unit).ok()?, deadline };
    Some(Box::new(Modbus::new(settings, points, limits)))
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

/// `host`, `host:port`, `[v6]:port`; not looked up here.
fn parse_target(text: &str) -> Result<String, String> {
    const RULE: &str = "must be \"host:port\", such as \"10.0.3.11:502\" or \"[fe80::1]:502\"";
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        Some(_) if text.ends_with(']') => return Ok(format!("{text}:{PORT_DEFAULT}")),
        Some(_) => return Err(RULE.to_owned()),
        None => {
            return if text.is_empty() { Err(RULE.to_owned()) } else { Ok(format!("{text}:{PORT_DEFAULT}")) };
        }
    };
    match port.parse::<u16>() {
        Ok(number) if number > 0 && !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(text.to_owned())
        }
        _ => Err(RULE.to_owned()),
    }
}

struct Settings {
    target: String,
    unit: u8,
    deadline: Duration,
}

struct Modbus {
    settings: Settings,
    points: Vec<Address>,
    /// The plan with all neighbours merged, and the one in use.
    coarse: Vec<Block>,
    blocks: Vec<Block>,
    /// When the plan in use became finer than the coarse one.
    split_at: Option<Instant>,
    /// The block with which the round goes on.
    next: usize,
    connection: Option<Connection>,
}

impl Modbus {
    fn new(settings: Settings, points: Vec<Address>, limits: Limits) -> Modbus {
        let coarse = read_plan::plan(points.iter().map(|point| point.span), limits);
        let blocks = coarse.clone();
        Modbus { settings, points, coarse, blocks, split_at: None, next: 0, connection: None }
    }
}

#[async_trait]
impl Driver for Modbus {
    async fn open(&mut self, _: Option<&[u8]>) -> Result<(), DriverError> {
        self.next = 0;
        let Settings { target, unit, deadline } = &self.settings;
        self.connection = Some(Connection::open(target, *unit, *deadline).await?);
        Ok(())
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        if self.next == 0 && self.split_at.is_some_and(|at| at.elapsed() >= COARSE_AGAIN) {
            self.blocks.clone_from(&self.coarse);
            self.split_at = None;
        }
        while let Some(block) = self.blocks.get(self.next) {
            if into.list.len() + block.points.len() > READINGS_MAX {
                return Ok(NextRead::AtOnce);
            }
            let mut connection = take(&mut self.connection)?;
            let answer = connection.read(block.span).await?;
            self.connection = Some(connection);
            if let Err(exception) = answer
                && is_about_place(exception)
                && let Some(halves) = block.split()
            {
                self.blocks.splice(self.next..=self.next, halves);
                self.split_at.get_or_insert_with(Instant::now);
                continue;
            }
            for (span, point) in &block.points {
                let answer =
                    answer.as_ref().map(|cells| block.cells(*span, cells)).map_err(|exception| *exception);
                into.list.extend(self.points.get(*point).map(|address| reading(*point, address, answer)));
            }
            self.next += 1;
        }
        self.next = 0;
        Ok(NextRead::OnSchedule)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        let address = self.points.get(point).ok_or_else(no_such_point)?;
        let written = address.encode(value).map_err(|reason| DriverError::Refused { reason, code: 0 })?;
        let start = address.span.start;
        let mut connection = take(&mut self.connection)?;
        let answer = connection.write(start, &written).await?;
        self.connection = Some(connection);
        answer.map_err(|exception| refusal(exception, &written))
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let span = self.points.get(point).ok_or_else(no_such_point)?.span;
        let mut connection = take(&mut self.connection)?;
        let answer = connection.read(span).await?;
        self.connection = Some(connection);
        let address = self.points.get(point).ok_or_else(no_such_point)?;
        Ok(reading(point, address, answer.as_deref().map_err(|exception| *exception)))
    }

    async fn acknowledge(&mut self, _: &[u8]) -> Result<(), DriverError> {
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }
}

/// The connection, out of its place: a request that fails or is cut off half-way takes it along.
fn take(connection: &mut Option<Connection>) -> Result<Connection, DriverError> {
    connection.take().ok_or_else(|| DriverError::NotConnected("the connection was closed".into()))
}

fn reading(point: usize, address: &Address, cells: Answer<&[u16]>) -> Reading {
    let (value, quality) = match cells {
        Ok(cells) => match address.decode(cells) {
            Some(value) => (Some(value), Quality::GOOD),
            None => (None, Quality::bad(Reason::Undecodable)),
        },
        Err(exception) => {
            let code = u16::from(u8::from(exception));
            (None, Quality::with_detail(QualityClass::Bad, Reason::DeviceException, code))
        }
    };
    Reading { point, time: None, value, quality }
}

/// Whether asking for fewer cells may help. A device that is busy, or a gateway without its device, would say the same
/// to every half. Devices report a hole in their registers as 2, some as 3 or 4.
fn is_about_place(exception: ExceptionCode) -> bool {
    matches!(
        exception,
        ExceptionCode::IllegalDataAddress
            | ExceptionCode::IllegalDataValue
            | ExceptionCode::ServerDeviceFailure
    )
}

fn refusal(exception: ExceptionCode, written: &Written) -> DriverError {
    let code = u16::from(u8::from(exception));
    let reason = match (exception, written) {
        (ExceptionCode::IllegalFunction, Written::Masked { .. }) => {
            "the device has no mask write (function 22), and writing the whole register back could undo a change by \
             the PLC; use a coil or a whole register"
                .to_owned()
        }
        _ => format!("the device answered exception {code} ({exception})"),
    };
    // Busy, or a gateway without a way: it was not begun. A failure while it was done, a long-running acknowledge, or
    // a device behind a gateway that took the request and said nothing may all have written.
    match exception {
        ExceptionCode::IllegalFunction
        | ExceptionCode::IllegalDataAddress
        | ExceptionCode::IllegalDataValue
        | ExceptionCode::ServerDeviceBusy
        | ExceptionCode::GatewayPathUnavailable => DriverError::Refused { reason, code },
        _ => DriverError::InDoubt { reason, code },
    }
}

fn no_such_point() -> DriverError {
    DriverError::Refused { reason: "there is no such point".into(), code: 0 }
}

#[cfg(test)]
mod tests;
