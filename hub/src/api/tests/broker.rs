//! The broker as the API shows it: a stuck client with its reason, retained and live messages decoded, an outside broker.

use proto::sparkplug::MessageType;
use proto::sparkplug::Topic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::OutsideBroker;

const ACCESS: &str = r##"
[roles.tester]
publish = ["test/#"]
subscribe = ["#"]

[[identities]]
name = "tester"
roles = ["tester"]
"##;

/// Lets somebody in who may publish under `test/`, and logs in as that.
async fn tester(plant: &Plant) -> (MqttSender, MqttReceiver) {
    let file = plant.folder.path().join("hub/access.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str(ACCESS);
    let hash = crate::broker::access_file::hash_password(b"pw").unwrap();
    text.push_str(&format!("password = \"{hash}\"\n"));
    std::fs::write(&file, text).unwrap();
    let options = MqttOptions {
        host: "127.0.0.1".into(),
        port: plant.hub.mqtt.unwrap().port(),
        tls: None,
        client_id: "the tester".into(),
        login: Some(("tester".into(), "pw".into())),
        keep_alive: Duration::from_secs(30),
        will: None,
        packet_bytes_max: 4 * 1024 * 1024,
    };
    for _ in 0..50 {
        if let Ok(session) = connect(&options).await {
            return session;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the access file is not taken");
}

/// Fields of a packet whose lengths fit into one byte.
fn text(text: &str) -> Vec<u8> {
    [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).unwrap()], body].concat()
}

/// A client of MQTT 5.0 that allows one message on its way, subscribes with QoS 1, and never acknowledges.
async fn client_that_never_acknowledges(plant: &Plant) -> TcpStream {
    let mut socket = TcpStream::connect(plant.hub.mqtt.unwrap()).await.unwrap();
    let login = [text("stuck one"), text("tester"), text("pw")].concat();
    let receive_maximum = [3, 0x21, 0, 1];
    let connect = [&text("MQTT")[..], &[5, 0xc2, 0, 60], &receive_maximum, &login].concat();
    let subscribe = [&[0, 1, 0][..], &text("test/stuck"), &[1]].concat();
    socket.write_all(&[packet(0x10, &connect), packet(0x82, &subscribe)].concat()).await.unwrap();
    let mut answer = [0; 256];
    let mut seen = Vec::new();
    while !seen.windows(2).any(|pair| pair == [0x90, 4]) {
        let length = socket.read(&mut answer).await.unwrap();
        assert!(length > 0, "{seen:?}");
        seen.extend_from_slice(&answer[..length]);
    }
    socket
}

async fn client(plant: &Plant, id: &str) -> Json {
    let broker = plant.json("/api/v1/broker").await;
    let clients = broker["clients"].as_array().unwrap();
    clients.iter().find(|client| client["client_id"] == id).cloned().unwrap_or(Json::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_client_shows_its_reason_and_is_disconnected() {
    let plant = Plant::start().await;
    let (sender, _receiver) = tester(&plant).await;
    let agent = client(&plant, "n1").await;
    assert_eq!((&agent["identity"], &agent["waiting_for"]), (&json!("plant/n1"), &json!("data")), "{agent}");
    assert_eq!((&agent["stuck"], &agent["version"]), (&Json::Null, &json!("3.1.1")), "{agent}");
    assert!(agent["messages_in"].as_u64().unwrap() >= 2 && agent["bytes_in"].as_u64().unwrap() > 100);

    let mut stuck = client_that_never_acknowledges(&plant).await;
    for _ in 0..3 {
        sender.publish("test/stuck".into(), QoS::AtLeastOnce, false, b"x".to_vec()).await.unwrap();
    }
    let mut seen = Json::Null;
    for _ in 0..50 {
        seen = client(&plant, "stuck one").await;
        if !seen["stuck"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((&seen["waiting_for"], &seen["queued"]), (&json!("acknowledgements"), &json!(3)), "{seen}");
    assert!(seen["stuck"].as_str().unwrap().contains("does not acknowledge"), "{seen}");
    assert!(seen["stuck_s"].as_u64().unwrap() >= 2, "{seen}");
    assert_eq!(seen["filters"], json!(["test/stuck"]));

    let broker = plant.json("/api/v1/broker?limit=1").await;
    assert_eq!((&broker["stuck"], &broker["connected"], &broker["found"]), (&json!(1), &json!(3), &json!(3)));
    assert_eq!(broker["clients"][0]["client_id"], "stuck one", "those that are stuck come first");
    let found = plant.json("/api/v1/broker?search=PLANT/N1").await;
    assert_eq!((&found["found"], &found["clients"][0]["client_id"]), (&json!(1), &json!("n1")));
    assert_eq!(found["access_problem"], Json::Null);

    let bearer = format!("Bearer {}", plant.hub.token.text());
    let disconnect = async |id: &str, headers: &[(&str, &str)]| {
        let body = Some(json!({ "client_id": id }));
        plant.ask(Method::POST, "/api/v1/broker/disconnect", headers, body).await.status().as_u16()
    };
    assert_eq!(disconnect("stuck one", &[("x-forebay", "1")]).await, 401);
    let with = [("authorization", bearer.as_str())];
    assert_eq!(disconnect("nobody", &with).await, 404);
    assert_eq!(disconnect("stuck one", &with).await, 204);
    let ended = async { while stuck.read(&mut [0; 256]).await.unwrap() > 0 {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its connection ends");
    assert_eq!(client(&plant, "stuck one").await, Json::Null);
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_access_file_is_told() {
    let plant = Plant::start().await;
    let file = plant.folder.path().join("hub/access.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "\n[roles.broken]\npublish = 7\n").unwrap();
    let told = async {
        loop {
            let broker = plant.json("/api/v1/broker").await;
            if let Some(problem) = broker["access_problem"].as_str() {
                return problem.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let problem = tokio::time::timeout(Duration::from_secs(10), told).await.expect("a problem");
    assert!(!problem.is_empty());
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_come_in_pages_decoded() {
    let plant = Plant::start().await;
    let (sender, _receiver) = tester(&plant).await;
    for (topic, payload) in [("a", &br#"{"n":1}"#[..]), ("b", b"on"), ("c/d", &[0, 1, 255])] {
        sender.publish(format!("test/{topic}"), QoS::AtLeastOnce, true, payload.to_vec()).await.unwrap();
    }
    let all = async {
        while plant.json("/api/v1/broker/retained?filter=test/%23").await["messages"]
            .as_array()
            .unwrap()
            .len()
            < 3
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("three retained messages");
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/v1/broker/retained?filter=test/%23&limit=1&payload=4{after}");
        let page = plant.json(&path).await;
        found.extend(page["messages"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
        assert!(found.len() < 10);
    }
    let short: Vec<_> = found.iter().map(|m| (m["topic"].clone(), m["payload"].clone())).collect();
    assert_eq!(
        short,
        [
            (json!("test/a"), json!({"kind": "json", "bytes": 7, "cut": true, "text": "{\"n\""})),
            (json!("test/b"), json!({"kind": "text", "bytes": 2, "cut": false, "text": "on"})),
            (json!("test/c/d"), json!({"kind": "hex", "bytes": 3, "cut": true, "text": "0001"})),
        ]
    );
    let state = plant.json("/api/v1/broker/retained?filter=spBv1.0/STATE/%2B").await;
    assert_eq!(state["messages"][0]["payload"]["kind"], "json", "{state}");
    let broker = plant.json("/api/v1/broker").await;
    assert!(broker["retained"].as_u64().unwrap() >= 4, "{broker}");
    let own = plant.json("/api/v1/broker/retained?filter=$SYS/%23").await;
    assert_eq!(own["messages"][0]["payload"]["kind"], "text", "{own}");
    for bad in
        ["filter=a/%23/b", "filter=", "filter=$share/g/a", "limit=0", "limit=1001", "payload=65537", "x=1"]
    {
        plant.refused(&format!("/api/v1/broker/retained?{bad}"), 400).await;
    }
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stream_live_and_decoded() {
    let mut plant = Plant::start().await;
    let (sender, _receiver) = tester(&plant).await;
    plant.refused("/api/v1/broker/messages?filter=%23x", 400).await;
    let mut stream = plant.get("/api/v1/broker/messages?filter=%23").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut latest = plant.get("/api/v1/broker/messages?filter=%23&latest=true&payload=30").await;
    let mut seen = String::new();
    let mut of_latest = String::new();
    let read = async |response: &mut Response, into: &mut String, wanted: &str| {
        let all = async {
            while !into.contains(wanted) {
                into.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap_or_else(|_| panic!("{wanted}"));
    };
    read(&mut stream, &mut seen, "event: clock\ndata: 2").await;
    read(&mut latest, &mut of_latest, "event: clock\ndata: 2").await;
    plant.record(vec![sample(1, 1, Some(Value::UInt64(u64::MAX)), Quality::GOOD)]).await;
    for number in 0..20 {
        let payload = format!("{{\"number\":{number}}}").into_bytes();
        sender.publish("test/json".into(), QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    read(&mut stream, &mut seen, r#"{\"number\":19}"#).await;
    read(&mut latest, &mut of_latest, r#"{\"number\":19}"#).await;
    let messages = |text: &str, topic: &str| -> Vec<Json> {
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("event: messages\ndata: "));
        let parsed = events.filter_map(|data| serde_json::from_str::<Vec<Json>>(data).ok());
        parsed.flatten().filter(|message| message["topic"] == topic).collect()
    };
    assert_eq!(messages(&seen, "test/json").len(), 20, "every message");
    let short = messages(&of_latest, "test/json");
    let counted: u64 = short.iter().map(|message| message["count"].as_u64().unwrap()).sum();
    assert!(counted == 20 && short.len() < 20, "the last ones with their number: {short:?}");
    let node = model::NodeId::new("plant", "n1").unwrap();
    let data = messages(&seen, &Topic::device(MessageType::DData, &node, "press").to_string());
    let metric = &data[0]["payload"]["sparkplug"]["metrics"][0];
    assert_eq!((&metric["alias"], &metric["v"]), (&json!(1), &json!(u64::MAX.to_string())), "{data:?}");
    assert_eq!((&data[0]["retain"], &data[0]["qos"]), (&json!(false), &json!(0)));
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_messages_are_bounded() {
    let plant = Plant::start().await;
    let mut open = Vec::new();
    for _ in 0..WATCHES_MAX {
        let stream = plant.get("/api/v1/broker/messages").await;
        assert_eq!(stream.status(), StatusCode::OK);
        open.push(stream);
    }
    plant.refused("/api/v1/broker/messages", 503).await;
    assert_eq!(plant.get("/api/v1/live").await.status(), StatusCode::OK, "other streams have room");
    open.clear();
    let free = async {
        while plant.get("/api/v1/broker/messages").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free).await.expect("places come back");
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_broker_is_asked_elsewhere() {
    let outside = BrokerConfig::Outside(OutsideBroker {
        host: "127.0.0.1".into(),
        port: 9, // nobody is there
        tls: false,
        client_id: "forebay-hub".into(),
        user: None,
        password_file: None,
        ca_file: None,
        cert_file: None,
        key_file: None,
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.broker = outside;
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let tasks = Tasks::new(CancellationToken::new());
    let hub = crate::start(config, Clock::machine(), Metrics::default(), tasks.clone()).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["", "/retained", "/messages"] {
        let url = format!("http://{}/api/v1/broker{path}", hub.http);
        let answer = http.get(url).bearer_auth(hub.token.text()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CONFLICT, "{path}");
        let error: Json = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "outside-broker");
        assert!(error["error"]["message"].as_str().unwrap().contains("only that broker knows"), "{error}");
    }
    tasks.drain().await;
}
