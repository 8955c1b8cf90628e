//! Flips and cuts in the outbox: the agent starts, everything that can still be read is sent and trimmed, and nothing
//! waits for what is gone.

use durable_log::{Faults, FaultyStorage, Storage as _};

use super::crash_tests::{group, open_faulty};
use super::tests::points;
use super::*;

/// SplitMix64 of a seed.
fn mixed(seed: u64) -> u64 {
    let z = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn flip_or_cut(disk: &FaultyStorage, random: u64) -> String {
    let files: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".log")).collect();
    let index = |number: u64, end: usize| usize::try_from(number % end as u64).unwrap();
    let name = &files[index(random, files.len())];
    let mut bytes = disk.bytes_of(name).unwrap();
    let at = index(random / 7919, bytes.len());
    if random.is_multiple_of(4) && at > 64 {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << (random % 8);
    }
    disk.replace(name, bytes);
    format!("{name} byte {at}")
}

/// Offsets that can be read, by epoch.
fn readable(view: &LogView) -> std::collections::BTreeMap<Epoch, model::RangeSet> {
    let mut found = std::collections::BTreeMap::new();
    let mut reader = view.reader(view.first());
    while let Some((_, bytes)) = reader.next().unwrap() {
        if !bytes.is_empty()
            && let proto::log_record::LogRecord::Accepted { batch, .. } =
                proto::log_record::LogRecord::decode(bytes).unwrap()
        {
            let ranges: &mut model::RangeSet = found.entry(batch.id.epoch).or_default();
            ranges.insert_one(batch.id.offset.0);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_outbox_is_sent_and_trimmed_as_far_as_it_can_be_read() {
    let (mut gone, mut cut) = (0, 0);
    for seed in 0..12_u64 {
        let dir = tempfile::tempdir().unwrap();
        let points = points(dir.path());
        let storage = FaultyStorage::new(seed);
        storage.set_faults(Faults::default());
        let mut number = 0;
        for _ in 0..2 {
            let (Opened { outbox, writer, .. }, ()) = open_faulty(&storage, &points).unwrap();
            let thread = std::thread::spawn(|| writer.run());
            for _ in 0..16 {
                outbox.accept(group(number)).await.unwrap();
                number += 1;
            }
            outbox.close().await;
            drop(outbox);
            tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
        }
        let what = flip_or_cut(&storage, mixed(seed));

        let (Opened { outbox, writer, recovery, .. }, ()) = open_faulty(&storage, &points).unwrap();
        let present = readable(outbox.view());
        let held: u64 = present.values().map(model::RangeSet::count).sum();
        let backlog = outbox.epochs(Epochs::backlog);
        assert_eq!(backlog, held, "{seed} {what}: what is to be sent is what can be read");
        let missing: u64 =
            outbox.epochs(|epochs| epochs.list().iter().map(|state| state.gone().count()).sum());
        gone += u64::from(missing > 0);
        cut += u64::from(held + missing < 32);
        let named = !recovery.repaired.is_empty() || recovery.cut.is_some();
        assert!(named || held == 32, "{seed} {what}: {recovery}");
        // The hub takes all of it: the outbox has nothing more to do, and lets everything go.
        let thread = std::thread::spawn(|| writer.run());
        let durable = present.into_iter().collect();
        outbox.receive(&Receipt { durable, ..Receipt::default() }).await.unwrap();
        assert_eq!(outbox.epochs(Epochs::backlog), 0, "{seed} {what}");
        outbox.accept(group(1000)).await.unwrap();
        assert_eq!(outbox.epochs(Epochs::backlog), 1, "{seed} {what}");
        outbox.close().await;
        drop(outbox);
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
        let kept: u64 =
            storage.list().unwrap().iter().filter(|e| e.name.ends_with(".log")).map(|e| e.bytes).sum();
        assert!(kept < 400_000, "{seed} {what}: {kept} bytes are kept although the hub has everything");
    }
    assert!(gone > 2 && cut > 0, "{gone} gone, {cut} cut: the test does not damage enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_reader_meets_is_passed_over_within_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let points = points(dir.path());
    let storage = FaultyStorage::new(1);
    let (Opened { outbox, writer, .. }, ()) = open_faulty(&storage, &points).unwrap();
    let thread = std::thread::spawn(|| writer.run());
    for number in 0..30 {
        outbox.accept(group(number)).await.unwrap();
    }
    let name = storage.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let file = storage.open(&name, true).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 150_000).unwrap();
    file.write_at(&[byte[0] ^ 1], 150_000).unwrap();
    let mut reader = outbox.view().reader(durable_log::Position(0));
    let failed = loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not met"),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, LogError::Damaged { .. }));
    outbox.accept(group(30)).await.unwrap(); // answered before the repair
    outbox.accept(group(31)).await.unwrap();
    let mut read = 0;
    while let Some((_, bytes)) = reader.next().unwrap() {
        read += u64::from(!bytes.is_empty());
    }
    assert!(read > 20, "{read}");
    assert_eq!(outbox.epochs(Epochs::backlog), 31, "one of 32 is gone");
    outbox.close().await;
    drop(outbox);
    tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
}
