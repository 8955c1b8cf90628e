//! Our broker as the load meets it: `forebay run` with nothing but `[hub]`, and one identity that may publish and subscribe
//! what the load uses and logs in with a token.
//!
//! Its limits are above what the load needs; nothing else is changed.

use std::path::Path;
use std::process::Command;

use super::certificates::{CA, CERTIFICATE, KEY, make_certificates};
use super::{Broker, Needs, free_door, launch, write};

const USER: &str = "bench";
/// No secret: the broker that takes it lives for one run, on loopback.
const TOKEN: &str = "forebay-bench-not-a-secret";
const TOKEN_SHA256: &str = "00858cfdb25e6c078e36be50ffccf399ee73863f3cbe18c0911de43cafcaf2e4";

pub(super) fn start(program: &Path, dir: &Path, needs: Needs) -> Result<Broker, String> {
    let mut door = free_door(Some((USER, TOKEN)), None)?;
    let mut text = format!(
        "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n[hub]\ndata_dir = \"hub\"\n\
         [hub.http]\nlisten = \"127.0.0.1:0\"\n[hub.broker]\nlisten = \"{}\"\naccess_file = \"access.toml\"\n\
         [hub.broker.limits]\nconnections = 20000\nconnections_per_address = 20000\n\
         session_messages = 100000000\nsession_bytes = \"20GB\"\njournal_bytes = \"20GB\"\n",
        door.address
    );
    let access = format!(
        "version = 1\n[roles.bench]\npublish = [\"bench/#\"]\nsubscribe = [\"bench/#\"]\n\
         [[identities]]\nname = \"{USER}\"\nroles = [\"bench\"]\ntoken = \"sha256:{TOKEN_SHA256}\"\n"
    );
    if needs.tls {
        door = free_door(Some((USER, TOKEN)), Some(make_certificates(dir)?))?;
        text += &format!(
            "[[hub.broker.listeners]]\nlisten = \"{}\"\n\
             [hub.tls]\ncert_file = \"{CERTIFICATE}\"\nkey_file = \"{KEY}\"\nclient_ca_file = \"{CA}\"\n",
            door.address
        );
    }
    write(dir, "hub.toml", &text)?;
    write(dir, "access.toml", &access)?;
    let mut command = Command::new(program);
    command.args(["run", "hub.toml"]).env("RUST_LOG", "warn");
    launch(command, dir, door)
}
