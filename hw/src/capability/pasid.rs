//! Process address space ids: [`Pasid`] (PCIe 5.0, 7.8.8).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// Permissions, with the same bits in the capability and in the control register.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PasidFlags: u16 {
        /// Control only: requests may carry a process address space id.
        const ENABLE = 1 << 0;
        /// Requests can ask for the right to execute.
        const EXECUTE = 1 << 1;
        /// Requests can ask for privileged mode.
        const PRIVILEGED = 1 << 2;
        const _ = !0;
    }
}

/// Process address space ids of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pasid {
    /// Where the capability starts.
    pub offset: u16,
    /// What it can do.
    pub capabilities: PasidFlags,
    /// What is set at the time of reading.
    pub control: PasidFlags,
    /// Bits of an id that it can send: 0 to 20; above is reserved.
    pub width: u8,
}

impl Pasid {
    const BYTES: u16 = 8;

    /// PASID Control, 16 bits ([`PasidFlags`]).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 6
    }
}

impl ExtendedCapability for Pasid {
    const ID: u16 = id::extended::PASID;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let capabilities = cfg.read16(at, offset + 4);
        Ok(Self {
            offset,
            capabilities: PasidFlags::from_bits_retain(capabilities),
            control: PasidFlags::from_bits_retain(cfg.read16(at, offset + 6)),
            width: (capabilities >> 8 & 0x1f) as u8,
        })
    }
}
