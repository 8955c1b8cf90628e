//! Bytes that are nearly a payload, built from arbitrary bytes: the right fields with odd numbers, repeated,
//! in any order, and now and then a wrong one. What the plain fuzz target would have to find out is given.

use crate::varint;

#[derive(Clone, Copy)]
enum Form {
    Number,
    Numbers,
    Fixed64,
    Fixed32,
    Text,
    Id,
    Message(usize),
}

use Form::{Fixed32, Fixed64, Id, Message, Number, Numbers, Text};

const MESSAGES: [&[(u64, Form)]; 11] = [
    // 0 Payload
    &[
        (1, Number),
        (2, Message(1)),
        (2, Message(1)),
        (2, Message(1)),
        (3, Number),
        (4, Text),
        (5, Text),
        (1180, Message(7)),
        (1181, Message(8)),
        (1182, Message(10)),
    ],
    // 1 Metric
    &[
        (1, Text),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Number),
        (6, Number),
        (7, Number),
        (9, Message(2)),
        (9, Message(2)),
        (10, Number),
        (11, Number),
        (12, Fixed32),
        (13, Fixed64),
        (14, Number),
        (15, Text),
        (16, Text),
        (17, Message(4)),
        (18, Message(5)),
    ],
    // 2 PropertySet
    &[(1, Text), (2, Message(3))],
    // 3 PropertyValue
    &[
        (1, Number),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Fixed32),
        (6, Fixed64),
        (7, Number),
        (8, Text),
        (9, Message(2)),
    ],
    // 4 DataSet
    &[(1, Number), (2, Text), (3, Numbers), (3, Number)],
    // 5 Template
    &[(1, Text), (2, Message(1)), (3, Message(3)), (4, Text), (5, Number)],
    // 6 Account
    &[(1, Number), (2, Fixed64)],
    // 7 RecordExtension
    &[
        (1, Fixed64),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Number),
        (6, Numbers),
        (6, Number),
        (7, Numbers),
        (8, Numbers),
        (9, Message(6)),
    ],
    // 8 BirthExtension
    &[(1, Message(9)), (2, Number), (3, Text)],
    // 9 EpochAccount
    &[(1, Fixed64), (2, Number), (3, Number), (4, Message(6)), (5, Message(6))],
    // 10 CommandExtension
    &[(1, Id), (2, Number), (3, Text)],
];

/// Builds the bytes of a payload, metric by metric, from what `entropy` says.
pub(super) fn payload(entropy: &[u8]) -> Vec<u8> {
    let (mut entropy, mut out) = (Entropy(entropy), Vec::new());
    while !entropy.0.is_empty() {
        field(0, &mut entropy, 0, &mut out);
    }
    out
}

struct Entropy<'a>(&'a [u8]);

impl Entropy<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn wide(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.next()))
    }
}

fn field(message: usize, entropy: &mut Entropy<'_>, depth: usize, out: &mut Vec<u8>) {
    let fields = MESSAGES[message];
    let (tag, form) = fields[usize::from(entropy.next()) % fields.len()];
    if entropy.next() < 4 {
        // Anything goes: another wire type, an unknown field, a group.
        varint::put(tag << 3 | u64::from(entropy.next() & 7), out);
        out.extend((0..entropy.next() & 7).map(|_| entropy.next()));
        return;
    }
    let key = |wire_type: u64, out: &mut Vec<u8>| varint::put(tag << 3 | wire_type, out);
    match form {
        Number => {
            key(0, out);
            number(entropy, out);
        }
        Fixed64 => {
            key(1, out);
            let value = entropy.wide();
            out.extend_from_slice(&(if value & 1 == 0 { 7 } else { value }).to_le_bytes());
        }
        Fixed32 => {
            key(5, out);
            out.extend((0..4).map(|_| entropy.next()));
        }
        Text => {
            let texts: [&[u8]; 5] = [b"", b"Quality", b"a", "ö".as_bytes(), b"b/c"];
            let text = match entropy.next() {
                255 => b"\xff",
                at => texts[usize::from(at) % texts.len()],
            };
            key(2, out);
            varint::put(text.len() as u64, out);
            out.extend_from_slice(text);
        }
        Id => {
            key(2, out);
            out.push(16);
            out.extend((0..16).map(|_| entropy.next()));
        }
        Numbers | Message(_) => {
            let mut inner = Vec::new();
            if entropy.next() > 8 {
                required(form, &mut inner);
            }
            for _ in 0..entropy.next() & 7 {
                match form {
                    Message(of) if depth < 8 => field(of, entropy, depth + 1, &mut inner),
                    Message(_) => {}
                    _ => number(entropy, &mut inner),
                }
            }
            key(2, out);
            varint::put(inner.len() as u64, out);
            out.extend_from_slice(&inner);
        }
    }
}

/// What the extension's messages cannot do without; it may be overwritten by what follows.
fn required(form: Form, out: &mut Vec<u8>) {
    match form {
        Message(7) => {
            out.extend_from_slice(&[1 << 3 | 1, 7, 0, 0, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&[2 << 3, 0xe8, 7, 5 << 3, 1]);
        }
        Message(8) => out.extend_from_slice(&[2 << 3, 1]),
        Message(9) => out.extend_from_slice(&[1 << 3 | 1, 7, 0, 0, 0, 0, 0, 0, 0, 3 << 3, 0x7f]),
        Message(10) => {
            out.extend_from_slice(&[1 << 3 | 2, 16]);
            out.extend_from_slice(&[7; 16]);
            out.extend_from_slice(&[2 << 3, 1]);
        }
        _ => {}
    }
}

/// Mostly small; sometimes 32 or 64 bits and more, sometimes longer than necessary.
fn number(entropy: &mut Entropy<'_>, out: &mut Vec<u8>) {
    match entropy.next() {
        0..180 => varint::put(u64::from(entropy.next() & 0x7f), out),
        180..210 => varint::put(entropy.wide(), out),
        210..230 => varint::put(entropy.wide() >> 31, out),
        230..250 => {
            let longer = usize::from(entropy.next() % 9);
            out.push(entropy.next() | 0x80);
            out.extend(std::iter::repeat_n(0x80, longer));
            out.push(u8::from(longer < 8));
        }
        // 64 bits in ten bytes, or 65.
        _ => {
            out.extend_from_slice(&[0xff; 9]);
            out.push(entropy.next() & 3);
        }
    }
}
