//! What a benchmark found: named numbers with units, as a table for people and JSON for scripts.

use serde_json::{Value, json};

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Name for scripts: `values_per_s`.
    pub name: String,
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
    pub fn push(&mut self, name: impl Into<String>, value: f64, unit: &'static str, what: impl Into<String>) {
        self.list.push(Figure { name: name.into(), value, unit, what: what.into() });
    }

    /// Figure by figure the middle of several runs that measured the same.
    #[must_use]
    pub fn medians(runs: Vec<Figures>) -> Figures {
        let mut list = runs.first().map(|run| run.list.clone()).unwrap_or_default();
        for (at, figure) in list.iter_mut().enumerate() {
            let mut values: Vec<f64> =
                runs.iter().filter_map(|run| run.list.get(at)).map(|f| f.value).collect();
            values.sort_by(f64::total_cmp);
            figure.value = values.get(values.len() / 2).copied().unwrap_or(figure.value);
        }
        Figures { list }
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
            .map(|figure| (figure.name.clone(), json!(figure.value)))
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
