//! What an agent says of its devices, and looks at its points, over HTTP.

use proto::health::{DeviceHealth, DeviceState, HealthReport, LOOK_METRIC, Look, LookAnswer, PointCounts};
use proto::sparkplug::{PayloadView, encode};

use super::*;

impl Plant {
    async fn report(&mut self, report: &HealthReport) {
        let mut payload = Vec::new();
        encode::health(self.seq, Timestamp(START), report, &mut payload);
        self.seq = self.seq.wrapping_add(1);
        self.publish("NDATA/n1", payload).await;
    }

    /// The devices of the agent, as soon as one of them has been told of.
    async fn devices(&self) -> Json {
        for _ in 0..100 {
            let devices = self.json("/api/v1/agents").await["agents"][0]["devices"].clone();
            if devices.as_array().is_some_and(|list| list.iter().any(|device| !device["health"].is_null())) {
                return devices;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no device has health");
    }

    /// The next look that the hub asks for.
    async fn asked(&mut self) -> Look {
        loop {
            let message = self.receiver.next().await.unwrap();
            let payload = PayloadView::decode(&message.payload).unwrap();
            let look = payload.metrics.iter().find(|metric| metric.name == Some(LOOK_METRIC));
            if let Some(Value::Bytes(bytes)) =
                look.and_then(|metric| metric.value.to_value(DataType::Bytes, 0))
            {
                return Look::decode(&bytes).unwrap();
            }
        }
    }
}

fn told() -> HealthReport {
    let press = DeviceHealth {
        name: "press".into(),
        driver: "modbus-tcp".into(),
        state: DeviceState::Up,
        since: Timestamp(START),
        last_read: Some(Timestamp(START)),
        requests: 100,
        failed: 3,
        per_second: 5.0,
        p50_micros: Some(1500),
        p99_micros: Some(20_000),
        points: PointCounts { good: 3, bad: 1, ..PointCounts::default() },
        ..DeviceHealth::default()
    };
    let away = DeviceHealth {
        name: "away".into(),
        driver: "s7".into(),
        error: Some("not connected: refused".into()),
        points: PointCounts { unread: 7, ..PointCounts::default() },
        ..DeviceHealth::default()
    };
    HealthReport { devices: vec![press, away], answers: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_shown_as_their_agent_says_they_are() {
    let mut plant = Plant::start().await;
    let before = plant.json("/api/v1/agents").await;
    assert_eq!(before["agents"][0]["devices"], json!([{"name": "press", "online": true, "health": null}]));
    plant.report(&told()).await;
    let devices = plant.devices().await;
    assert_eq!(devices[0]["name"], "away", "a device that never answered is shown too");
    assert_eq!(
        (&devices[0]["online"], &devices[0]["health"]["state"]),
        (&json!(false), &json!("connecting"))
    );
    assert_eq!(devices[0]["health"]["error"], "not connected: refused");
    let press = &devices[1]["health"];
    assert_eq!(press["points"], json!({"good": 3, "uncertain": 0, "bad": 1, "stale": 0, "unread": 0}));
    assert_eq!((&press["p50_ms"], &press["p99_ms"]), (&json!(1.5), &json!(20.0)));
    assert_eq!((&press["requests_per_second"], &press["failed"]), (&json!(5.0), &json!(3)));
    let points = plant.json("/api/v1/points").await;
    let paths: Vec<&str> =
        points["points"].as_array().unwrap().iter().filter_map(|point| point["path"].as_str()).collect();
    assert!(paths.iter().all(|path| path.starts_with("hall/press/")), "health is no plant data: {paths:?}");
    let quarantine = plant.json("/api/v1/quarantine").await;
    assert_eq!(quarantine["entries"].as_array().map(Vec::len), Some(0), "{quarantine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_shows_what_the_device_said() {
    let mut plant = Plant::start().await;
    let look = "/api/v1/look?path=hall/press/count";
    assert_eq!(plant.get(look).await.status(), StatusCode::CONFLICT, "it has not said that it answers");
    assert_eq!(plant.get("/api/v1/look?path=nowhere").await.status(), StatusCode::NOT_FOUND);
    plant.agent.subscribe(&[("spBv1.0/plant/NCMD/n1".into(), QoS::AtMostOnce)]).await.unwrap();
    plant.report(&told()).await;
    plant.devices().await;
    let bearer = format!("Bearer {}", plant.hub.token.text());
    for is_known in [true, false] {
        let request = plant.http.get(plant.url(look)).header("authorization", &bearer).send();
        let answered = async {
            let asked = plant.asked().await;
            assert_eq!((asked.device.as_str(), asked.metric.as_str()), ("press", "count"));
            let answer = LookAnswer {
                id: asked.id,
                is_known,
                address: "hr:7".into(),
                raw_type: "uint16".into(),
                raw: Some("215".into()),
                scale: Some(0.1),
                value: Some("21.5".into()),
                quality: Some(Quality::GOOD),
                time: Some(Timestamp(START)),
                ..LookAnswer::default()
            };
            // An answer to a question that nobody asked is nobody's.
            let stray = LookAnswer { id: asked.id.wrapping_add(99), ..answer.clone() };
            plant.report(&HealthReport { devices: Vec::new(), answers: vec![stray, answer] }).await;
        };
        let (response, ()) = tokio::join!(request, answered);
        let response = response.unwrap();
        if !is_known {
            assert_eq!(response.status(), StatusCode::CONFLICT);
            continue;
        }
        assert_eq!(response.status(), StatusCode::OK);
        let body: Json = response.json().await.unwrap();
        assert_eq!(
            (&body["raw"], &body["scale"], &body["value"]),
            (&json!("215"), &json!(0.1), &json!("21.5"))
        );
        assert_eq!(
            (&body["address"], &body["quality"], &body["offset"]),
            (&json!("hr:7"), &json!("good"), &json!(null))
        );
    }
}
