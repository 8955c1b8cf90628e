//! One connection of the load: it logs in and subscribes with blocking calls; afterwards it reads and writes without
//! waiting. Plain TCP or TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::packet::{self, Packet, QosLevel, kind, next_packet};

/// For an answer to CONNECT or SUBSCRIBE; a broker may hash passwords, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach a broker.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) login: Option<(String, String)>,
    /// With it the connection is encrypted.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// The beginning of a packet whose rest has not come.
    leftover: Vec<u8>,
}

impl Connection {
    /// Connects and logs in.
    pub(crate) fn open(door: &Door, client_id: &str, clean: bool) -> Result<Connection, String> {
        let mut connection = Connection::begin(door, client_id, clean)?;
        connection.finish()?;
        Ok(connection)
    }

    /// Connects and sends CONNECT; the answer is awaited by [`Connection::finish`].
    pub(crate) fn begin(door: &Door, client_id: &str, clean: bool) -> Result<Connection, String> {
        let failed = |error: io::Error| format!("{client_id} at {}: {error}", door.address);
        let stream = TcpStream::connect(door.address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let tls = door.tls.as_ref().map(|config| {
            let name = ServerName::from(door.address.ip());
            ClientConnection::new(Arc::clone(config), name).map(Box::new).map_err(|error| error.to_string())
        });
        let mut connection = Connection { stream, tls: tls.transpose()?, leftover: Vec::new() };
        let login = door.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        connection.write_whole(&packet::connect(client_id, clean, login)).map_err(failed)?;
        Ok(connection)
    }

    /// Waits for the answer to CONNECT.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let body = self.answer(kind::CONNACK)?;
        match body.get(1) {
            Some(0) => Ok(()),
            code => Err(format!("the broker refuses the login: CONNACK {code:?}")),
        }
    }

    /// Subscribes and waits for the answer.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QosLevel) -> Result<(), String> {
        self.write_whole(&packet::subscribe(filter, qos)).map_err(|error| error.to_string())?;
        match self.answer(kind::SUBACK)?.get(2) {
            Some(granted) if *granted == qos => Ok(()),
            code => Err(format!("the broker refuses to subscribe {filter}: SUBACK {code:?}")),
        }
    }

    /// Says goodbye, so that a will or a take-over plays no part.
    pub(crate) fn close(mut self) -> Result<(), String> {
        self.stream.set_nonblocking(false).map_err(|error| error.to_string())?;
        self.write_whole(&packet::DISCONNECT).map_err(|error| error.to_string())
    }

    /// From now on nothing waits; `registry` tells when there is something to read, or room to write.
    pub(crate) fn register(&self, registry: &Registry, token: usize) -> Result<(), String> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.stream
            .set_nonblocking(true)
            .and_then(|()| registry.register(&mut SourceFd(&self.stream.as_raw_fd()), Token(token), interest))
            .map_err(|error| format!("cannot watch a socket: {error}"))
    }

    /// Reads until nothing more is there and gives each whole packet to `each`. True if bytes came.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(Packet<'_>),
    ) -> Result<bool, String> {
        let mut came = false;
        loop {
            let kept = self.leftover.len();
            if kept >= buffer.len() {
                return Err("a packet is larger than the load's buffer".into());
            }
            buffer[..kept].copy_from_slice(&self.leftover);
            let got = match self.read_some(&mut buffer[kept..]) {
                Ok(0) => return Err("the broker closed a connection".into()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(came),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("read: {error}")),
            };
            came = true;
            let mut rest = &buffer[..kept + got];
            while let Some(packet) = next_packet(&mut rest) {
                each(packet);
            }
            self.leftover.clear();
            self.leftover.extend_from_slice(rest);
            // A short read says that the socket is empty; TLS hands out record by record.
            if self.tls.is_none() && kept + got < buffer.len() {
                return Ok(true);
            }
        }
    }

    /// Writes what the socket takes; 0 if it is full.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        match self.write_some(bytes) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(format!("write: {error}")),
        }
    }

    fn write_whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_some(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.write(bytes) };
        while tls.is_handshaking() {
            tls.complete_io(&mut self.stream)?;
        }
        let written = tls.writer().write(bytes)?;
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Sends what TLS has encrypted and the socket had no room for.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("write: {error}")),
            }
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Reads, blocking, up to the wanted answer; what comes before it is passed over, what comes after it is kept.
    fn answer(&mut self, wanted: u8) -> Result<Vec<u8>, String> {
        let mut buffer = [0; 4096];
        loop {
            let mut rest = self.leftover.as_slice();
            while let Some(packet) = next_packet(&mut rest) {
                if packet.kind() == wanted {
                    let (body, rest) = (packet.body.to_vec(), rest.to_vec());
                    self.leftover = rest;
                    return Ok(body);
                }
            }
            match self.read_some(&mut buffer) {
                Ok(0) => return Err("the broker closed a connection during log-in".into()),
                Ok(got) => self.leftover.extend_from_slice(&buffer[..got]),
                Err(error) => return Err(format!("no answer to log-in or subscribe: {error}")),
            }
        }
    }
}
