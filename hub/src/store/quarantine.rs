//! Payloads that nobody could decode, kept with where they came from and why.
//!
//! A durable log of its own, bounded: the oldest go first, counted. What became of an entry stands in the book
//! ([`super::letters`]). Entries open with a version byte; version 1 ended after the reason:
//!
//! ```text
//! version u8 = 2 | arrival i64 µs | topic length u32 | topic | reason length u32 | reason
//!   | settles u8 { agent u32 | epoch u64 | offset u64 } | left out: count u32 { index u32 } | payload to the end
//! ```
//! `settles` is 1 where a record of an agent counts as settled because its payload is here. `left out` names the metrics
//! that were not taken where the others were; none: nothing of the payload was taken.

use std::sync::Arc;

use durable_log::{Log, LogError, LogView, Options, Recovery, Storage, WhenDamaged, WhenFull};
use model::limits::{MQTT_PACKET_BYTES_MAX, PAYLOAD_METRICS_MAX};
use model::{Epoch, Offset, RecordId, Timestamp};
use proto::log_record::AgentId;

use super::QuarantineEntry;

const VERSION: u8 = 2;
/// Room for weeks of a misconfigured node, or minutes of a hostile one.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Topic and reason, each.
const TEXT_BYTES_MAX: usize = 4096;
/// A packet with its texts.
const ENTRY_BYTES_MAX: usize = MQTT_PACKET_BYTES_MAX + 2 * TEXT_BYTES_MAX + 4 * PAYLOAD_METRICS_MAX + 64;

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

fn encode(entry: &QuarantineEntry, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&entry.at.0.to_le_bytes());
    put_text(&entry.topic, out);
    put_text(&entry.reason, out);
    out.push(u8::from(entry.settles.is_some()));
    if let Some((agent, id)) = entry.settles {
        out.extend_from_slice(&agent.0.to_le_bytes());
        out.extend_from_slice(&id.epoch.0.to_le_bytes());
        out.extend_from_slice(&id.offset.0.to_le_bytes());
    }
    let left_out = entry.left_out.get(..entry.left_out.len().min(PAYLOAD_METRICS_MAX)).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(left_out.len()).unwrap_or(0).to_le_bytes());
    left_out.iter().for_each(|index| out.extend_from_slice(&index.to_le_bytes()));
    let payload = entry.payload.get(..entry.payload.len().min(MQTT_PACKET_BYTES_MAX)).unwrap_or_default();
    out.extend_from_slice(payload);
}

/// An entry's text, cut to what an entry may hold.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads one entry.
pub(super) fn decode(bytes: &[u8]) -> Option<QuarantineEntry> {
    let (version, rest) = bytes.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (topic, rest) = text(rest)?;
    let (reason, mut rest) = text(rest)?;
    let (mut settles, mut left_out) = (None, Vec::new());
    match *version {
        // Of a payload that was taken in part, version 1 does not say which part.
        1 => {}
        VERSION => {
            let (flag, after) = rest.split_first()?;
            rest = after;
            if *flag != 0 {
                let (agent, after) = rest.split_first_chunk::<4>()?;
                let (epoch, after) = after.split_first_chunk::<8>()?;
                let (offset, after) = after.split_first_chunk::<8>()?;
                let epoch = Epoch::from_random(u64::from_le_bytes(*epoch))?;
                let id = RecordId { epoch, offset: Offset(u64::from_le_bytes(*offset)) };
                (settles, rest) = (Some((AgentId(u32::from_le_bytes(*agent)), id)), after);
            }
            let (count, after) = rest.split_first_chunk::<4>()?;
            let length = (u32::from_le_bytes(*count) as usize).checked_mul(4)?;
            let (indices, after) = after.split_at_checked(length)?;
            left_out = indices.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            rest = after;
        }
        _ => return None,
    }
    let at = Timestamp(i64::from_le_bytes(*at));
    Some(QuarantineEntry { at, topic, reason, settles, left_out, payload: rest.to_vec() })
}

/// A text as [`put_text`] wrote it, and what follows.
pub(super) fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
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
            settles: Some((AgentId(3), RecordId { epoch: Epoch(7), offset: Offset(9) })),
            left_out: vec![1, 4],
            payload: vec![0, 255],
        };
        let mut bytes = Vec::new();
        encode(&entry, &mut bytes);
        let back = decode(&bytes).unwrap();
        assert_eq!(back.reason.len(), TEXT_BYTES_MAX - 1);
        assert_eq!(back, QuarantineEntry { reason: back.reason.clone(), ..entry });
        for cut in 0..bytes.len() - 2 {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        let mut first = vec![1];
        first.extend_from_slice(&5i64.to_le_bytes());
        put_text("t", &mut first);
        put_text("r", &mut first);
        first.push(9);
        let old = decode(&first).unwrap();
        assert_eq!((old.at, old.payload, old.settles), (Timestamp(5), vec![9], None));
    }
}
