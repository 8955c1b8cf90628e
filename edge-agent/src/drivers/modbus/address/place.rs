//! The place in an address: table, number by the device's way of counting, bit; or SunSpec models and a register in them. Pure.

use super::Table;

/// How the numbers of addresses count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Addressing {
    /// `hr:0` is the first register, as in the protocol.
    #[default]
    ZeroBased,
    /// `hr:1` is the first register.
    OneBased,
    /// `40001` or `400001` is the first holding register, `30001` input register, `10001` discrete input, `00001` coil.
    Modicon,
}

/// The names of [`Addressing`] in configurations.
pub(in super::super) const ADDRESSINGS: [(&str, Addressing); 3] = [
    ("zero-based", Addressing::ZeroBased),
    ("one-based", Addressing::OneBased),
    ("modicon", Addressing::Modicon),
];

pub(super) const SYNTAX: &str = "write co:N, di:N, ir:N or hr:N with N from 0 to 65535, for a bit of a register hr:N.B with B from 0 to 15, then \
     word=big|little, byte=big|little or ABCD|CDAB|BADC|DCBA";

/// Models (for SunSpec), table, first cell and bit.
type Place = (Vec<u16>, Table, u16, Option<u8>);

pub(super) fn place_of(place: &str, addressing: Addressing) -> Result<Place, String> {
    if let Some(rest) = place.strip_prefix("sunspec:") {
        let syntax =
            "write sunspec:MODEL:REGISTER, such as sunspec:101|102|103:14, counted from the model's ID";
        let (models, number) = rest.split_once(':').ok_or(syntax)?;
        let models: Option<Vec<u16>> = models.split('|').map(digits).collect();
        let (number, bit) = number_and_bit(number)?;
        let start = digits(number).ok_or(syntax)?;
        return Ok((models.ok_or(syntax)?, Table::HoldingRegisters, start, bit));
    }
    let (table, number) = match (place.split_once(':'), addressing) {
        (Some((name, number)), Addressing::ZeroBased | Addressing::OneBased) => {
            (Some(table_named(name)?), number)
        }
        (Some((name, number)), Addressing::Modicon) => {
            let table = table_named(name)?;
            let meant =
                digits::<u32>(number.split('.').next().unwrap_or(number)).map_or(0, |number| number + 1);
            let (digit, _) = MODICON.iter().find(|(_, known)| *known == table).ok_or(SYNTAX)?;
            return Err(format!(
                "with addressing = \"modicon\" the first register is {digit}0001; if {place} counts from 0, write {digit}{meant:04}"
            ));
        }
        (None, Addressing::Modicon) => (None, place),
        (None, Addressing::ZeroBased | Addressing::OneBased) => {
            return Err(one_based(place, addressing).unwrap_or_else(|| SYNTAX.to_owned()));
        }
    };
    let (number, bit) = number_and_bit(number)?;
    match table {
        Some(table) => Ok((Vec::new(), table, protocol_number(number, table, addressing)?, bit)),
        None => {
            let (table, start) = modicon(number)?;
            Ok((Vec::new(), table, start, bit))
        }
    }
}

fn number_and_bit(text: &str) -> Result<(&str, Option<u8>), String> {
    match text.split_once('.') {
        Some((number, bit)) => Ok((number, Some(parse_bit(bit)?))),
        None => Ok((text, None)),
    }
}

/// A register of `table` by the device's way of counting, as the protocol counts.
pub(super) fn protocol_number(text: &str, table: Table, addressing: Addressing) -> Result<u16, String> {
    match addressing {
        Addressing::ZeroBased => digits(text).ok_or_else(|| bad_number(text)),
        Addressing::OneBased => {
            let number = digits::<u32>(text).and_then(|number| number.checked_sub(1));
            number
                .and_then(|number| u16::try_from(number).ok())
                .ok_or_else(|| format!("{text:?} is no address from 1 to 65536 (addressing = \"one-based\")"))
        }
        Addressing::Modicon => {
            let (of, number) = modicon(text)?;
            if of == table { Ok(number) } else { Err(format!("{text} is in another table")) }
        }
    }
}

pub(super) fn bad_number(text: &str) -> String {
    format!("{text:?} is no address from 0 to 65535; {SYNTAX}")
}

const MODICON: [(&str, Table); 4] = [
    ("0", Table::Coils),
    ("1", Table::DiscreteInputs),
    ("3", Table::InputRegisters),
    ("4", Table::HoldingRegisters),
];

fn modicon(text: &str) -> Result<(Table, u16), String> {
    let syntax = || {
        format!(
            "{text:?} is no address of five or six digits: 4xxxx holding registers, 3xxxx input registers, 1xxxx \
             discrete inputs, 0xxxx coils, counted from 1 (addressing = \"modicon\")"
        )
    };
    let (kind, rest) = text.split_at_checked(1).filter(|_| matches!(text.len(), 5 | 6)).ok_or_else(syntax)?;
    let (_, table) = MODICON.iter().find(|(known, _)| *known == kind).ok_or_else(syntax)?;
    let number = digits::<u32>(rest).and_then(|number| number.checked_sub(1)).ok_or_else(syntax)?;
    Ok((*table, u16::try_from(number).map_err(|_| syntax())?))
}

/// What to write instead of `40001`, `400001`, `4x1`.
fn one_based(text: &str, addressing: Addressing) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (kind, rest) = match lower.split_once('x') {
        Some((kind, rest)) => (kind, rest),
        None if lower.len() == 5 || lower.len() == 6 => lower.split_at_checked(1)?,
        None => return None,
    };
    let (_, table) = MODICON.iter().find(|(known, _)| *known == kind)?;
    let (_, name) = Table::ALL.iter().find(|(known, _)| known == table)?;
    let number: u32 = digits(rest.split('.').next()?)?;
    let first = number.checked_sub(1).filter(|first| *first <= 65_535)?;
    let meant = if addressing == Addressing::OneBased { first + 1 } else { first };
    Some(format!(
        "one-based addresses are ambiguous; if {text} is the first form of the manual, write {name}:{meant}, or say \
         addressing = \"modicon\" for the whole device"
    ))
}

fn table_named(name: &str) -> Result<Table, String> {
    Table::ALL
        .into_iter()
        .find(|(_, known)| *known == name)
        .map(|(table, _)| table)
        .ok_or_else(|| format!("unknown table {name:?}; {SYNTAX}"))
}

fn parse_bit(text: &str) -> Result<u8, String> {
    digits(text).filter(|bit| *bit < 16).ok_or_else(|| format!("{text:?} is no bit from 0 to 15"))
}

/// A number of digits only: `parse` alone would take a sign.
pub(super) fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
