//! Plans for sample machines: everything is where the layout says, nothing overlaps, and what each
//! PD is told agrees with what it is given.

mod channels;
mod limits;
mod platform;
mod privileges;

use super::*;
use crate::facts::Host;
use crate::image::Access;
use crate::image::tests::elf;
use crate::objects::tests::size_of;
use crate::policy::tests::{client, system};
use crate::region::RegionSet;
use crate::shards::tests::{host, q35};
use alloc::collections::BTreeSet;
use alloc::vec;
use system::info::{PdInfo, Role};
use system::layout::{MAX_SHARDS, event, priority, slot, va};
use system::model::DeviceMatch;

/// Number of the first pci-server shard: after console, timer, iommu and one msi shard.
pub(crate) const PCI0: u16 = 5;

struct OneProgram(Vec<u8>);

impl ProgramSource for OneProgram {
    fn find(&self, name: &str) -> Option<&[u8]> {
        (name != "missing").then_some(&self.0)
    }
}

fn program() -> OneProgram {
    OneProgram(elf(
        0x40_1000,
        &[
            (4, 0x40_0000, 0x1000, vec![1; 0x1000]),
            (5, 0x40_1000, 0x3800, vec![2; 0x3800]),
            (6, 0x40_5000, 0x9_0000, vec![3; 0x100]),
        ],
    ))
}

pub(crate) const KERNEL: Kernel = Kernel {
    size_of,
    fan_out: 256,
    abi_fingerprint: 5,
    cpu_vector_base: 0x30,
};

fn clients() -> Vec<system::model::Client> {
    let at_80 = DeviceMatch::Address(0x8000);
    let edu = DeviceMatch::Ids {
        vendor: 0x1234,
        device: 0x11e8,
    };
    let mut quiet = client("quiet", &[]);
    quiet.dma_quota = 0;
    quiet.vectors = 0;
    vec![client("edu", &[edu]), client("far", &[at_80]), quiet]
}

fn hosts() -> Vec<Host> {
    vec![
        host(
            0,
            0x7f,
            &[(0xfebf_0000, 0xfebf_1000), (0xfeb0_0000, 0xfeb1_0000)],
        ),
        host(0x80, 255, &[(0xfe80_0000, 0xfea0_0000)]),
    ]
}

fn with<T>(machine: &Machine, system: &System, use_it: impl FnOnce(&Inputs<'_>) -> T) -> T {
    let programs = program();
    use_it(&Inputs {
        machine,
        system,
        programs: &programs,
        reserved: &[],
        kernel: KERNEL,
    })
}

pub(crate) fn two_shards() -> Plan {
    with(&q35(hosts()), &system(&clients()), |inputs| {
        Plan::make(inputs).unwrap()
    })
}

/// Every retype of the plan, by the untyped it cuts, in order.
fn execute(machine: &Machine, plan: &Plan) -> BTreeSet<u32> {
    let mut occupied = BTreeSet::new();
    let mut watermarks: Vec<(u32, u64, u64)> = machine
        .untypeds
        .iter()
        .map(|u| (u.slot, u.base, u.base + (1 << u.bits)))
        .collect();
    for cut in plan.device_cuts.iter().chain(&plan.ram_cuts) {
        let (_, at, end) = watermarks
            .iter_mut()
            .find(|(slot, ..)| *slot == cut.from)
            .unwrap();
        assert_eq!(*at, cut.base, "{cut:?}");
        *at += u64::from(cut.count) << cut.piece.bits();
        assert!(*at <= *end, "{cut:?}");
        for slot in cut.slot..cut.slot + cut.count {
            assert!(occupied.insert(slot), "slot {slot} is used twice");
        }
    }
    occupied
}

#[test]
fn every_slot_of_the_root_task_is_used_once() {
    let machine = q35(hosts());
    let plan = two_shards();
    let mut occupied = execute(&machine, &plan);
    let mut take = |first: u32, count: u32| {
        for slot in first..first + count {
            assert!(occupied.insert(slot), "slot {slot} is used twice");
        }
    };
    for run in plan.pds.iter().flat_map(|pd| &pd.layout.runs) {
        take(run.slot, run.count);
    }
    take(plan.rings.frames, plan.rings.count * 4);
    take(plan.rings.copies, plan.rings.count * 4);
    take(plan.iommu_tables.slot, plan.iommu_tables.frames);
    plan.irqs.iter().for_each(|irq| take(irq.slot, 1));
    let masters = plan.pds.iter().flat_map(|pd| pd.masters());
    masters.for_each(|(slot, _)| take(slot, 1));
    let (next, end) = plan.slots_left;
    assert!(
        *occupied.first().unwrap() >= machine.empty_slots.0
            && *occupied.last().unwrap() < next
            && next < end
    );
    assert_eq!(
        occupied.len() as u32,
        next - machine.empty_slots.0,
        "slots were left out"
    );
}

#[test]
fn blocks_hold_their_objects_and_lie_apart() {
    let plan = two_shards();
    let mut memory = RegionSet::new();
    let mut bytes = 0;
    let all = plan
        .pds
        .iter()
        .map(|pd| pd.block)
        .chain(plan.pool.iter().copied());
    for block in all.chain([plan.rings.block, plan.iommu_tables.block]) {
        memory.insert(Region::sized(block.base, 1 << block.bits).unwrap());
        bytes += 1u64 << block.bits;
    }
    assert_eq!(memory.bytes(), bytes, "two blocks overlap");
    assert!(q35(hosts()).ram().intersection(&memory) == memory);
    for pd in &plan.pds {
        let need: u64 = pd
            .layout
            .runs
            .iter()
            .map(|run| u64::from(run.count) << size_of(run.kind))
            .sum();
        assert!(need <= 1 << pd.block.bits, "{} needs {need:#x}", pd.name);
        assert_eq!(pd.block.bits, pd.layout.bits);
    }
    assert_eq!(
        plan.pool
            .iter()
            .map(|block| 1u64 << block.bits)
            .sum::<u64>(),
        32 << 20
    );
    assert!(plan.pool.is_sorted_by_key(|block| block.base));
}

#[test]
fn address_spaces_follow_the_layout_and_have_all_tables() {
    let plan = two_shards();
    for pd in &plan.pds {
        let runs = pd
            .runs
            .iter()
            .map(|run| Region::sized(run.vaddr, u64::from(run.pages) * 4096).unwrap());
        let foreign = pd
            .mappings
            .iter()
            .map(|mapping| Region::sized(mapping.vaddr, mapping.bytes).unwrap());
        let mut mapped = RegionSet::new();
        let mut bytes = 0;
        for region in runs.chain(foreign) {
            mapped.insert(region);
            bytes += region.bytes();
            for gib in (region.start() >> 30)..=((region.end() - 1) >> 30) {
                assert!(
                    pd.tables.directories.contains(&(gib << 30)),
                    "{}: no directory for {region}",
                    pd.name
                );
            }
        }
        assert_eq!(mapped.bytes(), bytes, "{}: two mappings overlap", pd.name);
        let page = |at| mapped.covers(Region::sized(at, 4096).unwrap());
        assert!(
            page(va::INFO)
                && page(va::IPC_BUFFER)
                && page(va::LOG_RING)
                && page(va::STACK_TOP - 4096)
        );
        let guard = pd.stack_guard().unwrap();
        assert!(
            mapped.covers(Region::new(guard.end(), va::STACK_TOP).unwrap()),
            "the stack has a hole"
        );
        assert!(
            mapped
                .intersection(&[guard].into_iter().collect())
                .is_empty(),
            "{}: no guard page",
            pd.name
        );
        for run in &pd.runs {
            assert!(
                pd.tables.tables.contains(&(run.vaddr & !0x1f_ffff)),
                "{}: no page table",
                pd.name
            );
            let exec = run.access == Access::ReadExecute;
            assert_eq!(exec, run.vaddr == 0x40_1000, "{}: {run:?}", pd.name);
        }
        let small = matches!(pd.kind, Kind::Client(_) | Kind::Pci(_));
        let has = (va::SMALL..va::SMALL + va::SMALL_BYTES)
            .step_by(2 << 20)
            .all(|at| pd.tables.tables.contains(&at));
        assert_eq!(has, small, "{}", pd.name);
        let frames: u32 = pd.runs.iter().map(|run| run.pages).sum();
        assert_eq!(
            pd.layout.run(crate::objects::Part::Frames).unwrap().count,
            frames
        );
    }
}

fn info(plan: &Plan, number: u16) -> Box<PdInfo> {
    with(&q35(hosts()), &system(&clients()), |inputs| {
        plan.info(inputs, plan.pd(number).unwrap()).unwrap()
    })
}
use alloc::boxed::Box;

/// The capability in a slot of a PD.
fn cap(plan: &Plan, number: u16, slot: u64) -> Option<Cap> {
    let grants = &plan.pd(number).unwrap().grants;
    grants
        .iter()
        .find(|grant| u64::from(grant.slot) == slot)
        .map(|grant| grant.cap)
}

#[test]
fn a_shard_is_told_exactly_what_it_is_given() {
    let plan = two_shards();
    for shard in [0u8, 1] {
        let number = PCI0 + u16::from(shard);
        let info = info(&plan, number);
        let Role::Pci(pci) = &info.role else { panic!() };
        assert_eq!(
            (pci.shard, pci.iommu_present, pci.msi_shard),
            (shard, true, 0)
        );
        let mut memory = RegionSet::new();
        for piece in &pci.mmio {
            let region = Region::sized(piece.base, 1 << piece.bits).unwrap();
            let Some(Cap::Untyped { region: given, .. }) = cap(&plan, number, piece.slot.into())
            else {
                panic!()
            };
            assert_eq!(given, region);
            memory.insert(region);
        }
        assert_eq!(memory, plan.shards[usize::from(shard)].memory);
        assert!(pci.mmio.is_sorted_by_key(|piece| piece.base));
        let ecam = pci.ecam[0];
        assert_eq!(ecam.paddr, 0xb000_0000 + (u64::from(ecam.first_bus) << 20));
        assert_eq!(
            ecam.vaddr % (2 << 20),
            ecam.paddr % (2 << 20),
            "large pages would not fit"
        );
        let done = Cap::Signal {
            of: 0,
            flags: event::SHARD_DONE << shard,
        };
        assert_eq!(cap(&plan, number, pci.done.into()), Some(done));
        assert_eq!(info.clients.len(), 3);
        for (id, entry) in info.clients.iter().enumerate() {
            let of = plan.client(id as u16).unwrap().number;
            assert_eq!(
                cap(&plan, number, entry.window.into()),
                Some(Cap::Window { of })
            );
            assert_eq!(
                cap(&plan, number, entry.events.into()),
                Some(Cap::Signal {
                    of,
                    flags: event::DEVICE
                })
            );
        }
        assert_eq!(info.free_slots.first + info.free_slots.count, 1 << 14);
        assert!(
            plan.pd(number)
                .unwrap()
                .grants
                .iter()
                .all(|grant| grant.slot < info.free_slots.first)
        );
    }
}

#[test]
fn the_iommu_server_gets_units_pool_and_contiguous_tables() {
    let plan = two_shards();
    let info = info(&plan, 3);
    let Role::Iommu(iommu) = &info.role else {
        panic!()
    };
    let unit = &iommu.units[0];
    assert_eq!(
        (unit.paddr, unit.irq_address, unit.irq_data),
        (0xfed9_0000, 0xfee0_0000, 107 + 0x30)
    );
    assert_eq!(cap(&plan, 3, unit.irq_handler.into()), Some(Cap::Irq(0)));
    assert_eq!(
        (plan.irqs[0].vector, plan.irqs[0].pd, plan.irqs[0].flags),
        (107, 3, event::INTERRUPT)
    );
    assert_eq!(iommu.tables_paddr, plan.iommu_tables.block.base);
    assert_eq!(
        (plan.iommu_tables.frames, plan.iommu_tables.frame_bits),
        (4, 21)
    );
    assert_eq!(iommu.shard_buses[..], [(0, 0, 0x7f), (0, 0x80, 255)]);
    assert_eq!(
        iommu
            .pool
            .iter()
            .map(|piece| 1u64 << piece.bits)
            .sum::<u64>(),
        32 << 20
    );
}

#[test]
fn the_only_unit_of_a_segment_takes_all_devices() {
    let mut machine = q35(hosts());
    let takes_all = |machine: &Machine| -> Vec<bool> {
        with(machine, &system(&clients()), |inputs| {
            let plan = Plan::make(inputs).unwrap();
            let info = plan.info(inputs, plan.pd(3).unwrap()).unwrap();
            let Role::Iommu(iommu) = &info.role else {
                panic!()
            };
            iommu.units.iter().map(|unit| unit.include_all).collect()
        })
    };
    machine.units[0].include_all = false;
    assert_eq!(takes_all(&machine), [true]);
    machine.units.push(crate::facts::Unit {
        base: 0xfed9_1000,
        ..machine.units[0].clone()
    });
    assert_eq!(takes_all(&machine), [false, false]);
    machine.units[1].segment = 1;
    assert_eq!(takes_all(&machine), [true, true]);
}

#[test]
fn vectors_are_shared_out_below_those_of_servers() {
    let plan = two_shards();
    assert_eq!((plan.irqs[1].vector, plan.irqs[1].pd), (106, pd::TIMER));
    let of_ports = |index: usize| (plan.irqs[index].vector, plan.irqs[index].pd);
    assert_eq!((of_ports(2), of_ports(3)), ((105, PCI0), (104, PCI0 + 1)));
    assert_eq!(plan.vectors_of(1, 0), (0, 104));
    let shares: Vec<_> = (0..4).map(|shard| plan.vectors_of(4, shard)).collect();
    assert_eq!(shares, vec![(0, 24), (24, 24), (48, 24), (72, 24)]);
    let Role::Msi(msi) = &info(&plan, 4).role else {
        panic!()
    };
    assert_eq!(
        (
            msi.first_vector,
            msi.vectors,
            msi.cpu_vector_base,
            msi.apic_ids.first().copied(),
            cap(&plan, 4, u64::from(msi.handlers) + 103)
        ),
        (0, 104, 0x30, Some(0), Some(Cap::Vector(103)))
    );
    assert_eq!(msi.server_vectors, [107, 106, 105, 104]);
    assert_eq!(cap(&plan, 4, slot::IRQ), None);
}

#[test]
fn a_client_reaches_only_the_shards_that_its_rules_can_mean() {
    let plan = two_shards();
    let number = |id| plan.client(id).unwrap().number;
    let shards = |id| -> Vec<bool> {
        (0..MAX_SHARDS as u64)
            .map(|n| cap(&plan, number(id), slot::PCI + n).is_some())
            .take(2)
            .collect()
    };
    assert_eq!(shards(0), [true, true], "ids can be anywhere");
    assert_eq!(shards(1), [false, true], "an address is in one shard");
    assert_eq!(shards(2), [false, false], "no devices, no shard");
    assert_eq!(cap(&plan, number(2), slot::IOMMU), None);
    assert_eq!(cap(&plan, number(2), slot::MSI), None);
    let Role::Client(far) = &info(&plan, number(1)).role else {
        panic!()
    };
    assert_eq!(far.pci[..], [(1, 0, 0x80, 255)]);
    let known = (far.client, far.iommu, far.pds.len());
    assert_eq!(known, (1, Some(0), plan.pds.len()));
    let Role::Client(quiet) = &info(&plan, number(2)).role else {
        panic!()
    };
    assert_eq!((quiet.pci.len(), quiet.iommu), (0, None));
}

#[test]
fn services_know_everybody_by_number() {
    let plan = two_shards();
    let Role::Console(console) = &info(&plan, pd::CONSOLE).role else {
        panic!()
    };
    assert_eq!(console.names.len(), plan.pds.len() + 1);
    assert_eq!(
        (console.names[0].as_str(), console.names[5].as_str()),
        ("root", "pci-server-0")
    );
    let Role::Timer(timer) = &info(&plan, pd::TIMER).role else {
        panic!()
    };
    for pd in &plan.pds {
        let signal = timer.signals[usize::from(pd.number)];
        let expected = (pd.number > pd::TIMER).then_some(Cap::Signal {
            of: pd.number,
            flags: event::TIMER,
        });
        assert_eq!(
            if signal == 0 {
                None
            } else {
                cap(&plan, pd::TIMER, signal.into())
            },
            expected
        );
    }
    let alarm = cap(
        &plan,
        pd::TIMER,
        timer.signals[usize::from(pd::ROOT)].into(),
    );
    assert_eq!(
        alarm,
        Some(Cap::Alarm),
        "in a test servers are killed by it"
    );
    assert_eq!(plan.pd(pd::TIMER).unwrap().priority, priority::TIMER);
}
