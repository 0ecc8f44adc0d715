//! SRAT: which processor, memory or device is in which proximity domain,
//! [`Srat`] (ACPI 6.5, 5.2.16).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{
    Record, RecordHead, Rule, Signature, Span, Table, TableError, body, record_head, records,
};
use crate::Sbdf;

/// Bytes before the first entry.
const FIRST: usize = 48;
/// From this revision of the table on domains have 32 bits; before, 8.
const WIDE_DOMAINS: u8 = 2;

bitflags! {
    /// Properties of a range of memory (5.2.16.2).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct MemoryAffinityFlags: u32 {
        /// The entry counts.
        const ENABLED = 1 << 0;
        /// Memory may be added while the system runs.
        const HOT_PLUGGABLE = 1 << 1;
        /// Keeps its content without power.
        const NON_VOLATILE = 1 << 2;
        const _ = !0;
    }
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    length: u8,
}

record_head!(Head);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawApic {
    head: Head,
    domain_low: u8,
    id: u8,
    flags: U32,
    sapic_eid: u8,
    domain_high: [u8; 3],
    clock_domain: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMemory {
    head: Head,
    domain: U32,
    reserved: U16,
    base: U64,
    length: U64,
    reserved_2: U32,
    flags: U32,
    reserved_3: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawX2Apic {
    head: Head,
    reserved: U16,
    domain: U32,
    id: U32,
    flags: U32,
    clock_domain: U32,
    reserved_2: U32,
}

/// Generic initiators and generic ports.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDevice {
    head: Head,
    reserved: u8,
    handle_kind: u8,
    domain: U32,
    handle: [u8; 16],
    flags: U32,
    reserved_2: U32,
}

/// A processor's domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProcessorAffinity {
    /// APIC id of the processor.
    pub apic_id: u32,
    /// Its proximity domain.
    pub domain: u32,
    /// Clock domain: processors in one have synchronous clocks.
    pub clock_domain: u32,
    /// Does the entry count?
    pub enabled: bool,
}

/// A memory range's domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemoryAffinity {
    /// First physical address.
    pub base: u64,
    /// Bytes; 0 in entries that do not count.
    pub length: u64,
    /// Its proximity domain.
    pub domain: u32,
    /// Properties.
    pub flags: MemoryAffinityFlags,
}

/// A device, as the SRAT names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeviceHandle {
    /// By ACPI's `_HID` and `_UID`.
    Acpi {
        /// `_HID`.
        hardware_id: [u8; 8],
        /// `_UID`.
        unique_id: [u8; 4],
    },
    /// A PCI function.
    Pci(Sbdf),
}

/// The domain of a device that uses memory as processors do, or of a port to such (types 5 and 6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceAffinity {
    /// The device, or host bridge of the port.
    pub device: DeviceHandle,
    /// Its proximity domain.
    pub domain: u32,
    /// Does the entry count?
    pub enabled: bool,
}

/// An entry of the SRAT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Affinity {
    /// A processor (types 0 and 2).
    Processor(ProcessorAffinity),
    /// Memory (type 1).
    Memory(MemoryAffinity),
    /// A device (type 5).
    Initiator(DeviceAffinity),
    /// A host bridge to memory devices (type 6).
    Port(DeviceAffinity),
    /// Any other, among them those of ARM.
    Other {
        /// Type.
        kind: u8,
        /// Bytes.
        length: u8,
    },
}

/// The SRAT.
#[derive(Clone, Copy, Debug)]
pub struct Srat<'a> {
    wide: bool,
    entries: Span<'a>,
}

impl<'a> Srat<'a> {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, or not whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::SRAT)?;
        table.structure::<[u8; FIRST]>(0)?;
        Ok(Self {
            wide: table.header.revision >= WIDE_DOMAINS,
            entries: table.from(FIRST),
        })
    }

    /// The entries in order. One with a bad value is an error and passed over.
    pub fn entries(&self) -> impl Iterator<Item = Result<Affinity, TableError>> + 'a {
        self.records().map(body)
    }

    /// The entries, and where they are.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<Affinity>, TableError>> + 'a {
        let wide = self.wide;
        records(self.entries, move |head, span| entry(head, span, wide))
    }

    /// Proximity domain of a function, where the table names the function itself. For most devices
    /// firmware gives the domain of their host bridge in AML (`_PXM`), which is not read.
    #[must_use]
    pub fn domain_of(&self, device: Sbdf) -> Option<u32> {
        let named = |entry| match entry {
            Ok(Affinity::Initiator(named)) if named.enabled => Some(named),
            _ => None,
        };
        self.entries()
            .filter_map(named)
            .find(|named| named.device == DeviceHandle::Pci(device))
            .map(|named| named.domain)
    }
}

fn entry(head: &Head, span: Span<'_>, wide: bool) -> Result<Affinity, TableError> {
    let domain = |domain: U32| match wide {
        true => domain.get(),
        false => domain.get() & 0xff,
    };
    Ok(match head.kind {
        0 => {
            let (raw, _) = span.record::<RawApic>()?;
            let [a, b, c] = raw.domain_high;
            Affinity::Processor(ProcessorAffinity {
                apic_id: u32::from(raw.id),
                domain: domain(U32::from_bytes([raw.domain_low, a, b, c])),
                clock_domain: raw.clock_domain.get(),
                enabled: raw.flags.get() & 1 != 0,
            })
        }
        1 => {
            let (raw, _) = span.record::<RawMemory>()?;
            let (base, length) = (raw.base.get(), raw.length.get());
            if base.checked_add(length).is_none() {
                return Err(span.bad("length of memory", length));
            }
            Affinity::Memory(MemoryAffinity {
                base,
                length,
                domain: domain(raw.domain),
                flags: MemoryAffinityFlags::from_bits_retain(raw.flags.get()),
            })
        }
        2 => {
            let (raw, _) = span.record::<RawX2Apic>()?;
            Affinity::Processor(ProcessorAffinity {
                apic_id: raw.id.get(),
                domain: domain(raw.domain),
                clock_domain: raw.clock_domain.get(),
                enabled: raw.flags.get() & 1 != 0,
            })
        }
        5 => Affinity::Initiator(device(span)?),
        6 => Affinity::Port(device(span)?),
        kind => Affinity::Other {
            kind,
            length: head.length,
        },
    })
}

fn device(span: Span<'_>) -> Result<DeviceAffinity, TableError> {
    let (raw, _) = span.record::<RawDevice>()?;
    let device = match (raw.handle_kind, raw.handle) {
        (0, [a, b, c, d, e, f, g, h, i, j, k, l, ..]) => DeviceHandle::Acpi {
            hardware_id: [a, b, c, d, e, f, g, h],
            unique_id: [i, j, k, l],
        },
        // Bus, then device and function: not a little-endian number of 16 bits.
        (1, [low, high, bus, function, ..]) => DeviceHandle::Pci(Sbdf::from_requester_id(
            u16::from_le_bytes([low, high]),
            u16::from_be_bytes([bus, function]),
        )),
        (other, _) => return Err(span.bad("type of a device handle", other)),
    };
    Ok(DeviceAffinity {
        device,
        domain: raw.domain.get(),
        enabled: raw.flags.get() & 1 != 0,
    })
}
