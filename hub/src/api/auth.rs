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

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use super::Api;
use super::errors::{ApiError, ErrorBody};
use super::json::Body;

/// The session's cookie.
const COOKIE: &str = "forebay_session";
/// A change asked for with a cookie needs it.
const HEADER: &str = "x-forebay";
/// Bytes of a token or session id: 256 bits cannot be guessed.
const SECRET_BYTES: usize = 32;
/// A session that is not used for so long ends.
const SESSION_IDLE: Duration = Duration::from_secs(12 * 3600);
/// More sessions than people of a plant; the one unused longest gives way.
const SESSIONS_MAX: usize = 256;
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

/// The hub's token: the page's password and the API's Bearer token.
#[derive(Clone)]
pub struct Token {
    text: String,
    path: PathBuf,
    is_new: bool,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.path.display())
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("{path}: {source}; the hub keeps its API token there", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path}: holds no token (32 to 1024 printable characters); delete it and start again for a new one", path = path.display())]
    NoToken {
        /// Which.
        path: PathBuf,
    },
    /// Others on the machine can read it.
    #[error("{path}: can be read by others on this machine; run chmod 600 on it", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Token {
    /// Reads `{data_dir}/token`, or makes it.
    pub fn open(data_dir: &Path) -> Result<Token, TokenError> {
        let path = data_dir.join("token");
        let failed = |source| TokenError::File { path: path.clone(), source };
        match File::open(&path) {
            Ok(mut file) => {
                if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                    return Err(TokenError::Open { path });
                }
                let mut text = String::new();
                io::Read::by_ref(&mut file)
                    .take(PASSWORD_BYTES_MAX as u64 + 2)
                    .read_to_string(&mut text)
                    .map_err(failed)?;
                let text = text.trim().to_owned();
                let is_token = (32..=PASSWORD_BYTES_MAX).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_graphic());
                if is_token {
                    Ok(Token { text, path, is_new: false })
                } else {
                    Err(TokenError::NoToken { path })
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = secret().map_err(TokenError::Random)?;
                write_new(&path, &text).map_err(failed)?;
                Ok(Token { text, path, is_new: true })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The token itself: to be shown once, to the person who starts the hub.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this start made it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    fn is(&self, given: &str) -> bool {
        same(self.text.as_bytes(), given.as_bytes())
    }
}

/// Writes beside and renames, so that a crash leaves no half token.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Compares without telling by its time where the first difference is. The length is no secret.
fn same(ours: &[u8], given: &[u8]) -> bool {
    let difference = ours.iter().zip(given).fold(0u8, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    ours.len() == given.len() && difference == 0
}

/// Sessions and guesses.
#[derive(Debug)]
pub(crate) struct Auth {
    token: Token,
    sessions: Mutex<HashMap<String, Instant>>,
    guesses: Mutex<HashMap<Option<IpAddr>, Guesses>>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    /// Wrong ones not yet forgiven.
    wrong: u32,
    since: Instant,
}

impl Auth {
    pub(crate) fn new(token: Token) -> Self {
        Auth { token, sessions: Mutex::default(), guesses: Mutex::default() }
    }

    /// Checks a password or token and counts a wrong one.
    fn check(&self, peer: IpAddr, given: &str, now: Instant) -> Result<(), ApiError> {
        if self.token.is(given) {
            return Ok(());
        }
        let waiting = self.waiting(peer, now);
        let mut guesses = lock(&self.guesses);
        guesses.retain(|_, entry| entry.forgiven(now).wrong > 0);
        let key = if guesses.len() < ADDRESSES_MAX || guesses.contains_key(&Some(peer)) {
            Some(peer)
        } else {
            None
        };
        let entry = guesses.entry(key).or_insert(Guesses { wrong: 0, since: now });
        *entry = entry.forgiven(now);
        entry.wrong = (entry.wrong + 1).min(GUESSES);
        match waiting {
            Some(wait_seconds) => Err(ApiError::TooManyWrong { wait_seconds }),
            None => Err(ApiError::WrongPassword),
        }
    }

    /// How long that address has to wait before its next guess.
    fn waiting(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let guesses = lock(&self.guesses);
        let wrong = |key| guesses.get(&key).map_or(0, |entry: &Guesses| entry.forgiven(now).wrong);
        (wrong(Some(peer)).max(wrong(None)) >= GUESSES).then_some(GUESS_EVERY.as_secs())
    }

    /// A new session for whoever knows the password.
    pub(crate) fn sign_in(
        &self,
        peer: IpAddr,
        password: &str,
        now: Instant,
    ) -> Result<HeaderValue, ApiError> {
        if let Some(wait_seconds) = self.waiting(peer, now) {
            return Err(ApiError::TooManyWrong { wait_seconds });
        }
        self.check(peer, password, now)?;
        let id = secret().map_err(|error| ApiError::Internal(error.to_string()))?;
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, used| now.duration_since(*used) < SESSION_IDLE);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, used)| **used).map(|(id, _)| id.clone())
        {
            sessions.remove(&oldest);
        }
        let cookie =
            format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", SESSION_IDLE.as_secs());
        sessions.insert(id, now);
        HeaderValue::from_str(&cookie).map_err(|error| ApiError::Internal(error.to_string()))
    }

    /// Ends the session of a request.
    fn sign_out(&self, headers: &HeaderMap) {
        if let Some(id) = session_id(headers) {
            lock(&self.sessions).remove(id);
        }
    }

    /// Who a request is from.
    fn who(&self, peer: IpAddr, headers: &HeaderMap, now: Instant) -> Result<SignedIn, ApiError> {
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            let given = given.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or("");
            return self.check(peer, given.trim(), now).map(|()| SignedIn::Token);
        }
        let id = session_id(headers).ok_or(ApiError::SignInFirst)?;
        let mut sessions = lock(&self.sessions);
        let used = sessions.get_mut(id).ok_or(ApiError::SignInFirst)?;
        if now.duration_since(*used) >= SESSION_IDLE {
            return Err(ApiError::SignInFirst);
        }
        *used = now;
        Ok(SignedIn::Session)
    }
}

impl Guesses {
    /// One wrong guess is forgiven every [`GUESS_EVERY`].
    fn forgiven(self, now: Instant) -> Guesses {
        let times = now.duration_since(self.since).as_secs() / GUESS_EVERY.as_secs();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        Guesses {
            wrong: self.wrong.saturating_sub(times),
            since: self.since + GUESS_EVERY * times.min(1_000_000),
        }
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        Some(api.auth().who(peer, request.headers(), Instant::now()))
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
    let cookie = api.auth().sign_in(peer, &login.password, Instant::now())?;
    Ok(([(header::SET_COOKIE, cookie)], Json(LoginAnswer { user: "admin" })).into_response())
}

/// Ends the session.
#[utoipa::path(post, path = "/api/v1/logout", tag = "session",
    responses((status = 204, description = "Signed out; clears the cookie"), (status = 401, body = ErrorBody)))]
pub(crate) async fn logout(State(api): State<Api>, headers: HeaderMap) -> Response {
    api.auth().sign_out(&headers);
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn auth(folder: &Path) -> Auth {
        Auth::new(Token::open(folder).unwrap())
    }

    #[test]
    fn the_token_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Token::open(folder.path()).unwrap();
        assert!(first.is_new() && first.text().len() == 43);
        let mode = std::fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Token::open(folder.path()).unwrap();
        assert!(!second.is_new() && second.text() == first.text());
        assert!(!format!("{second:?}").contains(second.text()));
        std::fs::set_permissions(first.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Token::open(folder.path()), Err(TokenError::Open { .. })));
        std::fs::set_permissions(first.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(first.path(), "short").unwrap();
        assert!(matches!(Token::open(folder.path()), Err(TokenError::NoToken { .. })));
    }

    #[test]
    fn comparing_looks_at_every_byte() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }

    #[test]
    fn guessing_is_slowed_down_but_a_right_token_always_passes() {
        let folder = tempfile::tempdir().unwrap();
        let auth = auth(folder.path());
        let token = auth.token.text().to_owned();
        let mut now = Instant::now();
        for _ in 0..GUESSES {
            assert!(matches!(auth.sign_in(HERE, "guess", now), Err(ApiError::WrongPassword)));
        }
        assert!(matches!(auth.sign_in(HERE, "guess", now), Err(ApiError::TooManyWrong { .. })));
        assert!(matches!(auth.sign_in(HERE, &token, now), Err(ApiError::TooManyWrong { .. })));
        let mut bearer = HeaderMap::new();
        bearer.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        assert_eq!(auth.who(HERE, &bearer, now).unwrap(), SignedIn::Token);
        bearer.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer nonsense"));
        assert!(matches!(auth.who(HERE, &bearer, now), Err(ApiError::TooManyWrong { .. })));
        let other = IpAddr::from([10, 0, 0, 1]);
        assert!(auth.sign_in(other, &token, now).is_ok());
        now += GUESS_EVERY * 2;
        assert!(auth.sign_in(HERE, &token, now).is_ok());
    }

    #[test]
    fn sessions_end_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let auth = auth(folder.path());
        let token = auth.token.text().to_owned();
        let mut now = Instant::now();
        let cookie = |auth: &Auth, now| {
            let value = auth.sign_in(HERE, &token, now).unwrap();
            let pair = value.to_str().unwrap().split(';').next().unwrap().to_owned();
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, format!("other=1; {pair}").parse().unwrap());
            headers
        };
        let first = cookie(&auth, now);
        assert_eq!(auth.who(HERE, &first, now).unwrap(), SignedIn::Session);
        for _ in 0..SESSIONS_MAX {
            now += Duration::from_millis(1);
            drop(cookie(&auth, now));
        }
        assert!(auth.who(HERE, &first, now).is_err(), "the session unused longest gave way");
        let last = cookie(&auth, now);
        assert!(auth.who(HERE, &last, now).is_ok());
        now += SESSION_IDLE;
        assert!(auth.who(HERE, &last, now).is_err());
        let second = cookie(&auth, now);
        auth.sign_out(&second);
        assert!(auth.who(HERE, &second, now).is_err());
        assert!(lock(&auth.sessions).len() <= SESSIONS_MAX);
    }
}
