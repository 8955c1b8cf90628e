//! `ethernet-ip`: tags of Logix controllers (ControlLogix, CompactLogix, Micro800) by EtherNet/IP.
//!
//! Keys of the device: `address` ("host:port", port 44818 if left out), `slot` (0) or `route` ("1,0"; "none" for a controller
//! without backplane), `connected` (true), `size` (4000 bytes of a message, what is asked for), `timeout` ("1s"), `max_gap` (8
//! elements read in vain to save a read), `stop_check` ("2s", "0s": never). [`address`] explains a point's address, [`value`]
//! makes values of bytes, [`plan`] packs reads, [`cip`] and [`frame`] are the protocol, [`connection`] its transport,
//! [`tags`] numbers tags, [`learn`] asks what they are, [`round`] reads, [`browse`] lists what a controller has.
//!
//! - Many reads go out as one message. A controller that does not know that is asked one by one. What is longer than a message
//!   is read in parts, alone.
//! - A refused read is the quality of its points. A range that ends behind the end of its array is halved until only the points
//!   remain that do; the finer plan is kept until the next connection.
//! - What a tag is, its answer says: a point of another type is `bad:type-mismatch`, and the log says once what it is.
//! - A controller in program mode shows the values that it stopped with: `uncertain:device-stopped`.
//!
//! There is no position: memory has no history. The protocol has no source time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{DataType, Value};
use runtime::config_file::{Problems, Section};
use tokio::time::Instant;

use super::stop_check::{Hints, StopCheck};
use super::{
    DeviceSetup, Driver, DriverError, DriverKind, Groups, Manners, NextRead, READINGS_MAX, Reading, Readings,
};
use crate::pace::Pace;
use address::Address;
use cip::{Held, Path, STRUCTURE};
use connection::{Connection, Settings, refused};
use plan::{Block, Span};
use round::Round;
use tags::{PointPlace, Tag, Tags};
use value::Written;

mod address;
pub mod browse;
mod cip;
mod connection;
mod frame;
mod learn;
mod plan;
mod round;
mod route;
mod tags;
mod template;
mod value;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind = DriverKind {
    name: "ethernet-ip",
    summary: "Logix controllers by EtherNet/IP: tags, array elements, members of structures",
    validate,
};

const PORT_DEFAULT: u16 = 44818;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const SIZE_DEFAULT: i64 = 4000;
/// A read more costs some 20 bytes to ask and 12 to answer.
const GAP_DEFAULT: i64 = 8;
/// What was read is handed over so often, though the round has not come to its end.
const ROUND_PART: Duration = Duration::from_secs(1);
/// What a write carries beside path and data.
const WRITE_OVERHEAD: usize = 2 + 2 + 2 + 2;
/// Structures whose kind is remembered.
const STRUCTURES_MAX: usize = 256;

fn validate(
    section: &mut Section<'_>,
    setup: &DeviceSetup,
    problems: &mut Problems,
) -> Option<Box<dyn Driver>> {
    if !section.has("address") {
        problems
            .push(section.problem("address", "is missing; write the controller's \"host\" or \"host:port\""));
    }
    let target = section.checked("address", problems, |text| super::parse_target(text, PORT_DEFAULT));
    if section.has("slot") && section.has("route") {
        problems.push(section.problem("slot", "says the same as route; leave one of them out"));
    }
    let mut small = |key: &str, range: std::ops::RangeInclusive<i64>, default: i64| {
        section.integer(key, problems, range).map_or(default, |found| found.value)
    };
    let slot = small("slot", 0..=255, 0);
    let size = small("size", 200..=SIZE_DEFAULT, SIZE_DEFAULT);
    let gap_max = small("max_gap", 0..=1000, GAP_DEFAULT);
    let route = section.checked("route", problems, route::parse);
    let is_connected = section.boolean("connected", problems).is_none_or(|found| found.value);
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let deadline = section.duration("timeout", problems, range).map_or(TIMEOUT_DEFAULT, |found| found.value);
    let stop_check = StopCheck::of(section, problems);
    let mut tags = Tags::default();
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        match Address::parse(&point.address, point.raw_type) {
            Ok(address) => points.push(tags.place(&address, point.raw_type, point.group)),
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    (points.len() == setup.points.len()).then_some(())?;
    let settings = Settings {
        target: target?.value,
        route: route.map_or(vec![1, u8::try_from(slot).ok()?], |route| route.value),
        is_connected,
        size: u16::try_from(size).ok()?,
        deadline,
    };
    Some(Box::new(EtherNetIp {
        device: setup.name.clone(),
        settings,
        pace: setup.pace.clone(),
        gap_max: u32::try_from(gap_max).ok()?,
        stop_check,
        held: vec![None; points.len()],
        points,
        tags: tags.list,
        blocks: Vec::new(),
        due: Groups::ALL,
        round: None,
        knows_several: true,
        texts: HashMap::new(),
        hints: Hints::default(),
        connection: None,
    }))
}

struct EtherNetIp {
    device: String,
    settings: Settings,
    pace: Pace,
    gap_max: u32,
    stop_check: StopCheck,
    points: Vec<PointPlace>,
    /// What each point's tag was when it was read last, and how many bytes an element had.
    held: Vec<Option<(Held, usize)>>,
    tags: Vec<Tag>,
    /// For the room of the connection.
    blocks: Vec<Arc<Block>>,
    due: Groups,
    round: Option<Round>,
    /// Whether the controller takes several requests in one.
    knows_several: bool,
    /// Structures by their handles: whether it is a text.
    texts: HashMap<u16, bool>,
    hints: Hints,
    connection: Option<Connection>,
}

impl EtherNetIp {
    /// A refusal's meaning, once.
    fn hint(&mut self, code: u32, meaning: &str, span: Span) {
        if self.hints.is_news(code) {
            let tag = self.name_of(span);
            tracing::warn!(device = %self.device, %tag, "{meaning}");
        }
    }

    fn name_of(&self, span: Span) -> String {
        let tag = self.tags.get(span.tag);
        tag.map_or_else(String::new, |tag| match (tag.is_indexed, span.count) {
            (false, _) => tag.name.clone(),
            (true, 1) => format!("{}[{}]", tag.name, span.start),
            (true, count) => format!("{}[{}] and {} more", tag.name, span.start, count - 1),
        })
    }

    /// Sends a request; a failure, or being cut off, takes the connection along.
    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, DriverError> {
        let mut connection = take(&mut self.connection)?;
        let answer = connection.exchange(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// An answer that is none ends the connection.
    fn malformed(&mut self, why: impl Into<String>) -> DriverError {
        self.connection = None;
        DriverError::Malformed(why.into())
    }

    /// The connection's room for a message.
    fn room(&self) -> Result<usize, DriverError> {
        let closed = || DriverError::NotConnected("the connection was closed".into());
        self.connection.as_ref().map(|connection| connection.room).ok_or_else(closed)
    }

    fn path(&self, span: Span) -> Path {
        self.tags.get(span.tag).map_or_else(Path::default, |tag| tag.at(span.start))
    }

    /// Opens anew where the controller may have given the connection up meanwhile.
    async fn refresh(&mut self) -> Result<(), DriverError> {
        if self.connection.as_ref().is_some_and(Connection::is_idle) {
            let due = self.due;
            self.close().await;
            self.open(None).await?;
            self.due = due;
        }
        Ok(())
    }

    async fn ask_state(&mut self) -> Result<(), DriverError> {
        if !self.stop_check.is_due() {
            return Ok(());
        }
        let identity = Path::instance(1, 1).attribute(5);
        let bytes = self.exchange(&cip::request(cip::ONE_ATTRIBUTE, &identity, &[])).await?;
        let answer = cip::answer(&bytes, cip::ONE_ATTRIBUTE).map_err(|why| self.malformed(why))?;
        // Bits 4 to 7: 5 is a major fault, 7 is program mode.
        let state = answer.data.first().filter(|_| answer.status.is_ok());
        self.stop_check.answered(state.map(|low| matches!(low >> 4, 5 | 7)));
        Ok(())
    }

    fn place(&self, point: usize) -> Result<PointPlace, DriverError> {
        let refused = || DriverError::Refused { reason: "there is no such point".into(), code: 0 };
        self.points.get(point).copied().ok_or_else(refused)
    }
}

#[async_trait]
impl Driver for EtherNetIp {
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
        (self.knows_several, self.texts) = (true, HashMap::new());
        self.hints.clear();
        let connection = Connection::open(&self.settings, self.pace.clone()).await?;
        let (room, is_connected) = (connection.room, connection.is_connected());
        self.connection = Some(connection);
        self.place_bits().await?;
        let points = self.points.iter().enumerate().map(|(nth, place)| (nth, place.group, place.span));
        self.blocks = plan::plan(points, room, self.gap_max);
        tracing::debug!(device = %self.device, room, is_connected, blocks = self.blocks.len(), "connected");
        Ok(())
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let begun = Instant::now();
        let mut round = match self.round.take() {
            Some(round) => round,
            None => {
                self.refresh().await?;
                self.ask_state().await?;
                let due = self.blocks.iter().filter(|block| self.due.contains(block.group));
                Round { queue: due.cloned().collect(), ..Round::default() }
            }
        };
        while let Some(block) = round.alone.front().or_else(|| round.queue.front()) {
            let is_late = begun.elapsed() >= ROUND_PART;
            let is_full = into.list.len() + block.points.len() > READINGS_MAX;
            if !into.list.is_empty() && (is_late || is_full) {
                self.round = Some(round);
                return Ok(NextRead::AtOnce);
            }
            self.request(&mut round, into).await?;
        }
        Ok(NextRead::OnSchedule)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        let place = self.place(point)?;
        let refusal = |reason: String| DriverError::Refused { reason, code: 0 };
        if value.data_type() != place.data_type {
            return Err(refusal(format!("the point's type is {}", place.data_type.name())));
        }
        self.refresh().await?;
        if self.held.get(point).copied().flatten().is_none() {
            self.read_one(point).await?;
        }
        let Some((held, element)) = self.held.get(point).copied().flatten() else {
            return Err(refusal("what the tag is could not be read".into()));
        };
        if held.code == STRUCTURE && place.data_type == DataType::String {
            self.learn_text(held.handle, place.span).await?;
        }
        let is_text = |handle| self.is_text(handle);
        let written = value::encode(held, element, place.form, value, is_text).map_err(refusal)?;
        let path = self.path(place.span);
        let (service, request) = match &written {
            Written::Bit { bytes, bit, on } => (cip::CHANGE_BITS, cip::change_bit(&path, *bytes, *bit, *on)),
            Written::Elements { count, bytes } => {
                let room = self.room()?.saturating_sub(WRITE_OVERHEAD + path.len());
                if bytes.len() > room {
                    let reason =
                        format!("{} bytes are more than the controller takes at once: {room}", bytes.len());
                    return Err(refusal(reason));
                }
                (cip::WRITE, cip::write(&path, held, *count, bytes))
            }
        };
        let bytes = self.exchange(&request).await?;
        let answer = cip::answer(&bytes, service).map_err(|why| self.malformed(why))?;
        if answer.status.is_ok() {
            return Ok(());
        }
        if matches!(answer.status.general, 0x01 | 0x07) {
            self.connection = None;
        }
        Err(refused(&answer))
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let span = self.place(point)?.span;
        self.refresh().await?;
        let block = Block { group: 0, span, points: vec![(span, point)] };
        let mut round = Round { queue: VecDeque::from([Arc::new(block)]), ..Round::default() };
        let mut readings = Readings::default();
        while !(round.queue.is_empty() && round.alone.is_empty()) {
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

/// The connection, out of its place: a request that fails or is cut off half-way takes it along.
fn take(connection: &mut Option<Connection>) -> Result<Connection, DriverError> {
    connection.take().ok_or_else(|| DriverError::NotConnected("the connection was closed".into()))
}

#[cfg(test)]
mod tests;
