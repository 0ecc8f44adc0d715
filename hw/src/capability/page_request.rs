//! Page Request Interface: [`PageRequest`], with which a device asks for pages
//! that are not mapped (PCIe 5.0, 10.5.2).

use bitflags::bitflags;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// Page Request Control.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PriControl: u16 {
        /// May ask for pages.
        const ENABLE = 1 << 0;
        /// Forgets its outstanding requests; of meaning while not enabled.
        const RESET = 1 << 1;
        const _ = !0;
    }
}

bitflags! {
    /// Page Request Status; the two error bits are cleared by writing ones.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PriStatus: u16 {
        /// A response said that requests failed.
        const RESPONSE_FAILURE = 1 << 0;
        /// A response named a group that was not asked for.
        const UNEXPECTED_GROUP = 1 << 1;
        /// All requests are answered and no more are made.
        const STOPPED = 1 << 8;
        /// Responses carry the process address space id of their request.
        const RESPONSE_PASID = 1 << 15;
        const _ = !0;
    }
}

/// Page requests of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageRequest {
    /// Where the capability starts.
    pub offset: u16,
    /// What is set at the time of reading.
    pub control: PriControl,
    /// What had happened at the time of reading.
    pub status: PriStatus,
    /// Outstanding requests that it supports.
    pub capacity: u32,
    /// Outstanding requests that it is allowed.
    pub allocation: u32,
}

impl PageRequest {
    const BYTES: u16 = 16;

    /// Control, 16 bits.
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 4
    }

    /// Status, 16 bits.
    #[must_use]
    pub const fn status_register(&self) -> u16 {
        self.offset + 6
    }

    /// Outstanding page request allocation, 32 bits.
    #[must_use]
    pub const fn allocation_register(&self) -> u16 {
        self.offset + 12
    }
}

impl ExtendedCapability for PageRequest {
    const ID: u16 = id::extended::PAGE_REQUEST;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        Ok(Self {
            offset,
            control: PriControl::from_bits_retain(cfg.read16(at, offset + 4)),
            status: PriStatus::from_bits_retain(cfg.read16(at, offset + 6)),
            capacity: cfg.read32(at, offset + 8),
            allocation: cfg.read32(at, offset + 12),
        })
    }
}
