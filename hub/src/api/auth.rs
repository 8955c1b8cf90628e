//! Who may ask: the token, sessions, and how fast one may guess.
//!
//! Rules it keeps:
//! - Everything is refused that is not on the short list of open paths; a new route is closed by default.
//! - The token is 256 random bits in `{data_dir}/token` (0600), made at the first start. It is the page's password
//!   and the API's Bearer token; it is compared in constant time and never logged.
//! - A session is 256 random bits in a cookie (HttpOnly, SameSite=Strict). A change asked for with a cookie needs the
//!   header `x-forebay: 1`, which another site's page cannot send; one asked for with a Bearer token does not.
//! - Wrong passwords empty a bucket per address. An empty bucket refuses sign-ins unseen, and answers wrong tokens
//!   with 429; a right token always passes, so that one stranger on the machine cannot lock out the bridge.

mod sessions;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use model::Timestamp;
use sessions::{SESSION_IDLE, Sessions};
pub use token::{Token, TokenError};

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::Body;
use crate::guesses::{Guesses, neighbourhood};

/// The session's cookie.
const COOKIE: &str = "forebay_session";
/// A change asked for with a cookie needs it.
const HEADER: &str = "x-forebay";
/// Wrong passwords in a row before an address has to wait.
const GUESSES: u32 = 10;
/// One more guess after so long.
const GUESS_EVERY: Duration = Duration::from_secs(6);
/// Addresses remembered for wrong passwords; beyond, they share one bucket.
const ADDRESSES_MAX: usize = 1024;
/// A password from the network is not longer.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Address of the client of a request, put there by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// How a request proved who it is; handlers find it in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignedIn {
    /// By the token.
    Token,
    /// By a session's cookie.
    Session,
}

impl SignedIn {
    /// Who a ledger says it was.
    pub(crate) const fn author(self) -> &'static str {
        match self {
            Self::Token => "api",
            Self::Session => "admin",
        }
    }
}

/// Sessions and guesses.
#[derive(Debug)]
pub(crate) struct Auth {
    token: Token,
    sessions: Arc<Sessions>,
    guesses: Guesses<IpAddr>,
}

impl Auth {
    pub(crate) fn new(token: Token) -> Self {
        let guesses = Guesses::new(GUESSES, GUESS_EVERY, ADDRESSES_MAX);
        Auth { sessions: Arc::new(Sessions::load(&token)), token, guesses }
    }

    /// Checks a password or token and counts a wrong one.
    fn check(&self, peer: IpAddr, given: &str, now: Instant) -> Result<(), ApiError> {
        if self.token.is(given) {
            return Ok(());
        }
        match self.guesses.take(neighbourhood(peer), now) {
            Ok(()) => Err(ApiError::WrongPassword),
            Err(wait) => Err(ApiError::TooManyWrong { wait_seconds: wait.as_secs() }),
        }
    }

    /// How long that address has to wait before its next guess.
    fn waiting(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        self.guesses.waiting(neighbourhood(peer), now).map(|wait| wait.as_secs())
    }

    /// A new session for whoever knows the password: its cookie.
    pub(crate) async fn sign_in(
        &self,
        peer: IpAddr,
        password: &str,
        now: Timestamp,
    ) -> Result<HeaderValue, ApiError> {
        let instant = Instant::now();
        if let Some(wait_seconds) = self.waiting(peer, instant) {
            return Err(ApiError::TooManyWrong { wait_seconds });
        }
        self.check(peer, password, instant)?;
        let id = self.sessions.begin(now).map_err(|error| ApiError::Internal(error.to_string()))?;
        self.save().await;
        let cookie =
            format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", SESSION_IDLE.as_secs());
        HeaderValue::from_str(&cookie).map_err(|error| ApiError::Internal(error.to_string()))
    }

    /// Ends the session of a request.
    async fn sign_out(&self, headers: &HeaderMap) {
        if let Some(id) = session_id(headers) {
            self.sessions.end(id);
            self.save().await;
        }
    }

    /// Who a request is from.
    async fn who(&self, peer: IpAddr, headers: &HeaderMap, now: Timestamp) -> Result<SignedIn, ApiError> {
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            let given = given.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or("");
            return self.check(peer, given.trim(), Instant::now()).map(|()| SignedIn::Token);
        }
        let id = session_id(headers).ok_or(ApiError::SignInFirst)?;
        if !self.sessions.touch(id, now) {
            return Err(ApiError::SignInFirst);
        }
        if self.sessions.is_to_be_saved() {
            self.save().await;
        }
        Ok(SignedIn::Session)
    }

    async fn save(&self) {
        let sessions = Arc::clone(&self.sessions);
        if let Err(panic) = tokio::task::spawn_blocking(move || sessions.save()).await {
            tracing::warn!(%panic, "cannot keep the sessions; a restart signs everybody out");
        }
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Paths that anybody may ask for: whether the hub is well, signing in, and the files of the page.
fn is_open(path: &str) -> bool {
    matches!(path, "/api/v1/health" | "/api/v1/login")
        || !(path.starts_with("/api/") || path == "/api" || path == "/metrics")
}

/// Whether a request changes something.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The gate before every route.
pub(crate) async fn gate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let peer = peer(&request);
    let signed_in = if is_open(request.uri().path()) {
        None
    } else {
        Some(api.auth().who(peer, request.headers(), api.clock().now()).await)
    };
    let by_token = matches!(signed_in, Some(Ok(SignedIn::Token)));
    match signed_in {
        Some(Err(refused)) => return refused.into_response(),
        Some(Ok(who)) => {
            request.extensions_mut().insert(who);
        }
        None => {}
    }
    if changes(request.method())
        && !by_token
        && request.headers().get(HEADER).is_none_or(|value| value != "1")
    {
        return ApiError::HeaderMissing.into_response();
    }
    next.run(request).await
}

/// Address of the client.
pub(crate) fn peer(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0)
}

/// What signing in needs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// The hub's token.
    password: String,
}

/// Who signed in.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginAnswer {
    /// Always `admin`, for now.
    user: &'static str,
}

/// Signs in: the answer sets the session's cookie.
#[utoipa::path(post, path = "/api/v1/login", tag = "session", request_body = LoginRequest, security(()),
    params(("x-forebay" = String, Header, description = "`1`")),
    responses((status = 200, body = LoginAnswer, description = "Signed in; sets the cookie forebay_session"),
        (status = 401, body = ErrorBody, description = "Wrong password"),
        (status = 429, body = ErrorBody, description = "Too many wrong passwords from this address")))]
pub(crate) async fn login(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let peer = peer(&request);
    let Body(login) =
        <Body<LoginRequest> as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    super::json::at_most("password", &login.password, PASSWORD_BYTES_MAX)?;
    let cookie = api.auth().sign_in(peer, &login.password, api.clock().now()).await?;
    Ok(([(header::SET_COOKIE, cookie)], Json(LoginAnswer { user: "admin" })).into_response())
}

/// Ends the session.
#[utoipa::path(post, path = "/api/v1/logout", tag = "session",
    responses((status = 204, description = "Signed out; clears the cookie"), (status = 401, body = ErrorBody)))]
pub(crate) async fn logout(State(api): State<Api>, headers: HeaderMap) -> Response {
    api.auth().sign_out(&headers).await;
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn guessing_is_slowed_down_but_a_right_token_always_passes() {
        let folder = tempfile::tempdir().unwrap();
        let auth = Auth::new(Token::open(folder.path()).unwrap());
        let token = auth.token.text().to_owned();
        let now = Instant::now();
        for _ in 0..GUESSES {
            assert!(auth.waiting(HERE, now).is_none());
            assert!(matches!(auth.check(HERE, "guess", now), Err(ApiError::WrongPassword)));
        }
        assert!(auth.waiting(HERE, now).is_some(), "the next sign-in is refused unseen");
        assert!(matches!(auth.check(HERE, "guess", now), Err(ApiError::TooManyWrong { .. })));
        assert!(auth.check(HERE, &token, now).is_ok());
        assert!(auth.waiting(IpAddr::from([10, 0, 0, 1]), now).is_none(), "another address");
        assert!(auth.waiting(HERE, now + GUESS_EVERY * 2).is_none(), "guesses are forgiven");
    }
}
