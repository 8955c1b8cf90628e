//! What of the outbox was sent, what waits for a receipt, what has to be sent as history. Pure: time is told.
//!
//! A record is *wanted* by the history stream when it is held, below the live cursor, covered by no receipt, and not on
//! its way: sent less than [`RESEND_AFTER`] ago. Towards a foreign host, which sends no receipts, what was sent that
//! long ago on a session that still stands counts as handed over instead, and is not sent again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use model::{Epoch, RangeSet};
use tokio::time::Instant;

use crate::outbox::Epochs;

/// A record without a receipt is sent again after so long (design §4.10).
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(5);

/// Records sent within so long of each other share an entry.
const ENTRY: Duration = Duration::from_millis(100);

/// What was sent in this session.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    on_the_way: BTreeMap<Epoch, RangeSet>,
    /// Of those, what went as history.
    history: BTreeMap<Epoch, RangeSet>,
    sent: VecDeque<Sent>,
    handed: BTreeMap<Epoch, RangeSet>,
    /// Whether anything was sent.
    has_sent: bool,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    epoch: Epoch,
    range: Range<u64>,
}

impl Delivery {
    /// A new session: what was on its way in the last one is not any more.
    pub(crate) fn begin_session(&mut self) {
        self.on_the_way.clear();
        self.history.clear();
        self.sent.clear();
        self.has_sent = false;
    }

    /// Handed over in an earlier run.
    pub(crate) fn handed_before(&mut self, epoch: Epoch, range: Range<u64>) {
        self.handed.entry(epoch).or_default().insert(range);
    }

    /// Only receipts count from now on.
    pub(crate) fn forget_handed(&mut self) {
        self.handed.clear();
    }

    /// A record was given to the socket.
    pub(crate) fn sent(&mut self, now: Instant, epoch: Epoch, offset: u64) {
        self.has_sent = true;
        self.on_the_way.entry(epoch).or_default().insert_one(offset);
        if let Some(last) = self.sent.back_mut()
            && last.epoch == epoch
            && last.range.end == offset
            && now.duration_since(last.at) < ENTRY
        {
            last.range.end = offset + 1;
            return;
        }
        self.sent.push_back(Sent { at: now, epoch, range: offset..offset + 1 });
    }

    /// As [`Delivery::sent`], on the history stream.
    pub(crate) fn sent_history(&mut self, now: Instant, epoch: Epoch, offset: u64) {
        self.history.entry(epoch).or_default().insert_one(offset);
        self.sent(now, epoch, offset);
    }

    /// What was sent too long ago is not on its way any more.
    pub(crate) fn expire(&mut self, now: Instant, is_foreign: bool) {
        while let Some(oldest) = self.sent.front() {
            if now.duration_since(oldest.at) < RESEND_AFTER {
                break;
            }
            let Some(Sent { epoch, range, .. }) = self.sent.pop_front() else { break };
            for sent in [&mut self.on_the_way, &mut self.history] {
                if let Some(set) = sent.get_mut(&epoch) {
                    set.remove(range.clone());
                }
            }
            if is_foreign {
                self.handed.entry(epoch).or_default().insert(range);
            }
        }
    }

    /// The first range that the history stream has to send; of the current epoch only below `live_at`.
    pub(crate) fn wanted(
        &self,
        epochs: &Epochs,
        current: Epoch,
        live_at: u64,
    ) -> Option<(Epoch, Range<u64>)> {
        self.first_missing(epochs, current, live_at, true)
    }

    /// The first record that was not handed over: everything before it was.
    pub(crate) fn first_unhanded(
        &self,
        epochs: &Epochs,
        current: Epoch,
        live_at: u64,
    ) -> Option<(Epoch, u64)> {
        self.first_missing(epochs, current, live_at, false).map(|(epoch, range)| (epoch, range.start))
    }

    fn first_missing(
        &self,
        epochs: &Epochs,
        current: Epoch,
        live_at: u64,
        but_on_the_way: bool,
    ) -> Option<(Epoch, Range<u64>)> {
        let none = RangeSet::new();
        for state in epochs.list() {
            let end = if state.epoch == current { live_at.min(state.end) } else { state.end };
            if state.first_held >= end {
                continue;
            }
            let way = self.on_the_way.get(&state.epoch).filter(|_| but_on_the_way).unwrap_or(&none);
            let handed = self.handed.get(&state.epoch).unwrap_or(&none);
            for gap in state.to_send(state.first_held..end) {
                for gap in way.missing(gap) {
                    if let Some(range) = handed.missing(gap).into_iter().next() {
                        return Some((state.epoch, range));
                    }
                }
            }
        }
        None
    }

    /// Records of the history stream that were sent less than [`RESEND_AFTER`] ago and that no receipt covers yet.
    pub(crate) fn history_under_way(&self, epochs: &Epochs) -> u64 {
        let of = |(epoch, way): (&Epoch, &RangeSet)| {
            let state = epochs.get(*epoch)?;
            let open = way.iter().flat_map(|range| state.receipted.missing(range));
            Some(open.map(|range| range.end - range.start).sum::<u64>())
        };
        self.history.iter().filter_map(of).sum()
    }

    /// Whether something was sent in this session and the hub owes receipts for records held.
    pub(crate) fn is_outstanding(&self, epochs: &Epochs) -> bool {
        self.has_sent && epochs.backlog() > 0
    }

    /// Whether everything held is covered or handed over.
    pub(crate) fn is_settled(&self, epochs: &Epochs, current: Epoch) -> bool {
        self.first_unhanded(epochs, current, u64::MAX).is_none()
    }
}

/// A bucket of values per second.
#[derive(Debug)]
pub(crate) struct Tokens {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Tokens {
    /// Full; it holds a tenth of a second's worth.
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = per_second as f64;
        Tokens { rate, level: rate / 10.0, at: now }
    }

    /// How many values may be sent now; 0 while a large record is still being paid.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to at least 0, and small"
    )]
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.rate).min((self.rate / 10.0).max(1.0));
        self.level.max(0.0) as usize
    }

    /// Takes what was sent; it may go below zero by one record.
    pub(crate) fn take(&mut self, values: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a record's samples")]
        let values = values as f64;
        self.level -= values;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::RecordPlace;
    use durable_log::Position;
    use proto::account::Account;
    use proto::receipt::Receipt;

    const OLD: Epoch = Epoch(1);
    const NOW: Epoch = Epoch(2);

    fn epochs() -> Epochs {
        let mut epochs = Epochs::new(NOW);
        for (epoch, end) in [(OLD, 10), (NOW, 20)] {
            for offset in 0..end {
                let (before, after) = (Account::default(), Account::default());
                epochs.add(RecordPlace { epoch, offset, position: Position(offset), before, after });
            }
        }
        epochs
    }

    fn receipt(epoch: Epoch, range: Range<u64>) -> Receipt {
        Receipt { durable: vec![(epoch, RangeSet::of(range))], ..Receipt::default() }
    }

    #[test]
    fn history_is_what_no_receipt_covers_and_nothing_is_on_its_way() {
        let mut epochs = epochs();
        let mut delivery = Delivery::default();
        let start = Instant::now();
        assert_eq!(delivery.wanted(&epochs, NOW, 15), Some((OLD, 0..10)));
        delivery.sent(start, OLD, 0);
        (1..4).for_each(|offset| delivery.sent_history(start, OLD, offset));
        assert_eq!(delivery.wanted(&epochs, NOW, 15), Some((OLD, 4..10)));
        assert_eq!(delivery.history_under_way(&epochs), 3);
        epochs.receive(&receipt(OLD, 4..10));
        assert_eq!(delivery.wanted(&epochs, NOW, 15), Some((NOW, 0..15)));
        (15..20).for_each(|offset| delivery.sent(start, NOW, offset));
        (0..15).for_each(|offset| delivery.sent(start + Duration::from_secs(1), NOW, offset));
        assert_eq!(delivery.wanted(&epochs, NOW, 20), None);
        assert!(delivery.is_outstanding(&epochs));
        delivery.expire(start + RESEND_AFTER, false);
        assert_eq!(delivery.wanted(&epochs, NOW, 20), Some((OLD, 0..4)), "5 s without a receipt");
        assert_eq!(delivery.history_under_way(&epochs), 0, "nor do they fill the window");
        epochs.receive(&receipt(OLD, 0..10));
        assert_eq!(delivery.wanted(&epochs, NOW, 20), Some((NOW, 15..20)));
        epochs.receive(&receipt(NOW, 0..20));
        assert_eq!(delivery.wanted(&epochs, NOW, 20), None);
        assert!(delivery.is_settled(&epochs, NOW) && !delivery.is_outstanding(&epochs));
    }

    #[test]
    fn a_foreign_host_gets_everything_once() {
        let epochs = epochs();
        let mut delivery = Delivery::default();
        let start = Instant::now();
        (0..10).for_each(|offset| delivery.sent(start, OLD, offset));
        delivery.begin_session(); // the link broke within 5 s: nobody knows what arrived
        assert_eq!(delivery.wanted(&epochs, NOW, 0), Some((OLD, 0..10)));
        (0..10).for_each(|offset| delivery.sent(start, OLD, offset));
        delivery.expire(start + RESEND_AFTER, true);
        assert_eq!(delivery.wanted(&epochs, NOW, 0), None);
        assert_eq!(delivery.first_unhanded(&epochs, NOW, 20), Some((NOW, 0)));
    }

    #[test]
    fn tokens_bound_the_rate() {
        let start = Instant::now();
        let mut tokens = Tokens::new(1_000, start);
        assert_eq!(tokens.available(start), 100);
        tokens.take(300);
        assert_eq!(tokens.available(start + Duration::from_millis(100)), 0);
        assert_eq!(tokens.available(start + Duration::from_millis(250)), 50);
        assert_eq!(tokens.available(start + Duration::from_secs(60)), 100);
    }
}
