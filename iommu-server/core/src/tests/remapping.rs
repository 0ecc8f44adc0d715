//! Interrupt messages: each delivered for its own device alone, freed ones for
//! nobody.

use ipc_proto::Rule;
use sim::vtd::{Ailment, Interrupt, Model, Reason};

use super::machine::{World, device, rule};
use crate::vtd::interrupt::{ENTRIES, MAX_MESSAGES};

const ONE: u32 = 0x18;
const OTHER: u32 = 0x20;
/// What the kernel would have the device send.
const ADDRESS: u64 = 0xfee0_3000;
const DATA: u32 = 0x41;

fn models() -> [(&'static str, Model); 4] {
    [
        ("qemu", Model::QEMU),
        ("caching mode", Model::QEMU.caching()),
        ("snooping", Model::QEMU.snooping()),
        ("write buffer", Model::QEMU.write_buffer().caching()),
    ]
}

fn send(world: &World, bits: u32, address: u64, data: u32) -> Result<Interrupt, Reason> {
    world
        .unit
        .message(device(bits).requester_id(), address, data)
}

#[test]
fn a_message_is_delivered_for_its_device_alone() {
    for (name, model) in models() {
        let mut world = World::patient(model);
        // A guess before there is anything, which a caching unit remembers.
        for handle in 0..8 {
            let guess = send(&world, ONE, 0xfee0_0018 | handle << 5, 0);
            assert_eq!(guess, Err(Reason::InterruptNotPresent), "{name}");
        }
        let message = world.remap(device(ONE), ADDRESS, DATA, 1).unwrap();
        let expected = Interrupt {
            destination: 3,
            vector: 0x41,
            mode: 0,
        };
        let (address, data) = (message.address, message.data);
        assert_eq!(send(&world, ONE, address, data), Ok(expected), "{name}");
        assert_eq!(
            send(&world, OTHER, address, data),
            Err(Reason::InterruptSource),
            "{name}"
        );
        // What the kernel itself would have it send is blocked: anybody could.
        let forged = send(&world, ONE, ADDRESS, DATA);
        assert_eq!(forged, Err(Reason::Compatibility), "{name}");
        world.unremap(device(ONE)).unwrap();
        assert_eq!(
            send(&world, ONE, address, data),
            Err(Reason::InterruptNotPresent),
            "{name}"
        );
    }
}

#[test]
fn a_freed_entry_is_another_devices_and_knows_nothing_of_its_past() {
    for (name, model) in models() {
        let mut world = World::new(model);
        for life in 0..4u32 {
            let bits = ONE + life * 8;
            let message = world.remap(device(bits), ADDRESS, DATA + life, 1).unwrap();
            let delivered = send(&world, bits, message.address, message.data).unwrap();
            assert_eq!(u32::from(delivered.vector), DATA + life, "{name}");
            let before = send(&world, bits.wrapping_sub(8), message.address, message.data);
            assert_eq!(before, Err(Reason::InterruptSource), "{name}");
            world.unremap(device(bits)).unwrap();
        }
    }
}

#[test]
fn messages_of_a_block_differ_in_their_data_alone() {
    let mut world = World::patient(Model::QEMU);
    let single = world.remap(device(ONE), ADDRESS, 0x31, 1).unwrap();
    for count in [2u16, 3, 8, 32] {
        let first = world.remap(device(OTHER), ADDRESS, 0x50, count).unwrap();
        // The lowest bits of the data are the device's to set: they must be free.
        assert_eq!(first.data, 0);
        for number in 0..u32::from(count) {
            let delivered = send(&world, OTHER, first.address, first.data + number).unwrap();
            assert_eq!(u32::from(delivered.vector), 0x50 + number);
        }
        assert!(send(&world, OTHER, first.address, count.into()).is_err());
        // Counting on does not lead into another device's entries.
        for number in 0..64 {
            let outcome = send(&world, OTHER, first.address, number);
            assert_ne!(outcome.map(|sent| sent.vector), Ok(0x31));
        }
    }
    world.unremap(device(OTHER)).unwrap();
    assert!(send(&world, ONE, single.address, single.data).is_ok());
    for handle in 0..u64::from(ENTRIES) {
        let address = 0xfee0_0018 | handle << 5;
        assert!(send(&world, OTHER, address, 0).is_err());
    }
}

#[test]
fn what_is_no_interrupt_is_refused() {
    let mut world = World::new(Model::QEMU);
    for (address, data, count, argument) in [
        (0xfed0_0000, DATA, 1, 1),
        (ADDRESS | 0x10, DATA, 1, 1),
        // A vector that is an exception of the processor; a mode that is an NMI.
        (ADDRESS, 0x0e, 1, 2),
        (ADDRESS, 0x441, 1, 2),
        (ADDRESS, 0xff, 2, 2),
        (ADDRESS, DATA, 0, 3),
        (ADDRESS, DATA, MAX_MESSAGES + 1, 3),
    ] {
        let refusal = world.remap(device(ONE), address, data, count).unwrap_err();
        assert_eq!((refusal.rule, refusal.about), (Rule::BadArgument, argument));
    }
    assert_eq!(
        rule(world.remap(device(0x8018 | 0x1_0000), ADDRESS, DATA, 1)),
        Rule::OutsideShard
    );
}

#[test]
fn entries_are_bounded_and_all_come_back() {
    let mut world = World::new(Model::QEMU);
    let mut made = 0;
    let refusal = loop {
        // What is asked for again, as by one who did not hear the answer, is the same.
        match world.remap(device(ONE), ADDRESS, 0x30 + u32::from(made), 32) {
            Ok(_) => made += 1,
            Err(refusal) => break refusal.rule,
        }
    };
    assert_eq!((refusal, made), (Rule::RemapExhausted, ENTRIES / 32));
    world.unremap(device(ONE)).unwrap();
    for _ in 0..2 {
        for number in 0..128 {
            let bits = ONE + number * 8;
            world.remap(device(bits), ADDRESS, DATA, 1).unwrap();
        }
        assert_eq!(
            rule(world.remap(device(0x18), ADDRESS, DATA + 1, 1)),
            Rule::RemapExhausted
        );
        for number in 0..128 {
            world.unremap(device(ONE + number * 8)).unwrap();
        }
    }
}

#[test]
fn a_device_behind_a_bridge_may_send_under_the_bridges_id() {
    let mut world = World::new(Model::QEMU);
    let (inner, bridge) = (0x208, 0x200);
    world.alias(device(inner), device(bridge)).unwrap();
    let message = world.remap(device(inner), ADDRESS, DATA, 1).unwrap();
    for sender in [inner, bridge] {
        assert!(send(&world, sender, message.address, message.data).is_ok());
    }
    for sender in [0x108, 0x300] {
        assert_eq!(
            send(&world, sender, message.address, message.data),
            Err(Reason::InterruptSource)
        );
    }
}

#[test]
fn detaching_takes_forgotten_messages_back() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(ONE), 1).unwrap();
    let message = world.remap(device(ONE), ADDRESS, DATA, 4).unwrap();
    world.detach(device(ONE)).unwrap();
    assert!(send(&world, ONE, message.address, message.data).is_err());
    world.attach(device(ONE), 1).unwrap();
    let message = world.remap(device(ONE), ADDRESS, DATA, 4).unwrap();
    world.client_gone(1).unwrap();
    assert!(send(&world, ONE, message.address, message.data).is_err());
}

#[test]
fn an_entry_that_the_unit_did_not_forget_is_not_used_again() {
    let mut world = World::new(Model::QEMU);
    let message = world.remap(device(ONE), ADDRESS, DATA, 1).unwrap();
    assert!(send(&world, ONE, message.address, message.data).is_ok());
    world.unit.set_ailment(Ailment::QueueStuck);
    assert_eq!(rule(world.unremap(device(ONE))), Rule::InvalidationTimeout);
    // It is right not to believe it.
    assert!(send(&world, ONE, message.address, message.data).is_ok());
    world.unit.set_ailment(Ailment::Healthy);
    assert_eq!(
        rule(world.remap(device(OTHER), ADDRESS, DATA, 1)),
        Rule::NoIommu
    );
}

#[test]
fn where_nothing_is_remapped_messages_stay_as_they_are() {
    let mut world = World::new(Model::QEMU.no_remapping());
    let message = world.remap(device(ONE), ADDRESS, DATA, 4).unwrap();
    assert_eq!((message.address, message.data), (ADDRESS, DATA));
    assert!(send(&world, ONE, ADDRESS, DATA).is_ok());
    world.unremap(device(ONE)).unwrap();
    let promise = world
        .attach_as(device(ONE), 1, ipc_proto::ContextChoice::Shared, 0)
        .unwrap();
    assert!(!promise.properties.interrupts_isolated);
}

#[test]
fn isolation_is_promised_only_while_the_compatibility_format_is_blocked() {
    use super::machine::Machine;
    use crate::{Backend, DeviceCache, InterruptMessage};
    let Machine { units, mut vtd } = Machine::new(&[Model::QEMU]);
    let promised = |vtd: &super::machine::TestVtd| {
        let properties = vtd.properties(device(ONE), DeviceCache::None).unwrap();
        properties.interrupts_isolated
    };
    assert!(promised(&vtd));
    assert_eq!(
        units[0].message(0x18, ADDRESS, DATA),
        Err(Reason::Compatibility)
    );
    assert!(vtd.pass_compatibility());
    assert!(!promised(&vtd));
    assert!(units[0].message(0x18, ADDRESS, DATA).is_ok());
    // Messages are looked up all the same.
    let kernels = InterruptMessage {
        address: ADDRESS,
        data: DATA,
    };
    let message = vtd.remap(device(ONE), &[], kernels, 1).unwrap();
    assert!(
        units[0]
            .message(0x18, message.address, message.data)
            .is_ok()
    );
    assert!(
        units[0]
            .message(0x20, message.address, message.data)
            .is_err()
    );
}

#[test]
fn forged_messages_are_told_as_faults() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(ONE), 1).unwrap();
    assert!(send(&world, ONE, 0xfee0_0018 | 9 << 5, 0).is_err());
    world.shard.on_interrupt(0);
    let fault = world.fault_next(1).unwrap();
    assert_eq!(fault.device, device(ONE));
    assert_eq!(fault.reason, Reason::InterruptNotPresent as u8);
    assert_eq!(fault.address, 9, "the entry");
}
