//! Dead letters over the API: listed, shown, decided once; a bridge's refusal, and what a retry brings it.

use proto::log_record::LogRecord;
use serde_json::json;

use super::*;

impl Plant {
    async fn post(&self, path: &str, body: Json) -> (u16, Json) {
        let bearer = format!("Bearer {}", self.hub.token.text());
        let answer = self.ask(Method::POST, path, &[("authorization", &bearer)], Some(body)).await;
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    async fn waiting(&self, count: u64) -> Json {
        for _ in 0..500 {
            let list = self.json("/api/v1/quarantine").await;
            if list["waiting"] == count {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {count} in the quarantine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_listed_shown_and_decided_about_once() {
    let plant = Plant::start().await;
    plant.publish("DDATA/n1/press", vec![0xff, 0xff, 0x00]).await;
    let list = plant.waiting(1).await;
    let entry = &list["entries"][0];
    assert_eq!(
        (&entry["id"], &entry["kind"], &entry["state"]),
        (&json!("p0"), &json!("payload"), &json!("waiting"))
    );
    assert_eq!(entry["from"], "spBv1.0/plant/DDATA/n1/press");
    assert_eq!(plant.json("/api/v1/quarantine/entry?id=p0").await["content"], "ffff00");
    assert!(plant.refused("/api/v1/quarantine/entry?id=p7", 404).await.contains("list --all"));
    assert!(plant.refused("/api/v1/quarantine/entry?id=seven", 400).await.contains("p12"));
    let (status, said) = plant.post("/api/v1/quarantine/retry", json!({"id": "p0"})).await;
    assert_eq!((status, &said["error"]["code"]), (409, &json!("still-undecodable")));
    let (status, _) = plant.post("/api/v1/quarantine/discard", json!({"id": "p0", "reason": " "})).await;
    assert_eq!(status, 400);
    let discard = json!({"id": "p0", "reason": "a test"});
    assert_eq!(plant.post("/api/v1/quarantine/discard", discard.clone()).await.0, 200);
    let (status, said) = plant.post("/api/v1/quarantine/discard", discard).await;
    assert_eq!((status, &said["error"]["code"]), (409, &json!("already-decided")));
    assert_eq!(plant.waiting(0).await["entries"], json!([]));
    let all = plant.json("/api/v1/quarantine?all=true").await;
    let entry = &all["entries"][0];
    assert_eq!((&entry["state"], &entry["decided_by"]), (&json!("discarded"), &json!("api")));
    assert_eq!(entry["decided_because"], "a test");
    plant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_refuses_is_left_out_of_its_pages_and_comes_once_more() {
    let mut plant = Plant::start().await;
    plant.temperatures(100).await;
    let epoch = plant.hub.store.log_epoch().to_string();
    let refusal = json!({"sink": "lake", "epoch": epoch, "position": 1, "reason": "no such column"});
    let (status, said) = plant.post("/api/v1/quarantine/refuse", refusal.clone()).await;
    assert_eq!((status, &said["id"]), (200, &json!("r0")));
    assert_eq!(plant.post("/api/v1/quarantine/refuse", refusal).await.1["id"], "r0");
    let none = json!({"sink": "lake", "epoch": epoch, "position": 2, "reason": "?"});
    assert_eq!(plant.post("/api/v1/quarantine/refuse", none).await.0, 409);
    assert_eq!(plant.page("sink=lake&from=0").await.set_aside, [1]);
    assert_eq!(plant.page("sink=lake&from=2").await.set_aside, Vec::<u64>::new());
    assert_eq!(plant.page("sink=other&from=0").await.set_aside, Vec::<u64>::new());
    assert_eq!(
        plant.post("/api/v1/quarantine/retry", json!({"id": "r0"})).await,
        (200, json!({"id": "r0", "state": "retried"}))
    );
    assert_eq!(plant.post("/api/v1/quarantine/retry", json!({"id": "r0"})).await.0, 409);
    let page = plant.page("sink=lake&from=0").await;
    assert_eq!((page.set_aside.as_slice(), page.entries.len()), (&[1][..], 4));
    let records: Vec<LogRecord> =
        page.entries.iter().map(|(_, bytes)| LogRecord::decode(bytes).unwrap()).collect();
    let LogRecord::Received { batch: refused, .. } = &records[1] else { panic!() };
    assert!(
        matches!(&records[2], LogRecord::Again { sink, batch, .. } if sink == "lake" && batch == refused)
    );
    assert!(matches!(&records[3], LogRecord::Retried { origin: 2, position: 0, .. }));
    assert_eq!(plant.json("/api/v1/reconcile").await["agents"][0]["epochs"][0]["records_received"], 2);
    plant.end().await;
}
