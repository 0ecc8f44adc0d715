//! Several units in one machine: which takes which device's requests.

use hw::Sbdf;
use ipc_proto::{Access, ClientId};
use sim::vtd::{Dma, Memory, Model, Vtd};
use system::info::Scope;

use super::kernel::forever;
use super::machine::{MESSAGE, OPTIONS, TABLES, TestTables, TestVtd, device, dirty_tables, small};
use crate::vtd::{self, UnitSetup};
use crate::{Backend, BackendError, DeviceCache, InterruptMessage};

const IOVA: u64 = 0x10_0000;

struct Units {
    units: std::vec::Vec<Vtd>,
    vtd: TestVtd,
}

/// Units of (segment, takes the rest, scopes).
fn units(plan: &[(u16, bool, &[Scope])]) -> Units {
    let memory = Memory::new();
    dirty_tables(&memory, 64);
    let units: std::vec::Vec<Vtd> = plan
        .iter()
        .map(|_| Vtd::new(Model::QEMU, memory.clone()))
        .collect();
    let tables = TestTables { memory, pages: 256 };
    let setups = units
        .iter()
        .zip(plan)
        .map(|(unit, (segment, include_all, scopes))| UnitSetup {
            window: unit.clone(),
            segment: *segment,
            include_all: *include_all,
            scopes,
            message: MESSAGE,
        });
    let vtd = vtd::Vtd::start(
        forever(vtd::Storage::new()),
        tables,
        TABLES,
        setups,
        &OPTIONS,
    );
    Units { units, vtd }
}

/// As in many machines: graphics have a unit of their own, a root port's buses another.
fn usual() -> Units {
    units(&[
        (0, false, &[Scope::Function(0x10)]),
        (0, false, &[Scope::Buses(3, 5), Scope::Function(0x99)]),
        (
            0,
            true,
            &[
                Scope::IoApic {
                    id: 2,
                    requester: 0xf0f8,
                },
                Scope::Hpet {
                    id: 0,
                    requester: 0xf0f9,
                },
            ],
        ),
        (1, true, &[]),
    ])
}

#[test]
fn a_device_belongs_to_the_unit_that_names_it() {
    let Units { vtd, .. } = usual();
    for (bits, unit) in [
        (0x10, Some(0)),
        (0x18, Some(2)),
        (0x99, Some(1)),
        (0x98, Some(2)),
        (0x300, Some(1)),
        (0x5ff, Some(1)),
        (0x600, Some(2)),
        (0x200, Some(2)),
        (0xf0f8, Some(2)),
        (0x1_0010, Some(3)),
        (0x1_0300, Some(3)),
        (0x2_0010, None),
    ] {
        assert_eq!(vtd.unit_of(device(bits)), unit, "{bits:#x}");
    }
}

#[test]
fn a_function_counts_more_than_a_bus_and_order_does_not() {
    let bus: &[Scope] = &[Scope::Buses(3, 3)];
    let function: &[Scope] = &[Scope::Function(0x308)];
    for plan in [
        [(0, false, bus), (0, false, function), (0, true, &[])],
        [(0, true, &[]), (0, false, function), (0, false, bus)],
    ] {
        let Units { vtd, .. } = units(&plan);
        let named = |wanted: &[Scope]| plan.iter().position(|(_, _, scopes)| *scopes == wanted);
        assert_eq!(vtd.unit_of(device(0x308)), named(function));
        assert_eq!(vtd.unit_of(device(0x300)), named(bus));
        assert_eq!(vtd.unit_of(device(0x18)), named(&[]));
    }
}

#[test]
fn a_device_that_no_unit_takes_is_refused() {
    let Units { mut vtd, .. } = units(&[(0, false, &[Scope::Function(0x10)])]);
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    assert_eq!(vtd.properties(device(0x18), DeviceCache::None), None);
    assert_eq!(
        vtd.attach(device(0x18), domain, DeviceCache::None),
        Err(BackendError::NoUnit)
    );
    let message = InterruptMessage {
        address: 0xfee0_0000,
        data: 0x41,
    };
    assert_eq!(
        vtd.remap(device(0x18), &[], message, 1),
        Err(BackendError::NoUnit)
    );
}

#[test]
fn each_units_tables_are_its_own_and_a_domain_spans_them() {
    let Units { units, mut vtd } = usual();
    let (one, other) = (device(0x10), device(0x300));
    let domain = vtd.create_domain(ClientId(0)).unwrap();
    vtd.attach(one, domain, DeviceCache::None).unwrap();
    vtd.attach(other, domain, DeviceCache::None).unwrap();
    vtd.map(domain, IOVA, &[small(0x5000, 1)], Access::ReadWrite)
        .unwrap();
    let reached = |unit: usize, of: Sbdf| units[unit].dma(of.requester_id(), IOVA, Dma::Write).ok();
    assert_eq!(reached(0, one), Some(0x5000));
    assert_eq!(reached(1, other), Some(0x5000));
    // A unit that sees a requester which is another's blocks it.
    for (unit, stranger) in [(1, one), (2, one), (0, other), (2, other)] {
        assert_eq!(reached(unit, stranger), None);
    }
    vtd.unmap(domain, IOVA, 0x1000).unwrap();
    assert_eq!((reached(0, one), reached(1, other)), (None, None));
    vtd.detach(one, domain).unwrap();
    vtd.detach(other, domain).unwrap();
    vtd.destroy_domain(domain).unwrap();
}

#[test]
fn messages_go_into_the_table_of_the_devices_unit() {
    let Units { units, mut vtd } = usual();
    let kernels = InterruptMessage {
        address: 0xfee0_0000,
        data: 0x41,
    };
    let message = vtd.remap(device(0x300), &[], kernels, 1).unwrap();
    for (unit, model) in units.iter().enumerate() {
        let sent = model.message(0x300, message.address, message.data);
        assert_eq!(sent.is_ok(), unit == 1);
    }
    vtd.unremap(device(0x300)).unwrap();
    assert!(
        units[1]
            .message(0x300, message.address, message.data)
            .is_err()
    );
}

#[test]
fn faults_carry_the_units_segment() {
    let Units { units, mut vtd } = usual();
    let _ = units[3].dma(0x18, IOVA, Dma::Read);
    let mut seen = std::vec::Vec::new();
    for unit in 0..4 {
        vtd.drain_faults(unit, 8, &mut |fault| seen.push((unit, fault.device)));
    }
    assert_eq!(seen, [(3, device(0x1_0018))]);
}
