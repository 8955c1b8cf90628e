//! What a benchmark found: named numbers with units, as a table for people and JSON for scripts.

use serde_json::{Value, json};

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Name for scripts: `values_per_s`.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// `ns`, `MB/s`, `values/s` …
    pub unit: &'static str,
    /// What exactly was measured.
    pub what: String,
}

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// In the order in which they were measured.
    pub list: Vec<Figure>,
}

impl Figures {
    /// Adds one.
    pub fn push(&mut self, name: &'static str, value: f64, unit: &'static str, what: impl Into<String>) {
        self.list.push(Figure { name, value, unit, what: what.into() });
    }

    /// A line per figure.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.list.iter().map(|figure| {
            format!("{:>14} {:<10} {:<28} {}", number(figure.value), figure.unit, figure.name, figure.what)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// An object of name to number.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.list
            .iter()
            .map(|figure| (figure.name.to_owned(), json!(figure.value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
