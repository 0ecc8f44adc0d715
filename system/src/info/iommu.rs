//! The iommu-server's part: [`IommuInfo`], its units, what firmware reserved.

use crate::layout::MAX_SHARDS;
use crate::model::{DeviceMatch, IommuChoice, MAX_DEVICE_RULES, Quarantine};
use heapless::Vec;
use serde::{Deserialize, Serialize};

use super::{MAX_RESERVED, MAX_SCOPES, MAX_UNITS, MAX_UNTYPED, UntypedPiece};

/// Devices that an IOMMU unit serves, or that a reserved region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// One requester id (bus << 8 | device << 3 | function).
    Function(u16),
    /// All of these buses: what is behind a bridge.
    Buses(u8, u8),
    /// The I/O APIC with this id, by this requester id.
    IoApic {
        /// Its id.
        id: u8,
        /// Its requester id.
        requester: u16,
    },
    /// The HPET with this number, by this requester id.
    Hpet {
        /// Its number.
        id: u8,
        /// Its requester id.
        requester: u16,
    },
}

/// What devices do with memory that firmware reserved for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReservedUse {
    /// They read it.
    Read,
    /// They write it.
    Write,
    /// Both.
    ReadWrite,
}

/// Requester ids whose transactions carry another one (IVRS, alias entries).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRange {
    /// PCI segment of all of them.
    pub segment: u16,
    /// First requester id.
    pub first: u16,
    /// Last requester id.
    pub last: u16,
    /// What their transactions carry.
    pub alias: u16,
}

/// Most ranges of aliases.
pub const MAX_ALIAS_RANGES: usize = 32;

/// A region that firmware reserved for DMA of some devices (RMRR, IVMD).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// PCI segment of the devices.
    pub segment: u16,
    /// First byte.
    pub base: u64,
    /// Last byte.
    pub last: u64,
    /// What the devices do with it.
    pub used: ReservedUse,
    /// The devices.
    pub scopes: Vec<Scope, 8>,
}

/// Registers of an IOMMU unit, mapped in the server, uncached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitInfo {
    /// What it is: `Vtd` or `AmdVi`.
    pub kind: IommuChoice,
    /// Where its registers are in the server's address space.
    pub vaddr: u64,
    /// Bytes mapped.
    pub bytes: u32,
    /// Physical address.
    pub paddr: u64,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Does it take all devices that no other unit names?
    pub include_all: bool,
    /// Devices that firmware names as its own.
    pub scopes: Vec<Scope, MAX_SCOPES>,
    /// Slot of the interrupt handler for its fault event.
    pub irq_handler: u32,
    /// Message address of its fault event.
    pub irq_address: u64,
    /// Message data of its fault event.
    pub irq_data: u32,
}

/// The kernel's own IOMMU driver, for an iommu-server that works through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoSpaceInfo {
    /// Slot of the master capability, of which each requester's I/O space is minted.
    pub master: u32,
    /// Memory for I/O page tables.
    pub tables: UntypedPiece,
}

/// An iommu-server shard's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuInfo {
    /// The shard's number.
    pub shard: u8,
    /// Its units. None: the kernel drives them ([`Self::io_space`]), or there are none.
    pub units: Vec<UnitInfo, MAX_UNITS>,
    /// The kernel's I/O spaces, where the kernel drives the units.
    pub io_space: Option<IoSpaceInfo>,
    /// Table memory, mapped cached at `tables_vaddr`, physically contiguous from `tables_paddr`, zeroed.
    pub tables_vaddr: u64,
    /// Physical address of it.
    pub tables_paddr: u64,
    /// Pages of 4 KiB of it.
    pub tables_pages: u32,
    /// Untypeds of the DMA pool, ascending.
    pub pool: Vec<UntypedPiece, MAX_UNTYPED>,
    /// Drive interrupt remapping where the unit has it.
    pub interrupt_remapping: bool,
    /// What a device that nobody holds any more reaches.
    pub quarantine: Quarantine,
    /// What firmware reserved.
    pub reserved: Vec<Reserved, MAX_RESERVED>,
    /// Requester ids that firmware says are other devices' too.
    pub aliases: Vec<AliasRange, MAX_ALIAS_RANGES>,
    /// Devices that may have the memory firmware reserved for their DMA mapped: by address only.
    pub reserved_allowed: Vec<DeviceMatch, MAX_DEVICE_RULES>,
    /// Slots that signal each pci-server shard ([`crate::layout::event::TROUBLE`]), by shard.
    pub shard_signals: Vec<u32, MAX_SHARDS>,
    /// Buses of each pci-server shard, by shard: (segment, first bus, last bus).
    pub shard_buses: Vec<(u16, u8, u8), MAX_SHARDS>,
}
