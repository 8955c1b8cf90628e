//! The edge agent: reads devices, normalises, accepts into a durable log, speaks Sparkplug to its hub.

#[cfg(any(test, feature = "test-util"))]
pub mod driver_conformance;
pub mod catalogue;
pub mod drivers;
pub mod normalise;
pub mod points;
