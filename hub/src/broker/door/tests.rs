//! The door with clients over real sockets: who gets in, who is told what, what strangers cost.

mod hostile;
mod interop;
mod plain;
mod secure;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use proto::mqtt::{self, Packet, Version, encode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use runtime::tasks::CancellationToken;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::broker::access_file::{self, Change, NewToken};

/// Long enough for a slow machine, short enough for a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A door with one listener, and what came through it.
struct Open {
    address: SocketAddr,
    arrivals: Receiver<Arrival>,
    metrics: Metrics,
    tasks: Tasks,
    token: String,
    _dir: tempfile::TempDir,
}

/// How a test's door differs.
struct Setup {
    protocol: Protocol,
    tls: Option<TlsConfig>,
    anonymous_read: bool,
    places: (usize, usize),
    deadline: Duration,
    /// Arrivals that the core takes before it is full.
    room: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            protocol: Protocol::Mqtt,
            tls: None,
            anonymous_read: false,
            places: (1_500, 1_500),
            deadline: DEADLINE,
            room: 1_500,
        }
    }
}

impl Setup {
    fn open(self) -> Open {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.toml");
        let token = NewToken::make().unwrap();
        access_file::edit(&path, |edit| {
            let roles = Some(vec!["reader".to_owned()]);
            edit.add(
                "screen",
                &Change { roles: roles.clone(), token: Some(token.hash.clone()), ..Change::default() },
            )?;
            edit.add("panel", &Change { roles, certificate: Some(true), ..Change::default() })
        })
        .unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let access = AccessBook::open(&path, dir.path(), "plant", &tasks).unwrap();
        let (to_core, arrivals): (SyncSender<Arrival>, _) = sync_channel(self.room);
        let reception: Reception = Arc::new(move |arrival| {
            to_core.try_send(arrival).map_err(|error| match error {
                std::sync::mpsc::TrySendError::Full(arrival)
                | std::sync::mpsc::TrySendError::Disconnected(arrival) => Box::new(arrival),
            })
        });
        let read_certificate: ReadCertificate = Arc::new(|der| {
            let has = |name: &[u8]| der.as_ref().windows(name.len()).any(|window| window == name);
            let name = ["panel", "nobody"].into_iter().find(|name| has(name.as_bytes())).ok_or("no name")?;
            Ok(ClientCertificate {
                names: vec![name.to_owned()],
                not_before: model::Timestamp::from_millis(1_700_000_000_000),
                serial: "01".into(),
            })
        });
        let metrics = Metrics::default();
        let mut door = Door::new(access, reception, read_certificate, self.places, &metrics);
        door.deadline = self.deadline;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any_port, self.protocol, self.tls, self.anonymous_read).unwrap();
        let address = listener.address();
        door.open(vec![listener], &tasks);
        Open { address, arrivals, metrics, tasks, token: token.text, _dir: dir }
    }
}

impl Open {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A CONNECT that is let in.
    fn good(&self, version: Version) -> ConnectOwned {
        let mut connect = ConnectOwned::new(version, "client");
        connect.user = Some("screen".into());
        connect.password = Some(self.token.clone().into_bytes());
        connect
    }

    fn arrival(&self) -> Arrival {
        self.arrivals.recv_timeout(PATIENCE).unwrap()
    }

    fn nobody_arrived(&self) -> bool {
        matches!(self.arrivals.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout))
    }

    /// How often an outcome was counted.
    fn count(&self, outcome: &str) -> u64 {
        self.metrics.counter("forebay_broker_connections_total", "", &[("outcome", outcome)]).get()
    }

    /// Waits until an outcome was counted so often.
    async fn counted(&self, outcome: &str, times: u64) {
        let begun = Instant::now();
        while self.count(outcome) < times {
            assert!(
                begun.elapsed() < PATIENCE,
                "{outcome}: {} of {times}\n{}",
                self.count(outcome),
                self.metrics.render()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.count(outcome), times, "{outcome}");
    }
}

fn bytes_of(connect: &ConnectOwned) -> Vec<u8> {
    let mut out = Vec::new();
    encode::connect(&mut out, connect);
    out
}

/// Everything until the other side hangs up.
fn read_all(mut socket: impl std::io::Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 1024];
    loop {
        match socket.read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// The code of the one CONNACK that `bytes` are; `None` if there is nothing.
fn connack(bytes: &[u8], version: Version) -> Option<u8> {
    if bytes.is_empty() {
        return None;
    }
    let frame = mqtt::frame(bytes, 1000).unwrap().unwrap();
    assert_eq!(frame.total, bytes.len(), "more than a CONNACK: {bytes:02x?}");
    let Packet::ConnAck(ack) = mqtt::decode(frame, version).unwrap() else { panic!("{bytes:02x?}") };
    assert!(!ack.session_present);
    Some(ack.reason)
}

/// Certificate and key, both also as PEM.
type ClientPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String, String);

/// A CA, a server's certificate and a client's, for tests.
struct Plant {
    ca_pem: String,
    server: Arc<ServerConfig>,
    /// Makes a client of a name.
    client: Box<dyn Fn(&str) -> ClientPair>,
}

fn plant() -> Plant {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "plant CA");
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let ca_pem = ca_certificate.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let client = move |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], der, certificate.pem(), key.serialize_pem())
    };
    Plant { ca_pem, server: Arc::new(config), client: Box::new(client) }
}

impl Plant {
    fn tls(&self) -> Option<TlsConfig> {
        let server = Arc::clone(&self.server);
        Some(Arc::new(move || Arc::clone(&server)))
    }

    /// A blocking TLS client over a socket.
    fn client(
        &self,
        socket: TcpStream,
        name: Option<&str>,
    ) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let pem =
            <CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(self.ca_pem.as_bytes());
        roots.add(pem.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let (chain, key, ..) = (self.client)(name);
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let session =
            rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        rustls::StreamOwned::new(session, socket)
    }

    /// Writes the CA's certificate and a client's for peers that read files.
    fn files(&self, folder: &Path) -> PathBuf {
        let (.., certificate, key) = (self.client)("panel");
        std::fs::write(folder.join("ca.crt"), &self.ca_pem).unwrap();
        std::fs::write(folder.join("panel.crt"), certificate).unwrap();
        std::fs::write(folder.join("panel.key"), key).unwrap();
        folder.join("ca.crt")
    }
}

/// Blocking work of a client, beside the door's tasks.
async fn client<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
