//! Virtual functions: each is a device of its own, and all of them go before their physical one.
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
use ipc_proto::{ClientId, DeviceState, EventKind, Mechanism, ResetKind, Rule, Switch, pci};
use sim::config::{BarShape, Endpoint, ExpressShape, MsixShape, PortKind, VirtualShape};
use system::model::{DeviceMatch, VirtualFunctions};

const FIRST: &str = "0000:01:00.1";
const SECOND: &str = "0000:01:00.2";
const APERTURE: u64 = 0x80_1000_0000;
const BYTES: u64 = 16 << 10;

fn endpoint() -> ExpressShape {
    ExpressShape {
        kind: PortKind::Endpoint,
        flr: true,
        slot: None,
    }
}

fn virtual_function() -> Endpoint {
    Endpoint::new(0xffff, 0xffff)
        .class(0x01, 0x08, 0x02)
        .msix(MsixShape {
            entries: 4,
            table: (0, 0x2000),
            pending: (0, 0x3000),
        })
        .express(endpoint())
}

fn physical(total: u16) -> Endpoint {
    Endpoint::new(0x1b36, 0x0010)
        .class(0x01, 0x08, 0x02)
        .bar(
            0,
            BarShape::Memory64 {
                size: 4096,
                address: 0x80_0000_0000,
                prefetchable: false,
            },
        )
        .express(endpoint())
        .virtualization(
            VirtualShape {
                total,
                first_offset: 1,
                stride: 1,
                device: 0x0011,
                bar_bytes: BYTES,
            },
            virtual_function(),
        )
}

/// A card with a physical function, whose virtual ones' memory firmware has placed.
fn scene(total: u16) -> Booted {
    let booted = booted(&[(CARD, physical(total))]);
    booted.world(|world| {
        let offset = 0x100 + 0x24;
        let low = (APERTURE as u32 | 4).to_le_bytes();
        let high = ((APERTURE >> 32) as u32).to_le_bytes();
        world.machine.poke(at(CARD), offset, &low);
        world.machine.poke(at(CARD), offset + 4, &high);
    });
    booted
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
fn each_is_a_device_of_its_own() {
    let booted = scene(8);
    let physical = booted.assigned(0, at(CARD), 1);
    let start = booted.world(|world| world.clock_us());
    let reply = physical.virtual_functions(3).unwrap();
    assert_eq!((reply.first, reply.stride, reply.count), (at(FIRST), 1, 3));
    let took = booted.world(|world| world.clock_us()) - start;
    assert!((100_000..200_000).contains(&took), "{took} us");
    assert_eq!(booted.news(1).len(), 3);
    let first = booted.assigned(1, at(FIRST), 1);
    let second = booted.assigned(0, at(SECOND), 2);
    let info = first.info().unwrap();
    assert_eq!(info.ids, 0x0011_1b36);
    assert_eq!(info.properties.reset, Some(ResetKind::Flr));
    let bar = second.bar(0).unwrap();
    assert_eq!(
        (bar.bytes, bar.withheld_first, bar.withheld_count),
        (BYTES, 2, 2)
    );
    first.bar_frames(0, 0, 1, 2).unwrap();
    second.bar_frames(0, 1, 1, 3).unwrap();
    assert_eq!(
        first.bar_frames(0, 2, 1, 9).unwrap_err().rule,
        Rule::PageWithheld
    );
    let mut frames: Vec<u64> = booted.world(|world| {
        let held = world.kernel.held_by_clients();
        let frames = held.into_iter().filter_map(|(_, object)| match object {
            Object::Frame { base, .. } => Some(base),
            _ => None,
        });
        frames.collect()
    });
    frames.sort_unstable();
    // The port does not forward what firmware chose: they are in its window now, one behind the other.
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0] % BYTES, 0);
    assert_eq!(frames[1], frames[0] + BYTES + 4096);
    first.msi_enable(Mechanism::MsiX, 0, 2, 4).unwrap();
    first.bus_master(Switch::On).unwrap();
    assert_eq!(first.reset().unwrap().kind, ResetKind::Flr);
    assert_eq!(booted.world(|world| world.machine.resets(at(FIRST))), 1);
    let attached: Vec<_> = booted.world(|world| world.attached.keys().copied().collect());
    assert_eq!(attached, [at(CARD), at(FIRST), at(SECOND)]);
}

#[test]
fn none_goes_while_one_is_held() {
    let booted = scene(8);
    let physical = booted.assigned(0, at(CARD), 1);
    physical.virtual_functions(2).unwrap();
    let first = booted.assigned(1, at(FIRST), 1);
    for count in [0, 1, 3] {
        let refused = physical.virtual_functions(count).unwrap_err();
        assert_eq!(refused.rule, Rule::VirtualFunctionHeld);
    }
    assert_eq!(
        physical.reset().unwrap_err().rule,
        Rule::VirtualFunctionHeld
    );
    first.release().unwrap();
    assert_eq!(physical.virtual_functions(0).unwrap().count, 0);
    assert!(!booted.knows(FIRST) && !booted.knows(SECOND));
    assert!(booted.world(|world| !world.machine.addresses().any(|device| device == at(FIRST))));
    let removed = booted.news(1);
    assert_eq!(
        removed
            .iter()
            .filter(|(kind, _, _)| *kind == EventKind::Removed)
            .count(),
        2
    );
    physical.virtual_functions(1).unwrap();
    assert!(booted.knows(FIRST) && !booted.knows(SECOND));
}

#[test]
fn a_count_that_does_not_fit_is_refused_and_nothing_changes() {
    let booted = scene(40);
    let before = booted.world(|world| world.machine.snapshot(at(CARD)));
    let device = booted.assigned(0, at(CARD), 1);
    let refused = device.virtual_functions(41).unwrap_err();
    assert_eq!((refused.rule, refused.about), (Rule::BadFunctionCount, 40));
    device.release().unwrap();
    let other = booted.world(|world| world.machine.snapshot(at(CARD)));
    // Page size is set; nothing else stays.
    assert_eq!(before[0x108..0x114], other[0x108..0x114]);

    let booted = booted_with_narrow_bus();
    let device = booted.assigned(0, at(OTHER_CARD), 1);
    let refused = device.virtual_functions(300).unwrap_err();
    assert_eq!(refused.rule, Rule::BadFunctionCount);
    let refused = device.virtual_functions(2).unwrap_err();
    assert_eq!((refused.rule, refused.about), (Rule::BadFunctionCount, 1));
}

/// The second virtual function would be on a bus that does not lead there.
fn booted_with_narrow_bus() -> Booted {
    let card = Endpoint::new(0x1b36, 0x0010)
        .class(0x01, 0x08, 0x02)
        .express(endpoint())
        .virtualization(
            VirtualShape {
                total: 400,
                first_offset: 1,
                stride: 256,
                device: 0x0011,
                bar_bytes: BYTES,
            },
            virtual_function(),
        );
    booted(&[(OTHER_CARD, card)])
}

#[test]
fn a_device_without_them_says_so() {
    let booted = booted(&[(CARD, card())]);
    let device = booted.assigned(0, at(CARD), 1);
    assert_eq!(
        device.virtual_functions(1).unwrap_err().rule,
        Rule::NoVirtualFunctions
    );
    assert_eq!(
        device.virtual_functions(0).unwrap_err().rule,
        Rule::NoVirtualFunctions
    );
}

#[test]
fn a_release_of_the_physical_function_takes_them_from_their_holders_first() {
    let booted = scene(8);
    let physical = booted.assigned(0, at(CARD), 1);
    physical.virtual_functions(2).unwrap();
    let first = booted.assigned(1, at(FIRST), 1);
    first.bar_frames(0, 0, 1, 2).unwrap();
    booted.world(|world| world.did.clear());
    physical.release().unwrap();
    assert!(first.info().is_err());
    booted.world(|world| {
        let detached: Vec<_> = world
            .did
            .iter()
            .filter_map(|did| match did {
                Did::Detached(device) => Some(*device),
                _ => None,
            })
            .collect();
        assert_eq!(detached, [at(FIRST), at(CARD)]);
        assert_eq!(world.machine.snapshot(at(CARD))[0x108], 0, "switched off");
        assert!(world.kernel.held_by_clients().is_empty());
    });
    assert_eq!(state(&booted, CARD), DeviceState::Quarantined);
    assert!(!booted.knows(FIRST));
    let last = booted.news(1).pop().unwrap();
    assert_eq!(last.0, EventKind::Removed);
}

#[test]
fn the_death_of_the_physical_functions_holder_takes_them_too() {
    for moment in [0, 50_000, 150_000] {
        let booted = scene(8);
        booted.assigned(0, at(CARD), 1);
        let badge = booted.badge_in(0, 1);
        let request = pci::Request::VirtualFunctions { count: 2 };
        let ticket = booted.parked(badge, request);
        booted.pass(moment);
        let up = booted.knows(FIRST);
        if up {
            booted.assigned(1, at(FIRST), 1);
        }
        booted.supervisor().client_gone(ClientId(0)).unwrap();
        booted.rest();
        assert_eq!(booted.supervisor().pending().unwrap().count, 0);
        assert_eq!(booted.answer(ticket).unwrap().label == 0, up);
        assert!(!booted.knows(FIRST));
        assert_eq!(state(&booted, CARD), DeviceState::Quarantined);
        assert!(booted.world(|world| world.attached.is_empty()));
    }
}

#[test]
fn a_card_that_is_pulled_takes_them_along() {
    let booted = scene(8);
    let physical = booted.assigned(0, at(CARD), 1);
    physical.virtual_functions(2).unwrap();
    booted.assigned(1, at(FIRST), 1);
    booted.pull(PORT);
    booted.rest();
    assert!(!booted.knows(CARD) && !booted.knows(FIRST) && !booted.knows(SECOND));
    booted.world(|world| {
        assert!(world.attached.is_empty());
        assert!(world.kernel.held_by_clients().is_empty());
    });
}

#[test]
fn the_platform_enables_them_at_boot_and_keeps_the_physical_function() {
    let any = DeviceMatch::Class { class: 0, mask: 0 };
    let mut info = pci_info();
    let wanted = VirtualFunctions {
        device: DeviceMatch::Address(at(CARD).to_bits()),
        count: 2,
    };
    info.virtual_functions.push(wanted).unwrap();
    let machine = machine(&[(CARD, physical(4))]);
    let offset = 0x100 + 0x24;
    machine.poke(at(CARD), offset, &(APERTURE as u32 | 4).to_le_bytes());
    machine.poke(
        at(CARD),
        offset + 4,
        &((APERTURE >> 32) as u32).to_le_bytes(),
    );
    let booted = Booted::with(World::new(machine), info, vec![client("zero", &[any])]);
    booted.rest();
    assert_eq!(state(&booted, CARD), DeviceState::Withheld);
    let device = booted.assigned(0, at(SECOND), 1);
    device.release().unwrap();
    let refused = booted
        .client(0)
        .assign(at(CARD), 1, ipc_proto::ContextChoice::Shared)
        .unwrap_err();
    assert_eq!(refused.rule, Rule::Withheld);
}
