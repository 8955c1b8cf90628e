//! Reads one file: records by lines, or a document as a whole.

use model::Timestamp;

use super::super::content::{self, Content, Likeness};
use super::super::format::lines::{Frame, trimmed};
use super::super::format::{DOCUMENT_BYTES_MAX, Format};
use super::super::ledger::ContentId;
use super::super::mapping::{FileTimes, Layout};
use super::super::place::local::Local;
use super::super::place::{Place, read_at};
use super::super::quarantine::Entry;
use super::{FileFault, Open, Reader, STEP_BYTES, Step};
use crate::drivers::{READINGS_MAX, Readings};

/// A line longer than this is none.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Of a file's beginning, what is read first.
const HEAD_BYTES: u64 = 4 * 1024;

/// How the records of a file are read.
struct Way {
    layout: Layout,
    times: FileTimes,
}

/// A piece of a file.
struct Piece<'b> {
    bytes: &'b [u8],
    /// Nothing comes behind it any more.
    at_end: bool,
    /// More than its first line would be too much.
    one_line: bool,
}

impl Reader {
    /// Reads a file as far as the step allows; whether its end was reached.
    pub(super) fn read_file(
        &mut self,
        name: &str,
        step: &mut Step,
        into: &mut Readings,
    ) -> Result<bool, FileFault> {
        let is_elsewhere = name.starts_with('/');
        let opened = match is_elsewhere {
            true => Local::new("/".as_ref(), None).file(name),
            false => self.place.file(name),
        };
        let (file, facts) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        self.no_access.remove(name);
        if let (Some(_), false) = (self.finished_age(), self.first_scan || is_elsewhere)
            && self
                .seen
                .get(&facts.identity)
                .and_then(|seen| seen.unchanged)
                .is_some_and(|(state, _)| state != facts.state())
        {
            self.pending.insert(name.to_owned());
            return Ok(true); // it was not finished
        }
        let open = Open { name, file, facts };
        let Some(id) = self.content_of(&open, step)? else {
            self.finish(&open);
            return Ok(true);
        };
        if self.holds_nothing_new(id, &open) {
            let content = self.ledger.get(id).cloned();
            content.iter().for_each(|content| self.end(&open, content, step));
            return Ok(true);
        }
        let times = match self.settings.mapping.file_times(name, facts.modified) {
            Ok(times) => times,
            Err(reason) => {
                self.refuse(id, &open, &reason, b"", step);
                self.finish(&open);
                return Ok(true);
            }
        };
        if self.settings.format.is_document() {
            return self.read_document(id, &open, times, step, into);
        }
        let Some(layout) = self.layout_of(id, &open, step)? else {
            self.finish(&open);
            return Ok(true);
        };
        self.read_lines(id, &open, &Way { layout, times }, step, into)
    }

    /// Whether all of a file is accepted: then nobody needs to know where its columns are.
    fn holds_nothing_new(&self, id: ContentId, open: &Open<'_>) -> bool {
        self.ledger.get(id).is_some_and(|content| {
            content.offset == open.facts.size && content.offset > 0 && content.part == 0 && !content.refused
        })
    }

    fn read_lines(
        &mut self,
        id: ContentId,
        open: &Open<'_>,
        way: &Way,
        step: &mut Step,
        into: &mut Readings,
    ) -> Result<bool, FileFault> {
        let (file, size) = (open.file.as_ref(), open.facts.size);
        let Some(mut content) = self.ledger.get(id).cloned() else { return Ok(true) };
        loop {
            if step.budget == 0 {
                return Ok(false);
            }
            let left = size.saturating_sub(content.offset);
            let unit = self.settings.lines.unit_bytes() as u64;
            let bytes = read_at(file, content.offset, left.min(step.budget.next_multiple_of(unit)))?;
            let marks = (into.list.len(), step.entries.len());
            let at_end = self.is_whole_mode() && left == bytes.len() as u64;
            let piece = Piece { bytes: &bytes, at_end, one_line: false };
            let mut used = self.lines(open.name, way, &mut content, &piece, step, into);
            let mut accepted = bytes;
            if used == 0 && left > accepted.len() as u64 && !self.is_full(into) {
                // A line longer than what is left of the step: that line alone.
                accepted = read_at(file, content.offset, left.min(LINE_BYTES_MAX as u64 + 2))?;
                let at_end = self.is_whole_mode() && left == accepted.len() as u64;
                let piece = Piece { bytes: &accepted, at_end, one_line: true };
                used = self.lines(open.name, way, &mut content, &piece, step, into);
            }
            if used == 0 {
                if self.is_full(into) && !accepted.is_empty() {
                    return Ok(false);
                }
                self.end(open, &content, step);
                return Ok(true);
            }
            // Somebody may have written the file anew while it was read: then these lines are not what came next.
            let offset = content.offset + used as u64;
            let is_same = content.likeness(file, size).map(|likeness| likeness == Likeness::Same);
            let advanced =
                is_same.and_then(|same| if same { content.advance(file, offset) } else { Err(changed()) });
            if let Err(error) = advanced {
                into.list.truncate(marks.0);
                step.entries.truncate(marks.1);
                return Err(error.into());
            }
            if self.is_whole_mode() {
                let before = if offset == used as u64 { Some(content::hash(&[])) } else { content.whole };
                content.whole =
                    before.map(|state| content::more(state, accepted.get(..used).unwrap_or(&accepted)));
                content.modified = open.facts.modified;
            }
            self.ledger.update(id, content.clone());
            step.moved = true;
            step.budget = step.budget.saturating_sub(used as u64);
        }
    }

    /// The end of a file: of a finished one, nothing is left.
    fn end(&mut self, open: &Open<'_>, content: &Content, step: &mut Step) {
        self.finish(open);
        let rest = open.facts.size.saturating_sub(content.offset);
        if self.is_whole_mode() && rest < self.settings.lines.unit_bytes() as u64 && !content.refused {
            step.done.push((open.name.to_owned(), open.facts));
        }
    }

    fn is_full(&self, into: &Readings) -> bool {
        let mapping = &self.settings.mapping;
        let most = if mapping.long.is_some() { 1 } else { mapping.points.len() };
        into.list.len() + most > READINGS_MAX
    }

    /// Reads whole lines from a piece, which begins at the content's offset; how many bytes were used.
    fn lines(
        &self,
        name: &str,
        way: &Way,
        content: &mut Content,
        piece: &Piece<'_>,
        step: &mut Step,
        into: &mut Readings,
    ) -> usize {
        let lines = &self.settings.lines;
        let mut used = 0;
        while let Some(rest) = piece.bytes.get(used..).filter(|rest| !rest.is_empty()) {
            if piece.one_line && used > 0 {
                break;
            }
            let at = content.offset + used as u64;
            let units = rest.len() - rest.len() % lines.unit_bytes();
            if content.skipping {
                let end = lines.line_end(rest);
                content.skipping = end.is_none();
                content.lines += u64::from(end.is_some());
                used += end.unwrap_or(units);
                if units == 0 {
                    break;
                }
                continue;
            }
            let (end, is_closed) = match lines.frame(rest, piece.at_end) {
                Frame::Whole(end) => (end, true),
                Frame::Unclosed(end) => (end, false),
                Frame::Part if rest.len() > LINE_BYTES_MAX => {
                    step.entries.push(too_long(name, content.lines + 1, at, rest));
                    content.skipping = true;
                    used += units;
                    continue;
                }
                Frame::Part => break,
            };
            if self.is_full(into) {
                break;
            }
            let Some(line) = rest.get(..end) else { break };
            self.line(name, way, content, (at, line, is_closed), step, into);
            content.lines += if lines.quoted.is_some() { lines.count(line).max(1) } else { 1 };
            used += end;
        }
        used
    }

    /// Reads one line: its place, its bytes, and whether its quotes are closed.
    fn line(
        &self,
        name: &str,
        way: &Way,
        content: &mut Content,
        (at, line, is_closed): (u64, &[u8], bool),
        step: &mut Step,
        into: &mut Readings,
    ) {
        let number = content.lines + 1;
        if line.len() > LINE_BYTES_MAX + self.settings.lines.unit_bytes() {
            step.entries.push(too_long(name, number, at, line));
            return;
        }
        let text = match self.settings.lines.text(line, at == 0) {
            Ok(text) => text,
            Err(reason) => {
                step.entries.push(Entry::new(name, number, at, reason, line.trim_ascii_end()));
                return;
            }
        };
        let text = trimmed(&text);
        if text.is_empty() || self.settings.is_comment(text) {
            return;
        }
        let last = content.last_time.map(Timestamp);
        let (marks, mut bad) = (into.list.len(), Vec::new());
        let read = match is_closed {
            true => self.settings.format.cells(text),
            false => Err("a quote in it is never closed".into()),
        };
        let read = read.and_then(|cells| {
            self.settings.mapping.readings(&way.layout, &cells, way.times, last, &mut into.list, &mut bad)
        });
        match read {
            Ok(time) => content.last_time = time.map_or(content.last_time, |time| Some(time.0)),
            Err(reason) => {
                into.list.truncate(marks);
                step.entries.push(Entry::new(name, number, at, reason, text.as_bytes()));
            }
        }
        for reason in bad {
            step.entries.push(Entry::new(name, number, at, reason, text.as_bytes()).of_cell());
        }
    }

    /// Where the cells of a file's records are; `None` if what comes before them is not whole yet, or cannot be used.
    fn layout_of(
        &mut self,
        id: ContentId,
        open: &Open<'_>,
        step: &mut Step,
    ) -> Result<Option<Layout>, FileFault> {
        let known = self.seen.get(&open.facts.identity).and_then(|seen| seen.layout.as_ref());
        if let Some((_, layout)) = known.filter(|(known, _)| *known == id) {
            return Ok(Some(layout.clone()));
        }
        let Some(mut content) = self.ledger.get(id).cloned() else { return Ok(None) };
        // Most heads are short, and a file on a server costs what is asked for.
        let mut bytes = read_at(open.file.as_ref(), 0, open.facts.size.min(HEAD_BYTES))?;
        let mut found =
            self.settings.head(&bytes, self.is_whole_mode() && bytes.len() as u64 == open.facts.size);
        if matches!(found, Ok(None)) && open.facts.size > HEAD_BYTES {
            bytes = read_at(open.file.as_ref(), 0, open.facts.size.min(STEP_BYTES))?;
            found = self.settings.head(&bytes, self.is_whole_mode() && bytes.len() as u64 == open.facts.size);
        }
        let head = match found {
            Ok(Some(head)) => head,
            Ok(None) => {
                if bytes.len() as u64 == STEP_BYTES {
                    self.refuse(id, open, "the header is longer than 262144 bytes", &bytes, step);
                } else if self.is_whole_mode() && !bytes.is_empty() {
                    self.refuse(id, open, "it ends before its header does", &bytes, step);
                }
                return Ok(None);
            }
            Err(reason) => {
                self.refuse(id, open, &reason, &bytes, step);
                return Ok(None);
            }
        };
        let layout = match self.settings.format.layout(&self.settings.mapping, head.header.as_deref()) {
            Ok(layout) => layout,
            Err(reason) => {
                let header = head.header.unwrap_or_default();
                self.refuse(id, open, &reason, header.as_bytes(), step);
                return Ok(None);
            }
        };
        if content.header_bytes == 0 && (content.refused || head.bytes > 0) {
            content.refused = false;
            content.header_bytes = head.bytes as u64;
            if content.offset == 0 && head.bytes > 0 {
                content.lines = head.lines;
                content.advance(open.file.as_ref(), head.bytes as u64)?;
                if self.is_whole_mode() {
                    content.whole = bytes.get(..head.bytes).map(content::hash);
                    content.modified = open.facts.modified;
                }
            }
            self.ledger.update(id, content);
            step.moved = true;
        }
        let seen = self.seen.entry(open.facts.identity).or_default();
        (seen.layout, seen.present) = (Some((id, layout.clone())), true);
        Ok(Some(layout))
    }

    /// Reads a document from the record on that the content has reached.
    fn read_document(
        &mut self,
        id: ContentId,
        open: &Open<'_>,
        times: FileTimes,
        step: &mut Step,
        into: &mut Readings,
    ) -> Result<bool, FileFault> {
        let size = open.facts.size;
        let Some(mut content) = self.ledger.get(id).cloned() else { return Ok(true) };
        if size == 0 || (content.offset == size && content.part == 0) {
            self.end(open, &content, step);
            return Ok(true);
        }
        if step.budget == 0 {
            return Ok(false);
        }
        let refused = |reader: &mut Reader, reason: &str, bytes: &[u8], step: &mut Step| {
            reader.refuse(id, open, reason, bytes, step);
            reader.finish(open);
            Ok(true)
        };
        if size > DOCUMENT_BYTES_MAX {
            let reason = format!("it is longer than {DOCUMENT_BYTES_MAX} bytes");
            return refused(self, &reason, b"", step);
        }
        let bytes = read_at(open.file.as_ref(), 0, size)?;
        if bytes.len() as u64 != size {
            return Err(changed().into());
        }
        let settings = self.settings.clone();
        let is_text = !matches!(settings.format, Format::Excel(..));
        let against = settings.lines.contradiction(&bytes).filter(|_| is_text);
        let parsed = against.map_or_else(|| settings.format.document(&settings, &bytes), Err);
        let (document, layout) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                let text = if is_text { bytes.as_slice() } else { b"" };
                return refused(self, &reason, text, step);
            }
        };
        let (marks, mut bad, mut reached) = ((into.list.len(), step.entries.len()), Vec::new(), content.part);
        let mut last = content.last_time.map(Timestamp);
        let read = document.records(content.part, &mut |nth, number, cells| {
            if self.is_full(into) {
                return false;
            }
            let before = into.list.len();
            match settings.mapping.readings(&layout, &cells, times, last, &mut into.list, &mut bad) {
                Ok(time) => last = time.or(last),
                Err(reason) => {
                    into.list.truncate(before);
                    let reason = format!("record {number}: {reason}");
                    step.entries.push(Entry::new(open.name, number, 0, reason, b""));
                }
            }
            for reason in bad.drain(..) {
                let reason = format!("record {number}: {reason}");
                step.entries.push(Entry::new(open.name, number, 0, reason, b"").of_cell());
            }
            reached = nth + 1;
            true
        });
        let is_over = match read {
            Ok(is_over) => is_over,
            Err(reason) => {
                into.list.truncate(marks.0);
                step.entries.truncate(marks.1);
                return refused(self, &reason, b"", step);
            }
        };
        if reached == content.part && !is_over {
            return Ok(false); // the step is full
        }
        content.part = if is_over { 0 } else { reached };
        content.refused = false;
        content.last_time = last.map(|last| last.0);
        content.advance(open.file.as_ref(), size)?;
        content.whole = Some(content::hash(&bytes));
        content.modified = open.facts.modified;
        self.ledger.update(id, content.clone());
        step.moved = true;
        step.budget = step.budget.saturating_sub(size);
        if is_over {
            self.end(open, &content, step);
        }
        Ok(is_over)
    }
}

fn too_long(name: &str, line: u64, at: u64, bytes: &[u8]) -> Entry {
    Entry::new(name, line, at, format!("the line is longer than {LINE_BYTES_MAX} bytes"), bytes)
}

fn changed() -> std::io::Error {
    std::io::Error::other("it was written anew while it was read")
}
