//! The controller's lists of tags and of members of structures, without I/O. Every length from the network is checked.
//!
//! ```text
//! tag       instance (4)  length (2)  name  type (2)  sizes of three dimensions (4 each)  [external access (1)]
//! type      bit 15: a structure, bits 0-11 its template; else bits 0-7 its code; bit 12: the system's; bits 13, 14: dimensions
//! template  members { array size, or bit (2)  type (2)  offset (4) }  name;…  0  names of the members, each ended by 0
//! ```

use super::cip::{self, Path};

/// Tags that a controller may have, in one program.
pub(super) const TAGS_MAX: usize = 200_000;
/// Members of one structure.
pub(super) const MEMBERS_MAX: u16 = 4096;
/// Bytes of a template.
pub(super) const TEMPLATE_BYTES_MAX: usize = 262_144;

/// What a list says of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) instance: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Sizes of its dimensions; none if it is no array.
    pub(super) sizes: Vec<u32>,
    pub(super) access: Access,
    pub(super) is_system: bool,
}

/// What a tag or member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A type code.
    Elementary(u16),
    /// The number of a template.
    Structure(u16),
}

/// What others than the program may do with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    Read,
    None,
}

/// Asks for tags from this instance on, of the controller or of a program. Old controllers do not know external access.
pub(super) fn symbols(program: Option<&str>, from: u32, with_access: bool) -> Vec<u8> {
    let from = u16::try_from(from).unwrap_or(u16::MAX);
    let scope = program.map_or_else(Path::default, |program| Path::default().name(program));
    let attributes: &[u16] = if with_access { &[1, 2, 8, 10] } else { &[1, 2, 8] };
    let count = u16::try_from(attributes.len()).unwrap_or_default();
    let data: Vec<u8> =
        std::iter::once(&count).chain(attributes).flat_map(|number| number.to_le_bytes()).collect();
    cip::request(cip::INSTANCE_ATTRIBUTES, &scope.then(&Path::instance(0x6b, from)), &data)
}

/// The tags in an answer.
pub(super) fn parse_symbols(data: &[u8], with_access: bool) -> Option<Vec<Symbol>> {
    let (mut rest, mut found) = (data, Vec::new());
    while !rest.is_empty() {
        let (instance, after) = four(rest)?;
        let (length, after) = two(after)?;
        let (name, after) = after.split_at_checked(length.into())?;
        let (code, mut after) = two(after)?;
        let mut sizes = Vec::new();
        for nth in 0..3 {
            let (size, behind) = four(after)?;
            if nth < (code >> 13 & 3) {
                sizes.push(size);
            }
            after = behind;
        }
        let access = match with_access.then(|| after.split_first()) {
            None => Access::ReadWrite,
            Some(None) => return None,
            Some(Some((access, behind))) => {
                after = behind;
                match access {
                    0 => Access::ReadWrite,
                    2 => Access::Read,
                    _ => Access::None,
                }
            }
        };
        rest = after;
        let (kind, is_system) = (kind(code), code & 0x1000 != 0);
        found.push(Symbol { instance, name: text(name), kind, sizes, access, is_system });
    }
    Some(found)
}

const fn kind(code: u16) -> Kind {
    if code & 0x8000 != 0 { Kind::Structure(code & 0x0fff) } else { Kind::Elementary(code & 0xff) }
}

/// Asks how large a template is.
pub(super) fn template_size(template: u16) -> Vec<u8> {
    let attributes = [2_u16, 4, 2]; // two of them: the definition's words, the members
    let data: Vec<u8> = attributes.iter().flat_map(|number| number.to_le_bytes()).collect();
    cip::request(cip::ATTRIBUTE_LIST, &Path::instance(0x6c, template), &data)
}

/// Members, and bytes of the definition.
pub(super) fn parse_template_size(data: &[u8]) -> Option<(u16, usize)> {
    let (count, mut rest) = two(data)?;
    let (mut words, mut members) = (None, None);
    for _ in 0..count.min(8) {
        let (number, after) = two(rest)?;
        let (status, after) = two(after)?;
        if status != 0 {
            return None;
        }
        rest = match number {
            4 => {
                let (found, after) = four(after)?;
                words = usize::try_from(found).ok();
                after
            }
            2 => {
                let (found, after) = two(after)?;
                members = Some(found);
                after
            }
            _ => return None,
        };
    }
    // The definition's size counts a head of 23 bytes that is not read.
    let bytes = words?.checked_mul(4)?.checked_sub(23).filter(|bytes| *bytes <= TEMPLATE_BYTES_MAX)?;
    Some((members.filter(|members| *members <= MEMBERS_MAX)?, bytes))
}

/// Asks for a part of a template.
pub(super) fn read_template(template: u16, offset: usize, bytes: usize) -> Vec<u8> {
    let mut data = u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    data.extend(u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes());
    cip::request(cip::READ, &Path::instance(0x6c, template), &data)
}

/// One member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Of an array, else 0.
    pub(super) size: u16,
}

/// The members of a structure; those that the programming tool hides are left out.
pub(super) fn parse_template(bytes: &[u8], members: u16) -> Option<Vec<Member>> {
    let (heads, texts) = bytes.split_at_checked(usize::from(members) * 8)?;
    let mut texts = texts.split(|byte| *byte == 0);
    texts.next()?; // its own name
    let mut found = Vec::new();
    for head in heads.chunks_exact(8) {
        let (info, rest) = two(head)?;
        let (code, _) = two(rest)?;
        let name = text(texts.next()?);
        let size = if code & 0x6000 == 0 { 0 } else { info };
        if !name.starts_with("ZZZZZZZZZZ") && !name.starts_with("__") && !name.is_empty() {
            found.push(Member { name, kind: kind(code), size });
        }
    }
    Some(found)
}

/// Whether these are the members of a text.
pub(super) fn is_text(members: &[Member]) -> bool {
    use super::value::{DINT, SINT};
    matches!(members, [length, data]
        if length.name == "LEN" && length.kind == Kind::Elementary(DINT)
        && data.name == "DATA" && data.kind == Kind::Elementary(SINT) && data.size > 0)
}

fn two(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk().map(|(two, rest)| (u16::from_le_bytes(*two), rest))
}

fn four(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(four, rest)| (u32::from_le_bytes(*four), rest))
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any bytes: no panic, and no more than they can hold.
    #[test]
    fn any_bytes_are_a_list_or_none() {
        bolero::check!().with_type::<(Vec<u8>, u16, bool)>().for_each(|(bytes, members, with_access)| {
            if let Some(found) = parse_symbols(bytes, *with_access) {
                assert!(found.len() * 20 <= bytes.len());
            }
            if let Some((members, bytes)) = parse_template_size(bytes) {
                assert!(members <= MEMBERS_MAX && bytes <= TEMPLATE_BYTES_MAX);
            }
            for members in [*members, *members % 4] {
                if let Some(found) = parse_template(bytes, members) {
                    assert!(found.len() * 8 <= bytes.len());
                }
            }
        });
    }
}
