//! What the ledger's entries add up to: every command's present state. Pure; the same code replays and runs.

use std::collections::{HashMap, VecDeque};

use model::{CommandId, CommandOutcome, CommandState, NodeId, Timestamp};

use super::CommandRecord;

/// Commands remembered; older ones are in the ledger only, and a report for them comes too late to be noted.
const KEPT_MAX: usize = 10_000;

/// How long an unknown end is looked for in the plant log at the next start: bounds how much is read.
const DOUBT_MICROS: i64 = 3_600_000_000;

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Somebody asked for it.
    Recorded(CommandRecord),
    /// From here on it may have been executed. `log_end`: a report can only lie at or above this place of the plant log.
    Sent { id: CommandId, at: Timestamp, node: NodeId, log_end: u64 },
    /// How it ended.
    Closed { id: CommandId, at: Timestamp, outcome: CommandOutcome, read_back: String },
    /// Nobody can say how it ended.
    Unknown { id: CommandId, at: Timestamp, why: String },
}

/// The commands.
#[derive(Debug, Default)]
pub(super) struct Book {
    kept: HashMap<CommandId, Kept>,
    /// Oldest first.
    order: VecDeque<CommandId>,
}

#[derive(Debug)]
struct Kept {
    record: CommandRecord,
    /// Who was asked, and where the plant log ended then.
    asked: Option<(NodeId, u64)>,
}

/// A command that was under way when the hub stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) id: CommandId,
    pub(super) asked: Option<(NodeId, u64)>,
}

impl Entry {
    pub(super) fn id(&self) -> CommandId {
        match self {
            Self::Recorded(record) => record.id,
            Self::Sent { id, .. } | Self::Closed { id, .. } | Self::Unknown { id, .. } => *id,
        }
    }

    fn becomes(&self) -> CommandState {
        match self {
            Self::Recorded(_) => CommandState::Recorded,
            Self::Sent { .. } => CommandState::Sent,
            Self::Closed { .. } => CommandState::Closed,
            Self::Unknown { .. } => CommandState::Unknown,
        }
    }
}

impl Book {
    /// Takes an entry; `Err` says which illegal transition it would be. Entries of forgotten commands change nothing.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        self.check(entry)?;
        let id = entry.id();
        if let Entry::Recorded(record) = entry {
            self.forget_oldest();
            self.order.push_back(id);
            self.kept.insert(id, Kept { record: record.clone(), asked: None });
            return Ok(());
        }
        let Some(kept) = self.kept.get_mut(&id) else { return Ok(()) };
        kept.record.state = entry.becomes();
        match entry {
            Entry::Recorded(_) => {}
            Entry::Sent { node, log_end, .. } => kept.asked = Some((node.clone(), *log_end)),
            Entry::Closed { at, outcome, read_back, .. } => {
                kept.record.outcome = Some(outcome.clone());
                kept.record.read_back.clone_from(read_back);
                kept.record.ended_at = Some(*at);
            }
            Entry::Unknown { at, why, .. } => {
                kept.record.outcome = Some(CommandOutcome::Unknown(why.clone()));
                kept.record.ended_at = Some(*at);
            }
        }
        Ok(())
    }

    /// Whether [`Book::apply`] would take the entry: asked before it goes into the ledger, which keeps it for ever.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), String> {
        let (id, to) = (entry.id(), entry.becomes());
        match (self.kept.get(&id), entry) {
            (Some(_), Entry::Recorded(_)) => Err(format!("command {id} is recorded twice")),
            (Some(kept), _) if !kept.record.state.may_become(to) => {
                Err(format!("command {id} cannot go from {:?} to {to:?}", kept.record.state))
            }
            _ => Ok(()),
        }
    }

    fn forget_oldest(&mut self) {
        while self.order.len() >= KEPT_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.kept.remove(&oldest);
        }
    }

    pub(super) fn get(&self, id: CommandId) -> Option<CommandRecord> {
        self.kept.get(&id).map(|kept| kept.record.clone())
    }

    pub(super) fn recent(&self, at_most: usize) -> Vec<CommandRecord> {
        self.order.iter().rev().take(at_most).filter_map(|id| self.get(*id)).collect()
    }

    /// Whether a report from `node` can end this command.
    pub(super) fn awaits(&self, id: CommandId, node: &NodeId) -> bool {
        self.kept.get(&id).is_some_and(|kept| {
            matches!(kept.record.state, CommandState::Sent | CommandState::Unknown)
                && kept.asked.as_ref().is_some_and(|(asked, _)| asked == node)
        })
    }

    /// What was under way, oldest first.
    pub(super) fn open(&self) -> Vec<Open> {
        let under_way =
            |kept: &&Kept| matches!(kept.record.state, CommandState::Recorded | CommandState::Sent);
        let kept = self.order.iter().filter_map(|id| self.kept.get(id));
        kept.filter(under_way).map(|kept| Open { id: kept.record.id, asked: kept.asked.clone() }).collect()
    }

    /// What nobody could say shortly before the newest entry: a report may have become durable that was not noted.
    pub(super) fn in_doubt(&self) -> Vec<Open> {
        let newest = self.kept.values().map(|kept| kept.record.ended_at.unwrap_or(kept.record.at)).max();
        let since = newest.map_or(i64::MAX, |newest| newest.0.saturating_sub(DOUBT_MICROS));
        let is_recent = |kept: &&Kept| {
            kept.record.state == CommandState::Unknown && kept.record.ended_at.is_some_and(|at| at.0 >= since)
        };
        let kept = self.order.iter().filter_map(|id| self.kept.get(id));
        kept.filter(is_recent).map(|kept| Open { id: kept.record.id, asked: kept.asked.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(id: u8) -> Entry {
        Entry::Recorded(CommandRecord {
            id: CommandId([id; 16]),
            path: "a/b".into(),
            value: "1".into(),
            author: "me".into(),
            reason: "test".into(),
            at: Timestamp(1),
            expires_at: Timestamp(2),
            state: CommandState::Recorded,
            outcome: None,
            read_back: String::new(),
            ended_at: None,
        })
    }

    fn sent(id: u8) -> Entry {
        let node = NodeId::new("g", "n").unwrap();
        Entry::Sent { id: CommandId([id; 16]), at: Timestamp(2), node, log_end: 7 }
    }

    fn closed(id: u8) -> Entry {
        let (outcome, read_back) = (CommandOutcome::Done, "1".to_owned());
        Entry::Closed { id: CommandId([id; 16]), at: Timestamp(3), outcome, read_back }
    }

    fn unknown(id: u8) -> Entry {
        Entry::Unknown { id: CommandId([id; 16]), at: Timestamp(3), why: "silence".into() }
    }

    #[test]
    fn only_legal_transitions_are_taken() {
        let mut book = Book::default();
        for entry in [recorded(1), sent(1), unknown(1), closed(1)] {
            book.apply(&entry).unwrap();
        }
        for entry in [closed(1), sent(1), recorded(1), unknown(1)] {
            assert!(book.apply(&entry).is_err(), "{entry:?} after it was closed");
        }
        book.apply(&recorded(2)).unwrap();
        assert!(book.apply(&unknown(2)).is_err(), "never sent is never unknown");
        book.apply(&closed(2)).unwrap();
        book.apply(&closed(9)).unwrap(); // forgotten long ago
        assert_eq!(book.recent(5).iter().map(|record| record.id.0[0]).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn only_the_agent_that_was_asked_may_report() {
        let mut book = Book::default();
        let (id, asked) = (CommandId([1; 16]), NodeId::new("g", "n").unwrap());
        book.apply(&recorded(1)).unwrap();
        assert!(!book.awaits(id, &asked), "not sent yet");
        assert_eq!(book.open(), [Open { id, asked: None }]);
        book.apply(&sent(1)).unwrap();
        assert!(book.awaits(id, &asked) && !book.awaits(id, &NodeId::new("g", "other").unwrap()));
        assert_eq!(book.open(), [Open { id, asked: Some((asked.clone(), 7)) }]);
        book.apply(&unknown(1)).unwrap();
        assert!(book.awaits(id, &asked), "a late report still counts");
        assert!(book.open().is_empty());
        book.apply(&closed(1)).unwrap();
        assert!(!book.awaits(id, &asked));
    }

    #[test]
    fn an_unknown_end_is_looked_for_only_while_it_is_recent() {
        let mut book = Book::default();
        for entry in [recorded(1), sent(1), unknown(1)] {
            book.apply(&entry).unwrap();
        }
        let asked = Some((NodeId::new("g", "n").unwrap(), 7));
        assert_eq!(book.in_doubt(), [Open { id: CommandId([1; 16]), asked }]);
        let Entry::Recorded(mut later) = recorded(2) else { unreachable!() };
        later.at = Timestamp(4 + DOUBT_MICROS);
        book.apply(&Entry::Recorded(later)).unwrap();
        assert_eq!(book.in_doubt(), []);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut book = Book::default();
        for n in 0..KEPT_MAX as u128 + 10 {
            let Entry::Recorded(mut record) = recorded(0) else { unreachable!() };
            record.id = CommandId(n.to_be_bytes());
            book.apply(&Entry::Recorded(record)).unwrap();
        }
        assert_eq!((book.kept.len(), book.order.len()), (KEPT_MAX, KEPT_MAX));
    }
}
