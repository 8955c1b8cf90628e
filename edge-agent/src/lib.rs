//! The edge agent: reads devices, normalises, accepts into a durable log, speaks Sparkplug to its hub.

pub mod drivers;
pub mod points;
