//! What a connection costs that is logged in and says nothing: resident memory of the broker per connection.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::Connection;
use super::peers::Broker;
use crate::machine::process_use;
use crate::report::Reading;

/// Counts at which memory is read.
const CONNECTIONS: [(usize, &str); 2] = [(2_000, "kb_at_2000"), (10_000, "kb_at_10000")];
/// Sockets beside the connections.
const SPARE_FILES: u64 = 200;
/// Connections whose log-in is under way at a time.
const AT_A_TIME: usize = 100;
/// For a broker to come to rest.
const REST: Duration = Duration::from_secs(2);

/// Allows this process, and those it starts from now on, as many open files as the connections need.
pub(super) fn allow_files() -> Result<(), String> {
    let wanted = CONNECTIONS.iter().map(|(count, _)| *count as u64).max().unwrap_or(0) + SPARE_FILES;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = now.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|error| format!("cannot have {wanted} open files: {error}; try ulimit -Hn"))
}

/// Opens them and reads the broker's memory.
pub(super) fn run(broker: &Broker) -> Result<Vec<Reading>, String> {
    let mut connections = vec![Connection::open(&broker.door, "idle-first", true)?];
    std::thread::sleep(REST);
    let empty = process_use(broker.pid).resident;
    let mut readings = vec![Reading::new("empty_mb", empty as f64 / 1e6)];
    for (count, name) in CONNECTIONS {
        while connections.len() <= count {
            let first = connections.len();
            for n in first..(first + AT_A_TIME).min(count + 1) {
                connections.push(Connection::begin(&broker.door, &format!("idle-{n}"), true)?);
            }
            connections[first..].iter_mut().try_for_each(Connection::finish)?;
        }
        std::thread::sleep(REST);
        let grown = process_use(broker.pid).resident.saturating_sub(empty);
        readings.push(Reading::new(name, grown as f64 / 1024.0 / count as f64));
    }
    Ok(readings)
}
