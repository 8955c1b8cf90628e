//! One connection to an S7: ISO-on-TCP, the PDU length granted, one request at a time.
//!
//! A connection that failed once is dropped by its owner: a late answer must never be taken for the next one.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::telegram::{self, PACKET_BYTES_MAX, Trouble};
use crate::drivers::DriverError;
use crate::pace::Pace;

/// Late answers that are skipped.
const LATE_MAX: usize = 16;

/// How to reach the CPU.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `host:port`.
    pub(super) target: String,
    pub(super) local_tsap: u16,
    pub(super) remote_tsap: u16,
    /// PDU length to ask for.
    pub(super) pdu: u16,
    pub(super) deadline: Duration,
}

pub(super) struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    reference: u16,
    deadline: Duration,
    pace: Pace,
    /// What was granted.
    pub(super) pdu: u16,
}

impl Connection {
    /// TCP, then COTP, then the PDU length; each within the deadline.
    pub(super) async fn open(settings: &Settings, pace: Pace) -> Result<Connection, DriverError> {
        let Settings { target, deadline, .. } = settings;
        let failed = |error: io::Error| DriverError::NotConnected(format!("{target}: {error}"));
        let stream = timeout(*deadline, TcpStream::connect(target))
            .await
            .map_err(|_| DriverError::NotConnected(format!("{target} did not accept within {deadline:?}")))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        // A write that waits in the socket for a broken line must die with the connection: closing resets.
        stream.set_zero_linger().map_err(failed)?;
        let (bytes, pdu) = (Vec::new(), settings.pdu);
        let mut connection = Connection { stream, bytes, reference: 0, deadline: *deadline, pace, pdu };
        let asked = telegram::connect(settings.local_tsap, settings.remote_tsap);
        let granted = connection.within(async |this: &mut Self| {
            this.send(&asked).await?;
            this.packet().await
        });
        telegram::check_connected(&granted.await?).map_err(|refused| match trouble(refused) {
            DriverError::Malformed(why) => DriverError::NotConnected(format!("{target}: {why}")),
            other => other,
        })?;
        let (reference, answer) =
            connection.exchange(|reference| telegram::setup(reference, settings.pdu)).await?;
        connection.pdu = telegram::check_setup(&answer, reference, settings.pdu).map_err(trouble)?;
        Ok(connection)
    }

    /// Sends a request; its reference and the PDU of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: impl FnOnce(u16) -> Vec<u8>,
    ) -> Result<(u16, Vec<u8>), DriverError> {
        self.pace.turn().await;
        self.reference = self.reference.wrapping_add(1);
        let (reference, begun) = (self.reference, Instant::now());
        let request = request(reference);
        let answer = self
            .within(async |this: &mut Self| {
                this.send(&request).await?;
                for _ in 0..LATE_MAX {
                    let pdu = this.pdu().await?;
                    if telegram::reference(&pdu) == Some(reference) {
                        return Ok(pdu);
                    }
                }
                Err(DriverError::Malformed(format!("{LATE_MAX} answers that nobody asked for")))
            })
            .await;
        match &answer {
            Ok(_) => self.pace.answered(begun.elapsed()),
            Err(_) => self.pace.failed(),
        }
        Ok((reference, answer?))
    }

    async fn within<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let deadline = self.deadline;
        timeout(deadline, work(self)).await.unwrap_or(Err(DriverError::Silent(deadline)))
    }

    async fn send(&mut self, packet: &[u8]) -> Result<(), DriverError> {
        self.stream.write_all(packet).await.map_err(|error| DriverError::NotConnected(error.to_string()))
    }

    /// The next packet. Never more than two packets' bytes are kept.
    async fn packet(&mut self) -> Result<Vec<u8>, DriverError> {
        loop {
            if let Some(length) = telegram::packet_length(&self.bytes).map_err(trouble)?
                && self.bytes.len() >= length
            {
                return Ok(self.bytes.drain(..length).collect());
            }
            let mut chunk = [0; PACKET_BYTES_MAX];
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(DriverError::NotConnected("the PLC closed the connection".into())),
                Ok(length) => self.bytes.extend(chunk.iter().take(length)),
                Err(error) => return Err(DriverError::NotConnected(error.to_string())),
            }
        }
    }

    /// The next PDU, of as many packets as it was cut into.
    async fn pdu(&mut self) -> Result<Vec<u8>, DriverError> {
        let mut pdu = Vec::new();
        loop {
            let packet = self.packet().await?;
            let (part, is_last) = telegram::data_part(&packet).map_err(trouble)?;
            pdu.extend(part);
            if pdu.len() > PACKET_BYTES_MAX {
                return Err(DriverError::Malformed("a PDU without end".into()));
            }
            if is_last {
                return Ok(pdu);
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        // Nothing depends on it: the socket is closed by the drop in any case.
        drop(timeout(Duration::from_millis(100), self.stream.shutdown()).await);
    }
}

/// An answer that is none ends the connection; a refusal of connection or setup too.
pub(super) fn trouble(trouble: Trouble) -> DriverError {
    match trouble {
        Trouble::Malformed(why) => DriverError::Malformed(why),
        Trouble::Refused(class, code) => DriverError::Refused {
            reason: telegram::meaning(class, code),
            code: u16::from_be_bytes([class, code]),
        },
    }
}
