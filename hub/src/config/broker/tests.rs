//! The broker's sections: defaults, everything at once, every mistake.

use std::time::Duration;

use runtime::config_file::{ConfigFile, PlantNames};

use super::super::{Config, validate};
use super::*;

fn read(text: &str) -> (Option<Config>, Vec<String>) {
    let text = format!("[hub]\ndata_dir = \"data\"\n{text}");
    let file = ConfigFile::from_text(Path::new("/plant/hub.toml"), text);
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let section = root.section("hub", &mut problems).unwrap();
    let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
    let config = validate(section, &plant, &mut problems);
    (config, problems.list.iter().map(ToString::to_string).collect())
}

fn embedded(text: &str) -> EmbeddedBroker {
    let (config, problems) = read(text);
    assert_eq!(problems, Vec::<String>::new());
    match config.unwrap().broker {
        BrokerConfig::Embedded(own) => own,
        BrokerConfig::Outside(other) => panic!("{other:?}"),
    }
}

/// Keys of the problems, in order.
fn keys(text: &str) -> Vec<String> {
    let (config, problems) = read(text);
    assert!(config.is_none());
    let key = |problem: &String| problem.split(": ").nth(1).unwrap().split(" =").next().unwrap().to_owned();
    problems.iter().map(key).collect()
}

#[test]
fn without_sections_it_is_the_hub_s_own_on_loopback() {
    for text in ["", "[hub.broker]\n", "[hub.broker.limits]\n", "[hub.tls]\n"] {
        let own = embedded(text);
        assert_eq!((own.listen, own.anonymous_read, own.sparkplug_aware), (LISTEN, false, false));
        assert!(own.listeners.is_empty() && own.enrol.is_none());
        assert_eq!(own.access_file, Path::new("/plant/data/access.toml"));
        assert_eq!(own.tls, TlsFiles::of(Path::new("/plant/data")));
        assert_eq!(own.limits, Limits::default());
    }
}

#[test]
fn everything_can_be_said() {
    let own = embedded(concat!(
        "[hub.broker]\nlisten = \"[::1]:1884\"\nanonymous_read = true\naccess_file = \"/etc/access.toml\"\n",
        "sparkplug_aware = true\n",
        "[[hub.broker.listeners]]\nlisten = \"0.0.0.0:8883\"\n",
        "[[hub.broker.listeners]]\nlisten = \"0.0.0.0:8884\"\nprotocol = \"websocket\"\ntls = true\n",
        "client_certificate = \"none\"\nanonymous_read = true\n",
        "[[hub.broker.listeners]]\nlisten = \"127.0.0.1:8083\"\nprotocol = \"websocket\"\ntls = false\n",
        "[[hub.broker.listeners]]\nlisten = \"10.0.0.1:8883\"\nclient_certificate = \"required\"\n",
        "[hub.broker.limits]\nconnections = 50000\nconnections_per_address = 20\npacket_bytes = \"1MiB\"\n",
        "retained_messages = 5\nretained_bytes = \"6kB\"\nsessions = 7\nsession_messages = 8\n",
        "session_bytes = \"90MB\"\njournal_bytes = \"100MB\"\nsubscriptions_per_client = 10\ninflight = 11\n",
        "session_expiry_max = \"12h\"\nkeep_alive_max = \"13m\"\n",
        "[hub.tls]\ncert_file = \"c.crt\"\nkey_file = \"c.key\"\nclient_ca_file = \"/ca.crt\"\n",
        "[hub.enrol]\nlisten = \"0.0.0.0:8885\"\n",
    ));
    let found: Vec<_> = own
        .listeners
        .iter()
        .map(|one| (one.listen.port(), one.protocol, one.tls, one.client_certificate, one.anonymous_read))
        .collect();
    use {ClientCertificates as Ask, Protocol as Speak};
    assert_eq!(
        found,
        [
            (8883, Speak::Mqtt, true, Ask::Optional, false),
            (8884, Speak::WebSocket, true, Ask::None, true),
            (8083, Speak::WebSocket, false, Ask::None, false),
            (8883, Speak::Mqtt, true, Ask::Required, false),
        ]
    );
    assert!(own.anonymous_read && own.sparkplug_aware && own.listen.is_ipv6());
    assert_eq!(own.access_file, Path::new("/etc/access.toml"));
    assert_eq!(own.tls.cert_file, Path::new("/plant/c.crt"));
    assert_eq!(own.tls.client_ca_file, Path::new("/ca.crt"));
    assert_eq!(own.enrol.unwrap().port(), 8885);
    let limits = Limits {
        connections: 50_000,
        connections_per_address: 20,
        packet_bytes: 1 << 20,
        retained_messages: 5,
        retained_bytes: 6_000,
        sessions: 7,
        session_messages: 8,
        session_bytes: 90_000_000,
        subscriptions_per_client: 10,
        inflight: 11,
        journal_bytes: 100_000_000,
        session_expiry_max: Duration::from_secs(12 * 3600),
        keep_alive_max: Duration::from_secs(13 * 60),
    };
    assert_eq!(own.limits, limits);
    let some = embedded("[hub.broker.limits]\nconnections = 1\njournal_bytes = \"64MB\"\n").limits;
    assert_eq!((some.connections_per_address, some.session_bytes), (1, 64_000_000), "derived ones follow");
}

#[test]
fn what_would_be_open_or_contradicts_itself_is_refused() {
    assert_eq!(
        keys(concat!(
            "[hub.broker]\nlisten = \"0.0.0.0:1883\"\n",
            "[[hub.broker.listeners]]\nlisten = \"0.0.0.0:8883\"\ntls = false\n",
            "[[hub.broker.listeners]]\nlisten = \"127.0.0.1:8083\"\ntls = false\nclient_certificate = \"optional\"\n",
            "[[hub.broker.listeners]]\nprotocol = \"http\"\nclient_certificate = \"maybe\"\ncolour = 1\n",
            "[[hub.broker.listeners]]\nlisten = \"0.0.0.0:8883\"\nanonymous_read = true\n",
            "client_certificate = \"required\"\n",
            "[hub.tls]\ncert_file = \"c\"\n[hub.enrol]\n",
        )),
        [
            "hub.broker.listen",
            "hub.broker.listeners[1].tls",
            "hub.broker.listeners[2].client_certificate",
            "hub.broker.listeners[3].listen",
            "hub.broker.listeners[3].protocol",
            "hub.broker.listeners[3].client_certificate",
            "hub.broker.listeners[3].colour",
            "hub.broker.listeners[4].anonymous_read",
            "hub.broker.listeners[4].listen",
            "hub.tls.cert_file",
            "hub.enrol.listen",
        ]
    );
}

#[test]
fn limits_have_limits() {
    assert_eq!(
        keys(concat!(
            "[hub.broker.limits]\nconnections = 100001\nconnections_per_address = 3000\npacket_bytes = \"8MiB\"\n",
            "retained_bytes = 5\nsession_bytes = \"5GB\"\ninflight = 0\nsession_expiry_max = \"0\"\n",
            "keep_alive_max = \"1s\"\ncolour = 1\n",
        )),
        [
            "hub.broker.limits.connections",
            "hub.broker.limits.connections_per_address",
            "hub.broker.limits.packet_bytes",
            "hub.broker.limits.retained_bytes",
            "hub.broker.limits.session_bytes",
            "hub.broker.limits.inflight",
            "hub.broker.limits.session_expiry_max",
            "hub.broker.limits.keep_alive_max",
            "hub.broker.limits.colour",
        ]
    );
}

#[test]
fn users_of_before_are_told_where_they_went() {
    let (_, problems) = read(
        "[hub.broker]\nlisten = \"127.0.0.1:1\"\n[[hub.broker.users]]\nname = \"x\"\n[[hub.broker.users]]\n",
    );
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].starts_with("/plant/hub.toml:5: hub.broker.users[1]") && problems[0].contains("user add")
    );
}

#[test]
fn another_broker_has_its_own_files() {
    assert_eq!(
        keys(
            "[hub.broker]\nurl = \"mqtt://b\"\nsparkplug_aware = true\n[hub.tls]\n[hub.enrol]\n[hub.broker.limits]\n"
        ),
        ["hub.tls", "hub.enrol", "hub.broker.limits", "hub.broker.sparkplug_aware"]
    );
}
