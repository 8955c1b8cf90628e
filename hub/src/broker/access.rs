//! Who may publish and subscribe at the embedded broker. Closed by default; pure, so that every rule is tested.
//!
//! | who | publishes | subscribes |
//! |---|---|---|
//! | no login | nothing | everything if `anonymous_read`, else may not connect |
//! | agent: user `group/node` with the agents' password | births, data and deaths of that node | its commands and STATE |
//! | user of the list with a `node` | births, data and deaths of that node | its commands and STATE |
//! | user of the list without | nothing | everything |
//! | the hub itself | everything | everything |
//!
//! Nobody but the hub publishes commands (NCMD, DCMD), STATE or topics of a view. With `anonymous_read` everybody may
//! subscribe to everything. Identity comes from the login, never from the client id.

use model::NodeId;

use super::topic_filter::{covers, matches};

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Anonymous,
    /// Speaks for an edge node; `user` is the name in the list, `None` for an agent.
    Node {
        node: NodeId,
        user: Option<String>,
    },
    Reader(String),
}

/// A login of the list, with its password read.
#[derive(Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Vec<u8>,
    pub(super) node: Option<NodeId>,
}

/// The rules.
pub(super) struct Access {
    pub(super) anonymous_read: bool,
    pub(super) agent_password: Vec<u8>,
    pub(super) users: Vec<User>,
}

impl Access {
    /// Who logs in like this; `None`: nobody, refuse. Names of the list come before agents.
    pub(super) fn identify(&self, user: Option<&str>, password: Option<&[u8]>) -> Option<Identity> {
        let Some(user) = user else {
            return (self.anonymous_read && password.is_none()).then_some(Identity::Anonymous);
        };
        let password = password?;
        if let Some(known) = self.users.iter().find(|known| known.name == user) {
            return same(password, &known.password).then(|| known.identity());
        }
        let node = NodeId::parse(user).ok()?;
        same(password, &self.agent_password).then_some(Identity::Node { node, user: None })
    }

    /// The identity behind a name that [`Identity::name`] gave.
    pub(super) fn recall(&self, name: Option<&str>) -> Option<Identity> {
        let Some(name) = name else { return Some(Identity::Anonymous) };
        if let Some(node) = name.strip_prefix("agent:") {
            return NodeId::parse(node).ok().map(|node| Identity::Node { node, user: None });
        }
        let name = name.strip_prefix("user:")?;
        self.users.iter().find(|known| known.name == name).map(User::identity)
    }

    /// Whether the client may subscribe to the filter.
    pub(super) fn may_subscribe(&self, who: &Identity, filter: &str) -> bool {
        self.anonymous_read
            || match who {
                Identity::Anonymous => false,
                Identity::Reader(_) => true,
                Identity::Node { node, .. } => {
                    let (group, node) = (node.group(), node.node());
                    covers(&format!("spBv1.0/{group}/NCMD/{node}/#"), filter)
                        || covers(&format!("spBv1.0/{group}/DCMD/{node}/#"), filter)
                        || covers("spBv1.0/STATE/#", filter)
                }
            }
    }
}

impl User {
    fn identity(&self) -> Identity {
        match &self.node {
            Some(node) => Identity::Node { node: node.clone(), user: Some(self.name.clone()) },
            None => Identity::Reader(self.name.clone()),
        }
    }
}

impl Identity {
    /// The text that travels through the broker as the session's user; `None` without a login.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Anonymous => None,
            Self::Node { node, user: None } => Some(format!("agent:{node}")),
            Self::Node { user: Some(user), .. } | Self::Reader(user) => Some(format!("user:{user}")),
        }
    }

    /// Whether the client may publish to the topic; `reserved` says which belong to the hub's views.
    pub(super) fn may_publish<'a>(&self, topic: &str, reserved: impl IntoIterator<Item = &'a str>) -> bool {
        match self {
            Self::Anonymous | Self::Reader(_) => false,
            Self::Node { node, .. } => {
                is_of_node(topic, node) && !reserved.into_iter().any(|filter| matches(filter, topic))
            }
        }
    }
}

/// `spBv1.0/{group}/{NBIRTH…DDEATH}/{node}[/{device}]`: no commands.
fn is_of_node(topic: &str, node: &NodeId) -> bool {
    let levels: Vec<&str> = topic.split('/').collect();
    match levels.as_slice() {
        ["spBv1.0", group, "NBIRTH" | "NDATA" | "NDEATH", name] => {
            *group == node.group() && *name == node.node()
        }
        ["spBv1.0", group, "DBIRTH" | "DDATA" | "DDEATH", name, device] => {
            *group == node.group() && *name == node.node() && !device.is_empty()
        }
        _ => false,
    }
}

/// Compares in a time that depends on the lengths only.
fn same(given: &[u8], right: &[u8]) -> bool {
    given.len() == right.len()
        && !right.is_empty()
        && given.iter().zip(right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(anonymous_read: bool) -> Access {
        let user =
            |name: &str, node: Option<NodeId>| User { name: name.into(), password: b"pw".to_vec(), node };
        Access {
            anonymous_read,
            agent_password: b"secret".to_vec(),
            users: vec![user("peer", NodeId::new("plant", "n1").ok()), user("scada", None)],
        }
    }

    fn agent() -> Identity {
        Identity::Node { node: NodeId::new("g", "n").unwrap(), user: None }
    }

    #[test]
    fn logins_are_told_apart() {
        let (open, closed) = (access(true), access(false));
        assert_eq!(open.identify(None, None), Some(Identity::Anonymous));
        assert_eq!(closed.identify(None, None), None);
        assert_eq!(open.identify(Some("g/n"), Some(b"wrong!")), None);
        assert_eq!(open.identify(Some("g/n"), None), None);
        assert_eq!(open.identify(Some("g/n/x"), Some(b"secret")), None);
        assert_eq!(open.identify(Some("peer"), Some(b"secret")), None);
        assert_eq!(open.identify(Some("nobody"), Some(b"secret")), None);
        assert_eq!(open.identify(Some("nobody"), Some(b"")), None);
        assert_eq!(closed.identify(Some("g/n"), Some(b"secret")), Some(agent()));
        let peer = closed.identify(Some("peer"), Some(b"pw")).unwrap();
        let scada = closed.identify(Some("scada"), Some(b"pw")).unwrap();
        assert_eq!(scada, Identity::Reader("scada".into()));
        for who in [agent(), peer, scada, Identity::Anonymous] {
            assert_eq!(closed.recall(who.name().as_deref()), Some(who));
        }
        assert_eq!(closed.recall(Some("user:gone")), None);
    }

    #[test]
    fn a_node_speaks_only_for_itself_and_gives_no_commands() {
        let (access, who) = (access(false), agent());
        for allowed in ["spBv1.0/g/NBIRTH/n", "spBv1.0/g/DDATA/n/press", "spBv1.0/g/NDEATH/n"] {
            assert!(who.may_publish(allowed, []), "{allowed}");
        }
        for refused in [
            "spBv1.0/g/NCMD/n",
            "spBv1.0/g/DCMD/n/press",
            "spBv1.0/g/NDATA/m",
            "spBv1.0/h/NDATA/n",
            "spBv1.0/g/DDATA/n",
            "spBv1.0/g/DDATA/n/",
            "spBv1.0/g/NDATA/n/x",
            "spBv1.0/STATE/forebay",
            "acme/x",
        ] {
            assert!(!who.may_publish(refused, []), "{refused}");
        }
        assert!(!who.may_publish("spBv1.0/g/NDATA/n", ["spBv1.0/#"]), "a view's topics");
        assert!(access.may_subscribe(&who, "spBv1.0/g/DCMD/n/+"));
        assert!(access.may_subscribe(&who, "spBv1.0/g/NCMD/n"));
        assert!(access.may_subscribe(&who, "spBv1.0/g/NCMD/n/#"));
        assert!(access.may_subscribe(&who, "spBv1.0/STATE/forebay"));
        for refused in ["spBv1.0/g/DCMD/+/+", "#", "spBv1.0/g/NDATA/n", "acme/#"] {
            assert!(!access.may_subscribe(&who, refused), "{refused}");
        }
    }

    #[test]
    fn readers_read_and_nothing_else() {
        for who in [Identity::Anonymous, Identity::Reader("scada".into())] {
            assert!(!who.may_publish("spBv1.0/plant/NDATA/n1", []));
            assert!(!who.may_publish("any/thing", []));
            assert!(access(true).may_subscribe(&who, "#"));
        }
        assert!(access(false).may_subscribe(&Identity::Reader("scada".into()), "spBv1.0/#"));
        assert!(!access(false).may_subscribe(&Identity::Anonymous, "spBv1.0/#"));
    }
}
