//! SIGKILL at random moments under QoS 1 and 2: what was acknowledged is there, and nothing of QoS 2 comes twice.
//!
//! Two publishers count; each of their messages goes to two subscribers that are mostly there, and to one that is away
//! but for the count at the end of each round. Each client remembers, as a device with a good memory does, what it sent
//! and what was answered, and goes on from there when the broker is back. A round ends with everything counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::hub_process::Hub;
use super::peer::{PATIENCE, Peer, connect};
use super::wire::{self, Connect, Packet, Property, Publish, Version};

/// Kills between two counts.
const ROUND: usize = 25;
/// Messages of one publisher without an answer.
const WINDOW: usize = 10;
/// Between two messages of a publisher, so that a long run stays countable.
const PAUSE: Duration = Duration::from_millis(2);

/// What all clients share.
struct World {
    address: SocketAddr,
    is_over: AtomicBool,
    /// Publishers begin nothing new.
    is_paused: AtomicBool,
    wrong: Mutex<Vec<String>>,
    /// Messages of each publisher that were answered to the end.
    complete: [AtomicU64; 2],
    repeated: AtomicU64,
}

impl World {
    fn complain(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn check(&self, when: &str) {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{when}: {wrong:#?}");
    }

    /// Connects again and again; that a session is gone that was there is wrong.
    fn connect(&self, session: &Connect, was_there: &mut bool) -> Option<Peer> {
        while !self.is_over.load(Ordering::Relaxed) {
            match session.open(self.address) {
                Ok((peer, connack)) => {
                    if *was_there && !connack.session_present {
                        self.complain(format!("the session of {} is gone", session.id));
                    }
                    *was_there = true;
                    return Some(peer);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }
}

fn is_silence(error: &io::Error) -> bool {
    error.kind() == ErrorKind::TimedOut
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Publish,
    Release,
}

/// Publishes 0, 1, 2, … on one topic with QoS 1 or 2, and a retained message with each tenth.
fn publish(world: &World, session: &Connect, qos: u8) {
    let at = usize::from(qos - 1);
    let (mut next, mut id, mut was_there) = (0_u64, 0_u16, false);
    let mut flying: VecDeque<(u64, u16, Phase)> = VecDeque::new();
    let message = |number: u64, id: u16| {
        let message = if number % 10 == 9 {
            Publish::new(&format!("kept/{qos}"), &number.to_string()).retained()
        } else {
            Publish::new(&format!("count/{qos}"), &number.to_string())
        };
        message.qos(qos, id)
    };
    while let Some(mut peer) = world.connect(session, &mut was_there) {
        let mut go = || -> io::Result<()> {
            for (number, id, phase) in &flying {
                match phase {
                    Phase::Publish => {
                        let again = Publish { dup: true, ..message(*number, *id) };
                        peer.send(&again.bytes(session.version))?;
                    }
                    Phase::Release => peer.send(&wire::ack(wire::PUBREL, *id))?,
                }
            }
            loop {
                if flying.len() < WINDOW && !world.is_paused.load(Ordering::Relaxed) {
                    id = id % 60_000 + 1;
                    flying.push_back((next, id, Phase::Publish));
                    next += 1;
                    peer.send(&message(next - 1, id).bytes(session.version))?;
                }
                match peer.next(PAUSE) {
                    Ok(Packet::Ack { kind, id, code, .. }) => {
                        if code >= 0x80 && code != 0x92 {
                            world.complain(format!("{kind} for {id} of {} has code {code:#x}", session.id));
                        }
                        if kind == wire::PUBREC {
                            flying
                                .iter_mut()
                                .filter(|(_, of, _)| *of == id)
                                .for_each(|f| f.2 = Phase::Release);
                            peer.send(&wire::ack(wire::PUBREL, id))?;
                        } else {
                            let before = flying.len();
                            flying.retain(|(_, of, _)| *of != id);
                            world.complete[at].fetch_add((before - flying.len()) as u64, Ordering::SeqCst);
                        }
                    }
                    Ok(_) => {}
                    Err(error) if is_silence(&error) => {
                        if world.is_over.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if go().is_ok() {
            return;
        }
    }
}

/// What a subscriber remembers.
#[derive(Default)]
struct Memory {
    was_there: bool,
    /// Numbers by topic.
    seen: BTreeMap<String, BTreeSet<u64>>,
    /// Identifiers of QoS 2 messages that came and were not released.
    held: BTreeSet<u16>,
}

impl Memory {
    /// Takes one packet and answers it. A QoS 2 message that was seen before is wrong; so is one before its time.
    fn take(&mut self, world: &World, who: &str, peer: &mut Peer, packet: Packet) -> io::Result<()> {
        match packet {
            Packet::Publish(message) => {
                let is_new = message.qos != 2 || self.held.insert(message.id);
                let number: u64 = message.text().parse().unwrap();
                let seen = self.seen.entry(message.topic.clone()).or_default();
                let is_first = seen.insert(number);
                if is_new && !is_first {
                    world.repeated.fetch_add(1, Ordering::Relaxed);
                    if message.qos == 2 && !message.retain {
                        world.complain(format!("{who} got {} {number} twice with QoS 2", message.topic));
                    }
                }
                if is_first && seen.last().is_some_and(|last| *last > number) && !message.retain {
                    world.complain(format!("{who} got {} {number} after {:?}", message.topic, seen.last()));
                }
                match message.qos {
                    1 => peer.send(&wire::ack(wire::PUBACK, message.id)),
                    2 => peer.send(&wire::ack(wire::PUBREC, message.id)),
                    _ => Ok(()),
                }
            }
            Packet::Ack { kind: wire::PUBREL, id, .. } => {
                self.held.remove(&id);
                peer.send(&wire::ack(wire::PUBCOMP, id))
            }
            _ => Ok(()),
        }
    }

    fn missing(&self, complete: [u64; 2]) -> Vec<String> {
        let mut missing = Vec::new();
        for (qos, count) in [1, 2].into_iter().zip(complete) {
            for number in 0..count {
                let topic = if number % 10 == 9 { format!("kept/{qos}") } else { format!("count/{qos}") };
                if !self.seen.get(&topic).is_some_and(|seen| seen.contains(&number)) {
                    missing.push(format!("{topic} {number}"));
                }
            }
        }
        missing
    }
}

/// Stays connected as well as it can, and takes what comes.
fn subscribe(world: &World, session: &Connect, memory: &Mutex<Memory>) {
    let mut was_there = true; // made by the test before the first kill
    while let Some(mut peer) = world.connect(session, &mut was_there) {
        loop {
            match peer.next(Duration::from_millis(50)) {
                Ok(packet) => {
                    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                    if memory.take(world, &session.id, &mut peer, packet).is_err() {
                        break;
                    }
                }
                Err(error) if is_silence(&error) && !world.is_over.load(Ordering::Relaxed) => {}
                Err(_) => break,
            }
        }
    }
}

/// A small generator: the same seed, the same moments.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A place in something of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = usize::try_from(number("FOREBAY_KILLS").unwrap_or(ROUND as u64)).unwrap();
    let seed = number("FOREBAY_SEED").unwrap_or_else(|| getrandom::u64().unwrap() | 1);
    println!("{kills} kills, FOREBAY_SEED={seed}");
    let mut random = Random(seed);
    let mut hub = Hub::start();
    let world = Arc::new(World {
        address: hub.address,
        is_over: AtomicBool::new(false),
        is_paused: AtomicBool::new(false),
        wrong: Mutex::default(),
        complete: Default::default(),
        repeated: AtomicU64::new(0),
    });
    let mut few = connect("kills-few").lasting();
    few.properties.push(Property::ReceiveMaximum(20));
    let subscribers = [few, connect("kills-many").lasting().v3().lasting()];
    let away = connect("kills-away").lasting();
    let extra = connect("kills-extra").lasting();
    for session in subscribers.iter().chain([&away]) {
        let (mut peer, _) = session.open(hub.address).unwrap();
        let codes = peer.subscribe(&[("count/#", 2), ("kept/#", 2)]).unwrap();
        assert!(codes.iter().all(|code| *code == 2), "{codes:?}");
    }
    let memories = [Arc::<Mutex<Memory>>::default(), Arc::default()];
    let mut threads = Vec::new();
    for (session, memory) in subscribers.iter().zip(&memories) {
        let (world, session, memory) = (Arc::clone(&world), session.clone(), Arc::clone(memory));
        threads.push(std::thread::spawn(move || subscribe(&world, &session, &memory)));
    }
    for (qos, session) in [(1, connect("kills-one").v3().lasting()), (2, connect("kills-two").lasting())] {
        let world = Arc::clone(&world);
        threads.push(std::thread::spawn(move || publish(&world, &session, qos)));
    }
    let mut away_memory = Memory { was_there: true, ..Memory::default() };
    let (mut extras, mut extra_was_there) = (Vec::new(), false);
    let (mut slowest, begun) = (Duration::ZERO, Instant::now());
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(match random.below(4) {
            0 => random.below(30),
            1 => random.below(150),
            _ => random.below(600),
        }));
        // A subscription that is acknowledged is there for good.
        if kill % 3 == 0
            && let Some(mut peer) = world.connect(&extra, &mut extra_was_there)
        {
            let filter = format!("extra/{kill}");
            if peer.subscribe(&[(filter.as_str(), 1)]).is_ok_and(|codes| codes == [1]) {
                extras.push(filter);
            }
        }
        slowest = slowest.max(hub.restart());
        world.check(&format!("after kill {kill}, seed {seed}"));
        if kill % ROUND == 0 || kill == kills {
            count(&world, &memories, &away, &mut away_memory);
            world.check(&format!("after the count at kill {kill}, seed {seed}"));
            let complete = world.complete.each_ref().map(|count| count.load(Ordering::SeqCst));
            println!(
                "{kill} kills in {:?}: {complete:?} messages of QoS 1 and 2 counted at 3 subscribers, {} repeated \
                 (QoS 1), {} subscriptions, slowest start {slowest:?}",
                begun.elapsed(),
                world.repeated.load(Ordering::Relaxed),
                extras.len()
            );
        }
    }
    world.is_over.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    check_extras(&world, &extras, &extra);
    world.check("at the end");
}

/// Lets everything under way come to its end, then counts.
fn count(world: &World, memories: &[Arc<Mutex<Memory>>; 2], away: &Connect, away_memory: &mut Memory) {
    world.is_paused.store(true, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    let mut complete = [0, 0];
    loop {
        let now = world.complete.each_ref().map(|count| count.load(Ordering::SeqCst));
        let is_settled = now == complete && now.iter().all(|count| *count > 0);
        let missing: Vec<Vec<String>> = memories
            .iter()
            .map(|memory| memory.lock().unwrap_or_else(PoisonError::into_inner).missing(now))
            .collect();
        if is_settled && missing.iter().all(Vec::is_empty) {
            break;
        }
        if Instant::now() > until {
            let few = missing.iter().map(|all| (all.len(), all.iter().take(5).collect::<Vec<_>>()));
            world.complain(format!("{now:?} acknowledged; missing: {:?}", few.collect::<Vec<_>>()));
            break;
        }
        complete = now;
        std::thread::sleep(Duration::from_millis(300));
    }
    if let Some(mut peer) = world.connect(away, &mut away_memory.was_there) {
        // It is read until nothing more comes, then counted.
        let until = Instant::now() + PATIENCE;
        loop {
            match peer.next(Duration::from_millis(300)) {
                Ok(packet) => away_memory.take(world, "the one away", &mut peer, packet).unwrap(),
                Err(error) => {
                    let missing = away_memory.missing(complete);
                    if missing.is_empty() && away_memory.held.is_empty() {
                        break;
                    }
                    if Instant::now() > until || !is_silence(&error) {
                        let (count, some) = (missing.len(), missing.iter().take(5).collect::<Vec<_>>());
                        world.complain(format!("{error}: the one away misses {count}: {some:?}"));
                        break;
                    }
                }
            }
        }
    }
    // Retained: the last one acknowledged, or a later one.
    let (mut fresh, _) = connect("kills-fresh").open(world.address).unwrap();
    fresh.subscribe(&[("kept/+", 1)]).unwrap();
    for _ in 0..2 {
        let message = fresh.hear().unwrap();
        let qos: usize = message.topic.trim_start_matches("kept/").parse().unwrap();
        let last = (0..complete[qos - 1]).rev().find(|number| number % 10 == 9);
        if last.is_some_and(|last| message.text().parse::<u64>().unwrap() < last) {
            world.complain(format!("{} is kept, {last:?} was acknowledged", message.text()));
        }
    }
    world.is_paused.store(false, Ordering::SeqCst);
}

/// Every subscription that was acknowledged gets its message.
fn check_extras(world: &World, extras: &[String], session: &Connect) {
    let (mut publisher, _) = connect("kills-last").open(world.address).unwrap();
    for topic in extras {
        publisher.say(Publish::new(topic, "1")).unwrap();
    }
    let (mut peer, connack) = session.open(world.address).unwrap();
    assert!(connack.session_present || extras.is_empty());
    let mut heard = BTreeSet::new();
    while heard.len() < extras.len() {
        match peer.hear() {
            Ok(message) => _ = heard.insert(message.topic),
            Err(error) => {
                let lost: Vec<&String> = extras.iter().filter(|topic| !heard.contains(*topic)).collect();
                panic!("{error}: subscriptions are gone: {lost:?}");
            }
        }
    }
    assert_eq!(session.version, Version::V5);
}
