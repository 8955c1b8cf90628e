//! What the owner of a log may choose, and the sizes that follow from it.

/// The default size of a segment: small enough that trimming is prompt, large enough that rolling is rare.
const SEGMENT_BYTES: u64 = 64 * MIB;
/// The default bound of a log on disk.
const BYTES_MAX: u64 = 2048 * MIB;
/// The default free space left to the file system: room for cursors, and for others on the same disk.
const RESERVE_BYTES: u64 = 64 * MIB;
/// The default maximum of one record: twice the largest record that `model::limits` allows.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

const MIB: u64 = 1024 * 1024;

/// A log holds at least this many segments before it is full, so that trimming by whole segments frees something.
const SEGMENTS_MIN: u64 = 4;

const _: () = assert!(SEGMENT_BYTES * SEGMENTS_MIN <= BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX as u64 * 4 <= SEGMENT_BYTES); // a segment must hold several records

/// Sizes and policy of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment is closed when the next group would make it larger; never above a quarter of `bytes_max`.
    pub segment_bytes: u64,
    /// Bound of all segments together.
    pub bytes_max: u64,
    /// Free space left on the disk, so that cursors and trimming work when everything else is full.
    pub reserve_bytes: u64,
    /// Largest single record.
    pub record_bytes_max: usize,
    /// What happens when `bytes_max` or `reserve_bytes` is reached.
    pub when_full: WhenFull,
    /// What opening does with damage.
    pub when_damaged: WhenDamaged,
}

/// What opening does when durable bytes are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDamaged {
    /// Refuse with [`crate::LogError::Damaged`] and change nothing.
    Refuse,
    /// Keep the damaged file in the side folder, make holes of what it lost, go on;
    /// [`crate::Recovery::repaired`] says what happened, for the caller's ledger.
    SetAside,
}

/// What a full log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse new groups with [`crate::LogError::Full`] until something is trimmed.
    StopAccepting,
    /// Remove the oldest segments; [`crate::Log::take_dropped`] says which positions went.
    DropOldest,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: SEGMENT_BYTES,
            bytes_max: BYTES_MAX,
            reserve_bytes: RESERVE_BYTES,
            record_bytes_max: RECORD_BYTES_MAX,
            when_full: WhenFull::StopAccepting,
            when_damaged: WhenDamaged::Refuse,
        }
    }
}

impl Options {
    /// The size at which a segment is closed.
    pub(crate) fn segment_bytes_effective(&self) -> u64 {
        self.segment_bytes.min(self.bytes_max / SEGMENTS_MIN)
    }

    /// The largest group, frames included: more could not be held beside the segment being written.
    pub(crate) fn group_bytes_max(&self) -> u64 {
        self.bytes_max / SEGMENTS_MIN
    }
}
