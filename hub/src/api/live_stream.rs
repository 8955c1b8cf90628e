//! Live values as server-sent events: what changed since the last push, last values only.
//!
//! Events: `clock` (the hub's time, first and with every breath), `values` (an array of readings with `p`, the path).
//! The first pushes are a snapshot. A client that reads slowly gets fewer pushes, never old ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use model::PointId;
use model::limits::PATH_BYTES_MAX;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, Reading, at_most};
use crate::live::{ChangeCursor, LiveValue};

/// Pushes come at most so often: five a second is what eyes follow.
const PUSH_EVERY: Duration = Duration::from_millis(200);
/// Points of one push; the rest follows in the next.
const PUSH_POINTS_MAX: usize = 5000;
/// ... unless it has so many bytes before.
const PUSH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Points of one event: at the largest values there are, what a stream holds in memory.
const EVENT_POINTS: usize = 64;
/// Without news, a sign of life after so long: proxies and browsers cut silent connections.
const BREATH: Duration = Duration::from_secs(10);

/// Which points.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LiveQuery {
    /// Paths that begin so.
    prefix: Option<String>,
}

/// Live values as server-sent events: `values` with `[{p, t, v, q}]`, and `clock` with the hub's time.
#[utoipa::path(get, path = "/api/v1/live", tag = "points", params(LiveQuery),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "Too many streams")))]
pub(crate) async fn live(
    State(api): State<Api>,
    Parameters(query): Parameters<LiveQuery>,
) -> Result<Response, ApiError> {
    let prefix = query.prefix.unwrap_or_default();
    at_most("prefix", &prefix, PATH_BYTES_MAX)?;
    let slot = api.stream_slot()?;
    let cursor = api.live().changes();
    let stream = Stream { api, prefix, cursor, waiting: VecDeque::new(), started: false, _slot: slot };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    }));
    Ok((headers, body).into_response())
}

struct Stream {
    api: Api,
    prefix: String,
    cursor: ChangeCursor,
    waiting: VecDeque<Bytes>,
    started: bool,
    _slot: OwnedSemaphorePermit,
}

impl Stream {
    /// The next event; `None` when the hub stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            self.started = true;
            return Some(self.clock());
        }
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            tokio::time::sleep(PUSH_EVERY).await;
            tokio::select! {
                () = self.api.shutdown().cancelled() => return None,
                () = tokio::time::sleep(BREATH) => return Some(self.clock()),
                () = self.cursor.wait() => {}
            }
            self.push();
        }
    }

    /// Puts what changed into events, up to a push's bounds.
    fn push(&mut self) {
        let (mut points, mut bytes) = (0, 0);
        while points < PUSH_POINTS_MAX && bytes < PUSH_BYTES_MAX {
            let changed = self.cursor.take(EVENT_POINTS);
            points += changed.len();
            if let Some(event) = self.values(&changed) {
                bytes += event.len();
                self.waiting.push_back(event);
            }
            if changed.len() < EVENT_POINTS {
                break;
            }
        }
    }

    fn clock(&self) -> Bytes {
        Bytes::from(format!("event: clock\ndata: {}\n\n", self.api.clock().now()))
    }

    fn values(&self, changed: &[(PointId, LiveValue)]) -> Option<Bytes> {
        let push = Push { stream: self, changed };
        let text = serde_json::to_string(&push).ok()?;
        (text != "[]").then(|| Bytes::from(format!("event: values\ndata: {text}\n\n")))
    }
}

/// The changed points of a push that the client asked for.
struct Push<'a> {
    stream: &'a Stream,
    changed: &'a [(PointId, LiveValue)],
}

impl Serialize for Push<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (id, value) in self.changed {
            let Some(point) = self.stream.api.catalogue().point(*id) else { continue };
            let path = point.definition.path.as_str();
            if path.starts_with(&self.stream.prefix) {
                list.serialize_element(&Pushed { path, value })?;
            }
        }
        list.end()
    }
}

struct Pushed<'a> {
    path: &'a str,
    value: &'a LiveValue,
}

impl Serialize for Pushed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let LiveValue { time, value, quality, .. } = self.value.clone();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("p", self.path)?;
        Reading { time, value, quality }.put(&mut map)?;
        map.end()
    }
}
