//! One metric: the hot loop of the decoder, and its properties, which are read only when somebody asks.

use super::shape::{DATA_SET, EXTENSION_VALUE, META_DATA, PROPERTY_SET, TEMPLATE};
use super::wire::{FIXED32, FIXED64, Failure, Key, VARINT, Wire};
use super::{MetricView, WireValue};

const ALIAS: Key = Key::new(2, VARINT);
const TIMESTAMP: Key = Key::new(3, VARINT);
const IS_HISTORICAL: Key = Key::new(5, VARINT);
const INT: Key = Key::new(10, VARINT);
const LONG: Key = Key::new(11, VARINT);
const FLOAT: Key = Key::new(12, FIXED32);
const DOUBLE: Key = Key::new(13, FIXED64);
const BOOLEAN: Key = Key::new(14, VARINT);

impl MetricView<'_> {
    pub(super) const EMPTY: Self = MetricView {
        name: None,
        alias: None,
        timestamp: None,
        datatype: None,
        is_historical: false,
        is_transient: false,
        is_null: false,
        value: WireValue::None,
        properties: None,
        several_property_sets: false,
    };
}

/// Reads a metric of a payload into an empty one. What data messages consist of is matched by its key as a whole;
/// everything else, mistakes among it, goes the long way.
#[expect(clippy::cast_possible_truncation, reason = "of a 32-bit number with more bits the lower ones count")]
pub(super) fn read<'a>(mut wire: Wire<'a>, metric: &mut MetricView<'a>) -> Result<(), Failure> {
    let whole = wire.rest();
    while let Some(key) = wire.key()? {
        match key {
            ALIAS => metric.alias = Some(wire.varint()?),
            TIMESTAMP => metric.timestamp = Some(wire.varint()?),
            IS_HISTORICAL => metric.is_historical = wire.varint()? != 0,
            INT => metric.value = WireValue::Int(wire.varint()? as u32),
            LONG => metric.value = WireValue::Long(wire.varint()?),
            FLOAT => metric.value = WireValue::Float(f32::from_le_bytes(wire.array()?)),
            DOUBLE => metric.value = WireValue::Double(f64::from_le_bytes(wire.array()?)),
            BOOLEAN => metric.value = WireValue::Boolean(wire.varint()? != 0),
            _ => read_field(key, &mut wire, whole, metric)?,
        }
    }
    Ok(())
}

/// One field of any kind.
fn read_field<'a>(
    key: Key,
    wire: &mut Wire<'a>,
    whole: &'a [u8],
    metric: &mut MetricView<'a>,
) -> Result<(), Failure> {
    match key.tag() {
        1 => metric.name = Some(wire.text(key)?),
        2 => metric.alias = Some(wire.number(key)?),
        3 => metric.timestamp = Some(wire.number(key)?),
        4 => metric.datatype = Some(wire.number32(key)?),
        5 => metric.is_historical = wire.flag(key)?,
        6 => metric.is_transient = wire.flag(key)?,
        7 => metric.is_null = wire.flag(key)?,
        8 => META_DATA.check(wire.message(key)?, 0)?,
        9 => {
            let set = wire.message(key)?;
            PROPERTY_SET.check(set, 0)?;
            metric.several_property_sets = metric.properties.is_some();
            metric.properties = Some(if metric.several_property_sets { whole } else { set.rest() });
        }
        10 => metric.value = WireValue::Int(wire.number32(key)?),
        11 => metric.value = WireValue::Long(wire.number(key)?),
        12 => metric.value = WireValue::Float(wire.float(key)?),
        13 => metric.value = WireValue::Double(wire.double(key)?),
        14 => metric.value = WireValue::Boolean(wire.flag(key)?),
        15 => metric.value = WireValue::String(wire.text(key)?),
        16 => metric.value = WireValue::Bytes(wire.bytes(key)?),
        17 => {
            DATA_SET.check(wire.message(key)?, 0)?;
            metric.value = WireValue::Unsupported("DataSet");
        }
        18 => {
            TEMPLATE.check(wire.message(key)?, 0)?;
            metric.value = WireValue::Unsupported("Template");
        }
        19 => {
            EXTENSION_VALUE.check(wire.message(key)?, 0)?;
            metric.value = WireValue::Unsupported("extension");
        }
        _ => wire.skip(key, 0)?,
    }
    Ok(())
}

impl<'a> MetricView<'a> {
    /// Whether it says that there is no value, or just has none.
    #[must_use]
    pub fn has_no_value(&self) -> bool {
        self.is_null || self.value == WireValue::None
    }

    /// A property by name, if it is a scalar; [`WireValue::None`] if it is null.
    ///
    /// Of several properties with one name the first counts.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<WireValue<'a>> {
        let index = self.entries(1).position(|found| found == key.as_bytes())?;
        property_value(self.entries(2).nth(index)?)
    }

    /// Entries of one field over all property sets of the metric: keys (1) or values (2).
    fn entries(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.properties.unwrap_or_default();
        let sets = self.several_property_sets.then(|| fields(bytes, 9));
        let one = sets.is_none().then_some(bytes);
        one.into_iter().chain(sets.into_iter().flatten()).flat_map(move |set| fields(set, tag))
    }
}

/// The fields with `tag` of a message that has been checked: texts or messages.
fn fields(bytes: &[u8], tag: u32) -> impl Iterator<Item = &[u8]> {
    let mut wire = Wire::new(bytes);
    std::iter::from_fn(move || {
        loop {
            let key = wire.key().ok().flatten()?;
            if key.tag() == tag {
                return wire.bytes(key).ok();
            }
            wire.skip(key, 0).ok()?;
        }
    })
}

fn property_value(bytes: &[u8]) -> Option<WireValue<'_>> {
    let mut wire = Wire::new(bytes);
    let (mut is_null, mut value) = (false, Some(WireValue::None));
    while let Some(key) = wire.key().ok()? {
        match key.tag() {
            2 => is_null = wire.flag(key).ok()?,
            3 => value = Some(WireValue::Int(wire.number32(key).ok()?)),
            4 => value = Some(WireValue::Long(wire.number(key).ok()?)),
            5 => value = Some(WireValue::Float(wire.float(key).ok()?)),
            6 => value = Some(WireValue::Double(wire.double(key).ok()?)),
            7 => value = Some(WireValue::Boolean(wire.flag(key).ok()?)),
            8 => value = Some(WireValue::String(wire.text(key).ok()?)),
            9..=11 => {
                wire.skip(key, 0).ok()?;
                value = None;
            }
            _ => wire.skip(key, 0).ok()?,
        }
    }
    if is_null { Some(WireValue::None) } else { value }
}
