//! The log on a real directory: what its users rely on, call by call.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: it may fail, and its numbers are small"
)]

use std::fs;
use std::path::Path;

use durable_log::{Log, LogError, LogView, Options, Position, Reader, WhenFull, inspect, verify};

fn small() -> Options {
    Options { segment_bytes: 4096, bytes_max: 64 * 1024, reserve_bytes: 0, ..Options::default() }
}

fn record(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(8 + (n * 37 % 300) as usize, n as u8);
    bytes
}

fn append(log: &mut Log, from: u64, to: u64) {
    for n in from..to {
        assert_eq!(log.append_group(&[&record(n)]).unwrap(), Position(n));
    }
    assert_eq!(log.sync().unwrap(), Position(to));
}

fn all(reader: &mut Reader) -> Vec<(Position, Vec<u8>)> {
    let mut read = Vec::new();
    while let Some((position, bytes)) = reader.next().unwrap() {
        read.push((position, bytes.to_vec()));
    }
    read
}

fn assert_holds(view: &LogView, from: u64, to: u64) {
    let read = all(&mut view.reader(Position(from)));
    assert_eq!(read.len() as u64, to - from);
    for (i, (position, bytes)) in read.iter().enumerate() {
        assert_eq!(*position, Position(from + i as u64));
        assert_eq!(*bytes, record(position.0));
    }
}

fn segment_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_synced_is_read_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for epoch in 1..=5 {
        let (mut log, recovery) = Log::open(dir.path(), small(), epoch).unwrap();
        let at = (epoch - 1) * 30;
        assert_eq!((recovery.end, &recovery.cut), (Position(at), &None), "{recovery}");
        append(&mut log, at, at + 30);
        assert_holds(&log.view(), 0, at + 30);
        assert_eq!(log.view().epoch_of(Position(at)), Some(epoch));
        assert_eq!(log.view().epoch_of(Position(at + 30)), None);
    }
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole() && report.records() == 150, "{report}");
    assert!(inspect(dir.path()).unwrap().to_string().contains("positions 0 to 150"));
}

#[test]
fn nothing_is_seen_before_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    let view = log.view();
    let mut reader = view.reader(Position::ZERO);
    log.append_group(&[b"one", b"two"]).unwrap();
    assert_eq!((log.end(), view.durable_end()), (Position(2), Position(0)));
    assert!(reader.next().unwrap().is_none());
    log.sync().unwrap();
    assert_eq!(reader.next().unwrap(), Some((Position(0), &b"one"[..])));
    assert_eq!(reader.next().unwrap(), Some((Position(1), &b"two"[..])));
    assert!(reader.next().unwrap().is_none());
    log.append_group(&[b""]).unwrap();
    log.sync().unwrap();
    assert_eq!(reader.next().unwrap(), Some((Position(2), &b""[..])));
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn trimming_removes_whole_segments_and_readers_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    append(&mut log, 0, 100);
    let view = log.view();
    let mut behind = view.reader(Position::ZERO);
    let segments = view.segments();
    assert!(segments.len() > 3 && segments.iter().rev().skip(1).all(|s| s.sealed));
    let first = log.trim(Position(segments[2].first.0 + 1)).unwrap();
    assert_eq!((first, view.first()), (segments[2].first, segments[2].first));
    assert!(matches!(behind.next(), Err(LogError::Trimmed { from: Position(0), first: f }) if f == first));
    assert_eq!(behind.next().unwrap().unwrap().0, first);
    assert_holds(&view, first.0, 100);
    assert_eq!(log.trim(Position(u64::MAX)).unwrap(), view.segments()[0].first);
    assert_eq!((segment_files(dir.path()).len(), log.end()), (1, Position(100)));
    drop(log);
    let (log, recovery) = Log::open(dir.path(), small(), 8).unwrap();
    assert_eq!((recovery.end, log.end()), (Position(100), Position(100)));
}

#[test]
fn a_full_log_refuses_and_goes_on_after_a_trim() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    let full = loop {
        match log.append_group(&[&[1; 500], &[2; 500]]) {
            Ok(_) => log.sync().unwrap(),
            Err(error) => break error,
        };
    };
    assert!(full.is_full() && log.latched().is_none(), "{full}");
    assert!(log.view().bytes() <= small().bytes_max);
    let end = log.end();
    log.trim(Position(end.0 / 2)).unwrap();
    assert_eq!(log.append_group(&[&[1; 500], &[2; 500]]).unwrap(), end);
    log.sync().unwrap();
}

#[test]
fn a_full_log_drops_the_oldest_if_told_to_and_says_what() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { when_full: WhenFull::DropOldest, ..small() };
    let (mut log, _) = Log::open(dir.path(), options, 7).unwrap();
    let mut gone = Position::ZERO;
    for _ in 0..500 {
        log.append_group(&[&[1; 500], &[2; 500]]).unwrap();
        log.sync().unwrap();
        assert!(log.view().bytes() <= small().bytes_max);
        if let Some(range) = log.take_dropped() {
            assert_eq!(range.start, gone);
            gone = range.end;
            assert_eq!(log.view().first(), gone);
        }
    }
    assert!(gone > Position(500) && log.end() == Position(1000));
}

#[test]
fn one_writer_per_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path(), small(), 7).unwrap();
    let error = Log::open(dir.path(), small(), 8).unwrap_err();
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    LogView::open_read_only(dir.path()).unwrap();
    drop(log);
    Log::open(dir.path(), small(), 8).unwrap();
}

#[test]
fn an_epoch_is_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    append(&mut log, 0, 1);
    drop(log);
    for epoch in [0, 7] {
        assert!(matches!(Log::open(dir.path(), small(), epoch), Err(LogError::BadEpoch { .. })));
    }
}

#[test]
fn cursors_survive_and_are_private_to_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path(), small(), 7).unwrap();
    let view = log.view();
    for (name, at) in [("lake", 3), ("lake/ü %", 4), ("..", 5), ("lake", 6)] {
        view.set_cursor(name, Position(at)).unwrap();
    }
    assert!(matches!(view.set_cursor("", Position(1)), Err(LogError::BadName { .. })));
    assert!(matches!(view.set_cursor(&"x".repeat(81), Position(1)), Err(LogError::BadName { .. })));
    drop((log, view));
    let (log, _) = Log::open(dir.path(), small(), 8).unwrap();
    let cursors = log.view().cursors().unwrap();
    let expected = [("..", 5), ("lake", 6), ("lake/ü %", 4)];
    assert_eq!(cursors, expected.map(|(name, at)| (name.to_owned(), Position(at))).into());
    assert!(log.view().remove_cursor("lake").unwrap() && !log.view().remove_cursor("lake").unwrap());
    assert_eq!(log.view().cursors().unwrap().len(), 2);
}

#[test]
fn a_live_directory_is_read_without_changing_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    append(&mut log, 0, 40);
    let (view, recovery) = LogView::open_read_only(dir.path()).unwrap();
    assert_eq!((recovery.end, &recovery.cut), (Position(40), &None));
    assert_holds(&view, 0, 40);
    assert!(matches!(view.set_cursor("a", Position(1)), Err(LogError::ReadOnly { .. })));
    append(&mut log, 40, 80);
    assert_eq!(view.durable_end(), Position(40));
    let mut reader = view.reader(Position(39));
    reader.next().unwrap().unwrap();
    assert!(reader.next().unwrap().is_none());
    log.trim(Position(60)).unwrap();
    view.refresh().unwrap();
    assert_holds(&view, view.first().0, 80);
    assert_holds(&log.view(), view.first().0, 80);
}

#[test]
fn seeking_finds_every_position() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { segment_bytes: 1 << 20, bytes_max: 16 << 20, reserve_bytes: 0, ..Options::default() };
    let (mut log, _) = Log::open(dir.path(), options.clone(), 7).unwrap();
    append(&mut log, 0, 20_000);
    for view in [log.view(), LogView::open_read_only(dir.path()).unwrap().0] {
        let mut reader = view.reader(Position::ZERO);
        for step in 0..400_u64 {
            let n = step.wrapping_mul(7919) % 20_000;
            reader.seek(Position(n));
            assert_eq!(reader.next().unwrap().unwrap(), (Position(n), &record(n)[..]));
            assert_eq!(reader.position(), Position(n + 1));
        }
    }
}

#[test]
fn too_large_is_refused_and_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { record_bytes_max: 1000, ..small() };
    let (mut log, _) = Log::open(dir.path(), options, 7).unwrap();
    assert!(matches!(log.append_group(&[b"x", &[0; 1001]]), Err(LogError::TooLarge { what: "record", .. })));
    let group = vec![&[0; 1000][..]; 20];
    assert!(matches!(log.append_group(&group), Err(LogError::TooLarge { what: "group", .. })));
    assert_eq!(log.end(), Position(0));
    log.append_group(&group[..10]).unwrap(); // larger than a segment, and whole in one
    log.append_group(&[b"y"]).unwrap();
    assert_eq!(log.sync().unwrap(), Position(11));
    assert_eq!(all(&mut log.view().reader(Position(0))).len(), 11);
}

#[test]
fn readers_in_other_threads_see_whole_records_in_order_while_it_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let view = log.view();
            std::thread::spawn(move || {
                let (mut reader, mut trimmed) = (view.reader(Position(0)), 0);
                while reader.position() < Position(5_000) {
                    let expected = reader.position();
                    match reader.next() {
                        Ok(Some((position, bytes))) => {
                            assert_eq!((position, bytes), (expected, &record(position.0)[..]));
                        }
                        Ok(None) => std::thread::yield_now(),
                        Err(LogError::Trimmed { from, first }) => {
                            assert!(from < first);
                            trimmed += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                trimmed
            })
        })
        .collect();
    for n in 0..5_000 {
        log.append_group(&[&record(n)]).unwrap();
        if n % 50 == 49 {
            log.sync().unwrap();
            log.trim(Position(n.saturating_sub(200))).unwrap();
        }
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn verify_names_every_damage_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), small(), 7).unwrap();
    append(&mut log, 0, 100);
    log.view().set_cursor("lake", Position(40)).unwrap();
    drop(log);
    let files = segment_files(dir.path());
    for file in [&files[1], &files[3]] {
        let mut bytes = fs::read(file).unwrap();
        bytes[100] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let last = files.last().unwrap();
    fs::write(last, [fs::read(last).unwrap(), vec![9; 100]].concat()).unwrap();
    let report = verify(dir.path()).unwrap();
    let damaged: Vec<_> = report.segments.iter().filter(|s| s.damage.is_some()).map(|s| &s.path).collect();
    assert_eq!(damaged, [&files[1], &files[3]]);
    assert!(!report.is_whole() && report.cut.as_ref().is_some_and(|cut| cut.bytes == 100), "{report}");
    assert!(report.to_string().contains("DAMAGED at byte 64 (position"), "{report}");
    assert!(inspect(dir.path()).unwrap().to_string().contains("cursor lake at 40, 60 behind the end"));
    fs::remove_file(&files[2]).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.problems.iter().any(|p| p.contains("was not written after")), "{report}");
    assert_eq!(fs::metadata(last).unwrap().len(), report.segments.last().unwrap().bytes);
}
