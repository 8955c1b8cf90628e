//! The latch: the first failed write or sync shuts it for good.
//!
//! After a failed sync nobody knows which pages reached the disk, and a second sync may succeed without having
//! written them. So nothing is tried again in this process; the next opening writes the tail afresh.

use std::sync::{Arc, OnceLock};

use crate::LogError;

/// Keeps the first cause.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    cause: OnceLock<Arc<LogError>>,
}

impl Latch {
    /// Refuses if shut.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(LogError::Latched { cause: Arc::clone(cause) }),
        }
    }

    /// Shuts with `cause` if it is the first one; returns the error for the caller.
    pub(crate) fn shut(&self, cause: LogError) -> LogError {
        let first = self.cause.get_or_init(|| Arc::new(cause));
        LogError::Latched { cause: Arc::clone(first) }
    }

    /// The first cause.
    pub(crate) fn cause(&self) -> Option<Arc<LogError>> {
        self.cause.get().cloned()
    }
}
