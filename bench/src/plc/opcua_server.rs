//! An OPC UA server that is not ours (asyncua), in a process of its own: its items change on command.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

const SCRIPT: &str = include_str!("../../peers/opcua_server.py");

/// Lines that nobody has read yet; it answers one line to each of ours.
const LINES_MAX: usize = 8;

/// The server; killed when dropped.
pub(super) struct OpcUaServer {
    process: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    pub(super) port: u16,
    pub(super) index: u64,
}

impl OpcUaServer {
    /// With so many items; making them takes it a while.
    pub(super) fn start(python: &Path, dir: &Path, items: usize) -> Result<OpcUaServer, String> {
        let failed = |error: std::io::Error| format!("the OPC UA server: {error}");
        let script = dir.join("opcua_server.py");
        std::fs::write(&script, SCRIPT).map_err(failed)?;
        let mut command = Command::new(python);
        command.arg("opcua_server.py").arg(items.to_string()).current_dir(dir);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the OPC UA server has no pipes".into());
        };
        let mut server = OpcUaServer { process, stdin, lines: read_lines(stdout), port: 0, index: 0 };
        let first = server.answer(Duration::from_secs(300))?;
        server.port = first["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        server.index = first["index"].as_u64().unwrap_or(0);
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has every item changed so many times; [`OpcUaServer::is_done`] tells the end.
    pub(super) fn change(&mut self, rounds: u64, every: Duration) -> Result<(), String> {
        writeln!(self.stdin, "{rounds} {}", every.as_millis())
            .map_err(|error| format!("the OPC UA server: {error}"))
    }

    /// What it says when all rounds are over.
    pub(super) fn is_done(&mut self) -> Option<Value> {
        self.lines.try_recv().ok().and_then(|line| serde_json::from_str(&line).ok())
    }

    fn answer(&mut self, patience: Duration) -> Result<Value, String> {
        let line =
            self.lines.recv_timeout(patience).map_err(|_| "the OPC UA server does not start".to_owned())?;
        serde_json::from_str(&line).map_err(|error| format!("the OPC UA server said {line:?}: {error}"))
    }
}

impl Drop for OpcUaServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        let whole = BufReader::new(stdout).lines().map_while(Result::ok);
        whole.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    lines
}
