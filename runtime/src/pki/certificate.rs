//! Reading a certificate: whose it is, from when to when, and its fingerprint.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use model::Timestamp;
use model::timestamp::civil;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use super::files::pem_text;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// SHA-256 over a certificate's DER bytes, as openssl and browsers show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Fingerprint(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// `sha256:` and 64 hexadecimal digits, also in openssl's form with colons.
    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be sha256: and 64 hexadecimal digits";
        let digits: String =
            text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(RULE.into());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| RULE)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RULE)?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// A certificate that was read.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Its bytes.
    pub der: CertificateDer<'static>,
    /// The subject's common name; the last one where there are several, empty ones left out.
    pub common_name: Option<String>,
    /// Subject, as text.
    pub subject: String,
    /// Issuer, as text.
    pub issuer: String,
    /// DNS names of the subject alternative names.
    pub dns_names: Vec<String>,
    /// Addresses of them.
    pub addresses: Vec<IpAddr>,
    /// URIs of them.
    pub uris: Vec<String>,
    /// Mail addresses of them.
    pub emails: Vec<String>,
    /// Valid from, in whole seconds.
    pub not_before: Timestamp,
    /// Valid to, in whole seconds.
    pub not_after: Timestamp,
    /// Serial number, hexadecimal with colons.
    pub serial: String,
    /// Whether it may issue certificates.
    pub is_ca: bool,
    /// Whether issuer and subject are the same: a root.
    pub is_self_issued: bool,
    /// SHA-256.
    pub fingerprint: Fingerprint,
}

impl Certificate {
    /// Reads DER bytes; the signature is not checked.
    pub fn parse(der: CertificateDer<'static>) -> Result<Certificate, String> {
        let (rest, parsed) =
            X509Certificate::from_der(&der).map_err(|error| format!("is no X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("is followed by bytes that do not belong to it".into());
        }
        let names = parsed.subject_alternative_name();
        let names = names.map_err(|error| format!("its alternative names cannot be read: {error}"))?;
        let mut certificate = Certificate {
            common_name: common_name(parsed.subject()),
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
            serial: parsed.raw_serial_as_string(),
            is_ca: parsed.is_ca(),
            is_self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            fingerprint: Fingerprint::of(&der),
            der: CertificateDer::from(Vec::new()),
        };
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => certificate.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(mail) => certificate.emails.push((*mail).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        certificate.der = der;
        Ok(certificate)
    }

    /// Everything that may name whom it speaks for: common name first, then DNS names, URIs, mail addresses.
    pub fn identities(&self) -> impl Iterator<Item = &str> {
        self.common_name
            .iter()
            .chain(&self.dns_names)
            .chain(&self.uris)
            .chain(&self.emails)
            .map(String::as_str)
    }

    /// Names and addresses of a server, as text.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.dns_names.iter().cloned().chain(addresses).collect()
    }

    /// In PEM form.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_text("CERTIFICATE", &self.der)
    }

    /// Seconds until it ends; negative afterwards.
    #[must_use]
    pub const fn seconds_left(&self, now: Timestamp) -> i64 {
        self.not_after.micros_since(now).div_euclid(MICROS_PER_SECOND)
    }

    /// Whole days until it ends; negative afterwards.
    #[must_use]
    pub const fn days_left(&self, now: Timestamp) -> i64 {
        self.seconds_left(now).div_euclid(86_400)
    }
}

fn seconds(since_1970: i64) -> Timestamp {
    Timestamp(since_1970.saturating_mul(MICROS_PER_SECOND))
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    let last = name.iter_common_name().last()?.as_str().ok()?;
    (!last.is_empty()).then(|| last.to_owned())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::V6(Ipv6Addr::from(sixteen)))
}

/// `2026-11-25`, for people.
#[must_use]
pub fn date_text(at: Timestamp) -> String {
    let (year, month, day) = civil(at.day());
    format!("{year:04}-{month:02}-{day:02}")
}
