//! Bounds of the broker that do not depend on the plant, as sums of their parts. Those that do are
//! `[hub.broker.limits]` ([`crate::config::Limits`]).

/// Levels of a topic or filter: ISA-95 has five, Sparkplug five, a path within a PLC some more. Bounds recursion.
pub(super) const LEVELS_MAX: usize = 128;

/// A topic name or filter: the longest path, percent-encoded, below enterprise and site.
pub(super) const TOPIC_BYTES_MAX: usize = 8 * 1024;

/// A client id: long enough for every scheme that people use, short enough to be shown.
pub(super) const CLIENT_ID_BYTES_MAX: usize = 1024;

/// A packet from a client that is no PUBLISH: a SUBSCRIBE with a thousand long filters, or user properties of that
/// length.
pub(super) const CONTROL_BYTES_MAX: usize = 1024 * 1024;

/// Topic aliases that a client may set, and that we set towards one.
pub(super) const ALIASES_MAX: u16 = 32;

/// Bytes waiting for one socket. A burst of births fits; a client that does not read costs no more.
pub(super) const OUT_BYTES_MAX: usize = 256 * 1024;

/// ... once all sockets together hold [`OUT_BYTES_ALL`].
pub(super) const OUT_BYTES_MIN: usize = 48 * 1024;

/// Bytes waiting for all sockets, before each gets less.
pub(super) const OUT_BYTES_ALL: usize = 16 * 1024 * 1024;

/// Bytes of packets that came in part, of all clients: some of the longest at a time.
pub(super) const IN_BYTES_ALL: usize = 64 * 1024 * 1024;

/// Below this a socket is given more: a page of retained messages as long again, messages from the journal.
pub(super) const OUT_BYTES_LOW: usize = 16 * 1024;

/// Messages asked of the journal at a time for one session, and their bytes.
pub(super) const REPLAY_MESSAGES: usize = 256;
/// See [`REPLAY_MESSAGES`].
pub(super) const REPLAY_BYTES: usize = 128 * 1024;

/// Reads of the journal under way: bounds the memory of sessions that catch up together.
pub(super) const REPLAYS_MAX: usize = 64;

/// Bytes appended to the journal and not on disk; above, clients whose messages need it are not read.
pub(super) const JOURNAL_BEHIND_BYTES: usize = 16 * 1024 * 1024;

/// Messages and answers that wait for the disk: each costs some hundred bytes beside what is written.
pub(super) const DUE_MAX: usize = 65_536;

/// Bytes of all filters of all sessions, and of the tree that they make.
pub(super) const SUBSCRIPTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// ... of one session, if it shared nothing with others: a thousand filters as deep as ISA-95 and Sparkplug together.
pub(super) const SUBSCRIPTION_BYTES_PER_CLIENT: usize = 8 * 1024 * 1024;

/// What a filter costs beside its text, about.
pub(super) const SUBSCRIPTION_OVERHEAD: usize = 160;

/// Connections that are closing: their last words may still be on the way.
pub(super) const LINGERING_MAX: usize = 1_000;

/// Streams of the topic browser at once.
pub(super) const TAPS_MAX: usize = 64;

const _: () = assert!(2 * OUT_BYTES_LOW < OUT_BYTES_MIN && OUT_BYTES_MIN < OUT_BYTES_MAX);
const _: () = assert!(OUT_BYTES_MAX < OUT_BYTES_ALL);
