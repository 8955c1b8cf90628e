//! What the demo runs beside Forebay: a simulated PLC, a machine that writes files, and the plant's configuration.

pub mod csv_writer;
pub mod plc;
pub mod site;
