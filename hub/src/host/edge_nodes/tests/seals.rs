//! What was changed on its way is not received, whatever it would have meant.

use proto::seal;

use super::*;

const NBIRTH: &str = "spBv1.0/g/NBIRTH/line";
const DDATA: &str = "spBv1.0/g/DDATA/line/press";
const NDEATH: &str = "spBv1.0/g/NDEATH/line";

fn sealed(topic: &str, mut payload: Vec<u8>) -> Vec<u8> {
    seal::put(topic, &mut payload);
    payload
}

fn node_birth(rig: &Rig) -> Vec<u8> {
    let mut payload = Vec::new();
    encode::birth(0, rig.at, &[], Some(&head(0, 5)), &mut payload);
    payload
}

/// A node whose births came sealed.
fn sealing() -> Rig {
    let mut rig = Rig::new();
    let birth = sealed(NBIRTH, node_birth(&rig));
    rig.send(NBIRTH, birth);
    let metrics = [BirthMetric {
        name: "a",
        alias: Some(100),
        data_type: DataType::Double,
        value: None,
        time: Timestamp(0),
        quality: Quality::GOOD,
        definition: Some(&two_points()[0]),
    }];
    let mut payload = Vec::new();
    encode::birth(1, rig.at, &metrics, None, &mut payload);
    let topic = "spBv1.0/g/DBIRTH/line/press";
    rig.send(topic, sealed(topic, payload));
    rig
}

fn ingested(out: &[Action]) -> usize {
    out.iter().filter(|action| matches!(action, Action::Ingest(_))).count()
}

#[test]
fn no_single_changed_byte_of_a_record_reaches_the_store() {
    let mut rig = sealing();
    let whole = sealed(DDATA, record(&rig, 2, 0, vec![sample(100, Value::Double(1.0))]));
    for at in 0..whole.len() {
        for mask in [1, 0x10, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= mask;
            let out = rig.send(DDATA, changed);
            assert!(out.is_empty(), "byte {at} ^ {mask:#x}: {out:#?}");
        }
    }
    assert_eq!(rig.problems(Problem::Damaged), 4 * whole.len() as u64);
    assert_eq!(ingested(&rig.send(DDATA, whole)), 1);
}

#[test]
fn data_of_a_node_that_seals_needs_its_seal_and_its_own_topic() {
    let mut rig = sealing();
    let plain = record(&rig, 2, 0, vec![sample(100, Value::Double(1.0))]);
    assert_eq!(ingested(&rig.send(DDATA, plain.clone())), 0);
    let elsewhere = sealed("spBv1.0/g/DDATA/line/prest", plain);
    assert_eq!(ingested(&rig.send(DDATA, elsewhere)), 0);
    assert_eq!(rig.problems(Problem::Damaged), 2);
}

#[test]
fn a_damaged_birth_forgets_nothing_and_is_asked_for_again() {
    let mut rig = sealing();
    // It would say that offsets below 4 are gone at the agent, and they would count as lost for good.
    let mut payload = Vec::new();
    encode::birth(0, rig.at, &[], Some(&head(4, 5)), &mut payload);
    let mut birth = sealed(NBIRTH, payload);
    let last = birth.len() - 12;
    birth[last] ^= 4;
    assert!(rig.send(NBIRTH, birth).is_empty());
    assert!(rig.asks_for_rebirth("g/line"));
}

#[test]
fn after_a_damaged_death_nobody_vouches_for_values() {
    let mut rig = sealing();
    let mut payload = Vec::new();
    encode::node_death(3, Timestamp(0), &mut payload);
    let mut death = sealed(NDEATH, payload);
    death[3] ^= 1;
    let out = rig.send(NDEATH, death);
    assert!(out.iter().any(|action| matches!(action, Action::Stale(_))), "{out:#?}");
    assert!(!rig.status().online);
    assert!(rig.asks_for_rebirth("g/line"), "perhaps it lives");
}

#[test]
fn an_older_program_is_believed_at_its_third_birth() {
    let mut rig = sealing();
    for n in 1..=3 {
        let birth = node_birth(&rig);
        assert_eq!(!rig.send(NBIRTH, birth).is_empty(), n == 3, "birth {n}");
    }
    let mut changed = sealed(NBIRTH, node_birth(&rig));
    changed[0] ^= 2;
    assert!(rig.send(NBIRTH, changed).is_empty(), "a seal that is there must fit");
}

#[test]
fn bytes_of_a_foreign_node_that_look_like_a_seal_are_none() {
    let mut rig = Rig::new();
    let metric = |value: Vec<u8>| WireMetric {
        name: Some("photo".into()),
        datatype: Some(17),
        value: Some(metric::Value::BytesValue(value)),
        ..WireMetric::default()
    };
    let payload = |seq, value| {
        let payload = Payload { seq: Some(seq), ..Payload::default() };
        let mut bytes = prost::Message::encode_to_vec(&payload);
        bytes.extend(prost::Message::encode_to_vec(&Payload {
            metrics: vec![metric(value)],
            ..Payload::default()
        }));
        bytes
    };
    rig.send("spBv1.0/g/NBIRTH/camera", payload(0, vec![1]));
    let chance = vec![0xf9, 0x49, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(ingested(&rig.send("spBv1.0/g/NDATA/camera", payload(1, chance))), 1);
}
