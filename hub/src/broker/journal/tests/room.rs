//! Full disks, the bound, failing disks, and snapshots that are damaged or gone.

use std::fmt::Write as _;

use durable_log::Faults;

use super::super::recovered::Replaying;
use super::*;

fn picture(rig: &Rig) -> SnapshotState {
    let Recovered { sessions, retained, next_session, .. } = rig.recovered.clone();
    SnapshotState { sessions, retained, next_session }
}

#[test]
fn a_full_disk_keeps_order_and_goes_on_by_itself() {
    let disk = FaultyStorage::new(1);
    let mut rig = Rig::open(&disk);
    disk.set_faults(Faults { capacity: 300 * 1024, ..Faults::default() });
    for i in 0..400_u32 {
        rig.append(to(&[1], message("t", [i.to_be_bytes().to_vec(), vec![0; 1000]].concat())));
        rig.journal().submit();
    }
    rig.wait(|event| matches!(event, JournalEvent::NoRoom).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    let next = rig.journal().next_position();
    rig.drain();
    assert!(rig.journal().durable_end() < next, "400 KB on a disk of 300 KB");
    assert!(rig.journal().backlog_bytes() > 50_000);
    disk.set_faults(Faults::default());
    rig.wait(|event| matches!(event, JournalEvent::Room).then_some(()));
    rig.settle();
    assert_eq!(rig.journal().backlog_bytes(), 0);
    let all = rig.read_all(1, Position::ZERO, 1000);
    assert_eq!(all.len(), 400);
    for (i, (_, message, _)) in all.iter().enumerate() {
        assert_eq!(message.payload[..4], (i as u32).to_be_bytes());
    }
    rig.close();
}

/// A session that is away fills the journal; when its messages are given up, there is room.
#[test]
fn the_bound_is_told_and_giving_messages_up_makes_room() {
    let disk = FaultyStorage::new(2);
    let mut rig = Rig::open(&disk);
    rig.append(session(1));
    rig.recovered.sessions.clear();
    let mut count = 0;
    let mut is_full = false;
    while !is_full {
        rig.append(to(&[1], message("t", vec![7; 1000])));
        count += 1;
        rig.settle();
        is_full = rig.drain().iter().any(|event| matches!(event, JournalEvent::NoRoom))
            || !rig.journal().has_room();
        assert!(count < 2000, "the bound was never told");
    }
    assert!(rig.journal().held_bytes() >= rig.journal().bytes_max());
    let end = rig.journal().next_position();
    rig.append(Record::Skipped { id: SessionId(1), to: count, position: end, queued_bytes: 0 });
    let next = rig.journal().next_position();
    rig.journal().keep_from(next);
    assert!(rig.journal().wants_snapshot());
    let mut replaying = Replaying::default();
    replaying.apply(Position::ZERO, session(1));
    replaying.apply(end, Record::Skipped { id: SessionId(1), to: count, position: end, queued_bytes: 0 });
    rig.recovered = replaying.finish(next, None);
    let state = picture(&rig);
    rig.journal().snapshot(state);
    assert!(!rig.journal().wants_snapshot());
    rig.wait(|event| matches!(event, JournalEvent::Room).then_some(()));
    assert!(segments(&disk)[0] > 0);
    assert!(rig.journal().held_bytes() < 10_000, "{}", rig.journal().held_bytes());
    rig.append(to(&[1], message("t", "after")));
    rig.settle();
    rig.close();
    let rig = Rig::open(&disk);
    let found = &rig.recovered.sessions[0];
    assert_eq!((found.base, found.end, found.queued_bytes > 0), (count, count + 1, true));
    rig.close();
}

#[test]
fn what_is_not_durable_frees_nothing() {
    let disk = FaultyStorage::new(3);
    let mut rig = Rig::open(&disk);
    rig.append(session(1));
    for _ in 0..50 {
        rig.append(to(&[1], message("t", vec![7; 1000])));
    }
    rig.settle();
    let state = picture(&rig);
    rig.journal().snapshot(state);
    let snapshots = rig.metrics.counter("forebay_broker_snapshots_total", "", &[]);
    rig.wait_until("the snapshot", |_| snapshots.get() == 1);
    // Progress is appended and not submitted: nothing may go.
    let position = rig.journal().next_position();
    rig.append(Record::Progress { id: SessionId(1), base: 50, position, done: vec![], queued_bytes: 0 });
    rig.journal().keep_from(position);
    std::thread::sleep(Duration::from_millis(100));
    rig.drain();
    assert_eq!(segments(&disk)[0], 0);
    rig.settle();
    rig.wait_until("the trim", |rig| {
        rig.drain();
        segments(&disk)[0] > 0
    });
    rig.close();
}

#[test]
fn the_newest_limit_of_trimming_is_not_forgotten() {
    let disk = FaultyStorage::new(13);
    let mut rig = Rig::open(&disk);
    for _ in 0..50 {
        rig.append(to(&[1], message("t", vec![7; 1000])));
    }
    let next = rig.journal().next_position();
    rig.journal().keep_from(Position(1));
    rig.journal().keep_from(next);
    let state = picture(&rig);
    rig.journal().snapshot(state);
    rig.settle();
    rig.wait_until("the trim", |_| segments(&disk)[0] > 10);
    rig.close();
}

#[test]
fn a_disk_that_is_full_from_the_beginning_is_told() {
    fn can_move<T: Send>(_: &T) {}
    let disk = FaultyStorage::new(14);
    Rig::open(&disk).close();
    disk.set_faults(Faults { capacity: 1000, ..Faults::default() });
    let mut rig = Rig::open(&disk);
    can_move(rig.journal());
    rig.wait(|event| matches!(event, JournalEvent::NoRoom).then_some(()));
    rig.close();
}

/// What a snapshot that did not fit has written is given back.
#[test]
fn a_snapshot_without_room_is_tried_again_later() {
    let disk = FaultyStorage::new(15);
    let mut rig = Rig::open(&disk);
    rig.append(session(1));
    rig.settle();
    disk.set_faults(Faults { capacity: 600, ..Faults::default() });
    let retained = (0..900).map(|i| Arc::new(message(&format!("t/{i}"), vec![7; 1000]))).collect();
    rig.journal().snapshot(SnapshotState { sessions: vec![], retained, next_session: SessionId(2) });
    let failures = rig.metrics.counter("forebay_broker_snapshot_failures_total", "", &[]);
    rig.wait_until("the failure", |_| failures.get() == 1);
    rig.wait_until("the end of it", |rig| matches!(rig.journal().shared.state().picture, Picture::Failed(_)));
    assert!(!rig.journal().wants_snapshot(), "at once");
    assert!(!disk.names().iter().any(|name| name.starts_with("snapshot")), "{:?}", disk.names());
    disk.set_faults(Faults::default());
    rig.close();
}

#[test]
fn a_failed_sync_shuts_the_journal_and_reading_goes_on() {
    let disk = FaultyStorage::new(4);
    let mut rig = Rig::open(&disk);
    rig.append(to(&[1], message("t", "good")));
    rig.settle();
    disk.set_faults(Faults { sync_error: 1, ..Faults::default() });
    rig.append(to(&[1], message("t", "lost")));
    rig.journal().submit();
    let cause = rig.wait(|event| match event {
        JournalEvent::Failed(cause) => Some(cause),
        JournalEvent::Durable(_) => panic!("told durable"),
        _ => None,
    });
    assert!(cause.to_string().contains("syncing"), "{cause}");
    disk.set_faults(Faults::default());
    rig.append(to(&[1], message("t", "lost too")));
    rig.journal().submit();
    assert_eq!(rig.read_all(1, Position::ZERO, 10).len(), 1);
    assert!(!rig.drain().iter().any(|event| matches!(event, JournalEvent::Failed(_))), "told twice");
    assert_eq!(rig.journal().durable_end(), Position(1));
    rig.close();
    let rig = Rig::open(&disk.crash());
    assert!((1..=2).contains(&rig.recovered.end.0));
    rig.close();
}

/// A journal whose log was trimmed below its snapshot.
fn trimmed() -> FaultyStorage {
    let disk = FaultyStorage::new(5);
    let mut rig = Rig::open(&disk);
    for _ in 0..50 {
        rig.append(to(&[1], message("t", vec![7; 1000])));
    }
    let next = rig.journal().next_position();
    rig.journal().keep_from(next);
    let state = picture(&rig);
    rig.journal().snapshot(state);
    rig.wait_until("the trim", |rig| {
        rig.drain();
        segments(&disk)[0] > 0
    });
    rig.close();
    disk
}

fn refused(disk: &FaultyStorage) -> String {
    let Err(error) = Rig::open_with(Arc::new(disk.copy()), small()) else { panic!("it opened") };
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        write!(text, ": {source}").unwrap();
    }
    text
}

#[test]
fn a_damaged_or_missing_snapshot_is_never_passed_over() {
    let disk = trimmed();
    Rig::open(&disk.copy()).close();
    let good = disk.bytes_of("snapshot").unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    disk.replace("snapshot", bad);
    Rig::open(&disk.copy()).close(); // its copy is whole
    let copy = disk.bytes_of("snapshot.copy").unwrap();
    disk.remove("snapshot.copy").unwrap();
    let why = refused(&disk);
    assert!(why.contains("/faulty/snapshot is damaged") && why.contains("backup"), "{why}");
    disk.replace("snapshot.copy", copy.into_iter().map(|byte| byte ^ 0x55).collect());
    let why = refused(&disk);
    assert!(why.contains("is damaged"), "{why}");
    let missing = FaultyStorage::new(6);
    for name in disk.names().iter().filter(|name| *name != "snapshot") {
        missing.replace(name, disk.bytes_of(name).unwrap());
    }
    let why = refused(&missing);
    assert!(why.contains("/faulty/snapshot is missing"), "{why}");
    // The snapshot of another log.
    let other = FaultyStorage::new(7);
    let mut rig = Rig::open(&other);
    rig.append(session(1));
    rig.settle();
    rig.close();
    other.replace("snapshot", good);
    let why = refused(&other);
    assert!(why.contains("and the log holds 0 to 1"), "{why}");
}

#[test]
fn a_missing_snapshot_of_a_whole_log_costs_nothing() {
    let disk = FaultyStorage::new(8);
    let mut rig = Rig::open(&disk);
    rig.append(session(1));
    rig.append(to(&[1], message("t", "x")));
    rig.settle();
    let state = picture(&rig);
    rig.journal().snapshot(state);
    rig.close();
    let bare = FaultyStorage::new(9);
    for name in disk.names().iter().filter(|name| *name != "snapshot") {
        bare.replace(name, disk.bytes_of(name).unwrap());
    }
    let rig = Rig::open(&bare);
    assert_eq!((rig.recovered.sessions.len(), rig.recovered.end), (1, Position(2)));
    rig.close();
}

#[test]
fn closing_makes_everything_durable_and_writes_the_snapshot() {
    let disk = FaultyStorage::new(10);
    let mut rig = Rig::open(&disk);
    for id in 0..100 {
        rig.append(session(id));
    }
    let state = picture(&rig);
    rig.journal().snapshot(state);
    rig.append(session(100));
    rig.close();
    assert!(disk.bytes_of("snapshot").is_some());
    let rig = Rig::open(&disk.crash());
    assert_eq!(rig.recovered.end, Position(101));
    rig.close();
}

#[test]
fn a_record_above_the_maximum_takes_no_position() {
    let mut rig = Rig::open(&FaultyStorage::new(11));
    let next = rig.journal().next_position();
    let large = to(&[1], message("t", vec![0; 65 * 1024]));
    let refused = rig.journal().append(large).unwrap_err();
    assert_eq!(refused.bytes_max, 64 * 1024);
    assert_eq!(rig.journal().next_position(), next);
    rig.close();
}

#[test]
fn bounds_that_do_not_go_together_are_refused() {
    let options = JournalOptions { headroom_bytes: 0, ..JournalOptions::new(1 << 20) };
    let Err(error) = Rig::open_with(Arc::new(FaultyStorage::new(12)), options) else { panic!("it opened") };
    assert!(error.to_string().contains("too small; at least 67"), "{error}");
    assert!(JournalOptions::new(8 << 20).log_options().is_ok());
    assert!(JournalOptions::default().log_options().is_ok());
}
