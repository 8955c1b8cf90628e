//! What every driver must do (docs/specs/driver.md), as functions that its tests call (habit 21).
//!
//! A [`Candidate`] is one configuration of a driver with its peer running. Numbers in brackets are the statements of
//! the specification.

mod python_peer;

pub use python_peer::{PythonPeer, addresses, value};

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{DataType, PointDefinition, PointPath, Value};
use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, Problems};

use crate::drivers::{
    DeviceSetup, Driver, DriverError, DriverKind, KINDS, NextRead, READINGS_MAX, Reading, Readings, Remedy,
};
use crate::pace::Pace;
use crate::points::PointConfig;
use crate::shared::Shared;

/// A device as a configuration would describe it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The driver's name.
    pub driver: &'static str,
    /// The device's own keys.
    pub text: String,
    /// Its points.
    pub setup: DeviceSetup,
}

/// Longer than any deadline in a test's configuration: nothing may take this long.
const AT_MOST: Duration = Duration::from_secs(10);
/// Calls of `read` in one round: a driver with more than this never comes to an end.
const CALLS_MAX: usize = 10_000;

impl Candidate {
    /// A device with these points, by address and type, whose driver keeps no files.
    #[must_use]
    pub fn with_points(driver: &'static str, text: String, points: &[(String, DataType)]) -> Candidate {
        let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
        let setup = setup(points, Clock::machine(), std::env::temp_dir().join("not-written"));
        Candidate { driver, text, setup }
    }

    /// The driver's entry in the table.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn kind(&self) -> &'static DriverKind {
        KINDS.iter().find(|kind| kind.name == self.driver).expect("a driver's name")
    }

    /// A new driver, as after a restart of the process.
    ///
    /// # Panics
    /// If the configuration is wrong.
    #[must_use]
    pub fn driver(&self) -> Box<dyn Driver> {
        let found = validated(self.kind(), &self.text, &self.setup);
        found.unwrap_or_else(|problems| panic!("{:?}", problems.list))
    }
}

/// A point with this address and type.
///
/// # Panics
/// If the address is empty.
#[must_use]
pub fn point(address: &str, raw_type: DataType) -> PointConfig {
    PointConfig {
        definition: PointDefinition {
            device: Some("test".into()),
            ..PointDefinition::new(
                PointPath::new(&format!("test/{address}")).expect("a path"),
                address,
                raw_type,
            )
        },
        address: address.to_owned(),
        raw_type,
        scale: None,
        offset: None,
        group: 0,
        line: 2,
    }
}

/// A whole round of reading.
///
/// # Panics
/// If it fails.
pub async fn read_all(driver: &mut dyn Driver) -> Readings {
    let mut all = Readings::default();
    while driver.read(&mut all).await.expect("read") == NextRead::AtOnce {}
    all
}

/// A peer that answers nonsense: an error that begins so, the connection to be made anew, and not used again.
///
/// # Panics
/// If it is not so.
pub async fn nonsense_ends_the_connection(driver: &mut dyn Driver, case: usize, expected: &str) {
    driver.open(None).await.expect("open");
    let error = driver.read(&mut Readings::default()).await.expect_err("an error");
    assert!(error.to_string().starts_with(expected), "script {case}: {error}");
    assert_eq!(error.remedy(), Remedy::Reconnect);
    let after = driver.read(&mut Readings::default()).await.expect_err("an error");
    assert!(matches!(after, DriverError::NotConnected(_)), "a failed connection is not used again: {after}");
    driver.close().await;
}

/// A device with these points, whose driver may keep files in `state_dir`.
#[must_use]
pub fn setup(points: Vec<PointConfig>, clock: Clock, state_dir: PathBuf) -> DeviceSetup {
    DeviceSetup {
        name: "test".into(),
        points,
        points_file: "test.csv".into(),
        state_dir,
        clock,
        pace: Pace::default(),
        shared: Shared::default(),
    }
}

/// The driver that these keys configure.
///
/// # Errors
/// Everything that is wrong with them, unknown keys included.
pub fn validated(kind: &DriverKind, text: &str, setup: &DeviceSetup) -> Result<Box<dyn Driver>, Problems> {
    let file = ConfigFile::from_text(Path::new("test.toml"), text.to_owned());
    let mut problems = Problems::default();
    let mut section = file.parse(&mut problems);
    let driver = (kind.validate)(&mut section, setup, &mut problems);
    section.finish(&mut problems);
    match driver {
        Some(driver) if problems.is_empty() => Ok(driver),
        _ => Err(problems),
    }
}

/// `[driver-1]` Validation touches nothing and finds the same twice; unknown keys are refused.
///
/// # Panics
/// If it does not.
pub fn validate_is_pure(candidate: &Candidate) {
    let before = listing(&candidate.setup.state_dir);
    drop(candidate.driver());
    drop(candidate.driver());
    assert_eq!(before, listing(&candidate.setup.state_dir), "validate wrote into its state folder");
    let text = format!("{}\nno_such_key = 1\n", candidate.text);
    let problems = validated(candidate.kind(), &text, &candidate.setup).err().expect("an unknown key");
    assert!(problems.list.iter().any(|problem| problem.key == "no_such_key"), "{:?}", problems.list);
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    names.sort();
    names
}

/// `[driver-2]` Without its peer a driver fails with an error, in time, again and again, and can be closed.
///
/// # Panics
/// If it does not.
pub async fn open_without_peer_fails(candidate: &Candidate) {
    let mut driver = candidate.driver();
    driver.close().await;
    for _ in 0..2 {
        let opened = in_time(driver.open(None)).await;
        let failed = match opened {
            Ok(()) => in_time(driver.read(&mut Readings::default())).await.err(),
            Err(error) => Some(error),
        };
        let error = failed.expect("there is no peer, yet something was read");
        assert!(matches!(error, DriverError::NotConnected(_) | DriverError::Silent(_)), "{error}");
        in_time(driver.close()).await;
    }
}

/// `[driver-3]` `[driver-4]` Reads end, are bounded, name only points of the device and give values of their types;
/// a reading without value is not Good.
///
/// # Panics
/// If they do not.
pub async fn reads_are_bounded_and_typed(candidate: &Candidate) {
    let mut driver = candidate.driver();
    in_time(driver.open(None)).await.expect("open");
    for _ in 0..2 {
        for reading in round(driver.as_mut()).await.0 {
            let point = candidate.setup.points.get(reading.point).expect("a point of the device");
            match reading.value {
                Some(value) => assert_eq!(value.data_type(), point.raw_type, "{}", point.address),
                None => assert!(!reading.quality.is_good(), "{} is good without value", point.address),
            }
        }
    }
    in_time(driver.close()).await;
}

/// `[driver-5]` A closed driver can be opened again and goes on; `close` twice does no harm.
///
/// # Panics
/// If it does not.
pub async fn close_then_open_works(candidate: &Candidate) {
    let mut driver = candidate.driver();
    let mut position = None;
    for _ in 0..3 {
        in_time(driver.open(position.as_deref())).await.expect("open");
        position = round(driver.as_mut()).await.1.or(position);
        in_time(driver.close()).await;
        in_time(driver.close()).await;
    }
}

/// `[driver-6]` Values do not depend on where a reader was interrupted: a driver that is thrown away after every read,
/// or whose readings were lost before they were on disk, or whose read was cut off, brings the same from the newest
/// position on disk as one that was left alone. For sources with positions.
///
/// # Panics
/// If it does not, or if there are no positions.
pub async fn positions_resume_exactly(candidate: &Candidate) {
    let mut driver = candidate.driver();
    in_time(driver.open(None)).await.expect("open");
    let (expected, end) = round(driver.as_mut()).await;
    assert!(end.is_some(), "a source with positions gives one");
    in_time(driver.close()).await;

    let mut resumed = Vec::new();
    let mut position: Option<Vec<u8>> = None;
    for call in 0..CALLS_MAX {
        let mut lost = candidate.driver();
        in_time(lost.open(position.as_deref())).await.expect("open");
        drop(tokio::time::timeout(Duration::ZERO, lost.read(&mut Readings::default())).await);
        in_time(lost.close()).await;
        drop(lost);

        let mut driver = candidate.driver();
        in_time(driver.open(position.as_deref())).await.expect("open");
        let mut readings = Readings::default();
        let next = in_time(driver.read(&mut readings)).await.expect("read");
        resumed.extend(readings.list);
        if let Some(reached) = readings.position {
            in_time(driver.acknowledge(&reached)).await.expect("acknowledge");
            position = Some(reached);
        }
        if call % 2 == 0 {
            in_time(driver.close()).await;
        }
        if next == NextRead::OnSchedule {
            break;
        }
    }
    assert_eq!(expected.len(), resumed.len(), "readings were repeated or left out");
    assert_eq!(expected, resumed);
}

/// `[driver-7]` What is written can be read back at once, and the next read shows it too.
///
/// # Panics
/// If it cannot.
pub async fn writes_are_read_back(candidate: &Candidate, point: usize, values: &[Value]) {
    let mut driver = candidate.driver();
    in_time(driver.open(None)).await.expect("open");
    for value in values {
        in_time(driver.write(point, value)).await.expect("write");
        let back = in_time(driver.read_one(point)).await.expect("read_one");
        assert_eq!((back.point, back.value.as_ref()), (point, Some(value)));
        let list = round(driver.as_mut()).await.0;
        let read = list.into_iter().find(|reading| reading.point == point).expect("the point is read");
        assert_eq!(read.value.as_ref(), Some(value));
    }
    let beyond = candidate.setup.points.len();
    let refused = in_time(driver.write(beyond, &Value::Boolean(true))).await;
    assert!(matches!(refused, Err(DriverError::Refused { .. })), "{refused:?}");
    in_time(driver.close()).await;
}

/// `[driver-8]` After a read that was cut off somewhere, `close` and `open` make the driver whole again.
///
/// # Panics
/// If they do not.
pub async fn a_cut_off_read_does_no_harm(candidate: &Candidate) {
    let mut driver = candidate.driver();
    for micros in [0, 50, 200, 1000, 5000] {
        in_time(driver.open(None)).await.expect("open");
        let mut readings = Readings::default();
        drop(tokio::time::timeout(Duration::from_micros(micros), driver.read(&mut readings)).await);
        in_time(driver.close()).await;
        in_time(driver.open(None)).await.expect("open after a cut-off read");
        assert!(!round(driver.as_mut()).await.0.is_empty(), "nothing is read after a cut-off read");
        in_time(driver.close()).await;
    }
}

/// Reads until the schedule's turn; the readings and the last position.
async fn round(driver: &mut dyn Driver) -> (Vec<Reading>, Option<Vec<u8>>) {
    let (mut list, mut position) = (Vec::new(), None);
    for _ in 0..CALLS_MAX {
        let mut readings = Readings::default();
        let next = in_time(driver.read(&mut readings)).await.expect("read");
        assert!(readings.list.len() <= READINGS_MAX, "{} readings at once", readings.list.len());
        list.extend(readings.list);
        if let Some(reached) = readings.position {
            in_time(driver.acknowledge(&reached)).await.expect("acknowledge");
            position = Some(reached);
        }
        if next == NextRead::OnSchedule {
            return (list, position);
        }
    }
    panic!("the driver never comes to an end");
}

async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_MOST, call).await.expect("the driver takes too long")
}
