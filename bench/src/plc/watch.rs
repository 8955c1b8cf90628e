//! The subscriber: one bare socket at the broker, which says what it sees of which point. The same for every agent.
//!
//! Ours speak Sparkplug (births name the aliases), the others JSON: an object or a list of item and value.

use std::time::{Duration, Instant};

use mio::{Events, Poll};
use proto::sparkplug::{PayloadView, WireValue};

use crate::broker::connection::{Connection, Door};

const BUFFER_BYTES: usize = 8 << 20;
/// Numbers of points, in names and in JSON, are below this.
const POINTS_MAX: usize = 1 << 20;
/// Our points' metric names are this and their number.
pub(super) const PREFIX: &str = "p";

/// A subscription to everything that the agent sends.
pub(super) struct Watch {
    connection: Connection,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    aliases: Vec<Option<usize>>,
}

impl Watch {
    /// Subscribes; before the agent starts, so that its births are heard.
    pub(super) fn open(door: &Door, filter: &str) -> Result<Watch, String> {
        let mut connection = Connection::open(door, "watch", true)?;
        connection.subscribe(filter, 0)?;
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        connection.register(poll.registry(), 0)?;
        let (events, buffer) = (Events::with_capacity(4), vec![0; BUFFER_BYTES]);
        Ok(Watch { connection, poll, events, buffer, aliases: Vec::new() })
    }

    /// Gives each value that comes before `until` to `saw`, as point and the number's lower 32 bits; ends early if `saw`
    /// says that it is enough.
    pub(super) fn until(
        &mut self,
        until: Instant,
        mut saw: impl FnMut(usize, u32) -> bool,
    ) -> Result<(), String> {
        let mut is_enough = false;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !is_enough) {
            match self.poll.poll(&mut self.events, Some(left.min(Duration::from_millis(50)))) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            let Watch { connection, buffer, aliases, .. } = self;
            connection.read(buffer, |packet| {
                if let (Some(topic), Some(payload)) = (packet.topic(), packet.payload()) {
                    values(topic, payload, aliases, &mut |point, value| is_enough |= saw(point, value));
                }
            })?;
        }
        Ok(())
    }
}

fn values(topic: &str, payload: &[u8], aliases: &mut Vec<Option<usize>>, saw: &mut dyn FnMut(usize, u32)) {
    let mut levels = topic.split('/');
    if levels.next() == Some("spBv1.0") {
        let Ok(view) = PayloadView::decode(payload) else { return };
        match levels.nth(1) {
            Some("DBIRTH") => view.metrics.iter().for_each(|metric| learn(metric, aliases)),
            Some("DDATA") => {}
            _ => return,
        }
        for metric in &view.metrics {
            let known = metric.alias.and_then(|alias| usize::try_from(alias).ok());
            let point = known.and_then(|alias| aliases.get(alias).copied().flatten());
            if let (Some(point), WireValue::Int(value)) = (point, metric.value) {
                saw(point, value);
            }
        }
        return;
    }
    let number = |value: &serde_json::Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    match serde_json::from_slice(payload) {
        Ok(serde_json::Value::Object(object)) => {
            for (point, value) in &object {
                if let (Ok(point), Some(value)) = (point.parse(), number(value)) {
                    saw(point, value);
                }
            }
        }
        Ok(serde_json::Value::Array(list)) => {
            for pair in &list {
                if let (Some(point), Some(value)) = (number(&pair[0]), number(&pair[1])) {
                    saw(point as usize, value);
                }
            }
        }
        _ => {}
    }
}

/// Which point an alias stands for.
fn learn(metric: &proto::sparkplug::MetricView<'_>, aliases: &mut Vec<Option<usize>>) {
    let number = metric.name.and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
    let alias =
        metric.alias.and_then(|alias| usize::try_from(alias).ok()).filter(|alias| *alias < POINTS_MAX);
    if let (Some(point), Some(alias)) = (number, alias) {
        if aliases.len() <= alias {
            aliases.resize(alias + 1, None);
        }
        aliases[alias] = Some(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_both_shapes_is_values() {
        let mut seen = Vec::new();
        let mut saw = |point, value| seen.push((point, value));
        values("bench/1", br#"{"126":7,"x":1,"3":"no"}"#, &mut Vec::new(), &mut saw);
        values("bench/opcua", b"[[9999,2],[1],[2,-1]]", &mut Vec::new(), &mut saw);
        values("bench/opcua", b"not json", &mut Vec::new(), &mut saw);
        assert_eq!(seen, [(126, 7), (9_999, 2)]);
    }
}
