//! What the outbox holds, per epoch: offsets, accounts, receipts and where to find a record.
//!
//! Only durable records are in here. `first_held ≤ receipted or not ≤ end`; an epoch that holds nothing more and is
//! not the current one is forgotten (but remembered by name, so that late receipts for it raise no alarm), unless policy
//! dropped of it what no receipt covered: then it stays, empty, until the hub has counted that as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use durable_log::Position;
use model::{Epoch, RangeSet};
use proto::account::Account;
use proto::receipt::Receipt;
use proto::sparkplug::EpochAccount;

/// A place is remembered each so many records: finding one costs at most so many reads.
const MARK_RECORDS: u64 = 256;

/// Epochs forgotten in this process, for late receipts; older ones are unknown again.
const FORGOTTEN_MAX: usize = 1024;

/// Epochs that are named although nothing of them is held; of more the oldest are forgotten.
const GONE_MAX: usize = 1024;

/// One epoch.
#[derive(Clone, Debug)]
pub struct EpochState {
    /// Which.
    pub epoch: Epoch,
    /// Offsets below are no longer on disk.
    pub first_held: u64,
    /// Durable end, exclusive.
    pub end: u64,
    /// Running account before `first_held`.
    pub before: Account,
    /// Running account at `end`.
    pub total: Account,
    /// What the hub holds.
    pub receipted: RangeSet,
    /// Offsets whose records were damaged on this disk: nobody can send them, and nothing waits for them. The hub counts
    /// them as lost once `first_held` is above them.
    gone: RangeSet,
    /// `(offset, position)`, ascending.
    marks: Vec<(u64, Position)>,
}

impl EpochState {
    fn new(epoch: Epoch) -> Self {
        EpochState {
            epoch,
            first_held: 0,
            end: 0,
            before: Account::default(),
            total: Account::default(),
            receipted: RangeSet::new(),
            gone: RangeSet::new(),
            marks: Vec::new(),
        }
    }

    /// A position at or before that of the offset; at most [`MARK_RECORDS`] sample records before it.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<Position> {
        let after = self.marks.partition_point(|(at, _)| *at <= offset);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at)).or_else(|| self.marks.first());
        mark.map(|(_, position)| *position)
    }

    /// What is held and not receipted.
    #[must_use]
    pub fn unreceipted(&self) -> Vec<Range<u64>> {
        self.to_send(self.first_held..self.end)
    }

    /// What of these offsets no receipt covers, and can still be read.
    #[must_use]
    pub fn to_send(&self, range: Range<u64>) -> Vec<Range<u64>> {
        if self.gone.is_empty() {
            return self.receipted.missing(range);
        }
        let mut apart = self.receipted.clone();
        apart.extend(&self.gone);
        apart.missing(range)
    }

    /// Offsets held by number whose records were damaged.
    #[must_use]
    pub fn gone(&self) -> &RangeSet {
        &self.gone
    }

    /// Whether a receipt has covered all that there ever was.
    fn is_settled(&self) -> bool {
        self.receipted.contains_range(&(0..self.end))
    }

    /// Nothing of it is held any more.
    fn hollow(&mut self) {
        (self.first_held, self.before) = (self.end, self.total);
        self.marks.clear();
    }

    fn account(&self) -> EpochAccount {
        EpochAccount {
            epoch: self.epoch,
            first_held: self.first_held,
            end: self.end,
            before: self.before,
            total: self.total,
        }
    }
}

/// Why a receipt was refused, in part or whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Epochs that this outbox never wrote.
    pub unknown_epochs: usize,
    /// Epochs whose ranges go beyond what was accepted.
    pub beyond_end: usize,
}

/// All epochs, in log order; the last is the current one.
#[derive(Debug)]
pub struct Epochs {
    list: Vec<EpochState>,
    forgotten: BTreeSet<Epoch>,
    /// The next receipt is the first one of a session.
    is_new_session: bool,
}

/// A durable sample record, as far as epochs care.
#[derive(Clone, Copy, Debug)]
pub struct RecordPlace {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its offset.
    pub offset: u64,
    /// Its place in the log.
    pub position: Position,
    /// Running account before it.
    pub before: Account,
    /// Running account after it.
    pub after: Account,
}

impl Epochs {
    /// Nothing held but the current epoch.
    #[must_use]
    pub fn new(current: Epoch) -> Self {
        Epochs { list: vec![EpochState::new(current)], forgotten: BTreeSet::new(), is_new_session: false }
    }

    /// Every epoch, oldest first.
    #[must_use]
    pub fn list(&self) -> &[EpochState] {
        &self.list
    }

    /// One epoch.
    #[must_use]
    pub fn get(&self, epoch: Epoch) -> Option<&EpochState> {
        self.list.iter().rev().find(|state| state.epoch == epoch)
    }

    /// The accounts for an NBIRTH.
    #[must_use]
    pub fn accounts(&self) -> Vec<EpochAccount> {
        self.list.iter().map(EpochState::account).collect()
    }

    /// Records held that no receipt covers.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.list.iter().flat_map(EpochState::unreceipted).map(|range| range.end - range.start).sum()
    }

    /// Whether anything from before this start is still held.
    #[must_use]
    pub fn holds_older(&self) -> bool {
        self.list.len() > 1
    }

    /// An epoch of which nothing is held any more, found while opening.
    pub fn add_gone(&mut self, epoch: Epoch, end: u64, total: Account) {
        if self.get(epoch).is_none() {
            let mut state = EpochState::new(epoch);
            (state.end, state.total) = (end, total);
            state.hollow();
            self.list.insert(self.list.len() - 1, state);
        }
    }

    /// What goes with everything before a record (`None`: with everything), without the hub knowing all of it.
    #[must_use]
    pub fn going_before(&self, next: Option<Epoch>) -> Vec<(Epoch, u64, Account)> {
        let going: Vec<&EpochState> =
            self.list.iter().take(self.stays(next)).filter(|state| !state.is_settled()).collect();
        let newest = going.len().saturating_sub(GONE_MAX);
        going.iter().skip(newest).map(|state| (state.epoch, state.end, state.total)).collect()
    }

    /// Index of the first epoch that stays when the log begins with a record of this one.
    fn stays(&self, next: Option<Epoch>) -> usize {
        let last = self.list.len() - 1;
        self.list.iter().position(|state| Some(state.epoch) == next).unwrap_or(last)
    }

    /// Takes a durable record into account. Records come in log order.
    pub fn add(&mut self, record: RecordPlace) {
        let at = match self.list.iter().rposition(|state| state.epoch == record.epoch) {
            Some(at) => at,
            None => {
                // An older epoch, found while opening: it stands before the current one.
                let mut state = EpochState::new(record.epoch);
                (state.first_held, state.end) = (record.offset, record.offset);
                (state.before, state.total) = (record.before, record.before);
                let at = self.list.len() - 1;
                self.list.insert(at, state);
                at
            }
        };
        let Some(state) = self.list.get_mut(at) else { return };
        if state.marks.last().is_none_or(|(offset, _)| record.offset >= offset + MARK_RECORDS) {
            state.marks.push((record.offset, record.position));
        }
        if record.offset > state.end {
            state.gone.insert(state.end..record.offset);
        }
        state.end = record.offset + 1;
        state.total = record.after;
    }

    /// Only these offsets can be read of an epoch; returns how many others there should be.
    pub fn keep_only(&mut self, present: &BTreeMap<Epoch, RangeSet>) -> u64 {
        let mut gone = 0;
        for state in &mut self.list {
            let nothing = RangeSet::new();
            let present = present.get(&state.epoch).unwrap_or(&nothing);
            for range in present.missing(state.first_held..state.end) {
                gone += state.gone.insert(range);
            }
        }
        gone
    }

    /// A session begins: its first receipt counts instead of all before it, because the hub may have been restored from
    /// an older copy since, and what is still here has to be sent again.
    pub fn begin_session(&mut self) {
        self.is_new_session = true;
    }

    /// Takes a receipt; what cannot be true is left out and counted. Returns whether anything new is covered.
    ///
    /// Of an earlier start's epoch it may name more than there is: then this log was restored from an older copy, and
    /// what there is of it is what the hub has.
    pub fn receive(&mut self, receipt: &Receipt) -> (bool, Refused) {
        if std::mem::take(&mut self.is_new_session) {
            self.list.iter_mut().for_each(|state| state.receipted = RangeSet::new());
        }
        let mut refused = Refused::default();
        let mut news = false;
        let current = self.list.last().map(|state| state.epoch);
        for (epoch, ranges) in &receipt.durable {
            match self.list.iter_mut().find(|state| state.epoch == *epoch) {
                Some(state) => {
                    let is_beyond = ranges.end() > state.end;
                    refused.beyond_end += usize::from(is_beyond);
                    if is_beyond && Some(*epoch) == current {
                        continue;
                    }
                    for range in ranges.iter().filter(|range| range.start < state.end) {
                        news |= state.receipted.insert(range.start..range.end.min(state.end)) > 0;
                    }
                }
                None if self.forgotten.contains(epoch) => {}
                None => refused.unknown_epochs += 1,
            }
        }
        for state in self.list.extract_if(.., |state| {
            state.first_held == state.end && Some(state.epoch) != current && state.is_settled()
        }) {
            forget(&mut self.forgotten, state.epoch);
        }
        (news, refused)
    }

    /// The log now begins at `first`, whose first sample record is `next` (`None`: there is none). With `keep_gone`, what
    /// [`Epochs::going_before`] told goes on being named.
    pub fn trimmed(&mut self, first: Position, next: Option<RecordPlace>, keep_gone: bool) {
        let stays = self.stays(next.map(|record| record.epoch));
        let mut dropped = Vec::new();
        for mut gone in self.list.drain(..stays) {
            if !keep_gone || gone.is_settled() {
                forget(&mut self.forgotten, gone.epoch);
            } else {
                gone.hollow();
                dropped.push(gone);
            }
        }
        dropped.drain(..dropped.len().saturating_sub(GONE_MAX));
        let kept = dropped.len();
        self.list.splice(0..0, dropped);
        let Some(state) = self.list.get_mut(kept) else { return };
        match next {
            Some(record) if record.epoch == state.epoch => {
                (state.first_held, state.before) = (record.offset, record.before);
                let cut = state.marks.partition_point(|(_, position)| *position < first);
                state.marks.drain(..cut);
                if state.marks.first().is_none_or(|(offset, _)| *offset > record.offset) {
                    state.marks.insert(0, (record.offset, record.position));
                }
            }
            _ => state.hollow(),
        }
    }
}

fn forget(forgotten: &mut BTreeSet<Epoch>, epoch: Epoch) {
    if forgotten.len() < FORGOTTEN_MAX {
        forgotten.insert(epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Epoch = Epoch(1);
    const B: Epoch = Epoch(2);

    fn place(epoch: Epoch, offset: u64, position: u64) -> RecordPlace {
        let account = |count| Account { count, checksum: count };
        let (before, after) = (account(offset), account(offset + 1));
        RecordPlace { epoch, offset, position: Position(position), before, after }
    }

    fn filled() -> Epochs {
        let mut epochs = Epochs::new(B);
        (3..1003).for_each(|offset| epochs.add(place(A, offset, 2 * offset)));
        (0..10).for_each(|offset| epochs.add(place(B, offset, 3000 + offset)));
        epochs
    }

    fn receipt(epoch: Epoch, range: Range<u64>) -> Receipt {
        Receipt { durable: vec![(epoch, RangeSet::of(range))], ..Receipt::default() }
    }

    #[test]
    fn opening_finds_what_is_held() {
        let epochs = filled();
        let [a, b] = &epochs.accounts()[..] else { panic!() };
        assert_eq!((a.epoch, a.first_held, a.end, a.before.count, a.total.count), (A, 3, 1003, 3, 1003));
        assert_eq!((b.epoch, b.first_held, b.end, b.before.count, b.total.count), (B, 0, 10, 0, 10));
        assert_eq!(epochs.backlog(), 1010);
        let at = epochs.get(A).unwrap().locate(600).unwrap().0 / 2;
        assert!(at <= 600 && 600 - at < MARK_RECORDS, "{at}");
    }

    #[test]
    fn receipts_that_cannot_be_true_are_refused() {
        let mut epochs = filled();
        assert_eq!(epochs.receive(&receipt(A, 3..100)), (true, Refused::default()));
        assert_eq!(epochs.receive(&receipt(A, 3..100)), (false, Refused::default()));
        let beyond = Refused { unknown_epochs: 0, beyond_end: 1 };
        assert_eq!(epochs.receive(&receipt(B, 0..11)), (false, beyond));
        let unknown = Refused { unknown_epochs: 1, beyond_end: 0 };
        assert_eq!(epochs.receive(&receipt(Epoch(9), 0..1)), (false, unknown));
        assert_eq!(epochs.get(A).unwrap().unreceipted(), vec![100..1003]);
        // The log was restored from an older copy: what is left of A is at the hub, and more.
        assert_eq!(epochs.receive(&receipt(A, 50..2000)), (true, beyond));
        assert_eq!(epochs.get(A).unwrap().unreceipted(), vec![]);
    }

    #[test]
    fn a_new_session_believes_only_its_own_receipts() {
        let mut epochs = filled();
        epochs.receive(&receipt(A, 3..500));
        epochs.receive(&receipt(B, 0..10));
        epochs.begin_session();
        assert_eq!(epochs.backlog(), 503, "until the hub has spoken");
        epochs.receive(&receipt(A, 3..400));
        assert_eq!(epochs.get(A).unwrap().unreceipted(), vec![400..1003]);
        assert_eq!(epochs.get(B).unwrap().unreceipted(), vec![0..10]);
        epochs.receive(&receipt(B, 0..10));
        assert_eq!(epochs.backlog(), 603);
    }

    #[test]
    fn trimming_moves_the_first_and_forgets_epochs() {
        let mut epochs = filled();
        epochs.trimmed(Position(1400), Some(place(A, 700, 1400)), true);
        let a = epochs.get(A).unwrap();
        assert_eq!((a.first_held, a.before.count), (700, 700));
        assert!(a.locate(701).unwrap() >= Position(1400));
        assert_eq!(epochs.going_before(Some(B)), [(A, 1003, place(A, 1002, 0).after)]);
        epochs.trimmed(Position(3000), Some(place(B, 0, 3000)), true);
        let a = epochs.get(A).unwrap();
        assert_eq!((a.first_held, a.end, a.before.count), (1003, 1003, 1003), "named until the hub knows");
        assert_eq!((epochs.backlog(), epochs.get(B).unwrap().first_held), (10, 0));
        epochs.receive(&receipt(A, 0..1003));
        assert!(epochs.get(A).is_none());
        assert_eq!(
            epochs.receive(&receipt(A, 3..1003)),
            (false, Refused::default()),
            "forgotten, not unknown"
        );
        epochs.trimmed(Position(3010), None, true);
        let b = epochs.get(B).unwrap();
        assert_eq!((b.first_held, b.end, b.before.count), (10, 10, 10));
        epochs.add(place(B, 10, 3010));
        assert_eq!(epochs.backlog(), 1);
        assert_eq!(epochs.get(B).unwrap().locate(10), Some(Position(3010)));
    }
}
