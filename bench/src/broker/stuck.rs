//! What ten subscribers that never read do to the others: the publisher's rate, and the readers' p99, beside a run in which
//! all twenty read.
//!
//! Half of the ten subscribe with QoS 0, half with QoS 1, as do those that read. The publisher publishes with QoS 1: first
//! as fast as the readers take it, then paced, for the times.

use std::time::Duration;

use super::connection::{Connection, Door};
use super::latency;
use super::load::{BLOCK_BYTES, Load, Windows};
use super::packet::{PublishBlock, QosLevel};
use super::peers::Broker;
use super::throughput::{WARM_UP, measure, topic};
use crate::machine::process_use;
use crate::report::Reading;

const READERS: usize = 10;
const OTHERS: usize = 10;
const PAYLOAD_BYTES: usize = 100;
const WINDOWS: Windows = Windows { ahead: Some(4096), unacknowledged: 500 };
/// Messages per second while times are taken.
const RATE: u64 = 1_000;

/// With `stuck` the ten others never read.
pub(super) fn run(broker: &Broker, stuck: bool, time: Duration) -> Result<Vec<Reading>, String> {
    let door = &broker.door;
    let mut others = subscribers(door, "other", OTHERS)?;
    let mut reading = subscribers(door, "reader", READERS)?;
    if !stuck {
        reading.append(&mut others);
    }
    let block = PublishBlock::new(&topic(0), 1, PAYLOAD_BYTES, BLOCK_BYTES);
    let publisher = Connection::open(door, "pub-0", true)?;
    let mut load = Load::new(vec![(publisher, block)], reading, WINDOWS)?;
    // Long enough that the buffers towards those who never read are full.
    load.run(WARM_UP * 2)?;
    let mut readings = measure(&mut load, broker.pid, time)?;
    load.drain(WARM_UP)?;
    let missing = load.counts().missing;
    let (times, _) = latency::measure(door, load.into_subscribers(), 1, RATE, time)?;
    readings.extend(times.readings());
    readings.push(Reading::new("lost", missing as f64));
    readings.push(Reading::new("peak_mb", process_use(broker.pid).peak as f64 / 1e6));
    drop(others);
    Ok(readings)
}

fn subscribers(door: &Door, name: &str, count: usize) -> Result<Vec<Connection>, String> {
    let one = |n: usize| {
        let mut connection = Connection::open(door, &format!("{name}-{n}"), true)?;
        let qos: QosLevel = u8::from(n % 2 == 1);
        connection.subscribe(&topic(0), qos)?;
        Ok(connection)
    };
    (0..count).map(one).collect()
}
