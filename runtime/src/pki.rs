//! Certificates: a plant's own CA, what it issues, and reading what files hold.
//!
//! Nothing here or elsewhere requires certificates of our making: whatever reads certificates takes any PEM file, RSA
//! or elliptic, with intermediate certificates or without. [`Authority`] is for plants that have no CA of their own.
//!
//! ```text
//! cert init:  Authority::make ─► ca.crt, ca.key     Authority::issue_server ─► hub.crt (server, then CA), hub.key
//! join:       PrivateKey::make ─► request ──hub──► Authority::issue_client ─► agent.pem (key, certificate), ca.crt
//! ```
//! Files appear whole or not at all (written beside, synced, renamed); keys can be read by their owner alone.

mod authority;
mod certificate;
mod files;
mod private_key;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use authority::{Authority, Issued, check_common_name, check_server_name};
pub use certificate::{Certificate, Fingerprint, date_text};
pub use files::{
    Contents, private_folder, read_bounded, read_certificates, read_pem, write_new, write_new_private,
    write_private, write_public,
};
pub use private_key::PrivateKey;

const DAY: Duration = Duration::from_secs(86_400);

/// A CA's certificate: agents hold it, so replacing it means a visit to each; machines are in use for so long.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// A hub's certificate: what TLS libraries accept everywhere (398 days at most), renewed by one command.
pub const SERVER_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// An agent's certificate: short, because agents renew by themselves; long enough for a line that stands still for two
/// months.
pub const CLIENT_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// Certificates of CA and hub begin so much earlier: clocks in machines without a network are wrong, mostly slow.
pub const CLOCK_ALLOWANCE: Duration = DAY;
/// From so long before its end a certificate is warned about: time for a person to be found.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// A PEM file is not larger: a chain of ten RSA certificates with their texts is below 100 kB.
pub const PEM_BYTES_MAX: usize = 256 * 1024;
/// Certificates in one file.
pub const CERTIFICATES_MAX: usize = 64;

/// What is wrong with a certificate, key or file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {problem}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, what to do.
        problem: String,
    },
    /// Bytes from elsewhere (a request, an answer).
    #[error("{0}")]
    Bytes(String),
    /// The cryptography failed.
    #[error("certificate could not be made: {0}")]
    Make(String),
}

impl PkiError {
    fn content(path: &std::path::Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), problem: problem.into() }
    }

    fn file(path: &std::path::Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// What rustls has against a certificate or key of ours, with what to do where that is known.
pub(crate) fn refused_by_tls(error: &rustls::Error) -> String {
    let text = error.to_string();
    if text.contains("UnsupportedCertVersion") {
        return "is an X.509 certificate of version 1, which nobody should trust today; issue it with extensions \
                (openssl x509 -req … -extfile FILE)"
            .into();
    }
    text
}

fn made(error: rcgen::Error) -> PkiError {
    PkiError::Make(error.to_string())
}

#[cfg(test)]
mod tests;
