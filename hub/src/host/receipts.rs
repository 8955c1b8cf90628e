//! Tells every agent of ours what the hub holds on disk (design §4.7).
//!
//! A task of its own, so that receipts go on, saying `holding`, while everything else waits for the disk. A receipt
//! follows news by at most 100 ms, comes at least every 5 s, and at most every 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::limits::RECEIPT_RANGES_MAX;
use model::{Epoch, NodeId, RangeSet, Timestamp, Value};
use proto::log_record::AgentId;
use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::seal;
use proto::sparkplug::{MessageType, Topic, encode};
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Counter;
use tokio::time::Instant;

use crate::broker::{Broker, QoS};
use crate::store::{Store, StoreHealth};

/// Between two receipts to one agent at least.
const PACE: Duration = Duration::from_millis(100);
/// ... and at most.
const LONGEST: Duration = Duration::from_secs(5);

/// Who takes receipts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Receivers(Arc<Mutex<BTreeMap<AgentId, Receiver>>>);

#[derive(Debug)]
struct Receiver {
    node: NodeId,
    epochs: BTreeSet<Epoch>,
    /// The store's version that the last receipt told, and when.
    told: Option<(u64, Instant)>,
    /// Ranges told so far, where they do not fit into one receipt.
    turn: usize,
    last: Option<Timestamp>,
}

impl Receivers {
    /// A node was born (with these epochs) or died.
    pub(super) fn set(&self, agent: AgentId, node: NodeId, epochs: Option<BTreeSet<Epoch>>) {
        let mut receivers = self.lock();
        let last = receivers.get(&agent).and_then(|old| old.last);
        match epochs {
            Some(epochs) => {
                receivers.insert(agent, Receiver { node, epochs, told: None, turn: 0, last });
            }
            None => {
                receivers.remove(&agent);
            }
        }
    }

    /// When an agent got its last receipt.
    pub(super) fn last(&self, agent: AgentId) -> Option<Timestamp> {
        self.lock().get(&agent)?.last
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Receiver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receipts that are due: topic and payload.
    fn due(&self, store: &Store, at: Timestamp, now: Instant) -> Vec<(String, Vec<u8>)> {
        let holding = match store.health() {
            StoreHealth::Ok => None,
            StoreHealth::Holding(why) | StoreHealth::Latched(why) => Some(why),
        };
        let mut due = Vec::new();
        for (agent, receiver) in self.lock().iter_mut() {
            let (version, settled) = store.settled(*agent, &receiver.epochs);
            let news = receiver.told.is_none_or(|(told, _)| told != version) || receiver.turn > 0;
            let since = receiver.told.map_or(LONGEST, |(_, when)| now.saturating_duration_since(when));
            if !(since >= LONGEST || (news && since >= PACE)) {
                continue;
            }
            let durable = receiver.part(settled);
            receiver.told = Some((version, now));
            receiver.last = Some(at);
            let receipt = Receipt { hub_time: at, durable, holding: holding.clone(), takes_health: true };
            let mut payload = Vec::new();
            encode::command(at, RECEIPT_METRIC, None, &Value::Bytes(receipt.encode()), None, &mut payload);
            let topic = Topic::node(MessageType::NCmd, &receiver.node).to_string();
            seal::put(&topic, &mut payload);
            due.push((topic, payload));
        }
        due
    }
}

impl Receiver {
    /// As many ranges as one receipt takes; the others come with the next ones.
    fn part(&mut self, settled: Vec<(Epoch, RangeSet)>) -> Vec<(Epoch, RangeSet)> {
        let total: usize = settled.iter().map(|(_, ranges)| ranges.iter().len()).sum();
        if total <= RECEIPT_RANGES_MAX {
            self.turn = 0;
            return settled.into_iter().filter(|(_, ranges)| !ranges.is_empty()).collect();
        }
        let (from, mut at) = (if self.turn < total { self.turn } else { 0 }, 0);
        let mut part = Vec::new();
        for (epoch, ranges) in settled {
            let mut taken = RangeSet::new();
            for range in ranges.iter() {
                if at >= from && at < from + RECEIPT_RANGES_MAX {
                    taken.insert(range);
                }
                at += 1;
            }
            if !taken.is_empty() {
                part.push((epoch, taken));
            }
        }
        self.turn = from + RECEIPT_RANGES_MAX;
        if self.turn >= total {
            self.turn = 0;
        }
        part
    }
}

/// Sends receipts until shutdown.
pub(super) async fn run(
    receivers: Receivers,
    store: Store,
    broker: Arc<dyn Broker>,
    clock: Clock,
    sent: Counter,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut durable = store.durable();
    loop {
        let paced = Instant::now() + PACE;
        for (topic, payload) in receivers.due(&store, clock.now(), Instant::now()) {
            match broker.publish(topic, payload, QoS::AtMostOnce, false).await {
                Ok(()) => sent.increment(),
                Err(error) => tracing::debug!(%error, "receipt not sent"),
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(paced) => {}
        }
        // News, or the time for the next regular receipt.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = durable.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(PACE * 5) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ranges_than_fit_go_round() {
        let mut ranges = RangeSet::new();
        let count = RECEIPT_RANGES_MAX as u64 * 2 + 10;
        for n in 0..count {
            ranges.insert_one(n * 2);
        }
        let node = NodeId::new("g", "n").unwrap();
        let mut receiver = Receiver { node, epochs: BTreeSet::new(), told: None, turn: 0, last: None };
        let mut told = RangeSet::new();
        for _ in 0..3 {
            for (_, part) in receiver.part(vec![(Epoch(1), RangeSet::of(0..0)), (Epoch(2), ranges.clone())]) {
                assert!(part.iter().len() <= RECEIPT_RANGES_MAX);
                told.extend(&part);
            }
        }
        assert_eq!((told, receiver.turn), (ranges, 0));
    }
}
