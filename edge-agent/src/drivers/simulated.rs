//! `simulated`: values without a device, for trials, demos and load tests.
//!
//! A point's address is a function of time with options, all of which have defaults:
//!
//! ```text
//! sine(period=10s, amplitude=1, mean=0, phase=0)     phase as a part of the period, 0 to 1
//! ramp(period=10s, low=0, high=1)                     rises, then falls back at once
//! square(period=10s, low=0, high=1, duty=0.5)         high during the first `duty` of the period
//! counter(start=0, step=1)                            one step per read; goes on after a restart, wraps in its type
//! random_walk(start=0, step=1, seed=1, min=, max=)    starts anew after a restart
//! register(initial=0)                                 keeps what is written to it until the process ends
//! ```
//!
//! `sine`, `ramp` and `square` depend on the clock alone, so two runs agree. Every data type works: integers round
//! and saturate, a boolean is true from the middle of the function's range up, strings are the number as text,
//! date-times are the time of the read, bytes are the number's eight bytes, most significant first.
//!
//! Position (only if there is a counter): version byte 1, then the number of reads as 8 bytes, little endian.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use model::{DataType, Quality, Timestamp, Value};
use runtime::clock::Clock;
use runtime::config_file::{Problems, Section, parse_duration};

use super::{
    DeviceSetup, Driver, DriverError, DriverKind, Groups, Manners, NextRead, READINGS_MAX, Reading, Readings,
};
use crate::points::PointConfig;

/// The entry in the table of drivers.
pub(super) const KIND: DriverKind = DriverKind {
    name: "simulated",
    summary: "sine, ramp, square, counter, random walk, registers",
    validate,
};

const POSITION_VERSION: u8 = 1;
const FUNCTIONS: &str = "sine(…), ramp(…), square(…), counter(…), random_walk(…) or register(…)";

fn validate(_: &mut Section<'_>, setup: &DeviceSetup, problems: &mut Problems) -> Option<Box<dyn Driver>> {
    let mut points = Vec::with_capacity(setup.points.len());
    for point in &setup.points {
        match Signal::parse(point) {
            Ok(signal) => {
                points.push(SimulatedPoint { data_type: point.raw_type, group: point.group, signal });
            }
            Err(rule) => problems.push(setup.address_problem(point, rule)),
        }
    }
    (points.len() == setup.points.len()).then(|| {
        let clock = setup.clock.clone();
        Box::new(Simulated { clock, points, due: Groups::ALL, reads: 0, next: 0 }) as Box<dyn Driver>
    })
}

struct Simulated {
    clock: Clock,
    points: Vec<SimulatedPoint>,
    /// The poll groups of this round.
    due: Groups,
    /// Rounds of reading so far: what counters show.
    reads: u64,
    /// Where the round goes on, when it takes more than one call.
    next: usize,
}

struct SimulatedPoint {
    data_type: DataType,
    group: u8,
    signal: Signal,
}

#[async_trait]
impl Driver for Simulated {
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError> {
        self.next = 0;
        let Some(bytes) = resume else { return Ok(()) };
        self.reads = read_position(bytes).ok_or_else(|| {
            DriverError::Config(
                "the stored position is not one of this driver; give the device another name".into(),
            )
        })?;
        Ok(())
    }

    fn manners(&self) -> Manners {
        Manners { groups: true, paced: false }
    }

    fn select(&mut self, due: Groups) {
        self.due = due;
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        let time = self.clock.now();
        let end = self.points.len().min(self.next + READINGS_MAX);
        for (index, point) in self.points.iter_mut().enumerate().take(end).skip(self.next) {
            if !self.due.contains(point.group) {
                continue;
            }
            point.signal.step();
            into.list.push(point.reading(index, time, self.reads));
        }
        self.next = end;
        let done = end == self.points.len();
        if done {
            self.next = 0;
            self.reads = self.reads.wrapping_add(1);
        }
        if self.points.iter().any(|point| matches!(point.signal, Signal::Counter { .. })) {
            into.position = Some(write_position(self.reads));
        }
        Ok(if done { NextRead::OnSchedule } else { NextRead::AtOnce })
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError> {
        let point = self.points.get_mut(point).ok_or_else(|| refused("there is no such point"))?;
        let Signal::Register(held) = &mut point.signal else {
            return Err(refused("only register(…) points can be written"));
        };
        if value.data_type() != point.data_type {
            return Err(refused(&format!("the point's type is {}", point.data_type.name())));
        }
        *held = value.clone();
        Ok(())
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let simulated = self.points.get(point).ok_or_else(|| refused("there is no such point"))?;
        Ok(simulated.reading(point, self.clock.now(), self.reads))
    }

    async fn acknowledge(&mut self, _: &[u8]) -> Result<(), DriverError> {
        Ok(())
    }

    async fn close(&mut self) {}
}

fn refused(reason: &str) -> DriverError {
    DriverError::Refused { reason: reason.to_owned(), code: 0 }
}

fn write_position(reads: u64) -> Vec<u8> {
    let mut bytes = vec![POSITION_VERSION];
    bytes.extend_from_slice(&reads.to_le_bytes());
    bytes
}

fn read_position(bytes: &[u8]) -> Option<u64> {
    let (version, reads) = bytes.split_first()?;
    (*version == POSITION_VERSION).then(|| reads.try_into().ok().map(u64::from_le_bytes))?
}

impl SimulatedPoint {
    fn reading(&self, point: usize, time: Timestamp, reads: u64) -> Reading {
        let value = match &self.signal {
            Signal::Register(held) => held.clone(),
            Signal::Counter { start, step } =>
            {
                #[expect(clippy::cast_possible_wrap, reason = "counters wrap")]
                whole(start.wrapping_add(step.wrapping_mul(reads as i64)), self.data_type, time)
            }
            signal => number(signal.at(time), signal.middle(), self.data_type, time),
        };
        Reading { point, time: Some(time), value: Some(value), quality: Quality::GOOD }
    }
}

/// What a point does.
enum Signal {
    Sine { period: Period, amplitude: f64, mean: f64, phase: f64 },
    Ramp { period: Period, low: f64, high: f64 },
    Square { period: Period, low: f64, high: f64, duty: f64 },
    Counter { start: i64, step: i64 },
    RandomWalk { at: f64, middle: f64, step: f64, random: u64, min: f64, max: f64 },
    Register(Value),
}

/// A period in microseconds, never 0.
struct Period(i64);

impl Period {
    /// How much of the period has passed, from 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "a part of a period needs no more than 52 bits")]
    fn part(&self, time: Timestamp) -> f64 {
        time.0.rem_euclid(self.0) as f64 / self.0 as f64
    }
}

impl Signal {
    fn parse(point: &PointConfig) -> Result<Signal, String> {
        let (name, mut options) = Options::parse(&point.address)?;
        let signal = match name {
            "sine" => Signal::Sine {
                period: options.period()?,
                amplitude: options.number("amplitude", 1.0)?,
                mean: options.number("mean", 0.0)?,
                phase: options.number("phase", 0.0)?,
            },
            "ramp" => Signal::Ramp {
                period: options.period()?,
                low: options.number("low", 0.0)?,
                high: options.number("high", 1.0)?,
            },
            "square" => Signal::Square {
                period: options.period()?,
                low: options.number("low", 0.0)?,
                high: options.number("high", 1.0)?,
                duty: options.number("duty", 0.5)?,
            },
            "counter" => {
                Signal::Counter { start: options.integer("start", 0)?, step: options.integer("step", 1)? }
            }
            "random_walk" => Signal::random_walk(&mut options)?,
            "register" => Signal::Register(initial(options.take("initial"), point.raw_type)?),
            other => return Err(format!("unknown function {other:?}; write {FUNCTIONS}")),
        };
        options.finish(name)?;
        Ok(signal)
    }

    fn random_walk(options: &mut Options<'_>) -> Result<Signal, String> {
        let at = options.number("start", 0.0)?;
        let (min, max) = (options.number("min", f64::NEG_INFINITY)?, options.number("max", f64::INFINITY)?);
        if !(min <= at && at <= max) {
            return Err("start must lie between min and max".into());
        }
        let random = options.integer("seed", 1)?.cast_unsigned();
        Ok(Signal::RandomWalk { at, middle: at, step: options.number("step", 1.0)?, random, min, max })
    }

    /// Moves what does not depend on the clock.
    #[expect(clippy::cast_precision_loss, reason = "53 random bits are meant")]
    fn step(&mut self) {
        if let Signal::RandomWalk { at, step, random, min, max, .. } = self {
            let part = (split_mix(random) >> 11) as f64 / (1_u64 << 53) as f64;
            *at = (*at + *step * (2.0 * part - 1.0)).clamp(*min, *max);
        }
    }

    fn at(&self, time: Timestamp) -> f64 {
        match self {
            Signal::Sine { period, amplitude, mean, phase } => {
                mean + amplitude * (std::f64::consts::TAU * (period.part(time) + phase)).sin()
            }
            Signal::Ramp { period, low, high } => low + (high - low) * period.part(time),
            Signal::Square { period, low, high, duty } => {
                if period.part(time) < *duty {
                    *high
                } else {
                    *low
                }
            }
            Signal::RandomWalk { at, .. } => *at,
            Signal::Counter { .. } | Signal::Register(_) => 0.0,
        }
    }

    /// From where up a boolean is true.
    fn middle(&self) -> f64 {
        match self {
            Signal::Sine { mean, .. } => *mean,
            Signal::Ramp { low, high, .. } | Signal::Square { low, high, .. } => f64::midpoint(*low, *high),
            Signal::RandomWalk { middle, .. } => *middle,
            Signal::Counter { .. } | Signal::Register(_) => 0.5,
        }
    }
}

/// A well-known mixer (Steele, Lea and Flood 2014): enough for a walk, and the same everywhere.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounds and saturates on purpose"
)]
fn number(number: f64, middle: f64, data_type: DataType, time: Timestamp) -> Value {
    let rounded = number.round();
    match data_type {
        DataType::Int8 => Value::Int8(rounded as i8),
        DataType::Int16 => Value::Int16(rounded as i16),
        DataType::Int32 => Value::Int32(rounded as i32),
        DataType::Int64 => Value::Int64(rounded as i64),
        DataType::UInt8 => Value::UInt8(rounded as u8),
        DataType::UInt16 => Value::UInt16(rounded as u16),
        DataType::UInt32 => Value::UInt32(rounded as u32),
        DataType::UInt64 => Value::UInt64(rounded as u64),
        DataType::Float => Value::Float(number as f32),
        DataType::Double => Value::Double(number),
        DataType::Boolean => Value::Boolean(number >= middle),
        DataType::String => Value::String(number.to_string()),
        DataType::DateTime => Value::DateTime(time),
        DataType::Bytes => Value::Bytes(number.to_be_bytes().to_vec()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a counter wraps in its type"
)]
fn whole(count: i64, data_type: DataType, time: Timestamp) -> Value {
    match data_type {
        DataType::Int8 => Value::Int8(count as i8),
        DataType::Int16 => Value::Int16(count as i16),
        DataType::Int32 => Value::Int32(count as i32),
        DataType::Int64 => Value::Int64(count),
        DataType::UInt8 => Value::UInt8(count as u8),
        DataType::UInt16 => Value::UInt16(count as u16),
        DataType::UInt32 => Value::UInt32(count as u32),
        DataType::UInt64 => Value::UInt64(count as u64),
        DataType::Float => Value::Float(count as f32),
        DataType::Double => Value::Double(count as f64),
        DataType::Boolean => Value::Boolean(count % 2 != 0),
        DataType::String => Value::String(count.to_string()),
        DataType::DateTime => Value::DateTime(time),
        DataType::Bytes => Value::Bytes(count.to_be_bytes().to_vec()),
    }
}

fn initial(text: Option<&str>, data_type: DataType) -> Result<Value, String> {
    let wrong = |text: &str| format!("initial={text} is not a value of type {}", data_type.name());
    match (data_type, text) {
        (DataType::String, text) => Ok(Value::String(text.unwrap_or("").to_owned())),
        (DataType::Bytes, None) => Ok(Value::Bytes(Vec::new())),
        (DataType::DateTime, None) => Ok(Value::DateTime(Timestamp::default())),
        (DataType::Boolean, Some("true")) => Ok(Value::Boolean(true)),
        (DataType::Boolean, Some("false")) => Ok(Value::Boolean(false)),
        (DataType::Int64, Some(text)) => text.parse().map(Value::Int64).map_err(|_| wrong(text)),
        (DataType::UInt64, Some(text)) => text.parse().map(Value::UInt64).map_err(|_| wrong(text)),
        (_, text) => {
            let text = text.unwrap_or("0");
            let number: f64 = text.parse().map_err(|_| wrong(text))?;
            Value::from_f64(number, data_type).ok_or_else(|| wrong(text))
        }
    }
}

/// The options between the brackets, taken one by one.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn parse(address: &'a str) -> Result<(&'a str, Options<'a>), String> {
        let address = address.trim();
        let Some((name, rest)) = address.split_once('(') else {
            return Ok((address, Options(BTreeMap::new())));
        };
        let inner = rest.strip_suffix(')').ok_or("the closing bracket is missing")?;
        let mut options = BTreeMap::new();
        for option in inner.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("{option:?} is no option; write name=value"))?;
            if options.insert(key.trim(), value.trim()).is_some() {
                return Err(format!("{} is written twice", key.trim()));
            }
        }
        Ok((name.trim(), Options(options)))
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }

    fn number(&mut self, key: &str, default: f64) -> Result<f64, String> {
        let Some(text) = self.take(key) else { return Ok(default) };
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("{key}={text} must be a number"))
    }

    fn integer(&mut self, key: &str, default: i64) -> Result<i64, String> {
        let Some(text) = self.take(key) else { return Ok(default) };
        text.parse().map_err(|_| format!("{key}={text} must be a whole number"))
    }

    fn period(&mut self) -> Result<Period, String> {
        let period = match self.take("period") {
            Some(text) => parse_duration(text).map_err(|why| format!("period={text} {why}"))?,
            None => Duration::from_secs(10),
        };
        match i64::try_from(period.as_micros()) {
            Ok(micros) if micros > 0 => Ok(Period(micros)),
            _ => Err("period must be longer than 0".into()),
        }
    }

    fn finish(self, name: &str) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!("{name} knows no option {key:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver_conformance as conformance;
    use crate::driver_conformance::{Candidate, point, validated};

    fn setup(points: Vec<PointConfig>, clock: Clock) -> DeviceSetup {
        conformance::setup(points, clock, std::env::temp_dir().join("not-written"))
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let points = ["sine", "counter", "random_walk(start=3)", "register"];
        let points: Vec<_> = points.iter().map(|address| point(address, DataType::Int32)).collect();
        let clock = Clock::manual(Timestamp(1_000_000));
        let candidate =
            Candidate { driver: KIND.name, text: String::new(), setup: setup(points.clone(), clock.clone()) };
        conformance::validate_is_pure(&candidate);
        conformance::reads_are_bounded_and_typed(&candidate).await;
        conformance::close_then_open_works(&candidate).await;
        conformance::writes_are_read_back(&candidate, 3, &[Value::Int32(7), Value::Int32(-7)]).await;
        conformance::a_cut_off_read_does_no_harm(&candidate).await;
        let candidate = Candidate { setup: setup(points[..2].to_vec(), clock), ..candidate };
        conformance::positions_resume_exactly(&candidate).await;
    }

    #[tokio::test]
    async fn functions_follow_the_clock() {
        let clock = Clock::manual(Timestamp(0));
        let points = vec![
            point("sine(period=4s, amplitude=5, mean=20)", DataType::Double),
            point("ramp(period=4s, low=10, high=20)", DataType::Int32),
            point("square(period=4s)", DataType::Boolean),
            point("counter(start=254, step=1)", DataType::UInt8),
            point("register(initial=7)", DataType::UInt16),
        ];
        let mut driver = validated(&KIND, "", &setup(points, clock.clone())).unwrap();
        driver.open(None).await.unwrap();
        let mut seen = Vec::new();
        for second in 0..4 {
            clock.set(Timestamp(second * 1_000_000));
            let mut readings = Readings::default();
            assert_eq!(driver.read(&mut readings).await.unwrap(), NextRead::OnSchedule);
            seen.push(readings.list.into_iter().map(|reading| reading.value.unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(seen[0][0], Value::Double(20.0));
        assert_eq!(seen[1][0], Value::Double(25.0));
        assert_eq!(
            seen.iter().map(|row| row[1].as_f64().unwrap()).collect::<Vec<_>>(),
            [10.0, 13.0, 15.0, 18.0]
        );
        assert_eq!(seen.iter().map(|row| row[2].as_f64().unwrap()).collect::<Vec<_>>(), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(
            seen.iter().map(|row| row[3].as_f64().unwrap()).collect::<Vec<_>>(),
            [254.0, 255.0, 0.0, 1.0]
        );
        driver.write(4, &Value::UInt16(9)).await.unwrap();
        assert_eq!(driver.read_one(4).await.unwrap().value, Some(Value::UInt16(9)));
        assert!(matches!(driver.write(0, &Value::Double(1.0)).await, Err(DriverError::Refused { .. })));
    }

    #[tokio::test]
    async fn a_counter_goes_on_after_a_restart() {
        let points = vec![point("counter", DataType::Int64)];
        let mut position = None;
        for expected in 0..5 {
            let clock = Clock::manual(Timestamp(0));
            let mut driver = validated(&KIND, "", &setup(points.clone(), clock)).unwrap();
            driver.open(position.as_deref()).await.unwrap();
            let mut readings = Readings::default();
            driver.read(&mut readings).await.unwrap();
            assert_eq!(readings.list[0].value, Some(Value::Int64(expected)));
            position = readings.position;
        }
        let mut driver = validated(&KIND, "", &setup(points, Clock::machine())).unwrap();
        assert!(matches!(driver.open(Some(b"else")).await, Err(DriverError::Config(_))));
    }

    #[test]
    fn mistakes_are_all_named() {
        let addresses = [
            "sinus()",
            "sine(period=0s)",
            "sine(amp=1)",
            "ramp(low=x)",
            "square(",
            "register(initial=70000)",
        ];
        let points = addresses.iter().map(|address| point(address, DataType::UInt16)).collect();
        let problems = validated(&KIND, "", &setup(points, Clock::machine())).err().unwrap();
        assert_eq!(problems.list.len(), addresses.len());
        for (problem, address) in problems.list.iter().zip(addresses) {
            assert_eq!((problem.key.as_str(), problem.value.as_str()), ("address", address));
        }
    }

    #[tokio::test]
    async fn every_type_has_values_and_reads_are_bounded() {
        let types = DataType::ALL.into_iter();
        let mut points: Vec<_> =
            types.clone().map(|t| point("random_walk(step=3, min=-5, max=5)", t)).collect();
        points.extend(types.map(|t| point("register", t)));
        let few = points.clone();
        while points.len() <= READINGS_MAX {
            points.extend(few.iter().cloned());
        }
        let total = points.len();
        let mut driver = validated(&KIND, "", &setup(points, Clock::machine())).unwrap();
        driver.open(None).await.unwrap();
        let mut readings = Readings::default();
        assert_eq!(driver.read(&mut readings).await.unwrap(), NextRead::AtOnce);
        assert_eq!(readings.list.len(), READINGS_MAX);
        for (reading, point) in readings.list.iter().zip(few) {
            assert_eq!(reading.value.as_ref().unwrap().data_type(), point.raw_type);
        }
        let mut rest = Readings::default();
        assert_eq!(driver.read(&mut rest).await.unwrap(), NextRead::OnSchedule);
        assert_eq!((rest.list.len(), rest.list[0].point), (total - READINGS_MAX, READINGS_MAX));
    }
}
