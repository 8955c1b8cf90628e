//! What is held of every epoch of every agent, and whether it is what the agent says it sent.
//!
//! Pure: changes in, state out. The same changes come from the writer after a sync and from a replay of the log, so
//! that what is counted is always derived from what is on disk.
//!
//! Invariant I3, checked here in production: where the received offsets are exactly those that an agent accounted
//! for, count and checksum are the agent's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use model::{Epoch, Offset, RangeSet, RecordId};
use proto::account::{Account, DeviceCounts};
use proto::log_record::AgentId;
use proto::sparkplug::EpochAccount;

use super::{DeviceAccount, EpochState};
use crate::catalogue::PointEntry;

/// Holes that one epoch may have; an agent that makes more is not believed any further.
pub(super) const EPOCH_RANGES_MAX: usize = 65_536;
/// Epochs of one agent: a restart every minute for a month.
pub(super) const AGENT_EPOCHS_MAX: usize = 65_536;
/// Highest offset that is believed: keeps sums of offsets away from the end of `u64`.
pub(super) const OFFSET_END_MAX: u64 = 1 << 62;

/// One step of the state; the writer makes it after a sync, the replay from a record.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A record of an agent of ours.
    Received {
        /// Whose.
        agent: AgentId,
        /// Which.
        id: RecordId,
        /// Its account over the hub's paths.
        account: Account,
        /// Its account over the agent's own paths.
        agent_account: Account,
        /// The agent's running account after it, if known.
        running: Option<Account>,
        /// By device and stream.
        counted: Counted,
    },
    /// A record of a foreign node: epoch and position of the plant log.
    Foreign {
        /// Whose.
        agent: AgentId,
        /// Which.
        id: RecordId,
        /// Its account.
        account: Account,
    },
    /// Offsets that will never come as data.
    Settled {
        /// Whose.
        agent: AgentId,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        range: Range<u64>,
        /// In quarantine, not lost.
        quarantined: bool,
    },
    /// What the agent says of an epoch.
    Reported {
        /// Whose.
        agent: AgentId,
        /// What.
        account: EpochAccount,
    },
}

/// What a record adds to the account of its device and stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Whether it came as history.
    pub(super) is_history: bool,
    /// A point of its device.
    pub(super) point: Option<Arc<PointEntry>>,
    /// What the agent counted at the device, as of this record.
    pub(super) counts: Option<DeviceCounts>,
}

/// An epoch's account just became a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// Whose.
    pub(super) agent: AgentId,
    /// Which epoch.
    pub(super) epoch: Epoch,
    /// The difference, in words.
    pub(super) why: String,
}

/// Everything held.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accounts {
    /// The log position up to which (exclusive) this counts.
    pub(super) position: u64,
    /// By agent.
    pub(super) agents: BTreeMap<AgentId, AgentBook>,
}

/// One agent's epochs.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentBook {
    /// Grows with every change, so that receipts know whether there is news.
    pub(super) version: u64,
    /// By epoch.
    pub(super) epochs: BTreeMap<Epoch, EpochBook>,
}

/// The version is no state.
impl PartialEq for AgentBook {
    fn eq(&self, other: &Self) -> bool {
        self.epochs == other.epochs
    }
}

/// One epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EpochBook {
    /// Numbered by the hub.
    pub(super) foreign: bool,
    /// Offsets received; for foreign epochs the span of positions.
    pub(super) ranges: RangeSet,
    /// Account of them over the hub's paths.
    pub(super) account: Account,
    /// Account of them over the agent's paths.
    pub(super) agent_account: Account,
    /// Offsets lost.
    pub(super) lost: RangeSet,
    /// Offsets in quarantine.
    pub(super) quarantined: RangeSet,
    /// The newest report.
    pub(super) reported: Option<EpochAccount>,
    /// What `lost` and `quarantined` must have held, once that can be known.
    pub(super) settled_account: Option<Account>,
    /// See [`EpochState::verified_end`].
    pub(super) verified_end: u64,
    /// See [`EpochState::mismatch`].
    pub(super) mismatch: Option<String>,
    /// See [`EpochState::history`].
    pub(super) history: u64,
    /// See [`EpochState::devices`].
    pub(super) devices: BTreeMap<String, DeviceAccount>,
}

impl Accounts {
    fn book(&mut self, agent: AgentId, epoch: Epoch) -> &mut EpochBook {
        let agent = self.agents.entry(agent).or_default();
        agent.version += 1;
        agent.epochs.entry(epoch).or_default()
    }

    /// One epoch, if anything is known of it.
    pub(super) fn epoch(&self, agent: AgentId, epoch: Epoch) -> Option<&EpochBook> {
        self.agents.get(&agent)?.epochs.get(&epoch)
    }

    /// Whether the record has been received.
    pub(super) fn has(&self, agent: AgentId, id: RecordId) -> bool {
        self.epoch(agent, id.epoch).is_some_and(|book| book.ranges.contains(id.offset.0))
    }

    /// Whether one more record would pass a bound: which.
    pub(super) fn refuses(&self, agent: AgentId, id: RecordId) -> Option<&'static str> {
        if id.offset.0 >= OFFSET_END_MAX {
            return Some("offset out of range");
        }
        let book = self.agents.get(&agent)?;
        match book.epochs.get(&id.epoch) {
            None if book.epochs.len() >= AGENT_EPOCHS_MAX => Some("too many epochs"),
            Some(book) if book.ranges.iter().len() >= EPOCH_RANGES_MAX => Some("too many holes"),
            _ => None,
        }
    }

    /// Offsets below `first_held` that neither came nor were settled.
    pub(super) fn missing_below(&self, agent: AgentId, epoch: Epoch, first_held: u64) -> Vec<Range<u64>> {
        let first_held = first_held.min(OFFSET_END_MAX);
        match self.epoch(agent, epoch) {
            None if first_held == 0 => Vec::new(),
            None => std::iter::once(0..first_held).collect(),
            Some(book) => book.settled().missing(0..first_held),
        }
    }

    /// Offsets of an epoch that has ended at `end` now, and reached further once: its agent has lost them since.
    pub(super) fn missing_beyond(&self, agent: AgentId, epoch: Epoch, end: u64) -> Vec<Range<u64>> {
        let Some(book) = self.epoch(agent, epoch) else { return Vec::new() };
        let known = book.reported.map_or(0, |reported| reported.end.min(OFFSET_END_MAX));
        if known > end { book.settled().missing(end..known) } else { Vec::new() }
    }

    /// Makes one step.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Received { agent, id, account, agent_account, running, counted } => {
                let book = self.book(*agent, id.epoch);
                let offset = id.offset.0;
                if !book.ranges.insert_one(offset) {
                    return;
                }
                book.account = book.account.plus(*account);
                book.agent_account = book.agent_account.plus(*agent_account);
                book.count(offset, account.count, counted);
                for settled in [&mut book.lost, &mut book.quarantined] {
                    if settled.contains(offset) {
                        settled.remove(offset..offset + 1); // it came after all
                        book.settled_account = None;
                    }
                }
                if let Some(total) = running {
                    book.report_total(id.epoch, offset + 1, *total);
                }
            }
            Change::Foreign { agent, id, account } => {
                let book = self.book(*agent, id.epoch);
                let Offset(at) = id.offset;
                let start = book.ranges.iter().next().map_or(at, |span| span.start.min(at));
                book.foreign = true;
                book.ranges = RangeSet::of(start..book.ranges.end().max(at + 1));
                book.account = book.account.plus(*account);
                book.agent_account = book.account;
                book.verified_end = book.ranges.end();
            }
            Change::Settled { agent, epoch, range, quarantined } => {
                let book = self.book(*agent, *epoch);
                let set = if *quarantined { &mut book.quarantined } else { &mut book.lost };
                set.insert(range.clone());
                if !quarantined {
                    book.quarantined.remove(range.clone()); // a person discarded it
                }
                book.settled_account = None;
            }
            Change::Reported { agent, account } => self.book(*agent, account.epoch).report(account),
        }
    }

    /// Compares the epochs that changed with what their agents say; returns those that just became wrong.
    pub(super) fn verify(&mut self, touched: &BTreeSet<(AgentId, Epoch)>) -> Vec<Mismatch> {
        let mut wrong = Vec::new();
        for (agent, epoch) in touched {
            let Some(book) = self.agents.get_mut(agent).and_then(|book| book.epochs.get_mut(epoch)) else {
                continue;
            };
            let before = book.mismatch.clone();
            book.verify();
            if let Some(why) = &book.mismatch
                && before.as_ref() != Some(why)
            {
                wrong.push(Mismatch { agent: *agent, epoch: *epoch, why: why.clone() });
            }
        }
        wrong
    }

    /// The agent's version, and of each epoch wanted what need not be sent (again).
    pub(super) fn settled(&self, agent: AgentId, epochs: &BTreeSet<Epoch>) -> (u64, Vec<(Epoch, RangeSet)>) {
        let Some(book) = self.agents.get(&agent) else { return (0, Vec::new()) };
        let settled = epochs.iter().filter_map(|epoch| Some((*epoch, book.epochs.get(epoch)?.settled())));
        (book.version, settled.collect())
    }
}

impl EpochBook {
    /// Received, lost or in quarantine.
    pub(super) fn settled(&self) -> RangeSet {
        let mut all = self.ranges.clone();
        all.extend(&self.lost);
        all.extend(&self.quarantined);
        all
    }

    fn count(&mut self, offset: u64, samples: u64, counted: &Counted) {
        if counted.is_history {
            self.history += samples;
        }
        let name = counted.point.as_ref().and_then(|point| point.definition.device.as_deref());
        let Some(name) = name else { return };
        if !self.devices.contains_key(name) {
            self.devices.insert(name.to_owned(), DeviceAccount::default());
        }
        let Some(device) = self.devices.get_mut(name) else { return };
        device.received += samples;
        if let Some(counts) = counted.counts
            && device.as_of <= offset
        {
            (device.as_of, device.counts) = (offset + 1, counts);
        }
    }

    /// Where every record is here: what was read and not left out is what came, device by device.
    fn verify_devices(&self) -> Option<String> {
        let counted = self.devices.iter().filter(|(_, device)| device.as_of > 0);
        let mut wrong = counted.filter(|(_, device)| device.counts.accepted() != device.received);
        wrong.next().map(|(name, DeviceAccount { counts, received, .. })| {
            format!(
                "device {name}: of {} values read and {} made by the agent, {} lay within dead bands, but {received} came",
                counts.read, counts.made, counts.dead_band
            )
        })
    }

    fn report(&mut self, account: &EpochAccount) {
        let total = account.total;
        if self.reported.is_none_or(|old| account.end >= old.end) {
            self.report_total(account.epoch, account.end, total);
        }
        if let Some(reported) = &mut self.reported
            && account.first_held >= reported.first_held
        {
            (reported.first_held, reported.before) = (account.first_held, account.before);
        }
    }

    fn report_total(&mut self, epoch: Epoch, end: u64, total: Account) {
        let end = end.min(OFFSET_END_MAX);
        let new = EpochAccount { epoch, first_held: 0, end, before: Account::default(), total };
        let reported = self.reported.get_or_insert(new);
        if end > reported.end {
            (reported.end, reported.total) = (end, total);
        } else if end == reported.end && total != reported.total {
            self.mismatch = Some(format!(
                "the agent gives two accounts of the offsets below {end}: {} and {}",
                words(reported.total),
                words(total)
            ));
        }
    }

    fn verify(&mut self) {
        let Some(reported) = self.reported else { return };
        if self.foreign || (reported.end <= self.verified_end && self.mismatch.is_none()) {
            return;
        }
        let whole = self.lost.is_empty() && self.quarantined.is_empty();
        let covered = if whole { self.ranges.clone() } else { self.settled() };
        if !covered.contains_range(&(0..reported.end)) || covered.end() > reported.end {
            return;
        }
        let apart = if whole {
            Account::default()
        } else {
            // What was lost can be computed once, and is then held against every later report.
            *self.settled_account.get_or_insert(reported.total.minus(self.agent_account))
        };
        let held = self.agent_account.plus(apart);
        if held == reported.total && apart.count <= u64::MAX / 2 {
            let devices = if whole { self.verify_devices() } else { None };
            (self.verified_end, self.mismatch) = (reported.end, devices);
        } else {
            self.mismatch = Some(format!(
                "offsets below {}: the agent accepted {}, the hub holds {}",
                reported.end,
                words(reported.total),
                words(self.agent_account)
            ));
        }
    }

    /// The public form.
    pub(super) fn state(&self, epoch: Epoch) -> EpochState {
        EpochState {
            epoch,
            foreign: self.foreign,
            ranges: self.ranges.clone(),
            account: self.account,
            agent_account: self.agent_account,
            lost: self.lost.clone(),
            quarantined: self.quarantined.clone(),
            reported: self.reported,
            verified_end: self.verified_end,
            history: self.history,
            devices: self.devices.clone(),
            mismatch: self.mismatch.clone(),
        }
    }
}

fn words(account: Account) -> String {
    format!("{} samples with checksum {:016x}", account.count, account.checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: AgentId = AgentId(1);
    const EPOCH: Epoch = Epoch(7);

    fn account(offset: u64) -> Account {
        Account { count: offset + 1, checksum: offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    fn running(end: u64) -> Account {
        (0..end).fold(Account::default(), |sum, offset| sum.plus(account(offset)))
    }

    fn received(offset: u64) -> Change {
        Change::Received {
            agent: AGENT,
            id: RecordId { epoch: EPOCH, offset: Offset(offset) },
            account: account(offset),
            agent_account: account(offset),
            running: Some(running(offset + 1)),
            counted: Counted::default(),
        }
    }

    fn lost(range: Range<u64>) -> Change {
        Change::Settled { agent: AGENT, epoch: EPOCH, range, quarantined: false }
    }

    fn apply(accounts: &mut Accounts, changes: &[Change]) -> Vec<Mismatch> {
        changes.iter().for_each(|change| accounts.apply(change));
        accounts.verify(&BTreeSet::from([(AGENT, EPOCH)]))
    }

    fn book(accounts: &Accounts) -> &EpochBook {
        accounts.epoch(AGENT, EPOCH).unwrap()
    }

    #[test]
    fn history_that_closes_a_hole_verifies_the_whole() {
        let mut accounts = Accounts::default();
        assert_eq!(apply(&mut accounts, &[received(0), received(1)]), []);
        assert_eq!(book(&accounts).verified_end, 2);
        assert_eq!(apply(&mut accounts, &[received(5), received(3), received(3), received(4)]), []);
        assert_eq!(book(&accounts).verified_end, 2);
        assert_eq!(apply(&mut accounts, &[received(2)]), []);
        assert_eq!((book(&accounts).verified_end, book(&accounts).account), (6, running(6)));
    }

    #[test]
    fn a_wrong_checksum_is_a_mismatch_and_told_once() {
        let mut accounts = Accounts::default();
        let mut wrong = received(0);
        if let Change::Received { running, .. } = &mut wrong {
            *running = Some(Account { count: 1, checksum: 5 });
        }
        assert_eq!(apply(&mut accounts, &[wrong]).len(), 1);
        assert_eq!(apply(&mut accounts, &[]), []);
        assert_eq!(book(&accounts).verified_end, 0);
    }

    #[test]
    fn lost_offsets_are_settled_and_later_reports_are_held_against_them() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.missing_below(AGENT, EPOCH, 3).first(), Some(&(0..3)));
        assert_eq!(apply(&mut accounts, &[lost(0..3), received(3)]), []);
        assert_eq!(book(&accounts).verified_end, 4);
        assert_eq!(book(&accounts).settled_account, Some(running(3)));
        assert_eq!(accounts.missing_below(AGENT, EPOCH, 3), []);
        let mut wrong = received(4);
        if let Change::Received { account, agent_account, .. } = &mut wrong {
            account.count += 1;
            agent_account.count += 1;
        }
        assert_eq!(apply(&mut accounts, &[wrong]).len(), 1);
    }

    #[test]
    fn what_was_lost_and_comes_after_all_is_received() {
        let mut accounts = Accounts::default();
        apply(&mut accounts, &[lost(0..2), received(2), received(1), received(0)]);
        assert!(book(&accounts).lost.is_empty());
        assert_eq!(book(&accounts).verified_end, 3);
    }

    #[test]
    fn bounds_hold_against_hostile_numbers() {
        let mut accounts = Accounts::default();
        let id = |epoch, offset| RecordId { epoch: Epoch(epoch), offset: Offset(offset) };
        assert_eq!(accounts.refuses(AGENT, id(1, u64::MAX)), Some("offset out of range"));
        for hole in 0..EPOCH_RANGES_MAX as u64 {
            accounts.apply(&received_at(hole * 2));
        }
        assert_eq!(accounts.refuses(AGENT, id(EPOCH.0, 1 << 40)), Some("too many holes"));
        assert_eq!(accounts.refuses(AGENT, id(8, 0)), None);
        assert_eq!(accounts.missing_below(AGENT, Epoch(9), u64::MAX).first(), Some(&(0..OFFSET_END_MAX)));
    }

    fn received_at(offset: u64) -> Change {
        let id = RecordId { epoch: EPOCH, offset: Offset(offset) };
        let none = Account::default();
        Change::Received {
            agent: AGENT,
            id,
            account: none,
            agent_account: none,
            running: None,
            counted: Counted::default(),
        }
    }
}
