//! Where a point stands in the plant (ISA-95) and which Sparkplug edge node speaks for it.

use std::fmt;
use std::sync::Arc;

use crate::limits::PATH_BYTES_MAX;

/// Path of a point relative to its site: `area/line/cell/point`, any number of levels.
///
/// Any text of 1 to [`PATH_BYTES_MAX`] bytes without NUL is a path: `/` separates levels, and umlauts, `+`, `#`
/// and empty levels are allowed, because foreign metric names contain them (topics encode them).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointPath(Arc<str>);

/// Why a text is no path or node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is nothing in it.
    Empty,
    /// It has more bytes than allowed: the limit.
    TooLong(usize),
    /// It contains a character that cannot be in it.
    Forbidden(char),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong(limit) => write!(f, "must not have more than {limit} bytes"),
            Self::Forbidden(character) => write!(f, "must not contain {character:?}"),
        }
    }
}

impl std::error::Error for AddressError {}

impl PointPath {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        check(text, PATH_BYTES_MAX, &['\0'])?;
        Ok(PointPath(text.into()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for PointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A Sparkplug edge node: group id and edge node id (Sparkplug 3.0 §4.1). It is the `agent` of an identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    group: Arc<str>,
    node: Arc<str>,
}

impl NodeId {
    /// Checks both ids: not empty, no `/`, `+`, `#` or NUL (Sparkplug 3.0, tck-id-topic-structure-namespace-*).
    pub fn new(group: &str, node: &str) -> Result<Self, AddressError> {
        check_sparkplug_id(group)?;
        check_sparkplug_id(node)?;
        Ok(NodeId { group: group.into(), node: node.into() })
    }

    /// From `group/node`, as [`NodeId`] prints it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (group, node) = text.split_once('/').ok_or(AddressError::Empty)?;
        Self::new(group, node)
    }

    /// The group id.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The edge node id.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.node)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a text can be a Sparkplug group, node, device or host id.
pub fn check_sparkplug_id(text: &str) -> Result<(), AddressError> {
    check(text, PATH_BYTES_MAX, &['/', '+', '#', '\0'])
}

fn check(text: &str, limit: usize, forbidden: &[char]) -> Result<(), AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.len() > limit {
        return Err(AddressError::TooLong(limit));
    }
    match text.chars().find(|c| forbidden.contains(c)) {
        Some(character) => Err(AddressError::Forbidden(character)),
        None => Ok(()),
    }
}
