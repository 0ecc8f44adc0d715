//! Plans from a DMAR or an IVRS: which unit serves which device, which memory is
//! reserved for whom, with and without the topology of the buses; contradictions.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod tables;

use hw::Sbdf;
use hw::acpi::plan::{
    Access, AtsKind, Claims, MAX_SCOPES, MAX_UNITS, NoTopology, SourceKind, UnitKind, Unserved,
};
use hw::acpi::{BlockKind, IommuPlan, Platform, Rule, Signature, TableError};
use portcullis_hw as hw;
use sim::config::{Bridge, Endpoint, Machine};
use tables::{
    dmar, drhd, entry, full_dmar, full_ivrs, ivhd, ivmd, ivrs, listing, long_entry, rmrr, scope,
};

fn at(text: &str) -> Sbdf {
    text.parse().unwrap()
}

fn bad(table: Signature, offset: u32, field: &'static str, value: u64) -> TableError {
    let rule = Rule::BadValue { field, value };
    TableError {
        table,
        offset,
        rule,
    }
}

/// Root port 00:1c.0 with a switch: 02 is the switch, 03 its inner bus, 04 a device's; and a port
/// without buses.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.add("00:02.0", Endpoint::new(1, 2));
    machine.add("00:1c.0", Bridge::new(0, 2, 8));
    machine.add("02:00.0", Bridge::new(2, 3, 8));
    machine.add("03:02.1", Bridge::new(3, 4, 4));
    machine.add("04:00.0", Endpoint::new(1, 2));
    machine.add("00:1d.0", Bridge::new(0, 0, 0));
    machine
}

#[test]
fn a_plan_outlives_the_table() {
    let plan = IommuPlan::from_bytes(&full_dmar()).unwrap();
    assert_eq!((plan.table, plan.host_address_bits), (Signature::DMAR, 39));
    assert!(plan.interrupt_remapping);
    let units: Vec<_> = plan
        .units
        .iter()
        .map(|unit| (unit.base, unit.size, unit.domain))
        .collect();
    assert_eq!(
        units,
        [(0xfed9_0000, 0x1000, None), (0xfed9_1000, 0x2000, Some(3))]
    );
    assert!(plan.units.iter().all(|unit| unit.kind == UnitKind::Vtd));
    let sources: Vec<_> = plan
        .sources
        .iter()
        .map(|source| {
            (
                source.unit,
                source.kind.clone(),
                plan.source_id(source, &NoTopology),
            )
        })
        .collect();
    assert_eq!(
        sources,
        [
            (1, SourceKind::IoApic(2), Some(at("f0:1f.0"))),
            (1, SourceKind::Hpet(0), Some(at("00:1f.7"))),
            (
                1,
                SourceKind::NameSpace("\\_SB.X".try_into().unwrap()),
                Some(at("00:15.0"))
            ),
        ]
    );
    assert_eq!(
        (plan.reserved[0].base, plan.reserved[0].limit),
        (0x7a00_0000, 0x7a0f_ffff)
    );
    let claims = plan.claims(&NoTopology).unwrap();
    assert_eq!(claims.unit_of(at("00:02.0")).unwrap().unit, 0);
    assert_eq!(claims.unit_of(at("00:03.0")).unwrap().unit, 1);
    assert_eq!(claims.reserved_for(at("00:14.0")).collect::<Vec<_>>(), [0]);
    assert_eq!(claims.reserved_for(at("00:14.1")).count(), 0);
    let ats: Vec<_> = claims.ats_of(&plan, at("00:02.0")).collect();
    assert_eq!(ats, [AtsKind::Required]);
    let other = at("0001:00:03.0");
    assert_eq!(claims.unit_of(other), Err(Unserved::NoUnit(other)));
}

#[test]
fn a_bridge_takes_what_is_behind_it() {
    let bytes = dmar(
        0,
        &[
            drhd(0, 0, 0, 0xfed9_0000, &[scope(2, 0, 0, &[(0x1c, 0)])]),
            drhd(1, 0, 0, 0xfed9_1000, &[]),
            rmrr(
                0x1000,
                0x1fff,
                &[scope(1, 0, 0, &[(0x1c, 0), (0, 0), (2, 1), (0, 0)])],
            ),
            listing(2, 0, 0, &[scope(2, 0, 0, &[(0x1c, 0)])]),
        ],
    );
    let plan = IommuPlan::from_bytes(&bytes).unwrap();
    let claims = plan.claims(&machine()).unwrap();
    assert!(claims.open.is_empty());
    let unit = |text| claims.unit_of(at(text)).unwrap().unit;
    for behind in ["00:1c.0", "02:00.0", "03:02.1", "04:00.0", "08:1f.7"] {
        assert_eq!(unit(behind), 0, "{behind}");
        let ats: Vec<_> = claims.ats_of(&plan, at(behind)).collect();
        assert_eq!(ats, [AtsKind::BehindPort], "{behind}");
    }
    for other in ["00:1c.1", "00:02.0", "09:00.0", "01:00.0"] {
        assert_eq!(unit(other), 1, "{other}");
    }
    assert_eq!(claims.reserved_for(at("04:00.0")).collect::<Vec<_>>(), [0]);

    // Without knowing the buses only the bridge itself is claimed, and the scope is open.
    let claims = plan.claims(&NoTopology).unwrap();
    assert_eq!(claims.open, [0]);
    assert_eq!(claims.unit_of(at("00:1c.0")).unwrap().unit, 0);
    assert_eq!(claims.reserved.len(), 0);
}

#[test]
fn paths_are_followed_through_bridges_only() {
    let machine = machine();
    let resolve = |path: &[(u8, u8)]| {
        let bytes = dmar(0, &[drhd(0, 0, 0, 0xfed9_0000, &[scope(1, 0, 0, path)])]);
        let plan = IommuPlan::from_bytes(&bytes).unwrap();
        let claims = plan.claims(&machine).unwrap();
        let first = claims.units.first();
        first.map(|claim| Sbdf::from_requester_id(0, claim.first))
    };
    assert_eq!(resolve(&[(2, 0)]), Some(at("00:02.0")));
    assert_eq!(
        resolve(&[(0x1c, 0), (0, 0), (2, 1), (0, 0)]),
        Some(at("04:00.0"))
    );
    // A device is no bridge, whatever its register at that place holds; absent; without buses.
    assert_eq!(resolve(&[(2, 0), (0, 0)]), None);
    assert_eq!(resolve(&[(9, 0), (0, 0)]), None);
    assert_eq!(resolve(&[(0x1d, 0), (0, 0)]), None);
}

#[test]
fn a_device_that_two_units_name_is_served_by_neither() {
    let bytes = dmar(
        0,
        &[
            drhd(0, 0, 0, 0xfed9_0000, &[scope(2, 0, 0, &[(0x1c, 0)])]),
            drhd(0, 0, 0, 0xfed9_1000, &[scope(1, 0, 2, &[(0, 0)])]),
        ],
    );
    let plan = IommuPlan::from_bytes(&bytes).unwrap();
    let claims = plan.claims(&machine()).unwrap();
    let both = at("02:00.0");
    let contested = Unserved::Contested {
        at: both,
        first: 0,
        second: 1,
    };
    assert_eq!(claims.unit_of(both), Err(contested));
    assert_eq!(claims.unit_of(at("03:00.0")).unwrap().unit, 0);
    assert_eq!(claims.contested().count(), 1);
    let text = plan.show(&machine()).to_string();
    assert!(
        text.contains("warning: 0000:02:00.0..0000:02:00.0 named by units 0 and 1"),
        "{text}"
    );
}

#[test]
fn contradictions_are_refused() {
    let refused = |bytes: Vec<u8>| IommuPlan::from_bytes(&bytes).unwrap_err();
    let same = drhd(0, 0, 0, 0xfed9_0000, &[]);
    let both = "register base address of two units";
    assert_eq!(
        refused(dmar(0, &[same.clone(), same])),
        bad(Signature::DMAR, 64, both, 0xfed9_0000)
    );
    // The first has eight pages of registers.
    let wide = drhd(0, 3, 0, 0xfed9_0000, &[]);
    assert_eq!(
        refused(dmar(0, &[wide, drhd(0, 0, 0, 0xfed9_7000, &[])])),
        bad(Signature::DMAR, 64, both, 0xfed9_7000)
    );
    let rest = |segment, base| drhd(1, 0, segment, base, &[]);
    assert_eq!(
        refused(dmar(0, &[rest(7, 0xfed9_0000), rest(7, 0xfed9_1000)])),
        bad(
            Signature::DMAR,
            64,
            "segment with two units for all other devices",
            7
        )
    );
    assert!(IommuPlan::from_bytes(&dmar(0, &[rest(0, 0xfed9_0000), rest(1, 0xfed9_1000)])).is_ok());
    for kind in [0, 6] {
        let unknown = drhd(0, 0, 0, 0xfed9_0000, &[scope(kind, 0, 0, &[(1, 0)])]);
        assert_eq!(
            refused(dmar(0, &[unknown])),
            bad(
                Signature::DMAR,
                64,
                "type of a device scope",
                u64::from(kind)
            )
        );
    }
    // An interrupt controller does not use reserved memory.
    let region = rmrr(0x1000, 0x1fff, &[scope(3, 0, 0, &[(1, 0)])]);
    assert_eq!(
        refused(dmar(0, &[region])),
        bad(Signature::DMAR, 72, "type of a device scope", 3)
    );
}

#[test]
fn more_than_is_kept_is_refused() {
    let units: Vec<_> = (0..=MAX_UNITS as u64)
        .map(|n| drhd(0, 0, 0, 0xfed0_0000 + n * 0x1000, &[]))
        .collect();
    let refused = IommuPlan::from_bytes(&dmar(0, &units)).unwrap_err();
    let (what, limit) = ("remapping units", MAX_UNITS as u32);
    assert_eq!(refused.rule, Rule::TooMany { what, limit });
    assert!(IommuPlan::from_bytes(&dmar(0, &units[..MAX_UNITS])).is_ok());
    let many = vec![entry(2, 8, 0); MAX_SCOPES + 1];
    let refused = IommuPlan::from_bytes(&ivrs(&[ivhd(0x10, 2, 0xfd20_0000, 0, &many)]));
    let (what, limit) = ("device scopes of units", MAX_SCOPES as u32);
    assert_eq!(refused.unwrap_err().rule, Rule::TooMany { what, limit });
}

#[test]
fn of_several_blocks_about_a_unit_the_highest_counts() {
    let blocks = |order: [u8; 3]| {
        let blocks = order.map(|kind| {
            let entries = [entry(2, u16::from(kind), 0)];
            ivhd(kind, 2, 0xfd20_0000, 0, &entries)
        });
        IommuPlan::from_bytes(&ivrs(&blocks)).unwrap()
    };
    for order in [[0x10, 0x11, 0x40], [0x40, 0x11, 0x10], [0x11, 0x40, 0x10]] {
        let plan = blocks(order);
        assert_eq!(plan.units.len(), 1);
        let UnitKind::Amdvi(unit) = plan.units[0].kind else {
            unreachable!();
        };
        assert_eq!((unit.form, unit.id, unit.message), (BlockKind::Mixed, 2, 3));
        let claims = plan.claims(&NoTopology).unwrap();
        assert_eq!(claims.units.len(), 1);
        assert_eq!(claims.units[0].first, 0x40);
    }
    let moved = [
        ivhd(0x10, 2, 0xfd20_0000, 0, &[]),
        ivhd(0x11, 2, 0xfd30_0000, 0, &[]),
    ];
    let refused = IommuPlan::from_bytes(&ivrs(&moved)).unwrap_err();
    assert_eq!(
        refused,
        bad(
            Signature::IVRS,
            72,
            "second register base address of a unit",
            0xfd30_0000
        )
    );
}

#[test]
fn ranges_and_aliases_of_amd_are_claims() {
    let entries = [
        entry(3, 0x0008, 0),
        entry(4, 0x00fe, 0),
        long_entry(0x43, 0x0300, 0, [0, 0xa5, 0, 0]),
        entry(4, 0x03ff, 0),
        long_entry(0x46, 0x0010, 0, [0, 0, 0, 0x80]),
    ];
    let plan = IommuPlan::from_bytes(&ivrs(&[ivhd(0x11, 2, 0xfd20_0000, 0, &entries)])).unwrap();
    let claims = plan.claims(&NoTopology).unwrap();
    let served = |text| claims.unit_of(at(text)).map(|served| served.declared);
    assert_eq!(served("00:01.0").unwrap().alias, None);
    assert_eq!(served("03:1f.7").unwrap().alias, Some(0xa5));
    // The later entry says more about a device of the range.
    assert!(served("00:02.0").unwrap().ats_disabled);
    assert!(!served("00:02.1").unwrap().ats_disabled);
    // No unit takes what no entry names.
    for none in ["00:00.0", "00:1f.7", "04:00.0", "0001:00:01.0"] {
        assert!(served(none).is_err(), "{none}");
    }
}

#[test]
fn ranges_that_do_not_pair_are_refused() {
    let start = entry(3, 8, 0);
    let range = "range without an end, from device";
    for (entries, offset, field, value) in [
        (vec![start.clone()], 72, range, 8),
        (
            vec![start.clone(), entry(2, 9, 0), entry(4, 10, 0)],
            72,
            range,
            8,
        ),
        (vec![start.clone(), start.clone()], 72, range, 8),
        (
            vec![entry(4, 9, 0)],
            72,
            "end of a range without a start, at device",
            9,
        ),
        (
            vec![start.clone(), entry(4, 7, 0)],
            76,
            "last device of a range",
            7,
        ),
        (vec![entry(5, 0, 0)], 72, "type of a device entry", 5),
    ] {
        let bytes = ivrs(&[ivhd(0x10, 2, 0xfd20_0000, 0, &entries)]);
        let refused = IommuPlan::from_bytes(&bytes).unwrap_err();
        assert_eq!(refused, bad(Signature::IVRS, offset, field, value));
    }
    let padded = [start, entry(0, 0, 0), entry(4, 8, 0)];
    assert!(IommuPlan::from_bytes(&ivrs(&[ivhd(0x10, 2, 0xfd20_0000, 0, &padded)])).is_ok());
}

#[test]
fn memory_of_amd_is_reserved() {
    let plan = IommuPlan::from_bytes(&full_ivrs()).unwrap();
    let access: Vec<_> = plan.reserved.iter().map(|region| region.access).collect();
    let both = Access::Identity {
        read: true,
        write: true,
    };
    let read_only = Access::Identity {
        read: true,
        write: false,
    };
    assert_eq!(access, [both, Access::Excluded, read_only]);
    let claims = plan.claims(&NoTopology).unwrap();
    let regions = |text| claims.reserved_for(at(text)).collect::<Vec<_>>();
    assert_eq!(regions("00:01.0"), [0]);
    assert_eq!(regions("c4:00.7"), [0, 1]);
    assert_eq!(regions("03:10.0"), [0, 2]);
    let whole = IommuPlan::from_bytes(&ivrs(&[ivmd(0x20, 0, 0, 0, 0, 0x1000)])).unwrap();
    let unused = Access::Identity {
        read: false,
        write: false,
    };
    assert_eq!(whole.reserved[0].access, unused);
}

#[test]
fn sources_of_amd_are_named() {
    let plan = IommuPlan::from_bytes(&full_ivrs()).unwrap();
    let names: Vec<_> = plan
        .sources
        .iter()
        .map(|source| match &source.kind {
            SourceKind::IoApic(id) => format!("ioapic {id:#x}"),
            SourceKind::Hpet(number) => format!("hpet {number}"),
            SourceKind::NameSpace(name) => name.to_string(),
        })
        .collect();
    assert_eq!(
        names,
        ["ioapic 0x20", "hpet 0", "\\_SB.FUR0", "MSFT0201", "PNP0D40"]
    );
    let ids = plan
        .sources
        .iter()
        .map(|source| plan.source_id(source, &NoTopology).unwrap());
    assert_eq!(
        ids.map(Sbdf::requester_id).collect::<Vec<_>>(),
        [0xa0, 0xa0, 0xa5, 0x60, 0xa5]
    );
}

#[test]
fn long_names_keep_their_end() {
    let long = format!("\\{}.LAST", "ABCD.".repeat(20));
    let andd = [&b"\0\0\0\x01"[..], long.as_bytes(), b"\0"].concat();
    let unit = drhd(
        1,
        0,
        0,
        0xfed9_0000,
        &[scope(5, 1, 0, &[(1, 0)]), scope(5, 2, 0, &[(1, 0)])],
    );
    let plan = IommuPlan::from_bytes(&dmar(0, &[unit, tables::remapping(4, &andd)])).unwrap();
    let name = |index: usize| match &plan.sources[index].kind {
        SourceKind::NameSpace(name) => name.to_string(),
        other => unreachable!("{other:?}"),
    };
    assert!(
        long.ends_with(&name(0)) && name(0).len() == 32,
        "{}",
        name(0)
    );
    // Nothing declares number 2.
    assert_eq!(name(1), "");
}

#[test]
fn what_is_kept_fits_the_stack_of_a_root_task() {
    // The root task has 256 KiB, and moves these a few times.
    let sizes = [size_of::<Platform>(), size_of::<Claims>()];
    assert!(sizes.iter().all(|size| *size <= 40 * 1024), "{sizes:?}");
}
