//! How long a message is on its way: a publisher paced by the clock writes its monotonic time into each payload; a thread
//! of its own sleeps in epoll for the subscribers and compares when it has read. The same for every broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::connection::{Connection, Door};
use super::packet::{self, PublishBlock, QosLevel, kind};
use super::peers::Broker;
use super::throughput::topic;
use crate::machine::process_use;
use crate::report::Reading;

/// Messages per second of the cases `latency-…`.
pub(super) const RATE: u64 = 5_000;
/// Not counted at the start.
const WARM_UP: Duration = Duration::from_secs(1);
/// The last messages are waited for.
const QUIET: Duration = Duration::from_millis(500);
/// A publisher whose socket stays full for so long gives up.
const STOPPED: Duration = Duration::from_secs(10);
const PAYLOAD_BYTES: usize = 100;
/// The kernel may let a sleeper oversleep by 50 µs by default; the publisher asks for 1 µs.
const TIMER_SLACK_NS: u64 = 1_000;

/// One publisher, one subscriber, [`RATE`].
pub(super) fn run(broker: &Broker, qos: QosLevel, time: Duration) -> Result<Vec<Reading>, String> {
    let mut subscriber = Connection::open(&broker.door, "sub-0", true)?;
    subscriber.subscribe(&topic(0), qos)?;
    let before = process_use(broker.pid).cpu_seconds;
    let (times, sent) = measure(&broker.door, vec![subscriber], qos, RATE, time)?;
    let used = process_use(broker.pid);
    let lost = sent.saturating_sub(times.count as u64);
    let mut readings = times.readings();
    readings.push(Reading::new("lost", lost as f64));
    readings.push(Reading::new("cores", (used.cpu_seconds - before) / (WARM_UP + time).as_secs_f64()));
    readings.push(Reading::new("peak_mb", used.peak as f64 / 1e6));
    Ok(readings)
}

/// Sorted times of delivery after the warm-up, and how many deliveries there were in all.
pub(super) struct Times {
    sorted_ns: Vec<u64>,
    pub(super) count: usize,
}

impl Times {
    pub(super) fn readings(&self) -> Vec<Reading> {
        let at = |per_mille: usize| {
            let index = self.sorted_ns.len() * per_mille / 1000;
            self.sorted_ns.get(index).or(self.sorted_ns.last()).map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        vec![
            Reading::new("p50_us", at(500)),
            Reading::new("p99_us", at(990)),
            Reading::new("p999_us", at(999)),
            Reading::new("max_us", at(1000)),
        ]
    }
}

/// Publishes `rate` messages a second to the subscribers' topic for the warm-up and `time`. Times, and messages sent.
pub(super) fn measure(
    door: &Door,
    subscribers: Vec<Connection>,
    qos: QosLevel,
    rate: u64,
    time: Duration,
) -> Result<(Times, u64), String> {
    let publisher = Connection::open(door, "pub-0", true)?;
    let (base, ended) = (Instant::now(), AtomicBool::new(false));
    let counted_from = nanoseconds(WARM_UP);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(subscribers, base, counted_from, &ended));
        let sent = publish(publisher, base, qos, rate, WARM_UP + time);
        ended.store(true, Ordering::Release);
        let times = reader.join().map_err(|_| "the reading thread panicked".to_owned())??;
        Ok((times, sent?))
    })
}

fn publish(
    mut connection: Connection,
    base: Instant,
    qos: QosLevel,
    rate: u64,
    time: Duration,
) -> Result<u64, String> {
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(TIMER_SLACK_NS))
        .map_err(|error| format!("timer slack: {error}"))?;
    let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    connection.register(poll.registry(), 0)?;
    let mut block = PublishBlock::new(&topic(0), qos, PAYLOAD_BYTES, 1);
    let (mut buffer, mut next_id) = (vec![0; 64 * 1024], 1);
    let (started, mut sent) = (base.elapsed(), 0);
    while base.elapsed() < started + time {
        let due = started + Duration::from_nanos(1_000_000_000 * sent / rate);
        if let Some(wait) = due.checked_sub(base.elapsed()) {
            std::thread::sleep(wait);
        }
        let mut bytes = block.stamped(nanoseconds(base.elapsed()), &mut next_id);
        while !bytes.is_empty() {
            let written = connection.write(bytes)?;
            bytes = &bytes[written..];
            if written == 0 {
                if base.elapsed() > due + STOPPED {
                    return Err("the broker has stopped reading the publisher".into());
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        sent += 1;
        if qos > 0 {
            connection.read(&mut buffer, |_puback| ())?;
        }
    }
    // Closed without a word: the acknowledgements of the last messages may still be on their way.
    std::thread::sleep(QUIET);
    Ok(sent)
}

fn read(
    mut subscribers: Vec<Connection>,
    base: Instant,
    counted_from: u64,
    ended: &AtomicBool,
) -> Result<Times, String> {
    let mut poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    for (token, subscriber) in subscribers.iter().enumerate() {
        subscriber.register(poll.registry(), token)?;
    }
    let mut events = Events::with_capacity(64);
    let (mut buffer, mut acks) = (vec![0; 64 * 1024], Vec::new());
    let mut times = Times { sorted_ns: Vec::with_capacity(1 << 20), count: 0 };
    while !ended.load(Ordering::Acquire) {
        match poll.poll(&mut events, Some(QUIET / 5)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(format!("epoll: {error}"));
            }
            _ => {}
        }
        for event in events.iter().filter(|event| event.is_readable()) {
            let Some(subscriber) = subscribers.get_mut(event.token().0) else { continue };
            subscriber.read(&mut buffer, |packet| {
                let now = nanoseconds(base.elapsed());
                if packet.kind() != kind::PUBLISH {
                    return;
                }
                if let Some(id) = packet.publish_id() {
                    packet::puback(&mut acks, id);
                }
                times.count += 1;
                if let Some(stamp) = packet.stamp().filter(|stamp| *stamp >= counted_from) {
                    times.sorted_ns.push(now.saturating_sub(stamp));
                }
            })?;
            if !acks.is_empty() && subscriber.write(&acks)? != acks.len() {
                return Err("a socket has no room for acknowledgements".into());
            }
            acks.clear();
        }
    }
    times.sorted_ns.sort_unstable();
    Ok(times)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
