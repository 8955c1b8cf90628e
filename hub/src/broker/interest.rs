//! Who subscribes to what at the embedded broker, so that views are rendered only for somebody.
//!
//! Errs on the safe side: a filter may be remembered longer than its subscription lives, never shorter. Beyond
//! [`FILTERS_MAX`] it answers "everything", and beyond [`FILTER_BYTES_MAX`] in all it takes no more.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::topic_filter::{matches, unshared};

/// Filters remembered one by one.
const FILTERS_MAX: usize = 10_000;

/// Longest filter: the longest path, percent-encoded, below enterprise and site.
const ONE_FILTER_BYTES_MAX: usize = 8 * 1024;

/// Bytes of all filters; those of clients without a login leave half of it for the others.
const FILTER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a remembered filter costs beside its text, about.
const FILTER_OVERHEAD: usize = 128;

/// Filters of the present subscribers.
#[derive(Debug, Default)]
pub struct Interest {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<String, Client>,
    filters: usize,
    bytes: usize,
    version: u64,
}

fn cost(filter: &str) -> usize {
    filter.len() + FILTER_OVERHEAD
}

#[derive(Debug, Default)]
struct Client {
    connections: usize,
    filters: HashSet<String>,
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
        if state.filters >= FILTERS_MAX {
            return Filters::everything();
        }
        let list: HashSet<&str> = state
            .clients
            .values()
            .flat_map(|client| client.filters.iter())
            .map(|filter| unshared(filter))
            .filter(|filter| super::topic_filter::overlap(filter, within))
            .collect();
        Filters { list: list.into_iter().map(str::to_owned).collect(), everything: false }
    }

    pub(super) fn connected(&self, client: &str) {
        self.lock().clients.entry(client.to_owned()).or_default().connections += 1;
    }

    /// An older connection of a client id may end after the newer one began: filters go with the last.
    pub(super) fn disconnected(&self, client: &str) {
        let mut state = self.lock();
        let Some(entry) = state.clients.get_mut(client) else { return };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections == 0 {
            let bytes: usize = entry.filters.iter().map(|filter| cost(filter)).sum();
            let filters = entry.filters.len();
            state.clients.remove(client);
            state.filters -= filters;
            state.bytes -= bytes;
            state.version += 1;
        }
    }

    /// Whether there is room for the filter; then it is remembered.
    pub(super) fn add(&self, client: &str, filter: &str, has_login: bool) -> bool {
        let mut state = self.lock();
        let room = if has_login { FILTER_BYTES_MAX } else { FILTER_BYTES_MAX / 2 };
        if filter.len() > ONE_FILTER_BYTES_MAX || state.bytes + cost(filter) > room {
            return false;
        }
        if state.clients.entry(client.to_owned()).or_default().filters.insert(filter.to_owned()) {
            state.filters += 1;
            state.bytes += cost(filter);
            state.version += 1;
        }
        true
    }

    pub(super) fn remove(&self, client: &str, filter: &str) {
        let mut state = self.lock();
        if state.clients.get_mut(client).is_some_and(|entry| entry.filters.remove(filter)) {
            state.filters -= 1;
            state.bytes -= cost(filter);
            state.version += 1;
        }
    }

    /// Clients with at least one connection.
    pub(super) fn clients(&self) -> usize {
        self.lock().clients.values().filter(|client| client.connections > 0).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_subscriptions_and_take_overs() {
        let interest = Interest::default();
        interest.connected("a");
        interest.add("a", "acme/#", false);
        interest.add("a", "acme/#", false);
        interest.add("a", "$share/g/acme/x", false);
        assert!(interest.filters("acme/#").want("acme/y"));
        assert!(interest.filters("other/#").is_empty());
        interest.connected("a"); // takes over
        interest.disconnected("a"); // the old one ends late
        assert!(interest.filters("acme/#").want("acme/x"));
        interest.remove("a", "acme/#");
        assert!(!interest.filters("acme/#").want("acme/y"));
        interest.disconnected("a");
        assert!(interest.filters("acme/#").is_empty());
        assert_eq!(interest.lock().filters, 0);
    }

    #[test]
    fn too_many_filters_mean_everything() {
        let interest = Interest::default();
        for n in 0..=FILTERS_MAX {
            interest.add("a", &n.to_string(), false);
        }
        assert!(interest.filters("acme/#").want("acme/never/asked"));
    }

    #[test]
    fn filters_have_bounded_bytes() {
        let interest = Interest::default();
        assert!(!interest.add("a", &"x".repeat(ONE_FILTER_BYTES_MAX + 1), true));
        let filter = |n: usize| format!("{n:0ONE_FILTER_BYTES_MAX$}");
        let taken = (0..).take_while(|n| interest.add("a", &filter(*n), true)).count();
        assert_eq!(taken, FILTER_BYTES_MAX / (ONE_FILTER_BYTES_MAX + FILTER_OVERHEAD));
        interest.remove("a", &filter(0));
        assert!(interest.add("b", &filter(0), true));
        assert!(!interest.add("b", &filter(taken), true));
        assert!(!interest.add("c", "acme/#", false));
        interest.connected("a");
        interest.disconnected("a");
        assert!(interest.add("b", &filter(taken), true));
    }
}
