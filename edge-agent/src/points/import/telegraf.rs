//! Telegraf: the `[[inputs.modbus]]` of its configuration, in the styles "register", "request" and "metric".
//!
//! Keys as the plugin's README documents them (influxdata/telegraf, plugins/inputs/modbus). Addresses count from 0, as ours.
//! Everything else in the file (outputs, other inputs) is none of ours.

use model::DataType;
use runtime::config_file::{ConfigFile, Problems, Section};

use super::{Draft, Found, driver_named};

const ORDER_DEFAULT: &str = "ABCD";
/// Keys of the register style with their tables.
const TABLES: [(&str, &str); 4] =
    [("coils", "co"), ("discrete_inputs", "di"), ("holding_registers", "hr"), ("input_registers", "ir")];

pub(super) fn read(bytes: &[u8], found: &mut Found<'_>) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let file = ConfigFile::from_text(found.file, text.to_owned());
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    if let Some(problem) = problems.list.first() {
        return Err(problem.to_string());
    }
    let inputs = root.section("inputs", &mut problems);
    let devices = inputs.map(|mut inputs| inputs.sections("modbus", &mut problems)).unwrap_or_default();
    if devices.is_empty() {
        return Err("there is no [[inputs.modbus]] in it".into());
    }
    found.driver = driver_named(found.options, "modbus-tcp")?;
    for mut device in devices {
        let unit = unit(&mut device, &mut problems);
        for (key, table) in TABLES {
            for mut field in device.sections(key, &mut problems) {
                register(&mut field, table, unit.unwrap_or(0), found, &mut problems);
            }
        }
        for key in ["request", "metric"] {
            for mut request in device.sections(key, &mut problems) {
                several(&mut request, unit, found, &mut problems);
            }
        }
    }
    for problem in problems.list {
        found.left_out.push(problem); // values that are not of the type that the plugin wants
    }
    Ok(())
}

fn unit(section: &mut Section<'_>, problems: &mut Problems) -> Option<u8> {
    section.integer("slave_id", problems, 0..=255).and_then(|unit| u8::try_from(unit.value).ok())
}

fn text(section: &mut Section<'_>, key: &str, problems: &mut Problems) -> String {
    section.text(key, problems).map(|text| text.value).unwrap_or_default()
}

/// One entry of the register style.
fn register(field: &mut Section<'_>, table: &str, unit: u8, found: &mut Found<'_>, problems: &mut Problems) {
    let (line, name) = (field.line(), text(field, "name", problems));
    if !found.is_of_unit(line, &name, unit) {
        return;
    }
    let addresses =
        field.integers("address", problems, 0..=65_535).map(|list| list.value).unwrap_or_default();
    let consecutive = addresses.windows(2).all(|pair| matches!(pair, [a, b] if a + 1 == *b));
    let Some(first) = addresses.first().copied().filter(|_| consecutive) else {
        let rule = "needs its registers one behind the other, such as [5, 6]";
        return found.leave_out(line, &name, &format!("{addresses:?}"), rule);
    };
    let order = match text(field, "byte_order", problems).as_str() {
        "" => found.options.order.clone().unwrap_or_else(|| ORDER_DEFAULT.into()),
        order => order.to_owned(),
    };
    let bit = field.integer("bit", problems, 0..=15).map(|bit| bit.value);
    let what = What {
        table,
        first,
        registers: addresses.len(),
        kind: text(field, "data_type", problems),
        order,
        bit,
        length: None,
    };
    let scale = field.number("scale", problems).map(|scale| scale.value);
    let within = text(field, "measurement", problems);
    take(line, &name, within, &what, scale, found);
}

/// A request or metric with its fields.
fn several(
    request: &mut Section<'_>,
    unit_above: Option<u8>,
    found: &mut Found<'_>,
    problems: &mut Problems,
) {
    let unit = unit(request, problems).or(unit_above).unwrap_or(0);
    let order = match text(request, "byte_order", problems).as_str() {
        "" => found.options.order.clone().unwrap_or_else(|| ORDER_DEFAULT.into()),
        order => order.to_owned(),
    };
    let (register, measurement) =
        (text(request, "register", problems), text(request, "measurement", problems));
    for mut field in request.sections("fields", problems) {
        if field.boolean("omit", problems).is_some_and(|omit| omit.value) {
            continue;
        }
        let (line, name) = (field.line(), text(&mut field, "name", problems));
        if !found.is_of_unit(line, &name, unit) {
            continue;
        }
        let own = text(&mut field, "register", problems);
        let kind = [own, register.clone()].into_iter().find(|text| !text.is_empty());
        let table = match kind.as_deref().unwrap_or("holding") {
            "coil" => "co",
            "discrete" => "di",
            "holding" => "hr",
            "input" => "ir",
            other => {
                found.leave_out(line, &name, other, "is no kind of register");
                continue;
            }
        };
        let Some(first) = field.integer("address", problems, 0..=65_535) else { continue };
        let length =
            field.integer("length", problems, 1..=125).and_then(|length| usize::try_from(length.value).ok());
        let what = What {
            table,
            first: first.value,
            registers: 0,
            kind: text(&mut field, "type", problems),
            order: order.clone(),
            bit: field.integer("bit", problems, 0..=15).map(|bit| bit.value),
            length,
        };
        let scale = field.number("scale", problems).map(|scale| scale.value);
        let own = text(&mut field, "measurement", problems);
        let within = if own.is_empty() { measurement.clone() } else { own };
        take(line, &name, within, &what, scale, found);
    }
}

struct What<'a> {
    table: &'a str,
    first: i64,
    /// How many the list names; 0: the type says it.
    registers: usize,
    kind: String,
    order: String,
    bit: Option<i64>,
    /// Of a text, in registers.
    length: Option<usize>,
}

fn take(line: usize, name: &str, within: String, what: &What<'_>, scale: Option<f64>, found: &mut Found<'_>) {
    match address(what) {
        Ok((data_type, address)) => {
            let mut draft = Draft::new(line, name, address, data_type);
            draft.within = within;
            draft.scale = scale.filter(|scale| *scale != 1.0 && data_type.is_numeric());
            found.drafts.push(draft);
        }
        Err(rule) => found.leave_out(line, name, &what.kind, rule),
    }
}

fn address(what: &What<'_>) -> Result<(DataType, String), String> {
    let place = format!("{}:{}", what.table, what.first);
    if matches!(what.table, "co" | "di") {
        return Ok((DataType::Boolean, place));
    }
    let by_registers = |one, two, four| match what.registers {
        1 => Ok(one),
        2 => Ok(two),
        4 => Ok(four),
        _ => Err("of so many registers there is no number"),
    };
    let mut byte = "";
    let data_type = match what.kind.to_ascii_uppercase().as_str() {
        "BIT" => {
            let bit = what.bit.ok_or("needs its bit")?;
            return Ok((DataType::Boolean, format!("{place}.{bit}")));
        }
        "STRING" => {
            let registers = what.length.unwrap_or(what.registers);
            if registers == 0 {
                return Err("needs its length".into());
            }
            let order =
                if matches!(what.order.as_str(), "BA" | "DCBA" | "BADC") { " byte=little" } else { "" };
            return Ok((DataType::String, format!("{place} len={}{order}", registers * 2)));
        }
        "INT8L" => DataType::Int8,
        "UINT8L" => DataType::UInt8,
        "INT8H" => {
            byte = " byte=little";
            DataType::Int8
        }
        "UINT8H" => {
            byte = " byte=little";
            DataType::UInt8
        }
        "INT16" => DataType::Int16,
        "UINT16" => DataType::UInt16,
        "INT32" => DataType::Int32,
        "UINT32" => DataType::UInt32,
        "INT64" => DataType::Int64,
        "UINT64" => DataType::UInt64,
        "FLOAT32-IEEE" => DataType::Float,
        "FLOAT64-IEEE" | "FLOAT64" => DataType::Double,
        // Without "-IEEE" the register style means UFIXED, the request style the IEEE number.
        "FLOAT32" if what.registers == 0 => DataType::Float,
        "FIXED" => by_registers(DataType::Int16, DataType::Int32, DataType::Int64)?,
        "UFIXED" | "FLOAT32" => by_registers(DataType::UInt16, DataType::UInt32, DataType::UInt64)?,
        "" => return Err("has no type".into()),
        other => return Err(format!("{other} is not read here")),
    };
    let order = match what.order.as_str() {
        "AB" | "ABCD" => "ABCD",
        "BA" | "DCBA" => "DCBA",
        "BADC" => "BADC",
        "CDAB" => "CDAB",
        other => return Err(format!("{other:?} is no order of bytes")),
    };
    let option = super::modbus_place::order_option(order, data_type);
    Ok((data_type, format!("{place}{option}{byte}")))
}
