//! Every byte of a log flipped, cut or missing: it recovers and says so, or it refuses and says where. Wrong bytes
//! are never handed out.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: it may fail, and its numbers are small"
)]

use std::sync::Arc;

use durable_log::{FaultyStorage, Log, LogError, LogView, Options, Position};

const HEADER: usize = 64;

fn options() -> Options {
    Options { segment_bytes: 400, bytes_max: 1 << 20, reserve_bytes: 0, ..Options::default() }
}

fn record(n: u64) -> Vec<u8> {
    (0..20 + n % 17).map(|i| (n * 31 + i) as u8).collect()
}

/// A power cut away from here: two sealed segments, then a last one with several syncs, the last of two groups.
/// Returns the disk, the name of the last segment, and where its last sync began.
struct Example {
    disk: FaultyStorage,
    sealed: Vec<String>,
    last: String,
    last_bytes: Vec<u8>,
    last_sync_byte: usize,
    last_sync_position: u64,
    /// Byte and position at which each group of the last segment ends.
    group_ends: Vec<(usize, u64)>,
    end: u64,
}

fn example() -> Example {
    let disk = FaultyStorage::new(1);
    let (mut log, _) = Log::open_on(Arc::new(disk.clone()), options(), 77).unwrap();
    let mut at = 0;
    let mut group = |log: &mut Log, records: u64| {
        let group: Vec<Vec<u8>> = (at..at + records).map(record).collect();
        log.append_group(&group.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        at += records;
    };
    while disk.names().iter().filter(|name| name.ends_with(".log")).count() < 3 {
        group(&mut log, 2);
        log.sync().unwrap();
    }
    let mut group_ends = Vec::new();
    let last = disk.names().into_iter().rfind(|name| name.ends_with(".log")).unwrap();
    let size = || disk.bytes_of(&last).unwrap().len();
    group_ends.push((HEADER, log.end().0 - 2));
    group_ends.push((size(), log.end().0));
    group(&mut log, 1);
    log.sync().unwrap();
    group_ends.push((size(), log.end().0));
    let (last_sync_byte, last_sync_position) = (size(), log.end().0);
    group(&mut log, 2);
    let middle = log.end().0;
    let between = last_sync_byte + (last_sync_position..middle).map(|n| 12 + record(n).len()).sum::<usize>();
    group_ends.push((between, middle));
    group(&mut log, 2);
    log.sync().unwrap();
    group_ends.push((size(), log.end().0));
    let sealed = disk.names().into_iter().filter(|name| name.ends_with(".log") && *name != last).collect();
    let (disk, end) = (disk.copy(), log.end().0);
    let last_bytes = disk.bytes_of(&last).unwrap();
    Example { disk, sealed, last, last_bytes, last_sync_byte, last_sync_position, group_ends, end }
}

/// Opens a copy; everything handed out must be right. Returns the end and what was cut.
fn open(disk: &FaultyStorage) -> Result<(u64, Option<durable_log::Cut>), LogError> {
    let (log, recovery) = Log::open_on(Arc::new(disk.copy()), options(), 78)?;
    let mut reader = log.view().reader(Position(0));
    while let Some((position, bytes)) = reader.next()? {
        assert_eq!(bytes, record(position.0));
    }
    assert_eq!(reader.position(), recovery.end);
    let (view, seen) = LogView::open_read_only_on(Arc::new(disk.copy())).unwrap();
    assert_eq!((view.durable_end(), seen.cut), (recovery.end, recovery.cut.clone()));
    Ok((recovery.end.0, recovery.cut))
}

#[track_caller]
fn assert_damaged(
    result: Result<(u64, Option<durable_log::Cut>), LogError>,
    file: &str,
    at_or_before: usize,
) {
    match result {
        Err(LogError::Damaged { path, byte, .. }) => {
            assert!(path.ends_with(file), "{} is not {file}", path.display());
            assert!(byte <= at_or_before as u64, "byte {byte} for damage at {at_or_before}");
        }
        other => panic!("damage of {file} at byte {at_or_before} gave {other:?}"),
    }
}

#[test]
fn a_flipped_byte_is_cut_off_the_last_write_and_refused_anywhere_else() {
    let example = example();
    assert_eq!(open(&example.disk).unwrap(), (example.end, None));
    for name in &example.sealed {
        let whole = example.disk.bytes_of(name).unwrap();
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 0x10;
            let disk = example.disk.copy();
            disk.replace(name, bytes);
            assert_damaged(open(&disk), name, if byte < HEADER { HEADER } else { byte });
        }
    }
    for byte in 0..example.last_bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = example.last_bytes.clone();
            bytes[byte] ^= mask;
            let disk = example.disk.copy();
            disk.replace(&example.last, bytes);
            if byte < example.last_sync_byte {
                assert_damaged(open(&disk), &example.last, if byte < HEADER { HEADER } else { byte });
                continue;
            }
            let (end, cut) = open(&disk).unwrap();
            let cut = cut.unwrap();
            let kept = example.group_ends.iter().rfind(|(end, _)| *end <= byte).unwrap();
            assert_eq!((cut.byte as usize, end), *kept, "byte {byte}");
            assert_eq!(cut.bytes as usize, example.last_bytes.len() - kept.0);
            assert!(end >= example.last_sync_position);
        }
    }
}

#[test]
fn a_cut_tail_keeps_the_whole_groups() {
    let example = example();
    for length in 0..example.last_bytes.len() {
        let disk = example.disk.copy();
        disk.replace(&example.last, example.last_bytes[..length].to_vec());
        if length < HEADER {
            assert_damaged(open(&disk), &example.last, 0);
            continue;
        }
        let (end, cut) = open(&disk).unwrap();
        let kept = example.group_ends.iter().rfind(|(end, _)| *end <= length).unwrap();
        assert_eq!((end, cut.is_some()), (kept.1, length != kept.0), "length {length}");
    }
    for name in &example.sealed {
        let whole = example.disk.bytes_of(name).unwrap();
        for length in 0..whole.len() {
            let disk = example.disk.copy();
            disk.replace(name, whole[..length].to_vec());
            assert_damaged(open(&disk), name, length);
        }
    }
}

#[test]
fn bytes_behind_the_end_are_cut_whatever_they_are() {
    let example = example();
    for tail in [vec![0; 1], vec![0; 5000], vec![0xff; 700], example.last_bytes[HEADER..].to_vec()] {
        let disk = example.disk.copy();
        disk.replace(&example.last, [&example.last_bytes[..], &tail].concat());
        let (end, cut) = open(&disk).unwrap();
        assert_eq!((end, cut.unwrap().bytes), (example.end, tail.len() as u64));
    }
}

#[test]
fn a_missing_segment_is_named() {
    let example = example();
    let disk = FaultyStorage::new(2);
    for name in [&example.sealed[0], &example.last] {
        disk.replace(name, example.disk.bytes_of(name).unwrap());
    }
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn a_newer_version_is_left_alone() {
    let example = example();
    let mut bytes = example.last_bytes.clone();
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let disk = example.disk.copy();
    disk.replace(&example.last, bytes.clone());
    let before = disk.names();
    let error = Log::open_on(Arc::new(disk.clone()), options(), 78).unwrap_err();
    assert!(matches!(error, LogError::NewerVersion { found: 3, known: 2, .. }), "{error}");
    assert_eq!((disk.names(), disk.bytes_of(&example.last).unwrap()), (before, bytes));
}

#[test]
fn refusing_changes_nothing() {
    let example = example();
    let mut bytes = example.last_bytes.clone();
    bytes[HEADER + 3] ^= 1;
    let disk = example.disk.copy();
    disk.replace(&example.last, bytes);
    let state = |disk: &FaultyStorage| disk.names().iter().map(|n| disk.bytes_of(n)).collect::<Vec<_>>();
    let before = state(&disk);
    Log::open_on(Arc::new(disk.clone()), options(), 78).unwrap_err();
    assert_eq!(state(&disk), before);
}

#[test]
fn a_damaged_cursor_is_named() {
    let disk = FaultyStorage::new(3);
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(), 1).unwrap();
    log.view().set_cursor("lake", Position(9)).unwrap();
    let whole = disk.bytes_of("lake.cursor").unwrap();
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 4;
        disk.replace("lake.cursor", bytes);
        assert!(matches!(log.view().cursors(), Err(LogError::Damaged { byte: 0, .. })));
        disk.replace("lake.cursor", whole[..byte].to_vec());
        assert!(matches!(log.view().cursors(), Err(LogError::Damaged { byte: 0, .. })));
    }
}

/// Fuzz target: no bytes in a segment make it panic, loop, or take memory that the file does not have.
#[test]
fn any_bytes_are_a_log_or_an_error() {
    let header = example().disk.bytes_of(&format!("{:020}.log", 0)).unwrap()[..HEADER].to_vec();
    bolero::check!().with_type::<(bool, Vec<u8>)>().for_each(|(with_header, bytes)| {
        let disk = FaultyStorage::new(4);
        let bytes = if *with_header { [&header, &bytes[..]].concat() } else { bytes.clone() };
        disk.replace(&format!("{:020}.log", 0), bytes.clone());
        disk.replace("lake.cursor", bytes);
        if let Ok((log, _)) = Log::open_on(Arc::new(disk), options(), 78) {
            let mut reader = log.view().reader(Position(0));
            while let Ok(Some(_)) = reader.next() {}
            let _any = log.view().cursors();
        }
    });
}
