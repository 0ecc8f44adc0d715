//! Access Control Services: [`AccessControl`], whether a port or a function
//! keeps its neighbours' requests apart (PCIe 5.0, 7.7.8 and 6.12).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// Services, with the same bits in the capability and in the control register (PCIe 5.0,
    /// 7.7.8.2 and 7.7.8.3).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AcsServices: u16 {
        /// Requests from below must have a requester id of the buses below.
        const SOURCE_VALIDATION = 1 << 0;
        /// Requests with translated addresses are blocked.
        const TRANSLATION_BLOCKING = 1 << 1;
        /// Requests between peers go up to the root complex.
        const REQUEST_REDIRECT = 1 << 2;
        /// Completions between peers go up to the root complex.
        const COMPLETION_REDIRECT = 1 << 3;
        /// What arrives from below for the same port goes up.
        const UPSTREAM_FORWARDING = 1 << 4;
        /// A vector says which peers may be reached.
        const EGRESS_CONTROL = 1 << 5;
        /// Translated requests may go to peers all the same.
        const DIRECT_TRANSLATED = 1 << 6;
        /// Capability: has the enhanced services of PCIe 5.0, whose control bits are 7 to 12.
        /// Control: IO requests are blocked.
        const ENHANCED = 1 << 7;
        const _ = !0;
    }
}

impl AcsServices {
    /// What isolates a port's devices from its other devices and other ports' ones: all requests
    /// and completions go through the root complex, with an id that is theirs.
    pub const ISOLATION: Self = Self::SOURCE_VALIDATION
        .union(Self::REQUEST_REDIRECT)
        .union(Self::COMPLETION_REDIRECT)
        .union(Self::UPSTREAM_FORWARDING);
}

/// Access control of a port or of a function of a multi-function device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AccessControl {
    /// Where the capability starts.
    pub offset: u16,
    /// What it can do; bits 15:8 belong to [`Self::egress_bits`].
    pub capabilities: AcsServices,
    /// What is in force at the time of reading.
    pub control: AcsServices,
    /// Bits of the egress control vector: 1 to 256, 0 without egress control.
    pub egress_bits: u16,
}

impl AccessControl {
    const BYTES: u16 = 8;

    /// ACS Control, 16 bits ([`AcsServices`]).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 6
    }

    /// First word of the egress control vector, of meaning if [`Self::egress_bits`] is not 0.
    #[must_use]
    pub const fn egress_register(&self) -> u16 {
        self.offset + 8
    }
}

impl ExtendedCapability for AccessControl {
    const ID: u16 = id::extended::ACCESS_CONTROL;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let word = cfg.read16(at, offset + 4);
        let capabilities = AcsServices::from_bits_retain(word);
        let egress_bits = match (
            capabilities.contains(AcsServices::EGRESS_CONTROL),
            word >> 8,
        ) {
            (false, _) => 0,
            // 256 does not fit the field (PCIe 5.0, 7.7.8.2).
            (true, 0) => 256,
            (true, bits) => bits,
        };
        Ok(Self {
            offset,
            capabilities,
            control: AcsServices::from_bits_retain(cfg.read16(at, offset + 6)),
            egress_bits,
        })
    }
}
