//! Dead letters for people and bridges: list, show, retry, discard; and a bridge's refusal of a record. The rules are
//! `store::letters`' own.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::auth::SignedIn;
use super::errors::{ApiError, ErrorBody};
use super::json::{Body, Parameters, at_most, within};
use crate::store::{Letter, LetterId, Origin, Refusal, Retrial};

/// Entries of an answer unless asked otherwise, and at most.
const LIST: u64 = 100;
const LIST_MAX: u64 = 1000;
/// A reason is a sentence or two; a bridge's holds the chain of an error.
const REASON_BYTES_MAX: usize = 1000;
const REFUSAL_BYTES_MAX: usize = 4000;
/// A sink's name, as the bridge's configuration allows it.
const SINK_BYTES_MAX: usize = 100;

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most so many (1 to 1000, default 100).
    limit: Option<u64>,
    /// Also those that somebody has decided about (default false).
    all: Option<bool>,
}

/// The newest entries of the quarantine.
#[derive(Serialize, ToSchema)]
pub(crate) struct Quarantine {
    /// How many wait for a decision, in all.
    waiting: u64,
    /// Newest first.
    entries: Vec<EntryView>,
}

/// What could not become data.
#[derive(Serialize, ToSchema)]
#[schema(as = QuarantineEntry)]
struct EntryView {
    /// Its name: `p…` a payload, `r…` a record that a sink refused.
    id: String,
    /// `payload` or `record`.
    kind: &'static str,
    /// When it was put here.
    at: String,
    /// Topic of a payload, name of the sink for a record.
    from: String,
    /// What is wrong with it.
    reason: String,
    /// `waiting`, `retried`, `discarded` or `came anyway`.
    state: &'static str,
    /// Whose record it is, if that is known.
    agent: Option<String>,
    /// Epoch of that record, hexadecimal.
    epoch: Option<String>,
    /// Offset of that record.
    offset: Option<u64>,
    /// Position in the plant log, of a record that a sink refused.
    position: Option<u64>,
    /// How many bytes it has.
    bytes: u64,
    /// Who decided.
    decided_by: Option<String>,
    /// When.
    decided_at: Option<String>,
    /// Why, if it was discarded.
    decided_because: Option<String>,
}

/// An entry with its bytes.
#[derive(Serialize, ToSchema)]
pub(crate) struct QuarantineContent {
    /// The entry.
    entry: EntryView,
    /// The payload, or the plant log's record, two hexadecimal digits for each byte.
    content: String,
}

/// Which entry.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntryQuery {
    /// Its name, as the list has it.
    id: String,
}

/// A decision about an entry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryRequest {
    /// Its name.
    id: String,
}

/// A decision that an entry stays out for good.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscardRequest {
    /// Its name.
    id: String,
    /// Why, for the ledger.
    reason: String,
}

/// What became of an entry.
#[derive(Serialize, ToSchema)]
pub(crate) struct Decided {
    /// Its name.
    id: String,
    /// `retried`, `discarded`, or `came anyway` if its record is in the plant log already.
    state: &'static str,
}

/// A record that a sink cannot take.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusalRequest {
    /// Name of the sink.
    sink: String,
    /// Epoch of the plant log at the position, 16 hexadecimal digits.
    epoch: String,
    /// Where the record stands.
    position: u64,
    /// Why it cannot be taken.
    reason: String,
}

/// Where a refused record is kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refused {
    /// Name of the entry.
    id: String,
}

/// The newest entries of the quarantine.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "quarantine", params(ListQuery), operation_id = "quarantine_list",
    responses((status = 200, body = Quarantine), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 500, body = ErrorBody)))]
pub(crate) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<Quarantine>, ApiError> {
    let limit = usize::try_from(within("limit", query.limit, LIST, 1, LIST_MAX)?).unwrap_or(usize::MAX);
    let all = query.all.unwrap_or(false);
    let _slot = api.scan_slot().await?;
    let store = api.store().clone();
    let read =
        tokio::task::spawn_blocking(move || store.letters(|letter| all || letter.ended.is_none(), limit));
    let letters = read.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    let entries = letters.into_iter().map(|letter| view(&api, &letter)).collect();
    Ok(Json(Quarantine { waiting: api.store().letters_waiting(), entries }))
}

/// One entry, with its bytes.
#[utoipa::path(get, path = "/api/v1/quarantine/entry", tag = "quarantine", params(EntryQuery),
    operation_id = "quarantine_entry",
    responses((status = 200, body = QuarantineContent), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn entry(
    State(api): State<Api>,
    Parameters(query): Parameters<EntryQuery>,
) -> Result<Json<QuarantineContent>, ApiError> {
    let letter = find(&api, parse(&query.id)?).await?;
    Ok(Json(QuarantineContent { entry: view(&api, &letter), content: hex(&letter.bytes) }))
}

/// Decodes an entry anew and stores it under its own identity; 409 with the reason if it still cannot be.
#[utoipa::path(post, path = "/api/v1/quarantine/retry", tag = "quarantine", request_body = RetryRequest,
    operation_id = "quarantine_retry",
    params(("x-forebay" = Option<String>, Header, description = "`1`, needed with a session")),
    responses((status = 200, body = Decided), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn retry(
    State(api): State<Api>,
    Extension(who): Extension<SignedIn>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<Decided>, ApiError> {
    let id = parse(&request.id)?;
    let letter = find(&api, id).await?;
    let what = match (id.origin, &letter.ended) {
        // The writer refuses what is decided; nothing need be decoded for it.
        (Origin::Record, _) | (_, Some(_)) => Retrial::Record,
        (Origin::Payload, None) => match api.host().reread(letter).await {
            Ok(batch) => Retrial::Batch(Box::new(batch)),
            Err(why) => return Err(crate::store::LetterError::Still { id, why }.into()),
        },
    };
    let fate = api.store().retry(id, what, who.author().to_owned()).await?;
    Ok(Json(Decided { id: id.to_string(), state: fate.word() }))
}

/// Decides that an entry stays out for good; the ledger says who, when and why.
#[utoipa::path(post, path = "/api/v1/quarantine/discard", tag = "quarantine", request_body = DiscardRequest,
    operation_id = "quarantine_discard",
    params(("x-forebay" = Option<String>, Header, description = "`1`, needed with a session")),
    responses((status = 200, body = Decided), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn discard(
    State(api): State<Api>,
    Extension(who): Extension<SignedIn>,
    Body(request): Body<DiscardRequest>,
) -> Result<Json<Decided>, ApiError> {
    let id = parse(&request.id)?;
    at_most("reason", &request.reason, REASON_BYTES_MAX)?;
    if request.reason.trim().is_empty() {
        return Err(ApiError::bad("reason", "must say why: it is kept in the ledger"));
    }
    api.store().discard(id, who.author().to_owned(), request.reason).await?;
    Ok(Json(Decided { id: id.to_string(), state: crate::store::Fate::Discarded.word() }))
}

/// Keeps a record that the caller's sink cannot take, durably, so that the sink can go on behind it. Asked again it
/// answers the same.
#[utoipa::path(post, path = "/api/v1/quarantine/refuse", tag = "bridge", request_body = RefusalRequest,
    operation_id = "quarantine_refuse",
    params(("x-forebay" = Option<String>, Header, description = "`1`, needed with a session")),
    responses((status = 200, body = Refused), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn refuse(
    State(api): State<Api>,
    Body(request): Body<RefusalRequest>,
) -> Result<Json<Refused>, ApiError> {
    if request.sink.is_empty()
        || request.sink.len() > SINK_BYTES_MAX
        || request.sink.chars().any(char::is_control)
    {
        return Err(ApiError::bad("sink", format!("must be a name of 1 to {SINK_BYTES_MAX} bytes")));
    }
    at_most("reason", &request.reason, REFUSAL_BYTES_MAX)?;
    let digits = request.epoch.len() == 16 && request.epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
    let epoch = if digits { u64::from_str_radix(&request.epoch, 16).ok() } else { None };
    let epoch = epoch.ok_or_else(|| ApiError::bad("epoch", "must be 16 hexadecimal digits"))?;
    let RefusalRequest { sink, position, reason, .. } = request;
    let id = api.store().refuse(Refusal { sink, epoch, position, reason }).await?;
    Ok(Json(Refused { id: id.to_string() }))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").ok(); // a String takes everything
        text
    })
}

fn parse(id: &str) -> Result<LetterId, ApiError> {
    LetterId::parse(id).ok_or_else(|| ApiError::bad("id", "must be a name such as p12 or r3"))
}

async fn find(api: &Api, id: LetterId) -> Result<Letter, ApiError> {
    let store = api.store().clone();
    let read = tokio::task::spawn_blocking(move || store.letter(id));
    let letter = read.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    letter.ok_or_else(|| crate::store::LetterError::Unknown(id).into())
}

fn view(api: &Api, letter: &Letter) -> EntryView {
    let ended = letter.ended.as_ref();
    EntryView {
        id: letter.id.to_string(),
        kind: match letter.id.origin {
            Origin::Payload => "payload",
            Origin::Record => "record",
        },
        at: letter.at.to_string(),
        from: letter.from.clone(),
        reason: letter.reason.clone(),
        state: ended.map_or("waiting", |ended| ended.fate.word()),
        agent: letter.record.map(|(agent, _)| api.agent_name(agent)),
        epoch: letter.record.map(|(_, record)| record.epoch.to_string()),
        offset: letter.record.map(|(_, record)| record.offset.0),
        position: letter.position,
        bytes: letter.bytes.len() as u64,
        decided_by: ended.map(|ended| ended.by.clone()),
        decided_at: ended.map(|ended| ended.at.to_string()),
        decided_because: ended.map(|ended| ended.reason.clone()).filter(|reason| !reason.is_empty()),
    }
}
