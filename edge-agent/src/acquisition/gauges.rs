//! How a device is, as metrics: what consoles read from [`crate::health`], for whoever collects figures.

use std::time::Duration;

use runtime::telemetry::{Gauge, Metrics};
use tokio::time::Instant;

use crate::health::Looks;
use crate::pace::Pace;

/// Figures are renewed at most so often: counting ten thousand points costs some tens of microseconds.
const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Gauges {
    told_at: Option<Instant>,
    points: [Gauge; 5],
    requests: Gauge,
    failed: Gauge,
    latencies: [Gauge; 2],
}

impl Gauges {
    pub(super) fn new(metrics: &Metrics, agent: &str, device: &str) -> Gauges {
        let points = ["good", "uncertain", "bad", "stale", "unread"].map(|quality| {
            let labels = [("agent", agent), ("device", device), ("quality", quality)];
            metrics.gauge("forebay_edge_points", "Points by the quality of their last reading.", &labels)
        });
        let latencies = ["0.5", "0.99"].map(|quantile| {
            let labels = [("agent", agent), ("device", device), ("quantile", quantile)];
            metrics.gauge("forebay_edge_latency_microseconds", "Of requests to a device, lately.", &labels)
        });
        let labels = [("agent", agent), ("device", device)];
        Gauges {
            told_at: None,
            points,
            requests: metrics.gauge(
                "forebay_edge_requests",
                "Requests to a device since the start.",
                &labels,
            ),
            failed: metrics.gauge(
                "forebay_edge_requests_failed",
                "Of these, without a usable answer.",
                &labels,
            ),
            latencies,
        }
    }

    /// Renews the figures, if it is time or `now` matters.
    pub(super) fn tell(&mut self, looks: &Looks, pace: &Pace, is_urgent: bool) {
        let now = Instant::now();
        if !is_urgent && self.told_at.is_some_and(|at| now - at < EVERY) {
            return;
        }
        self.told_at = Some(now);
        let qualities = looks.qualities();
        let counts = [qualities.good, qualities.uncertain, qualities.bad, qualities.stale, qualities.unread];
        for (gauge, count) in self.points.iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let figures = pace.figures();
        self.requests.set(i64::try_from(figures.requests).unwrap_or(i64::MAX));
        self.failed.set(i64::try_from(figures.failed).unwrap_or(i64::MAX));
        for (gauge, latency) in self.latencies.iter().zip([figures.p50, figures.p99]) {
            let micros = latency.map_or(0, |latency| latency.as_micros());
            gauge.set(i64::try_from(micros).unwrap_or(i64::MAX));
        }
    }
}
