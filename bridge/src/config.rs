//! The `[bridge]` section: which hub, which sinks. Pure: reads no file but the one it is given, and opens nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use runtime::config_file::{PlantNames, Problems, Section};
use url::Url;

use crate::Pace;
use crate::sinks::{KINDS, Sink};

/// Rows of a commit: a file of some megabytes, and some tens of megabytes of memory while it grows.
const MAX_ROWS_DEFAULT: i64 = 500_000;

/// Bytes of a commit's rows in memory: bounds batches of long texts.
const MAX_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Age of the oldest row when a commit is made: how late the table may be.
const MAX_WAIT_DEFAULT: Duration = Duration::from_secs(5);

/// Sinks of one bridge: each has its own loop and memory.
const SINKS_MAX: usize = 32;

/// What a bridge does.
pub struct Config {
    /// The hub's address.
    pub hub: Url,
    /// File with the hub's token; read when a connection is made.
    pub token_file: Option<PathBuf>,
    /// At least one, names distinct.
    pub sinks: Vec<SinkConfig>,
}

/// One sink and the bounds of its commits.
pub struct SinkConfig {
    /// Part of the cursor's name in the target: a new name is a new cursor.
    pub name: String,
    /// The kind's name.
    pub kind: &'static str,
    /// The sink, not opened.
    pub sink: Box<dyn Sink>,
    /// Rows per commit.
    pub max_rows: usize,
    /// Bytes of rows in memory per commit.
    pub max_bytes: usize,
    /// Age of the oldest row of a commit.
    pub max_wait: Duration,
    /// How fast it tries again, and when its trouble is an alarm.
    pub pace: Pace,
}

/// Reads the section; every mistake is pushed, and there is a configuration only if there was none.
///
/// The plant's names are not needed: the hub says in its feed which site its rows are of.
pub fn validate(mut section: Section<'_>, _plant: &PlantNames, problems: &mut Problems) -> Option<Config> {
    let before = problems.list.len();
    let hub = match section.required_text("hub", problems) {
        None => None,
        Some(found) => match hub_url(&found.value) {
            Ok(url) => Some(url),
            Err(rule) => {
                problems.push(found.problem(rule));
                None
            }
        },
    };
    let token_file = section.path("token_file", problems).map(|found| found.value);
    let mut sinks = Vec::new();
    let mut names = BTreeSet::new();
    let tables = section.sections("sinks", problems);
    if tables.is_empty() {
        problems.push(section.problem("sinks", "is missing; write at least one [[bridge.sinks]]"));
    }
    if tables.len() > SINKS_MAX {
        problems.push(section.problem("sinks", format!("must not be more than {SINKS_MAX}")));
    }
    for table in tables {
        sinks.extend(sink(table, &mut names, problems));
    }
    section.finish(problems);
    (problems.list.len() == before).then_some(())?;
    Some(Config { hub: hub?, token_file, sinks })
}

fn hub_url(text: &str) -> Result<Url, String> {
    const RULE: &str = "must be http://HOST[:PORT] or https://HOST[:PORT]";
    let mut url = Url::parse(text).map_err(|_| RULE)?;
    let has_extras = url.query().is_some() || url.fragment().is_some() || !url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || has_extras {
        return Err(RULE.to_owned());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn sink(
    mut section: Section<'_>,
    names: &mut BTreeSet<String>,
    problems: &mut Problems,
) -> Option<SinkConfig> {
    let name = section.required_text("name", problems).and_then(|found| {
        let rule = if found.value.is_empty() || found.value.len() > 64 {
            "must have 1 to 64 bytes"
        } else if found.value.contains('/') || found.value.contains(char::is_control) {
            "must not contain \"/\" or control characters"
        } else if !names.insert(found.value.clone()) {
            "is the name of another sink too; names are cursors and must differ"
        } else {
            return Some(found.value);
        };
        problems.push(found.problem(rule));
        None
    });
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let kind = section.required_text("kind", problems).and_then(|found| {
        let kind = KINDS.iter().find(|kind| kind.name == found.value);
        if kind.is_none() {
            problems.push(found.problem(format!("must be one of: {}", known.join(", "))));
        }
        kind
    });
    let max_rows =
        section.integer("max_rows", problems, 1..=10_000_000).map_or(MAX_ROWS_DEFAULT, |f| f.value);
    let max_bytes = match section.size("max_bytes", problems) {
        Some(found) if !(1 << 20..=1 << 30).contains(&found.value) => {
            problems.push(found.problem("must be from 1MiB to 1GiB"));
            MAX_BYTES_DEFAULT
        }
        found => found.map_or(MAX_BYTES_DEFAULT, |f| f.value),
    };
    let wait_range = Duration::from_millis(100)..=Duration::from_secs(3600);
    let max_wait = section.duration("max_wait", problems, wait_range).map_or(MAX_WAIT_DEFAULT, |f| f.value);
    // Without a kind, the kind's own keys would all be reported as unknown.
    let kind = kind?;
    let sink = (kind.validate)(&mut section, problems);
    section.finish(problems);
    Some(SinkConfig {
        pace: Pace::default(),
        name: name?,
        kind: kind.name,
        sink: sink?,
        max_rows: usize::try_from(max_rows).ok()?,
        max_bytes: usize::try_from(max_bytes).ok()?,
        max_wait,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::config_file::ConfigFile;

    use super::*;

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let file = ConfigFile::from_text(Path::new("/etc/plant.toml"), text.to_owned());
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        let section = root.section("bridge", &mut problems).unwrap();
        let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
        let config = validate(section, &plant, &mut problems);
        (config, problems.list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_good_section_is_read() {
        let (config, problems) = read(
            "[bridge]\nhub = \"http://127.0.0.1:8080\"\ntoken_file = \"token\"\n\
             [[bridge.sinks]]\nname = \"lake\"\nkind = \"delta\"\npath = \"/data/lake\"\nmax_wait = \"2s\"\n\
             [[bridge.sinks]]\nname = \"files\"\nkind = \"parquet\"\npath = \"files\"\nmax_rows = 5\nmax_bytes = \"2MiB\"\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.hub.as_str(), "http://127.0.0.1:8080/");
        assert_eq!(config.token_file.as_deref(), Some(Path::new("/etc/token")));
        let sinks: Vec<_> =
            config.sinks.iter().map(|s| (&*s.name, s.kind, s.max_rows, s.max_bytes)).collect();
        assert_eq!(sinks, [("lake", "delta", 500_000, 64 << 20), ("files", "parquet", 5, 2 << 20)]);
        assert_eq!(config.sinks[0].max_wait, Duration::from_secs(2));
    }

    #[test]
    fn every_mistake_is_reported() {
        let (config, problems) = read(
            "[bridge]\nhub = \"ftp://x\"\ntoken = \"x\"\n\
             [[bridge.sinks]]\nname = \"a/b\"\nkind = \"iceberg\"\n\
             [[bridge.sinks]]\nname = \"b\"\nkind = \"delta\"\npath = \"s3://bucket/x\"\nregion = \"EU\"\nmax_rows = 0\n\
             [[bridge.sinks]]\nname = \"b\"\nkind = \"parquet\"\nmax_bytes = \"1\"\nmax_wait = \"1ms\"\nwhat = 1\n",
        );
        assert!(config.is_none());
        assert_eq!(
            problems,
            [
                "/etc/plant.toml:2: bridge.hub = \"ftp://x\": must be http://HOST[:PORT] or https://HOST[:PORT]",
                "/etc/plant.toml:5: bridge.sinks[1].name = \"a/b\": must not contain \"/\" or control characters",
                "/etc/plant.toml:6: bridge.sinks[1].kind = \"iceberg\": must be one of: delta, parquet",
                "/etc/plant.toml:12: bridge.sinks[2].max_rows = 0: must be a whole number from 1 to 10000000",
                "/etc/plant.toml:11: bridge.sinks[2].region = \"EU\": must be a region's name such as eu-central-1",
                "/etc/plant.toml:14: bridge.sinks[3].name = \"b\": is the name of another sink too; names are cursors and must differ",
                "/etc/plant.toml:16: bridge.sinks[3].max_bytes = \"1\": must be from 1MiB to 1GiB",
                "/etc/plant.toml:17: bridge.sinks[3].max_wait = \"1ms\": must be from 100ms to 3600s",
                "/etc/plant.toml:13: bridge.sinks[3].path: is missing; write the table's folder",
                "/etc/plant.toml:18: bridge.sinks[3].what = 1: unknown key; known here: kind, max_bytes, max_rows, max_wait, name, path",
                "/etc/plant.toml:3: bridge.token = \"x\": unknown key; known here: hub, sinks, token_file",
            ]
        );
        let (_, problems) = read("[bridge]\n");
        assert_eq!(problems.len(), 2);
    }
}
