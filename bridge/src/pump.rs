//! The only loop of a sink: feed → batch → write → commit → tell the hub.
//!
//! ```text
//!          ┌── error: forget everything, wait, begin again ──┐
//!          ▼                                                 │
//!  begin: ask the hub what log this is, ask the target what it holds, agree on a position (cursor.rs)
//!          │                                                 │
//!          ├─► gather pages into a batch ─► gather the next …├
//!          │              └─► write ─► commit (writer.rs) ───┘
//! ```
//! While one batch is written the next one is gathered, and closed only when the other has been committed.
//! Nothing is remembered over an error or a restart but what the target holds, so a crash at any point costs work, never
//! a row. A batch is closed before a record that would make it too large, too old or too many days, and at the end of a
//! plant-log epoch; it always ends at a record boundary. Memory: two batches (`max_bytes` and the largest record each), one
//! page, and the catalogue. Where data would be missing or double the pump stops with an alarm and leaves the rest alone.
//!
//! A record that cannot become rows of this target is set aside: the hub keeps it in its quarantine, durably, and only then
//! the batch goes on behind it. The hub's pages name such positions from then on, and they are left out whatever a later
//! version could make of them: a retry brings the record under a position of its own ([`LogRecord::Again`]), so it cannot
//! be counted twice. A batch that the target refuses is taken apart record by record to find the one.

use std::sync::Arc;
use std::time::Duration;

use model::Epoch;
use proto::feed::FeedPage;
use proto::log_record::{LogRecord, RecordError};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{BatchBuilder, RecordProblem};
use crate::cursor::{Cursor, Misfit, PlantLog, Span};
use crate::feed::{Feed, FeedError, Request, plant_log};
use crate::sinks::location::Location;
use crate::sinks::{Remedy, Sink, SinkError, in_one_line};
use crate::status::{Reporter, State};
use crate::{Pace, Source};
use writer::{Broken, Closed, Writer};

mod writer;

/// The hub is asked to wait this long for something new, when no row waits for its commit.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// After shutdown begins, the log is followed to the end that it then has, for this long at most.
const DRAIN_WITHIN: Duration = Duration::from_secs(7);

/// The pause between pages while the pump keeps up with the hub and a batch is open.
const LINGER: Duration = Duration::from_millis(100);

/// Records taken before other tasks get a turn.
const RECORDS_PER_TURN: usize = 32;

/// Bounds of a commit.
pub(crate) struct Bounds {
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_wait: Duration,
}

/// Moves one sink's data.
pub(crate) struct Pump {
    pub(crate) source: Source,
    /// The sink's.
    pub(crate) name: String,
    pub(crate) bounds: Bounds,
    pub(crate) pace: Pace,
    pub(crate) clock: Clock,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) shutdown: CancellationToken,
    /// Records below this position go into batches of their own, to find the one that the target refuses.
    pub(crate) apart_below: u64,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("record {position} of the hub's log cannot be read")]
    Record {
        position: u64,
        #[source]
        source: RecordError,
    },
    #[error("record {position} of the hub's log cannot become rows")]
    Rows {
        position: u64,
        #[source]
        source: RecordProblem,
    },
    #[error("the target refuses a batch; its records go one by one up to position {upto}")]
    Apart {
        upto: u64,
        #[source]
        source: SinkError,
    },
    #[error("record {position} is in the hub's quarantine as {entry}; the sink goes on behind it")]
    SetAside { position: u64, entry: String },
    #[error("record {position} cannot be set aside either: the hub answered {answer}")]
    Kept {
        position: u64,
        answer: String,
        #[source]
        source: Box<PumpError>,
    },
    #[error("a thread of the bridge failed")]
    Thread(#[from] runtime::world::Interrupted),
}

impl PumpError {
    const fn remedy(&self) -> Remedy {
        match self {
            Self::Feed(_) | Self::Thread(_) | Self::Apart { .. } | Self::SetAside { .. } => Remedy::Reopen,
            Self::Sink(error) => error.remedy(),
            // Skipping it would lose data silently; a later version or a person can read it.
            Self::Misfit(_) | Self::Record { .. } | Self::Rows { .. } | Self::Kept { .. } => Remedy::Stop,
        }
    }
}

/// Where a session stands.
struct Session {
    feed: Feed,
    log: PlantLog,
    site: Arc<str>,
    /// As the writer tells it.
    committed: watch::Receiver<Option<Cursor>>,
    /// The way to the writer; `None` when no batch follows.
    batches: Option<mpsc::Sender<Closed>>,
    /// One, for the batch that is written.
    turn: Arc<Semaphore>,
    /// Where the newest closed batch began.
    closed_from: u64,
    /// The next position to take into the batch.
    next: u64,
    /// Whether the last page went up to the hub's durable end.
    has_all: bool,
    /// See [`Pump::apart_below`].
    apart_below: u64,
    open: OpenBatch,
}

/// The batch that grows.
struct OpenBatch {
    builder: BatchBuilder,
    /// Of its first row; `None` before it.
    epoch: Option<Epoch>,
    start: u64,
    /// Positions of the first and the last record with rows.
    with_rows: Option<(u64, u64)>,
    since: Option<Instant>,
}

impl OpenBatch {
    fn at(start: u64) -> Self {
        OpenBatch { builder: BatchBuilder::new(), epoch: None, start, with_rows: None, since: None }
    }

    /// Positions below are in the target, or hold no rows.
    fn settled(&self, next: u64) -> u64 {
        if self.epoch.is_none() { next } else { self.start }
    }
}

/// How a record was taken.
enum Taken {
    /// It is in the batch, or has no rows.
    Yes,
    /// It belongs to the next batch.
    Full,
    /// Its point or agent is not known yet.
    Unknown(RecordProblem),
}

impl Pump {
    /// Runs until shutdown; errors are handled inside, so this never fails.
    pub(crate) async fn run(mut self, mut target: Box<dyn Sink>) -> Result<(), std::convert::Infallible> {
        let mut backoff = Backoff::new(self.pace.pause, self.pace.pause_max);
        while let Err(error) = self.session(&mut *target, &mut backoff).await {
            self.reporter.failed();
            let why = in_one_line(&error);
            let name = &self.name;
            if error.remedy() == Remedy::Stop {
                tracing::error!(sink = %name, alarm = %why, "sink stopped; it waits for a person");
                self.reporter.state(State::Stopped(why));
                target.close().await;
                self.shutdown.cancelled().await;
                return Ok(());
            }
            if self.reporter.is_last_error(&why) {
                tracing::debug!(sink = %name, error = %why, "still interrupted");
            } else {
                tracing::warn!(sink = %name, hub = %self.source.hub, error = %why, "sink interrupted; will try again");
            }
            self.reporter.state(State::Retrying(why));
            tokio::select! {
                biased;
                () = tokio::time::sleep(backoff.wait()) => {}
                () = self.shutdown.cancelled() => break,
            }
        }
        target.close().await;
        self.reporter.state(State::Closed);
        Ok(())
    }

    /// From opening to an error, or to the end that shutdown asks for.
    async fn session(&mut self, target: &mut dyn Sink, backoff: &mut Backoff) -> Result<(), PumpError> {
        let shutdown = self.shutdown.clone();
        let (mut session, queue, committed) = tokio::select! {
            biased;
            begun = self.begin(target) => begun?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let writer = Writer {
            target,
            site: Arc::clone(&session.site),
            queue,
            committed,
            reporter: Arc::clone(&self.reporter),
            clock: self.clock.clone(),
        };
        let ended = {
            let mut writing = std::pin::pin!(writer.run());
            let gathered = tokio::select! {
                biased;
                written = &mut writing => written.map(|()| Ok(())),
                gathered = self.gather(&mut session, backoff) => Ok(gathered),
            };
            match gathered {
                // What is closed is worth its commit, whatever became of the hub.
                Ok(gathered) => writing.await.map(|()| gathered),
                Err(broken) => Err(broken),
            }
        };
        match ended {
            Ok(gathered) => gathered,
            Err(Broken::Failed(error)) => Err(error),
            Err(Broken::Refused { with_rows, upto, source }) => {
                Err(self.refused(&mut session, with_rows, upto, source).await)
            }
        }
    }

    /// Gathers until an error, or to the end that shutdown asks for; no batch follows after it.
    async fn gather(&self, session: &mut Session, backoff: &mut Backoff) -> Result<(), PumpError> {
        let ended = self.follow(session, backoff).await;
        session.batches = None;
        ended
    }

    async fn follow(&self, session: &mut Session, backoff: &mut Backoff) -> Result<(), PumpError> {
        loop {
            let committed = *session.committed.borrow();
            session.feed.tell_alarm(self.reporter.now().trouble());
            let page = tokio::select! {
                biased;
                page = session.next_page(self.bounds.max_wait) => page?,
                () = self.shutdown.cancelled() => return self.drain(session).await,
            };
            self.take(session, page).await?;
            if session.open.since.is_some_and(|since| since.elapsed() >= self.bounds.max_wait) {
                self.close(session).await;
            }
            if *session.committed.borrow() != committed || session.is_idle() {
                backoff.reset(); // pages alone are no success: the target may refuse every batch of them
            }
            self.reporter.position(session.settled(), session.log.durable_end);
        }
    }

    /// Brings what the hub has by now into the target, and tells it so.
    async fn drain(&self, session: &mut Session) -> Result<(), PumpError> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let mut end = None;
        while end.is_none_or(|end| session.next < end) {
            match tokio::time::timeout_at(deadline, session.page(Duration::ZERO)).await {
                Ok(Ok(page)) => {
                    end.get_or_insert(session.log.durable_end);
                    self.take(session, page).await?;
                }
                // What was fetched is durable at the hub, and worth its commit even if the hub is gone.
                Ok(Err(PumpError::Feed(error))) => {
                    tracing::warn!(sink = %self.name, error = %in_one_line(&error), "cannot drain the hub's log");
                    break;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        self.close(session).await;
        drop(session.turn.acquire().await); // the writer has done it
        self.reporter.position(session.next, session.log.durable_end);
        // Only to tell the hub the cursor; without it the hub keeps a little more of its log.
        tokio::time::timeout_at(deadline, session.page(Duration::ZERO)).await.ok();
        Ok(())
    }

    async fn begin(
        &self,
        target: &mut dyn Sink,
    ) -> Result<(Session, mpsc::Receiver<Closed>, watch::Sender<Option<Cursor>>), PumpError> {
        let mut feed = Feed::connect(&self.source, &self.name)?;
        feed.name_holder(holder(target.location()));
        feed.tell_alarm(self.reporter.now().trouble());
        let probe = feed.page(Request { from: u64::MAX, committed: None, wait: Duration::ZERO }).await?;
        let log = plant_log(&probe)?;
        let held = target.open(&self.name, &log).await?;
        let next = log.resume(held)?;
        tracing::info!(sink = %self.name, from = next, end = log.durable_end, "sink follows the hub's log");
        self.reporter.held(held);
        self.reporter.position(next, log.durable_end);
        self.reporter.state(State::Following);
        let (batches, queue) = mpsc::channel(1);
        let (telling, committed) = watch::channel(held);
        let session = Session {
            feed,
            log,
            site: Arc::from(probe.site),
            committed,
            batches: Some(batches),
            turn: Arc::new(Semaphore::new(1)),
            closed_from: next,
            next,
            has_all: false,
            apart_below: self.apart_below,
            open: OpenBatch::at(next),
        };
        Ok((session, queue, telling))
    }

    /// Takes a page into batches, committing those that are full.
    async fn take(&self, session: &mut Session, page: FeedPage) -> Result<(), PumpError> {
        for (nth, (position, bytes)) in page.entries.into_iter().enumerate() {
            if position < session.next {
                continue; // sent again
            }
            if position > session.next {
                let gap = format!("records [{}, {position}) are missing from it", session.next);
                return Err(FeedError::Undecodable(gap).into());
            }
            if bytes.is_empty() {
                self.reporter.hole(position);
                session.next = position + 1;
                continue;
            }
            if !page.set_aside.contains(&position)
                && let Err(error) = self.take_one(session, position, &bytes).await
            {
                self.set_aside(session, position, error).await?;
            }
            session.next = position + 1;
            if nth % RECORDS_PER_TURN == 0 {
                tokio::task::yield_now().await; // others share this thread
            }
        }
        Ok(())
    }

    async fn take_one(&self, session: &mut Session, position: u64, bytes: &[u8]) -> Result<(), PumpError> {
        let record = LogRecord::decode(bytes).map_err(|source| PumpError::Record { position, source })?;
        loop {
            match session.add(position, &record, &self.name, &self.bounds)? {
                Taken::Yes => return Ok(()),
                Taken::Full => self.close(session).await,
                Taken::Unknown(source) => {
                    if !session.feed.more_catalogue().await? {
                        return Err(PumpError::Rows { position, source });
                    }
                }
            }
        }
    }

    /// Has the hub keep a record that cannot become rows; any other error is given back.
    async fn set_aside(
        &self,
        session: &mut Session,
        position: u64,
        error: PumpError,
    ) -> Result<String, PumpError> {
        let concerns_record = match &error {
            // A later version's record may be anything: this program must not decide that it is no row.
            PumpError::Record { source, .. } => matches!(source, RecordError::Damaged(_)),
            PumpError::Rows { .. } => true,
            PumpError::Sink(error) => error.concerns_rows(),
            _ => false,
        };
        let Some(span) = session.log.epoch_at(position).filter(|_| concerns_record) else {
            return Err(error);
        };
        let why = in_one_line(&error);
        match session.feed.refuse(span.epoch, position, &why).await {
            Ok(entry) => {
                tracing::error!(sink = %self.name, position, entry, alarm = %why,
                    "a record is in the hub's quarantine; `forebay quarantine` shows it");
                self.reporter.set_aside();
                Ok(entry)
            }
            // It keeps as many as it may, or is of a version that keeps none.
            Err(FeedError::Refused { status: status @ (404 | 405 | 409), body }) => {
                let answer = format!("{status}: {body}");
                Err(PumpError::Kept { position, answer, source: Box::new(error) })
            }
            Err(unreachable) => Err(unreachable.into()),
        }
    }

    /// The target refuses these rows: apart, or, where it is one record, aside. The sink has to be opened again either way.
    async fn refused(
        &mut self,
        session: &mut Session,
        with_rows: Option<(u64, u64)>,
        upto: u64,
        error: SinkError,
    ) -> PumpError {
        match with_rows {
            Some((first, last)) if first == last => {
                match self.set_aside(session, first, error.into()).await {
                    Ok(entry) => PumpError::SetAside { position: first, entry },
                    Err(error) => error,
                }
            }
            _ => {
                self.apart_below = upto;
                PumpError::Apart { upto, source: error }
            }
        }
    }

    /// Hands the open batch to the writer, when that has done the one before; nothing if it has no rows.
    async fn close(&self, session: &mut Session) {
        let open = std::mem::replace(&mut session.open, OpenBatch::at(session.next));
        let Some(epoch) = open.epoch else { return };
        let span = Span { epoch, positions: open.start..session.next };
        let turn = Arc::clone(&session.turn).acquire_owned().await;
        session.closed_from = open.start;
        if let (Ok(turn), Some(batches)) = (turn, &session.batches) {
            let closed = Closed { builder: open.builder, span, with_rows: open.with_rows, turn };
            if batches.send(closed).await.is_ok() {
                return;
            }
        }
        std::future::pending().await // the writer has ended: why, `session` hears
    }
}

/// How this bridge names itself to the hub: the same after a restart, another one on another machine or with another
/// target.
fn holder(target: Option<&Location>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "a bridge" } else { host.trim() };
    match target {
        Some(Location::Folder(path)) => {
            format!("{host}:{}", std::path::absolute(path).unwrap_or_else(|_| path.clone()).display())
        }
        Some(far) => format!("{host}:{far}"),
        None => host.to_owned(),
    }
}

impl Session {
    /// Whether nothing waits for its commit.
    fn is_idle(&self) -> bool {
        self.open.epoch.is_none() && self.turn.available_permits() > 0
    }

    /// Positions below are in the target, or hold no rows.
    fn settled(&self) -> u64 {
        match self.turn.available_permits() {
            0 => self.closed_from,
            _ => self.open.settled(self.next),
        }
    }

    /// The next page, when there is one or the open batch is due.
    async fn next_page(&mut self, max_wait: Duration) -> Result<FeedPage, PumpError> {
        let wait = match self.open.since {
            None => IDLE_WAIT,
            Some(since) => {
                // The rows wait for their commit anyway: a few larger pages instead of very many small ones.
                if self.has_all {
                    tokio::time::sleep(LINGER.min(max_wait / 10)).await;
                }
                max_wait.saturating_sub(since.elapsed()).min(IDLE_WAIT)
            }
        };
        self.page(wait).await
    }

    /// A page from here on; refreshes what is known of the log and checks that it still is the same one.
    async fn page(&mut self, wait: Duration) -> Result<FeedPage, PumpError> {
        let committed = *self.committed.borrow();
        let page = self.feed.page(Request { from: self.next, committed, wait }).await?;
        let log = plant_log(&page)?;
        if log.hub_id != self.log.hub_id {
            return Err(FeedError::Undecodable(format!("another hub answers: {}", log.hub_id)).into());
        }
        let here = self.log.epoch_at(self.next).map(|span| span.epoch);
        // An opening of the log that wrote nothing leaves no epoch behind: what the target holds decides, not this.
        if here.is_none_or(|epoch| log.span_of(epoch).is_none()) {
            return Err(FeedError::Renewed.into());
        }
        log.resume(Some(Cursor { epoch: here, position: self.next }))?;
        self.has_all = page.next >= log.durable_end;
        self.log = log;
        Ok(page)
    }

    /// Adds a record to the open batch, if it belongs there.
    fn add(
        &mut self,
        position: u64,
        record: &LogRecord,
        name: &str,
        bounds: &Bounds,
    ) -> Result<Taken, PumpError> {
        let span = self.log.epoch_at(position);
        let span = span.ok_or_else(|| FeedError::Undecodable(format!("record {position} has no epoch")))?;
        if self.open.epoch.is_some_and(|epoch| epoch != span.epoch) {
            return Ok(Taken::Full);
        }
        let (agent, batch) = match record {
            LogRecord::Received { agent, batch, .. } => (agent, batch),
            LogRecord::Again { sink, agent, batch, .. } if sink == name => (agent, batch),
            _ => return Ok(Taken::Yes),
        };
        let builder = &mut self.open.builder;
        let rows = builder.rows();
        let is_full = rows > 0
            && (position < self.apart_below
                || rows + batch.samples.len() > bounds.max_rows
                || builder.bytes() >= bounds.max_bytes
                || !builder.has_room_for(batch));
        if is_full {
            return Ok(Taken::Full);
        }
        match builder.push(*agent, batch, self.feed.catalogue()) {
            Ok(()) => {}
            Err(problem @ (RecordProblem::UnknownPoint(_) | RecordProblem::UnknownAgent(_))) => {
                return Ok(Taken::Unknown(problem));
            }
            Err(source) => return Err(PumpError::Rows { position, source }),
        }
        if builder.rows() > rows {
            let first = self.open.with_rows.map_or(position, |(first, _)| first);
            self.open.with_rows = Some((first, position));
        }
        if builder.rows() > 0 && self.open.epoch.is_none() {
            self.open.epoch = Some(span.epoch);
            self.open.start = self.open.start.max(span.positions.start);
            self.open.since = Some(Instant::now());
        }
        Ok(Taken::Yes)
    }
}
