//! Files that are read when they are finished, and what becomes of them then.

use std::collections::BTreeSet;

use super::*;

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_file_is_read_when_it_has_not_changed_for_a_while() {
    let mut plant = Plant::new("mode = \"whole\"\nfinished_age = \"300ms\"\nwatch = \"poll\"");
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 2)));
    for n in 2..5 {
        assert!(plant.read_on(driver.as_mut()).await.0.is_empty(), "it still grows");
        tokio::time::sleep(Duration::from_millis(150)).await;
        plant.append("a.csv", rows(n, 1));
    }
    plant.append("a.csv", rows(5, 1).trim_end());
    assert!(plant.read_on(driver.as_mut()).await.0.is_empty());
    tokio::time::sleep(Duration::from_millis(350)).await;
    let (seen, quarantined) = plant.read_on(driver.as_mut()).await;
    assert_eq!(
        (values(&seen).collect::<Vec<_>>(), quarantined),
        (numbers(0, 6), 0),
        "its last line has no end"
    );
    assert!(plant.read_on(driver.as_mut()).await.0.is_empty());
}

#[tokio::test]
async fn a_marker_or_a_name_says_that_a_file_is_finished() {
    let mut plant =
        Plant::new("mode = \"whole\"\nfinished_marker = \".ok\"\nafter = \"delete\"\nwatch = \"poll\"");
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 3)));
    plant.append("b.csv", format!("{HEADER}{}", rows(3, 3)));
    assert!(plant.read_on(driver.as_mut()).await.0.is_empty());
    plant.append("b.csv.ok", "");
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(3, 3));
    assert_eq!(names(&plant.folder()), set(&["a.csv"]), "marker and file go");
    driver.close().await;
    let mut plant = Plant::new("mode = \"whole\"\nfinished = \"rename\"");
    plant.append("a.part", format!("{HEADER}{}", rows(0, 3)));
    assert!(plant.run().await.0.is_empty());
    fs::rename(plant.folder().join("a.part"), plant.folder().join("a.csv")).unwrap();
    assert_eq!(plant.run().await.0, numbers(0, 3));
}

#[tokio::test]
async fn a_file_moves_only_when_its_readings_are_on_disk() {
    let mut plant =
        Plant::new("mode = \"whole\"\nfinished = \"rename\"\nafter = \"move\"\nmove_to = \"old/done\"");
    let done = plant.folder().join("old/done");
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 3)));
    plant.append("bad.csv", "zeit,x\n1,2\n");
    // Read, but nobody stored it: it stays.
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    let mut readings = Readings::default();
    driver.read(&mut readings).await.unwrap();
    let position = readings.position.unwrap();
    driver.close().await;
    assert_eq!((names(&plant.folder()), readings.list.len()), (set(&["a.csv", "bad.csv"]), 6));
    // Not stored after all: read again. Stored, but the process ended before it moved: it moves now.
    assert_eq!(plant.run().await.0, numbers(0, 3));
    assert_eq!((names(&plant.folder()), names(&done)), (set(&["bad.csv", "old"]), set(&["a.csv"])));
    fs::rename(done.join("a.csv"), plant.folder().join("a.csv")).unwrap();
    plant.position = Some(position);
    assert_eq!(plant.run().await.0, numbers(0, 0));
    assert_eq!(names(&done), set(&["a.csv"]));
    // Another of the same name, and the same content under another name.
    plant.append("a.csv", format!("{HEADER}{}", rows(10, 2)));
    plant.append("c.csv", format!("{HEADER}{}", rows(0, 3)));
    assert_eq!(plant.run().await.0, numbers(10, 2));
    assert_eq!(names(&done), set(&["a.csv", "a-1.csv", "c.csv"]));
    assert_eq!(fs::read_to_string(done.join("a-1.csv")).unwrap(), format!("{HEADER}{}", rows(10, 2)));
    // A file that is unreadable as a whole is nobody's to move.
    assert_eq!(names(&plant.folder()), set(&["bad.csv", "old"]));
}

const STATUS: &str =
    "mode = \"whole\"\nfinished = \"rename\"\nformat = \"json\"\npattern = \"*.json\"\ntime = \"t\"";

fn status(n: usize) -> String {
    // Long, and different in one place far from every print.
    let filler = "x".repeat(9000);
    format!("{{\"u\":\"{filler}\",\"a\":{n},\"t\":\"2026-11-22T06:00:00Z\",\"v\":\"{filler}\"}}")
}

#[tokio::test]
async fn a_document_written_anew_is_read_anew() {
    let mut plant = Plant::new(STATUS);
    for n in 10..14 {
        fs::write(plant.folder().join("s.json"), status(n)).unwrap();
        assert_eq!(plant.run().await, (numbers(n, 1), 0));
        assert_eq!(plant.run().await, (Vec::new(), 0));
        // A file system's clock ticks every 4 ms or so: of one size and one time it would be the same file.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        // The same again, with another time of change or another name.
        fs::write(plant.folder().join("s.json"), status(n)).unwrap();
        fs::write(plant.folder().join("copy.json"), status(n)).unwrap();
        assert_eq!(plant.run().await, (Vec::new(), 0));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fs::write(plant.folder().join("s.json"), "{\"a\":").unwrap();
    assert_eq!(plant.run().await, (Vec::new(), 1));
    assert_eq!(plant.run().await, (Vec::new(), 0), "noted once");
    fs::write(plant.folder().join("s.json"), status(20)).unwrap();
    assert_eq!(plant.run().await, (numbers(20, 1), 0));
}

#[tokio::test]
async fn a_document_with_more_than_one_lot_is_cut_between_records() {
    let mut plant = Plant::new(STATUS);
    let record = |n: usize| {
        if n == 7 { "{\"a\":7}".into() } else { format!("{{\"t\":\"2026-11-22T06:00:00Z\",\"b\":{n}}}") }
    };
    let records: Vec<String> = (0..5_000).map(record).collect();
    fs::write(plant.folder().join("s.json"), format!("[{}]", records.join(","))).unwrap();
    // Each lot by a driver of its own, as if the process ended after each.
    plant.points = vec![point("b", DataType::Int32); 10];
    let (mut seen, mut lots, mut bad) = (Vec::new(), 0, 0);
    loop {
        let mut driver = plant.candidate().driver();
        driver.open(plant.position.as_deref()).await.unwrap();
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        driver.close().await;
        assert!(readings.list.len() <= READINGS_MAX);
        let Some(position) = readings.position else { break };
        plant.position = Some(position);
        (lots, bad) = (lots + 1, bad + readings.quarantined);
        seen.extend(values(&readings.list));
    }
    let mut expected = numbers(0, 5_000);
    expected.remove(7);
    assert_eq!((seen, lots, bad), (expected, 3, 1));
    let entry = &plant.quarantine()[0];
    assert!(entry["reason"].as_str().unwrap().starts_with("record 8: time \"\""), "{entry}");
}

#[test]
fn what_needs_the_whole_file_says_so() {
    let plant =
        Plant::new("format = \"json\"\ntime_from = \"modified\"\nafter = \"move\"\nfinished = \"age\"");
    let candidate = plant.candidate();
    let problems = validated(&KIND, &candidate.text, &candidate.setup).err().unwrap();
    let found: Vec<&str> = problems.list.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(found, ["mode", "finished", "after", "time_from"]);
    let candidate =
        Candidate { text: candidate.text.replace("finished", "mode = \"growing\"\n# "), ..candidate };
    let problems = validated(&KIND, &candidate.text, &candidate.setup).err().unwrap();
    assert!(problems.list[0].to_string().contains("this format can be read when the file is finished"));
}
