//! `forebay service install`: a hardened systemd unit.

use std::path::{Path, PathBuf};

use crate::arguments::{Service, ServiceAction};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, plant, say};

/// Writes or prints the unit.
#[must_use]
pub fn run(options: &Service) -> u8 {
    let ServiceAction::Install { file, name, user, unit_dir, print } = &options.action;
    let Some(plants) = plant::load_all(std::slice::from_ref(file)) else { return USAGE };
    let (Ok(file), Ok(program)) = (file.canonicalize(), std::env::current_exe()) else {
        complain!("the paths of the configuration and of this program cannot be resolved");
        return FAILED;
    };
    let writable = writable_paths(&plants);
    let unit = unit(&program, &file, name, user, &writable);
    if *print {
        say!("{}", unit.trim_end());
        return DONE;
    }
    let path = unit_dir.join(format!("{name}.service"));
    if let Err(error) = std::fs::write(&path, unit) {
        complain!("{} cannot be written: {error}. Run this as root, or with --print.", path.display());
        return FAILED;
    }
    say!("written: {}", path.display());
    say!("now run: useradd --system --no-create-home {user}   (once)");
    let folders: Vec<String> = writable.iter().map(|path| format!("\"{}\"", path.display())).collect();
    say!("         install -d -o {user} {}", folders.join(" "));
    say!("         systemctl daemon-reload && systemctl enable --now {name}");
    say!("         journalctl -u {name} -f");
    DONE
}

/// Where an agent that renews its certificate writes it.
fn renewed_certificate_folder(edge: &edge_agent::config::Config) -> Option<PathBuf> {
    let (certificate, _) = edge.enrol.as_ref().and(edge.hub.tls.as_ref())?.client.as_ref()?;
    certificate.parent().map(Path::to_owned)
}

/// The only places that the service may write: data directories, a renewed certificate's folder and local tables.
fn writable_paths(plants: &[plant::Plant]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for plant in plants {
        paths.extend(plant.edge.as_ref().map(|edge| edge.data_dir.clone()));
        paths.extend(plant.edge.as_ref().and_then(renewed_certificate_folder));
        paths.extend(plant.hub.as_ref().map(|hub| hub.data_dir.clone()));
        if let Some(bridge) = &plant.bridge {
            paths.extend(
                bridge.sinks.iter().filter_map(|sink| sink.sink.location()?.folder().map(Path::to_owned)),
            );
        }
    }
    paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
}

fn unit(program: &Path, file: &Path, name: &str, user: &str, writable: &[PathBuf]) -> String {
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    let writable: Vec<String> = writable.iter().map(|path| quoted(path)).collect();
    format!(
        "[Unit]\n\
         Description=Forebay plant data hub ({name})\n\
         Wants=network-online.target\n\
         After=network-online.target time-sync.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={} run {}\n\
         User={user}\n\
         Restart=always\n\
         RestartSec=2\n\
         # A mistake in the configuration does not go away by itself.\n\
         RestartPreventExitStatus=2\n\
         # Draining may take 20 s; killing it earlier loses nothing, it only replays more.\n\
         TimeoutStopSec=40\n\
         LimitNOFILE=65536\n\
         UMask=0077\n\
         ReadWritePaths={}\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=read-only\n\
         PrivateTmp=yes\n\
         PrivateDevices=yes\n\
         ProtectClock=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectControlGroups=yes\n\
         ProtectHostname=yes\n\
         ProtectProc=invisible\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service\n\
         SystemCallErrorNumber=EPERM\n\
         CapabilityBoundingSet=\n\
         AmbientCapabilities=\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        quoted(program),
        quoted(file),
        writable.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_may_write_only_where_data_lives() {
        let text =
            unit(Path::new("/usr/bin/forebay"), Path::new("/etc/f b.toml"), "f", "forebay", &["/d 1".into()]);
        assert!(text.contains("ExecStart=\"/usr/bin/forebay\" run \"/etc/f b.toml\"\n"));
        assert!(text.contains("ReadWritePaths=\"/d 1\"\n") && text.contains("ProtectSystem=strict\n"));
    }
}
