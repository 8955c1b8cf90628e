//! What was read of each point last, the gaps that outages left, and how the server's history fills them.
//!
//! A gap lies between the last value that was handed on and the first one after the outage; both ends are known by their
//! source times and are not part of it, so nothing comes twice. Live values go first; gaps are filled beside them, oldest
//! first, in pieces. The position holds both, so that a restart of the agent goes on where it was, and its own absence is a gap.
//!
//! ```text
//! position: 1 · count · (hash of the address u64, last time)… · count · (hash, from, to)…
//! ```
//! Numbers are varints, times zigzag differences to the one before. Points without history are not in it.

use std::collections::HashMap;

use model::Timestamp;
use opcua::client::HistoryReadAction;
use opcua::client::services::HistoryRead;
use opcua::types::{
    DataValue, HistoryData, HistoryReadResult, HistoryReadValueId, ReadRawModifiedDetails, StatusCode,
    TimestampsToReturn,
};

use super::calls::is_too_much;
use super::items::{Plan, Point};
use super::limits::{HISTORY_VALUES, Limits};
use super::link::Link;
use super::value::{date_time, reading, timestamp};
use crate::drivers::{DriverError, Reading};

const VERSION: u8 = 1;
/// Gaps that are remembered: a point that comes and goes without history being read makes no more.
const GAPS_MAX: usize = 100_000;

/// A hole in a point's values; both ends excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) point: usize,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Times per point, and gaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    pub(super) last: Vec<Option<Timestamp>>,
    pub(super) gaps: Vec<Gap>,
    hashes: Vec<u64>,
}

impl Memory {
    /// Nothing read yet.
    pub(super) fn new<'a>(addresses: impl Iterator<Item = &'a str>) -> Memory {
        let hashes: Vec<u64> = addresses.map(hash).collect();
        Memory { last: vec![None; hashes.len()], gaps: Vec::new(), hashes }
    }

    /// Notes a value of now. `is_first` is the first one since the server is watched (again).
    pub(super) fn note(&mut self, point: usize, time: Timestamp, is_first: bool, has_history: bool) {
        let Some(last) = self.last.get_mut(point) else { return };
        if let Some(from) = *last
            && is_first
            && has_history
            && time.0.saturating_sub(from.0) > 1
            && self.gaps.len() < GAPS_MAX
        {
            self.gaps.push(Gap { point, from, to: time });
        }
        *last = (*last).max(Some(time));
    }

    /// The position: the points with history alone.
    pub(super) fn encode(&self, has_history: &[bool]) -> Vec<u8> {
        let mut out = vec![VERSION];
        let kept = |point: usize| has_history.get(point).copied().unwrap_or(false);
        let times: Vec<(u64, Timestamp)> = (0..self.last.len())
            .filter(|point| kept(*point))
            .filter_map(|point| Some((*self.hashes.get(point)?, (*self.last.get(point)?)?)))
            .collect();
        let mut before = 0;
        put(times.len() as u64, &mut out);
        for (hash, time) in times {
            out.extend(hash.to_le_bytes());
            put_time(time, &mut before, &mut out);
        }
        put(self.gaps.len() as u64, &mut out);
        for gap in &self.gaps {
            out.extend(self.hashes.get(gap.point).copied().unwrap_or_default().to_le_bytes());
            put_time(gap.from, &mut before, &mut out);
            put_time(gap.to, &mut before, &mut out);
        }
        out
    }

    /// Takes a position; points that are not configured any more are forgotten. `None`: it is none of ours.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Option<()> {
        let by_hash: HashMap<u64, usize> =
            self.hashes.iter().enumerate().map(|(nth, hash)| (*hash, nth)).collect();
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut before = 0;
        for _ in 0..get(&mut rest)? {
            let (hash, time) = (get_hash(&mut rest)?, get_time(&mut rest, &mut before)?);
            if let Some(last) = by_hash.get(&hash).and_then(|point| self.last.get_mut(*point)) {
                *last = Some(time);
            }
        }
        for _ in 0..get(&mut rest)? {
            let hash = get_hash(&mut rest)?;
            let (from, to) = (get_time(&mut rest, &mut before)?, get_time(&mut rest, &mut before)?);
            self.gaps.extend(by_hash.get(&hash).map(|point| Gap { point: *point, from, to }));
        }
        rest.is_empty().then_some(())
    }

    /// One piece of history; the readings of gaps, which are then smaller or gone.
    pub(super) async fn fill(
        &mut self,
        link: &mut Link,
        limits: &mut Limits,
        plan: &Plan,
        points: &[Point],
    ) -> Result<Vec<Reading>, DriverError> {
        self.gaps.retain(|gap| plan.located.get(gap.point).is_some_and(|located| located.node.is_ok()));
        self.gaps.sort_by_key(|gap| (gap.from, gap.point));
        let group: Vec<Gap> = self.gaps.iter().take(limits.history_nodes).copied().collect();
        let (Some(first), Some(end)) = (group.first(), group.iter().map(|gap| gap.to).max()) else {
            return Ok(Vec::new());
        };
        let each = (HISTORY_VALUES / group.len()).max(1);
        let results = match ask(link, plan, &group, first.from, end, each).await {
            Ok(results) => results,
            Err(error) if is_too_much(&error) && limits.history_nodes > 1 => {
                limits.history_nodes /= 2;
                return Ok(Vec::new());
            }
            Err(DriverError::Refused { reason, .. }) => {
                tracing::warn!(reason, "the server's history cannot be read: gaps stay");
                self.gaps.clear();
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut readings = Vec::new();
        let mut left = Vec::new();
        for (gap, result) in group.iter().zip(results) {
            let values = values(&result, gap.point);
            let is_more = values.len() >= each || !result.continuation_point.is_null_or_empty();
            let last =
                values.iter().filter_map(|value| value.source_timestamp.as_ref().and_then(timestamp)).max();
            if let (Some(point), Some(located)) = (points.get(gap.point), plan.located.get(gap.point)) {
                let made = values
                    .iter()
                    .map(|v| reading(gap.point, point.raw_type, &located.parts, v, &plan.structures));
                readings.extend(made.filter(|r| r.time.is_some_and(|time| time > gap.from && time < gap.to)));
            }
            // A page that is full of one instant would come again for ever.
            let from = last.unwrap_or(gap.to).max(Timestamp(gap.from.0.saturating_add(1)));
            if is_more && from < gap.to {
                left.push(Gap { from, ..*gap });
            }
        }
        self.gaps.drain(..group.len());
        self.gaps.extend(left);
        Ok(readings)
    }
}

/// Reads raw values, and lets go of the server's continuation points: the next piece begins by time.
async fn ask(
    link: &mut Link,
    plan: &Plan,
    group: &[Gap],
    from: Timestamp,
    to: Timestamp,
    each: usize,
) -> Result<Vec<HistoryReadResult>, DriverError> {
    let details = ReadRawModifiedDetails {
        is_read_modified: false,
        start_time: date_time(from),
        end_time: date_time(to),
        num_values_per_node: u32::try_from(each).unwrap_or(u32::MAX),
        return_bounds: false,
    };
    let mut nodes: Vec<HistoryReadValueId> = Vec::with_capacity(group.len());
    for gap in group {
        let node =
            plan.located.get(gap.point).and_then(|located| located.node.clone().ok()).unwrap_or_default();
        nodes.push(HistoryReadValueId { node_id: node, ..HistoryReadValueId::default() });
    }
    let (number, timeout, token, handle) = link.header();
    let action = HistoryReadAction::ReadRawModifiedDetails(details.clone());
    let request = HistoryRead::new_manual(action, number, timeout, token, handle)
        .timestamps_to_return(TimestampsToReturn::Both)
        .nodes_to_read(nodes.clone());
    let results = link.ask(request).await?.results.unwrap_or_default();
    if results.len() != group.len() {
        return Err(DriverError::Malformed(format!(
            "{} answers to {} reads of history",
            results.len(),
            group.len()
        )));
    }
    let open: Vec<HistoryReadValueId> = nodes
        .into_iter()
        .zip(&results)
        .filter(|(_, result)| !result.continuation_point.is_null_or_empty())
        .map(|(node, result)| HistoryReadValueId {
            continuation_point: result.continuation_point.clone(),
            ..node
        })
        .collect();
    if !open.is_empty() {
        let (number, timeout, token, handle) = link.header();
        let action = HistoryReadAction::ReadRawModifiedDetails(details);
        let release = HistoryRead::new_manual(action, number, timeout, token, handle)
            .release_continuation_points(true)
            .nodes_to_read(open);
        if let Err(error @ (DriverError::NotConnected(_) | DriverError::Silent(_))) = link.ask(release).await
        {
            return Err(error);
        }
    }
    Ok(results)
}

fn values(result: &HistoryReadResult, point: usize) -> Vec<DataValue> {
    if result.status_code.is_bad() && result.status_code != StatusCode::BadNoData {
        tracing::warn!(point, status = %result.status_code, "no history of a point: its gap stays");
        return Vec::new();
    }
    let data = result.history_data.inner_as::<HistoryData>();
    data.and_then(|data| data.data_values.clone()).unwrap_or_default()
}

/// FNV-1a: stable between versions of this program.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn get(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_time(time: Timestamp, before: &mut i64, out: &mut Vec<u8>) {
    let difference = time.0.wrapping_sub(*before);
    *before = time.0;
    put(((difference << 1) ^ (difference >> 63)).cast_unsigned(), out);
}

fn get_time(rest: &mut &[u8], before: &mut i64) -> Option<Timestamp> {
    let zigzag = get(rest)?;
    let difference = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    *before = before.wrapping_add(difference);
    Some(Timestamp(*before))
}

fn get_hash(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_lies_between_the_last_value_and_the_first_after_the_outage() {
        let mut memory = Memory::new(["a", "b", "c"].into_iter());
        for (point, time) in [(0, 100), (1, 100), (0, 200)] {
            memory.note(point, Timestamp(time), false, true);
        }
        memory.note(0, Timestamp(500), true, true);
        memory.note(1, Timestamp(500), true, false);
        memory.note(2, Timestamp(500), true, true);
        assert_eq!(memory.gaps, [Gap { point: 0, from: Timestamp(200), to: Timestamp(500) }]);
        let position = memory.encode(&[true, false, true]);
        let mut again = Memory::new(["new", "c", "a"].into_iter());
        again.restore(&position).unwrap();
        assert_eq!(again.last, [None, Some(Timestamp(500)), Some(Timestamp(500))]);
        assert_eq!(again.gaps, [Gap { point: 2, from: Timestamp(200), to: Timestamp(500) }]);
    }

    proptest! {
        #[test]
        fn positions_come_back(times in prop::collection::vec(prop::option::of(any::<i64>()), 0..40)) {
            let names: Vec<String> = (0..times.len()).map(|nth| format!("ns=2;i={nth}")).collect();
            let mut memory = Memory::new(names.iter().map(String::as_str));
            memory.last = times.iter().map(|time| time.map(Timestamp)).collect();
            let mut again = Memory::new(names.iter().map(String::as_str));
            prop_assert!(again.restore(&memory.encode(&vec![true; times.len()])).is_some());
            prop_assert_eq!(again, memory);
        }

        #[test]
        fn no_bytes_are_too_bad(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Memory::new(["a"].into_iter()).restore(&bytes);
        }
    }
}
