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

use std::time::Duration;

use model::{CommandId, CommandOutcome, CommandState, NodeId, PointDefinition, Timestamp};

/// Shortest time a command may live.
pub const EXPIRY_MIN: Duration = Duration::from_secs(1);

/// Longest time a command may live.
pub const EXPIRY_MAX: Duration = Duration::from_secs(300);

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
    /// The agent that speaks for it.
    pub node: NodeId,
    /// What it is.
    pub definition: PointDefinition,
    /// Whether the agent is online.
    pub online: bool,
    /// Whether the node is not one of ours: it has no expiry and no once-only rule, so nothing is written there.
    pub foreign: bool,
}

/// Where targets are looked up: the catalogue and the host, joined in `lib.rs`.
pub trait Targets: Send + Sync {
    /// The point of that path, if there is one.
    fn target(&self, path: &str) -> Option<Target>;
}
