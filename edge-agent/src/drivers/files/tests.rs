//! The driver on real folders: growth, restarts, copies, names, damage.

use std::fs;
use std::io::Write;
use std::path::Path;

use model::DataType;
use proptest::prelude::*;
use runtime::clock::Clock;
use tempfile::TempDir;

use super::pattern::Pattern;
use super::*;
use crate::driver_conformance::{self as conformance, Candidate, point, validated};
use crate::drivers::READINGS_MAX;

mod archive;
mod finished;
mod formats;
mod preview;
mod servers;
mod watched;

/// A folder with files, a state folder and the newest stored position: what outlives a process.
struct Plant {
    root: TempDir,
    /// The keys that say where the files are; empty: the folder.
    place: String,
    keys: String,
    points: Vec<crate::points::PointConfig>,
    position: Option<Vec<u8>>,
}

impl Plant {
    fn new(keys: &str) -> Plant {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("in")).unwrap();
        let points = vec![point("a", DataType::Double), point("b", DataType::Int32)];
        Plant { root, place: String::new(), keys: keys.to_owned(), points, position: None }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.root.path().join("in")
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(self.folder().join(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn candidate(&self) -> Candidate {
        let points = self.points.clone();
        let place = match self.place.as_str() {
            "" => format!("folder = {:?}", self.folder().display().to_string()),
            place => place.to_owned(),
        };
        Candidate {
            driver: KIND.name,
            text: format!("{place}\n{}", self.keys),
            setup: conformance::setup(points, Clock::machine(), self.root.path().join("state")),
        }
    }

    /// Starts a driver, reads to the end, stops: the values of `a`, and how much went to the quarantine.
    async fn run(&mut self) -> (Vec<f64>, u64) {
        let (readings, quarantined) = self.run_all().await;
        (values(&readings).collect(), quarantined)
    }

    /// The same, with all readings.
    async fn run_all(&mut self) -> (Vec<Reading>, u64) {
        let mut driver = self.candidate().driver();
        driver.open(self.position.as_deref()).await.unwrap();
        let seen = self.read_on(driver.as_mut()).await;
        driver.close().await;
        seen
    }

    /// Reads until nothing is left.
    async fn read_on(&mut self, driver: &mut dyn Driver) -> (Vec<Reading>, u64) {
        let mut seen = Vec::new();
        let mut quarantined = 0;
        loop {
            let mut readings = Readings::default();
            let next = driver.read(&mut readings).await.unwrap();
            seen.append(&mut readings.list);
            quarantined += readings.quarantined;
            if let Some(position) = readings.position {
                driver.acknowledge(&position).await.unwrap();
                self.position = Some(position);
            }
            if next == NextRead::OnSchedule {
                return (seen, quarantined);
            }
        }
    }

    fn quarantine(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.root.path().join("state/quarantine.ndjson")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const HEADER: &str = "timestamp,a,b\n";

/// Rows whose `a` counts from `from`.
fn rows(from: usize, count: usize) -> String {
    (from..from + count).map(row).collect()
}

fn row(n: usize) -> String {
    format!("2026-11-22T06:{:02}:{:02}.{:03}Z,{n},{}\n", n / 60_000 % 60, n / 1000 % 60, n % 1000, n % 7)
}

fn numbers(from: usize, count: usize) -> Vec<f64> {
    (from..from + count).map(|n| f64::from(u32::try_from(n).unwrap())).collect()
}

#[tokio::test]
async fn a_growing_file_is_read_once_by_whole_lines() {
    let mut plant = Plant::new("");
    plant.append("x.csv", "timestamp,a");
    assert_eq!(plant.run().await.0, numbers(0, 0));
    plant.append("x.csv", format!(",b\n{}", rows(0, 3)));
    assert_eq!(plant.run().await.0, numbers(0, 3));
    assert_eq!(plant.run().await.0, numbers(0, 0));
    let (head, tail) = (row(3), row(4));
    plant.append("x.csv", &head[..10]);
    assert_eq!(plant.run().await.0, numbers(0, 0));
    plant.append("x.csv", format!("{}{tail}", &head[10..]));
    assert_eq!(plant.run().await.0, numbers(3, 2));
}

#[tokio::test]
async fn files_go_in_order_of_their_names_and_others_are_left_alone() {
    let mut plant = Plant::new("pattern = \"m?-*.csv\"");
    for (name, from) in
        [("m1-b.csv", 10), ("m1-a.csv", 0), ("m2-.csv", 20), ("other.csv", 90), ("m1-c.txt", 90)]
    {
        plant.append(name, format!("{HEADER}{}", rows(from, 10)));
    }
    fs::create_dir(plant.folder().join("m3-folder.csv")).unwrap();
    assert_eq!(plant.run().await.0, numbers(0, 30));
}

#[tokio::test]
async fn a_copy_or_another_name_brings_only_what_is_missing() {
    for count in [5, 200, 20_000] {
        let mut plant = Plant::new("");
        plant.append("a.csv", format!("{HEADER}{}", rows(0, count)));
        assert_eq!(plant.run().await.0, numbers(0, count));
        let at = |name: &str| plant.folder().join(name);
        fs::rename(at("a.csv"), at("b.csv")).unwrap();
        fs::copy(at("b.csv"), at("c.csv")).unwrap();
        assert_eq!(plant.run().await.0, numbers(0, 0));
        plant.append("c.csv", rows(count, 4));
        assert_eq!(plant.run().await.0, numbers(count, 4));
        // Gone, and put back later with more in it.
        let backup = fs::read(plant.folder().join("c.csv")).unwrap();
        fs::remove_file(plant.folder().join("b.csv")).unwrap();
        fs::remove_file(plant.folder().join("c.csv")).unwrap();
        assert_eq!(plant.run().await.0, numbers(0, 0));
        plant.append("d.csv", &backup);
        plant.append("d.csv", rows(count + 4, 2));
        assert_eq!(plant.run().await.0, numbers(count + 4, 2));
    }
}

#[tokio::test]
async fn a_copy_under_way_and_an_old_state_bring_nothing_new() {
    let mut plant = Plant::new("");
    let whole = format!("{HEADER}{}", rows(0, 5000));
    plant.append("a.csv", &whole);
    assert_eq!(plant.run().await.0, numbers(0, 5000));
    fs::remove_file(plant.folder().join("a.csv")).unwrap();
    plant.append("b.csv", &whole[..100_003]);
    assert_eq!(plant.run().await.0, numbers(0, 0));
    plant.append("b.csv", &whole[100_003..]);
    assert_eq!(plant.run().await.0, numbers(0, 0));
    plant.append("b.csv", rows(5000, 1));
    assert_eq!(plant.run().await.0, numbers(5000, 1));
}

#[tokio::test]
async fn a_file_cut_or_written_anew_is_read_again_from_where_it_is_new() {
    let mut plant = Plant::new("");
    let path = plant.folder().join("a.csv");
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 500)));
    assert_eq!(plant.run().await.0, numbers(0, 500));
    fs::write(&path, format!("{HEADER}{}", rows(1000, 3))).unwrap();
    assert_eq!(plant.run().await.0, numbers(1000, 3));
    fs::write(&path, format!("{HEADER}{}", rows(2000, 500))).unwrap();
    assert_eq!(plant.run().await.0, numbers(2000, 500));
    // Same length, other content.
    fs::write(&path, format!("{HEADER}{}", rows(3000, 500))).unwrap();
    assert_eq!(plant.run().await.0, numbers(3000, 500));
    // Cut back to its beginning, and going on otherwise.
    let text = format!("{HEADER}{}", rows(3000, 300));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(text.len() as u64 + 5).unwrap();
    assert_eq!(plant.run().await.0, numbers(0, 0));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(text.len() as u64).unwrap();
    let mut driver = plant.candidate().driver();
    driver.open(plant.position.as_deref()).await.unwrap();
    let mut seen = Vec::new();
    for pause in [0, 300] {
        let mut readings = Readings::default();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(driver.read(&mut readings).await.unwrap(), NextRead::OnSchedule);
        plant.append("a.csv", rows(4000, 2));
        driver.read(&mut readings).await.unwrap();
        seen.extend(values(&readings.list));
    }
    assert_eq!(seen, [numbers(4000, 2), numbers(4000, 2)].concat());
}

#[tokio::test]
async fn files_with_the_same_long_header_are_not_the_same() {
    let mut plant = Plant::new("");
    let columns: String = (0..300).map(|n| format!(",column {n}")).collect();
    let empty = ",".repeat(300);
    let text = |n: usize| format!("timestamp,a,b{columns}\n{}", row(n).replace('\n', &format!("{empty}\n")));
    assert!(text(0).find('\n').unwrap() > 2048);
    for n in 0..20 {
        plant.append(&format!("batch-{n:02}.csv"), text(n));
        if n % 3 == 0 {
            plant.run().await;
        }
    }
    let (seen, quarantined) = plant.run().await;
    assert_eq!((seen, quarantined), (numbers(19, 1), 0));
}

#[tokio::test]
async fn what_cannot_be_understood_is_kept_with_its_reason() {
    let mut plant = Plant::new("");
    plant.append("a.csv", "\u{feff}timestamp,a,b\r\n");
    plant.append("a.csv", "2026-11-22T06:00:00Z,1,1\r\n\r\nyesterday,2,2\r\n2026-11-22T06:00:01Z,3\r\n");
    plant.append("a.csv", b"\xff\xfe,4,4\n2026-11-22T06:00:02Z,5,x\n2026-11-22T06:00:03Z,,1\n".as_slice());
    plant.append("a.csv", format!("2026-11-22T06:00:04Z,\"6\",1\n{}\n", "z".repeat(1_200_000)));
    plant.append("a.csv", rows(7, 1));
    plant.append("wrong.csv", "zeit,a,b\n1,2,3\n");
    let (seen, quarantined) = plant.run().await;
    assert_eq!((seen, quarantined), (vec![1.0, 5.0, 6.0, 7.0], 6));
    let entries = plant.quarantine();
    let short: Vec<(&str, u64, &str)> = entries
        .iter()
        .map(|e| (e["file"].as_str().unwrap(), e["line"].as_u64().unwrap(), e["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        short,
        [
            ("a.csv", 4, "time \"yesterday\" cannot be read"),
            ("a.csv", 5, "2 cells where the header has 3"),
            ("a.csv", 6, "the line is not UTF-8"),
            ("a.csv", 7, "column \"b\": \"x\" is no int32"),
            ("a.csv", 10, "the line is longer than 1048576 bytes"),
            ("wrong.csv", 1, "the whole file: the header has no time column \"timestamp\""),
        ]
    );
    assert_eq!(entries[0]["text"], "yesterday,2,2");
    let bytes = fs::read(plant.folder().join("a.csv")).unwrap();
    let at = usize::try_from(entries[0]["byte"].as_u64().unwrap()).unwrap();
    assert!(bytes[at..].starts_with(b"yesterday"));
    assert_eq!(entries[4]["text"].as_str().unwrap().len(), 4096);
    assert_eq!(plant.run().await, (Vec::new(), 0), "a refused file is noted once");
    // The header is put right in a new configuration: the file is read then.
    plant.keys = "time = \"zeit\"\ntime_format = \"epoch-s\"".into();
    assert_eq!(plant.run().await.0, [2.0]);
}

#[tokio::test]
async fn a_bad_cell_is_bad_and_the_others_flow() {
    let plant = Plant::new(
        "decimal = \",\"\nseparator = \";\"\nzone = \"Europe/Berlin\"\ntime_format = \"%d.%m.%Y %H:%M\"",
    );
    plant.append("a.csv", "timestamp;a;b\n22.11.2026 07:00;1,5;zwei\n");
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    let mut readings = Readings::default();
    driver.read(&mut readings).await.unwrap();
    let shown: Vec<String> = readings
        .list
        .iter()
        .map(|r| format!("{} {} {:?} {}", r.point, r.time.unwrap(), r.value, r.quality))
        .collect();
    assert_eq!(
        shown,
        [
            "0 2026-11-22T06:00:00.000000Z Some(Double(1.5)) good",
            "1 2026-11-22T06:00:00.000000Z None bad:undecodable",
        ]
    );
    assert!(matches!(driver.write(0, &Value::Double(1.0)).await, Err(DriverError::Refused { .. })));
    assert!(matches!(driver.read_one(0).await, Err(DriverError::Refused { .. })));
}

#[tokio::test]
async fn start_at_the_end_skips_what_was_there_before() {
    let mut plant = Plant::new("start = \"end\"");
    plant.append("a.csv", format!("{HEADER}{}half a row", rows(0, 1000)));
    assert_eq!(plant.run().await.0, numbers(0, 0));
    plant.append("b.csv", format!("{HEADER}{}", rows(5000, 2)));
    plant.append("a.csv", format!("\n{}", rows(1000, 2)));
    assert_eq!(plant.run().await, ([numbers(1000, 2), numbers(5000, 2)].concat(), 1));
    assert_eq!(plant.quarantine()[0]["line"], 1002);
}

#[tokio::test]
async fn a_missing_folder_is_waited_for() {
    let mut plant = Plant::new("");
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 2)));
    fs::rename(plant.folder(), plant.root.path().join("away")).unwrap();
    let candidate = plant.candidate();
    conformance::open_without_peer_fails(&candidate).await;
    let error = candidate.driver().open(None).await.unwrap_err().to_string();
    assert!(error.contains("is missing: create it, or mount"), "{error}");
    fs::rename(plant.root.path().join("away"), plant.folder()).unwrap();
    assert_eq!(plant.run().await.0, numbers(0, 2));
}

#[tokio::test]
async fn a_file_that_may_not_be_read_disturbs_no_other() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let mut plant = Plant::new("");
    plant.append("b.csv", format!("{HEADER}{}", rows(0, 2)));
    plant.append("a.csv", format!("{HEADER}{}", rows(2, 2)));
    let path = plant.folder().join("a.csv");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    symlink("nowhere.csv", plant.folder().join("c.csv")).unwrap();
    let is_root = fs::File::open(&path).is_ok(); // whom no permission stops
    let (first, noted) = plant.run().await;
    assert_eq!((first.len(), noted), if is_root { (4, 0) } else { (2, 1) });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (second, _) = plant.run().await;
    assert_eq!(second.len() + first.len(), 4);
}

#[tokio::test]
async fn a_lost_state_folder_stops_the_device() {
    let mut plant = Plant::new("");
    for n in 0..200 {
        plant.append(&format!("{n:03}.csv"), format!("{HEADER}{}", rows(n, 1)));
    }
    assert_eq!(plant.run().await.0, numbers(0, 200));
    fs::remove_dir_all(plant.root.path().join("state")).unwrap();
    let error = plant.candidate().driver().open(plant.position.as_deref()).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::Config(why) if why.contains("put the state folder back")),
        "{error}"
    );
}

#[tokio::test]
async fn keeps_the_contract() {
    let plant = Plant::new("");
    for n in 0..3 {
        plant.append(&format!("{n}.csv"), format!("{HEADER}{}bad\n", rows(n * 20_000, 20_000)));
    }
    plant.append("1.csv", format!("{}\n{}", "x".repeat(3_000_000), rows(60_000, 10)));
    let candidate = plant.candidate();
    conformance::validate_is_pure(&candidate);
    conformance::reads_are_bounded_and_typed(&candidate).await;
    conformance::close_then_open_works(&candidate).await;
    conformance::a_cut_off_read_does_no_harm(&candidate).await;
    fs::remove_dir_all(plant.root.path().join("state")).unwrap();
    conformance::positions_resume_exactly(&candidate).await;
    assert_eq!(plant.quarantine().len(), 4 + 4, "each bad line is noted once in each of the two runs");
}

#[test]
fn every_mistake_is_named() {
    let text = "folder = 5\npattern = \"a/b\"\nseparator = \"::\"\ndecimal = \",\"\ntime = \"\"\ntime_format = \"%H\"\n\
                zone = \"Berlin\"\nstart = \"now\"\ncolour = 1\n";
    let points = vec![point("a", DataType::Bytes)];
    let setup = conformance::setup(points, Clock::machine(), "state".into());
    let problems = validated(&KIND, text, &setup).err().unwrap();
    let keys: Vec<&str> = problems.list.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "folder",
        "pattern",
        "separator",
        "decimal",
        "time",
        "time_format",
        "zone",
        "start",
        "address",
        "colour",
    ];
    assert_eq!(keys, expected);
    assert!(validated(&KIND, "", &setup).is_err());
}

#[test]
fn patterns_fit_whole_names() {
    for (pattern, name, fits) in [
        ("*.csv", "a.csv", true),
        ("*.csv", "a.csv.tmp", false),
        ("*.csv", ".a.csv", true),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b*", "xxbxxaxx", false),
        ("?-*.csv", "ä-.csv", true),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("", "", true),
        ("*", "", true),
    ] {
        assert_eq!(Pattern(pattern.to_owned()).matches(name), fits, "{pattern} {name}");
    }
}

/// What happens in a plant between two starts of the agent.
#[derive(Clone, Debug)]
enum Event {
    /// Rows and part of one more are written to a file.
    Grow { file: usize, rows: usize, part: usize },
    /// A file gets another name.
    Rename { file: usize },
    /// The agent reads so many steps; whether its last position reached the disk, and whether the last read was cut.
    Run { steps: usize, stored: bool, cut: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..4, 0_usize..400, 0_usize..30).prop_map(|(file, rows, part)| Event::Grow {
            file,
            rows,
            part
        }),
        (0_usize..4).prop_map(|file| Event::Rename { file }),
        (1_usize..4, any::<bool>(), any::<bool>()).prop_map(|(steps, stored, cut)| Event::Run {
            steps,
            stored,
            cut
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_row_is_accepted_once_whatever_happens(events in proptest::collection::vec(event(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut accepted, written) = runtime.block_on(live(events));
        accepted.sort_by(f64::total_cmp);
        prop_assert_eq!(accepted, numbers(0, written));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_bytes_are_read_or_kept_in_quarantine(
        parts in proptest::collection::vec(proptest::collection::vec(prop_oneof![
            4 => any::<u8>().prop_map(|byte| vec![byte]),
            2 => Just(b"\n".to_vec()),
            2 => Just(b",".to_vec()),
            2 => Just(b"\"".to_vec()),
            2 => (0_usize..9).prop_map(|n| row(n).into_bytes()),
        ], 0..60), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut plant = Plant::new("");
        plant.append("a.csv", HEADER);
        let mut handled = 0;
        for part in &parts {
            plant.append("a.csv", part.concat());
            let (seen, quarantined) = runtime.block_on(plant.run());
            handled += seen.len() + usize::try_from(quarantined).unwrap();
        }
        let text: Vec<u8> = parts.concat().concat();
        let lines = text.split(|byte| *byte == b'\n').rev().skip(1);
        let blank = |line: &&[u8]| !line.is_empty() && *line != b"\r";
        let wanted = lines.filter(blank).count();
        // A line can be more than one: a reading and a bad cell. None can be less, but for rows without value.
        let empty_cells = String::from_utf8_lossy(&text).matches(",,").count() + 1;
        prop_assert!(handled + empty_cells >= wanted, "{} of {}", handled, wanted);
    }
}

/// Lets it all happen; what was accepted, and how many rows were written.
async fn live(events: Vec<Event>) -> (Vec<f64>, usize) {
    let mut plant = Plant::new("");
    let mut written = 0;
    let mut accepted = Vec::new();
    // Name of each file and what is missing from its last row.
    let mut files: Vec<(String, String)> = (0..4).map(|n| (format!("{n}.csv"), HEADER.to_owned())).collect();
    let mut renamed = 0;
    for event in events {
        match event {
            Event::Grow { file, rows: count, part } => {
                let (name, missing) = &mut files[file];
                let next = row(written + count);
                let part = part.min(next.len() - 1);
                plant.append(name, format!("{missing}{}{}", rows(written, count), &next[..part]));
                *missing = next[part..].to_owned();
                written += count + 1;
            }
            Event::Rename { file } => {
                let name = format!("{}-{renamed}.csv", file);
                if fs::rename(plant.folder().join(&files[file].0), plant.folder().join(&name)).is_ok() {
                    (files[file].0, renamed) = (name, renamed + 1);
                }
            }
            Event::Run { steps, stored, cut } => {
                let mut driver = plant.candidate().driver();
                driver.open(plant.position.as_deref()).await.unwrap();
                for step in 0..steps {
                    let is_last = step + 1 == steps;
                    let mut readings = Readings::default();
                    let reading = driver.read(&mut readings);
                    if cut && is_last {
                        drop(tokio::time::timeout(std::time::Duration::ZERO, reading).await);
                    } else {
                        reading.await.unwrap();
                    }
                    let Some(position) = readings.position.filter(|_| stored || !is_last) else { continue };
                    accepted.extend(values(&readings.list));
                    driver.acknowledge(&position).await.unwrap();
                    plant.position = Some(position);
                }
                driver.close().await;
            }
        }
    }
    for (name, missing) in &files {
        if plant.folder().join(name).exists() {
            plant.append(name, missing);
        } else if missing != HEADER {
            written -= 1;
        }
    }
    accepted.extend(plant.run().await.0);
    (accepted, written)
}

fn values(list: &[Reading]) -> impl Iterator<Item = f64> {
    list.iter().filter(|reading| reading.point == 0).filter_map(|reading| reading.value.as_ref()?.as_f64())
}

#[test]
fn state_stays_out_of_the_source() {
    let plant = Plant::new("");
    plant.append("a.csv", HEADER);
    let before = fs::metadata(plant.folder().join("a.csv")).unwrap().modified().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut plant = plant;
    runtime.block_on(plant.run());
    let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!(names(&plant.folder()), 1);
    assert_eq!(fs::metadata(plant.folder().join("a.csv")).unwrap().modified().unwrap(), before);
}
