//! Tasks that somebody joins: every kind declares what its failure does and how long its end may take.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
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
    set: Arc<Mutex<JoinSet<Ended>>>,
}

#[derive(Debug)]
struct Ended {
    name: String,
    kind: TaskKind,
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
        while set.try_join_next().is_some() {} // forget the ones that ended well
        set.spawn(async move {
            let error = task.await.err().map(|error| error.to_string());
            guard.disarm();
            if let Some(error) = &error {
                tracing::error!(task = %name, %error, "task failed");
                if kind.fate().stops_process {
                    failure.cancel();
                }
            }
            Ended { name, kind, error }
        });
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

    /// Begins shutdown and waits, each kind for its time at most.
    pub async fn drain(&self) -> Drained {
        self.shutdown.cancel();
        let mut set = std::mem::take(&mut *lock(&self.set));
        let longest = TaskKind::LogWriter.fate().drain;
        let mut drained = Drained::default();
        let deadline = tokio::time::sleep(longest);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                joined = set.join_next() => match joined {
                    None => break,
                    Some(Ok(Ended { error: None, name, kind })) => tracing::debug!(task = %name, ?kind, "ended"),
                    Some(Ok(Ended { error: Some(error), name, .. })) => drained.failed.push(format!("{name}: {error}")),
                    Some(Err(error)) => drained.failed.push(error.to_string()),
                },
                () = &mut deadline => {
                    drained.abandoned = set.len();
                    set.abort_all();
                    break;
                }
            }
        }
        drained
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
