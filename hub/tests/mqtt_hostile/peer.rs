//! A client of raw bytes that expects nothing: every wait ends with an error.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::hub_process::TOKEN;
use super::wire::{self, Connack, Connect, Packet, Property, Publish, Version};

/// What a busy machine may need for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
    version: Version,
}

/// A name that no other client has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A CONNECT of the tester: clean, without keep-alive.
pub(crate) fn connect(id: &str) -> Connect {
    Connect {
        version: Version::V5,
        id: id.into(),
        clean: true,
        keep_alive: 0,
        properties: Vec::new(),
        will: None,
        user: Some("tester".into()),
        password: Some(TOKEN.into()),
    }
}

impl Connect {
    /// With a session that lasts for an hour.
    pub(crate) fn lasting(mut self) -> Connect {
        self.clean = false;
        if self.version == Version::V5 {
            self.properties.push(Property::SessionExpiry(3600));
        }
        self
    }

    /// As MQTT 3.1.1.
    pub(crate) fn v3(mut self) -> Connect {
        self.version = Version::V3;
        self.properties.clear();
        self
    }

    /// Connects; the broker's refusal is an error.
    pub(crate) fn open(&self, address: SocketAddr) -> io::Result<(Peer, Connack)> {
        let mut peer = Peer::raw(address, self.version)?;
        peer.send(&self.bytes())?;
        match peer.next(PATIENCE)? {
            Packet::Connack(connack) if connack.code == 0 => Ok((peer, connack)),
            other => Err(io::Error::other(format!("{other:?} in answer to CONNECT"))),
        }
    }
}

impl Peer {
    /// A connection on which nothing was sent.
    pub(crate) fn raw(address: SocketAddr, version: Version) -> io::Result<Peer> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Peer { stream, received: Vec::new(), version })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet.
    pub(crate) fn next(&mut self, at_most: Duration) -> io::Result<Packet> {
        let until = Instant::now() + at_most;
        loop {
            let split =
                wire::split(&mut self.received).map_err(|wrong| io::Error::other(wrong.to_string()))?;
            if let Some(bytes) = split {
                return wire::read(&bytes, self.version).map_err(|wrong| io::Error::other(wrong.to_string()));
            }
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next packet that `pick` takes; others are dropped.
    pub(crate) fn find<T>(&mut self, pick: impl Fn(&Packet) -> Option<T>) -> io::Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            let packet = self.next(until.saturating_duration_since(Instant::now()))?;
            if let Some(found) = pick(&packet) {
                return Ok(found);
            }
        }
    }

    /// Subscribes; the codes.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> io::Result<Vec<u8>> {
        self.send(&wire::subscribe(self.version, 1, &[], filters))?;
        self.find(|packet| match packet {
            Packet::Suback { codes, .. } => Some(codes.clone()),
            _ => None,
        })
    }

    /// Publishes with QoS 1 and waits for the PUBACK; its code.
    pub(crate) fn say(&mut self, message: Publish) -> io::Result<u8> {
        let id = 1;
        self.send(&message.qos(1, id).bytes(self.version))?;
        self.find(|packet| match packet {
            Packet::Ack { kind: wire::PUBACK, code, .. } => Some(*code),
            _ => None,
        })
    }

    /// The next message; QoS 1 is acknowledged.
    pub(crate) fn hear(&mut self) -> io::Result<Publish> {
        let message = self.find(|packet| match packet {
            Packet::Publish(message) => Some(message.clone()),
            _ => None,
        })?;
        if message.qos == 1 {
            self.send(&wire::ack(wire::PUBACK, message.id))?;
        }
        Ok(message)
    }

    /// The code of the DISCONNECT that comes; none if the connection just ends.
    pub(crate) fn dismissal(&mut self) -> Option<u8> {
        self.find(|packet| match packet {
            Packet::Disconnect { code, .. } => Some(*code),
            _ => None,
        })
        .ok()
    }
}
