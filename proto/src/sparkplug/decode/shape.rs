//! The messages that are only checked, not read: a payload with a broken template is broken as a whole.
//!
//! A shape lists a message's fields; checking walks the bytes along it without keeping anything.

use super::wire::{Failure, Wire, deeper};

/// What a field holds.
enum Field {
    Number,
    Numbers,
    Fixed64,
    Float,
    Text,
    Bytes,
    Message(&'static Shape),
}

/// A message: its fields, and whether it is one of those that can contain themselves, which are counted as levels.
pub(super) struct Shape {
    is_level: bool,
    fields: &'static [(u32, Field)],
}

use Field::{Bytes, Fixed64, Float, Message, Number, Numbers, Text};

static EMPTY: Shape = Shape { is_level: false, fields: &[] };

static METRIC: Shape = Shape {
    is_level: false,
    fields: &[
        (1, Text),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Number),
        (6, Number),
        (7, Number),
        (8, Message(&META_DATA)),
        (9, Message(&PROPERTY_SET)),
        (10, Number),
        (11, Number),
        (12, Float),
        (13, Fixed64),
        (14, Number),
        (15, Text),
        (16, Bytes),
        (17, Message(&DATA_SET)),
        (18, Message(&TEMPLATE)),
        (19, Message(&EMPTY)),
    ],
};

/// `MetaData`.
pub(super) static META_DATA: Shape = Shape {
    is_level: false,
    fields: &[(1, Number), (2, Text), (3, Number), (4, Number), (5, Text), (6, Text), (7, Text), (8, Text)],
};

/// `PropertySet`.
pub(super) static PROPERTY_SET: Shape =
    Shape { is_level: true, fields: &[(1, Text), (2, Message(&PROPERTY_VALUE))] };

static PROPERTY_VALUE: Shape = Shape {
    is_level: false,
    fields: &[
        (1, Number),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Float),
        (6, Fixed64),
        (7, Number),
        (8, Text),
        (9, Message(&PROPERTY_SET)),
        (10, Message(&PROPERTY_SET_LIST)),
        (11, Message(&EMPTY)),
    ],
};

static PROPERTY_SET_LIST: Shape = Shape { is_level: false, fields: &[(1, Message(&PROPERTY_SET))] };

/// `DataSet`.
pub(super) static DATA_SET: Shape =
    Shape { is_level: false, fields: &[(1, Number), (2, Text), (3, Numbers), (4, Message(&ROW))] };

static ROW: Shape = Shape { is_level: false, fields: &[(1, Message(&DATA_SET_VALUE))] };

static DATA_SET_VALUE: Shape = Shape {
    is_level: false,
    fields: &[
        (1, Number),
        (2, Number),
        (3, Float),
        (4, Fixed64),
        (5, Number),
        (6, Text),
        (7, Message(&EMPTY)),
    ],
};

/// `Template`.
pub(super) static TEMPLATE: Shape = Shape {
    is_level: true,
    fields: &[(1, Text), (2, Message(&METRIC)), (3, Message(&PARAMETER)), (4, Text), (5, Number)],
};

static PARAMETER: Shape = Shape {
    is_level: false,
    fields: &[
        (1, Text),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Float),
        (6, Fixed64),
        (7, Number),
        (8, Text),
        (9, Message(&EMPTY)),
    ],
};

static ACCOUNT: Shape = Shape { is_level: false, fields: &[(1, Number), (2, Fixed64)] };

static EPOCH_ACCOUNT: Shape = Shape {
    is_level: false,
    fields: &[(1, Fixed64), (2, Number), (3, Number), (4, Message(&ACCOUNT)), (5, Message(&ACCOUNT))],
};

/// `BirthExtension`.
pub(super) static BIRTH: Shape =
    Shape { is_level: false, fields: &[(1, Message(&EPOCH_ACCOUNT)), (2, Number), (3, Text), (4, Number)] };

/// `CommandExtension`.
pub(super) static COMMAND: Shape =
    Shape { is_level: false, fields: &[(1, Bytes), (2, Number), (3, Text), (4, Text)] };

/// `MetricValueExtension`: it has no fields of its own.
pub(super) static EXTENSION_VALUE: &Shape = &EMPTY;

impl Shape {
    /// Checks that the bytes are a message of this shape.
    pub(super) fn check(&self, mut wire: Wire<'_>, depth: usize) -> Result<(), Failure> {
        let depth = if self.is_level { deeper(depth)? } else { depth };
        while let Some(key) = wire.key()? {
            match self.fields.iter().find(|(tag, _)| *tag == key.tag()).map(|(_, field)| field) {
                None => wire.skip(key, depth)?,
                Some(Number) => drop(wire.number(key)?),
                Some(Numbers) => wire.numbers32(key, |_| Ok(()))?,
                Some(Fixed64) => drop(wire.fixed64(key)?),
                Some(Float) => drop(wire.float(key)?),
                Some(Text) => drop(wire.text(key)?),
                Some(Bytes) => drop(wire.bytes(key)?),
                Some(Message(shape)) => shape.check(wire.message(key)?, depth)?,
            }
        }
        Ok(())
    }
}
