//! What becomes of files that are read, when their readings are on disk: they stay, move or go.

use std::io;

use super::super::place::{Facts, Place};
use super::super::settings::{After, Finished, Mode, Settings};

/// Files that are read to their end.
#[derive(Debug)]
pub(super) struct Aftermath {
    after: After,
    marker: Option<String>,
    /// Positions given out, and how many of them are on disk.
    issued: u64,
    stored: u64,
    /// With the number of the position that covers each.
    files: Vec<(u64, String, Facts)>,
    /// Said once for each kind of trouble.
    said: Option<String>,
}

impl Aftermath {
    pub(super) fn new(settings: &Settings) -> Aftermath {
        let marker = match &settings.mode {
            Mode::Whole(Finished::Marker(marker)) => Some(marker.clone()),
            _ => None,
        };
        let after = settings.after.clone();
        Aftermath { after, marker, issued: 0, stored: 0, files: Vec::new(), said: None }
    }

    /// These files were read to their end in a step; whether the step gave out a position.
    pub(super) fn add(&mut self, files: Vec<(String, Facts)>, issues: bool) {
        self.issued += u64::from(issues);
        if self.after != After::Keep {
            let ours = files.into_iter().filter(|(name, _)| !name.starts_with('/'));
            self.files.extend(ours.map(|(name, facts)| (self.issued, name, facts)));
        }
    }

    /// All positions given out are on disk.
    pub(super) fn stored(&mut self) {
        self.stored = self.issued;
    }

    /// Moves or deletes what may be.
    pub(super) fn settle(&mut self, place: &mut dyn Place) {
        let (due, wait) =
            std::mem::take(&mut self.files).into_iter().partition(|(nth, ..)| *nth <= self.stored);
        self.files = wait;
        for (nth, name, facts) in due {
            // Changed since: it is another file, and is read first.
            if place.facts(&name).is_ok_and(|now| now != facts) {
                continue;
            }
            match self.away(&name, place) {
                Ok(()) => self.said = None,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let text = error.to_string();
                    if self.said.as_ref() != Some(&text) {
                        tracing::warn!(file = name, %error, "a file that was read stays where it is");
                        self.said = Some(text);
                    }
                    self.files.push((nth, name, facts));
                }
            }
        }
    }

    fn away(&self, name: &str, place: &mut dyn Place) -> io::Result<()> {
        let marker = self.marker.as_ref().map(|marker| format!("{name}{marker}"));
        match &self.after {
            After::Keep => {}
            After::Move(folder) => {
                let moved = place.shift(name, folder)?;
                tracing::debug!(file = name, to = folder, name = moved, "moved");
            }
            After::Delete => place.remove(name)?,
        }
        // A marker alone does no harm.
        if let Some(marker) = marker
            && let Err(error) = place.remove(&marker)
        {
            tracing::debug!(file = marker, %error, "a marker stays");
        }
        Ok(())
    }
}
