//! The hub's points and agents: names once, numbers everywhere else.
//!
//! Owns the durable, append-only list of [`CatalogueEntry`] and the maps over it. A number is never reused: points
//! count from 0, agents from 1. New entries are usable at once, but [`Catalogue::persist`] makes them durable before
//! the first record that uses them is appended, and [`Catalogue::entries_from`] shows only durable ones.
//!
//! A path belongs to one agent. Whoever claims a taken one gets `{group}/{node}/{path}` instead, and the caller is
//! told; the agent's own checksums keep counting with the path that it knows ([`PathHashes`]).

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use durable_log::{LogError, LogView, Options, Position, Recovery, Storage, TwinLog};
use model::limits::{AGENT_POINTS_MAX, PATH_BYTES_MAX};
use model::{NodeId, PointDefinition, PointId, PointPath};
use proto::account::path_hash;
use proto::log_record::{AgentId, CatalogueEntry, RecordError};

/// Points of one hub; a hostile node cannot take more memory than these need.
pub const POINTS_MAX: usize = 2_000_000;
/// Points of one agent, ever: twice what it may have at a time, so that one cannot use up the numbers of all.
const AGENT_POINTS_EVER_MAX: usize = 2 * AGENT_POINTS_MAX;
/// Agents of one hub.
pub const AGENTS_MAX: usize = 20_000;
/// Points that may stand under one path (other types, renamed metrics); bounds the search through them.
const SHARED_PATH_MAX: usize = 64;
/// Entries in one atomic group: bounds a group's bytes.
const GROUP_ENTRIES: usize = 256;
/// Largest encoded entry: every text of a definition at its bound.
const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// More than 2 million entries of usual size; the catalogue is never trimmed.
const BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

const _: () = assert!(8 * PATH_BYTES_MAX <= ENTRY_BYTES_MAX);

/// One point.
#[derive(Clone, Debug, PartialEq)]
pub struct PointEntry {
    /// Its number in this catalogue.
    pub id: PointId,
    /// Whose it is.
    pub agent: AgentId,
    /// What it is; `path` belongs to this agent alone.
    pub definition: PointDefinition,
    /// `proto::account::path_hash` of the path.
    pub path_hash: u64,
}

/// Hashes of a point's path, for accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathHashes {
    /// Of the path here.
    pub(crate) hub: u64,
    /// Of the path that the agent knows; another one only after a conflict.
    pub(crate) agent: u64,
}

/// A claim's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The point's number.
    pub(crate) id: PointId,
    /// Whether it is new here.
    pub(crate) is_new: bool,
    /// Whose the claimed path is, if it is somebody else's.
    pub(crate) taken_by: Option<PointId>,
}

/// Why the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The log under it.
    #[error("point catalogue")]
    Log(#[from] LogError),
    /// An entry cannot be read.
    #[error("point catalogue, entry {at}")]
    Entry {
        /// Its number.
        at: u64,
        /// Why.
        source: RecordError,
    },
    /// Numbers are not dense: entries are missing.
    #[error(
        "point catalogue, entry {at}: number {found} where {expected} was due; restore the folder from a backup"
    )]
    Gap {
        /// Entry.
        at: u64,
        /// Number there.
        found: u32,
        /// Number due.
        expected: u32,
    },
}

/// A bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this hub has its maximum of {limit} {what}")]
pub(crate) struct CatalogueFull {
    what: &'static str,
    limit: usize,
}

/// The hub's catalogue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalogue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: RwLock<Inner>,
    /// `None` if the catalogue was opened to be read only, or has been closed.
    log: Mutex<Option<TwinLog>>,
    view: LogView,
    /// Whether there are entries that are not durable yet.
    dirty: AtomicBool,
    recovery: Recovery,
}

#[derive(Debug, Default)]
struct Inner {
    points: Vec<Arc<PointEntry>>,
    hashes: Vec<PathHashes>,
    /// The next older point of the same path, by point.
    older: Vec<Option<PointId>>,
    newest: HashMap<PointPath, PointId>,
    agents: Vec<NodeId>,
    /// Points by agent, in the order of `agents`.
    agent_points: Vec<usize>,
    agent_ids: HashMap<NodeId, AgentId>,
    /// Not durable yet, in order; written as they stand by then.
    pending: Vec<Pending>,
}

/// An entry that is not durable yet.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Agent(AgentId),
    Point(PointId),
}

impl Catalogue {
    /// Opens or creates the catalogue on a storage, with its copy on another one: a lost entry would leave numbers in
    /// the plant log that nobody can read any more.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        copy: Arc<dyn Storage>,
        epoch: u64,
    ) -> Result<Self, CatalogueError> {
        let options =
            Options { bytes_max: BYTES_MAX, record_bytes_max: ENTRY_BYTES_MAX, ..Options::default() };
        let (log, recovery) = TwinLog::open(storage, copy, options, epoch)?;
        if recovery.cut.is_some() || !recovery.repaired.is_empty() {
            tracing::warn!(log = "catalogue", %recovery, "recovered");
        }
        let view = log.view();
        Self::load(Some(log), view, recovery)
    }

    /// What a folder holds, also while a hub writes it; changes nothing.
    pub(crate) fn read_only(dir: &Path) -> Result<Self, CatalogueError> {
        let (view, recovery) = LogView::open_read_only(dir)?;
        Self::load(None, view, recovery)
    }

    fn load(log: Option<TwinLog>, view: LogView, recovery: Recovery) -> Result<Self, CatalogueError> {
        let mut inner = Inner::default();
        let mut reader = view.reader(Position(0));
        while let Some((at, bytes)) = reader.next()? {
            if bytes.is_empty() {
                continue; // damaged in both copies: if a number is missing for it, that is said below
            }
            let entry =
                CatalogueEntry::decode(bytes).map_err(|source| CatalogueError::Entry { at: at.0, source })?;
            inner.load(at.0, entry)?;
        }
        let shared = Shared {
            inner: RwLock::new(inner),
            log: Mutex::new(log),
            view,
            dirty: AtomicBool::new(false),
            recovery,
        };
        Ok(Catalogue { shared: Arc::new(shared) })
    }

    /// What opening found.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    /// A point by number.
    #[must_use]
    pub fn point(&self, id: PointId) -> Option<Arc<PointEntry>> {
        self.read().points.get(id.0 as usize).cloned()
    }

    /// The newest point of that path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<PointId> {
        let path = PointPath::new(path).ok()?;
        self.read().newest.get(&path).copied()
    }

    /// Every point, by number.
    #[must_use]
    pub fn points(&self) -> Vec<Arc<PointEntry>> {
        self.read().points.clone()
    }

    /// How many points there are; grows only. Numbers are dense from 0.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().points.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An agent's Sparkplug name.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<NodeId> {
        self.read().agents.get((id.0 as usize).checked_sub(1)?).cloned()
    }

    /// Every agent, by number.
    #[must_use]
    pub fn agents(&self) -> Vec<(AgentId, NodeId)> {
        self.read().agents.iter().cloned().zip(1..).map(|(node, id)| (AgentId(id), node)).collect()
    }

    /// Durable entries from number `from` on, and the number to ask for next.
    #[must_use]
    pub fn entries_from(&self, from: u64) -> (Vec<CatalogueEntry>, u64) {
        let mut reader = self.shared.view.reader(Position(from));
        let (mut entries, mut next) = (Vec::new(), from);
        // A damaged entry ends the page: whoever asks again gets no further, and the log below reports it.
        while let Ok(Some((at, bytes))) = reader.next() {
            if !bytes.is_empty() {
                let Ok(entry) = CatalogueEntry::decode(bytes) else { break };
                entries.push(entry);
            }
            next = at.0 + 1;
        }
        (entries, next)
    }

    /// The number of an agent, which is made if it is new.
    pub(crate) fn agent_id(&self, node: &NodeId) -> Result<AgentId, CatalogueFull> {
        if let Some(id) = self.read().agent_ids.get(node) {
            return Ok(*id);
        }
        let mut inner = self.write();
        if let Some(id) = inner.agent_ids.get(node) {
            return Ok(*id);
        }
        if inner.agents.len() >= AGENTS_MAX {
            return Err(CatalogueFull { what: "edge nodes", limit: AGENTS_MAX });
        }
        let id = inner.add_agent(node.clone());
        inner.pending.push(Pending::Agent(id));
        self.shared.dirty.store(true, Ordering::Release);
        Ok(id)
    }

    /// Numbers for what an agent claims, in order. `shared_paths`: whether the agent may give one path to several of
    /// its own metrics (ours do, for retired ones); where not, the later one gets another path.
    pub(crate) fn assign(
        &self,
        agent: AgentId,
        claims: impl IntoIterator<Item = PointDefinition>,
        shared_paths: bool,
    ) -> Result<Vec<Assigned>, CatalogueFull> {
        let mut inner = self.write();
        let mut assigned = Vec::new();
        let before = inner.pending.len();
        let mut outcome = Ok(());
        for claim in claims {
            match inner.assign(agent, claim, shared_paths) {
                Ok(one) => assigned.push(one),
                Err(full) => {
                    outcome = Err(full);
                    break;
                }
            }
        }
        if inner.pending.len() > before {
            self.shared.dirty.store(true, Ordering::Release);
        }
        outcome.map(|()| assigned)
    }

    /// Makes every entry durable. Blocking; called by the store before it appends a record.
    pub(crate) fn persist(&self) -> Result<(), LogError> {
        let mut guard = lock(&self.shared.log); // first, so that nobody returns while another one still writes
        let Some(log) = guard.as_mut() else { return Ok(()) };
        if !self.shared.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.write().pending);
        self.append(log, &pending).inspect_err(|_| {
            // Entries may be written twice: later ones of one number replace earlier ones.
            let mut inner = self.write();
            let newer = std::mem::replace(&mut inner.pending, pending);
            inner.pending.extend(newer);
            self.shared.dirty.store(true, Ordering::Release);
        })
    }

    fn append(&self, log: &mut TwinLog, pending: &[Pending]) -> Result<(), LogError> {
        for group in pending.chunks(GROUP_ENTRIES) {
            let encoded: Vec<Vec<u8>> = group.iter().map(|entry| self.read().encode(*entry)).collect();
            let records: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
            log.append_group(&records)?;
        }
        log.sync().map(|_end| ())
    }

    /// Ends writing and lets go of the folder, whoever still holds a handle. After the store has closed.
    pub(crate) fn close(&self) {
        if let Err(error) = self.persist() {
            tracing::error!(%error, "the newest points are not on disk; no record uses them");
        }
        lock(&self.shared.log).take();
    }

    /// Path hashes, by point number.
    pub(crate) fn hashes(&self) -> impl std::ops::Deref<Target = Vec<PathHashes>> + '_ {
        struct Hashes<'a>(RwLockReadGuard<'a, Inner>);
        impl std::ops::Deref for Hashes<'_> {
            type Target = Vec<PathHashes>;
            fn deref(&self) -> &Vec<PathHashes> {
                &self.0.hashes
            }
        }
        Hashes(self.read())
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.shared.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.shared.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a path's points say about a claim.
enum Standing {
    Same(PointId),
    Free,
    TakenBy(PointId),
}

impl Inner {
    fn load(&mut self, at: u64, entry: CatalogueEntry) -> Result<(), CatalogueError> {
        let gap = |found: u32, expected: usize| {
            let expected = u32::try_from(expected).unwrap_or(u32::MAX);
            if found > expected { Err(CatalogueError::Gap { at, found, expected }) } else { Ok(()) }
        };
        match entry {
            CatalogueEntry::Agent { id, node } => {
                gap(id.0, self.agents.len() + 1)?;
                if id.0 as usize == self.agents.len() + 1 {
                    self.add_agent(node);
                }
            }
            CatalogueEntry::Point { id, agent, definition } => {
                gap(id.0, self.points.len())?;
                match self.points.get_mut(id.0 as usize) {
                    Some(old) => {
                        *old = Arc::new(PointEntry { definition, ..PointEntry::clone(old) });
                    }
                    None => {
                        self.add_point(agent, definition);
                    }
                }
            }
        }
        Ok(())
    }

    /// An entry's bytes as it stands now.
    fn encode(&self, pending: Pending) -> Vec<u8> {
        let mut bytes = Vec::new();
        match pending {
            Pending::Agent(id) => {
                if let Some(node) = (id.0 as usize).checked_sub(1).and_then(|at| self.agents.get(at)) {
                    CatalogueEntry::Agent { id, node: node.clone() }.encode(&mut bytes);
                }
            }
            Pending::Point(id) => {
                if let Some(entry) = self.points.get(id.0 as usize) {
                    let PointEntry { agent, definition, .. } = PointEntry::clone(entry);
                    CatalogueEntry::Point { id, agent, definition }.encode(&mut bytes);
                }
            }
        }
        bytes
    }

    #[expect(clippy::cast_possible_truncation, reason = "AGENTS_MAX fits")]
    fn add_agent(&mut self, node: NodeId) -> AgentId {
        self.agents.push(node.clone());
        self.agent_points.push(0);
        let id = AgentId(self.agents.len() as u32);
        self.agent_ids.insert(node, id);
        id
    }

    #[expect(clippy::cast_possible_truncation, reason = "POINTS_MAX fits")]
    fn add_point(&mut self, agent: AgentId, definition: PointDefinition) -> PointId {
        let id = PointId(self.points.len() as u32);
        let hub = path_hash(definition.path.as_str());
        let claimed = self.claimed_path(agent, &definition.path).map(path_hash);
        if let Some(points) = (agent.0 as usize).checked_sub(1).and_then(|at| self.agent_points.get_mut(at)) {
            *points += 1;
        }
        self.hashes.push(PathHashes { hub, agent: claimed.unwrap_or(hub) });
        self.older.push(self.newest.insert(definition.path.clone(), id));
        self.points.push(Arc::new(PointEntry { id, agent, definition, path_hash: hub }));
        id
    }

    /// What an agent claimed before it got this path: the part behind `{group}/{node}/`, if that is another's.
    fn claimed_path<'p>(&self, agent: AgentId, path: &'p PointPath) -> Option<&'p str> {
        let node = self.agents.get((agent.0 as usize).checked_sub(1)?)?;
        let rest = path.as_str().strip_prefix(node.group())?.strip_prefix('/')?;
        let rest = rest.strip_prefix(node.node())?.strip_prefix('/')?;
        let other = self.newest.get(&PointPath::new(rest).ok()?)?;
        (self.points.get(other.0 as usize)?.agent != agent).then_some(rest)
    }

    fn assign(
        &mut self,
        agent: AgentId,
        mut claim: PointDefinition,
        shared_paths: bool,
    ) -> Result<Assigned, CatalogueFull> {
        let mut taken_by = None;
        let claimed = claim.path.clone();
        for attempt in 0.. {
            match self.standing(agent, &claim, shared_paths) {
                Standing::Same(id) => {
                    self.redefine(id, claim);
                    return Ok(Assigned { id, is_new: false, taken_by });
                }
                Standing::Free => break,
                Standing::TakenBy(other) => {
                    taken_by.get_or_insert(other);
                    claim.path = self.other_path(agent, &claimed, attempt, &claim);
                }
            }
        }
        if self.points.len() >= POINTS_MAX {
            return Err(CatalogueFull { what: "points", limit: POINTS_MAX });
        }
        let of_agent = (agent.0 as usize).checked_sub(1).and_then(|at| self.agent_points.get(at)).copied();
        if of_agent.unwrap_or(0) >= AGENT_POINTS_EVER_MAX {
            return Err(CatalogueFull { what: "points of one agent", limit: AGENT_POINTS_EVER_MAX });
        }
        let id = self.add_point(agent, claim);
        self.pending.push(Pending::Point(id));
        Ok(Assigned { id, is_new: true, taken_by })
    }

    fn standing(&self, agent: AgentId, claim: &PointDefinition, shared_paths: bool) -> Standing {
        let mut next = self.newest.get(&claim.path).copied();
        let mut taken = None;
        let mut seen = 0;
        while let Some(id) = next {
            seen += 1;
            if seen >= SHARED_PATH_MAX {
                taken = Some(id);
            }
            let Some(entry) = self.points.get(id.0 as usize) else { break };
            let mine = entry.agent == agent;
            if mine && entry.definition.is_same_point(claim) {
                return Standing::Same(id);
            }
            let same_metric =
                entry.definition.device == claim.device && entry.definition.metric == claim.metric;
            if !(mine && (shared_paths || same_metric)) {
                taken = Some(id);
            }
            next = self.older.get(id.0 as usize).copied().flatten();
        }
        taken.map_or(Standing::Free, Standing::TakenBy)
    }

    fn redefine(&mut self, id: PointId, definition: PointDefinition) {
        let Some(entry) = self.points.get_mut(id.0 as usize) else { return };
        if entry.definition == definition {
            return;
        }
        *entry = Arc::new(PointEntry { definition, ..PointEntry::clone(entry) });
        self.pending.push(Pending::Point(id));
    }

    /// `{group}/{node}/{path}`; where that is taken too, with a hash of the metric behind it.
    fn other_path(
        &self,
        agent: AgentId,
        claimed: &PointPath,
        attempt: u32,
        claim: &PointDefinition,
    ) -> PointPath {
        let node = (agent.0 as usize).checked_sub(1).and_then(|at| self.agents.get(at));
        let prefix = node.map_or_else(|| agent.0.to_string(), NodeId::to_string);
        let path = if attempt == 0 {
            format!("{prefix}/{claimed}")
        } else {
            let metric = format!("{:?}/{}/{attempt}", claim.device, claim.metric);
            format!("{prefix}/{claimed}~{:016x}", path_hash(&metric))
        };
        fitting_path(&path).unwrap_or_else(|| claimed.clone())
    }
}

/// A text as a path: NUL is replaced, and a text beyond the bound ends in `~` and its hash. `None` if it is empty.
pub(crate) fn fitting_path(text: &str) -> Option<PointPath> {
    let text = text.replace('\0', "\u{fffd}");
    if text.len() <= PATH_BYTES_MAX {
        return PointPath::new(&text).ok();
    }
    let hash = format!("~{:016x}", path_hash(&text));
    let mut end = PATH_BYTES_MAX - hash.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    PointPath::new(&format!("{}{hash}", text.get(..end)?)).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
