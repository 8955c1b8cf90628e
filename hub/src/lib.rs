//! The hub: broker, Sparkplug host, plant log, live view, commands and API, wired together here and nowhere else.

pub mod api;
pub mod broker;
pub mod catalogue;
pub mod commands;
pub mod config;
pub mod console;
pub mod host;
pub mod ledger;
pub mod live;
pub mod store;

pub use config::{Config, validate};
