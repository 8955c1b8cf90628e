//! Properties of MQTT 5 (§2.2.2): checked once while the packet is decoded, then read from their bytes where asked for.
//!
//! [`Properties`] is a view of checked bytes: 16 bytes for packets that have a dozen optional values and nearly
//! always none. PUBLISH has its own ([`super::PublishProperties`]), because everybody reads that.

use super::DecodeError;
use super::reader::Reader;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $id:literal : $kind:ident),* $(,)?) => {
        /// Names of the properties, with their identifiers (§2.2.2.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Id {
            $($(#[$doc])* $name = $id,)*
        }

        impl Id {
            /// Every property.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            const fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(super) const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

/// Data types of property values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Byte,
    Two,
    Four,
    Variable,
    Text,
    Binary,
    Pair,
}

ids! {
    /// PUBLISH, will: 1 if the payload is text.
    PayloadFormat = 1: Byte,
    /// PUBLISH, will: seconds.
    MessageExpiry = 2: Four,
    /// PUBLISH, will.
    ContentType = 3: Text,
    /// PUBLISH, will.
    ResponseTopic = 8: Text,
    /// PUBLISH, will.
    CorrelationData = 9: Binary,
    /// PUBLISH, SUBSCRIBE.
    SubscriptionId = 11: Variable,
    /// CONNECT, CONNACK, DISCONNECT: seconds.
    SessionExpiry = 17: Four,
    /// CONNACK.
    AssignedClientId = 18: Text,
    /// CONNACK: seconds.
    ServerKeepAlive = 19: Two,
    /// CONNECT, CONNACK, AUTH.
    AuthenticationMethod = 21: Text,
    /// CONNECT, CONNACK, AUTH.
    AuthenticationData = 22: Binary,
    /// CONNECT.
    RequestProblemInformation = 23: Byte,
    /// Will: seconds.
    WillDelay = 24: Four,
    /// CONNECT.
    RequestResponseInformation = 25: Byte,
    /// CONNACK.
    ResponseInformation = 26: Text,
    /// CONNACK, DISCONNECT.
    ServerReference = 28: Text,
    /// All acknowledgements, DISCONNECT, AUTH.
    ReasonString = 31: Text,
    /// CONNECT, CONNACK: messages.
    ReceiveMaximum = 33: Two,
    /// CONNECT, CONNACK.
    TopicAliasMaximum = 34: Two,
    /// PUBLISH.
    TopicAlias = 35: Two,
    /// CONNACK.
    MaximumQos = 36: Byte,
    /// CONNACK.
    RetainAvailable = 37: Byte,
    /// Everywhere.
    UserProperty = 38: Pair,
    /// CONNECT, CONNACK: bytes.
    MaximumPacketSize = 39: Four,
    /// CONNACK.
    WildcardSubscriptionAvailable = 40: Byte,
    /// CONNACK.
    SubscriptionIdsAvailable = 41: Byte,
    /// CONNACK.
    SharedSubscriptionAvailable = 42: Byte,
}

impl Id {
    const fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

/// Which properties a packet may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed(u64);

impl Allowed {
    pub(super) const fn these(ids: &[Id]) -> Self {
        let (mut bits, mut at) = (Id::UserProperty.bit(), 0);
        while at < ids.len() {
            bits |= ids[at].bit();
            at += 1;
        }
        Allowed(bits)
    }
}

/// One value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Byte, two or four byte integer, variable byte integer.
    Number(u32),
    /// String.
    Text(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// Pair of strings.
    Pair(&'a str, &'a str),
}

/// One property, checked by itself.
#[inline]
pub(super) fn next<'a>(reader: &mut Reader<'a>) -> Result<(Id, Value<'a>), DecodeError> {
    let id = Id::of(reader.u8()?).ok_or(DecodeError::Malformed("an unknown property"))?;
    let value = match id.kind() {
        Kind::Byte => Value::Number(u32::from(reader.u8()?)),
        Kind::Two => Value::Number(u32::from(reader.u16()?)),
        Kind::Four => Value::Number(reader.u32()?),
        Kind::Variable => Value::Number(reader.variable()?),
        Kind::Text if matches!(id, Id::ResponseTopic) => Value::Text(reader.topic_or_empty()?),
        Kind::Text => Value::Text(reader.string()?),
        Kind::Binary => Value::Binary(reader.binary()?),
        Kind::Pair => Value::Pair(reader.string()?, reader.string()?),
    };
    check(id, value)?;
    Ok((id, value))
}

/// Values that no packet may have.
fn check(id: Id, value: Value<'_>) -> Result<(), DecodeError> {
    match (id, value) {
        (
            Id::PayloadFormat
            | Id::RequestProblemInformation
            | Id::RequestResponseInformation
            | Id::MaximumQos
            | Id::RetainAvailable
            | Id::WildcardSubscriptionAvailable
            | Id::SubscriptionIdsAvailable
            | Id::SharedSubscriptionAvailable,
            Value::Number(2..),
        ) => Err(DecodeError::Protocol("a property that is 0 or 1 has another value")),
        (Id::ReceiveMaximum, Value::Number(0)) => Err(DecodeError::Protocol("receive maximum 0")),
        (Id::MaximumPacketSize, Value::Number(0)) => Err(DecodeError::Protocol("maximum packet size 0")),
        (Id::SubscriptionId, Value::Number(0)) => Err(DecodeError::Protocol("subscription identifier 0")),
        (Id::TopicAlias, Value::Number(0)) => Err(DecodeError::TopicAlias),
        (Id::ResponseTopic, Value::Text("")) => Err(DecodeError::TopicName(super::topic::Fault::Empty)),
        _ => Ok(()),
    }
}

/// Checks that a packet may have each property, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once {
    allowed: u64,
    repeatable: u64,
    seen: u64,
}

impl Once {
    pub(super) const fn new(allowed: Allowed) -> Self {
        Once { allowed: allowed.0, repeatable: Id::UserProperty.bit(), seen: 0 }
    }

    /// For PUBLISH, which may come with the identifiers of several subscriptions (§3.3.2.3.8).
    pub(super) const fn several_subscriptions(mut self) -> Self {
        self.repeatable |= Id::SubscriptionId.bit();
        self
    }

    #[inline]
    pub(super) fn admit(&mut self, id: Id) -> Result<(), DecodeError> {
        if self.allowed & id.bit() == 0 {
            return Err(DecodeError::Malformed("a property that this packet cannot have"));
        }
        if self.seen & id.bit() & !self.repeatable != 0 {
            return Err(DecodeError::Protocol("a property twice"));
        }
        self.seen |= id.bit();
        Ok(())
    }

    pub(super) const fn saw(&self, id: Id) -> bool {
        self.seen & id.bit() != 0
    }
}

/// Checked properties of a packet; none in 3.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Reads the length and checks what follows.
    pub(super) fn decode(reader: &mut Reader<'a>, allowed: Allowed) -> Result<Self, DecodeError> {
        let length = reader.variable()?;
        if length == 0 {
            return Ok(Self::default());
        }
        let raw = reader.take(length as usize)?;
        let mut once = Once::new(allowed);
        let mut inside = Reader::new(raw);
        while !inside.is_empty() {
            once.admit(next(&mut inside)?.0)?;
        }
        if once.saw(Id::AuthenticationData) && !once.saw(Id::AuthenticationMethod) {
            return Err(DecodeError::Protocol("authentication data without a method"));
        }
        Ok(Properties { raw })
    }

    /// The encoded properties, without their length.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Id, Value<'a>)> + use<'a> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || if reader.is_empty() { None } else { next(&mut reader).ok() })
    }

    /// The number of a property that has one.
    #[must_use]
    pub fn number(&self, wanted: Id) -> Option<u32> {
        self.iter().find_map(|(id, value)| match value {
            Value::Number(number) if id == wanted => Some(number),
            _ => None,
        })
    }

    /// The number of a property of two bytes.
    #[must_use]
    pub fn short(&self, wanted: Id) -> Option<u16> {
        self.number(wanted).and_then(|number| u16::try_from(number).ok())
    }

    /// The string of a property that has one.
    #[must_use]
    pub fn text(&self, wanted: Id) -> Option<&'a str> {
        self.iter().find_map(|(id, value)| match value {
            Value::Text(text) if id == wanted => Some(text),
            _ => None,
        })
    }

    /// The bytes of a property that has some.
    #[must_use]
    pub fn binary(&self, wanted: Id) -> Option<&'a [u8]> {
        self.iter().find_map(|(id, value)| match value {
            Value::Binary(bytes) if id == wanted => Some(bytes),
            _ => None,
        })
    }

    /// User properties, in order.
    #[must_use]
    pub fn user(&self) -> UserProperties<'a> {
        UserProperties { reader: Reader::new(self.raw) }
    }
}

/// Names and values of user properties, in the order they were sent.
#[derive(Clone, Debug)]
pub struct UserProperties<'a> {
    reader: Reader<'a>,
}

impl<'a> UserProperties<'a> {
    pub(super) fn of(raw: &'a [u8]) -> Self {
        UserProperties { reader: Reader::new(raw) }
    }
}

impl<'a> Iterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.reader.is_empty() {
            if let (Id::UserProperty, Value::Pair(name, value)) = next(&mut self.reader).ok()? {
                return Some((name, value));
            }
        }
        None
    }
}

/// Whether a server passes the property of a message on unaltered and in order `[MQTT-3.3.2-4]` `[MQTT-3.3.2-15]`
/// `[MQTT-3.3.2-16]` `[MQTT-3.3.2-17]` `[MQTT-3.3.2-18]` `[MQTT-3.3.2-20]`.
pub(super) const fn is_forwardable(id: Id) -> bool {
    matches!(
        id,
        Id::PayloadFormat | Id::ContentType | Id::ResponseTopic | Id::CorrelationData | Id::UserProperty
    )
}

/// Appends those of the checked properties `raw` that are passed on.
pub(super) fn forward(raw: &[u8], out: &mut Vec<u8>) {
    let mut reader = Reader::new(raw);
    while !reader.is_empty() {
        let before = reader.rest();
        let Ok((id, _)) = next(&mut reader) else { return };
        if is_forwardable(id) {
            let bytes = before.len() - reader.rest().len();
            out.extend_from_slice(before.get(..bytes).unwrap_or_default());
        }
    }
}
