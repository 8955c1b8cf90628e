//! The socket: TLS, one request per connection, everything bounded before memory is taken.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::enrolment::{Granted, JOIN_PATH, RENEW_PATH, REQUEST_BYTES_MAX, Refused, RenewRequest};
use runtime::pki::Certificate;
use runtime::tasks::CancellationToken;
use runtime::tls_server::TlsServer;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::service::{Refusal, Service};

/// Agents join and renew once in months; more at a time is a flood.
const CONNECTIONS_MAX: usize = 128;
/// Of one address: a router in front of many agents, which renew spread over days.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 8;
/// For TLS and the head of the request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For a whole connection.
const CONNECTION_WITHIN: Duration = Duration::from_secs(20);
/// Head of a request, buffered.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 32;

/// Connections at present, by address.
#[derive(Debug, Default)]
struct Slots(Mutex<HashMap<IpAddr, usize>>);

/// A connection's slot; given back when dropped.
struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= CONNECTIONS_MAX {
            return None;
        }
        let of_peer = taken.entry(peer).or_insert(0);
        if *of_peer >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *of_peer += 1;
        Some(Slot { slots: Arc::clone(self), peer })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Serves until shutdown; what runs then has its deadline.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsServer,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let slots = Arc::<Slots>::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let Some(slot) = slots.take(peer.ip()) else {
                    tracing::debug!(%peer, "enrolment: too many connections, closed");
                    continue;
                };
                let (acceptor, service) = (TlsAcceptor::from(tls.current()), Arc::clone(&service));
                connections.spawn(async move {
                    let served = connection(stream, peer, acceptor, service);
                    match tokio::time::timeout(CONNECTION_WITHIN, served).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "enrolment: connection ended"),
                        Err(_) => tracing::debug!(%peer, "enrolment: connection took too long"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "enrolment: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(1500), all).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
) -> Result<(), String> {
    let accepted = tokio::time::timeout(HEAD_WITHIN, acceptor.accept(stream)).await;
    let stream = accepted.map_err(|_| "TLS took too long")?.map_err(|error| format!("TLS: {error}"))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.map(|leaf| Certificate::parse(leaf.clone().into_owned())).transpose()?;
    let shown = Arc::new(shown);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, shown) = (Arc::clone(&service), Arc::clone(&shown));
        async move { Ok::<_, Infallible>(answer(request, peer.ip(), service, shown).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    served.map_err(|error| error.to_string())
}

async fn answer(
    request: Request<Incoming>,
    peer: IpAddr,
    service: Arc<Service>,
    shown: Arc<Option<Certificate>>,
) -> Response<Body> {
    let granted = match (request.method().clone(), request.uri().path()) {
        (Method::POST, JOIN_PATH) => match body(request).await {
            Ok(body) => blocking(move || service.join(&body, peer)).await,
            Err(refusal) => Err(refusal),
        },
        (Method::POST, RENEW_PATH) => match body::<RenewRequest>(request).await {
            Ok(body) => blocking(move || service.renew(&body, shown.as_ref().as_ref(), peer)).await,
            Err(refusal) => Err(refusal),
        },
        (_, JOIN_PATH | RENEW_PATH) => {
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only POST is served here", "Use forebay join"))
        }
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "there is nothing here", "Use forebay join")),
    };
    match granted {
        Ok(granted) => json(StatusCode::OK, &granted, None),
        Err(refusal) => json(
            refusal.status,
            &Refused { error: refusal.reason },
            refusal.retry_after.map(HeaderValue::from),
        ),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bytes = axum::body::to_bytes(Body::new(request.into_body()), REQUEST_BYTES_MAX).await;
    let bytes = bytes.map_err(|_| {
        let message = format!("the body is broken or larger than {REQUEST_BYTES_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message, "Use forebay join")
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        // The error names a place, never a value: a token stays out of answers and logs.
        let message = format!("the body is not the JSON that is needed (line {})", error.line());
        Refusal::new(StatusCode::BAD_REQUEST, message, "Use forebay join")
    })
}

async fn blocking(
    work: impl FnOnce() -> Result<Granted, Refusal> + Send + 'static,
) -> Result<Granted, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        tracing::error!(%panic, "enrolment ended unexpectedly");
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the hub failed", "The hub's log says why"))
    })
}

fn json(
    status: StatusCode,
    body: &impl serde::Serialize,
    retry_after: Option<HeaderValue>,
) -> Response<Body> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    response
}
