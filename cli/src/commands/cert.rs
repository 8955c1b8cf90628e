//! `forebay cert`: the plant's CA and the hub's certificate, and what certificate files hold.

use std::path::{Path, PathBuf};

use model::Timestamp;
use runtime::clock::Clock;
use runtime::config_file::Problems;
use runtime::pki::{
    self, Authority, Certificate, Contents, PkiError, PrivateKey, check_server_name, date_text, read_pem,
    write_new, write_new_private, write_public,
};
use serde_json::json;

use crate::arguments::certificates::{Cert, CertAction, TlsFolder};
use crate::output::{DONE, FAILED};
use crate::{complain, plant, say};

/// Names under which a hub is reached from its own machine.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Exit 0 if done as asked.
#[must_use]
pub fn run(options: &Cert) -> u8 {
    let done = match &options.action {
        CertAction::Init { folder, names } => folder.path().and_then(|folder| init(&folder, names)),
        CertAction::RenewHub { folder, names } => folder.path().and_then(|folder| renew_hub(&folder, names)),
        CertAction::Show { files, json } => return show(files, *json),
    };
    match done {
        Ok(()) => DONE,
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

impl TlsFolder {
    fn path(&self) -> Result<PathBuf, String> {
        match &self.config {
            None => Ok(self.dir.clone()),
            Some(file) => hub_config(file).map(|hub| hub::enrol::tls_dir(&hub.data_dir)),
        }
    }
}

/// The hub of a configuration file.
pub(super) fn hub_config(file: &Path) -> Result<hub::config::Config, String> {
    let mut problems = Problems::default();
    let hub = plant::load(file, &mut problems).and_then(|plant| plant.hub);
    if !problems.is_empty() {
        plant::print_problems(&problems);
        return Err("correct the configuration first; nothing was done".into());
    }
    hub.ok_or_else(|| format!("{}: has no [hub]", file.display()))
}

fn init(folder: &Path, names: &[String]) -> Result<(), String> {
    let at = |name: &str| folder.join(name);
    let (ca_crt, ca_key, hub_crt, hub_key) = (at("ca.crt"), at("ca.key"), at("hub.crt"), at("hub.key"));
    let is_there = |files: &[&PathBuf]| files.iter().all(|file| file.exists());
    if is_there(&[&ca_crt, &ca_key, &hub_crt, &hub_key]) {
        return Err(format!(
            "{} holds a CA and a hub's certificate already; nothing was done. `forebay cert show {}` shows them, \
             `forebay cert renew-hub` renews",
            folder.display(),
            hub_crt.display()
        ));
    }
    for (cert, key) in [(&ca_crt, &ca_key), (&hub_crt, &hub_key)] {
        if cert.exists() != key.exists() {
            let (is, is_not) = if cert.exists() { (cert, key) } else { (key, cert) };
            return Err(format!(
                "{} is there and {} is not; bring it back from a copy, or move the first one away",
                is.display(),
                is_not.display()
            ));
        }
    }
    pki::private_folder(folder).map_err(text)?;
    let now = Clock::machine().now();
    let host = host_name();
    let authority = if ca_crt.exists() {
        Authority::load(&ca_crt, &ca_key).map_err(text)?
    } else {
        let name: String = format!("Forebay plant CA {}", host.as_deref().unwrap_or("")).trim().into();
        let name: String = name.chars().take(64).collect();
        let made = Authority::make_files(&name, &ca_crt, &ca_key, now).map_err(text)?;
        say!("made: {} and {}, the plant's CA", ca_crt.display(), ca_key.display());
        made
    };
    if !hub_crt.exists() {
        let given = names.iter().cloned().chain(host).chain(LOCAL_NAMES.map(str::to_owned));
        let key = PrivateKey::make().map_err(text)?;
        let issued = authority.issue_server(&unique(given), &key, now).map_err(text)?;
        write_new_private(&hub_key, &key.to_pem()).map_err(text)?;
        write_new(&hub_crt, &(issued.pem + authority.pem())).map_err(text)?;
        let (names, end) = (issued.certificate.server_names(), date_text(issued.certificate.not_after));
        say!("made: {} and {}, for {}, until {end}", hub_crt.display(), hub_key.display(), names.join(", "));
    }
    say!("CA: {}", authority.certificate().fingerprint);
    say!(
        "Keep a copy of {} in a safe place off this machine: who has it can let agents in.\n\n\
         Write in the hub's file, and start the hub again:\n\n\
         [[hub.broker.listeners]]\n\
         listen = \"0.0.0.0:8883\"         # MQTT with TLS, for other machines\n\n\
         [hub.enrol]\n\
         listen = \"0.0.0.0:8884\"         # where agents get and renew their certificates\n\n\
         The hub looks for these files in `tls` in its data_dir; [hub.tls] cert_file, key_file and client_ca_file\n\
         name others. Then, for each agent: forebay agent add NAME --config hub.toml",
        ca_key.display()
    );
    Ok(())
}

fn renew_hub(folder: &Path, names: &[String]) -> Result<(), String> {
    let at = |name: &str| folder.join(name);
    let (hub_crt, hub_key) = (at("hub.crt"), at("hub.key"));
    let authority = Authority::load(&at("ca.crt"), &at("ca.key")).map_err(|error| {
        format!("{error}\nOnly certificates of the plant's own CA are renewed here; a company's are replaced as files")
    })?;
    let old = pki::read_certificates(&hub_crt).map_err(text)?;
    let old = old.first().ok_or("the hub's certificate is missing")?;
    if old.issuer != authority.certificate().subject {
        return Err(format!(
            "{} was issued by {}, not by the plant's CA ({}); ask for a new one there and replace the file",
            hub_crt.display(),
            old.issuer,
            authority.certificate().subject
        ));
    }
    let key = read_pem(&hub_key).map_err(text)?.key;
    let key = key.ok_or_else(|| format!("{}: holds no unencrypted key", hub_key.display()))?;
    let key = PrivateKey::from_der(&key).map_err(text)?;
    let kept = old.server_names().into_iter().filter(|name| check_server_name(name).is_ok());
    let all = unique(kept.chain(names.iter().cloned()));
    let issued = authority.issue_server(&all, &key, Clock::machine().now()).map_err(text)?;
    write_public(&hub_crt, &(issued.pem + authority.pem())).map_err(text)?;
    let end = date_text(issued.certificate.not_after);
    say!(
        "renewed: {}, for {}, until {end}; a running hub takes it within seconds",
        hub_crt.display(),
        all.join(", ")
    );
    Ok(())
}

fn show(files: &[PathBuf], as_json: bool) -> u8 {
    let now = Clock::machine().now();
    let mut is_good = true;
    for file in files {
        match read_pem(file) {
            Ok(contents) => {
                is_good &= contents.certificates.iter().all(|certificate| certificate.seconds_left(now) > 0);
                if as_json {
                    say!("{}", described(file, &contents, now));
                } else {
                    print(file, &contents, now);
                }
            }
            Err(error) => {
                is_good = false;
                complain!("{error}");
            }
        }
    }
    if is_good { DONE } else { FAILED }
}

fn print(file: &Path, contents: &Contents, now: Timestamp) {
    say!("{}", file.display());
    for certificate in &contents.certificates {
        let kind = if certificate.is_ca { "CA certificate" } else { "certificate" };
        say!("  {kind} {}", certificate.subject);
        let names: Vec<&str> = certificate.identities().collect();
        let addresses = certificate.addresses.iter().map(ToString::to_string);
        let names = unique(names.into_iter().map(str::to_owned).chain(addresses));
        say!("    names        {}", names.join(", "));
        if !certificate.is_self_issued {
            say!("    issuer       {}", certificate.issuer);
        }
        let (from, to) = (date_text(certificate.not_before), date_text(certificate.not_after));
        say!("    valid        {from} to {to}, {}", left(certificate, now));
        say!("    serial       {}", certificate.serial);
        say!("    fingerprint  {}", certificate.fingerprint);
    }
    if let Some(key) = &contents.key {
        let fits = PrivateKey::from_der(key).ok().zip(contents.certificates.first());
        say!(
            "  key{}",
            match fits {
                Some((key, certificate)) if key.fits(certificate) => ", of the first certificate",
                Some(_) => ", which does not belong to the first certificate",
                None => "",
            }
        );
    }
}

/// `89 days left`, `ended 3 days ago`.
pub(super) fn left(certificate: &Certificate, now: Timestamp) -> String {
    days_text(certificate.seconds_left(now))
}

/// As [`left`], from seconds.
pub(super) fn days_text(seconds: i64) -> String {
    match seconds {
        i64::MIN..0 => format!("ended {} days ago", -seconds / 86_400),
        0..172_800 => format!("{} hours left", seconds / 3600),
        _ => format!("{} days left", seconds / 86_400),
    }
}

fn described(file: &Path, contents: &Contents, now: Timestamp) -> serde_json::Value {
    let certificates: Vec<_> = contents.certificates.iter().map(|certificate| {
        json!({
            "subject": certificate.subject, "issuer": certificate.issuer, "common_name": certificate.common_name,
            "names": certificate.server_names(), "uris": certificate.uris, "emails": certificate.emails,
            "is_ca": certificate.is_ca, "serial": certificate.serial,
            "not_before": certificate.not_before.to_string(), "not_after": certificate.not_after.to_string(),
            "seconds_left": certificate.seconds_left(now), "fingerprint": certificate.fingerprint.to_string(),
        })
    }).collect();
    json!({ "file": file, "certificates": certificates, "has_key": contents.key.is_some() })
}

/// The machine's name, if it can be in a certificate.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_lowercase();
    check_server_name(&name).is_ok().then_some(name)
}

fn unique(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn text(error: PkiError) -> String {
    error.to_string()
}
