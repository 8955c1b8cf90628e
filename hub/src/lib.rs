//! The hub: broker, Sparkplug host, plant log, live view, commands and API, wired together here and nowhere else.

pub mod catalogue;
pub mod config;
pub mod host;
pub mod ledger;
pub mod store;

pub use config::{Config, validate};
