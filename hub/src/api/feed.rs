//! The feed for bridges: pages of the plant log by long poll (docs/specs/feed.md).
//!
//! It reads only what is durable, on a thread of its own, and bounds a page by bytes. The sink's cursor that comes
//! along is a hint for retention; the truth is in the sink's table.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use durable_log::{LogError, LogView, Position};
use model::Epoch;
use proto::feed::FeedPage;
use proto::log_record::CatalogueEntry;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::agents::SINK_CURSOR;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, within};

/// Records of a page: unless asked otherwise, and at most.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
const PAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records of a page: small ones cost more than their bytes.
const PAGE_RECORDS_MAX: usize = 100_000;
/// Catalogue entries of a page; a caller that meets an unknown number asks again.
const PAGE_CATALOGUE_MAX: usize = 20_000;
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
    /// Encoded records in the page; at least one record is sent if there is one (1 to 33554432, default 4194304).
    max_bytes: Option<u64>,
}

/// A page of the plant log with the catalogue entries it needs: `FeedPage` of `hub_feed.proto`.
#[utoipa::path(get, path = "/api/v1/feed", tag = "bridge", params(FeedQuery),
    responses((status = 200, content_type = "application/x-protobuf", body = Vec<u8>, description = "forebay.feed.FeedPage"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn feed(
    State(api): State<Api>,
    Parameters(query): Parameters<FeedQuery>,
) -> Result<Response, ApiError> {
    if query.sink.is_empty() || query.sink.len() > SINK_BYTES_MAX || query.sink.chars().any(char::is_control)
    {
        return Err(ApiError::bad("sink", format!("must be a name of 1 to {SINK_BYTES_MAX} bytes")));
    }
    let wait_max = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
    let wait = Duration::from_millis(within("wait_ms", query.wait_ms, 0, 0, wait_max)?);
    let max_bytes = within("max_bytes", query.max_bytes, PAGE_BYTES, 1, PAGE_BYTES_MAX)?;
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let committed = committed(query.committed, query.epoch.as_deref())?;
    let slot = api.feed_slot()?;
    if let Some((position, epoch)) = committed {
        register(&api, &query.sink, position, epoch).await?;
    }
    wait_for(&api, query.from, wait).await;
    let log = api.plant_log().clone();
    let from = Position(query.from);
    let read = tokio::task::spawn_blocking(move || records(&log, from, max_bytes));
    let read = read.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    // After the records: their entries are durable before them, so that all are here unless the page is full.
    let asked = query.catalogue.unwrap_or(0);
    let (catalogue, catalogue_next) = catalogue(&api, asked);
    let begin = read.entries.first().map_or(read.next, |(position, _)| *position);
    let set_aside = begin..read.next;
    let page = FeedPage {
        hub_id: api.store().hub_id().to_owned(),
        enterprise: api.config().enterprise.clone(),
        site: api.config().site.clone(),
        epochs: read.epochs,
        first: read.first,
        next: read.next,
        durable_end: read.durable_end,
        catalogue_next,
        catalogue,
        set_aside: api.store().set_aside(&query.sink, set_aside),
        entries: read.entries,
    };
    let encoded = tokio::task::spawn_blocking(move || page.encode());
    let encoded = encoded.await.map_err(|error| ApiError::Internal(error.to_string()))?;
    drop(slot);
    Ok(([(header::CONTENT_TYPE, "application/x-protobuf")], encoded).into_response())
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

/// Keeps the sink's cursor, if it is one of this log; the same one twice costs nothing.
async fn register(api: &Api, sink: &str, at: Position, epoch: Epoch) -> Result<(), ApiError> {
    let name = format!("{SINK_CURSOR}{sink}");
    let log = api.plant_log().clone();
    if at > log.durable_end() || !log.segments().iter().any(|segment| segment.epoch == epoch.0) {
        return Ok(());
    }
    if api.cursor_is_known(&name, at) {
        return Ok(());
    }
    let set = {
        let name = name.clone();
        tokio::task::spawn_blocking(move || log.set_cursor(&name, at))
    };
    set.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    api.remember_cursor(name, at);
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

#[derive(Debug, Default)]
struct Records {
    epochs: Vec<(Epoch, u64)>,
    first: u64,
    next: u64,
    durable_end: u64,
    entries: Vec<(u64, Bytes)>,
}

/// Blocking: reads the page's records.
fn records(log: &LogView, from: Position, max_bytes: usize) -> Result<Records, LogError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut reader = log.reader(from);
    let mut next = from;
    let is_beyond = from > log.durable_end();
    while !is_beyond && entries.len() < PAGE_RECORDS_MAX {
        match reader.next() {
            Ok(Some((position, record))) => {
                if !entries.is_empty() && bytes + record.len() > max_bytes {
                    break;
                }
                bytes += record.len();
                entries.push((position.0, Bytes::copy_from_slice(record)));
                next = position.next();
            }
            Ok(None) => break,
            // Retention was faster: what is here must be without gaps, so begin again behind it.
            Err(LogError::Trimmed { .. }) => {
                entries.clear();
                bytes = 0;
                next = reader.position();
            }
            Err(error) => return Err(error),
        }
    }
    let mut epochs: Vec<(Epoch, u64)> = Vec::new();
    for segment in log.segments() {
        if epochs.last().is_none_or(|(epoch, _)| epoch.0 != segment.epoch) {
            epochs.push((Epoch(segment.epoch), segment.first.0));
        }
    }
    Ok(Records { epochs, first: log.first().0, next: next.0, durable_end: log.durable_end().0, entries })
}

fn catalogue(api: &Api, asked: u64) -> (Vec<CatalogueEntry>, u64) {
    let (mut entries, next) = api.catalogue().entries_from(asked);
    if entries.len() <= PAGE_CATALOGUE_MAX {
        return (entries, next);
    }
    entries.truncate(PAGE_CATALOGUE_MAX);
    (entries, asked + PAGE_CATALOGUE_MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_log::{Log, Options};

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path(), Options::default(), 7).unwrap();
        for number in 0u32..100 {
            log.append_group(&[&number.to_le_bytes()]).unwrap();
        }
        log.sync().unwrap();
        let view = log.view();
        let mut next = Position(0);
        let mut seen = Vec::new();
        loop {
            let page = records(&view, next, 30).unwrap();
            assert_eq!((page.first, page.durable_end, page.epochs.clone()), (0, 100, vec![(Epoch(7), 0)]));
            if page.entries.is_empty() {
                assert_eq!(page.next, 100);
                break;
            }
            assert!(page.entries.len() <= 7);
            seen.extend(page.entries.iter().map(|(position, _)| *position));
            next = Position(page.next);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());
        let beyond = records(&view, Position(u64::MAX), 30).unwrap();
        assert!(beyond.entries.is_empty() && beyond.next == u64::MAX && beyond.durable_end == 100);
        let one = records(&view, Position(5), 1).unwrap();
        assert_eq!((one.entries.len(), one.next), (1, 6), "at least one record, however small the page");
    }
}
