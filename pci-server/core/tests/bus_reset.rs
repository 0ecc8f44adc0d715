//! The reset of a bus: only if everybody agrees, everything is brought back, and it is the
//! last resort of a function that is alone on its bus.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::plug::*;
use common::scene::at;
use common::*;
use ipc_proto::{
    ClientId, ContextChoice, DeviceState, EventKind, Mechanism, ResetKind, Rule, Switch, pci,
};
use sim::config::Misbehaviour;

const SECOND: &str = "0000:01:00.1";
const THIRD: &str = "0000:01:00.2";
const OTHER_SECOND: &str = "0000:04:00.1";

fn three() -> Booted {
    booted(&[
        (CARD, card().multi_function()),
        (SECOND, card()),
        (THIRD, plain()),
    ])
}

fn state(booted: &Booted, device: &str) -> DeviceState {
    booted
        .shard
        .borrow()
        .devices()
        .at(at(device))
        .unwrap()
        .state
}

#[test]
fn all_holders_must_agree_and_all_are_brought_back() {
    let booted = three();
    let first = booted.assigned(0, at(CARD), 1);
    let second = booted.assigned(1, at(SECOND), 1);
    for (device, slot) in [(&first, 2), (&second, 2)] {
        device.msi_enable(Mechanism::Msi, 0, 1, slot).unwrap();
        device.bus_master(Switch::On).unwrap();
    }
    let registers = |device: &str| booted.world(|world| world.machine.snapshot(at(device)));
    let before = [registers(CARD), registers(SECOND), registers(THIRD)];
    assert_eq!(first.bus_reset().unwrap_err().rule, Rule::NotAgreed);
    let agreed = first.agree_bus_reset().unwrap();
    assert_eq!((agreed.port, agreed.missing), (at(PORT), 1));
    let refused = first.bus_reset().unwrap_err();
    assert_eq!(refused.rule, Rule::NotAgreed);
    assert_eq!(refused.about, u64::from(at(SECOND).to_bits()));
    assert_eq!(second.agree_bus_reset().unwrap().missing, 0);
    let start = booted.world(|world| world.clock_us());
    assert_eq!(first.bus_reset().unwrap().functions, 3);
    let took = booted.world(|world| world.clock_us()) - start;
    assert!((101_000..200_000).contains(&took), "{took} us");
    for device in [CARD, SECOND, THIRD] {
        assert_eq!(booted.world(|world| world.machine.resets(at(device))), 1);
    }
    assert_eq!(
        [registers(CARD), registers(SECOND), registers(THIRD)],
        before
    );
    assert_eq!(booted.news(0), []);
    assert_eq!(booted.news(1), [(EventKind::Reset, at(SECOND), 0)]);
    // Agreements end with it.
    assert_eq!(first.bus_reset().unwrap_err().rule, Rule::NotAgreed);
    first.release().unwrap();
    second.release().unwrap();
}

#[test]
fn nobody_touches_what_is_in_reset() {
    let booted = three();
    booted.assigned(0, at(CARD), 1);
    booted.assigned(1, at(SECOND), 1);
    let (first, second) = (booted.badge_in(0, 1), booted.badge_in(1, 1));
    booted.device(first).agree_bus_reset().unwrap();
    booted.device(second).agree_bus_reset().unwrap();
    let ticket = booted.parked(first, pci::Request::BusReset {});
    assert_eq!(
        booted.device(second).release().unwrap_err().rule,
        Rule::DeviceBusy
    );
    let refused = booted.client(1).assign(at(THIRD), 3, ContextChoice::Shared);
    assert_eq!(refused.unwrap_err().rule, Rule::DeviceBusy);
    // A holder dies: its device waits for the end of the reset.
    booted.supervisor().client_gone(ClientId(1)).unwrap();
    booted.pass(50_000);
    assert_eq!(booted.supervisor().pending().unwrap().count, 1);
    booted.rest();
    assert_eq!(booted.answer(ticket).unwrap().label, 0);
    assert_eq!(booted.supervisor().pending().unwrap().count, 0);
    assert_eq!(state(&booted, SECOND), DeviceState::Quarantined);
    assert_eq!(state(&booted, THIRD), DeviceState::Quarantined);
    assert_eq!(state(&booted, CARD), DeviceState::Assigned);
}

#[test]
fn a_function_that_does_not_come_back_is_broken_and_the_others_work() {
    let booted = three();
    let first = booted.assigned(0, at(CARD), 1);
    let second = booted.assigned(1, at(SECOND), 1);
    first.agree_bus_reset().unwrap();
    second.agree_bus_reset().unwrap();
    let ticket = booted.parked(booted.badge_in(0, 1), pci::Request::BusReset {});
    booted.world(|world| {
        let mut space = world.machine.space(at(SECOND)).unwrap();
        space.misbehave(Misbehaviour::AllOnes);
        world.machine.insert(at(SECOND), space);
    });
    booted.rest();
    assert_eq!(booted.answer(ticket).unwrap().label, 0);
    assert!(booted.world(|world| world.clock_us()) < 2_000_000);
    assert_eq!(state(&booted, SECOND), DeviceState::Broken);
    let rule = Rule::ResetTimeout as u64;
    assert_eq!(booted.news(1), [(EventKind::Broken, at(SECOND), rule)]);
    assert!(first.info().is_ok());
    assert!(second.info().is_err());
}

#[test]
fn a_card_that_is_pulled_during_the_reset_is_gone() {
    let booted = three();
    booted.assigned(0, at(CARD), 1);
    let badge = booted.badge_in(0, 1);
    booted.device(badge).agree_bus_reset().unwrap();
    let ticket = booted.parked(badge, pci::Request::BusReset {});
    booted.pull(PORT);
    booted.rest();
    assert_ne!(booted.answer(ticket).unwrap().label, 0);
    assert!(!booted.knows(CARD) && !booted.knows(THIRD));
    assert!(booted.world(|world| world.kernel.held_by_clients().is_empty()));
}

#[test]
fn a_root_bus_is_not_reset() {
    let booted = booted(&[("00:05.0", card())]);
    let device = booted.assigned(0, at("00:05.0"), 1);
    assert_eq!(device.agree_bus_reset().unwrap_err().rule, Rule::NoBusReset);
    assert_eq!(device.bus_reset().unwrap_err().rule, Rule::NoBusReset);
}

#[test]
fn it_is_the_last_resort_of_a_function_alone_on_its_bus() {
    let booted = booted(&[(CARD, plain()), (OTHER_CARD, card())]);
    let device = booted.assigned(0, at(CARD), 1);
    assert_eq!(
        device.info().unwrap().properties.reset,
        Some(ResetKind::Bus)
    );
    assert_eq!(device.reset().unwrap().kind, ResetKind::Bus);
    assert_eq!(booted.world(|world| world.machine.resets(at(CARD))), 1);
    device.release().unwrap();
    assert_eq!(booted.world(|world| world.machine.resets(at(CARD))), 2);
    assert_eq!(
        booted.world(|world| world.machine.resets(at(OTHER_CARD))),
        0
    );
    assert_eq!(state(&booted, CARD), DeviceState::Quarantined);
    booted.rest();
    assert!(booted.knows(CARD), "the slot's events were about the reset");
}

#[test]
fn a_function_that_is_not_alone_has_no_such_reset() {
    let booted = three();
    let device = booted.assigned(0, at(THIRD), 1);
    assert_eq!(device.info().unwrap().properties.reset, None);
    assert_eq!(device.reset().unwrap_err().rule, Rule::NoReset);
    device.release().unwrap();
    assert_eq!(booted.world(|world| world.machine.resets(at(CARD))), 0);
}

#[test]
fn where_nobody_can_be_parked_the_bus_is_left_alone() {
    let booted = three();
    let first = booted.assigned(0, at(CARD), 1);
    first.agree_bus_reset().unwrap();
    booted.world(|world| world.parking_limit = 0);
    assert_eq!(first.bus_reset().unwrap_err().rule, Rule::TooManyParked);
    booted.rest();
    assert_eq!(booted.world(|world| world.machine.resets(at(CARD))), 0);
    assert_eq!(state(&booted, CARD), DeviceState::Assigned);
}

#[test]
fn a_client_has_one_bus_in_reset_at_a_time_and_others_have_theirs() {
    let booted = booted(&[
        (CARD, card()),
        (OTHER_CARD, card().multi_function()),
        (OTHER_SECOND, card()),
    ]);
    for (device, slot) in [(CARD, 1), (OTHER_CARD, 2)] {
        let device = booted.assigned(0, at(device), slot);
        device.agree_bus_reset().unwrap();
    }
    let other = booted.assigned(1, at(OTHER_SECOND), 1);
    other.agree_bus_reset().unwrap();
    booted.parked(booted.badge_in(0, 1), pci::Request::BusReset {});
    let before = booted.state();
    let refusal = booted.device(booted.badge_in(0, 2)).bus_reset();
    let refusal = refusal.unwrap_err();
    assert_eq!((refusal.rule, refusal.about), (Rule::TooManyParked, 1));
    assert_eq!(booted.state(), before);
    let ticket = booted.parked(booted.badge_in(1, 1), pci::Request::BusReset {});
    booted.rest();
    assert_eq!(booted.answer(ticket).unwrap().label, 0);
}

/// A bridge, which may be a card's, says that all buses are behind it: what is elsewhere is neither asked nor reset.
#[test]
fn a_bridge_that_claims_other_buses_resets_none_of_them() {
    let booted = booted(&[(CARD, card()), (OTHER_CARD, plain())]);
    let device = booted.assigned(0, at(CARD), 1);
    device.agree_bus_reset().unwrap();
    // Subordinate Bus Number.
    let truth = booted.world(|world| {
        let truth = world.machine.snapshot(at(PORT))[0x1a];
        world.machine.poke(at(PORT), 0x1a, &[0x3f]);
        truth
    });
    assert_eq!(device.bus_reset().unwrap_err().rule, Rule::NoBusReset);
    assert_eq!(device.agree_bus_reset().unwrap_err().rule, Rule::NoBusReset);
    assert_eq!(state(&booted, OTHER_CARD), DeviceState::Quarantined);
    booted.world(|world| {
        world.machine.poke(at(PORT), 0x1a, &[truth]);
    });
    assert_eq!(device.bus_reset().unwrap().functions, 1);
}
