//! Asking a hub for a client certificate: what is sent, what comes back, and how the hub is known.
//!
//! ```text
//! POST /enrol/v1/join   {"token", "csr"}  first time: the hub is known by the fingerprint of its CA, the agent by a token
//! POST /enrol/v1/renew  {"csr"}           later: both show their certificates
//! 200 {"name", "certificate", "ca", "mqtt_port", "group", "node"}      4xx {"error": {"message", "remedy"}}
//! ```
//! The key stays where it was made; only requests (PKCS#10) and certificates travel. One exchange is one connection.

mod pinned;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

use crate::mqtt_client::{MqttError, TlsOptions, dial, tls_config};
use crate::pki::{Certificate, Fingerprint};
use pinned::Pinned;

/// Path of the first request.
pub const JOIN_PATH: &str = "/enrol/v1/join";
/// Path of later ones.
pub const RENEW_PATH: &str = "/enrol/v1/renew";
/// Where hubs listen for it unless they are told otherwise.
pub const DEFAULT_PORT: u16 = 8884;
/// A request's body: a token and a request for a certificate with an RSA key of 4096 bits.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// An answer's body: two chains.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// The first request.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The one-time token.
    pub token: String,
    /// Certificate signing request, PEM.
    pub csr: String,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinRequest") // the token is a secret
    }
}

/// A later one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificate signing request, PEM.
    pub csr: String,
}

/// What the hub gives.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Granted {
    /// The name in the certificate: the identity at the hub.
    pub name: String,
    /// Certificate and what lies between it and the CA, PEM.
    pub certificate: String,
    /// CA certificates of the hub's clients, PEM.
    pub ca: String,
    /// Port of MQTT with TLS, if the hub has one.
    #[serde(default)]
    pub mqtt_port: Option<u16>,
    /// Sparkplug group, if the identity is an edge node's.
    #[serde(default)]
    pub group: Option<String>,
    /// Sparkplug node, likewise.
    #[serde(default)]
    pub node: Option<String>,
}

/// What the hub says when it refuses.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Refused {
    /// The reason.
    pub error: Reason,
}

/// A reason, and what to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reason {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nobody answers.
    #[error(
        "{url} cannot be reached: {why}. Is the hub running, with [hub.enrol] in its file, and the port open?"
    )]
    Unreachable {
        /// The hub.
        url: String,
        /// Why.
        why: String,
    },
    /// It is not the hub that it should be, or cannot prove it.
    #[error("{0}")]
    NotTrusted(String),
    /// Own files cannot be used.
    #[error("{0}")]
    Files(String),
    /// The hub refused.
    #[error("the hub refused ({status}): {}. {}", reason.message, reason.remedy)]
    Refused {
        /// HTTP status.
        status: u16,
        /// Why.
        reason: Reason,
    },
    /// The answer is none.
    #[error("{url} gave an answer that cannot be used: {why}")]
    Answer {
        /// The hub.
        url: String,
        /// Why.
        why: String,
    },
}

/// `https://host[:port]` of a hub's enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolUrl {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for EnrolUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be https://HOST[:PORT]";
        let rest = text.strip_prefix("https://").ok_or(RULE)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| RULE)?),
            _ => (rest, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.contains(['/', '@', '?', '#']) || ServerName::try_from(host.as_str()).is_err() {
            return Err(RULE.into());
        }
        Ok(EnrolUrl { host, port })
    }
}

impl fmt::Display for EnrolUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "https://{host}:{}", self.port)
    }
}

/// The first certificate. Returns also the CA certificate by which the hub was known.
pub async fn join(
    url: &EnrolUrl,
    ca: Fingerprint,
    request: &JoinRequest,
) -> Result<(Granted, Certificate), EnrolError> {
    let pinned = Arc::new(Pinned::new(url.clone(), ca));
    let config = pinned.config().map_err(|error| EnrolError::Files(error.to_string()))?;
    let granted = exchange(url, Arc::new(config), JOIN_PATH, request).await;
    match (granted, pinned.outcome()) {
        (_, Some(Err(problem))) => Err(EnrolError::NotTrusted(problem)),
        (Ok(granted), Some(Ok(ca))) => Ok((granted, ca)),
        (Err(error), _) => Err(error),
        (Ok(_), None) => Err(EnrolError::NotTrusted(format!("{url} showed no certificate"))),
    }
}

/// A new certificate by the present one.
pub async fn renew(url: &EnrolUrl, tls: &TlsOptions, request: &RenewRequest) -> Result<Granted, EnrolError> {
    let config = tls_config(tls).map_err(|error: MqttError| EnrolError::Files(error.to_string()))?;
    exchange(url, config, RENEW_PATH, request).await
}

/// One connection, one request, one answer.
async fn exchange<B: Serialize, A: DeserializeOwned>(
    url: &EnrolUrl,
    config: Arc<ClientConfig>,
    path: &str,
    body: &B,
) -> Result<A, EnrolError> {
    let body = serde_json::to_vec(body).map_err(|error| EnrolError::Files(error.to_string()))?;
    let exchanged = tokio::time::timeout(DEADLINE, post(url, config, path, body)).await;
    let (status, answer) = exchanged
        .unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
        .map_err(|why| EnrolError::Unreachable { url: url.to_string(), why })?;
    let unusable = |why: serde_json::Error| EnrolError::Answer {
        url: url.to_string(),
        why: format!("status {status}, {why}; is it a hub's enrolment?"),
    };
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(unusable);
    }
    let Refused { error: reason } = serde_json::from_slice(&answer).map_err(unusable)?;
    Err(EnrolError::Refused { status: status.as_u16(), reason })
}

async fn post(
    url: &EnrolUrl,
    config: Arc<ClientConfig>,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), String> {
    let tcp = dial(&url.host, url.port).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| tls_text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|e| chain(&e))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, format!("{}:{}", url.host, url.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| chain(&*error))?.to_bytes()))
    };
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    let mut is_over = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection, if !is_over => is_over = true, // its error comes out of the exchange
        }
    }
}

fn tls_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("TLS: {error}; another port, or a hub that is busy?")
        }
        _ => format!("TLS: {error}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |text: &str| text.parse::<EnrolUrl>();
        let text = |text: &str| url(text).map(|url| url.to_string());
        assert_eq!(text("https://hub.antwerp"), Ok("https://hub.antwerp:8884".into()));
        assert_eq!(text("https://10.0.0.1:9/"), Ok("https://10.0.0.1:9".into()));
        assert_eq!(text("https://[::1]:9"), Ok("https://[::1]:9".into()));
        assert_eq!(text("https://[::1]"), Ok("https://[::1]:8884".into()));
        for wrong in [
            "",
            "hub",
            "http://hub",
            "https://",
            "https://hub:x",
            "https://a/b",
            "https://u@h",
            "https://a b",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
