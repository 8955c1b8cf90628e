//! The book as the broker uses it: logins, live changes, files that break.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use runtime::tasks::CancellationToken;

use super::edit::{Change, NewToken, edit, hash_password};
use super::*;

pub(super) const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
pub(super) const ELSEWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4000);

/// A book over a file of its own.
pub(super) struct Fixture {
    pub(super) book: AccessBook,
    pub(super) path: PathBuf,
    folder: tempfile::TempDir,
    _tasks: Tasks,
}

impl Fixture {
    /// `scada` reads (password `pw`), `line-3` is the agent antwerp/line-3 (certificate).
    pub(super) fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.toml");
        let scada = Change {
            roles: Some(vec!["reader".into()]),
            password: Some(hash_password(b"pw").unwrap()),
            ..Change::default()
        };
        let agent = Change {
            roles: Some(vec!["agent".into()]),
            node: NodeId::parse("antwerp/line-3").ok(),
            certificate: Some(true),
            ..Change::default()
        };
        edit(&path, |file| file.add("scada", &scada).and_then(|()| file.add("line-3", &agent))).unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let book = AccessBook::open(&path, folder.path(), "forebay", &tasks).unwrap();
        Fixture { book, path, folder, _tasks: tasks }
    }

    pub(super) fn change(&self, name: &str, change: &Change) {
        edit(&self.path, |file| file.put(name, change)).unwrap();
    }

    pub(super) fn agent_password(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent-token")).unwrap().trim().to_owned()
    }

    /// Waits until something holds, which a change of the file must make within a second.
    pub(super) async fn within_a_second(&self, what: &str, holds: impl Fn(&AccessBook) -> bool) {
        let begun = Instant::now();
        while !holds(&self.book) {
            assert!(begun.elapsed() < Duration::from_secs(1), "{what}: not within a second");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn login(&self, shown: Credentials<'_>) -> Result<Login, Refusal> {
        self.book.login(shown).await
    }
}

pub(super) fn shown<'a>(user: Option<&'a str>, password: Option<&'a str>) -> Credentials<'a> {
    Credentials {
        user,
        password: password.map(str::as_bytes),
        certificate: None,
        peer: HERE,
        loopback: true,
        anonymous_read: false,
    }
}

pub(super) fn with_certificate<'a>(names: &[&str], not_before: i64) -> Credentials<'a> {
    let certificate = ClientCertificate {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        not_before: Timestamp(not_before),
        serial: "0a".into(),
    };
    Credentials { certificate: Some(certificate), loopback: false, peer: ELSEWHERE, ..shown(None, None) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_reaches_live_logins_within_a_second() {
    let plant = Fixture::new();
    let scada = plant.login(shown(Some("scada"), Some("pw"))).await.unwrap().identity;
    let line = plant.login(with_certificate(&["line-3"], 5_000_000)).await.unwrap().identity;
    let token = NewToken::make().unwrap();
    plant.change(
        "screen",
        &Change { roles: Some(vec!["reader".into()]), token: Some(token.hash), ..Change::default() },
    );
    let before = plant.book.generation();
    plant.within_a_second("a new identity", |book| book.generation() > before).await;
    let screen = plant.login(shown(None, Some(&token.text))).await.unwrap().identity;
    for identity in [&scada, &line, &screen] {
        assert!(plant.book.rights(identity).is_some(), "{identity:?} is not concerned by another's change");
    }

    plant.change("scada", &Change { roles: Some(vec!["operator".into()]), ..Change::default() });
    let reads_sys = |book: &AccessBook| book.rights(&scada).unwrap().may_subscribe("$SYS/#");
    plant.within_a_second("another role", reads_sys).await;
    plant.change("scada", &Change { password: Some(hash_password(b"new").unwrap()), ..Change::default() });
    plant.within_a_second("another password", |book| book.rights(&scada).is_none()).await;
    assert!(plant.login(shown(Some("scada"), Some("pw"))).await.is_err(), "the old one is forgotten");
    assert!(plant.login(shown(Some("scada"), Some("new"))).await.is_ok());

    let revoked = Change { certificates_from: Some(Timestamp(6_000_000)), ..Change::default() };
    plant.change("line-3", &revoked);
    plant.within_a_second("a revoked certificate", |book| book.rights(&line).is_none()).await;
    assert_eq!(plant.login(with_certificate(&["line-3"], 5_000_000)).await.unwrap_err().reason, 0x87);
    let renewed = plant.login(with_certificate(&["line-3"], 6_000_000)).await.unwrap().identity;

    plant.change("line-3", &Change { disabled: Some(true), ..Change::default() });
    plant.within_a_second("a disabled identity", |book| book.rights(&renewed).is_none()).await;
    assert!(plant.book.rights_of("line-3").is_none());
    plant.change("screen", &Change { token: Some(NewToken::make().unwrap().hash), ..Change::default() });
    plant.within_a_second("another token", |book| book.rights(&screen).is_none()).await;
    edit(&plant.path, |file| file.remove("screen")).unwrap();
    plant.within_a_second("a removed identity", |book| book.rights_of("screen").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_rules_from_before() {
    let plant = Fixture::new();
    let scada = plant.login(shown(Some("scada"), Some("pw"))).await.unwrap().identity;
    let good = std::fs::read_to_string(&plant.path).unwrap();
    let (before, none) = (plant.book.generation(), None);
    assert_eq!(plant.book.problem(), none);
    for (broken, told) in [
        (good.replace("roles = [\"reader\"]", "roles = [\"raeder\"]"), "\"raeder\" is no role"),
        (good.replace("version = 1", "version = "), "syntax"),
        (String::new(), "version"),
    ] {
        std::fs::write(&plant.path, broken).unwrap(); // in place, as an editor may
        plant
            .within_a_second(told, |book| book.problem().is_some_and(|problem| problem.contains(told)))
            .await;
        assert!(plant.book.rights(&scada).is_some());
        assert!(plant.login(shown(Some("scada"), Some("pw"))).await.is_ok());
    }
    std::fs::remove_file(&plant.path).unwrap();
    plant.within_a_second("gone", |book| book.problem().is_some_and(|p| p.contains("cannot be read"))).await;
    assert!(plant.book.rights(&scada).is_some());
    assert_eq!(plant.book.generation(), before, "nothing has changed");
    std::fs::write(&plant.path, &good).unwrap();
    plant.within_a_second("mended", |book| book.problem().is_none()).await;
    assert!(plant.book.rights(&scada).is_some());
}

/// Same size, same inode, and a time that a coarse clock may not tell apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_only_its_contents_show_is_seen() {
    let plant = Fixture::new();
    let scada = plant.login(shown(Some("scada"), Some("pw"))).await.unwrap().identity;
    let reader = std::fs::read_to_string(&plant.path).unwrap();
    let nobody = reader.replace("roles = [\"reader\"]", "roles = [        ]");
    assert_eq!(reader.len(), nobody.len());
    for (text, reads) in [(&nobody, false), (&reader, true), (&nobody, false)] {
        let times = std::fs::metadata(&plant.path).unwrap().modified().unwrap();
        std::fs::write(&plant.path, text).unwrap();
        std::fs::File::options().write(true).open(&plant.path).unwrap().set_modified(times).unwrap();
        let now = |book: &AccessBook| book.rights(&scada).unwrap().may_subscribe("a") == reads;
        plant.within_a_second("new contents", now).await;
    }
}

#[tokio::test]
async fn a_hub_does_not_start_with_rules_that_it_does_not_understand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.toml");
    std::fs::write(&path, "version = 1\n[[identities]]\nname = \"x\"\nroles = [\"nonsense\"]\n").unwrap();
    let tasks = Tasks::new(CancellationToken::new());
    let error = AccessBook::open(&path, folder.path(), "forebay", &tasks).unwrap_err().to_string();
    assert!(error.contains("access.toml:4: identities[1].roles"), "{error}");
}

#[tokio::test]
async fn the_first_start_makes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.toml");
    let tasks = Tasks::new(CancellationToken::new());
    let book = AccessBook::open(&path, folder.path(), "forebay", &tasks).unwrap();
    assert!(path.exists() && book.rights_of("g/n").unwrap().may_publish("spBv1.0/g/NDATA/n"));
    assert!(book.rights_of("anonymous").unwrap().may_subscribe("#") && book.rights_of("x").is_none());
}
