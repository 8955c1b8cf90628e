//! A log in two copies, for what is small and must never lose an entry: point catalogues.
//!
//! The first one is written as usual; after each sync its new records go to the copy, which is therefore always a
//! beginning of it, position for position. On opening, what is damaged or missing in the first is filled from the
//! copy, and a copy that is not a true beginning of the first is made anew (its files are kept aside).

use std::sync::Arc;

use crate::repair::Repaired;
use crate::segment::io as io_error;
use crate::segment::parse_name;
use crate::storage::Storage;
use crate::{Log, LogError, LogView, Options, Position, Recovery, WhenDamaged};

/// A log and its copy.
#[derive(Debug)]
pub struct TwinLog {
    log: Log,
    copy: Log,
}

impl TwinLog {
    /// Opens or creates both. The epochs must be new; one may serve for both.
    pub fn open(
        storage: Arc<dyn Storage>,
        copy_storage: Arc<dyn Storage>,
        options: Options,
        epoch: u64,
    ) -> Result<(TwinLog, Recovery), LogError> {
        let options = Options { when_damaged: WhenDamaged::SetAside, ..options };
        let (copy, copy_recovery) = Log::open_on(Arc::clone(&copy_storage), options.clone(), epoch)?;
        let (log, mut recovery) = Log::open_with(storage, options.clone(), epoch, Some(&copy.view()))?;
        let mut twin = TwinLog { log, copy };
        twin.fill(&mut recovery.repaired)?;
        twin.take_tail()?;
        recovery.end = twin.log.end();
        let is_true = copy_recovery.repaired.is_empty() && twin.copy_is_true()?;
        if !is_true {
            tracing::warn!(copy = %copy_storage.path("").display(), "the copy is made anew; its files are kept aside");
            let TwinLog { log, copy } = twin;
            drop(copy);
            clear(&*copy_storage)?;
            let (copy, _) = Log::open_on(copy_storage, options, epoch)?;
            twin = TwinLog { log, copy };
        }
        twin.follow()?;
        Ok((twin, recovery))
    }

    /// As [`Log::append_group`].
    pub fn append_group(&mut self, records: &[&[u8]]) -> Result<Position, LogError> {
        self.log.append_group(records)
    }

    /// As [`Log::sync`], for both.
    pub fn sync(&mut self) -> Result<Position, LogError> {
        let end = self.log.sync()?;
        self.follow()?;
        Ok(end)
    }

    /// A handle for readers, on the first one.
    #[must_use]
    pub fn view(&self) -> LogView {
        self.log.view()
    }

    /// Reads all of the first one, and heals what reading finds.
    fn fill(&mut self, repaired: &mut Vec<Repaired>) -> Result<(), LogError> {
        loop {
            match read_all(&self.log.view()) {
                Ok(()) => return Ok(()),
                Err(error @ LogError::Damaged { .. }) => {
                    let healed = self.log.heal_from(Some(&self.copy.view()))?;
                    if healed.is_empty() {
                        return Err(error);
                    }
                    repaired.extend(healed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what the first one lost at its end.
    fn take_tail(&mut self) -> Result<(), LogError> {
        let mut reader = self.copy.view().reader(self.log.end());
        while let Ok(Some((position, record))) = reader.next() {
            if record.is_empty() || position != self.log.end() {
                break;
            }
            self.log.append_group(&[record])?;
        }
        self.log.sync().map(|_end| ())
    }

    fn copy_is_true(&self) -> Result<bool, LogError> {
        let (view, copy) = (self.log.view(), self.copy.view());
        if copy.first() != view.first() || copy.durable_end() > view.durable_end() {
            return Ok(false);
        }
        let (mut reader, mut copied) = (view.reader(view.first()), copy.reader(copy.first()));
        loop {
            match copied.next() {
                Ok(None) => return Ok(true),
                Ok(Some((_, copied))) => match reader.next()? {
                    Some((_, record)) if record == copied => {}
                    _ => return Ok(false),
                },
                Err(LogError::Damaged { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Brings the copy up to the first one's durable end.
    fn follow(&mut self) -> Result<(), LogError> {
        let view = self.log.view();
        let mut reader = view.reader(self.copy.end());
        let mut holes_to = self.copy.end();
        while let Some((position, record)) = reader.next()? {
            if record.is_empty() {
                holes_to = position.next();
                continue;
            }
            self.copy.skip_to(holes_to)?; // a run of holes at once
            self.copy.append_group(&[record])?;
        }
        self.copy.skip_to(holes_to)?;
        self.copy.sync().map(|_end| ())
    }
}

fn read_all(view: &LogView) -> Result<(), LogError> {
    let mut reader = view.reader(view.first());
    while reader.next()?.is_some() {}
    Ok(())
}

/// Moves all segments to the side folder.
fn clear(storage: &dyn Storage) -> Result<(), LogError> {
    for entry in storage.list().map_err(|e| io_error(storage, "listing", "", e))? {
        if parse_name(&entry.name).is_some() {
            storage
                .set_aside(&entry.name)
                .and_then(|_kept| storage.remove(&entry.name))
                .map_err(|e| io_error(storage, "moving", &entry.name, e))?;
        }
    }
    storage.sync_dir().map_err(|e| io_error(storage, "syncing", "", e))
}
