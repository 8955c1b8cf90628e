//! Certificates for agents: the first by a one-time token, later ones by the present certificate.
//!
//! ```text
//! forebay agent add ─► identity in the access file, promise in {tls}/joins
//! forebay join ──token, request──► listener ─► service: promise good? identity allowed? ─► CA ─► certificate
//! agent ──certificate, request──►                        identity allowed, not before certificates_from?
//! ```
//! A listener of its own, off unless `[hub.enrol]` is written: TLS always, one request per connection, every size and
//! time bounded ([`listener`]). The CA's key lies in `{tls}/ca.key` and is read for each certificate; it never leaves
//! the hub, and agents' keys never come here. Who may have a certificate is decided by the access file alone, asked
//! at each request; what was issued is noted for people ([`IssuedFolder`]).

mod issued;
mod joins;
mod listener;
mod service;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, Timestamp};
use runtime::clock::Clock;
use runtime::pki::{Authority, CLIENT_VALIDITY, PkiError};
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use runtime::tls_server::{ClientCertificate, TlsError, TlsFiles, TlsServer, TlsStatus};
use tokio::net::TcpListener;

use crate::broker::access_file;
use crate::config::EmbeddedBroker;
use crate::config::broker::Protocol;

pub use issued::{IssuedFolder, IssuedTo};
pub use joins::{JOIN_VALIDITY, JOIN_VALIDITY_MAX, Join, JoinError, Joins, Made};
use service::Service;

/// What an identity may, as far as certificates are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Whether it may log in with a certificate.
    pub certificate: bool,
    /// Whether it may not log in at all.
    pub disabled: bool,
    /// Certificates from before are refused.
    pub certificates_from: Option<Timestamp>,
    /// The edge node as which it speaks.
    pub node: Option<NodeId>,
}

/// Who there is: the access file.
pub trait Identities: Send + Sync {
    /// What an identity may now; `None`: there is none of that name. May read files.
    ///
    /// # Errors
    /// The file cannot be read, in words for the log.
    fn look_up(&self, name: &str) -> Result<Option<Allowed>, String>;
}

/// The access file as it is at each request: a change counts at once.
#[derive(Clone, Debug)]
pub struct AccessFile(pub PathBuf);

impl Identities for AccessFile {
    fn look_up(&self, name: &str) -> Result<Option<Allowed>, String> {
        let listed = access_file::list(&self.0).map_err(|error| error.to_string())?;
        Ok(listed.into_iter().find(|identity| identity.name == name).map(|identity| Allowed {
            certificate: identity.certificate,
            disabled: identity.disabled,
            certificates_from: identity.certificates_from,
            node: identity.node,
        }))
    }
}

/// What enrolment needs.
#[derive(Clone)]
pub struct Setup {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of CA, promises and notes.
    pub tls_dir: PathBuf,
    /// The hub's certificate and what lies between it and the CA; agents must find the CA in it as well.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Port of MQTT with TLS, which agents are told.
    pub mqtt_port: Option<u16>,
    /// Who there is.
    pub identities: Arc<dyn Identities>,
    /// How long certificates are valid.
    pub validity: Duration,
}

impl Setup {
    /// The usual one.
    #[must_use]
    pub fn new(listen: SocketAddr, tls_dir: &Path, identities: Arc<dyn Identities>) -> Self {
        Setup {
            listen,
            tls_dir: tls_dir.to_owned(),
            cert_file: tls_dir.join("hub.crt"),
            key_file: tls_dir.join("hub.key"),
            mqtt_port: None,
            identities,
            validity: CLIENT_VALIDITY,
        }
    }

    /// Of a hub's configuration; `None`: enrolment is off.
    #[must_use]
    pub fn of(config: &EmbeddedBroker, data_dir: &Path) -> Option<Self> {
        let identities = Arc::new(AccessFile(config.access_file.clone()));
        let mut setup = Setup::new(config.enrol?, &tls_dir(data_dir), identities);
        setup.cert_file = config.tls.cert_file.clone();
        setup.key_file = config.tls.key_file.clone();
        let mqtt =
            config.listeners.iter().find(|listener| listener.tls && listener.protocol == Protocol::Mqtt);
        setup.mqtt_port = mqtt.map(|listener| listener.listen.port()).filter(|port| *port != 0);
        Some(setup)
    }

    fn ca_file(&self) -> PathBuf {
        self.tls_dir.join("ca.crt")
    }

    fn ca_key_file(&self) -> PathBuf {
        self.tls_dir.join("ca.key")
    }
}

/// Where a hub keeps its CA, promises and notes.
#[must_use]
pub fn tls_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tls")
}

/// Why enrolment did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The CA.
    #[error("enrolment needs the plant's CA: {0}. `forebay cert init` makes one; or delete [hub.enrol]")]
    Authority(PkiError),
    /// The hub's certificate.
    #[error(
        "enrolment needs the hub's certificate: {0}. `forebay cert init` makes one; or delete [hub.enrol]"
    )]
    Tls(#[from] TlsError),
    /// The address.
    #[error("enrolment cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Interrupted.
    #[error("reading certificates ended unexpectedly: {0}")]
    Interrupted(String),
}

/// A running enrolment.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Where it listens.
    pub addr: SocketAddr,
    tls: TlsServer,
}

impl Enrolment {
    /// Its certificates: the hub's and the CA's.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        self.tls.status()
    }
}

/// Opens the listener and serves until shutdown.
pub async fn start(
    setup: Setup,
    clock: Clock,
    metrics: Metrics,
    tasks: &Tasks,
) -> Result<Enrolment, StartError> {
    let files = TlsFiles {
        cert_file: setup.cert_file.clone(),
        key_file: setup.key_file.clone(),
        client_ca_file: Some(setup.ca_file()),
        client_certificate: ClientCertificate::Optional,
    };
    let (load_setup, load_clock, load_metrics) = (setup.clone(), clock.clone(), metrics.clone());
    let loaded = tokio::task::spawn_blocking(move || {
        Authority::load(&load_setup.ca_file(), &load_setup.ca_key_file()).map_err(StartError::Authority)?;
        Ok::<_, StartError>(TlsServer::load(files, load_clock, load_metrics)?)
    });
    let tls = loaded.await.map_err(|panic| StartError::Interrupted(panic.to_string()))??;
    let listen = setup.listen;
    let failed = |source| StartError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let service = Arc::new(Service::new(setup, clock, metrics));
    tasks.spawn(TaskKind::Housekeeping, "enrolment's certificates", tls.clone().watch(tasks.shutdown()));
    tasks.spawn(
        TaskKind::Server,
        "enrolment",
        listener::serve(listener, tls.clone(), service, tasks.shutdown()),
    );
    tracing::info!(%addr, "agents can ask for certificates");
    Ok(Enrolment { addr, tls })
}

#[cfg(test)]
mod tests;
