//! What whole-plant tests need: the binary as a process, free ports, peers from other projects.

pub mod campaign;
pub mod fault_proxy;
pub mod peers;
pub mod plant;
pub mod process;
pub mod random;
