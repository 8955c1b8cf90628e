//! Flips and cuts in any file of the store: the hub opens, says in the ledger what is lost, asks for what agents may
//! still hold, counts nothing twice, and never gives a point another number.

use super::*;

#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn index(number: u64, end: usize) -> usize {
    number as usize % end.max(1)
}

const RECORDS: u64 = 120;

/// SplitMix64 of a seed.
fn mixed(seed: u64) -> u64 {
    let z = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn flip_or_cut(disk: &FaultyStorage, random: u64) -> Option<String> {
    let files: Vec<String> = disk.names().into_iter().filter(|name| name != "lock").collect();
    let name = files.get(index(random, files.len()))?;
    let mut bytes = disk.bytes_of(name)?;
    if bytes.is_empty() {
        return None;
    }
    let at = index(random / 7919, bytes.len());
    let what = if random.is_multiple_of(5) && name.ends_with(".log") && at > 64 {
        bytes.truncate(at);
        "cut at"
    } else {
        bytes[at] ^= 1 << (random % 8);
        "bit flipped in"
    };
    disk.replace(name, bytes);
    Some(format!("{name}: {what} byte {at}"))
}

/// Own records that can be read, and holes.
fn readable(hub: &Hub) -> (Vec<u64>, u64) {
    let view = hub.store.view();
    let mut reader = view.reader(view.first());
    let (mut offsets, mut holes) = (Vec::new(), 0);
    loop {
        match reader.next() {
            Ok(None) => return (offsets, holes),
            Ok(Some((_, []))) => holes += 1,
            Ok(Some((_, bytes))) => match LogRecord::decode(bytes).unwrap() {
                LogRecord::Received { batch, .. } => offsets.push(batch.id.offset.0),
                LogRecord::Lost { .. } => {}
                other => panic!("{other:?}"),
            },
            Err(LogError::Damaged { .. }) => {
                // As the hub's clock does once a second.
                hub.store.tick();
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn any_damaged_file_leaves_a_hub_that_starts_and_tells() {
    let (mut lost_some, mut asked_again) = (0, 0);
    for seed in 0..150_u64 {
        let machine = Machine::new(seed);
        let mut hub = Hub::open(&machine);
        for offset in 0..RECORDS {
            hub.ingest(hub.own(EPOCH, offset));
            if offset % 8 == 7 {
                hub.settle();
            }
            if offset == 30 || offset == 70 {
                hub.settle();
                hub.checkpoint();
            }
        }
        hub.settle();
        hub.close();
        let random = mixed(seed);
        let disks = [
            &machine.plant,
            &machine.plant,
            &machine.catalogue,
            &machine.catalogue_copy,
            &machine.checkpoint,
            &machine.quarantine,
            &machine.ledger,
        ];
        let Some(what) = flip_or_cut(disks[index(seed, disks.len())], random) else { continue };

        let mut hub = Hub::open(&machine);
        let (before, _) = readable(&hub);
        asked_again += u64::from(hub.epoch(EPOCH).ranges.end() < RECORDS || (before.len() as u64) < RECORDS);
        // The agent still holds everything and sends what no receipt names.
        let settled = hub.store.settled(hub.agent, &BTreeSet::from([EPOCH])).1;
        let settled = settled.first().map(|(_, ranges)| ranges.clone()).unwrap_or_default();
        for offset in (0..RECORDS).filter(|offset| !settled.contains(*offset)) {
            hub.ingest(hub.own(EPOCH, offset));
        }
        hub.settle();
        let (mut offsets, holes) = readable(&hub);
        offsets.sort_unstable();
        let twice = offsets.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "seed {seed}: {what}");
        let missing = RECORDS - offsets.len() as u64;
        let entries = hub.ledger.newest(100);
        let named: u64 = entries
            .iter()
            .filter(|entry| entry.kind == LedgerKind::Damaged && !entry.reason.starts_with("ledger"))
            .map(|entry| entry.end.unwrap_or(0) - entry.start.unwrap_or(0))
            .sum();
        assert_eq!(named, holes, "seed {seed}: {what}: {entries:?}");
        assert!(missing <= holes, "seed {seed}: {what}: {missing} missing, {holes} holes");
        assert_eq!(hub.catalogue.find("a/b"), Some(PointId(0)), "seed {seed}: {what}");
        assert_eq!(hub.epoch(EPOCH).mismatch, None, "seed {seed}: {what}");
        lost_some += u64::from(missing > 0);
        hub.close();
        drop(Hub::open(&machine));
    }
    assert!(
        asked_again > 10,
        "only {asked_again} damages had to be made good: the test does not damage enough"
    );
    assert!(lost_some < asked_again, "{lost_some} of {asked_again}");
}

#[test]
fn what_an_agent_lost_at_the_end_of_an_epoch_is_lost_and_not_waited_for() {
    let machine = Machine::new(1);
    let mut hub = Hub::open(&machine);
    for offset in [0, 1, 2, 6] {
        hub.ingest(hub.own(EPOCH, offset));
    }
    hub.settle();
    let account = |epoch, end| EpochAccount {
        epoch,
        first_held: 0,
        end,
        before: Account::default(),
        total: if end == 0 { Account::default() } else { running(epoch, end) },
    };
    // Its disk was damaged: of offsets 3 to 9 only 3 and 4 are left.
    let epochs = vec![account(EPOCH, 9), account(Epoch(6), 0)];
    hub.runtime.block_on(hub.store.reported(hub.agent, epochs)).unwrap();
    hub.settle();
    assert!(hub.epoch(EPOCH).lost.is_empty(), "they may still come");
    let epochs = vec![account(EPOCH, 5), account(Epoch(6), 0)];
    hub.runtime.block_on(hub.store.reported(hub.agent, epochs)).unwrap();
    hub.settle();
    let lost: Vec<_> = hub.epoch(EPOCH).lost.iter().collect();
    assert_eq!(lost, [5..6, 7..9]);
    assert!(hub.ledger.newest(9).iter().any(|entry| entry.kind == LedgerKind::Lost && entry.end == Some(9)));
    hub.close();
}
