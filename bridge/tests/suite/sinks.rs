//! Both sinks keep the contract, and each its own rules.

use std::path::Path;

use bridge::cursor::Cursor;
use bridge::scan::scan;
use bridge::sink_conformance::{FIRST, batch, conforms, plain, plant_log};
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::parquet::ParquetSink;
use bridge::sinks::{Sink, SinkError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delta_conforms() {
    conforms(&|path| Box::new(DeltaSink::new(path.to_owned()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_conforms() {
    conforms(&|path| Box::new(ParquetSink::new(path.to_owned()))).await;
}

fn data_files(table: &Path) -> usize {
    let days = std::fs::read_dir(table).unwrap().map(|day| day.unwrap().path()).filter(|day| day.is_dir());
    days.filter(|day| !day.ends_with("_delta_log")).map(|day| std::fs::read_dir(day).unwrap().count()).sum()
}

/// While the table's log cannot be written, every attempt stages files; they must not pile up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_failed_commits_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path();
    let (log, aside) = (table.join("_delta_log"), table.join("_aside"));
    let plant = plant_log(&[(FIRST, 0)], 100);
    let mut sink = DeltaSink::new(table.to_owned());
    for end in 3..9 {
        sink.open("lake", &plant).await.unwrap();
        sink.write(batch(FIRST, 0..end, &plain(0..end))).await.unwrap();
        std::fs::rename(&log, &aside).unwrap();
        std::fs::write(&log, "in the way").unwrap();
        let failure = sink.commit(Cursor { epoch: Some(FIRST), position: end }).await.unwrap_err();
        assert!(matches!(failure, SinkError::Unavailable { .. }), "{failure:?}");
        std::fs::remove_file(&log).unwrap();
        std::fs::rename(&aside, &log).unwrap();
        assert_eq!(data_files(table), 1);
    }
    sink.open("lake", &plant).await.unwrap();
    assert_eq!(data_files(table), 0);
}

/// Somebody else's commits in the same table come between ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_table_all_get_through() {
    let folder = tempfile::tempdir().unwrap();
    let plant = plant_log(&[(FIRST, 0)], 1000);
    let mut writers = tokio::task::JoinSet::new();
    for nth in 0..4u64 {
        let (table, plant) = (folder.path().to_owned(), plant.clone());
        writers.spawn(async move {
            let mut sink = DeltaSink::new(table);
            let name = format!("sink-{nth}");
            sink.open(&name, &plant).await.unwrap();
            for turn in 0..10u64 {
                let start = nth * 100 + turn * 10;
                let span = start..start + 10;
                sink.write(batch(FIRST, span.clone(), &plain(span.clone()))).await.unwrap();
                sink.commit(Cursor { epoch: Some(FIRST), position: span.end }).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let table = scan(folder.path().to_owned()).await.unwrap();
    let rows = table.epochs.values().next().unwrap();
    assert_eq!((table.rows, rows.duplicates, rows.offsets.count()), (1200, 0, 400));
    assert_eq!(table.version, Some(40));
}

/// A table that somebody else made is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("_delta_log");
    std::fs::create_dir(&log).unwrap();
    let schema = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"path\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}"#;
    let actions = [
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#.to_owned(),
        format!(
            r#"{{"metaData":{{"id":"x","format":{{"provider":"parquet","options":{{}}}},"schemaString":"{schema}","partitionColumns":[],"configuration":{{}},"createdTime":1}}}}"#
        ),
    ];
    std::fs::write(log.join("00000000000000000000.json"), actions.join("\n")).unwrap();
    let mut sink = DeltaSink::new(folder.path().to_owned());
    let refused = sink.open("lake", &plant_log(&[(FIRST, 0)], 10)).await.unwrap_err();
    assert!(matches!(&refused, SinkError::Unfit(why) if why.contains("column path")), "{refused:?}");
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), 1);
}

/// A copied file would count its rows twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_files_of_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plant = plant_log(&[(FIRST, 0)], 100);
    let mut sink = ParquetSink::new(folder.path().to_owned());
    for (name, span) in [("lake", 0..5), ("lake", 5..9)] {
        sink.open(name, &plant).await.unwrap();
        sink.write(batch(FIRST, span.clone(), &plain(span.clone()))).await.unwrap();
        sink.commit(Cursor { epoch: Some(FIRST), position: span.end }).await.unwrap();
    }
    let name = |start: u64, end: u64| {
        folder.path().join(format!("hub_2d_c3_bc_2f1.lake-{FIRST}-{start:020}-{end:020}.parquet"))
    };
    std::fs::copy(name(5, 9), name(4, 8)).unwrap();
    assert!(matches!(sink.open("lake", &plant).await, Err(SinkError::Unfit(_))));
    let table = scan(folder.path().to_owned()).await.unwrap();
    assert_eq!(table.epochs.values().next().unwrap().duplicates, 12);
}
