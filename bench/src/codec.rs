//! Encode and decode of Sparkplug data payloads, ns per metric, beside prost on the same bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use prost::Message as _;
use proto::generated::sparkplug::Payload;
use proto::sparkplug::{PayloadView, encode};

use crate::figures::Figures;
use crate::generator::Records;

/// Measures for `time` each.
#[must_use]
pub fn run(metrics: usize, time: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut records = Records::new(metrics);
    let mut payload = Vec::new();
    records.encode_next(&mut payload);
    let bytes = payload.clone();
    figures.push(
        "bytes_per_metric",
        ratio(bytes.len(), metrics),
        "B",
        format!("{metrics} doubles per payload"),
    );
    let (batch, head) = records.last();
    let encode = per_call(time, || {
        payload.clear();
        let alias = |point: model::PointId| u64::from(point.0);
        encode::data(1, batch.accepted_at, &batch, &head, false, &|_| false, &alias, &mut payload);
        black_box(&payload);
    });
    figures.push("encode_ns_per_metric", encode / count(metrics), "ns", "our encoder");
    let ours = per_call(time, || {
        black_box(PayloadView::decode(black_box(&bytes)).is_ok());
    });
    figures.push("decode_ns_per_metric", ours / count(metrics), "ns", "our borrowed decoder");
    let prost = per_call(time, || {
        black_box(Payload::decode(black_box(bytes.as_slice())).is_ok());
    });
    figures.push("decode_prost_ns_per_metric", prost / count(metrics), "ns", "prost, same bytes");
    figures.push("decode_ratio_to_prost", prost / ours, "×", "prost's time by ours");
    figures
}

/// Nanoseconds per call: the best of five stretches, which noise cannot make shorter.
fn per_call(time: Duration, mut call: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (started, mut calls) = (Instant::now(), 0_u32);
        while started.elapsed() < time / 5 {
            for _ in 0..100 {
                call();
            }
            calls += 100;
        }
        best = best.min(started.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    best
}

fn count(number: usize) -> f64 {
    number.max(1) as f64
}

fn ratio(a: usize, b: usize) -> f64 {
    a as f64 / count(b)
}
