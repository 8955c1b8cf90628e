//! The parts of the `forebay` binary that tests and benchmarks use too.

pub mod demo;
