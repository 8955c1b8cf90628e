//! Nodes that are no agents of ours: what of their births and data is kept.

use super::*;

#[test]
fn values_of_a_foreign_birth_that_changed_are_rows() {
    let mut rig = Rig::new();
    let out = foreign_births(&mut rig, 5);
    assert_eq!(rows(&out), [(0, Some(Value::Int32(5))), (1, Some(Value::String("s".into())))]);
    assert_eq!(rig.catalogue.find("x/pump/tank/Füllstand/+#"), Some(PointId(0)));
    assert!(!rig.catalogue.point(PointId(0)).unwrap().definition.writable);
    assert_eq!(rows(&foreign_births(&mut rig, 5)), []);
    let data = payload(2, vec![wire(None, Some(1), 0, int(6))]);
    assert_eq!(rows(&rig.send("spBv1.0/x/DDATA/pump/tank", data)), [(0, Some(Value::Int32(6)))]);
    assert_eq!(rows(&foreign_births(&mut rig, 6)), []);
    assert_eq!(rows(&foreign_births(&mut rig, 7)), [(0, Some(Value::Int32(7)))]);
    assert_eq!(rig.status().backlog, None);
}

#[test]
fn after_a_restart_a_foreign_birth_is_compared_with_the_last_values() {
    let last = |point: PointId| {
        let value = Some(if point.0 == 0 { Value::Int32(5) } else { Value::String("other".into()) });
        Some(Present { time: Timestamp(0), value, quality: Quality::GOOD })
    };
    let out = foreign_births(&mut Rig::knowing(last), 5);
    assert_eq!(rows(&out), [(1, Some(Value::String("s".into())))]);
}

#[test]
fn of_a_foreign_payload_the_readable_metrics_are_kept() {
    let mut rig = Rig::new();
    foreign_births(&mut rig, 5);
    let metrics = vec![
        wire(Some("by name"), None, 0, Some(metric::Value::StringValue("t".into()))),
        wire(None, Some(3), 0, Some(metric::Value::DoubleValue(1.0))),
        wire(None, Some(1), 0, Some(metric::Value::StringValue("no number".into()))),
        wire(None, Some(1), 0, None),
    ];
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(2, metrics));
    assert_eq!(rows(&out), [(1, Some(Value::String("t".into()))), (0, None)]);
    assert!(
        out.iter().any(|action| matches!(action, Action::Quarantine(entry, None)
            if entry.reason.contains("2 of 4 metrics left out"))),
        "{out:#?}"
    );
}

#[test]
fn foreign_data_that_is_not_understood_is_kept_aside_and_a_birth_asked_for() {
    let mut rig = Rig::new();
    let early = payload(3, vec![wire(None, Some(1), 0, int(6))]);
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", early);
    assert!(
        matches!(&out[..], [Action::Quarantine(entry, None)] if entry.reason.starts_with("before-birth"))
    );
    assert!(rig.asks_for_rebirth("x/pump"));
    foreign_births(&mut rig, 5);
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(2, vec![wire(None, Some(77), 0, int(6))]));
    assert!(matches!(&out[..], [Action::Quarantine(entry, None)] if entry.reason.contains("alias 77")));
    assert!(rig.asks_for_rebirth("x/pump"));
}

#[test]
fn duplicate_names_and_aliases_are_named_problems() {
    let mut rig = Rig::new();
    rig.send("spBv1.0/x/NBIRTH/pump", payload(0, vec![]));
    let metrics = vec![
        wire(Some("a"), Some(1), INT, int(1)),
        wire(Some("a"), Some(2), INT, int(2)),
        wire(Some("b"), Some(3), INT, int(3)),
        wire(Some("c"), Some(3), INT, int(4)),
        wire(None, Some(4), INT, int(5)),
        wire(Some(&"n".repeat(2000)), Some(5), INT, int(6)),
    ];
    let out = rig.send("spBv1.0/x/DBIRTH/pump/tank", payload(1, metrics));
    assert_eq!(rows(&out).len(), 3);
    for problem in [Problem::DuplicateMetric, Problem::AmbiguousAlias, Problem::Nameless] {
        assert_eq!(rig.problems(problem), 1, "{problem:?}");
    }
    // The second alias of one name means that metric; the shared alias means nothing.
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(2, vec![wire(None, Some(2), 0, int(9))]));
    assert_eq!(rows(&out), [(0, Some(Value::Int32(9)))]);
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(3, vec![wire(None, Some(3), 0, int(9))]));
    assert_eq!(rows(&out), []);
}
