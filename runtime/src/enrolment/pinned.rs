//! Knowing a server by the fingerprint of its CA: the chain that it shows must hold that CA certificate, lead to it,
//! be valid now and be for the name that was asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::EnrolUrl;
use crate::pki::{Certificate, Fingerprint, date_text};

/// The CA that was found, or why the server is not trusted, with what to do.
type Outcome = Result<Certificate, String>;

/// Checks a server's certificate by the fingerprint of its CA.
#[derive(Debug)]
pub(super) struct Pinned {
    url: EnrolUrl,
    ca: Fingerprint,
    provider: Arc<CryptoProvider>,
    outcome: Mutex<Option<Outcome>>,
}

impl Pinned {
    pub(super) fn new(url: EnrolUrl, ca: Fingerprint) -> Self {
        Pinned { url, ca, provider: Arc::new(aws_lc_rs::default_provider()), outcome: Mutex::default() }
    }

    /// A client's configuration that checks so.
    pub(super) fn config(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous() // rustls' word for an own verifier; this one checks more, not less
            .with_custom_certificate_verifier(Arc::<Pinned>::clone(self))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// What came of it; `None` if no server showed a certificate.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Outcome {
        let url = &self.url;
        let Some(der) = chain.iter().find(|certificate| Fingerprint::of(certificate) == self.ca) else {
            return Err(self.not_found(leaf, chain));
        };
        let ca =
            Certificate::parse(der.clone().into_owned()).map_err(|why| format!("the CA of {url} {why}"))?;
        if !ca.is_ca {
            return Err(format!("the certificate with this fingerprint ({}) is no CA's", ca.subject));
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).map_err(|error| format!("the CA of {url}: {error}"))?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| format!("the CA of {url}: {error}"))?;
        match verifier.verify_server_cert(leaf, chain, name, &[], now) {
            Ok(_) => Ok(ca),
            Err(error) => Err(self.explain(&error, leaf)),
        }
    }

    fn not_found(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> String {
        let url = &self.url;
        if Fingerprint::of(leaf) == self.ca {
            return "this is the fingerprint of the hub's own certificate; the one of its CA is needed: \
                    `forebay cert show` on the hub tells it"
                .into();
        }
        let shown: Vec<String> =
            chain.iter().map(|certificate| Fingerprint::of(certificate).to_string()).collect();
        let shown = match shown.as_slice() {
            [] => "it shows no CA certificate at all".to_owned(),
            some => format!("it shows {}", some.join(", ")),
        };
        format!(
            "{url} is not the hub that this join line is for, or somebody is in between: no CA certificate with the \
             fingerprint {} ({shown}). Nothing was sent. Compare with `forebay cert show` on the hub, and copy the whole \
             join line again",
            self.ca
        )
    }

    fn explain(&self, error: &Error, leaf: &CertificateDer<'_>) -> String {
        let (url, host) = (&self.url, &self.url.host);
        let leaf = Certificate::parse(leaf.clone().into_owned());
        match (error, leaf) {
            (
                Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                ),
                Ok(leaf),
            ) => format!(
                "the certificate of {url} is for {}, not for {host}. Use one of these names in the URL, or add this \
                 one on the hub: forebay cert renew-hub --name {host}",
                leaf.server_names().join(", ")
            ),
            (
                Error::InvalidCertificate(
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. },
                ),
                Ok(leaf),
            ) => format!(
                "the certificate of {url} is valid from {} to {}, and the clock of this machine is outside. Set the \
                 clock, or on the hub: forebay cert renew-hub",
                date_text(leaf.not_before),
                date_text(leaf.not_after)
            ),
            _ => format!("the certificate of {url} does not lead to the CA with this fingerprint: {error}"),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = self.check(leaf, chain, name, now);
        let verified = match &outcome {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(problem) => Err(Error::General(problem.clone())),
        };
        *self.lock() = Some(outcome);
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
