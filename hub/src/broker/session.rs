//! A session: what a client may come back to. Plain state, no I/O; the core asks and sends.
//!
//! [`Outgoing`] is a cursor, not a queue (docs/specs/broker.md §2.2): the session's n-th message of QoS 1 or 2 has ordinal
//! n. What was sent and is not complete is a window of small slots; what was not sent yet lies in the journal.
//!
//! ```text
//!  complete │ slots: sent, received, done        │ not sent: in the journal
//! ──────────┼────────────────────────────────────┼──────────────────────────►
//!          base                                 next                        end
//! ```
//! After a reconnection `next` goes back to `base`, and the slots above it remember what had happened to them.

mod outgoing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Timestamp;
use tokio::time::Instant;

use super::journal::{Message, SessionId};
use super::subscriptions::Options;

pub(super) use outgoing::{Outgoing, Sending};

/// Session expiry interval that means "never" [MQTT-3.1.2.11.2].
pub(super) const NEVER: u32 = u32::MAX;

/// A session, connected or not.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) client_id: Arc<str>,
    /// Name of the identity that it belongs to.
    pub(super) identity: Arc<str>,
    /// Seconds that it lives without a connection: 0 ends with it.
    pub(super) expiry_s: u32,
    pub(super) connection: Option<usize>,
    pub(super) subscriptions: BTreeMap<Arc<str>, Options>,
    /// What they would cost if nobody shared a level with them.
    pub(super) subscription_bytes: usize,
    /// Identifiers of QoS 2 messages that came and are not released [MQTT-4.3.3-10].
    pub(super) received: BTreeSet<u16>,
    pub(super) out: Outgoing,
    /// Since when there is no connection.
    pub(super) disconnected_at: Option<Timestamp>,
    /// A will that waits for its delay.
    pub(super) will: Option<DelayedWill>,
    /// Progress that the journal does not know yet.
    pub(super) unsaved: bool,
    /// It is in the queue of those that may go on.
    pub(super) is_runnable: bool,
    /// It is in the queue of those that wait for somebody else's read of the journal to end.
    pub(super) waits_for_replay: bool,
    /// What is to be sent page by page.
    pub(super) pages: std::collections::VecDeque<Pages>,
    /// Messages not queued because the session's bound was reached.
    pub(super) refused: u64,
}

/// A will and when it is due.
pub(super) struct DelayedWill {
    pub(super) message: Arc<Message>,
    pub(super) due: Instant,
}

/// Retained messages for a new subscription, not all sent yet.
pub(super) struct Pages {
    pub(super) filter: Arc<str>,
    pub(super) options: Options,
    pub(super) source: PageSource,
}

/// Where they come from and where to go on.
pub(super) enum PageSource {
    /// The broker's retained messages, behind this topic.
    Retained { after: Option<Box<str>> },
    /// A view of the hub, by its number; `asked` while it renders.
    View { view: usize, after: Option<u64>, asked: bool },
}

impl Session {
    pub(super) fn new(id: SessionId, client_id: Arc<str>, identity: Arc<str>, expiry_s: u32) -> Session {
        Session {
            id,
            client_id,
            identity,
            expiry_s,
            connection: None,
            subscriptions: BTreeMap::new(),
            subscription_bytes: 0,
            received: BTreeSet::new(),
            out: Outgoing::default(),
            disconnected_at: None,
            will: None,
            unsaved: false,
            is_runnable: false,
            waits_for_replay: false,
            pages: std::collections::VecDeque::new(),
            refused: 0,
        }
    }

    /// Whether it outlives its connection, and so the process.
    pub(super) const fn is_persistent(&self) -> bool {
        self.expiry_s > 0
    }

    /// Whether it has been without a connection for too long.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        let Some(since) = self.disconnected_at else { return false };
        self.expiry_s != NEVER && now.0.saturating_sub(since.0) >= i64::from(self.expiry_s) * 1_000_000
    }
}
