//! The HTTP API and the page: reads the store, the live view and the host, and hands commands to the one door.
//!
//! It owns no plant state, and nothing in the hub calls it. Every route stands in [`routes`] and in the OpenAPI document
//! (a test compares them); `auth` decides before any of them runs. Whatever a client sends is bounded: connections, heads,
//! bodies, parameters, pages, scans and streams.

mod agents;
mod auth;
mod broker;
mod broker_stream;
mod commands;
mod errors;
mod feed;
mod health;
mod history;
mod json;
mod listener;
mod live_stream;
mod look;
mod openapi;
mod payload;
mod points;
mod quarantine;
mod seats;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use durable_log::{LogView, Position};
use model::PointId;
use model::limits::VALUE_BYTES_MAX;
use proto::log_record::AgentId;
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::{Counter, Metrics};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::broker::Insight;
use crate::catalogue::Catalogue;
use crate::commands::Commands;
use crate::config::Config;
use crate::console;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::store::Store;
use crate::store::history::History;

use auth::Auth;
pub use auth::{Token, TokenError};
use errors::ApiError;

/// Live streams at once: pages that are open.
const STREAMS_MAX: usize = 128;
/// ... of which so many may watch the broker's messages: each costs the broker a copy of what it watches.
const WATCHES_MAX: usize = 32;
/// Scans of the plant log at once: each holds an answer in memory and a core.
const SCANS_MAX: usize = 2;
/// A scan waits so long for its turn.
const SCAN_TURN: Duration = Duration::from_secs(15);
/// Feed requests at once: sinks of all bridges, each with one poll.
const FEEDS_MAX: usize = 64;
/// A request's body: the largest value that can be written, escaped, and what stands around it.
const BODY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + 64 * 1024;

/// What the API speaks for.
#[derive(Debug)]
pub struct Parts {
    /// The hub's configuration.
    pub config: Config,
    /// The plant log.
    pub store: Store,
    /// Points and agents.
    pub catalogue: Catalogue,
    /// Last values.
    pub live: Live,
    /// Who is there.
    pub host: Host,
    /// The look into the hub's own broker; `None` with an outside one.
    pub broker: Option<Insight>,
    /// The door for writes.
    pub commands: Commands,
    /// Losses, decisions, mismatches.
    pub ledger: Ledger,
    /// The hub's clock.
    pub clock: Clock,
    /// Counters of the process.
    pub metrics: Metrics,
}

/// A running API.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The page's password and the API's token.
    pub token: Token,
}

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}; choose another [hub.http] listen, or stop what uses it")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds, and serves until shutdown.
pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Handle, StartError> {
    let token = Token::open(&parts.config.data_dir)?;
    let addr = parts.config.http.listen;
    let failed = |source| StartError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let api = Api::new(parts, token.clone(), tasks.shutdown());
    let (history, shutdown) = (api.history().clone(), tasks.shutdown());
    tasks.spawn_blocking(TaskKind::Housekeeping, "history index", move || {
        history.follow(&shutdown);
        Ok::<_, std::convert::Infallible>(())
    });
    tasks.spawn(TaskKind::Server, "http", listener::serve(listener, router(api), tasks.shutdown()));
    if !console::is_built() {
        tracing::warn!("this binary was built without the console; the API works");
    }
    Ok(Handle { addr, token })
}

/// What every handler reaches. Cheap to clone.
#[derive(Clone, Debug)]
struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    plant_log: LogView,
    history: History,
    auth: Auth,
    path_order: points::PathOrder,
    streams: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    cursors: Mutex<HashMap<String, Position>>,
    seats: Mutex<seats::Seats>,
    halts: Mutex<broker::Halts>,
    /// Answers given, by the first digit of their status: 2 to 5.
    answers: [Counter; 4],
    shutdown: CancellationToken,
}

impl Api {
    fn new(parts: Parts, token: Token, shutdown: CancellationToken) -> Self {
        let plant_log = parts.store.view();
        let answers = ["2xx", "3xx", "4xx", "5xx"].map(|status| {
            let help = "Answers of the HTTP API, by status.";
            parts.metrics.counter("forebay_http_answers_total", help, &[("status", status)])
        });
        let folder: PathBuf = parts.config.data_dir.join("history");
        Api(Arc::new(Inner {
            history: History::new(plant_log.clone(), folder),
            plant_log,
            parts,
            auth: Auth::new(token),
            path_order: points::PathOrder::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
            cursors: Mutex::default(),
            seats: Mutex::default(),
            halts: Mutex::default(),
            answers,
            shutdown,
        }))
    }

    fn config(&self) -> &Config {
        &self.0.parts.config
    }

    fn store(&self) -> &Store {
        &self.0.parts.store
    }

    fn catalogue(&self) -> &Catalogue {
        &self.0.parts.catalogue
    }

    fn live(&self) -> &Live {
        &self.0.parts.live
    }

    fn host(&self) -> &Host {
        &self.0.parts.host
    }

    fn broker(&self) -> Result<&Insight, ApiError> {
        self.0.parts.broker.as_ref().ok_or(ApiError::OutsideBroker)
    }

    fn halts<T>(&self, with: impl FnOnce(&mut broker::Halts) -> T) -> T {
        with(&mut self.0.halts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ledger(&self) -> &Ledger {
        &self.0.parts.ledger
    }

    fn commands(&self) -> &Commands {
        &self.0.parts.commands
    }

    fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    fn plant_log(&self) -> &LogView {
        &self.0.plant_log
    }

    fn history(&self) -> &History {
        &self.0.history
    }

    fn auth(&self) -> &Auth {
        &self.0.auth
    }

    fn path_order(&self) -> &points::PathOrder {
        &self.0.path_order
    }

    fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    fn durable(&self) -> watch::Receiver<Position> {
        self.store().durable()
    }

    /// `group/node`, or nothing for a number that the catalogue does not know.
    fn agent_name(&self, id: AgentId) -> String {
        self.catalogue().agent(id).map(|node| node.to_string()).unwrap_or_default()
    }

    /// Every number that a path has had.
    fn points_of(&self, path: &str) -> Vec<PointId> {
        if self.catalogue().find(path).is_none() {
            return Vec::new();
        }
        let points = self.catalogue().points().into_iter();
        points.filter(|point| point.definition.path.as_str() == path).map(|point| point.id).collect()
    }

    fn stream_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = Arc::clone(&self.0.streams).try_acquire_owned();
        slot.map_err(|_| ApiError::Busy { what: "live streams" })
    }

    fn watch_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = Arc::clone(&self.0.watches).try_acquire_owned();
        slot.map_err(|_| ApiError::Busy { what: "streams of messages" })
    }

    fn feed_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = Arc::clone(&self.0.feeds).try_acquire_owned();
        slot.map_err(|_| ApiError::Busy { what: "feed requests" })
    }

    async fn scan_slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = tokio::time::timeout(SCAN_TURN, Arc::clone(&self.0.scans).acquire_owned()).await;
        slot.ok().and_then(Result::ok).ok_or(ApiError::Busy { what: "scans of the plant log" })
    }

    fn seats(&self) -> MutexGuard<'_, seats::Seats> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the sink's cursor is kept already: this one, or any.
    fn knows_sink(&self, name: &str, at: Option<Position>) -> bool {
        let known = self.known_cursors().get(name).copied();
        known.is_some() && (at.is_none() || known == at)
    }

    fn remember_sink(&self, name: String, at: Position) {
        self.known_cursors().insert(name, at);
    }

    fn known_cursors(&self) -> MutexGuard<'_, HashMap<String, Position>> {
        self.0.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every route of the API, as the document names them.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/api/v1/login", post(auth::login)),
        ("/api/v1/logout", post(auth::logout)),
        ("/api/v1/plant", get(health::plant)),
        ("/api/v1/health", get(health::health)),
        ("/api/v1/points", get(points::list)),
        ("/api/v1/points/{path}", get(points::one)),
        ("/api/v1/history", get(history::history)),
        ("/api/v1/look", get(look::look)),
        ("/api/v1/live", get(live_stream::live)),
        ("/api/v1/agents", get(agents::agents)),
        ("/api/v1/reconcile", get(agents::reconcile)),
        ("/api/v1/commands", get(commands::recent).post(commands::write)),
        ("/api/v1/quarantine", get(quarantine::list)),
        ("/api/v1/quarantine/entry", get(quarantine::entry)),
        ("/api/v1/quarantine/retry", post(quarantine::retry)),
        ("/api/v1/quarantine/discard", post(quarantine::discard)),
        ("/api/v1/quarantine/refuse", post(quarantine::refuse)),
        ("/api/v1/broker", get(broker::status)),
        ("/api/v1/broker/retained", get(broker::retained)),
        ("/api/v1/broker/messages", get(broker_stream::messages)),
        ("/api/v1/broker/disconnect", post(broker::disconnect)),
        ("/api/v1/feed", get(feed::feed)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/metrics", get(health::metrics)),
    ]
}

fn router(api: Api) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        // A point's path has slashes of its own.
        let path = path.replace("{path}", "{*path}");
        router = router.route(&path, methods.fallback(|| async { ApiError::Method }));
    }
    router
        .route("/", get(page))
        .fallback(files)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), auth::gate))
        .layer(middleware::from_fn_with_state(api.clone(), harden))
        .with_state(api)
}

/// The page; `?token=` signs in, so that a program can print a link, and leaves no token in the address.
async fn page(State(api): State<Api>, request: Request) -> Response {
    // Another site's page may not use up this address's guesses.
    let is_foreign = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let query = if is_foreign { "" } else { request.uri().query().unwrap_or("") };
    match query.split('&').find_map(|pair| pair.strip_prefix("token=")) {
        None => console::page(),
        Some(token) => match api.auth().sign_in(auth::peer(&request), token, api.clock().now()).await {
            Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
            Err(_) => Redirect::to("/").into_response(), // the page asks for the password
        },
    }
}

/// Files of the page; under `/api` there are none.
async fn files(request: Request) -> Response {
    let path = request.uri().path();
    let found = if path.starts_with("/api/") { None } else { console::file(path.trim_start_matches('/')) };
    found.unwrap_or_else(|| ApiError::NotFound { what: format!("{path:?}") }.into_response())
}

/// Headers that keep a browser from doing what the page never asks for; and the count of answers.
async fn harden(State(api): State<Api>, request: Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
        connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let is_api = request.uri().path().starts_with("/api/") || request.uri().path() == "/metrics";
    let mut response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100).checked_sub(2);
    if let Some(count) = class.and_then(|class| api.0.answers.get(class)) {
        count.increment();
    }
    let headers = response.headers_mut();
    let mut set =
        |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    if is_api {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}

#[cfg(test)]
mod tests;
