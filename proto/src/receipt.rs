//! Receipts: what the hub holds on disk, per epoch of one agent (design §4.7).

use model::{Epoch, RangeSet, Timestamp};

/// Name of the NCMD metric that carries a receipt, as agents declare it in their NBIRTH (type Bytes).
pub const RECEIPT_METRIC: &str = "Forebay/Receipt";

/// Name of the node metric whose samples report how commands ended (type Bytes).
pub const COMMAND_REPORT_METRIC: &str = "Forebay/Command";

/// What the hub holds of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The hub's clock when it wrote this.
    pub hub_time: Timestamp,
    /// Durable offsets, per epoch.
    pub durable: Vec<(Epoch, RangeSet)>,
    /// Why the hub cannot write at the moment.
    pub holding: Option<String>,
}

/// Why bytes are no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt: {0}")]
pub struct ReceiptError(pub String);

impl Receipt {
    /// The metric's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a receipt: ranges must ascend, and there are at most `RECEIPT_RANGES_MAX` of them.
    pub fn decode(_bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        todo!()
    }
}

/// How a command ended: value of [`COMMAND_REPORT_METRIC`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReport {
    /// The command.
    pub id: model::CommandId,
    /// Its outcome.
    pub outcome: model::CommandOutcome,
    /// The point it was for.
    pub path: String,
    /// What the device showed afterwards; empty if it was not read.
    pub read_back: String,
}

impl CommandReport {
    /// The metric's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a report.
    pub fn decode(_bytes: &[u8]) -> Result<CommandReport, ReceiptError> {
        todo!()
    }
}
