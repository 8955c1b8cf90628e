//! Sessions fed by hand: agents of ours through our encoder, foreign nodes through prost.

use durable_log::FaultyStorage;
use model::{DataType, Offset, PointDefinition, PointPath, Quality, Reason, Sample, Value};
use proto::account::Account;
use proto::generated::sparkplug::{Metric as WireMetric, Payload, metric};
use proto::health::{DeviceHealth, DeviceState, HealthReport, LookAnswer};
use proto::receipt::{COMMAND_REPORT_METRIC, RECEIPT_METRIC};
use proto::sparkplug::encode::{self, BirthMetric};
use proto::sparkplug::{BirthHead, RecordHead};

use super::*;
use crate::host::DeviceStatus;
use crate::store::{Identity, Letter, LetterId, Origin};

mod foreign;
mod seals;

const EPOCH: Epoch = Epoch(0x1234);
const LOG_EPOCH: Epoch = Epoch(0x7777);

struct Rig {
    nodes: EdgeNodes,
    catalogue: Catalogue,
    at: Timestamp,
    since_start: Duration,
}

impl Rig {
    fn new() -> Self {
        Self::knowing(|_| None)
    }

    fn knowing(last: impl Fn(PointId) -> Option<Present> + Send + Sync + 'static) -> Self {
        let catalogue =
            Catalogue::open(Arc::new(FaultyStorage::new(1)), Arc::new(FaultyStorage::new(2)), 9).unwrap();
        let nodes = EdgeNodes::new(catalogue.clone(), LOG_EPOCH, Arc::new(last), &Metrics::default());
        Rig { nodes, catalogue, at: Timestamp(1_790_000_000_000_000), since_start: Duration::ZERO }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let now = Moment { at: self.at, clock: self.at, since_start: self.since_start };
        self.nodes.apply(event, now, &mut out);
        out
    }

    fn send(&mut self, topic: &str, payload: Vec<u8>) -> Vec<Action> {
        self.event(Event::Message { topic: topic.into(), payload: payload.into(), retain: false })
    }

    fn after(&mut self, time: Duration) -> Vec<Action> {
        self.since_start += time;
        self.at = Timestamp(self.at.0 + i64::try_from(time.as_micros()).unwrap());
        self.event(Event::Tick)
    }

    /// Whether a rebirth of the node comes within the next seconds.
    fn asks_for_rebirth(&mut self, node: &str) -> bool {
        let node = NodeId::parse(node).unwrap();
        self.after(Duration::from_secs(3)).contains(&Action::Rebirth(node))
    }

    fn problems(&self, problem: Problem) -> u64 {
        self.nodes.problems.get(problem)
    }

    fn status(&self) -> AgentStatus {
        self.nodes.statuses(&|_, ends| ends.iter().map(|(_, end)| end).sum()).remove(0)
    }
}

fn definition(path: &str, device: Option<&str>, metric: &str, data_type: DataType) -> PointDefinition {
    PointDefinition {
        path: PointPath::new(path).unwrap(),
        device: device.map(str::to_owned),
        metric: metric.into(),
        data_type,
        unit: "bar".into(),
        min: Some(0.0),
        max: Some(10.0),
        writable: true,
        dead_band: None,
        description: "pressure".into(),
    }
}

fn head(first_held: u64, end: u64) -> BirthHead {
    let total = Account { count: end, checksum: end };
    let epoch = EpochAccount { epoch: EPOCH, first_held, end, before: Account::default(), total };
    BirthHead { epochs: vec![epoch], agent_time: Timestamp(0), version: "1.2.3".into(), outbox_used: Some(7) }
}

/// Births of an agent of ours with one device and these points; alias of the n-th is 100 + n.
fn agent_births(rig: &mut Rig, bd_seq: i64, definitions: &[PointDefinition]) -> Vec<Action> {
    let bd_seq = Value::Int64(bd_seq);
    let plain = |name, alias, data_type, value| BirthMetric {
        name,
        alias,
        data_type,
        value,
        time: Timestamp(0),
        quality: Quality::GOOD,
        definition: None,
    };
    let mut payload = Vec::new();
    let node = [
        plain("bdSeq", None, DataType::Int64, Some(&bd_seq)),
        plain("Node Control/Rebirth", None, DataType::Boolean, Some(&Value::Boolean(false))),
        plain(RECEIPT_METRIC, None, DataType::Bytes, None),
        plain(COMMAND_REPORT_METRIC, Some(7), DataType::Bytes, None),
    ];
    encode::birth(0, rig.at, &node, Some(&head(0, 5)), &mut payload);
    let mut out = rig.send("spBv1.0/g/NBIRTH/line", payload);
    out.extend(device_birth(rig, 1, definitions));
    out
}

fn device_birth(rig: &mut Rig, seq: u8, definitions: &[PointDefinition]) -> Vec<Action> {
    let value = Value::Double(1.5);
    let metrics: Vec<BirthMetric<'_>> = definitions
        .iter()
        .zip(100..)
        .map(|(definition, alias)| BirthMetric {
            name: &definition.metric,
            alias: Some(alias),
            data_type: definition.data_type,
            value: (definition.data_type == DataType::Double).then_some(&value),
            time: Timestamp(1_789_999_999_000_000),
            quality: Quality::GOOD,
            definition: Some(definition),
        })
        .collect();
    let mut payload = Vec::new();
    encode::birth(seq, rig.at, &metrics, None, &mut payload);
    rig.send("spBv1.0/g/DBIRTH/line/press", payload)
}

fn record(rig: &Rig, seq: u8, offset: u64, samples: Vec<Sample>) -> Vec<u8> {
    let id = RecordId { epoch: EPOCH, offset: Offset(offset) };
    let head = RecordHead {
        id,
        first_held: 0,
        accepted_end: offset + 1,
        accepted_at: Timestamp(rig.at.0 - 5),
        account: Some(Account { count: offset + 1, checksum: 3 }),
        counts: None,
    };
    data(rig, seq, &head, samples)
}

fn data(rig: &Rig, seq: u8, head: &RecordHead, samples: Vec<Sample>) -> Vec<u8> {
    let batch = SampleBatch { id: head.id, accepted_at: head.accepted_at, is_historical: false, samples };
    let mut payload = Vec::new();
    let alias = |point: PointId| u64::from(point.0);
    encode::data(
        seq,
        rig.at,
        &batch,
        head,
        false,
        &|s| s.value.as_ref().map(Value::data_type) != Some(DataType::Double),
        &alias,
        &mut payload,
    );
    payload
}

fn sample(alias: u32, value: Value) -> Sample {
    let time = Timestamp(1_790_000_000_123_456);
    Sample {
        point: PointId(alias),
        time,
        value: Some(value),
        quality: Quality::uncertain(Reason::OutOfRange),
    }
}

fn two_points() -> Vec<PointDefinition> {
    vec![
        definition("area/press/a", Some("press"), "a", DataType::Double),
        definition("area/press/Öl/+#", Some("press"), "Öl/+#", DataType::Double),
    ]
}

#[test]
fn an_agents_births_make_points_and_receivers_and_no_rows() {
    let mut rig = Rig::new();
    let out = agent_births(&mut rig, 3, &two_points());
    let agent = AgentId(1);
    assert_eq!(out[0], Action::Reported(agent, head(0, 5).epochs));
    let node = NodeId::parse("g/line").unwrap();
    assert_eq!(out[1], Action::Receipts(agent, node, Some(BTreeSet::from([EPOCH]))));
    assert!(
        !out.iter().any(|action| matches!(action, Action::Ingest(_) | Action::Quarantine(..))),
        "{out:#?}"
    );
    let shown = out.iter().find_map(|action| match action {
        Action::Show(batch) => Some(batch.samples.len()),
        _ => None,
    });
    assert_eq!(shown, Some(2));
    let entry = rig.catalogue.point(rig.catalogue.find("area/press/Öl/+#").unwrap()).unwrap();
    assert_eq!(entry.definition, two_points()[1]);
    assert!(rig.catalogue.find("line/Forebay/Command").is_some());
    assert!(rig.catalogue.find("line/bdSeq").is_none());
    let status = rig.status();
    assert_eq!((status.online, status.foreign, status.backlog), (true, false, Some(5)));
    assert_eq!(status.devices, [DeviceStatus { name: "press".into(), online: true, health: None }]);
    assert_eq!((status.version.as_str(), status.outbox_used), ("1.2.3", Some(7)));
}

#[test]
fn an_agents_health_is_shown_and_is_no_data() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let device = |name: &str, state| DeviceHealth { name: name.into(), state, ..DeviceHealth::default() };
    let devices = vec![device("press", DeviceState::Up), device("never there", DeviceState::Connecting)];
    let answer = LookAnswer { id: 7, is_known: true, ..LookAnswer::default() };
    let report = HealthReport { devices: devices.clone(), answers: vec![answer.clone()] };
    let mut payload = Vec::new();
    encode::health(2, rig.at, &report, &mut payload);
    assert_eq!(
        rig.send("spBv1.0/g/NDATA/line", payload),
        [Action::Answered(NodeId::parse("g/line").unwrap(), vec![answer])]
    );
    let at = rig.at;
    let expected = [("never there", false, 1), ("press", true, 0)].map(|(name, online, nth)| DeviceStatus {
        name: name.into(),
        online,
        health: Some((devices[nth].clone(), at)),
    });
    assert_eq!(rig.status().devices, expected);
    // It took its place in `seq`: what follows is no gap.
    let payload = record(&rig, 3, 4, vec![sample(100, Value::Double(1.0))]);
    assert!(matches!(rig.send("spBv1.0/g/DDATA/line/press", payload)[..], [Action::Ingest(_)]));
    assert_eq!(rig.status().gaps, 0);
    let mut payload = Vec::new();
    payload.extend([0x18, 4, 0x82, 0x4a, 2, 0xff, 0xff]); // seq 4, field 1184 with bytes that are none
    let out = rig.send("spBv1.0/g/NDATA/line", payload);
    assert!(matches!(out[..], [Action::Quarantine(..)]), "{out:?}");
    // Answers alone leave the devices as they are; a death leaves what was said last.
    let mut payload = Vec::new();
    encode::health(5, rig.at, &HealthReport::default(), &mut payload);
    assert_eq!(rig.send("spBv1.0/g/NDATA/line", payload), []);
    assert_eq!(rig.status().devices, expected);
}

#[test]
fn a_record_keeps_identity_times_qualities_and_types() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let samples = vec![sample(100, Value::Double(f64::NAN)), sample(101, Value::String("x".repeat(65_536)))];
    let payload = record(&rig, 2, 4, samples.clone());
    let out = rig.send("spBv1.0/g/DDATA/line/press", payload);
    let [Action::Ingest(batch)] = &out[..] else { panic!("{out:#?}") };
    let Identity::Own { id, accepted_at, running, .. } = &batch.identity else { panic!() };
    assert_eq!((id.epoch, id.offset, accepted_at.0), (EPOCH, Offset(4), rig.at.0 - 5));
    assert_eq!(*running, Some(Account { count: 5, checksum: 3 }));
    assert_eq!(batch.samples[0].point, rig.catalogue.find("area/press/a").unwrap());
    for (got, sent) in batch.samples.iter().zip(&samples) {
        assert_eq!((got.time, &got.value, got.quality), (sent.time, &sent.value, sent.quality));
    }
    // The second came with another type than its birth gave: another point of the same path.
    let retyped = rig.catalogue.point(batch.samples[1].point).unwrap();
    assert_eq!(retyped.definition.data_type, DataType::String);
    assert_eq!(retyped.definition.path.as_str(), "area/press/Öl/+#");
    assert!(!batch.has_command_report);
}

#[test]
fn a_report_of_a_command_is_recognised() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let payload = record(&rig, 2, 4, vec![sample(7, Value::Bytes(vec![1]))]);
    let out = rig.send("spBv1.0/g/NDATA/line", payload);
    assert!(matches!(&out[..], [Action::Ingest(batch)] if batch.has_command_report), "{out:#?}");
}

#[test]
fn what_no_birth_explains_yet_is_not_received_and_asked_for() {
    let mut rig = Rig::new();
    let early = record(&rig, 2, 4, vec![sample(100, Value::Double(1.0))]);
    assert_eq!(rig.send("spBv1.0/g/DDATA/line/press", early.clone()), []);
    assert_eq!(rig.problems(Problem::BeforeBirth), 1);
    assert!(rig.asks_for_rebirth("g/line"));
    agent_births(&mut rig, 3, &two_points());
    assert!(matches!(&rig.send("spBv1.0/g/DDATA/line/press", early)[..], [Action::Ingest(_)]));
    let unknown = record(&rig, 3, 5, vec![sample(100, Value::Double(1.0)), sample(999, Value::Double(1.0))]);
    assert_eq!(rig.send("spBv1.0/g/DDATA/line/press", unknown), []);
    assert_eq!(rig.problems(Problem::UnknownMetric), 1);
    assert!(rig.asks_for_rebirth("g/line"));
}

#[test]
fn only_what_no_birth_can_explain_is_quarantined_and_settled() {
    let mut rig = Rig::new();
    let mut points = two_points();
    points[1].data_type = DataType::UInt8;
    agent_births(&mut rig, 3, &points);
    // A record whose metric says it is an UInt8 and carries text.
    let payload = record(&rig, 2, 4, vec![sample(101, Value::String("x".into()))]);
    let mut wire = <Payload as prost::Message>::decode(&payload[..]).unwrap();
    wire.metrics[0].datatype = Some(5);
    let out = rig.send("spBv1.0/g/DDATA/line/press", prost::Message::encode_to_vec(&wire));
    let id = RecordId { epoch: EPOCH, offset: Offset(4) };
    assert!(
        matches!(&out[..], [Action::Quarantine(entry, Some((AgentId(1), settled)))]
            if *settled == id && entry.reason.starts_with("bad-value")),
        "{out:#?}"
    );
}

/// What the quarantine would hold of a payload.
fn letter(entry: &crate::store::QuarantineEntry) -> Letter {
    Letter {
        id: LetterId { origin: Origin::Payload, position: 0 },
        at: entry.at,
        from: entry.topic.clone(),
        reason: entry.reason.clone(),
        record: entry.settles,
        position: None,
        ended: None,
        left_out: entry.left_out.clone(),
        bytes: entry.payload.clone(),
    }
}

fn quarantined(out: &[Action]) -> Letter {
    let mut entries = out.iter().filter_map(|action| match action {
        Action::Quarantine(entry, _) => Some(letter(entry)),
        _ => None,
    });
    entries.next().unwrap_or_else(|| panic!("{out:#?}"))
}

#[test]
fn a_payload_that_a_later_birth_explains_has_its_old_identity() {
    let mut rig = Rig::new();
    let mut points = two_points();
    points[1].data_type = DataType::UInt8;
    agent_births(&mut rig, 3, &points);
    // The agent's birth said another type than its data has.
    let payload = record(&rig, 2, 4, vec![sample(101, Value::Double(7.5))]);
    let out = rig.send("spBv1.0/g/DDATA/line/press", payload);
    let letter = quarantined(&out);
    let id = RecordId { epoch: EPOCH, offset: Offset(4) };
    assert_eq!(letter.record, Some((AgentId(1), id)));
    assert!(rig.nodes.reread(&letter).unwrap_err().contains("bad-value"));
    points[1].data_type = DataType::Double;
    device_birth(&mut rig, 3, &points);
    let batch = rig.nodes.reread(&letter).unwrap();
    let Identity::Own { id: again, .. } = batch.identity else { panic!() };
    assert_eq!((again, batch.is_historical), (id, true));
    assert_eq!(batch.samples[0].value, Some(Value::Double(7.5)));
    assert!(Rig::new().nodes.reread(&letter).unwrap_err().contains("not been born"));
}

#[test]
fn of_a_foreign_payload_only_what_was_left_out_and_has_a_name_can_be_retried() {
    let mut rig = Rig::new();
    foreign_births(&mut rig, 5);
    let metrics = vec![
        wire(Some("by name"), None, 0, Some(metric::Value::StringValue("t".into()))),
        wire(None, Some(1), 0, Some(metric::Value::StringValue("no number".into()))),
    ];
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(2, metrics));
    let letter = quarantined(&out);
    assert_eq!(letter.left_out, [1]);
    assert!(rig.nodes.reread(&letter).unwrap_err().contains("aliases only"));
    let of_version_1 = Letter { left_out: Vec::new(), ..letter };
    assert!(rig.nodes.reread(&of_version_1).unwrap_err().contains("some of its values were taken"));
    let named = wire(Some("later"), None, 0, Some(metric::Value::StringValue("t".into())));
    let out = rig.send("spBv1.0/x/DDATA/pump/tank", payload(3, vec![named]));
    let letter = quarantined(&out);
    assert!(rig.nodes.reread(&letter).unwrap_err().contains("unknown-metric"));
    let by_name = Letter {
        bytes: payload(3, vec![wire(Some("by name"), None, 0, Some(metric::Value::StringValue("t".into())))]),
        ..letter
    };
    let batch = rig.nodes.reread(&by_name).unwrap();
    assert_eq!((batch.identity, batch.is_historical, batch.samples.len()), (Identity::Foreign, true, 1));
    let birth = Letter { from: "spBv1.0/x/NBIRTH/pump".into(), ..by_name };
    assert!(rig.nodes.reread(&birth).unwrap_err().contains("only data"));
}

#[test]
fn clocks_that_differ_are_seen_either_way_and_times_are_kept() {
    let mut rig = Rig::new();
    rig.nodes.bound_clocks(Duration::from_secs(60));
    agent_births(&mut rig, 3, &two_points());
    assert_eq!((rig.status().clock_ahead_ms, rig.status().is_off_clock), (Some(0), false));
    let hub = rig.at;
    for (offset, seconds, is_off) in [(4, 3600, true), (5, -3600, true), (6, 59, false), (7, -59, false)] {
        rig.at = Timestamp(hub.0 + seconds * 1_000_000); // the agent writes its payload by this clock
        let samples = vec![sample(100, Value::Double(1.0))];
        let payload = record(&rig, 2, offset, samples.clone());
        rig.at = hub;
        let out = rig.send("spBv1.0/g/DDATA/line/press", payload);
        let Some(Action::Ingest(batch)) = out.first() else { panic!("{out:#?}") };
        assert_eq!((batch.samples[0].time, batch.samples[0].quality), (samples[0].time, samples[0].quality));
        let status = rig.status();
        assert_eq!((status.clock_ahead_ms, status.is_off_clock), (Some(seconds * 1000), is_off));
    }
}

#[test]
fn a_foreign_time_ahead_of_the_hub_is_uncertain_and_kept() {
    let mut rig = Rig::new();
    rig.nodes.bound_clocks(Duration::from_secs(60));
    foreign_births(&mut rig, 5);
    let now_ms = u64::try_from(rig.at.0 / 1000).unwrap();
    for (seq, ahead_ms, quality) in
        [(2, 59_000, Quality::GOOD), (3, 61_000, Quality::uncertain(Reason::Clock)), (4, 0, Quality::GOOD)]
    {
        let text = Some(metric::Value::StringValue("t".into()));
        let out = rig.send(
            "spBv1.0/x/DDATA/pump/tank",
            payload(
                seq,
                vec![WireMetric {
                    timestamp: Some(now_ms + ahead_ms),
                    ..wire(Some("by name"), None, 0, text)
                }],
            ),
        );
        let Some(Action::Ingest(batch)) = out.first() else { panic!("{out:#?}") };
        let sample = &batch.samples[0];
        assert_eq!(
            (sample.time.0, sample.quality),
            (i64::try_from(now_ms + ahead_ms).unwrap() * 1000, quality)
        );
        assert_eq!(batch.arrival, rig.at);
    }
}

#[test]
fn an_epoch_that_no_birth_names_is_not_believed() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    for (epoch, offset, problem) in [
        (Epoch(99), 0, Problem::UnknownEpoch),
        (LOG_EPOCH, 0, Problem::BadIdentity),
        (EPOCH, u64::MAX / 2, Problem::BadIdentity),
    ] {
        let id = RecordId { epoch, offset: Offset(offset) };
        let head = RecordHead {
            id,
            first_held: 0,
            accepted_end: offset + 1,
            accepted_at: rig.at,
            account: None,
            counts: None,
        };
        let payload = data(&rig, 2, &head, vec![sample(100, Value::Double(1.0))]);
        assert_eq!(rig.send("spBv1.0/g/DDATA/line/press", payload), []);
        assert_eq!(rig.problems(problem), if offset > 0 { 2 } else { 1 });
    }
}

#[test]
fn a_gap_asks_for_a_rebirth_and_its_data_still_counts() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let payload = record(&rig, 5, 9, vec![sample(100, Value::Double(1.0))]);
    assert!(matches!(&rig.send("spBv1.0/g/DDATA/line/press", payload)[..], [Action::Ingest(_)]));
    assert_eq!(rig.after(Duration::from_millis(1900)), []);
    rig.after(Duration::from_millis(200));
    assert!(rig.asks_for_rebirth("g/line"));
    assert_eq!(rig.status().gaps, 1);
}

#[test]
fn a_death_counts_only_with_its_sessions_number() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let death = |bd_seq| {
        let mut payload = Vec::new();
        encode::node_death(bd_seq, Timestamp(0), &mut payload);
        payload
    };
    assert_eq!(rig.send("spBv1.0/g/NDEATH/line", death(2)), []);
    assert!(rig.status().online);
    let out = rig.send("spBv1.0/g/NDEATH/line", death(3));
    let stale: usize = out.iter().map(|a| if let Action::Stale(points) = a { points.len() } else { 0 }).sum();
    assert_eq!(stale, 3);
    assert!(out.iter().any(|action| matches!(action, Action::Receipts(_, _, None))));
    assert!(!rig.status().online);
    assert_eq!(rig.send("spBv1.0/g/NDEATH/line", death(3)), []);
    let late = record(&rig, 2, 4, vec![sample(100, Value::Double(1.0))]);
    assert_eq!(rig.send("spBv1.0/g/DDATA/line/press", late), []);
}

#[test]
fn a_devices_death_marks_its_points_and_its_birth_confirms_them() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let mut death = Vec::new();
    encode::device_death(2, Timestamp(0), &mut death);
    let out = rig.send("spBv1.0/g/DDEATH/line/press", death);
    assert!(matches!(&out[..], [Action::Stale(points)] if points.len() == 2), "{out:#?}");
    assert!(!rig.status().devices[0].online);
    let out = device_birth(&mut rig, 3, &two_points());
    assert!(out.iter().any(|action| matches!(action, Action::Confirm(points) if points.len() == 2)));
    assert!(rig.status().devices[0].online);
}

#[test]
fn a_device_that_is_not_born_again_with_its_node_goes_stale() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let mut payload = Vec::new();
    encode::birth(9, rig.at, &[], Some(&head(0, 5)), &mut payload);
    rig.send("spBv1.0/g/NBIRTH/line", payload);
    assert!(!rig.after(Duration::from_secs(9)).iter().any(|action| matches!(action, Action::Stale(_))));
    assert!(
        rig.after(Duration::from_secs(2))
            .iter()
            .any(|a| matches!(a, Action::Stale(points) if points.len() == 2))
    );
}

#[test]
fn what_an_agent_no_longer_holds_is_reported() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let id = RecordId { epoch: EPOCH, offset: Offset(9) };
    let account = Some(Account { count: 10, checksum: 1 });
    let head = RecordHead { id, first_held: 4, accepted_end: 12, accepted_at: rig.at, account, counts: None };
    let payload = data(&rig, 2, &head, vec![sample(100, Value::Double(1.0))]);
    let out = rig.send("spBv1.0/g/DDATA/line/press", payload.clone());
    assert!(
        matches!(&out[..], [Action::Ingest(_), Action::Reported(_, epochs)]
            if epochs[0].first_held == 4 && epochs[0].end == 10),
        "{out:#?}"
    );
    assert_eq!(rig.status().backlog, Some(12));
    assert_eq!(rig.send("spBv1.0/g/DDATA/line/press", payload).len(), 1);
}

#[test]
fn a_lost_broker_takes_every_node_and_asks_all_again() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    assert!(rig.event(Event::Disconnected).iter().any(|action| matches!(action, Action::Stale(_))));
    assert!(!rig.status().online);
    rig.event(Event::Connected);
    assert!(rig.asks_for_rebirth("g/line"));
}

// ---- foreign nodes ----

fn wire(name: Option<&str>, alias: Option<u64>, datatype: u32, value: Option<metric::Value>) -> WireMetric {
    WireMetric {
        name: name.map(str::to_owned),
        alias,
        datatype: (datatype > 0).then_some(datatype),
        is_null: value.is_none().then_some(true),
        value,
        ..WireMetric::default()
    }
}

fn payload(seq: u64, metrics: Vec<WireMetric>) -> Vec<u8> {
    let payload =
        Payload { timestamp: Some(1_790_000_000_000), metrics, seq: Some(seq), ..Payload::default() };
    prost::Message::encode_to_vec(&payload)
}

const INT: u32 = 3;

fn int(value: u32) -> Option<metric::Value> {
    Some(metric::Value::IntValue(value))
}

fn foreign_births(rig: &mut Rig, level: u32) -> Vec<Action> {
    let bd = wire(Some("bdSeq"), None, 8, Some(metric::Value::LongValue(1)));
    let mut out = rig.send("spBv1.0/x/NBIRTH/pump", payload(0, vec![bd]));
    let metrics = vec![
        wire(Some("Füllstand/+#"), Some(1), INT, int(level)),
        wire(Some("by name"), None, 12, Some(metric::Value::StringValue("s".into()))),
        wire(Some("shape"), Some(3), 16, None),
    ];
    out.extend(rig.send("spBv1.0/x/DBIRTH/pump/tank", payload(1, metrics)));
    out
}

fn rows(actions: &[Action]) -> Vec<(u32, Option<Value>)> {
    let batches = actions.iter().filter_map(|action| match action {
        Action::Ingest(batch) => {
            assert_eq!(batch.identity, Identity::Foreign);
            Some(&batch.samples)
        }
        _ => None,
    });
    batches.flatten().map(|sample| (sample.point.0, sample.value.clone())).collect()
}

#[test]
fn one_path_for_two_is_a_conflict_and_nothing_is_lost() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    // A foreign node's metric `press/x` of the node and `x` of its device `press` would share a path.
    rig.send("spBv1.0/x/NBIRTH/pump", payload(0, vec![wire(Some("press/x"), Some(1), INT, int(1))]));
    let out =
        rig.send("spBv1.0/x/DBIRTH/pump/press", payload(1, vec![wire(Some("x"), Some(1), INT, int(2))]));
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Conflict(_, 1, path) if path == "x/pump/x/pump/press/x"))
    );
    assert_eq!(rows(&out).len(), 1);
    assert_eq!(rig.problems(Problem::PathConflict), 1);
    assert_ne!(rig.catalogue.find("x/pump/press/x"), rig.catalogue.find("x/pump/x/pump/press/x"));
}

#[test]
fn hostile_messages_are_counted_and_disturb_nothing() {
    let mut rig = Rig::new();
    agent_births(&mut rig, 3, &two_points());
    let good = record(&rig, 2, 4, vec![sample(100, Value::Double(1.0))]);
    for cut in 0..good.len() {
        let topics =
            ["DDATA/line/press", "NBIRTH/line", "DBIRTH/line/press", "NDEATH/line", "DDEATH/line/press"];
        for topic in topics {
            let (kind, rest) = topic.split_once('/').unwrap();
            let hostile = format!("spBv1.0/evil{}/{kind}/{rest}", cut % 3);
            rig.send(&hostile, good[..cut].to_vec());
        }
    }
    for topic in ["spBv1.0", "spBv1.0/g/NDATA", "spBv1.0/g/XDATA/line", "a/b", "", "spBv1.0//NBIRTH/x"] {
        assert_eq!(rig.send(topic, vec![1]), []);
    }
    let retained = Event::Message {
        topic: "spBv1.0/g/DDATA/line/press".into(),
        payload: good.clone().into(),
        retain: true,
    };
    assert_eq!(rig.event(retained), []);
    let out = rig.send("spBv1.0/g/DDATA/line/press", good);
    assert!(matches!(&out[..], [Action::Ingest(_)]), "{out:#?}");
    assert_eq!(rig.problems(Problem::BadTopic), 6);
    assert_eq!(rig.problems(Problem::Retained), 1);
    assert!(rig.problems(Problem::QuarantineSkipped) > 0);
}

#[test]
fn strangers_are_forgotten() {
    let mut rig = Rig::new();
    rig.send("spBv1.0/x/NDATA/pump", payload(0, vec![]));
    assert_eq!(rig.nodes.nodes.len(), 1);
    rig.after(STRANGER);
    assert_eq!(rig.nodes.nodes.len(), 0);
}

#[test]
fn a_known_node_is_shown_as_offline_after_a_restart() {
    let mut rig = Rig::new();
    let agent = rig.catalogue.agent_id(&NodeId::parse("g/line").unwrap()).unwrap();
    let account = AgentAccount {
        agent: NodeId::parse("g/line").unwrap(),
        id: agent,
        foreign: false,
        epochs: Vec::new(),
    };
    rig.nodes.know(&account);
    rig.after(STRANGER * 2);
    assert!(!rig.status().online);
    agent_births(&mut rig, 3, &two_points());
    assert!(rig.status().online);
}

proptest::proptest! {
    /// Payloads with bytes changed, cut or joined, on any topic, in any order: nothing panics, what is ingested fits
    /// its bounds, and a session that is alive goes on.
    #[test]
    fn changed_bytes_break_nothing(
        edits in proptest::collection::vec((0..5_usize, 0..400_usize, proptest::prelude::any::<u8>(), 0..8_u8), 1..40),
    ) {
        let mut rig = Rig::new();
        agent_births(&mut rig, 3, &two_points());
        foreign_births(&mut rig, 5);
        let mut births = Vec::new();
        let bd = BirthMetric {
            name: "bdSeq",
            alias: None,
            data_type: DataType::Int64,
            value: Some(&Value::Int64(3)),
            time: Timestamp(0),
            quality: Quality::GOOD,
            definition: None,
        };
        encode::birth(0, rig.at, &[bd], Some(&head(2, 9)), &mut births);
        let own = record(&rig, 2, 4, vec![sample(100, Value::Double(1.0)), sample(101, Value::Int8(-1))]);
        let foreign = payload(2, vec![wire(None, Some(1), 0, int(6)), wire(Some("by name"), None, 0, None)]);
        let originals = [
            ("spBv1.0/g/NBIRTH/line", births),
            ("spBv1.0/g/DDATA/line/press", own.clone()),
            ("spBv1.0/x/DDATA/pump/tank", foreign.clone()),
            ("spBv1.0/x/DBIRTH/pump/tank", foreign),
            ("spBv1.0/x/NDEATH/pump", payload(0, vec![])),
        ];
        for (which, at, byte, kind) in edits {
            let (topic, original) = &originals[which];
            let mut bytes = original.clone();
            let at = at % bytes.len();
            match kind {
                0..4 => bytes[at] = byte,
                4 => bytes.truncate(at),
                5 => bytes.insert(at, byte),
                6 => bytes.extend(original.clone()),
                _ => { bytes.remove(at); }
            }
            for action in rig.send(topic, bytes) {
                if let Action::Ingest(batch) = action {
                    proptest::prop_assert!(!batch.samples.is_empty());
                    proptest::prop_assert!(batch.samples.len() <= model::limits::PAYLOAD_METRICS_MAX);
                }
            }
            rig.after(Duration::from_millis(300));
        }
        agent_births(&mut rig, 9, &two_points());
        let out = rig.send("spBv1.0/g/DDATA/line/press", own);
        proptest::prop_assert!(matches!(&out[..], [Action::Ingest(_)]), "{:?}", out);
    }
}
