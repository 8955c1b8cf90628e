//! How soon the hub is ready with a large plant log, after a SIGKILL. The log is written here, by the log's own crate,
//! into the plant log of a hub that has seen the agent: 64 MiB by default, `FOREBAY_LOG_BYTES` for more.

use std::time::{Duration, Instant};

use durable_log::{Log, Options};
use forebay_tests::campaign::{Campaign, Load, Role, number};
use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;
use model::{Epoch, Offset, PointId, Quality, RecordId, Sample, SampleBatch, Timestamp, Value};
use proto::account::Account;
use proto::log_record::{AgentId, LogRecord};
use runtime::clock::Clock;

/// Samples of a record that is written here.
const SAMPLES: u32 = 1_000;
/// Records between two syncs.
const GROUP: u64 = 500;

/// Appends records of the agent to a plant log until it has so many bytes; how many.
fn fill(plant: &Plant, bytes: u64) -> u64 {
    let folder = plant.dir().join("hub/plant-log");
    let options = Options { bytes_max: 60 << 30, ..Options::default() };
    let now = Clock::machine().now().0;
    let (mut log, _) = Log::open(&folder, options, now.unsigned_abs()).unwrap();
    let epoch = Epoch::from_random(now.unsigned_abs() | 1 << 60).unwrap();
    let (mut offset, mut buffer) = (0_u64, Vec::new());
    while log.view().bytes() < bytes {
        for _ in 0..GROUP {
            let at = Timestamp(now + i64::try_from(offset).unwrap());
            let value = |point: u32| {
                Value::Double(f64::from(point) + f64::from(u32::try_from(offset % 1_000_000).unwrap()))
            };
            let sample = |point| Sample {
                point: PointId(point),
                time: at,
                value: Some(value(point)),
                quality: Quality::GOOD,
            };
            let id = RecordId { epoch, offset: Offset(offset) };
            let samples = (1..=SAMPLES).map(sample).collect();
            let batch = SampleBatch { id, accepted_at: at, is_historical: false, samples };
            let account = Account { count: u64::from(SAMPLES), checksum: offset };
            buffer.clear();
            LogRecord::Received { agent: AgentId(1), batch, account, counts: None }.encode(&mut buffer);
            log.append_group(&[&buffer]).unwrap();
            offset += 1;
        }
        log.sync().unwrap();
    }
    offset
}

/// When the newest checkpoint was written.
fn newest_checkpoint(plant: &Plant) -> Option<std::time::SystemTime> {
    let files = std::fs::read_dir(plant.dir().join("hub/checkpoint")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// Starts the hub, however long it takes, and says how long.
fn start(campaign: &mut Campaign) -> Duration {
    let begun = Instant::now();
    let hub = campaign.plant.start("hub");
    eventually(Duration::from_secs(3600), "the hub is ready", || campaign.plant.try_get("/api/v1/health"));
    campaign.hub = Some(hub);
    begun.elapsed()
}

#[test]
fn the_hub_is_ready_soon_with_a_large_log() {
    let bytes = number("FOREBAY_LOG_BYTES", 64 << 20);
    let starts = number("FOREBAY_STARTS", 3);
    let load = Load { agents: 1, points: SAMPLES as usize, poll: Duration::from_millis(500) };
    let mut campaign = Campaign::new(load);
    campaign.plant.write(
        "hub.toml",
        &std::fs::read_to_string(campaign.plant.dir().join("hub.toml"))
            .unwrap()
            .replace("data_dir = \"hub\"\n", "data_dir = \"hub\"\nretention_bytes = \"60GiB\"\n"),
    );
    campaign.start(Role::Hub);
    campaign.start(Role::Agent(0));
    eventually(Duration::from_secs(30), "the first samples", || (campaign.received() > 2_000).then_some(()));
    campaign.kill(Role::Agent(0));
    campaign.kill(Role::Hub);
    let begun = Instant::now();
    let records = fill(&campaign.plant, bytes);
    println!(
        "{records} records of {SAMPLES} samples, {} MiB, written in {:.1?}",
        bytes >> 20,
        begun.elapsed()
    );
    let before = newest_checkpoint(&campaign.plant);
    let first = start(&mut campaign);
    println!("first start, all of it behind the last checkpoint: {first:.2?}");
    // Although nothing new comes: a hub that is killed again and again must not read all of it again and again.
    eventually(Duration::from_secs(60), "a checkpoint after a long start", || {
        (newest_checkpoint(&campaign.plant) > before).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    campaign.start(Role::Agent(0));
    let mut all = Vec::new();
    for _ in 0..starts {
        std::thread::sleep(Duration::from_millis(300));
        campaign.kill(Role::Hub);
        all.push(start(&mut campaign));
    }
    all.sort();
    let memory = campaign.hub.as_ref().unwrap().memory();
    println!(
        "{starts} starts after SIGKILL with {} MiB: median {:.2?}, slowest {:.2?}; memory {} MiB, peak {} MiB",
        bytes >> 20,
        all[all.len() / 2],
        all[all.len() - 1],
        memory.0 >> 20,
        memory.1 >> 20
    );
    let received = campaign.received();
    eventually(Duration::from_secs(60), "samples go on", || {
        (campaign.received() > received + 1_000).then_some(())
    });
}
