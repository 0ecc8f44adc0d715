//! Alternative Routing-ID Interpretation: [`AlternativeRouting`], with which a
//! device has up to 256 functions (PCIe 5.0, 7.8.7 and 6.13).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// Function groups, with the same bits in the capability and in the control register.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AriFlags: u16 {
        /// Groups for the arbitration of virtual channels.
        const CHANNEL_GROUPS = 1 << 0;
        /// Groups for access control.
        const ACCESS_GROUPS = 1 << 1;
        const _ = !0;
    }
}

/// ARI of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AlternativeRouting {
    /// Where the capability starts.
    pub offset: u16,
    /// What it can do.
    pub capabilities: AriFlags,
    /// What is in force at the time of reading.
    pub control: AriFlags,
    /// The device's function with the next higher number; 0 ends the chain.
    pub next_function: u8,
    /// Group of this function, 0 to 7.
    pub group: u8,
}

impl AlternativeRouting {
    const BYTES: u16 = 8;

    /// ARI Control, 16 bits ([`AriFlags`]; bits 6:4 group).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 6
    }
}

impl ExtendedCapability for AlternativeRouting {
    const ID: u16 = id::extended::ALTERNATIVE_ROUTING_ID;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let capabilities = cfg.read16(at, offset + 4);
        let control = cfg.read16(at, offset + 6);
        Ok(Self {
            offset,
            capabilities: AriFlags::from_bits_retain(capabilities),
            control: AriFlags::from_bits_retain(control),
            next_function: (capabilities >> 8) as u8,
            group: (control >> 4 & 7) as u8,
        })
    }
}
