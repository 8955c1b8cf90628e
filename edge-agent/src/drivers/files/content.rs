//! Which content a file holds, and how much of it is accepted, whatever the file is called.
//!
//! A content is known by prints of its accepted bytes `[0, offset)`: the hash of the last up to [`WINDOW`] bytes before
//! `offset` and, for each power of two from [`WINDOW`] up to it, of the [`WINDOW`] bytes before that place. So:
//!
//! - a file of at least `offset` bytes with the same prints is that content, renamed, copied or grown: reading goes on
//!   at `offset`, and a copy accepts only what is missing;
//! - a shorter file that agrees at the highest such place within it is the beginning of that content: a copy under
//!   way, or an old state put back. Nothing in it is new. The place must lie behind the header, which files share;
//! - anything else is another content, and begins at 0. That is what a file becomes that was cut or written anew.
//!
//! Two different files share their first KiB easily (a long header), but not the bytes before the place reached.
//!
//! Files that are read when they are finished can be exchanged for others of the same length which differ in a few bytes
//! anywhere (a status document). Of their contents the hash of all accepted bytes is kept too, and asked whenever the
//! file is not the one of the last time.

use std::io;

use serde::{Deserialize, Serialize};

use super::place::{Source, read_at};

/// Rows are in a print that ends this far behind the header: a time stamp takes most of it.
const ROW_BYTES: u64 = 64;
/// Bytes of one print.
pub(super) const WINDOW: u64 = 1024;

/// How much of one content is accepted. Names are short because entries are in every stored position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Device and inode of the file that holds it; 0 and 0 if none does.
    #[serde(rename = "i")]
    pub(super) inode: (u64, u64),
    /// The file's name when it was last seen, for people.
    #[serde(rename = "f")]
    pub(super) name: String,
    /// Bytes accepted; always the beginning of a line, unless `skipping`.
    #[serde(rename = "o")]
    pub(super) offset: u64,
    /// Bytes of the header line; 0 until it is known.
    #[serde(rename = "h", default, skip_serializing_if = "is_zero")]
    pub(super) header_bytes: u64,
    /// Lines accepted.
    #[serde(rename = "l")]
    pub(super) lines: u64,
    /// Time of the last row, in µs.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) last_time: Option<i64>,
    /// In the middle of a line that is too long to be one.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) skipping: bool,
    /// Its header was found unusable, which is in the quarantine.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) refused: bool,
    /// Records accepted of a document of which more are left; `offset` is its end already.
    #[serde(rename = "d", default, skip_serializing_if = "is_zero")]
    pub(super) part: u64,
    /// Hash of all accepted bytes, of a file that was finished.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<u64>,
    /// When the finished file that holds it was changed.
    #[serde(rename = "m", default, skip_serializing_if = "is_no_time")]
    pub(super) modified: i64,
    /// Print before `offset`.
    #[serde(rename = "p")]
    pub(super) tail: u64,
    /// Prints before `WINDOW << n`.
    #[serde(rename = "a")]
    pub(super) anchors: Vec<u64>,
}

/// What a file is to a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It holds all that is accepted, and perhaps more.
    Same,
    /// It holds only the beginning.
    Beginning,
    /// It is another.
    Different,
}

/// Under which a content is found again: its highest anchor, as place and print; below [`WINDOW`] bytes all of it. So
/// contents that share a long header are told apart by what they have behind it.
pub(super) type Head = (u64, u64);

impl Content {
    /// Nothing accepted yet.
    pub(super) fn new(inode: (u64, u64), name: &str) -> Content {
        Content {
            inode,
            name: name.to_owned(),
            offset: 0,
            header_bytes: 0,
            lines: 0,
            last_time: None,
            skipping: false,
            refused: false,
            part: 0,
            whole: None,
            modified: 0,
            tail: hash(&[]),
            anchors: Vec::new(),
        }
    }

    /// Under which it is found again; `None` while nothing is accepted.
    pub(super) fn head(&self) -> Option<Head> {
        match self.anchors.last() {
            Some(last) => Some((place(self.anchors.len() - 1)?, *last)),
            None => (self.offset > 0).then_some((self.offset, self.tail)),
        }
    }

    /// Its anchors that have a row in them: of those a file may be the beginning.
    pub(super) fn telling_anchors(&self) -> impl Iterator<Item = Head> {
        let anchors = self.anchors.iter().enumerate().filter_map(|(nth, print)| Some((place(nth)?, *print)));
        anchors.filter(|(place, _)| *place >= self.header_bytes + ROW_BYTES)
    }

    /// Moves to `offset`, which is further, and takes the prints from the file.
    pub(super) fn advance(&mut self, file: &dyn Source, offset: u64) -> io::Result<()> {
        let mut anchors = std::mem::take(&mut self.anchors);
        while let Some(place) = place(anchors.len()).filter(|place| *place <= offset) {
            anchors.push(print(file, place)?);
        }
        self.tail = print(file, offset)?;
        self.anchors = anchors;
        self.offset = offset;
        Ok(())
    }

    /// Compares a file of `size` bytes.
    pub(super) fn likeness(&self, file: &dyn Source, size: u64) -> io::Result<Likeness> {
        if size >= self.offset {
            let same = print(file, self.offset)? == self.tail;
            return Ok(if same { Likeness::Same } else { Likeness::Different });
        }
        let behind_header = self.header_bytes + ROW_BYTES..=size;
        let mut within =
            self.anchors.iter().enumerate().rev().filter_map(|(nth, anchor)| Some((place(nth)?, anchor)));
        Ok(match within.find(|(place, _)| *place <= size) {
            Some((place, anchor)) if behind_header.contains(&place) && print(file, place)? == *anchor => {
                Likeness::Beginning
            }
            _ => Likeness::Different,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_no_time(time: &i64) -> bool {
    *time == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Every head that a content in this file may have: longest first.
pub(super) fn heads(file: &dyn Source, size: u64) -> io::Result<Vec<Head>> {
    let bytes = read_window(file, 0, size.min(WINDOW))?;
    let mut state = SEED;
    let mut heads: Vec<Head> = (1..)
        .zip(&bytes)
        .map(|(length, byte)| {
            state = step(state, *byte);
            (length, state)
        })
        .collect();
    let anchors = (1..).map_while(place).take_while(|place| *place <= size);
    for place in anchors {
        heads.push((place, print(file, place)?));
    }
    heads.reverse();
    Ok(heads)
}

/// The highest anchor of a file.
pub(super) fn highest_anchor(file: &dyn Source, size: u64) -> io::Result<Option<Head>> {
    let highest = (0..).map_while(place).take_while(|place| *place <= size).last();
    highest.map(|place| Ok((place, print(file, place)?))).transpose()
}

/// The place of the nth anchor.
fn place(nth: usize) -> Option<u64> {
    WINDOW.checked_shl(u32::try_from(nth).ok()?).filter(|place| *place >= WINDOW && nth < 50)
}

/// Hash of the up to [`WINDOW`] bytes before `place`.
pub(super) fn print(file: &dyn Source, place: u64) -> io::Result<u64> {
    let start = place.saturating_sub(WINDOW);
    Ok(hash(&read_window(file, start, place - start)?))
}

fn read_window(file: &dyn Source, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let bytes = read_at(file, start, length.min(WINDOW))?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Hash of the first `length` bytes; fails if there are fewer.
pub(super) fn hash_of(file: &dyn Source, length: u64) -> io::Result<u64> {
    let (mut state, mut at) = (SEED, 0);
    while at < length {
        let bytes = read_at(file, at, (length - at).min(256 * 1024))?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state = more(state, &bytes);
        at += bytes.len() as u64;
    }
    Ok(state)
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of 64 bits: the hash of each beginning of the window on the way, and nothing to depend on.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    more(SEED, bytes)
}

/// The hash of what had `state` and of `bytes` behind it.
pub(super) fn more(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| step(state, *byte))
}

const fn step(state: u64, byte: u8) -> u64 {
    (state ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn bytes(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|n| u8::try_from((n * 7 + n / 256 * 13) % 251).unwrap() ^ seed).collect()
    }

    #[test]
    fn a_content_is_found_in_copies_and_not_in_others() {
        for length in [1_u64, 22, 1023, 1024, 1025, 4096, 100_000] {
            let whole = bytes(200_000, 0);
            let mut content = Content { header_bytes: 20, ..Content::new((1, 1), "a") };
            for part in [length / 3, length / 2, length] {
                content.advance(&file(&whole), part.max(1)).unwrap();
            }
            let like = |bytes: &[u8]| content.likeness(&file(bytes), bytes.len() as u64).unwrap();
            let cut = usize::try_from(length).unwrap();
            assert_eq!(like(&whole), Likeness::Same);
            assert_eq!(like(&whole[..cut]), Likeness::Same);
            assert!(heads(&file(&whole), 200_000).unwrap().contains(&content.head().unwrap()));
            let same_header = Content { header_bytes: 150_000, ..content.clone() };
            let shorter = same_header.likeness(&file(&whole[..cut - 1]), length - 1).unwrap();
            assert_eq!(shorter, Likeness::Different, "only the header is known to be the same");
            let expected = if length > 1024 { Likeness::Beginning } else { Likeness::Different };
            assert_eq!(like(&whole[..cut - 1]), expected, "{length}");
            let mut other = whole.clone();
            other[cut - 1] ^= 1;
            assert_eq!(like(&other), Likeness::Different);
            assert_eq!(like(&bytes(200_000, 1)), Likeness::Different);
            assert_eq!(like(&[]), Likeness::Different);
        }
    }

    #[test]
    fn it_survives_being_stored() {
        let mut content = Content::new((1, 2), "ä.csv");
        content.advance(&file(&bytes(5000, 0)), 5000).unwrap();
        let text = serde_json::to_string(&content).unwrap();
        assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content);
        assert!(text.len() < 250, "{text}");
    }
}
