//! PEM files: read with a bound, written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{CERTIFICATES_MAX, Certificate, PEM_BYTES_MAX, PkiError};

/// Owner only.
const PRIVATE: u32 = 0o600;
/// Everybody may read.
const PUBLIC: u32 = 0o644;

/// What a PEM file holds.
#[derive(Debug)]
pub struct Contents {
    /// Its certificates, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// Its first key.
    pub key: Option<PrivateKeyDer<'static>>,
}

/// Reads a file of at most [`PEM_BYTES_MAX`].
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, PkiError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| PkiError::file(path, source))?;
    let limit = PEM_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|source| PkiError::file(path, source))?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(PkiError::content(path, format!("is larger than {PEM_BYTES_MAX} bytes: no PEM file")));
    }
    Ok(bytes)
}

/// Reads certificates and key of a PEM file; it must hold one of them at least.
pub fn read_pem(path: &Path) -> Result<Contents, PkiError> {
    let bytes = read_bounded(path)?;
    let contents = parse(&bytes).map_err(|problem| PkiError::content(path, problem))?;
    if contents.certificates.is_empty() && contents.key.is_none() {
        let hint = if bytes.first() == Some(&0x30) {
            "is in DER form; convert it with: openssl x509 -inform der -in FILE -out FILE.pem"
        } else {
            "holds no certificate and no unencrypted key in PEM form (-----BEGIN CERTIFICATE-----)"
        };
        return Err(PkiError::content(path, hint));
    }
    Ok(contents)
}

/// Reads the certificates of a PEM file; there is one at least.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, PkiError> {
    let contents = read_pem(path)?;
    if contents.certificates.is_empty() {
        return Err(PkiError::content(path, "holds a key but no certificate; name the certificate's file"));
    }
    Ok(contents.certificates)
}

impl Contents {
    /// Parses PEM text that did not come from a file.
    pub fn parse(bytes: &[u8]) -> Result<Contents, PkiError> {
        if bytes.len() > PEM_BYTES_MAX {
            return Err(PkiError::Bytes(format!("more than {PEM_BYTES_MAX} bytes of PEM")));
        }
        parse(bytes).map_err(PkiError::Bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<Contents, String> {
    let mut certificates = Vec::new();
    for found in CertificateDer::pem_slice_iter(bytes) {
        let der = found.map_err(|error| format!("damaged PEM: {error}"))?;
        if certificates.len() == CERTIFICATES_MAX {
            return Err(format!("holds more than {CERTIFICATES_MAX} certificates"));
        }
        let nth = certificates.len() + 1;
        certificates.push(Certificate::parse(der).map_err(|why| format!("certificate {nth}: {why}"))?);
    }
    let key = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Some(key),
        Err(pem::Error::NoItemsFound) => None,
        Err(error) => return Err(format!("damaged PEM: {error}")),
    };
    Ok(Contents { certificates, key })
}

/// Writes a file that only its owner can read, over an old one; on disk afterwards.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    replace(path, text, PRIVATE).map_err(|source| PkiError::file(path, source))
}

/// Writes a file that everybody can read, over an old one; on disk afterwards.
pub fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    replace(path, text, PUBLIC).map_err(|source| PkiError::file(path, source))
}

/// As [`write_private`], but an existing file is an error and left alone.
pub fn write_new_private(path: &Path, text: &str) -> Result<(), PkiError> {
    create(path, text, PRIVATE).map_err(|source| PkiError::file(path, source))
}

/// As [`write_public`], but an existing file is an error and left alone.
pub fn write_new(path: &Path, text: &str) -> Result<(), PkiError> {
    create(path, text, PUBLIC).map_err(|source| PkiError::file(path, source))
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = beside(path);
    write(&beside, text, mode)?;
    std::fs::rename(&beside, path)?;
    sync_folder(path)
}

/// A hard link fails where the name is taken, which a rename does not.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let beside = beside(path);
    write(&beside, text, mode)?;
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    linked?;
    sync_folder(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Makes a folder that only its owner can look into; an existing one is left alone.
pub fn private_folder(path: &Path) -> Result<(), PkiError> {
    let made = || -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => give_to_owner_of_folder(path, &File::open(path)?),
        }
    };
    made().map_err(|source| PkiError::file(path, source))
}

/// What root writes into the folder of a service must be readable for that service.
fn give_to_owner_of_folder(path: &Path, file: &File) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (folder, made) = (std::fs::metadata(folder)?, file.metadata()?);
    if made.uid() == 0 && folder.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

/// The file is new, so that it never had looser rights.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    give_to_owner_of_folder(path, &file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Bytes in PEM form, 64 characters in a line (RFC 7468).
pub(super) fn pem_text(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
