//! Taking units over: from reset, from what firmware leaves, and units that
//! do not do what they should.

use sim::vtd::{Ailment, Dma, Event, Memory, Model, Reason, Vtd};

use super::machine::{MESSAGE, Machine, TABLES, device, start};
use crate::vtd::queue::QueueError;
use crate::vtd::registers::global;
use crate::vtd::unit::{State, UnitError};
use ipc_proto::ClientId;

use crate::{Backend, BackendError, DeviceCache};

#[test]
fn a_started_unit_blocks_every_device() {
    let machine = Machine::new(&[Model::QEMU]);
    let report = machine.vtd.report(0).unwrap();
    assert_eq!(report.state, State::Running);
    for requester in [0, 0x18, 0xff, 0x100, 0x8000, 0xffff] {
        for address in [0, 0x10_0000, 0xfee0_0000, TABLES, 1 << 38] {
            let blocked = machine.dma(device(requester), address, Dma::Write);
            assert_eq!(blocked, Err(Reason::RootNotPresent));
        }
    }
    assert_eq!(
        machine
            .vtd
            .properties(device(0x18), DeviceCache::None)
            .unwrap(),
        ipc_proto::Properties {
            translation_cached: false,
            dma_isolated: true,
            interrupts_isolated: true,
            faults_reported: true,
            reset: None,
            vectors: 0,
        }
    );
}

#[test]
fn tables_and_caches_come_before_what_uses_them() {
    let machine = Machine::new(&[Model::QEMU]);
    let events = machine.units[0].take_events();
    let root = match events.first() {
        Some(Event::RootTaken(root)) => *root,
        other => panic!("{other:?}"),
    };
    let table = match events.get(5) {
        Some(Event::InterruptTableTaken(table)) => *table,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        events,
        [
            Event::RootTaken(root),
            Event::QueueOn,
            Event::ContextsForgotten,
            Event::TranslationsForgotten,
            Event::TranslationOn,
            Event::InterruptTableTaken(table),
            Event::InterruptsForgotten,
            Event::RemappingOn {
                compatibility: false
            },
        ]
    );
    assert!((TABLES..TABLES + (256 << 12)).contains(&root));
    // 512 entries.
    assert_eq!(table & 0xfff, 8);
}

#[test]
fn what_firmware_left_on_never_opens_on_the_way() {
    let memory = Memory::new();
    let unit = Vtd::new(Model::QEMU, memory.clone());
    // Firmware's tables let requester 0x18 reach 0x5000 through 2 levels fewer than we will use.
    let (root, context, table) = (0x10_0000, 0x10_1000, 0x10_2000);
    for (address, value) in [
        (root, context | 1),
        (context + 0x18 * 16, table | 1),
        (context + 0x18 * 16 + 8, 1 | 7 << 8),
        (table, 0x10_3000 | 3),
        (0x10_3000, 0x10_4000 | 3),
        (0x10_4000 + 5 * 8, 0x9000 | 3),
    ] {
        memory.write(address, value);
        memory.write_back(address, 8);
    }
    unit.leave_on(root, 0x11_0000, 0x40);
    assert_eq!(unit.dma(0x18, 0x5000, Dma::Read), Ok(0x9000));
    let vtd = start(std::slice::from_ref(&unit), &memory, 64);
    assert_eq!(vtd.report(0).unwrap().state, State::Running);
    assert_eq!(
        unit.dma(0x18, 0x5000, Dma::Read),
        Err(Reason::RootNotPresent)
    );
    let events = unit.take_events();
    assert!(!events.contains(&Event::TranslationOff), "{events:?}");
    let place = |wanted: Event| events.iter().position(|event| *event == wanted).unwrap();
    assert!(place(Event::QueueOff) < place(Event::QueueOn));
    assert_eq!(unit.protected_memory(), 0);
    // The fault that was left is gone, and the new one is announced.
    assert_eq!(unit.take_interrupts(), [(MESSAGE.address, MESSAGE.data)]);
}

#[test]
fn slow_units_are_waited_for() {
    let memory = Memory::new();
    let unit = Vtd::new(Model::QEMU, memory.clone());
    unit.set_response_delay(1000);
    let vtd = start(std::slice::from_ref(&unit), &memory, 64);
    assert_eq!(vtd.report(0).unwrap().state, State::Running);
}

#[test]
fn a_unit_that_does_not_answer_is_refused_not_waited_for() {
    for (ailment, error) in [
        (
            Ailment::IgnoresCommands,
            UnitError::Command(global::ROOT_POINTER),
        ),
        (Ailment::QueueStuck, UnitError::Queue(QueueError::Timeout)),
        (
            Ailment::RejectsDescriptors,
            UnitError::Queue(QueueError::Rejected),
        ),
        (
            Ailment::DeviceSilent(9),
            UnitError::Queue(QueueError::Device),
        ),
    ] {
        let memory = Memory::new();
        let unit = Vtd::new(Model::QEMU, memory.clone());
        unit.set_ailment(ailment);
        let mut vtd = start(std::slice::from_ref(&unit), &memory, 64);
        assert_eq!(vtd.report(0).unwrap().state, State::Failed(error));
        assert_eq!(vtd.properties(device(0x18), DeviceCache::None), None);
        let domain = vtd.create_domain(ClientId(0)).unwrap();
        assert_eq!(
            vtd.attach(device(0x18), domain, DeviceCache::None),
            Err(BackendError::NoUnit),
            "{ailment:?}"
        );
        vtd.destroy_domain(domain).unwrap();
    }
}

#[test]
fn one_silent_device_is_tried_again() {
    let memory = Memory::new();
    let unit = Vtd::new(Model::QEMU, memory.clone());
    unit.set_ailment(Ailment::DeviceSilent(1));
    let vtd = start(std::slice::from_ref(&unit), &memory, 64);
    assert_eq!(vtd.report(0).unwrap().state, State::Running);
}

#[test]
fn a_bad_unit_does_not_spoil_a_good_one() {
    let memory = Memory::new();
    let good = Vtd::new(Model::QEMU, memory.clone());
    let absent = Vtd::new(
        Model {
            capability: u64::MAX,
            extended: u64::MAX,
        },
        memory.clone(),
    );
    let vtd = start(&[absent, good], &memory, 64);
    assert!(matches!(
        vtd.report(0).unwrap().state,
        State::Failed(UnitError::Unusable(_))
    ));
    assert_eq!(vtd.report(1).unwrap().state, State::Running);
    assert_eq!(vtd.properties(device(0x18), DeviceCache::None), None);
    assert!(
        vtd.properties(device(0x1_0018), DeviceCache::None)
            .is_some()
    );
    assert_eq!(vtd.properties(device(0x2_0018), DeviceCache::None), None);
    assert_eq!(vtd.report(2), None);
}

#[test]
fn units_without_common_tables_block_and_serve_nobody() {
    let machine = Machine::new(&[Model::QEMU, Model::QEMU.four_levels()]);
    for unit in 0..2 {
        assert_eq!(
            machine.vtd.report(unit).unwrap().state,
            State::Failed(UnitError::NoCommonLevels)
        );
        let requester = device((unit as u32) << 16 | 0x18);
        assert!(machine.dma(requester, 0x1000, Dma::Write).is_err());
    }
    let mut vtd = machine.vtd;
    assert_eq!(vtd.create_domain(ClientId(0)), Err(BackendError::NoUnit));
}

#[test]
fn too_little_memory_for_tables_is_an_error_of_the_unit() {
    for pages in 0..3 {
        let memory = Memory::new();
        let unit = Vtd::new(Model::QEMU, memory.clone());
        let vtd = start(std::slice::from_ref(&unit), &memory, pages);
        assert_eq!(
            vtd.report(0).unwrap().state,
            State::Failed(UnitError::Tables)
        );
    }
}
