//! Samples of one device cut into records: within the limits of samples, bytes and days (design §4.2).

use model::limits::{RECORD_BYTES_MAX, RECORD_DAYS_MAX, RECORD_SAMPLES_MAX};
use model::{Sample, Timestamp};

/// Encoded bytes of a sample beside its text or bytes: far above what any column takes.
const SAMPLE_BYTES: usize = 64;

/// Cuts samples into records, in order. `now` gives the day of implausible times, as in tables.
pub(super) fn into_records(samples: Vec<Sample>, now: Timestamp) -> Vec<Vec<Sample>> {
    let mut records = Vec::new();
    let mut record: Vec<Sample> = Vec::new();
    let mut bytes = 0;
    let (mut first_day, mut last_day) = (i64::MAX, i64::MIN);
    for sample in samples {
        let size = SAMPLE_BYTES + sample.value.as_ref().map_or(0, model::Value::heap_bytes);
        let day = if sample.time.is_plausible() { sample.time.day() } else { now.day() };
        let days = (first_day.min(day), last_day.max(day));
        let is_full = record.len() == RECORD_SAMPLES_MAX
            || bytes + size > RECORD_BYTES_MAX
            || days.1.saturating_sub(days.0) >= RECORD_DAYS_MAX;
        if is_full && !record.is_empty() {
            records.push(std::mem::take(&mut record));
            bytes = 0;
            (first_day, last_day) = (day, day);
        } else {
            (first_day, last_day) = days;
        }
        bytes += size;
        record.push(sample);
    }
    if !record.is_empty() {
        records.push(record);
    }
    records
}

const _: () = assert!(model::limits::VALUE_BYTES_MAX + SAMPLE_BYTES <= RECORD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PointId, Quality, Value};

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);
    const DAY: i64 = 86_400_000_000;

    fn sample(time: i64, bytes: usize) -> Sample {
        let value = Some(Value::Bytes(vec![0; bytes]));
        Sample { point: PointId(1), time: Timestamp(time), value, quality: Quality::GOOD }
    }

    fn sizes(samples: Vec<Sample>) -> Vec<usize> {
        into_records(samples, NOW).iter().map(Vec::len).collect()
    }

    #[test]
    fn every_limit_cuts() {
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes((0..10_000).map(|_| sample(NOW.0, 0)).collect()), [4096, 4096, 1808]);
        let large = model::limits::VALUE_BYTES_MAX;
        assert_eq!(sizes((0..3).map(|_| sample(NOW.0, large)).collect()), [1, 1, 1]);
        let days = |list: &[i64]| sizes(list.iter().map(|day| sample(NOW.0 + day * DAY, 0)).collect());
        assert_eq!(days(&[0, 15, 3]), [3]);
        assert_eq!(days(&[0, 16, 20, -1]), [1, 2, 1]);
        let implausible = vec![sample(NOW.0, 0), sample(0, 0), sample(i64::MAX, 0), sample(i64::MIN, 0)];
        assert_eq!(sizes(implausible), [4]);
    }
}
