//! Payloads that nobody could decode, kept with where they came from and why.
//!
//! A durable log of its own, bounded: the oldest go first, counted. Entries open with a version byte:
//!
//! ```text
//! version u8 = 1 | arrival i64 µs | topic length u32 | topic | reason length u32 | reason | payload to the end
//! ```

use std::sync::Arc;

use durable_log::{Log, LogError, LogView, Options, Position, Recovery, Storage, WhenDamaged, WhenFull};
use model::Timestamp;
use model::limits::MQTT_PACKET_BYTES_MAX;

use super::QuarantineEntry;

const VERSION: u8 = 1;
/// Room for weeks of a misconfigured node, or minutes of a hostile one.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Topic and reason, each.
const TEXT_BYTES_MAX: usize = 4096;
/// A packet with its texts.
const ENTRY_BYTES_MAX: usize = MQTT_PACKET_BYTES_MAX + 2 * TEXT_BYTES_MAX + 64;

const _: () = assert!(ENTRY_BYTES_MAX as u64 * 8 < BYTES_MAX);

/// The quarantine's writer.
#[derive(Debug)]
pub(super) struct Quarantine {
    log: Log,
    buffer: Vec<u8>,
    unsynced: bool,
}

impl Quarantine {
    pub(super) fn open(storage: Arc<dyn Storage>, epoch: u64) -> Result<(Self, Recovery), LogError> {
        let options = Options {
            bytes_max: BYTES_MAX,
            segment_bytes: BYTES_MAX / 8,
            record_bytes_max: ENTRY_BYTES_MAX,
            when_full: WhenFull::DropOldest,
            when_damaged: WhenDamaged::SetAside,
            ..Options::default()
        };
        let (log, recovery) = Log::open_on(storage, options, epoch)?;
        if recovery.cut.is_some() {
            tracing::warn!(log = "quarantine", %recovery, "recovered");
        }
        Ok((Quarantine { log, buffer: Vec::new(), unsynced: false }, recovery))
    }

    /// Takes an entry; durable after [`Quarantine::sync`]. Returns how many old ones went to make room.
    pub(super) fn push(&mut self, entry: &QuarantineEntry) -> Result<u64, LogError> {
        self.buffer.clear();
        encode(entry, &mut self.buffer);
        self.log.append_group(&[&self.buffer])?;
        self.unsynced = true;
        Ok(self.log.take_dropped().map_or(0, |range| range.end.0 - range.start.0))
    }

    /// Makes all entries durable.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.unsynced {
            self.log.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    pub(super) fn view(&self) -> LogView {
        self.log.view()
    }
}

/// The newest entries, newest first.
pub(super) fn newest(view: &LogView, at_most: usize) -> Vec<QuarantineEntry> {
    let from = view.durable_end().0.saturating_sub(at_most as u64);
    let mut reader = view.reader(Position(from));
    let mut entries = Vec::new();
    while let Ok(Some((_, bytes))) = reader.next() {
        entries.extend(decode(bytes));
    }
    entries.reverse();
    entries
}

fn encode(entry: &QuarantineEntry, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&entry.at.0.to_le_bytes());
    for text in [&entry.topic, &entry.reason] {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = text.as_bytes().get(..end).unwrap_or_default();
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    let payload = entry.payload.get(..entry.payload.len().min(MQTT_PACKET_BYTES_MAX)).unwrap_or_default();
    out.extend_from_slice(payload);
}

fn decode(bytes: &[u8]) -> Option<QuarantineEntry> {
    let rest = bytes.strip_prefix(&[VERSION])?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (topic, rest) = text(rest)?;
    let (reason, payload) = text(rest)?;
    Some(QuarantineEntry { at: Timestamp(i64::from_le_bytes(*at)), topic, reason, payload: payload.to_vec() })
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((std::str::from_utf8(text).ok()?.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_garbage_does_not() {
        let entry = QuarantineEntry {
            at: Timestamp(-5),
            topic: "spBv1.0/g/NDATA/ü".into(),
            reason: "x".repeat(TEXT_BYTES_MAX - 1) + "ß",
            payload: vec![0, 255],
        };
        let mut bytes = Vec::new();
        encode(&entry, &mut bytes);
        let back = decode(&bytes).unwrap();
        assert_eq!(back.reason.len(), TEXT_BYTES_MAX - 1);
        assert_eq!((back.at, &back.topic, &back.payload), (entry.at, &entry.topic, &entry.payload));
        for cut in 0..bytes.len() - 2 {
            assert_eq!(decode(&bytes[..cut]), None);
        }
    }
}
