//! Machines of other kinds: configuration space through ports, several remapping units, reserved regions.

use super::*;
use crate::distribution;
use crate::facts::{Configuration, Unit};
use crate::shards::tests::unit;
use hw::Sbdf;
use system::info::{IommuInfo, PciInfo, Reserved, Scope};
use system::model::IommuChoice;

/// The plan of this machine, what the iommu-server is told and what each shard is.
fn told(machine: &Machine, system: &System) -> Result<(Plan, IommuInfo, Vec<PciInfo>), PlanError> {
    with(machine, system, |inputs| {
        let plan = Plan::make(inputs)?;
        assert_eq!(distribution::check(&plan), Ok(()));
        let role = |number| plan.info(inputs, plan.pd(number).unwrap()).unwrap().role;
        let Role::Iommu(iommu) = role(3) else {
            panic!()
        };
        let shards = (0..plan.shards.len() as u16).map(|shard| match role(PCI0 + shard) {
            Role::Pci(pci) => pci,
            _ => panic!(),
        });
        let shards = shards.collect();
        Ok((plan, iommu, shards))
    })
}

fn scoped(kind: IommuChoice, base: u64, scopes: &[Scope]) -> Unit {
    Unit {
        kind,
        include_all: false,
        scopes: scopes.to_vec(),
        ..unit(base)
    }
}

#[test]
fn configuration_space_through_ports_has_one_owner() {
    let mut machine = q35(hosts());
    machine.configuration = Configuration::Ports;
    let mut wanted = system(&clients());
    wanted.shards.pci = 2;
    let (plan, _, shards) = told(&machine, &wanted).unwrap();
    let [shard] = &shards[..] else {
        panic!("{} shards", shards.len())
    };
    let ports = Cap::Ports {
        first: 0xcf8,
        last: 0xcff,
    };
    assert_eq!(cap(&plan, PCI0, shard.config_ports.into()), Some(ports));
    let [window] = &shard.ecam[..] else { panic!() };
    assert_eq!(
        (window.segment, window.first_bus, window.last_bus),
        (0, 0, 255)
    );
    let holders = plan
        .pds
        .iter()
        .filter(|pd| pd.grants.iter().any(|grant| grant.cap == ports));
    assert_eq!(holders.count(), 1);
    // What firmware says of memory-mapped configuration space is still no memory of devices.
    let ecam = Region::sized(0xb000_0000, 256 << 20).unwrap();
    let ecam: RegionSet = [ecam].into_iter().collect();
    assert!(plan.shards[0].memory.intersection(&ecam).is_empty());
    assert!(
        plan.wants
            .iter()
            .all(|want| want.region.start() != 0xb000_0000)
    );
}

#[test]
fn without_ports_nobody_has_them() {
    let (plan, _, shards) = told(&q35(hosts()), &system(&clients())).unwrap();
    assert!(shards.iter().all(|shard| shard.config_ports == 0));
    let ports = plan
        .pds
        .iter()
        .flat_map(|pd| &pd.grants)
        .filter_map(|grant| match grant.cap {
            Cap::Ports { first, last } => Some((first, last)),
            _ => None,
        });
    assert_eq!(ports.collect::<Vec<_>>(), [(0x3f8, 0x3ff)]);
}

#[test]
fn units_are_told_with_their_devices_and_regions() {
    let mut machine = q35(hosts());
    let graphics = [Scope::Function(0x10)];
    machine.units = vec![
        scoped(IommuChoice::Vtd, 0xfed9_0000, &graphics),
        Unit {
            include_all: true,
            ..scoped(
                IommuChoice::Vtd,
                0xfed9_1000,
                &[Scope::IoApic {
                    id: 2,
                    requester: 0xf0f8,
                }],
            )
        },
    ];
    let region = Reserved {
        segment: 0,
        base: 0x7b00_0000,
        last: 0x7b7f_ffff,
        used: system::info::ReservedUse::Read,
        scopes: graphics.into_iter().collect(),
    };
    machine.reserved = vec![region.clone()];
    let alias = system::info::AliasRange {
        segment: 0,
        first: 0x300,
        last: 0x3ff,
        alias: 0x300,
    };
    machine.aliases = vec![alias];
    let (_, iommu, _) = told(&machine, &system(&clients())).unwrap();
    let [first, second] = &iommu.units[..] else {
        panic!()
    };
    assert_eq!(iommu.aliases[..], [alias]);
    assert_eq!(
        (first.include_all, &first.scopes[..]),
        (false, &graphics[..])
    );
    assert_eq!((second.include_all, second.scopes.len()), (true, 1));
    assert_ne!(first.irq_data, second.irq_data);
    assert_eq!(iommu.reserved[..], [region]);
}

#[test]
fn the_description_chooses_among_the_kinds_of_units() {
    let mut machine = q35(hosts());
    let amd = Unit {
        function: Some(Sbdf::from_requester_id(0, 2)),
        ..scoped(IommuChoice::AmdVi, 0xfed8_0000, &[Scope::Buses(0, 255)])
    };
    machine.units = vec![amd];
    let mut wanted = system(&clients());
    for choice in [IommuChoice::Auto, IommuChoice::AmdVi] {
        wanted.iommu = choice;
        let (_, iommu, shards) = told(&machine, &wanted).unwrap();
        assert_eq!(iommu.units[0].kind, IommuChoice::AmdVi);
        assert_eq!(iommu.units[0].scopes[..], [Scope::Buses(0, 255)]);
        let unit = &iommu.units[0];
        let [message] = shards[0].unit_messages[..] else {
            panic!()
        };
        assert_eq!(
            message.device, 2,
            "its function's shard sets its message up"
        );
        assert_eq!(
            (message.address, message.data),
            (unit.irq_address, unit.irq_data)
        );
        assert!(
            shards[1..]
                .iter()
                .all(|shard| shard.unit_messages.is_empty())
        );
        for shard in shards {
            assert!(shard.iommu_present);
            assert_eq!(
                shard.withheld[..],
                [DeviceMatch::Address(2)],
                "the unit's own function"
            );
        }
    }
    wanted.iommu = IommuChoice::None;
    let (_, iommu, shards) = told(&machine, &wanted).unwrap();
    assert!(iommu.units.is_empty() && !shards[0].iommu_present);
    // Without a unit that it knows the kernel's driver is off.
    wanted.iommu = IommuChoice::Kernel;
    let error = told(&machine, &wanted).unwrap_err();
    assert_eq!(error, PlanError::Policy(PolicyError::NoKernelIommu));
    wanted.iommu = IommuChoice::Vtd;
    let error = told(&machine, &wanted).unwrap_err();
    assert_eq!(error, PlanError::Policy(PolicyError::NoVtd));
}

#[test]
fn each_shard_is_told_the_domains_of_its_own_host_bridges() {
    let mut hosts = hosts();
    hosts[0].proximity = Some(0);
    hosts[1].proximity = Some(3);
    let machine = q35(hosts);
    let (_, _, shards) = told(&machine, &system(&clients())).unwrap();
    assert_eq!(shards[0].proximity[..], [(0, 0x7f, 0)]);
    assert_eq!(shards[1].proximity[..], [(0x80, 255, 3)]);
    let mut one = system(&clients());
    one.shards.pci = 1;
    let (_, _, shards) = told(&machine, &one).unwrap();
    assert_eq!(shards[0].proximity[..], [(0, 0x7f, 0), (0x80, 255, 3)]);
}

#[test]
fn the_kernels_io_spaces_go_to_the_iommu_server_alone() {
    let mut machine = q35(hosts());
    machine.kernel_iommu_levels = 3;
    let mut wanted = system(&clients());
    wanted.iommu = IommuChoice::Kernel;
    let (plan, iommu, shards) = told(&machine, &wanted).unwrap();
    assert!(iommu.units.is_empty());
    let spaces = iommu.io_space.unwrap();
    assert_eq!(cap(&plan, 3, spaces.master.into()), Some(Cap::IoSpace));
    let tables = cap(&plan, 3, spaces.tables.slot.into());
    let block = plan.iommu_tables.block;
    assert!(matches!(tables, Some(Cap::Untyped { slot, .. }) if slot == block.slot));
    assert_eq!(
        (spaces.tables.base, spaces.tables.bits),
        (block.base, block.bits)
    );
    // The kernel makes tables of it: it is mapped nowhere, and is no memory for buffers.
    assert_eq!((plan.iommu_tables.frames, iommu.tables_vaddr), (0, 0));
    assert!(
        iommu
            .pool
            .iter()
            .all(|piece| piece.slot != spaces.tables.slot)
    );
    assert!(shards.iter().all(|shard| shard.iommu_present));
    let holders = plan
        .pds
        .iter()
        .filter(|pd| pd.grants.iter().any(|grant| grant.cap == Cap::IoSpace));
    assert_eq!(holders.count(), 1);
}
