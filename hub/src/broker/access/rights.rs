//! What one identity may do: its roles' filters with the identity's names in place, and what is reserved for the hub.

use std::sync::Arc;

use model::NodeId;

use super::file::{Role, RoleName};
use super::pattern::{Pattern, covers};

/// What belongs to the hub alone, whatever a role says (docs/specs/broker.md §3).
#[derive(Debug)]
pub(super) struct Reserved {
    /// `spBv1.0/STATE/{host id}`.
    state: String,
}

/// What an identity may do. Compiled once; shared by its connections.
#[derive(Debug)]
pub(in crate::broker) struct Rights {
    publish: Box<[Grant]>,
    subscribe: Box<[Grant]>,
    reserved: Arc<Reserved>,
}

/// A filter and the role that it is from.
#[derive(Debug)]
struct Grant {
    pattern: Pattern,
    filter: Box<str>,
    role: RoleName,
}

/// Why something may or may not be done, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This role's filter allows it.
    Allowed {
        /// Role.
        role: String,
        /// Filter, names in place.
        filter: String,
    },
    /// Several filters together allow it (a subscription that ends in `#`).
    AllowedTogether,
    /// Only the hub may, whatever the roles say.
    Reserved(&'static str),
    /// No role allows it.
    NoRole,
}

impl Reserved {
    pub(super) fn new(host_id: &str) -> Reserved {
        Reserved { state: format!("spBv1.0/STATE/{host_id}") }
    }

    /// Why nobody but the hub publishes this topic.
    fn reason(&self, topic: &str) -> Option<&'static str> {
        if topic.starts_with('$') {
            return Some("topics that begin with $ are the hub's own");
        }
        let rest = topic.strip_prefix("spBv1.0/")?;
        if matches!(rest.split('/').nth(1), Some("NCMD" | "DCMD")) {
            return Some("commands (NCMD, DCMD) come from the hub alone");
        }
        let below = topic.strip_prefix(self.state.as_str())?;
        (below.is_empty() || below.starts_with('/')).then_some("STATE of this host is the hub's own")
    }
}

impl Rights {
    /// Nothing to publish, everything to read but `$…`.
    pub(super) fn anonymous(reserved: Arc<Reserved>) -> Rights {
        let role = RoleName::from("anonymous");
        let subscribe = Box::new([Grant { pattern: Pattern::new("#"), filter: "#".into(), role }]);
        Rights { publish: Box::default(), subscribe, reserved }
    }

    /// The roles of an identity. Filters that need a node are left out where there is none.
    pub(super) fn new<'a>(
        roles: impl Iterator<Item = (&'a RoleName, &'a Role)>,
        name: &str,
        node: Option<&NodeId>,
        reserved: Arc<Reserved>,
    ) -> Rights {
        let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
        for (role, filters) in roles {
            for (from, to) in [(&filters.publish, &mut publish), (&filters.subscribe, &mut subscribe)] {
                to.extend(from.iter().filter_map(|template| {
                    let filter = expand(template, name, node)?;
                    Some(Grant {
                        pattern: Pattern::new(&filter),
                        filter: filter.into(),
                        role: RoleName::clone(role),
                    })
                }));
            }
        }
        Rights { publish: publish.into(), subscribe: subscribe.into(), reserved }
    }

    /// Whether the client may publish to the topic (a name without wildcards). Topics of views are the core's to check.
    pub(in crate::broker) fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|grant| grant.pattern.matches(topic)) && self.reserved.reason(topic).is_none()
    }

    /// Whether every topic that the filter can match may be read. `$share/group/` is looked through.
    pub(in crate::broker) fn may_subscribe(&self, filter: &str) -> bool {
        covers(self.subscribe.iter().map(|grant| &grant.pattern), filter)
    }

    /// Whether a message on this topic may be delivered to the client.
    pub(in crate::broker) fn may_receive(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|grant| grant.pattern.matches(topic))
    }

    /// [`Rights::may_publish`] with its reason.
    pub(super) fn judge_publish(&self, topic: &str) -> Verdict {
        if let Some(why) = self.reserved.reason(topic) {
            return Verdict::Reserved(why);
        }
        let grant = self.publish.iter().find(|grant| grant.pattern.matches(topic));
        grant.map_or(Verdict::NoRole, Grant::verdict)
    }

    /// [`Rights::may_subscribe`] with its reason.
    pub(super) fn judge_subscribe(&self, filter: &str) -> Verdict {
        let alone = self.subscribe.iter().find(|grant| covers(std::iter::once(&grant.pattern), filter));
        match alone {
            Some(grant) => grant.verdict(),
            None if self.may_subscribe(filter) => Verdict::AllowedTogether,
            None => Verdict::NoRole,
        }
    }
}

impl Grant {
    fn verdict(&self) -> Verdict {
        Verdict::Allowed { role: self.role.to_string(), filter: self.filter.to_string() }
    }
}

/// The filter with `%i`, `%g`, `%n` replaced; `%%` is a percent sign. `None` if it needs a node and there is none, or if
/// a name at its beginning would lead below `$`: names never widen what the template says.
pub(super) fn expand(template: &str, name: &str, node: Option<&NodeId>) -> Option<String> {
    let mut filter = String::with_capacity(template.len() + 32);
    let mut characters = template.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            filter.push(character);
            continue;
        }
        match characters.next()? {
            'i' => filter.push_str(name),
            'g' => filter.push_str(node?.group()),
            'n' => filter.push_str(node?.node()),
            '%' => filter.push('%'),
            _ => return None,
        }
    }
    (filter.starts_with('$') == template.starts_with('$')).then_some(filter)
}

#[cfg(test)]
mod tests;
