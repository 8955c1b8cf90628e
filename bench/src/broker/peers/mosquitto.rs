//! mosquitto as the load meets it.
//!
//! `set_tcp_nodelay` is on, as in the other brokers. Its queues are unbounded and a subscriber may have 1 000 messages
//! without acknowledgement: with the defaults (1 000 queued, 20 in flight) it drops what the others carry; they stand only
//! where subscribers that never read are the question. The run on disk
//! has `persistence` with its default autosave, each 30 minutes: nothing is synced before an acknowledgement.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::certificates::{CA, CERTIFICATE, KEY, make_certificates};
use super::{Broker, Needs, find_program, free_door, launch, write};

pub(super) fn program() -> Option<PathBuf> {
    find_program("mosquitto", &["/usr/sbin".into()])
}

pub(super) fn start(program: &Path, dir: &Path, needs: Needs) -> Result<Broker, String> {
    let tls = if needs.tls { Some(make_certificates(dir)?) } else { None };
    let door = free_door(None, tls)?;
    let tls = match door.tls {
        Some(_) => format!("cafile {CA}\ncertfile {CERTIFICATE}\nkeyfile {KEY}\n"),
        None => String::new(),
    };
    let persistence = if needs.disk {
        format!("persistence true\npersistence_location {}/\n", dir.display())
    } else {
        "persistence false\n".to_owned()
    };
    let queues =
        if needs.default_queues { "" } else { "max_queued_messages 0\nmax_inflight_messages 1000\n" };
    let text = format!(
        "listener {} 127.0.0.1\n{tls}allow_anonymous true\nset_tcp_nodelay true\n{queues}sys_interval 0\nlog_dest none\nuser root\n{persistence}",
        door.address.port()
    );
    write(dir, "mosquitto.conf", &text)?;
    let mut command = Command::new(program);
    command.args(["-c", "mosquitto.conf"]);
    launch(command, dir, door)
}
