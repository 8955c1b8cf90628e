//! The command line: wires the roles of one process, and the tools around them.
//!
//! The roles never import each other; this crate is the one place that knows all three.

pub mod arguments;
pub mod commands;
pub mod demo;
pub mod hub_client;
pub mod output;
pub mod plant;
pub mod process;
pub mod reconcile;
