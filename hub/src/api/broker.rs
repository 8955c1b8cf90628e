//! The hub's own broker as people look at it: totals, clients and what each waits for, certificates, retained messages.
//!
//! Counters are given as they are, with the hub's time: a reader makes rates of two answers. An outside broker knows its
//! clients itself; then every route here says so.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::mqtt::topic::validate_filter;
use runtime::tls_server::TlsStatus;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::{Body, Parameters, at_most, within};
use super::payload::{Payload, SHOWN_BYTES_MAX};
use crate::broker::{ClientStatus, Waiting};

/// Clients of an answer unless asked otherwise, and at most.
const CLIENTS: u64 = 500;
const CLIENTS_MAX: u64 = 10_000;
/// A search is a few words.
const SEARCH_BYTES_MAX: usize = 200;
/// Retained messages of an answer unless asked otherwise, and at most.
const RETAINED: u64 = 100;
const RETAINED_MAX: u64 = 1000;
/// What an answer shows of payloads in all; beyond, they are cut to nothing.
const RETAINED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A topic, filter or client id of MQTT is not longer.
pub(super) const MQTT_TEXT_BYTES_MAX: usize = 65_535;
/// A client to which nothing moved for so long is stuck: under load every socket and window is full for a moment.
const STUCK: Duration = Duration::from_secs(2);

/// Which clients.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BrokerQuery {
    /// Those that have it in client id, identity, address or a filter; upper and lower case are the same.
    search: Option<String>,
    /// At most so many, 1 to 10 000, default 500; those that are stuck first.
    limit: Option<u64>,
}

/// The broker at one moment. Counters begin with the process, those of a client with its connection.
#[derive(Serialize, ToSchema)]
pub(crate) struct BrokerAnswer {
    /// The hub's time, ISO 8601 UTC.
    now: String,
    /// Connections.
    connected: usize,
    /// Sessions, connected or not.
    sessions: usize,
    /// Subscriptions of all sessions.
    subscriptions: usize,
    /// Retained messages.
    retained: usize,
    /// Their bytes.
    retained_bytes: usize,
    /// Messages from clients.
    received: u64,
    /// QoS 0 messages to clients that did not read fast enough.
    dropped: u64,
    /// Bytes that wait for sockets.
    out_bytes: usize,
    /// Bytes of the journal on disk, and at most.
    journal_bytes: u64,
    journal_bytes_max: u64,
    /// What is wrong with the access file; its last good rules hold.
    access_problem: Option<String>,
    /// Listeners with TLS.
    tls: Vec<Tls>,
    /// Clients that are stuck, searched for or not.
    stuck: usize,
    /// Clients that the search found.
    found: usize,
    /// The first of them.
    clients: Vec<Client>,
}

/// TLS of a listener.
#[derive(Serialize, ToSchema)]
struct Tls {
    /// When its files were loaded, ISO 8601 UTC.
    loaded_at: String,
    /// Why newer files are not in use.
    problem: Option<String>,
    /// The server's, its chain, then those that clients are checked with.
    certificates: Vec<Certificate>,
}

/// A certificate in use.
#[derive(Serialize, ToSchema)]
struct Certificate {
    /// Its file.
    file: String,
    /// Subject.
    subject: String,
    /// Names of the server.
    names: Vec<String>,
    /// Valid until, ISO 8601 UTC.
    not_after: String,
    /// Whole days left; negative: it has ended.
    days_left: i64,
    /// Whether somebody must act.
    is_ending: bool,
}

/// A client or the session that waits for one.
#[derive(Serialize, ToSchema)]
struct Client {
    client_id: String,
    /// Whose it is.
    identity: String,
    /// Address and port; null: not connected.
    peer: Option<String>,
    /// Address of the listener.
    listener: String,
    /// `tcp`, `tls`, `websocket` or `secure websocket`.
    transport: &'static str,
    /// `3.1.1` or `5.0`.
    version: &'static str,
    /// How it logged in.
    login: &'static str,
    /// Seconds since it connected.
    connected_s: u64,
    /// Seconds that its session stays without it; 0: none.
    expiry_s: u32,
    /// Subscriptions, at most 100.
    filters: Vec<String>,
    /// How many there are.
    filters_count: usize,
    /// Messages and bytes from it and to it.
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// QoS 0 messages that it was too slow for.
    dropped: u64,
    /// Messages of QoS 1 and 2 that it has not acknowledged, sent or not.
    queued: u64,
    /// Sent to it and not acknowledged.
    in_flight: usize,
    /// Messages that its session had no room for.
    refused: u64,
    /// `data` (all is well), `acknowledgements`, `socket`, `host`, `disk`, `journal` or `connection`.
    waiting_for: &'static str,
    /// Why messages for it do not move, for people; null while they do.
    stuck: Option<&'static str>,
    /// Since how many seconds; unacknowledged messages count from when somebody first looked.
    stuck_s: Option<u64>,
}

/// Totals, certificates, and clients with what each waits for.
#[utoipa::path(get, path = "/api/v1/broker", tag = "broker", params(BrokerQuery),
    responses((status = 200, body = BrokerAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The broker is an outside one")))]
pub(crate) async fn status(
    State(api): State<Api>,
    Parameters(query): Parameters<BrokerQuery>,
) -> Result<Json<BrokerAnswer>, ApiError> {
    let limit = within("limit", query.limit, CLIENTS, 1, CLIENTS_MAX)?;
    let search = query.search.unwrap_or_default();
    at_most("search", &search, SEARCH_BYTES_MAX)?;
    let search = search.trim().to_lowercase();
    let insight = api.broker()?;
    let status = insight.status().await?;
    let halts = api.halts(|halts| halts.look(&status.clients, Instant::now()));
    let mut clients: Vec<Client> =
        status.clients.into_iter().zip(halts).map(|(client, halt)| Client::of(client, halt)).collect();
    let stuck = clients.iter().filter(|client| client.stuck.is_some()).count();
    clients.retain(|client| client.has(&search));
    clients.sort_by_key(|client| client.stuck.is_none()); // stable: then by client id
    let found = clients.len();
    clients.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(BrokerAnswer {
        now: api.clock().now().to_string(),
        connected: status.connected,
        sessions: status.sessions,
        subscriptions: status.subscriptions,
        retained: status.retained,
        retained_bytes: status.retained_bytes,
        received: status.received,
        dropped: status.dropped,
        out_bytes: status.out_bytes,
        journal_bytes: status.journal_bytes,
        journal_bytes_max: status.journal_bytes_max,
        access_problem: insight.access_problem(),
        tls: insight.certificates().into_iter().map(Tls::of).collect(),
        stuck,
        found,
        clients,
    }))
}

impl Client {
    fn of(status: ClientStatus, halt: Option<Duration>) -> Client {
        let stuck = why_stuck(&status, halt);
        Client {
            stuck,
            stuck_s: stuck.and(halt).map(|halt| halt.as_secs()),
            client_id: status.client_id,
            identity: status.identity,
            peer: status.peer,
            listener: status.listener,
            transport: status.transport,
            version: status.version,
            login: status.login,
            connected_s: status.connected_s,
            expiry_s: status.expiry_s,
            filters: status.filters,
            filters_count: status.filters_count,
            messages_in: status.messages_in,
            messages_out: status.messages_out,
            bytes_in: status.bytes_in,
            bytes_out: status.bytes_out,
            dropped: status.dropped,
            queued: status.queued,
            in_flight: status.in_flight,
            refused: status.refused,
            waiting_for: status.waiting.text(),
        }
    }

    fn has(&self, search: &str) -> bool {
        let in_it = |text: &str| text.to_lowercase().contains(search);
        search.is_empty()
            || in_it(&self.client_id)
            || in_it(&self.identity)
            || self.peer.as_deref().is_some_and(in_it)
            || self.filters.iter().any(|filter| in_it(filter))
    }
}

/// Why messages for a client do not move; `halt`: since how long they do not.
fn why_stuck(status: &ClientStatus, halt: Option<Duration>) -> Option<&'static str> {
    let is_long = halt.is_some_and(|halt| halt >= STUCK);
    match status.waiting {
        Waiting::ForSocket if is_long => Some("It does not read: its socket is full."),
        Waiting::ForAcks if is_long => {
            Some("It does not acknowledge: as many messages are on their way to it as it allows.")
        }
        Waiting::ForConnection if status.refused > 0 => {
            Some("It is away, and its session has no room for more messages.")
        }
        _ => None,
    }
}

/// Clients that do not acknowledge, with what had been sent to them when that was first seen.
#[derive(Debug, Default)]
pub(super) struct Halts {
    since: HashMap<String, (u64, Instant)>,
}

impl Halts {
    /// Since how long nothing has moved, for each client.
    fn look(&mut self, clients: &[ClientStatus], now: Instant) -> Vec<Option<Duration>> {
        let mut before = std::mem::take(&mut self.since);
        let halt = |client: &ClientStatus| match client.waiting {
            Waiting::ForSocket => client.stuck_s.map(Duration::from_secs),
            Waiting::ForAcks if client.queued > 0 => {
                let seen = before.remove(&client.client_id);
                let (sent, since) = seen
                    .filter(|(sent, _)| *sent == client.messages_out)
                    .unwrap_or((client.messages_out, now));
                self.since.insert(client.client_id.clone(), (sent, since));
                Some(now.saturating_duration_since(since))
            }
            _ => None,
        };
        clients.iter().map(halt).collect()
    }
}

impl Tls {
    fn of(status: TlsStatus) -> Tls {
        let certificates = status.certificates.into_iter().map(|certificate| Certificate {
            file: certificate.file.display().to_string(),
            subject: certificate.subject,
            names: certificate.names,
            not_after: certificate.not_after.to_string(),
            days_left: certificate.seconds_left.div_euclid(86_400),
            is_ending: certificate.is_ending,
        });
        Tls {
            loaded_at: status.loaded_at.to_string(),
            problem: status.problem,
            certificates: certificates.collect(),
        }
    }
}

/// Which retained messages.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RetainedQuery {
    /// Topic filter of MQTT, default `#`, which has no topics that begin with `$`.
    filter: Option<String>,
    /// Go on behind this topic: the last answer's `next`.
    after: Option<String>,
    /// At most so many, 1 to 1 000, default 100.
    limit: Option<u64>,
    /// Bytes shown of each payload, 0 to 65 536, default 65 536.
    payload: Option<u64>,
}

/// Retained messages in the order of their topics.
#[derive(Serialize, ToSchema)]
pub(crate) struct RetainedAnswer {
    messages: Vec<RetainedMessage>,
    /// Where to go on; null: that was all. A page may be empty and have a next one.
    next: Option<String>,
}

/// A retained message.
#[derive(Serialize, ToSchema)]
struct RetainedMessage {
    topic: String,
    /// As it was published.
    qos: u8,
    payload: Payload,
}

/// Retained messages, decoded. Topics that the hub renders on demand (its JSON tree) are not among them.
#[utoipa::path(get, path = "/api/v1/broker/retained", tag = "broker", params(RetainedQuery),
    responses((status = 200, body = RetainedAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The broker is an outside one")))]
pub(crate) async fn retained(
    State(api): State<Api>,
    Parameters(query): Parameters<RetainedQuery>,
) -> Result<Json<RetainedAnswer>, ApiError> {
    let limit = within("limit", query.limit, RETAINED, 1, RETAINED_MAX)?;
    let shown = shown_bytes(query.payload)?;
    let filter = checked_filter(query.filter)?;
    if let Some(after) = &query.after {
        at_most("after", after, MQTT_TEXT_BYTES_MAX)?;
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = api.broker()?.retained(filter, query.after, limit).await?;
    let mut left = RETAINED_BYTES_MAX;
    let messages = page.messages.into_iter().map(|message| {
        let payload = Payload::of(&message.topic, &message.payload, shown.min(left));
        left = left.saturating_sub(payload.cost());
        RetainedMessage { topic: message.topic, qos: message.qos as u8, payload }
    });
    Ok(Json(RetainedAnswer { messages: messages.collect(), next: page.next }))
}

/// A filter as somebody may subscribe to it, alone.
pub(super) fn checked_filter(filter: Option<String>) -> Result<String, ApiError> {
    let filter = filter.unwrap_or_else(|| "#".to_owned());
    validate_filter(&filter)
        .map_err(|fault| ApiError::bad("filter", format!("must be a topic filter; it {fault}")))?;
    if filter.starts_with("$share/") {
        return Err(ApiError::bad("filter", "must not be shared: everything is shown here"));
    }
    Ok(filter)
}

pub(super) fn shown_bytes(asked: Option<u64>) -> Result<usize, ApiError> {
    let most = SHOWN_BYTES_MAX as u64;
    Ok(usize::try_from(within("payload", asked, most, 0, most)?).unwrap_or(SHOWN_BYTES_MAX))
}

/// Who is to be disconnected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisconnectRequest {
    client_id: String,
}

/// Ends a client's connection; its session stays as long as it would, and it may come back.
#[utoipa::path(post, path = "/api/v1/broker/disconnect", tag = "broker", request_body = DisconnectRequest,
    params(("x-forebay" = Option<String>, Header, description = "`1`, needed with a session")),
    responses((status = 204, description = "Disconnected"), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "No such client is connected"),
        (status = 409, body = ErrorBody, description = "The broker is an outside one")))]
pub(crate) async fn disconnect(
    State(api): State<Api>,
    Body(request): Body<DisconnectRequest>,
) -> Result<StatusCode, ApiError> {
    at_most("client_id", &request.client_id, MQTT_TEXT_BYTES_MAX)?;
    let insight = api.broker()?;
    let what = format!("client {:?} connected", request.client_id);
    if insight.disconnect(request.client_id).await? {
        tracing::info!(%what, "disconnected by a person");
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(waiting: Waiting, messages_out: u64, queued: u64) -> ClientStatus {
        ClientStatus {
            client_id: "a".into(),
            identity: String::new(),
            peer: None,
            listener: String::new(),
            transport: "tcp",
            version: "5.0",
            login: "",
            connected_s: 0,
            expiry_s: 0,
            filters: Vec::new(),
            filters_count: 0,
            messages_in: 0,
            messages_out,
            bytes_in: 0,
            bytes_out: 0,
            dropped: 0,
            queued,
            in_flight: 0,
            refused: 0,
            waiting,
            stuck_s: None,
        }
    }

    #[test]
    fn a_full_window_is_stuck_only_when_nothing_moves() {
        let mut halts = Halts::default();
        let start = Instant::now();
        let mut stuck_at = |seconds, client: ClientStatus| {
            let halt = halts.look(std::slice::from_ref(&client), start + Duration::from_secs(seconds));
            why_stuck(&client, halt[0]).is_some()
        };
        for second in 0..10 {
            assert!(!stuck_at(second, client(Waiting::ForAcks, second, 5)), "busy, not stuck");
        }
        assert!(!stuck_at(10, client(Waiting::ForAcks, 9, 5)));
        assert!(stuck_at(11, client(Waiting::ForAcks, 9, 5)));
        assert!(!stuck_at(12, client(Waiting::ForAcks, 9, 0)), "nothing waits for it");
        assert!(!stuck_at(20, client(Waiting::ForAcks, 9, 5)), "the time begins anew");
        assert!(!stuck_at(21, client(Waiting::ForData, 9, 0)));
        let socket = |seconds| ClientStatus { stuck_s: Some(seconds), ..client(Waiting::ForSocket, 0, 0) };
        assert!(!stuck_at(22, socket(1)) && stuck_at(22, socket(2)));
        assert!(stuck_at(23, ClientStatus { refused: 1, ..client(Waiting::ForConnection, 0, 0) }));
    }
}
