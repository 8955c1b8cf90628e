//! A load: records of doubles as an agent would send them, with identities and accounts that the hub can check.

use model::{
    DataType, Epoch, Offset, PointDefinition, PointId, PointPath, Quality, RecordId, Sample, SampleBatch,
    Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::receipt::{COMMAND_REPORT_METRIC, RECEIPT_METRIC};
use proto::sparkplug::encode::{self, BirthMetric};
use proto::sparkplug::{BirthHead, EpochAccount, RecordHead};

/// Device that the load speaks for.
pub const DEVICE: &str = "load";

/// Time between two records.
const STEP_MICROS: i64 = 10;

/// Makes record after record of one epoch.
#[derive(Debug)]
pub struct Records {
    points: Vec<PointDefinition>,
    hashes: Vec<u64>,
    epoch: Epoch,
    next: u64,
    account: Account,
    seq: u8,
    now: Timestamp,
    last: Option<(SampleBatch, RecordHead)>,
}

impl Records {
    /// Records of `metrics` doubles each.
    #[must_use]
    pub fn new(metrics: usize) -> Records {
        let points: Vec<PointDefinition> = (0..metrics).filter_map(point).collect();
        let hashes = points.iter().map(|point| path_hash(point.path.as_str())).collect();
        let epoch = getrandom::u64().ok().and_then(Epoch::from_random).unwrap_or(Epoch(1));
        // Millions of records at STEP_MICROS each reach from here to about now.
        let now = Timestamp(runtime::clock::Clock::machine().now().0 - 30_000_000);
        Records { points, hashes, epoch, next: 0, account: Account::default(), seq: 0, now, last: None }
    }

    /// The epoch of every record.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Offset that the next record will have.
    #[must_use]
    pub const fn next_offset(&self) -> u64 {
        self.next
    }

    /// The newest record.
    ///
    /// # Panics
    /// Before the first one was made.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a bench that asks too early is wrong")]
    pub fn last(&self) -> (SampleBatch, RecordHead) {
        self.last.clone().expect("a record was made")
    }

    /// NBIRTH, then DBIRTH: topic kind and payload.
    pub fn births(&mut self) -> (Vec<u8>, Vec<u8>) {
        let none = |name, data_type| BirthMetric {
            name,
            alias: None,
            data_type,
            value: None,
            time: self.now,
            quality: Quality::GOOD,
            definition: None,
        };
        let (bd_seq, rebirth) = (Value::Int64(0), Value::Boolean(false));
        let node = [
            BirthMetric { value: Some(&bd_seq), ..none("bdSeq", DataType::Int64) },
            BirthMetric { value: Some(&rebirth), ..none("Node Control/Rebirth", DataType::Boolean) },
            none(RECEIPT_METRIC, DataType::Bytes),
            BirthMetric { alias: Some(u64::from(u32::MAX)), ..none(COMMAND_REPORT_METRIC, DataType::Bytes) },
        ];
        let nothing = Account::default();
        let head = BirthHead {
            epochs: vec![EpochAccount {
                epoch: self.epoch,
                first_held: 0,
                end: 0,
                before: nothing,
                total: nothing,
            }],
            agent_time: self.now,
            version: "bench".into(),
            outbox_used: None,
        };
        let (mut nbirth, mut dbirth) = (Vec::new(), Vec::new());
        encode::birth(0, self.now, &node, Some(&head), &mut nbirth);
        let zero = Value::Double(0.0);
        let metrics: Vec<BirthMetric<'_>> = self
            .points
            .iter()
            .zip(0_u64..)
            .map(|(point, alias)| BirthMetric {
                alias: Some(alias),
                value: Some(&zero),
                definition: Some(point),
                ..none(&point.metric, DataType::Double)
            })
            .collect();
        encode::birth(1, self.now, &metrics, None, &mut dbirth);
        self.seq = 1;
        (nbirth, dbirth)
    }

    /// Makes the next record and appends its payload.
    pub fn encode_next(&mut self, out: &mut Vec<u8>) {
        self.now = Timestamp(self.now.0 + STEP_MICROS);
        let offset = Offset(self.next);
        let wave = (self.next % 1000) as f64;
        let samples: Vec<Sample> = (0_u32..)
            .zip(&self.points)
            .map(|(id, _)| Sample {
                point: PointId(id),
                time: self.now,
                value: Some(Value::Double((wave * 0.1 + f64::from(id)).round() / 10.0)),
                quality: Quality::GOOD,
            })
            .collect();
        for ((sample, hash), index) in samples.iter().zip(&self.hashes).zip(0..) {
            self.account.add(sample_hash(
                offset,
                index,
                *hash,
                sample.time,
                sample.value.as_ref(),
                sample.quality,
            ));
        }
        let id = RecordId { epoch: self.epoch, offset };
        let batch = SampleBatch { id, accepted_at: self.now, is_historical: false, samples };
        self.next += 1;
        self.seq = self.seq.wrapping_add(1);
        let head = RecordHead {
            id,
            first_held: 0,
            accepted_end: self.next,
            accepted_at: self.now,
            account: Some(self.account),
            counts: None,
        };
        let alias = |point: PointId| u64::from(point.0);
        encode::data(self.seq, self.now, &batch, &head, false, &|_| false, &alias, out);
        self.last = Some((batch, head));
    }
}

fn point(number: usize) -> Option<PointDefinition> {
    Some(PointDefinition {
        device: Some(DEVICE.to_owned()),
        ..PointDefinition::new(
            PointPath::new(&format!("bench/line-{}/point-{number}", number % 10)).ok()?,
            format!("point-{number}"),
            DataType::Double,
        )
    })
}
