//! A hub's feed over real HTTP, as docs/specs/feed.md has it, whose log a test writes, trims, cuts and disturbs.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use model::{Epoch, SampleBatch};
use proto::account::Account;
use proto::feed::FeedPage;
use proto::log_record::{AgentId, CatalogueEntry, LogRecord};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the hub holds, and how it misbehaves.
pub(crate) struct Log {
    pub(crate) epochs: Vec<(Epoch, u64)>,
    pub(crate) first: u64,
    pub(crate) records: Vec<Bytes>,
    pub(crate) catalogue: Vec<CatalogueEntry>,
    /// Catalogue entries per page.
    pub(crate) catalogue_part: usize,
    /// Records per page.
    pub(crate) page_records: u64,
    /// Pages begin this many records too early.
    pub(crate) repeat: u64,
    /// The next requests that fail.
    pub(crate) fail: u32,
    pub(crate) token: Option<String>,
    /// As registered by `committed`.
    pub(crate) cursors: HashMap<String, (Epoch, u64)>,
    pub(crate) requests: u64,
    /// Positions that the sink refused, with its reasons, and how many may be.
    pub(crate) refused: BTreeMap<u64, String>,
    pub(crate) refused_max: usize,
    /// As told by `alarm`, by sink.
    pub(crate) alarms: HashMap<String, String>,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// A hub that runs until it is dropped.
pub(crate) struct Hub {
    log: Arc<Mutex<Log>>,
    changed: watch::Sender<()>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Hub {
    pub(crate) async fn start(epoch: Epoch, catalogue: Vec<CatalogueEntry>) -> Hub {
        let log = Log {
            epochs: vec![(epoch, 0)],
            first: 0,
            records: Vec::new(),
            catalogue,
            catalogue_part: usize::MAX,
            page_records: 100,
            repeat: 0,
            fail: 0,
            token: None,
            cursors: HashMap::new(),
            requests: 0,
            refused: BTreeMap::new(),
            refused_max: usize::MAX,
            alarms: HashMap::new(),
        };
        let log = Arc::new(Mutex::new(log));
        let changed = watch::channel(()).0;
        let (server, address) =
            serve("127.0.0.1:0".parse().unwrap(), Arc::clone(&log), changed.clone()).await;
        Hub { log, changed, address, server }
    }

    pub(crate) fn url(&self) -> url::Url {
        format!("http://{}/", self.address).parse().unwrap()
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    pub(crate) fn append(&self, records: &[SampleBatch]) {
        self.append_and_trim(records, 0);
    }

    /// Both at once: no request sees the log in between.
    pub(crate) fn append_and_trim(&self, records: &[SampleBatch], keep_from: u64) {
        {
            let mut log = self.log();
            for batch in records {
                let record = LogRecord::Received {
                    agent: AgentId(0),
                    batch: batch.clone(),
                    account: Account::default(),
                    counts: None,
                };
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                log.records.push(bytes.into());
            }
            trim(&mut log, keep_from);
        }
        self.changed.send_replace(());
    }

    /// Appends a record as it is.
    pub(crate) fn append_record(&self, record: &LogRecord) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.log().records.push(bytes.into());
        self.changed.send_replace(());
    }

    /// Opens the log anew: records from here on are of this epoch.
    pub(crate) fn new_epoch(&self, epoch: Epoch) {
        let mut log = self.log();
        let end = log.end();
        log.epochs.push((epoch, end));
    }

    /// Drops positions below `keep_from`.
    pub(crate) fn trim(&self, keep_from: u64) {
        self.append_and_trim(&[], keep_from);
    }

    /// Stops answering; `up` listens again on the same address.
    pub(crate) async fn down(&mut self) {
        self.server.abort();
        (&mut self.server).await.ok();
    }

    pub(crate) async fn up(&mut self) {
        let (server, _) = serve(self.address, Arc::clone(&self.log), self.changed.clone()).await;
        self.server = server;
    }
}

fn trim(log: &mut Log, keep_from: u64) {
    let gone = usize::try_from(keep_from.saturating_sub(log.first)).unwrap();
    log.records.drain(..gone);
    log.first = log.first.max(keep_from);
    let spans = log.epochs.clone();
    log.epochs.retain(|(epoch, _)| {
        let nth = spans.iter().position(|(e, _)| e == epoch).unwrap();
        spans.get(nth + 1).is_none_or(|(_, next)| *next > keep_from)
    });
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = (Arc<Mutex<Log>>, watch::Sender<()>);

#[expect(clippy::disallowed_methods, reason = "the server is the test's own and ends with it")]
async fn serve(
    at: SocketAddr,
    log: Arc<Mutex<Log>>,
    changed: watch::Sender<()>,
) -> (JoinHandle<()>, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(at).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/api/v1/feed", get(feed))
        .route("/api/v1/quarantine/refuse", post(refuse))
        .with_state((log, changed));
    (tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }), address)
}

async fn feed(
    State((log, changed)): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Vec<u8>, (StatusCode, String)> {
    let number = |key: &str| query.get(key).map(|text| text.parse::<u64>().unwrap());
    let from = number("from").unwrap();
    {
        let mut log = log.lock().unwrap();
        log.requests += 1;
        let bearer = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        if let Some(token) = &log.token
            && bearer != Some(format!("Bearer {token}"))
        {
            return Err((StatusCode::UNAUTHORIZED, "wrong token".to_owned()));
        }
        if log.fail > 0 {
            log.fail -= 1;
            return Err((StatusCode::SERVICE_UNAVAILABLE, "not now".to_owned()));
        }
        if let Some(alarm) = query.get("alarm") {
            log.alarms.insert(query["sink"].clone(), alarm.clone());
        }
        if let Some(committed) = number("committed") {
            let epoch = Epoch(u64::from_str_radix(&query["epoch"], 16).unwrap());
            log.cursors.insert(query["sink"].clone(), (epoch, committed));
        }
    }
    let mut changes = changed.subscribe();
    let wait = Duration::from_millis(number("wait_ms").unwrap_or(0));
    let waiting = async {
        while from == log.lock().unwrap().end() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(wait, waiting).await.ok();
    let log = log.lock().unwrap();
    Ok(page(&log, from, number("catalogue").unwrap_or(0)).encode())
}

async fn refuse(State((log, _)): State<Shared>, body: Bytes) -> Result<String, (StatusCode, String)> {
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let mut log = log.lock().unwrap();
    let position = said["position"].as_u64().unwrap();
    let epoch = Epoch(u64::from_str_radix(said["epoch"].as_str().unwrap(), 16).unwrap());
    let of = log.epochs.iter().rev().find(|(_, start)| *start <= position).unwrap().0;
    assert_eq!((said["sink"].as_str(), of), (Some("lake"), epoch));
    if log.refused.len() >= log.refused_max && !log.refused.contains_key(&position) {
        return Err((StatusCode::CONFLICT, "as many as may be".to_owned()));
    }
    log.refused.insert(position, said["reason"].as_str().unwrap().to_owned());
    Ok(format!("{{\"id\":\"r{position}\"}}"))
}

fn page(log: &Log, from: u64, catalogue: u64) -> FeedPage {
    let at = usize::try_from(catalogue).unwrap().min(log.catalogue.len());
    let part: Vec<_> = log.catalogue.iter().skip(at).take(log.catalogue_part).cloned().collect();
    let start = if from > log.end() { from } else { from.saturating_sub(log.repeat).max(log.first) };
    let end = if from > log.end() { from } else { log.end().min(from.max(log.first) + log.page_records) };
    let record = |position: u64| {
        let nth = usize::try_from(position - log.first).unwrap();
        (position, log.records[nth].clone())
    };
    FeedPage {
        hub_id: "hub".to_owned(),
        enterprise: "acme".to_owned(),
        site: "antwerp".to_owned(),
        epochs: log.epochs.clone(),
        first: log.first,
        next: end,
        durable_end: log.end(),
        catalogue_next: (at + part.len()) as u64,
        catalogue: part,
        entries: (start..end).map(record).collect(),
        set_aside: log.refused.keys().copied().filter(|at| (start..end).contains(at)).collect(),
    }
}
