//! What the writer does with dead letters: a sink's refusal, a retry, a discard. One at a time, each with the group before
//! it committed, so that what is judged is what is on disk.

use durable_log::{LogError, Position};
use model::SampleBatch;
use proto::log_record::LogRecord;
use tokio::sync::oneshot;

use super::super::writer::Writer;
use super::super::{Identity, ReceivedBatch, StoreError, StoreHealth};
use super::{Ended, Fate, LetterError, LetterId, Origin, Refusal, Retrial};
use crate::ledger::{LedgerEntry, LedgerKind};

/// Who is told how it ended.
pub(in super::super) type Answer<T> = oneshot::Sender<Result<T, LetterError>>;

/// What to do.
#[derive(Debug)]
pub(in super::super) enum Work {
    Refuse(Refusal, Answer<LetterId>),
    Retry { id: LetterId, what: Retrial, by: String, done: Answer<Fate> },
    Discard { id: LetterId, by: String, reason: String, done: Answer<()> },
}

impl Writer {
    pub(in super::super) async fn letter(&mut self, work: Work) {
        self.commit().await;
        // Whoever asked may have gone; what was done stands in the book.
        match work {
            Work::Refuse(refusal, done) => {
                done.send(self.refuse(refusal)).ok();
            }
            Work::Retry { id, what, by, done } => {
                done.send(self.retry(id, what, by).await).ok();
            }
            Work::Discard { id, by, reason, done } => {
                done.send(self.discard(id, by, reason).await).ok();
            }
        }
    }

    /// Keeps a record that a sink refuses. The same one again is the same letter.
    fn refuse(&mut self, refusal: Refusal) -> Result<LetterId, LetterError> {
        if let Some(known) = self.book.state().of(&refusal.sink, refusal.position) {
            return Ok(known);
        }
        let no_record = || LetterError::NoRecord(refusal.position, refusal.epoch);
        let view = &self.shared.view;
        let at = Position(refusal.position);
        if at >= view.durable_end() || view.epoch_of(at) != Some(refusal.epoch) {
            return Err(no_record());
        }
        let mut reader = view.reader(at);
        let record = match reader.next()? {
            Some((found, bytes)) if found == at => bytes.to_vec(),
            _ => return Err(no_record()),
        };
        self.make_room_in_book()?;
        if let Some(waiting) = self.book.is_full_for(&refusal.sink) {
            return Err(LetterError::Full { sink: refusal.sink, waiting });
        }
        let (sink, position, why) = (refusal.sink.clone(), refusal.position, refusal.reason.clone());
        let id = self.book.refuse(self.shared.clock.now(), refusal, &record)?;
        self.count.set_aside.increment();
        tracing::warn!(entry = %id, sink, position, reason = why, "a sink refused a record: it is in the quarantine");
        Ok(id)
    }

    /// Brings a letter's data into the plant log, once.
    async fn retry(&mut self, id: LetterId, what: Retrial, by: String) -> Result<Fate, LetterError> {
        self.undecided(id)?;
        let records = match what {
            Retrial::Batch(batch) => {
                if let Identity::Own { id: record, .. } = batch.identity
                    && self.shared.accounts().has(batch.agent, record)
                {
                    return self.ended(id, Fate::CameAnyway, by, String::new());
                }
                self.as_it_was(id, &batch)?;
                Err(*batch)
            }
            Retrial::Record => Ok(self.once_more(id)?),
        };
        let (origin, position) = (id.origin.code(), id.position);
        let epoch = self.letters_epoch(id).ok_or(LetterError::Unknown(id))?;
        let begin = self.log.end();
        self.book.trying(self.shared.clock.now(), id, epoch, begin.0)?;
        let marker = LogRecord::Retried { origin, epoch, position };
        match records {
            Ok(again) => self.append_plainly(&[again, marker]).await,
            Err(batch) => {
                self.group.marker = Some(marker);
                self.batch(batch).await;
                self.group.marker = None;
            }
        }
        if self.log.end() == begin {
            let why = "the plant log did not take it; its log lines say why".to_owned();
            return Err(self.not_written().unwrap_or(LetterError::Still { id, why }));
        }
        self.group.is_forced = true;
        self.commit().await;
        if self.shared.view.durable_end() <= begin {
            let why = StoreError::NotWritable("it is not on disk".into());
            return Err(self.not_written().unwrap_or(LetterError::Store(why)));
        }
        self.ended(id, Fate::Retried, by, String::new())
    }

    async fn discard(&mut self, id: LetterId, by: String, reason: String) -> Result<(), LetterError> {
        self.undecided(id)?;
        let state = self.book.state().clone();
        let letter = self.shared.letters.one(&state, id)?.ok_or(LetterError::Unknown(id))?;
        let agent = letter.record.and_then(|(agent, _)| self.shared.catalogue.agent(agent));
        let words = format!("discarded by {by}: {reason}");
        self.ledger.record(LedgerEntry {
            at: self.shared.clock.now().to_string(),
            kind: LedgerKind::Discarded,
            agent: agent.map(|node| node.to_string()),
            epoch: letter.record.map(|(_, record)| record.epoch.to_string()),
            start: letter.record.map(|(_, record)| record.offset.0),
            end: letter.record.map(|(_, record)| record.offset.0 + 1),
            reason: format!("quarantine entry {id} ({}) {words}", letter.reason),
        })?;
        if id.origin == Origin::Payload
            && let Some((agent, record)) = letter.record
        {
            let waits = |writer: &Writer| {
                let accounts = writer.shared.accounts();
                accounts
                    .epoch(agent, record.epoch)
                    .is_some_and(|book| book.quarantined.contains(record.offset.0))
            };
            if waits(self) {
                self.settle(agent, record.epoch, record.offset.0..record.offset.0 + 1, words.clone(), false)
                    .await;
                self.commit().await;
                if waits(self) {
                    let why = StoreError::NotWritable("it is not on disk".into());
                    return Err(self.not_written().unwrap_or(LetterError::Store(why)));
                }
            }
        }
        self.ended(id, Fate::Discarded, by, reason).map(|_fate| ())
    }

    fn undecided(&self, id: LetterId) -> Result<(), LetterError> {
        let state = self.book.state();
        if let Some(ended) = state.ended(id) {
            return Err(LetterError::Ended { id, ended: ended.clone() });
        }
        let is_here = match id.origin {
            Origin::Payload => {
                let view = &self.shared.letters.payloads;
                (view.first().0..view.durable_end().0).contains(&id.position)
            }
            Origin::Record => state.has_record(id.position),
        };
        if is_here { Ok(()) } else { Err(LetterError::Unknown(id)) }
    }

    fn ended(&mut self, id: LetterId, fate: Fate, by: String, reason: String) -> Result<Fate, LetterError> {
        let at = self.shared.clock.now();
        tracing::info!(entry = %id, fate = fate.word(), by, reason, "quarantine");
        self.make_room_in_book()?;
        self.book.end(id, Ended { fate, at, by, reason })?;
        Ok(fate)
    }

    /// If this is all that is missing of an epoch, its checksum is known, and the batch must have it: after a change of the
    /// agent's points the same bytes could mean other points.
    fn as_it_was(&self, id: LetterId, batch: &ReceivedBatch) -> Result<(), LetterError> {
        let Identity::Own { id: record, accepted_at, .. } = batch.identity else { return Ok(()) };
        let apart = {
            let accounts = self.shared.accounts();
            let Some(book) = accounts.epoch(batch.agent, record.epoch) else { return Ok(()) };
            if book.lost.count() + book.quarantined.count() != 1
                || !book.quarantined.contains(record.offset.0)
            {
                return Ok(());
            }
            book.settled_account
        };
        let samples = batch.samples.clone();
        let one = SampleBatch { id: record, accepted_at, is_historical: false, samples };
        let (_, own) = super::super::ingest::accounts_of(&one, &self.shared.catalogue.hashes());
        match apart {
            Some(apart) if apart != own => {
                let why = format!(
                    "the agent accepted {} samples with checksum {:016x} under {record}, this reads as {} with {:016x}",
                    apart.count, apart.checksum, own.count, own.checksum
                );
                Err(LetterError::Still { id, why })
            }
            _ => Ok(()),
        }
    }

    /// A refused record, for its sink once more.
    fn once_more(&self, id: LetterId) -> Result<LogRecord, LetterError> {
        let state = self.book.state().clone();
        let letter = self.shared.letters.one(&state, id)?.ok_or(LetterError::Unknown(id))?;
        match LogRecord::decode(&letter.bytes) {
            Ok(
                LogRecord::Received { agent, batch, account, .. }
                | LogRecord::Again { agent, batch, account, .. },
            ) => Ok(LogRecord::Again { sink: letter.from, agent, batch, account }),
            Ok(_) => Err(LetterError::Still { id, why: "it holds no samples".to_owned() }),
            Err(error) => Err(LetterError::Still { id, why: error.to_string() }),
        }
    }

    async fn append_plainly(&mut self, records: &[LogRecord]) {
        let encoded: Vec<Vec<u8>> = records
            .iter()
            .map(|record| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                bytes
            })
            .collect();
        let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        // A failure shows in the log's end, and in the store's health.
        self.attempt(|writer| writer.log.append_group(&slices)).await.ok();
    }

    fn letters_epoch(&self, id: LetterId) -> Option<u64> {
        let view = match id.origin {
            Origin::Payload => &self.shared.letters.payloads,
            Origin::Record => &self.shared.letters.book,
        };
        view.epoch_of(Position(id.position))
    }

    fn make_room_in_book(&mut self) -> Result<(), LogError> {
        let (plant, payloads) = (self.shared.view.first().0, self.shared.letters.payloads.first().0);
        self.book.trim(plant, payloads)
    }

    fn not_written(&self) -> Option<LetterError> {
        match self.shared.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone() {
            StoreHealth::Ok => None,
            StoreHealth::Holding(why) | StoreHealth::Latched(why) => {
                Some(StoreError::NotWritable(why).into())
            }
        }
    }
}
