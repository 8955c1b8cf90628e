//! The plant's CA: made once, issues the hub's certificate and the agents'.

use std::net::IpAddr;
use std::path::Path;

use model::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::private_key::PrivateKey;
use super::{
    CA_VALIDITY, CLOCK_ALLOWANCE, Certificate, PkiError, SERVER_VALIDITY, files, made, write_new,
    write_new_private,
};

/// Longest common name (X.520, ub-common-name).
const COMMON_NAME_CHARACTERS_MAX: usize = 64;
/// A request for a certificate is not larger: RSA 4096 with a few names is 2 kB.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// 126 random bits and a leading 01, so that the number is positive and of one length (RFC 5280, 4.1.2.2).
const SERIAL_BYTES: usize = 16;
/// A certificate does not end after its CA; with less than this left the CA must be replaced.
const SHORTEST_VALIDITY: std::time::Duration = std::time::Duration::from_secs(1);

/// A CA: certificate and key.
pub struct Authority {
    certificate: Certificate,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, {})", self.certificate.subject, self.certificate.fingerprint)
    }
}

/// An issued certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What it says.
    pub certificate: Certificate,
    /// PEM: the certificate alone.
    pub pem: String,
}

impl Authority {
    /// Makes a CA with a name such as `Forebay plant CA antwerp`; it may issue ends only, no further CAs.
    pub fn make(name: &str, now: Timestamp) -> Result<(Self, PrivateKey), PkiError> {
        check_common_name(name).map_err(PkiError::Bytes)?;
        let key = PrivateKey::make()?;
        let mut params = blank(now, CLOCK_ALLOWANCE, CA_VALIDITY)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(key.pair()).map_err(made)?;
        let authority = Self::from_parts(certificate.der().clone(), &key)?;
        Ok((authority, key))
    }

    /// Makes a CA and writes both files; an existing one is an error.
    pub fn make_files(
        name: &str,
        cert_file: &Path,
        key_file: &Path,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let (authority, key) = Self::make(name, now)?;
        write_new_private(key_file, &key.to_pem())?;
        write_new(cert_file, &authority.pem)?;
        Ok(authority)
    }

    /// Reads a CA: a company's intermediate CA does as well. Of several certificates the first is the issuer.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, PkiError> {
        let certificates = files::read_certificates(cert_file)?;
        let first =
            certificates.first().ok_or_else(|| PkiError::content(cert_file, "holds no certificate"))?;
        if !first.is_ca {
            return Err(PkiError::content(cert_file, "is no CA certificate (basic constraints)"));
        }
        let key = files::read_pem(key_file)?.key;
        let key = key.ok_or_else(|| PkiError::content(key_file, "holds no key"))?;
        let key = PrivateKey::from_der(&key)
            .map_err(|error| PkiError::content(key_file, format!("its key cannot be used: {error}")))?;
        if !key.fits(first) {
            let problem = format!("its key does not belong to {}", cert_file.display());
            return Err(PkiError::content(key_file, problem));
        }
        Self::from_parts(first.der.clone(), &key).map_err(|error| match error {
            PkiError::Make(why) => PkiError::content(cert_file, format!("cannot issue: {why}")),
            other => other,
        })
    }

    fn from_parts(der: CertificateDer<'static>, key: &PrivateKey) -> Result<Self, PkiError> {
        let pair = KeyPair::try_from(key.pair().serialized_der()).map_err(made)?;
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(made)?;
        let certificate = Certificate::parse(der).map_err(PkiError::Make)?;
        Ok(Authority { pem: certificate.to_pem(), certificate, issuer })
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a hub with these DNS names and addresses; the first is the common name too.
    pub fn issue_server(
        &self,
        names: &[String],
        key: &PrivateKey,
        now: Timestamp,
    ) -> Result<Issued, PkiError> {
        let mut params = self.within(now, CLOCK_ALLOWANCE, SERVER_VALIDITY)?;
        for name in names {
            params.subject_alt_names.push(server_name(name).map_err(PkiError::Bytes)?);
        }
        let first = names.iter().find(|name| name.chars().count() <= COMMON_NAME_CHARACTERS_MAX);
        let first = first.ok_or_else(|| PkiError::Bytes("a server needs a name".into()))?;
        params.distinguished_name.push(DnType::CommonName, first.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params, key.pair())
    }

    /// A certificate for a client: its name comes from whom it was promised to, only the key from the request.
    /// Valid from `from` (whole seconds) for `validity`, but not longer than the CA.
    pub fn issue_client(
        &self,
        name: &str,
        request_pem: &str,
        from: Timestamp,
        validity: std::time::Duration,
    ) -> Result<Issued, PkiError> {
        check_common_name(name).map_err(PkiError::Bytes)?;
        if request_pem.len() > REQUEST_BYTES_MAX {
            return Err(PkiError::Bytes(format!("the request is larger than {REQUEST_BYTES_MAX} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(|error| {
            PkiError::Bytes(format!("the certificate signing request cannot be used: {error}"))
        })?;
        let mut params = self.within(from, std::time::Duration::ZERO, validity)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params, &request.public_key)
    }

    fn issue(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Issued, PkiError> {
        let mut params = params.clone();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        let made_now = params.signed_by(key, &self.issuer).map_err(made)?;
        let certificate = Certificate::parse(made_now.der().clone()).map_err(PkiError::Make)?;
        Ok(Issued { certificate, pem: made_now.pem() })
    }

    fn within(
        &self,
        from: Timestamp,
        earlier: std::time::Duration,
        validity: std::time::Duration,
    ) -> Result<CertificateParams, PkiError> {
        let left = u64::try_from(self.certificate.seconds_left(from)).unwrap_or(0);
        let left = std::time::Duration::from_secs(left);
        if left < SHORTEST_VALIDITY {
            let end = super::date_text(self.certificate.not_after);
            return Err(PkiError::Make(format!("the CA ended on {end}; it needs a successor")));
        }
        blank(from, earlier, validity.min(left))
    }
}

/// Parameters with a serial number and times, and nothing else.
fn blank(
    from: Timestamp,
    earlier: std::time::Duration,
    validity: std::time::Duration,
) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(|error| PkiError::Make(format!("no random numbers: {error}")))?;
    serial[0] = serial[0] & 0x3f | 0x40;
    let from = u64::try_from(from.micros().div_euclid(1_000_000))
        .map_err(|_| PkiError::Make("the machine's clock is before 1970; set it".into()))?;
    let start = date_time_ymd(1970, 1, 1);
    let seconds = std::time::Duration::from_secs;
    let mut params = CertificateParams::default();
    params.not_before = start + seconds(from.saturating_sub(earlier.as_secs()));
    params.not_after = start + seconds(from.saturating_add(validity.as_secs()));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

/// Whether a text can be the common name of a certificate, or the rule that it breaks.
pub fn check_common_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if length == 0 || length > COMMON_NAME_CHARACTERS_MAX {
        return Err(format!("a name in a certificate has 1 to {COMMON_NAME_CHARACTERS_MAX} characters"));
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return Err("a name in a certificate has no control characters and no spaces around it".into());
    }
    Ok(())
}

/// Whether a text can name a server in a certificate: a DNS name (also `*.plant.example`) or an address.
pub fn check_server_name(name: &str) -> Result<(), String> {
    server_name(name).map(|_| ())
}

fn server_name(name: &str) -> Result<SanType, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !plain.split('.').all(is_label) {
        return Err(format!("{name:?} is no host name and no address"));
    }
    name.try_into().map(SanType::DnsName).map_err(|error: rcgen::Error| format!("{name:?}: {error}"))
}
