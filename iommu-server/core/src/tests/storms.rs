//! Devices that fault without end cost a bounded amount of work, and nobody
//! else anything.

use ipc_proto::{PagePreference, Rule, Trouble};
use sim::vtd::{Dma, Model, Reason};

use super::machine::{World, device, rule};
use crate::{FAULT_BOUND, FORGIVEN_US, MAX_STRANGERS};

const BAD: u32 = 0x18;
const GOOD: u32 = 0x20;

/// The device tries `count` times; the server serves each interrupt that comes of it. How many came.
fn storm(world: &mut World, bits: u32, count: u64) -> usize {
    let mut interrupts = 0;
    for number in 0..count {
        let _ = world.dma(device(bits), number << 12, Dma::Write);
        for _ in world.unit.take_interrupts() {
            interrupts += 1;
            world.shard.on_interrupt(0);
        }
    }
    interrupts
}

#[test]
fn ten_thousand_bad_requests_cost_eleven_records() {
    for model in [
        Model::QEMU,
        Model::QEMU.caching(),
        Model::QEMU.write_buffer(),
        Model::QEMU.records(8),
    ] {
        let mut world = World::new(model);
        world.attach(device(BAD), 1).unwrap();
        world.attach(device(GOOD), 2).unwrap();
        world.alloc(2, 0x1000, PagePreference::Small, 0).unwrap();
        let buffer = world.buffer_badge(2, 0);
        let at = world.map_any(buffer).unwrap();
        let (descriptors, bound) = (world.unit.descriptors(), u64::from(FAULT_BOUND));
        let interrupts = storm(&mut world, BAD, 10_000);
        assert_eq!(interrupts as u64, bound + 1);
        // One to forget the entry, and a wait.
        assert_eq!(world.unit.descriptors() - descriptors, 2);
        // At the first fault and at the last.
        assert_eq!(world.kernel.take_shard_signals(), [0, 0]);
        assert_eq!(world.faults_told(0, device(BAD)), FAULT_BOUND + 1);
        let trouble = world.trouble_next(0).unwrap();
        assert_eq!(trouble.device, device(BAD));
        assert_eq!(trouble.trouble, Trouble::FaultStorm);
        assert_eq!(trouble.count, FAULT_BOUND + 1);
        assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
        assert_eq!(rule(world.trouble_next(1)), Rule::EndOfList);
        // The other is as it was, and is heard at once.
        assert!(world.dma(device(GOOD), at, Dma::Read).is_ok());
        let _ = world.dma(device(GOOD), 0x5000_0000, Dma::Read);
        assert_eq!(world.unit.take_interrupts().len(), 1);
        world.shard.on_interrupt(0);
        assert_eq!(world.fault_next(2).unwrap().device, device(GOOD));
    }
}

#[test]
fn a_silenced_device_reaches_nothing_until_it_is_attached_anew() {
    for model in [Model::QEMU, Model::QEMU.caching()] {
        let mut world = World::new(model);
        world.attach(device(BAD), 1).unwrap();
        world.alloc(1, 0x1000, PagePreference::Small, 0).unwrap();
        let buffer = world.buffer_badge(1, 0);
        let at = world.map_any(buffer).unwrap();
        assert!(world.dma(device(BAD), at, Dma::Write).is_ok());
        storm(&mut world, BAD, 100);
        assert_eq!(
            world.dma(device(BAD), at, Dma::Write),
            Err(Reason::ContextNotPresent)
        );
        world.detach(device(BAD)).unwrap();
        // Free, it is as silent as before.
        assert_eq!(storm(&mut world, BAD, 1000), 0);
        world.attach(device(BAD), 1).unwrap();
        assert!(world.dma(device(BAD), at, Dma::Write).is_ok());
        assert_eq!(storm(&mut world, BAD, 5), 5);
        // What its holder of before did is not told of this one.
        assert_eq!(world.faults_told(0, device(BAD)), 5);
        assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
        assert_eq!(rule(world.trouble_next(1)), Rule::EndOfList);
    }
}

#[test]
fn a_storm_from_a_device_that_nobody_holds_is_told_too() {
    let mut world = World::new(Model::QEMU);
    let nobodys = 0x8018;
    let interrupts = storm(&mut world, nobodys, 10_000);
    assert_eq!(interrupts as u32, FAULT_BOUND + 1);
    assert_eq!(world.kernel.take_shard_signals(), [1]);
    assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
    let trouble = world.trouble_next(1).unwrap();
    assert_eq!((trouble.device, trouble.count), (device(nobodys), 11));
    // Held and let go, it may speak again.
    world.attach(device(nobodys), 1).unwrap();
    world.detach(device(nobodys)).unwrap();
    let again = storm(&mut world, nobodys, 10_000);
    assert_eq!(again as u32, FAULT_BOUND + 1);
}

#[test]
fn many_strangers_at_once_cost_a_bounded_amount_each() {
    let mut world = World::new(Model::QEMU);
    let strangers = MAX_STRANGERS as u32 - 1;
    for _ in 0..100 {
        for number in 0..strangers {
            storm(&mut world, 0x40 + number, 1);
        }
        // Records are read at a bounded pace, whoever they are of.
        world.kernel.advance_us(crate::FAULT_PERIOD_US);
        world.shard.on_timer();
    }
    let mut told = 0;
    while world.trouble_next(0).is_ok() {
        told += 1;
    }
    assert_eq!(told, strangers);
    // More than are remembered: nothing breaks, and a bounded list is kept.
    for number in 0..200 {
        storm(&mut world, 0x200 + number, 3);
    }
}

#[test]
fn faults_far_apart_are_no_storm() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(BAD), 1).unwrap();
    for _ in 0..100 {
        assert_eq!(storm(&mut world, BAD, 1), 1);
        world.kernel.advance_us(FORGIVEN_US);
    }
    // The shard did not ask: it was signalled once, and hears of all.
    assert_eq!(world.kernel.take_shard_signals(), [0]);
    assert_eq!(world.faults_told(0, device(BAD)), 100);
    assert_eq!(rule(world.trouble_next(0)), Rule::EndOfList);
    storm(&mut world, BAD, 1);
    assert_eq!(world.kernel.take_shard_signals(), [0]);
    assert_eq!(world.faults_told(0, device(BAD)), 1);
}

#[test]
fn a_storm_under_an_alias_is_its_devices() {
    let mut world = World::new(Model::QEMU);
    let (inner, bridge) = (device(0x208), device(0x200));
    world.alias(inner, bridge).unwrap();
    world.attach(inner, 1).unwrap();
    storm(&mut world, 0x200, 10_000);
    assert_eq!(world.faults_told(0, inner), FAULT_BOUND + 1);
    assert_eq!(world.trouble_next(0).unwrap().device, inner);
    assert!(world.fault_next(1).is_ok());
    for id in [inner, bridge] {
        let blocked = world.dma(id, 0, Dma::Read);
        assert_eq!(blocked, Err(Reason::ContextNotPresent));
    }
    world.detach(inner).unwrap();
}

#[test]
fn dropped_records_do_not_hide_a_storm() {
    // All come before the server runs once: the unit has one record and says that it dropped some.
    let mut world = World::new(Model::QEMU);
    world.attach(device(BAD), 1).unwrap();
    for _ in 0..=FAULT_BOUND {
        for number in 0..1000u64 {
            let _ = world.dma(device(BAD), number << 12, Dma::Write);
        }
        world.shard.on_interrupt(0);
    }
    assert_eq!(world.faults_told(0, device(BAD)), FAULT_BOUND + 1);
    assert_eq!(world.trouble_next(0).unwrap().device, device(BAD));
    assert!(world.unit.take_interrupts().len() as u32 <= FAULT_BOUND + 1);
}
