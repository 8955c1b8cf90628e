//! A TOML file read so that every mistake is reported in one run, with file, line, value and rule (design §7).
//!
//! [`ConfigFile::parse`] keeps the spans; a [`Section`] hands out typed values, notes which keys were asked for, and
//! [`Section::finish`] reports the others as unknown. Nothing fails at once: getters push a [`Problem`] and go on.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The plant that a file describes: its root keys `enterprise` and `site`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlantNames {
    /// ISA-95 enterprise.
    pub enterprise: String,
    /// ISA-95 site.
    pub site: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File.
    pub file: PathBuf,
    /// Line, from 1; 0 where there is none.
    pub line: usize,
    /// Dotted key or column.
    pub key: String,
    /// What stands there, as written; empty if nothing does.
    pub value: String,
    /// The rule that it breaks, and what to write instead.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        write!(f, " {}", self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}", self.rule)
    }
}

/// Mistakes found so far, and what is allowed but hardly meant.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    /// Mistakes, in the order in which they were found: with one of them nothing is started.
    pub list: Vec<Problem>,
    /// What works as written, but looks like a slip: `forebay check` shows it, nothing is refused for it.
    pub warnings: Vec<Problem>,
}

impl Problems {
    /// Whether there is no mistake.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a mistake.
    pub fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Adds a warning.
    pub fn warn(&mut self, problem: Problem) {
        self.warnings.push(problem);
    }

    /// Mistakes and warnings by file and line, each once (one list may serve many devices), with whether it is a warning.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Problem, bool)> {
        let mistakes = self.list.iter().map(|problem| (problem, false));
        let mut all: Vec<_> = mistakes.chain(self.warnings.iter().map(|problem| (problem, true))).collect();
        all.sort_by(|(a, _), (b, _)| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let mut seen: std::collections::HashSet<(&Path, usize, &str, &str, &str)> =
            std::collections::HashSet::new();
        all.retain(|(p, is_warning)| {
            !is_warning || seen.insert((&p.file, p.line, &p.key, &p.value, &p.rule))
        });
        all
    }
}

/// The text of a configuration file.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::from_text(path, text)),
            Err(error) => Err(Problem {
                file: path.to_owned(),
                line: 0,
                key: "file".into(),
                value: String::new(),
                rule: format!("cannot be read: {error}"),
            }),
        }
    }

    /// A file from text; `path` is what messages say, and what relative paths in it start from.
    #[must_use]
    pub fn from_text(path: &Path, text: String) -> Self {
        ConfigFile { path: path.to_owned(), text }
    }

    /// The root section; on a syntax error the problems are pushed, and what could be read is returned.
    pub fn parse(&self, problems: &mut Problems) -> Section<'_> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            problems.push(Problem {
                file: self.path.clone(),
                line: self.line_of(at),
                key: "syntax".into(),
                value: self
                    .text
                    .lines()
                    .nth(self.line_of(at).saturating_sub(1))
                    .unwrap_or("")
                    .trim()
                    .to_owned(),
                rule: error.message().to_owned(),
            });
        }
        Section { file: self, name: String::new(), at: 0, table: table.into_inner(), asked: BTreeSet::new() }
    }

    fn line_of(&self, byte: usize) -> usize {
        self.text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count() + 1
    }
}

/// A table of the file, from which keys are taken one by one.
#[derive(Debug)]
pub struct Section<'f> {
    file: &'f ConfigFile,
    name: String,
    at: usize,
    table: DeTable<'f>,
    asked: BTreeSet<String>,
}

/// A value with its place, for rules that are checked later.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// File.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Dotted key.
    pub key: String,
    /// As written.
    pub text: String,
}

impl<T> Located<T> {
    /// A problem at this place.
    #[must_use]
    pub fn problem(&self, rule: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line: self.line,
            key: self.key.clone(),
            value: self.text.clone(),
            rule: rule.into(),
        }
    }

    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            value: change(self.value),
            file: self.file,
            line: self.line,
            key: self.key,
            text: self.text,
        }
    }
}

impl<'f> Section<'f> {
    /// Line on which the section begins.
    #[must_use]
    pub fn line(&self) -> usize {
        self.file.line_of(self.at)
    }

    /// The file's path.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file.path
    }

    /// Dotted name: `edge.devices[1]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A problem with the section as a whole, or a key that is missing from it.
    #[must_use]
    pub fn problem(&self, key: &str, rule: impl Into<String>) -> Problem {
        Problem {
            file: self.file.path.clone(),
            line: self.line(),
            key: self.dotted(key),
            value: String::new(),
            rule: rule.into(),
        }
    }

    fn dotted(&self, key: &str) -> String {
        match (self.name.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (_, true) => self.name.clone(),
            _ => format!("{}.{key}", self.name),
        }
    }

    /// Whether the key is written; counts as asked for.
    pub fn has(&mut self, key: &str) -> bool {
        self.asked.insert(key.to_owned());
        self.table.contains_key(key)
    }

    /// The keys as written, for tables whose keys are names; they do not count as asked for.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.table.iter().map(|(key, _)| key.get_ref().to_string()).collect()
    }

    /// What stands behind a key, as written; does not count as asked for.
    #[must_use]
    pub fn written(&self, key: &str) -> Option<&str> {
        self.file.text.get(self.table.get(key)?.span())
    }

    fn get(&mut self, key: &str) -> Option<Located<Spanned<DeValue<'f>>>> {
        self.asked.insert(key.to_owned());
        let value = self.table.get(key)?.clone();
        let span = value.span();
        Some(Located {
            file: self.file.path.clone(),
            line: self.file.line_of(span.start),
            key: self.dotted(key),
            text: self.file.text.get(span).unwrap_or("").to_owned(),
            value,
        })
    }

    fn typed<T>(
        &mut self,
        key: &str,
        problems: &mut Problems,
        expected: &str,
        read: impl FnOnce(&DeValue<'f>) -> Option<T>,
    ) -> Option<Located<T>> {
        let found = self.get(key)?;
        match read(found.value.get_ref()) {
            Some(value) => Some(found.map(|_| value)),
            None => {
                problems.push(found.problem(format!("must be {expected}")));
                None
            }
        }
    }

    /// A text, if written.
    pub fn text(&mut self, key: &str, problems: &mut Problems) -> Option<Located<String>> {
        self.typed(key, problems, "a text in quotes", |v| v.as_str().map(str::to_owned))
    }

    /// A text that must be there.
    pub fn required_text(&mut self, key: &str, problems: &mut Problems) -> Option<Located<String>> {
        if !self.has(key) {
            problems.push(self.problem(key, "is missing; write a text in quotes"));
        }
        self.text(key, problems)
    }

    /// A text checked by `rule`, which returns the value or what is wrong.
    pub fn checked<T>(
        &mut self,
        key: &str,
        problems: &mut Problems,
        rule: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let found = self.text(key, problems)?;
        match rule(&found.value) {
            Ok(value) => Some(found.map(|_| value)),
            Err(why) => {
                problems.push(found.problem(why));
                None
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(
        &mut self,
        key: &str,
        problems: &mut Problems,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<Located<i64>> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(key, problems, &expected, |v| whole(v).filter(|n| range.contains(n)))
    }

    /// A number with or without fraction.
    pub fn number(&mut self, key: &str, problems: &mut Problems) -> Option<Located<f64>> {
        self.typed(key, problems, "a number", |v| {
            let text = match v {
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Float(number) => number.as_str().to_owned(),
                _ => return None,
            };
            text.replace('_', "").parse().ok()
        })
    }

    /// A text in quotes or a number, as text.
    pub fn word(&mut self, key: &str, problems: &mut Problems) -> Option<Located<String>> {
        self.typed(key, problems, "a text in quotes or a number", |v| match v {
            DeValue::Integer(number) => Some(number.as_str().to_owned()),
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            other => other.as_str().map(str::to_owned),
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &str, problems: &mut Problems) -> Option<Located<bool>> {
        self.typed(key, problems, "true or false", DeValue::as_bool)
    }

    /// A duration such as `"200ms"`, `"5s"`, `"2m"`, `"1h"`, `"7d"`, within `range`.
    pub fn duration(
        &mut self,
        key: &str,
        problems: &mut Problems,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Located<Duration>> {
        self.checked(key, problems, |text| {
            let duration = parse_duration(text)?;
            if range.contains(&duration) {
                Ok(duration)
            } else {
                Err(format!("must be from {:?} to {:?}", range.start(), range.end()))
            }
        })
    }

    /// A size such as `"64MiB"`, `"20GB"`, in bytes.
    pub fn size(&mut self, key: &str, problems: &mut Problems) -> Option<Located<u64>> {
        self.checked(key, problems, parse_size)
    }

    /// A path; a relative one starts from the configuration file's folder.
    pub fn path(&mut self, key: &str, problems: &mut Problems) -> Option<Located<PathBuf>> {
        let folder = self.file.path.parent().map(Path::to_owned).unwrap_or_default();
        self.checked(key, problems, |text| {
            if text.is_empty() { Err("must not be empty".into()) } else { Ok(folder.join(text)) }
        })
    }

    /// A list of texts, if written.
    pub fn texts(&mut self, key: &str, problems: &mut Problems) -> Option<Located<Vec<String>>> {
        self.typed(key, problems, "a list of texts", |v| {
            v.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        })
    }

    /// A list of whole numbers within `range`, if written.
    pub fn integers(
        &mut self,
        key: &str,
        problems: &mut Problems,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<Located<Vec<i64>>> {
        let expected = format!("a list of whole numbers from {} to {}", range.start(), range.end());
        self.typed(key, problems, &expected, |v| {
            v.as_array()?.iter().map(|item| whole(item.get_ref()).filter(|n| range.contains(n))).collect()
        })
    }

    /// A table of texts (`columns = { time = "Zeit" }`), in the file's order of keys; if written.
    pub fn text_map(&mut self, key: &str, problems: &mut Problems) -> Option<Located<Vec<(String, String)>>> {
        self.typed(key, problems, "a table of texts", |v| {
            v.as_table()?
                .iter()
                .map(|(k, item)| Some((k.get_ref().to_string(), item.get_ref().as_str()?.to_owned())))
                .collect()
        })
    }

    /// A sub-table, if written.
    pub fn section(&mut self, key: &str, problems: &mut Problems) -> Option<Section<'f>> {
        let found = self.get(key)?;
        let at = found.value.span().start;
        match found.value.get_ref() {
            DeValue::Table(table) => Some(self.child(found.key, at, table.clone())),
            _ => {
                problems.push(found.problem(format!("must be a table: [{}]", self.dotted(key))));
                None
            }
        }
    }

    /// An array of tables; empty if not written.
    pub fn sections(&mut self, key: &str, problems: &mut Problems) -> Vec<Section<'f>> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let rule = format!("must be tables: [[{}]]", self.dotted(key));
        let DeValue::Array(items) = found.value.get_ref() else {
            problems.push(found.problem(rule));
            return Vec::new();
        };
        let mut children = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let name = format!("{}[{}]", found.key, nth + 1);
                    children.push(self.child(name, item.span().start, table.clone()));
                }
                _ => problems.push(found.problem(rule.clone())),
            }
        }
        children
    }

    fn child(&self, name: String, at: usize, table: DeTable<'f>) -> Section<'f> {
        Section { file: self.file, name, at, table, asked: BTreeSet::new() }
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        let known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            if !self.asked.contains(name) {
                problems.push(Problem {
                    file: self.file.path.clone(),
                    line: self.file.line_of(key.span().start),
                    key: self.dotted(name),
                    value: self
                        .file
                        .text
                        .get(value.span())
                        .unwrap_or("")
                        .lines()
                        .next()
                        .unwrap_or("")
                        .to_owned(),
                    rule: format!("unknown key; known here: {}", known.join(", ")),
                });
            }
        }
    }
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    let text: String = number.as_str().chars().filter(|c| *c != '_').collect();
    i64::from_str_radix(&text, number.radix()).ok()
}

/// Reads `"200ms"`, `"5s"`, `"2m"`, `"1h"`, `"7d"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const RULE: &str = "must be a duration such as \"200ms\", \"5s\", \"2m\", \"1h\" or \"7d\"";
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or(RULE)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| RULE)?;
    let seconds =
        |each: u64| number.checked_mul(each).map(Duration::from_secs).ok_or_else(|| RULE.to_owned());
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => Err(RULE.to_owned()),
    }
}

/// Reads `"64MiB"`, `"20GB"`, `"500kB"`, `"1TB"`, `"4096"` as bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const RULE: &str = "must be a size such as \"500MB\", \"64MiB\" or \"20GB\"";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| RULE)?;
    let each: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(RULE.to_owned()),
    };
    number.checked_mul(each).ok_or_else(|| RULE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_mistake_with_its_line() {
        let text =
            "version = 1\nname = 5\n[edge]\npoll = \"2x\"\nnmae = \"typo\"\n[[edge.devices]]\nport = 70000\n";
        let file = ConfigFile::from_text(Path::new("plant.toml"), text.to_owned());
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        root.integer("version", &mut problems, 1..=1);
        root.text("name", &mut problems);
        let mut edge = root.section("edge", &mut problems).unwrap();
        edge.duration("poll", &mut problems, Duration::ZERO..=Duration::from_secs(1));
        edge.required_text("node", &mut problems);
        for mut device in edge.sections("devices", &mut problems) {
            device.integer("port", &mut problems, 1..=65_535);
            device.finish(&mut problems);
        }
        edge.finish(&mut problems);
        root.finish(&mut problems);
        let lines: Vec<String> = problems.list.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "plant.toml:2: name = 5: must be a text in quotes",
                "plant.toml:4: edge.poll = \"2x\": must be a duration such as \"200ms\", \"5s\", \"2m\", \"1h\" or \"7d\"",
                "plant.toml:3: edge.node: is missing; write a text in quotes",
                "plant.toml:7: edge.devices[1].port = 70000: must be a whole number from 1 to 65535",
                "plant.toml:5: edge.nmae = \"typo\": unknown key; known here: devices, node, poll",
            ]
        );
    }

    #[test]
    fn a_syntax_error_names_its_line_and_the_rest_is_still_read() {
        let file = ConfigFile::from_text(Path::new("x.toml"), "a = 1\nb = = 2\nc = \"x\"\n".to_owned());
        let mut problems = Problems::default();
        let mut root = file.parse(&mut problems);
        assert_eq!(problems.list.first().map(|p| p.line), Some(2));
        assert_eq!(root.text("c", &mut problems).unwrap().value, "x");
    }
}
