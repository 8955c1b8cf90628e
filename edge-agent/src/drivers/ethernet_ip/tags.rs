//! The tags that points are of, each known by a number, and where in them a point is. Pure.

use std::collections::HashMap;

use model::DataType;

use super::address::Address;
use super::cip::Path;
use super::plan::Span;
use super::value::Form;

/// A tag, or a member of one, without its last index.
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) path: Path,
    pub(super) is_indexed: bool,
}

impl Tag {
    /// The path of its element, or of itself.
    pub(super) fn at(&self, start: u32) -> Path {
        if self.is_indexed { self.path.clone().element(start) } else { self.path.clone() }
    }
}

/// Tags by their numbers.
#[derive(Default)]
pub(super) struct Tags {
    pub(super) list: Vec<Tag>,
    numbers: HashMap<(String, bool), usize>,
}

impl Tags {
    pub(super) fn place(&mut self, address: &Address, data_type: DataType, group: u8) -> PointPlace {
        let is_indexed = address.index.is_some();
        let number =
            self.numbers.entry((address.name.to_ascii_lowercase(), is_indexed)).or_insert_with(|| {
                self.list.push(Tag { name: address.name.clone(), path: address.path.clone(), is_indexed });
                self.list.len() - 1
            });
        let form = match (address.bit, address.length) {
            (Some(bit), _) => Form::Bit(bit),
            (None, Some(length)) => Form::Bytes(length),
            (None, None) => Form::Whole,
        };
        let unit = match (form, data_type) {
            (Form::Bit(32..), _) => 8,
            (Form::Bit(_), _) => 4, // as most are
            (Form::Bytes(_), _) | (_, DataType::Boolean | DataType::Int8 | DataType::UInt8) => 1,
            (_, DataType::Int16 | DataType::UInt16) => 2,
            (_, DataType::Int32 | DataType::UInt32 | DataType::Float) => 4,
            (_, DataType::String) => 88, // as Logix' own
            _ => 8,
        };
        let count = address.length.unwrap_or(1);
        let span = Span { tag: *number, unit, start: address.index.unwrap_or(0), count };
        PointPlace { span, form, data_type, group }
    }
}

#[derive(Clone, Copy)]
pub(super) struct PointPlace {
    pub(super) span: Span,
    pub(super) form: Form,
    pub(super) data_type: DataType,
    pub(super) group: u8,
}
