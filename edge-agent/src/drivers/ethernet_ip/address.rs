//! Where a point is in a Logix controller, as Studio 5000 writes it. Pure.
//!
//! ```text
//! Tag   Program:Main.Tag   Local:1:I.Data        a tag of the controller, of a program, of a module
//! Tag.Member[3].Other   Tag[4]   Tag[1,2,3]      members and elements
//! Tag.5   Tag[2].31                              a bit of an integer
//! Tag[4] len=16                                  16 elements: SINTs as bytes or as a string
//! ```

use model::DataType;

use super::cip::{PATH_BYTES_MAX, Path};

/// A point's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As text, without last index, bit and length; names of tags do not tell upper from lower case.
    pub(super) name: String,
    /// The same as a path.
    pub(super) path: Path,
    /// The last index, if it is the last thing.
    pub(super) index: Option<u32>,
    pub(super) bit: Option<u8>,
    /// How many elements make the value.
    pub(super) length: Option<u16>,
}

const SYNTAX: &str =
    "write it as Tag, Program:Main.Tag, Tag.Member, Tag[4], Tag[1,2], Tag.5 or Tag[4] len=16";
/// Studio 5000 allows 40.
const NAME_BYTES_MAX: usize = 128;
const DIMENSIONS_MAX: usize = 3;
const LENGTH_MAX: u16 = 4096;

impl Address {
    /// Reads the text; an error says what to write instead.
    pub(super) fn parse(text: &str, data_type: DataType) -> Result<Address, String> {
        let mut depth = 0_usize;
        let is_end = |c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && c.is_whitespace()
        };
        let (tag, length) = match text.trim().split_once(is_end) {
            Some((tag, option)) => {
                let length = option.trim().strip_prefix("len=").and_then(number);
                let length = length.and_then(|length| u16::try_from(length).ok());
                let length = length.filter(|length| (1..=LENGTH_MAX).contains(length));
                (tag, Some(length.ok_or_else(|| format!("len is from 1 to {LENGTH_MAX}; {SYNTAX}"))?))
            }
            None => (text.trim(), None),
        };
        let mut address =
            Address { name: String::new(), path: Path::default(), index: None, bit: None, length };
        let mut parts = tag.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none()
                && !address.name.is_empty()
                && part.starts_with(|c: char| c.is_ascii_digit())
            {
                let bit = number(part).and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 64);
                address.bit = Some(bit.ok_or("a bit is from 0 to 63")?);
                break;
            }
            if let Some(index) = address.index.take() {
                address.push_index(index); // it was not the last thing
            }
            address.push(part).ok_or(SYNTAX)?;
        }
        if address.path.len() + 6 > PATH_BYTES_MAX {
            return Err("is too long".into());
        }
        address.check(data_type)?;
        Ok(address)
    }

    fn push_index(&mut self, index: u32) {
        self.name.push_str(&format!("[{index}]"));
        self.path = std::mem::take(&mut self.path).element(index);
    }

    /// A name and its indices; the last index is kept apart.
    fn push(&mut self, part: &str) -> Option<()> {
        let (name, indices) = match part.split_once('[') {
            Some((name, indices)) => (name, indices.strip_suffix(']')?),
            None => (part, ""),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(begins) || !name.chars().all(is_name) || name.len() > NAME_BYTES_MAX {
            return None;
        }
        if !self.name.is_empty() {
            self.name.push('.');
        }
        self.name.push_str(name);
        self.path = std::mem::take(&mut self.path).name(name);
        if part.contains('[') {
            let indices: Vec<u32> =
                indices.split(',').map(|digits| number(digits.trim())).collect::<Option<_>>()?;
            let (last, before) = indices.split_last().filter(|(_, before)| before.len() < DIMENSIONS_MAX)?;
            before.iter().for_each(|index| self.push_index(*index));
            self.index = Some(*last);
        }
        Some(())
    }

    /// Whether the point's type fits what the address alone says.
    fn check(&self, data_type: DataType) -> Result<(), String> {
        let held = data_type.name();
        match data_type {
            _ if self.bit.is_some() && self.length.is_some() => Err("a bit has no length".into()),
            DataType::Boolean if self.length.is_some() => Err("a boolean has no length".into()),
            _ if self.bit.is_some() && data_type != DataType::Boolean => {
                Err(format!("is a bit and makes boolean; the point's type is {held}"))
            }
            DataType::Bytes if self.length.is_none() => {
                Err("needs its number of bytes, such as Tag len=16".into())
            }
            DataType::Bytes | DataType::String => Ok(()),
            _ if self.length.is_some() => {
                Err(format!("with len makes bytes or string; the point's type is {held}"))
            }
            _ => Ok(()),
        }
    }
}

/// A number of digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_engineers_write_them() {
        for (text, data_type, name, index, bit, length) in [
            ("Rate", DataType::Float, "Rate", None, None, None),
            ("Program:Main.Rate", DataType::Float, "Program:Main.Rate", None, None, None),
            ("Local:1:I.Data.7", DataType::Boolean, "Local:1:I.Data", None, Some(7), None),
            ("Cells[3].Speed", DataType::Float, "Cells[3].Speed", None, None, None),
            ("Grid[1,2]", DataType::Int32, "Grid[1]", Some(2), None, None),
            ("Cube[1, 2,300].31", DataType::Boolean, "Cube[1][2]", Some(300), Some(31), None),
            ("A.B[70000]", DataType::Int8, "A.B", Some(70_000), None, None),
            ("Raw[4] len=16", DataType::Bytes, "Raw", Some(4), None, Some(16)),
            ("_x", DataType::Boolean, "_x", None, None, None),
        ] {
            let found = Address::parse(text, data_type).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((found.name.as_str(), found.index), (name, index), "{text}");
            assert_eq!((found.bit, found.length), (bit, length), "{text}");
        }
        let path = Address::parse("Program:Main.Cells[3].Speed", DataType::Float).unwrap().path;
        let expected = Path::default().name("Program:Main").name("Cells").element(3).name("Speed");
        assert_eq!(path, expected);
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (text, data_type, expected) in [
            ("", DataType::Int16, "write it as"),
            ("5", DataType::Boolean, "write it as"),
            ("Tag.", DataType::Int16, "write it as"),
            ("Tag[", DataType::Int16, "write it as"),
            ("Tag[]", DataType::Int16, "write it as"),
            ("Tag[1,2,3,4]", DataType::Int16, "write it as"),
            ("Tag[-1]", DataType::Int16, "write it as"),
            ("Tag.5.X", DataType::Int16, "write it as"),
            ("Tä", DataType::Int16, "write it as"),
            ("Tag.64", DataType::Boolean, "from 0 to 63"),
            ("Tag.5", DataType::Int16, "makes boolean"),
            ("Tag", DataType::Bytes, "number of bytes"),
            ("Tag len=0", DataType::Bytes, "from 1 to"),
            ("Tag size=4", DataType::Bytes, "len is"),
            ("Tag len=4", DataType::Int16, "bytes or string"),
            ("Tag len=4", DataType::Boolean, "no length"),
        ] {
            let error = Address::parse(text, data_type).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let long = vec!["abcdefghij"; 60].join(".");
        assert!(Address::parse(&long, DataType::Int16).unwrap_err().contains("too long"));
    }
}
