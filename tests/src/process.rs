//! The `forebay` binary as a child process that never outlives its test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The binary, built before the tests by `cargo build` (the test command does it), or the one that `FOREBAY_BIN` names.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn forebay() -> PathBuf {
    if let Some(named) = std::env::var_os("FOREBAY_BIN") {
        return PathBuf::from(named);
    }
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(std::path::Path::parent).expect("target/debug");
    let binary = folder.join("forebay");
    assert!(binary.exists(), "{} is missing: run `cargo build` first", binary.display());
    binary
}

/// An address on loopback that nobody listens on at the moment.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A running child; killed by its process id when dropped. Its output is kept for messages.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts a command with its output collected.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Running {
        Running::spawn(command.stdin(Stdio::null()))
    }

    /// As [`Running::start`], for a program that ends when its input does, which is when this is dropped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_with_input(command: &mut Command) -> Running {
        Running::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        for stream in streams.into_iter().flatten() {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Running { child, lines }
    }

    /// Everything printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// If the process is gone already.
    pub fn terminate(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signal");
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it takes longer; the message holds the output.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                std::thread::sleep(Duration::from_millis(50)); // the last lines of the pipes
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {at_most:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a printed line contains `text`.
    ///
    /// # Panics
    /// If that takes longer than `at_most`, or the process ends before.
    pub fn wait_for_line(&mut self, text: &str, at_most: Duration) -> String {
        eventually(at_most, &format!("a line with {text:?}"), || {
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return Some(line.to_owned());
            }
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none(), "ended ({ended:?}) before it said {text:?}:\n{output}");
            None
        })
    }

    /// Resident memory in bytes, and its peak.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        let mut text = String::new();
        std::fs::File::open(format!("/proc/{}/status", self.id()))
            .and_then(|mut file| file.read_to_string(&mut text))
            .ok();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- output of process {}:\n{}", self.id(), self.output());
        }
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none in time.
pub fn eventually<T>(at_most: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
