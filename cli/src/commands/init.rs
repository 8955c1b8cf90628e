//! `forebay init`: a commented configuration to start from.

use std::io::Write as _;
use std::path::Path;

use crate::arguments::{Init, Role};
use crate::output::{DONE, FAILED};
use crate::{complain, say};

const EDGE: &str = include_str!("../../templates/edge.toml");
const TRIAL_POINTS: &str = include_str!("../../templates/trial.csv");
const HUB: &str = include_str!("../../templates/hub.toml");
const BRIDGE: &str = include_str!("../../templates/bridge.toml");

/// Prints the template, or writes it into a folder; an agent's has a point list.
#[must_use]
pub fn run(options: &Init) -> u8 {
    if let Some(dir) = &options.dir {
        return match write(dir, options.role) {
            Ok(()) => DONE,
            Err(error) => {
                complain!("{error}");
                FAILED
            }
        };
    }
    say!("{}", template(options.role).trim_end());
    if options.role == Role::Edge {
        complain!("# its trial.csv, to be saved beside it:\n{}", TRIAL_POINTS.trim_end());
    }
    DONE
}

fn write(dir: &Path, role: Role) -> Result<(), String> {
    let (name, list) = match role {
        Role::Edge => ("edge.toml", Some(("trial.csv", TRIAL_POINTS))),
        Role::Hub => ("hub.toml", None),
        Role::Bridge => ("bridge.toml", None),
    };
    std::fs::create_dir_all(dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
    for (name, text) in std::iter::once((name, template(role))).chain(list) {
        let path = dir.join(name);
        std::fs::File::create_new(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        say!("written: {}", path.display());
    }
    Ok(())
}

/// The template of a role.
#[must_use]
pub const fn template(role: Role) -> &'static str {
    match role {
        Role::Edge => EDGE,
        Role::Hub => HUB,
        Role::Bridge => BRIDGE,
    }
}

#[cfg(test)]
mod tests {
    use runtime::config_file::Problems;

    use super::*;

    #[test]
    fn every_template_is_a_good_configuration() {
        let folder = tempfile::tempdir().unwrap();
        for (role, name) in [(Role::Edge, "edge"), (Role::Hub, "hub"), (Role::Bridge, "bridge")] {
            let file = folder.path().join(format!("{name}.toml"));
            write(folder.path(), role).unwrap();
            assert!(write(folder.path(), role).unwrap_err().contains("exists"));
            let mut problems = Problems::default();
            let plant = crate::plant::load(&file, &mut problems);
            assert!(problems.is_empty(), "{name}: {:?}", problems.list);
            let plant = plant.unwrap();
            assert!(plant.edge.is_some() == (name == "edge") && plant.hub.is_some() == (name == "hub"));
        }
    }
}
