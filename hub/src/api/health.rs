//! Whether the hub is well, what plant it serves, and its counters.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::errors::ErrorBody;
use crate::store::SINK_CURSOR;
use crate::store::StoreHealth;

/// Reasons shown; more are only counted.
const REASONS_MAX: usize = 20;

/// How the hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Everything works.
    Ok,
    /// It works, but somebody should look.
    Degraded,
    /// It keeps nothing any more: a person must act.
    Failing,
}

/// Whether the hub is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: Status,
    /// Why it is not `ok`.
    reasons: Vec<String>,
    /// Version of the program.
    version: &'static str,
    log: LogHealth,
}

/// The plant log's size.
#[derive(Serialize, ToSchema)]
struct LogHealth {
    /// Lowest position held.
    first: u64,
    /// Positions below are on disk.
    end: u64,
    /// Bytes on disk.
    bytes: u64,
    /// Bytes that it may have.
    bytes_max: u64,
}

/// Whether the hub is well; needs no login. 503 when it is failing.
#[utoipa::path(get, path = "/api/v1/health", tag = "plant", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health, description = "Failing")))]
pub(crate) async fn health(State(api): State<Api>) -> Response {
    let (status, mut reasons) = judge(&api).await;
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    let log = api.plant_log();
    let log = LogHealth {
        first: log.first().0,
        end: log.durable_end().0,
        bytes: log.bytes(),
        bytes_max: api.config().retention_bytes,
    };
    let code = if status == Status::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(Health { status, reasons, version: env!("CARGO_PKG_VERSION"), log })).into_response()
}

async fn judge(api: &Api) -> (Status, Vec<String>) {
    let mut found = Vec::new();
    match api.store().health() {
        StoreHealth::Ok => {}
        StoreHealth::Holding(why) => {
            found.push((Status::Degraded, format!("the plant log takes nothing: {why}")))
        }
        StoreHealth::Latched(why) => found.push((Status::Failing, format!("the plant log is shut: {why}"))),
    }
    for account in api.store().accounts() {
        for state in &account.epochs {
            if let Some(why) = &state.mismatch {
                let text = format!(
                    "the account of {} does not balance in epoch {}: {why}",
                    account.agent, state.epoch
                );
                found.push((Status::Degraded, text));
            }
        }
    }
    for agent in api.host().agents() {
        if !agent.online {
            found.push((Status::Degraded, format!("agent {} is offline", agent.node)));
        }
        for device in agent.devices.iter().filter(|device| agent.online && !device.online) {
            found.push((Status::Degraded, format!("device {} of {} is down", device.name, agent.node)));
        }
    }
    if let Some(why) = api.commands().blocked() {
        found.push((Status::Degraded, format!("commands are refused: {why}")));
    }
    found.extend(sinks_behind(api).await.into_iter().map(|reason| (Status::Degraded, reason)));
    let status = found.iter().map(|(status, _)| *status).max().unwrap_or(Status::Ok);
    found.sort_by_key(|(status, _)| std::cmp::Reverse(*status));
    (status, found.into_iter().map(|(_, reason)| reason).collect())
}

/// Sinks that retention has overtaken.
async fn sinks_behind(api: &Api) -> Vec<String> {
    let log = api.plant_log().clone();
    let read = tokio::task::spawn_blocking(move || (log.cursors(), log.first()));
    match read.await {
        Ok((Ok(cursors), first)) => cursors
            .into_iter()
            .filter(|(name, at)| name.starts_with(SINK_CURSOR) && *at < first)
            .map(|(name, at)| {
                let sink = name.trim_start_matches(SINK_CURSOR);
                format!("sink {sink} is at {} of the plant log, which begins at {}", at.0, first.0)
            })
            .collect(),
        Ok((Err(error), _)) => vec![format!("the sinks' cursors cannot be read: {error}")],
        Err(error) => vec![format!("the sinks' cursors cannot be read: {error}")],
    }
}

/// What plant this hub serves.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plant {
    /// ISA-95 enterprise.
    enterprise: String,
    /// ISA-95 site: the paths of points begin below it.
    site: String,
    /// Name of this hub.
    hub_id: String,
    /// Version of the program.
    version: &'static str,
    /// The hub's clock.
    now: String,
    /// Whether points may be written.
    commands_enabled: bool,
}

/// What plant this hub serves, and its clock.
#[utoipa::path(get, path = "/api/v1/plant", tag = "plant",
    responses((status = 200, body = Plant), (status = 401, body = ErrorBody)))]
pub(crate) async fn plant(State(api): State<Api>) -> Json<Plant> {
    let config = api.config();
    Json(Plant {
        enterprise: config.enterprise.clone(),
        site: config.site.clone(),
        hub_id: config.id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        now: api.clock().now().to_string(),
        commands_enabled: config.commands.enabled,
    })
}

/// Counters and gauges in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "plant",
    responses((status = 200, content_type = "text/plain", body = String), (status = 401, body = ErrorBody)))]
pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics().render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
