//! The feed for bridges: pages of the plant log by long poll (docs/specs/feed.md).
//!
//! What a page holds is `store::feed_page`'s. The sink's cursor that comes along is a hint for retention; the truth is in
//! the sink's table.

use std::time::Duration;

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use durable_log::Position;
use model::Epoch;
use proto::seal;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, within};
use super::seats::TEXT_BYTES_MAX;
use crate::store::feed_page::{self, Wanted};

/// Records of a page: unless asked otherwise, and at most.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
const PAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest wait of a poll.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A sink's name, as the bridge's configuration allows it.
const SINK_BYTES_MAX: usize = 100;

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FeedQuery {
    /// Name of the caller's cursor.
    sink: String,
    /// First position wanted.
    from: u64,
    /// Number of the first catalogue entry that the caller lacks (default 0).
    catalogue: Option<u64>,
    /// Everything below is durable in the caller's target; with `epoch`.
    committed: Option<u64>,
    /// The plant log epoch in which that was committed, 16 hexadecimal digits.
    epoch: Option<String>,
    /// How long to wait for something at or past `from` (0 to 30000, default 0).
    wait_ms: Option<u64>,
    /// Which bridge asks, as people would know it: of two that ask for one sink the second is refused with 409. Without it
    /// nothing is refused.
    holder: Option<String>,
    /// What keeps the caller from its target, if anything; shown with the sink.
    alarm: Option<String>,
    /// Encoded records in the page; at least one record is sent if there is one (1 to 33554432, default 4194304).
    max_bytes: Option<u64>,
    /// Last of all: a checksum over the parameters before it, 16 hexadecimal digits (docs/specs/feed.md).
    seal: Option<String>,
}

/// A page of the plant log with the catalogue entries it needs: `FeedPage` of `hub_feed.proto`.
#[utoipa::path(get, path = "/api/v1/feed", tag = "bridge", params(FeedQuery),
    responses((status = 200, content_type = "application/x-protobuf", body = Vec<u8>, description = "forebay.feed.FeedPage"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn feed(
    State(api): State<Api>,
    uri: Uri,
    Parameters(query): Parameters<FeedQuery>,
) -> Result<Response, ApiError> {
    if query.seal.is_some() && !is_sealed(uri.query().unwrap_or_default()) {
        return Err(ApiError::bad("seal", "does not fit: the request was changed on its way"));
    }
    if query.sink.is_empty() || query.sink.len() > SINK_BYTES_MAX || query.sink.chars().any(char::is_control)
    {
        return Err(ApiError::bad("sink", format!("must be a name of 1 to {SINK_BYTES_MAX} bytes")));
    }
    let wait_max = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
    let wait = Duration::from_millis(within("wait_ms", query.wait_ms, 0, 0, wait_max)?);
    let max_bytes = within("max_bytes", query.max_bytes, PAGE_BYTES, 1, PAGE_BYTES_MAX)?;
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let committed = committed(query.committed, query.epoch.as_deref())?;
    sit_down(&api, &query)?;
    let slot = api.feed_slot()?;
    register(&api, &query.sink, committed).await?;
    wait_for(&api, query.from, wait).await;
    let (store, catalogue) = (api.store().clone(), api.catalogue().clone());
    let names = (api.config().enterprise.clone(), api.config().site.clone());
    let wanted = Wanted { from: Position(query.from), catalogue: query.catalogue.unwrap_or(0), max_bytes };
    let encoded = tokio::task::spawn_blocking(move || {
        feed_page::page(&store, &catalogue, names, wanted).map(|page| page.encode())
    });
    let encoded = encoded.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    drop(slot);
    Ok(([(header::CONTENT_TYPE, "application/x-protobuf")], encoded).into_response())
}

/// Whether a query ends with the seal of what stands before it.
fn is_sealed(query: &str) -> bool {
    query.rsplit_once("&seal=").is_some_and(|(before, seal)| {
        seal == format!("{:016x}", seal::checksum(seal::FEED_REQUEST, before.as_bytes()))
    })
}

/// Takes the sink's seat for a caller that names itself.
fn sit_down(api: &Api, query: &FeedQuery) -> Result<(), ApiError> {
    for (name, text) in [("holder", &query.holder), ("alarm", &query.alarm)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err(ApiError::bad(name, format!("must be 1 to {TEXT_BYTES_MAX} bytes")));
        }
    }
    let Some(holder) = &query.holder else { return Ok(()) };
    let taken = api.seats().take(&query.sink, holder, query.alarm.as_deref(), Instant::now());
    taken.map_err(|taken| ApiError::SinkTaken {
        sink: query.sink.clone(),
        holder: taken.holder,
        seen_s_ago: taken.seen_s_ago,
    })
}

fn committed(position: Option<u64>, epoch: Option<&str>) -> Result<Option<(Position, Epoch)>, ApiError> {
    match (position, epoch) {
        (None, None) => Ok(None),
        (Some(position), Some(epoch)) => {
            let digits = epoch.len() == 16 && epoch.bytes().all(|b| b.is_ascii_hexdigit());
            let number = if digits { u64::from_str_radix(epoch, 16).ok() } else { None };
            let number = number.ok_or_else(|| ApiError::bad("epoch", "must be 16 hexadecimal digits"))?;
            Ok(Some((Position(position), Epoch(number))))
        }
        _ => Err(ApiError::bad("committed", "and epoch belong together: send both or neither")),
    }
}

/// Keeps the sink's cursor; what is known already costs nothing.
async fn register(api: &Api, sink: &str, committed: Option<(Position, Epoch)>) -> Result<(), ApiError> {
    if api.knows_sink(sink, committed.map(|(at, _)| at)) {
        return Ok(());
    }
    let (store, name) = (api.store().clone(), sink.to_owned());
    let kept = tokio::task::spawn_blocking(move || store.keep_sink(&name, committed));
    if let Some(at) = kept.await.map_err(|error| ApiError::Internal(error.to_string()))?? {
        api.remember_sink(sink.to_owned(), at);
    }
    Ok(())
}

/// Waits until there is something at or past `from`, the time is over, or the hub stops.
async fn wait_for(api: &Api, from: u64, wait: Duration) {
    let mut durable = api.durable();
    if wait.is_zero() || from > durable.borrow().0 {
        return;
    }
    tokio::select! {
        _ = durable.wait_for(|end| end.0 > from) => {}
        () = tokio::time::sleep(wait) => {}
        () = api.shutdown().cancelled() => {}
    }
}
