//! The load: publishers and subscribers in one thread, which sees both ends and therefore can hold the publishers to
//! what the subscribers have taken. It neither drops nor measures by itself; others read its counts.
//!
//! A publisher writes blocks of prebuilt packets with one call; a subscriber reads what is there, walks the packet
//! headers, and answers QoS 1 with one write per read. A publisher goes on when a quarter of a window is free, so that
//! neither end works message by message.

use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::connection::Connection;
use super::packet::{self, PublishBlock, kind};

/// Read at once; more than a window of any case would be of no use.
const BUFFER_BYTES: usize = 512 * 1024;
/// A publisher writes at most this with one call.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// Without any progress for so long, what is missing counts as lost and the load goes on.
const STALLED: Duration = Duration::from_secs(1);

/// How far publishers may run ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Messages, of all publishers, that the slowest subscriber has not taken; none: subscribers do not matter.
    pub(super) ahead: Option<u64>,
    /// Messages of one publisher without PUBACK; QoS 1 only.
    pub(super) unacknowledged: u64,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Messages that publishers wrote.
    pub(super) sent: u64,
    /// Those with PUBACK.
    pub(super) acknowledged: u64,
    /// Messages that subscribers read, all together.
    pub(super) delivered: u64,
    /// Deliveries that are due for what was sent and have not come.
    pub(super) missing: u64,
    /// How often the load had to go on without what was due.
    pub(super) stalls: u64,
}

/// See the module.
pub(super) struct Load {
    poll: Poll,
    events: Events,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    windows: Windows,
    buffer: Vec<u8>,
    stalls: u64,
}

struct Publisher {
    connection: Connection,
    block: PublishBlock,
    acknowledging: bool,
    next_id: u16,
    sent: u64,
    acknowledged: u64,
    /// Packets and bytes of the block that are being written.
    writing: usize,
    written_bytes: usize,
}

struct Subscriber {
    connection: Connection,
    received: u64,
    /// Messages that were due at a stall; they no longer hold the publishers.
    forgiven: u64,
    acks: Vec<u8>,
}

impl Load {
    /// Takes logged-in connections; each publisher has its block.
    pub(super) fn new(
        publishers: Vec<(Connection, PublishBlock)>,
        subscribers: Vec<Connection>,
        windows: Windows,
    ) -> Result<Load, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let subscribers: Vec<Subscriber> = subscribers
            .into_iter()
            .map(|connection| Subscriber { connection, received: 0, forgiven: 0, acks: Vec::new() })
            .collect();
        let publishers: Vec<Publisher> = publishers
            .into_iter()
            .map(|(connection, block)| Publisher {
                connection,
                acknowledging: block.acknowledged(),
                block,
                next_id: 1,
                sent: 0,
                acknowledged: 0,
                writing: 0,
                written_bytes: 0,
            })
            .collect();
        for (token, subscriber) in subscribers.iter().enumerate() {
            subscriber.connection.register(poll.registry(), token)?;
        }
        for (n, publisher) in publishers.iter().enumerate() {
            publisher.connection.register(poll.registry(), subscribers.len() + n)?;
        }
        Ok(Load {
            poll,
            events: Events::with_capacity(256),
            publishers,
            subscribers,
            windows,
            buffer: vec![0; BUFFER_BYTES],
            stalls: 0,
        })
    }

    /// Publishes and reads for `time`.
    pub(super) fn run(&mut self, time: Duration) -> Result<(), String> {
        let started = Instant::now();
        let (mut progress, mut since) = (self.progress(), started);
        while started.elapsed() < time {
            self.publish()?;
            self.turn(Duration::from_millis(20))?;
            let now = self.progress();
            if now != progress {
                (progress, since) = (now, Instant::now());
            } else if since.elapsed() > STALLED {
                self.forgive();
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// Publishes nothing new and reads until everything is there, or nothing came for `quiet`.
    pub(super) fn drain(&mut self, quiet: Duration) -> Result<(), String> {
        let due: u64 = self.publishers.iter().map(|p| p.sent).sum::<u64>() * self.subscribers.len() as u64;
        self.drain_to(due, quiet)
    }

    /// The same with the number of deliveries said from outside.
    pub(super) fn drain_to(&mut self, due: u64, quiet: Duration) -> Result<(), String> {
        let (mut progress, mut since) = (self.progress(), Instant::now());
        loop {
            let unacknowledged = self.publishers.iter().any(|p| p.writing > 0 || p.unacknowledged() > 0);
            if (progress.0 >= due && !unacknowledged) || since.elapsed() > quiet {
                return Ok(());
            }
            for publisher in &mut self.publishers {
                publisher.write()?;
            }
            self.turn(Duration::from_millis(20))?;
            let now = self.progress();
            if now != progress {
                (progress, since) = (now, Instant::now());
            }
        }
    }

    /// Ends the publishers, keeps the subscribers.
    pub(super) fn into_subscribers(self) -> Vec<Connection> {
        self.subscribers.into_iter().map(|subscriber| subscriber.connection).collect()
    }

    /// Ends the publishers' connections.
    pub(super) fn close(self) -> Result<(), String> {
        self.publishers.into_iter().try_for_each(|publisher| publisher.connection.close())
    }

    pub(super) fn counts(&self) -> Counts {
        let sent = self.publishers.iter().map(|publisher| publisher.sent).sum();
        let mut counts = Counts { sent, stalls: self.stalls, ..Counts::default() };
        counts.acknowledged = self.publishers.iter().map(|publisher| publisher.acknowledged).sum();
        for subscriber in &self.subscribers {
            counts.delivered += subscriber.received;
            counts.missing += sent.saturating_sub(subscriber.received);
        }
        counts
    }

    fn progress(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts.delivered, counts.acknowledged)
    }

    fn forgive(&mut self) {
        let sent: u64 = self.publishers.iter().map(|publisher| publisher.sent).sum();
        for subscriber in &mut self.subscribers {
            subscriber.forgiven = sent.saturating_sub(subscriber.received);
        }
        self.stalls += 1;
    }

    /// Messages that may be sent now.
    fn free(&self) -> u64 {
        let Some(ahead) = self.windows.ahead else { return u64::MAX };
        let sent: u64 = self.publishers.iter().map(|publisher| publisher.sent).sum();
        let slowest = self.subscribers.iter().map(|s| s.received + s.forgiven).min().unwrap_or(sent);
        let free = ahead.saturating_sub(sent.saturating_sub(slowest));
        if free < ahead.div_ceil(4) { 0 } else { free }
    }

    /// Every publisher in turn writes a block, until windows or sockets are full.
    fn publish(&mut self) -> Result<(), String> {
        let mut free = self.free();
        loop {
            let mut took = false;
            for publisher in &mut self.publishers {
                if !publisher.write()? {
                    continue;
                }
                let count = publisher.may_send(self.windows.unacknowledged).min(free);
                if count > 0 {
                    free -= publisher.send(count)?;
                    took = true;
                }
            }
            if !took {
                return Ok(());
            }
        }
    }

    /// Waits for sockets and reads what they have.
    fn turn(&mut self, at_most: Duration) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(at_most)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(format!("epoll: {error}"));
            }
            _ => {}
        }
        for event in &self.events {
            let token = event.token().0;
            if let Some(subscriber) = self.subscribers.get_mut(token) {
                if event.is_readable() {
                    subscriber.read(&mut self.buffer)?;
                }
                subscriber.answer()?;
            } else if let Some(publisher) = self.publishers.get_mut(token - self.subscribers.len()) {
                if event.is_readable() {
                    publisher.read(&mut self.buffer)?;
                }
                publisher.connection.flush()?;
            }
        }
        Ok(())
    }
}

impl Publisher {
    fn unacknowledged(&self) -> u64 {
        if self.acknowledging { self.sent - self.acknowledged } else { 0 }
    }

    fn may_send(&self, window: u64) -> u64 {
        let block = self.block.packets() as u64;
        if !self.acknowledging {
            return block;
        }
        let free = window.saturating_sub(self.unacknowledged());
        if free < window.div_ceil(4) { 0 } else { free.min(block) }
    }

    /// Begins to write `count` packets at most; how many.
    fn send(&mut self, count: u64) -> Result<u64, String> {
        let count = self.block.packets().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.block.number(count, &mut self.next_id);
        (self.writing, self.written_bytes) = (count, 0);
        self.sent += count as u64;
        self.write()?;
        Ok(count as u64)
    }

    /// Goes on writing; true if nothing is left.
    fn write(&mut self) -> Result<bool, String> {
        let bytes = self.block.bytes(self.writing);
        while self.written_bytes < bytes.len() {
            match self.connection.write(&bytes[self.written_bytes..])? {
                0 => return Ok(false),
                written => self.written_bytes += written,
            }
        }
        self.writing = 0;
        self.written_bytes = 0;
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let acknowledged = &mut self.acknowledged;
        self.connection.read(buffer, |packet| *acknowledged += u64::from(packet.kind() == kind::PUBACK))?;
        Ok(())
    }
}

impl Subscriber {
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let (received, acks) = (&mut self.received, &mut self.acks);
        self.connection.read(buffer, |packet| {
            if packet.kind() == kind::PUBLISH {
                *received += 1;
                if let Some(id) = packet.publish_id() {
                    packet::puback(acks, id);
                }
            }
        })?;
        Ok(())
    }

    /// Writes the acknowledgements of what was read.
    fn answer(&mut self) -> Result<(), String> {
        self.connection.flush()?;
        while !self.acks.is_empty() {
            match self.connection.write(&self.acks)? {
                0 => break,
                written => drop(self.acks.drain(..written)),
            }
        }
        Ok(())
    }
}
