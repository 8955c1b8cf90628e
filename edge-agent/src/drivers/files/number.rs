//! Text of a cell → value of a point's type: decimal sign, groups of thousands. Pure.

use std::borrow::Cow;

use model::DataType;
use model::Value;
use model::limits::VALUE_BYTES_MAX;

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NumberForm {
    /// `1,5` is one and a half.
    pub(super) decimal_comma: bool,
    /// Between groups of three digits before the decimal sign; a space is any kind of space.
    pub(super) thousands: Option<char>,
}

impl NumberForm {
    /// A value; `None` if the text is none of this type. Date-times are not read here.
    pub(super) fn value(self, text: &str, data_type: DataType) -> Option<Value> {
        match data_type {
            DataType::String => (text.len() <= VALUE_BYTES_MAX).then(|| Value::String(text.to_owned())),
            DataType::Boolean => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "on" | "yes" => Some(Value::Boolean(true)),
                "0" | "false" | "off" | "no" => Some(Value::Boolean(false)),
                _ => None,
            },
            DataType::Int64 if let Ok(number) = self.plain(text)?.parse() => Some(Value::Int64(number)),
            DataType::UInt64 if let Ok(number) = self.plain(text)?.parse() => Some(Value::UInt64(number)),
            DataType::Float => self.plain(text)?.parse().ok().map(Value::Float),
            DataType::Double => self.plain(text)?.parse().ok().map(Value::Double),
            DataType::Bytes | DataType::DateTime => None,
            integer => Value::from_f64(self.plain(text)?.parse().ok()?, integer),
        }
    }

    /// The number as Rust writes it; `None` where it has the other decimal sign, or groups that are none.
    fn plain(self, text: &str) -> Option<Cow<'_, str>> {
        let decimal = if self.decimal_comma { ',' } else { '.' };
        let other = if self.decimal_comma { '.' } else { ',' };
        let (whole, fraction) = text.split_once(decimal).map_or((text, None), |(a, b)| (a, Some(b)));
        let is_group = |c: char| match self.thousands {
            Some(' ') => c.is_whitespace(),
            Some(sign) => c == sign,
            None => false,
        };
        if fraction.is_some_and(|fraction| fraction.contains([decimal, other])) {
            return None;
        }
        if !whole.contains(is_group) {
            if whole.contains(other) {
                return None;
            }
            return Some(match fraction {
                Some(fraction) if self.decimal_comma => Cow::Owned(format!("{whole}.{fraction}")),
                _ => Cow::Borrowed(text),
            });
        }
        let mut plain = String::with_capacity(text.len());
        for (nth, group) in whole.split(is_group).enumerate() {
            let digits = if nth == 0 { group.trim_start_matches(['-', '+']) } else { group };
            let length = if nth == 0 { 1..=3 } else { 3..=3 };
            if !length.contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            plain.push_str(group);
        }
        if let Some(fraction) = fraction {
            plain.push('.');
            plain.push_str(fraction);
        }
        Some(Cow::Owned(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_decimal_signs_are_told_apart() {
        let form = |decimal_comma, thousands| NumberForm { decimal_comma, thousands };
        let german = form(true, Some('.'));
        let swiss = form(false, Some('\''));
        let french = form(true, Some(' '));
        for (form, text, expected) in [
            (german, "1.234.567,89", Some(1_234_567.89)),
            (german, "-1.234", Some(-1234.0)),
            (german, "12,5", Some(12.5)),
            (german, "1.5", None),
            (german, "12.34,5", None),
            (german, "1.234,5,6", None),
            (german, "1,234.5", None),
            (swiss, "1'234.5", Some(1234.5)),
            (swiss, "1234.5e-1", Some(123.45)),
            (french, "1\u{202f}234,5", Some(1234.5)),
            (french, "1\u{a0}234", Some(1234.0)),
            (form(false, Some(',')), "1,234,567", Some(1_234_567.0)),
            (form(false, None), "1,234", None),
            (form(true, None), "1.234,5", None),
            (form(true, None), "NaN,", None),
        ] {
            let found = form.value(text, DataType::Double).and_then(|value| value.as_f64());
            assert_eq!(found, expected, "{text} {form:?}");
        }
        assert_eq!(german.value("1.000.000", DataType::UInt64), Some(Value::UInt64(1_000_000)));
    }
}
