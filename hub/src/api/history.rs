//! The history of one point: what was asked, bounded, and the scan on a thread of its own.

use axum::Json;
use axum::extract::State;
use model::Timestamp;
use model::limits::PATH_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, Reading, ReadingSchema, at_most, timestamp, within};
use crate::store::history::Query;

/// Samples of an answer unless asked otherwise, and at most.
const SAMPLES: u64 = 10_000;
const SAMPLES_MAX: u64 = 100_000;
/// Slices of a thinned answer.
const BUCKETS_MAX: u64 = 5000;

/// Which samples.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// The point's path.
    path: String,
    /// From this source time on: ISO 8601 or microseconds since 1970. Default: everything held.
    from: Option<String>,
    /// To this source time, exclusive. Default: everything held.
    to: Option<String>,
    /// At most so many samples, the newest (1 to 100000, default 10000).
    limit: Option<u64>,
    /// Instead of `limit`: of each of so many equal slices of time the first, lowest, highest, last and first not good
    /// sample (1 to 5000).
    buckets: Option<u64>,
}

/// Samples of one point, by source time.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(crate) struct HistoryAnswer {
    /// The point's path.
    path: String,
    /// By source time.
    #[schema(value_type = Vec<ReadingSchema>)]
    samples: Vec<Reading>,
    /// Whether `buckets` left samples out.
    thinned: bool,
    /// Whether there is more than `limit` or one scan may read; what is here is the newest part.
    truncated: bool,
}

/// Samples of one point from the plant log.
#[utoipa::path(get, path = "/api/v1/history", tag = "points", params(HistoryQuery),
    responses((status = 200, body = HistoryAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody, description = "Too many scans at once")))]
pub(crate) async fn history(
    State(api): State<Api>,
    Parameters(query): Parameters<HistoryQuery>,
) -> Result<Json<HistoryAnswer>, ApiError> {
    at_most("path", &query.path, PATH_BYTES_MAX)?;
    let time = |name, text: &Option<String>, default| {
        text.as_deref().map_or(Ok(Timestamp(default)), |text| timestamp(name, text))
    };
    let (from, to) = (time("from", &query.from, i64::MIN)?, time("to", &query.to, i64::MAX)?);
    let limit = within("limit", query.limit, SAMPLES, 1, SAMPLES_MAX)?;
    let buckets =
        query.buckets.map(|given| within("buckets", Some(given), given, 1, BUCKETS_MAX)).transpose()?;
    let points = api.points_of(&query.path);
    if points.is_empty() {
        return Err(ApiError::NotFound { what: format!("point {:?}", query.path) });
    }
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let scan = Query { points, from, to, limit: size(limit), buckets: buckets.map(size) };
    let slot = api.scan_slot().await?;
    let history = api.history().clone();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = history.read(&scan);
        drop(slot);
        answer
    });
    let answer = answer.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    let samples = answer.samples.into_iter();
    let samples = samples.map(|s| Reading { time: s.time, value: s.value, quality: s.quality }).collect();
    Ok(Json(HistoryAnswer {
        path: query.path,
        samples,
        thinned: answer.thinned,
        truncated: answer.truncated,
    }))
}
