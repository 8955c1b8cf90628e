//! Commands: the one door through which a point is written (design §6).
//!
//! ```text
//! write() → authorise → ledger: Recorded → ledger: Sent → DCMD … report → ledger: Closed
//!                └ refused → Recorded, Closed            silence → Unknown (a late report still closes it)
//! ```
//!
//! Rules it keeps:
//! - Off until `[hub.commands] enabled = true`, and then only for points that are `writable`, within their range.
//! - An entry is durable before what it tells: nothing is sent that the ledger does not already call Sent, and nothing
//!   is ever sent twice. After a restart, Sent without an end becomes Unknown, and Recorded becomes Expired.
//! - Silence is Unknown, never Expired: that word is the agent's, or means "never sent".
//! - Reports count only from the agent that was asked.

mod authorise;
mod book;
mod dispatch;
mod ledger;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{CommandId, CommandOutcome, CommandState, NodeId, PointDefinition, Timestamp};
use proto::receipt::CommandReport;
use runtime::clock::Clock;
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use tokio::sync::{Notify, mpsc, oneshot};

use self::book::Book;
use self::dispatch::{Counts, Dispatcher};
use crate::broker::Broker;
use crate::host::PointTarget;

/// Shortest time a command may live.
pub const EXPIRY_MIN: Duration = Duration::from_secs(1);

/// Longest time a command may live.
pub const EXPIRY_MAX: Duration = Duration::from_secs(300);

/// Requests waiting for the dispatcher; further callers wait.
const REQUESTS_MAX: usize = 64;

/// What somebody wants written.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Path of the point, relative to the site.
    pub path: String,
    /// The value as text; it must parse as the point's type.
    pub value: String,
    /// How long it may wait before nobody executes it: [`EXPIRY_MIN`] to [`EXPIRY_MAX`].
    pub expires_in: Duration,
    /// Who asks.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// A command as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    /// Its identity.
    pub id: CommandId,
    /// Path of the point.
    pub path: String,
    /// The value as asked for.
    pub value: String,
    /// Who asked.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it was recorded, hub time.
    pub at: Timestamp,
    /// After this, hub time, nobody executes it.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: CommandState,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<CommandOutcome>,
    /// What the device showed afterwards; empty if it was not read.
    pub read_back: String,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What the dispatcher needs to know of a point.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is.
    pub definition: PointDefinition,
    /// Where its commands go.
    pub place: PointTarget,
}

/// What commands need of the rest of the hub.
pub trait Plant: Send + Sync {
    /// The point of that path, if there is one.
    fn target(&self, path: &str) -> Option<Target>;
    /// The durable end of the plant log.
    fn log_end(&self) -> u64;
    /// Reports that are durable in the plant log from that position on. Blocking.
    fn reports_since(&self, from: u64) -> Vec<(NodeId, CommandReport)>;
}

/// Why the ledger cannot be used; the hub runs on without commands.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log refuses.
    #[error("the command ledger cannot be used: {0}")]
    Log(#[from] durable_log::LogError),
    /// Its folder cannot be created.
    #[error("the command ledger's folder cannot be created: {0}")]
    Folder(std::io::Error),
    /// Somebody changed it, or it is damaged beyond what its checksums find.
    #[error(
        "the command ledger's chain is broken at record {at}: {what}; keep the folder for inquiry, then move it away"
    )]
    Broken {
        /// Record number.
        at: u64,
        /// What does not fit.
        what: String,
    },
    /// An entry could not be written as JSON.
    #[error("the command ledger cannot write an entry: {0}")]
    Encode(serde_json::Error),
    /// It could not be opened at start.
    #[error("the command ledger is not open")]
    NotOpen,
    /// The machine gives no randomness.
    #[error("no randomness for the command ledger: {0}")]
    Random(getrandom::Error),
}

/// Handle of the command path. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    clock: Clock,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// State that the handle and the dispatcher share.
#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    /// Reports for commands of the book that the dispatcher has not taken yet; at most one each.
    reports: Mutex<Vec<CommandReport>>,
    reported: Notify,
    /// Why nothing is accepted, if so.
    blocked: Mutex<Option<String>>,
}

/// A request on its way to the dispatcher.
#[derive(Debug)]
struct Request {
    record: CommandRecord,
    expires_in: Duration,
    reply: oneshot::Sender<CommandRecord>,
}

impl Commands {
    /// Opens the ledger in `{data_dir}/commands` and starts the dispatcher.
    ///
    /// A ledger that cannot be used does not keep the hub from running: then every command is refused with the reason,
    /// and [`Commands::blocked`] says it.
    pub async fn start(
        data_dir: &Path,
        enabled: bool,
        plant: Arc<dyn Plant>,
        broker: Arc<dyn Broker>,
        clock: Clock,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Commands {
        let dir = data_dir.join("commands");
        let (evidence, now) = (Arc::clone(&plant), clock.now());
        let opened = tokio::task::spawn_blocking(move || ledger::open(&dir, evidence.as_ref(), now)).await;
        let (ledger, book, blocked) = match opened {
            Ok(Ok((ledger, book))) => (Some(ledger), book, None),
            Ok(Err(error)) => (None, Book::default(), Some(format!("ledger: {error}"))),
            Err(panic) => (None, Book::default(), Some(panic.to_string())),
        };
        if let Some(why) = &blocked {
            tracing::error!(why, "commands are refused until a person has looked");
        }
        let shared = Arc::new(Shared {
            book: Mutex::new(book),
            reports: Mutex::default(),
            reported: Notify::new(),
            blocked: Mutex::new(blocked),
        });
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let dispatcher = Dispatcher {
            enabled,
            ledger: ledger.map(|ledger| Arc::new(Mutex::new(ledger))),
            plant,
            broker,
            clock: clock.clone(),
            shared: Arc::clone(&shared),
            waiting: HashMap::new(),
            count: Counts::new(metrics),
        };
        tasks.spawn(TaskKind::Housekeeping, "commands", dispatcher.run(receiver, tasks.shutdown()));
        Commands { clock, requests, shared }
    }

    /// Writes a value to a point; returns when the outcome is known, or that it is not.
    ///
    /// Dropping the future does not recall the command.
    pub async fn write(&self, request: WriteRequest) -> CommandRecord {
        let now = self.clock.now();
        let expires_in = i64::try_from(request.expires_in.as_micros()).unwrap_or(i64::MAX);
        let mut id = [0; 16];
        let random = getrandom::fill(&mut id);
        let record = CommandRecord {
            id: CommandId(id),
            path: request.path,
            value: request.value,
            author: request.author,
            reason: request.reason,
            at: now,
            expires_at: Timestamp(now.0.saturating_add(expires_in)),
            state: CommandState::Recorded,
            outcome: None,
            read_back: String::new(),
            ended_at: None,
        };
        if let Err(error) = random {
            return record.ended(CommandOutcome::Refused(format!("no randomness for an id: {error}")), now);
        }
        let (reply, answer) = oneshot::channel();
        let fallback = record.clone();
        let id = record.id;
        let request = Request { record, expires_in: request.expires_in, reply };
        if self.requests.send(request).await.is_err() {
            return fallback.ended(CommandOutcome::Refused("the hub is stopping".into()), now);
        }
        match answer.await {
            Ok(record) => record,
            Err(_) => {
                // The dispatcher ended in between: what the ledger says is settled at the next start.
                let record = self.get(id).unwrap_or(fallback);
                let why = "the hub stopped before the outcome was known".to_owned();
                if record.outcome.is_some() {
                    record
                } else {
                    record.ended(CommandOutcome::Unknown(why), now)
                }
            }
        }
    }

    /// Takes a report that is durable in the plant log. Reports of unknown or closed commands, and reports from
    /// another agent than the one that was asked, are counted and ignored.
    pub fn report(&self, from: &NodeId, report: CommandReport) {
        if !lock(&self.shared.book).awaits(report.id, from) {
            tracing::warn!(command = %report.id, %from, "report of a command that does not await one");
            return;
        }
        let mut reports = lock(&self.shared.reports);
        if !reports.iter().any(|waiting| waiting.id == report.id) {
            reports.push(report);
            self.shared.reported.notify_one();
        }
    }

    /// The newest commands, newest first.
    #[must_use]
    pub fn recent(&self, at_most: usize) -> Vec<CommandRecord> {
        lock(&self.shared.book).recent(at_most)
    }

    /// A command by its id, while it is remembered.
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<CommandRecord> {
        lock(&self.shared.book).get(id)
    }

    /// Why commands are refused although they are enabled: the ledger's reason.
    #[must_use]
    pub fn blocked(&self) -> Option<String> {
        lock(&self.shared.blocked).clone()
    }
}

impl CommandRecord {
    fn ended(mut self, outcome: CommandOutcome, at: Timestamp) -> Self {
        self.state = match outcome {
            CommandOutcome::Unknown(_) => CommandState::Unknown,
            _ => CommandState::Closed,
        };
        self.outcome = Some(outcome);
        self.ended_at = Some(at);
        self
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
