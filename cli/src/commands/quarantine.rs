//! `forebay quarantine`: lists, shows and decides, through a running hub or from folders.

use std::path::Path;
use std::time::Duration;

use hub::store::cold::ColdLetters;
use hub::store::{Letter, LetterId, Origin};
use proto::sparkplug::PayloadView;
use serde_json::{Value, json};

use super::command::connect;
use crate::arguments::HubAccess;
use crate::arguments::quarantine::{Place, Quarantine, QuarantineAction};
use crate::hub_client::HubClient;
use crate::output::{DONE, FAILED, USAGE, size};
use crate::{complain, plant, say};

/// A retry waits for the hub's disk.
const DECISION: Duration = Duration::from_secs(30);
/// Bytes of a content that are shown as hex.
const SHOWN_BYTES: usize = 512;

/// Exit 0 if it was done, 1 if not, 2 if the arguments cannot be meant.
#[must_use]
pub fn run(options: &Quarantine) -> u8 {
    match &options.action {
        QuarantineAction::List { all, limit, place } => list(*all, *limit, place),
        QuarantineAction::Show { id, place } => show(id, place),
        QuarantineAction::Retry { ids, all, hub } => with_hub(hub, |client| {
            let ids = if *all { all_waiting(client)? } else { ids.clone() };
            Ok(decide(&ids, hub.json, |id| {
                client.post("/api/v1/quarantine/retry", &json!({"id": id}), DECISION)
            }))
        }),
        QuarantineAction::Discard { ids, reason, hub } => with_hub(hub, |client| {
            Ok(decide(ids, hub.json, |id| {
                client.post("/api/v1/quarantine/discard", &json!({"id": id, "reason": reason}), DECISION)
            }))
        }),
    }
}

fn with_hub(access: &HubAccess, work: impl FnOnce(&HubClient) -> Result<u8, String>) -> u8 {
    let client = match connect(access) {
        Ok(client) => client,
        Err(message) => {
            complain!("{message}");
            return USAGE;
        }
    };
    work(&client).unwrap_or_else(|message| {
        complain!("{message}");
        FAILED
    })
}

fn decide(ids: &[String], as_json: bool, ask: impl Fn(&str) -> Result<Value, String>) -> u8 {
    if let Some(wrong) = ids.iter().find(|id| LetterId::parse(id).is_none()) {
        complain!("{wrong} is no name of an entry; `forebay quarantine list` shows them (p12, r3)");
        return USAGE;
    }
    if ids.is_empty() && !as_json {
        say!("nothing waits for a decision");
    }
    let mut code = DONE;
    for id in ids {
        match ask(id) {
            Ok(answer) if as_json => say!("{answer}"),
            Ok(answer) => match answer["state"].as_str() {
                Some("came anyway") => {
                    say!("{id}: its record is in the plant log already; nothing was added")
                }
                Some("retried") if id.starts_with('r') => {
                    say!("{id}: goes to its sink once more, which may refuse it again");
                }
                state => say!("{id}: {}", state.unwrap_or("done")),
            },
            Err(message) => {
                code = FAILED;
                if as_json {
                    say!("{}", json!({"id": id, "error": message}));
                } else {
                    complain!("{id}: {message}");
                }
            }
        }
    }
    code
}

fn all_waiting(client: &HubClient) -> Result<Vec<String>, String> {
    let answer = client.get("/api/v1/quarantine?limit=1000")?;
    let entries = answer["entries"].as_array().into_iter().flatten().rev();
    Ok(entries.filter_map(|entry| entry["id"].as_str().map(str::to_owned)).collect())
}

fn list(all: bool, limit: u64, place: &Place) -> u8 {
    let Some(dir) = &place.dir else {
        return with_hub(&place.hub, |client| {
            let answer = client.get(&format!("/api/v1/quarantine?limit={limit}&all={all}"))?;
            print_list(&answer, place.hub.json);
            Ok(DONE)
        });
    };
    match cold_list(dir, all, usize::try_from(limit).unwrap_or(usize::MAX)) {
        Ok(answer) => {
            print_list(&answer, place.hub.json);
            DONE
        }
        Err(message) => {
            complain!("{message}");
            FAILED
        }
    }
}

fn print_list(answer: &Value, as_json: bool) {
    if as_json {
        return say!("{answer}");
    }
    let entries = answer["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in entries {
        say!("{}", line(entry));
    }
    let lines = answer["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    for bad in lines {
        let text = |key: &str| bad[key].as_str().unwrap_or("?").to_owned();
        say!(
            "line  {}  {}, device {}, {} line {}  {}  {:?}",
            text("at"),
            text("agent"),
            text("device"),
            text("file"),
            bad["line"],
            text("reason"),
            text("text")
        );
    }
    if entries.is_empty() && lines.is_empty() {
        say!("nothing waits for a decision");
    }
}

fn line(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
    let mut line = format!("{}  {}  {}  ", text("id"), text("at"), text("from"));
    if let Some(position) = entry["position"].as_u64() {
        line += &format!("position {position}  ");
    }
    if let (Some(agent), Some(offset)) = (entry["agent"].as_str(), entry["offset"].as_u64()) {
        line += &format!("{agent} {}/{offset}  ", text("epoch"));
    }
    line += &format!("{}  {}", size(entry["bytes"].as_u64().unwrap_or(0)), text("reason"));
    if text("state") != "waiting" {
        line += &format!("  [{} by {} at {}", text("state"), text("decided_by"), text("decided_at"));
        line += &entry["decided_because"].as_str().map_or_else(String::new, |why| format!(": {why}"));
        line += "]";
    }
    line
}

fn show(id: &str, place: &Place) -> u8 {
    let Some(parsed) = LetterId::parse(id) else {
        complain!("{id} is no name of an entry; `forebay quarantine list` shows them (p12, r3)");
        return USAGE;
    };
    let Some(dir) = &place.dir else {
        return with_hub(&place.hub, |client| {
            let answer = client.get(&format!("/api/v1/quarantine/entry?id={id}"))?;
            print_entry(&answer, place.hub.json);
            Ok(DONE)
        });
    };
    match cold_entry(dir, parsed) {
        Ok(answer) => {
            print_entry(&answer, place.hub.json);
            DONE
        }
        Err(message) => {
            complain!("{message}");
            FAILED
        }
    }
}

fn print_entry(answer: &Value, as_json: bool) {
    if as_json {
        return say!("{answer}");
    }
    say!("{}", line(&answer["entry"]));
    let bytes = unhex(answer["content"].as_str().unwrap_or(""));
    if answer["entry"]["kind"] == "record" {
        say!("{}", super::log::describe(&bytes));
    } else {
        print_payload(&bytes);
    }
    for (at, chunk) in (0..).step_by(16).zip(bytes.chunks(16).take(SHOWN_BYTES / 16)) {
        let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = chunk
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        say!("{at:06x}  {:<47}  {text}", digits.join(" "));
    }
    if bytes.len() > SHOWN_BYTES {
        say!("… {} bytes in all", bytes.len());
    }
}

fn print_payload(bytes: &[u8]) {
    let view = match PayloadView::decode(bytes) {
        Ok(view) => view,
        Err(error) => return say!("no Sparkplug payload: {error}"),
    };
    if let Some(head) = view.record {
        say!("record {}, accepted at {}", head.id, head.accepted_at);
    }
    for metric in view.metrics.iter().take(50) {
        let name = metric.name.map(|name| format!("{name:?}"));
        let alias = metric.alias.map(|alias| format!("alias {alias}"));
        let names: Vec<String> = [name, alias].into_iter().flatten().collect();
        say!("metric {}  type {:?}  {:?}", names.join(", "), metric.datatype, metric.value);
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high) * 16 + digit(*low)).unwrap_or(0)).collect()
}

/// The hub's entries and the agents' bad lines, as they are on disk.
fn cold_list(dir: &Path, all: bool, limit: usize) -> Result<Value, String> {
    let plants = plant::in_folder(dir)?;
    let (mut entries, mut lines) = (Vec::new(), Vec::new());
    for hub in plants.iter().filter_map(|plant| plant.hub.as_ref()) {
        let Some(letters) = cold(&hub.data_dir)? else { continue };
        let found = letters.newest(|letter| all || letter.ended.is_none(), limit);
        let found = found.map_err(|error| bridge::sinks::in_one_line(&error))?;
        entries.extend(found.iter().map(|letter| view(&letters, letter)));
    }
    for edge in plants.iter().filter_map(|plant| plant.edge.as_ref()) {
        let found = edge_agent::quarantine::newest(&edge.data_dir, limit)
            .map_err(|error| format!("{}: {error}", edge.data_dir.display()))?;
        lines.extend(found.into_iter().map(|bad| {
            json!({
                "agent": edge.node.to_string(), "device": bad.device, "at": bad.at.map(|at| at.to_string()),
                "file": bad.file, "line": bad.line, "byte": bad.byte, "whole": bad.whole,
                "reason": bad.reason, "text": bad.text,
            })
        }));
    }
    Ok(json!({"entries": entries, "lines": lines}))
}

fn cold_entry(dir: &Path, id: LetterId) -> Result<Value, String> {
    for hub in plant::in_folder(dir)?.iter().filter_map(|plant| plant.hub.as_ref()) {
        let Some(letters) = cold(&hub.data_dir)? else { continue };
        if let Some(letter) = letters.one(id).map_err(|error| bridge::sinks::in_one_line(&error))? {
            let content: String = letter.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(json!({"entry": view(&letters, &letter), "content": content}));
        }
    }
    Err(format!("there is no entry {id} in the quarantine below {}", dir.display()))
}

fn cold(data_dir: &Path) -> Result<Option<ColdLetters>, String> {
    hub::store::cold::letters(data_dir).map_err(|error| bridge::sinks::in_one_line(&error))
}

/// As the API shows it.
fn view(letters: &ColdLetters, letter: &Letter) -> Value {
    let ended = letter.ended.as_ref();
    json!({
        "id": letter.id.to_string(),
        "kind": match letter.id.origin {
            Origin::Payload => "payload",
            Origin::Record => "record",
        },
        "at": letter.at.to_string(), "from": letter.from, "reason": letter.reason,
        "state": ended.map_or("waiting", |ended| ended.fate.word()),
        "agent": letter.record.and_then(|(agent, _)| letters.agents.get(&agent)).map(ToString::to_string),
        "epoch": letter.record.map(|(_, record)| record.epoch.to_string()),
        "offset": letter.record.map(|(_, record)| record.offset.0),
        "position": letter.position, "bytes": letter.bytes.len(),
        "decided_by": ended.map(|ended| ended.by.clone()),
        "decided_at": ended.map(|ended| ended.at.to_string()),
        "decided_because": ended.map(|ended| ended.reason.clone()).filter(|reason| !reason.is_empty()),
    })
}
