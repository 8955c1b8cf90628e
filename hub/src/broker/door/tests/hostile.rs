//! Strangers who take their time, come in crowds, or stop in the middle: what they cost, and that others do not notice.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_dawdles_is_shown_out_at_the_deadline() {
    let plant = plant();
    for tls in [None, plant.tls()] {
        let first: &[u8] = if tls.is_some() { &[22, 3, 1, 2, 0] } else { &[0x10, 100, 0, 4] };
        let open = Setup { tls, deadline: Duration::from_millis(600), ..Setup::default() }.open();
        let begun = Instant::now();
        let sockets: Vec<TcpStream> = (0..20).map(|_| open.connect()).collect();
        for (index, mut socket) in sockets.iter().enumerate() {
            // Nothing; a byte; a few bytes, and another one now and then.
            socket.write_all(&first[..index % first.len()]).unwrap();
        }
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for mut socket in sockets.iter().skip(10) {
                socket.write_all(&[if first[0] == 22 { 22 } else { 0 }]).ok();
            }
        }
        for socket in sockets {
            assert_eq!(read_all(socket), b"");
        }
        assert!(begun.elapsed() >= Duration::from_millis(600));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let all = || {
            open.count("late") + open.count("not_mqtt") + open.count("bad_connect") + open.count("not_tls")
        };
        while all() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(open.count("late") >= 10);
    }
}

/// A part of a message, then silence for ever: seen at once, and not asked for again and again.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_in_the_middle_is_gone() {
    let plant = plant();
    for (protocol, tls) in
        [(Protocol::Mqtt, None), (Protocol::Mqtt, plant.tls()), (Protocol::WebSocket, None)]
    {
        let secure = tls.is_some();
        let open = Setup { protocol, tls, ..Setup::default() }.open();
        let hello = {
            let mut hello = Vec::new();
            plant.client(open.connect(), None).conn.write_tls(&mut hello).unwrap();
            hello
        };
        open.counted("lost", 1).await;
        let parts = match (secure, protocol) {
            (true, _) => vec![&hello[..1], &hello[..4], &hello[..100], &hello[..]],
            (_, Protocol::WebSocket) => vec![&b"GET /"[..]],
            _ => vec![&[0x10][..], &[0x10, 200, 1], &[0x10, 20, 0, 4, b'M']],
        };
        let expected = parts.len() as u64;
        let sockets: Vec<TcpStream> = parts
            .iter()
            .map(|part| {
                let mut socket = open.connect();
                socket.write_all(part).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                socket
            })
            .collect();
        let begun = Instant::now();
        while open.count("lost") + open.count("tls_failed") < 1 + expected {
            assert!(begun.elapsed() < DEADLINE / 2, "{}", open.metrics.render());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(sockets);
    }
}

/// Clients that send a ClientHello and then nothing hold TLS state, but no other client up.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stop_delay_nobody() {
    let plant = plant();
    let open = Setup { tls: plant.tls(), ..Setup::default() }.open();
    let mut halted = Vec::new();
    for _ in 0..200 {
        let mut socket = open.connect();
        let mut session = plant.client(open.connect(), None).conn;
        session.write_tls(&mut socket).unwrap();
        halted.push(socket);
    }
    let mut answered = [0];
    for socket in &halted {
        socket.peek(&mut answered).unwrap(); // all 200 have their ServerHello
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let good = bytes_of(&open.good(Version::V5));
        let mut stream = plant.client(open.connect(), None);
        let begun = Instant::now();
        client(move || stream.write_all(&good).unwrap()).await;
        open.arrival();
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Handshakes in a crowd, and a plain client meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_handshakes_does_not_delay_an_accept() {
    let plant = plant();
    let secure = Setup { tls: plant.tls(), ..Setup::default() }.open();
    let plain = Setup::default().open();
    let mut hellos = Vec::new();
    for _ in 0..300 {
        let mut hello = Vec::new();
        plant.client(secure.connect(), None).conn.write_tls(&mut hello).unwrap();
        hellos.push(hello);
    }
    let sockets: Vec<TcpStream> = hellos
        .iter()
        .map(|hello| {
            let mut socket = secure.connect();
            socket.write_all(hello).unwrap();
            socket
        })
        .collect();
    let begun = Instant::now();
    let mut socket = plain.connect();
    socket.write_all(&bytes_of(&plain.good(Version::V5))).unwrap();
    plain.arrival();
    let waited = begun.elapsed();
    let mut answered = [0];
    for socket in &sockets {
        socket.peek(&mut answered).unwrap();
    }
    assert!(waited < Duration::from_secs(1), "{waited:?} beside {:?} of handshakes", begun.elapsed());
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Runs in processes of its own, because it measures those. Both ends of the sockets are in them.
#[test]
fn a_thousand_idle_sockets_cost_less_than_4_kb_each() {
    const MARK: &str = "FOREBAY_TEST_MEASURES_ITSELF";
    let Some(way) = std::env::var_os(MARK) else {
        let name = "broker::door::tests::hostile::a_thousand_idle_sockets_cost_less_than_4_kb_each";
        for way in ["plain", "secure"] {
            let mut itself = std::process::Command::new(std::env::current_exe().unwrap());
            let output = itself.args([name, "--exact", "--nocapture"]).env(MARK, way).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.contains("bytes each"), "{way}: {said}");
            eprintln!("{way}: {}", said.lines().find(|line| line.contains("bytes each")).unwrap_or_default());
        }
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let plant = plant();
        let (tls, sent) =
            if way == "secure" { (plant.tls(), &[22, 3, 1, 2][..]) } else { (None, &[0x10, 100][..]) };
        let places = (2_000, 2_000);
        let open = Setup { tls, places, deadline: Duration::from_secs(120), ..Setup::default() }.open();
        let mut sockets = Vec::with_capacity(2_000);
        let mut idle = |count: usize| {
            for _ in 0..count {
                let mut socket = open.connect();
                socket.write_all(sent).unwrap();
                sockets.push(socket);
            }
        };
        idle(200);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = resident();
        idle(1_000);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let each = resident().saturating_sub(before) / 1_000;
        eprintln!("{each} bytes each");
        assert!(each <= 4_096, "{each} bytes each");
        assert_eq!(open.count("lost") + open.count("late") + open.count("no_place_for_address"), 0);
    });
}

/// What a task of the door holds while it waits, without what it points to.
#[tokio::test]
async fn a_greeting_is_small() {
    let open = Setup::default().open();
    let socket = open.connect();
    let peer = socket.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let access = AccessBook::open(&dir.path().join("access.toml"), dir.path(), "plant", &open.tasks).unwrap();
    let reception: Reception = Arc::new(|_| Ok(()));
    let read_certificate: ReadCertificate = Arc::new(|_| Err("none".into()));
    let door = Arc::new(Door::new(access, reception, read_certificate, (1, 1), &Metrics::default()));
    let listener = Arc::new(Listener::bind(([127, 0, 0, 1], 0).into(), Protocol::Mqtt, None, false).unwrap());
    let slot = door.places.take(peer.ip()).unwrap();
    let greeting = greeting::greet(door, listener, Transport::accepted(socket).unwrap(), peer, slot);
    let bytes = std::mem::size_of_val(&greeting);
    assert!(bytes <= 2_048, "{bytes}");
}
