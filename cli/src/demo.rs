//! The simulated plant of `forebay demo`: a PLC and a machine that writes CSV files, both replaying real recordings.

pub mod csv_writer;
pub mod plc;
