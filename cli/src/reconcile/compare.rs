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
    /// Rows that the table holds more than once, and their offsets.
    pub doubles: BTreeMap<Key, (u64, RangeSet)>,
    /// In the hub's log, not yet in the table.
    pub hub_only: BTreeMap<Key, Held>,
    /// On the agent's disk, not yet in the hub's log.
    pub agent_only: BTreeMap<Key, Held>,
    /// Settled as lost, with the reasons.
    pub lost: BTreeMap<Key, Vec<(RangeSet, String)>>,
    /// In the hub's quarantine: records that the sink refused, with their account, and payloads that nobody could decode,
    /// without one.
    pub kept: BTreeMap<Key, Vec<Kept>>,
    /// What the agent counted at its devices.
    pub devices: BTreeMap<Key, Vec<DeviceLine>>,
    /// What the hub itself found wrong.
    pub broken: BTreeMap<Key, String>,
}

/// What waits in the hub's quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which records.
    pub offsets: RangeSet,
    /// Their samples, where they can be counted.
    pub account: Option<Account>,
    /// What it is, and where to look.
    pub why: String,
}

/// What became of everything that a device read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLine {
    /// Its name.
    pub device: String,
    /// Values read.
    pub read: u64,
    /// Of them, within their dead band.
    pub dead_band: u64,
    /// Pieces of input that could not be read.
    pub quarantined: u64,
    /// Samples that the agent made.
    pub made: u64,
    /// Samples that the hub received.
    pub received: u64,
}

/// Some records of an epoch and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub offsets: RangeSet,
    /// Where.
    pub place: Place,
}

/// Where records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the table, once.
    Table,
    /// In the hub's log, not yet in the table.
    Hub,
    /// On the agent's disk, not yet in the hub's log.
    Agent,
    /// In the hub's quarantine: why.
    Quarantine(String),
    /// Lost by policy or by decision: why.
    Lost(String),
    /// Nowhere.
    Missing,
    /// In the table more than once.
    Double,
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
    /// Records in the hub's quarantine.
    pub kept: RangeSet,
    /// All of them by place, each range once.
    pub parts: Vec<Part>,
    /// What became of what was read, device by device, as far as the hub knows.
    pub devices: Vec<DeviceLine>,
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
    /// As Equal or InFlight, except for records in the hub's quarantine, which wait for a person: why.
    Kept(String),
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
        .chain(found.kept.keys())
        .collect();
    Balance { lines: keys.into_iter().map(|key| line(found, key)).collect() }
}

fn line(found: &Findings, key: &Key) -> Line {
    let held = |map: &BTreeMap<Key, Held>| map.get(key).cloned().unwrap_or_default();
    let (table, hub_only, agent_only) = (held(&found.table), held(&found.hub_only), held(&found.agent_only));
    let accepted = found.accepted.get(key).copied();
    // Lost to a new hub, or retried, while the table has it: it is there.
    let elsewhere = |offsets: &RangeSet| {
        let mut rest = offsets.clone();
        [&table.offsets, &hub_only.offsets]
            .iter()
            .for_each(|there| there.iter().for_each(|r| rest.remove(r)));
        rest
    };
    let (mut lost, mut kept, mut apart) = (RangeSet::new(), RangeSet::new(), Vec::new());
    let mut kept_account = Some(Account::default());
    let (mut why_lost, mut why_kept) = (String::new(), String::new());
    for waiting in found.kept.get(key).into_iter().flatten() {
        let offsets = elsewhere(&waiting.offsets);
        if offsets.is_empty() {
            continue;
        }
        kept.extend(&offsets);
        let known = waiting.account.filter(|_| offsets == waiting.offsets);
        kept_account = kept_account.zip(known).map(|(sum, own)| sum.plus(own));
        why_kept.clone_from(&waiting.why);
        apart.push(Part { offsets, place: Place::Quarantine(waiting.why.clone()) });
    }
    for (offsets, why) in found.lost.get(key).into_iter().flatten() {
        let mut offsets = elsewhere(offsets);
        [&lost, &kept].iter().for_each(|said| said.iter().for_each(|range| offsets.remove(range)));
        if offsets.is_empty() {
            continue;
        }
        lost.extend(&offsets);
        why_lost.clone_from(why);
        apart.push(Part { offsets, place: Place::Lost(why.clone()) });
    }
    let places = Places {
        table: &table,
        hub_only: &hub_only,
        agent_only: &agent_only,
        lost: &lost,
        kept: &kept,
        kept_account,
    };
    let parts = parts(found, key, &places, apart);
    let verdict = match mismatch(found, key, &places) {
        Some(why) => Verdict::Mismatch(why),
        None if !lost.is_empty() => Verdict::Lost(why_lost),
        None if !kept.is_empty() => Verdict::Kept(why_kept),
        None if hub_only.offsets.is_empty() && agent_only.offsets.is_empty() => Verdict::Equal,
        None => Verdict::InFlight,
    };
    Line {
        agent: key.0.clone(),
        epoch: key.1,
        verdict,
        accepted: accepted.map(|accepted| accepted.total.count),
        in_table: table.account.map_or(0, |account| account.count),
        in_hub_only: hub_only.offsets,
        in_agent_only: agent_only.offsets,
        lost,
        kept,
        parts,
        devices: found.devices.get(key).cloned().unwrap_or_default(),
    }
}

/// Where the records of an epoch are.
struct Places<'a> {
    table: &'a Held,
    hub_only: &'a Held,
    agent_only: &'a Held,
    lost: &'a RangeSet,
    kept: &'a RangeSet,
    /// Of what is kept; `None` where somebody could not count it.
    kept_account: Option<Account>,
}

impl Places<'_> {
    fn covered(&self) -> RangeSet {
        let mut covered = self.table.offsets.clone();
        [&self.hub_only.offsets, &self.agent_only.offsets, self.lost, self.kept]
            .iter()
            .for_each(|offsets| covered.extend(offsets));
        covered
    }
}

/// Every range of an epoch once, in order.
fn parts(found: &Findings, key: &Key, places: &Places<'_>, apart: Vec<Part>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut add = |offsets: RangeSet, place: Place| {
        for range in offsets.iter() {
            parts.push(Part { offsets: RangeSet::of(range), place: place.clone() });
        }
    };
    let mut once = places.table.offsets.clone();
    if let Some((_, doubled)) = found.doubles.get(key) {
        doubled.iter().for_each(|range| once.remove(range));
        add(doubled.clone(), Place::Double);
    }
    add(once, Place::Table);
    add(places.hub_only.offsets.clone(), Place::Hub);
    add(places.agent_only.offsets.clone(), Place::Agent);
    let end = found.accepted.get(key).map_or(0, |accepted| accepted.end);
    let mut missing = RangeSet::new();
    places.covered().missing(0..end).into_iter().for_each(|range| {
        missing.insert(range);
    });
    add(missing, Place::Missing);
    for Part { offsets, place } in apart {
        add(offsets, place);
    }
    parts.sort_by_key(|part| part.offsets.iter().next().map(|range| range.start));
    parts
}

fn mismatch(found: &Findings, key: &Key, places: &Places<'_>) -> Option<String> {
    if let Some(why) = found.broken.get(key) {
        return Some(why.clone());
    }
    if let Some((doubles, offsets)) = found.doubles.get(key).filter(|(count, _)| *count > 0) {
        let list: Vec<String> = offsets.iter().take(5).map(|range| show(&range)).collect();
        let more = if offsets.iter().len() > 5 { " and more" } else { "" };
        let records =
            if list.is_empty() { String::new() } else { format!(" (records {}{more})", list.join(", ")) };
        return Some(format!("{doubles} rows stand in the table more than once{records}"));
    }
    let Places { table, hub_only, agent_only, lost, kept_account, .. } = places;
    let mut seen = table.offsets.clone();
    for (place, offsets) in [("the hub's log", &hub_only.offsets), ("the agent's disk", &agent_only.offsets)]
    {
        if let Some(both) = offsets.iter().find(|range| seen.missing(range.clone()) != vec![range.clone()]) {
            return Some(format!(
                "records in {} stand in the table although {place} says that they wait",
                show(&both)
            ));
        }
        seen.extend(offsets);
    }
    let Accepted { end, total } = *found.accepted.get(key)?;
    let missing = places.covered().missing(0..end);
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().take(5).map(show).collect();
        let more = if missing.len() > 5 { " and more" } else { "" };
        return Some(format!("records {}{more} are missing", list.join(", ")));
    }
    if !lost.is_empty() {
        return None; // what was lost took its hashes with it
    }
    let sum = table.account.unwrap_or_default().plus(counted(hub_only)?).plus(counted(agent_only)?);
    let sum = sum.plus((*kept_account)?);
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
        double.doubles.insert(key(), (2, RangeSet::of(3..4)));
        assert!(
            matches!(verdict(&double), Verdict::Mismatch(why) if why.starts_with("2 rows") && why.contains("(records 3)"))
        );
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
        found.lost.insert(key(), vec![(RangeSet::of(6..7), "outbox full".into())]);
        assert_eq!(verdict(&found), Verdict::Lost("outbox full".into()));
        let line = balance(&found).lines.remove(0);
        let parts: Vec<(String, &Place)> =
            line.parts.iter().map(|part| (part.offsets.to_string(), &part.place)).collect();
        let lost = Place::Lost("outbox full".into());
        let expected =
            [("[0, 6)", &Place::Table), ("6", &lost), ("[7, 9)", &Place::Hub), ("9", &Place::Agent)];
        let places: Vec<&Place> = parts.iter().map(|(_, place)| *place).collect();
        assert_eq!(places, expected.map(|(_, place)| place), "{parts:?}");
    }

    #[test]
    fn what_waits_in_the_quarantine_is_counted_and_once_in_the_table_it_is_there() {
        let mut found = findings();
        (found.hub_only, found.agent_only) = Default::default();
        found.table.insert(key(), held(0..9));
        assert!(matches!(verdict(&found), Verdict::Mismatch(why) if why.contains("missing")));
        let offsets = RangeSet::of(9..10);
        let waiting = |account| vec![Kept { offsets: offsets.clone(), account, why: "r3".into() }];
        found.kept.insert(key(), waiting(Some(Account { count: 1, checksum: 11 })));
        assert_eq!(verdict(&found), Verdict::Kept("r3".into()));
        found.kept.insert(key(), waiting(Some(Account { count: 1, checksum: 12 })));
        assert!(matches!(verdict(&found), Verdict::Mismatch(why) if why.contains("contents do not")));
        found.kept.insert(key(), waiting(None));
        assert_eq!(verdict(&found), Verdict::Kept("r3".into()));
        found.table.insert(key(), held(0..10));
        assert_eq!(verdict(&found), Verdict::Equal);
    }

    #[test]
    fn uncounted_records_in_flight_are_no_mismatch() {
        let mut found = findings();
        found.agent_only.insert(key(), Held { offsets: RangeSet::of(9..10), account: None });
        assert_eq!(verdict(&found), Verdict::InFlight);
    }
}
