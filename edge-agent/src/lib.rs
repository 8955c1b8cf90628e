//! The edge agent: reads devices, normalises, accepts into a durable log, speaks Sparkplug to its hub.

pub mod catalogue;
#[cfg(any(test, feature = "test-util"))]
pub mod driver_conformance;
pub mod drivers;
pub mod edge_node;
pub mod normalise;
pub mod outbox;
pub mod points;
