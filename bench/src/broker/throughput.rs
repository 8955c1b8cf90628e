//! How fast, and for how much CPU: messages through a fresh broker, as fast as it carries them.

use std::time::{Duration, Instant};

use super::connection::{Connection, Door};
use super::load::{BLOCK_BYTES, Load, Windows};
use super::packet::{PublishBlock, QosLevel};
use super::peers::Broker;
use crate::machine::process_use;
use crate::report::Reading;

/// Caches, socket buffers and the broker's memory settle in it; not measured.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// What has not come after so long without any message is lost.
const QUIET: Duration = Duration::from_secs(2);
/// Messages of 100 B that may be ahead of the slowest subscriber; larger ones are fewer, of the same bytes.
const AHEAD: u64 = 4096;
const AHEAD_BYTES: u64 = AHEAD * 128;
/// Messages of one publisher without PUBACK.
const UNACKNOWLEDGED: u64 = 500;

/// Who publishes how much to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) publishers: usize,
    pub(super) subscribers: usize,
    pub(super) qos: QosLevel,
    pub(super) payload_bytes: usize,
}

impl Shape {
    fn windows(&self) -> Windows {
        let ahead = AHEAD.min(AHEAD_BYTES / self.payload_bytes as u64);
        Windows { ahead: Some(ahead), unacknowledged: UNACKNOWLEDGED.min(ahead) }
    }

    /// Opens every connection; subscribers first, so that nothing is published to nobody.
    pub(super) fn connect(&self, door: &Door, windows: Windows) -> Result<Load, String> {
        let filter = if self.publishers == 1 { "bench/load/0" } else { "bench/load/+" };
        let mut subscribers = Vec::new();
        for n in 0..self.subscribers {
            let mut connection = Connection::open(door, &format!("sub-{n}"), true)?;
            connection.subscribe(filter, self.qos)?;
            subscribers.push(connection);
        }
        Load::new(self.publishers(door)?, subscribers, windows)
    }

    pub(super) fn publishers(&self, door: &Door) -> Result<Vec<(Connection, PublishBlock)>, String> {
        let one = |n: usize| {
            let block = PublishBlock::new(&topic(n), self.qos, self.payload_bytes, BLOCK_BYTES);
            Ok((Connection::open(door, &format!("pub-{n}"), true)?, block))
        };
        (0..self.publishers).map(one).collect()
    }
}

/// Where publisher `n` publishes.
pub(super) fn topic(n: usize) -> String {
    format!("bench/load/{n}")
}

/// Measures for `time` after a warm-up.
pub(super) fn run(broker: &Broker, shape: Shape, time: Duration) -> Result<Vec<Reading>, String> {
    let mut load = shape.connect(&broker.door, shape.windows())?;
    load.run(WARM_UP)?;
    let mut readings = measure(&mut load, broker.pid, time)?;
    load.drain(QUIET)?;
    let counts = load.counts();
    readings.push(Reading::new("lost", counts.missing as f64));
    readings.push(Reading::new("peak_mb", process_use(broker.pid).peak as f64 / 1e6));
    load.close()?;
    Ok(readings)
}

/// Deliveries and CPU of a stretch of the load.
pub(super) fn measure(load: &mut Load, pid: u32, time: Duration) -> Result<Vec<Reading>, String> {
    let own = std::process::id();
    let now = |load: &Load| (Instant::now(), load.counts(), process_use(pid), process_use(own));
    let before = now(load);
    load.run(time)?;
    let after = now(load);
    let seconds = (after.0 - before.0).as_secs_f64();
    let delivered = (after.1.delivered - before.1.delivered) as f64;
    let cpu = after.2.cpu_seconds - before.2.cpu_seconds;
    Ok(vec![
        Reading::new("m_per_cpu_s", delivered / 1e6 / cpu.max(0.01)),
        Reading::new("deliveries_per_s", delivered / seconds),
        Reading::new("sent_per_s", (after.1.sent - before.1.sent) as f64 / seconds),
        Reading::new("acknowledged_per_s", (after.1.acknowledged - before.1.acknowledged) as f64 / seconds),
        Reading::new("cores", cpu / seconds),
        Reading::new("load_cores", (after.3.cpu_seconds - before.3.cpu_seconds) / seconds),
        Reading::new("stalls", (after.1.stalls - before.1.stalls) as f64),
    ])
}
