//! Flips and cuts in the journal and its snapshot: the broker starts, no message turns into another, and what stands in
//! the log behind a damaged place is still delivered, in order.

use std::collections::BTreeMap;

use super::*;

fn text(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// SplitMix64 of a seed.
fn mixed(seed: u64) -> u64 {
    let z = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn flip_or_cut(disk: &FaultyStorage, random: u64) -> String {
    let files: Vec<String> = disk.names().into_iter().filter(|name| !name.starts_with("damaged")).collect();
    let files: Vec<&String> =
        files.iter().filter(|name| disk.bytes_of(name).is_some_and(|b| !b.is_empty())).collect();
    let name = files[random as usize % files.len()];
    let mut bytes = disk.bytes_of(name).unwrap();
    let at = (random / 7919) as usize % bytes.len();
    if random.is_multiple_of(4) && at > 64 {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << (random % 8);
    }
    disk.replace(name, bytes);
    format!("{name} byte {at} of seed")
}

#[test]
fn a_damaged_journal_costs_the_damaged_messages() {
    let (mut whole, mut less) = (0, 0);
    for seed in 0..60_u64 {
        let disk = FaultyStorage::new(seed);
        let mut rig = Rig::open(&disk);
        let mut sent: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for id in 1..4 {
            rig.append(session(id));
        }
        for i in 0..250_u64 {
            let who: Vec<u64> = (1..4).filter(|id| i % id == 0).collect();
            let payload = format!("message {i} {}", "x".repeat(i as usize % 150));
            rig.append(to(&who, message("t", payload.clone())));
            who.iter().for_each(|id| sent.entry(*id).or_default().push(payload.clone()));
            if i % 10 == 0 {
                rig.settle();
            }
        }
        // Session 2 has taken forty messages.
        let all = rig.read_all(2, Position::ZERO, 1000);
        let (place, _, _) = all[40];
        rig.append(Record::Progress {
            id: SessionId(2),
            base: 40,
            position: place,
            done: Vec::new(),
            queued_bytes: 1,
        });
        sent.get_mut(&2).unwrap().drain(..40);
        rig.settle();
        if seed % 2 == 0 {
            let sessions = rig.recovered_now(&disk);
            rig.journal().snapshot(SnapshotState {
                sessions,
                retained: Vec::new(),
                next_session: SessionId(4),
            });
            rig.wait_until("the snapshot", |_| disk.names().iter().any(|name| name == "snapshot.copy"));
        }
        rig.close();
        let what = flip_or_cut(&disk, mixed(seed));

        let mut rig = Rig::open(&disk);
        let (mut got_all, mut healed) = (true, false);
        for (id, sent) in &sent {
            let Some(state) = rig.recovered.sessions.iter().find(|state| state.id.0 == *id).cloned() else {
                got_all = false; // its own record was damaged
                continue;
            };
            let (got, met_damage) = rig.read_and_heal(*id, state.base_position);
            healed |= met_damage;
            let waits = state.end - state.base;
            assert!(got.len() as u64 == waits || healed && (got.len() as u64) < waits, "{id}: {what} {seed}");
            let got: Vec<String> = got.iter().map(|(_, message, _)| text(message)).collect();
            let mut expected = sent.iter();
            // Without its progress a session gets messages again.
            let again = got.iter().take_while(|got| !sent.contains(got)).count();
            assert!(again == 0 || *id == 2, "session {id}: {what} {seed}");
            for got in &got[again..] {
                assert!(expected.any(|sent| sent == got), "out of order or changed: {got}: {what} {seed}");
            }
            got_all &= got.len() - again == sent.len();
        }
        let at = rig.append(to(&[1], message("t", "new")));
        rig.settle();
        assert_eq!(text(&rig.read_all(1, at, 10)[0].1), "new");
        rig.close();
        drop(Rig::open(&disk));
        if got_all { whole += 1 } else { less += 1 }
    }
    assert!(whole > 0 && less > 5, "{whole} whole, {less} not: the test does not damage enough");
}

impl Rig {
    /// Everything from a position on, as the core asks for it; and whether damage was met on the way.
    fn read_and_heal(
        &mut self,
        id: u64,
        mut from: Position,
    ) -> (Vec<(Position, Arc<Message>, Target)>, bool) {
        let (mut all, mut healed) = (Vec::new(), false);
        for _ in 0..100 {
            let batch = self.ask(id, from, 1000);
            healed |= batch.failed.is_some();
            from = batch.next;
            all.extend(batch.messages);
            if batch.at_durable_end && batch.failed.is_none() {
                return (all, healed);
            }
        }
        panic!("the journal is not healed");
    }

    /// The sessions as an opening of a copy of the disk finds them.
    fn recovered_now(&self, disk: &FaultyStorage) -> Vec<SessionState> {
        let other = Rig::open(&disk.copy());
        let sessions = other.recovered.sessions.clone();
        other.close();
        sessions
    }
}

#[test]
fn a_journal_beyond_repair_is_kept_and_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let open = || {
        let _entered = tokio().enter();
        let tasks = Tasks::new(CancellationToken::new());
        let opened = Journal::open(&dir, small(), &Metrics::default(), Arc::new(|| {}), &tasks);
        opened.map(|(journal, recovered)| (journal, recovered, tasks))
    };
    let (mut journal, _, _tasks) = open().unwrap();
    journal.append(session(1)).unwrap();
    journal.close();
    std::fs::write(dir.join("snapshot"), b"rubbish").unwrap();
    let (journal, recovered, _tasks) = open().unwrap();
    assert_eq!(recovered.sessions.len(), 1, "the log begins at the beginning: nothing is lost");
    journal.close();
    let name = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut logs: Vec<String> = name.filter(|name| name.ends_with(".log")).collect();
    logs.sort();
    std::fs::remove_file(dir.join(&logs[0])).unwrap();
    let (journal, recovered, _tasks) = open().unwrap();
    assert_eq!(recovered.sessions.len(), 0);
    journal.close();
    assert!(folder.path().join("journal.damaged.1").is_dir());
}
