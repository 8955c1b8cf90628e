//! `forebay init`: a commented configuration to start from.

use crate::arguments::{Init, Role};
use crate::output::DONE;
use crate::{complain, say};

const EDGE: &str = include_str!("../../templates/edge.toml");
const TRIAL_POINTS: &str = include_str!("../../templates/trial.csv");
const HUB: &str = include_str!("../../templates/hub.toml");
const BRIDGE: &str = include_str!("../../templates/bridge.toml");

/// Prints the template; for an agent also says how to get its first point list.
#[must_use]
pub fn run(options: &Init) -> u8 {
    say!("{}", template(options.role).trim_end());
    if options.role == Role::Edge {
        complain!("# its trial.csv, to be saved beside it:\n{}", TRIAL_POINTS.trim_end());
    }
    DONE
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
        std::fs::write(folder.path().join("trial.csv"), TRIAL_POINTS).unwrap();
        for (role, name) in [(Role::Edge, "edge"), (Role::Hub, "hub"), (Role::Bridge, "bridge")] {
            let file = folder.path().join(format!("{name}.toml"));
            std::fs::write(&file, template(role)).unwrap();
            let mut problems = Problems::default();
            let plant = crate::plant::load(&file, &mut problems);
            assert!(problems.is_empty(), "{name}: {:?}", problems.list);
            let plant = plant.unwrap();
            assert!(plant.edge.is_some() == (name == "edge") && plant.hub.is_some() == (name == "hub"));
        }
    }
}
