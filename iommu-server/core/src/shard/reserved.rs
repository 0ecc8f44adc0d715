//! Regions that firmware reserved for DMA of some devices (RMRR, IVMD).

use hw::Sbdf;
use ipc_proto::{Access, Refusal, Rule};
use system::info::{ReservedUse, Scope};

use super::Shard;
use crate::backend::Backend;
use crate::env::Env;

/// A region, as one device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte, page-aligned.
    pub base: u64,
    /// Bytes, whole pages.
    pub bytes: u64,
    /// What the device does with it.
    pub access: Access,
    /// Whether the description allows the device to have it.
    pub allowed: bool,
}

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// The regions of a device.
    pub(super) fn reserved_of(&self, device: Sbdf) -> impl Iterator<Item = Region> {
        let allowed = self
            .reserved_allowed
            .iter()
            // Rules by ids or class need the device's registers, which are not this server's.
            .any(|rule| rule.matches(device, u32::MAX, u32::MAX));
        let named = move |scope: &Scope| match *scope {
            Scope::Function(id) => id == device.requester_id(),
            Scope::Buses(first, last) => (first..=last).contains(&device.bus()),
            Scope::IoApic { .. } | Scope::Hpet { .. } => false,
        };
        self.reserved
            .iter()
            .filter(move |region| {
                region.segment == device.segment() && region.scopes.iter().any(named)
            })
            .map(move |region| {
                let base = region.base & !0xfff;
                let last = region.last | 0xfff;
                Region {
                    base,
                    bytes: last.wrapping_sub(base).wrapping_add(1),
                    access: match region.used {
                        ReservedUse::Read => Access::Read,
                        ReservedUse::Write => Access::Write,
                        ReservedUse::ReadWrite => Access::ReadWrite,
                    },
                    allowed,
                }
            })
    }

    /// The `index`th of them.
    pub(super) fn reserved_at_index(&self, device: Sbdf, index: u16) -> Result<Region, Refusal> {
        self.reserved_of(device)
            .nth(index.into())
            .ok_or(Rule::EndOfList.into())
    }
}
