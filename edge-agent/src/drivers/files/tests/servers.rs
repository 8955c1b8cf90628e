//! Folders on servers that are not ours: Debian's sshd and vsftpd, started for the test by the user who runs it, and pyftpdlib.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Each connection has processes of its own, which outlive the listener.
        for pid in children(self.child.id()) {
            Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The processes that a process has started, and those that they have.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let own: Vec<u32> = list.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    own.iter().flat_map(|pid| [vec![*pid], children(*pid)].concat()).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn program(names: &[&str]) -> String {
    let found = names.iter().find(|name| Path::new(name).is_file());
    (*found.unwrap_or_else(|| panic!("{names:?} is not installed: run `make peers`"))).to_owned()
}

impl Server {
    fn wait(child: Child, port: u16) -> Server {
        let server = Server { child, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// An sshd with SFTP only, its keys in `folder`, for the user who runs the test.
    fn sshd(folder: &Path, port: u16) -> Server {
        for name in ["host", "user", "other"] {
            if !folder.join(name).exists() {
                run(Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(folder.join(name)));
            }
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\nAuthorizedKeysFile {0}/authorized\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n",
            folder.display()
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        fs::create_dir_all("/run/sshd").ok(); // root's privilege separation wants it
        let child = Command::new(program(&["/usr/sbin/sshd"]))
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server::wait(child, port)
    }
}

/// A plant whose folder is behind SFTP.
fn behind_sftp(keys: &str, server: &Server) -> Plant {
    let mut plant = Plant::new("");
    let user = run(Command::new("id").arg("-un"));
    plant.place = format!(
        "url = \"sftp://{}@127.0.0.1:{}{}\"\nkey_file = \"{{keys}}/user\"\n",
        user.trim(),
        server.port,
        plant.folder().display()
    );
    plant.keys = keys.to_owned();
    plant
}

fn fingerprint(key: &Path) -> String {
    run(Command::new("ssh-keygen").arg("-lf").arg(key)).split(' ').nth(1).unwrap().to_owned()
}

/// Growth, renaming, rotation, the server's restart, a move: every row once.
async fn the_story(plant: &mut Plant, start: &dyn Fn() -> Server) {
    let server = start();
    conformance::validate_is_pure(&plant.candidate());
    plant.append("a.csv", format!("{HEADER}{}half", rows(0, 20_000)));
    plant.append("b.csv", format!("{HEADER}{}", rows(20_000, 10)));
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(0, 20_010));
    // Grown, renamed and rotated: what is new, once.
    let inside = plant.folder();
    let at = |name: &str| inside.join(name);
    let mut text = fs::read_to_string(at("a.csv")).unwrap();
    text.truncate(text.len() - 4);
    fs::write(at("a.csv"), text).unwrap();
    fs::rename(at("b.csv"), at("c.csv")).unwrap();
    plant.append("a.csv", rows(20_010, 5));
    plant.append("c.csv", rows(20_015, 5));
    plant.append("b.csv", format!("{HEADER}{}", rows(20_020, 5)));
    let mut seen: Vec<f64> = values(&plant.read_on(driver.as_mut()).await.0).collect();
    seen.sort_by(f64::total_cmp);
    assert_eq!(seen, numbers(20_010, 15));
    // The server is restarted: an error, then everything goes on.
    drop(server);
    let failed = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(failed, DriverError::NotConnected(_) | DriverError::Silent(_)), "{failed}");
    driver.close().await;
    conformance::open_without_peer_fails(&plant.candidate()).await;
    let _server = start();
    plant.append("a.csv", rows(20_025, 5));
    assert_eq!(plant.run().await.0, numbers(20_025, 5));
    // Finished files are moved on the server.
    plant.keys += "\nmode = \"whole\"\nfinished = \"rename\"\nafter = \"move\"\npattern = \"w*.csv\"";
    plant.append("w.csv", format!("{HEADER}{}", rows(30_000, 2)));
    assert_eq!(plant.run().await.0, numbers(30_000, 2));
    plant.append("w.csv", format!("{HEADER}{}", rows(40_000, 2)));
    assert_eq!(plant.run().await.0, numbers(40_000, 2));
    assert!(at("done/w.csv").is_file() && at("done/w-1.csv").is_file() && !at("w.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_behind_sftp_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Server::sshd(folder.path(), port);
    let keys = folder.path().display().to_string();
    let known = fingerprint(&folder.path().join("host.pub"));
    let mut plant = behind_sftp(&format!("host_key = \"{known}\""), &server);
    drop(server);
    plant.place = plant.place.replace("{keys}", &keys);
    the_story(&mut plant, &|| Server::sshd(folder.path(), port)).await;
}

/// A plant whose folder is behind FTP, for the user `anonymous`, whose password vsftpd reads from a file.
fn behind_ftp(scheme: &str, port: u16, folder: &str, password: &Path, keys: &str) -> Plant {
    let mut plant = Plant::new(keys);
    plant.place = format!(
        "url = \"{scheme}://anonymous@127.0.0.1:{port}{folder}\"\npassword_file = \"{}\"\n",
        password.display()
    );
    plant
}

/// A CA, and a certificate of it for 127.0.0.1 with its key: `ca.pem`, `server.pem`, `server.key`.
fn certificates(folder: &Path) {
    let key = || rcgen::KeyPair::generate().unwrap();
    let (ca_key, server_key) = (key(), key());
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let signed = server.signed_by(&server_key, &issuer).unwrap();
    fs::write(folder.join("server.pem"), signed.pem()).unwrap();
    fs::write(folder.join("server.key"), server_key.serialize_pem()).unwrap();
}

impl Server {
    /// A vsftpd for the user who runs the test: its files and certificates in `folder`, what it serves below `root`.
    fn vsftpd(folder: &Path, root: &Path, port: u16, keys: &str) -> Server {
        let config = format!(
            "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\nrun_as_launching_user=YES\n\
             anonymous_enable=YES\nanon_root={root}\nsecure_email_list_enable=YES\nemail_password_file={0}/password\n\
             write_enable=YES\nanon_mkdir_write_enable=YES\nanon_other_write_enable=YES\nanon_world_readable_only=NO\n\
             anon_umask=022\nallow_writeable_chroot=YES\nseccomp_sandbox=NO\nssl_enable=YES\nallow_anon_ssl=YES\n\
             force_anon_logins_ssl=YES\nforce_anon_data_ssl=YES\nrsa_cert_file={0}/server.pem\n\
             rsa_private_key_file={0}/server.key\n{keys}\n",
            folder.display(),
            root = root.display()
        );
        fs::write(folder.join("vsftpd.conf"), config).unwrap();
        let child = Command::new(program(&["/usr/sbin/vsftpd"]))
            .arg(folder.join("vsftpd.conf"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Server::wait(child, port)
    }

    /// pyftpdlib with plain FTP and MLSD, what it serves in `root`.
    fn pyftpdlib(password: &Path, root: &Path, port: u16) -> Server {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| repository.join(".venv"), Into::into);
        let child = Command::new(venv.join("bin/python"))
            .arg(repository.join("tests/peers/ftp_server.py"))
            .arg(root)
            .args([&port.to_string(), "anonymous"])
            .arg(password)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server::wait(child, port)
    }
}

/// Certificates and password, a free port, and a plant that reads what is there by FTPS.
fn behind_ftps() -> (tempfile::TempDir, u16, Plant) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let password = folder.path().join("password");
    fs::write(&password, "plant\n").unwrap();
    let port = free_port();
    let ca = format!("ca_file = \"{}/ca.pem\"", folder.path().display());
    let plant = behind_ftp("ftps", port, "/~/in", &password, &ca);
    (folder, port, plant)
}

/// vsftpd knows no MLSD: LIST and MDTM; TLS, data connections only with the control connection's TLS session.
#[tokio::test(flavor = "multi_thread")]
async fn files_behind_ftps_are_read_once() {
    let (folder, port, mut plant) = behind_ftps();
    let root = plant.root.path().to_owned();
    the_story(&mut plant, &|| Server::vsftpd(folder.path(), &root, port, "")).await;
}

/// pyftpdlib knows MLSD and MLST; without TLS, which must be said.
#[tokio::test(flavor = "multi_thread")]
async fn files_behind_plain_ftp_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "plant\n").unwrap();
    let port = free_port();
    let mut plant = behind_ftp("ftp", port, "/in", &password, "allow_plain = true");
    let root = plant.root.path().to_owned();
    the_story(&mut plant, &|| Server::pyftpdlib(&password, &root, port)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ftp_server_is_known_by_its_certificate_and_knows_us_by_the_password() {
    let (folder, port, mut plant) = behind_ftps();
    let password = folder.path().join("password");
    let ca = plant.keys.clone();
    // PASV: some servers know no EPSV, and others show an address that is none of theirs.
    let keys = "cmds_denied=EPSV\npasv_address=192.0.2.1";
    let server = Server::vsftpd(folder.path(), plant.root.path(), port, keys);
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 3)));
    assert_eq!(plant.run().await.0, numbers(0, 3));
    // A certificate of somebody else.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    plant.keys = format!("ca_file = \"{}/ca.pem\"", other.path().display());
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::Config(why) if why.contains("certificate is not trusted")),
        "{error}"
    );
    // None of the system's either, and not for that name.
    plant.keys = String::new();
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::Config(why) if why.contains("ca_file")), "{error}");
    plant.keys = ca.clone();
    let place = plant.place.replace("127.0.0.1", "localhost");
    let right = std::mem::replace(&mut plant.place, place);
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::Config(why) if why.contains("certificate is not trusted")),
        "{error}"
    );
    // A password that is none, and a server that lets nobody in without TLS.
    plant.place = right.clone();
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "valve\n").unwrap();
    plant.place = plant.place.replace(&password.display().to_string(), &wrong.display().to_string());
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    let said = error.to_string();
    assert!(
        matches!(&error, DriverError::Config(_)) && said.contains("refuses to let anonymous in"),
        "{error}"
    );
    assert!(!said.contains("valve"), "{error}");
    plant.place = right.replace("ftps://", "ftp://");
    plant.keys = "allow_plain = true".to_owned();
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::Config(why) if why.contains("refuses to let")), "{error}");
    // A folder that is not there.
    (plant.place, plant.keys) = (right.replace("/~/in", "/~/out"), ca);
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::NotConnected(why) if why.contains("missing")), "{error}");
    drop(server);
    // A server without TLS gets neither user nor password.
    let _server = Server::pyftpdlib(&password, plant.root.path(), port);
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::Config(why) if why.contains("offers no TLS")), "{error}");
}

/// Servers that say something else, or nothing, or too much.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_ftp_servers_give_errors_in_time() {
    use std::io::Read;
    let long = [b"220-".as_slice(), &[b'x'; 400_000]].concat();
    let greetings: [(&[u8], &str); 5] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not connected"),
        (b"\xff\xff\xff\xff\xff\xff\r\n", "not connected"),
        (b"421 too many users\r\n", "not connected"),
        (b"", "not connected"), // hangs up
        (&long, "not connected"),
    ];
    let password = tempfile::NamedTempFile::new().unwrap();
    for (nth, (greeting, expected)) in greetings.into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plant = behind_ftp(
            "ftp",
            listener.local_addr().unwrap().port(),
            "/in",
            password.path(),
            "allow_plain = true",
        );
        let greeting = greeting.to_vec();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&greeting).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            stream.read_to_end(&mut Vec::new()).ok();
        });
        let mut driver = plant.candidate().driver();
        let error = driver.open(None).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{nth}: {error}");
        driver.close().await;
        peer.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_another_one_gets_no_login() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::sshd(folder.path(), free_port());
    let keys = folder.path().display().to_string();
    let other = fingerprint(&folder.path().join("other.pub"));
    let mut plant = behind_sftp(&format!("host_key = \"{other}\""), &server);
    plant.place = plant.place.replace("{keys}", &keys);
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    let known = fingerprint(&folder.path().join("host.pub"));
    assert!(
        matches!(&error, DriverError::Config(why) if why.contains(&known) && why.contains(&other)),
        "{error}"
    );
    // A file of known hosts, with and without this one.
    let public = fs::read_to_string(folder.path().join("host.pub")).unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "").unwrap();
    plant.keys = format!("known_hosts_file = \"{}\"", hosts.display());
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::Config(why) if why.contains("is not in")), "{error}");
    fs::write(&hosts, format!("[127.0.0.1]:{} {public}", server.port)).unwrap();
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 2)));
    assert_eq!(plant.run().await.0, numbers(0, 2));
    plant.place = plant.place.replace("/user\"", "/other\"");
    let error = plant.candidate().driver().open(None).await.unwrap_err();
    assert!(matches!(&error, DriverError::Config(why) if why.contains("refuses to let")), "{error}");
}

#[test]
fn mistakes_about_servers_are_named() {
    let mut plant = Plant::new("folder = \"x\"\nwatch = \"poll\"\nhost_key = \"MD5:1\"");
    for (place, expected) in [
        ("url = \"sftp://me@host/x\"", vec!["host_key", "url", "url", "folder", "watch"]),
        ("url = \"sftp://me:secret@host/x\"", vec!["url", "host_key", "folder", "watch"]),
        ("url = \"http://me@host/x\"", vec!["url", "host_key", "folder", "watch"]),
        ("url = \"ftp://me@host/x\"", vec!["host_key", "host_key", "url", "url", "folder", "watch"]),
        (
            "url = \"ftps://me@host/x\"\nallow_plain = 1",
            vec!["host_key", "allow_plain", "host_key", "url", "folder", "watch"],
        ),
        (
            "url = \"sftp://me@host/x\"\nca_file = \"x\"",
            vec!["host_key", "ca_file", "url", "url", "folder", "watch"],
        ),
        ("key_file = \"x\"", vec!["host_key", "key_file", "host_key"]),
    ] {
        plant.place = place.to_owned();
        let candidate = plant.candidate();
        let problems = validated(&KIND, &candidate.text, &candidate.setup).err().unwrap();
        let keys: Vec<&str> = problems.list.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, expected, "{place}");
        assert!(problems.list.iter().all(|problem| !problem.rule.contains("secret")));
    }
}
