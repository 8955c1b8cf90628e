//! Renewal by a moved clock, with a hub in memory and with one behind TLS, and what happens when there is none.

use std::sync::{Arc, Mutex};

use runtime::enrolment::Reason;
use runtime::pki::{Authority, CLIENT_VALIDITY};
use runtime::tls_server::{ClientCertificate, TlsFiles, TlsServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const DAY: i64 = 86_400_000_000;

struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    clock: Clock,
    metrics: Metrics,
}

impl Site {
    fn new(clock: Clock) -> Self {
        let (authority, _) = Authority::make("CA", clock.now()).unwrap();
        Site { folder: tempfile::tempdir().unwrap(), authority, clock, metrics: Metrics::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn grant(&self, csr: &str, name: &str, validity: Duration) -> Granted {
        let issued = self.authority.issue_client(name, csr, self.clock.now(), validity).unwrap();
        Granted {
            name: name.into(),
            certificate: issued.pem,
            ca: self.authority.pem().into(),
            mqtt_port: None,
            group: None,
            node: None,
        }
    }

    /// An agent with a certificate, in one file or two.
    fn care(&self, cert: &str, key_file: &str, validity: Duration) -> CertificateCare {
        let key = PrivateKey::make().unwrap();
        let granted = self.grant(&key.request("x").unwrap(), "line-3", validity);
        if cert == key_file {
            write_private(&self.at(cert), &(key.to_pem() + &granted.certificate)).unwrap();
        } else {
            write_private(&self.at(key_file), &key.to_pem()).unwrap();
            write_public(&self.at(cert), &granted.certificate).unwrap();
        }
        write_public(&self.at("ca.crt"), self.authority.pem()).unwrap();
        let tls =
            TlsOptions { ca_file: Some(self.at("ca.crt")), client: Some((self.at(cert), self.at(key_file))) };
        let node = NodeId::new("plant", "line-3").unwrap();
        let url = "https://localhost".parse().unwrap();
        CertificateCare::new(&node, tls, Some(url), self.clock.clone(), &self.metrics)
    }

    fn days_left(&self, cert: &str) -> i64 {
        first_certificate(&self.at(cert)).unwrap().days_left(self.clock.now())
    }

    /// Certificate and key of the files belong together.
    fn assert_whole(&self, cert: &str, key: &str) {
        let key = PrivateKey::from_der(&read_pem(&self.at(key)).unwrap().key.unwrap()).unwrap();
        assert!(key.fits(&first_certificate(&self.at(cert)).unwrap()));
    }

    fn counted(&self, outcome: &str) -> u64 {
        let labels = [("agent", "plant/line-3"), ("outcome", outcome)];
        self.metrics.counter("forebay_certificate_renewals_total", "", &labels).get()
    }
}

#[tokio::test]
async fn it_is_renewed_at_two_thirds_in_one_file_and_in_two() {
    for (cert, key) in [("agent.pem", "agent.pem"), ("agent.crt", "agent.key")] {
        let site = Site::new(Clock::manual(START));
        let mut care = site.care(cert, key, CLIENT_VALIDITY);
        let key_before = read_pem(&site.at(key)).unwrap().key.unwrap();
        let mut asked = Vec::new();
        for day in 0..200 {
            site.clock.set(Timestamp(START.micros() + day * DAY));
            let ask = async |_, _, csr: String| {
                asked.push(day);
                Ok(site.grant(&csr, "line-3", CLIENT_VALIDITY))
            };
            assert_eq!(care.look(ask).await, LOOK_EVERY);
            site.assert_whole(cert, key);
        }
        assert_eq!(asked, [60, 120, 180], "{cert}");
        assert_eq!((site.counted("done"), site.counted("failed"), site.days_left(cert)), (3, 0, 71));
        let is_same_key = read_pem(&site.at(key)).unwrap().key.unwrap() == key_before;
        assert_eq!(is_same_key, cert != key, "a new key only where one file holds both");
    }
}

#[tokio::test]
async fn failures_are_repeated_with_longer_waits_and_leave_the_files_alone() {
    let site = Site::new(Clock::manual(START));
    let mut care = site.care("agent.pem", "agent.pem", CLIENT_VALIDITY);
    let before = std::fs::read(site.at("agent.pem")).unwrap();
    site.clock.set(Timestamp(START.micros() + 70 * DAY));
    let mut tries = 0;
    for minute in 0..24 * 60 {
        site.clock.set(Timestamp(START.micros() + 70 * DAY + minute * 60_000_000));
        let ask = async |_, _, _| {
            tries += 1;
            let reason = Reason { message: "line-3 is disabled".into(), remedy: String::new() };
            Err(EnrolError::Refused { status: 403, reason })
        };
        care.look(ask).await;
    }
    assert!((24..60).contains(&tries), "{tries} in a day");
    assert_eq!(site.counted("failed"), tries);
    // Answers that are not what was asked for.
    let other = PrivateKey::make().unwrap().request("x").unwrap();
    type Wrong<'a> = Box<dyn Fn(&str) -> Granted + 'a>;
    let wrong: [Wrong<'_>; 4] = [
        Box::new(|_| site.grant(&other, "line-3", CLIENT_VALIDITY)),
        Box::new(|csr| site.grant(csr, "line-4", CLIENT_VALIDITY)),
        Box::new(|csr| site.grant(csr, "line-3", Duration::from_secs(86_400))),
        Box::new(|csr| Granted {
            certificate: "rubbish".into(),
            ..site.grant(csr, "line-3", CLIENT_VALIDITY)
        }),
    ];
    for grant in wrong {
        care.retry = None;
        care.look(async |_, _, csr: String| Ok(grant(&csr))).await;
    }
    assert_eq!(site.counted("failed"), tries + 4);
    assert_eq!(std::fs::read(site.at("agent.pem")).unwrap(), before);
    assert_eq!(site.counted("done"), 0);
    // The hub is back.
    care.retry = None;
    care.look(async |_, _, csr: String| Ok(site.grant(&csr, "line-3", CLIENT_VALIDITY))).await;
    assert_eq!((site.counted("done"), site.days_left("agent.pem")), (1, 90));
}

#[tokio::test]
async fn a_short_lived_certificate_is_renewed_over_tls_and_the_next_connection_uses_it() {
    let site = Arc::new(Site::new(Clock::machine()));
    let care = site.care("agent.pem", "agent.pem", Duration::from_secs(6));
    let first = first_certificate(&site.at("agent.pem")).unwrap();
    let key = PrivateKey::make().unwrap();
    let hub = site.authority.issue_server(&["localhost".into()], &key, site.clock.now()).unwrap();
    write_private(&site.at("hub.key"), &key.to_pem()).unwrap();
    write_public(&site.at("hub.crt"), &hub.pem).unwrap();
    let files = TlsFiles {
        cert_file: site.at("hub.crt"),
        key_file: site.at("hub.key"),
        client_ca_file: Some(site.at("ca.crt")),
        client_certificate: ClientCertificate::Required,
    };
    let server = TlsServer::load(files, site.clock.clone(), site.metrics.clone()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let care = CertificateCare { enrol: Some(url), ..care };
    let shown = Mutex::new(Vec::new());
    let serving = async {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(server.current());
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let peer = tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
            shown.lock().unwrap().push(Certificate::parse(peer).unwrap().fingerprint);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tls.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            assert!(head.starts_with("post /enrol/v1/renew http/1.1\r\n"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            tls.read_exact(&mut body).await.unwrap();
            let request: RenewRequest = serde_json::from_slice(&body).unwrap();
            let granted = site.grant(&request.csr, "line-3", Duration::from_secs(6));
            let body = serde_json::to_string(&granted).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.shutdown().await.ok();
        }
    };
    let shutdown = CancellationToken::new();
    tokio::select! {
        () = serving => {}
        _ = care.run(shutdown.clone()) => {}
        () = tokio::time::sleep(Duration::from_secs(12)) => {}
    }
    let shown = shown.into_inner().unwrap();
    assert!(shown.len() >= 2, "{shown:?}");
    assert_eq!(shown[0], first.fingerprint);
    assert_ne!(shown[1], shown[0], "the second connection showed the renewed certificate");
    assert!(site.counted("done") >= 2);
    site.assert_whole("agent.pem", "agent.pem");
}
