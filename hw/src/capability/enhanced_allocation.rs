//! Enhanced Allocation: [`EnhancedAllocation`], regions at addresses that are
//! fixed, in place of BARs (PCIe 5.0, 7.8.5).

use super::{CONVENTIONAL_BYTES, Capability, CapabilityError, check_extent, id};
use crate::header::register;
use crate::{ConfigSpace, Sbdf};

/// Enhanced Allocation of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EnhancedAllocation {
    /// Where the capability starts.
    pub offset: u8,
    /// Entries, 0 to 63.
    pub count: u8,
    /// A bridge's fixed secondary and subordinate bus; 0 where they are not fixed.
    pub buses: Option<(u8, u8)>,
}

/// What an entry stands for (BAR Equivalent Indicator).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AllocationTarget {
    /// The BAR with this index, 0 to 5.
    Bar(u8),
    /// Something behind a bridge.
    Behind,
    /// Something else.
    Other,
    /// The expansion ROM.
    Rom,
    /// The BAR of the virtual functions with this index, 0 to 5.
    VfBar(u8),
    /// Reserved.
    Reserved,
}

/// What kind of region an entry describes (Primary and Secondary Properties).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AllocationProperty {
    /// Memory.
    Memory {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// IO ports.
    Io,
    /// Memory of virtual functions.
    VfMemory {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory behind the bridge.
    MemoryBehind {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// IO ports behind the bridge.
    IoBehind,
    /// Memory that must not be used by anybody.
    MemoryUnavailable,
    /// IO ports that must not be used by anybody.
    IoUnavailable,
    /// The entry says nothing.
    Unavailable,
    /// Reserved.
    Reserved(u8),
}

impl AllocationProperty {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0x00 => Self::Memory {
                prefetchable: false,
            },
            0x01 => Self::Memory { prefetchable: true },
            0x02 => Self::Io,
            0x03 => Self::VfMemory { prefetchable: true },
            0x04 => Self::VfMemory {
                prefetchable: false,
            },
            0x05 => Self::MemoryBehind {
                prefetchable: false,
            },
            0x06 => Self::MemoryBehind { prefetchable: true },
            0x07 => Self::IoBehind,
            0xfd => Self::MemoryUnavailable,
            0xfe => Self::IoUnavailable,
            0xff => Self::Unavailable,
            other => Self::Reserved(other),
        }
    }
}

/// A region of Enhanced Allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Allocation {
    /// Offset of its first register.
    pub offset: u16,
    /// Words after its first one.
    pub words: u8,
    /// What it stands for.
    pub target: AllocationTarget,
    /// What it is.
    pub primary: AllocationProperty,
    /// What it is to software that does not know [`Self::primary`].
    pub secondary: AllocationProperty,
    /// The function decodes it (if Command lets it).
    pub enabled: bool,
    /// Software may move it.
    pub writable: bool,
    /// First address, a multiple of four.
    pub base: u64,
    /// Last address minus first; its low two bits are ones.
    pub max_offset: u64,
}

impl Allocation {
    /// Bit 31 of the first register: see [`Self::enabled`].
    pub const ENABLE: u32 = 1 << 31;

    /// Last address, included; `None` if it passes 64 bits.
    #[must_use]
    pub const fn last(&self) -> Option<u64> {
        self.base.checked_add(self.max_offset)
    }
}

impl EnhancedAllocation {
    const BYTES: u16 = 4;
    const BRIDGE_BYTES: u16 = 8;

    /// The entries, until the last or the first fault.
    pub fn entries<'c, C: ConfigSpace + ?Sized>(&self, cfg: &'c C, at: Sbdf) -> Allocations<'c, C> {
        let header = if self.buses.is_some() {
            Self::BRIDGE_BYTES
        } else {
            Self::BYTES
        };
        Allocations {
            cfg,
            at,
            capability: self.offset,
            next: u16::from(self.offset) + header,
            left: self.count,
        }
    }
}

impl Capability for EnhancedAllocation {
    const ID: u8 = id::ENHANCED_ALLOCATION;

    fn decode<C: ConfigSpace + ?Sized>(
        cfg: &C,
        at: Sbdf,
        offset: u8,
    ) -> Result<Self, CapabilityError> {
        check_extent(Self::ID, offset, Self::BYTES)?;
        let base = u16::from(offset);
        let is_bridge = cfg.read8(at, register::HEADER_TYPE) & 0x7f == 1;
        let buses = if is_bridge {
            check_extent(Self::ID, offset, Self::BRIDGE_BYTES)?;
            Some((cfg.read8(at, base + 4), cfg.read8(at, base + 5)))
        } else {
            None
        };
        Ok(Self {
            offset,
            count: cfg.read8(at, base + 2) & 0x3f,
            buses,
        })
    }
}

/// Iterates over the entries of [`EnhancedAllocation`].
pub struct Allocations<'c, C: ?Sized> {
    cfg: &'c C,
    at: Sbdf,
    capability: u8,
    next: u16,
    left: u8,
}

impl<C: ConfigSpace + ?Sized> Allocations<'_, C> {
    fn read(&mut self) -> Result<Allocation, CapabilityError> {
        let offset = self.next;
        let beyond = |needed| CapabilityError::BeyondEnd {
            id: u16::from(id::ENHANCED_ALLOCATION),
            offset,
            needed,
        };
        if offset + 4 > CONVENTIONAL_BYTES {
            return Err(beyond(4));
        }
        let first = self.cfg.read32(self.at, offset);
        let words = first & 7;
        // At most 32.
        let bytes = 4 + 4 * words as u16;
        if offset + bytes > CONVENTIONAL_BYTES {
            return Err(beyond(bytes));
        }
        let reserved = CapabilityError::Reserved {
            id: u16::from(id::ENHANCED_ALLOCATION),
            offset: u16::from(self.capability),
            field: "entry size",
            value: words,
        };
        if words < 2 {
            return Err(reserved);
        }
        let read = |word: u16| self.cfg.read32(self.at, offset + 4 * word);
        let (base, limit) = (read(1), read(2));
        let (base_is_wide, limit_is_wide) = (base & 2 != 0, limit & 2 != 0);
        if words < 2 + u32::from(base_is_wide) + u32::from(limit_is_wide) {
            return Err(reserved);
        }
        let base_upper = if base_is_wide { read(3) } else { 0 };
        let limit_upper = match (base_is_wide, limit_is_wide) {
            (_, false) => 0,
            (false, true) => read(3),
            (true, true) => read(4),
        };
        self.next = offset + bytes;
        let target = match first >> 4 & 0xf {
            bar @ 0..=5 => AllocationTarget::Bar(bar as u8),
            6 => AllocationTarget::Behind,
            7 => AllocationTarget::Other,
            8 => AllocationTarget::Rom,
            bar @ 9..=14 => AllocationTarget::VfBar(bar as u8 - 9),
            _ => AllocationTarget::Reserved,
        };
        Ok(Allocation {
            offset,
            words: words as u8,
            target,
            primary: AllocationProperty::from_bits((first >> 8) as u8),
            secondary: AllocationProperty::from_bits((first >> 16) as u8),
            enabled: first & Allocation::ENABLE != 0,
            writable: first & 1 << 30 != 0,
            base: u64::from(base_upper) << 32 | u64::from(base & !3),
            max_offset: u64::from(limit_upper) << 32 | u64::from(limit | 3),
        })
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for Allocations<'_, C> {
    type Item = Result<Allocation, CapabilityError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.read();
        if entry.is_err() {
            self.left = 0;
        }
        Some(entry)
    }
}
