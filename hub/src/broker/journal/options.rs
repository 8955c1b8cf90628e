//! Sizes of the journal, and how they follow from each other.

use durable_log::{Options, WhenDamaged, WhenFull};

use super::JournalError;

const MIB: u64 = 1024 * 1024;

/// One record: a message of the largest packet with its targets, or 65 535 completed ordinals.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The core stops reading publishers while this much is appended and not durable: 10 ms of a fast disk, and what is
/// gone from memory when a disk stands still.
pub(crate) const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Kept free for what frees room: records that say that something is not needed any more, after the backlog.
const HEADROOM_BYTES: u64 = 64 * MIB;
/// Default bound of the journal on disk.
const BYTES_MAX: u64 = 2048 * MIB;
/// Free space left to others on the disk.
const RESERVE_BYTES: u64 = 64 * MIB;
/// A snapshot comes after this much: replaying it takes below a second.
const SNAPSHOT_BYTES: u64 = 32 * MIB;
/// Segments of a full journal: trimming is by whole ones.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MAX: u64 = 64 * MIB;

const _: () = assert!(model::limits::MQTT_PACKET_BYTES_MAX * 2 < RECORD_BYTES_MAX);
const _: () = assert!(65_535 * 10 + 64 < RECORD_BYTES_MAX);
const _: () = assert!(BACKLOG_BYTES_MAX as u64 + 2 * RECORD_BYTES_MAX as u64 <= HEADROOM_BYTES);
const _: () = assert!(SEGMENT_BYTES_MAX * 4 <= BYTES_MAX);

/// What the owner may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalOptions {
    /// Above this the journal says [`super::JournalEvent::NoRoom`].
    pub(crate) bytes_max: u64,
    /// Beyond `bytes_max`, and below the free space at which `NoRoom` is said: for what was under way.
    pub(crate) headroom_bytes: u64,
    /// Free space of the disk that is never used.
    pub(crate) reserve_bytes: u64,
    /// Size of a log segment; trimming is by whole ones.
    pub(crate) segment_bytes: u64,
    /// Largest record.
    pub(crate) record_bytes_max: usize,
    /// A snapshot is wanted after this much log, or after as much as the last snapshot had if that is more.
    pub(crate) snapshot_bytes: u64,
}

impl JournalOptions {
    /// Sizes for a journal of `bytes_max`.
    pub(crate) fn new(bytes_max: u64) -> Self {
        JournalOptions {
            bytes_max,
            headroom_bytes: HEADROOM_BYTES,
            reserve_bytes: RESERVE_BYTES,
            segment_bytes: (bytes_max / SEGMENTS).min(SEGMENT_BYTES_MAX),
            record_bytes_max: RECORD_BYTES_MAX,
            snapshot_bytes: SNAPSHOT_BYTES.min(bytes_max / 4),
        }
    }

    /// For the log below.
    pub(super) fn log_options(&self) -> Result<Options, JournalError> {
        let bytes_max = self.bytes_max.saturating_add(self.headroom_bytes);
        if self.record_bytes_max as u64 + FRAME_BYTES > bytes_max / 4 || self.snapshot_bytes > self.bytes_max
        {
            let wanted = 4 * (self.record_bytes_max as u64 + FRAME_BYTES);
            return Err(JournalError::Options {
                bytes_max: self.bytes_max,
                bytes_min: wanted.saturating_sub(self.headroom_bytes).max(self.snapshot_bytes),
            });
        }
        Ok(Options {
            segment_bytes: self.segment_bytes,
            bytes_max,
            reserve_bytes: self.reserve_bytes,
            record_bytes_max: self.record_bytes_max,
            when_full: WhenFull::StopAccepting,
            when_damaged: WhenDamaged::SetAside,
        })
    }
}

/// More than the head of a frame.
const FRAME_BYTES: u64 = 64;

impl Default for JournalOptions {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}
