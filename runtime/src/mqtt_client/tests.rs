//! Against Debian's mosquitto, and against peers that behave badly.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

struct Mosquitto {
    process: Child,
    port: u16,
    config: std::path::PathBuf,
}

impl Mosquitto {
    fn start() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = std::env::temp_dir().join(format!("forebay-mosquitto-{}-{port}.conf", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        write!(
            file,
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n{more}"
        )
        .unwrap();
        let process = Command::new("/usr/sbin/mosquitto")
            .args(["-c", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's mosquitto is needed: apt-get install mosquitto");
        let until = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "mosquitto did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Mosquitto { process, port, config: path }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_file(&self.config).ok();
    }
}

fn options(port: u16, client_id: &str) -> MqttOptions {
    MqttOptions {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        client_id: client_id.into(),
        login: None,
        keep_alive: Duration::from_secs(5),
        will: Some((format!("will/{client_id}"), b"gone".to_vec(), false)),
        packet_bytes_max: 1 << 20,
    }
}

#[tokio::test]
async fn messages_of_both_qualities_arrive_in_order() {
    let broker = Mosquitto::start();
    let (sender, mut receiver) = connect(&options(broker.port, "a")).await.unwrap();
    sender.subscribe(&[("t/#".into(), QoS::AtLeastOnce)]).await.unwrap();
    let publisher = sender.clone();
    let mut sent = JoinSet::new();
    sent.spawn(async move {
        for number in 0..2_000_u32 {
            for (topic, qos) in [("t/ü", QoS::AtLeastOnce), ("t/0", QoS::AtMostOnce)] {
                publisher.publish(topic.into(), qos, false, number.to_be_bytes().to_vec()).await.unwrap();
            }
        }
        publisher.publish("t/big".into(), QoS::AtLeastOnce, false, vec![7; 900_000]).await.unwrap();
    });
    let mut next = std::collections::BTreeMap::from([("t/ü".to_owned(), 0_u32), ("t/0".to_owned(), 0)]);
    for _ in 0..4_000 {
        let message = receiver.next().await.unwrap();
        let expected = next.get_mut(&message.topic).unwrap();
        assert_eq!(&message.payload[..], &expected.to_be_bytes()[..]); // each quality keeps its order
        *expected += 1;
    }
    assert_eq!(receiver.next().await.unwrap().payload.len(), 900_000);
    sent.join_next().await.unwrap().unwrap();
    let too_large = sender.publish("t".into(), QoS::AtMostOnce, false, vec![0; 1 << 20]).await;
    assert!(matches!(too_large, Err(MqttError::Options(_))));
    assert!(matches!(
        sender.publish("a/+".into(), QoS::AtMostOnce, false, vec![]).await,
        Err(MqttError::Options(_))
    ));
}

#[tokio::test]
async fn a_user_who_only_sends_is_not_stopped_by_what_arrives() {
    let broker = Mosquitto::start();
    let (sender, mut receiver) = connect(&options(broker.port, "a")).await.unwrap();
    sender.subscribe(&[("t".into(), QoS::AtMostOnce)]).await.unwrap();
    // More than both queues and the broker's window hold, without receiving one of them.
    for _ in 0..1_000 {
        tokio::time::timeout(
            Duration::from_secs(5),
            sender.publish("t".into(), QoS::AtMostOnce, false, vec![1; 1_000]),
        )
        .await
        .expect("publishing must not wait for receiving")
        .unwrap();
    }
    assert_eq!(receiver.next().await.unwrap().payload.len(), 1_000);
}

#[tokio::test]
async fn dropping_sends_the_will_and_disconnecting_does_not() {
    let broker = Mosquitto::start();
    let (watch, mut seen) = connect(&options(broker.port, "watch")).await.unwrap();
    watch.subscribe(&[("will/#".into(), QoS::AtLeastOnce)]).await.unwrap();
    let (polite, politely) = connect(&options(broker.port, "polite")).await.unwrap();
    polite.publish("will/data".into(), QoS::AtMostOnce, false, b"last".to_vec()).await.unwrap();
    polite.disconnect().await.unwrap();
    assert!(polite.publish("x".into(), QoS::AtMostOnce, false, vec![]).await.is_err());
    drop(politely);
    let (rude, rudely) = connect(&options(broker.port, "rude")).await.unwrap();
    drop(rudely);
    assert!(rude.publish("x".into(), QoS::AtLeastOnce, false, vec![]).await.is_err());
    assert_eq!(seen.next().await.unwrap().topic, "will/data");
    assert_eq!(seen.next().await.unwrap().topic, "will/rude");
}

#[tokio::test]
async fn leaving_right_after_the_last_words_is_no_death() {
    let broker = Mosquitto::start();
    let (watch, mut seen) = connect(&options(broker.port, "watch")).await.unwrap();
    watch.subscribe(&[("will/#".into(), QoS::AtLeastOnce)]).await.unwrap();
    // The broker's answers to the last words meet a closed socket, unless leaving waits for it: it would be reset.
    for round in 0..100 {
        let (polite, _unread) = connect(&options(broker.port, &format!("polite-{round}"))).await.unwrap();
        polite.subscribe(&[("t".into(), QoS::AtLeastOnce)]).await.unwrap();
        for _ in 0..5 {
            polite.publish("t".into(), QoS::AtLeastOnce, false, vec![2]).await.unwrap();
        }
        polite.disconnect().await.unwrap();
    }
    watch.publish("will/end".into(), QoS::AtLeastOnce, false, vec![]).await.unwrap();
    assert_eq!(seen.next().await.unwrap().topic, "will/end");
}

#[tokio::test]
async fn a_broker_that_dies_is_noticed_and_says_why() {
    let broker = Mosquitto::start();
    let port = broker.port;
    let (sender, mut receiver) = connect(&options(port, "a")).await.unwrap();
    drop(broker);
    let error = receiver.next().await.unwrap_err();
    assert!(matches!(error, MqttError::Lost(_)), "{error}");
    assert!(sender.subscribe(&[("t".into(), QoS::AtMostOnce)]).await.is_err());
    let error = connect(&options(port, "a")).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_silent_broker_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut connect = [0; 64];
        assert!(socket.read(&mut connect).await.unwrap() > 0);
        socket.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await; // half open: accepts, never speaks again
    });
    let silent = MqttOptions { keep_alive: Duration::from_secs(1), ..options(port, "a") };
    let (_sender, mut receiver) = connect(&silent).await.unwrap();
    let error = receiver.next().await.unwrap_err();
    assert!(error.to_string().contains("nothing from the broker"), "{error}");
    server.abort_all();
}

#[tokio::test]
async fn garbage_is_an_error_and_no_panic() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x20, 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = listener.accept().await.unwrap();
            assert!(socket.read(&mut [0; 256]).await.unwrap() > 0);
            socket.write_all(garbage).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        match connect(&options(port, "a")).await {
            Err(error) => assert!(error.to_string().contains("MQTT broker"), "{error}"),
            Ok((_sender, mut receiver)) => {
                let error = receiver.next().await.unwrap_err();
                assert!(error.to_string().contains("malformed"), "{error}");
            }
        }
        server.abort_all();
    }
}

/// A CA, a server certificate for 127.0.0.1 and a client certificate, made by openssl.
fn certificates(dir: &std::path::Path) {
    let script = r#"
        set -e
        new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -subj /CN=$1 "${@:2}"; }
        new ca -x509 -days 2 -out ca.pem
        for name in server client; do
            new $name -out $name.csr
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out $name.pem \
                -extfile <(printf 'subjectAltName=IP:127.0.0.1')
        done
        new other -x509 -days 2 -out other.pem
        chmod 644 *.key # mosquitto drops its rights before it reads them
    "#;
    let made = Command::new("bash").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "openssl is needed: {}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn tls_proves_both_sides() {
    let dir = std::env::temp_dir().join(format!("forebay-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    certificates(&dir);
    let file = |name: &str| dir.join(name);
    let at = dir.display();
    let broker = Mosquitto::with(&format!(
        "cafile {at}/ca.pem\ncertfile {at}/server.pem\nkeyfile {at}/server.key\nrequire_certificate true\n"
    ));
    let tls = |ca: &str, client: Option<&str>| MqttOptions {
        tls: Some(TlsOptions {
            ca_file: Some(file(ca)),
            client: client.map(|name| (file(&format!("{name}.pem")), file(&format!("{name}.key")))),
        }),
        ..options(broker.port, "a")
    };
    let (sender, mut receiver) = connect(&tls("ca.pem", Some("client"))).await.unwrap();
    sender.subscribe(&[("t".into(), QoS::AtLeastOnce)]).await.unwrap();
    sender.publish("t".into(), QoS::AtLeastOnce, false, vec![9; 300_000]).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().payload.len(), 300_000);
    sender.disconnect().await.unwrap();
    let stranger = connect(&tls("other.pem", Some("client"))).await.unwrap_err();
    assert!(matches!(stranger, MqttError::Refused(_)), "another CA's broker: {stranger}");
    // In TLS 1.3 the client learns only after its handshake that it is refused.
    let nobody = connect(&tls("ca.pem", None)).await.unwrap_err();
    assert!(matches!(nobody, MqttError::Lost(_) | MqttError::Refused(_)), "without a certificate: {nobody}");
    let missing = connect(&tls("missing.pem", None)).await.unwrap_err();
    assert!(matches!(missing, MqttError::Options(_)), "{missing}");
    let plain = connect(&options(broker.port, "a")).await.unwrap_err();
    assert!(plain.to_string().contains("TLS expected"), "{plain}");
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn addresses_are_read() {
    assert_eq!(parse_url("mqtt://h"), Ok(("h".into(), 1883, false)));
    assert_eq!(parse_url("mqtts://[::1]:99"), Ok(("::1".into(), 99, true)));
    assert!(parse_url("http://h").is_err());
    assert!(parse_url("mqtt://h:x").is_err());
}
