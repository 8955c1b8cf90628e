//! The client of a hub's feed (docs/specs/feed.md): pages of the plant log from a position on, by long poll.
//!
//! It keeps the point catalogue up to what the pages need and reports the sink's committed cursor with each request, and
//! hands records that the sink cannot take to the hub's quarantine.
//! It decides nothing: where to start, when to try again and what a page means are the pump's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use model::Epoch;
use proto::feed::FeedPage;
use proto::seal;
use url::Url;

use crate::Source;
use crate::catalogue::{BadEntry, Catalogue};
use crate::cursor::{Cursor, PlantLog};

/// Encoded records asked for in one page.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// A page is refused above this: records, one large record, and the catalogue entries that come along.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Time for a connection, and for the hub's answer beyond the time that it was asked to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Of a refusal's reason, what is sent: the hub takes 4000 bytes.
const REASON_CHARACTERS_MAX: usize = 900;
/// A name or an alarm is cut to this.
const TEXT_BYTES_MAX: usize = 400;

const _: () = assert!(PAGE_BYTES + model::limits::RECORD_BYTES_MAX < PAGE_BYTES_MAX);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The token file cannot be read.
    #[error("cannot read the token file {path}")]
    Token {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The hub does not answer.
    #[error("the hub does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The hub refused: its words.
    #[error("the hub answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        body: String,
    },
    /// The epoch in which the pump read is gone from the log, though its position fits: what the catalogue's numbers mean
    /// must be asked anew.
    #[error("the hub's log has been renewed")]
    Renewed,
    /// The answer is no page.
    #[error("the hub's answer cannot be read: {0}")]
    Undecodable(String),
}

/// Without the address: it is the same every time, and long.
fn unreachable(error: reqwest::Error) -> FeedError {
    FeedError::Unreachable(error.without_url())
}

impl From<BadEntry> for FeedError {
    fn from(error: BadEntry) -> Self {
        Self::Undecodable(error.to_string())
    }
}

/// Where pages come from: a hub's API, or a simulator's way to a hub.
#[async_trait]
pub trait Pages: Send + Sync + fmt::Debug {
    /// A page for a caller, with the catalogue entries from `catalogue` on.
    async fn page(&self, caller: &Caller, request: Request, catalogue: u64) -> Result<FeedPage, FeedError>;

    /// Has the hub keep a record that the sink cannot take: see [`Feed::refuse`]. By default it keeps none.
    async fn refuse(
        &self,
        _caller: &Caller,
        _epoch: Epoch,
        _position: u64,
        _reason: &str,
    ) -> Result<String, FeedError> {
        Err(FeedError::Refused { status: 405, body: "this hub keeps no refused records".to_owned() })
    }
}

/// One sink's view of a hub's log.
#[derive(Debug)]
pub struct Feed {
    pages: Arc<dyn Pages>,
    caller: Caller,
    catalogue: Catalogue,
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Name of the sink's cursor.
    pub sink: String,
    /// Which bridge, as people would know it.
    pub holder: Option<String>,
    /// What keeps it from its target.
    pub alarm: Option<String>,
}

/// A hub's API.
#[derive(Debug)]
struct Http {
    client: reqwest::Client,
    endpoint: Url,
    refusals: Url,
    token: Option<String>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// First position wanted.
    pub from: u64,
    /// What the target holds durably; the hub keeps its log from there.
    pub committed: Option<Cursor>,
    /// How long the hub may wait for something new.
    pub wait: Duration,
}

impl Feed {
    /// A client for the sink; reads the token file.
    pub fn connect(source: &Source, sink: &str) -> Result<Feed, FeedError> {
        let pages = match &source.pages {
            Some(pages) => Arc::clone(pages),
            None => Arc::new(Http::connect(source)?),
        };
        let caller = Caller { sink: sink.to_owned(), ..Caller::default() };
        Ok(Feed { pages, caller, catalogue: Catalogue::default() })
    }

    /// Takes the sink's seat at the hub under this name; see docs/specs/feed.md.
    pub fn name_holder(&mut self, holder: String) {
        self.caller.holder = Some(shortened(holder));
    }

    /// What the hub shows as this sink's trouble from the next request on.
    pub fn tell_alarm(&mut self, alarm: Option<String>) {
        self.caller.alarm = alarm.filter(|alarm| !alarm.is_empty()).map(shortened);
    }

    /// What the records' numbers mean, up to the last page.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// One page; its catalogue entries are taken already.
    pub async fn page(&mut self, request: Request) -> Result<FeedPage, FeedError> {
        let page = self.fetch(request).await?;
        self.take_catalogue(page).await
    }

    /// Has the hub keep the record at a position, which this sink cannot take: the name under which it does, durably. The
    /// same position again is the same name. The hub leaves it out of this sink's rows from then on.
    pub async fn refuse(&self, epoch: Epoch, position: u64, reason: &str) -> Result<String, FeedError> {
        self.pages.refuse(&self.caller, epoch, position, reason).await
    }

    /// Asks for catalogue entries only; whether there were new ones.
    pub async fn more_catalogue(&mut self) -> Result<bool, FeedError> {
        let before = self.catalogue.next();
        let page = self.fetch(Request { from: u64::MAX, committed: None, wait: Duration::ZERO }).await?;
        self.take_catalogue(page).await?;
        Ok(self.catalogue.next() > before)
    }

    async fn take_catalogue(&mut self, mut page: FeedPage) -> Result<FeedPage, FeedError> {
        let asked = self.catalogue.next();
        if page.catalogue_next < asked {
            // Another catalogue than the one we know: the hub lost its data, or another hub answers.
            self.catalogue = Catalogue::default();
            return Err(FeedError::Undecodable(format!(
                "its catalogue has {} entries, fewer than the {asked} that it sent before",
                page.catalogue_next
            )));
        }
        self.catalogue.apply(std::mem::take(&mut page.catalogue), page.catalogue_next)?;
        Ok(page)
    }

    async fn fetch(&self, request: Request) -> Result<FeedPage, FeedError> {
        self.pages.page(&self.caller, request, self.catalogue.next()).await
    }
}

impl Http {
    fn connect(source: &Source) -> Result<Http, FeedError> {
        let token = match &source.token_file {
            None => None,
            Some(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|source| FeedError::Token { path: path.clone(), source })?;
                Some(text.trim().to_owned())
            }
        };
        let client = reqwest::Client::builder()
            .connect_timeout(ANSWER_WITHIN)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(unreachable)?;
        let endpoint = source
            .hub
            .join("api/v1/feed")
            .map_err(|error| FeedError::Undecodable(format!("hub address: {error}")))?;
        let refusals = source
            .hub
            .join("api/v1/quarantine/refuse")
            .map_err(|error| FeedError::Undecodable(format!("hub address: {error}")))?;
        Ok(Http { client, endpoint, refusals, token })
    }
}

#[async_trait]
impl Pages for Http {
    async fn page(&self, caller: &Caller, request: Request, catalogue: u64) -> Result<FeedPage, FeedError> {
        let mut url = self.endpoint.clone();
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("sink", &caller.sink)
                .append_pair("from", &request.from.to_string())
                .append_pair("catalogue", &catalogue.to_string())
                .append_pair("wait_ms", &request.wait.as_millis().to_string())
                .append_pair("max_bytes", &PAGE_BYTES.to_string());
            if let Some(holder) = &caller.holder {
                query.append_pair("holder", holder);
            }
            if let Some(alarm) = &caller.alarm {
                query.append_pair("alarm", alarm);
            }
            if let Some(Cursor { epoch: Some(epoch), position }) = request.committed {
                query
                    .append_pair("epoch", &epoch.to_string())
                    .append_pair("committed", &position.to_string());
            }
        }
        let query = url.query().unwrap_or_default();
        let sealed = format!("{query}&seal={:016x}", seal::checksum(seal::FEED_REQUEST, query.as_bytes()));
        url.set_query(Some(&sealed));
        let mut http = self.client.get(url).timeout(request.wait + ANSWER_WITHIN);
        if let Some(token) = &self.token {
            http = http.bearer_auth(token);
        }
        let response = http.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = read_body(response).await?;
        if !status.is_success() {
            return Err(refused(status.as_u16(), &body));
        }
        FeedPage::decode(body).map_err(|error| FeedError::Undecodable(error.to_string()))
    }

    async fn refuse(
        &self,
        caller: &Caller,
        epoch: Epoch,
        position: u64,
        reason: &str,
    ) -> Result<String, FeedError> {
        let reason: String = reason.chars().take(REASON_CHARACTERS_MAX).collect();
        let refusal = serde_json::json!({
            "sink": caller.sink, "epoch": epoch.to_string(), "position": position, "reason": reason,
        });
        let mut http = self.client.post(self.refusals.clone()).timeout(ANSWER_WITHIN);
        if let Some(token) = &self.token {
            http = http.bearer_auth(token);
        }
        let sent = http.header("content-type", "application/json").body(refusal.to_string()).send().await;
        let response = sent.map_err(unreachable)?;
        let status = response.status();
        let body = read_body(response).await?;
        if !status.is_success() {
            return Err(refused(status.as_u16(), &body));
        }
        let answer: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| FeedError::Undecodable(error.to_string()))?;
        Ok(answer["id"].as_str().unwrap_or("?").to_owned())
    }
}

fn refused(status: u16, body: &[u8]) -> FeedError {
    FeedError::Refused { status, body: String::from_utf8_lossy(body).chars().take(200).collect() }
}

/// A text that the hub takes.
fn shortened(mut text: String) -> String {
    while text.len() > TEXT_BYTES_MAX {
        text.pop();
    }
    text
}

async fn read_body(response: reqwest::Response) -> Result<Bytes, FeedError> {
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(unreachable)?;
        if body.len() + chunk.len() > PAGE_BYTES_MAX {
            return Err(FeedError::Undecodable(format!("more than {PAGE_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The log that a page is of; an error if the page contradicts itself.
pub fn plant_log(page: &FeedPage) -> Result<PlantLog, FeedError> {
    let log = PlantLog {
        hub_id: page.hub_id.clone(),
        epochs: page.epochs.clone(),
        first: page.first,
        durable_end: page.durable_end,
    };
    let ascending = log.epochs.iter().zip(log.epochs.iter().skip(1)).all(|(a, b)| a.1 <= b.1);
    if log.hub_id.is_empty() || log.epochs.is_empty() || !ascending || log.first > log.durable_end {
        return Err(FeedError::Undecodable("it does not describe a plant log".to_owned()));
    }
    if log.epochs.first().is_some_and(|(_, start)| *start > log.first) {
        return Err(FeedError::Undecodable("its first position belongs to no epoch".to_owned()));
    }
    Ok(log)
}
