//! Structures that the library does not know, as the bytes they are, read without believing their length.
//!
//! The library's own fallback takes as much memory as the length field says before it looks whether there are bytes.

use std::io::Read;

use opcua::types::type_loader::{ByteStringBody, TypeLoader, TypeLoaderPriority};
use opcua::types::{ByteString, Context, DynEncodable, EncodingResult, Error, NodeId};

/// The loader.
pub(super) struct RawBodies;

impl TypeLoader for RawBodies {
    fn load_from_binary(
        &self,
        node_id: &NodeId,
        stream: &mut dyn Read,
        _: &Context<'_>,
        length: Option<usize>,
    ) -> Option<EncodingResult<Box<dyn DynEncodable>>> {
        let length = length?;
        let mut bytes = Vec::new();
        let read = stream.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes);
        Some(match read {
            Ok(read) if read == length => {
                Ok(Box::new(ByteStringBody::new(ByteString::from(bytes), node_id.clone())))
            }
            Ok(_) => Err(Error::decoding("a structure is cut off")),
            Err(error) => Err(error.into()),
        })
    }

    /// After the types of the standard, before the library's fallback.
    fn priority(&self) -> TypeLoaderPriority {
        TypeLoaderPriority::Dynamic(1000)
    }
}
