//! The bridge against real folders, real HTTP and real readers.

#![expect(clippy::unwrap_used, reason = "a failing test is the message")]

mod emulators;
mod hub;
mod lake;
mod pump;
mod readers;
mod refusals;
mod sinks;
mod stores;
mod upkeep;
