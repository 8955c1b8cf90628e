//! A device that does what it is told, so that its task can be watched: schedule, silence, back-pressure, positions.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use model::{
    CommandOutcome, Quality, QualityClass, Reason, Sample, Timestamp, Value, limits::VALUE_BYTES_MAX,
};
use proto::log_record::{DeviceEvent, LogRecord};
use proto::receipt::Receipt;
use runtime::config_file::Problems;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::catalogue::{Catalogue, DeviceIndex};
use crate::device_write::WriteOutcome;
use crate::drivers::Reading;
use crate::health::DeviceState;
use crate::normalise::ClockRules;
use crate::outbox::{Epochs, Opened, OutboxOptions, WhenFull, open};
use crate::pace::Pace;

const MIB: u64 = 1024 * 1024;

/// What the device does when it is asked.
#[derive(Default)]
struct Script {
    hang_open: bool,
    hang_read: bool,
    read_error: Option<fn() -> DriverError>,
    value: u64,
    bytes: usize,
    written: Option<Value>,
    forgets_writes: bool,
    hang_write: bool,
    opened_with: Vec<Option<Vec<u8>>>,
    acknowledged: Vec<u64>,
    closed: usize,
    reads: u64,
    /// Whether it has something of itself.
    has_data: bool,
    is_historical: bool,
    /// Called before a position is acknowledged: is it on disk?
    check: Option<Box<dyn Fn(u64) + Send>>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.0.lock().unwrap());
    }

    fn get<T>(&self, look: impl FnOnce(&Script) -> T) -> T {
        look(&self.0.lock().unwrap())
    }
}

#[async_trait]
impl Driver for Scripted {
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError> {
        self.set(|script| script.opened_with.push(resume.map(<[u8]>::to_vec)));
        if self.get(|script| script.hang_open) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn ready(&mut self) {
        while !self.get(|script| script.has_data) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError> {
        self.set(|script| (script.reads, script.has_data) = (script.reads + 1, false));
        into.is_historical = self.get(|script| script.is_historical);
        if self.get(|script| script.hang_read) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.get(|script| script.read_error) {
            return Err(error());
        }
        let (number, bytes) = self.get(|script| (script.value, script.bytes));
        self.set(|script| script.value += 1);
        let value = match bytes {
            0 => number.to_string(),
            bytes => "x".repeat(bytes),
        };
        into.list.push(Reading {
            point: 0,
            time: None,
            value: Some(Value::String(value)),
            quality: Quality::GOOD,
        });
        into.position = Some(number.to_le_bytes().to_vec());
        Ok(NextRead::OnSchedule)
    }

    async fn write(&mut self, _point: usize, value: &Value) -> Result<(), DriverError> {
        if self.get(|script| script.hang_write) {
            std::future::pending::<()>().await;
        }
        self.set(|script| script.written = Some(value.clone()));
        Ok(())
    }

    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError> {
        let value = self.get(|script| script.written.clone().filter(|_| !script.forgets_writes));
        let value = Some(value.unwrap_or(Value::String("old".into())));
        Ok(Reading { point, time: None, value, quality: Quality::GOOD })
    }

    async fn acknowledge(&mut self, position: &[u8]) -> Result<(), DriverError> {
        let number = u64::from_le_bytes(position.try_into().unwrap());
        self.set(|script| {
            if let Some(check) = &script.check {
                check(number);
            }
            script.acknowledged.push(number);
        });
        Ok(())
    }

    async fn close(&mut self) {
        self.set(|script| script.closed += 1);
    }
}

struct Plant {
    outbox: Outbox,
    health: Health,
    shutdown: CancellationToken,
    writes: mpsc::Sender<DeviceWrite>,
    metrics: Metrics,
    tasks: tokio::task::JoinSet<Result<(), OutboxError>>,
    thread: Option<std::thread::JoinHandle<Result<(), durable_log::LogError>>>,
}

impl Plant {
    fn start(dir: &Path, device: Scripted, bytes_max: u64, stale_after: Duration) -> Self {
        Plant::polling(dir, device, bytes_max, stale_after, Duration::from_millis(20))
    }

    fn polling(dir: &Path, device: Scripted, bytes_max: u64, stale_after: Duration, poll: Duration) -> Self {
        let mut problems = Problems::default();
        let list = b"name,address,type\na,1,string\nb,2,string\n";
        let points = crate::points::parse_list(Path::new("p.csv"), list, "d", &mut problems);
        let definitions: Vec<_> = points.iter().map(|point| point.definition.clone()).collect();
        let epoch = crate::outbox::new_epoch().unwrap().0;
        let catalogue = Catalogue::open(&dir.join("catalogue"), epoch, &definitions).unwrap();
        let options = OutboxOptions { agent: "g/n".into(), bytes_max, when_full: WhenFull::StopAccepting };
        let (clock, metrics, health) = (Clock::machine(), Metrics::default(), Health::default());
        let Opened { outbox, writer, positions, .. } =
            open(&dir.join("outbox"), &options, &catalogue.points, &clock, &metrics).unwrap();
        let thread = Some(std::thread::spawn(|| writer.run()));
        health.add_device("d", "scripted", 2, Pace::default(), Timestamp(0));
        let (writes, writes_taken) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let config = DeviceConfig {
            name: "d".into(),
            kind: "scripted",
            points,
            points_file: "p.csv".into(),
            source: None,
            driver: Box::new(device),
            poll,
            groups: Vec::new(),
            pace: Pace::default(),
            stale_after,
            stale_without_data: false,
            clocks: ClockRules { skew_max_micros: 60_000_000, behind_max_micros: None },
        };
        let around = Surroundings {
            outbox: outbox.clone(),
            clock,
            agent: "g/n".into(),
            metrics: metrics.clone(),
            skew: ClockSkew::default(),
            health: health.clone(),
            device: 0,
            shutdown: shutdown.clone(),
        };
        let acquisition = Acquisition::new(
            config,
            catalogue.current.clone(),
            positions.get("d").cloned(),
            writes_taken,
            around,
        );
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(acquisition.run());
        Plant { outbox, health, shutdown, writes, metrics, tasks, thread }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
        self.outbox.close().await;
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap().unwrap()).await.unwrap();
    }

    fn state(&self) -> DeviceState {
        self.health.devices()[0].state
    }

    /// Samples and events held, in order.
    fn held(&self) -> Vec<(Vec<Sample>, DeviceEvent)> {
        let view = self.outbox.view();
        let mut reader = view.reader(view.first());
        let mut found = Vec::new();
        while let Some((_, bytes)) = reader.next().unwrap() {
            if let LogRecord::Accepted { batch, event, .. } = LogRecord::decode(bytes).unwrap() {
                found.push((batch.samples, event));
            }
        }
        found
    }

    async fn write(&self, text: &str, within: Duration) -> WriteOutcome {
        let (answer, answered) = oneshot::channel();
        let raw = Value::String(text.into());
        let write = DeviceWrite { point: 0, raw, not_after: Instant::now() + within, answer };
        self.writes.send(write).await.unwrap();
        answered.await.unwrap()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within 10 s");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_acknowledged_when_it_is_on_disk_and_resumed_there() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_secs(5));
    let outbox = plant.outbox.clone();
    device.set(|script| {
        script.check = Some(Box::new(move |number| assert!(outbox.durable().borrow().offset > number)));
    });
    until("reads", || device.get(|script| script.acknowledged.len() > 10)).await;
    assert_eq!(plant.state(), DeviceState::Up);
    plant.stop().await;
    device.set(|script| script.check = None);
    let last = device.get(|script| *script.acknowledged.last().unwrap());
    assert_eq!(device.get(|script| script.acknowledged.clone()), (0..=last).collect::<Vec<_>>());
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_secs(5));
    until("opened again", || device.get(|script| script.opened_with.len() == 2)).await;
    let resumed = device.get(|script| script.opened_with[1].clone().unwrap());
    let resumed = u64::from_le_bytes(resumed.try_into().unwrap());
    assert!(resumed == last || resumed == last + 1, "{resumed} after {last}: a position on disk");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_data_is_read_at_once_and_commands_go_between() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let (stale_after, poll) = (Duration::from_secs(60), Duration::from_secs(60));
    let plant = Plant::polling(dir.path(), device.clone(), 64 * MIB, stale_after, poll);
    until("the first poll", || device.get(|script| script.acknowledged.len() == 1)).await;
    for nth in 2..20 {
        device.set(|script| (script.has_data, script.is_historical) = (true, nth % 2 == 0));
        let begun = Instant::now();
        until("a reading", || device.get(|script| script.acknowledged.len() == nth)).await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        let text = format!("written {nth}");
        assert_eq!(plant.write(&text, Duration::from_secs(5)).await.outcome, CommandOutcome::Done);
    }
    assert_eq!(device.get(|script| script.reads), 19, "as often as there was something");
    let view = plant.outbox.view();
    let (mut reader, mut historical) = (view.reader(view.first()), Vec::new());
    while let Some((_, bytes)) = reader.next().unwrap() {
        if let LogRecord::Accepted { batch, .. } = LogRecord::decode(bytes).unwrap() {
            historical.push(batch.is_historical);
        }
    }
    assert_eq!(historical, (1..20).map(|nth| nth % 2 == 0).collect::<Vec<bool>>());
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_device_goes_stale_in_time_once_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let stale_after = Duration::from_millis(300);
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, stale_after);
    until("up", || plant.state() == DeviceState::Up).await;
    device.set(|script| script.hang_read = true);
    let begun = Instant::now();
    until("down", || plant.state() == DeviceState::Down).await;
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    until("on disk", || plant.held().last().unwrap().1 == DeviceEvent::Down).await;
    sleep(stale_after * 2).await;
    let held = plant.held();
    let downs: Vec<_> = held.iter().filter(|(_, event)| *event == DeviceEvent::Down).collect();
    assert_eq!(downs.len(), 1, "one mark, not one per poll");
    let [read, never_read] = &downs[0].0[..] else { panic!("all points: {:?}", downs[0]) };
    assert_eq!(read.quality.class(), QualityClass::Stale);
    let last_value = held[held.len() - 2].0[0].value.clone();
    assert_eq!((&read.value, &never_read.value), (&last_value, &None), "last values are kept");
    assert!(!plant.outbox.present().look().is_up(DeviceIndex(1)));
    device.set(|script| (script.hang_read, script.read_error) = (false, None));
    // The hanging read is cut off by its deadline only; a shutdown does not wait for it.
    let begun = Instant::now();
    plant.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_close_wait_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_millis(400));
    until("up", || plant.state() == DeviceState::Up).await;
    device.set(|script| script.read_error = Some(|| DriverError::NotConnected("cable".into())));
    until("down", || plant.state() == DeviceState::Down).await;
    let status = &plant.health.devices()[0];
    assert!(status.error.as_ref().unwrap().contains("cable"), "{status:?}");
    until("the mark", || plant.held().last().unwrap().1 == DeviceEvent::Down).await;
    let quality = plant.held().last().unwrap().0[0].quality;
    assert_eq!(quality, Quality::stale(Reason::NotConnected));
    assert!(matches!(
        plant.write("x", Duration::from_secs(5)).await.outcome,
        model::CommandOutcome::Refused(_)
    ));
    device.set(|script| script.read_error = None);
    until("up again", || plant.state() == DeviceState::Up).await;
    assert!(device.get(|script| script.closed >= 1 && script.opened_with.len() >= 2));
    until("samples again", || plant.held().last().unwrap().1 == DeviceEvent::None).await;
    plant.stop().await;
}

/// What became of the back-off: a device that is away for long is read again within the time promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_back_is_read_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_secs(1));
    until("up", || plant.state() == DeviceState::Up).await;
    device.set(|script| script.read_error = Some(|| DriverError::NotConnected("cable".into())));
    sleep(Duration::from_secs(6)).await;
    let opened = device.get(|script| script.opened_with.len());
    assert!((7..16).contains(&opened), "{opened} tries in 6 s");
    let (reads, begun) = (device.get(|script| script.value), Instant::now());
    device.set(|script| script.read_error = None);
    until("read again", || device.get(|script| script.value) > reads).await;
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
    until("at full speed", || device.get(|script| script.value) > reads + 20).await;
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_sees_raw_values_and_how_points_are() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_millis(300));
    until("up", || plant.state() == DeviceState::Up).await;
    let qualities = plant.health.devices()[0].qualities;
    assert_eq!((qualities.good, qualities.unread), (1, 1), "{qualities:?}");
    let look = plant.health.looks(0).point(0).unwrap();
    assert_eq!(look.raw, look.result.value);
    assert_eq!(plant.health.looks(0).point(1), None);
    device.set(|script| script.hang_read = true);
    until("down", || plant.state() == DeviceState::Down).await;
    let qualities = plant.health.devices()[0].qualities;
    assert_eq!((qualities.good, qualities.stale), (0, 2), "{qualities:?}");
    let told = plant.metrics.render();
    assert!(told.contains("forebay_edge_points{agent=\"g/n\",device=\"d\",quality=\"stale\"} 2"), "{told}");
    assert!(plant.health.looks(0).point(0).unwrap().result.value.is_some(), "the last value is kept");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_stops_reading_and_loses_nothing_read() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    device.set(|script| script.bytes = VALUE_BYTES_MAX);
    let plant = Plant::start(dir.path(), device.clone(), 16 * MIB, Duration::from_secs(60));
    until("full", || plant.outbox.is_full()).await;
    let reads = device.get(|script| script.reads);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(device.get(|script| script.reads), reads, "nothing is read meanwhile");
    assert!(plant.metrics.render().contains("forebay_edge_refused_groups_total"));
    let end = plant.outbox.durable().borrow().offset;
    let durable = vec![(plant.outbox.current(), model::RangeSet::of(0..end))];
    plant.outbox.receive(&Receipt { durable, ..Receipt::default() }).await.unwrap();
    until("goes on", || device.get(|script| script.reads > reads + 3)).await;
    let acknowledged = device.get(|script| script.acknowledged.clone());
    assert_eq!(acknowledged, (0..acknowledged.len() as u64).collect::<Vec<_>>(), "every read was accepted");
    assert!(plant.outbox.epochs(Epochs::backlog) > 0);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_read_back_and_never_late() {
    let dir = tempfile::tempdir().unwrap();
    let device = Scripted::default();
    let plant = Plant::start(dir.path(), device.clone(), 64 * MIB, Duration::from_secs(5));
    let done = plant.write("new", Duration::from_secs(5)).await;
    assert_eq!(
        (done.outcome, done.read_back),
        (model::CommandOutcome::Done, Some(Value::String("new".into())))
    );
    device.set(|script| script.written = None);
    let late = plant.write("late", Duration::ZERO).await;
    assert_eq!(late.outcome, model::CommandOutcome::Expired);
    assert_eq!(device.get(|script| script.written.clone()), None, "not written");
    device.set(|script| script.forgets_writes = true);
    let other = plant.write("lost", Duration::from_secs(5)).await;
    assert!(matches!(other.outcome, model::CommandOutcome::Unknown(_)), "{other:?}");
    assert_eq!(other.read_back, Some(Value::String("old".into())));
    device.set(|script| script.hang_write = true);
    let began = Instant::now();
    let hung = plant.write("hung", Duration::from_millis(300)).await;
    assert!(matches!(hung.outcome, model::CommandOutcome::Unknown(_)), "{hung:?}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "given up when it expires, not by the driver's own time"
    );
    until("a new connection", || device.get(|script| script.opened_with.len() == 2)).await;
    plant.stop().await;
}
