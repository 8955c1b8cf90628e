//! What hostile clients do: each attack goes on until it is told to stop, and holds what it holds until then.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::hub_process::Hub;
use super::kills::Random;
use super::peer::{Peer, connect, unique};
use super::wire::{self, Property, Publish, Version, Will};

/// Where the attacks go.
pub(crate) struct Target {
    pub(crate) mqtt: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) is_over: AtomicBool,
    /// Connections, packets or rounds, by the attacks' own count.
    pub(crate) done: AtomicU64,
}

impl Target {
    pub(crate) fn of(hub: &Hub) -> Target {
        let (is_over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        Target { mqtt: hub.address, websocket: hub.websocket, tls: hub.tls, is_over, done }
    }

    /// Whether to go on; a short rest, so that there is some machine left for everybody.
    fn goes_on(&self, rest: Duration) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(rest);
        !self.is_over.load(Ordering::Relaxed)
    }

    fn peer(&self) -> Peer {
        loop {
            match connect(&unique("hostile")).open(self.mqtt) {
                Ok((peer, _)) => return peer,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn linger(&self) {
        while self.goes_on(Duration::from_millis(20)) {}
    }
}

const SHORT: Duration = Duration::from_millis(1);

/// A connection from another address of this machine, so that the limit per address is not everybody's.
fn from_elsewhere(to: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)))?;
        let stream = socket.connect(to).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}

/// Packets that were whole, with some bytes changed, left out or doubled.
pub(crate) fn mutated(target: &Target) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let long = "l/".repeat(60);
    let packets = [
        connect("mutant").bytes(),
        wire::subscribe(Version::V5, 2, &[], &[("a/#", 1), ("$share/g/b", 2)]),
        Publish::new("a/b", "payload").qos(2, 3).with(&[Property::user("k", "v")]).bytes(Version::V5),
        Publish::new(&long, "payload").retained().bytes(Version::V5),
        wire::ack(wire::PUBREL, 3),
        wire::ack(wire::PUBACK, 9),
        wire::unsubscribe(Version::V5, 4, &["a/#"]),
        wire::pingreq(),
        wire::disconnect(),
    ];
    while target.goes_on(SHORT) {
        let mut bytes = if random.below(4) == 0 { Vec::new() } else { connect(&unique("m")).bytes() };
        for _ in 0..1 + random.below(6) {
            let mut packet = packets[random.below(packets.len() as u64) as usize].clone();
            for _ in 0..random.below(4) {
                let at = random.below(packet.len() as u64) as usize;
                match random.below(3) {
                    0 => packet[at] = random.below(256) as u8,
                    1 => drop(packet.remove(at)),
                    _ => packet.insert(at, packet[at]),
                }
                if packet.is_empty() {
                    break;
                }
            }
            bytes.extend(packet);
        }
        let Ok(mut peer) = Peer::raw(target.mqtt, Version::V5) else { continue };
        peer.send(&bytes).ok();
        peer.next(Duration::from_millis(random.below(20))).ok();
    }
}

/// A CONNECT byte by byte.
pub(crate) fn slow_loris(target: &Target) {
    let bytes = connect("loris").bytes();
    let mut streams: Vec<TcpStream> = (0..100).filter_map(|_| from_elsewhere(target.mqtt).ok()).collect();
    for at in 0.. {
        for stream in &mut streams {
            stream.write_all(&bytes[at % bytes.len()..][..1]).ok();
        }
        if !target.goes_on(Duration::from_millis(100)) {
            return;
        }
    }
}

/// A thousand connections that say nothing, some of them on the TLS port, up to the limit of their address; then one more,
/// again and again.
pub(crate) fn half_open(target: &Target) {
    let to = |at: usize| if at.is_multiple_of(10) { target.tls } else { target.mqtt };
    let mut held: Vec<TcpStream> = (0..1_000).filter_map(|at| from_elsewhere(to(at)).ok()).collect();
    held.push(TcpStream::connect(target.tls).unwrap());
    while target.goes_on(Duration::from_millis(5)) {
        if let Ok(mut one) = from_elsewhere(target.mqtt) {
            one.set_read_timeout(Some(SHORT)).ok();
            drop(one.read(&mut [0; 8])); // whatever it says
        }
    }
}

/// Packets of 256 MB, as they say; long ones that do not end.
pub(crate) fn declared(target: &Target) {
    while target.goes_on(SHORT) {
        for first in [0x30, 0x82] {
            let mut peer = target.peer();
            peer.send(&[first, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'a']).ok();
            assert_eq!(peer.dismissal(), Some(0x95), "packet too large");
        }
        let mut raw = Peer::raw(target.mqtt, Version::V5).unwrap();
        raw.send(&[0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4]).ok();
        raw.next(Duration::from_millis(5)).ok();
    }
}

/// Fifty thousand topics, `Ölpumpe/temp` among them, retained beyond the bound.
pub(crate) fn topics(target: &Target) {
    let mut peer = target.peer();
    peer.send(&Publish::new("Ölpumpe/temp", "1").retained().bytes(Version::V5)).ok();
    for round in 0.. {
        let mut bytes = Vec::new();
        for number in 0..500 {
            let topic = format!("flood/{}/{number}", round % 140);
            let message = Publish::new(&topic, "0123456789");
            bytes.extend(if round % 2 == 0 { message.retained() } else { message }.bytes(Version::V5));
        }
        if peer.send(&bytes).is_err() {
            peer = target.peer();
        }
        if !target.goes_on(Duration::from_millis(20)) {
            break;
        }
    }
    // What it left behind is removed again: memory is compared afterwards.
    for round in (0..140).step_by(2) {
        for number in 0..500 {
            let topic = format!("flood/{round}/{number}");
            peer.send(&Publish::new(&topic, "").retained().bytes(Version::V5)).ok();
        }
    }
    peer.say(Publish::new("flood/end", "")).ok();
}

/// Subscribers to everything that read nothing, with QoS 0 and 1.
pub(crate) fn never_reading(target: &Target) {
    let mut held: Vec<Peer> = (0..20).map(|_| target.peer()).collect();
    for (at, peer) in held.iter_mut().enumerate() {
        peer.send(&wire::subscribe(Version::V5, 1, &[], &[("#", u8::from(at % 2 == 0))])).ok();
    }
    target.linger();
}

/// Many with one client id, each of which comes back when it is thrown out.
pub(crate) fn same_id(target: &Target) {
    let mut fighter = connect("the one").lasting();
    fighter.will = Some(Will::new("fight/will", "gone"));
    while target.goes_on(SHORT) {
        if let Ok((mut peer, _)) = fighter.open(target.mqtt) {
            peer.send(&wire::subscribe(Version::V5, 1, &[], &[("fight/#", 1)])).ok();
            peer.next(Duration::from_millis(2)).ok();
        }
    }
    if let Ok((peer, _)) = connect("the one").open(target.mqtt) {
        drop(peer); // clean: the session ends
    }
}

/// Deep filters that differ in few places, and a thousand shares of everything; a publisher that fits them all.
pub(crate) fn subscriptions(target: &Target) {
    let mut random = Random(77);
    let mut deep = target.peer();
    let filters: Vec<String> = (0..1_000)
        .map(|_| {
            let levels: Vec<&str> = (0..100).map(|_| if random.below(2) == 0 { "+" } else { "a" }).collect();
            levels.join("/")
        })
        .collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    deep.send(&wire::subscribe(Version::V5, 1, &[], &filters)).ok();
    let mut shares = target.peer();
    let filters: Vec<String> = (0..1_000).map(|number| format!("$share/g{number}/#")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    shares.send(&wire::subscribe(Version::V5, 1, &[], &filters)).ok();
    let mut all = target.peer();
    for _ in 0..1_000 {
        all.send(&wire::subscribe(Version::V5, 1, &[], &[("#", 0), (&"+/".repeat(120), 0)])).ok();
    }
    let mut publisher = target.peer();
    let topic = ["a"; 99].join("/");
    for number in 0.. {
        if publisher.send(&Publish::new(&format!("{topic}/{number}"), "x").bytes(Version::V5)).is_err() {
            publisher = target.peer();
        }
        if !target.goes_on(SHORT) {
            return;
        }
    }
}

/// Questions without an ear for the answers.
pub(crate) fn pings(target: &Target) {
    let flood = wire::pingreq().repeat(5_000);
    let mut held: Vec<Peer> = (0..5).map(|_| target.peer()).collect();
    for peer in &held {
        peer.stream.set_nonblocking(true).unwrap();
    }
    while target.goes_on(Duration::from_millis(5)) {
        for peer in &mut held {
            peer.send(&flood).ok(); // full sooner or later
        }
    }
}

/// Aliases that were never set, or above the maximum; wills as large as they may be, and larger.
pub(crate) fn aliases_and_wills(target: &Target) {
    while target.goes_on(SHORT) {
        for (topic, alias) in [("", 7), ("a", 33), ("a", 65_535), ("a", 0)] {
            let mut peer = target.peer();
            let message = Publish::new(topic, "x").with(&[Property::TopicAlias(alias)]);
            peer.send(&message.bytes(Version::V5)).ok();
            assert!(peer.dismissal().is_some_and(|code| code >= 0x80), "alias {alias} was taken");
        }
        for bytes in [60_000, 65_535] {
            let mut session = connect(&unique("will"));
            session.will = Some(Will::new("will/huge", &"w".repeat(bytes)));
            session.open(target.mqtt).map(drop).ok();
        }
    }
}

/// WebSockets that keep no rule.
pub(crate) fn websockets(target: &Target) {
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    let frames: [&[u8]; 6] = [
        &[0x82, 0x05, 1, 2, 3, 4, 5],                                  // not masked
        &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // 2^63 bytes
        &[0x09, 0x80, 0, 0, 0, 0],                                     // a PING in fragments
        &[0x00, 0x81, 0, 0, 0, 0, 1],                                  // goes on with nothing
        &[0x81, 0x81, 0, 0, 0, 0, b'x'],                               // text
        &[0xf2, 0x80, 0, 0, 0, 0],                                     // reserved bits
    ];
    while target.goes_on(SHORT) {
        for frame in frames {
            let Ok(mut stream) = TcpStream::connect(target.websocket) else { continue };
            stream.set_read_timeout(Some(Duration::from_millis(50))).ok();
            stream.write_all(request.as_bytes()).ok();
            stream.write_all(frame).ok();
            drop(stream.read(&mut [0; 512])); // whatever it says
        }
        if let Ok(mut stream) = TcpStream::connect(target.websocket) {
            stream.write_all(endless.as_bytes()).ok();
        }
    }
}
