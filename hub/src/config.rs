//! The `[hub]` section: where the hub keeps its data, who may speak to it, how long it remembers.
//!
//! [`validate`] is pure and reports every mistake in one run (habit 10); nothing here opens a file or a socket.

pub mod broker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::address::check_sparkplug_id;
use runtime::config_file::{Located, PlantNames, Problems, Section};

pub use broker::{BrokerConfig, EmbeddedBroker, OutsideBroker};

/// The plant log is kept this long unless the file says otherwise (design §4.17).
const RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// ... or until it is this large, whichever comes first (design §4.17).
const RETENTION_BYTES: u64 = 20_000_000_000;
/// Less could not hold a few segments beside the one that is written.
const RETENTION_BYTES_MIN: u64 = 64_000_000;
/// The host application's id where the file names none; agents have the same default.
const HOST_ID: &str = "forebay";
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
    /// How far the clock of a node may be off the hub's before that is said.
    pub clock_skew_max: Duration,
    /// The broker that carries the plant's messages.
    pub broker: BrokerConfig,
    /// Console and API.
    pub http: HttpConfig,
    /// Writing to devices.
    pub commands: CommandsConfig,
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

/// Nodes' clocks may be so far off the hub's before that is said: what NTP keeps by far, and a wrong zone does not.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// Reads and checks the section; `None` if it cannot be used. Every mistake is in `problems`.
pub fn validate(mut section: Section<'_>, plant: &PlantNames, problems: &mut Problems) -> Option<Config> {
    let before = problems.list.len();
    let data_dir = required_path(&mut section, "data_dir", problems);
    let id = sparkplug_id(&mut section, "id", problems).unwrap_or_else(|| plant.site.clone());
    let host_id = sparkplug_id(&mut section, "host_id", problems).unwrap_or_else(|| HOST_ID.to_owned());
    let minute_to_century = Duration::from_secs(60)..=Duration::from_secs(36_525 * 86_400);
    let retention = section.duration("retention", problems, minute_to_century).map_or(RETENTION, |l| l.value);
    let retention_bytes = retention_bytes(&mut section, problems);
    let second_to_century = Duration::from_secs(1)..=Duration::from_secs(36_525 * 86_400);
    let clock_skew_max =
        section.duration("clock_skew_max", problems, second_to_century).map_or(CLOCK_SKEW_MAX, |l| l.value);
    let broker = broker::broker(&mut section, data_dir.as_deref(), problems);
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
        clock_skew_max,
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
        assert!(matches!(
            config.broker,
            BrokerConfig::Embedded(EmbeddedBroker { anonymous_read: false, .. })
        ));
    }

    #[test]
    fn every_mistake_is_reported_in_one_run() {
        let (config, problems) = read(concat!(
            "[hub]\nid = \"a/b\"\nretention = \"7x\"\nretention_bytes = \"1MB\"\ncolour = 1\n",
            "[hub.broker]\nlisten = \"0.0.0.0:1883\"\n",
            "[[hub.broker.users]]\nname = \"line\"\n",
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
                "hub.broker.users[1]",
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
