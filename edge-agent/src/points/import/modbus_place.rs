//! Modbus addresses of five or six digits, as Kepware and Neuron write them (40001 and 400001 are holding register 1), in our
//! words: `hr:0`. Both send one less than the number, which is how we count.

use model::DataType;

use super::digits;

/// The register or bit that a number such as 400001 means: `hr:0`.
pub(super) fn place(number: &str) -> Result<String, String> {
    let wrong = || format!("{number:?} is no Modbus address such as 400001, 300001, 100001 or 000001");
    let (kind, rest) = number.split_at_checked(1).ok_or_else(wrong)?;
    let table = match kind {
        "0" => "co",
        "1" => "di",
        "3" => "ir",
        "4" => "hr",
        _ => return Err(wrong()),
    };
    if rest.len() > 5 {
        return Err(wrong());
    }
    let first = digits(rest).and_then(|number| number.checked_sub(1)).filter(|first| *first <= 65_535);
    Ok(format!("{table}:{}", first.ok_or_else(wrong)?))
}

/// Whether the digits at the front can be such an address.
pub(super) fn is_like(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (5..=6).contains(&end) && text.starts_with(['0', '1', '3', '4'])
}

/// The number at the front, and what stands behind it.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The order of bytes as an option behind an address; the protocol's own needs none, and one register has two bytes only.
pub(super) fn order_option(order: &str, data_type: DataType) -> &'static str {
    let is_wide = matches!(
        data_type,
        DataType::Int32
            | DataType::UInt32
            | DataType::Float
            | DataType::Int64
            | DataType::UInt64
            | DataType::Double
    );
    match (order, is_wide) {
        ("CDAB", true) => " CDAB",
        ("BADC", true) => " BADC",
        ("DCBA", true) => " DCBA",
        ("BADC" | "DCBA", false) if matches!(data_type, DataType::Int16 | DataType::UInt16) => " byte=little",
        _ => "",
    }
}
