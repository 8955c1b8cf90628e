//! Folders with very many files, and files that come again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::super::place::{Facts, Source};
use super::*;

/// As many as the issue asks for.
const FILES: usize = 100_000;

#[tokio::test]
async fn an_archive_of_100_000_files_is_read_once_and_then_costs_little() {
    let mut plant = Plant::new("watch = \"poll\"");
    for n in 0..FILES {
        fs::write(plant.folder().join(format!("{n:06}.csv")), format!("{HEADER}{}", row(n))).unwrap();
    }
    let began = Instant::now();
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    let (seen, quarantined) = plant.read_on(driver.as_mut()).await;
    let all: Vec<f64> = values(&seen).collect();
    assert!(all == numbers(0, FILES) && quarantined == 0, "{} readings", all.len());
    eprintln!("first reading of {FILES} files: {:?}", began.elapsed());
    driver.close().await;
    // Polls of a place that counts what is opened.
    let opened = Arc::new(AtomicUsize::new(0));
    let (settings, position, counts) = (settings(&plant), plant.position.clone(), Arc::clone(&opened));
    let polls = move || {
        let place =
            Counting { folder: Local::new(&plant_folder(&settings), None), opened: Arc::clone(&counts) };
        let mut reader = Reader::open(&settings, Box::new(place), position.as_deref()).unwrap();
        while reader.read(&mut Readings::default()).unwrap() == NextRead::AtOnce {}
        assert_eq!(counts.swap(0, Ordering::Relaxed), FILES, "each file is looked into once after a start");
        let (began, cpu) = (Instant::now(), cpu_ms());
        for _ in 0..5 {
            let mut readings = Readings::default();
            assert_eq!(reader.read(&mut readings).unwrap(), NextRead::OnSchedule);
            assert!(readings.list.is_empty() && readings.position.is_none());
        }
        (began.elapsed() / 5, (cpu_ms() - cpu) / 5)
    };
    let (per_poll, cpu) = tokio::task::spawn_blocking(polls).await.unwrap();
    eprintln!("poll of {FILES} unchanged files: {per_poll:?}, {cpu} ms of CPU with what else runs");
    assert_eq!(opened.load(Ordering::Relaxed), 0, "contents are read again");
    // After a restart nothing is new, and one file that grows is found among the others.
    let began = Instant::now();
    plant.append("050000.csv", row(FILES));
    assert_eq!(plant.run().await.0, numbers(FILES, 1));
    eprintln!("restart with {FILES} known files: {:?}", began.elapsed());
    // With a watch, a poll does not list the folder.
    plant.keys = String::new();
    let mut driver = plant.candidate().driver();
    driver.open(plant.position.as_deref()).await.unwrap();
    plant.read_on(driver.as_mut()).await;
    let began = Instant::now();
    assert!(plant.read_on(driver.as_mut()).await.0.is_empty());
    let unwatched = began.elapsed();
    plant.append("000007.csv", row(FILES + 1));
    driver.ready().await;
    let began = Instant::now();
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(FILES + 1, 1));
    eprintln!("watched: poll of unchanged files {unwatched:?}, with one changed {:?}", began.elapsed());
    driver.close().await;
}

/// CPU time of this process, in steps of 10 ms.
fn cpu_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// A folder that counts the files that are opened.
#[derive(Debug)]
struct Counting {
    folder: Local,
    opened: Arc<AtomicUsize>,
}

impl Place for Counting {
    fn open(&mut self) -> Result<(), DriverError> {
        self.folder.open()
    }

    fn list(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Facts)>, DriverError> {
        self.folder.list(wanted)
    }

    fn facts(&mut self, name: &str) -> std::io::Result<Facts> {
        self.folder.facts(name)
    }

    fn file(&mut self, name: &str) -> std::io::Result<(Box<dyn Source>, Facts)> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.folder.file(name)
    }

    fn shift(&mut self, name: &str, folder: &str) -> std::io::Result<String> {
        self.folder.shift(name, folder)
    }

    fn remove(&mut self, name: &str) -> std::io::Result<()> {
        self.folder.remove(name)
    }
}

fn settings(plant: &Plant) -> Settings {
    let candidate = plant.candidate();
    let file = runtime::config_file::ConfigFile::from_text(Path::new("x.toml"), candidate.text);
    let mut problems = Problems::default();
    let mut section = file.parse(&mut problems);
    super::super::settings::validate(&mut section, &candidate.setup, &mut problems).unwrap()
}

fn plant_folder(settings: &Settings) -> std::path::PathBuf {
    match &settings.place {
        Where::Folder(folder, _) => folder.clone(),
        Where::Remote(_) => panic!("a folder of this machine"),
    }
}

#[tokio::test]
async fn a_file_that_was_read_adds_nothing_when_it_is_wished_for_again() {
    let mut plant = Plant::new("");
    let state = plant.root.path().join("state");
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 300)));
    assert_eq!(plant.run().await.0, numbers(0, 300));
    let archive = plant.root.path().join("archive.csv");
    fs::write(&archive, format!("{HEADER}{}", rows(0, 305))).unwrap();
    again::wish(&state, "*.csv").unwrap();
    assert_eq!(plant.run().await, (Vec::new(), 0));
    again::wish(&state, &archive.display().to_string()).unwrap();
    again::wish(&state, "/no/such/file.csv").unwrap();
    assert!(again::waits(&state));
    assert_eq!(plant.run().await.0, numbers(300, 5), "what the archive has more than the folder");
    assert!(!again::waits(&state));
    again::wish(&state, &archive.display().to_string()).unwrap();
    assert_eq!(plant.run().await, (Vec::new(), 0));
    // The folder's file grows by what came from the archive, and by more.
    plant.append("a.csv", rows(300, 6));
    assert_eq!(plant.run().await.0, numbers(305, 1));
}

#[tokio::test]
async fn logs_that_are_rotated_bring_every_line_once() {
    // By rename, with lines written to the old file after it has its new name.
    let mut plant = Plant::new("pattern = \"log*\"\nwatch = \"poll\"");
    let at = |plant: &Plant, name: &str| plant.folder().join(name);
    plant.append("log", format!("{HEADER}{}", rows(0, 1000)));
    assert_eq!(plant.run().await.0, numbers(0, 1000));
    plant.append("log", rows(1000, 10));
    fs::rename(at(&plant, "log"), at(&plant, "log.1")).unwrap();
    plant.append("log", format!("{HEADER}{}", rows(1020, 5)));
    plant.append("log.1", rows(1010, 10));
    let mut seen = plant.run().await.0;
    seen.sort_by(f64::total_cmp);
    assert_eq!(seen, numbers(1000, 25));
    // By copying and cutting: nothing is written in between, as logrotate asks for.
    plant.append("log", rows(1025, 500));
    fs::copy(at(&plant, "log"), at(&plant, "log.2")).unwrap();
    fs::write(at(&plant, "log"), "").unwrap();
    assert_eq!(plant.run().await.0, numbers(1025, 500));
    plant.append("log", format!("{HEADER}{}", rows(1525, 3)));
    assert_eq!(plant.run().await.0, numbers(1525, 3));
    // The same while the driver runs.
    let mut driver = plant.candidate().driver();
    driver.open(plant.position.as_deref()).await.unwrap();
    assert!(plant.read_on(driver.as_mut()).await.0.is_empty());
    plant.append("log", rows(1528, 100));
    assert_eq!(plant.read_on(driver.as_mut()).await.0.len(), 200);
    fs::copy(at(&plant, "log"), at(&plant, "log.3")).unwrap();
    fs::write(at(&plant, "log"), format!("{HEADER}{}", rows(1628, 1))).unwrap();
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(1628, 1));
    driver.close().await;
}

#[tokio::test]
async fn many_files_with_the_same_long_header_are_told_apart_quickly() {
    let mut plant = Plant::new("watch = \"poll\"");
    let columns: String = (0..300).map(|n| format!(",column {n}")).collect();
    let text = |n: usize| {
        format!("timestamp,a,b{columns}\n{}", row(n).replace('\n', &format!("{}\n", ",".repeat(300))))
    };
    let write = |plant: &Plant, from: usize, to: usize| {
        for n in from..to {
            plant.append(&format!("{n:05}.csv"), text(n));
        }
    };
    write(&plant, 0, 500);
    let began = Instant::now();
    assert_eq!(plant.run().await.0, numbers(0, 500));
    let first = began.elapsed();
    write(&plant, 500, 4500);
    assert_eq!(plant.run().await.0, numbers(500, 4000));
    write(&plant, 4500, 5000);
    let mut driver = plant.candidate().driver();
    driver.open(plant.position.as_deref()).await.unwrap();
    let began = Instant::now();
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(4500, 500));
    eprintln!("500 files with a header of 3 KiB: {first:?}, beside 4500 others {:?}", began.elapsed());
}
