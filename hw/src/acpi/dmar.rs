//! DMAR: DMA remapping units, the devices that each takes, and memory that
//! devices need mapped, [`Dmar`] (VT-d 4.0, chapter 8).

use core::iter::FusedIterator;

use bitflags::bitflags;
use heapless::Vec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{RecordHead, Records, Rule, Signature, Span, Table, TableError};
use crate::header::BusNumbers;
use crate::{ConfigSpace, Sbdf};

/// Bytes before the first remapping structure.
const FIRST: usize = 48;
/// Longest path of a device scope that is understood.
pub const MAX_PATH: usize = 8;

bitflags! {
    /// What the platform's firmware allows or asks (VT-d 4.0, 8.1).
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

impl RecordHead for Head {
    fn length(&self) -> usize {
        usize::from(self.length.get())
    }
}

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

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAtsr {
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
struct RawScope {
    kind: u8,
    length: u8,
    flags: u8,
    reserved: u8,
    enumeration_id: u8,
    bus: u8,
}

impl RecordHead for RawScope {
    fn length(&self) -> usize {
        usize::from(self.length)
    }
}

/// What a device scope names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScopeKind {
    /// One function.
    Endpoint,
    /// A bridge and everything behind it.
    Bridge,
    /// An IOAPIC; its id is the enumeration id.
    IoApic,
    /// A timer block that sends MSIs; the enumeration id is its number.
    Hpet,
    /// A device that only ACPI's name space has.
    NameSpace,
    /// A kind that this code does not know.
    Other(u8),
}

impl ScopeKind {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Endpoint,
            2 => Self::Bridge,
            3 => Self::IoApic,
            4 => Self::Hpet,
            5 => Self::NameSpace,
            other => Self::Other(other),
        }
    }
}

/// One step of a path: device and function on the bus that the step before leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathHop {
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// A device that a remapping structure is about (VT-d 4.0, 8.3.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scope {
    /// What it names.
    pub kind: ScopeKind,
    /// Meaning depends on [`Self::kind`].
    pub enumeration_id: u8,
    /// Bus that the path starts on.
    pub bus: u8,
    /// The way to the device, through bridges: at least one step.
    pub path: Vec<PathHop, MAX_PATH>,
}

impl Scope {
    /// The function that the path leads to, following the secondary buses of the bridges on the
    /// way as they are set up now; `None` if a step is no bridge.
    pub fn resolve<C: ConfigSpace + ?Sized>(&self, cfg: &C, segment: u16) -> Option<Sbdf> {
        let mut bus = self.bus;
        let (last, bridges) = self.path.split_last()?;
        for hop in bridges {
            let bridge = Sbdf::from_parts(segment, bus, hop.device, hop.function).ok()?;
            bus = BusNumbers::read(cfg, bridge).behind()?.first();
        }
        Sbdf::from_parts(segment, bus, last.device, last.function).ok()
    }
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
    scopes: Span<'a>,
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
    scopes: Span<'a>,
}

/// Root ports whose devices may use address translation services (type 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Atsr<'a> {
    /// Every root port of the segment.
    pub all_ports: bool,
    /// PCI segment of the ports.
    pub segment: u16,
    scopes: Span<'a>,
}

/// Proximity domain of a unit (type 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rhsa {
    /// Physical address of the unit's registers ([`Drhd::base`]).
    pub base: u64,
    /// Proximity domain, as the SRAT numbers them.
    pub domain: u32,
}

impl<'a> Drhd<'a> {
    /// Devices that it names.
    pub fn scopes(&self) -> impl FusedIterator<Item = Result<Scope, TableError>> + 'a {
        scopes(self.scopes)
    }
}

impl<'a> Rmrr<'a> {
    /// Devices that use the memory.
    pub fn scopes(&self) -> impl FusedIterator<Item = Result<Scope, TableError>> + 'a {
        scopes(self.scopes)
    }
}

impl<'a> Atsr<'a> {
    /// The root ports.
    pub fn scopes(&self) -> impl FusedIterator<Item = Result<Scope, TableError>> + 'a {
        scopes(self.scopes)
    }
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
    /// Any other: name-space devices, SATC, SIDP and what is to come.
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
            return Err(TableError {
                table: Signature::DMAR,
                offset: 36,
                rule: Rule::BadValue {
                    field: "host address width",
                    value: u64::from(width),
                },
            });
        }
        Ok(Self {
            host_address_bits: width + 1,
            flags: DmarFlags::from_bits_retain(flags),
            structures: table.from(FIRST),
        })
    }

    /// The remapping structures in order. One with a bad value is an error and passed over.
    pub fn structures(&self) -> impl Iterator<Item = Result<Remapping<'a>, TableError>> + 'a {
        Records::<Head>::new(self.structures).map(|record| {
            let (head, span) = record?;
            structure(head, span)
        })
    }
}

fn structure<'a>(head: &Head, span: Span<'a>) -> Result<Remapping<'a>, TableError> {
    let bad = |field, value| Err(span.error(Rule::BadValue { field, value }));
    Ok(match head.kind.get() {
        0 => {
            let (raw, scopes) = span.record::<RawDrhd>()?;
            let base = raw.base.get();
            if base == 0 || base & 0xfff != 0 {
                return bad("register base address", base);
            }
            Remapping::Drhd(Drhd {
                include_all: raw.flags & 1 != 0,
                segment: raw.segment.get(),
                base,
                size: 4096 << (raw.size & 0xf),
                scopes,
            })
        }
        1 => {
            let (raw, scopes) = span.record::<RawRmrr>()?;
            let (base, limit) = (raw.base.get(), raw.limit.get());
            if base & 0xfff != 0 {
                return bad("reserved region's base", base);
            }
            if limit <= base || limit & 0xfff != 0xfff {
                return bad("reserved region's limit", limit);
            }
            Remapping::Rmrr(Rmrr {
                segment: raw.segment.get(),
                base,
                limit,
                scopes,
            })
        }
        2 => {
            let (raw, scopes) = span.record::<RawAtsr>()?;
            Remapping::Atsr(Atsr {
                all_ports: raw.flags & 1 != 0,
                segment: raw.segment.get(),
                scopes,
            })
        }
        3 => {
            let (raw, _) = span.record::<RawRhsa>()?;
            Remapping::Rhsa(Rhsa {
                base: raw.base.get(),
                domain: raw.domain.get(),
            })
        }
        kind => Remapping::Other {
            kind,
            length: head.length.get(),
        },
    })
}

fn scopes<'a>(span: Span<'a>) -> impl FusedIterator<Item = Result<Scope, TableError>> + 'a {
    Records::<RawScope>::new(span)
        .map(|record| {
            let (head, span) = record?;
            scope(head, span)
        })
        .fuse()
}

fn scope(head: &RawScope, span: Span<'_>) -> Result<Scope, TableError> {
    let (_, steps) = span.record::<RawScope>()?;
    let bad = |field, value| span.error(Rule::BadValue { field, value });
    if steps.bytes.is_empty() || steps.bytes.len() % 2 != 0 {
        return Err(bad("length of a device scope", u64::from(head.length)));
    }
    let mut path = Vec::new();
    for step in steps.bytes.chunks_exact(2) {
        let [device, function] = *step else {
            continue;
        };
        if device > Sbdf::MAX_DEVICE {
            return Err(bad("device in a path", u64::from(device)));
        }
        if function > Sbdf::MAX_FUNCTION {
            return Err(bad("function in a path", u64::from(function)));
        }
        path.push(PathHop { device, function }).map_err(|_| {
            span.error(Rule::TooMany {
                what: "steps in a path",
                limit: MAX_PATH as u32,
            })
        })?;
    }
    Ok(Scope {
        kind: ScopeKind::from_byte(head.kind),
        enumeration_id: head.enumeration_id,
        bus: head.bus,
        path,
    })
}
