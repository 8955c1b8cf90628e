//! The agent's point catalogue: an append-only log of definitions, and the table of points that follows from it.
//!
//! A point's number ([`PointId`]) is its Sparkplug alias and is never used for another point. The same point (path,
//! device, metric, type) keeps its number over restarts and changes of unit, range or description; an entry is on
//! disk before the first record that uses it. Numbers begin at 1 and are dense.
//!
//! Points that the configuration no longer has are *retired*: their records may still be in the outbox, so births
//! name them until the outbox holds nothing from before this start.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use durable_log::{DiskStorage, LogError, Options, Storage, TwinLog};
use model::{DataType, NodeId, PointDefinition, PointId, PointPath};
use proto::account::path_hash;
use proto::log_record::{AgentId, CatalogueEntry, RecordError};
use proto::receipt::COMMAND_REPORT_METRIC;

/// Entries are small and few: small segments keep the tail that recovery reads short.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Never trimmed: bounded by the points that a plant can have had, not by policy.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Entries of one group: bounds the buffer, an interrupted start appends the rest at the next.
const GROUP_ENTRIES: usize = 1000;

/// Why the catalogue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry.
    #[error("catalogue entry {position}: {source}")]
    Entry {
        /// Its position.
        position: u64,
        /// What is wrong.
        source: RecordError,
    },
    /// Numbers are 32 bits.
    #[error("the catalogue has no number left for a new point; start with a new data_dir")]
    NoNumberLeft,
}

/// Number of a device in [`Points`]; 0 is the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub usize);

impl DeviceIndex {
    /// The node itself.
    pub const NODE: DeviceIndex = DeviceIndex(0);
}

/// A point of the catalogue.
#[derive(Debug)]
pub struct PointEntry {
    /// What it is.
    pub definition: PointDefinition,
    /// Hash of its path, for accounts.
    pub path_hash: u64,
    /// Whose it is.
    pub device: DeviceIndex,
    /// Whether the configuration has it.
    pub is_current: bool,
    /// The point whose alias its samples carry: itself, unless only its type has changed since.
    pub wire: PointId,
    /// Its metric name in births if that is not its own, because another point has it now.
    pub wire_name: Option<String>,
}

impl PointEntry {
    /// Metric name in births.
    #[must_use]
    pub fn metric(&self) -> &str {
        self.wire_name.as_deref().unwrap_or(&self.definition.metric)
    }
}

/// A device of the catalogue.
#[derive(Debug)]
pub struct DeviceEntry {
    /// `None` for the node itself.
    pub name: Option<String>,
    /// Points that births name, current ones first.
    pub points: Vec<PointId>,
}

/// All points, fixed for the life of the process.
#[derive(Debug, Default)]
pub struct Points {
    entries: Vec<Option<PointEntry>>,
    devices: Vec<DeviceEntry>,
    command_report: Option<PointId>,
}

impl Points {
    /// A point by its number.
    #[must_use]
    pub fn get(&self, id: PointId) -> Option<&PointEntry> {
        self.entries.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    /// One more than the highest number.
    #[must_use]
    pub fn end(&self) -> usize {
        self.entries.len()
    }

    /// All devices; the first is the node itself.
    #[must_use]
    pub fn devices(&self) -> &[DeviceEntry] {
        &self.devices
    }

    /// A device by name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<DeviceIndex> {
        self.devices.iter().position(|device| device.name.as_deref() == Some(name)).map(DeviceIndex)
    }

    /// A current point of a device by metric name.
    #[must_use]
    pub fn find(&self, device: DeviceIndex, metric: &str) -> Option<PointId> {
        let points = &self.devices.get(device.0)?.points;
        points.iter().copied().find(|id| {
            self.get(*id).is_some_and(|entry| entry.is_current && entry.definition.metric == metric)
        })
    }

    /// The point of the node that reports how commands ended.
    #[must_use]
    pub fn command_report(&self) -> Option<PointId> {
        self.command_report
    }
}

/// The open catalogue; its lock lasts as long as this.
#[derive(Debug)]
pub struct Catalogue {
    /// The table.
    pub points: Arc<Points>,
    /// The numbers of the definitions given to [`Catalogue::open`], in their order.
    pub current: Vec<PointId>,
    _log: TwinLog,
}

/// The node's own point that reports commands.
#[must_use]
pub fn command_report_definition(node: &NodeId) -> Option<PointDefinition> {
    Some(PointDefinition {
        path: PointPath::new(&format!("{}/{COMMAND_REPORT_METRIC}", node.node())).ok()?,
        device: None,
        metric: COMMAND_REPORT_METRIC.to_owned(),
        data_type: DataType::Bytes,
        unit: String::new(),
        min: None,
        max: None,
        writable: false,
        dead_band: None,
        description: "how commands ended".to_owned(),
    })
}

impl Catalogue {
    /// Opens the catalogue in `dir` and gives every definition its number; new entries are on disk afterwards.
    pub fn open(dir: &Path, epoch: u64, current: &[PointDefinition]) -> Result<Catalogue, CatalogueError> {
        Catalogue::open_on(storage(dir)?, storage(&dir.join("copy"))?, epoch, current)
    }

    /// The same on any two storages: the catalogue and its copy.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        copy: Arc<dyn Storage>,
        epoch: u64,
        current: &[PointDefinition],
    ) -> Result<Catalogue, CatalogueError> {
        let options = Options { segment_bytes: SEGMENT_BYTES, bytes_max: BYTES_MAX, ..Options::default() };
        let (mut log, recovery) = TwinLog::open(storage, copy, options, epoch)?;
        for repaired in &recovery.repaired {
            tracing::error!(%repaired, "the point catalogue");
        }
        let mut known = read_all(&log)?;
        let numbers = add_missing(&mut log, &mut known, current)?;
        let points = Arc::new(table(known, &numbers));
        Ok(Catalogue { points, current: numbers, _log: log })
    }
}

fn storage(dir: &Path) -> Result<Arc<DiskStorage>, LogError> {
    let made = DiskStorage::create(dir);
    made.map(Arc::new).map_err(|source| LogError::Io { doing: "creating", path: dir.to_owned(), source })
}

/// Definitions by number; index 0 is not used.
fn read_all(log: &TwinLog) -> Result<Vec<Option<PointDefinition>>, CatalogueError> {
    let view = log.view();
    let mut reader = view.reader(view.first());
    let mut known: Vec<Option<PointDefinition>> = vec![None];
    while let Some((position, bytes)) = reader.next()? {
        if bytes.is_empty() {
            continue; // damaged in both copies
        }
        let entry = CatalogueEntry::decode(bytes)
            .map_err(|source| CatalogueError::Entry { position: position.0, source })?;
        if let CatalogueEntry::Point { id, definition, .. } = entry {
            let at = usize::try_from(id.0).unwrap_or(usize::MAX);
            // Numbers are dense: a jump is damage, and must not become an allocation.
            if at == 0 || at > known.len() {
                let source = RecordError::Damaged("a point number out of order");
                return Err(CatalogueError::Entry { position: position.0, source });
            }
            if at == known.len() {
                known.push(None);
            }
            known[at] = Some(definition);
        }
    }
    Ok(known)
}

type Key = (Option<String>, String, PointPath, DataType);

fn key(definition: &PointDefinition) -> Key {
    (definition.device.clone(), definition.metric.clone(), definition.path.clone(), definition.data_type)
}

fn add_missing(
    log: &mut TwinLog,
    known: &mut Vec<Option<PointDefinition>>,
    current: &[PointDefinition],
) -> Result<Vec<PointId>, CatalogueError> {
    let mut by_key: HashMap<Key, usize> = HashMap::new();
    for (number, definition) in known.iter().enumerate() {
        if let Some(definition) = definition {
            by_key.insert(key(definition), number);
        }
    }
    let mut numbers = Vec::with_capacity(current.len());
    let mut encoded: Vec<Vec<u8>> = Vec::new();
    for definition in current {
        let number = *by_key.entry(key(definition)).or_insert_with(|| {
            known.push(None);
            known.len() - 1
        });
        let id = PointId(u32::try_from(number).map_err(|_| CatalogueError::NoNumberLeft)?);
        if known[number].as_ref() != Some(definition) {
            let entry = CatalogueEntry::Point { id, agent: AgentId(0), definition: definition.clone() };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            encoded.push(bytes);
            known[number] = Some(definition.clone());
        }
        numbers.push(id);
    }
    for group in encoded.chunks(GROUP_ENTRIES) {
        let group: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
        log.append_group(&group)?;
    }
    log.sync()?;
    Ok(numbers)
}

fn table(known: Vec<Option<PointDefinition>>, current: &[PointId]) -> Points {
    let mut points = Points { entries: Vec::new(), devices: Vec::new(), command_report: None };
    points.devices.push(DeviceEntry { name: None, points: Vec::new() });
    let mut devices: HashMap<String, usize> = HashMap::new();
    for definition in known {
        let id = PointId(u32::try_from(points.entries.len()).unwrap_or(u32::MAX));
        points.entries.push(definition.map(|definition| {
            let device = definition.device.as_ref().map_or(0, |name| {
                *devices.entry(name.clone()).or_insert_with(|| {
                    points.devices.push(DeviceEntry { name: Some(name.clone()), points: Vec::new() });
                    points.devices.len() - 1
                })
            });
            PointEntry {
                path_hash: path_hash(definition.path.as_str()),
                device: DeviceIndex(device),
                is_current: false,
                wire: id,
                wire_name: None,
                definition,
            }
        }));
    }
    for id in current {
        if let Some(entry) = entry_mut(&mut points.entries, *id) {
            entry.is_current = true;
            if entry.device == DeviceIndex::NODE && entry.definition.metric == COMMAND_REPORT_METRIC {
                points.command_report = Some(*id);
            }
        }
    }
    name_on_the_wire(&mut points);
    points
}

fn entry_mut(entries: &mut [Option<PointEntry>], id: PointId) -> Option<&mut PointEntry> {
    entries.get_mut(usize::try_from(id.0).ok()?)?.as_mut()
}

/// Metric names are unique within a birth: of points that share one, the current (else the newest) has it. One whose
/// type alone differs travels under that one's alias with its own datatype; others get a name of their own.
fn name_on_the_wire(points: &mut Points) {
    let mut order: Vec<usize> = (1..points.entries.len()).rev().collect();
    order.sort_by_key(|number| points.entries[*number].as_ref().is_none_or(|entry| !entry.is_current));
    let mut owners: HashMap<(DeviceIndex, String), PointId> = HashMap::new();
    for number in order {
        let id = PointId(u32::try_from(number).unwrap_or(u32::MAX));
        let Some(entry) = &points.entries[number] else { continue };
        let name = (entry.device, entry.definition.metric.clone());
        let Some(owner) = owners.get(&name).copied() else {
            owners.insert(name, id);
            points.devices[entry.device.0].points.push(id);
            continue;
        };
        let same_path = points.get(owner).is_some_and(|owner| owner.definition.path == entry.definition.path);
        let device = entry.device;
        if let Some(entry) = &mut points.entries[number] {
            if same_path {
                entry.wire = owner;
            } else {
                entry.wire_name = Some(format!("{}~{number}", entry.definition.metric));
                points.devices[device.0].points.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(device: &str, metric: &str, path: &str, data_type: DataType) -> PointDefinition {
        PointDefinition {
            path: PointPath::new(path).unwrap(),
            device: Some(device.to_owned()),
            metric: metric.to_owned(),
            data_type,
            unit: String::new(),
            min: None,
            max: None,
            writable: false,
            dead_band: None,
            description: String::new(),
        }
    }

    #[test]
    fn numbers_survive_restarts_and_are_never_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let a = definition("d", "a", "d/a", DataType::Int16);
        let b = definition("d", "b", "d/b", DataType::Int16);
        let first = Catalogue::open(dir.path(), 1, &[a.clone(), b.clone()]).unwrap();
        assert_eq!(first.current, [PointId(1), PointId(2)]);
        drop(first);
        let renamed = PointDefinition { unit: "bar".into(), ..b.clone() };
        let wider = definition("d", "a", "d/a", DataType::Double);
        let second = Catalogue::open(dir.path(), 2, &[renamed.clone(), wider]).unwrap();
        assert_eq!(second.current, [PointId(2), PointId(3)]);
        assert_eq!(second.points.get(PointId(2)).unwrap().definition, renamed);
        let retired = second.points.get(PointId(1)).unwrap();
        assert!(!retired.is_current);
        assert_eq!(retired.wire, PointId(3), "only the type changed: one metric");
        assert_eq!(second.points.devices()[1].points, [PointId(3), PointId(2)]);
        drop(second);
        let third = Catalogue::open(dir.path(), 3, &[a]).unwrap();
        assert_eq!(third.current, [PointId(1)]);
        assert_eq!(third.points.get(PointId(3)).unwrap().wire, PointId(1));
    }

    #[test]
    fn a_point_that_moved_keeps_its_own_alias_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(Catalogue::open(dir.path(), 1, &[definition("d", "a", "old/a", DataType::Int16)]).unwrap());
        let moved = definition("d", "a", "new/a", DataType::Int16);
        let opened = Catalogue::open(dir.path(), 2, &[moved]).unwrap();
        let (now, before) = (opened.points.get(PointId(2)).unwrap(), opened.points.get(PointId(1)).unwrap());
        assert_eq!((now.metric(), now.wire), ("a", PointId(2)));
        assert_eq!((before.metric(), before.wire), ("a~1", PointId(1)));
        assert_eq!(opened.points.devices()[1].points, [PointId(2), PointId(1)]);
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Catalogue::open(dir.path(), 1, &[]).unwrap();
        assert!(matches!(
            Catalogue::open(dir.path(), 2, &[]),
            Err(CatalogueError::Log(LogError::Locked { .. }))
        ));
    }
}
