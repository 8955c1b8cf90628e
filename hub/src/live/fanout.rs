//! Cursors over the live view: a consumer asks what changed since it last asked, and gets last values only.

use std::sync::Arc;

use model::PointId;
use tokio::sync::watch;

use super::{LiveValue, Shared};

/// One consumer's place. Costs the same whether it reads every millisecond or never.
#[derive(Debug)]
pub struct ChangeCursor {
    shared: Arc<Shared>,
    version: watch::Receiver<u64>,
    /// Everything up to this version has been taken.
    seen: u64,
    /// A sweep cut off by `max`: the version when it began, and the slot to go on with.
    sweep: Option<(u64, usize)>,
}

impl ChangeCursor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let version = shared.version.subscribe();
        ChangeCursor { shared, version, seen: 0, sweep: None }
    }

    /// Waits until there is something to take; never resolves again once the view is gone.
    pub async fn wait(&mut self) {
        if self.sweep.is_some() {
            return;
        }
        let seen = self.seen;
        if self.version.wait_for(|newest| *newest > seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Up to `max` changed points with their last values, in order of their ids; empty if nothing changed.
    ///
    /// A point that changes while a sweep is cut off may come twice, with its newest value each time.
    pub fn take(&mut self, max: usize) -> Vec<(PointId, LiveValue)> {
        let latest = self.shared.read();
        let (until, from) = self.sweep.take().unwrap_or((latest.version(), 0));
        let mut taken = Vec::new();
        let rest = latest.changed(self.seen, from, |point, value| {
            let room = taken.len() < max;
            if room {
                taken.push((point, value));
            }
            room
        });
        match rest {
            Some(index) => self.sweep = Some((until, index)),
            None => self.seen = until,
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use model::{Quality, Timestamp, Value};
    use runtime::clock::Clock;

    use super::super::{Live, LiveValue};
    use super::*;

    fn value(number: i64) -> LiveValue {
        LiveValue {
            time: Timestamp(number),
            arrival: Timestamp(number),
            value: Some(Value::Int64(number)),
            quality: Quality::GOOD,
        }
    }

    fn put(live: &Live, point: u32, number: i64) {
        live.apply([&model::SampleBatch {
            id: model::RecordId { epoch: model::Epoch(1), offset: model::Offset(0) },
            accepted_at: Timestamp(number),
            is_historical: false,
            samples: vec![model::Sample {
                point: PointId(point),
                time: Timestamp(number),
                value: Some(Value::Int64(number)),
                quality: Quality::GOOD,
            }],
        }]);
    }

    #[tokio::test]
    async fn a_slow_consumer_sees_the_last_value_once() {
        let live = Live::new(Clock::machine());
        let mut cursor = live.changes();
        for number in 0..1000 {
            put(&live, 3, number);
            put(&live, 300, number);
        }
        cursor.wait().await;
        assert_eq!(cursor.take(10), [(PointId(3), value(999)), (PointId(300), value(999))]);
        assert!(cursor.take(10).is_empty());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), cursor.wait()).await.is_err());
    }

    #[test]
    fn a_sweep_in_pieces_misses_nothing() {
        let live = Live::new(Clock::machine());
        for point in 0..500 {
            put(&live, point, 1);
        }
        let mut cursor = live.changes();
        let mut seen = std::collections::BTreeMap::new();
        for round in 0..40 {
            put(&live, round * 7 % 500, i64::from(round) + 2); // behind and ahead of the sweep
            seen.extend(cursor.take(30));
        }
        while let taken @ [_, ..] = cursor.take(1000).as_slice() {
            seen.extend(taken.to_vec());
        }
        let wanted: std::collections::BTreeMap<_, _> = live.snapshot().into_iter().collect();
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_late_cursor_begins_with_everything() {
        let live = Live::new(Clock::machine());
        live.restore([(PointId(9), value(5))]);
        assert_eq!(live.changes().take(usize::MAX), [(PointId(9), value(5))]);
    }
}
