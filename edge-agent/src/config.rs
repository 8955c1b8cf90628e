//! The `[edge]` section: who the agent is, where its hub is, which devices it reads.
//!
//! [`validate`] touches nothing but the point lists (plain files beside the configuration) and reports every mistake
//! in one run, also those of the drivers and of the lists (habits 10 and 11).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::address::check_sparkplug_id;
use model::limits::{AGENT_POINTS_MAX, MQTT_PACKET_BYTES_MAX};
use model::{DataType, NodeId};
use runtime::config_file::{Located, PlantNames, Problem, Problems, Section};
use runtime::enrolment::EnrolUrl;
use runtime::mqtt_client::{TlsOptions, parse_url};

use crate::drivers::Driver;
use crate::normalise::ClockRules;
use crate::outbox::{OutboxOptions, WhenFull};
use crate::pace::Pace;
use crate::points::PointConfig;
use crate::shared::Shared;

mod device;

/// The host application that the agent works for; hubs have the same default.
const HOST_ID: &str = "forebay";
/// Two gigabytes hold 10 000 points at 1 s for days.
const OUTBOX_MAX: u64 = 2_000_000_000;
/// Less could not hold a few segments beside the one that is written.
const OUTBOX_MIN: u64 = 16 * 1024 * 1024;
/// Values per second of the history stream: an hour's outage of 10 000 points at 1 s is over in three minutes.
const HISTORY_RATE: u64 = 200_000;
/// Clocks of devices, agent and hub may be so far apart before values say so: what NTP keeps by far, and a wrong zone does
/// not.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// Bounds for clocks.
const CLOCK_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(36_525 * 86_400);
/// Keys of `[edge]` that make a birth of a point: an upper estimate beside its texts.
const BIRTH_BYTES_PER_POINT: usize = 320;

/// The agent's configuration.
pub struct Config {
    /// ISA-95 enterprise and site.
    pub plant: PlantNames,
    /// Sparkplug group and node.
    pub node: NodeId,
    /// Where outbox, catalogue and session live.
    pub data_dir: PathBuf,
    /// The broker.
    pub hub: HubAddress,
    /// Where the client certificate is renewed; none: somebody else does.
    pub enrol: Option<EnrolUrl>,
    /// Sparkplug host application.
    pub host_id: String,
    /// Whether nothing is born while that host is offline.
    pub primary_host: bool,
    /// Size and policy.
    pub outbox: OutboxOptions,
    /// Values per second of the history stream.
    pub history_rate: u64,
    /// Whether commands are executed at all.
    pub commands_enabled: bool,
    /// What is read.
    pub devices: Vec<DeviceConfig>,
}

/// How to reach the broker.
#[derive(Clone, Debug)]
pub struct HubAddress {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: Option<TlsOptions>,
    /// User name, and the file with the password; read at each connection.
    pub login: Option<(String, PathBuf)>,
}

/// A device.
pub struct DeviceConfig {
    /// Its name.
    pub name: String,
    /// Name of the driver.
    pub kind: &'static str,
    /// Its points.
    pub points: Vec<PointConfig>,
    /// The file of their list, for messages.
    pub points_file: PathBuf,
    /// What it reads, where that can be said: two devices with the same text read the same.
    pub source: Option<String>,
    /// The driver, not yet opened.
    pub driver: Box<dyn Driver>,
    /// How often it is read: its group 0.
    pub poll: Duration,
    /// Its other poll groups, from 1, with their poll times.
    pub groups: Vec<Duration>,
    /// How fast it may be asked.
    pub pace: Pace,
    /// After so long without an answer its points are Stale.
    pub stale_after: Duration,
    /// Whether answers without any data count as silence too: where `stale_after` was written by hand.
    pub stale_without_data: bool,
    /// How far its clock may be off.
    pub clocks: ClockRules,
}

impl DeviceConfig {
    /// The groups that have points, with their poll times.
    #[must_use]
    pub fn polls(&self) -> Vec<(u8, Duration)> {
        let has_points = |group: u8| self.points.iter().any(|point| point.group == group);
        let polls = std::iter::once(self.poll).chain(self.groups.iter().copied());
        (0_u8..).zip(polls).filter(|(group, _)| has_points(*group)).collect()
    }
}

/// Reads the section and the point lists; pushes every mistake.
pub fn validate(mut section: Section<'_>, plant: &PlantNames, problems: &mut Problems) -> Option<Config> {
    let before = problems.list.len();
    let node = node(&mut section, problems);
    let data_dir = required_path(&mut section, "data_dir", problems);
    let hub = hub(&mut section, problems);
    let enrol = enrol(&mut section, hub.as_ref(), problems);
    let host_id =
        section.checked("host_id", problems, sparkplug_id).map_or(HOST_ID.to_owned(), |id| id.value);
    let primary_host = section.boolean("primary_host", problems).is_none_or(|yes| yes.value);
    let outbox = outbox(&mut section, problems);
    let history_rate = section
        .integer("history_rate", problems, 100..=100_000_000)
        .and_then(|rate| u64::try_from(rate.value).ok())
        .unwrap_or(HISTORY_RATE);
    let commands_enabled = section.section("commands", problems).is_some_and(|mut commands| {
        let enabled = commands.boolean("enabled", problems).is_some_and(|yes| yes.value);
        commands.finish(problems);
        enabled
    });
    let skew_max = section.duration("clock_skew_max", problems, CLOCK_RANGE);
    let skew_max = micros(skew_max.map_or(CLOCK_SKEW_MAX, |max| max.value));
    let state_dir = data_dir.clone().unwrap_or_default().join("drivers");
    let sections = section.sections("devices", problems);
    if sections.is_empty() {
        problems.push(section.problem("devices", "there is no [[edge.devices]]; an agent needs one"));
    }
    let (mut devices, shared) = (Vec::new(), Shared::default());
    let mut names = HashMap::new();
    for section in sections {
        devices.extend(device::read(section, &state_dir, &shared, &mut names, skew_max, problems));
    }
    let file = section.file().to_owned();
    section.finish(problems);
    across_devices(&file, &devices, problems);
    warn_across_devices(&devices, problems);
    if problems.list.len() > before {
        return None;
    }
    let node = node?;
    Some(Config {
        plant: plant.clone(),
        outbox: OutboxOptions { agent: node.to_string(), ..outbox },
        node,
        data_dir: data_dir?,
        hub: hub?,
        enrol,
        host_id,
        primary_host,
        history_rate,
        commands_enabled,
        devices,
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn sparkplug_id(text: &str) -> Result<String, String> {
    check_sparkplug_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn node(section: &mut Section<'_>, problems: &mut Problems) -> Option<NodeId> {
    let mut id = |key| {
        let text = section.required_text(key, problems)?;
        match sparkplug_id(&text.value) {
            Ok(id) => Some(id),
            Err(rule) => {
                problems.push(text.problem(rule));
                None
            }
        }
    };
    let (group, node) = (id("group"), id("node"));
    NodeId::new(&group?, &node?).ok()
}

fn required_path(section: &mut Section<'_>, key: &str, problems: &mut Problems) -> Option<PathBuf> {
    if !section.has(key) {
        problems.push(section.problem(key, "is missing; write a path in quotes"));
        return None;
    }
    section.path(key, problems).map(|path| path.value)
}

fn hub(section: &mut Section<'_>, problems: &mut Problems) -> Option<HubAddress> {
    let url = section.required_text("hub", problems);
    let mut path = |key| section.path(key, problems);
    let (ca, cert, key) = (path("ca_file"), path("cert_file"), path("key_file"));
    let password = path("password_file");
    let user = section.text("user", problems);
    match (&cert, &key) {
        (Some(one), None) => problems.push(one.problem("key_file is missing beside it")),
        (None, Some(one)) => problems.push(one.problem("cert_file is missing beside it")),
        _ => {}
    }
    match (&user, &password) {
        (Some(one), None) => problems.push(one.problem("password_file is missing beside it")),
        (None, Some(one)) => problems.push(one.problem("user is missing beside it")),
        _ => {}
    }
    let url = url?;
    let (host, port, tls) = match parse_url(&url.value) {
        Ok(parsed) => parsed,
        Err(rule) => {
            problems.push(url.problem(rule));
            return None;
        }
    };
    if !tls && let Some(file) = ca.as_ref().or(cert.as_ref()) {
        problems.push(file.problem("is for TLS: write the hub as mqtts://…, or leave it out"));
    }
    let value = |located: Option<Located<PathBuf>>| located.map(|found| found.value);
    let tls = tls.then(|| TlsOptions { ca_file: value(ca), client: value(cert).zip(value(key)) });
    Some(HubAddress { host, port, tls, login: user.map(|user| user.value).zip(value(password)) })
}

fn enrol(section: &mut Section<'_>, hub: Option<&HubAddress>, problems: &mut Problems) -> Option<EnrolUrl> {
    let url = section.checked("enrol", problems, str::parse::<EnrolUrl>)?;
    let tls = hub.and_then(|hub| hub.tls.as_ref());
    if hub.is_some() && !tls.is_some_and(|tls| tls.client.is_some() && tls.ca_file.is_some()) {
        problems.push(url.problem("renews a certificate: write ca_file, cert_file and key_file beside it"));
    }
    Some(url.value)
}

fn outbox(section: &mut Section<'_>, problems: &mut Problems) -> OutboxOptions {
    let size = section.size("outbox_max", problems);
    if let Some(size) = size.as_ref().filter(|size| size.value < OUTBOX_MIN) {
        problems.push(size.problem("must be at least 16MiB"));
    }
    let policy = section.checked("when_full", problems, |text| match text {
        "stop-accepting" => Ok(WhenFull::StopAccepting),
        "drop-oldest" => Ok(WhenFull::DropOldest),
        _ => Err("must be \"stop-accepting\" or \"drop-oldest\"".into()),
    });
    OutboxOptions {
        agent: String::new(), // known when the node is
        bytes_max: size.map_or(OUTBOX_MAX, |size| size.value),
        when_full: policy.map_or(WhenFull::StopAccepting, |policy| policy.value),
    }
}

/// Warns of points that two devices read from one place.
fn warn_across_devices(devices: &[DeviceConfig], problems: &mut Problems) {
    let mut first: HashMap<(&str, &str, DataType), (&DeviceConfig, &PointConfig)> = HashMap::new();
    for device in devices {
        let Some(source) = &device.source else { continue };
        for point in &device.points {
            let key = (source.as_str(), point.address.trim(), point.raw_type);
            match first.get(&key) {
                Some((other, its)) if other.name != device.name => problems.warn(Problem {
                    file: device.points_file.clone(),
                    line: point.line,
                    key: format!("{}: address", device.name),
                    value: point.address.clone(),
                    rule: format!("is read by device {} too, as {}", other.name, its.definition.metric),
                }),
                Some(_) => {}
                None => {
                    first.insert(key, (device, point));
                }
            }
        }
    }
}

/// Rules between devices: paths are unique, the numbers are bounded, a birth fits one packet.
fn across_devices(file: &Path, devices: &[DeviceConfig], problems: &mut Problems) {
    let mut paths: HashMap<&str, &str> = HashMap::new();
    for device in devices {
        let mut birth_bytes = 0;
        for point in &device.points {
            let definition = &point.definition;
            birth_bytes += BIRTH_BYTES_PER_POINT
                + definition.path.as_str().len()
                + definition.metric.len()
                + definition.description.len();
            if let Some(other) = paths.insert(definition.path.as_str(), &device.name)
                && other != device.name
            {
                problems.push(Problem {
                    file: file.to_owned(),
                    line: point.line,
                    key: format!("{}: path", device.name),
                    value: definition.path.to_string(),
                    rule: format!("is already a path of device {other}"),
                });
            }
        }
        if birth_bytes > MQTT_PACKET_BYTES_MAX {
            problems.push(Problem {
                file: file.to_owned(),
                line: 0,
                key: format!("{}: points", device.name),
                value: device.points.len().to_string(),
                rule: format!("their birth would be {birth_bytes} bytes, above {MQTT_PACKET_BYTES_MAX}; split the device"),
            });
        }
    }
    let count: usize = devices.iter().map(|device| device.points.len()).sum();
    if count > AGENT_POINTS_MAX {
        problems.push(Problem {
            file: file.to_owned(),
            line: 0,
            key: "edge.devices".into(),
            value: count.to_string(),
            rule: format!("one agent has at most {AGENT_POINTS_MAX} points; use several agents"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config_file::ConfigFile;

    fn check(toml: &str, lists: &[(&str, &str)]) -> (Option<Config>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in lists {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let file = ConfigFile::from_text(&dir.path().join("plant.toml"), toml.to_owned());
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
        let edge = root.section("edge", &mut problems).unwrap();
        let config = validate(edge, &plant, &mut problems);
        let prefix = format!("{}/", dir.path().display());
        (config, problems.list.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
    }

    const LIST: &str = "name,address,type\na,sine(period=5s),f64\n";

    #[test]
    fn a_small_configuration_has_its_defaults() {
        let (config, problems) = check(
            "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"data\"\nhub = \"mqtt://127.0.0.1:1884\"\n\
             [[edge.devices]]\nname = \"d\"\ndriver = \"simulated\"\npoints = \"d.csv\"\npoll = \"4s\"\n",
            &[("d.csv", LIST)],
        );
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        assert!(config.data_dir.ends_with("data") && config.primary_host && !config.commands_enabled);
        assert_eq!((config.hub.port, config.host_id.as_str()), (1884, "forebay"));
        let device = &config.devices[0];
        assert_eq!((device.stale_after, device.stale_without_data), (Duration::from_secs(12), false));
        assert_eq!(device.points[0].definition.path.as_str(), "d/a");
    }

    #[test]
    fn every_mistake_is_reported_in_one_run() {
        let (config, problems) = check(
            "[edge]\ngroup = \"a/b\"\nhub = \"http://x\"\nuser = \"u\"\noutbox_max = \"1MB\"\nwhen_full = \"panic\"\n\
             histroy_rate = 5\ndata_dir = \"data\"\n\
             [[edge.devices]]\nname = \"d\"\ndriver = \"modbsu\"\npoints = \"d.csv\"\n\
             [[edge.devices]]\nname = \"d\"\ndriver = \"simulated\"\npoints = \"missing.csv\"\npoll = \"5\"\n\
             [[edge.devices]]\nname = \"e\"\ndriver = \"simulated\"\npoints = \"e.csv\"\nstale_after = \"1s\"\npoll = \"2s\"\nadress = 1\n",
            &[("d.csv", LIST), ("e.csv", "name,address,type\nx,circle(),f64\ny,sine(),i128\n")],
        );
        assert!(config.is_none());
        let found = problems.join("\n");
        for expected in [
            "plant.toml:2: edge.group = \"a/b\": must not contain '/'",
            "plant.toml:1: edge.node: is missing",
            "plant.toml:4: edge.user = \"u\": password_file is missing beside it",
            "plant.toml:3: edge.hub = \"http://x\": must be mqtt://",
            "plant.toml:5: edge.outbox_max = \"1MB\": must be at least 16MiB",
            "plant.toml:6: edge.when_full = \"panic\": must be",
            "plant.toml:7: edge.histroy_rate = 5: unknown key",
            "plant.toml:11: edge.devices[1].driver = \"modbsu\": there is no such driver; known: ",
            "plant.toml:14: edge.devices[2].name = \"d\": is already the name of the device in line 9",
            "plant.toml:17: edge.devices[2].poll = \"5\": must be a duration",
            "points = \"missing.csv\": cannot be read",
            "plant.toml:22: edge.devices[3].stale_after = \"1s\": must not be shorter than poll",
            "e.csv:3: type = i128: must be one of",
            "e.csv:2: address = circle()",
            "plant.toml:24: edge.devices[3].adress = 1: unknown key",
        ] {
            assert!(found.contains(expected), "{expected}\nnot in\n{found}");
        }
    }

    #[test]
    fn renewal_needs_what_is_renewed() {
        let text = |enrol: &str| {
            format!(
                "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"d\"\nhub = \"mqtts://h\"\n{enrol}\
                 [[edge.devices]]\nname = \"d\"\ndriver = \"simulated\"\npoints = \"d.csv\"\n"
            )
        };
        let files = "ca_file = \"ca.crt\"\ncert_file = \"agent.pem\"\nkey_file = \"agent.pem\"\n";
        let (config, problems) = check(&text(&format!("enrol = \"https://h\"\n{files}")), &[("d.csv", LIST)]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(config.unwrap().enrol.unwrap().port, 8884);
        let (_, problems) = check(&text("enrol = \"https://h\"\n"), &[("d.csv", LIST)]);
        assert!(problems[0].contains("write ca_file"), "{problems:?}");
        let (_, problems) = check(&text(&format!("enrol = \"http://h\"\n{files}")), &[("d.csv", LIST)]);
        assert!(problems[0].contains("must be https://"), "{problems:?}");
    }

    #[test]
    fn what_two_devices_read_twice_is_told() {
        let device = |name: &str, unit: u8| {
            format!(
                "[[edge.devices]]\nname = \"{name}\"\ndriver = \"modbus-tcp\"\naddress = \"h\"\nunit = {unit}\npoints = \"l.csv\"\n"
            )
        };
        let text = format!("{EDGE}{}{}{}", device("x", 1), device("y", 2), device("z", 1));
        let list = "name,address,type,unit\na,hr:1,uint16,furlong\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("l.csv"), list).unwrap();
        let file = ConfigFile::from_text(&dir.path().join("plant.toml"), text);
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
        let edge = root.section("edge", &mut problems).unwrap();
        assert!(
            validate(edge, &plant, &mut problems).is_some(),
            "warnings refuse nothing: {:?}",
            problems.list
        );
        let found: Vec<String> = problems.sorted().iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(found.len(), 2, "a list that serves three devices is complained of once: {found:?}");
        assert!(
            found[0]
                .ends_with("unit = furlong: is no UCUM unit; a text of your own goes in braces: {furlong}"),
            "{found:?}"
        );
        assert!(found[1].ends_with("l.csv:2: z: address = hr:1: is read by device x too, as a"), "{found:?}");
    }

    #[test]
    fn two_devices_cannot_share_a_path() {
        let list = "name,address,type,path\na,sine(),f64,hall/a\n";
        let device = |name: &str| {
            format!("[[edge.devices]]\nname = \"{name}\"\ndriver = \"simulated\"\npoints = \"{name}.csv\"\n")
        };
        let text = format!(
            "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"d\"\nhub = \"mqtt://h\"\n{}{}",
            device("x"),
            device("y")
        );
        let (_, problems) = check(&text, &[("x.csv", list), ("y.csv", list)]);
        assert_eq!(problems, ["plant.toml:2: y: path = hall/a: is already a path of device x"]);
    }

    const EDGE: &str = "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"d\"\nhub = \"mqtt://h\"\n";

    #[test]
    fn one_list_serves_many_devices_and_has_poll_groups() {
        let list = "name,address,type,unit,path,group\n\
                    speed,\"sine(mean={n*10+5})\",f64,{rpm}/min,hall-{hall}/press-{n}/speed,fast\n\
                    wear,sine(),f64,,hall-{hall}/press-{n}/wear,\n";
        let device = |n: u32| {
            format!(
                "[[edge.devices]]\nname = \"press-{n}\"\ndriver = \"simulated\"\npoints = \"press.csv\"\n\
                 parameters = {{ n = {n}, hall = \"A\" }}\npoll = \"20s\"\ngroups = {{ fast = \"100ms\", never = \"1s\" }}\n"
            )
        };
        let text = format!("{EDGE}{}{}", device(1), device(2));
        let (config, problems) = check(&text, &[("press.csv", list)]);
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        let press = &config.devices[1];
        assert_eq!(press.points[0].definition.path.as_str(), "hall-A/press-2/speed");
        assert_eq!(
            (press.points[0].address.as_str(), press.points[0].definition.unit.as_str()),
            ("sine(mean=25)", "{rpm}/min")
        );
        assert_eq!((press.points[0].group, press.points[1].group), (1, 0));
        let polls = [(0, Duration::from_secs(20)), (1, Duration::from_millis(100))];
        assert_eq!(press.polls(), polls, "a group without points is not polled");
        assert_eq!(press.stale_after, Duration::from_secs(5), "by the fastest group");
    }

    #[test]
    fn mistakes_in_templates_and_groups_are_named() {
        let (_, problems) = check(
            &format!(
                "{EDGE}[[edge.devices]]\nname = \"d\"\ndriver = \"simulated\"\npoints = \"d.csv\"\n\
                 parameters = {{ n = true, m = 1 }}\ngroups = {{ fast = \"1ms\" }}\nrequests_per_second = 5\n\
                 [[edge.devices]]\nname = \"e\"\ndriver = \"simulated\"\npoints = \"e.csv\"\nprofile = \"sdm\"\n"
            ),
            &[("d.csv", "name,address,type,group\na{k},sine(),f64,slow\n"), ("e.csv", LIST)],
        );
        let found = problems.join("\n");
        for expected in [
            "edge.devices[1].parameters.n = true: must be a text in quotes or a number",
            "edge.devices[1].groups = { fast = \"1ms\" }: fast must be from 10ms",
            "d.csv:2: name = a{k}: {k} is no parameter of the device; known: m",
            "d.csv:2: group = slow: is no group of the device; known: none",
            "edge.devices[2].profile = \"sdm\": there is no such profile; known: ",
        ] {
            assert!(found.contains(expected), "{expected}\nnot in\n{found}");
        }
        let (_, problems) = check(
            &format!(
                "{EDGE}[[edge.devices]]\nname = \"d\"\ndriver = \"simulated\"\npoints = \"d.csv\"\nrequests_per_second = 5\n"
            ),
            &[("d.csv", LIST)],
        );
        assert!(problems[0].contains("has no meaning for the driver simulated"), "{problems:?}");
    }
}
