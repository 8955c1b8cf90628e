//! Values between the server and `read`: bounded, in order, and each notification known until it was handed on whole.

use std::collections::VecDeque;

use model::Timestamp;
use opcua::types::{
    DataChangeNotification, DataValue, NotificationMessage, StatusChangeNotification, StatusCode,
};

use super::fault::is_overflow;
use super::items::{Item, Plan, Point};
use super::value::{reading, timestamp, without};
use crate::drivers::Reading;

/// With more than this nothing is asked for: the server's own queues fill, and it says so.
const VALUES_MAX: usize = 20_000;
/// The same for long texts.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// A notification message of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notified {
    pub(super) subscription: u32,
    pub(super) sequence: u32,
}

/// In the order of arrival.
#[derive(Debug)]
pub(super) enum Waiting {
    Value {
        reading: Reading,
        /// When the server had it.
        server_time: Option<Timestamp>,
        /// The first one since its item is watched.
        is_first: bool,
    },
    /// All values of a notification are before this.
    End(Notified),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Intake {
    queue: VecDeque<Waiting>,
    values: usize,
    bytes: usize,
    /// Values that servers said they had no room for, at least, since this was last asked.
    overflowed: u64,
}

impl Intake {
    pub(super) fn has_values(&self) -> bool {
        self.values > 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.values < VALUES_MAX && self.bytes < BYTES_MAX
    }

    pub(super) fn push(&mut self, reading: Reading, server_time: Option<Timestamp>, is_first: bool) {
        self.values += 1;
        self.bytes += reading.value.as_ref().map_or(0, model::Value::heap_bytes);
        self.queue.push_back(Waiting::Value { reading, server_time, is_first });
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.queue.pop_front()?;
        if let Waiting::Value { reading, .. } = &first {
            self.values -= 1;
            self.bytes -= reading.value.as_ref().map_or(0, model::Value::heap_bytes);
        }
        Some(first)
    }

    pub(super) fn end(&mut self, notified: Notified) {
        self.queue.push_back(Waiting::End(notified));
    }

    /// Notifications whose connection is gone cannot be acknowledged any more.
    pub(super) fn forget_ends(&mut self) {
        self.queue.retain(|waiting| matches!(waiting, Waiting::Value { .. }));
    }

    /// A node's value becomes a reading of each of its points.
    pub(super) fn take(&mut self, item: &mut Item, value: &DataValue, plan_of: (&Plan, &[Point])) {
        let (plan, points) = plan_of;
        self.overflowed += u64::from(value.status.is_some_and(is_overflow));
        let server_time = value.server_timestamp.as_ref().and_then(timestamp);
        let is_first = std::mem::take(&mut item.is_fresh);
        for nth in &item.points {
            if let (Some(point), Some(located)) = (points.get(*nth), plan.located.get(*nth)) {
                let reading = reading(*nth, point.raw_type, &located.parts, value, &plan.structures);
                self.push(reading, server_time, is_first);
            }
        }
    }

    /// The points of a node that cannot be had.
    pub(super) fn refuse(&mut self, points: &[usize], status: StatusCode) {
        for nth in points {
            self.push(without(*nth, status), None, false);
        }
    }

    /// Takes a notification message; the status if it is the subscription's end.
    pub(super) fn notified(
        &mut self,
        notified: Notified,
        message: NotificationMessage,
        plan: &mut Plan,
        points: &[Point],
    ) -> Option<StatusCode> {
        let mut ended = None;
        // The items are lent to `take` one by one, beside the rest of the plan.
        let mut items = std::mem::take(&mut plan.items);
        for object in message.notification_data.into_iter().flatten() {
            if let Some(change) = object.inner_as::<DataChangeNotification>() {
                for item in change.monitored_items.iter().flatten() {
                    let at =
                        usize::try_from(item.client_handle).ok().and_then(|handle| handle.checked_sub(1));
                    if let Some(watched) = at.and_then(|at| items.get_mut(at)) {
                        self.take(watched, &item.value, (plan, points));
                    }
                }
            } else if let Some(status) = object.inner_as::<StatusChangeNotification>() {
                ended = Some(status.status).filter(|status| status.is_bad());
            }
        }
        plan.items = items;
        self.end(notified);
        ended
    }

    /// A hole between two notifications that nobody can fill.
    pub(super) fn lost(&mut self) {
        self.overflowed += 1;
    }

    pub(super) fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }
}
