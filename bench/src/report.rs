//! Readings of repeated runs, their medians, and the tables of ratios made of them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// One number of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

impl Reading {
    pub(crate) fn new(name: &'static str, value: f64) -> Reading {
        Reading { name, value }
    }
}

/// What a ratio means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// No ratio is printed.
    Neither,
}

/// A figure that is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) better: Better,
}

/// One broker, or one variant of it, in one case: its repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) peer: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) runs: Vec<Vec<Reading>>,
    /// Why it was not measured, or not as often as asked.
    pub(crate) failure: Option<String>,
}

impl Contestant {
    /// The median of a reading over the repetitions.
    fn median(&self, name: &str) -> Option<f64> {
        let of =
            |run: &Vec<Reading>| run.iter().find(|reading| reading.name == name).map(|reading| reading.value);
        let mut values: Vec<f64> = self.runs.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            length if length % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    fn label(&self) -> String {
        if self.variant.is_empty() {
            self.peer.to_owned()
        } else {
            format!("{}, {}", self.peer, self.variant)
        }
    }
}

/// One case with everybody who took part.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) contestants: Vec<Contestant>,
}

impl Outcome {
    /// The case as a table for people: a line each, then a line per pair whose ratio says something.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} ({})\n{:<44}", self.title, self.name, "");
        for column in self.columns {
            write!(text, " {:>15}", column.title).ok();
        }
        for contestant in &self.contestants {
            write!(text, "\n  {:<42}", contestant.label()).ok();
            if !contestant.runs.is_empty() {
                for column in self.columns {
                    let value = contestant.median(column.name);
                    write!(text, " {:>15}", value.map_or("-".to_owned(), number)).ok();
                }
            }
            if let Some(failure) = &contestant.failure {
                write!(text, " {failure}").ok();
            }
        }
        for (one, other) in self.pairs() {
            write!(text, "\n  {:<42}", format!("{} ÷ {}", one.label(), other.label())).ok();
            for column in self.columns {
                let ratio = ratio(one, other, column).map_or(String::new(), |ratio| format!("{ratio:.2} ×"));
                write!(text, " {ratio:>15}").ok();
            }
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// Ours beside each other broker; a peer's second variant beside its first.
    fn pairs(&self) -> Vec<(&Contestant, &Contestant)> {
        let mut pairs = Vec::new();
        for (at, other) in self.contestants.iter().enumerate() {
            if let Some(variant) = self.contestants[at + 1..].iter().find(|next| next.peer == other.peer) {
                pairs.push((variant, other));
            }
        }
        if pairs.is_empty()
            && let Some((first, others)) = self.contestants.split_first()
        {
            pairs.extend(others.iter().map(|other| (first, other)));
        }
        pairs.retain(|(one, other)| !one.runs.is_empty() && !other.runs.is_empty());
        pairs
    }

    /// Medians and every repetition.
    pub(crate) fn to_json(&self) -> Value {
        let contestants = self.contestants.iter().map(|contestant| {
            let names = contestant.runs.first().into_iter().flatten().map(|reading| reading.name);
            let median: Map<String, Value> =
                names.map(|name| (name.to_owned(), json!(contestant.median(name)))).collect();
            let runs: Vec<Map<String, Value>> = contestant
                .runs
                .iter()
                .map(|run| run.iter().map(|one| (one.name.to_owned(), json!(one.value))).collect())
                .collect();
            json!({
                "peer": contestant.peer, "variant": contestant.variant, "median": median, "runs": runs,
                "failure": contestant.failure,
            })
        });
        json!({ "case": self.name, "title": self.title, "contestants": contestants.collect::<Vec<_>>() })
    }
}

fn ratio(one: &Contestant, other: &Contestant, column: &Column) -> Option<f64> {
    let (one, other) = (one.median(column.name)?, other.median(column.name)?);
    (column.better != Better::Neither && other > 0.0).then(|| one / other)
}

/// The first figure of each case beside the other brokers', as the table.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let mut peers: Vec<&'static str> = Vec::new();
    for contestant in outcomes.iter().flat_map(|outcome| &outcome.contestants) {
        if !peers.contains(&contestant.peer) {
            peers.push(contestant.peer);
        }
    }
    let Some((first, others)) = peers.split_first() else { return String::new() };
    let mut text = format!("{:<44} {:<16} {first:>10}", "", "");
    for other in others {
        write!(text, " {other:>10}").ok();
    }
    for other in others {
        write!(text, " {:>13}", format!("÷ {other}")).ok();
    }
    let single =
        |outcome: &&Outcome| outcome.contestants.iter().all(|contestant| contestant.variant.is_empty());
    for outcome in outcomes.iter().filter(single) {
        let Some(column) = outcome.columns.first() else { continue };
        let of = |peer: &str| outcome.contestants.iter().find(|contestant| contestant.peer == peer);
        let value =
            |peer: &str| of(peer).and_then(|one| one.median(column.name)).map_or("-".to_owned(), number);
        write!(text, "\n{:<44} {:<16} {:>10}", outcome.title, column.title, value(first)).ok();
        for other in others {
            write!(text, " {:>10}", value(other)).ok();
        }
        for other in others {
            let ratio = of(first).zip(of(other)).and_then(|(one, other)| ratio(one, other, column));
            write!(text, " {:>13}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2} ×"))).ok();
        }
    }
    text
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(peer: &'static str, values: &[f64]) -> Contestant {
        let runs = values.iter().map(|value| vec![Reading::new("rate", *value)]).collect();
        Contestant { peer, variant: "", runs, failure: None }
    }

    const COLUMNS: &[Column] = &[Column { name: "rate", title: "rate", better: Better::Higher }];

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(contestant("a", &[3.0, 900.0, 1.0]).median("rate"), Some(3.0));
        assert_eq!(contestant("a", &[1.0, 2.0]).median("rate"), Some(1.5));
        assert_eq!(contestant("a", &[]).median("rate"), None);
    }

    #[test]
    fn a_table_has_a_ratio_per_other_broker() {
        let contestants = vec![contestant("ours", &[6.0]), contestant("b", &[2.0]), contestant("c", &[12.0])];
        let outcome = Outcome { name: "n", title: "t", columns: COLUMNS, contestants };
        let text = outcome.text();
        assert!(text.contains("ours ÷ b") && text.contains("3.00 ×"), "{text}");
        assert!(text.contains("ours ÷ c") && text.contains("0.50 ×"), "{text}");
        assert!(summary(&[outcome]).contains("3.00 ×"));
    }

    #[test]
    fn who_was_not_measured_has_no_ratio() {
        let mut absent = contestant("b", &[]);
        absent.failure = Some("is not installed".into());
        let contestants = vec![contestant("ours", &[6.0]), absent];
        let outcome = Outcome { name: "n", title: "t", columns: COLUMNS, contestants };
        assert!(outcome.text().contains("is not installed"));
        assert!(!outcome.text().contains('÷'));
    }
}
