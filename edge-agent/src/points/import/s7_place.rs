//! Addresses of S7 memory as other programs write them, in our words: `DB1,REAL4` is `DB1.REAL4`.

use model::DataType;

/// What stands between area and number.
const KINDS: [&str; 29] = [
    "", "X", "B", "BYTE", "C", "CHAR", "W", "WORD", "I", "INT", "D", "DWORD", "DI", "DINT", "L", "LWORD",
    "REAL", "LREAL", "STRING", "WSTRING", "DT", "DATE", "T", "TIME", "TOD", "DTL", "LDT", "LTIME", "BOOL",
];

/// Where something is: area, the letters behind it, first byte, what follows a dot, array brackets.
pub(super) struct S7Place<'a> {
    /// `DB1.`, `M`, `I`, `Q`, `T`, `C`.
    pub(super) area: String,
    /// `REAL`, `W`, `X` or nothing.
    pub(super) kind: &'a str,
    pub(super) start: &'a str,
    /// Bit, or length of a text.
    pub(super) behind: Option<&'a str>,
    pub(super) is_array: bool,
}

impl<'a> S7Place<'a> {
    /// Takes an address in upper case apart. The separator behind a block's number is a comma or a dot.
    pub(super) fn parse(upper: &'a str) -> Option<S7Place<'a>> {
        let upper = upper.trim_start_matches('%');
        let (area, rest) = match upper.strip_prefix("DB") {
            Some(rest) => {
                let at = rest.find([',', '.'])?;
                let (number, rest) = rest.split_at(at);
                super::digits(number)?;
                let rest = rest.get(1..)?;
                (format!("DB{number}."), rest.strip_prefix("DB").unwrap_or(rest))
            }
            None => {
                let (letter, rest) = upper.split_at_checked(1)?;
                let area = match letter {
                    "M" | "F" => "M",
                    "I" | "E" => "I",
                    "Q" | "A" | "O" => "Q",
                    "T" => "T",
                    "C" | "Z" => "C",
                    _ => return None,
                };
                (area.to_owned(), rest)
            }
        };
        let at = rest.find(|c: char| c.is_ascii_digit())?;
        let (kind, number) = rest.split_at(at);
        if !KINDS.contains(&kind) {
            return None;
        }
        let (number, is_array) = match number.split_once('[') {
            Some((number, _)) => (number, true),
            None => (number, false),
        };
        let (start, behind) = match number.split_once('.') {
            Some((start, behind)) => (start, Some(behind)),
            None => (number, None),
        };
        super::digits(start)?;
        Some(S7Place { area, kind, start, behind, is_array })
    }

    /// The letter of numbers of that length.
    pub(super) const fn letter(data_type: DataType) -> Option<&'static str> {
        Some(match data_type {
            DataType::Int8 | DataType::UInt8 => "B",
            DataType::Int16 | DataType::UInt16 => "W",
            DataType::Int32 | DataType::UInt32 | DataType::Float => "D",
            DataType::Int64 | DataType::UInt64 | DataType::Double => "L",
            _ => return None,
        })
    }

    /// The address of a number, by its length: `DB1.DBD4`, `MW10`.
    pub(super) fn number(&self, data_type: DataType) -> Option<String> {
        let size = Self::letter(data_type)?;
        let block = if self.area.starts_with("DB") { "DB" } else { "" };
        Some(format!("{}{block}{size}{}", self.area, self.start))
    }

    /// The address of a bit.
    pub(super) fn bit(&self) -> Option<String> {
        let block = if self.area.starts_with("DB") { "DBX" } else { "" };
        Some(format!("{}{block}{}.{}", self.area, self.start, self.behind?))
    }

    /// The address of something with a name: `DB1.DTL12`, `MTIME8`.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}{}", self.area, self.start)
    }

    /// Whether it is a timer or a counter.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self.area.as_str(), "T" | "C")
    }
}
