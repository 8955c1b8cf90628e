//! `ethernet-ip`: tags of Logix controllers (ControlLogix, CompactLogix, Micro800) by EtherNet/IP.
//!
//! Keys of the device: `address` ("host:port", port 44818 if left out), `slot` (0) or `route` ("1,0"; "none" for a controller
//! without backplane), `connected` (true), `size` (4000 bytes of a message, what is asked for), `timeout` ("1s"), `max_gap` (8
//! elements read in vain to save a read), `stop_check` ("2s", "0s": never). [`address`] explains a point's address, [`value`]
//! makes values of bytes, [`plan`] packs reads, [`cip`] and [`frame`] are the protocol, [`connection`] its transport,
//! [`browse`] lists what a controller has.
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
use model::{DataType, Quality, QualityClass, Reason, Value};
use runtime::config_file::{Problems, Section};
use tokio::time::Instant;

use super::{
    DeviceSetup, Driver, DriverError, DriverKind, Groups, Manners, NextRead, READINGS_MAX, Reading, Readings,
};
use crate::pace::Pace;
use address::Address;
use cip::{Held, Path, STRUCTURE, Status};
use connection::{Connection, Settings, refused};
use plan::{Block, Span};
use value::{Form, Written};

mod address;
pub mod browse;
mod cip;
mod connection;
mod frame;
mod plan;
mod route;
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
const STOP_CHECK_DEFAULT: Duration = Duration::from_secs(2);
/// What was read is handed over so often, though the round has not come to its end.
const ROUND_PART: Duration = Duration::from_secs(1);
/// What a write carries beside path and data.
const WRITE_OVERHEAD: usize = 2 + 2 + 2 + 2;
/// The longest data that is read in parts, and the most parts.
const DATA_BYTES_MAX: usize = 65_536;
const PARTS_MAX: usize = 1024;
/// Hints that are remembered as said, and structures whose kind is.
const HINTS_MAX: usize = 32;
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
    let stop_check = section.duration("stop_check", problems, Duration::ZERO..=Duration::from_secs(3600));
    let stop_check = stop_check.map_or(STOP_CHECK_DEFAULT, |found| found.value);
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
        stop_check: Some(stop_check).filter(|every| !every.is_zero()),
        held: vec![None; points.len()],
        points,
        tags: tags.list,
        blocks: Vec::new(),
        due: Groups::ALL,
        round: None,
        knows_several: true,
        texts: HashMap::new(),
        is_stopped: false,
        asked_at: None,
        hints: Vec::new(),
        connection: None,
    }))
}

/// A tag, or a member of one, without its last index.
struct Tag {
    name: String,
    path: Path,
    is_indexed: bool,
}

impl Tag {
    /// The path of its element, or of itself.
    fn at(&self, start: u32) -> Path {
        if self.is_indexed { self.path.clone().element(start) } else { self.path.clone() }
    }
}

/// Tags by their numbers.
#[derive(Default)]
struct Tags {
    list: Vec<Tag>,
    numbers: HashMap<(String, bool), usize>,
}

impl Tags {
    fn place(&mut self, address: &Address, data_type: DataType, group: u8) -> PointPlace {
        let is_indexed = address.index.is_some();
        let number =
            self.numbers.entry((address.name.to_ascii_lowercase(), is_indexed)).or_insert_with(|| {
                self.list.push(Tag { name: address.name.clone(), path: address.path.clone(), is_indexed });
                self.list.len() - 1
            });
        let form = match (address.bit, address.length) {
            (Some(bit), _) => Form::Bit(bit),
            (None, Some(length)) => Form::Bytes(length),
            (None, None) => Form::Whole,
        };
        let unit = match (form, data_type) {
            (Form::Bit(32..), _) => 8,
            (Form::Bit(_), _) => 4, // as most are
            (Form::Bytes(_), _) | (_, DataType::Boolean | DataType::Int8 | DataType::UInt8) => 1,
            (_, DataType::Int16 | DataType::UInt16) => 2,
            (_, DataType::Int32 | DataType::UInt32 | DataType::Float) => 4,
            (_, DataType::String) => 88, // as Logix' own
            _ => 8,
        };
        let count = address.length.unwrap_or(1);
        let span = Span { tag: *number, unit, start: address.index.unwrap_or(0), count };
        PointPlace { span, form, data_type, group }
    }
}

#[derive(Clone, Copy)]
struct PointPlace {
    span: Span,
    form: Form,
    data_type: DataType,
    group: u8,
}

/// What is left of a round of reading.
#[derive(Default)]
struct Round {
    queue: VecDeque<Arc<Block>>,
    /// What does not go together with others.
    alone: VecDeque<Arc<Block>>,
}

struct EtherNetIp {
    device: String,
    settings: Settings,
    pace: Pace,
    gap_max: u32,
    stop_check: Option<Duration>,
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
    /// Whether the controller was in program mode when it was asked last.
    is_stopped: bool,
    /// When that was; the question is not put again on a connection where it is not understood.
    asked_at: Option<Instant>,
    /// Codes whose meaning was said.
    hints: Vec<u32>,
    connection: Option<Connection>,
}

impl EtherNetIp {
    /// A refusal's meaning, once.
    fn hint(&mut self, code: u32, meaning: &str, span: Span) {
        if !self.hints.contains(&code) && self.hints.len() < HINTS_MAX {
            self.hints.push(code);
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
        let Some(every) = self.stop_check else { return Ok(()) };
        if self.asked_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let identity = Path::instance(1, 1).attribute(5);
        let bytes = self.exchange(&cip::request(cip::ONE_ATTRIBUTE, &identity, &[])).await?;
        let answer = cip::answer(&bytes, cip::ONE_ATTRIBUTE).map_err(|why| self.malformed(why))?;
        let now = Instant::now();
        match answer.data.first().filter(|_| answer.status.is_ok()) {
            // Bits 4 to 7: 5 is a major fault, 7 is program mode.
            Some(low) => (self.is_stopped, self.asked_at) = (matches!(low >> 4, 5 | 7), Some(now)),
            // `elapsed` of a time to come is zero: not asked again on this connection.
            None => (self.is_stopped, self.asked_at) = (false, Some(now + Duration::from_secs(86_400 * 365))),
        }
        Ok(())
    }

    /// Several requests in as many messages as it takes; what each of them found, or nothing.
    async fn ask_types(&mut self, paths: &[Path]) -> Result<Vec<Option<Held>>, DriverError> {
        let room = self.room()?;
        let mut found = Vec::with_capacity(paths.len());
        let mut rest = paths;
        while !rest.is_empty() {
            let (mut fits, mut asked) = (0, cip::SEVERAL_ASKED);
            for path in rest {
                asked += cip::EACH + cip::READ_ASKED + path.len();
                if fits > 0 && asked > room || (fits + 1) * (cip::EACH + cip::READ_ANSWERED + 8) > room {
                    break;
                }
                fits += 1;
            }
            let (now, later) = rest.split_at(fits.clamp(1, rest.len()));
            rest = later;
            let requests: Vec<_> = now.iter().map(|path| cip::read(path, 1)).collect();
            let bytes = self.exchange(&cip::several(&requests)).await?;
            let answer = cip::answer(&bytes, cip::SEVERAL).map_err(|why| self.malformed(why))?;
            match answer.status.general {
                0 | 0x1e => {
                    let answers = cip::answers(answer.data, &vec![cip::READ; now.len()]);
                    let answers = answers.map_err(|why| self.malformed(why))?;
                    let is_there = |status: Status| status.is_ok() || status.is_partial();
                    let types = answers.iter().map(|answer| {
                        cip::typed(answer.data).filter(|_| is_there(answer.status)).map(|(held, _)| held)
                    });
                    found.extend(types);
                }
                _ => found.extend(vec![None; now.len()]),
            }
        }
        Ok(found)
    }

    /// Elements of an array of BOOL are bits of its double words, where the controller packs them.
    async fn place_bits(&mut self) -> Result<(), DriverError> {
        let is_element = |place: &PointPlace, tags: &[Tag]| {
            place.data_type == DataType::Boolean
                && place.form == Form::Whole
                && tags.get(place.span.tag).is_some_and(|tag| tag.is_indexed)
        };
        let mut numbers: Vec<usize> =
            self.points.iter().filter(|p| is_element(p, &self.tags)).map(|place| place.span.tag).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let paths: Vec<Path> =
            numbers.iter().filter_map(|tag| self.tags.get(*tag)).map(|tag| tag.path.clone()).collect();
        let found = self.ask_types(&paths).await?;
        let packed: Vec<usize> = numbers
            .into_iter()
            .zip(found)
            .filter(|(_, held)| held.is_some_and(|held| held.code == value::DWORD))
            .map(|(tag, _)| tag)
            .collect();
        for place in &mut self.points {
            if is_element(place, &self.tags) && packed.binary_search(&place.span.tag).is_ok() {
                let bit = u8::try_from(place.span.start % 32).unwrap_or_default();
                place.form = Form::Bit(bit);
                place.span = Span { start: place.span.start / 32, unit: 4, ..place.span };
            }
        }
        Ok(())
    }

    /// Whether a structure is a text: LEN and DATA, whatever its name and length.
    async fn learn_text(&mut self, handle: u16, span: Span) -> Result<(), DriverError> {
        if self.texts.contains_key(&handle) {
            return Ok(());
        }
        let path = self.path(span);
        let paths = [path.clone().name("LEN"), path.name("DATA").element(0)];
        let found = self.ask_types(&paths).await?;
        let codes: Vec<_> = found.iter().map(|held| held.map(|held| held.code)).collect();
        if self.texts.len() >= STRUCTURES_MAX {
            self.texts.clear();
        }
        self.texts.insert(handle, codes == [Some(value::DINT), Some(value::SINT)]);
        Ok(())
    }

    /// What a block's read brought.
    async fn took(
        &mut self,
        block: &Arc<Block>,
        held: Held,
        bytes: &[u8],
        into: &mut Readings,
    ) -> Result<(), DriverError> {
        let wants_text = |(_, point): &&(Span, usize)| {
            self.points.get(*point).is_some_and(|p| p.data_type == DataType::String && p.form == Form::Whole)
        };
        if held.code == STRUCTURE
            && let Some((span, _)) = block.points.iter().find(wants_text)
        {
            self.learn_text(held.handle, *span).await?;
        }
        let Some(elements) = value::elements(held, bytes, block.span.count.into()) else {
            let why = format!("{} bytes for {} elements", bytes.len(), block.span.count);
            return Err(self.malformed(why));
        };
        for (span, point) in &block.points {
            let Some(place) = self.points.get(*point).copied() else { continue };
            let from = usize::try_from(span.start.saturating_sub(block.span.start)).unwrap_or(usize::MAX);
            let own = elements.get(from..).and_then(|rest| rest.get(..span.count.into())).unwrap_or_default();
            if let (Some(known), Some(first)) = (self.held.get_mut(*point), own.first()) {
                *known = Some((held, first.len()));
            }
            let decoded =
                value::decode(held, own, place.form, place.data_type, |handle| self.is_text(handle));
            if decoded == Err(Reason::TypeMismatch) {
                let meaning = format!("the tag is of type {}", value::name(held.code));
                self.hint(0x1_0000 | u32::from(held.code), &meaning, *span);
            }
            let quality = match &decoded {
                Err(reason) => Quality::bad(*reason),
                Ok(_) if self.is_stopped => Quality::uncertain(Reason::DeviceStopped),
                Ok(_) => Quality::GOOD,
            };
            into.list.push(Reading { point: *point, time: None, value: decoded.ok(), quality });
        }
        Ok(())
    }

    fn is_text(&self, handle: u16) -> bool {
        self.texts.get(&handle).copied().unwrap_or(false)
    }

    /// A block was refused: halved where it is a range, else a quality.
    fn was_refused(&mut self, block: &Arc<Block>, status: Status, round: &mut Round, into: &mut Readings) {
        let may_be_a_part = matches!(status.general, 0x04 | 0x05 | 0x13 | 0x15 | 0xff);
        if may_be_a_part && let Some(halves) = block.split() {
            let halves = halves.map(Arc::new);
            self.blocks.retain(|known| !Arc::ptr_eq(known, block));
            self.blocks.extend(halves.clone());
            round.queue.extend(halves);
            return;
        }
        self.hint(status.code().into(), &status.meaning(), block.span);
        let quality = quality(status);
        let refused =
            |(_, point): &(Span, usize)| Reading { point: *point, time: None, value: None, quality };
        into.list.extend(block.points.iter().map(refused));
    }

    /// The next message of a round.
    async fn request(&mut self, round: &mut Round, into: &mut Readings) -> Result<(), DriverError> {
        if let Some(block) = round.alone.pop_front() {
            return self.read_alone(&block, round, into).await;
        }
        let points_max = READINGS_MAX.saturating_sub(into.list.len());
        let path = |span: Span| self.path(span).len();
        let taken = plan::next_request(&mut round.queue, self.room()?, points_max, path);
        if !self.knows_several {
            round.alone.extend(taken);
            return Ok(());
        }
        let requests: Vec<_> =
            taken.iter().map(|block| cip::read(&self.path(block.span), block.span.count)).collect();
        let bytes = self.exchange(&cip::several(&requests)).await?;
        let answer = cip::answer(&bytes, cip::SEVERAL).map_err(|why| self.malformed(why))?;
        match answer.status.general {
            0 | 0x1e => {}
            0x01 | 0x07 => {
                self.connection = None;
                return Err(refused(&answer));
            }
            general => {
                self.knows_several = general != 0x08;
                round.alone.extend(taken);
                return Ok(());
            }
        }
        let answers = cip::answers(answer.data, &vec![cip::READ; taken.len()]);
        let answers = answers.map_err(|why| self.malformed(why))?;
        for (block, answer) in taken.iter().zip(answers) {
            if answer.status.is_partial() || answer.status.general == 0x11 {
                round.alone.push_back(block.clone());
            } else if answer.status.is_ok() {
                let typed = cip::typed(answer.data).ok_or_else(|| self.malformed("a value without type"));
                let (held, bytes) = typed?;
                self.took(block, held, bytes, into).await?;
            } else {
                self.was_refused(block, answer.status, round, into);
            }
        }
        Ok(())
    }

    /// A block by itself, in as many parts as it takes.
    async fn read_alone(
        &mut self,
        block: &Arc<Block>,
        round: &mut Round,
        into: &mut Readings,
    ) -> Result<(), DriverError> {
        let (path, count) = (self.path(block.span), block.span.count);
        let (mut data, mut first): (Vec<u8>, Option<Held>) = (Vec::new(), None);
        for _ in 0..PARTS_MAX {
            let (service, request) = match u32::try_from(data.len()) {
                Ok(offset) if first.is_some() => (cip::READ_ON, cip::read_on(&path, count, offset)),
                _ => (cip::READ, cip::read(&path, count)),
            };
            let bytes = self.exchange(&request).await?;
            let answer = cip::answer(&bytes, service).map_err(|why| self.malformed(why))?;
            if matches!(answer.status.general, 0x01 | 0x07) {
                self.connection = None;
                return Err(refused(&answer));
            }
            if !answer.status.is_ok() && !answer.status.is_partial() {
                self.was_refused(block, answer.status, round, into);
                return Ok(());
            }
            let typed = cip::typed(answer.data).ok_or_else(|| self.malformed("a value without type"));
            let (held, part) = typed?;
            if first.is_some_and(|first| first != held) || data.len() + part.len() > DATA_BYTES_MAX {
                return Err(self.malformed("parts that do not belong together"));
            }
            first = Some(held);
            data.extend(part);
            if answer.status.is_ok() {
                return self.took(block, held, &data, into).await;
            }
            if part.is_empty() {
                return Err(self.malformed("a part without data"));
            }
        }
        Err(self.malformed("parts without end"))
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
        (self.due, self.round, self.asked_at, self.is_stopped) = (Groups::ALL, None, None, false);
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

fn quality(status: Status) -> Quality {
    match status {
        Status { general: 0x0f, .. } => Quality::bad(Reason::AccessDenied),
        Status { general: 0xff, extended: 0x2107 } => Quality::bad(Reason::TypeMismatch),
        _ => Quality::with_detail(QualityClass::Bad, Reason::DeviceException, status.code()),
    }
}

/// The connection, out of its place: a request that fails or is cut off half-way takes it along.
fn take(connection: &mut Option<Connection>) -> Result<Connection, DriverError> {
    connection.take().ok_or_else(|| DriverError::NotConnected("the connection was closed".into()))
}

#[cfg(test)]
mod tests;
