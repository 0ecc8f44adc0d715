//! Single root IO virtualization: [`SrIov`], the virtual functions of a physical
//! one, how they are addressed and how large their regions are (PCIe 5.0, 9.3.3).

use bitflags::bitflags;
use thiserror::Error;

use super::{CapabilityError, ExtendedCapability, check_extended_extent, id};
use crate::bar::{self, MAX_BARS, Register, Slot};
use crate::{ConfigSpace, Sbdf};

bitflags! {
    /// SR-IOV Capabilities; bits 31:21 interrupt message of migration.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SrIovCapabilities: u32 {
        /// Virtual functions can migrate between physical ones.
        const MIGRATION = 1 << 0;
        /// Whether the hierarchy is capable of ARI stays over a reset.
        const ARI_PRESERVED = 1 << 1;
        /// Virtual functions can send requests with tags of 10 bits.
        const TAG10_REQUESTER = 1 << 2;
        const _ = !0;
    }
}

impl SrIovCapabilities {
    /// Number of the vector that tells of migration.
    #[must_use]
    pub const fn migration_message(self) -> u16 {
        (self.bits() >> 21) as u16
    }
}

bitflags! {
    /// SR-IOV Control.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SrIovControl: u16 {
        /// The virtual functions are there. After it is set nobody may touch them for 100 ms, after
        /// it is cleared for 1 s (PCIe 5.0, 9.3.3.3.1).
        const VF_ENABLE = 1 << 0;
        /// Migration is on.
        const MIGRATION_ENABLE = 1 << 1;
        /// Migration interrupts.
        const MIGRATION_INTERRUPT = 1 << 2;
        /// The virtual functions' memory answers.
        const VF_MEMORY_SPACE = 1 << 3;
        /// First function of a device: virtual functions may take function numbers of 8 bits.
        const ARI_HIERARCHY = 1 << 4;
        /// Virtual functions send requests with tags of 10 bits.
        const TAG10_REQUESTER = 1 << 5;
        const _ = !0;
    }
}

/// SR-IOV of a physical function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SrIov {
    /// Where the capability starts.
    pub offset: u16,
    /// What it can do.
    pub capabilities: SrIovCapabilities,
    /// What is set at the time of reading.
    pub control: SrIovControl,
    /// SR-IOV Status: bit 0 migration.
    pub status: u16,
    /// Virtual functions that are there initially; equals [`Self::total`] without migration.
    pub initial: u16,
    /// Virtual functions that there may be.
    pub total: u16,
    /// Virtual functions that are set up (NumVFs) at the time of reading.
    pub count: u16,
    /// Function on whose virtual functions these depend; its own number for none.
    pub dependency: u8,
    /// Requester id of the first virtual function minus the physical one's. May change with
    /// [`Self::count`] and with [`SrIovControl::ARI_HIERARCHY`]: read it after those are set.
    pub first_offset: u16,
    /// Requester id of a virtual function minus the one before. May change as [`Self::first_offset`].
    pub stride: u16,
    /// Device id of the virtual functions, whose own registers read all ones.
    pub device: u16,
    /// Page sizes supported: bit n for 4 KiB times two to the power of n.
    pub supported_pages: u32,
    /// Page size in force, one bit as in [`Self::supported_pages`]: regions of virtual functions are aligned to it.
    pub system_page: u32,
    /// Where the state of migration is: BAR in bits 2:0, offset above.
    pub migration_state: u32,
}

/// Why the regions of virtual functions were not sized.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum VfBarsError {
    /// The virtual functions are there, or their memory answers.
    #[error("virtual functions are enabled: their BARs cannot be sized")]
    Enabled,
    /// The function does not answer.
    #[error("the function stopped answering")]
    Vanished,
}

impl SrIov {
    const BYTES: u16 = 0x40;
    const BARS: u16 = 0x24;

    /// SR-IOV Control, 16 bits ([`SrIovControl`]).
    #[must_use]
    pub const fn control_register(&self) -> u16 {
        self.offset + 0x08
    }

    /// NumVFs, 16 bits; may be written while [`SrIovControl::VF_ENABLE`] is clear.
    #[must_use]
    pub const fn count_register(&self) -> u16 {
        self.offset + 0x10
    }

    /// First VF Offset, 16 bits, read only.
    #[must_use]
    pub const fn first_offset_register(&self) -> u16 {
        self.offset + 0x14
    }

    /// VF Stride, 16 bits, read only.
    #[must_use]
    pub const fn stride_register(&self) -> u16 {
        self.offset + 0x16
    }

    /// System Page Size, 32 bits; may be written while [`SrIovControl::VF_ENABLE`] is clear.
    #[must_use]
    pub const fn system_page_register(&self) -> u16 {
        self.offset + 0x20
    }

    /// (Lower) register of the virtual functions' BAR `index`; `None` above 5.
    #[must_use]
    pub const fn bar_register(&self, index: u8) -> Option<u16> {
        if (index as usize) < MAX_BARS {
            Some(self.offset + Self::BARS + 4 * index as u16)
        } else {
            None
        }
    }

    /// Address of virtual function `index` (from 0) of the physical function at `physical`, with
    /// [`Self::first_offset`] and [`Self::stride`] as they are here; `None` if `index` is not below
    /// [`Self::count`] or the address passes the segment's last bus.
    #[must_use]
    pub fn virtual_function(&self, physical: Sbdf, index: u16) -> Option<Sbdf> {
        if index >= self.count {
            return None;
        }
        let distance = u32::from(self.first_offset) + u32::from(index) * u32::from(self.stride);
        // An offset of zero would name the physical function itself.
        let id = u32::from(physical.requester_id()).checked_add(distance)?;
        let id = u16::try_from(id).ok().filter(|_| distance != 0)?;
        Some(Sbdf::from_requester_id(physical.segment(), id))
    }

    /// The virtual functions' BARs as they are programmed, without a write.
    pub fn bars<C: ConfigSpace + ?Sized>(&self, cfg: &C, at: Sbdf) -> [Register; MAX_BARS] {
        bar::read_registers(cfg, at, self.offset + Self::BARS, MAX_BARS as u8)
    }

    /// Sizes the virtual functions' BARs: [`bar::Bar::size`] is that of one virtual function, the
    /// region takes [`Self::count`] times as much. Every register has its old value when this
    /// returns. An IO region is nothing that a virtual function may have: it is for the caller to refuse.
    ///
    /// # Errors
    /// Virtual functions are enabled, or the function does not answer.
    pub fn probe_bars<C: ConfigSpace + ?Sized>(
        &self,
        cfg: &mut C,
        at: Sbdf,
    ) -> Result<[Slot; MAX_BARS], VfBarsError> {
        let control = cfg.read16(at, self.control_register());
        if control == u16::MAX {
            return Err(VfBarsError::Vanished);
        }
        let busy = SrIovControl::VF_ENABLE | SrIovControl::VF_MEMORY_SPACE;
        if SrIovControl::from_bits_retain(control).intersects(busy) {
            return Err(VfBarsError::Enabled);
        }
        let first = self.offset + Self::BARS;
        Ok(bar::probe_registers(cfg, at, first, MAX_BARS as u8))
    }
}

impl ExtendedCapability for SrIov {
    const ID: u16 = id::extended::SR_IOV;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u16,
    ) -> Result<Self, CapabilityError> {
        check_extended_extent(Self::ID, offset, Self::BYTES)?;
        let read16 = |register: u16| cfg.read16(at, offset + register);
        let read32 = |register: u16| cfg.read32(at, offset + register);
        Ok(Self {
            offset,
            capabilities: SrIovCapabilities::from_bits_retain(read32(0x04)),
            control: SrIovControl::from_bits_retain(read16(0x08)),
            status: read16(0x0a),
            initial: read16(0x0c),
            total: read16(0x0e),
            count: read16(0x10),
            dependency: cfg.read8(at, offset + 0x12),
            first_offset: read16(0x14),
            stride: read16(0x16),
            device: read16(0x1a),
            supported_pages: read32(0x1c),
            system_page: read32(0x20),
            migration_state: read32(0x3c),
        })
    }
}
