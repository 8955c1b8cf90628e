//! The `[hub]` section: where the hub keeps its data, who may speak to it, how long it remembers.
//!
//! [`validate`] is pure and reports every mistake in one run (habit 10); nothing here opens a file or a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::NodeId;
use model::address::check_sparkplug_id;
use runtime::config_file::{Located, PlantNames, Problems, Section};
use runtime::mqtt_client::parse_url;

/// The plant log is kept this long unless the file says otherwise (design §4.17).
const RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// ... or until it is this large, whichever comes first (design §4.17).
const RETENTION_BYTES: u64 = 20_000_000_000;
/// Less could not hold a few segments beside the one that is written.
const RETENTION_BYTES_MIN: u64 = 64_000_000;
/// The host application's id where the file names none; agents have the same default.
const HOST_ID: &str = "forebay";
/// Loopback: other machines reach the hub through a broker with TLS.
const BROKER_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1883);
/// Loopback by default (design §8).
const HTTP_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// The hub's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// ISA-95 enterprise: first level of the JSON tree.
    pub enterprise: String,
    /// ISA-95 site: second level of the JSON tree.
    pub site: String,
    /// Where logs, catalogue, checkpoint, ledger and token live.
    pub data_dir: PathBuf,
    /// Name of this hub in cursors and tables.
    pub id: String,
    /// Sparkplug host application id: `spBv1.0/STATE/{host_id}`.
    pub host_id: String,
    /// Age from which plant log segments are deleted.
    pub retention: Duration,
    /// Size from which plant log segments are deleted.
    pub retention_bytes: u64,
    /// The broker that carries the plant's messages.
    pub broker: BrokerConfig,
    /// Console and API.
    pub http: HttpConfig,
    /// Writing to devices.
    pub commands: CommandsConfig,
}

/// Whose broker it is.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// The hub's own.
    Embedded {
        /// Loopback address and port; port 0 takes a free one.
        listen: SocketAddr,
        /// Whether clients without a login may read everything (they can never write).
        anonymous_read: bool,
        /// Who may log in.
        users: Vec<BrokerUser>,
    },
    /// Another one, of which the hub is a client.
    Outside(OutsideBroker),
}

/// A login at the embedded broker.
#[derive(Clone, Debug)]
pub struct BrokerUser {
    /// User name.
    pub name: String,
    /// File with the password.
    pub password_file: PathBuf,
    /// The edge node as which it may publish; none: it may only read.
    pub node: Option<NodeId>,
}

/// How to reach an outside broker.
#[derive(Clone, Debug)]
pub struct OutsideBroker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `mqtts://`.
    pub tls: bool,
    /// MQTT client id.
    pub client_id: String,
    /// User name.
    pub user: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// The plant CA's certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// Console and API.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// Writing to devices.
#[derive(Clone, Debug)]
pub struct CommandsConfig {
    /// Off until allowed (design §1.2).
    pub enabled: bool,
}

/// Reads and checks the section; `None` if it cannot be used. Every mistake is in `problems`.
pub fn validate(mut section: Section<'_>, plant: &PlantNames, problems: &mut Problems) -> Option<Config> {
    let before = problems.list.len();
    let data_dir = required_path(&mut section, "data_dir", problems);
    let id = sparkplug_id(&mut section, "id", problems).unwrap_or_else(|| plant.site.clone());
    let host_id = sparkplug_id(&mut section, "host_id", problems).unwrap_or_else(|| HOST_ID.to_owned());
    let minute_to_century = Duration::from_secs(60)..=Duration::from_secs(36_525 * 86_400);
    let retention = section.duration("retention", problems, minute_to_century).map_or(RETENTION, |l| l.value);
    let retention_bytes = retention_bytes(&mut section, problems);
    let broker = broker(section.section("broker", problems), problems);
    let http = http(section.section("http", problems), problems);
    let commands = commands(section.section("commands", problems), problems);
    section.finish(problems);
    if problems.list.len() > before {
        return None;
    }
    Some(Config {
        enterprise: plant.enterprise.clone(),
        site: plant.site.clone(),
        data_dir: data_dir?,
        id,
        host_id,
        retention,
        retention_bytes,
        broker: broker?,
        http,
        commands,
    })
}

fn required_path(section: &mut Section<'_>, key: &str, problems: &mut Problems) -> Option<PathBuf> {
    if !section.has(key) {
        problems.push(section.problem(key, "is missing; write a folder in quotes"));
    }
    section.path(key, problems).map(|l| l.value)
}

fn sparkplug_id(section: &mut Section<'_>, key: &str, problems: &mut Problems) -> Option<String> {
    let rule = |text: &str| check_sparkplug_id(text).map(|()| text.to_owned()).map_err(|e| e.to_string());
    section.checked(key, problems, rule).map(|l| l.value)
}

fn retention_bytes(section: &mut Section<'_>, problems: &mut Problems) -> u64 {
    match section.size("retention_bytes", problems) {
        None => RETENTION_BYTES,
        Some(found) if found.value < RETENTION_BYTES_MIN => {
            problems.push(found.problem("must be at least \"64MB\", a few segments"));
            RETENTION_BYTES
        }
        Some(found) => found.value,
    }
}

fn broker(section: Option<Section<'_>>, problems: &mut Problems) -> Option<BrokerConfig> {
    let Some(mut section) = section else {
        return Some(BrokerConfig::Embedded {
            listen: BROKER_LISTEN,
            anonymous_read: false,
            users: Vec::new(),
        });
    };
    let config = if section.has("url") {
        outside(&mut section, problems).map(BrokerConfig::Outside)
    } else {
        embedded(&mut section, problems)
    };
    section.finish(problems);
    config
}

fn embedded(section: &mut Section<'_>, problems: &mut Problems) -> Option<BrokerConfig> {
    let listen = listen(section, problems, BROKER_LISTEN);
    if let Some(found) = &listen
        && !found.value.ip().is_loopback()
    {
        problems.push(found.problem(
            "must be a loopback address such as \"127.0.0.1:1883\"; other machines are served through a broker \
             with TLS, named by url",
        ));
    }
    let anonymous_read = section.boolean("anonymous_read", problems).is_some_and(|l| l.value);
    let mut users: Vec<BrokerUser> = Vec::new();
    for mut entry in section.sections("users", problems) {
        if let Some(user) = user(&mut entry, problems) {
            if users.iter().any(|other| other.name == user.name) {
                problems.push(entry.problem("name", format!("is the name of two users: {}", user.name)));
            }
            users.push(user);
        }
        entry.finish(problems);
    }
    Some(BrokerConfig::Embedded { listen: listen.map_or(BROKER_LISTEN, |l| l.value), anonymous_read, users })
}

fn user(entry: &mut Section<'_>, problems: &mut Problems) -> Option<BrokerUser> {
    let name = entry.required_text("name", problems).map(|l| l.value);
    let password_file = required_path(entry, "password_file", problems);
    let node = entry.checked("node", problems, |text| {
        NodeId::parse(text).map_err(|error| format!("must be GROUP/NODE: {error}"))
    });
    Some(BrokerUser { name: name?, password_file: password_file?, node: node.map(|l| l.value) })
}

fn outside(section: &mut Section<'_>, problems: &mut Problems) -> Option<OutsideBroker> {
    let url = section.checked("url", problems, parse_url);
    let client_id = section.text("client_id", problems).map(|l| l.value);
    let user = section.text("user", problems);
    let password_file = section.path("password_file", problems);
    let mut tls_file = |section: &mut Section<'_>, key| {
        let file = section.path(key, problems);
        if let (Some(file), Some(url)) = (&file, &url)
            && !url.value.2
        {
            problems.push(file.problem("needs a url that begins with mqtts://"));
        }
        file.map(|l| l.value)
    };
    let ca_file = tls_file(section, "ca_file");
    let cert_file = tls_file(section, "cert_file");
    let key_file = tls_file(section, "key_file");
    if cert_file.is_some() != key_file.is_some() {
        problems
            .push(section.problem("cert_file", "cert_file and key_file belong together: write both or none"));
    }
    if let (Some(password), None) = (&password_file, &user) {
        problems.push(password.problem("needs a user"));
    }
    let Located { value: (host, port, tls), .. } = url?;
    Some(OutsideBroker {
        host,
        port,
        tls,
        client_id: client_id.unwrap_or_else(|| "forebay-hub".to_owned()),
        user: user.map(|l| l.value),
        password_file: password_file.map(|l| l.value),
        ca_file,
        cert_file,
        key_file,
    })
}

fn http(section: Option<Section<'_>>, problems: &mut Problems) -> HttpConfig {
    let Some(mut section) = section else { return HttpConfig { listen: HTTP_LISTEN } };
    let listen = listen(&mut section, problems, HTTP_LISTEN).map_or(HTTP_LISTEN, |l| l.value);
    section.finish(problems);
    HttpConfig { listen }
}

fn commands(section: Option<Section<'_>>, problems: &mut Problems) -> CommandsConfig {
    let Some(mut section) = section else { return CommandsConfig { enabled: false } };
    let enabled = section.boolean("enabled", problems).is_some_and(|l| l.value);
    section.finish(problems);
    CommandsConfig { enabled }
}

fn listen(
    section: &mut Section<'_>,
    problems: &mut Problems,
    example: SocketAddr,
) -> Option<Located<SocketAddr>> {
    section.checked("listen", problems, |text| {
        text.parse().map_err(|_| format!("must be ADDRESS:PORT such as \"{example}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config_file::ConfigFile;
    use std::path::Path;

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let file = ConfigFile::from_text(Path::new("hub.toml"), text.to_owned());
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        let section = root.section("hub", &mut problems).unwrap();
        let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
        let config = validate(section, &plant, &mut problems);
        (config, problems.list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_those_of_the_book() {
        let (config, problems) = read("[hub]\ndata_dir = \"hub\"\n");
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!((config.id.as_str(), config.host_id.as_str()), ("antwerp", "forebay"));
        assert_eq!((config.retention.as_secs(), config.retention_bytes), (604_800, 20_000_000_000));
        assert!(!config.commands.enabled);
        assert!(matches!(config.broker, BrokerConfig::Embedded { anonymous_read: false, .. }));
    }

    #[test]
    fn every_mistake_is_reported_in_one_run() {
        let (config, problems) = read(concat!(
            "[hub]\nid = \"a/b\"\nretention = \"7x\"\nretention_bytes = \"1MB\"\ncolour = 1\n",
            "[hub.broker]\nlisten = \"0.0.0.0:1883\"\n",
            "[[hub.broker.users]]\nname = \"line\"\nnode = \"nonsense\"\n",
            "[hub.http]\nlisten = \"here\"\n[hub.commands]\nenabled = \"yes\"\n",
        ));
        assert!(config.is_none());
        let keys: Vec<&str> =
            problems.iter().map(|p| p.split(": ").nth(1).unwrap().split(" =").next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "hub.data_dir",
                "hub.id",
                "hub.retention",
                "hub.retention_bytes",
                "hub.broker.listen",
                "hub.broker.users[1].password_file",
                "hub.broker.users[1].node",
                "hub.http.listen",
                "hub.commands.enabled",
                "hub.colour",
            ]
        );
    }

    #[test]
    fn an_outside_broker_needs_what_belongs_together() {
        let (config, problems) = read(concat!(
            "[hub]\ndata_dir = \"hub\"\n[hub.broker]\nurl = \"mqtt://broker\"\nca_file = \"ca.pem\"\n",
            "cert_file = \"c.pem\"\npassword_file = \"pw\"\nlisten = \"127.0.0.1:1\"\n",
        ));
        assert!(config.is_none());
        assert_eq!(problems.len(), 5, "{problems:#?}");
    }
}
