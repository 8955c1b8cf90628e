//! The state of connections under any sequence of packets of several clients: whole ones in any order, and mutated ones.
//! Nothing ends the hub, and somebody beside them is served in between.
//!
//! `FOREBAY_FUZZ_ITERATIONS=100000 cargo test -p hub --test mqtt_hostile fuzz` goes on for longer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::hub_process::Hub;
use super::kills::Random;
use super::peer::{Peer, connect};
use super::wire::{self, Connect, Packet, Property, Publish, Version, Will};

const CLIENTS: usize = 4;
/// Packets of a sequence.
const PACKETS: usize = 40;
/// Sequences between two looks at the fence.
const FENCE: u64 = 10;
/// Topics and filters that overlap, views of the hub and its own topics among them.
const TOPICS: [&str; 8] = [
    "a",
    "a/b",
    "a/b/c",
    "spBv1.0/g/NDATA/n",
    "spBv1.0/STATE/forebay",
    "acme/antwerp/x",
    "$SYS/x",
    "Ölpumpe/temp",
];
const FILTERS: [&str; 10] =
    ["#", "a/#", "+/b", "a/+/c", "$share/s/a/#", "$share/t/#", "acme/#", "$SYS/#", "spBv1.0/#", "+/+/+/+/+"];

/// Reads choices from the fuzzer's bytes; behind them, from a generator that they are the seed of.
struct Choices<'a>(&'a [u8], Random);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return u8::try_from(self.1.below(256)).unwrap();
        };
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

fn connect_of(choices: &mut Choices<'_>) -> Connect {
    let flags = choices.byte();
    // Few names, so that they take each other over.
    let mut session = connect(&format!("fuzz-{}", flags & 3));
    session.clean = flags & 4 != 0;
    session.keep_alive = u16::from(flags & 8 != 0);
    if flags & 16 != 0 {
        session = session.v3();
    } else {
        session.properties.push(Property::SessionExpiry(choices.of(&[0, 1, 60, u32::MAX])));
        session.properties.push(Property::ReceiveMaximum(choices.of(&[1, 2, 20, 65_535])));
        session.properties.push(Property::TopicAliasMaximum(choices.of(&[0, 1, 100])));
        session.properties.push(Property::MaximumPacketSize(choices.of(&[20, 60, 1_000_000])));
    }
    if flags & 32 != 0 {
        let mut will = Will::new(choices.of(&TOPICS), "gone");
        will.retain = flags & 64 != 0;
        will.qos = choices.byte() % 3;
        if flags & 16 == 0 {
            will.properties.push(Property::WillDelay(choices.of(&[0, 1, 1000])));
        }
        session.will = Some(will);
    }
    session
}

/// The next packet of a client.
fn packet(choices: &mut Choices<'_>, version: Version) -> Vec<u8> {
    let kind = choices.byte();
    let id = choices.of(&[1, 2, 3, 65_535, 0]);
    let v5 = version == Version::V5;
    let mut bytes = match kind % 12 {
        0 | 1 => {
            let mut message = Publish::new(choices.of(&TOPICS), "payload").qos(choices.byte() % 3, id.max(1));
            (message.retain, message.dup) = (kind & 16 != 0, kind & 32 != 0 && message.qos > 0);
            if kind & 64 != 0 {
                message.payload.clear();
            }
            if v5 && kind & 128 != 0 {
                message.properties.push(Property::MessageExpiry(choices.of(&[0, 1, 100])));
                message.properties.push(Property::TopicAlias(choices.of(&[1, 2, 33, 0])));
                if choices.byte() & 1 != 0 {
                    message.topic.clear();
                }
            }
            message.bytes(version)
        }
        2 | 3 => {
            let options = choices.byte() & if v5 { 0x2f } else { 0x03 };
            let identifier = [Property::SubscriptionId(u32::from(choices.byte()) + 1)];
            let properties = if v5 && kind & 16 != 0 { &identifier[..] } else { &[] };
            wire::subscribe(version, id, properties, &[(choices.of(&FILTERS), options), ("a/b", 1)])
        }
        4 => wire::unsubscribe(version, id, &[choices.of(&FILTERS)]),
        5 => wire::ack(wire::PUBACK, id),
        6 => wire::ack(wire::PUBREC, id),
        7 => wire::ack(wire::PUBREL, id),
        8 => wire::ack(wire::PUBCOMP, id),
        9 => wire::pingreq(),
        10 if v5 => {
            wire::disconnect_with(choices.of(&[0, 4, 0x80]), &[Property::SessionExpiry(choices.of(&[0, 9]))])
        }
        10 => wire::disconnect(),
        _ => connect_of(choices).bytes(),
    };
    if kind & 8 != 0 && choices.byte().is_multiple_of(4) {
        let at = usize::from(choices.byte()) % bytes.len();
        match choices.byte() % 3 {
            0 => bytes[at] ^= choices.byte(),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, choices.byte()),
        }
    }
    bytes
}

/// Somebody who means no harm and stays connected.
struct Fence {
    publisher: Peer,
    subscriber: Peer,
    count: u64,
}

impl Fence {
    fn at(hub: &Hub) -> Fence {
        let (mut subscriber, _) = connect("fence-s").lasting().open(hub.address).unwrap();
        subscriber.subscribe(&[("fence/+", 1)]).unwrap();
        let (publisher, _) = connect("fence-p").open(hub.address).unwrap();
        Fence { publisher, subscriber, count: 0 }
    }

    fn is_served(&mut self) {
        self.count += 1;
        let begun = Instant::now();
        let text = self.count.to_string();
        assert_eq!(self.publisher.say(Publish::new("fence/x", &text)).expect("the fence is answered"), 0);
        // After a restart what was acknowledged in the last second may come again.
        while self.subscriber.hear().expect("the fence is served").text() != text {}
        assert!(begun.elapsed() < Duration::from_secs(5), "the fence was served after {:?}", begun.elapsed());
    }
}

#[test]
fn any_sequence_of_packets() {
    let iterations = std::env::var("FOREBAY_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let mut hub = Hub::start();
    let address = hub.address;
    let fence = Mutex::new(Fence::at(&hub));
    let (sequences, packets) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let iterations = iterations.unwrap_or(400);
    bolero::check!().with_iterations(iterations).with_max_len(600).for_each(|bytes: &[u8]| {
        let seed =
            bytes.iter().fold(1, |seed: u64, byte| (seed ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        let mut choices = Choices(bytes, Random(seed | 1));
        let mut peers: [Option<(Peer, Version)>; CLIENTS] = Default::default();
        for _ in 0..PACKETS {
            let who = choices.byte();
            let peer = &mut peers[usize::from(who) % CLIENTS];
            if peer.is_none() {
                let session = connect_of(&mut choices);
                let mut fresh = Peer::raw(address, session.version).unwrap();
                fresh.send(&session.bytes()).ok();
                if who & 0x40 == 0 {
                    fresh.next(Duration::from_millis(200)).ok(); // else it goes on before the CONNACK
                }
                *peer = Some((fresh, session.version));
            }
            let Some((stream, version)) = peer else { continue };
            let bytes = packet(&mut choices, *version);
            packets.fetch_add(1, Ordering::Relaxed);
            let is_gone = stream.send(&bytes).is_err();
            if who & 0x30 == 0x30 {
                // What the broker sends is MQTT, whatever it was asked.
                match stream.next(Duration::from_millis(2)) {
                    Err(error) if error.kind() == std::io::ErrorKind::Other => panic!("{error}"),
                    Ok(Packet::Connack(connack)) => {
                        assert!(connack.code == 0 || connack.code >= 0x80 || connack.code < 6)
                    }
                    _ => {}
                }
            }
            if is_gone || who & 0x80 != 0 && who & 0x08 != 0 {
                *peer = None;
            }
        }
        if sequences.fetch_add(1, Ordering::Relaxed) % FENCE == 0 {
            fence.lock().unwrap().is_served();
        }
    });
    fence.into_inner().unwrap().is_served();
    let memory = hub.memory();
    println!(
        "{} sequences, {} packets in {:?}; {} MB, at most {} MB",
        sequences.into_inner(),
        packets.into_inner(),
        begun.elapsed(),
        memory.0 >> 20,
        memory.1 >> 20
    );
    // What they left behind is recovered.
    hub.restart();
    Fence::at(&hub).is_served();
}
