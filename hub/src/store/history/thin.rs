//! Thinning: of each slice of time the samples that its picture needs.
//!
//! Kept are the first, the lowest, the highest and the last good sample of a slice, and its first that is not good. A
//! sample left out lies between kept ones in time and in value, so thinning twice loses no extremes.

use model::{QualityClass, Sample};

/// Samples held while reading before they are thinned: an answer's memory.
const HELD_MAX: usize = 100_000;

/// Thins samples to a number of slices.
#[derive(Debug)]
pub(super) struct Thinner {
    buckets: usize,
    left_out: bool,
}

#[derive(Clone, Copy, Default)]
struct Slice {
    first: Option<usize>,
    last: Option<usize>,
    lowest: Option<(f64, usize)>,
    highest: Option<(f64, usize)>,
    not_good: Option<usize>,
}

impl Thinner {
    pub(super) const fn new(buckets: usize) -> Self {
        Thinner { buckets, left_out: false }
    }

    /// Whether anything was left out so far.
    pub(super) const fn left_out(&self) -> bool {
        self.left_out
    }

    /// Thins what was read so far, more finely than asked, when it is much; whether it was.
    pub(super) fn thin_if_large(&mut self, samples: &mut Vec<Sample>) -> bool {
        let is_large = samples.len() >= HELD_MAX;
        if is_large {
            samples.sort_by_key(|sample| sample.time);
            self.thin_to(samples, (self.buckets * 4).min(HELD_MAX / 10));
        }
        is_large
    }

    /// Thins samples, sorted by time, to the buckets asked for.
    pub(super) fn thin(&mut self, samples: &mut Vec<Sample>) {
        self.thin_to(samples, self.buckets);
    }

    fn thin_to(&mut self, samples: &mut Vec<Sample>, buckets: usize) {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
        if samples.len() <= buckets {
            return;
        }
        let (start, end) = (i128::from(first.time.0), i128::from(last.time.0));
        let width = ((end - start) / buckets as i128 + 1).max(1);
        let mut keep = vec![false; samples.len()];
        let mut at = 0;
        while at < samples.len() {
            let slice_of = |sample: &Sample| (i128::from(sample.time.0) - start) / width;
            let number = samples.get(at).map(slice_of);
            let length = samples[at..].iter().take_while(|sample| Some(slice_of(sample)) == number).count();
            let mut slice = Slice::default();
            for (index, sample) in samples.iter().enumerate().skip(at).take(length) {
                slice.take(index, sample);
            }
            for index in slice.kept() {
                keep[index] = true;
            }
            at += length;
        }
        let before = samples.len();
        let mut kept = keep.into_iter();
        samples.retain(|_| kept.next().unwrap_or(true));
        self.left_out |= samples.len() < before;
    }
}

impl Slice {
    fn take(&mut self, index: usize, sample: &Sample) {
        if matches!(sample.quality.class(), QualityClass::Bad | QualityClass::Stale) {
            self.not_good.get_or_insert(index);
            return;
        }
        self.first.get_or_insert(index);
        self.last = Some(index);
        let Some(number) = sample.value.as_ref().and_then(model::Value::as_f64).filter(|n| !n.is_nan())
        else {
            return;
        };
        if self.lowest.is_none_or(|(lowest, _)| number < lowest) {
            self.lowest = Some((number, index));
        }
        if self.highest.is_none_or(|(highest, _)| number > highest) {
            self.highest = Some((number, index));
        }
    }

    fn kept(&self) -> impl Iterator<Item = usize> {
        let extremes = [self.lowest, self.highest].into_iter().flatten().map(|(_, index)| index);
        [self.first, self.last, self.not_good].into_iter().flatten().chain(extremes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PointId, Quality, Reason, Timestamp, Value};

    fn sample(time: i64, value: f64) -> Sample {
        Sample {
            point: PointId(0),
            time: Timestamp(time),
            value: Some(Value::Double(value)),
            quality: Quality::GOOD,
        }
    }

    fn times(samples: &[Sample]) -> Vec<i64> {
        samples.iter().map(|sample| sample.time.0).collect()
    }

    #[test]
    fn a_slice_keeps_its_ends_and_extremes() {
        let values = [1.0, 2.0, 9.0, 3.0, 0.5, 2.0, 2.0, 2.0];
        let mut samples: Vec<Sample> = values.iter().enumerate().map(|(i, v)| sample(i as i64, *v)).collect();
        samples[6].quality = Quality::bad(Reason::Timeout);
        let mut thinner = Thinner::new(1);
        thinner.thin(&mut samples);
        assert_eq!(times(&samples), [0, 2, 4, 6, 7]);
        assert!(thinner.left_out());
    }

    #[test]
    fn thinning_on_the_way_loses_no_extreme() {
        let value = |i: i64| ((i * 7919) % 10_007) as f64;
        let mut held = Vec::new();
        let mut thinner = Thinner::new(50);
        for i in 0..400_000 {
            held.push(sample(i, value(i)));
            thinner.thin_if_large(&mut held);
            assert!(held.len() <= HELD_MAX);
        }
        thinner.thin(&mut held);
        assert!(held.len() <= 50 * 5, "{}", held.len());
        let peak = |samples: &[Sample]| {
            samples.iter().filter_map(|s| s.value.as_ref()?.as_f64()).fold(0.0, f64::max)
        };
        assert_eq!(peak(&held), (0..400_000).map(value).fold(0.0, f64::max));
        assert_eq!((held[0].time.0, held.last().unwrap().time.0), (0, 399_999));
    }

    #[test]
    fn few_samples_and_wild_times_are_left_alone() {
        let mut few = vec![sample(i64::MIN, 1.0), sample(0, 2.0), sample(i64::MAX, 3.0)];
        let mut thinner = Thinner::new(3);
        thinner.thin(&mut few);
        assert_eq!(few.len(), 3);
        let mut wild = vec![
            sample(i64::MIN, 1.0),
            sample(0, 2.0),
            sample(1, 1.5),
            sample(2, 2.0),
            sample(i64::MAX, 3.0),
        ];
        Thinner::new(2).thin(&mut wild);
        assert_eq!(wild.len(), 4);
    }
}
