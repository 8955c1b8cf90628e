//! The ledger on disks that lose power, fail and are tampered with.

use durable_log::{Faults, FaultyStorage};

use super::*;
use crate::commands::Target;

/// A plant log that holds these reports.
#[derive(Default)]
struct Reports(Vec<(NodeId, CommandReport)>);

impl Plant for Reports {
    fn target(&self, _path: &str) -> Option<Target> {
        None
    }

    fn log_end(&self) -> u64 {
        0
    }

    fn reports_since(&self, _from: u64) -> Vec<(NodeId, CommandReport)> {
        self.0.clone()
    }
}

fn node() -> NodeId {
    NodeId::new("g", "n").unwrap()
}

fn id(number: u8) -> CommandId {
    CommandId([number; 16])
}

fn recorded(number: u8) -> Entry {
    Entry::Recorded(CommandRecord {
        id: id(number),
        path: "presse/druck/Sollwert".into(),
        value: "4.2".into(),
        author: "Jörg".into(),
        reason: "\"test\"".into(),
        at: Timestamp(1),
        expires_at: Timestamp(2),
        state: CommandState::Recorded,
        outcome: None,
        read_back: String::new(),
        ended_at: None,
    })
}

fn sent(number: u8) -> Entry {
    Entry::Sent { id: id(number), at: Timestamp(2), node: node(), log_end: 7 }
}

fn closed(number: u8, outcome: CommandOutcome) -> Entry {
    Entry::Closed { id: id(number), at: Timestamp(3), outcome, read_back: "4.2".into() }
}

fn open_at(disk: &FaultyStorage) -> Result<(Ledger, Book), LedgerError> {
    open_on(Arc::new(disk.clone()), &Reports::default(), Timestamp(9))
}

fn outcome(book: &Book, number: u8) -> Option<CommandOutcome> {
    book.get(id(number)).and_then(|record| record.outcome)
}

#[test]
fn every_entry_reads_back_as_it_was() {
    let mut link = [0; LINK];
    for entry in [
        recorded(1),
        sent(1),
        Entry::Unknown { id: id(1), at: Timestamp(3), why: "silence".into() },
        closed(1, CommandOutcome::Refused("range: 9 is above 8".into())),
    ] {
        let body = serde_json::to_vec(&Wire::from(&entry)).unwrap();
        let next = chain(&link, &body);
        let record = [&[VERSION], &next[..], &body].concat();
        assert_eq!(read(&record, &link), Ok((next, entry)));
        assert!(read(&record, &[1; LINK]).is_err());
        assert!(read(&record[..20], &link).is_err());
        link = next;
    }
    assert!(read(&[], &link).is_err());
    assert!(read(&[2], &link).unwrap_err().contains("upgrade"));
}

#[test]
fn a_restart_settles_what_was_under_way() {
    let disk = FaultyStorage::new(1);
    let (mut ledger, _) = open_at(&disk).unwrap();
    for entry in [recorded(1), recorded(2), sent(2), recorded(3), sent(3), recorded(4), sent(4)] {
        ledger.append(&entry).unwrap();
    }
    ledger.append(&closed(3, CommandOutcome::Done)).unwrap();
    let disk = disk.crash();
    let report = |number, from: NodeId| {
        let (outcome, path, read_back) = (CommandOutcome::Done, "p".into(), "5".into());
        (from, CommandReport { id: id(number), outcome, path, read_back })
    };
    let reports = Reports(vec![report(4, node()), report(2, NodeId::new("g", "liar").unwrap())]);
    let (_, book) = open_on(Arc::new(disk.clone()), &reports, Timestamp(9)).unwrap();
    assert_eq!(outcome(&book, 1), Some(CommandOutcome::Expired), "never sent");
    assert!(
        matches!(outcome(&book, 2), Some(CommandOutcome::Unknown(_))),
        "sent, and only another agent spoke"
    );
    assert_eq!(outcome(&book, 3), Some(CommandOutcome::Done));
    assert_eq!(outcome(&book, 4), Some(CommandOutcome::Done), "the report was on disk already");
    assert_eq!(book.get(id(4)).unwrap().read_back, "5");
    assert!(book.awaits(id(2), &node()), "a late report still amends it");

    let (_, again) = open_at(&disk.crash()).unwrap();
    assert_eq!(again.recent(10), book.recent(10), "settled once, for good");
}

#[test]
fn what_append_returned_survives_any_power_cut() {
    for seed in 0..60 {
        let disk = FaultyStorage::new(seed);
        let (mut ledger, _) = open_at(&disk).unwrap();
        let mut acknowledged = Vec::new();
        for number in 1..=20 {
            for entry in [recorded(number), sent(number)] {
                ledger.append(&entry).unwrap();
            }
            acknowledged.push(number);
            if seed % 20 == u64::from(number) % 20 {
                break;
            }
        }
        let (_, book) = open_at(&disk.crash()).unwrap();
        for number in acknowledged {
            assert!(matches!(outcome(&book, number), Some(CommandOutcome::Unknown(_))), "seed {seed}");
        }
    }
}

#[test]
fn a_failed_write_stops_it_and_the_chain_holds_afterwards() {
    for seed in 0..60 {
        let disk = FaultyStorage::new(seed);
        let (mut ledger, _) = open_at(&disk).unwrap();
        disk.set_faults(Faults { write_error: 10, sync_error: 10, ..Faults::default() });
        let mut told = 0;
        while told < 30 && ledger.append(&recorded(told + 1)).is_ok() {
            told += 1;
        }
        if told < 30 {
            assert!(ledger.append(&recorded(99)).is_err(), "the latch is shut");
        }
        let disk = disk.crash();
        disk.set_faults(Faults::default());
        let (_, book) = open_at(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for number in 1..=told {
            assert!(book.get(id(number)).is_some(), "seed {seed}: {number} of {told}");
        }
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = FaultyStorage::new(5);
    let (mut ledger, _) = open_at(&disk).unwrap();
    ledger.append(&recorded(1)).unwrap();
    disk.set_faults(Faults { capacity: 0, ..Faults::default() });
    let error = ledger.append(&recorded(2)).unwrap_err();
    assert!(matches!(error, LedgerError::Log(_)), "{error}");
    disk.set_faults(Faults::default());
    ledger.append(&recorded(3)).unwrap();
    let (_, book) = open_at(&disk.crash()).unwrap();
    assert!(book.get(id(1)).is_some() && book.get(id(3)).is_some());
}

#[test]
fn tampering_is_found_and_named() {
    // Somebody with the program's own log rewrites history: right checksums, wrong chain.
    let forge = |skip: usize, change: bool| {
        let disk = FaultyStorage::new(1);
        let (mut ledger, _) = open_at(&disk).unwrap();
        for entry in [recorded(1), sent(1), closed(1, CommandOutcome::Done)] {
            ledger.append(&entry).unwrap();
        }
        let mut reader = ledger.log.view().reader(Position(0));
        let mut records = Vec::new();
        while let Some((_, record)) = reader.next().unwrap() {
            records.push(record.to_vec());
        }
        records.remove(skip);
        if change {
            let text = String::from_utf8_lossy(&records[0]).into_owned();
            assert!(text.contains("4.2"));
            let at = records[0].windows(3).position(|w| w == b"4.2").unwrap();
            records[0][at] = b'9';
        }
        let forged = FaultyStorage::new(2);
        let (mut log, _) = Log::open_on(Arc::new(forged.clone()), Options::default(), 77).unwrap();
        for record in &records {
            log.append_group(&[record]).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        open_at(&forged.crash())
    };
    for (skip, change, at) in [(0, false, 0), (1, false, 1), (2, true, 0)] {
        match forge(skip, change) {
            Err(LedgerError::Broken { at: found, .. }) => assert_eq!(found, at),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    assert!(forge(2, false).is_ok(), "a shorter prefix is what a power cut leaves");
}
