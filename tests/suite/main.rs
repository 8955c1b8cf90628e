//! Whole plants, peers that are not ours, and the rule-book.

#![allow(clippy::unwrap_used, reason = "this whole crate is tests")]

mod access;
mod bad_folders;
mod bench;
mod books;
mod broker_interop;
mod certificates;
mod check_config;
mod command_round_trip;
mod csv_to_table;
mod demo;
mod faults;
mod first_steps;
mod foreign_nodes;
mod full_disk;
mod http_api;
mod outside_broker;
mod restored;
mod statements;
mod subscribers;
mod tidy;
