//! One connection to an S7: ISO-on-TCP, the PDU length granted, one request at a time.
//!
//! A connection that failed once is dropped by its owner: a late answer must never be taken for the next one.

use std::time::Duration;

use super::telegram::{self, PACKET_BYTES_MAX, Trouble};
use crate::drivers::DriverError;
use crate::drivers::packet_stream::{PacketStream, within};
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
    stream: PacketStream,
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
        let length = |bytes: &[u8]| telegram::packet_length(bytes).map_err(trouble);
        let mut stream = PacketStream::open(target, *deadline, length).await?;
        let asked = telegram::connect(settings.local_tsap, settings.remote_tsap);
        let granted = within(*deadline, async {
            stream.send(&asked).await?;
            stream.packet().await
        });
        telegram::check_connected(&granted.await?).map_err(|refused| match trouble(refused) {
            DriverError::Malformed(why) => DriverError::NotConnected(format!("{target}: {why}")),
            other => other,
        })?;
        let mut connection =
            Connection { stream, reference: 0, deadline: *deadline, pace, pdu: settings.pdu };
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
        self.reference = self.reference.wrapping_add(1);
        let reference = self.reference;
        let (request, pace) = (request(reference), self.pace.clone());
        let answer = pace.request(within(self.deadline, async {
            self.stream.send(&request).await?;
            for _ in 0..LATE_MAX {
                let pdu = self.pdu().await?;
                if telegram::reference(&pdu) == Some(reference) {
                    return Ok(pdu);
                }
            }
            Err(DriverError::Malformed(format!("{LATE_MAX} answers that nobody asked for")))
        }));
        Ok((reference, answer.await?))
    }

    /// The next PDU, of as many packets as it was cut into.
    async fn pdu(&mut self) -> Result<Vec<u8>, DriverError> {
        let mut pdu = Vec::new();
        loop {
            let packet = self.stream.packet().await?;
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
    pub(super) async fn close(self) {
        self.stream.close().await;
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
