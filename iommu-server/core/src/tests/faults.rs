//! Blocked DMA on its way to the holder of the device.

use ipc_proto::{Access, ClientId, Rule};
use sim::vtd::{Ailment, Dma, Model, Reason};

use super::machine::{MESSAGE, World, device, rule};
use crate::faults::MAX_RECORDS;
use crate::{FAULT_BURST, FAULT_PERIOD_US, Note};

#[test]
fn a_fault_reaches_the_holder_and_nobody_else() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x18), 1).unwrap();
    world.attach(device(0x20), 2).unwrap();
    let _ = world.dma(device(0x18), 0x12_3456, Dma::Write);
    assert_eq!(
        world.unit.take_interrupts(),
        [(MESSAGE.address, MESSAGE.data)]
    );
    world.shard.on_interrupt(0);
    assert_eq!(world.kernel.take_signals(), [ClientId(1)]);
    assert_eq!(rule(world.fault_next(2)), Rule::EndOfList);
    let fault = world.fault_next(1).unwrap();
    assert_eq!(fault.device, device(0x18));
    assert_eq!(fault.address, 0x12_3000);
    assert_eq!(fault.access, Access::Write);
    assert_eq!(fault.reason, Reason::Write as u8);
    assert_eq!(fault.lost, 0);
    assert_eq!(rule(world.fault_next(1)), Rule::EndOfList);
    // The unit speaks again for the next.
    let _ = world.dma(device(0x20), 0x5000, Dma::Read);
    assert_eq!(world.unit.take_interrupts().len(), 1);
    world.shard.on_interrupt(0);
    assert_eq!(world.kernel.take_signals(), [ClientId(2)]);
    assert_eq!(world.fault_next(2).unwrap().access, Access::Read);
}

#[test]
fn faults_without_a_holder_are_counted_and_said_rarely() {
    let mut world = World::patient(Model::QEMU);
    for _ in 0..40 {
        let _ = world.dma(device(0x18), 0x5000, Dma::Write);
        world.shard.on_interrupt(0);
    }
    assert!(world.kernel.take_signals().is_empty());
    let notes = world.kernel.take_notes();
    // 1, 2, 4, 8, 16, 32.
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert!(matches!(
        notes[0],
        Note::Fault {
            holder: None,
            count: 1,
            ..
        }
    ));
}

#[test]
fn dropped_faults_are_told_though_nobody_knows_how_many() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x18), 1).unwrap();
    for page in 1..10 {
        // One record: the first is kept.
        let _ = world.dma(device(0x18), page << 12, Dma::Read);
    }
    world.shard.on_interrupt(0);
    assert_eq!(world.fault_next(1).unwrap().address, 0x1000);
    let _ = world.dma(device(0x18), 0x20_0000, Dma::Read);
    world.shard.on_interrupt(0);
    let next = world.fault_next(1).unwrap();
    assert_eq!((next.address, next.lost), (0x20_0000, 1));
}

#[test]
fn several_records_are_read_in_order_and_round_robin() {
    let mut world = World::patient(Model::QEMU.records(4));
    world.attach(device(0x18), 1).unwrap();
    let mut page = 0;
    for burst in [3, 4, 2, 4] {
        for number in 0..burst {
            let _ = world.dma(device(0x18), (page + number) << 12, Dma::Read);
        }
        world.shard.on_interrupt(0);
        for number in 0..burst {
            let fault = world.fault_next(1).unwrap();
            assert_eq!(fault.address, (page + number) << 12);
        }
        page += burst;
    }
}

#[test]
fn a_client_that_does_not_read_loses_the_newest() {
    let mut world = World::patient(Model::QEMU);
    world.attach(device(0x18), 1).unwrap();
    for page in 0..MAX_RECORDS as u64 + 3 {
        let _ = world.dma(device(0x18), page << 12, Dma::Read);
        world.shard.on_interrupt(0);
    }
    for page in 0..MAX_RECORDS as u64 {
        assert_eq!(world.fault_next(1).unwrap().address, page << 12);
    }
    let end = world.fault_next(1).unwrap_err();
    assert_eq!((end.rule, end.about), (Rule::EndOfList, 3));
    assert_eq!(world.fault_next(1).unwrap_err().about, 0);
}

#[test]
fn a_storm_is_read_in_bursts_and_later_by_itself() {
    let mut world = World::patient(Model::QEMU.records(128));
    world.attach(device(0x18), 1).unwrap();
    for page in 0..120 {
        let _ = world.dma(device(0x18), page << 12, Dma::Read);
    }
    assert_eq!(world.unit.take_interrupts().len(), 1);
    world.shard.on_interrupt(0);
    let storms = |notes: &[Note]| {
        let storm = |note: &&Note| matches!(note, Note::Storm { unit: 0 });
        notes.iter().filter(storm).count()
    };
    assert_eq!(storms(&world.kernel.take_notes()), 1);
    assert_eq!(world.kernel.take_wakes(), [FAULT_PERIOD_US]);
    // Asking again at once gives nothing new, and the unit stays silent.
    world.shard.on_interrupt(0);
    world.shard.on_timer();
    let mut seen = 0;
    while world.fault_next(1).is_ok() {
        seen += 1;
    }
    assert_eq!(seen, MAX_RECORDS);
    assert!(world.unit.take_interrupts().is_empty());
    for _ in 0..3 {
        world.kernel.advance_us(FAULT_PERIOD_US);
        world.shard.on_timer();
    }
    assert_eq!(storms(&world.kernel.take_notes()), 0);
    let _ = world.kernel.take_wakes();
    // All are read after two bursts, so the unit speaks again.
    assert!((FAULT_BURST..2 * FAULT_BURST).contains(&120));
    let _ = world.dma(device(0x18), 0x5000, Dma::Write);
    assert_eq!(world.unit.take_interrupts().len(), 1);
}

#[test]
fn a_unit_that_claims_faults_it_does_not_have_costs_little() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x18), 1).unwrap();
    world.unit.set_ailment(Ailment::ClaimsFaults);
    world.shard.on_interrupt(0);
    world.shard.on_interrupt(7);
    assert!(world.kernel.take_signals().is_empty());
    assert_eq!(rule(world.fault_next(1)), Rule::EndOfList);
}

#[test]
fn the_next_holder_does_not_hear_of_the_last_ones_faults() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x18), 1).unwrap();
    let _ = world.dma(device(0x18), 0x5000, Dma::Write);
    // The interrupt has not been served yet when the device changes hands.
    world.detach(device(0x18)).unwrap();
    world.attach(device(0x18), 2).unwrap();
    world.shard.on_interrupt(0);
    assert_eq!(rule(world.fault_next(2)), Rule::EndOfList);
    assert_eq!(world.fault_next(1).unwrap().address, 0x5000);
    // And a client's successor not of its predecessor's.
    let _ = world.dma(device(0x18), 0x6000, Dma::Write);
    world.shard.on_interrupt(0);
    world.detach(device(0x18)).unwrap();
    world.client_gone(2).unwrap();
    assert_eq!(rule(world.fault_next(2)), Rule::EndOfList);
}
