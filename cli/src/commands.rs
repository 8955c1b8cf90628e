//! One file per command; each `run` returns the process's exit code.

pub mod agent;
pub mod bench;
pub mod browse;
pub mod cert;
pub mod check;
pub mod command;
pub mod demo;
pub mod file;
pub mod init;
pub mod join;
pub mod log;
pub mod points;
pub mod probe;
pub mod quarantine;
pub mod reconcile;
pub mod run;
pub mod service;
pub mod sim;
pub mod table;
pub mod user;
