//! Where rows go: the contract of a sink (docs/specs/sink.md) and the table of kinds.
//!
//! A sink knows its target and nothing of the hub. The loop, the batching, the retries and the metrics are `pump.rs`'s.
//! The one promise: `commit` makes the staged rows *and* the position visible together or neither, durably, and `open`
//! says the position that the target holds. Whoever adds a sink adds a file, its `mod` line and its entry in [`KINDS`],
//! and calls `sink_conformance`.

pub mod delta;
pub mod folder;
pub mod location;
pub mod parquet;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use runtime::config_file::{Problems, Section};

use crate::batch::Batch;
use crate::cursor::{Cursor, PlantLog};
use crate::upkeep::Upkeep;
use location::Location;

/// Every kind of sink.
pub const KINDS: &[SinkKind] = &[delta::KIND, parquet::KIND];

/// A kind: its name in the configuration, and how its keys are read (pure: nothing is touched).
#[derive(Clone, Copy)]
pub struct SinkKind {
    /// `kind = "…"`.
    pub name: &'static str,
    /// Reads the kind's own keys; `None` if there was a problem (it is pushed).
    pub validate: fn(&mut Section<'_>, &mut Problems) -> Option<Box<dyn Sink>>,
}

impl fmt::Debug for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a commit brought into the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One target. Calls come in the order open, (write, commit)…, close; after an error or a dropped call, only open.
#[async_trait]
pub trait Sink: Send {
    /// Creates the target if it is not there, checks its schema, forgets what was staged, and says what is committed.
    ///
    /// `name` is the sink's name in the configuration: with the hub's id and the plant-log epoch it names the cursor.
    async fn open(&mut self, name: &str, log: &PlantLog) -> Result<Option<Cursor>, SinkError>;

    /// Stages one batch: nothing of it is visible yet.
    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), SinkError>;

    /// Makes what is staged visible together with the position `upto`, durably. If the target already holds `upto`
    /// (an answer was lost), it does nothing and succeeds.
    async fn commit(&mut self, upto: Cursor) -> Result<Written, SinkError>;

    /// Lets go of the target.
    async fn close(&mut self);

    /// Where its table is; `None` if that is no folder and no object store.
    fn location(&self) -> Option<&Location> {
        None
    }

    /// What is to be done for its table beside the commits.
    fn upkeep(&self) -> Option<Upkeep> {
        None
    }
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The target cannot be reached or written at the moment.
    #[error("{doing}")]
    Unavailable {
        /// What was tried.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody else wrote the same cursor in between; opening again shows where it stands.
    #[error("another writer moved the cursor of this sink: {0}")]
    Raced(String),
    /// The target is not a table of ours: what is wrong with it.
    #[error("{0}")]
    Unfit(String),
    /// The target's schema or rules do not allow rows of the batch, and never will as they are.
    #[error("the target refuses the rows: {0}")]
    Refused(String),
    /// The batch cannot be written: a bug or damaged data.
    #[error("cannot make the rows' file")]
    Encode(#[from] crate::parquet_file::EncodeError),
    /// The sink was called in the wrong order.
    #[error("the sink is not open")]
    NotOpen,
}

/// What the pump does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Wait, open again, go on.
    Reopen,
    /// Stop this sink: a person must act.
    Stop,
}

impl SinkError {
    /// Who must act.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable { .. } | Self::Raced(_) | Self::NotOpen => Remedy::Reopen,
            Self::Unfit(_) | Self::Refused(_) | Self::Encode(_) => Remedy::Stop,
        }
    }

    /// Whether it concerns these rows and no others: then the record with them can be set aside.
    #[must_use]
    pub const fn concerns_rows(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Encode(_))
    }

    pub(crate) fn unavailable(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { doing: doing.into(), source: source.into() }
    }
}

/// The error with its causes in one line, as it is logged and shown.
#[must_use]
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// Runs what blocks on a thread that may; a panic there becomes an error here.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(SinkError::unavailable(doing, panic)),
    }
}
