//! Where a table is: a folder of this machine, or a place in an object store (S3 and what speaks like it, Azure, Google).
//!
//! | written | place |
//! |---|---|
//! | `/data/lake`, `lake` | a folder |
//! | `s3://BUCKET/PATH` | S3; with `endpoint` MinIO, Ceph and others |
//! | `az://CONTAINER/PATH` with `account`, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH` | Azure |
//! | `gs://BUCKET/PATH` | Google Cloud Storage |
//!
//! Reading the configuration is pure. Credentials come from the environment, from the machine's role where the store's
//! library finds one, or from `credentials_file`, which is read at every opening, so that a new key needs no restart; they
//! are in no configuration, no error and no log line (`location/trouble.rs`).

pub(crate) mod trouble;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use runtime::config_file::{Problems, Section};
use url::Url;

use super::SinkError;

/// A request is tried again so often, with pauses that grow and vary; then the pump takes over, slower.
const RETRIES: usize = 4;
/// From a request's first try to its last.
const RETRY_WITHIN: Duration = Duration::from_secs(20);
/// One request: 8 MiB over a line of 1 Mbit/s.
const REQUEST_MAX: Duration = Duration::from_secs(80);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Keys that people write into a configuration, and that must not be there.
const SECRET_KEYS: [&str; 10] = [
    "access_key_id",
    "secret_access_key",
    "session_token",
    "account_key",
    "access_key",
    "sas_token",
    "client_secret",
    "service_account_key",
    "private_key",
    "password",
];

/// A place for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A place in an object store.
    Far(Box<Far>),
}

/// A place in an object store, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    cloud: Cloud,
    /// Ends with `/`.
    url: Url,
    /// Bucket or container.
    bucket: String,
    /// Azure's account.
    account: Option<String>,
    endpoint: Option<Url>,
    region: Option<String>,
    path_style: Option<bool>,
    credentials_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    S3,
    Azure,
    Google,
}

/// Why a text is no place.
const RULE: &str = "must be a folder, s3://BUCKET/PATH, az://CONTAINER/PATH, \
    abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH or gs://BUCKET/PATH; PATH of ASCII letters, digits and - _ . = /";

impl From<PathBuf> for Location {
    fn from(folder: PathBuf) -> Self {
        Location::Folder(folder)
    }
}

/// What a person writes on a command line; credentials come from the environment.
impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            Ok(Location::Far(Box::new(Far::of(text)?)))
        } else {
            Ok(Location::Folder(text.into()))
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(folder) => folder.display().fmt(f),
            Location::Far(far) => f.write_str(far.url.as_str().trim_end_matches('/')),
        }
    }
}

impl Location {
    /// The folder, if it is one of this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Location::Folder(folder) => Some(folder),
            Location::Far(_) => None,
        }
    }

    /// Reads the keys of a section; every mistake is pushed.
    pub(super) fn of_section(section: &mut Section<'_>, problems: &mut Problems) -> Option<Location> {
        let before = problems.list.len();
        for key in SECRET_KEYS {
            if section.keys().iter().any(|written| written == key) && section.has(key) {
                let rule = "must not be in this file: put it into a file of its own and name that as `credentials_file`";
                problems.push(section.problem(key, rule));
            }
        }
        let far = far_keys(section, problems);
        if !section.has("path") {
            problems.push(
                section
                    .problem("path", "is missing; write the table's folder, or its URL in an object store"),
            );
        }
        let found = section.path("path", problems)?;
        let written = found.text.trim_matches(['"', '\'']).to_owned();
        if !written.contains("://") {
            for key in far.written() {
                problems
                    .push(section.problem(key, "is for object stores; `path` is a folder of this machine"));
            }
            return (problems.list.len() == before).then_some(Location::Folder(found.value));
        }
        let mut place = match Far::of(&written) {
            Ok(place) => place,
            Err(rule) if written.contains(['?', '@']) => {
                problems.push(section.problem("path", rule)); // what follows may be a secret
                return None;
            }
            Err(rule) => {
                problems.push(found.problem(rule));
                return None;
            }
        };
        for (key, is_for, what) in [
            ("region", Cloud::S3, "s3://"),
            ("path_style", Cloud::S3, "s3://"),
            ("account", Cloud::Azure, "az://"),
        ] {
            if place.cloud != is_for && far.written().contains(&key) {
                problems.push(section.problem(key, format!("is for {what} only")));
            }
        }
        if place.account.is_some() && far.account.is_some() {
            problems.push(section.problem("account", "is in `path` already"));
        }
        place.account = place.account.or(far.account);
        place.endpoint = far.endpoint;
        place.region = far.region;
        place.path_style = far.path_style;
        place.credentials_file = far.credentials_file;
        (problems.list.len() == before).then(|| Location::Far(Box::new(place)))
    }
}

/// The keys beside `path`.
#[derive(Default)]
struct FarKeys {
    account: Option<String>,
    endpoint: Option<Url>,
    region: Option<String>,
    path_style: Option<bool>,
    credentials_file: Option<PathBuf>,
}

impl FarKeys {
    fn written(&self) -> Vec<&'static str> {
        let all = [
            ("account", self.account.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("path_style", self.path_style.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
        ];
        all.into_iter().filter_map(|(key, is_written)| is_written.then_some(key)).collect()
    }
}

fn far_keys(section: &mut Section<'_>, problems: &mut Problems) -> FarKeys {
    let plain = |rule: &'static str, max: usize| {
        move |text: &str| {
            let is_plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if text.is_empty() || text.len() > max || !is_plain {
                Err(rule.to_owned())
            } else {
                Ok(text.to_owned())
            }
        }
    };
    let account = "must be the storage account's name: 3 to 24 lower-case letters and digits";
    let region = "must be a region's name such as eu-central-1";
    FarKeys {
        account: section.checked("account", problems, plain(account, 24)).map(|f| f.value),
        endpoint: section.checked("endpoint", problems, endpoint).map(|f| f.value),
        region: section.checked("region", problems, plain(region, 64)).map(|f| f.value),
        path_style: section.boolean("path_style", problems).map(|f| f.value),
        credentials_file: section.path("credentials_file", problems).map(|f| f.value),
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    const RULE: &str = "must be http://HOST[:PORT] or https://HOST[:PORT], without user, password or query";
    let url = Url::parse(text).map_err(|_| RULE)?;
    let has_extras = url.query().is_some() || url.fragment().is_some() || !url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https")
        || url.host_str().is_none()
        || has_extras
        || url.password().is_some()
    {
        return Err(RULE.to_owned());
    }
    Ok(url)
}

impl Far {
    fn of(text: &str) -> Result<Far, String> {
        let (scheme, rest) = text.split_once("://").ok_or(RULE)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.=/".contains(&b);
        let path = path.trim_end_matches('/');
        let names_a_place =
            path.split('/').all(|part| !matches!(part, "." | "..") && (path.is_empty() || !part.is_empty()));
        if !path.bytes().all(is_plain) || !names_a_place {
            return Err(RULE.to_owned());
        }
        let (cloud, bucket, account) = match scheme {
            "s3" | "s3a" => (Cloud::S3, authority, None),
            "gs" => (Cloud::Google, authority, None),
            "az" => (Cloud::Azure, authority, None),
            "abfss" => {
                let (container, host) = authority.split_once('@').ok_or(RULE)?;
                let (account, domain) = host.split_once('.').ok_or(RULE)?;
                if domain != "dfs.core.windows.net" && domain != "blob.core.windows.net" || account.is_empty()
                {
                    return Err(RULE.to_owned());
                }
                (Cloud::Azure, container, Some(account.to_owned()))
            }
            _ => return Err(RULE.to_owned()),
        };
        let is_bucket = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_bucket) {
            return Err(format!(
                "{RULE}; BUCKET and CONTAINER of 3 to 63 lower-case letters, digits and - ."
            ));
        }
        let end = if path.is_empty() { "" } else { "/" };
        let url =
            Url::parse(&format!("{scheme}://{authority}/{path}{end}")).map_err(|error| error.to_string())?;
        Ok(Far {
            cloud,
            url,
            bucket: bucket.to_owned(),
            account,
            endpoint: None,
            region: None,
            path_style: None,
            credentials_file: None,
        })
    }

    /// The table's URL, as the table's log knows it; ends with `/`.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// A client of the bucket. Reads the credentials; asks nobody.
    pub(super) fn client(&self) -> Result<Arc<dyn ObjectStore>, SinkError> {
        let unavailable =
            |error: object_store::Error| trouble::unavailable(&format!("cannot reach {}", self.url), &error);
        match self.cloud {
            Cloud::S3 => self.s3()?.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
            Cloud::Azure => self.azure()?.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
            Cloud::Google => self.google()?.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        }
        .map_err(unavailable)
    }

    fn s3(&self) -> Result<AmazonS3Builder, SinkError> {
        let mut builder = match self.credential_lines()? {
            None => AmazonS3Builder::from_env(),
            Some(lines) => lines.apply(AmazonS3Builder::new(), |builder, key, value| {
                Some(builder.with_config(AmazonS3ConfigKey::from_str(key).ok()?, value))
            })?,
        };
        builder =
            builder.with_bucket_name(&self.bucket).with_retry(retry()).with_client_options(self.options());
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        if let Some(path_style) = self.path_style {
            builder = builder.with_virtual_hosted_style_request(!path_style);
        }
        Ok(builder)
    }

    fn azure(&self) -> Result<MicrosoftAzureBuilder, SinkError> {
        let mut builder = match self.credential_lines()? {
            None => MicrosoftAzureBuilder::from_env(),
            Some(lines) => lines.apply(MicrosoftAzureBuilder::new(), |builder, key, value| {
                Some(builder.with_config(AzureConfigKey::from_str(key).ok()?, value))
            })?,
        };
        builder =
            builder.with_container_name(&self.bucket).with_retry(retry()).with_client_options(self.options());
        if let Some(account) = &self.account {
            builder = builder.with_account(account);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
        }
        Ok(builder)
    }

    fn google(&self) -> Result<GoogleCloudStorageBuilder, SinkError> {
        let mut builder = match &self.credentials_file {
            None => GoogleCloudStorageBuilder::from_env(),
            Some(file) => {
                let text = read_credentials(file)?;
                let is_key = serde_json::from_str::<serde_json::Value>(&text)
                    .map_err(|_| {
                        unusable(
                            file,
                            "is no JSON; it must be a service account's key or application credentials",
                        )
                    })?
                    .get("private_key")
                    .is_some();
                let builder = GoogleCloudStorageBuilder::new();
                if is_key {
                    builder.with_service_account_key(text)
                } else {
                    builder.with_application_credentials(file.to_string_lossy())
                }
            }
        };
        builder =
            builder.with_bucket_name(&self.bucket).with_retry(retry()).with_client_options(self.options());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
        }
        Ok(builder)
    }

    fn options(&self) -> ClientOptions {
        let is_plain = self.endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
        ClientOptions::new()
            .with_timeout(REQUEST_MAX)
            .with_connect_timeout(CONNECT_MAX)
            .with_allow_http(is_plain || std::env::var("AWS_ALLOW_HTTP").is_ok_and(|text| text == "true"))
    }

    fn credential_lines(&self) -> Result<Option<CredentialLines<'_>>, SinkError> {
        let Some(file) = &self.credentials_file else { return Ok(None) };
        CredentialLines::of(file, &read_credentials(file)?).map(Some)
    }
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_WITHIN }
}

fn read_credentials(file: &Path) -> Result<String, SinkError> {
    std::fs::read_to_string(file).map_err(|error| {
        SinkError::unavailable(format!("cannot read credentials_file {}", file.display()), error)
    })
}

/// A file of credentials that is no such; without its text.
fn unusable(file: &Path, why: impl fmt::Display) -> SinkError {
    SinkError::unavailable("cannot use the credentials", format!("credentials_file {} {why}", file.display()))
}

/// `KEY = VALUE` lines: the names of the environment's variables, in either case, as in AWS's own file. A `[profile]` line
/// may stand before them; only one.
struct CredentialLines<'f> {
    file: &'f Path,
    /// Line number, key, value.
    lines: Vec<(usize, String, String)>,
}

impl<'f> CredentialLines<'f> {
    fn of(file: &'f Path, text: &str) -> Result<Self, SinkError> {
        let mut lines = Vec::new();
        let mut profiles = 0;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
                continue;
            }
            if line.starts_with('[') && line.ends_with(']') {
                profiles += 1;
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((key, value)) = line.split_once('=') else {
                return Err(unusable(file, format_args!("line {number}: must be KEY = VALUE")));
            };
            let value = value.trim().trim_matches(['"', '\'']);
            lines.push((number, key.trim().to_ascii_lowercase(), value.to_owned()));
        }
        match (profiles, lines.is_empty()) {
            (2.., _) => Err(unusable(file, "has more than one [profile]; give this sink a file of its own")),
            (_, true) => Err(unusable(file, "has no KEY = VALUE line")),
            _ => Ok(CredentialLines { file, lines }),
        }
    }

    /// Sets every key; an unknown one is an error that names it, not its value.
    fn apply<B>(self, builder: B, set: impl Fn(B, &str, String) -> Option<B>) -> Result<B, SinkError> {
        let mut builder = builder;
        for (number, key, value) in self.lines {
            builder = set(builder, &key, value).ok_or_else(|| {
                unusable(self.file, format_args!("line {number}: {key} is no setting of this store"))
            })?;
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests;
