//! The promise under real faults: real processes killed at random moments, real links that break, and a table that is
//! compared twice afterwards. Short by default; `scripts/reliability` makes long runs of the same tests.

#![allow(clippy::unwrap_used, reason = "this whole crate is tests")]

mod checks;
mod corruption;
mod kills;
mod light_agents;
mod links;
mod probe;
mod ready;
mod soak;
mod storm;
