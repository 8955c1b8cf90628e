//! A small client of the hub's API for the commands of this crate: blocking, JSON, with errors that say what to do.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Time for an ordinary answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A hub and the right to use it.
#[derive(Debug)]
pub struct HubClient {
    base: String,
    token: String,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

impl HubClient {
    /// Reads the token; connects to nothing yet.
    pub fn new(base: &str, token_file: Option<&Path>) -> Result<Self, String> {
        let token = match token_file {
            None => return Err("the hub wants its token: give --token-file {hub data_dir}/token".into()),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| format!("the token file {} cannot be read: {error}", file.display()))?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        // A hub is in the plant: a proxy for the way out would not find it.
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(HubClient {
            base: base.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
            runtime,
            http,
        })
    }

    /// GET as JSON.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.answer(self.http.get(format!("{}{path}", self.base)).timeout(ANSWER))
    }

    /// GET as bytes.
    pub fn get_bytes(&self, path: &str) -> Result<bytes::Bytes, String> {
        let request =
            self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token).timeout(ANSWER * 6);
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
        })
    }

    /// POST of a JSON body, answer as JSON.
    pub fn post(&self, path: &str, body: &Value, timeout: Duration) -> Result<Value, String> {
        self.answer(self.http.post(format!("{}{path}", self.base)).json(body).timeout(timeout))
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        self.runtime.block_on(async {
            let response =
                request.bearer_auth(&self.token).send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            if !status.is_success() {
                return Err(self.refused(status, &body));
            }
            serde_json::from_slice(&body).map_err(|error| format!("{} answered no JSON: {error}", self.base))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        format!(
            "the hub at {} cannot be reached: {cause}. Is it running? Give --hub URL if it is elsewhere.",
            self.base
        )
    }

    fn refused(&self, status: reqwest::StatusCode, body: &[u8]) -> String {
        let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let message = answer["error"]["message"].as_str().unwrap_or("no reason given");
        let message = message.trim_end_matches('.');
        match answer["error"]["remedy"].as_str() {
            Some(remedy) if !remedy.is_empty() => format!("the hub refused ({status}): {message}. {remedy}"),
            _ => format!("the hub refused ({status}): {message}"),
        }
    }
}
