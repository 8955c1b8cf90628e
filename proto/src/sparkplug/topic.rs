//! Sparkplug topics (3.0 §4.1) and the STATE payload (§5.17).
//!
//! ```text
//! spBv1.0/{group}/{NBIRTH|NDATA|NDEATH|NCMD}/{node}
//! spBv1.0/{group}/{DBIRTH|DDATA|DDEATH|DCMD}/{node}/{device}
//! spBv1.0/STATE/{host}
//! ```
//!
//! Ids are any UTF-8 text of 1 to `PATH_BYTES_MAX` bytes without `/`, `+`, `#` and NUL. What has another namespace,
//! another number of levels, an unknown type or a bad id is no topic of Sparkplug: `None`, never a guess.

use model::NodeId;
use model::address::check_sparkplug_id;

/// First level of every topic (tck-id-topic-structure-namespace-a).
pub const NAMESPACE: &str = "spBv1.0";

/// The kinds of message in the namespace `spBv1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum MessageType {
    NBirth,
    NData,
    NDeath,
    NCmd,
    DBirth,
    DData,
    DDeath,
    DCmd,
}

impl MessageType {
    /// Every kind.
    pub const ALL: [MessageType; 8] = [
        Self::NBirth,
        Self::NData,
        Self::NDeath,
        Self::NCmd,
        Self::DBirth,
        Self::DData,
        Self::DDeath,
        Self::DCmd,
    ];

    /// The level in a topic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NBirth => "NBIRTH",
            Self::NData => "NDATA",
            Self::NDeath => "NDEATH",
            Self::NCmd => "NCMD",
            Self::DBirth => "DBIRTH",
            Self::DData => "DDATA",
            Self::DDeath => "DDEATH",
            Self::DCmd => "DCMD",
        }
    }

    /// From the level in a topic: exactly, the standard's names are upper case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its topic has a device level.
    #[must_use]
    pub const fn has_device(self) -> bool {
        matches!(self, Self::DBirth | Self::DData | Self::DDeath | Self::DCmd)
    }
}

/// A topic of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `spBv1.0/{group}/{type}/{node}[/{device}]`; D messages have a device, N messages none.
    Node {
        /// What.
        kind: MessageType,
        /// Whose.
        node: NodeId,
        /// Of which device.
        device: Option<String>,
    },
    /// `spBv1.0/STATE/{host}`.
    State {
        /// The host application.
        host: String,
    },
}

impl Topic {
    /// Reads a topic name; `None` if it is not in the namespace or breaks its rules.
    #[must_use]
    pub fn parse(name: &str) -> Option<Topic> {
        let mut levels = name.split('/');
        if levels.next()? != NAMESPACE {
            return None;
        }
        let (first, second) = (levels.next()?, levels.next()?);
        let Some(third) = levels.next() else {
            let is_state = first == "STATE" && check_sparkplug_id(second).is_ok();
            return is_state.then(|| Topic::State { host: second.to_owned() });
        };
        let kind = MessageType::from_name(second)?;
        let node = NodeId::new(first, third).ok()?;
        let device = levels.next();
        if levels.next().is_some() || device.is_some() != kind.has_device() {
            return None;
        }
        if device.is_some_and(|device| check_sparkplug_id(device).is_err()) {
            return None;
        }
        Some(Topic::Node { kind, node, device: device.map(str::to_owned) })
    }

    /// A message about a node.
    #[must_use]
    pub fn node(kind: MessageType, node: &NodeId) -> Topic {
        Topic::Node { kind, node: node.clone(), device: None }
    }

    /// A message about a device.
    #[must_use]
    pub fn device(kind: MessageType, node: &NodeId, device: &str) -> Topic {
        Topic::Node { kind, node: node.clone(), device: Some(device.to_owned()) }
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State { host } => write!(f, "{NAMESPACE}/STATE/{host}"),
            Self::Node { kind, node, device } => {
                write!(f, "{NAMESPACE}/{}/{}/{}", node.group(), kind.name(), node.node())?;
                device.as_ref().map_or(Ok(()), |device| write!(f, "/{device}"))
            }
        }
    }
}

/// `{"online":true,"timestamp":1668114759262}`: payload of STATE, retained, QoS 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct StatePayload {
    /// Whether the host application is connected.
    pub online: bool,
    /// ms since 1970 UTC; the same in the will and in the birth of one session.
    pub timestamp: u64,
}

impl StatePayload {
    /// The JSON text.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{{\"online\":{},\"timestamp\":{}}}", self.online, self.timestamp)
    }

    /// Reads the JSON text; order and white space are free, other keys are ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<StatePayload> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::new("Werk Süd", "line-3").unwrap()
    }

    #[test]
    fn topics_print_and_parse() {
        // [tck-id-topic-structure] [tck-id-topic-structure-namespace-device-id-associated-message-types]
        for kind in MessageType::ALL {
            let topic = if kind.has_device() {
                Topic::device(kind, &node(), "Ölpumpe 1")
            } else {
                Topic::node(kind, &node())
            };
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
        }
        assert_eq!(
            Topic::device(MessageType::DData, &node(), "Ölpumpe 1").to_string(),
            "spBv1.0/Werk Süd/DDATA/line-3/Ölpumpe 1"
        );
        assert_eq!(Topic::parse("spBv1.0/STATE/forebay"), Some(Topic::State { host: "forebay".into() }));
        assert_eq!(Topic::State { host: "h".into() }.to_string(), "spBv1.0/STATE/h");
    }

    #[test]
    fn what_breaks_the_structure_is_no_topic() {
        for name in [
            "",
            "spBv1.0",
            "spBv1.0/g",
            "spBv1.0/g/NDATA",
            "spBv1.0/g/NDATA/",
            "spBv1.0//NDATA/n",
            "spBv1.0/g//n",
            "/spBv1.0/g/NDATA/n",
            "spBv1.0/g/NDATA/n/",
            // [tck-id-topic-structure-namespace-device-id-non-associated-message-types]
            "spBv1.0/g/NDATA/n/d",
            "spBv1.0/g/NCMD/n/d",
            "spBv1.0/STATE/h/d",
            // [tck-id-topic-structure-namespace-device-id-associated-message-types]
            "spBv1.0/g/DDATA/n",
            "spBv1.0/g/DDATA/n/",
            "spBv1.0/g/DDATA/n/d/e",
            // [tck-id-topic-structure-namespace-a]
            "spAv1.0/g/NDATA/n",
            "spbv1.0/g/NDATA/n",
            "STATE/h",
            // [tck-id-topic-structure-namespace-valid-group-id] and -valid-edge-node-id, -valid-device-id
            "spBv1.0/+/NDATA/n",
            "spBv1.0/g/NDATA/#",
            "spBv1.0/g/+/n",
            "spBv1.0/g/DDATA/n/a+b",
            "spBv1.0/g/DDATA/n/#",
            "spBv1.0/STATE/",
            "spBv1.0/STATE/+",
            "spBv1.0/g\0/NDATA/n",
            "spBv1.0/g/ndata/n",
            "spBv1.0/g/STATE/n",
        ] {
            assert_eq!(Topic::parse(name), None, "{name}");
        }
        let long = "x".repeat(model::limits::PATH_BYTES_MAX + 1);
        assert_eq!(Topic::parse(&format!("spBv1.0/g/NDATA/{long}")), None);
    }

    #[test]
    fn state_is_json_with_two_keys() {
        // [tck-id-host-topic-phid-birth-payload]
        let online = StatePayload { online: true, timestamp: 1_668_114_759_262 };
        assert_eq!(online.encode(), r#"{"online":true,"timestamp":1668114759262}"#);
        assert_eq!(StatePayload::decode(online.encode().as_bytes()), Some(online));
        let free = br#" { "x": [1, {}], "timestamp" : 1668114759262 , "online":true } "#;
        assert_eq!(StatePayload::decode(free), Some(online));
        for bad in ["", "ONLINE", "{}", r#"{"online":true}"#, r#"{"online":1,"timestamp":2}"#] {
            assert_eq!(StatePayload::decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(StatePayload::decode(br#"{"online":true,"timestamp":-1}"#), None);
        assert_eq!(StatePayload::decode(&[0xff; 40]), None);
        assert_eq!(StatePayload::decode("[".repeat(100_000).as_bytes()), None);
    }
}
