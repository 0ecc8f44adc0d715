//! ACPI tables built byte by byte here, read by `hw::acpi`: what they say, and which
//! rule each broken one breaks. Cut and changed tables: `acpi_hostile.rs`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use std::collections::BTreeMap;

use hw::BusRange;
use hw::acpi::{
    ApicUse, Hpet, InterruptPlan, LocalApic, Madt, MadtEntry, Mcfg, PhysicalMemory, Platform,
    Polarity, RootTable, Rsdp, Rule, Signature, TableError, Trigger,
};
use portcullis_hw as hw;
use tables::{full_dmar, full_ivrs, full_madt, full_srat, hpet, madt, mcfg, rsdp, seal, table};

fn error(table: Signature, offset: u32, rule: Rule) -> TableError {
    TableError {
        table,
        offset,
        rule,
    }
}

#[test]
fn the_root_pointer_is_read_in_both_revisions() {
    let old = Rsdp::parse(&rsdp(0, 0x7fe0_0000, 0)).unwrap();
    assert_eq!(old.root_table(), (0x7fe0_0000, Signature::RSDT));
    let new = Rsdp::parse(&rsdp(2, 0x7fe0_0000, 0x1_2345_6000)).unwrap();
    assert_eq!(new.root_table(), (0x1_2345_6000, Signature::XSDT));
    // Some firmware leaves the XSDT out.
    let none = Rsdp::parse(&rsdp(2, 0x7fe0_0000, 0)).unwrap();
    assert_eq!(none.root_table(), (0x7fe0_0000, Signature::RSDT));
    assert!(Rsdp::parse(&rsdp(0, 0, 0)).is_err());
}

#[test]
fn a_root_pointer_shorter_than_its_revision_is_refused() {
    let mut short = rsdp(2, 0x1000, 0x2000);
    short[20] = 20;
    seal(&mut short, 32);
    let value = 20;
    let field = "length";
    assert_eq!(
        Rsdp::parse(&short),
        Err(error(Signature::RSDP, 20, Rule::BadValue { field, value }))
    );
}

#[test]
fn the_root_pointer_is_found_behind_false_ones() {
    let mut area = vec![0u8; 0x2000];
    area[0x100..0x108].copy_from_slice(b"RSD PTR ");
    // Valid, but not at a multiple of 16.
    area[0x308..0x308 + 20].copy_from_slice(&rsdp(0, 0x1111, 0));
    area[0x1ff0..].copy_from_slice(&rsdp(0, 0x1111, 0)[..16]);
    assert_eq!(Rsdp::find(&area), None);
    area[0x420..0x420 + 36].copy_from_slice(&rsdp(2, 0x2222, 0x3333));
    let (offset, found) = Rsdp::find(&area).unwrap();
    assert_eq!((offset, found.xsdt), (0x420, Some(0x3333)));
    assert_eq!(Rsdp::find(&[]), None);
}

#[test]
fn both_root_tables_list_addresses() {
    let mut body = Vec::new();
    for address in [0x1000u32, 0, 0xffff_f000] {
        body.extend(address.to_le_bytes());
    }
    let bytes = table(b"RSDT", &body);
    let root = RootTable::parse(&bytes, Signature::RSDT).unwrap();
    assert_eq!(root.addresses().collect::<Vec<_>>(), [0x1000, 0xffff_f000]);
    let bytes = table(b"XSDT", &0x1_0000_2000u64.to_le_bytes());
    let root = RootTable::parse(&bytes, Signature::XSDT).unwrap();
    assert_eq!(root.addresses().collect::<Vec<_>>(), [0x1_0000_2000]);
    let odd = table(b"XSDT", &[0; 12]);
    assert!(matches!(
        RootTable::parse(&odd, Signature::XSDT).unwrap_err().rule,
        Rule::BadValue { value: 48, .. }
    ));
}

#[test]
fn ecam_windows_are_read() {
    let bytes = mcfg(&[(0xb000_0000, 0, 0, 255), (0x1_0000_0000, 1, 0x40, 0x7f)]);
    let windows: Vec<_> = Mcfg::parse(&bytes)
        .unwrap()
        .windows()
        .map(Result::unwrap)
        .collect();
    assert_eq!(windows[0].start(), Some(0xb000_0000));
    assert_eq!(windows[0].buses, BusRange::ALL);
    assert_eq!((windows[1].segment, windows[1].len()), (1, 64 << 20));
    assert_eq!(windows[1].start(), Some(0x1_0400_0000));
}

#[test]
fn impossible_ecam_windows_are_errors_by_themselves() {
    let top = 0xffff_ffff_fff0_0000;
    let bytes = mcfg(&[
        (0xb000_0000, 0, 5, 4),
        (0xb000_0001, 0, 0, 255),
        (top, 0, 0, 1),
        (0, 0, 0, 1),
        (0xb000_0000, 0, 0, 0),
    ]);
    let windows: Vec<_> = Mcfg::parse(&bytes).unwrap().windows().collect();
    let bad = |offset, field, value| {
        Err(error(
            Signature::MCFG,
            offset,
            Rule::BadValue { field, value },
        ))
    };
    assert_eq!(windows[0], bad(44, "end bus number", 4));
    assert_eq!(windows[1], bad(60, "base address", 0xb000_0001));
    assert_eq!(windows[2], bad(76, "base address", top));
    assert_eq!(windows[3], bad(92, "base address", 0));
    assert!(windows[4].is_ok());
    let odd = table(b"MCFG", &[0; 8 + 15]);
    assert!(Mcfg::parse(&odd).is_err());
}

#[test]
fn interrupt_controllers_are_read() {
    let bytes = full_madt();
    let madt = Madt::parse(&bytes).unwrap();
    assert!(madt.pc_at_compatible);
    let entries: Vec<_> = madt.entries().map(Result::unwrap).collect();
    let apic = |id, uid, usable| MadtEntry::LocalApic(LocalApic { id, uid, usable });
    assert_eq!(entries[0], apic(0, 0, ApicUse::Enabled));
    assert_eq!(entries[1], apic(2, 1, ApicUse::Disabled));
    assert_eq!(entries[2], apic(4, 2, ApicUse::OnlineCapable));
    assert_eq!(entries[4], apic(0x101, 7, ApicUse::Enabled));
    assert!(
        matches!(entries[5], MadtEntry::IoApic(apic) if apic.id == 8 && apic.address == 0xfec0_0000)
    );
    assert!(matches!(entries[6], MadtEntry::Override(line)
        if line.source == 0 && line.gsi == 2 && line.polarity == Polarity::OfBus && line.trigger == Trigger::OfBus));
    assert!(matches!(entries[7], MadtEntry::Override(line)
        if line.gsi == 9 && line.polarity == Polarity::High && line.trigger == Trigger::Level));
    assert_eq!(entries[8], MadtEntry::Other { kind: 4, length: 6 });
    assert_eq!(entries[9], MadtEntry::LocalApicAddress(0x1_fee0_0000));

    let plan = InterruptPlan::from_bytes(&bytes).unwrap();
    assert_eq!(plan.local_apic_address, 0x1_fee0_0000);
    // Disabled ones are left out, and the second entry for processor 0.
    let ids: Vec<_> = plan.processors.iter().map(|apic| apic.id).collect();
    assert_eq!(ids, [0, 0x101]);
    assert_eq!((plan.io_apics.len(), plan.overrides.len()), (1, 2));
}

#[test]
fn reserved_values_of_overrides_are_errors() {
    for (entry, field, value) in [
        (
            vec![2, 10, 1, 0, 2, 0, 0, 0, 0, 0],
            "bus of an interrupt override",
            1,
        ),
        (vec![2, 10, 0, 0, 2, 0, 0, 0, 2, 0], "polarity", 2),
        (vec![2, 10, 0, 0, 2, 0, 0, 0, 8, 0], "trigger mode", 2),
    ] {
        let refused = error(Signature::APIC, 44, Rule::BadValue { field, value });
        assert_eq!(InterruptPlan::from_bytes(&madt(&[entry])), Err(refused));
    }
}

#[test]
fn the_timer_is_read() {
    let timer = Hpet::parse(&hpet(0, 0xfed0_0000)).unwrap();
    assert_eq!(
        (timer.address, timer.number, timer.comparators),
        (0xfed0_0000, 0, 3)
    );
    assert_eq!(Hpet::parse(&hpet(1, 0xfed0_0000)).unwrap_err().offset, 40);
    assert_eq!(Hpet::parse(&hpet(0, 0)).unwrap_err().offset, 44);
}

/// Physical memory of a few regions.
#[derive(Default)]
struct Memory {
    regions: BTreeMap<u64, Vec<u8>>,
}

impl PhysicalMemory for Memory {
    fn bytes(&mut self, address: u64, length: usize) -> Option<&[u8]> {
        let (start, bytes) = self.regions.range(..=address).next_back()?;
        let from = usize::try_from(address - start).ok()?;
        bytes.get(from..from.checked_add(length)?)
    }
}

fn machine(tables: &[Vec<u8>]) -> (Memory, Rsdp) {
    let mut memory = Memory::default();
    let mut list = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let address = 0x7000_0000 + index as u64 * 0x10_0000;
        list.extend(address.to_le_bytes());
        memory.regions.insert(address, table.clone());
    }
    memory.regions.insert(0x6000_0000, table(b"XSDT", &list));
    (memory, Rsdp::parse(&rsdp(2, 0, 0x6000_0000)).unwrap())
}

#[test]
fn a_platform_is_discovered_from_its_root_pointer() {
    let (mut memory, rsdp) = machine(&[
        table(b"FACP", &[0; 200]),
        full_madt(),
        mcfg(&[(0xb000_0000, 0, 0, 255)]),
        hpet(0, 0xfed0_0000),
        full_dmar(),
        full_srat(),
        // A second of a kind does not count.
        mcfg(&[(0xc000_0000, 0, 0, 255)]),
        full_ivrs(),
    ]);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    let ecam = platform.ecam.unwrap().unwrap();
    assert_eq!((ecam.len(), ecam[0].base), (1, 0xb000_0000));
    let remapping = platform.remapping.unwrap().unwrap();
    assert_eq!(
        (remapping.table, remapping.units.len()),
        (Signature::DMAR, 2)
    );
    assert_eq!(platform.proximity.unwrap().unwrap().devices.len(), 1);
    assert_eq!(platform.interrupts.unwrap().unwrap().processors.len(), 2);
    assert_eq!(platform.hpet.unwrap().unwrap().address, 0xfed0_0000);
}

#[test]
fn units_of_amd_are_discovered_too() {
    let (mut memory, rsdp) = machine(&[full_ivrs(), full_dmar()]);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    let remapping = platform.remapping.unwrap().unwrap();
    assert_eq!(
        (remapping.table, remapping.units.len()),
        (Signature::IVRS, 2)
    );
    assert_eq!(platform.proximity, Ok(None));
}

#[test]
fn a_broken_table_is_not_an_absent_one() {
    let mut broken = full_dmar();
    broken[60] ^= 1;
    let (mut memory, rsdp) = machine(&[broken, mcfg(&[(0xb000_0000, 0, 0, 255)])]);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    assert!(matches!(
        platform.remapping.unwrap_err().rule,
        Rule::Checksum { .. }
    ));
    assert!(platform.ecam.unwrap().is_some());
    assert_eq!(platform.hpet, Ok(None));
}

#[test]
fn tables_that_are_not_in_memory_are_errors() {
    let (mut memory, rsdp) = machine(&[full_dmar()]);
    memory.regions.get_mut(&0x7000_0000).unwrap().truncate(100);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    let address = 0x7000_0000;
    let unreadable = error(Signature::DMAR, 0, Rule::Unreadable { address });
    assert_eq!(platform.remapping, Err(unreadable));
    memory.regions.clear();
    let address = 0x6000_0000;
    let unreadable = error(Signature::XSDT, 0, Rule::Unreadable { address });
    assert_eq!(Platform::discover(&mut memory, &rsdp), Err(unreadable));
}

#[test]
fn a_table_of_gigabytes_is_not_read() {
    let mut huge = full_dmar();
    huge[4..8].copy_from_slice(&0x4000_0000u32.to_le_bytes());
    let (mut memory, rsdp) = machine(&[huge]);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    assert_eq!(platform.remapping.unwrap_err().offset, 4);
}
