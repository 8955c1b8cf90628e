//! Any flip and any cut of any file of a log: the log opens, hands out nothing wrong, has lost at most the damaged
//! commits, names their positions, and is whole afterwards; offline repair comes to the same, and deletes nothing.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test: it may fail, and its numbers are small"
)]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use durable_log::{
    DiskStorage, FaultyStorage, Log, LogError, LogView, Options, Position, Recovery, Storage, WhenDamaged,
    plan, repair, verify,
};

const HEADER: usize = 64;

fn options() -> Options {
    Options {
        segment_bytes: 1200,
        bytes_max: 1 << 20,
        reserve_bytes: 0,
        when_damaged: WhenDamaged::SetAside,
        ..Options::default()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn record(n: u64) -> Vec<u8> {
    (0..1 + (n * 7) % 90).map(|i| (n * 31 + i) as u8).collect()
}

/// What was written: the positions of each commit, in order.
struct Written {
    commits: Vec<Range<u64>>,
    end: u64,
}

/// Three openings, several segments each, commits of one to three groups, a cursor.
fn write(storage: &Arc<dyn Storage>, random: &mut Random) -> Written {
    let mut at = 0;
    let mut commits = Vec::new();
    for epoch in 1..=3 {
        let (mut log, recovery) = Log::open_on(Arc::clone(storage), options(), epoch).unwrap();
        assert_eq!((recovery.end.0, recovery.repaired.len()), (at, 0));
        for _ in 0..12 {
            let start = at;
            for _ in 0..=random.below(3) {
                let records = 1 + random.below(4) as u64;
                let group: Vec<Vec<u8>> = (at..at + records).map(record).collect();
                log.append_group(&group.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                at += records;
            }
            log.sync().unwrap();
            commits.push(start..at);
        }
        log.view().set_cursor("lake", Position(at / 2)).unwrap();
    }
    Written { commits, end: at }
}

/// Every record that is handed out is right; gives the holes.
fn read_all(view: &LogView) -> Result<Vec<u64>, LogError> {
    let mut holes = Vec::new();
    let mut reader = view.reader(Position(0));
    while let Some((position, bytes)) = reader.next()? {
        if bytes.is_empty() {
            holes.push(position.0);
        } else {
            assert_eq!(bytes, record(position.0), "position {position}");
        }
    }
    assert_eq!(reader.position(), view.durable_end());
    Ok(holes)
}

/// Opens, reads, heals what reading found, reads again.
fn open_and_heal(storage: &Arc<dyn Storage>, epoch: u64) -> (Log, Recovery, Vec<u64>) {
    let (mut log, mut recovery) = Log::open_on(Arc::clone(storage), options(), epoch).unwrap();
    let mut tries = 0;
    let holes = loop {
        match read_all(&log.view()) {
            Ok(holes) => break holes,
            Err(LogError::Damaged { .. }) if tries < 20 => tries += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(log.view().is_damaged());
        let repaired = log.heal().unwrap();
        assert!(!repaired.is_empty());
        recovery.repaired.extend(repaired);
    };
    (log, recovery, holes)
}

/// One damage: which positions may be lost for it.
struct Damage {
    what: String,
    may_lose: Vec<Range<u64>>,
}

/// Flips bits or cuts one file. `frames` finds the commits that a byte range of a segment touches.
fn damage(files: &mut [(String, Vec<u8>)], written: &Written, random: &mut Random) -> Damage {
    let at = random.below(files.len());
    let is_last = files.iter().rfind(|(name, _)| name.ends_with(".log")).unwrap().0 == files[at].0;
    let next_first = files
        .iter()
        .filter(|(name, _)| name.ends_with(".log"))
        .map(|(name, _)| name[..20].parse::<u64>().unwrap())
        .chain([written.end])
        .collect::<Vec<_>>();
    let (name, bytes) = &mut files[at];
    let what;
    let touched: Range<usize> = match random.below(4) {
        0 if name.ends_with(".log") && bytes.len() > HEADER => {
            let keep = HEADER + random.below(bytes.len() - HEADER);
            what = format!("{name} cut at {keep}");
            keep..bytes.len()
        }
        1 => {
            let from = random.below(bytes.len());
            let end = bytes.len().min(from + 1 + random.below(60));
            bytes[from..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
            what = format!("{name} bytes {from}..{end} damaged");
            from..end
        }
        _ => {
            let byte = random.below(bytes.len());
            bytes[byte] ^= 1 << random.below(8);
            what = format!("{name} one bit of byte {byte} flipped");
            byte..byte + 1
        }
    };
    let mut may_lose = Vec::new();
    if let Some(first) = name.strip_suffix(".log").map(|first| first.parse::<u64>().unwrap()) {
        let end = *next_first.iter().find(|next| **next > first).unwrap_or(&written.end);
        let mut byte = HEADER;
        for position in first..end {
            let next = byte + 12 + record(position).len();
            if byte < touched.end && touched.start < next {
                may_lose.extend(written.commits.iter().filter(|commit| commit.contains(&position)).cloned());
            }
            byte = next;
        }
        if touched.start < HEADER && touched.len() > 1 && is_last {
            may_lose.push(first..end); // nobody else knows its epoch
        }
        if what.contains("cut") {
            bytes.truncate(touched.start);
        }
    }
    Damage { what, may_lose }
}

fn assert_lost_at_most(lost: &[u64], damages: &[Damage]) {
    for position in lost {
        let allowed =
            damages.iter().flat_map(|damage| &damage.may_lose).any(|range| range.contains(position));
        let what: Vec<&str> = damages.iter().map(|damage| damage.what.as_str()).collect();
        assert!(allowed, "position {position} was lost after {what:?}");
    }
}

#[test]
fn any_damage_is_found_named_and_costs_at_most_its_commit() {
    let mut with_holes = 0;
    for seed in 0..800 {
        let mut random = Random(seed);
        let disk = FaultyStorage::new(seed);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let written = write(&storage, &mut random);
        let mut files: Vec<(String, Vec<u8>)> = disk
            .names()
            .into_iter()
            .filter(|name| name.ends_with(".log") || name.ends_with(".cursor"))
            .map(|name| (name.clone(), disk.bytes_of(&name).unwrap()))
            .collect();
        let damages: Vec<Damage> =
            (0..=random.below(3)).map(|_| damage(&mut files, &written, &mut random)).collect();
        let what: Vec<&str> = damages.iter().map(|damage| damage.what.as_str()).collect();
        files.into_iter().for_each(|(name, bytes)| disk.replace(&name, bytes));

        let (log, recovery, holes) = open_and_heal(&storage, 4);
        let end = log.view().durable_end().0;
        let mut lost = holes.clone();
        lost.extend(end..written.end);
        lost.retain(|position| *position < written.end);
        assert_lost_at_most(&lost, &damages);
        let named: Vec<u64> =
            recovery.repaired.iter().flat_map(|r| r.lost.iter().flat_map(|l| l.start.0..l.end.0)).collect();
        assert!(holes.iter().all(|hole| named.contains(hole)), "seed {seed}: {holes:?} named {named:?}");
        assert!(lost.len() == holes.len() || recovery.cut.is_some() || end < written.end, "seed {seed}");
        for repaired in &recovery.repaired {
            let kept =
                repaired.kept_in.as_ref().and_then(|path| path.file_name()).map(|n| n.to_string_lossy());
            assert!(
                kept.is_some_and(|kept| disk.names().contains(&kept.into_owned())),
                "{repaired} {what:?}"
            );
        }
        let cursor = log.view().cursors().unwrap()["lake"];
        assert!(cursor.0 == 0 || cursor.0 == log.view().cursors().unwrap()["lake"].0);
        drop(log);
        // Again: nothing is left to repair, and the same is read.
        let (mut log, recovery, again) = open_and_heal(&storage, 5);
        assert_eq!((recovery.repaired.len(), again), (0, holes), "seed {seed}: {what:?}");
        let next = log.append_group(&[b"goes on"]).unwrap();
        log.sync().unwrap();
        assert_eq!(next, recovery.end);
        with_holes += u64::from(!lost.is_empty());
    }
    assert!(with_holes > 150, "only {with_holes} damages cost a record: the test does not damage enough");
}

fn on_disk(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name.ends_with(".log") || name.ends_with(".cursor"))
        .collect();
    files.sort();
    files
}

#[test]
fn repair_does_what_its_plan_says_and_keeps_the_damaged_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..40 {
        let dir = dir.path().join(seed.to_string());
        let storage: Arc<dyn Storage> = Arc::new(DiskStorage::create(&dir).unwrap());
        let mut random = Random(seed);
        let written = write(&storage, &mut random);
        assert!(plan(&dir).unwrap().steps.is_empty());
        let mut files = on_disk(&dir);
        let damages = [damage(&mut files, &written, &mut random)];
        for (name, bytes) in &files {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let before = on_disk(&dir);
        let found = plan(&dir).unwrap();
        assert_eq!(on_disk(&dir), before, "planning changes nothing");
        let was_whole = verify(&dir).unwrap().is_whole();
        assert_eq!(found.steps.is_empty(), was_whole, "{:?} {}", found.steps, damages[0].what);
        let repaired = repair(&found).unwrap();
        for step in repaired.iter().filter(|step| step.kept_in.is_some()) {
            let name = step.file.file_name().unwrap().to_string_lossy();
            let (_, was) = before.iter().find(|(n, _)| *n == name).unwrap();
            assert_eq!(&fs::read(step.kept_in.as_ref().unwrap()).unwrap(), was);
        }
        let report = verify(&dir).unwrap();
        assert!(report.is_whole(), "{report} after {}", damages[0].what);
        let (log, _) =
            Log::open(&dir, Options { when_damaged: WhenDamaged::Refuse, ..options() }, 9).unwrap();
        let mut lost = read_all(&log.view()).unwrap();
        lost.extend(log.view().durable_end().0..written.end);
        assert_lost_at_most(&lost, &damages);
    }
}

#[test]
fn a_plan_is_not_carried_out_on_a_log_in_use_or_changed() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(DiskStorage::create(dir.path()).unwrap());
    write(&storage, &mut Random(1));
    let (name, mut bytes) = on_disk(dir.path())[1].clone();
    bytes[HEADER + 20] ^= 1;
    fs::write(dir.path().join(&name), &bytes).unwrap();
    let found = plan(dir.path()).unwrap();
    assert_eq!(found.steps.len(), 1);
    let (log, _) = Log::open(dir.path(), options(), 9).unwrap();
    let Err(LogError::Locked { owner, .. }) = repair(&found) else { panic!("repaired under a writer") };
    assert_eq!(owner, Some(std::process::id()));
    drop(log);
    bytes[HEADER + 20] ^= 1;
    fs::write(dir.path().join(&name), &bytes).unwrap();
    assert!(matches!(repair(&found), Err(LogError::Damaged { .. })));
}

#[test]
fn a_missing_segment_becomes_holes() {
    for missing in 1..4 {
        let disk = FaultyStorage::new(7);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let written = write(&storage, &mut Random(7));
        let logs: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".log")).collect();
        let from: u64 = logs[2][..20].parse().unwrap();
        let to: u64 = logs[2 + missing][..20].parse().unwrap();
        for name in &logs[2..2 + missing] {
            storage.remove(name).unwrap();
        }
        let (log, recovery, holes) = open_and_heal(&storage, 4);
        assert_eq!(holes, (from..to).collect::<Vec<_>>());
        assert_eq!(log.view().durable_end().0, written.end);
        assert!(recovery.repaired.iter().all(|repaired| repaired.kept_in.is_none()), "{recovery}");
    }
}

#[test]
fn a_reader_goes_on_over_a_hole_that_was_healed_under_it() {
    let disk = FaultyStorage::new(8);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (mut log, _) = Log::open_on(Arc::clone(&storage), options(), 1).unwrap();
    for n in 0..90 {
        log.append_group(&[&record(n)]).unwrap();
        log.sync().unwrap();
    }
    let view = log.view();
    let mut reader = view.reader(Position(0));
    for n in 0..3 {
        assert_eq!(reader.next().unwrap().unwrap().0, Position(n));
    }
    // The newest segment, which is being written, and one that is sealed.
    let names: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".log")).collect();
    for name in [&names[1], names.last().unwrap()] {
        let file = storage.open(name, true).unwrap();
        let at = file.bytes().unwrap() - 3;
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 0x40], at).unwrap();
    }
    let mut seen = 3;
    let mut holes = Vec::new();
    loop {
        match reader.next() {
            Ok(None) => break,
            Ok(Some((position, bytes))) => {
                assert_eq!(position.0, seen);
                if bytes.is_empty() {
                    holes.push(seen);
                }
                seen += 1;
            }
            Err(LogError::Damaged { .. }) => drop(log.heal().unwrap()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((seen, holes.len()), (90, 2), "{holes:?}");
    assert_eq!(holes[1], 89);
    let at = log.append_group(&[&record(90)]).unwrap();
    log.sync().unwrap();
    assert_eq!((at, reader.next().unwrap().unwrap().1), (Position(90), &record(90)[..]));
}

#[test]
fn positions_that_were_used_are_not_used_again() {
    let disk = FaultyStorage::new(9);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let written = write(&storage, &mut Random(9));
    let (mut log, _) = Log::open_on(Arc::clone(&storage), options(), 4).unwrap();
    log.skip_to(Position(written.end + 500)).unwrap();
    assert_eq!(log.append_group(&[b"new"]).unwrap(), Position(written.end + 500));
    log.sync().unwrap();
    let holes = {
        let mut reader = log.view().reader(Position(written.end));
        let mut holes = 0;
        while let Some((_, bytes)) = reader.next().unwrap() {
            holes += u64::from(bytes.is_empty());
        }
        holes
    };
    assert_eq!(holes, 500);
    // They belong to the epoch whose end is missing: a reader may have come so far in it.
    assert_ne!(log.view().epoch_of(Position(written.end + 499)), Some(4));
    assert_eq!(
        log.view().epoch_of(Position(written.end + 499)),
        log.view().epoch_of(Position(written.end - 1))
    );
    assert_eq!(log.view().epoch_of(Position(written.end + 500)), Some(4));
    drop(log);
    let (log, recovery) = Log::open_on(Arc::clone(&storage), options(), 5).unwrap();
    assert!(recovery.repaired.is_empty(), "{recovery}");
    assert_eq!(log.view().durable_end(), Position(written.end + 501));
}
