//! The hub's point catalogue as a bridge keeps it: what a record's numbers mean.
//!
//! Entries come with the feed, in order and without gaps; later entries of one id replace earlier ones, which changes
//! only what describes a point (its path, device and type are its identity). It holds no values and asks nobody.

use std::sync::Arc;

use model::{DataType, PointId};
use proto::log_record::{AgentId, CatalogueEntry};

/// Ids above this are refused: they are dense, so a larger one is damage, and would cost memory.
const ID_MAX: u32 = 16_000_000;

/// What a row needs to know of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Path relative to the site.
    pub path: Arc<str>,
    /// Sparkplug device; `None` for a metric of the node itself.
    pub device: Option<Arc<str>>,
    /// Type of its values.
    pub data_type: DataType,
}

/// Agents and points by number.
#[derive(Debug, Default)]
pub struct Catalogue {
    agents: Vec<Option<Arc<str>>>,
    points: Vec<Option<Point>>,
    next: u64,
}

/// An entry that cannot be in a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("catalogue id {0} is not plausible (ids are dense)")]
pub struct BadEntry(pub u32);

impl Catalogue {
    /// Number of the entry to ask for next.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Takes entries; `next` is the number of the one after them.
    pub fn apply(&mut self, entries: Vec<CatalogueEntry>, next: u64) -> Result<(), BadEntry> {
        for entry in entries {
            match entry {
                CatalogueEntry::Agent { id, node } => {
                    put(&mut self.agents, id.0, Arc::from(node.to_string()))?;
                }
                CatalogueEntry::Point { id, definition, .. } => {
                    let device = definition.device.as_deref().map(|device| self.shared_device(device));
                    let point = Point {
                        path: Arc::from(definition.path.as_str()),
                        device,
                        data_type: definition.data_type,
                    };
                    put(&mut self.points, id.0, point)?;
                }
            }
        }
        self.next = next;
        Ok(())
    }

    /// The point of a number.
    #[must_use]
    pub fn point(&self, id: PointId) -> Option<&Point> {
        self.points.get(id.0 as usize)?.as_ref()
    }

    /// The name `group/node` of an agent.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&Arc<str>> {
        self.agents.get(id.0 as usize)?.as_ref()
    }

    /// Points of one device follow each other, so the last one's name can nearly always be shared.
    fn shared_device(&self, device: &str) -> Arc<str> {
        let last = self.points.last().and_then(Option::as_ref).and_then(|point| point.device.as_ref());
        match last {
            Some(known) if **known == *device => Arc::clone(known),
            _ => Arc::from(device),
        }
    }
}

fn put<T: Clone>(list: &mut Vec<Option<T>>, id: u32, value: T) -> Result<(), BadEntry> {
    if id > ID_MAX {
        return Err(BadEntry(id));
    }
    let at = id as usize;
    if list.len() <= at {
        list.resize(at + 1, None);
    }
    if let Some(place) = list.get_mut(at) {
        *place = Some(value);
    }
    Ok(())
}
