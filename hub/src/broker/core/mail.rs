//! How the rest of the hub speaks to the core: arrivals from the door, requests, and streams of what is published.
//!
//! Bounded by bytes: who posts waits while the core is behind. One wake-up serves whatever was posted meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use mio::{Poll, Waker};
use proto::mqtt::QoS;
use proto::mqtt::topic::matches;
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::door::Arrival;
use super::super::journal::{Message, SessionId};
use super::super::limits::TAPS_MAX;
use super::super::{BrokerError, View, ViewPage};
use super::connect::End;
use super::status::{BrokerStatus, RetainedPage, Tapped};
use super::wires::Publication;
use super::{Core, MAIL};

/// Bytes of requests that may wait for the core.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a request costs beside its payload.
const OVERHEAD: usize = 128;

/// Clients that may wait to be taken in.
const ARRIVALS_MAX: usize = 1024;

/// A request to render a page of a view.
pub(in crate::broker) struct ViewAsk {
    pub(in crate::broker) view: Arc<dyn View>,
    /// Without its `$share/` prefix.
    pub(in crate::broker) filter: String,
    pub(in crate::broker) after: Option<u64>,
    pub(in crate::broker) bytes_max: usize,
    /// Session, connection, number of the view.
    pub(in crate::broker) reply: (SessionId, u64, usize),
}

/// What the hub asks of the core.
pub(in crate::broker) enum Request {
    /// Publish a message of the hub.
    Publish { topic: String, payload: Vec<u8>, qos: QoS, retain: bool },
    /// A page of a view.
    ViewPage { reply: (SessionId, u64, usize), filter: String, page: ViewPage },
    /// Serve topics by a view from now on.
    Serve { filter: String, view: Arc<dyn View> },
    /// Who is there.
    Status(oneshot::Sender<BrokerStatus>),
    /// Retained messages, in pages.
    Retained { filter: String, after: Option<String>, limit: usize, reply: oneshot::Sender<RetainedPage> },
    /// Give me what is published from now on.
    Tap(Tap),
    /// Disconnect a client; whether it was there.
    Disconnect { client_id: String, reply: oneshot::Sender<bool> },
    /// End.
    Stop,
}

/// Somebody who watches topics: gets what it takes, and is told what it missed.
pub(in crate::broker) struct Tap {
    pub(in crate::broker) filter: String,
    pub(in crate::broker) messages: mpsc::Sender<Tapped>,
    pub(in crate::broker) missed: u64,
}

/// Where mail lies until the core takes it.
pub(in crate::broker) struct Mailbox {
    mail: Mutex<Mail>,
    waker: Waker,
    /// The core has been woken and has not come yet.
    is_called: AtomicBool,
    host_has_room: AtomicBool,
    host_wake: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    room: Notify,
}

#[derive(Default)]
struct Mail {
    arrivals: VecDeque<Arrival>,
    requests: VecDeque<Request>,
    bytes: usize,
    is_closed: bool,
}

/// The hub's side. Cheap to clone.
#[derive(Clone)]
pub(in crate::broker) struct CoreHandle {
    mailbox: Arc<Mailbox>,
    _last: Arc<Last>,
}

/// Ends the core when nobody can reach it any more.
struct Last(Arc<Mailbox>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.lock().requests.push_back(Request::Stop);
        self.0.call();
    }
}

impl Mailbox {
    /// A mailbox that wakes this poll.
    pub(in crate::broker) fn new(poll: &Poll) -> io::Result<Arc<Mailbox>> {
        let mailbox = Arc::new(Mailbox {
            mail: Mutex::default(),
            waker: Waker::new(poll.registry(), MAIL)?,
            is_called: AtomicBool::new(false),
            host_has_room: AtomicBool::new(false),
            host_wake: OnceLock::new(),
            room: Notify::new(),
        });
        let weak = Arc::downgrade(&mailbox);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Some(mailbox) = weak.upgrade() {
                mailbox.host_has_room.store(true, Ordering::Release);
                mailbox.call();
            }
        });
        mailbox.host_wake.get_or_init(|| wake);
        Ok(mailbox)
    }

    /// What the host's inbox calls when it has room.
    pub(super) fn host_has_room(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::clone(self.host_wake.get_or_init(|| Arc::new(|| {})))
    }

    /// Wakes the core, if nobody has.
    pub(in crate::broker) fn call(&self) {
        if !self.is_called.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the broker's core cannot be woken");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreHandle {
    pub(in crate::broker) fn new(mailbox: Arc<Mailbox>) -> CoreHandle {
        CoreHandle { _last: Arc::new(Last(Arc::clone(&mailbox))), mailbox }
    }

    /// Hands over a client; gives it back if too many wait, or the core has ended.
    pub(in crate::broker) fn arrive(&self, arrival: Arrival) -> Result<(), Box<Arrival>> {
        let mut mail = self.mailbox.lock();
        if mail.is_closed || mail.arrivals.len() >= ARRIVALS_MAX {
            return Err(Box::new(arrival));
        }
        mail.arrivals.push_back(arrival);
        drop(mail);
        self.mailbox.call();
        Ok(())
    }

    /// Posts a request; waits while too much lies there.
    pub(in crate::broker) async fn post(&self, request: Request) -> Result<(), BrokerError> {
        let bytes = cost(&request);
        loop {
            let room = self.mailbox.room.notified();
            {
                let mut mail = self.mailbox.lock();
                if mail.is_closed {
                    return Err(BrokerError::NotConnected);
                }
                if mail.bytes == 0 || mail.bytes + bytes <= BYTES_MAX {
                    mail.bytes += bytes;
                    mail.requests.push_back(request);
                    drop(mail);
                    self.mailbox.call();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Posts without waiting: for what must not wait, and is small or rare.
    pub(in crate::broker) fn post_now(&self, request: Request) {
        let mut mail = self.mailbox.lock();
        if !mail.is_closed {
            mail.bytes += cost(&request);
            mail.requests.push_back(request);
            drop(mail);
            self.mailbox.call();
        }
    }
}

fn cost(request: &Request) -> usize {
    let payload = match request {
        Request::Publish { topic, payload, .. } => topic.len() + payload.len(),
        Request::ViewPage { page, .. } => {
            page.messages.iter().map(|(topic, payload)| topic.len() + payload.len() + OVERHEAD).sum()
        }
        _ => 0,
    };
    OVERHEAD + payload
}

impl Core {
    /// Takes what lies in the mailbox.
    pub(super) fn take_mail(&mut self) {
        if !self.mailbox.is_called.swap(false, Ordering::AcqRel) {
            return;
        }
        let (arrivals, requests) = {
            let mut mail = self.mailbox.lock();
            mail.bytes = 0;
            (std::mem::take(&mut mail.arrivals), std::mem::take(&mut mail.requests))
        };
        self.mailbox.room.notify_waiters();
        for request in requests {
            self.take_request(request);
        }
        for arrival in arrivals {
            self.arrive(arrival);
        }
        if self.mailbox.host_has_room.swap(false, Ordering::AcqRel) {
            for key in std::mem::take(&mut self.waiting_for_host) {
                self.want_read(key);
            }
        }
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Publish { topic, payload, qos, retain } => {
                let message =
                    Message { qos, ..Arc::unwrap_or_clone(self.own_message(&topic, payload, retain)) };
                self.publish_message(&Arc::new(message), false);
            }
            Request::ViewPage { reply, filter, page } => {
                self.view_page(reply, &filter, page.messages, page.next)
            }
            Request::Serve { filter, view } => self.served.push((filter, view)),
            Request::Status(reply) => drop(reply.send(self.status())), // who asked may be gone
            Request::Retained { filter, after, limit, reply } => {
                drop(reply.send(self.retained_page(&filter, after.as_deref(), limit)));
            }
            Request::Tap(tap) => {
                self.taps.retain(|tap| !tap.messages.is_closed());
                if self.taps.len() < TAPS_MAX {
                    self.taps.push(tap); // else its stream ends at once
                }
            }
            Request::Disconnect { client_id, reply } => {
                let session = self.by_client.get(client_id.as_str()).and_then(|key| self.session(*key));
                let connection = session.and_then(|session| session.connection);
                if let Some(key) = connection {
                    self.end_connection(key, End::Administrative);
                }
                reply.send(connection.is_some()).ok(); // who asked may be gone
            }
            Request::Stop => {
                self.stopping = true;
                self.mailbox.lock().is_closed = true;
            }
        }
    }
}

/// Shows a message to those who watch.
pub(super) fn tap(taps: &mut Vec<Tap>, publication: &Publication<'_>) {
    taps.retain_mut(|tap| {
        if !matches(&tap.filter, publication.topic) {
            return !tap.messages.is_closed();
        }
        let Ok(place) = tap.messages.try_reserve() else {
            tap.missed += 1;
            return !tap.messages.is_closed();
        };
        place.send(Tapped {
            topic: publication.topic.to_owned(),
            payload: Bytes::copy_from_slice(publication.payload),
            qos: publication.qos,
            retain: publication.retain,
            missed: std::mem::take(&mut tap.missed),
        });
        true
    });
}
