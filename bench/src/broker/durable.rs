//! Many publishers with QoS 1, one session that outlives its connection: messages acknowledged per second.

use std::time::Duration;

use super::connection::Connection;
use super::load::{Load, Windows};
use super::peers::Broker;
use super::throughput::{Shape, WARM_UP, measure};
use crate::machine::process_use;
use crate::report::Reading;

const SHAPE: Shape = Shape { publishers: 100, subscribers: 0, qos: 1, payload_bytes: 100 };
/// Messages of one publisher without PUBACK.
const WINDOWS: Windows = Windows { ahead: None, unacknowledged: 20 };
/// For the session to hand out what it has kept.
const QUIET: Duration = Duration::from_secs(5);
const SESSION: &str = "kept-session";
const FILTER: &str = "bench/load/+";

/// With the subscriber connected all the time, or away while others publish.
pub(super) fn run(broker: &Broker, online: bool, time: Duration) -> Result<Vec<Reading>, String> {
    let mut subscriber = Connection::open(&broker.door, SESSION, false)?;
    subscriber.subscribe(FILTER, 1)?;
    let mut readings = Vec::new();
    let (missing, peak) = if online {
        let mut load = Load::new(SHAPE.publishers(&broker.door)?, vec![subscriber], WINDOWS)?;
        load.run(WARM_UP)?;
        readings.extend(measure(&mut load, broker.pid, time)?);
        load.drain(QUIET)?;
        let missing = load.counts().missing;
        load.close()?;
        (missing, process_use(broker.pid).peak)
    } else {
        subscriber.close()?;
        let mut load = Load::new(SHAPE.publishers(&broker.door)?, Vec::new(), WINDOWS)?;
        load.run(WARM_UP)?;
        readings.extend(measure(&mut load, broker.pid, time)?);
        load.drain(QUIET)?;
        let acknowledged = load.counts().acknowledged;
        load.close()?;
        let again = Connection::open(&broker.door, SESSION, false)?;
        let mut fetch = Load::new(Vec::new(), vec![again], WINDOWS)?;
        fetch.drain_to(acknowledged, QUIET)?;
        (acknowledged.saturating_sub(fetch.counts().delivered), process_use(broker.pid).peak)
    };
    readings.push(Reading::new("lost", missing as f64));
    readings.push(Reading::new("peak_mb", peak as f64 / 1e6));
    Ok(readings)
}
