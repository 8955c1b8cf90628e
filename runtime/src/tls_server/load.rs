//! From files to a configuration: read, check that they belong together, say what is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};

use super::{ClientCertificate, TlsError, TlsFiles};
use crate::clock::Clock;
use crate::pki::{Certificate, Contents, PkiError, read_bounded, refused_by_tls};

/// The bytes of the files, to see whether they changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What is in use.
pub(super) struct Loaded {
    pub(super) content: Content,
    /// Each certificate with its file: the server's first.
    pub(super) certificates: Vec<(PathBuf, Certificate)>,
}

/// The time of our clock, for certificates' validity.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let micros = u64::try_from(self.0.now().micros()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_micros(micros)))
    }
}

/// Reads the files.
pub(super) fn read(files: &TlsFiles) -> Result<Content, TlsError> {
    let bytes = |path: &Path| read_bounded(path).map_err(|error| problem(path, error));
    Ok(Content {
        cert: bytes(&files.cert_file)?,
        key: bytes(&files.key_file)?,
        client_ca: files.client_ca_file.as_deref().map(bytes).transpose()?,
    })
}

/// Makes a configuration of what was read.
pub(super) fn build(
    files: &TlsFiles,
    content: Content,
    clock: &Clock,
) -> Result<(ServerConfig, Loaded), TlsError> {
    let chain = certificates(&files.cert_file, &content.cert)?;
    let mut certificates: Vec<(PathBuf, Certificate)> =
        chain.iter().map(|certificate| (files.cert_file.clone(), certificate.clone())).collect();
    let key = parse(&files.key_file, &content.key)?.key.ok_or_else(|| {
        let hint =
            "holds no unencrypted key in PEM form; for an encrypted one: openssl pkey -in FILE -out PLAIN";
        TlsError { path: files.key_file.clone(), problem: hint.into() }
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
        .map_err(|error| problem(&files.cert_file, error))?;
    let builder = match files.client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        asked => {
            let (path, bytes) = client_ca(files, &content)?;
            let roots = self::certificates(path, bytes)?;
            certificates.extend(roots.iter().map(|root| (path.to_owned(), root.clone())));
            builder.with_client_cert_verifier(verifier(path, &roots, asked, &provider)?)
        }
    };
    let der = chain.iter().map(|certificate| certificate.der.clone()).collect();
    let mut config = builder.with_single_cert(der, key).map_err(|error| mismatch(files, &error))?;
    if files.client_certificate != ClientCertificate::None {
        // A resumed session would bring its certificate along unchecked: also one that has ended since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok((config, Loaded { content, certificates }))
}

fn client_ca<'a>(files: &'a TlsFiles, content: &'a Content) -> Result<(&'a Path, &'a [u8]), TlsError> {
    match (&files.client_ca_file, &content.client_ca) {
        (Some(path), Some(bytes)) => Ok((path, bytes)),
        _ => {
            let hint = "clients are asked for certificates, but no client_ca_file says whose are good";
            Err(TlsError { path: files.cert_file.clone(), problem: hint.into() })
        }
    }
}

fn verifier(
    path: &Path,
    roots: &[Certificate],
    asked: ClientCertificate,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let added = store.add(root.der.clone());
        added.map_err(|error| problem(path, format!("{} cannot be used as a CA: {error}", root.subject)))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    let builder = match asked {
        ClientCertificate::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder.build().map_err(|error| problem(path, error))
}

fn mismatch(files: &TlsFiles, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let cert = files.cert_file.display();
            problem(&files.key_file, format!("its key does not belong to the first certificate of {cert}"))
        }
        other => problem(&files.cert_file, refused_by_tls(other)),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, TlsError> {
    Contents::parse(bytes).map_err(|error| problem(path, error))
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<Certificate>, TlsError> {
    let found = parse(path, bytes)?.certificates;
    if found.is_empty() {
        return Err(problem(path, "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

fn problem(path: &Path, why: impl Into<Why>) -> TlsError {
    TlsError { path: path.to_owned(), problem: why.into().0 }
}

/// A reason without the path, which [`TlsError`] says itself.
struct Why(String);

impl From<PkiError> for Why {
    fn from(error: PkiError) -> Self {
        Why(match error {
            PkiError::File { source, .. } => source.to_string(),
            PkiError::Content { problem, .. } => problem,
            other => other.to_string(),
        })
    }
}

impl From<rustls::Error> for Why {
    fn from(error: rustls::Error) -> Self {
        Why(error.to_string())
    }
}

impl From<rustls::server::VerifierBuilderError> for Why {
    fn from(error: rustls::server::VerifierBuilderError) -> Self {
        Why(error.to_string())
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Why(text)
    }
}

impl From<&str> for Why {
    fn from(text: &str) -> Self {
        Why(text.to_owned())
    }
}

/// The same time for a client of a test.
#[cfg(test)]
pub(super) fn time_for_tests(clock: &Clock) -> Arc<dyn TimeProvider> {
    Arc::new(Time(clock.clone()))
}
