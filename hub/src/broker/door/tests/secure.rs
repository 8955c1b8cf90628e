//! TLS and WebSocket, with rustls, openssl and tungstenite on the other side.

use std::process::{Command, Stdio};

use tungstenite::client::IntoClientRequest as _;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Message, WebSocket};

use super::*;

/// Reads from a transport, as the core does, until it has so many bytes.
async fn read(transport: &mut Transport, count: usize) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 4096]);
    let begun = Instant::now();
    while all.len() < count {
        match transport.read(&mut piece) {
            Ok(0) => panic!("ended after {} of {count} bytes", all.len()),
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(begun.elapsed() < PATIENCE, "{} of {count} bytes", all.len());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    all
}

/// Writes everything through a transport whose client may be slow; how often it was full.
async fn write(transport: &mut Transport, mut bytes: &[u8]) -> usize {
    let mut full = 0;
    let begun = Instant::now();
    while !bytes.is_empty() {
        match transport.write(bytes) {
            Ok(taken) => {
                assert!(taken > 0);
                bytes = &bytes[taken..];
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                full += 1;
                assert!(begun.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    while let Err(error) = transport.flush() {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(transport.wants_write());
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!transport.wants_write());
    full
}

/// Both directions, more than any buffer holds.
async fn echo(mut arrival: Arrival, bytes: usize) {
    let mut got = std::mem::take(&mut arrival.leftover);
    let missing = bytes - got.len();
    got.extend(read(&mut arrival.transport, missing).await);
    let full = write(&mut arrival.transport, &got).await;
    assert!(full > 0, "the client reads only when it has written all, so this must have been full");
    arrival.transport.close();
    _ = read_to_end(&mut arrival.transport).await;
}

async fn read_to_end(transport: &mut Transport) -> usize {
    let begun = Instant::now();
    loop {
        match transport.read(&mut [0; 1024]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(count) => return count,
            Err(_) => return 0,
        }
    }
}

const MEGABYTES: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn tls_carries_both_directions() {
    let plant = plant();
    let open = Setup { tls: plant.tls(), ..Setup::default() }.open();
    let mut stream = plant.client(open.connect(), None);
    let good = bytes_of(&open.good(Version::V5));
    let sent: Vec<u8> = (0..MEGABYTES).map(|n| n.to_le_bytes()[1]).collect();
    let other_side = client(move || {
        stream.write_all(&good).unwrap();
        stream.write_all(&sent).unwrap();
        std::thread::sleep(Duration::from_millis(300)); // until the server's buffers are full
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == sent);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "close_notify");
    });
    let serve = async {
        let arrival = open.arrival();
        assert_eq!(arrival.transport.kind(), TransportKind::Tls);
        echo(arrival, MEGABYTES).await;
    };
    tokio::join!(other_side, serve);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_in() {
    let plant = plant();
    let open = Setup { tls: plant.tls(), ..Setup::default() }.open();
    for (name, enters) in [("panel", true), ("nobody", false), ("unreadable", false)] {
        let mut stream = plant.client(open.connect(), Some(name));
        let connect = bytes_of(&ConnectOwned::new(Version::V5, "c"));
        let answer = client(move || {
            stream.write_all(&connect).unwrap();
            if enters { Vec::new() } else { read_all(stream) }
        })
        .await;
        if enters {
            let arrival = open.arrival();
            assert_eq!(arrival.login.identity.name(), "panel");
        } else {
            assert_eq!(connack(&answer, Version::V5), Some(0x87), "{name}");
        }
    }
    open.counted("refused", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_let_in_with_both_versions_of_tls() {
    let plant = plant();
    let folder = tempfile::tempdir().unwrap();
    let ca = plant.files(folder.path());
    let open = Setup { tls: plant.tls(), ..Setup::default() }.open();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                version,
                "-connect",
                &open.address.to_string(),
            ])
            .arg("-CAfile")
            .arg(&ca)
            .arg("-cert")
            .arg(folder.path().join("panel.crt"))
            .arg("-key")
            .arg(folder.path().join("panel.key"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = openssl.stdin.take().unwrap();
        input.write_all(&bytes_of(&ConnectOwned::new(Version::V311, "c"))).unwrap();
        let mut arrival = open.arrival();
        assert_eq!(arrival.login.identity.name(), "panel");
        arrival.transport.write(b"hello").unwrap();
        arrival.transport.close();
        let mut output = openssl.stdout.take().unwrap();
        let got = client(move || {
            let mut five = [0; 5];
            output.read_exact(&mut five).unwrap();
            five
        })
        .await;
        assert_eq!(&got, b"hello");
        drop(input);
        openssl.kill().ok();
        openssl.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_closed_at_its_first_byte() {
    let plant = plant();
    let open = Setup { tls: plant.tls(), ..Setup::default() }.open();
    let mut socket = open.connect();
    socket.write_all(&[0x10]).unwrap();
    assert_eq!(read_all(socket), b"");
    open.counted("not_tls", 1).await;
    let mut socket = open.connect();
    socket.write_all(&[22, 3, 1, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    let alert = read_all(socket);
    assert_eq!(alert.first(), Some(&21), "an alert tells the client");
    open.counted("tls_failed", 1).await;
}

fn upgrade(
    open: &Open,
    protocol: &str,
) -> Result<WebSocket<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = format!("ws://{}/mqtt", open.address).into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse()?);
    Ok(tungstenite::client(request, open.connect()).map_err(|error| error.to_string())?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_both_directions() {
    let open = Setup { protocol: Protocol::WebSocket, ..Setup::default() }.open();
    let (mut socket, mut good) = (upgrade(&open, "mqtt").unwrap(), bytes_of(&open.good(Version::V5)));
    let sent: Vec<u8> = (0..MEGABYTES).map(|n| n.to_le_bytes()[2]).collect();
    let other_side = client(move || {
        // [MQTT-6.0.0-2]: a CONNECT in three frames, the last of which has bytes of the next packet too.
        let rest = good.split_off(10);
        socket.send(Message::binary(good)).unwrap();
        socket.send(Message::Ping("there?".into())).unwrap();
        let header = |opcode, is_final| FrameHeader { is_final, opcode, ..FrameHeader::default() };
        let part = |opcode, is_final, bytes: &[u8]| {
            let mut frame =
                Frame::from_payload(header(OpCode::Data(opcode), is_final), bytes.to_vec().into());
            frame.header_mut().mask = Some([7, 0, 255, 9]);
            Message::Frame(frame)
        };
        socket.send(part(Data::Binary, false, &rest[..5])).unwrap();
        socket.send(part(Data::Continue, true, &[&rest[5..], &sent[..1000]].concat())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("there?".into()));
        for piece in sent[1000..].chunks(100_000) {
            socket.send(Message::binary(piece.to_vec())).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300)); // until the server's buffers are full
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.extend(socket.read().unwrap().into_data());
        }
        assert!(got == sent);
        assert!(socket.read().unwrap().is_close());
        _ = socket.flush();
    });
    let serve = async {
        let arrival = open.arrival();
        assert_eq!(arrival.transport.kind(), TransportKind::WebSocket);
        echo(arrival, MEGABYTES).await;
    };
    tokio::join!(other_side, serve);
}

/// `[MQTT-6.0.0-1]`, `[MQTT-6.0.0-3]`, and what is no WebSocket at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_for_mqtt_is_refused() {
    let open = Setup { protocol: Protocol::WebSocket, ..Setup::default() }.open();
    assert!(upgrade(&open, "chat").unwrap_err().to_string().contains("400"));
    let mut browser = open.connect();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: hub\r\nUser-Agent: a person\r\n\r\n").unwrap();
    assert!(read_all(browser).starts_with(b"HTTP/1.1 426 "));
    let mut mqtt = open.connect();
    mqtt.write_all(&bytes_of(&open.good(Version::V5))).unwrap();
    assert!(read_all(mqtt).starts_with(b"HTTP/1.1 400 "));
    open.counted("bad_upgrade", 3).await;

    let mut socket = upgrade(&open, "mqtt").unwrap();
    socket.send(Message::text("CONNECT")).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("not closed") };
    assert_eq!(u16::from(close.code), 1003);
    open.counted("not_mqtt", 1).await;

    let mut socket = upgrade(&open, "mqtt").unwrap();
    socket.send(Message::binary(bytes_of(&ConnectOwned::new(Version::V5, "nobody")))).unwrap();
    assert_eq!(connack(&socket.read().unwrap().into_data(), Version::V5), Some(0x87));
    assert!(socket.read().unwrap().is_close());
    assert!(open.nobody_arrived());
}

/// A page from elsewhere is not let in because its browser is on this network.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_needs_a_login_of_its_own() {
    let open = Setup { protocol: Protocol::WebSocket, anonymous_read: true, ..Setup::default() }.open();
    let enter = |origin: &str| {
        let mut request = format!("ws://{}/", open.address).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        let mut socket = tungstenite::client(request, open.connect()).unwrap().0;
        socket.send(Message::binary(bytes_of(&ConnectOwned::new(Version::V5, "page")))).unwrap();
        socket
    };
    let mut foreign = enter("https://evil.example");
    assert_eq!(connack(&foreign.read().unwrap().into_data(), Version::V5), Some(0x87));
    let _own = enter(&format!("http://{}", open.address));
    assert_eq!(open.arrival().login.identity.name(), "anonymous");
}
