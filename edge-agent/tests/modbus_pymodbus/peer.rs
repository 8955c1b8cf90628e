//! pymodbus as a peer: started, listened to, ended with its test.

use edge_agent::driver_conformance::{self as conformance, Candidate, PythonPeer, point};
use model::DataType;
use runtime::clock::Clock;
use serde_json::Value as Json;

/// A pymodbus server.
pub(crate) struct Server(PythonPeer);

impl Server {
    /// The server of single types in every order.
    pub(crate) fn start() -> Server {
        Server::of("modbus_server.py")
    }

    /// One of the scripts in `tests/peers`.
    pub(crate) fn of(script: &str) -> Server {
        Server(PythonPeer::start(script, &[]))
    }

    /// What it said of itself.
    pub(crate) fn hello(&self) -> &Json {
        &self.0.hello
    }

    /// The next write that arrived at it.
    pub(crate) fn next_write(&mut self) -> Json {
        self.0.hear()
    }

    /// A device at its Modbus TCP port.
    pub(crate) fn candidate(&self, points: Vec<(String, DataType)>, keys: &str) -> Candidate {
        let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
        Candidate {
            driver: "modbus-tcp",
            text: format!("address = \"127.0.0.1:{}\"\n{keys}", self.hello()["port"]),
            setup: conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written")),
        }
    }

    /// The server's points of one list with the values that it holds, or takes, as text.
    pub(crate) fn listed(&self, list: &str) -> Vec<(String, DataType, String)> {
        self.0.listed(list, "address")
    }
}
