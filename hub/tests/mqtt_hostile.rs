//! The hub's broker among clients that mean harm, and under SIGKILL: a hub in a process of its own, clients of raw bytes.
//!
//! - `storm`: everything that a hostile client may do, while a fresh one is served; memory before and after.
//! - `kills`: killed again and again under QoS 1 and 2; what was acknowledged is there, nothing of QoS 2 comes twice.
//!   `FOREBAY_KILLS=500 cargo test -p hub --test mqtt_hostile kills -- --nocapture` is the long form.
//! - `flow`: subscribers that never read.
//! - `faults`: what was found, each by itself.
//! - `fuzz`: packets of several clients in any order, whole and mutated (`FOREBAY_FUZZ_ITERATIONS=100000` for longer).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "what was measured is for people")]
#![allow(clippy::cast_possible_truncation, reason = "random numbers below a bound")]

#[path = "mqtt_hostile/hub_process.rs"]
mod hub_process;
#[path = "mqtt_hostile/peer.rs"]
mod peer;
#[path = "mqtt_conformance/strict_reader.rs"]
mod strict_reader;
#[allow(dead_code, reason = "the conformance tests use all of it")]
#[path = "mqtt_conformance/wire.rs"]
mod wire;

#[path = "mqtt_hostile/attacks.rs"]
mod attacks;
#[path = "mqtt_hostile/faults.rs"]
mod faults;
#[path = "mqtt_hostile/flow.rs"]
mod flow;
#[path = "mqtt_hostile/fuzz.rs"]
mod fuzz;
#[path = "mqtt_hostile/kills.rs"]
mod kills;
#[path = "mqtt_hostile/storm.rs"]
mod storm;
