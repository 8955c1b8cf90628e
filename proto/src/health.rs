//! How an agent's devices are, for consoles; and looks at single points: what the device said, and what became of it.
//!
//! None of it is plant data: it has no identity, is kept nowhere and may get lost. A hub says in its receipts that it
//! understands it; agents send it to no other host (docs/specs/receipts.md §9).

use model::{Quality, Timestamp};
use prost::Message;

use crate::generated::sparkplug as wire;

/// Name of the NCMD metric that asks for a look (type Bytes).
pub const LOOK_METRIC: &str = "Forebay/Look";

/// Encoded bytes of a report: what fits a packet with room to spare.
pub const REPORT_BYTES_MAX: usize = 512 * 1024;
/// Devices that a report tells of.
pub const DEVICES_MAX: usize = 2000;
/// Answers in a report.
const ANSWERS_MAX: usize = 16;
/// Texts are cut to this: they are for people.
const TEXT_BYTES_MAX: usize = 256;
/// Encoded bytes of a request.
const LOOK_BYTES_MAX: usize = 4096;

/// What a device is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// Not yet read, or not answering, but not long enough to be down.
    #[default]
    Connecting,
    /// Answers.
    Up,
    /// Its points are Stale.
    Down,
}

impl DeviceState {
    /// `connecting`, `up`, `down`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Points by the quality of their last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the qualities' own names")]
pub struct PointCounts {
    pub good: u64,
    pub uncertain: u64,
    pub bad: u64,
    pub stale: u64,
    /// Not yet read.
    pub unread: u64,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceHealth {
    /// Sparkplug device id.
    pub name: String,
    /// Name of its driver.
    pub driver: String,
    /// What it is doing.
    pub state: DeviceState,
    /// Since when.
    pub since: Timestamp,
    /// Last successful read.
    pub last_read: Option<Timestamp>,
    /// What went wrong last, until it goes right again.
    pub error: Option<String>,
    /// Whether its clock is off.
    pub is_off_clock: bool,
    /// Requests since the agent's start.
    pub requests: u64,
    /// Of them, without a usable answer.
    pub failed: u64,
    /// Requests per second, lately.
    pub per_second: f64,
    /// Half of the answers came within this, in µs; `None` where the driver sends no requests.
    pub p50_micros: Option<u64>,
    /// 99 of 100 came within this.
    pub p99_micros: Option<u64>,
    /// How its points are.
    pub points: PointCounts,
}

/// A question about a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Comes back in the answer.
    pub id: u64,
    /// Sparkplug device id.
    pub device: String,
    /// Metric name.
    pub metric: String,
}

/// What the agent knows of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookAnswer {
    /// Of the question.
    pub id: u64,
    /// Whether the agent reads such a point.
    pub is_known: bool,
    /// Where it is, in the driver's words.
    pub address: String,
    /// Its type there.
    pub raw_type: String,
    /// As the device gave it; `None` if there was no value.
    pub raw: Option<String>,
    /// Factor applied first.
    pub scale: Option<f64>,
    /// Added afterwards.
    pub offset: Option<f64>,
    /// Changes up to this size are not passed on.
    pub dead_band: Option<f64>,
    /// Lowest plausible value.
    pub min: Option<f64>,
    /// Highest plausible value.
    pub max: Option<f64>,
    /// After scale and offset, before the dead band.
    pub value: Option<String>,
    /// Its quality; `None` before the first reading.
    pub quality: Option<Quality>,
    /// Its time.
    pub time: Option<Timestamp>,
}

/// What an agent reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthReport {
    /// All its devices, or none of them where only questions are answered.
    pub devices: Vec<DeviceHealth>,
    /// Answers to looks.
    pub answers: Vec<LookAnswer>,
}

/// Why bytes are no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a report of health: {0}")]
pub struct HealthError(String);

impl HealthReport {
    /// The payload field's bytes: at most [`DEVICES_MAX`] devices, long texts cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let devices = self.devices.iter().take(DEVICES_MAX).map(encode_device).collect();
        let answers = self.answers.iter().take(ANSWERS_MAX).map(encode_answer).collect();
        let mut report = wire::HealthReport { devices, answers };
        while report.encoded_len() > REPORT_BYTES_MAX && !report.devices.is_empty() {
            report.devices.truncate(report.devices.len() / 2);
        }
        report.encode_to_vec()
    }

    /// Reads a report.
    pub fn decode(bytes: &[u8]) -> Result<HealthReport, HealthError> {
        let refused = |why: &str| HealthError(why.to_owned());
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(refused("longer than any"));
        }
        let report = wire::HealthReport::decode(bytes).map_err(|error| HealthError(error.to_string()))?;
        if report.devices.len() > DEVICES_MAX || report.answers.len() > ANSWERS_MAX {
            return Err(refused("too many entries"));
        }
        let devices = report.devices.into_iter().map(decode_device).collect();
        let answers = report.answers.into_iter().map(decode_answer).collect();
        Ok(HealthReport { devices, answers })
    }
}

impl Look {
    /// The metric's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (device, metric) = (Some(self.device.clone()), Some(self.metric.clone()));
        wire::Look { id: Some(self.id), device, metric }.encode_to_vec()
    }

    /// Reads a question.
    pub fn decode(bytes: &[u8]) -> Result<Look, HealthError> {
        if bytes.len() > LOOK_BYTES_MAX {
            return Err(HealthError("longer than any question".into()));
        }
        let look = wire::Look::decode(bytes).map_err(|error| HealthError(error.to_string()))?;
        Ok(Look {
            id: look.id(),
            device: look.device.unwrap_or_default(),
            metric: look.metric.unwrap_or_default(),
        })
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn encode_device(device: &DeviceHealth) -> wire::DeviceHealth {
    let count = |count: u64| Some(count).filter(|count| *count > 0);
    wire::DeviceHealth {
        name: Some(device.name.clone()),
        driver: Some(device.driver.clone()),
        state: Some(match device.state {
            DeviceState::Connecting => 0,
            DeviceState::Up => 1,
            DeviceState::Down => 2,
        }),
        since: Some(device.since.0),
        last_read: device.last_read.map(|time| time.0),
        error: device.error.as_deref().map(cut),
        is_off_clock: device.is_off_clock.then_some(true),
        requests: count(device.requests),
        failed: count(device.failed),
        per_second: Some(device.per_second).filter(|rate| *rate > 0.0),
        p50_micros: device.p50_micros,
        p99_micros: device.p99_micros,
        good: count(device.points.good),
        uncertain: count(device.points.uncertain),
        bad: count(device.points.bad),
        stale: count(device.points.stale),
        unread: count(device.points.unread),
    }
}

fn decode_device(device: wire::DeviceHealth) -> DeviceHealth {
    DeviceHealth {
        state: match device.state() {
            1 => DeviceState::Up,
            2 => DeviceState::Down,
            _ => DeviceState::Connecting,
        },
        since: Timestamp(device.since()),
        last_read: device.last_read.map(Timestamp),
        is_off_clock: device.is_off_clock(),
        requests: device.requests(),
        failed: device.failed(),
        per_second: Some(device.per_second()).filter(|rate| rate.is_finite()).unwrap_or_default(),
        p50_micros: device.p50_micros,
        p99_micros: device.p99_micros,
        points: PointCounts {
            good: device.good(),
            uncertain: device.uncertain(),
            bad: device.bad(),
            stale: device.stale(),
            unread: device.unread(),
        },
        error: device.error.as_deref().map(cut),
        driver: device.driver.as_deref().map(cut).unwrap_or_default(),
        name: device.name.unwrap_or_default(),
    }
}

fn encode_answer(answer: &LookAnswer) -> wire::LookAnswer {
    wire::LookAnswer {
        id: Some(answer.id),
        is_known: Some(answer.is_known),
        address: Some(cut(&answer.address)),
        raw_type: Some(cut(&answer.raw_type)),
        raw: answer.raw.as_deref().map(cut),
        scale: answer.scale,
        offset: answer.offset,
        dead_band: answer.dead_band,
        min: answer.min,
        max: answer.max,
        value: answer.value.as_deref().map(cut),
        quality: answer.quality.map(Quality::bits),
        time: answer.time.map(|time| time.0),
    }
}

fn decode_answer(answer: wire::LookAnswer) -> LookAnswer {
    let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
    LookAnswer {
        id: answer.id(),
        is_known: answer.is_known(),
        address: answer.address.as_deref().map(cut).unwrap_or_default(),
        raw_type: answer.raw_type.as_deref().map(cut).unwrap_or_default(),
        raw: answer.raw.as_deref().map(cut),
        scale: finite(answer.scale),
        offset: finite(answer.offset),
        dead_band: finite(answer.dead_band),
        min: finite(answer.min),
        max: finite(answer.max),
        value: answer.value.as_deref().map(cut),
        quality: answer.quality.and_then(Quality::from_bits),
        time: answer.time.map(Timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Reason;

    #[test]
    fn a_report_survives_and_long_texts_are_cut() {
        let device = DeviceHealth {
            name: "press-1".into(),
            driver: "modbus-tcp".into(),
            state: DeviceState::Down,
            since: Timestamp(-5),
            error: Some("ö".repeat(500)),
            requests: 7,
            failed: 2,
            per_second: 0.5,
            p99_micros: Some(1200),
            points: PointCounts { good: 3, stale: 1, ..PointCounts::default() },
            ..DeviceHealth::default()
        };
        let answer = LookAnswer {
            id: 9,
            is_known: true,
            address: "hr:1".into(),
            raw_type: "int16".into(),
            raw: Some("215".into()),
            scale: Some(0.1),
            value: Some("21.5".into()),
            quality: Some(Quality::uncertain(Reason::OutOfRange)),
            time: Some(Timestamp(5)),
            ..LookAnswer::default()
        };
        let report =
            HealthReport { devices: vec![device.clone(), DeviceHealth::default()], answers: vec![answer] };
        let mut read = HealthReport::decode(&report.encode()).unwrap();
        assert_eq!(read.devices[0].error.as_deref().map(str::len), Some(256));
        read.devices[0].error = device.error;
        assert_eq!(read, report);
        let look = Look { id: u64::MAX, device: "d".into(), metric: "a/b".into() };
        assert_eq!(Look::decode(&look.encode()), Ok(look));
    }

    #[test]
    fn a_report_is_bounded() {
        let devices =
            vec![DeviceHealth { error: Some("x".repeat(300)), ..DeviceHealth::default() }; DEVICES_MAX + 10];
        let bytes = HealthReport { devices, answers: Vec::new() }.encode();
        assert!(bytes.len() <= REPORT_BYTES_MAX, "{}", bytes.len());
        assert!(HealthReport::decode(&bytes).unwrap().devices.len() > 500);
        assert!(HealthReport::decode(&vec![0; REPORT_BYTES_MAX + 1]).is_err());
        let many = wire::HealthReport { answers: vec![wire::LookAnswer::default(); 17], devices: Vec::new() };
        assert!(HealthReport::decode(&many.encode_to_vec()).is_err());
    }

    #[test]
    fn any_bytes_are_a_report_or_an_error() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            HealthReport::decode(&bytes).ok();
            Look::decode(&bytes).ok();
        });
    }
}
