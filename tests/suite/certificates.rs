//! From `forebay cert init` to a revoked agent, by processes; openssl and curl look at what comes out.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use forebay_tests::peers::{program, run};
use forebay_tests::plant::http_get;
use forebay_tests::process::{Running, eventually, forebay, free_address};
use runtime::clock::Clock;
use runtime::pki::{Authority, PrivateKey, read_certificates, read_pem, write_private, write_public};
use serde_json::Value;

/// A hub with enrolment in a folder.
struct Site {
    folder: tempfile::TempDir,
    enrol: SocketAddr,
    mqtts: SocketAddr,
    http: SocketAddr,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Site {
    fn new() -> Site {
        let site = Site {
            folder: tempfile::tempdir().unwrap(),
            enrol: free_address(),
            mqtts: free_address(),
            http: free_address(),
        };
        let config = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[hub]\ndata_dir = \"hub\"\n\
             [hub.http]\nlisten = \"{}\"\n[hub.broker]\nlisten = \"{}\"\n\
             [[hub.broker.listeners]]\nlisten = \"{}\"\n[hub.enrol]\nlisten = \"{}\"\n",
            site.http,
            free_address(),
            site.mqtts,
            site.enrol
        );
        std::fs::write(site.at("hub.toml"), config).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn forebay(&self, arguments: &str) -> Output {
        let mut command = Command::new(forebay());
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).output().unwrap()
    }

    fn good(&self, arguments: &str) -> String {
        let output = self.forebay(arguments);
        assert!(output.status.success(), "{arguments}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// What it complains about; it must fail with exit code 1.
    fn bad(&self, arguments: &str) -> String {
        let output = self.forebay(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    fn start_hub(&self) -> Running {
        let mut command = Command::new(forebay());
        let hub = Running::start(command.args(["run", "hub.toml"]).current_dir(self.folder.path()));
        eventually(Duration::from_secs(30), "enrolment listens", || {
            std::net::TcpStream::connect(self.enrol).ok()
        });
        hub
    }

    /// The join line of `forebay agent add`, without `forebay`.
    fn join_line(&self, arguments: &str) -> String {
        let said = self.good(&format!("agent add {arguments} --host localhost"));
        let line =
            said.lines().find(|line| line.starts_with("forebay join ")).unwrap_or_else(|| panic!("{said}"));
        line.trim_start_matches("forebay ").to_owned()
    }

    /// Asks for a new certificate with the one in a folder: HTTP status and body.
    fn renew(&self, folder: &str) -> (String, String) {
        let csr = PrivateKey::make().unwrap().request("x").unwrap();
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "-w", "\n%{http_code}", "--cacert"])
            .arg(self.at(folder).join("ca.crt"))
            .arg("--cert")
            .arg(self.at(folder).join("agent.pem"))
            .args(["-d", &serde_json::json!({ "csr": csr }).to_string()])
            .arg(format!("https://localhost:{}/enrol/v1/renew", self.enrol.port()))
            .output()
            .expect("curl is installed");
        let said = text(&output.stdout);
        let (body, status) = said.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned() + &text(&output.stderr))
    }

    /// Debian's client with the certificate of a folder, on the TLS listener; says what it sends and receives.
    fn subscriber(&self, folder: &str) -> Running {
        let file = |name: &str| self.at(folder).join(name);
        let mut command = Command::new(program("stdbuf")); // or its lines wait for a full buffer
        command.arg("-oL").arg(program("mosquitto_sub")).args([
            "-d",
            "-V",
            "mqttv5",
            "-h",
            "localhost",
            "-t",
            "spBv1.0/works/NCMD/line-3",
        ]);
        command.args(["-p", &self.mqtts.port().to_string()]);
        command.arg("--cafile").arg(file("ca.crt")).arg("--cert").arg(file("agent.pem"));
        Running::start(command.arg("--key").arg(file("agent.pem")))
    }

    /// The last receipt that the hub sent to its only agent.
    fn last_receipt(&self) -> Option<String> {
        let token = std::fs::read_to_string(self.at("hub/token")).ok()?;
        let agents = http_get(self.http, "/api/v1/agents", token.trim())?;
        let agents: Value = serde_json::from_slice(&agents).ok()?;
        agents["agents"][0]["last_receipt"].as_str().map(str::to_owned)
    }

    fn listed(&self, name: &str) -> Value {
        let said = self.good("agent list --json");
        let all = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.into_iter().find(|agent| agent["name"] == name).unwrap_or_else(|| panic!("{said}"))
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_agent_comes_in_by_a_join_line_and_is_shut_out() {
    let site = Site::new();
    assert!(site.bad("agent add line-3").contains("forebay cert init"));
    let said = site.good("cert init --config hub.toml --name hub.works");
    assert!(said.contains("[hub.enrol]") && said.contains("CA: sha256:"), "{said}");
    let before = std::fs::read(site.at("hub/tls/ca.key")).unwrap();
    assert!(site.bad("cert init --config hub.toml").contains("nothing was done"));
    assert_eq!(std::fs::read(site.at("hub/tls/ca.key")).unwrap(), before);
    assert_eq!((mode(&site.at("hub/tls/ca.key")), mode(&site.at("hub/tls/hub.key"))), (0o600, 0o600));
    for check in ["-verify_hostname hub.works", "-verify_ip 127.0.0.1", "-purpose sslserver"] {
        let mut openssl = Command::new("openssl");
        openssl.arg("verify").args(check.split(' ')).args(["-x509_strict", "-CAfile", "ca.crt", "hub.crt"]);
        run(openssl.current_dir(site.at("hub/tls")));
    }

    let mut hub = site.start_hub();
    let line = site.join_line("line-3");
    let (words, ca) = line.rsplit_once("sha256:").unwrap();
    let wrong = format!("{words}sha256:{}", ca.chars().rev().collect::<String>());
    let complaint = site.bad(&format!("{wrong} --dir agent"));
    assert!(complaint.contains("is not the hub") && complaint.contains(ca), "{complaint}");
    let other_name = line.replace("localhost", "127.0.0.2");
    let complaint = site.bad(&format!("{other_name} --dir agent"));
    assert!(complaint.contains("cannot be reached") || complaint.contains("127.0.0.2"), "{complaint}");

    let said = site.good(&format!("{line} --dir agent"));
    let expected = format!("enrol = \"https://localhost:{}\"", site.enrol.port());
    assert!(
        said.starts_with("[edge]\ngroup = \"works\"\nnode = \"line-3\"\n") && said.contains(&expected),
        "{said}"
    );
    assert_eq!((mode(&site.at("agent/agent.pem")), mode(&site.at("agent/ca.crt"))), (0o600, 0o644));
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", "agent.pem"]);
    run(openssl.current_dir(site.at("agent")));
    let shown: Value = serde_json::from_str(&site.good("cert show --json agent/agent.pem")).unwrap();
    assert_eq!(
        (&shown["certificates"][0]["common_name"], &shown["has_key"]),
        (&"line-3".into(), &true.into())
    );
    assert!(site.good("cert show agent/agent.pem hub/tls/hub.crt").contains("89 days left"));

    assert!(site.bad(&format!("{line} --dir agent")).contains("--force"));
    let complaint = site.bad(&format!("{line} --dir again"));
    assert!(complaint.contains("not known") && complaint.contains("forebay agent add"), "{complaint}");
    let short = site.join_line("line-4 --valid 1s");
    std::thread::sleep(Duration::from_secs(2));
    assert!(site.bad(&format!("{short} --dir late")).contains("the token has ended"));

    assert_eq!(site.renew("agent").0, "200");
    assert_eq!(site.listed("line-3")["state"], "good");
    assert_eq!(site.listed("line-4")["state"], "not joined");
    let mut live = site.subscriber("agent");
    live.wait_for_line("Subscribed", Duration::from_secs(10));
    let revoked = Instant::now();
    site.good("agent revoke line-3");
    live.wait_for_line("DISCONNECT", Duration::from_millis(1500));
    println!("a live session ended {:?} after the revocation", revoked.elapsed());
    let mut refused = site.subscriber("agent");
    assert!(!refused.wait(Duration::from_secs(10)).success(), "{}", refused.output());
    let (status, body) = site.renew("agent");
    assert!(status == "403" && body.contains("revoked"), "{status} {body}");
    assert_eq!(site.listed("line-3")["state"], "revoked");
    let line = site.join_line("line-3");
    site.good(&format!("{line} --dir agent --force"));
    std::thread::sleep(Duration::from_millis(1100)); // the certificate begins in the second after the revocation
    assert_eq!((site.renew("agent").0.as_str(), &site.listed("line-3")["state"]), ("200", &"good".into()));
    site.good("agent revoke line-3 --disable");
    assert!(site.renew("agent").1.contains("disabled"));
    assert_eq!(site.listed("line-3")["state"], "disabled");

    hub.terminate();
    assert!(hub.wait(Duration::from_secs(20)).success(), "{}", hub.output());
    let said = hub.output();
    let secret = line.split_whitespace().find(|word| word.contains('.') && word.len() > 50).unwrap();
    assert!(said.contains("certificate issued") && !said.contains(secret), "{said}");
}

#[test]
fn a_running_hub_takes_its_renewed_certificate() {
    let site = Site::new();
    site.good("cert init --config hub.toml");
    let _hub = site.start_hub();
    let first = read_certificates(&site.at("hub/tls/hub.crt")).unwrap().remove(0);
    let shown = || {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &site.enrol.to_string(), "-servername", "localhost"]);
        let output = openssl.stdin(std::process::Stdio::null()).output().unwrap();
        let pem = text(&output.stdout);
        let begin = pem.find("-----BEGIN CERTIFICATE-----")?;
        let contents = runtime::pki::Contents::parse(pem.get(begin..)?.as_bytes()).ok()?;
        contents.certificates.into_iter().next().map(|certificate| certificate.fingerprint)
    };
    assert_eq!(shown(), Some(first.fingerprint));
    let said = site.good("cert renew-hub --config hub.toml --name hub.other");
    assert!(said.contains("hub.other") && said.contains("127.0.0.1"), "{said}");
    let second = read_certificates(&site.at("hub/tls/hub.crt")).unwrap().remove(0);
    assert!(second.server_names().contains(&"hub.other".to_owned()));
    eventually(Duration::from_secs(10), "the new certificate is shown", || {
        (shown() == Some(second.fingerprint)).then_some(())
    });
}

#[test]
fn an_agent_renews_by_itself_and_connects_with_the_new_certificate() {
    let site = Site::new();
    site.good("cert init --config hub.toml");
    let _hub = site.start_hub();
    let line = site.join_line("line-3");
    site.good(&format!("{line} --dir agent"));
    // As if it had joined 100 days ago, for 101 days: two thirds are over.
    let tls = site.at("hub/tls");
    let authority = Authority::load(&tls.join("ca.crt"), &tls.join("ca.key")).unwrap();
    let day = 86_400_000_000;
    let now = Clock::machine().now();
    let key = PrivateKey::make().unwrap();
    let from = model::Timestamp(now.micros() - 100 * day);
    let lived = Duration::from_secs(101 * 86_400);
    let old = authority.issue_client("line-3", &key.request("x").unwrap(), from, lived).unwrap();
    let agent = site.at("agent/agent.pem");
    write_private(&agent, &(key.to_pem() + &old.pem)).unwrap();

    std::fs::write(site.at("sim.csv"), "name,address,type\nwave,sine(period=2s),f64\n").unwrap();
    let folder = site.at("agent");
    let config = format!(
        "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[edge]\ngroup = \"works\"\nnode = \"line-3\"\n\
         data_dir = \"line-3\"\nhub = \"mqtts://localhost:{}\"\nca_file = \"{folder}/ca.crt\"\n\
         cert_file = \"{folder}/agent.pem\"\nkey_file = \"{folder}/agent.pem\"\nenrol = \"https://localhost:{}\"\n\
         [[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoints = \"sim.csv\"\n",
        site.mqtts.port(),
        site.enrol.port(),
        folder = folder.display()
    );
    std::fs::write(site.at("edge.toml"), config).unwrap();
    let mut command = Command::new(forebay());
    let mut running = Running::start(command.args(["run", "edge.toml"]).current_dir(site.folder.path()));
    running.wait_for_line("certificate is renewed", Duration::from_secs(20));
    let renewed = read_certificates(&agent).unwrap().remove(0);
    assert!(
        renewed.days_left(Clock::machine().now()) >= 89 && renewed.fingerprint != old.certificate.fingerprint
    );
    assert!(PrivateKey::from_der(&read_pem(&agent).unwrap().key.unwrap()).unwrap().fits(&renewed));
    eventually(Duration::from_secs(30), "a receipt", || site.last_receipt());
    // Sessions of the old certificate end; the next one shows the new one, because the files are read again.
    let access = std::fs::read_to_string(site.at("hub/access.toml")).unwrap();
    let yesterday = model::Timestamp(now.micros() - day).to_string();
    let from = format!("certificate = true\ncertificates_from = \"{yesterday}\"\n");
    assert_eq!(access.matches("\ncertificate = true\n").count(), 1, "{access}");
    std::fs::write(site.at("hub/access.toml"), access.replace("certificate = true\n", &from)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let before = site.last_receipt();
    eventually(Duration::from_secs(30), "another receipt", || {
        site.last_receipt().filter(|now| before.as_ref() != Some(now))
    });
    assert!(site.listed("line-3")["renewed"].is_string());
}

#[test]
fn the_certificate_of_a_company_serves_the_hub() {
    let site = Site::new();
    site.good("cert init --config hub.toml"); // for the agents
    let at = site.at("");
    std::fs::write(at.join("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        .unwrap();
    std::fs::write(at.join("end.ext"), "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -subj /CN=Acme-Root -days 3650",
        "req -newkey rsa:2048 -nodes -keyout mid.key -out mid.csr -subj /CN=Acme-Issuing",
        "x509 -req -in mid.csr -CA root.crt -CAkey root.key -set_serial 7 -days 900 -extfile ca.ext -out mid.crt",
        "req -newkey rsa:2048 -nodes -keyout company.key -out end.csr -subj /CN=localhost",
        "x509 -req -in end.csr -CA mid.crt -CAkey mid.key -set_serial 8 -days 100 -extfile end.ext -out end.crt",
    ] {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(&at));
    }
    let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
    write_public(&at.join("company.crt"), &read("end.crt")).unwrap();
    let mut config = read("hub.toml");
    config += "[hub.tls]\ncert_file = \"company.crt\"\nkey_file = \"company.key\"\n";
    std::fs::write(at.join("hub.toml"), config).unwrap();
    assert!(site.bad("agent add line-3").contains("append the certificates up to the CA"));
    write_public(&at.join("company.crt"), &(read("end.crt") + &read("mid.crt") + &read("root.crt"))).unwrap();
    let _hub = site.start_hub();
    let line = site.join_line("line-3");
    let root = read_certificates(&at.join("root.crt")).unwrap().remove(0);
    assert!(line.ends_with(&root.fingerprint.to_string()), "{line}");
    site.good(&format!("{line} --dir agent"));
    let trusted = read_certificates(&at.join("agent/ca.crt")).unwrap();
    assert_eq!(trusted.len(), 2, "the company's root for the hub, the plant's CA");
    assert_eq!(site.renew("agent").0, "200");
    assert!(site.bad("cert renew-hub --dir .").contains("ca.crt"));
}
