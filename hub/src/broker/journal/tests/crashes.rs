//! Random histories with a power cut at any moment, against a plain model: what was told durable is there, what is
//! there is a prefix of what was appended, and every session reads back exactly what it has not completed.

use std::collections::{BTreeMap, BTreeSet};

use durable_log::Faults;
use model::Timestamp;

use super::*;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// How far one message of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Todo,
    Received,
    Done,
}

/// Everything a session ever was, kept in the plainest way.
#[derive(Clone, Debug)]
struct Plain {
    client_id: Arc<str>,
    identity: Arc<str>,
    expiry_s: u32,
    disconnected_at: Option<Timestamp>,
    subscriptions: BTreeMap<Arc<str>, (u8, Option<u32>)>,
    received: BTreeSet<u16>,
    messages: Vec<(Position, Arc<Message>, Target, Step)>,
}

/// The model: what the records up to some position mean.
#[derive(Clone, Debug, Default)]
struct Model {
    sessions: BTreeMap<u64, Plain>,
    retained: BTreeMap<String, Arc<Message>>,
    used_ids: u64,
}

impl Plain {
    fn base(&self) -> usize {
        self.messages.iter().position(|(.., step)| *step != Step::Done).unwrap_or(self.messages.len())
    }

    fn queued_bytes(&self) -> u64 {
        self.messages
            .iter()
            .filter(|(.., step)| *step != Step::Done)
            .map(|(_, message, ..)| message.bytes() as u64)
            .sum()
    }

    fn ordinals(&self, step: Step) -> BTreeSet<u64> {
        let base = self.base();
        let all = self.messages.iter().enumerate().skip(base);
        all.filter(|(_, (.., at))| *at == step).map(|(ordinal, _)| ordinal as u64).collect()
    }
}

impl Model {
    fn of(history: &[Record]) -> Model {
        let mut model = Model::default();
        for (at, record) in history.iter().enumerate() {
            model.apply(Position(at as u64), record);
        }
        model
    }

    fn apply(&mut self, at: Position, record: &Record) {
        let mut use_id = |id: SessionId| self.used_ids = self.used_ids.max(id.0 + 1);
        match record {
            Record::Message { message, targets, retained, received } => {
                for target in targets {
                    use_id(target.session);
                    if let Some(session) = self.sessions.get_mut(&target.session.0) {
                        session.messages.push((at, Arc::clone(message), target.clone(), Step::Todo));
                    }
                }
                if let Some((id, packet_id)) = received
                    && let Some(session) = self.sessions.get_mut(&id.0)
                {
                    session.received.insert(*packet_id);
                }
                if *retained {
                    self.retained.insert(message.topic.to_string(), Arc::clone(message));
                    self.retained.retain(|_, message| !message.payload.is_empty());
                }
            }
            Record::Session { id, client_id, identity, expiry_s } => {
                use_id(*id);
                let session = self.sessions.entry(id.0).or_insert_with(|| Plain {
                    client_id: Arc::clone(client_id),
                    identity: Arc::clone(identity),
                    expiry_s: 0,
                    disconnected_at: None,
                    subscriptions: BTreeMap::new(),
                    received: BTreeSet::new(),
                    messages: Vec::new(),
                });
                session.expiry_s = *expiry_s;
                session.disconnected_at = None;
            }
            Record::Ended { id } => {
                self.sessions.remove(&id.0);
            }
            Record::Disconnected { id, .. }
            | Record::Subscribed { id, .. }
            | Record::Unsubscribed { id, .. }
            | Record::Released { id, .. }
            | Record::Received { id, .. }
            | Record::Progress { id, .. }
            | Record::Skipped { id, .. } => {
                if let Some(session) = self.sessions.get_mut(&id.0) {
                    session.apply(record);
                }
            }
        }
    }

    /// The recovered state must be this one.
    fn check(&self, found: &Recovered, seed: u64) {
        let ids: Vec<u64> = found.sessions.iter().map(|session| session.id.0).collect();
        assert_eq!(ids, self.sessions.keys().copied().collect::<Vec<_>>(), "seed {seed}");
        for session in &found.sessions {
            self.sessions[&session.id.0].check(session, found.end, seed);
        }
        let retained: Vec<_> = self.retained.values().cloned().collect();
        assert_eq!(found.retained, retained, "seed {seed}");
        assert!(found.next_session.0 >= self.used_ids, "seed {seed}");
    }

    fn picture(&self, next_session: u64) -> SnapshotState {
        let sessions = self.sessions.iter().map(|(id, plain)| plain.picture(SessionId(*id))).collect();
        SnapshotState {
            sessions,
            retained: self.retained.values().cloned().collect(),
            next_session: SessionId(next_session),
        }
    }

    fn keep_from(&self, end: Position) -> Position {
        let needed = self.sessions.values().filter_map(|plain| Some(plain.messages.get(plain.base())?.0));
        needed.min().unwrap_or(end)
    }
}

impl Plain {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Disconnected { at, .. } => self.disconnected_at = Some(*at),
            Record::Subscribed { filter, options, subscription_id, .. } => {
                self.subscriptions.insert(Arc::clone(filter), (*options, *subscription_id));
            }
            Record::Unsubscribed { filter, .. } => {
                self.subscriptions.remove(filter);
            }
            Record::Released { packet_id, .. } => {
                self.received.remove(packet_id);
            }
            Record::Received { ordinal, .. } => self.messages[*ordinal as usize].3 = Step::Received,
            Record::Progress { base, done, .. } => {
                let below = 0..*base;
                below.chain(done.iter().copied()).for_each(|i| self.messages[i as usize].3 = Step::Done);
            }
            Record::Skipped { to, .. } => {
                self.messages.iter_mut().take(*to as usize).for_each(|message| message.3 = Step::Done);
            }
            _ => {}
        }
    }

    fn picture(&self, id: SessionId) -> SessionState {
        let base = self.base();
        let end = self.messages.len();
        SessionState {
            id,
            client_id: Arc::clone(&self.client_id),
            identity: Arc::clone(&self.identity),
            expiry_s: self.expiry_s,
            disconnected_at: self.disconnected_at,
            subscriptions: self.subscriptions.iter().map(|(f, (o, i))| (Arc::clone(f), *o, *i)).collect(),
            received: self.received.clone(),
            base: base as u64,
            end: end as u64,
            done: self.ordinals(Step::Done),
            received_out: self.ordinals(Step::Received),
            base_position: self.messages.get(base).map_or(Position::ZERO, |(at, ..)| *at),
            queued_bytes: self.queued_bytes(),
        }
    }

    fn check(&self, found: &SessionState, log_end: Position, seed: u64) {
        let mut expected = self.picture(found.id);
        let mut found = found.clone();
        let base = self.base();
        let place = found.base_position;
        if base == self.messages.len() {
            assert_eq!(place, log_end, "seed {seed}");
        } else {
            assert!(place <= self.messages[base].0, "seed {seed}: {place} is behind");
            assert!(base == 0 || place > self.messages[base - 1].0, "seed {seed}: {place} is too early");
        }
        expected.base_position = place;
        found.subscriptions.sort();
        assert_eq!(found, expected, "seed {seed}");
    }
}

/// Plays the core.
struct Core {
    random: Random,
    seed: u64,
    history: Vec<Record>,
    model: Model,
    next_session: u64,
    clean: Vec<u64>,
}

impl Core {
    fn some_session(&mut self) -> Option<SessionId> {
        let ids: Vec<u64> = self.model.sessions.keys().copied().collect();
        self.random.pick(&ids).map(|id| SessionId(*id))
    }

    fn a_message(&mut self) -> Record {
        let retained = self.random.one_in(4);
        let length = if self.random.one_in(5) { 0 } else { self.random.below(700) };
        let mut message = message(&format!("t/{}", self.random.below(6)), vec![7; length]);
        message.retain = retained;
        message.publisher = self.random.pick(&self.clean).map(|id| SessionId(*id));
        let mut ids: Vec<u64> = self.model.sessions.keys().chain(&self.clean).copied().collect();
        ids.retain(|_| self.random.one_in(2));
        let targets = ids.into_iter().map(|id| Target { subscription_ids: [3, 4].into(), ..target(id) });
        let received = self.some_session().filter(|_| length % 3 == 0);
        Record::Message {
            message: Arc::new(message),
            targets: targets.collect(),
            retained,
            received: received.map(|id| (id, self.random.below(9) as u16)),
        }
    }

    fn progress(&mut self, id: SessionId, end: Position) -> Record {
        let mut plain = self.model.sessions[&id.0].clone();
        for message in &mut plain.messages {
            if self.random.one_in(3) {
                message.3 = Step::Done;
            }
        }
        let base = plain.base();
        // As near as the core may know it: right behind the message before, or at the message.
        let behind = base.checked_sub(1).map(|i| plain.messages[i].0.next());
        let at = plain.messages.get(base).map(|(at, ..)| *at);
        let position = match (behind, at) {
            (Some(behind), Some(_)) if self.random.one_in(2) => behind,
            (_, Some(at)) => at,
            (_, None) => end,
        };
        let done = plain.ordinals(Step::Done).into_iter().collect();
        Record::Progress { id, base: base as u64, position, done, queued_bytes: plain.queued_bytes() }
    }

    fn skipped(&mut self, id: SessionId, end: Position) -> Record {
        let mut plain = self.model.sessions[&id.0].clone();
        let to = self.random.below(plain.messages.len() + 1);
        plain.messages.iter_mut().take(to).for_each(|message| message.3 = Step::Done);
        let to = plain.base();
        let position = plain.messages.get(to).map_or(end, |(at, ..)| *at);
        Record::Skipped { id, to: to as u64, position, queued_bytes: plain.queued_bytes() }
    }

    fn a_session(&mut self) -> Option<Record> {
        let known = self.some_session().filter(|_| self.random.one_in(2));
        let id = known.map_or(self.next_session, |id| id.0);
        self.next_session = self.next_session.max(id + 1);
        if known.is_none() && self.random.one_in(3) {
            self.clean.push(id);
            return None;
        }
        let (client_id, identity) = (format!("client-{id}").into(), "somebody".into());
        Some(Record::Session {
            id: SessionId(id),
            client_id,
            identity,
            expiry_s: self.random.below(9) as u32,
        })
    }

    fn a_record(&mut self, end: Position) -> Option<Record> {
        let kind = self.random.below(20);
        match kind {
            0 | 1 => return self.a_session(),
            2..=9 => return Some(self.a_message()),
            _ => {}
        }
        let id = self.some_session()?;
        let filter: Arc<str> = format!("f/{}/#", self.random.below(4)).into();
        Some(match kind {
            10 => Record::Disconnected { id, at: Timestamp(self.random.next() as i64 >> 8) },
            11 if self.random.one_in(3) => Record::Ended { id },
            11 => Record::Unsubscribed { id, filter },
            12 | 13 => Record::Subscribed { id, filter, options: 2, subscription_id: Some(7) },
            14 => Record::Released { id, packet_id: self.random.below(9) as u16 },
            15 | 16 => {
                let todo: Vec<u64> = self.model.sessions[&id.0].ordinals(Step::Todo).into_iter().collect();
                Record::Received { id, ordinal: *self.random.pick(&todo)? }
            }
            17 => self.skipped(id, end),
            _ => self.progress(id, end),
        })
    }

    fn append(&mut self, rig: &mut Rig) {
        let end = rig.journal().next_position();
        let Some(record) = self.a_record(end) else { return };
        let at = rig.append(record.clone());
        assert_eq!(at.0, self.history.len() as u64);
        self.model.apply(at, &record);
        self.history.push(record);
    }

    /// Works until the plug is pulled, at the latest after some hundred records. Returns what was told durable.
    fn work(&mut self, rig: &mut Rig, disk: &FaultyStorage) -> Position {
        let length = 20 + self.random.below(300);
        let faulty = self.random.one_in(3);
        for step in 0..length {
            self.append(rig);
            match self.random.below(30) {
                0..=9 => rig.journal().submit(),
                10 if rig.journal().wants_snapshot() || self.random.one_in(3) => {
                    let picture = self.model.picture(self.next_session);
                    rig.journal().snapshot(picture);
                }
                11..=14 => {
                    let end = rig.journal().next_position();
                    let keep_from = self.model.keep_from(end);
                    rig.journal().keep_from(keep_from);
                }
                15..=20 => drop(rig.drain()),
                21 => std::thread::sleep(Duration::from_micros(self.random.next() % 1500)),
                22 if !faulty => rig.settle(),
                _ => {}
            }
            if faulty && step == length / 2 {
                let faults = Faults { write_error: 9, sync_error: 9, short: 5, ..Faults::default() };
                disk.set_faults(faults);
            }
        }
        rig.journal().submit();
        std::thread::sleep(Duration::from_micros(self.random.next() % 2000));
        rig.drain();
        rig.journal().durable_end()
    }

    /// What was found is the model at some point between; every session reads what is left for it.
    fn check(&mut self, rig: &mut Rig, durable: Position) {
        let (found, seed) = (rig.recovered.clone(), self.seed);
        assert!(found.end >= durable, "seed {seed}: {} of {durable} durable records", found.end);
        assert!(found.end.0 <= self.history.len() as u64, "seed {seed}");
        self.history.truncate(found.end.0 as usize);
        self.model = Model::of(&self.history);
        self.model.check(&found, seed);
        self.next_session = found.next_session.0;
        self.clean.clear();
        for session in &found.sessions {
            let plain = &self.model.sessions[&session.id.0];
            let messages_max = 1 + self.random.below(40);
            let got = rig.read_all(session.id.0, session.base_position, messages_max);
            let left = plain.messages.iter().skip(plain.base());
            let left: Vec<_> =
                left.map(|(at, message, target, _)| (*at, message.clone(), target.clone())).collect();
            assert_eq!(got, left, "seed {seed}");
        }
    }
}

#[test]
fn after_a_power_cut_at_any_moment_the_state_is_what_was_told() {
    let (mut trimmed, mut pictured, mut cut, mut beyond) = (0, 0, 0, 0);
    for seed in 0..150 {
        let mut core = Core {
            random: Random(seed),
            seed,
            history: Vec::new(),
            model: Model::default(),
            next_session: 0,
            clean: Vec::new(),
        };
        let mut disk = FaultyStorage::new(seed);
        for _life in 0..4 {
            let mut rig = Rig::open(&disk);
            let durable = core.work(&mut rig, &disk);
            disk = disk.crash();
            pictured += rig.metrics.counter("forebay_broker_snapshots_total", "", &[]).get();
            drop(rig);
            let mut rig = Rig::open(&disk);
            cut += u64::from(rig.recovered.cut.is_some());
            beyond += u64::from(rig.recovered.end > durable);
            trimmed += u64::from(segments(&disk)[0] > 0);
            core.check(&mut rig, durable);
            rig.close();
        }
    }
    println!("{trimmed} trimmed, {pictured} snapshots, {cut} torn tails, {beyond} with more than told");
    assert!(trimmed > 30 && pictured > 100 && cut > 20 && beyond > 20);
}
