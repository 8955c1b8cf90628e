//! Faults that were found by reading and by the storm, each by itself.

use std::time::{Duration, Instant};

use super::hub_process::Hub;
use super::peer::{Peer, connect, unique};
use super::wire::{self, Packet, Publish, Version};

/// An answer that needs no record of its own does not wait for somebody else's.
#[test]
fn a_lasting_session_is_answered_on_a_quiet_broker() {
    let hub = Hub::start();
    let (mut peer, _) = connect(&unique("quiet")).lasting().open(hub.address).unwrap();
    std::thread::sleep(Duration::from_millis(1500)); // what the start writes is on disk
    peer.send(&wire::unsubscribe(Version::V5, 7, &["never/subscribed"])).unwrap();
    let id = peer.find(|packet| match packet {
        Packet::Unsuback { id, .. } => Some(*id),
        _ => None,
    });
    assert_eq!(id.unwrap(), 7);
    assert_eq!(peer.subscribe(&[("$secret/x", 1)]).unwrap(), [0x87], "not allowed");
    // The PUBREC of a message that came before.
    let message = Publish::new("t", "x").qos(2, 9).bytes(Version::V5);
    for _ in 0..2 {
        peer.send(&message).unwrap();
        let came = peer.find(|packet| match packet {
            Packet::Ack { kind: wire::PUBREC, id, .. } => Some(*id),
            _ => None,
        });
        assert_eq!(came.unwrap(), 9);
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// A backlog and a retained message for the same session do not wait for each other.
#[test]
fn a_backlog_and_retained_messages_both_come() {
    const QUEUED: usize = 3_000;
    let hub = Hub::start();
    let session = connect(&unique("backlog")).lasting();
    let (mut reader, _) = session.open(hub.address).unwrap();
    reader.subscribe(&[("queue/#", 1)]).unwrap();
    drop(reader);
    let (mut publisher, _) = connect(&unique("p")).open(hub.address).unwrap();
    publisher.say(Publish::new("kept/1", "kept").retained()).unwrap();
    for number in 0..QUEUED {
        publisher.say(Publish::new("queue/1", &number.to_string())).unwrap();
    }
    let (mut reader, connack) = session.open(hub.address).unwrap();
    assert!(connack.session_present);
    reader.send(&wire::subscribe(Version::V5, 2, &[], &[("kept/#", 1)])).unwrap();
    let (mut queued, mut kept) = (Vec::new(), 0);
    while queued.len() < QUEUED || kept < 1 {
        let message = reader.hear().unwrap();
        match message.topic.as_str() {
            "kept/1" => kept += 1,
            _ => queued.push(message.text().parse::<usize>().unwrap()),
        }
    }
    assert_eq!(queued, (0..QUEUED).collect::<Vec<_>>());
}

/// More sessions that catch up than reads of the journal at a time, some of which go away meanwhile: nobody is forgotten.
#[test]
fn many_sessions_catch_up_together() {
    const SESSIONS: usize = 150;
    const QUEUED: usize = 300;
    let hub = Hub::start();
    let sessions: Vec<wire::Connect> = (0..SESSIONS).map(|_| connect(&unique("many")).lasting()).collect();
    for session in &sessions {
        session.open(hub.address).unwrap().0.subscribe(&[("all/#", 1)]).unwrap();
    }
    let (mut publisher, _) = connect(&unique("p")).open(hub.address).unwrap();
    let padding = "x".repeat(1_000);
    for number in 0..QUEUED {
        publisher.say(Publish::new("all/1", &format!("{number} {padding}"))).unwrap();
    }
    let mut readers: Vec<(usize, Peer)> =
        sessions.iter().enumerate().map(|(at, session)| (at, session.open(hub.address).unwrap().0)).collect();
    readers.retain(|(at, _)| at % 3 != 0); // these go while they wait
    for (_, reader) in &mut readers {
        for number in 0..QUEUED {
            let message = reader.hear().unwrap();
            assert_eq!(message.text().split(' ').next(), Some(number.to_string().as_str()));
        }
    }
}

/// Retained messages beyond the bound, of QoS 0, leave those that were acknowledged alone, also after a restart.
#[test]
fn retained_messages_beyond_the_bound_push_out_nobody() {
    let mut hub = Hub::with("tiny"); // 100 of them; the hub has some of its own
    let (mut publisher, _) = connect(&unique("p")).open(hub.address).unwrap();
    for number in 0..50 {
        let topic = format!("z/kept/{number}");
        assert!(publisher.say(Publish::new(&topic, "kept").retained()).unwrap() < 0x80);
    }
    for number in 0..300 {
        publisher.send(&Publish::new(&format!("a/{number}"), "flood").retained().bytes(Version::V5)).unwrap();
    }
    assert_eq!(publisher.say(Publish::new("b", "one more").retained()).unwrap(), 0x97);
    hub.restart();
    let (mut reader, _) = connect(&unique("r")).open(hub.address).unwrap();
    reader.subscribe(&[("z/kept/#", 0)]).unwrap();
    for _ in 0..50 {
        assert_eq!(reader.hear().unwrap().text(), "kept");
    }
}

/// A SUBSCRIBE of a million filters ends its connection, at once.
#[test]
fn a_packet_full_of_filters_holds_up_nobody() {
    let hub = Hub::start();
    let (mut peer, _) = connect(&unique("bomb")).lasting().open(hub.address).unwrap();
    let filters: Vec<(&str, u8)> = vec![("a", 1); 1_000_000];
    let begun = Instant::now();
    peer.send(&wire::subscribe(Version::V5, 1, &[], &filters)).ok();
    assert_eq!(peer.dismissal(), Some(0x97));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// One client cannot have all of the room for subscriptions by making its filters deep.
#[test]
fn deep_filters_are_bounded_by_what_they_cost() {
    let hub = Hub::start();
    let before = hub.memory().0;
    let mut peers = Vec::new();
    let mut granted = 0;
    for at in 0..10 {
        let (mut peer, _) = connect(&unique("deep")).open(hub.address).unwrap();
        let filters: Vec<String> =
            (0..1_000).map(|number| format!("{at}/{number}{}", "/+".repeat(120))).collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
        let codes = peer.subscribe(&filters).unwrap();
        granted += codes.iter().filter(|code| **code == 0).count();
        assert!(codes.contains(&0x97), "all of them were granted");
        peers.push(peer);
    }
    let grown = hub.memory().0.saturating_sub(before);
    println!("{granted} filters of 122 levels took {} MB", grown >> 20);
    assert!(granted > 500 && grown < 100 << 20, "{granted} granted, {grown} bytes");
}

/// Packets that begin and do not end are bounded in all, and one that ended leaves no room behind.
#[test]
fn long_packets_in_part_are_bounded_together() {
    let hub = Hub::start();
    let before = hub.memory().0;
    // A PUBLISH of 12 MB, all but its last byte.
    let mut packet = Publish::new("long", &"x".repeat(12_000_000)).bytes(Version::V5);
    packet.pop();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let (mut peer, _) = connect(&unique("long")).open(hub.address).unwrap();
        peer.send(&packet).ok();
        peers.push(peer);
    }
    std::thread::sleep(Duration::from_millis(1500));
    let grown = hub.memory().0.saturating_sub(before);
    assert!(grown < 160 << 20, "{} MB for 20 × 12 MB in part", grown >> 20);
    for peer in &mut peers {
        peer.send(b"x").ok();
    }
    std::thread::sleep(Duration::from_millis(1500));
    let grown = hub.memory().0.saturating_sub(before);
    println!("{} MB stay of 20 × 12 MB", grown >> 20);
    assert!(grown < 40 << 20, "{} MB stay behind", grown >> 20);
}

/// A second CONNECT is a protocol error whatever is wrong with it besides: DISCONNECT has no code for a version.
#[test]
fn a_second_connect_of_another_version_is_a_protocol_error() {
    let hub = Hub::start();
    let (mut peer, _) = connect(&unique("twice")).open(hub.address).unwrap();
    let mut bytes = connect(&unique("twice")).bytes();
    let level = bytes.windows(4).position(|four| four == b"MQTT").unwrap() + 4;
    bytes[level] = 9;
    peer.send(&bytes).unwrap();
    assert_eq!(peer.dismissal(), Some(0x82));
}
