//! The byte stream of one client, whatever carries it: the same object in the door, where it is awaited, and in the
//! core, where it is polled. Non-blocking throughout; nothing here knows tasks or timers.
//!
//! TLS and WebSocket keep bytes that they have read but not handed out, and the poller knows nothing of them: whoever takes a
//! transport over reads until `WouldBlock` first, and after every wake-up.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use super::tls_stream::TlsSession;
use super::websocket::WebSocket;

/// What carries a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::broker) enum TransportKind {
    /// The bare stream.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket without TLS.
    WebSocket,
    /// WebSocket under TLS.
    SecureWebSocket,
}

/// The byte stream of one client.
#[derive(Debug)]
pub(in crate::broker) struct Transport {
    stream: Stream,
    websocket: Option<Box<WebSocket>>,
}

/// A socket, perhaps with TLS.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    tls: Option<Box<TlsSession>>,
}

impl Transport {
    /// A freshly accepted socket.
    pub(super) fn accepted(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Transport { stream: Stream { socket, tls: None }, websocket: None })
    }

    /// Puts TLS between; the handshake follows.
    pub(super) fn begin_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        self.stream.tls = Some(Box::new(TlsSession::new(config)?));
        Ok(())
    }

    /// Goes on with the handshake; `WouldBlock` until it is done.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        let Stream { socket, tls } = &mut self.stream;
        tls.as_mut().map_or(Ok(()), |tls| tls.handshake(socket))
    }

    /// The client's verified certificates, its own first.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.stream.tls.as_ref().map_or(&[], |tls| tls.certificates())
    }

    /// From now on the bytes are WebSocket frames; `unread` came behind the upgrade's head.
    pub(super) fn begin_websocket(&mut self, unread: Vec<u8>) {
        self.websocket = Some(Box::new(WebSocket::new(unread)));
    }

    /// Looks at bytes that have arrived at the socket without taking them.
    pub(super) fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.socket.peek(into)
    }

    /// Reads and forgets bytes of the socket, whatever they are; `Ok(0)` at the end.
    pub(super) fn discard(&mut self) -> io::Result<usize> {
        self.stream.socket.read(&mut [0; 2_048])
    }

    /// Plaintext MQTT bytes; `Ok(0)` at the end, `WouldBlock` when there are none now.
    pub(in crate::broker) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.websocket {
            None => self.stream.read(into),
            Some(websocket) => websocket.read(&mut self.stream, into),
        }
    }

    /// Takes plaintext MQTT bytes, some at least; `WouldBlock` when the socket and the buffers in between (64 KiB each for
    /// TLS and WebSocket) are full.
    pub(in crate::broker) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.websocket {
            None => self.stream.write(bytes),
            Some(websocket) => websocket.write(&mut self.stream, bytes),
        }
    }

    /// Sends on what was taken; `WouldBlock` if some of it still waits.
    pub(in crate::broker) fn flush(&mut self) -> io::Result<()> {
        match &mut self.websocket {
            None => self.stream.flush(),
            Some(websocket) => websocket.flush(&mut self.stream),
        }
    }

    /// Whether taken bytes wait for the socket: [`flush`](Self::flush) when it is writable.
    pub(in crate::broker) fn wants_write(&self) -> bool {
        self.stream.tls.as_ref().is_some_and(|tls| tls.wants_write())
            || self.websocket.as_ref().is_some_and(|websocket| websocket.wants_write())
    }

    /// What carries the bytes.
    pub(in crate::broker) fn kind(&self) -> TransportKind {
        match (&self.stream.tls, &self.websocket) {
            (None, None) => TransportKind::Tcp,
            (Some(_), None) => TransportKind::Tls,
            (None, Some(_)) => TransportKind::WebSocket,
            (Some(_), Some(_)) => TransportKind::SecureWebSocket,
        }
    }

    /// Says farewell in the language of its layers, as far as that can be sent at once, and ends the sending side. To
    /// be dropped afterwards.
    pub(in crate::broker) fn close(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            websocket.close(&mut self.stream);
        }
        let Stream { socket, tls } = &mut self.stream;
        if let Some(tls) = tls {
            tls.close(socket);
        }
        _ = socket.shutdown(Shutdown::Write); // fails only where the client is gone
    }
}

impl Stream {
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(into),
            Some(tls) => tls.read(&self.socket, into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => tls.write_vectored(&self.socket, &[IoSlice::new(bytes)]),
        }
    }

    pub(super) fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write_vectored(parts),
            Some(tls) => tls.write_vectored(&self.socket, parts),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&self.socket),
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket.as_fd()
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.socket.as_raw_fd()
    }
}
