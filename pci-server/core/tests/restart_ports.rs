//! A shard that is killed and started again, with cards in slots: the reset of a bus, a card that was pulled meanwhile,
//! virtual functions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::plug::*;
use common::scene::at;
use common::*;
use hw::Sbdf;
use ipc_proto::{ClientId, DeviceState, Mechanism, Switch};

const SECOND: &str = "0000:01:00.1";

fn two() -> Booted {
    booted(&[(CARD, card().multi_function()), (SECOND, card())])
}

fn registers(booted: &Booted, device: &str) -> Vec<u8> {
    booted.world(|world| world.machine.snapshot(at(device)))
}

fn holder(booted: &Booted, device: Sbdf) -> (DeviceState, u16) {
    (0..)
        .map(|index| booted.supervisor().holder(index).unwrap())
        .find(|holder| holder.device == device)
        .map(|holder| (holder.state, holder.holder))
        .unwrap()
}

fn in_use(booted: &Booted, client: u16, device: &str, slot: u16) {
    let stub = booted.assigned(client, at(device), slot);
    stub.msi_enable(Mechanism::Msi, 0, 1, slot + 1).unwrap();
    stub.bus_master(Switch::On).unwrap();
}

#[test]
fn a_bus_that_is_being_reset_comes_back_with_all_that_are_held() {
    for n in 0.. {
        let booted = two();
        in_use(&booted, 0, CARD, 1);
        in_use(&booted, 1, SECOND, 10);
        let before = [CARD, SECOND].map(|device| registers(&booted, device));
        let badge = booted.badge_in(0, 1);
        booted.device(badge).agree_bus_reset().unwrap();
        let other = booted.badge_in(1, 10);
        booted.device(other).agree_bus_reset().unwrap();
        booted.kill_after(n);
        let asked = booted.device(badge).bus_reset();
        let over = !booted.is_dead();
        if over {
            asked.unwrap();
        }
        let booted = booted.restarted();
        booted.rest();
        for (device, client) in [(CARD, 1), (SECOND, 2)] {
            let holder = holder(&booted, at(device));
            assert_eq!(
                holder,
                (DeviceState::Assigned, client),
                "{device} after {n}"
            );
        }
        let now = [CARD, SECOND].map(|device| registers(&booted, device));
        assert!(now == before, "killed after {n} effects");
        // It goes on: everything works, and everything goes back.
        booted.device(badge).reset().unwrap();
        booted.device(other).release().unwrap();
        booted.device(badge).release().unwrap();
        if over {
            return;
        }
    }
}

#[test]
fn a_card_that_was_pulled_meanwhile_is_taken_back() {
    let booted = two();
    in_use(&booted, 0, CARD, 1);
    booted.kill_after(0);
    booted.pull(PORT);
    let booted = booted.restarted();
    booted.rest();
    booted.world(|world| {
        assert!(world.attached.is_empty());
        assert!(world.vectors.is_empty());
        assert_eq!(world.kernel.held_by_clients(), []);
    });
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    // Another one works.
    booted.plug(PORT, vec![(CARD, card())]);
    booted.rest();
    in_use(&booted, 1, CARD, 2);
}

#[test]
fn a_card_that_was_exchanged_meanwhile_is_not_given_to_the_old_ones_holder() {
    let booted = two();
    in_use(&booted, 0, CARD, 1);
    booted.kill_after(0);
    booted.pull(PORT);
    booted.plug(PORT, vec![(CARD, plain())]);
    let booted = booted.restarted();
    booted.rest();
    booted.world(|world| {
        assert_eq!(world.attached.get(&at(CARD)), None);
        assert_eq!(world.kernel.held_by_clients(), []);
    });
    assert_eq!(booted.supervisor().figures().unwrap().assigned, 0);
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.rest();
}

#[test]
fn a_slot_works_after_a_restart() {
    let booted = two();
    in_use(&booted, 0, CARD, 1);
    let booted = booted.restarted();
    booted.rest();
    assert_eq!(holder(&booted, at(CARD)), (DeviceState::Assigned, 1));
    booted.plug(OTHER_PORT, vec![(OTHER_CARD, card())]);
    booted.rest();
    assert!(booted.knows(OTHER_CARD));
    booted.press(PORT);
    booted.pass(pci_core::ports::GRACE_US + 1_000_000);
    booted.rest();
    assert!(!booted.knows(CARD));
    booted.world(|world| assert!(world.attached.is_empty()));
}
