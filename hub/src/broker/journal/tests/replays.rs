//! Messages read back: in order, whole, many sessions in one pass, in bounded memory.

use std::collections::{BTreeMap, HashSet};

use super::*;

#[test]
fn each_session_gets_its_own_in_order() {
    let disk = FaultyStorage::new(1);
    let mut rig = Rig::open(&disk);
    let mut expected: BTreeMap<u64, Vec<(Position, String)>> = BTreeMap::new();
    for i in 0..600_u64 {
        let who: Vec<u64> = (1..8).filter(|id| i % id == 0).collect();
        let text = format!("message {i} {}", "x".repeat(i as usize % 90));
        let at = rig.append(to(&who, message("t", text.clone())));
        who.iter().for_each(|id| expected.entry(*id).or_default().push((at, text.clone())));
        if i % 50 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    for (id, expected) in expected {
        for messages_max in [1, 7, 10_000] {
            let from = Position(expected.len() as u64 / 3);
            let got: Vec<_> = rig
                .read_all(id, from, messages_max)
                .into_iter()
                .map(|(at, message, target)| {
                    assert_eq!(target.session, SessionId(id));
                    (at, String::from_utf8(message.payload.to_vec()).unwrap())
                })
                .collect();
            let expected: Vec<_> = expected.iter().filter(|(at, _)| *at >= from).cloned().collect();
            assert_eq!(got, expected);
        }
    }
    assert!(rig.read_all(99, Position::ZERO, 5).is_empty());
    rig.close();
}

#[test]
fn nothing_is_read_that_is_not_told_durable() {
    let disk = FaultyStorage::new(2);
    let mut rig = Rig::open(&disk);
    for round in 0..200 {
        let at = rig.append(to(&[1], message("t", "x")));
        rig.journal().submit();
        let request = ReplayRequest {
            session: SessionId(1),
            token: round,
            from: Position::ZERO,
            messages_max: 1000,
            bytes_max: 1 << 20,
        };
        rig.journal().replay(request);
        let mut answered = false;
        while !answered || rig.journal().durable_end() <= at {
            for event in rig.drain() {
                if let JournalEvent::Replayed(batch) = event {
                    let durable = rig.journal().durable_end();
                    assert_eq!(batch.token, round);
                    assert!(batch.next <= durable);
                    assert_eq!(batch.messages.len() as u64, batch.next.0);
                    answered = true;
                }
            }
            std::thread::yield_now();
        }
    }
    rig.close();
}

/// 1 000 sessions that were away want the same 2 000 messages of 4 KB.
#[test]
fn a_thousand_sessions_share_reads_and_memory() {
    const SESSIONS: u64 = 1000;
    const MESSAGES: u64 = 1000;
    let disk = FaultyStorage::new(3);
    let options = JournalOptions {
        bytes_max: 64 << 20,
        headroom_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        snapshot_bytes: 16 << 20,
        ..small()
    };
    let mut rig = Rig::open_with(Arc::new(disk), options).unwrap();
    let everybody: Vec<u64> = (0..SESSIONS).collect();
    for i in 0..MESSAGES {
        rig.append(to(&everybody, message("t", vec![i as u8; 4096])));
        if rig.journal().backlog_bytes() > 1 << 20 {
            rig.settle();
        }
    }
    rig.settle();
    let ask = |rig: &mut Rig, session: SessionId, from: Position| {
        rig.journal().replay(ReplayRequest {
            session,
            token: 0,
            from,
            messages_max: 64,
            bytes_max: 64 * 1024,
        });
    };
    for session in 0..SESSIONS {
        ask(&mut rig, SessionId(session), Position::ZERO);
    }
    let mut got = vec![0; SESSIONS as usize];
    let (mut done, mut most) = (0, 0);
    while done < SESSIONS {
        let batches = rig.wait(|event| match event {
            JournalEvent::Replayed(batch) => Some(batch),
            _ => None,
        });
        let mut batches = vec![batches];
        for event in rig.drain() {
            if let JournalEvent::Replayed(batch) = event {
                batches.push(batch);
            }
        }
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for batch in &batches {
            for (position, message, _) in &batch.messages {
                assert_eq!(position.0, got[batch.session.0 as usize], "session {:?}", batch.session);
                got[batch.session.0 as usize] += 1;
                bytes += size_of::<(Position, Arc<Message>, Target)>();
                if seen.insert(Arc::as_ptr(message)) {
                    bytes += message.bytes();
                }
            }
        }
        most = most.max(bytes);
        for batch in batches {
            if batch.at_durable_end {
                done += 1;
            } else {
                ask(&mut rig, batch.session, batch.next);
            }
        }
    }
    assert!(got.iter().all(|got| *got == MESSAGES));
    assert!(most < 8 << 20, "{most} bytes at once");
    let scanned = rig.metrics.counter("forebay_broker_replay_scanned_total", "", &[]).get();
    println!("{scanned} records read for {} messages, {most} bytes at once", SESSIONS * MESSAGES);
    assert!(scanned < SESSIONS * MESSAGES / 10, "{scanned} records read");
    rig.close();
}

#[test]
fn damage_is_told_with_its_place_and_the_rest_can_be_read() {
    let disk = FaultyStorage::new(4);
    let mut rig = Rig::open(&disk);
    for i in 0..200_u8 {
        rig.append(to(&[1], message("t", vec![i; 100])));
        rig.settle();
    }
    let name = disk.names().into_iter().filter(|name| name.ends_with(".log")).nth(1).unwrap();
    let from = segments(&disk)[1];
    let mut bytes = disk.bytes_of(&name).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    disk.replace(&name, bytes);
    let batch = rig.ask(1, Position(from), 1000);
    let why = batch.failed.unwrap().to_string();
    assert!(why.contains(&name), "{why}");
    assert_eq!(batch.messages.len() as u64, batch.next.0 - from);
    let next = Position(segments(&disk)[2]);
    assert_eq!(rig.ask(1, next, 1000).messages.len() as u64, 200 - next.0);
    rig.close();
}
