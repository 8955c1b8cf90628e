//! The hub in this process, on a thread and a runtime of its own: started and stopped by blocking calls.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use hub::Config;
use hub::config::broker::{ClientCertificates, Listener, Protocol};
use hub::config::{BrokerConfig, CommandsConfig, EmbeddedBroker, HttpConfig};
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;
use sha2::{Digest as _, Sha256};

use super::broker::{READER, TESTER};

/// A running hub; cancelled when dropped.
pub(crate) struct Hub {
    /// MQTT over TCP.
    pub(crate) address: SocketAddr,
    /// MQTT over WebSocket.
    pub(crate) websocket: Option<SocketAddr>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Tokens, since a password costs what it should and there are many logins here.
fn access_file() -> String {
    let hash = |token: &str| -> String {
        Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!(
        r##"version = 1
[roles.everything]
publish = ["#"]
subscribe = ["#", "$SYS/#", "$sparkplug/#"]
[roles.open]
publish = []
subscribe = ["open/#"]
[[identities]]
name = "tester"
roles = ["everything"]
token = "sha256:{}"
[[identities]]
name = "reader"
roles = ["open"]
token = "sha256:{}"
"##,
        hash(TESTER),
        hash(READER),
    )
}

fn config(folder: &Path, websocket: SocketAddr, sparkplug_aware: bool) -> Config {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let access_file_path = folder.join("access.toml");
    std::fs::write(&access_file_path, access_file()).unwrap();
    let listener = Listener {
        listen: websocket,
        protocol: Protocol::WebSocket,
        tls: false,
        client_certificate: ClientCertificates::None,
        anonymous_read: false,
    };
    let broker = EmbeddedBroker {
        listen: any,
        access_file: access_file_path,
        listeners: vec![listener],
        sparkplug_aware,
        ..EmbeddedBroker::of(folder)
    };
    Config {
        enterprise: "acme".into(),
        site: "antwerp".into(),
        data_dir: folder.to_owned(),
        id: "antwerp".into(),
        host_id: "forebay".into(),
        retention: Duration::from_secs(3600),
        retention_bytes: 1_000_000_000,
        clock_skew_max: Duration::from_secs(60),
        broker: BrokerConfig::Embedded(broker),
        http: HttpConfig { listen: any },
        commands: CommandsConfig { enabled: false },
    }
}

impl Hub {
    /// Starts with this data folder; WebSocket is served at the address given.
    pub(crate) fn start(folder: &Path, websocket: SocketAddr, sparkplug_aware: bool) -> Hub {
        let config = config(folder, websocket, sparkplug_aware);
        let shutdown = CancellationToken::new();
        let (started, address) = sync_channel(1);
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async move {
                let tasks = Tasks::new(token.clone());
                let hub = hub::start(config, Clock::machine(), Metrics::default(), tasks.clone());
                let hub = hub.await.unwrap();
                started.send(hub.mqtt.unwrap()).unwrap();
                token.cancelled().await;
                let drained = tasks.drain().await;
                assert!(drained.is_graceful(), "{drained:?}");
            });
        });
        let address = address.recv().expect("the hub starts");
        Hub { address, websocket: Some(websocket), shutdown, thread: Some(thread) }
    }

    /// Ends in order.
    pub(crate) fn stop(mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().expect("the hub ends in order");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
