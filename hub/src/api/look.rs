//! A look at a point: what the device said last, what is done to it, and what came of it. The agent is asked.

use axum::Json;
use axum::extract::State;
use model::limits::PATH_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, at_most};

/// Which point.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LookQuery {
    /// The point's path.
    path: String,
}

/// The last reading of a point at its agent, before the dead band.
#[derive(Serialize, ToSchema)]
#[schema(as = Look)]
pub(crate) struct LookView {
    /// The point's path.
    path: String,
    /// Where it is in the device, in the driver's words.
    address: String,
    /// Its type there.
    raw_type: String,
    /// What the device gave, as text; null if there was no value.
    raw: Option<String>,
    /// Factor applied first; null if there is none.
    scale: Option<f64>,
    /// Added afterwards.
    offset: Option<f64>,
    /// A result below is uncertain.
    min: Option<f64>,
    /// A result above is uncertain.
    max: Option<f64>,
    /// Changes up to this size are not passed on.
    dead_band: Option<f64>,
    /// The result as text; null if there is none.
    value: Option<String>,
    /// Its quality; null before the first reading.
    quality: Option<String>,
    /// Its time; null before the first reading.
    time: Option<String>,
}

/// Asks the point's agent for its raw value, the transforms and their result.
#[utoipa::path(get, path = "/api/v1/look", tag = "points", params(LookQuery),
    responses((status = 200, body = LookView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The agent is offline, or does not read the point"),
        (status = 503, body = ErrorBody, description = "The agent did not answer, or too many questions wait")))]
pub(crate) async fn look(
    State(api): State<Api>,
    Parameters(query): Parameters<LookQuery>,
) -> Result<Json<LookView>, ApiError> {
    at_most("path", &query.path, PATH_BYTES_MAX)?;
    let point = api.catalogue().find(&query.path);
    let target = point.and_then(|point| api.host().device_of(point));
    let target = target.ok_or_else(|| ApiError::NotFound { what: format!("point {:?}", query.path) })?;
    let answer = api.host().look(&target).await?;
    Ok(Json(LookView {
        path: query.path,
        address: answer.address,
        raw_type: answer.raw_type,
        raw: answer.raw,
        scale: answer.scale,
        offset: answer.offset,
        min: answer.min,
        max: answer.max,
        dead_band: answer.dead_band,
        value: answer.value,
        quality: answer.quality.map(|quality| quality.to_string()),
        time: answer.time.map(|time| time.to_string()),
    }))
}
