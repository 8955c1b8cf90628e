//! What the library's codec takes on trust is checked here, between it and the socket: the sizes in chunk headers.
//!
//! ```text
//! M S G F  size (4 bytes, little-endian, header included)  …
//! ```
//!
//! The library would wait for as many bytes as the header says, up to 4 GiB, and keep them; and it would subtract from sizes
//! that are too small. A size out of bounds ends the connection with an error instead.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// A chunk header.
const HEADER: usize = 8;
/// What we announce to the server as the largest chunk that we take.
pub(super) const CHUNK_BYTES_MAX: usize = 65_536;
/// Smaller than any message with its security header, sequence header and signature could be.
const BODY_BYTES_MIN: usize = 24;

/// A reader that follows the chunks that pass through it.
#[derive(Debug)]
pub(super) struct Guarded<R> {
    inner: R,
    frames: Frames,
}

/// Where in the stream of chunks we are.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of it that are there.
    have: usize,
    /// Bytes of the body that are to come.
    left: usize,
}

impl<R> Guarded<R> {
    pub(super) fn new(inner: R) -> Self {
        Guarded { inner, frames: Frames::default() }
    }
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER {
                let [a, b, c, d] = [self.header[4], self.header[5], self.header[6], self.header[7]];
                let size = u32::from_le_bytes([a, b, c, d]) as usize;
                let kind = &self.header[..3];
                let smallest = if matches!(kind, b"MSG" | b"OPN" | b"CLO") {
                    HEADER + BODY_BYTES_MIN
                } else {
                    HEADER + 1
                };
                if !(smallest..=CHUNK_BYTES_MAX).contains(&size) {
                    return Err(format!("a chunk of {size} bytes"));
                }
                (self.have, self.left) = (0, size - HEADER);
            }
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Guarded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, into);
        if let Poll::Ready(Ok(())) = polled {
            let passed = self.frames.pass(&into.filled()[before..]);
            if let Err(problem) = passed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(size: u32, body: usize) -> Vec<u8> {
        let mut bytes = b"MSGF".to_vec();
        bytes.extend(size.to_le_bytes());
        bytes.resize(HEADER + body, 7);
        bytes
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for size in [0, 7, 8, 31, 65_537, u32::MAX] {
            assert!(Frames::default().pass(&chunk(size, 0)).is_err(), "{size}");
        }
        Frames::default().pass(&chunk(65_536, 100)).unwrap();
    }

    proptest! {
        #[test]
        fn chunks_pass_however_they_are_cut(sizes in prop::collection::vec(32_usize..300, 1..20), cut in 1_usize..50) {
            let mut stream = Vec::new();
            for size in &sizes {
                stream.extend(chunk(u32::try_from(*size).unwrap(), size - HEADER));
            }
            stream.extend(chunk(u32::MAX, 0));
            let (last, good) = (stream.split_off(stream.len() - 1), stream);
            let mut frames = Frames::default();
            for piece in good.chunks(cut) {
                prop_assert!(frames.pass(piece).is_ok());
            }
            prop_assert!(frames.pass(&last).is_err());
        }
    }
}
