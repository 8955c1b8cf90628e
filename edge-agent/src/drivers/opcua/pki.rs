//! Certificates of OPC UA: the agent's own, made at its first start, and the list of servers that it trusts.
//!
//! ```text
//! opcua-pki/own/certificate.der        give it to the server's administrator; valid ten years
//! opcua-pki/own/private_key.pem        only the agent can read it
//! opcua-pki/trusted/*.der              servers that a person has let in; file names do not matter
//! opcua-pki/rejected/NAME [SHA-1].der  the newest strangers; moving one to trusted/ lets it in
//! ```
//!
//! One folder serves all devices of an agent: to OPC UA the agent is one application. A certificate is trusted if the very
//! same bytes lie in `trusted/`; its name, and the host name in it, are then no question any more, its dates are.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use model::Timestamp;
use opcua::crypto::{CertificateStore, X509};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RsaKeySize, SanType,
};
use runtime::pki::write_private;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::drivers::DriverError;

const VALID: std::time::Duration = std::time::Duration::from_secs(3652 * 86_400);
/// A clock that is behind must not find the new certificate invalid.
const EARLIER: std::time::Duration = std::time::Duration::from_secs(86_400);
/// Strangers kept; a hostile network must not fill the disk.
const REJECTED_MAX: usize = 50;
/// A certificate, even with a long chain, is smaller.
const CERTIFICATE_BYTES_MAX: u64 = 64 * 1024;
/// A warning begins so long before the end.
const WARN_BEFORE_MICROS: i64 = 30 * 86_400 * 1_000_000;

/// Two devices that start at once make one certificate.
static MAKING: Mutex<()> = Mutex::new(());

/// The agent's own certificate.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) certificate: X509,
    /// As it stands in the certificate; servers compare it.
    pub(super) application_uri: String,
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Pki {
    dir: PathBuf,
}

impl Pki {
    pub(super) fn new(dir: &Path) -> Pki {
        Pki { dir: dir.to_owned() }
    }

    pub(super) fn certificate_path(&self) -> PathBuf {
        self.dir.join("own/certificate.der")
    }

    fn key_path(&self) -> PathBuf {
        self.dir.join("own/private_key.pem")
    }

    /// The own certificate; made if there is none.
    pub(super) fn own(&self, now: Timestamp) -> Result<Own, DriverError> {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.certificate_path();
        for folder in ["own", "trusted", "rejected"] {
            let folder = self.dir.join(folder);
            std::fs::create_dir_all(&folder).map_err(|error| unusable(&folder, &error.to_string()))?;
        }
        if !path.exists() || !self.key_path().exists() {
            self.make(now).map_err(|problem| unusable(&path, &problem))?;
            tracing::info!(certificate = %path.display(), "made the agent's certificate for OPC UA");
        }
        let bytes = read(&path).map_err(|problem| unusable(&path, &problem))?;
        let certificate = X509::from_der(&bytes).map_err(|_| unusable(&path, "is no certificate"))?;
        let application_uri = uri(&bytes).ok_or_else(|| unusable(&path, "names no application URI"))?;
        CertificateStore::read_pkey(&self.key_path())
            .map_err(|problem| unusable(&self.key_path(), &problem))?;
        Ok(Own { certificate, application_uri })
    }

    fn make(&self, now: Timestamp) -> Result<(), String> {
        let wrong = |error: rcgen::Error| error.to_string();
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(wrong)?;
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let id = format!("{:016x}", u64::from_be_bytes(random));
        let mut params = CertificateParams::default();
        let since_1970 =
            std::time::Duration::from_micros(u64::try_from(now.micros()).map_err(|error| error.to_string())?);
        let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
        (params.not_before, params.not_after) = (now - EARLIER, now + VALID);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Forebay agent {id}"));
        params.distinguished_name.push(DnType::OrganizationName, "Forebay");
        // Servers look for the application URI in the first name.
        let uri = format!("urn:forebay:agent:{id}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(wrong)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::DataEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key).map_err(wrong)?;
        write_private(&self.key_path(), &key.serialize_pem()).map_err(|error| error.to_string())?;
        write(&self.certificate_path(), certificate.der())
    }

    /// The library's view of the folder. It judges nothing: [`Pki::check`] has done so before.
    pub(super) fn store(&self) -> CertificateStore {
        let (cert, key) = (self.certificate_path(), self.key_path());
        let none = None::<opcua::crypto::X509Data>;
        let (mut store, _, _) = CertificateStore::new_with_x509_data(
            &self.dir.join("seen"),
            false,
            Some(&cert),
            Some(&key),
            none,
        );
        store.set_trust_unknown_certs(true);
        store.set_skip_verify_certs(true);
        store
    }

    /// Whether the server may be spoken to. `uri` is the application that its endpoint claims to be.
    pub(super) fn check(
        &self,
        server: &[u8],
        uri_said: &str,
        now: Timestamp,
        own: &Own,
    ) -> Result<(), DriverError> {
        let certificate = X509::from_der(server)
            .map_err(|_| DriverError::Config("the server's certificate cannot be read".into()))?;
        if !self.is_trusted(server) {
            let name = CertificateStore::cert_file_name(&certificate);
            let rejected = self.keep_rejected(&name, server);
            return Err(DriverError::Config(format!(
                "the server's certificate is not trusted. If its SHA-1 thumbprint is {} (the agent's own: {}), move {} to {}",
                certificate.thumbprint().as_hex_string(),
                own.certificate.thumbprint().as_hex_string(),
                rejected.display(),
                self.dir.join("trusted").display()
            )));
        }
        let (from, to) = validity(&certificate);
        if now < from || now > to {
            let dates = format!("{} to {}", runtime::pki::date_text(from), runtime::pki::date_text(to));
            let today = runtime::pki::date_text(now);
            return Err(DriverError::Config(format!(
                "the server's certificate is valid from {dates}; today is {today}"
            )));
        }
        if uri(server).is_some_and(|named| !uri_said.is_empty() && named != uri_said) {
            let named = uri(server).unwrap_or_default();
            return Err(DriverError::Config(format!(
                "the server says that it is {uri_said}, its certificate {named}"
            )));
        }
        Ok(())
    }

    fn is_trusted(&self, server: &[u8]) -> bool {
        let entries = std::fs::read_dir(self.dir.join("trusted")).into_iter().flatten().flatten();
        let mut files = entries.filter(|entry| entry.metadata().is_ok_and(|meta| meta.is_file()));
        files.any(|file| {
            let Ok(bytes) = read(&file.path()) else { return false };
            bytes == server || (bytes.starts_with(b"-----") && is_pem_of(&bytes, server))
        })
    }

    /// Where the stranger lies now, for a person to move.
    fn keep_rejected(&self, name: &str, server: &[u8]) -> PathBuf {
        let folder = self.dir.join("rejected");
        let name: String =
            name.chars().map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c }).collect();
        let path = folder.join(name);
        let mut old: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        old.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
        let surplus = (old.len() + 1).saturating_sub(REJECTED_MAX);
        for entry in old.iter().take(surplus) {
            std::fs::remove_file(entry.path()).ok(); // the newest is kept either way
        }
        if let Err(problem) = write(&path, server) {
            tracing::warn!(file = %path.display(), problem, "the rejected certificate cannot be kept");
        }
        path
    }
}

/// When certificates end, to warn in time.
#[derive(Clone, Debug)]
pub(super) struct Expiry {
    whose: &'static str,
    end: Timestamp,
    /// Day of the last warning.
    warned: Option<i64>,
}

impl Expiry {
    pub(super) fn of(whose: &'static str, certificate: &X509) -> Expiry {
        Expiry { whose, end: validity(certificate).1, warned: None }
    }

    /// The day's warning, if one is due.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<String> {
        if self.end.micros() - now.micros() > WARN_BEFORE_MICROS || self.warned == Some(now.day()) {
            return None;
        }
        self.warned = Some(now.day());
        let (whose, end) = (self.whose, runtime::pki::date_text(self.end));
        Some(format!("the certificate of {whose} ends on {end}"))
    }
}

fn validity(certificate: &X509) -> (Timestamp, Timestamp) {
    let micros = |at: Result<chrono::DateTime<chrono::Utc>, _>, otherwise| {
        at.map_or(otherwise, |at| at.timestamp_micros())
    };
    (
        Timestamp(micros(certificate.not_before(), i64::MIN)),
        Timestamp(micros(certificate.not_after(), i64::MAX)),
    )
}

/// The application URI that a certificate names.
fn uri(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten()?;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

fn is_pem_of(pem: &[u8], der: &[u8]) -> bool {
    X509::from_pem(pem).and_then(|certificate| certificate.to_der()).is_ok_and(|bytes| bytes == der)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > CERTIFICATE_BYTES_MAX {
        return Err("is too large for a certificate".into());
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| error.to_string())
}

fn unusable(path: &Path, problem: &str) -> DriverError {
    DriverError::Config(format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_770_000_000_000_000);

    #[test]
    fn the_own_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let own = pki.own(NOW).unwrap();
        assert!(own.application_uri.starts_with("urn:forebay:agent:"), "{own:?}");
        assert_eq!(own.certificate.key_length().unwrap(), 2048);
        let again = pki.own(NOW).unwrap();
        assert_eq!(again.certificate.thumbprint().value(), own.certificate.thumbprint().value());
        own.certificate.is_application_uri_valid(&own.application_uri).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(pki.key_path()).unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn a_stranger_is_refused_until_its_file_is_moved() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (pki, stranger) = (Pki::new(dir.path()), Pki::new(other.path()));
        let (own, server) = (pki.own(NOW).unwrap(), stranger.own(NOW).unwrap());
        let der = std::fs::read(stranger.certificate_path()).unwrap();
        let refused = pki.check(&der, &server.application_uri, NOW, &own).unwrap_err().to_string();
        for part in [&server, &own] {
            assert!(refused.contains(&part.certificate.thumbprint().as_hex_string()), "{refused}");
        }
        let rejected =
            std::fs::read_dir(dir.path().join("rejected")).unwrap().next().unwrap().unwrap().path();
        assert!(refused.contains(&rejected.display().to_string()), "{refused}");
        std::fs::rename(&rejected, dir.path().join("trusted/any name.der")).unwrap();
        pki.check(&der, &server.application_uri, NOW, &own).unwrap();
        let refused = pki.check(&der, "urn:another", NOW, &own).unwrap_err().to_string();
        assert!(refused.contains("urn:another"), "{refused}");
        let late = Timestamp(NOW.micros() + 11 * 365 * 86_400_000_000);
        assert!(pki.check(&der, "", late, &own).unwrap_err().to_string().contains("valid from"));
    }

    #[test]
    fn the_end_is_told_once_a_day_from_thirty_days_on() {
        let dir = tempfile::tempdir().unwrap();
        let own = Pki::new(dir.path()).own(NOW).unwrap();
        let mut expiry = Expiry::of("the agent", &own.certificate);
        let before = |days: i64| Timestamp(validity(&own.certificate).1.micros() - days * 86_400_000_000);
        assert_eq!(expiry.due(before(31)), None);
        assert!(expiry.due(before(29)).unwrap().contains("the agent"));
        assert_eq!(expiry.due(before(29)), None);
        assert!(expiry.due(before(28)).is_some());
    }

    #[test]
    fn strangers_do_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        pki.own(NOW).unwrap();
        for nth in 0..REJECTED_MAX * 2 {
            pki.keep_rejected(&format!("{nth}/../x.der"), b"x");
        }
        assert_eq!(std::fs::read_dir(dir.path().join("rejected")).unwrap().count(), REJECTED_MAX);
    }
}
