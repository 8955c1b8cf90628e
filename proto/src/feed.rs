//! The hub's feed: pages of the plant log for bridges (docs/specs/feed.md).

use bytes::Bytes;
use model::Epoch;

use crate::log_record::CatalogueEntry;

/// One page; see `schema/hub_feed.proto` for the fields.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "documented in the schema")]
pub struct FeedPage {
    pub hub_id: String,
    pub enterprise: String,
    pub site: String,
    /// `(epoch, first position)` of every epoch of the plant log still held, ascending.
    pub epochs: Vec<(Epoch, u64)>,
    pub first: u64,
    pub next: u64,
    pub durable_end: u64,
    pub catalogue_next: u64,
    pub catalogue: Vec<CatalogueEntry>,
    /// `(position, encoded LogRecord)`, ascending.
    pub entries: Vec<(u64, Bytes)>,
}

/// Why bytes are no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a feed page: {0}")]
pub struct FeedError(pub String);

impl FeedPage {
    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a page without copying the records.
    pub fn decode(_bytes: Bytes) -> Result<FeedPage, FeedError> {
        todo!()
    }
}
