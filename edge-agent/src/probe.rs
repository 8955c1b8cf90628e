//! Looking into a device without a configuration: what `forebay probe` asks.

pub use crate::drivers::modbus::probe::{Cell, Probe, characters, read, readings};
