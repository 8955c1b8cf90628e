//! Object stores that run here: moto (S3) and azurite (Azure), and a proxy before one of them that loses requests and answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bridge::sinks::Sink;
use runtime::config_file::{ConfigFile, PlantNames, Problems};

use crate::readers::python;

/// A store that ends with the test.
pub(crate) struct Emulator {
    process: Child,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    folder: tempfile::TempDir,
    translator: Option<Proxy>,
}

/// Google's store has an XML interface that is S3's but for its headers; no emulator of it in a registry speaks that (both
/// gcp-storage-emulator and fake-gcs-server answer 4xx or 501 to it). So its client talks to moto through the proxy, which
/// translates the one header that decides a commit, and the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Azure,
    Google,
}

/// Azurite's only account; its key is in its manual.
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Emulator {
    pub(crate) fn start(kind: Kind) -> Emulator {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/peers");
        let port_text = port.to_string();
        let mut command = match kind {
            Kind::S3 | Kind::Google => {
                let mut command = Command::new(python());
                command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port_text]);
                command
            }
            Kind::Azure => {
                let script = peers.join("node_modules/azurite/dist/src/blob/main.js");
                assert!(script.exists(), "azurite is missing: run `make peers`");
                let mut command = Command::new("node");
                command.arg(script).args(["--blobHost", "127.0.0.1", "--blobPort", &port_text, "--silent"]);
                command.args(["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]);
                command
            }
        };
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut emulator = Emulator { process, port, kind, folder, translator: None };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{kind:?} does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        emulator.write_credentials();
        emulator.make_bucket();
        if kind == Kind::Google {
            let translator = Proxy::before(port);
            emulator.port = translator.port;
            emulator.translator = Some(translator);
        }
        emulator
    }

    fn write_credentials(&self) {
        let text = match self.kind {
            Kind::S3 => {
                "aws_access_key_id = test\naws_secret_access_key = test\naws_region = us-east-1\n".to_owned()
            }
            Kind::Azure => format!("AZURE_STORAGE_ACCOUNT_KEY={AZURE_KEY}\n"),
            Kind::Google => {
                r#"{"disable_oauth":true,"client_email":"x","private_key":"","private_key_id":""}"#.to_owned()
            }
        };
        std::fs::write(self.folder.path().join("key"), text).unwrap();
    }

    fn make_bucket(&self) {
        let script = r#"
import sys
kind, port, key = sys.argv[1:]
if kind in ("S3", "Google"):
    import boto3
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                 aws_access_key_id="test", aws_secret_access_key="test").create_bucket(Bucket="lake")
elif kind == "Azure":
    import base64, datetime, hashlib, hmac, urllib.request
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    account, version = "devstoreaccount1", "2021-08-06"
    what = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/{account}/{account}/lake\nrestype:container"
    sign = base64.b64encode(hmac.new(base64.b64decode(key), what.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{account}/lake?restype=container", method="PUT",
        headers={"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {account}:{sign}", "Content-Length": "0"})
    urllib.request.urlopen(request).read()
"#;
        let kind = format!("{:?}", self.kind);
        let made = Command::new(python())
            .args(["-c", script, &kind, &self.port.to_string(), AZURE_KEY])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// The keys of a sink's section for a table below `path` in the bucket, asked for at `port`.
    pub(crate) fn keys(&self, path: &str, port: u16) -> String {
        let place = match self.kind {
            Kind::S3 => format!(
                "path = \"s3://lake/{path}\"\nendpoint = \"http://127.0.0.1:{port}\"\npath_style = true"
            ),
            Kind::Azure => format!(
                "path = \"az://lake/{path}\"\naccount = \"devstoreaccount1\"\nendpoint = \"http://127.0.0.1:{port}/devstoreaccount1\""
            ),
            Kind::Google => format!("path = \"gs://lake/{path}\"\nendpoint = \"http://127.0.0.1:{port}\""),
        };
        format!(
            "kind = \"delta\"\n{place}\ncredentials_file = \"{}\"",
            self.folder.path().join("key").display()
        )
    }

    pub(crate) fn sink(&self, path: &str) -> Box<dyn Sink> {
        sink_of(&self.keys(path, self.port))
    }

    /// The bucket as seen by Python's deltalake: its URL and storage options, as JSON.
    pub(crate) fn for_deltalake(&self, path: &str) -> (String, String) {
        let port = self.port;
        match self.kind {
            Kind::S3 => (
                format!("s3://lake/{path}"),
                serde_json::json!({
                    "AWS_ENDPOINT_URL": format!("http://127.0.0.1:{port}"), "AWS_ALLOW_HTTP": "true",
                    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
                })
                .to_string(),
            ),
            Kind::Azure => (
                format!("az://lake/{path}"),
                serde_json::json!({
                    "azure_storage_account_name": "devstoreaccount1", "azure_storage_account_key": AZURE_KEY,
                    "azure_endpoint": format!("http://127.0.0.1:{port}/devstoreaccount1"), "azure_allow_http": "true",
                })
                .to_string(),
            ),
            Kind::Google => (
                format!("gs://lake/{path}"),
                serde_json::json!({
                    "google_service_account_key": format!(
                        r#"{{"gcs_base_url":"http://127.0.0.1:{port}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#
                    ),
                    "allow_http": "true",
                })
                .to_string(),
            ),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A sink as a configuration describes it.
pub(crate) fn sink_of(keys: &str) -> Box<dyn Sink> {
    let text = format!("[bridge]\nhub = \"http://127.0.0.1:1\"\n[[bridge.sinks]]\nname = \"lake\"\n{keys}\n");
    let file = ConfigFile::from_text(Path::new("/plant.toml"), text);
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let section = root.section("bridge", &mut problems).unwrap();
    let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
    let config = bridge::validate(section, &plant, &mut problems);
    assert!(problems.list.is_empty(), "{:?}", problems.list);
    config.unwrap().sinks.remove(0).sink
}

/// What the proxy does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Forwards.
    Good,
    /// Answers with this status and S3 code instead.
    Answer(u16, &'static str),
    /// Forwards, and then cuts the connection in the place of the answer.
    Lost,
    /// Forwards, and then answers with this.
    After(u16, &'static str),
}

/// Decides by method and path.
type Judge = Box<dyn Fn(&str, &str) -> Fate + Send>;

/// A proxy before a store.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    judge: Mutex<Judge>,
    ended: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    log: Mutex<Vec<String>>,
}

impl Proxy {
    pub(crate) fn before(store: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            judge: Mutex::new(Box::new(|_, _| Fate::Good)),
            ended: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            log: Mutex::new(Vec::new()),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || serve(stream, store, &shared).ok());
            }
        });
        Proxy { port, shared }
    }

    pub(crate) fn judge(&self, judge: impl Fn(&str, &str) -> Fate + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    /// Requests so far, and those of them that were not good.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// Method and path of every request.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

/// One request per connection: each side is told that it closes.
fn serve(client: TcpStream, store: u16, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length, mut first, mut is_signed) = (Vec::new(), 0usize, String::new(), false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        is_signed |= lower.starts_with("authorization: aws4");
        if lower.starts_with("x-goog-if-generation-match: 0") {
            head.extend_from_slice(b"If-None-Match: *\r\n");
        } else if lower.starts_with("authorization: bearer") {
            is_signed = false;
        } else if !lower.starts_with("connection:") {
            head.extend_from_slice(line.as_bytes());
        }
    }
    if !is_signed {
        // moto takes any signature of AWS, and wants one.
        head.extend_from_slice(
            b"Authorization: AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/s3/aws4_request, \
              SignedHeaders=host, Signature=00\r\n",
        );
    }
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared.log.lock().unwrap().push(format!("{method} {path}"));
    let fate = (shared.judge.lock().unwrap())(method, path);
    shared.failed.fetch_add(u64::from(fate != Fate::Good), Ordering::Relaxed);
    let mut client = client;
    if let Fate::Answer(status, code) = fate {
        return answer(&mut client, status, code);
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", store))?;
    upstream.write_all(&head)?;
    upstream.write_all(&body)?;
    let mut response = Vec::new();
    upstream.read_to_end(&mut response)?;
    shared.bytes.fetch_add(response.len() as u64, Ordering::Relaxed);
    match fate {
        Fate::Lost => Ok(()),
        Fate::After(status, code) => answer(&mut client, status, code),
        _ => client.write_all(&response),
    }
}

fn answer(client: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    );
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status} Test\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
