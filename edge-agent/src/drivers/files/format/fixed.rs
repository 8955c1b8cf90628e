//! Columns at fixed places, counted in characters.

use std::borrow::Cow;

use super::super::mapping::{Cell, Cells, Layout, Mapping};

/// Where the columns are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Fixed {
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    /// First and last character, from 1.
    first: usize,
    last: usize,
}

impl Fixed {
    /// Reads `["time 1-19", "Temp 20-27"]`.
    pub(in super::super) fn parse(columns: &[String]) -> Result<Fixed, String> {
        let mut parsed: Vec<Column> = Vec::new();
        for text in columns {
            let column = column(text).ok_or_else(|| format!("{text:?} must be like \"Temp 20-27\""))?;
            if parsed.iter().any(|other| other.name == column.name) {
                return Err(format!("{:?} is there twice", column.name));
            }
            parsed.push(column);
        }
        if parsed.is_empty() {
            return Err("must name the columns, such as [\"time 1-19\", \"Temp 20-27\"]".into());
        }
        Ok(Fixed { columns: parsed })
    }

    /// Whether there is such a column.
    pub(in super::super) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name.trim())
    }

    /// Where the columns are: in the order of the configuration.
    pub(in super::super) fn layout(&self, mapping: &Mapping) -> Result<Layout, String> {
        mapping.layout(|name| Ok(self.columns.iter().position(|column| column.name == name)))
    }

    /// The cells of a line; one that the line is too short for is not there.
    pub(in super::super) fn cells<'r>(&self, line: &'r str) -> Cells<'r> {
        let ascii = line.is_ascii();
        let at = |nth: usize| match ascii {
            true => nth.min(line.len()),
            false => line.char_indices().nth(nth).map_or(line.len(), |(at, _)| at),
        };
        let cell = |column: &Column| {
            line.get(at(column.first - 1)..at(column.last))
                .filter(|text| !text.is_empty())
                .map(|text| Cell::Text(Cow::Borrowed(text)))
        };
        self.columns.iter().map(cell).collect()
    }
}

fn column(text: &str) -> Option<Column> {
    let (name, places) = text.trim().rsplit_once(char::is_whitespace)?;
    let (first, last) = places.split_once('-').unwrap_or((places, places));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let name = name.trim().to_owned();
    (first >= 1 && first <= last && last <= 100_000 && !name.is_empty()).then_some(Column {
        name,
        first,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_cut_by_characters() {
        let fixed = Fixed::parse(&["time 1-5".into(), "Öl temp 7-9".into(), "flag 10".into()]).unwrap();
        let texts = |line| -> Vec<Option<String>> {
            let text = |cell| match cell {
                Cell::Text(text) | Cell::Number(text) => text.into_owned(),
            };
            fixed.cells(line).into_iter().map(|cell| cell.map(text)).collect()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts("06:00 1.5X rest"), [some("06:00"), some("1.5"), some("X")]);
        assert_eq!(texts("ä6:00 ü.5X"), [some("ä6:00"), some("ü.5"), some("X")]);
        assert_eq!(texts("06:00 1"), [some("06:00"), some("1"), None]);
        assert_eq!(texts(""), [None, None, None]);
        for wrong in ["a", "a 0-1", "a 5-4", "a x-y", " 1-2"] {
            assert!(Fixed::parse(&[wrong.into()]).is_err(), "{wrong}");
        }
        assert!(Fixed::parse(&[]).is_err() && Fixed::parse(&["a 1".into(), "a 2".into()]).is_err());
    }
}
