//! Bytes → lines of text: code page, line feeds, quotes that may hold line feeds, what stands before the first record.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// A quote that is not closed within so many bytes was none.
pub(in super::super) const QUOTED_BYTES_MAX: usize = 64 * 1024;

/// How a file is cut into lines.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lines {
    /// The code page.
    pub(in super::super) encoding: &'static Encoding,
    /// Quote and separator, where a quoted cell may hold line feeds.
    pub(in super::super) quoted: Option<(u8, u8)>,
}

/// What a piece of a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Frame {
    /// A whole line of so many bytes, its end included.
    Whole(usize),
    /// A line whose quote is never closed: the line alone.
    Unclosed(usize),
    /// A part of a line.
    Part,
}

impl Lines {
    /// Cuts off the first line. `at_end` says that nothing comes behind these bytes any more.
    pub(in super::super) fn frame(&self, bytes: &[u8], at_end: bool) -> Frame {
        let Some((quote, separator)) = self.quoted else {
            return match self.line_end(bytes) {
                Some(end) => Frame::Whole(end),
                None if at_end && !bytes.is_empty() => Frame::Whole(bytes.len()),
                None => Frame::Part,
            };
        };
        let (mut is_quoted, mut at_start, mut first_line) = (false, true, None);
        let window = bytes.get(..QUOTED_BYTES_MAX).unwrap_or(bytes);
        for (end, unit) in self.units(window) {
            let is_line_feed = unit == u16::from(b'\n');
            if is_line_feed {
                if !is_quoted {
                    return Frame::Whole(end);
                }
                first_line = first_line.or(Some(end));
            }
            if unit == u16::from(quote) && (at_start || is_quoted) {
                is_quoted = !is_quoted;
                // A doubled quote closes and opens again.
                at_start = !is_quoted;
            } else if !is_quoted {
                at_start = unit == u16::from(separator);
            }
        }
        let is_over = window.len() < bytes.len() || bytes.len() >= QUOTED_BYTES_MAX;
        match first_line {
            Some(end) if is_over || (at_end && is_quoted) => Frame::Unclosed(end),
            _ if is_over => self
                .line_end(bytes)
                .map_or(Frame::Part, |end| if is_quoted { Frame::Unclosed(end) } else { Frame::Whole(end) }),
            _ if at_end && !bytes.is_empty() => Frame::Whole(bytes.len()),
            _ => Frame::Part,
        }
    }

    /// Where the first line feed ends.
    pub(in super::super) fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        if self.unit_bytes() == 1 {
            return bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        }
        self.units(bytes).find(|(_, unit)| *unit == u16::from(b'\n')).map(|(end, _)| end)
    }

    /// Where the last line feed ends; `bytes` begin at a whole character.
    pub(in super::super) fn last_line_end(&self, bytes: &[u8]) -> Option<usize> {
        if self.unit_bytes() == 1 {
            return bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        }
        self.units(bytes).filter(|(_, unit)| *unit == u16::from(b'\n')).last().map(|(end, _)| end)
    }

    /// How many line feeds there are.
    pub(in super::super) fn count(&self, bytes: &[u8]) -> u64 {
        self.units(bytes).filter(|(_, unit)| *unit == u16::from(b'\n')).count() as u64
    }

    /// Bytes of one unit.
    pub(in super::super) fn unit_bytes(&self) -> usize {
        if self.encoding == UTF_16LE || self.encoding == UTF_16BE { 2 } else { 1 }
    }

    fn units<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = (usize, u16)> + 'b {
        let (size, big) = (self.unit_bytes(), self.encoding == UTF_16BE);
        bytes.chunks_exact(size).enumerate().map(move |(nth, unit)| {
            let value = match unit {
                [byte] => u16::from(*byte),
                [a, b] if big => u16::from_be_bytes([*a, *b]),
                [a, b] => u16::from_le_bytes([*a, *b]),
                _ => 0,
            };
            ((nth + 1) * size, value)
        })
    }

    /// The text of bytes, without byte order mark if they are the `first` of the file.
    pub(in super::super) fn text<'b>(&self, bytes: &'b [u8], first: bool) -> Result<Cow<'b, str>, String> {
        let bytes = if first { without_mark(bytes) } else { bytes };
        if self.encoding == UTF_8 {
            return match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Borrowed(text)),
                Err(_) => Err("the line is not UTF-8".into()),
            };
        }
        self.encoding
            .decode_without_bom_handling_and_without_replacement(bytes)
            .ok_or_else(|| format!("the line is not {}", self.encoding.name()))
    }

    /// What the file's first bytes say against the code page.
    pub(in super::super) fn contradiction(&self, bytes: &[u8]) -> Option<String> {
        let (marked, length) = Encoding::for_bom(bytes)?;
        let fits = length > 0 && marked == self.encoding;
        // Code pages of single bytes have no mark: these bytes are two or three odd letters there.
        (!fits).then(|| {
            format!("it is {}: write encoding = \"{}\"", marked.name(), marked.name().to_lowercase())
        })
    }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    Encoding::for_bom(bytes).and_then(|(_, length)| bytes.get(length..)).unwrap_or(bytes)
}

/// A code page by its name in a configuration.
pub(in super::super) fn encoding(text: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label(text.as_bytes())
        .filter(|found| found.is_ascii_compatible() || *found == UTF_16LE || *found == UTF_16BE)
        .ok_or_else(|| {
            "is no code page; write \"utf-8\", \"windows-1252\", \"iso-8859-1\", \"utf-16le\" ...".into()
        })
}

/// A line without its end.
pub(in super::super) fn trimmed(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lines: &Lines, mut bytes: &[u8], at_end: bool) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let (end, mark) = match lines.frame(bytes, at_end) {
                Frame::Whole(end) => (end, ""),
                Frame::Unclosed(end) => (end, "!"),
                Frame::Part => return found,
            };
            found.push(format!("{mark}{}", lines.text(&bytes[..end], false).unwrap()));
            bytes = &bytes[end..];
        }
    }

    #[test]
    fn lines_end_where_no_quote_is_open() {
        let plain = Lines { encoding: UTF_8, quoted: None };
        assert_eq!(cut(&plain, b"a\n\"b\nc\"\nd", false), ["a\n", "\"b\n", "c\"\n"]);
        assert_eq!(cut(&plain, b"a\nd", true), ["a\n", "d"]);
        let quoted = Lines { encoding: UTF_8, quoted: Some((b'"', b',')) };
        let text = b"a,\"b\nc\"\"\n\",d\n5\" pipe,x\n\"y\n\"\n";
        assert_eq!(cut(&quoted, text, false), ["a,\"b\nc\"\"\n\",d\n", "5\" pipe,x\n", "\"y\n\"\n"]);
        assert_eq!(cut(&quoted, b"a,\"b\nc,d\n", false), [""; 0]);
        assert_eq!(cut(&quoted, b"a,\"b\nc,d\n", true), ["!a,\"b\n", "c,d\n"]);
        let long = [b"a,\"b\n".as_slice(), &b"c,d\n".repeat(QUOTED_BYTES_MAX / 4)].concat();
        assert_eq!(cut(&quoted, &long, false).len(), QUOTED_BYTES_MAX / 4 + 1);
    }

    #[test]
    fn code_pages_have_their_own_line_feeds() {
        let wide: Vec<u8> = "\u{feff}Ä\n\u{10a}b\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let lines = Lines { encoding: encoding("utf-16").unwrap(), quoted: None };
        assert_eq!(cut(&lines, &wide, false), ["\u{feff}Ä\n", "\u{10a}b\n"]);
        assert_eq!(lines.text(&wide[..6], true).unwrap(), "Ä\n");
        assert_eq!((lines.last_line_end(&wide), lines.count(&wide)), (Some(wide.len()), 2));
        let latin = Lines { encoding: encoding("latin1").unwrap(), quoted: None };
        assert_eq!(latin.text(b"\xb0C \x80", true).unwrap(), "°C €");
        let utf8 = Lines { encoding: UTF_8, quoted: None };
        assert!(utf8.contradiction(&wide).unwrap().contains("utf-16le"));
        assert!(utf8.contradiction(b"\xef\xbb\xbfx").is_none() && lines.contradiction(&wide).is_none());
        assert!(encoding("iso-2022-jp").is_err() && encoding("nonsense").is_err());
    }
}
