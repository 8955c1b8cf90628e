//! TCP to a controller that speaks in packets with their length in front: opened, written and read within a deadline.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DriverError;

/// Bytes taken from the socket at a time.
const CHUNK_BYTES: usize = 4096;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(100);

/// Connects; what is written and not yet sent dies with the connection.
pub(super) async fn connect(target: &str, deadline: Duration) -> Result<TcpStream, String> {
    let failed = |error: io::Error| format!("{target}: {error}");
    let connected = timeout(deadline, TcpStream::connect(target)).await;
    let stream =
        connected.map_err(|_| format!("{target} did not accept within {deadline:?}"))?.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // A write that waits in the socket for a broken line must not arrive when the line is mended: closing resets.
    stream.set_zero_linger().map_err(failed)?;
    Ok(stream)
}

/// The work's result, or that nothing came in time.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    timeout(deadline, work).await.unwrap_or(Err(DriverError::Silent(deadline)))
}

/// The length of the packet whose first bytes these are; none if there are too few yet.
pub(super) type Length = fn(&[u8]) -> Result<Option<usize>, DriverError>;

pub(super) struct PacketStream {
    stream: TcpStream,
    bytes: Vec<u8>,
    length: Length,
}

impl PacketStream {
    pub(super) async fn open(
        target: &str,
        deadline: Duration,
        length: Length,
    ) -> Result<PacketStream, DriverError> {
        let stream = connect(target, deadline).await.map_err(DriverError::NotConnected)?;
        Ok(PacketStream { stream, bytes: Vec::new(), length })
    }

    pub(super) async fn send(&mut self, packet: &[u8]) -> Result<(), DriverError> {
        self.stream.write_all(packet).await.map_err(|error| DriverError::NotConnected(error.to_string()))
    }

    /// The next packet. Never more than one packet's bytes and a chunk are kept.
    pub(super) async fn packet(&mut self) -> Result<Vec<u8>, DriverError> {
        loop {
            if let Some(length) = (self.length)(&self.bytes)?
                && self.bytes.len() >= length
            {
                return Ok(self.bytes.drain(..length).collect());
            }
            let mut chunk = [0; CHUNK_BYTES];
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(DriverError::NotConnected("the device closed the connection".into())),
                Ok(length) => self.bytes.extend(chunk.iter().take(length)),
                Err(error) => return Err(DriverError::NotConnected(error.to_string())),
            }
        }
    }

    /// Says goodbye. Nothing depends on it: the socket is closed by the drop in any case.
    pub(super) async fn close(mut self) {
        drop(timeout(GOODBYE, self.stream.shutdown()).await);
    }
}
