//! Reads records in order, in large pieces, from the first one asked for to the durable end.

use std::io;
use std::sync::Arc;

use crate::frames::{FrameFault, Frames};
use crate::segment::{Place, Segment, damaged, io as io_error};
use crate::view::{Held, Shared};
use crate::{LogError, Position};

/// A place in the log. It holds one open file and one buffer, no lock, and keeps nothing from being trimmed.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    position: Position,
    open: Option<OpenSegment>,
    spare: Vec<u8>,
}

#[derive(Debug)]
struct OpenSegment {
    segment: Arc<Segment>,
    frames: Frames,
    /// End of what this reader knows to be durable there.
    end: Position,
    worth_noting: u64,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, position: Position) -> Reader {
        Reader { shared, position, open: None, spare: Vec::new() }
    }

    /// The position of the record that [`Reader::next`] gives next.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes to a position; one below the first held is answered with [`LogError::Trimmed`] at the next call.
    pub fn seek(&mut self, to: Position) {
        if to != self.position {
            self.position = to;
            self.close();
        }
    }

    /// The next record, `None` at the durable end (call again when that has moved).
    ///
    /// An empty record is a hole: what stood at this position was damaged, and a repair gave it up. (No caller of
    /// ours writes empty records.)
    ///
    /// [`LogError::Trimmed`] is told once: the next call goes on at the first position held. After any other error
    /// the reader stays where it is.
    #[expect(clippy::should_implement_trait, reason = "hands out borrowed bytes, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<(Position, &[u8])>, LogError> {
        match self.advance() {
            Ok(None) => Ok(None),
            Ok(Some((position, payload))) => {
                let bytes = self.open.as_ref().map_or(&[][..], |open| open.frames.payload(payload));
                Ok(Some((position, bytes)))
            }
            Err(error) => {
                if let (LogError::Damaged { .. }, Some(open)) = (&error, &self.open) {
                    self.shared.note_damage(open.segment.header.first);
                }
                self.close();
                Err(error)
            }
        }
    }

    fn advance(&mut self) -> Result<Option<(Position, std::ops::Range<usize>)>, LogError> {
        loop {
            let Some(open) = &mut self.open else {
                if self.open_segment()? {
                    continue;
                }
                return Ok(None);
            };
            if self.position < open.end {
                let payload = step(&self.shared, open, self.position)?;
                let position = self.position;
                self.position = position.next();
                return Ok(Some((position, payload)));
            }
            match look_again(&self.shared, open) {
                Look::Grown => {}
                Look::AtEnd => return Ok(None),
                Look::Sealed { bytes } if open.frames.offset() == bytes => self.close(),
                Look::Sealed { .. } => {
                    let what = format!(
                        "it holds records from position {} on, where the next segment begins",
                        open.end
                    );
                    return Err(damaged(
                        &*self.shared.storage,
                        &open.segment.name,
                        open.frames.offset(),
                        what,
                    ));
                }
                Look::Gone => self.close(),
            }
        }
    }

    /// Opens the segment that holds the position; false if that is not durable yet.
    fn open_segment(&mut self) -> Result<bool, LogError> {
        loop {
            let Some(held) = self.find()? else { return Ok(false) };
            let segment = held.segment;
            let file = match self.shared.storage.open(&segment.name, false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_trimmed()? => continue,
                Err(error) => return Err(io_error(&*self.shared.storage, "opening", &segment.name, error)),
            };
            let near = segment.nearest(self.position);
            let buffer = std::mem::take(&mut self.spare);
            let frames = Frames::new(file, &segment, near, held.bytes, buffer);
            let mut open = OpenSegment { segment, frames, end: held.end, worth_noting: 0 };
            let mut at = near.position;
            while at < self.position {
                step(&self.shared, &mut open, at).inspect_err(|error| {
                    if matches!(error, LogError::Damaged { .. }) {
                        self.shared.note_damage(open.segment.header.first);
                    }
                })?;
                at = at.next();
            }
            self.open = Some(open);
            return Ok(true);
        }
    }

    /// Whether the position was trimmed since we looked, maybe by another process.
    fn is_trimmed(&self) -> Result<bool, LogError> {
        self.shared.reload()?;
        Ok(self.shared.first() > self.position)
    }

    fn find(&mut self) -> Result<Option<Held>, LogError> {
        let held = self.shared.held();
        let first = held.first().map_or(Position::ZERO, |held| held.segment.header.first);
        if self.position < first {
            let from = std::mem::replace(&mut self.position, first);
            return Err(LogError::Trimmed { from, first });
        }
        let after = held.partition_point(|held| held.segment.header.first <= self.position);
        let found = after.checked_sub(1).and_then(|i| held.get(i));
        Ok(found.filter(|held| self.position < held.end).cloned())
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.spare = open.frames.into_buffer();
        }
    }
}

enum Look {
    Grown,
    AtEnd,
    Sealed { bytes: u64 },
    Gone,
}

/// All known records of the open segment were read: what does the log say now?
fn look_again(shared: &Shared, open: &mut OpenSegment) -> Look {
    let all = shared.held();
    let first = open.segment.header.first;
    let Ok(i) = all.binary_search_by_key(&first, |held| held.segment.header.first) else { return Look::Gone };
    let Some(held) = all.get(i) else { return Look::Gone };
    if held.end > open.end {
        open.frames.extend(held.bytes);
        open.end = held.end;
        Look::Grown
    } else if i + 1 == all.len() {
        Look::AtEnd
    } else {
        Look::Sealed { bytes: held.bytes }
    }
}

/// Reads the record `position`, which must be the next one of the open segment.
fn step(
    shared: &Shared,
    open: &mut OpenSegment,
    position: Position,
) -> Result<std::ops::Range<usize>, LogError> {
    let storage = &*shared.storage;
    let name = &open.segment.name;
    match open.frames.next() {
        Ok(Some(frame)) => {
            if frame.at >= open.worth_noting {
                open.worth_noting = open.segment.note(Place { position, byte: frame.at });
            }
            Ok(frame.payload)
        }
        Ok(None) => {
            let what = format!("it ends before position {position} and should reach {}", open.end);
            Err(damaged(storage, name, open.frames.offset(), what))
        }
        Err(FrameFault::Bad(what)) => {
            Err(damaged(storage, name, open.frames.offset(), format!("{what} (position {position})")))
        }
        Err(FrameFault::Read(source)) => Err(io_error(storage, "reading", name, source)),
    }
}
