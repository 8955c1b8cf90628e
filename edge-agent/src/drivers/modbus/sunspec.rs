//! Where a device's SunSpec models are: the base address is looked for, then the chain of models is followed.
//!
//! ```text
//! base (40000, 0 or 50000)   "Su" "nS"
//! each model                 ID (1)  length (1)  `length` registers
//! end                        0xFFFF (1)  0 (1)
//! ```

use super::address::{Span, Table};
use super::line::Unit;
use super::pdu::Request;
use crate::drivers::DriverError;

/// Where "SunS" may stand, the usual place first.
const BASES: [u16; 3] = [40_000, 0, 50_000];
const SUNS: [u16; 2] = [0x5375, 0x6e53];
const END: u16 = 0xffff;
/// Devices have a dozen; a chain without end must have one.
const MODELS_MAX: usize = 128;

/// A model of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) id: u16,
    /// Register of its ID.
    pub(super) start: u16,
    /// Registers with ID and length.
    pub(super) registers: u32,
}

/// The device's models in their order; empty if it has none.
pub(super) async fn discover(unit: &mut Unit) -> Result<Vec<Model>, DriverError> {
    for base in BASES {
        let Some([a, b]) = pair(unit, base).await? else { continue };
        if [a, b] == SUNS {
            return chain(unit, base + 2).await;
        }
    }
    Ok(Vec::new())
}

async fn chain(unit: &mut Unit, first: u16) -> Result<Vec<Model>, DriverError> {
    let (mut models, mut start) = (Vec::new(), first);
    while models.len() < MODELS_MAX {
        let Some([id, length]) = pair(unit, start).await? else { break };
        if id == END {
            break;
        }
        let registers = u32::from(length) + 2;
        models.push(Model { id, start, registers });
        let Ok(next) = u16::try_from(u32::from(start) + registers) else { break };
        start = next;
    }
    Ok(models)
}

/// Two registers; none where the device refuses.
async fn pair(unit: &mut Unit, start: u16) -> Result<Option<[u16; 2]>, DriverError> {
    let span = Span { table: Table::HoldingRegisters, start, count: 2 };
    Ok(match unit.call(&Request::Read(span)).await? {
        Ok(cells) => cells.try_into().ok(),
        Err(_) => None,
    })
}

/// The span in the first model of these that the device has and that is long enough.
pub(super) fn resolve(span: Span, ids: &[u16], models: &[Model]) -> Option<Span> {
    let model = models.iter().find(|model| ids.contains(&model.id) && span.end() <= model.registers)?;
    let start = model.start.checked_add(span.start)?;
    let resolved = Span { start, ..span };
    (resolved.end() <= 65_536).then_some(resolved)
}
