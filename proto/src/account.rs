//! The account of an epoch: how many samples, and an order-independent checksum over what they say (design §4.4).
//!
//! The hash of a sample covers offset, index, path, time, typed value and quality, so the sum of a set of rows
//! in a lake table can be compared with the sum that the agent kept, whatever order the rows are in.
//! Hashed bytes (little endian): offset u64, index u32, xxh3-64 of the path u64, time i64 µs, quality u32,
//! type code u8 (0 for no value), then the value: integers as i64/u64, Float as its f32 bits, Double as its f64
//! bits (every NaN as the canonical quiet NaN), Boolean as u8, DateTime as i64 µs, String and Bytes as they are.

use model::{Offset, Quality, Timestamp, Value};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Samples counted, and their hashes summed (wrapping).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// How many samples.
    pub count: u64,
    /// Wrapping sum of [`sample_hash`] over them.
    pub checksum: u64,
}

impl Account {
    /// Counts one sample.
    pub const fn add(&mut self, sample_hash: u64) {
        self.count += 1;
        self.checksum = self.checksum.wrapping_add(sample_hash);
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Account) -> Account {
        Account {
            count: self.count.wrapping_add(other.count),
            checksum: self.checksum.wrapping_add(other.checksum),
        }
    }

    /// What remains of `self` without `other`.
    #[must_use]
    pub const fn minus(self, other: Account) -> Account {
        Account {
            count: self.count.wrapping_sub(other.count),
            checksum: self.checksum.wrapping_sub(other.checksum),
        }
    }
}

/// What became of everything that a device's driver has read in one epoch of the agent's log, as of one record.
///
/// As of every record that says them: `read + made = dead_band + accepted`, where *accepted* is the device's samples in
/// records up to and including this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Readings that the driver handed over.
    pub read: u64,
    /// Of them, left out by the rule *dead band*.
    pub dead_band: u64,
    /// Pieces of input that the driver could not read and put into its quarantine; they are no readings.
    pub quarantined: u64,
    /// Samples that the agent made itself: Stale marks.
    pub made: u64,
}

impl DeviceCounts {
    /// How many samples of the device must have been accepted.
    #[must_use]
    pub const fn accepted(self) -> u64 {
        self.read.wrapping_add(self.made).wrapping_sub(self.dead_band)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: DeviceCounts) -> DeviceCounts {
        DeviceCounts {
            read: self.read.wrapping_add(other.read),
            dead_band: self.dead_band.wrapping_add(other.dead_band),
            quarantined: self.quarantined.wrapping_add(other.quarantined),
            made: self.made.wrapping_add(other.made),
        }
    }
}

/// Hash of a path, to be kept per point.
#[must_use]
pub fn path_hash(path: &str) -> u64 {
    xxh3_64(path.as_bytes())
}

/// Hash of one sample as described at the top of this file.
#[must_use]
pub fn sample_hash(
    offset: Offset,
    index: u32,
    path_hash: u64,
    time: Timestamp,
    value: Option<&Value>,
    quality: Quality,
) -> u64 {
    let mut head = [0u8; 33];
    head[..8].copy_from_slice(&offset.0.to_le_bytes());
    head[8..12].copy_from_slice(&index.to_le_bytes());
    head[12..20].copy_from_slice(&path_hash.to_le_bytes());
    head[20..28].copy_from_slice(&time.0.to_le_bytes());
    head[28..32].copy_from_slice(&quality.bits().to_le_bytes());
    head[32] = value.map_or(0, |v| v.data_type().code());
    let fixed = match value {
        None => return xxh3_64(&head),
        Some(Value::String(text)) => return joined(&head, text.as_bytes()),
        Some(Value::Bytes(bytes)) => return joined(&head, bytes),
        Some(Value::Int8(v)) => i64::from(*v).to_le_bytes(),
        Some(Value::Int16(v)) => i64::from(*v).to_le_bytes(),
        Some(Value::Int32(v)) => i64::from(*v).to_le_bytes(),
        Some(Value::Int64(v)) => v.to_le_bytes(),
        Some(Value::UInt8(v)) => u64::from(*v).to_le_bytes(),
        Some(Value::UInt16(v)) => u64::from(*v).to_le_bytes(),
        Some(Value::UInt32(v)) => u64::from(*v).to_le_bytes(),
        Some(Value::UInt64(v)) => v.to_le_bytes(),
        Some(Value::Float(v)) => {
            u64::from(if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).to_le_bytes()
        }
        Some(Value::Double(v)) => (if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() }).to_le_bytes(),
        Some(Value::Boolean(v)) => u64::from(*v).to_le_bytes(),
        Some(Value::DateTime(v)) => v.0.to_le_bytes(),
    };
    let mut whole = [0u8; 41];
    whole[..33].copy_from_slice(&head);
    whole[33..].copy_from_slice(&fixed);
    xxh3_64(&whole)
}

fn joined(head: &[u8], tail: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(head);
    hasher.update(tail);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_sample_changes_its_hash() {
        let hash = |offset, index, path, time, value: Option<Value>, quality| {
            sample_hash(Offset(offset), index, path_hash(path), Timestamp(time), value.as_ref(), quality)
        };
        let base = hash(1, 2, "a/b", 3, Some(Value::Double(4.0)), Quality::GOOD);
        let bad = Quality::bad(model::Reason::Timeout);
        let others = [
            hash(2, 2, "a/b", 3, Some(Value::Double(4.0)), Quality::GOOD),
            hash(1, 3, "a/b", 3, Some(Value::Double(4.0)), Quality::GOOD),
            hash(1, 2, "a/c", 3, Some(Value::Double(4.0)), Quality::GOOD),
            hash(1, 2, "a/b", 4, Some(Value::Double(4.0)), Quality::GOOD),
            hash(1, 2, "a/b", 3, Some(Value::Double(4.5)), Quality::GOOD),
            hash(1, 2, "a/b", 3, Some(Value::Float(4.0)), Quality::GOOD),
            hash(1, 2, "a/b", 3, None, Quality::GOOD),
            hash(1, 2, "a/b", 3, Some(Value::Double(4.0)), bad),
        ];
        assert!(others.iter().all(|other| *other != base));
        let text = |t: &str| hash(1, 2, "a", 3, Some(Value::String(t.into())), Quality::GOOD);
        assert_ne!(text("x"), text("y"));
        assert_eq!(
            hash(1, 2, "a", 3, Some(Value::Double(f64::NAN)), bad),
            hash(1, 2, "a", 3, Some(Value::Double(-f64::NAN)), bad)
        );
    }
}
