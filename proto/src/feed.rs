//! The hub's feed: pages of the plant log for bridges (docs/specs/feed.md).

use bytes::Bytes;
use model::Epoch;
use prost::Message;

use crate::generated::feed as wire;
use crate::log_record::CatalogueEntry;
use crate::seal::{self, Seal};

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
    /// Positions of entries that the asking sink has refused before, ascending: they are in the hub's quarantine, and come
    /// back as [`crate::log_record::LogRecord::Again`] if somebody retries them.
    pub set_aside: Vec<u64>,
}

/// Why bytes are no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a feed page: {0}")]
pub struct FeedError(pub String);

impl FeedPage {
    /// The page's bytes, sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let catalogue = self.catalogue.iter().map(|entry| {
            let mut bytes = Vec::with_capacity(128);
            entry.encode(&mut bytes);
            Bytes::from(bytes)
        });
        let epochs =
            self.epochs.iter().map(|(epoch, start)| wire::EpochSpan { epoch: epoch.0, start: *start });
        let entries = self.entries.iter();
        let page = wire::FeedPage {
            hub_id: self.hub_id.clone(),
            enterprise: self.enterprise.clone(),
            site: self.site.clone(),
            epochs: epochs.collect(),
            first: self.first,
            next: self.next,
            durable_end: self.durable_end,
            catalogue_next: self.catalogue_next,
            catalogue: catalogue.collect(),
            entries: entries
                .map(|(position, record)| wire::LogEntry { position: *position, record: record.clone() })
                .collect(),
            set_aside: self.set_aside.clone(),
            forebay_seal: None, // put behind everything
        };
        let mut bytes = page.encode_to_vec();
        seal::put(seal::FEED, &mut bytes);
        bytes
    }

    /// Reads a page without copying the records: it must be whole, and positions must ascend and lie within what the page
    /// says of itself.
    pub fn decode(bytes: Bytes) -> Result<FeedPage, FeedError> {
        match seal::check(seal::FEED, &bytes) {
            Seal::Whole => {}
            Seal::Absent => return Err(FeedError("it has no seal".to_owned())),
            Seal::Broken => return Err(FeedError("it was changed on its way".to_owned())),
        }
        let page = wire::FeedPage::decode(bytes).map_err(|error| FeedError(error.to_string()))?;
        let mut epochs: Vec<(Epoch, u64)> = Vec::with_capacity(page.epochs.len());
        for span in &page.epochs {
            let epoch = Epoch::from_random(span.epoch).filter(|epoch| epoch.0 == span.epoch);
            let epoch = epoch.ok_or_else(|| FeedError("an epoch that cannot be".to_owned()))?;
            if epochs.last().is_some_and(|(_, start)| span.start < *start) {
                return Err(FeedError("epochs do not ascend".to_owned()));
            }
            epochs.push((epoch, span.start));
        }
        let mut entries: Vec<(u64, Bytes)> = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            if entries.last().is_some_and(|(before, _)| entry.position <= *before)
                || entry.position >= page.next
            {
                return Err(FeedError(format!("position {} is out of order", entry.position)));
            }
            entries.push((entry.position, entry.record));
        }
        let catalogue: Result<Vec<_>, _> = page.catalogue.iter().map(|b| CatalogueEntry::decode(b)).collect();
        Ok(FeedPage {
            hub_id: page.hub_id,
            enterprise: page.enterprise,
            site: page.site,
            epochs,
            first: page.first,
            next: page.next,
            durable_end: page.durable_end,
            catalogue_next: page.catalogue_next,
            catalogue: catalogue.map_err(|error| FeedError(format!("catalogue entry: {error}")))?,
            entries,
            set_aside: page.set_aside,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_record::AgentId;

    fn page() -> FeedPage {
        let node = model::NodeId::new("antwerp", "line-3").unwrap();
        FeedPage {
            hub_id: "antwerp".into(),
            enterprise: "acme".into(),
            site: "antwerp".into(),
            epochs: vec![(Epoch(7), 0), (Epoch(9), 100)],
            first: 5,
            next: 103,
            durable_end: 200,
            catalogue_next: 1,
            catalogue: vec![CatalogueEntry::Agent { id: AgentId(1), node }],
            entries: vec![(100, Bytes::from_static(b"abc")), (102, Bytes::new())],
            set_aside: vec![102],
        }
    }

    #[test]
    fn a_page_survives_and_its_records_are_not_copied() {
        let bytes = Bytes::from(page().encode());
        let read = FeedPage::decode(bytes.clone()).unwrap();
        assert_eq!(read, page());
        assert!(bytes.as_ptr_range().contains(&read.entries[0].1.as_ptr()));
        assert_eq!(FeedPage::decode(FeedPage::default().encode().into()), Ok(FeedPage::default()));
    }

    #[test]
    fn a_page_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut FeedPage)| {
            let mut page = page();
            change(&mut page);
            assert!(FeedPage::decode(page.encode().into()).is_err());
        };
        refused(|page| page.entries.swap(0, 1));
        refused(|page| page.next = 102);
        refused(|page| page.epochs.swap(0, 1));
        refused(|page| page.epochs[0].0 = Epoch(0));
        assert!(FeedPage::decode(Bytes::from_static(b"\xff\xff")).is_err());
        let mut changed = page().encode();
        changed[40] ^= 1;
        assert_eq!(FeedPage::decode(changed.into()), Err(FeedError("it was changed on its way".into())));
    }
}
