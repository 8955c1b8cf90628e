//! The keys that say where files are.

use runtime::config_file::{Problems, Section};

use super::super::place::remote::{Remote, Scheme, Trust};
use super::Where;

/// Reads them.
pub(super) fn place(section: &mut Section<'_>, problems: &mut Problems) -> Option<Where> {
    let remote = remote(section, problems);
    if section.has("url") {
        for key in ["folder", "watch"] {
            if section.has(key) {
                problems.push(section.problem(key, "is for a folder of this machine, not beside url"));
            }
        }
        return remote.map(Where::Remote);
    }
    if !section.has("folder") {
        problems.push(section.problem("folder", "is missing; write the folder in which the files are"));
    }
    let folder = section.path("folder", problems);
    let watch = section.checked("watch", problems, |text| match text {
        "auto" => Ok(true),
        "poll" => Ok(false),
        _ => Err("must be \"auto\" or \"poll\"".into()),
    });
    Some(Where::Folder(folder?.value, watch.is_none_or(|found| found.value)))
}

/// The keys that only some servers have.
const OF_SFTP: [&str; 4] = ["key_file", "key_password_file", "known_hosts_file", "host_key"];
const OF_FTP: [&str; 2] = ["ca_file", "allow_plain"];

/// The folder on a server.
fn remote(section: &mut Section<'_>, problems: &mut Problems) -> Option<Remote> {
    let url = section.checked("url", problems, Remote::parse);
    let mut path = |key| section.path(key, problems).map(|found| found.value);
    let (password_file, key_file) = (path("password_file"), path("key_file"));
    let (key_password_file, known_hosts, ca_file) =
        (path("key_password_file"), path("known_hosts_file"), path("ca_file"));
    let fingerprint = section.checked("host_key", problems, |text| {
        if text.starts_with("SHA256:") && text.len() == 50 {
            Ok(text.to_owned())
        } else {
            Err("must be \"SHA256:\" and 43 characters, as ssh-keygen -lf shows it".into())
        }
    });
    let allow_plain = section.boolean("allow_plain", problems).is_some_and(|found| found.value);
    if !section.has("url") {
        for key in [&["password_file"][..], &OF_SFTP, &OF_FTP].concat() {
            if section.has(key) {
                problems
                    .push(section.problem(key, "is for a server: write url = \"sftp://user@host/folder\""));
            }
        }
        return None;
    }
    let url = url?;
    let is_sftp = url.value.0 == "sftp";
    for key in if is_sftp { &OF_FTP[..] } else { &OF_SFTP[..] } {
        if section.has(key) {
            problems.push(section.problem(key, format!("is not for {}", url.value.0)));
        }
    }
    match (&password_file, &key_file) {
        (None, None) if is_sftp => problems.push(url.problem("needs password_file or key_file beside it")),
        (None, _) if !is_sftp => problems.push(url.problem("needs password_file beside it")),
        _ => {}
    }
    let trust = match (url.value.0, fingerprint, known_hosts) {
        ("ftps", ..) => Some(Trust::Certificates(ca_file)),
        ("ftp", ..) if allow_plain && ca_file.is_none() => Some(Trust::Nobody),
        ("ftp", ..) => {
            let rule = "sends the password and all files in clear, to anybody who answers: write ftps://, or add \
                        allow_plain = true";
            problems.push(url.problem(rule));
            None
        }
        (_, Some(known), None) => Some(Trust::Fingerprint(known.value)),
        (_, None, Some(file)) => Some(Trust::KnownHosts(file)),
        _ => {
            problems.push(url.problem("needs host_key or known_hosts_file beside it, one of them"));
            None
        }
    };
    let (_, host, port, user, folder) = url.value;
    let (scheme, trust) = (if is_sftp { Scheme::Sftp } else { Scheme::Ftp }, trust?);
    Some(Remote { scheme, host, port, user, folder, password_file, key_file, key_password_file, trust })
}
