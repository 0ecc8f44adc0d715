//! IVRS: the IOMMUs of AMD, the devices that each takes, and memory that devices
//! need mapped, [`Ivrs`] (AMD I/O Virtualization Technology 3.10, 5.2).
//!
//! A unit may be described up to three times, by blocks of type 10h, 11h and 40h, of which the
//! highest that one understands counts: [`BlockKind`] is ordered so. [`super::IommuPlan`] chooses.

mod entry;

pub use entry::{AcpiDevice, Declared, DeviceEntry, DeviceSettings, Uid};

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{
    Record, RecordHead, Rule, Signature, Span, Table, TableError, body, record_head, records,
};

/// Bytes before the first block.
const FIRST: usize = 48;
/// Bytes of registers of a unit without performance counters.
const REGISTERS: u64 = 0x4000;
/// Bytes of registers of a unit with performance counters.
const REGISTERS_WITH_COUNTERS: u64 = 0x8_0000;

bitflags! {
    /// What a unit can do, and what it does with HyperTransport's bits (5.2.2.1, table 97).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct UnitFlags: u8 {
        /// HyperTransport tunnel translation.
        const HT_TUNNEL = 1 << 0;
        /// Pass posted writes.
        const PASS_POSTED_WRITES = 1 << 1;
        /// Responses pass posted writes.
        const RESPONSE_PASS_POSTED_WRITES = 1 << 2;
        /// Table walks are isochronous.
        const ISOCHRONOUS = 1 << 3;
        /// Devices may keep translations: ATS.
        const REMOTE_IOTLB = 1 << 4;
        /// Table walks see the processor's caches.
        const COHERENT = 1 << 5;
        /// Prefetch of translations.
        const PREFETCH = 1 << 6;
        /// Page requests of devices.
        const PAGE_REQUESTS = 1 << 7;
    }

    /// What a device may do with a range of memory (5.2.2.3).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct MemoryFlags: u8 {
        /// Map each page to itself.
        const UNITY = 1 << 0;
        /// The device reads.
        const READ = 1 << 1;
        /// The device writes.
        const WRITE = 1 << 2;
        /// Do not translate at all: an exclusion range.
        const EXCLUSION = 1 << 3;
        const _ = !0;
    }
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    flags: u8,
    length: U16,
}

record_head!(Head);

/// What the three kinds of unit blocks begin with.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawUnit {
    head: Head,
    id: U16,
    capability: U16,
    base: U64,
    segment: U16,
    information: U16,
    features: U32,
}

/// What follows in types 11h and 40h.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawImages {
    extended: U64,
    extended_2: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtendedUnit {
    unit: RawUnit,
    images: RawImages,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMemory {
    head: Head,
    first: U16,
    last: U16,
    segment: U16,
    reserved: [u8; 6],
    start: U64,
    length: U64,
}

/// In which form a unit is described; a later one says more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BlockKind {
    /// Type 10h.
    Basic,
    /// Type 11h: with images of the extended feature registers.
    Extended,
    /// Type 40h: with devices that only ACPI's name space has, too.
    Mixed,
}

/// A unit (IVHD, types 10h, 11h, 40h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ivhd<'a> {
    /// The form.
    pub kind: BlockKind,
    /// What it can do.
    pub flags: UnitFlags,
    /// Requester id of the function that the unit is.
    pub id: u16,
    /// Offset of the unit's capability in that function's configuration space.
    pub capability: u16,
    /// Physical address of its registers, a multiple of 16 KiB.
    pub base: u64,
    /// PCI segment of the unit and its devices.
    pub segment: u16,
    /// Bits 4:0 number of its MSI, 12:8 HyperTransport unit id.
    pub information: u16,
    /// Feature reporting (10h), or attributes (11h, 40h).
    pub features: u32,
    /// Image of the extended feature register; 0 in type 10h.
    pub extended_features: u64,
    /// Image of the second extended feature register; 0 in type 10h.
    pub extended_features_2: u64,
    entries: Span<'a>,
}

impl<'a> Ivhd<'a> {
    /// Bytes of registers: 16 KiB, or 512 KiB with performance counters, which type 10h tells by
    /// their numbers, and the others by the extended feature PCSup (bit 9).
    #[must_use]
    pub const fn register_bytes(&self) -> u64 {
        let counters = match self.kind {
            BlockKind::Basic => self.features >> 13 & 0xf != 0 && self.features >> 17 & 0x3f != 0,
            BlockKind::Extended | BlockKind::Mixed => self.extended_features & 1 << 9 != 0,
        };
        if counters {
            REGISTERS_WITH_COUNTERS
        } else {
            REGISTERS
        }
    }

    /// The entries in order. One with a bad value is an error and passed over.
    pub fn entries(&self) -> impl Iterator<Item = Result<DeviceEntry<'a>, TableError>> + 'a {
        self.records().map(body)
    }

    /// The entries, and where they are.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = Result<Record<DeviceEntry<'a>>, TableError>> + 'a {
        entry::read(self.entries)
    }
}

/// Which devices of a segment a range of memory is for; by requester id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryUsers {
    /// All (type 20h).
    All,
    /// One (type 21h).
    One(u16),
    /// From the first to the last, included (type 22h).
    Range(u16, u16),
}

/// Memory that firmware has devices use by DMA (IVMD, types 20h to 22h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ivmd {
    /// The devices.
    pub users: MemoryUsers,
    /// What they may do.
    pub flags: MemoryFlags,
    /// PCI segment of the devices.
    pub segment: u16,
    /// First physical address, a multiple of 4 KiB.
    pub base: u64,
    /// Last physical address, included; one less than a multiple of 4 KiB.
    pub limit: u64,
}

/// A block of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvrsBlock<'a> {
    /// A unit.
    Unit(Ivhd<'a>),
    /// Memory.
    Memory(Ivmd),
    /// Any other.
    Other {
        /// Type.
        kind: u8,
        /// Bytes.
        length: u16,
    },
}

/// The IVRS table.
#[derive(Clone, Copy, Debug)]
pub struct Ivrs<'a> {
    /// Field IVinfo as it is (5.2.1).
    pub information: u32,
    blocks: Span<'a>,
}

impl<'a> Ivrs<'a> {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, or not whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::IVRS)?;
        table.structure::<[u8; FIRST]>(0)?;
        Ok(Self {
            information: table.structure::<U32>(36)?.get(),
            blocks: table.from(FIRST),
        })
    }

    /// Bits of a physical address that DMA can reach; 0 if firmware does not say.
    #[must_use]
    pub const fn physical_address_bits(&self) -> u8 {
        (self.information >> 8 & 0x7f) as u8
    }

    /// Bits of an address that a device can use; 0 if firmware does not say.
    #[must_use]
    pub const fn virtual_address_bits(&self) -> u8 {
        (self.information >> 15 & 0x7f) as u8
    }

    /// Firmware asks for DMA protection from the start of the operating system.
    #[must_use]
    pub const fn protected_before_boot(&self) -> bool {
        self.information & 2 != 0
    }

    /// The blocks in order. One with a bad value is an error and passed over.
    pub fn blocks(&self) -> impl Iterator<Item = Result<IvrsBlock<'a>, TableError>> + 'a {
        self.records().map(body)
    }

    /// The blocks, and where they are.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<IvrsBlock<'a>>, TableError>> + 'a {
        records(self.blocks, block)
    }
}

fn block<'a>(head: &Head, span: Span<'a>) -> Result<IvrsBlock<'a>, TableError> {
    Ok(match head.kind {
        0x10 => IvrsBlock::Unit(unit(span, BlockKind::Basic)?),
        0x11 => IvrsBlock::Unit(unit(span, BlockKind::Extended)?),
        0x40 => IvrsBlock::Unit(unit(span, BlockKind::Mixed)?),
        0x20..=0x22 => IvrsBlock::Memory(memory(span)?),
        kind => IvrsBlock::Other {
            kind,
            length: head.length.get(),
        },
    })
}

fn unit(span: Span<'_>, kind: BlockKind) -> Result<Ivhd<'_>, TableError> {
    let (raw, images, entries) = match kind {
        BlockKind::Basic => {
            let (raw, entries) = span.record::<RawUnit>()?;
            (raw, None, entries)
        }
        BlockKind::Extended | BlockKind::Mixed => {
            let (raw, entries) = span.record::<RawExtendedUnit>()?;
            (&raw.unit, Some(&raw.images), entries)
        }
    };
    let base = raw.base.get();
    if base == 0 || base % REGISTERS != 0 {
        return Err(span.bad("register base address", base));
    }
    Ok(Ivhd {
        kind,
        flags: UnitFlags::from_bits_retain(raw.head.flags),
        id: raw.id.get(),
        capability: raw.capability.get(),
        base,
        segment: raw.segment.get(),
        information: raw.information.get(),
        features: raw.features.get(),
        extended_features: images.map_or(0, |images| images.extended.get()),
        extended_features_2: images.map_or(0, |images| images.extended_2.get()),
        entries,
    })
}

fn memory(span: Span<'_>) -> Result<Ivmd, TableError> {
    let (raw, _) = span.record::<RawMemory>()?;
    let (first, last) = (raw.first.get(), raw.last.get());
    let users = match raw.head.kind {
        0x20 => MemoryUsers::All,
        0x21 => MemoryUsers::One(first),
        _ if first > last => return Err(span.bad("last device of a memory block", last)),
        _ => MemoryUsers::Range(first, last),
    };
    let (base, length) = (raw.start.get(), raw.length.get());
    if base % 4096 != 0 {
        return Err(span.bad("reserved region's base", base));
    }
    let limit = match length.checked_sub(1) {
        Some(rest) if length % 4096 == 0 => base.checked_add(rest),
        _ => None,
    };
    Ok(Ivmd {
        users,
        flags: MemoryFlags::from_bits_retain(raw.head.flags),
        segment: raw.segment.get(),
        base,
        limit: limit.ok_or_else(|| span.bad("reserved region's length", length))?,
    })
}
