//! Retained messages: the last one of each topic, sorted by topic, so that a subscriber is served in pages.
//!
//! A page looks at a bounded number of topics and says where to go on, so that no filter, however wide, holds up the
//! others. Bounded in number and bytes; a message beyond the bounds is refused, never an older one pushed out.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use proto::mqtt::topic::matches;

use super::journal::Message;

/// What a message costs beside its text.
const OVERHEAD: usize = 160;

/// Topics that one page looks at.
const LOOK_MAX: usize = 2_000;

/// The last retained message of each topic.
pub(super) struct Retained {
    messages: BTreeSet<ByTopic>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

struct ByTopic(Arc<Message>);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        &self.0.topic
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic == other.0.topic
    }
}

impl Eq for ByTopic {}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.topic.cmp(&other.0.topic)
    }
}

/// The retained messages have reached their bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Retained {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Retained {
        Retained { messages: BTreeSet::new(), bytes: 0, messages_max, bytes_max }
    }

    /// Whether the message would be kept.
    pub(super) fn has_room(&self, topic: &str, payload: usize) -> bool {
        let old = self.messages.get(topic).map(|old| cost(&old.0));
        let messages = self.messages.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.unwrap_or(0) + topic.len() + payload + OVERHEAD;
        messages <= self.messages_max && bytes <= self.bytes_max
    }

    /// Keeps the message in place of its topic's last one; an empty payload removes that [MQTT-3.3.1-6].
    pub(super) fn set(&mut self, message: Arc<Message>) -> Result<(), NoRoom> {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return Ok(());
        }
        if !self.has_room(&message.topic, message.payload.len() + message.properties.len()) {
            return Err(NoRoom);
        }
        self.bytes += cost(&message);
        if let Some(old) = self.messages.replace(ByTopic(message)) {
            self.bytes -= cost(&old.0);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, topic: &str) {
        if let Some(old) = self.messages.take(topic) {
            self.bytes -= cost(&old.0);
        }
    }

    /// Calls `each` with messages that match, in the order of their topics, behind `after`, until it says `false`
    /// (that one comes again) or enough was looked at. `Some(topic)`: go on behind it; `None`: that was all.
    pub(super) fn page(
        &self,
        filter: &str,
        after: Option<&str>,
        mut each: impl FnMut(&Arc<Message>) -> bool,
    ) -> Option<Box<str>> {
        let prefix = literal_prefix(filter);
        if !filter.contains(['+', '#']) {
            let found = self.messages.get(filter);
            return found.and_then(|found| (!each(&found.0)).then(|| "".into()));
        }
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut last = after;
        for (looked, message) in self.messages.range::<str, _>((start, Bound::Unbounded)).enumerate() {
            let topic: &str = message.borrow();
            if !topic.starts_with(prefix) {
                return None;
            }
            if looked >= LOOK_MAX || (matches(filter, topic) && !each(&message.0)) {
                return Some(last.unwrap_or("").into());
            }
            last = Some(topic);
        }
        None
    }

    /// All of them, for a snapshot.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.iter().map(|message| &message.0)
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What every matching topic begins with. (`a/#` matches `a` too, so the prefix ends before the `/`.)
fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = filter.get(..end).unwrap_or("");
    prefix.strip_suffix('/').unwrap_or(prefix)
}

fn cost(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + message.properties.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proto::mqtt::QoS;

    fn message(topic: &str, payload: &'static str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: QoS::AtMostOnce,
            retain: true,
            properties: Box::default(),
            expires_at: None,
            publisher: None,
        })
    }

    fn pages(retained: &Retained, filter: &str, at_once: usize) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let mut room = at_once;
            after = retained.page(filter, after.as_deref(), |message| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                found.push(message.topic.to_string());
                true
            });
            if after.is_none() {
                return found;
            }
        }
    }

    #[test]
    fn pages_give_every_match_once() {
        let mut retained = Retained::new(10_000, 1 << 20);
        let topics = ["a", "a/b", "a/b/c", "a/c", "ab", "b/a", "$SYS/x", "/", "a//b", "é/x"];
        for topic in topics {
            retained.set(message(topic, "x")).unwrap();
        }
        for filter in
            ["#", "a/#", "a/+", "+/b", "a/b", "+", "$SYS/#", "+/+/+", "é/#", "zzz", "a/b/#", "/+", "b/#"]
        {
            let mut wanted: Vec<&str> = topics.into_iter().filter(|topic| matches(filter, topic)).collect();
            wanted.sort_unstable();
            for at_once in [1, 2, 100] {
                assert_eq!(pages(&retained, filter, at_once), wanted, "{filter}");
            }
        }
        retained.set(message("a/b", "")).unwrap();
        assert_eq!(pages(&retained, "a/b", 1), Vec::<String>::new());
    }

    #[test]
    fn a_page_looks_at_a_bounded_number_and_goes_on() {
        let mut retained = Retained::new(100_000, 1 << 30);
        for number in 0..7_000 {
            retained.set(message(&format!("t/{number:05}/x"), "1")).unwrap();
        }
        retained.set(message("t/06999/y", "1")).unwrap();
        let mut after = None;
        let mut rounds = 0;
        let mut found = Vec::new();
        loop {
            after = retained.page("t/+/y", after.as_deref(), |message| {
                found.push(message.topic.to_string());
                true
            });
            rounds += 1;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((found, rounds), (vec!["t/06999/y".to_owned()], 4));
    }

    #[test]
    fn number_and_bytes_are_bounded_and_given_back() {
        let mut retained = Retained::new(2, 1000);
        retained.set(message("a", "1")).unwrap();
        retained.set(message("b", "1")).unwrap();
        assert_eq!(retained.set(message("c", "1")), Err(NoRoom));
        retained.set(message("b", "22")).unwrap();
        retained.set(message("a", "")).unwrap();
        retained.set(message("c", "1")).unwrap();
        retained.remove("c");
        retained.remove("b");
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        let big: &'static str = Box::leak("x".repeat(900).into_boxed_str());
        assert_eq!(retained.set(message("a", big)), Err(NoRoom));
    }
}
