//! What the machine says: load, cores, and the CPU time and memory of a process (Linux, from /proc).

use std::fs;

/// Resident memory now and at its peak, and CPU time, of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUse {
    /// Resident bytes now.
    pub resident: u64,
    /// Resident bytes at most.
    pub peak: u64,
    /// Seconds of CPU, user and system.
    pub cpu_seconds: f64,
}

/// Reads them; zeros where /proc does not say.
#[must_use]
pub fn process_use(id: u32) -> ProcessUse {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    ProcessUse {
        resident: bytes("VmRSS:").unwrap_or(0),
        peak: bytes("VmHWM:").unwrap_or(0),
        cpu_seconds: cpu_seconds(id).unwrap_or(0.0),
    }
}

/// Ticks of `/proc/…/stat` are 1/100 s on every Linux that matters (`USER_HZ`).
fn cpu_seconds(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

/// One line about the machine, to stand above every table of figures.
#[must_use]
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_matches(['\t', ' ', ':']);
    format!("{cores} cores, {model}, load {}", load.split_whitespace().next().unwrap_or("?"))
}
