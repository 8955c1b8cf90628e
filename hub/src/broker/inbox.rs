//! The way of other people's messages to the host: bounded by messages and bytes, awaited, never dropped.
//!
//! The embedded broker's thread must not wait: it asks for room with [`Inbox::try_push`], stops reading the client that
//! has none, and is woken when half of the room is free again. The client of an outside broker waits in [`Inbox::push`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Incoming;

/// Bytes of messages that may wait for the host: two of the largest packets.
const BYTES_MAX: usize = 2 * model::limits::MQTT_PACKET_BYTES_MAX;

/// What a waiting message costs beside its text.
const OVERHEAD: usize = 96;

/// Makes an inbox for at most so many messages.
#[must_use]
pub fn inbox(messages_max: usize) -> (Inbox, InboxReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        messages_max: messages_max.max(1),
        filled: Notify::new(),
        drained: Notify::new(),
    });
    (Inbox { shared: Arc::clone(&shared) }, InboxReceiver { shared })
}

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

/// The host's side; dropping it closes the inbox.
pub struct InboxReceiver {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    messages_max: usize,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Incoming>,
    bytes: usize,
    closed: bool,
    /// Called once when there is room again.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The inbox is closed: the process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl Inbox {
    /// Takes the message if there is room; else gives it back and calls `wake`, once, when there is.
    /// A closed inbox takes everything: nobody will read it.
    pub fn try_push(&self, message: Incoming, wake: &Arc<dyn Fn() + Send + Sync>) -> Result<(), Incoming> {
        let mut state = self.shared.lock();
        if state.closed {
            return Ok(());
        }
        if !self.shared.has_room(&state) {
            state.wake = Some(Arc::clone(wake));
            return Err(message);
        }
        self.shared.put(state, message);
        Ok(())
    }

    /// Takes the message whether there is room or not: wills, of which there are no more than clients.
    pub fn force(&self, message: Incoming) {
        let state = self.shared.lock();
        if !state.closed {
            self.shared.put(state, message);
        }
    }

    /// Waits for room.
    pub async fn push(&self, message: Incoming) -> Result<(), Closed> {
        loop {
            let drained = self.shared.drained.notified();
            {
                let state = self.shared.lock();
                if state.closed {
                    return Err(Closed);
                }
                if self.shared.has_room(&state) {
                    self.shared.put(state, message);
                    return Ok(());
                }
            }
            drained.await;
        }
    }
}

impl InboxReceiver {
    /// The next message; `None` once closed and empty. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Incoming> {
        let mut one = Vec::with_capacity(1);
        self.recv_many(&mut one, 1, usize::MAX).await;
        one.pop()
    }

    /// The messages that wait, after the first one at most so many and so many bytes; none once closed and empty. Dropping
    /// the future loses nothing.
    pub async fn recv_many(&mut self, into: &mut Vec<Incoming>, messages_max: usize, bytes_max: usize) {
        loop {
            let filled = self.shared.filled.notified();
            {
                let mut state = self.shared.lock();
                if self.shared.take(&mut state, into, messages_max, bytes_max) || state.closed {
                    return;
                }
            }
            filled.await;
        }
    }

    /// Takes no more; what is there can still be received.
    pub fn close(&mut self) {
        let wake = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.wake.take()
        };
        if let Some(wake) = wake {
            wake();
        }
        self.shared.filled.notify_waiters();
        self.shared.drained.notify_waiters();
    }
}

impl Drop for InboxReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        state.waiting.len() < self.messages_max && state.bytes < BYTES_MAX
    }

    fn put(&self, mut state: MutexGuard<'_, State>, message: Incoming) {
        state.bytes += cost(&message);
        state.waiting.push_back(message);
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.filled.notify_one();
        }
    }

    /// Whether there was one.
    fn take(
        &self,
        state: &mut State,
        into: &mut Vec<Incoming>,
        messages_max: usize,
        bytes_max: usize,
    ) -> bool {
        let (mut count, mut bytes) = (0, 0);
        while count < messages_max
            && bytes < bytes_max
            && let Some(message) = state.waiting.pop_front()
        {
            (count, bytes) = (count + 1, bytes + cost(&message));
            into.push(message);
        }
        state.bytes -= bytes;
        if count > 0 && state.waiting.len() <= self.messages_max / 2 && state.bytes <= BYTES_MAX / 2 {
            if let Some(wake) = state.wake.take() {
                wake();
            }
            self.drained.notify_waiters();
        }
        count > 0
    }
}

fn cost(message: &Incoming) -> usize {
    message.topic.len() + message.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn message(bytes: usize) -> Incoming {
        Incoming { topic: "spBv1.0/g/NDATA/n".into(), payload: Bytes::from(vec![0; bytes]), retain: false }
    }

    #[tokio::test]
    async fn a_full_inbox_refuses_and_wakes_once_half_is_free() {
        let (inbox, mut receiver) = inbox(4);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        for _ in 0..4 {
            inbox.try_push(message(1), &wake).unwrap();
        }
        assert!(inbox.try_push(message(1), &wake).is_err());
        inbox.force(message(2));
        receiver.recv().await.unwrap();
        receiver.recv().await.unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        receiver.recv().await.unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        receiver.recv().await.unwrap();
        receiver.recv().await.unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        receiver.close();
        assert!(receiver.recv().await.is_none());
        assert!(inbox.try_push(message(1), &wake).is_ok(), "nobody waits for a host that is gone");
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_an_async_sender_waits() {
        let (inbox, mut receiver) = inbox(1000);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {});
        inbox.try_push(message(BYTES_MAX), &wake).unwrap();
        assert!(inbox.try_push(message(1), &wake).is_err());
        let sender = inbox.clone();
        let (pushed, received) = tokio::join!(sender.push(message(7)), receiver.recv());
        assert_eq!((pushed, received.unwrap().payload.len()), (Ok(()), BYTES_MAX));
        assert_eq!(receiver.recv().await.unwrap().payload.len(), 7);
        drop(receiver);
        assert_eq!(inbox.push(message(1)).await, Err(Closed));
    }
}
