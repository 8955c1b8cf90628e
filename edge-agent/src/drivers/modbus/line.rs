//! The line to a Modbus address: one connection (or as many as configured) that all units behind it share.
//!
//! ```text
//! driver of unit 1 ──┐
//! driver of unit 2 ──┤ turns, first come first served ──► idle connection ──► request ──► answer ──► idle again
//! driver of unit 3 ──┘                                     (or a new one)        └─ failed, cut off: dropped
//! ```
//!
//! - One request at a time per connection; whoever waits longest is next, so that a unit with many requests and one
//!   with few are served alike.
//! - A connection is out of its place while it is used: a call that fails or is cut off takes it along, and a write that has
//!   not left dies with it (TCP: reset).
//! - Modbus TCP numbers its requests: after a read that was not answered in time the connection is kept if others
//!   share it, and the late answer is known by its number. Other frames have no number: the connection is closed, a
//!   serial port is emptied and left in peace for [`QUIET`]. An answer that comes even later and is of the same kind as the next
//!   one cannot be told from it: `timeout` must be longer than the slowest answer.
//! - A unit that did not answer costs the others its deadline, then not again for [`REST`] times as long: at most a
//!   fifth of the line's time goes to units that are not there. Alone on its line a unit is not made to wait.
//! - A connection that cannot be made is tried once for all who wait for it.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{FRAME_BYTES_MAX, Framing, Received};
use super::pdu::{Answer, Request};
use super::serial::{SerialPort, SerialSettings};
use crate::drivers::{DriverError, packet_stream};
use crate::pace::Pace;

/// After the deadline of a silent unit the line is left to the others for so many times as long.
const REST: u32 = 4;
/// A serial line that was just opened may still carry the answer to somebody else.
const QUIET: Duration = Duration::from_millis(20);
/// Frames that nobody asked for, while one answer is awaited: more is a device that has gone mad.
const STRAY_FRAMES_MAX: usize = 64;
/// Bytes that arrived unasked since the last answer: beyond this the connection is no use.
const STRAY_BYTES_MAX: usize = 64 * 1024;

/// Where a line leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `host:port`.
    Tcp(String),
    /// A serial port.
    Serial(SerialSettings),
}

/// What all devices of a line must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineSettings {
    pub(super) target: Target,
    pub(super) framing: Framing,
    /// Connections at once.
    pub(super) connections: u8,
    /// Silence between an answer and the next request.
    pub(super) pause: Duration,
}

/// A line. Held by the drivers of its units.
pub(super) struct Line {
    settings: LineSettings,
    turns: Semaphore,
    transaction: AtomicU16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    users: usize,
    /// The last connection that could not be made.
    refused: Option<(Instant, String)>,
    /// Silent units are left alone until then.
    rest_until: Option<Instant>,
}

/// One unit's access to its line.
pub(super) struct Unit {
    line: Arc<Line>,
    number: u8,
    deadline: Duration,
    pace: Pace,
    is_open: bool,
    /// Whether it did not answer when it was asked last.
    is_silent: bool,
}

struct Connection {
    stream: Stream,
    /// Received and not yet understood.
    bytes: Vec<u8>,
    ready_at: Instant,
    /// Deadlines that passed since anything was heard.
    timeouts: u32,
}

enum Stream {
    Tcp(TcpStream),
    Serial(SerialPort),
}

impl Line {
    /// A line that connects when it is first used.
    pub(super) fn new(settings: LineSettings) -> Line {
        let turns = Semaphore::new(usize::from(settings.connections));
        Line { settings, turns, transaction: AtomicU16::new(0), state: Mutex::default() }
    }

    /// What its devices agreed on.
    pub(super) const fn settings(&self) -> &LineSettings {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection that still stands, or a new one. `since` is when the caller began to wait for it.
    async fn connection(&self, since: Instant, deadline: Duration) -> Result<Connection, DriverError> {
        loop {
            let idle = self.lock().idle.pop();
            match idle {
                Some(mut connection) => {
                    if connection.still_stands(self.settings.framing) {
                        return Ok(connection);
                    }
                }
                None => break,
            }
        }
        if let Some((at, why)) = &self.lock().refused
            && *at >= since
        {
            return Err(DriverError::NotConnected(why.clone()));
        }
        let made = Connection::open(&self.settings.target, deadline).await;
        let mut state = self.lock();
        match made {
            Ok(connection) => {
                state.refused = None;
                Ok(connection)
            }
            Err(why) => {
                state.refused = Some((Instant::now(), why.clone()));
                Err(DriverError::NotConnected(why))
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        self.lock().idle.push(connection); // at most as many as there are turns
    }
}

impl Unit {
    /// A unit of the line, not yet open.
    pub(super) const fn new(line: Arc<Line>, number: u8, deadline: Duration, pace: Pace) -> Unit {
        Unit { line, number, deadline, pace, is_open: false, is_silent: false }
    }

    /// Makes sure that there is a connection.
    pub(super) async fn open(&mut self) -> Result<(), DriverError> {
        self.leave();
        let since = Instant::now();
        let Ok(_turn) = self.line.turns.acquire().await else { return Err(closed()) };
        let connection = self.line.connection(since, self.deadline).await?;
        self.line.give_back(connection);
        self.line.lock().users += 1;
        self.is_open = true;
        Ok(())
    }

    /// Asks and waits for the answer. After an error the unit must be opened again.
    pub(super) async fn call(&mut self, request: &Request) -> Result<Answer<Vec<u16>>, DriverError> {
        if !self.is_open {
            return Err(closed());
        }
        let answer = self.ask(request).await;
        self.is_silent = matches!(answer, Err(DriverError::Silent(_)));
        if answer.is_err() {
            self.pace.failed();
            self.leave();
        }
        answer
    }

    async fn ask(&mut self, request: &Request) -> Result<Answer<Vec<u16>>, DriverError> {
        self.pace.turn().await;
        let since = Instant::now();
        let line = self.line.clone();
        let Ok(_turn) = line.turns.acquire().await else { return Err(closed()) };
        let is_shared = {
            let state = line.lock();
            let is_shared = state.users > 1;
            if is_shared && self.is_silent && state.rest_until.is_some_and(|until| until > Instant::now()) {
                return Err(DriverError::Silent(self.deadline));
            }
            is_shared
        };
        let mut connection = line.connection(since, self.deadline).await?;
        sleep_until(connection.ready_at).await;
        if line.settings.framing != Framing::Tcp && !connection.still_stands(line.settings.framing) {
            return Err(DriverError::NotConnected("the line was closed".into()));
        }
        let begun = Instant::now();
        let transaction = line.transaction.fetch_add(1, Ordering::Relaxed);
        let framing = line.settings.framing;
        let exchange = connection.exchange(framing, transaction, self.number, request);
        match timeout(self.deadline, exchange).await {
            Ok(Ok(answer)) => {
                self.pace.answered(begun.elapsed());
                connection.timeouts = 0;
                connection.ready_at = Instant::now() + line.settings.pause;
                line.give_back(connection);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                connection.timeouts += 1;
                if is_shared {
                    let rest_until = Instant::now() + self.deadline * REST;
                    line.lock().rest_until = Some(rest_until);
                    let is_numbered = framing == Framing::Tcp && !request.is_write();
                    if is_numbered && connection.timeouts < 2 {
                        line.give_back(connection);
                        return Err(DriverError::Silent(self.deadline));
                    }
                }
                Err(DriverError::Silent(self.deadline))
            }
        }
    }

    /// Says goodbye; the last one closes the line's connections.
    pub(super) async fn close(&mut self) {
        for connection in self.leave() {
            connection.close().await;
        }
    }

    /// The connections that nobody uses any more.
    fn leave(&mut self) -> Vec<Connection> {
        if !std::mem::take(&mut self.is_open) {
            return Vec::new();
        }
        let mut state = self.line.lock();
        state.users = state.users.saturating_sub(1);
        if state.users == 0 { std::mem::take(&mut state.idle) } else { Vec::new() }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.leave();
    }
}

fn closed() -> DriverError {
    DriverError::NotConnected("the connection was closed".into())
}

impl Connection {
    async fn open(target: &Target, deadline: Duration) -> Result<Connection, String> {
        let stream = match target {
            Target::Serial(settings) => {
                let opened = SerialPort::open(settings);
                Stream::Serial(opened.map_err(|error| format!("{}: {error}", settings.port.display()))?)
            }
            Target::Tcp(address) => Stream::Tcp(packet_stream::connect(address, deadline).await?),
        };
        let quiet = if matches!(stream, Stream::Serial(_)) { QUIET } else { Duration::ZERO };
        Ok(Connection { stream, bytes: Vec::new(), ready_at: Instant::now() + quiet, timeouts: 0 })
    }

    /// Takes what has arrived unasked. Whether the other side still holds the connection, and sanely.
    fn still_stands(&mut self, framing: Framing) -> bool {
        let (mut chunk, mut stray) = ([0; 512], 0);
        loop {
            let read = match &self.stream {
                Stream::Tcp(stream) => stream.try_read(&mut chunk),
                Stream::Serial(port) => port.try_read(&mut chunk),
            };
            let length = match read {
                Ok(0) => return matches!(self.stream, Stream::Serial(_)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            };
            stray += length;
            // Late answers, whole or in part: the place of the next frame must not be lost.
            self.bytes.extend(chunk.iter().take(length));
            if stray > STRAY_BYTES_MAX || (framing == Framing::Tcp && !self.skip_strays(framing)) {
                return false;
            }
        }
        if framing != Framing::Tcp {
            self.bytes.clear();
        }
        true
    }

    fn skip_strays(&mut self, framing: Framing) -> bool {
        loop {
            match framing.decode(&self.bytes) {
                Received::More => return true,
                Received::Malformed(_) => return false,
                Received::Frame { used, .. } => drop(self.bytes.drain(..used)),
            }
        }
    }

    async fn exchange(
        &mut self,
        framing: Framing,
        transaction: u16,
        unit: u8,
        request: &Request,
    ) -> Result<Answer<Vec<u16>>, DriverError> {
        let frame = framing.encode(transaction, unit, &request.encode());
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&frame).await.map_err(|error| failure(&error))?,
            Stream::Serial(port) => port.write_all(&frame).await.map_err(|error| failure(&error))?,
        }
        for _ in 0..STRAY_FRAMES_MAX {
            let (sent_transaction, from, pdu) = self.frame(framing).await?;
            self.timeouts = 0;
            // Another number, or another unit where there are no numbers: the late answer to somebody else.
            if sent_transaction.is_some_and(|sent| sent != transaction)
                || (sent_transaction.is_none() && from != unit)
            {
                continue;
            }
            if from != unit {
                return Err(DriverError::Malformed(format!("unit {from} answered instead of {unit}")));
            }
            match request.check(&pdu) {
                Ok(answer) => return Ok(answer),
                Err(why) if sent_transaction.is_some() => return Err(DriverError::Malformed(why)),
                Err(_) => {} // without numbers it may be the late answer to an earlier request
            }
        }
        Err(DriverError::Malformed(format!("{STRAY_FRAMES_MAX} answers that nobody asked for")))
    }

    /// The next frame. Never more bytes than one frame's are kept.
    async fn frame(&mut self, framing: Framing) -> Result<(Option<u16>, u8, Vec<u8>), DriverError> {
        loop {
            match framing.decode(&self.bytes) {
                Received::Frame { used, transaction, unit, pdu } => {
                    self.bytes.drain(..used);
                    return Ok((transaction, unit, pdu));
                }
                Received::Malformed(why) => return Err(DriverError::Malformed(why)),
                Received::More => {}
            }
            let mut chunk = [0; FRAME_BYTES_MAX];
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut chunk).await,
                Stream::Serial(port) => port.read(&mut chunk).await,
            };
            match read {
                Ok(0) => return Err(DriverError::NotConnected("the device closed the connection".into())),
                Ok(length) => self.bytes.extend(chunk.iter().take(length)),
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    async fn close(self) {
        if let Stream::Tcp(mut stream) = self.stream {
            // Nothing depends on it: the socket is closed by the drop in any case.
            drop(timeout(Duration::from_millis(100), stream.shutdown()).await);
        }
    }
}

fn failure(error: &io::Error) -> DriverError {
    DriverError::NotConnected(error.to_string())
}
