//! How fast records become rows of a Delta table on this machine: `batch_to_delta FOLDER [ROWS_PER_COMMIT] [COMMITS]`.
//!
//! 2 000 points of 40 devices, one value each per record in the order of arrival, random walks rounded to two places.
//! Prints rows/s per stage, and bytes per row. The folder must not hold a table yet.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement; its output is the point")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge::batch::BatchBuilder;
use bridge::catalogue::Catalogue;
use bridge::cursor::{Cursor, PlantLog, Span};
use bridge::scan::scan;
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, RecordId, Sample,
    SampleBatch, Timestamp, Value,
};
use proto::account::Account;
use proto::log_record::{AgentId, CatalogueEntry, LogRecord};

const EPOCH: Epoch = Epoch(1);
const DEVICES: u32 = 40;
const POINTS_OF_DEVICE: u32 = 50;
const START_US: i64 = 1_795_327_200_000_000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder"));
    let rows: usize = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    let commits: usize = arguments.next().map_or(5, |text| text.parse().unwrap());
    let catalogue = catalogue();
    let mut plant = Plant::new();
    let mut sink = DeltaSink::new(folder.clone());
    let log =
        PlantLog { hub_id: "bench".into(), epochs: vec![(EPOCH, 0)], first: 0, durable_end: u64::MAX >> 1 };
    sink.open("lake", &log).await.unwrap();
    let (mut decode, mut gather, mut sort, mut write, mut commit) = Default::default();
    let (mut start, mut all, mut bytes) = (0, 0, 0);
    for _ in 0..commits {
        let records = plant.records(rows);
        let end = start + records.len() as u64;
        let decoded: Vec<LogRecord> =
            timed(&mut decode, || records.iter().map(|bytes| LogRecord::decode(bytes).unwrap()).collect());
        let builder = timed(&mut gather, || {
            let mut builder = BatchBuilder::new();
            for record in &decoded {
                let LogRecord::Received { agent, batch, .. } = record else { continue };
                assert!(builder.has_room_for(batch));
                builder.push(*agent, batch, &catalogue).unwrap();
            }
            builder
        });
        all += builder.rows();
        let span = Span { epoch: EPOCH, positions: start..end };
        let batch = timed(&mut sort, || Arc::new(builder.finish("antwerp", span)));
        let began = Instant::now();
        sink.write(batch).await.unwrap();
        write += began.elapsed();
        let began = Instant::now();
        bytes += sink.commit(Cursor { epoch: Some(EPOCH), position: end }).await.unwrap().bytes;
        commit += began.elapsed();
        start = end;
    }
    sink.close().await;
    let rate = |spent: Duration| all as f64 / spent.as_secs_f64() / 1e6;
    let total: Duration = [decode, gather, sort, write, commit].iter().sum();
    for (stage, spent) in [
        ("decode records", decode),
        ("gather", gather),
        ("sort", sort),
        ("encode, write, fsync", write),
        ("commit, fsync", commit),
        ("all", total),
    ] {
        println!(
            "{stage:>22}: {:7.2} M rows/s  {:6.1} ms per commit",
            rate(spent),
            spent.as_secs_f64() * 1e3 / commits as f64
        );
    }
    println!("{:>22}: {:7.2}", "bytes per row", bytes as f64 / all as f64);
    println!("{:>22}: {:>7} MB", "peak memory", peak_memory_mb());
    let began = Instant::now();
    let table = scan(folder).await.unwrap();
    println!(
        "{:>22}: {:7.2} M rows/s",
        "reconcile scan",
        table.rows as f64 / began.elapsed().as_secs_f64() / 1e6
    );
}

/// The process's highest resident memory so far; 0 where the system does not say.
fn peak_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1000
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    *spent += began.elapsed();
    result
}

fn catalogue() -> Catalogue {
    let mut entries =
        vec![CatalogueEntry::Agent { id: AgentId(0), node: NodeId::new("plant", "line").unwrap() }];
    for id in 0..DEVICES * POINTS_OF_DEVICE {
        let (device, point) = (id / POINTS_OF_DEVICE, id % POINTS_OF_DEVICE);
        let path = format!("hall-{}/line-{}/machine-{device}/sensor-{point:02}", device % 3, device % 7);
        let definition = PointDefinition {
            device: Some(format!("machine-{device}")),
            unit: "bar".into(),
            ..PointDefinition::new(PointPath::new(&path).unwrap(), path, DataType::Double)
        };
        entries.push(CatalogueEntry::Point { id: PointId(id), agent: AgentId(0), definition });
    }
    let mut catalogue = Catalogue::default();
    let next = entries.len() as u64;
    catalogue.apply(entries, next).unwrap();
    catalogue
}

/// Values that walk, from a small generator.
struct Plant {
    values: Vec<f64>,
    state: u64,
    offset: u64,
}

impl Plant {
    fn new() -> Self {
        Plant {
            values: vec![50.0; (DEVICES * POINTS_OF_DEVICE) as usize],
            state: 0x9e37_79b9_7f4a_7c15,
            offset: 0,
        }
    }

    fn random(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }

    fn records(&mut self, rows: usize) -> Vec<Vec<u8>> {
        (0..rows / POINTS_OF_DEVICE as usize).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Vec<u8> {
        let device = u32::try_from(self.offset % u64::from(DEVICES)).unwrap();
        let round = i64::try_from(self.offset / u64::from(DEVICES)).unwrap();
        let time = START_US + round * 200_000;
        let mut samples = Vec::new();
        for point in device * POINTS_OF_DEVICE..(device + 1) * POINTS_OF_DEVICE {
            let step = (self.random() - 0.5) * 0.4;
            let value = &mut self.values[point as usize];
            *value = ((*value + step) * 100.0).round() / 100.0;
            let value = Value::Double(*value);
            samples.push(Sample {
                point: PointId(point),
                time: Timestamp(time),
                value: Some(value),
                quality: Quality::GOOD,
            });
        }
        let id = RecordId { epoch: Epoch(7), offset: Offset(self.offset) };
        let batch = SampleBatch { id, accepted_at: Timestamp(time + 1500), is_historical: false, samples };
        self.offset += 1;
        let mut bytes = Vec::new();
        LogRecord::Received { agent: AgentId(0), batch, account: Account::default(), counts: None }
            .encode(&mut bytes);
        bytes
    }
}
