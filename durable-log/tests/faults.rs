//! Single faults, one by one: the latch, the full disk, the failing read.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: it may fail, and its numbers are small"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use durable_log::{
    Budget, Committer, Faults, FaultyStorage, Intake, Log, LogError, Options, Position, Remedy, Taken, run,
};

fn options() -> Options {
    Options { segment_bytes: 4096, bytes_max: 1 << 20, reserve_bytes: 0, ..Options::default() }
}

fn log_on(disk: &FaultyStorage, epoch: u64) -> Log {
    Log::open_on(Arc::new(disk.clone()), options(), epoch).unwrap().0
}

#[test]
fn the_first_failed_write_or_sync_shuts_the_latch() {
    for faults in
        [Faults { write_error: 1, ..Faults::default() }, Faults { sync_error: 1, ..Faults::default() }]
    {
        let disk = FaultyStorage::new(1);
        let mut log = log_on(&disk, 1);
        log.append_group(&[b"kept"]).unwrap();
        log.sync().unwrap();
        let mut reader = log.view().reader(Position(0));
        disk.set_faults(faults);
        log.append_group(&[b"not kept"]).unwrap();
        let first = log.sync().unwrap_err();
        assert!(matches!(first, LogError::Latched { .. }) && first.remedy() == Remedy::Restart, "{first}");
        disk.set_faults(Faults::default()); // the disk is well again: nothing is tried again all the same
        assert!(matches!(log.sync(), Err(LogError::Latched { .. })));
        assert!(matches!(log.append_group(&[b"x"]), Err(LogError::Latched { .. })));
        assert!(matches!(log.trim(Position(1)), Err(LogError::Latched { .. })));
        let cause = log.latched().unwrap();
        assert!(matches!(&*cause, LogError::Io { .. }), "{cause}");
        assert_eq!(log.view().durable_end(), Position(1));
        assert_eq!(reader.next().unwrap(), Some((Position(0), &b"kept"[..])));
        assert_eq!(reader.next().unwrap(), None);
    }
}

#[test]
fn no_room_at_any_byte_is_no_latch_and_loses_nothing() {
    let records: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 30 + usize::from(n)]).collect();
    for room in 0..1200 {
        let disk = FaultyStorage::new(room);
        let mut log = log_on(&disk, 1);
        let held = log.view().bytes();
        // The room vanishes after the log last looked: the write itself hits the end of the disk.
        log.append_group(&[&records[0]]).unwrap();
        for record in &records[1..10] {
            log.append_group(&[record]).unwrap();
        }
        disk.set_faults(Faults { capacity: held + room, short: 3, ..Faults::default() });
        match log.sync() {
            Ok(end) => assert_eq!(end, Position(10)),
            Err(full) => {
                assert!(full.is_full() && full.remedy() == Remedy::MakeRoom && log.latched().is_none());
                assert!(log.append_group(&[b"refused"]).unwrap_err().is_full());
                assert_eq!((log.end(), log.view().durable_end()), (Position(10), Position(0)));
                disk.set_faults(Faults::default());
            }
        }
        disk.set_faults(Faults::default());
        assert_eq!(log.sync().unwrap(), Position(10));
        log.append_group(&[&records[10]]).unwrap();
        log.sync().unwrap();
        drop(log);
        let log = log_on(&disk.crash(), 2);
        let mut reader = log.view().reader(Position(0));
        for record in &records[..=10] {
            assert_eq!(reader.next().unwrap().unwrap().1, record);
        }
        assert_eq!(reader.next().unwrap(), None);
    }
}

#[test]
fn a_full_disk_is_opened_trimmed_and_written_again() {
    let disk = FaultyStorage::new(1);
    let mut log = log_on(&disk, 1);
    for _ in 0..100 {
        log.append_group(&[&[7; 300]]).unwrap();
        log.sync().unwrap();
    }
    let held = log.view().bytes();
    drop(log);
    disk.set_faults(Faults { capacity: held, ..Faults::default() });
    let mut log = log_on(&disk, 2);
    assert!(log.append_group(&[b"x"]).unwrap_err().is_full());
    assert_eq!(log.sync().unwrap(), Position(100));
    assert!(log.trim(Position(50)).unwrap() > Position(30));
    assert_eq!(log.append_group(&[b"x"]).unwrap(), Position(100));
    assert_eq!(log.sync().unwrap(), Position(101));
    assert_eq!(log.view().epoch_of(Position(100)), Some(2));
}

#[test]
fn the_reserve_of_the_disk_is_left_alone() {
    let disk = FaultyStorage::new(1);
    disk.set_faults(Faults { capacity: 20_000, ..Faults::default() });
    let options = Options { reserve_bytes: 5_000, ..options() };
    let (mut log, _) = Log::open_on(Arc::new(disk.clone()), options, 1).unwrap();
    while log.append_group(&[&[7; 300]]).map_err(|e| assert!(e.is_full())).is_ok() {}
    log.sync().unwrap();
    let bytes = log.view().bytes();
    assert!((14_000..=15_000).contains(&bytes), "{bytes}");
    log.trim(Position(20)).unwrap();
    log.append_group(&[&[7; 300]]).unwrap();
}

#[test]
fn a_reader_goes_on_after_a_failed_read() {
    let disk = FaultyStorage::new(1);
    let mut log = log_on(&disk, 1);
    for n in 0..200_u8 {
        log.append_group(&[&[n; 100]]).unwrap();
    }
    log.sync().unwrap();
    disk.set_faults(Faults { read_error: 3, short: 2, ..Faults::default() });
    let (mut reader, mut read, mut failed) = (log.view().reader(Position(0)), 0, 0);
    while read < 200 {
        match reader.next() {
            Ok(record) => {
                assert_eq!(record, Some((Position(read), &[read as u8; 100][..])));
                read += 1;
            }
            Err(error) => {
                assert!(matches!(error, LogError::Io { doing: "reading", .. }), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
}

type Answer = SyncSender<Result<Position, String>>;

/// An item is a record and somebody who waits; the empty record asks for a trim of everything.
#[derive(Default)]
struct Answering {
    waiting: Vec<(Position, Answer)>,
    times_without_room: u32,
}

impl Committer for Answering {
    type Item = (Vec<u8>, Answer);

    fn append(&mut self, log: &mut Log, (record, answer): Self::Item) -> u64 {
        let result =
            if record.is_empty() { log.trim(Position(u64::MAX)) } else { log.append_group(&[&record]) };
        match result {
            Ok(position) => self.waiting.push((position, answer)),
            Err(error) => answer.send(Err(error.to_string())).unwrap(),
        }
        record.len() as u64
    }

    fn durable(&mut self, log: &mut Log, end: Position) {
        assert_eq!(log.view().durable_end(), end);
        for (position, answer) in self.waiting.drain(..) {
            answer.send(Ok(position)).unwrap();
        }
    }

    fn no_room(&mut self, _log: &mut Log, _full: &LogError) {
        self.times_without_room += 1;
    }

    fn failed(&mut self, _log: &mut Log, cause: &Arc<LogError>) {
        for (_position, answer) in self.waiting.drain(..) {
            answer.send(Err(cause.to_string())).unwrap();
        }
    }
}

/// The room is gone after so many items: deterministic, since it happens in the writer's own thread.
struct Vanishing {
    items: Receiver<(Vec<u8>, Answer)>,
    disk: FaultyStorage,
    left: u32,
    waited: u32,
}

impl Intake for Vanishing {
    type Item = (Vec<u8>, Answer);

    fn wait(&mut self, at_most: Option<std::time::Duration>) -> Taken<Self::Item> {
        if at_most.is_some() {
            self.waited += 1;
            if self.waited == 3 {
                self.disk.set_faults(Faults::default());
            }
            return Taken::Nothing;
        }
        self.items.wait(None)
    }

    fn take(&mut self) -> Option<Self::Item> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.waited == 0 {
            self.disk.set_faults(Faults { capacity: 0, ..Faults::default() });
        }
        self.items.take()
    }
}

#[test]
fn one_sync_answers_many() {
    let disk = FaultyStorage::new(1);
    let mut log = log_on(&disk, 1);
    let (sender, mut intake) = sync_channel(16);
    let producers: Vec<_> = (0..4_u8)
        .map(|n| {
            let sender = sender.clone();
            thread::spawn(move || {
                for _ in 0..50 {
                    let (answer, answered) = sync_channel::<Result<Position, String>>(1);
                    sender.send((vec![n; 40], answer)).unwrap();
                    answered.recv().unwrap().unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    run(&mut log, &mut intake, Budget::default(), &mut Answering::default()).unwrap();
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    assert_eq!(log.view().durable_end(), Position(200));
}

#[test]
fn a_commit_without_room_waits_and_then_answers() {
    let disk = FaultyStorage::new(1);
    let mut log = log_on(&disk, 1);
    let (sender, items) = sync_channel(16);
    let answers: Vec<_> = (0..10_u8)
        .map(|n| {
            let (answer, answered) = sync_channel(1);
            sender.send((vec![n + 1; 40], answer)).unwrap();
            answered
        })
        .collect();
    drop(sender);
    let mut intake = Vanishing { items, disk, left: 10, waited: 0 };
    let mut committer = Answering::default();
    run(&mut log, &mut intake, Budget::default(), &mut committer).unwrap();
    assert_eq!(committer.times_without_room, 3);
    for (n, answered) in answers.iter().enumerate() {
        assert_eq!(answered.recv().unwrap(), Ok(Position(n as u64)));
    }
}

#[test]
fn a_shut_latch_answers_and_ends_the_writer() {
    let disk = FaultyStorage::new(1);
    let mut log = log_on(&disk, 1);
    let (sender, mut intake) = sync_channel(16);
    let (answer, answered) = sync_channel(1);
    sender.send((vec![1; 40], answer)).unwrap();
    disk.set_faults(Faults { sync_error: 1, ..Faults::default() });
    let error = run(&mut log, &mut intake, Budget::default(), &mut Answering::default()).unwrap_err();
    assert!(matches!(error, LogError::Latched { .. }));
    assert!(answered.recv().unwrap().is_err());
}
