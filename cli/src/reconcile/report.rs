//! A balance as text for people and as JSON for scripts.

use serde_json::{Value, json};

use super::compare::{Balance, Line, Verdict};
use crate::output::grouped;

/// One line per agent and epoch, then the sum.
#[must_use]
pub fn text(balance: &Balance) -> String {
    let mut lines: Vec<String> = balance.lines.iter().map(line).collect();
    let accepted: u64 = balance.lines.iter().filter_map(|line| line.accepted).sum();
    let in_table: u64 = balance.lines.iter().map(|line| line.in_table).sum();
    let bad = balance.lines.iter().filter(|line| matches!(line.verdict, Verdict::Mismatch(_))).count();
    lines.push(if balance.lines.is_empty() {
        "nothing was accepted yet".into()
    } else if bad > 0 {
        format!("MISMATCH in {bad} of {} epochs: see above", balance.lines.len())
    } else if balance.is_settled() {
        format!(
            "balanced: {} samples accepted, {} rows in the table, each exactly once",
            grouped(accepted),
            grouped(in_table)
        )
    } else {
        format!(
            "balanced so far: {} samples accepted, {} rows in the table, the rest in flight",
            grouped(accepted),
            grouped(in_table)
        )
    });
    lines.join("\n")
}

fn line(line: &Line) -> String {
    let mut text = format!("{}  epoch {}  ", line.agent, line.epoch);
    text += &match &line.verdict {
        Verdict::Equal => "equal".to_owned(),
        Verdict::InFlight => "equal so far".to_owned(),
        Verdict::Lost(why) => format!("lost by policy: records {} ({why})", line.lost),
        Verdict::Mismatch(why) => format!("MISMATCH: {why}"),
    };
    if let Some(accepted) = line.accepted {
        text += &format!("  accepted {}", grouped(accepted));
    }
    text += &format!("  in table {}", grouped(line.in_table));
    for (place, offsets) in [("hub → table", &line.in_hub_only), ("agent → hub", &line.in_agent_only)] {
        if !offsets.is_empty() {
            text += &format!("  in flight {place}: records {offsets}");
        }
    }
    text
}

/// The same for scripts.
#[must_use]
pub fn to_json(balance: &Balance) -> Value {
    let lines: Vec<Value> = balance
        .lines
        .iter()
        .map(|line| {
            let (verdict, why) = match &line.verdict {
                Verdict::Equal => ("equal", None),
                Verdict::InFlight => ("in flight", None),
                Verdict::Lost(why) => ("lost", Some(why)),
                Verdict::Mismatch(why) => ("mismatch", Some(why)),
            };
            let ranges = |set: &model::RangeSet| set.iter().map(|r| vec![r.start, r.end]).collect::<Vec<_>>();
            json!({
                "agent": line.agent, "epoch": line.epoch.to_string(), "verdict": verdict, "why": why,
                "accepted": line.accepted, "in_table": line.in_table,
                "in_flight_hub_to_table": ranges(&line.in_hub_only),
                "in_flight_agent_to_hub": ranges(&line.in_agent_only), "lost": ranges(&line.lost),
            })
        })
        .collect();
    json!({"balances": balance.balances(), "settled": balance.is_settled(), "lines": lines})
}
