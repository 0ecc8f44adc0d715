//! What the boot found out about the machine: the input of the plan. The
//! binary fills it from boot information, ACPI tables and configuration space.

use alloc::vec::Vec;

use hw::address::EcamWindow;
use hw::{BusRange, Sbdf};
use system::info::{AliasRange, Reserved, Scope};
use system::model::IommuChoice;

use crate::aml::resources::Resources;
use crate::region::{Region, RegionSet};

/// Whether an untyped's memory is RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// RAM: kernel objects can be made of it.
    Ram,
    /// Anything else: only frames and smaller untypeds.
    Device,
}

/// An untyped capability that the kernel handed over at boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Untyped {
    /// Slot in the root CNode.
    pub slot: u32,
    /// Physical address.
    pub base: u64,
    /// Size: 2^bits bytes.
    pub bits: u8,
    /// What it is made of.
    pub memory: Memory,
}

impl Untyped {
    /// The addresses it covers; `None` for a size that cannot be.
    #[must_use]
    pub fn region(&self) -> Option<Region> {
        Region::sized(self.base, 1u64.checked_shl(self.bits.into())?)
    }
}

/// A remapping unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// What it is: `Vtd` or `AmdVi`.
    pub kind: IommuChoice,
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes.
    pub bytes: u32,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Takes all devices that no other unit names.
    pub include_all: bool,
    /// Devices that firmware names as its own.
    pub scopes: Vec<Scope>,
    /// The PCI function that it is (AMD-Vi): nobody may have it.
    pub function: Option<Sbdf>,
}

/// The timer block that the timer service drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Physical address of its registers (one page).
    pub base: u64,
    /// IOAPIC pin that comparator 0 is routed to.
    pub pin: u8,
}

/// A host bridge and the memory that the functions on its root bus decode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// PCI segment.
    pub segment: u16,
    /// Its buses.
    pub buses: BusRange,
    /// BARs of the functions on its root bus and windows of the bridges there, as programmed.
    pub windows: Vec<Region>,
    /// Has it functions that report by an interrupt of their own?
    pub ports: Ports,
    /// Its proximity domain, where firmware declares one.
    pub proximity: Option<u32>,
    /// What it passes on, where firmware declares that as a constant.
    pub resources: Option<Resources>,
}

/// Bridges, ports and event collectors: what reports hot-plug and errors by interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ports {
    /// There are none.
    #[default]
    None,
    /// There are some.
    Some,
}

/// How configuration space is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Configuration {
    /// Memory-mapped.
    #[default]
    Ecam,
    /// Through the I/O ports 0xCF8 to 0xCFF: segment 0 only, and one server only, since an access takes two steps.
    Ports,
}

/// Everything that the plan needs to know of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// Untypeds, as the boot information lists them.
    pub untypeds: Vec<Untyped>,
    /// First slot of the root CNode that is empty, and how many follow.
    pub empty_slots: (u32, u32),
    /// Cores that the kernel runs.
    pub cores: u8,
    /// Bits of a physical address that the processor has.
    pub physical_bits: u8,
    /// Local APIC id of each core, as far as known.
    pub apic_ids: Vec<u32>,
    /// Levels of the page tables of the kernel's own IOMMU driver; 0 when it is off.
    pub kernel_iommu_levels: u64,
    /// Ticks of the time-stamp counter a microsecond.
    pub tsc_mhz: u32,
    /// Remapping units.
    pub units: Vec<Unit>,
    /// Memory that firmware reserved for DMA of some devices.
    pub reserved: Vec<Reserved>,
    /// Requester ids that firmware says are other devices' too.
    pub aliases: Vec<AliasRange>,
    /// Timer block.
    pub timer: Option<Timer>,
    /// How configuration space is reached.
    pub configuration: Configuration,
    /// ECAM windows. With [`Configuration::Ports`] they are only known not to be anybody's memory.
    pub ecam: Vec<EcamWindow>,
    /// Host bridges, by segment and bus.
    pub hosts: Vec<Host>,
    /// Pages of firmware's tables: never handed on.
    pub firmware: RegionSet,
}

/// Size of a page: 2^bits bytes.
const PAGE_BITS: u8 = 12;

impl Machine {
    /// The addresses that device untypeds of a page and more cover. Around what the kernel keeps for itself, and
    /// above the processor's addresses, it leaves smaller pieces, of which no frame can be made.
    #[must_use]
    pub fn device_memory(&self) -> RegionSet {
        self.of(Memory::Device, PAGE_BITS)
    }

    /// The addresses that RAM untypeds cover.
    #[must_use]
    pub fn ram(&self) -> RegionSet {
        self.of(Memory::Ram, 0)
    }

    fn of(&self, memory: Memory, least_bits: u8) -> RegionSet {
        self.untypeds
            .iter()
            .filter(|untyped| untyped.memory == memory && untyped.bits >= least_bits)
            .filter_map(Untyped::region)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn pieces_smaller_than_a_page_are_no_device_memory() {
        let piece = |base, bits| Untyped {
            slot: 0,
            base,
            bits,
            memory: Memory::Device,
        };
        // As the kernel leaves them at the end of the addresses of a processor with 40 bits.
        let untypeds = (4..14).map(|bits| piece(0x80_0000_0000 + (1 << bits), bits));
        let machine = Machine {
            untypeds: untypeds.collect(),
            ..Machine::default()
        };
        let memory = machine.device_memory();
        let expected = Region::new(0x80_0000_1000, 0x80_0000_4000);
        assert_eq!(memory.regions(), vec![expected.unwrap()]);
    }
}
