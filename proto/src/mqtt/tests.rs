//! The codec against the standards, against itself, and against rumqttc's.

use super::*;

#[test]
fn a_publish_comes_back() {
    let message = encode::PublishOut { topic: "a/b", payload: b"x", ..Default::default() };
    let mut out = Vec::new();
    encode::publish(&mut out, Version::V5, &message);
    assert_eq!(out, [0x30, 7, 0, 3, b'a', b'/', b'b', 0, b'x']);
    let frame = frame(&out, 100).unwrap().unwrap();
    let Packet::Publish(publish) = decode(frame, Version::V5).unwrap() else { panic!() };
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"x"[..]));
}
