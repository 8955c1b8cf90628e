//! A folder behind SFTP. The server's key must be known beforehand; nothing is learned by looking.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, known_hosts};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config as SftpConfig, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::runtime::Handle as Runtime;

use super::remote::{ANSWER_WITHIN, Fetch, NAMES_MAX, Pieces, Remote, Trust, secret};
use super::{Facts, Place, Source, free_names};
use crate::drivers::DriverError;

/// What one request asks for; servers give less if they like.
const REQUEST_BYTES: u32 = 128 * 1024;
/// A silent connection is asked so often whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The folder.
pub(in super::super) struct Sftp {
    remote: Remote,
    session: Option<Session>,
    lost: Arc<Mutex<bool>>,
}

struct Session {
    sftp: Arc<RawSftpSession>,
    /// Ends the connection when it goes.
    _ssh: Handle<Keys>,
    runtime: Runtime,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sftp").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Looks at the server's key.
struct Keys {
    remote: Remote,
    /// The fingerprint that was refused, for people.
    refused: Arc<Mutex<Option<String>>>,
}

impl Keys {
    fn is_known(&self, key: &PublicKey) -> bool {
        match &self.remote.trust {
            Trust::Fingerprint(known) => key.fingerprint(HashAlg::Sha256).to_string() == *known,
            Trust::KnownHosts(file) => {
                known_hosts::check_known_hosts_path(&self.remote.host, self.remote.port, key, file)
                    .unwrap_or(false)
            }
            Trust::Certificates(_) | Trust::Nobody => false,
        }
    }
}

impl client::Handler for Keys {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let (known, shown) = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                (self.is_known(key), key.fingerprint(HashAlg::Sha256).to_string())
            }
            PublicKeyOrCertificate::Certificate(_) => (false, "a certificate".to_owned()),
        };
        if !known {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        }
        Ok(known)
    }
}

impl Sftp {
    pub(in super::super) fn new(remote: Remote) -> Sftp {
        Sftp { remote, session: None, lost: Arc::default() }
    }

    async fn connect(&self) -> Result<(Handle<Keys>, RawSftpSession), DriverError> {
        let remote = &self.remote;
        let server = format!("sftp://{}:{}", remote.host, remote.port);
        let down = |error: &dyn std::fmt::Display| DriverError::NotConnected(format!("{server}: {error}"));
        let config = client::Config {
            keepalive_interval: Some(KEEP_ALIVE),
            nodelay: true,
            ..client::Config::default()
        };
        let refused = Arc::new(Mutex::new(None));
        let keys = Keys { remote: remote.clone(), refused: Arc::clone(&refused) };
        let connected = client::connect(Arc::new(config), (remote.host.as_str(), remote.port), keys).await;
        let mut ssh = match connected {
            Ok(ssh) => ssh,
            Err(error) => {
                let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(match (refused, &remote.trust) {
                    (Some(seen), Trust::Fingerprint(known)) => DriverError::Config(format!(
                        "{server}: its key is {seen}, but host_key is {known}: somebody else, or a new key"
                    )),
                    (Some(seen), Trust::KnownHosts(file)) => {
                        DriverError::Config(format!("{server}: its key {seen} is not in {}", file.display()))
                    }
                    _ => down(&error),
                });
            }
        };
        if !self.log_in(&mut ssh).await? {
            return Err(DriverError::Config(format!("{server}: refuses to let {} in", remote.user)));
        }
        let channel = ssh.channel_open_session().await.map_err(|error| down(&error))?;
        channel.request_subsystem(true, "sftp").await.map_err(|error| down(&error))?;
        let config = SftpConfig { request_timeout_secs: ANSWER_WITHIN.as_secs(), ..SftpConfig::default() };
        let sftp = RawSftpSession::new_with_config(channel.into_stream(), config);
        sftp.init().await.map_err(|error| down(&error))?;
        Ok((ssh, sftp))
    }

    async fn log_in(&self, ssh: &mut Handle<Keys>) -> Result<bool, DriverError> {
        let remote = &self.remote;
        let down = |error: russh::Error| DriverError::NotConnected(format!("{}: {error}", remote.host));
        if let Some(file) = &remote.key_file {
            let password = remote.key_password_file.as_deref().map(secret).transpose();
            let password = password.map_err(DriverError::Config)?;
            let key = russh::keys::load_secret_key(file, password.as_deref())
                .map_err(|error| DriverError::Config(format!("{}: {error}", file.display())))?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
            let answer = ssh.authenticate_publickey(&remote.user, key).await.map_err(down)?;
            if matches!(answer, AuthResult::Success) {
                return Ok(true);
            }
        }
        let Some(file) = &remote.password_file else { return Ok(false) };
        let password = secret(file).map_err(DriverError::Config)?;
        let answer = ssh.authenticate_password(&remote.user, password).await.map_err(down)?;
        Ok(matches!(answer, AuthResult::Success))
    }

    fn session(&self) -> io::Result<&Session> {
        self.session.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits for the server; a connection that does not answer is lost.
    fn ask<T>(&self, call: impl Future<Output = Result<T, SftpError>>) -> io::Result<T> {
        answer(&self.session()?.runtime, &self.lost, call)
    }

    fn fault(&self, error: &io::Error) -> DriverError {
        let folder = &self.remote.folder;
        DriverError::NotConnected(match error.kind() {
            io::ErrorKind::NotFound => format!("folder {folder} is missing on {}", self.remote.host),
            _ => format!("{}: {folder}: {error}", self.remote.host),
        })
    }

    fn entries(&self) -> io::Result<Vec<(String, FileAttributes)>> {
        let sftp = Arc::clone(&self.session()?.sftp);
        let handle = self.ask(sftp.opendir(&self.remote.folder))?.handle;
        let mut found = Vec::new();
        let listed = loop {
            match self.ask(sftp.readdir(&handle)) {
                Ok(names) => found.extend(names.files.into_iter().map(|file| (file.filename, file.attrs))),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) => break Err(error),
            }
            if found.len() > NAMES_MAX {
                break Err(io::Error::other(format!("more than {NAMES_MAX} files")));
            }
        };
        self.ask(sftp.close(handle))?;
        listed.map(|()| found)
    }

    fn of(&self, name: &str, attributes: &FileAttributes) -> Facts {
        let modified = attributes.mtime.map_or(0, |seconds| i64::from(seconds) * 1_000_000_000);
        self.remote.facts(name, attributes.size.unwrap_or(0), modified)
    }
}

fn answer<T>(
    runtime: &Runtime,
    lost: &Mutex<bool>,
    call: impl Future<Output = Result<T, SftpError>>,
) -> io::Result<T> {
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN * 2, call).await });
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(SftpError::Status(status))) => Err(match status.status_code {
            StatusCode::Eof => io::ErrorKind::UnexpectedEof.into(),
            StatusCode::NoSuchFile => io::ErrorKind::NotFound.into(),
            StatusCode::PermissionDenied => io::ErrorKind::PermissionDenied.into(),
            other => io::Error::other(format!("{other:?}: {}", status.error_message)),
        }),
        Ok(Err(error)) => {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = true;
            Err(io::Error::other(error.to_string()))
        }
        Err(_) => {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = true;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

impl Place for Sftp {
    fn open(&mut self) -> Result<(), DriverError> {
        let runtime = Runtime::current();
        let connected = runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN, self.connect()).await });
        let (ssh, sftp) = connected.map_err(|_| DriverError::Silent(ANSWER_WITHIN))??;
        self.session = Some(Session { sftp: Arc::new(sftp), _ssh: ssh, runtime });
        let sftp = Arc::clone(&self.session().map_err(|error| self.fault(&error))?.sftp);
        self.ask(sftp.stat(&self.remote.folder)).map(drop).map_err(|error| self.fault(&error))
    }

    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Facts)>, DriverError> {
        let entries = self.entries().map_err(|error| self.fault(&error))?;
        let ours = entries.iter().filter(|(name, attributes)| {
            !name.contains('/')
                && wanted(name)
                && (attributes.permissions.is_none() || attributes.is_regular())
        });
        Ok(ours.map(|(name, attributes)| (name.clone(), self.of(name, attributes))).collect())
    }

    fn facts(&mut self, name: &str) -> io::Result<Facts> {
        let sftp = Arc::clone(&self.session()?.sftp);
        let found = self.ask(sftp.stat(self.remote.path(name)))?;
        Ok(self.of(name, &found.attrs))
    }

    fn file(&mut self, name: &str) -> io::Result<(Box<dyn Source>, Facts)> {
        let session = self.session()?;
        let sftp = Arc::clone(&session.sftp);
        let runtime = session.runtime.clone();
        let path = self.remote.path(name);
        let handle = self.ask(sftp.open(path, OpenFlags::READ, FileAttributes::empty()))?.handle;
        let file = SftpFile { sftp, handle, runtime, lost: Arc::clone(&self.lost) };
        let found = answer(&file.runtime, &self.lost, file.sftp.fstat(&file.handle))?;
        let facts = self.of(name, &found.attrs);
        Ok((Box::new(Pieces::new(file)), facts))
    }

    fn shift(&mut self, name: &str, folder: &str) -> io::Result<String> {
        let sftp = Arc::clone(&self.session()?.sftp);
        let target = if folder.starts_with('/') { folder.to_owned() } else { self.remote.path(folder) };
        if self.ask(sftp.stat(&target)).is_err() {
            self.ask(sftp.mkdir(&target, FileAttributes::empty()))?;
        }
        for free in free_names(name) {
            let to = format!("{target}/{free}");
            match self.ask(sftp.lstat(&to)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // The protocol's rename never replaces a file.
                    self.ask(sftp.rename(self.remote.path(name), to))?;
                    return Ok(free);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let sftp = Arc::clone(&self.session()?.sftp);
        self.ask(sftp.remove(self.remote.path(name))).map(drop)
    }

    fn is_lost(&self) -> bool {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file.
struct SftpFile {
    sftp: Arc<RawSftpSession>,
    handle: String,
    runtime: Runtime,
    lost: Arc<Mutex<bool>>,
}

impl Fetch for SftpFile {
    fn fetch(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let wanted = u32::try_from(length - bytes.len()).unwrap_or(u32::MAX).min(REQUEST_BYTES);
            let call = self.sftp.read(&self.handle, offset + bytes.len() as u64, wanted);
            match answer(&self.runtime, &self.lost, call) {
                Ok(data) if data.data.is_empty() => break,
                Ok(data) => bytes.extend(data.data.into_iter().take(length - bytes.len())),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }
}

impl Drop for SftpFile {
    fn drop(&mut self) {
        // A server has few handles; one that does not answer has lost them all.
        if !*self.lost.lock().unwrap_or_else(PoisonError::into_inner)
            && let Err(error) = answer(&self.runtime, &self.lost, self.sftp.close(&self.handle))
        {
            tracing::debug!(%error, "closing a file");
        }
    }
}
