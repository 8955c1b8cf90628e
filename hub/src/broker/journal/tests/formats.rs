//! Bytes and values: what was encoded is decoded, and no bytes are taken for something else.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proto::mqtt::QoS;

use super::super::encoding::{decode, decode_wanted, encode};
use super::super::recovered::Replaying;
use super::super::snapshot::{SnapshotError, Stand, read, write};
use super::*;
use model::Timestamp;

fn text() -> impl Strategy<Value = String> {
    "[a-zÖ/+#$0-9]{0,40}"
}

fn id() -> impl Strategy<Value = SessionId> {
    prop_oneof![(0..300_u64).prop_map(SessionId), any::<u64>().prop_map(SessionId)]
}

fn a_message() -> impl Strategy<Value = Arc<Message>> {
    let flags = (0..=2_u8, any::<bool>(), proptest::option::of(any::<i64>()), proptest::option::of(id()));
    (text(), vec(any::<u8>(), 0..400), vec(any::<u8>(), 0..40), flags).prop_map(
        |(topic, payload, properties, (qos, retain, expires, publisher))| {
            Arc::new(Message {
                topic: topic.into(),
                payload: payload.into(),
                qos: QoS::try_from(qos).unwrap(),
                retain,
                properties: properties.into(),
                expires_at: expires.map(Timestamp),
                publisher,
            })
        },
    )
}

fn a_target() -> impl Strategy<Value = Target> {
    (id(), 1..=2_u8, any::<bool>(), vec(any::<u32>(), 0..4)).prop_map(|(session, qos, retain, ids)| Target {
        session,
        qos: QoS::try_from(qos).unwrap(),
        retain,
        subscription_ids: ids.into(),
    })
}

fn ordinals() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (0..u64::MAX / 2).prop_flat_map(|base| {
        let done = btree_set(base + 1..base + 70_000, 0..20);
        (Just(base), done.prop_map(|done| done.into_iter().collect()))
    })
}

fn a_record() -> impl Strategy<Value = Record> {
    let received = proptest::option::of((id(), any::<u16>()));
    prop_oneof![
        (a_message(), vec(a_target(), 0..6), any::<bool>(), received).prop_map(
            |(message, targets, retained, received)| Record::Message { message, targets, retained, received }
        ),
        (id(), text(), text(), any::<u32>()).prop_map(|(id, client_id, identity, expiry_s)| {
            Record::Session { id, client_id: client_id.into(), identity: identity.into(), expiry_s }
        }),
        (id(), any::<i64>()).prop_map(|(id, at)| Record::Disconnected { id, at: Timestamp(at) }),
        id().prop_map(|id| Record::Ended { id }),
        (id(), text(), any::<u8>(), proptest::option::of(any::<u32>())).prop_map(
            |(id, filter, options, subscription_id)| {
                Record::Subscribed { id, filter: filter.into(), options, subscription_id }
            }
        ),
        (id(), text()).prop_map(|(id, filter)| Record::Unsubscribed { id, filter: filter.into() }),
        (id(), any::<u16>()).prop_map(|(id, packet_id)| Record::Released { id, packet_id }),
        (id(), any::<u64>()).prop_map(|(id, ordinal)| Record::Received { id, ordinal }),
        (id(), ordinals(), any::<u64>(), any::<u64>()).prop_map(|(id, (base, done), position, bytes)| {
            Record::Progress { id, base, position: Position(position), done, queued_bytes: bytes }
        }),
        (id(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(id, to, position, bytes)| {
            Record::Skipped { id, to, position: Position(position), queued_bytes: bytes }
        }),
    ]
}

fn a_session() -> impl Strategy<Value = SessionState> {
    let texts = (text(), text(), any::<u32>(), proptest::option::of(any::<i64>()));
    let sets = (btree_set(any::<u16>(), 0..9), ordinals(), any::<u64>(), any::<u64>());
    let subscriptions =
        proptest::collection::btree_map(text(), (any::<u8>(), proptest::option::of(any::<u32>())), 0..6);
    (id(), texts, sets, subscriptions).prop_map(|(id, texts, sets, subscriptions)| {
        let (client_id, identity, expiry_s, disconnected) = texts;
        let (received, (base, done), position, queued_bytes) = sets;
        SessionState {
            id,
            client_id: client_id.into(),
            identity: identity.into(),
            expiry_s,
            disconnected_at: disconnected.map(Timestamp),
            subscriptions: subscriptions
                .into_iter()
                .map(|(filter, (options, id))| (filter.into(), options, id))
                .collect(),
            received,
            base,
            end: base + 70_000,
            received_out: done.iter().step_by(2).copied().collect(),
            done: done.into_iter().skip(1).step_by(2).collect(),
            base_position: Position(position),
            queued_bytes,
        }
    })
}

fn bytes_of(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn records_come_back(record in a_record()) {
        let bytes = bytes_of(&record);
        prop_assert_eq!(decode(&bytes).unwrap(), record.clone());
        prop_assert!(bytes.len() <= record.bytes_max(), "{} of {}", bytes.len(), record.bytes_max());
        for cut in 0..bytes.len() {
            prop_assert!(decode(&bytes[..cut]).is_err());
        }
        if let Record::Message { message, targets, .. } = &record {
            let wanted: Vec<Target> =
                targets.iter().filter(|target| target.session.0 % 2 == 0).cloned().collect();
            let found = decode_wanted(&bytes, |session| session.0 % 2 == 0).unwrap();
            prop_assert_eq!(found.is_some(), !wanted.is_empty());
            if let Some((read, targets)) = found {
                prop_assert_eq!(&read, &**message);
                prop_assert_eq!(targets, wanted);
            }
        }
    }

    /// Damaged records are errors, or records that mean what they say.
    #[test]
    fn no_bytes_stop_the_decoder(
        record in a_record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes_of(&record);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(decode(&bytes_of(&read)).unwrap(), read);
        }
        decode_wanted(&bytes, |_| true).ok();
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(mut bytes in vec(any::<u8>(), 0..200), kind in 0..12_u8) {
        decode(&bytes).ok();
        if let Some([version, first]) = bytes.first_chunk_mut::<2>() {
            (*version, *first) = (1, kind);
        }
        decode(&bytes).ok();
        decode_wanted(&bytes, |_| true).ok();
    }

    #[test]
    fn snapshots_come_back(
        mut sessions in vec(a_session(), 0..8),
        retained in vec(a_message(), 0..8),
        position in any::<u64>(),
    ) {
        sessions.sort_by_key(|session| session.id);
        sessions.dedup_by_key(|session| session.id);
        let highest = sessions.iter().map(|session| session.id.0).max().unwrap_or(6);
        let state = SnapshotState { sessions, retained, next_session: SessionId(highest.saturating_add(1)) };
        let disk = FaultyStorage::new(1);
        let stand = Stand { position: Position(position), log_epoch: 77 };
        let bytes = write(&disk, stand, &state).unwrap();
        prop_assert_eq!(bytes, disk.bytes_of("snapshot").unwrap().len() as u64);
        let mut replaying = Replaying::default();
        prop_assert_eq!(read(&disk, &mut replaying).unwrap(), Some(stand));
        let found = replaying.finish(Position(9), None);
        prop_assert_eq!(found.sessions, state.sessions);
        prop_assert_eq!(found.next_session, state.next_session);
        let by_topic: std::collections::BTreeMap<_, _> =
            state.retained.iter().map(|message| (message.topic.clone(), Arc::clone(message))).collect();
        prop_assert_eq!(found.retained, by_topic.into_values().collect::<Vec<_>>());
    }
}

fn a_picture() -> SnapshotState {
    let mut replaying = Replaying::default();
    for id in 0..3 {
        replaying.apply(Position(id), session(id));
        let (id, filter) = (SessionId(id), "a/#".into());
        replaying.apply(Position(9), Record::Subscribed { id, filter, options: 1, subscription_id: Some(4) });
    }
    replaying.retained(Arc::new(message("plant/state", "on")));
    let Recovered { sessions, retained, next_session, .. } = replaying.finish(Position(10), None);
    SnapshotState { sessions, retained, next_session }
}

#[test]
fn every_damaged_byte_of_a_snapshot_is_noticed() {
    let disk = FaultyStorage::new(1);
    write(&disk, Stand { position: Position(10), log_epoch: 7 }, &a_picture()).unwrap();
    let good = disk.bytes_of("snapshot").unwrap();
    let is_read = |bytes: Vec<u8>| {
        disk.replace("snapshot", bytes);
        read(&disk, &mut Replaying::default()).is_ok()
    };
    assert!(is_read(good.clone()));
    for at in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            assert!(!is_read(bytes), "byte {at}");
        }
        assert!(!is_read(good[..at].to_vec()), "cut at {at}");
    }
    assert!(!is_read([good.clone(), vec![0]].concat()));
    let mut newer = good;
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..32]).to_le_bytes();
    newer[32..36].copy_from_slice(&crc);
    disk.replace("snapshot", newer);
    assert!(matches!(read(&disk, &mut Replaying::default()), Err(SnapshotError::Newer(2))));
}

#[test]
fn a_power_cut_while_a_snapshot_is_written_leaves_a_whole_one() {
    for seed in 0..80 {
        let disk = FaultyStorage::new(seed);
        write(&disk, Stand { position: Position(10), log_epoch: 7 }, &a_picture()).unwrap();
        let one_in = seed % 3 + 1;
        let faults =
            durable_log::Faults { write_error: one_in, sync_error: one_in, short: 2, ..Default::default() };
        disk.set_faults(faults);
        let written = write(&disk, Stand { position: Position(20), log_epoch: 7 }, &a_picture()).is_ok();
        let found = read(&disk.crash(), &mut Replaying::default()).unwrap().unwrap().position.0;
        assert!(found == 20 || (found == 10 && !written), "seed {seed}: {found} {written}");
    }
}
