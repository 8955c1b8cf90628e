//! The table behind the live view: one slot per point id, and a version per slot and per block of slots. Pure.
//!
//! When does a sample replace the slot's value? Compare its source time with the slot's:
//! - a historical one only if it is later;
//! - a live one if it is not earlier, or the slot's time lies in the hub's future (some clock was wrong), or the
//!   sample is a fresh reading (accepted within [`FRESH_MICROS`] of its source time: the source's clock was set back).
//!   What remains is an old file arriving late: it does not hide newer values.
//!
//! Finding what changed since a version costs one comparison per block of 64 slots, plus the changed blocks.

use model::{PointId, Quality, Reason, Sample, SampleBatch, Timestamp, Value};

use super::LiveValue;

/// A live sample accepted this soon after its source time is a reading of now.
const FRESH_MICROS: i64 = 10_000_000;

/// Slots per block.
const BLOCK: usize = 64;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Latest {
    slots: Vec<Option<Slot>>,
    /// Version at which each slot last changed; 0: never.
    changed: Vec<u64>,
    /// The highest of each block.
    blocks: Vec<u64>,
    version: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    value: LiveValue,
    stale: bool,
}

impl Latest {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether anything changed.
    pub(super) fn apply(&mut self, batch: &SampleBatch, now: Timestamp) -> bool {
        let version = self.version + 1;
        let mut any = false;
        for sample in &batch.samples {
            if self.replaces(sample, batch, now) {
                let value = LiveValue {
                    time: sample.time,
                    arrival: batch.accepted_at,
                    value: sample.value.clone(),
                    quality: sample.quality,
                };
                self.put(sample.point, Slot { value, stale: false }, version);
                any = true;
            }
        }
        self.version = if any { version } else { self.version };
        any
    }

    fn replaces(&self, sample: &Sample, batch: &SampleBatch, now: Timestamp) -> bool {
        let Some(slot) = self.slot(sample.point) else { return true };
        let held = slot.value.time;
        if batch.is_historical {
            return sample.time > held;
        }
        sample.time >= held || held > now || batch.accepted_at.micros_since(sample.time).abs() <= FRESH_MICROS
    }

    pub(super) fn restore(&mut self, values: impl IntoIterator<Item = (PointId, LiveValue)>) -> bool {
        let version = self.version + 1;
        for (point, value) in values {
            if self.slot(point).is_none() {
                self.put(point, Slot { value, stale: false }, version);
                self.version = version;
            }
        }
        self.version == version
    }

    pub(super) fn mark(&mut self, points: &[PointId], stale: bool) -> bool {
        let version = self.version + 1;
        for &point in points {
            let Some(Some(slot)) = self.slots.get_mut(point.0 as usize) else { continue };
            if slot.stale != stale {
                slot.stale = stale;
                self.touch(point.0 as usize, version);
                self.version = version;
            }
        }
        self.version == version
    }

    pub(super) fn get(&self, point: PointId) -> Option<LiveValue> {
        self.slot(point).map(Slot::shown)
    }

    pub(super) fn held(&self, point: PointId) -> Option<LiveValue> {
        self.slot(point).map(|slot| slot.value.clone())
    }

    pub(super) fn snapshot(&self) -> Vec<(PointId, LiveValue)> {
        let numbered = self.slots.iter().zip(0..).filter_map(|(slot, n)| Some((PointId(n), slot.as_ref()?)));
        numbered.map(|(point, slot)| (point, slot.value.clone())).collect()
    }

    /// Gives points changed after `since` from slot `from` on until `take` says no; the slot to go on with, or `None`
    /// at the end.
    pub(super) fn changed(
        &self,
        since: u64,
        from: usize,
        mut take: impl FnMut(PointId, LiveValue) -> bool,
    ) -> Option<usize> {
        let mut index = from;
        while index < self.slots.len() {
            if self.blocks.get(index / BLOCK).is_some_and(|newest| *newest <= since) {
                index = (index / BLOCK + 1) * BLOCK;
                continue;
            }
            if self.changed.get(index).is_some_and(|version| *version > since)
                && let (Some(Some(slot)), Ok(number)) = (self.slots.get(index), u32::try_from(index))
                && !take(PointId(number), slot.shown())
            {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    fn slot(&self, point: PointId) -> Option<&Slot> {
        self.slots.get(point.0 as usize)?.as_ref()
    }

    fn put(&mut self, point: PointId, slot: Slot, version: u64) {
        let index = point.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
            self.changed.resize(index + 1, 0);
            self.blocks.resize(index / BLOCK + 1, 0);
        }
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(slot);
        }
        self.touch(index, version);
    }

    fn touch(&mut self, index: usize, version: u64) {
        if let (Some(slot), Some(block)) = (self.changed.get_mut(index), self.blocks.get_mut(index / BLOCK)) {
            *slot = version;
            *block = version;
        }
    }
}

impl Slot {
    /// The value with the stale mark folded in; a value that was bad stays bad, with its reason.
    fn shown(&self) -> LiveValue {
        let mut value = self.value.clone();
        if self.stale && (value.quality.is_good() || value.quality.class() == model::QualityClass::Uncertain)
        {
            value.quality = Quality::stale(Reason::NotConnected);
        }
        value
    }
}

// A slot is what 100 000 points cost the hub: keep it small.
const _: () =
    assert!(std::mem::size_of::<Option<Slot>>() <= 64 && std::mem::size_of::<Option<Value>>() <= 32);

#[cfg(test)]
mod tests {
    use model::{Epoch, Offset, RecordId};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

    fn batch(time: i64, accepted_at: i64, historical: bool, value: i64) -> SampleBatch {
        SampleBatch {
            id: RecordId { epoch: Epoch(1), offset: Offset(0) },
            accepted_at: Timestamp(accepted_at),
            is_historical: historical,
            samples: vec![Sample {
                point: PointId(70),
                time: Timestamp(time),
                value: Some(Value::Int64(value)),
                quality: Quality::GOOD,
            }],
        }
    }

    fn shown(latest: &Latest) -> i64 {
        match latest.get(PointId(70)).and_then(|live| live.value) {
            Some(Value::Int64(value)) => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn history_and_late_files_never_hide_newer_values() {
        let mut latest = Latest::default();
        assert!(latest.apply(&batch(100, 100, true, 1), NOW), "history is better than nothing");
        assert!(latest.apply(&batch(200, 200, false, 2), NOW));
        assert!(!latest.apply(&batch(150, 150, true, 3), NOW));
        assert!(!latest.apply(&batch(200, 200, true, 3), NOW));
        assert!(!latest.apply(&batch(150, 150 + 2 * FRESH_MICROS, false, 3), NOW), "an old file, read now");
        assert!(latest.apply(&batch(200, 200, false, 4), NOW), "the same time, said again");
        assert_eq!(shown(&latest), 4);
        assert!(latest.apply(&batch(300, 300, true, 5), NOW), "the newest there is, though history");
        assert_eq!(shown(&latest), 5);
    }

    #[test]
    fn a_clock_set_back_does_not_freeze_the_view() {
        let mut latest = Latest::default();
        let ahead = NOW.0 + 3_600_000_000;
        latest.apply(&batch(ahead, ahead, false, 1), NOW);
        assert!(
            latest.apply(&batch(NOW.0 - 1, NOW.0 + FRESH_MICROS * 3, false, 2), NOW),
            "the held time is ahead of us"
        );
        let hour_ago = NOW.0 - 3_600_000_000;
        assert!(
            latest.apply(&batch(hour_ago, hour_ago + 5, false, 3), NOW),
            "a fresh reading of a clock set back"
        );
        assert_eq!(shown(&latest), 3);
    }

    #[test]
    fn stale_marks_come_and_go_without_touching_the_value() {
        let mut latest = Latest::default();
        latest.apply(&batch(100, 100, false, 1), NOW);
        assert!(latest.mark(&[PointId(70), PointId(5000)], true));
        assert!(!latest.mark(&[PointId(70)], true), "already marked");
        assert_eq!(latest.get(PointId(70)).unwrap().quality, Quality::stale(Reason::NotConnected));
        assert_eq!(latest.snapshot()[0].1.quality, Quality::GOOD, "a mark is no value");
        assert!(latest.mark(&[PointId(70)], false));
        assert_eq!(latest.get(PointId(70)).unwrap().quality, Quality::GOOD);
        latest.mark(&[PointId(70)], true);
        latest.apply(&batch(101, 101, false, 2), NOW);
        assert_eq!(latest.get(PointId(70)).unwrap().quality, Quality::GOOD);
    }
}
