//! Everything that can go wrong with a log, and who must act.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Position;

/// Why a call to the log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("{doing} {} failed", path.display())]
    Io {
        /// What was tried: "reading", "syncing".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "the log is damaged in {} at byte {byte}: {what}; nothing was changed. Save the directory, \
         then run `forebay log verify` on it",
        path.display()
    )]
    Damaged {
        /// The segment or cursor file.
        path: PathBuf,
        /// Byte in that file.
        byte: u64,
        /// What is wrong there.
        what: String,
    },
    /// A later version of the program wrote it.
    #[error(
        "{} has format version {found}, this program knows up to {known}; nothing was changed. \
         Use the newer program",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Another process writes this log.
    #[error("{} is in use by another process{}; stop that one first", path.display(), owner_text(*.owner))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other process, where known.
        owner: Option<u32>,
    },
    /// A write or sync failed before; since then nothing is written.
    #[error("the log accepts nothing more since a write failed; find the cause, then restart")]
    Latched {
        /// The first failure.
        #[source]
        cause: Arc<LogError>,
    },
    /// No room. Nothing of the group was taken; it may be tried again after a trim.
    #[error("the log in {} is full: {bytes} of {bytes_max} bytes, {free} bytes free on the disk", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// Bytes of the log now.
        bytes: u64,
        /// Its bound.
        bytes_max: u64,
        /// Free bytes of the file system beyond the reserve, as last seen.
        free: u64,
    },
    /// A record or group above the maximum.
    #[error("a {what} of {bytes} bytes is above the maximum of {bytes_max}")]
    TooLarge {
        /// "record" or "group".
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The epoch of an opening must be new.
    #[error("log epoch {epoch:016x} is zero or was used before; take a new random one")]
    BadEpoch {
        /// The refused epoch.
        epoch: u64,
    },
    /// A reader stood before the first position that is still held; it goes on there at the next call.
    #[error("positions {from} to {first} were trimmed before they were read", from = from.0, first = first.0)]
    Trimmed {
        /// The position wanted.
        from: Position,
        /// The first one held.
        first: Position,
    },
    /// A name of a cursor that cannot be a file.
    #[error("`{name}` cannot name a cursor: 1 to {bytes_max} bytes")]
    BadName {
        /// The name.
        name: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The log was opened for reading only.
    #[error("{} was opened for reading only", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
}

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Trim or free disk space, then try again.
    MakeRoom,
    /// Correct the call or the configuration.
    FixCaller,
    /// Stop the other process, or start the right program.
    FixOperation,
    /// A person looks at the disk, then restarts.
    Restart,
    /// Nothing: the caller goes on.
    GoOn,
}

impl LogError {
    /// Who must act.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Full { .. } => Remedy::MakeRoom,
            Self::TooLarge { .. } | Self::BadEpoch { .. } | Self::BadName { .. } | Self::ReadOnly { .. } => {
                Remedy::FixCaller
            }
            Self::Locked { .. } | Self::NewerVersion { .. } => Remedy::FixOperation,
            Self::Io { .. } | Self::Damaged { .. } | Self::Latched { .. } => Remedy::Restart,
            Self::Trimmed { .. } => Remedy::GoOn,
        }
    }

    /// Whether this is [`LogError::Full`]: refused for now, to be tried again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

fn owner_text(owner: Option<u32>) -> String {
    owner.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
