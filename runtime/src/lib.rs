//! Process plumbing that three roles share; nothing about plants.

pub mod backoff;
pub mod clock;
pub mod config_file;
pub mod mqtt_client;
pub mod tasks;
pub mod telemetry;
