//! Process plumbing that three roles share; nothing about plants.

pub mod backoff;
pub mod clock;
pub mod config_file;
pub mod data_folder;
pub mod enrolment;
pub mod invariant;
pub mod mistakes;
pub mod mqtt_client;
pub mod pki;
pub mod tasks;
pub mod telemetry;
pub mod tls_server;
pub mod world;
