//! Every maximum, derived from its parts; relations are checked when this compiles (habit 15).

/// A path, metric name, device id or unit: room for deep ISA-95 trees, small enough for an MQTT topic.
pub const PATH_BYTES_MAX: usize = 1024;

/// A string or byte value: four times the 64 KiB that the spine promises.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

/// Samples in one record: bounds what one lost payload holds.
pub const RECORD_SAMPLES_MAX: usize = 4096;

/// Encoded bytes of one record: one value of any size, or many small ones.
pub const RECORD_BYTES_MAX: usize = 512 * 1024;

/// One MQTT packet: a record with its aliases, times and the extension, or a birth of 5 000 points.
pub const MQTT_PACKET_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Metrics in one birth or data payload from the network.
pub const PAYLOAD_METRICS_MAX: usize = 100_000;

/// Nesting of property sets and templates in a payload.
pub const PAYLOAD_DEPTH_MAX: usize = 8;

/// A record spans at most this many days, so that a commit's partitions are bounded (design §4.2).
pub const RECORD_DAYS_MAX: i64 = 16;

/// Days that one table commit may touch (design §10).
pub const COMMIT_DAYS_MAX: usize = 64;

/// Points of one agent.
pub const AGENT_POINTS_MAX: usize = 200_000;

/// Ranges in one receipt; more are sent in the next one.
pub const RECEIPT_RANGES_MAX: usize = 4096;

const _: () = assert!(VALUE_BYTES_MAX + PATH_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX + RECORD_SAMPLES_MAX * 64 < MQTT_PACKET_BYTES_MAX);
const _: () = assert!(COMMIT_DAYS_MAX as i64 >= 2 * RECORD_DAYS_MAX);
