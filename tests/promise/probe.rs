//! A subscriber that watches one counter on its way: when it was read, when the broker passed it on, when the hub, which
//! shows nothing that is not on its disk, showed it. And in which order its records came.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_tests::campaign::Campaign;
use proto::sparkplug::PayloadView;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use runtime::clock::Clock;

/// What was seen.
#[derive(Default)]
struct Seen {
    /// By value: µs when it was read.
    read: BTreeMap<u64, i64>,
    /// µs from reading to the subscriber, of live records.
    passed_on: Vec<i64>,
    /// By value: µs from reading to the page, durable at the hub.
    shown: BTreeMap<u64, i64>,
    /// `(epoch, offset)` of live and of historical records, in the order of their coming.
    live: Vec<(u64, u64)>,
    history: Vec<(u64, u64)>,
}

/// A thread that subscribes until it is dropped.
pub(crate) struct Probe {
    seen: Arc<Mutex<Seen>>,
    is_over: Arc<AtomicBool>,
    client: Client,
}

/// Median, 99th percentile and largest, µs; and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) count: usize,
    pub(crate) median: i64,
    pub(crate) p99: i64,
    pub(crate) worst: i64,
}

impl Latency {
    fn of(mut all: Vec<i64>) -> Latency {
        all.sort_unstable();
        let at =
            |of_thousand: usize| all.get((all.len().max(1) - 1) * of_thousand / 1000).copied().unwrap_or(0);
        Latency { count: all.len(), median: at(500), p99: at(990), worst: at(1000) }
    }
}

impl Probe {
    /// Adds the watched device to agent `a0` of a campaign that was not started.
    pub(crate) fn configure(campaign: &Campaign) {
        let points = "name,address,type,path\nprobe,counter(step=1),u32,line/a0/probe\n";
        campaign.plant.write("a0-probe.csv", points);
        campaign.write_agent(0, campaign.load.poll, "history_rate = 100_000_000");
    }

    /// Subscribes at the hub's broker.
    pub(crate) fn of(broker: SocketAddr) -> Probe {
        let mut options = MqttOptions::new("probe", broker.ip().to_string(), broker.port());
        options.set_max_packet_size(8 << 20, 1 << 20).set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 100);
        let (seen, is_over) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let (theirs, over, subscriber) = (Arc::clone(&seen), Arc::clone(&is_over), client.clone());
        std::thread::spawn(move || {
            for event in connection.iter() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        for topic in ["spBv1.0/plant/DDATA/a0/probe", "acme/works/line/a0/probe"] {
                            subscriber.subscribe(topic, QoS::AtMostOnce).ok();
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let now = Clock::machine().now().0;
                        let mut seen = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.take(&message.topic, &message.payload, now);
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(200)),
                }
            }
        });
        Probe { seen, is_over, client }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Latencies since the last call: to the subscriber, and to the page.
    pub(crate) fn latencies(&self) -> (Latency, Latency) {
        let mut seen = self.seen();
        let passed_on = std::mem::take(&mut seen.passed_on);
        let shown = std::mem::take(&mut seen.shown).into_values().collect();
        (Latency::of(passed_on), Latency::of(shown))
    }

    /// Records that came live and as history.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let seen = self.seen();
        (seen.live.len(), seen.history.len())
    }

    /// Each stream is in order, per epoch; a record that comes again (no receipt in time) counts where it came first.
    pub(crate) fn check_order(&self) {
        let seen = self.seen();
        for (stream, records) in [("live", &seen.live), ("history", &seen.history)] {
            let mut last: BTreeMap<u64, u64> = BTreeMap::new();
            let mut known = std::collections::BTreeSet::new();
            for (epoch, offset) in records.iter().filter(|record| known.insert(**record)) {
                let before = last.insert(*epoch, *offset);
                assert!(before.is_none_or(|before| before < *offset), "{stream}: {offset} after {before:?}");
            }
        }
    }
}

impl Seen {
    fn take(&mut self, topic: &str, payload: &[u8], now: i64) {
        if topic.starts_with("spBv1.0") {
            let view = PayloadView::decode(payload).unwrap();
            let (Some(head), Some(metric)) = (&view.record, view.metrics.first()) else { return };
            let (id, time) = ((head.id.epoch.0, head.id.offset.0), view.time(0).unwrap().0);
            if metric.is_historical {
                return self.history.push(id);
            }
            self.live.push(id);
            self.passed_on.push(now - time);
            if let Some(model::Value::UInt32(value)) = metric.value.to_value(model::DataType::UInt32, 0) {
                self.read.insert(u64::from(value), time);
            }
        } else {
            let shown: serde_json::Value = serde_json::from_slice(payload).unwrap();
            let value = shown["v"].as_u64().unwrap_or(u64::MAX);
            if let Some(read) = self.read.get(&value) {
                self.shown.insert(value, now - read);
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.client.disconnect().ok();
    }
}
