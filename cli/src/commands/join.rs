//! `forebay join`: on an agent's machine, from a join line to a certificate.

use std::path::{Path, PathBuf};

use runtime::enrolment::{self, EnrolError, EnrolUrl, Granted, JoinRequest};
use runtime::pki::{
    self, Certificate, Contents, PrivateKey, date_text, write_new, write_new_private, write_private,
    write_public,
};

use crate::arguments::certificates::Join;
use crate::output::{DONE, FAILED};
use crate::{complain, say};

/// Where the hub listens for MQTT with TLS if it does not say.
const MQTT_PORT: u16 = 8883;

/// Exit 0 if the certificate is there.
#[must_use]
pub fn run(options: &Join) -> u8 {
    match join(options) {
        Ok(()) => DONE,
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

/// The files of an agent.
struct Files {
    folder: PathBuf,
    ca: PathBuf,
    agent: PathBuf,
}

impl Files {
    /// Everything that can go wrong on this machine goes wrong here, before the token is used.
    fn prepare(dir: &Path, force: bool) -> Result<Files, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        std::fs::create_dir_all(dir).map_err(failed)?;
        let folder = dir.canonicalize().map_err(failed)?;
        let files = Files { ca: folder.join("ca.crt"), agent: folder.join("agent.pem"), folder };
        for file in [&files.ca, &files.agent] {
            if file.exists() && !force {
                return Err(format!(
                    "{} is there already; nothing was sent. --force replaces it, --dir names another folder",
                    file.display()
                ));
            }
        }
        let probe = files.folder.join(format!(".forebay-join.{}", std::process::id()));
        write_private(&probe, "").map_err(|error| error.to_string())?;
        std::fs::remove_file(&probe).map_err(failed)?;
        Ok(files)
    }

    fn write(&self, ca: &str, agent: &str, force: bool) -> Result<(), String> {
        let written = if force {
            write_public(&self.ca, ca).and_then(|()| write_private(&self.agent, agent))
        } else {
            write_new(&self.ca, ca).and_then(|()| write_new_private(&self.agent, agent))
        };
        written.map_err(|error| format!("{error}\nThe token is used up: ask for a new join line on the hub"))
    }
}

fn join(options: &Join) -> Result<(), String> {
    let files = Files::prepare(&options.dir, options.force)?;
    let key = PrivateKey::make().map_err(|error| error.to_string())?;
    let csr = key.request("forebay agent").map_err(|error| error.to_string())?;
    let request = JoinRequest { token: options.token.trim().to_owned(), csr };
    complain!("asking {} ...", options.url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let (granted, known_by) = runtime
        .block_on(enrolment::join(&options.url, options.ca, &request))
        .map_err(|error: EnrolError| error.to_string())?;
    let certificate = check(&granted, &key)?;
    let ca = trusted(&known_by, &granted).map_err(|error| error.to_string())?;
    files.write(&ca, &(key.to_pem() + &granted.certificate), options.force)?;
    tell(&options.url, &granted, &certificate, &files);
    Ok(())
}

fn check(granted: &Granted, key: &PrivateKey) -> Result<Certificate, String> {
    let contents = Contents::parse(granted.certificate.as_bytes()).map_err(|error| error.to_string())?;
    let first = contents.certificates.into_iter().next().ok_or("the hub sent no certificate")?;
    if key.fits(&first) { Ok(first) } else { Err("the hub sent a certificate for another key".into()) }
}

/// The CA by which the hub was known, and those that it named.
fn trusted(known_by: &Certificate, granted: &Granted) -> Result<String, pki::PkiError> {
    let mut text = known_by.to_pem();
    for ca in Contents::parse(granted.ca.as_bytes())?.certificates {
        if ca.fingerprint != known_by.fingerprint {
            text.push_str(&ca.to_pem());
        }
    }
    Ok(text)
}

fn tell(url: &EnrolUrl, granted: &Granted, certificate: &Certificate, files: &Files) {
    let (end, name) = (date_text(certificate.not_after), &granted.name);
    complain!(
        "{name} has a certificate until {end}; written: {}, {}",
        files.ca.display(),
        files.agent.display()
    );
    complain!("The agent renews it by itself; its user must be able to write to {}.", files.folder.display());
    complain!("In the agent's file, without user and password_file:\n");
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let port = granted.mqtt_port.unwrap_or(MQTT_PORT);
    let (ca, agent) = (quoted(&files.ca), quoted(&files.agent));
    say!("[edge]");
    if let (Some(group), Some(node)) = (&granted.group, &granted.node) {
        say!("group = {}\nnode = {}", text(group), text(node));
    }
    say!("hub = \"mqtts://{host}:{port}\"");
    say!("ca_file = {ca}\ncert_file = {agent}\nkey_file = {agent}\nenrol = \"{url}\"");
}

fn quoted(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// A basic string of TOML.
fn text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
