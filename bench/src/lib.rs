//! Benchmarks: each measures one road and returns figures; `forebay bench` prints them.
//!
//! Roles are measured as processes of their own (the binary that runs the bench), so that memory and CPU time are theirs.

pub mod agent;
pub mod broker;
pub mod codec;
pub mod figures;
pub mod generator;
pub mod ingest;
pub mod log;
pub mod machine;
pub mod memory;
pub mod plc;
mod report;
mod roles;
pub mod table;

pub use figures::{Figure, Figures};
