//! Variable-length integers as protobuf has them: seven bits per byte, lowest first, at most ten bytes.
//!
//! A value of more than 64 bits is refused; longer forms than necessary are read, as protobuf does.

/// Appends a value.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "seven bits are kept")]
pub(crate) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put`] appends.
#[inline]
pub(crate) const fn len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Small numbers of either sign as small unsigned ones: 0, -1, 1, -2 ... are 0, 1, 2, 3 ...
#[inline]
#[expect(clippy::cast_sign_loss, reason = "the bits are kept")]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
#[inline]
#[expect(clippy::cast_possible_wrap, reason = "the bits are kept")]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads a value from the start of `bytes`: the value and how many bytes it had.
///
/// A branch per byte, as they repeat from metric to metric and are predicted (*measured*: finding the end with bit
/// tricks first makes each number wait for the one before).
#[inline]
pub(crate) fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes.first_chunk::<10>() {
        Some(ten) => get_from(ten),
        None => get_from(bytes),
    }
}

#[inline(always)]
fn get_from(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (index < 9 || byte < 2).then_some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_survives_and_65_bits_do_not() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(value, &mut bytes);
                let length = bytes.len();
                assert_eq!((get(&bytes), len(value)), (Some((value, length)), length));
                for follows in [0, 0x7f, 0x80, 0xff] {
                    bytes.truncate(length);
                    bytes.extend_from_slice(&[follows; 10]);
                    assert_eq!(get(&bytes), Some((value, length)));
                }
                bytes.truncate(length - 1);
                assert_eq!(get(&bytes), None);
            }
        }
        assert_eq!(get(&[0x80, 0x00]), Some((0, 2)), "longer than necessary");
        let mut over = [0xff; 10];
        over[9] = 2;
        assert_eq!(get(&over), None);
        over[9] = 1;
        assert_eq!(get(&over), Some((u64::MAX, 10)));
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
