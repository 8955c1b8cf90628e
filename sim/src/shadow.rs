//! What must hold: the shadow of what sources offered and agents accepted, and the table as a reader sees it.
//!
//! Every reading has a number (`source`), so the shadow is two numbers per device: below `accepted` the agent has said
//! yes, below `offered` it may have. What breaks is kept as text, the first one only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bridge::batch::Row;

use crate::source;

/// Shared by everything that can see something wrong. Clones are the same shadow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    devices: Vec<Device>,
    /// By agent, epoch, offset, index: the device and number of its reading.
    rows: BTreeMap<(u32, i64, i64, u32), (usize, u64)>,
    /// Newest number of each device that came live.
    live: BTreeMap<usize, u64>,
    /// The same of history, where nothing is sent twice and order must hold there too.
    history: Option<BTreeMap<usize, u64>>,
    arrivals: BTreeMap<(u32, i64), (i64, i64)>,
    broken: Option<String>,
    /// Agents of which a backup was restored, or a source position damaged: sources may give again what was read since.
    repeats: BTreeSet<u32>,
    /// The hub's log may be damaged where a table has rows that the hub does not know of.
    may_double: bool,
}

#[derive(Debug)]
struct Device {
    agent: u32,
    paths: Vec<String>,
    accepted: u64,
    /// A restart goes on here at the earliest.
    resumes_from: u64,
    /// Its agent's disk is an older one: what was accepted since, and was on that disk only, is gone with it.
    rolled_back: bool,
    offered: u64,
    /// Numbers in the table.
    seen: BTreeMap<u64, u32>,
}

impl Shadow {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something does not hold.
    pub(crate) fn broken(&self, what: impl FnOnce() -> String) {
        let mut state = self.state();
        if state.broken.is_none() {
            state.broken = Some(what());
        }
    }

    pub(crate) fn what_broke(&self) -> Option<String> {
        self.state().broken.clone()
    }

    /// From now on order is demanded in the history stream too.
    pub(crate) fn watch_history(&self) {
        self.state().history = Some(BTreeMap::new());
    }

    /// A record may be in the table twice: docs/reliability.md, "not promised".
    pub(crate) fn may_double(&self) {
        self.state().may_double = true;
    }

    /// A new device; returns its number.
    pub(crate) fn add_device(&self, agent: u32, paths: Vec<String>) -> usize {
        let mut state = self.state();
        state.devices.push(Device {
            agent,
            paths,
            accepted: 0,
            resumes_from: 0,
            rolled_back: false,
            offered: 0,
            seen: BTreeMap::new(),
        });
        state.devices.len() - 1
    }

    /// A backup of an agent is restored: its sources go back too, and what they give again is accepted again.
    pub(crate) fn restored(&self, agent: usize) {
        let mut state = self.state();
        state.repeats.insert(u32::try_from(agent).unwrap_or(u32::MAX));
        state.live.clear();
        for device in state.devices.iter_mut().filter(|device| device.agent as usize == agent) {
            (device.resumes_from, device.rolled_back) = (0, true);
        }
    }

    /// S1: after a start the source goes on behind everything accepted, and not behind what was never offered.
    pub(crate) fn resumed(&self, device: usize, at: u64) {
        let (accepted, offered) = {
            let mut state = self.state();
            let Some(device) = state.devices.get_mut(device) else { return };
            if std::mem::take(&mut device.rolled_back) {
                (device.accepted, device.resumes_from) = (at, at);
            }
            (device.resumes_from, device.offered)
        };
        if at < accepted || at > offered {
            self.broken(|| {
                format!(
                    "S1: device {device} goes on at {at}, but {accepted} were accepted and {offered} offered"
                )
            });
        }
    }

    pub(crate) fn offers(&self, device: usize, end: u64) {
        if let Some(device) = self.state().devices.get_mut(device) {
            device.offered = device.offered.max(end);
        }
    }

    pub(crate) fn accepted(&self, device: usize, end: u64) {
        if let Some(device) = self.state().devices.get_mut(device) {
            device.accepted = device.accepted.max(end);
            device.resumes_from = end;
        }
    }

    /// Samples accepted so far.
    pub(crate) fn count(&self) -> u64 {
        self.state().devices.iter().map(|device| device.accepted).sum()
    }

    /// S2–S4: a row was committed.
    pub(crate) fn row(&self, agent: u32, row: &Row<'_>) {
        let mut state = self.state();
        let found = state.devices.iter().enumerate().find_map(|(at, device)| {
            let number = (device.agent == agent).then(|| source::number_in(row, &device.paths))??;
            Some((at, number))
        });
        let id = (agent, row.epoch, row.offset, row.index);
        let (repeats, may_double) = (state.repeats.contains(&agent), state.may_double);
        let wrong = match found {
            None => Some(format!("S2: a row that no source said: {row:?}")),
            Some((at, number)) => {
                let before = state.rows.insert(id, (at, number));
                let device = state.devices.get_mut(at);
                let (offered, times) = device.map_or((0, 0), |device| {
                    let times = device.seen.entry(number).or_default();
                    *times += 1;
                    (device.offered, *times)
                });
                if before.is_some() && !may_double {
                    Some(format!("S3: two rows with one identity: {row:?} and {before:?}"))
                } else if number >= offered {
                    Some(format!("S2: device {at} has not offered {number}: {row:?}"))
                } else if times > 1 && !repeats && !may_double {
                    Some(format!("S3: device {at} counts {number} {times} times: {row:?}"))
                } else if !repeats
                    && !row.is_historical
                    && state.live.insert(at, number).is_some_and(|old| old >= number)
                {
                    Some(format!("S4: live goes back at {number} of device {at}: {row:?}"))
                } else if row.is_historical
                    && state
                        .history
                        .as_mut()
                        .is_some_and(|history| history.insert(at, number).is_some_and(|old| old >= number))
                {
                    Some(format!("S4: history goes back at {number} of device {at}: {row:?}"))
                } else {
                    state.arrival(agent, row).filter(|_| false)
                }
            }
        };
        if let Some(what) = wrong.filter(|_| state.broken.is_none()) {
            state.broken = Some(what);
        }
    }

    /// Whether every number accepted is in the table.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing().is_none()
    }

    /// How many are accepted and not in the table.
    pub(crate) fn lacking(&self) -> u64 {
        let lacks = |device: &Device| device.accepted - device.seen.range(..device.accepted).count() as u64;
        self.state().devices.iter().map(lacks).sum()
    }

    /// The first that is accepted and not in the table.
    pub(crate) fn missing(&self) -> Option<String> {
        let state = self.state();
        state.devices.iter().enumerate().find_map(|(at, device)| {
            let first = (0..device.accepted).find(|number| !device.seen.contains_key(number))?;
            let more = (first..device.accepted).filter(|number| !device.seen.contains_key(number)).count();
            Some(format!("device {at} misses {more} of {} from {first} on", device.accepted))
        })
    }
}

impl State {
    /// S5: within an epoch arrival goes on with the offsets.
    fn arrival(&mut self, agent: u32, row: &Row<'_>) -> Option<String> {
        let key = (agent, row.epoch);
        let newest = self.arrivals.entry(key).or_insert((row.offset, row.arrival));
        if row.offset < newest.0 {
            return None; // history: judged by its neighbours when those came
        }
        let wrong = (row.arrival < newest.1)
            .then(|| format!("S5: arrival goes back from {} at offset {}: {row:?}", newest.1, newest.0));
        *newest = (row.offset, row.arrival);
        wrong
    }
}
