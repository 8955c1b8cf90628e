//! `modbus-tcp` and `modbus-serial`: the four tables of a Modbus device, read in few requests.
//!
//! [`settings`] reads the keys, [`address`] a point's address; [`form`] makes values of registers. [`line`] is the connection,
//! which all units behind one address share; [`frame`] and [`pdu`] are the protocol (TCP, RTU, ASCII). [`read_plan`] says
//! which registers are read together, [`sunspec`] where a device's models are.
//!
//! - An exception answer is the quality of its points, never an error of the device. A merged request that gets one is
//!   halved until only the points remain that cause it; the finer plan is kept and the coarse one tried again after
//!   [`COARSE_AGAIN`].
//! - Silence, a broken connection or an answer that is not the one asked for end the connection.
//! - Bits and bytes of a register are written by mask (function 22). A device without it refuses: reading, changing
//!   and writing back could undo what the PLC does in between.
//! - A round that takes longer than [`ROUND_PART`] (a budget, a slow line) hands over what it has.
//!
//! There is no position: a register has no history.

use std::time::Duration;

use async_trait::async_trait;
use model::{Quality, QualityClass, Reason, Value};
use tokio::time::Instant;

use super::{Driver, DriverError, DriverKind, Groups, Manners, NextRead, READINGS_MAX, Reading, Readings};
use address::{Address, Decoded};
use line::Unit;
use pdu::{Answer, Exception, Request};
use read_plan::{Block, Limits};

mod address;
mod form;
mod frame;
mod line;
mod pdu;
pub(crate) mod probe;
mod read_plan;
mod serial;
mod settings;
mod sunspec;

/// The entries in the table of drivers.
pub(super) const TCP: DriverKind = DriverKind {
    name: "modbus-tcp",
    summary: "Modbus over TCP (also RTU and ASCII over TCP): coils, discrete inputs, input and holding registers",
    validate: settings::validate_tcp,
};
pub(super) const SERIAL: DriverKind = DriverKind {
    name: "modbus-serial",
    summary: "Modbus RTU and ASCII on a serial line",
    validate: settings::validate_serial,
};

/// After this time split requests are merged again, in case the device has changed.
const COARSE_AGAIN: Duration = Duration::from_secs(600);
/// What was read is handed over so often, though the round has not come to its end.
const ROUND_PART: Duration = Duration::from_secs(1);

/// A point: its address, its poll group, and its cells where they are known.
struct PointPlace {
    address: Address,
    group: u8,
    span: Option<address::Span>,
}

struct Modbus {
    unit: Unit,
    points: Vec<PointPlace>,
    limits: Limits,
    /// The plan with all neighbours merged, and the one in use.
    coarse: Vec<Block>,
    blocks: Vec<Block>,
    /// When the plan in use became finer than the coarse one.
    split_at: Option<Instant>,
    /// The poll groups of this round.
    due: Groups,
    /// The block with which the round goes on.
    next: usize,
}

impl Modbus {
    fn new(unit: Unit, points: Vec<PointPlace>, limits: Limits) -> Modbus {
        let mut modbus = Modbus {
            unit,
            points,
            limits,
            coarse: Vec::new(),
            blocks: Vec::new(),
            split_at: None,
            due: Groups::ALL,
            next: 0,
        };
        modbus.plan();
        modbus
    }

    fn plan(&mut self) {
        let known = self.points.iter().enumerate();
        let known = known.filter_map(|(nth, point)| Some((nth, point.group, point.span?)));
        self.coarse = read_plan::plan(known, self.limits);
        self.blocks.clone_from(&self.coarse);
        self.split_at = None;
    }

    /// Finds the models of the device, if points are in some.
    async fn find_models(&mut self) -> Result<(), DriverError> {
        if self.points.iter().all(|point| point.address.models.is_empty()) {
            return Ok(());
        }
        let models = sunspec::discover(&mut self.unit).await?;
        let mut is_changed = false;
        for point in self.points.iter_mut().filter(|point| !point.address.models.is_empty()) {
            let span = sunspec::resolve(point.address.span, &point.address.models, &models);
            is_changed |= span != point.span;
            point.span = span;
        }
        if is_changed {
            self.plan();
        }
        Ok(())
    }

    /// Points whose model the device has not.
    fn without_place(&self) -> impl Iterator<Item = Reading> {
        let points = self.points.iter().enumerate();
        points
            .filter(|(_, point)| point.span.is_none() && self.due.contains(point.group))
            .map(|(nth, _)| no_model(nth))
    }

    fn place(&self, point: usize) -> Result<&PointPlace, DriverError> {
        let refused = || DriverError::Refused { reason: "there is no such point".into(), code: 0 };
        self.points.get(point).ok_or_else(refused)
    }
}

#[async_trait]
impl Driver for Modbus {
    fn manners(&self) -> Manners {
        Manners { groups: true, paced: true }
    }

    fn select(&mut self, due: Groups) {
        self.due = due;
        self.next = 0;
    }

    async fn open(&mut self, _: Option<&[u8]>) -> Result<(), DriverError> {
        self.next = 0;
        self.due = Groups::ALL;
        self.unit.open().await?;
        self.find_models().await
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let begun = Instant::now();
        if self.next == 0 {
            if self.split_at.is_some_and(|at| at.elapsed() >= COARSE_AGAIN) {
                self.blocks.clone_from(&self.coarse);
                self.split_at = None;
            }
            into.list.extend(self.without_place());
        }
        while let Some(block) = self.blocks.get(self.next) {
            if !self.due.contains(block.group) {
                self.next += 1;
                continue;
            }
            let is_late = !into.list.is_empty() && begun.elapsed() >= ROUND_PART;
            if is_late || into.list.len() + block.points.len() > READINGS_MAX {
                return Ok(NextRead::AtOnce);
            }
            let answer = self.unit.call(&Request::Read(block.span)).await?;
            if let Err(exception) = answer
                && is_about_place(exception)
                && let Some(halves) = block.split()
            {
                self.blocks.splice(self.next..=self.next, halves);
                self.split_at.get_or_insert_with(Instant::now);
                continue;
            }
            for (span, point) in &block.points {
                let answer = answer
                    .as_ref()
                    .map(|cells| read_plan::cells(block, *span, cells))
                    .map_err(|exception| *exception);
                into.list
                    .extend(self.points.get(*point).map(|place| reading(*point, &place.address, answer)));
            }
            self.next += 1;
        }
        self.next = 0;
        Ok(NextRead::OnSchedule)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        let place = self.place(point)?;
        let refused = |reason: String| DriverError::Refused { reason, code: 0 };
        let span = place.span.ok_or_else(|| refused("the device has no such model".into()))?;
        let (request, instead) = place.address.encode(value, span.start).map_err(refused)?;
        let mut answer = self.unit.call(&request).await?;
        if let (Err(Exception(1)), Some(instead)) = (&answer, instead) {
            answer = self.unit.call(&instead).await?; // the exception says that nothing was written
        }
        answer.map(drop).map_err(|exception| refusal(exception, &request))
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let Some(span) = self.place(point)?.span else { return Ok(no_model(point)) };
        let answer = self.unit.call(&Request::Read(span)).await?;
        let address = &self.place(point)?.address;
        Ok(reading(point, address, answer.as_deref().map_err(|exception| *exception)))
    }

    async fn acknowledge(&mut self, _: &[u8]) -> Result<(), DriverError> {
        Ok(())
    }

    async fn close(&mut self) {
        self.unit.close().await;
    }
}

fn no_model(point: usize) -> Reading {
    Reading { point, time: None, value: None, quality: Quality::bad(Reason::NoData) }
}

fn reading(point: usize, address: &Address, cells: Answer<&[u16]>) -> Reading {
    let (value, quality) = match cells.map(|cells| address.decode(cells)) {
        Ok(Decoded::Value(value)) => (Some(value), Quality::GOOD),
        Ok(Decoded::NoValue) => (None, Quality::bad(Reason::NoData)),
        Ok(Decoded::Undecodable) => (None, Quality::bad(Reason::Undecodable)),
        Err(Exception(code)) => {
            (None, Quality::with_detail(QualityClass::Bad, Reason::DeviceException, code.into()))
        }
    };
    Reading { point, time: None, value, quality }
}

/// Whether asking for fewer cells may help. A device that is busy, or a gateway without its device, would say the same
/// to every half. Devices report a hole in their registers as 2, some as 3 or 4.
const fn is_about_place(exception: Exception) -> bool {
    matches!(exception.0, 2..=4)
}

fn refusal(exception: Exception, request: &Request) -> DriverError {
    let code = u16::from(exception.0);
    let reason = match (exception.0, request) {
        (1, Request::MaskWrite(..)) => {
            "the device has no mask write (function 22), and writing the whole register back could undo a change by \
             the PLC; use a coil or a whole register"
                .to_owned()
        }
        _ => format!("the device answered exception {code} ({exception})"),
    };
    // Busy, or a gateway without a way: it was not begun. A failure while it was done, a long-running acknowledge, or
    // a device behind a gateway that took the request and said nothing may all have written.
    match exception.0 {
        1 | 2 | 3 | 6 | 10 => DriverError::Refused { reason, code },
        _ => DriverError::InDoubt { reason, code },
    }
}

#[cfg(test)]
mod tests;
