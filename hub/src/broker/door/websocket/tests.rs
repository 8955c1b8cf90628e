//! Frames cut at every place, by hand.

use super::*;

/// A client's frame.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let (header, length) = header(0, payload.len());
    let mut out = vec![first, header[1] | 0x80];
    out.extend_from_slice(&header[2..length]);
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Payload of data frames, events, payload of control frames.
type Found = (Vec<u8>, Vec<Event>, Vec<u8>);

/// Everything that raw bytes give when they come in pieces of a size.
fn read(raw: &[u8], piece: usize) -> Result<Found, Fault> {
    let (mut input, mut payload, mut events, mut control) =
        (Input::new(), Vec::new(), Vec::new(), Vec::new());
    for piece in raw.chunks(piece) {
        let mut bytes = piece.to_vec();
        let (mut found, mut at) = (0, 0);
        while at < piece.len() {
            if let Some(event) = input.step(&mut bytes, &mut found, &mut at, piece.len())? {
                if let Event::Control(_) = event {
                    control.extend_from_slice(&input.control[..input.control_bytes]);
                }
                events.push(event);
            }
        }
        payload.extend_from_slice(&bytes[..found]);
    }
    Ok((payload, events, control))
}

#[test]
fn frames_cut_anywhere_give_the_same() {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let long: Vec<u8> = (0..70_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let medium = &long[..300];
    let raw = [
        frame(0x82, b"Hello", mask),
        frame(0x02, medium, [1, 2, 3, 4]), // three fragments, a ping in between
        frame(0x89, b"are you there?", mask),
        frame(0x00, b"", mask),
        frame(0x80, &long, [9, 0, 7, 0]),
        frame(0x82, b"", mask),
        frame(0x8A, b"unasked", mask),
        frame(0x88, &1000_u16.to_be_bytes(), mask),
    ]
    .concat();
    let expected = [b"Hello", medium, &long].concat();
    for piece in [1, 2, 3, 5, 7, 13, 14, 64, 1000, 65_536, raw.len()] {
        let (payload, events, control) = read(&raw, piece).unwrap();
        assert!(payload == expected, "pieces of {piece}");
        assert_eq!(events, [Event::Control(PING), Event::Control(PONG), Event::Close]);
        assert_eq!(control, b"are you there?unasked");
    }
}

#[test]
fn frames_that_must_not_be() {
    let mask = [1, 2, 3, 4];
    let fault = |raw: &[u8]| read(raw, 3).unwrap_err().0;
    assert_eq!(fault(&frame(0x81, b"text", mask)), UNSUPPORTED_DATA, "[MQTT-6.0.0-1]");
    assert_eq!(fault(&[0x82, 0x05, b'H', b'e', b'l', b'l', b'o']), PROTOCOL_ERROR, "not masked");
    assert_eq!(fault(&frame(0xC2, b"", mask)), PROTOCOL_ERROR, "an extension");
    assert_eq!(fault(&frame(0x80, b"", mask)), PROTOCOL_ERROR, "nothing to continue");
    assert_eq!(
        fault(&[frame(0x02, b"", mask), frame(0x82, b"", mask)].concat()),
        PROTOCOL_ERROR,
        "a new message"
    );
    assert_eq!(fault(&frame(0x09, b"", mask)), PROTOCOL_ERROR, "a ping in parts");
    assert_eq!(fault(&frame(0x89, &[0; 126], mask)), PROTOCOL_ERROR, "a long ping");
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(fault(&frame(0x80 | opcode, b"", mask)), PROTOCOL_ERROR, "reserved");
    }
    let mut huge = vec![0x82, 0xFF];
    huge.extend(u64::MAX.to_be_bytes());
    huge.extend(mask);
    assert_eq!(fault(&huge), PROTOCOL_ERROR);
    huge[2] = 0x7F; // 2⁶³ - 1 bytes are announced, and cost nothing
    huge.extend(b"abc");
    assert_eq!(read(&huge, 4).unwrap().0.len(), 3);
}

#[test]
fn bytes_of_any_kind_never_panic() {
    pseudo_random(|raw, piece| _ = read(raw, piece));
}

/// Pseudo-random bytes, half of them with plausible first bytes.
fn pseudo_random(check: impl Fn(&[u8], usize)) {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    for round in 0..20_000 {
        let mut raw: Vec<u8> = (0..usize::from(next()) % 60).map(|_| next()).collect();
        if round % 2 == 0 && raw.len() > 2 {
            raw[0] = [0x82, 0x02, 0x89, 0x8A, 0x88, 0x80][usize::from(raw[0]) % 6];
            raw[1] |= 0x80;
        }
        check(&raw, 1 + usize::from(next()) % 20);
    }
}
