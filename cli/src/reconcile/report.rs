//! A balance as text for people and as JSON for scripts.

use serde_json::{Value, json};

use super::compare::{Balance, Line, Place, Verdict};
use crate::output::grouped;

/// One line per agent and epoch, below it one per range that is not simply equal and one per device, then the sum.
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

/// Ranges of one epoch that are printed; the rest is counted.
const RANGES_SHOWN: usize = 20;

fn line(line: &Line) -> String {
    let mut text = format!("{}  epoch {}  ", line.agent, line.epoch);
    text += &match &line.verdict {
        Verdict::Equal => "equal".to_owned(),
        Verdict::InFlight => "equal so far".to_owned(),
        Verdict::Lost(_) => "equal but for what was lost by policy".to_owned(),
        Verdict::Kept(_) => "equal but for what waits in the quarantine".to_owned(),
        Verdict::Mismatch(why) => format!("MISMATCH: {why}"),
    };
    if let Some(accepted) = line.accepted {
        text += &format!("  accepted {}", grouped(accepted));
    }
    text += &format!("  in table {}", grouped(line.in_table));
    if !matches!(line.verdict, Verdict::Equal) || line.parts.len() > 1 {
        for part in line.parts.iter().take(RANGES_SHOWN) {
            let (word, why) = place(&part.place);
            text += &format!("\n    records {}  {word}", part.offsets);
            text += &why.map_or_else(String::new, |why| format!(": {why}"));
        }
        if line.parts.len() > RANGES_SHOWN {
            text += &format!("\n    … and {} more ranges; --json has all", line.parts.len() - RANGES_SHOWN);
        }
    }
    for device in &line.devices {
        text += &format!(
            "\n    device {}  read {}, within dead bands {}, unreadable {}, made by the agent {}, received {}",
            device.device,
            grouped(device.read),
            grouped(device.dead_band),
            grouped(device.quarantined),
            grouped(device.made),
            grouped(device.received)
        );
    }
    text
}

/// A word for where records are, and why.
fn place(place: &Place) -> (&'static str, Option<&str>) {
    match place {
        Place::Table => ("equal", None),
        Place::Hub => ("in flight, hub → table", None),
        Place::Agent => ("in flight, agent → hub", None),
        Place::Quarantine(why) => ("in quarantine", Some(why)),
        Place::Lost(why) => ("lost by policy", Some(why)),
        Place::Missing => ("MISSING", None),
        Place::Double => ("DOUBLE", None),
    }
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
                Verdict::Kept(why) => ("quarantined", Some(why)),
                Verdict::Mismatch(why) => ("mismatch", Some(why)),
            };
            let ranges = |set: &model::RangeSet| set.iter().map(|r| vec![r.start, r.end]).collect::<Vec<_>>();
            let parts = line.parts.iter().flat_map(|part| {
                let (word, why) = place(&part.place);
                part.offsets
                    .iter()
                    .map(move |r| json!({"start": r.start, "end": r.end, "place": word, "why": why}))
            });
            let devices = line.devices.iter().map(|device| {
                json!({
                    "device": device.device, "read": device.read, "dead_band": device.dead_band,
                    "quarantined": device.quarantined, "made": device.made, "received": device.received,
                })
            });
            json!({
                "parts": parts.collect::<Vec<_>>(), "devices": devices.collect::<Vec<_>>(),
                "quarantined": ranges(&line.kept),
                "agent": line.agent, "epoch": line.epoch.to_string(), "verdict": verdict, "why": why,
                "accepted": line.accepted, "in_table": line.in_table,
                "in_flight_hub_to_table": ranges(&line.in_hub_only),
                "in_flight_agent_to_hub": ranges(&line.in_agent_only), "lost": ranges(&line.lost),
            })
        })
        .collect();
    json!({"balances": balance.balances(), "settled": balance.is_settled(), "lines": lines})
}
