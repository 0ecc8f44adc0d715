//! Anything that can happen to cards, their functions and their holders, in any order, with calls failing
//! and time passing in between: the invariants hold after every step, and at the end everything is back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod common;

use common::kernel::Object;
use common::plug::*;
use common::scene::at;
use common::*;
use hw::Sbdf;
use ipc_proto::{Badge, BadgeKind, ClientId, ContextChoice, DeviceState, Mechanism, Switch, pci};
use proptest::prelude::*;
use sim::config::{Endpoint, ExpressShape, Misbehaviour, PortKind, SlotEvent, VirtualShape};

const PORTS: [&str; 2] = [PORT, OTHER_PORT];

#[derive(Clone, Debug)]
enum Step {
    /// A card is put into a slot, if that is empty.
    Plug { port: usize, kind: usize },
    /// It is pulled out.
    Pull(usize),
    /// Button or power fault.
    Slot(usize, bool),
    /// A function stops answering.
    Dies(usize),
    /// A client asks for a function.
    Assign {
        client: u16,
        device: usize,
        slot: u16,
    },
    /// Something is asked over a device capability that lies somewhere, or lay there once.
    Use { which: usize, request: pci::Request },
    /// An administrator asks for something.
    Admin(Option<usize>),
    /// A client is gone.
    Gone(u16),
    /// Time.
    Pass(u64),
    /// A call of the next step fails.
    FailNext(usize),
}

/// Where functions can be: of both cards, their virtual ones, and one without a slot.
const PLACES: [&str; 8] = [
    "01:00.0", "01:00.1", "01:00.2", "01:00.3", "04:00.0", "04:00.1", "00:05.0", "00:06.0",
];

fn request() -> impl Strategy<Value = pci::Request> {
    use pci::Request::*;
    prop_oneof![
        3 => Just(Release {}),
        2 => Just(Reset {}),
        1 => prop_oneof![Just(Switch::On), Just(Switch::Off)].prop_map(|switch| BusMaster { switch }),
        2 => (0u16..20).prop_map(|slot| MsiEnable { mechanism: Mechanism::Msi, first: 0, count: 1, slot: slot + 100 }),
        1 => Just(MsiDisable {}),
        3 => Just(AgreeBusReset {}),
        2 => Just(BusReset {}),
        4 => (0u16..4).prop_map(|count| VirtualFunctions { count }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0usize..2;
    prop_oneof![
        4 => (port.clone(), 0usize..4).prop_map(|(port, kind)| Step::Plug { port, kind }),
        2 => port.clone().prop_map(Step::Pull),
        2 => (port, prop::bool::weighted(0.9)).prop_map(|(port, button)| Step::Slot(port, button)),
        1 => (0usize..8).prop_map(Step::Dies),
        6 => (0u16..3, 0usize..8, 0u16..8).prop_map(|(client, device, slot)| Step::Assign { client, device, slot }),
        8 => (0usize..24, request()).prop_map(|(which, request)| Step::Use { which, request }),
        2 => prop::option::of(0usize..8).prop_map(Step::Admin),
        1 => (0u16..3).prop_map(Step::Gone),
        6 => prop_oneof![Just(1_000u64), Just(60_000), Just(150_000), Just(1_500_000), Just(6_000_000)].prop_map(Step::Pass),
        1 => (0usize..6).prop_map(Step::FailNext),
    ]
}

fn with_virtual() -> Endpoint {
    let express = ExpressShape {
        kind: PortKind::Endpoint,
        flr: true,
        slot: None,
    };
    let shape = VirtualShape {
        total: 3,
        first_offset: 1,
        stride: 1,
        device: 0x0011,
        bar_bytes: 0,
    };
    Endpoint::new(0x1b36, 0x0010)
        .class(0x01, 0x08, 0x02)
        .express(express)
        .virtualization(shape, virtual_template(express))
}

/// Without a BAR, so that no memory is to be placed.
fn virtual_template(express: ExpressShape) -> Endpoint {
    Endpoint::new(0xffff, 0xffff)
        .class(0x01, 0x08, 0x02)
        .express(express)
}

fn cards(port: usize, kind: usize) -> Vec<(&'static str, Endpoint)> {
    let (first, second) = match port {
        0 => ("01:00.0", "01:00.1"),
        _ => ("04:00.0", "04:00.1"),
    };
    match kind {
        0 => vec![(first, card())],
        1 => vec![(first, plain())],
        2 => vec![(first, card().multi_function()), (second, plain())],
        _ => vec![(first, with_virtual())],
    }
}

fn check(booted: &Booted, failed: bool) {
    let states: Vec<_> = (0..)
        .map_while(|index| booted.supervisor().holder(index).ok())
        .collect();
    booted.world(|world| {
        for holder in &states {
            let at = holder.device;
            let held = holder.holder != 0;
            let context = world.attached.get(&at).map(|client| client.0 + 1);
            match holder.state {
                DeviceState::Assigned | DeviceState::Draining => {
                    assert_eq!(context, Some(holder.holder), "{at} in whose context?");
                }
                DeviceState::Resetting if held => {
                    assert_eq!(context, Some(holder.holder), "{at} in whose context?");
                }
                DeviceState::Quarantined
                | DeviceState::Resetting
                | DeviceState::Absent
                | DeviceState::Withheld => {
                    assert!(!held, "{holder:?}");
                    assert_eq!(context, None, "{at} is attached without a holder");
                    assert!(!world.vectors.contains_key(&at), "{at} keeps vectors");
                }
                DeviceState::Broken => {
                    assert!(!held);
                    assert!(failed || context.is_none(), "{at} is broken and attached");
                }
                DeviceState::Assigning => panic!("{at} is being assigned"),
            }
            let masters = world
                .machine
                .snapshot(at)
                .get(4)
                .is_some_and(|byte| byte & 4 != 0);
            if holder.state == DeviceState::Quarantined {
                assert!(!masters, "{at} masters without a holder");
            }
        }
        for at in world.attached.keys() {
            assert!(
                states.iter().any(|holder| holder.device == *at),
                "{at} is attached and unknown"
            );
        }
        // A capability that works leads to a device that its client holds.
        for (place, object) in world.kernel.held_by_clients() {
            let Object::Device { badge } = object else {
                continue;
            };
            let badge = Badge::from_word(badge).unwrap();
            assert_eq!(badge.kind, BadgeKind::Device, "{place:?}");
        }
        assert!(world.parked.len() <= world.parking_limit);
    });
}

fn run(steps: Vec<Step>) {
    let booted = booted(&[("00:05.0", card()), ("00:06.0", with_virtual())]);
    let slots = booted.world(|world| world.kernel.slots_used());
    let mut badges: Vec<Badge> = Vec::new();
    let mut failed = false;
    for step in steps {
        match step {
            Step::Plug { port, kind } => {
                let empty = booted.world(|world| world.machine.card(at(PORTS[port])).is_none());
                if empty {
                    booted.plug(PORTS[port], cards(port, kind));
                }
            }
            Step::Pull(port) => booted.pull(PORTS[port]),
            Step::Slot(port, button) => booted.world(|world| {
                let event = if button {
                    SlotEvent::Button
                } else {
                    SlotEvent::PowerFault
                };
                world.machine.at_slot(at(PORTS[port]), event);
            }),
            Step::Dies(device) => booted.world(|world| {
                let place: Sbdf = PLACES[device].parse().unwrap();
                if let Some(mut space) = world.machine.space(place) {
                    space.misbehave(Misbehaviour::AllOnes);
                    world.machine.insert(place, space);
                }
            }),
            Step::Assign {
                client,
                device,
                slot,
            } => {
                let request = pci::Request::Assign {
                    device: PLACES[device].parse().unwrap(),
                    slot,
                    context: ContextChoice::Shared,
                };
                let reply = booted.send(Badge::plain(BadgeKind::Client, client), request);
                if reply.is_some_and(|reply| reply.label == 0) {
                    badges.push(booted.badge_in(client, slot));
                }
            }
            Step::Use { which, request } => {
                if let Some(badge) = badges.len().checked_sub(which + 1).map(|n| badges[n]) {
                    booted.send(badge, request);
                }
            }
            Step::Admin(device) => {
                let request = match device {
                    Some(device) => pci::Request::Remove {
                        device: PLACES[device].parse().unwrap(),
                    },
                    None => pci::Request::Rescan {},
                };
                booted.send(Badge::plain(BadgeKind::Admin, 0), request);
            }
            Step::Gone(client) => {
                booted.supervisor().client_gone(ClientId(client)).unwrap();
            }
            Step::Pass(micros) => booted.pass(micros),
            Step::FailNext(n) => {
                failed = true;
                booted.world(|world| world.kernel.fail_at = Some(world.kernel.calls + n));
            }
        }
        booted.interrupts();
        check(&booted, failed);
    }
    booted.world(|world| world.kernel.fail_at = None);
    for client in 0..3 {
        booted.supervisor().client_gone(ClientId(client)).unwrap();
    }
    booted.rest();
    for port in PORTS {
        booted.pull(port);
    }
    booted.rest();
    check(&booted, failed);
    assert_eq!(booted.supervisor().pending().unwrap().count, 0);
    let figures = booted.supervisor().figures().unwrap();
    assert_eq!((figures.assigned, figures.parked), (0, 0));
    booted.world(|world| {
        assert!(world.parked.is_empty(), "somebody waits for ever");
        if !failed {
            assert!(world.attached.is_empty() && world.vectors.is_empty());
            assert!(world.kernel.held_by_clients().is_empty());
            assert_eq!(world.kernel.slots_used(), slots);
        }
    });
    if !failed {
        for behind in ["01:00.0", "01:00.1", "01:00.2", "04:00.0", "04:00.1"] {
            assert!(!booted.knows(behind), "{behind} is still known");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]
    #[test]
    fn whatever_happens_to_cards_the_invariants_hold(steps in prop::collection::vec(step(), 1..60)) {
        run(steps);
    }
}
