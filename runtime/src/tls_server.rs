//! TLS for listeners: a configuration from files, loaded again when they change.
//!
//! [`TlsServer::current`] is asked for each handshake and costs a lock and a count. [`TlsServer::watch`] reads the files
//! every [`POLL`]; what cannot be used (half a file, a key of another certificate) leaves the old configuration in place
//! and is logged once. Certificates that end within 30 days are warned about once a day.
//!
//! Certificates may come from anywhere: any chain that rustls can use, RSA or elliptic, and any CA for the clients'.

mod expiry;
mod load;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use model::Timestamp;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::pki::Fingerprint;
use crate::telemetry::Metrics;

pub use expiry::ExpiryWatch;
use load::Loaded;

/// A new certificate is in use after so long at most: fast enough for a person who watches, three small reads.
pub const POLL: Duration = Duration::from_secs(2);

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not asked.
    #[default]
    None,
    /// They are asked and may have none; one that they show must be good.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// The files of a listener, PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then intermediate certificates.
    pub cert_file: PathBuf,
    /// Its key, unencrypted.
    pub key_file: PathBuf,
    /// CAs of the clients' certificates; needed where clients are asked for one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether they are asked.
    pub client_certificate: ClientCertificate,
}

/// Why there is no TLS: file, what is wrong, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, what to do.
    pub problem: String,
}

/// A certificate in use, for API and page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// In which file.
    pub file: PathBuf,
    /// Subject.
    pub subject: String,
    /// Names of a server.
    pub names: Vec<String>,
    /// Valid to.
    pub not_after: Timestamp,
    /// Seconds left; negative: it has ended.
    pub seconds_left: i64,
    /// Whether somebody must act: 30 days or less.
    pub is_ending: bool,
    /// SHA-256.
    pub fingerprint: Fingerprint,
}

/// How the listener's TLS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsStatus {
    /// When the configuration in use was loaded.
    pub loaded_at: Timestamp,
    /// Its certificates: the server's first, its chain, then the clients' CAs.
    pub certificates: Vec<CertificateStatus>,
    /// Why newer files are not in use.
    pub problem: Option<String>,
}

/// A TLS configuration that follows its files. Cheap to clone.
#[derive(Clone)]
pub struct TlsServer {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsFiles,
    clock: Clock,
    metrics: Metrics,
    current: RwLock<Arc<ServerConfig>>,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    loaded_at: Timestamp,
    /// What newer files held that cannot be used, and why.
    refused: Option<(load::Content, TlsError)>,
    expiry: ExpiryWatch,
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsServer({:?})", self.shared.files)
    }
}

impl TlsServer {
    /// Reads the files; an error says which file and what to do.
    pub fn load(files: TlsFiles, clock: Clock, metrics: Metrics) -> Result<Self, TlsError> {
        let content = load::read(&files)?;
        let (config, loaded) = load::build(&files, content, &clock)?;
        let state =
            State { loaded, loaded_at: clock.now(), refused: None, expiry: ExpiryWatch::new(&metrics) };
        let shared = Shared {
            files,
            clock,
            metrics,
            current: RwLock::new(Arc::new(config)),
            state: Mutex::new(state),
        };
        let server = TlsServer { shared: Arc::new(shared) };
        server.look_at_expiry();
        Ok(server)
    }

    /// The configuration for the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The files that it follows.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.shared.files
    }

    /// Follows the files until shutdown. To be spawned as housekeeping.
    pub async fn watch(self, shutdown: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let server = self.clone();
            if let Err(panic) = tokio::task::spawn_blocking(move || server.look()).await {
                tracing::error!(%panic, "looking at the TLS files ended unexpectedly");
            }
        }
    }

    /// Looks at the files once: takes what is new and good. Blocking: small reads.
    pub fn look(&self) {
        self.take_changes();
        self.look_at_expiry();
    }

    fn take_changes(&self) {
        let files = &self.shared.files;
        let outcome =
            load::read(files).map_err(|error| (load::Content::default(), error)).and_then(|content| {
                let mut state = self.state();
                if content == state.loaded.content {
                    state.refused = None;
                    return Ok(None);
                }
                if state.refused.as_ref().is_some_and(|(refused, _)| *refused == content) {
                    return Ok(None);
                }
                drop(state); // building takes milliseconds, and others ask for the status
                load::build(files, content.clone(), &self.shared.clock)
                    .map(Some)
                    .map_err(|error| (content, error))
            });
        match outcome {
            Ok(None) => {}
            Ok(Some((config, loaded))) => {
                let leaf = loaded.certificates.first().map(|(_, certificate)| certificate.fingerprint);
                let mut state = self.state();
                *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                state.loaded = loaded;
                state.loaded_at = self.shared.clock.now();
                state.refused = None;
                tracing::info!(file = %files.cert_file.display(), ?leaf, "new TLS certificates are in use");
            }
            Err((content, error)) => {
                let mut state = self.state();
                if state.refused.as_ref().is_none_or(|(_, known)| *known != error) {
                    tracing::warn!(%error, "the changed TLS files cannot be used; the old ones stay in use");
                    let name = "forebay_tls_reload_failures_total";
                    self.shared.metrics.counter(name, "TLS files that could not be used.", &[]).increment();
                }
                state.refused = Some((content, error));
            }
        }
    }

    fn look_at_expiry(&self) {
        let now = self.shared.clock.now();
        let mut state = self.state();
        let State { loaded, expiry, .. } = &mut *state;
        for (file, certificate) in &loaded.certificates {
            expiry.look(file, certificate, now);
        }
        expiry.publish();
    }

    /// How it is, for API and page.
    #[must_use]
    pub fn status(&self) -> TlsStatus {
        let now = self.shared.clock.now();
        let state = self.state();
        let certificates = state.loaded.certificates.iter().map(|(file, certificate)| CertificateStatus {
            file: file.clone(),
            subject: certificate.subject.clone(),
            names: certificate.server_names(),
            not_after: certificate.not_after,
            seconds_left: certificate.seconds_left(now),
            is_ending: expiry::is_ending(certificate, now),
            fingerprint: certificate.fingerprint,
        });
        TlsStatus {
            loaded_at: state.loaded_at,
            certificates: certificates.collect(),
            problem: state.refused.as_ref().map(|(_, error)| error.to_string()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
