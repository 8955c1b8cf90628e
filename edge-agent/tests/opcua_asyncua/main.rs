//! The OPC UA driver against asyncua: types, parts, writes, subscriptions, limits, faults, history, security.

mod commands;
mod security;

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_agent::driver_conformance::{self as conformance, Candidate, PythonPeer, point};
use edge_agent::drivers::opcua::browse::{BrowseOptions, browse};
use edge_agent::drivers::{Driver, DriverError, NextRead, Reading, Readings};
use edge_agent::points::parse_list;
use model::{DataType, Quality, QualityClass, Reason, Timestamp, Value};
use runtime::clock::Clock;
use runtime::config_file::Problems;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout};

/// The server of `tests/peers/opcua_server.py`, and the agent's folder.
struct Server {
    peer: PythonPeer,
    state: tempfile::TempDir,
}

impl Server {
    fn start(options: Json) -> Server {
        let peer = PythonPeer::start("opcua_server.py", &[options.to_string()]);
        Server { peer, state: tempfile::tempdir().expect("a folder") }
    }

    /// Tells the server to do something; its answer is waited for elsewhere.
    fn tell(&mut self, command: &Json) {
        self.peer.tell(&command.to_string());
    }

    fn answer(&mut self) -> Json {
        let answer = self.peer.hear();
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    fn ask(&mut self, command: Json) -> Json {
        self.tell(&command);
        self.answer()
    }

    fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}/press", self.peer.hello["port"])
    }

    fn candidate(&self, points: &[(&str, DataType)], keys: &str) -> Candidate {
        let point = |(address, data_type): &(&str, DataType)| {
            let mut point = point(address, *data_type);
            point.definition.writable = address.starts_with("call "); // only commands call methods
            point
        };
        let points = points.iter().map(point).collect();
        Candidate {
            driver: "opcua",
            text: format!("url = \"{}\"\n{keys}", self.url()),
            setup: conformance::setup(points, Clock::machine(), self.state.path().join("drivers/press")),
        }
    }

    /// An opened driver without security.
    async fn driver(&self, points: &[(&str, DataType)], keys: &str) -> Box<dyn Driver> {
        let mut driver = self.candidate(points, &format!("security = \"none\"\n{keys}")).driver();
        driver.open(None).await.expect("it works");
        driver
    }

    fn scalars(&self) -> Vec<(String, DataType, String)> {
        self.peer.listed("points", "node")
    }

    fn pki(&self) -> PathBuf {
        self.state.path().join("drivers/opcua-pki")
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::DateTime(time) => time.micros().to_string(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Value::UInt64(number) => number.to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Double(number) if number.abs() > 1e30 => format!("{number:e}"),
        number => number.as_f64().expect("a number").to_string(),
    }
}

/// Reads until the schedule's turn.
async fn round(driver: &mut dyn Driver) -> Vec<Reading> {
    let mut all = Vec::new();
    loop {
        let mut readings = Readings::default();
        let next = driver.read(&mut readings).await.expect("it works");
        all.extend(readings.list);
        if next == NextRead::OnSchedule {
            return all;
        }
    }
}

/// As `acquisition` would: waits until the driver is ready, reads; until `is_enough`.
async fn follow(driver: &mut dyn Driver, mut is_enough: impl FnMut(&[Reading]) -> bool) -> Vec<Reading> {
    let mut all = Vec::new();
    let following = async {
        loop {
            let mut readings = Readings::default();
            let next = driver.read(&mut readings).await.expect("it works");
            all.extend(readings.list);
            if is_enough(&all) {
                break;
            }
            if next == NextRead::OnSchedule {
                driver.ready().await;
            }
        }
    };
    timeout(Duration::from_secs(20), following).await.expect("the values do not come");
    all
}

/// What the next call that fails says.
async fn until_failure(driver: &mut dyn Driver) -> DriverError {
    let failing = async {
        loop {
            if let Err(error) = driver.read(&mut Readings::default()).await {
                return error;
            }
            timeout(Duration::from_secs(1), driver.ready()).await.ok();
        }
    };
    timeout(Duration::from_secs(20), failing).await.expect("nothing fails")
}

fn int(reading: &Reading) -> Option<i32> {
    match reading.value {
        Some(Value::Int32(number)) => Some(number),
        _ => None,
    }
}

const COUNTER: (&str, DataType) = ("ns=2;s=Counter", DataType::Int32);

#[tokio::test]
async fn every_type_is_read_in_both_modes() {
    let server = Server::start(json!({}));
    let scalars = server.scalars();
    let points: Vec<(&str, DataType)> =
        scalars.iter().map(|(node, data_type, _)| (node.as_str(), *data_type)).collect();
    for mode in ["subscribe", "read"] {
        let mut driver = server.driver(&points, &format!("mode = \"{mode}\"")).await;
        let read = round(driver.as_mut()).await;
        assert_eq!(read.len(), points.len(), "{mode}");
        for (nth, (node, _, expected)) in scalars.iter().enumerate() {
            let reading = read.iter().find(|reading| reading.point == nth).expect("a reading");
            let found = reading.value.as_ref().map(shown);
            assert_eq!(
                (found.as_deref(), reading.quality),
                (Some(expected.as_str()), Quality::GOOD),
                "{mode} {node}"
            );
        }
        driver.close().await;
    }
}

#[tokio::test]
async fn the_contract_is_kept() {
    let mut server = Server::start(json!({}));
    let points = [
        ("ns=2;s=Double", DataType::Double),
        ("ns=2;s=Boolean", DataType::Boolean),
        ("ns=2;s=String", DataType::String),
        ("ns=2;s=Nowhere", DataType::Int32),
    ];
    for mode in ["read", "subscribe"] {
        let keys = format!(
            "security = \"none\"\nmode = \"{mode}\"\npublishing_interval = \"50ms\"\ntimeout = \"1s\""
        );
        let candidate = server.candidate(&points, &keys);
        conformance::validate_is_pure(&candidate);
        conformance::reads_are_bounded_and_typed(&candidate).await;
        conformance::close_then_open_works(&candidate).await;
        conformance::a_cut_off_read_does_no_harm(&candidate).await;
        if mode == "read" {
            let values = [Value::Double(2.5), Value::Double(-0.25)];
            conformance::writes_are_read_back(&candidate, 0, &values).await;
            conformance::writes_are_read_back(&candidate, 1, &[Value::Boolean(false), Value::Boolean(true)])
                .await;
        }
    }
    let nobody = Server::start(json!({}));
    let candidate = nobody.candidate(&points, "security = \"none\"\ntimeout = \"1s\"");
    drop(nobody);
    conformance::open_without_peer_fails(&candidate).await;
    let left = server.ask(json!({"do": "sessions"}));
    assert_eq!(left["subscriptions"], 0, "a closed driver leaves nothing behind: {left}");
}

#[tokio::test]
async fn one_nodes_trouble_is_its_points_quality() {
    let mut server = Server::start(json!({}));
    let points = [
        ("ns=2;s=Double", DataType::Double),
        ("ns=2;s=Nowhere", DataType::Double),
        ("ns=2;s=Secret", DataType::Int32),
        ("ns=2;s=Double", DataType::Int16),
        ("nsu=urn:nobody;s=Double", DataType::Double),
        ("ns=2;s=Counter", DataType::Int32),
    ];
    // asyncua reads to anybody what its access levels forbid; so it is said with the value.
    server.ask(json!({"do": "bad", "name": "Secret", "status": 0x801f_0000_u32}));
    for mode in ["subscribe", "read"] {
        let mut driver = server.driver(&points, &format!("mode = \"{mode}\"")).await;
        let read = round(driver.as_mut()).await;
        let quality = |nth| read.iter().find(|reading| reading.point == nth).expect("a reading").quality;
        let opcua = |code| Quality::with_detail(QualityClass::Bad, Reason::OpcUaStatus, code);
        assert_eq!(quality(0), Quality::GOOD);
        assert_eq!(quality(1), opcua(0x8034), "{mode}: BadNodeIdUnknown");
        assert_eq!(
            quality(2),
            Quality::with_detail(QualityClass::Bad, Reason::AccessDenied, 0x801f),
            "{mode}"
        );
        assert_eq!(quality(3), Quality::bad(Reason::TypeMismatch), "{mode}");
        assert_eq!(quality(4), opcua(0x8034), "{mode}");
        driver.close().await;
    }
    let mut driver = server.driver(&points, "publishing_interval = \"50ms\"").await;
    round(driver.as_mut()).await;
    server.ask(json!({"do": "bad", "name": "Counter", "status": 0x808b_0000_u32}));
    let read = follow(driver.as_mut(), |read| read.iter().any(|reading| reading.point == 5)).await;
    let reading = read.iter().rfind(|reading| reading.point == 5).unwrap();
    let failed = Quality::with_detail(QualityClass::Bad, Reason::OpcUaStatus, 0x808b);
    assert_eq!((reading.quality, reading.time.is_some()), (failed, true), "BadDeviceFailure");
    driver.close().await;
}

#[tokio::test]
async fn elements_fields_and_namespaces_are_found() {
    let points = [
        ("ns=2;s=Temps[3]", DataType::Double, Some(Value::Double(13.0))),
        ("ns=2;s=Temps[4]", DataType::Double, None),
        ("ns=2;s=Matrix[1,2]", DataType::Int32, Some(Value::Int32(6))),
        ("ns=2;s=Literal[3]", DataType::Double, Some(Value::Double(3.5))),
        ("ns=2;s=State#Mode", DataType::Int32, Some(Value::Int32(4))),
        ("ns=2;s=State#Motor.Speed", DataType::Double, Some(Value::Double(99.5))),
        ("ns=2;s=State#Motor.Name", DataType::String, Some(Value::String("M1".into()))),
        ("ns=2;s=State#Temps[1]", DataType::Float, Some(Value::Float(2.5))),
        ("ns=2;s=State#Nothing", DataType::Float, None),
        (
            "nsu=urn:forebay:test:press;s=Temps[0] sampling=50ms queue=5",
            DataType::Double,
            Some(Value::Double(10.0)),
        ),
    ];
    let listed: Vec<(&str, DataType)> =
        points.iter().map(|(address, data_type, _)| (*address, *data_type)).collect();
    let server = Server::start(json!({}));
    for mode in ["subscribe", "read"] {
        let mut driver = server.driver(&listed, &format!("mode = \"{mode}\"")).await;
        let read = round(driver.as_mut()).await;
        for (nth, (address, _, expected)) in points.iter().enumerate() {
            let reading = read.iter().find(|reading| reading.point == nth).expect("a reading");
            assert_eq!(&reading.value, expected, "{mode} {address}: {}", reading.quality);
        }
        driver.close().await;
    }
    // The same machine after a restart with another order of namespaces.
    let other = Server::start(json!({"name": "other"}));
    assert_eq!(other.peer.hello["index"], 3);
    let mut driver = other.driver(&[("nsu=urn:forebay:test:press;s=Temps[0]", DataType::Double)], "").await;
    assert_eq!(round(driver.as_mut()).await[0].value, Some(Value::Double(10.0)));
    driver.close().await;
}

#[tokio::test]
async fn every_change_comes_once_in_order_and_at_once() {
    let mut server = Server::start(json!({}));
    let mut driver = server.driver(&[COUNTER], "publishing_interval = \"20ms\"\nqueue_size = 1000").await;
    round(driver.as_mut()).await;
    server.tell(&json!({"do": "count", "number": 500, "ms": 2}));
    let read = follow(driver.as_mut(), |read| read.last().and_then(int) == Some(500)).await;
    let numbers: Vec<i32> = read.iter().filter_map(int).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<i32>>());
    assert!(read.iter().all(|reading| reading.quality.is_good()));
    assert!(read.is_sorted_by_key(|reading| reading.time));
    server.answer();
    // One change more: how long until it is there.
    let before = Timestamp(Clock::machine().now().micros());
    server.ask(json!({"do": "count", "from": 501, "number": 1}));
    let read = follow(driver.as_mut(), |read| !read.is_empty()).await;
    let late = Clock::machine().now().micros() - before.micros();
    assert!(read[0].time.unwrap() >= before, "the source's time");
    assert!(late < 400_000, "{late} µs");
    // Nothing to say: no spinning.
    assert!(timeout(Duration::from_millis(300), driver.ready()).await.is_err(), "ready without a value");
    driver.close().await;
}

#[tokio::test]
async fn an_overflowing_queue_is_told() {
    let mut server = Server::start(json!({}));
    let mut driver = server.driver(&[COUNTER], "publishing_interval = \"500ms\"\nqueue_size = 3").await;
    round(driver.as_mut()).await;
    server.ask(json!({"do": "count", "number": 50, "ms": 1}));
    let mut overflowed = 0;
    let mut all = Vec::new();
    while all.last().and_then(int) != Some(50) {
        driver.ready().await;
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        overflowed += readings.overflowed;
        all.extend(readings.list);
    }
    assert!(overflowed > 0);
    let marked: Vec<&Reading> =
        all.iter().filter(|reading| reading.quality.reason() == Reason::Overflow).collect();
    assert!(
        !marked.is_empty()
            && marked.iter().all(|reading| reading.quality.is_good() && reading.value.is_some()),
        "{all:?}"
    );
    driver.close().await;
}

#[tokio::test]
async fn limits_are_kept_also_those_that_are_not_told() {
    for silent in [false, true] {
        let limits = json!({"reads": 7, "items": 3, "browses": 2, "history": 1});
        let server = Server::start(json!({"items": 25, "limits": limits, "silent_about_limits": silent}));
        let names: Vec<String> = (0..25).map(|nth| format!("ns=2;s=Item.{nth}")).collect();
        let points: Vec<(&str, DataType)> =
            names.iter().map(|name| (name.as_str(), DataType::Int32)).collect();
        for mode in ["subscribe", "read"] {
            let mut driver =
                server.driver(&points, &format!("mode = \"{mode}\"\npublishing_interval = \"50ms\"")).await;
            let read = follow(driver.as_mut(), |read| read.len() >= 25).await;
            assert!(read.iter().all(|reading| reading.quality.is_good()), "{silent} {mode} {read:?}");
            driver.close().await;
        }
    }
}

#[tokio::test]
async fn what_a_server_has_no_room_for_is_read_at_each_poll() {
    let server = Server::start(json!({"items": 10, "limits": {"monitored": 4, "reads": 3}}));
    let names: Vec<String> = (0..10).map(|nth| format!("ns=2;s=Item.{nth}")).collect();
    let points: Vec<(&str, DataType)> = names.iter().map(|name| (name.as_str(), DataType::Int32)).collect();
    let mut driver = server.driver(&points, "publishing_interval = \"50ms\"").await;
    let first = round(driver.as_mut()).await;
    let mut read: Vec<usize> = first.iter().map(|reading| reading.point).collect();
    read.sort_unstable();
    assert_eq!(read, (0..10).collect::<Vec<usize>>());
    for _ in 0..3 {
        let polled: Vec<usize> = round(driver.as_mut()).await.iter().map(|reading| reading.point).collect();
        assert_eq!(polled, (4..10).collect::<Vec<usize>>());
    }
    driver.close().await;
}

#[tokio::test]
async fn a_server_that_is_connected_and_silent_is_found() {
    let mut server = Server::start(json!({}));
    let keys = "publishing_interval = \"100ms\"\nkeep_alive = \"500ms\"\ntimeout = \"1s\"";
    let mut driver = server.driver(&[COUNTER], keys).await;
    round(driver.as_mut()).await;
    server.ask(json!({"do": "mute"}));
    let start = Instant::now();
    let error = until_failure(driver.as_mut()).await;
    assert!(matches!(error, DriverError::Silent(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    driver.close().await;
    server.ask(json!({"do": "mute", "on": false}));
    driver.open(None).await.unwrap();
    server.ask(json!({"do": "count", "number": 1}));
    follow(driver.as_mut(), |read| read.last().and_then(int) == Some(1)).await;
    driver.close().await;
}

#[tokio::test]
async fn after_a_restart_of_the_server_values_flow_again() {
    let mut server = Server::start(json!({}));
    let mut driver = server.driver(&[COUNTER], "publishing_interval = \"100ms\"").await;
    round(driver.as_mut()).await;
    server.ask(json!({"do": "restart", "down": 0.3}));
    let returned = Instant::now();
    let error = until_failure(driver.as_mut()).await;
    assert!(matches!(error, DriverError::NotConnected(_)), "{error}");
    driver.close().await;
    driver.open(None).await.unwrap();
    server.ask(json!({"do": "count", "number": 3}));
    follow(driver.as_mut(), |read| read.last().and_then(int) == Some(3)).await;
    assert!(returned.elapsed() < Duration::from_secs(2), "{:?}", returned.elapsed());
    driver.close().await;
}

#[tokio::test]
async fn a_cut_connection_loses_nothing_that_the_server_still_has() {
    let mut server = Server::start(json!({}));
    let mut driver = server.driver(&[COUNTER], "publishing_interval = \"100ms\"\nqueue_size = 1000").await;
    round(driver.as_mut()).await;
    server.tell(&json!({"do": "count", "number": 200, "ms": 2}));
    let mut all = follow(driver.as_mut(), |read| read.len() > 20).await;
    server.answer();
    server.ask(json!({"do": "cut"}));
    server.ask(json!({"do": "count", "from": 201, "number": 100, "ms": 1}));
    let error = loop {
        let mut readings = Readings::default();
        match driver.read(&mut readings).await {
            Ok(_) => all.extend(readings.list),
            Err(error) => break error,
        }
        timeout(Duration::from_millis(500), driver.ready()).await.ok();
    };
    assert!(matches!(error, DriverError::NotConnected(_)), "{error}");
    driver.close().await;
    driver.open(None).await.unwrap();
    all.extend(follow(driver.as_mut(), |read| read.last().and_then(int) == Some(300)).await);
    let numbers: Vec<i32> = all.iter().filter_map(int).collect();
    assert_eq!(numbers, (1..=300).collect::<Vec<i32>>(), "the session and its subscription went on");
    driver.close().await;
}

/// Reads until the last number is there and history has been read; live and historical values apart, and the position.
async fn live_and_history(driver: &mut dyn Driver, last: i32) -> (Vec<i32>, Vec<i32>, Option<Vec<u8>>) {
    let (mut live, mut history, mut position) = (Vec::new(), Vec::new(), None);
    let reading = async {
        loop {
            let mut readings = Readings::default();
            let next = driver.read(&mut readings).await.expect("it works");
            let numbers = readings.list.iter().filter_map(int);
            if readings.is_historical {
                history.extend(numbers)
            } else {
                live.extend(numbers)
            }
            position = readings.position.or(position.take());
            if next == NextRead::OnSchedule {
                let is_there = live.last() == Some(&last);
                if timeout(Duration::from_millis(300), driver.ready()).await.is_err() && is_there {
                    return;
                }
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("the values do not come");
    (live, history, position)
}

#[tokio::test]
async fn an_outage_is_filled_from_the_servers_history_once() {
    let mut server = Server::start(json!({"history": true}));
    let mut driver = server.driver(&[COUNTER], "publishing_interval = \"50ms\"").await;
    round(driver.as_mut()).await;
    server.ask(json!({"do": "count", "number": 1}));
    let (live, history, _) = live_and_history(driver.as_mut(), 1).await;
    assert_eq!((live, history), (vec![1], vec![]));
    server.ask(json!({"do": "restart", "down": 0.5, "away": 30}));
    until_failure(driver.as_mut()).await;
    driver.close().await;
    server.ask(json!({"do": "count", "from": 2, "number": 1}));
    driver.open(None).await.unwrap();
    let (live, history, position) = live_and_history(driver.as_mut(), 2).await;
    assert_eq!((live, history), (vec![2], (1..=30).map(|nth| -nth).collect::<Vec<i32>>()));
    driver.close().await;

    // The agent was away: a new driver, with the position that is on disk.
    server.ask(json!({"do": "count", "from": 3, "number": 20}));
    let mut again =
        server.candidate(&[COUNTER, ("ns=2;s=Sine", DataType::Double)], "security = \"none\"").driver();
    again.open(position.as_deref()).await.unwrap();
    let (live, history, position) = live_and_history(again.as_mut(), 22).await;
    assert_eq!((live, history), (vec![22], (3..=21).collect::<Vec<i32>>()));
    again.close().await;

    // Nothing changed meanwhile: confirmed with a new time, no history, nothing twice.
    let mut third = server.candidate(&[COUNTER], "security = \"none\"").driver();
    third.open(position.as_deref()).await.unwrap();
    let (live, history, _) = live_and_history(third.as_mut(), 22).await;
    assert_eq!((live, history), (vec![22], vec![]));
    third.close().await;

    // A restart of the agent in the middle of filling goes on where it was.
    server.ask(json!({"do": "count", "from": 23, "number": 30}));
    let mut half = server.candidate(&[COUNTER], "security = \"none\"").driver();
    half.open(position.as_deref()).await.unwrap();
    let mut readings = Readings::default();
    half.read(&mut readings).await.unwrap();
    let live: Vec<i32> = readings.list.iter().filter_map(int).collect();
    assert_eq!(live, [52]);
    drop(half); // killed: what was returned, with its position, is on disk
    let mut last = server.candidate(&[COUNTER], "security = \"none\"").driver();
    last.open(readings.position.as_deref()).await.unwrap();
    let (_, history, _) = live_and_history(last.as_mut(), 52).await;
    assert_eq!(history, (23..=51).collect::<Vec<i32>>());
    last.close().await;
}

#[tokio::test]
async fn a_long_list_of_changes_of_a_thousand_and_one_fits_one_answer() {
    // The library's default would end the connection at 1 001 elements.
    let mut server = Server::start(json!({"items": 2500}));
    let names: Vec<String> = (0..2500).map(|nth| format!("ns=2;s=Item.{nth}")).collect();
    let points: Vec<(&str, DataType)> = names.iter().map(|name| (name.as_str(), DataType::Int32)).collect();
    let mut driver = server.driver(&points, "publishing_interval = \"100ms\"").await;
    follow(driver.as_mut(), |read| read.len() >= 2500).await;
    server.tell(&json!({"do": "load", "rounds": 4, "ms": 500}));
    let read = follow(driver.as_mut(), |read| read.len() >= 10_000).await;
    server.answer();
    for nth in 0..2500 {
        let numbers: Vec<i32> = read.iter().filter(|reading| reading.point == nth).filter_map(int).collect();
        assert_eq!(numbers, [1, 2, 3, 4], "item {nth}");
    }
    driver.close().await;
}

#[tokio::test]
async fn browsing_gives_a_list_that_can_be_read() {
    let server = Server::start(json!({"children": 5000, "limits": {"reads": 2000, "browses": 5}}));
    let options = BrowseOptions {
        url: server.url(),
        from: None,
        security: "none".into(),
        user: None,
        pki: server.pki(),
        timeout: Duration::from_secs(10),
    };
    let text = browse(&options).await.unwrap();
    let mut problems = Problems::default();
    let points = parse_list(Path::new("press.csv"), text.as_bytes(), "press", &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.list);
    let find = |name: &str| {
        points.iter().find(|point| point.definition.metric == name).unwrap_or_else(|| panic!("{name}"))
    };
    let sine = find("Press/Sine");
    assert_eq!(sine.address, "nsu=urn:forebay:test:press;s=Sine");
    assert_eq!((sine.raw_type, sine.definition.unit.as_str()), (DataType::Double, "Cel"));
    assert_eq!((sine.definition.min, sine.definition.max), (Some(-1.0), Some(1.0)));
    assert_eq!(
        (sine.definition.writable, sine.definition.description.as_str()),
        (true, "A sine, by \"hand\"")
    );
    assert!(!find("Press/Counter").definition.writable);
    assert_eq!(find("Press/Temps[3]").raw_type, DataType::Double);
    assert_eq!(find("Press/Matrix[1,2]").raw_type, DataType::Int32);
    assert_eq!(points.iter().filter(|point| point.definition.metric.starts_with("Many/")).count(), 5000);
    assert!(text.contains("State is no single value"));
    // What was written down is what is read.
    let addresses: Vec<(&str, DataType)> =
        points.iter().map(|point| (point.address.as_str(), point.raw_type)).collect();
    let mut driver = server.driver(&addresses, "mode = \"read\"").await;
    let read = round(driver.as_mut()).await;
    assert_eq!(read.len(), points.len());
    let good = read.iter().filter(|reading| reading.quality.is_good()).count();
    assert!(good + 20 > read.len(), "{good} of {}", read.len()); // Secret, and what asyncua leaves empty
    driver.close().await;
    let part = BrowseOptions { from: Some("nsu=urn:forebay:test:press;s=Many".into()), ..options };
    assert_eq!(browse(&part).await.unwrap().lines().count(), 5001);
}
