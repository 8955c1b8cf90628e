//! Subscribers that never read: nobody else notices, and what waits for them is bounded.

use std::thread;
use std::time::{Duration, Instant};

use super::hub_process::Hub;
use super::peer::{Peer, connect, unique};
use super::wire::{Connect, Packet, Property, Publish, Version};

const SUBSCRIBERS: usize = 20;
const PAYLOAD: usize = 200;

/// A reader that checks the order; how long until it had everything. QoS 0 may leave messages out.
fn read_all(mut peer: Peer, messages: usize, qos: u8) -> (usize, Duration) {
    let begun = Instant::now();
    let (mut count, mut last) = (0, None);
    loop {
        let message = match peer.hear() {
            Ok(message) => message,
            Err(error) => panic!("{error} after {count} of {messages}"),
        };
        let number: usize = message.text().split(' ').next().unwrap().parse().unwrap();
        assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
        assert!(qos == 0 || number == count, "{number} instead of {count}");
        (count, last) = (count + 1, Some(number));
        if number + 1 == messages {
            return (count, begun.elapsed());
        }
    }
}

/// Publishes at full speed while `stuck` of the subscribers do not read. Time of the publisher, of the slowest reader, and
/// messages that readers missed.
fn run(hub: &Hub, stuck: usize, qos: u8, messages: usize) -> (Duration, Duration, usize) {
    let topic = unique("flow");
    let mut idle = Vec::new();
    let mut readers = Vec::new();
    for at in 0..SUBSCRIBERS {
        let (mut peer, _) = connect(&unique("s")).open(hub.address).unwrap();
        peer.subscribe(&[(&topic, qos)]).unwrap();
        if at < stuck {
            idle.push(peer);
        } else {
            readers.push(thread::spawn(move || read_all(peer, messages, qos)));
        }
    }
    let (mut publisher, _) = connect(&unique("p")).open(hub.address).unwrap();
    let padding = "x".repeat(PAYLOAD);
    let begun = Instant::now();
    let mut flying = 0_u16;
    for number in 0..messages {
        let id = u16::try_from(number % 60_000).unwrap() + 1;
        let message = Publish::new(&topic, &format!("{number} {padding}"));
        publisher.send(&message.qos(qos, id).bytes(Version::V5)).unwrap();
        flying += 1;
        while flying >= 500 || (number + 1 == messages && flying > 0) {
            if qos == 0 {
                // A PINGREQ now and then keeps the publisher from running ahead of everybody's buffers.
                publisher.send(&super::wire::pingreq()).unwrap();
                publisher.find(|packet| matches!(packet, Packet::Pingresp).then_some(())).unwrap();
                flying = 0;
            } else {
                publisher.find(|packet| matches!(packet, Packet::Ack { .. }).then_some(())).unwrap();
                flying -= 1;
            }
        }
    }
    let published = begun.elapsed();
    let read: Vec<(usize, Duration)> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let slowest = read.iter().map(|(_, took)| *took).max().unwrap_or_default();
    (published, slowest, read.iter().map(|(count, _)| messages - count).sum())
}

/// Ten stuck of twenty: publisher and readers keep their rate. The bound is generous, since this machine does other
/// things as well; `forebay bench broker` measures it.
#[test]
fn ten_stuck_of_twenty_subscribers_disturb_nobody() {
    const MESSAGES: usize = 8_000;
    let hub = Hub::alone("");
    for qos in [0, 1] {
        run(&hub, 0, qos, 500); // warm
        let undisturbed = run(&hub, 0, qos, MESSAGES);
        let disturbed = run(&hub, 10, qos, MESSAGES);
        println!(
            "QoS {qos}: publisher, slowest reader, missed: {undisturbed:?}; with 10 stuck {disturbed:?}"
        );
        let bound = |time: Duration| time * 2 + Duration::from_millis(500);
        assert!(disturbed.0 < bound(undisturbed.0), "QoS {qos}: {disturbed:?} instead of {undisturbed:?}");
        assert!(disturbed.1 < bound(undisturbed.1), "QoS {qos}: {disturbed:?} instead of {undisturbed:?}");
    }
    let (memory, peak) = hub.memory();
    println!("{} MB, at most {} MB", memory >> 20, peak >> 20);
}

/// QoS 1 to one that never reads waits on disk up to its bound; then the client is told 0x97, and the publisher and other
/// readers have noticed nothing.
fn waits_up_to_the_bound(session: &Connect, qos: u8) {
    const BOUND: usize = 2_000; // of the small limits
    let hub = Hub::with("small");
    let topic = unique("bound");
    let (mut stuck, _) = session.open(hub.address).unwrap();
    stuck.subscribe(&[(&topic, qos)]).unwrap();
    let (mut reader, _) = connect(&unique("r")).open(hub.address).unwrap();
    reader.subscribe(&[(&topic, 1)]).unwrap();
    let (mut publisher, _) = connect(&unique("p")).open(hub.address).unwrap();
    let reader = thread::spawn(move || read_all(reader, 3 * BOUND, 1));
    for number in 0..3 * BOUND {
        let code = publisher.say(Publish::new(&topic, &format!("{number} {}", "x".repeat(500)))).unwrap();
        assert_eq!(code, 0, "of message {number}");
    }
    assert_eq!(reader.join().unwrap().0, 3 * BOUND);
    // What was sent comes first, in order; then the reason.
    let mut came = 0;
    let code = loop {
        match stuck.next(super::peer::PATIENCE) {
            Ok(Packet::Publish(message)) => {
                assert_eq!(message.text().split(' ').next(), Some(came.to_string().as_str()));
                came += 1;
            }
            Ok(Packet::Disconnect { code, .. }) => break code,
            other => panic!("{other:?} after {came} messages"),
        }
    };
    assert_eq!(code, 0x97);
    if session.clean {
        return;
    }
    // The session is there, with as much as its bound, in order; then comes what is new.
    let (mut again, connack) = session.open(hub.address).unwrap();
    assert!(connack.session_present);
    for number in 0..BOUND {
        let message = again.hear().unwrap();
        assert_eq!(message.text().split(' ').next(), Some(number.to_string().as_str()));
    }
    assert_eq!(publisher.say(Publish::new(&topic, "new")).unwrap(), 0);
    assert_eq!(again.hear().unwrap().text(), "new");
}

#[test]
fn a_lasting_session_that_never_reads_waits_up_to_its_bound() {
    let mut session = connect(&unique("stuck")).lasting();
    session.properties.push(Property::ReceiveMaximum(10));
    waits_up_to_the_bound(&session, 1);
}

#[test]
fn a_clean_session_that_never_reads_waits_up_to_its_bound() {
    let mut session = connect(&unique("stuck"));
    session.properties.push(Property::ReceiveMaximum(10));
    waits_up_to_the_bound(&session, 1);
}
