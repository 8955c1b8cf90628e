//! Handshakes over real sockets while files change, and clients with and without certificates.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pki::{Authority, CLIENT_VALIDITY, PrivateKey, write_private, write_public};

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const DAY: i64 = 86_400_000_000;

struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    clock: Clock,
}

impl Site {
    fn new() -> Self {
        let (authority, _) = Authority::make("CA", START).unwrap();
        let site = Site { folder: tempfile::tempdir().unwrap(), authority, clock: Clock::manual(START) };
        write_public(&site.at("ca.crt"), site.authority.pem()).unwrap();
        site.issue_hub();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue_hub(&self) -> Fingerprint {
        let key = PrivateKey::make().unwrap();
        let hub = self.authority.issue_server(&["localhost".into()], &key, self.clock.now()).unwrap();
        write_private(&self.at("hub.key"), &key.to_pem()).unwrap();
        write_public(&self.at("hub.crt"), &hub.pem).unwrap();
        hub.certificate.fingerprint
    }

    fn load(&self, client_certificate: ClientCertificate) -> TlsServer {
        let files = TlsFiles {
            cert_file: self.at("hub.crt"),
            key_file: self.at("hub.key"),
            client_ca_file: Some(self.at("ca.crt")),
            client_certificate,
        };
        TlsServer::load(files, self.clock.clone(), Metrics::default()).unwrap()
    }

    /// Connects as a client; the server's fingerprint, or what went wrong. Every accepted session echoes a byte.
    async fn shake(&self, server: &TlsServer, client: ClientConfig) -> Result<Fingerprint, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = server.current();
        let accepting = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await?;
            let byte = tls.read_u8().await?;
            tls.write_u8(byte).await?;
            tls.shutdown().await
        };
        let connecting = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await?;
            tls.write_u8(7).await?;
            assert_eq!(tls.read_u8().await?, 7);
            let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
            Ok::<_, std::io::Error>(Fingerprint::of(&leaf.unwrap()))
        };
        let (_, connected) = tokio::join!(accepting, connecting);
        connected.map_err(|error| error.to_string())
    }

    fn client(
        &self,
        identity: Option<(&Authority, Timestamp)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let time = load::time_for_tests(&self.clock);
        let builder = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let Some((authority, from)) = identity else { return builder.with_no_client_auth() };
        let key = PrivateKey::make().unwrap();
        let request = key.request("x").unwrap();
        let issued = authority.issue_client("line-3", &request, from, CLIENT_VALIDITY).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn clients_are_let_in_as_the_listener_says() {
    let site = Site::new();
    let (stranger, _) = Authority::make("CA", START).unwrap(); // the same name, another key
    for version in BOTH {
        let versions = std::slice::from_ref(version);
        for (asked, nobody, ours, strangers, ended) in [
            (ClientCertificate::None, true, true, true, true),
            (ClientCertificate::Optional, true, true, false, false),
            (ClientCertificate::Required, false, true, false, false),
        ] {
            let server = site.load(asked);
            let old = Timestamp(START.micros() - 91 * DAY);
            for (identity, expected) in [
                (None, nobody),
                (Some((&site.authority, START)), ours),
                (Some((&stranger, START)), strangers),
                (Some((&site.authority, old)), ended),
            ] {
                let client = site.client(identity, versions);
                let shaken = site.shake(&server, client).await;
                assert_eq!(shaken.is_ok(), expected, "{asked:?} {version:?}: {shaken:?}");
            }
        }
    }
}

#[tokio::test]
async fn changed_files_are_taken_and_half_changes_are_not() {
    let site = Site::new();
    let server = site.load(ClientCertificate::None);
    let shake = || async { site.shake(&server, site.client(None, BOTH)).await.unwrap() };
    let first = shake().await;
    let second = site.issue_hub();
    assert_eq!(shake().await, first, "nobody has looked yet");
    server.look();
    assert_eq!(shake().await, second);

    let before = std::fs::read(site.at("hub.crt")).unwrap();
    for (file, content, expected) in [
        ("hub.key", PrivateKey::make().unwrap().to_pem().into_bytes(), "does not belong"),
        ("hub.crt", before[..before.len() / 2].to_vec(), "damaged"),
        ("hub.crt", b"".to_vec(), "no certificate"),
        ("hub.key", b"".to_vec(), "no unencrypted key"),
    ] {
        let kept = std::fs::read(site.at(file)).unwrap();
        std::fs::write(site.at(file), content).unwrap();
        server.look();
        let problem = server.status().problem.unwrap();
        assert!(problem.contains(expected) && problem.contains(file), "{problem}");
        assert_eq!(shake().await, second);
        std::fs::write(site.at(file), kept).unwrap();
        server.look();
        assert_eq!(server.status().problem, None);
    }
    std::fs::remove_file(site.at("hub.crt")).unwrap();
    server.look();
    server.look();
    assert!(server.status().problem.unwrap().contains("No such file"));
    assert_eq!(server.shared.metrics.counter("forebay_tls_reload_failures_total", "", &[]).get(), 5);
    assert_eq!(shake().await, second);
    let third = site.issue_hub();
    server.look();
    assert_eq!((shake().await, server.status().problem), (third, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloading_while_handshakes_run_breaks_none_of_them() {
    let site = Site::new();
    let server = site.load(ClientCertificate::Optional);
    let (reloads, shaken) = (AtomicU32::new(0), AtomicU32::new(0));
    let enough = |count: &AtomicU32| count.load(Ordering::Relaxed) >= 20;
    let changing = async {
        while !enough(&shaken) || !enough(&reloads) {
            site.issue_hub();
            server.look();
            reloads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let shaking = async {
        while !enough(&shaken) || !enough(&reloads) {
            site.shake(&server, site.client(Some((&site.authority, START)), BOTH)).await.unwrap();
            shaken.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::join!(changing, shaking);
    assert_eq!(server.status().problem, None);
}

#[test]
fn the_end_of_a_certificate_is_told_30_days_ahead_once_a_day() {
    let site = Site::new();
    let server = site.load(ClientCertificate::None);
    let status = server.status();
    assert_eq!(status.certificates[0].names, ["localhost"]);
    assert!(!status.certificates[0].is_ending);
    let gauge = || {
        let file = site.at("hub.crt").display().to_string();
        server.shared.metrics.gauge("forebay_tls_certificate_expires_seconds", "", &[("file", &file)]).get()
    };
    assert_eq!(gauge(), 365 * 86_400);
    let certificate = server.state().loaded.certificates[0].1.clone();
    let mut watch = ExpiryWatch::new(&Metrics::default());
    let mut warned = Vec::new();
    for hour in 0..=366 * 24 {
        let now = Timestamp(START.micros() + hour * DAY / 24);
        if watch.look(Path::new("hub.crt"), &certificate, now) {
            warned.push(hour);
        }
    }
    assert_eq!(warned.len(), 32, "{warned:?}");
    assert_eq!((warned[0], warned[1]), (335 * 24, 336 * 24));
    site.clock.set(Timestamp(START.micros() + 366 * DAY));
    server.look();
    assert_eq!(gauge(), -86_400);
    assert!(server.status().certificates[0].is_ending);
}

#[test]
fn what_cannot_be_loaded_says_which_file_and_why() {
    let site = Site::new();
    let load = |cert: &str, key: &str, ca: Option<&str>| {
        let files = TlsFiles {
            cert_file: site.at(cert),
            key_file: site.at(key),
            client_ca_file: ca.map(|name| site.at(name)),
            client_certificate: ClientCertificate::Optional,
        };
        TlsServer::load(files, site.clock.clone(), Metrics::default()).unwrap_err().to_string()
    };
    let missing = load("none.crt", "hub.key", Some("ca.crt"));
    assert!(missing.contains("none.crt: No such file"), "{missing}");
    let other = load("ca.crt", "hub.key", Some("ca.crt"));
    assert!(other.contains("hub.key: its key does not belong") && other.contains("ca.crt"), "{other}");
    let none = load("hub.crt", "hub.key", None);
    assert!(none.contains("client_ca_file"), "{none}");
    let key = load("hub.crt", "hub.crt", Some("ca.crt"));
    assert!(key.contains("no unencrypted key"), "{key}");
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(site.folder.path()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    openssl("req -newkey rsa:2048 -nodes -keyout v1.key -out v1.csr -subj /CN=old");
    openssl("x509 -req -in v1.csr -signkey v1.key -out v1.crt");
    if openssl("x509 -in v1.crt -noout -text").contains("Version: 1 ") {
        let old = load("v1.crt", "v1.key", Some("ca.crt")); // newer openssl makes none of version 1
        assert!(old.contains("v1.crt: is an X.509 certificate of version 1"), "{old}");
    }
    let ca = load("hub.crt", "hub.key", Some("hub.key"));
    assert!(ca.contains("hub.key: holds no certificate"), "{ca}");
}
