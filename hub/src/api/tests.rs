//! The API of a whole hub over real sockets, with an agent that speaks Sparkplug to its broker.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{
    DataType, Epoch, Offset, PointDefinition, PointPath, Quality, Reason, RecordId, Sample, SampleBatch,
    Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::feed::FeedPage;
use proto::log_record::{CatalogueEntry, LogRecord};
use proto::receipt::RECEIPT_METRIC;
use proto::sparkplug::encode::{BirthMetric, birth, data};
use proto::sparkplug::{BirthHead, EpochAccount, RecordHead};
use reqwest::{Method, Response, StatusCode};
use runtime::mqtt_client::{MqttOptions, MqttReceiver, MqttSender, QoS, connect};
use serde_json::{Value as Json, json};

use super::*;
use crate::config::{BrokerConfig, CommandsConfig, EmbeddedBroker, HttpConfig};

mod broker;
mod look;
mod quarantine;

const EPOCH: Epoch = Epoch(0x0123_4567_89ab_cdef);
const START: i64 = 1_790_000_000_000_000;

/// A hub with one agent `plant/n1`, whose device `press` has four points.
struct Plant {
    hub: crate::Handle,
    tasks: Tasks,
    http: reqwest::Client,
    agent: MqttSender,
    receiver: MqttReceiver,
    folder: tempfile::TempDir,
    seq: u8,
    offset: u64,
    account: Account,
}

fn definitions() -> Vec<PointDefinition> {
    let point = |metric: &str, data_type, unit: &str, writable| PointDefinition {
        path: PointPath::new(&format!("hall/press/{metric}")).unwrap(),
        device: Some("press".into()),
        metric: metric.into(),
        data_type,
        unit: unit.into(),
        min: Some(0.0),
        max: Some(300.0),
        writable,
        dead_band: None,
        description: format!("the press's {metric}"),
    };
    vec![
        point("Öltemperatur", DataType::Double, "Cel", true),
        point("count", DataType::UInt64, "1", false),
        point("state", DataType::String, "", false),
        point("pressure", DataType::Float, "bar", false),
    ]
}

/// A hub below this folder, with free ports.
fn config(folder: &std::path::Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let data_dir = folder.join("hub");
    let broker = BrokerConfig::Embedded(EmbeddedBroker { listen: any, ..EmbeddedBroker::of(&data_dir) });
    Config {
        enterprise: "acme".into(),
        site: "works".into(),
        data_dir,
        id: "works".into(),
        host_id: "forebay".into(),
        retention: Duration::from_secs(7 * 86_400),
        retention_bytes: 1_000_000_000,
        clock_skew_max: Duration::from_secs(60),
        broker,
        http: HttpConfig { listen: any },
        commands: CommandsConfig { enabled: false },
    }
}

impl Plant {
    async fn start() -> Plant {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let data_dir = config.data_dir.clone();
        let tasks = Tasks::new(CancellationToken::new());
        let hub = crate::start(config, Clock::machine(), Metrics::default(), tasks.clone()).await.unwrap();
        let password = std::fs::read_to_string(data_dir.join("agent-token")).unwrap().trim().to_owned();
        let options = MqttOptions {
            host: "127.0.0.1".into(),
            port: hub.mqtt.unwrap().port(),
            tls: None,
            client_id: "n1".into(),
            login: Some(("plant/n1".into(), password)),
            keep_alive: Duration::from_secs(30),
            will: None,
            packet_bytes_max: 4 * 1024 * 1024,
        };
        let (agent, receiver) = connect(&options).await.unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let mut plant = Plant {
            hub,
            tasks,
            http,
            agent,
            receiver,
            folder,
            seq: 0,
            offset: 0,
            account: Account::default(),
        };
        plant.births().await;
        plant
    }

    async fn births(&mut self) {
        let now = Timestamp(START);
        let metric = |name, alias, data_type, value, definition| BirthMetric {
            name,
            alias,
            data_type,
            value,
            time: now,
            quality: Quality::GOOD,
            definition,
        };
        let none = Account::default();
        let reported = EpochAccount { epoch: EPOCH, first_held: 0, end: 0, before: none, total: none };
        let head = BirthHead {
            epochs: vec![reported],
            agent_time: now,
            version: "9.9".into(),
            outbox_used: Some(91),
        };
        let (bd_seq, rebirth) = (Value::Int64(0), Value::Boolean(false));
        let node = [
            metric("bdSeq", None, DataType::Int64, Some(&bd_seq), None),
            metric("Node Control/Rebirth", None, DataType::Boolean, Some(&rebirth), None),
            metric(RECEIPT_METRIC, Some(1000), DataType::Bytes, None, None),
        ];
        let mut out = Vec::new();
        birth(0, now, &node, Some(&head), &mut out);
        self.publish("NBIRTH/n1", out).await;
        let definitions = definitions();
        let points = definitions.iter().zip(0u64..);
        let points: Vec<_> =
            points.map(|(d, alias)| metric(&d.metric, Some(alias), d.data_type, None, Some(d))).collect();
        let mut out = Vec::new();
        birth(1, now, &points, None, &mut out);
        self.publish("DBIRTH/n1/press", out).await;
        self.seq = 2;
    }

    async fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.agent.publish(format!("spBv1.0/plant/{topic}"), QoS::AtMostOnce, false, payload).await.unwrap();
    }

    /// One record with these samples, and waits until it is on the hub's disk.
    async fn record(&mut self, samples: Vec<Sample>) {
        let definitions = definitions();
        for (sample, index) in samples.iter().zip(0u32..) {
            let path = path_hash(definitions[sample.point.0 as usize].path.as_str());
            let hash = sample_hash(
                Offset(self.offset),
                index,
                path,
                sample.time,
                sample.value.as_ref(),
                sample.quality,
            );
            self.account.add(hash);
        }
        let id = RecordId { epoch: EPOCH, offset: Offset(self.offset) };
        self.offset += 1;
        let now = Timestamp(START);
        let batch = SampleBatch { id, accepted_at: now, is_historical: false, samples };
        let account = Some(self.account);
        let head = RecordHead {
            id,
            first_held: 0,
            accepted_end: self.offset,
            accepted_at: now,
            account,
            counts: None,
        };
        let mut out = Vec::new();
        data(self.seq, now, &batch, &head, false, &|_| false, &|point| u64::from(point.0), &mut out);
        self.seq = self.seq.wrapping_add(1);
        let end = self.hub.store.view().durable_end();
        self.publish("DDATA/n1/press", out).await;
        let mut durable = self.hub.store.durable();
        let kept = tokio::time::timeout(Duration::from_secs(10), durable.wait_for(|at| *at > end)).await;
        kept.expect("the hub keeps the record").unwrap();
    }

    /// `count` values of the temperature, one each second from the start, in records of 50.
    async fn temperatures(&mut self, count: i64) {
        for chunk in (0..count).collect::<Vec<_>>().chunks(50) {
            let value = |i: i64| f64::from(i32::try_from(i).unwrap()) / 2.0;
            let samples = chunk.iter().map(|i| sample(0, *i, Some(Value::Double(value(*i))), Quality::GOOD));
            self.record(samples.collect()).await;
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.hub.http)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Json>,
    ) -> Response {
        let mut request = self.http.request(method, self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.hub.token.text());
        self.ask(Method::GET, path, &[("authorization", &bearer)], None).await
    }

    async fn json(&self, path: &str) -> Json {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn refused(&self, path: &str, status: u16) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        let error: Json = response.json().await.unwrap();
        assert!(!error["error"]["code"].as_str().unwrap().is_empty());
        format!(
            "{} {}",
            error["error"]["message"].as_str().unwrap(),
            error["error"]["remedy"].as_str().unwrap()
        )
    }

    async fn page(&self, query: &str) -> FeedPage {
        let response = self.get(&format!("/api/v1/feed?{query}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        assert_eq!(response.headers()["content-type"], "application/x-protobuf");
        FeedPage::decode(response.bytes().await.unwrap()).unwrap()
    }

    /// A long poll that runs beside what follows.
    fn page_later(&self, from: u64) -> tokio::task::JoinHandle<FeedPage> {
        let bearer = format!("Bearer {}", self.hub.token.text());
        let url = self.url(&format!("/api/v1/feed?sink=lake&from={from}&wait_ms=20000"));
        let request = self.http.get(url).header("authorization", bearer);
        let read =
            async move { FeedPage::decode(request.send().await.unwrap().bytes().await.unwrap()).unwrap() };
        #[expect(clippy::disallowed_methods, reason = "the test joins it")]
        tokio::spawn(read)
    }

    async fn end(self) {
        let drained = self.tasks.drain().await;
        assert!(drained.is_graceful(), "{drained:?}");
        drop(self.folder);
    }
}

fn sample(point: u32, second: i64, value: Option<Value>, quality: Quality) -> Sample {
    Sample { point: PointId(point), time: Timestamp(START + second * 1_000_000), value, quality }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_health_needs_a_login() {
    let plant = Plant::start().await;
    let document = serde_json::to_value(openapi::build()).unwrap();
    let mut asked = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let address = path.replace("{path}", "hall/press/count");
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let expected = if path == "/api/v1/health" { 200 } else { 401 };
            let body = (path == "/api/v1/login").then(|| json!({"password": "wrong"}));
            for headers in [
                &[("x-forebay", "1")][..],
                &[("x-forebay", "1"), ("cookie", "forebay_session=AAAA")],
                &[("x-forebay", "1"), ("cookie", "forebay_session=")],
                &[("x-forebay", "1"), ("authorization", "Basic YWRtaW46YWRtaW4=")],
            ] {
                let response = plant.ask(method.clone(), &address, headers, body.clone()).await;
                // Guesses are counted: later ones are answered by "too many", which is no answer either.
                let refused = expected == 401 && response.status() == StatusCode::TOO_MANY_REQUESTS;
                assert!(refused || response.status() == expected, "{method} {path}: {}", response.status());
            }
            asked.insert(path.clone());
        }
    }
    assert_eq!(asked.len(), routes().len());
    for path in ["/api/v1/nothing", "/api", "/api/", "/metrics", "//api/v1/points", "/api/v1/points/"] {
        let response = plant.ask(Method::GET, path, &[], None).await;
        assert!([401, 404].contains(&response.status().as_u16()), "{path}: {}", response.status());
    }
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_and_changes_only_with_the_header() {
    let plant = Plant::start().await;
    let token = plant.hub.token.text().to_owned();
    let password = json!({ "password": token });
    let response = plant.ask(Method::POST, "/api/v1/login", &[], Some(password.clone())).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN, "another site's form cannot sign in");
    let response = plant.ask(Method::POST, "/api/v1/login", &[("x-forebay", "1")], Some(password)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let with = [("cookie", cookie)];
    assert_eq!(plant.ask(Method::GET, "/api/v1/points", &with, None).await.status(), StatusCode::OK);
    let command = json!({"path": "hall/press/Öltemperatur", "value": 1, "reason": "test"});
    let refused = plant.ask(Method::POST, "/api/v1/commands", &with, Some(command.clone())).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let with = [("cookie", cookie), ("x-forebay", "1")];
    let answer = plant.ask(Method::POST, "/api/v1/commands", &with, Some(command)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Json = answer.json().await.unwrap();
    assert!(answer["outcome"].as_str().unwrap().starts_with("refused"), "commands are off: {answer}");
    let out = plant.ask(Method::POST, "/api/v1/logout", &with, None).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        plant.ask(Method::GET, "/api/v1/points", &with, None).await.status(),
        StatusCode::UNAUTHORIZED
    );

    let link = plant.ask(Method::GET, &format!("/?token={token}"), &[], None).await;
    assert!(link.status().is_redirection() && link.headers()["location"] == "/");
    assert!(link.headers().contains_key("set-cookie"));
    let elsewhere = [("sec-fetch-site", "cross-site")];
    let link = plant.ask(Method::GET, &format!("/?token={token}"), &elsewhere, None).await;
    assert!(!link.headers().contains_key("set-cookie"));
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_listed_searched_and_shown_with_their_last_value() {
    let mut plant = Plant::start().await;
    plant
        .record(vec![
            sample(0, 1, Some(Value::Double(f64::NAN)), Quality::GOOD),
            sample(1, 1, Some(Value::UInt64(u64::MAX)), Quality::GOOD),
            sample(2, 1, Some(Value::String("läuft".into())), Quality::GOOD),
            sample(3, 1, None, Quality::bad(Reason::Timeout)),
        ])
        .await;
    let paths = |page: &Json| -> Vec<String> {
        page["points"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap().to_owned()).collect()
    };
    let all = plant.json("/api/v1/points?prefix=hall/").await;
    assert_eq!(
        paths(&all),
        ["hall/press/count", "hall/press/pressure", "hall/press/state", "hall/press/Öltemperatur"]
    );
    let first = plant.json("/api/v1/points?prefix=hall/&limit=3").await;
    assert_eq!(first["next"], "hall/press/state");
    let rest = plant.json("/api/v1/points?prefix=hall/&limit=3&after=hall/press/state").await;
    assert_eq!((paths(&rest), &rest["next"]), (vec!["hall/press/Öltemperatur".to_owned()], &Json::Null));
    let found = plant.json("/api/v1/points?search=press%20CEL").await;
    assert_eq!(paths(&found), ["hall/press/Öltemperatur"]);
    assert_eq!(paths(&plant.json("/api/v1/points?prefix=nowhere").await), Vec::<String>::new());

    let point = plant.json("/api/v1/points/hall/press/%C3%96ltemperatur").await;
    assert_eq!(
        point["last"],
        json!({"t": "2026-09-21T14:13:21.000000Z", "v": null, "special": "NaN", "q": "good"})
    );
    let about = ["unit", "type", "writable", "min", "max", "description", "agent", "device", "metric"];
    let about: Vec<&Json> = about.iter().map(|name| &point[name]).collect();
    let wanted = json!([
        "Cel",
        "double",
        true,
        0.0,
        300.0,
        "the press's Öltemperatur",
        "plant/n1",
        "press",
        "Öltemperatur"
    ]);
    assert_eq!(json!(about), wanted);
    let last = |path: &'static str| {
        let plant = &plant;
        async move { plant.json(&format!("/api/v1/points/hall/press/{path}")).await["last"].clone() }
    };
    assert_eq!(last("count").await["v"], "18446744073709551615");
    assert_eq!(last("state").await["v"], "läuft");
    let bad = last("pressure").await;
    assert_eq!((&bad["v"], &bad["q"]), (&Json::Null, &json!("bad:timeout")));
    plant.refused("/api/v1/points/no/such/point", 404).await;
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_bounded_and_says_when_it_is_cut() {
    let mut plant = Plant::start().await;
    plant.temperatures(500).await;
    let path = "path=hall/press/%C3%96ltemperatur";
    let all = plant.json(&format!("/api/v1/history?{path}")).await;
    assert_eq!((all["samples"].as_array().unwrap().len(), &all["truncated"]), (500, &json!(false)));
    assert_eq!(all["samples"][1], json!({"t": "2026-09-21T14:13:21.000000Z", "v": 0.5, "q": "good"}));
    let newest = plant.json(&format!("/api/v1/history?{path}&limit=10")).await;
    let values: Vec<f64> =
        newest["samples"].as_array().unwrap().iter().map(|s| s["v"].as_f64().unwrap()).collect();
    assert_eq!((values.len(), values[9], &newest["truncated"]), (10, 249.5, &json!(true)));
    let from = START + 100_000_000;
    let part = plant.json(&format!("/api/v1/history?{path}&from={from}&to=2026-09-21T14:15:10Z")).await;
    assert_eq!(part["samples"].as_array().unwrap().len(), 10);
    let thin = plant.json(&format!("/api/v1/history?{path}&buckets=10")).await;
    assert!(
        thin["samples"].as_array().unwrap().len() <= 30
            && thin["thinned"] == true
            && thin["truncated"] == false
    );
    plant.refused("/api/v1/history?path=no/such/point", 404).await;
    for wrong in ["limit=0", "limit=100001", "from=yesterday", "buckets=0", "colour=red", "limit=x"] {
        let text = plant.refused(&format!("/api/v1/history?{path}&{wrong}"), 400).await;
        let name = wrong.split('=').next().unwrap();
        assert!(text.contains(name) || text.contains("invalid digit"), "{wrong}: {text}");
    }
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_pages_waits_and_keeps_the_cursor() {
    let mut plant = Plant::start().await;
    plant.temperatures(500).await;
    let (mut next, mut known) = (0, 0);
    let mut positions = Vec::new();
    let (mut values, mut names) = (0, Vec::new());
    let epoch = loop {
        let page = plant.page(&format!("sink=lake&from={next}&catalogue={known}&max_bytes=1000")).await;
        assert_eq!(
            (page.hub_id.as_str(), page.enterprise.as_str(), page.site.as_str()),
            ("works", "acme", "works")
        );
        assert_eq!((page.first, page.epochs.len(), page.epochs[0].1), (0, 1, 0));
        for entry in &page.catalogue {
            if let CatalogueEntry::Point { definition, .. } = entry {
                names.push(definition.path.to_string());
            }
        }
        known = page.catalogue_next;
        for (position, record) in &page.entries {
            positions.push(*position);
            if let LogRecord::Received { batch, .. } = LogRecord::decode(record).unwrap() {
                values += batch.samples.len();
            }
        }
        assert!(page.entries.len() < 10, "a page is bounded");
        next = page.next;
        if next == page.durable_end {
            break page.epochs[0].0;
        }
    };
    assert_eq!(positions, (0..next).collect::<Vec<u64>>());
    assert_eq!(values, 500);
    assert!(names.iter().any(|name| name == "hall/press/Öltemperatur"), "{names:?}");
    // Found by the simulator: a full disk deletes what every registered reader has read; a new one has read nothing.
    let sink = plant.json("/api/v1/reconcile").await["sinks"][0].clone();
    assert_eq!(
        (&sink["name"], &sink["position"]),
        (&json!("lake"), &json!(0)),
        "registered before its first commit"
    );

    let began = std::time::Instant::now();
    let empty = plant.page(&format!("sink=lake&from={next}&catalogue={known}&wait_ms=300")).await;
    assert!(empty.entries.is_empty() && empty.next == next && began.elapsed() >= Duration::from_millis(300));
    let waited = plant.page_later(next);
    plant.temperatures(1).await;
    let page =
        tokio::time::timeout(Duration::from_secs(5), waited).await.expect("the poll ends early").unwrap();
    assert_eq!(page.entries[0].0, next);
    let what = plant.page(&format!("sink=lake&from={}", u64::MAX)).await;
    assert!(what.entries.is_empty() && what.durable_end > next);

    plant.page(&format!("sink=lake&from={next}&committed=5&epoch={epoch}")).await;
    let sink = plant.json("/api/v1/reconcile").await["sinks"][0].clone();
    assert_eq!(
        (&sink["name"], &sink["position"], &sink["behind_start"]),
        (&json!("lake"), &json!(5), &json!(false))
    );
    plant.page(&format!("sink=other&from={next}&committed=5&epoch={}", Epoch(1))).await;
    assert_eq!(
        plant.json("/api/v1/reconcile").await["sinks"].as_array().unwrap().len(),
        1,
        "another log's cursor"
    );
    for wrong in [
        "sink=&from=0",
        "sink=a",
        "from=0",
        "sink=a&from=0&committed=1",
        "sink=a&from=0&wait_ms=30001",
        "sink=a&from=-1",
    ] {
        plant.refused(&format!("/api/v1/feed?{wrong}"), 400).await;
    }
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_values_come_as_events_by_prefix() {
    let mut plant = Plant::start().await;
    plant.temperatures(1).await;
    plant.record(vec![sample(1, 1, Some(Value::UInt64(7)), Quality::GOOD)]).await;
    let mut stream = plant.get("/api/v1/live?prefix=hall/press/c").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    for number in 7..10 {
        let value = format!("\"v\":{number},");
        let seen = async {
            while !text.contains(&value) {
                text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), seen).await.expect("an event");
        plant
            .record(vec![sample(
                1,
                number,
                Some(Value::UInt64(u64::try_from(number).unwrap() + 1)),
                Quality::GOOD,
            )])
            .await;
    }
    assert!(text.starts_with("event: clock\ndata: 2"), "{text}");
    assert!(text.contains("\n\nevent: values\ndata: [{\"p\":\"hall/press/count\",\"t\":"), "{text}");
    assert!(!text.contains("temperatur"), "{text}");
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_health_and_balance_tell_what_is_there() {
    let mut plant = Plant::start().await;
    plant.temperatures(100).await;
    let agents = plant.json("/api/v1/agents").await;
    let agent = &agents["agents"][0];
    assert_eq!(
        (&agent["agent"], &agent["online"], &agent["foreign"]),
        (&json!("plant/n1"), &json!(true), &json!(false))
    );
    assert_eq!(agent["devices"], json!([{"name": "press", "online": true}]));
    let balance = plant.json("/api/v1/reconcile").await;
    let agent = &balance["agents"][0];
    assert_eq!((&agent["agent"], &agent["verdict"]), (&json!("plant/n1"), &json!("balanced")), "{balance}");
    let epoch = &agent["epochs"][0];
    assert_eq!((&epoch["epoch"], &epoch["records_received"]), (&json!("0123456789abcdef"), &json!(2)));
    assert_eq!(
        epoch["received"],
        json!({"count": 100, "checksum": format!("{:016x}", plant.account.checksum)})
    );
    assert_eq!((&epoch["ranges"], &epoch["verified_end"]), (&json!([[0, 2]]), &json!(2)));
    plant.offset += 3; // records that never leave the agent
    plant.record(vec![sample(1, 1, Some(Value::UInt64(7)), Quality::GOOD)]).await;
    let balance = plant.json("/api/v1/reconcile").await;
    assert_eq!(balance["agents"][0]["verdict"], "in-flight", "{balance}");
    assert_eq!(balance["agents"][0]["epochs"][0]["records_missing"], 3);
    let health = plant.json("/api/v1/health").await;
    assert_eq!(health["status"], "ok", "{health}");
    let metrics = plant.get("/metrics").await;
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text().await.unwrap().contains("# TYPE forebay_"));
    let plant_view = plant.json("/api/v1/plant").await;
    assert_eq!((&plant_view["enterprise"], &plant_view["commands_enabled"]), (&json!("acme"), &json!(false)));
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_hardened_and_requests_bounded() {
    let plant = Plant::start().await;
    for path in ["/", "/api/v1/health", "/api/v1/points", "/nothing"] {
        let response = plant.ask(Method::GET, path, &[], None).await;
        let headers = response.headers();
        assert!(
            headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
    }
    let page = plant.ask(Method::GET, "/", &[], None).await;
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let bearer = format!("Bearer {}", plant.hub.token.text());
    let with = [("authorization", bearer.as_str())];
    let large = json!({"path": "a", "reason": "r", "value": "x".repeat(BODY_BYTES_MAX)});
    let response = plant.ask(Method::POST, "/api/v1/commands", &with, Some(large)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    for body in [
        json!({}),
        json!([]),
        json!({"path": "a", "value": {}, "reason": "r"}),
        json!({"path": "a", "value": 1, "reason": " "}),
    ] {
        let response = plant.ask(Method::POST, "/api/v1/commands", &with, Some(body.clone())).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let response = plant.ask(Method::POST, "/api/v1/commands", &with, None).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "no body");
    let long = format!("/api/v1/points?prefix={}", "x".repeat(2000));
    plant.refused(&long, 400).await;
    let response = plant.ask(Method::DELETE, "/api/v1/points", &with, None).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let giant = format!("/api/v1/points?prefix={}", "x".repeat(100_000));
    let response = plant.http.get(plant.url(&giant)).send().await;
    assert!(response.is_err() || response.unwrap().status().is_client_error());
    assert_eq!(
        plant.get("/api/v1/openapi.json").await.json::<Json>().await.unwrap()["info"]["title"],
        "Forebay hub"
    );
    plant.end().await;
}
