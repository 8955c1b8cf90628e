//! The whole road on one machine: Sparkplug over TCP → broker → decode → dedup → plant log with fsync → receipt → Delta.
//!
//! Hub and bridge run in a process of their own; this one generates the load as one agent with a bounded window of
//! records without receipt, as a real agent with a full uplink would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::sparkplug::{PayloadView, WireValue};
use runtime::mqtt_client::{self, MqttOptions, MqttReceiver, MqttSender, QoS};

use crate::figures::Figures;
use crate::generator::{DEVICE, Records};
use crate::machine::process_use;

/// Records that may be without receipt.
const WINDOW: u64 = 4096;
/// For a hub to start, a log to be exported.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures with `metrics` per message for `time`; `program` is the forebay binary, `dir` a folder on a real disk.
pub fn run(program: &Path, dir: &Path, metrics: usize, time: Duration) -> Result<Figures, String> {
    std::fs::remove_dir_all(dir).ok();
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut plant = Plant::start(program, dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let measured = runtime.block_on(load(&plant, metrics, time));
    let used = process_use(plant.process.id());
    plant.stop();
    let (values, durable, exported) = measured?;
    std::fs::remove_dir_all(dir).ok();
    let mut figures = Figures::default();
    let what = format!("{metrics} metrics per message, one agent, {values} values");
    figures.push(
        "values_per_s",
        values as f64 / durable.as_secs_f64(),
        "values/s",
        format!("to receipt: {what}"),
    );
    figures.push(
        "table_values_per_s",
        values as f64 / exported.as_secs_f64(),
        "values/s",
        format!("to Delta: {what}"),
    );
    let cpu = used.cpu_seconds / (values as f64 / 1e6);
    figures.push("cpu_s_per_million", cpu, "s", "CPU of hub and bridge per million values");
    figures.push("hub_bridge_peak_mb", used.peak as f64 / 1e6, "MB", "peak memory of hub and bridge");
    Ok(figures)
}

/// A hub with a bridge, in a child process.
struct Plant {
    process: Child,
    mqtt: u16,
    http: u16,
    dir: PathBuf,
}

impl Plant {
    fn start(program: &Path, dir: &Path) -> Result<Plant, String> {
        let (mqtt, http) = (free_port()?, free_port()?);
        let names = "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n";
        let text = format!(
            "{names}[hub]\ndata_dir = \"hub\"\n[hub.http]\nlisten = \"127.0.0.1:{http}\"\n[hub.broker]\n\
             listen = \"127.0.0.1:{mqtt}\"\n[bridge]\nhub = \"http://127.0.0.1:{http}\"\ntoken_file = \"hub/token\"\n\
             [[bridge.sinks]]\nname = \"lake\"\nkind = \"delta\"\npath = \"lake\"\nmax_wait = \"1s\"\n"
        );
        let write = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).map_err(|error| format!("{name}: {error}"))
        };
        write("password", "bench")?;
        write("plant.toml", &text)?;
        add_login(program, dir, "plant.toml")?;
        let process = Command::new(program)
            .args(["run", "plant.toml"])
            .current_dir(dir)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Plant { process, mqtt, http, dir: dir.to_owned() })
    }

    fn stop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets `gen` in as the agent bench/gen, with the password in `password`.
pub(crate) fn add_login(program: &Path, dir: &Path, config: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(["user", "add", "gen", "--role", "agent", "--node", "bench/gen"]);
    let output = command.args(["--password-file", "password", "--config", config]).current_dir(dir).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Values sent, time to the last receipt, time until all are in the table.
async fn load(plant: &Plant, metrics: usize, time: Duration) -> Result<(u64, Duration, Duration), String> {
    let (sender, mut receiver) = connect(plant).await?;
    let mut records = Records::new(metrics);
    let topic = |kind: &str, device: &str| format!("spBv1.0/bench/{kind}/gen{device}");
    sender.subscribe(&[(topic("NCMD", ""), QoS::AtMostOnce)]).await.map_err(|error| error.to_string())?;
    let (nbirth, dbirth) = records.births();
    let device = format!("/{DEVICE}");
    publish(&sender, topic("NBIRTH", ""), nbirth).await?;
    publish(&sender, topic("DBIRTH", &device), dbirth).await?;
    let data = topic("DDATA", &device);
    let (started, mut covered) = (Instant::now(), 0);
    while started.elapsed() < time {
        while records.next_offset() < covered + WINDOW && started.elapsed() < time {
            let mut payload = Vec::with_capacity(metrics * 24);
            records.encode_next(&mut payload);
            publish(&sender, data.clone(), payload).await?;
            if records.next_offset().is_multiple_of(64) {
                covered = covered.max(drain(&mut receiver, &records, Duration::ZERO).await?);
            }
        }
        covered = covered.max(drain(&mut receiver, &records, Duration::from_millis(20)).await?);
    }
    while covered < records.next_offset() {
        if started.elapsed() > time + PATIENCE {
            return Err(format!("receipts cover {covered} of {} records", records.next_offset()));
        }
        covered = covered.max(drain(&mut receiver, &records, Duration::from_millis(20)).await?);
    }
    let durable = started.elapsed();
    while !exported(plant) {
        if started.elapsed() > time + PATIENCE {
            return Err("the table did not catch up".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((records.next_offset() * metrics as u64, durable, started.elapsed()))
}

async fn connect(plant: &Plant) -> Result<(MqttSender, MqttReceiver), String> {
    let options = MqttOptions {
        host: "127.0.0.1".into(),
        port: plant.mqtt,
        tls: None,
        client_id: "gen".into(),
        login: Some(("gen".into(), "bench".into())),
        keep_alive: Duration::from_secs(30),
        will: None,
        packet_bytes_max: model::limits::MQTT_PACKET_BYTES_MAX,
    };
    let started = Instant::now();
    loop {
        match mqtt_client::connect(&options).await {
            Ok(session) => return Ok(session),
            Err(error) if started.elapsed() > Duration::from_secs(20) => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn publish(sender: &MqttSender, topic: String, payload: Vec<u8>) -> Result<(), String> {
    sender.publish(topic, QoS::AtMostOnce, false, payload).await.map_err(|error| error.to_string())
}

/// Reads what has come; the end of what receipts cover without a hole.
async fn drain(receiver: &mut MqttReceiver, records: &Records, wait: Duration) -> Result<u64, String> {
    let mut covered = 0;
    loop {
        match tokio::time::timeout(wait, receiver.next()).await {
            Err(_nothing_more) => return Ok(covered),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(message)) => covered = covered.max(end_of(&message.payload, records).unwrap_or(0)),
        }
    }
}

fn end_of(payload: &[u8], records: &Records) -> Option<u64> {
    let view = PayloadView::decode(payload).ok()?;
    let metric = view.metrics.iter().find(|metric| metric.name == Some(RECEIPT_METRIC))?;
    let WireValue::Bytes(bytes) = metric.value else { return None };
    let receipt = Receipt::decode(bytes).ok()?;
    let (_, ranges) = receipt.durable.into_iter().find(|(epoch, _)| *epoch == records.epoch())?;
    Some(ranges.contiguous_end(0))
}

/// Whether the sink has committed the whole plant log.
fn exported(plant: &Plant) -> bool {
    let token = std::fs::read_to_string(plant.dir.join("hub/token")).unwrap_or_default();
    let Some(answer) = get(plant.http, "/api/v1/reconcile", token.trim()) else { return false };
    let end = answer["log"]["end"].as_u64();
    end.is_some() && answer["sinks"][0]["position"].as_u64() == end
}

fn get(port: u16, path: &str, token: &str) -> Option<serde_json::Value> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
