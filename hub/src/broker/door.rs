//! TEMPORARY plain TCP door.
use super::BrokerError;
use super::access::{AccessBook, Credentials, Login};
use super::core::CoreHandle;
use crate::config::EmbeddedBroker;
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

pub(super) struct Slot;
pub(super) struct Arrival {
    pub transport: Transport,
    pub leftover: Vec<u8>,
    pub connect: proto::mqtt::ConnectOwned,
    pub login: Login,
    pub peer: SocketAddr,
    pub listener: Arc<str>,
    pub slot: Slot,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransportKind {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
}
pub(super) struct Transport(std::net::TcpStream);
impl Transport {
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    pub fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    pub fn wants_write(&self) -> bool {
        false
    }
    pub fn kind(&self) -> TransportKind {
        TransportKind::Tcp
    }
    pub fn close(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}
impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

pub(super) async fn start(
    config: &EmbeddedBroker,
    access: AccessBook,
    core: CoreHandle,
    _metrics: &Metrics,
    tasks: &Tasks,
) -> Result<Option<SocketAddr>, BrokerError> {
    let listen = config.listen;
    let failed = |error: io::Error| BrokerError::Listen { listen, why: error.to_string() };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let anonymous_read = config.anonymous_read;
    let packet_max = config.limits.packet_bytes;
    let inner = tasks.clone();
    let shutdown = tasks.shutdown();
    tasks.spawn(TaskKind::Server, "door", async move {
        loop {
            let (stream, peer) = tokio::select! { a = listener.accept() => match a { Ok(a) => a, Err(_) => continue }, () = shutdown.cancelled() => return Ok::<_, std::convert::Infallible>(()) };
            let (access, core) = (access.clone(), core.clone());
            inner.spawn(TaskKind::Server, "hello", async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = stream;
                stream.set_nodelay(true).ok();
                let mut bytes = Vec::new();
                let (connect, total) = loop {
                    let mut chunk = [0; 2048];
                    let n = match stream.read(&mut chunk).await { Ok(0) | Err(_) => return Ok::<_, std::convert::Infallible>(()), Ok(n) => n };
                    bytes.extend_from_slice(&chunk[..n]);
                    match proto::mqtt::frame(&bytes, packet_max) {
                        Ok(Some(frame)) => match proto::mqtt::decode_connect(frame) { Ok(c) => break (c.to_owned(), frame.total), Err(_) => return Ok(()) },
                        Ok(None) => {}
                        Err(_) => return Ok(()),
                    }
                };
                let login = access.login(Credentials { user: connect.user.as_deref(), password: connect.password.as_deref(), certificate: None, peer, loopback: true, anonymous_read }).await;
                let login = match login { Ok(login) => login, Err(refusal) => {
                    let mut out = Vec::new();
                    proto::mqtt::encode::connack(&mut out, connect.version, &proto::mqtt::encode::ConnAckOut { reason: refusal.reason, ..Default::default() });
                    stream.write_all(&out).await.ok();
                    return Ok(());
                }};
                let leftover = bytes[total..].to_vec();
                let Ok(stream) = stream.into_std() else { return Ok(()) };
                drop(core.arrive(Arrival { transport: Transport(stream), leftover, connect, login, peer, listener: "plain".into(), slot: Slot }));
                Ok(())
            });
        }
    });
    Ok(Some(address))
}
