//! Topic names and filters: what matches, what is well-formed, what begins with `$` (section 4.7).

use super::broker::Broker;
use super::client::{connect, under_both, unique};
use super::wire::{self, Packet, Version};

/// Filters against names.
/// - 5.0: [MQTT-3.3.2-3] [MQTT-4.7.0-1] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
/// - 3.1.1: [MQTT-3.3.2-3] [MQTT-3.8.3-2] [MQTT-4.7.1-2] [MQTT-4.7.1-3]
#[test]
fn filters_match() {
    // Below a level of the test's own; the empty name stands for that level itself.
    let names = ["", "/", "/a", "/a/", "/a/b", "/a/b/c", "//b", "/A/b", "/ab", "/a b/c", "/$x/b"];
    let cases: &[(&str, &[&str])] = &[
        ("/#", &["", "/", "/a", "/a/", "/a/b", "/a/b/c", "//b", "/A/b", "/ab", "/a b/c", "/$x/b"]),
        ("/a/#", &["/a", "/a/", "/a/b", "/a/b/c"]),
        ("/a", &["/a"]),
        ("/a/", &["/a/"]),
        ("/+", &["/", "/a", "/ab"]),
        ("/+/b", &["/a/b", "//b", "/A/b", "/$x/b"]),
        ("/a/+", &["/a/", "/a/b"]),
        ("/+/+", &["/a/", "/a/b", "//b", "/A/b", "/a b/c", "/$x/b"]),
        ("/+/+/+", &["/a/b/c"]),
        ("/+/#", &["/", "/a", "/a/", "/a/b", "/a/b/c", "//b", "/A/b", "/ab", "/a b/c", "/$x/b"]),
        ("//#", &["/", "//b"]),
        ("/a/b/c/#", &["/a/b/c"]),
        ("/$x/+", &["/$x/b"]),
    ];
    under_both(|broker, version| {
        let root = unique("match");
        let mut publisher = connect(broker, version).open(broker);
        let mut readers = Vec::new();
        for (filter, matches) in cases {
            let mut reader = connect(broker, version).open(broker);
            reader.subscribe(&format!("{root}{filter}"), 0);
            readers.push((filter, matches, reader));
        }
        for name in names {
            publisher.say(&format!("{root}{name}"), "x", 1);
        }
        for (filter, matches, mut reader) in readers {
            let mut heard: Vec<String> =
                reader.drain().into_iter().map(|m| m.topic[root.len()..].into()).collect();
            heard.sort();
            let mut expected = matches.to_vec();
            expected.sort_unstable();
            assert_eq!(heard, expected, "{filter}");
        }
    });
}

/// Wildcards stand alone in their level, `#` at the end; a filter is not empty.
/// - 5.0: [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
/// - 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]
#[test]
fn wildcards_have_their_place() {
    under_both(|broker, version| {
        for filter in
            ["a#", "a/#/b", "#/a", "#a", "a/b#", "+a", "a+", "a/+b", "a/b+/c", "##", "++", "a/##", ""]
        {
            let mut client = connect(broker, version).open(broker);
            client.send(&wire::subscribe(version, 1, &[], &[(filter, 1)]));
            match client.next_or_end("a refusal") {
                None => {}
                Some(Packet::Suback { codes, .. }) => assert!(codes[0] >= 0x80, "{filter} is granted"),
                Some(Packet::Disconnect { code, .. }) => {
                    assert!(matches!(code, 0x81 | 0x82 | 0x8f), "{code:#04x} for {filter}");
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    });
}

/// A filter that begins with a wildcard does not match what begins with `$`; one that begins with `$` does.
/// - 5.0: [MQTT-4.7.2-1]
/// - 3.1.1: [MQTT-4.7.2-1]
#[test]
fn dollar_topics_are_not_for_wildcards() {
    let Some(broker) = Broker::alone() else { return };
    let mut readers = Vec::new();
    for version in wire::BOTH {
        for filter in ["#", "+/#", "+/+/#", "+/+/+", "+/+"] {
            let mut reader = connect(&broker, version).open(&broker);
            reader.send(&wire::subscribe(version, 1, &[], &[(filter, 0)]));
            readers.push(reader);
        }
    }
    let mut system = connect(&broker, Version::V5).open(&broker);
    system.subscribe("$SYS/#", 0);
    // Two rounds of whatever the server says of itself; retained or not.
    for _ in 0..2 {
        assert!(system.publish().topic.starts_with("$SYS/"));
    }
    for mut reader in readers {
        reader.send(&wire::pingreq());
        loop {
            match reader.next() {
                Packet::Pingresp => break,
                Packet::Publish(message) => assert!(!message.topic.starts_with('$'), "{message:?}"),
                Packet::Suback { codes, .. } => assert_eq!(codes, [0]),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Names are compared as they are: no case folding, no Unicode normalisation, no trimming; the byte order mark stays.
/// - 5.0: [MQTT-4.7.3-4] [MQTT-1.5.4-3]
/// - 3.1.1: [MQTT-4.7.3-4] [MQTT-1.5.3-3]
#[test]
fn names_are_taken_literally() {
    let alike = [
        "caf\u{e9}",
        "cafe\u{301}",
        "CAF\u{c9}",
        "caf\u{e9} ",
        " caf\u{e9}",
        "\u{feff}caf\u{e9}",
        "Ölpumpe",
        "ÖLPUMPE",
        "\u{212b}",
        "\u{c5}",
        "A\u{30a}",
        "😀",
        "a\u{fffd}",
    ];
    under_both(|broker, version| {
        let root = unique("literal");
        let mut all = connect(broker, version).open(broker);
        all.subscribe(&format!("{root}/#"), 0);
        let mut publisher = connect(broker, version).open(broker);
        for name in alike {
            let mut reader = connect(broker, version).open(broker);
            reader.subscribe(&format!("{root}/{name}"), 0);
            for other in alike {
                publisher.say(&format!("{root}/{other}"), other, 1);
                all.hear(&format!("{root}/{other}"), other, 0);
            }
            let heard = reader.drain();
            assert_eq!(heard.len(), 1, "{name}: {heard:?}");
            assert_eq!((heard[0].topic.as_str(), heard[0].text()), (format!("{root}/{name}").as_str(), name));
        }
    });
}

/// A topic may be long and deep.
/// - 5.0: [MQTT-4.7.3-3]
/// - 3.1.1: [MQTT-4.7.3-3]
#[test]
fn long_topics_are_served() {
    under_both(|broker, version| {
        let long = format!("{}/{}", unique("long"), "x".repeat(400));
        let deep = format!("{}{}", unique("deep"), "/1".repeat(60));
        let mut client = connect(broker, version).open(broker);
        for topic in [&long, &deep] {
            client.subscribe(topic, 0);
            client.send(&super::wire::Publish::new(topic, "x").bytes(version));
            client.hear(topic, "x", 0);
        }
    });
}
