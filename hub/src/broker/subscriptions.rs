//! Who gets a topic: the tree of subscriptions, and routes worked out of it.
//!
//! A [`Route`] is the answer for one topic: each session once, whatever number of its filters match, with the highest QoS,
//! all subscription identifiers, and one member list per shared subscription group [MQTT-4.8.2]. Routes are kept until any
//! subscription changes, because a plant says the same topics again and again; the keeping is bounded.

use std::collections::HashMap;
use std::rc::Rc;

use proto::mqtt::QoS;

/// A session's place in the core's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionKey(pub(super) u32);

/// What a client asked for with a filter [MQTT-3.8.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    /// Whether retained messages are sent: 0 always, 1 if the subscription is new, 2 never.
    pub(super) retain_handling: u8,
    pub(super) identifier: Option<u32>,
}

impl Options {
    /// The byte of SUBSCRIBE, as the journal keeps it.
    pub(super) const fn byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | self.retain_handling << 4
    }

    /// Reads a byte that [`Options::byte`] wrote.
    pub(super) fn from_byte(byte: u8, identifier: Option<u32>) -> Options {
        Options {
            qos: QoS::try_from(byte & 3).unwrap_or(QoS::ExactlyOnce),
            no_local: byte & 4 != 0,
            retain_as_published: byte & 8 != 0,
            retain_handling: byte >> 4 & 3,
            identifier,
        }
    }
}

/// One session in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    pub(super) session: SessionKey,
    pub(super) qos: QoS,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: Box<[u32]>,
    /// What it gets of its own messages: as above without the filters that said no-local; `None`: nothing.
    pub(super) own: Own,
}

/// What a session gets of messages that it published itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The same as of others'.
    Same,
    /// Nothing: every matching filter said no-local.
    Nothing,
    /// Less: some filters said no-local.
    Less(Box<Receiver>),
}

/// Who gets a topic.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) receivers: Vec<Receiver>,
    pub(super) groups: Vec<Group>,
}

/// A shared subscription that matches: one of its members gets the message.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Vec<Receiver>,
    /// Whose turn it is.
    pub(super) turn: std::cell::Cell<usize>,
}

impl Route {
    pub(super) fn is_empty(&self) -> bool {
        self.receivers.is_empty() && self.groups.is_empty()
    }
}

/// Routes kept at most: the topics of a large hub; more are worked out again.
const ROUTES_MAX: usize = 20_000;

/// Bytes of topics of kept routes.
const ROUTE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Receivers in all kept routes.
const ROUTE_RECEIVERS_MAX: usize = 400_000;

/// All subscriptions.
#[derive(Default)]
pub(super) struct Subscriptions {
    root: Node,
    routes: HashMap<Box<str>, Rc<Route>, foldhash::fast::RandomState>,
    route_bytes: usize,
    route_receivers: usize,
    count: usize,
    nodes: usize,
}

/// What a level of a filter costs that no other filter shares: a map with room for four, of which one is taken.
pub(super) const NODE_BYTES: usize = 4 * size_of::<(Box<str>, Node)>() + 64;

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node, foldhash::fast::RandomState>,
    /// Filters that end here.
    here: Entries,
    /// Filters that end here with `#`.
    below: Entries,
}

#[derive(Default)]
struct Entries {
    plain: Subscribers,
    /// By the name of the share.
    shared: Vec<(Box<str>, Subscribers)>,
}

type Subscribers = Vec<(SessionKey, Options)>;

impl Subscriptions {
    /// Adds or replaces; `true` if it is new.
    pub(super) fn add(&mut self, session: SessionKey, filter: &str, options: Options) -> bool {
        self.forget_routes();
        let (group, filter) = split(filter);
        let entries = self.root.entries(filter, &mut self.nodes);
        let list = match group {
            None => &mut entries.plain,
            Some(group) => {
                let at = entries.shared.iter().position(|(name, _)| **name == *group).unwrap_or_else(|| {
                    entries.shared.push((group.into(), Vec::new()));
                    entries.shared.len() - 1
                });
                match entries.shared.get_mut(at) {
                    Some((_, members)) => members,
                    None => return false, // it was just put there
                }
            }
        };
        if let Some(known) = list.iter_mut().find(|(key, _)| *key == session) {
            known.1 = options;
            return false;
        }
        list.push((session, options));
        self.count += 1;
        true
    }

    /// Removes; `false` if there was none.
    pub(super) fn remove(&mut self, session: SessionKey, filter: &str) -> bool {
        self.forget_routes();
        let (group, filter) = split(filter);
        let levels: Vec<&str> = filter.split('/').collect();
        let removed = self.root.remove(&levels, group, session, &mut self.nodes);
        self.count -= usize::from(removed);
        removed
    }

    /// Number of subscriptions.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the tree without what its entries cost, about.
    pub(super) fn tree_bytes(&self) -> usize {
        self.nodes * NODE_BYTES
    }

    /// Who gets the topic.
    pub(super) fn route(&mut self, topic: &str) -> Rc<Route> {
        if let Some(route) = self.routes.get(topic) {
            return Rc::clone(route);
        }
        let mut found = Found::default();
        self.root.collect(topic, true, &mut found);
        let route = Rc::new(found.route());
        let receivers =
            route.receivers.len() + route.groups.iter().map(|group| group.members.len()).sum::<usize>();
        if self.routes.len() >= ROUTES_MAX
            || self.route_bytes + topic.len() > ROUTE_BYTES_MAX
            || self.route_receivers + receivers > ROUTE_RECEIVERS_MAX
        {
            self.forget_routes();
        }
        self.route_bytes += topic.len();
        self.route_receivers += receivers;
        self.routes.insert(topic.into(), Rc::clone(&route));
        route
    }

    fn forget_routes(&mut self) {
        if !self.routes.is_empty() {
            self.routes.clear();
            self.routes.shrink_to(1024);
            (self.route_bytes, self.route_receivers) = (0, 0);
        }
    }
}

fn split(filter: &str) -> (Option<&str>, &str) {
    match proto::mqtt::topic::shared(filter) {
        Some((group, filter)) => (Some(group), filter),
        None => (None, filter),
    }
}

impl Node {
    /// The list of a filter, made if need be. Depth is bounded by the levels that a filter may have.
    fn entries(&mut self, filter: &str, nodes: &mut usize) -> &mut Entries {
        let mut node = self;
        for level in filter.split('/') {
            if level == "#" {
                return &mut node.below;
            }
            node = node.children.entry(level.into()).or_insert_with(|| {
                *nodes += 1;
                Node::default()
            });
        }
        &mut node.here
    }

    fn remove(
        &mut self,
        levels: &[&str],
        group: Option<&str>,
        session: SessionKey,
        nodes: &mut usize,
    ) -> bool {
        let Some((level, rest)) = levels.split_first() else { return self.here.remove(group, session) };
        if *level == "#" {
            return self.below.remove(group, session);
        }
        let Some(child) = self.children.get_mut(*level) else { return false };
        let removed = child.remove(rest, group, session, nodes);
        if child.is_empty() {
            self.children.remove(*level);
            *nodes -= 1;
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }

    /// Collects what matches `rest`, the levels below this node. Wildcards at the first level do not match a topic that
    /// begins with `$` [MQTT-4.7.2-1]. Recursion ends with the topic's levels.
    fn collect<'a>(&'a self, rest: &str, is_first: bool, found: &mut Found<'a>) {
        let wildcards = !(is_first && rest.starts_with('$'));
        if wildcards {
            found.take(&self.below);
        }
        let (level, below) = match rest.split_once('/') {
            Some((level, below)) => (level, Some(below)),
            None => (rest, None),
        };
        let mut follow = |child: &'a Node| match below {
            Some(below) => child.collect(below, false, found),
            None => {
                found.take(&child.here);
                found.take(&child.below); // `a/#` matches `a` too
            }
        };
        if let Some(child) = self.children.get(level) {
            follow(child);
        }
        if wildcards && let Some(child) = self.children.get("+") {
            follow(child);
        }
    }
}

impl Entries {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.shared.is_empty()
    }

    fn remove(&mut self, group: Option<&str>, session: SessionKey) -> bool {
        let take = |list: &mut Subscribers| {
            let at = list.iter().position(|(key, _)| *key == session);
            at.map(|at| list.swap_remove(at)).is_some()
        };
        let Some(group) = group else { return take(&mut self.plain) };
        let Some(at) = self.shared.iter().position(|(name, _)| **name == *group) else { return false };
        let Some((_, members)) = self.shared.get_mut(at) else { return false };
        let removed = take(members);
        if members.is_empty() {
            self.shared.swap_remove(at);
        }
        removed
    }
}

#[derive(Default)]
struct Found<'a> {
    plain: Subscribers,
    groups: Vec<&'a Subscribers>,
}

impl<'a> Found<'a> {
    fn take(&mut self, entries: &'a Entries) {
        self.plain.extend_from_slice(&entries.plain);
        self.groups.extend(entries.shared.iter().map(|(_, members)| members));
    }

    fn route(mut self) -> Route {
        self.plain.sort_by_key(|(session, _)| *session);
        let receivers = self.plain.chunk_by(|(one, _), (other, _)| one == other).filter_map(merge).collect();
        let groups = self
            .groups
            .iter()
            .map(|members| Group {
                members: members.iter().filter_map(|one| merge(std::slice::from_ref(one))).collect(),
                turn: std::cell::Cell::new(0),
            })
            .collect();
        Route { receivers, groups }
    }
}

/// One receiver of all the matching subscriptions of one session.
fn merge(subscriptions: &[(SessionKey, Options)]) -> Option<Receiver> {
    let (session, _) = subscriptions.first()?;
    let options = || subscriptions.iter().map(|(_, options)| options);
    let own = if options().any(|options| options.no_local) {
        let others: Vec<(SessionKey, Options)> =
            subscriptions.iter().filter(|(_, options)| !options.no_local).copied().collect();
        merge(&others).map_or(Own::Nothing, |less| Own::Less(Box::new(less)))
    } else {
        Own::Same
    };
    Some(Receiver {
        session: *session,
        qos: options().map(|options| options.qos).max()?,
        retain_as_published: options().any(|options| options.retain_as_published),
        identifiers: options().filter_map(|options| options.identifier).collect(),
        own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(qos: QoS) -> Options {
        Options { qos, no_local: false, retain_as_published: false, retain_handling: 0, identifier: None }
    }

    fn sessions(subscriptions: &mut Subscriptions, topic: &str) -> Vec<u32> {
        subscriptions.route(topic).receivers.iter().map(|receiver| receiver.session.0).collect()
    }

    #[test]
    fn routes_are_what_the_filters_say() {
        const LEVELS: [&str; 4] = ["a", "b", "", "$x"];
        const PARTS: [&str; 5] = ["a", "b", "", "+", "#"];
        let mut filters: Vec<String> = Vec::new();
        for one in PARTS {
            filters.push(one.into());
            for two in PARTS.iter().filter(|_| one != "#") {
                filters.push(format!("{one}/{two}"));
                filters
                    .extend(PARTS.iter().filter(|_| *two != "#").map(|three| format!("{one}/{two}/{three}")));
            }
        }
        filters.retain(|filter| !filter.is_empty());
        let mut all = Subscriptions::default();
        for (key, filter) in (0..).zip(&filters) {
            assert!(all.add(SessionKey(key), filter, options(QoS::AtMostOnce)));
        }
        let mut topics: Vec<String> = LEVELS.iter().map(|level| (*level).to_owned()).collect();
        for depth in 0..3 {
            let longer: Vec<String> =
                topics.iter().filter(|topic| topic.matches('/').count() == depth).cloned().collect();
            for topic in longer {
                topics.extend(LEVELS.iter().map(|level| format!("{topic}/{level}")));
            }
        }
        let check = |all: &mut Subscriptions, present: &dyn Fn(u32) -> bool| {
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                let wanted: Vec<u32> = (0..)
                    .zip(&filters)
                    .filter(|(key, filter)| present(*key) && proto::mqtt::topic::matches(filter, topic))
                    .map(|(key, _)| key)
                    .collect();
                assert_eq!(sessions(all, topic), wanted, "{topic}");
            }
        };
        check(&mut all, &|_| true);
        for (key, filter) in (0..).zip(&filters).filter(|(key, _)| key % 2 == 0) {
            assert!(all.remove(SessionKey(key), filter));
            assert!(!all.remove(SessionKey(key), filter));
        }
        check(&mut all, &|key| key % 2 == 1);
        for (key, filter) in (0..).zip(&filters).filter(|(key, _)| key % 2 == 1) {
            assert!(all.remove(SessionKey(key), filter));
        }
        assert!(all.root.is_empty() && all.count() == 0, "nothing is left behind");
        assert_eq!((all.tree_bytes(), all.root.children.len()), (0, 0));
    }

    #[test]
    fn overlapping_filters_make_one_receiver() {
        let mut all = Subscriptions::default();
        let me = SessionKey(7);
        all.add(me, "a/#", Options { identifier: Some(1), no_local: true, ..options(QoS::AtLeastOnce) });
        all.add(me, "a/+", Options { identifier: Some(2), ..options(QoS::AtMostOnce) });
        all.add(me, "#", Options { retain_as_published: true, ..options(QoS::AtMostOnce) });
        let route = all.route("a/b");
        let [receiver] = route.receivers.as_slice() else { panic!("{route:?}") };
        let mut identifiers = receiver.identifiers.to_vec();
        identifiers.sort_unstable();
        assert_eq!(
            (receiver.qos, identifiers, receiver.retain_as_published),
            (QoS::AtLeastOnce, vec![1, 2], true)
        );
        let Own::Less(own) = &receiver.own else { panic!("{receiver:?}") };
        assert_eq!(
            (own.qos, &own.identifiers[..], own.retain_as_published),
            (QoS::AtMostOnce, &[2][..], true)
        );
        assert!(!all.add(me, "a/+", options(QoS::ExactlyOnce)), "replaced");
        assert_eq!(all.route("a/b").receivers[0].qos, QoS::ExactlyOnce);
        all.remove(me, "a/+");
        all.remove(me, "#");
        assert_eq!(all.route("a/b").receivers[0].own, Own::Nothing);
    }

    #[test]
    fn each_shared_group_is_apart() {
        let mut all = Subscriptions::default();
        for key in 0..3 {
            all.add(SessionKey(key), "$share/one/a/+", options(QoS::AtLeastOnce));
        }
        all.add(SessionKey(9), "$share/two/a/b", options(QoS::AtMostOnce));
        all.add(SessionKey(0), "a/b", options(QoS::AtMostOnce));
        let route = all.route("a/b");
        let mut sizes: Vec<usize> = route.groups.iter().map(|group| group.members.len()).collect();
        sizes.sort_unstable();
        assert_eq!((sizes, route.receivers.len(), all.count()), (vec![1, 3], 1, 5));
        assert!(all.remove(SessionKey(9), "$share/two/a/b"));
        assert!(!all.remove(SessionKey(9), "$share/one/a/+"));
        assert_eq!(all.route("a/b").groups.len(), 1);
    }

    #[test]
    fn kept_routes_are_bounded() {
        let mut all = Subscriptions::default();
        all.add(SessionKey(1), "#", options(QoS::AtMostOnce));
        for number in 0..50_000 {
            assert_eq!(sessions(&mut all, &format!("topic/{number}")), [1]);
        }
        assert!(all.routes.len() <= ROUTES_MAX && all.route_bytes <= ROUTE_BYTES_MAX);
    }
}
