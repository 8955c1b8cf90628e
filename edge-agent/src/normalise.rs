//! A reading becomes a sample: type rule, scale, range, plausible time, dead band. No I/O, no clock.
//!
//! Order of the rules; the first that finds fault decides the quality, a fault never hides the value that can be kept:
//!
//! 1. A value of another type than the point's raw type: no value, `bad:type-mismatch`.
//! 2. A text or byte value above [`VALUE_BYTES_MAX`]: no value, `bad:undecodable`.
//! 3. Scale and offset; a result that the type cannot hold: no value, `bad:out-of-range`.
//! 4. Good without a value: `bad:no-data`.
//! 5. Outside `min..=max` (a NaN is outside): `uncertain:out-of-range`, value kept.
//! 6. A source time outside 1990 to 2100: `uncertain:clock`, time kept.
//! 7. Good, and by [`ClockRules`] a clock is wrong: `uncertain:clock`, time kept. The source's own time must not be further
//!    ahead of the agent's clock than the bound, nor, where the device says so, behind it; a time that the agent gave must
//!    come from a clock that is within the bound of the hub's.
//!
//! Then the dead band: the first value, a change of quality or type, a change above the band, a value that comes or
//! goes, and the first sample after [`SILENCE_MAX`] pass; the rest is counted as filtered. Without a dead band all pass.

use std::cmp::Ordering;
use std::time::Duration;

use model::limits::VALUE_BYTES_MAX;
use model::{DataType, Quality, Reason, Timestamp, Value};

use crate::drivers::Reading;
use crate::points::PointConfig;

/// A point within its dead band is still confirmed so often, by source time.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A reading by the rules, before the dead band.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised {
    /// Source time, else the time of the read.
    pub time: Timestamp,
    /// Value of the definition's type.
    pub value: Option<Value>,
    /// Quality.
    pub quality: Quality,
}

/// How far clocks may be apart. A source that stores and forwards is rightly behind, so that is judged only where a device
/// asks for it.
#[derive(Clone, Copy, Debug)]
pub struct ClockRules {
    /// Of a source's time ahead of the agent's clock, and of the agent's clock to either side of the hub's, in µs.
    pub skew_max_micros: i64,
    /// Of a source's time behind the agent's clock, in µs.
    pub behind_max_micros: Option<i64>,
}

impl ClockRules {
    /// Rule 7; `ahead_of_hub` is how far the agent's clock is ahead of the hub's, if that is known.
    #[must_use]
    pub fn apply(
        &self,
        made: Normalised,
        has_source_time: bool,
        now: Timestamp,
        ahead_of_hub: Option<i64>,
    ) -> Normalised {
        let ahead = made.time.0.saturating_sub(now.0);
        let is_wrong = if has_source_time {
            ahead > self.skew_max_micros || self.behind_max_micros.is_some_and(|max| ahead < -max)
        } else {
            ahead_of_hub.is_some_and(|ahead| ahead.saturating_abs() > self.skew_max_micros)
        };
        if is_wrong && made.quality.is_good() {
            Normalised { quality: Quality::uncertain(Reason::Clock), ..made }
        } else {
            made
        }
    }
}

/// What normalising needs to know of a point.
#[derive(Clone, Debug)]
pub struct PointRules {
    raw_type: DataType,
    data_type: DataType,
    scale: Option<f64>,
    offset: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    dead_band: Option<f64>,
}

impl PointRules {
    /// The rules of a point.
    #[must_use]
    pub fn new(point: &PointConfig) -> Self {
        PointRules {
            raw_type: point.raw_type,
            data_type: point.definition.data_type,
            scale: point.scale,
            offset: point.offset,
            min: point.definition.min,
            max: point.definition.max,
            dead_band: point.definition.dead_band,
        }
    }

    /// Applies rules 1 to 6; `now` is the time of the read.
    #[must_use]
    pub fn apply(&self, reading: Reading, now: Timestamp) -> Normalised {
        let time = reading.time.unwrap_or(now);
        let (value, mut quality) = self.value(reading.value, reading.quality);
        if quality.is_good() && value.as_ref().is_some_and(|value| !self.in_range(value)) {
            quality = Quality::uncertain(Reason::OutOfRange);
        }
        if quality.is_good() && !time.is_plausible() {
            quality = Quality::uncertain(Reason::Clock);
        }
        Normalised { time, value, quality }
    }

    fn value(&self, raw: Option<Value>, quality: Quality) -> (Option<Value>, Quality) {
        let Some(raw) = raw else {
            return (None, if quality.is_good() { Quality::bad(Reason::NoData) } else { quality });
        };
        if raw.data_type() != self.raw_type {
            return (None, Quality::bad(Reason::TypeMismatch));
        }
        if raw.heap_bytes() > VALUE_BYTES_MAX {
            return (None, Quality::bad(Reason::Undecodable));
        }
        if self.scale.is_none() && self.offset.is_none() {
            return (Some(raw), quality);
        }
        let scaled =
            raw.as_f64().map(|number| number * self.scale.unwrap_or(1.0) + self.offset.unwrap_or(0.0));
        match scaled.and_then(|number| Value::from_f64(number, self.data_type)) {
            Some(value) => (Some(value), quality),
            None => (None, Quality::bad(Reason::OutOfRange)),
        }
    }

    /// A NaN is outside; what is no number has no range.
    fn in_range(&self, value: &Value) -> bool {
        let is_number = value.as_f64().is_some();
        let keeps = |limit: Option<f64>, outside: Ordering| {
            limit.is_none_or(|limit| value.compared_to(limit).is_some_and(|order| order != outside))
        };
        !is_number || (keeps(self.min, Ordering::Less) && keeps(self.max, Ordering::Greater))
    }

    /// The raw value that a command for `value` writes, or the rule that forbids it.
    pub fn raw_for_write(&self, value: &Value) -> Result<Value, String> {
        if value.data_type() != self.data_type {
            return Err(format!(
                "type: the point is {}, not {}",
                self.data_type.name(),
                value.data_type().name()
            ));
        }
        if value.heap_bytes() > VALUE_BYTES_MAX {
            return Err(format!("range: longer than {VALUE_BYTES_MAX} bytes"));
        }
        let number = if self.data_type.is_numeric() { value.as_f64() } else { None };
        if let Some(number) = number {
            if !number.is_finite() {
                return Err("range: not a finite number".into());
            }
            let beyond = |limit: Option<f64>, side| limit.filter(|at| value.compared_to(*at) == Some(side));
            if let Some(min) = beyond(self.min, Ordering::Less) {
                return Err(format!("range: {number} is below {min}"));
            }
            if let Some(max) = beyond(self.max, Ordering::Greater) {
                return Err(format!("range: {number} is above {max}"));
            }
        }
        let (Some(number), true) = (number, self.scale.is_some() || self.offset.is_some()) else {
            return Ok(value.clone());
        };
        let (offset, scale) = (self.offset.unwrap_or(0.0), self.scale.unwrap_or(1.0));
        let exact = (number - offset) / scale;
        let whole = exact.round();
        // 12.3 / 0.1 is not 123 in binary: a rest as small as these numbers' own is rounding, more is a mistake.
        let own_rest = 8.0 * f64::EPSILON * (number.abs() + offset.abs()) / scale.abs();
        let is_rounding = (exact - whole).abs() <= own_rest.clamp(1e-9, 0.01);
        let is_float = matches!(self.raw_type, DataType::Float | DataType::Double);
        let raw = if is_rounding && !is_float { whole } else { exact };
        Value::from_f64(raw, self.raw_type).ok_or_else(|| {
            format!("range: {number} is {exact} in the device, which {} cannot hold", self.raw_type.name())
        })
    }
}

/// The dead band of one point: remembers what passed last.
#[derive(Clone, Debug, Default)]
pub struct DeadBand {
    last: Option<Normalised>,
}

impl DeadBand {
    /// Whether the sample passes; if so, the following ones are compared with it.
    pub fn passes(&mut self, rules: &PointRules, next: &Normalised) -> bool {
        let passes = match (&self.last, rules.dead_band) {
            (None, _) | (_, None) => true,
            (Some(last), Some(band)) => differs(last, next, band),
        };
        if passes {
            self.last = Some(next.clone());
        }
        passes
    }

    /// What passed last.
    #[must_use]
    pub fn last(&self) -> Option<&Normalised> {
        self.last.as_ref()
    }

    /// Remembers a sample that was made elsewhere (a Stale mark), so that the next good one passes.
    pub fn replace(&mut self, made: Normalised) {
        self.last = Some(made);
    }
}

fn differs(last: &Normalised, next: &Normalised, band: f64) -> bool {
    let silence = next.time.0.abs_diff(last.time.0);
    if last.quality != next.quality || u128::from(silence) >= SILENCE_MAX.as_micros() {
        return true;
    }
    match (&last.value, &next.value) {
        (None, None) => false,
        (Some(a), Some(b)) if a.data_type() == b.data_type() && a.data_type().is_numeric() => {
            match (a.as_f64(), b.as_f64()) {
                // Equal bits are equal, also two NaNs and two infinities, whose difference is no number.
                (Some(x), Some(y)) => {
                    let is_within = (x - y).abs() <= band; // never with a NaN
                    !a.same(b) && !is_within
                }
                _ => true,
            }
        }
        (a, b) => a != b,
    }
}

#[cfg(test)]
mod tests;
