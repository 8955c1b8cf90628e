//! One connection from accept to login: TLS, upgrade, CONNECT, login, in this order, within one deadline.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::mqtt::encode::{self, ConnAckOut};
use proto::mqtt::{self, ConnectOwned, DecodeError, Version, reason};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::time::{Instant, timeout, timeout_at};

use super::outcome::Outcome;
use super::places::{Share, Slot};
use super::upgrade::{self, HEAD_BYTES_MAX, Head};
use super::{Arrival, Door, Listener, Transport, awaited};
use crate::broker::access::{Credentials, Login};
use crate::config::broker::Protocol;

/// Bytes read at first: most CONNECTs are shorter.
const FIRST_BYTES: usize = 512;
/// A CONNECT up to this length is read without asking the budget.
const FREE_BYTES: usize = 2 * 1024;
/// A CONNECT whose every field has the standard's limit of 64 KiB: client id, will topic, will, user, password, and as
/// much again for properties. A larger one is refused.
const CONNECT_BYTES_MAX: usize = 384 * 1024;
/// What TLS takes until the login: rustls' state, the ClientHello, the certificates of both sides.
const TLS_BYTES: usize = 32 * 1024;
/// A ClientHello beyond this is read as it comes; today's have 0.3 to 2 KB.
const HELLO_BYTES_MAX: usize = 4 * 1024;
/// Time for a refused client to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of it that are read away meanwhile, so that the answer is not lost to a reset.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// A client that is not logged in yet.
struct Guest {
    fd: AsyncFd<Transport>,
    slot: Slot,
    peer: SocketAddr,
    /// A page from elsewhere opened the WebSocket.
    is_foreign: bool,
    /// What it took from the budget.
    shares: Vec<Share>,
}

/// Turned away: what is sent to it, why, and details for the log.
struct Turned {
    answer: Vec<u8>,
    outcome: Outcome,
    detail: Option<String>,
}

type Step<T> = Result<T, Turned>;

/// Sees one connection to its login, or off.
pub(super) async fn greet(
    door: Arc<Door>,
    listener: Arc<Listener>,
    transport: Transport,
    peer: SocketAddr,
    slot: Slot,
) -> Outcome {
    let deadline = Instant::now() + door.deadline;
    let Ok(fd) = awaited(transport) else { return Outcome::AcceptFailed };
    let mut guest = Guest { fd, slot, peer, is_foreign: false, shares: Vec::new() };
    let turned = match timeout_at(deadline, guest.introduce(&door, &listener)).await {
        Ok(Ok((connect, login, leftover))) => {
            let Guest { fd, slot, peer, .. } = guest;
            let listener = Arc::clone(&listener.name);
            let arrival =
                Arrival { transport: fd.into_inner(), leftover, connect, login, peer, listener, slot };
            return hand_over(&door, arrival);
        }
        Ok(Err(turned)) => turned,
        Err(_) => Turned::silently(Outcome::Late),
    };
    let Turned { answer, outcome, detail } = turned;
    let (name, detail) = (&listener.name, detail.unwrap_or_default());
    let worth_telling = matches!(outcome, Outcome::TlsFailed | Outcome::NotTls | Outcome::Room);
    if worth_telling && door.is_logged(peer) {
        tracing::warn!(%peer, listener = %name, %detail, "MQTT connection closed: {outcome}");
    } else {
        tracing::debug!(%peer, listener = %name, %detail, "MQTT connection closed: {outcome}");
    }
    if !answer.is_empty() {
        _ = timeout(FAREWELL, guest.farewell(&answer)).await;
    }
    guest.fd.get_mut().close();
    outcome
}

/// Gives a logged-in client to the core, or tells it that the core is busy.
fn hand_over(door: &Door, arrival: Arrival) -> Outcome {
    match (door.reception)(arrival) {
        Ok(()) => Outcome::LoggedIn,
        Err(mut back) => {
            let answer = refusal(back.connect.version, reason::SERVER_BUSY);
            _ = back.transport.write(&answer); // its socket has room: nothing was sent before
            back.transport.close();
            Outcome::Busy
        }
    }
}

impl Guest {
    async fn introduce(&mut self, door: &Door, listener: &Listener) -> Step<(ConnectOwned, Login, Vec<u8>)> {
        if listener.tls.is_some() {
            Box::pin(self.secure(door, listener)).await?;
        }
        if listener.protocol == Protocol::WebSocket {
            Box::pin(self.upgrade()).await?;
        }
        let (mut connect, leftover) = self.read_connect().await?;
        let login = Box::pin(self.log_in(door, listener, &connect)).await?;
        connect.password = None; // nobody needs it any more
        self.shares.clear();
        Ok((connect, login, leftover))
    }

    /// TLS, as soon as its first message is there.
    async fn secure(&mut self, door: &Door, listener: &Listener) -> Step<()> {
        let Some(tls) = &listener.tls else { return Ok(()) };
        drive(&mut self.fd, Interest::READABLE, |transport| whole_hello(transport)).await.map_err(
            |error| match error.kind() {
                ErrorKind::InvalidData => Turned::silently(Outcome::NotTls),
                _ => Turned::silently(Outcome::Lost),
            },
        )?;
        self.take_share(TLS_BYTES).await?;
        let failed = |error: io::Error| Turned {
            answer: Vec::new(),
            outcome: Outcome::TlsFailed,
            detail: Some(error.to_string()),
        };
        self.fd.get_mut().begin_tls(tls()).map_err(failed)?;
        loop {
            let Ok(turn) = door.handshakes.acquire().await else {
                return Err(Turned::silently(Outcome::Failed));
            };
            match self.fd.get_mut().handshake() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => drop(turn),
                done => return done.map_err(failed),
            }
            let interest = interest_of(self.fd.get_ref());
            let mut ready = self.fd.ready_mut(interest).await.map_err(failed)?;
            let Ok(_turn) = door.handshakes.acquire().await else {
                return Err(Turned::silently(Outcome::Failed));
            };
            let seen = ready.ready();
            match ready.try_io(|fd| fd.get_mut().handshake()) {
                Ok(done) => return done.map_err(failed),
                Err(_) => still_open(seen).map_err(failed)?,
            }
        }
    }

    /// The HTTP request that becomes a WebSocket.
    async fn upgrade(&mut self) -> Step<()> {
        let mut head = vec![0; HEAD_BYTES_MAX / 4];
        let mut filled = 0;
        loop {
            filled += self.read(&mut head[filled..]).await?;
            match upgrade::read(&head[..filled]) {
                Head::Upgrade(found) => {
                    self.is_foreign = found.is_foreign;
                    self.write(found.answer.as_bytes()).await.map_err(|_| Turned::silently(Outcome::Lost))?;
                    self.fd.get_mut().begin_websocket(head[found.head_bytes..filled].to_vec());
                    return Ok(());
                }
                Head::Refused(answer) => {
                    let answer = answer.as_bytes().to_vec();
                    return Err(Turned { answer, outcome: Outcome::BadUpgrade, detail: None });
                }
                Head::Partial if filled == head.len() => head.resize((2 * filled).min(HEAD_BYTES_MAX), 0),
                Head::Partial => {}
            }
        }
    }

    /// The first packet, which must be a CONNECT, and what came behind it.
    async fn read_connect(&mut self) -> Step<(ConnectOwned, Vec<u8>)> {
        let mut buffer = Vec::new();
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                let wanted =
                    mqtt::needed(&buffer).unwrap_or(0).clamp(FIRST_BYTES, (2 * filled).max(FIRST_BYTES));
                if wanted > FREE_BYTES {
                    self.take_share(wanted - filled.max(FREE_BYTES)).await?;
                }
                buffer.resize(wanted, 0);
            }
            filled += self.read(&mut buffer[filled..]).await?;
            if buffer[0] != 0x10 {
                return Err(Turned::silently(Outcome::NotMqtt));
            }
            match mqtt::frame(&buffer[..filled], CONNECT_BYTES_MAX) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    let connect = mqtt::decode_connect(frame).map_err(|error| wrong(&error, &buffer))?;
                    let connect = connect.to_owned();
                    return Ok((connect, buffer[frame.total..filled].to_vec()));
                }
                Err(error) => return Err(wrong(&error, &buffer[..filled])),
            }
        }
    }

    /// What the broker's users decide: who this is, and whether the will is allowed.
    async fn log_in(&mut self, door: &Door, listener: &Listener, connect: &ConnectOwned) -> Step<Login> {
        let refused = |code: u8, outcome: Outcome| Turned {
            answer: refusal(connect.version, code),
            outcome,
            detail: None,
        };
        if connect.version == Version::V311 && connect.client_id.is_empty() && !connect.clean_start {
            return Err(refused(reason::CLIENT_IDENTIFIER_NOT_VALID, Outcome::BadConnect)); // 3.1.1 [MQTT-3.1.3-8]
        }
        if connect.authentication_method.is_some() {
            return Err(refused(reason::BAD_AUTHENTICATION_METHOD, Outcome::Method)); // 5.0 §4.12
        }
        let certificate = self.fd.get_ref().certificates().first().filter(|_| !self.is_foreign);
        let certificate = certificate.map(|der| (door.read_certificate)(der)).transpose();
        let certificate = certificate.map_err(|why| Turned {
            answer: refusal(connect.version, reason::NOT_AUTHORIZED),
            outcome: Outcome::Refused,
            detail: Some(why),
        })?;
        let shown = Credentials {
            user: connect.user.as_deref(),
            password: connect.password.as_deref(),
            certificate,
            peer: self.peer,
            loopback: self.peer.ip().to_canonical().is_loopback(),
            anonymous_read: listener.anonymous_read && !self.is_foreign,
        };
        let login = door.access.login(shown).await;
        let login = login.map_err(|refusal| refused(refusal.reason, Outcome::Refused))?;
        if connect.will.as_ref().is_some_and(|will| !login.rights.may_publish(&will.topic)) {
            return Err(Turned {
                detail: Some(format!("{} may not publish its will", login.identity.name())),
                ..refused(reason::NOT_AUTHORIZED, Outcome::Refused)
            });
        }
        if !self.slot.seat() {
            return Err(refused(reason::QUOTA_EXCEEDED, Outcome::Room));
        }
        Ok(login)
    }

    /// Waits for bytes of the budget.
    async fn take_share(&mut self, bytes: usize) -> Step<()> {
        let share = self.slot.share(bytes).await.ok_or_else(|| Turned::silently(Outcome::BadConnect))?;
        self.shares.push(share);
        Ok(())
    }

    /// Some bytes; none is the end.
    async fn read(&mut self, into: &mut [u8]) -> Step<usize> {
        match drive(&mut self.fd, Interest::READABLE, |transport| transport.read(into)).await {
            Ok(0) => Err(Turned::silently(Outcome::Lost)),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(Turned::silently(Outcome::NotMqtt)),
            Err(_) => Err(Turned::silently(Outcome::Lost)),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let step = |transport: &mut Transport| transport.write(bytes);
            let count = drive(&mut self.fd, Interest::WRITABLE, step).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        drive(&mut self.fd, Interest::WRITABLE, Transport::flush).await
    }

    /// Sends the last words and waits until they are read or the client hangs up.
    async fn farewell(&mut self, answer: &[u8]) -> io::Result<()> {
        self.write(answer).await?;
        self.fd.get_mut().close();
        let mut drained = 0;
        while drained < FAREWELL_BYTES_MAX {
            match drive(&mut self.fd, Interest::READABLE, Transport::discard).await? {
                0 => break,
                count => drained += count,
            }
        }
        Ok(())
    }
}

impl Turned {
    fn silently(outcome: Outcome) -> Self {
        Turned { answer: Vec::new(), outcome, detail: None }
    }
}

/// Does a step when it can be done: at once, or when the socket is ready.
async fn drive<T>(
    fd: &mut AsyncFd<Transport>,
    interest: Interest,
    mut step: impl FnMut(&mut Transport) -> io::Result<T>,
) -> io::Result<T> {
    match step(fd.get_mut()) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        done => return done,
    }
    loop {
        let interest = interest | interest_of(fd.get_ref());
        let mut ready = fd.ready_mut(interest).await?;
        let seen = ready.ready();
        match ready.try_io(|fd| step(fd.get_mut())) {
            Ok(done) => return done,
            Err(_) => still_open(seen)?,
        }
    }
}

/// An error if the client hung up before a step that could not be done: it never will be, and tokio would call such a
/// socket ready for ever.
fn still_open(ready: Ready) -> io::Result<()> {
    if ready.is_read_closed() || ready.is_write_closed() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn interest_of(transport: &Transport) -> Interest {
    if transport.wants_write() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

/// Looks whether the first TLS record is there as a whole, without taking it: until then a client costs nothing here.
fn whole_hello(transport: &Transport) -> io::Result<()> {
    const HANDSHAKE: u8 = 22; // content type, RFC 8446 §5.1
    let mut bytes = [0; HELLO_BYTES_MAX];
    let seen = transport.peek(&mut bytes)?;
    match bytes[..seen] {
        [] => Err(ErrorKind::UnexpectedEof.into()),
        [first, ..] if first != HANDSHAKE => Err(ErrorKind::InvalidData.into()),
        [_, _, _, high, low, ..] => {
            let record = 5 + usize::from(u16::from_be_bytes([high, low]));
            if seen >= record.min(HELLO_BYTES_MAX) { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        }
        _ => Err(ErrorKind::WouldBlock.into()),
    }
}

/// A CONNACK that refuses; empty where the version has no code for it and the connection is closed without an answer.
fn refusal(version: Version, code: u8) -> Vec<u8> {
    let mut answer = Vec::new();
    if version == Version::V5 || reason::connect_return_code(code).is_some() {
        encode::connack(&mut answer, version, &ConnAckOut { reason: code, ..ConnAckOut::default() });
    }
    answer
}

/// Turns away a CONNECT that cannot be read, in the form of the version that it says it has.
fn wrong(error: &DecodeError, bytes: &[u8]) -> Turned {
    let level = level(bytes);
    let outcome = match error {
        DecodeError::UnsupportedVersion { .. } | DecodeError::UnsupportedProtocol { .. } => Outcome::Version,
        _ => Outcome::BadConnect,
    };
    let answer = match (level, outcome) {
        // 5.0 §3.1.2.2: a server that speaks 5.0 tells one that speaks something later in 5.0's form.
        (Some(5..=0x7F), _) => refusal(Version::V5, error.reason()),
        // 3.1.1 [MQTT-3.1.2-2]; also for level 0x84, with which bridges of mosquitto ask whether a peer is one too.
        (Some(_), Outcome::Version) => refusal(Version::V311, error.reason()),
        _ => Vec::new(), // 3.1.1 §3.1.4 item 1
    };
    Turned { answer, outcome, detail: Some(error.to_string()) }
}

/// The protocol level in the first bytes of a CONNECT, of which the rest may be missing.
fn level(bytes: &[u8]) -> Option<u8> {
    let length = bytes.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let body = bytes.get(1 + length..)?;
    let name = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + name).copied()
}
