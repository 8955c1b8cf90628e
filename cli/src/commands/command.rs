//! `forebay command`: writes a set-point through the hub and prints what became of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::arguments::{CommandAction, CommandOptions, HubAccess};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, hub_client, say};

/// Exit 0 if the outcome is `done` (or the list was printed), else 1.
#[must_use]
pub fn run(options: &CommandOptions) -> u8 {
    let access = match &options.action {
        CommandAction::Write { hub, .. } | CommandAction::List { hub } => hub,
    };
    let client = match connect(access) {
        Ok(client) => client,
        Err(message) => {
            complain!("{message}");
            return USAGE;
        }
    };
    let answer = match &options.action {
        CommandAction::Write { path, value, expires, reason, .. } => client.post(
            "/api/v1/commands",
            &json!({"path": path, "value": value, "reason": reason, "expires": format!("{}ms", expires.as_millis())}),
            *expires + std::time::Duration::from_secs(15),
        ),
        CommandAction::List { .. } => client.get("/api/v1/commands"),
    };
    match (answer, &options.action) {
        (Err(message), _) => {
            complain!("{message}");
            FAILED
        }
        (Ok(answer), CommandAction::Write { path, value, .. }) => outcome(&answer, path, value, access.json),
        (Ok(answer), CommandAction::List { .. }) => {
            list(&answer, access.json);
            DONE
        }
    }
}

/// A client with the token that the options, or a demo beside it, name.
pub(super) fn connect(access: &HubAccess) -> Result<hub_client::HubClient, String> {
    let demo = Path::new("forebay-demo/hub/token");
    let file = access.token_file.as_deref().or_else(|| demo.exists().then_some(demo));
    hub_client::HubClient::new(&access.hub, file)
}

fn outcome(answer: &Value, path: &str, value: &str, as_json: bool) -> u8 {
    let outcome = answer["outcome"].as_str().unwrap_or("unknown: the hub gave no outcome");
    if as_json {
        say!("{answer}");
    } else {
        say!("{outcome}");
        if let Some(read_back) = answer["read_back"].as_str().filter(|text| !text.is_empty()) {
            say!("{path}: {value} written, the device shows {read_back}");
        }
        say!("command {}", answer["id"].as_str().unwrap_or("?"));
    }
    if outcome == "done" { DONE } else { FAILED }
}

fn list(answer: &Value, as_json: bool) {
    if as_json {
        say!("{answer}");
        return;
    }
    for command in answer["commands"].as_array().into_iter().flatten() {
        let text = |key: &str| command[key].as_str().unwrap_or("").to_owned();
        say!(
            "{}  {}  {} = {}  {}  {}",
            text("at"),
            text("id"),
            text("path"),
            text("value"),
            text("outcome"),
            text("reason")
        );
    }
}
