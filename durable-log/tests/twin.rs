//! A log in two copies: whatever happens to one of them, nothing is lost.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test: it may fail")]

use std::sync::Arc;

use durable_log::{FaultyStorage, Options, Position, Storage, TwinLog};

fn options() -> Options {
    Options { segment_bytes: 700, bytes_max: 1 << 20, reserve_bytes: 0, ..Options::default() }
}

fn record(n: u64) -> Vec<u8> {
    (0..5 + n % 40).map(|i| (n * 31 + i) as u8).collect()
}

fn open(log: &FaultyStorage, copy: &FaultyStorage, epoch: u64) -> (TwinLog, u64) {
    let (twin, recovery) =
        TwinLog::open(Arc::new(log.clone()), Arc::new(copy.clone()), options(), epoch).unwrap();
    assert!(recovery.repaired.iter().all(|repaired| repaired.lost.is_empty()), "{recovery}");
    let mut reader = twin.view().reader(Position(0));
    let mut read = 0;
    while let Some((position, bytes)) = reader.next().unwrap() {
        assert_eq!((position.0, bytes), (read, &record(read)[..]));
        read += 1;
    }
    (twin, read)
}

fn written() -> (FaultyStorage, FaultyStorage) {
    let (log, copy) = (FaultyStorage::new(1), FaultyStorage::new(2));
    for epoch in 1..4 {
        let (mut twin, read) = open(&log, &copy, epoch);
        for n in read..read + 25 {
            twin.append_group(&[&record(n)]).unwrap();
            if n % 3 == 0 {
                twin.sync().unwrap();
            }
        }
        twin.sync().unwrap();
    }
    (log, copy)
}

#[test]
fn one_damaged_copy_costs_nothing() {
    let (log, copy) = written();
    let files = |disk: &FaultyStorage| -> Vec<String> {
        disk.names().into_iter().filter(|name| name.ends_with(".log")).collect()
    };
    for of_copy in [false, true] {
        for name in files(if of_copy { &copy } else { &log }) {
            let whole = if of_copy { &copy } else { &log }.bytes_of(&name).unwrap();
            for byte in (0..whole.len()).step_by(5) {
                for cut in [false, true] {
                    if cut && byte < 64 {
                        continue; // as good as missing: the next test
                    }
                    let (log, copy) = (log.copy(), copy.copy());
                    let mut bytes = whole.clone();
                    bytes[byte] ^= 0x20;
                    bytes.truncate(if cut { byte } else { whole.len() });
                    if of_copy { &copy } else { &log }.replace(&name, bytes);
                    let (twin, read) = open(&log, &copy, 9);
                    assert_eq!(read, 75, "{name} byte {byte}, cut {cut}, copy {of_copy}");
                    drop(twin);
                    assert_eq!(open(&copy, &log, 10).1, 75, "both are whole again");
                }
            }
        }
    }
}

#[test]
fn a_copy_that_is_missing_or_another_is_made_anew() {
    let (log, copy) = written();
    assert_eq!(open(&log, &FaultyStorage::new(5), 9).1, 75);
    let (mut other, _) =
        TwinLog::open(Arc::new(FaultyStorage::new(6)), Arc::new(copy.clone()), options(), 9).unwrap();
    other.append_group(&[b"another"]).unwrap();
    other.sync().unwrap();
    drop(other);
    assert!(log.copy().names().len() > 3);
    // The last segment of the first is gone as a whole: the copy has it.
    let last = log.names().into_iter().rfind(|name| name.ends_with(".log")).unwrap();
    log.remove(&last).unwrap();
    let (_, fresh) = written();
    assert_eq!(open(&log, &fresh, 11).1, 75);
}
