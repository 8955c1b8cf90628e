//! Kepware (KEPServerEX, Kepware Server, TOP Server): CSV of tags.
//!
//! Columns and addresses as the vendor documents them (support.ptc.com: "CSV Import and Export"; "Modbus Addressing"; "Standard
//! S7-300/400/1200/1500 Item Syntax"; "Logix Addressing"). Facts that are not in the file, with the defaults of the vendor's
//! drivers: Modbus addresses go out less one ("zero-based addressing"), numbers of several registers have their first word
//! low (CDAB).

use std::time::Duration;

use model::DataType;

use super::s7_place::S7Place;
use super::table::{Row, Table};
use super::{Draft, Found, describe, driver_named, modbus_place};

const ORDER_DEFAULT: &str = "CDAB";

pub(super) fn read(bytes: &[u8], found: &mut Found<'_>) -> Result<(), String> {
    let table = Table::read(bytes, None, &["Tag Name", "Address", "Data Type"])?;
    let addresses: Vec<&str> = table.rows.iter().map(|row| table.cell(row, "Address")).collect();
    found.driver = driver_named(found.options, looks_like(&addresses))?;
    for row in &table.rows {
        match tag(&table, row, found) {
            Ok(draft) => found.drafts.push(draft),
            Err((value, rule)) => found.leave_out(row.line, table.cell(row, "Tag Name"), &value, rule),
        }
    }
    Ok(())
}

/// One kind of device has one way to write addresses.
fn looks_like(addresses: &[&str]) -> &'static str {
    let is_s7 = |address: &&str| S7Place::parse(&address.to_ascii_uppercase()).is_some();
    let is_block = |address: &&str| address.to_ascii_uppercase().starts_with("DB") && address.contains(',');
    if addresses.iter().any(is_block) {
        "s7"
    } else if addresses.iter().any(|address| modbus_place::is_like(address)) {
        "modbus-tcp"
    } else if !addresses.is_empty() && addresses.iter().all(is_s7) {
        "s7"
    } else {
        "ethernet-ip"
    }
}

type Refused = (String, String);

fn tag(table: &Table, row: &Row, found: &mut Found<'_>) -> Result<Draft, Refused> {
    let cell = |column| table.cell(row, column);
    let (name, address) = (cell("Tag Name"), cell("Address"));
    let refused = |column: &str, rule: String| (table.cell(row, column).to_owned(), rule);
    let (data_type, is_bcd) = data_type(cell("Data Type")).map_err(|rule| refused("Data Type", rule))?;
    let address = match found.driver {
        "modbus-tcp" | "modbus-serial" => modbus(address, data_type, is_bcd, found),
        "s7" => s7(address, data_type),
        _ => Ok(address.to_owned()),
    };
    let address = address.map_err(|rule| refused("Address", rule))?;
    let mut draft = Draft::new(row.line, name, address, data_type);
    scaling(table, row, &mut draft).map_err(|rule| refused("Scaling", rule))?;
    if draft.min.is_some() || draft.max.is_some() {
        found.note(
            "clamped values become min and max: a value outside is uncertain here, and not bent to the limit",
        );
    }
    let access = cell("Client Access").to_ascii_uppercase();
    if access == "WO" || access == "WRITE ONLY" {
        return Err(refused("Client Access", "is write only: there is nothing to read".into()));
    }
    draft.writable = found.options.writable && matches!(access.as_str(), "R/W" | "RW" | "READ/WRITE");
    draft.interval = super::digits(cell("Scan Rate"))
        .filter(|rate| *rate > 0)
        .map(|rate| Duration::from_millis(rate.into()));
    describe(&mut draft, cell("Eng Units"), cell("Description"));
    Ok(draft)
}

/// A type by Kepware's name, and whether it is BCD.
fn data_type(name: &str) -> Result<(DataType, bool), String> {
    let plain = |data_type| Ok((data_type, false));
    match name.to_ascii_lowercase().as_str() {
        "boolean" => plain(DataType::Boolean),
        "char" => plain(DataType::Int8),
        "byte" => plain(DataType::UInt8),
        "short" => plain(DataType::Int16),
        "word" => plain(DataType::UInt16),
        "long" => plain(DataType::Int32),
        "dword" => plain(DataType::UInt32),
        "llong" => plain(DataType::Int64),
        "qword" => plain(DataType::UInt64),
        "float" => plain(DataType::Float),
        "double" => plain(DataType::Double),
        "string" => plain(DataType::String),
        "date" => plain(DataType::DateTime),
        "bcd" => Ok((DataType::UInt16, true)),
        "lbcd" => Ok((DataType::UInt32, true)),
        name if name.ends_with("array") => {
            Err("is an array: write a point for each element that is wanted".into())
        }
        "" | "default" => Err("names no type: say in the export which one it is".into()),
        _ => Err("is no type of Kepware's".into()),
    }
}

fn modbus(text: &str, data_type: DataType, is_bcd: bool, found: &mut Found<'_>) -> Result<String, String> {
    let (number, behind) = modbus_place::split(text);
    if behind.contains('[') {
        return Err("is an array: write a point for each element that is wanted".into());
    }
    let place = modbus_place::place(number)?;
    if data_type == DataType::String {
        let length = behind.strip_prefix('.').unwrap_or("");
        let (length, order) = match length.strip_suffix(['L', 'l']) {
            Some(length) => (length, " byte=little"),
            None => (length.trim_end_matches(['H', 'h']), ""),
        };
        let length = super::digits(length).ok_or("needs its length, such as 400100.20H")?;
        return Ok(format!("{place} len={length}{order}"));
    }
    let bit = match behind.strip_prefix('.') {
        Some(bit) => Some(super::digits(bit).ok_or("has something behind it that is no bit")?),
        None if behind.is_empty() => None,
        None => return Err(format!("{behind:?} behind the number means nothing here")),
    };
    match (bit, data_type) {
        (Some(bit), DataType::Boolean) => return Ok(format!("{place}.{bit}")),
        (Some(_), _) => return Err("is a bit, and the type is not Boolean".into()),
        (None, _) => {}
    }
    let order = found.options.order.as_deref().unwrap_or(ORDER_DEFAULT);
    let option = modbus_place::order_option(order, data_type);
    if !option.is_empty() && found.options.order.is_none() {
        found.note(
            "the order of words is a setting of Kepware's device and not in its export: CDAB was taken (\"First Word Low\", \
             its default); with it switched off say --order ABCD",
        );
    }
    Ok(format!("{place}{option}{}", if is_bcd { " bcd" } else { "" }))
}

fn s7(text: &str, data_type: DataType) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("PI")
        || upper.starts_with("PE")
        || upper.starts_with("PQ")
        || upper.starts_with("PA")
    {
        return Err("is peripheral memory, which is not read here: use its process image".into());
    }
    let place = S7Place::parse(&upper).ok_or("is no address such as DB1,REAL4, MW10, I0.0 or T5")?;
    if place.is_array {
        return Err("is an array: write a point for each element that is wanted".into());
    }
    if place.is_counted() {
        return Ok(format!("{}{}", place.area, place.start));
    }
    let unlike = || format!("is {}, and the type is {}", place.kind, data_type.name());
    match (place.kind, data_type) {
        (_, DataType::Boolean) => place.bit().ok_or_else(|| "needs its bit, such as DB1,X0.3".into()),
        ("STRING", DataType::String) => {
            let room = place.behind.and_then(super::digits).unwrap_or(254);
            Ok(format!("{}[{room}]", place.named("STRING")))
        }
        ("C" | "CHAR" | "B" | "BYTE", DataType::String) => {
            let room =
                place.behind.and_then(super::digits).ok_or("needs its length, such as DB1,CHAR10.8")?;
            Ok(format!("{}[{room}]", place.named("CHAR")))
        }
        ("DT" | "DATE", DataType::DateTime) => Ok(place.named(place.kind)),
        ("T" | "TIME", data_type) if data_type.is_numeric() => Ok(place.named("TIME")),
        ("TOD", data_type) if data_type.is_numeric() => Ok(place.named("TOD")),
        (_, data_type) if data_type.is_numeric() => place.number(data_type).ok_or_else(unlike),
        _ => Err(unlike()),
    }
}

/// `scaled = (raw - raw low) × (scaled high - scaled low) / (raw high - raw low) + scaled low`, as one factor and one term.
fn scaling(table: &Table, row: &Row, draft: &mut Draft) -> Result<(), String> {
    let cell = |column| table.cell(row, column);
    let number = |column: &str| -> Result<f64, String> {
        let text = table.cell(row, column);
        let parsed = text.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite());
        parsed.ok_or_else(|| format!("needs {column}, and {text:?} is no number"))
    };
    match cell("Scaling").to_ascii_lowercase().as_str() {
        "" | "none" => return Ok(()),
        "linear" => {}
        other => return Err(format!("is {other}, which is no factor and term")),
    }
    if !draft.data_type.is_numeric() {
        return Err("scales something that is no number".into());
    }
    let (raw_low, raw_high) = (number("Raw Low")?, number("Raw High")?);
    let (low, high) = (number("Scaled Low")?, number("Scaled High")?);
    if raw_low == raw_high || low == high {
        return Err("has a range without length".into());
    }
    let is_yes = |column| matches!(cell(column).to_ascii_lowercase().as_str(), "1" | "true" | "yes");
    let sign = if is_yes("Negate Value") { -1.0 } else { 1.0 };
    let scale = (high - low) / (raw_high - raw_low);
    let offset = low - raw_low * scale;
    let (scale, offset) = (sign * scale, sign * offset);
    draft.scale = Some(scale).filter(|scale| *scale != 1.0);
    draft.offset = Some(offset).filter(|offset| *offset != 0.0);
    // Negated, the lower end is the upper one; and 0 is written without a sign.
    let (mut bottom, mut top) = (sign * low.min(high) + 0.0, sign * low.max(high) + 0.0);
    let (mut clamps_bottom, mut clamps_top) = (is_yes("Clamp Low"), is_yes("Clamp High"));
    if sign < 0.0 {
        std::mem::swap(&mut bottom, &mut top);
        std::mem::swap(&mut clamps_bottom, &mut clamps_top);
    }
    draft.min = clamps_bottom.then_some(bottom);
    draft.max = clamps_top.then_some(top);
    Ok(())
}
