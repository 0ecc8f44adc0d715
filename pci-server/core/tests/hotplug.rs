//! Cards that come and go while the shard serves: what clients hear, what is left of a
//! card that is gone, in the middle of anything.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::plug::*;
use common::scene::at;
use common::*;
use ipc_proto::{Badge, BadgeKind, ClientId, DeviceState, EventKind, Mechanism, Rule, Switch, pci};
use sim::config::SlotEvent;

const GRACE: u64 = pci_core::ports::GRACE_US;

#[test]
fn ports_interrupt_with_the_shards_message() {
    let booted = booted(&[]);
    booted.world(|world| {
        let port = world.machine.snapshot(at(PORT));
        let msi = usize::from(MSI);
        assert_eq!(port[msi], 5);
        assert_eq!(port[msi + 2] & 0x71, 1, "one message, enabled");
        // What the port sends is its own; what arrives is the shard's.
        let (handle, vector, count) = world.remapped[&at(PORT)][0];
        assert_eq!((vector.address, vector.data, count), (0xfee0_0000, 0x55, 1));
        let own = 0xfee0_0018 | handle << 5;
        assert_eq!(port[msi + 4..msi + 8], own.to_le_bytes());
        assert_eq!(port[msi + 12..msi + 14], [0, 0]);
        assert_eq!(port[4] & 4, 4, "may write messages");
        let control = u16::from_le_bytes([port[0x58], port[0x59]]);
        assert_eq!(control & 0x103b, 0x103b, "events interrupt");
    });
}

#[test]
fn a_card_is_announced_to_those_who_may_have_it_and_can_be_used() {
    let booted = booted(&[]);
    booted.plug(PORT, vec![(CARD, card())]);
    booted.rest();
    let added = (EventKind::Added, at(CARD), 0);
    assert_eq!(booted.news(0), [added]);
    assert_eq!(booted.news(1), [added]);
    assert_eq!(booted.news(2), []);
    let device = booted.assigned(0, at(CARD), 1);
    device.msi_enable(Mechanism::Msi, 0, 1, 2).unwrap();
    device.bus_master(Switch::On).unwrap();
    device.reset().unwrap();
    device.release().unwrap();
}

#[test]
fn the_button_gives_the_holder_a_grace_and_then_everything_is_taken() {
    let booted = booted(&[(CARD, card())]);
    let before = booted.world(|world| world.kernel.slots_used());
    let device = booted.assigned(0, at(CARD), 1);
    device.msi_enable(Mechanism::Msi, 0, 1, 2).unwrap();
    booted.press(PORT);
    booted.interrupts();
    assert_eq!(
        booted.news(0),
        [(EventKind::RemovalRequested, at(CARD), GRACE)]
    );
    assert_eq!(booted.news(1), []);
    assert_eq!(
        booted.world(|world| world.machine.power_indicator(at(PORT))),
        2
    );
    booted.pass(GRACE - 1_000);
    assert!(device.info().is_ok(), "the grace is not over");
    booted.rest();
    assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
    assert!(!booted.knows(CARD));
    let removed = (EventKind::Removed, at(CARD), 0);
    assert_eq!(booted.news(0), [removed]);
    assert_eq!(booted.news(1), [removed]);
    booted.world(|world| {
        assert!(!world.machine.has_power(at(PORT)));
        assert_eq!(world.machine.power_indicator(at(PORT)), 3);
        assert_eq!(world.kernel.slots_used(), before);
        assert!(world.attached.is_empty() && world.vectors.is_empty());
        assert!(world.kernel.held_by_clients().is_empty());
    });
}

#[test]
fn a_device_that_is_to_be_removed_is_given_to_nobody() {
    let booted = booted(&[(CARD, card().multi_function()), ("01:00.1", plain())]);
    booted.assigned(0, at(CARD), 1);
    booted.press(PORT);
    booted.interrupts();
    let refused = booted
        .client(1)
        .assign(at("01:00.1"), 1, ipc_proto::ContextChoice::Shared);
    assert_eq!(refused.unwrap_err().rule, Rule::DeviceBusy);
    // The holder lets go: nobody needs the rest of the grace.
    let start = booted.world(|world| world.clock_us());
    booted.device(booted.badge_in(0, 1)).release().unwrap();
    booted.rest();
    let took = booted.world(|world| world.clock_us()) - start;
    assert!(took < GRACE, "{took} us");
    assert!(!booted.knows(CARD) && !booted.knows("01:00.1"));
}

#[test]
fn a_second_press_leaves_everything_with_its_holder() {
    let booted = booted(&[(CARD, card())]);
    let device = booted.assigned(0, at(CARD), 1);
    booted.press(PORT);
    booted.interrupts();
    booted.press(PORT);
    booted.rest();
    assert!(device.info().is_ok());
    booted.pass(2 * GRACE);
    assert!(device.info().is_ok());
    device.release().unwrap();
    booted.assigned(1, at(CARD), 1);
}

#[test]
fn a_card_that_is_pulled_leaves_nothing_behind_and_is_not_touched() {
    let booted = booted(&[(CARD, card()), (OTHER_CARD, plain())]);
    let other = booted.assigned(1, at(OTHER_CARD), 1);
    let before = booted.world(|world| world.kernel.slots_used());
    let device = booted.assigned(0, at(CARD), 1);
    device.msi_enable(Mechanism::Msi, 0, 1, 2).unwrap();
    booted.pull(PORT);
    booted.world(|world| world.did.clear());
    booted.rest();
    booted.world(|world| {
        let touched = world
            .did
            .iter()
            .any(|did| matches!(did, Did::Wrote { at: device, .. } if *device == at(CARD)));
        assert!(!touched, "{:?}", world.did);
        assert_eq!(world.kernel.slots_used(), before);
        assert!(!world.attached.contains_key(&at(CARD)));
        assert!(world.vectors.is_empty());
    });
    assert!(!booted.knows(CARD));
    assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
    assert_eq!(booted.news(0), [(EventKind::Removed, at(CARD), 0)]);
    assert!(other.info().is_ok());
    // It comes again, and is a new device.
    booted.plug(PORT, vec![(CARD, card())]);
    booted.rest();
    assert_eq!(booted.news(0), [(EventKind::Added, at(CARD), 0)]);
    booted.assigned(1, at(CARD), 5);
}

#[test]
fn a_card_that_is_pulled_in_the_middle_of_a_reset_answers_the_one_who_waits() {
    for moment in [0, 50_000, 105_000] {
        let booted = booted(&[(CARD, card())]);
        booted.assigned(0, at(CARD), 1);
        let badge = booted.badge_in(0, 1);
        let ticket = booted.parked(badge, pci::Request::Reset {});
        booted.pass(moment);
        let early = booted.answer(ticket);
        booted.pull(PORT);
        booted.rest();
        if early.is_none() {
            let answer = booted.answer(ticket).unwrap();
            assert_eq!(
                answer.label,
                Rule::NoSuchDevice as u64,
                "pulled after {moment} us"
            );
        }
        assert!(!booted.knows(CARD));
        assert_eq!(booted.supervisor().figures().unwrap().parked, 0);
    }
}

#[test]
fn a_card_that_is_pulled_in_the_middle_of_a_release_is_released() {
    for moment in [0, 50_000, 105_000] {
        let booted = booted(&[(CARD, card())]);
        booted.assigned(0, at(CARD), 1);
        let badge = booted.badge_in(0, 1);
        let ticket = booted.parked(badge, pci::Request::Release {});
        booted.pass(moment);
        booted.pull(PORT);
        booted.rest();
        assert_eq!(
            booted.answer(ticket).unwrap().label,
            0,
            "pulled after {moment} us"
        );
        assert!(!booted.knows(CARD));
    }
}

#[test]
fn the_supervisor_is_not_kept_waiting_by_a_card_that_is_gone() {
    let booted = booted(&[(CARD, card())]);
    booted.assigned(0, at(CARD), 1);
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.pull(PORT);
    booted.rest();
    assert_eq!(booted.supervisor().pending().unwrap().count, 0);
    assert_eq!(booted.world(|world| world.told_supervisor()), 1);
}

#[test]
fn a_holder_that_dies_during_the_grace_ends_it() {
    let booted = booted(&[(CARD, card())]);
    booted.assigned(0, at(CARD), 1);
    booted.press(PORT);
    booted.interrupts();
    booted.supervisor().client_gone(ClientId(0)).unwrap();
    booted.rest();
    assert!(!booted.knows(CARD));
    assert!(!booted.world(|world| world.machine.has_power(at(PORT))));
}

#[test]
fn an_administrator_takes_a_card_away() {
    let booted = booted(&[(CARD, card().multi_function()), ("01:00.1", plain())]);
    let device = booted.assigned(0, at(CARD), 1);
    let reply = booted.admin().remove(at("01:00.1")).unwrap();
    assert_eq!(reply.functions, 2);
    assert!(!booted.world(|world| world.machine.has_power(at(PORT))));
    assert_eq!(device.info().unwrap_err().rule, Rule::StaleCapability);
    let refused = booted.admin().remove(at(CARD)).unwrap_err();
    assert_eq!(refused.rule, Rule::NoSuchDevice);
    // The card is still in its slot: a scan gives it power.
    let reply = booted.admin().rescan().unwrap();
    assert_eq!((reply.added, reply.removed), (2, 0));
    assert!(booted.knows(CARD) && booted.knows("01:00.1"));
}

#[test]
fn what_belongs_to_the_platform_is_not_removed() {
    let booted = booted(&[]);
    let refused = booted.admin().remove(at(PORT)).unwrap_err();
    assert_eq!(refused.rule, Rule::NotRemovable);
    let refused = booted.admin().remove(at(CARD)).unwrap_err();
    assert_eq!(refused.rule, Rule::NoSuchDevice);
}

#[test]
fn a_device_without_a_slot_is_taken_away_and_found_again() {
    let booted = booted(&[("00:05.0", card())]);
    booted.assigned(0, at("00:05.0"), 1);
    assert_eq!(booted.admin().remove(at("00:05.0")).unwrap().functions, 1);
    assert!(!booted.knows("00:05.0"));
    assert_eq!(booted.news(1), [(EventKind::Removed, at("00:05.0"), 0)]);
    let reply = booted.admin().rescan().unwrap();
    assert_eq!((reply.functions, reply.added, reply.removed), (2, 1, 0));
    booted.assigned(1, at("00:05.0"), 1);
}

#[test]
fn a_scan_finds_what_came_and_went_without_a_word() {
    let booted = booted(&[("00:05.0", card()), ("00:06.0", plain())]);
    let held = booted.assigned(0, at("00:05.0"), 1);
    booted.world(|world| {
        world.machine.remove(at("00:05.0"));
        world.machine.add("00:07.0", card());
    });
    let reply = booted.admin().rescan().unwrap();
    assert_eq!((reply.functions, reply.added), (4, 1));
    booted.rest();
    assert!(held.info().is_err());
    assert!(!booted.knows("00:05.0") && booted.knows("00:07.0") && booted.knows("00:06.0"));
    assert!(booted.world(|world| world.attached.is_empty()));
}

/// It finds something new on the bus above, and comes by the card there.
#[test]
fn a_scan_leaves_a_card_to_its_slot() {
    let booted = booted(&[("00:05.0", card())]);
    let removed = booted.admin().remove(at("00:05.0"));
    assert_eq!(removed.unwrap().functions, 1);
    booted.plug(PORT, vec![("01:00.0", card())]);
    booted.parked(Badge::plain(BadgeKind::Admin, 0), pci::Request::Rescan {});
    booted.world(|world| world.machine.at_slot(at(PORT), SlotEvent::PowerFault));
    booted.rest();
    assert!(booted.knows("00:05.0"));
    assert!(!booted.knows(CARD), "it has no power");
    booted.pull(PORT);
    booted.rest();
    booted.plug(PORT, vec![("01:00.0", card())]);
    booted.rest();
    assert!(booted.knows(CARD));
    booted.pull(PORT);
    booted.rest();
    assert!(!booted.knows(CARD));
}

#[test]
fn a_scan_costs_one_read_a_function_that_is_unchanged() {
    let cards: Vec<String> = (1..24u8).map(|n| format!("00:{n:02x}.0")).collect();
    let cards: Vec<_> = cards.iter().map(|at| (at.as_str(), plain())).collect();
    let booted = booted(&cards);
    let before = booted.world(|world| world.machine.reads());
    let reply = booted.admin().rescan().unwrap();
    let reads = booted.world(|world| world.machine.reads()) - before;
    assert_eq!((reply.functions, reply.added, reply.removed), (25, 0, 0));
    // One a function; one a place that is empty: 7 on the root bus; six for the two ports' slots.
    assert!(reads <= 25 + 7 + 32 + 6, "{reads} reads");
}

#[test]
fn errors_reach_the_holder_once_and_are_cleared() {
    let booted = booted(&[(CARD, card())]);
    booted.assigned(0, at(CARD), 1);
    let id = at(CARD).requester_id();
    booted.world(|world| {
        let machine = &mut world.machine;
        for (function, control) in [(CARD, 0x58), (PORT, usize::from(EXPRESS) + 8)] {
            let bytes = machine.snapshot(at(function));
            assert_eq!(bytes[control] & 7, 7, "{function} reports errors");
            assert_eq!(bytes[5] & 1, 1, "{function} has SERR# on as well");
        }
        // Two of them, of which one is fatal.
        machine.poke(at(CARD), 0x104, &0x0014_0000u32.to_le_bytes());
        machine.poke(at(CARD), 0x10c, &0x0004_0000u32.to_le_bytes());
        machine.poke(at(CARD), 0x110, &0x0000_0041u32.to_le_bytes());
        machine.poke(at(PORT), ERRORS + 0x30, &[0x25]);
        let sources = u32::from(id) << 16 | u32::from(id);
        machine.poke(at(PORT), ERRORS + 0x34, &sources.to_le_bytes());
    });
    booted.shard.borrow_mut().on_interrupt();
    let told = booted.news(0);
    assert_eq!(
        told,
        [
            (EventKind::Error, at(CARD), 3 << 62 | 0x0004_0000),
            (EventKind::Error, at(CARD), 1 << 63 | 0x0010_0000),
            (EventKind::Error, at(CARD), 0x41)
        ]
    );
    booted.world(|world| {
        assert_eq!(world.machine.snapshot(at(CARD))[0x104..0x108], [0; 4]);
        assert_eq!(world.machine.snapshot(at(CARD))[0x110..0x114], [0; 4]);
        let status = usize::from(ERRORS + 0x30);
        assert_eq!(world.machine.snapshot(at(PORT))[status], 0);
    });
    booted.shard.borrow_mut().on_interrupt();
    assert_eq!(booted.news(0), []);
}

#[test]
fn a_flood_of_errors_is_not_listened_to_for_a_second() {
    let booted = booted(&[(CARD, card())]);
    let command = || {
        let place = usize::from(ERRORS + 0x2c);
        booted.world(|world| world.machine.snapshot(at(PORT))[place])
    };
    assert_eq!(command(), 7);
    for _ in 0..40 {
        booted.world(|world| {
            world.machine.poke(at(PORT), ERRORS + 0x30, &[0x01]);
        });
        booted.shard.borrow_mut().on_interrupt();
    }
    assert_eq!(command(), 0);
    booted.rest();
    assert_eq!(command(), 7);
}

#[test]
fn what_is_behind_a_contained_error_is_broken_until_the_card_goes() {
    const CONTAINMENT: u16 = 0x140;
    let mut machine = machine(&[(CARD, card())]);
    let mut port = machine.space(at(PORT)).unwrap();
    // After access control: containment, with its status and control registers.
    port.set(CONTAINMENT, &[0x1d, 0x00, 0x01, 0x00]);
    port.set(0x138 + 2, &[0x01, 0x14]);
    port.allow(CONTAINMENT + 6, &[0x0b]);
    port.allow_clear(CONTAINMENT + 8, &[0x09]);
    machine.insert(at(PORT), port);
    let booted = booted_on(machine);
    let device = booted.assigned(0, at(CARD), 1);
    booted.world(|world| {
        let control = world.machine.snapshot(at(PORT))[usize::from(CONTAINMENT + 6)];
        assert_eq!(control & 0xb, 0x9, "fatal errors, and an interrupt");
        world.machine.poke(at(PORT), CONTAINMENT + 8, &[0x09]);
        world.did.clear();
    });
    booted.shard.borrow_mut().on_interrupt();
    booted.rest();
    assert!(device.info().is_err());
    let state = || booted.shard.borrow().devices().at(at(CARD)).unwrap().state;
    assert_eq!(state(), DeviceState::Broken);
    let rule = Rule::DeviceBroken as u64;
    assert_eq!(booted.news(0), [(EventKind::Broken, at(CARD), rule)]);
    let contained =
        || booted.world(|world| world.machine.snapshot(at(PORT))[usize::from(CONTAINMENT + 8)]);
    assert_eq!(contained(), 1, "the link stays off");
    booted.world(|world| {
        assert!(world.attached.is_empty());
        let touched =
            |did: &Did| matches!(did, Did::Wrote { at: device, .. } if *device == at(CARD));
        assert!(!world.did.iter().any(touched));
    });
    booted.pull(PORT);
    booted.rest();
    assert!(!booted.knows(CARD));
    assert_eq!(contained(), 0, "for another card");
    booted.plug(PORT, vec![(CARD, card())]);
    booted.rest();
    booted.assigned(1, at(CARD), 1);
}

#[test]
fn where_nobody_can_be_parked_nothing_begins() {
    let booted = booted(&[(CARD, card())]);
    let device = booted.assigned(0, at(CARD), 1);
    booted.world(|world| world.parking_limit = 0);
    assert_eq!(
        booted.admin().remove(at(CARD)).unwrap_err().rule,
        Rule::TooManyParked
    );
    assert_eq!(
        booted.admin().rescan().unwrap_err().rule,
        Rule::TooManyParked
    );
    booted.rest();
    assert!(device.info().is_ok());
    let state = booted.shard.borrow().devices().at(at(CARD)).unwrap().state;
    assert_eq!(state, DeviceState::Assigned);
}
