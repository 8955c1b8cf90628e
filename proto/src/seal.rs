//! The seal: a checksum over what a message says and where it says it, as the message's last field.
//!
//! TCP's checksum has 16 bits, and machines between two tiers may change bytes behind it. A changed value, alias, path or
//! offset decodes as well as the right one, so it would be stored, or make an agent forget what nobody has. A receiver
//! that finds a broken seal does as if the message had never come; it comes again by the rules for lost messages.
//!
//! ```text
//! message = fields · key of field 1183 as fixed64 (f9 49) · XXH3-64, seed 0, little endian, of: place · 00 · fields
//! ```
//! The place is the MQTT topic of a payload, and [`FEED`] for a page of the feed. Readers that do not know the field skip it.

use xxhash_rust::xxh3::Xxh3Default;

/// Number of the field, in `Payload` and in `FeedPage`.
pub const FIELD: u32 = 1183;

/// The place of a page of the hub's feed.
pub const FEED: &str = "forebay/feed";

/// The place of a request for one, whose query is sealed by [`checksum`] as its last parameter `seal`.
pub const FEED_REQUEST: &str = "forebay/feed/request";

/// Key of the field: number 1183, wire type 1 (64 bits).
const KEY: [u8; 2] = [0xf9, 0x49];

const _: () = assert!((FIELD << 3 | 1) == (KEY[0] & 0x7f) as u32 | (KEY[1] as u32) << 7);

/// What a message's seal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Nothing was changed on the way.
    Whole,
    /// There is none: the writer does not know seals.
    Absent,
    /// Something was changed: nothing of it can be believed.
    Broken,
}

/// The checksum of bytes at a place.
#[must_use]
pub fn checksum(place: &str, bytes: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(place.as_bytes());
    hash.update(&[0]);
    hash.update(bytes);
    hash.digest()
}

/// Seals a message, which must be complete.
pub fn put(place: &str, message: &mut Vec<u8>) {
    let sum = checksum(place, message);
    message.extend_from_slice(&KEY);
    message.extend_from_slice(&sum.to_le_bytes());
}

/// Reads a message's seal.
#[must_use]
pub fn check(place: &str, message: &[u8]) -> Seal {
    let Some((fields, sum)) = message.split_last_chunk::<8>() else { return Seal::Absent };
    let Some(fields) = fields.strip_suffix(&KEY) else { return Seal::Absent };
    match checksum(place, fields) == u64::from_le_bytes(*sum) {
        true => Seal::Whole,
        false => Seal::Broken,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::generated::sparkplug::Payload;
    use crate::sparkplug::PayloadView;

    const TOPIC: &str = "spBv1.0/plant/DDATA/line-3/press";

    fn sealed() -> Vec<u8> {
        let mut bytes = Payload { timestamp: Some(5), seq: Some(7), ..Payload::default() }.encode_to_vec();
        put(TOPIC, &mut bytes);
        bytes
    }

    #[test]
    fn no_changed_byte_and_no_other_place_is_whole() {
        let whole = sealed();
        assert_eq!(check(TOPIC, &whole), Seal::Whole);
        assert_eq!(check("spBv1.0/plant/DDATA/line-3/presr", &whole), Seal::Broken);
        for at in 0..whole.len() {
            for mask in 1..=255 {
                let mut changed = whole.clone();
                changed[at] ^= mask;
                assert_ne!(check(TOPIC, &changed), Seal::Whole, "byte {at} ^ {mask}");
            }
        }
        assert_eq!(check(TOPIC, &whole[..whole.len() - 1]), Seal::Absent);
        assert_eq!(check(TOPIC, b""), Seal::Absent);
    }

    #[test]
    fn readers_of_the_standard_skip_it_and_protobuf_reads_it() {
        let whole = sealed();
        let view = PayloadView::decode(&whole).unwrap();
        assert_eq!((view.timestamp, view.seq), (Some(5), Some(7)));
        let payload = Payload::decode(&whole[..]).unwrap();
        assert_eq!(payload.forebay_seal, Some(checksum(TOPIC, &whole[..whole.len() - 10])));
    }
}
