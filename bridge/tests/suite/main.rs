//! The bridge against real folders, real HTTP and real readers.

mod readers;
mod sinks;
