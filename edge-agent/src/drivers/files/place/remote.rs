//! What SFTP and FTP have in common: where the server is, who logs in, how its key is known, and a file of which little
//! pieces are asked for.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::content;
use super::{Facts, Source};

/// A server answers within this.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Names in a folder; more is no folder but an attack, or a mistake.
pub(super) const NAMES_MAX: usize = 1_000_000;
/// A secret is a line.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A folder on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Remote {
    pub(in super::super) scheme: Scheme,
    pub(in super::super) host: String,
    pub(in super::super) port: u16,
    pub(in super::super) user: String,
    /// As the server knows it; without a slash at the end.
    pub(in super::super) folder: String,
    pub(in super::super) password_file: Option<PathBuf>,
    /// A private key, in OpenSSH's form, and the file with its password.
    pub(in super::super) key_file: Option<PathBuf>,
    pub(in super::super) key_password_file: Option<PathBuf>,
    pub(in super::super) trust: Trust,
}

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scheme {
    Sftp,
    /// With TLS, where [`Trust`] says how the server is known.
    Ftp,
}

/// How the server is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Trust {
    /// `SHA256:…`, as ssh-keygen prints it.
    Fingerprint(String),
    /// A file in the form of OpenSSH's known_hosts.
    KnownHosts(PathBuf),
    /// FTPS: a file of CA certificates, else the system's.
    Certificates(Option<PathBuf>),
    /// FTP: not at all, and anybody can read along. Only where somebody said so.
    Nobody,
}

impl Remote {
    /// Reads `sftp://user@host:port/folder`, or `ftps` or `ftp`; the scheme's name, host, port, user, folder.
    pub(in super::super) fn parse(text: &str) -> Result<(&'static str, String, u16, String, String), String> {
        let form = || "must be like \"sftp://user@host/folder\"".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let (scheme, default) = match scheme {
            "sftp" => ("sftp", 22),
            "ftps" => ("ftps", 21),
            "ftp" => ("ftp", 21),
            _ => return Err("must begin with \"sftp://\", \"ftps://\" or \"ftp://\"".into()),
        };
        let (server, folder) = rest.split_once('/').ok_or_else(form)?;
        let (user, address) = server.rsplit_once('@').ok_or_else(|| "names no user: user@host".to_owned())?;
        if user.contains(':') {
            return Err("must not hold a password: write it to a file and name it as password_file".into());
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
                (host, port.parse().ok().filter(|port| *port > 0).ok_or("has a port that is none")?)
            }
            _ => (address, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if user.is_empty() || host.is_empty() {
            return Err(form());
        }
        let folder = folder.trim_end_matches('/');
        let folder = match folder.strip_prefix("~/").or(if folder == "~" { Some("") } else { None }) {
            Some("") => ".".to_owned(),
            Some(below_home) => below_home.to_owned(),
            None => format!("/{folder}"),
        };
        Ok((scheme, host.to_owned(), port, user.to_owned(), folder))
    }

    /// A file's or folder's name on the server.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.trim_end_matches('/'))
    }

    /// A server does not tell which file it is: its name does, until its content says otherwise.
    pub(super) fn facts(&self, name: &str, size: u64, modified: i64) -> Facts {
        let place = format!("{:?} {} {} {}", self.scheme, self.host, self.port, self.folder);
        let identity = (content::hash(place.as_bytes()) | 1, content::hash(name.as_bytes()));
        Facts { identity, size, modified }
    }
}

/// The first line of a file that holds a secret. The error names the file, never what is in it.
pub(super) fn secret(file: &Path) -> Result<String, String> {
    let text = std::fs::metadata(file)
        .and_then(|metadata| {
            if metadata.len() > SECRET_BYTES_MAX {
                Err(io::ErrorKind::FileTooLarge.into())
            } else {
                std::fs::read_to_string(file)
            }
        })
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// Gets bytes of a file from a server: up to so many, from there; fewer at the end only.
pub(super) trait Fetch {
    fn fetch(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

/// A file on a server. The last piece is kept, because prints, head and lines ask for the same bytes.
pub(super) struct Pieces<F> {
    pub(super) fetch: F,
    last: RefCell<(u64, Vec<u8>)>,
}

/// Small questions are answered out of a piece of this size.
const PIECE: usize = 8 * 1024;

impl<F: Fetch> Pieces<F> {
    pub(super) fn new(fetch: F) -> Pieces<F> {
        Pieces { fetch, last: RefCell::new((0, Vec::new())) }
    }
}

impl<F: Fetch> Source for Pieces<F> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut last = self.last.borrow_mut();
        let held = |last: &(u64, Vec<u8>)| {
            let skip = usize::try_from(offset.checked_sub(last.0)?).ok()?;
            last.1.get(skip..).filter(|rest| !rest.is_empty()).map(<[u8]>::len)
        };
        if held(&last).is_none_or(|rest| rest < into.len().min(PIECE)) {
            *last = (offset, self.fetch.fetch(offset, into.len().max(PIECE))?);
        }
        let skip = usize::try_from(offset - last.0).unwrap_or(usize::MAX);
        let rest = last.1.get(skip..).unwrap_or_default();
        let count = rest.len().min(into.len());
        for (to, from) in into.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }
}
