//! Writing a point through the API, and the newest commands; the rules are `commands`' own.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use model::limits::{PATH_BYTES_MAX, VALUE_BYTES_MAX};
use model::{CommandOutcome, CommandState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::SignedIn;
use super::errors::{ApiError, ErrorBody};
use super::json::{Body, Parameters, at_most, within};
use crate::commands::{CommandRecord, EXPIRY_MAX, EXPIRY_MIN, WriteRequest};

/// Commands of an answer unless asked otherwise, and at most.
const RECENT: u64 = 100;
const RECENT_MAX: u64 = 1000;
/// A reason is a sentence or two.
const REASON_BYTES_MAX: usize = 1000;

/// What is to be written.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandRequest {
    /// The point's path.
    path: String,
    /// Number, boolean or text; it must be a value of the point's type.
    #[schema(value_type = serde_json::Value)]
    value: serde_json::Value,
    /// After this time nobody executes it: `5s`, `1m` (1 s to 300 s, default 5 s).
    expires: Option<String>,
    /// Why, for the ledger.
    reason: String,
}

/// How a command ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct CommandAnswer {
    /// Its identity.
    id: String,
    /// `done`, `refused: …`, `expired` or `unknown: …`.
    outcome: String,
    /// What the device showed afterwards; null if it was not read.
    read_back: Option<String>,
}

/// Writes a point and waits for the outcome, at most until the command's expiry and a little longer.
#[utoipa::path(post, path = "/api/v1/commands", tag = "commands", request_body = CommandRequest,
    params(("x-forebay" = Option<String>, Header, description = "`1`, needed with a session")),
    responses((status = 200, body = CommandAnswer, description = "Recorded; see its outcome"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn write(
    State(api): State<Api>,
    Extension(who): Extension<SignedIn>,
    Body(request): Body<CommandRequest>,
) -> Result<Json<CommandAnswer>, ApiError> {
    let write = checked(request, who)?;
    let record = api.commands().write(write).await;
    let outcome = outcome(&record);
    Ok(Json(CommandAnswer { id: record.id.to_string(), outcome, read_back: read_back(record.read_back) }))
}

fn checked(request: CommandRequest, who: SignedIn) -> Result<WriteRequest, ApiError> {
    at_most("path", &request.path, PATH_BYTES_MAX)?;
    at_most("reason", &request.reason, REASON_BYTES_MAX)?;
    if request.reason.trim().is_empty() {
        return Err(ApiError::bad("reason", "must say why: it is kept in the ledger"));
    }
    let value = match request.value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(boolean) => boolean.to_string(),
        _ => return Err(ApiError::bad("value", "must be a number, a boolean or a text")),
    };
    at_most("value", &value, VALUE_BYTES_MAX)?;
    let expires_in = match request.expires.as_deref() {
        None => Duration::from_secs(5),
        Some(text) => {
            runtime::config_file::parse_duration(text).map_err(|rule| ApiError::bad("expires", rule))?
        }
    };
    if !(EXPIRY_MIN..=EXPIRY_MAX).contains(&expires_in) {
        let rule = format!("must be {} s to {} s", EXPIRY_MIN.as_secs(), EXPIRY_MAX.as_secs());
        return Err(ApiError::bad("expires", rule));
    }
    let author = who.author().to_owned();
    Ok(WriteRequest { path: request.path, value, expires_in, author, reason: request.reason })
}

/// How many commands.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecentQuery {
    /// At most so many (1 to 1000, default 100).
    limit: Option<u64>,
}

/// The newest commands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Commands {
    /// Newest first.
    commands: Vec<CommandView>,
}

/// A command as the ledger knows it.
#[derive(Serialize, ToSchema)]
#[schema(as = Command)]
struct CommandView {
    /// Its identity.
    id: String,
    /// The point's path.
    path: String,
    /// The value as asked for.
    value: String,
    /// Who asked.
    author: String,
    /// Why.
    reason: String,
    /// When it was recorded.
    at: String,
    /// After this, nobody executes it.
    expires_at: String,
    /// How it ended, or `recorded` or `sent` while it is under way.
    outcome: String,
    /// What the device showed afterwards; null if it was not read.
    read_back: Option<String>,
    /// When it ended.
    ended_at: Option<String>,
}

/// The newest commands with their outcomes.
#[utoipa::path(get, path = "/api/v1/commands", tag = "commands", params(RecentQuery),
    responses((status = 200, body = Commands), (status = 401, body = ErrorBody)))]
pub(crate) async fn recent(
    State(api): State<Api>,
    Parameters(query): Parameters<RecentQuery>,
) -> Result<Json<Commands>, ApiError> {
    let limit = within("limit", query.limit, RECENT, 1, RECENT_MAX)?;
    let records = api.commands().recent(usize::try_from(limit).unwrap_or(usize::MAX));
    let view = |record: CommandRecord| CommandView {
        outcome: outcome(&record),
        id: record.id.to_string(),
        path: record.path,
        value: record.value,
        author: record.author,
        reason: record.reason,
        at: record.at.to_string(),
        expires_at: record.expires_at.to_string(),
        read_back: read_back(record.read_back),
        ended_at: record.ended_at.map(|time| time.to_string()),
    };
    Ok(Json(Commands { commands: records.into_iter().map(view).collect() }))
}

fn outcome(record: &CommandRecord) -> String {
    match (&record.outcome, record.state) {
        (Some(outcome), _) => outcome.to_string(),
        (None, CommandState::Recorded) => "recorded".to_owned(),
        (None, CommandState::Sent) => "sent".to_owned(),
        (None, CommandState::Unknown) => CommandOutcome::Unknown("no answer".to_owned()).to_string(),
        (None, CommandState::Closed) => "closed".to_owned(),
    }
}

fn read_back(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
