//! The store on a disk that loses power: what was told is there, nothing is counted twice, and what the log does not
//! hold is not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use durable_log::{Faults, FaultyStorage};
use model::{DataType, Offset, PointDefinition, PointPath, Reason};
use proptest::prelude::*;
use proto::account::{path_hash, sample_hash};
use proto::log_record::LogRecord;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Metrics;

mod damage;

use super::retention::Retention;
use super::*;
use crate::ledger::{Ledger, LedgerKind};

mod letters;

const EPOCH: Epoch = Epoch(5);

/// Four disks that lose power together.
#[derive(Clone)]
struct Machine {
    plant: FaultyStorage,
    catalogue: FaultyStorage,
    catalogue_copy: FaultyStorage,
    quarantine: FaultyStorage,
    book: FaultyStorage,
    checkpoint: FaultyStorage,
    ledger: FaultyStorage,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let disk = |n| FaultyStorage::new(seed.wrapping_mul(7).wrapping_add(n));
        Machine {
            plant: disk(0),
            catalogue: disk(1),
            catalogue_copy: disk(5),
            quarantine: disk(2),
            checkpoint: disk(3),
            ledger: disk(4),
            book: disk(5),
        }
    }

    fn crash(&self) -> Self {
        Machine {
            plant: self.plant.crash(),
            catalogue: self.catalogue.crash(),
            catalogue_copy: self.catalogue_copy.crash(),
            quarantine: self.quarantine.crash(),
            checkpoint: self.checkpoint.crash(),
            ledger: self.ledger.crash(),
            book: self.book.crash(),
        }
    }
}

/// An open store with its writer thread.
struct Hub {
    store: Store,
    catalogue: Catalogue,
    ledger: Ledger,
    agent: AgentId,
    foreign: AgentId,
    last_values: Vec<LastValue>,
    thread: Option<std::thread::JoinHandle<()>>,
    groups: mpsc::Receiver<DurableGroup>,
    metrics: Metrics,
    runtime: tokio::runtime::Runtime,
}

impl Hub {
    fn open(machine: &Machine) -> Self {
        Self::open_with(machine, 1 << 40)
    }

    fn open_with(machine: &Machine, retention_bytes: u64) -> Self {
        let metrics = Metrics::default();
        let catalogue = Catalogue::open(
            Arc::new(machine.catalogue.clone()),
            Arc::new(machine.catalogue_copy.clone()),
            random_epoch().unwrap().0,
        )
        .unwrap();
        let ledger = Ledger::open(Arc::new(machine.ledger.clone()), random_epoch().unwrap().0).unwrap();
        let opened = open(Setup {
            hub_id: "hub".into(),
            retention: Retention { age: Duration::from_secs(1 << 30), bytes: retention_bytes },
            disks: Disks {
                plant: Arc::new(machine.plant.clone()),
                quarantine: Arc::new(machine.quarantine.clone()),
                book: Arc::new(machine.book.clone()),
                checkpoint: Arc::new(machine.checkpoint.clone()),
            },
            catalogue: catalogue.clone(),
            ledger: ledger.clone(),
            clock: Clock::manual(Timestamp(1_790_000_000_000_000)),
            metrics: metrics.clone(),
            shutdown: CancellationToken::new(),
        })
        .unwrap();
        let Opened { store, writer, groups, last_values } = opened;
        let agent = catalogue.agent_id(&NodeId::parse("g/own").unwrap()).unwrap();
        let foreign = catalogue.agent_id(&NodeId::parse("g/foreign").unwrap()).unwrap();
        for (agent, path) in [(agent, "a/b"), (foreign, "g/foreign/x")] {
            let definition = PointDefinition {
                device: Some("d".into()),
                ..PointDefinition::new(PointPath::new(path).unwrap(), "m", DataType::Double)
            };
            catalogue.assign(agent, [definition], true).unwrap();
        }
        Hub {
            store,
            catalogue,
            ledger,
            agent,
            foreign,
            last_values,
            thread: Some(std::thread::spawn(move || writer.run())),
            groups,
            metrics,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn ingest(&mut self, batch: ReceivedBatch) {
        self.try_ingest(batch).unwrap();
    }

    fn try_ingest(&mut self, batch: ReceivedBatch) -> Result<(), StoreError> {
        while self.groups.try_recv().is_ok() {}
        self.runtime.block_on(self.store.ingest(vec![batch]))
    }

    fn own(&self, epoch: Epoch, offset: u64) -> ReceivedBatch {
        ReceivedBatch {
            agent: self.agent,
            identity: Identity::Own {
                id: RecordId { epoch, offset: Offset(offset) },
                accepted_at: Timestamp(offset as i64),
                running: Some(running(epoch, offset + 1)),
                counts: None,
            },
            arrival: Timestamp(7),
            is_historical: false,
            has_command_report: false,
            samples: samples(epoch, offset),
        }
    }

    fn foreign(&self, value: f64) -> ReceivedBatch {
        let sample = Sample {
            point: self.catalogue.find("g/foreign/x").unwrap(),
            time: Timestamp(1_790_000_000_000_000),
            value: Some(Value::Double(value)),
            quality: Quality::GOOD,
        };
        ReceivedBatch {
            agent: self.foreign,
            identity: Identity::Foreign,
            arrival: Timestamp(9),
            is_historical: false,
            has_command_report: false,
            samples: vec![sample],
        }
    }

    /// Waits until all that was queued is decided.
    fn settle(&mut self) {
        while self.groups.try_recv().is_ok() {}
        self.runtime.block_on(self.store.reported(AgentId(99), Vec::new())).unwrap();
        let free = QUEUE_KIB_MAX;
        for _ in 0..2000 {
            while self.groups.try_recv().is_ok() {}
            if self.store.room.available_permits() == free && self.store.queue.capacity() == QUEUE_ITEMS_MAX {
                std::thread::sleep(Duration::from_millis(2));
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the writer does not get on");
    }

    fn close(mut self) {
        let store = self.store.clone();
        let closing = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.close());
        });
        while !closing.is_finished() {
            while self.groups.try_recv().is_ok() {}
            std::thread::sleep(Duration::from_millis(1));
        }
        closing.join().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }

    fn epoch(&self, epoch: Epoch) -> EpochState {
        let accounts = self.store.accounts();
        let own = accounts.iter().find(|account| account.id == self.agent).expect("no account of the agent");
        own.epochs.iter().find(|state| state.epoch == epoch).expect("no such epoch").clone()
    }

    fn checkpoint(&self) {
        let position = *self.store.durable().borrow();
        self.store.write_checkpoint(Vec::new(), position).unwrap();
    }

    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// What every record of the tests holds: one to three samples of point 0.
fn samples(epoch: Epoch, offset: u64) -> Vec<Sample> {
    let one = |n: u64| Sample {
        point: PointId(0),
        time: Timestamp(1_790_000_000_000_000 + (offset * 10 + n) as i64),
        value: (n != 2).then_some(Value::Double(offset as f64 + epoch.0 as f64)),
        quality: if n == 1 { Quality::bad(Reason::Timeout) } else { Quality::GOOD },
    };
    (0..=offset % 3).map(one).collect()
}

fn account(epoch: Epoch, offset: u64) -> Account {
    let mut account = Account::default();
    for (sample, index) in samples(epoch, offset).iter().zip(0..) {
        let value = sample.value.as_ref();
        let path = path_hash("a/b");
        account.add(sample_hash(Offset(offset), index, path, sample.time, value, sample.quality));
    }
    account
}

fn running(epoch: Epoch, end: u64) -> Account {
    (0..end).fold(Account::default(), |sum, offset| sum.plus(account(epoch, offset)))
}

fn sum(epoch: Epoch, ranges: &RangeSet) -> Account {
    ranges.iter().flatten().fold(Account::default(), |sum, offset| sum.plus(account(epoch, offset)))
}

fn ranges(list: &[std::ops::Range<u64>]) -> RangeSet {
    let mut set = RangeSet::new();
    list.iter().for_each(|range| {
        set.insert(range.clone());
    });
    set
}

#[test]
fn repeats_count_once_and_holes_close() {
    let machine = Machine::new(1);
    let mut hub = Hub::open(&machine);
    for offset in [0, 1] {
        hub.ingest(hub.own(EPOCH, offset));
    }
    hub.settle();
    for offset in [1, 4, 0, 3, 4] {
        hub.ingest(hub.own(EPOCH, offset));
    }
    hub.settle();
    assert_eq!(hub.epoch(EPOCH).ranges, ranges(&[0..2, 3..5]));
    assert_eq!(hub.epoch(EPOCH).verified_end, 2);
    hub.ingest(hub.own(EPOCH, 2));
    hub.settle();
    let state = hub.epoch(EPOCH);
    assert_eq!((state.verified_end, state.account, state.mismatch), (5, running(EPOCH, 5), None));
    assert_eq!(hub.counted("forebay_hub_duplicates_total"), 3);
    assert_eq!(hub.counted("forebay_hub_records_total"), 5);
    let (_, settled) = hub.store.settled(hub.agent, &BTreeSet::from([EPOCH]));
    assert_eq!(settled, [(EPOCH, RangeSet::of(0..5))]);
    assert_eq!(hub.store.unsettled(hub.agent, [(EPOCH, 7), (Epoch(6), 2)]), 4);
}

#[test]
fn foreign_records_are_numbered_by_the_log() {
    let machine = Machine::new(2);
    let mut hub = Hub::open(&machine);
    hub.ingest(hub.own(EPOCH, 0));
    hub.ingest(hub.foreign(1.0));
    hub.ingest(hub.foreign(2.0));
    hub.settle();
    let epoch = hub.store.log_epoch();
    let mut reader = hub.store.view().reader(Position(1));
    for position in 1..3 {
        let (at, bytes) = reader.next().unwrap().unwrap();
        let Ok(LogRecord::Received { agent, batch, account, .. }) = LogRecord::decode(bytes) else {
            panic!()
        };
        assert_eq!(
            (at.0, agent, batch.id.epoch, batch.id.offset.0),
            (position, hub.foreign, epoch, position)
        );
        assert_eq!(account.count, 1);
    }
    let account = hub.store.accounts().into_iter().find(|a| a.foreign).unwrap();
    assert_eq!((&account.epochs[0].ranges, account.epochs[0].account.count), (&RangeSet::of(1..3), 2));
    hub.close();
    let hub = Hub::open(&machine.crash());
    let again = hub.store.accounts().into_iter().find(|a| a.foreign).unwrap();
    assert_eq!(again, account);
}

#[test]
fn a_foreign_payload_beyond_a_record_is_split_and_atomic() {
    let machine = Machine::new(3);
    let mut hub = Hub::open(&machine);
    let mut batch = hub.foreign(1.0);
    let one = batch.samples[0].clone();
    batch.samples = (0..10_000).map(|_| one.clone()).collect();
    batch.samples[9_999].time = Timestamp(0); // years before
    hub.ingest(batch);
    hub.settle();
    let mut reader = hub.store.view().reader(Position(0));
    let mut counts = Vec::new();
    while let Some((_, bytes)) = reader.next().unwrap() {
        let Ok(LogRecord::Received { batch, .. }) = LogRecord::decode(bytes) else { panic!() };
        counts.push(batch.samples.len());
    }
    assert_eq!(counts, [4096, 4096, 1807, 1]);
}

#[test]
fn a_restart_with_or_without_checkpoint_gives_the_same() {
    for checkpoints in 0..3 {
        let machine = Machine::new(10 + checkpoints);
        let mut hub = Hub::open(&machine);
        for offset in [0, 1, 2, 5] {
            hub.ingest(hub.own(EPOCH, offset));
        }
        hub.ingest(hub.foreign(3.0));
        hub.settle();
        for _ in 0..checkpoints {
            hub.checkpoint();
        }
        hub.ingest(hub.own(EPOCH, 6));
        hub.ingest(hub.own(Epoch(8), 0));
        hub.settle();
        let before = strip(hub.store.accounts());
        hub.close();
        let hub = Hub::open(&machine.crash());
        assert_eq!(strip(hub.store.accounts()), before, "{checkpoints} checkpoints");
        let last = hub.last_values.iter().find(|last| last.point == PointId(0)).unwrap();
        assert_eq!((&last.value, last.arrival), (&Some(Value::Double(11.0)), Timestamp(6)));
    }
}

/// Without what only births and record heads tell.
fn strip(mut accounts: Vec<AgentAccount>) -> Vec<AgentAccount> {
    for epoch in accounts.iter_mut().flat_map(|account| &mut account.epochs) {
        epoch.reported = None;
        epoch.verified_end = 0;
    }
    accounts
}

#[test]
fn a_checkpoint_ahead_of_the_log_is_refused_and_nothing_gone_is_counted() {
    let machine = Machine::new(20);
    let mut hub = Hub::open(&machine);
    (0..5).for_each(|offset| hub.ingest(hub.own(EPOCH, offset)));
    hub.settle();
    hub.checkpoint();
    hub.close();
    // The log's disk was replaced by an empty one; checkpoint and catalogue are those of before.
    let replaced = Machine { plant: FaultyStorage::new(21), ..machine.crash() };
    let mut hub = Hub::open(&replaced);
    assert_eq!(hub.store.accounts(), []);
    // New records that reach beyond the old checkpoint's position do not make it fit either.
    (0..9).for_each(|offset| hub.ingest(hub.own(Epoch(6), offset)));
    hub.settle();
    hub.close();
    let hub = Hub::open(&replaced.crash());
    assert_eq!(hub.store.accounts()[0].epochs.len(), 1);
    assert_eq!(hub.epoch(Epoch(6)).ranges, RangeSet::of(0..9));
}

#[test]
fn what_the_agent_no_longer_holds_is_lost_and_in_the_ledger() {
    let machine = Machine::new(30);
    let mut hub = Hub::open(&machine);
    (0..3).for_each(|offset| hub.ingest(hub.own(EPOCH, offset)));
    let report = EpochAccount {
        epoch: EPOCH,
        first_held: 6,
        end: 8,
        before: running(EPOCH, 6),
        total: running(EPOCH, 8),
    };
    hub.runtime.block_on(hub.store.reported(hub.agent, vec![report])).unwrap();
    (6..8).for_each(|offset| hub.ingest(hub.own(EPOCH, offset)));
    hub.settle();
    let state = hub.epoch(EPOCH);
    assert_eq!((state.lost.clone(), state.verified_end), (RangeSet::of(3..6), 8));
    let entry = hub.ledger.newest(1).remove(0);
    assert_eq!((entry.kind, entry.start, entry.end), (LedgerKind::Lost, Some(3), Some(6)));
    // A restored backup brings one of them after all.
    hub.ingest(hub.own(EPOCH, 4));
    hub.settle();
    assert_eq!(hub.epoch(EPOCH).lost, ranges(&[3..4, 5..6]));
    let before = strip(hub.store.accounts());
    hub.close();
    assert_eq!(strip(Hub::open(&machine.crash()).store.accounts()), before);
}

#[test]
fn an_agent_whose_path_was_taken_is_held_to_its_own_checksums() {
    let machine = Machine::new(35);
    let mut hub = Hub::open(&machine);
    let other = hub.catalogue.agent_id(&NodeId::parse("g/other").unwrap()).unwrap();
    let first = hub.catalogue.point(PointId(0)).unwrap();
    let assigned = hub.catalogue.assign(other, [first.definition.clone()], true).unwrap();
    for offset in 0..3 {
        let mut batch = ReceivedBatch { agent: other, ..hub.own(EPOCH, offset) };
        batch.samples.iter_mut().for_each(|sample| sample.point = assigned[0].id);
        hub.ingest(batch);
    }
    hub.settle();
    let state =
        |hub: &Hub| hub.store.accounts().into_iter().find(|a| a.id == other).unwrap().epochs.remove(0);
    let before = state(&hub);
    assert_eq!((before.verified_end, &before.mismatch), (3, &None));
    assert_eq!(before.account.count, running(EPOCH, 3).count);
    assert_ne!(before.account.checksum, running(EPOCH, 3).checksum); // rows have the hub's path
    hub.close();
    // Counted again from the log alone, the agent's next record still fits.
    let mut hub = Hub::open(&machine.crash());
    let mut batch = ReceivedBatch { agent: other, ..hub.own(EPOCH, 3) };
    batch.samples.iter_mut().for_each(|sample| sample.point = assigned[0].id);
    hub.ingest(batch);
    hub.settle();
    assert_eq!((state(&hub).verified_end, state(&hub).mismatch), (4, None));
}

#[test]
fn a_quarantined_record_is_settled_once_and_survives() {
    let machine = Machine::new(40);
    let mut hub = Hub::open(&machine);
    hub.ingest(hub.own(EPOCH, 0));
    let entry = QuarantineEntry {
        at: Timestamp(1),
        topic: "spBv1.0/g/DDATA/own/d".into(),
        reason: "bad-value".into(),
        settles: None,
        left_out: Vec::new(),
        payload: vec![1, 2],
    };
    let id = RecordId { epoch: EPOCH, offset: Offset(1) };
    for _ in 0..3 {
        hub.runtime.block_on(hub.store.quarantine(entry.clone(), Some((hub.agent, id)))).unwrap();
        hub.settle();
    }
    hub.runtime.block_on(hub.store.quarantine(entry.clone(), None)).unwrap();
    hub.settle();
    assert_eq!(hub.epoch(EPOCH).quarantined, RangeSet::of(1..2));
    let kept = hub.store.letters(|_| true, 10).unwrap();
    assert_eq!(kept.iter().map(|letter| &letter.bytes).collect::<Vec<_>>(), [&entry.payload, &entry.payload]);
    assert_eq!(kept.iter().map(|letter| letter.id.to_string()).collect::<Vec<_>>(), ["p1", "p0"]);
    let (_, settled) = hub.store.settled(hub.agent, &BTreeSet::from([EPOCH]));
    assert_eq!(settled, [(EPOCH, RangeSet::of(0..2))]);
    hub.close();
    let hub = Hub::open(&machine.crash());
    assert_eq!(hub.epoch(EPOCH).quarantined, RangeSet::of(1..2));
    assert_eq!(hub.store.letters(|_| true, 10).unwrap().len(), 2);
}

#[test]
fn a_full_disk_holds_and_goes_on_when_there_is_room() {
    let machine = Machine::new(50);
    let mut hub = Hub::open(&machine);
    hub.ingest(hub.own(EPOCH, 0));
    hub.settle();
    machine.plant.set_faults(Faults { capacity: 1, ..Faults::default() });
    hub.ingest(hub.own(EPOCH, 1));
    let holding = wait_for(|| matches!(hub.store.health(), StoreHealth::Holding(_)));
    assert!(holding, "{:?}", hub.store.health());
    let refused = hub.runtime.block_on(hub.store.ingest(vec![hub.own(EPOCH, 2)]));
    assert!(matches!(refused, Err(StoreError::NotWritable(_))), "{refused:?}");
    assert_eq!(hub.epoch(EPOCH).ranges, RangeSet::of(0..1));
    machine.plant.set_faults(Faults::default());
    assert!(wait_for(|| hub.store.health() == StoreHealth::Ok));
    hub.settle();
    assert_eq!(hub.epoch(EPOCH).ranges, RangeSet::of(0..2));
    hub.close();
}

#[test]
fn a_failed_sync_shuts_the_latch_and_nothing_more_is_told() {
    let machine = Machine::new(60);
    let mut hub = Hub::open(&machine);
    hub.ingest(hub.own(EPOCH, 0));
    hub.settle();
    machine.plant.set_faults(Faults { sync_error: 1, ..Faults::default() });
    hub.ingest(hub.own(EPOCH, 1));
    assert!(wait_for(|| matches!(hub.store.health(), StoreHealth::Latched(_))));
    machine.plant.set_faults(Faults::default());
    assert!(hub.runtime.block_on(hub.store.ingest(vec![hub.own(EPOCH, 2)])).is_err());
    assert_eq!(hub.epoch(EPOCH).ranges, RangeSet::of(0..1));
    hub.close();
    let hub = Hub::open(&machine.crash());
    assert!(hub.epoch(EPOCH).ranges.contains(0));
    assert_eq!(hub.store.health(), StoreHealth::Ok);
}

fn wait_for(mut is_so: impl FnMut() -> bool) -> bool {
    (0..5000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        is_so()
    })
}

#[test]
fn retention_keeps_what_checkpoints_need_and_names_what_readers_miss() {
    let machine = Machine::new(70);
    let bytes = 64 * 1024 * 8;
    let mut hub = Hub::open_with(&machine, bytes);
    hub.store.view().set_cursor("sink:lake", Position(3)).unwrap();
    let long = "x".repeat(8000);
    for offset in 0..150 {
        let mut batch = hub.own(EPOCH, offset);
        batch.samples.truncate(1);
        batch.samples[0].value = Some(Value::String(long.clone()));
        if let Identity::Own { running, .. } = &mut batch.identity {
            *running = None;
        }
        hub.ingest(batch);
    }
    hub.settle();
    assert!(hub.store.view().bytes() > bytes);
    let ticks = |hub: &mut Hub| {
        (0..20).for_each(|_| hub.store.tick());
        hub.settle();
    };
    ticks(&mut hub);
    assert_eq!(hub.store.view().first(), Position(0)); // no checkpoint yet
    hub.checkpoint();
    ticks(&mut hub);
    assert_eq!(hub.store.view().first(), Position(0)); // one generation is not enough
    hub.checkpoint();
    ticks(&mut hub);
    assert!(hub.store.view().bytes() <= bytes);
    let first = hub.store.view().first();
    assert!(first.0 > 3);
    let entry = hub.ledger.newest(1).remove(0);
    assert_eq!((entry.kind, entry.start, entry.end), (LedgerKind::TrimmedUnread, Some(3), Some(first.0)));
    assert!(entry.reason.contains("sink:lake"), "{}", entry.reason);
    hub.close();
    // What was trimmed is still known, through the checkpoint.
    let hub = Hub::open_with(&machine.crash(), bytes);
    assert_eq!(hub.epoch(EPOCH).ranges, RangeSet::of(0..150));
    hub.close();
    // Without it, it is not; that is in the ledger.
    let bare = Machine { checkpoint: FaultyStorage::new(71), ..machine.crash() };
    let hub = Hub::open_with(&bare, bytes);
    assert_eq!(hub.epoch(EPOCH).ranges, RangeSet::of(first.0..150));
    assert_eq!(hub.ledger.newest(1)[0].kind, LedgerKind::Rebuilt);
}

/// What happens to a hub in the property test.
#[derive(Clone, Debug)]
enum Step {
    /// A payload arrives (perhaps again, perhaps out of order).
    Payload {
        epoch: u64,
        offset: u64,
    },
    /// A foreign payload arrives.
    Foreign,
    Checkpoint,
    /// The process ends in order.
    Restart,
    /// The power goes, with everything queued.
    PowerCut,
    /// From now on, until the next restart, writes and syncs fail now and then.
    BadDisk,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..4_u64, 0..24_u64).prop_map(|(epoch, offset)| Step::Payload { epoch, offset }),
        2 => Just(Step::Foreign),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
        1 => Just(Step::BadDisk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever arrives how often and whenever the hub ends: what it says it holds is what its log holds, once, and
    /// nothing that it told before is missing.
    #[test]
    fn ranges_and_accounts_equal_the_model(seed in 1..u64::MAX, steps in prop::collection::vec(step(), 1..60)) {
        let mut machine = Machine::new(seed);
        let mut hub = Hub::open(&machine);
        let mut told: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        let mut sent: BTreeMap<Epoch, RangeSet> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Payload { epoch, offset } => {
                    let epoch = Epoch(epoch);
                    let taken = hub.try_ingest(hub.own(epoch, offset));
                    prop_assert!(taken.is_ok() || hub.store.health() != StoreHealth::Ok);
                    sent.entry(epoch).or_default().insert_one(offset);
                }
                Step::Foreign => drop(hub.try_ingest(hub.foreign(1.0))),
                Step::Checkpoint => {
                    hub.settle();
                    hub.checkpoint();
                }
                Step::BadDisk => {
                    machine.plant.set_faults(Faults { write_error: 5, sync_error: 3, ..Faults::default() });
                }
                Step::Restart | Step::PowerCut => {
                    let orderly = matches!(step, Step::Restart);
                    if orderly {
                        hub.settle();
                    }
                    told = receipts(&hub);
                    // What a failing disk was given may be there although nobody was told so.
                    let healthy = hub.store.health() == StoreHealth::Ok;
                    let after = machine.crash(); // the disks are dead from here on
                    hub.close();
                    machine = after;
                    hub = Hub::open(&machine);
                    if orderly && healthy {
                        prop_assert_eq!(receipts(&hub), told.clone());
                    }
                }
            }
            check(&hub, &told, &sent)?;
        }
        told = receipts(&hub);
        let after = machine.crash();
        hub.close();
        hub = Hub::open(&after);
        check(&hub, &told, &sent)?;
        let lost = sent.clone();
        for (epoch, ranges) in &lost {
            for offset in ranges.iter().flatten() {
                hub.ingest(hub.own(*epoch, offset)); // agents send what has no receipt again
            }
        }
        hub.settle();
        prop_assert_eq!(receipts(&hub), sent.clone());
        check(&hub, &sent, &sent)?;
        hub.close();
    }
}

fn receipts(hub: &Hub) -> BTreeMap<Epoch, RangeSet> {
    let epochs = (1..4).map(Epoch).collect();
    let (_, settled) = hub.store.settled(hub.agent, &epochs);
    settled.into_iter().filter(|(_, ranges)| !ranges.is_empty()).collect()
}

fn check(
    hub: &Hub,
    told: &BTreeMap<Epoch, RangeSet>,
    sent: &BTreeMap<Epoch, RangeSet>,
) -> Result<(), TestCaseError> {
    let accounts = hub.store.accounts();
    let own = accounts.iter().filter(|account| account.id == hub.agent).flat_map(|account| &account.epochs);
    for state in own {
        prop_assert_eq!(state.account, sum(state.epoch, &state.ranges));
        prop_assert!(state.ranges.iter().flatten().all(|offset| sent[&state.epoch].contains(offset)));
        prop_assert_eq!(&state.mismatch, &None);
    }
    let now = receipts(hub);
    for (epoch, ranges) in told {
        let here = now.get(epoch).cloned().unwrap_or_default();
        prop_assert!(
            ranges.iter().all(|range| here.contains_range(&range)),
            "{} told, {} held",
            ranges,
            here
        );
    }
    Ok(())
}
