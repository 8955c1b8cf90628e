//! How far a value can be trusted, and why not.
//!
//! A quality packs into 32 bits, so that it is one column everywhere:
//!
//! ```text
//! 31      24 23      16 15                0
//! +---------+----------+------------------+
//! |  class  |  reason  |      detail      |
//! +---------+----------+------------------+
//! ```
//!
//! `detail` is the reason's own code: a Modbus exception code, the upper half of an OPC UA status code, a
//! foreign Sparkplug quality. Its text form is bijective: `good`, `bad:device-exception:2`, `stale:no-data`.

use std::{fmt, str::FromStr};

/// The four classes. Stale is "was good, has not been confirmed in time" (Sparkplug 3.0 §6.4.6, code 500).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as in the standards")]
pub enum QualityClass {
    Good = 0,
    Uncertain = 1,
    Bad = 2,
    Stale = 3,
}

impl QualityClass {
    /// `good`, `uncertain`, `bad`, `stale`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Uncertain => "uncertain",
            Self::Bad => "bad",
            Self::Stale => "stale",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Why a quality is what it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $code,)* }
        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];
            /// The reason's name in text forms.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

reasons! {
    /// No particular reason.
    None = 0, "none";
    /// The device answered with an exception; detail: its code.
    DeviceException = 1, "device-exception";
    /// The device did not answer in time.
    Timeout = 2, "timeout";
    /// There is no connection to the device.
    NotConnected = 3, "not-connected";
    /// Outside the range that the point's definition gives.
    OutOfRange = 4, "out-of-range";
    /// The bytes do not make a value of the point's type.
    Undecodable = 5, "undecodable";
    /// The source's type is another than the point's.
    TypeMismatch = 6, "type-mismatch";
    /// An OPC UA status; detail: its upper 16 bits.
    OpcUaStatus = 7, "opcua-status";
    /// The source itself marked the value.
    SourceMarked = 8, "source-marked";
    /// No data within the time that the device promises.
    NoData = 9, "no-data";
    /// Access was denied.
    AccessDenied = 10, "access-denied";
    /// The source's clock cannot be right.
    Clock = 11, "clock";
    /// A foreign Sparkplug quality code; detail: the code.
    Foreign = 12, "foreign";
    /// The device is in stop.
    DeviceStopped = 13, "device-stopped";
    /// The point has not been read yet.
    NeverRead = 14, "never-read";
    /// The source lost values before this one: its own queue was full.
    Overflow = 15, "overflow";
}

/// A class with a reason and the reason's detail, packed as drawn at the top of this file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quality(u32);

impl Quality {
    /// Good, no reason.
    pub const GOOD: Quality = Quality(0);

    /// A class with a reason and no detail.
    #[must_use]
    pub const fn new(class: QualityClass, reason: Reason) -> Self {
        Self::with_detail(class, reason, 0)
    }

    /// A class with a reason and the reason's own code.
    #[must_use]
    pub const fn with_detail(class: QualityClass, reason: Reason, detail: u16) -> Self {
        Quality((class as u32) << 24 | (reason as u32) << 16 | detail as u32)
    }

    /// Shorthand for Bad.
    #[must_use]
    pub const fn bad(reason: Reason) -> Self {
        Self::new(QualityClass::Bad, reason)
    }

    /// Shorthand for Stale.
    #[must_use]
    pub const fn stale(reason: Reason) -> Self {
        Self::new(QualityClass::Stale, reason)
    }

    /// Shorthand for Uncertain.
    #[must_use]
    pub const fn uncertain(reason: Reason) -> Self {
        Self::new(QualityClass::Uncertain, reason)
    }

    /// The packed form.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the packed form; `None` for a class or reason that this version does not know.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let reason = Reason::ALL.iter().any(|r| *r as u32 == bits >> 16 & 0xff);
        (bits >> 24 <= 3 && reason).then_some(Quality(bits))
    }

    /// The class.
    #[must_use]
    pub const fn class(self) -> QualityClass {
        match self.0 >> 24 {
            0 => QualityClass::Good,
            1 => QualityClass::Uncertain,
            2 => QualityClass::Bad,
            _ => QualityClass::Stale,
        }
    }

    /// The reason.
    #[must_use]
    pub fn reason(self) -> Reason {
        let code = self.0 >> 16 & 0xff;
        Reason::ALL.iter().copied().find(|r| *r as u32 == code).unwrap_or(Reason::None)
    }

    /// The reason's own code, 0 if there is none.
    #[must_use]
    pub const fn detail(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Whether the class is Good.
    #[must_use]
    pub const fn is_good(self) -> bool {
        self.0 >> 24 == 0
    }

    /// The Sparkplug code a foreign reader sees: 192 good, 500 stale, 0 for the rest (design §4.5).
    #[must_use]
    pub const fn sparkplug_code(self) -> u16 {
        match self.class() {
            QualityClass::Good => 192,
            QualityClass::Stale => 500,
            QualityClass::Uncertain | QualityClass::Bad => 0,
        }
    }

    /// From the Sparkplug code of a foreign node.
    #[must_use]
    pub fn from_sparkplug_code(code: i64) -> Self {
        match code {
            192 => Self::GOOD,
            500 => Self::stale(Reason::SourceMarked),
            0 => Self::bad(Reason::SourceMarked),
            other => Self::with_detail(
                QualityClass::Uncertain,
                Reason::Foreign,
                u16::try_from(other).unwrap_or(u16::MAX),
            ),
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class().name())?;
        match (self.reason(), self.detail()) {
            (Reason::None, 0) => Ok(()),
            (reason, 0) => write!(f, ":{}", reason.name()),
            (reason, detail) => write!(f, ":{}:{detail}", reason.name()),
        }
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text was no quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseQualityError;

impl fmt::Display for ParseQualityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a quality; expected good, uncertain, bad or stale, then :reason and :detail")
    }
}

impl std::error::Error for ParseQualityError {}

impl FromStr for Quality {
    type Err = ParseQualityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let class = match parts.next() {
            Some("good") => QualityClass::Good,
            Some("uncertain") => QualityClass::Uncertain,
            Some("bad") => QualityClass::Bad,
            Some("stale") => QualityClass::Stale,
            _ => return Err(ParseQualityError),
        };
        let reason = match parts.next() {
            None => Reason::None,
            Some(name) => Reason::ALL.iter().copied().find(|r| r.name() == name).ok_or(ParseQualityError)?,
        };
        let detail = match parts.next() {
            None => 0,
            Some(number) => number.parse().map_err(|_| ParseQualityError)?,
        };
        if parts.next().is_some() {
            return Err(ParseQualityError);
        }
        Ok(Self::with_detail(class, reason, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bits_are_bijective() {
        for class in [QualityClass::Good, QualityClass::Uncertain, QualityClass::Bad, QualityClass::Stale] {
            for &reason in Reason::ALL {
                for detail in [0, 2, u16::MAX] {
                    let quality = Quality::with_detail(class, reason, detail);
                    assert_eq!(quality.to_string().parse(), Ok(quality));
                    assert_eq!(Quality::from_bits(quality.bits()), Some(quality));
                    assert_eq!(
                        (quality.class(), quality.reason(), quality.detail()),
                        (class, reason, detail)
                    );
                }
            }
        }
        assert_eq!(Quality::from_bits(0x0400_0000), None);
        assert_eq!(Quality::from_bits(0x00ff_0000), None);
        assert_eq!(Quality::bad(Reason::Timeout).to_string(), "bad:timeout");
        assert_eq!("bad:none:x".parse::<Quality>(), Err(ParseQualityError));
    }
}
