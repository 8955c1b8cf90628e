//! pymodbus as a peer: started, listened to, ended with its test.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use edge_agent::driver_conformance::{self as conformance, Candidate, point};
use model::{DataType, Timestamp, Value};
use runtime::clock::Clock;
use serde_json::Value as Json;

/// A Python server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said of itself.
    pub(crate) hello: Json,
}

impl Server {
    /// The server of single types in every order.
    pub(crate) fn start() -> Server {
        Server::of("modbus_server.py")
    }

    /// One of the scripts in `tests/peers`.
    pub(crate) fn of(script: &str) -> Server {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent");
        let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| root.join(".venv"), PathBuf::from);
        let python = venv.join("bin/python");
        assert!(python.exists(), "{} is missing: run `make peers`, or set FOREBAY_VENV", python.display());
        let mut child = Command::new(python)
            .arg(root.join("tests/peers").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let hello = next_json(&mut lines);
        Server { child, lines, hello }
    }

    /// The next write that arrived at it.
    pub(crate) fn next_write(&mut self) -> Json {
        next_json(&mut self.lines)
    }

    /// A device at its Modbus TCP port.
    pub(crate) fn candidate(&self, points: Vec<(String, DataType)>, keys: &str) -> Candidate {
        let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
        Candidate {
            driver: "modbus-tcp",
            text: format!("address = \"127.0.0.1:{}\"\n{keys}", self.hello["port"]),
            setup: conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written")),
        }
    }

    /// The server's points of one list with the values that it holds, or takes, as text.
    pub(crate) fn listed(&self, list: &str) -> Vec<(String, DataType, String)> {
        let text = |entry: &Json, key: &str| entry[key].as_str().expect("a text").to_owned();
        let data_type = |entry: &Json| DataType::from_name(&text(entry, "type")).expect("a type");
        let entries = self.hello[list].as_array().expect("a list");
        entries.iter().map(|e| (text(e, "address"), data_type(e), text(e, "value"))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ended");
    }
}

fn next_json(lines: &mut Lines<BufReader<ChildStdout>>) -> Json {
    let line = lines.next().expect("the server has ended").expect("a line");
    serde_json::from_str(&line).expect("JSON")
}

/// A value of this type from its text.
pub(crate) fn value(text: &str, data_type: DataType) -> Value {
    match data_type {
        DataType::UInt64 => Value::UInt64(text.parse().expect("a number")),
        DataType::Int64 => Value::Int64(text.parse().expect("a number")),
        DataType::Boolean => Value::Boolean(text.parse().expect("true or false")),
        DataType::String => Value::String(text.to_owned()),
        DataType::DateTime => Value::DateTime(Timestamp(text.parse().expect("a number"))),
        DataType::Bytes => {
            let digits: Vec<char> = text.chars().collect();
            let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
            Value::Bytes(digits.chunks(2).map(|pair| byte(pair).expect("hexadecimal")).collect())
        }
        _ => Value::from_f64(text.parse().expect("a number"), data_type).expect("of the type"),
    }
}
