//! The command path over a real broker, with an agent that is an MQTT session of ours.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{DataType, PointPath, Value};
use proto::sparkplug::{PayloadView, WireValue};
use runtime::mqtt_client::{MqttReceiver, MqttSender, QoS};

use super::*;
use crate::broker::tests::Running;

struct TestPlant {
    target: Mutex<Target>,
    reports: Mutex<Vec<(NodeId, CommandReport)>>,
    asked_from: AtomicU64,
}

impl Plant for TestPlant {
    fn target(&self, path: &str) -> Option<Target> {
        let target = lock(&self.target).clone();
        (target.definition.path.as_str() == path).then_some(target)
    }

    fn log_end(&self) -> u64 {
        41
    }

    fn reports_since(&self, from: u64) -> Vec<(NodeId, CommandReport)> {
        self.asked_from.store(from, Ordering::SeqCst);
        lock(&self.reports).clone()
    }
}

fn node() -> NodeId {
    NodeId::new("g", "n").unwrap()
}

fn plant() -> Arc<TestPlant> {
    let definition = PointDefinition {
        device: Some("press".into()),
        unit: "bar".into(),
        min: Some(0.0),
        max: Some(8.0),
        writable: true,
        ..PointDefinition::new(PointPath::new("press/setpoint").unwrap(), "setpoint", DataType::Float)
    };
    let place = PointTarget {
        node: node(),
        device: Some("press".into()),
        metric: "setpoint".into(),
        online: true,
        foreign: false,
    };
    Arc::new(TestPlant {
        target: Mutex::new(Target { definition, place }),
        reports: Mutex::default(),
        asked_from: AtomicU64::new(0),
    })
}

struct Setup {
    hub: Running,
    plant: Arc<TestPlant>,
    commands: Commands,
    agent: (MqttSender, MqttReceiver),
}

async fn start(enabled: bool) -> Setup {
    let hub = Running::embedded(true, 16).await;
    let (sender, receiver) = hub.agent("g/n").await;
    sender.subscribe(&[("spBv1.0/g/DCMD/n/+".into(), QoS::AtMostOnce)]).await.unwrap();
    let plant = plant();
    let commands = open(&hub, enabled, &plant, hub.tasks.clone()).await;
    Setup { hub, plant, commands, agent: (sender, receiver) }
}

async fn open(hub: &Running, enabled: bool, plant: &Arc<TestPlant>, tasks: Tasks) -> Commands {
    let plant = Arc::clone(plant) as Arc<dyn Plant>;
    let broker = Arc::clone(&hub.broker);
    Commands::start(hub.dir.path(), enabled, plant, broker, Clock::machine(), &hub.metrics, &tasks).await
}

fn request(value: &str, expires_in: u64) -> WriteRequest {
    WriteRequest {
        path: "press/setpoint".into(),
        value: value.into(),
        expires_in: Duration::from_secs(expires_in),
        author: "anna".into(),
        reason: "try it".into(),
    }
}

fn report(id: CommandId, outcome: CommandOutcome, read_back: &str) -> CommandReport {
    CommandReport { id, outcome, path: "press/setpoint".into(), read_back: read_back.into() }
}

/// What the agent receives: id, expiry and value.
async fn received(agent: &mut MqttReceiver) -> (CommandId, Timestamp, Option<Value>) {
    let message =
        tokio::time::timeout(Duration::from_secs(5), agent.next()).await.expect("a command").unwrap();
    assert_eq!(message.topic, "spBv1.0/g/DCMD/n/press");
    assert!(!message.retain, "a retained command would be obeyed twice");
    let payload = PayloadView::decode(&message.payload).unwrap();
    let head = payload.command.clone().expect("the extension");
    assert_eq!((head.author.as_str(), head.reason.as_str()), ("anna", "try it"));
    let [metric] = payload.metrics.as_slice() else { panic!("{payload:?}") };
    assert_eq!(metric.name, Some("setpoint"));
    assert!(matches!(metric.value, WireValue::Float(_)));
    (head.id, head.expires_at, metric.value.to_value(DataType::Float, 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_out_once_and_comes_back_done() {
    let Setup { hub, commands, agent: (_sender, mut receiver), .. } = start(true).await;
    let (record, ()) = tokio::join!(commands.write(request("4.5", 5)), async {
        let (id, expires_at, value) = received(&mut receiver).await;
        assert_eq!(value, Some(Value::Float(4.5)));
        let left = expires_at.micros_since(Clock::machine().now());
        assert!((3_000_000..=5_000_000).contains(&left), "{left}");
        let state = commands.get(id).unwrap().state;
        assert_eq!(state, CommandState::Sent, "the ledger knew before the agent did");
        commands.report(&NodeId::new("g", "other").unwrap(), report(id, CommandOutcome::Expired, ""));
        commands.report(&node(), report(id, CommandOutcome::Done, "4.5"));
        commands.report(&node(), report(id, CommandOutcome::Expired, "")); // said twice: the first counts
    });
    assert_eq!(record.outcome, Some(CommandOutcome::Done));
    assert_eq!((record.read_back.as_str(), record.state), ("4.5", CommandState::Closed));
    assert_eq!(commands.recent(10), [record]);
    assert!(hub.metrics.render().contains("forebay_commands_total{outcome=\"done\"} 1"));
    let again = tokio::time::timeout(Duration::from_millis(300), receiver.next()).await;
    assert!(again.is_err(), "sent once: {again:?}");
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_never_reach_the_agent_but_the_ledger() {
    let Setup { hub, plant, commands, agent: (_sender, mut receiver) } = start(true).await;
    for (value, rule) in [("9", "range"), ("x", "value")] {
        match commands.write(request(value, 5)).await.outcome {
            Some(CommandOutcome::Refused(why)) => assert!(why.starts_with(rule), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    lock(&plant.target).place.online = false;
    assert!(matches!(commands.write(request("1", 5)).await.outcome, Some(CommandOutcome::Refused(_))));
    let unknown = WriteRequest { path: "no/such".into(), ..request("1", 5) };
    assert!(matches!(commands.write(unknown).await.outcome, Some(CommandOutcome::Refused(_))));
    assert_eq!(commands.recent(10).len(), 4, "refusals are on record");
    let huge = WriteRequest { value: "9".repeat(1 << 20), ..request("1", 5) };
    assert!(matches!(commands.write(huge).await.outcome, Some(CommandOutcome::Refused(_))));
    assert_eq!(commands.recent(10).len(), 4, "but no flood of them");
    let came = tokio::time::timeout(Duration::from_millis(300), receiver.next()).await;
    assert!(came.is_err(), "{came:?}");
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_means_off() {
    let Setup { hub, commands, .. } = start(false).await;
    match commands.write(request("1", 5)).await.outcome {
        Some(CommandOutcome::Refused(why)) => assert!(why.contains("enabled = true"), "{why}"),
        other => panic!("{other:?}"),
    }
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_unknown_and_a_late_report_amends_it() {
    let Setup { hub, commands, agent: (_sender, mut receiver), .. } = start(true).await;
    let began = std::time::Instant::now();
    let (record, (id, ..)) = tokio::join!(commands.write(request("2", 1)), received(&mut receiver));
    assert!(matches!(record.outcome, Some(CommandOutcome::Unknown(_))), "{record:?}");
    assert!(began.elapsed() >= Duration::from_secs(1) + dispatch::GRACE);
    commands.report(&node(), report(id, CommandOutcome::Done, "2"));
    for _ in 0..100 {
        if commands.get(id).unwrap().state == CommandState::Closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(commands.get(id).unwrap().outcome, Some(CommandOutcome::Done));
    hub.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_nothing_is_sent_again() {
    let Setup { hub, plant, commands, agent: (_sender, mut receiver) } = start(true).await;
    // The hub's tasks die while two commands are under way.
    let first = Tasks::new(runtime::tasks::CancellationToken::new());
    drop(commands);
    let other = Running::embedded(true, 16).await;
    let commands = {
        let plant = Arc::clone(&plant) as Arc<dyn Plant>;
        let broker = Arc::clone(&hub.broker);
        Commands::start(other.dir.path(), true, plant, broker, Clock::machine(), &hub.metrics, &first).await
    };
    let mut ids = Vec::new();
    for value in ["1", "2"] {
        let (commands, request) = (commands.clone(), request(value, 60));
        first.spawn(TaskKind::Housekeeping, "write", async move {
            commands.write(request).await;
            Ok::<_, std::convert::Infallible>(())
        });
        ids.push(received(&mut receiver).await.0);
    }
    first.drain().await;
    lock(&plant.reports).push((node(), report(ids[1], CommandOutcome::Done, "2")));

    let commands = open(&other, true, &plant, hub.tasks.clone()).await;
    assert_eq!(plant.asked_from.load(Ordering::SeqCst), 41, "looks from where the log ended then");
    assert!(matches!(commands.get(ids[0]).unwrap().outcome, Some(CommandOutcome::Unknown(_))));
    assert_eq!(commands.get(ids[1]).unwrap().outcome, Some(CommandOutcome::Done));
    let came = tokio::time::timeout(Duration::from_millis(300), receiver.next()).await;
    assert!(came.is_err(), "{came:?}");
    commands.report(&node(), report(ids[0], CommandOutcome::Refused("clock".into()), ""));
    for _ in 0..100 {
        if commands.get(ids[0]).unwrap().state == CommandState::Closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(commands.get(ids[0]).unwrap().outcome, Some(CommandOutcome::Refused("clock".into())));
    hub.tasks.drain().await;
    other.tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_babbling_agent_does_not_spoil_the_ledger() {
    let Setup { hub, plant, commands, agent: (_sender, mut receiver) } = start(true).await;
    let (record, ()) = tokio::join!(commands.write(request("1", 5)), async {
        let (id, ..) = received(&mut receiver).await;
        let commands = commands.clone();
        tokio::task::spawn_blocking(move || {
            // Said again and again while the first one is being written down.
            while commands.get(id).unwrap().state != CommandState::Closed {
                commands.report(&node(), report(id, CommandOutcome::Done, "1"));
            }
        })
        .await
        .unwrap();
    });
    assert_eq!(record.outcome, Some(CommandOutcome::Done));
    hub.tasks.drain().await;
    drop(commands);
    let tasks = Tasks::new(runtime::tasks::CancellationToken::new());
    let commands = open(&hub, true, &plant, tasks.clone()).await;
    assert_eq!(commands.blocked(), None);
    tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_was_durable_but_not_noted_amends_at_the_next_start() {
    let Setup { hub, plant, commands, agent: (_sender, mut receiver) } = start(true).await;
    let (record, (id, ..)) = tokio::join!(commands.write(request("2", 1)), received(&mut receiver));
    assert!(matches!(record.outcome, Some(CommandOutcome::Unknown(_))), "{record:?}");
    hub.tasks.drain().await;
    drop(commands);
    lock(&plant.reports).push((node(), report(id, CommandOutcome::Done, "2")));
    let tasks = Tasks::new(runtime::tasks::CancellationToken::new());
    let commands = open(&hub, true, &plant, tasks.clone()).await;
    let record = commands.get(id).unwrap();
    assert_eq!((record.outcome, record.read_back.as_str()), (Some(CommandOutcome::Done), "2"));
    tasks.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_refuses_commands_and_says_so() {
    let Setup { hub, plant, commands, .. } = start(true).await;
    commands.write(request("9", 5)).await; // refused, on record
    hub.tasks.drain().await;
    drop(commands);
    let folder = hub.dir.path().join("commands");
    let segment = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    std::fs::write(&segment, b"this is no log").unwrap();
    let tasks = Tasks::new(runtime::tasks::CancellationToken::new());
    let commands = open(&hub, true, &plant, tasks.clone()).await;
    let blocked = commands.blocked().expect("says why");
    assert!(blocked.starts_with("ledger: "), "{blocked}");
    assert_eq!(commands.write(request("1", 5)).await.outcome, Some(CommandOutcome::Refused(blocked)));
    tasks.drain().await;
}
