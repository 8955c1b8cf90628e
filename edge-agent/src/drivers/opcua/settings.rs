//! The keys of an OPC UA device, and what they are when nobody says.

use std::path::PathBuf;
use std::time::Duration;

use opcua::crypto::SecurityPolicy;
use opcua::types::MessageSecurityMode;
use runtime::config_file::{Located, Problems, Section};

use super::address::{INTERVAL_RANGE, QUEUE_RANGE, ServerBand, Watch, band};
use crate::drivers::DeviceSetup;

/// A server on a PLC answers within tens of milliseconds; this is for its worst day, and below the shortest `stale_after`.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A server without changes says so often that it is still publishing.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const PUBLISHING: Duration = Duration::from_millis(500);
/// Changes between two publishes that are kept: at the default sampling there is one; bursts have some room.
const QUEUE: u32 = 10;

/// What the connection must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Security {
    /// The safest that the endpoint offers, never none.
    Best,
    /// Nothing is signed nor encrypted.
    None,
    /// Exactly this.
    Exactly(SecurityPolicy, MessageSecurityMode),
}

/// Who logs in.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Anonymous,
    /// User, and the file with the password; read at each connection.
    Password(String, PathBuf),
    /// Certificate and key files.
    Certificate(PathBuf, PathBuf),
}

/// How values come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Subscribe,
    Read,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) security: Security,
    pub(super) login: Login,
    pub(super) timeout: Duration,
    pub(super) keep_alive: Duration,
    pub(super) mode: Mode,
    pub(super) publishing: Duration,
    /// The sampling interval, queue and band of points that say nothing.
    pub(super) sampling: Option<Duration>,
    pub(super) queue: u32,
    pub(super) band: Option<ServerBand>,
    pub(super) history: bool,
    /// Whether points may be methods that commands call.
    pub(super) methods: bool,
    pub(super) pki: PathBuf,
    pub(super) device: String,
}

impl Settings {
    pub(super) fn read(
        section: &mut Section<'_>,
        setup: &DeviceSetup,
        problems: &mut Problems,
    ) -> Option<Settings> {
        if !section.has("url") {
            problems.push(section.problem("url", "is missing; write \"opc.tcp://host:4840\""));
        }
        let url = section.checked("url", problems, parse_url);
        let security = section.checked("security", problems, parse_security);
        let login = login(section, problems);
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        let timeout = section.duration("timeout", problems, range.clone());
        let keep_alive = section.duration("keep_alive", problems, range);
        let mode = section.checked("mode", problems, |text| match text {
            "subscribe" => Ok(Mode::Subscribe),
            "read" => Ok(Mode::Read),
            _ => Err("must be \"subscribe\" or \"read\"".into()),
        });
        let publishing = section.duration("publishing_interval", problems, INTERVAL_RANGE);
        let sampling = section.duration("sampling_interval", problems, INTERVAL_RANGE);
        let queue = section.integer("queue_size", problems, QUEUE_RANGE);
        let band = section.checked("deadband", problems, band);
        let history = section.boolean("history", problems);
        let methods = section.boolean("methods", problems);
        let pki = section.path("pki_dir", problems);
        // One folder for the agent: it is one application, and an administrator of a server trusts it once.
        let own = setup
            .state_dir
            .parent()
            .map_or_else(|| setup.state_dir.clone(), |drivers| drivers.join("opcua-pki"));
        Some(Settings {
            url: url?.value,
            security: security.map_or(Security::Best, |found| found.value),
            login: login?,
            timeout: value_or(timeout, TIMEOUT),
            keep_alive: value_or(keep_alive, KEEP_ALIVE),
            mode: value_or(mode, Mode::Subscribe),
            publishing: value_or(publishing, PUBLISHING),
            sampling: sampling.map(|found| found.value),
            queue: queue.and_then(|found| u32::try_from(found.value).ok()).unwrap_or(QUEUE),
            band: band.map(|found| found.value),
            history: history.is_none_or(|found| found.value),
            methods: methods.is_some_and(|found| found.value),
            pki: value_or(pki, own),
            device: setup.name.clone(),
        })
    }

    /// A point's way to be watched, all of it said: publishing, sampling, queue, band.
    pub(super) fn watch(&self, watch: &Watch) -> (Duration, Duration, u32, Option<ServerBand>) {
        let publishing = watch.publishing.unwrap_or(self.publishing);
        let sampling = watch.sampling.or(self.sampling).unwrap_or(publishing);
        (publishing, sampling, watch.queue.unwrap_or(self.queue), watch.band.or(self.band))
    }
}

fn value_or<T>(found: Option<Located<T>>, default: T) -> T {
    found.map_or(default, |found| found.value)
}

/// `opc.tcp://host[:port][/path]`; the name is not looked up here.
pub(super) fn parse_url(text: &str) -> Result<String, String> {
    const RULE: &str = "must be \"opc.tcp://host:4840\", with a path if the server has one";
    let rest = text.strip_prefix("opc.tcp://").ok_or(RULE)?;
    let authority = rest.split('/').next().unwrap_or("");
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ => (authority, "4840"),
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || !is_port || text.contains(char::is_whitespace) || host.contains('@') {
        return Err(RULE.into());
    }
    Ok(text.to_owned())
}

/// `best`, `none`, `POLICY` (sign and encrypt) or `POLICY/Sign`.
pub(super) fn parse_security(text: &str) -> Result<Security, String> {
    let (policy, mode) = text.split_once('/').unwrap_or((text, "SignAndEncrypt"));
    let policy = match policy {
        "best" if policy == text => return Ok(Security::Best),
        "none" if policy == text => return Ok(Security::None),
        "Basic256Sha256" => SecurityPolicy::Basic256Sha256,
        "Aes128_Sha256_RsaOaep" => SecurityPolicy::Aes128Sha256RsaOaep,
        "Aes256_Sha256_RsaPss" => SecurityPolicy::Aes256Sha256RsaPss,
        _ => {
            return Err("must be \"best\", \"none\", or one of Basic256Sha256, Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss, \
                        then \"/Sign\" if it shall not be encrypted"
                .into());
        }
    };
    match mode {
        "SignAndEncrypt" => Ok(Security::Exactly(policy, MessageSecurityMode::SignAndEncrypt)),
        "Sign" => Ok(Security::Exactly(policy, MessageSecurityMode::Sign)),
        _ => Err("after the policy comes \"/Sign\" or \"/SignAndEncrypt\"".into()),
    }
}

fn login(section: &mut Section<'_>, problems: &mut Problems) -> Option<Login> {
    let user = section.text("user", problems);
    let password = section.path("password_file", problems);
    let (cert, key) = (section.path("user_cert_file", problems), section.path("user_key_file", problems));
    let before = problems.list.len();
    match (&user, &password) {
        (Some(one), None) => problems.push(one.problem("password_file is missing beside it")),
        (None, Some(one)) => problems.push(one.problem("user is missing beside it")),
        _ => {}
    }
    match (&cert, &key) {
        (Some(one), None) => problems.push(one.problem("user_key_file is missing beside it")),
        (None, Some(one)) => problems.push(one.problem("user_cert_file is missing beside it")),
        _ => {}
    }
    if let (Some(user), Some(_)) = (&user, &cert) {
        problems.push(user.problem("log in with a password or with user_cert_file, not with both"));
    }
    if problems.list.len() > before {
        return None;
    }
    Some(match (user.zip(password), cert.zip(key)) {
        (Some((user, file)), _) => Login::Password(user.value, file.value),
        (_, Some((cert, key))) => Login::Certificate(cert.value, key.value),
        _ => Login::Anonymous,
    })
}
