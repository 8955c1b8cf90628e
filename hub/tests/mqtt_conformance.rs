//! Every statement of MQTT 5.0 and 3.1.1 that applies to a server, and what Sparkplug 3.0 asks of one, shown over real
//! sockets.
//!
//! Each test's comment names the statements it shows, as `5.0:`, `3.1.1:` and `Sparkplug 3.0:` lines. The lists of all
//! statements, with the tests of each or the reason for none, are in `tests/conformance/`; a test of the suite in
//! `tests/` holds lists and comments together. Absence is shown by a PINGREQ: what would have come had to
//! come before its answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "mqtt_conformance/broker.rs"]
mod broker;
#[path = "mqtt_conformance/client.rs"]
mod client;
#[path = "mqtt_conformance/our_hub.rs"]
mod our_hub;
#[path = "mqtt_conformance/strict_reader.rs"]
mod strict_reader;
#[path = "mqtt_conformance/wire.rs"]
mod wire;

#[path = "mqtt_conformance/connect.rs"]
mod connect;
#[path = "mqtt_conformance/delivery.rs"]
mod delivery;
#[path = "mqtt_conformance/leaving.rs"]
mod leaving;
#[path = "mqtt_conformance/limits.rs"]
mod limits;
#[path = "mqtt_conformance/publish.rs"]
mod publish;
#[path = "mqtt_conformance/restart.rs"]
mod restart;
#[path = "mqtt_conformance/retain.rs"]
mod retain;
#[path = "mqtt_conformance/session.rs"]
mod session;
#[path = "mqtt_conformance/sparkplug_aware.rs"]
mod sparkplug_aware;
#[path = "mqtt_conformance/subscribe.rs"]
mod subscribe;
#[path = "mqtt_conformance/topics.rs"]
mod topics;
#[path = "mqtt_conformance/websocket.rs"]
mod websocket;
#[path = "mqtt_conformance/will.rs"]
mod will;
