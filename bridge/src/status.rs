//! What a pump shows of itself: to people, to the metrics and to whoever waits for it.

use model::Timestamp;
use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::watch;

use crate::cursor::Cursor;
use crate::sinks::Written;
use crate::upkeep::{Compacted, UpkeepStatus, Vacuumed};

/// What a pump is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Looking for the hub and the target.
    Starting,
    /// Following the log.
    Following,
    /// Waiting to try again, because of this.
    Retrying(String),
    /// Stopped until a person acts, because of this: an alarm.
    Stopped(String),
    /// Ended with the process.
    Closed,
}

/// One sink's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What it does.
    pub state: State,
    /// What the target holds.
    pub committed: Option<Cursor>,
    /// Every row of positions below is in the target (positions without rows are not committed for their own sake).
    pub settled: u64,
    /// The hub's durable end as last seen.
    pub durable_end: u64,
    /// Rows, files and bytes committed since the process began.
    pub written: Written,
    /// Commits since the process began.
    pub commits: u64,
    /// Records that the target could not take, since the process began: they are in the hub's quarantine.
    pub set_aside: u64,
    /// When the last commit was.
    pub last_commit: Option<Timestamp>,
    /// The last thing that went wrong, also after it was overcome.
    pub last_error: Option<String>,
    /// Trouble that lasts: what it is. See `alarm.rs`.
    pub alarm: Option<String>,
    /// The disk of its folder fills up: how far. See `room.rs`.
    pub warning: Option<String>,
    /// How the table is kept in order beside the commits.
    pub upkeep: UpkeepStatus,
    /// What went wrong since the last commit, if anything: logged once.
    interrupted_by: Option<String>,
}

impl SinkStatus {
    /// What went wrong since the last commit.
    pub(crate) fn interruption(&self) -> Option<&str> {
        self.interrupted_by.as_deref()
    }

    /// What the hub is told: the alarm, or else the warning.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.alarm.clone().or_else(|| self.warning.clone())
    }

    /// Whether everything that the hub had when last asked is in the target.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.state == State::Following && self.settled >= self.durable_end
    }
}

/// The pump's side: keeps the status and the series of one sink.
#[derive(Debug)]
pub(crate) struct Reporter {
    status: watch::Sender<SinkStatus>,
    rows: Counter,
    files: Counter,
    bytes: Counter,
    commits: Counter,
    set_aside: Counter,
    errors: Counter,
    holes: Counter,
    lag: Gauge,
    committed: Gauge,
    stopped: Gauge,
    alarm: Gauge,
    disk: Gauge,
    merged: Counter,
    merged_bytes: Counter,
    removed: Counter,
    upkeep_errors: Counter,
    files_now: Gauge,
}

impl Reporter {
    pub(crate) fn new(name: &str, kind: &'static str, metrics: &Metrics) -> Self {
        let labels = [("sink", name)];
        let status = SinkStatus {
            name: name.to_owned(),
            kind,
            state: State::Starting,
            committed: None,
            settled: 0,
            durable_end: 0,
            written: Written::default(),
            commits: 0,
            set_aside: 0,
            last_commit: None,
            last_error: None,
            alarm: None,
            warning: None,
            upkeep: UpkeepStatus::default(),
            interrupted_by: None,
        };
        Reporter {
            status: watch::channel(status).0,
            rows: metrics.counter("forebay_bridge_rows_total", "Rows committed to the table.", &labels),
            files: metrics.counter("forebay_bridge_files_total", "Files committed to the table.", &labels),
            bytes: metrics.counter("forebay_bridge_bytes_total", "Bytes of committed files.", &labels),
            commits: metrics.counter("forebay_bridge_commits_total", "Commits.", &labels),
            set_aside: metrics.counter(
                "forebay_bridge_set_aside_records_total",
                "Records that the target could not take: they are in the hub's quarantine.",
                &labels,
            ),
            errors: metrics.counter("forebay_bridge_errors_total", "Failures of hub or target.", &labels),
            holes: metrics.counter(
                "forebay_bridge_holes_total",
                "Positions of the hub's log that were damaged on its disk.",
                &labels,
            ),
            lag: metrics.gauge(
                "forebay_bridge_lag_records",
                "Durable records of the hub not yet in the table.",
                &labels,
            ),
            committed: metrics.gauge(
                "forebay_bridge_committed_position",
                "The cursor in the table.",
                &labels,
            ),
            alarm: metrics.gauge(
                "forebay_bridge_sink_alarm",
                "1 if nothing has been committed for a while although something waits.",
                &labels,
            ),
            disk: metrics.gauge(
                "forebay_bridge_target_disk_used_percent",
                "Of the disk of the table's folder; 0 where the table is elsewhere.",
                &labels,
            ),
            merged: metrics.counter(
                "forebay_bridge_compacted_files_total",
                "Small files of the table that became part of larger ones.",
                &labels,
            ),
            merged_bytes: metrics.counter(
                "forebay_bridge_compacted_bytes_total",
                "Bytes of the files that compactions wrote.",
                &labels,
            ),
            removed: metrics.counter(
                "forebay_bridge_vacuumed_files_total",
                "Files of the table that nothing needed any more.",
                &labels,
            ),
            upkeep_errors: metrics.counter(
                "forebay_bridge_upkeep_errors_total",
                "Failed turns of compaction and vacuum; each is tried again.",
                &labels,
            ),
            files_now: metrics.gauge("forebay_bridge_table_files", "Data files of the table.", &labels),
            stopped: metrics.gauge("forebay_bridge_stopped", "1 if the sink waits for a person.", &labels),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<SinkStatus> {
        self.status.subscribe()
    }

    pub(crate) fn now(&self) -> SinkStatus {
        self.status.borrow().clone()
    }

    /// The alarm that stands; told when it begins and when it ends.
    pub(crate) fn alarm(&self, alarm: Option<String>) {
        let before = self.status.borrow().alarm.clone();
        if before == alarm {
            return;
        }
        let name = self.status.borrow().name.clone();
        match (&before, &alarm) {
            (None, Some(why)) => {
                tracing::error!(sink = %name, alarm = %why, "a sink brings nothing into its table; it goes on trying")
            }
            (Some(_), None) => tracing::info!(sink = %name, "the alarm of the sink is over"),
            _ => {}
        }
        self.alarm.set(i64::from(alarm.is_some()));
        self.status.send_modify(|status| status.alarm = alarm);
    }

    /// How full the disk of its folder is; said when a line is passed or left.
    pub(crate) fn room(&self, used_percent: u8, line: u8, warning: Option<String>) {
        self.disk.set(i64::from(used_percent));
        let (name, before) = {
            let status = self.status.borrow();
            (status.name.clone(), status.warning.clone())
        };
        if before == warning {
            return;
        }
        let is_new_line = |text: &String| !before.as_ref().is_some_and(|before| same_words(before, text));
        match &warning {
            Some(warning) if is_new_line(warning) => tracing::warn!(sink = %name, line, %warning, "table"),
            None => tracing::info!(sink = %name, used_percent, "there is room on the table's disk again"),
            Some(_) => {}
        }
        self.status.send_modify(|status| status.warning = warning);
    }

    pub(crate) fn state(&self, state: State) {
        self.stopped.set(i64::from(matches!(state, State::Stopped(_))));
        self.status.send_modify(|status| {
            if let State::Retrying(why) | State::Stopped(why) = &state {
                status.last_error = Some(why.clone());
                status.interrupted_by = Some(why.clone());
            }
            status.state = state;
        });
    }

    /// Whether the sink is, or was until it tried again just now, interrupted for this reason.
    pub(crate) fn is_last_error(&self, why: &str) -> bool {
        self.status.borrow().interrupted_by.as_deref() == Some(why)
    }

    /// The hub's log has nothing at this position any more: its disk was damaged there, and its ledger says so.
    pub(crate) fn hole(&self, position: u64) {
        tracing::debug!(position, "a hole in the hub's log");
        self.holes.increment();
    }

    pub(crate) fn failed(&self) {
        self.errors.increment();
    }

    pub(crate) fn set_aside(&self) {
        self.set_aside.increment();
        self.status.send_modify(|status| status.set_aside += 1);
    }

    pub(crate) fn position(&self, settled: u64, durable_end: u64) {
        self.lag.set(i64::try_from(durable_end.saturating_sub(settled)).unwrap_or(i64::MAX));
        self.status.send_modify(|status| {
            status.settled = settled;
            status.durable_end = durable_end;
        });
    }

    pub(crate) fn held(&self, committed: Option<Cursor>) {
        self.committed.set(committed.map_or(0, |cursor| i64::try_from(cursor.position).unwrap_or(i64::MAX)));
        self.status.send_modify(|status| status.committed = committed);
    }

    pub(crate) fn compacted(&self, done: &Compacted) {
        if done.version.is_none() {
            return;
        }
        self.merged.add(done.files);
        self.merged_bytes.add(done.bytes);
        self.status.send_modify(|status| {
            status.upkeep.compactions += 1;
            status.upkeep.merged += done.files;
        });
    }

    pub(crate) fn table_files(&self, files: u64) {
        self.files_now.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.status.send_modify(|status| status.upkeep.files = files);
    }

    pub(crate) fn vacuumed(&self, done: &Vacuumed) {
        self.removed.add(done.files + done.log_files);
        self.status.send_modify(|status| status.upkeep.removed += done.files);
    }

    /// How a turn of the upkeep went; a failure is told when it is a new one.
    pub(crate) fn upkeep_went(&self, failure: Option<String>) {
        let (name, before) = {
            let status = self.status.borrow();
            (status.name.clone(), status.upkeep.last_error.clone())
        };
        if let Some(why) = &failure {
            self.upkeep_errors.increment();
            if before.as_ref() != Some(why) {
                tracing::warn!(sink = %name, error = %why, "the table's upkeep failed; will try again");
            }
        }
        if before != failure {
            self.status.send_modify(|status| status.upkeep.last_error = failure);
        }
    }

    pub(crate) fn committed(&self, cursor: Cursor, written: Written, now: Timestamp) {
        self.rows.add(written.rows);
        self.files.add(written.files);
        self.bytes.add(written.bytes);
        self.commits.increment();
        self.held(Some(cursor));
        self.status.send_modify(|status| {
            status.written.rows += written.rows;
            status.written.files += written.files;
            status.written.bytes += written.bytes;
            status.commits += 1;
            status.interrupted_by = None;
            status.last_commit = Some(now);
        });
    }
}

/// Whether two warnings differ in figures only.
fn same_words(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}
