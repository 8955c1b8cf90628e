//! Messages of the hub's own broker as server-sent events, from now on, decoded.
//!
//! Events: `clock` (the hub's time, first and with every breath), `messages` (an array), `missed` (how many messages went
//! by because the reader was slow; before the next messages). Nothing is queued beyond one push and the broker's own
//! bound for those who watch: a slow reader harms nobody.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::broker::{MQTT_TEXT_BYTES_MAX, checked_filter, shown_bytes};
use super::errors::{ApiError, ErrorBody};
use super::json::{Parameters, at_most};
use super::payload::{Payload, SHOWN_BYTES_MAX};
use crate::broker::Tapped;

/// Messages are gathered for so long before they are pushed.
const GATHER: Duration = Duration::from_millis(250);
/// Messages of one push ...
const PUSH_MESSAGES_MAX: usize = 500;
/// ... unless their payloads have so many bytes before.
const PUSH_BYTES_MAX: usize = 1024 * 1024;
/// What one push shows of payloads; beyond, they are cut to nothing.
const PUSH_SHOWN_BYTES_MAX: usize = 1024 * 1024;
/// Without news, a sign of life after so long.
const BREATH: Duration = Duration::from_secs(10);

/// Which messages.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesQuery {
    /// Topic filter of MQTT, default `#`, which has no topics that begin with `$`.
    filter: Option<String>,
    /// `true`: of each topic only the last message of a push, with `count`; default `false`: every message.
    latest: Option<bool>,
    /// Bytes shown of each payload, 0 to 65 536, default 65 536.
    payload: Option<u64>,
    /// A topic of which every message is shown, up to 65 536 bytes, whatever `latest` and `payload` say: one stream then
    /// serves an overview and the topic that somebody looks at.
    full: Option<String>,
}

/// A message that somebody published.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageShown<'a> {
    topic: &'a str,
    /// When the hub saw it, ISO 8601 UTC.
    time: &'a str,
    /// As it was published.
    qos: u8,
    retain: bool,
    /// How many of this topic it stands for.
    count: u64,
    payload: Payload,
}

/// Messages as they are published, as server-sent events: `messages` with an array of them, `missed` with a number, and
/// `clock` with the hub's time.
#[utoipa::path(get, path = "/api/v1/broker/messages", tag = "broker", params(MessagesQuery),
    responses((status = 200, content_type = "text/event-stream", body = Vec<MessageShown>),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The broker is an outside one"),
        (status = 503, body = ErrorBody, description = "Too many streams")))]
pub(crate) async fn messages(
    State(api): State<Api>,
    Parameters(query): Parameters<MessagesQuery>,
) -> Result<Response, ApiError> {
    let filter = checked_filter(query.filter)?;
    let shown = shown_bytes(query.payload)?;
    if let Some(full) = &query.full {
        at_most("full", full, MQTT_TEXT_BYTES_MAX)?;
    }
    let insight = api.broker()?.clone();
    let slots = [api.stream_slot()?, api.watch_slot()?];
    let source = insight.watch(filter).await?;
    let latest = query.latest.unwrap_or(false);
    let full = query.full;
    let stream =
        Stream { api, source, latest, shown, full, waiting: VecDeque::new(), started: false, _slots: slots };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    }));
    Ok((headers, body).into_response())
}

struct Stream {
    api: Api,
    source: mpsc::Receiver<Tapped>,
    latest: bool,
    shown: usize,
    full: Option<String>,
    waiting: VecDeque<Bytes>,
    started: bool,
    _slots: [OwnedSemaphorePermit; 2],
}

impl Stream {
    /// The next event; `None` when the hub stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            self.started = true;
            return Some(self.clock());
        }
        if let Some(event) = self.waiting.pop_front() {
            return Some(event);
        }
        let first = tokio::select! {
            () = self.api.shutdown().cancelled() => return None,
            () = sleep(BREATH) => return Some(self.clock()),
            first = self.source.recv() => first?,
        };
        let mut push = Gathered::new(self.latest, self.full.clone());
        push.add(first);
        let until = Instant::now() + GATHER;
        while push.has_room()
            && let Ok(Some(message)) = timeout_at(until, self.source.recv()).await
        {
            push.add(message);
        }
        if push.missed > 0 {
            self.waiting.push_back(Bytes::from(format!("event: missed\ndata: {}\n\n", push.missed)));
        }
        let event = self.event(&push)?;
        self.waiting.push_back(event);
        self.waiting.pop_front()
    }

    fn clock(&self) -> Bytes {
        Bytes::from(format!("event: clock\ndata: {}\n\n", self.api.clock().now()))
    }

    fn event(&self, push: &Gathered) -> Option<Bytes> {
        let time = self.api.clock().now().to_string();
        let mut left = PUSH_SHOWN_BYTES_MAX;
        let shown = push.messages.iter().map(|(message, count)| {
            let is_full = self.full.as_ref() == Some(&message.topic);
            let most = if is_full { SHOWN_BYTES_MAX } else { self.shown };
            let payload = Payload::of(&message.topic, &message.payload, most.min(left));
            left = left.saturating_sub(payload.cost());
            let (qos, retain, count) = (message.qos as u8, message.retain, *count);
            MessageShown { topic: &message.topic, time: &time, qos, retain, count, payload }
        });
        let text = serde_json::to_string(&shown.collect::<Vec<_>>()).ok()?;
        Some(Bytes::from(format!("event: messages\ndata: {text}\n\n")))
    }
}

/// The messages of one push.
struct Gathered {
    messages: Vec<(Tapped, u64)>,
    /// Where a topic's message is, if only the last one counts.
    places: Option<HashMap<String, usize>>,
    /// The topic of which all count.
    full: Option<String>,
    bytes: usize,
    missed: u64,
}

impl Gathered {
    fn new(latest: bool, full: Option<String>) -> Self {
        Gathered { messages: Vec::new(), places: latest.then(HashMap::new), full, bytes: 0, missed: 0 }
    }

    fn has_room(&self) -> bool {
        self.messages.len() < PUSH_MESSAGES_MAX && self.bytes < PUSH_BYTES_MAX
    }

    fn add(&mut self, message: Tapped) {
        self.missed += message.missed;
        self.bytes += message.topic.len() + message.payload.len();
        if let Some(places) = &mut self.places
            && self.full.as_ref() != Some(&message.topic)
        {
            if let Some((last, count)) =
                places.get(&message.topic).and_then(|place| self.messages.get_mut(*place))
            {
                self.bytes -= last.topic.len() + last.payload.len();
                (*last, *count) = (message, *count + 1);
                return;
            }
            places.insert(message.topic.clone(), self.messages.len());
        }
        self.messages.push((message, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, bytes: usize, missed: u64) -> Tapped {
        let payload = vec![0; bytes].into();
        Tapped { topic: topic.into(), payload, qos: proto::mqtt::QoS::AtMostOnce, retain: false, missed }
    }

    #[test]
    fn a_push_is_bounded_in_messages_and_bytes() {
        let mut all = Gathered::new(false, None);
        for _ in 0..PUSH_MESSAGES_MAX {
            assert!(all.has_room());
            all.add(message("a", 1, 0));
        }
        assert!(!all.has_room());
        let mut large = Gathered::new(false, None);
        large.add(message("a", PUSH_BYTES_MAX, 3));
        assert!(!large.has_room());
        assert_eq!(large.missed, 3);
    }

    #[test]
    fn of_each_topic_the_last_one_counts() {
        let mut last = Gathered::new(true, Some("each".into()));
        for round in 0..10_000 {
            last.add(message("a", 1000 + round % 2, 0));
            last.add(message("b", 10, 1));
        }
        last.add(message("each", 1, 0));
        last.add(message("each", 1, 0));
        assert!(last.has_room());
        let seen: Vec<_> =
            last.messages.iter().map(|(m, count)| (m.topic.as_str(), m.payload.len(), *count)).collect();
        assert_eq!(seen, [("a", 1001, 10_000), ("b", 10, 10_000), ("each", 1, 1), ("each", 1, 1)]);
        assert_eq!((last.missed, last.bytes), (10_000, 1001 + 10 + 2 + 2 * 5));
    }
}
