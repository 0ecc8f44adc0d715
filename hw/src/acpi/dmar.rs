//! DMAR: DMA remapping units, the devices that each takes, and memory that
//! devices need mapped, [`Dmar`] (VT-d 4.1, chapter 8).

mod scope;

pub use scope::{MAX_PATH, Path, PathHop, Scope, ScopeKind, Scopes};

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{
    Record, RecordHead, Rule, Signature, Span, Table, TableError, ascii, body, record_head, records,
};

/// Bytes before the first remapping structure.
const FIRST: usize = 48;

bitflags! {
    /// What the platform's firmware allows or asks (VT-d 4.1, 8.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DmarFlags: u8 {
        /// Interrupt remapping is supported.
        const INTERRUPT_REMAPPING = 1 << 0;
        /// Firmware asks not to enable x2APIC mode.
        const X2APIC_OPT_OUT = 1 << 1;
        /// Firmware asks for DMA protection from the start of the operating system.
        const DMA_PROTECTION_OPT_IN = 1 << 2;
        const _ = !0;
    }
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    kind: U16,
    length: U16,
}

record_head!(Head);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDrhd {
    head: Head,
    flags: u8,
    size: u8,
    segment: U16,
    base: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRmrr {
    head: Head,
    reserved: U16,
    segment: U16,
    base: U64,
    limit: U64,
}

/// ATSR, SATC and SIDP.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawList {
    head: Head,
    flags: u8,
    reserved: u8,
    segment: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRhsa {
    head: Head,
    reserved: U32,
    base: U64,
    domain: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAndd {
    head: Head,
    reserved: [u8; 3],
    number: u8,
}

/// A DMA remapping hardware unit (type 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drhd<'a> {
    /// Takes every device of its segment that no other unit names.
    pub include_all: bool,
    /// PCI segment of its devices.
    pub segment: u16,
    /// Physical address of its registers, a multiple of 4 KiB.
    pub base: u64,
    /// Bytes of registers: 4 KiB times a power of two.
    pub size: u64,
    /// Devices that it names.
    pub scopes: Scopes<'a>,
}

/// Memory that firmware has devices use by DMA (type 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rmrr<'a> {
    /// PCI segment of the devices.
    pub segment: u16,
    /// First physical address, a multiple of 4 KiB.
    pub base: u64,
    /// Last physical address, included.
    pub limit: u64,
    /// Devices that use the memory.
    pub scopes: Scopes<'a>,
}

/// Root ports whose devices may use address translation services (type 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Atsr<'a> {
    /// Every root port of the segment.
    pub all_ports: bool,
    /// PCI segment of the ports.
    pub segment: u16,
    /// The root ports.
    pub scopes: Scopes<'a>,
}

/// Proximity domain of a unit (type 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rhsa {
    /// Physical address of the unit's registers ([`Drhd::base`]).
    pub base: u64,
    /// Proximity domain, as the SRAT numbers them.
    pub domain: u32,
}

/// A device that is only in ACPI's name space (type 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Andd<'a> {
    /// Number by which scopes of the kind [`ScopeKind::NameSpace`] name it.
    pub number: u8,
    /// Its path in the name space.
    pub name: &'a str,
}

/// Integrated devices with address translation caches (type 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Satc<'a> {
    /// The devices work with the cache in use only.
    pub required: bool,
    /// PCI segment of the devices.
    pub segment: u16,
    /// The devices.
    pub scopes: Scopes<'a>,
}

/// Properties of integrated devices, in [`Scope::flags`] (type 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sidp<'a> {
    /// PCI segment of the devices.
    pub segment: u16,
    /// The devices.
    pub scopes: Scopes<'a>,
}

/// A remapping structure of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remapping<'a> {
    /// Type 0.
    Drhd(Drhd<'a>),
    /// Type 1.
    Rmrr(Rmrr<'a>),
    /// Type 2.
    Atsr(Atsr<'a>),
    /// Type 3.
    Rhsa(Rhsa),
    /// Type 4.
    Andd(Andd<'a>),
    /// Type 5.
    Satc(Satc<'a>),
    /// Type 6.
    Sidp(Sidp<'a>),
    /// Any other.
    Other {
        /// Type.
        kind: u16,
        /// Bytes.
        length: u16,
    },
}

/// The DMAR table.
#[derive(Clone, Copy, Debug)]
pub struct Dmar<'a> {
    /// Bits of a physical address that DMA can reach, 1 to 64.
    pub host_address_bits: u8,
    /// Flags.
    pub flags: DmarFlags,
    structures: Span<'a>,
}

impl<'a> Dmar<'a> {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, not whole, or its address width cannot be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::DMAR)?;
        table.structure::<[u8; FIRST]>(0)?;
        let [width, flags] = *table.structure::<[u8; 2]>(36)?;
        if width > 63 {
            return Err(table.from(36).bad("host address width", width));
        }
        Ok(Self {
            host_address_bits: width + 1,
            flags: DmarFlags::from_bits_retain(flags),
            structures: table.from(FIRST),
        })
    }

    /// The remapping structures in order. One with a bad value is an error and passed over.
    pub fn structures(&self) -> impl Iterator<Item = Result<Remapping<'a>, TableError>> + 'a {
        self.records().map(body)
    }

    /// The remapping structures, and where they are.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<Remapping<'a>>, TableError>> + 'a {
        records(self.structures, structure)
    }
}

fn structure<'a>(head: &Head, span: Span<'a>) -> Result<Remapping<'a>, TableError> {
    Ok(match head.kind.get() {
        0 => {
            let (raw, scopes) = span.record::<RawDrhd>()?;
            let base = raw.base.get();
            if base == 0 || base & 0xfff != 0 {
                return Err(span.bad("register base address", base));
            }
            Remapping::Drhd(Drhd {
                include_all: raw.flags & 1 != 0,
                segment: raw.segment.get(),
                base,
                size: 4096 << (raw.size & 0xf),
                scopes: Scopes(scopes),
            })
        }
        1 => Remapping::Rmrr(region(span)?),
        2 => {
            let (raw, scopes) = span.record::<RawList>()?;
            Remapping::Atsr(Atsr {
                all_ports: raw.flags & 1 != 0,
                segment: raw.segment.get(),
                scopes: Scopes(scopes),
            })
        }
        3 => {
            let (raw, _) = span.record::<RawRhsa>()?;
            Remapping::Rhsa(Rhsa {
                base: raw.base.get(),
                domain: raw.domain.get(),
            })
        }
        4 => Remapping::Andd(name_space_device(span)?),
        5 => {
            let (raw, scopes) = span.record::<RawList>()?;
            Remapping::Satc(Satc {
                required: raw.flags & 1 != 0,
                segment: raw.segment.get(),
                scopes: Scopes(scopes),
            })
        }
        6 => {
            let (raw, scopes) = span.record::<RawList>()?;
            Remapping::Sidp(Sidp {
                segment: raw.segment.get(),
                scopes: Scopes(scopes),
            })
        }
        kind => Remapping::Other {
            kind,
            length: head.length.get(),
        },
    })
}

fn region(span: Span<'_>) -> Result<Rmrr<'_>, TableError> {
    let (raw, scopes) = span.record::<RawRmrr>()?;
    let (base, limit) = (raw.base.get(), raw.limit.get());
    if base & 0xfff != 0 {
        return Err(span.bad("reserved region's base", base));
    }
    if limit <= base || limit & 0xfff != 0xfff {
        return Err(span.bad("reserved region's limit", limit));
    }
    Ok(Rmrr {
        segment: raw.segment.get(),
        base,
        limit,
        scopes: Scopes(scopes),
    })
}

fn name_space_device(span: Span<'_>) -> Result<Andd<'_>, TableError> {
    let (raw, name) = span.record::<RawAndd>()?;
    let end = name.bytes.iter().position(|byte| *byte == 0);
    let end = end.unwrap_or(name.bytes.len());
    let (text, _) = name.bytes.split_at_checked(end).unwrap_or((&[], &[]));
    match ascii(text) {
        Ok(name) => Ok(Andd {
            number: raw.number,
            name,
        }),
        Err(odd) => Err(span.bad("character in a device's name", odd)),
    }
}
