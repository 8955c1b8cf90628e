//! MQTT over WebSocket (section 6), with a WebSocket client by hand: it must be able to do wrong.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::broker::Broker;
use super::client::{PATIENCE, connect, unique};
use super::wire::{self, BOTH, Packet, Publish, Version};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Key and answer of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

struct WebSocket {
    stream: TcpStream,
    received: Vec<u8>,
    /// MQTT, whatever frames it came in.
    packets: Vec<u8>,
    pongs: usize,
    version: Version,
}

/// Asks for an upgrade with these subprotocols; status line, headers in lower case, and the connection.
fn upgrade(
    address: SocketAddr,
    protocols: Option<&str>,
) -> (String, Vec<(String, String)>, TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let protocols = protocols.map(|list| format!("Sec-WebSocket-Protocol: {list}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{protocols}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).unwrap_or(0) {
            0 => return (String::new(), Vec::new(), stream, Vec::new()),
            count => answer.extend_from_slice(&chunk[..count]),
        }
    };
    let rest = answer.split_off(end + 4);
    let text = String::from_utf8(answer).unwrap();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    (status, headers, stream, rest)
}

impl WebSocket {
    #[track_caller]
    fn open(address: SocketAddr, protocols: &str, version: Version) -> WebSocket {
        let (status, headers, stream, received) = upgrade(address, Some(protocols));
        assert!(status.starts_with("HTTP/1.1 101"), "{status}");
        let header = |name: &str| {
            let mut values =
                headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
            (values.next(), values.next())
        };
        assert_eq!(header("sec-websocket-accept"), (Some(ACCEPT), None));
        assert_eq!(header("sec-websocket-protocol"), (Some("mqtt"), None));
        assert_eq!(header("sec-websocket-extensions"), (None, None));
        WebSocket { stream, received, packets: Vec::new(), pongs: 0, version }
    }

    fn frame(&mut self, last: bool, opcode: u8, payload: &[u8]) {
        let mask = [0x11, 0xa2, 0x33, 0xc4];
        let mut bytes = vec![(u8::from(last) << 7) | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&bytes).ok();
    }

    fn send(&mut self, packet: &[u8]) {
        self.frame(true, BINARY, packet);
    }

    /// At least so many bytes; none at the end of the connection.
    fn need(&mut self, count: usize) -> Option<()> {
        while self.received.len() < count {
            let mut chunk = vec![0; 64 << 10];
            let got = match self.stream.read(&mut chunk) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
                Err(error) => panic!("waiting for a frame: {error}"),
            };
            if got == 0 {
                return None;
            }
            self.received.extend_from_slice(&chunk[..got]);
        }
        Some(())
    }

    /// The next frame of the server, which does not mask.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.need(2)?;
        let (first, short) = (self.received[0], self.received[1]);
        assert_eq!(first & 0x70, 0, "reserved bits");
        assert_eq!(short & 0x80, 0, "a server does not mask");
        let (head, length) = match short {
            126 => {
                self.need(4)?;
                (4, usize::from(u16::from_be_bytes(self.received[2..4].try_into().unwrap())))
            }
            127 => {
                self.need(10)?;
                let length = u64::from_be_bytes(self.received[2..10].try_into().unwrap());
                (10, usize::try_from(length).unwrap())
            }
            short => (2, usize::from(short)),
        };
        self.need(head + length)?;
        let rest = self.received.split_off(head + length);
        let payload = std::mem::replace(&mut self.received, rest).split_off(head);
        Some((first & 0x0f, payload))
    }

    /// The next packet; none when the server closes.
    fn next_or_end(&mut self) -> Option<Packet> {
        loop {
            if let Some(bytes) = wire::split(&mut self.packets).unwrap() {
                return Some(wire::read(&bytes, self.version).unwrap_or_else(|error| panic!("{error}")));
            }
            match self.next_frame()? {
                (BINARY | CONTINUATION, payload) => self.packets.extend(payload),
                (CLOSE, _) => return None,
                (PING, payload) => self.frame(true, PONG, &payload),
                (PONG, payload) => {
                    assert_eq!(payload, b"there?");
                    self.pongs += 1;
                }
                (opcode, _) => panic!("a frame of type {opcode}"),
            }
        }
    }

    #[track_caller]
    fn next(&mut self) -> Packet {
        self.next_or_end().expect("a packet")
    }

    #[track_caller]
    fn greeted(&mut self) {
        match self.next() {
            Packet::Connack(connack) if connack.code == 0 => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The server picks the subprotocol `mqtt` among others, and speaks both versions behind it.
/// - 5.0: [MQTT-6.0.0-4] [MQTT-4.2-1]
/// - 3.1.1: [MQTT-6.0.0-4] [MQTT-7.1.1-1]
#[test]
fn the_subprotocol_is_mqtt() {
    let broker = Broker::shared();
    let Some(address) = broker.websocket else { return };
    for version in BOTH {
        for protocols in ["mqtt", "chat, mqtt", "mqtt, mqttv3.1"] {
            let mut socket = WebSocket::open(address, protocols, version);
            socket.send(&connect(broker, version).bytes());
            socket.greeted();
            socket.send(&wire::pingreq());
            assert_eq!(socket.next(), Packet::Pingresp);
        }
    }
}

/// To a client that does not offer `mqtt`, the server does not say that it speaks what was offered.
/// - 5.0: [MQTT-6.0.0-3] [MQTT-6.0.0-4]
/// - 3.1.1: [MQTT-6.0.0-3] [MQTT-6.0.0-4]
#[test]
fn no_other_subprotocol_is_picked() {
    let broker = Broker::shared();
    let Some(address) = broker.websocket else { return };
    let (status, headers, ..) = upgrade(address, Some("chat, soap"));
    let picked =
        headers.iter().find(|(name, _)| name == "sec-websocket-protocol").map(|(_, value)| value.as_str());
    assert!(!status.contains(" 101 ") || picked.is_none_or(|picked| picked == "mqtt"), "{status} {picked:?}");
}

/// Frames are not packets: several packets in one, one in several, also in fragments with control frames in between.
/// - 5.0: [MQTT-6.0.0-1] [MQTT-6.0.0-2]
/// - 3.1.1: [MQTT-6.0.0-1] [MQTT-6.0.0-2]
#[test]
fn frames_are_not_packets() {
    let broker = Broker::shared();
    let Some(address) = broker.websocket else { return };
    let ways: [fn(&mut WebSocket, &[u8]); 4] = [
        // All in one.
        |socket, bytes| socket.send(bytes),
        // Byte by byte at first, and large pieces later.
        |socket, bytes| {
            bytes[..200].iter().for_each(|byte| socket.send(&[*byte]));
            bytes[200..].chunks(30_000).for_each(|piece| socket.send(piece));
        },
        // One message in fragments, an empty one among them.
        |socket, bytes| {
            socket.frame(false, BINARY, &bytes[..10]);
            socket.frame(false, CONTINUATION, &bytes[10..11]);
            socket.frame(false, CONTINUATION, &[]);
            socket.frame(true, CONTINUATION, &bytes[11..]);
        },
        // With control frames in between.
        |socket, bytes| {
            for piece in bytes.chunks(40_000) {
                socket.frame(true, PING, b"there?");
                socket.send(piece);
                socket.frame(true, PONG, b"unasked");
            }
        },
    ];
    for version in BOTH {
        for (number, way) in ways.iter().enumerate() {
            if number == 2 && broker.is_mosquitto_which("makes nothing of fragments") {
                continue;
            }
            let topic = unique("frames");
            let long = "x".repeat(70_000);
            let mut bytes = connect(broker, version).bytes();
            bytes.extend(wire::subscribe(version, 1, &[], &[(&topic, 0)]));
            for payload in ["short", &long, "short"] {
                bytes.extend(Publish::new(&topic, payload).bytes(version));
            }
            let mut socket = WebSocket::open(address, "mqtt", version);
            way(&mut socket, &bytes);
            socket.greeted();
            assert!(matches!(socket.next(), Packet::Suback { id: 1, .. }));
            for payload in ["short", &long, "short"] {
                match socket.next() {
                    Packet::Publish(message) => assert_eq!(message.text(), payload, "way {number}"),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(socket.pongs > 0, number == 3, "a pong for each ping, and only then");
        }
    }
}

/// Text frames end the connection, before and after CONNECT; so do frames that are not masked or not WebSocket.
/// - 5.0: [MQTT-6.0.0-1]
/// - 3.1.1: [MQTT-6.0.0-1]
#[test]
fn only_binary_frames_are_served() {
    let broker = Broker::shared();
    let Some(address) = broker.websocket else { return };
    if broker.is_mosquitto_which("takes text frames for binary ones") {
        return;
    }
    for version in BOTH {
        let mut early = WebSocket::open(address, "mqtt", version);
        early.frame(true, TEXT, &connect(broker, version).bytes());
        assert_eq!(early.next_or_end(), None);
        let mut late = WebSocket::open(address, "mqtt", version);
        late.send(&connect(broker, version).bytes());
        late.greeted();
        late.frame(true, TEXT, &wire::pingreq());
        match late.next_or_end() {
            None => {}
            Some(Packet::Disconnect { code, .. }) if version == Version::V5 => {
                assert!(code >= 0x80);
                assert_eq!(late.next_or_end(), None);
            }
            other => panic!("{other:?}"),
        }
        let mut unmasked = WebSocket::open(address, "mqtt", version);
        unmasked.stream.write_all(&[0x82, 2, 0xc0, 0]).unwrap();
        assert_eq!(unmasked.next_or_end(), None);
        let mut reserved = WebSocket::open(address, "mqtt", version);
        reserved.frame(true, 0x0b, b"x");
        assert_eq!(reserved.next_or_end(), None);
    }
}

/// A closing frame without DISCONNECT is a network failure: the will is published.
/// - 5.0: [MQTT-3.1.2-8]
/// - 3.1.1: [MQTT-3.1.2-8]
#[test]
fn a_closing_frame_is_no_goodbye() {
    let broker = Broker::shared();
    let Some(address) = broker.websocket else { return };
    for version in BOTH {
        let topic = unique("closing");
        let mut listener = connect(broker, version).open(broker);
        listener.subscribe(&topic, 0);
        let mut socket = WebSocket::open(address, "mqtt", version);
        socket.send(&connect(broker, version).will(wire::Will::new(&topic, "gone")).bytes());
        socket.greeted();
        socket.frame(true, CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(socket.next_or_end(), None);
        listener.hear(&topic, "gone", 0);
    }
}
