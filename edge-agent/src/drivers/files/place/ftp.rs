//! A folder behind FTP, with TLS (explicit, by AUTH TLS) or, where it was said, without.
//!
//! - Passive mode only: EPSV, else PASV with the address of the control connection, whatever the server says of its own.
//! - Lists are MLSD, else LIST: its times are of minutes, and of the server's zone, so MDTM (UTC) is asked for files whose line
//!   changed, or that changed less than [`YOUNG`] ago.
//! - Files are read from an offset on (REST); a transfer stays open while its pieces are asked for one behind the other.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::NaiveDateTime;
use runtime::mqtt_client::{TlsOptions, tls_config};
use suppaftp::list::ListParser;
use suppaftp::types::{FileType, Response};
use suppaftp::{
    FtpError, FtpResult, Mode, RustlsConnector, RustlsFtpStream, Status, TlsConnector, TransferStream,
};

use super::remote::{ANSWER_WITHIN, Fetch, NAMES_MAX, Pieces, Remote, Trust, secret};
use super::{Facts, Place, Source, free_names};
use crate::drivers::DriverError;

/// The stream of a connection with TLS, which has no public name.
type Tls = <RustlsConnector as TlsConnector>::Stream;

/// A line of a list.
const LINE_BYTES_MAX: u64 = 8192;
/// What was read of a transfer and may be asked for again.
const TAIL_BYTES_MAX: usize = 1024 * 1024;
/// A file that changed so lately may have changed again within the minute that LIST shows.
const YOUNG: Duration = Duration::from_secs(150);

/// The folder.
pub(in super::super) struct Ftp {
    remote: Remote,
    session: Option<Arc<Mutex<Session>>>,
}

impl std::fmt::Debug for Ftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ftp").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Ftp {
    pub(in super::super) fn new(remote: Remote) -> Ftp {
        Ftp { remote, session: None }
    }

    fn connect(&self) -> Result<RustlsFtpStream, DriverError> {
        let remote = &self.remote;
        let server = format!("{}:{}", remote.host, remote.port);
        let down = |error: &dyn std::fmt::Display| DriverError::NotConnected(format!("{server}: {error}"));
        let config = |why: String| DriverError::Config(format!("{server}: {why}"));
        let password =
            remote.password_file.as_deref().map(secret).transpose().map_err(DriverError::Config)?;
        let mut addresses = (remote.host.as_str(), remote.port).to_socket_addrs().map_err(|e| down(&e))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let stream = addresses.find_map(|address| dial(address).map_err(|error| last = error).ok());
        let stream = stream.ok_or_else(|| down(&last))?;
        let ftp = RustlsFtpStream::connect_with_stream(stream).map_err(|error| down(&error))?;
        let dial_data = |address| dial(address).map_err(FtpError::ConnectionError);
        let mut ftp = ftp.passive_stream_builder(dial_data);
        if let Trust::Certificates(ca_file) = &remote.trust {
            let options = TlsOptions { ca_file: ca_file.clone(), client: None };
            let tls = tls_config(&options).map_err(|error| config(error.to_string()))?;
            ftp = ftp.into_secure(RustlsConnector::from(tls), &remote.host).map_err(|error| match error {
                FtpError::ConnectionError(error) if of_certificate(&error) => config(format!(
                    "its certificate is not trusted: {error}; name the file of its CA as ca_file"
                )),
                FtpError::UnexpectedResponse(reply) => config(format!("offers no TLS: {}", said(&reply))),
                error => down(&error),
            })?;
        }
        ftp.login(remote.user.as_str(), password.as_deref().unwrap_or_default()).map_err(
            |error| match error {
                FtpError::UnexpectedResponse(reply) if reply.status != Status::NotAvailable => {
                    config(format!("refuses to let {} in: {}", remote.user, said(&reply)))
                }
                error => down(&error),
            },
        )?;
        ftp.transfer_type(FileType::Binary).map_err(|error| down(&error))?;
        match ftp.custom_command("EPSV", &[Status::ExtendedPassiveMode]) {
            Ok(_) => ftp.set_mode(Mode::ExtendedPassive),
            Err(FtpError::UnexpectedResponse(_)) => ftp.set_mode(Mode::Passive), // not known, or not allowed
            Err(error) => return Err(down(&error)),
        }
        // Nothing but the host that was asked is ever connected to.
        ftp.set_passive_nat_workaround(true);
        Ok(ftp)
    }

    fn session(&self) -> io::Result<MutexGuard<'_, Session>> {
        self.session.as_deref().map(lock).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn fault(&self, error: &io::Error) -> DriverError {
        let Remote { folder, host, .. } = &self.remote;
        DriverError::NotConnected(match error.kind() {
            io::ErrorKind::NotFound => format!("folder {folder} is missing on {host}"),
            _ => format!("{host}: {folder}: {error}"),
        })
    }
}

/// A connection that answers in time, or none.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn of_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// The first line of what the server said.
fn said(reply: &Response) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    ftp: RustlsFtpStream,
    /// A file that is being read.
    open: Option<Transfer>,
    /// Whether it knows MLSD and MLST.
    knows_facts: bool,
    /// Of files that LIST showed: what it showed, and the time that MDTM told for it.
    times: HashMap<String, (usize, SystemTime, i64)>,
    is_lost: bool,
}

/// A file's bytes on their way.
struct Transfer {
    name: String,
    data: TransferStream<Tls>,
    /// Behind the last byte that was read, and the bytes before it.
    end: u64,
    tail: Vec<u8>,
}

/// What a server means that says "550 no" where a file may be missing or closed to us.
#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    IsMissing,
    IsClosed,
}

impl Session {
    fn error(&mut self, error: FtpError, refusal: Refusal) -> io::Error {
        let reply = match error {
            FtpError::UnexpectedResponse(reply) => reply,
            FtpError::ConnectionError(error) => {
                self.is_lost = true;
                return error;
            }
            error => {
                self.is_lost = true;
                return io::Error::other(error.to_string());
            }
        };
        let text = said(&reply);
        let lower = text.to_lowercase();
        let is_missing = ["no such", "not found", "not exist"].iter().any(|words| lower.contains(words));
        let is_closed = ["permission", "denied", "not allowed"].iter().any(|words| lower.contains(words));
        self.is_lost |= reply.status == Status::NotAvailable;
        match reply.status {
            Status::FileUnavailable | Status::RequestFileActionIgnored => {
                if is_missing || (refusal == Refusal::IsMissing && !is_closed) {
                    io::Error::new(io::ErrorKind::NotFound, text)
                } else {
                    io::Error::new(io::ErrorKind::PermissionDenied, text)
                }
            }
            _ => io::Error::other(text),
        }
    }

    /// Ends a transfer that is under way: other commands must wait for it.
    fn end(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        match open.data.finish() {
            // What nobody read any more was not sent: 426 or so.
            Ok(()) | Err(FtpError::UnexpectedResponse(_)) => Ok(()),
            Err(error) => Err(self.error(error, Refusal::IsClosed)),
        }
    }

    /// A command whose answer comes over a connection of its own.
    fn transfer(
        &mut self,
        refusal: Refusal,
        command: impl FnOnce(&mut RustlsFtpStream) -> FtpResult<TransferStream<Tls>>,
    ) -> io::Result<TransferStream<Tls>> {
        self.end()?;
        command(&mut self.ftp).map_err(|error| self.error(error, refusal))
    }

    /// The lines of a list, one by one.
    fn lines(&mut self, command: &str, mut take: impl FnMut(&str)) -> io::Result<()> {
        let expected = [Status::AboutToSend, Status::AlreadyOpen];
        let open =
            |ftp: &mut RustlsFtpStream| ftp.custom_data_command(command, &expected).map(|(_, data)| data);
        let mut data = BufReader::new(self.transfer(Refusal::IsMissing, open)?);
        let mut line = Vec::new();
        let read = loop {
            line.clear();
            match data.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => break Ok(()),
                Ok(_) if line.len() as u64 == LINE_BYTES_MAX => {
                    break Err(io::Error::other("a line without end"));
                }
                Ok(_) => take(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n'])),
                // A server may just hang up; whether that was all, its reply says.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let finished = data.into_inner().finish().map_err(|error| self.error(error, Refusal::IsMissing));
        self.is_lost |= read.is_err();
        read.and(finished)
    }

    /// Name, size and time of change (ns) of each file; none where the time is not known yet.
    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<(String, u64, i64)>> {
        let (mut found, mut is_too_long) = (Vec::new(), false);
        let mut room = |length: usize| {
            is_too_long |= length >= NAMES_MAX;
            length < NAMES_MAX
        };
        if self.knows_facts {
            self.lines("MLSD", |line| {
                let file = of_facts(line).filter(|(name, ..)| wanted(name));
                found.extend(file.filter(|_| room(found.len())));
            })?;
        } else {
            let mut listed = Vec::new();
            self.lines("LIST", |line| {
                let file = ListParser::parse_posix(line).or_else(|_| ListParser::parse_dos(line)).ok();
                let file = file.filter(|file| file.is_file() && wanted(file.name()));
                listed.extend(file.filter(|_| room(listed.len())));
            })?;
            let before = std::mem::take(&mut self.times);
            for file in listed {
                let shown = (file.size(), file.modified());
                let known = before.get(file.name()).filter(|(size, time, _)| (*size, *time) == shown);
                let modified = match known.filter(|(.., modified)| !is_young(*modified)) {
                    Some((_, _, modified)) => *modified,
                    None => self.modified(file.name())?,
                };
                self.times.insert(file.name().to_owned(), (shown.0, shown.1, modified));
                found.push((file.name().to_owned(), file.size() as u64, modified));
            }
        }
        if is_too_long { Err(io::Error::other(format!("more than {NAMES_MAX} files"))) } else { Ok(found) }
    }

    /// When a file was changed; 0 where the server does not tell.
    fn modified(&mut self, name: &str) -> io::Result<i64> {
        match self.ftp.mdtm(name) {
            Ok(time) => Ok(time.and_utc().timestamp_nanos_opt().unwrap_or(0)),
            Err(FtpError::UnexpectedResponse(reply)) if reply.status != Status::NotAvailable => Ok(0),
            Err(error) => Err(self.error(error, Refusal::IsMissing)),
        }
    }

    /// Size and time of change of one file.
    fn facts(&mut self, name: &str) -> io::Result<(u64, i64)> {
        self.end()?;
        if self.knows_facts {
            let line = self.ftp.mlst(Some(name)).map_err(|error| self.error(error, Refusal::IsMissing))?;
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            return of_facts(&line).map(|(_, size, modified)| (size, modified)).ok_or_else(missing);
        }
        let size = self.ftp.size(name).map_err(|error| self.error(error, Refusal::IsMissing))?;
        Ok((size as u64, self.modified(name)?))
    }

    /// Bytes of a file from there on; fewer at its end only.
    fn fetch(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let goes_on = self.open.as_ref().is_some_and(|open| {
            open.name == name && offset <= open.end && open.end - offset <= open.tail.len() as u64
        });
        if !goes_on {
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let data = self.transfer(Refusal::IsClosed, |ftp| {
                ftp.resume_transfer(start)?;
                ftp.retr_as_stream(name)
            })?;
            self.open = Some(Transfer { name: name.to_owned(), data, end: offset, tail: Vec::new() });
        }
        let Some(open) = &mut self.open else { return Ok(Vec::new()) };
        let held = usize::try_from(open.end - offset).unwrap_or(0).min(open.tail.len());
        let mut bytes = open.tail.split_off(open.tail.len() - held);
        let before = bytes.len();
        bytes.resize(before.max(length), 0);
        let mut filled = before;
        let ended = loop {
            let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) else { break None };
            match open.data.read(rest) {
                Ok(0) => break Some(Ok(())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A server may just hang up; whether that was all, its reply says.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Some(Ok(())),
                Err(error) => break Some(Err(error)),
            }
        };
        bytes.truncate(filled);
        open.end = offset + filled as u64;
        let from = filled.saturating_sub(TAIL_BYTES_MAX);
        open.tail = bytes.get(from..).unwrap_or_default().to_vec();
        match ended {
            None => {}
            Some(Err(error)) => {
                self.is_lost = true;
                return Err(error);
            }
            Some(Ok(())) => {
                let finished = self.open.take().map_or(Ok(()), |open| open.data.finish());
                finished.map_err(|error| self.error(error, Refusal::IsClosed))?;
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Whether a file that was changed then may have changed again in the same minute; ns since 1970.
fn is_young(modified: i64) -> bool {
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(modified).unwrap_or(0));
    then.elapsed().map_or(true, |age| age < YOUNG)
}

/// Name, size and time of a file in a line of MLSD or MLST: `type=file;size=7;modify=20260309170459.123; name`.
fn of_facts(line: &str) -> Option<(String, u64, i64)> {
    let (facts, name) = line.trim_start().split_once("; ")?;
    let (mut is_file, mut size, mut modified) = (false, None, 0);
    for fact in facts.split(';') {
        let (key, value) = fact.split_once('=')?;
        match key.to_ascii_lowercase().as_str() {
            "type" => is_file = value.eq_ignore_ascii_case("file"),
            "size" => size = value.parse().ok(),
            "modify" => {
                let (seconds, part) = value.split_once('.').unwrap_or((value, "0"));
                let time = NaiveDateTime::parse_from_str(seconds, "%Y%m%d%H%M%S").ok()?;
                let nanos: i64 = format!("{part:0<9}").get(..9)?.parse().ok()?;
                modified = time.and_utc().timestamp_nanos_opt()?.saturating_add(nanos);
            }
            _ => {}
        }
    }
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name); // MLST shows the path
    Some((name.to_owned(), size?, modified)).filter(|_| is_file && !name.is_empty())
}

impl Place for Ftp {
    fn open(&mut self) -> Result<(), DriverError> {
        self.session = None;
        let mut ftp = self.connect()?;
        let features = ftp.feat().unwrap_or_default(); // a server without that has none
        if features.contains_key("UTF8") {
            ftp.opts("UTF8", Some("ON")).ok(); // one that always is may refuse
        }
        let knows_facts = features.contains_key("MLST");
        let mut session = Session { ftp, open: None, knows_facts, times: HashMap::new(), is_lost: false };
        if self.remote.folder != "." {
            let went = session.ftp.cwd(&self.remote.folder);
            went.map_err(|error| session.error(error, Refusal::IsMissing))
                .map_err(|error| self.fault(&error))?;
        }
        self.session = Some(Arc::new(Mutex::new(session)));
        Ok(())
    }

    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Facts)>, DriverError> {
        let entries = self.session().and_then(|mut session| session.list(wanted));
        let entries = entries.map_err(|error| self.fault(&error))?;
        let ours = entries.into_iter().filter(|(name, ..)| !name.contains('/'));
        let facts = |name: &str, size, modified| self.remote.facts(name, size, modified);
        Ok(ours.map(|(name, size, modified)| (name.clone(), facts(&name, size, modified))).collect())
    }

    fn facts(&mut self, name: &str) -> io::Result<Facts> {
        let (size, modified) = self.session()?.facts(name)?;
        Ok(self.remote.facts(name, size, modified))
    }

    fn file(&mut self, name: &str) -> io::Result<(Box<dyn Source>, Facts)> {
        let facts = self.facts(name)?;
        let session = self.session.clone().ok_or(io::ErrorKind::NotConnected)?;
        Ok((Box::new(Pieces::new(FtpFile { session, name: name.to_owned() })), facts))
    }

    fn shift(&mut self, name: &str, folder: &str) -> io::Result<String> {
        let mut session = self.session()?;
        session.end()?;
        match session.ftp.mkdir(folder) {
            Ok(()) | Err(FtpError::UnexpectedResponse(_)) => {} // it is there, or the rename will say
            Err(error) => return Err(session.error(error, Refusal::IsClosed)),
        }
        for free in free_names(name) {
            let to = format!("{folder}/{free}");
            match session.facts(&to) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let moved = session.ftp.rename(name, &to);
                    return moved.map(|()| free).map_err(|error| session.error(error, Refusal::IsClosed));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut session = self.session()?;
        session.end()?;
        let removed = session.ftp.rm(name);
        removed.map_err(|error| session.error(error, Refusal::IsMissing))
    }

    fn is_lost(&self) -> bool {
        self.session.as_deref().is_none_or(|session| lock(session).is_lost)
    }
}

/// A file, read with the folder's own connection.
struct FtpFile {
    session: Arc<Mutex<Session>>,
    name: String,
}

impl Fetch for FtpFile {
    fn fetch(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        lock(&self.session).fetch(&self.name, offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_of_files_and_in_utc() {
        let line = "type=file;size=7;modify=20260309170459.12;UNIX.mode=0644; a; b.csv";
        assert_eq!(of_facts(line), Some(("a; b.csv".into(), 7, 1_773_075_899_120_000_000)));
        assert_eq!(of_facts(" Type=file;Size=7; /x/y.csv"), Some(("y.csv".into(), 7, 0)));
        for none in
            ["", "type=dir;size=1; x", "type=file; x", "type=file;size=7;modify=x; y", "type=file;size=7; "]
        {
            assert_eq!(of_facts(none), None, "{none}");
        }
    }

    #[test]
    fn any_line_is_a_file_or_none() {
        bolero::check!().with_type::<String>().for_each(|line| {
            of_facts(line);
            of_facts(&format!("type=file;size=7;modify={line}; x"));
            ListParser::parse_posix(line).ok();
            ListParser::parse_dos(line).ok();
        });
    }
}
