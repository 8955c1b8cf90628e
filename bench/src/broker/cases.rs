//! The cases by name: what is published to whom, in which variants, and which figures of it are shown.

use std::path::Path;
use std::time::Duration;

use super::peers::{Broker, Installed, Needs, Peer};
use super::throughput::Shape;
use super::{durable, idle, latency, stuck, throughput};
use crate::report::{Better, Column, Reading};

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As in `--case`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Part of the whole to which it belongs; also accepted by `--case`.
    pub group: &'static str,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Throughput(Shape),
    /// The same in the open and under TLS.
    Tls(Shape),
    Latency {
        qos: u8,
    },
    Idle,
    Durable {
        online: bool,
    },
    Stuck,
}

/// What is compared within one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Only,
    Plain,
    Tls,
    Undisturbed,
    Stuck,
}

impl Variant {
    /// Stands behind the peer's name; empty where there is one.
    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::Only => "",
            Variant::Plain => "plain",
            Variant::Tls => "TLS",
            Variant::Undisturbed => "all 20 read",
            Variant::Stuck => "10 stuck",
        }
    }
}

const fn shape(publishers: usize, subscribers: usize, qos: u8, payload_bytes: usize) -> Shape {
    Shape { publishers, subscribers, qos, payload_bytes }
}

const fn throughput(name: &'static str, title: &'static str, shape: Shape) -> Case {
    Case { name, title, group: "throughput", work: Work::Throughput(shape) }
}

/// Every case, in the order of the table.
pub const CASES: &[Case] = &[
    throughput("1x1q0", "1→1 QoS 0, 100 B", shape(1, 1, 0, 100)),
    throughput("1x10q0", "1→10 QoS 0, 100 B", shape(1, 10, 0, 100)),
    throughput("1x100q0", "1→100 QoS 0, 100 B", shape(1, 100, 0, 100)),
    throughput("1x1q1", "1→1 QoS 1, clean session, 100 B", shape(1, 1, 1, 100)),
    throughput("1x10q1", "1→10 QoS 1, clean session, 100 B", shape(1, 10, 1, 100)),
    throughput("10x1q1", "10→1 QoS 1, clean session, 100 B", shape(10, 1, 1, 100)),
    throughput("1x1q0-4k", "1→1 QoS 0, 4 KiB", shape(1, 1, 0, 4096)),
    throughput("1x10q0-4k", "1→10 QoS 0, 4 KiB", shape(1, 10, 0, 4096)),
    throughput("1x1q1-4k", "1→1 QoS 1, clean session, 4 KiB", shape(1, 1, 1, 4096)),
    throughput("1x10q1-4k", "1→10 QoS 1, clean session, 4 KiB", shape(1, 10, 1, 4096)),
    Case {
        name: "latency-q0",
        title: "5 000 msg/s, 1→1 QoS 0, 100 B",
        group: "latency",
        work: Work::Latency { qos: 0 },
    },
    Case {
        name: "latency-q1",
        title: "5 000 msg/s, 1→1 QoS 1, 100 B",
        group: "latency",
        work: Work::Latency { qos: 1 },
    },
    Case { name: "idle", title: "idle connections", group: "idle", work: Work::Idle },
    Case {
        name: "durable-online",
        title: "100 publishers QoS 1, kept session connected, 100 B",
        group: "durable",
        work: Work::Durable { online: true },
    },
    Case {
        name: "durable-offline",
        title: "100 publishers QoS 1, kept session away, 100 B",
        group: "durable",
        work: Work::Durable { online: false },
    },
    Case { name: "tls-1x1", title: "1→1 QoS 0, 100 B", group: "tls", work: Work::Tls(shape(1, 1, 0, 100)) },
    Case {
        name: "tls-1x10",
        title: "1→10 QoS 0, 100 B",
        group: "tls",
        work: Work::Tls(shape(1, 10, 0, 100)),
    },
    Case {
        name: "stuck",
        title: "10 of 20 subscribers never read, QoS 1",
        group: "stuck",
        work: Work::Stuck,
    },
];

const LOST: Column = Column { name: "lost", title: "lost", better: Better::Neither };
const PEAK: Column = Column { name: "peak_mb", title: "peak MB", better: Better::Neither };
const CORES: Column = Column { name: "cores", title: "cores", better: Better::Neither };
const LOAD_CORES: Column = Column { name: "load_cores", title: "load's cores", better: Better::Neither };
const PER_CPU: Column = Column { name: "m_per_cpu_s", title: "M/CPU-s", better: Better::Higher };
const DELIVERIES: Column = Column { name: "deliveries_per_s", title: "deliveries/s", better: Better::Higher };
const ACKNOWLEDGED: Column =
    Column { name: "acknowledged_per_s", title: "acknowledged/s", better: Better::Higher };
const SENT: Column = Column { name: "sent_per_s", title: "published/s", better: Better::Higher };
const P50: Column = Column { name: "p50_us", title: "p50 µs", better: Better::Lower };
const P99: Column = Column { name: "p99_us", title: "p99 µs", better: Better::Lower };
const P999: Column = Column { name: "p999_us", title: "p999 µs", better: Better::Lower };

impl Case {
    /// What is shown; the first is what the case is about.
    pub(super) fn columns(&self) -> &'static [Column] {
        match self.work {
            Work::Throughput(_) | Work::Tls(_) => &[PER_CPU, DELIVERIES, CORES, LOAD_CORES, PEAK, LOST],
            Work::Latency { .. } => &[P50, P99, P999, CORES, PEAK, LOST],
            Work::Idle => &[
                Column { name: "kb_at_10000", title: "KB each, 10 000", better: Better::Lower },
                Column { name: "kb_at_2000", title: "KB each, 2 000", better: Better::Lower },
                Column { name: "empty_mb", title: "MB with one", better: Better::Neither },
            ],
            Work::Durable { .. } => &[ACKNOWLEDGED, CORES, LOAD_CORES, PEAK, LOST],
            Work::Stuck => &[SENT, P99, P999, P50, CORES, PEAK, LOST],
        }
    }

    pub(super) fn variants(&self) -> &'static [Variant] {
        match self.work {
            Work::Tls(_) => &[Variant::Plain, Variant::Tls],
            Work::Stuck => &[Variant::Undisturbed, Variant::Stuck],
            Work::Throughput(_) | Work::Latency { .. } | Work::Idle | Work::Durable { .. } => {
                &[Variant::Only]
            }
        }
    }

    /// Whether the peer takes part: rumqttd is not set up for TLS, and keeps nothing on disk.
    pub(super) fn suits(&self, peer: Peer) -> bool {
        match self.work {
            Work::Tls(_) => matches!(peer, Peer::Forebay | Peer::Mosquitto),
            Work::Durable { .. } => peer != Peer::Rumqttd,
            Work::Throughput(_) | Work::Latency { .. } | Work::Idle | Work::Stuck => true,
        }
    }

    /// One run of one contestant: a fresh broker, the load, the figures.
    pub(super) fn run(
        &self,
        installed: &Installed,
        variant: Variant,
        dir: &Path,
        time: Duration,
    ) -> Result<Vec<Reading>, String> {
        if matches!(self.work, Work::Idle) {
            idle::allow_files()?;
        }
        let needs = Needs {
            disk: matches!(self.work, Work::Durable { .. }),
            tls: variant == Variant::Tls,
            default_queues: matches!(self.work, Work::Stuck),
        };
        let broker: Broker = installed.start(dir, needs)?;
        match self.work {
            Work::Throughput(shape) | Work::Tls(shape) => throughput::run(&broker, shape, time),
            Work::Latency { qos } => latency::run(&broker, qos, time),
            Work::Idle => idle::run(&broker),
            Work::Durable { online } => durable::run(&broker, online, time),
            Work::Stuck => stuck::run(&broker, variant == Variant::Stuck, time),
        }
    }
}

/// The cases of names and groups, in the table's order; all for none. The error names what is unknown.
pub fn select(names: &[String]) -> Result<Vec<Case>, String> {
    for name in names {
        if !CASES.iter().any(|case| case.name == name || case.group == name) {
            let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            return Err(format!("there is no case {name}; there are {}", known.join(", ")));
        }
    }
    let wanted =
        |case: &&Case| names.is_empty() || names.iter().any(|name| name == case.name || name == case.group);
    Ok(CASES.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_and_by_group() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            select(&wanted).map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["idle", "1x1q0"]).unwrap(), ["1x1q0", "idle"]);
        assert_eq!(names(&["latency"]).unwrap(), ["latency-q0", "latency-q1"]);
        assert_eq!(names(&[]).unwrap().len(), CASES.len());
        assert!(names(&["1x1q3"]).unwrap_err().contains("no case 1x1q3; there are 1x1q0, "));
    }
}
