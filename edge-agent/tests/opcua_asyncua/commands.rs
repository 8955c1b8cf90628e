//! Writes and method calls.

use super::*;

#[tokio::test]
async fn writes_end_as_the_server_says() {
    let mut server = Server::start(json!({}));
    let scalars = server.scalars();
    let mut points: Vec<(&str, DataType)> =
        scalars.iter().take(14).map(|(node, data_type, _)| (node.as_str(), *data_type)).collect();
    let values = [
        Value::Boolean(false),
        Value::Int8(7),
        Value::UInt8(8),
        Value::Int16(-9),
        Value::UInt16(10),
        Value::Int32(-11),
        Value::UInt32(12),
        Value::Int64(-13),
        Value::UInt64(14),
        Value::Float(0.5),
        Value::Double(1.25),
        Value::String("läuft".into()),
        Value::DateTime(Timestamp(1_764_119_000_123_456)),
        Value::Bytes(vec![1, 2, 3]),
    ];
    points.push(("ns=2;s=Secret", DataType::Int32));
    points.push(("ns=2;s=Nowhere", DataType::Int32));
    points.push(("ns=2;s=Double", DataType::Int32));
    points.push(("ns=2;s=State#Mode", DataType::Int32));
    let mut driver = server.driver(&points, "").await;
    for (nth, value) in values.iter().enumerate() {
        driver.write(nth, value).await.unwrap();
        assert_eq!(driver.read_one(nth).await.unwrap().value.as_ref(), Some(value));
    }
    assert_eq!(server.ask(json!({"do": "written", "name": "String"}))["value"], "läuft");
    for (nth, code) in [(14, 0x801f), (15, 0x801f), (16, 0x8074)] {
        match driver.write(nth, &Value::Int32(1)).await {
            Err(DriverError::Refused { code: said, .. }) => assert_eq!(said, code, "{}", points[nth].0),
            Err(DriverError::Denied(_)) if nth == 14 => {}
            other => panic!("{}: {other:?}", points[nth].0),
        }
    }
    assert!(matches!(driver.write(17, &Value::Int32(1)).await, Err(DriverError::Refused { .. })));
    driver.close().await;
}

const RESET: &str = "call ns=2;s=Press method=ns=2;s=Reset";
const SET_SPEED: &str = "call ns=2;s=Press method=nsu=urn:forebay:test:press;s=SetSpeed";
const MOVE: &str = "call ns=2;s=Press method=ns=2;s=Move inputs=double,int32,string";

#[tokio::test]
async fn a_command_to_a_method_calls_it_once() {
    let mut server = Server::start(json!({}));
    let points = [
        (RESET, DataType::Boolean),
        (SET_SPEED, DataType::Double),
        (MOVE, DataType::String),
        ("call ns=2;s=Press method=ns=2;s=Nowhere", DataType::Boolean),
        ("call ns=2;s=Press method=ns=2;s=Broken", DataType::Boolean),
        ("call ns=2;s=Press method=ns=2;s=NotNow", DataType::Boolean),
        ("ns=2;s=Double", DataType::Double),
    ];
    let mut driver = server.driver(&points, "methods = true").await;
    let first = round(driver.as_mut()).await;
    assert!(first.iter().all(|reading| reading.point == 6), "methods are not read: {first:?}");
    assert_eq!(driver.read_one(0).await.unwrap().quality, Quality::bad(Reason::NoData));
    let list = Value::String("[1.5, -7, \"left\"]".into());
    for (nth, value) in [(0, Value::Boolean(true)), (1, Value::Double(99.5)), (2, list.clone())] {
        driver.write(nth, &value).await.unwrap();
        assert_eq!(driver.read_one(nth).await.unwrap().value.as_ref(), Some(&value), "it is read back");
    }
    let told =
        follow(driver.as_mut(), |all| all.iter().filter(|reading| reading.point < 3).count() == 3).await;
    assert!(
        told.iter().any(|reading| reading.point == 2 && reading.value.as_ref() == Some(&list)),
        "{told:?}"
    );
    for (nth, value, code) in [
        (0, Value::Boolean(false), 0),            // there is nothing to call with false
        (2, Value::String("[1.5, 7]".into()), 0), // an argument too few: nothing was sent
        (3, Value::Boolean(true), 0x8033),        // no such method
        (5, Value::Boolean(true), 0x80af),        // the machine says: not now
    ] {
        match driver.write(nth, &value).await {
            Err(DriverError::Refused { code: said, .. }) => assert_eq!(said, code, "{}", points[nth].0),
            other => panic!("{}: {other:?}", points[nth].0),
        }
        assert_ne!(
            driver.read_one(nth).await.unwrap().value,
            Some(value),
            "what was refused is no last call"
        );
    }
    let broken = driver.write(4, &Value::Boolean(true)).await;
    assert!(matches!(broken, Err(DriverError::InDoubt { .. })), "it failed while it ran: {broken:?}");
    let calls = server.ask(json!({"do": "calls"}));
    let expected = json!([
        ["Reset", []],
        ["SetSpeed", ["99.5"]],
        ["Move", ["1.5", "-7", "left"]],
        ["NotNow", []],
        ["Broken", []]
    ]);
    assert_eq!(calls["calls"], expected, "each once, and nothing for what was refused before");
    driver.close().await;
}

#[tokio::test]
async fn a_call_without_an_answer_is_in_doubt_and_is_not_repeated() {
    let mut server = Server::start(json!({}));
    let points = [("call ns=2;s=Press method=ns=2;s=Slow", DataType::Boolean)];
    let mut driver = server.driver(&points, "methods = true\ntimeout = \"1s\"").await;
    let error = driver.write(0, &Value::Boolean(true)).await.unwrap_err();
    assert!(matches!(error, DriverError::Silent(_)), "{error:?}");
    driver.close().await;
    driver.open(None).await.unwrap();
    assert_eq!(driver.read_one(0).await.unwrap().value, None, "nobody knows, so it is not said to be called");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.ask(json!({"do": "calls"}))["calls"], json!([["Slow", []]]));
    driver.close().await;
}

#[tokio::test]
async fn methods_are_off_unless_it_is_said() {
    let point = conformance::point(RESET, DataType::Boolean);
    let writable = |writable: bool| {
        let mut point = point.clone();
        point.definition.writable = writable;
        conformance::setup(vec![point], Clock::machine(), "state".into())
    };
    for (keys, is_writable, rule) in [
        ("", true, "say methods = true"),
        ("methods = false", true, "say methods = true"),
        ("methods = true", false, "say writable = true"),
    ] {
        let file = runtime::config_file::ConfigFile::from_text(
            Path::new("d.toml"),
            format!("url = \"opc.tcp://h:4840\"\n{keys}\n"),
        );
        let mut problems = Problems::default();
        let mut section = file.parse(&mut problems);
        let kind = edge_agent::drivers::KINDS.iter().find(|kind| kind.name == "opcua").unwrap();
        assert!((kind.validate)(&mut section, &writable(is_writable), &mut problems).is_none());
        assert!(
            problems.list.iter().any(|problem| problem.rule.contains(rule)),
            "{rule}: {:?}",
            problems.list
        );
    }
}
