//! A plan from an IVRS.

use heapless::Vec;

use super::{
    Access, AmdviUnit, Declared, Extent, IommuPlan, MAX_UNITS, OwnedExtent, Reserved, Source,
    SourceKind, UnitKind, UnitPlan, direct, name,
};
use crate::acpi::ivrs::{
    AcpiDevice, DeviceEntry, Ivhd, Ivmd, Ivrs, IvrsBlock, MemoryFlags, MemoryUsers, Uid,
};
use crate::acpi::table::{Record, Rule, Signature, TableError};

/// Bits of a physical address where firmware does not say: the most that page tables can hold.
const PHYSICAL_BITS: u8 = 52;

pub fn plan(bytes: &[u8]) -> Result<IommuPlan, TableError> {
    let ivrs = Ivrs::parse(bytes)?;
    let mut plan = IommuPlan::empty(Signature::IVRS);
    plan.host_address_bits = match ivrs.physical_address_bits() {
        0 => PHYSICAL_BITS,
        bits => bits.min(64),
    };
    // Every AMD unit remaps interrupts.
    plan.interrupt_remapping = true;
    let mut regions: Vec<Record<Ivmd>, { super::MAX_RESERVED }> = Vec::new();
    for unit in &chosen(&ivrs, &plan, &mut regions)? {
        let block = unit.body;
        let entry = UnitPlan {
            kind: UnitKind::Amdvi(AmdviUnit {
                id: block.id,
                capability: block.capability,
                form: block.kind,
                flags: block.flags,
                features: block.features,
                extended_features: block.extended_features,
                message: (block.information & 0x1f) as u8,
            }),
            base: block.base,
            size: block.register_bytes(),
            segment: block.segment,
            include_all: false,
            domain: None,
        };
        let owner = plan.add_unit(entry, unit.offset)?;
        devices(&mut plan, owner, &block)?;
    }
    for region in &regions {
        memory(&mut plan, region)?;
    }
    Ok(plan)
}

/// The best block about each unit, in the order in which the units come first; and the regions.
fn chosen<'a>(
    ivrs: &Ivrs<'a>,
    plan: &IommuPlan,
    regions: &mut Vec<Record<Ivmd>, { super::MAX_RESERVED }>,
) -> Result<Vec<Record<Ivhd<'a>>, MAX_UNITS>, TableError> {
    let mut units: Vec<Record<Ivhd<'a>>, MAX_UNITS> = Vec::new();
    for record in ivrs.records() {
        let record = record?;
        let Record {
            offset,
            length,
            kind,
            body,
        } = record;
        match body {
            IvrsBlock::Unit(body) => {
                let record = Record {
                    offset,
                    length,
                    kind,
                    body,
                };
                let same = units
                    .iter_mut()
                    .find(|unit| (unit.body.segment, unit.body.id) == (body.segment, body.id));
                match same {
                    Some(known) if known.body.base != body.base => {
                        let (field, value) = ("second register base address of a unit", body.base);
                        return Err(error(offset, Rule::BadValue { field, value }));
                    }
                    Some(known) if known.body.kind < body.kind => *known = record,
                    Some(_) => {}
                    None => {
                        let full = plan.too_many(offset, "remapping units", MAX_UNITS);
                        units.push(record).map_err(|_| full)?;
                    }
                }
            }
            IvrsBlock::Memory(body) => {
                let full = plan.too_many(offset, "reserved regions", super::MAX_RESERVED);
                let record = Record {
                    offset,
                    length,
                    kind,
                    body,
                };
                regions.push(record).map_err(|_| full)?;
            }
            IvrsBlock::Other { .. } => {}
        }
    }
    Ok(units)
}

fn error(offset: u32, rule: Rule) -> TableError {
    TableError {
        table: Signature::IVRS,
        offset,
        rule,
    }
}

/// Ranges are two entries: the first says all, the second only where it ends.
fn devices(plan: &mut IommuPlan, unit: u8, block: &Ivhd<'_>) -> Result<(), TableError> {
    let mut open: Option<(u16, Declared, u32)> = None;
    let bad = |offset, field, id| {
        let value = u64::from(id);
        Err(error(offset, Rule::BadValue { field, value }))
    };
    for record in block.records() {
        let record = record?;
        let at = record.offset;
        match (record.body, open) {
            (DeviceEntry::Padding, _) => {}
            (DeviceEntry::RangeStart { id, declared }, None) => open = Some((id, declared, at)),
            (DeviceEntry::RangeEnd { id }, Some((first, declared, _))) => {
                if id < first {
                    return bad(at, "last device of a range", id);
                }
                let extent = Extent::Ids { first, last: id };
                plan.add_unit_scope(owned(unit, extent, declared), at)?;
                open = None;
            }
            (DeviceEntry::RangeEnd { id }, None) => {
                return bad(at, "end of a range without a start, at device", id);
            }
            (_, Some((first, _, start))) => {
                return bad(start, "range without an end, from device", first);
            }
            (DeviceEntry::All(declared), None) => {
                plan.add_unit_scope(owned(unit, Extent::All, declared), at)?;
            }
            (DeviceEntry::Select { id, declared }, None) => {
                let extent = Extent::Ids {
                    first: id,
                    last: id,
                };
                plan.add_unit_scope(owned(unit, extent, declared), at)?;
            }
            (
                DeviceEntry::IoApic { .. } | DeviceEntry::Hpet { .. } | DeviceEntry::Acpi(_),
                None,
            ) => {
                source(plan, unit, &record)?;
            }
            (DeviceEntry::Other { kind }, None) => {
                return bad(at, "type of a device entry", u16::from(kind));
            }
        }
    }
    match open {
        None => Ok(()),
        Some((first, _, start)) => bad(start, "range without an end, from device", first),
    }
}

fn owned(owner: u8, extent: Extent, declared: Declared) -> OwnedExtent {
    OwnedExtent {
        owner,
        extent,
        declared,
    }
}

fn source(
    plan: &mut IommuPlan,
    unit: u8,
    record: &Record<DeviceEntry<'_>>,
) -> Result<(), TableError> {
    let (kind, id, settings) = match record.body {
        DeviceEntry::IoApic {
            handle,
            id,
            settings,
        } => (SourceKind::IoApic(handle), id, settings),
        DeviceEntry::Hpet {
            handle,
            id,
            settings,
        } => (SourceKind::Hpet(handle), id, settings),
        DeviceEntry::Acpi(device) => {
            let kind = SourceKind::NameSpace(name_of(&device));
            (kind, device.id, device.settings)
        }
        _ => return Ok(()),
    };
    let source = Source {
        unit,
        kind,
        path: direct(id),
        settings,
    };
    plan.add_source(source, record.offset)
}

/// The path if there is one, otherwise the `_HID`.
fn name_of(device: &AcpiDevice<'_>) -> super::Name {
    if let Uid::Text(path) = device.uid {
        return name(path);
    }
    let [a, b, c, d, e, f, g, h] = device.hardware_id;
    let mut text = super::Name::new();
    for byte in [a, b, c, d, e, f, g, h] {
        if byte.is_ascii_graphic() {
            // Eight characters at most.
            let _ = text.push(char::from(byte));
        }
    }
    text
}

fn memory(plan: &mut IommuPlan, record: &Record<Ivmd>) -> Result<(), TableError> {
    let region = record.body;
    let access = match region.flags.contains(MemoryFlags::EXCLUSION) {
        true => Access::Excluded,
        false => Access::Identity {
            read: region.flags.contains(MemoryFlags::READ),
            write: region.flags.contains(MemoryFlags::WRITE),
        },
    };
    let entry = Reserved {
        segment: region.segment,
        base: region.base,
        limit: region.limit,
        access,
    };
    let owner = plan.add_reserved(entry, record.offset)?;
    let extent = match region.users {
        MemoryUsers::All => Extent::All,
        MemoryUsers::One(id) => Extent::Ids {
            first: id,
            last: id,
        },
        MemoryUsers::Range(first, last) => Extent::Ids { first, last },
    };
    plan.add_reserved_scope(owned(owner, extent, Declared::default()), record.offset)
}
