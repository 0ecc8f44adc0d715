//! Entries of a unit's block: which devices it takes, [`DeviceEntry`]
//! (AMD I/O Virtualization Technology 3.10, 5.2.2.2).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::acpi::table::{Record, RecordHead, Rule, Span, TableError, ascii, records};

/// Entries of this type have a length of their own.
const ACPI_DEVICE: u8 = 0xf0;

bitflags! {
    /// Interrupts of a device that pass the unit although it blocks the device: bits of the
    /// device table entry that firmware asks for.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DeviceSettings: u8 {
        /// INIT messages pass.
        const INIT = 1 << 0;
        /// External interrupts of the 8259 pass.
        const EXTERNAL = 1 << 1;
        /// NMI messages pass.
        const NMI = 1 << 2;
        /// System management messages, bit 0.
        const MANAGEMENT_0 = 1 << 4;
        /// System management messages, bit 1.
        const MANAGEMENT_1 = 1 << 5;
        /// LINT0 messages pass.
        const LINT0 = 1 << 6;
        /// LINT1 messages pass.
        const LINT1 = 1 << 7;
        const _ = !0;
    }
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Short {
    kind: u8,
    id: U16,
    settings: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAlias {
    short: Short,
    reserved: u8,
    alias: U16,
    reserved_2: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtended {
    short: Short,
    settings: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSpecial {
    short: Short,
    handle: u8,
    source: U16,
    variety: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAcpi {
    short: Short,
    hardware_id: [u8; 8],
    compatible_id: [u8; 8],
    uid_format: u8,
    uid_length: u8,
}

impl RecordHead for Short {
    fn kind(&self) -> u16 {
        u16::from(self.kind)
    }

    /// The two highest bits of the type tell the length, up to [`ACPI_DEVICE`].
    fn length(&self, whole: &[u8]) -> Result<usize, Rule> {
        match self.kind {
            0x00..0x40 => Ok(size_of::<Short>()),
            0x40..0x80 => Ok(8),
            0x80..0xc0 => Ok(16),
            0xc0..ACPI_DEVICE => Ok(32),
            ACPI_DEVICE => {
                let fixed = size_of::<RawAcpi>();
                let uid = whole.get(fixed - 1).copied().unwrap_or(0);
                Ok(fixed + usize::from(uid))
            }
            other => Err(Rule::BadValue {
                field: "type of a device entry",
                value: u64::from(other),
            }),
        }
    }
}

/// What an entry says about its devices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Declared {
    /// Interrupts that pass.
    pub settings: DeviceSettings,
    /// Requester id that the devices' transactions carry in place of their own.
    pub alias: Option<u16>,
    /// The devices must not use address translation services.
    pub ats_disabled: bool,
}

/// How a device of the name space is told from others of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Uid<'a> {
    /// Not at all.
    None,
    /// By a number.
    Integer(u64),
    /// By a text, often its path in the name space.
    Text(&'a str),
}

/// A device that is only in ACPI's name space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AcpiDevice<'a> {
    /// Requester id that its transactions carry.
    pub id: u16,
    /// Interrupts that pass.
    pub settings: DeviceSettings,
    /// Its `_HID`, padded with zeros.
    pub hardware_id: [u8; 8],
    /// Its `_CID`, padded with zeros.
    pub compatible_id: [u8; 8],
    /// Its `_UID`.
    pub uid: Uid<'a>,
}

/// An entry of a unit's block. Ids are requester ids in the unit's segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeviceEntry<'a> {
    /// Nothing (types 0, 40h).
    Padding,
    /// All devices (type 1).
    All(Declared),
    /// One device (types 2, 42h with an alias, 46h with extended settings).
    Select {
        /// The device.
        id: u16,
        /// What is said about it.
        declared: Declared,
    },
    /// The first of a range of devices (types 3, 43h with an alias, 47h with extended settings).
    RangeStart {
        /// The device.
        id: u16,
        /// What is said about all of the range.
        declared: Declared,
    },
    /// The last device of the range, included (type 4).
    RangeEnd {
        /// The device.
        id: u16,
    },
    /// An IOAPIC (type 48h, variety 1).
    IoApic {
        /// Its id, as the MADT has it.
        handle: u8,
        /// Requester id that its messages carry.
        id: u16,
        /// Interrupts that pass.
        settings: DeviceSettings,
    },
    /// A timer block (type 48h, variety 2).
    Hpet {
        /// Its number, as the HPET table has it.
        handle: u8,
        /// Requester id that its messages carry.
        id: u16,
        /// Interrupts that pass.
        settings: DeviceSettings,
    },
    /// A device of the name space (type F0h).
    Acpi(AcpiDevice<'a>),
    /// Any other, and special devices of another variety.
    Other {
        /// Type.
        kind: u8,
    },
}

/// Cuts a block into entries.
pub(super) fn read<'a>(
    list: Span<'a>,
) -> impl Iterator<Item = Result<Record<DeviceEntry<'a>>, TableError>> + 'a {
    records(list, entry)
}

fn entry<'a>(head: &Short, span: Span<'a>) -> Result<DeviceEntry<'a>, TableError> {
    let id = head.id.get();
    let settings = DeviceSettings::from_bits_retain(head.settings);
    let plain = Declared {
        settings,
        ..Declared::default()
    };
    Ok(match head.kind {
        0x00 | 0x40 => DeviceEntry::Padding,
        0x01 => DeviceEntry::All(plain),
        0x02 => DeviceEntry::Select {
            id,
            declared: plain,
        },
        0x03 => DeviceEntry::RangeStart {
            id,
            declared: plain,
        },
        0x04 => DeviceEntry::RangeEnd { id },
        0x42 | 0x43 => {
            let (raw, _) = span.record::<RawAlias>()?;
            let declared = Declared {
                alias: Some(raw.alias.get()),
                ..plain
            };
            one_or_range(head.kind == 0x42, id, declared)
        }
        0x46 | 0x47 => {
            let (raw, _) = span.record::<RawExtended>()?;
            let declared = Declared {
                ats_disabled: raw.settings.get() >> 31 != 0,
                ..plain
            };
            one_or_range(head.kind == 0x46, id, declared)
        }
        0x48 => special(span, settings)?,
        ACPI_DEVICE => DeviceEntry::Acpi(acpi(span, settings)?),
        kind => DeviceEntry::Other { kind },
    })
}

const fn one_or_range<'a>(one: bool, id: u16, declared: Declared) -> DeviceEntry<'a> {
    if one {
        DeviceEntry::Select { id, declared }
    } else {
        DeviceEntry::RangeStart { id, declared }
    }
}

fn special<'a>(span: Span<'a>, settings: DeviceSettings) -> Result<DeviceEntry<'a>, TableError> {
    let (raw, _) = span.record::<RawSpecial>()?;
    let (handle, id) = (raw.handle, raw.source.get());
    Ok(match raw.variety {
        1 => DeviceEntry::IoApic {
            handle,
            id,
            settings,
        },
        2 => DeviceEntry::Hpet {
            handle,
            id,
            settings,
        },
        _ => DeviceEntry::Other {
            kind: raw.short.kind,
        },
    })
}

fn acpi(span: Span<'_>, settings: DeviceSettings) -> Result<AcpiDevice<'_>, TableError> {
    let (raw, uid) = span.record::<RawAcpi>()?;
    let uid = match raw.uid_format {
        0 => Uid::None,
        // Eight bytes by the specification, two on a real machine.
        1 if uid.bytes.len() <= 8 => {
            let bytes = uid.bytes.iter().rev();
            Uid::Integer(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
        }
        1 => return Err(span.bad("length of a number", raw.uid_length)),
        2 => match ascii(uid.bytes) {
            Ok(text) => Uid::Text(text),
            Err(odd) => return Err(span.bad("character in a _UID", odd)),
        },
        other => return Err(span.bad("format of a _UID", other)),
    };
    Ok(AcpiDevice {
        id: raw.short.id.get(),
        settings,
        hardware_id: raw.hardware_id,
        compatible_id: raw.compatible_id,
        uid,
    })
}
