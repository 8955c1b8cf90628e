//! JSON: a value per line, or a document. Cells are found by paths.
//!
//! A path is keys and indices: `a.b[0]."key with . in it"`. One that begins with `$` starts at the document's root
//! instead of at the record.

use std::borrow::Cow;

use serde_json::Value;

use super::super::mapping::{Cell, Cells};
use super::DOCUMENT_VALUES_MAX;

/// Which cells, and where the records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Json {
    /// Of each needed cell.
    pub(in super::super) paths: Vec<Path>,
    /// Of the records in a document: an array of them, or one.
    pub(in super::super) records: Path,
}

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Path {
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Nth(usize),
}

impl Path {
    /// Reads a path.
    pub(in super::super) fn parse(text: &str) -> Result<Path, String> {
        let wrong = || Err("must be a path such as a.b[0].\"odd key\"".to_owned());
        let mut rest = text.trim();
        let from_root = rest.starts_with('$');
        if from_root {
            rest = &rest[1..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let Some((nth, after)) = inside.split_once(']') else { return wrong() };
                let Ok(nth) = nth.parse() else { return wrong() };
                steps.push(Step::Nth(nth));
                rest = after;
            } else if let Some(inside) = rest.strip_prefix('"') {
                let Some((key, after)) = inside.split_once('"') else { return wrong() };
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            } else {
                let end = rest.find(['.', '[', '"']).unwrap_or(rest.len());
                if end == 0 {
                    return wrong();
                }
                steps.push(Step::Key(rest[..end].to_owned()));
                rest = &rest[end..];
            }
            match rest.strip_prefix('.') {
                Some("") => return wrong(),
                Some(after) => rest = after,
                None if rest.is_empty() || rest.starts_with('[') => {}
                None => return wrong(),
            }
        }
        Ok(Path { from_root, steps })
    }

    fn find<'v>(&self, root: &'v Value, record: &'v Value) -> Option<&'v Value> {
        let start = if self.from_root { root } else { record };
        self.steps.iter().try_fold(start, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Nth(nth) => value.get(nth),
        })
    }
}

impl Json {
    /// The cells of a line.
    pub(in super::super) fn line(&self, line: &str) -> Result<Cells<'static>, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        Ok(self.cells(&value, &value))
    }

    /// The records of a document.
    pub(in super::super) fn records<'v>(&self, root: &'v Value) -> Result<&'v [Value], String> {
        let found = self.records.find(root, root).ok_or("the document has nothing where records says")?;
        Ok(found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice))
    }

    /// The cells of a record.
    pub(in super::super) fn cells(&self, root: &Value, record: &Value) -> Cells<'static> {
        let cell = |path: &Path| match path.find(root, record)? {
            Value::Null => None,
            Value::String(text) => Some(Cell::Text(Cow::Owned(text.clone()))),
            Value::Number(number) => Some(Cell::Number(Cow::Owned(number.to_string()))),
            Value::Bool(yes) => Some(Cell::Number(Cow::Owned(yes.to_string()))),
            other => Some(Cell::Text(Cow::Owned(other.to_string()))),
        };
        self.paths.iter().map(cell).collect()
    }
}

/// Reads a document.
pub(in super::super) fn parse(text: &str) -> Result<Value, String> {
    // Every value but the first has one of these before it.
    let values = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > DOCUMENT_VALUES_MAX {
        return Err(format!("the document has more than {DOCUMENT_VALUES_MAX} values"));
    }
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_values() {
        let root: Value = serde_json::from_str(r#"{"a":{"b.c":[1,{"d":true}]},"e":"x"}"#).unwrap();
        for (path, expected) in [
            ("e", Some("\"x\"")),
            ("a.\"b.c\"[1].d", Some("true")),
            ("$.a.\"b.c\"[0]", Some("1")),
            ("a.\"b.c\"[2]", None),
            ("a.x.y", None),
            ("$", Some(r#"{"a":{"b.c":[1,{"d":true}]},"e":"x"}"#)),
        ] {
            let found = Path::parse(path).unwrap().find(&root, &root).map(Value::to_string);
            assert_eq!(found.as_deref(), expected, "{path}");
        }
        for wrong in ["a.", "a..b", ".a", "a[x]", "a[1", "\"a", "a\"b\""] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }
}
