//! `name=value`: several on a line, or one on each line of a document, below `[sections]` if it has such.

use std::borrow::Cow;

use super::super::mapping::{Cell, Cells};

/// Which cells, and what stands between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct KeyValue {
    /// Of each needed cell.
    pub(in super::super) keys: Vec<String>,
    /// Between name and value.
    pub(in super::super) assign: char,
    /// Between pairs on a line; a space is any space.
    pub(in super::super) separator: char,
}

impl KeyValue {
    /// The cells of a line. What is no pair is no cell.
    pub(in super::super) fn line<'r>(&self, line: &'r str) -> Cells<'r> {
        let mut cells = vec![None; self.keys.len()];
        let mut rest = line;
        while !rest.is_empty() {
            let (pair, after) = self.cut(rest);
            if let Some((name, value)) = pair.split_once(self.assign) {
                self.put(name.trim(), value.trim(), &mut cells);
            }
            rest = after;
        }
        cells
    }

    /// Cuts off a pair; a quoted value may hold separators.
    fn cut<'r>(&self, line: &'r str) -> (&'r str, &'r str) {
        let mut is_quoted = false;
        for (at, c) in line.char_indices() {
            let ends = if self.separator == ' ' { c.is_whitespace() } else { c == self.separator };
            if c == '"' {
                is_quoted = !is_quoted;
            } else if ends && !is_quoted {
                return (&line[..at], &line[at + c.len_utf8()..]);
            }
        }
        (line, "")
    }

    /// The cells of a document: keys of a section are `section.key`.
    pub(in super::super) fn document(&self, text: &str) -> Result<Cells<'static>, String> {
        let mut cells = vec![None; self.keys.len()];
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{}.", name.trim());
            } else if line.starts_with(['#', ';']) {
            } else if let Some((name, value)) = line.split_once(self.assign) {
                let mut found = vec![None; self.keys.len()];
                self.put(&format!("{section}{}", name.trim()), value.trim(), &mut found);
                for (cell, found) in cells.iter_mut().zip(found) {
                    if let Some(Cell::Text(text) | Cell::Number(text)) = found {
                        *cell = Some(Cell::Text(Cow::Owned(text.into_owned())));
                    }
                }
            }
        }
        if cells.iter().all(Option::is_none) {
            return Err("none of the names is in it".into());
        }
        Ok(cells)
    }

    fn put<'r>(&self, name: &str, value: &'r str, cells: &mut Cells<'r>) {
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        for (nth, _) in self.keys.iter().enumerate().filter(|(_, key)| *key == name) {
            if let Some(cell) = cells.get_mut(nth) {
                *cell = Some(Cell::Text(Cow::Borrowed(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_name() {
        let keys = ["t", "a", "s.b"].map(str::to_owned).to_vec();
        let spaced = KeyValue { keys: keys.clone(), assign: '=', separator: ' ' };
        let text = |text: &'static str| Some(Cell::Text(Cow::Borrowed(text)));
        assert_eq!(spaced.line("x=1 t=\"06:00 UTC\"  a=1.5 noise"), [text("06:00 UTC"), text("1.5"), None]);
        let semicolons = KeyValue { separator: ';', assign: ':', ..spaced.clone() };
        assert_eq!(semicolons.line("t: 06;a :"), [text("06"), text(""), None]);
        let document = spaced.document("# a=9\nt = 06:00\n[s]\nb=2\na=7\n").unwrap();
        assert_eq!(document, [text("06:00"), None, text("2")]);
        assert!(spaced.document("nothing").is_err());
    }
}
