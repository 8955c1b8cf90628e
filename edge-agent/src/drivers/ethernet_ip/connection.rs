//! One connection to a controller: a session, a CIP connection in it where there is one, one message at a time.
//!
//! A connection that failed once is dropped by its owner: a late answer must never be taken for the next one.

use std::time::Duration;

use runtime::world;
use tokio::time::{Instant, timeout};

use super::cip::{self, Answer};
use super::frame::{self, Carried, Frame, Names};
use crate::drivers::DriverError;
use crate::drivers::packet_stream::{PacketStream, within};
use crate::pace::Pace;

/// Late answers that are skipped.
const LATE_MAX: usize = 16;
/// Bytes of a message that goes without connection: what every controller takes.
const UNCONNECTED_BYTES: usize = 500;
/// After so long without a message the controller may have ended the connection: half of what was asked for.
const IDLE_MAX: Duration = Duration::from_secs(500);

/// How to reach the controller.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `host:port`.
    pub(super) target: String,
    /// Ports and links from there on; none for a controller that has no backplane.
    pub(super) route: Vec<u8>,
    /// Whether to ask for a connection.
    pub(super) is_connected: bool,
    /// Bytes of a message to ask for.
    pub(super) size: u16,
    pub(super) deadline: Duration,
}

pub(super) struct Connection {
    stream: PacketStream,
    session: u32,
    number: u64,
    /// The CIP connection: the controller's name of it, and ours.
    connected: Option<(u32, Names)>,
    route: Vec<u8>,
    deadline: Duration,
    pace: Pace,
    used: Instant,
    /// Bytes that a message may have, in both directions.
    pub(super) room: usize,
}

impl Connection {
    /// TCP, then a session, then a connection; each within the deadline.
    pub(super) async fn open(settings: &Settings, pace: Pace) -> Result<Connection, DriverError> {
        let Settings { target, deadline, .. } = settings;
        let length = |bytes: &[u8]| frame::length(bytes).map_err(DriverError::Malformed);
        let mut stream = PacketStream::open(target, *deadline, length).await?;
        let register =
            Frame { command: frame::REGISTER, session: 0, status: 0, context: 0, data: &[1, 0, 0, 0] };
        let register = register.bytes();
        let answer = within(*deadline, async {
            stream.send(&register).await?;
            stream.packet().await
        });
        let answer = answer.await?;
        let answer = frame::parse(&answer).map_err(DriverError::Malformed)?;
        if answer.command != frame::REGISTER {
            return Err(DriverError::Malformed("no answer to the request for a session".into()));
        }
        if answer.status != 0 {
            let reason = format!("{target} grants no session: status {:#x}", answer.status);
            return Err(DriverError::NotConnected(reason));
        }
        let by_route = if settings.route.is_empty() { 0 } else { frame::ROUTED + settings.route.len() };
        let mut connection = Connection {
            stream,
            session: answer.session,
            number: 0,
            connected: None,
            route: settings.route.clone(),
            deadline: *deadline,
            pace,
            used: Instant::now(),
            room: UNCONNECTED_BYTES.min(settings.size.into()).saturating_sub(by_route),
        };
        if settings.is_connected {
            connection.connect(settings.size).await?;
        }
        Ok(connection)
    }

    /// A CIP connection, large, else small; a controller that knows neither is asked without.
    async fn connect(&mut self, size: u16) -> Result<(), DriverError> {
        let random = || world::random_u64().map_err(DriverError::NotConnected);
        let [low, high] = [random()?, random()?];
        let names = Names {
            answers: u32::try_from(low >> 32).unwrap_or(1),
            serial: u16::try_from(low & 0xffff).unwrap_or(1),
            originator: u32::try_from(high >> 32).unwrap_or(1),
        };
        let sizes = if size > frame::SMALL { vec![size, frame::SMALL] } else { vec![size] };
        for (nth, size) in sizes.iter().enumerate() {
            let request = frame::open(names, *size, &self.route);
            let service = request.first().copied().unwrap_or_default();
            let bytes = self.send_message(&request).await?;
            let answer = cip::answer(&bytes, service).map_err(DriverError::Malformed)?;
            match answer.status.general {
                0 => {
                    let name = frame::opened(answer.data).map_err(DriverError::Malformed)?;
                    self.connected = Some((name, names));
                    self.room = usize::from(*size).saturating_sub(2);
                    return Ok(());
                }
                // Not known, or not of this size: the next.
                0x08 | 0x09 => {}
                0x01 if matches!(answer.status.extended, 0x0103 | 0x0109 | 0x0127 | 0x0128) => {}
                _ if nth + 1 < sizes.len() && answer.status.general != 0x01 => {}
                _ => return Err(refused(&answer)),
            }
        }
        tracing::debug!("the controller makes no connections: it is asked without");
        Ok(())
    }

    /// Whether the controller may have given the connection up, nobody having said anything.
    pub(super) fn is_idle(&self) -> bool {
        self.used.elapsed() > IDLE_MAX
    }

    /// Whether messages go over a CIP connection.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// Sends a request for the controller; its answer's bytes.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, DriverError> {
        match self.connected {
            None if self.route.is_empty() => self.send_message(request).await,
            None => {
                let routed = frame::by_route(request, &self.route);
                let answer = self.send_message(&routed).await?;
                let is_of_route = answer.first() == Some(&(frame::BY_ROUTE | 0x80));
                if is_of_route && request.first() != Some(&frame::BY_ROUTE) {
                    // Somebody on the way answers instead of the controller.
                    let refusal = cip::answer(&answer, frame::BY_ROUTE).map_err(DriverError::Malformed)?;
                    return Err(DriverError::NotConnected(refusal.status.meaning()));
                }
                Ok(answer)
            }
            Some((name, names)) => {
                self.number += 1;
                let [low, high, ..] = self.number.to_le_bytes();
                let number = u16::from_le_bytes([low, high]);
                let data = frame::connected(name, number, request);
                self.turn(frame::CONNECTED, &data, |_, carried| match carried {
                    // By rights the name that we gave; some give ours back as they got it.
                    Carried::Connected(to, answered, message)
                        if [names.answers, name].contains(&to) && answered == number =>
                    {
                        Some(message.to_vec())
                    }
                    _ => None,
                })
                .await
            }
        }
    }

    /// A message without connection; its answer's bytes.
    async fn send_message(&mut self, message: &[u8]) -> Result<Vec<u8>, DriverError> {
        self.number += 1;
        let number = self.number;
        let data = frame::unconnected(message);
        self.turn(frame::UNCONNECTED, &data, |context, carried| match carried {
            Carried::Unconnected(message) if context == number => Some(message.to_vec()),
            _ => None,
        })
        .await
    }

    /// Takes a turn, sends, and waits for the answer that is ours.
    async fn turn(
        &mut self,
        command: u16,
        data: &[u8],
        ours: impl Fn(u64, Carried<'_>) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, DriverError> {
        let request = Frame { command, session: self.session, status: 0, context: self.number, data }.bytes();
        let pace = self.pace.clone();
        let answer = pace.request(within(self.deadline, async {
            self.stream.send(&request).await?;
            for _ in 0..LATE_MAX {
                let bytes = self.stream.packet().await?;
                let answer = frame::parse(&bytes).map_err(DriverError::Malformed)?;
                if answer.status != 0 {
                    let reason = format!("the session was refused: status {:#x}", answer.status);
                    return Err(DriverError::NotConnected(reason));
                }
                let carried = frame::carried(answer.data).map_err(DriverError::Malformed)?;
                if let Some(message) = ours(answer.context, carried) {
                    return Ok(message);
                }
            }
            Err(DriverError::Malformed(format!("{LATE_MAX} answers that nobody asked for")))
        }));
        let answer = answer.await;
        self.used = Instant::now();
        answer
    }

    /// Says goodbye: a controller has few connections, and would keep this one for minutes.
    pub(super) async fn close(mut self) {
        if let Some((_, names)) = self.connected {
            let close = frame::unconnected(&frame::close(names, &self.route));
            let (session, context) = (self.session, self.number + 1);
            let frame = |command, data| Frame { command, session, status: 0, context, data }.bytes();
            let (close, unregister) = (frame(frame::UNCONNECTED, &close), frame(frame::UNREGISTER, &[]));
            let goodbye = async {
                self.stream.send(&close).await?;
                self.stream.packet().await?; // a reset that overtakes it would leave the connection open
                self.stream.send(&unregister).await
            };
            drop(timeout(Duration::from_millis(100), goodbye).await); // nothing depends on it
        }
        self.stream.close().await;
    }
}

/// What a whole request's refusal means for the device.
pub(super) fn refused(answer: &Answer<'_>) -> DriverError {
    let reason = answer.status.meaning();
    match answer.status.general {
        0x01 | 0x07 => DriverError::NotConnected(reason),
        _ => DriverError::Refused { reason, code: answer.status.code() },
    }
}
