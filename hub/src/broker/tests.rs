//! The broker against clients that are not ours (Debian's mosquitto clients and broker) and our own MQTT session.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use runtime::mqtt_client::{MqttOptions, MqttReceiver, MqttSender, connect};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::*;
use crate::config::{EmbeddedBroker, OutsideBroker};

/// A running broker with everything the hub would connect to it.
pub(crate) struct Running {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) inbox: InboxReceiver,
    pub(crate) events: mpsc::Receiver<BrokerEvent>,
    pub(crate) tasks: Tasks,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) metrics: Metrics,
}

impl Running {
    pub(crate) async fn embedded(anonymous_read: bool, inbox: usize) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let own = EmbeddedBroker { listen, anonymous_read, ..EmbeddedBroker::of(dir.path()) };
        let password = access_file::hash_password(b"pw").unwrap();
        access_file::edit(&own.access_file, |file| {
            for (name, role, node) in [("peer", "agent", Some("plant/n1")), ("scada", "reader", None)] {
                let change = access_file::Change {
                    roles: Some(vec![role.into()]),
                    node: node.map(|node| model::NodeId::parse(node).unwrap()),
                    password: Some(password.clone()),
                    ..Default::default()
                };
                file.add(name, &change)?;
            }
            Ok(())
        })
        .unwrap();
        let config = BrokerConfig::Embedded(own);
        Running::start(config, dir, inbox).await
    }

    pub(crate) async fn outside(port: u16, dir: tempfile::TempDir) -> Running {
        Running::start(BrokerConfig::Outside(outside_config(port)), dir, 16).await
    }

    async fn start(config: BrokerConfig, dir: tempfile::TempDir, inbox: usize) -> Running {
        let host = HostIdentity { host_id: "forebay".into(), data_dir: dir.path().to_owned() };
        let (inbox_tx, inbox) = super::inbox(inbox);
        let (events_tx, events) = mpsc::channel(8);
        let tasks = Tasks::new(runtime::tasks::CancellationToken::new());
        let metrics = Metrics::default();
        let broker =
            start(config, host, inbox_tx, events_tx, Clock::machine(), metrics.clone(), tasks.clone())
                .await
                .unwrap();
        Running { broker, inbox, events, tasks, dir, metrics }
    }

    pub(crate) fn port(&self) -> u16 {
        self.broker.local_addr().unwrap().port()
    }

    /// A session logged in as this agent.
    pub(crate) async fn agent(&self, node: &str) -> (MqttSender, MqttReceiver) {
        let token = self.agent_token();
        connect(&session(self.port(), &node.replace('/', "-"), Some((node, &token)))).await.unwrap()
    }

    fn agent_token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent-token")).unwrap().trim().to_owned()
    }

    async fn next(&mut self) -> Incoming {
        tokio::time::timeout(Duration::from_secs(5), self.inbox.recv()).await.expect("a message").unwrap()
    }

    async fn nothing_comes(&mut self) {
        let came = tokio::time::timeout(Duration::from_millis(300), self.inbox.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

/// mosquitto_sub, with its lines.
pub(crate) struct Subscriber {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Subscriber {
    pub(crate) fn start(port: u16, login: Option<(&str, &str)>, arguments: &[&str]) -> Subscriber {
        let mut command = Command::new("mosquitto_sub");
        command
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(login_arguments(login))
            .args(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is missing: install Debian's mosquitto-clients");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Subscriber { child, lines }
    }

    /// The next line; `None` when it ended.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(Duration::from_secs(10), self.lines.next_line()).await;
        line.expect("mosquitto_sub says something within 10 s").unwrap()
    }

    pub(crate) async fn quiet(&mut self) {
        let line = tokio::time::timeout(Duration::from_millis(400), self.lines.next_line()).await;
        assert!(line.is_err(), "{line:?}");
    }

    async fn end(mut self) -> i32 {
        let status = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        status.expect("mosquitto_sub ends").unwrap().code().unwrap_or(-1)
    }
}

fn login_arguments<'a>(login: Option<(&'a str, &'a str)>) -> Vec<&'a str> {
    login.map_or(Vec::new(), |(user, password)| vec!["-u", user, "-P", password])
}

/// mosquitto_pub; its exit code (0 although the broker refused, for QoS 0 and MQTT 3.1.1).
async fn publish(port: u16, login: Option<(&str, &str)>, arguments: &[&str]) -> i32 {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(login_arguments(login)).args(arguments);
    let output =
        command.output().await.expect("mosquitto_pub is missing: install Debian's mosquitto-clients");
    output.status.code().unwrap_or(-1)
}

fn session(port: u16, client_id: &str, login: Option<(&str, &str)>) -> MqttOptions {
    MqttOptions {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        client_id: client_id.into(),
        login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
        keep_alive: Duration::from_secs(20),
        will: None,
        packet_bytes_max: model::limits::MQTT_PACKET_BYTES_MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_publish_as_themselves_and_nobody_else_does() {
    let mut hub = Running::embedded(true, 16).await;
    let (port, token) = (hub.port(), hub.agent_token());
    assert_eq!(hub.events.recv().await, Some(BrokerEvent::Connected));
    let agent = Some(("g/n", token.as_str()));
    assert_eq!(publish(port, agent, &["-t", "spBv1.0/g/NDATA/n", "-m", "a"]).await, 0);
    let message = hub.next().await;
    assert_eq!((&*message.topic, &message.payload[..]), ("spBv1.0/g/NDATA/n", &b"a"[..]));
    assert_eq!(publish(port, Some(("peer", "pw")), &["-t", "spBv1.0/plant/DDATA/n1/d", "-m", "b"]).await, 0);
    assert_eq!(*hub.next().await.topic, *"spBv1.0/plant/DDATA/n1/d");

    for (login, topic) in [
        (None, "spBv1.0/g/NDATA/n"),
        (None, "acme/antwerp/x"),
        (agent, "spBv1.0/g/NDATA/other"),
        (agent, "spBv1.0/g/NCMD/n"),
        (agent, "spBv1.0/STATE/forebay"),
        (Some(("peer", "pw")), "spBv1.0/g/NDATA/n"),
        (Some(("peer", "pw")), "spBv1.0/plant/DCMD/n1/d"),
        (Some(("scada", "pw")), "spBv1.0/g/NDATA/n"),
    ] {
        publish(port, login, &["-V", "5", "-q", "1", "-t", topic, "-m", "x"]).await;
    }
    hub.nothing_comes().await;
    let text = hub.metrics.render();
    assert!(text.contains("forebay_mqtt_refused_total{what=\"publish\"} 8"), "{text}");
    for login in [("g/n", "wrong"), ("peer", token.as_str()), ("nobody", "pw")] {
        assert_ne!(publish(port, Some(login), &["-t", "spBv1.0/g/NDATA/n", "-m", "x"]).await, 0, "{login:?}");
    }
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anonymous_read_a_login_is_needed_and_nodes_see_only_their_own() {
    let hub = Running::embedded(false, 16).await;
    let port = hub.port();
    assert_ne!(Subscriber::start(port, None, &["-t", "#", "-W", "5"]).end().await, 0);
    let mut state =
        Subscriber::start(port, Some(("scada", "pw")), &["-t", "spBv1.0/STATE/+", "-v", "-C", "1"]);
    assert!(state.line().await.unwrap().starts_with("spBv1.0/STATE/forebay {\"online\":true,\"timestamp\":"));
    let mut node = Subscriber::start(
        port,
        Some(("peer", "pw")),
        &["-v", "-t", "spBv1.0/plant/NCMD/n1/#", "-t", "spBv1.0/plant/#", "-t", "spBv1.0/STATE/forebay"],
    );
    assert!(node.line().await.unwrap().starts_with("spBv1.0/STATE/forebay "));
    for topic in ["spBv1.0/plant/NDATA/n2", "spBv1.0/plant/NCMD/n1"] {
        hub.broker.publish(topic.into(), b"x".to_vec(), QoS::AtMostOnce, false).await.unwrap();
    }
    assert_eq!(node.line().await.unwrap(), "spBv1.0/plant/NCMD/n1 x");
    node.quiet().await;
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_slows_the_publisher_and_drops_nothing() {
    const MESSAGES: u32 = 20_000;
    let mut hub = Running::embedded(true, 4).await;
    let token = hub.agent_token();
    let options = session(hub.port(), "flood", Some(("g/n", &token)));
    let sent = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    hub.tasks.spawn(runtime::tasks::TaskKind::Transport, "flood", async move {
        let (sender, _receiver) = connect(&options).await?;
        for number in 0..MESSAGES {
            let mut payload = vec![0; 4096];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.publish("spBv1.0/g/NDATA/n".into(), QoS::AtMostOnce, false, payload).await?;
            counter.store(number, std::sync::atomic::Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, runtime::mqtt_client::MqttError>(())
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(before < MESSAGES / 2, "{before} messages of 4 KiB went somewhere though nobody took them");
    for number in 0..MESSAGES {
        let message = hub.next().await;
        assert_eq!(message.payload[..4], number.to_be_bytes(), "in order, none missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_arrives_like_any_death() {
    let mut hub = Running::embedded(true, 16).await;
    let token = hub.agent_token();
    let mut options = session(hub.port(), "agent", Some(("g/n", &token)));
    options.will = Some(("spBv1.0/g/NDEATH/n".into(), b"will".to_vec(), false));
    let (sender, receiver) = connect(&options).await.unwrap();
    sender.publish("spBv1.0/g/NDATA/n".into(), QoS::AtMostOnce, false, b"1".to_vec()).await.unwrap();
    assert_eq!(hub.next().await.payload, "1");
    drop((sender, receiver)); // no DISCONNECT
    let death = hub.next().await;
    assert_eq!((&*death.topic, &death.payload[..]), ("spBv1.0/g/NDEATH/n", &b"will"[..]));

    options.will = Some(("spBv1.0/other/NDEATH/n".into(), b"forged".to_vec(), false));
    assert!(connect(&options).await.is_err(), "refused at CONNECT");
    hub.nothing_comes().await;
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_is_no_identity() {
    let hub = Running::embedded(true, 16).await;
    let token = hub.agent_token();
    let (sender, mut receiver) =
        connect(&session(hub.port(), "line-3", Some(("g/n", &token)))).await.unwrap();
    assert!(connect(&session(hub.port(), "line-3", None)).await.is_err(), "would throw the agent out");
    sender.subscribe(&[("spBv1.0/g/NCMD/n".into(), QoS::AtMostOnce)]).await.unwrap();
    hub.broker.publish("spBv1.0/g/NCMD/n".into(), b"c".to_vec(), QoS::AtMostOnce, false).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().payload, "c");
    connect(&session(hub.port(), "line-3", Some(("g/n", &token))))
        .await
        .expect("the same login may take over");
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_password_is_kept_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let hub = Running::embedded(false, 1).await;
    let path = hub.dir.path().join("agent-token");
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(first.trim().len(), 64);
    hub.tasks.drain().await;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = BrokerConfig::Embedded(EmbeddedBroker { listen, ..EmbeddedBroker::of(hub.dir.path()) });
    let again = Running::start(config, hub.dir, 1).await;
    assert_eq!(std::fs::read_to_string(path).unwrap(), first);
    again.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_shutdown_the_agents_hear_that_the_host_goes() {
    let hub = Running::embedded(true, 16).await;
    let mut state = Subscriber::start(hub.port(), None, &["-t", "spBv1.0/STATE/forebay"]);
    let online = state.line().await.unwrap();
    let drained = hub.tasks.drain().await;
    assert!(drained.is_graceful(), "{drained:?}");
    assert_eq!(state.line().await.unwrap(), online.replace("true", "false"), "the same timestamp");
}

/// Debian's mosquitto on a free port.
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) port: u16,
    config: PathBuf,
}

impl Mosquitto {
    pub(crate) async fn start(dir: &std::path::Path) -> Mosquitto {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
        let mut mosquitto = Mosquitto { child: Self::spawn(&config), port, config };
        mosquitto.ready().await;
        mosquitto
    }

    fn spawn(config: &std::path::Path) -> Child {
        let mut command = Command::new("mosquitto");
        if !std::path::Path::new("/usr/bin/mosquitto").exists() {
            command = Command::new("/usr/sbin/mosquitto");
        }
        command.arg("-c").arg(config).stderr(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.spawn().expect("mosquitto is missing: install Debian's mosquitto")
    }

    async fn ready(&mut self) {
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("mosquitto does not listen");
    }

    pub(crate) async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = Self::spawn(&self.config);
        self.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_broker_serves_as_well_and_may_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut mosquitto = Mosquitto::start(dir.path()).await;
    let port = mosquitto.port;
    let mut hub = Running::outside(port, dir).await;
    assert_eq!(hub.events.recv().await, Some(BrokerEvent::Connected));
    let mut state = Subscriber::start(port, None, &["-t", "spBv1.0/STATE/forebay"]);
    assert!(state.line().await.unwrap().starts_with("{\"online\":true"));
    publish(port, None, &["-t", "spBv1.0/g/NBIRTH/n", "-m", "b"]).await;
    assert_eq!(*hub.next().await.topic, *"spBv1.0/g/NBIRTH/n");
    let mut commands = Subscriber::start(port, None, &["-t", "spBv1.0/g/NCMD/n", "-C", "1"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    hub.broker.publish("spBv1.0/g/NCMD/n".into(), b"c".to_vec(), QoS::AtMostOnce, false).await.unwrap();
    assert_eq!(commands.line().await.unwrap(), "c");

    // Somebody (an old session's will) says that we are gone: the hub says that it is not.
    publish(port, None, &["-r", "-t", "spBv1.0/STATE/forebay", "-m", "{\"online\":false,\"timestamp\":1}"])
        .await;
    assert!(state.line().await.unwrap().contains("false"));
    assert!(state.line().await.unwrap().contains("true"));

    mosquitto.restart().await;
    assert!(matches!(hub.events.recv().await, Some(BrokerEvent::Disconnected(_))));
    assert_eq!(hub.events.recv().await, Some(BrokerEvent::Connected));
    publish(port, None, &["-t", "spBv1.0/g/DDATA/n/d", "-m", "after"]).await;
    assert_eq!(hub.next().await.payload, "after");

    let mut state = Subscriber::start(port, None, &["-t", "spBv1.0/STATE/forebay"]);
    let online = state.line().await.unwrap();
    assert!(hub.tasks.drain().await.is_graceful());
    assert_eq!(state.line().await.unwrap(), online.replace("true", "false"));
    assert!(matches!(
        hub.broker.publish("x".into(), Vec::new(), QoS::AtMostOnce, false).await,
        Err(BrokerError::NotConnected)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_full_of_retained_messages_is_no_obstacle() {
    const RETAINED: usize = 800; // mosquitto queues 1 000 per client
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start(dir.path()).await;
    let (sender, _receiver) = connect(&session(mosquitto.port, "careless", None)).await.unwrap();
    for node in 0..RETAINED {
        let topic = format!("spBv1.0/g/NBIRTH/n{node}");
        sender.publish(topic, QoS::AtLeastOnce, true, vec![0; 2048]).await.unwrap();
    }
    sender.subscribe(&[("all/taken".into(), QoS::AtMostOnce)]).await.unwrap(); // answered after the publishes
    let mut hub = Running::start(BrokerConfig::Outside(outside_config(mosquitto.port)), dir, 4).await;
    for _ in 0..RETAINED {
        assert!(hub.next().await.retain);
    }
    assert_eq!(hub.events.recv().await, Some(BrokerEvent::Connected));
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_half_open_connections_disturb_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let mut hub = Running::embedded(true, 16).await;
    let (sender, _receiver) = hub.agent("g/n").await;
    let mut idle = Vec::new();
    let mut seed = 0x9e37_79b9_u64;
    for length in 0..300usize {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", hub.port())).await.unwrap();
        // Half of them begin like a CONNECT.
        let mut bytes =
            if length % 2 == 0 { vec![0x10, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 4] } else { Vec::new() };
        bytes.extend((0..length).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33).to_le_bytes()[0]
        }));
        socket.write_all(&bytes).await.ok();
        idle.push(socket);
    }
    sender.publish("spBv1.0/g/NDATA/n".into(), QoS::AtMostOnce, false, b"still".to_vec()).await.unwrap();
    assert_eq!(hub.next().await.payload, "still");
    let huge = vec![0; model::limits::MQTT_PACKET_BYTES_MAX];
    let mut options = session(hub.port(), "huge", Some(("peer", "pw")));
    options.packet_bytes_max *= 2;
    let (too_much, mut ended) = connect(&options).await.unwrap();
    too_much.publish("spBv1.0/plant/NDATA/n1".into(), QoS::AtMostOnce, false, huge).await.ok();
    assert!(ended.next().await.is_err(), "larger than any packet may be");
    hub.nothing_comes().await;
    drop(idle);
    hub.tasks.drain().await;
}

fn outside_config(port: u16) -> OutsideBroker {
    OutsideBroker {
        host: "127.0.0.1".into(),
        port,
        tls: false,
        client_id: "forebay-hub".into(),
        user: None,
        password_file: None,
        ca_file: None,
        cert_file: None,
        key_file: None,
    }
}
