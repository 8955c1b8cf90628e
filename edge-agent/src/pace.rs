//! How fast a device is asked, and how it answers: one budget and one set of figures per device.
//!
//! A driver that sends requests takes a [`Pace::turn`] before each and reports each answer. Without a budget a turn costs
//! nothing. Figures cover the last one to two minutes, so that a page shows how it is, not how it was at the start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Figures are kept in two windows of this length: the one being filled and the one before.
const WINDOW: Duration = Duration::from_secs(60);
/// Buckets of latencies: four for each doubling from 16 µs to about 4 minutes.
const BUCKETS: usize = 96;
/// Requests that may go out at once after a rest: what a poll of a few blocks needs.
const BURST: f64 = 4.0;

/// The pace of one device. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    inner: Arc<Mutex<Inner>>,
}

/// How a device has been asked and has answered lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests since the start.
    pub requests: u64,
    /// Of these, those without a usable answer.
    pub failed: u64,
    /// Requests per second lately.
    pub per_second: f64,
    /// Latency of the last answer.
    pub last: Option<Duration>,
    /// Half of the answers came within this.
    pub p50: Option<Duration>,
    /// 99 of 100 came within this.
    pub p99: Option<Duration>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Seconds between requests, if there is a budget.
    interval: Option<f64>,
    /// When the budget is as if nothing had been asked.
    free_at: Option<Instant>,
    requests: u64,
    failed: u64,
    last: Option<Duration>,
    now: Window,
    before: Window,
}

#[derive(Debug)]
struct Window {
    begun: Option<Instant>,
    requests: u64,
    latencies: [u32; BUCKETS],
}

impl Default for Window {
    fn default() -> Self {
        Window { begun: None, requests: 0, latencies: [0; BUCKETS] }
    }
}

impl Pace {
    /// With a budget of so many requests per second, or none.
    #[must_use]
    pub fn new(per_second: Option<f64>) -> Self {
        let interval = per_second.filter(|rate| *rate > 0.0).map(|rate| 1.0 / rate);
        Pace { inner: Arc::new(Mutex::new(Inner { interval, ..Inner::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the budget allows one more request, and counts it. Cut off while it waits, it has counted nothing.
    pub async fn turn(&self) {
        loop {
            let wait_until = self.lock().take_turn(Instant::now());
            match wait_until {
                Some(at) => sleep_until(at).await,
                None => return,
            }
        }
    }

    /// Takes a turn for a request and counts how it ends.
    pub(crate) async fn request<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.turn().await;
        let begun = Instant::now();
        let answer = work.await;
        match &answer {
            Ok(_) => self.answered(begun.elapsed()),
            Err(_) => self.failed(),
        }
        answer
    }

    /// The request that was sent last was answered after so long.
    pub fn answered(&self, took: Duration) {
        let mut inner = self.lock();
        inner.last = Some(took);
        if let Some(count) = inner.now.latencies.get_mut(bucket(took)) {
            *count = count.saturating_add(1);
        }
    }

    /// It was not, or by nonsense.
    pub fn failed(&self) {
        self.lock().failed += 1;
    }

    /// How it is.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.turn_windows(now);
        let since = inner.before.begun.or(inner.now.begun).map_or(Duration::ZERO, |begun| now - begun);
        let requests = inner.before.requests + inner.now.requests;
        Figures {
            requests: inner.requests,
            failed: inner.failed,
            per_second: requests as f64 / since.as_secs_f64().max(1.0),
            last: inner.last,
            p50: inner.quantile(0.5),
            p99: inner.quantile(0.99),
        }
    }
}

impl Inner {
    /// Counts the request, or says when to ask again.
    fn take_turn(&mut self, now: Instant) -> Option<Instant> {
        if let Some(interval) = self.interval {
            let free_at = self.free_at.filter(|at| *at > now).unwrap_or(now);
            let allowed_at = free_at.checked_sub(Duration::from_secs_f64(interval * (BURST - 1.0)));
            if let Some(at) = allowed_at.filter(|at| *at > now) {
                return Some(at);
            }
            self.free_at = Some(free_at + Duration::from_secs_f64(interval));
        }
        self.turn_windows(now);
        self.requests += 1;
        self.now.requests += 1;
        None
    }

    fn turn_windows(&mut self, now: Instant) {
        let begun = *self.now.begun.get_or_insert(now);
        let age = now - begun;
        if age < WINDOW {
            return;
        }
        let old = std::mem::take(&mut self.now);
        self.before =
            if age < WINDOW * 2 { old } else { Window { begun: Some(now - WINDOW), ..Window::default() } };
        self.now.begun = Some(now);
    }

    fn quantile(&self, part: f64) -> Option<Duration> {
        let counts = self.before.latencies.iter().zip(&self.now.latencies);
        let counts: Vec<u64> = counts.map(|(a, b)| u64::from(*a) + u64::from(*b)).collect();
        let all: u64 = counts.iter().sum();
        let mut left = (all as f64 * part).ceil();
        for (nth, count) in counts.iter().enumerate() {
            left -= *count as f64;
            if all > 0 && left <= 0.0 {
                return Some(upper_bound(nth));
            }
        }
        None
    }
}

/// Bucket `n` holds latencies up to `16 µs · 2^(n/4)`.
fn bucket(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    let nth = ((micros / 16.0).max(1.0).log2() * 4.0).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and BUCKETS")]
    let nth = nth.clamp(0.0, (BUCKETS - 1) as f64) as usize;
    nth
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_secs_f64(16e-6 * (bucket as f64 / 4.0).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_kept_and_its_burst_is_bounded() {
        let pace = Pace::new(Some(20.0));
        let begun = Instant::now();
        for _ in 0..100 {
            pace.turn().await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((4.7..5.1).contains(&took), "100 requests at 20/s took {took} s");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..24 {
            pace.turn().await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((0.9..1.1).contains(&took), "a rest saves up four requests, no more: {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nobody_waits_and_figures_are_of_late() {
        let pace = Pace::default();
        let begun = Instant::now();
        for nth in 0..1000 {
            pace.turn().await;
            pace.answered(Duration::from_micros(if nth % 50 == 0 { 40_000 } else { 900 }));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = pace.figures();
        assert_eq!((figures.requests, figures.failed), (1000, 0));
        assert!((figures.per_second - 100.0).abs() < 1.0, "{figures:?}");
        let (p50, p99) = (figures.p50.unwrap(), figures.p99.unwrap());
        assert!((0.9..1.2).contains(&(p50.as_secs_f64() * 1e3)), "{p50:?}");
        assert!((40.0..50.0).contains(&(p99.as_secs_f64() * 1e3)), "{p99:?}");
        tokio::time::sleep(Duration::from_secs(300)).await;
        let later = pace.figures();
        assert_eq!((later.p99, later.requests), (None, 1000));
        assert!(later.per_second < 0.1, "{later:?}");
    }
}
