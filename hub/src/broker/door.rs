//! The door of the hub's own broker: everything that a stranger can reach, from accept to login.
//!
//! ```text
//! accept ─► place ─► [ClientHello whole] ─► [TLS] ─► [upgrade] ─► CONNECT ─► login ─► Arrival, to the core
//!             └ none: closed                                        └ refused: CONNACK, closed
//! ```
//!
//! - Nothing of it runs on the core's thread; an accept waits for no handshake, no slow client and no password.
//! - One deadline ([`DEADLINE`]) from accept to login.
//! - Until then a connection costs at most 4 KB, and an idle one its socket and its task: TLS state is made only when the
//!   whole ClientHello waits in the socket, and that, and a CONNECT of more than 2 KiB, takes bytes from a budget
//!   that all strangers share, one address at most half of it ([`places`]). Who gets none waits, at no cost.
//! - TLS handshakes compute on half of the cores at most, so that there is always one for the next accept.
//! - A first packet that is not a CONNECT closes the connection without an answer; a wrong CONNECT and a refused login
//!   are answered with CONNACK in the client's version, where that has a code for it.
//! - What the core does: the session, and the CONNACK of a client that is welcome.
//! - The client's rights are asked for its will; wrong passwords are slowed down by [`access`](super::access).

mod greeting;
mod outcome;
mod places;
mod tls_stream;
mod transport;
mod upgrade;
mod websocket;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::mqtt::ConnectOwned;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::Metrics;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::access::{AccessBook, ClientCertificate, Login};
use crate::config::broker::Protocol;
use crate::guesses::{Guesses, neighbourhood};
use outcome::{Outcome, Outcomes};
pub(super) use places::Slot;
use places::{Full, Places};
pub(super) use transport::{Transport, TransportKind};

/// From accept to login: a person's slow link, and a hub that has just started and hashes a thousand passwords.
const DEADLINE: Duration = Duration::from_secs(10);
/// Connections that the kernel holds until they are accepted: a burst of a whole plant.
const BACKLOG: u32 = 1_024;
/// After an accept failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Failed handshakes of one address in the log, and how soon the next; more are counted only.
const LOGGED: u32 = 5;
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Addresses that this is remembered of.
const ADDRESSES_MAX: usize = 1_024;

/// A logged-in client.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Its bytes. Read until `WouldBlock` at once: some may wait inside already.
    pub(super) transport: Transport,
    /// MQTT bytes that came behind the CONNECT.
    pub(super) leftover: Vec<u8>,
    /// Its CONNECT, without the password.
    pub(super) connect: ConnectOwned,
    /// Who it is.
    pub(super) login: Login,
    /// Where it is.
    pub(super) peer: SocketAddr,
    /// The listener that it came through, as `address:port`.
    pub(super) listener: Arc<str>,
    /// Its place among the connections: dropping it frees it.
    pub(super) slot: Slot,
}

/// Gives the TLS configuration for the next handshake.
pub(super) type TlsConfig = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;
/// Reads the names of a client certificate that TLS verified; an error says what is wrong with it.
pub(super) type ReadCertificate =
    Arc<dyn Fn(&CertificateDer<'static>) -> Result<ClientCertificate, String> + Send + Sync>;
/// Takes an arrival; gives it back when there is no room for it now.
pub(super) type Reception = Arc<dyn Fn(Arrival) -> Result<(), Box<Arrival>> + Send + Sync>;

/// A bound listener.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    name: Arc<str>,
    protocol: Protocol,
    tls: Option<TlsConfig>,
    anonymous_read: bool,
}

/// What all listeners share.
pub(super) struct Door {
    access: AccessBook,
    reception: Reception,
    read_certificate: ReadCertificate,
    places: Places,
    /// Handshakes that compute at a time.
    handshakes: Semaphore,
    outcomes: Outcomes,
    logged: Guesses<IpAddr>,
    deadline: Duration,
}

impl Listener {
    /// Binds the address; port 0 takes a free one. `anonymous_read`: clients without a login may read.
    pub(super) fn bind(
        address: SocketAddr,
        protocol: Protocol,
        tls: Option<TlsConfig>,
        anonymous_read: bool,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?; // a restarted hub need not wait for its old connections
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?.into_std()?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address, name: address.to_string().into(), protocol, tls, anonymous_read })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Door {
    /// A door for `connections` at a time, `per_address` of them from one address.
    pub(super) fn new(
        access: AccessBook,
        reception: Reception,
        read_certificate: ReadCertificate,
        (connections, per_address): (usize, usize),
        metrics: &Metrics,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Door {
            access,
            reception,
            read_certificate,
            places: Places::new(connections, per_address),
            handshakes: Semaphore::new((cores / 2).max(1)),
            outcomes: Outcomes::new(metrics),
            logged: Guesses::new(LOGGED, LOGGED_EVERY, ADDRESSES_MAX),
            deadline: DEADLINE,
        }
    }

    /// Opens it: one task for each listener, which ends at shutdown together with those who are not logged in.
    pub(super) fn open(self, listeners: Vec<Listener>, tasks: &Tasks) {
        let door = Arc::new(self);
        for listener in listeners {
            let name = format!("MQTT listener {}", listener.name);
            let (door, shutdown) = (Arc::clone(&door), tasks.shutdown());
            tasks.spawn(TaskKind::Server, name, door.attend(listener, shutdown));
        }
    }

    async fn attend(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) -> io::Result<()> {
        let listener = Arc::new(listener);
        let socket = awaited(listener.socket.try_clone()?)?;
        let mut guests = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&socket) => match accepted {
                    Ok((socket, peer)) => self.welcome(&listener, socket, peer, &mut guests),
                    Err(error) => self.accept_failed(&listener, &error, &shutdown).await,
                },
                Some(ended) = guests.join_next() => self.ended(ended),
            }
            while let Some(ended) = guests.try_join_next() {
                self.ended(ended);
            }
        }
        guests.shutdown().await;
        Ok(())
    }

    /// Gives an accepted connection a place and a task, or closes it.
    fn welcome(
        self: &Arc<Self>,
        listener: &Arc<Listener>,
        socket: TcpStream,
        peer: SocketAddr,
        guests: &mut JoinSet<Outcome>,
    ) {
        let slot = match self.places.take(neighbourhood(peer.ip())) {
            Ok(slot) => slot,
            Err(full) => {
                let why = match full {
                    Full::All => Outcome::NoPlace,
                    Full::Address => Outcome::NoPlaceForAddress,
                };
                if self.is_logged(peer) {
                    tracing::warn!(%peer, listener = %listener.name, "MQTT connection closed: {why}");
                }
                self.outcomes.count(why);
                return;
            }
        };
        match Transport::accepted(socket) {
            Ok(transport) => {
                guests.spawn(greeting::greet(Arc::clone(self), Arc::clone(listener), transport, peer, slot));
            }
            Err(_) => self.outcomes.count(Outcome::Lost),
        }
    }

    async fn accept_failed(&self, listener: &Listener, error: &io::Error, shutdown: &CancellationToken) {
        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
            return; // the client was gone before it was accepted
        }
        self.outcomes.count(Outcome::AcceptFailed);
        if self.is_logged(listener.address) {
            tracing::warn!(listener = %listener.name, %error, "MQTT listener cannot accept for now");
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn ended(&self, ended: Result<Outcome, tokio::task::JoinError>) {
        match ended {
            Ok(outcome) => self.outcomes.count(outcome),
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "a connection's task failed");
                self.outcomes.count(Outcome::Failed);
            }
        }
    }

    /// Whether what went wrong with this address shall be in the log.
    fn is_logged(&self, peer: SocketAddr) -> bool {
        self.logged.take(neighbourhood(peer.ip()), Instant::now()).is_ok()
    }
}

/// Has tokio watch a socket.
#[allow(
    deprecated,
    reason = "sound for what is passed here: a socket that is owned and keeps its descriptor"
)]
fn awaited<T: AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(socket)
}

async fn accept(socket: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| socket.get_ref().accept()) {
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(accepted) => return accepted,
            Err(_) => {} // nobody there after all
        }
    }
}

#[cfg(test)]
mod tests;
