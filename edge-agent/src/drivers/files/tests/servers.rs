//! Folders on servers that are not ours: Debian's sshd, started for the test by the user who runs it.

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

#[tokio::test(flavor = "multi_thread")]
async fn files_behind_sftp_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Server::sshd(folder.path(), port);
    let keys = folder.path().display().to_string();
    let known = fingerprint(&folder.path().join("host.pub"));
    let mut plant = behind_sftp(&format!("host_key = \"{known}\""), &server);
    plant.place = plant.place.replace("{keys}", &keys);
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
    let _server = Server::sshd(folder.path(), port);
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
