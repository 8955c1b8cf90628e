//! Neuron (EMQX Neuron, NeuronEX): the workbook of a southbound node's tags, or the same columns as CSV.
//!
//! Columns (group, interval, name, address, attribute, type, description, decimal, precision, bias) and addresses as the vendor
//! documents them (docs.emqx.com: "Import and export tags", "Modbus TCP", "Siemens S7 ISOTCP", "OPC UA"): Modbus
//! `SLAVE!ADDRESS[.BIT][#ENDIAN][.LEN[H|L]]`, S7 `DB1.DBW2[.BIT]`, `I0`, OPC UA `NS!NODE`. A value is `raw × decimal + bias`.

use std::time::Duration;

use model::DataType;

use super::s7_place::S7Place;
use super::table::{Row, Table};
use super::{Draft, Found, describe, digits, driver_named, modbus_place};

/// Types by the number that Neuron's API gives them.
const TYPES: [(&str, DataType); 14] = [
    ("int8", DataType::Int8),
    ("uint8", DataType::UInt8),
    ("int16", DataType::Int16),
    ("uint16", DataType::UInt16),
    ("int32", DataType::Int32),
    ("uint32", DataType::UInt32),
    ("int64", DataType::Int64),
    ("uint64", DataType::UInt64),
    ("float", DataType::Float),
    ("double", DataType::Double),
    ("bit", DataType::Boolean),
    ("bool", DataType::Boolean),
    ("string", DataType::String),
    ("bytes", DataType::Bytes),
];

pub(super) fn read(bytes: &[u8], found: &mut Found<'_>) -> Result<(), String> {
    let table = Table::read(bytes, None, &["name", "address", "type"])?;
    let addresses: Vec<&str> = table.rows.iter().map(|row| table.cell(row, "address")).collect();
    found.driver = driver_named(found.options, looks_like(&addresses))?;
    for row in &table.rows {
        match tag(&table, row, found) {
            Ok(Some(draft)) => found.drafts.push(draft),
            Ok(None) => {}
            Err((value, rule)) => found.leave_out(row.line, table.cell(row, "name"), &value, rule),
        }
    }
    Ok(())
}

fn looks_like(addresses: &[&str]) -> &'static str {
    let is_modbus = |address: &&str| {
        address
            .split_once('!')
            .is_some_and(|(unit, rest)| digits(unit).is_some() && modbus_place::is_like(rest))
    };
    if addresses.iter().any(is_modbus) {
        "modbus-tcp"
    } else if addresses.iter().any(|address| address.contains('!')) {
        "opcua"
    } else {
        "s7"
    }
}

fn tag(table: &Table, row: &Row, found: &mut Found<'_>) -> Result<Option<Draft>, (String, String)> {
    let cell = |column| table.cell(row, column);
    let (name, written) = (cell("name"), cell("address"));
    let type_name = cell("type").to_ascii_lowercase();
    let by_number = digits(&type_name).and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
    let known = by_number
        .map_or_else(|| TYPES.iter().find(|(known, _)| *known == type_name), |number| TYPES.get(number));
    let unknown = || (cell("type").to_owned(), "is no type of Neuron's that is known here".to_owned());
    let data_type = known.map(|(_, data_type)| *data_type).ok_or_else(unknown)?;
    let address = match found.driver {
        "modbus-tcp" | "modbus-serial" => {
            let (unit, place) =
                modbus(written, data_type, found).map_err(|rule| (written.to_owned(), rule))?;
            if !found.is_of_unit(row.line, name, unit) {
                return Ok(None);
            }
            place
        }
        "s7" => s7(written, data_type).map_err(|rule| (written.to_owned(), rule))?,
        "opcua" => opcua(written).map_err(|rule| (written.to_owned(), rule))?,
        _ => written.to_owned(),
    };
    let mut draft = Draft::new(row.line, name, address, data_type);
    draft.within = cell("group").to_owned();
    draft.interval =
        digits(cell("interval")).filter(|rate| *rate > 0).map(|rate| Duration::from_millis(rate.into()));
    let number = |column: &str| {
        let text = table.cell(row, column);
        let parsed = text.parse::<f64>().ok().filter(|number| number.is_finite());
        if text.is_empty() || parsed.is_some() {
            Ok(parsed.filter(|number| *number != 0.0))
        } else {
            Err((text.to_owned(), format!("{column} is no number")))
        }
    };
    draft.scale = number("decimal")?.filter(|scale| *scale != 1.0);
    draft.offset = number("bias")?;
    let attribute = cell("attribute").to_ascii_lowercase();
    let bits = digits(&attribute).unwrap_or_default(); // 1 read, 2 write, 4 subscribe, 8 static
    if attribute.contains("static") || bits & 8 != 0 {
        return Err((cell("attribute").to_owned(), "is a value that Neuron itself holds".into()));
    }
    draft.writable = found.options.writable && (attribute.contains("write") || bits & 2 != 0);
    if number("precision")?.is_some() {
        found.note("precision only rounds what Neuron shows: values come as they are");
    }
    describe(&mut draft, cell("unit"), cell("description"));
    Ok(Some(draft))
}

/// `1!400001.15`, `1!400003#BL`, `1!400010.20H`.
fn modbus(text: &str, data_type: DataType, found: &mut Found<'_>) -> Result<(u8, String), String> {
    let (unit, rest) = text.split_once('!').ok_or("is no address such as 1!400001")?;
    let unit = digits(unit).and_then(|unit| u8::try_from(unit).ok()).ok_or("has no unit from 0 to 255")?;
    let (number, behind) = modbus_place::split(rest);
    let place = modbus_place::place(number)?;
    let (behind, endian) = match behind.split_once('#') {
        Some((behind, endian)) => {
            let (endian, rest) = endian.split_once('.').unwrap_or((endian, ""));
            (
                if rest.is_empty() { behind.to_owned() } else { format!("{behind}.{rest}") },
                endian.to_ascii_uppercase(),
            )
        }
        None => (behind.to_owned(), String::new()),
    };
    let behind = behind.strip_prefix('.').unwrap_or(&behind).to_ascii_uppercase();
    if matches!(data_type, DataType::String | DataType::Bytes) {
        let (length, order) = match behind.strip_suffix(['L', 'D', 'E']) {
            Some(length) if behind.ends_with('L') => (length, " byte=little"),
            Some(_) => return Err("has one character in a register, which is not read here".into()),
            None => (behind.trim_end_matches('H'), ""),
        };
        if !behind.ends_with(['H', 'L']) && data_type == DataType::String {
            found.note("texts without H or L: the high byte of a register is taken as the first character");
        }
        let length = digits(length).ok_or("needs its length, such as 1!400001.20H")?;
        return Ok((unit, format!("{place} len={length}{order}")));
    }
    if !behind.is_empty() {
        let bit = digits(&behind).ok_or("has something behind it that is no bit")?;
        return if data_type == DataType::Boolean {
            Ok((unit, format!("{place}.{bit}")))
        } else {
            Err("is a bit, and the type is not BIT".into())
        };
    }
    // L and B are the orders of one register, the others of two: 1,2,3,4 is ABCD.
    let order = match endian.as_str() {
        "" => found.options.order.clone().unwrap_or_else(|| "ABCD".into()),
        "L" | "LL" => "ABCD".into(),
        "B" | "LB" => "BADC".into(),
        "BL" => "CDAB".into(),
        "BB" => "DCBA".into(),
        _ => return Err(format!("#{endian} is no order of bytes")),
    };
    Ok((unit, format!("{place}{}", modbus_place::order_option(&order, data_type))))
}

fn s7(text: &str, data_type: DataType) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let place = S7Place::parse(&upper).ok_or("is no address such as DB1.DBW2, I0, Q4.1 or T5")?;
    if place.is_counted() {
        return Ok(format!("{}{}", place.area, place.start));
    }
    match data_type {
        DataType::Boolean => place.bit().ok_or_else(|| "needs its bit, such as DB1.DBX0.3".into()),
        DataType::String | DataType::Bytes => {
            Err("is a text: whether it is a STRING or characters is not in the export, write DB1.STRING2[20] or DB1.CHAR2[20]".into())
        }
        _ => place.number(data_type).ok_or_else(|| "is of a type that has no length".into()),
    }
}

/// `2!Device1.Temperature`, `2!1007`.
fn opcua(text: &str) -> Result<String, String> {
    let (namespace, node) = text.split_once('!').ok_or("is no address such as 2!Device1.Temperature")?;
    let namespace = digits(namespace).ok_or("has no namespace that is a number")?;
    let is_guid = node.len() == 36 && node.bytes().filter(|byte| *byte == b'-').count() == 4;
    let kind = if digits(node).is_some() {
        "i"
    } else if is_guid {
        "g"
    } else {
        "s"
    };
    Ok(format!("ns={namespace};{kind}={node}"))
}
