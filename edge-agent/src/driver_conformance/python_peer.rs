//! A server of `tests/peers` as a driver's peer: a Python process that says in a line of JSON what it holds, and listens on its
//! stdin.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use model::{DataType, Timestamp, Value};
use serde_json::Value as Json;

/// The process; it is killed when dropped.
#[derive(Debug)]
pub struct PythonPeer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said of itself.
    pub hello: Json,
}

impl PythonPeer {
    /// Starts a script and reads its first line.
    ///
    /// # Panics
    /// If the peers are not installed, or it does not say anything.
    #[must_use]
    pub fn start(script: &str, arguments: &[String]) -> PythonPeer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent");
        let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| root.join(".venv"), PathBuf::from);
        let python = venv.join("bin/python");
        assert!(python.exists(), "{} is missing: run `make peers`, or set FOREBAY_VENV", python.display());
        let mut child = Command::new(python)
            .arg(root.join("tests/peers").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let mut peer = PythonPeer { child, lines, hello: Json::Null };
        peer.hello = peer.hear();
        peer
    }

    /// Tells it something; what it says to that is [`PythonPeer::hear`].
    ///
    /// # Panics
    /// If it has ended.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("its stdin"), "{line}").expect("it listens");
    }

    /// The next thing that it says.
    ///
    /// # Panics
    /// If it has ended, or says no JSON.
    pub fn hear(&mut self) -> Json {
        let line = self.lines.next().expect("the server has ended").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The points of one of its lists: address (under `key`), type, and the value that it holds or takes, as text.
    ///
    /// # Panics
    /// If it has no such list, or an entry lacks something.
    #[must_use]
    pub fn listed(&self, list: &str, key: &str) -> Vec<(String, DataType, String)> {
        let text = |entry: &Json, key: &str| entry[key].as_str().expect("a text").to_owned();
        let data_type = |entry: &Json| DataType::from_name(&text(entry, "type")).expect("a type");
        let entries = self.hello[list].as_array().expect("a list");
        entries.iter().map(|e| (text(e, key), data_type(e), text(e, "value"))).collect()
    }
}

impl PythonPeer {
    /// Address, type and value of everything in its list `points`.
    ///
    /// # Panics
    /// As [`PythonPeer::listed`].
    #[must_use]
    pub fn points(&self) -> Vec<(String, DataType, Value)> {
        let listed = self.listed("points", "address").into_iter();
        listed.map(|(address, data_type, text)| (address, data_type, value(&text, data_type))).collect()
    }
}

/// Of such a list, what a configuration says.
#[must_use]
pub fn addresses(listed: &[(String, DataType, Value)]) -> Vec<(String, DataType)> {
    listed.iter().map(|(address, data_type, _)| (address.clone(), *data_type)).collect()
}

impl Drop for PythonPeer {
    fn drop(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ended");
    }
}

/// A value of this type from the text that a peer says.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn value(text: &str, data_type: DataType) -> Value {
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
