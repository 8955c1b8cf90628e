//! Joining and renewing over real sockets, with our client and with curl; the clock is the machine's where TLS of others
//! looks at it.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;

use runtime::enrolment::{self, EnrolError, EnrolUrl, JoinRequest, RenewRequest};
use runtime::mqtt_client::TlsOptions;
use runtime::pki::{Fingerprint, PrivateKey, read_certificates, write_private, write_public};
use runtime::tasks::CancellationToken;

use super::*;

#[derive(Default)]
struct Book(Mutex<HashMap<String, Allowed>>);

impl Identities for Book {
    fn look_up(&self, name: &str) -> Result<Option<Allowed>, String> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }
}

impl Book {
    fn put(&self, name: &str, allowed: Allowed) {
        self.0.lock().unwrap().insert(name.into(), allowed);
    }
}

struct Site {
    folder: tempfile::TempDir,
    book: Arc<Book>,
    joins: Joins,
    ca: Fingerprint,
    metrics: Metrics,
    tasks: Tasks,
    addr: SocketAddr,
}

fn agent() -> Allowed {
    Allowed { certificate: true, node: NodeId::new("plant", "line-3").ok(), ..Allowed::default() }
}

impl Site {
    async fn new(validity: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let now = Clock::machine().now();
        let ca = Authority::make_files("CA", &at("ca.crt"), &at("ca.key"), now).unwrap();
        let key = PrivateKey::make().unwrap();
        let hub = ca.issue_server(&["localhost".into(), "127.0.0.1".into()], &key, now).unwrap();
        write_private(&at("hub.key"), &key.to_pem()).unwrap();
        write_public(&at("hub.crt"), &(hub.pem + ca.pem())).unwrap();
        let book = Arc::<Book>::default();
        book.put("line-3", agent());
        let mut setup = Setup::new("127.0.0.1:0".parse().unwrap(), folder.path(), book.clone());
        (setup.validity, setup.mqtt_port) = (validity, Some(8883));
        let (metrics, tasks) = (Metrics::default(), Tasks::new(CancellationToken::new()));
        let started = start(setup, Clock::machine(), metrics.clone(), &tasks).await.unwrap();
        let joins = Joins::below(folder.path());
        let ca = ca.certificate().fingerprint;
        Site { folder, book, joins, ca, metrics, tasks, addr: started.addr }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> EnrolUrl {
        format!("https://localhost:{}", self.addr.port()).parse().unwrap()
    }

    fn token(&self, name: &str) -> String {
        self.joins.make(name, Clock::machine().now(), JOIN_VALIDITY).unwrap().token
    }

    async fn join(&self, token: &str) -> Result<(PrivateKey, enrolment::Granted), EnrolError> {
        let key = PrivateKey::make().unwrap();
        let request = JoinRequest { token: token.into(), csr: key.request("x").unwrap() };
        let (granted, ca) = enrolment::join(&self.url(), self.ca, &request).await?;
        assert_eq!(ca.fingerprint, self.ca);
        Ok((key, granted))
    }

    /// Joins and writes the files of an agent.
    async fn joined(&self, name: &str) -> TlsOptions {
        let (key, granted) = self.join(&self.token(name)).await.unwrap();
        self.keep(&key, &granted)
    }

    fn keep(&self, key: &PrivateKey, granted: &enrolment::Granted) -> TlsOptions {
        write_private(&self.at("agent.pem"), &(key.to_pem() + &granted.certificate)).unwrap();
        write_public(&self.at("agent-ca.crt"), &granted.ca).unwrap();
        let pem = self.at("agent.pem");
        TlsOptions { ca_file: Some(self.at("agent-ca.crt")), client: Some((pem.clone(), pem)) }
    }

    async fn renew(&self, tls: &TlsOptions) -> Result<(PrivateKey, enrolment::Granted), EnrolError> {
        let key = PrivateKey::make().unwrap();
        let request = RenewRequest { csr: key.request("x").unwrap() };
        Ok((key, enrolment::renew(&self.url(), tls, &request).await?))
    }

    fn curl(&self, arguments: &[&str], path: &str) -> (String, String) {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(self.at("ca.crt"))
            .args(["-w", "\n%{http_code}"])
            .args(arguments)
            .arg(format!("{}{path}", self.url()))
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned() + &String::from_utf8_lossy(&output.stderr))
    }
}

fn refused(outcome: Result<(PrivateKey, enrolment::Granted), EnrolError>) -> (u16, String) {
    match outcome {
        Err(EnrolError::Refused { status, reason }) => (status, reason.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_joins_once_and_renews_until_it_is_revoked() {
    let site = Site::new(CLIENT_VALIDITY).await;
    let token = site.token("line-3");
    let (key, granted) = site.join(&token).await.unwrap();
    assert_eq!((granted.name.as_str(), granted.mqtt_port), ("line-3", Some(8883)));
    assert_eq!((granted.group.as_deref(), granted.node.as_deref()), (Some("plant"), Some("line-3")));
    let (status, message) = refused(site.join(&token).await);
    assert_eq!(status, 403, "{message}");
    let tls = site.keep(&key, &granted);
    let first = read_certificates(&site.at("agent.pem")).unwrap().remove(0);
    assert!(key.fits(&first) && first.common_name.as_deref() == Some("line-3"));

    let (key, granted) = site.renew(&tls).await.unwrap();
    site.keep(&key, &granted);
    let second = read_certificates(&site.at("agent.pem")).unwrap().remove(0);
    assert!(key.fits(&second) && second.fingerprint != first.fingerprint);
    let noted = IssuedFolder::below(site.folder.path()).of("line-3").unwrap();
    assert_eq!(noted.fingerprint, second.fingerprint.to_string());
    assert!(noted.joined.is_some() && noted.renewed.is_some());

    // Revoked from the next second on; a new token brings it back, also within that second.
    let from = Timestamp((Clock::machine().now().micros() / 1_000_000 + 1) * 1_000_000);
    site.book.put("line-3", Allowed { certificates_from: Some(from), ..agent() });
    assert!(refused(site.renew(&tls).await).1.contains("revoked"));
    let (key, granted) = site.join(&site.token("line-3")).await.unwrap();
    let tls = site.keep(&key, &granted);
    let back = read_certificates(&site.at("agent.pem")).unwrap().remove(0);
    assert!(back.not_before >= from);
    tokio::time::sleep(Duration::from_millis(1100)).await; // it begins with that second
    site.renew(&tls).await.unwrap();

    site.book.put("line-3", Allowed { disabled: true, ..agent() });
    assert!(refused(site.renew(&tls).await).1.contains("disabled"));
    let unused = site.token("line-3");
    assert!(refused(site.join(&unused).await).1.contains("disabled"));
    site.book.put("line-3", agent());
    site.join(&unused).await.expect("a refusal does not use the token up");
    let counted =
        |outcome| site.metrics.counter("forebay_enrolment_requests_total", "", &[("outcome", outcome)]).get();
    assert_eq!((counted("joined"), counted("renewed"), counted("refused")), (3, 2, 4));
    site.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_not_the_right_one_gets_no_token() {
    let site = Site::new(CLIENT_VALIDITY).await;
    let request = || JoinRequest { token: "secret".into(), csr: String::new() };
    let hub = read_certificates(&site.at("hub.crt")).unwrap();
    for (url, ca, expected) in [
        (site.url(), Fingerprint::of(b"another"), "is not the hub"),
        (site.url(), hub[0].fingerprint, "of the hub's own certificate"),
        (format!("https://[::1]:{}", site.addr.port()).parse().unwrap(), site.ca, "cannot be reached"),
        (format!("https://127.0.0.2:{}", site.addr.port()).parse().unwrap(), site.ca, "cannot be reached"),
    ] {
        let error = enrolment::join(&url, ca, &request()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(
        site.metrics.counter("forebay_enrolment_requests_total", "", &[("outcome", "refused")]).get(),
        0
    );
    // A name that the certificate does not have, on the same socket.
    let other = EnrolUrl { host: "127.0.0.1".into(), port: site.addr.port() };
    let key = PrivateKey::make().unwrap();
    let ca = Authority::load(&site.at("ca.crt"), &site.at("ca.key")).unwrap();
    let named = ca.issue_server(&["hub.antwerp".into()], &key, Clock::machine().now()).unwrap();
    write_private(&site.at("hub.key"), &key.to_pem()).unwrap();
    write_public(&site.at("hub.crt"), &(named.pem.clone() + ca.pem())).unwrap();
    let error = told(&other, site.ca, "hub.antwerp").await;
    assert!(
        error.contains("is for hub.antwerp, not for 127.0.0.1") && error.contains("--name 127.0.0.1"),
        "{error}"
    );
    // A chain that shows the right CA but does not lead to it.
    let (stranger, _) = Authority::make("CA", Clock::machine().now()).unwrap();
    let forged = stranger.issue_server(&["127.0.0.1".into()], &key, Clock::machine().now()).unwrap();
    write_public(&site.at("hub.crt"), &(forged.pem + ca.pem())).unwrap();
    let error = told(&other, site.ca, "does not lead").await;
    assert!(error.contains("does not lead to the CA"), "{error}");
    // A certificate that has ended.
    let long_ago = Timestamp(Clock::machine().now().micros() - 400 * 86_400_000_000);
    let old = ca.issue_server(&["127.0.0.1".into()], &key, long_ago);
    let old = old.unwrap();
    write_public(&site.at("hub.crt"), &(old.pem + ca.pem())).unwrap();
    let error = told(&other, site.ca, "clock").await;
    assert!(error.contains("Set the clock"), "{error}");
    site.tasks.drain().await;
}

/// Asks until the listener has taken its new files.
async fn told(url: &EnrolUrl, ca: Fingerprint, expected: &str) -> String {
    let mut error = String::new();
    for _ in 0..50 {
        let request = JoinRequest { token: String::new(), csr: String::new() };
        error = enrolment::join(url, ca, &request).await.unwrap_err().to_string();
        if error.contains(expected) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_needs_a_certificate_of_the_plant_that_has_not_ended() {
    let site = Site::new(Duration::from_secs(2)).await;
    let tls = site.joined("line-3").await;
    site.renew(&tls).await.unwrap();
    let nobody = TlsOptions { client: None, ..tls.clone() };
    assert_eq!(refused(site.renew(&nobody).await).0, 401);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let error = site.renew(&tls).await.unwrap_err().to_string();
    assert!(error.contains("expired") || error.contains("Expired"), "{error}");
    // Somebody else's CA of the same name.
    let (stranger, _) = Authority::make("CA", Clock::machine().now()).unwrap();
    let key = PrivateKey::make().unwrap();
    let request = key.request("line-3").unwrap();
    let forged = stranger.issue_client("line-3", &request, Clock::machine().now(), CLIENT_VALIDITY).unwrap();
    write_private(&site.at("agent.pem"), &(key.to_pem() + &forged.pem)).unwrap();
    assert!(site.renew(&tls).await.is_err());
    assert_eq!(
        site.metrics.counter("forebay_enrolment_requests_total", "", &[("outcome", "renewed")]).get(),
        1
    );
    site.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_and_openssl_speak_with_it_and_rubbish_is_refused() {
    let site = Site::new(CLIENT_VALIDITY).await;
    let csr = PrivateKey::make().unwrap().request("x").unwrap();
    let body = |token: &str, csr: &str| serde_json::json!({"token": token, "csr": csr}).to_string();
    let token = site.token("line-3");
    let large = body(&"x".repeat(20_000), &csr);
    let without_csr = body(&token, "nothing");
    for (arguments, path, expected) in [
        (vec![], "/enrol/v1/join", "405"),
        (vec![], "/", "404"),
        (vec!["-d", "{"], "/enrol/v1/join", "400"),
        (vec!["-d", "{\"token\":1,\"csr\":\"\"}"], "/enrol/v1/join", "400"),
        (vec!["-d", large.as_str()], "/enrol/v1/join", "413"),
        (vec!["-d", "{\"csr\":\"\"}"], "/enrol/v1/renew", "401"),
        (vec!["-d", without_csr.as_str()], "/enrol/v1/join", "400"),
    ] {
        let (status, text) = site.curl(&arguments, path);
        assert_eq!(status, expected, "{path}: {text}");
        assert!(text.contains("\"remedy\"") && !text.contains(&token), "{text}");
    }
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        let wanted: Vec<&str> = version.split(' ').chain(["-d", "{"]).collect();
        assert_eq!(site.curl(&wanted, "/enrol/v1/join").0, "400", "{version}");
    }
    let (status, text) = site.curl(&["-d", &body(&token, &csr)], "/enrol/v1/join");
    assert_eq!(status, "200", "{text}");
    let granted: enrolment::Granted = serde_json::from_str(&text).unwrap();
    write_public(&site.at("agent.crt"), &granted.certificate).unwrap();
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", "agent.crt"])
        .current_dir(site.folder.path())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let shown = Command::new("openssl")
        .args([
            "s_client",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-CAfile",
            "ca.crt",
            "-connect",
        ])
        .arg(site.addr.to_string())
        .current_dir(site.folder.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("Verify return code: 0") && shown.contains("Acceptable client certificate CA names"),
        "{shown}"
    );
    site.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slowed_down_and_idle_connections_are_few() {
    let site = Site::new(CLIENT_VALIDITY).await;
    let token = site.token("line-3");
    for _ in 0..10 {
        assert_eq!(refused(site.join("0123456789abcdef.x").await).0, 403);
    }
    assert_eq!(refused(site.join(&token).await).0, 429, "also for the right one: it waits");
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(tokio::net::TcpStream::connect(site.addr).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let closed = idle.iter().filter(|stream| matches!(stream.try_read(&mut [0; 8]), Ok(0))).count();
    assert!(closed >= 12, "{closed} of 20 were closed at once");
    let error = site.join(&token).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
    drop(idle);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(refused(site.join(&token).await).0, 429);
    assert!(site.tasks.drain().await.is_graceful());
}

#[tokio::test]
async fn without_a_ca_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new("127.0.0.1:0".parse().unwrap(), folder.path(), Arc::<Book>::default());
    let tasks = Tasks::new(CancellationToken::new());
    let error = start(setup, Clock::machine(), Metrics::default(), &tasks).await.unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("forebay cert init"), "{error}");
}
