//! Bytes to model and back: Sparkplug payloads, log records, receipts and the hub's feed.
//!
//! Sans-I/O: no sockets, files, tasks or clocks. Every decoder returns an error for every byte string that it
//! cannot read: no panic, no allocation by an unchecked length, no recursion without a depth limit.

pub mod account;
pub mod feed;
pub mod health;
pub mod log_record;
pub mod mqtt;
pub mod receipt;
pub mod seal;
pub mod sparkplug;
mod varint;

/// Message types generated from `schema/`; a test regenerates and compares them.
#[allow(missing_docs, reason = "documented in the schema")]
pub mod generated {
    #[rustfmt::skip]
    pub mod feed;
    #[rustfmt::skip]
    pub mod sparkplug;
}
