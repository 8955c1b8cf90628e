//! The catalogue: numbers stay, paths are nobody's twice, a power cut loses no entry that a record uses.

use durable_log::FaultyStorage;
use model::DataType;

use super::*;

fn point(path: &str, device: &str, metric: &str) -> PointDefinition {
    PointDefinition {
        path: PointPath::new(path).unwrap(),
        device: Some(device.into()),
        metric: metric.into(),
        data_type: DataType::Double,
        unit: String::new(),
        min: None,
        max: None,
        writable: false,
        dead_band: None,
        description: String::new(),
    }
}

fn assign(catalogue: &Catalogue, node: &str, claim: PointDefinition) -> Assigned {
    let agent = catalogue.agent_id(&NodeId::parse(node).unwrap()).unwrap();
    catalogue.assign(agent, [claim], true).unwrap().remove(0)
}

#[test]
fn numbers_survive_and_are_durable_only_after_persisting() {
    let disk = FaultyStorage::new(3);
    let catalogue = Catalogue::open(Arc::new(disk.clone()), Arc::new(FaultyStorage::new(77)), 1).unwrap();
    let first = assign(&catalogue, "g/a", point("p", "d", "m"));
    assert_eq!(catalogue.entries_from(0), (Vec::new(), 0));
    catalogue.persist().unwrap();
    assert_eq!(catalogue.entries_from(0).1, 2);
    let described = PointDefinition { description: "new".into(), ..point("p", "d", "m") };
    assert_eq!(assign(&catalogue, "g/a", described.clone()).id, first.id);
    assign(&catalogue, "g/b", point("q", "d", "m"));
    catalogue.persist().unwrap();
    assign(&catalogue, "g/b", point("lost", "d", "m"));
    drop(catalogue);

    let catalogue = Catalogue::open(Arc::new(disk.crash()), Arc::new(FaultyStorage::new(77)), 2).unwrap();
    assert_eq!(catalogue.len(), 2);
    assert_eq!(catalogue.point(first.id).unwrap().definition, described);
    assert_eq!(catalogue.find("q"), Some(PointId(1)));
    assert_eq!(catalogue.agent(AgentId(2)), Some(NodeId::parse("g/b").unwrap()));
    assert_eq!(catalogue.find("lost"), None);
    assert_eq!(
        assign(&catalogue, "g/a", described),
        Assigned { id: first.id, is_new: false, taken_by: None }
    );
}

#[test]
fn a_taken_path_is_given_another_and_the_agents_hash_stays() {
    let disk = FaultyStorage::new(4);
    let catalogue = Catalogue::open(Arc::new(disk.clone()), Arc::new(FaultyStorage::new(77)), 1).unwrap();
    let first = assign(&catalogue, "g/a", point("p", "d", "m"));
    let second = assign(&catalogue, "g/b", point("p", "d", "m"));
    assert_eq!(second.taken_by, Some(first.id));
    assert_eq!(catalogue.find("g/b/p"), Some(second.id));
    assert_eq!(catalogue.find("p"), Some(first.id));
    let again = assign(&catalogue, "g/b", point("p", "d", "m"));
    assert_eq!((again.id, again.is_new), (second.id, false));
    let hashes = |catalogue: &Catalogue| catalogue.hashes()[second.id.0 as usize];
    assert_eq!(hashes(&catalogue), PathHashes { hub: path_hash("g/b/p"), agent: path_hash("p") });
    catalogue.persist().unwrap();
    let catalogue = Catalogue::open(Arc::new(disk.crash()), Arc::new(FaultyStorage::new(77)), 2).unwrap();
    assert_eq!(hashes(&catalogue), PathHashes { hub: path_hash("g/b/p"), agent: path_hash("p") });
}

#[test]
fn another_type_is_another_point_of_the_path() {
    let catalogue =
        Catalogue::open(Arc::new(FaultyStorage::new(5)), Arc::new(FaultyStorage::new(77)), 1).unwrap();
    let double = assign(&catalogue, "g/a", point("p", "d", "m"));
    let text = PointDefinition { data_type: DataType::String, ..point("p", "d", "m") };
    let text = assign(&catalogue, "g/a", text);
    assert_ne!(double.id, text.id);
    assert_eq!((text.taken_by, catalogue.find("p")), (None, Some(text.id)));
    assert_eq!(assign(&catalogue, "g/a", point("p", "d", "m")).id, double.id);
}

#[test]
fn a_hostile_agent_with_one_path_for_all_does_not_slow_the_catalogue() {
    let catalogue =
        Catalogue::open(Arc::new(FaultyStorage::new(6)), Arc::new(FaultyStorage::new(77)), 1).unwrap();
    let agent = catalogue.agent_id(&NodeId::parse("g/a").unwrap()).unwrap();
    let claims: Vec<PointDefinition> = (0..20_000).map(|n| point("p", "d", &format!("m{n}"))).collect();
    let began = std::time::Instant::now();
    let first = catalogue.assign(agent, claims.clone(), true).unwrap();
    let again = catalogue.assign(agent, claims, true).unwrap();
    assert!(first.iter().zip(&again).all(|(a, b)| a.id == b.id && a.is_new && !b.is_new));
    assert_eq!(catalogue.len(), 20_000);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn a_full_disk_keeps_the_entries_for_later() {
    let disk = FaultyStorage::new(7);
    let catalogue = Catalogue::open(Arc::new(disk.clone()), Arc::new(FaultyStorage::new(77)), 1).unwrap();
    assign(&catalogue, "g/a", point("p", "d", "m"));
    disk.set_faults(durable_log::Faults { capacity: 10, ..durable_log::Faults::default() });
    assert!(catalogue.persist().is_err());
    assign(&catalogue, "g/a", point("q", "d", "m"));
    disk.set_faults(durable_log::Faults::default());
    catalogue.persist().unwrap();
    let catalogue = Catalogue::open(Arc::new(disk.crash()), Arc::new(FaultyStorage::new(77)), 2).unwrap();
    assert_eq!((catalogue.find("p"), catalogue.find("q")), (Some(PointId(0)), Some(PointId(1))));
}
