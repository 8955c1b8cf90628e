//! The keys that say where files are.

use runtime::config_file::{Problems, Section};

use super::super::place::remote::{Remote, Trust};
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

/// The folder on a server.
fn remote(section: &mut Section<'_>, problems: &mut Problems) -> Option<Remote> {
    let url = section.checked("url", problems, Remote::parse);
    let mut path = |key| section.path(key, problems).map(|found| found.value);
    let (password_file, key_file) = (path("password_file"), path("key_file"));
    let (key_password_file, known_hosts) = (path("key_password_file"), path("known_hosts_file"));
    let fingerprint = section.checked("host_key", problems, |text| {
        if text.starts_with("SHA256:") && text.len() == 50 {
            Ok(text.to_owned())
        } else {
            Err("must be \"SHA256:\" and 43 characters, as ssh-keygen -lf shows it".into())
        }
    });
    if !section.has("url") {
        for key in ["password_file", "key_file", "key_password_file", "known_hosts_file", "host_key"] {
            if section.has(key) {
                problems
                    .push(section.problem(key, "is for a server: write url = \"sftp://user@host/folder\""));
            }
        }
        return None;
    }
    let url = url?;
    if password_file.is_none() && key_file.is_none() {
        problems.push(url.problem("needs password_file or key_file beside it"));
    }
    let trust = match (fingerprint, known_hosts) {
        (Some(known), None) => Some(Trust::Fingerprint(known.value)),
        (None, Some(file)) => Some(Trust::KnownHosts(file)),
        _ => {
            problems.push(url.problem("needs host_key or known_hosts_file beside it, one of them"));
            None
        }
    };
    let (scheme, host, port, user, folder) = url.value;
    let trust = trust?;
    Some(Remote { scheme, host, port, user, folder, password_file, key_file, key_password_file, trust })
}
