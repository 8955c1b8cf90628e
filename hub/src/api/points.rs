//! Points: the list by path, one point, and the history of one.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Path, State};
use model::PointId;
use model::limits::PATH_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, Reading, ReadingSchema, at_most, within};
use crate::catalogue::{Catalogue, PointEntry};

/// Points of a page unless asked otherwise, and at most.
const PAGE: u64 = 200;
const PAGE_MAX: u64 = 5000;
/// A page ends early when its last values have so many bytes.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Text that a search may have.
const SEARCH_BYTES_MAX: usize = 256;

/// Which points.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PointsQuery {
    /// Paths that begin so.
    prefix: Option<String>,
    /// Words that path, description, unit or agent contain, in any case.
    search: Option<String>,
    /// At most so many (1 to 5000, default 200).
    limit: Option<u64>,
    /// Paths after this one: `next` of the page before.
    after: Option<String>,
}

/// A page of points, by path.
#[derive(Serialize, ToSchema)]
pub(crate) struct PointsPage {
    /// In order of their paths.
    points: Vec<PointView>,
    /// Ask for the points after this path; null at the end.
    next: Option<String>,
}

/// A point with its last value.
#[derive(Serialize, ToSchema)]
#[schema(as = Point)]
pub(crate) struct PointView {
    /// ISA-95 path relative to the site.
    path: String,
    /// UCUM text, empty if there is none.
    unit: String,
    /// `float`, `uint16`, `datetime` …
    r#type: &'static str,
    /// Whether commands may write it.
    writable: bool,
    /// Lowest plausible and lowest writable value.
    min: Option<f64>,
    /// Highest plausible and highest writable value.
    max: Option<f64>,
    /// For people.
    description: String,
    /// `group/node` of the agent that speaks for it.
    agent: String,
    /// Sparkplug device; null for a metric of the node itself.
    device: Option<String>,
    /// Sparkplug metric name.
    metric: String,
    /// Last value; null if it never had one.
    #[schema(value_type = Option<ReadingSchema>)]
    last: Option<Reading>,
}

/// Paths in order, made anew when the catalogue has grown.
#[derive(Debug, Default)]
pub(crate) struct PathOrder {
    made: Mutex<(usize, Arc<Vec<PointId>>)>,
}

impl PathOrder {
    /// The newest point of every path, by path.
    fn get(&self, catalogue: &Catalogue) -> Arc<Vec<PointId>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let size = catalogue.len();
        if made.0 != size {
            let mut points = catalogue.points();
            // Newest first among equals, and only that one is kept.
            points.sort_unstable_by(|a, b| a.definition.path.cmp(&b.definition.path).then(b.id.cmp(&a.id)));
            points.dedup_by(|later, kept| later.definition.path == kept.definition.path);
            *made = (points.len().max(size), Arc::new(points.iter().map(|point| point.id).collect()));
            made.0 = size;
        }
        Arc::clone(&made.1)
    }
}

/// Points by path, page by page.
#[utoipa::path(get, path = "/api/v1/points", tag = "points", params(PointsQuery),
    responses((status = 200, body = PointsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<PointsQuery>,
) -> Result<Json<PointsPage>, ApiError> {
    let limit = usize::try_from(within("limit", query.limit, PAGE, 1, PAGE_MAX)?).unwrap_or(usize::MAX);
    let (prefix, after) = (query.prefix.unwrap_or_default(), query.after.unwrap_or_default());
    let search = query.search.unwrap_or_default();
    at_most("prefix", &prefix, PATH_BYTES_MAX)?;
    at_most("after", &after, PATH_BYTES_MAX)?;
    at_most("search", &search, SEARCH_BYTES_MAX)?;
    let words: Vec<String> = search.split_whitespace().map(str::to_lowercase).collect();
    let order = api.path_order().get(api.catalogue());
    let entry = |id: &PointId| api.catalogue().point(*id);
    let path_of =
        |id: &PointId| entry(id).map(|point| point.definition.path.as_str().to_owned()).unwrap_or_default();
    let start = order.partition_point(|id| {
        let path = path_of(id);
        (!after.is_empty() && path.as_str() <= after.as_str()) || path.as_str() < prefix.as_str()
    });
    let mut points = Vec::new();
    let mut bytes = 0;
    for point in order.iter().skip(start).filter_map(entry) {
        if !point.definition.path.as_str().starts_with(&prefix) {
            break;
        }
        if !contains(&api, &point, &words) {
            continue;
        }
        if points.len() == limit || bytes >= PAGE_BYTES_MAX {
            let next = points.last().map(|last: &PointView| last.path.clone());
            return Ok(Json(PointsPage { points, next }));
        }
        let view = view(&api, &point);
        bytes += view.last.as_ref().and_then(|last| last.value.as_ref()).map_or(0, model::Value::heap_bytes);
        points.push(view);
    }
    Ok(Json(PointsPage { points, next: None }))
}

fn contains(api: &Api, point: &PointEntry, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let agent = api.agent_name(point.agent);
    let definition = &point.definition;
    let text =
        format!("{} {} {} {agent}", definition.path, definition.description, definition.unit).to_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}

fn view(api: &Api, point: &PointEntry) -> PointView {
    let definition = &point.definition;
    let last = api.live().latest(point.id);
    PointView {
        path: definition.path.to_string(),
        unit: definition.unit.clone(),
        r#type: definition.data_type.name(),
        writable: definition.writable,
        min: definition.min,
        max: definition.max,
        description: definition.description.clone(),
        agent: api.agent_name(point.agent),
        device: definition.device.clone(),
        metric: definition.metric.clone(),
        last: last.map(|last| Reading { time: last.time, value: last.value, quality: last.quality }),
    }
}

/// One point with its last value. Slashes of the path are written as they are, everything else percent-encoded.
#[utoipa::path(get, path = "/api/v1/points/{path}", tag = "points",
    params(("path" = String, Path, description = "ISA-95 path relative to the site, may contain `/`")),
    responses((status = 200, body = PointView), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn one(
    State(api): State<Api>,
    Path(path): Path<String>,
) -> Result<Json<PointView>, ApiError> {
    at_most("path", &path, PATH_BYTES_MAX)?;
    let id = api.catalogue().find(&path);
    let point = id.and_then(|id| api.catalogue().point(id));
    let point = point.ok_or_else(|| ApiError::NotFound { what: format!("point {path:?}") })?;
    Ok(Json(view(&api, &point)))
}
