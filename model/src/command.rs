//! A write to a point: its identity, its states and their legal transitions (design §6).

use std::fmt;

/// Identity of a command: 128 random bits, at most one execution each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub [u8; 16]);

impl CommandId {
    /// From 32 hexadecimal digits, as it prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| CommandId(number.to_be_bytes()))
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Written and read back equal.
    Done,
    /// Not written, with the rule that forbade it.
    Refused(String),
    /// Not written, because its time had passed.
    Expired,
    /// Nobody can say whether it was written: why.
    Unknown(String),
}

impl fmt::Display for CommandOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Expired => f.write_str("expired"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

impl CommandOutcome {
    /// From the text that it prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(": ").unwrap_or((text, "")) {
            ("done", "") => Some(Self::Done),
            ("expired", "") => Some(Self::Expired),
            ("refused", why) => Some(Self::Refused(why.to_owned())),
            ("unknown", why) => Some(Self::Unknown(why.to_owned())),
            _ => None,
        }
    }
}

/// Where a command stands in the hub's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandState {
    /// Written to the ledger, not yet sent.
    Recorded,
    /// Given to the broker.
    Sent,
    /// Ended with a known outcome.
    Closed,
    /// Ended without one; a late outcome may still close it.
    Unknown,
}

impl CommandState {
    /// The legal transitions; all others are a bug.
    #[must_use]
    pub const fn may_become(self, next: CommandState) -> bool {
        matches!(
            (self, next),
            (Self::Recorded, Self::Sent | Self::Closed)
                | (Self::Sent, Self::Closed | Self::Unknown)
                | (Self::Unknown, Self::Closed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_outcomes_print_and_parse() {
        let id = CommandId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(CommandId::parse(&id.to_string()), Some(id));
        assert_eq!(CommandId::parse("+0010203040506070809101112131415f"), None);
        for outcome in [
            CommandOutcome::Done,
            CommandOutcome::Expired,
            CommandOutcome::Refused("range: 5 is above 3".into()),
            CommandOutcome::Unknown("no answer".into()),
        ] {
            assert_eq!(CommandOutcome::parse(&outcome.to_string()), Some(outcome));
        }
        assert!(!CommandState::Closed.may_become(CommandState::Sent));
    }
}
