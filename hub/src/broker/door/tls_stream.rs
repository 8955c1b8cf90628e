//! TLS over a non-blocking socket that the caller holds: what is decrypted is read, what is written is buffered up to a bound.
//!
//! rustls keeps what the socket does not take; [`TlsSession::wants_write`] says so, and [`TlsSession::flush`] goes on.
//! Nothing here waits.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};

/// Bytes that wait for the socket at most: four records, so that one can be written while another is encrypted.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;

/// The server's side of a TLS connection.
#[derive(Debug)]
pub(super) struct TlsSession {
    session: ServerConnection,
}

impl TlsSession {
    /// Prepares the server's side; the handshake is done by [`handshake`](Self::handshake). Takes some KB.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(BUFFERED_BYTES_MAX));
        Ok(TlsSession { session })
    }

    /// Goes on with the handshake; `WouldBlock` until it is done. An alert is sent where the client is at fault.
    pub(super) fn handshake(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.session.is_handshaking() || self.session.wants_write() {
            if self.session.wants_write() {
                self.session.write_tls(&mut socket)?;
                continue;
            }
            if self.session.read_tls(&mut socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.process(socket)?;
        }
        Ok(())
    }

    fn process(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        if let Err(error) = self.session.process_new_packets() {
            _ = self.session.write_tls(&mut socket); // the alert, if it can go at once
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    /// The client's certificates, its own first; verified during the handshake.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.session.peer_certificates().unwrap_or_default()
    }

    /// Decrypted bytes; `Ok(0)` at the end, with or without a farewell: MQTT says itself what is complete.
    pub(super) fn read(&mut self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            match self.session.reader().read(into.get_mut(filled..).unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                Ok(read) if read > 0 && filled + read < into.len() => {
                    filled += read; // records are short: as many as there are make one turn of the core
                    continue;
                }
                Ok(read) => return Ok(filled + read),
                Err(error) => return Err(error),
            }
            match self.take_records(socket) {
                Err(_) if filled > 0 => return Ok(filled), // the next call meets it again
                taken => taken?,
            }
        }
    }

    /// Reads from the socket and decrypts what is whole.
    fn take_records(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        self.session.read_tls(&mut socket)?; // 0 is seen by the reader
        self.process(socket)?;
        if self.session.wants_write() {
            self.flush_some(socket)?; // key updates, and alerts
        }
        Ok(())
    }

    /// Encrypts what fits the bound and writes what the socket takes; `WouldBlock` when nothing fits.
    pub(super) fn write_vectored(&mut self, socket: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.session.writer().write_vectored(parts)?;
        self.flush_some(socket)?;
        if taken == 0 && parts.iter().any(|part| !part.is_empty()) {
            taken = self.session.writer().write_vectored(parts)?; // there may be room now
            self.flush_some(socket)?;
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        Ok(taken)
    }

    /// Writes what the socket takes.
    fn flush_some(&mut self, socket: &TcpStream) -> io::Result<()> {
        match self.flush(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    /// Writes everything that waits; `WouldBlock` if the socket does not take it all.
    pub(super) fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut socket)?;
        }
        Ok(())
    }

    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Says farewell as far as it can be said at once.
    pub(super) fn close(&mut self, socket: &TcpStream) {
        self.session.send_close_notify();
        _ = self.flush(socket);
    }
}
