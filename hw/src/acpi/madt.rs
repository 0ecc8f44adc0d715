//! MADT (signature `APIC`): processors, IOAPICs and how legacy interrupts are
//! wired, [`Madt`] (ACPI 6.5, 5.2.12).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{
    Record, RecordHead, Rule, Signature, Span, Table, TableError, body, record_head, records,
};

/// Bytes before the first entry.
const FIRST: usize = 44;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    length: u8,
}

record_head!(Head);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLocalApic {
    head: Head,
    uid: u8,
    id: u8,
    flags: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawIoApic {
    head: Head,
    id: u8,
    reserved: u8,
    address: U32,
    first_gsi: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawOverride {
    head: Head,
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAddressOverride {
    head: Head,
    reserved: U16,
    address: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLocalX2Apic {
    head: Head,
    reserved: U16,
    id: U32,
    flags: U32,
    uid: U32,
}

/// Whether a processor can be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ApicUse {
    /// It can be started.
    Enabled,
    /// It is absent and may be added while the system runs.
    OnlineCapable,
    /// It must not be used.
    Disabled,
}

impl ApicUse {
    const fn from_flags(flags: u32) -> Self {
        match (flags & 1 != 0, flags & 2 != 0) {
            (true, _) => Self::Enabled,
            (false, true) => Self::OnlineCapable,
            (false, false) => Self::Disabled,
        }
    }
}

/// A processor's local APIC; in both forms that the table has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LocalApic {
    /// Its APIC id: below 255 in the xAPIC form.
    pub id: u32,
    /// ACPI's number of the processor.
    pub uid: u32,
    /// Whether it can be used.
    pub usable: ApicUse,
}

/// An IOAPIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Physical address of its registers.
    pub address: u32,
    /// Global system interrupt of its first pin.
    pub first_gsi: u32,
}

/// The level at which an interrupt line is asserted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Polarity {
    /// As the bus has it: ISA high, PCI low.
    OfBus,
    /// High.
    High,
    /// Low.
    Low,
}

/// How an interrupt line signals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// As the bus has it: ISA edge, PCI level.
    OfBus,
    /// By its edge.
    Edge,
    /// By its level.
    Level,
}

/// An ISA interrupt that is not wired to the global system interrupt of the same number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InterruptOverride {
    /// ISA interrupt, 0 to 15.
    pub source: u8,
    /// Global system interrupt that it is wired to.
    pub gsi: u32,
    /// Its polarity.
    pub polarity: Polarity,
    /// Its trigger mode.
    pub trigger: Trigger,
}

/// An entry of the MADT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MadtEntry {
    /// A processor (types 0 and 9).
    LocalApic(LocalApic),
    /// An IOAPIC (type 1).
    IoApic(IoApic),
    /// An interrupt source override (type 2).
    Override(InterruptOverride),
    /// Physical address of the local APICs, in place of the table's own field (type 5).
    LocalApicAddress(u64),
    /// Any other entry: its type and length.
    Other {
        /// Type.
        kind: u8,
        /// Bytes.
        length: u8,
    },
}

/// The MADT.
#[derive(Clone, Copy, Debug)]
pub struct Madt<'a> {
    /// Physical address of the local APICs.
    pub local_apic_address: u32,
    /// The machine has also two 8259 controllers, which must be masked.
    pub pc_at_compatible: bool,
    entries: Span<'a>,
}

impl<'a> Madt<'a> {
    /// Reads the table at the start of `bytes`.
    ///
    /// # Errors
    /// It is another table, or not whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::parse(bytes, Signature::APIC)?;
        let [address, flags] = table.structure::<[U32; 2]>(36)?;
        Ok(Self {
            local_apic_address: address.get(),
            pc_at_compatible: flags.get() & 1 != 0,
            entries: table.from(FIRST),
        })
    }

    /// The entries in order. One with a bad value is an error and passed over.
    pub fn entries(&self) -> impl Iterator<Item = Result<MadtEntry, TableError>> + 'a {
        self.records().map(body)
    }

    /// The entries, and where they are.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<MadtEntry>, TableError>> + 'a {
        records(self.entries, entry)
    }
}

fn entry(head: &Head, span: Span<'_>) -> Result<MadtEntry, TableError> {
    Ok(match head.kind {
        0 => {
            let (raw, _) = span.record::<RawLocalApic>()?;
            MadtEntry::LocalApic(LocalApic {
                id: u32::from(raw.id),
                uid: u32::from(raw.uid),
                usable: ApicUse::from_flags(raw.flags.get()),
            })
        }
        1 => {
            let (raw, _) = span.record::<RawIoApic>()?;
            MadtEntry::IoApic(IoApic {
                id: raw.id,
                address: raw.address.get(),
                first_gsi: raw.first_gsi.get(),
            })
        }
        2 => interrupt_override(span)?,
        5 => {
            let (raw, _) = span.record::<RawAddressOverride>()?;
            MadtEntry::LocalApicAddress(raw.address.get())
        }
        9 => {
            let (raw, _) = span.record::<RawLocalX2Apic>()?;
            MadtEntry::LocalApic(LocalApic {
                id: raw.id.get(),
                uid: raw.uid.get(),
                usable: ApicUse::from_flags(raw.flags.get()),
            })
        }
        kind => MadtEntry::Other {
            kind,
            length: head.length,
        },
    })
}

fn interrupt_override(span: Span<'_>) -> Result<MadtEntry, TableError> {
    let (raw, _) = span.record::<RawOverride>()?;
    let flags = raw.flags.get();
    let bad = |field, value| span.error(Rule::BadValue { field, value });
    if raw.bus != 0 {
        return Err(bad("bus of an interrupt override", u64::from(raw.bus)));
    }
    let polarity = match flags & 3 {
        0 => Polarity::OfBus,
        1 => Polarity::High,
        3 => Polarity::Low,
        other => return Err(bad("polarity", u64::from(other))),
    };
    let trigger = match flags >> 2 & 3 {
        0 => Trigger::OfBus,
        1 => Trigger::Edge,
        3 => Trigger::Level,
        other => return Err(bad("trigger mode", u64::from(other))),
    };
    Ok(MadtEntry::Override(InterruptOverride {
        source: raw.source,
        gsi: raw.gsi.get(),
        polarity,
        trigger,
    }))
}
