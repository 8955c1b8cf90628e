//! The hub's points and agents: names once, numbers everywhere else.
//!
//! Owns the durable, append-only list of [`CatalogueEntry`] and the maps over it. A number is never reused. New
//! entries are usable at once, but the store makes them durable before the first record that uses them, and
//! [`Catalogue::entries_from`] shows only durable ones.

use std::sync::Arc;

use model::{NodeId, PointDefinition, PointId};
use proto::log_record::{AgentId, CatalogueEntry};

/// One point.
#[derive(Clone, Debug, PartialEq)]
pub struct PointEntry {
    /// Its number in this catalogue.
    pub id: PointId,
    /// Whose it is.
    pub agent: AgentId,
    /// What it is; `path` is unique among the agents.
    pub definition: PointDefinition,
    /// `proto::account::path_hash` of the path.
    pub path_hash: u64,
}

/// The hub's catalogue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalogue {}

impl Catalogue {
    /// A point by number.
    #[must_use]
    pub fn point(&self, _id: PointId) -> Option<Arc<PointEntry>> {
        todo!()
    }

    /// The newest point of that path.
    #[must_use]
    pub fn find(&self, _path: &str) -> Option<PointId> {
        todo!()
    }

    /// Every point, by number.
    #[must_use]
    pub fn points(&self) -> Vec<Arc<PointEntry>> {
        todo!()
    }

    /// How many points there are; grows only. Numbers are dense from 0.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An agent's Sparkplug name.
    #[must_use]
    pub fn agent(&self, _id: AgentId) -> Option<NodeId> {
        todo!()
    }

    /// Durable entries from number `from` on, and the number to ask for next.
    #[must_use]
    pub fn entries_from(&self, _from: u64) -> (Vec<CatalogueEntry>, u64) {
        todo!()
    }
}
