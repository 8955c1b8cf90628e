//! TIA Portal: a PLC's tag table, exported as a workbook (sheet "PLC Tags") or brought into CSV.
//!
//! Columns and types as Siemens documents them (SIMATIC STEP 7 help, "Exporting and importing PLC tags": Name, Path, Data Type,
//! Logical Address, Comment, Hmi Visible, Hmi Accessible, Hmi Writeable). A tag table holds inputs, outputs, bit memory, timers
//! and counters; what is in data blocks is not exported by TIA and can be written as `%DB5.DBD4` in the same columns.

use model::DataType;

use super::s7_place::S7Place;
use super::table::{Row, Table};
use super::{Draft, Found, describe, driver_named};

pub(super) fn read(bytes: &[u8], found: &mut Found<'_>) -> Result<(), String> {
    let table = Table::read(bytes, Some("PLC Tags"), &["Name", "Data Type", "Logical Address"])?;
    found.driver = driver_named(found.options, "s7")?;
    for row in &table.rows {
        match tag(&table, row, found.options.writable) {
            Ok(draft) => found.drafts.push(draft),
            Err((value, rule)) => found.leave_out(row.line, table.cell(row, "Name"), &value, rule),
        }
    }
    Ok(())
}

fn tag(table: &Table, row: &Row, is_writable: bool) -> Result<Draft, (String, String)> {
    let cell = |column| table.cell(row, column);
    let (written, type_name) = (cell("Logical Address"), cell("Data Type"));
    let upper = written.to_ascii_uppercase();
    if upper.is_empty() {
        return Err((String::new(), "has no address".into()));
    }
    if upper.ends_with(":P") {
        return Err((
            written.into(),
            "is direct access to a module, which is not read here: use its process image".into(),
        ));
    }
    let place = S7Place::parse(&upper).ok_or_else(|| {
        (written.to_owned(), "is no address such as %MW10, %I0.0, %DB5.DBD4 or %T5".to_owned())
    })?;
    let kind = type_name.trim_matches('"').to_ascii_lowercase();
    let (data_type, address) =
        place_of(&kind, type_name, &place).map_err(|rule| (type_name.to_owned(), rule))?;
    let mut draft = Draft::new(row.line, cell("Name"), address, data_type);
    draft.within = cell("Path").replace('\\', "/");
    let may_write = !matches!(cell("Hmi Writeable").to_ascii_lowercase().as_str(), "false" | "0" | "");
    draft.writable = is_writable && may_write && !place.is_counted() && place.area != "I";
    describe(&mut draft, "", cell("Comment"));
    Ok(draft)
}

/// What a type of TIA's is here, and the address for it.
fn place_of(kind: &str, written: &str, place: &S7Place<'_>) -> Result<(DataType, String), String> {
    let number = |data_type: DataType| {
        let address = place.number(data_type).ok_or("has no length of its own")?;
        let fits = place.kind.is_empty() || S7Place::letter(data_type) == Some(place.kind);
        if !fits || place.behind.is_some() {
            return Err("does not fit the length of its address".to_owned());
        }
        Ok((data_type, address))
    };
    let named = |data_type, name: &str| Ok((data_type, place.named(name)));
    if place.is_counted() {
        let data_type = if place.area == "T" { DataType::UInt32 } else { DataType::UInt16 };
        return Ok((data_type, format!("{}{}", place.area, place.start)));
    }
    match kind {
        "bool" => place
            .bit()
            .map(|address| (DataType::Boolean, address))
            .ok_or_else(|| "needs a bit, such as %M0.3".into()),
        "byte" | "usint" => number(DataType::UInt8),
        "sint" => number(DataType::Int8),
        "word" | "uint" => number(DataType::UInt16),
        "int" => number(DataType::Int16),
        "dword" | "udint" => number(DataType::UInt32),
        "dint" => number(DataType::Int32),
        "lword" | "ulint" => number(DataType::UInt64),
        "lint" => number(DataType::Int64),
        "real" => number(DataType::Float),
        "lreal" => number(DataType::Double),
        "char" => Ok((DataType::String, format!("{}[1]", place.named("CHAR")))),
        "time" => named(DataType::Int32, "TIME"),
        "ltime" => named(DataType::Int64, "LTIME"),
        "s5time" => named(DataType::UInt32, "S5TIME"),
        "tod" | "time_of_day" => named(DataType::UInt32, "TOD"),
        "date" => named(DataType::DateTime, "DATE"),
        "dt" | "date_and_time" => named(DataType::DateTime, "DT"),
        "ldt" | "date_and_ltime" => named(DataType::DateTime, "LDT"),
        "dtl" => named(DataType::DateTime, "DTL"),
        text if text.starts_with("string") || text.starts_with("wstring") => {
            let name = if text.starts_with('w') { "WSTRING" } else { "STRING" };
            let room = text.split_once('[').map(|(_, room)| room.trim_end_matches(']'));
            let room = room.map_or(Some(254), super::digits).ok_or("has no length that is a number")?;
            Ok((DataType::String, format!("{}[{room}]", place.named(name))))
        }
        text if text.starts_with("array") => {
            Err("is an array: write a point for each element that is wanted".into())
        }
        _ if written.starts_with('"') => {
            Err("is a type of the project's own: write a point for each member".into())
        }
        _ => Err("is no elementary type: write a point for each member that is wanted".into()),
    }
}
