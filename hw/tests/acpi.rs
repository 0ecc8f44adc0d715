//! ACPI tables built byte by byte here, read by `hw::acpi`: what they say, and which
//! rule each broken one breaks. Cut and changed tables: `acpi_hostile.rs`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use std::collections::BTreeMap;

use hw::acpi::{
    ApicUse, Dmar, DmarFlags, Hpet, InterruptPlan, LocalApic, MAX_PATH, Madt, MadtEntry, Mcfg,
    PhysicalMemory, Platform, Polarity, Remapping, RemappingPlan, RootTable, Rsdp, Rule, ScopeKind,
    Signature, TableError, Trigger,
};
use hw::{BusRange, Sbdf};
use portcullis_hw as hw;
use sim::config::{Bridge, Endpoint, Machine};
use tables::{
    dmar, drhd, full_dmar, full_madt, hpet, madt, mcfg, remapping, rmrr, rsdp, scope, seal, table,
};

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
fn remapping_structures_are_read() {
    let bytes = full_dmar();
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.host_address_bits, 39);
    assert_eq!(
        dmar.flags,
        DmarFlags::INTERRUPT_REMAPPING | DmarFlags::X2APIC_OPT_OUT
    );
    let all: Vec<_> = dmar.structures().map(Result::unwrap).collect();
    let [
        Remapping::Drhd(graphics),
        Remapping::Drhd(rest),
        Remapping::Rmrr(region),
        Remapping::Atsr(ports),
        Remapping::Rhsa(domain),
        Remapping::Other {
            kind: 4,
            length: 15,
        },
    ] = all[..]
    else {
        unreachable!("{all:?}");
    };
    assert_eq!(
        (graphics.include_all, graphics.base, graphics.size),
        (false, 0xfed9_0000, 0x1000)
    );
    let scopes: Vec<_> = graphics.scopes().map(Result::unwrap).collect();
    assert_eq!(
        (scopes.len(), scopes[0].kind, scopes[0].bus),
        (1, ScopeKind::Endpoint, 0)
    );
    assert_eq!((rest.include_all, rest.size), (true, 0x2000));
    let kinds: Vec<_> = rest
        .scopes()
        .map(|s| s.unwrap())
        .map(|s| (s.kind, s.enumeration_id))
        .collect();
    assert_eq!(kinds, [(ScopeKind::IoApic, 2), (ScopeKind::Hpet, 0)]);
    assert_eq!((region.base, region.limit), (0x7a00_0000, 0x7a0f_ffff));
    assert_eq!(
        region.scopes().next().unwrap().unwrap().path[0].device,
        0x14
    );
    assert!(!ports.all_ports);
    assert_eq!(
        ports.scopes().next().unwrap().unwrap().kind,
        ScopeKind::Bridge
    );
    assert_eq!((domain.base, domain.domain), (0xfed9_1000, 3));
}

#[test]
fn a_remapping_plan_outlives_the_table() {
    let plan = RemappingPlan::from_bytes(&full_dmar()).unwrap();
    assert_eq!(plan.host_address_bits, 39);
    assert!(plan.interrupt_remapping);
    assert_eq!(plan.units.len(), 2);
    assert_eq!(
        (plan.units[0].domain, plan.units[1].domain),
        (None, Some(3))
    );
    let owners: Vec<_> = plan.unit_scopes.iter().map(|scope| scope.owner).collect();
    assert_eq!(owners, [0, 1, 1]);
    assert_eq!(plan.reserved.len(), 1);
    assert_eq!(plan.reserved_scopes[0].owner, 0);
}

#[test]
fn a_bad_structure_is_an_error_and_the_next_is_read() {
    let bytes = dmar(
        0,
        &[
            drhd(0, 0, 0, 0xfed9_0010, &[]),
            rmrr(0x1000, 0x0fff, &[]),
            rmrr(
                0x1000,
                0x1fff,
                &[scope(1, 0, 0, &[(32, 0)]), scope(1, 0, 0, &[(1, 8)])],
            ),
            remapping(0, &[0; 4]),
            drhd(1, 0, 0, 0xfed9_0000, &[]),
        ],
    );
    let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
    let bad =
        |offset, field, value| error(Signature::DMAR, offset, Rule::BadValue { field, value });
    assert_eq!(all[0], Err(bad(48, "register base address", 0xfed9_0010)));
    assert_eq!(all[1], Err(bad(64, "reserved region's limit", 0x0fff)));
    let Ok(Remapping::Rmrr(region)) = all[2] else {
        unreachable!("{:?}", all[2]);
    };
    let scopes: Vec<_> = region.scopes().collect();
    assert_eq!(scopes[0], Err(bad(112, "device in a path", 32)));
    assert_eq!(scopes[1], Err(bad(120, "function in a path", 8)));
    let short = Rule::RecordTooShort {
        length: 8,
        minimum: 16,
    };
    assert_eq!(all[3], Err(error(Signature::DMAR, 128, short)));
    assert!(matches!(all[4], Ok(Remapping::Drhd(unit)) if unit.include_all));
    assert_eq!(
        RemappingPlan::from_bytes(&bytes),
        Err(bad(48, "register base address", 0xfed9_0010))
    );
}

#[test]
fn records_that_do_not_fit_end_the_iteration() {
    for (length, expected) in [
        (
            0u16,
            Rule::RecordTooShort {
                length: 0,
                minimum: 4,
            },
        ),
        (
            3,
            Rule::RecordTooShort {
                length: 3,
                minimum: 4,
            },
        ),
        (
            0x100,
            Rule::RecordBeyondEnd {
                length: 0x100,
                available: 32,
            },
        ),
    ] {
        let mut broken = drhd(0, 0, 0, 0xfed9_0000, &[]);
        broken[2..4].copy_from_slice(&length.to_le_bytes());
        let bytes = dmar(0, &[broken, drhd(1, 0, 0, 0xfed9_1000, &[])]);
        let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
        assert_eq!(all, [Err(error(Signature::DMAR, 48, expected))]);
    }
    // Bytes left over that are no head.
    let bytes = dmar(0, &[vec![0, 0, 16]]);
    let all: Vec<_> = Dmar::parse(&bytes).unwrap().structures().collect();
    let rule = Rule::RecordBeyondEnd {
        length: 4,
        available: 3,
    };
    assert_eq!(all, [Err(error(Signature::DMAR, 48, rule))]);
}

#[test]
fn scopes_are_checked() {
    let unit = |scope: Vec<u8>| {
        let bytes = dmar(0, &[drhd(0, 0, 0, 0xfed9_0000, &[scope])]);
        RemappingPlan::from_bytes(&bytes).map(|plan| plan.unit_scopes[0].scope.clone())
    };
    let path = [(1, 0); MAX_PATH];
    assert_eq!(unit(scope(2, 0, 0, &path)).unwrap().path.len(), MAX_PATH);
    let (what, limit) = ("steps in a path", MAX_PATH as u32);
    let long = [(1, 0); MAX_PATH + 1];
    let too_many = error(Signature::DMAR, 64, Rule::TooMany { what, limit });
    assert_eq!(unit(scope(2, 0, 0, &long)), Err(too_many));
    let (field, value) = ("length of a device scope", 6);
    let no_path = error(Signature::DMAR, 64, Rule::BadValue { field, value });
    assert_eq!(unit(scope(1, 0, 0, &[])), Err(no_path));
    let other = unit(scope(9, 0, 0, &[(1, 0)])).unwrap();
    assert_eq!(other.kind, ScopeKind::Other(9));
}

#[test]
fn paths_are_followed_through_bridges() {
    let mut machine = Machine::new();
    machine.add("00:1c.0", Bridge::new(0, 3, 8));
    machine.add("03:02.1", Bridge::new(3, 5, 5));
    machine.add("05:00.0", Endpoint::new(1, 2));
    machine.add("00:1d.0", Bridge::new(0, 0, 0));
    let resolve = |path: &[(u8, u8)]| {
        let bytes = dmar(0, &[drhd(0, 0, 0, 0xfed9_0000, &[scope(1, 0, 0, path)])]);
        let plan = RemappingPlan::from_bytes(&bytes).unwrap();
        plan.unit_scopes[0].scope.resolve(&machine, 0)
    };
    let at = |text: &str| text.parse::<Sbdf>().ok();
    assert_eq!(resolve(&[(2, 0)]), at("00:02.0"));
    assert_eq!(resolve(&[(0x1c, 0), (2, 1), (0, 0)]), at("05:00.0"));
    assert_eq!(resolve(&[(0x1d, 0), (0, 0)]), None);
}

#[test]
fn more_units_than_are_kept_is_an_error() {
    let units: Vec<_> = (0..33)
        .map(|n| drhd(0, 0, 0, 0xfed9_0000 + n * 0x1000, &[]))
        .collect();
    let (what, limit) = ("remapping units", 32);
    let full = error(Signature::DMAR, 0, Rule::TooMany { what, limit });
    assert_eq!(RemappingPlan::from_bytes(&dmar(0, &units)), Err(full));
    assert!(RemappingPlan::from_bytes(&dmar(0, &units[..32])).is_ok());
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
        // A second of a kind does not count.
        mcfg(&[(0xc000_0000, 0, 0, 255)]),
    ]);
    let platform = Platform::discover(&mut memory, &rsdp).unwrap();
    let ecam = platform.ecam.unwrap().unwrap();
    assert_eq!((ecam.len(), ecam[0].base), (1, 0xb000_0000));
    assert_eq!(platform.remapping.unwrap().unwrap().units.len(), 2);
    assert_eq!(platform.interrupts.unwrap().unwrap().processors.len(), 2);
    assert_eq!(platform.hpet.unwrap().unwrap().address, 0xfed0_0000);
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
