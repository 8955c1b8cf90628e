//! The comparison itself: pure, over what was gathered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use model::{Epoch, RangeSet};
use proto::account::Account;

/// One epoch of one agent's log.
pub type Key = (String, Epoch);

/// Offsets, and the account of the samples in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Which records.
    pub offsets: RangeSet,
    /// Their samples; `None` where nobody could count them.
    pub account: Option<Account>,
}

/// What an agent says of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// One past the last record.
    pub end: u64,
    /// All samples below `end`.
    pub total: Account,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// From the agents; where only the hub is asked, what it received of them.
    pub accepted: BTreeMap<Key, Accepted>,
    /// In the table.
    pub table: BTreeMap<Key, Held>,
    /// Identities that the table holds more than once.
    pub doubles: BTreeMap<Key, u64>,
    /// In the hub's log, not yet in the table.
    pub hub_only: BTreeMap<Key, Held>,
    /// On the agent's disk, not yet in the hub's log.
    pub agent_only: BTreeMap<Key, Held>,
    /// Settled as lost, with the reasons.
    pub lost: BTreeMap<Key, (RangeSet, String)>,
    /// What the hub itself found wrong.
    pub broken: BTreeMap<Key, String>,
}

/// What is to be said of one agent and epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub agent: String,
    /// Which writable opening of its log.
    pub epoch: Epoch,
    /// The result.
    pub verdict: Verdict,
    /// Samples that the agent accepted; `None` if only the hub remembers the epoch.
    pub accepted: Option<u64>,
    /// Samples in the table.
    pub in_table: u64,
    /// Records in the hub's log behind the sink's cursor.
    pub in_hub_only: RangeSet,
    /// Records on the agent's disk only.
    pub in_agent_only: RangeSet,
    /// Records settled as lost.
    pub lost: RangeSet,
}

/// How it stands with one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is in the table, once, and says the same.
    Equal,
    /// Everything is somewhere on the way; what is in the table agrees so far.
    InFlight,
    /// As Equal or InFlight, except for records lost by policy: why.
    Lost(String),
    /// Something is missing, double or different: what.
    Mismatch(String),
}

/// All lines, and whether they balance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Sorted by agent and epoch.
    pub lines: Vec<Line>,
}

impl Balance {
    /// No mismatch anywhere, and at least one sample to speak of.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.lines.iter().all(|line| !matches!(line.verdict, Verdict::Mismatch(_)))
    }

    /// Whether everything is in the table already.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.lines.iter().all(|line| line.in_hub_only.is_empty() && line.in_agent_only.is_empty())
    }
}

/// Compares.
#[must_use]
pub fn balance(found: &Findings) -> Balance {
    let keys: BTreeSet<&Key> = found
        .accepted
        .keys()
        .chain(found.table.keys())
        .chain(found.hub_only.keys())
        .chain(found.agent_only.keys())
        .chain(found.lost.keys())
        .collect();
    Balance { lines: keys.into_iter().map(|key| line(found, key)).collect() }
}

fn line(found: &Findings, key: &Key) -> Line {
    let held = |map: &BTreeMap<Key, Held>| map.get(key).cloned().unwrap_or_default();
    let (table, hub_only, agent_only) = (held(&found.table), held(&found.hub_only), held(&found.agent_only));
    let (mut lost, why_lost) = found.lost.get(key).cloned().unwrap_or_default();
    table.offsets.iter().for_each(|range| lost.remove(range)); // lost to a new hub, while the table has it
    let accepted = found.accepted.get(key).copied();
    let verdict = mismatch(found, key, &table, &hub_only, &agent_only, &lost).map_or_else(
        || {
            if !lost.is_empty() {
                Verdict::Lost(why_lost)
            } else if hub_only.offsets.is_empty() && agent_only.offsets.is_empty() {
                Verdict::Equal
            } else {
                Verdict::InFlight
            }
        },
        Verdict::Mismatch,
    );
    Line {
        agent: key.0.clone(),
        epoch: key.1,
        verdict,
        accepted: accepted.map(|accepted| accepted.total.count),
        in_table: table.account.map_or(0, |account| account.count),
        in_hub_only: hub_only.offsets,
        in_agent_only: agent_only.offsets,
        lost,
    }
}

fn mismatch(
    found: &Findings,
    key: &Key,
    table: &Held,
    hub_only: &Held,
    agent_only: &Held,
    lost: &RangeSet,
) -> Option<String> {
    if let Some(why) = found.broken.get(key) {
        return Some(why.clone());
    }
    if let Some(doubles) = found.doubles.get(key).filter(|count| **count > 0) {
        return Some(format!("{doubles} rows stand in the table more than once"));
    }
    let mut covered = table.offsets.clone();
    for (place, offsets) in [("the hub's log", &hub_only.offsets), ("the agent's disk", &agent_only.offsets)]
    {
        if let Some(both) = offsets.iter().find(|range| covered.missing(range.clone()) != vec![range.clone()])
        {
            return Some(format!(
                "records in {} stand in the table although {place} says that they wait",
                show(&both)
            ));
        }
        covered.extend(offsets);
    }
    covered.extend(lost);
    let Accepted { end, total } = *found.accepted.get(key)?;
    let missing = covered.missing(0..end);
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().take(5).map(show).collect();
        let more = if missing.len() > 5 { " and more" } else { "" };
        return Some(format!("records {}{more} are missing", list.join(", ")));
    }
    if !lost.is_empty() {
        return None; // what was lost took its hashes with it
    }
    let sum = table.account.unwrap_or_default().plus(counted(hub_only)?).plus(counted(agent_only)?);
    if sum.count != total.count {
        return Some(format!("{} samples were accepted, {} are there", total.count, sum.count));
    }
    (sum.checksum != total.checksum).then(|| {
        format!(
            "the counts agree, the contents do not (checksum {:016x}, expected {:016x})",
            sum.checksum, total.checksum
        )
    })
}

/// The account; zero for nothing, `None` for something that nobody counted.
fn counted(held: &Held) -> Option<Account> {
    if held.offsets.is_empty() { Some(Account::default()) } else { held.account }
}

fn show(range: &Range<u64>) -> String {
    if range.end == range.start + 1 {
        range.start.to_string()
    } else {
        format!("[{}, {})", range.start, range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("plant/a".into(), Epoch(7))
    }

    fn held(range: Range<u64>) -> Held {
        let count = range.end - range.start;
        Held { offsets: RangeSet::of(range), account: Some(Account { count, checksum: count * 11 }) }
    }

    fn findings() -> Findings {
        let mut found = Findings::default();
        found.accepted.insert(key(), Accepted { end: 10, total: Account { count: 10, checksum: 110 } });
        found.table.insert(key(), held(0..6));
        found.hub_only.insert(key(), held(6..9));
        found.agent_only.insert(key(), held(9..10));
        found
    }

    fn verdict(found: &Findings) -> Verdict {
        balance(found).lines.remove(0).verdict
    }

    #[test]
    fn all_in_the_table_is_equal_and_on_the_way_is_in_flight() {
        assert_eq!(verdict(&findings()), Verdict::InFlight);
        let mut found = findings();
        (found.hub_only, found.agent_only) = Default::default();
        found.table.insert(key(), held(0..10));
        assert_eq!(verdict(&found), Verdict::Equal);
    }

    #[test]
    fn a_hole_a_double_or_another_content_is_a_mismatch() {
        let mut hole = findings();
        hole.hub_only.insert(key(), held(7..9));
        assert_eq!(verdict(&hole), Verdict::Mismatch("records 6 are missing".into()));
        let mut double = findings();
        double.doubles.insert(key(), 2);
        assert!(matches!(verdict(&double), Verdict::Mismatch(why) if why.starts_with("2 rows")));
        let mut content = findings();
        content.table.insert(key(), Held { account: Some(Account { count: 6, checksum: 1 }), ..held(0..6) });
        assert!(matches!(verdict(&content), Verdict::Mismatch(why) if why.contains("contents do not")));
        let mut count = findings();
        count.table.insert(key(), Held { account: Some(Account { count: 5, checksum: 66 }), ..held(0..6) });
        assert!(matches!(verdict(&count), Verdict::Mismatch(why) if why.starts_with("10 samples")));
        let mut ahead = findings();
        ahead.table.insert(key(), held(0..7));
        assert!(matches!(verdict(&ahead), Verdict::Mismatch(why) if why.contains("although")));
    }

    #[test]
    fn what_was_lost_by_policy_is_said_and_is_no_mismatch() {
        let mut found = findings();
        found.hub_only.insert(key(), held(7..9));
        found.lost.insert(key(), (RangeSet::of(6..7), "outbox full".into()));
        assert_eq!(verdict(&found), Verdict::Lost("outbox full".into()));
    }

    #[test]
    fn uncounted_records_in_flight_are_no_mismatch() {
        let mut found = findings();
        found.agent_only.insert(key(), Held { offsets: RangeSet::of(9..10), account: None });
        assert_eq!(verdict(&found), Verdict::InFlight);
    }
}
