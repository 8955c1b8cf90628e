//! Certificates for a broker of one run, made with openssl, and a TLS client that trusts their CA alone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The CA's certificate.
pub(super) const CA: &str = "ca.crt";
/// The broker's, for 127.0.0.1.
pub(super) const CERTIFICATE: &str = "server.crt";
/// Its key.
pub(super) const KEY: &str = "server.key";

/// Writes them to `dir`.
pub(super) fn make_certificates(dir: &Path) -> Result<Arc<ClientConfig>, String> {
    let key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let openssl = |further: &[&str]| {
        let output =
            Command::new("openssl").args(key).args(further).current_dir(dir).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => Err(format!("openssl makes the certificates of this case: {error}")),
        }
    };
    openssl(&["-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", CA])?;
    let for_whom =
        ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    let by_whom = ["-CA", CA, "-CAkey", "ca.key", "-keyout", KEY, "-out", CERTIFICATE];
    openssl(&[&["-subj", "/CN=bench broker"], for_whom.as_slice(), by_whom.as_slice()].concat())?;
    trusting(&dir.join(CA))
}

fn trusting(ca_file: &Path) -> Result<Arc<ClientConfig>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", ca_file.display());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca_file).map_err(|error| failed(&error))?;
    roots.add(ca).map_err(|error| failed(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| failed(&error))?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_makes_what_the_client_trusts() {
        let dir = std::env::temp_dir().join(format!("forebay-bench-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        make_certificates(&dir).unwrap();
        assert!(CertificateDer::from_pem_file(dir.join(CERTIFICATE)).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
