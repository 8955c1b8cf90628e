//! A private key (ECDSA P-256) and the request for a certificate that goes with it.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Certificate, PkiError, made};

/// A private key; never shown by `Debug`.
pub struct PrivateKey(KeyPair);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// Makes a new one.
    pub fn make() -> Result<Self, PkiError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(made)
    }

    /// Takes one that was read from a file: elliptic or RSA.
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, PkiError> {
        KeyPair::try_from(der).map(Self).map_err(made)
    }

    /// PKCS#8 in PEM form.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A certificate signing request (PKCS#10) in PEM form. `name` is a wish: the hub writes what it knows.
    pub fn request(&self, name: &str) -> Result<String, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(made)
    }

    /// Whether the certificate is for this key.
    #[must_use]
    pub fn fits(&self, certificate: &Certificate) -> bool {
        fits(self.0.serialized_der(), &certificate.der)
    }

    pub(super) const fn pair(&self) -> &KeyPair {
        &self.0
    }
}

fn fits(key: &[u8], certificate: &CertificateDer<'_>) -> bool {
    let Ok(key) = PrivateKeyDer::try_from(key.to_vec()) else { return false };
    let chain = vec![certificate.clone().into_owned()];
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).is_ok()
}
