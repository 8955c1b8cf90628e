//! Who subscribes to what at the embedded broker at present, so that views are rendered only for somebody.
//!
//! The core counts each filter once per connected client that has it. Beyond [`FILTERS_MAX`] different filters the
//! answer is "everything".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::topic_filter::{matches, overlap, unshared};

/// Different filters looked at one by one.
const FILTERS_MAX: usize = 10_000;

/// Filters of the connected clients.
#[derive(Debug, Default)]
pub struct Interest {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    filters: HashMap<Arc<str>, usize>,
    version: u64,
}

/// A copy of the filters at one time.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    list: Vec<String>,
    everything: bool,
}

impl Filters {
    /// Whether somebody wants this topic.
    #[must_use]
    pub fn want(&self, topic: &str) -> bool {
        self.everything || self.list.iter().any(|filter| matches(filter, topic))
    }

    /// Filters that want everything.
    #[must_use]
    pub const fn everything() -> Self {
        Filters { list: Vec::new(), everything: true }
    }

    /// Whether nobody wants anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.everything
    }
}

impl Interest {
    /// Changes whenever the filters do.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The filters that can match topics of `within`, each once.
    #[must_use]
    pub fn filters(&self, within: &str) -> Filters {
        let state = self.lock();
        if state.filters.len() >= FILTERS_MAX {
            return Filters::everything();
        }
        let mut list: Vec<String> = state
            .filters
            .keys()
            .map(|filter| unshared(filter))
            .filter(|filter| overlap(filter, within))
            .map(str::to_owned)
            .collect();
        list.sort_unstable();
        list.dedup();
        Filters { list, everything: false }
    }

    /// A connected client has the filter from now on.
    pub(super) fn add(&self, filter: &Arc<str>) {
        let mut state = self.lock();
        *state.filters.entry(Arc::clone(filter)).or_insert(0) += 1;
        state.version += 1;
    }

    /// One client less.
    pub(super) fn remove(&self, filter: &str) {
        let mut state = self.lock();
        let Some(clients) = state.filters.get_mut(filter) else { return };
        *clients -= 1;
        if *clients == 0 {
            state.filters.remove(filter);
        }
        state.version += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_counts_as_long_as_somebody_has_it() {
        let interest = Interest::default();
        let all: Arc<str> = "acme/#".into();
        interest.add(&all);
        interest.add(&all);
        interest.add(&"$share/g/acme/x".into());
        assert!(interest.filters("acme/#").want("acme/y"));
        assert!(interest.filters("other/#").is_empty());
        interest.remove("acme/#");
        assert!(interest.filters("acme/#").want("acme/y"));
        let version = interest.version();
        interest.remove("acme/#");
        assert!(interest.version() != version);
        assert!(!interest.filters("acme/#").want("acme/y") && interest.filters("acme/#").want("acme/x"));
        interest.remove("$share/g/acme/x");
        interest.remove("never/there");
        assert!(interest.filters("acme/#").is_empty());
    }

    #[test]
    fn too_many_filters_mean_everything() {
        let interest = Interest::default();
        for n in 0..FILTERS_MAX {
            interest.add(&n.to_string().into());
        }
        assert!(interest.filters("acme/#").want("acme/never/asked"));
    }
}
