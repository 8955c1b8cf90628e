//! Dead letters: whatever breaks between, what a retry brings is there once, and what a sink refused comes back to it once.

use super::super::letters::{Fate, Letter, LetterError, LetterId, Origin, Refusal, Retrial};
use super::*;

const PAYLOAD: LetterId = LetterId { origin: Origin::Payload, position: 0 };

fn entry(settles: Option<(AgentId, RecordId)>) -> QuarantineEntry {
    QuarantineEntry {
        at: Timestamp(1),
        topic: "spBv1.0/g/DDATA/own/d".into(),
        reason: "bad-value".into(),
        settles,
        left_out: Vec::new(),
        payload: vec![1, 2],
    }
}

fn id(offset: u64) -> RecordId {
    RecordId { epoch: EPOCH, offset: Offset(offset) }
}

impl Hub {
    fn put_aside(&mut self, settles: Option<(AgentId, RecordId)>) {
        self.runtime.block_on(self.store.quarantine(entry(settles), settles)).unwrap();
        self.settle();
    }

    fn retry(&mut self, letter: LetterId, what: Retrial) -> Result<Fate, LetterError> {
        while self.groups.try_recv().is_ok() {}
        let store = self.store.clone();
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(store.retry(letter, what, "api".into()))
        });
        while !asked.is_finished() {
            while self.groups.try_recv().is_ok() {}
            std::thread::sleep(Duration::from_millis(1));
        }
        asked.join().unwrap()
    }

    fn retry_batch(&mut self, batch: ReceivedBatch) -> Result<Fate, LetterError> {
        self.retry(PAYLOAD, Retrial::Batch(Box::new(batch)))
    }

    fn waiting(&self) -> Vec<Letter> {
        self.store.letters(|letter| letter.ended.is_none(), 100).unwrap()
    }

    fn records(&self) -> Vec<LogRecord> {
        let view = self.store.view();
        let mut reader = view.reader(view.first());
        let mut records = Vec::new();
        while let Some((_, bytes)) = reader.next().unwrap() {
            records.push(LogRecord::decode(bytes).unwrap());
        }
        records
    }

    /// How often the record of the agent's offset stands in the plant log.
    fn times(&self, offset: u64) -> usize {
        let records = self.records();
        let is_it = |record: &&LogRecord| matches!(record, LogRecord::Received { batch, .. } if batch.id == id(offset));
        records.iter().filter(is_it).count()
    }
}

#[test]
fn a_retried_payload_has_its_identity_once_whatever_comes_twice() {
    let machine = Machine::new(60);
    let mut hub = Hub::open(&machine);
    hub.ingest(hub.own(EPOCH, 0));
    hub.put_aside(Some((hub.agent, id(1))));
    hub.ingest(hub.own(EPOCH, 2));
    hub.settle();
    assert_eq!((hub.epoch(EPOCH).quarantined, hub.times(1)), (RangeSet::of(1..2), 0));
    assert_eq!(hub.waiting()[0].record, Some((hub.agent, id(1))));
    assert_eq!(hub.retry_batch(hub.own(EPOCH, 1)).unwrap(), Fate::Retried);
    assert!(matches!(hub.retry_batch(hub.own(EPOCH, 1)), Err(LetterError::Ended { .. })));
    hub.ingest(hub.own(EPOCH, 1)); // the agent never got a receipt
    hub.settle();
    let state = hub.epoch(EPOCH);
    assert_eq!((state.quarantined.is_empty(), state.verified_end, state.mismatch), (true, 3, None));
    assert_eq!((hub.times(1), hub.waiting().len()), (1, 0));
    hub.close();
    let mut hub = Hub::open(&machine.crash());
    assert!(matches!(hub.retry_batch(hub.own(EPOCH, 1)), Err(LetterError::Ended { .. })));
    assert_eq!((hub.times(1), hub.epoch(EPOCH).account), (1, running(EPOCH, 3)));
}

#[test]
fn what_the_agent_sent_again_is_not_retried_and_what_reads_otherwise_stays() {
    let mut hub = Hub::open(&Machine::new(61));
    hub.put_aside(Some((hub.agent, id(0))));
    hub.ingest(hub.own(EPOCH, 1));
    hub.settle();
    let mut other = hub.own(EPOCH, 0);
    other.samples.iter_mut().for_each(|sample| sample.value = Some(Value::Double(99.0)));
    let refused = hub.retry_batch(other);
    assert!(
        matches!(&refused, Err(LetterError::Still { why, .. }) if why.contains("checksum")),
        "{refused:?}"
    );
    assert_eq!((hub.times(0), hub.waiting().len()), (0, 1));
    hub.ingest(hub.own(EPOCH, 0));
    hub.settle();
    assert_eq!(hub.retry_batch(hub.own(EPOCH, 0)).unwrap(), Fate::CameAnyway);
    assert_eq!((hub.times(0), hub.waiting().len()), (1, 0));
}

#[test]
fn a_discarded_payload_is_lost_by_decision_and_stands_in_the_ledger() {
    let machine = Machine::new(62);
    let mut hub = Hub::open(&machine);
    hub.put_aside(Some((hub.agent, id(0))));
    let discard = hub.store.discard(PAYLOAD, "api".into(), "it was a test".into());
    hub.runtime.block_on(discard).unwrap();
    let said = hub.ledger.newest(1).remove(0);
    assert_eq!((said.kind, said.start, said.end), (LedgerKind::Discarded, Some(0), Some(1)));
    assert!(said.reason.contains("by api: it was a test"), "{}", said.reason);
    assert!(matches!(hub.retry_batch(hub.own(EPOCH, 0)), Err(LetterError::Ended { .. })));
    let unknown = LetterId { origin: Origin::Record, position: 0 };
    assert!(matches!(hub.retry(unknown, Retrial::Record), Err(LetterError::Unknown(_))));
    hub.close();
    let hub = Hub::open(&machine.crash());
    let state = hub.epoch(EPOCH);
    assert_eq!((state.lost, state.quarantined.is_empty()), (RangeSet::of(0..1), true));
    assert_eq!(hub.waiting(), []);
}

/// The book's disk fails at any sync: before the plant log is written, or between it and the book's last word.
#[test]
fn a_retry_that_is_cut_off_anywhere_has_happened_once_or_not_at_all() {
    let (mut cut_before, mut cut_after) = (0, 0);
    for seed in 100..130 {
        let machine = Machine::new(seed);
        let mut hub = Hub::open(&machine);
        hub.put_aside(None);
        machine.book.set_faults(Faults { sync_error: 2, ..Faults::default() });
        let first = hub.retry_batch(hub.foreign(4.0));
        let records = |hub: &Hub| {
            let records = hub.records();
            records.iter().filter(|record| matches!(record, LogRecord::Received { .. })).count()
        };
        match (first.is_ok(), records(&hub)) {
            (false, 0) => cut_before += 1,
            (false, 1) => cut_after += 1,
            (true, 1) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        machine.book.set_faults(Faults::default());
        let mut hub = Hub::open(&machine.crash());
        match hub.retry_batch(hub.foreign(4.0)) {
            Ok(_) | Err(LetterError::Ended { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert_eq!((records(&hub), hub.waiting().len()), (1, 0), "seed {seed}");
    }
    assert!(cut_before > 0 && cut_after > 0, "{cut_before} {cut_after}");
}

#[test]
fn a_record_that_a_sink_refused_comes_once_more_and_for_that_sink_only() {
    let machine = Machine::new(63);
    let mut hub = Hub::open(&machine);
    for offset in 0..3 {
        hub.ingest(hub.own(EPOCH, offset));
    }
    hub.settle();
    let epoch = hub.store.log_epoch().0;
    let refusal =
        |position, epoch| Refusal { sink: "lake".into(), epoch, position, reason: "no such column".into() };
    let ask = |hub: &Hub, refusal| hub.runtime.block_on(hub.store.refuse(refusal));
    assert!(matches!(ask(&hub, refusal(1, epoch + 1)), Err(LetterError::NoRecord(..))));
    assert!(matches!(ask(&hub, refusal(3, epoch)), Err(LetterError::NoRecord(..))));
    let letter = ask(&hub, refusal(1, epoch)).unwrap();
    assert_eq!(ask(&hub, refusal(1, epoch)).unwrap(), letter, "its bridge died before it heard of it");
    assert_eq!((hub.store.set_aside("lake", 0..3), hub.store.set_aside("other", 0..3)), (vec![1], vec![]));
    let refused = &hub.store.refused()[0];
    assert_eq!(refused.record, Some((hub.agent, id(1), account(EPOCH, 1))));
    hub.close();

    let machine = machine.crash();
    let mut hub = Hub::open(&machine);
    assert_eq!(hub.waiting()[0].from, "lake");
    assert_eq!(hub.retry(letter, Retrial::Record).unwrap(), Fate::Retried);
    assert!(matches!(hub.retry(letter, Retrial::Record), Err(LetterError::Ended { .. })));
    hub.close();
    let hub = Hub::open(&machine.crash());
    let again: Vec<_> = hub
        .records()
        .into_iter()
        .filter_map(|record| match record {
            LogRecord::Again { sink, batch, account, .. } => Some((sink, batch.id, account)),
            _ => None,
        })
        .collect();
    assert_eq!(again, [("lake".to_owned(), id(1), account(EPOCH, 1))]);
    assert_eq!(hub.epoch(EPOCH).account, running(EPOCH, 3), "it is counted once");
    assert_eq!(hub.store.set_aside("lake", 0..9), [1], "its old place stays left out");
}
