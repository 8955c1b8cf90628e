//! A payload becomes a record: known already? counted, encoded, appended; foreign payloads are numbered and split.

use durable_log::Position;
use model::limits::{RECORD_BYTES_MAX, RECORD_DAYS_MAX, RECORD_SAMPLES_MAX};
use model::{Offset, RecordId, Sample, SampleBatch, Timestamp, Value};
use proto::account::{Account, DeviceCounts, sample_hash};
use proto::log_record::{AgentId, LogRecord};
use runtime::mistakes::{Mistake, is_made};

use super::accounts::{Change, Counted};
use super::writer::Writer;
use super::{DurableBatch, Identity, ReceivedBatch, SAMPLE_BYTES, Told};
use crate::catalogue::PathHashes;

/// Memory of one append, kept for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    buffer: Vec<u8>,
    /// Where each record in it ends.
    ends: Vec<usize>,
    /// With the account over the agent's own paths.
    records: Vec<(LogRecord, Account)>,
}

/// What an agent says with a record.
#[derive(Clone, Copy, Default)]
struct Said {
    running: Option<Account>,
    counts: Option<DeviceCounts>,
}

impl Writer {
    pub(super) async fn batch(&mut self, batch: ReceivedBatch) {
        let catalogue = self.shared.catalogue.clone();
        if batch.samples.is_empty() || self.attempt(|_writer| catalogue.persist()).await.is_err() {
            return;
        }
        match batch.identity {
            Identity::Own { id, accepted_at, running, counts } => {
                let same_time = is_made(Mistake::DedupByTime)
                    && batch.samples.first().is_some_and(|sample| {
                        let name = format!("{} {} {}", batch.agent.0, sample.point.0, sample.time.0);
                        runtime::mistakes::note(&name, Vec::new()).is_some()
                    });
                if self.is_new(batch.agent, id) && !same_time {
                    let one = SampleBatch {
                        id,
                        accepted_at,
                        is_historical: batch.is_historical,
                        samples: batch.samples,
                    };
                    let told = Said { running, counts };
                    self.append(batch.agent, vec![one], batch.arrival, batch.has_command_report, told).await;
                }
            }
            Identity::Foreign => {
                let mut next = self.log.end().0;
                let mut number = |samples| {
                    let id = RecordId { epoch: self.shared.epoch, offset: Offset(next) };
                    next += 1;
                    let (accepted_at, is_historical) = (batch.arrival, batch.is_historical);
                    SampleBatch { id, accepted_at, is_historical, samples }
                };
                let parts: Vec<SampleBatch> = split(batch.samples).into_iter().map(&mut number).collect();
                self.append(batch.agent, parts, batch.arrival, batch.has_command_report, Said::default())
                    .await;
            }
        }
    }

    /// Whether the record is neither here nor beyond what is believed.
    pub(super) fn is_new(&self, agent: AgentId, id: RecordId) -> bool {
        let accounts = self.shared.accounts();
        if accounts.has(agent, id) || self.group.expects(agent, id) {
            self.count.duplicates.increment();
            return false;
        }
        if let Some(why) = accounts.refuses(agent, id) {
            self.count.unbelieved.increment();
            tracing::warn!(agent = agent.0, record = %id, why, "record not believed");
            return false;
        }
        true
    }

    /// Appends records that belong together.
    async fn append(
        &mut self,
        agent: AgentId,
        batches: Vec<SampleBatch>,
        arrival: Timestamp,
        has_command_report: bool,
        said: Said,
    ) {
        let Scratch { mut buffer, mut ends, mut records } = std::mem::take(&mut self.scratch);
        buffer.clear();
        ends.clear();
        {
            let hashes = self.shared.catalogue.hashes();
            for batch in batches {
                let (account, agent_account) = accounts_of(&batch, &hashes);
                let record = LogRecord::Received { agent, batch, account, counts: said.counts };
                record.encode(&mut buffer);
                ends.push(buffer.len());
                records.push((record, agent_account));
            }
        }
        if let Some(marker) = &self.group.marker {
            marker.encode(&mut buffer);
            ends.push(buffer.len());
        }
        let first = match ends.len() {
            1 => self.attempt(|writer| writer.log.append_group(&[&buffer])).await,
            _ => {
                let mut start = 0;
                let part =
                    |end: &usize| buffer.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default();
                let slices: Vec<&[u8]> = ends.iter().map(part).collect();
                self.attempt(|writer| writer.log.append_group(&slices)).await
            }
        };
        if let Ok(first) = first {
            self.appended(agent, &mut records, first, arrival, has_command_report, said);
        }
        records.clear();
        self.scratch = Scratch { buffer, ends, records };
    }

    /// Enters what was appended into the group.
    fn appended(
        &mut self,
        agent: AgentId,
        records: &mut Vec<(LogRecord, Account)>,
        first: Position,
        arrival: Timestamp,
        has_command_report: bool,
        said: Said,
    ) {
        for ((record, agent_account), n) in records.drain(..).zip(0..) {
            let LogRecord::Received { batch, account, .. } = record else { continue };
            self.group.bytes += batch.samples.len() * SAMPLE_BYTES;
            self.group.bytes +=
                batch.samples.iter().filter_map(|s| s.value.as_ref()).map(Value::heap_bytes).sum::<usize>();
            self.count.records.increment();
            self.count.samples.add(batch.samples.len() as u64);
            let id = batch.id;
            let change = if id.epoch == self.shared.epoch {
                Change::Foreign { agent, id, account }
            } else {
                self.group.expect(agent, id);
                let first = batch.samples.first();
                let point = first.and_then(|sample| self.shared.catalogue.point(sample.point));
                let counted = Counted { is_history: batch.is_historical, point, counts: said.counts };
                Change::Received { agent, id, account, agent_account, running: said.running, counted }
            };
            self.group.changes.push(change);
            let position = Position(first.0 + n);
            self.group.told.push(Told::Record(Box::new(DurableBatch {
                position,
                agent,
                arrival,
                has_command_report,
                batch,
            })));
        }
    }
}

/// Accounts of a record: over the hub's paths, and over the agent's.
pub(super) fn accounts_of(batch: &SampleBatch, hashes: &[PathHashes]) -> (Account, Account) {
    let (mut hub, mut agent) = (Account::default(), Account::default());
    for (sample, index) in batch.samples.iter().zip(0..) {
        let Some(path) = hashes.get(sample.point.0 as usize) else { continue };
        let hash = |path| {
            let Sample { time, value, quality, .. } = sample;
            sample_hash(batch.id.offset, index, path, *time, value.as_ref(), *quality)
        };
        let ours = hash(path.hub);
        hub.add(ours);
        agent.add(if path.agent == path.hub { ours } else { hash(path.agent) });
    }
    (hub, agent)
}

/// A foreign payload as records within the bounds of one, in order.
fn split(samples: Vec<Sample>) -> Vec<Vec<Sample>> {
    const SAMPLE_ENCODED_MAX: usize = 64;
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let (mut bytes, mut first_day, mut last_day) = (0, i64::MAX, i64::MIN);
    for sample in samples {
        let size = SAMPLE_ENCODED_MAX + sample.value.as_ref().map_or(0, Value::heap_bytes);
        let day = sample.time.day();
        let (low, high) = (first_day.min(day), last_day.max(day));
        let fits = part.len() < RECORD_SAMPLES_MAX
            && bytes + size <= RECORD_BYTES_MAX
            && high.saturating_sub(low) < RECORD_DAYS_MAX;
        if fits || part.is_empty() {
            (bytes, first_day, last_day) = (bytes + size, low, high);
        } else {
            parts.push(std::mem::take(&mut part));
            (bytes, first_day, last_day) = (size, day, day);
        }
        part.push(sample);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
