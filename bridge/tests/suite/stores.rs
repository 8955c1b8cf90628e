//! Delta tables in object stores: on moto and azurite, and with Google's client, the sink keeps its contract, other readers see the rows,
//! and a store that answers badly over real HTTP loses and doubles nothing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bridge::cursor::Cursor;
use bridge::scan::scan;
use bridge::sink_conformance::{
    FIRST, account, batch, catalogue, catalogue_entries, conforms, plain, plant_log, record, sample,
};
use bridge::sinks::location::Location;
use bridge::sinks::{Sink, in_one_line};
use bridge::{Pace, SinkConfig};
use model::{Quality, SampleBatch, Value};
use serde_json::Value as Json;

use crate::emulators::{Emulator, Fate, Kind, Proxy, sink_of};
use crate::hub::Hub;
use crate::pump;
use crate::pump::start;

/// A place in the bucket that stands for a folder.
fn place(folder: &Path) -> String {
    let text: String = folder.to_string_lossy().chars().filter(char::is_ascii_alphanumeric).collect();
    format!("tables/{text}")
}

fn counted(emulator: &Emulator, path: &str) -> Json {
    let (url, options) = emulator.for_deltalake(path);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/peers/count_far.py");
    let output = std::process::Command::new(crate::readers::python())
        .arg(script)
        .args([&url, &options])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn expect_rows(place: &Location, records: &[SampleBatch]) {
    let table = scan(place.clone()).await.unwrap();
    let rows = table.epochs.values().next().unwrap();
    assert_eq!((table.foreign_rows, rows.duplicates), (0, 0), "{:?}", table.problems);
    assert_eq!(rows.account, account(records, &catalogue()));
}

async fn keeps_the_contract(kind: Kind) {
    let emulator = Emulator::start(kind);
    conforms(&|folder: &Path| emulator.sink(&place(folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    keeps_the_contract(Kind::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_conforms() {
    keeps_the_contract(Kind::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_conforms() {
    keeps_the_contract(Kind::Google).await;
}

/// Two writers of one cursor on S3 and on Azure, where no lock keeps one out: of two commits that begin at one version one
/// is refused. Other people's readers count every row once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_commits_are_refused_and_others_read_the_rows_once() {
    for kind in [Kind::S3, Kind::Azure] {
        let emulator = Emulator::start(kind);
        let log = plant_log(&[(FIRST, 0)], 1000);
        let (mut one, mut two) = (emulator.sink("race"), emulator.sink("race"));
        let end = |position| Cursor { epoch: Some(FIRST), position };
        let mut refused = 0;
        let mut at = 0;
        for turn in 0..4 {
            one.open("lake", &log).await.unwrap();
            assert_eq!(two.open("lake", &log).await.unwrap(), (at > 0).then(|| end(at)));
            // Not the same span: the loser's rows must not come in.
            let (short, long) = (at + 3 + turn % 2, at + 5 - turn % 2);
            one.write(batch(FIRST, at..short, &plain(at..short))).await.unwrap();
            two.write(batch(FIRST, at..long, &plain(at..long))).await.unwrap();
            let (first, second) = tokio::join!(one.commit(end(short)), two.commit(end(long)));
            let wins: Vec<u64> = [(&first, short), (&second, long)]
                .iter()
                .filter(|(done, _)| done.is_ok())
                .map(|(_, end)| *end)
                .collect();
            assert_eq!(wins.len(), usize::from(short == long) + 1, "{first:?} {second:?}");
            refused += u64::from(first.is_err()) + u64::from(second.is_err());
            at = wins[0];
        }
        assert!(refused > 0);
        one.close().await;
        expect_rows(one.location().unwrap(), &plain(0..at)).await;
        let seen = counted(&emulator, "race");
        assert_eq!(seen["deltalake"], serde_json::json!([3 * at, 3 * at]), "{kind:?}");
        if kind == Kind::S3 {
            assert_eq!(seen["duckdb"], serde_json::json!([3 * at, 3 * at]));
        }
    }
}

/// A batch whose file has several parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_up_in_parts() {
    let emulator = Emulator::start(Kind::S3);
    let proxy = Proxy::before(emulator.port);
    let mut sink = sink_of(&emulator.keys("large", proxy.port));
    sink.open("lake", &plant_log(&[(FIRST, 0)], 1000)).await.unwrap();
    // Texts that do not compress: 24 MB.
    let mut seed = 7;
    let mut noise = || {
        let words = (0..7_500).map(|_| format!("{:016x}", runtime::world::split_mix(&mut seed)));
        Value::Bytes(words.collect::<String>().into_bytes().into_iter().take(60_000).collect())
    };
    let records: Vec<SampleBatch> = (0..500)
        .map(|at| {
            record(at, vec![sample(13, bridge::sink_conformance::START.0, Some(noise()), Quality::GOOD)])
        })
        .collect();
    sink.write(batch(FIRST, 0..500, &records)).await.unwrap();
    let written = sink.commit(Cursor { epoch: Some(FIRST), position: 500 }).await.unwrap();
    assert!(written.bytes > 17_000_000, "{written:?}");
    let parts =
        proxy.log().iter().filter(|line| line.starts_with("PUT") && line.contains("partNumber=")).count();
    assert_eq!(parts as u64, written.bytes.div_ceil(8 << 20));
    expect_rows(sink.location().unwrap(), &records).await;
}

const PACE: Pace = Pace {
    pause: Duration::from_millis(1),
    pause_max: Duration::from_millis(50),
    alarm_after: Duration::from_millis(1500),
};

fn config(sink: Box<dyn Sink>) -> SinkConfig {
    pump::config(sink, PACE)
}

/// 503 in bursts, 500 after the effect, and answers that are lost after a commit's PUT was carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_and_lost_answers_over_http_lose_and_double_nothing() {
    let emulator = Emulator::start(Kind::S3);
    let proxy = Proxy::before(emulator.port);
    let sink = sink_of(&emulator.keys("storm", proxy.port));
    let place = sink.location().unwrap().clone();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let running = start(&hub, vec![config(sink)]).await;
    hub.append(&plain(0..40));
    running.until_settled(40).await;
    let (nth, commits) = (AtomicU64::new(0), AtomicU64::new(0));
    proxy.judge(move |method, path| {
        let nth = nth.fetch_add(1, Ordering::Relaxed);
        if method == "PUT" && path.contains("_delta_log/0") && path.contains(".json") {
            return match commits.fetch_add(1, Ordering::Relaxed) % 4 {
                0 => Fate::Lost,
                1 => Fate::After(503, "SlowDown"),
                _ => Fate::Good,
            };
        }
        match nth % 40 {
            20..26 => Fate::Answer(503, "SlowDown"),
            30 => Fate::After(500, "InternalError"),
            35 => Fate::Lost,
            _ => Fate::Good,
        }
    });
    for part in 0..8 {
        hub.append(&plain(40 + part * 20..60 + part * 20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.until_settled(200).await;
    let (requests, failed) = proxy.counts();
    assert!(failed > 10, "{failed} of {requests} requests failed");
    proxy.judge(|_, _| Fate::Good);
    hub.append(&plain(200..220));
    running.until_settled(220).await;
    assert!(running.tasks.drain().await.is_graceful());
    expect_rows(&place, &plain(0..220)).await;
    assert_eq!(counted(&emulator, "storm")["deltalake"], serde_json::json!([660, 660]));
}

/// Access is taken away for a while: an alarm that says what to do, nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_access_is_an_alarm_and_then_made_good() {
    let emulator = Emulator::start(Kind::S3);
    let proxy = Proxy::before(emulator.port);
    let sink = sink_of(&emulator.keys("denied", proxy.port));
    let place = sink.location().unwrap().clone();
    let hub = Hub::start(FIRST, catalogue_entries()).await;
    let running = start(&hub, vec![config(sink)]).await;
    hub.append(&plain(0..40));
    running.until_settled(40).await;
    running.until("no alarm of a slow start", |s| s.alarm.is_none()).await;
    proxy.judge(|_, _| Fate::Answer(403, "AccessDenied"));
    hub.append(&plain(40..100));
    let status = running.until("an alarm", |s| s.alarm.is_some()).await;
    let alarm = status.alarm.unwrap();
    assert!(alarm.contains("access is denied: allow this key to"), "{alarm}");
    proxy.judge(|_, _| Fate::Good);
    running.until_settled(100).await;
    running.until("no alarm", |s| s.alarm.is_none()).await;
    assert!(running.tasks.drain().await.is_graceful());
    expect_rows(&place, &plain(0..100)).await;
}

/// What a person reads when the place is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_that_only_the_store_knows_say_what_to_do() {
    let emulator = Emulator::start(Kind::S3);
    let log = plant_log(&[(FIRST, 0)], 10);
    let good = emulator.keys("x", emulator.port);
    let said = async |keys: &str| in_one_line(&sink_of(keys).open("lake", &log).await.unwrap_err());
    let no_bucket = said(&good.replace("s3://lake/", "s3://no-such-lake/")).await;
    assert!(no_bucket.contains("the bucket or container does not exist: create it"), "{no_bucket}");
    let proxy = Proxy::before(emulator.port);
    for (status, code, what) in [
        (403, "RequestTimeTooSkewed", "the clocks of this machine and of the store differ"),
        (403, "SignatureDoesNotMatch", "the secret does not belong to this key"),
        (403, "InvalidAccessKeyId", "the store does not know this access key"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (400, "ExpiredToken", "the credentials have expired"),
    ] {
        proxy.judge(move |_, _| Fate::Answer(status, code));
        let text = said(&emulator.keys("x", proxy.port)).await;
        assert!(text.contains(what), "{code}: {text}");
    }
    let nobody = said(&good.replace(&format!(":{}", emulator.port), ":1")).await;
    assert!(nobody.contains("the store cannot be reached: check `endpoint`"), "{nobody}");
    let azure = Emulator::start(Kind::Azure);
    let text = said(&azure.keys("x", azure.port).replace("az://lake/", "az://no-such-lake/")).await;
    assert!(text.contains("the bucket or container does not exist"), "{text}");
}
