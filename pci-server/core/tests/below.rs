//! What the shard asks of the iommu-server: remapped messages, caches of translations, reports of trouble.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::scene::{EDU, NVME, at};
use common::*;
use hw::ConfigSpace;
use ipc_proto::iommu::TroubleNextReply;
use ipc_proto::{
    ClientId, ContextChoice, DeviceState, EventKind, Mechanism, Properties, Rule, Switch, Trouble,
};
use sim::config::{Endpoint, Machine, Space};
use system::info::UnitMessage;
use system::model::DeviceMatch;

/// ATS Control of [`cached`], whose error reporting takes 2Ch bytes from 100h.
const ATS_CONTROL: u16 = 0x12c + 6;
const ENABLED: u16 = 1 << 15;

/// An NVM Express controller with a cache of translations, whose queue takes 8 invalidations.
fn cached() -> Space {
    let endpoint: Endpoint = nvme(0x80_0000_0000).extended(0x0f, 1, &[8, 0, 0, 0]);
    let mut space = Space::from(endpoint);
    space.allow(ATS_CONTROL, &[0x1f, 0x80]);
    space
}

fn booted(isolated: bool, cached_too: bool) -> Booted {
    let mut machine = Machine::new();
    machine.add(EDU, edu(0xe000_0000));
    machine.add(NVME, cached());
    let mut world = World::new(machine);
    world.promise = Properties {
        interrupts_isolated: isolated,
        translation_cached: cached_too,
        ..PROMISE
    };
    let mut info = pci_info();
    info.ats
        .push(DeviceMatch::Address(at(NVME).to_bits()))
        .unwrap();
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let clients = vec![client("zero", &[any]), client("one", &[any])];
    Booted::with(world, info, clients)
}

fn order_of(booted: &Booted) -> Vec<&'static str> {
    booted.world(|world| {
        let words = world.did.iter().filter_map(|did| match did {
            Did::Attached(..) => Some("attached"),
            Did::TookVectors(..) => Some("vectors taken"),
            Did::Remapped(..) => Some("remapped"),
            Did::Wrote {
                offset: 0x42,
                value,
                ..
            } if value & 1 == 0 => Some("silent"),
            Did::Wrote { offset: 0x44, .. } => Some("programmed"),
            Did::Wrote {
                offset: ATS_CONTROL,
                value,
                ..
            } => Some(if *value == 0 { "cache off" } else { "cache on" }),
            Did::Detached(_) => Some("detached"),
            Did::Kept(_, 0) => Some("is to forget"),
            Did::Kept(..) => Some("may keep"),
            Did::Unremapped(_) => Some("unremapped"),
            Did::GaveVectorsBack(_) => Some("vectors given back"),
            _ => None,
        });
        words.collect()
    })
}

#[test]
fn what_the_iommu_delivers_is_programmed_and_taken_back_before_the_vector() {
    let booted = booted(true, false);
    let device = booted.assigned(0, at(EDU), 0);
    booted.world(|world| world.did.clear());
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    assert_eq!(
        order_of(&booted),
        ["vectors taken", "remapped", "silent", "programmed"]
    );
    booted.world(|world| {
        let (handle, vectors, count) = world.remapped[&at(EDU)][0];
        assert_eq!(
            (vectors.address, vectors.data, count),
            (0xfee0_0000, 0x40, 1)
        );
        let address = world.machine.read32(at(EDU), 0x44);
        assert_eq!(address, 0xfee0_0018 | handle << 5);
        assert_eq!(world.machine.read16(at(EDU), 0x4c), 0);
        world.did.clear();
    });
    device.msi_disable().unwrap();
    assert_eq!(
        order_of(&booted),
        ["silent", "unremapped", "vectors given back"]
    );
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    booted.world(|world| world.did.clear());
    device.release().unwrap();
    assert_eq!(
        order_of(&booted),
        ["silent", "detached", "unremapped", "vectors given back"]
    );
}

#[test]
fn messages_of_msi_x_are_remapped_block_by_block() {
    let booted = booted(true, false);
    let device = booted.assigned(0, at(NVME), 0);
    device.msi_enable(Mechanism::MsiX, 3, 5, 1).unwrap();
    booted.world(|world| {
        let counts: Vec<_> = world.remapped[&at(NVME)]
            .iter()
            .map(|block| block.2)
            .collect();
        assert_eq!(counts, [4, 1]);
        let word = |entry: u64, field: u64| world.memory[&(0x80_0000_2000 + entry * 16 + field)];
        let data: Vec<_> = (3..8).map(|entry| word(entry, 8)).collect();
        assert_eq!(data, [0, 1, 2, 3, 0]);
        assert_ne!(word(3, 0), word(7, 0));
    });
}

#[test]
fn where_messages_are_not_remapped_nobody_is_asked() {
    let booted = booted(false, false);
    let device = booted.assigned(0, at(EDU), 0);
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    device.msi_disable().unwrap();
    device.release().unwrap();
    let words = order_of(&booted);
    assert!(!words.contains(&"remapped") && !words.contains(&"unremapped"));
}

#[test]
fn enabling_that_fails_at_any_step_leaves_nothing_behind() {
    for n in 0.. {
        let booted = booted(true, false);
        let device = booted.assigned(0, at(NVME), 0);
        let left = |booted: &Booted| {
            booted.world(|world| {
                (
                    world.vectors.clone(),
                    world.remapped.clone(),
                    world.machine.snapshot(at(NVME)),
                )
            })
        };
        let before = left(&booted);
        let start = booted.world(|world| {
            world.kernel.fail_at = Some(world.kernel.calls + n);
            world.kernel.calls
        });
        let result = device.msi_enable(Mechanism::MsiX, 2, 3, 1);
        if booted.world(|world| world.kernel.calls) - start <= n {
            result.unwrap();
            assert_eq!(
                n, 10,
                "two blocks of vectors, remapped; what makes the frames, their mapping"
            );
            return;
        }
        result.unwrap_err();
        booted.world(|world| world.kernel.fail_at = None);
        assert_eq!(left(&booted), before, "call {n} failed");
        device.msi_enable(Mechanism::MsiX, 2, 3, 1).unwrap();
    }
}

#[test]
fn a_vector_whose_message_cannot_be_taken_back_goes_to_nobody() {
    let booted = booted(true, false);
    let device = booted.assigned(0, at(EDU), 0);
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls));
    assert_eq!(device.msi_disable().unwrap_err().rule, Rule::Downstream);
    booted.world(|world| {
        world.kernel.fail_at = None;
        assert!(world.vectors.contains_key(&at(EDU)));
        assert_eq!(world.machine.read16(at(EDU), 0x42) & 1, 0);
    });
    // Once more, and both are back.
    device.msi_disable().unwrap();
    booted.world(|world| assert!(world.vectors.is_empty() && world.remapped.is_empty()));
    device.msi_enable(Mechanism::Msi, 0, 1, 1).unwrap();
    // Capability, detachment, then the messages.
    booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + 2));
    device.release().unwrap_err();
    booted.world(|world| assert!(world.vectors.contains_key(&at(EDU))));
    let state = booted.client(0).query(at(EDU)).unwrap().state;
    assert_eq!(state, DeviceState::Broken);
}

#[test]
fn a_cache_is_on_only_while_the_device_is_attached() {
    let booted = booted(false, true);
    let control = || booted.world(|world| world.machine.read16(at(NVME), ATS_CONTROL));
    assert_eq!(control(), 0);
    booted.world(|world| world.did.clear());
    let reply = booted
        .client(0)
        .assign(at(NVME), 0, ContextChoice::Shared)
        .unwrap();
    assert!(reply.properties.translation_cached);
    assert_eq!(order_of(&booted), ["attached", "cache on"]);
    assert_eq!(control(), ENABLED);
    let device = booted.device(booted.badge_in(0, 0));
    booted.world(|world| world.did.clear());
    device.reset().unwrap();
    assert_eq!(control(), ENABLED, "a reset takes it away");
    // In its reset it cannot answer: nobody waits for it then.
    assert_eq!(
        order_of(&booted),
        ["is to forget", "cache off", "may keep", "cache on"]
    );
    booted.world(|world| world.did.clear());
    device.release().unwrap();
    assert_eq!(
        order_of(&booted),
        ["is to forget", "cache off", "cache off", "detached"]
    );
    assert_eq!(control(), 0);
    // Not every device may have one, whatever it is able to.
    let reply = booted
        .client(0)
        .assign(at(EDU), 1, ContextChoice::Shared)
        .unwrap();
    assert!(!reply.properties.translation_cached);
}

#[test]
fn a_cache_that_firmware_left_on_is_off_from_the_boot_and_without_a_promise() {
    let mut machine = Machine::new();
    machine.add(NVME, cached());
    machine.poke(at(NVME), ATS_CONTROL, &[0x00, 0x80]);
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let booted = Booted::new(machine, vec![client("zero", &[any])]);
    booted.world(|world| world.promise.translation_cached = true);
    let device = booted.assigned(0, at(NVME), 0);
    booted.world(|world| assert_eq!(world.machine.read16(at(NVME), ATS_CONTROL), 0));
    device.release().unwrap();
}

fn report(booted: &Booted, device: &str, trouble: Trouble, count: u32) {
    let report = TroubleNextReply {
        device: at(device),
        trouble,
        count,
    };
    booted.world(|world| world.trouble.push_back(report));
}

#[test]
fn a_storm_of_faults_ends_mastering_and_the_holder_is_told() {
    let booted = booted(false, false);
    let device = booted.assigned(0, at(EDU), 0);
    device.bus_master(Switch::On).unwrap();
    report(&booted, EDU, Trouble::FaultStorm, 11);
    // Of a device that nobody holds, or that is not there, nothing comes.
    report(&booted, NVME, Trouble::FaultStorm, 1);
    report(&booted, "0000:09:00.0", Trouble::DeviceTlbTimeout, 1);
    booted.shard.borrow_mut().on_trouble();
    booted.world(|world| assert_eq!(world.machine.read16(at(EDU), 4) & 4, 0));
    let event = booted.client(0).event_next().unwrap();
    assert_eq!(
        (event.event, event.device, event.detail),
        (EventKind::Storm, at(EDU), 11)
    );
    assert_eq!(
        booted.client(0).event_next().unwrap_err().rule,
        Rule::EndOfList
    );
    // It is still held, and may be tried again.
    device.bus_master(Switch::On).unwrap();
}

#[test]
fn blocked_requests_are_told_to_the_holder_and_to_nobody_else() {
    let booted = booted(false, false);
    let device = booted.assigned(0, at(EDU), 0);
    device.bus_master(Switch::On).unwrap();
    report(&booted, EDU, Trouble::Fault, 3);
    report(&booted, EDU, Trouble::FaultStorm, 11);
    // Given back meanwhile, or never there.
    report(&booted, NVME, Trouble::Fault, 1);
    report(&booted, "0000:09:00.0", Trouble::Fault, 1);
    booted.shard.borrow_mut().on_trouble();
    let told = || {
        let event = booted.client(0).event_next();
        event.map(|event| (event.event, event.device, event.detail))
    };
    assert_eq!(told(), Ok((EventKind::Fault, at(EDU), 3)));
    assert_eq!(told(), Ok((EventKind::Storm, at(EDU), 11)));
    assert_eq!(told(), Err(Rule::EndOfList.into()));
    let other = booted.client(1).event_next().unwrap_err();
    assert_eq!(other.rule, Rule::EndOfList);
    // A fault alone changes nothing.
    device.bus_master(Switch::On).unwrap();
    report(&booted, EDU, Trouble::Fault, 1);
    booted.shard.borrow_mut().on_trouble();
    booted.world(|world| assert_eq!(world.machine.read16(at(EDU), 4) & 4, 4));
}

#[test]
fn a_reset_does_not_bring_mastering_back_that_a_storm_ended() {
    let booted = booted(false, false);
    let device = booted.assigned(0, at(NVME), 0);
    device.bus_master(Switch::On).unwrap();
    booted.send(booted.badge_in(0, 0), ipc_proto::pci::Request::Reset {});
    report(&booted, NVME, Trouble::FaultStorm, 11);
    booted.shard.borrow_mut().on_trouble();
    booted.settle();
    device.info().unwrap();
    booted.world(|world| assert_eq!(world.machine.read16(at(NVME), 4) & 4, 0));
}

#[test]
fn a_device_that_keeps_translations_is_taken_away_for_good() {
    let booted = booted(false, true);
    let device = booted.assigned(0, at(NVME), 0);
    report(&booted, NVME, Trouble::DeviceTlbTimeout, 1);
    booted.shard.borrow_mut().on_trouble();
    booted.settle();
    let event = booted.client(0).event_next().unwrap();
    assert_eq!(
        (event.event, event.device, event.detail),
        (EventKind::Broken, at(NVME), Rule::DeviceTlbTimeout as u64)
    );
    assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
    let state = booted.client(1).query(at(NVME)).unwrap().state;
    assert_eq!(state, DeviceState::Broken);
    booted.world(|world| assert!(!world.attached.contains_key(&at(NVME))));
}

#[test]
fn many_reports_are_taken_in_turns() {
    let booted = booted(false, false);
    booted.assigned(0, at(EDU), 0);
    for count in 0..100 {
        report(&booted, EDU, Trouble::FaultStorm, count);
    }
    booted.shard.borrow_mut().on_trouble();
    assert_eq!(booted.world(|world| world.trouble.len()), 84);
    booted.settle();
    assert!(booted.world(|world| world.trouble.is_empty()));
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.settle();
}

#[test]
fn a_remapping_unit_that_is_a_function_gets_its_message() {
    let mut machine = Machine::new();
    machine.add(EDU, edu(0xe000_0000));
    let mut info = pci_info();
    let message = UnitMessage {
        device: at(EDU).to_bits(),
        address: 0xfee0_1000,
        data: 0x99,
    };
    // And one that is not there.
    let absent = UnitMessage {
        device: at(NVME).to_bits(),
        ..message
    };
    info.unit_messages = [absent, message].into_iter().collect();
    let own = DeviceMatch::Address(message.device);
    info.withheld.push(own).unwrap();
    let booted = Booted::with(World::new(machine), info, vec![client("zero", &[own])]);
    booted.world(|world| {
        let read = |offset| world.machine.read32(at(EDU), offset);
        assert_eq!(read(0x44), 0xfee0_1000, "address");
        assert_eq!(read(0x4c) & 0xffff, 0x99, "data, after the upper address");
        assert_eq!(read(0x40) >> 16 & 1, 1, "enabled");
        assert_eq!(read(4) & 4, 4, "a message is a write");
        assert!(world.attached.is_empty());
    });
    let refused = booted.client(0).assign(at(EDU), 0, ContextChoice::Shared);
    assert_eq!(refused.unwrap_err().rule, Rule::Withheld);
}
