//! What the system says changes in a folder: inotify, where it tells the truth.
//!
//! A mounted share tells of this machine's own writes only, so there is no watch on one; its folder is listed at each
//! poll. A watch may also lose events when there are too many: then everything counts as changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::time::Instant;

/// Names that are remembered; with more it is cheaper to list the folder.
const NAMES_MAX: usize = 1000;
/// A file that is written all the time is read so often at most.
const APART: Duration = Duration::from_millis(50);

/// What changed since it was last asked.
#[derive(Debug, Default)]
pub(in super::super) struct Changes {
    state: Mutex<State>,
    woken: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeSet<String>,
    /// More than the names.
    everything: bool,
    taken_at: Option<Instant>,
}

impl Changes {
    /// The names, in order; `None`: list the folder.
    pub(super) fn take(&self) -> Option<Vec<String>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken_at = Some(Instant::now());
        let names = std::mem::take(&mut state.names);
        if std::mem::take(&mut state.everything) { None } else { Some(names.into_iter().collect()) }
    }

    /// Until something has changed and the last look is a moment ago. May be cut off.
    pub(in super::super) async fn wait(&self) {
        loop {
            let woken = self.woken.notified();
            let due = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = state.everything || !state.names.is_empty();
                changed.then(|| state.taken_at.map_or_else(Instant::now, |at| at + APART))
            };
            match due {
                Some(due) => return tokio::time::sleep_until(due).await,
                None => woken.await,
            }
        }
    }

    fn add(&self, name: Option<&OsStr>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match name.and_then(OsStr::to_str) {
            Some(name) if state.names.len() < NAMES_MAX => drop(state.names.insert(name.to_owned())),
            _ => state.everything = true,
        }
        drop(state);
        self.woken.notify_one();
    }
}

/// A folder that is watched while this lives.
#[derive(Debug)]
pub(super) struct Watch {
    /// Device and inode of the folder.
    pub(super) folder: (u64, u64),
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches a folder; `None` where that does not work: then it is listed at each poll.
    pub(super) fn of(folder: &Path, identity: (u64, u64), changes: &Arc<Changes>) -> Option<Watch> {
        if !is_local(folder) {
            return None;
        }
        let into = Arc::clone(changes);
        let at = folder.to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if event.need_rescan() => into.add(None),
            Ok(Event { kind: EventKind::Access(AccessKind::Close(AccessMode::Write)), paths, .. })
            | Ok(Event {
                kind: EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any,
                paths,
                ..
            }) => {
                for path in paths {
                    into.add(path.file_name().filter(|_| path != at));
                }
            }
            Ok(_) => {} // somebody reads: we do
            Err(_) => into.add(None),
        })
        .ok()?;
        watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
        changes.add(None); // what happened before the watch
        Some(Watch { folder: identity, _watcher: watcher })
    }
}

/// Whether all that writes into the folder runs on this machine.
fn is_local(folder: &Path) -> bool {
    /// Magic numbers of statfs(2): NFS, SMB of three kinds, FUSE, 9p, AFS, Ceph, Coda, NCP.
    const SHARES: [u32; 10] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x5346_414f,
        0x00c3_6400,
        0x7375_7245,
        0x564c,
    ];
    rustix::fs::statfs(folder).is_ok_and(|found| {
        let magic = u32::try_from(i128::from(found.f_type) & 0xffff_ffff).unwrap_or(0);
        !SHARES.contains(&magic)
    })
}
