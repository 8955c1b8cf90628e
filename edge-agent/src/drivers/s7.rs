//! `s7`: Siemens S7-300, 400, 1200 and 1500 by PUT/GET: data blocks, markers, inputs, outputs, timers, counters.
//!
//! Keys of the device: `address` ("host:port", port 102 if left out), `rack` (0), `slot` (1; an S7-300 has 2), or
//! `local_tsap` and `remote_tsap` instead; `connection` ("pg", "op" or "basic"), `timeout` ("1s"), `pdu` (960, what is asked
//! for), `max_gap` (16 bytes read in vain to save an item), `zone` (of DTL, DT and DATE), `stop_check` ("2s", "0s": never),
//! `limits` (bytes of areas, for warnings).
//! [`address`] explains a point's address, [`form`] makes values of bytes, [`plan`] packs requests, [`telegram`] is the
//! protocol, [`connection`] its transport.
//!
//! - A return code of an item is the quality of its points: access denied, no such object, out of range. A block that is
//!   out of range is halved until only the points remain that are; the finer plan is kept until the next connection.
//! - A refused request says so of all its points. What to do about it is logged once per connection.
//! - A CPU in STOP shows the values that it stopped with: `uncertain:device-stopped`. It is asked every `stop_check`, if it
//!   says at all.
//!
//! There is no position: memory has no history. The protocol has no source time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono_tz::Tz;
use model::{Quality, QualityClass, Reason, Value};
use runtime::config_file::{Located, Problems, Section};
use tokio::time::Instant;

use super::places::{self, Extent};
use super::stop_check::{Hints, StopCheck};
use super::{
    DeviceSetup, Driver, DriverError, DriverKind, Groups, Manners, NextRead, READINGS_MAX, Reading, Readings,
};
use crate::pace::Pace;
use address::Address;
use connection::{Connection, Settings, trouble};
use plan::{Block, Piece};
use telegram::{PDU_BYTES_MAX, PDU_BYTES_MIN, Trouble, Written};

mod address;
mod connection;
mod form;
mod plan;
mod telegram;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind =
    DriverKind { name: "s7", summary: "Siemens S7-300/400/1200/1500 (PUT/GET): DB, M, I, Q, T, C", validate };

const PORT_DEFAULT: u16 = 102;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// An item more costs 12 bytes to ask and 4 to answer.
const GAP_DEFAULT: i64 = 16;
/// What was read is handed over so often, though the round has not come to its end.
const ROUND_PART: Duration = Duration::from_secs(1);
/// What a write carries beside its data: header, parameters, head of the data.
const WRITE_OVERHEAD: usize = 10 + 2 + 12 + 4;

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    if !section.has("address") {
        problems.push(section.problem("address", "is missing; write the CPU's \"host\" or \"host:port\""));
    }
    let target = section.checked("address", problems, |text| super::parse_target(text, PORT_DEFAULT));
    let mut small = |key: &str, range: std::ops::RangeInclusive<i64>, default: i64| {
        section.integer(key, problems, range).map_or(default, |found| found.value)
    };
    let (rack, slot) = (small("rack", 0..=7, 0), small("slot", 0..=31, 1));
    let pdu = small("pdu", PDU_BYTES_MIN.into()..=PDU_BYTES_MAX.into(), PDU_BYTES_MAX.into());
    let gap_max = small("max_gap", 0..=200, GAP_DEFAULT);
    let kind = section.checked("connection", problems, |text| match text {
        "pg" => Ok(1_u16),
        "op" => Ok(2),
        "basic" => Ok(3),
        _ => Err("must be \"pg\", \"op\" or \"basic\"".into()),
    });
    let local = section.checked("local_tsap", problems, parse_tsap);
    let remote = section.checked("remote_tsap", problems, parse_tsap);
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let deadline = section.duration("timeout", problems, range).map_or(TIMEOUT_DEFAULT, |found| found.value);
    let stop_check = StopCheck::of(section, problems);
    let zone = section.checked("zone", problems, |text| {
        text.parse::<Tz>().map_err(|_| "is no IANA time zone, such as \"Europe/Brussels\"".to_owned())
    });
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        match Address::parse(&point.address, point.raw_type) {
            Ok(address) if point.definition.writable && !address.can_be_written() => {
                let rule = "inputs, timers and counters cannot be written; say writable = false";
                problems.push(setup.address_problem(point, rule));
            }
            Ok(address) => points.push(PointPlace { address, group: point.group }),
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    let sizes = places::limits(section, address::is_area, "M, I, Q, T, C, DB1, DB2 …", problems);
    (points.len() == setup.points.len()).then_some(())?;
    warn(setup, &points, &sizes, problems);
    let by_slot = kind.map_or(1, |kind| kind.value) << 8 | u16::try_from(rack * 32 + slot).ok()?;
    let settings = Settings {
        target: target?.value,
        local_tsap: local.map_or(0x0100, |tsap| tsap.value),
        remote_tsap: remote.map_or(by_slot, |tsap| tsap.value),
        pdu: u16::try_from(pdu).ok()?,
        deadline,
    };
    Some(Box::new(S7 {
        device: setup.name.clone(),
        settings,
        pace: setup.pace.clone(),
        zone: zone.map_or(Tz::UTC, |zone| zone.value),
        gap_max: u32::try_from(gap_max).ok()?,
        stop_check,
        points,
        blocks: Vec::new(),
        due: Groups::ALL,
        round: None,
        hints: Hints::default(),
        connection: None,
    }))
}

/// Points at the same place, and beyond the end of the area.
fn warn(
    setup: &DeviceSetup,
    points: &[PointPlace],
    sizes: &HashMap<String, Located<i64>>,
    problems: &mut Problems,
) {
    let mut extents = Vec::with_capacity(points.len());
    for (nth, (place, point)) in points.iter().zip(&setup.points).enumerate() {
        let span = place.address.span;
        let (name, number) = span.area.name();
        let end = u64::from(span.end());
        match sizes.get(&name) {
            Some(size) => {
                let size = u64::try_from(size.value).unwrap_or_default();
                places::warn_beyond(setup, point, end, size, "limits says that the device has", problems);
            }
            None => {
                let size = span.area.size_max();
                places::warn_beyond(setup, point, end, size, "the largest CPU has", problems);
            }
        }
        let (from, to) = match place.address.form {
            _ if span.area.is_words() => (u64::from(span.start) * 16, u64::from(span.end()) * 16),
            form::Form::Bit(bit) => {
                let at = u64::from(span.start) * 8 + u64::from(bit);
                (at, at + 1)
            }
            _ => (u64::from(span.start) * 8, end * 8),
        };
        extents.push(Extent { point: nth, area: number, from, to });
    }
    places::warn_of_overlaps(setup, extents, problems);
}

/// `02.01`, as TIA writes them, or `0201`.
fn parse_tsap(text: &str) -> Result<u16, String> {
    let digits: String = text.chars().filter(|c| *c != '.').collect();
    let is_hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parsed = u16::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
    parsed.ok_or_else(|| "must be two bytes in hexadecimal, such as \"02.01\"".into())
}

struct PointPlace {
    address: Address,
    group: u8,
}

/// What is left of a round of reading.
struct Round {
    queue: VecDeque<Arc<Block>>,
    /// Elements of the first block that were read, and their bytes.
    done: u32,
    partial: Vec<u8>,
}

struct S7 {
    device: String,
    settings: Settings,
    pace: Pace,
    zone: Tz,
    gap_max: u32,
    stop_check: StopCheck,
    points: Vec<PointPlace>,
    /// For the PDU length of the connection.
    blocks: Vec<Arc<Block>>,
    due: Groups,
    round: Option<Round>,
    hints: Hints,
    connection: Option<Connection>,
}

impl S7 {
    /// A refusal's meaning, once.
    fn hint(&mut self, code: u16, meaning: &str, address: &str) {
        if self.hints.is_news(code.into()) {
            tracing::warn!(device = %self.device, %address, "{meaning}");
        }
    }

    async fn ask_cpu_state(&mut self) -> Result<(), DriverError> {
        if !self.stop_check.is_due() {
            return Ok(());
        }
        let mut connection = take(&mut self.connection)?;
        let (reference, answer) = connection.exchange(telegram::cpu_state).await?;
        self.connection = Some(connection);
        match telegram::check_cpu_state(&answer, reference) {
            Ok(runs) => self.stop_check.answered(runs.map(|runs| !runs)),
            Err(Trouble::Refused(..)) => self.stop_check.answered(None),
            Err(error) => {
                self.connection = None;
                return Err(trouble(error));
            }
        }
        Ok(())
    }

    /// What a piece brought. `code`: the PLC's, if it refused.
    fn took(&mut self, round: &mut Round, piece: &Piece, data: Result<&[u8], Quality>, into: &mut Readings) {
        match data {
            Ok(bytes) => {
                round.partial.extend(bytes);
                if !piece.is_last {
                    return;
                }
                let whole = std::mem::take(&mut round.partial);
                for (span, point) in &piece.block.points {
                    into.list.extend(self.reading(*point, plan::bytes(&piece.block, *span, &whole)));
                }
            }
            Err(quality) => {
                round.partial.clear();
                if !piece.is_last {
                    round.queue.pop_front(); // the rest of it
                    round.done = 0;
                }
                if quality.reason() == Reason::DeviceException
                    && quality.detail() == 5
                    && let Some(halves) = piece.block.split()
                {
                    let halves = halves.map(Arc::new);
                    self.blocks.retain(|block| !Arc::ptr_eq(block, &piece.block));
                    self.blocks.extend(halves.clone());
                    round.queue.extend(halves);
                    return;
                }
                let refused =
                    |(_, point): &(_, usize)| Reading { point: *point, time: None, value: None, quality };
                into.list.extend(piece.block.points.iter().map(refused));
            }
        }
    }

    fn reading(&self, point: usize, bytes: &[u8]) -> Option<Reading> {
        let place = self.points.get(point)?;
        let value = place.address.form.decode(bytes, place.address.data_type, self.zone);
        let quality = match &value {
            None => Quality::bad(Reason::Undecodable),
            Some(_) if self.stop_check.is_stopped() => Quality::uncertain(Reason::DeviceStopped),
            Some(_) => Quality::GOOD,
        };
        Some(Reading { point, time: None, value, quality })
    }

    async fn request(&mut self, round: &mut Round, into: &mut Readings) -> Result<(), DriverError> {
        let mut connection = take(&mut self.connection)?;
        let pieces = plan::next_request(&mut round.queue, &mut round.done, connection.pdu);
        let spans: Vec<_> = pieces.iter().map(|piece| piece.span).collect();
        let (reference, answer) = connection.exchange(|reference| telegram::read(reference, &spans)).await?;
        match telegram::check_read(&answer, reference, &spans) {
            Ok(items) => {
                for (piece, item) in pieces.iter().zip(items) {
                    if let Err(code) = item {
                        self.hint(code.into(), telegram::item_meaning(code), &piece.block.span.to_string());
                    }
                    self.took(round, piece, item.map_err(item_quality), into);
                }
            }
            Err(Trouble::Refused(class, code)) => {
                let both = u16::from_be_bytes([class, code]);
                self.hint(both, &telegram::meaning(class, code), "a whole request");
                let quality = match class {
                    0x81 | 0x83 | 0xd2 => Quality::bad(Reason::AccessDenied),
                    _ => Quality::with_detail(QualityClass::Bad, Reason::DeviceException, both),
                };
                for piece in &pieces {
                    self.took(round, piece, Err(quality), into);
                }
            }
            Err(error) => return Err(trouble(error)),
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn place(&self, point: usize) -> Result<&PointPlace, DriverError> {
        let refused = || DriverError::Refused { reason: "there is no such point".into(), code: 0 };
        self.points.get(point).ok_or_else(refused)
    }
}

#[async_trait]
impl Driver for S7 {
    fn manners(&self) -> Manners {
        Manners { groups: true, paced: true }
    }

    fn select(&mut self, due: Groups) {
        self.due = due;
        self.round = None;
    }

    async fn open(&mut self, _: Option<&[u8]>) -> Result<(), DriverError> {
        self.connection = None;
        (self.due, self.round) = (Groups::ALL, None);
        self.stop_check.begin();
        self.hints.clear();
        let connection = Connection::open(&self.settings, self.pace.clone()).await?;
        let points =
            self.points.iter().enumerate().map(|(nth, place)| (nth, place.group, place.address.span));
        self.blocks = plan::plan(points, connection.pdu, self.gap_max);
        tracing::debug!(device = %self.device, pdu = connection.pdu, blocks = self.blocks.len(), "connected");
        self.connection = Some(connection);
        Ok(())
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let begun = Instant::now();
        let mut round = match self.round.take() {
            Some(round) => round,
            None => {
                self.ask_cpu_state().await?;
                let due = self.blocks.iter().filter(|block| self.due.contains(block.group));
                Round { queue: due.cloned().collect(), done: 0, partial: Vec::new() }
            }
        };
        while let Some(block) = round.queue.front() {
            let is_late = !into.list.is_empty() && begun.elapsed() >= ROUND_PART;
            // One answer completes at most as many blocks as it has items.
            let coming: usize =
                round.queue.iter().take(telegram::ITEMS_MAX).map(|block| block.points.len()).sum();
            let is_full =
                !into.list.is_empty() && into.list.len() + coming.max(block.points.len()) > READINGS_MAX;
            if is_late || is_full {
                self.round = Some(round);
                return Ok(NextRead::AtOnce);
            }
            self.request(&mut round, into).await?;
        }
        Ok(NextRead::OnSchedule)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        let place = self.place(point)?;
        let refused = |reason: String| DriverError::Refused { reason, code: 0 };
        let Address { span, form, .. } = place.address;
        if !place.address.can_be_written() {
            return Err(refused("inputs, timers and counters cannot be written".into()));
        }
        let written = match (form, value) {
            (form::Form::Bit(bit), Value::Boolean(on)) => {
                Written::Bit { area: span.area, byte: span.start, bit, on: *on }
            }
            _ if value.data_type() != place.address.data_type => {
                return Err(refused(format!("the point's type is {}", place.address.data_type.name())));
            }
            _ => {
                let (behind, bytes) = form.encode(value, self.zone).map_err(refused)?;
                Written::Bytes { area: span.area, start: span.start + behind, bytes }
            }
        };
        let mut connection = take(&mut self.connection)?;
        if let Written::Bytes { bytes, .. } = &written
            && bytes.len() + WRITE_OVERHEAD > usize::from(connection.pdu)
        {
            let room = usize::from(connection.pdu) - WRITE_OVERHEAD;
            self.connection = Some(connection);
            return Err(refused(format!(
                "{} bytes are more than the PLC takes at once: {room}",
                bytes.len()
            )));
        }
        let (reference, answer) =
            connection.exchange(|reference| telegram::write(reference, &written)).await?;
        let code = match telegram::check_write(&answer, reference) {
            Ok(code) => code,
            Err(error @ Trouble::Malformed(_)) => return Err(trouble(error)),
            Err(error @ Trouble::Refused(..)) => {
                self.connection = Some(connection);
                return Err(trouble(error));
            }
        };
        self.connection = Some(connection);
        if code == 0xff {
            return Ok(());
        }
        Err(DriverError::Refused { reason: telegram::item_meaning(code).to_owned(), code: code.into() })
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let span = self.place(point)?.address.span;
        let block = Block { group: 0, span, points: vec![(span, point)] };
        let mut round = Round { queue: VecDeque::from([Arc::new(block)]), done: 0, partial: Vec::new() };
        let mut readings = Readings::default();
        while !round.queue.is_empty() {
            self.request(&mut round, &mut readings).await?;
        }
        readings.list.pop().ok_or_else(|| DriverError::Malformed("nothing was read".into()))
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

fn item_quality(code: u8) -> Quality {
    match code {
        0x03 => Quality::bad(Reason::AccessDenied),
        0x06 | 0x07 => Quality::bad(Reason::TypeMismatch),
        code => Quality::with_detail(QualityClass::Bad, Reason::DeviceException, code.into()),
    }
}

/// The connection, out of its place: a request that fails or is cut off half-way takes it along.
fn take(connection: &mut Option<Connection>) -> Result<Connection, DriverError> {
    connection.take().ok_or_else(|| DriverError::NotConnected("the connection was closed".into()))
}

#[cfg(test)]
mod tests;
