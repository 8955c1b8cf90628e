//! Fields of structures that servers define themselves: their definitions, asked for once, and a look into the bytes.
//!
//! A body that does not fit its definition is the quality of the points in it; nothing else is touched by it.

use std::collections::HashSet;
use std::io::Cursor;
use std::sync::Arc;

use opcua::types::custom::{
    DataTypeTree, DynamicStructure, DynamicTypeLoader, EncodingIds, ParentIds, TypeInfo,
};
use opcua::types::type_loader::{ByteStringBody, TypeLoader};
use opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, ContextOwned, DataTypeDefinition, DecodingOptions,
    EnumDefinition, ExtensionObject, NamespaceMap, NodeClassMask, NodeId, ReadValueId, ReferenceTypeId,
    StructureDefinition, Variant, VariantScalarTypeId,
};

use super::calls;
use super::limits::Limits;
use super::link::Link;
use super::raw_body::RawBodies;
use crate::drivers::DriverError;

/// A server whose types have more types in them is asked no further.
const TYPES_MAX: usize = 2000;
/// Steps up to a built-in type.
const ANCESTORS_MAX: usize = 20;

/// What is known of the structures; without it no field is found.
#[derive(Default)]
pub(super) struct Structures {
    loader: Option<(DynamicTypeLoader, ContextOwned)>,
}

impl Structures {
    /// Asks for the definitions of these data types and of the types within them.
    pub(super) async fn fetch(
        link: &mut Link,
        limits: &Limits,
        data_types: Vec<NodeId>,
    ) -> Result<Structures, DriverError> {
        let mut parents = ParentIds::new();
        let mut definitions: Vec<(NodeId, DataTypeDefinition)> = Vec::new();
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut next: Vec<NodeId> = data_types;
        while !next.is_empty() && seen.len() < TYPES_MAX {
            next.retain(|id| !is_built_in(id) && seen.insert(id.clone()));
            ancestors(link, limits, &next, &mut parents).await?;
            let asked: Vec<ReadValueId> =
                next.iter().map(|id| ReadValueId::new(id.clone(), AttributeId::DataTypeDefinition)).collect();
            let answers = calls::read(link, limits, asked).await?;
            for (id, answer) in std::mem::take(&mut next).into_iter().zip(answers) {
                let Some(Variant::ExtensionObject(object)) = answer.value else { continue };
                if let Some(structure) = object.inner_as::<StructureDefinition>() {
                    next.extend(structure.fields.iter().flatten().map(|field| field.data_type.clone()));
                    definitions.push((id, DataTypeDefinition::Structure(structure.clone())));
                } else if let Some(enumeration) = object.inner_as::<EnumDefinition>() {
                    definitions.push((id, DataTypeDefinition::Enum(enumeration.clone())));
                }
            }
        }
        let mut types = Vec::new();
        for (id, definition) in definitions {
            let encoding = match &definition {
                DataTypeDefinition::Structure(structure) => Some(EncodingIds {
                    binary_id: structure.default_encoding_id.clone(),
                    ..EncodingIds::default()
                }),
                DataTypeDefinition::Enum(_) => None,
            };
            match TypeInfo::from_type_definition(definition, id.to_string(), encoding, false, &id, &parents) {
                Ok(info) => types.push((id, info)),
                Err(problem) => tracing::warn!(data_type = %id, problem, "a structure that cannot be read"),
            }
        }
        let mut tree = DataTypeTree::new(parents);
        types.into_iter().for_each(|(id, info)| tree.add_type(id, info));
        let tree = Arc::new(tree);
        let mut context = ContextOwned::new_default(NamespaceMap::new(), DecodingOptions::default());
        context.loaders_mut().add_type_loader(DynamicTypeLoader::new(tree.clone()));
        context.loaders_mut().add_type_loader(RawBodies);
        Ok(Structures { loader: Some((DynamicTypeLoader::new(tree), context)) })
    }

    /// A field by its name.
    pub(super) fn field(&self, object: &ExtensionObject, name: &str) -> Option<Variant> {
        if let Some(structure) = object.inner_as::<DynamicStructure>() {
            return structure.get_field_by_name(name).cloned();
        }
        let body = object.inner_as::<ByteStringBody>()?;
        let (loader, context) = self.loader.as_ref()?;
        let bytes = body.raw_body().value.as_deref()?;
        let mut stream = Cursor::new(bytes);
        let decoded = loader
            .load_from_binary(body.encoding_id(), &mut stream, &context.context(), Some(bytes.len()))?
            .ok()?;
        let structure = decoded.as_dyn_any().downcast::<DynamicStructure>().ok()?;
        structure.get_field_by_name(name).cloned()
    }
}

/// The number of the built-in type behind each data type; `None`: a structure, or nothing that is known.
pub(super) async fn built_in(
    link: &mut Link,
    limits: &Limits,
    types: &[NodeId],
) -> Result<Vec<Option<u32>>, DriverError> {
    let mut parents = ParentIds::new();
    let mut once: Vec<NodeId> = Vec::new();
    let mut seen: HashSet<&NodeId> = HashSet::new();
    once.extend(types.iter().filter(|id| !id.is_null() && seen.insert(id)).cloned());
    ancestors(link, limits, &once, &mut parents).await?;
    let number = |id: &NodeId| match parents.get_builtin_type(id)? {
        VariantScalarTypeId::ExtensionObject | VariantScalarTypeId::Variant => None,
        known => Some(known as u32),
    };
    Ok(types.iter().map(number).collect())
}

/// The types that need no definition.
fn is_built_in(id: &NodeId) -> bool {
    id.namespace == 0 && id.as_u32().is_some_and(|number| number <= 29)
}

/// Notes the ways up from these types to built-in ones.
async fn ancestors(
    link: &mut Link,
    limits: &Limits,
    of: &[NodeId],
    parents: &mut ParentIds,
) -> Result<(), DriverError> {
    let mut next: Vec<NodeId> = of.to_vec();
    for _ in 0..ANCESTORS_MAX {
        next.retain(|id| !is_built_in(id) && parents.get_builtin_type(id).is_none());
        if next.is_empty() {
            break;
        }
        let asked = next.iter().map(|id| BrowseDescription {
            node_id: id.clone(),
            browse_direction: BrowseDirection::Inverse,
            reference_type_id: ReferenceTypeId::HasSubtype.into(),
            include_subtypes: false,
            node_class_mask: NodeClassMask::DATA_TYPE.bits(),
            result_mask: 0,
        });
        let answers = calls::browse(link, limits, asked.collect()).await?;
        let mut above = Vec::new();
        for (id, found) in next.into_iter().zip(answers) {
            if let Some(parent) = found.into_iter().next() {
                parents.add_type(id, parent.node_id.node_id.clone());
                above.push(parent.node_id.node_id);
            }
        }
        next = above;
    }
    Ok(())
}
