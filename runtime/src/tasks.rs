//! Tasks that somebody joins: every kind declares what its failure does and how long its end may take.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
pub use tokio_util::sync::CancellationToken;

/// What a task is, which decides its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Writes a log: its failure stops the process (a person must look).
    LogWriter,
    /// Serves a listener or a client of it.
    Server,
    /// Reads a device.
    Acquisition,
    /// Moves data between tiers.
    Transport,
    /// Looks after things at intervals.
    Housekeeping,
}

/// What a kind's failure does, and how long it may drain.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Whether an error or panic ends the process.
    pub stops_process: bool,
    /// Time to finish after shutdown began.
    pub drain: Duration,
}

impl TaskKind {
    /// The table.
    #[must_use]
    pub const fn fate(self) -> Fate {
        match self {
            Self::LogWriter => Fate { stops_process: true, drain: Duration::from_secs(20) },
            Self::Server => Fate { stops_process: true, drain: Duration::from_secs(2) },
            Self::Acquisition => Fate { stops_process: true, drain: Duration::from_secs(5) },
            Self::Transport => Fate { stops_process: true, drain: Duration::from_secs(10) },
            Self::Housekeeping => Fate { stops_process: true, drain: Duration::from_secs(1) },
        }
    }
}

/// Where tasks are spawned and joined. Cheap to clone; one per role, so that roles can be drained in order.
#[derive(Clone, Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    failure: CancellationToken,
    set: Arc<Mutex<Running>>,
}

/// Tasks that may still be running, and how to cut them off.
#[derive(Debug, Default)]
struct Running {
    joins: JoinSet<Ended>,
    handles: Vec<(TaskKind, AbortHandle)>,
}

#[derive(Debug)]
struct Ended {
    name: String,
    error: Option<String>,
}

/// How a drain went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that failed, with why.
    pub failed: Vec<String>,
    /// Tasks that did not end in time.
    pub abandoned: usize,
}

impl Drained {
    /// Whether every task ended well and in time.
    #[must_use]
    pub fn is_graceful(&self) -> bool {
        self.failed.is_empty() && self.abandoned == 0
    }
}

impl Tasks {
    /// An empty set; `failure` is cancelled when a task fails whose fate stops the process.
    #[must_use]
    pub fn new(failure: CancellationToken) -> Self {
        Tasks { shutdown: CancellationToken::new(), failure, set: Arc::default() }
    }

    /// Cancelled when this set's tasks shall end: close intake, finish what was taken, leave.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Spawns a task; its error or panic is logged once, here, and follows the kind's fate.
    pub fn spawn<F, E>(&self, kind: TaskKind, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let (name, failure) = (name.into(), self.failure.clone());
        let guard =
            FailOnPanic { failure: kind.fate().stops_process.then(|| failure.clone()), name: name.clone() };
        let mut set = lock(&self.set);
        while set.joins.try_join_next().is_some() {} // forget the ones that ended
        set.handles.retain(|(_, handle)| !handle.is_finished());
        let handle = set.joins.spawn(async move {
            let error = task.await.err().map(|error| error.to_string());
            guard.disarm();
            if let Some(error) = &error {
                tracing::error!(task = %name, %error, "task failed");
                if kind.fate().stops_process {
                    failure.cancel();
                }
            }
            Ended { name, error }
        });
        set.handles.push((kind, handle));
    }

    /// Spawns blocking work on a thread of its own, with the same fate rules.
    pub fn spawn_blocking<E>(
        &self,
        kind: TaskKind,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) where
        E: std::fmt::Display + Send + 'static,
    {
        self.spawn(kind, name, async move {
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(panic) => Err(format!("panicked: {panic}")),
            }
        });
    }

    /// Begins shutdown and waits, for each kind its time at most; what takes longer is cut off.
    pub async fn drain(&self) -> Drained {
        self.shutdown.cancel();
        let Running { mut joins, mut handles } = std::mem::take(&mut *lock(&self.set));
        handles.sort_by_key(|(kind, _)| kind.fate().drain);
        let mut handles = handles.into_iter().peekable();
        let begun = tokio::time::Instant::now();
        let mut drained = Drained::default();
        loop {
            let deadline = handles.peek().map_or(Duration::ZERO, |(kind, _)| kind.fate().drain);
            tokio::select! {
                joined = joins.join_next() => match joined {
                    None => return drained,
                    Some(Ok(Ended { error: None, name })) => tracing::debug!(task = %name, "ended"),
                    Some(Ok(Ended { error: Some(error), name })) => drained.failed.push(format!("{name}: {error}")),
                    Some(Err(error)) if error.is_cancelled() => drained.abandoned += 1,
                    Some(Err(error)) => drained.failed.push(error.to_string()),
                },
                () = tokio::time::sleep_until(begun + deadline), if handles.peek().is_some() => {
                    if let Some((_, late)) = handles.next() {
                        late.abort(); // nothing happens to one that has ended
                    }
                }
            }
        }
    }
}

/// Runs a writer's loop on this thread, which is its own: disks block it and nobody else. Not from within a task.
pub fn block_thread_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        // Without I/O to drive a runtime needs nothing that the machine could refuse.
        Err(error) => unreachable!("a runtime for one thread: {error}"),
    }
}

/// Cancels the process when a task unwinds.
struct FailOnPanic {
    failure: Option<CancellationToken>,
    name: String,
}

impl FailOnPanic {
    fn disarm(mut self) {
        self.failure = None;
    }
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if let Some(failure) = &self.failure
            && std::thread::panicking()
        {
            tracing::error!(task = %self.name, "task panicked");
            failure.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_each_kind_and_cuts_off_what_is_late() {
        let failure = CancellationToken::new();
        let tasks = Tasks::new(failure.clone());
        let shutdown = tasks.shutdown();
        tasks.spawn(TaskKind::Transport, "in time", async move {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(8)).await;
            Ok::<_, Infallible>(())
        });
        tasks.spawn(TaskKind::Housekeeping, "late", std::future::pending::<Result<(), Infallible>>());
        tasks.spawn(TaskKind::Server, "ended before", async { Ok::<_, Infallible>(()) });
        let begun = tokio::time::Instant::now();
        assert_eq!(tasks.drain().await, Drained { failed: vec![], abandoned: 1 });
        assert_eq!(begun.elapsed().as_secs(), 8);
        assert!(!failure.is_cancelled());
    }

    #[tokio::test]
    async fn a_failure_is_told_once_and_stops_the_process() {
        let failure = CancellationToken::new();
        let tasks = Tasks::new(failure.clone());
        tasks.spawn(TaskKind::LogWriter, "writer", async { Err::<(), _>("no disk") });
        failure.cancelled().await;
        assert_eq!(tasks.drain().await.failed, ["writer: no disk"]);
    }

    #[tokio::test]
    async fn a_panic_stops_the_process() {
        let failure = CancellationToken::new();
        let tasks = Tasks::new(failure.clone());
        tasks.spawn::<_, Infallible>(TaskKind::Server, "server", async { panic!("on purpose") });
        failure.cancelled().await;
        assert!(!tasks.drain().await.is_graceful());
    }
}
