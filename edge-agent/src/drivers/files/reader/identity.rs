//! Which content a file holds: found by its identity, or by the bytes that were accepted.

use std::io;
use std::time::{Duration, Instant};

use super::super::content::{self, Content, Likeness};
use super::super::ledger::ContentId;
use super::super::place::{Facts, Source, read_at};
use super::super::settings::{Settings, Start};
use super::{FileFault, Open, Reader, STEP_BYTES, Step};

/// A copy over a slow network pauses for less; a log that was cut back may go on this much later.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 60_000 });

/// A file that looks like the beginning of a known content.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What was in the file when the waiting began.
    content: Content,
    /// The file as it was last seen, and since when it has been so.
    state: (u64, i64),
    since: Instant,
}

impl Waiting {
    /// Whether the file was quiet for long enough.
    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() >= QUIET
    }
}

enum Waited {
    StillWaiting,
    Known(Content),
    New,
}

/// The content of which a file holds most, and one of which it is the beginning.
type Found = (Option<(ContentId, Content)>, Option<Content>);

impl Reader {
    /// Which content a file holds; `None` while it may be a copy under way.
    pub(super) fn content_of(
        &mut self,
        open: &Open<'_>,
        step: &mut Step,
    ) -> Result<Option<ContentId>, FileFault> {
        let (file, facts, name) = (open.file.as_ref(), open.facts, open.name);
        let inode = facts.identity;
        let known = self.ledger.by_inode(inode).map(|(id, content)| (id, content.clone()));
        let likeness = match &known {
            Some((_, content)) => Some(self.likeness(content, file, facts)?),
            None => None,
        };
        let held = known.clone().filter(|_| likeness == Some(Likeness::Same));
        let in_use = self.seen.get(&inode).and_then(|seen| seen.layout.as_ref()).map(|(id, _)| *id);
        if let Some((id, content)) = &held
            && in_use == Some(*id)
            && content.name == name
        {
            return Ok(Some(*id));
        }
        if let Some((id, content)) = &held
            && content.offset == facts.size
            && content.name == name
            && content.offset > 0
        {
            return Ok(Some(*id)); // it cannot hold more than this of any content
        }
        let (best, beginning) = self.search(file, facts)?;
        let modified = if self.is_whole_mode() { facts.modified } else { 0 };
        if let Some((id, held)) = held {
            // The file may meanwhile hold what was accepted from another one.
            let further = best.map(|(_, content)| content).filter(|best| best.offset > held.offset);
            let modified = if held.refused { held.modified } else { modified };
            let content = further.unwrap_or(held);
            self.ledger.update(id, Content { inode, name: name.to_owned(), modified, ..content });
            return Ok(Some(id));
        }
        if let Some((id, content)) = best {
            let other_is_here = content.inode != inode && self.seen.contains_key(&content.inode);
            let content = Content { inode, name: name.to_owned(), modified, ..content };
            if other_is_here {
                return Ok(Some(self.ledger.add(content)));
            }
            self.ledger.update(id, content);
            return Ok(Some(id));
        }
        let beginning =
            beginning.or(known.filter(|_| likeness == Some(Likeness::Beginning)).map(|(_, known)| known));
        let mut content = match self.wait(beginning, open)? {
            Waited::StillWaiting => return Ok(None),
            Waited::Known(content) => content,
            Waited::New => Content::new(inode, name),
        };
        (content.inode, content.name) = (inode, name.to_owned());
        if self.first_scan && self.settings.start == Start::End && content.offset == 0 {
            accept_what_is_there(&self.settings, &mut content, file, facts.size)?;
            if self.is_whole_mode() {
                content.whole = Some(content::hash_of(file, content.offset)?);
                content.modified = facts.modified;
            }
        }
        step.moved |= content.offset > 0;
        Ok(Some(self.ledger.add(content)))
    }

    /// Compares a file with a content: by prints, and by every byte where a finished file is not the one of the last time.
    fn likeness(&self, content: &Content, file: &dyn Source, facts: Facts) -> io::Result<Likeness> {
        let likeness = content.likeness(file, facts.size)?;
        match content.whole {
            Some(whole)
                if likeness == Likeness::Same
                    && self.is_whole_mode()
                    && content.modified != facts.modified
                    && content::hash_of(file, content.offset)? != whole =>
            {
                Ok(Likeness::Different)
            }
            // A document that holds another one's beginning is another one.
            Some(_) if self.settings.format.is_document() && facts.size != content.offset => {
                Ok(Likeness::Different)
            }
            _ => Ok(likeness),
        }
    }

    /// Compares a file with every content that begins like it.
    fn search(&self, file: &dyn Source, facts: Facts) -> io::Result<Found> {
        let mut best: Option<(ContentId, &Content)> = None;
        for head in content::heads(file, facts.size)? {
            for (id, content) in self.ledger.held(head, facts.size, |place| content::print(file, place))? {
                if best.is_none_or(|(_, best)| best.offset < content.offset)
                    && self.likeness(content, file, facts)? == Likeness::Same
                {
                    best = Some((id, content));
                }
            }
        }
        let mut beginning = None;
        if let Some(anchor) = content::highest_anchor(file, facts.size)? {
            for content in self.ledger.by_anchor(anchor) {
                if self.likeness(content, file, facts)? == Likeness::Beginning {
                    beginning = Some(content.clone());
                    break;
                }
            }
        }
        Ok((best.map(|(id, content)| (id, content.clone())), beginning))
    }

    /// What to make of a file that is like the beginning of a known content, or was until now.
    ///
    /// It may be a copy under way: then it will hold the whole content, and nothing is read before. Or somebody cut it
    /// back: then what comes behind the cut is new. So it waits until it is one or the other, or has been quiet for
    /// [`QUIET`]; what was there when the waiting began is accepted already. A finished file does not wait.
    fn wait(&mut self, beginning: Option<Content>, open: &Open<'_>) -> Result<Waited, FileFault> {
        let (file, facts) = (open.file.as_ref(), open.facts);
        let is_finished = self.is_whole_mode();
        let seen = self.seen.entry(facts.identity).or_default();
        let Some(content) = beginning else {
            let Some(waiting) = seen.waiting.take() else { return Ok(Waited::New) };
            let is_known = waiting.content.likeness(file, facts.size)? == Likeness::Same;
            return Ok(if is_known { Waited::Known(waiting.content) } else { Waited::New });
        };
        match &mut seen.waiting {
            Some(waiting) if waiting.state != facts.state() => {
                (waiting.state, waiting.since) = (facts.state(), Instant::now());
            }
            Some(waiting) if !waiting.is_over() => {}
            Some(waiting) => {
                let content = waiting.content.clone();
                seen.waiting = None;
                return Ok(Waited::Known(content));
            }
            None => {
                let mut cut = Content::new((0, 0), &content.name);
                (cut.header_bytes, cut.last_time) = (content.header_bytes, content.last_time);
                accept_what_is_there(&self.settings, &mut cut, file, facts.size)?;
                if is_finished {
                    cut.whole = Some(content::hash_of(file, cut.offset)?);
                    cut.modified = facts.modified;
                    return Ok(Waited::Known(cut));
                }
                seen.waiting = Some(Waiting { content: cut, state: facts.state(), since: Instant::now() });
            }
        }
        Ok(Waited::StillWaiting)
    }
}

/// Accepts what there is, without reading it: whole lines of a file that may grow, else all of it.
fn accept_what_is_there(
    settings: &Settings,
    content: &mut Content,
    file: &dyn Source,
    size: u64,
) -> io::Result<()> {
    let (mut at, mut end, mut lines) = (0, 0, 0);
    while at < size {
        let bytes = read_at(file, at, STEP_BYTES.min(size - at))?;
        if bytes.is_empty() {
            break;
        }
        lines += settings.lines.count(&bytes);
        if let Some(last) = settings.lines.last_line_end(&bytes) {
            end = at + last as u64;
        }
        at += bytes.len() as u64;
    }
    content.lines = lines;
    let is_whole = settings.mode != super::super::settings::Mode::Growing;
    content.advance(file, if is_whole { at } else { end })
}
