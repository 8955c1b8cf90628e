//! What a server can take in one call, asked for at each connection and kept.
//!
//! Servers that say nothing, or 0 ("no limit"), get calls of a size that any can take.

use opcua::types::{AttributeId, NodeId, ReadValueId, VariableId, Variant};

use super::calls;
use super::link::Link;
use crate::drivers::DriverError;

/// Operations in one call of a server that says nothing. The smallest PLCs say 100 and more, and do say it.
const OPERATIONS: usize = 500;
/// Operations in one call of a server that says that it takes everything: its answers stay small enough.
const OPERATIONS_MAX: usize = 2_000;
/// Monitored items of one subscription, if nobody says less.
const ITEMS: usize = 10_000;
/// Values asked for in one read of history.
pub(super) const HISTORY_VALUES: usize = 10_000;
/// Nodes in one read of history.
const HISTORY_NODES: usize = 50;

/// Counts that are never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) reads: usize,
    pub(super) browses: usize,
    pub(super) items_per_call: usize,
    pub(super) items_per_subscription: usize,
    pub(super) history_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            reads: OPERATIONS,
            browses: 100,
            items_per_call: OPERATIONS,
            items_per_subscription: ITEMS,
            history_nodes: HISTORY_NODES,
        }
    }
}

impl Limits {
    /// Asks the server.
    pub(super) async fn fetch(link: &mut Link) -> Result<Limits, DriverError> {
        let asked: [VariableId; 7] = [
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
            VariableId::Server_ServerCapabilities_MaxMonitoredItemsPerSubscription,
            VariableId::Server_ServerCapabilities_MaxMonitoredItems,
            VariableId::Server_ServerCapabilities_MaxBrowseContinuationPoints,
        ];
        // One by one call of few: also a server with a limit of 10 answers this.
        let nodes = asked.iter().map(|id| ReadValueId::new(NodeId::from(*id), AttributeId::Value)).collect();
        let answers = calls::read(link, &Limits::default(), nodes).await?;
        let said: Vec<Option<usize>> =
            answers.into_iter().map(|answer| answer.value.as_ref().and_then(count)).collect();
        Ok(Limits::of(&said))
    }

    /// From what the server said, in the order of the questions; 0 and nothing mean no limit.
    fn of(said: &[Option<usize>]) -> Limits {
        let limit = |nth: usize, silent: usize, most: usize| match said.get(nth).copied().flatten() {
            None => silent,
            Some(0) => most,
            Some(said) => said.min(most),
        };
        let default = Limits::default();
        let together = limit(5, ITEMS, ITEMS);
        // A browse of several nodes may need a continuation point for each.
        let points = limit(6, default.browses, OPERATIONS_MAX);
        Limits {
            reads: limit(0, OPERATIONS, OPERATIONS_MAX),
            browses: limit(1, default.browses, OPERATIONS_MAX).min(points),
            items_per_call: limit(2, OPERATIONS, OPERATIONS_MAX),
            items_per_subscription: limit(4, ITEMS, ITEMS).min(together),
            history_nodes: limit(3, HISTORY_NODES, HISTORY_NODES),
        }
    }
}

fn count(variant: &Variant) -> Option<usize> {
    match variant {
        Variant::UInt32(number) => usize::try_from(*number).ok(),
        Variant::UInt16(number) => Some(usize::from(*number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_and_silence_is_no_limit_of_zero() {
        assert_eq!(Limits::of(&[]), Limits::default());
        let said = [Some(7), Some(3), Some(5), Some(1), Some(100), Some(40), Some(2)];
        let limits = Limits::of(&said);
        assert_eq!((limits.reads, limits.browses, limits.items_per_call), (7, 2, 5));
        assert_eq!((limits.items_per_subscription, limits.history_nodes), (40, 1));
        let unlimited = Limits::of(&[Some(0); 7]);
        assert!(
            unlimited.reads > 0 && unlimited.browses > 0 && unlimited.items_per_subscription > 0,
            "{unlimited:?}"
        );
    }
}
