//! Any order of events keeps the session's rules; a host that follows the standard decodes all of it.

use std::collections::{HashMap, HashSet};

use model::{Epoch, Offset, PointDefinition, PointPath, RecordId};
use proptest::prelude::*;
use proto::account::Account;
use proto::sparkplug::PayloadView;

use super::*;
use crate::catalogue::Catalogue;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn definition(device: Option<&str>, metric: &str, data_type: DataType) -> PointDefinition {
    PointDefinition {
        path: PointPath::new(&format!("{}/{metric}", device.unwrap_or("node"))).unwrap(),
        device: device.map(str::to_owned),
        metric: metric.to_owned(),
        data_type,
        unit: "bar".into(),
        min: Some(0.0),
        max: None,
        writable: false,
        dead_band: None,
        description: String::new(),
    }
}

/// Two devices and a node point now; one device and one type from before.
fn points() -> Arc<Points> {
    let dir = tempfile::tempdir().unwrap();
    let before =
        [definition(Some("a"), "x", DataType::Int32), definition(Some("gone"), "z", DataType::Double)];
    drop(Catalogue::open(dir.path(), 1, &before).unwrap());
    let now = [
        definition(Some("a"), "x", DataType::Double),
        definition(Some("b"), "y", DataType::Boolean),
        definition(None, "n", DataType::Bytes),
    ];
    Catalogue::open(dir.path(), 2, &now).unwrap().points
}

fn node() -> NodeId {
    NodeId::new("g", "n").unwrap()
}

fn value_of(points: &Points, id: PointId) -> Value {
    match points.get(id).unwrap().definition.data_type {
        DataType::Int32 => Value::Int32(-7),
        DataType::Double => Value::Double(1.5),
        DataType::Boolean => Value::Boolean(true),
        _ => Value::Bytes(vec![1]),
    }
}

fn record(points: &Points, id: PointId, offset: u64) -> (SampleBatch, RecordHead) {
    let id_of = RecordId { epoch: Epoch(5), offset: Offset(offset) };
    let sample = Sample { point: id, time: NOW, value: Some(value_of(points, id)), quality: Quality::GOOD };
    let batch = SampleBatch { id: id_of, accepted_at: NOW, is_historical: false, samples: vec![sample] };
    let account = Some(Account::default());
    let head = RecordHead {
        id: id_of,
        first_held: 0,
        accepted_end: offset + 1,
        accepted_at: NOW,
        account,
        counts: None,
    };
    (batch, head)
}

/// A host application that follows the standard to the letter.
#[derive(Default)]
struct Host {
    born: bool,
    seq: u64,
    /// Alias to type, per device in session; the node's own under "".
    devices: HashMap<String, HashMap<u64, u32>>,
    types: HashMap<u64, u32>,
    rows: Vec<(u64, bool, DataType)>,
}

impl Host {
    fn receive(&mut self, message: &Outgoing) {
        let Some(Topic::Node { kind, device, .. }) = Topic::parse(&message.topic) else {
            panic!("{}", message.topic)
        };
        let payload = PayloadView::decode(&message.payload).unwrap();
        let device = device.unwrap_or_default();
        let seq = payload.seq.unwrap();
        if kind == MessageType::NBirth {
            assert_eq!(seq, 0);
            self.born = true;
            self.devices.clear();
        } else {
            assert!(self.born, "nothing before NBIRTH");
            assert_eq!(seq, (self.seq + 1) % 256, "{kind:?}");
        }
        self.seq = seq;
        match kind {
            MessageType::NBirth | MessageType::DBirth => self.birth(&device, &payload),
            MessageType::NData | MessageType::DData => {
                assert_eq!(kind == MessageType::NData, device.is_empty());
                let aliases = self.devices.get(&device).expect("data of a device that is not born");
                for (index, metric) in payload.metrics.iter().enumerate() {
                    let born = aliases[&metric.alias.unwrap()];
                    let data_type = DataType::from_code(metric.datatype.unwrap_or(born)).unwrap();
                    assert!(metric.name.is_none());
                    let value = metric.value.to_value(data_type, payload.value_micros(index)).unwrap();
                    self.rows.push((
                        payload.record.unwrap().id.offset.0,
                        metric.is_historical,
                        value.data_type(),
                    ));
                }
            }
            MessageType::DDeath => {
                self.devices.remove(&device).expect("DDEATH of a device that is not born");
            }
            other => panic!("{other:?}"),
        }
    }

    fn birth(&mut self, device: &str, payload: &PayloadView<'_>) {
        let mut aliases = HashMap::new();
        let mut names = HashSet::new();
        for metric in &payload.metrics {
            assert!(names.insert(metric.name.unwrap().to_owned()), "metric names are unique");
            let control = device.is_empty() && metric.name != Some("n");
            assert_eq!(metric.alias.is_none(), control, "bdSeq and Node Control have no alias");
            if let Some(alias) = metric.alias {
                assert!(aliases.insert(alias, metric.datatype.unwrap()).is_none());
                let known = *self.types.entry(alias).or_insert(metric.datatype.unwrap());
                assert_eq!(Some(known), metric.datatype, "an alias is never another metric");
            }
        }
        self.devices.insert(device.to_owned(), aliases);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Rebirth,
    Live { point: u32, down: bool },
    History { point: u32 },
    HistoryDone,
    Reconcile { up: Vec<bool> },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Rebirth),
        8 => (3_u32..=5, any::<bool>()).prop_map(|(point, down)| Event::Live { point, down }),
        8 => (1_u32..=5).prop_map(|point| Event::History { point }),
        2 => Just(Event::HistoryDone),
        1 => prop::collection::vec(any::<bool>(), 5).prop_map(|up| Event::Reconcile { up }),
    ]
}

proptest! {
    #[test]
    fn any_order_of_events_is_a_valid_session(events in prop::collection::vec(event(), 0..400)) {
        let points = points();
        let mut edge = EdgeNode::new(node(), points.clone(), 9);
        let mut host = Host::default();
        let mut expected = Vec::new();
        host.receive(&edge.birth(NOW, &BirthHead::default(), &|_| None, true));
        for (offset, event) in (0_u64..).zip(events) {
            let out = match event {
                Event::Rebirth => {
                    let mut out = vec![edge.birth(NOW, &BirthHead::default(), &|_| None, true)];
                    out.push(edge.device_birth(DeviceIndex(1), NOW, &|_| None));
                    out
                }
                Event::Live { point, down } => {
                    let (batch, head) = record(&points, PointId(point), offset);
                    expected.push((offset, false, value_of(&points, PointId(point)).data_type()));
                    let event = if down { DeviceEvent::Down } else { DeviceEvent::None };
                    edge.live(NOW, &batch, &head, event, &|_| None)
                }
                Event::History { point } => {
                    let (batch, head) = record(&points, PointId(point), offset);
                    expected.push((offset, true, value_of(&points, PointId(point)).data_type()));
                    edge.history(NOW, &batch, &head)
                }
                Event::HistoryDone => edge.history_done(NOW),
                Event::Reconcile { up } => edge.reconcile(NOW, &|device| up[device.0]),
            };
            out.iter().for_each(|message| host.receive(message));
        }
        prop_assert_eq!(host.rows, expected);
    }
}

#[test]
fn births_say_what_is_known_and_deaths_pair_with_them() {
    let points = points();
    let mut edge = EdgeNode::new(node(), points.clone(), 255);
    let head = BirthHead { epochs: vec![], agent_time: NOW, version: "1".into(), outbox_used: None };
    let latest = |id: PointId| {
        let value = Some(value_of(&points, id));
        (id == PointId(3)).then_some(Latest { time: Timestamp(NOW.0 - 5_000), value, quality: Quality::GOOD })
    };
    let birth = edge.birth(NOW, &head, &latest, false);
    assert_eq!(birth.topic, "spBv1.0/g/NBIRTH/n");
    let payload = PayloadView::decode(&birth.payload).unwrap();
    let names: Vec<_> = payload.metrics.iter().map(|metric| metric.name.unwrap()).collect();
    assert_eq!(names, ["bdSeq", "Node Control/Rebirth", "Forebay/Receipt", "n"]);
    assert_eq!(payload.birth, Some(head));
    let bd_seq = payload.metrics[0].value.to_value(DataType::Int64, 0);
    assert_eq!(bd_seq, Some(Value::Int64(255)));
    let death = edge.death(NOW);
    let death = PayloadView::decode(&death.payload).unwrap();
    assert_eq!((death.seq, death.metrics[0].value.to_value(DataType::Int64, 0)), (None, bd_seq));
    let device = edge.device_birth(DeviceIndex(1), NOW, &latest);
    assert_eq!(device.topic, "spBv1.0/g/DBIRTH/n/a");
    let payload = PayloadView::decode(&device.payload).unwrap();
    assert_eq!(payload.metrics.len(), 1);
    assert_eq!(payload.metrics[0].value.to_value(DataType::Double, 0), Some(Value::Double(1.5)));
    assert_eq!(payload.time(0), Some(Timestamp(NOW.0 - 5_000)));
}
