//! Ports and cards that do not do what they should, while the shard serves: they cost a bounded amount of work,
//! nothing hangs, and others go on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::plug::*;
use common::scene::at;
use common::*;
use ipc_proto::{DeviceState, EventKind, Rule};
use proptest::prelude::*;
use sim::config::{Machine, Misbehaviour, SlotEvent, VirtualShape};

/// Configuration accesses that one interrupt, or one look, may cost with one card.
const MOST: usize = 600;

fn accesses(booted: &Booted) -> usize {
    booted.world(|world| world.machine.reads() + world.machine.writes())
}

/// An interrupt of ports, and what it cost.
fn interrupt(booted: &Booted) -> usize {
    let before = accesses(booted);
    booted.shard.borrow_mut().on_interrupt();
    accesses(booted) - before
}

#[test]
fn a_port_that_never_says_that_a_command_is_completed_works_all_the_same() {
    let mut machine = machine(&[]);
    machine.mute_slot(at(PORT));
    let booted = booted_on(machine);
    for _ in 0..2 {
        booted.plug(PORT, vec![(CARD, card())]);
        booted.rest();
        booted.assigned(0, at(CARD), 1).release().unwrap();
        booted.press(PORT);
        booted.rest();
        // What the first command held up was given a second later at the most.
        assert!(!booted.world(|world| world.machine.has_power(at(PORT))));
        assert!(!booted.knows(CARD));
        booted.pull(PORT);
        booted.rest();
    }
}

#[test]
fn errors_that_a_root_port_never_lets_go_cost_a_bounded_amount() {
    let mut machine = machine(&[(CARD, card())]);
    let mut port = machine.space(at(PORT)).unwrap();
    // Root Error Status: nothing is cleared by a write.
    port.allow_clear(ERRORS + 0x30, &[0]);
    machine.insert(at(PORT), port);
    let booted = booted_on(machine);
    let device = booted.assigned(0, at(CARD), 1);
    booted.world(|world| world.machine.poke(at(PORT), ERRORS + 0x30, &[0x7f]));
    for _ in 0..100 {
        let cost = interrupt(&booted);
        assert!(cost < MOST, "{cost}");
    }
    // It is not listened to for a second, and then again.
    let listens = || {
        let place = usize::from(ERRORS + 0x2c);
        booted.world(|world| world.machine.snapshot(at(PORT))[place]) != 0
    };
    assert!(!listens());
    let before = accesses(&booted);
    booted.pass(10_000_000);
    let cost = accesses(&booted) - before;
    assert!(cost < 20 * MOST, "{cost} in ten seconds");
    assert!(device.info().is_ok());
    assert_eq!(booted.news(0), []);
}

#[test]
fn errors_that_a_function_never_lets_go_are_told_at_a_bounded_pace() {
    let booted = booted(&[(CARD, card())]);
    booted.assigned(0, at(CARD), 1);
    booted.world(|world| {
        let kept = Misbehaviour::KeepsOnes {
            bytes: 0x104..0x108,
        };
        world.machine.poke(at(CARD), 0x104, &[0x10, 0, 0, 0]);
        world.machine.misbehave(at(CARD), kept);
    });
    let id = at(CARD).requester_id().to_le_bytes();
    for _ in 0..1000 {
        // The port would send no message once it is not listened to; here it sends one all the same.
        booted.world(|world| {
            world.machine.poke(at(PORT), ERRORS + 0x36, &id);
            world.machine.poke(at(PORT), ERRORS + 0x30, &[0x04]);
        });
        let cost = interrupt(&booted);
        assert!(cost < MOST, "{cost}");
    }
    // The queue has a bound, too: nobody else's memory is used.
    let event = booted.client(0).event_next().unwrap();
    assert_eq!((event.event, event.device), (EventKind::Error, at(CARD)));
    assert!(booted.client(1).event_next().is_err());
}

#[test]
fn containment_that_never_ends_is_told_once() {
    const CONTAINMENT: u16 = 0x140;
    let mut machine = machine(&[(CARD, card())]);
    let mut port = machine.space(at(PORT)).unwrap();
    port.set(CONTAINMENT, &[0x1d, 0x00, 0x01, 0x00]);
    port.set(0x138 + 2, &[0x01, 0x14]);
    port.allow(CONTAINMENT + 6, &[0x0b]);
    // Its status cannot be cleared.
    machine.insert(at(PORT), port);
    let booted = booted_on(machine);
    booted.assigned(0, at(CARD), 1);
    booted.world(|world| world.machine.poke(at(PORT), CONTAINMENT + 8, &[0x09]));
    for _ in 0..50 {
        let cost = interrupt(&booted);
        assert!(cost < MOST, "{cost}");
        booted.rest();
    }
    let rule = Rule::DeviceBroken as u64;
    assert_eq!(booted.news(0), [(EventKind::Broken, at(CARD), rule)]);
    booted.pull(PORT);
    booted.rest();
    assert!(!booted.knows(CARD));
}

#[test]
fn a_port_that_vanishes_at_any_access_takes_only_its_own_card_along() {
    for accesses in 0..400 {
        let booted = booted(&[(OTHER_CARD, card())]);
        let other = booted.assigned(1, at(OTHER_CARD), 1);
        booted.world(|world| {
            let gone = Misbehaviour::VanishesAfter { accesses };
            world.machine.misbehave(at(PORT), gone);
        });
        booted.plug(PORT, vec![(CARD, card())]);
        // Messages come or not; the scan looks at all of them.
        booted.shard.borrow_mut().on_interrupt();
        booted.rest();
        let request = ipc_proto::pci::Request::Rescan {};
        let badge = ipc_proto::Badge::plain(ipc_proto::BadgeKind::Admin, 0);
        let _ = booted.send(badge, request);
        booted.rest();
        assert!(other.info().is_ok(), "after {accesses} accesses");
    }
}

#[test]
fn a_card_that_vanishes_at_any_access_of_its_arrival_or_use_leaves_nothing() {
    for accesses in 0..400 {
        let booted = booted(&[]);
        let going = card().misbehave(Misbehaviour::VanishesAfter { accesses });
        booted.plug(PORT, vec![(CARD, going)]);
        booted.rest();
        if let Ok(reply) = booted
            .client(0)
            .assign(at(CARD), 1, ipc_proto::ContextChoice::Shared)
        {
            let _ = reply;
            let device = booted.device(booted.badge_in(0, 1));
            let _ = device.msi_enable(ipc_proto::Mechanism::Msi, 0, 1, 2);
            let badge = booted.badge_in(0, 1);
            let _ = booted.send(badge, ipc_proto::pci::Request::Reset {});
            booted.rest();
            let _ = booted.send(badge, ipc_proto::pci::Request::Release {});
            booted.rest();
        }
        booted.pull(PORT);
        booted.rest();
        assert!(!booted.knows(CARD), "after {accesses} accesses");
        assert!(
            booted.world(|world| world.attached.is_empty()),
            "after {accesses} accesses"
        );
    }
}

/// A card with virtual functions.
fn physical() -> sim::config::Endpoint {
    let shape = VirtualShape {
        total: 4,
        first_offset: 1,
        stride: 1,
        device: 0x0011,
        bar_bytes: 0,
    };
    card().virtualization(shape, card())
}

/// Enables four of them and gives everything back, with whatever answer.
fn enable_and_release(booted: &Booted) {
    if booted
        .client(0)
        .assign(at(CARD), 1, ipc_proto::ContextChoice::Shared)
        .is_err()
    {
        return;
    }
    let badge = booted.badge_in(0, 1);
    for count in [4, 0] {
        let _ = booted.send(badge, ipc_proto::pci::Request::VirtualFunctions { count });
        booted.rest();
    }
    let _ = booted.send(badge, ipc_proto::pci::Request::Release {});
    booted.rest();
}

#[test]
fn a_number_of_virtual_functions_that_changes_is_a_fault_of_the_card() {
    for seed in 1..40 {
        // Initial, total and enabled number, first offset and stride, one after the other.
        for bytes in [
            0x0c..0x0e,
            0x0e..0x10,
            0x10..0x12,
            0x14..0x16,
            0x16..0x18,
            0x08..0x18,
        ] {
            let booted = booted(&[(CARD, physical()), (OTHER_CARD, card())]);
            let other = booted.assigned(1, at(OTHER_CARD), 1);
            let place = virtualization(&booted);
            booted.world(|world| {
                let bytes = place + bytes.start..place + bytes.end;
                world
                    .machine
                    .misbehave(at(CARD), Misbehaviour::Changing { bytes, seed });
            });
            let before = accesses(&booted);
            enable_and_release(&booted);
            let cost = accesses(&booted) - before;
            assert!(cost < 20 * MOST, "{cost}");
            assert!(other.info().is_ok());
            assert_eq!(booted.world(|world| world.attached.len()), 1);
        }
    }
}

#[test]
fn a_card_that_vanishes_while_its_virtual_functions_come_or_go_leaves_nothing() {
    for accesses in 0..200 {
        let booted = booted(&[(CARD, physical())]);
        booted.world(|world| {
            let gone = Misbehaviour::VanishesAfter { accesses };
            world.machine.misbehave(at(CARD), gone);
        });
        enable_and_release(&booted);
        booted.pull(PORT);
        booted.rest();
        assert!(!booted.knows(CARD), "after {accesses} accesses");
        assert!(
            booted.world(|world| world.attached.is_empty()),
            "after {accesses} accesses"
        );
    }
}

/// Where the capability of virtual functions is.
fn virtualization(booted: &Booted) -> u16 {
    let shard = booted.shard.borrow();
    let device = shard.devices().at(at(CARD)).unwrap();
    device.virtualization
}

/// What happens at a slot.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Plug,
    Pull,
    Press,
    PowerFault,
    Pass(u64),
    Assign,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Plug),
        Just(Happening::Pull),
        Just(Happening::Press),
        Just(Happening::PowerFault),
        (1u64..3_000_000).prop_map(Happening::Pass),
        Just(Happening::Assign),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// A slot that flaps, in every state: it always comes to rest, and then a card works.
    #[test]
    fn a_slot_that_flaps_comes_to_rest(
        happenings in proptest::collection::vec(happening(), 0..60),
        mute in any::<bool>(),
    ) {
        let mut machine: Machine = machine(&[]);
        if mute {
            machine.mute_slot(at(PORT));
        }
        let booted = booted_on(machine);
        let mut there = false;
        for happening in happenings {
            match happening {
                Happening::Plug if !there => {
                    booted.plug(PORT, vec![(CARD, card())]);
                    there = true;
                }
                Happening::Pull if there => {
                    booted.pull(PORT);
                    there = false;
                }
                Happening::Plug | Happening::Pull => {}
                Happening::Press => booted.press(PORT),
                Happening::PowerFault => booted.world(|world| {
                    world.machine.at_slot(at(PORT), SlotEvent::PowerFault);
                }),
                Happening::Pass(micros) => booted.pass(micros),
                Happening::Assign => {
                    let context = ipc_proto::ContextChoice::Shared;
                    let _ = booted.client(0).assign(at(CARD), 1, context);
                }
            }
        }
        if there {
            booted.pull(PORT);
        }
        booted.rest();
        prop_assert!(!booted.knows(CARD));
        prop_assert!(booted.world(|world| world.attached.is_empty()));
        booted.plug(PORT, vec![(CARD, card())]);
        booted.rest();
        let state = booted.shard.borrow().devices().at(at(CARD)).map(|device| device.state);
        prop_assert_eq!(state, Some(DeviceState::Quarantined));
        booted.assigned(1, at(CARD), 3).release().unwrap();
    }
}
