//! The sections `[hub.broker]`, `[hub.tls]` and `[hub.enrol]`: whose broker it is, where it listens, how much it takes.
//!
//! ```toml
//! [hub.broker]
//! listen = "127.0.0.1:1883"            # plain MQTT, loopback only
//! anonymous_read = false               # of `listen`
//! access_file = "hub/access.toml"
//! sparkplug_aware = false
//! [[hub.broker.listeners]]
//! listen = "0.0.0.0:8883"
//! protocol = "mqtt"                    # or "websocket"
//! tls = true                           # false only on loopback
//! client_certificate = "optional"      # or "none", "required"
//! anonymous_read = false
//! [hub.broker.limits]                  # see Limits
//! [hub.tls]                            # default: {data_dir}/tls/{hub.crt,hub.key,ca.crt}
//! cert_file = "…"
//! key_file = "…"
//! client_ca_file = "…"
//! [hub.enrol]
//! listen = "0.0.0.0:8884"
//! ```
//! Pure, like the rest of the configuration; every mistake is told in one run.

mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use runtime::config_file::{Located, Problems, Section};
use runtime::mqtt_client::parse_url;

pub use limits::Limits;

/// Loopback: other machines are served by listeners with TLS.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// More listeners than a plant has networks are a mistake.
const LISTENERS_MAX: usize = 64;

/// Whose broker it is.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// The hub's own.
    Embedded(EmbeddedBroker),
    /// Another one, of which the hub is a client.
    Outside(OutsideBroker),
}

/// The hub's own broker.
#[derive(Clone, Debug)]
pub struct EmbeddedBroker {
    /// The listener of this machine: plain MQTT on a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether clients of `listen` without a login may read everything (they can never write).
    pub anonymous_read: bool,
    /// Who may log in, and what they may do. Made with comments if it is not there.
    pub access_file: PathBuf,
    /// Whether births are kept under `$sparkplug/certificates/` and NDEATHs get their time (Sparkplug 3.0, §10).
    pub sparkplug_aware: bool,
    /// Further listeners.
    pub listeners: Vec<Listener>,
    /// How much it takes.
    pub limits: Limits,
    /// Certificates of every listener with TLS.
    pub tls: TlsFiles,
    /// Where agents ask for their first certificate (TLS); none: enrolment is off.
    pub enrol: Option<SocketAddr>,
}

/// A further listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Whether under TLS; without, the address is a loopback one.
    pub tls: bool,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificates,
    /// Whether its clients without a login may read everything.
    pub anonymous_read: bool,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT on the bare stream.
    Mqtt,
    /// MQTT in WebSocket frames [MQTT-6.0.0-1].
    WebSocket,
}

/// What a listener with TLS asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    None,
    /// A certificate that the client CA signed, or a password or token.
    Optional,
    /// A certificate that the client CA signed; without, the handshake fails.
    Required,
}

/// PEM files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The hub's certificate, then those between it and the CA.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// The CAs whose client certificates count.
    pub client_ca_file: PathBuf,
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

impl EmbeddedBroker {
    /// The broker of a hub whose file says nothing about it.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        EmbeddedBroker {
            listen: LISTEN,
            anonymous_read: false,
            access_file: data_dir.join("access.toml"),
            sparkplug_aware: false,
            listeners: Vec::new(),
            limits: Limits::default(),
            tls: TlsFiles::of(data_dir),
            enrol: None,
        }
    }
}

impl TlsFiles {
    /// Where `forebay cert init` writes them.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let folder = data_dir.join("tls");
        TlsFiles {
            cert_file: folder.join("hub.crt"),
            key_file: folder.join("hub.key"),
            client_ca_file: folder.join("ca.crt"),
        }
    }
}

/// Reads the three sections of `[hub]`. `data_dir` is none if it is missing, which is a problem told elsewhere.
pub(super) fn broker(
    hub: &mut Section<'_>,
    data_dir: Option<&Path>,
    problems: &mut Problems,
) -> Option<BrokerConfig> {
    let data_dir = data_dir.unwrap_or(Path::new("."));
    let section = hub.section("broker", problems);
    let mut tls = hub.section("tls", problems);
    let mut enrol = hub.section("enrol", problems);
    let Some(mut section) = section else {
        let own = EmbeddedBroker::of(data_dir);
        return Some(BrokerConfig::Embedded(with_tls(own, tls, enrol, problems)));
    };
    let config = if section.has("url") {
        for (unused, name) in [(tls.take(), "tls"), (enrol.take(), "enrol")] {
            if unused.is_some() {
                problems.push(hub.problem(
                    name,
                    "belongs to the hub's own broker; [hub.broker] url names another one, which has its own files",
                ));
            }
        }
        outside(&mut section, problems).map(BrokerConfig::Outside)
    } else {
        let own = embedded(&mut section, data_dir, problems);
        Some(BrokerConfig::Embedded(with_tls(own, tls, enrol, problems)))
    };
    section.finish(problems);
    config
}

fn embedded(section: &mut Section<'_>, data_dir: &Path, problems: &mut Problems) -> EmbeddedBroker {
    let mut own = EmbeddedBroker::of(data_dir);
    let listen = super::listen(section, problems, LISTEN);
    if let Some(found) = &listen
        && !found.value.ip().is_loopback()
    {
        problems.push(found.problem(
            "must be a loopback address such as \"127.0.0.1:1883\"; other machines are served through a listener \
             with TLS: [[hub.broker.listeners]] listen = \"0.0.0.0:8883\"",
        ));
    }
    own.listen = listen.map_or(LISTEN, |l| l.value);
    own.anonymous_read = section.boolean("anonymous_read", problems).is_some_and(|l| l.value);
    if let Some(path) = section.path("access_file", problems) {
        own.access_file = path.value;
    }
    own.sparkplug_aware = section.boolean("sparkplug_aware", problems).is_some_and(|l| l.value);
    if let Some(user) = section.sections("users", problems).first() {
        problems.push(user.problem(
            "",
            "logins are kept in the access file now: `forebay user add NAME --node GROUP/NODE --role agent` for an \
             agent, `forebay user add NAME --role reader` for a reader; then delete these lines",
        ));
    }
    own.listeners = listeners(section, own.listen, problems);
    if let Some(limits) = section.section("limits", problems) {
        own.limits = Limits::read(limits, problems);
    }
    own
}

fn listeners(section: &mut Section<'_>, first: SocketAddr, problems: &mut Problems) -> Vec<Listener> {
    let mut all: Vec<Listener> = Vec::new();
    for mut entry in section.sections("listeners", problems) {
        if let Some((listener, found)) = listener(&mut entry, problems) {
            let taken = std::iter::once(first).chain(all.iter().map(|other| other.listen));
            if listener.listen.port() != 0 && taken.into_iter().any(|other| other == listener.listen) {
                problems.push(found.problem("is the address of two listeners"));
            }
            if all.len() == LISTENERS_MAX {
                problems.push(found.problem(format!("is one listener too many: at most {LISTENERS_MAX}")));
            }
            all.push(listener);
        }
        entry.finish(problems);
    }
    all
}

fn listener(entry: &mut Section<'_>, problems: &mut Problems) -> Option<(Listener, Located<SocketAddr>)> {
    const EXAMPLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8883);
    if !entry.has("listen") {
        problems
            .push(entry.problem("listen", format!("is missing; write ADDRESS:PORT such as \"{EXAMPLE}\"")));
    }
    let listen = super::listen(entry, problems, EXAMPLE);
    let protocol = entry.checked("protocol", problems, |text| match text {
        "mqtt" => Ok(Protocol::Mqtt),
        "websocket" => Ok(Protocol::WebSocket),
        _ => Err("must be \"mqtt\" or \"websocket\"".into()),
    });
    let tls = entry.boolean("tls", problems);
    let client_certificate = entry.checked("client_certificate", problems, |text| match text {
        "none" => Ok(ClientCertificates::None),
        "optional" => Ok(ClientCertificates::Optional),
        "required" => Ok(ClientCertificates::Required),
        _ => Err("must be \"none\", \"optional\" or \"required\"".into()),
    });
    let anonymous_read = entry.boolean("anonymous_read", problems);
    let has_tls = tls.as_ref().is_none_or(|found| found.value);
    if let (Some(tls), Some(listen)) = (&tls, &listen)
        && !has_tls
        && !listen.value.ip().is_loopback()
    {
        problems.push(tls.problem(
            "is for loopback addresses only: passwords and values would cross the network readable and changeable",
        ));
    }
    if let Some(found) = &client_certificate
        && !has_tls
        && found.value != ClientCertificates::None
    {
        problems.push(found.problem("needs tls = true"));
    }
    if let (Some(anonymous), Some(certificate)) = (&anonymous_read, &client_certificate)
        && anonymous.value
        && certificate.value == ClientCertificates::Required
    {
        problems.push(anonymous.problem("contradicts client_certificate = \"required\""));
    }
    let listen = listen?;
    let by_default = if has_tls { ClientCertificates::Optional } else { ClientCertificates::None };
    let listener = Listener {
        listen: listen.value,
        protocol: protocol.map_or(Protocol::Mqtt, |l| l.value),
        tls: has_tls,
        client_certificate: client_certificate.map_or(by_default, |l| l.value),
        anonymous_read: anonymous_read.is_some_and(|l| l.value),
    };
    Some((listener, listen))
}

fn with_tls(
    mut own: EmbeddedBroker,
    tls: Option<Section<'_>>,
    enrol: Option<Section<'_>>,
    problems: &mut Problems,
) -> EmbeddedBroker {
    if let Some(mut section) = tls {
        if section.has("cert_file") != section.has("key_file") {
            problems.push(
                section.problem("cert_file", "cert_file and key_file belong together: write both or none"),
            );
        }
        for (key, file) in [
            ("cert_file", &mut own.tls.cert_file),
            ("key_file", &mut own.tls.key_file),
            ("client_ca_file", &mut own.tls.client_ca_file),
        ] {
            if let Some(found) = section.path(key, problems) {
                *file = found.value;
            }
        }
        section.finish(problems);
    }
    if let Some(mut section) = enrol {
        const EXAMPLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8884);
        if !section.has("listen") {
            problems.push(
                section.problem("listen", format!("is missing; write ADDRESS:PORT such as \"{EXAMPLE}\"")),
            );
        }
        own.enrol = super::listen(&mut section, problems, EXAMPLE).map(|l| l.value);
        section.finish(problems);
    }
    own
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

#[cfg(test)]
mod tests;
