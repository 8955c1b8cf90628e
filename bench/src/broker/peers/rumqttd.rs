//! rumqttd as the load meets it: the configuration of its repository without console and metrics, with limits above what
//! the load needs, and larger batches (2 000 messages out and 1 000 in instead of 200 and 100), with which it was 10 to 20 %
//! faster.
//!
//! It keeps its log in memory, at most 10 segments of 100 MB, which is its default and the reason for its memory. A
//! subscriber may have 100 messages without acknowledgement; that is a constant in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Broker, Needs, find_program, free_door, launch, write};

pub(super) fn program() -> Option<PathBuf> {
    let built = std::env::var_os("FOREBAY_BENCH_PEERS").map_or(".bench-peers".into(), PathBuf::from);
    find_program("rumqttd", &[built.join("bin")])
}

pub(super) fn start(program: &Path, dir: &Path, _needs: Needs) -> Result<Broker, String> {
    let door = free_door(None, None)?;
    let text = format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 20010\nmax_outgoing_packet_count = 2000\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"bench\"\nlisten = \"{}\"\nnext_connection_delay_ms = 0\n\
         [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 65536\nmax_inflight_count = 1000\n\
         dynamic_filters = true\n",
        door.address
    );
    write(dir, "rumqttd.toml", &text)?;
    let mut command = Command::new(program);
    command.args(["-c", "rumqttd.toml", "-q"]);
    launch(command, dir, door)
}
