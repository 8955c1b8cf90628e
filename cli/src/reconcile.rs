//! Proof of promise 1: what agents accepted, what the hub holds and what the table says, compared by counts and
//! checksums per agent and epoch (design §4.4, §4.6).
//!
//! Reading goes upstream: first the table at one version, then the agents, then the hub's log from the sink's cursor on.
//! So on a running plant everything below the agents' ends, as they were read, is in one of four places: in the table, in
//! the hub's log behind the cursor, on the agent's disk only, or settled as lost with a reason. What is in none of them is
//! missing; what is in the table more than once is double. Both are a mismatch; so is a checksum that differs although
//! every offset is there.

pub mod cold;
pub mod compare;
pub mod live;
pub mod report;

pub use compare::{Balance, Findings, Line, Part, Place, Verdict, balance};
