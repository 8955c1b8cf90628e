//! A process that writes as fast as it can is killed at any moment, ten times over: whatever it said was durable is
//! there, and readers of the living directory never see anything wrong.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test: it may fail, its numbers are small, and its child talks to it"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use durable_log::{Log, LogError, LogView, Options, Position, verify};

const CHILD_DIR: &str = "FOREBAY_KILL_TEST_DIR";
const CHILD_EPOCH: &str = "FOREBAY_KILL_TEST_EPOCH";

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, bytes_max: 16 << 20, reserve_bytes: 0, ..Options::default() }
}

fn record(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(8 + (n.wrapping_mul(7919) % 900) as usize, n as u8);
    bytes
}

/// The child: groups of three, several per sync, trims what is old, says each durable end.
fn write_until_killed(dir: &Path, epoch: u64) {
    let (mut log, _) = Log::open(dir, options(), epoch).unwrap();
    loop {
        for _ in 0..5 {
            let at = log.end().0;
            let group: Vec<Vec<u8>> = (at..at + 3).map(record).collect();
            log.append_group(&group.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        }
        let end = log.sync().unwrap();
        println!("durable {end}");
        if end.0 % 600 == 0 {
            log.trim(Position(end.0.saturating_sub(500))).unwrap();
            log.view().set_cursor("lake", end).unwrap();
        }
    }
}

#[test]
fn what_was_said_to_be_durable_survives_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let epoch = std::env::var(CHILD_EPOCH).unwrap().parse().unwrap();
        return write_until_killed(Path::new(&dir), epoch);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut durable = 0;
    for epoch in 1..=10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_said_to_be_durable_survives_kill_9", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_EPOCH, epoch.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let listener = std::thread::spawn(move || {
            let ends = said.lines().filter_map(|line| line.unwrap().strip_prefix("durable ")?.parse().ok());
            ends.last().unwrap_or(0_u64)
        });
        for _ in 0..epoch {
            std::thread::sleep(Duration::from_millis(20));
            read_living(dir.path());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        durable = listener.join().unwrap().max(durable);
        let (log, recovery) = Log::open(dir.path(), options(), 1000 + epoch).unwrap();
        assert!(recovery.end.0 >= durable && recovery.end.0 % 3 == 0, "{durable} was durable: {recovery}");
        assert_eq!(read_all(&log.view()).unwrap(), recovery.end);
        assert!(log.view().cursors().unwrap().get("lake").is_none_or(|at| *at <= recovery.end));
    }
    assert!(durable > 100);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
}

fn read_living(dir: &Path) {
    let (view, _) = LogView::open_read_only(dir).unwrap();
    match read_all(&view) {
        Ok(end) => assert_eq!(end, view.durable_end()),
        Err(LogError::Trimmed { .. }) => {}
        Err(error) => panic!("{error}: {error:?}"),
    }
}

fn read_all(view: &LogView) -> Result<Position, LogError> {
    let mut reader = view.reader(Position(0));
    while let Some((position, bytes)) = reader.next()? {
        assert_eq!(bytes, record(position.0));
    }
    Ok(reader.position())
}
