//! Order, bounds and days of a batch.

use model::limits::RECORD_DAYS_MAX;
use model::{Epoch, NodeId, Offset, PointDefinition, PointPath, RecordId, Sample};
use proto::log_record::CatalogueEntry;

use super::*;

const START: i64 = 1_795_327_200_000_000;
const DAY_US: i64 = 86_400_000_000;

fn catalogue(paths: &[&str]) -> Catalogue {
    let mut entries = vec![CatalogueEntry::Agent { id: AgentId(3), node: NodeId::new("g", "n").unwrap() }];
    for (id, path) in (0u32..).zip(paths) {
        let definition =
            PointDefinition::new(PointPath::new(path).unwrap(), (*path).to_owned(), DataType::Double);
        entries.push(CatalogueEntry::Point { id: PointId(id), agent: AgentId(3), definition });
    }
    let mut catalogue = Catalogue::default();
    catalogue.apply(entries, 9).unwrap();
    catalogue
}

fn record(offset: u64, samples: &[(u32, i64)]) -> SampleBatch {
    let samples = samples.iter().map(|(point, time)| Sample {
        point: PointId(*point),
        time: Timestamp(*time),
        value: Some(Value::Double(0.5)),
        quality: Quality::GOOD,
    });
    SampleBatch {
        id: RecordId { epoch: Epoch(1), offset: Offset(offset) },
        accepted_at: Timestamp(START),
        is_historical: false,
        samples: samples.collect(),
    }
}

fn span(end: u64) -> Span {
    Span { epoch: Epoch(2), positions: 0..end }
}

#[test]
fn rows_are_sorted_by_path_then_time_then_arrival() {
    let catalogue = catalogue(&["z", "a", "m"]);
    let mut builder = BatchBuilder::new();
    let records = [
        record(0, &[(0, START + 5), (1, START + 9), (0, START + 5)]),
        record(1, &[(1, START + 2), (2, START), (0, START + 1)]),
    ];
    for record in &records {
        builder.push(AgentId(3), record, &catalogue).unwrap();
    }
    let batch = builder.finish("site", span(2));
    let [day] = batch.days() else { panic!("one day") };
    let rows: Vec<_> = day
        .order()
        .iter()
        .map(|row| {
            let row = batch.row(*row);
            (&*batch.points()[row.point as usize].path, row.time - START, row.record.offset, row.index)
        })
        .collect();
    assert_eq!(
        rows,
        [("a", 2, 1, 0), ("a", 9, 0, 1), ("m", 0, 1, 1), ("z", 1, 1, 2), ("z", 5, 0, 0), ("z", 5, 0, 2)]
    );
}

#[test]
fn a_commit_has_at_most_64_days_however_many_records() {
    let catalogue = catalogue(&["a"]);
    let mut builder = BatchBuilder::new();
    let days = |first: i64| -> Vec<(u32, i64)> {
        (first..first + RECORD_DAYS_MAX).map(|day| (0, START - day * DAY_US)).collect()
    };
    for nth in 0..4 {
        let record = record(0, &days(nth * RECORD_DAYS_MAX));
        assert!(builder.has_room_for(&record));
        builder.push(AgentId(3), &record, &catalogue).unwrap();
    }
    assert!(builder.has_room_for(&record(9, &days(10))), "days that it has already");
    assert!(!builder.has_room_for(&record(9, &[(0, START - 64 * DAY_US)])));
    let batch = builder.finish("site", span(4));
    assert_eq!(batch.days().len(), COMMIT_DAYS_MAX);
    assert!(batch.days().is_sorted_by_key(|day| day.day));
    assert_eq!(batch.order_over_days().len(), batch.rows());
}

#[test]
fn what_the_catalogue_does_not_know_leaves_the_batch_as_it_was() {
    let catalogue = catalogue(&["a"]);
    let mut builder = BatchBuilder::new();
    let unknown = builder.push(AgentId(3), &record(0, &[(0, START), (7, START)]), &catalogue);
    assert_eq!(unknown, Err(RecordProblem::UnknownPoint(PointId(7))));
    let unknown = builder.push(AgentId(4), &record(0, &[(0, START)]), &catalogue);
    assert_eq!(unknown, Err(RecordProblem::UnknownAgent(AgentId(4))));
    assert_eq!(builder.rows(), 0);
    builder.push(AgentId(3), &record(0, &[(0, START)]), &catalogue).unwrap();
    assert_eq!(builder.finish("site", span(1)).rows(), 1);
}

#[test]
fn implausible_times_take_the_day_of_arrival() {
    assert_eq!(day_of(START, START + 3 * DAY_US), 20_779);
    assert_eq!(day_of(0, START), 20_779);
    assert_eq!(day_of(i64::MAX, START), 20_779);
    assert_eq!(day_of(Timestamp::PLAUSIBLE_MIN.0, START), 7305);
    assert_eq!(day_of(0, 0), 0);
    assert_eq!(day_of(i64::MIN, i64::MAX), 0);
}
