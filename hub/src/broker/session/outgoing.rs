//! The window of one session's outgoing messages of QoS 1 and 2.

use std::collections::{BTreeSet, VecDeque};

use durable_log::Position;
use proto::mqtt::QoS;

/// Packet identifiers: 1 to 65 535, so that many ordinals can be told apart.
const IDENTIFIERS: u64 = 65_535;

/// See [`super`].
#[derive(Debug, Default)]
pub(in crate::broker) struct Outgoing {
    base: u64,
    next: u64,
    end: u64,
    /// Of ordinals from `base` on.
    slots: VecDeque<Slot>,
    /// Slots below `next` that are not done.
    in_flight: usize,
    /// While behind: where to read on for `next`.
    cursor: Position,
    /// Whether what comes next has to be read from the journal.
    behind: bool,
    /// Whether somebody is reading for it.
    pub(in crate::broker) reading: bool,
    /// Bytes of messages not complete.
    queued_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    position: Position,
    bytes: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// PUBLISH sent.
    Sent(QoS),
    /// PUBREC came: only PUBREL may be sent from now on.
    Received,
    /// Nothing more to do.
    Done,
}

/// How the next ordinal is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Sending {
    /// As PUBLISH.
    Publish {
        packet_id: u16,
        /// It was sent before.
        duplicate: bool,
    },
    /// The client has it: as PUBREL.
    Release { packet_id: u16 },
    /// Not at all.
    Nothing,
}

impl Outgoing {
    /// A session as the journal remembers it.
    pub(in crate::broker) fn recovered(
        (base, end): (u64, u64),
        done: &BTreeSet<u64>,
        received: &BTreeSet<u64>,
        base_position: Position,
        queued_bytes: u64,
    ) -> Outgoing {
        let known = done.last().max(received.last()).map_or(base, |last| last + 1).clamp(base, end);
        let slots = (base..known).map(|ordinal| Slot {
            position: base_position,
            bytes: 0,
            state: match (done.contains(&ordinal), received.contains(&ordinal)) {
                (true, _) => State::Done,
                (false, true) => State::Received,
                (false, false) => State::Sent(QoS::AtLeastOnce),
            },
        });
        let slots: VecDeque<Slot> = slots.collect();
        Outgoing {
            base,
            next: base,
            end,
            slots,
            in_flight: 0,
            cursor: base_position,
            behind: end > base,
            reading: false,
            queued_bytes,
        }
    }

    /// Gives the next message its ordinal.
    pub(in crate::broker) fn assign(&mut self, bytes: usize) -> u64 {
        let ordinal = self.end;
        self.end += 1;
        self.queued_bytes += bytes as u64;
        ordinal
    }

    /// Whether this ordinal is the one to send now, without reading.
    pub(in crate::broker) fn is_current(&self, ordinal: u64) -> bool {
        !self.behind && self.next == ordinal
    }

    /// Whether the window takes one more.
    pub(in crate::broker) fn has_window(&self, in_flight_max: usize) -> bool {
        self.in_flight < in_flight_max && self.next - self.base < IDENTIFIERS
    }

    /// How many more the window takes.
    pub(in crate::broker) fn window(&self, in_flight_max: usize) -> usize {
        let identifiers = usize::try_from(IDENTIFIERS - (self.next - self.base)).unwrap_or(0);
        in_flight_max.saturating_sub(self.in_flight).min(identifiers)
    }

    /// The ordinal that is sent next.
    pub(in crate::broker) const fn next(&self) -> u64 {
        self.next
    }

    /// What comes next lies in the journal at or behind `position`.
    pub(in crate::broker) fn fall_behind(&mut self, position: Position) {
        if !self.behind {
            (self.behind, self.cursor) = (true, position);
        }
    }

    /// Reading has come to `position`; if `caught_up`, what comes next will be offered.
    pub(in crate::broker) fn read_to(&mut self, position: Position, caught_up: bool) {
        (self.cursor, self.behind) = (position, !caught_up);
    }

    /// Where to read on; `None` if it is not behind.
    pub(in crate::broker) fn cursor(&self) -> Option<Position> {
        self.behind.then_some(self.cursor)
    }

    /// Sends the next ordinal, whose message lies at `position`; the window must take it.
    pub(in crate::broker) fn send(&mut self, qos: QoS, position: Position, bytes: usize) -> Sending {
        let packet_id = packet_id(self.next);
        let at = usize::try_from(self.next - self.base).unwrap_or(usize::MAX);
        self.next += 1;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(slot) = self.slots.get_mut(at) else {
            self.slots.push_back(Slot { position, bytes, state: State::Sent(qos) });
            self.in_flight += 1;
            return Sending::Publish { packet_id, duplicate: false };
        };
        (slot.position, slot.bytes) = (position, bytes);
        match slot.state {
            State::Sent(_) => {
                slot.state = State::Sent(qos);
                self.in_flight += 1;
                Sending::Publish { packet_id, duplicate: true }
            }
            State::Received => {
                self.in_flight += 1;
                Sending::Release { packet_id }
            }
            State::Done => {
                self.settle();
                Sending::Nothing
            }
        }
    }

    /// Whether the next ordinal was sent before, in an earlier connection.
    pub(in crate::broker) fn was_sent(&self) -> bool {
        let at = usize::try_from(self.next - self.base).unwrap_or(usize::MAX);
        self.slots.get(at).is_some_and(|slot| slot.state != State::Done)
    }

    /// The next ordinal is not sent at all: expired, or no longer allowed.
    pub(in crate::broker) fn skip(&mut self, position: Position, bytes: usize) {
        let at = usize::try_from(self.next - self.base).unwrap_or(usize::MAX);
        self.next += 1;
        let done = Slot { position, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), state: State::Done };
        match self.slots.get_mut(at) {
            Some(slot) => *slot = done,
            None => self.slots.push_back(done),
        }
        self.settle();
    }

    /// PUBACK [MQTT-4.3.2]; `false` if no such message is in flight.
    pub(in crate::broker) fn acknowledged(&mut self, packet_id: u16) -> bool {
        self.change(packet_id, |state| matches!(state, State::Sent(QoS::AtLeastOnce)).then_some(State::Done))
            .is_some()
    }

    /// PUBREC; the ordinal, and whether this is news; `None` if no such message is in flight.
    pub(in crate::broker) fn received(&mut self, packet_id: u16) -> Option<(u64, bool)> {
        let mut is_news = false;
        let ordinal = self.change(packet_id, |state| {
            is_news = matches!(state, State::Sent(QoS::ExactlyOnce));
            (is_news || state == State::Received).then_some(State::Received)
        })?;
        Some((ordinal, is_news))
    }

    /// A PUBREC with an error ends the message [MQTT-4.3.3].
    pub(in crate::broker) fn refused(&mut self, packet_id: u16) -> bool {
        self.change(packet_id, |state| matches!(state, State::Sent(QoS::ExactlyOnce)).then_some(State::Done))
            .is_some()
    }

    /// PUBCOMP; `false` if nothing was released under that identifier.
    pub(in crate::broker) fn completed(&mut self, packet_id: u16) -> bool {
        self.change(packet_id, |state| (state == State::Received).then_some(State::Done)).is_some()
    }

    /// Changes the state of what is in flight under an identifier; the ordinal if `to` agreed.
    fn change(&mut self, packet_id: u16, to: impl FnOnce(State) -> Option<State>) -> Option<u64> {
        let offset = (u64::from(packet_id) + IDENTIFIERS - 1 - self.base % IDENTIFIERS) % IDENTIFIERS;
        if packet_id == 0 || self.base + offset >= self.next {
            return None;
        }
        let slot = self.slots.get_mut(usize::try_from(offset).ok()?)?;
        let state = to(slot.state)?;
        if slot.state != State::Done && state == State::Done {
            self.in_flight -= 1;
        }
        slot.state = state;
        let ordinal = self.base + offset;
        self.settle();
        Some(ordinal)
    }

    /// Forgets what is complete at the front.
    fn settle(&mut self) {
        while self.base < self.next && self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            if let Some(slot) = self.slots.pop_front() {
                self.queued_bytes = self.queued_bytes.saturating_sub(u64::from(slot.bytes));
            }
            self.base += 1;
        }
        if self.base == self.end {
            self.queued_bytes = 0; // recovered slots have no sizes
        }
    }

    /// The connection is gone: all that is not complete will be sent again, from the journal.
    pub(in crate::broker) fn rewind(&mut self) {
        if let Some(position) = self.first_sent() {
            (self.cursor, self.behind) = (position, true);
        }
        (self.next, self.in_flight, self.reading) = (self.base, 0, false);
    }

    /// Gives up what is not complete below `to`: a policy's decision. Only without a connection.
    pub(in crate::broker) fn give_up(&mut self, to: u64, position: Position) {
        let to = to.clamp(self.base, self.end);
        let gone = usize::try_from(to - self.base).unwrap_or(usize::MAX).min(self.slots.len());
        self.slots.drain(..gone);
        let share = if self.end == self.base { 0 } else { self.queued_bytes / (self.end - self.base) };
        self.queued_bytes = self.queued_bytes.saturating_sub(share * (to - self.base));
        (self.base, self.next, self.in_flight) = (to, to, 0);
        (self.cursor, self.behind) = (position, to < self.end);
    }

    /// First position that the session still needs; `None` if nothing that is durable.
    pub(in crate::broker) fn needs_from(&self) -> Option<Position> {
        self.first_sent().or_else(|| self.behind.then_some(self.cursor))
    }

    /// Where the first message lies that was sent over this connection and is not complete. A slot at or above `next` was
    /// sent over an earlier one: it may not know its position, and the cursor stands before it.
    fn first_sent(&self) -> Option<Position> {
        self.slots.front().filter(|_| self.base < self.next).map(|slot| slot.position)
    }

    /// Lowest ordinal not complete, and those above it that are.
    pub(in crate::broker) fn progress(&self) -> (u64, Vec<u64>) {
        (self.base, self.ordinals(State::Done))
    }

    /// Ordinals whose PUBREC came and whose PUBCOMP did not.
    pub(in crate::broker) fn released(&self) -> Vec<u64> {
        self.ordinals(State::Received)
    }

    fn ordinals(&self, wanted: State) -> Vec<u64> {
        (self.base..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.state == wanted)
            .map(|(ordinal, _)| ordinal)
            .collect()
    }

    /// Ordinal that the next message gets.
    pub(in crate::broker) const fn end(&self) -> u64 {
        self.end
    }

    /// Messages not complete.
    pub(in crate::broker) const fn queued(&self) -> u64 {
        self.end - self.base
    }

    /// Bytes of messages not complete.
    pub(in crate::broker) const fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Messages sent and not complete.
    pub(in crate::broker) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// The identifier of an ordinal.
pub(in crate::broker) fn packet_id(ordinal: u64) -> u16 {
    u16::try_from(ordinal % IDENTIFIERS + 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recovered_and_not_sent_again_lies_at_the_cursor() {
        // Ordinals 0 to 5 lie at 10, 12, …; of 3 the PUBREC had come.
        let (base, received) = (Position(10), BTreeSet::from([3]));
        let mut out = Outgoing::recovered((0, 6), &BTreeSet::new(), &received, base, 0);
        for position in [10, 12] {
            let sending = out.send(QoS::ExactlyOnce, Position(position), 1);
            assert!(matches!(sending, Sending::Publish { duplicate: true, .. }), "{sending:?}");
        }
        out.read_to(Position(13), false); // the window was full
        for packet_id in [1, 2] {
            assert!(out.received(packet_id).is_some() && out.completed(packet_id));
        }
        assert_eq!(out.progress(), (2, vec![]));
        assert_eq!(out.needs_from(), Some(Position(13)), "not where ordinal 0 was");
        out.rewind();
        assert_eq!((out.cursor(), out.next()), (Some(Position(13)), 2));
    }

    fn id(sending: Sending) -> u16 {
        match sending {
            Sending::Publish { packet_id, .. } | Sending::Release { packet_id } => packet_id,
            Sending::Nothing => 0,
        }
    }

    #[test]
    fn acknowledgements_in_any_order_move_the_base() {
        let mut out = Outgoing::default();
        let ids: Vec<u16> = (0..4)
            .map(|n| {
                let ordinal = out.assign(10);
                assert!(out.is_current(ordinal));
                id(out.send(QoS::AtLeastOnce, Position(n), 10))
            })
            .collect();
        assert_eq!((ids, out.in_flight(), out.queued_bytes()), (vec![1, 2, 3, 4], 4, 40));
        assert!(out.acknowledged(2));
        assert!(!out.acknowledged(2), "once");
        assert!(!out.acknowledged(9));
        assert_eq!((out.needs_from(), out.progress()), (Some(Position(0)), (0, vec![1])));
        assert!(out.acknowledged(1));
        assert_eq!((out.progress(), out.queued_bytes()), ((2, vec![]), 20));
        assert!(out.acknowledged(3) && out.acknowledged(4));
        assert_eq!((out.needs_from(), out.queued(), out.in_flight()), (None, 0, 0));
    }

    #[test]
    fn identifiers_come_round_and_stay_apart() {
        let mut out = Outgoing::default();
        for n in 0..200_000_u64 {
            out.assign(1);
            assert!(out.has_window(10));
            let packet_id = id(out.send(QoS::AtLeastOnce, Position(n), 1));
            assert_eq!(u64::from(packet_id), n % 65_535 + 1);
            if n >= 5 {
                assert!(out.acknowledged(super::packet_id(n - 5)));
            }
        }
        assert_eq!(out.in_flight(), 5);
        for _ in 0..65_530 {
            assert!(out.has_window(usize::MAX));
            out.assign(1);
            out.send(QoS::AtLeastOnce, Position(0), 1);
        }
        assert!(!out.has_window(usize::MAX), "the oldest one's identifier would be used twice");
    }

    #[test]
    fn after_a_reconnection_everything_open_is_sent_again_as_what_it_is() {
        let mut out = Outgoing::default();
        for n in 0..4 {
            out.assign(1);
            out.send(if n == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }, Position(10 + n), 1);
        }
        assert_eq!(out.received(3), Some((2, true)));
        assert_eq!(out.received(3), Some((2, false)));
        assert_eq!(out.received(2), None, "QoS 1 knows no PUBREC");
        assert!(!out.completed(1), "not received yet");
        assert!(out.acknowledged(2));
        out.assign(1);
        out.rewind();
        assert_eq!((out.cursor(), out.in_flight(), out.next()), (Some(Position(10)), 0, 0));
        assert_eq!(out.received(1), None, "not sent in this connection");
        let sent: Vec<Sending> = (0..5).map(|n| out.send(QoS::ExactlyOnce, Position(10 + n), 1)).collect();
        let again = |packet_id| Sending::Publish { packet_id, duplicate: true };
        let fresh = Sending::Publish { packet_id: 5, duplicate: false };
        assert_eq!(sent, [again(1), Sending::Nothing, Sending::Release { packet_id: 3 }, again(4), fresh]);
        out.read_to(Position(15), true);
        assert!(out.completed(3));
        for packet_id in [1, 4, 5] {
            assert!(out.received(packet_id).is_some() && out.completed(packet_id));
        }
        assert_eq!((out.queued(), out.in_flight(), out.cursor()), (0, 0, None));
    }

    #[test]
    fn the_journal_s_memory_gives_the_same_identifiers() {
        let (done, received) = (BTreeSet::from([70_001, 70_003]), BTreeSet::from([70_002]));
        let mut out = Outgoing::recovered((70_000, 70_005), &done, &received, Position(42), 500);
        assert_eq!((out.cursor(), out.queued()), (Some(Position(42)), 5));
        let sent: Vec<Sending> = (0..5).map(|n| out.send(QoS::ExactlyOnce, Position(42 + n), 100)).collect();
        assert_eq!(sent[0], Sending::Publish { packet_id: packet_id(70_000), duplicate: true });
        assert_eq!((sent[1], sent[3]), (Sending::Nothing, Sending::Nothing));
        assert_eq!(sent[2], Sending::Release { packet_id: packet_id(70_002) });
        assert_eq!(sent[4], Sending::Publish { packet_id: packet_id(70_004), duplicate: false });
    }

    #[test]
    fn a_backlog_can_be_given_up() {
        let mut out = Outgoing::default();
        for n in 0..10 {
            let ordinal = out.assign(10);
            if n < 3 {
                out.send(QoS::AtLeastOnce, Position(n), 10);
            } else if out.is_current(ordinal) {
                out.fall_behind(Position(n));
            }
        }
        out.rewind();
        out.give_up(6, Position(6));
        assert_eq!((out.queued(), out.queued_bytes(), out.needs_from()), (4, 40, Some(Position(6))));
        out.skip(Position(6), 10);
        assert_eq!(id(out.send(QoS::AtLeastOnce, Position(7), 10)), packet_id(7));
        out.give_up(10, Position(10));
        assert_eq!((out.queued(), out.cursor()), (0, None));
    }
}

#[cfg(test)]
mod recovered_places {
    use super::*;

    #[test]
    fn after_a_restart_the_place_moves_with_what_is_complete() {
        let mut out = Outgoing::recovered((0, 10), &[3].into(), &BTreeSet::new(), Position(100), 1000);
        out.send(QoS::AtLeastOnce, Position(100), 10);
        out.read_to(Position(101), false);
        assert!(out.acknowledged(packet_id(0)));
        assert_eq!(out.progress().0, 1);
        assert!(out.needs_from() > Some(Position(100)), "needs_from {:?}", out.needs_from());
    }

    #[test]
    fn after_a_restart_a_rewind_does_not_go_back_behind_what_is_complete() {
        let mut out = Outgoing::recovered((0, 10), &[3].into(), &BTreeSet::new(), Position(100), 1000);
        out.send(QoS::AtLeastOnce, Position(100), 10);
        out.read_to(Position(101), false);
        assert!(out.acknowledged(packet_id(0)));
        out.rewind();
        assert!(out.cursor() > Some(Position(100)), "cursor {:?}", out.cursor());
    }
}
