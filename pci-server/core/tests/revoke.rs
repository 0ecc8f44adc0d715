//! Release and client death: their order, and that nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::devices::*;
use common::scene::*;
use ipc_proto::{ClientId, ContextChoice, DeviceState, Mechanism, Rule, Width, pci};
use sim::config::Misbehaviour;

#[test]
fn a_release_takes_everything_back_in_the_fixed_order() {
    let booted = booted();
    let before = booted.state();
    let device = take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    device.release().unwrap();
    assert_eq!(
        order(&booted, EDU),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked"
        ]
    );
    assert_eq!(booted.world(|world| world.kernel.held_by_clients()), []);
    // Registers, slots, untypeds, vectors, states: as before the assignment. The message stays in
    // the disabled capability.
    booted.world(|world| world.machine.poke(at(EDU), 0x44, &[0; 10]));
    assert_eq!(booted.state(), before);
}

#[test]
fn a_release_with_a_reset_comes_in_the_same_order() {
    let booted = booted();
    let before = booted.state();
    let device = take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
    device.release().unwrap();
    assert_eq!(
        order(&booted, NVME),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "reset",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked",
            "answered",
        ]
    );
    booted.world(|world| assert_eq!(world.machine.resets(at(NVME)), 1));
    assert_eq!(booted.state(), before);
    assert_eq!(booted.supervisor().figures().unwrap().parked, 0);
}

#[test]
fn client_death_is_answered_at_once_and_takes_everything_in_the_same_order() {
    let booted = booted();
    let before = booted.state();
    take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    let gone = booted.supervisor().client_gone(ClientId(0)).unwrap();
    assert_eq!(gone.devices, 1);
    assert_eq!(
        order(&booted, EDU),
        [""; 0],
        "nothing happens before the answer"
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 1);
    booted.settle();
    assert_eq!(
        order(&booted, EDU),
        [
            "capability revoked",
            "interrupts off",
            "mastering off",
            "detached",
            "vectors given back",
            "frames revoked",
            "supervisor told",
        ]
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 0);
    booted.world(|world| world.machine.poke(at(EDU), 0x44, &[0; 10]));
    assert_eq!(booted.state(), before);
    // The client's own capability, copied on, is of no use any more.
    assert_eq!(
        booted
            .client(0)
            .assign(at(EDU), 0, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::ClientGone
    );
    booted
        .client(1)
        .assign(at(EDU), 0, ContextChoice::Shared)
        .unwrap();
}

#[test]
fn the_supervisor_is_told_once_when_the_last_device_is_back() {
    let booted = booted();
    for (slot, device) in [EDU, NVME, NET, SOUND].iter().enumerate() {
        booted.assigned(0, at(device), slot as u16);
    }
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(0))
            .unwrap()
            .devices,
        4
    );
    // Asked again before anything is done: still owed once.
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(0))
            .unwrap()
            .devices,
        4
    );
    assert_eq!(booted.supervisor().pending().unwrap().count, 4);
    booted.settle();
    assert_eq!(booted.world(|world| world.told_supervisor()), 1);
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    // A client without devices is no work.
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(1))
            .unwrap()
            .devices,
        0
    );
    assert_eq!(booted.world(|world| world.told_supervisor()), 2);
    assert_eq!(
        booted
            .supervisor()
            .client_gone(ClientId(2))
            .unwrap_err()
            .rule,
        Rule::BadArgument
    );
}

#[test]
fn a_device_being_taken_back_is_busy_for_everybody() {
    let booted = booted();
    booted.assigned(0, at(NVME), 0);
    let badge = booted.badge_in(0, 0);
    assert_eq!(booted.send(badge, pci::Request::Release {}), None);
    assert_eq!(
        booted
            .client(1)
            .assign(at(NVME), 0, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::DeviceBusy
    );
    assert_eq!(
        booted
            .client(0)
            .assign(at(NVME), 1, ContextChoice::Shared)
            .unwrap_err()
            .rule,
        Rule::DeviceBusy
    );
    assert_eq!(
        booted.device(badge).info().unwrap_err().rule,
        Rule::StaleCapability
    );
    booted.settle();
    booted
        .client(1)
        .assign(at(NVME), 0, ContextChoice::Shared)
        .unwrap();
}

#[test]
fn death_in_the_middle_of_a_reset_or_release_ends_in_one_revocation() {
    for request in [pci::Request::Reset {}, pci::Request::Release {}] {
        for ticks in 0..3 {
            let mut machine = machine();
            machine.add(NVME, nvme(0x80_0000_0000).quiet_after_reset(5));
            let booted = booted_with(machine);
            let before = booted.state();
            take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
            assert_eq!(booted.send(booted.badge_in(0, 0), request), None);
            (0..ticks).for_each(|_| assert!(booted.tick()));
            booted.supervisor().client_gone(ClientId(0)).unwrap();
            booted.settle();
            assert_eq!(booted.supervisor().pending().unwrap().count, 0);
            let told = order(&booted, NVME)
                .iter()
                .filter(|word| **word == "supervisor told")
                .count();
            assert_eq!(told, 1, "{request:?} after {ticks}");
            let revoked = order(&booted, NVME)
                .iter()
                .filter(|word| **word == "capability revoked")
                .count();
            assert_eq!(revoked, 1);
            booted.world(|world| assert_eq!(world.machine.resets(at(NVME)), 1));
            assert_eq!(booted.state(), before, "{request:?} after {ticks}");
        }
    }
}

#[test]
fn a_device_that_vanishes_at_any_access_leaves_nothing_behind() {
    let mut reached = 0;
    for accesses in 0..400 {
        let booted = booted();
        take_everything(&booted, 0, NVME, Mechanism::MsiX, 0);
        booted.world(|world| {
            let mut space = world.machine.remove(at(NVME)).unwrap();
            space.misbehave(Misbehaviour::VanishesAfter { accesses });
            world.machine.insert(at(NVME), space);
        });
        let result = booted.device(booted.badge_in(0, 0)).release();
        let state = booted.client(0).query(at(NVME)).unwrap().state;
        booted.world(|world| {
            assert_eq!(world.kernel.held_by_clients(), [], "after {accesses}");
            assert!(world.attached.is_empty(), "after {accesses}");
            assert!(world.vectors.is_empty(), "after {accesses}");
            assert_eq!(world.bank.split_bytes(), 0, "after {accesses}");
        });
        assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
        if state == DeviceState::Quarantined {
            result.unwrap();
            reached = accesses;
            break;
        }
        assert!(
            matches!(state, DeviceState::Absent | DeviceState::Broken),
            "{state:?} after {accesses}"
        );
    }
    assert!(reached > 10, "the device is never accessed long enough");
}

#[test]
fn mastering_that_stays_on_keeps_the_vectors_out_of_circulation() {
    let booted = booted();
    let device = take_everything(&booted, 0, EDU, Mechanism::Msi, 0);
    booted.world(|world| {
        let mut space = world.machine.remove(at(EDU)).unwrap();
        space.misbehave(Misbehaviour::KeepsOnes { bytes: 4..5 });
        world.machine.insert(at(EDU), space);
    });
    assert_eq!(device.release().unwrap_err().rule, Rule::DeviceBroken);
    assert_eq!(
        booted.client(0).query(at(EDU)).unwrap().state,
        DeviceState::Broken
    );
    booted.world(|world| {
        assert!(world.attached.is_empty());
        assert!(world.vectors.contains_key(&at(EDU)));
        assert_eq!(world.kernel.held_by_clients(), []);
    });
}

#[test]
fn what_a_holder_changed_is_not_left_for_the_next() {
    let booted = booted();
    let device = booted.assigned(0, at(NVME), 0);
    // Relaxed ordering and no snoop off, parity response on.
    let before = booted.world(|world| world.machine.snapshot(at(NVME)));
    device.config_write(0x5c, Width::Word, 0x2830).unwrap();
    device.config_write(0x04, Width::Word, 0x0442).unwrap();
    assert_ne!(
        booted.world(|world| world.machine.snapshot(at(NVME))),
        before
    );
    device.release().unwrap();
    booted
        .client(1)
        .assign(at(NVME), 0, ContextChoice::Shared)
        .unwrap();
    assert_eq!(
        booted.world(|world| world.machine.snapshot(at(NVME))),
        before
    );
}
