//! A raw client over a socket: it does what a test says and nothing of its own accord. Every wait ends, after
//! [`PATIENCE`] at the latest, with a panic that says what was waited for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::broker::{Broker, Login};
use super::wire::{
    self, BOTH, Connack, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Property, Publish, Version, Will,
};

/// What a busy machine may need for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection of MQTT, which keeps a test's own packet identifiers.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Messages that came while an acknowledgement was waited for: a server may send them first.
    waiting: VecDeque<Packet>,
    version: Version,
    last_id: u16,
    /// Topics behind the aliases that the server set.
    aliases: Vec<(u16, String)>,
    /// PUBLISH packets that came with an alias and without a topic.
    pub(crate) aliased: usize,
    /// Bytes of the largest packet that came.
    pub(crate) largest: usize,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Packets before it.
    pub(crate) packets: Vec<Packet>,
}

impl End {
    /// The code of the DISCONNECT or CONNACK that came last.
    pub(crate) fn code(&self) -> Option<u8> {
        match self.packets.last() {
            Some(Packet::Disconnect { code, .. }) => Some(*code),
            Some(Packet::Connack(connack)) => Some(connack.code),
            _ => None,
        }
    }
}

/// A CONNECT as most tests want it: a client identifier of its own, clean, no keep-alive.
pub(crate) fn connect(broker: &Broker, version: Version) -> Connect {
    with_login(&broker.login, version)
}

/// The same as somebody else.
pub(crate) fn with_login(login: &Login, version: Version) -> Connect {
    Connect {
        version,
        id: unique("c"),
        clean: true,
        keep_alive: 0,
        properties: Vec::new(),
        will: None,
        user: Some(login.user.clone()),
        password: Some(login.password.clone().into()),
    }
}

impl Connect {
    pub(crate) fn id(self, id: &str) -> Connect {
        Connect { id: id.into(), ..self }
    }

    /// Clean session 0, or clean start 0 with a session that is kept for an hour.
    pub(crate) fn persistent(self) -> Connect {
        let keep = self.version == Version::V5
            && !self.properties.iter().any(|property| matches!(property, Property::SessionExpiry(_)));
        let this = Connect { clean: false, ..self };
        if keep { this.with_property(Property::SessionExpiry(3600)) } else { this }
    }

    pub(crate) fn resuming(self) -> Connect {
        Connect { clean: false, ..self }
    }

    pub(crate) fn keep_alive(self, seconds: u16) -> Connect {
        Connect { keep_alive: seconds, ..self }
    }

    pub(crate) fn will(self, will: Will) -> Connect {
        Connect { will: Some(will), ..self }
    }

    pub(crate) fn with_property(mut self, property: Property) -> Connect {
        self.properties.push(property);
        self
    }

    /// Connects; the server must accept.
    #[track_caller]
    pub(crate) fn open(&self, broker: &Broker) -> Client {
        self.open_with(broker).0
    }

    /// Connects; the server must accept.
    #[track_caller]
    pub(crate) fn open_with(&self, broker: &Broker) -> (Client, Connack) {
        let mut client = Client::raw(broker.address, self.version);
        client.send(&self.bytes());
        let connack = client.connack();
        assert_eq!(connack.code, 0, "refused: {connack:?}");
        (client, connack)
    }

    /// Connects; the server must refuse, and close. The code, if it gave one.
    #[track_caller]
    pub(crate) fn refused(&self, broker: &Broker) -> Option<u8> {
        refusal(broker, self.version, &self.bytes())
    }
}

/// Sends bytes as the first ones of a connection, which the server must close after at most a refusing CONNACK.
#[track_caller]
pub(crate) fn refusal(broker: &Broker, version: Version, bytes: &[u8]) -> Option<u8> {
    let mut client = Client::raw(broker.address, version);
    client.send(bytes);
    let first = client.next_or_end("the end of the connection");
    match first {
        None => None,
        Some(Packet::Connack(connack)) if connack.code != 0 => {
            assert_eq!(client.end().packets, [], "after a refusal");
            Some(connack.code)
        }
        Some(other) => panic!("{other:?} in answer to {bytes:?}"),
    }
}

impl Client {
    /// A connection on which nothing was sent yet.
    pub(crate) fn raw(address: SocketAddr, version: Version) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        let (received, waiting, aliases) = (Vec::new(), VecDeque::new(), Vec::new());
        Client { stream, received, waiting, version, last_id: 0, aliases, aliased: 0, largest: 0 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it said before is what counts.
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("writing {} bytes: {error}", bytes.len()),
        }
    }

    /// Reads once; false at the end of the connection.
    #[track_caller]
    fn fill(&mut self, until: Instant, what: &str) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited {PATIENCE:?} in vain for {what}; unread: {:?}", self.received);
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = vec![0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
            Err(error) => panic!("reading: {error}"),
        }
    }

    /// The next packet; none at the end of the connection.
    #[track_caller]
    pub(crate) fn next_or_end(&mut self, what: &str) -> Option<Packet> {
        self.waiting.pop_front().or_else(|| self.read(what))
    }

    /// The next packet that is no message; messages before it wait for [`Client::next`].
    #[track_caller]
    fn answer(&mut self, what: &str) -> Option<Packet> {
        loop {
            match self.read(what) {
                Some(message @ Packet::Publish(_)) => self.waiting.push_back(message),
                other => return other,
            }
        }
    }

    #[track_caller]
    fn read(&mut self, what: &str) -> Option<Packet> {
        let until = Instant::now() + PATIENCE;
        loop {
            let split = wire::split(&mut self.received).unwrap_or_else(|error| panic!("{error}"));
            if let Some(bytes) = split {
                self.largest = self.largest.max(bytes.len());
                let packet = wire::read(&bytes, self.version);
                let packet = packet.unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
                return Some(self.resolve(packet));
            }
            if !self.fill(until, what) {
                assert!(self.received.is_empty(), "closed in the middle of {:?}", self.received);
                return None;
            }
        }
    }

    /// Puts the topic in place of its alias.
    fn resolve(&mut self, packet: Packet) -> Packet {
        let Packet::Publish(mut publish) = packet else { return packet };
        let alias = publish.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(*alias),
            _ => None,
        });
        if let Some(alias) = alias {
            publish.properties.retain(|property| !matches!(property, Property::TopicAlias(_)));
            if publish.topic.is_empty() {
                let known = self.aliases.iter().find(|(known, _)| *known == alias);
                publish.topic = known.unwrap_or_else(|| panic!("alias {alias} was never set")).1.clone();
                self.aliased += 1;
            } else {
                self.aliases.retain(|(known, _)| *known != alias);
                self.aliases.push((alias, publish.topic.clone()));
            }
        }
        Packet::Publish(publish)
    }

    /// The highest alias that the server set.
    pub(crate) fn highest_alias(&self) -> u16 {
        self.aliases.iter().map(|(alias, _)| *alias).max().unwrap_or(0)
    }

    /// The next packet, which must come.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Packet {
        self.next_or_end("a packet").unwrap_or_else(|| panic!("closed while a packet was expected"))
    }

    #[track_caller]
    pub(crate) fn connack(&mut self) -> Connack {
        match self.next() {
            Packet::Connack(connack) => connack,
            other => panic!("{other:?} in place of CONNACK"),
        }
    }

    /// The next packet must be an application message.
    #[track_caller]
    pub(crate) fn publish(&mut self) -> Publish {
        match self.next() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} in place of PUBLISH"),
        }
    }

    /// The next answer must be this kind of acknowledgement, for this identifier; its reason code.
    #[track_caller]
    pub(crate) fn ack(&mut self, kind: u8, id: u16) -> u8 {
        match self.answer("an acknowledgement") {
            Some(Packet::Ack { kind: k, id: i, code, .. }) if (k, i) == (kind, id) => code,
            other => panic!("{other:?} in place of acknowledgement {kind} of {id}"),
        }
    }

    /// Everything until the server closes.
    #[track_caller]
    pub(crate) fn end(&mut self) -> End {
        let mut packets = Vec::new();
        while let Some(packet) = self.next_or_end("the end of the connection") {
            packets.push(packet);
        }
        End { packets }
    }

    /// The server must close: with one DISCONNECT of this code under MQTT 5.0, without a word under 3.1.1.
    #[track_caller]
    pub(crate) fn thrown_out(&mut self, code: u8) {
        let end = self.end();
        if code == 0x8e && end.packets.is_empty() && Broker::shared().is_mosquitto_which("says nothing then")
        {
            return;
        }
        match self.version {
            Version::V3 => assert_eq!(end.packets, [], "3.1.1 has no packet for this"),
            Version::V5 => {
                assert_eq!(end.packets.len(), 1, "{end:?}");
                assert_eq!(end.code(), Some(code), "{end:?}");
            }
        }
    }

    /// The server must close; under MQTT 5.0 it may say one of these codes, and must not say another.
    #[track_caller]
    pub(crate) fn closed(&mut self, codes: &[u8]) {
        self.is_closed(codes).unwrap_or_else(|other| panic!("{other} where {codes:#04x?} would do"));
    }

    /// Whether it does; what it did in place of that.
    #[track_caller]
    fn is_closed(&mut self, codes: &[u8]) -> Result<(), String> {
        match self.next_or_end("the end of the connection") {
            None => Ok(()),
            Some(Packet::Disconnect { code, .. }) if codes.contains(&code) => {
                match self.end().packets.as_slice() {
                    [] => Ok(()),
                    more => Err(format!("{more:?} after DISCONNECT")),
                }
            }
            Some(other) => Err(format!("{other:?}")),
        }
    }

    /// Nothing has come: the answer to PINGREQ is the next packet.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        self.send(&wire::pingreq());
        match self.next() {
            Packet::Pingresp => {}
            other => panic!("{other:?} where nothing was expected"),
        }
    }

    /// All messages that were on their way, up to the answer to PINGREQ.
    #[track_caller]
    pub(crate) fn drain(&mut self) -> Vec<Publish> {
        self.send(&wire::pingreq());
        let mut messages = Vec::new();
        loop {
            match self.next() {
                Packet::Pingresp => return messages,
                Packet::Publish(publish) => messages.push(publish),
                other => panic!("{other:?} among messages"),
            }
        }
    }

    /// An identifier that this client has not used lately.
    pub(crate) fn new_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }

    /// Subscribes to one filter; the code in the SUBACK, which must be the next packet.
    #[track_caller]
    pub(crate) fn try_subscribe(&mut self, filter: &str, options: u8, properties: &[Property]) -> u8 {
        let id = self.new_id();
        self.send(&wire::subscribe(self.version, id, properties, &[(filter, options)]));
        match self.answer("SUBACK") {
            Some(Packet::Suback { id: i, codes, .. }) if i == id && codes.len() == 1 => codes[0],
            other => panic!("{other:?} in place of SUBACK {id}"),
        }
    }

    /// Subscribes to one filter, which must be granted as asked.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) {
        assert_eq!(self.try_subscribe(filter, options, &[]), options & 3, "{filter}");
    }

    /// Unsubscribes from one filter; the code in the UNSUBACK, 0 under 3.1.1.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> u8 {
        let id = self.new_id();
        self.send(&wire::unsubscribe(self.version, id, &[filter]));
        match self.answer("UNSUBACK") {
            Some(Packet::Unsuback { id: i, codes, .. }) if i == id => {
                assert_eq!(codes.len(), usize::from(self.version == Version::V5));
                codes.first().copied().unwrap_or(0)
            }
            other => panic!("{other:?} in place of UNSUBACK {id}"),
        }
    }

    /// Publishes with the message's QoS and goes through the whole exchange: afterwards the server has routed it.
    /// With QoS 0 the answer to PINGREQ says so. The reason code of PUBACK or PUBREC.
    #[track_caller]
    pub(crate) fn deliver(&mut self, publish: &Publish) -> u8 {
        let id = if publish.qos == 0 { 0 } else { self.new_id() };
        let publish = Publish { id, ..publish.clone() };
        self.send(&publish.bytes(self.version));
        match publish.qos {
            0 => {
                self.quiet();
                0
            }
            1 => self.ack(PUBACK, id),
            _ => {
                let code = self.ack(PUBREC, id);
                if code < 0x80 {
                    self.send(&wire::ack(PUBREL, id));
                    assert_eq!(self.ack(PUBCOMP, id), 0);
                }
                code
            }
        }
    }

    /// Publishes a text; see [`Client::deliver`].
    #[track_caller]
    pub(crate) fn say(&mut self, topic: &str, payload: &str, qos: u8) {
        let code = self.deliver(&Publish::new(topic, payload).qos(qos, 0));
        assert!(matches!(code, 0 | 0x10), "{code:#04x} for a message on {topic}");
    }

    /// Receives a message, as `payload`, and acknowledges it to the end.
    #[track_caller]
    pub(crate) fn hear(&mut self, topic: &str, payload: &str, qos: u8) -> Publish {
        let publish = self.publish();
        assert_eq!(
            (publish.topic.as_str(), publish.text(), publish.qos),
            (topic, payload, qos),
            "{publish:?}"
        );
        self.accept(&publish);
        publish
    }

    /// Acknowledges a message to the end.
    #[track_caller]
    pub(crate) fn accept(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.send(&wire::ack(PUBACK, publish.id)),
            _ => {
                self.send(&wire::ack(PUBREC, publish.id));
                assert_eq!(self.ack(PUBREL, publish.id), 0);
                self.send(&wire::ack(PUBCOMP, publish.id));
            }
        }
    }

    /// DISCONNECT as it should be; the server has seen it when this returns.
    pub(crate) fn leave(mut self) {
        self.send(&wire::disconnect());
        self.stream.shutdown(Shutdown::Write).ok();
        self.end();
    }

    /// DISCONNECT of MQTT 5.0; the server has seen it when this returns.
    pub(crate) fn leave_with(mut self, code: u8, properties: &[Property]) -> End {
        self.send(&wire::disconnect_with(code, properties));
        self.stream.shutdown(Shutdown::Write).ok();
        self.end()
    }

    /// The network fails: nothing is said. The server has noticed when this returns.
    pub(crate) fn vanish(mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
        let until = Instant::now() + PATIENCE;
        while self.fill(until, "the server's end") {}
    }
}

/// Every one of these packets must end a connection of its own; under MQTT 5.0 with one of these codes, if any.
#[track_caller]
pub(crate) fn each_ends_the_connection(broker: &Broker, version: Version, packets: &[Vec<u8>], codes: &[u8]) {
    let mut failures = Vec::new();
    for bytes in packets {
        let mut client = connect(broker, version).open(broker);
        client.send(bytes);
        // Whoever goes on answers this.
        client.send(&wire::pingreq());
        if let Err(other) = client.is_closed(codes) {
            failures.push(format!("{version:?} {bytes:02x?}: {other}"));
        }
    }
    assert!(failures.is_empty(), "not closed, or not with {codes:02x?}:\n{}", failures.join("\n"));
}

/// A name that no other test has: letters and digits, at most 23 of them.
pub(crate) fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{stem}p{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a test under both versions, with the broker that all share.
pub(crate) fn under_both(test: impl Fn(&Broker, Version)) {
    for version in BOTH {
        test(Broker::shared(), version);
    }
}
