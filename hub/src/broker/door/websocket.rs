//! MQTT in WebSocket frames (MQTT 5.0 §6, RFC 6455 §5), the server's side, over a non-blocking stream.
//!
//! A reader and a writer of frames, not of messages: MQTT is a stream, and packets and frames have nothing to do with each
//! other `[MQTT-6.0.0-2]`. So payload is handed on as it arrives, in place in the reader's own buffer, and no frame
//! is ever collected: a frame that claims to have 2⁶² bytes costs what a small one costs, 200 bytes of state. That is why
//! no library is used here; those there are collect whole messages first.
//!
//! Data frames must be binary `[MQTT-6.0.0-1]`, the client's must be masked; a ping is answered, unless the answer to the
//! one before still waits (RFC 6455 §5.5.3 allows that).

use std::io::{self, ErrorKind, IoSlice};

use super::transport::Stream;

/// Bytes that wait for the stream at most, beside what TLS keeps below.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;
/// The largest frame written, so that what is left of one always fits the bound.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// Payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Close codes (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;

/// A WebSocket connection after its upgrade.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// Raw bytes that came behind the upgrade's head.
    unread: Vec<u8>,
    input: Input,
    /// Bytes of frames that the stream did not take yet.
    output: Vec<u8>,
    /// Our close frame is written or waits.
    closed: bool,
}

/// Where in the client's frames we are.
#[derive(Debug)]
struct Input {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// Of the frame whose payload comes.
    frame: Option<Frame>,
    /// A message of several frames is under way.
    fragmented: bool,
    control: [u8; CONTROL_BYTES_MAX],
    control_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    mask: [u8; 4],
    left: u64,
}

/// What a stretch of raw bytes contained besides payload.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A ping or pong is complete in `control`.
    Control(u8),
    /// The client closes.
    Close,
}

/// A frame that must not be: the close code that says so.
#[derive(Debug, PartialEq, Eq)]
struct Fault(u16);

impl WebSocket {
    /// Goes on behind the upgrade; `unread` came with it.
    pub(super) fn new(unread: Vec<u8>) -> Self {
        WebSocket { unread, input: Input::new(), output: Vec::new(), closed: false }
    }

    /// Payload of data frames; `Ok(0)` when the client closed.
    pub(super) fn read(&mut self, stream: &mut Stream, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.closed {
            return Ok(0);
        }
        loop {
            let raw = if self.unread.is_empty() {
                match stream.read(into)? {
                    0 => return Ok(0),
                    read => read,
                }
            } else {
                let count = self.unread.len().min(into.len());
                into[..count].copy_from_slice(&self.unread[..count]);
                self.unread.drain(..count);
                if self.unread.is_empty() {
                    self.unread = Vec::new(); // gives its memory back
                }
                count
            };
            match self.take_apart(stream, into, raw)? {
                (0, false) => {}
                (payload, _) => return Ok(payload),
            }
        }
    }

    /// Moves the payload among `raw` bytes to the front, answers what wants an answer; payload bytes, and whether the
    /// client closed.
    fn take_apart(&mut self, stream: &mut Stream, bytes: &mut [u8], raw: usize) -> io::Result<(usize, bool)> {
        let (mut payload, mut at) = (0, 0);
        while at < raw {
            let event = match self.input.step(bytes, &mut payload, &mut at, raw) {
                Ok(event) => event,
                Err(Fault(code)) => {
                    self.say_close(stream, code);
                    return Err(io::Error::new(ErrorKind::InvalidData, "not a WebSocket frame for MQTT"));
                }
            };
            match event {
                Some(Event::Control(PING)) if self.output.is_empty() => {
                    let answer = self.input.control;
                    let length = self.input.control_bytes;
                    self.put(PONG, &answer[..length]);
                    self.flush_some(stream)?;
                }
                Some(Event::Close) => {
                    self.say_close(stream, NORMAL);
                    return Ok((payload, true));
                }
                Some(Event::Control(_)) | None => {}
            }
        }
        Ok((payload, false))
    }

    /// Frames and buffers what fits the bound; `WouldBlock` when nothing does.
    pub(super) fn write(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !self.output.is_empty() {
            self.flush_some(stream)?;
        }
        let room = BUFFERED_BYTES_MAX.saturating_sub(self.output.len());
        let room = room.saturating_sub(HEADER_BYTES_MAX).min(PAYLOAD_BYTES_MAX);
        let payload = &bytes[..bytes.len().min(room)];
        if payload.is_empty() {
            return if bytes.is_empty() { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        if !self.output.is_empty() {
            self.put(BINARY, payload);
            return Ok(payload.len());
        }
        let (header, length) = header(BINARY, payload.len());
        let parts = [IoSlice::new(&header[..length]), IoSlice::new(payload)];
        let taken = match stream.write_vectored(&parts) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            taken => taken?,
        };
        // The rest of the frame waits; a stream that takes nothing at all is told before anything is kept.
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.output.extend_from_slice(header[..length].get(taken..).unwrap_or_default());
        self.output.extend_from_slice(&payload[taken.saturating_sub(length).min(payload.len())..]);
        Ok(payload.len())
    }

    fn put(&mut self, opcode: u8, payload: &[u8]) {
        let (header, length) = header(opcode, payload.len());
        self.output.extend_from_slice(&header[..length]);
        self.output.extend_from_slice(payload);
    }

    fn flush_some(&mut self, stream: &mut Stream) -> io::Result<()> {
        match self.flush(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    /// Writes everything that waits; `WouldBlock` if it is not taken.
    pub(super) fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut written = 0;
        let mut outcome = Ok(());
        while written < self.output.len() {
            match stream.write_vectored(&[IoSlice::new(&self.output[written..])]) {
                Ok(0) => outcome = Err(ErrorKind::WriteZero.into()),
                Ok(taken) => written += taken,
                Err(error) => outcome = Err(error),
            }
            if outcome.is_err() {
                break;
            }
        }
        self.output.drain(..written);
        outcome?;
        self.output = Vec::new(); // an idle client costs nothing
        stream.flush()
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    fn say_close(&mut self, stream: &mut Stream, code: u16) {
        if !self.closed {
            self.closed = true;
            self.put(CLOSE, &code.to_be_bytes());
            _ = self.flush(stream);
        }
    }

    /// Says farewell as far as it can be said at once.
    pub(super) fn close(&mut self, stream: &mut Stream) {
        self.say_close(stream, NORMAL);
    }
}

impl Input {
    const fn new() -> Self {
        Input {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            fragmented: false,
            control: [0; CONTROL_BYTES_MAX],
            control_bytes: 0,
        }
    }

    /// Takes the next header or payload from `bytes[*at..raw]`; payload of data frames goes to `bytes[*payload..]`,
    /// which is never ahead of what was taken.
    fn step(
        &mut self,
        bytes: &mut [u8],
        payload: &mut usize,
        at: &mut usize,
        raw: usize,
    ) -> Result<Option<Event>, Fault> {
        let Some(frame) = &mut self.frame else {
            let wanted = self.header_wanted();
            let count = (wanted - self.header_bytes).min(raw - *at);
            self.header[self.header_bytes..][..count].copy_from_slice(&bytes[*at..][..count]);
            self.header_bytes += count;
            *at += count;
            if self.header_bytes < wanted || self.header_bytes < self.header_wanted() {
                return Ok(None);
            }
            return self.begin();
        };
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let count = left.min(raw - *at);
        if frame.opcode < CLOSE {
            bytes.copy_within(*at..*at + count, *payload);
            unmask(&mut bytes[*payload..][..count], frame.mask);
            *payload += count;
        } else {
            let into = &mut self.control[self.control_bytes..][..count];
            into.copy_from_slice(&bytes[*at..][..count]);
            unmask(into, frame.mask);
            self.control_bytes += count;
        }
        frame.mask.rotate_left(count % 4);
        frame.left -= count as u64;
        *at += count;
        Ok(if frame.left == 0 { self.end() } else { None })
    }

    /// Bytes that the header has, as far as can be told.
    fn header_wanted(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        match self.header[1] & 0x7F {
            126 => 8,
            127 => 14,
            _ => 6,
        }
    }

    /// A whole header is there (RFC 6455 §5.2).
    fn begin(&mut self) -> Result<Option<Event>, Fault> {
        let header = self.header;
        self.header_bytes = 0;
        let (is_final, opcode) = (header[0] & 0x80 != 0, header[0] & 0x0F);
        if header[0] & 0x70 != 0 || header[1] & 0x80 == 0 {
            return Err(Fault(PROTOCOL_ERROR)); // extensions were not agreed upon; a client masks (§5.1)
        }
        let (left, mask) = match header[1] & 0x7F {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), &header[4..8]),
            127 => {
                let [_, _, length @ .., _, _, _, _] = header;
                (u64::from_be_bytes(length), &header[10..14])
            }
            short => (u64::from(short), &header[2..6]),
        };
        match opcode {
            CONTINUATION if self.fragmented => self.fragmented = !is_final,
            BINARY if !self.fragmented => self.fragmented = !is_final,
            CLOSE | PING | PONG if is_final && left <= CONTROL_BYTES_MAX as u64 => self.control_bytes = 0,
            1 => return Err(Fault(UNSUPPORTED_DATA)),
            _ => return Err(Fault(PROTOCOL_ERROR)),
        }
        if left >> 63 != 0 {
            return Err(Fault(PROTOCOL_ERROR));
        }
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        self.frame = Some(Frame { opcode, mask, left });
        Ok(if left == 0 { self.end() } else { None })
    }

    /// A frame is complete.
    fn end(&mut self) -> Option<Event> {
        match self.frame.take()?.opcode {
            CLOSE => Some(Event::Close),
            control @ (PING | PONG) => Some(Event::Control(control)),
            _ => None,
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Header of a frame of the server, which is not masked; its bytes and how many.
fn header(opcode: u8, payload: usize) -> ([u8; 10], usize) {
    let mut header = [0x80 | opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let length = (payload as u64).to_be_bytes();
    match payload {
        0..=125 => {
            header[1] = length[7];
            (header, 2)
        }
        126..=0xFFFF => {
            header[1] = 126;
            header[2..4].copy_from_slice(&length[6..]);
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&length);
            (header, 10)
        }
    }
}

#[cfg(test)]
mod tests;
