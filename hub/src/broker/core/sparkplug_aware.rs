//! What Sparkplug 3.0 asks of an *aware* server (§10.1.4): births kept as certificates, NDEATHs with the time of their
//! delivery. Off unless `sparkplug_aware = true`; the one place of the broker that looks at what a topic means.

use std::borrow::Cow;
use std::sync::Arc;

use model::Timestamp;

use super::super::journal::Message;
use super::Core;
use super::wires::Publication;

/// Births are offered below this (tck-id-conformance-mqtt-aware-nbirth-mqtt-topic and -dbirth-mqtt-topic).
const CERTIFICATES: &str = "$sparkplug/certificates/";

/// Field 1 of a Sparkplug payload, its timestamp, as a varint.
const TIMESTAMP_FIELD: u8 = 0x08;

impl Core {
    /// Keeps a birth, retained, under its certificate's topic.
    pub(super) fn keep_certificate(&mut self, publication: &Publication<'_>) {
        if !self.sparkplug_aware || !is(publication.topic, &["NBIRTH", "DBIRTH"]) {
            return;
        }
        let topic = format!("{CERTIFICATES}{}", publication.topic);
        let certificate = Publication { topic: &topic, retain: true, expiry_s: None, ..*publication };
        let message = self.message(&certificate, None);
        self.publish_message(&message, false);
    }

    /// An NDEATH with the time of its delivery (tck-id-conformance-mqtt-aware-ndeath-timestamp); others as they are.
    pub(super) fn with_death_time(&self, message: &Arc<Message>) -> Arc<Message> {
        if !self.sparkplug_aware || !is(&message.topic, &["NDEATH"]) {
            return Arc::clone(message);
        }
        let payload = with_timestamp(&message.payload, self.clock.now()).into_owned().into();
        Arc::new(Message { payload, ..Message::clone(message) })
    }
}

/// Whether the topic is one of these messages of Sparkplug.
fn is(topic: &str, kinds: &[&str]) -> bool {
    let mut levels = topic.split('/');
    levels.next() == Some("spBv1.0")
        && levels.next().is_some()
        && levels.next().is_some_and(|kind| kinds.contains(&kind))
}

/// The payload with another timestamp. Of a field that comes twice, protobuf takes the last.
fn with_timestamp(payload: &[u8], now: Timestamp) -> Cow<'_, [u8]> {
    let Ok(mut rest) = u64::try_from(now.millis()) else { return Cow::Borrowed(payload) };
    let mut stamped = payload.to_vec();
    stamped.push(TIMESTAMP_FIELD);
    while rest > 0x7F {
        stamped.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    stamped.push((rest & 0x7F) as u8);
    Cow::Owned(stamped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::sparkplug::PayloadView;

    #[test]
    fn the_last_timestamp_counts() {
        let old = with_timestamp(&[], Timestamp(1_000_000)).into_owned();
        let now = Timestamp(1_764_100_000_123_000);
        let stamped = with_timestamp(&old, now);
        assert_eq!(PayloadView::decode(&stamped).unwrap().timestamp, Some(1_764_100_000_123));
        assert!(is("spBv1.0/g/NDEATH/n", &["NDEATH"]) && !is("spBv1.0/g/NDATA/n", &["NDEATH"]));
        assert!(!is("x/g/NDEATH/n", &["NDEATH"]) && !is("spBv1.0/g", &["NDEATH"]));
    }
}
